//! A desktop hands a phone one session of an agent of the Agent Client Protocol, from the bridge's start to the last
//! revocation, in one process: `cargo run -p sessioncap-acp --example pair_acp`. The agent is a process of its own: this
//! program, started again.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};
use sessioncap::acp::{Json, Message, RequestId};
use sessioncap::desktop::PairingTerms;
use sessioncap::pair::{Revoke, Revoked};
use sessioncap::{Label, Op, SessionId, TicketId};
use sessioncap_acp::mux::Settings;
use sessioncap_acp::{Bridge, Run};
use sessioncap_programs::agent::{self, Config, Options, Running};
use sessioncap_programs::clock::Clock;
use sessioncap_programs::companion::Joined;
use sessioncap_programs::companion::acp::{self, Acp, Heard, show};
use sessioncap_programs::desktop::acp::Messages;
use sessioncap_programs::desktop::profile::Profile;
use sessioncap_programs::desktop::{Desktop, Identity};
use sessioncap_programs::problem::{Outcome, Problem, While};
use sessioncap_programs::story::teller::{Teller, check, in_time, unlike};
use sessioncap_programs::transport;
use time::UtcOffset;

#[path = "agent/mod.rs"]
mod sample;

/// The argument that makes this program the agent.
const AGENT: &str = "--be-the-agent";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(AGENT) {
        return sample::run();
    }
    sessioncap_programs::run("pair_acp", tell())
}

/// Where the story plays.
struct Stage {
    teller: Teller,
    directory: PathBuf,
    identity: Identity,
    bridge: Running,
}

async fn tell() -> Outcome<ExitCode> {
    let stage = set_up().await?;
    let told = story(&stage).await;
    stage.bridge.stop().await;
    // A temporary directory that stays costs nothing but room.
    let _ = std::fs::remove_dir_all(&stage.directory);
    told.map(|()| ExitCode::SUCCESS)
}

async fn set_up() -> Outcome<Stage> {
    let directory = std::env::temp_dir().join(format!("sessioncap-story-{}", std::process::id()));
    let profile = Profile { directory: directory.join("desktop"), url: None, agent: None, device_key: None };
    let device = profile.make()?;
    let own = std::env::current_exe().during("this program does not know where it is")?;
    let run = Run {
        words: vec![own.into_os_string(), OsString::from(AGENT)],
        directory: None,
        settings: Settings::default(),
        certificates: Arc::new(Vec::new),
        log: Arc::new(|_| {}),
    };
    let config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        state: directory.join("bridge"),
        in_memory: false,
        urls: Vec::new(),
        rules: None,
        offset: UtcOffset::UTC,
        enroll: vec![device.public()],
        audit: None,
        clock: Clock::system()?,
        look: agent::LOOK,
        patience: transport::PATIENCE,
        // The story says what matters.
        log: Arc::new(|_| {}),
        options: Options::default(),
    };
    let bridge = agent::start_hosting(config, |ends| Bridge::new(run, ends)).await?;
    let profile = Profile { url: Some(bridge.url.clone()), agent: Some(bridge.key), ..profile };
    Ok(Stage { teller: Teller::default(), directory, identity: profile.open()?, bridge })
}

async fn story(stage: &Stage) -> Outcome<()> {
    let teller = &stage.teller;
    let (mut editor, upstream, session) = an_editor_opens_a_session(stage).await?;
    let (mut phone, ticket) = the_desktop_shares_it(stage, &session).await?;
    it_prompts(teller, &mut phone).await?;
    the_editor_has_seen_it(teller, &mut editor).await?;
    it_answers_a_question(teller, &mut phone).await?;
    it_can_do_nothing_else(teller, &mut phone, &upstream).await?;
    a_plain_peer_is_told_to_pair(stage).await?;
    the_desktop_revokes_it(stage, &mut editor, &upstream, phone, ticket).await?;
    teller.step("Done.");
    Ok(())
}

async fn an_editor_opens_a_session(stage: &Stage) -> Outcome<(Messages, String, SessionId)> {
    let teller = &stage.teller;
    teller.step("A bridge listens. An editor at the desktop connects, and the agent starts.");
    let mut editor = Messages::open(Desktop::connect(&stage.identity).await?).await?;
    let initialize = json!({ "protocolVersion": 1, "clientCapabilities": {} });
    let result = call(&mut editor, 1, "initialize", initialize).await?;
    teller.say(&format!("agent {}", result["agentInfo"]["name"].as_str().unwrap_or("without a name")));
    teller.step("`session/new`: the editor opens a session.");
    let made = call(&mut editor, 2, "session/new", json!({ "cwd": "/", "mcpServers": [] })).await?;
    let upstream = made["sessionId"].as_str().unwrap_or_default().to_owned();
    let mut desktop = Desktop::connect(&stage.identity).await?;
    let listed = desktop.call(&json!({ "method": "shell.list_sessions" })).await?;
    let id = listed["sessions"][0]["id"].as_str().unwrap_or_default();
    let session = SessionId::new(id).during("the bridge names no session")?;
    teller.say(&format!("the agent calls it {upstream}, credentials name it {session}"));
    Ok((editor, upstream, session))
}

