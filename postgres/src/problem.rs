//! What can be wrong with the database.

use sessioncap::agent::LedgerFailure;
use sessioncap::agent::ledger::LedgerError;
use thiserror::Error;

/// Why a call to the database failed. It is the source of the [`LedgerError`], which an operator reads as the source
/// of `Gate::ledger_error`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// The options cannot keep the contract.
    #[error("the options cannot be used: {0}")]
    Options(String),
    /// No connection, or it was lost.
    #[error("no connection to the database: {0}")]
    Connection(String),
    /// The database did not answer in time. The connection was thrown away.
    #[error("the database did not answer within {milliseconds} ms")]
    Timeout {
        /// The limit, milliseconds.
        milliseconds: u64,
    },
    /// The database refused a statement.
    #[error("the database refused a statement ({code}): {message}")]
    Refused {
        /// The SQLSTATE.
        code: String,
        /// The database's own words.
        message: String,
    },
    /// The server is a standby, which can only be read.
    #[error("the server is a standby; connect to the primary")]
    IsStandby,
    /// The database's tables are missing or of another version.
    #[error("the tables are of version {found}, and this build needs {needed}; run the migration")]
    Version {
        /// The version that was found; 0 if there is none.
        found: i32,
        /// The version that is needed.
        needed: i32,
    },
    /// A setting does not keep a commit on a standby.
    #[error("`{name}` is `{value}`, with which a commit is not kept by a standby; see docs/FLEET.md")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// No synchronous standby is connected.
    #[error("no synchronous standby is connected; a commit would not be kept")]
    NoStandby,
    /// A commit was answered with a notice, which the database sends if it gave up waiting for the standby.
    #[error("the database answered a commit with a notice: {0}")]
    Notice(String),
    /// The database ends before what this node has seen in it, or has something else there: an old primary, or a
    /// standby that was promoted although it had not received everything.
    #[error("the database has lost, or never had, what this node has seen at position {position}")]
    LostPosition {
        /// The position in the log.
        position: i64,
    },
    /// The server's timeline is older than one that this node has seen: it is an old primary.
    #[error(
        "the server is on timeline {found}, and this node has seen timeline {seen}; it is an old primary"
    )]
    OldPrimary {
        /// The server's timeline.
        found: u32,
        /// The latest that this node has seen.
        seen: u32,
    },
    /// A row of the log is not one that this build can read, or does not follow from the row before it.
    #[error("the log is damaged at position {position}")]
    Damaged {
        /// The position in the log.
        position: i64,
    },
    /// Other nodes have written again and again in between.
    #[error("other nodes have written in between {tries} times; try again")]
    Contended {
        /// How often it was tried.
        tries: u32,
    },
    /// Another process has registered this node since.
    #[error("another process has registered this node")]
    Replaced,
}

/// How a call failed, and whether its transaction may have been committed.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// Another node has written this position.
    Conflict,
    /// Nothing was committed.
    NotDone(Problem),
    /// A commit was sent, and its outcome is unknown.
    Unknown(Problem),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::NotDone(problem)
    }
}

impl Failure {
    /// Converts it for the gate.
    pub(crate) fn into_error(self) -> LedgerError {
        match self {
            Self::Conflict => {
                LedgerError::not_done(LedgerFailure::Io).because(Problem::Contended { tries: 1 })
            }
            Self::NotDone(problem) => LedgerError::not_done(problem.cause()).because(problem),
            Self::Unknown(problem) => LedgerError::unknown(problem.cause()).because(problem),
        }
    }

    pub(crate) fn problem(self) -> Problem {
        match self {
            Self::Conflict => Problem::Contended { tries: 1 },
            Self::NotDone(problem) | Self::Unknown(problem) => problem,
        }
    }
}

impl Problem {
    fn cause(&self) -> LedgerFailure {
        match self {
            Self::IsStandby => LedgerFailure::ReadOnly,
            Self::Damaged { .. } => LedgerFailure::Corrupt,
            Self::Replaced => LedgerFailure::Fenced,
            Self::Refused { code, .. } if code == "53100" => LedgerFailure::Full,
            _ => LedgerFailure::Io,
        }
    }

    pub(crate) fn of(error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(refused) => Self::Refused {
                code: refused.code().code().to_owned(),
                message: refused.message().to_owned(),
            },
            None => {
                let source = core::error::Error::source(error).map(|source| format!(": {source}"));
                Self::Connection(format!("{error}{}", source.unwrap_or_default()))
            }
        }
    }
}
