//! Reading records that anybody on the network may have written.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use mdns_sd::{ResolvedService, ScopedIp};
use sessioncap::{AgentUrl, Label};

use super::{Interfaces, KeyHash, SERVICE_TYPE};

/// An agent that is advertised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it calls itself.
    pub name: Label,
    /// Where it may be, the likeliest first; link-local ones with their interface. Never empty.
    pub addresses: Vec<SocketAddr>,
    /// The path of its WebSocket.
    pub path: String,
    /// What it says of its key.
    pub key: KeyHash,
}

impl Found {
    /// Most addresses of one record that are tried.
    pub const MOST_ADDRESSES: usize = 8;

    /// Whether this record says all that the other says.
    pub(super) fn includes(&self, other: &Self) -> bool {
        self.name == other.name
            && self.path == other.path
            && self.key == other.key
            && other.addresses.iter().all(|address| self.addresses.contains(address))
    }
}

/// A record as it came, with nothing checked.
pub struct Record {
    /// The instance, with the service, as [`mdns_sd`] writes it.
    pub fullname: String,
    /// Where it listens.
    pub port: u16,
    /// With the index of the interface over which it came, 0 if that is not known.
    pub addresses: Vec<(IpAddr, u32)>,
    /// What its text record says.
    pub properties: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    pub(super) fn of(service: &ResolvedService) -> Self {
        let address = |ip: &ScopedIp| match ip {
            ScopedIp::V6(v6) => Some((IpAddr::V6(*v6.addr()), v6.scope_id().index)),
            ScopedIp::V4(v4) => Some((IpAddr::V4(*v4.addr()), 0)),
            _ => None,
        };
        let properties = service.txt_properties.iter();
        Self {
            fullname: service.fullname.clone(),
            port: service.port,
            addresses: service.addresses.iter().filter_map(address).collect(),
            properties: properties
                .map(|each| (each.key().to_owned(), each.val().map(<[u8]>::to_vec)))
                .collect(),
        }
    }

    /// What it says. `None` for whatever is not wholly as an agent writes it.
    pub fn read(self, interfaces: &Interfaces) -> Option<Found> {
        let name = read_name(&self.fullname)?;
        if self.port == 0 || self.property("v")? != "1" {
            return None;
        }
        let key = self.property("key")?.parse().ok()?;
        let path = read_path(self.property("path")?)?;
        let addresses = self.addresses.iter();
        let addresses = addresses.filter_map(|(ip, scope)| address(*ip, *scope, self.port, interfaces));
        let mut addresses: Vec<SocketAddr> = addresses.collect();
        addresses.sort_by_key(|address| (rank(address.ip()), *address));
        addresses.dedup();
        addresses.truncate(Found::MOST_ADDRESSES);
        (!addresses.is_empty()).then_some(Found { name, addresses, path, key })
    }

    /// The value of a property that is there once, in whichever case.
    fn property(&self, key: &str) -> Option<&str> {
        let mut named = self.properties.iter().filter(|(name, _)| name.eq_ignore_ascii_case(key));
        let (_, value) = named.next()?;
        if named.next().is_some() {
            return None;
        }
        std::str::from_utf8(value.as_deref()?).ok()
    }
}

/// The name of the instance: before the service, without the escapes of dots and backslashes.
pub(super) fn read_name(fullname: &str) -> Option<Label> {
    let length = fullname.len().checked_sub(SERVICE_TYPE.len())?;
    let (name, service) = fullname.split_at_checked(length)?;
    if !service.eq_ignore_ascii_case(SERVICE_TYPE) {
        return None;
    }
    let mut text = String::new();
    let mut characters = name.strip_suffix('.')?.chars();
    while let Some(character) = characters.next() {
        text.push(if character == '\\' { characters.next()? } else { character });
    }
    Label::new(text).ok().filter(|label| !label.as_str().is_empty())
}

/// A path as an agent's address has it.
pub(super) fn read_path(path: &str) -> Option<String> {
    let url = AgentUrl::parse(&format!("ws://agent.local{path}")).ok()?;
    (url.path() == path).then(|| path.to_owned())
}

/// An address that can be another machine's.
fn address(ip: IpAddr, scope: u32, port: u16, interfaces: &Interfaces) -> Option<SocketAddr> {
    let refused = match ip {
        IpAddr::V4(v4) => v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => {
            v6.is_unspecified()
                || v6.is_multicast()
                || v6.to_ipv4_mapped().is_some()
                || v6.is_unicast_link_local() && scope == 0
        }
    };
    // Otherwise a record could make a phone connect to programs of its own machine.
    if refused || ip.is_loopback() && *interfaces != Interfaces::All {
        return None;
    }
    Some(match ip {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => SocketAddrV6::new(v6, port, 0, scope).into(),
        ip => SocketAddr::new(ip, port),
    })
}

/// The lower, the earlier it is tried.
fn rank(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(v4) if !v4.is_link_local() => 0,
        IpAddr::V6(v6) if !v6.is_unicast_link_local() => 1,
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 3,
    }
}
