//! The messages between the server of the sessions and agents, as bytes: a byte that tells the kind, the length in four
//! bytes, the highest first, and JSON or plain bytes. Each message has one spelling: any other is refused.

use std::fmt;
use std::io::{self, ErrorKind};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sessioncap::session::Incarnation;
use sessioncap::{CredentialId, SessionId};

use super::limits::{LONGEST_ASK, LONGEST_OUTPUT, LONGEST_TELL, MOST_LISTED};
use crate::pty::{HubError, SessionInfo, SessionSpec, check_size};

/// Length of what comes before the JSON or the plain bytes.
pub const HEAD: usize = 5;
const JSON: u8 = 0;
const BYTES: u8 = 1;

/// An agent's process, in its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The number of the node.
    pub node: u32,
    /// Drawn when it starts.
    pub number: u64,
}

/// Where a credential's output begins: nothing before it is sent to its phone again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// A credential's id.
    pub credential: String,
    /// Its session's id.
    pub session: String,
    /// `None` if it is not known any more.
    pub position: Option<u64>,
}

/// An agent's message: the first over a connection, and later ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// From now on, tell of each new session, and wait with it until this agent knows it.
    Join(Process),
    /// The session that was told of last is known.
    Known,
    /// For the other agents.
    Floor(Floor),
    /// Start a program.
    Create {
        /// For which agent.
        process: Process,
        /// Which program.
        spec: SessionSpec,
        /// Whether it stays when the agent ends.
        stays: bool,
    },
    /// Pass a session on.
    Follow {
        /// The session.
        id: String,
    },
    /// Whether somebody reads the output at this agent.
    Lead(bool),
    /// Note a size that the terminal was given.
    Resize {
        /// The session.
        id: String,
        /// Width of the terminal.
        columns: u16,
        /// Height of the terminal.
        rows: u16,
    },
    /// End a session.
    Close {
        /// The session.
        id: String,
    },
    /// Which sessions there are.
    List,
}

/// The server's message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tell {
    /// The sessions that there are.
    Sessions(Vec<String>),
    /// A new session.
    Begun(String),
    /// From another agent.
    Floor(Floor),
    /// A program was started.
    Made(SessionInfo),
    /// The terminal, the history and the screen come next, and then output.
    Session {
        /// Its description.
        info: SessionInfo,
        /// Which of its lives it is.
        incarnation: [u8; 16],
        /// How much output came before.
        position: u64,
    },
    /// The terminal has another size.
    Resized {
        /// Width of the terminal.
        columns: u16,
        /// Height of the terminal.
        rows: u16,
    },
    /// The session has ended, with this exit status, or minus the number of the signal.
    Ended(i32),
    /// It was done.
    Done,
    /// It was not done.
    Failed(Failure),
}

/// Why the server did not do something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// As [`HubError::NoSuchSession`].
    NoSuchSession,
    /// As [`HubError::TooManySessions`].
    TooManySessions,
    /// As [`HubError::BadSize`].
    BadSize,
    /// Any other, as text for people.
    Other(String),
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        match error {
            HubError::NoSuchSession => Self::NoSuchSession,
            HubError::TooManySessions => Self::TooManySessions,
            HubError::BadSize => Self::BadSize,
            HubError::Terminal(_) | HubError::Server(_) => Self::Other(error.to_string()),
        }
    }
}

impl From<Failure> for HubError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoSuchSession => Self::NoSuchSession,
            Failure::TooManySessions => Self::TooManySessions,
            Failure::BadSize => Self::BadSize,
            Failure::Other(text) => Self::Server(text),
        }
    }
}

/// Why a message is refused. The connection ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageError {
    /// Its first byte.
    Kind(u8),
    /// Its length, and the longest of its kind.
    TooLong(usize, usize),
    /// It is no JSON of a message.
    Json,
    /// Its reader would write it in another way.
    Spelling,
    /// This value of it is none.
    Value(&'static str),
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => write!(f, "a message of kind {kind} is not expected here"),
            Self::TooLong(length, longest) => {
                write!(f, "the message has {length} bytes, and may have {longest}")
            }
            Self::Json => f.write_str("the message cannot be read; are agent and server of one version?"),
            Self::Spelling => f.write_str(
                "the message is not spelled as this version does; use one version of agent and server",
            ),
            Self::Value(name) => write!(f, "the message has a wrong value: {name}"),
        }
    }
}

impl std::error::Error for MessageError {}

impl From<MessageError> for io::Error {
    fn from(error: MessageError) -> Self {
        Self::new(ErrorKind::InvalidData, error)
    }
}

/// The messages of one side.
pub trait Side: Serialize + DeserializeOwned {
    /// Longest JSON, in bytes.
    const LONGEST_JSON: usize;
    /// Most plain bytes in a message. `None` if this side sends none.
    const LONGEST_BYTES: Option<usize>;

