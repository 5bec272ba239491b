//! The reasons for a refusal, for the operator, and the part of them that the peer may be told.
//!
//! The peer is told only what [`Denial::status`] returns, and a [`Status`] can only be a refusal. That method
//! matches every variant by name, so that adding one requires deciding who may be told.

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
/// [`Denial::status`] what the peer may be told. None of them contains a secret.
/// [`Gate::ledger_error`](crate::agent::Gate::ledger_error) has the operating system's error after a ledger
/// failure.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Denial {
    /// The payload has this protocol's magic but is malformed.
    #[error("the payload is malformed; the phone's app may be of another version")]
    PayloadMalformed,
    /// No ticket has this id.
    #[error("no such ticket")]
    TicketUnknown,
    /// The signature does not verify with the ticket's key for this agent and peer.
    #[error("the proof of the ticket does not verify for this peer")]
    TicketProofInvalid,
    /// No credential has this id.
    #[error("no such credential")]
    CredentialUnknown,
    /// The bytes are not a credential.
    #[error("not a credential: {0}")]
    CredentialMalformed(CredentialProblem),
    /// The signatures are not those of the issuer on record, or the binding is not by this agent.
    #[error("the credential's signatures do not verify")]
    CredentialSignatureInvalid,
    /// The credential is bound to another key.
    #[error("the credential belongs to another phone")]
    HolderMismatch,

    /// The ticket was not redeemed in time.
    #[error("the ticket has expired")]
    TicketExpired,
    /// Another phone has redeemed the ticket, and its lifetime is over.
    #[error("another phone has redeemed this ticket")]
    TicketClaimed,
    /// A second phone presented the ticket within its lifetime; both phones are cut off.
    #[error("two phones redeemed the same ticket; both are cut off")]
    TicketContested,
    /// The ticket was revoked.
    #[error("the ticket was revoked")]
    TicketRevoked,
    /// The desktop has not confirmed the phone yet.
    #[error("the desktop has not confirmed this phone yet")]
    ConfirmationPending,
    /// The credential has expired.
    #[error("the credential has expired")]
    CredentialExpired,
    /// The credential was revoked.
    #[error("the credential was revoked")]
    CredentialRevoked,
    /// The phone has used a renewed credential, which replaces this one.
    #[error("a renewed credential has replaced this one")]
    CredentialRetired,
    /// The session has ended.
    #[error("the session has ended")]
    SessionGone,
    /// A caveat forbids the action.
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
    /// The request names a session other than the connection's.
    #[error("the credential is for another session")]
    OtherSession,
    /// No credential can allow this.
    #[error("`{privilege}` is never allowed by a credential")]
    PrivilegeDenied {
        /// The privilege.
        privilege: Privilege,
    },
    /// The policy does not know the operation.
    #[error("the policy denies everything outside the session vocabulary")]
    OutsideVocabulary,
    /// The policy found no live record for this credential and peer.
    #[error("the credential has no live record")]
    NoLiveRecord,
    /// An operator rule forbids the action.
    #[error("operator rule {rule} forbids it")]
    OperatorRule {
        /// The number of the rule, counted from 1 in the order of the text, as in `RuleError`.
        rule: usize,
    },
    /// The credential has as many connections as it may have.
    #[error("the credential has its {max} connections already")]
    TooManyConnections {
        /// The most connections.
        max: u32,
    },
    /// The first transport frame came too late.
    #[error("the peer did not send a transport frame in time")]
    ActivationTimeout,
    /// The same first message was admitted before, and that admission still waits for its first frame.
    #[error("this first message was admitted already and waits for its first frame")]
    Repeated,
    /// Too many newer admissions of this credential wait for their first frame; this one was the oldest.
    #[error("newer admissions of the same credential have replaced this one")]
    Displaced,
    /// A newer connection of the same phone has replaced this one, which had missed a ping.
    #[error("the phone did not answer a ping, and its newer connection has replaced this one")]
    Replaced,
    /// The agent cannot tell whether the session, or the device that shared it, still exists.
    #[error("the agent cannot tell whether session and device still exist; try again")]
    ContextUnknown,
    /// The gate was not settled for some seconds, its ledger has failed, it has not read the log that it shares
    /// with other nodes, or its set of enrolled devices has ended. Not final: try the frame again after the next
    /// settling.
    #[error("the gate was not settled in time; keep the frame and ask again after the next settling")]
    Stale,

    /// The frame does not decrypt or is malformed.
    #[error("the frame could not be read; close the connection")]
    FrameUnreadable,
    /// The data does not fit one frame.
    #[error("a frame holds at most {max} bytes of data; split it")]
    FrameTooLong {
        /// The most bytes.
        max: usize,
    },
    /// A data frame still waits to be received.
    #[error("a data frame still waits; receive it first")]
    FrameWaiting,

    /// A message in several frames is longer than a message may be. All of it was discarded.
    #[error("a message has at most {max} bytes; all of it was discarded")]
    MessageTooLong {
        /// The most bytes.
        max: usize,
    },
    /// A message in several frames was not complete in time. All of it was discarded.
    #[error("a message must be complete {seconds} seconds after its first part; all of it was discarded")]
    MessageTooSlow {
        /// The most seconds.
        seconds: i64,
    },
    /// The unfinished messages of all phones take all the room that they may have. The message was discarded.
    #[error("unfinished messages take all the {max} bytes that they may have; the message was discarded")]
    NoRoomForMessage {
        /// The most bytes, of all phones together.
        max: u32,
    },

    /// The device is not enrolled at the agent.
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
    /// The offer or renewal is malformed.
    #[error("the offer or renewal is malformed: {0}")]
    OfferMalformed(Error),
    /// The offered credential does not match the offer, or is for another agent.
    #[error("the offered credential does not match the offer or this agent")]
    OfferMismatch,
    /// The offered ticket or credential id is already in use.
    #[error("this ticket or credential was offered before")]
    OfferRepeated,
    /// The session is not running.
    #[error("the session is not running")]
    SessionNotLive,
    /// The device may not share this session.
    #[error("this device may not share the session")]
    SharingForbidden,
    /// The credential's end does not fit the agent's clock; mint again with the agent's time.
    #[error("the desktop's clock is off; mint again with the agent's time, {agent_time}")]
    ClockSkew {
        /// The agent's time.
        agent_time: Timestamp,
    },
    /// The lifetime is out of bounds.
    #[error("the lifetime must be {min} to {max} seconds")]
    LifetimeOutOfBounds {
        /// The shortest, seconds.
        min: u64,
        /// The longest, seconds.
        max: u64,
    },
    /// A quota is used up. Nothing live is removed to make room.
    #[error("the quota of {max} {quota} is used up; {}", .quota.advice())]
    QuotaReached {
        /// Which quota.
        quota: Quota,
        /// Its size.
        max: u32,
    },
    /// Something was revoked, or a session ended, while the request was decided. Try again.
    #[error("something was revoked meanwhile; try again")]
    Interrupted,
    /// The renewal names an agent, session, ticket or issuer other than the credential's, or contains the
    /// wrong kind of credential.
    #[error("the renewal does not match the credential that it names")]
    RenewalMismatch,
    /// The credential was extended as often as it can be before its phone attaches again.
    #[error("the phone has not used any of its last {max} renewed credentials; extend once it has")]
    RenewalsUnused {
        /// The most that may wait.
        max: usize,
    },
    /// No phone waits for confirmation with this ticket and key.
    #[error("no phone waits for confirmation with this ticket and key")]
    NothingToConfirm,

    /// The policy engine reached a limit.
    #[error("the policy engine reached a limit")]
    PolicyLimit,
    /// The policy engine failed.
    #[error("the policy engine failed")]
    PolicyFailed,
    /// The agent could not build or read its own message. This is a defect; please report it.
    #[error("the agent could not handle its own message; please report this")]
    Internal,
    /// The policy and the native scope disagree. This is a defect; please report it.
    #[error("the policy and the native scope disagree; please report this")]
    PolicyDisagreement,
    /// The ledger could not be read or written.
    #[error("the ledger is unavailable: {0}")]
    Ledger(LedgerFailure),
    /// The API was called in a context that forbids the call.
    #[error("misuse: {0}")]
    ApiMisuse(Misuse),
}

