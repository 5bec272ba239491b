//! Delivers audit records from the ledger to the sink, in order and once, even if the process is killed or
//! the sink fails.

use core::panic::AssertUnwindSafe;
use std::collections::{HashSet, VecDeque};
use std::panic::catch_unwind;
use std::sync::Arc;

use crate::agent::audit::{AuditPosition, AuditRecord, AuditSink};
use crate::agent::stats::Counters;
use crate::limits::{FORGET_PER_TRANSITION, MAX_AUDIT_WAITING};
use crate::sync::Mutex;

use super::lock;

/// The queue of records for the sink. The ledger has all of them.
pub(crate) struct Outbox {
    sink: Box<dyn AuditSink>,
    /// Held while the sink works, so that it gets records in order. No other lock is held then.
    telling: Mutex<()>,
    /// Held only briefly.
    queue: Mutex<Queue>,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Queue {
    /// Records that the sink has not taken yet, oldest first.
    waiting: VecDeque<AuditRecord>,
    /// Positions that the sink has taken, or that were dropped, and that the ledger still keeps.
    taken: Vec<AuditPosition>,
}

impl Queue {
    fn add(&mut self, records: impl IntoIterator<Item = AuditRecord>, counters: &Counters) {
        self.waiting.extend(records);
        while self.waiting.len() > MAX_AUDIT_WAITING {
            self.taken.extend(self.waiting.pop_front().map(|given_up| given_up.position()));
            counters.audit_dropped.add_one();
        }
        counters.gauges.set_audit_waiting(self.waiting.len());
    }
}

impl Outbox {
    pub(crate) fn new(sink: Box<dyn AuditSink>, counters: Arc<Counters>) -> Self {
        Self { sink, telling: Mutex::new(()), queue: Mutex::default(), counters }
    }

    /// Queues the records of earlier openings that the ledger has kept, when a process starts. Asks the sink
    /// which of them it has.
    pub(crate) fn begin(&self, mut kept: Vec<AuditRecord>) {
        // Records before one that the sink has were delivered or dropped.
        let has = |record: &AuditRecord| ask_sink(|| self.sink.has(record));
        let told = kept.iter().rposition(has).map_or(0, |last| last.saturating_add(1));
        let waiting = kept.split_off(told);
        let mut queue = lock(&self.queue);
        queue.taken = kept.iter().map(AuditRecord::position).collect();
        queue.add(waiting, &self.counters);
    }

    /// Queues the records that a reopened ledger has kept, including those that became durable unnoticed.
    pub(crate) fn resume(&self, kept: Vec<AuditRecord>) {
        let mut queue = lock(&self.queue);
        let known: HashSet<AuditPosition> =
            queue.waiting.iter().map(AuditRecord::position).chain(queue.taken.iter().copied()).collect();
        queue.add(kept.into_iter().filter(|record| !known.contains(&record.position())), &self.counters);
    }

    /// Returns the positions that the ledger can remove, at most as many as one transition removes.
    pub(crate) fn taken(&self) -> Vec<AuditPosition> {
        lock(&self.queue).taken.iter().take(FORGET_PER_TRANSITION).copied().collect()
    }

    /// Notes that the ledger has removed these positions.
    pub(crate) fn forget(&self, taken: &[AuditPosition]) {
        let gone: HashSet<&AuditPosition> = taken.iter().collect();
        lock(&self.queue).taken.retain(|position| !gone.contains(position));
    }

    /// Queues durable records. Call it in the order in which they became durable. Beyond the bound, the
    /// oldest is dropped.
    pub(crate) fn add(&self, records: Vec<AuditRecord>) {
        lock(&self.queue).add(records, &self.counters);
    }

    /// Passes queued records to the sink until it keeps no more. Waits for the sink, and for other callers
    /// that do the same.
    pub(crate) fn tell(&self) {
        let telling = lock(&self.telling);
        self.tell_all();
        drop(telling);
    }

    /// Does the same, unless another caller already does.
    pub(crate) fn tell_unless_busy(&self) {
        // A sink's panic is caught, so the lock is not poisoned. The caller that holds it delivers
        // everything.
        if let Ok(telling) = self.telling.try_lock() {
            self.tell_all();
            drop(telling);
        }
    }

    /// Holds both locks.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> impl Drop + '_ {
        struct Held<'a>(
            #[expect(dead_code, reason = "held until it is dropped")] crate::sync::MutexGuard<'a, ()>,
            #[expect(dead_code, reason = "held until it is dropped")] crate::sync::MutexGuard<'a, Queue>,
        );
        impl Drop for Held<'_> {
            fn drop(&mut self) {}
        }
        Held(lock(&self.telling), lock(&self.queue))
    }

    /// Delivers under the lock.
    fn tell_all(&self) {
        loop {
            let Some(first) = lock(&self.queue).waiting.front().cloned() else { return };
            let kept = ask_sink(|| self.sink.record(&first).is_ok());
            self.counters.gauges.set_audit_refused(!kept);
            if !kept {
                return;
            }
            let position = first.position();
            let mut queue = lock(&self.queue);
            // The record may have been dropped meanwhile.
            if queue.waiting.front().is_some_and(|front| front.position() == position) {
                queue.waiting.pop_front();
                queue.taken.push(position);
                self.counters.gauges.set_audit_waiting(queue.waiting.len());
            }
        }
    }
}

/// Asks a sink. If it panics, the answer is "no": it must not hold up a revoker.
fn ask_sink(ask: impl FnOnce() -> bool) -> bool {
    catch_unwind(AssertUnwindSafe(ask)).unwrap_or(false)
}
