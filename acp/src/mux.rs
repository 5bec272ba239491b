//! Shares one agent among viewers: a desktop or several, and phones. The rules are in `docs/ACP_BRIDGE.md`.
//!
//! Sans IO: messages go in, [`Effect`]s come out in the order in which they are to be carried out. The caller has
//! the connections and the clock; no call waits. A desktop is trusted as the agent's owner is, and speaks ACP
//! itself. What a phone sends has passed its [`Guest`](sessioncap::acp::Guest), and what it is sent passes it again.
//!
//! Every request of a viewer gets exactly one answer while it is there, and every request of the agent one answer
//! while the agent is there. Ids of one side are never shown to another.

mod agent;
mod desktop;
mod json;
mod limits;
mod phone;
mod question;
mod session;
mod turn;

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use sessioncap::acp::{AcpSessionId, Json, Message, RequestId, RpcError};

use json::error;
use question::Question;
use session::Session;

use crate::process::Unreadable;

/// A viewer. Never used twice by one [`Mux`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewerId(u64);

impl fmt::Display for ViewerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "viewer {}", self.0)
    }
}

/// The kind of a viewer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// An ACP client of the agent's owner. It has the sessions that it makes, loads, resumes or prompts.
    Desktop,
    /// A phone, for one session.
    Phone {
        /// The session, by its id at the agent.
        session: AcpSessionId,
    },
}

/// The calls that the agent may make to desktops, and how long the multiplexer waits.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The desktops serve `fs/read_text_file`.
    pub read_files: bool,
    /// The desktops serve `fs/write_text_file`.
    pub write_files: bool,
    /// The desktops serve `terminal/*`.
    pub terminals: bool,
    /// The viewers answer forms (`elicitation/create`).
    pub elicitation: bool,
    /// How long a cancelled turn may take to end before it is given up.
    pub settle: Duration,
    /// How long a question waits while no viewer has it. Then it is answered as cancelled.
    pub unattended: Duration,
}

/// One step for the caller to carry out.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send a message to the agent.
    ToAgent(Message),
    /// Send a message to a desktop.
    ToDesktop(ViewerId, Message),
    /// Send a phone the update with these `params` (`Guest::update`).
    Update(ViewerId, Arc<Json>),
    /// Send a phone an update of the past, for its `session/load` (`Guest::replay`).
    Replay(ViewerId, Arc<Json>),
    /// Ask a phone (`Guest::ask`). If it is not shown there, call [`Mux::cannot_answer`].
    Ask {
        /// The phone.
        viewer: ViewerId,
        /// The number of the question.
        question: i64,
        /// The method that the agent called.
        method: String,
        /// Its parameters.
        params: Arc<Json>,
    },
    /// A question at a phone is over (`Guest::retire`).
    Retire(ViewerId, i64),
    /// Answer a phone's request (`Guest::result`).
    Answer(ViewerId, RequestId, Result<Json, RpcError>),
    /// It is the turn of a prompt of this phone, which has waited. Permit it again, and call [`Mux::permitted`] and
    /// carry out what that returns within the permit.
    Permit(ViewerId, AcpSessionId),
    /// The viewer answered a question that was over: another was first, or the turn ended. Nothing was sent to
    /// the agent. A JSON-RPC response has no answer, so tell the person in another way, or not at all.
    AlreadyResolved(ViewerId, i64),
    /// The viewer answered with what was not offered. It counts as unable to answer.
    NotOffered(ViewerId, i64),
    /// The agent cannot be used: end it. Everybody has been answered.
    EndAgent(Unusable),
}

/// Why an agent cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unusable {
    /// It speaks another version of ACP.
    Version,
    /// It refused `initialize`.
    Refused,
    /// It did not answer `initialize` within [`Mux::START`].
    Silent,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "the agent speaks another version of the protocol; update it",
            Self::Refused => "the agent refused to start; its log says why",
            Self::Silent => "the agent did not answer within two minutes; its log may say why",
        })
    }
}

/// Whether a session works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turns {
    /// No turn runs.
    Idle,
    /// A turn runs.
    Running,
    /// A turn is cancelled and has not ended yet.
    Settling,
    /// A cancelled turn did not end in time. Prompts are refused until the agent ends it.
    Stuck,
}

