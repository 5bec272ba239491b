//! Admission: from message 1 of a peer to a live guard.
//!
//! Checks run from cheap to dear, and each yields what the next one needs: a size and shape, a
//! record, the same peer, a signature. Up to the signature the peer has proven nothing and is told
//! nothing; from there on it is told why.

use std::sync::Arc;

use rand_core::{CryptoRng, RngCore};
use time::Duration;

use super::state::Target;
use super::{Gate, Inner};
use crate::caveat::{Circumstances, LiveRecord};
use crate::clock::{Now, Timestamp};
use crate::credential::block::Binding;
use crate::credential::{Credential, UnboundCredential, VerifiedCredential};
use crate::denial::{Denial, LedgerFailure};
use crate::error::Error;
use crate::guard::{Cut, Grant, Guard, Live, Review, check_outside_permit};
use crate::id::{CredentialId, TicketId};
use crate::key::HolderPublicKey;
use crate::ledger::record::{CredentialRecord, CredentialState, TicketRecord, TicketState};
use crate::ledger::transition::{Redemption, Step, Verdict};
use crate::limits::ACTIVATION_TIMEOUT;
use crate::op::{Action, OpSet};
use crate::policy::Policy;
use crate::ticket::TicketProof;
use crate::token::CredentialBytes;
use crate::wire::{self, Answer, Label, Request, is_scoped};

/// What to do with a peer, from its first handshake payload.
#[derive(Debug)]
#[must_use = "a peer that is not admitted must be closed"]
pub enum Admission {
    /// The payload is not of this protocol: an enrolled device, or a stranger. Go on as before this
    /// crate was linked.
    Device,
    /// Send the reply as message 2, then wait for the peer's first transport frame.
    Admitted(Admitted),
    /// Send the reply as message 2 if there is one, then close; without one, close as for any
    /// stranger.
    Refused(Refused),
}

/// A peer that may go on.
pub struct Admitted {
    /// The payload of message 2. It can hold a credential.
    pub reply: Vec<u8>,
    /// Becomes live with the peer's first transport frame.
    pub guard: PendingGuard,
}

impl core::fmt::Debug for Admitted {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Admitted").field("guard", &self.guard).finish_non_exhaustive()
    }
}

/// A peer that may not.
#[derive(Debug)]
pub struct Refused {
    /// The payload of message 2, if the peer has proven enough to be told something.
    pub reply: Option<Vec<u8>>,
    /// Why, for the operator.
    pub denial: Denial,
}

/// An admission that has not taken effect yet.
///
/// Message 1 can be replayed by anyone who saw it; a transport frame that decrypts cannot. Until
/// then the connection is not counted and the phone's visit is not noted; the redemption itself is on
/// record.
///
/// It permits nothing, and it can be made live once:
///
/// ```compile_fail
/// fn too_early(mut pending: sessioncap::PendingGuard, now: sessioncap::Now) {
///     let _ = pending.permit(sessioncap::Op::SendInput, now, || ());
/// }
/// ```
/// ```compile_fail
/// fn twice(pending: sessioncap::PendingGuard, now: sessioncap::Now) {
///     let _ = (pending.activate(now), pending.activate(now));
/// }
/// ```
#[must_use = "activate it with the first transport frame that decrypts"]
pub struct PendingGuard {
    inner: Arc<Inner>,
    live: Arc<Live>,
    id: CredentialId,
    record: Box<CredentialRecord>,
    ops: OpSet,
    expires_at: Timestamp,
    /// By the monotonic clock.
    activate_before: Duration,
    /// The credential's end by the monotonic clock.
    ends_at: Duration,
    /// By the monotonic clock.
    judged_at: Duration,
    judged: Judged,
}

/// Whether the policy has seen the credential.
enum Judged {
    Verified(Arc<VerifiedCredential>),
    /// Bound by this agent a moment ago. The policy sees it when the guard becomes live, so that a
    /// replayed message 1 does not cost a policy run.
    AtActivation(Box<Credential>),
}