async fn the_desktop_shares_it(stage: &Stage, session: &SessionId) -> Outcome<(Acp, TicketId)> {
    let teller = &stage.teller;
    teller.step("`session pair-mobile`: the desktop shows a code for it.");
    let mut desktop = Desktop::connect(&stage.identity).await?;
    let shared = desktop.share(session, &PairingTerms::default()).await?;
    teller.show_link(&shared.pairing.link, &shared.receipt.expires_at.to_string())?;
    teller.step("A phone scans it and redeems it.");
    let file = stage.directory.join("phone.json");
    let label = Label::new("phone")?;
    let joining = acp::join(&shared.pairing.link, &label, &file, acp::SEARCH, |_| {});
    let Joined { mut live, message_lengths: (first, second), .. } = in_time("joining", joining).await?;
    teller.say(&format!("message 1: {first} bytes, message 2: {second} bytes; it may {}", live.ops));
    let result = in_time("initialize", live.initialize(|_| {})).await?;
    let capabilities = result.get("agentCapabilities").map(Json::to_text).unwrap_or_default();
    check(!capabilities.contains("fs") && !capabilities.contains("terminal"), "no files and no terminals")?;
    Ok((live, shared.pairing.ticket))
}

async fn it_prompts(teller: &Teller, phone: &mut Acp) -> Outcome<()> {
    teller.step("The phone prompts, and the agent's work streams to it.");
    let asked = phone.ask("session/prompt", phone.prompt("tidy up the tests")).await?;
    let (lines, result) = watch(phone, &asked, |_| None).await?;
    teller.list(&lines);
    check(result?.get("stopReason").and_then(Json::as_text) == Some("end_turn"), "the turn ends")
}

async fn the_editor_has_seen_it(teller: &Teller, editor: &mut Messages) -> Outcome<()> {
    teller.step("The editor has seen the same, the phone's prompt first.");
    let mut seen = Vec::new();
    let prompt = |message: &Value| message["params"]["update"]["sessionUpdate"] == "user_message_chunk";
    while !seen.last().is_some_and(prompt) {
        seen.push(next(editor).await?);
    }
    let text = seen.last().and_then(|last| last["params"]["update"]["content"]["text"].as_str());
    teller.say(&format!("prompt: {}", text.unwrap_or_default()));
    check(text == Some("tidy up the tests"), "the desktop sees what the phone has asked for")
}

async fn it_answers_a_question(teller: &Teller, phone: &mut Acp) -> Outcome<()> {
    teller.step("The agent asks before it writes. The phone allows it, once.");
    let asked = phone.ask("session/prompt", phone.prompt("ask")).await?;
    let (lines, result) =
        watch(phone, &asked, |question| question.choices.first().map(|choice| choice.id.clone())).await?;
    teller.list(&lines);
    result.map(drop)
}

async fn it_can_do_nothing_else(teller: &Teller, phone: &mut Acp, upstream: &str) -> Outcome<()> {
    teller.step("Nothing else is allowed. Each is tried over the wire:");
    let own = phone.session.to_string();
    let prompt = json!([{ "type": "text", "text": "hello" }]);
    let tries = [
        ("new session", "session/new", json!({ "cwd": "/", "mcpServers": [] }), "operation_denied"),
        (
            "another mode",
            "session/set_mode",
            json!({ "sessionId": own, "modeId": "code" }),
            "operation_denied",
        ),
        ("close it", "session/close", json!({ "sessionId": own }), "operation_denied"),
        (
            "read a file",
            "fs/read_text_file",
            json!({ "sessionId": own, "path": "/etc/passwd" }),
            "operation_denied",
        ),
        (
            "run a command",
            "terminal/create",
            json!({ "sessionId": own, "command": "id" }),
            "operation_denied",
        ),
        (
            "another session",
            "session/prompt",
            json!({ "sessionId": upstream, "prompt": prompt }),
            "other_session",
        ),
        (
            "its history",
            "session/load",
            json!({ "sessionId": own, "cwd": "/", "mcpServers": [] }),
            "not_granted",
        ),
    ];
    for (what, method, params, expected) in tries {
        match phone.call(method, to_json(&params)?, |_| {}).await {
            Err(Problem::Refused { code, detail, .. }) if code == expected => {
                teller.say(&format!("{what:<15} {detail}"));
            }
            other => return Err(unlike(&format!("`{what}` is refused with {expected}"), &other)),
        }
    }
    phone.cancel().await?;
    match in_time("a refusal", phone.next()).await? {
        Heard::Notice(notice) => teller.say(&format!("{:<15} {notice}", "cancel")),
        other => return Err(unlike("a cancel is refused without the operation `interrupt`", &other)),
    }
    check(!phone.ops.contains(Op::Interrupt), "the companion's operations do not cancel")
}