    /// Whether each value is one that the reader can use.
    ///
    /// # Errors
    /// [`MessageError::Value`] for the first that is not.
    fn check(&self) -> Result<(), MessageError>;
}

impl Side for Ask {
    const LONGEST_JSON: usize = LONGEST_ASK;
    const LONGEST_BYTES: Option<usize> = None;

    fn check(&self) -> Result<(), MessageError> {
        match self {
            // A wrong size is answered, so that a person learns of it.
            Self::Follow { id } | Self::Resize { id, .. } | Self::Close { id } => check_id(id),
            Self::Floor(floor) => floor.check(),
            Self::Join(_) | Self::Known | Self::Create { .. } | Self::Lead(_) | Self::List => Ok(()),
        }
    }
}

impl Side for Tell {
    const LONGEST_JSON: usize = LONGEST_TELL;
    const LONGEST_BYTES: Option<usize> = Some(LONGEST_OUTPUT);

    fn check(&self) -> Result<(), MessageError> {
        match self {
            Self::Sessions(ids) if ids.len() > MOST_LISTED => Err(MessageError::Value("number of sessions")),
            Self::Sessions(ids) => ids.iter().try_for_each(|id| check_id(id)),
            Self::Begun(id) => check_id(id),
            Self::Floor(floor) => floor.check(),
            Self::Made(info) => check_info(info),
            Self::Session { info, incarnation, .. } => {
                Incarnation::from_bytes(*incarnation).ok_or(MessageError::Value("incarnation"))?;
                check_info(info)
            }
            Self::Resized { columns, rows } => check_sides(*columns, *rows),
            Self::Ended(_) | Self::Done | Self::Failed(_) => Ok(()),
        }
    }
}

impl Floor {
    fn check(&self) -> Result<(), MessageError> {
        let credential: Result<CredentialId, _> = self.credential.parse();
        credential.map_err(|_| MessageError::Value("credential"))?;
        check_id(&self.session)
    }
}

fn check_id(id: &str) -> Result<(), MessageError> {
    SessionId::new(id).map(drop).map_err(|_| MessageError::Value("id of a session"))
}

fn check_sides(columns: u16, rows: u16) -> Result<(), MessageError> {
    check_size(columns, rows).map_err(|_| MessageError::Value("size"))
}

fn check_info(info: &SessionInfo) -> Result<(), MessageError> {
    check_id(&info.id)?;
    check_sides(info.cols, info.rows)
}

/// A message of either kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<T> {
    /// JSON.
    Json(T),
    /// Plain bytes.
    Bytes(Vec<u8>),
}

/// The kind and the length of a message, which its first five bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    kind: u8,
    length: usize,
}

impl Head {
    /// Reads them, as sent by the side `T`.
    ///
    /// # Errors
    /// If this side sends no such kind, or none as long.
    pub fn read<T: Side>(bytes: [u8; HEAD]) -> Result<Self, MessageError> {
        let [kind, length @ ..] = bytes;
        let longest = match kind {
            JSON => T::LONGEST_JSON,
            BYTES => T::LONGEST_BYTES.ok_or(MessageError::Kind(kind))?,
            _ => return Err(MessageError::Kind(kind)),
        };
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > longest {
            return Err(MessageError::TooLong(length, longest));
        }
        Ok(Self { kind, length })
    }

    /// How many bytes come next.
    pub fn length(self) -> usize {
        self.length
    }

    /// Reads these bytes.
    ///
    /// # Errors
    /// If they are not exactly what [`encode`] writes.
    pub fn body<T: Side>(self, body: Vec<u8>) -> Result<Message<T>, MessageError> {
        if self.kind == BYTES {
            return Ok(Message::Bytes(body));
        }
        let message: T = serde_json::from_slice(&body).map_err(|_| MessageError::Json)?;
        message.check()?;
        let written = serde_json::to_vec(&message).map_err(|_| MessageError::Json)?;
        if written == body { Ok(Message::Json(message)) } else { Err(MessageError::Spelling) }
    }
}

/// The bytes of a message of the side `T`.
///
/// # Errors
/// If the other side would refuse it.
pub fn encode<T: Side>(message: &T) -> Result<Vec<u8>, MessageError> {
    message.check()?;
    let json = serde_json::to_vec(message).map_err(|_| MessageError::Json)?;
    framed(JSON, &json, T::LONGEST_JSON)
}

/// The bytes of a message of plain bytes.
///
/// # Errors
/// If they are too many.
pub fn encode_bytes(bytes: &[u8]) -> Result<Vec<u8>, MessageError> {
    framed(BYTES, bytes, LONGEST_OUTPUT)
}

fn framed(kind: u8, body: &[u8], longest: usize) -> Result<Vec<u8>, MessageError> {
    let too_long = MessageError::TooLong(body.len(), longest);
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= longest).ok_or(too_long)?;
    let mut message = Vec::with_capacity(body.len().saturating_add(HEAD));
    message.push(kind);
    message.extend(length.to_be_bytes());
    message.extend(body);
    Ok(message)
}
