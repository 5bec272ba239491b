//! The phone's errors, and what to do after each (`docs/PROTOCOL.md` section 6.4).

use thiserror::Error;

use crate::error::Error as Malformed;
use crate::status::Status;

/// The reason why a redemption or an attach failed.
///
/// Whether to ask again, and whether to keep the key and the credential, differs between the two: see
/// [`PhoneError::after_redeem`] and [`PhoneError::after_attach`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PhoneError {
    /// The answer is from the agent but not of this protocol version. The source says what is wrong.
    #[error("the agent's answer is malformed; update the app or the agent")]
    AnswerMalformed(#[source] Malformed),
    /// The answer is from the agent but does not match the request.
    #[error("the agent's answer does not match the request; update the app or the agent")]
    AnswerMismatch,
    /// The answer is not from the agent whose key the phone has, or was changed on the way.
    #[error("the answer is not from this agent; close the connection and ask again")]
    AnswerUnreadable,
    /// The request could not be built. This is a defect; please report it.
    #[error("the request could not be built; please report this")]
    Internal(#[source] Malformed),
    /// The agent closed the connection without message 2, as it does for everybody who has proven nothing. This
    /// crate opens no connection and never returns this variant; an app can use it to have one error type. Do not
    /// use it for a connection that could not be made or that broke: ask again then when there is a network.
    #[error("the agent closed the connection without an answer, as it does for keys it does not know")]
    NoAnswer,
    /// The agent refused and gave this reason.
    #[error("the agent refused: {0}")]
    Refused(Status),
}

/// What a phone does after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NextStep {
    /// Ask again with the same key, with growing pauses, for at most 25 minutes after the scan. Keep key and link.
    AskAgain,
    /// Ask again with the same key, a few times with growing pauses. If that does not help, tell the user that
    /// the agent no longer knows the credential, and let them decide whether to forget it.
    AskBriefly,
    /// Ask for other operations. Do not repeat the request by itself; an operator's rules may allow the same
    /// operations at another hour. Keep key and credential.
    AskForOtherOps,
    /// Ask again later, with growing pauses. Keep key and credential.
    AskLater,
    /// Delete the credential that was refused. If it was a narrowed copy, keep the key and the credential that it
    /// was narrowed from, and narrow again; otherwise delete key and link as well. The owner can give a new code.
    Forget,
    /// Tell the user and do not ask again automatically. Keep the key, link and credential: an update of the
    /// app or of the agent may help.
    TellUser,
}

impl PhoneError {
    /// Returns a stable name for programs and logs. A refusal returns its status's name.
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

    /// Returns what to do after a failed redemption.
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

    /// Returns what to do after a failed attach.
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
    /// Every next step, in the order of the protocol document.
    pub const ALL: &[Self] = &[
        Self::AskAgain,
        Self::AskBriefly,
        Self::AskForOtherOps,
        Self::AskLater,
        Self::Forget,
        Self::TellUser,
    ];

    /// Whether the same request, with the same key, may succeed without further action.
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

    /// Returns a stable name for programs and logs.
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