/// A session that lives in the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its id at the agent.
    pub id: AcpSessionId,
    /// The title that the agent gave it.
    pub title: Option<String>,
    /// The directory that the desktop named.
    pub cwd: Option<String>,
    /// Whether it works.
    pub turns: Turns,
    /// Prompts that wait.
    pub waiting: usize,
    /// Questions of the agent that are open.
    pub questions: usize,
}

/// What was dropped, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Updates of sessions that nobody opened, such as those of an agent's own helpers.
    pub strange_updates: u64,
    /// Responses of the agent that answer nothing, and requests under an id that is in use.
    pub strange_messages: u64,
    /// `session/cancel` that came when the turn of its sender was over.
    pub late_cancels: u64,
}

/// The multiplexer of one agent process. A new process has a new one.
#[derive(Debug)]
pub struct Mux {
    settings: Settings,
    now: Duration,
    agent: Agent,
    viewers: BTreeMap<ViewerId, Viewer>,
    sessions: BTreeMap<AcpSessionId, Session>,
    /// Requests to the agent, by the number under which they were sent.
    pending: BTreeMap<i64, Pending>,
    /// Requests of the agent, by the number under which viewers have them.
    questions: BTreeMap<i64, Question>,
    /// The same by the agent's id.
    asked: BTreeMap<RequestId, i64>,
    /// Updates of sessions whose `session/new` is not answered yet.
    early: Vec<(AcpSessionId, Arc<Json>)>,
    early_weight: usize,
    last_viewer: u64,
    last_number: i64,
    dropped: Dropped,
    out: Vec<Effect>,
}

#[derive(Debug)]
enum Agent {
    Starting { since: Duration },
    Ready(Json),
    Gone,
}

#[derive(Debug)]
struct Viewer {
    kind: Kind,
    initialized: bool,
    /// The services that the desktop declared.
    reads: bool,
    writes: bool,
    terminals: bool,
    /// Its sessions, and since when it has each.
    sessions: BTreeMap<AcpSessionId, Duration>,
    /// Its requests that are not answered yet.
    open: BTreeMap<RequestId, Open>,
}

/// Where a viewer's request is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Open {
    /// It waits until the agent is ready.
    Initialize,
    /// It waits for its turn in the session.
    Waiting(AcpSessionId),
    /// It was sent to the agent under this number.
    Upstream(i64),
}

/// A request that was sent to the agent.
#[derive(Debug)]
struct Pending {
    owner: Option<(ViewerId, RequestId)>,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Initialize,
    /// `session/new` or `session/fork`.
    New {
        cwd: Option<String>,
    },
    /// `session/load` or `session/resume`.
    Open(AcpSessionId),
    Prompt(AcpSessionId),
    SetMode(AcpSessionId, String),
    SetConfig(AcpSessionId),
    /// `session/close` or `session/delete`.
    Remove(AcpSessionId),
    Other,
}

impl Mux {
    /// JSON-RPC error: the agent has ended. `data.reason` is `agent_gone`.
    pub const AGENT_GONE: i64 = -32060;
    /// JSON-RPC error: the session cannot take this now. `data.reason` is `stuck`, `opening` or `in_use`.
    pub const SESSION_BUSY: i64 = -32061;
    /// JSON-RPC error: a bound is reached. `data.reason` is `too_many`.
    pub const TOO_MANY: i64 = -32062;
    /// JSON-RPC error, to the agent: no viewer can do this. `data.reason` is `nobody_there`.
    pub const NOBODY_THERE: i64 = -32063;
    /// JSON-RPC error of ACP: there is no such session. `data.reason` is `no_such_session`.
    pub const NO_SUCH_SESSION: i64 = -32002;
    /// JSON-RPC error of ACP: the request was cancelled by whoever sent it.
    pub const CANCELLED: i64 = -32800;

    /// Makes the multiplexer of an agent that has just been started. The effects ask it to initialize.
    #[must_use]
    pub fn new(settings: Settings, now: Duration) -> (Self, Vec<Effect>) {
        let mut mux = Self {
            settings,
            now,
            agent: Agent::Starting { since: now },
            viewers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            pending: BTreeMap::new(),
            questions: BTreeMap::new(),
            asked: BTreeMap::new(),
            early: Vec::new(),
            early_weight: 0,
            last_viewer: 0,
            last_number: 0,
            dropped: Dropped::default(),
            out: Vec::new(),
        };
        mux.initialize();
        let effects = mux.effects();
        (mux, effects)
    }

