//! What a peer that has proven itself gets: by its ticket, or by its credential.

use std::sync::Arc;

use rand_core::{CryptoRng, RngCore};

use super::activate::{AdmittedOn, Judged, Pending, PendingGuard};
use super::prove::{ProvenCredential, ProvenTicket, Refusal};
use super::{Inner, Shared};
use crate::agent::denial::Denial;
use crate::agent::ledger::record::{CredentialRecord, CredentialState, TicketRecord, TicketState};
use crate::agent::ledger::transition::{Extension, Redemption};
use crate::clock::{Now, Timestamp};
use crate::credential::block::Binding;
use crate::credential::bytes::CredentialBytes;
use crate::credential::caveat::{Circumstances, LiveRecord};
use crate::credential::mint::VerifiedUnbound;
use crate::credential::verify::{Credential, VerifiedCredential};
use crate::key::HolderPublicKey;
use crate::op::OpSet;
use crate::protocol::handshake::{self, Answer};

/// What an attach is judged on: the credential that was shown, or the renewed one that its holder is
/// given for it.
pub(super) struct Basis {
    pub(super) verified: VerifiedCredential,
    /// What the owner's last word leaves of it.
    pub(super) ops: OpSet,
    expires_at: Timestamp,
    /// The edition, by the hash of its bytes.
    edition: [u8; 32],
    /// What was shown, if it was shown whole.
    shown: Option<[u8; 32]>,
    /// The later one that its holder is given.
    given: Option<CredentialBytes>,
}

