//! The agent's side: accepts offers, admits phones and revokes what they were given (`docs/PROTOCOL.md`
//! sections 6 and 8).
//!
//! Every method of [`Gate`] is declared here. A file of `gate/` with the same name implements it; the revoking
//! methods, `open` and `reopen` are implemented in `core/`. By caller:
//! - an enrolled device: [`Gate::register_issuer`], [`Gate::offer`], [`Gate::confirm`], [`Gate::renew`], or
//!   [`Gate::answer`], which dispatches any of its requests;
//! - a peer, with its first handshake message: [`Gate::admit`];
//! - the operator or any enrolled device: [`Gate::list`], and [`Gate::revoke`], which dispatches to the other
//!   revoking methods;
//! - the operator only: [`Gate::reset_clock`];
//! - the agent itself: [`Gate::end_session`], [`Gate::sync_devices`], [`Gate::settle`].
//!
//! Every method can be called from any thread. Changes that arrive while a commit is made durable go into the next
//! one together; cryptography runs beside it. Every change is validated, made durable, published in memory and then
//! answered, in this order. A revocation cuts in memory first. Reads, and with them attaches, wait for no commit:
//! they see what is durable, and publish nothing if something was taken away meanwhile.

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
use crate::agent::guard::MessageRoom;
use crate::agent::health::Health;
use crate::agent::ledger::transition::Revocation;
use crate::agent::ledger::{Changes, Ledger, LedgerError};
use crate::agent::nodes::LogRead;
use crate::agent::policy::Policy;
use crate::agent::stats::Stats;
use crate::agent_url::AgentUrl;
use crate::clock::{Now, Timestamp};
use crate::credential::bytes::CredentialBytes;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{AgentPublicKey, DevicePublicKey, HolderPublicKey, IssuerPublicKey};
use crate::label::Label;
use crate::limits::{ACTIVATION_TIMEOUT, LEASE, MAX_AUDIT_WAITING, MAX_CLOCK_SKEW, STALE_TIMEOUT};
use crate::op::Action;
use crate::pair::{Answer, List, Page, Request, Revoke, Revoked};
use crate::protocol::message::{Offer, OfferReceipt, Registration, RenewalOffer, RenewalReceipt};
use crate::protocol::noise::Received;

/// The agent's gate. Clones are cheap and share one gate.
///
/// Dropping the last clone closes the gate: it cuts every connection, admits nothing more, and releases the
/// ledger, which can then be opened again. It may write once, to note which audit records the sink has taken;
/// nothing is lost if that write fails.
///
/// # What an agent calls
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
/// Omitting `settle`, `answer`, `admit` or `reopen` makes the gate refuse more, not less: frames wait if nobody
/// calls `settle`. Admission and `settle` ask the context about the session and the device, so a session or device
/// that is gone ends without `end_session` and `sync_devices` too, while the context says so: call them before an id
/// is used again or a device is enrolled again.
///
/// # Threads
///
/// Every method can be called from any thread. Methods that write wait for the commit under way, if there is one,
/// for the next, which writes everything that has arrived meanwhile, and then for the audit sink. Revocations go
/// first in the next commit. Revoking methods also wait for permits in use, which takes microseconds. Frames wait
/// for none of these. An async agent calls the methods of the table below on a thread that may block, such as with
/// tokio's `spawn_blocking`, and handles frames on the task that carries them.
///
/// | call | durable writes | waits also for |
/// |---|---|---|
/// | `open` | 1 | |
/// | `register_issuer` | 1 | the context |
/// | `register_issuer`, again | 0 | a commit under way, the context |
/// | `offer` | 1 | the context |
/// | `admit`, a redemption | 1 | the context |
/// | `admit`, an attach | 0 | the context |
/// | `activate` | 0 | the context |
/// | `activate`, the first use of a renewal | 1 | the context |
/// | `permit`, and every frame | 0 | nothing; with operator rules, once a minute, the policy |
/// | `list` | 0 | nothing: it reads a snapshot |
/// | `stats`, `health` | 0 | nothing, and takes no lock |
/// | `renew` | 1 | the context, permits in use |
/// | `settle` | 0 | a commit under way, the context |
/// | `settle`, once a minute and after an attach | 1 | the context |
/// | `revoke_credential` and other revoking methods | 1 | permits in use |
/// | `sync_devices`, nothing to revoke | 0 | a commit under way |
/// | `end_session` | 1 | permits in use |
///
/// The revoking methods cut before they wait for anything in this table. `settle` and admissions, which find by a
/// read or by the context what has ended, cut right after it, before they write. A refusal waits as a change does
/// if it depends on one.
///
/// The time of a phone's last use, its entry in the audit log and the policy's decision are written with the next
/// commit, `settle`'s at the latest; [`Gate::list`] shows them at once. A process that is killed before loses them.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Inner>,
    _close_on_drop: Arc<CloseOnDrop>,
}

