//! The closed vocabulary of caveats, and the scope of a set of them (`docs/PROTOCOL.md` section 5).

use core::fmt;

use crate::agent_url::AgentUrl;
use crate::clock::Timestamp;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{AgentPublicKey, HolderPublicKey};
use crate::op::OpSet;

/// One restriction. Each renders to exactly one Datalog check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caveat {
    /// Only at this agent, at this address.
    Agent {
        /// The agent's Noise key.
        key: AgentPublicKey,
        /// Its address.
        url: AgentUrl,
    },
    /// Only this session.
    Session(SessionId),
    /// Only these operations.
    Ops(OpSet),
    /// Only before this time.
    ExpiresAt(Timestamp),
    /// Only for the phone that redeemed this ticket.
    Ticket(TicketId),
    /// Only for the peer with this Noise key.
    Holder(HolderPublicKey),
    /// Only while the session is at this epoch.
    Epoch(u64),
}

impl Caveat {
    /// Returns a stable name for programs and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Agent { .. } => "agent",
            Self::Session(_) => "session",
            Self::Ops(_) => "ops",
            Self::ExpiresAt(_) => "expires_at",
            Self::Ticket(_) => "ticket",
            Self::Holder(_) => "holder",
            Self::Epoch(_) => "epoch",
        }
    }
}

impl fmt::Display for Caveat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent { key, url } => write!(f, "only at {url} with key {key}"),
            Self::Session(id) => write!(f, "only session {id}"),
            Self::Ops(ops) => write!(f, "only {ops}"),
            Self::ExpiresAt(time) => write!(f, "only before {time}"),
            Self::Ticket(id) => write!(f, "only for the phone that redeemed ticket {id}"),
            Self::Holder(key) => write!(f, "only for the phone with key {key}"),
            Self::Epoch(epoch) => write!(f, "only in epoch {epoch} of the session"),
        }
    }
}

/// One dimension of a scope: unrestricted, one value, or a contradiction.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Limit<T> {
    Any,
    Only(T),
    Nothing,
}

impl<T: Clone + PartialEq> Limit<T> {
    fn meet(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Any, limit) | (limit, Self::Any) => limit.clone(),
            (Self::Only(left), Self::Only(right)) if left == right => Self::Only(left.clone()),
            _ => Self::Nothing,
        }
    }

    fn admits(&self, value: impl FnOnce(&T) -> bool) -> bool {
        match self {
            Self::Any => true,
            Self::Only(only) => value(only),
            Self::Nothing => false,
        }
    }

    fn only(&self) -> Option<&T> {
        match self {
            Self::Only(value) => Some(value),
            Self::Any | Self::Nothing => None,
        }
    }
}

/// The intersection of a set of caveats.
///
/// Scopes form a lattice. [`Scope::meet`] is commutative, associative and idempotent, [`Scope::ANY`] is its
/// neutral element, and a meet is never wider than either side. Narrowing a credential meets its scope with
/// more caveats, so it can only allow less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    agent: Limit<(AgentPublicKey, AgentUrl)>,
    session: Limit<SessionId>,
    ops: OpSet,
    expires_at: Option<Timestamp>,
    ticket: Limit<TicketId>,
    holder: Limit<HolderPublicKey>,
    epoch: Limit<u64>,
}

impl Scope {
    /// The scope of no caveats.
    pub const ANY: Self = Self {
        agent: Limit::Any,
        session: Limit::Any,
        ops: OpSet::ALL,
        expires_at: None,
        ticket: Limit::Any,
        holder: Limit::Any,
        epoch: Limit::Any,
    };

