//! One connection of a phone, held to its credential. It speaks the session profile: messages of
//! `sessioncap::session` in data, and notices about them.
//!
//! Session data passes only through the guarded channel, under its operation.

mod ask;
mod end;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::Poll;

use futures_util::SinkExt;
use sessioncap::agent::{
    Denial, Guard, GuardedChannel, GuardedReceiver, GuardedSender, NotActivated, PendingChannel, PermitError,
};
use sessioncap::session::{
    Event as SessionEvent, EventKind, FromAgent, Liveness, Look, NotTaken, Profile, ResumePoint,
    SessionNotice,
};
use sessioncap::{EndCode, Frame, Notice, Op, SessionId, Status};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::Agent;
use super::places::Place;
use crate::clock::{Clock, monotonic};
use crate::problem::Problem;
use crate::pty::{Followed, Happened, Input, Output, OutputEvent, Permit, Screen, Typed, Viewer};
use crate::transport::{self, Socket};
use ask::{Asked, Method};
use end::End;

struct Connection<'a> {
    agent: &'a Arc<Agent>,
    socket: Socket,
    sender: GuardedSender,
    receiver: GuardedReceiver,
    /// Looked at when no output is sent.
    guard: Guard,
    /// The guard's. No other id is ever passed on.
    session: SessionId,
    viewer: Viewer,
    input: Input,
    /// The output that is followed, and the number of the message that asked for it.
    output: Option<(Output, u64)>,
    /// Before this position nothing is sent again. Shared with later connections where the phone was granted output.
    floor: u64,
    shares_floor: bool,
    /// The version of the profile, once the phone has named its own.
    profile: Option<u16>,
    /// How many messages have come.
    messages: u64,
    liveness: Liveness,
    /// Whether it was logged that the phone does not read.
    slow: bool,
}

