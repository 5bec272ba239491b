//! Ends what has expired, and removes old records.

use super::Step;
use super::bookkeeping::{Ended, credential_due, ticket_due};
use crate::agent::audit::AuditEvent;
use crate::agent::denial::LedgerFailure;
use crate::agent::ledger::record::TicketState;
use crate::agent::ledger::rows::{Entry, Queue};
use crate::clock::Timestamp;
use crate::id::{CredentialId, SessionId};
use crate::limits::COLLECT_PER_TRANSITION;

impl Step<'_> {
    /// Ends credentials that are known to be due, before others in the queue.
    pub(crate) fn settle_first(&mut self, credentials: &[CredentialId]) -> Result<(), LedgerFailure> {
        for id in credentials {
            let due = self.records.credential(id)?.as_ref().and_then(credential_due);
            if due.is_some_and(|due| due <= self.now) {
                self.end_entry(Entry::Credential(*id))?;
            }
        }
        Ok(())
    }

    /// Ends what is due and removes old records: the earliest first, a bounded number in one transition.
    pub(crate) fn settle(&mut self) -> Result<(), LedgerFailure> {
        for (_, entry) in self.due(Queue::Ending)? {
            self.end_entry(entry)?;
        }
        for (at, entry) in self.due(Queue::Ended)? {
            self.forget_ended(at, entry)?;
        }
        Ok(())
    }

    fn due(&self, queue: Queue<'_>) -> Result<Vec<(Timestamp, Entry)>, LedgerFailure> {
        let mut earliest = self.records.earliest(queue, COLLECT_PER_TRANSITION)?;
        earliest.retain(|(at, _)| *at <= self.now);
        Ok(earliest)
    }

    /// Does the same for one session, so that its quotas count only what is live.
    pub(super) fn settle_session(&mut self, session: &SessionId) -> Result<(), LedgerFailure> {
        for entry in self.records.live_of_session(session)? {
            let due = match entry {
                Entry::Ticket(id) => self.records.ticket(&id)?.map(|record| ticket_due(&record)),
                Entry::Credential(id) => {
                    self.records.credential(&id)?.and_then(|record| credential_due(&record))
                }
            };
            if due.is_some_and(|due| due <= self.now) {
                self.end_entry(entry)?;
            }
        }
        Ok(())
    }

    /// Ends a ticket or credential that is due, or removes a ticket that ended before.
    fn end_entry(&mut self, entry: Entry) -> Result<(), LedgerFailure> {
        match entry {
            Entry::Ticket(id) => {
                let record = self.records.ticket(&id)?.ok_or(LedgerFailure::Corrupt)?;
                if !matches!(record.state, TicketState::Open(_)) {
                    return self.remove_ticket(&id, &record);
                }
                let session = record.session.clone();
                self.change_ticket(&id, record, TicketState::Expired)?;
                self.events.push(AuditEvent::TicketExpired { ticket: id, session });
            }
            Entry::Credential(id) => {
                let record = self.records.credential(&id)?.ok_or(LedgerFailure::Corrupt)?;
                let session = record.session.clone();
                self.end_credential(&id, record, Ended::Expired)?;
                self.events.push(AuditEvent::CredentialExpired { credential: id, session });
            }
        }
        Ok(())
    }
}