    /// Adds a viewer. A phone gets the state of its session and the open questions; then updates as they come.
    /// The caller bounds the number of viewers.
    #[must_use]
    pub fn join(&mut self, kind: Kind, now: Duration) -> (ViewerId, Vec<Effect>) {
        self.now = now;
        self.last_viewer = self.last_viewer.saturating_add(1);
        let id = ViewerId(self.last_viewer);
        let session = match &kind {
            Kind::Desktop => None,
            Kind::Phone { session } => Some(session.clone()),
        };
        let viewer = Viewer {
            kind,
            initialized: false,
            reads: false,
            writes: false,
            terminals: false,
            sessions: BTreeMap::new(),
            open: BTreeMap::new(),
        };
        self.viewers.insert(id, viewer);
        if let Some(session) = session {
            self.enter(id, &session);
        }
        (id, self.effects())
    }

    /// Takes a viewer away. Its requests have no answer any more; its waiting prompts are dropped, a turn that
    /// runs goes on. Calls of the agent to it get an error.
    #[must_use]
    pub fn leave(&mut self, viewer: ViewerId, now: Duration) -> Vec<Effect> {
        self.now = now;
        self.viewers.remove(&viewer);
        for pending in self.pending.values_mut() {
            pending.owner.take_if(|(owner, _)| *owner == viewer);
        }
        for session in self.sessions.values_mut() {
            session.take_waiting(Some(viewer));
            session.terminals.retain(|_, owner| *owner != viewer);
        }
        self.has_left(viewer);
        self.effects()
    }

    /// Takes a message of a desktop.
    #[must_use]
    pub fn from_desktop(&mut self, viewer: ViewerId, message: Message, now: Duration) -> Vec<Effect> {
        self.now = now;
        if self.viewers.get(&viewer).is_some_and(|viewer| viewer.kind == Kind::Desktop) {
            self.desktop_message(viewer, message);
        }
        self.effects()
    }

    /// Takes a message of a phone, which its `Guest` has read and taken.
    #[must_use]
    pub fn from_phone(
        &mut self,
        viewer: ViewerId,
        message: sessioncap::acp::FromPhone,
        now: Duration,
    ) -> Vec<Effect> {
        self.now = now;
        if let Some(Viewer { kind: Kind::Phone { session }, .. }) = self.viewers.get(&viewer) {
            let session = session.clone();
            self.phone_message(viewer, session, message);
        }
        self.effects()
    }

    /// Takes a message of the agent.
    #[must_use]
    pub fn from_agent(&mut self, message: Message, now: Duration) -> Vec<Effect> {
        self.now = now;
        if !matches!(self.agent, Agent::Gone) {
            self.agent_message(message);
        }
        self.effects()
    }

    /// Takes a message of the agent that could not be read: whoever waits for it gets an error.
    #[must_use]
    pub fn unreadable(&mut self, message: Unreadable, now: Duration) -> Vec<Effect> {
        self.now = now;
        if !matches!(self.agent, Agent::Gone) {
            self.agent_unreadable(message);
        }
        self.effects()
    }

    /// Says whether the prompt of [`Effect::Permit`] may begin.
    #[must_use]
    pub fn permitted(&mut self, session: &AcpSessionId, may: bool, now: Duration) -> Vec<Effect> {
        self.now = now;
        self.next_permitted(session, may);
        self.effects()
    }

    /// A viewer has a question and cannot answer it, or was not shown it.
    #[must_use]
    pub fn cannot_answer(&mut self, viewer: ViewerId, question: i64, now: Duration) -> Vec<Effect> {
        self.now = now;
        self.unasked(viewer, question);
        self.effects()
    }

    /// Does what is due: gives up turns that did not settle, ends questions that nobody sees, and an agent that
    /// does not start. [`Mux::next_look`] says when.
    #[must_use]
    pub fn look(&mut self, now: Duration) -> Vec<Effect> {
        self.now = now;
        if let Agent::Starting { since } = self.agent
            && now.saturating_sub(since) >= Self::START
        {
            self.unusable(Unusable::Silent);
        }
        self.give_up_turns();
        self.end_unattended();
        self.effects()
    }

