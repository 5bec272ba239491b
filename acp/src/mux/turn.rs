//! Turns: one a session, the others wait.

use std::time::Duration;

use sessioncap::acp::{AcpSessionId, Json, RequestId, RpcError};

use super::json::{error, set};
use super::session::{Turn, Waiting};
use super::{Agent, Effect, Kind, Mux, Open, ViewerId, What, agent_gone, no_such_session, too_many};

impl Mux {
    /// Begins a turn, or lets the prompt wait. `params` name the session by its id at the agent.
    pub(super) fn prompt(&mut self, viewer: ViewerId, id: RequestId, session: &AcpSessionId, params: Json) {
        if let Some(refusal) = self.cannot_pass(viewer, &id) {
            return self.refuse(viewer, id, refusal);
        }
        let Some(known) = self.live(session) else { return self.refuse(viewer, id, no_such_session()) };
        let waiting = known.waiting.len();
        let own = known.waiting.iter().filter(|one| one.viewer == viewer).count();
        match &known.turn {
            Some(turn) if turn.given_up => self.refuse(viewer, id, stuck()),
            None if known.asked.is_none() => self.begin_turn(session, Waiting { viewer, id, params }),
            _ if waiting >= Self::MAX_WAITING || own >= Self::MAX_WAITING_OF_ONE => {
                self.refuse(viewer, id, too_many("prompts"));
            }
            _ => {
                known.waiting.push_back(Waiting { viewer, id: id.clone(), params });
                if let Some(viewer) = self.viewers.get_mut(&viewer) {
                    viewer.open.insert(id, Open::Waiting(session.clone()));
                }
            }
        }
    }

    /// Why a viewer may not send the agent one more request now.
    pub(super) fn cannot_pass(&self, viewer: ViewerId, id: &RequestId) -> Option<RpcError> {
        let full = self.pending.len() >= Self::MAX_UPSTREAM;
        self.cannot_begin(viewer, id).or_else(|| full.then(|| too_many("requests")))
    }

    /// Why a viewer may not make one more request now.
    pub(super) fn cannot_begin(&self, viewer: ViewerId, id: &RequestId) -> Option<RpcError> {
        let open = &self.viewers.get(&viewer)?.open;
        if matches!(self.agent, Agent::Gone) {
            Some(agent_gone())
        } else if open.contains_key(id) {
            let message = "a request with this id is not answered yet; use another id";
            Some(error(RpcError::INVALID_REQUEST, "id_in_use", message))
        } else if open.len() >= Self::MAX_OPEN {
            Some(too_many("requests"))
        } else {
            None
        }
    }

    fn begin_turn(&mut self, session: &AcpSessionId, prompt: Waiting) {
        let Waiting { viewer, id, params } = prompt;
        // Agents do not repeat a prompt to the client that sent it, so the others hear it from here.
        let blocks = match params.get("prompt") {
            Some(Json::List(blocks)) => blocks.clone(),
            _ => Vec::new(),
        };
        let upstream =
            self.ask_agent(Some((viewer, id)), What::Prompt(session.clone()), "session/prompt", params);
        let now = self.now;
        if let Some(known) = self.sessions.get_mut(session) {
            known.turn = Some(Turn { upstream, began: now, cancelled: None, given_up: false });
        }
        for block in blocks {
            let update =
                Json::object([("sessionUpdate", Json::text("user_message_chunk")), ("content", block)]);
            self.make_update(session, viewer, update);
        }
    }

