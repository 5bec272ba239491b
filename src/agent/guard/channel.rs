//! The guarded channel: an encrypted channel that data can pass only under an operation (`docs/PROTOCOL.md`
//! sections 6.5 and 10).
//!
//! Each half owns its counter and its fork of the guard. The sender encrypts each frame inside a permit; the
//! receiver holds a decrypted data frame back until a permit releases it. After a cut, only end frames pass.

use core::fmt;
use core::future::Future;
use core::time::Duration;
use std::sync::Arc;

use super::incoming::{Incoming, MessageRoom};
use super::{Guard, PermitError};
use crate::agent::denial::Denial;
use crate::clock::Now;
use crate::error::Error;
use crate::id::SessionId;
use crate::limits::{MAX_DATA_LEN, MAX_MESSAGE_LEN};
use crate::op::{Action, Op};
use crate::protocol::frame::{self, EndCode, Frame, Notice};
use crate::protocol::noise::{Channel, Opener, Sealer};

/// The live connection of one phone.
///
/// [`PendingChannel::activate`](crate::agent::PendingChannel::activate) returns it, with the phone's first
/// frame waiting in the receiver. Split it for two tasks, or use both halves in one.
#[derive(Debug)]
pub struct GuardedChannel {
    /// Sends to the phone.
    pub sender: GuardedSender,
    /// Receives from the phone.
    pub receiver: GuardedReceiver,
}

impl GuardedChannel {
    pub(crate) fn new(
        guard: Guard,
        channel: Channel,
        first: FirstFrame,
        room: Arc<MessageRoom>,
        now: Now,
    ) -> Self {
        let (sealer, opener) = channel.split();
        let sender = GuardedSender { guard: guard.fork(), sealer, plaintext: Vec::new() };
        let FirstFrame { plaintext, kind } = first;
        let mut receiver = GuardedReceiver {
            guard,
            opener,
            plaintext,
            waiting: Waiting::Nothing,
            incoming: Incoming::new(room),
            is_first: true,
            frames: 0,
            last_opened: now,
        };
        receiver.collect(now);
        if kind != Frame::Data(()) {
            receiver.waiting = Waiting::Control(kind);
        }
        Self { sender, receiver }
    }

    /// Returns the one session of this connection.
    #[must_use]
    pub fn session(&self) -> &SessionId {
        self.receiver.guard.session()
    }

    /// Splits the channel into its two directions, for two tasks.
    #[must_use]
    pub fn split(self) -> (GuardedSender, GuardedReceiver) {
        (self.sender, self.receiver)
    }
}

/// Methods that both halves have.
macro_rules! half {
    ($half:ident) => {
        impl $half {
            /// Returns the guard, which knows the session and the allowed operations.
            #[must_use]
            pub fn guard(&self) -> &Guard {
                &self.guard
            }

            /// See [`Guard::cut`].
            pub fn cut(&self) -> impl Future<Output = Denial> + Send + Sync + Unpin + use<> {
                self.guard.cut()
            }

            /// See [`Guard::settled`].
            pub fn settled(&self) -> impl Future<Output = ()> + Send + Sync + Unpin + use<> {
                self.guard.settled()
            }

            /// Repeats `attempt` after each settling while the gate is stale.
            async fn retry_while_stale<T>(
                &mut self,
                mut attempt: impl FnMut(&mut Self) -> Result<T, PermitError>,
            ) -> Result<T, PermitError> {
                loop {
                    match attempt(self) {
                        Err(PermitError::Stale) => self.guard.settled().await,
                        outcome => return outcome,
                    }
                }
            }
        }

        impl fmt::Debug for $half {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($half)).field("guard", &self.guard).finish_non_exhaustive()
            }
        }
    };
}

half!(GuardedSender);
half!(GuardedReceiver);

/// The sending half of a [`GuardedChannel`]. Send its frames in the order in which they were encrypted, each
/// as one binary WebSocket message.
pub struct GuardedSender {
    guard: Guard,
    sealer: Sealer,
    plaintext: Vec<u8>,
}