struct Inner {
    agent: AgentPublicKey,
    urls: Vec<AgentUrl>,
    policy: Policy,
    /// What decides beside a credential and its record: see [`Question`](crate::agent::decision::Question).
    configuration: [u8; 32],
    quotas: Quotas,
    context: Box<dyn AgentContext>,
    message_room: Arc<MessageRoom>,
    core: Core,
}

/// Closes the gate when the last clone is dropped. Guards hold only [`Inner`]: they may outlive the gate but
/// must end with it, because a gate opened later over the same ledger could not revoke them.
struct CloseOnDrop(Arc<Inner>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.core.close();
    }
}

impl Gate {
    /// How long streams may continue after a call of [`Gate::settle`], seconds.
    pub const LEASE: u64 = LEASE;
    /// How long an admitted connection has to send its first frame, seconds.
    pub const ACTIVATION_TIMEOUT: u64 = ACTIVATION_TIMEOUT;
    /// How long streams wait for [`Gate::reopen`] before they are cut, seconds.
    pub const STALE_TIMEOUT: u64 = STALE_TIMEOUT;
    /// How far a desktop's clock may differ from the agent's when it mints, seconds.
    pub const MAX_CLOCK_SKEW: u64 = MAX_CLOCK_SKEW;
    /// How many audit records wait for a sink that cannot keep them. Beyond this, the gate drops the oldest.
    pub const MAX_AUDIT_WAITING: usize = MAX_AUDIT_WAITING;

    /// Opens a gate over a ledger. If the ledger holds records of another agent key, they are discarded,
    /// because that agent's sessions no longer exist. The agent's time starts no earlier than when the ledger
    /// was last written. Costs one durable write.
    ///
    /// Afterwards report what changed while the gate was closed: call [`Gate::end_session`] for each session
    /// that has ended and [`Gate::sync_devices`] with the enrolled devices.
    ///
    /// # Errors
    /// [`LedgerError`] if the ledger cannot be read, written or used; its source is the operating system's
    /// error.
    pub fn open(
        config: GateConfig,
        ledger: impl Ledger + 'static,
        context: impl AgentContext + 'static,
        now: Now,
    ) -> Result<Self, LedgerError> {
        let GateConfig { agent, node, urls, policy, quotas, audit, message_room, timer, following, copy } =
            config;
        let core = Core::open(agent, node, Arc::new(ledger), audit, timer, following, now)?.with_copy(copy);
        let configuration = grant::configuration(&policy, &agent, &urls);
        let inner = Arc::new(Inner {
            configuration,
            agent,
            urls,
            policy,
            quotas,
            context: Box::new(context),
            message_room: Arc::new(MessageRoom::new(message_room)),
            core,
        });
        Ok(Self { _close_on_drop: Arc::new(CloseOnDrop(Arc::clone(&inner))), inner })
    }

    /// Returns the agent's Noise key.
    #[must_use]
    pub fn agent(&self) -> &AgentPublicKey {
        &self.inner.agent
    }