    /// `session/cancel` of a viewer. It names no turn, so it is bound to the one that its sender can have meant:
    /// its own, running or waiting; else that of another, if the sender has had it in view for [`Mux::SEEN`].
    pub(super) fn cancel(&mut self, viewer: ViewerId, session: &AcpSessionId) {
        let joined = self.viewers.get(&viewer).and_then(|viewer| viewer.sessions.get(session)).copied();
        let now = self.now;
        let Some((joined, known)) = joined.zip(self.sessions.get_mut(session)) else { return };
        let waiting = known.take_waiting(Some(viewer));
        let running = known.turn.as_ref().map(|turn| (turn.upstream, turn.began.max(joined)));
        let had_waiting = !waiting.is_empty();
        for one in waiting {
            self.answer(one.viewer, &one.id, Ok(cancelled(None)));
        }
        match running {
            Some((upstream, _)) if self.owns(viewer, upstream) => self.cancel_turn(session),
            Some((_, since)) if !had_waiting && now.saturating_sub(since) >= Self::SEEN => {
                self.cancel_turn(session);
            }
            _ if had_waiting => {}
            _ => self.dropped.late_cancels = self.dropped.late_cancels.saturating_add(1),
        }
    }

    fn owns(&self, viewer: ViewerId, upstream: i64) -> bool {
        let owner = self.pending.get(&upstream).and_then(|pending| pending.owner.as_ref());
        owner.is_some_and(|(owner, _)| *owner == viewer)
    }

    fn cancel_turn(&mut self, session: &AcpSessionId) {
        let now = self.now;
        let turn = self.sessions.get_mut(session).and_then(|session| session.turn.as_mut());
        let Some(turn) = turn.filter(|turn| turn.cancelled.is_none()) else { return };
        turn.cancelled = Some(now);
        self.tell_agent("session/cancel", Some(Json::object([("sessionId", Json::text(session.as_str()))])));
        self.end_questions(session);
    }

    /// `$/cancel_request` of a viewer for one of its own requests.
    pub(super) fn cancel_request(&mut self, viewer: ViewerId, id: &RequestId) {
        let open = self.viewers.get(&viewer).and_then(|viewer| viewer.open.get(id)).cloned();
        match open {
            None => {}
            Some(Open::Initialize) => self.answer(viewer, id, Err(request_cancelled())),
            Some(Open::Waiting(session)) => {
                if let Some(known) = self.sessions.get_mut(&session) {
                    known.waiting.retain(|one| one.viewer != viewer || one.id != *id);
                    known.asked.take_if(|one| one.viewer == viewer && one.id == *id);
                }
                self.answer(viewer, id, Err(request_cancelled()));
            }
            Some(Open::Upstream(number)) => match self.pending.get(&number).map(|pending| &pending.what) {
                // Agents know `session/cancel` better.
                Some(What::Prompt(session)) => {
                    let session = session.clone();
                    self.cancel_turn(&session);
                }
                _ => {
                    let params = Json::object([("requestId", RequestId::Number(number).to_json())]);
                    self.tell_agent("$/cancel_request", Some(params));
                }
            },
        }
    }

    /// The agent has answered a prompt.
    pub(super) fn turn_ended(
        &mut self,
        session: &AcpSessionId,
        number: i64,
        owner: Option<(ViewerId, RequestId)>,
        outcome: Result<Json, RpcError>,
    ) {
        let known = self.sessions.get_mut(session);
        let Some(turn) = known.and_then(|known| known.turn.take_if(|turn| turn.upstream == number)) else {
            return;
        };
        self.end_questions(session);
        if let Some((viewer, id)) = owner {
            let outcome = match outcome {
                // A turn that was cancelled here is reported as cancelled, however the agent calls its end.
                Ok(result) if turn.cancelled.is_some() => Ok(cancelled(Some(result))),
                Err(error) if turn.cancelled.is_some() && error.code == Self::CANCELLED => {
                    Ok(cancelled(None))
                }
                outcome => outcome,
            };
            self.answer(viewer, &id, outcome);
        }
        self.next_turn(session);
    }

