//! The terms of a guard: its operations, and when it ends.

use time::Duration;

use super::lease::nanoseconds;
use crate::clock::{Now, Timestamp};
use crate::op::OpSet;

/// The operations that a guard allows, and when it expires by each clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) ops: OpSet,
    /// The end by the wall clock.
    pub(crate) expires_at: Timestamp,
    /// The same moment by the monotonic clock.
    pub(crate) ends_at: Duration,
}

impl Terms {
    pub(super) fn meet(self, other: Self) -> Self {
        Self {
            ops: self.ops.intersection(other.ops),
            expires_at: self.expires_at.min(other.expires_at),
            ends_at: self.ends_at.min(other.ends_at),
        }
    }
}

/// When a guard's terms end by each clock, or its next review is due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    /// Nanoseconds of the monotonic clock.
    monotonic: i64,
    /// Seconds since 1970.
    wall: i64,
}

impl Due {
    pub(super) fn new(terms: Terms, next_review: Duration) -> Self {
        Self {
            monotonic: nanoseconds(terms.ends_at.min(next_review)),
            wall: i64::try_from(terms.expires_at.seconds()).unwrap_or(i64::MAX),
        }
    }

    /// `moment` is the monotonic clock's reading in nanoseconds.
    #[inline]
    pub(super) fn is(self, now: Now, moment: i64) -> bool {
        moment >= self.monotonic || now.wall.whole_seconds() >= self.wall
    }
}
