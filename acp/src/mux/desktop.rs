//! Messages of desktops.

use sessioncap::acp::{AcpSessionId, Json, Message, RequestId, RpcError};

use super::json::{error, text_at};
use super::session::{Opening, Session};
use super::{Agent, Mux, Open, ViewerId, What, no_such_session, too_many};

impl Mux {
    pub(super) fn desktop_message(&mut self, viewer: ViewerId, message: Message) {
        match message {
            Message::Request { id, method, params } => self.desktop_request(viewer, id, &method, params),
            Message::Response { id: RequestId::Number(number), outcome } => {
                self.answer_question(viewer, number, outcome);
            }
            // No question has such an id.
            Message::Response { .. } => {}
            Message::Notification { method, params } => match method.as_str() {
                "session/cancel" => {
                    if let Some(session) = text_at(params.as_ref(), "sessionId").and_then(AcpSessionId::new) {
                        self.cancel(viewer, &session);
                    }
                }
                "$/cancel_request" => {
                    let id = params
                        .as_ref()
                        .and_then(|params| params.get("requestId"))
                        .and_then(RequestId::from_json);
                    if let Some(id) = id {
                        self.cancel_request(viewer, &id);
                    }
                }
                // Extensions begin so. There are no other notifications to an agent.
                method if method.starts_with('_') && !matches!(self.agent, Agent::Gone) => {
                    self.tell_agent(method, params);
                }
                _ => {}
            },
        }
    }

    fn desktop_request(&mut self, viewer: ViewerId, id: RequestId, method: &str, params: Option<Json>) {
        if method == "initialize" {
            return self.desktop_initialize(viewer, id, params.as_ref());
        }
        let initialized = self.viewers.get(&viewer).is_some_and(|viewer| viewer.initialized);
        if !initialized || matches!(self.agent, Agent::Starting { .. }) {
            let message = "the connection is not initialized; send initialize and wait for its answer first";
            return self.refuse(viewer, id, error(RpcError::INVALID_REQUEST, "not_initialized", message));
        }
        let session = text_at(params.as_ref(), "sessionId").and_then(AcpSessionId::new);
        let params = params.unwrap_or_else(|| Json::object([]));
        match (method, session) {
            ("session/prompt", Some(session)) => {
                let has =
                    self.viewers.get(&viewer).is_some_and(|there| there.sessions.contains_key(&session));
                if !has && self.live(&session).is_some() {
                    self.enter(viewer, &session);
                }
                self.prompt(viewer, id, &session, params);
            }
            ("session/prompt", None) => self.refuse(viewer, id, no_such_session()),
            ("session/load" | "session/resume", Some(session)) => {
                self.open_session(viewer, id, method, session, params);
            }
            ("session/new" | "session/fork", _) => {
                let making = self.pending.values().filter(|pending| matches!(pending.what, What::New { .. }));
                if self.sessions.len().saturating_add(making.count()) >= Self::MAX_SESSIONS {
                    return self.refuse(viewer, id, too_many("sessions"));
                }
                let cwd = text_at(Some(&params), "cwd").map(str::to_owned);
                self.pass(viewer, id, What::New { cwd }, method, params);
            }
            ("session/close" | "session/delete", Some(session)) => {
                self.remove_session(viewer, id, method, session, params);
            }
            ("session/set_mode", Some(session)) => {
                let what = match text_at(Some(&params), "modeId") {
                    Some(mode) => What::SetMode(session, mode.to_owned()),
                    None => What::Other,
                };
                self.pass(viewer, id, what, method, params);
            }
            ("session/set_config_option", Some(session)) => {
                self.pass(viewer, id, What::SetConfig(session), method, params);
            }
            _ => self.pass(viewer, id, What::Other, method, params),
        }
    }

    /// Sends a request on, unless too many are open.
    fn pass(&mut self, viewer: ViewerId, id: RequestId, what: What, method: &str, params: Json) {
        match self.cannot_pass(viewer, &id) {
            Some(refusal) => self.refuse(viewer, id, refusal),
            None => {
                self.ask_agent(Some((viewer, id)), what, method, params);
            }
        }
    }