    /// The earliest time at which [`Mux::look`] has something to do; none if nothing is due.
    #[must_use]
    pub fn next_look(&self) -> Option<Duration> {
        let start = match self.agent {
            Agent::Starting { since } => Some(since.saturating_add(Self::START)),
            _ => None,
        };
        let turns = self.sessions.values().filter_map(|session| session.turn.as_ref());
        let turns = turns.filter(|turn| !turn.given_up).filter_map(|turn| turn.cancelled);
        let turns = turns.map(|since| since.saturating_add(self.settings.settle));
        let questions = self.questions.values().filter_map(|question| question.alone);
        let questions = questions.map(|since| since.saturating_add(self.settings.unattended));
        start.into_iter().chain(turns).chain(questions).min()
    }

    /// The agent has ended: answers everybody. From now on requests are refused with [`Mux::AGENT_GONE`].
    #[must_use]
    pub fn agent_gone(&mut self) -> Vec<Effect> {
        self.end();
        self.effects()
    }

    /// The sessions that live in the agent, by id.
    pub fn sessions(&self) -> impl Iterator<Item = SessionInfo> {
        self.live_sessions().map(|(id, session)| SessionInfo {
            id: id.clone(),
            title: session.title().map(str::to_owned),
            cwd: session.cwd.clone(),
            turns: session.turns(),
            waiting: session.waiting.len(),
            questions: self.questions.values().filter(|question| question.session == *id).count(),
        })
    }

    /// The ids of the sessions that live in the agent. Copies nothing.
    pub fn session_ids(&self) -> impl Iterator<Item = &AcpSessionId> + Clone {
        self.live_sessions().map(|(id, _)| id)
    }

    fn live_sessions(&self) -> impl Iterator<Item = (&AcpSessionId, &Session)> + Clone {
        self.sessions.iter().filter(|(_, session)| session.opening.is_none())
    }

    /// The agent's answer to `initialize`; none before it.
    #[must_use]
    pub fn initialized(&self) -> Option<&Json> {
        match &self.agent {
            Agent::Ready(result) => Some(result),
            _ => None,
        }
    }

