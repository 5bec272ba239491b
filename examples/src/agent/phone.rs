//! One connection of a phone, held to its credential. It speaks the session profile: messages of
//! `sessioncap::session` in data, and notices about them.
//!
//! Session data passes only through the guarded channel, under its operation.

mod ask;
mod end;
mod wire;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::Poll;

use sessioncap::agent::{Denial, Guard, NotActivated, PendingChannel, PermitError};
use sessioncap::session::{
    Event as SessionEvent, EventKind, FromAgent, NotTaken, Profile, ResumePoint, SessionNotice,
};
use sessioncap::{EndCode, Frame, Notice, Op, Status};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::places::Place;
use super::{Agent, Sessions};
use crate::clock::Clock;
use crate::pty::{Followed, Happened, Input, Output, OutputEvent, Permit, Screen, Typed, Viewer};
use crate::transport::{self, Socket};
use ask::{Asked, Method};
pub use end::End;
pub use wire::{Incoming, Wire};

struct Connection {
    wire: Wire,
    viewer: Viewer,
    input: Input,
    /// The output that is followed, and the number of the message that asked for it.
    output: Option<(Output, u64)>,
    /// Before this position nothing is sent again. Shared with later connections where the phone was granted output.
    floor: u64,
    shares_floor: bool,
    /// The version of the profile, once the phone has named its own.
    profile: Option<u16>,
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
        Ok(Ok(channel)) => {
            let wire = Wire::new(agent, socket, channel);
            match &agent.sessions {
                Sessions::Terminals(hub) => match hub.view(wire.session().as_str()) {
                    Ok(viewer) => Connection::new(wire, viewer).run().await,
                    Err(_) => wire.say_goodbye(&End::SessionEnded).await,
                },
                Sessions::Hosted(host) => Arc::clone(host).serve_phone(wire).await,
            }
        }
        Ok(Err(NotActivated { end: Some(end), .. })) => {
            transport::send_last(socket, [end], CloseCode::Normal).await;
        }
        Ok(Err(NotActivated { end: None, .. })) | Err(_) => {}
    }
}

/// The events that a connection waits for.
enum Event {
    Wire(Incoming),
    Typed(u64, Typed),
    Happened(Happened),
    Output(OutputEvent),
    /// The session's server was lost.
    Lost,
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

impl Connection {
    fn new(wire: Wire, viewer: Viewer) -> Self {
        let may_type = MayType { guard: wire.guard(), clock: wire.agent.clock.clone() };
        let shares_floor = wire.ops().contains(Op::StreamOutput);
        let floor = match shares_floor {
            true => wire.agent.floors.begin(wire.credential(), wire.session(), viewer.position()),
            false => viewer.position(),
        };
        Self {
            input: viewer.input(Profile::MAX_UNTAKEN_INPUT, may_type),
            wire,
            viewer,
            output: None,
            floor,
            shares_floor,
            profile: None,
        }
    }

    async fn run(mut self) {
        let (session, credential) = (self.wire.session().clone(), self.wire.credential());
        self.wire.log(format!("a phone is attached to session {session} with credential {credential}"));
        let end = match self.serve_frames().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        self.wire.log(format!("a phone is off session {session} with credential {credential}: {end}"));
        let Self { wire, input, .. } = self;
        // What is not in the terminal stays out of it.
        drop(input);
        wire.say_goodbye(&end).await;
    }

