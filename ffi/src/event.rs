//! Events for an app to carry out or show, in plain types.

use sessioncap::OpSet;
use sessioncap::app::{Output, State};
use sessioncap::session::EventKind;

use crate::failure::Failure;

/// One thing for the app to do or to show, in order.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Enum))]
pub enum Event {
    /// Open a WebSocket, without following redirects and without an `Origin`. Report `opened` or `closed`.
    Open {
        /// The number of the attempt.
        attempt: u32,
        /// Where.
        url: String,
        /// SHA-256 of the keys of the agent's TLS certificates, hexadecimal, for an agent that has made its certificate
        /// itself. Empty: trust the system's authorities.
        tls_pins: Vec<String>,
    },
    /// Send one binary message.
    Send {
        /// The number of the attempt.
        attempt: u32,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Close the WebSocket, after what was sent, if it is still there.
    Close {
        /// The number of the attempt.
        attempt: u32,
        /// The code of the close frame.
        code: u16,
    },
    /// Store the bytes in the keychain under the ticket, in place of what is there. Report `stored` once a read has
    /// returned them, or `not_stored`.
    Store {
        /// The number of the request.
        number: u32,
        /// The name of the entry.
        ticket: String,
        /// The bytes to store. A secret.
        bytes: Vec<u8>,
    },
    /// The state of the connection has changed.
    StateChanged {
        /// The new state.
        state: ConnectionState,
    },
    /// Output to show after what was shown.
    Shown {
        /// Number of bytes that are missing before these.
        missing: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The screen, in place of everything that was shown.
    Screen {
        /// Number of bytes of output that do not come, if it is known.
        missing: Option<u64>,
        /// Characters in a line.
        columns: u16,
        /// Lines.
        rows: u16,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The fate of typed bytes is known.
    Typed {
        /// The app's number.
        id: u64,
        /// `taken`, `not_taken`, `refused`, `not_sent` or `unknown`.
        fate: String,
    },
    /// The answer to a request.
    Answered {
        /// The app's number.
        id: u64,
        /// A JSON object.
        json: String,
    },
    /// A request that is not answered.
    NotAnswered {
        /// The app's number.
        id: u64,
        /// As of what was typed.
        fate: String,
    },
    /// The agent refused a change of the size, an interrupt, or the output.
    Refused {
        /// Why, for the person.
        sentence: String,
    },
    /// Something happened in the session.
    Happened {
        /// `bell`, `notification`, `prompt`, `command_ended`, `session_ended` or `other`.
        kind: String,
        /// Of an end: the exit status, or minus the number of the signal.
        value: i32,
        /// Of a notification.
        text: String,
    },
}

/// The state of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct ConnectionState {
    /// `idle`, `storing`, `connecting`, `waiting`, `live`, `retrying` or `stopped`.
    pub code: String,
    /// Waiting: the digits that the desktop shows too.
    pub digits: Option<String>,
    /// Live: the session.
    pub session: Option<String>,
    /// Live: what the phone may do.
    pub ops: Vec<String>,
    /// Waiting: for how long; live: how long the credential is still valid. Seconds.
    pub seconds_left: Option<u64>,
    /// Live: the agent's time, seconds since 1970.
    pub agent_time: Option<u64>,
    /// Retrying: when, in the milliseconds that were passed in.
    pub at_millis: Option<u64>,
    /// Retrying or stopped: why.
    pub failure: Option<Failure>,
}

pub(crate) fn names(ops: OpSet) -> Vec<String> {
    ops.iter().map(|op| op.name().to_owned()).collect()
}

impl From<&State> for ConnectionState {
    fn from(state: &State) -> Self {
        let mut plain = Self {
            code: state.code().to_owned(),
            digits: None,
            session: None,
            ops: Vec::new(),
            seconds_left: None,
            agent_time: None,
            at_millis: None,
            failure: None,
        };
        match state {
            State::Waiting { code, seconds_left } => {
                plain.digits = Some(code.to_string());
                plain.seconds_left = Some(*seconds_left);
            }
            State::Live { session, ops, agent_time, seconds_left } => {
                plain.session = Some(session.to_string());
                plain.ops = names(*ops);
                plain.agent_time = Some(agent_time.seconds());
                plain.seconds_left = Some(*seconds_left);
            }
            State::Retrying { error, at } => {
                plain.at_millis = Some(u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
                plain.failure = Some(error.into());
            }
            State::Stopped { error } => plain.failure = Some(error.into()),
            _ => {}
        }
        plain
    }
}

fn kind(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Bell => "bell",
        EventKind::Notification => "notification",
        EventKind::Prompt => "prompt",
        EventKind::CommandEnded => "command_ended",
        EventKind::SessionEnded => "session_ended",
        _ => "other",
    }
}

impl Event {
    /// `None` for what a later version of the library says.
    pub(crate) fn new(output: Output, connection: &sessioncap::app::Connection) -> Option<Self> {
        let hex = |pin: &[u8; 32]| pin.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(match output {
            Output::Open { attempt, url } => Self::Open {
                attempt,
                url: url.to_string(),
                tls_pins: connection.stored().tls_pins().iter().map(hex).collect(),
            },
            Output::Send { attempt, bytes } => Self::Send { attempt, bytes },
            Output::Close { attempt, code } => Self::Close { attempt, code },
            Output::Store { number, bytes } => Self::Store {
                number,
                ticket: connection.stored().ticket().to_string(),
                bytes: bytes.as_bytes().to_vec(),
            },
            Output::State(state) => Self::StateChanged { state: (&state).into() },
            Output::Shown { missing, bytes } => Self::Shown { missing, bytes },
            Output::Screen { missing, columns, rows, bytes } => {
                Self::Screen { missing, columns, rows, bytes }
            }
            Output::Typed { id, fate } => Self::Typed { id, fate: fate.code().to_owned() },
            Output::Answered { id, json } => Self::Answered { id, json },
            Output::NotAnswered { id, fate } => Self::NotAnswered { id, fate: fate.code().to_owned() },
            Output::Refused { notice } => Self::Refused { sentence: notice.to_string() },
            Output::Event { kind: what, value, text } => {
                Self::Happened { kind: kind(what).to_owned(), value, text }
            }
            _ => return None,
        })
    }
}