    /// The counts of everything that was dropped so far.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    fn effects(&mut self) -> Vec<Effect> {
        mem::take(&mut self.out)
    }

    fn number(&mut self) -> i64 {
        self.last_number = self.last_number.saturating_add(1);
        self.last_number
    }

    /// Sends a request to the agent, under a number of its own.
    fn ask_agent(
        &mut self,
        owner: Option<(ViewerId, RequestId)>,
        what: What,
        method: &str,
        params: Json,
    ) -> i64 {
        let number = self.number();
        if let Some((viewer, id)) = &owner
            && let Some(viewer) = self.viewers.get_mut(viewer)
        {
            viewer.open.insert(id.clone(), Open::Upstream(number));
        }
        self.pending.insert(number, Pending { owner, what });
        let id = RequestId::Number(number);
        self.out.push(Effect::ToAgent(Message::Request {
            id,
            method: method.to_owned(),
            params: Some(params),
        }));
        number
    }

    fn tell_agent(&mut self, method: &str, params: Option<Json>) {
        self.out.push(Effect::ToAgent(Message::Notification { method: method.to_owned(), params }));
    }

    /// Answers a request of a viewer, once, if the viewer is there.
    fn answer(&mut self, viewer: ViewerId, id: &RequestId, outcome: Result<Json, RpcError>) {
        let Some(there) = self.viewers.get_mut(&viewer) else { return };
        if there.open.remove(id).is_some() {
            self.respond(viewer, id.clone(), outcome);
        }
    }

    /// Answers a request that was not recorded as open.
    fn respond(&mut self, viewer: ViewerId, id: RequestId, outcome: Result<Json, RpcError>) {
        self.out.push(match self.is_phone(viewer) {
            true => Effect::Answer(viewer, id, outcome),
            false => Effect::ToDesktop(viewer, Message::Response { id, outcome }),
        });
    }

    fn refuse(&mut self, viewer: ViewerId, id: RequestId, error: RpcError) {
        self.respond(viewer, id, Err(error));
    }

    fn is_phone(&self, viewer: ViewerId) -> bool {
        self.viewers.get(&viewer).is_some_and(|viewer| viewer.kind != Kind::Desktop)
    }

    /// The viewers that have a session.
    fn viewers_of(&self, session: &AcpSessionId) -> Vec<ViewerId> {
        let there = self.viewers.iter().filter(|(_, viewer)| viewer.sessions.contains_key(session));
        there.map(|(id, _)| *id).collect()
    }

    /// Gives an update to a viewer.
    fn update(&mut self, viewer: ViewerId, params: &Arc<Json>) {
        self.out.push(match self.is_phone(viewer) {
            true => Effect::Update(viewer, Arc::clone(params)),
            false => Effect::ToDesktop(
                viewer,
                Message::Notification {
                    method: "session/update".to_owned(),
                    params: Some(Json::clone(params)),
                },
            ),
        });
    }

    /// Makes an update, keeps it, and gives it to everybody in the session but `but`.
    fn make_update(&mut self, session: &AcpSessionId, but: ViewerId, update: Json) {
        let params =
            Arc::new(Json::object([("sessionId", Json::text(session.as_str())), ("update", update)]));
        if let Some(known) = self.sessions.get_mut(session) {
            known.keep(&params);
        }
        for viewer in self.viewers_of(session) {
            if viewer != but {
                self.update(viewer, &params);
            }
        }
    }

    /// Gives a viewer a session: its state, then its open questions.
    fn enter(&mut self, viewer: ViewerId, session: &AcpSessionId) {
        let Some(there) = self.viewers.get_mut(&viewer) else { return };
        there.sessions.entry(session.clone()).or_insert(self.now);
        let Some(known) = self.sessions.get(session) else { return };
        for params in known.state() {
            self.update(viewer, &params);
        }
        self.show_questions(viewer, session);
    }

    /// The session, if it lives in the agent.
    fn live(&mut self, session: &AcpSessionId) -> Option<&mut Session> {
        self.sessions.get_mut(session).filter(|session| session.opening.is_none())
    }

    /// Answers everybody: there is no agent any more.
    fn end(&mut self) {
        self.agent = Agent::Gone;
        self.pending.clear();
        self.early.clear();
        self.early_weight = 0;
        let questions: Vec<i64> = self.questions.keys().copied().collect();
        for question in questions {
            self.retire(question, None);
        }
        self.sessions.clear();
        let viewers: Vec<ViewerId> = self.viewers.keys().copied().collect();
        for id in viewers {
            let Some(viewer) = self.viewers.get_mut(&id) else { continue };
            for request in mem::take(&mut viewer.open).into_keys() {
                self.refuse(id, request, agent_gone());
            }
        }
    }

    fn unusable(&mut self, why: Unusable) {
        self.end();
        self.out.push(Effect::EndAgent(why));
    }

    fn initialize(&mut self) {
        let Settings { read_files, write_files, terminals, elicitation, .. } = self.settings;
        let files = Json::object([
            ("readTextFile", Json::Bool(read_files)),
            ("writeTextFile", Json::Bool(write_files)),
        ]);
        let mut capabilities = Json::object([("fs", files), ("terminal", Json::Bool(terminals))]);
        if elicitation {
            json::set(&mut capabilities, "elicitation", Json::object([("form", Json::object([]))]));
        }
        let client = Json::object([
            ("name", Json::text(env!("CARGO_PKG_NAME"))),
            ("version", Json::text(env!("CARGO_PKG_VERSION"))),
        ]);
        let params = Json::object([
            ("protocolVersion", Json::integer(1)),
            ("clientCapabilities", capabilities),
            ("clientInfo", client),
        ]);
        self.ask_agent(None, What::Initialize, "initialize", params);
    }
}

fn agent_gone() -> RpcError {
    error(Mux::AGENT_GONE, "agent_gone", "the agent has ended; start it again at the desktop")
}

fn too_many(what: &str) -> RpcError {
    error(Mux::TOO_MANY, "too_many", &format!("too many {what} are open; wait for an answer"))
}

fn no_such_session() -> RpcError {
    error(Mux::NO_SUCH_SESSION, "no_such_session", "the agent does not have this session now; load it first")
}
