//! One connection of a phone, held to its credential.
//!
//! Frames after the handshake, in both directions, by the first byte of the plaintext:
//!
//! ```text
//! 0x00 bytes   terminal output, or typed input: nothing but these bytes
//! { … }        a request, its reply, or a notice {"notice":"ended",…}, in JSON
//! (empty)      this side has ended
//! ```
//!
//! The deployed protocol turns a channel into raw bytes for good after an attach. A phone's channel
//! marks them instead, so that it can still be told why it was refused. Replies keep the order of
//! their requests.
//!
//! Every frame with something of the session in it is encrypted, and every typed byte handed to the
//! program, inside `Guard::permit`. What is sent outside a permit says only what was refused.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::SinkExt;
use serde::Deserialize;
use serde_json::{Value, json};
use sessioncap::agent::{Denial, Guard, PendingGuard};
use sessioncap::noise::Channel;
use sessioncap::{Action, Error, Op, SessionId};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{Agent, device};
use crate::programs::classify::classify;
use crate::programs::problem::Problem;
use crate::programs::pty::{Hub, HubError, Output, OutputEvent, Replay};
use crate::programs::request::{BadRequest, Request, denied, error};
use crate::programs::transport::{self, Socket};

/// The first byte of a frame of terminal bytes.
pub const RAW: u8 = 0;

struct Connection<'a> {
    agent: &'a Arc<Agent>,
    socket: Socket,
    channel: Channel,
    guard: Guard,
    /// The guard's. No other id is ever passed on.
    session: SessionId,
    output: Option<Output>,
    /// Input that the program has no room for yet. Nothing more is read from the phone until then.
    waiting: Option<Vec<u8>>,
    /// Whether it was logged that the phone does not read.
    slow: bool,
}

/// How a connection ends.
enum End {
    /// The phone has ended its side.
    Left,
    /// The session has ended, and the phone has had all of its output.
    SessionEnded,
    /// The credential does not stand any more, or the phone may not go on for another reason.
    Over { code: &'static str, detail: String },
    /// The phone is gone, does not read, or breaks the protocol. There is nobody to tell.
    Gone,
    /// Over in the middle of a frame that the phone does not take: no later one would decrypt, so
    /// nothing can follow. The phone learns why when it comes back.
    Mute(Denial),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => f.write_str("it has left"),
            Self::SessionEnded => f.write_str("the session has ended"),
            Self::Over { detail, .. } => f.write_str(detail),
            Self::Gone => f.write_str("its connection broke off, or it does not read"),
            Self::Mute(denial) => write!(f, "{denial}, while it did not read"),
        }
    }
}

impl From<Denial> for End {
    fn from(denial: Denial) -> Self {
        Self::Over { code: denial.code(), detail: denial.to_string() }
    }
}

impl From<Error> for End {
    fn from(_: Error) -> Self {
        Self::Gone
    }
}

/// From message 2 on: waits for the frame that proves the phone is there, and serves it.
pub(super) async fn serve(
    agent: &Arc<Agent>,
    mut socket: Socket,
    mut channel: Channel,
    pending: PendingGuard,
) {
    let patience = Duration::try_from(pending.time_left(agent.now())).unwrap_or_default();
    let Ok(Ok(frame)) = timeout(patience, transport::receive(&mut socket)).await else {
        return;
    };
    let Ok(first) = channel.open(&frame) else {
        return;
    };
    let activated = agent.ask(move |_, now| pending.activate(now)).await;
    let end = match activated {
        Ok(Ok(guard)) => {
            let session = guard.session().clone();
            agent.log(format!(
                "a phone is attached to session {session} with credential {}",
                guard.credential()
            ));
            let mut connection = Connection {
                agent,
                socket,
                channel,
                guard,
                session,
                output: None,
                waiting: None,
                slow: false,
            };
            let end = connection.run(first).await;
            let (session, credential) = (&connection.session, connection.guard.credential());
            agent.log(format!("a phone is off session {session} with credential {credential}: {end}"));
            (socket, channel) = (connection.socket, connection.channel);
            end
        }
        Ok(Err(denial)) => End::from(denial),
        Err(_) => End::Gone,
    };
    farewell(socket, channel, end).await;
}

/// Says why, ends the agent's side, and closes. Outside any permit: nothing of the session is in it.
async fn farewell(socket: Socket, mut channel: Channel, end: End) {
    let notice = match end {
        End::Left => None,
        End::SessionEnded => Some(json!({
            "notice": "ended", "code": "session_gone", "detail": "the session has ended",
        })),
        End::Over { code, detail } => Some(json!({ "notice": "ended", "code": code, "detail": detail })),
        End::Gone | End::Mute(_) => {
            // Whatever it has not taken yet goes as well.
            let _ = socket.get_ref().set_zero_linger();
            return;
        }
    };
    let notice = notice.map(|notice| notice.to_string().into_bytes());
    let frames = notice.iter().map(Vec::as_slice).chain([b"".as_slice()]);
    let sealed: Result<Vec<_>, _> = frames.map(|frame| channel.seal(frame)).collect();
    if let Ok(sealed) = sealed {
        transport::send_last(socket, sealed, CloseCode::Normal).await;
    }
}

