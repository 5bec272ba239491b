//! The passing of time: what is due ends, and later goes.

use super::Step;
use super::bookkeeping::{Ended, credential_due, ticket_due};
use crate::agent::audit::AuditEvent;
use crate::agent::denial::LedgerFailure;
use crate::agent::ledger::record::TicketState;
use crate::agent::ledger::rows::{Entry, Queue};
use crate::id::SessionId;
use crate::limits::COLLECT_PER_TRANSITION;

impl Step<'_> {
    /// Ends what is due and removes what nobody asks for any more: the earliest first, a bounded
    /// number in one transition.
    pub(crate) fn settle(&mut self) -> Result<(), LedgerFailure> {
        for queue in [Queue::Ending, Queue::Ended] {
            for (at, entry) in self.records.earliest(queue, COLLECT_PER_TRANSITION)? {
                if at > self.now {
                    break;
                }
                match queue {
                    Queue::Ending => self.end_entry(entry)?,
                    Queue::Ended => self.forget_ended(at, entry)?,
                }
            }
        }
        Ok(())
    }

    /// The same for one session, so that its quotas count what is live now.
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
