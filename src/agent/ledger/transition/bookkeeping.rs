//! The updates that every change of a record needs: its queues, counts and session.

use std::collections::{BTreeMap, BTreeSet};

use super::Step;
use crate::agent::denial::LedgerFailure;
use crate::agent::ledger::record::{
    Counts, CredentialRecord, CredentialState, SessionRecord, TicketRecord, TicketState,
};
use crate::agent::ledger::rows::{Entry, Group, Handle, Queue};
use crate::clock::Timestamp;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::DevicePublicKey;
use crate::label::Label;
use crate::limits::{ENDED_CREDENTIALS_SHARE, MAX_ENDED_CREDENTIALS, RETRY_WINDOW, TOMBSTONE_GRACE};
use crate::pair::RevocationReason;

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
        self.count(&record.device, |counts| {
            up(&mut counts.tickets);
            up(&mut counts.open_tickets);
        })?;
        self.count_session(&record.session, |session| up(&mut session.open_tickets))?;
        self.records.join_session(&record.session, Group::Live, Entry::Ticket(*id));
        self.records.add_handles(ticket_handles(record), Entry::Ticket(*id));
        self.records.schedule(Queue::Ending, ticket_due(record), Entry::Ticket(*id));
        self.records.put_ticket(id, record);
        Ok(())
    }

    /// Changes an open ticket's state.
    pub(super) fn change_ticket(
        &mut self,
        id: &TicketId,
        mut record: TicketRecord,
        to: TicketState,
    ) -> Result<(), LedgerFailure> {
        self.records.unschedule(Queue::Ending, ticket_due(&record), Entry::Ticket(*id));
        self.count(&record.device, |counts| down(&mut counts.open_tickets))?;
        self.count_session(&record.session, |session| {
            down(&mut session.open_tickets);
            up(&mut session.ended);
        })?;
        self.records.leave_session(&record.session, Group::Live, Entry::Ticket(*id));
        self.records.join_session(&record.session, Group::Ended, Entry::Ticket(*id));
        self.records.remove_handles(ticket_handles(&record), Entry::Ticket(*id));
        record.state = to;
        self.records.schedule(Queue::Ending, ticket_due(&record), Entry::Ticket(*id));
        self.records.put_ticket(id, &record);
        Ok(())
    }

    /// Removes a ticket that is no longer open.
    pub(super) fn remove_ticket(
        &mut self,
        id: &TicketId,
        record: &TicketRecord,
    ) -> Result<(), LedgerFailure> {
        self.records.unschedule(Queue::Ending, ticket_due(record), Entry::Ticket(*id));
        self.count(&record.device, |counts| down(&mut counts.tickets))?;
        self.records.remove_ticket(id);
        self.leave_session(&record.session, Entry::Ticket(*id))
    }

    /// Puts a new credential on record, live.
    pub(super) fn insert_credential(
        &mut self,
        id: &CredentialId,
        record: &CredentialRecord,
    ) -> Result<(), LedgerFailure> {
        self.count(&record.device, |counts| up(&mut counts.live_credentials))?;
        self.count_session(&record.session, |session| up(&mut session.live_credentials))?;
        self.records.join_session(&record.session, Group::Live, Entry::Credential(*id));
        self.records.add_handles(credential_handles(record), Entry::Credential(*id));
        self.write_live(id, record)
    }

    /// Changes a live credential that stays live. `change` receives it unchanged.
    pub(super) fn change_credential(
        &mut self,
        id: &CredentialId,
        mut record: CredentialRecord,
        change: impl FnOnce(&mut CredentialRecord),
    ) -> Result<CredentialRecord, LedgerFailure> {
        if let Some(due) = credential_due(&record) {
            self.records.unschedule(Queue::Ending, due, Entry::Credential(*id));
        }
        change(&mut record);
        self.write_live(id, &record)?;
        Ok(record)
    }

    fn write_live(&mut self, id: &CredentialId, record: &CredentialRecord) -> Result<(), LedgerFailure> {
        let due = credential_due(record).ok_or(LedgerFailure::Corrupt)?;
        self.records.schedule(Queue::Ending, due, Entry::Credential(*id));
        self.records.put_credential(id, record);
        Ok(())
    }

    /// Ends a live credential. The record that remains tells its holder the reason, and contains nothing that
    /// could be given to anyone.
    pub(super) fn end_credential(
        &mut self,
        id: &CredentialId,
        mut record: CredentialRecord,
        how: Ended,
    ) -> Result<(), LedgerFailure> {
        let due = credential_due(&record).ok_or(LedgerFailure::Corrupt)?;
        let entry = Entry::Credential(*id);
        self.records.unschedule(Queue::Ending, due, entry);
        self.count(&record.device, |counts| {
            down(&mut counts.live_credentials);
            up(&mut counts.ended_credentials);
        })?;
        self.count_session(&record.session, |session| {
            down(&mut session.live_credentials);
            up(&mut session.ended);
        })?;
        self.records.leave_session(&record.session, Group::Live, entry);
        self.records.join_session(&record.session, Group::Ended, entry);
        self.records.remove_handles(credential_handles(&record), entry);
        record.edition.expires_at = record.ends_at();
        record.bytes = None;
        record.renewals.clear();
        record.verdict.clear();
        record.state = how.into();
        self.records.schedule(Queue::Ended, removal_due(&record), entry);
        self.records.schedule(Queue::EndedOf(&record.device), removal_due(&record), entry);
        self.records.put_credential(id, &record);
        self.ended_of.insert(record.device);
        Ok(())
    }

    /// Removes a live credential, as if it had ended and been removed.
    pub(super) fn remove_credential(
        &mut self,
        id: &CredentialId,
        record: &CredentialRecord,
    ) -> Result<(), LedgerFailure> {
        let due = credential_due(record).ok_or(LedgerFailure::Corrupt)?;
        let entry = Entry::Credential(*id);
        self.records.unschedule(Queue::Ending, due, entry);
        self.count(&record.device, |counts| down(&mut counts.live_credentials))?;
        self.count_session(&record.session, |session| down(&mut session.live_credentials))?;
        self.records.leave_session(&record.session, Group::Live, entry);
        self.records.remove_handles(credential_handles(record), entry);
        self.records.remove_credential(id);
        Ok(())
    }

    /// Returns which of these [`Step::forget_surplus`] would remove at once if they ended now. Credentials
    /// that ended before are left to it.
    pub(super) fn surplus_of(
        &self,
        live: &[(CredentialId, CredentialRecord)],
    ) -> Result<BTreeSet<CredentialId>, LedgerFailure> {
        let mut of_devices: BTreeMap<DevicePublicKey, Vec<(Timestamp, Entry)>> = BTreeMap::new();
        for (id, record) in live {
            let ends = (record.ends_at().plus(TOMBSTONE_GRACE), Entry::Credential(*id));
            of_devices.entry(record.device).or_default().push(ends);
        }
        let (mut surplus, mut rest) = (BTreeSet::new(), Vec::new());
        for (device, ending) in of_devices {
            let kept = self.records.device(&device)?.ended_credentials;
            let most = beyond(kept, ending.len(), ENDED_CREDENTIALS_SHARE);
            let ended = self.records.earliest(Queue::EndedOf(&device), most)?;
            let earliest = earliest_of(ending.iter().chain(&ended).copied(), most);
            rest.extend(ending.into_iter().filter(|ending| !earliest.contains(ending)));
            surplus.extend(earliest);
        }
        let kept = self.records.counters()?.of_all.ended_credentials;
        let most = beyond(kept, live.len(), MAX_ENDED_CREDENTIALS).saturating_sub(surplus.len());
        if most > 0 {
            let mut ended = self.records.earliest(Queue::Ended, most.saturating_add(surplus.len()))?;
            ended.retain(|ended| !surplus.contains(ended));
            surplus.extend(earliest_of(rest.into_iter().chain(ended), most));
        }
        let credential = |(_, entry)| match entry {
            Entry::Credential(id) => Some(id),
            Entry::Ticket(_) => None,
        };
        Ok(surplus.into_iter().filter_map(credential).collect())
    }

    /// Removes ended credentials beyond the bounds, the earliest first: first those of a device beyond its
    /// own share, then those of all devices.
    pub(super) fn forget_surplus(&mut self) -> Result<(), LedgerFailure> {
        for device in core::mem::take(&mut self.ended_of) {
            let surplus =
                self.records.device(&device)?.ended_credentials.saturating_sub(ENDED_CREDENTIALS_SHARE);
            self.forget_earliest(Queue::EndedOf(&device), surplus)?;
        }
        let kept = self.records.counters()?.of_all.ended_credentials;
        self.forget_earliest(Queue::Ended, kept.saturating_sub(MAX_ENDED_CREDENTIALS))
    }

    /// Removes them with one read, so that the cost of each does not depend on their number.
    fn forget_earliest(&mut self, queue: Queue<'_>, number: u32) -> Result<(), LedgerFailure> {
        if number == 0 {
            return Ok(());
        }
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        for (at, entry) in self.records.earliest(queue, number)? {
            self.forget_ended(at, entry)?;
        }
        Ok(())
    }

    /// Removes an ended credential. Its holder is unknown afterwards.
    pub(super) fn forget_ended(&mut self, at: Timestamp, entry: Entry) -> Result<(), LedgerFailure> {
        let Entry::Credential(id) = entry else { return Err(LedgerFailure::Corrupt) };
        let record = self.records.credential(&id)?.ok_or(LedgerFailure::Corrupt)?;
        self.records.unschedule(Queue::Ended, at, entry);
        self.records.unschedule(Queue::EndedOf(&record.device), at, entry);
        self.count(&record.device, |counts| down(&mut counts.ended_credentials))?;
        self.records.remove_credential(&id);
        self.leave_session(&record.session, entry)
    }

    /// Removes an ended entry from its session.
    fn leave_session(&mut self, session: &SessionId, entry: Entry) -> Result<(), LedgerFailure> {
        self.records.leave_session(session, Group::Ended, entry);
        self.count_session(session, |record| down(&mut record.ended))
    }

    /// Changes the counts of a device, and those of all.
    fn count(&mut self, device: &DevicePublicKey, change: impl Fn(&mut Counts)) -> Result<(), LedgerFailure> {
        let mut counters = self.records.counters()?;
        change(&mut counters.of_all);
        self.records.put_counters(counters);
        let mut counts = self.records.device(device)?;
        change(&mut counts);
        self.records.put_device(device, counts);
        Ok(())
    }

    /// Changes the counts of a session on record. The session's record is removed with its last entry.
    fn count_session(
        &mut self,
        id: &SessionId,
        change: impl FnOnce(&mut SessionRecord),
    ) -> Result<(), LedgerFailure> {
        let mut session = self.records.session(id)?.ok_or(LedgerFailure::Corrupt)?;
        change(&mut session);
        self.records.put_session(id, (!session.is_empty()).then_some(session));
        Ok(())
    }
}

