//! The agent's side: it takes offers, admits phones, and takes everything back
//! (`docs/PROTOCOL.md` sections 6 and 8).
//!
//! Methods by kind:
//! - from an enrolled device: [`Gate::register_issuer`], [`Gate::offer`], [`Gate::confirm`],
//!   [`Gate::renew`];
//! - from a peer's first handshake message: [`Gate::admit`];
//! - from the operator, or any enrolled device: [`Gate::list`] and the revoking verbs; from the
//!   operator alone: [`Gate::reset_clock`];
//! - from the agent itself: [`Gate::end_session`], [`Gate::sync_devices`], [`Gate::settle`].
//!
//! All of them may be called from any thread. Each holds one short lock; cryptography runs outside.
//! Order inside every change: validate, make it durable, publish it in memory, answer. A revocation
//! cuts in memory first.

mod activate;
mod admit;
mod judge;
mod list;
mod renew;
mod revoke;

use std::sync::{Arc, PoisonError};

pub use activate::PendingGuard;
pub use admit::{Admission, Admitted, Refused};
pub use list::{Listing, ListingState, WaitingRenewal};

use crate::agent::audit::AuditSink;
use crate::agent::core::{Locked, State};
use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::guard::check_outside_permit;
use crate::agent::ledger::Ledger;
use crate::agent::ledger::record::{TicketRecord, TicketState};
use crate::agent::ledger::transition::{QuotaLimits, Step, Verdict};
use crate::agent::policy::Policy;
use crate::agent_url::AgentUrl;
use crate::clock::{Now, Timestamp};
use crate::credential::UnboundCredential;
use crate::error::{Error, Misuse};
use crate::id::{SessionId, TicketId};
use crate::key::{AgentPublicKey, DevicePublicKey, HolderPublicKey};
use crate::limits::{
    DEFAULT_CONNECTIONS_PER_CREDENTIAL, DEFAULT_CREDENTIALS_PER_AGENT, DEFAULT_CREDENTIALS_PER_SESSION,
    DEFAULT_TICKETS_PER_AGENT, DEFAULT_TICKETS_PER_SESSION, MAX_CLOCK_SKEW, MAX_CREDENTIAL_LIFETIME,
    MAX_TICKET_LIFETIME, MIN_CREDENTIAL_LIFETIME, MIN_TICKET_LIFETIME,
};
use crate::sync::Mutex;
use crate::wire::{self, OfferFields, OfferReceipt, RegistrationFields};

/// What the gate asks the agent that links it. Called without any lock of the gate.
pub trait AgentContext: Send + Sync {
    /// Whether the device is in the agent's trust set now.
    fn is_enrolled(&self, device: &DevicePublicKey) -> bool;

    /// Whether the session is running now.
    fn session_is_live(&self, session: &SessionId) -> bool;

    /// Whether this enrolled device may share this live session.
    fn may_share(&self, device: &DevicePublicKey, session: &SessionId) -> bool;
}

/// How many may be open or live at a time. Full means that an offer is refused; nothing live is ever
/// pushed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Open tickets for one session.
    pub tickets_per_session: u32,
    /// Live credentials for one session, open tickets included.
    pub credentials_per_session: u32,
    /// Open tickets at the agent.
    pub tickets_per_agent: u32,
    /// Live credentials at the agent, open tickets included.
    pub credentials_per_agent: u32,
    /// Connections of one credential.
    pub connections_per_credential: u32,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            tickets_per_session: DEFAULT_TICKETS_PER_SESSION,
            credentials_per_session: DEFAULT_CREDENTIALS_PER_SESSION,
            tickets_per_agent: DEFAULT_TICKETS_PER_AGENT,
            credentials_per_agent: DEFAULT_CREDENTIALS_PER_AGENT,
            connections_per_credential: DEFAULT_CONNECTIONS_PER_CREDENTIAL,
        }
    }
}

impl Quotas {
    fn limits(&self) -> QuotaLimits {
        QuotaLimits {
            tickets_per_session: self.tickets_per_session,
            credentials_per_session: self.credentials_per_session,
            tickets_per_agent: self.tickets_per_agent,
            credentials_per_agent: self.credentials_per_agent,
        }
    }
}

/// What a gate is opened with.
pub struct GateConfig {
    agent: AgentPublicKey,
    urls: Vec<AgentUrl>,
    policy: Policy,
    quotas: Quotas,
    audit: Box<dyn AuditSink>,
}

