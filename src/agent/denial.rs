//! Why the agent refuses: a reason for the operator, and what the peer may be told.
//!
//! What a peer is told is made of [`Denial::status`] and of nothing else, and a [`Status`] can only be a
//! refusal. Every variant is named there: one that is added does not compile before somebody has decided who
//! may hear of it.

use thiserror::Error;

use crate::clock::Timestamp;
use crate::credential::caveat::Caveat;
use crate::error::{CredentialProblem, Error, Misuse};
use crate::op::{Op, Privilege};
use crate::protocol::frame::{EndCode, Notice};
use crate::status::Status;

/// A refusal with its reason.
///
/// `Display` is a sentence for the operator's log, [`Denial::code`] a stable name for programs, and
/// [`Denial::status`] what the peer may be told. None of them holds a secret. What the operating system said
/// when a ledger failed is in [`Gate::ledger_error`](crate::agent::Gate::ledger_error).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Denial {
    /// The payload has this protocol's magic and is otherwise not one.
    #[error("the payload is malformed; the phone's app may be of another version")]
    PayloadMalformed,
    /// No ticket has this id.
    #[error("no such ticket")]
    TicketUnknown,
    /// The signature is not by the ticket's key over this agent and this peer.
    #[error("the proof of the ticket does not verify for this peer")]
    TicketProofInvalid,
    /// No credential has this id.
    #[error("no such credential")]
    CredentialUnknown,
    /// The bytes are not a credential.
    #[error("not a credential: {0}")]
    CredentialMalformed(CredentialProblem),
    /// The signatures are not by the issuer on record, or the binding is not the agent's.
    #[error("the credential's signatures do not verify")]
    CredentialSignatureInvalid,
    /// The credential is bound to another key.
    #[error("the credential belongs to another phone")]
    HolderMismatch,

    /// The ticket was not redeemed in time.
    #[error("the ticket has expired")]
    TicketExpired,
    /// Another phone holds the ticket, and its lifetime is over.
    #[error("another phone has redeemed this ticket")]
    TicketClaimed,
    /// A second phone showed the ticket within its lifetime: both are out.
    #[error("two phones redeemed the same ticket; both are cut off")]
    TicketContested,
    /// The ticket was revoked.
    #[error("the ticket was revoked")]
    TicketRevoked,
    /// The desktop has not confirmed the phone yet.
    #[error("the desktop has not confirmed this phone yet")]
    ConfirmationPending,
    /// The credential has ended.
    #[error("the credential has expired")]
    CredentialExpired,
    /// The credential was revoked.
    #[error("the credential was revoked")]
    CredentialRevoked,
    /// A renewed credential has taken its place.
    #[error("a renewed credential has taken this one's place")]
    CredentialRetired,
    /// The session has ended.
    #[error("the session has ended")]
    SessionGone,
    /// A caveat forbids it.
    #[error("block {block} of the credential allows {caveat}")]
    CaveatFailed {
        /// The block that holds the caveat: 0 the desktop's, 1 the agent's, then the holder's.
        block: usize,
        /// The caveat.
        caveat: Box<Caveat>,
    },
    /// The operation was not granted to this connection.
    #[error("`{op}` was not granted to this connection")]
    OperationNotGranted {
        /// The operation.
        op: Op,
    },
    /// The request names another session than the connection's.
    #[error("the credential is for another session")]
    OtherSession,
    /// No credential can ever allow it.
    #[error("`{privilege}` is never allowed by a credential")]
    PrivilegeDenied {
        /// The privilege.
        privilege: Privilege,
    },
    /// The policy knows no such operation.
    #[error("the policy denies everything outside the session vocabulary")]
    OutsideVocabulary,
    /// The policy found no live record for this credential and peer.
    #[error("no live record stands behind the credential")]
    NoLiveRecord,
    /// The agent's operator forbids it.
    #[error("operator rule {rule} forbids it")]
    OperatorRule {
        /// The rule, counted from 1 in the order of the text, as in `RuleError`.
        rule: usize,
    },
    /// The credential's connections are used up.
    #[error("the credential has its {max} connections already")]
    TooManyConnections {
        /// The most connections.
        max: u32,
    },
    /// The first transport frame came too late.
    #[error("the peer did not send a transport frame in time")]
    ActivationTimeout,
    /// The same first message, while an admission by it waits for its first frame.
    #[error("this first message was admitted already and waits for its first frame")]
    Repeated,
    /// More admissions of this credential wait for their first frame than may; this one was the oldest.
    #[error("newer admissions of the same credential have taken this one's place")]
    Displaced,
    /// A newer connection of the same phone has taken this one's place: it had missed a ping.
    #[error("the phone did not answer a ping, and a newer connection of it has taken this one's place")]
    Replaced,
    /// The agent cannot tell whether the session, or the device that shared it, is still there.
    #[error("the agent cannot tell whether session and device are still there; try again")]
    ContextUnknown,
    /// The gate was not settled for some seconds, or its ledger has failed. Not final: try the frame again
    /// after the next settling.
    #[error("the gate's view is stale; keep the frame and ask again after the next settling")]
    Stale,

    /// The frame does not decrypt, or is not of the protocol.
    #[error("the frame could not be read; close the connection")]
    FrameUnreadable,
    /// More data than one frame holds.
    #[error("a frame holds at most {max} bytes of data; split it")]
    FrameTooLong {
        /// The most bytes.
        max: usize,
    },
    /// A data frame still waits to be received.
    #[error("a frame still waits; receive or discard it first")]
    FrameWaiting,

    /// The device is not in the agent's trust set.
    #[error("the device is not enrolled")]
    DeviceNotEnrolled,
    /// The issuer key was registered, or the ticket offered, by another device.
    #[error("another device registered this issuer or offered this ticket")]
    IssuerOfAnotherDevice,
    /// The issuer key is not registered.
    #[error("the issuer is not registered")]
    IssuerUnknown,
    /// The issuer key was revoked.
    #[error("the issuer was revoked")]
    IssuerRevoked,
    /// The registration is not signed for this channel.
    #[error("the registration does not verify for this channel")]
    RegistrationInvalid,
    /// The offer or renewal cannot be read.
    #[error("the offer or renewal is malformed: {0}")]
    OfferMalformed(Error),
    /// The offered credential is for something else than the offer says, or for another agent.
    #[error("the offered credential does not match the offer or this agent")]
    OfferMismatch,
    /// The offered ticket or credential exists already.
    #[error("this ticket or credential was offered before")]
    OfferRepeated,
    /// The session is not running.
    #[error("the session is not running")]
    SessionNotLive,
    /// The device may not share this session.
    #[error("this device may not share the session")]
    SharingForbidden,
    /// The credential's end does not fit the agent's clock; mint again with the agent's time.
    #[error("the desktop's clock is off; it is {agent_time} here")]
    ClockSkew {
        /// The agent's time.
        agent_time: Timestamp,
    },
    /// A lifetime out of bounds.
    #[error("the lifetime must be {min} to {max} seconds")]
    LifetimeOutOfBounds {
        /// The shortest, seconds.
        min: u64,
        /// The longest, seconds.
        max: u64,
    },
    /// A quota is full. Nothing live is ever pushed out to make room.
    #[error("the quota of {max} {quota} is used up; {}", .quota.advice())]
    QuotaReached {
        /// Which quota.
        quota: Quota,
        /// Its size.
        max: u32,
    },
    /// Something was revoked, or a session ended, while this was being judged. Try again.
    #[error("something was taken back meanwhile; try again")]
    Interrupted,
    /// A renewal names another agent, session, ticket or issuer than the credential's, or holds the
    /// wrong kind of credential.
    #[error("the renewal does not match the credential that it names")]
    RenewalMismatch,
    /// The credential was extended as often as it can be before its phone attaches.
    #[error("the phone has not used any of its last {max} renewed credentials; extend once it has")]
    RenewalsUnused {
        /// The most that may wait.
        max: usize,
    },
    /// Nothing is waiting to be confirmed for this ticket and phone.
    #[error("nothing waits for confirmation here")]
    NothingToConfirm,

    /// A limit of the policy engine was hit.
    #[error("the policy engine hit its limit")]
    PolicyLimit,
    /// The policy engine failed.
    #[error("the policy engine failed")]
    PolicyFailed,
    /// The agent could not build or read its own message: a defect, to be reported.
    #[error("the agent could not handle its own message; please report this")]
    Internal,
    /// The policy and the native scope disagree: a defect, to be reported.
    #[error("the policy and the native scope disagree; please report this")]
    PolicyDisagreement,
    /// The ledger could not be read or written.
    #[error("the ledger is unavailable: {0}")]
    Ledger(LedgerFailure),
    /// A call in the wrong place.
    #[error("misuse: {0}")]
    ApiMisuse(Misuse),
}