/// Returns how many exceed `most` if `coming` are added to `kept`.
fn beyond(kept: u32, coming: usize, most: u32) -> usize {
    let all = coming.saturating_add(usize::try_from(kept).unwrap_or(usize::MAX));
    all.saturating_sub(usize::try_from(most).unwrap_or(usize::MAX))
}

fn earliest_of(
    ends: impl Iterator<Item = (Timestamp, Entry)>,
    number: usize,
) -> BTreeSet<(Timestamp, Entry)> {
    let mut ends: Vec<_> = ends.collect();
    ends.sort_unstable();
    ends.into_iter().take(number).collect()
}

fn up(count: &mut u32) {
    *count = count.saturating_add(1);
}

fn down(count: &mut u32) {
    *count = count.saturating_sub(1);
}

/// Returns the handles of an open ticket.
pub(crate) fn ticket_handles(record: &TicketRecord) -> impl Iterator<Item = Handle<'_>> {
    let handles = [Handle::Issuer(record.generation), Handle::Credential(record.credential)];
    handles.into_iter().chain(phone_handle(&record.device, &record.label))
}

/// Returns the handles of a live credential.
pub(crate) fn credential_handles(record: &CredentialRecord) -> impl Iterator<Item = Handle<'_>> {
    let handles = [Handle::Issuer(record.generation), Handle::Ticket(record.ticket)];
    handles.into_iter().chain(phone_handle(&record.device, &record.label))
}

