//! The pairings of a phone, for an app that shows and reopens them.

use super::error::AppError;
use super::stored::Stored;
use crate::clock::Timestamp;
use crate::id::TicketId;
use crate::key::AgentPublicKey;
use crate::limits::MAX_PAIRINGS;

/// The phone's pairings, the latest first, one for each ticket. A value: it stores nothing by itself.
///
/// After a start, [`put`](Self::put) in every pairing that the keychain has. While the keychain says *not now*, the list
/// is not known: do not show an empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pairings(Vec<Stored>);

impl Pairings {
    /// Most pairings.
    pub const MAX: usize = MAX_PAIRINGS;

    /// Makes an empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a pairing, or takes it in place of the one of the same ticket.
    ///
    /// # Errors
    /// [`AppError::TooManyPairings`] if there are [`Pairings::MAX`] others.
    pub fn put(&mut self, stored: Stored) -> Result<(), AppError> {
        let is_full = self.0.len() >= MAX_PAIRINGS;
        match self.0.iter_mut().find(|other| other.ticket() == stored.ticket()) {
            Some(other) => *other = stored,
            None if is_full => return Err(AppError::TooManyPairings { max: MAX_PAIRINGS }),
            None => self.0.push(stored),
        }
        // A pairing that is not redeemed yet is the one that the person is making.
        self.0.sort_by_key(|stored| {
            core::cmp::Reverse(stored.access().map_or(Timestamp::MAX, |access| access.seen))
        });
        Ok(())
    }

    /// Returns the pairings, the latest first.
    pub fn iter(&self) -> impl Iterator<Item = &Stored> {
        self.0.iter()
    }

    /// Returns the pairing of a ticket.
    #[must_use]
    pub fn get(&self, ticket: &TicketId) -> Option<&Stored> {
        self.0.iter().find(|stored| stored.ticket() == ticket)
    }

    /// Returns the pairings with an agent, the latest first.
    pub fn with_agent(&self, agent: &AgentPublicKey) -> impl Iterator<Item = &Stored> {
        self.0.iter().filter(move |stored| stored.agent() == agent)
    }

    /// Forgets a pairing, and returns it; the app deletes it from the keychain. The agent keeps its record until its
    /// end; its owner can revoke it.
    pub fn forget(&mut self, ticket: &TicketId) -> Option<Stored> {
        let place = self.0.iter().position(|stored| stored.ticket() == ticket)?;
        Some(self.0.remove(place))
    }
}
