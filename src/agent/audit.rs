//! Audit records for the operator's log: one event for each transition, without secrets.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clock::Timestamp;
use crate::id::{CredentialId, NodeId, SessionId, TicketId};
use crate::key::{AgentPublicKey, DevicePublicKey, HolderPublicKey, IssuerPublicKey};
use crate::label::Label;
use crate::op::OpSet;
use crate::pair::RevocationReason;

/// An event at the gate, and when it happened. `docs/audit.schema.json` is the schema of its JSON form, which also
/// reads back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AuditRecord {
    /// The agent at which it happened.
    pub agent: AgentPublicKey,
    /// The gateway of that agent.
    pub node: NodeId,
    /// How often the node had opened its ledger when the event happened: 1 for a new one.
    pub opening: u64,
    /// Counts the records of this opening from 0. A gap, or an opening whose first number is not 0, means
    /// that the log has lost records.
    pub sequence: u64,
    /// The agent's time.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: AuditEvent,
}

impl AuditRecord {
    /// Returns what distinguishes this record from every other one of every agent and node: two with the same four
    /// values are one record, which was delivered twice, as a shipper of several nodes' logs may.
    #[must_use]
    pub fn identity(&self) -> (AgentPublicKey, NodeId, u64, u64) {
        (self.agent, self.node, self.opening, self.sequence)
    }

    pub(crate) fn position(&self) -> AuditPosition {
        AuditPosition { opening: self.opening, sequence: self.sequence }
    }
}

/// The place of a record among all records of one node, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AuditPosition {
    pub(crate) opening: u64,
    pub(crate) sequence: u64,
}

/// An event at the gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuditEvent {
    /// The gate was opened over its ledger.
    GateOpened {
        /// Whether the ledger held another agent key's records, which were discarded.
        discarded: bool,
    },
    /// The operator set the agent's time, which removed every record.
    ClockReset {
        /// The agent's time before.
        from: Timestamp,
    },
    /// A device registered an issuer key.
    IssuerRegistered {
        /// The key.
        issuer: IssuerPublicKey,
        /// The device.
        device: DevicePublicKey,
    },
    /// An issuer key was revoked, with everything that it signed.
    IssuerRevoked {
        /// The key.
        issuer: IssuerPublicKey,
    },
    /// A ticket was offered.
    TicketOffered {
        /// The ticket.
        ticket: TicketId,
        /// The credential that its redemption gives.
        credential: CredentialId,
        /// The session.
        session: SessionId,
        /// The device that offered it.
        device: DevicePublicKey,
        /// What it allows.
        ops: OpSet,
        /// The desktop's name for it.
        label: Label,
        /// When the ticket ends.
        expires_at: Timestamp,
    },
    /// A phone redeemed a ticket.
    TicketRedeemed {
        /// The ticket.
        ticket: TicketId,
        /// The credential.
        credential: CredentialId,
        /// The session.
        session: SessionId,
        /// The phone.
        holder: HolderPublicKey,
        /// The phone's name for itself.
        label: Label,
        /// Whether the desktop has to confirm.
        pending: bool,
    },
    /// A second phone redeemed the same ticket within its lifetime.
    TicketContested {
        /// The ticket.
        ticket: TicketId,
        /// The credential, now revoked.
        credential: CredentialId,
        /// The session.
        session: SessionId,
        /// The first phone.
        holder: HolderPublicKey,
        /// The second phone.
        contender: HolderPublicKey,
    },
    /// A ticket was revoked before anyone redeemed it.
    TicketRevoked {
        /// The ticket.
        ticket: TicketId,
        /// The session.
        session: SessionId,
        /// Why.
        why: RevocationReason,
    },
    /// A ticket expired without being redeemed.
    TicketExpired {
        /// The ticket.
        ticket: TicketId,
        /// The session.
        session: SessionId,
    },
    /// The desktop confirmed a phone.
    CredentialConfirmed {
        /// The credential.
        credential: CredentialId,
        /// The session.
        session: SessionId,
        /// The phone.
        holder: HolderPublicKey,
    },
    /// A phone attached: its first transport frame was decrypted. Recorded at most once a minute for a
    /// credential, so that a phone cannot fill the log.
    PhoneAttached {
        /// The credential.
        credential: CredentialId,
        /// The session.
        session: SessionId,
        /// The phone.
        holder: HolderPublicKey,
        /// What this connection may do.
        ops: OpSet,
    },
    /// A credential was renewed. Removed operations and time are gone already; added ones reach the phone at
    /// its next attach.
    CredentialRenewed {
        /// The credential.
        credential: CredentialId,
        /// The session.
        session: SessionId,
        /// What it allows by the new terms.
        ops: OpSet,
        /// When it ends by the new terms.
        expires_at: Timestamp,
        /// Whether a renewed credential waits for the phone.
        waiting: bool,
    },
    /// A phone used a renewed credential for the first time. The earlier one is retired.
    RenewalUsed {
        /// The credential.
        credential: CredentialId,
        /// The session.
        session: SessionId,
        /// The phone.
        holder: HolderPublicKey,
    },
    /// A credential was revoked.
    CredentialRevoked {
        /// The credential.
        credential: CredentialId,
        /// The session.
        session: SessionId,
        /// Why.
        why: RevocationReason,
    },
    /// A credential expired.
    CredentialExpired {
        /// The credential.
        credential: CredentialId,
        /// The session.
        session: SessionId,
    },
    /// A session's credentials and tickets were revoked.
    SessionClosed {
        /// The session.
        session: SessionId,
        /// Why.
        why: RevocationReason,
    },
}