/// Returns the handle of the phone's name, unless it is empty.
fn phone_handle<'a>(device: &'a DevicePublicKey, name: &'a Label) -> Option<Handle<'a>> {
    (!name.as_str().is_empty()).then_some(Handle::Phone(device, name))
}

/// Returns the time of a ticket's next change: its end, and later its removal.
pub(crate) fn ticket_due(record: &TicketRecord) -> Timestamp {
    match record.state {
        TicketState::Open(_) => record.expires_at,
        TicketState::Claimed | TicketState::Revoked(_) | TicketState::Expired => {
            record.expires_at.plus(RETRY_WINDOW)
        }
    }
}

/// Returns when a live credential ends: when its confirmation is overdue, or when the last of its editions
/// ends. `None` if it has ended.
pub(crate) fn credential_due(record: &CredentialRecord) -> Option<Timestamp> {
    match record.state {
        CredentialState::Pending { until, .. } => Some(until.min(record.ends_at())),
        CredentialState::Active => Some(record.ends_at()),
        CredentialState::Revoked(_) | CredentialState::Expired => None,
    }
}

/// Returns when an ended credential is removed.
pub(crate) fn removal_due(record: &CredentialRecord) -> Timestamp {
    record.edition.expires_at.plus(TOMBSTONE_GRACE)
}
