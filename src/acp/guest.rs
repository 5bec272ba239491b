//! One phone's side of one session.

use core::fmt;
use std::collections::BTreeMap;

use crate::acp::answer;
use crate::acp::message::{AcpProfile, Message, RequestId, RpcError};
use crate::acp::question::Question;
use crate::acp::refusal::{Reason, Refusal};
use crate::acp::shape::{Misfit, Rebuild, Shape, may, need};
use crate::acp::table::{self, Asked, Kind, Rule, Sender};
use crate::acp::update::{self, INPUT_BLOCK};
use crate::id::SessionId;
use crate::json::Json;
use crate::limits::{MAX_ACP_FORM_LEN, MAX_ACP_OPTIONS, MAX_ACP_QUESTIONS, MAX_ACP_SESSION_ID_LEN};
use crate::op::{Action, Op, OpSet};

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
///
/// It decides nothing about operations: [`Guest::action`] says what a message needs, and the guard of the connection
/// permits it or not. The operations that it is made with are only what the phone is told that it can do.
#[derive(Debug)]
pub struct Guest {
    session: SessionId,
    upstream: AcpSessionId,
    ops: OpSet,
    requests: BTreeMap<RequestId, Asked>,
    questions: BTreeMap<i64, Question>,
}

/// A message of a phone, made of checked values.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum FromPhone {
    /// A request without content: all but `session/prompt`. Nothing of it goes to the agent.
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
        /// The content blocks: a list of at least one.
        prompt: Json,
    },
    /// `session/cancel`: stop the turn.
    Cancel,
    /// `$/cancel_request` for a request of this phone that is not answered yet.
    CancelRequest {
        /// The id of the request.
        id: RequestId,
    },
    /// The answer to an open question, with a choice that was offered.
    Answer {
        /// The number of the question.
        question: i64,
        /// The result for the agent.
        outcome: Json,
    },
    /// The phone answered a question with an error: it leaves it to others.
    AnswerError {
        /// The number of the question.
        question: i64,
    },
}

impl FromPhone {
    /// Returns the id of a request. Returns `None` if the message is none.
    #[must_use]
    pub fn id(&self) -> Option<&RequestId> {
        match self {
            Self::Request { id, .. } | Self::Prompt { id, .. } => Some(id),
            _ => None,
        }
    }

    /// Returns the method and the parameters that go to the agent, with its own id of the session. Returns `None` if
    /// nothing of the message goes there, or if it is the result of the agent's own request.
    #[must_use]
    pub fn upstream(&self, session: &AcpSessionId) -> Option<(&'static str, Json)> {
        let id = Json::text(session.as_str());
        match self {
            Self::Prompt { prompt, .. } => {
                Some(("session/prompt", Json::object([("sessionId", id), ("prompt", prompt.clone())])))
            }
            Self::Cancel => Some(("session/cancel", Json::object([("sessionId", id)]))),
            _ => None,
        }
    }
}

/// A message to a phone, and the operation under which it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToPhone {
    /// The operation.
    pub op: Op,
    /// One JSON-RPC message, at most [`Message::MAX_LEN`] bytes.
    pub text: String,
}

const NO_PARAMETERS: Shape = Shape::Object(&[]);
const OF_SESSION: Shape = Shape::Object(&[need("sessionId", Shape::OwnSession)]);
/// The bridge answers these itself. The directory is required by the protocol and goes nowhere.
const FOLLOW: Shape = Shape::Object(&[
    need("sessionId", Shape::OwnSession),
    may("cwd", Shape::Text),
    may("mcpServers", Shape::EmptyList),
    may("additionalDirectories", Shape::EmptyList),
]);
const PROMPT: Shape =
    Shape::Object(&[need("sessionId", Shape::OwnSession), need("prompt", Shape::List(&INPUT_BLOCK))]);
