//! What a gate needs to know when several nodes share its ledger (`docs/FLEET.md`).

use time::Duration;

use crate::clock::Timestamp;

/// A read of the log of a shared ledger, up to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRead {
    pub(crate) began: Duration,
    pub(crate) store_time: Timestamp,
}

impl LogRead {
    /// Makes a read that began at `began`, by the clock of [`Now::monotonic`](crate::Now), **before** the request
    /// was sent, and for which the store's own clock read `store_time`. A moment after the request was sent would
    /// let this node grant permits that another node believes to be over.
    #[must_use]
    pub const fn new(began: Duration, store_time: Timestamp) -> Self {
        Self { began, store_time }
    }
}

/// The other nodes that share the ledger.
pub trait OtherNodes: Send + Sync {
    /// Waits until no other node grants a permit under anything that this node's transactions have ended: each
    /// has observed them, or has not read the log for so long that it refuses every permit. The gate calls it at
    /// the end of each revoking call, without holding a lock. It must return after a bounded time.
    fn wait(&self);
}

/// How a gate follows the log of a shared ledger.
pub(crate) struct Following {
    /// How long permits are granted after a read of the log began.
    pub(crate) limit: Duration,
    /// The read with which it begins.
    pub(crate) read: LogRead,
    pub(crate) nodes: Box<dyn OtherNodes>,
}

impl Following {
    pub(crate) fn new(limit: core::time::Duration, read: LogRead, nodes: Box<dyn OtherNodes>) -> Self {
        Self { limit: limit.try_into().unwrap_or(Duration::MAX), read, nodes }
    }
}

/// For a gate whose log is followed by no other node.
impl OtherNodes for () {
    fn wait(&self) {}
}
