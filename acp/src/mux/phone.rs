//! Messages of phones, which their `Guest` has read.

use sessioncap::acp::{AcpSessionId, Asked, FromPhone, Json, RequestId, RpcError};

use super::json::error;
use super::{Agent, Effect, Mux, Open, ViewerId, no_such_session};

impl Mux {
    pub(super) fn phone_message(&mut self, viewer: ViewerId, session: AcpSessionId, message: FromPhone) {
        match message {
            FromPhone::Request { id, asked } => self.phone_request(viewer, id, &session, asked),
            FromPhone::Prompt { id, .. } if !self.has_session(viewer, &session) => {
                self.refuse(viewer, id, no_such_session());
            }
            FromPhone::Prompt { id, prompt } => {
                let params = Json::object([("sessionId", Json::text(session.as_str())), ("prompt", prompt)]);
                self.prompt(viewer, id, &session, params);
            }
            FromPhone::Cancel => self.cancel(viewer, &session),
            FromPhone::CancelRequest { id } => self.cancel_request(viewer, &id),
            FromPhone::Answer { question, outcome } => self.answer_question(viewer, question, Ok(outcome)),
            FromPhone::AnswerError { question } => self.unasked(viewer, question),
            // A later version of the adapter reads more; it is asked for before it is sent.
            _ => {}
        }
    }

    /// Whether the phone's session is still the one that it came to.
    fn has_session(&self, viewer: ViewerId, session: &AcpSessionId) -> bool {
        self.viewers.get(&viewer).is_some_and(|viewer| viewer.sessions.contains_key(session))
    }

    /// None of these is sent to the agent.
    fn phone_request(&mut self, viewer: ViewerId, id: RequestId, session: &AcpSessionId, asked: Asked) {
        if let Some(refusal) = self.cannot_begin(viewer, &id) {
            return self.refuse(viewer, id, refusal);
        }
        let known = match self.has_session(viewer, session) {
            true => self.live(session),
            false => None,
        };
        let outcome = match asked {
            Asked::Initialize => match &self.agent {
                Agent::Ready(result) => Ok(result.clone()),
                _ => {
                    if let Some(there) = self.viewers.get_mut(&viewer) {
                        there.open.insert(id, Open::Initialize);
                    }
                    return;
                }
            },
            // The guest has all of the answer.
            Asked::Authenticate | Asked::Logout | Asked::AuthStatus => Ok(Json::object([])),
            Asked::ListSessions => {
                let listed = known.map(|known| {
                    let mut one = Json::object([("sessionId", Json::text(session.as_str()))]);
                    for (key, value) in [("cwd", known.cwd.as_deref()), ("title", known.title())] {
                        if let Some(value) = value {
                            super::json::set(&mut one, key, Json::text(value));
                        }
                    }
                    one
                });
                Ok(Json::object([("sessions", Json::List(listed.into_iter().collect()))]))
            }
            Asked::Status => {
                let status = if known.is_some() { "open" } else { "saved" };
                Ok(Json::object([("status", Json::text(status))]))
            }
            Asked::Resume => known.map(|known| known.result()).ok_or_else(no_such_session),
            Asked::Load => known
                .map(|known| (known.transcript(), known.result()))
                .ok_or_else(no_such_session)
                .map(|(past, result)| {
                    self.out.extend(past.into_iter().map(|params| Effect::Replay(viewer, params)));
                    result
                }),
            _ => Err(error(
                RpcError::METHOD_NOT_FOUND,
                "unknown_method",
                "this bridge does not serve the method",
            )),
        };
        self.respond(viewer, id, outcome);
    }
}