    /// Resumes after a ledger failure, over the same ledger opened again or another one that holds the same
    /// records. Looks up every stream's credential first, and cuts those that are no longer valid. Also
    /// writes the revocations that could not be written before. Costs one durable write and one read for each
    /// connected credential.
    ///
    /// Streams wait for this call for [`Gate::STALE_TIMEOUT`] seconds and are then cut; those phones must
    /// attach again.
    ///
    /// # Errors
    /// [`LedgerError`] if the ledger cannot be used; the gate is unchanged and the call can be repeated. Its
    /// cause is [`LedgerFailure::InUse`] if the ledger has not failed, or the reason why the gate is shut
    /// permanently.
    pub fn reopen(&self, ledger: impl Ledger + 'static, now: Now) -> Result<(), LedgerError> {
        self.inner.core.reopen(Arc::new(ledger), now)
    }

    /// Returns the agent's own addresses. An offer must name one of them. Does not wait for a lock or the disk.
    #[must_use]
    pub fn urls(&self) -> &[AgentUrl] {
        &self.inner.urls
    }

    /// Whether the gate refuses everything because of its ledger. Streams wait until [`Gate::reopen`] succeeds. It
    /// cannot for a gate that is shut for good, such as one that another opening of its node has fenced; its error
    /// says so. Does not wait for the disk.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.inner.core.failure().is_some()
    }

    /// Returns why the gate refuses everything, if it does. Does not wait for the disk.
    #[must_use]
    pub fn failure(&self) -> Option<LedgerFailure> {
        self.inner.core.failure()
    }

    /// Returns the latest ledger failure, with the operating system's or database's error as its source. It
    /// explains the latest [`Denial::Ledger`] and is kept after a later success. Does not wait for the disk.
    #[must_use]
    pub fn ledger_error(&self) -> Option<LedgerError> {
        self.inner.core.last_error()
    }
}

/// # Calls for an enrolled device
impl Gate {
    /// Carries out a device's request. `device` is the key that the channel authenticated, and
    /// `handshake_hash` is the hash of the finished handshake of the channel on which the request arrived
    /// ([`Replied::handshake_hash`](crate::noise::Replied::handshake_hash)).
    ///
    /// It checks that the device is enrolled. [`Gate::list`], the revoking methods and [`Gate::reset_clock`] check
    /// nobody: whoever can call them may.
    ///
    /// Any enrolled device may list and revoke; only the device that offered a ticket may confirm or renew.
    /// Costs what the method for that request costs, and one question to the context.
    ///
    /// # Errors
    /// [`Denial::DeviceNotEnrolled`] before anything is done, or the error of the method for that request.
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

    /// Carries out a `pair.*` request that arrived as JSON, and returns the JSON to send back: the answer, or
    /// `{"error": code, "detail": text}` as the deployed agents report a refusal (`docs/PROTOCOL.md` section
    /// 8.1). For the rest, see [`Gate::answer`]. Does nothing for JSON that is no such request.
    #[cfg(feature = "dd")]
    pub fn answer_json<R: RngCore + CryptoRng>(
        &self,
        device: &DevicePublicKey,
        handshake_hash: &[u8; 32],
        request: &[u8],
        now: Now,
        rng: &mut R,
    ) -> String {
        self.inner.answer_json(device, handshake_hash, request, now, rng)
    }

    /// Registers a desktop's issuer key. `handshake_hash` is the handshake hash of the channel on which the
    /// registration arrived, so that the registration cannot be relayed from another channel. Repeating a
    /// registration has no effect. Costs one Ed25519 verification and one durable write.
    ///
    /// # Errors
    /// [`Denial::DeviceNotEnrolled`], [`Denial::RegistrationInvalid`], [`Denial::IssuerOfAnotherDevice`],
    /// [`Denial::QuotaReached`] or [`Denial::Ledger`].
    pub fn register_issuer(
        &self,
        device: &DevicePublicKey,
        handshake_hash: &[u8; 32],
        registration: &Registration,
        now: Now,
    ) -> Result<(), Denial> {
        self.inner.register_issuer(device, handshake_hash, registration, now)
    }

    /// Accepts an offer from the device that registered its issuer. Costs one Ed25519 verification and one
    /// durable write.
    ///
    /// # Errors
    /// [`Denial`] with the reason for refusing the offer. After [`Denial::ClockSkew`], the desktop mints
    /// again with the agent's time.
    pub fn offer(&self, device: &DevicePublicKey, offer: &Offer, now: Now) -> Result<OfferReceipt, Denial> {
        self.inner.offer(device, offer, now)
    }