impl AuditEvent {
    /// Returns the session that the event is about, or `None` if it is about a device or the gate itself.
    #[must_use]
    pub fn session(&self) -> Option<&SessionId> {
        match self {
            Self::GateOpened { .. }
            | Self::ClockReset { .. }
            | Self::IssuerRegistered { .. }
            | Self::IssuerRevoked { .. } => None,
            Self::TicketOffered { session, .. }
            | Self::TicketRedeemed { session, .. }
            | Self::TicketContested { session, .. }
            | Self::TicketRevoked { session, .. }
            | Self::TicketExpired { session, .. }
            | Self::CredentialConfirmed { session, .. }
            | Self::CredentialRenewed { session, .. }
            | Self::RenewalUsed { session, .. }
            | Self::PhoneAttached { session, .. }
            | Self::CredentialRevoked { session, .. }
            | Self::CredentialExpired { session, .. }
            | Self::SessionClosed { session, .. } => Some(session),
        }
    }
}

/// Takes audit records in order, each once.
///
/// The ledger stores each record in the same transaction as its change, and removes it with a later write
/// once the sink has taken it. A crash therefore loses no record: when the ledger is next opened, the sink
/// first gets the records that it may not have, with the same numbers.
///
/// The gate calls the sink under a lock, after the change is durable. The sink may write a line to a file, as
/// the ledger does. It must not wait for a peer, call the gate, or hold a handle of it. If it panics, the
/// record counts as not kept. For a function that keeps every record there is
/// [`GateConfig::with_audit_fn`](crate::agent::GateConfig::with_audit_fn).
pub trait AuditSink: Send + Sync {
    /// Takes one record.
    ///
    /// # Errors
    /// [`NotKept`] if the sink cannot keep the record now. The gate offers it again, before any later record,
    /// at the next event and after a restart. Beyond
    /// [`Gate::MAX_AUDIT_WAITING`](crate::agent::Gate::MAX_AUDIT_WAITING), the oldest record is dropped, and
    /// its number is missing in the log.
    fn record(&self, record: &AuditRecord) -> Result<(), NotKept>;

    /// Returns whether the sink has this record from an earlier process. Called for the last few records when
    /// a ledger is opened after an unclean shutdown. A sink that returns `false` gets the record again.
    fn has(&self, record: &AuditRecord) -> bool {
        let _ = record;
        false
    }
}

/// The sink could not keep a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the audit record could not be kept")]
pub struct NotKept;

impl<T: AuditSink + ?Sized> AuditSink for Arc<T> {
    fn record(&self, record: &AuditRecord) -> Result<(), NotKept> {
        (**self).record(record)
    }

    fn has(&self, record: &AuditRecord) -> bool {
        (**self).has(record)
    }
}

impl<T: AuditSink + ?Sized> AuditSink for Box<T> {
    fn record(&self, record: &AuditRecord) -> Result<(), NotKept> {
        (**self).record(record)
    }

    fn has(&self, record: &AuditRecord) -> bool {
        (**self).has(record)
    }
}

/// A sink that passes each record to a function and keeps it.
pub(super) struct KeepWith<F>(pub(super) F);

impl<F: Fn(AuditRecord) + Send + Sync> AuditSink for KeepWith<F> {
    fn record(&self, record: &AuditRecord) -> Result<(), NotKept> {
        (self.0)(record.clone());
        Ok(())
    }
}
