//! What every change of a record brings along: its place in the queues, its counts, its session.

use super::Step;
use crate::agent::audit::RevocationReason;
use crate::agent::denial::LedgerFailure;
use crate::agent::ledger::record::{
    Counters, CredentialRecord, CredentialState, SessionRecord, TicketRecord, TicketState,
};
use crate::agent::ledger::rows::{Entry, Group, Handle, Queue};
use crate::clock::Timestamp;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::limits::{MAX_ENDED_CREDENTIALS, RETRY_WINDOW, TOMBSTONE_GRACE};

/// How a credential ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Revoked(RevocationReason),
    Expired,
}

impl From<Ended> for CredentialState {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Revoked(why) => Self::Revoked(why),
            Ended::Expired => Self::Expired,
        }
    }
}

impl Step<'_> {
    /// Puts a new ticket on record, open, in a session that is on record.
    pub(super) fn insert_ticket(
        &mut self,
        id: &TicketId,
        record: &TicketRecord,
    ) -> Result<(), LedgerFailure> {
        self.count(&record.session, |agent, session| {
            up(&mut agent.tickets);
            up(&mut agent.open_tickets);
            up(&mut session.open_tickets);
        })?;
        self.records.join_session(&record.session, Group::Live, Entry::Ticket(*id))?;
        self.records.add_handles(ticket_handles(record), Entry::Ticket(*id))?;
        self.records.schedule(Queue::Ending, ticket_due(record), Entry::Ticket(*id))?;
        self.records.put_ticket(id, record)
    }

    /// Moves an open ticket on.
    pub(super) fn change_ticket(
        &mut self,
        id: &TicketId,
        mut record: TicketRecord,
        to: TicketState,
    ) -> Result<(), LedgerFailure> {
        self.records.unschedule(Queue::Ending, ticket_due(&record), Entry::Ticket(*id))?;
        self.count(&record.session, |agent, session| {
            down(&mut agent.open_tickets);
            down(&mut session.open_tickets);
        })?;
        self.records.leave_session(&record.session, Group::Live, Entry::Ticket(*id))?;
        self.records.join_session(&record.session, Group::Ended, Entry::Ticket(*id))?;
        self.records.remove_handles(ticket_handles(&record), Entry::Ticket(*id))?;
        record.state = to;
        self.records.schedule(Queue::Ending, ticket_due(&record), Entry::Ticket(*id))?;
        self.records.put_ticket(id, &record)
    }

    /// Removes a ticket that is no longer open.
    pub(super) fn remove_ticket(
        &mut self,
        id: &TicketId,
        record: &TicketRecord,
    ) -> Result<(), LedgerFailure> {
        self.records.unschedule(Queue::Ending, ticket_due(record), Entry::Ticket(*id))?;
        self.count_at_agent(|agent| down(&mut agent.tickets))?;
        self.records.remove_ticket(id)?;
        self.leave_session(&record.session, Entry::Ticket(*id))
    }

    /// Puts a new credential on record, live.
    pub(super) fn insert_credential(
        &mut self,
        id: &CredentialId,
        record: &CredentialRecord,
    ) -> Result<(), LedgerFailure> {
        self.count(&record.session, |agent, session| {
            up(&mut agent.live_credentials);
            up(&mut session.live_credentials);
        })?;
        self.records.join_session(&record.session, Group::Live, Entry::Credential(*id))?;
        self.records.add_handles(credential_handles(record), Entry::Credential(*id))?;
        self.write_live(id, record)
    }

    /// Changes a live credential that stays live. `change` sees it as it was.
    pub(super) fn change_credential(
        &mut self,
        id: &CredentialId,
        mut record: CredentialRecord,
        change: impl FnOnce(&mut CredentialRecord),
    ) -> Result<CredentialRecord, LedgerFailure> {
        if let Some(due) = credential_due(&record) {
            self.records.unschedule(Queue::Ending, due, Entry::Credential(*id))?;
        }
        change(&mut record);
        self.write_live(id, &record)?;
        Ok(record)
    }

    fn write_live(&mut self, id: &CredentialId, record: &CredentialRecord) -> Result<(), LedgerFailure> {
        let due = credential_due(record).ok_or(LedgerFailure::Corrupt)?;
        self.records.schedule(Queue::Ending, due, Entry::Credential(*id))?;
        self.records.put_credential(id, record)
    }

    /// Ends a live credential. What stays until its end tells its holder why; nothing stays that
    /// could be given to anyone.
    pub(super) fn end_credential(
        &mut self,
        id: &CredentialId,
        mut record: CredentialRecord,
        how: Ended,
    ) -> Result<(), LedgerFailure> {
        let due = credential_due(&record).ok_or(LedgerFailure::Corrupt)?;
        self.records.unschedule(Queue::Ending, due, Entry::Credential(*id))?;
        let counters = self.count(&record.session, |agent, session| {
            down(&mut agent.live_credentials);
            down(&mut session.live_credentials);
            up(&mut agent.ended_credentials);
        })?;
        self.records.leave_session(&record.session, Group::Live, Entry::Credential(*id))?;
        self.records.join_session(&record.session, Group::Ended, Entry::Credential(*id))?;
        self.records.remove_handles(credential_handles(&record), Entry::Credential(*id))?;
        record.edition.expires_at = record.ends_at();
        record.edition.bytes = None;
        record.renewals.clear();
        record.state = how.into();
        self.records.schedule(Queue::Ended, removal_due(&record), Entry::Credential(*id))?;
        self.records.put_credential(id, &record)?;
        if counters.ended_credentials > MAX_ENDED_CREDENTIALS
            && let Some((at, entry)) = self.records.earliest(Queue::Ended, 1)?.into_iter().next()
        {
            self.forget_ended(at, entry)?;
        }
        Ok(())
    }

    /// Removes an ended credential. Its holder is a stranger from now on.
    pub(super) fn forget_ended(&mut self, at: Timestamp, entry: Entry) -> Result<(), LedgerFailure> {
        let Entry::Credential(id) = entry else { return Err(LedgerFailure::Corrupt) };
        let record = self.records.credential(&id)?.ok_or(LedgerFailure::Corrupt)?;
        self.records.unschedule(Queue::Ended, at, entry)?;
        self.count_at_agent(|agent| down(&mut agent.ended_credentials))?;
        self.records.remove_credential(&id)?;
        self.leave_session(&record.session, entry)
    }

    /// Takes an ended entry out of its session, and the session with its last entry.
    fn leave_session(&mut self, session: &SessionId, entry: Entry) -> Result<(), LedgerFailure> {
        self.records.leave_session(session, Group::Ended, entry)?;
        if self.records.of_session(session, 1)?.is_empty() {
            self.records.remove_session(session)?;
        }
        Ok(())
    }

    /// Changes the agent's counts, and those of a session that is on record.
    fn count(
        &mut self,
        session: &SessionId,
        change: impl FnOnce(&mut Counters, &mut SessionRecord),
    ) -> Result<Counters, LedgerFailure> {
        let mut record = self.records.session(session)?.ok_or(LedgerFailure::Corrupt)?;
        let counters = self.count_at_agent(|agent| change(agent, &mut record))?;
        self.records.put_session(session, &record)?;
        Ok(counters)
    }

    fn count_at_agent(&mut self, change: impl FnOnce(&mut Counters)) -> Result<Counters, LedgerFailure> {
        let mut counters = self.records.counters()?;
        change(&mut counters);
        self.records.put_counters(&counters)?;
        Ok(counters)
    }
}