/// Which quota is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Quota {
    /// Open tickets for the session.
    #[error("open tickets for this session")]
    TicketsPerSession,
    /// Live credentials for the session, open tickets included.
    #[error("credentials for this session")]
    CredentialsPerSession,
    /// Open tickets at the agent.
    #[error("open tickets")]
    TicketsPerAgent,
    /// Live credentials at the agent, open tickets included.
    #[error("credentials")]
    CredentialsPerAgent,
    /// Tickets on record at the agent, whatever became of them. They are forgotten within minutes.
    #[error("tickets within the last minutes")]
    TicketsKept,
    /// Open tickets of the device: its share of those at the agent.
    #[error("open tickets of this device")]
    TicketsPerDevice,
    /// Live credentials of the device, open tickets included: its share of those at the agent.
    #[error("credentials of this device")]
    CredentialsPerDevice,
    /// Tickets on record of the device, whatever became of them. They are forgotten within minutes.
    #[error("tickets of this device within the last minutes")]
    TicketsKeptPerDevice,
    /// Issuer keys of the device.
    #[error("issuer keys for this device")]
    IssuersPerDevice,
}

impl Quota {
    /// A stable name for programs and logs.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::TicketsPerSession => "tickets_per_session",
            Self::CredentialsPerSession => "credentials_per_session",
            Self::TicketsPerAgent => "tickets_per_agent",
            Self::CredentialsPerAgent => "credentials_per_agent",
            Self::TicketsKept => "tickets_kept",
            Self::TicketsPerDevice => "tickets_per_device",
            Self::CredentialsPerDevice => "credentials_per_device",
            Self::TicketsKeptPerDevice => "tickets_kept_per_device",
            Self::IssuersPerDevice => "issuers_per_device",
        }
    }

    /// What makes room.
    fn advice(self) -> &'static str {
        match self {
            Self::TicketsKept | Self::TicketsKeptPerDevice => "wait a few minutes",
            Self::IssuersPerDevice => "revoke an issuer",
            Self::TicketsPerSession
            | Self::CredentialsPerSession
            | Self::TicketsPerAgent
            | Self::CredentialsPerAgent
            | Self::TicketsPerDevice
            | Self::CredentialsPerDevice => "revoke one",
        }
    }
}

