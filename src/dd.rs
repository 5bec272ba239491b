//! The adapter of the deployed agents' requests, `{"method":…, parameters}` in one frame of JSON (`docs/PROTOCOL.md`
//! section 16.5). Pure: it reads and writes texts, and sends nothing.
//!
//! What a phone asks is read strictly and made anew with the credential's session; what the agent answers is made anew
//! with the keys that a phone may see. Nothing is passed on as it came.

use thiserror::Error;

pub use crate::json::{Json, JsonError, Number};

use crate::id::SessionId;
use crate::json::beginning;
use crate::limits::{MAX_ERROR_TEXT_LEN, MAX_JSON_DEPTH, MAX_MESSAGE_LEN, MAX_METHOD_LEN, MAX_TERMINAL_SIDE};
use crate::op::{Action, Op, Privilege};

/// Returns the action behind a method of the deployed agents, or of `docs/PROTOCOL.md` section 8.1. Returns `None` for
/// a method that there is not: it is refused.
#[must_use]
pub fn action_of(method: &str) -> Option<Action> {
    Some(match method {
        "shell.attach_session" => Action::Session(Op::StreamOutput),
        "shell.replay_session" => Action::Session(Op::ReadHistory),
        "shell.resize_session" => Action::Session(Op::Resize),
        // Answered with the phone's own session only.
        "shell.list_sessions" => Action::Session(Op::ReadMetadata),

        "shell.list_recipes" | "list" | "logs" | "health" | "attest" => {
            Action::Privileged(Privilege::DiscoverFleet)
        }
        "shell.create_session" => Action::Privileged(Privilege::CreateSession),
        // `attach` runs a command of the caller's, despite its name.
        "exec" | "attach" => Action::Privileged(Privilege::ExecuteOutsideSession),
        "pair.register_issuer"
        | "pair.offer"
        | "pair.confirm"
        | "pair.renew"
        | "pair.list"
        | "pair.revoke" => Action::Privileged(Privilege::Enroll),
        "shell.close_session" | "deploy" => Action::Privileged(Privilege::Administer),
        _ => return None,
    })
}

/// A phone's request about its session, made of checked values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Request {
    /// `shell.list_sessions`. The answer has the one session.
    ListSessions,
    /// `shell.attach_session`: follow the output; the channel is raw bytes from then on.
    AttachSession {
        /// Whether the agent sends the recent output first.
        tail: bool,
    },
    /// `shell.replay_session`: the stored transcript.
    ReplaySession,
    /// `shell.resize_session`, each side 1 to 1000.
    ResizeSession {
        /// Characters in a line.
        cols: u16,
        /// Lines.
        rows: u16,
    },
}

/// Why a phone's request is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No credential allows the method.
    #[error("no phone may {0}; do it at the desktop")]
    Privileged(Privilege),
    /// It names another session.
    #[error("the request names another session; ask at the desktop for a link to that one")]
    OtherSession,
    /// There is no such method.
    #[error("there is no such method; use one that the agent has")]
    UnknownMethod {
        /// Its name, at most 256 bytes.
        method: String,
    },
    /// The parameters are not those of the method.
    #[error("the parameters are not those of the method; send these and no others")]
    Parameters,
    /// Not a request: not JSON, a repeated key, no method.
    #[error("not one json object with a `method` and each key once; write it so")]
    Malformed,
}

impl Refusal {
    /// Returns the name of the reason, which stays the same from version to version.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Privileged(_) => "privilege_denied",
            Self::OtherSession => "other_session",
            Self::UnknownMethod { .. } => "unknown_method",
            Self::Parameters => "parameters",
            Self::Malformed => "malformed",
        }
    }
}

impl Request {
    /// Longest request or answer, bytes.
    pub const MAX_LEN: usize = MAX_MESSAGE_LEN;
    /// Deepest nesting of arrays and objects in a request or an answer.
    pub const MAX_DEPTH: usize = MAX_JSON_DEPTH;

