//! The configuration of a gate: addresses, quotas, policy, audit sink, and the agent's context.

use std::sync::Arc;

use crate::agent::audit::{AuditRecord, AuditSink, KeepWith};
use crate::agent::ledger::Ledger;
use crate::agent::ledger::transition::QuotaLimits;
use crate::agent::nodes::{Following, LogRead, OtherNodes};
use crate::agent::policy::Policy;
use crate::agent::stats::Timer;
use crate::agent_url::AgentUrl;
use crate::error::Misuse;
use crate::id::{NodeId, SessionId};
use crate::key::{AgentPublicKey, DevicePublicKey};
use crate::limits::{
    DEFAULT_CONNECTIONS_PER_CREDENTIAL, DEFAULT_CREDENTIALS_PER_AGENT, DEFAULT_CREDENTIALS_PER_SESSION,
    DEFAULT_MESSAGE_ROOM, DEFAULT_TICKETS_PER_AGENT, DEFAULT_TICKETS_PER_SESSION,
};

/// What the agent knows about a session or a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It exists: the session runs, the device is enrolled.
    Present,
    /// It is gone permanently: the session has ended, the device is no longer enrolled. The gate records
    /// that: it ends the session as [`Gate::end_session`](crate::agent::Gate::end_session) does, or revokes the
    /// issuer that shared the session.
    Gone,
    /// The agent cannot tell now, for example because a service that it asks does not respond. The gate
    /// admits nothing for it and ends nothing. After 30 seconds its streams pause until the answer is another.
    Unknown,
}

impl From<bool> for Presence {
    /// Converts the answer of an agent that always knows.
    fn from(present: bool) -> Self {
        if present { Self::Present } else { Self::Gone }
    }
}

/// Answers the gate's questions about the agent's sessions and devices. The gate holds no lock during a call;
/// a slow answer delays only the call that needs it.
pub trait AgentContext: Send + Sync {
    /// Returns whether the device is enrolled now.
    fn device(&self, device: &DevicePublicKey) -> Presence;

    /// Returns whether the session is running now.
    fn session(&self, session: &SessionId) -> Presence;

    /// Returns whether this enrolled device may share this running session. Asked at an offer and at a renewal
    /// only: to end a pairing, revoke it.
    fn may_share(&self, device: &DevicePublicKey, session: &SessionId) -> bool;
}

impl<T: AgentContext + ?Sized> AgentContext for Arc<T> {
    fn device(&self, device: &DevicePublicKey) -> Presence {
        (**self).device(device)
    }

    fn session(&self, session: &SessionId) -> Presence {
        (**self).session(session)
    }

    fn may_share(&self, device: &DevicePublicKey, session: &SessionId) -> bool {
        (**self).may_share(device, session)
    }
}

/// How many tickets, credentials and connections may exist at a time. If a quota is full, an offer is
/// refused; nothing live is removed to make room.
///
/// ```
/// use sessioncap::agent::Quotas;
///
/// let quotas = Quotas::default().with_tickets_per_session(1).with_credentials_per_agent(64);
/// assert_eq!((quotas.tickets_per_session, quotas.credentials_per_agent), (1, 64));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quotas {
    /// Open tickets for one session.
    pub tickets_per_session: u32,
    /// Live credentials for one session, open tickets included.
    pub credentials_per_session: u32,
    /// Open tickets at the agent.
    pub tickets_per_agent: u32,
    /// Live credentials at the agent, open tickets included.
    pub credentials_per_agent: u32,
    /// Open tickets of one device. The default is a quarter of those at the agent, rounded up, but at least
    /// as many as for one session.
    pub tickets_per_device: Option<u32>,
    /// Live credentials of one device, open tickets included. The default is computed as for tickets.
    pub credentials_per_device: Option<u32>,
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
            tickets_per_device: None,
            credentials_per_device: None,
            connections_per_credential: DEFAULT_CONNECTIONS_PER_CREDENTIAL,
        }
    }
}

impl Quotas {
    /// Sets the most open tickets for one session.
    #[must_use]
    pub const fn with_tickets_per_session(mut self, most: u32) -> Self {
        self.tickets_per_session = most;
        self
    }

    /// Sets the most live credentials for one session, open tickets included.
    #[must_use]
    pub const fn with_credentials_per_session(mut self, most: u32) -> Self {
        self.credentials_per_session = most;
        self
    }

    /// Sets the most open tickets at the agent.
    #[must_use]
    pub const fn with_tickets_per_agent(mut self, most: u32) -> Self {
        self.tickets_per_agent = most;
        self
    }

    /// Sets the most live credentials at the agent, open tickets included.
    #[must_use]
    pub const fn with_credentials_per_agent(mut self, most: u32) -> Self {
        self.credentials_per_agent = most;
        self
    }

    /// Sets the most open tickets of one device.
    #[must_use]
    pub const fn with_tickets_per_device(mut self, most: u32) -> Self {
        self.tickets_per_device = Some(most);
        self
    }

    /// Sets the most live credentials of one device, open tickets included.
    #[must_use]
    pub const fn with_credentials_per_device(mut self, most: u32) -> Self {
        self.credentials_per_device = Some(most);
        self
    }

    /// Sets the most connections of one credential.
    #[must_use]
    pub const fn with_connections_per_credential(mut self, most: u32) -> Self {
        self.connections_per_credential = most;
        self
    }