const INITIALIZE: Shape = Shape::Object(&[
    need("protocolVersion", Shape::Integer),
    may("clientCapabilities", Shape::Any),
    may("clientInfo", Shape::Any),
]);
const AUTHENTICATE: Shape = Shape::Object(&[need("methodId", Shape::Text)]);
const LIST: Shape = Shape::Object(&[may("cwd", Shape::Text), may("cursor", Shape::Null)]);
const CANCEL_REQUEST: Shape = Shape::Object(&[need("requestId", Shape::RequestId)]);

fn parameters_of(asked: Asked) -> &'static Shape {
    match asked {
        Asked::Initialize => &INITIALIZE,
        Asked::Authenticate => &AUTHENTICATE,
        Asked::Logout | Asked::AuthStatus => &NO_PARAMETERS,
        Asked::ListSessions => &LIST,
        Asked::Status => &OF_SESSION,
        Asked::Prompt => &PROMPT,
        Asked::Resume | Asked::Load => &FOLLOW,
    }
}

impl Guest {
    /// Most requests of one phone that are not answered yet.
    pub const MAX_REQUESTS: usize = AcpProfile::MAX_REQUESTS;
    /// Most questions that are open at one phone. Further ones are for the desktop and other phones.
    pub const MAX_QUESTIONS: usize = MAX_ACP_QUESTIONS;
    /// Most choices of a permission that a phone is offered.
    pub const MAX_OPTIONS: usize = MAX_ACP_OPTIONS;
    /// Longest form that a phone is asked to fill in, bytes of JSON.
    pub const MAX_FORM_LEN: usize = MAX_ACP_FORM_LEN;

    /// Makes the side of a phone whose credential names `session`, which is `upstream` at the agent, and grants
    /// `ops`.
    #[must_use]
    pub fn new(session: SessionId, upstream: AcpSessionId, ops: OpSet) -> Self {
        Self { session, upstream, ops, requests: BTreeMap::new(), questions: BTreeMap::new() }
    }

    /// Returns the session that the phone's credential names.
    #[must_use]
    pub fn session(&self) -> &SessionId {
        &self.session
    }

    /// Returns the session's id at the agent.
    #[must_use]
    pub fn upstream(&self) -> &AcpSessionId {
        &self.upstream
    }

    /// Returns what a message needs. What concerns the connection alone needs the first operation that the phone has.
    #[must_use]
    pub fn action(&self, message: &FromPhone) -> Action {
        Action::Session(match message {
            FromPhone::Request { asked, .. } => self.op_of(*asked),
            FromPhone::CancelRequest { .. } => self.connection_op(),
            FromPhone::Prompt { .. } | FromPhone::Answer { .. } | FromPhone::AnswerError { .. } => {
                Op::SendInput
            }
            FromPhone::Cancel => Op::Interrupt,
        })
    }

    fn op_of(&self, asked: Asked) -> Op {
        asked.op().unwrap_or_else(|| self.connection_op())
    }

    fn connection_op(&self) -> Op {
        self.ops.iter().next().unwrap_or(Op::Detach)
    }

    /// Reads one message of the phone. Nothing of its text is kept but checked values, and nothing is recorded: call
    /// [`Guest::take`] once it is permitted. It costs one reading of the text and one copy of its values.
    ///
    /// # Errors
    /// [`Refusal`], with what the phone is told.
    pub fn read(&self, message: &[u8]) -> Result<FromPhone, Refusal> {
        let message = Message::from_bytes(message)
            .map_err(|error| Refusal { id: Some(RequestId::Null), reason: Reason::Message(error) })?;
        match message {
            Message::Request { id, method, params } => {
                self.request(&id, &method, params).map_err(|reason| Refusal { id: Some(id), reason })
            }
            Message::Notification { method, params } => {
                self.notification(&method, params).map_err(|reason| Refusal { id: None, reason })
            }
            Message::Response { id, outcome } => {
                self.response(&id, outcome).map_err(|reason| Refusal { id: None, reason })
            }
        }
    }

