//! The list of pairings.

use std::sync::Arc;

use sessioncap::TicketId;
use sessioncap::app::{self, Stored};

use crate::event::names;
use crate::failure::Failed;
use crate::guarded::Guarded;

/// The phone's pairings, the latest first. It stores nothing by itself.
#[cfg_attr(feature = "uniffi", derive(uniffi::Object))]
pub struct Pairings(Guarded<app::Pairings>);

/// A pairing, for a list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct PairingInfo {
    /// The name of the keychain's entry.
    pub ticket: String,
    /// The agent's key, hexadecimal.
    pub agent: String,
    /// The agent's address that worked last.
    pub url: String,
    /// Its host.
    pub host: String,
    /// The phone's name for itself.
    pub label: String,
    /// The session, once the link is redeemed.
    pub session: Option<String>,
    /// The operations that are allowed.
    pub ops: Vec<String>,
    /// When it ends by the agent's clock, seconds since 1970, as far as the phone knows.
    pub end: Option<u64>,
}

/// Makes an empty list.
#[cfg_attr(feature = "uniffi", uniffi::export)]
#[must_use]
pub fn new_pairings() -> Arc<Pairings> {
    Arc::new(Pairings::empty())
}

impl Pairings {
    pub(crate) fn empty() -> Self {
        Self(Guarded::new(app::Pairings::new()))
    }

    pub(crate) fn with<R>(&self, use_it: impl FnOnce(&mut app::Pairings) -> R) -> Result<R, Failed> {
        self.0.with(use_it)
    }

    pub(crate) fn put_bytes(&self, stored: &[u8]) -> Result<(), Failed> {
        let stored = Stored::from_bytes(stored)?;
        Ok(self.0.with(|pairings| pairings.put(stored))??)
    }

    pub(crate) fn forget_ticket(&self, ticket: &str) -> Result<bool, Failed> {
        let ticket: TicketId = ticket.parse()?;
        self.0.with(|pairings| pairings.forget(&ticket).is_some())
    }
}

impl From<&Stored> for PairingInfo {
    fn from(stored: &Stored) -> Self {
        let access = stored.access();
        let url = stored.addresses().first();
        Self {
            ticket: stored.ticket().to_string(),
            agent: stored.agent().to_string(),
            url: url.map(ToString::to_string).unwrap_or_default(),
            host: url.map(sessioncap::AgentUrl::host).unwrap_or_default(),
            label: stored.label().to_string(),
            session: access.map(|access| access.session.to_string()),
            ops: access.map(|access| names(access.ops)).unwrap_or_default(),
            end: access.map(|access| access.end.seconds()),
        }
    }
}

#[cfg_attr(feature = "uniffi", uniffi::export)]
impl Pairings {
    /// Adds what the keychain has returned, in place of the pairing of the same ticket.
    ///
    /// # Errors
    /// `stored_foreign`, `stored_newer`, `stored_damaged`, `too_many_pairings`, or `wiped`.
    pub fn put(&self, stored: Vec<u8>) -> Result<(), Failed> {
        self.put_bytes(&zeroize::Zeroizing::new(stored))
    }

    /// Returns the pairings, the latest first.
    ///
    /// # Errors
    /// `wiped`.
    pub fn list(&self) -> Result<Vec<PairingInfo>, Failed> {
        self.0.with(|pairings| pairings.iter().map(PairingInfo::from).collect())
    }

    /// Forgets a pairing. The app deletes the keychain's entry. Returns whether there was one.
    ///
    /// # Errors
    /// The code of what is wrong with the ticket's id, or `wiped`.
    pub fn forget(&self, ticket: String) -> Result<bool, Failed> {
        self.forget_ticket(&ticket)
    }

    /// Wipes the list. Wiping twice is nothing.
    pub fn wipe(&self) {
        drop(self.0.take());
    }
}