impl GuardedSender {
    /// Checks whether the connection may go on. Call it when [`Self::time_left`] has elapsed.
    ///
    /// # Errors
    /// As [`Guard::check`].
    pub fn check(&mut self, now: Now) -> Result<(), PermitError> {
        self.guard.check(now)
    }

    /// See [`Guard::time_left`].
    #[must_use]
    pub fn time_left(&self, now: Now) -> Duration {
        self.guard.time_left(now)
    }

    /// Encrypts a data frame under a permit for `op`. Costs a permit and one encryption.
    ///
    /// # Errors
    /// [`PermitError`], with [`PermitError::Refused`] and [`Denial::FrameTooLong`] if the data does not fit
    /// one frame. Nothing was encrypted.
    pub fn try_send(&mut self, op: Op, data: &[u8], now: Now) -> Result<Vec<u8>, PermitError> {
        self.try_send_with(Action::Session(op), now, |plaintext| plaintext.extend_from_slice(data))
            .map(|(frame, ())| frame)
    }

    /// Does the same as [`GuardedSender::try_send`] with data that `write` appends to the buffer inside the
    /// permit. `write` must not change what the buffer already holds, block, or call the gate. Use it if
    /// reading the session itself needs the permit.
    ///
    /// # Errors
    /// As [`GuardedSender::try_send`]. [`Denial::FrameTooLong`] is returned after `write` was called; none of
    /// its data is sent.
    pub fn try_send_with<T>(
        &mut self,
        action: Action,
        now: Now,
        write: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> Result<(Vec<u8>, T), PermitError> {
        let Self { guard, sealer, plaintext } = self;
        let sealed = guard.permit_action(action, now, || {
            frame::begin_data(plaintext);
            let written = write(plaintext);
            // If `write` changed the head byte, nothing is sent.
            let is_data = matches!(frame::read(plaintext), Ok(Frame::Data(_)));
            let sealed = if is_data { sealer.seal(plaintext) } else { Err(Error::MessageMalformed) };
            sealed.map(|frame| (frame, written))
        });
        plaintext.clear();
        sealed?.map_err(|error| sending_failed(&error))
    }

    /// Does the same as [`GuardedSender::try_send`], but waits for the next settling and retries if the gate
    /// is stale. Works with any executor. Dropping the future while it waits encrypts nothing.
    ///
    /// # Errors
    /// [`PermitError::Refused`] or [`PermitError::Over`], as [`GuardedSender::try_send`].
    pub async fn send(
        &mut self,
        op: Op,
        data: &[u8],
        mut clock: impl FnMut() -> Now,
    ) -> Result<Vec<u8>, PermitError> {
        self.retry_while_stale(|half| half.try_send(op, data, clock())).await
    }

    /// Encrypts a message of up to 1 MiB in as many frames as it needs, each under its own permit for `op`. Costs a
    /// permit and one encryption for each 65,518 bytes; `clock` is read once for each. Does not wait.
    ///
    /// The outcome is in what is returned, because frames that were encrypted have to be sent even if a later one
    /// was refused (`docs/PROTOCOL.md` section 6.5).
    pub fn try_send_long(&mut self, op: Op, message: &[u8], mut clock: impl FnMut() -> Now) -> LongMessage {
        let mut frames = Vec::new();
        if message.len() > MAX_MESSAGE_LEN {
            let denial = Denial::MessageTooLong { max: MAX_MESSAGE_LEN };
            return LongMessage { frames, outcome: Err(PermitError::Refused(denial)) };
        }
        for frame in Frame::split(message) {
            let now = clock();
            let Self { guard, sealer, .. } = self;
            let sealed = guard.permit(op, now, || sealer.seal(&frame.to_bytes()));
            match sealed.and_then(|sealed| sealed.map_err(|error| sending_failed(&error))) {
                Ok(sealed) => frames.push(sealed),
                Err(error) => {
                    // The next data frame would complete what was begun. A discard has no content, so that it needs
                    // no permit; after a cut only the end passes.
                    let goes_on = !error.is_over() && !frames.is_empty();
                    if goes_on && !matches!(guard.check(now), Err(PermitError::Over(_))) {
                        frames.extend(sealer.seal(&Frame::<Vec<u8>>::Discard.to_bytes()).ok());
                    }
                    return LongMessage { frames, outcome: Err(error) };
                }
            }
        }
        LongMessage { frames, outcome: Ok(()) }
    }

    /// Does the same as [`GuardedSender::try_send_long`], but waits for the next settling if the gate is stale
    /// before anything was encrypted. Works with any executor. Dropping the future while it waits encrypts nothing.
    pub async fn send_long(&mut self, op: Op, message: &[u8], mut clock: impl FnMut() -> Now) -> LongMessage {
        loop {
            let sent = self.try_send_long(op, message, &mut clock);
            match (&sent.outcome, sent.frames.is_empty()) {
                (Err(PermitError::Stale), true) => self.guard.settled().await,
                _ => return sent,
            }
        }
    }

    /// Encrypts a notice. It needs no operation, only a connection that is not over.
    ///
    /// # Errors
    /// [`PermitError::Stale`] or [`PermitError::Over`].
    pub fn try_notice(&mut self, notice: Notice, now: Now) -> Result<Vec<u8>, PermitError> {
        self.try_control(&Frame::Notice(notice), now)
    }

    /// As [`GuardedSender::try_notice`]; a notice that is refused as stale waits for the next settling and is
    /// asked about again. Works on any executor.
    ///
    /// # Errors
    /// [`PermitError::Over`].
    pub async fn notice(
        &mut self,
        notice: Notice,
        mut clock: impl FnMut() -> Now,
    ) -> Result<Vec<u8>, PermitError> {
        self.retry_while_stale(|half| half.try_notice(notice, clock())).await
    }

    /// As [`GuardedSender::try_ping`], and waits like [`GuardedSender::notice`].
    ///
    /// # Errors
    /// [`PermitError::Over`].
    pub async fn ping(
        &mut self,
        answer: bool,
        number: u64,
        mut clock: impl FnMut() -> Now,
    ) -> Result<Vec<u8>, PermitError> {
        self.retry_while_stale(|half| half.try_ping(answer, number, clock())).await
    }

    /// Encrypts a ping, or the answer to a ping with the same number. Answering the phone's pings is the agent's
    /// task. If a phone sends nothing for ten seconds after a ping, a new connection of the same phone may replace
    /// this one.
    ///
    /// # Errors
    /// [`PermitError::Stale`] or [`PermitError::Over`].
    pub fn try_ping(&mut self, answer: bool, number: u64, now: Now) -> Result<Vec<u8>, PermitError> {
        let frame = self.try_control(&Frame::Ping { answer, number }, now)?;
        if !answer {
            self.guard.ping(now);
        }
        Ok(frame)
    }

    fn try_control(&mut self, frame: &Frame, now: Now) -> Result<Vec<u8>, PermitError> {
        let plaintext = frame.to_bytes();
        let Self { guard, sealer, .. } = self;
        guard.permit_control(now, || sealer.seal(&plaintext))?.map_err(|error| sending_failed(&error))
    }

    /// Encrypts the end frame, the last frame in this direction. This also works after a cut. Returns `None`
    /// if the channel can no longer encrypt.
    #[must_use = "send it, so that the phone knows an end from a lost connection"]
    pub fn end(mut self, code: EndCode) -> Option<Vec<u8>> {
        self.sealer.seal(&Frame::<Vec<u8>>::End(code).to_bytes()).ok()
    }
}

/// The frames of one message, and whether they are the whole message.
#[derive(Debug)]
#[must_use = "send the frames: each has used a number of the channel"]
pub struct LongMessage {
    /// What to send, in this order, each as one binary WebSocket message, before any other frame of the sender.
    pub frames: Vec<Vec<u8>>,
    /// Whether the phone gets the message.
    ///
    /// # Errors
    /// [`PermitError::Refused`] or [`PermitError::Stale`]: the last frame, if there is one, tells the phone to
    /// discard the others, and the connection continues. [`PermitError::Over`]: nothing more was encrypted after
    /// `frames`; send the end frame after them.
    pub outcome: Result<(), PermitError>,
}

fn sending_failed(error: &Error) -> PermitError {
    match error {
        Error::FrameTooLong { .. } => PermitError::Refused(Denial::FrameTooLong { max: MAX_DATA_LEN }),
        Error::MessageMalformed => PermitError::Refused(Denial::Internal),
        _ => PermitError::Over(Denial::FrameUnreadable),
    }
}

/// What the receiver holds back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Nothing,
    /// A message of one frame, in the plaintext.
    Frame,
    /// A message that was collected from its parts, or refused meanwhile.
    Message,
    /// A first frame that is not data.
    Control(Frame<()>),
}