    pub(super) fn limits(&self) -> QuotaLimits {
        let share = |of_agent: u32, of_session: u32| of_agent.div_ceil(4).max(of_session);
        let tickets = share(self.tickets_per_agent, self.tickets_per_session);
        let credentials = share(self.credentials_per_agent, self.credentials_per_session);
        QuotaLimits {
            tickets_per_device: self.tickets_per_device.unwrap_or(tickets),
            credentials_per_device: self.credentials_per_device.unwrap_or(credentials),
            tickets_per_session: self.tickets_per_session,
            credentials_per_session: self.credentials_per_session,
            tickets_per_agent: self.tickets_per_agent,
            credentials_per_agent: self.credentials_per_agent,
        }
    }
}

/// The configuration of a gate.
pub struct GateConfig {
    pub(super) agent: AgentPublicKey,
    pub(super) node: NodeId,
    pub(super) urls: Vec<AgentUrl>,
    pub(super) policy: Policy,
    pub(super) quotas: Quotas,
    pub(super) audit: Box<dyn AuditSink>,
    pub(super) message_room: u32,
    pub(super) timer: Option<Timer>,
    pub(super) following: Option<Following>,
    pub(super) copy: Option<Arc<dyn Ledger>>,
}

impl GateConfig {
    /// Most bytes of unfinished messages that the agent holds if [`GateConfig::with_message_room`] is not called.
    pub const DEFAULT_MESSAGE_ROOM: u32 = DEFAULT_MESSAGE_ROOM;

    /// Configures a gate for the agent with this Noise key, reached at these addresses.
    ///
    /// # Errors
    /// [`Misuse::NoAgentUrl`] if `urls` is empty.
    pub fn new(agent: AgentPublicKey, urls: impl Into<Vec<AgentUrl>>) -> Result<Self, Misuse> {
        let urls = urls.into();
        if urls.is_empty() {
            return Err(Misuse::NoAgentUrl);
        }
        let policy = Policy::new();
        let node = NodeId::default();
        Ok(Self {
            agent,
            node,
            urls,
            policy,
            quotas: Quotas::default(),
            audit: Box::new(KeepWith(|_| {})),
            message_room: Self::DEFAULT_MESSAGE_ROOM,
            timer: None,
            following: None,
            copy: None,
        })
    }

    /// Replaces the policy, for an operator's own rules.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Replaces the quotas.
    #[must_use]
    pub fn with_quotas(mut self, quotas: Quotas) -> Self {
        self.quotas = quotas;
        self
    }

    /// Sets the node number, if several gateways of the agent share a ledger.
    #[must_use]
    pub fn with_node(mut self, node: NodeId) -> Self {
        self.node = node;
        self
    }

    /// Makes the gate follow the log of a ledger that other nodes write (`docs/FLEET.md`). Permits are then
    /// granted only within `limit` of a read of the log up to its end, which [`Gate::caught_up`] reports; `read` is
    /// the first. `nodes` waits, at the end of each revoking call, until the other nodes have stopped as well.
    /// Without this, the gate takes itself for the only writer.
    ///
    /// A node's wall clock counts up to 30 seconds ahead of the store's clock.
    ///
    /// [`Gate::caught_up`]: crate::agent::Gate::caught_up
    #[must_use]
    pub fn with_other_nodes(
        mut self,
        limit: core::time::Duration,
        read: LogRead,
        nodes: impl OtherNodes + 'static,
    ) -> Self {
        self.following = Some(Following::new(limit, read, Box::new(nodes)));
        self
    }

    /// Has an attach read this copy of the ledger first, which may be as old as the last read of the log. It decides
    /// nothing: what it refuses is asked of the ledger, and activation asks the ledger in any case before there is a
    /// guard. For a ledger that is far away; its `transact` is not called.
    #[must_use]
    pub fn with_copy(mut self, copy: impl Ledger + 'static) -> Self {
        self.copy = Some(Arc::new(copy));
        self
    }

    /// Sets how many bytes of unfinished messages the guarded channels of all phones may hold together. A message
    /// that finds no room is refused whole ([`Denial::NoRoomForMessage`](crate::agent::Denial::NoRoomForMessage)).
    /// With 0, each message must fit one frame.
    #[must_use]
    pub fn with_message_room(mut self, bytes: u32) -> Self {
        self.message_room = bytes;
        self
    }

    /// Sets the sink for audit records. Without one, they are dropped.
    #[must_use]
    pub fn with_audit(mut self, audit: impl AuditSink + 'static) -> Self {
        self.audit = Box::new(audit);
        self
    }

    /// Sets a function that takes audit records and keeps every one.
    #[must_use]
    pub fn with_audit_fn(self, keep: impl Fn(AuditRecord) + Send + Sync + 'static) -> Self {
        self.with_audit(KeepWith(keep))
    }

    /// Sets a timer, for the times in [`Stats`](crate::agent::Stats): it returns the time since a moment of its
    /// own choice, such as `move || start.elapsed()`. Without one the gate measures no time, because it reads
    /// no clock. No decision depends on it.
    ///
    /// It is called twice for each admission, revocation, settling and transaction, for the last under the
    /// ledger's lock: it must neither block nor call the gate. A panic in it is caught, and that time is not
    /// counted.
    #[must_use]
    pub fn with_timer(mut self, timer: impl Fn() -> core::time::Duration + Send + Sync + 'static) -> Self {
        self.timer = Some(Box::new(timer));
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
