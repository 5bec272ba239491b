//! Audit records between the ledger and the sink: each reaches the sink in order and once, whatever
//! ends the process or keeps the sink from its work.

use core::panic::AssertUnwindSafe;
use std::collections::VecDeque;
use std::panic::catch_unwind;

use crate::agent::audit::{AuditPosition, AuditRecord, AuditSink};
use crate::limits::MAX_AUDIT_WAITING;

/// Records on their way to the sink. The ledger has all of them.
pub(crate) struct Outbox {
    /// The next record's place.
    next: AuditPosition,
    /// What the sink has not taken yet, oldest first.
    waiting: VecDeque<AuditRecord>,
    /// What it has taken, or has lost for good, and the ledger still keeps.
    taken: Vec<AuditPosition>,
}

impl Outbox {
    /// For one opening of the ledger, with what it has kept from earlier ones, in order.
    pub(crate) fn new(opening: u64, mut kept: Vec<AuditRecord>, sink: &dyn AuditSink) -> Self {
        // What came before one that it has was told, or given up.
        let has = |record: &AuditRecord| says_yes(|| sink.has(record));
        let told = kept.iter().rposition(has).map_or(0, |last| last.saturating_add(1));
        let given_up = kept.len().saturating_sub(MAX_AUDIT_WAITING);
        let waiting = kept.split_off(told.max(given_up));
        Self {
            next: AuditPosition { opening, sequence: 0 },
            waiting: waiting.into(),
            taken: kept.iter().map(AuditRecord::position).collect(),
        }
    }

    /// The next record's place.
    pub(crate) fn next(&self) -> AuditPosition {
        self.next
    }

    /// What the ledger need not keep any more.
    pub(crate) fn taken(&self) -> &[AuditPosition] {
        &self.taken
    }

    /// What was listed as taken has gone from the ledger.
    pub(crate) fn forget_taken(&mut self) {
        self.taken.clear();
    }

    /// Hands on what has become durable, and what has waited.
    pub(crate) fn send(&mut self, records: Vec<AuditRecord>, sink: &dyn AuditSink) {
        if let Some(last) = records.last() {
            self.next.sequence = last.sequence.saturating_add(1);
        }
        self.waiting.extend(records);
        while let Some(first) = self.waiting.front() {
            let kept = says_yes(|| sink.record(first).is_ok());
            let gone = kept || self.waiting.len() > MAX_AUDIT_WAITING;
            if !gone {
                break;
            }
            self.taken.push(first.position());
            self.waiting.pop_front();
        }
    }
}

/// Asks a sink. One that panics has not kept anything, and must not keep a revoker.
fn says_yes(ask: impl FnOnce() -> bool) -> bool {
    catch_unwind(AssertUnwindSafe(ask)).unwrap_or(false)
}