impl Waiting {
    fn is_data(self) -> bool {
        matches!(self, Self::Frame | Self::Message)
    }
}

/// The kind of a decrypted frame.
fn kind(plaintext: &[u8]) -> Result<Frame<()>, PermitError> {
    match frame::read(plaintext) {
        Ok(frame) => Ok(frame.map(|_| ())),
        Err(_) => Err(PermitError::Over(Denial::FrameUnreadable)),
    }
}

/// The phone's first frame, decrypted and parsed.
pub(crate) struct FirstFrame {
    plaintext: Vec<u8>,
    kind: Frame<()>,
}

impl FirstFrame {
    pub(crate) fn read(plaintext: Vec<u8>) -> Result<Self, PermitError> {
        kind(&plaintext).map(|kind| Self { plaintext, kind })
    }
}

/// The receiving half of a [`GuardedChannel`]. It holds back at most one message.
///
/// A message can come in several frames. The receiver collects its parts, at most 1 MiB for a connection and
/// [`GateConfig::with_message_room`](crate::agent::GateConfig::with_message_room) for the agent, and releases the
/// whole message with its last frame, as it does a message of one frame. If the message was too long, too slow
/// (30 seconds) or found no room, its parts are dropped at once, the rest is skipped, and receiving it is refused.
///
/// Take the first frame with [`GuardedReceiver::first`] and decrypt each further one with
/// [`GuardedReceiver::open`]. Release data with [`GuardedReceiver::try_receive`] or another receiving method:
///
/// ```compile_fail
/// fn without_an_operation(receiver: &mut sessioncap::agent::GuardedReceiver, frame: &[u8], now: sessioncap::Now) {
///     if let Ok(sessioncap::Frame::Data(data)) = receiver.open(frame, now) {
///         let _: &[u8] = data;
///     }
/// }
/// ```
pub struct GuardedReceiver {
    guard: Guard,
    opener: Opener,
    plaintext: Vec<u8>,
    waiting: Waiting,
    incoming: Incoming,
    /// Whether nothing was opened after the first frame.
    is_first: bool,
    /// The number of messages received, each counted with its data frame.
    frames: u64,
    last_opened: Now,
}

