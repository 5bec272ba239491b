//! Questions of the agent: a permission or a form, to everybody in the session; a file or a terminal, to one desktop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sessioncap::acp::{AcpSessionId, Json, Message, RequestId, RpcError};

use super::json::{error, text_at, weight};
use super::{Effect, Kind, Mux, Viewer, ViewerId, too_many};

/// A request of the agent that is not answered yet.
#[derive(Debug)]
pub struct Question {
    pub agent_id: RequestId,
    pub session: AcpSessionId,
    pub ask: Ask,
    pub method: String,
    pub params: Arc<Json>,
    /// Bytes in memory of its parameters, about.
    size: usize,
    /// The viewers that have it and may answer, each with the number under which it has it.
    pub asked: BTreeMap<ViewerId, i64>,
    /// The viewers that had it at some time. One that gets it again gets it under a new number, because its answer
    /// to the old number may be under way.
    had: BTreeSet<ViewerId>,
    /// Since when nobody has it.
    pub alone: Option<Duration>,
}

impl Question {
    /// One that nobody has yet.
    fn new(agent_id: RequestId, session: AcpSessionId, ask: Ask, method: String, params: Json) -> Self {
        let size = weight(&params);
        let (asked, had, params) = (BTreeMap::new(), BTreeSet::new(), Arc::new(params));
        Self { agent_id, session, ask, method, params, size, asked, had, alone: None }
    }
}

/// What a request of the agent asks for.
#[derive(Debug)]
pub enum Ask {
    /// One of these options.
    Permission(Vec<String>),
    /// A form.
    Form,
    /// `fs/*`.
    File,
    /// `terminal/create`.
    NewTerminal,
    /// Another `terminal/*`; the last one if it releases the terminal.
    Terminal { id: String, last: bool },
}

impl Ask {
    fn is_for_everybody(&self) -> bool {
        matches!(self, Self::Permission(_) | Self::Form)
    }

    /// The answer to the agent when nobody else answers.
    fn cancelled(&self) -> Result<Json, RpcError> {
        match self {
            Self::Permission(_) => {
                Ok(Json::object([("outcome", Json::object([("outcome", Json::text("cancelled"))]))]))
            }
            Self::Form => Ok(Json::object([("action", Json::text("cancel"))])),
            Self::File | Self::NewTerminal | Self::Terminal { .. } => Err(nobody_there()),
        }
    }
}

impl Mux {
    /// The agent has sent a request.
    pub(super) fn agent_request(&mut self, id: RequestId, method: String, params: Option<Json>) {
        if self.asked.contains_key(&id) {
            // An answer could not say which of the two it is for.
            self.dropped.strange_messages = self.dropped.strange_messages.saturating_add(1);
            return;
        }
        let session = text_at(params.as_ref(), "sessionId").and_then(AcpSessionId::new);
        let mut params = params.unwrap_or_else(|| Json::object([]));
        let Some(ask) = read(&method, &params) else {
            let refusal = match method.as_str() {
                "session/request_permission" => error(
                    RpcError::INVALID_PARAMS,
                    "invalid_params",
                    "the options are missing; send at least one",
                ),
                _ => error(RpcError::METHOD_NOT_FOUND, "unknown_method", "no viewer serves this method"),
            };
            return self.answer_agent(id, Err(refusal));
        };
        let known = session.filter(|session| self.sessions.contains_key(session));
        let Some(session) = known else {
            // Of a session that nobody opened, such as that of an agent's own helper: its turn must not wait.
            return self.answer_agent(id, ask.cancelled());
        };
        let open = self.questions.values().filter(|question| question.session == session).count();
        if let (Some(known), Ask::Permission(_)) = (self.sessions.get(&session), &ask) {
            known.complete_permission(&mut params);
        }
        let question = Question::new(id, session, ask, method, params);
        let size = question.size;
        let held = self.questions.values().fold(size, |sum, question| sum.saturating_add(question.size));
        if open >= Self::MAX_QUESTIONS || held > Self::MAX_QUESTION_BYTES {
            return self.answer_agent(question.agent_id, Err(too_many("requests of the agent")));
        }
        if question.ask.is_for_everybody() {
            self.ask_everybody(question);
        } else {
            self.ask_desktop(question);
        }
    }