/// How the ledger failed. Every one of these denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LedgerFailure {
    /// Reading or writing failed.
    #[error("reading or writing failed; check its path and its disk")]
    Io,
    /// There is no room left to write.
    #[error("the disk is full; make room and open it again")]
    Full,
    /// It cannot be written at all.
    #[error("it is read-only here; check its permissions and its file system")]
    ReadOnly,
    /// Another process, or another gate of this one, has it open.
    #[error("another process has it open; stop that one first")]
    InUse,
    /// A record, or the file itself, is not in its canonical form.
    #[error("it is corrupt; move it away to start anew, and pair all phones again")]
    Corrupt,
    /// Written in a format that this build does not know.
    #[error(
        "it is in format {version}, which this build does not know; use the build that wrote it, or move it away to start anew"
    )]
    UnknownFormat {
        /// The format that it names.
        version: u64,
    },
    /// What stands in its place is a directory, a link or a device.
    #[error("no plain file stands in its place; name another")]
    NotAFile,
    /// An earlier failure left the outcome unknown; open the ledger again.
    #[error("an earlier read or write failed; open it again")]
    Poisoned,
    /// The last gate over it was dropped.
    #[error("its gate was closed; open it again")]
    Closed,
    /// Another gate has opened this node since, and owns it now.
    #[error("another gate has opened this node since; close this one, or give each a node of its own")]
    Fenced,
    /// More revocations than the gate can keep could not be written.
    #[error("too many revocations could not be written; open it again and revoke again")]
    Unwritten,
}

