//! The agent's side: it takes offers, admits phones, and takes everything back
//! (`docs/PROTOCOL.md` sections 6 and 8).
//!
//! Methods by kind:
//! - from an enrolled device: [`Gate::register_issuer`], [`Gate::offer`], [`Gate::confirm`],
//!   [`Gate::renew`];
//! - from a peer's first handshake message: [`Gate::admit`];
//! - from the operator, or any enrolled device: [`Gate::list`], [`Gate::revoke`] and the verbs behind it;
//! - from the operator alone: [`Gate::reset_clock`];
//! - from the agent itself: [`Gate::end_session`], [`Gate::sync_devices`], [`Gate::settle`].
//!
//! All of them may be called from any thread. Each holds one short lock; cryptography runs outside.
//! Order inside every change: validate, make it durable, publish it in memory, answer. A revocation
//! cuts in memory first.

mod activate;
mod admit;
mod answer;
mod judge;
mod list;
mod prove;
mod renew;
mod revoke;

use std::collections::HashSet;
use std::sync::Arc;

pub use activate::{NotActivated, PendingChannel, PendingGuard};
pub use admit::{Admission, Peer, PeerAdmission};

use crate::agent::config::{AgentContext, GateConfig, Presence, Quotas};
use crate::agent::core::{Begun, Core, Subject};
use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::ledger::record::{CredentialRecord, TicketRecord};
use crate::agent::ledger::transition::{NewTicket, Revocation, Said};
use crate::agent::ledger::{Ledger, LedgerError};
use crate::agent::policy::Policy;
use crate::agent_url::AgentUrl;
use crate::clock::Now;
use crate::credential::mint::UnboundCredential;
use crate::id::{SessionId, TicketId};
use crate::key::{AgentPublicKey, DevicePublicKey, HolderPublicKey, IssuerPublicKey};
use crate::limits::{
    ACTIVATION_TIMEOUT, LEASE, MAX_AUDIT_WAITING, MAX_CLOCK_SKEW, MAX_CREDENTIAL_LIFETIME,
    MAX_TICKET_LIFETIME, MIN_CREDENTIAL_LIFETIME, MIN_TICKET_LIFETIME, STALE_TIMEOUT,
};
use crate::protocol::message::{Offer, OfferReceipt, Registration};

/// The agent's gate. Cheap to clone; all clones are one gate.
///
/// Dropping the last one closes it: every connection is cut, nothing is admitted any more, and the ledger
/// can be opened again. It may write once, to note which audit records have been taken; nothing is lost
/// without that.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Inner>,
    _opened: Arc<Opened>,
}

struct Inner {
    agent: AgentPublicKey,
    urls: Vec<AgentUrl>,
    policy: Policy,
    quotas: Quotas,
    context: Box<dyn AgentContext>,
    core: Core,
}

/// Held by every clone of a gate, and by nothing else. What was admitted may outlive the gate, and ends
/// with it: a gate that is opened over the same ledger afterwards could not take it back.
struct Opened(Arc<Inner>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.core.close();
    }
}

/// A session and the device that shared it, as a record names them.
struct Shared<'a> {
    session: &'a SessionId,
    epoch: u64,
    device: &'a DevicePublicKey,
    issuer: &'a IssuerPublicKey,
    generation: u64,
}

impl<'a> From<&'a TicketRecord> for Shared<'a> {
    fn from(record: &'a TicketRecord) -> Self {
        let TicketRecord { session, epoch, device, issuer, generation, .. } = record;
        Self { session, epoch: *epoch, device, issuer, generation: *generation }
    }
}

impl<'a> From<&'a CredentialRecord> for Shared<'a> {
    fn from(record: &'a CredentialRecord) -> Self {
        let CredentialRecord { session, epoch, device, issuer, generation, .. } = record;
        Self { session, epoch: *epoch, device, issuer, generation: *generation }
    }
}