    fn request(&self, id: &RequestId, method: &str, params: Option<Json>) -> Result<FromPhone, Reason> {
        allowed(Kind::Request, method)?;
        let asked = table::asked(method).ok_or(Reason::UnknownMethod)?;
        self.room(id)?;
        let params = self.parameters(parameters_of(asked), params)?;
        match (asked, params) {
            (Asked::Prompt, Json::Object(entries)) => {
                let prompt = entries.into_iter().find(|(key, _)| key == "prompt").map(|(_, prompt)| prompt);
                match prompt {
                    Some(Json::List(blocks)) if !blocks.is_empty() => {
                        Ok(FromPhone::Prompt { id: id.clone(), prompt: Json::List(blocks) })
                    }
                    _ => Err(Reason::Parameters),
                }
            }
            (asked, _) => Ok(FromPhone::Request { id: id.clone(), asked }),
        }
    }

    fn notification(&self, method: &str, params: Option<Json>) -> Result<FromPhone, Reason> {
        allowed(Kind::Notification, method)?;
        if method == "session/cancel" {
            return self.parameters(&OF_SESSION, params).map(|_| FromPhone::Cancel);
        }
        let params = self.parameters(&CANCEL_REQUEST, params)?;
        let id = params.get("requestId").and_then(RequestId::from_json).ok_or(Reason::Parameters)?;
        if self.requests.contains_key(&id) {
            Ok(FromPhone::CancelRequest { id })
        } else {
            Err(Reason::NotPending)
        }
    }

    fn response(&self, id: &RequestId, outcome: Result<Json, RpcError>) -> Result<FromPhone, Reason> {
        let RequestId::Number(question) = *id else { return Err(Reason::NotPending) };
        let open = self.questions.get(&question).ok_or(Reason::NotPending)?;
        match outcome {
            Ok(result) => Ok(FromPhone::Answer { question, outcome: open.answer(&result)? }),
            Err(_) => Ok(FromPhone::AnswerError { question }),
        }
    }

    fn parameters(&self, shape: &Shape, params: Option<Json>) -> Result<Json, Reason> {
        let params = params.unwrap_or(Json::Object(Vec::new()));
        Rebuild::from_phone(self.session.as_str()).value(shape, &params).map_err(|misfit| match misfit {
            Misfit::Shape => Reason::Parameters,
            Misfit::OtherSession => Reason::OtherSession,
        })
    }

    fn room(&self, id: &RequestId) -> Result<(), Reason> {
        if self.requests.contains_key(id) {
            return Err(Reason::IdInUse);
        }
        if self.requests.len() >= Self::MAX_REQUESTS { Err(Reason::TooManyRequests) } else { Ok(()) }
    }

    /// Records a message that was permitted: a request is open until [`Guest::result`], a question is answered.
    ///
    /// # Errors
    /// [`Refusal`] if it cannot be taken any more, because another message came between.
    pub fn take(&mut self, message: &FromPhone) -> Result<(), Refusal> {
        let (id, asked) = match message {
            FromPhone::Request { id, asked } => (id, *asked),
            FromPhone::Prompt { id, .. } => (id, Asked::Prompt),
            FromPhone::Answer { question, .. } | FromPhone::AnswerError { question } => {
                let open = self.questions.remove(question);
                return open.map(drop).ok_or(Refusal { id: None, reason: Reason::NotPending });
            }
            FromPhone::Cancel | FromPhone::CancelRequest { .. } => return Ok(()),
        };
        self.room(id).map_err(|reason| Refusal { id: Some(id.clone()), reason })?;
        self.requests.insert(id.clone(), asked);
        Ok(())
    }

    /// Answers a request of the phone with what the agent or the bridge answered. Returns `None` if none with this id
    /// is open.
    ///
    /// The result is made anew, for [`Asked::Initialize`] of the agent's own answer to the bridge, and for
    /// [`Asked::ListSessions`] of any list that has the session under the agent's id. For the others that the bridge
    /// answers itself it may be `null`.
    #[must_use]
    pub fn result(&mut self, id: &RequestId, outcome: &Result<Json, RpcError>) -> Option<ToPhone> {
        let asked = self.requests.remove(id)?;
        let outcome = match outcome {
            Ok(result) => answer::result(asked, self.outbound(), &self.session, self.ops, result),
            Err(error) => Err(answer::error(error)),
        };
        let text = Message::Response { id: id.clone(), outcome }.to_text();
        let text = if text.len() <= Message::MAX_LEN {
            text
        } else {
            Message::Response { id: id.clone(), outcome: Err(answer::unreadable()) }.to_text()
        };
        Some(ToPhone { op: self.op_of(asked), text })
    }

