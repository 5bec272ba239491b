//! The bridge as a process, with the official crate's agent on its other side, a desktop and phones.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(dead_code, reason = "shared with the programs' tests")]

#[path = "bridge/attacks.rs"]
mod attacks;
#[path = "bridge/faults.rs"]
mod faults;
#[path = "../../examples/tests/acp/net.rs"]
mod net;
#[path = "bridge/network.rs"]
mod network;
#[path = "bridge/official.rs"]
mod official;
#[path = "bridge/tls.rs"]
mod tls;
#[path = "../../examples/tests/programs/waits.rs"]
mod waits;
#[path = "../../examples/tests/programs/world.rs"]
mod world;

use std::path::Path;

use serde_json::{Value, json};
use sessioncap::acp::{Json, Message, RequestId};
use sessioncap::desktop::PairingTerms;
use sessioncap::{Label, Op, OpSet, SessionId, TicketId};
use sessioncap_programs::companion::acp::{self, Acp, Heard};
use sessioncap_programs::desktop::acp::Messages;
use sessioncap_programs::desktop::profile::Profile;
use sessioncap_programs::desktop::{Desktop, Identity};
use sessioncap_programs::problem::Problem;

use world::{World, new_directory, program, within};

const BRIDGE: &str = env!("CARGO_BIN_EXE_acp_bridge");

/// A bridge and its desktop.
pub struct Bridge {
    pub world: World,
    identity: Identity,
}

impl Bridge {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub async fn start_with(arguments: &[&str]) -> Self {
        let agent = program("sample_agent");
        Self::start_command(agent.to_str().unwrap(), arguments).await
    }

    pub async fn start_command(command: &str, arguments: &[&str]) -> Self {
        let arguments = [&["--command", command], arguments].concat();
        let world = World::start_program(Path::new(BRIDGE), new_directory(), &arguments).await;
        let profile = Profile {
            directory: world.file("desktop"),
            url: Some(world.url.clone()),
            agent: Some(world.key),
            device_key: None,
        };
        Self { identity: profile.open().unwrap(), world }
    }

    pub async fn desktop(&self) -> Client {
        let desktop = within("the desktop's connection", Desktop::connect(&self.identity)).await.unwrap();
        let mut client =
            Client { messages: Messages::open(desktop).await.unwrap(), early: Vec::new(), next: 0 };
        let capabilities = json!({ "fs": { "readTextFile": true, "writeTextFile": true } });
        client
            .call("initialize", json!({ "protocolVersion": 1, "clientCapabilities": capabilities }))
            .await
            .unwrap();
        client
    }

    /// A desktop with a new session, and the bridge's id of it.
    pub async fn with_session(&self) -> (Client, String, SessionId) {
        let mut client = self.desktop().await;
        let upstream = client.new_session().await;
        let session = self.session(&upstream).await;
        (client, upstream, session)
    }

    /// The bridge's id of a session of the agent.
    pub async fn session(&self, upstream: &str) -> SessionId {
        let mut desktop = Desktop::connect(&self.identity).await.unwrap();
        let listed = desktop.call(&json!({ "method": "shell.list_sessions" })).await.unwrap();
        let sessions = listed["sessions"].as_array().unwrap();
        let entry = sessions.iter().find(|entry| entry["acp_session_id"] == upstream).expect("it is listed");
        SessionId::new(entry["id"].as_str().unwrap()).unwrap()
    }

    pub async fn pair(&self, session: &SessionId, ops: OpSet, file: &str) -> (Acp, TicketId) {
        let mut desktop = Desktop::connect(&self.identity).await.unwrap();
        let terms = PairingTerms::default().with_ops(ops).unwrap();
        let shared = desktop.share(session, &terms).await.unwrap();
        let link = shared.pairing.link;
        let file = self.world.file(file);
        let label = Label::new("phone").unwrap();
        let joined = within("joining", acp::join(&link, &label, &file, acp::SEARCH, |_| {})).await.unwrap();
        (joined.live, shared.pairing.ticket)
    }

    /// A phone with everything that a credential can have, initialized.
    pub async fn phone(&self, session: &SessionId, file: &str) -> Acp {
        self.phone_with(session, OpSet::ALL, file).await
    }