    /// Confirms a phone that waits for confirmation. Only the device that offered the ticket may confirm,
    /// after its owner has compared the [`PairCode`](crate::PairCode) on both screens. Costs one durable
    /// write.
    ///
    /// # Errors
    /// [`Denial::DeviceNotEnrolled`], [`Denial::IssuerOfAnotherDevice`], [`Denial::NothingToConfirm`], or the
    /// reason why the credential is no longer valid.
    pub fn confirm(
        &self,
        device: &DevicePublicKey,
        ticket: &TicketId,
        holder: &HolderPublicKey,
        now: Now,
    ) -> Result<(), Denial> {
        self.inner.confirm(device, ticket, holder, now)
    }

    /// Sets new terms for a live credential, on behalf of the device that offered it.
    ///
    /// Operations and time that the new terms remove are gone when this returns: no permit for them is
    /// granted or in use. Live streams continue with the rest. Added operations and time reach the phone at
    /// its next attach, if it presents the credential itself and not a narrowed copy. The earlier credential
    /// remains valid, within the new terms, until the phone has used the renewed one. Costs one Ed25519
    /// verification, one signature and one durable write.
    ///
    /// # Errors
    /// [`Denial`] with the reason; nothing has changed. Exceptions: after [`Denial::Ledger`], live streams
    /// stay narrowed and the renewal may or may not be on record, so send it again. After
    /// [`Denial::ClockSkew`], the desktop mints again with the agent's time. [`Denial::ApiMisuse`] if called
    /// from inside a permit.
    pub fn renew<R: RngCore + CryptoRng>(
        &self,
        device: &DevicePublicKey,
        renewal: &RenewalOffer,
        now: Now,
        rng: &mut R,
    ) -> Result<RenewalReceipt, Denial> {
        self.inner.renew(device, renewal, now, rng)
    }

    /// Lists one page of the tickets and credentials on record that match `list`, from its cursor on, at most
    /// [`MAX_LISTED`](crate::limits::MAX_LISTED) entries. [`Page`] documents their order and what may change
    /// between two pages (`docs/PROTOCOL.md` section 8).
    ///
    /// Reads at most 512 records, however many match, and waits neither for a commit nor for the audit sink.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if the ledger cannot be read.
    pub fn list(&self, list: &List, now: Now) -> Result<Page, Denial> {
        self.inner.list(list, now)
    }
}

/// # Calls for a peer's first handshake message
impl Gate {
    /// Decides whether to admit a peer from its message 1, and writes message 2.
    ///
    /// A peer whose payload is of this protocol is treated as a phone even if its key is enrolled. A
    /// redemption costs one Ed25519 verification, one signature and one durable write; an attach costs one
    /// verification for each block of the credential and one run of the policy. Before any of that, a
    /// repeated message 1 is refused while an admission by the same message is pending. Message 2 costs three
    /// scalar multiplications. Waits for the ledger.
    pub fn admit<R: RngCore + CryptoRng>(&self, received: Received, now: Now, rng: &mut R) -> Admission {
        self.inner.admit(received, now, rng)
    }

    /// Does the same as [`Gate::admit`], for an agent with its own Noise implementation. The guard becomes
    /// live when the agent reports that the peer's first frame has decrypted. The agent itself must pass
    /// every frame through the guard.
    pub fn admit_peer<R: RngCore + CryptoRng>(&self, peer: Peer<'_>, now: Now, rng: &mut R) -> PeerAdmission {
        self.inner.admit_peer(peer, now, rng)
    }

    /// Evaluates what the gate would answer if this phone, with this credential, asked for one action now.
    /// For operators: it changes nothing and admits nobody. Costs as much as an attach.
    ///
    /// # Errors
    /// [`Denial`] with the reason for refusing the action.
    pub fn explain(
        &self,
        peer: &HolderPublicKey,
        credential: &CredentialBytes,
        action: Action,
        now: Now,
    ) -> Result<(), Denial> {
        let explained = self.inner.explain(peer, credential, action, now);
        explained.inspect_err(|denial| self.inner.core.counters().denied(denial))
    }
}

