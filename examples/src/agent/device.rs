//! One connection of an enrolled device: the deployed protocol, as it is. Requests come one after
//! another; an attach turns the channel into raw bytes for the rest of its life.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use sessioncap::noise::Channel;
use sessioncap::session::NotTaken;
use sessioncap::{DevicePublicKey, SessionId};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::host::{DeviceStream, Sessions};
use super::places::{NoPlace, Place};
use super::{Agent, command, pair};
use crate::problem::{Outcome, Problem};
use crate::pty::{Always, Hub, HubError, Input, OutputEvent, SessionInfo, SessionSpec, Viewer};
use crate::request::{BadRequest, Request, error};
use crate::transport::{self, Socket};

/// Bytes of transcript that fit one frame of JSON as base64.
const REPLAY: usize = 48_000;
/// Bytes of transcript that `logs` shows.
const LOGS: usize = 16_000;

/// Bytes that a device may have typed ahead of what the program reads. More than of a phone: a Ctrl-C behind them is to be
/// seen.
const TYPED_AHEAD: usize = 1024 * 1024;
/// How long a program may take to read what a device typed before it left.
const LAST_INPUT: Duration = Duration::from_secs(1);
/// The byte that interrupts a program on most terminals.
const CTRL_C: u8 = 0x03;

/// A device and its channel.
struct Connection<'a> {
    agent: &'a Arc<Agent>,
    socket: Socket,
    channel: Channel,
    device: DevicePublicKey,
    handshake_hash: [u8; 32],
    place: Place,
}

/// The options of a device that attaches.
#[derive(Clone, Copy)]
struct Look {
    /// The screen first.
    tail: bool,
    /// Clipboard writes too.
    clipboard: bool,
}

/// The result of a request.
enum Answer {
    Reply(Value),
    /// Acknowledge, then raw bytes.
    Attach {
        session: String,
        viewer: Viewer,
        look: Look,
        /// Closes the session afterwards.
        closes: Option<Hub>,
    },
    /// Acknowledge, then the channel is the host's.
    HandOver,
}

/// The end of a device's connection.
enum Next {
    Ended,
    HandedOver,
}

pub(super) async fn serve(
    agent: &Arc<Agent>,
    socket: Socket,
    channel: Channel,
    device: DevicePublicKey,
    handshake_hash: [u8; 32],
    place: Place,
) {
    let mut connection = Connection { agent, socket, channel, device, handshake_hash, place };
    let ended = connection.run().await;
    let Connection { socket, mut channel, place: _place, .. } = connection;
    if let (Ok(Next::HandedOver), Sessions::Hosted(host)) = (&ended, &agent.sessions) {
        let stream = DeviceStream { agent: Arc::clone(agent), socket, channel, device };
        return Arc::clone(host).serve_device(stream).await;
    }
    // Only a complete stream gets the end mark; without it the device knows that there was more.
    let end = ended.is_ok().then(|| channel.seal(b"").ok()).flatten();
    transport::send_last(socket, end, CloseCode::Normal).await;
}

