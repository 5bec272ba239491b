//! What a peer that has proven itself gets: by its ticket, or by its credential.

use std::sync::Arc;

use rand_core::{CryptoRng, RngCore};

use super::Inner;
use super::activate::{AdmittedOn, Judged, Pending, PendingGuard};
use super::admit::{ProvenCredential, ProvenTicket, Refusal};
use crate::agent::core::Target;
use crate::agent::denial::Denial;
use crate::agent::guard::Cut;
use crate::agent::ledger::record::{CredentialRecord, CredentialState, TicketRecord, TicketState};
use crate::agent::ledger::transition::Redemption;
use crate::caveat::{Circumstances, LiveRecord};
use crate::clock::{Now, Timestamp};
use crate::credential::block::Binding;
use crate::credential::{Credential, UnboundCredential, VerifiedCredential};
use crate::key::HolderPublicKey;
use crate::op::OpSet;
use crate::token::CredentialBytes;
use crate::wire::{self, Answer};

/// What an attach is judged on: the credential that was shown, or the renewed one that its holder is
/// given for it.
pub(super) struct Basis {
    pub(super) verified: VerifiedCredential,
    /// What the owner's last word leaves of it.
    pub(super) ops: OpSet,
    expires_at: Timestamp,
    edition: CredentialBytes,
    /// What was shown, if it was shown whole.
    shown: Option<CredentialBytes>,
    renewed: bool,
}

impl Basis {
    /// Only who shows one of the record's credentials whole is given a later one. A narrowed copy
    /// stays what it is.
    pub(super) fn of(shown: VerifiedCredential, record: &CredentialRecord) -> Result<Self, Denial> {
        let credential = shown.credential();
        let mut editions = record.editions().enumerate();
        let (place, edition, bytes) = editions
            .find_map(|(place, edition)| {
                let bytes = edition.bytes.as_ref().filter(|bytes| credential.descends_from(bytes))?;
                Some((place, edition, bytes))
            })
            .ok_or(Denial::CredentialRetired)?;
        let whole = (credential.bytes() == bytes).then(|| bytes.clone());
        if whole.is_none() || place == record.renewals.len() {
            return Ok(Self {
                ops: edition.ops,
                expires_at: edition.expires_at,
                edition: bytes.clone(),
                verified: shown,
                shown: whole,
                renewed: false,
            });
        }
        let latest = record.latest();
        let bytes = latest.bytes.clone().ok_or(Denial::Internal)?;
        let verified = Credential::parse(&bytes).and_then(|credential| credential.verify(&record.issuer));
        Ok(Self {
            verified: verified.map_err(|_| Denial::Internal)?,
            ops: latest.ops,
            expires_at: latest.expires_at,
            edition: bytes,
            shown: whole,
            renewed: true,
        })
    }

    pub(super) fn check_time(&self, time: Timestamp) -> Result<(), Denial> {
        if time < self.expires_at { Ok(()) } else { Err(Denial::CredentialExpired) }
    }
}

impl Inner {
    pub(super) fn redeem<R: RngCore + CryptoRng>(
        self: &Arc<Self>,
        peer: &HolderPublicKey,
        ticket: ProvenTicket,
        now: Now,
        rng: &mut R,
    ) -> Result<(Answer, PendingGuard), Refusal> {
        let mut nonce = [0; 16];
        rng.fill_bytes(&mut nonce);
        let redemption = Redemption {
            bound: self.bind(peer, &ticket.record, rng)?,
            session_live: self.context.session_is_live(&ticket.record.session),
            label: ticket.label,
            nonce,
        };
        if let Some(bound) = &redemption.bound
            && let Err(rule) = self.allows_any(bound, &ticket.record, now)
        {
            // What the ledger has to say comes first.
            let redeemable = self.decide(now, |step| step.redeemable(&ticket.id, redemption.session_live));
            return Err(redeemable.err().unwrap_or(rule).into());
        }
        let mut state = self.state();
        let agent_time = state.effective(now);
        // A leaked code: cut first, then write that it is revoked.
        let session_live = redemption.session_live;
        let contested = state
            .transact(agent_time, self.audit(), |step| step.contested(&ticket.id, peer, session_live))?;
        let cut = match &contested {
            Some(id) => state.registry().cut(Target::Credential(id), Cut::Contested),
            None => Vec::new(),
        };
        let redeemed =
            state.judge(agent_time, self.audit(), |step| step.redeem(&ticket.id, peer, &redemption));
        let joined = redeemed.map(|(id, record)| (state.registry().join(&id, &record), id, record));
        drop(state);
        for live in cut {
            live.drain();
        }
        let (live, id, record) = joined?;
        if let CredentialState::Pending { nonce, until } = record.state {
            return Err(Refusal { denial: Denial::ConfirmationPending, waiting: Some((nonce, until)) });
        }
        self.check_room(&live)?;
        let edition = record.latest().clone();
        let bytes = edition.bytes.ok_or(Denial::Internal)?;
        let credential = Credential::parse(&bytes).map_err(|_| Denial::Internal)?;
        // With operator rules the answer has to name what is allowed at this hour.
        let (ops, judged) = if self.config.policy.has_operator_rules() {
            let verified = credential.verify(&record.issuer).map_err(|_| Denial::Internal)?;
            (self.grant(&verified, &record, edition.ops, agent_time)?, Judged::Verified(Arc::new(verified)))
        } else {
            (edition.ops, Judged::AtActivation(Box::new(credential)))
        };
        let expires_at = edition.expires_at;
        let basis = AdmittedOn { edition: bytes.clone(), shown: None, judged };
        let pending = Pending { live, id, record, basis, ops, expires_at };
        Ok(self.admitted(pending, Some(bytes), now, agent_time))
    }