    /// Returns the intersection of two scopes.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        Self {
            agent: self.agent.meet(&other.agent),
            session: self.session.meet(&other.session),
            ops: self.ops.intersection(other.ops),
            expires_at: match (self.expires_at, other.expires_at) {
                (Some(left), Some(right)) => Some(left.min(right)),
                (limit, None) | (None, limit) => limit,
            },
            ticket: self.ticket.meet(&other.ticket),
            holder: self.holder.meet(&other.holder),
            epoch: self.epoch.meet(&other.epoch),
        }
    }

    /// Whether `other` contains this scope.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.meet(other) == *self
    }

    /// Returns the operations.
    #[must_use]
    pub fn ops(&self) -> OpSet {
        self.ops
    }

    /// Returns the first moment outside the scope, if there is one.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// Returns the session, if exactly one is left.
    #[must_use]
    pub fn session(&self) -> Option<&SessionId> {
        self.session.only()
    }

    /// Returns the agent's key and address, if exactly one is left.
    #[must_use]
    pub fn agent(&self) -> Option<(&AgentPublicKey, &AgentUrl)> {
        self.agent.only().map(|(key, url)| (key, url))
    }

    /// Returns the phone's key, if exactly one is left.
    #[must_use]
    pub fn holder(&self) -> Option<&HolderPublicKey> {
        self.holder.only()
    }

    /// Returns the ticket, if exactly one is left.
    #[must_use]
    pub fn ticket(&self) -> Option<&TicketId> {
        self.ticket.only()
    }

    /// Whether the scope contains every operation of `request` in these circumstances.
    #[must_use]
    pub(crate) fn contains(&self, request: &Circumstances<'_>, ops: OpSet) -> bool {
        !ops.is_empty()
            && ops.is_subset_of(self.ops)
            && self.agent.admits(|(key, url)| key == request.agent && request.urls.contains(url))
            && self.session.admits(|id| id == request.session)
            && self.expires_at.is_none_or(|end| request.time < end)
            && self.ticket.admits(|id| {
                request.live.is_some_and(|live| live.ticket == *id && live.holder == *request.peer)
            })
            && self.holder.admits(|key| key == request.peer)
            && self.epoch.admits(|epoch| *epoch == request.epoch)
    }
}

impl<'a> FromIterator<&'a Caveat> for Scope {
    fn from_iter<I: IntoIterator<Item = &'a Caveat>>(caveats: I) -> Self {
        caveats.into_iter().fold(Self::ANY, |scope, caveat| scope.meet(&Self::from(caveat)))
    }
}

impl From<&Caveat> for Scope {
    fn from(caveat: &Caveat) -> Self {
        let any = Self::ANY;
        match caveat {
            Caveat::Agent { key, url } => Self { agent: Limit::Only((*key, url.clone())), ..any },
            Caveat::Session(id) => Self { session: Limit::Only(id.clone()), ..any },
            Caveat::Ops(ops) => Self { ops: *ops, ..any },
            Caveat::ExpiresAt(time) => Self { expires_at: Some(*time), ..any },
            Caveat::Ticket(id) => Self { ticket: Limit::Only(*id), ..any },
            Caveat::Holder(key) => Self { holder: Limit::Only(*key), ..any },
            Caveat::Epoch(epoch) => Self { epoch: Limit::Only(*epoch), ..any },
        }
    }
}

/// The facts of a request that the agent knows itself; none is a claim of the peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances<'a> {
    /// The agent's Noise key.
    pub agent: &'a AgentPublicKey,
    /// The addresses of the agent.
    pub urls: &'a [AgentUrl],
    /// The session concerned.
    pub session: &'a SessionId,
    /// The session's current epoch.
    pub epoch: u64,
    /// The peer's Noise static key.
    pub peer: &'a HolderPublicKey,
    /// The agent's time.
    pub time: Timestamp,
    /// The live record of the credential, if there is one.
    pub live: Option<LiveRecord>,
}