    pub async fn phone_with(&self, session: &SessionId, ops: OpSet, file: &str) -> Acp {
        let (mut phone, _) = self.pair(session, ops, file).await;
        within("initialize", phone.initialize(|_| {})).await.unwrap();
        phone
    }

    pub async fn revoke(&self, ticket: TicketId) {
        let mut desktop = Desktop::connect(&self.identity).await.unwrap();
        desktop.revoke(sessioncap::pair::Revoke::Ticket(ticket)).await.unwrap();
    }
}

/// A desktop's client.
pub struct Client {
    messages: Messages,
    early: Vec<Value>,
    next: u64,
}

impl Client {
    pub async fn send(&mut self, message: &Value) {
        self.messages.send(&message.to_string()).await.unwrap();
    }

    pub async fn ask(&mut self, method: &str, params: Value) -> u64 {
        self.next += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": self.next, "method": method, "params": params })).await;
        self.next
    }

    /// The next message that is as it should be. The others are kept.
    pub async fn until(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.early.iter().position(&is) {
            return self.early.remove(at);
        }
        loop {
            let text = within(what, self.messages.next()).await.unwrap();
            let message: Value =
                serde_json::from_str(&text.unwrap_or_else(|| panic!("the end, not {what}"))).unwrap();
            if is(&message) {
                return message;
            }
            self.early.push(message);
        }
    }

    pub async fn answer(&mut self, id: u64) -> Result<Value, Value> {
        let answer =
            self.until("an answer", |message| message["id"] == id && message.get("method").is_none()).await;
        match answer.get("error") {
            Some(error) => Err(error.clone()),
            None => Ok(answer["result"].clone()),
        }
    }

    pub async fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let id = self.ask(method, params).await;
        self.answer(id).await
    }

    pub async fn new_session(&mut self) -> String {
        let made = self.call("session/new", json!({ "cwd": "/tmp", "mcpServers": [] })).await.unwrap();
        made["sessionId"].as_str().unwrap().to_owned()
    }

    pub async fn prompt(&mut self, session: &str, text: &str) -> u64 {
        self.ask(
            "session/prompt",
            json!({ "sessionId": session, "prompt": [{ "type": "text", "text": text }] }),
        )
        .await
    }

    pub async fn question(&mut self) -> Value {
        self.until("a question", |message| message["method"] == "session/request_permission").await
    }

    /// Closes the connection from the other side: `None` once it has ended.
    pub async fn end(&mut self) -> Option<String> {
        loop {
            match within("the end", self.messages.next()).await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(problem) => return Some(problem.to_string()),
            }
        }
    }
}

pub fn value(json: &Json) -> Value {
    serde_json::from_str(&json.to_text()).unwrap()
}

pub fn params(params: Value) -> Json {
    Json::from_bytes(params.to_string().as_bytes(), Message::MAX_LEN, Message::MAX_DEPTH).unwrap()
}

/// The next message of the bridge that is as it should be.
pub async fn until(phone: &mut Acp, what: &str, is: impl Fn(&Message) -> bool) -> Message {
    loop {
        match within(what, phone.next()).await.unwrap() {
            Heard::Message(message) if is(&message) => return message,
            // An answer that came too late is told by a notice.
            Heard::Message(_) | Heard::Notice(_) => {}
            Heard::End(code) => panic!("{code:?}, not {what}"),
        }
    }
}

pub fn is_question(message: &Message) -> bool {
    matches!(message, Message::Request { method, .. } if method == "session/request_permission")
}

pub fn question_id(message: &Message) -> RequestId {
    match message {
        Message::Request { id, .. } => id.clone(),
        _ => panic!("not a question"),
    }
}

/// The text of the agent in an update.
pub fn said(message: &Message) -> Option<String> {
    match message {
        Message::Notification { method, params: Some(params) } if method == "session/update" => {
            let params = value(params);
            let update = &params["update"];
            (update["sessionUpdate"] == "agent_message_chunk")
                .then(|| update["content"]["text"].as_str().unwrap_or_default().to_owned())
        }
        _ => None,
    }
}

/// Why the bridge ended its side.
pub async fn ended(phone: &mut Acp) -> String {
    loop {
        match within("the end", phone.next()).await {
            Ok(Heard::End(code)) => {
                return code.status().map_or_else(|| format!("{code:?}"), |status| status.code().to_owned());
            }
            Ok(_) => {}
            Err(problem) => return problem.to_string(),
        }
    }
}

