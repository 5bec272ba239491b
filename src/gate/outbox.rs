//! Audit records between the ledger and the sink: each reaches the sink in order and once, whatever
//! ends the process or keeps the sink from its work.

use std::collections::VecDeque;

use crate::audit::{AuditPosition, AuditRecord, AuditSink};
use crate::ledger::transition::Told;
use crate::limits::MAX_AUDIT_WAITING;

/// Records on their way to the sink.
pub(super) struct Outbox {
    /// The next record's place.
    next: AuditPosition,
    /// What the sink has not taken yet, oldest first.
    waiting: VecDeque<Waiting>,
    /// What it has taken, or lost for good, and the ledger still keeps.
    taken: Vec<AuditPosition>,
}

struct Waiting {
    record: AuditRecord,
    /// Whether the ledger keeps it.
    stored: bool,
}

impl Outbox {
    /// For one opening of the ledger, with what the ledger has kept from earlier ones.
    pub(super) fn new(opening: u64, kept: Vec<AuditRecord>, sink: &dyn AuditSink) -> Self {
        let last = sink.last();
        let (taken, waiting): (Vec<_>, Vec<_>) =
            kept.into_iter().partition(|record| Some(record.position()) <= last);
        Self {
            next: AuditPosition { opening, sequence: 0 },
            waiting: waiting.into_iter().map(|record| Waiting { record, stored: true }).collect(),
            taken: taken.iter().map(AuditRecord::position).collect(),
        }
    }

    /// The next record's place.
    pub(super) fn next(&self) -> AuditPosition {
        self.next
    }

    /// What the ledger need not keep any more.
    pub(super) fn taken(&self) -> &[AuditPosition] {
        &self.taken
    }

    /// Hands on what has become durable. With it, if it was stored, what [`Outbox::taken`] listed has
    /// gone from the ledger.
    pub(super) fn send(&mut self, told: Told, sink: &dyn AuditSink) {
        let Told { records, stored } = told;
        if stored {
            self.taken.clear();
        }
        if let Some(last) = records.last() {
            self.next.sequence = last.sequence.saturating_add(1);
        }
        self.waiting.extend(records.into_iter().map(|record| Waiting { record, stored }));
        while let Some(first) = self.waiting.front() {
            let gone = sink.record(&first.record).is_ok() || self.waiting.len() > MAX_AUDIT_WAITING;
            if !gone {
                break;
            }
            if first.stored {
                self.taken.push(first.record.position());
            }
            self.waiting.pop_front();
        }
    }
}
