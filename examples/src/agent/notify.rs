//! Tells a service manager that the agent is ready, where one asked: a datagram to `NOTIFY_SOCKET`.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says one thing, such as `READY=1`. Without a service manager, nothing.
pub(crate) fn notify(what: &str) {
    let Some(place) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match place.as_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&place),
    };
    // A service manager that does not hear it says so itself.
    let told = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(what.as_bytes(), &address));
    drop(told);
}
