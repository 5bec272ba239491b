//! Redemption: who gets a ticket's credential.

use super::renew::Extension;
use super::{Names, Said, Step, Verdict};
use crate::agent::audit::AuditEvent;
use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::ledger::record::{CredentialRecord, CredentialState, Edition, TicketRecord, TicketState};
use crate::agent::ledger::rows::Entry;
use crate::id::{CredentialId, TicketId};
use crate::key::HolderPublicKey;
use crate::label::Label;
use crate::limits::RETRY_WINDOW;
use crate::pair::RevocationReason;

/// What a redemption brings along.
pub(crate) struct Redemption {
    pub(crate) label: Label,
    pub(crate) bound: Option<Extension>,
    pub(crate) nonce: [u8; 16],
    pub(crate) said: Said,
}

impl Step<'_> {
    /// Redeems a ticket for a phone that has proven it. The record that comes back stands, or waits
    /// for confirmation.
    pub(crate) fn redeem(
        &mut self,
        id: &TicketId,
        holder: &HolderPublicKey,
        redemption: &Redemption,
    ) -> Verdict<(CredentialId, CredentialRecord)> {
        let Some(ticket) = self.ticket_on_record(id)? else {
            return Ok(Err(Denial::TicketUnknown));
        };
        if let Err(denial) = self.may_redeem(&ticket, &redemption.said)? {
            return Ok(Err(denial));
        }
        if ticket.state != TicketState::Claimed
            && let Some(denial) = self.moment.closed.denial(&Names::of_ticket(id, &ticket))
        {
            return Ok(Err(denial));
        }
        if ticket.state == TicketState::Claimed {
            return self.redeem_again(id, &ticket, holder, &redemption.said);
        }
        // INVARIANT: while a ticket is open, nothing else has its credential's id.
        if self.records.credential(&ticket.credential)?.is_some() {
            return Err(LedgerFailure::Corrupt);
        }
        match &redemption.bound {
            Some(bound) => self.claim(id, ticket, holder, bound, redemption).map(Ok),
            None => Ok(Err(Denial::Internal)),
        }
    }

    /// What a ticket's record has to say against its redemption, without redeeming it.
    pub(crate) fn redeemable(&self, id: &TicketId, said: &Said) -> Verdict<()> {
        match self.ticket_on_record(id)? {
            Some(ticket) => self.may_redeem(&ticket, said),
            None => Ok(Err(Denial::TicketUnknown)),
        }
    }

    fn may_redeem(&self, ticket: &TicketRecord, said: &Said) -> Verdict<()> {
        match ticket.state {
            // Its credential's record has the rest.
            TicketState::Claimed => Ok(Ok(())),
            TicketState::Revoked(RevocationReason::SessionEnd) => Ok(Err(Denial::SessionGone)),
            TicketState::Revoked(_) => Ok(Err(Denial::TicketRevoked)),
            TicketState::Open(_) => self.may_claim(ticket, said),
            // A gone session or issuer comes before the ticket's own end.
            TicketState::Expired => Ok(self.may_claim(ticket, said)?.and(Err(Denial::TicketExpired))),
        }
    }

    /// The credential that a ticket gave. Issuers choose credential ids, so a record under the same id
    /// may be another ticket's.
    pub(super) fn credential_of(
        &self,
        id: &TicketId,
        ticket: &TicketRecord,
    ) -> Result<Option<CredentialRecord>, LedgerFailure> {
        Ok(self.credential_on_record(&ticket.credential)?.filter(|record| record.ticket == *id))
    }

    /// A ticket's record, until it may be removed. What is removed when depends on how much else is due,
    /// and a phone's answer must not.
    fn ticket_on_record(&self, id: &TicketId) -> Result<Option<TicketRecord>, LedgerFailure> {
        let now = self.now;
        Ok(self.records.ticket(id)?.filter(|record| now < record.expires_at.plus(RETRY_WINDOW)))
    }

    fn may_claim(&self, ticket: &TicketRecord, said: &Said) -> Verdict<()> {
        let issuer = self.records.issuer(&ticket.issuer)?;
        if issuer.is_none_or(|issuer| issuer.generation != ticket.generation) {
            return Ok(Err(Denial::IssuerRevoked));
        }
        let session = self.records.session(&ticket.session)?;
        if session.is_none_or(|session| session.epoch != ticket.epoch) {
            return Ok(Err(Denial::SessionGone));
        }
        if let Err(denial) = said {
            return Ok(Err(denial.clone()));
        }
        Ok(match self.now {
            now if now >= ticket.expires_at => Err(Denial::TicketExpired),
            now if now >= ticket.credential_expires_at => Err(Denial::CredentialExpired),
            _ => Ok(()),
        })
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

    /// The same phone gets the same credential. Another phone within the ticket's lifetime means that
    /// the code has leaked: both are out.
    fn redeem_again(
        &mut self,
        id: &TicketId,
        ticket: &TicketRecord,
        holder: &HolderPublicKey,
        said: &Said,
    ) -> Verdict<(CredentialId, CredentialRecord)> {
        let credential = ticket.credential;
        let Some(record) = self.credential_of(id, ticket)? else {
            return Ok(Err(Denial::TicketUnknown));
        };
        let standing = self.standing(&record, said)?;
        if record.holder == *holder {
            match standing {
                Ok(()) | Err(Denial::ConfirmationPending) => {}
                Err(denial) => return Ok(Err(denial)),
            }
            if self.now >= ticket.expires_at.plus(RETRY_WINDOW) {
                return Ok(Err(Denial::TicketExpired));
            }
            if let Some(denial) = self.moment.closed.denial(&Names::of_credential(&credential, &record)) {
                return Ok(Err(denial));
            }
            return Ok(Ok((credential, record)));
        }
        match standing {
            // The code has leaked, whatever else the context can tell. The same precedence as for the first phone, where there is nothing left to contest.
            Err(
                denial @ (Denial::CredentialRevoked
                | Denial::TicketContested
                | Denial::IssuerRevoked
                | Denial::SessionGone),
            ) => return Ok(Err(denial)),
            _ if self.now >= ticket.expires_at => return Ok(Err(Denial::TicketClaimed)),
            _ => {}
        }
        // One that has run out is not revoked as well, whether its end is on record yet or not.
        if matches!(standing, Ok(()) | Err(Denial::ConfirmationPending)) {
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
        Ok(Err(Denial::TicketContested))
    }
}
