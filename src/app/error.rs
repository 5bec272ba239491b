//! The one error of an app: a code, a sentence, and an advice.

use thiserror::Error;

use crate::error::Error as Malformed;
use crate::phone::{NextStep, PhoneError};
use crate::protocol::link::LinkError;
use crate::status::Status;

/// The reason why something does not work for now, or for good. `Display` is one sentence for the person.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AppError {
    /// The agent has ended the connection, and the session with it.
    #[error("the agent has ended the connection; ask its owner whether the session goes on")]
    AgentLeft,
    /// The agent refused to let the phone attach, or did not answer as the agent whose key the phone has.
    #[error(transparent)]
    Attach(PhoneError),
    /// The agent says that this app breaks the protocol, or speaks no version that the agent speaks.
    #[error("the agent does not understand this app; update the app or the agent")]
    Incompatible,
    /// The agent refused to let the phone join, or did not answer as the agent of the link.
    #[error(transparent)]
    Join(PhoneError),
    /// The link could not be joined for as long as the agent keeps its answer.
    #[error("the code could not be redeemed in time; ask its owner for a new one")]
    JoinTimedOut,
    /// The text is not a pairing link that can be read.
    #[error(transparent)]
    Link(LinkError),
    /// The connection broke, or the agent does not answer on it.
    #[error("the connection was lost; it is made again")]
    Lost,
    /// The phone's system does not let the app reach the local network.
    #[error("this app may not reach the local network; allow it in the phone's settings and try again")]
    NotPermitted,
    /// The pairing could not be stored.
    #[error("the pairing cannot be stored now; unlock the phone")]
    NotStored,
    /// A message of the agent is not of this protocol.
    #[error("a message of the agent cannot be read; update the app or the agent")]
    Protocol(#[source] Malformed),
    /// Part of the stored pairing is missing or was changed.
    #[error("the stored pairing is damaged; forget it and pair again")]
    StoredDamaged,
    /// The stored bytes are not a pairing.
    #[error("the stored bytes are not a pairing")]
    StoredForeign,
    /// A later version of the app has stored the pairing.
    #[error("the pairing was stored by a later version of this app (format {version}); update this app")]
    StoredNewer {
        /// The version of its format.
        version: u8,
    },
    /// There are as many pairings as the list holds.
    #[error("there are {max} pairings already; forget one first")]
    TooManyPairings {
        /// Most pairings.
        max: usize,
    },
    /// The agent has no place free, or starts again.
    #[error("the agent is busy or starts again; it is asked later")]
    TryLater,
    /// No terminal has a key of this name, or none sends it with these modifiers.
    #[error("no terminal sends such a key; name one as in `ctrl+c`, `shift+tab` or `f5`")]
    UnknownKey,
    /// No connection could be made.
    #[error("the agent cannot be reached; it is tried again")]
    Unreachable,
}

/// The next step of a person after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Advice {
    /// Try again. A [`Connection`](super::Connection) that says [`State::Retrying`](super::State::Retrying) does it by
    /// itself.
    AskAgain,
    /// Ask the session's owner for a new code, or for other operations. The pairing stays.
    AskOwner,
    /// The pairing is of no more use: offer to forget it. Its owner can give a new code.
    Forget,
    /// Update the app or the agent. The pairing stays.
    Update,
}

impl AppError {
    /// Returns a stable name for programs and logs. A refusal returns its status's name.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::AgentLeft => "agent_left",
            Self::Attach(error) => error.code(),
            Self::Incompatible => "incompatible",
            Self::Join(error) => error.code(),
            Self::JoinTimedOut => "join_timed_out",
            Self::Link(error) => error.code(),
            Self::Lost => "lost",
            Self::NotPermitted => "not_permitted",
            Self::NotStored => "not_stored",
            Self::Protocol(_) => "protocol",
            Self::StoredDamaged => "stored_damaged",
            Self::StoredForeign => "stored_foreign",
            Self::StoredNewer { .. } => "stored_newer",
            Self::TooManyPairings { .. } => "too_many_pairings",
            Self::TryLater => "try_later",
            Self::UnknownKey => "unknown_key",
            Self::Unreachable => "unreachable",
        }
    }

    /// Returns what the person does about it.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            Self::Attach(error) => of_step(error.after_attach()),
            Self::Join(error) => of_step(error.after_redeem()),
            Self::Lost | Self::NotPermitted | Self::NotStored | Self::TryLater | Self::Unreachable => {
                Advice::AskAgain
            }
            Self::Link(LinkError::UnknownVersion { .. })
            | Self::Incompatible
            | Self::Protocol(_)
            | Self::StoredNewer { .. }
            | Self::UnknownKey => Advice::Update,
            Self::AgentLeft | Self::Link(_) => Advice::AskOwner,
            Self::JoinTimedOut | Self::StoredDamaged | Self::StoredForeign | Self::TooManyPairings { .. } => {
                Advice::Forget
            }
        }
    }

    /// True if the agent itself has said so: trying again would change nothing.
    pub(super) fn is_typed_answer(&self) -> bool {
        match self {
            Self::Attach(error) => !error.after_attach().is_retryable(),
            Self::Join(error) => !error.after_redeem().is_retryable(),
            Self::AgentLeft | Self::Incompatible | Self::Protocol(_) => true,
            _ => false,
        }
    }
}

fn of_step(step: NextStep) -> Advice {
    match step {
        NextStep::AskAgain | NextStep::AskBriefly | NextStep::AskLater => Advice::AskAgain,
        NextStep::AskForOtherOps => Advice::AskOwner,
        NextStep::Forget => Advice::Forget,
        NextStep::TellUser => Advice::Update,
    }
}

impl From<LinkError> for AppError {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl From<Status> for AppError {
    /// A refusal on a connection counts as one of an attach.
    fn from(status: Status) -> Self {
        Self::Attach(PhoneError::Refused(status))
    }
}

impl Advice {
    /// Every advice.
    pub const ALL: &'static [Self] = &[Self::AskAgain, Self::AskOwner, Self::Forget, Self::Update];

    /// Returns a stable name for programs and logs.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::AskAgain => "ask_again",
            Self::AskOwner => "ask_owner",
            Self::Forget => "forget",
            Self::Update => "update",
        }
    }
}