/// From message 2 on: waits for the frame that proves the phone is there, and serves it.
pub(super) async fn serve(agent: &Arc<Agent>, mut socket: Socket, pending: PendingChannel, mut place: Place) {
    let patience = pending.time_left(agent.now());
    let Ok(Ok(first)) = timeout(patience, agent.receive(&mut socket)).await else {
        return;
    };
    match agent.ask(move |_, now| pending.activate(&first, now)).await {
        Ok(Ok(channel)) if place.prove().is_err() => {
            let end = channel.sender.end(EndCode::from(Status::Busy));
            transport::send_last(socket, end, CloseCode::Again).await;
        }
        Ok(Ok(channel)) => match agent.hub.view(channel.receiver.guard().session().as_str()) {
            Ok(viewer) => Connection::new(agent, socket, channel, viewer).run().await,
            Err(_) => {
                let frame = End::SessionEnded.code().and_then(|code| channel.sender.end(code));
                transport::send_last(socket, frame, CloseCode::Normal).await;
            }
        },
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
    Typed(u64, Typed),
    Happened(Happened),
    Output(OutputEvent),
}

/// What a message has led to inside its permit.
enum Done {
    Nothing,
    NotTaken(NotTaken),
    Follow(Option<ResumePoint>),
    Request(Op, Method),
}

/// Lets input pass while the phone may type.
struct MayType {
    guard: Guard,
    clock: Clock,
}

impl Permit for MayType {
    async fn permit(&mut self, write: &mut (dyn FnMut() + Send)) -> Result<(), Denial> {
        let Self { guard, clock } = self;
        let writing = std::future::poll_fn(|_| {
            write();
            Poll::Ready(())
        });
        guard.drive(Op::SendInput, || clock.now(), writing).await.map_err(Denial::from)
    }
}

impl<'a> Connection<'a> {
    fn new(agent: &'a Arc<Agent>, socket: Socket, channel: GuardedChannel, viewer: Viewer) -> Self {
        let (sender, receiver) = channel.split();
        let guard = receiver.guard().fork();
        let session = guard.session().clone();
        let may_type = MayType { guard: guard.fork(), clock: agent.clock.clone() };
        let shares_floor = guard.ops().contains(Op::StreamOutput);
        let floor = match shares_floor {
            true => agent.floors.begin(guard.credential(), &session, viewer.position()),
            false => viewer.position(),
        };
        Self {
            input: viewer.input(Profile::MAX_UNTAKEN_INPUT, may_type),
            liveness: Liveness::of_agent(monotonic(agent.now())),
            agent,
            socket,
            sender,
            receiver,
            guard,
            session,
            viewer,
            output: None,
            floor,
            shares_floor,
            profile: None,
            messages: 0,
            slow: false,
        }
    }

    async fn run(mut self) {
        let (session, credential) = (self.session.clone(), self.guard.credential());
        self.agent.log(format!("a phone is attached to session {session} with credential {credential}"));
        let end = match self.serve_frames().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        self.agent.log(format!("a phone is off session {session} with credential {credential}: {end}"));
        self.say_goodbye(&end).await;
    }

    /// Says why, ends the agent's side, and closes.
    async fn say_goodbye(self, end: &End) {
        let Self { socket, sender, input, .. } = self;
        // What is not in the terminal stays out of it.
        drop(input);
        match end.code() {
            Some(code) => transport::send_last(socket, sender.end(code), CloseCode::Normal).await,
            // Whatever it has not taken yet goes as well.
            None => drop(socket.get_ref().tcp().set_zero_linger()),
        }
    }

    async fn serve_frames(&mut self) -> Result<Infallible, End> {
        if let Some(first) = self.receiver.first() {
            self.take_frame(first).await?;
        }
        loop {
            match self.next_event().await {
                Event::Cut(denial) => return Err(End::Over(denial)),
                Event::Look => self.look().await?,
                Event::Frame(Ok(frame)) => {
                    let now = self.agent.now();
                    let opened =
                        self.receiver.open(&frame, now).map_err(|error| match Denial::from(error) {
                            // From outside, this is a connection that is gone.
                            Denial::FrameUnreadable => End::Gone,
                            denial => End::Over(denial),
                        })?;
                    self.liveness.received(monotonic(now));
                    self.take_frame(opened).await?;
                }
                Event::Frame(Err(_)) => return Err(End::Gone),
                Event::Typed(number, typed) => self.tell_typed(number, typed).await?,
                // Whoever follows gets the last output first.
                Event::Happened(happened) if self.output.is_some() && is_end(&happened) => {}
                Event::Happened(happened) => {
                    self.tell_happened(&happened).await?;
                    if is_end(&happened) {
                        return Err(End::SessionEnded);
                    }
                }
                Event::Output(OutputEvent::Data(chunk)) => self.show(&chunk).await?,
                Event::Output(OutputEvent::Ended) => {
                    self.tell_happened(&self.viewer.end()).await?;
                    return Err(End::SessionEnded);
                }
                Event::Output(OutputEvent::Lagged) => return Err(End::Lagged),
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let agent = self.agent;
        let time_left = self.receiver.time_left(agent.now());
        let is_begun = self.profile.is_some();
        let output = async {
            match &mut self.output {
                Some((output, _)) => output.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // A cut goes before everything, and a flood of output hides no Ctrl-C.
            biased;
            denial = self.receiver.cut() => Event::Cut(denial),
            () = tokio::time::sleep(time_left.min(agent.look)) => Event::Look,
            frame = agent.receive(&mut self.socket) => Event::Frame(frame),
            (number, typed) = self.input.typed() => Event::Typed(number, typed),
            happened = self.viewer.happens(), if is_begun => Event::Happened(happened),
            event = output => Event::Output(event),
        }
    }

    /// About once a second.
    async fn look(&mut self) -> Result<(), End> {
        let now = self.agent.now();
        match self.receiver.check(now) {
            // Nothing is to be sent now; whoever sends waits.
            Ok(()) | Err(PermitError::Stale) => {}
            Err(over) => return Err(over.into()),
        }
        if let Err(PermitError::Refused(_)) = self.guard.permit(Op::StreamOutput, now, || ()) {
            self.forbid_output();
        }
        match self.liveness.look(monotonic(now)) {
            Look::Ping { number } => match self.sender.try_ping(false, number, now) {
                Ok(frame) => {
                    self.liveness.sent_ping(monotonic(now));
                    self.send(frame).await
                }
                // At the next look.
                Err(PermitError::Stale | PermitError::Refused(_)) => Ok(()),
                Err(over) => Err(over.into()),
            },
            Look::Lost => Err(End::Silent),
            _ => Ok(()),
        }
    }

    /// What is put out while the phone may not see it is not sent later.
    fn forbid_output(&mut self) {
        self.floor = self.viewer.position();
        if self.shares_floor {
            self.agent.floors.raise(self.guard.credential(), self.floor);
        }
    }

    async fn take_frame(&mut self, frame: Frame<()>) -> Result<(), End> {
        match frame {
            Frame::Data(()) if self.profile.is_none() => Err(End::Protocol),
            Frame::Data(()) => self.take_message().await,
            Frame::Notice(notice) => match SessionNotice::from_notice(notice) {
                Some(SessionNotice::Profile { version }) if self.profile.is_none() => {
                    let version = Profile::agree(version).map_err(|_| End::NoCommonVersion)?;
                    self.profile = Some(version);
                    self.tell(SessionNotice::Profile { version }).await
                }
                _ => Ok(()),
            },
            Frame::Ping { answer: false, number } => {
                let frame = self.sender.ping(true, number, || self.agent.now()).await?;
                self.send(frame).await
            }
            Frame::End(_) => Err(End::Left),
            _ => Ok(()),
        }
    }

    /// Does what a message asks for, if it is allowed at this moment.
    async fn take_message(&mut self) -> Result<(), End> {
        let number = self.messages;
        self.messages = self.messages.saturating_add(1);
        let Self { agent, receiver, viewer, input, session, .. } = self;
        let done = receiver.receive_as(
            |message| ask::read(message, session),
            || agent.now(),
            // Inside the permit: nothing here waits.
            |asked| match asked {
                Asked::Input(bytes) => {
                    input.push(number, &bytes).map_or_else(Done::NotTaken, |()| Done::Nothing)
                }
                Asked::Interrupt => {
                    input.interrupt();
                    Done::Nothing
                }
                Asked::Resize { columns, rows } => {
                    // A session of the wrong size is still a session.
                    let _ = viewer.resize(columns, rows);
                    Done::Nothing
                }
                Asked::Follow(point) => Done::Follow(point),
                Asked::Request(op, method) => Done::Request(op, method),
                Asked::Privileged => Done::Nothing,
            },
        );
        match done.await {
            Ok(None | Some(Done::Nothing)) => Ok(()),
            Ok(Some(Done::NotTaken(why))) => self.tell(SessionNotice::NotTaken { number, why }).await,
            Ok(Some(Done::Follow(point))) => self.follow(number, point).await,
            Ok(Some(Done::Request(op, method))) => self.answer(number, op, method).await,
            Err(PermitError::Refused(denial)) => self.notify(self.receiver.notice(&denial)).await,
            Err(over) => Err(over.into()),
        }
    }

    /// Begins the output at a point, or with the screen.
    async fn follow(&mut self, number: u64, point: Option<ResumePoint>) -> Result<(), End> {
        let Followed { following, screen, output } = self.viewer.follow(point, self.floor);
        self.output = Some((output, number));
        self.send_output(&FromAgent::Following(following)).await?;
        match screen {
            Some(Screen { position, columns, rows, bytes }) => {
                self.send_output(&FromAgent::Screen { position, columns, rows, bytes: &bytes }).await
            }
            None => Ok(()),
        }
    }

    async fn show(&mut self, chunk: &[u8]) -> Result<(), End> {
        let Some((output, _)) = &self.output else { return Ok(()) };
        let position = output.position().saturating_sub(chunk.len() as u64);
        self.send_output(&FromAgent::Output { position, bytes: chunk }).await
    }

    /// Sends output, if the phone may see it at this moment. A rule or a narrowing that forbids it stops the output,
    /// and the phone gets a notice.
    async fn send_output(&mut self, message: &FromAgent<'_>) -> Result<(), End> {
        let Some((_, number)) = self.output else { return Ok(()) };
        if let Err(denial) = self.send_message(Op::StreamOutput, message).await? {
            self.output = None;
            self.forbid_output();
            return self.notify(Notice { number, ..self.receiver.notice(&denial) }).await;
        }
        Ok(())
    }

    async fn answer(&mut self, number: u64, op: Op, method: Method) -> Result<(), End> {
        let json = ask::answer(&self.viewer, &self.session, method).to_string();
        let answer = FromAgent::Answer { number, json: &json };
        match self.send_message(op, &answer).await? {
            Ok(()) => Ok(()),
            Err(denial) => self.notify(Notice { number, ..self.receiver.notice(&denial) }).await,
        }
    }

    async fn tell_typed(&mut self, number: u64, typed: Typed) -> Result<(), End> {
        match typed {
            Typed::Taken => self.tell(SessionNotice::Taken { number }).await,
            Typed::NotTaken(why) => self.tell(SessionNotice::NotTaken { number, why }).await,
            Typed::Refused(denial) => self.notify(Notice { number, ..self.receiver.notice(&denial) }).await,
        }
    }

    async fn tell_happened(&mut self, happened: &Happened) -> Result<(), End> {
        let Happened { kind, position, value, text } = happened;
        let event = SessionEvent { kind: *kind, position: *position, value: *value, text };
        // Who may not know of it misses nothing that it could ask for.
        self.send_message(Op::ReceiveNotifications, &FromAgent::Event(event)).await.map(drop)
    }

    /// Sends a message in as many frames as it needs, or says why it was refused.
    async fn send_message(&mut self, op: Op, message: &FromAgent<'_>) -> Result<Result<(), Denial>, End> {
        let Ok(bytes) = message.to_bytes() else { return Ok(Err(Denial::Internal)) };
        loop {
            let sent = self.sender.send_long(op, &bytes, || self.agent.now()).await;
            for frame in sent.frames {
                self.send(frame).await?;
            }
            match sent.outcome {
                Ok(()) => return Ok(Ok(())),
                Err(PermitError::Refused(denial)) => return Ok(Err(denial)),
                // What was begun is discarded, and goes again as a whole.
                Err(PermitError::Stale) => {}
                Err(over) => return Err(over.into()),
            }
        }
    }

    async fn tell(&mut self, notice: SessionNotice) -> Result<(), End> {
        self.notify(notice.to_notice()).await
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

/// Whether the session has ended.
fn is_end(happened: &Happened) -> bool {
    happened.kind == EventKind::SessionEnded
}