    /// Makes the `params` of an agent's `session/update` anew. Returns `None` if it is not for this phone: of another
    /// session, of a kind that phones do not get, or of a form that the protocol does not have.
    ///
    /// What is longer than [`Message::MAX_LEN`] comes without its content, and says so.
    #[must_use]
    pub fn update(&self, params: &Json) -> Option<ToPhone> {
        let (op, text) = update::rebuild(self.outbound(), params).ok()?;
        Some(ToPhone { op, text })
    }

    /// As [`Guest::update`], for an update of the past that follows a `session/load`.
    #[must_use]
    pub fn replay(&self, params: &Json) -> Option<ToPhone> {
        self.update(params).map(|update| ToPhone { op: Op::ReadHistory, ..update })
    }

    /// Asks the phone a question of the agent, `session/request_permission` or `elicitation/create`, under the number
    /// that the bridge chose. Returns `None` if it is not for this phone: of another session, without a choice that
    /// holds for one time only, a form that is no plain form, or one too many.
    ///
    /// It goes out under [`Op::SendInput`]: whoever may answer is asked.
    #[must_use]
    pub fn ask(&mut self, question: i64, method: &str, params: &Json) -> Option<ToPhone> {
        if self.questions.len() >= Self::MAX_QUESTIONS || self.questions.contains_key(&question) {
            return None;
        }
        let rule = Rule::of(Sender::Agent, Kind::Request, method);
        if !matches!(rule, Rule::Session(op) if self.ops.contains(op)) {
            return None;
        }
        let (open, params) = Question::read(self.outbound(), method, params)?;
        let id = RequestId::Number(question);
        let text = Message::Request { id, method: method.to_owned(), params: Some(params) }.to_text();
        if text.len() > Message::MAX_LEN {
            return None;
        }
        self.questions.insert(question, open);
        Some(ToPhone { op: Op::SendInput, text })
    }

    /// Ends a question: answered elsewhere, cancelled or over. Returns the `$/cancel_request` that tells the phone, if
    /// the question is open there.
    #[must_use]
    pub fn retire(&mut self, question: i64) -> Option<ToPhone> {
        self.questions.remove(&question)?;
        let params = Json::object([("requestId", Json::integer(question))]);
        let text =
            Message::Notification { method: "$/cancel_request".to_owned(), params: Some(params) }.to_text();
        Some(ToPhone { op: Op::SendInput, text })
    }

    /// Leaves the operations that are in `ops` too: the credential has been narrowed. Returns the numbers of the open
    /// questions that the phone may not answer any more, so that nobody waits for it; [`Guest::retire`] ends each.
    #[must_use]
    pub fn narrow(&mut self, ops: OpSet) -> Vec<i64> {
        self.ops = self.ops.intersection(ops);
        match self.ops.contains(Op::SendInput) {
            true => Vec::new(),
            false => self.questions.keys().copied().collect(),
        }
    }

    fn outbound(&self) -> Rebuild<'_> {
        Rebuild::to_phone(self.upstream.as_str(), self.session.as_str())
    }
}

/// Checks a phone's method against the table.
fn allowed(kind: Kind, method: &str) -> Result<(), Reason> {
    match Rule::of(Sender::Phone, kind, method) {
        Rule::Session(_) | Rule::Connection => Ok(()),
        Rule::Privileged(privilege) => Err(Reason::Privileged(privilege)),
        Rule::Unserved(op) => Err(Reason::Unserved(op)),
        Rule::Withheld | Rule::Unknown => Err(Reason::UnknownMethod),
    }
}