    /// The answer, and what becomes a guard with the first frame.
    fn admitted(
        self: &Arc<Self>,
        pending: Pending,
        credential: Option<CredentialBytes>,
        now: Now,
        agent_time: Timestamp,
    ) -> (Answer, PendingGuard) {
        let answer = Answer::Admitted(wire::Admitted {
            agent_time,
            seconds_left: pending.expires_at.since(agent_time),
            ops: pending.ops,
            session: pending.record.session.clone(),
            id: pending.id,
            credential,
        });
        (answer, self.pending_guard(pending, now))
    }

    /// Where an operator's rules forbid everything at this hour, says so before the ticket is claimed:
    /// it can be redeemed later.
    fn allows_any(&self, bound: &CredentialBytes, ticket: &TicketRecord, now: Now) -> Result<(), Denial> {
        if !self.config.policy.has_operator_rules() {
            return Ok(());
        }
        let credential = Credential::parse(bound).map_err(|_| Denial::Internal)?;
        let verified = credential.verify(&ticket.issuer).map_err(|_| Denial::Internal)?;
        let time = self.state().effective(now);
        let binding = *verified.credential().binding();
        let circumstances = Circumstances {
            agent: &self.config.agent,
            urls: &self.config.urls,
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
        match self.config.policy.grant(&verified, &circumstances, ticket.ops) {
            Err(denial @ Denial::OperatorRule { .. }) => Err(denial),
            // Whatever else there is to say, the ledger says it in its order.
            _ => Ok(()),
        }
    }

    /// Binds the offered credential to this phone, if the ticket is open. The ledger decides later
    /// whether it still is.
    fn bind<R: RngCore + CryptoRng>(
        &self,
        peer: &HolderPublicKey,
        ticket: &TicketRecord,
        rng: &mut R,
    ) -> Result<Option<CredentialBytes>, Denial> {
        let TicketState::Open(unbound) = &ticket.state else {
            return Ok(None);
        };
        let binding =
            Binding { holder: *peer, epoch: ticket.epoch, expires_at: ticket.credential_expires_at };
        UnboundCredential::parse(unbound)
            .and_then(|unbound| unbound.bind(binding, rng))
            .map(Some)
            .map_err(|_| Denial::Internal)
    }

    pub(super) fn attach(
        self: &Arc<Self>,
        proven: ProvenCredential,
        now: Now,
    ) -> Result<(Answer, PendingGuard), Refusal> {
        let ProvenCredential { shown, ops } = proven;
        let id = shown.credential().id();
        let session_live = self.context.session_is_live(shown.credential().session());
        let (record, agent_time) = {
            let mut state = self.state();
            let now = state.effective(now);
            (state.judge(now, self.audit(), |step| step.standing_record(&id, session_live))?, now)
        };
        let basis = Basis::of(shown, &record)?;
        let scope = basis.verified.credential().scope();
        let held = scope.ops().intersection(basis.ops);
        // Nothing named means everything held. Where nothing named is held, the policy says why not.
        let wanted = match ops.is_empty() {
            false => [ops.intersection(held), ops],
            true if basis.ops.is_empty() => [held, scope.ops()],
            true => [held, basis.ops],
        };
        let asked = wanted.into_iter().find(|ops| !ops.is_empty()).unwrap_or_default();
        basis.check_time(agent_time)?;
        let ops = self.grant(&basis.verified, &record, asked, agent_time)?.intersection(basis.ops);
        if let Some(op) = asked.iter().next().filter(|_| ops.is_empty()) {
            return Err(Denial::OperationNotGranted { op }.into());
        }
        let expires_at = scope.expires_at().map_or(basis.expires_at, |end| end.min(basis.expires_at));
        let live = {
            let mut state = self.state();
            let now = state.effective(now);
            // The policy ran without the lock: look again before anything is published.
            let record = state.judge(now, self.audit(), |step| match basis.renewed {
                true => step.deliver(&id, &basis.edition, session_live),
                false => step.standing_record(&id, session_live),
            })?;
            state.registry().join(&id, &record)
        };
        self.check_room(&live)?;
        let given = basis.renewed.then(|| basis.edition.clone());
        let basis = AdmittedOn {
            edition: basis.edition,
            shown: basis.shown,
            judged: Judged::Verified(Arc::new(basis.verified)),
        };
        let pending = Pending { live, id, record, basis, ops, expires_at };
        Ok(self.admitted(pending, given, now, agent_time))
    }

    /// What the policy allows of `ops`.
    pub(super) fn grant(
        &self,
        verified: &VerifiedCredential,
        record: &CredentialRecord,
        ops: OpSet,
        time: Timestamp,
    ) -> Result<OpSet, Denial> {
        self.config.policy.grant(verified, &self.circumstances(verified, record, time), ops)
    }

    pub(super) fn circumstances<'a>(
        &'a self,
        verified: &VerifiedCredential,
        record: &'a CredentialRecord,
        time: Timestamp,
    ) -> Circumstances<'a> {
        Circumstances {
            agent: &self.config.agent,
            urls: &self.config.urls,
            session: &record.session,
            epoch: record.epoch,
            peer: &record.holder,
            time,
            live: Some(LiveRecord {
                credential: verified.credential().id(),
                ticket: record.ticket,
                holder: record.holder,
            }),
        }
    }
}
