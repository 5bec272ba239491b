//! Being found.

use std::time::Duration;

use mdns_sd::{DaemonEvent, Receiver, ServiceDaemon, ServiceInfo};
use rand::RngCore;
use rand::rngs::OsRng;
use sessioncap::Label;
use tokio::sync::watch;
use tokio::time::timeout;

use super::record::{read_name, read_path};
use super::{Interfaces, KeyHash, SERVICE_TYPE, UNABLE};
use crate::problem::{Outcome, Problem, While};

/// How long the thread may take for a goodbye.
const GOODBYE: Duration = Duration::from_secs(2);
/// The thread says goodbye a second time after 120 ms, for those who missed the first.
const SECOND_GOODBYE: Duration = Duration::from_millis(150);

/// What is said of an agent.
#[derive(Debug, Clone)]
pub struct Advert {
    /// What people call it, 1 to [`Advert::MAX_NAME_LEN`] bytes.
    pub name: Label,
    /// A host name of its own, without `.local`: the machine's own name is for the system's service to answer for.
    pub host: String,
    /// Where it listens.
    pub port: u16,
    /// The path of its WebSocket.
    pub path: String,
    /// The hash of its key.
    pub key: KeyHash,
}

/// How an advertisement goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The present name: it changes when another agent on the network has the same.
    pub name: Label,
    /// Whether it has been announced.
    pub announced: bool,
    /// The last failure.
    pub trouble: Option<String>,
}

/// An agent that is advertised, until [`Advertisement::stop`].
pub struct Advertisement {
    daemon: ServiceDaemon,
    fullname: String,
    state: watch::Receiver<State>,
}

impl Advert {
    /// Longest name, bytes: with the number that it may get beside its equals it is still a label.
    pub const MAX_NAME_LEN: usize = Label::MAX_LEN - " (99)".len();

    /// With a host name that no other agent has: two with one would take each other's addresses away.
    pub fn new(name: Label, port: u16, path: &str, key: KeyHash) -> Self {
        let host = format!("sessioncap-{:08x}", OsRng.next_u32());
        Self { name, host, port, path: path.to_owned(), key }
    }

    fn check(&self) -> Outcome<()> {
        let host = self.host.as_bytes();
        let plain = host.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
        if !plain || host.is_empty() || host.len() > 63 {
            return Err(Problem::said("a host name is 1 to 63 letters, digits and hyphens"));
        }
        if !(1..=Self::MAX_NAME_LEN).contains(&self.name.as_str().len()) {
            return Err(Problem::Said(format!(
                "the name of an advertised agent is 1 to {} bytes long",
                Self::MAX_NAME_LEN
            )));
        }
        if self.port == 0 {
            return Err(Problem::said("an advertised agent listens on a port of its own, not on 0"));
        }
        read_path(&self.path).map(drop).ok_or_else(|| {
            Problem::said("the path of an agent's WebSocket is as in its address, for example /noise/ws")
        })
    }
}

impl Advertisement {
    /// Begins to advertise an agent at all addresses of these interfaces, also those that come later. To be called on
    /// a runtime.
    ///
    /// # Errors
    /// A part of the advert is out of bounds; the system lets no thread or socket be made.
    pub fn start(advert: &Advert, interfaces: Interfaces) -> Outcome<Self> {
        advert.check()?;
        let daemon = interfaces.daemon()?;
        let events = daemon.monitor().during(UNABLE)?;
        let key = advert.key.to_string();
        let properties = [("v", "1"), ("path", advert.path.as_str()), ("key", key.as_str())];
        let host = format!("{}.local.", advert.host);
        let service =
            ServiceInfo::new(SERVICE_TYPE, advert.name.as_str(), &host, "", advert.port, &properties[..])
                .during("the agent cannot be advertised")?
                .enable_addr_auto();
        let fullname = service.get_fullname().to_owned();
        daemon.register(service).during(UNABLE)?;
        let state = State { name: advert.name.clone(), announced: false, trouble: None };
        let (sender, state) = watch::channel(state);
        tokio::spawn(follow(events, sender));
        Ok(Self { daemon, fullname, state })
    }

    /// How it goes.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Follows how it goes.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Says goodbye, so that nobody keeps the record, and ends the thread. Takes a fraction of a second.
    pub async fn stop(self) {
        let goodbye = async {
            // The thread knows it by the name that it was given first.
            if let Ok(done) = self.daemon.unregister(&self.fullname) {
                let _ = done.recv_async().await;
                tokio::time::sleep(SECOND_GOODBYE).await;
            }
            if let Ok(done) = self.daemon.shutdown() {
                let _ = done.recv_async().await;
            }
        };
        // The records run out by themselves.
        let _ = timeout(GOODBYE, goodbye).await;
    }
}

impl Drop for Advertisement {
    fn drop(&mut self) {
        let _ = self.daemon.shutdown();
    }
}

async fn follow(events: Receiver<DaemonEvent>, state: watch::Sender<State>) {
    while let Ok(event) = events.recv_async().await {
        match event {
            DaemonEvent::Announce(..) => {
                state.send_if_modified(|state| !std::mem::replace(&mut state.announced, true));
            }
            DaemonEvent::NameChange(change) => {
                // A changed host name concerns nobody: records name it.
                if let Some(name) = read_name(&change.new_name) {
                    state.send_modify(|state| state.name = name);
                }
            }
            DaemonEvent::Error(error) => {
                state.send_modify(|state| state.trouble = Some(error.to_string()));
            }
            _ => {}
        }
    }
}
