//! The ledger: what the agent remembers, and the one trait that a database implements for it
//! (`docs/PROTOCOL.md` section 8, `docs/ARCHITECTURE.md`).
//!
//! The ledger is an allow-list. A ticket or credential without a record is refused, so lost state
//! fails closed and memory is bounded by what is live. Every change is a pure function over a few
//! records, run inside one transaction of the backend; nothing is answered before that transaction
//! is durable.

#[cfg(feature = "redb")]
mod embedded;
mod event;
#[cfg(all(test, feature = "redb"))]
pub(crate) mod faulty;
mod memory;
mod overlay;
pub(crate) mod record;
pub(crate) mod rows;
pub(crate) mod transition;

#[cfg(feature = "redb")]
pub use embedded::RedbLedger;
pub use memory::MemoryLedger;

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use crate::agent::denial::LedgerFailure;

/// Where a record lives. A backend keeps each table as an ordered map from bytes to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Table {
    /// What the records belong to, counters, the agent's time.
    Meta,
    /// Issuers by their key.
    Issuers,
    /// Sessions by their id.
    Sessions,
    /// Tickets by their id.
    Tickets,
    /// Credentials by their id.
    Credentials,
    /// What belongs to a session: its id, a zero byte, whether it can still be used, kind and id. No
    /// value.
    BySession,
    /// What can still be used and is taken back by something else than its own id: that, kind and id. No
    /// value.
    ByHandle,
    /// What ends when: time, kind and id. No value.
    ByTime,
    /// Which ended credential is forgotten when: time, kind and id. No value.
    Ended,
    /// Audit records that the sink may not have yet, by their position.
    Events,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 10] = [
        Self::Meta,
        Self::Issuers,
        Self::Sessions,
        Self::Tickets,
        Self::Credentials,
        Self::BySession,
        Self::ByHandle,
        Self::ByTime,
        Self::Ended,
        Self::Events,
    ];

    /// A name for the backend's own use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Issuers => "issuers",
            Self::Sessions => "sessions",
            Self::Tickets => "tickets",
            Self::Credentials => "credentials",
            Self::BySession => "by_session",
            Self::ByHandle => "by_handle",
            Self::ByTime => "by_time",
            Self::Ended => "ended",
            Self::Events => "events",
        }
    }
}

/// One open transaction. Reads see the transaction's own writes.
pub trait Transaction {
    /// The value under `key`.
    ///
    /// # Errors
    /// [`LedgerFailure`] if it cannot be read. Never `None` for a value that may exist: that would
    /// forget a revocation.
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerFailure>;

    /// Sets the value under `key`.
    ///
    /// # Errors
    /// [`LedgerFailure`] if it cannot be written.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), LedgerFailure>;

    /// Removes `key`, if it is there.
    ///
    /// # Errors
    /// [`LedgerFailure`] if it cannot be written.
    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), LedgerFailure>;

    /// The keys that begin with `prefix`, ascending, at most `limit`.
    ///
    /// # Errors
    /// [`LedgerFailure`] if they cannot be read.
    fn keys(&mut self, table: Table, prefix: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, LedgerFailure>;
}

/// What a transaction does. `Err` means: undo everything.
pub type Transition<'a> = &'a mut dyn FnMut(&mut dyn Transaction) -> Result<(), LedgerFailure>;

/// A place that keeps records, with one operation: an atomic transition.
///
/// An implementation promises that when [`Ledger::transact`] returns `Ok`, everything that the
/// transition wrote is durable, all of it; and that when the transition fails, none of it is. What a
/// wrong implementation costs: a lost write after `Ok` can give one ticket to two phones or revive a
/// revoked credential; half of a transition can do the same. Refusing is always safe.
///
/// The gate calls it from one thread at a time.
pub trait Ledger: Send {
    /// Runs `transition` once and makes what it wrote durable. A transition that wrote nothing costs
    /// no write.
    ///
    /// # Errors
    /// [`LedgerFailure`], from the transition or from the backend.
    fn transact(&mut self, transition: Transition<'_>) -> Result<(), LedgerFailure>;
}

/// A ledger that is let go for good after a transaction whose outcome is unknown.
pub(crate) enum Store {
    Open(Box<dyn Ledger>),
    Shut(LedgerFailure),
}

impl Store {
    pub(crate) fn new(ledger: Box<dyn Ledger>) -> Self {
        Self::Open(ledger)
    }

    /// Runs a transition and gives its result once it is durable. After any failure, of a read as well,
    /// nothing more is run: what cannot be read may say "revoked".
    pub(crate) fn transact<T>(
        &mut self,
        mut transition: impl FnMut(&mut dyn Transaction) -> Result<T, LedgerFailure>,
    ) -> Result<T, LedgerFailure> {
        // Shut until the outcome is known.
        let mut ledger = match core::mem::replace(self, Self::Shut(LedgerFailure::Poisoned)) {
            Self::Open(ledger) => ledger,
            Self::Shut(failure) => {
                *self = Self::Shut(failure);
                return Err(failure);
            }
        };
        let mut result = None;
        // A backend that panics has failed like any other.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            ledger.transact(&mut |transaction| {
                result = Some(transition(transaction)?);
                Ok(())
            })
        }));
        let outcome = outcome.unwrap_or(Err(LedgerFailure::Io));
        match (outcome, result) {
            (Ok(()), Some(result)) => {
                *self = Self::Open(ledger);
                Ok(result)
            }
            (outcome, _) => Err(outcome.err().unwrap_or(LedgerFailure::Io)),
        }
    }

    /// Lets the ledger go, so that it can be opened again.
    pub(crate) fn close(&mut self) {
        if !self.is_shut() {
            *self = Self::Shut(LedgerFailure::Closed);
        }
    }

    pub(crate) fn is_shut(&self) -> bool {
        matches!(self, Self::Shut(_))
    }
}