    /// Reads a request of a phone whose credential names `session`. An `id` may be missing; if it is there it must be
    /// the session's, byte for byte. Unknown keys are refused.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn read(json: &[u8], session: &SessionId) -> Result<Self, Refusal> {
        let read = Json::from_bytes(json, Self::MAX_LEN, Self::MAX_DEPTH);
        let Ok(Json::Object(mut entries)) = read else { return Err(Refusal::Malformed) };
        let at = entries.iter().position(|(key, _)| key == "method").ok_or(Refusal::Malformed)?;
        let (_, Json::Text(method)) = entries.swap_remove(at) else { return Err(Refusal::Malformed) };
        if method.len() > MAX_METHOD_LEN {
            return Err(Refusal::Malformed);
        }
        match action_of(&method) {
            // Whatever its parameters are.
            Some(Action::Privileged(privilege)) => return Err(Refusal::Privileged(privilege)),
            None => return Err(Refusal::UnknownMethod { method }),
            Some(Action::Session(_)) => {}
        }
        let mut parameters = Parameters(entries);
        let request = match method.as_str() {
            "shell.list_sessions" => Self::ListSessions,
            "shell.attach_session" => {
                parameters.check_id(session)?;
                Self::AttachSession { tail: parameters.bool("tail")? }
            }
            "shell.replay_session" => {
                parameters.check_id(session)?;
                Self::ReplaySession
            }
            "shell.resize_session" => {
                parameters.check_id(session)?;
                Self::ResizeSession { cols: parameters.side("cols")?, rows: parameters.side("rows")? }
            }
            _ => return Err(Refusal::UnknownMethod { method }),
        };
        if parameters.0.is_empty() { Ok(request) } else { Err(Refusal::Parameters) }
    }

    /// Returns what the request needs.
    #[must_use]
    pub fn action(&self) -> Action {
        Action::Session(match self {
            Self::ListSessions => Op::ReadMetadata,
            Self::AttachSession { .. } => Op::StreamOutput,
            Self::ReplaySession => Op::ReadHistory,
            Self::ResizeSession { .. } => Op::Resize,
        })
    }

    /// Returns the request for a deployed agent, with the credential's session.
    #[must_use]
    pub fn to_text(&self, session: &SessionId) -> String {
        let id = || Json::text(session.as_str());
        let request = match *self {
            Self::ListSessions => Json::object([("method", Json::text("shell.list_sessions"))]),
            Self::AttachSession { tail } => Json::object([
                ("method", Json::text("shell.attach_session")),
                ("id", id()),
                ("tail", Json::Bool(tail)),
            ]),
            Self::ReplaySession => {
                Json::object([("method", Json::text("shell.replay_session")), ("id", id())])
            }
            Self::ResizeSession { cols, rows } => Json::object([
                ("method", Json::text("shell.resize_session")),
                ("id", id()),
                ("cols", Json::integer(cols.into())),
                ("rows", Json::integer(rows.into())),
            ]),
        };
        request.to_text()
    }

    /// Makes an agent's answer to this request anew for the phone: the session's own entry of a list, without command
    /// line and directory, and of the other answers the keys that section 16.5 has. An error keeps its code and the
    /// beginning of its text.
    ///
    /// # Errors
    /// [`JsonError`] if the answer is no JSON object.
    pub fn answer(&self, answer: &[u8], session: &SessionId) -> Result<String, JsonError> {
        let answer = Json::from_bytes(answer, Self::MAX_LEN, Self::MAX_DEPTH)?;
        if !matches!(answer, Json::Object(_)) {
            return Err(JsonError::Malformed { depth: Self::MAX_DEPTH });
        }
        if let Some(Json::Text(code)) = answer.get("error") {
            let detail = answer.get("detail").and_then(Json::as_text).unwrap_or_default();
            return Ok(Json::object([
                ("error", Json::text(beginning(code, MAX_ERROR_TEXT_LEN))),
                ("detail", Json::text(beginning(detail, MAX_ERROR_TEXT_LEN))),
            ])
            .to_text());
        }
        let mut rebuilt = vec![("ok".to_owned(), Json::Bool(true))];
        match self {
            Self::ListSessions => {
                let sessions = match answer.get("sessions") {
                    Some(Json::List(sessions)) => sessions.as_slice(),
                    _ => &[],
                };
                let own = |entry: &&Json| entry.get("id").and_then(Json::as_text) == Some(session.as_str());
                let own = sessions.iter().find(own).map(describe);
                rebuilt.push(("sessions".to_owned(), Json::List(own.into_iter().collect())));
            }
            Self::ReplaySession => {
                rebuilt.push(("id".to_owned(), Json::text(session.as_str())));
                rebuilt.extend(taken(&answer, &["data"], |json| matches!(json, Json::Text(_))));
                rebuilt.extend(taken(&answer, &["truncated"], |json| matches!(json, Json::Bool(_))));
            }
            Self::AttachSession { .. } | Self::ResizeSession { .. } => {}
        }
        Ok(Json::Object(rebuilt).to_text())
    }
}

/// The parameters that were not looked at yet.
struct Parameters(Vec<(String, Json)>);

impl Parameters {
    fn take(&mut self, key: &str) -> Option<Json> {
        let at = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.swap_remove(at).1)
    }

    fn check_id(&mut self, session: &SessionId) -> Result<(), Refusal> {
        match self.take("id") {
            None => Ok(()),
            Some(Json::Text(id)) if id == session.as_str() => Ok(()),
            Some(_) => Err(Refusal::OtherSession),
        }
    }

    fn bool(&mut self, key: &str) -> Result<bool, Refusal> {
        match self.take(key) {
            None => Ok(false),
            Some(Json::Bool(value)) => Ok(value),
            Some(_) => Err(Refusal::Parameters),
        }
    }

    fn side(&mut self, key: &str) -> Result<u16, Refusal> {
        let side =
            self.take(key).and_then(|side| side.as_integer()).and_then(|side| u16::try_from(side).ok());
        side.filter(|side| (1..=MAX_TERMINAL_SIDE).contains(side)).ok_or(Refusal::Parameters)
    }
}

/// A session as its phone sees it.
fn describe(entry: &Json) -> Json {
    let mut shown = taken(entry, &["id", "name"], |json| matches!(json, Json::Text(_)));
    shown.extend(taken(entry, &["cols", "rows", "created_at_ms"], |json| matches!(json, Json::Number(_))));
    shown.extend(taken(entry, &["running"], |json| matches!(json, Json::Bool(_))));
    Json::Object(shown)
}

fn taken(json: &Json, keys: &[&str], fits: fn(&Json) -> bool) -> Vec<(String, Json)> {
    let value = |key: &&str| Some(((*key).to_owned(), json.get(key).filter(|json| fits(json))?.clone()));
    keys.iter().filter_map(value).collect()
}