    fn ask_everybody(&mut self, question: Question) {
        let turn = self.sessions.get(&question.session).and_then(|known| known.turn.as_ref());
        if turn.is_some_and(|turn| turn.cancelled.is_some()) {
            return self.answer_agent(question.agent_id, question.ask.cancelled());
        }
        let viewers = self.viewers_of(&question.session);
        let number = self.open_question(question);
        for viewer in viewers {
            self.ask_viewer(viewer, number);
        }
        self.left_alone(number);
    }

    fn ask_desktop(&mut self, question: Question) {
        let Question { session, ask, method, .. } = &question;
        let serves = |viewer: &Viewer| {
            viewer.kind == Kind::Desktop
                && viewer.sessions.contains_key(session)
                && match (ask, method.as_str()) {
                    (Ask::File, "fs/write_text_file") => viewer.writes,
                    (Ask::File, _) => viewer.reads,
                    _ => viewer.terminals,
                }
        };
        let Some(known) = self.sessions.get_mut(session) else { return };
        let helper = known.helper.filter(|helper| self.viewers.get(helper).is_some_and(serves));
        let first = || self.viewers.iter().find(|(_, viewer)| serves(viewer)).map(|(id, _)| *id);
        let helper = helper.or_else(first);
        // A terminal of a desktop that has left: another desktop may have one of the same name.
        let strange = match ask {
            Ask::Terminal { id, .. } => known.terminals.get(id).copied() != helper,
            _ => false,
        };
        let full = matches!(ask, Ask::NewTerminal) && known.terminals.len() >= Self::MAX_TERMINALS;
        let Some(helper) = helper.filter(|_| !strange) else {
            return self.answer_agent(question.agent_id, Err(nobody_there()));
        };
        if full {
            return self.answer_agent(question.agent_id, Err(too_many("terminals")));
        }
        known.helper = Some(helper);
        let number = self.open_question(question);
        self.ask_viewer(helper, number);
    }

    fn open_question(&mut self, question: Question) -> i64 {
        let number = self.number();
        self.asked.insert(question.agent_id.clone(), number);
        self.questions.insert(number, question);
        number
    }

    fn ask_viewer(&mut self, viewer: ViewerId, number: i64) {
        let phone = self.is_phone(viewer);
        let again = self.questions.get(&number).is_some_and(|question| question.had.contains(&viewer));
        let shown = if again { self.number() } else { number };
        let Some(question) = self.questions.get_mut(&number) else { return };
        question.asked.insert(viewer, shown);
        question.had.insert(viewer);
        question.alone = None;
        let (method, params) = (question.method.clone(), &question.params);
        self.out.push(match phone {
            true => Effect::Ask { viewer, question: shown, method, params: Arc::clone(params) },
            false => {
                let params = Some(Json::clone(params));
                Effect::ToDesktop(viewer, Message::Request { id: RequestId::Number(shown), method, params })
            }
        });
    }

    /// Shows a viewer that has come to a session what is open there.
    pub(super) fn show_questions(&mut self, viewer: ViewerId, session: &AcpSessionId) {
        if !self.viewers.contains_key(&viewer) {
            return;
        }
        let open = self.questions.iter().filter(|(_, question)| {
            question.session == *session
                && question.ask.is_for_everybody()
                && !question.asked.contains_key(&viewer)
        });
        let open: Vec<i64> = open.map(|(number, _)| *number).collect();
        for number in open {
            self.ask_viewer(viewer, number);
        }
    }

    /// The question that a viewer has under this number.
    fn shown(&self, viewer: ViewerId, shown: i64) -> Option<(i64, &Question)> {
        let has = |question: &Question| question.asked.get(&viewer) == Some(&shown);
        let first = self.questions.get_key_value(&shown).filter(|(_, question)| has(question));
        let found = first.or_else(|| self.questions.iter().find(|(_, question)| has(question)));
        found.map(|(number, question)| (*number, question))
    }