fn up(count: &mut u32) {
    *count = count.saturating_add(1);
}

fn down(count: &mut u32) {
    *count = count.saturating_sub(1);
}

/// What an open ticket is found by.
fn ticket_handles(record: &TicketRecord) -> [Handle; 2] {
    [Handle::Issuer(record.generation), Handle::Credential(record.credential)]
}

/// What a live credential is found by.
fn credential_handles(record: &CredentialRecord) -> [Handle; 2] {
    [Handle::Issuer(record.generation), Handle::Ticket(record.ticket)]
}

/// When something has to happen to a ticket: its end, and later its removal.
pub(super) fn ticket_due(record: &TicketRecord) -> Timestamp {
    match record.state {
        TicketState::Open(_) => record.expires_at,
        TicketState::Claimed | TicketState::Revoked(_) | TicketState::Expired => {
            record.expires_at.plus(RETRY_WINDOW)
        }
    }
}

/// When a live credential ends: when it has waited too long, or when the last of its editions ends.
/// None for one that has ended.
pub(super) fn credential_due(record: &CredentialRecord) -> Option<Timestamp> {
    match record.state {
        CredentialState::Pending { until, .. } => Some(until.min(record.ends_at())),
        CredentialState::Active => Some(record.ends_at()),
        CredentialState::Revoked(_) | CredentialState::Expired => None,
    }
}

fn removal_due(record: &CredentialRecord) -> Timestamp {
    record.edition.expires_at.plus(TOMBSTONE_GRACE)
}
