//! Looking for agents.

use std::time::Duration;

use mdns_sd::{Receiver, ServiceDaemon, ServiceEvent};
use sessioncap::Label;
use tokio::time::{Instant, sleep_until};

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
    /// From the beginning to the end: it hears who goes.
    lasting: Query,
    /// The latest of those that know nothing yet.
    fresh: Option<Query>,
    /// When the network is asked anew, and how long after that again.
    due: Instant,
    pause: Duration,
    interfaces: Interfaces,
    own: Option<KeyHash>,
    pub(super) known: Known,
}

impl Browse {
    /// Most records with one hash that are remembered and tried.
    pub const MOST_CANDIDATES: usize = 8;
    /// Most records that are remembered.
    pub const MOST_RECORDS: usize = 256;
    /// How long after the beginning the network is asked anew, as by somebody who knows nothing: whoever knows a name is
    /// not answered by a second agent with the same. Each further time the pause is twice as long, up to
    /// [`Browse::LONGEST_PAUSE`].
    pub const FIRST_PAUSE: Duration = Duration::from_secs(1);
    /// Longest time between two questions.
    pub const LONGEST_PAUSE: Duration = Duration::from_secs(16);

    /// Begins. Records with the key of `own`, if this process is itself an agent, are left out. To be called on a
    /// runtime.
    pub fn start(own: Option<KeyHash>, interfaces: Interfaces) -> Outcome<Self> {
        Ok(Self {
            lasting: Query::start(&interfaces)?,
            fresh: None,
            due: Instant::now() + Self::FIRST_PAUSE,
            pause: Self::FIRST_PAUSE,
            interfaces,
            own,
            known: Known::default(),
        })
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

    pub(super) async fn receive(&mut self) -> Outcome<ServiceEvent> {
        loop {
            let of_fresh = async {
                match &mut self.fresh {
                    Some(query) => query.receive().await,
                    None => std::future::pending().await,
                }
            };
            let (heard, lasts) = tokio::select! {
                heard = self.lasting.receive() => (heard?, true),
                heard = of_fresh => (heard?, false),
                () = sleep_until(self.due) => {
                    self.fresh = Some(Query::start(&self.interfaces)?);
                    self.pause = self.pause.saturating_mul(2).min(Self::LONGEST_PAUSE);
                    self.due = Instant::now() + self.pause;
                    continue;
                }
            };
            match heard {
                Some(event) => return Ok(event),
                // Nothing is told of agents that went meanwhile; those that are still there are told anew.
                None if lasts => self.known = Known::default(),
                None => {}
            }
        }
    }

    /// The records that say that they are of this key, the newest first, at most [`Browse::MOST_CANDIDATES`].
    pub fn candidates(&self, key: KeyHash) -> Vec<Found> {
        self.known.of(key)
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

    /// Makes the next question due, and says how long after it the following is.
    #[cfg(test)]
    pub(super) fn ask_now(&mut self) -> Duration {
        self.due = Instant::now();
        self.pause.saturating_mul(2).min(Self::LONGEST_PAUSE)
    }

    #[cfg(test)]
    pub(super) fn daemon(&self) -> &ServiceDaemon {
        &self.lasting.daemon
    }
}

/// A thread that asks, and remembers for itself what it has heard.
struct Query {
    daemon: ServiceDaemon,
    receiver: Receiver<ServiceEvent>,
}

impl Query {
    fn start(interfaces: &Interfaces) -> Outcome<Self> {
        let daemon = interfaces.daemon()?;
        let receiver = daemon.browse(SERVICE_TYPE).during(UNABLE)?;
        Ok(Self { daemon, receiver })
    }

    /// The next event. The subscription is closed without one when this side was too slow; then it begins again, and
    /// there is none. Cancel-safe.
    async fn receive(&mut self) -> Outcome<Option<ServiceEvent>> {
        loop {
            if let Ok(event) = self.receiver.recv_async().await {
                return Ok(Some(event));
            }
            match self.daemon.browse(SERVICE_TYPE) {
                Ok(receiver) => {
                    self.receiver = receiver;
                    return Ok(None);
                }
                Err(mdns_sd::Error::Again) => tokio::time::sleep(AGAIN).await,
                Err(error) => return Err(error).during(UNABLE),
            }
        }
    }
}

impl Drop for Query {
    fn drop(&mut self) {
        // A thread whose queue is full lives on and hears nobody.
        let _ = self.daemon.shutdown();
    }
}

/// The records that are there, the oldest first. Two agents may say the same name, one of them to hide the other: a record
/// takes the place of another only where it has all its addresses.
#[derive(Default)]
pub(super) struct Known(Vec<Found>);

impl Known {
    pub fn add(&mut self, found: Found) -> Option<Event> {
        if self.0.iter().any(|known| known.includes(&found)) {
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
