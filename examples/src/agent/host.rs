//! The two kinds of an agent's sessions: terminals of its own, or those of a host with the same gate, devices and places.

use std::pin::Pin;
use std::sync::Arc;

use serde_json::Value;
use sessioncap::agent::Presence;
use sessioncap::noise::Channel;
use sessioncap::{DevicePublicKey, SessionId};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::Agent;
use super::phone::Wire;
use crate::problem::{Outcome, Problem};
use crate::pty::Hub;
use crate::request::Request;
use crate::transport::{self, Socket};

/// A connection that is being served.
pub type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Sessions of another kind than terminals.
pub trait Host: Send + Sync + 'static {
    /// Whether the session is there. Asked under the gate's locks, so it waits for nothing.
    fn has(&self, session: &SessionId) -> bool;

    /// How many there are.
    fn count(&self) -> usize;

    /// Serves a phone from its activation to its end.
    fn serve_phone(self: Arc<Self>, wire: Wire) -> Serving;

    /// Answers a device's request; `None` for a method that there is not.
    fn answer(&self, request: &Request) -> Option<Result<Value, Value>>;

    /// Serves a device that has asked for `acp.connect`, to its end.
    fn serve_device(self: Arc<Self>, stream: DeviceStream) -> Serving;

    /// Serves a WebSocket over which a text message came first, which no phone and no device sends.
    fn turn_away(&self, socket: Socket, message: String) -> Serving;

    /// Ends all sessions.
    fn stop(self: Arc<Self>) -> Serving;
}

/// Tells the agent that a session has ended.
#[derive(Clone)]
pub struct Ends(pub(super) mpsc::UnboundedSender<String>);

impl Ends {
    /// Every credential of the session ends with it.
    pub fn tell(&self, session: &SessionId) {
        // Fails only while the agent stops.
        let _ = self.0.send(session.to_string());
    }
}

/// An agent's sessions.
#[derive(Clone)]
pub(super) enum Sessions {
    Terminals(Hub),
    Hosted(Arc<dyn Host>),
}

impl Sessions {
    pub(super) fn has(&self, session: &SessionId) -> bool {
        match self {
            Self::Terminals(hub) => hub.info(session.as_str()).is_some(),
            Self::Hosted(host) => host.has(session),
        }
    }

    /// Answers for the gate's context. Where other agents share the sessions, one that is not known here may have begun
    /// at another, or the server may be gone, so nothing is said of it.
    pub(super) fn presence(&self, session: &SessionId) -> Presence {
        match self {
            Self::Terminals(hub) if hub.is_mirror() && !self.has(session) => Presence::Unknown,
            _ => self.has(session).into(),
        }
    }

    pub(super) fn count(&self) -> usize {
        match self {
            Self::Terminals(hub) => hub.list().len(),
            Self::Hosted(host) => host.count(),
        }
    }

    pub(super) async fn stop(&self) {
        match self {
            Self::Terminals(hub) => hub.shutdown().await,
            Self::Hosted(host) => Arc::clone(host).stop().await,
        }
    }
}

/// An enrolled device's encrypted stream, which it has handed over to the host.
pub struct DeviceStream {
    pub(super) agent: Arc<Agent>,
    pub(super) socket: Socket,
    pub(super) channel: Channel,
    pub(super) device: DevicePublicKey,
}

impl DeviceStream {
    /// The device.
    pub fn device(&self) -> DevicePublicKey {
        self.device
    }

    /// Writes a line to the agent's log.
    pub fn log(&self, line: impl Into<String>) {
        self.agent.log(line);
    }

    /// The next frame; `None` when the device has ended its side. An error when it is gone or was removed.
    /// Cancel-safe.
    pub async fn receive(&mut self) -> Outcome<Option<Vec<u8>>> {
        let mut changes = self.agent.devices.changes();
        loop {
            // Looked at each time: it may have been removed while this side sent.
            self.check_enrolled()?;
            tokio::select! {
                frame = self.agent.receive(&mut self.socket) => {
                    let bytes = self.channel.open(&frame?)?;
                    return Ok((!bytes.is_empty()).then_some(bytes));
                }
                _ = changes.changed() => {}
            }
        }
    }

    fn check_enrolled(&self) -> Outcome<()> {
        match self.agent.devices.contains(&self.device) {
            true => Ok(()),
            false => Err(Problem::said("the device was removed")),
        }
    }

    /// Sends one frame, or gives up on a device that does not take it, or was removed.
    pub async fn send(&mut self, plaintext: &[u8]) -> Outcome<()> {
        self.check_enrolled()?;
        let frame = self.channel.seal(plaintext)?;
        transport::send(&mut self.socket, frame).await
    }

    /// Ends the agent's side and closes.
    pub async fn close(mut self) {
        let end = self.channel.seal(b"").ok();
        transport::send_last(self.socket, end, CloseCode::Normal).await;
    }
}