/// The ledger's record of a live credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LiveRecord {
    pub credential: CredentialId,
    pub ticket: TicketId,
    pub holder: HolderPublicKey,
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::{AgentSecretKey, HolderSecretKey};
    use crate::op::Op;

    /// Caveats over small domains, so that equal values meet often.
    pub(crate) fn any_caveat() -> impl Strategy<Value = Caveat> {
        let seed = 1..4_u8;
        prop_oneof![
            (seed.clone(), seed.clone()).prop_map(|(key, url)| Caveat::Agent {
                key: AgentSecretKey::from_bytes([key; 32]).public(),
                url: AgentUrl::parse(&format!("wss://agent{url}.example")).unwrap(),
            }),
            seed.clone().prop_map(|id| Caveat::Session(SessionId::new(format!("s{id}")).unwrap())),
            (1..=0xff_u64).prop_map(|bits| Caveat::Ops(OpSet::from_bits(bits).unwrap())),
            (0..100_u64).prop_map(|time| Caveat::ExpiresAt(Timestamp::EPOCH.plus(time))),
            seed.clone().prop_map(|id| Caveat::Ticket(TicketId::from_bytes([id; 16]))),
            seed.clone().prop_map(|key| Caveat::Holder(HolderSecretKey::from_bytes([key; 32]).public())),
            (0..4_u64).prop_map(Caveat::Epoch),
        ]
    }

    fn any_scope() -> impl Strategy<Value = Scope> {
        proptest::collection::vec(any_caveat(), 0..4).prop_map(|caveats| caveats.iter().collect())
    }

    proptest! {
        #[test]
        fn meet_is_commutative(left in any_scope(), right in any_scope()) {
            prop_assert_eq!(left.meet(&right), right.meet(&left));
        }

        #[test]
        fn meet_is_associative(a in any_scope(), b in any_scope(), c in any_scope()) {
            prop_assert_eq!(a.meet(&b).meet(&c), a.meet(&b.meet(&c)));
        }

        #[test]
        fn meet_is_idempotent_with_a_neutral_element(scope in any_scope()) {
            prop_assert_eq!(scope.meet(&scope), scope.clone());
            prop_assert_eq!(scope.meet(&Scope::ANY), scope);
        }

        #[test]
        fn a_meet_is_within_both_sides(left in any_scope(), right in any_scope()) {
            let meet = left.meet(&right);
            prop_assert!(meet.is_within(&left) && meet.is_within(&right));
        }

        #[test]
        fn within_means_that_nothing_more_is_contained(
            left in any_scope(), right in any_scope(), op in 0..8_usize, time in 0..100_u64, epoch in 0..4_u64, seeds in (1..4_u8, 1..4_u8, 1..4_u8)
        ) {
            let agent = AgentSecretKey::from_bytes([seeds.0; 32]).public();
            // One address: a credential has one agent caveat, so two of them never meet at an agent with both.
            let urls = [AgentUrl::parse("wss://agent1.example").unwrap()];
            let session = SessionId::new(format!("s{}", seeds.1)).unwrap();
            let peer = HolderSecretKey::from_bytes([seeds.2; 32]).public();
            let circumstances = Circumstances {
                agent: &agent, urls: &urls, session: &session, epoch, peer: &peer,
                time: Timestamp::EPOCH.plus(time), live: Some(LiveRecord { credential: CredentialId::from_bytes([0; 16]), ticket: TicketId::from_bytes([seeds.1; 16]), holder: peer }),
            };
            let ops = OpSet::only(Op::ALL[op]);
            let meet = left.meet(&right);
            prop_assert_eq!(
                meet.contains(&circumstances, ops),
                left.contains(&circumstances, ops) && right.contains(&circumstances, ops)
            );
        }
    }

    #[test]
    fn asking_for_nothing_is_never_inside() {
        let agent = AgentSecretKey::from_bytes([1; 32]).public();
        let peer = HolderSecretKey::from_bytes([1; 32]).public();
        let session = SessionId::new("s").unwrap();
        let circumstances = Circumstances {
            agent: &agent,
            urls: &[],
            session: &session,
            epoch: 0,
            peer: &peer,
            time: Timestamp::EPOCH,
            live: None,
        };
        assert!(!Scope::ANY.contains(&circumstances, OpSet::EMPTY));
        assert!(Scope::ANY.contains(&circumstances, OpSet::ALL));
    }
}
