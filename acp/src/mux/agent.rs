//! Messages of the agent.

use std::mem;
use std::sync::Arc;

use sessioncap::acp::{AcpSessionId, Json, Message, RequestId, RpcError};

use super::json::{error, text_at, weight};
use super::session::{Opening, Session};
use super::{Agent, Effect, Mux, Open, Pending, Unusable, ViewerId, What};
use crate::process::Unreadable;

impl Mux {
    pub(super) fn agent_message(&mut self, message: Message) {
        match message {
            Message::Response { id, outcome } => self.agent_response(&id, outcome),
            Message::Request { id, method, params } => self.agent_request(id, method, params),
            Message::Notification { method, params } => match method.as_str() {
                "session/update" => {
                    if let Some(params) = params {
                        self.agent_update(Arc::new(params));
                    }
                }
                "$/cancel_request" => {
                    let id = params
                        .as_ref()
                        .and_then(|params| params.get("requestId"))
                        .and_then(RequestId::from_json);
                    if let Some(id) = id {
                        self.agent_cancels(&id);
                    }
                }
                _ => self.tell_desktops(&method, params.as_ref()),
            },
        }
    }

    /// Gives an error to the viewer, or to the agent, that waits for this message.
    pub(super) fn agent_unreadable(&mut self, message: Unreadable) {
        let text =
            "the agent's message is beyond what the bridge reads: repeated keys, too deep or too many values";
        match message {
            Unreadable::Answer(id) => {
                self.agent_response(&id, Err(error(RpcError::INTERNAL, "unreadable", text)));
            }
            // An answer to the one would be taken for the answer to the other.
            Unreadable::Request(id) if self.asked.contains_key(&id) => {
                self.dropped.strange_messages = self.dropped.strange_messages.saturating_add(1);
            }
            Unreadable::Request(id) => {
                let outcome = Err(error(RpcError::INVALID_REQUEST, "unreadable", text));
                self.out.push(Effect::ToAgent(Message::Response { id, outcome }));
            }
        }
    }

    /// A notification that names no session, or in an extension of the agent.
    fn tell_desktops(&mut self, method: &str, params: Option<&Json>) {
        let desktops = self.viewers.iter().filter(|(_, viewer)| {
            let session = text_at(params, "sessionId").and_then(AcpSessionId::new);
            viewer.kind == super::Kind::Desktop
                && viewer.initialized
                && session.is_none_or(|session| viewer.sessions.contains_key(&session))
        });
        let desktops: Vec<ViewerId> = desktops.map(|(id, _)| *id).collect();
        for viewer in desktops {
            let message = Message::Notification { method: method.to_owned(), params: params.cloned() };
            self.out.push(Effect::ToDesktop(viewer, message));
        }
    }

    fn agent_update(&mut self, params: Arc<Json>) {
        let Some(id) = text_at(Some(&*params), "sessionId").and_then(AcpSessionId::new) else {
            self.dropped.strange_updates = self.dropped.strange_updates.saturating_add(1);
            return;
        };
        let Some(known) = self.sessions.get_mut(&id) else { return self.early_update(id, params) };
        known.keep(&params);
        match known.opening {
            None => {
                for viewer in self.viewers_of(&id) {
                    self.update(viewer, &params);
                }
            }
            Some(Opening::Load(viewer)) if self.viewers.contains_key(&viewer) => self.update(viewer, &params),
            Some(Opening::Load(_) | Opening::Resume) => {}
        }
    }

    /// Some agents send updates of a session before the result that names it.
    fn early_update(&mut self, id: AcpSessionId, params: Arc<Json>) {
        let awaited = self.pending.values().any(|pending| matches!(pending.what, What::New { .. }));
        let size = weight(&params);
        if awaited && self.early_weight.saturating_add(size) <= Self::MAX_EARLY {
            self.early_weight = self.early_weight.saturating_add(size);
            self.early.push((id, params));
        } else {
            self.dropped.strange_updates = self.dropped.strange_updates.saturating_add(1);
        }
    }

