//! Counters and latencies of a gate. Counting and reading use atomics and take no lock.
//!
//! The atomics are those of the standard library also in a model-checked build: nothing depends on their
//! values, so a model need not interleave them. Each is relaxed: a reading is exact for each counter, and
//! different counters may be of slightly different moments.

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::panic::catch_unwind;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::agent::denial::Denial;
use crate::agent::health::Gauges;
use crate::limits::HISTOGRAM_BUCKETS;

mod frames;

pub(crate) use frames::FrameCount;
use frames::Frames;

/// What a gate has done since it was opened, as plain numbers. Contains no id, key or name.
///
/// [`Gate::stats`](crate::agent::Gate::stats) returns it. All counters start at 0 with each opening of a gate
/// and only grow, except [`Stats::connections`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// First messages that are not of this protocol and were handed back.
    pub passed_through: u64,
    /// Phones admitted by a ticket. A phone that asks again with the same ticket counts again.
    pub redeemed: u64,
    /// Phones admitted by a credential.
    pub attached: u64,
    /// Phones that were told to wait until the desktop confirms them. Each repetition counts.
    pub pending: u64,
    /// Peers that were refused and told why.
    pub refused_with_answer: u64,
    /// Peers that were refused and told nothing.
    pub refused_silently: u64,
    /// Admissions that became live connections.
    pub activated: u64,
    /// Admissions whose first frame did not make them live.
    pub activations_failed: u64,
    /// Runs of the policy's engine, by admissions, first frames and reviews. A phone whose credential and the
    /// policy's decision on it are on record needs none.
    pub policy_runs: u64,
    /// Frames that got a permit. [`Guard::drive`](crate::agent::Guard::drive) gets one for each poll.
    pub frames_permitted: u64,
    /// Frames that were refused, also because their connection was over.
    pub frames_refused: u64,
    /// Frames that had to wait for a settling. Each attempt counts.
    pub frames_stale: u64,
    /// Connections that exist now. One that was cut counts until the agent drops its guards.
    pub connections: u64,
    /// Registrations of issuer keys, repeated ones included.
    pub registrations: u64,
    /// Registrations that were refused or failed.
    pub registrations_refused: u64,
    /// Offers that were accepted.
    pub offers: u64,
    /// Offers that were refused or failed.
    pub offers_refused: u64,
    /// Phones that a desktop has confirmed.
    pub confirmations: u64,
    /// Confirmations that were refused or failed.
    pub confirmations_refused: u64,
    /// Renewals that were accepted.
    pub renewals: u64,
    /// Renewals that were refused or failed.
    pub renewals_refused: u64,
    /// Revocations that ended something. Every revoking method counts, also `end_session`, `sync_devices` and
    /// `reset_clock`, and so does a revocation because the context called a session or device gone.
    pub revocations_ended: u64,
    /// Revocations of what had ended before, and calls of `sync_devices` that found nothing to revoke.
    pub revocations_already: u64,
    /// Revocations of an unknown name.
    pub revocations_unknown: u64,
    /// Revocations that were not, or may not have been, written, and those refused as misuse.
    pub revocations_failed: u64,
    /// Ledger transactions that are done, also those that changed nothing.
    pub transactions_done: u64,
    /// Ledger transactions that failed and wrote nothing.
    pub transactions_not_done: u64,
    /// Ledger transactions that failed and may have been written.
    pub transactions_unknown: u64,
    /// Calls of `settle` that let streams continue.
    pub settlings: u64,
    /// Calls of `settle` that failed.
    pub settlings_failed: u64,
    /// Calls of `reopen` that succeeded.
    pub reopenings: u64,
    /// Calls of `reopen` that failed.
    pub reopenings_failed: u64,
    /// Tickets that two phones redeemed within their lifetime, so that both were cut off.
    pub contests: u64,
    /// Audit records that were dropped because too many waited for the sink.
    pub audit_dropped: u64,
    /// Time of an admission, those that were handed back excepted. Empty without a timer
    /// ([`GateConfig::with_timer`](crate::agent::GateConfig::with_timer)), as are the other three.
    pub admit_time: Histogram,
    /// Time of a ledger transaction, its commit included.
    pub transaction_time: Histogram,
    /// Time of a revoking method until it returns.
    pub revoke_time: Histogram,
    /// Time of a call of `settle`.
    pub settle_time: Histogram,
    #[serde(serialize_with = "as_map")]
    denials: [u64; DENIALS.len()],
}

impl Stats {
    /// Returns how often each reason was given, for every [`Denial::code`], those that never occurred
    /// included. A refusal counts once, where it leaves the gate or its guards: an attach or a frame that is
    /// refused, a desktop's request, a revocation that failed.
    pub fn denials(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        DENIALS.iter().copied().zip(self.denials.iter().copied())
    }
}

fn as_map<S: Serializer>(denials: &[u64; DENIALS.len()], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(DENIALS.iter().zip(denials))
}

