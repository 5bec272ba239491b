//! The agent's side: it takes offers, admits phones, holds them to what they were granted, and revokes.

pub(crate) mod audit;
mod config;
mod core;
pub(crate) mod decision;
pub(crate) mod denial;
pub(crate) mod gate;
pub(crate) mod guard;
mod health;
pub mod ledger;
pub(crate) mod nodes;
pub(crate) mod policy;
mod polled;
mod stats;
mod trace;

pub use crate::error::Misuse;
pub use audit::{AuditEvent, AuditRecord, AuditSink, NotKept};
pub use config::{AgentContext, GateConfig, Presence, Quotas};
pub use denial::{Denial, LedgerFailure, Quota};
pub use gate::{Admission, Gate, NotActivated, Peer, PeerAdmission, PendingChannel, PendingGuard};
pub use guard::{
    BridgeEnd, Guard, GuardedChannel, GuardedReceiver, GuardedSender, LongMessage, MessageSocket,
    PermitError, SessionInput, SessionOutput,
};
pub use health::{Health, HealthProblem};
pub use nodes::{LogRead, OtherNodes};
pub use policy::{Policy, RequestFacts, RuleError, RuleProblem};
pub use polled::PolledGate;
pub use stats::{Histogram, Stats};
