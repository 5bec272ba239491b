//! What a phone's message asks for, and what that needs.

use serde_json::{Value, json};
use sessioncap::agent::Denial;
use sessioncap::dd::Refusal;
pub(super) use sessioncap::dd::Request as Method;
use sessioncap::session::{FromPhone, ResumePoint};
use sessioncap::{Action, Op, Privilege, SessionId};

use crate::agent::device;
use crate::pty::Viewer;
use crate::request::error;

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
    let request = match Method::read(json.as_bytes(), own) {
        Ok(request) => request,
        Err(Refusal::Privileged(privilege)) => return Ok((Action::Privileged(privilege), Asked::Privileged)),
        Err(Refusal::OtherSession) => return Err(Denial::OtherSession),
        Err(Refusal::UnknownMethod { method }) => {
            let privilege = privilege_of(&method).ok_or(Denial::FrameUnreadable)?;
            return Ok((Action::Privileged(privilege), Asked::Privileged));
        }
        Err(_) => return Err(Denial::FrameUnreadable),
    };
    match (request, request.action()) {
        // It follows output for enrolled devices.
        (Method::AttachSession { .. }, _) | (_, Action::Privileged(_)) => Err(Denial::FrameUnreadable),
        (_, action @ Action::Session(op)) => Ok((action, Asked::Request(op, request))),
    }
}

/// What this agent has beside the deployed ones, and what bridges to other protocols have.
fn privilege_of(method: &str) -> Option<Privilege> {
    match method {
        "pair.log" => Some(Privilege::DiscoverFleet),
        "agent.reset_clock" => Some(Privilege::Administer),
        "session/set_mode" | "session/set_config_option" | "session/set_title" => Some(Privilege::Configure),
        "fs/read_text_file" | "fs/write_text_file" => Some(Privilege::AccessFiles),
        _ => None,
    }
}

/// Serves a request that was permitted.
pub(super) fn answer(viewer: &Viewer, session: &SessionId, request: Method) -> Value {
    match request {
        Method::ListSessions => {
            let own: Vec<_> = viewer.info().iter().map(device::describe_for_phone).collect();
            json!({ "ok": true, "sessions": own })
        }
        Method::ReplaySession => device::replay(session, &viewer.history(), REPLAY),
        Method::ResizeSession { cols, rows } => match viewer.resize(cols, rows) {
            Ok(()) => json!({ "ok": true }),
            Err(failure) => error("shell_failed", failure),
        },
        _ => error("method_rejected", "this agent does not serve it"),
    }
}

/// Bytes of transcript that fit one message as base64.
const REPLAY: usize = 768 * 1024 - 1024;