async fn a_plain_peer_is_told_to_pair(stage: &Stage) -> Outcome<()> {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    let teller = &stage.teller;
    teller.step("A program of this machine finds the port, without a pairing.");
    let url = format!("ws://127.0.0.1:{}/acp", stage.bridge.url.port());
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.during("the port is closed")?;
    let hello =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": { "protocolVersion": 1 } });
    socket.send(Message::text(hello.to_string())).await.during("it takes nothing")?;
    let answer = in_time("an answer", async { Ok(socket.next().await) }).await?;
    let text = answer.and_then(Result::ok).and_then(|answer| answer.into_text().ok());
    let answer: Value =
        serde_json::from_str(text.as_deref().unwrap_or_default()).during("it says nothing")?;
    teller.say(answer["error"]["message"].as_str().unwrap_or_default());
    check(answer["error"]["data"]["reason"] == "not_paired", "it is told to pair, and nothing else")
}

async fn the_desktop_revokes_it(
    stage: &Stage,
    editor: &mut Messages,
    upstream: &str,
    mut phone: Acp,
    ticket: TicketId,
) -> Outcome<()> {
    let teller = &stage.teller;
    teller.step("`session revoke`: the phone is cut off at once, and the editor goes on.");
    let mut desktop = Desktop::connect(&stage.identity).await?;
    let revoked = desktop.revoke(Revoke::Ticket(ticket)).await?;
    check(revoked == Revoked::Ended { pairings: 1 }, "one phone's credential has ended")?;
    let prompt = json!([{ "type": "text", "text": "echo after the revocation" }]);
    call(editor, 9, "session/prompt", json!({ "sessionId": upstream, "prompt": prompt })).await?;
    loop {
        match in_time("the end", phone.next()).await? {
            Heard::End(code) => {
                teller.say(&code.status().map_or_else(String::new, |status| status.to_string()));
                return check(code.status().is_some(), "the phone is told why");
            }
            Heard::Message(message) => {
                check(!message.to_text().contains("after the revocation"), "nothing passes any more")?;
            }
            Heard::Notice(_) => {}
        }
    }
}

/// Shows what comes until a request is answered. `decide` chooses the option with which a question is answered.
async fn watch(
    phone: &mut Acp,
    asked: &RequestId,
    decide: impl Fn(&show::Question) -> Option<String>,
) -> Outcome<(Vec<String>, Outcome<Json>)> {
    let mut lines = vec![String::new()];
    loop {
        let message = match in_time("the turn's end", phone.next()).await? {
            Heard::Message(Message::Response { id, outcome }) if id == *asked => {
                lines.retain(|line| !line.is_empty());
                return Ok((lines, outcome.map_err(|error| acp::refusal(&error))));
            }
            Heard::Message(message) => message,
            other => return Err(unlike("the turn goes on", &other)),
        };
        match show::read(&message) {
            show::Shown::Text(text) => {
                if let Some(last) = lines.last_mut() {
                    last.push_str(&text);
                }
            }
            show::Shown::Line(line) => lines.extend([line, String::new()]),
            show::Shown::Question(question) => {
                let option = decide(&question);
                let names: Vec<_> = question.choices.iter().map(|choice| choice.name.as_str()).collect();
                lines.extend([format!("{}? {}", question.title, names.join(" / ")), String::new()]);
                phone.answer(question.id, option.as_deref()).await?;
            }
            show::Shown::Over(_) | show::Shown::Nothing => {}
        }
    }
}

async fn next(editor: &mut Messages) -> Outcome<Value> {
    let text = in_time("a message of the bridge", editor.next()).await?;
    serde_json::from_str(text.as_deref().unwrap_or_default()).during("the bridge sent what is no json")
}

/// A request of the editor and its answer.
async fn call(editor: &mut Messages, id: u64, method: &str, params: Value) -> Outcome<Value> {
    let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
    editor.send(&request.to_string()).await?;
    loop {
        let mut message = next(editor).await?;
        if message["id"] == id && message.get("method").is_none() {
            return match message.get("error") {
                Some(error) => Err(Problem::Said(error.to_string())),
                None => Ok(message["result"].take()),
            };
        }
    }
}

fn to_json(params: &Value) -> Outcome<Json> {
    let read = Json::from_bytes(params.to_string().as_bytes(), Message::MAX_LEN, Message::MAX_DEPTH);
    read.during("these are no parameters")
}
