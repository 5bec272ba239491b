//! The view of a link for a person, before anything is sent.

use rand_core::{CryptoRng, RngCore};

use super::pairings::Pairings;
use super::stored::Stored;
use crate::agent_url::AgentUrl;
use crate::key::{AgentPublicKey, HolderSecretKey};
use crate::label::Label;
use crate::protocol::link::Link;

/// A link before the person has accepted it. A [`Connection`](super::Connection) is made from what
/// [`accept`](Self::accept) returns, so nothing is sent before.
///
/// Show the host, the fingerprint and [`known`](Self::known). The session, the operations and the end are not in the
/// link; the agent says them when the phone joins.
#[derive(Debug, Clone)]
#[must_use = "show it, and accept it if the person says so"]
pub struct Preview {
    link: Link,
    known: Known,
    /// The pairing that the same link was accepted for before.
    before: Option<Stored>,
}

/// The phone's knowledge of the agent of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Known {
    /// This link was accepted before: joining goes on with the same pairing.
    Link,
    /// The phone has another pairing with this agent.
    Agent,
    /// The phone has a pairing with another agent at this host. The agent may have a new key, or somebody else answers
    /// there: the person should compare the fingerprint.
    HostOfAnother,
    /// Neither the agent nor its host is known.
    Nothing,
}

/// A link that the person has accepted, as a pairing to be stored first.
#[derive(Debug, Clone)]
#[must_use = "make a connection of it"]
pub struct Accepted {
    pub(super) stored: Stored,
}

impl Preview {
    /// Looks at a link. Costs two scalar multiplications. Opens and sends nothing.
    pub fn new(link: Link, pairings: &Pairings) -> Self {
        let before =
            pairings.get(&link.ticket().id()).filter(|stored| stored.agent() == link.agent()).cloned();
        let host = link.url().host();
        let known = if before.is_some() {
            Known::Link
        } else if pairings.with_agent(link.agent()).next().is_some() {
            Known::Agent
        } else if pairings.iter().any(|stored| stored.addresses().iter().any(|url| url.host() == host)) {
            Known::HostOfAnother
        } else {
            Known::Nothing
        };
        Self { link, known, before }
    }

    /// Returns the address that will be connected to.
    #[must_use]
    pub fn url(&self) -> &AgentUrl {
        self.link.url()
    }

    /// Returns the host, as a person knows it.
    #[must_use]
    pub fn host(&self) -> String {
        self.link.url().host()
    }

    /// Returns the agent's key.
    #[must_use]
    pub fn agent(&self) -> &AgentPublicKey {
        self.link.agent()
    }

    /// Returns the agent's key as people compare it: its 64 hexadecimal digits in groups of eight.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digits: Vec<char> = self.link.agent().to_string().chars().collect();
        digits.chunks(8).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join(" ")
    }

    /// Returns whether the phone knows the agent.
    #[must_use]
    pub fn known(&self) -> Known {
        self.known
    }

    /// Makes the pairing, with a new key. The same link goes on with the pairing that was made for it before, so that a
    /// link that is delivered twice is redeemed once. `label` is the phone's name for itself, shown on the desktop.
    pub fn accept<R: RngCore + CryptoRng>(self, label: Label, rng: &mut R) -> Accepted {
        let stored = match self.before {
            Some(before) => before,
            None => Stored::begin(&self.link, HolderSecretKey::generate(rng), label),
        };
        Accepted { stored }
    }
}

impl Accepted {
    /// Returns the pairing, to be put into the list.
    #[must_use]
    pub fn stored(&self) -> &Stored {
        &self.stored
    }
}

impl Known {
    /// Returns a stable name for programs and logs.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Agent => "agent",
            Self::HostOfAnother => "host_of_another",
            Self::Nothing => "nothing",
        }
    }
}