impl Inner {
    /// Asks the context about a session and the device that shared it, without any lock. What is gone is put
    /// on record: of the epoch and generation that were read before, and only if nothing was revoked since
    /// `begun`.
    fn ask(&self, begun: &Begun, shared: &Shared<'_>, now: Now) -> Result<Said, Denial> {
        let session = self.context.session(shared.session);
        let device = self.context.device(shared.device);
        let mut gone = Vec::new();
        if session == Presence::Gone {
            gone.push(Revocation::SessionGone(shared.session.clone(), shared.epoch));
        }
        if device == Presence::Gone {
            gone.push(Revocation::IssuerGone(*shared.issuer, shared.generation));
        }
        self.core.revoke_gone(&gone, begun, now)?;
        Ok(match (session, device) {
            (Presence::Gone, _) => Err(Denial::SessionGone),
            (_, Presence::Gone) => Err(Denial::IssuerRevoked),
            (Presence::Unknown, _) | (_, Presence::Unknown) => Err(Denial::ContextUnknown),
            (Presence::Present, Presence::Present) => Ok(()),
        })
    }

    fn check_device(&self, device: &DevicePublicKey) -> Result<(), Denial> {
        match self.context.device(device) {
            Presence::Present => Ok(()),
            Presence::Gone => Err(Denial::DeviceNotEnrolled),
            Presence::Unknown => Err(Denial::ContextUnknown),
        }
    }

    /// Whether this device may share this session now.
    fn check_sharing(&self, device: &DevicePublicKey, session: &SessionId) -> Result<(), Denial> {
        self.check_device(device)?;
        match self.context.session(session) {
            Presence::Gone => Err(Denial::SessionNotLive),
            Presence::Unknown => Err(Denial::ContextUnknown),
            Presence::Present if self.context.may_share(device, session) => Ok(()),
            Presence::Present => Err(Denial::SharingForbidden),
        }
    }
}

impl Gate {
    /// How long streams go on after a settling, seconds.
    pub const LEASE: u64 = LEASE;
    /// How long an admitted connection has to send its first frame, seconds.
    pub const ACTIVATION_TIMEOUT: u64 = ACTIVATION_TIMEOUT;
    /// How long streams wait for [`Gate::reopen`] before they are cut, seconds.
    pub const STALE_TIMEOUT: u64 = STALE_TIMEOUT;
    /// How far a desktop's clock may stand from the agent's when it mints, seconds.
    pub const MAX_CLOCK_SKEW: u64 = MAX_CLOCK_SKEW;
    /// Audit records that wait for a sink that cannot keep them. Beyond it the oldest is given up.
    pub const MAX_AUDIT_WAITING: usize = MAX_AUDIT_WAITING;

    /// Opens a gate over a ledger. A ledger that holds another agent key's records is emptied: those
    /// sessions are gone. The agent's time begins no earlier than it was when the ledger was last
    /// written. Costs one durable write.
    ///
    /// Tell it of what has changed in the meantime: [`Gate::end_session`] for sessions that are gone,
    /// [`Gate::sync_devices`] for devices.
    ///
    /// # Errors
    /// [`LedgerError`], with what the operating system said as its source; nothing is admitted by a gate that
    /// does not open.
    pub fn open(
        config: GateConfig,
        ledger: impl Ledger + 'static,
        context: impl AgentContext + 'static,
        now: Now,
    ) -> Result<Self, LedgerError> {
        let GateConfig { agent, node, urls, policy, quotas, audit } = config;
        let core = Core::open(agent, node, Arc::new(ledger), audit, now)?;
        let inner = Arc::new(Inner { agent, urls, policy, quotas, context: Box::new(context), core });
        Ok(Self { _opened: Arc::new(Opened(Arc::clone(&inner))), inner })
    }

    /// The agent's Noise key.
    #[must_use]
    pub fn agent(&self) -> &AgentPublicKey {
        &self.inner.agent
    }

