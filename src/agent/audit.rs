//! What happened, for the operator's log: one event for each transition, no secret in any.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clock::Timestamp;
use crate::id::{CredentialId, NodeId, SessionId, TicketId};
use crate::key::{AgentPublicKey, DevicePublicKey, HolderPublicKey, IssuerPublicKey};
use crate::label::Label;
use crate::op::OpSet;
use crate::pair::RevocationReason;

/// One thing that happened at the gate, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AuditRecord {
    /// The agent at which it happened.
    pub agent: AgentPublicKey,
    /// The gateway of that agent.
    pub node: NodeId,
    /// How often the node had opened its ledger by then: 1 for a new one.
    pub opening: u64,
    /// Counts up by one from 0 since it was opened. A gap, or an opening that begins with another
    /// number, means that the log has lost something.
    pub sequence: u64,
    /// The agent's time.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: AuditEvent,
}

impl AuditRecord {
    pub(crate) fn position(&self) -> AuditPosition {
        AuditPosition { opening: self.opening, sequence: self.sequence }
    }
}

/// A record's place among all records of one node. Later is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AuditPosition {
    pub(crate) opening: u64,
    pub(crate) sequence: u64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuditEvent {
    /// The gate was opened over its ledger.
    GateOpened {
        /// Whether the ledger held another agent key's records, which are gone now.
        discarded: bool,
    },
    /// The operator has set the agent's time, and every record is gone.
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
    /// An issuer key was revoked, with everything that it had signed.
    IssuerRevoked {
        /// The key.
        issuer: IssuerPublicKey,
    },
    /// A ticket was offered.
    TicketOffered {
        /// The ticket.
        ticket: TicketId,
        /// The credential that it will give.
        credential: CredentialId,
        /// The session.
        session: SessionId,
        /// Who offered it.
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
    /// A ticket ran out unused.
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
    /// A phone is there: its first transport frame was decrypted. Told at most once a minute for a
    /// credential, with what that connection may do, so that a phone cannot fill a log.
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
    /// A credential was renewed. It is narrowed already; where it was extended, the phone has the
    /// extension from its next attach on.
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
    /// A phone has used a renewed credential for the first time. The earlier one is retired.
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
    /// A credential ran out.
    CredentialExpired {
        /// The credential.
        credential: CredentialId,
        /// The session.
        session: SessionId,
    },
    /// A session's credentials and tickets were ended.
    SessionClosed {
        /// The session.
        session: SessionId,
        /// Why.
        why: RevocationReason,
    },
}

impl AuditEvent {
    /// The session that it is about; none for what is about a device or the gate itself.
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
/// The ledger keeps a record with the change that it tells of, until the sink has taken it and
/// something else is written. So nothing is lost between a change and its log, whenever the process
/// ends: what the sink may not have is told again when the ledger is next opened, first and under the
/// same numbers.
///
/// Called under the gate's lock after the change is durable: it may write a line to a file, as the
/// ledger does; it must not wait for a peer, and must not call the gate or hold a handle of it. One that
/// panics has not kept the record. For a function that keeps whatever it takes there is
/// [`GateConfig::with_audit_fn`](crate::agent::GateConfig::with_audit_fn).
pub trait AuditSink: Send + Sync {
    /// Takes one record.
    ///
    /// # Errors
    /// [`NotKept`] if the sink cannot keep it now. It is told again, before any later one, with what
    /// happens next and after a restart. Beyond [`Gate::MAX_AUDIT_WAITING`](crate::agent::Gate::MAX_AUDIT_WAITING)
    /// the oldest is given up, and its number is missing in the log.
    fn record(&self, record: &AuditRecord) -> Result<(), NotKept>;

    /// Whether the sink has this very record from an earlier process, so that none is told twice. Asked
    /// when a ledger is opened that a process was killed over, for the last few. A sink that does not know
    /// is told them again.
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

/// A function as a sink that keeps whatever it takes.
pub(super) struct KeepWith<F>(pub(super) F);

impl<F: Fn(AuditRecord) + Send + Sync> AuditSink for KeepWith<F> {
    fn record(&self, record: &AuditRecord) -> Result<(), NotKept> {
        (self.0)(record.clone());
        Ok(())
    }
}
