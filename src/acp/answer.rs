//! The answers to a phone's requests, made of what the agent answered to the bridge.

use crate::acp::message::RpcError;
use crate::acp::shape::{Rebuild, Shape, may, need};
use crate::acp::table::Asked;
use crate::acp::update::{CONFIG_OPTIONS, MODES, USAGE};
use crate::id::SessionId;
use crate::json::{Json, beginning};
use crate::limits::MAX_ERROR_TEXT_LEN;
use crate::op::{Op, OpSet};

/// The version of the Agent Client Protocol that phones are served.
const ACP_VERSION: i64 = 1;

/// The directory that phones are told in the place of the session's.
const NO_DIRECTORY: &str = "/";

const SESSION_STATE: Shape = Shape::Object(&[may("modes", MODES), may("configOptions", CONFIG_OPTIONS)]);
const PROMPT: Shape = Shape::Object(&[
    need(
        "stopReason",
        Shape::Choice(&["end_turn", "max_tokens", "max_turn_requests", "refusal", "cancelled"]),
    ),
    may("usage", USAGE),
]);
const LISTED: Shape = Shape::Object(&[
    need("sessionId", Shape::OwnSession),
    may("title", Shape::Text),
    may("updatedAt", Shape::Text),
]);
const STATUS: Shape = Shape::Object(&[need("status", Shape::Choice(&["open", "saved"]))]);
const INFO: Shape =
    Shape::Object(&[need("name", Shape::Text), may("title", Shape::Text), need("version", Shape::Text)]);

/// Makes the result of a request anew.
pub(super) fn result(
    asked: Asked,
    rebuild: Rebuild<'_>,
    session: &SessionId,
    ops: OpSet,
    result: &Json,
) -> Result<Json, RpcError> {
    let rebuilt = match asked {
        Asked::Initialize => Ok(initialize(rebuild, ops, result)),
        Asked::Authenticate | Asked::Logout => Ok(Json::object([])),
        Asked::AuthStatus => {
            Ok(Json::object([("state", Json::text("authenticated")), ("accounts", Json::List(Vec::new()))]))
        }
        Asked::ListSessions => Ok(list(rebuild, session, result)),
        Asked::Status => rebuild.value(&STATUS, result),
        Asked::Prompt => rebuild.value(&PROMPT, result),
        // Some agents answer `null`.
        Asked::Resume | Asked::Load if *result == Json::Null => Ok(Json::object([])),
        Asked::Resume | Asked::Load => rebuild.value(&SESSION_STATE, result),
    };
    rebuilt.map_err(|_| unreadable())
}

/// The error in the place of an answer that cannot be made anew, or is too long.
pub(super) fn unreadable() -> RpcError {
    RpcError {
        code: RpcError::INTERNAL,
        message: "the agent's answer is not one that a phone can be given; look at the desktop".to_owned(),
        data: Some(Json::object([("reason", Json::text("agent_answer"))])),
    }
}

/// The session's own entry and no other, without its directories.
fn list(rebuild: Rebuild<'_>, session: &SessionId, result: &Json) -> Json {
    let sessions = match result.get("sessions") {
        Some(Json::List(sessions)) => sessions.as_slice(),
        _ => &[],
    };
    let own = sessions.iter().find_map(|entry| rebuild.value(&LISTED, entry).ok());
    let mut entry = match own {
        Some(Json::Object(entry)) => entry,
        _ => vec![("sessionId".to_owned(), Json::text(session.as_str()))],
    };
    // The protocol requires one.
    entry.push(("cwd".to_owned(), Json::text(NO_DIRECTORY)));
    Json::object([("sessions", Json::List(vec![Json::Object(entry)]))])
}

/// What the agent can do, as far as this phone may use it.
fn initialize(rebuild: Rebuild<'_>, ops: OpSet, result: &Json) -> Json {
    let capabilities = result.get("agentCapabilities");
    let able = |path: &[&str]| {
        let found = path.iter().try_fold(capabilities?, |json, key| json.get(key));
        Some(found == Some(&Json::Bool(true)))
    };
    let prompt = |what: &str| {
        Json::Bool(ops.contains(Op::SendInput) && able(&["promptCapabilities", what]) == Some(true))
    };
    let mut session = Vec::new();
    let mut offer = |op: Op, key: &str| {
        if ops.contains(op) {
            session.push((key.to_owned(), Json::object([])));
        }
    };
    offer(Op::ReadMetadata, "list");
    offer(Op::ReadMetadata, "status");
    offer(Op::StreamOutput, "resume");
    let load = ops.contains(Op::ReadHistory) && able(&["loadSession"]) == Some(true);
    let mut entries = vec![
        ("protocolVersion".to_owned(), Json::integer(ACP_VERSION)),
        (
            "agentCapabilities".to_owned(),
            Json::object([
                ("loadSession", Json::Bool(load)),
                (
                    "promptCapabilities",
                    Json::object([
                        ("image", prompt("image")),
                        ("audio", prompt("audio")),
                        ("embeddedContext", prompt("embeddedContext")),
                    ]),
                ),
                ("mcpCapabilities", Json::object([("http", Json::Bool(false)), ("sse", Json::Bool(false))])),
                ("sessionCapabilities", Json::Object(session)),
            ]),
        ),
        ("authMethods".to_owned(), Json::List(Vec::new())),
    ];
    let info = result.get("agentInfo").and_then(|info| rebuild.value(&INFO, info).ok());
    entries.extend(info.map(|info| ("agentInfo".to_owned(), info)));
    Json::Object(entries)
}

/// The agent's error: its number and the beginning of its sentence.
pub(super) fn error(error: &RpcError) -> RpcError {
    RpcError { code: error.code, message: beginning(&error.message, MAX_ERROR_TEXT_LEN), data: None }
}