    async fn serve_frames(&mut self) -> Result<Infallible, End> {
        if let Some(first) = self.wire.first() {
            self.take_frame(first).await?;
        }
        loop {
            match self.next_event().await {
                Event::Wire(Incoming::Cut(denial)) => return Err(End::Over(denial)),
                Event::Wire(Incoming::Look) => self.look().await?,
                Event::Wire(Incoming::Frame(frame)) => {
                    let opened = self.wire.open(&frame)?;
                    self.take_frame(opened).await?;
                }
                Event::Wire(Incoming::Gone) => return Err(End::Gone),
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
                Event::Output(OutputEvent::Lagged) | Event::Lost => return Err(End::Lagged),
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let (is_begun, lost) = (self.profile.is_some(), self.viewer.lost());
        let output = async {
            match &mut self.output {
                Some((output, _)) => output.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // A cut goes before everything, and a flood of output hides no Ctrl-C.
            biased;
            incoming = self.wire.next() => Event::Wire(incoming),
            (number, typed) = self.input.typed() => Event::Typed(number, typed),
            happened = self.viewer.happens(), if is_begun => Event::Happened(happened),
            event = output => Event::Output(event),
            () = lost => Event::Lost,
        }
    }

    async fn look(&mut self) -> Result<(), End> {
        let now = self.wire.now();
        if let Err(PermitError::Refused(_)) = self.wire.guard().permit(Op::StreamOutput, now, || ()) {
            self.forbid_output();
        }
        self.wire.look().await
    }

    /// What is put out while the phone may not see it is not sent later.
    fn forbid_output(&mut self) {
        self.floor = self.viewer.position();
        if self.shares_floor {
            self.wire.agent.floors.raise(self.wire.credential(), self.floor);
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
                    self.wire.tell(SessionNotice::Profile { version }).await
                }
                _ => Ok(()),
            },
            Frame::Ping { answer: false, number } => self.wire.answer_ping(number).await,
            Frame::End(_) => Err(End::Left),
            _ => Ok(()),
        }
    }

    /// Does what a message asks for, if it is allowed at this moment.
    async fn take_message(&mut self) -> Result<(), End> {
        let Self { wire, viewer, input, .. } = self;
        let session = wire.session().clone();
        let number = wire.next_number();
        let done = wire
            .take(
                |message| ask::read(message, &session),
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
            )
            .await;
        match done {
            Ok(None | Some(Done::Nothing)) => Ok(()),
            Ok(Some(Done::NotTaken(why))) => self.wire.tell(SessionNotice::NotTaken { number, why }).await,
            Ok(Some(Done::Follow(point))) => self.follow(number, point).await,
            Ok(Some(Done::Request(op, method))) => self.answer(number, op, method).await,
            Err(PermitError::Refused(denial)) => self.wire.notify(self.wire.refusal(&denial)).await,
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
            return self.wire.notify(Notice { number, ..self.wire.refusal(&denial) }).await;
        }
        Ok(())
    }

    async fn answer(&mut self, number: u64, op: Op, method: Method) -> Result<(), End> {
        let json = ask::answer(&self.viewer, self.wire.session(), method).to_string();
        let answer = FromAgent::Answer { number, json: &json };
        match self.send_message(op, &answer).await? {
            Ok(()) => Ok(()),
            Err(denial) => self.wire.notify(Notice { number, ..self.wire.refusal(&denial) }).await,
        }
    }

    async fn tell_typed(&mut self, number: u64, typed: Typed) -> Result<(), End> {
        match typed {
            Typed::Taken => self.wire.tell(SessionNotice::Taken { number }).await,
            Typed::NotTaken(why) => self.wire.tell(SessionNotice::NotTaken { number, why }).await,
            Typed::Refused(denial) => self.wire.notify(Notice { number, ..self.wire.refusal(&denial) }).await,
        }
    }

    async fn tell_happened(&mut self, happened: &Happened) -> Result<(), End> {
        let Happened { kind, position, value, text } = happened;
        let event = SessionEvent { kind: *kind, position: *position, value: *value, text };
        // Who may not know of it misses nothing that it could ask for.
        self.send_message(Op::ReceiveNotifications, &FromAgent::Event(event)).await.map(drop)
    }

    /// Sends a message, or says why it was refused.
    async fn send_message(&mut self, op: Op, message: &FromAgent<'_>) -> Result<Result<(), Denial>, End> {
        let Ok(bytes) = message.to_bytes() else { return Ok(Err(Denial::Internal)) };
        self.wire.send_message(op, &bytes).await
    }
}

/// Whether the session has ended.
fn is_end(happened: &Happened) -> bool {
    happened.kind == EventKind::SessionEnded
}