    /// Begins the turn of the next prompt that waits. That of a phone was permitted when it came, and is asked for again:
    /// what has been taken away meanwhile does not reach the agent.
    pub(super) fn next_turn(&mut self, session: &AcpSessionId) {
        let Some(known) = self.sessions.get_mut(session) else { return };
        if known.turn.is_some() || known.asked.is_some() {
            return;
        }
        let Some(next) = known.waiting.pop_front() else { return };
        let is_phone =
            self.viewers.get(&next.viewer).is_some_and(|viewer| matches!(viewer.kind, Kind::Phone { .. }));
        if is_phone {
            self.out.push(Effect::Permit(next.viewer, session.clone()));
            known.asked = Some(next);
        } else {
            self.begin_turn(session, next);
        }
    }

    /// The answer to [`Effect::Permit`].
    pub(super) fn next_permitted(&mut self, session: &AcpSessionId, may: bool) {
        let asked = self.sessions.get_mut(session).and_then(|known| known.asked.take());
        match asked {
            Some(next) if may => self.begin_turn(session, next),
            Some(Waiting { viewer, id, .. }) => {
                self.answer(viewer, &id, Err(not_permitted()));
                self.next_turn(session);
            }
            // It was taken back meanwhile.
            None => self.next_turn(session),
        }
    }

    /// Gives up turns that were cancelled and have not settled: whoever waits has an answer.
    pub(super) fn give_up_turns(&mut self) {
        let (now, settle) = (self.now, self.settings.settle);
        let due = |since: Option<Duration>| since.is_some_and(|since| now.saturating_sub(since) >= settle);
        let mut given_up = Vec::new();
        for known in self.sessions.values_mut() {
            if let Some(turn) = known.turn.as_mut().filter(|turn| !turn.given_up && due(turn.cancelled)) {
                turn.given_up = true;
                let upstream = turn.upstream;
                given_up.push((upstream, known.take_waiting(None)));
            }
        }
        for (upstream, waiting) in given_up {
            let owner = self.pending.get_mut(&upstream).and_then(|pending| pending.owner.take());
            if let Some((viewer, id)) = owner {
                self.answer(viewer, &id, Ok(cancelled(None)));
            }
            for one in waiting {
                self.answer(one.viewer, &one.id, Err(stuck()));
            }
        }
    }

    /// The session is closed or deleted in the agent.
    pub(super) fn forget(&mut self, session: &AcpSessionId) {
        self.end_questions(session);
        let calls = self.questions.iter().filter(|(_, question)| question.session == *session);
        let calls: Vec<i64> = calls.map(|(number, _)| *number).collect();
        for call in calls {
            self.retire(call, Some(Err(no_such_session())));
        }
        let Some(mut known) = self.sessions.remove(session) else { return };
        if let Some(turn) = known.turn.take()
            && let Some(pending) = self.pending.get_mut(&turn.upstream)
            && let Some((viewer, id)) = pending.owner.take()
        {
            self.answer(viewer, &id, Ok(cancelled(None)));
        }
        for one in known.take_waiting(None) {
            self.answer(one.viewer, &one.id, Err(no_such_session()));
        }
        // A phone as well: what is opened later under the same id is another session.
        for viewer in self.viewers.values_mut() {
            viewer.sessions.remove(session);
        }
    }

    /// For [`Effect::AlreadyResolved`].
    pub(super) fn late(&mut self, viewer: ViewerId, question: i64) {
        self.out.push(Effect::AlreadyResolved(viewer, question));
    }
}

/// The result of a prompt that was cancelled.
fn cancelled(result: Option<Json>) -> Json {
    let mut result =
        result.filter(|result| matches!(result, Json::Object(_))).unwrap_or_else(|| Json::object([]));
    set(&mut result, "stopReason", Json::text("cancelled"));
    result
}

fn stuck() -> RpcError {
    let message =
        "the agent has not ended the turn that was cancelled; wait, or start it again at the desktop";
    error(Mux::SESSION_BUSY, "stuck", message)
}

fn request_cancelled() -> RpcError {
    error(Mux::CANCELLED, "cancelled", "the request was cancelled by its sender")
}

fn not_permitted() -> RpcError {
    let message = "this phone may not prompt any more; ask at the desktop";
    error(RpcError::NOT_ALLOWED, "not_granted", message)
}
