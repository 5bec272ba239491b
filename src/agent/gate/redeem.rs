//! Decides what a phone with a ticket's proof is granted.

use std::sync::Arc;

use rand_core::{CryptoRng, RngCore};

use super::Inner;
use super::activate::{AdmittedEditions, Judged, Pending, PendingGuard};
use super::context::Shared;
use super::grant::Evidence;
use super::prove::{ProvenTicket, Refusal};
use super::unbound::bind;
use crate::agent::denial::Denial;
use crate::agent::ledger::record::{CredentialState, TicketRecord, TicketState};
use crate::agent::ledger::transition::{Extension, Redemption};
use crate::clock::Now;
use crate::credential::block::Binding;
use crate::credential::bytes::CredentialBytes;
use crate::credential::caveat::{Circumstances, LiveRecord};
use crate::credential::verify::{Credential, whole_hash};
use crate::key::HolderPublicKey;
use crate::protocol::handshake::Answer;

impl Inner {
    pub(super) fn redeem<R: RngCore + CryptoRng>(
        self: &Arc<Self>,
        peer: &HolderPublicKey,
        ticket: ProvenTicket,
        message: [u8; 32],
        now: Now,
        rng: &mut R,
    ) -> Result<(Answer, PendingGuard), Refusal> {
        let mut nonce = [0; 16];
        rng.fill_bytes(&mut nonce);
        let (bound, read) = self.bind_offered(peer, &ticket.record, rng)?.unzip();
        let bound_now = bound.as_ref().map(|bound| bound.hashes.whole);
        let redemption = Redemption {
            bound,
            said: self.ask(&ticket.begun, &Shared::from(&ticket.record), now)?,
            label: ticket.label,
            nonce,
        };
        if let Some(bound) = &redemption.bound
            && let Err(rule) = self.allows_any(&bound.bytes, &ticket.record, now)
        {
            // The ledger's reason takes precedence.
            let (id, said) = (ticket.id, redemption.said);
            let redeemable = self.core.judge(now, move |step| step.redeemable(&id, &said));
            return Err(redeemable.err().unwrap_or(rule).into());
        }
        // A contest cuts inside, before it is written.
        let (live, id, record) = self.core.redeem(ticket.id, *peer, redemption, now)?;
        if let CredentialState::Pending { nonce, until } = record.state {
            return Err(Refusal { denial: Denial::ConfirmationPending, waiting: Some((nonce, until)) });
        }
        let live = live.ok_or(Denial::Internal)?;
        let agent_time = self.core.time(now);
        self.check_room(&live, now)?;
        let edition = record.latest().clone();
        let bytes = record.bytes.clone().ok_or(Denial::Internal)?;
        let whole = whole_hash(&bytes);
        if whole != edition.hashes.whole {
            return Err(Denial::Internal.into());
        }
        // An earlier redemption may have bound other bytes.
        let read = read.filter(|_| bound_now == Some(whole)).map(Box::new);
        let evidence = Evidence::OnRecord(bytes.clone(), read);
        let decision = self.decision_on_record(&id, &record, &edition.hashes.whole, agent_time);
        // With operator rules, the answer must name what is allowed at this hour.
        let (ops, judged) = if self.policy.has_operator_rules() {
            let verified = evidence.verified()?;
            let ops = self.grant(&verified, &record, edition.ops, agent_time)?;
            (ops, Judged::Decided(Some(Arc::new(verified))))
        } else if decision.is_some_and(|decision| edition.ops.is_subset_of(decision.ops)) {
            (edition.ops, Judged::Decided(None))
        } else {
            (edition.ops, Judged::AtActivation(evidence))
        };
        let expires_at = edition.expires_at;
        let basis = AdmittedEditions { edition: whole, shown: None, bytes: whole, judged };
        let record = record.into();
        let pending = Pending { live, id, record, basis, ops, expires_at, message };
        Ok(self.admitted(pending, Some(bytes), now, agent_time)?)
    }

    /// If an operator's rules forbid everything at this hour, refuses before the ticket is claimed, so that
    /// it can be redeemed later.
    fn allows_any(&self, bound: &CredentialBytes, ticket: &TicketRecord, now: Now) -> Result<(), Denial> {
        if !self.policy.has_operator_rules() {
            return Ok(());
        }
        let credential = Credential::parse(bound).map_err(|_| Denial::Internal)?;
        let verified = credential.verify(&ticket.issuer).map_err(|_| Denial::Internal)?;
        let time = self.core.time(now);
        let binding = *verified.credential().binding();
        let circumstances = Circumstances {
            agent: &self.agent,
            urls: &self.urls,
            session: &ticket.session,
            epoch: binding.epoch,
            peer: &binding.holder,
            time,
            live: Some(LiveRecord {
                credential: ticket.credential,
                ticket: verified.credential().ticket(),
                holder: binding.holder,
            }),
        };
        match self.policy.grant(&verified, &circumstances, ticket.ops, &self.core.counters().policy_runs) {
            Err(denial @ Denial::OperatorRule { .. }) => Err(denial),
            // The ledger reports other reasons, in its own order.
            _ => Ok(()),
        }
    }

    /// Binds the offered credential to this phone, if the ticket is open. The ledger later decides whether it
    /// still is.
    fn bind_offered<R: RngCore + CryptoRng>(
        &self,
        peer: &HolderPublicKey,
        ticket: &TicketRecord,
        rng: &mut R,
    ) -> Result<Option<(Extension, Credential)>, Denial> {
        let TicketState::Open(unbound) = &ticket.state else {
            return Ok(None);
        };
        let binding =
            Binding { holder: *peer, epoch: ticket.epoch, expires_at: ticket.credential_expires_at };
        bind(unbound, binding, rng).map(Some)
    }
}
