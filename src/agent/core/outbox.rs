//! Audit records between the ledger and the sink: each reaches the sink in order and once, whatever
//! ends the process or keeps the sink from its work.

use core::panic::AssertUnwindSafe;
use std::collections::{HashSet, VecDeque};
use std::panic::catch_unwind;

use crate::agent::audit::{AuditPosition, AuditRecord, AuditSink};
use crate::limits::{FORGET_PER_TRANSITION, MAX_AUDIT_WAITING};
use crate::sync::Mutex;

use super::lock;

/// Records on their way to the sink. The ledger has all of them.
pub(crate) struct Outbox {
    sink: Box<dyn AuditSink>,
    /// Held while the sink works, so that it is told in order. No other lock is held then.
    telling: Mutex<()>,
    /// Held for moments only.
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// What the sink has not taken yet, oldest first.
    waiting: VecDeque<AuditRecord>,
    /// What it has taken, or has lost for good, and the ledger still keeps.
    taken: Vec<AuditPosition>,
}

impl Queue {
    fn add(&mut self, records: impl IntoIterator<Item = AuditRecord>) {
        self.waiting.extend(records);
        while self.waiting.len() > MAX_AUDIT_WAITING {
            self.taken.extend(self.waiting.pop_front().map(|given_up| given_up.position()));
        }
    }
}

impl Outbox {
    pub(crate) fn new(sink: Box<dyn AuditSink>) -> Self {
        Self { sink, telling: Mutex::new(()), queue: Mutex::default() }
    }

    /// Takes up what the ledger has kept from earlier openings, in order, when a process begins. Asks the
    /// sink what it has.
    pub(crate) fn begin(&self, mut kept: Vec<AuditRecord>) {
        // What came before one that the sink has was told, or given up.
        let has = |record: &AuditRecord| says_yes(|| self.sink.has(record));
        let told = kept.iter().rposition(has).map_or(0, |last| last.saturating_add(1));
        let waiting = kept.split_off(told);
        let mut queue = lock(&self.queue);
        queue.taken = kept.iter().map(AuditRecord::position).collect();
        queue.add(waiting);
    }

    /// Takes up what the ledger has kept, when it is opened again: what became durable unnoticed is among it.
    pub(crate) fn resume(&self, kept: Vec<AuditRecord>) {
        let mut queue = lock(&self.queue);
        let known: HashSet<AuditPosition> =
            queue.waiting.iter().map(AuditRecord::position).chain(queue.taken.iter().copied()).collect();
        queue.add(kept.into_iter().filter(|record| !known.contains(&record.position())));
    }

    /// What the ledger need not keep any more, as much as one transition removes.
    pub(crate) fn taken(&self) -> Vec<AuditPosition> {
        lock(&self.queue).taken.iter().take(FORGET_PER_TRANSITION).copied().collect()
    }

    /// What was listed as taken has gone from the ledger.
    pub(crate) fn forget(&self, taken: &[AuditPosition]) {
        let gone: HashSet<&AuditPosition> = taken.iter().collect();
        lock(&self.queue).taken.retain(|position| !gone.contains(position));
    }

    /// Queues what has become durable. To be called in the order in which it did. Beyond the bound the oldest
    /// is given up.
    pub(crate) fn add(&self, records: Vec<AuditRecord>) {
        lock(&self.queue).add(records);
    }

    /// Tells the sink what is queued, until it keeps no more. Waits for the sink, and for other callers that
    /// do.
    pub(crate) fn tell(&self) {
        let telling = lock(&self.telling);
        self.tell_all();
        drop(telling);
    }

    /// The same, unless another caller is at it.
    pub(crate) fn tell_unless_busy(&self) {
        // A sink that panics is caught, so the lock is never poisoned. Whoever else has it tells everything.
        if let Ok(telling) = self.telling.try_lock() {
            self.tell_all();
            drop(telling);
        }
    }

    /// Under the lock.
    fn tell_all(&self) {
        loop {
            let Some(first) = lock(&self.queue).waiting.front().cloned() else { return };
            if !says_yes(|| self.sink.record(&first).is_ok()) {
                return;
            }
            let position = first.position();
            let mut queue = lock(&self.queue);
            // It may have been given up meanwhile.
            if queue.waiting.front().is_some_and(|front| front.position() == position) {
                queue.waiting.pop_front();
                queue.taken.push(position);
            }
        }
    }
}

/// Asks a sink. One that panics has not kept anything, and must not keep a revoker.
fn says_yes(ask: impl FnOnce() -> bool) -> bool {
    catch_unwind(AssertUnwindSafe(ask)).unwrap_or(false)
}
