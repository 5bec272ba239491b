//! One connection of a phone, whatever its messages are about: frames through the guarded channel, liveness, and the
//! last words.

use std::sync::Arc;

use futures_util::SinkExt;
use sessioncap::agent::{Denial, Guard, GuardedChannel, GuardedReceiver, GuardedSender, PermitError};
use sessioncap::session::{Liveness, Look, SessionNotice};
use sessioncap::{Action, CredentialId, Frame, Notice, Now, Op, OpSet, SessionId};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::end::End;
use crate::agent::Agent;
use crate::clock::{Clock, monotonic};
use crate::transport::{self, Socket};

/// A phone's connection, from its activation on.
pub struct Wire {
    pub(super) agent: Arc<Agent>,
    socket: Socket,
    sender: GuardedSender,
    receiver: GuardedReceiver,
    /// Looked at when no output is sent.
    guard: Guard,
    /// The guard's. No other id is ever passed on.
    session: SessionId,
    liveness: Liveness,
    /// How many messages have come.
    messages: u64,
    /// Whether it was logged that the phone does not read.
    slow: bool,
}

/// An event of a connection.
pub enum Incoming {
    /// The connection is over.
    Cut(Denial),
    /// About a second has passed.
    Look,
    /// A frame has come.
    Frame(Vec<u8>),
    /// The phone is gone.
    Gone,
}

impl Wire {
    pub(super) fn new(agent: &Arc<Agent>, socket: Socket, channel: GuardedChannel) -> Self {
        let (sender, receiver) = channel.split();
        let guard = receiver.guard().fork();
        Self {
            agent: Arc::clone(agent),
            socket,
            sender,
            session: guard.session().clone(),
            guard,
            liveness: Liveness::of_agent(monotonic(agent.now())),
            receiver,
            messages: 0,
            slow: false,
        }
    }

    /// The credential's session.
    pub fn session(&self) -> &SessionId {
        &self.session
    }

    /// The credential.
    pub fn credential(&self) -> CredentialId {
        self.guard.credential()
    }

    /// The operations that were granted to this connection.
    pub fn ops(&self) -> OpSet {
        self.guard.ops()
    }

    /// Another guard of the same connection.
    pub fn guard(&self) -> Guard {
        self.guard.fork()
    }

    /// A reader of the agent's clock.
    pub fn clock(&self) -> Clock {
        self.agent.clock.clone()
    }

    /// The agent's time.
    pub fn now(&self) -> Now {
        self.agent.now()
    }

    /// Writes a line to the agent's log.
    pub fn log(&self, line: impl Into<String>) {
        self.agent.log(line);
    }

    /// The frame with which the phone has proven that it is there.
    pub fn first(&mut self) -> Option<Frame<()>> {
        self.receiver.first()
    }

    /// The next event. A cut goes before everything. Cancel-safe.
    pub async fn next(&mut self) -> Incoming {
        let time_left = self.receiver.time_left(self.agent.now()).min(self.agent.look);
        tokio::select! {
            biased;
            denial = self.receiver.cut() => Incoming::Cut(denial),
            () = tokio::time::sleep(time_left) => Incoming::Look,
            frame = self.agent.receive(&mut self.socket) => frame.map_or(Incoming::Gone, Incoming::Frame),
        }
    }

    /// Decrypts a frame. Data waits for [`Wire::take`].
    pub fn open(&mut self, frame: &[u8]) -> Result<Frame<()>, End> {
        let now = self.agent.now();
        let opened = self.receiver.open(frame, now).map_err(|error| match Denial::from(error) {
            // From outside, this is a connection that is gone.
            Denial::FrameUnreadable => End::Gone,
            denial => End::Over(denial),
        })?;
        self.liveness.received(monotonic(now));
        Ok(opened)
    }

    /// The number of the message that waits, counted from 0.
    pub fn next_number(&self) -> u64 {
        self.messages
    }

    /// Reads the message that waits, and runs `use_it` inside the permit of what it asks for.
    pub async fn take<M, T>(
        &mut self,
        read: impl FnMut(&[u8]) -> Result<(Action, M), Denial>,
        use_it: impl FnMut(M) -> T,
    ) -> Result<Option<T>, PermitError> {
        self.messages = self.messages.saturating_add(1);
        let Self { agent, receiver, .. } = self;
        receiver.receive_as(read, || agent.now(), use_it).await
    }

    /// About once a second: ends a connection that is over or silent, and pings.
    pub async fn look(&mut self) -> Result<(), End> {
        let now = self.agent.now();
        match self.receiver.check(now) {
            // Nothing is to be sent now; whoever sends waits.
            Ok(()) | Err(PermitError::Stale) => {}
            Err(over) => return Err(over.into()),
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

    /// Answers a ping.
    pub async fn answer_ping(&mut self, number: u64) -> Result<(), End> {
        let frame = self.sender.ping(true, number, || self.agent.now()).await?;
        self.send(frame).await
    }

    /// The notice that tells the phone why its last message was refused.
    pub fn refusal(&self, denial: &Denial) -> Notice {
        self.receiver.notice(denial)
    }

    /// Sends a message in as many frames as it needs, or says why it was refused.
    pub async fn send_message(&mut self, op: Op, bytes: &[u8]) -> Result<Result<(), Denial>, End> {
        loop {
            let sent = self.sender.send_long(op, bytes, || self.agent.now()).await;
            for frame in sent.frames {
                self.send(frame).await?;
            }
            match sent.outcome {
                Ok(()) => return Ok(Ok(())),
                Err(PermitError::Refused(denial)) => return Ok(Err(denial)),
                // The parts that were sent are discarded, and the message goes again as a whole.
                Err(PermitError::Stale) => {}
                Err(over) => return Err(over.into()),
            }
        }
    }

    pub(super) async fn tell(&mut self, notice: SessionNotice) -> Result<(), End> {
        self.notify(notice.to_notice()).await
    }

    /// Sends a notice.
    pub async fn notify(&mut self, notice: Notice) -> Result<(), End> {
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

    /// Says why, ends the agent's side, and closes.
    pub async fn say_goodbye(self, end: &End) {
        let Self { socket, sender, .. } = self;
        match end.code() {
            Some(code) => transport::send_last(socket, sender.end(code), CloseCode::Normal).await,
            // Whatever it has not taken yet goes as well.
            None => drop(socket.get_ref().tcp().set_zero_linger()),
        }
    }
}