pub async fn outcome(phone: &mut Acp, id: &RequestId) -> Result<Value, Value> {
    let is = |message: &Message| matches!(message, Message::Response { id: of, .. } if of == id);
    match until(phone, "an answer", is).await {
        Message::Response { outcome: Ok(result), .. } => Ok(value(&result)),
        Message::Response { outcome: Err(error), .. } => Err(json!({
            "code": error.code,
            "message": error.message,
            "reason": error.data.as_ref().and_then(|data| data.get("reason")).and_then(Json::as_text),
        })),
        _ => unreachable!(),
    }
}

#[tokio::test]
async fn a_phone_prompts_watches_and_answers_the_session_that_it_was_given() {
    let bridge = Bridge::start().await;
    let (mut desktop, upstream, session) = bridge.with_session().await;
    let mut phone = bridge.phone(&session, "phone.json").await;

    // The phone knows the session by the credential's id only.
    let listed = phone.call("session/list", params(json!({})), |_| {}).await.unwrap();
    let listed = value(&listed);
    assert_eq!(listed["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(listed["sessions"][0]["sessionId"], session.as_str());
    assert!(!listed.to_string().contains(&upstream));

    let asked = phone.ask("session/prompt", phone.prompt("echo hello from the phone")).await.unwrap();
    let heard = until(&mut phone, "the agent's words", |message| said(message).is_some()).await;
    assert_eq!(said(&heard).unwrap(), "hello from the phone");
    assert_eq!(outcome(&mut phone, &asked).await.unwrap()["stopReason"], "end_turn");
    // The desktop has seen all of it, the prompt too.
    let prompt = desktop
        .until("the prompt", |message| message["params"]["update"]["sessionUpdate"] == "user_message_chunk")
        .await;
    assert_eq!(prompt["params"]["update"]["content"]["text"], "echo hello from the phone");

    // A permission, once.
    let asked = phone.ask("session/prompt", phone.prompt("ask")).await.unwrap();
    let question = until(&mut phone, "a question", is_question).await;
    let Message::Request { params: Some(offered), .. } = &question else { unreachable!() };
    let offered = value(offered);
    let kinds: Vec<_> = offered["options"]
        .as_array()
        .unwrap()
        .iter()
        .map(|option| option["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["allow_once", "reject_once"], "nothing that outlives the turn is offered");
    let allow = offered["options"][0]["optionId"].as_str().unwrap().to_owned();
    phone.answer(question_id(&question), Some(&allow)).await.unwrap();
    assert_eq!(outcome(&mut phone, &asked).await.unwrap()["stopReason"], "end_turn");
    phone.leave().await;
}

#[tokio::test]
async fn a_cancel_needs_the_operation_and_ends_the_turn() {
    let bridge = Bridge::start().await;
    let (_desktop, _, session) = bridge.with_session().await;
    let mut companion = bridge.phone_with(&session, OpSet::COMPANION, "companion.json").await;
    let asked = companion.ask("session/prompt", companion.prompt("slow")).await.unwrap();
    until(&mut companion, "the turn's beginning", |message| said(message).is_some()).await;
    companion.cancel().await.unwrap();
    let refused = loop {
        match within("a refusal", companion.next()).await.unwrap() {
            Heard::Notice(notice) => break notice,
            Heard::Message(_) => {}
            Heard::End(code) => panic!("{code:?}"),
        }
    };
    assert_eq!((refused.code, refused.detail), (sessioncap::Notice::NOT_GRANTED, Op::Interrupt as u16));
    companion.leave().await;

    let mut phone = bridge.phone(&session, "phone.json").await;
    let waiting = phone.ask("session/prompt", phone.prompt("slow")).await.unwrap();
    // Its prompt waits for the turn of the phone that has left.
    phone
        .send(&Message::Notification {
            method: "$/cancel_request".to_owned(),
            params: Some(params(json!({ "requestId": value_of(&waiting) }))),
        })
        .await
        .unwrap();
    assert_eq!(outcome(&mut phone, &waiting).await.unwrap_err()["code"], -32800);
    drop(asked);
}

#[tokio::test]
async fn a_phone_that_is_narrowed_below_its_answers_is_waited_for_no_longer() {
    let bridge = Bridge::start_with(&["--unattended", "0"]).await;
    let (mut client, _, session) = bridge.with_session().await;
    let mut phone = bridge.phone(&session, "phone.json").await;
    phone.ask("session/prompt", phone.prompt("ask")).await.unwrap();
    until(&mut phone, "a question", is_question).await;
    client.until("a question", |message| message["method"] == "session/request_permission").await;
    drop(client);
    let mut desktop = Desktop::connect(&bridge.identity).await.unwrap();
    let state = async |desktop: &mut Desktop<'_>| {
        let listed = desktop.call(&json!({ "method": "shell.list_sessions" })).await.unwrap();
        listed["sessions"][0]["command"].as_str().unwrap().to_owned()
    };
    assert_eq!(state(&mut desktop).await, "running", "the phone may answer");
    let entry = desktop.entries(Some(&session)).await.unwrap().remove(0);
    desktop.renew(&entry, Some(OpSet::only(Op::StreamOutput)), None).await.unwrap();
    let ends = async {
        while state(&mut desktop).await != "idle" {
            // It answers once a second at most.
            tokio::task::yield_now().await;
        }
    };
    within("the end of the turn", ends).await;
    phone.leave().await;
}

fn value_of(id: &RequestId) -> Value {
    value(&id.to_json())
}

#[tokio::test]
async fn a_revocation_cuts_the_stream_and_a_restart_of_the_phone_does_not_help() {
    let bridge = Bridge::start().await;
    let (mut desktop, upstream, session) = bridge.with_session().await;
    let (mut phone, ticket) = bridge.pair(&session, OpSet::COMPANION, "phone.json").await;
    phone.initialize(|_| {}).await.unwrap();
    bridge.revoke(ticket).await;
    let id = desktop.prompt(&upstream, "echo after the revocation").await;
    desktop.answer(id).await.unwrap();
    let mut heard = Vec::new();
    let why = loop {
        match within("the end", phone.next()).await {
            Ok(Heard::End(code)) => break code.status().unwrap().code(),
            Ok(other) => heard.push(format!("{other:?}")),
            Err(problem) => panic!("{problem}"),
        }
    };
    assert_eq!(why, "revoked");
    assert!(!heard.concat().contains("after the revocation"), "{heard:?}");
    match Acp::come_back(&bridge.world.file("phone.json"), acp::SEARCH).await {
        Err(Problem::Phone(error)) => assert!(error.to_string().contains("revoked"), "{error}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it is attached"),
    }
}

#[tokio::test]
async fn the_agents_calls_to_its_client_go_to_the_desktop_and_never_to_a_phone() {
    let bridge = Bridge::start_with(&["--client-files"]).await;
    let (mut desktop, _, session) = bridge.with_session().await;
    let mut phone = bridge.phone(&session, "phone.json").await;
    let asked = phone.ask("session/prompt", phone.prompt("read /etc/hostname")).await.unwrap();
    let call = desktop.until("the agent's call", |message| message["method"] == "fs/read_text_file").await;
    assert_eq!(call["params"]["path"], "/etc/hostname");
    desktop
        .send(&json!({ "jsonrpc": "2.0", "id": call["id"], "result": { "content": "the desktop's file" } }))
        .await;
    let mut heard = Vec::new();
    let answer = loop {
        match within("the turn's end", phone.next()).await.unwrap() {
            Heard::Message(Message::Response { id, outcome }) if id == asked => break outcome,
            Heard::Message(message) => heard.push(message),
            other => panic!("{other:?}"),
        }
    };
    assert!(answer.is_ok());
    assert!(heard.iter().all(|message| !message.to_text().contains("fs/read_text_file")), "{heard:?}");

    // With the desktop gone nobody serves it: the agent is told so, and its turn ends.
    drop(desktop);
    let asked = phone.ask("session/prompt", phone.prompt("read /etc/hostname")).await.unwrap();
    let heard = until(&mut phone, "the agent's words", |message| {
        said(message).is_some() || matches!(message, Message::Response { id, .. } if *id == asked)
    })
    .await;
    assert!(!heard.to_text().contains("the desktop's file"), "{heard:?}");
}
