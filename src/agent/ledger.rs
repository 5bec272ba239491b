//! The ledger: what the agent remembers, and the one trait that a database implements for it
//! (`docs/PROTOCOL.md` section 8, `docs/ARCHITECTURE.md`).
//!
//! The ledger is an allow-list. A ticket or credential without a record is refused, so lost state
//! fails closed and memory is bounded by what is live. Every change is a pure function over a few
//! records, run inside one transaction of the backend; nothing is answered before that transaction
//! is durable.

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "redb")]
mod embedded;
mod event;
#[cfg(all(test, feature = "redb"))]
pub(crate) mod faulty;
mod memory;
mod overlay;
pub(crate) mod record;
pub(crate) mod rows;
pub(crate) mod store;
pub(crate) mod transition;

#[cfg(feature = "redb")]
pub use embedded::RedbLedger;
pub use memory::MemoryLedger;
pub use overlay::{Changes, Overlay};

use core::fmt;
use std::error::Error;
use std::sync::Arc;

use crate::agent::denial::LedgerFailure;

/// Where a record lives. A backend keeps each table as an ordered map from bytes to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Table {
    /// What the records belong to, counters, how far each node has come.
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
    /// The same by the device that offered it: its key, time, kind and id. No value.
    EndedOf,
    /// What is kept of each device, by its key.
    Devices,
    /// Audit records that the sink may not have yet, by node and position.
    Events,
}

impl Table {
    /// All tables.
    pub const ALL: &'static [Self] = &[
        Self::Meta,
        Self::Issuers,
        Self::Sessions,
        Self::Tickets,
        Self::Credentials,
        Self::BySession,
        Self::ByHandle,
        Self::ByTime,
        Self::Ended,
        Self::EndedOf,
        Self::Devices,
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
            Self::EndedOf => "ended_of",
            Self::Devices => "devices",
            Self::Events => "events",
        }
    }
}

/// A row: its key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// A consistent state of all tables: what some transaction left, and nothing of any later one.
pub trait Snapshot {
    /// The value under `key`.
    ///
    /// # Errors
    /// [`LedgerFailure`] if it cannot be read. Never `None` for a value that may exist: that would
    /// forget a revocation.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerFailure>;

    /// The rows whose keys begin with `prefix`, ascending by the bytes of their keys, at most `limit`. With
    /// `after`, only those whose keys are greater than it, whether or not it begins with `prefix`.
    ///
    /// # Errors
    /// [`LedgerFailure`] if they cannot be read. Never fewer rows than there are.
    fn range(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, LedgerFailure>;
}

/// What a read does.
pub type Look<'a> = &'a mut dyn FnMut(&dyn Snapshot) -> Result<(), LedgerFailure>;

/// What a transaction does: it reads a snapshot and says what changes. A pure function of the snapshot, so
/// it can be run again. `Err` means that nothing changes.
pub type Transition<'a> = &'a mut dyn FnMut(&dyn Snapshot) -> Result<Changes, LedgerFailure>;

/// Whether a transaction that failed may have changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has certainly not been done, and never will be.
    NotDone,
    /// It has been done, or has not, or will be: a commit that was sent and not answered.
    Unknown,
}

/// How a ledger failed, and what that leaves.
///
/// [`Error::source`] is what the operating system or the database said, where there is such a thing. Two
/// of these are equal if they differ in nothing but that.
#[derive(Debug, Clone)]
pub struct LedgerError {
    cause: LedgerFailure,
    outcome: Outcome,
    usable: bool,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl LedgerError {
    /// The transaction has certainly not been done, and the next one may succeed: a connection that was
    /// reset before the commit was sent, a conflict with another transaction. A read that failed.
    #[must_use]
    pub const fn not_done(cause: LedgerFailure) -> Self {
        Self { cause, outcome: Outcome::NotDone, usable: true, source: None }
    }

    /// The transaction may have been done. When in doubt, this one.
    #[must_use]
    pub const fn unknown(cause: LedgerFailure) -> Self {
        Self { cause, outcome: Outcome::Unknown, usable: false, source: None }
    }

    /// The same, of a ledger that has to be opened again before anything else succeeds.
    #[must_use]
    pub fn unusable(self) -> Self {
        Self { usable: false, ..self }
    }

    /// The same, with what the operating system or the database said.
    #[must_use]
    pub fn because(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(Arc::from(source.into())), ..self }
    }

    /// A stable name for programs and logs: that of what failed.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.cause.code()
    }

    /// What failed.
    #[must_use]
    pub const fn cause(&self) -> LedgerFailure {
        self.cause
    }

    /// Whether the transaction may have been done.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Whether the next transaction may succeed. Never after [`Outcome::Unknown`].
    #[must_use]
    pub const fn is_usable(&self) -> bool {
        self.usable
    }
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl Error for LedgerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl PartialEq for LedgerError {
    fn eq(&self, other: &Self) -> bool {
        (self.cause, self.outcome, self.usable) == (other.cause, other.outcome, other.usable)
    }
}

impl Eq for LedgerError {}

/// A place that keeps records: reads of a consistent state, and one kind of write, an atomic transition.
///
/// # Contract
/// - **Durable.** When [`Ledger::transact`] returns `Ok`, every change of the transition survives a
///   crash of the process and of the machine.
/// - **Whole.** Either all changes of a transition are there or none, for every reader and after every
///   crash.
/// - **Serializable.** Transitions behave as if they ran one after the other, across all handles, processes
///   and machines that share the store: what a transition has read, ranges and missing rows included, is
///   still so when it commits. READ COMMITTED and snapshot isolation are not enough: two phones would
///   get one ticket.
/// - **Fresh.** A read, or a transition, that begins after a [`Ledger::transact`] returned `Ok` sees its
///   changes, on every handle.
/// - **Honest.** A transaction that failed and may have been done is [`Outcome::Unknown`].
/// - **One owner for each node.** The gate that opened a node last owns it. Nothing is asked of the backend
///   for that but serializability: each opening writes a number, every later transition compares it, and a
///   gate that finds another one closes with [`LedgerFailure::Fenced`].
///
/// What a wrong implementation costs: a lost or half a write, or a stale read, can give one ticket to two
/// phones or revive a revoked credential. Refusing is always safe. The feature `conformance` has a suite
/// that a backend's own tests run.
///
/// A transition may be run any number of times before it commits; only the changes of the last run count.
/// The gate runs one transition at a time and reads beside it.
pub trait Ledger: Send + Sync {
    /// Reads one consistent state. May run beside a transition, and does not wait for its commit.
    ///
    /// # Errors
    /// [`LedgerError`], from `look` or from the backend.
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError>;

    /// Runs `transition` and makes its changes durable. Without changes it costs no write.
    ///
    /// # Errors
    /// [`LedgerError`], from the transition or from the backend.
    fn transact(&self, transition: Transition<'_>) -> Result<(), LedgerError>;
}

impl<T: Ledger + ?Sized> Ledger for Box<T> {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        (**self).read(look)
    }

    fn transact(&self, transition: Transition<'_>) -> Result<(), LedgerError> {
        (**self).transact(transition)
    }
}

impl<T: Ledger + ?Sized> Ledger for Arc<T> {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        (**self).read(look)
    }

    fn transact(&self, transition: Transition<'_>) -> Result<(), LedgerError> {
        (**self).transact(transition)
    }
}
