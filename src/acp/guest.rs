//! One phone's side of one session.

use core::fmt;

use crate::acp::message::{MessageError, RequestId, RpcError};
use crate::id::SessionId;
use crate::json::Json;
use crate::limits::MAX_ACP_SESSION_ID_LEN;
use crate::op::{Action, Op, Privilege};

/// The id of a session at the agent: free text of 1 to [`AcpSessionId::MAX_LEN`] bytes. A phone never sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AcpSessionId(String);

impl AcpSessionId {
    /// Longest id, bytes.
    pub const MAX_LEN: usize = MAX_ACP_SESSION_ID_LEN;

    /// Makes an id. Returns `None` if the text is empty or too long.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Option<Self> {
        let id = id.into();
        (1..=Self::MAX_LEN).contains(&id.len()).then_some(Self(id))
    }

    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AcpSessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One phone's side of one session: what it may say, what it is told, which of its requests and which questions to
/// it are open.
#[derive(Debug)]
pub struct Guest {
    session: SessionId,
    upstream: AcpSessionId,
}

/// A request of a phone that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Asked {
    /// `initialize`.
    Initialize,
    /// `authenticate`.
    Authenticate,
    /// `logout`.
    Logout,
    /// `session/list`.
    ListSessions,
    /// `session/status`.
    Status,
    /// `session/prompt`.
    Prompt,
    /// `session/resume`.
    Resume,
    /// `session/load`.
    Load,
}

/// A message of a phone, made of checked values.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum FromPhone {
    /// A request of the kind that is named.
    Request {
        /// Its id.
        id: RequestId,
        /// What it asks for.
        asked: Asked,
    },
    /// `session/prompt`.
    Prompt {
        /// Its id.
        id: RequestId,
        /// The content blocks, a list.
        prompt: Json,
    },
    /// `session/cancel`: stop the turn.
    Cancel,
    /// `$/cancel_request` for a request of this phone that is not answered yet.
    CancelRequest {
        /// The id of the request.
        id: RequestId,
    },
    /// The answer to an open question.
    Answer {
        /// The number of the question.
        question: i64,
        /// The result for the agent.
        outcome: Json,
    },
    /// The phone could not answer a question.
    AnswerError {
        /// The number of the question.
        question: i64,
    },
}

impl FromPhone {
    /// Returns what the message needs.
    #[must_use]
    pub fn action(&self) -> Action {
        Action::Session(match self {
            Self::Request { .. } | Self::CancelRequest { .. } => Op::Detach,
            Self::Prompt { .. } | Self::Answer { .. } | Self::AnswerError { .. } => Op::SendInput,
            Self::Cancel => Op::Interrupt,
        })
    }

    /// Returns the method and parameters that go to the agent, with its id of the session. Returns `None` if nothing
    /// of the message goes there.
    #[must_use]
    pub fn upstream(&self, _session: &AcpSessionId) -> Option<(&'static str, Json)> {
        None
    }
}

/// A message to a phone, and the operation under which it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToPhone {
    /// The operation.
    pub op: Op,
    /// One JSON-RPC message.
    pub text: String,
}

/// Why a phone's message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// No credential allows it.
    Privileged(Privilege),
    /// It names another session.
    OtherSession,
    /// It is no JSON-RPC message.
    Message(MessageError),
    /// There is no such method, or not as this kind of message.
    UnknownMethod,
    /// The parameters are not those of the method, or have more than the table allows.
    Parameters,
    /// It answers or cancels what is not open.
    NotPending,
    /// It answers with a choice that was not offered.
    NotOffered,
    /// A request with this id is not answered yet.
    IdInUse,
    /// Too many requests are not answered yet.
    TooManyRequests,
}

/// A phone's message that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The id of the request, if it is one.
    pub id: Option<RequestId>,
    /// Why.
    pub reason: Reason,
}

impl Refusal {
    /// Returns the JSON-RPC response that tells the phone. Returns `None` if what was refused has no answer.
    #[must_use]
    pub fn answer(&self) -> Option<String> {
        None
    }
}

impl Guest {
    /// Makes the side of a phone whose credential names `session`, which is `upstream` at the agent.
    #[must_use]
    pub fn new(session: SessionId, upstream: AcpSessionId) -> Self {
        Self { session, upstream }
    }

    /// Reads one message of the phone. Nothing is recorded: call [`Guest::take`] once it is permitted.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn read(&self, _message: &[u8]) -> Result<FromPhone, Refusal> {
        Err(Refusal { id: None, reason: Reason::UnknownMethod })
    }

    /// Records a message that was permitted: a request is open until [`Guest::result`], a question is answered.
    ///
    /// # Errors
    /// [`Refusal`], if it cannot be taken now.
    pub fn take(&mut self, _message: &FromPhone) -> Result<(), Refusal> {
        Ok(())
    }

    /// Rebuilds the `params` of an agent's `session/update` for the phone. Returns `None` if it is not for it.
    #[must_use]
    pub fn update(&self, _params: &Json) -> Option<ToPhone> {
        None
    }

    /// As [`Guest::update`], for an update of the past that a `session/load` brings.
    #[must_use]
    pub fn replay(&self, _params: &Json) -> Option<ToPhone> {
        None
    }

    /// Asks the phone a question of the agent, `session/request_permission` or `elicitation/create`, under the number
    /// that the bridge chose. Returns `None` if it is not for this phone.
    #[must_use]
    pub fn ask(&mut self, _question: i64, _method: &str, _params: &Json) -> Option<ToPhone> {
        None
    }

    /// Ends a question: answered, cancelled or over. Returns what tells the phone, if it had it.
    #[must_use]
    pub fn retire(&mut self, _question: i64) -> Option<ToPhone> {
        None
    }

    /// Answers a request of the phone with the agent's result or error. Returns `None` if none with this id is open.
    #[must_use]
    pub fn result(&mut self, _id: &RequestId, _outcome: &Result<Json, RpcError>) -> Option<ToPhone> {
        None
    }

    /// Returns the session's id at the agent.
    #[must_use]
    pub fn upstream(&self) -> &AcpSessionId {
        &self.upstream
    }

    /// Returns the session that the phone's credential names.
    #[must_use]
    pub fn session(&self) -> &SessionId {
        &self.session
    }
}