    fn agent_response(&mut self, id: &RequestId, outcome: Result<Json, RpcError>) {
        let number = match id {
            RequestId::Number(number) => *number,
            _ => 0,
        };
        let Some(Pending { owner, what }) = self.pending.remove(&number) else {
            self.dropped.strange_messages = self.dropped.strange_messages.saturating_add(1);
            return;
        };
        match what {
            What::Initialize => self.agent_initialized(outcome),
            What::Prompt(session) => self.turn_ended(&session, number, owner, outcome),
            What::New { cwd } => self.session_made(cwd, owner, outcome),
            What::Open(session) => self.session_opened(&session, owner, outcome),
            What::SetMode(session, mode) => {
                let done = outcome.is_ok();
                let by = self.answer_owner(owner, outcome);
                if done {
                    let kind = ("sessionUpdate", Json::text("current_mode_update"));
                    self.make_update(&session, by, Json::object([kind, ("currentModeId", Json::text(mode))]));
                }
            }
            What::SetConfig(session) => {
                let options = outcome.as_ref().ok().and_then(|result| result.get("configOptions")).cloned();
                let by = self.answer_owner(owner, outcome);
                if let Some(options) = options {
                    let kind = ("sessionUpdate", Json::text("config_option_update"));
                    self.make_update(&session, by, Json::object([kind, ("configOptions", options)]));
                }
            }
            What::Remove(session) => {
                let done = outcome.is_ok();
                self.answer_owner(owner, outcome);
                if done {
                    self.forget(&session);
                }
            }
            What::Other => {
                self.answer_owner(owner, outcome);
            }
        }
    }

    /// Answers whoever asked. Returns who that was; a viewer that never was, if it has left.
    fn answer_owner(
        &mut self,
        owner: Option<(ViewerId, RequestId)>,
        outcome: Result<Json, RpcError>,
    ) -> ViewerId {
        let Some((viewer, id)) = owner else { return ViewerId(0) };
        self.answer(viewer, &id, outcome);
        viewer
    }

    fn agent_initialized(&mut self, outcome: Result<Json, RpcError>) {
        let Ok(result) = outcome else { return self.unusable(Unusable::Refused) };
        if result.get("protocolVersion").and_then(Json::as_integer) != Some(1) {
            return self.unusable(Unusable::Version);
        }
        self.agent = Agent::Ready(result.clone());
        let waiting = self.viewers.iter().flat_map(|(viewer, there)| {
            let open = there.open.iter().filter(|(_, open)| **open == Open::Initialize);
            open.map(|(id, _)| (*viewer, id.clone()))
        });
        let waiting: Vec<_> = waiting.collect();
        for (viewer, id) in waiting {
            self.answer(viewer, &id, Ok(result.clone()));
        }
    }

    /// `session/new` or `session/fork`: the result comes first, then what came before it.
    fn session_made(
        &mut self,
        cwd: Option<String>,
        owner: Option<(ViewerId, RequestId)>,
        outcome: Result<Json, RpcError>,
    ) {
        let made = outcome.as_ref().ok().and_then(|result| text_at(Some(result), "sessionId"));
        let made = made.and_then(AcpSessionId::new);
        if let Some(id) = &made
            && let Ok(result) = &outcome
        {
            let mut session = Session::new(cwd, None);
            session.keep_result(result);
            // An id that is in use stays what it is.
            self.sessions.entry(id.clone()).or_insert(session);
        }
        let viewer = self.answer_owner(owner, outcome);
        if let Some(id) = &made {
            if let Some(there) = self.viewers.get_mut(&viewer) {
                there.sessions.entry(id.clone()).or_insert(self.now);
            }
            let early = mem::take(&mut self.early);
            let (early, others) = early.into_iter().partition::<Vec<_>, _>(|(early, _)| early == id);
            self.early = others;
            for (_, params) in early {
                self.agent_update(params);
            }
        }
        let awaited = self.pending.values().any(|pending| matches!(pending.what, What::New { .. }));
        if !awaited {
            let strange = u64::try_from(self.early.len()).unwrap_or(u64::MAX);
            self.dropped.strange_updates = self.dropped.strange_updates.saturating_add(strange);
            self.early.clear();
        }
        self.early_weight = self.early.iter().map(|(_, params)| weight(params)).sum();
    }

    /// `session/load` or `session/resume`.
    fn session_opened(
        &mut self,
        session: &AcpSessionId,
        owner: Option<(ViewerId, RequestId)>,
        outcome: Result<Json, RpcError>,
    ) {
        let Ok(result) = &outcome else {
            self.answer_owner(owner, outcome);
            return self.forget(session);
        };
        let was = self.sessions.get_mut(session).and_then(|known| {
            known.keep_result(result);
            known.opening.take()
        });
        let viewer = self.answer_owner(owner, outcome);
        for other in self.viewers_of(session) {
            self.enter(other, session);
        }
        if let Some(there) = self.viewers.get_mut(&viewer) {
            there.sessions.entry(session.clone()).or_insert(self.now);
        }
        match was {
            // It has had the state among what was replayed.
            Some(Opening::Load(_)) => self.show_questions(viewer, session),
            _ => self.enter(viewer, session),
        }
    }
}
