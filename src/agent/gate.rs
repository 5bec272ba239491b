//! The agent's side: it takes offers, admits phones, and takes everything back
//! (`docs/PROTOCOL.md` sections 6 and 8).
//!
//! Every method of [`Gate`] is here, and what it does is in the file of `gate/` that has its name. Methods by
//! kind:
//! - from an enrolled device: [`Gate::register_issuer`], [`Gate::offer`], [`Gate::confirm`],
//!   [`Gate::renew`], or [`Gate::answer`] for whichever it asks for;
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
mod attach;
mod confirm;
mod context;
mod explain;
mod grant;
mod lifetime;
mod list;
mod offer;
mod prove;
mod redeem;
mod register;
mod renew;
mod revoke;
mod settle;
mod unbound;

use std::sync::Arc;

use rand_core::{CryptoRng, RngCore};

pub use activate::{NotActivated, PendingChannel, PendingGuard};
pub use admit::{Admission, Peer, PeerAdmission};

use crate::agent::config::{AgentContext, GateConfig, Quotas};
use crate::agent::core::Core;
use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::ledger::transition::Revocation;
use crate::agent::ledger::{Ledger, LedgerError};
use crate::agent::policy::Policy;
use crate::agent_url::AgentUrl;
use crate::clock::Now;
use crate::credential::bytes::CredentialBytes;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{AgentPublicKey, DevicePublicKey, HolderPublicKey, IssuerPublicKey};
use crate::label::Label;
use crate::limits::{ACTIVATION_TIMEOUT, LEASE, MAX_AUDIT_WAITING, MAX_CLOCK_SKEW, STALE_TIMEOUT};
use crate::op::Action;
use crate::pair::{Answer, List, Page, Request, Revoke, Revoked};
use crate::protocol::message::{Offer, OfferReceipt, Registration, RenewalOffer, RenewalReceipt};
use crate::protocol::noise::Received;

/// The agent's gate. Cheap to clone; all clones are one gate.
///
/// Dropping the last one closes it: every connection is cut, nothing is admitted any more, and the ledger
/// can be opened again. It may write once, to note which audit records have been taken; nothing is lost
/// without that.
///
/// # What an agent tells its gate
///
/// | call | when |
/// |---|---|
/// | [`settle`](Self::settle) | about once a second |
/// | [`end_session`](Self::end_session) | when a session ends, before its id can be used again |
/// | [`sync_devices`](Self::sync_devices) | at start, and when the list of enrolled devices has changed |
/// | [`answer`](Self::answer) | for each `pair.*` request of a device |
/// | [`admit`](Self::admit) | for each first message; then [`PendingChannel::activate`] with the frame that follows |
/// | [`reopen`](Self::reopen) | once [`is_poisoned`](Self::is_poisoned) |
///
/// Whoever forgets one is refused more, never less: frames wait where nobody settles, and admissions and
/// settlings ask the context about session and device.
///
/// # Threads
///
/// Every call may be made from any thread. Calls that write wait for the ledger's lock and for the disk, then for
/// the audit sink; a revoking call also waits for permits in use, microseconds. Frames wait for none of these.
/// An async agent makes the calls of this table on a thread that may block, such as tokio's `spawn_blocking`, and
/// frames on the task that carries them.
///
/// | call | durable writes | waits also for |
/// |---|---|---|
/// | `open` | 1 | |
/// | `register_issuer` | 1 | the context |
/// | `register_issuer`, again | 0 | the ledger's lock, the context |
/// | `offer` | 1 | the context |
/// | `admit`, a redemption | 1 | the context |
/// | `admit`, an attach | 0 | the ledger's lock, the context |
/// | `activate`, the first within a minute | 1 | the context |
/// | `activate`, another | 0 | the ledger's lock, the context |
/// | `permit`, and every frame | 0 | nothing; with operator rules, once a minute, the policy |
/// | `list` | 0 | nothing: it reads a snapshot |
/// | `renew` | 1 | the context, permits in use |
/// | `settle` | 0 | the ledger's lock, the context |
/// | `settle`, once a minute | 1 | the context |
/// | `revoke_credential` and its kin | 1 | permits in use |
/// | `sync_devices`, nothing to revoke | 0 | the ledger's lock |
/// | `end_session` | 1 | permits in use |
///
/// A cut takes effect before anything in this table is waited for.
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