/// How long something took: the number of times in each range of durations.
///
/// The first range is below one microsecond, the next ones reach to 2, 4, 8 … microseconds, and the last
/// has no end; it begins at 2³⁰ microseconds, about 18 minutes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Histogram {
    buckets: [u64; HISTOGRAM_BUCKETS],
    total_micros: u64,
}

impl Histogram {
    /// The number of ranges.
    pub const BUCKETS: usize = HISTOGRAM_BUCKETS;

    /// Returns how many times are in it: the sum of its ranges.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Returns the sum of all times, each rounded down to a microsecond.
    #[must_use]
    pub fn total(&self) -> Duration {
        Duration::from_micros(self.total_micros)
    }

    /// Returns each range by its end, which is not part of it, with the number of times in it. The last has
    /// the end [`Duration::MAX`].
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let ends = (0_u32..).map(|bucket| match 1_u64.checked_shl(bucket) {
            Some(micros) if bucket < LAST_BUCKET => Duration::from_micros(micros),
            _ => Duration::MAX,
        });
        ends.zip(self.buckets.iter().copied())
    }
}

/// The range without an end.
const LAST_BUCKET: u32 = (HISTOGRAM_BUCKETS - 1) as u32;

/// The codes of all denials, in the order of the table.
const DENIALS: [&str; 59] = [
    "payload_malformed",
    "ticket_unknown",
    "ticket_proof_invalid",
    "credential_unknown",
    "credential_malformed",
    "credential_signature_invalid",
    "holder_mismatch",
    "ticket_expired",
    "ticket_claimed",
    "ticket_contested",
    "ticket_revoked",
    "confirmation_pending",
    "credential_expired",
    "credential_revoked",
    "credential_retired",
    "session_gone",
    "caveat_failed",
    "operation_not_granted",
    "other_session",
    "privilege_denied",
    "outside_vocabulary",
    "no_live_record",
    "operator_rule",
    "too_many_connections",
    "activation_timeout",
    "repeated",
    "displaced",
    "replaced",
    "context_unknown",
    "stale",
    "message_too_long",
    "message_too_slow",
    "no_room_for_message",
    "frame_unreadable",
    "frame_too_long",
    "frame_waiting",
    "device_not_enrolled",
    "issuer_of_another_device",
    "issuer_unknown",
    "issuer_revoked",
    "registration_invalid",
    "offer_malformed",
    "offer_mismatch",
    "offer_repeated",
    "session_not_live",
    "sharing_forbidden",
    "clock_skew",
    "lifetime_out_of_bounds",
    "quota_reached",
    "interrupted",
    "renewal_mismatch",
    "renewals_unused",
    "nothing_to_confirm",
    "policy_limit",
    "policy_failed",
    "internal",
    "policy_disagreement",
    "ledger_unavailable",
    "api_misuse",
];

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add_one(&self) {
        self.add(1);
    }

    #[inline]
    pub(crate) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A histogram that is being filled.
#[derive(Debug, Default)]
pub(crate) struct Times {
    buckets: [Counter; HISTOGRAM_BUCKETS],
    total_micros: Counter,
}

impl Times {
    fn add(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()).min(LAST_BUCKET);
        if let Some(bucket) = usize::try_from(bucket).ok().and_then(|bucket| self.buckets.get(bucket)) {
            bucket.add_one();
        }
        self.total_micros.add(micros);
    }

    fn read(&self) -> Histogram {
        let mut histogram = Histogram { total_micros: self.total_micros.read(), ..Histogram::default() };
        for (read, bucket) in histogram.buckets.iter_mut().zip(&self.buckets) {
            *read = bucket.read();
        }
        histogram
    }
}

/// Tells how much time has passed, by the caller's clock.
pub(crate) type Timer = Box<dyn Fn() -> Duration + Send + Sync>;

macro_rules! counters {
    ($($name:ident),*; $($times:ident),*) => {
        /// The counters of a gate, which its guards share.
        #[derive(Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
            $(pub(crate) $times: Times,)*
            pub(crate) gauges: Gauges,
            connections: AtomicU64,
            denials: Denials,
            frames: Frames,
            timer: Option<Timer>,
        }

        impl Counters {
            pub(crate) fn read(&self) -> Stats {
                let [frames_permitted, frames_refused, frames_stale] = self.frames.read();
                Stats {
                    $($name: self.$name.read(),)*
                    $($times: self.$times.read(),)*
                    frames_permitted,
                    frames_refused,
                    frames_stale,
                    connections: self.connections.load(Ordering::Relaxed),
                    denials: self.denials.read(),
                }
            }
        }
    };
}

counters! {
    passed_through, redeemed, attached, pending, refused_with_answer, refused_silently, activated,
    activations_failed, policy_runs, registrations, registrations_refused, offers, offers_refused, confirmations,
    confirmations_refused, renewals, renewals_refused, revocations_ended, revocations_already,
    revocations_unknown, revocations_failed, transactions_done, transactions_not_done, transactions_unknown,
    settlings, settlings_failed, reopenings, reopenings_failed, contests, audit_dropped;
    admit_time, transaction_time, revoke_time, settle_time
}