impl Basis {
    /// Only who shows one of the record's credentials whole is given a later one. A narrowed copy
    /// stays what it is.
    pub(super) fn of(shown: VerifiedCredential, record: &CredentialRecord) -> Result<Self, Denial> {
        let hashes = shown.credential().hashes();
        let (place, edition) = record.origin_of(&hashes).ok_or(Denial::CredentialRetired)?;
        let whole = (hashes.whole == edition.hashes.whole).then_some(hashes.whole);
        if whole.is_none() || place == record.renewals.len() {
            return Ok(Self {
                ops: edition.ops,
                expires_at: edition.expires_at,
                edition: edition.hashes.whole,
                verified: shown,
                shown: whole,
                given: None,
            });
        }
        let latest = record.latest();
        let bytes = record.bytes.clone().ok_or(Denial::Internal)?;
        let verified = Credential::parse(&bytes).and_then(|credential| credential.verify(&record.issuer));
        Ok(Self {
            verified: verified.map_err(|_| Denial::Internal)?,
            ops: latest.ops,
            expires_at: latest.expires_at,
            edition: latest.hashes.whole,
            shown: whole,
            given: Some(bytes),
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
        message: [u8; 32],
        now: Now,
        rng: &mut R,
    ) -> Result<(Answer, PendingGuard), Refusal> {
        let mut nonce = [0; 16];
        rng.fill_bytes(&mut nonce);
        let redemption = Redemption {
            bound: self.bind(peer, &ticket.record, rng)?,
            said: self.ask(&ticket.begun, &Shared::from(&ticket.record), now)?,
            label: ticket.label,
            nonce,
        };
        if let Some(bound) = &redemption.bound
            && let Err(rule) = self.allows_any(&bound.bytes, &ticket.record, now)
        {
            // What the ledger has to say comes first.
            let redeemable =
                self.core.desk().judge(now, |step| step.redeemable(&ticket.id, &redemption.said));
            return Err(redeemable.err().unwrap_or(rule).into());
        }
        // Under one lock from the record's word to the live state: no revocation falls in between. A contest
        // cuts inside, before it is written.
        let (live, id, record) = {
            let mut desk = self.core.desk();
            let (id, record) = desk.judge(now, |step| step.redeem(&ticket.id, peer, &redemption))?;
            if let CredentialState::Pending { nonce, until } = record.state {
                return Err(Refusal { denial: Denial::ConfirmationPending, waiting: Some((nonce, until)) });
            }
            (desk.join(&id, &record)?, id, record)
        };
        let agent_time = self.core.time(now);
        self.check_room(&live)?;
        let edition = record.latest().clone();
        let bytes = record.bytes.clone().ok_or(Denial::Internal)?;
        let credential = Credential::parse(&bytes).map_err(|_| Denial::Internal)?;
        // With operator rules the answer has to name what is allowed at this hour.
        let (ops, judged) = if self.policy.has_operator_rules() {
            let verified = credential.verify(&record.issuer).map_err(|_| Denial::Internal)?;
            (self.grant(&verified, &record, edition.ops, agent_time)?, Judged::Verified(Arc::new(verified)))
        } else {
            (edition.ops, Judged::AtActivation(Box::new(credential)))
        };
        let expires_at = edition.expires_at;
        let basis = AdmittedOn { edition: edition.hashes.whole, shown: None, judged };
        let pending = Pending { live, id, record, basis, ops, expires_at, message };
        Ok(self.admitted(pending, Some(bytes), now, agent_time)?)
    }

    /// The answer, and what becomes a guard with the first frame.
    fn admitted(
        self: &Arc<Self>,
        pending: Pending,
        credential: Option<CredentialBytes>,
        now: Now,
        agent_time: Timestamp,
    ) -> Result<(Answer, PendingGuard), Denial> {
        let answer = Answer::Admitted(handshake::Admitted {
            agent_time,
            seconds_left: pending.expires_at.since(agent_time),
            ops: pending.ops,
            session: pending.record.session.clone(),
            id: pending.id,
            credential,
        });
        Ok((answer, self.pending_guard(pending, now)?))
    }

    /// Where an operator's rules forbid everything at this hour, says so before the ticket is claimed:
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
        match self.policy.grant(&verified, &circumstances, ticket.ops) {
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
    ) -> Result<Option<Extension>, Denial> {
        let TicketState::Open(unbound) = &ticket.state else {
            return Ok(None);
        };
        let binding =
            Binding { holder: *peer, epoch: ticket.epoch, expires_at: ticket.credential_expires_at };
        extension(unbound, binding, rng).map(Some)
    }

    pub(super) fn attach(
        self: &Arc<Self>,
        proven: ProvenCredential,
        message: [u8; 32],
        now: Now,
    ) -> Result<(Answer, PendingGuard), Refusal> {
        let ProvenCredential { shown, record, ops, begun } = proven;
        let id = shown.credential().id();
        let said = self.ask(&begun, &Shared::from(&record), now)?;
        let record = self.core.desk().judge(now, |step| step.standing_record(&id, &said))?;
        let agent_time = self.core.time(now);
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
        let (live, record) = {
            let mut desk = self.core.desk();
            // The policy ran without the lock: look again before anything is published.
            let record = desk.judge(now, |step| match basis.given {
                Some(_) => step.standing_at(&id, &basis.edition, &said),
                None => step.standing_record(&id, &said),
            })?;
            (desk.join(&id, &record)?, record)
        };
        self.check_room(&live)?;
        let given = basis.given.clone();
        let basis = AdmittedOn {
            edition: basis.edition,
            shown: basis.shown,
            judged: Judged::Verified(Arc::new(basis.verified)),
        };
        let pending = Pending { live, id, record, basis, ops, expires_at, message };
        Ok(self.admitted(pending, given, now, agent_time)?)
    }

    /// What the policy allows of `ops`.
    pub(super) fn grant(
        &self,
        verified: &VerifiedCredential,
        record: &CredentialRecord,
        ops: OpSet,
        time: Timestamp,
    ) -> Result<OpSet, Denial> {
        self.policy.grant(verified, &self.circumstances(verified, record, time), ops)
    }

    pub(super) fn circumstances<'a>(
        &'a self,
        verified: &VerifiedCredential,
        record: &'a CredentialRecord,
        time: Timestamp,
    ) -> Circumstances<'a> {
        Circumstances {
            agent: &self.agent,
            urls: &self.urls,
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

/// Binds a credential, and takes down what it is told by.
pub(super) fn extension<R: RngCore + CryptoRng>(
    unbound: &VerifiedUnbound,
    binding: Binding,
    rng: &mut R,
) -> Result<Extension, Denial> {
    let bytes = unbound.bind(binding, rng).map_err(|_| Denial::Internal)?;
    let hashes = Credential::parse(&bytes).map_err(|_| Denial::Internal)?.hashes();
    Ok(Extension { bytes, hashes })
}