/// # From an enrolled device
impl Gate {
    /// Carries out what a device has asked for. `device` is the key that the channel has authenticated, and
    /// `handshake_hash` that of the very channel on which the request arrived.
    ///
    /// Any enrolled device may list and revoke; the rest is for the device that offered. Costs what the method
    /// behind the request costs, and one question to the context.
    ///
    /// # Errors
    /// [`Denial::DeviceNotEnrolled`] before anything is done, or as the method says.
    pub fn answer<R: RngCore + CryptoRng>(
        &self,
        device: &DevicePublicKey,
        handshake_hash: &[u8; 32],
        request: &Request,
        now: Now,
        rng: &mut R,
    ) -> Result<Answer, Denial> {
        self.inner.answer(device, handshake_hash, request, now, rng)
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
        self.inner.register_issuer(device, handshake_hash, registration, now)
    }

    /// Takes an offer from the device that registered its issuer. Costs one Ed25519 verification and
    /// one durable write.
    ///
    /// # Errors
    /// [`Denial`] with what does not fit. After [`Denial::ClockSkew`] the desktop mints again with the
    /// agent's time.
    pub fn offer(&self, device: &DevicePublicKey, offer: &Offer, now: Now) -> Result<OfferReceipt, Denial> {
        self.inner.offer(device, offer, now)
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
        self.inner.confirm(device, ticket, holder, now)
    }

    /// Takes new terms for a live credential, from the device that offered it.
    ///
    /// What they take away is gone when this returns: no permit beyond them is granted, and none is in
    /// use; live streams go on with what is left. What they add reaches the phone with its next attach,
    /// if it shows the credential itself and not a narrowed copy. The earlier credential stays valid,
    /// within the new terms, until the phone has used the renewed one. Costs one Ed25519 verification,
    /// one signature and one durable write.
    ///
    /// # Errors
    /// [`Denial`] with what does not fit; nothing has changed then. After [`Denial::Ledger`] live streams stay
    /// narrowed, and the renewal may be on record or not: send it again. After [`Denial::ClockSkew`] the
    /// desktop mints again with the agent's time. [`Denial::ApiMisuse`] from inside a permit.
    pub fn renew<R: RngCore + CryptoRng>(
        &self,
        device: &DevicePublicKey,
        renewal: &RenewalOffer,
        now: Now,
        rng: &mut R,
    ) -> Result<RenewalReceipt, Denial> {
        self.inner.renew(device, renewal, now, rng)
    }

    /// A page of the tickets and credentials on record: what `list` asks for, from where it asks to go on, at
    /// most [`MAX_LISTED`](crate::limits::MAX_LISTED) entries. See [`Page`] for their order, and for what may
    /// change between two pages (`docs/PROTOCOL.md` section 8).
    ///
    /// Reads at most 512 records, whatever the filter leaves of them, and waits neither for a commit nor for
    /// the audit sink.
    ///
    /// # Errors
    /// [`Denial::Ledger`].
    pub fn list(&self, list: &List, now: Now) -> Result<Page, Denial> {
        self.inner.list(list, now)
    }
}

/// # From a peer's first handshake message
impl Gate {
    /// Decides on a peer from its message 1, and writes message 2.
    ///
    /// A payload of this protocol is a phone's even if its key is enrolled. A redemption costs one
    /// Ed25519 verification, one signature and one durable write; an attach costs one verification for
    /// each block of the credential and one run of the policy. A message 1 that is repeated while an
    /// admission by it waits is refused before any of that. Message 2 costs three scalar multiplications. Waits
    /// for the ledger.
    pub fn admit<R: RngCore + CryptoRng>(&self, received: Received, now: Now, rng: &mut R) -> Admission {
        self.inner.admit(received, now, rng)
    }

    /// As [`Gate::admit`], for an agent with a Noise of its own. Its guard is live once the agent says that the
    /// peer's first frame has decrypted, and nothing but the agent's own care has every frame pass it.
    pub fn admit_peer<R: RngCore + CryptoRng>(&self, peer: Peer<'_>, now: Now, rng: &mut R) -> PeerAdmission {
        self.inner.admit_peer(peer, now, rng)
    }

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
        self.inner.explain(peer, credential, action, now)
    }
}