/// What a connection waits for.
enum Event {
    Cut(Denial),
    Look,
    Frame(Result<Vec<u8>, Problem>),
    Room,
    Output(OutputEvent),
}

impl Connection<'_> {
    async fn run(&mut self, first: Vec<u8>) -> End {
        match self.serve_frames(first).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn serve_frames(&mut self, first: Vec<u8>) -> Result<std::convert::Infallible, End> {
        self.take_frame(first).await?;
        loop {
            match self.next_event().await {
                Event::Cut(denial) => return Err(denial.into()),
                Event::Look => match self.guard.check(self.agent.now()) {
                    // Nothing is to be sent now; whoever sends waits.
                    Ok(()) | Err(Denial::Stale) => {}
                    Err(denial) => return Err(denial.into()),
                },
                Event::Frame(Ok(frame)) => {
                    let plaintext = self.channel.open(&frame)?;
                    self.take_frame(plaintext).await?;
                }
                Event::Frame(Err(_)) => return Err(End::Gone),
                Event::Room => {
                    let bytes = self.waiting.take().unwrap_or_default();
                    self.type_in(bytes).await?;
                }
                Event::Output(OutputEvent::Data(chunk)) => self.show(&chunk).await?,
                Event::Output(OutputEvent::Ended) => return Err(End::SessionEnded),
                Event::Output(OutputEvent::Lagged) => {
                    let detail = "this phone reads too slowly; attach again".to_owned();
                    return Err(End::Over { code: "lagged", detail });
                }
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let agent = self.agent;
        let time_left = Duration::try_from(self.guard.time_left(agent.now())).unwrap_or_default();
        let output = async {
            match &mut self.output {
                Some(output) => output.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // A cut goes before everything, and a flood of output hides no Ctrl-C.
            biased;
            denial = self.guard.cut() => Event::Cut(denial),
            () = tokio::time::sleep(time_left.min(agent.look)) => Event::Look,
            frame = transport::receive(&mut self.socket), if self.waiting.is_none() => Event::Frame(frame),
            () = agent.hub.input_room(self.session.as_str()), if self.waiting.is_some() => Event::Room,
            event = output => Event::Output(event),
        }
    }

    async fn take_frame(&mut self, plaintext: Vec<u8>) -> Result<(), End> {
        match plaintext.split_first() {
            None => Err(End::Left),
            Some((&RAW, bytes)) => self.type_in(bytes.to_vec()).await,
            Some((b'{', _)) => match Request::parse(&plaintext) {
                Ok(request) => self.answer(&request).await,
                Err(BadRequest) => self.refuse(&bad_request()).await,
            },
            Some(_) => Err(End::Gone),
        }
    }

    /// Hands typed bytes to the program, if they are allowed at this moment.
    async fn type_in(&mut self, bytes: Vec<u8>) -> Result<(), End> {
        let typed = loop {
            let (hub, session) = (&self.agent.hub, &self.session);
            let typed =
                self.guard.permit(Op::SendInput, self.agent.now(), || hub.input(session.as_str(), &bytes));
            match typed {
                Err(Denial::Stale) => self.wait_while_stale().await?,
                typed => break typed,
            }
        };
        match typed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(HubError::InputFull)) => {
                self.waiting = Some(bytes);
                Ok(())
            }
            Ok(Err(failure)) => self.refuse(&error("shell_failed", failure)).await,
            Err(denial) => self.refuse_or_end(denial).await,
        }
    }

    /// Sends output, if the phone may see it at this moment.
    async fn show(&mut self, chunk: &[u8]) -> Result<(), End> {
        let marked = [&[RAW], chunk].concat();
        let sealed = loop {
            let channel = &mut self.channel;
            match self.guard.permit(Op::StreamOutput, self.agent.now(), || channel.seal(&marked)) {
                Err(Denial::Stale) => self.wait_while_stale().await?,
                sealed => break sealed,
            }
        };
        match sealed {
            Ok(frame) => self.send(frame?).await,
            // An operator's rule has begun to forbid it: the output stops, and the phone is told.
            Err(denial) => {
                self.output = None;
                self.refuse_or_end(denial).await
            }
        }
    }

    async fn answer(&mut self, request: &Request) -> Result<(), End> {
        let action = classify(request);
        if let (Action::Session(_), Some(named)) = (action, request.named_session())
            && named.as_str() != Some(self.session.as_str())
        {
            return self.refuse(&other_session()).await;
        }
        let permitted = loop {
            let (hub, session, channel) = (&self.agent.hub, &self.session, &mut self.channel);
            // Inside the permit: nothing here waits.
            let permitted = self.guard.permit_action(action, self.agent.now(), || {
                let served = serve_request(hub, session, request);
                let reply = match &served {
                    Ok(served) => &served.reply,
                    Err(refusal) => refusal,
                };
                let sealed = channel.seal(reply.to_string().as_bytes());
                (sealed, served.ok().and_then(|served| served.attached))
            });
            match permitted {
                Err(Denial::Stale) => self.wait_while_stale().await?,
                permitted => break permitted,
            }
        };
        match permitted {
            Ok((sealed, attached)) => {
                self.send(sealed?).await?;
                if let Some((replay, output)) = attached {
                    self.output = Some(output);
                    for chunk in replay.chunks(transport::CHUNK) {
                        self.show(chunk).await?;
                    }
                }
                Ok(())
            }
            Err(denial) => self.refuse_or_end(denial).await,
        }
    }

    /// Waits, frame in hand, while the gate's view is stale. Whether the frame may go is asked afterwards.
    async fn wait_while_stale(&mut self) -> Result<(), End> {
        loop {
            match self.guard.check(self.agent.now()) {
                Err(Denial::Stale) => self.guard.settled().await,
                checked => return checked.map_err(End::from),
            }
        }
    }

    /// One operation less is not the end; anything else is.
    async fn refuse_or_end(&mut self, denial: Denial) -> Result<(), End> {
        match denial {
            Denial::OperationNotGranted { .. } | Denial::PrivilegeDenied { .. } => {
                self.refuse(&denied(&denial)).await
            }
            over => Err(over.into()),
        }
    }

    /// Tells of a refusal. Holds nothing of the session.
    async fn refuse(&mut self, refusal: &Value) -> Result<(), End> {
        let frame = self.channel.seal(refusal.to_string().as_bytes())?;
        self.send(frame).await
    }

    /// Sends one encrypted frame. No permit is held meanwhile, so a phone that does not read delays
    /// neither a revocation nor another viewer.
    async fn send(&mut self, frame: Vec<u8>) -> Result<(), End> {
        let sending = timeout(self.agent.patience, self.socket.send(Message::binary(frame)));
        tokio::pin!(sending);
        loop {
            tokio::select! {
                biased;
                denial = self.guard.cut() => return Err(End::Mute(denial)),
                sent = &mut sending => match sent {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(_)) | Err(_) => return Err(End::Gone),
                },
                // Its buffers are full.
                () = std::future::ready(()), if !self.slow => {
                    self.slow = true;
                    self.agent.log(format!("a phone on session {} does not read: a frame waits", self.session));
                }
                () = tokio::time::sleep(self.agent.look) => match self.guard.check(self.agent.now()) {
                    Ok(()) | Err(Denial::Stale) => {}
                    Err(denial) => return Err(End::Mute(denial)),
                },
            }
        }
    }
}

