//! The ledger: the agent's durable records, and the one trait that a database implements to store them
//! (`docs/PROTOCOL.md` section 8, `docs/ARCHITECTURE.md`).
//!
//! The ledger is an allow-list. A ticket or credential without a record is refused, so lost state fails
//! closed, and memory is bounded by what is live. Every change is a pure function over a few records that
//! runs inside one transaction of the backend; nothing is answered before that transaction is durable.

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "redb")]
mod embedded;
mod event;
#[cfg(all(test, feature = "redb"))]
pub(crate) mod faulty;
mod inspect;
pub(crate) mod kept;
mod memory;
pub(crate) mod observed;
mod overlay;
pub(crate) mod record;
pub(crate) mod rows;
pub(crate) mod store;
pub(crate) mod transition;

#[cfg(feature = "redb")]
pub use embedded::RedbLedger;
pub use inspect::{Check, Damage, Dump, DumpedRow, Finding};
pub use memory::MemoryLedger;
pub use overlay::{Changes, Overlay};

use core::fmt;
use std::error::Error;
use std::sync::Arc;

use crate::agent::denial::LedgerFailure;

/// A table of records. A backend keeps each table as an ordered map from bytes to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Table {
    /// The header, the counters, and each node's progress.
    Meta,
    /// Issuers by their key.
    Issuers,
    /// Sessions by their id.
    Sessions,
    /// Tickets by their id.
    Tickets,
    /// Credentials by their id.
    Credentials,
    /// Index by session: its id, a zero byte, whether the entry is live, kind and id. No value.
    BySession,
    /// Reverse index for revocation; the key is the handle, kind and id of a live entry. No value.
    ByHandle,
    /// When each entry ends: time, kind and id. No value.
    ByTime,
    /// When each ended credential is removed: time, kind and id. No value.
    Ended,
    /// The same by the device that offered it: its key, time, kind and id. No value.
    EndedOf,
    /// Counts of each device's records, by its key.
    Devices,
    /// Audit records that the sink may not have yet, by node and position.
    Events,
}

impl Table {
    /// Every table.
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

    /// Returns a name for the backend's own use.
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

/// A consistent state of all tables: the result of one transaction, without any later one.
pub trait Snapshot {
    /// Returns the value under `key`.
    ///
    /// # Errors
    /// [`LedgerFailure`] if it cannot be read. Do not return `None` for a value that may exist: that would
    /// lose a revocation.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerFailure>;

    /// Returns the rows whose keys begin with `prefix`, in ascending byte order of their keys, at most
    /// `limit`. With `after`, only those whose keys are greater than it, whether or not it begins with
    /// `prefix`.
    ///
    /// # Errors
    /// [`LedgerFailure`] if they cannot be read. Do not leave rows out.
    fn range(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, LedgerFailure>;
}

/// A function that reads a snapshot.
pub type Look<'a> = &'a mut dyn FnMut(&dyn Snapshot) -> Result<(), LedgerFailure>;

/// A function that reads a snapshot and returns the changes of a transaction. It depends only on the
/// snapshot, so it can run again. `Err` means that nothing changes.
pub type Transition<'a> = &'a mut dyn FnMut(&dyn Snapshot) -> Result<Changes, LedgerFailure>;

/// Whether a failed transaction may have changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was not committed, and will not be.
    NotDone,
    /// It is unknown whether it was or will be committed: a commit was sent but not answered.
    Unknown,
}

/// The failure of a ledger, and the state in which it leaves the ledger.
///
/// [`Error::source`] is the operating system's or the database's error, if there is one. Equality ignores it.
#[derive(Debug, Clone)]
pub struct LedgerError {
    cause: LedgerFailure,
    outcome: Outcome,
    usable: bool,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl LedgerError {
    /// The transaction was not committed, and the next one may succeed: for example, a connection was reset
    /// before the commit was sent, a transaction conflicted with another, or a read failed.
    #[must_use]
    pub const fn not_done(cause: LedgerFailure) -> Self {
        Self { cause, outcome: Outcome::NotDone, usable: true, source: None }
    }

    /// The transaction may have been committed. Use this in case of doubt.
    #[must_use]
    pub const fn unknown(cause: LedgerFailure) -> Self {
        Self { cause, outcome: Outcome::Unknown, usable: false, source: None }
    }

    /// Marks the ledger as unusable until it is opened again.
    #[must_use]
    pub fn unusable(self) -> Self {
        Self { usable: false, ..self }
    }

    /// Adds the operating system's or the database's error as the source.
    #[must_use]
    pub fn because(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(Arc::from(source.into())), ..self }
    }

    /// Returns a stable name for programs and logs: that of the cause.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.cause.code()
    }

    /// Returns the cause.
    #[must_use]
    pub const fn cause(&self) -> LedgerFailure {
        self.cause
    }

    /// Returns whether the transaction may have been committed.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Whether the next transaction may succeed. `false` after [`Outcome::Unknown`].
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

/// A store of records: it reads consistent states, and has one kind of write, an atomic transition.
///
/// # Contract
/// - **Durable.** When [`Ledger::transact`] returns `Ok`, every change of the transition survives a
///   crash of the process and of the machine.
/// - **Whole.** For every reader and after every crash, either all changes of a transition are present or
///   none.
/// - **Serializable.** Transitions behave as if they ran one after the other, across all handles, processes
///   and machines that share the store: everything that a transition has read, including ranges and missing
///   rows, is unchanged when it commits. READ COMMITTED and snapshot isolation are not enough: two phones
///   would get one ticket.
/// - **Fresh.** A read or transition that begins after a [`Ledger::transact`] returned `Ok` sees its
///   changes, on every handle.
/// - **Honest.** A failed transaction that may have been committed is reported as [`Outcome::Unknown`].
/// - **One owner for each node.** The gate that opened a node last owns it. The backend only has to be
///   serializable for that: each opening writes a number, every later transition compares it, and a gate
///   that finds another number closes with [`LedgerFailure::Fenced`].
///
/// A lost or partial write, or a stale read, can give one ticket to two phones or revive a revoked
/// credential. Refusing is always safe. The feature `conformance` has a test suite for backends.
///
/// A transition may run any number of times before it commits; only the changes of the last run count. The
/// gate runs one transition at a time, and reads concurrently.
pub trait Ledger: Send + Sync {
    /// Reads one consistent state. It may run during a transition, and does not wait for its commit.
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
