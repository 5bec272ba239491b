//! Errors of the programs, each a sentence that the user can act on.

use std::error::Error;
use std::fmt::Display;

use thiserror::Error;

/// Why a program could not do what it was asked to.
#[derive(Debug, Error)]
pub enum Problem {
    /// A sentence of the program's own.
    #[error("{0}")]
    Said(String),
    /// The library refused to build, read or send something.
    #[error(transparent)]
    Library(#[from] sessioncap::Error),
    /// A phone was not admitted.
    #[error(transparent)]
    Phone(#[from] sessioncap::phone::PhoneError),
    /// A desktop's pairing or renewal could not be built.
    #[error(transparent)]
    Desktop(#[from] sessioncap::desktop::DesktopError),
    /// The agent was put together wrongly.
    #[error(transparent)]
    Agent(#[from] sessioncap::agent::Misuse),
    /// A pairing link could not be read or written.
    #[error(transparent)]
    Link(#[from] sessioncap::LinkError),
    /// The machine has no clock that will do.
    #[error(transparent)]
    Clock(#[from] sessioncap::ClockUnsupported),
    /// An operator's rules are faulty.
    #[error(transparent)]
    Rule(#[from] sessioncap::agent::RuleError),
    /// The agent answered a request with an error.
    #[error("the agent refused: {detail} ({code})")]
    Refused {
        /// A stable name.
        code: String,
        /// The agent's message.
        detail: String,
        /// The agent's clock, seconds since 1970, if that is what it is about.
        agent_time: Option<u64>,
    },
    /// Nothing listens there now.
    #[error("the agent at {url} cannot be reached: {cause}")]
    Unreachable {
        /// Where.
        url: String,
        /// The network's error.
        cause: String,
    },
    /// The close that every stranger gets.
    #[error("the agent closed the connection without an answer, as it does for keys it does not know")]
    TurnedAway,
    /// Whatever answered has not proven that it is the agent: a proxy's error page, or bytes that do not decrypt.
    #[error("what answered is not the agent, or was changed on its way: {0}")]
    NotTheAgent(String),
    /// The connection broke without an end.
    #[error("the connection broke off; what came before is complete, but there may have been more")]
    BrokenOff,
    /// The agent said why it ends the connection.
    #[error("the agent ended the connection: {detail} ({code})")]
    Ended {
        /// A stable name.
        code: String,
        /// The agent's message.
        detail: String,
    },
    /// The other side does not read, or does not answer.
    #[error("no answer within {seconds} seconds; check the address and the network")]
    TooSlow {
        /// How long was waited.
        seconds: u64,
    },
}

/// The outcome of what a program does.
pub type Outcome<T> = Result<T, Problem>;

impl Problem {
    /// From a sentence.
    pub fn said(text: impl Into<String>) -> Self {
        Self::Said(text.into())
    }

    /// Whether trying again may help: nothing here was said by the agent inside a channel, or it said that it is
    /// unable for now. Only for an agent that was there before: one that never was may be misspelt.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::NotTheAgent(_)
            | Self::TurnedAway
            | Self::BrokenOff
            | Self::TooSlow { .. } => true,
            Self::Refused { code, .. } => matches!(
                code.as_str(),
                "busy"
                    | "context_unknown"
                    | "internal"
                    | "interrupted"
                    | "ledger_unavailable"
                    | "policy_failed"
                    | "policy_limit"
                    | "stale"
                    | "unavailable"
                    | "upstream_failed"
            ),
            _ => false,
        }
    }
}

/// An error and all of its causes: "error: cause: its cause".
pub fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Puts a sentence before the cause of a failure.
pub trait While<T> {
    /// "`doing`: cause".
    fn during(self, doing: impl Display) -> Outcome<T>;
}

impl<T, E: Display> While<T> for Result<T, E> {
    fn during(self, doing: impl Display) -> Outcome<T> {
        self.map_err(|cause| Problem::Said(format!("{doing}: {cause}")))
    }
}