    /// A viewer has answered a question.
    pub(super) fn answer_question(&mut self, viewer: ViewerId, shown: i64, outcome: Result<Json, RpcError>) {
        let Some((number, question)) = self.shown(viewer, shown) else {
            if outcome.is_ok() && (1..=self.last_number).contains(&shown) {
                self.late(viewer, shown);
            }
            return;
        };
        let answer = match (&question.ask, outcome) {
            (Ask::Permission(_) | Ask::Form, Err(_)) => return self.has_no_more(viewer, number),
            (Ask::Permission(offered), Ok(outcome)) => permission(offered, &outcome).map(Ok),
            (Ask::Form, Ok(outcome)) => form(&outcome).map(Ok),
            (Ask::File | Ask::NewTerminal | Ask::Terminal { .. }, outcome) => Some(outcome),
        };
        let Some(answer) = answer else {
            self.out.push(Effect::NotOffered(viewer, shown));
            return self.has_no_more(viewer, number);
        };
        let Some(question) = self.questions.get(&number) else { return };
        if let Some(known) = self.sessions.get_mut(&question.session) {
            match (&question.ask, &answer) {
                (Ask::NewTerminal, Ok(result)) => {
                    if let Some(id) =
                        text_at(Some(result), "terminalId").filter(|id| id.len() <= Self::MAX_NAME)
                    {
                        known.terminals.insert(id.to_owned(), viewer);
                    }
                }
                (Ask::Terminal { id, last: true }, Ok(_)) => {
                    known.terminals.remove(id);
                }
                _ => {}
            }
        }
        if let Some(question) = self.questions.get_mut(&number) {
            question.asked.remove(&viewer);
        }
        self.retire(number, Some(answer));
    }

    /// A viewer cannot answer what it has under this number.
    pub(super) fn unasked(&mut self, viewer: ViewerId, shown: i64) {
        if let Some((number, _)) = self.shown(viewer, shown) {
            self.has_no_more(viewer, number);
        }
    }

    /// A viewer does not have a question any more, and knows it.
    fn has_no_more(&mut self, viewer: ViewerId, number: i64) {
        let Some(question) = self.questions.get_mut(&number) else { return };
        if question.asked.remove(&viewer).is_some() {
            self.left_alone(number);
        }
    }

    /// A viewer has left, with all of its questions.
    pub(super) fn has_left(&mut self, viewer: ViewerId) {
        let all: Vec<i64> = self.questions.keys().copied().collect();
        for number in all {
            self.has_no_more(viewer, number);
        }
    }

    /// Takes the questions of a session back from a viewer that leaves the session and stays connected.
    pub(super) fn take_back(&mut self, viewer: ViewerId, session: &AcpSessionId) {
        let open = self.questions.iter().filter(|(_, question)| question.session == *session);
        let open = open.filter_map(|(number, question)| Some((*number, *question.asked.get(&viewer)?)));
        let open: Vec<(i64, i64)> = open.collect();
        for (number, shown) in open {
            self.tell_retired(viewer, shown);
            self.has_no_more(viewer, number);
        }
    }

    fn tell_retired(&mut self, viewer: ViewerId, shown: i64) {
        let effect = match self.is_phone(viewer) {
            true => Effect::Retire(viewer, shown),
            false => {
                let params = Some(Json::object([("requestId", RequestId::Number(shown).to_json())]));
                let method = "$/cancel_request".to_owned();
                Effect::ToDesktop(viewer, Message::Notification { method, params })
            }
        };
        self.out.push(effect);
    }

    fn left_alone(&mut self, number: i64) {
        let now = self.now;
        let at_once = self.settings.unattended.is_zero();
        let Some(question) = self.questions.get_mut(&number).filter(|question| question.asked.is_empty())
        else {
            return;
        };
        if question.ask.is_for_everybody() && !at_once {
            question.alone = Some(now);
        } else {
            let outcome = question.ask.cancelled();
            self.retire(number, Some(outcome));
        }
    }

