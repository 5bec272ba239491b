//! A real agent, of the official crate, shared through the multiplexer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[allow(dead_code, reason = "another test program uses the rest")]
mod bench;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bench::{json, notice, request, result};
use sessioncap::acp::{AcpSessionId, FromPhone, Guest, Json, Message, RequestId, RpcError, ToPhone};
use sessioncap::{OpSet, SessionId};
use sessioncap_acp::mux::{Effect, Kind, Mux, Settings, Turns, ViewerId};
use sessioncap_acp::process::{Agent, Cause, Ended, Event, Start};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// The built sample agent, beside this test's own executable.
fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().unwrap().parent().unwrap().join("examples/sample_agent");
    assert!(path.exists(), "{} is missing; run `cargo build --examples` first", path.display());
    path
}

/// The multiplexer with its agent, as a bridge drives them, without the connections.
struct Bridge {
    mux: Mux,
    agent: Agent,
    events: Receiver<Event>,
    out: VecDeque<Effect>,
    noise: usize,
    ended: Option<Ended>,
}

impl Bridge {
    fn new(settings: Settings) -> Self {
        let start = Start {
            program: program().into(),
            arguments: Vec::new(),
            directory: None,
            log: Arc::new(|_: &str| {}),
        };
        let (agent, events) = Agent::start(&start).unwrap();
        let (mux, effects) = Mux::new(settings, Duration::ZERO);
        let mut bridge = Self { mux, agent, events, out: VecDeque::new(), noise: 0, ended: None };
        bridge.carry_out(effects);
        bridge
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::ToAgent(message) => self.agent.send(&message),
                Effect::Permit(_, session) => {
                    let effects = self.mux.permitted(&session, true, Duration::ZERO);
                    self.carry_out(effects);
                }
                effect => self.out.push_back(effect),
            }
        }
    }

    fn desktop(&mut self, viewer: ViewerId, message: Message) {
        let effects = self.mux.from_desktop(viewer, message, Duration::ZERO);
        self.carry_out(effects);
    }

    fn phone(&mut self, viewer: ViewerId, message: FromPhone) {
        let effects = self.mux.from_phone(viewer, message, Duration::ZERO);
        self.carry_out(effects);
    }

    /// The next effect for a viewer, after what the agent has to say before it.
    async fn next(&mut self) -> Effect {
        loop {
            if let Some(effect) = self.out.pop_front() {
                return effect;
            }
            let event = timeout(PATIENCE, self.events.recv()).await.expect("nothing happens");
            let effects = match event.expect("the agent has ended") {
                Event::Message(message) => self.mux.from_agent(message, Duration::ZERO),
                Event::Noise(_) => {
                    self.noise += 1;
                    Vec::new()
                }
                Event::Unreadable(which) => self.mux.unreadable(which, Duration::ZERO),
                Event::Ended(ended) => {
                    self.ended = Some(ended);
                    self.mux.agent_gone()
                }
            };
            self.carry_out(effects);
        }
    }

    /// What comes until this desktop's request has its answer, and the answer.
    async fn answer(&mut self, viewer: ViewerId, id: &str) -> (Vec<Effect>, Result<Json, RpcError>) {
        let mut before = Vec::new();
        loop {
            match self.next().await {
                Effect::ToDesktop(to, Message::Response { id: RequestId::Text(answered), outcome })
                    if to == viewer && answered == id =>
                {
                    return (before, outcome);
                }
                effect => before.push(effect),
            }
        }
    }

    async fn ask(&mut self, viewer: ViewerId, method: &str, params: &str) -> Json {
        self.desktop(viewer, request(method, method, params));
        self.answer(viewer, method).await.1.unwrap()
    }

    /// A desktop that has made a session.
    async fn desktop_with_session(&mut self) -> (ViewerId, AcpSessionId) {
        let viewer = self.mux.join(Kind::Desktop, Duration::ZERO).0;
        let params = r#"{"protocolVersion":1,"clientCapabilities":{"fs":{"readTextFile":true}}}"#;
        let initialized = self.ask(viewer, "initialize", params).await;
        assert_eq!(
            initialized.get("agentInfo").unwrap().get("name").unwrap().as_text(),
            Some("sample-agent")
        );
        let made = self.ask(viewer, "session/new", r#"{"cwd":"/","mcpServers":[]}"#).await;
        (viewer, AcpSessionId::new(made.get("sessionId").unwrap().as_text().unwrap()).unwrap())
    }

    fn prompt(&mut self, viewer: ViewerId, session: &AcpSessionId, id: &str, text: &str) {
        self.desktop(viewer, request(id, "session/prompt", &prompt(session, text)));
    }
}