/// # Revocation
///
/// Each method is idempotent and returns what it revoked ([`Revoked`]). A repeated call returns
/// [`Revoked::Already`]; a name that is not on record returns [`Revoked::Unknown`], which is not an error. A
/// gate remembers the last 1,024 names that it has revoked. An older name, or any name after a restart, is
/// also unknown once its records are removed.
///
/// Each method first cuts live streams and closes what it names to offers, redemptions, attaches and
/// activations; only then does it wait for the ledger, the audit sink, the context or a waker. When it
/// returns, the revocation is durable, no further permit is granted and none is in use. Each costs one
/// durable write and the audit sink's work on its records, and waits for permits in use, which takes
/// microseconds.
impl Gate {
    /// Revokes a ticket, or, after its redemption, its credential.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if the revocation was not, or may not have been, written. Its targets stay cut and
    /// closed in this gate, and a later transaction writes it. [`Denial::ApiMisuse`] if called from inside a
    /// permit; nothing has happened then.
    pub fn revoke_ticket(&self, ticket: &TicketId, now: Now) -> Result<Revoked, Denial> {
        self.inner.core.revoke(&Revocation::Ticket(*ticket), now)
    }

    /// Revokes a credential and every copy that its holder narrowed from it.
    ///
    /// # Errors
    /// As [`Gate::revoke_ticket`].
    pub fn revoke_credential(&self, credential: &CredentialId, now: Now) -> Result<Revoked, Denial> {
        self.inner.core.revoke(&Revocation::Credential(*credential), now)
    }

    /// Revokes every ticket and credential of a session that keeps running.
    ///
    /// # Errors
    /// As [`Gate::revoke_ticket`].
    pub fn revoke_session(&self, session: &SessionId, now: Now) -> Result<Revoked, Denial> {
        self.inner.core.revoke(&Revocation::Session(session.clone()), now)
    }

    /// Revokes every ticket and credential of a session that has ended. Call it for each session that ends,
    /// before its id can be used again.
    ///
    /// # Errors
    /// As [`Gate::revoke_ticket`].
    pub fn end_session(&self, session: &SessionId, now: Now) -> Result<Revoked, Denial> {
        self.inner.core.revoke(&Revocation::SessionEnd(session.clone()), now)
    }

    /// Revokes an issuer key and everything that it signed. Registering the same key later revives nothing.
    /// The cost grows with the number of records to revoke.
    ///
    /// # Errors
    /// As [`Gate::revoke_ticket`].
    pub fn revoke_issuer(&self, issuer: &IssuerPublicKey, now: Now) -> Result<Revoked, Denial> {
        self.inner.core.revoke(&Revocation::Issuer(*issuer), now)
    }

    /// Revokes every issuer key of a device and everything that they signed.
    ///
    /// # Errors
    /// As [`Gate::revoke_ticket`].
    pub fn revoke_device(&self, device: &DevicePublicKey, now: Now) -> Result<Revoked, Denial> {
        self.inner.core.revoke(&Revocation::Device(*device), now)
    }

    /// Revokes every device that is not in `enrolled`. Call it when the list of enrolled devices has changed,
    /// and at start. The set has no end; see [`Gate::sync_devices_until`].
    ///
    /// # Errors
    /// As [`Gate::revoke_ticket`].
    pub fn sync_devices(&self, enrolled: &[DevicePublicKey], now: Now) -> Result<Revoked, Denial> {
        self.inner.core.sync_devices(enrolled, None, now)
    }

    /// Does the same for a set of devices that is valid until this time, by the agent's clock. From then on, until
    /// the next set, the gate refuses every permit, admission, offer, renewal and confirmation as
    /// [`Denial::Stale`], which is not final: streams wait, and go on with the next set. For an agent that gets
    /// its set of devices from elsewhere, so that one that is cut off from there does not trust an old set for
    /// ever. Revoking and listing stay open. [`Gate::sync_devices`] sets a set without an end.
    ///
    /// # Errors
    /// As [`Gate::revoke_ticket`]; the earlier set's end then stays as it was.
    pub fn sync_devices_until(
        &self,
        enrolled: &[DevicePublicKey],
        valid_until: Timestamp,
        now: Now,
    ) -> Result<Revoked, Denial> {
        self.inner.core.sync_devices(enrolled, Some(valid_until), now)
    }

