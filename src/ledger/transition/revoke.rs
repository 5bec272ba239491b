//! Taking back.

use super::Step;
use super::bookkeeping::Ended;
use crate::audit::{AuditEvent, RevocationReason};
use crate::denial::LedgerFailure;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::IssuerPublicKey;
use crate::ledger::record::{CredentialRecord, TicketRecord, TicketState};
use crate::ledger::rows::Entry;

impl Step<'_> {
    /// Forgets an issuer and ends everything that it signed.
    pub(crate) fn revoke_issuer(&mut self, issuer: &IssuerPublicKey) -> Result<(), LedgerFailure> {
        if self.records.issuer(issuer)?.is_none() {
            return Ok(());
        }
        self.records.remove_issuer(issuer)?;
        self.events.push(AuditEvent::IssuerRevoked { issuer: *issuer });
        self.revoke_all(
            |record| record.issuer == *issuer,
            |record| record.issuer == *issuer,
            RevocationReason::Issuer,
        )
    }

    /// Revokes a ticket, or, once it was redeemed, its credential.
    pub(crate) fn revoke_ticket(&mut self, id: &TicketId) -> Result<(), LedgerFailure> {
        match self.records.ticket(id)? {
            Some(ticket) if ticket.state == TicketState::Claimed => match self.credential_of(id, &ticket)? {
                Some(_) => self.revoke_credential(&ticket.credential),
                None => Ok(()),
            },
            Some(_) => self.revoke_entry(Entry::Ticket(*id), RevocationReason::Owner),
            // A redeemed ticket's record is gone long before its credential's.
            None => self.revoke_all(|_| false, |record| record.ticket == *id, RevocationReason::Owner),
        }
    }

    /// Revokes a credential, or, before it was redeemed, the ticket that gives it.
    pub(crate) fn revoke_credential(&mut self, id: &CredentialId) -> Result<(), LedgerFailure> {
        match self.records.credential(id)? {
            Some(_) => self.revoke_entry(Entry::Credential(*id), RevocationReason::Owner),
            None => self.revoke_all(|record| record.credential == *id, |_| false, RevocationReason::Owner),
        }
    }

    /// Revokes whatever is picked. Looks at every record once.
    fn revoke_all(
        &mut self,
        of_ticket: impl Fn(&TicketRecord) -> bool,
        of_credential: impl Fn(&CredentialRecord) -> bool,
        why: RevocationReason,
    ) -> Result<(), LedgerFailure> {
        for entry in self.records.all()? {
            let picked = match entry {
                Entry::Ticket(id) => self.records.ticket(&id)?.is_some_and(|record| of_ticket(&record)),
                Entry::Credential(id) => {
                    self.records.credential(&id)?.is_some_and(|record| of_credential(&record))
                }
            };
            if picked {
                self.revoke_entry(entry, why)?;
            }
        }
        Ok(())
    }

    /// Ends everything of a session and moves its epoch on.
    pub(crate) fn close_session(
        &mut self,
        id: &SessionId,
        why: RevocationReason,
    ) -> Result<(), LedgerFailure> {
        for entry in self.records.live_of_session(id)? {
            self.revoke_entry(entry, why)?;
        }
        if let Some(mut session) = self.records.session(id)? {
            session.epoch = self.records.next_number()?;
            self.records.put_session(id, &session)?;
            self.events.push(AuditEvent::SessionClosed { session: id.clone(), why });
        }
        Ok(())
    }

    pub(super) fn revoke_entry(&mut self, entry: Entry, why: RevocationReason) -> Result<(), LedgerFailure> {
        match entry {
            Entry::Ticket(id) => {
                let Some(record) = self.records.ticket(&id)? else { return Ok(()) };
                if matches!(record.state, TicketState::Open(_)) {
                    let session = record.session.clone();
                    self.change_ticket(&id, record, TicketState::Revoked(why))?;
                    self.events.push(AuditEvent::TicketRevoked { ticket: id, session, why });
                }
            }
            Entry::Credential(id) => {
                let Some(record) = self.records.credential(&id)? else { return Ok(()) };
                if record.is_live() {
                    let session = record.session.clone();
                    self.end_credential(&id, record, Ended::Revoked(why))?;
                    self.events.push(AuditEvent::CredentialRevoked { credential: id, session, why });
                }
            }
        }
        Ok(())
    }
}
