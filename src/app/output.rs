//! The outputs of a connection, for its app to carry out or show.

use core::time::Duration;

use super::error::AppError;
use super::stored::StoredBytes;
use crate::agent_url::AgentUrl;
use crate::clock::Timestamp;
use crate::id::SessionId;
use crate::op::OpSet;
use crate::protocol::frame::Notice;
use crate::protocol::ticket::PairCode;
use crate::session::{EventKind, NotTaken};

/// One thing for the app to do or to show.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "do it"]
#[non_exhaustive]
pub enum Output {
    /// Open a WebSocket. No redirect is followed and no `Origin` sent. Report [`Input::Opened`](super::Input::Opened)
    /// or [`Input::Closed`](super::Input::Closed) with the number.
    Open {
        /// The number of the attempt.
        attempt: u32,
        /// Where. The host is text for the system's resolver.
        url: AgentUrl,
    },
    /// Send one binary message.
    Send {
        /// The number of the attempt.
        attempt: u32,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Close the WebSocket, after what was sent, if it is still there. No report is needed.
    Close {
        /// The number of the attempt.
        attempt: u32,
        /// The code of the close frame.
        code: u16,
    },
    /// Store the pairing in the keychain, in place of what is there under its ticket's id. Report
    /// [`Input::Stored`](super::Input::Stored) when a read has returned it, or
    /// [`Input::NotStored`](super::Input::NotStored). Nothing goes on before. The agent waits five seconds; if it takes
    /// longer, the phone attaches again.
    Store {
        /// The number of the request.
        number: u32,
        /// The bytes to store.
        bytes: StoredBytes,
    },
    /// The state of the connection has changed.
    State(State),
    /// Output to show after what was shown.
    Shown {
        /// Number of bytes that are missing before these: say so on the screen.
        missing: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The screen, in place of everything that was shown.
    Screen {
        /// Number of bytes of output that do not come. `None` if it is not known: the session was started again, or nothing was
        /// shown before.
        missing: Option<u64>,
        /// Characters in a line.
        columns: u16,
        /// Lines.
        rows: u16,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The agent, or the loss of the connection, has decided about typed bytes. Every id comes back once.
    Typed {
        /// The app's number.
        id: u64,
        /// Its fate.
        fate: Fate,
    },
    /// The answer to a request.
    Answered {
        /// The app's number.
        id: u64,
        /// A JSON object. Its keys are to be checked by its reader.
        json: String,
    },
    /// A request that is not answered. Every request comes back once.
    NotAnswered {
        /// The app's number.
        id: u64,
        /// Why.
        fate: Fate,
    },
    /// The agent refused a change of the size, an interrupt, or the output.
    Refused {
        /// Why.
        notice: Notice,
    },
    /// Something happened in the session.
    Event {
        /// Its kind.
        kind: EventKind,
        /// Defined by the kind.
        value: i32,
        /// Of a notification.
        text: String,
    },
}

/// The state of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// It has not begun, or the person has left.
    Idle,
    /// The pairing is being stored.
    Storing,
    /// The agent is being asked.
    Connecting,
    /// The desktop has to confirm: show the digits. The phone asks again by itself.
    Waiting {
        /// The digits that the desktop shows too.
        code: PairCode,
        /// Time in which the link can still be redeemed, seconds.
        seconds_left: u64,
    },
    /// The phone is in the session.
    Live {
        /// The session.
        session: SessionId,
        /// The operations of this connection.
        ops: OpSet,
        /// The agent's time. The phone's own clock decides nothing.
        agent_time: Timestamp,
        /// Time for which the credential is still valid, seconds.
        seconds_left: u64,
    },
    /// It does not work for now, and is tried again.
    Retrying {
        /// Why.
        error: AppError,
        /// When, in the time that was passed in.
        at: Duration,
    },
    /// It is not tried again by itself. [`AppError::advice`] says what the person does.
    Stopped {
        /// Why.
        error: AppError,
    },
}

/// The fate of input or of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// All of it is in the session's terminal.
    Taken,
    /// The agent did not take all of it, and takes no more of it.
    NotTaken(NotTaken),
    /// The agent refused it.
    Refused(Notice),
    /// There was no connection, or it was not well formed: nothing was sent.
    NotSent,
    /// The connection was lost before the agent said anything. It may have arrived. Never send it again without asking
    /// the person.
    Unknown,
}

impl State {
    /// Returns a stable name for programs and logs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Storing => "storing",
            Self::Connecting => "connecting",
            Self::Waiting { .. } => "waiting",
            Self::Live { .. } => "live",
            Self::Retrying { .. } => "retrying",
            Self::Stopped { .. } => "stopped",
        }
    }
}

impl Fate {
    /// Returns a stable name for programs and logs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::NotTaken(_) => "not_taken",
            Self::Refused(_) => "refused",
            Self::NotSent => "not_sent",
            Self::Unknown => "unknown",
        }
    }
}
