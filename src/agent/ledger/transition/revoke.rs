//! Revokes tickets, credentials, sessions, issuers and devices.

use super::Step;
use super::bookkeeping::Ended;
use crate::agent::audit::AuditEvent;
use crate::agent::denial::LedgerFailure;
use crate::agent::ledger::record::{Counts, CredentialRecord, SessionRecord, TicketState};
use crate::agent::ledger::rows::{Entry, Handle};
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{DevicePublicKey, IssuerPublicKey};
use crate::label::Label;
use crate::pair::RevocationReason;

impl Step<'_> {
    /// Removes an issuer and ends everything that it signed; with a generation, only if it is the current
    /// one.
    pub(super) fn revoke_issuer(
        &mut self,
        issuer: &IssuerPublicKey,
        generation: Option<u64>,
    ) -> Result<(), LedgerFailure> {
        let Some(record) = self.records.issuer(issuer)? else { return Ok(()) };
        if generation.is_some_and(|generation| generation != record.generation) {
            return Ok(());
        }
        self.records.remove_issuer(issuer);
        self.events.push(AuditEvent::IssuerRevoked { issuer: *issuer });
        self.revoke_by(Handle::Issuer(record.generation), RevocationReason::Issuer)
    }

    /// Revokes a ticket, or, after its redemption, its credential.
    pub(super) fn revoke_ticket(&mut self, id: &TicketId) -> Result<(), LedgerFailure> {
        self.revoke_entry(Entry::Ticket(*id), RevocationReason::Owner)?;
        self.revoke_by(Handle::Ticket(*id), RevocationReason::Owner)
    }

    /// Revokes a credential, or, before its redemption, the ticket that gives it.
    pub(super) fn revoke_credential(&mut self, id: &CredentialId) -> Result<(), LedgerFailure> {
        self.revoke_entry(Entry::Credential(*id), RevocationReason::Owner)?;
        self.revoke_by(Handle::Credential(*id), RevocationReason::Owner)
    }

    /// Revokes every pairing that a device has offered under one phone name.
    pub(super) fn revoke_phone(
        &mut self,
        device: &DevicePublicKey,
        name: &Label,
    ) -> Result<(), LedgerFailure> {
        self.revoke_by(Handle::Phone(device, name), RevocationReason::Owner)
    }

    /// Returns how many tickets and credentials were revoked since this many events, if any were.
    pub(super) fn ended_since(&self, before: usize) -> Option<u64> {
        let (mut pairings, mut issuers) = (0_u64, false);
        for event in self.events.iter().skip(before) {
            match event {
                AuditEvent::TicketRevoked { .. } | AuditEvent::CredentialRevoked { .. } => {
                    pairings = pairings.saturating_add(1);
                }
                AuditEvent::IssuerRevoked { .. } => issuers = true,
                _ => {}
            }
        }
        (pairings > 0 || issuers).then_some(pairings)
    }

    pub(super) fn has_session(&self, id: &SessionId) -> Result<bool, LedgerFailure> {
        Ok(self.records.session(id)?.is_some())
    }

    /// Whether a device has offered anything that is on record.
    pub(super) fn has_device(&self, device: &DevicePublicKey) -> Result<bool, LedgerFailure> {
        Ok(self.records.device(device)? != Counts::default())
    }

    fn revoke_by(&mut self, handle: Handle<'_>, why: RevocationReason) -> Result<(), LedgerFailure> {
        let live = self.records.of_handle(handle)?;
        self.revoke_all(live, why)
    }

    /// Ends everything of a session and increments its epoch; with an epoch, only if it is the current one.
    pub(super) fn close_session(
        &mut self,
        id: &SessionId,
        why: RevocationReason,
        epoch: Option<u64>,
    ) -> Result<(), LedgerFailure> {
        let Some(session) = self.records.session(id)? else { return Ok(()) };
        if epoch.is_some_and(|epoch| epoch != session.epoch) {
            return Ok(());
        }
        let live = self.records.live_of_session(id)?;
        self.revoke_all(live, why)?;
        // Read again, because removing entries has changed it.
        if let Some(session) = self.records.session(id)? {
            let epoch = self.records.next_number()?;
            self.records.put_session(id, Some(SessionRecord { epoch, ..session }));
        }
        self.events.push(AuditEvent::SessionClosed { session: id.clone(), why });
        Ok(())
    }

    /// Ends each of these. Credentials that would be removed at once, because too many have ended, are not
    /// kept; their end is still recorded as an event.
    fn revoke_all(&mut self, entries: Vec<Entry>, why: RevocationReason) -> Result<(), LedgerFailure> {
        let mut live = Vec::new();
        for entry in entries {
            match entry {
                Entry::Ticket(id) => self.revoke_open_ticket(id, why)?,
                Entry::Credential(id) => {
                    let record = self.records.credential(&id)?;
                    live.extend(record.filter(CredentialRecord::is_live).map(|record| (id, record)));
                }
            }
        }
        let surplus = self.surplus_of(&live)?;
        for (id, record) in live {
            let session = record.session.clone();
            match surplus.contains(&id) {
                true => self.remove_credential(&id, &record)?,
                false => self.end_credential(&id, record, Ended::Revoked(why))?,
            }
            self.events.push(AuditEvent::CredentialRevoked { credential: id, session, why });
        }
        Ok(())
    }

    pub(super) fn revoke_entry(&mut self, entry: Entry, why: RevocationReason) -> Result<(), LedgerFailure> {
        self.revoke_all(vec![entry], why)
    }

    fn revoke_open_ticket(&mut self, id: TicketId, why: RevocationReason) -> Result<(), LedgerFailure> {
        let Some(record) = self.records.ticket(&id)? else { return Ok(()) };
        if matches!(record.state, TicketState::Open(_)) {
            let session = record.session.clone();
            self.change_ticket(&id, record, TicketState::Revoked(why))?;
            self.events.push(AuditEvent::TicketRevoked { ticket: id, session, why });
        }
        Ok(())
    }
}