impl GuardedReceiver {
    /// Returns the kind of the phone's first frame, once; data in it waits to be received.
    pub fn first(&mut self) -> Option<Frame<()>> {
        match self.waiting {
            Waiting::Control(frame) => {
                self.waiting = Waiting::Nothing;
                Some(frame)
            }
            Waiting::Frame if self.is_first => Some(Frame::Data(())),
            Waiting::Frame | Waiting::Message | Waiting::Nothing => None,
        }
    }

    /// Checks whether the connection may go on, and discards an unfinished message that is too old. Call it when
    /// [`Self::time_left`] has elapsed.
    ///
    /// # Errors
    /// As [`Guard::check`].
    pub fn check(&mut self, now: Now) -> Result<(), PermitError> {
        let checked = self.guard.check(now);
        if let Err(PermitError::Over(_)) = checked {
            self.incoming.clear();
            if self.waiting == Waiting::Message {
                self.waiting = Waiting::Nothing;
            }
        } else if self.waiting != Waiting::Message {
            self.incoming.expire(now);
        }
        checked
    }

    /// Returns how long from `now` [`Self::check`] is due: see [`Guard::time_left`]; earlier if an unfinished
    /// message becomes too old.
    #[must_use]
    pub fn time_left(&self, now: Now) -> Duration {
        let of_message = self.incoming.time_left(now).filter(|_| self.waiting != Waiting::Message);
        self.guard.time_left(now).min(of_message.unwrap_or(Duration::MAX))
    }