    /// Registers a desktop's issuer key. `handshake_hash` is that of the very channel on which the
    /// registration arrived, so that it cannot be relayed from another. A repeated registration has
    /// no effect. Costs one Ed25519 verification and one durable write.
    ///
    /// # Errors
    /// [`Denial::DeviceNotEnrolled`], [`Denial::RegistrationInvalid`],
    /// [`Denial::IssuerOfAnotherDevice`], [`Denial::QuotaReached`], [`Denial::Ledger`].
    pub fn register_issuer(
        &self,
        device: &DevicePublicKey,
        handshake_hash: &[u8; 32],
        registration: &Registration,
        now: Now,
    ) -> Result<(), Denial> {
        let inner = &self.inner;
        let verified = registration.verify(handshake_hash, self.agent(), device);
        let registration = verified.ok_or(Denial::RegistrationInvalid)?;
        let begun = inner.core.begin(now);
        inner.check_device(device)?;
        inner.core.desk_since(&begun)?.judge(now, |step| step.register_issuer(&registration))
    }

    /// Takes an offer from the device that registered its issuer. Costs one Ed25519 verification and
    /// one durable write.
    ///
    /// # Errors
    /// [`Denial`] with what does not fit. After [`Denial::ClockSkew`] the desktop mints again with the
    /// agent's time.
    pub fn offer(&self, device: &DevicePublicKey, offer: &Offer, now: Now) -> Result<OfferReceipt, Denial> {
        let inner = &self.inner;
        inner.check_device(device)?;
        check_lifetime(offer.ticket_lifetime, MIN_TICKET_LIFETIME, MAX_TICKET_LIFETIME)?;
        check_lifetime(offer.valid_for, MIN_CREDENTIAL_LIFETIME, MAX_CREDENTIAL_LIFETIME)?;
        let credential = UnboundCredential::parse(&offer.credential).map_err(Denial::OfferMalformed)?;
        let authority = credential.authority();
        let ticket = offer.ticket.id();
        let for_us = authority.agent == *self.agent()
            && inner.urls.contains(&authority.url)
            && authority.ticket == ticket;
        if !for_us {
            return Err(Denial::OfferMismatch);
        }
        let begun = inner.core.begin(now);
        let agent_time = begun.agent_time;
        inner.core.desk().judge(now, |step| step.issuer_of(&offer.issuer, device))?;
        if authority.expires_at.distance(agent_time.plus(offer.valid_for)) > MAX_CLOCK_SKEW {
            return Err(Denial::ClockSkew { agent_time });
        }
        let unbound = credential.verify(&offer.issuer).map_err(Denial::OfferMalformed)?;
        let new = NewTicket {
            key: offer.ticket,
            credential: authority.credential,
            session: authority.session.clone(),
            issuer: offer.issuer,
            device: *device,
            offered_at: agent_time,
            expires_at: agent_time.plus(offer.ticket_lifetime),
            credential_expires_at: authority.expires_at.min(agent_time.plus(offer.valid_for)),
            ops: authority.ops,
            label: offer.label.clone(),
            require_confirm: offer.require_confirm,
            unbound,
        };
        let expires_at = new.expires_at;
        let quotas = inner.quotas.limits();
        inner.check_sharing(device, &authority.session)?;
        inner.core.desk_since(&begun)?.judge(now, |step| step.offer(&ticket, &new, &quotas))?;
        Ok(OfferReceipt { ticket, agent_time, expires_at })
    }

    /// Lets a phone in that waits for confirmation. Only the device that offered the ticket may; its
    /// owner has compared the [`PairCode`](crate::PairCode) on both screens. Costs one durable write.
    ///
    /// # Errors
    /// [`Denial::DeviceNotEnrolled`], [`Denial::IssuerOfAnotherDevice`], [`Denial::NothingToConfirm`],
    /// or why the credential no longer stands.
    pub fn confirm(
        &self,
        device: &DevicePublicKey,
        ticket: &TicketId,
        holder: &HolderPublicKey,
        now: Now,
    ) -> Result<(), Denial> {
        let inner = &self.inner;
        inner.check_device(device)?;
        let begun = inner.core.begin(now);
        let record = inner.core.read(now, |step| step.ticket(ticket))?.ok_or(Denial::NothingToConfirm)?;
        let said = inner.ask(&begun, &Shared::from(&record), now)?;
        inner.core.desk().judge(now, |step| step.confirm(device, ticket, holder, &said))
    }