/// A quota that can be full.
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
    /// Tickets on record at the agent, in any state. They are removed within minutes.
    #[error("tickets within the last minutes")]
    TicketsKept,
    /// Open tickets of the device: its share of the agent's quota.
    #[error("open tickets of this device")]
    TicketsPerDevice,
    /// Live credentials of the device, open tickets included: its share of the agent's quota.
    #[error("credentials of this device")]
    CredentialsPerDevice,
    /// Tickets on record of the device, in any state. They are removed within minutes.
    #[error("tickets of this device within the last minutes")]
    TicketsKeptPerDevice,
    /// Issuer keys of the device.
    #[error("issuer keys for this device")]
    IssuersPerDevice,
}

impl Quota {
    /// Returns a stable name for programs and logs.
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

    /// Returns how to make room.
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

/// How the ledger failed. After each of these, the gate refuses everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LedgerFailure {
    /// Reading or writing failed.
    #[error("reading or writing failed; check its path and its disk")]
    Io,
    /// The disk is full.
    #[error("the disk is full; make room and open it again")]
    Full,
    /// The ledger cannot be written at all.
    #[error("it is read-only here; check its permissions and its file system")]
    ReadOnly,
    /// Another process, or another gate of this process, has it open.
    #[error("another process has it open; stop that one first")]
    InUse,
    /// A record, or the file itself, is not in its canonical form.
    #[error("it is corrupt; move it away to start anew, and pair all phones again")]
    Corrupt,
    /// The ledger has a format that this build does not know.
    #[error(
        "it is in format {version}, which this build does not know; use the build that wrote it, or move it away to start anew"
    )]
    UnknownFormat {
        /// The number of the format.
        version: u64,
    },
    /// The path is a directory, a link or a device.
    #[error("the path is not a regular file; choose another path")]
    NotAFile,
    /// An earlier failure left the outcome unknown. Open the ledger again.
    #[error("an earlier read or write failed; open it again")]
    Poisoned,
    /// The last gate over the ledger was dropped.
    #[error("its gate was closed; open it again")]
    Closed,
    /// Another gate has opened the ledger as this node and now owns it.
    #[error("another gate has opened it as this node; close this one, or give each its own node number")]
    Fenced,
    /// There are more unwritten revocations than the gate can keep.
    #[error("too many revocations could not be written; open it again and revoke again")]
    Unwritten,
}