fn prompt(session: &AcpSessionId, text: &str) -> String {
    format!(r#"{{"sessionId":"{session}","prompt":[{{"type":"text","text":"{text}"}}]}}"#)
}

fn stop_reason(outcome: &Result<Json, RpcError>) -> &str {
    outcome.as_ref().unwrap().get("stopReason").unwrap().as_text().unwrap()
}

/// The pieces of the agent's answer that a viewer got.
fn said(effects: &[Effect], viewer: ViewerId) -> String {
    let updates = effects.iter().filter_map(|effect| match effect {
        Effect::ToDesktop(to, Message::Notification { params, .. }) if *to == viewer => params.clone(),
        Effect::Update(to, params) if *to == viewer => Some(Json::clone(params)),
        _ => None,
    });
    let texts = updates.filter_map(|params| {
        let update = params.get("update")?;
        let of_agent = update.get("sessionUpdate")?.as_text()? == "agent_message_chunk";
        of_agent.then(|| update.get("content")?.get("text")?.as_text().map(str::to_owned))?
    });
    texts.collect()
}

#[tokio::test]
async fn a_desktop_and_a_phone_follow_the_same_turn() {
    let mut bridge = Bridge::new(Settings::default());
    let (desktop, session) = bridge.desktop_with_session().await;
    let phone = bridge.mux.join(Kind::Phone { session: session.clone() }, Duration::ZERO).0;
    bridge.prompt(desktop, &session, "p", "hello");
    let (before, outcome) = bridge.answer(desktop, "p").await;
    assert_eq!(stop_reason(&outcome), "end_turn");
    assert_eq!(said(&before, desktop), "I looked around.");
    assert_eq!(said(&before, phone), "I looked around.");
    assert_eq!(bridge.mux.sessions().next().unwrap().title.as_deref(), Some("A sample"));
    assert_eq!(bridge.noise, 0);
}

#[tokio::test]
async fn a_phone_answers_what_a_desktop_began() {
    let mut bridge = Bridge::new(Settings::default());
    let (desktop, session) = bridge.desktop_with_session().await;
    let phone = bridge.mux.join(Kind::Phone { session: session.clone() }, Duration::ZERO).0;
    bridge.prompt(desktop, &session, "p", "ask");
    let question = loop {
        if let Effect::Ask { viewer, question, .. } = bridge.next().await {
            assert_eq!(viewer, phone);
            break question;
        }
    };
    let outcome = json(r#"{"outcome":{"outcome":"selected","optionId":"yes"}}"#);
    bridge.phone(phone, FromPhone::Answer { question, outcome });
    let (before, outcome) = bridge.answer(desktop, "p").await;
    assert_eq!(stop_reason(&outcome), "end_turn");
    assert_eq!(said(&before, phone), "Written.");
    let over = notice("$/cancel_request", &format!(r#"{{"requestId":{question}}}"#));
    assert!(before.contains(&Effect::ToDesktop(desktop, over)));
}

#[tokio::test]
async fn a_cancel_ends_the_turn_of_its_sender_and_the_next_one_begins() {
    let mut bridge = Bridge::new(Settings::default());
    let (desktop, session) = bridge.desktop_with_session().await;
    for (first, open) in [("slow", false), ("ask", true)] {
        bridge.prompt(desktop, &session, "1", first);
        bridge.prompt(desktop, &session, "2", "echo two");
        // Nothing is cancelled before the agent has begun.
        loop {
            let effect = bridge.next().await;
            let asked = matches!(&effect, Effect::ToDesktop(_, Message::Request { .. }));
            if asked || !open && said(&[effect], desktop) == "Working..." {
                break;
            }
        }
        bridge.desktop(desktop, notice("$/cancel_request", r#"{"requestId":"1"}"#));
        let (_, outcome) = bridge.answer(desktop, "1").await;
        assert_eq!(stop_reason(&outcome), "cancelled");
        let (before, outcome) = bridge.answer(desktop, "2").await;
        assert_eq!((stop_reason(&outcome), said(&before, desktop).as_str()), ("end_turn", "two"));
    }
}

#[tokio::test]
async fn an_agent_that_does_not_hear_a_cancel_keeps_its_own_session_alone() {
    let mut bridge = Bridge::new(Settings::default());
    let (desktop, session) = bridge.desktop_with_session().await;
    let (second, other) = bridge.desktop_with_session().await;
    bridge.prompt(desktop, &session, "1", "deaf");
    assert_eq!(said(&[bridge.next().await], desktop), "Working...");
    bridge.desktop(desktop, notice("$/cancel_request", r#"{"requestId":"1"}"#));
    let effects = bridge.mux.look(Duration::from_secs(30));
    bridge.carry_out(effects);
    let (_, outcome) = bridge.answer(desktop, "1").await;
    assert_eq!(stop_reason(&outcome), "cancelled");
    bridge.prompt(desktop, &session, "2", "echo");
    assert_eq!(bridge.answer(desktop, "2").await.1.unwrap_err().code, Mux::SESSION_BUSY);
    bridge.prompt(second, &other, "1", "wake");
    assert_eq!(stop_reason(&bridge.answer(second, "1").await.1), "end_turn");
    // The other turn ends soon after; then the session works again.
    while bridge.mux.sessions().any(|info| info.turns == Turns::Stuck) {
        let event = timeout(PATIENCE, bridge.events.recv()).await.unwrap().unwrap();
        let Event::Message(message) = event else { panic!("{event:?}") };
        let effects = bridge.mux.from_agent(message, Duration::ZERO);
        bridge.carry_out(effects);
    }
    bridge.prompt(desktop, &session, "3", "echo back");
    let (before, _) = bridge.answer(desktop, "3").await;
    assert_eq!(said(&before, desktop), "back");
}

#[tokio::test]
async fn the_agent_reads_a_file_through_the_desktop() {
    for (served, expected) in [(true, "contents"), (false, "I could not read it: ")] {
        let mut bridge = Bridge::new(Settings { read_files: served, ..Settings::default() });
        let (desktop, session) = bridge.desktop_with_session().await;
        let viewer = if served {
            desktop
        } else {
            bridge.mux.join(Kind::Phone { session: session.clone() }, Duration::ZERO).0
        };
        if !served {
            let effects = bridge.mux.leave(desktop, Duration::ZERO);
            bridge.carry_out(effects);
            let prompt = json(r#"[{"type":"text","text":"read /etc/motd"}]"#);
            bridge.phone(viewer, FromPhone::Prompt { id: RequestId::Null, prompt });
        } else {
            bridge.prompt(desktop, &session, "p", "read /etc/motd");
        }
        let mut all = Vec::new();
        loop {
            match bridge.next().await {
                Effect::ToDesktop(to, Message::Request { id, method, params }) => {
                    assert_eq!((to, method.as_str()), (desktop, "fs/read_text_file"));
                    assert_eq!(params.unwrap().get("path").unwrap().as_text(), Some("/etc/motd"));
                    bridge.desktop(desktop, result(&id, r#"{"content":"contents"}"#));
                }
                Effect::ToDesktop(_, Message::Response { .. }) | Effect::Answer(..) => break,
                effect => all.push(effect),
            }
        }
        assert!(said(&all, viewer).starts_with(expected), "{}", said(&all, viewer));
    }
}

#[tokio::test]
async fn a_crash_in_mid_turn_answers_who_waits() {
    let mut bridge = Bridge::new(Settings::default());
    let (desktop, session) = bridge.desktop_with_session().await;
    let phone = bridge.mux.join(Kind::Phone { session: session.clone() }, Duration::ZERO).0;
    bridge.prompt(desktop, &session, "1", "crash");
    let text = json(r#"[{"type":"text","text":"echo"}]"#);
    bridge.phone(phone, FromPhone::Prompt { id: RequestId::Null, prompt: text });
    assert_eq!(bridge.answer(desktop, "1").await.1.unwrap_err().code, Mux::AGENT_GONE);
    let Effect::Answer(to, RequestId::Null, Err(error)) = bridge.next().await else { panic!() };
    assert_eq!((to, error.code), (phone, Mux::AGENT_GONE));
    let ended = bridge.ended.unwrap();
    assert_eq!((ended.cause, ended.status.unwrap().code()), (Cause::Exited, Some(9)));
}

#[tokio::test]
async fn noise_of_a_real_agent_is_dropped_and_a_flood_comes_whole_and_in_order() {
    let mut bridge = Bridge::new(Settings::default());
    let (desktop, session) = bridge.desktop_with_session().await;
    bridge.prompt(desktop, &session, "1", "noise");
    let (before, outcome) = bridge.answer(desktop, "1").await;
    assert_eq!((stop_reason(&outcome), said(&before, desktop).as_str()), ("end_turn", "I made noise."));
    assert_eq!((bridge.noise, bridge.agent.noise()), (1, 1));
    bridge.prompt(desktop, &session, "2", "flood 500");
    let (before, outcome) = bridge.answer(desktop, "2").await;
    assert_eq!(stop_reason(&outcome), "end_turn");
    let numbers = before.iter().map(|effect| said(std::slice::from_ref(effect), desktop));
    let numbers: Vec<usize> = numbers.map(|text| text.split(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (0..500).collect::<Vec<_>>());
    // A second desktop loads the session: the past comes from here, and ends where it ended.
    let second = bridge.mux.join(Kind::Desktop, Duration::ZERO).0;
    bridge.ask(second, "initialize", r#"{"protocolVersion":1}"#).await;
    let params = format!(r#"{{"sessionId":"{session}","cwd":"/","mcpServers":[]}}"#);
    bridge.desktop(second, request("l", "session/load", &params));
    let (past, outcome) = bridge.answer(second, "l").await;
    assert_eq!(outcome.unwrap().get("modes").unwrap().get("currentModeId").unwrap().as_text(), Some("ask"));
    assert!(said(&past, second).starts_with("I made noise.0 flood"));
    assert!(said(&past, second).contains("499 flood"));
}

/// A phone behind its guest, as a bridge has it.
struct Phone {
    viewer: ViewerId,
    guest: Guest,
}

impl Phone {
    fn join(bridge: &mut Bridge, session: &AcpSessionId, ops: OpSet) -> Self {
        let (viewer, effects) = bridge.mux.join(Kind::Phone { session: session.clone() }, Duration::ZERO);
        bridge.carry_out(effects);
        let own = SessionId::new("phone-s-own-name").unwrap();
        Self { viewer, guest: Guest::new(own, session.clone(), ops) }
    }

    fn send(&mut self, bridge: &mut Bridge, text: &str) {
        let message = self.guest.read(text.as_bytes()).unwrap();
        self.guest.take(&message).unwrap();
        bridge.phone(self.viewer, message);
    }

    /// The next message that this phone is sent.
    async fn next(&mut self, bridge: &mut Bridge) -> Message {
        loop {
            let sent = match bridge.next().await {
                Effect::Update(to, params) if to == self.viewer => self.guest.update(&params),
                Effect::Replay(to, params) if to == self.viewer => self.guest.replay(&params),
                Effect::Ask { viewer, question, method, params } if viewer == self.viewer => {
                    self.guest.ask(question, &method, &params)
                }
                Effect::Retire(to, question) if to == self.viewer => self.guest.retire(question),
                Effect::Answer(to, id, outcome) if to == self.viewer => self.guest.result(&id, &outcome),
                _ => None,
            };
            if let Some(ToPhone { text, .. }) = sent {
                assert!(!text.contains("sample session"), "the agent's id of the session is shown: {text}");
                return bench::message(&text);
            }
        }
    }

    async fn ask(&mut self, bridge: &mut Bridge, text: &str) -> (Vec<Message>, Result<Json, RpcError>) {
        self.send(bridge, text);
        let mut before = Vec::new();
        loop {
            match self.next(bridge).await {
                Message::Response { id: RequestId::Text(id), outcome } if id == "phone" => {
                    return (before, outcome);
                }
                message => before.push(message),
            }
        }
    }
}

fn of_phone(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":"phone","method":"{method}","params":{params}}}"#)
}

#[tokio::test]
async fn a_phone_behind_its_guest_is_served_and_never_sees_the_agents_id() {
    const OWN: &str = r#"{"sessionId":"phone-s-own-name"}"#;
    let mut bridge = Bridge::new(Settings::default());
    let (desktop, session) = bridge.desktop_with_session().await;
    let mut phone = Phone::join(&mut bridge, &session, OpSet::ALL);
    let (_, outcome) = phone.ask(&mut bridge, &of_phone("initialize", r#"{"protocolVersion":1}"#)).await;
    assert_eq!(
        outcome.unwrap().get("agentInfo").unwrap().get("name").unwrap().as_text(),
        Some("sample-agent")
    );

    let prompt = prompt_of_phone("hello");
    let (turn, outcome) = phone.ask(&mut bridge, &of_phone("session/prompt", &prompt)).await;
    assert_eq!(stop_reason(&outcome), "end_turn");
    let (past, outcome) = phone.ask(&mut bridge, &of_phone("session/load", OWN)).await;
    assert!(outcome.is_ok());
    let kinds = |messages: &[Message], kind: &str| {
        let of_kind = messages.iter().filter(|message| match message {
            Message::Notification { params: Some(params), .. } => {
                params.get("update").unwrap().get("sessionUpdate").unwrap().as_text() == Some(kind)
            }
            _ => false,
        });
        of_kind.count()
    };
    assert_eq!(kinds(&turn, "agent_message_chunk"), 3);
    assert_eq!(kinds(&turn, "user_message_chunk"), 0);
    assert_eq!(kinds(&past, "agent_message_chunk"), 3);
    assert_eq!(kinds(&past, "user_message_chunk"), 1);

    let (_, outcome) = phone.ask(&mut bridge, &of_phone("session/status", OWN)).await;
    assert_eq!(outcome.unwrap().get("status").unwrap().as_text(), Some("open"));
    let (_, outcome) = phone.ask(&mut bridge, &of_phone("session/list", NONE)).await;
    let listed = outcome.unwrap();
    let Some(Json::List(listed)) = listed.get("sessions") else { panic!() };
    assert_eq!(listed[0].get("title").unwrap().as_text(), Some("A sample"));
    for (method, params) in
        [("session/resume", OWN), ("authenticate", r#"{"methodId":"a"}"#), ("logout", NONE)]
    {
        assert!(phone.ask(&mut bridge, &of_phone(method, params)).await.1.is_ok(), "{method}");
    }

    // It answers what the desktop's turn asks, with one of the choices that it is shown.
    bridge.prompt(desktop, &session, "p", "ask");
    let question = loop {
        if let Message::Request { id, params, .. } = phone.next(&mut bridge).await {
            assert!(!params.unwrap().to_text().contains("always"));
            break id;
        }
    };
    let answer = r#"{"outcome":{"outcome":"selected","optionId":"no"}}"#;
    let answer = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{answer}}}"#, question.to_json());
    phone.send(&mut bridge, &answer);
    let (before, outcome) = bridge.answer(desktop, "p").await;
    assert_eq!((stop_reason(&outcome), said(&before, desktop).as_str()), ("end_turn", "Not written."));

    // A stop from the phone ends its own turn.
    let prompt = prompt_of_phone("slow");
    phone.send(&mut bridge, &of_phone("session/prompt", &prompt));
    while kinds(&[phone.next(&mut bridge).await], "agent_message_chunk") == 0 {}
    phone.send(&mut bridge, &format!(r#"{{"jsonrpc":"2.0","method":"session/cancel","params":{OWN}}}"#));
    let Message::Response { outcome, .. } = phone.next(&mut bridge).await else { panic!() };
    assert_eq!(stop_reason(&outcome), "cancelled");
}

fn prompt_of_phone(text: &str) -> String {
    format!(r#"{{"sessionId":"phone-s-own-name","prompt":[{{"type":"text","text":"{text}"}}]}}"#)
}

const NONE: &str = "{}";
