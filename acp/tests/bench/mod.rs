//! A multiplexer on a bench: what goes in, and what came out.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use sessioncap::acp::{AcpSessionId, Json, Message, RequestId, RpcError};
use sessioncap_acp::mux::{Effect, Kind, Mux, Settings, ViewerId};

pub struct Bench {
    pub mux: Mux,
    pub now: Duration,
    pub out: VecDeque<Effect>,
    /// Phones that may not prompt any more.
    pub forbidden: BTreeSet<ViewerId>,
}

/// JSON from its text.
pub fn json(text: &str) -> Json {
    match message(&format!(r#"{{"jsonrpc":"2.0","id":0,"result":{text}}}"#)) {
        Message::Response { outcome: Ok(json), .. } => json,
        other => panic!("{other:?}"),
    }
}

pub fn message(text: &str) -> Message {
    Message::from_bytes(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

pub fn request(id: impl Into<Id>, method: &str, params: &str) -> Message {
    Message::Request { id: id.into().0, method: method.to_owned(), params: Some(json(params)) }
}

pub fn notice(method: &str, params: &str) -> Message {
    Message::Notification { method: method.to_owned(), params: Some(json(params)) }
}

pub fn result(id: impl Into<Id>, result: &str) -> Message {
    Message::Response { id: id.into().0, outcome: Ok(json(result)) }
}

pub fn refusal(id: impl Into<Id>, code: i64) -> Message {
    let error = RpcError { code, message: "no".to_owned(), data: None };
    Message::Response { id: id.into().0, outcome: Err(error) }
}

pub fn session(id: &str) -> AcpSessionId {
    AcpSessionId::new(id).unwrap()
}

pub struct Id(pub RequestId);

impl From<i64> for Id {
    fn from(id: i64) -> Self {
        Self(RequestId::Number(id))
    }
}

impl From<&str> for Id {
    fn from(id: &str) -> Self {
        Self(RequestId::Text(id.to_owned()))
    }
}

impl From<&RequestId> for Id {
    fn from(id: &RequestId) -> Self {
        Self(id.clone())
    }
}

pub const INITIALIZED: &str = r#"{"protocolVersion":1,"agentCapabilities":{"loadSession":true}}"#;

impl Bench {
    /// A multiplexer whose agent has been initialized.
    pub fn new(settings: Settings) -> Self {
        let (mux, effects) = Mux::new(settings, Duration::ZERO);
        let mut bench = Self { mux, now: Duration::ZERO, out: effects.into(), forbidden: BTreeSet::new() };
        let id = bench.agent_gets("initialize").0;
        bench.agent(result(&id, INITIALIZED));
        bench
    }

    pub fn add(&mut self, effects: Vec<Effect>) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Permit(viewer, session) => {
                    let may = !self.forbidden.contains(&viewer);
                    for effect in self.mux.permitted(&session, may, self.now).into_iter().rev() {
                        effects.push_front(effect);
                    }
                }
                effect => self.out.push_back(effect),
            }
        }
    }

    pub fn agent(&mut self, message: Message) {
        let effects = self.mux.from_agent(message, self.now);
        self.add(effects);
    }

    pub fn desktop(&mut self, viewer: ViewerId, message: Message) {
        let effects = self.mux.from_desktop(viewer, message, self.now);
        self.add(effects);
    }

    pub fn join(&mut self, kind: Kind) -> ViewerId {
        let (viewer, effects) = self.mux.join(kind, self.now);
        self.add(effects);
        viewer
    }

    pub fn leave(&mut self, viewer: ViewerId) {
        let effects = self.mux.leave(viewer, self.now);
        self.add(effects);
    }

    pub fn look(&mut self) {
        let effects = self.mux.look(self.now);
        self.add(effects);
    }

    /// A desktop that is initialized and declares `capabilities`.
    pub fn desktop_with(&mut self, capabilities: &str) -> ViewerId {
        let viewer = self.join(Kind::Desktop);
        let params = format!(r#"{{"protocolVersion":1,"clientCapabilities":{capabilities}}}"#);
        self.desktop(viewer, request("init", "initialize", &params));
        assert_eq!(self.desktop_gets(viewer), result("init", INITIALIZED));
        viewer
    }

    /// A desktop that has made the session.
    pub fn desktop_in(&mut self, id: &str, capabilities: &str) -> ViewerId {
        let viewer = self.desktop_with(capabilities);
        let params = format!(r#"{{"sessionId":"{id}","cwd":"/home","mcpServers":[]}}"#);
        self.desktop(viewer, request("open", "session/resume", &params));
        if let Some(Effect::ToAgent(_)) = self.out.front() {
            let number = self.agent_gets("session/resume").0;
            self.agent(result(&number, "{}"));
        }
        assert_eq!(self.desktop_gets(viewer), result("open", "{}"));
        viewer
    }

    pub fn phone_in(&mut self, id: &str) -> ViewerId {
        self.join(Kind::Phone { session: session(id) })
    }

    /// The next effect, which must be a request or notification to the agent.
    pub fn agent_gets(&mut self, expected: &str) -> (RequestId, Option<Json>) {
        match self.out.pop_front() {
            Some(Effect::ToAgent(Message::Request { id, method, params })) if method == expected => {
                (id, params)
            }
            Some(Effect::ToAgent(Message::Notification { method, params })) if method == expected => {
                (RequestId::Null, params)
            }
            other => panic!("expected {expected}, got {other:?}"),
        }
    }

    /// The next effect, which must be an answer to the agent.
    pub fn answer_to_agent(&mut self) -> (RequestId, Result<Json, RpcError>) {
        match self.out.pop_front() {
            Some(Effect::ToAgent(Message::Response { id, outcome })) => (id, outcome),
            other => panic!("{other:?}"),
        }
    }

    /// The next effect, which must be a message to this desktop.
    pub fn desktop_gets(&mut self, viewer: ViewerId) -> Message {
        match self.out.pop_front() {
            Some(Effect::ToDesktop(to, message)) if to == viewer => message,
            other => panic!("expected a message to {viewer}, got {other:?}"),
        }
    }

    /// The next effect, which must be an answer to this phone.
    pub fn phone_gets(&mut self, viewer: ViewerId) -> (RequestId, Result<Json, RpcError>) {
        match self.out.pop_front() {
            Some(Effect::Answer(to, id, outcome)) if to == viewer => (id, outcome),
            other => panic!("expected an answer to {viewer}, got {other:?}"),
        }
    }

    pub fn nothing(&self) {
        assert!(self.out.is_empty(), "{:?}", self.out);
    }

    pub fn all(&mut self) -> Vec<Effect> {
        self.out.drain(..).collect()
    }
}