impl Connection<'_> {
    async fn run(&mut self) -> Outcome<Next> {
        let mut changes = self.agent.devices.changes();
        loop {
            let frame = tokio::select! {
                frame = self.agent.receive(&mut self.socket) => frame?,
                _ = changes.changed() => match self.agent.devices.contains(&self.device) {
                    true => continue,
                    false => return Ok(Next::Ended),
                },
            };
            let plaintext = self.channel.open(&frame)?;
            // Only now is it no copy of an earlier first message.
            self.place.prove().map_err(|NoPlace| Problem::said("no place is free"))?;
            if plaintext.is_empty() {
                return Ok(Next::Ended);
            }
            let answer = match Request::parse(&plaintext) {
                Ok(request) => self.answer(&request).await,
                Err(BadRequest) => {
                    Err(error("method_rejected", "a request is one json object with a method"))
                }
            };
            match answer {
                Ok(Answer::Reply(reply)) => self.reply(&reply).await?,
                Ok(Answer::Attach { session, viewer, look, closes }) => {
                    self.reply(&json!({ "ok": true, "id": session })).await?;
                    let bridged = self.bridge(&viewer, look).await;
                    if let Some(hub) = closes {
                        // It may have ended by itself, or the server of the sessions is far behind.
                        let _ = hub.close(&session);
                    }
                    return bridged.map(|()| Next::Ended);
                }
                Ok(Answer::HandOver) => {
                    self.reply(&json!({ "ok": true })).await?;
                    return Ok(Next::HandedOver);
                }
                Err(refusal) => self.reply(&refusal).await?,
            }
        }
    }

    async fn reply(&mut self, reply: &Value) -> Outcome<()> {
        let mut bytes = reply.to_string().into_bytes();
        if bytes.len() > Channel::MAX_PLAINTEXT_LEN {
            bytes = error("too_large", "the answer does not fit one frame; ask for less")
                .to_string()
                .into_bytes();
        }
        let frame = self.channel.seal(&bytes)?;
        transport::send(&mut self.socket, frame).await
    }

    async fn answer(&self, request: &Request) -> Result<Answer, Value> {
        let reply = match (request.method(), &self.agent.sessions) {
            ("health", _) => json!({
                "ok": true,
                "uptime_secs": self.agent.started.elapsed().as_secs(),
                "sessions": self.agent.sessions.count(),
                "ledger_ok": !self.agent.gate.is_poisoned(),
            }),
            ("agent.reset_clock", _) => pair::reset_clock(self.agent, &self.device).await?,
            (method, _) if method.starts_with("pair.") => {
                pair::answer(self.agent, &self.device, &self.handshake_hash, request).await?
            }
            ("acp.connect", Sessions::Hosted(_)) => return Ok(Answer::HandOver),
            (_, Sessions::Hosted(host)) => host
                .answer(request)
                .unwrap_or_else(|| Err(error("method_rejected", "there is no such method")))?,
            (_, Sessions::Terminals(hub)) => return self.answer_about_terminals(request, hub).await,
        };
        Ok(Answer::Reply(reply))
    }

    async fn answer_about_terminals(&self, request: &Request, hub: &Hub) -> Result<Answer, Value> {
        let reply = match request.method() {
            "shell.list_recipes" => {
                json!({ "ok": true, "recipes": [{ "id": "shell", "name": "the user's shell" }] })
            }
            "shell.list_sessions" => {
                let sessions: Vec<_> = hub.list().iter().map(describe).collect();
                json!({ "ok": true, "sessions": sessions })
            }
            "shell.create_session" => {
                let info = hub
                    .start(parameters::<Create>(request)?.into_spec()?, true)
                    .await
                    .map_err(shell_failed)?;
                self.agent.log(format!("session {} started", info.id));
                json!({ "ok": true, "id": info.id, "session": describe(&info) })
            }
            "shell.attach_session" => {
                let Attach { id, tail, clipboard } = parameters(request)?;
                let viewer =
                    hub.view(id.as_str()).map_err(|failure| error("shell_attach_failed", failure))?;
                return Ok(Answer::Attach {
                    session: id.to_string(),
                    viewer,
                    look: Look { tail, clipboard },
                    closes: None,
                });
            }
            "shell.replay_session" => {
                let ById { id } = parameters(request)?;
                let history = hub.view(id.as_str()).map_err(shell_failed)?.history();
                replay(&id, &history, REPLAY)
            }
            "shell.resize_session" => {
                let Resize { id, cols, rows } = parameters(request)?;
                hub.resize(id.as_str(), cols, rows).map_err(shell_failed)?;
                json!({ "ok": true })
            }
            "shell.close_session" => {
                let ById { id } = parameters(request)?;
                hub.close(id.as_str()).map_err(shell_failed)?;
                json!({ "ok": true })
            }
            "exec" => command::exec(parameters(request)?).await?,
            "attach" => {
                let command::Command { cmd, .. } = parameters(request)?;
                return attach_command(hub, cmd).await;
            }
            "list" => {
                let processes: Vec<_> = hub.list().iter().map(describe_process).collect();
                json!({ "ok": true, "processes": processes })
            }
            "logs" => {
                let ById { id } = parameters(request)?;
                let history = hub.view(id.as_str()).map_err(shell_failed)?.history();
                let log = String::from_utf8_lossy(last(&history, LOGS)).into_owned();
                json!({ "ok": true, "id": id, "log": log })
            }
            "attest" => return Err(error("attest_failed", "this agent does not run in an enclave")),
            "deploy" => return Err(error("method_rejected", "this agent deploys nothing")),
            _ => return Err(error("method_rejected", "there is no such method")),
        };
        Ok(Answer::Reply(reply))
    }

    /// Raw bytes in both directions, until a side ends.
    async fn bridge(&mut self, viewer: &Viewer, look: Look) -> Outcome<()> {
        let mut input = viewer.input(TYPED_AHEAD, Always);
        let output = if look.tail {
            let (screen, output) = viewer.watch();
            for chunk in screen.bytes.chunks(transport::CHUNK) {
                self.send_raw(chunk).await?;
            }
            output
        } else {
            viewer.watch_only()
        }
        // No phone's network hurries the output past a desktop.
        .lead();
        let mut output = if look.clipboard { output.with_clipboard() } else { output };
        let agent = Arc::clone(self.agent);
        let mut changes = agent.devices.changes();
        // It may have been removed since its request came.
        if !agent.devices.contains(&self.device) {
            return Err(Problem::said("the device was removed"));
        }
        // Input for which there is no room yet. Nothing more is read from the device until then.
        let mut waiting: Option<Vec<u8>> = None;
        loop {
            if let Some(bytes) = waiting.take() {
                waiting = type_in(&input, bytes);
            }
            tokio::select! {
                event = output.next() => match event {
                    OutputEvent::Data(chunk) => self.send_raw(&chunk).await?,
                    OutputEvent::Ended => return Ok(()),
                    OutputEvent::Lagged => return Err(Problem::said("the device reads too slowly")),
                },
                frame = agent.receive(&mut self.socket), if waiting.is_none() => {
                    let bytes = self.channel.open(&frame?)?;
                    if bytes.is_empty() {
                        // The device typed this before it left.
                        let _ = timeout(LAST_INPUT, input.drained()).await;
                        return Ok(());
                    }
                    waiting = Some(bytes);
                }
                _ = input.typed() => {}
                _ = changes.changed() => if !agent.devices.contains(&self.device) {
                    return Err(Problem::said("the device was removed"));
                },
            }
        }
    }

    async fn send_raw(&mut self, bytes: &[u8]) -> Outcome<()> {
        let frame = self.channel.seal(bytes)?;
        transport::send(&mut self.socket, frame).await
    }
}

