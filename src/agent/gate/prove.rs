//! Checks the proof in a peer's message 1: possession of a ticket, or a credential that verifies.

use super::Inner;
use super::grant::Evidence;
use crate::agent::core::CallStart;
use crate::agent::denial::Denial;
use crate::agent::ledger::kept::Kept;
use crate::agent::ledger::record::TicketRecord;
use crate::agent::trace::{Ids, Trace};
use crate::clock::{Now, Timestamp};
use crate::credential::bytes::CredentialBytes;
use crate::credential::verify::{Credential, whole_hash};
use crate::error::Error;
use crate::id::{CredentialId, TicketId};
use crate::key::HolderPublicKey;
use crate::label::Label;
use crate::op::OpSet;
use crate::protocol::handshake::{Answer, Request};
use crate::protocol::ticket::TicketProof;

/// A request whose sender has proven possession of the ticket with its Noise key.
pub(super) struct ProvenTicket {
    pub(super) id: TicketId,
    pub(super) record: TicketRecord,
    pub(super) label: Label,
    pub(super) begun: CallStart,
}

/// A credential that is an edition on record, or was verified with the issuer on record, presented by the phone
/// on record.
pub(super) struct ProvenCredential {
    pub(super) id: CredentialId,
    pub(super) shown: Evidence,
    /// The hash of its bytes.
    pub(super) bytes: [u8; 32],
    pub(super) record: Kept,
    pub(super) ops: OpSet,
    pub(super) begun: CallStart,
}

impl ProvenTicket {
    pub(super) fn ids(&self) -> Ids<'_> {
        Ids {
            ticket: Some(&self.id),
            credential: Some(&self.record.credential),
            session: Some(&self.record.session),
            device: Some(&self.record.device),
        }
    }
}

impl ProvenCredential {
    pub(super) fn ids(&self) -> Ids<'_> {
        Ids {
            ticket: Some(&self.record.ticket),
            credential: Some(&self.id),
            session: Some(&self.record.session),
            device: Some(&self.record.device),
        }
    }
}

pub(super) enum Proven {
    Ticket(Box<ProvenTicket>),
    Credential(Box<ProvenCredential>),
}

/// A refusal to a peer that has proven itself.
pub(super) struct Refusal {
    pub(super) denial: Denial,
    /// For a phone that has to be confirmed: the nonce of its digits, and the end of waiting.
    pub(super) waiting: Option<([u8; 16], Timestamp)>,
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Self { denial, waiting: None }
    }
}

impl Refusal {
    /// Reports it as the end of a redemption or an attach.
    pub(super) fn end(&self, trace: &Trace) {
        let outcome = if self.waiting.is_some() { "pending" } else { "refused" };
        trace.end(outcome, Some(self.denial.code()));
    }

    pub(super) fn answer(&self, agent_time: Timestamp) -> Option<Answer> {
        match (self.waiting, &self.denial) {
            (Some((nonce, until)), _) => {
                Some(Answer::Pending { agent_time, seconds_left: until.since(agent_time), nonce })
            }
            // Only a redemption is told to wait.
            (None, Denial::ConfirmationPending) => None,
            (None, denial) => denial.status().map(|status| Answer::Refused { status, agent_time }),
        }
    }
}

impl Inner {
    pub(super) fn prove(&self, peer: &HolderPublicKey, payload: &[u8], now: Now) -> Result<Proven, Denial> {
        match Request::from_payload(payload).map_err(|_| Denial::PayloadMalformed)? {
            Request::Redeem { proof, label } => self.prove_ticket(peer, &proof, label, now),
            Request::Attach { ops, credential } => {
                let proven = self.prove_credential(peer, &credential, ops, now)?;
                Ok(Proven::Credential(Box::new(proven)))
            }
        }
    }

    fn prove_ticket(
        &self,
        peer: &HolderPublicKey,
        proof: &TicketProof,
        label: Label,
        now: Now,
    ) -> Result<Proven, Denial> {
        let begun = self.core.begin(now);
        let record = self.core.read(now, |step| step.ticket(&proof.id))?.ok_or(Denial::TicketUnknown)?;
        if !record.key.verify(&self.agent, peer, &proof.signature) {
            return Err(Denial::TicketProofInvalid);
        }
        Ok(Proven::Ticket(Box::new(ProvenTicket { id: proof.id, record, label, begun })))
    }

    pub(super) fn prove_credential(
        &self,
        peer: &HolderPublicKey,
        bytes: &CredentialBytes,
        ops: OpSet,
        now: Now,
    ) -> Result<ProvenCredential, Denial> {
        let hash = whole_hash(bytes);
        match self.find_edition(peer, bytes, &hash, now)? {
            Some((id, record, begun)) => {
                let shown = Evidence::OnRecord(bytes.clone(), None);
                Ok(ProvenCredential { id, shown, bytes: hash, record, ops, begun })
            }
            None => self.verify_credential(peer, (bytes, hash), ops, now),
        }
    }

    /// Returns the record of which these bytes are an edition, or a narrowed copy whose decision is on record.
    /// This agent has bound the edition to the phone itself, and has verified the copy with the issuer that the
    /// decision names, so the signatures are not looked at again.
    fn find_edition(
        &self,
        peer: &HolderPublicKey,
        bytes: &CredentialBytes,
        hash: &[u8; 32],
        now: Now,
    ) -> Result<Option<(CredentialId, Kept, CallStart)>, Denial> {
        let Some(id) = Credential::unchecked_id(bytes) else { return Ok(None) };
        let begun = self.core.begin(now);
        let is_known = |record: &Kept| {
            record.find(hash).is_some()
                || self.decision_on_record(&id, record, hash, begun.agent_time).is_some()
        };
        let copied = self.core.by_copy(now, |step| step.credential(&id)).flatten();
        let record = match copied.filter(is_known) {
            Some(record) => Some(record),
            None => self.core.read(now, |step| step.credential(&id))?.filter(is_known),
        };
        match record {
            Some(record) if record.holder != *peer => Err(Denial::HolderMismatch),
            found => Ok(found.map(|record| (id, record, begun))),
        }
    }

    fn verify_credential(
        &self,
        peer: &HolderPublicKey,
        (bytes, hash): (&CredentialBytes, [u8; 32]),
        ops: OpSet,
        now: Now,
    ) -> Result<ProvenCredential, Denial> {
        let credential = Credential::parse(bytes).map_err(|error| match error {
            Error::Credential(problem) => Denial::CredentialMalformed(problem),
            _ => Denial::PayloadMalformed,
        })?;
        let id = credential.id();
        let begun = self.core.begin(now);
        let record = self.core.read(now, |step| step.credential(&id))?.ok_or(Denial::CredentialUnknown)?;
        if record.holder != *peer {
            return Err(Denial::HolderMismatch);
        }
        // The minter of the credential could also append a binding block, but only this agent writes records:
        // the record says which of its editions this is.
        let binding = credential.binding();
        if binding.holder != record.holder || binding.epoch != record.epoch {
            return Err(Denial::CredentialSignatureInvalid);
        }
        let shown = credential.verify(&record.issuer).map_err(|_| Denial::CredentialSignatureInvalid)?;
        Ok(ProvenCredential {
            id,
            shown: Evidence::Verified(Box::new(shown)),
            bytes: hash,
            record,
            ops,
            begun,
        })
    }
}