    /// Settles the gate: asks the context about every session and device of a connection, ends what has run
    /// out, removes a bounded number of records that nobody asks for any more, and lets streams go on for
    /// [`Gate::LEASE`] seconds from `now`.
    ///
    /// Call it about once a second. A gate that was not settled for longer grants no permit: whoever asks is
    /// told [`Denial::Stale`]. Costs one question for each session and device, and one read of the
    /// ledger; a durable write where something has ended. Waits for the ledger, and then for the audit sink
    /// unless another call does; streams go on before that.
    ///
    /// # Errors
    /// [`Denial::Ledger`]; streams do not go on by it. [`Denial::Interrupted`] if something was revoked while
    /// the context said that something is gone: settle again.
    pub fn settle(&self, now: Now) -> Result<(), Denial> {
        let inner = &self.inner;
        let begun = inner.core.begin(now);
        let subjects = inner.core.registry().subjects();
        let (mut gone, mut devices, mut unknown) = (Vec::new(), Vec::new(), HashSet::new());
        for subject in subjects {
            let presence = match &subject {
                Subject::Session(session, _) => inner.context.session(session),
                Subject::Device(device, ..) => inner.context.device(device),
            };
            match (presence, subject) {
                (Presence::Present, _) => {}
                (Presence::Unknown, subject) => drop(unknown.insert(subject)),
                (Presence::Gone, Subject::Session(id, epoch)) => {
                    gone.push(Revocation::SessionGone(id, epoch))
                }
                (Presence::Gone, Subject::Device(_, issuer, generation)) => {
                    devices.push(Revocation::IssuerGone(issuer, generation));
                }
            }
        }
        // A session's end is the better reason to tell where both are gone.
        gone.append(&mut devices);
        inner.core.revoke_gone(&gone, &begun, now)?;
        inner.core.settle(&unknown, now)
    }

    /// Goes on after a failure of the ledger, over the same ledger opened again or over another that holds the
    /// same records. Every stream is looked up in it before any goes on; those that no longer stand are cut.
    /// What could not be written before is written with it. Costs one durable write and one read for each
    /// connected credential.
    ///
    /// Streams wait for it for [`Gate::STALE_TIMEOUT`] seconds; after that they are
    /// over, and phones attach again once it is open.
    ///
    /// # Errors
    /// [`LedgerError`]; the gate stays as it was, and this can be called again. [`LedgerFailure::InUse`]
    /// if the ledger has not failed, or why the gate is shut for good.
    pub fn reopen(&self, ledger: impl Ledger + 'static, now: Now) -> Result<(), LedgerError> {
        self.inner.core.reopen(Arc::new(ledger), now)
    }

    /// Whether the ledger has failed. Every stream waits then, and everything is refused until
    /// [`Gate::reopen`]. Waits for no disk.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.inner.core.failure().is_some()
    }

    /// Why the gate refuses everything, if it does. Waits for no disk.
    #[must_use]
    pub fn failure(&self) -> Option<LedgerFailure> {
        self.inner.core.failure()
    }

    /// The latest failure of the ledger, with what the operating system or the database said as its source: what
    /// stands behind the latest [`Denial::Ledger`]. It stays after a success. Waits for no disk.
    #[must_use]
    pub fn ledger_error(&self) -> Option<LedgerError> {
        self.inner.core.last_error()
    }
}

impl core::fmt::Debug for Gate {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Gate").field("agent", &self.inner.agent).finish_non_exhaustive()
    }
}

fn check_lifetime(seconds: u64, min: u64, max: u64) -> Result<(), Denial> {
    if (min..=max).contains(&seconds) { Ok(()) } else { Err(Denial::LifetimeOutOfBounds { min, max }) }
}

#[cfg(test)]
mod always;
#[cfg(all(test, feature = "redb", feature = "issuer", feature = "holder"))]
mod faults;

#[cfg(all(test, sessioncap_loom, feature = "issuer"))]
mod models;