impl LedgerFailure {
    /// A stable name for programs and logs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Io => "ledger_io",
            Self::Full => "ledger_full",
            Self::ReadOnly => "ledger_read_only",
            Self::InUse => "ledger_in_use",
            Self::Corrupt => "ledger_corrupt",
            Self::UnknownFormat { .. } => "ledger_unknown_format",
            Self::NotAFile => "ledger_not_a_file",
            Self::Poisoned => "ledger_poisoned",
            Self::Closed => "ledger_closed",
            Self::Fenced => "ledger_fenced",
            Self::Unwritten => "ledger_unwritten",
        }
    }
}

impl Denial {
    /// A stable name for programs and logs.
    #[must_use]
    #[deny(clippy::wildcard_enum_match_arm, reason = "a new denial needs a name of its own")]
    pub fn code(&self) -> &'static str {
        match self {
            Self::PayloadMalformed => "payload_malformed",
            Self::TicketUnknown => "ticket_unknown",
            Self::TicketProofInvalid => "ticket_proof_invalid",
            Self::CredentialUnknown => "credential_unknown",
            Self::CredentialMalformed(_) => "credential_malformed",
            Self::CredentialSignatureInvalid => "credential_signature_invalid",
            Self::HolderMismatch => "holder_mismatch",
            Self::TicketExpired => "ticket_expired",
            Self::TicketClaimed => "ticket_claimed",
            Self::TicketContested => "ticket_contested",
            Self::TicketRevoked => "ticket_revoked",
            Self::ConfirmationPending => "confirmation_pending",
            Self::CredentialExpired => "credential_expired",
            Self::CredentialRevoked => "credential_revoked",
            Self::CredentialRetired => "credential_retired",
            Self::SessionGone => "session_gone",
            Self::CaveatFailed { .. } => "caveat_failed",
            Self::OperationNotGranted { .. } => "operation_not_granted",
            Self::OtherSession => "other_session",
            Self::PrivilegeDenied { .. } => "privilege_denied",
            Self::OutsideVocabulary => "outside_vocabulary",
            Self::NoLiveRecord => "no_live_record",
            Self::OperatorRule { .. } => "operator_rule",
            Self::TooManyConnections { .. } => "too_many_connections",
            Self::ActivationTimeout => "activation_timeout",
            Self::Repeated => "repeated",
            Self::Displaced => "displaced",
            Self::Replaced => "replaced",
            Self::ContextUnknown => "context_unknown",
            Self::Stale => "stale",
            Self::FrameUnreadable => "frame_unreadable",
            Self::FrameTooLong { .. } => "frame_too_long",
            Self::FrameWaiting => "frame_waiting",
            Self::DeviceNotEnrolled => "device_not_enrolled",
            Self::IssuerOfAnotherDevice => "issuer_of_another_device",
            Self::IssuerUnknown => "issuer_unknown",
            Self::IssuerRevoked => "issuer_revoked",
            Self::RegistrationInvalid => "registration_invalid",
            Self::OfferMalformed(_) => "offer_malformed",
            Self::OfferMismatch => "offer_mismatch",
            Self::OfferRepeated => "offer_repeated",
            Self::SessionNotLive => "session_not_live",
            Self::SharingForbidden => "sharing_forbidden",
            Self::ClockSkew { .. } => "clock_skew",
            Self::LifetimeOutOfBounds { .. } => "lifetime_out_of_bounds",
            Self::QuotaReached { .. } => "quota_reached",
            Self::Interrupted => "interrupted",
            Self::RenewalMismatch => "renewal_mismatch",
            Self::RenewalsUnused { .. } => "renewals_unused",
            Self::NothingToConfirm => "nothing_to_confirm",
            Self::PolicyLimit => "policy_limit",
            Self::PolicyFailed => "policy_failed",
            Self::Internal => "internal",
            Self::PolicyDisagreement => "policy_disagreement",
            Self::Ledger(_) => "ledger_unavailable",
            Self::ApiMisuse(_) => "api_misuse",
        }
    }

    /// What a phone may be told, once it has proven its ticket or credential. `None` means nothing:
    /// close the connection as for any stranger.
    ///
    /// [`Denial::ConfirmationPending`] has none: a redemption is answered by the digits to compare, and an
    /// attach before the desktop has confirmed by nothing.
    #[must_use]
    #[deny(clippy::wildcard_enum_match_arm, reason = "somebody has to decide what a peer may be told")]
    pub fn status(&self) -> Option<Status> {
        match self {
            Self::TicketExpired | Self::CredentialExpired | Self::CredentialRetired => Some(Status::Expired),
            Self::TicketClaimed => Some(Status::Claimed),
            Self::TicketContested | Self::TicketRevoked | Self::CredentialRevoked | Self::IssuerRevoked => {
                Some(Status::Revoked)
            }
            Self::SessionGone | Self::SessionNotLive => Some(Status::SessionGone),
            Self::CaveatFailed { caveat, .. } => Some(match caveat.as_ref() {
                Caveat::ExpiresAt(_) => Status::Expired,
                Caveat::Epoch(_) => Status::SessionGone,
                Caveat::Agent { .. }
                | Caveat::Session(_)
                | Caveat::Ops(_)
                | Caveat::Ticket(_)
                | Caveat::Holder(_) => Status::OperationDenied,
            }),
            Self::OperationNotGranted { .. }
            | Self::OtherSession
            | Self::PrivilegeDenied { .. }
            | Self::OutsideVocabulary
            | Self::NoLiveRecord
            | Self::OperatorRule { .. } => Some(Status::OperationDenied),
            Self::TooManyConnections { .. } => Some(Status::Busy),
            Self::Internal
            | Self::PolicyLimit
            | Self::PolicyFailed
            | Self::PolicyDisagreement
            | Self::Interrupted
            | Self::ContextUnknown
            | Self::Stale
            | Self::Ledger(_) => Some(Status::Unavailable),
            Self::PayloadMalformed
            | Self::TicketUnknown
            | Self::TicketProofInvalid
            | Self::CredentialUnknown
            | Self::CredentialMalformed(_)
            | Self::CredentialSignatureInvalid
            | Self::HolderMismatch
            | Self::ConfirmationPending
            | Self::ActivationTimeout
            | Self::Repeated
            | Self::Displaced
            | Self::Replaced
            | Self::FrameUnreadable
            | Self::FrameTooLong { .. }
            | Self::FrameWaiting
            | Self::DeviceNotEnrolled
            | Self::IssuerOfAnotherDevice
            | Self::IssuerUnknown
            | Self::RegistrationInvalid
            | Self::OfferMalformed(_)
            | Self::OfferMismatch
            | Self::OfferRepeated
            | Self::SharingForbidden
            | Self::ClockSkew { .. }
            | Self::LifetimeOutOfBounds { .. }
            | Self::QuotaReached { .. }
            | Self::RenewalMismatch
            | Self::RenewalsUnused { .. }
            | Self::NothingToConfirm
            | Self::ApiMisuse(_) => None,
        }
    }

    /// The code of the end frame that tells the phone why its connection is over (section 6.5).
    #[must_use]
    pub fn end_code(&self) -> EndCode {
        match self {
            Self::FrameUnreadable => EndCode::PROTOCOL,
            denial => denial.status().map_or(EndCode::CLOSED, EndCode::from),
        }
    }

    /// Code and detail of the notice that tells the phone why a data frame was refused (section 6.5).
    pub(crate) fn notice(&self) -> (u16, u16) {
        let place =
            |found: Option<usize>| found.and_then(|place| u16::try_from(place).ok()).unwrap_or(u16::MAX);
        match self {
            Self::OperationNotGranted { op } => {
                (Notice::NOT_GRANTED, place(Op::ALL.iter().position(|other| other == op)))
            }
            Self::PrivilegeDenied { privilege } => {
                (Notice::NEVER_ALLOWED, place(Privilege::ALL.iter().position(|other| other == privilege)))
            }
            Self::OtherSession => (Notice::OTHER_SESSION, 0),
            Self::FrameUnreadable => (Notice::UNREADABLE, 0),
            _ => (Notice::NOT_GRANTED, u16::MAX),
        }
    }
}