    /// Decrypts the next frame and returns its kind. Data waits to be received; a part is kept until the data frame
    /// that completes its message. Costs one decryption.
    ///
    /// # Errors
    /// [`PermitError::Refused`] with [`Denial::FrameWaiting`] if a message still waits; `frame` was not
    /// read. A first frame that is not data and was not taken with [`GuardedReceiver::first`] is dropped.
    /// [`PermitError::Over`] with [`Denial::FrameUnreadable`] if `frame` does not decrypt or is malformed (section
    /// 6.5), or with the reason why the connection is over; after that, only the phone's end frame is accepted, and
    /// an unfinished message is dropped.
    pub fn open(&mut self, frame: &[u8], now: Now) -> Result<Frame<()>, PermitError> {
        if self.waiting.is_data() {
            return Err(PermitError::Refused(Denial::FrameWaiting));
        }
        (self.waiting, self.is_first) = (Waiting::Nothing, false);
        let opened = self.opener.open_into(frame, &mut self.plaintext);
        opened.map_err(|_| PermitError::Over(Denial::FrameUnreadable))?;
        let kind = kind(&self.plaintext)?;
        if let Err(over @ PermitError::Over(_)) = self.check(now)
            && !matches!(kind, Frame::End(_))
        {
            return Err(over);
        }
        self.last_opened = now;
        self.guard.hear(now);
        self.collect(now);
        Ok(kind)
    }

    /// Puts what the plaintext holds where it waits.
    fn collect(&mut self, now: Now) {
        match frame::read(&self.plaintext) {
            Ok(Frame::Part(bytes)) => self.incoming.part(bytes, now),
            Ok(Frame::Discard) => self.incoming.clear(),
            Ok(Frame::Data(bytes)) if self.incoming.finish(bytes, now) => self.waiting = Waiting::Message,
            Ok(Frame::Data(_)) => self.waiting = Waiting::Frame,
            Ok(Frame::Notice(_) | Frame::Ping { .. } | Frame::End(_)) | Err(_) => {}
        }
    }

