//! What can go wrong on the phone, and what to do about it (`docs/PROTOCOL.md` section 6.4).

use thiserror::Error;

use crate::error::Error as Malformed;
use crate::status::Status;

/// Why a redemption or an attach did not succeed.
///
/// Whether to ask again, and whether to keep key and credential, differs between the two:
/// [`PhoneError::after_redeem`], [`PhoneError::after_attach`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PhoneError {
    /// The answer is from the agent and is none of this protocol's version. The cause says what is wrong.
    #[error("the agent's answer is malformed; update the app or the agent")]
    AnswerMalformed(#[source] Malformed),
    /// The answer is from the agent and answers something else.
    #[error("the agent's answer does not match the request; update the app or the agent")]
    AnswerMismatch,
    /// The answer is not from the agent whose key the phone has, or was changed on its way.
    #[error("the answer is not from this agent; close the connection and ask again")]
    AnswerUnreadable,
    /// The request could not be built: a defect, to be reported.
    #[error("the request could not be built; please report this")]
    Internal(#[source] Malformed),
    /// The connection was closed without message 2. This crate opens no connection and never returns this:
    /// the app makes one, so that everything that can go wrong is one type.
    #[error("the agent closed the connection without an answer, as it does for keys it does not know")]
    NoAnswer,
    /// The agent refused and said why.
    #[error("the agent refused: {0}")]
    Refused(Status),
}

/// What a phone does after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NextStep {
    /// Ask again with the same key, with growing pauses, until 25 minutes after the scan. Keep key and link.
    AskAgain,
    /// Ask again with the same key, a few times with growing pauses. If that does not help, tell the user that
    /// the agent no longer knows the credential, and let them decide whether to forget it.
    AskBriefly,
    /// Ask for other operations, or for the same ones later. Keep key and credential.
    AskForOtherOps,
    /// Ask again later, with growing pauses. Keep key and credential.
    AskLater,
    /// Forget key, link and credential: they will never be of use again. The owner can give a new code.
    Forget,
    /// Tell the user, and do not ask again by yourself. Keep key, link and credential: an update of the app
    /// or of the agent may help.
    TellUser,
}

impl PhoneError {
    /// A stable name for programs and logs. A refusal has its status's name.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::AnswerMalformed(_) => "answer_malformed",
            Self::AnswerMismatch => "answer_mismatch",
            Self::AnswerUnreadable => "answer_unreadable",
            Self::Internal(_) => "internal",
            Self::NoAnswer => "no_answer",
            Self::Refused(status) => status.code(),
        }
    }

    /// What to do if this came of a redemption.
    #[must_use]
    pub fn after_redeem(&self) -> NextStep {
        match self {
            Self::NoAnswer | Self::AnswerUnreadable => NextStep::AskAgain,
            Self::AnswerMalformed(_) | Self::AnswerMismatch | Self::Internal(_) => NextStep::TellUser,
            Self::Refused(status) => match status {
                Status::Expired | Status::Claimed | Status::Revoked | Status::SessionGone => NextStep::Forget,
                Status::OperationDenied | Status::Busy | Status::Unavailable => NextStep::AskAgain,
            },
        }
    }

    /// What to do if this came of an attach.
    #[must_use]
    pub fn after_attach(&self) -> NextStep {
        match self {
            Self::NoAnswer | Self::AnswerUnreadable => NextStep::AskBriefly,
            Self::AnswerMalformed(_) | Self::AnswerMismatch | Self::Internal(_) => NextStep::TellUser,
            Self::Refused(status) => match status {
                Status::Expired | Status::Claimed | Status::Revoked | Status::SessionGone => NextStep::Forget,
                Status::OperationDenied => NextStep::AskForOtherOps,
                Status::Busy | Status::Unavailable => NextStep::AskLater,
            },
        }
    }
}

impl NextStep {
    /// All of them, in the order of the protocol document.
    pub const ALL: &[Self] = &[
        Self::AskAgain,
        Self::AskBriefly,
        Self::AskForOtherOps,
        Self::AskLater,
        Self::Forget,
        Self::TellUser,
    ];

    /// Whether the same request, with the same key, may succeed without anybody's doing.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            Self::AskAgain | Self::AskBriefly | Self::AskLater => true,
            Self::AskForOtherOps | Self::Forget | Self::TellUser => false,
        }
    }

    /// Whether to keep the key, and the link or credential.
    #[must_use]
    pub fn keeps_key(self) -> bool {
        match self {
            Self::AskAgain | Self::AskBriefly | Self::AskForOtherOps | Self::AskLater | Self::TellUser => {
                true
            }
            Self::Forget => false,
        }
    }

    /// A stable name for programs and logs.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::AskAgain => "ask_again",
            Self::AskBriefly => "ask_briefly",
            Self::AskForOtherOps => "ask_for_other_ops",
            Self::AskLater => "ask_later",
            Self::Forget => "forget",
            Self::TellUser => "tell_user",
        }
    }
}
