//! One connection of a phone, held to its credential.
//!
//! The data of a frame, in both directions, by its first byte:
//!
//! ```text
//! 0x00 bytes   terminal output, or typed input: nothing but these bytes
//! { … }        a request or its reply, in JSON
//! ```
//!
//! The deployed protocol turns a channel into raw bytes for good after an attach. A phone's channel
//! marks them instead, so that it can still be told why it was refused. Replies keep the order of
//! their requests; a refusal is a notice in the reply's place.
//!
//! Session data passes only through the guarded channel, under its operation.

use std::fmt;
use std::sync::Arc;

use futures_util::SinkExt;
use serde::Deserialize;
use serde_json::{Value, json};
use sessioncap::agent::{
    Denial, Guard, GuardedChannel, GuardedReceiver, GuardedSender, NotActivated, PendingChannel, PermitError,
};
use sessioncap::{Action, EndCode, Frame, Notice, Op, SessionId, Status};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::places::Place;
use super::{Agent, device};
use crate::classify::classify;
use crate::problem::Problem;
use crate::pty::{Hub, HubError, Output, OutputEvent, Replay};
use crate::request::{BadRequest, Request, error};
use crate::transport::{self, Socket};

/// The first byte of terminal bytes.
pub const RAW: u8 = 0;

struct Connection<'a> {
    agent: &'a Arc<Agent>,
    socket: Socket,
    sender: GuardedSender,
    receiver: GuardedReceiver,
    /// For input that the program had no room for when it was received.
    input: Guard,
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
    /// The credential is not valid any more, or the connection is over for another reason.
    Over(Denial),
    /// The phone reads too slowly to follow the output.
    Lagged,
    /// The phone is gone, does not read, or breaks the protocol. No message can reach it.
    Gone,
    /// Over in the middle of a frame that the phone does not take: no later one would decrypt, so
    /// nothing can follow. The phone learns why when it attaches again.
    Mute(Denial),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => f.write_str("it has left"),
            Self::SessionEnded => f.write_str("the session has ended"),
            Self::Over(denial) => denial.fmt(f),
            Self::Lagged => f.write_str("it reads too slowly"),
            Self::Gone => f.write_str("its connection broke off, or it does not read"),
            Self::Mute(denial) => write!(f, "{denial}, while it did not read"),
        }
    }
}

impl From<PermitError> for End {
    fn from(error: PermitError) -> Self {
        Self::Over(error.into())
    }
}

/// From message 2 on: waits for the frame that proves the phone is there, and serves it.
pub(super) async fn serve(agent: &Arc<Agent>, mut socket: Socket, pending: PendingChannel, mut place: Place) {
    let patience = pending.time_left(agent.now());
    let Ok(Ok(first)) = timeout(patience, agent.receive(&mut socket)).await else {
        return;
    };
    match agent.ask(move |_, now| pending.activate(&first, now)).await {
        Ok(Ok(channel)) if place.prove().is_err() => {
            let end = channel.split().0.end(EndCode::from(Status::Busy));
            transport::send_last(socket, end, CloseCode::Again).await;
        }
        Ok(Ok(channel)) => Connection::new(agent, socket, channel).run().await,
        Ok(Err(NotActivated { end: Some(end), .. })) => {
            transport::send_last(socket, [end], CloseCode::Normal).await;
        }
        Ok(Err(NotActivated { end: None, .. })) | Err(_) => {}
    }
}

/// The events that a connection waits for.
enum Event {
    Cut(Denial),
    Look,
    Frame(Result<Vec<u8>, Problem>),
    Room,
    Output(OutputEvent),
}

/// The contents of a data frame.
enum Asked {
    Input(Vec<u8>),
    Request(Action, Request),
}

/// The result of a data frame that was received.
enum Taken {
    Typed(Result<(), HubError>, Vec<u8>),
    Request(Action, Request),
}

impl<'a> Connection<'a> {
    fn new(agent: &'a Arc<Agent>, socket: Socket, channel: GuardedChannel) -> Self {
        let (sender, receiver) = channel.split();
        let (input, session) = (receiver.guard().fork(), receiver.guard().session().clone());
        Self { agent, socket, sender, receiver, input, session, output: None, waiting: None, slow: false }
    }

    async fn run(mut self) {
        let (session, credential) = (self.session.clone(), self.receiver.guard().credential());
        self.agent.log(format!("a phone is attached to session {session} with credential {credential}"));
        let end = match self.serve_frames().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        self.agent.log(format!("a phone is off session {session} with credential {credential}: {end}"));
        self.say_goodbye(end).await;
    }