impl GateConfig {
    /// For an agent with this Noise key, reached at these addresses.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] without an address.
    pub fn new(agent: AgentPublicKey, urls: impl Into<Vec<AgentUrl>>) -> Result<Self, Error> {
        let urls = urls.into();
        if urls.is_empty() {
            return Err(Error::ApiMisuse(Misuse::NoAgentUrl));
        }
        Ok(Self { agent, urls, policy: Policy::new()?, quotas: Quotas::default(), audit: Box::new(|_| {}) })
    }

    /// With another policy, for an operator's own rules.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// With other quotas.
    #[must_use]
    pub fn with_quotas(mut self, quotas: Quotas) -> Self {
        self.quotas = quotas;
        self
    }

    /// With a place for audit records. Without one they are dropped.
    #[must_use]
    pub fn with_audit(mut self, audit: impl AuditSink + 'static) -> Self {
        self.audit = Box::new(audit);
        self
    }
}

impl core::fmt::Debug for GateConfig {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("GateConfig")
            .field("agent", &self.agent)
            .field("urls", &self.urls)
            .finish_non_exhaustive()
    }
}

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
    config: GateConfig,
    context: Box<dyn AgentContext>,
    state: Mutex<State>,
}

/// Held by every clone of a gate, and by nothing else. What was admitted may outlive the gate, and ends
/// with it: a gate that is opened over the same ledger afterwards could not take it back.
struct Opened(Arc<Inner>);

impl Drop for Opened {
    fn drop(&mut self) {
        let cut = self.0.state().close();
        for live in cut {
            match check_outside_permit() {
                Ok(()) => live.drain(),
                Err(_) => live.wake(),
            }
        }
    }
}

/// The moment at which a call began.
struct Begun {
    agent_time: Timestamp,
    closures: u64,
}