/// Runs a command on a terminal of its own, for as long as the device stays.
async fn attach_command(hub: &Hub, cmd: Vec<String>) -> Result<Answer, Value> {
    let failed = |failure: HubError| error("attach_failed", failure);
    let spec = SessionSpec { argv: cmd, ..SessionSpec::command("") };
    let session = hub.start(spec, false).await.map_err(failed)?.id;
    let viewer = hub.view(&session).map_err(failed)?;
    let look = Look { tail: true, clipboard: false };
    Ok(Answer::Attach { session, viewer, look, closes: Some(hub.clone()) })
}

/// Queues what a device has typed. A Ctrl-C that would have to wait goes ahead of everything. Returns what has no room.
fn type_in(input: &Input, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let interrupts = |byte: &u8| *byte == CTRL_C && input.must_overtake(CTRL_C);
    if let Some(at) = bytes.iter().rposition(interrupts) {
        bytes.drain(..=at);
        input.interrupt();
    }
    if bytes.is_empty() {
        return None;
    }
    match input.push(0, &bytes) {
        Err(NotTaken::TooMuch) => Some(bytes),
        // A session that is gone says so by the end of its output.
        _ => None,
    }
}

fn parameters<T: serde::de::DeserializeOwned>(request: &Request) -> Result<T, Value> {
    request.parameters().map_err(|BadRequest| error("method_rejected", "a parameter is missing or malformed"))
}

fn shell_failed(failure: HubError) -> Value {
    error("shell_failed", failure)
}

// Deployed clients send parameters that the agent does not know, so unknown ones are let pass here.
// An id is a `SessionId`, so nothing else can be smuggled in it.

#[derive(Deserialize)]
struct ById {
    id: SessionId,
}

#[derive(Deserialize)]
struct Attach {
    id: SessionId,
    #[serde(default)]
    tail: bool,
    /// Whether programs of the session may write the clipboard of this viewer.
    #[serde(default)]
    clipboard: bool,
}

#[derive(Deserialize)]
struct Resize {
    id: SessionId,
    cols: u16,
    rows: u16,
}

#[derive(Deserialize)]
struct Create {
    name: Option<String>,
    recipe_id: Option<String>,
    command: Option<String>,
    cwd: Option<std::path::PathBuf>,
    cols: Option<u16>,
    rows: Option<u16>,
}

impl Create {
    fn into_spec(self) -> Result<SessionSpec, Value> {
        if self.recipe_id.as_deref().is_some_and(|recipe| recipe != "shell") {
            return Err(error("shell_failed", "there is no such recipe; list the recipes"));
        }
        let plain = SessionSpec::command(self.command.as_deref().unwrap_or_default());
        Ok(SessionSpec {
            name: self.name,
            argv: if self.command.is_some() { plain.argv } else { Vec::new() },
            cwd: self.cwd,
            cols: self.cols.unwrap_or(plain.cols),
            rows: self.rows.unwrap_or(plain.rows),
        })
    }
}

/// A session as an enrolled device sees it.
fn describe(info: &SessionInfo) -> Value {
    let mut entry = describe_for_phone(info);
    if let Some(entry) = entry.as_object_mut() {
        entry.insert("command".to_owned(), info.command.as_str().into());
        entry.insert("cwd".to_owned(), info.cwd.as_str().into());
    }
    entry
}

/// A session as its phone sees it: neither the command line nor where it runs.
pub(super) fn describe_for_phone(info: &SessionInfo) -> Value {
    let created = info.created_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "id": info.id,
        "name": info.name,
        "cols": info.cols,
        "rows": info.rows,
        "created_at_ms": u64::try_from(created.as_millis()).unwrap_or(u64::MAX),
        "running": true,
    })
}

fn describe_process(info: &SessionInfo) -> Value {
    json!({ "id": info.id, "pid": info.pid, "command": info.command, "running": true })
}

/// The end of a transcript, up to this many bytes.
pub(super) fn replay(id: &SessionId, history: &[u8], most: usize) -> Value {
    let bytes = last(history, most);
    json!({ "ok": true, "id": id, "data": STANDARD.encode(bytes), "truncated": bytes.len() < history.len() })
}

fn last(bytes: &[u8], limit: usize) -> &[u8] {
    bytes.get(bytes.len().saturating_sub(limit)..).unwrap_or(bytes)
}
