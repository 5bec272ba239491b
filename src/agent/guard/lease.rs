//! The lease: how long permits are granted without another settling, without another read of the log that
//! several nodes share, and without another list of the enrolled devices.

use core::task::Waker;
use std::sync::Weak;

use time::Duration;

use super::{lock, wake_all};
use crate::limits::{LEASE, STALE_TIMEOUT};
use crate::sync::{AtomicI64, AtomicU32, Mutex, Ordering};

/// The lease that a gate and all its guards share. Moments are nanoseconds of the monotonic clock.
///
/// A settling renews it; a ledger failure suspends it until the ledger is opened again. It ends with the
/// earliest of its [`Parts`], so that a guard compares one number however many there are.
pub(crate) struct Lease {
    /// Permits are granted before this moment: the earliest of `parts`.
    until: AtomicI64,
    /// Held only to change a part.
    parts: Mutex<Parts>,
    /// Streams are over from this moment on.
    over_at: AtomicI64,
    /// When a settling last succeeded, or the gate was opened or reopened. For [`Health`](crate::agent::Health)
    /// only: no permit depends on it, so it is an atomic of the standard library also in a model.
    settled_at: core::sync::atomic::AtomicI64,
    /// How often the gate was settled, or its ledger reopened.
    settlings: AtomicU32,
    /// The last waker of each task that waits for a settling.
    waiting: Mutex<Vec<Weak<Mutex<Option<Waker>>>>>,
}

/// When each condition for permits ends.
struct Parts {
    /// Without another settling.
    settled: i64,
    /// Without another read of the shared log; never, for a ledger that is not shared.
    log: i64,
    /// Without another list of the enrolled devices; never, if the list has no end.
    devices: i64,
}

impl Parts {
    fn earliest(&self) -> i64 {
        self.settled.min(self.log).min(self.devices)
    }
}