impl PendingGuard {
    /// Makes the guard live. Call it once the peer's first transport frame has decrypted, and then
    /// permit that frame.
    ///
    /// # Errors
    /// [`Denial::ActivationTimeout`] after [`ACTIVATION_TIMEOUT`] seconds,
    /// [`Denial::TooManyConnections`], or why the credential no longer stands. Close the connection.
    pub fn activate(self, now: Now) -> Result<Guard, Denial> {
        if now.monotonic >= self.activate_before {
            return Err(Denial::ActivationTimeout);
        }
        let inner = &self.inner;
        let agent_time = inner.state().effective(now);
        let verified = match self.judged {
            Judged::Verified(verified) => verified,
            Judged::AtActivation(credential) => {
                let verified =
                    credential.verify(&self.record.issuer).map_err(|_| Denial::CredentialSignatureInvalid)?;
                let ops = inner.grant(&verified, &self.record, self.ops, agent_time)?;
                if ops != self.ops {
                    return Err(Denial::PolicyDisagreement);
                }
                Arc::new(verified)
            }
        };
        let review: Option<Arc<dyn Review>> = inner.config.policy.has_operator_rules().then(|| {
            let record = self.record.as_ref().clone();
            let reviewer: Arc<dyn Review> = Arc::new(Reviewer { inner: Arc::clone(inner), verified, record });
            reviewer
        });
        let session_live = inner.context.session_is_live(&self.record.session);
        let mut state = inner.state();
        let agent_time = state.effective(now);
        let standing = state.judge(agent_time, inner.audit(), |step| stands(step, &self.id, session_live));
        if agent_time >= self.expires_at {
            return Err(standing.err().unwrap_or(Denial::CredentialExpired));
        }
        standing?;
        inner.check_room(&self.live)?;
        state.judge(agent_time, inner.audit(), |step| {
            step.attached(&self.id, &self.record.holder, self.ops, session_live)
        })?;
        // Still under the lock: no revocation can fall between the record's word and the guard.
        let grant = Grant {
            credential: self.id,
            session: self.record.session.clone(),
            holder: self.record.holder,
            ops: self.ops,
            expires_at: self.expires_at,
            ends_at: self.ends_at,
            judged_at: self.judged_at,
            review,
        };
        Ok(Guard::new(grant, self.live))
    }

    /// Until when [`PendingGuard::activate`] works, from `now`.
    #[must_use]
    pub fn time_left(&self, now: Now) -> Duration {
        self.activate_before.saturating_sub(now.monotonic).max(Duration::ZERO)
    }
}

impl core::fmt::Debug for PendingGuard {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PendingGuard")
            .field("credential", &self.id)
            .field("ops", &self.ops)
            .finish_non_exhaustive()
    }
}

/// Asks the policy again for a live connection.
struct Reviewer {
    inner: Arc<Inner>,
    verified: Arc<VerifiedCredential>,
    record: CredentialRecord,
}

impl Review for Reviewer {
    fn review(&self, ops: OpSet, now: Now) -> Result<OpSet, Denial> {
        let time = self.inner.state().effective(now);
        self.inner.grant(&self.verified, &self.record, ops, time)
    }
}

/// A request whose sender has shown possession of the ticket with this very Noise key.
struct ProvenTicket {
    id: TicketId,
    record: TicketRecord,
    label: Label,
}

/// A credential that verified with the issuer on record, shown by the phone on record.
struct ProvenCredential {
    verified: VerifiedCredential,
    record: CredentialRecord,
    ops: OpSet,
}

enum Proven {
    Ticket(Box<ProvenTicket>),
    Credential(Box<ProvenCredential>),
}

impl Gate {
    /// Decides on a peer from the Noise static key and payload of its message 1, after that message
    /// decrypted.
    ///
    /// A payload of this protocol is a phone's even if its key is enrolled. A redemption costs one
    /// Ed25519 verification, one signature and one durable write; an attach costs one verification for
    /// each block of the credential and one run of the policy.
    pub fn admit<R: RngCore + CryptoRng>(
        &self,
        remote_static: &[u8; 32],
        payload: &[u8],
        now: Now,
        rng: &mut R,
    ) -> Admission {
        if !is_scoped(payload) {
            return Admission::Device;
        }
        let inner = &self.inner;
        // A contest cuts, and a cut waits for permits.
        let peer = check_outside_permit()
            .and_then(|()| HolderPublicKey::from_bytes(*remote_static).map_err(|_| Denial::HolderMismatch));
        let proven = peer.and_then(|peer| Ok((peer, inner.prove(&peer, payload, now)?)));
        let outcome = match proven {
            // Whatever failed up to here, the peer learns nothing.
            Err(denial) => return Admission::Refused(Refused { reply: None, denial }),
            Ok((peer, Proven::Ticket(ticket))) => inner.redeem(&peer, *ticket, now, rng),
            Ok((_, Proven::Credential(credential))) => inner.attach(*credential, now),
        };
        let sent = outcome.and_then(|(answer, guard)| match answer.to_payload() {
            Ok(reply) => Ok(Admitted { reply, guard }),
            Err(_) => Err(Refusal::from(Denial::Internal)),
        });
        match sent {
            Ok(admitted) => Admission::Admitted(admitted),
            Err(refusal) => {
                let agent_time = inner.state().effective(now);
                let reply = refusal.answer(agent_time).and_then(|answer| answer.to_payload().ok());
                Admission::Refused(Refused { reply, denial: refusal.denial })
            }
        }
    }
}