    /// Releases the waiting message under a permit for `op`. `use_it` hands the bytes to a queue or a
    /// non-blocking write; it must not block or call the gate. Returns `None` if no message waits.
    ///
    /// # Errors
    /// [`PermitError::Stale`] if the gate is stale; the message keeps waiting. After any other [`PermitError`],
    /// the whole message is dropped. [`PermitError::Refused`] with [`Denial::MessageTooLong`],
    /// [`Denial::MessageTooSlow`] or [`Denial::NoRoomForMessage`] if its parts were discarded;
    /// [`GuardedReceiver::notice`] tells the phone.
    pub fn try_receive<T>(
        &mut self,
        op: Op,
        now: Now,
        use_it: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, PermitError> {
        let Self { guard, plaintext, waiting, incoming, .. } = self;
        let outcome = match waiting_message(*waiting, plaintext, incoming) {
            Some(Ok(message)) => guard.permit(op, now, || use_it(message)),
            Some(Err(denial)) => guard.check(now).and(Err(PermitError::Refused(denial))),
            None => return Ok(None),
        };
        self.settle_frame(outcome)
    }

    /// Does the same as [`GuardedReceiver::try_receive`] for data that itself determines the operation.
    /// `read` parses it before the permit and must have no other effect. It returns the action and what it
    /// parsed, which `use_it` receives under the permit, or the reason for refusing the data. A privilege is
    /// always refused.
    ///
    /// # Errors
    /// As [`GuardedReceiver::try_receive`]. If `read` refuses the data, [`PermitError::Refused`] with its
    /// reason, unless the connection is over.
    pub fn try_receive_as<M, T>(
        &mut self,
        read: impl FnOnce(&[u8]) -> Result<(Action, M), Denial>,
        now: Now,
        use_it: impl FnOnce(M) -> T,
    ) -> Result<Option<T>, PermitError> {
        let Self { guard, plaintext, waiting, incoming, .. } = self;
        let Some(message) = waiting_message(*waiting, plaintext, incoming) else { return Ok(None) };
        let outcome = match message.and_then(read) {
            Ok((action, message)) => guard.permit_action(action, now, || use_it(message)),
            Err(denial) => guard.refuse(denial, now),
        };
        self.settle_frame(outcome)
    }

    /// Drops the waiting message unless the gate was stale.
    fn settle_frame<T>(&mut self, outcome: Result<T, PermitError>) -> Result<Option<T>, PermitError> {
        if !matches!(outcome, Err(PermitError::Stale)) {
            self.waiting = Waiting::Nothing;
            self.plaintext.clear();
            self.incoming.clear();
            self.frames = self.frames.saturating_add(1);
        }
        outcome.map(Some)
    }

    /// Does the same as [`GuardedReceiver::try_receive`], but waits for the next settling and retries if the
    /// gate is stale. Works with any executor. If the future is dropped while it waits, the frame keeps
    /// waiting.
    ///
    /// # Errors
    /// [`PermitError::Refused`] or [`PermitError::Over`], as [`GuardedReceiver::try_receive`].
    pub async fn receive<T>(
        &mut self,
        op: Op,
        mut clock: impl FnMut() -> Now,
        mut use_it: impl FnMut(&[u8]) -> T,
    ) -> Result<Option<T>, PermitError> {
        self.retry_while_stale(|half| half.try_receive(op, clock(), &mut use_it)).await
    }

    /// Does the same as [`GuardedReceiver::try_receive_as`], but waits for the next settling and retries if
    /// the gate is stale. Works with any executor. If the future is dropped while it waits, the frame keeps
    /// waiting.
    ///
    /// # Errors
    /// [`PermitError::Refused`] or [`PermitError::Over`], as [`GuardedReceiver::try_receive_as`].
    pub async fn receive_as<M, T>(
        &mut self,
        mut read: impl FnMut(&[u8]) -> Result<(Action, M), Denial>,
        mut clock: impl FnMut() -> Now,
        mut use_it: impl FnMut(M) -> T,
    ) -> Result<Option<T>, PermitError> {
        self.retry_while_stale(|half| half.try_receive_as(&mut read, clock(), &mut use_it)).await
    }

    /// Returns the notice that tells the phone why the last message was refused.
    #[must_use]
    pub fn notice(&self, denial: &Denial) -> Notice {
        let (code, detail) = denial.notice();
        Notice { code, detail, number: self.frames.saturating_sub(1) }
    }

    /// Returns when the last frame was opened, to judge whether the phone is still there.
    #[must_use]
    pub fn last_opened(&self) -> Now {
        self.last_opened
    }
}

/// The message that waits, or why it was discarded. `None` if none waits.
fn waiting_message<'a>(
    waiting: Waiting,
    plaintext: &'a [u8],
    incoming: &'a Incoming,
) -> Option<Result<&'a [u8], Denial>> {
    match (waiting, frame::read(plaintext)) {
        (Waiting::Message, _) => Some(incoming.message()),
        (Waiting::Frame, Ok(Frame::Data(data))) => Some(Ok(data)),
        _ => None,
    }
}