struct Denials([Counter; DENIALS.len()]);

impl Default for Denials {
    fn default() -> Self {
        Self([const { Counter(AtomicU64::new(0)) }; DENIALS.len()])
    }
}

impl Denials {
    fn read(&self) -> [u64; DENIALS.len()] {
        let mut read = [0; DENIALS.len()];
        read.iter_mut().zip(&self.0).for_each(|(read, counter)| *read = counter.read());
        read
    }
}

impl Counters {
    pub(crate) fn new(timer: Option<Timer>) -> Self {
        Self { timer, ..Self::default() }
    }

    /// Counts a denial that leaves the gate or a guard.
    pub(crate) fn denied(&self, denial: &Denial) {
        let code = denial.code();
        if let Some((_, counter)) = DENIALS.iter().zip(&self.denials.0).find(|(name, _)| **name == code) {
            counter.add_one();
        }
    }

    /// Returns the time by the configured timer. A timer that panics measures nothing.
    pub(crate) fn begin(&self) -> Option<Duration> {
        let timer = self.timer.as_ref()?;
        catch_unwind(AssertUnwindSafe(timer)).ok()
    }

    /// Adds the time since `begun`.
    pub(crate) fn end(&self, begun: Option<Duration>, times: &Times) {
        if let Some(begun) = begun
            && let Some(now) = self.begin()
        {
            times.add(now.saturating_sub(begun));
        }
    }
}

/// Counts a connection while it exists.
pub(crate) struct CountedConnection(Arc<Counters>);

impl CountedConnection {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        counters.connections.fetch_add(1, Ordering::Relaxed);
        Self(counters)
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_has_each_denial_once() {
        let source = include_str!("denial.rs");
        let codes = source.split("\nimpl Denial {").nth(1).unwrap().split("pub fn status").next().unwrap();
        let codes: Vec<&str> =
            codes.split("=> \"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert!(codes.len() > 40 && codes.contains(&"stale"), "{codes:?}");
        assert_eq!(codes.iter().collect::<BTreeSet<_>>(), DENIALS.iter().collect::<BTreeSet<_>>());
        assert_eq!(codes.len(), DENIALS.len());
    }

    #[test]
    fn a_time_belongs_to_the_first_range_that_ends_after_it() {
        for (micros, bucket) in
            [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), ((1 << 30) - 1, 30), (1 << 30, 31), (u64::MAX, 31)]
        {
            let times = Times::default();
            times.add(Duration::from_micros(micros));
            let found = times.read().buckets().position(|(_, count)| count == 1);
            assert_eq!(found, Some(bucket), "{micros}");
        }
        let times = Times::default();
        times.add(Duration::MAX);
        assert_eq!(times.read().buckets().last(), Some((Duration::MAX, 1)));
        assert_eq!(Histogram::default().buckets().count(), Histogram::BUCKETS);
    }

    proptest! {
        #[test]
        fn the_ranges_of_a_histogram_hold_every_time_once(times in prop::collection::vec(0_u64..1 << 40, 0..200)) {
            let filled = Times::default();
            times.iter().for_each(|micros| filled.add(Duration::from_micros(*micros)));
            let histogram = filled.read();
            prop_assert_eq!(histogram.count(), times.len() as u64);
            prop_assert_eq!(histogram.total(), Duration::from_micros(times.iter().sum()));
            let mut from = Duration::ZERO;
            for (end, count) in histogram.buckets() {
                prop_assert!(end > from, "ranges grow and touch");
                let inside = |micros: &&u64| (from..end).contains(&Duration::from_micros(**micros));
                prop_assert_eq!(count, times.iter().filter(inside).count() as u64);
                from = end;
            }
        }
    }

    #[test]
    fn counters_of_many_threads_lose_nothing() {
        let counters = Arc::new(Counters::default());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut frames = FrameCount::new(Arc::clone(&counters));
                    for _ in 0..1_000 {
                        frames.permitted();
                        counters.denied(&Denial::Stale);
                        counters.settle_time.add(Duration::from_micros(5));
                    }
                });
            }
        });
        let stats = counters.read();
        let stale = stats.denials().find(|(code, _)| *code == "stale");
        assert_eq!((stats.frames_permitted, stale), (8_000, Some(("stale", 8_000))));
        assert_eq!(
            (stats.settle_time.count(), stats.settle_time.total()),
            (8_000, Duration::from_millis(40))
        );
    }

    #[test]
    fn a_timer_that_panics_or_goes_back_measures_nothing() {
        let counters = Counters::new(Some(Box::new(|| panic!("no clock"))));
        let begun = counters.begin();
        counters.end(begun, &counters.settle_time);
        assert_eq!((begun, counters.read().settle_time.count()), (None, 0));
        let counters = Counters::new(Some(Box::new(|| Duration::from_secs(1))));
        counters.end(Some(Duration::from_secs(9)), &counters.settle_time);
        assert_eq!(counters.read().settle_time.total(), Duration::ZERO);
    }
}
