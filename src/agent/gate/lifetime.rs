//! The bounds of a lifetime that a desktop may ask for.

use crate::agent::denial::Denial;
use crate::clock::Timestamp;
use crate::limits::{
    MAX_CREDENTIAL_LIFETIME, MAX_TICKET_LIFETIME, MIN_CREDENTIAL_LIFETIME, MIN_TICKET_LIFETIME,
};

/// A lifetime within its bounds, in seconds.
#[derive(Clone, Copy)]
pub(super) struct Lifetime(u64);

impl Lifetime {
    pub(super) fn of_ticket(seconds: u64) -> Result<Self, Denial> {
        Self::within(seconds, MIN_TICKET_LIFETIME, MAX_TICKET_LIFETIME)
    }

    pub(super) fn of_credential(seconds: u64) -> Result<Self, Denial> {
        Self::within(seconds, MIN_CREDENTIAL_LIFETIME, MAX_CREDENTIAL_LIFETIME)
    }

    fn within(seconds: u64, min: u64, max: u64) -> Result<Self, Denial> {
        if (min..=max).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(Denial::LifetimeOutOfBounds { min, max })
        }
    }

    /// Returns the end of a lifetime that starts at `beginning`.
    pub(super) fn from(self, beginning: Timestamp) -> Timestamp {
        beginning.plus(self.0)
    }
}
