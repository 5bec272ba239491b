//! Looking for agents.

use std::time::Duration;

use mdns_sd::{Receiver, ServiceDaemon, ServiceEvent};
use sessioncap::Label;

use super::record::{Found, Record, read_name};
use super::{Interfaces, KeyHash, SERVICE_TYPE, UNABLE};
use crate::problem::{Outcome, While};

/// How long the thread is given when its queue is full.
const AGAIN: Duration = Duration::from_millis(100);

/// What is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An agent, or something new about one.
    Found(Found),
    /// One has said goodbye, or its record has run out. A crash is noticed by the latter only, after up to two minutes.
    Gone(Label),
}

/// Listens for agents. Ends when it is dropped.
pub struct Browse {
    daemon: ServiceDaemon,
    receiver: Receiver<ServiceEvent>,
    interfaces: Interfaces,
    own: Option<KeyHash>,
    pub(super) known: Known,
}

impl Browse {
    /// Most records with one hash that are remembered and tried.
    pub const MOST_CANDIDATES: usize = 8;
    /// Most records that are remembered.
    pub const MOST_RECORDS: usize = 256;

    /// Begins. Records with the key of `own`, if this process is itself an agent, are left out.
    pub fn start(own: Option<KeyHash>, interfaces: Interfaces) -> Outcome<Self> {
        let daemon = interfaces.daemon()?;
        let receiver = daemon.browse(SERVICE_TYPE).during(UNABLE)?;
        Ok(Self { daemon, receiver, interfaces, own, known: Known::default() })
    }

    /// Asks the network anew, as somebody who knows nothing. The records that were heard stay.
    pub fn ask_again(&mut self) -> Outcome<()> {
        let daemon = self.interfaces.daemon()?;
        self.receiver = daemon.browse(SERVICE_TYPE).during(UNABLE)?;
        // A thread whose queue is full lives on and hears nobody.
        let _ = std::mem::replace(&mut self.daemon, daemon).shutdown();
        Ok(())
    }

    /// What is heard next. Cancel-safe.
    pub async fn next(&mut self) -> Outcome<Event> {
        loop {
            let event = self.receive().await?;
            if let Some(event) = self.take(event) {
                return Ok(event);
            }
        }
    }

    /// The records that say that they are of this key, the newest first, at most [`Browse::MOST_CANDIDATES`].
    pub fn candidates(&self, key: KeyHash) -> Vec<Found> {
        self.known.of(key)
    }

    /// The subscription is closed without an event when this side was too slow; then it begins again.
    pub(super) async fn receive(&mut self) -> Outcome<ServiceEvent> {
        loop {
            if let Ok(event) = self.receiver.recv_async().await {
                return Ok(event);
            }
            match self.daemon.browse(SERVICE_TYPE) {
                Ok(receiver) => {
                    self.receiver = receiver;
                    // Nothing is told of agents that went meanwhile; those that are still there are told anew.
                    self.known = Known::default();
                }
                Err(mdns_sd::Error::Again) => tokio::time::sleep(AGAIN).await,
                Err(error) => return Err(error).during(UNABLE),
            }
        }
    }

    pub(super) fn take(&mut self, event: ServiceEvent) -> Option<Event> {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                let found = Record::of(&service).read(&self.interfaces)?;
                if Some(found.key) == self.own {
                    return None;
                }
                self.known.add(found)
            }
            ServiceEvent::ServiceRemoved(_, fullname) => self.known.remove(&read_name(&fullname)?),
            _ => None,
        }
    }

    #[cfg(test)]
    pub(super) fn daemon(&self) -> &ServiceDaemon {
        &self.daemon
    }
}

impl Drop for Browse {
    fn drop(&mut self) {
        // A thread whose queue is full lives on and hears nobody.
        let _ = self.daemon.shutdown();
    }
}

/// The records that are there, the oldest first. Two agents may say the same name, one of them to hide the other: only
/// a record with all addresses of another takes its place.
#[derive(Default)]
pub(super) struct Known(Vec<Found>);

impl Known {
    pub fn add(&mut self, found: Found) -> Option<Event> {
        if self.0.contains(&found) {
            return None;
        }
        self.0.retain(|known| !found.includes(known));
        let same = self.0.iter().filter(|known| known.key == found.key).count();
        if same >= Browse::MOST_CANDIDATES
            && let Some(at) = self.0.iter().position(|known| known.key == found.key)
        {
            self.0.remove(at);
        }
        if self.0.len() >= Browse::MOST_RECORDS {
            self.0.remove(0);
        }
        self.0.push(found.clone());
        Some(Event::Found(found))
    }

    pub fn remove(&mut self, name: &Label) -> Option<Event> {
        let before = self.0.len();
        self.0.retain(|known| known.name != *name);
        (self.0.len() < before).then(|| Event::Gone(name.clone()))
    }

    pub fn of(&self, key: KeyHash) -> Vec<Found> {
        let newest = self.0.iter().rev().filter(|known| known.key == key);
        newest.take(Browse::MOST_CANDIDATES).cloned().collect()
    }
}