    /// The agent was initialized once; everybody gets what it said then.
    fn desktop_initialize(&mut self, viewer: ViewerId, id: RequestId, params: Option<&Json>) {
        if let Some(refusal) = self.cannot_begin(viewer, &id) {
            return self.refuse(viewer, id, refusal);
        }
        if let Some(there) = self.viewers.get_mut(&viewer) {
            let declared = params.and_then(|params| params.get("clientCapabilities"));
            let files = declared.and_then(|declared| declared.get("fs"));
            let has = |json: Option<&Json>, key: &str| {
                json.and_then(|json| json.get(key)).is_some_and(|value| *value == Json::Bool(true))
            };
            there.reads = has(files, "readTextFile");
            there.writes = has(files, "writeTextFile");
            there.terminals = has(declared, "terminal");
            there.initialized = true;
            there.open.insert(id.clone(), Open::Initialize);
        }
        if let Agent::Ready(result) = &self.agent {
            let result = result.clone();
            self.answer(viewer, &id, Ok(result));
        }
    }

    /// `session/load` and `session/resume`. A session that lives is not loaded again: a desktop that comes to it
    /// gets what is kept here, and its own parameters (`cwd`, `mcpServers`) change nothing.
    fn open_session(
        &mut self,
        viewer: ViewerId,
        id: RequestId,
        method: &str,
        session: AcpSessionId,
        params: Json,
    ) {
        if let Some(refusal) = self.cannot_pass(viewer, &id) {
            return self.refuse(viewer, id, refusal);
        }
        let load = method == "session/load";
        match self.sessions.get(&session) {
            None if self.sessions.len() >= Self::MAX_SESSIONS => {
                self.refuse(viewer, id, too_many("sessions"))
            }
            None => {
                let opening = Some(if load { Opening::Load(viewer) } else { Opening::Resume });
                let cwd = text_at(Some(&params), "cwd").map(str::to_owned);
                self.sessions.insert(session.clone(), Session::new(cwd, opening));
                self.ask_agent(Some((viewer, id)), What::Open(session), method, params);
            }
            Some(known) if known.opening.is_some() => {
                let message = "the session is being opened for another viewer; try again in a moment";
                self.refuse(viewer, id, error(Self::SESSION_BUSY, "opening", message));
            }
            Some(known) => {
                let result = known.result();
                let past = if load { known.transcript() } else { Vec::new() };
                for params in past {
                    self.update(viewer, &params);
                }
                self.respond(viewer, id, Ok(result));
                self.enter(viewer, &session);
            }
        }
    }

    /// `session/close` and `session/delete`: a desktop must not take a session from the others.
    fn remove_session(
        &mut self,
        viewer: ViewerId,
        id: RequestId,
        method: &str,
        session: AcpSessionId,
        params: Json,
    ) {
        let shared = self.viewers_of(&session).into_iter().any(|other| other != viewer);
        let opening = self.sessions.get(&session).is_some_and(|known| known.opening.is_some());
        if !shared && !opening {
            return self.pass(viewer, id, What::Remove(session), method, params);
        }
        if let Some(refusal) = self.cannot_begin(viewer, &id) {
            return self.refuse(viewer, id, refusal);
        }
        if method == "session/close" && !opening {
            self.exit(viewer, &session);
            self.respond(viewer, id, Ok(Json::object([])));
        } else {
            let message = "other viewers have this session; end their pairings first";
            self.refuse(viewer, id, error(Self::SESSION_BUSY, "in_use", message));
        }
    }

    /// The desktop does not have the session any more. Others do.
    fn exit(&mut self, viewer: ViewerId, session: &AcpSessionId) {
        if let Some(there) = self.viewers.get_mut(&viewer) {
            there.sessions.remove(session);
        }
        let mut waiting = Vec::new();
        if let Some(known) = self.sessions.get_mut(session) {
            known.terminals.retain(|_, owner| *owner != viewer);
            waiting = known.take_waiting(Some(viewer));
        }
        for one in waiting {
            self.answer(one.viewer, &one.id, Err(no_such_session()));
        }
        self.take_back(viewer, session);
    }
}