impl Gate {
    /// What the gate would say to this phone, with this credential, asking for one action now, and
    /// why. For operators: it changes nothing and admits nobody. Costs as much as an attach.
    ///
    /// # Errors
    /// [`Denial`] with the reason.
    pub fn explain(
        &self,
        peer: &HolderPublicKey,
        credential: &CredentialBytes,
        action: Action,
        now: Now,
    ) -> Result<(), Denial> {
        let inner = &self.inner;
        let proven = inner.prove_credential(peer, credential, OpSet::EMPTY, now)?;
        let session_live = inner.context.session_is_live(&proven.record.session);
        let time = {
            let mut state = inner.state();
            let now = state.effective(now);
            state.transact(now, inner.audit(), |step| step.standing(&proven.record, session_live))??;
            now
        };
        inner.with_circumstances(&proven.verified, &proven.record, time, |policy, circumstances| {
            policy.decide(&proven.verified, circumstances, action)
        })
    }
}

/// A refusal to a peer that has proven itself.
struct Refusal {
    denial: Denial,
    /// For a phone that has to be confirmed: the nonce of its digits, and the end of waiting.
    waiting: Option<([u8; 16], Timestamp)>,
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Self { denial, waiting: None }
    }
}

impl Refusal {
    fn answer(&self, agent_time: Timestamp) -> Option<Answer> {
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
    fn prove(&self, peer: &HolderPublicKey, payload: &[u8], now: Now) -> Result<Proven, Denial> {
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
        let record = self.read(now, |step| step.ticket(&proof.id))?.ok_or(Denial::TicketUnknown)?;
        if !record.key.verify(&self.config.agent, peer, &proof.signature) {
            return Err(Denial::TicketProofInvalid);
        }
        Ok(Proven::Ticket(Box::new(ProvenTicket { id: proof.id, record, label })))
    }

    fn prove_credential(
        &self,
        peer: &HolderPublicKey,
        bytes: &CredentialBytes,
        ops: OpSet,
        now: Now,
    ) -> Result<ProvenCredential, Denial> {
        let credential = Credential::parse(bytes).map_err(|error| match error {
            Error::Credential(problem) => Denial::CredentialMalformed(problem),
            _ => Denial::PayloadMalformed,
        })?;
        let id = credential.id();
        let record = self.read(now, |step| step.credential(&id))?.ok_or(Denial::CredentialUnknown)?;
        if record.holder != *peer {
            return Err(Denial::HolderMismatch);
        }
        // Whoever minted the credential could also append a binding block, but only this agent writes
        // records.
        let binding = Binding { holder: record.holder, epoch: record.epoch, expires_at: record.expires_at };
        if *credential.binding() != binding {
            return Err(Denial::CredentialSignatureInvalid);
        }
        let verified = credential.verify(&record.issuer).map_err(|_| Denial::CredentialSignatureInvalid)?;
        Ok(ProvenCredential { verified, record, ops })
    }

    fn read<T>(
        &self,
        now: Now,
        read: impl FnMut(&mut Step<'_>) -> Result<T, LedgerFailure>,
    ) -> Result<T, Denial> {
        let mut state = self.state();
        let now = state.effective(now);
        state.transact(now, self.audit(), read)
    }

    fn redeem<R: RngCore + CryptoRng>(
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
        if let Some(bound) = &redemption.bound {
            self.allows_any(bound, &ticket.record, now)?;
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
        let credential = Credential::parse(&record.bytes).map_err(|_| Denial::Internal)?;
        // With operator rules the answer has to name what is allowed at this hour.
        let (ops, judged) = if self.config.policy.has_operator_rules() {
            let verified = credential.verify(&record.issuer).map_err(|_| Denial::Internal)?;
            (self.grant(&verified, &record, record.ops, agent_time)?, Judged::Verified(Arc::new(verified)))
        } else {
            (record.ops, Judged::AtActivation(Box::new(credential)))
        };
        let answer = Answer::Admitted(wire::Admitted {
            agent_time,
            seconds_left: record.expires_at.since(agent_time),
            ops,
            session: record.session.clone(),
            id,
            credential: Some(record.bytes.clone()),
        });
        let expires_at = record.expires_at;
        Ok((answer, self.pending_guard(live, id, record, Terms { ops, expires_at, judged }, now, agent_time)))
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
        let credential = verified.credential();
        let (holder, epoch) = (credential.binding().holder, credential.binding().epoch);
        let circumstances = Circumstances {
            agent: &self.config.agent,
            urls: &self.config.urls,
            session: &ticket.session,
            epoch,
            peer: &holder,
            time,
            live: Some(LiveRecord { credential: credential.id(), ticket: credential.ticket(), holder }),
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

    fn attach(
        self: &Arc<Self>,
        proven: ProvenCredential,
        now: Now,
    ) -> Result<(Answer, PendingGuard), Refusal> {
        let ProvenCredential { verified, record, ops } = proven;
        let id = verified.credential().id();
        let session_live = self.context.session_is_live(&record.session);
        let agent_time = {
            let mut state = self.state();
            let now = state.effective(now);
            state.judge(now, self.audit(), |step| step.standing(&record, session_live))?;
            now
        };
        let scope = verified.credential().scope();
        let held = scope.ops().intersection(record.ops);
        // Nothing named means everything held. Where nothing named is held, the policy says why not.
        let asked = match ops.is_empty() {
            true => held,
            false if ops.intersection(held).is_empty() => ops,
            false => ops.intersection(held),
        };
        let ops = self.grant(&verified, &record, asked, agent_time)?;
        let expires_at = scope.expires_at().map_or(record.expires_at, |end| end.min(record.expires_at));
        let live = {
            let mut state = self.state();
            let now = state.effective(now);
            // The policy ran without the lock: look again before anything is published.
            let record = state.judge(now, self.audit(), |step| stands(step, &id, session_live))?;
            state.registry().join(&id, &record)
        };
        self.check_room(&live)?;
        let answer = Answer::Admitted(wire::Admitted {
            agent_time,
            seconds_left: expires_at.since(agent_time),
            ops,
            session: record.session.clone(),
            id,
            credential: None,
        });
        let judged = Judged::Verified(Arc::new(verified));
        Ok((answer, self.pending_guard(live, id, record, Terms { ops, expires_at, judged }, now, agent_time)))
    }

    fn pending_guard(
        self: &Arc<Self>,
        live: Arc<Live>,
        id: CredentialId,
        record: CredentialRecord,
        terms: Terms,
        now: Now,
        agent_time: Timestamp,
    ) -> PendingGuard {
        let seconds = |seconds: u64| Duration::seconds(i64::try_from(seconds).unwrap_or(i64::MAX));
        PendingGuard {
            inner: Arc::clone(self),
            live,
            id,
            record: Box::new(record),
            ops: terms.ops,
            expires_at: terms.expires_at,
            activate_before: now.monotonic.saturating_add(seconds(ACTIVATION_TIMEOUT)),
            ends_at: now.monotonic.saturating_add(seconds(terms.expires_at.since(agent_time))),
            judged_at: now.monotonic,
            judged: terms.judged,
        }
    }

    /// Whether the credential may have one more connection.
    fn check_room(&self, live: &Live) -> Result<(), Denial> {
        let max = self.config.quotas.connections_per_credential;
        let used = u32::try_from(live.connections()).unwrap_or(u32::MAX);
        if used < max { Ok(()) } else { Err(Denial::TooManyConnections { max }) }
    }

    /// What the policy allows of `ops`.
    fn grant(
        &self,
        verified: &VerifiedCredential,
        record: &CredentialRecord,
        ops: OpSet,
        time: Timestamp,
    ) -> Result<OpSet, Denial> {
        self.with_circumstances(verified, record, time, |policy, circumstances| {
            policy.grant(verified, circumstances, ops)
        })
    }

    fn with_circumstances<T>(
        &self,
        verified: &VerifiedCredential,
        record: &CredentialRecord,
        time: Timestamp,
        ask: impl FnOnce(&Policy, &Circumstances<'_>) -> T,
    ) -> T {
        let credential = verified.credential().id();
        let circumstances = Circumstances {
            agent: &self.config.agent,
            urls: &self.config.urls,
            session: &record.session,
            epoch: record.epoch,
            peer: &record.holder,
            time,
            live: Some(LiveRecord { credential, ticket: record.ticket, holder: record.holder }),
        };
        ask(&self.config.policy, &circumstances)
    }
}

/// What a pending guard will allow, and on whose word.
struct Terms {
    ops: OpSet,
    expires_at: Timestamp,
    judged: Judged,
}

fn stands(step: &mut Step<'_>, id: &CredentialId, session_live: bool) -> Verdict<CredentialRecord> {
    let Some(record) = step.credential(id)? else {
        return Ok(Err(Denial::CredentialUnknown));
    };
    Ok(step.standing(&record, session_live)?.map(|()| record))
}