    /// Sets the agent's time to the wall clock's time, which may be earlier. For an operator whose clock was
    /// set to the future by mistake: the agent's time never goes back by itself. First removes everything
    /// that an earlier time could revive: every ticket, credential and issuer registration. Desktops must
    /// register again and phones must pair again.
    ///
    /// # Errors
    /// As [`Gate::revoke_ticket`].
    pub fn reset_clock(&self, now: Now) -> Result<(), Denial> {
        self.inner.core.revoke(&Revocation::Everything, now).map(drop)
    }

    /// Revokes every pairing that a device has offered under one phone name, its label; for example, after
    /// the phone was stolen. Any enrolled device may ask for it. Names are compared byte for byte.
    ///
    /// # Errors
    /// [`Denial::ApiMisuse`] if the name is empty; otherwise as [`Gate::revoke_ticket`].
    pub fn revoke_phone(&self, device: &DevicePublicKey, name: &Label, now: Now) -> Result<Revoked, Denial> {
        self.inner.revoke_phone(device, name, now)
    }

    /// Revokes what a desktop's request names, by calling the matching method above.
    ///
    /// # Errors
    /// Those of that method.
    pub fn revoke(&self, what: &Revoke, now: Now) -> Result<Revoked, Denial> {
        self.inner.revoke(what, now)
    }
}

/// # Settling
impl Gate {
    /// Settles the gate: asks the context about the session and device of every connection, ends what has
    /// expired, removes a bounded number of old records, and lets streams continue for [`Gate::LEASE`]
    /// seconds from `now`.
    ///
    /// Call it about once a second. [`Gate::LEASE`] seconds after the last call, permits are refused with
    /// [`PermitError::Stale`](crate::agent::PermitError::Stale) until the next. Costs one question for each session and device and one read of the ledger,
    /// and a durable write if something has ended. Waits for the ledger, and then for the audit sink unless
    /// another call already does; streams continue before that.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if the ledger failed; the lease is not extended. [`Denial::Interrupted`] if
    /// something was revoked while the context reported something as gone; call it again.
    pub fn settle(&self, now: Now) -> Result<(), Denial> {
        self.inner.settle(now)
    }
}

/// # A ledger that several nodes share
///
/// Of a gate that was configured with [`GateConfig::with_other_nodes`] (`docs/FLEET.md`). The author of the
/// backend calls both, for every transaction of another node in the order of the log, and then once for the read.
impl Gate {
    /// Observes a transaction that another node has committed: cuts and narrows the streams that it ends or
    /// narrows, and waits for their permits, which takes microseconds. Runs no transaction and waits for no
    /// disk. `changes` are all rows of that transaction; rows that this gate has written itself must be left
    /// out.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if a row cannot be read: the gate is then shut. [`Denial::ApiMisuse`] if called from
    /// inside a permit; nothing has happened then.
    pub fn observe(&self, changes: &Changes, now: Now) -> Result<(), Denial> {
        self.inner.core.observe(changes, now)
    }

    /// Lets permits be granted for the limit of [`GateConfig::with_other_nodes`] from when this read of the log
    /// began. Call it once all that was read is observed. Takes no lock that is held during disk access.
    pub fn caught_up(&self, read: LogRead) {
        self.inner.core.caught_up(read);
    }
}

/// # Watching
///
/// Both methods read atomics. They take no lock and wait for nothing, whatever another thread does, so they can
/// be called at any time, also from inside a permit, a waker or the audit sink.
impl Gate {
    /// Returns what the gate has done since it was opened, in numbers. Contains no id, key or name. Costs some
    /// three hundred loads.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.core.stats()
    }

    /// Returns the condition of the gate, and what is wrong with it. Contains no id, key or name.
    #[must_use]
    pub fn health(&self, now: Now) -> Health {
        self.inner.core.health(now)
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

#[cfg(all(test, not(sessioncap_loom), feature = "issuer", feature = "holder"))]
mod group;

#[cfg(all(test, sessioncap_loom, feature = "issuer"))]
mod models;
