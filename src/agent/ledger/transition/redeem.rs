//! Redemption: gives a ticket's credential to a phone.

use super::renew::Extension;
use super::{ContextAnswer, Exit, Names, Step, Verdict};
use crate::agent::audit::AuditEvent;
use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::ledger::record::{CredentialRecord, CredentialState, Edition, TicketRecord, TicketState};
use crate::agent::ledger::rows::Entry;
use crate::id::{CredentialId, TicketId};
use crate::key::HolderPublicKey;
use crate::label::Label;
use crate::limits::RETRY_WINDOW;
use crate::pair::RevocationReason;

/// The input of a redemption.
pub(crate) struct Redemption {
    pub(crate) label: Label,
    pub(crate) bound: Option<Extension>,
    pub(crate) nonce: [u8; 16],
    pub(crate) said: ContextAnswer,
}

impl Step<'_> {
    /// Redeems a ticket for a phone that has proven it. The returned record is valid, or waits for
    /// confirmation.
    pub(crate) fn redeem(
        &mut self,
        id: &TicketId,
        holder: &HolderPublicKey,
        redemption: &Redemption,
    ) -> Verdict<(CredentialId, CredentialRecord)> {
        let ticket = self.ticket_on_record(id)?.ok_or(Denial::TicketUnknown)?;
        self.may_redeem(&ticket, &redemption.said)?;
        if ticket.state != TicketState::Claimed
            && let Some(denial) = self.moment.closed.denial(&Names::of_ticket(id, &ticket))
        {
            return Err(denial.into());
        }
        if ticket.state == TicketState::Claimed {
            return self.redeem_again(id, &ticket, holder, &redemption.said);
        }
        // INVARIANT: while a ticket is open, nothing else has its credential's id.
        if self.records.credential(&ticket.credential)?.is_some() {
            return Err(LedgerFailure::Corrupt.into());
        }
        let bound = redemption.bound.as_ref().ok_or(Denial::Internal)?;
        Ok(self.claim(id, ticket, holder, bound, redemption)?)
    }

    /// Checks whether the ticket can be redeemed, without redeeming it.
    pub(crate) fn redeemable(&self, id: &TicketId, said: &ContextAnswer) -> Verdict<()> {
        let ticket = self.ticket_on_record(id)?.ok_or(Denial::TicketUnknown)?;
        self.may_redeem(&ticket, said)
    }

    fn may_redeem(&self, ticket: &TicketRecord, said: &ContextAnswer) -> Verdict<()> {
        match ticket.state {
            // Its credential's record is checked later.
            TicketState::Claimed => Ok(()),
            TicketState::Revoked(RevocationReason::SessionEnd) => Err(Denial::SessionGone.into()),
            TicketState::Revoked(_) => Err(Denial::TicketRevoked.into()),
            TicketState::Open(_) => self.may_claim(ticket, said),
            // A gone session or issuer takes precedence over the ticket's own expiry.
            TicketState::Expired => self.may_claim(ticket, said).and(Err(Denial::TicketExpired.into())),
        }
    }

    /// Returns the credential that a ticket gave. Issuers choose credential ids, so a record with the same id
    /// may be another ticket's.
    pub(super) fn credential_of(
        &self,
        id: &TicketId,
        ticket: &TicketRecord,
    ) -> Result<Option<CredentialRecord>, LedgerFailure> {
        Ok(self.credential_on_record(&ticket.credential)?.filter(|record| record.ticket == *id))
    }

    pub(crate) fn ticket(&self, id: &TicketId) -> Result<Option<TicketRecord>, LedgerFailure> {
        self.records.ticket(id)
    }

    /// Returns a ticket's record, until the time of its removal. The actual removal depends on how much else
    /// is due, and a phone's answer must not.
    fn ticket_on_record(&self, id: &TicketId) -> Result<Option<TicketRecord>, LedgerFailure> {
        let now = self.now;
        Ok(self.records.ticket(id)?.filter(|record| now < record.expires_at.plus(RETRY_WINDOW)))
    }

    fn may_claim(&self, ticket: &TicketRecord, said: &ContextAnswer) -> Verdict<()> {
        let issuer = self.records.issuer(&ticket.issuer)?;
        if issuer.is_none_or(|issuer| issuer.generation != ticket.generation) {
            return Err(Denial::IssuerRevoked.into());
        }
        let session = self.records.session(&ticket.session)?;
        if session.is_none_or(|session| session.epoch != ticket.epoch) {
            return Err(Denial::SessionGone.into());
        }
        said.check()?;
        match self.now {
            now if now >= ticket.expires_at => Err(Denial::TicketExpired.into()),
            now if now >= ticket.credential_expires_at => Err(Denial::CredentialExpired.into()),
            _ => Ok(()),
        }
    }

    fn claim(
        &mut self,
        id: &TicketId,
        ticket: TicketRecord,
        holder: &HolderPublicKey,
        bound: &Extension,
        redemption: &Redemption,
    ) -> Result<(CredentialId, CredentialRecord), LedgerFailure> {
        let credential = ticket.credential;
        let state = match ticket.require_confirm {
            true => CredentialState::Pending { nonce: redemption.nonce, until: ticket.expires_at },
            false => CredentialState::Active,
        };
        let record = CredentialRecord {
            ticket: *id,
            holder: *holder,
            session: ticket.session.clone(),
            epoch: ticket.epoch,
            issuer: ticket.issuer,
            generation: ticket.generation,
            device: ticket.device,
            created_at: self.now,
            last_seen: None,
            label: ticket.label.clone(),
            phone_label: redemption.label.clone(),
            state,
            bytes: Some(bound.bytes.clone()),
            edition: Edition {
                ops: ticket.ops,
                expires_at: ticket.credential_expires_at,
                hashes: bound.hashes,
            },
            renewals: Vec::new(),
            node: self.moment.node,
            verdict: Vec::new(),
        };
        self.change_ticket(id, ticket, TicketState::Claimed)?;
        self.insert_credential(&credential, &record)?;
        self.events.push(AuditEvent::TicketRedeemed {
            ticket: *id,
            credential,
            session: record.session.clone(),
            holder: *holder,
            label: record.phone_label.clone(),
            pending: matches!(state, CredentialState::Pending { .. }),
        });
        Ok((credential, record))
    }

    /// Gives the same credential to the same phone. Another phone within the ticket's lifetime means that the
    /// code has leaked: both are cut off.
    fn redeem_again(
        &mut self,
        id: &TicketId,
        ticket: &TicketRecord,
        holder: &HolderPublicKey,
        said: &ContextAnswer,
    ) -> Verdict<(CredentialId, CredentialRecord)> {
        let credential = ticket.credential;
        let record = self.credential_of(id, ticket)?.ok_or(Denial::TicketUnknown)?;
        let standing = self.standing(&record, said);
        if record.holder == *holder {
            match standing {
                Ok(()) | Err(Exit::Denied(Denial::ConfirmationPending)) => {}
                Err(exit) => return Err(exit),
            }
            if self.now >= ticket.expires_at.plus(RETRY_WINDOW) {
                return Err(Denial::TicketExpired.into());
            }
            if let Some(denial) = self.moment.closed.denial(&Names::of_credential(&credential, &record)) {
                return Err(denial.into());
            }
            return Ok((credential, record));
        }
        match standing {
            // The code has leaked, whatever else the context answers. The reasons have the same precedence as
            // for the first phone, if nothing is left to contest.
            Err(
                exit @ (Exit::Failed(_)
                | Exit::Denied(
                    Denial::CredentialRevoked
                    | Denial::TicketContested
                    | Denial::IssuerRevoked
                    | Denial::SessionGone,
                )),
            ) => return Err(exit),
            _ if self.now >= ticket.expires_at => return Err(Denial::TicketClaimed.into()),
            _ => {}
        }
        // An expired credential is not revoked as well, whether or not its end is on record.
        if matches!(standing, Ok(()) | Err(Exit::Denied(Denial::ConfirmationPending))) {
            let (first, session) = (record.holder, record.session.clone());
            self.revoke_entry(Entry::Credential(credential), RevocationReason::Contest)?;
            self.events.push(AuditEvent::TicketContested {
                ticket: *id,
                credential,
                session,
                holder: first,
                contender: *holder,
            });
        }
        // Committed together with the revocation above.
        Err(Denial::TicketContested.into())
    }
}
