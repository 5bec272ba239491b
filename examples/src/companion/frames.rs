//! A phone's side of an admitted connection, whatever its messages are about: frames, parts of messages, pings.

use sessioncap::phone::Attached;
use sessioncap::session::{Liveness, Look};
use sessioncap::{Assembler, EndCode, Frame, Notice};

use super::{too_slow, unknown};
use crate::clock::{Clock, monotonic};
use crate::problem::{Outcome, Problem};
#[cfg(feature = "acp")]
use crate::transport::Certificate;
use crate::transport::{self, Secure, Unproven};

/// Frames over a connection. The agent waits a few seconds for the first one.
pub struct Frames {
    stream: Secure,
    #[cfg(feature = "acp")]
    certificate: Certificate,
    clock: Clock,
    liveness: Liveness,
    assembler: Assembler,
    /// The notice that is the first frame, until it is queued.
    first: Option<Notice>,
    /// How many messages were sent.
    messages: u64,
    /// Whether a frame has come.
    heard: bool,
}

impl Frames {
    /// Over a connection on which the phone was admitted; `first` goes out before everything.
    pub fn new(socket: Unproven, attached: Attached, first: Notice) -> Outcome<Self> {
        let clock = Clock::system()?;
        #[cfg(feature = "acp")]
        let (stream, certificate) = socket.prove(attached.channel);
        #[cfg(not(feature = "acp"))]
        let (stream, _) = socket.prove(attached.channel);
        Ok(Self {
            stream,
            #[cfg(feature = "acp")]
            certificate,
            liveness: Liveness::of_phone(monotonic(clock.now())),
            clock,
            assembler: Assembler::new(),
            first: Some(first),
            messages: 0,
            heard: false,
        })
    }

    /// Judges by another clock whether the agent is still there.
    pub fn set_clock(&mut self, clock: Clock) {
        self.liveness = Liveness::of_phone(monotonic(clock.now()));
        self.clock = clock;
    }

    /// The certificate that was seen below the channel.
    #[cfg(feature = "acp")]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Whether a frame has come.
    pub fn has_heard(&self) -> bool {
        self.heard
    }

    /// The number that the next message gets.
    pub fn next_number(&self) -> u64 {
        self.messages
    }

    /// The next frame, with a message in parts as one. Pings are answered. Cancel-safe. A connection on which the agent
    /// answers no ping is broken off.
    pub async fn next(&mut self) -> Outcome<Frame> {
        self.begin()?;
        loop {
            self.stream.flush().await?;
            let wait = match self.liveness.look(monotonic(self.clock.now())) {
                Look::Wait(pause) => pause,
                Look::Ping { number } => {
                    self.stream.queue(&Frame::<Vec<u8>>::Ping { answer: false, number }.to_bytes())?;
                    self.liveness.sent_ping(monotonic(self.clock.now()));
                    continue;
                }
                _ => return Err(Problem::BrokenOff),
            };
            let Ok(received) = tokio::time::timeout(wait, self.stream.receive()).await else { continue };
            let plaintext = received?.ok_or_else(unknown)?;
            self.heard = true;
            self.liveness.received(monotonic(self.clock.now()));
            match self.assembler.take(Frame::from_bytes(&plaintext)?)? {
                Some(Frame::Ping { answer: false, number }) => {
                    self.stream.queue(&Frame::<Vec<u8>>::Ping { answer: true, number }.to_bytes())?;
                }
                Some(frame) => return Ok(frame),
                None => {}
            }
        }
    }

    fn begin(&mut self) -> Outcome<()> {
        match self.first.take() {
            Some(first) => self.stream.queue(&Frame::<Vec<u8>>::Notice(first).to_bytes()),
            None => Ok(()),
        }
    }

    /// Sends a message in as many frames as it needs, and returns its number.
    pub async fn send(&mut self, message: &[u8]) -> Outcome<u64> {
        self.begin()?;
        for frame in Frame::split(message) {
            self.stream.queue(&frame.to_bytes())?;
        }
        let number = self.messages;
        self.messages = self.messages.saturating_add(1);
        let flushing = tokio::time::timeout(transport::PATIENCE, self.stream.flush());
        flushing.await.unwrap_or_else(|_| Err(too_slow()))?;
        Ok(number)
    }

    /// Ends this side only: what the agent still has to say can be read.
    pub async fn finish(&mut self) -> Outcome<()> {
        self.begin()?;
        self.stream.send(&Frame::<Vec<u8>>::End(EndCode::LEFT).to_bytes()).await
    }

    /// Leaves. The session continues.
    pub async fn leave(self) {
        self.stream.end_with(&Frame::<Vec<u8>>::End(EndCode::LEFT).to_bytes()).await;
    }
}