    /// Ends a question: tells whoever has it, and the agent if there is an outcome.
    pub(super) fn retire(&mut self, number: i64, outcome: Option<Result<Json, RpcError>>) {
        let Some(question) = self.questions.remove(&number) else { return };
        self.asked.remove(&question.agent_id);
        for (viewer, shown) in question.asked {
            self.tell_retired(viewer, shown);
        }
        if let Some(outcome) = outcome {
            self.answer_agent(question.agent_id, outcome);
        }
    }

    /// Ends what was asked of everybody in a session, as cancelled.
    pub(super) fn end_questions(&mut self, session: &AcpSessionId) {
        self.end_those(|question| question.session == *session && question.ask.is_for_everybody());
    }

    /// Ends what nobody has had for too long.
    pub(super) fn end_unattended(&mut self) {
        let (now, most) = (self.now, self.settings.unattended);
        self.end_those(|question| question.alone.is_some_and(|since| now.saturating_sub(since) >= most));
    }

    fn end_those(&mut self, which: impl Fn(&Question) -> bool) {
        let those = self.questions.iter().filter(|(_, question)| which(question));
        let those: Vec<_> = those.map(|(number, question)| (*number, question.ask.cancelled())).collect();
        for (number, outcome) in those {
            self.retire(number, Some(outcome));
        }
    }

    /// `$/cancel_request` of the agent.
    pub(super) fn agent_cancels(&mut self, id: &RequestId) {
        if let Some(number) = self.asked.get(id).copied() {
            let outcome = error(Self::CANCELLED, "cancelled", "the request was cancelled by its sender");
            self.retire(number, Some(Err(outcome)));
        }
    }

    fn answer_agent(&mut self, id: RequestId, outcome: Result<Json, RpcError>) {
        self.out.push(Effect::ToAgent(Message::Response { id, outcome }));
    }
}

/// What a request of the agent asks for; none if no viewer serves it.
fn read(method: &str, params: &Json) -> Option<Ask> {
    Some(match method {
        "session/request_permission" => {
            let Some(Json::List(options)) = params.get("options") else { return None };
            let ids = options.iter().filter_map(|option| text_at(Some(option), "optionId"));
            Ask::Permission(ids.map(str::to_owned).collect())
        }
        "elicitation/create" => Ask::Form,
        "fs/read_text_file" | "fs/write_text_file" => Ask::File,
        "terminal/create" => Ask::NewTerminal,
        "terminal/output" | "terminal/wait_for_exit" | "terminal/kill" | "terminal/release" => {
            let id = text_at(Some(params), "terminalId").unwrap_or_default().to_owned();
            Ask::Terminal { id, last: method == "terminal/release" }
        }
        _ => return None,
    })
}

/// The result for the agent, made anew; none if the option was not offered.
fn permission(offered: &[String], outcome: &Json) -> Option<Json> {
    let outcome = outcome.get("outcome");
    let chosen = match text_at(outcome, "outcome")? {
        "cancelled" => Json::object([("outcome", Json::text("cancelled"))]),
        "selected" => {
            let id = text_at(outcome, "optionId")?;
            let id = offered.iter().find(|offered| *offered == id)?;
            Json::object([("outcome", Json::text("selected")), ("optionId", Json::text(id))])
        }
        _ => return None,
    };
    Some(Json::object([("outcome", chosen)]))
}

/// The result for the agent, made anew; none if it is no answer to a form.
fn form(outcome: &Json) -> Option<Json> {
    match text_at(Some(outcome), "action")? {
        "accept" => {
            let content = outcome.get("content").filter(|content| matches!(content, Json::Object(_)));
            let content = content.cloned().unwrap_or_else(|| Json::object([]));
            Some(Json::object([("action", Json::text("accept")), ("content", content)]))
        }
        action @ ("decline" | "cancel") => Some(Json::object([("action", Json::text(action))])),
        _ => None,
    }
}

fn nobody_there() -> RpcError {
    error(Mux::NOBODY_THERE, "nobody_there", "no desktop that serves this is connected; go on without it")
}
