//! What a phone's message asks for, and what that needs.

use serde::Deserialize;
use serde_json::{Value, json};
use sessioncap::agent::Denial;
use sessioncap::session::{FromPhone, ResumePoint};
use sessioncap::{Action, Op, SessionId};

use crate::agent::device;
use crate::classify::classify;
use crate::pty::Viewer;
use crate::request::{BadRequest, Request, error};

/// A message that was read.
pub(super) enum Asked {
    Input(Vec<u8>),
    Follow(Option<ResumePoint>),
    Resize {
        columns: u16,
        rows: u16,
    },
    Interrupt,
    Request(Op, Method),
    /// What no credential allows. It is never released.
    Privileged,
}

/// A request for the phone's own session.
#[derive(Debug, Clone, Copy)]
pub(super) enum Method {
    ListSessions,
    ReplaySession,
    ResizeSession { cols: u16, rows: u16 },
}

/// Reads a message.
pub(super) fn read(message: &[u8], own: &SessionId) -> Result<(Action, Asked), Denial> {
    let message = FromPhone::from_bytes(message).map_err(|_| Denial::FrameUnreadable)?;
    let asked = match message {
        FromPhone::Input(bytes) => Asked::Input(bytes.to_vec()),
        FromPhone::Follow(point) => Asked::Follow(point),
        FromPhone::Resize { columns, rows } => Asked::Resize { columns, rows },
        FromPhone::Interrupt => Asked::Interrupt,
        FromPhone::Request(json) => return read_request(json, own),
        // There is no protocol of this agent's own.
        _ => return Err(Denial::FrameUnreadable),
    };
    Ok((message.action().ok_or(Denial::FrameUnreadable)?, asked))
}

fn read_request(json: &str, own: &SessionId) -> Result<(Action, Asked), Denial> {
    let request = Request::parse(json.as_bytes()).map_err(|BadRequest| Denial::FrameUnreadable)?;
    let action = classify(&request).ok_or(Denial::FrameUnreadable)?;
    let Action::Session(op) = action else {
        // Refused, whatever its parameters are.
        return Ok((action, Asked::Privileged));
    };
    if request.named_session().is_some_and(|named| named.as_str() != Some(own.as_str())) {
        return Err(Denial::OtherSession);
    }
    let method = match request.method() {
        "shell.list_sessions" => parameters(&request).map(|Plain {}| Method::ListSessions),
        "shell.replay_session" => parameters(&request).map(|OwnId { .. }| Method::ReplaySession),
        "shell.resize_session" => {
            parameters(&request).map(|Resize { cols, rows, .. }| Method::ResizeSession { cols, rows })
        }
        // The methods that follow output are for enrolled devices.
        _ => Err(Denial::FrameUnreadable),
    };
    Ok((action, Asked::Request(op, method?)))
}

fn parameters<T: serde::de::DeserializeOwned>(request: &Request) -> Result<T, Denial> {
    request.parameters().map_err(|BadRequest| Denial::FrameUnreadable)
}

/// Serves a request that was permitted.
pub(super) fn answer(viewer: &Viewer, session: &SessionId, method: Method) -> Value {
    match method {
        Method::ListSessions => {
            let own: Vec<_> = viewer.info().iter().map(device::describe_for_phone).collect();
            json!({ "ok": true, "sessions": own })
        }
        Method::ReplaySession => device::replay(session, &viewer.history(), REPLAY),
        Method::ResizeSession { cols, rows } => match viewer.resize(cols, rows) {
            Ok(()) => json!({ "ok": true }),
            Err(failure) => error("shell_failed", failure),
        },
    }
}

/// Bytes of transcript that fit one message as base64.
const REPLAY: usize = 768 * 1024 - 1024;

// From a phone, unknown parameters are refused. The id was compared before; it is named here so that
// it is known.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnId {
    #[serde(rename = "id")]
    _id: Option<SessionId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resize {
    #[serde(rename = "id")]
    _id: Option<SessionId>,
    cols: u16,
    rows: u16,
}
