//! The time that the machine has slept since it was started, kept as long as the clocks agree that it has not slept
//! again.
//!
//! `CLOCK_BOOTTIME` can only be read precisely. But it differs from `CLOCK_MONOTONIC` by the time asleep, which changes
//! only when the machine sleeps; and then the wall clock moves on while the monotonic clock stands still. So as long
//! as the difference of these two is what it was, to the nanosecond, the machine has not slept. When the wall clock is
//! set the difference changes too, and the time asleep is measured again.

use std::sync::atomic::{AtomicI64, Ordering, fence};
use std::sync::{Mutex, PoisonError};

use time::Duration;

/// A reading of a clock, in nanoseconds; one beyond the range is at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    seconds: i64,
    /// Below one second.
    nanoseconds: i64,
}

const SECOND: i64 = 1_000_000_000;

impl Reading {
    #[inline]
    pub(super) fn new(seconds: i64, nanoseconds: i64) -> Self {
        Self { seconds, nanoseconds }
    }

    /// Returns the nanoseconds from `earlier` to this.
    #[inline]
    pub(super) fn since(self, earlier: Self) -> i64 {
        let seconds = self.seconds.saturating_sub(earlier.seconds);
        seconds.saturating_mul(SECOND).saturating_add(self.nanoseconds.saturating_sub(earlier.nanoseconds))
    }

    /// Returns this and so many nanoseconds more, since the clock began.
    #[inline]
    pub(super) fn plus(self, nanoseconds: i64) -> Duration {
        let all = self.seconds.checked_mul(SECOND).and_then(|all| all.checked_add(self.nanoseconds));
        match all.and_then(|all| all.checked_add(nanoseconds)) {
            Some(all) => Duration::nanoseconds(all),
            // Centuries from now.
            None => Duration::seconds(self.seconds).saturating_add(Duration::nanoseconds(nanoseconds)),
        }
    }
}

/// The time asleep, for one difference of the wall clock and the monotonic clock. Shared by all threads.
pub(super) struct SinceBoot {
    /// The difference for which `asleep` was measured, or [`NONE`].
    difference: AtomicI64,
    /// [`NONE`] before it was measured. Below zero where the clocks of a container begin at different times.
    asleep: AtomicI64,
    /// Held while it is measured, so that an earlier measurement never replaces a later one.
    measuring: Mutex<()>,
}

/// No difference of two clocks.
const NONE: i64 = i64::MIN;

/// Nanoseconds, fewer than any sleep takes: measurements that differ by less are of the same time asleep.
const SAME: i64 = 1_000_000;

impl SinceBoot {
    pub(super) const fn new() -> Self {
        Self { difference: AtomicI64::new(NONE), asleep: AtomicI64::new(NONE), measuring: Mutex::new(()) }
    }

    /// Returns the nanoseconds by which the time since boot exceeds the monotonic clock. `difference` is the wall
    /// clock's reading less the monotonic clock's. Calls `measure` if that has changed.
    #[inline]
    pub(super) fn beyond(&self, difference: i64, measure: impl Fn() -> i64) -> i64 {
        let known = self.difference.load(Ordering::Acquire);
        let asleep = self.asleep.load(Ordering::Relaxed);
        // Whoever measures removes the difference first, so that one that is still there belongs to what was read.
        fence(Ordering::Acquire);
        if known == difference && self.difference.load(Ordering::Relaxed) == known && known != NONE {
            return asleep;
        }
        self.measured(difference, measure)
    }

    #[cold]
    fn measured(&self, difference: i64, measure: impl Fn() -> i64) -> i64 {
        let measuring = self.measuring.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.asleep.load(Ordering::Relaxed);
        let found = measure();
        // The time asleep only grows. Two clocks are not read at the same moment, so that a measurement may be a little
        // too much; it is kept, because a clock that is ahead by a constant is as good, and one that goes back is not.
        let asleep = if found > before.saturating_add(SAME) { found } else { before };
        self.difference.store(NONE, Ordering::Relaxed);
        fence(Ordering::Release);
        self.asleep.store(asleep, Ordering::Relaxed);
        self.difference.store(difference, Ordering::Release);
        drop(measuring);
        asleep
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const HOUR: i64 = 3_600 * SECOND;

    #[test]
    fn a_sleep_is_seen_at_once_and_otherwise_nothing_is_measured() {
        let (since_boot, measured) = (SinceBoot::new(), Cell::new(0));
        let asleep = |difference, truth: i64| {
            since_boot.beyond(difference, || {
                measured.set(measured.get() + 1);
                truth
            })
        };
        assert_eq!((asleep(5, 100), measured.get()), (100, 1));
        assert_eq!((asleep(5, 100), measured.get()), (100, 1));
        // The machine sleeps for an hour: the wall clock is an hour further than the monotonic one.
        assert_eq!((asleep(5 + HOUR, 100 + HOUR), measured.get()), (100 + HOUR, 2));
        assert_eq!((asleep(5 + HOUR, 100 + HOUR), measured.get()), (100 + HOUR, 2));
        // The wall clock is set, back and by a nanosecond: the time asleep stays, whatever passed as it was measured.
        assert_eq!((asleep(7, 130 + HOUR), measured.get()), (100 + HOUR, 3));
        assert_eq!((asleep(8, 90 + HOUR), measured.get()), (100 + HOUR, 4));
        assert_eq!((asleep(8, 90 + HOUR), measured.get()), (100 + HOUR, 4));
    }

    #[test]
    fn a_difference_that_no_clocks_have_is_measured_each_time() {
        let since_boot = SinceBoot::new();
        assert_eq!(since_boot.beyond(NONE, || -2 * HOUR), -2 * HOUR);
        assert_eq!(since_boot.beyond(NONE, || -HOUR), -HOUR);
    }

    #[test]
    fn readings_are_compared_across_seconds() {
        let (earlier, later) = (Reading::new(4, 999_999_999), Reading::new(5, 1));
        assert_eq!((later.since(earlier), earlier.since(later)), (2, -2));
        assert_eq!(later.plus(-2), Duration::new(4, 999_999_999));
        assert_eq!(Reading::new(i64::MAX, 5).plus(0), Duration::seconds(i64::MAX));
        assert_eq!(Reading::new(i64::MAX, 0).since(Reading::new(-1, 0)), i64::MAX);
    }
}