/// # Revocation
///
/// Each verb is idempotent, and says what it has ended ([`Revoked`]): said again it answers
/// [`Revoked::Already`], and for a name that is not on record [`Revoked::Unknown`], which is no error. A gate
/// remembers the last 1,024 names that it has revoked; beyond them, and after a restart, an issuer, a phone or
/// a pairing whose records are kept no longer is unknown as well.
///
/// Live streams are cut first, and what is named is closed to offers, redemptions, attaches and activations,
/// before the verb waits for the ledger, the audit sink, the context or a waker. When it returns, the
/// revocation is durable, no further permit is granted and none is in use. Each costs one durable write and
/// what the audit sink does with its records, and waits for permits in use, microseconds.
impl Gate {
    /// Revokes a ticket before it is redeemed, its credential afterwards.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn revoke_ticket(&self, ticket: &TicketId, now: Now) -> Result<Revoked, Denial> {
        self.inner.core.revoke(&Revocation::Ticket(*ticket), now)
    }

    /// Revokes a credential, with everything that its holder narrowed from it.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn revoke_credential(&self, credential: &CredentialId, now: Now) -> Result<Revoked, Denial> {
        self.inner.core.revoke(&Revocation::Credential(*credential), now)
    }

    /// Revokes every ticket and credential of a session that goes on.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn revoke_session(&self, session: &SessionId, now: Now) -> Result<Revoked, Denial> {
        self.inner.core.revoke(&Revocation::Session(session.clone()), now)
    }

    /// Ends every ticket and credential of a session that has ended. Call it for each session that
    /// ends, before its id can be used again.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn end_session(&self, session: &SessionId, now: Now) -> Result<Revoked, Denial> {
        self.inner.core.revoke(&Revocation::SessionEnd(session.clone()), now)
    }

    /// Revokes an issuer key, with everything that it signed. A later registration of the same key
    /// revives nothing. Costs as much as there is to revoke.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn revoke_issuer(&self, issuer: &IssuerPublicKey, now: Now) -> Result<Revoked, Denial> {
        self.inner.core.revoke(&Revocation::Issuer(*issuer), now)
    }

    /// Revokes every issuer key of a device, with everything that they signed.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn revoke_device(&self, device: &DevicePublicKey, now: Now) -> Result<Revoked, Denial> {
        self.inner.core.revoke(&Revocation::Device(*device), now)
    }

    /// Revokes every device that is not in `enrolled`. Call it when the trust set has changed, and at
    /// start.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn sync_devices(&self, enrolled: &[DevicePublicKey], now: Now) -> Result<Revoked, Denial> {
        self.inner.core.revoke(&Revocation::DevicesOutside(enrolled.into()), now)
    }

    /// Sets the agent's time to the wall clock's, which may be earlier. For an operator whose clock
    /// once stood in the future: the agent's time never goes back by itself. Whatever could be revived
    /// by that goes first: every ticket, credential and issuer registration. Desktops register again,
    /// phones pair again; their credentials are unknown here from now on.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn reset_clock(&self, now: Now) -> Result<(), Denial> {
        self.inner.core.revoke(&Revocation::Everything, now).map(drop)
    }

    /// Revokes every pairing that a device has offered under one name for the phone, its label: for a phone
    /// that was stolen. Any enrolled device may ask for it. The name is compared byte for byte.
    ///
    /// # Errors
    /// [`Denial::ApiMisuse`] for an empty name. Otherwise as [`Gate::revoke_credential`].
    pub fn revoke_phone(&self, device: &DevicePublicKey, name: &Label, now: Now) -> Result<Revoked, Denial> {
        self.inner.revoke_phone(device, name, now)
    }

    /// Revokes what a desktop asks for: the verb above that belongs to it.
    ///
    /// # Errors
    /// As that verb.
    pub fn revoke(&self, what: &Revoke, now: Now) -> Result<Revoked, Denial> {
        self.inner.revoke(what, now)
    }
}

/// # Settling
impl Gate {
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
        self.inner.settle(now)
    }
}

impl core::fmt::Debug for Gate {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Gate").field("agent", &self.inner.agent).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod always;
#[cfg(all(test, feature = "redb", feature = "issuer", feature = "holder"))]
mod faults;

#[cfg(all(test, sessioncap_loom, feature = "issuer"))]
mod models;
