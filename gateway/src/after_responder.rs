//! The gateway with phones and with this crate's Noise, for phones and devices alike.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use axum::routing::get;
use rand::rngs::OsRng;
use serde_json::{Value, json};
use sessioncap::agent::{Admission, GateConfig, PolledGate, ledger::RedbLedger};
use sessioncap::agent::{MessageSocket, SessionInput, SessionOutput};
use sessioncap::noise::{Channel, Responder};
use sessioncap::{AgentSecretKey, AgentUrl, DevicePublicKey, SystemClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::RwLock;
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};

use crate::backend::Backend;
use crate::{Failure, Outcome};

/// The keys of the enrolled devices.
pub type Trust = Arc<RwLock<HashSet<[u8; 32]>>>;

#[derive(Clone)]
struct Gateway {
    key: [u8; 32],
    trust: Trust,
    backend: Backend,
    phones: PolledGate,
}

/// The gateway's route.
///
/// # Errors
/// If the ledger cannot be opened.
pub fn router(key: [u8; 32], trust: Trust, backend: Backend, url: &str, file: PathBuf) -> Outcome<Router> {
    let clock = SystemClock::new()?;
    let config = GateConfig::new(AgentSecretKey::from_bytes(key).public(), [AgentUrl::parse(url)?])?;
    let phones = PolledGate::open(config, move || RedbLedger::open(&file), |_, _| true, move || clock.now())?;
    let gateway = Gateway { key, trust, backend, phones };
    tokio::spawn(settle(gateway.clone()));
    Ok(Router::new().route("/noise/ws", get(upgrade)).with_state(gateway))
}

/// Tells the gate every second what there is, for as long as the gateway runs.
async fn settle(gateway: Gateway) {
    loop {
        let sessions = gateway.backend.list().await.ok();
        let devices = Some(gateway.trust.read().await.clone());
        let settled = block_in_place(|| gateway.phones.settle(devices, sessions));
        settled.unwrap_or_else(|denial| eprintln!("not settled: {denial}"));
        sleep(Duration::from_secs(1)).await;
    }
}

async fn upgrade(upgrade: WebSocketUpgrade, State(gateway): State<Gateway>) -> Response {
    upgrade.on_upgrade(|socket| async {
        if let Err(failure) = serve(gateway, Socket(socket)).await {
            eprintln!("a connection has ended: {failure}");
        }
    })
}

/// One connection, from message 1 on.
async fn serve(gateway: Gateway, mut socket: Socket) -> Outcome<()> {
    let key = AgentSecretKey::from_bytes(gateway.key);
    let received = Responder::read(&key, &socket.receive().await?, &mut OsRng)?;
    let phones = &gateway.phones;
    let received = match block_in_place(|| phones.gate().admit(received, phones.now(), &mut OsRng)) {
        Admission::PassThrough(received) => received,
        Admission::Refused { message, .. } => return socket.close(message).await,
        Admission::Admitted { message, pending } => {
            socket.send(message).await?;
            let first = timeout(pending.time_left(phones.now()), socket.receive()).await??;
            let channel = match block_in_place(|| pending.activate(&first, phones.now())) {
                Ok(channel) => channel,
                Err(refused) => return socket.close(refused.end).await,
            };
            let (output, input) = gateway.backend.attach(channel.session().as_str()).await?;
            let end = channel.bridge(&mut socket, Output(output), Input(input), || phones.now()).await;
            return socket.close(end.message).await;
        }
    };
    let peer = *received.peer().as_bytes();
    if !gateway.trust.read().await.contains(&peer) {
        return socket.close(None).await;
    }
    let device = DevicePublicKey::from_bytes(peer)?;
    let replied = received.reply(&[])?;
    socket.send(replied.message).await?;
    let hash = replied.handshake_hash;
    let mut channel = DeviceChannel { noise: replied.channel, socket };
    loop {
        let request = channel.receive().await?;
        let asked: Value = serde_json::from_slice(&request)?;
        let id = asked.get("id").and_then(Value::as_str).unwrap_or_default();
        let answer = match asked.get("method").and_then(Value::as_str).unwrap_or_default() {
            "shell.list_sessions" => gateway.backend.list().await.map(|ids| json!({ "sessions": ids })),
            "shell.close_session" => gateway.backend.close(id).await.map(|()| json!({ "ok": true })),
            "shell.attach_session" => match gateway.backend.attach(id).await {
                Ok((output, input)) => {
                    channel.send(br#"{"ok":true}"#).await?;
                    return channel.bridge(Output(output), Input(input)).await;
                }
                Err(failure) => Err(failure),
            },
            method if method.starts_with("pair.") => Ok(serde_json::from_str(&block_in_place(|| {
                phones.gate().answer_json(&device, &hash, &request, phones.now(), &mut OsRng)
            }))?),
            _ => Err("there is no such method".into()),
        };
        let answer = answer
            .unwrap_or_else(|failure| json!({ "error": "method_rejected", "detail": failure.to_string() }));
        channel.send(answer.to_string().as_bytes()).await?;
    }
}

/// The channel of an enrolled device.
struct DeviceChannel {
    noise: Channel,
    socket: Socket,
}

impl DeviceChannel {
    async fn send(&mut self, plaintext: &[u8]) -> Outcome<()> {
        let frame = self.noise.seal(plaintext)?;
        self.socket.send(frame).await
    }

    async fn receive(&mut self) -> Outcome<Vec<u8>> {
        Ok(self.noise.open(&self.socket.receive().await?)?)
    }

    /// The session's bytes, both ways, for the rest of the connection.
    async fn bridge(mut self, mut output: Output, mut input: Input) -> Outcome<()> {
        loop {
            tokio::select! {
                typed = self.receive() => input.write(&typed?).await?,
                printed = output.next() => match printed {
                    Some(bytes) => self.send(&bytes).await?,
                    None => return self.socket.close(None).await,
                },
            }
        }
    }
}

/// Whole binary messages over a WebSocket.
struct Socket(WebSocket);

impl MessageSocket for Socket {
    type Error = Failure;

    async fn send(&mut self, message: Vec<u8>) -> Outcome<()> {
        Ok(self.0.send(Message::Binary(message.into())).await?)
    }

    async fn receive(&mut self) -> Outcome<Vec<u8>> {
        loop {
            match self.0.recv().await.ok_or("it is closed")?? {
                Message::Binary(message) => return Ok(message.into()),
                Message::Close(_) => return Err("it is closed".into()),
                _ => {}
            }
        }
    }
}

impl Socket {
    /// Closes, after a last message if there is one.
    async fn close(mut self, last: Option<Vec<u8>>) -> Outcome<()> {
        let code = if last.is_some() { close_code::NORMAL } else { close_code::POLICY };
        let close = Message::Close(Some(CloseFrame { code, reason: "".into() }));
        let closing = async {
            if let Some(last) = last {
                self.send(last).await?;
            }
            Ok::<(), Failure>(self.0.send(close).await?)
        };
        timeout(Duration::from_secs(2), closing).await?
    }
}

/// What a session puts out.
struct Output(BufReader<OwnedReadHalf>);

impl SessionOutput for Output {
    async fn next(&mut self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 4096];
        let length = self.0.read(&mut bytes).await.ok().filter(|length| *length > 0)?;
        bytes.truncate(length);
        Some(bytes)
    }
}

/// Where a session takes its input.
struct Input(OwnedWriteHalf);

impl SessionInput for Input {
    type Error = Failure;

    async fn write(&mut self, bytes: &[u8]) -> Outcome<()> {
        Ok(self.0.write_all(bytes).await?)
    }
}