impl Inner {
    fn state(&self) -> Locked<'_> {
        // A ledger that panicked is poisoned by its store; the rest is whole between calls.
        Locked::new(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks something up.
    fn read<T>(
        &self,
        now: Now,
        read: impl FnMut(&mut Step<'_>) -> Result<T, LedgerFailure>,
    ) -> Result<T, Denial> {
        let mut state = self.state();
        let now = state.effective(now);
        state.transact(now, self.audit(), read)
    }

    /// Judges something, with what has run out settled first.
    fn decide<T>(&self, now: Now, judge: impl FnMut(&mut Step<'_>) -> Verdict<T>) -> Result<T, Denial> {
        let mut state = self.state();
        let now = state.effective(now);
        state.judge(now, self.audit(), judge)
    }

    /// The agent's time, and how often something was taken back until then.
    fn begin(&self, now: Now) -> Begun {
        let mut state = self.state();
        Begun { agent_time: state.effective(now), closures: state.closures() }
    }

    /// Asks the context without the lock, then takes the lock. If something was taken back since it
    /// began, the answer may be from before a session's end and is not used: another session may have
    /// the same id by now.
    fn settled(
        &self,
        begun: &Begun,
        ask: impl FnOnce(&dyn AgentContext) -> Result<(), Denial>,
    ) -> Result<Locked<'_>, Denial> {
        ask(self.context.as_ref())?;
        let state = self.state();
        if state.closures() == begun.closures { Ok(state) } else { Err(Denial::Interrupted) }
    }

    /// Whether this device may share this session now.
    fn check_sharing(
        context: &dyn AgentContext,
        device: &DevicePublicKey,
        session: &SessionId,
    ) -> Result<(), Denial> {
        if !context.is_enrolled(device) {
            return Err(Denial::DeviceNotEnrolled);
        }
        if !context.session_is_live(session) {
            return Err(Denial::SessionNotLive);
        }
        if context.may_share(device, session) { Ok(()) } else { Err(Denial::SharingForbidden) }
    }

    fn audit(&self) -> &dyn AuditSink {
        self.config.audit.as_ref()
    }
}

impl Gate {
    /// Opens a gate over a ledger. A ledger that holds another agent key's records is emptied: those
    /// sessions are gone. The agent's time begins no earlier than it was when the ledger was last
    /// written. Costs one durable write.
    ///
    /// Tell it of what has changed in the meantime: [`Gate::end_session`] for sessions that are gone,
    /// [`Gate::sync_devices`] for devices.
    ///
    /// # Errors
    /// [`LedgerFailure`]; nothing is admitted by a gate that does not open.
    pub fn open(
        config: GateConfig,
        ledger: impl Ledger + 'static,
        context: impl AgentContext + 'static,
        now: Now,
    ) -> Result<Self, LedgerFailure> {
        let state = State::open(Box::new(ledger), &config.agent, now, config.audit.as_ref())?;
        let inner = Arc::new(Inner { config, context: Box::new(context), state: Mutex::new(state) });
        Ok(Self { _opened: Arc::new(Opened(Arc::clone(&inner))), inner })
    }

    /// The agent's Noise key.
    #[must_use]
    pub fn agent(&self) -> &AgentPublicKey {
        &self.inner.config.agent
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
        registration: &[u8],
        now: Now,
    ) -> Result<(), Denial> {
        let inner = &self.inner;
        let fields: RegistrationFields =
            wire::from_desktop(registration).map_err(|_| Denial::RegistrationInvalid)?;
        let message = RegistrationFields::message(handshake_hash, self.agent(), device, &fields.issuer);
        if !fields.issuer.verify(&message, &fields.signature) {
            return Err(Denial::RegistrationInvalid);
        }
        let begun = inner.begin(now);
        let mut state = inner.settled(&begun, |context| match context.is_enrolled(device) {
            true => Ok(()),
            false => Err(Denial::DeviceNotEnrolled),
        })?;
        let now = state.effective(now);
        state.judge(now, inner.audit(), |step| step.register_issuer(&fields.issuer, device))
    }

    /// Takes an offer from the device that registered its issuer. Costs one Ed25519 verification and
    /// one durable write.
    ///
    /// # Errors
    /// [`Denial`] with what does not fit. After [`Denial::ClockSkew`] the desktop mints again with the
    /// agent's time.
    pub fn offer(&self, device: &DevicePublicKey, offer: &[u8], now: Now) -> Result<OfferReceipt, Denial> {
        let inner = &self.inner;
        if !inner.context.is_enrolled(device) {
            return Err(Denial::DeviceNotEnrolled);
        }
        let offer: OfferFields = wire::from_desktop(offer).map_err(Denial::OfferMalformed)?;
        check_lifetime(offer.ticket_lifetime, MIN_TICKET_LIFETIME, MAX_TICKET_LIFETIME)?;
        check_lifetime(offer.valid_for, MIN_CREDENTIAL_LIFETIME, MAX_CREDENTIAL_LIFETIME)?;
        let credential = UnboundCredential::parse(&offer.credential).map_err(Denial::OfferMalformed)?;
        let authority = credential.authority();
        let ticket = offer.ticket.id();
        let for_us = authority.agent == *self.agent()
            && inner.config.urls.contains(&authority.url)
            && authority.ticket == ticket;
        if !for_us {
            return Err(Denial::OfferMismatch);
        }
        let begun = inner.begin(now);
        let agent_time = begun.agent_time;
        inner.decide(now, |step| step.issuer_of(&offer.issuer, device))?;
        if authority.expires_at.distance(agent_time.plus(offer.valid_for)) > MAX_CLOCK_SKEW {
            return Err(Denial::ClockSkew { agent_time });
        }
        credential.verify(&offer.issuer).map_err(Denial::OfferMalformed)?;
        let record = TicketRecord {
            key: offer.ticket,
            credential: authority.credential,
            session: authority.session.clone(),
            // both are the ledger's to set
            epoch: 0,
            generation: 0,
            issuer: offer.issuer,
            device: *device,
            offered_at: agent_time,
            expires_at: agent_time.plus(offer.ticket_lifetime),
            credential_expires_at: authority.expires_at.min(agent_time.plus(offer.valid_for)),
            ops: authority.ops,
            label: offer.label.clone(),
            require_confirm: offer.require_confirm,
            state: TicketState::Open(offer.credential.clone()),
        };
        let expires_at = record.expires_at;
        let quotas = inner.config.quotas.limits();
        let mut state =
            inner.settled(&begun, |context| Inner::check_sharing(context, device, &authority.session))?;
        let now = state.effective(now);
        state.judge(now, inner.audit(), |step| step.offer(&ticket, record.clone(), &quotas))?;
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
        if !inner.context.is_enrolled(device) {
            return Err(Denial::DeviceNotEnrolled);
        }
        let record = inner.read(now, |step| step.ticket(ticket))?.ok_or(Denial::NothingToConfirm)?;
        let session_live = inner.context.session_is_live(&record.session);
        inner.decide(now, |step| step.confirm(device, ticket, holder, session_live))
    }

    /// Ends what has run out and removes what nobody asks for any more, a bounded number of records.
    /// Every call that decides something does a little of it; an idle agent may call this from a timer.
    ///
    /// # Errors
    /// [`Denial::Ledger`].
    pub fn settle(&self, now: Now) -> Result<(), Denial> {
        self.inner.decide(now, |_| Ok(Ok(())))
    }

    /// Whether an earlier failure to read or write has stopped the ledger. Every connection is cut then, and
    /// everything is refused until a new gate is opened over it.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.inner.state().is_poisoned()
    }
}

impl core::fmt::Debug for Gate {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Gate").field("config", &self.inner.config).finish_non_exhaustive()
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