struct Served {
    reply: Value,
    attached: Option<(Vec<u8>, Output)>,
}

impl From<Value> for Served {
    fn from(reply: Value) -> Self {
        Self { reply, attached: None }
    }
}

/// Serves a request that was permitted, on the guard's session.
fn serve_request(hub: &Hub, session: &SessionId, request: &Request) -> Result<Served, Value> {
    let failed = |failure: HubError| error("shell_failed", failure);
    match request.method() {
        "shell.list_sessions" => {
            let Plain {} = parameters(request)?;
            let own: Vec<_> = hub.info(session.as_str()).iter().map(device::describe_for_phone).collect();
            Ok(json!({ "ok": true, "sessions": own }).into())
        }
        "shell.attach_session" => {
            let Attach { tail, .. } = parameters(request)?;
            let replay = if tail { Replay::Ring } else { Replay::None };
            let attached = hub.attach(session.as_str(), replay).map_err(failed)?;
            let reply = json!({ "ok": true, "id": session });
            Ok(Served { reply, attached: Some((attached.replay, attached.output)) })
        }
        "shell.replay_session" => {
            let OwnId { .. } = parameters(request)?;
            let history = hub.history(session.as_str()).map_err(failed)?;
            Ok(device::replay(session, &history).into())
        }
        "shell.resize_session" => {
            let Resize { cols, rows, .. } = parameters(request)?;
            hub.resize(session.as_str(), cols, rows).map_err(failed)?;
            Ok(json!({ "ok": true }).into())
        }
        _ => Err(error("method_rejected", "there is no such method")),
    }
}

fn parameters<T: serde::de::DeserializeOwned>(request: &Request) -> Result<T, Value> {
    request.parameters().map_err(|BadRequest| bad_request())
}

fn other_session() -> Value {
    json!({ "error": "denied", "code": "other_session", "detail": "the credential is for another session" })
}

fn bad_request() -> Value {
    error("method_rejected", "a request is one json object with a method and its parameters, and no others")
}

// From a phone, unknown parameters are refused. The id was compared before; it is named here so that
// it is known.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnId {
    #[serde(rename = "id")]
    _id: Option<SessionId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attach {
    #[serde(rename = "id")]
    _id: Option<SessionId>,
    #[serde(default)]
    tail: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resize {
    #[serde(rename = "id")]
    _id: Option<SessionId>,
    cols: u16,
    rows: u16,
}