impl Lease {
    /// Makes a lease renewed at this moment.
    pub(crate) fn at(now: Duration) -> Self {
        let settled = nanoseconds(now.saturating_add(seconds(LEASE)));
        Self {
            until: AtomicI64::new(settled),
            parts: Mutex::new(Parts { settled, log: i64::MAX, devices: i64::MAX }),
            over_at: AtomicI64::new(i64::MAX),
            settled_at: core::sync::atomic::AtomicI64::new(nanoseconds(now)),
            settlings: AtomicU32::new(0),
            waiting: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn settlings(&self) -> u32 {
        self.settlings.load(Ordering::Acquire)
    }

    fn change(&self, change: impl FnOnce(&mut Parts)) {
        let mut parts = lock(&self.parts);
        change(&mut parts);
        // Still under the lock, so that a later change is not overwritten by an earlier one.
        self.until.store(parts.earliest(), Ordering::Release);
    }

    /// Makes permits depend on reads of the log that several nodes share, until this moment at first.
    pub(crate) fn follow(&self, until: Duration) {
        self.change(|parts| parts.log = nanoseconds(until));
    }

    /// Renews it for a read of the log until this moment, after what was read was observed. Keeps a later
    /// renewal.
    pub(crate) fn caught_up(&self, until: Duration) {
        self.change(|parts| parts.log = parts.log.max(nanoseconds(until)));
    }

    /// Sets when the list of enrolled devices ends, or that it has no end.
    pub(crate) fn set_devices(&self, until: Option<Duration>) {
        self.change(|parts| parts.devices = until.map_or(i64::MAX, nanoseconds));
    }

    /// Renews the lease for a settling that began at `now`. Keeps a later renewal.
    pub(crate) fn renew(&self, now: Duration) {
        let until = nanoseconds(now.saturating_add(seconds(LEASE)));
        self.change(|parts| parts.settled = parts.settled.max(until));
        self.settled_at.fetch_max(nanoseconds(now), core::sync::atomic::Ordering::Relaxed);
    }

    /// Returns how long before `now` the lease was last renewed.
    pub(crate) fn settled_ago(&self, now: Duration) -> core::time::Duration {
        let ago =
            nanoseconds(now).saturating_sub(self.settled_at.load(core::sync::atomic::Ordering::Relaxed));
        core::time::Duration::from_nanos(u64::try_from(ago).unwrap_or(0))
    }

    /// Resumes after the ledger was reopened and read at `now`.
    pub(crate) fn resume(&self, now: Duration) {
        self.over_at.store(i64::MAX, Ordering::Release);
        self.renew(now);
    }

    /// Suspends the lease because the ledger has failed: no permits until it is reopened, and after a minute
    /// streams are over. Only the first failure counts.
    pub(crate) fn suspend(&self, now: Duration) {
        let over_at = nanoseconds(now.saturating_add(seconds(STALE_TIMEOUT)));
        let _ = self.over_at.compare_exchange(i64::MAX, over_at, Ordering::AcqRel, Ordering::Acquire);
        self.change(|parts| parts.settled = i64::MIN);
    }

    /// Whether no permit may be granted at this moment.
    pub(crate) fn is_stale(&self, now: Duration) -> bool {
        self.is_stale_at(nanoseconds(now))
    }

    /// The same for a moment in nanoseconds of the monotonic clock.
    #[inline]
    pub(super) fn is_stale_at(&self, moment: i64) -> bool {
        moment >= self.until.load(Ordering::Acquire)
    }

    /// Whether the ledger has failed for so long that streams are over.
    pub(crate) fn is_over(&self, now: Duration) -> bool {
        nanoseconds(now) >= self.over_at.load(Ordering::Acquire)
    }

    /// Counts a settling and wakes the tasks that wait for it. Call it after [`Lease::renew`] and without
    /// holding a lock: a waker may run foreign code.
    pub(crate) fn wake(&self) {
        self.settlings.fetch_add(1, Ordering::AcqRel);
        let waiting = core::mem::take(&mut *lock(&self.waiting));
        wake_all(&waiting);
    }

    pub(super) fn wait(&self, waiter: Weak<Mutex<Option<Waker>>>) {
        let mut waiting = lock(&self.waiting);
        waiting.retain(|waiter| waiter.strong_count() > 0);
        waiting.push(waiter);
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::seconds(i64::try_from(seconds).unwrap_or(i64::MAX))
}

#[inline]
pub(super) fn nanoseconds(moment: Duration) -> i64 {
    moment.whole_seconds().saturating_mul(1_000_000_000).saturating_add(moment.subsec_nanoseconds().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Duration {
        Duration::milliseconds(milliseconds)
    }

    #[test]
    fn it_ends_five_seconds_after_the_settling_began() {
        let lease = Lease::at(at(1_000));
        assert!(!lease.is_stale(at(5_999)) && lease.is_stale(at(6_000)));
        lease.renew(at(4_000));
        lease.renew(at(2_000));
        assert!(!lease.is_stale(at(8_999)) && lease.is_stale(at(9_000)), "the later settling stands");
    }

    #[test]
    fn a_failed_ledger_ends_it_at_once_and_streams_after_a_minute() {
        let lease = Lease::at(at(0));
        lease.suspend(at(1_000));
        lease.suspend(at(30_000));
        assert!(lease.is_stale(at(1_000)) && !lease.is_over(at(60_999)) && lease.is_over(at(61_000)));
        lease.resume(at(61_000));
        assert!(!lease.is_stale(at(65_999)) && !lease.is_over(at(1_000_000)));
    }

    #[test]
    fn it_ends_with_the_earliest_of_settling_log_and_devices() {
        let lease = Lease::at(at(0));
        lease.caught_up(at(1));
        assert!(!lease.is_stale(at(4_999)), "a ledger that is not shared has no log");
        lease.follow(at(2_000));
        assert!(!lease.is_stale(at(1_999)) && lease.is_stale(at(2_000)));
        lease.renew(at(1_000));
        assert!(lease.is_stale(at(2_000)), "a settling does not stand for a read of the log");
        lease.caught_up(at(9_000));
        lease.caught_up(at(3_000));
        assert!(!lease.is_stale(at(5_999)) && lease.is_stale(at(6_000)), "nor a read for a settling");
        lease.renew(at(6_000));
        assert!(lease.is_stale(at(9_000)), "the later read stands");
        lease.set_devices(Some(at(7_000)));
        assert!(!lease.is_stale(at(6_999)) && lease.is_stale(at(7_000)));
        lease.set_devices(None);
        assert!(!lease.is_stale(at(8_999)));
        lease.suspend(at(6_500));
        lease.caught_up(at(20_000));
        assert!(lease.is_stale(at(6_500)), "a read does not stand for the ledger opened again");
        lease.resume(at(8_000));
        assert!(!lease.is_stale(at(12_999)));
    }

    #[test]
    fn moments_beyond_the_range_fail_closed() {
        let lease = Lease::at(Duration::ZERO);
        assert!(lease.is_stale(Duration::MAX));
        assert!(Lease::at(Duration::MAX).is_stale(Duration::MAX));
    }
}