impl LedgerFailure {
    /// Returns a stable name for programs and logs.
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
    /// Returns a stable name for programs and logs.
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
            Self::MessageTooLong { .. } => "message_too_long",
            Self::MessageTooSlow { .. } => "message_too_slow",
            Self::NoRoomForMessage { .. } => "no_room_for_message",
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

    /// Returns what a phone may be told once it has proven its ticket or credential. `None` means nothing:
    /// close the connection as for any stranger.
    ///
    /// [`Denial::ConfirmationPending`] has no status: a redemption is answered with the digits to compare,
    /// and an attach before confirmation is closed without an answer.
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
            | Self::MessageTooLong { .. }
            | Self::MessageTooSlow { .. }
            | Self::NoRoomForMessage { .. }
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

    /// Returns the code of the end frame that tells the phone why its connection is over (section 6.5).
    #[must_use]
    pub fn end_code(&self) -> EndCode {
        match self {
            Self::FrameUnreadable => EndCode::PROTOCOL,
            denial => denial.status().map_or(EndCode::CLOSED, EndCode::from),
        }
    }

    /// Returns the code and detail of the notice that tells the phone why a data frame was refused (section
    /// 6.5).
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
            Self::MessageTooLong { .. } | Self::MessageTooSlow { .. } => (Notice::DISCARDED, 0),
            Self::NoRoomForMessage { .. } => (Notice::DISCARDED, 1),
            _ => (Notice::NOT_GRANTED, u16::MAX),
        }
    }
}