    /// Says why, ends the agent's side, and closes.
    async fn say_goodbye(self, end: End) {
        let code = match end {
            End::Left => EndCode::LEFT,
            End::SessionEnded => EndCode::from(Status::SessionGone),
            End::Over(denial) => denial.end_code(),
            End::Lagged => EndCode::TOO_SLOW,
            End::Gone | End::Mute(_) => {
                // Whatever it has not taken yet goes as well.
                let _ = self.socket.get_ref().set_zero_linger();
                return;
            }
        };
        if let Some(frame) = self.sender.end(code) {
            transport::send_last(self.socket, [frame], CloseCode::Normal).await;
        }
    }

    async fn serve_frames(&mut self) -> Result<std::convert::Infallible, End> {
        if let Some(first) = self.receiver.first() {
            self.take_frame(first).await?;
        }
        loop {
            match self.next_event().await {
                Event::Cut(denial) => return Err(End::Over(denial)),
                Event::Look => match self.receiver.check(self.agent.now()) {
                    // Nothing is to be sent now; whoever sends waits.
                    Ok(()) | Err(PermitError::Stale) => {}
                    Err(over) => return Err(over.into()),
                },
                Event::Frame(Ok(frame)) => {
                    let opened = self.receiver.open(&frame, self.agent.now()).map_err(|error| {
                        match Denial::from(error) {
                            // From outside, this is a connection that is gone.
                            Denial::FrameUnreadable => End::Gone,
                            denial => End::Over(denial),
                        }
                    });
                    self.take_frame(opened?).await?;
                }
                Event::Frame(Err(_)) => return Err(End::Gone),
                Event::Room => {
                    let bytes = self.waiting.take().unwrap_or_default();
                    self.type_again(bytes).await?;
                }
                Event::Output(OutputEvent::Data(chunk)) => self.show(&chunk).await?,
                Event::Output(OutputEvent::Ended) => return Err(End::SessionEnded),
                Event::Output(OutputEvent::Lagged) => return Err(End::Lagged),
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let agent = self.agent;
        let time_left = self.receiver.time_left(agent.now());
        let output = async {
            match &mut self.output {
                Some(output) => output.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // A cut goes before everything, and a flood of output hides no Ctrl-C.
            biased;
            denial = self.receiver.cut() => Event::Cut(denial),
            () = tokio::time::sleep(time_left.min(agent.look)) => Event::Look,
            frame = agent.receive(&mut self.socket), if self.waiting.is_none() => Event::Frame(frame),
            () = agent.hub.input_room(self.session.as_str()), if self.waiting.is_some() => Event::Room,
            event = output => Event::Output(event),
        }
    }

    async fn take_frame(&mut self, frame: Frame<()>) -> Result<(), End> {
        match frame {
            Frame::Data(()) => self.take_data().await,
            Frame::Ping { answer: false, number } => {
                let frame = self.sender.ping(true, number, || self.agent.now()).await?;
                self.send(frame).await
            }
            Frame::End(_) => Err(End::Left),
            _ => Ok(()),
        }
    }

    /// Types what was typed, or answers what was asked, if it is allowed at this moment.
    async fn take_data(&mut self) -> Result<(), End> {
        let (hub, own) = (&self.agent.hub, &self.session);
        let taken = self.receiver.receive_as(
            |data| read(data, own),
            || self.agent.now(),
            // Inside the permit: nothing here waits.
            |asked| match asked {
                Asked::Input(bytes) => Taken::Typed(hub.input(own.as_str(), &bytes), bytes),
                Asked::Request(action, request) => Taken::Request(action, request),
            },
        );
        match taken.await {
            Ok(None) => Ok(()),
            Ok(Some(Taken::Typed(typed, bytes))) => self.typed(typed, bytes).await,
            Ok(Some(Taken::Request(action, request))) => self.answer(action, &request).await,
            Err(error) => self.refuse_or_end(error).await,
        }
    }

    /// What could not be typed waits for room.
    async fn typed(&mut self, typed: Result<(), HubError>, bytes: Vec<u8>) -> Result<(), End> {
        match typed {
            Ok(()) => Ok(()),
            Err(HubError::InputFull) => {
                self.waiting = Some(bytes);
                Ok(())
            }
            Err(failure) => {
                let reply = error("shell_failed", failure).to_string();
                self.reply(Action::Session(Op::SendInput), |plaintext| plaintext.extend(reply.bytes())).await
            }
        }
    }

    /// Types bytes that had no room before, if they are still allowed.
    async fn type_again(&mut self, bytes: Vec<u8>) -> Result<(), End> {
        let (hub, session) = (&self.agent.hub, &self.session);
        let typed = self.input.drive(
            Op::SendInput,
            || self.agent.now(),
            std::future::poll_fn(|_| std::task::Poll::Ready(hub.input(session.as_str(), &bytes))),
        );
        match typed.await {
            Ok(typed) => self.typed(typed, bytes).await,
            Err(error) => self.refuse_or_end(error).await,
        }
    }

    /// Sends output, if the phone may see it at this moment.
    async fn show(&mut self, chunk: &[u8]) -> Result<(), End> {
        let marked = [&[RAW], chunk].concat();
        match self.sender.send(Op::StreamOutput, &marked, || self.agent.now()).await {
            Ok(frame) => self.send(frame).await,
            // An operator's rule has begun to forbid it: the output stops, and the phone gets a notice.
            Err(error) => {
                self.output = None;
                self.refuse_or_end(error).await
            }
        }
    }

    async fn answer(&mut self, action: Action, request: &Request) -> Result<(), End> {
        let (hub, session) = (self.agent.hub.clone(), self.session.clone());
        let mut attached = None;
        self.reply(action, |plaintext| {
            let reply = match serve_request(&hub, &session, request) {
                Ok(served) => {
                    attached = served.attached;
                    served.reply
                }
                Err(refusal) => refusal,
            };
            plaintext.extend(reply.to_string().bytes());
        })
        .await?;
        if let Some((replay, output)) = attached {
            self.output = Some(output);
            for chunk in replay.chunks(transport::CHUNK) {
                self.show(chunk).await?;
            }
        }
        Ok(())
    }

    /// Sends what `write` makes inside the permit.
    async fn reply(&mut self, action: Action, mut write: impl FnMut(&mut Vec<u8>)) -> Result<(), End> {
        let sealed = loop {
            match self.sender.try_send_with(action, self.agent.now(), &mut write) {
                Err(PermitError::Stale) => self.wait_while_stale().await?,
                sealed => break sealed,
            }
        };
        match sealed {
            Ok((frame, ())) => self.send(frame).await,
            Err(error) => self.refuse_or_end(error).await,
        }
    }

    /// Waits, frame in hand, while the gate's view is stale. Whether the frame may go is asked afterwards.
    async fn wait_while_stale(&mut self) -> Result<(), End> {
        loop {
            match self.sender.check(self.agent.now()) {
                Err(PermitError::Stale) => self.sender.settled().await,
                checked => return checked.map_err(End::from),
            }
        }
    }

    /// One frame less is not the end.
    async fn refuse_or_end(&mut self, error: PermitError) -> Result<(), End> {
        match error {
            PermitError::Refused(denial) => self.notify(self.receiver.notice(&denial)).await,
            over => Err(over.into()),
        }
    }

    async fn notify(&mut self, notice: Notice) -> Result<(), End> {
        let frame = self.sender.notice(notice, || self.agent.now()).await?;
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
                denial = self.receiver.cut() => return Err(End::Mute(denial)),
                sent = &mut sending => match sent {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(_)) | Err(_) => return Err(End::Gone),
                },
                // Its buffers are full.
                () = std::future::ready(()), if !self.slow => {
                    self.slow = true;
                    self.agent.log(format!("a phone on session {} does not read: a frame waits", self.session));
                }
                () = tokio::time::sleep(self.agent.look) => match self.receiver.check(self.agent.now()) {
                    Ok(()) | Err(PermitError::Stale) => {}
                    Err(over) => return Err(End::Mute(over.into())),
                },
            }
        }
    }
}

/// Reads a data frame: what it asks for, and what that needs.
fn read(data: &[u8], own: &SessionId) -> Result<(Action, Asked), Denial> {
    match data.split_first() {
        Some((&RAW, bytes)) => Ok((Action::Session(Op::SendInput), Asked::Input(bytes.to_vec()))),
        Some((b'{', _)) => {
            let request = Request::parse(data).map_err(|BadRequest| Denial::FrameUnreadable)?;
            let action = classify(&request);
            if let (Action::Session(_), Some(named)) = (action, request.named_session())
                && named.as_str() != Some(own.as_str())
            {
                return Err(Denial::OtherSession);
            }
            Ok((action, Asked::Request(action, request)))
        }
        _ => Err(Denial::FrameUnreadable),
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
