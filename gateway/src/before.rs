//! The gateway before it knows of phones: a WebSocket whose messages are a Noise channel, for enrolled devices.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json};
use snow::{HandshakeState, TransportState};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::RwLock;
use tokio::time::timeout;

use crate::backend::Backend;
use crate::{Failure, Outcome};

const PATTERN: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";
const LONGEST: usize = 65_535;

/// The keys of the enrolled devices.
pub type Trust = Arc<RwLock<HashSet<[u8; 32]>>>;

#[derive(Clone)]
struct Gateway {
    key: [u8; 32],
    trust: Trust,
    backend: Backend,
}

/// The gateway's route.
pub fn router(key: [u8; 32], trust: Trust, backend: Backend) -> Router {
    let gateway = Gateway { key, trust, backend };
    Router::new().route("/noise/ws", get(upgrade)).with_state(gateway)
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
    let mut noise = snow::Builder::new(PATTERN.parse()?).local_private_key(&gateway.key).build_responder()?;
    let mut payload = vec![0; LONGEST];
    noise.read_message(&socket.receive().await?, &mut payload)?;
    let peer: [u8; 32] = noise.get_remote_static().ok_or("no key")?.try_into()?;
    if !gateway.trust.read().await.contains(&peer) {
        return socket.close(None).await;
    }
    socket.send(message_2(&mut noise, &[])?).await?;
    let mut channel = DeviceChannel { noise: noise.into_transport_mode()?, socket };
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
            _ => Err("there is no such method".into()),
        };
        let answer = answer
            .unwrap_or_else(|failure| json!({ "error": "method_rejected", "detail": failure.to_string() }));
        channel.send(answer.to_string().as_bytes()).await?;
    }
}

fn message_2(noise: &mut HandshakeState, payload: &[u8]) -> Outcome<Vec<u8>> {
    let mut message = vec![0; LONGEST];
    let length = noise.write_message(payload, &mut message)?;
    message.truncate(length);
    Ok(message)
}

/// The channel of an enrolled device.
struct DeviceChannel {
    noise: TransportState,
    socket: Socket,
}

impl DeviceChannel {
    async fn send(&mut self, plaintext: &[u8]) -> Outcome<()> {
        let mut frame = vec![0; LONGEST];
        let length = self.noise.write_message(plaintext, &mut frame)?;
        frame.truncate(length);
        self.socket.send(frame).await
    }

    async fn receive(&mut self) -> Outcome<Vec<u8>> {
        let mut plaintext = vec![0; LONGEST];
        let length = self.noise.read_message(&self.socket.receive().await?, &mut plaintext)?;
        plaintext.truncate(length);
        Ok(plaintext)
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

impl Socket {
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

impl Output {
    async fn next(&mut self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 4096];
        let length = self.0.read(&mut bytes).await.ok().filter(|length| *length > 0)?;
        bytes.truncate(length);
        Some(bytes)
    }
}

/// Where a session takes its input.
struct Input(OwnedWriteHalf);

impl Input {
    async fn write(&mut self, bytes: &[u8]) -> Outcome<()> {
        Ok(self.0.write_all(bytes).await?)
    }
}
