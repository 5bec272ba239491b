//! The guarded channel: an encrypted channel whose only way in or out is an operation
//! (`docs/PROTOCOL.md` sections 6.5 and 10).
//!
//! The halves own their counters and their forks of the guard. A frame is encrypted inside a permit, and a
//! decrypted data frame is held back until a permit lets it out. After a cut only the end passes.

use core::fmt;

use core::future::Future;

use super::{Guard, PermitError};
use crate::agent::denial::Denial;
use crate::clock::Now;
use crate::error::Error;
use crate::limits::MAX_DATA_LEN;
use crate::op::{Action, Op};
use crate::protocol::frame::{self, EndCode, Frame, Notice};
use crate::protocol::noise::{Channel, Opener, Sealer};

/// The live connection of one phone.
///
/// [`PendingChannel::activate`](crate::agent::PendingChannel::activate) makes one, with the phone's first frame
/// waiting in the receiver. Split it for two tasks, or use both halves in one.
#[derive(Debug)]
pub struct GuardedChannel {
    /// To the phone.
    pub sender: GuardedSender,
    /// From the phone.
    pub receiver: GuardedReceiver,
}

impl GuardedChannel {
    pub(crate) fn new(guard: Guard, channel: Channel, first: FirstFrame, now: Now) -> Self {
        let (sealer, opener) = channel.split();
        let sender = GuardedSender { guard: guard.fork(), sealer, plaintext: Vec::new() };
        let FirstFrame { plaintext, waiting } = first;
        let receiver = GuardedReceiver { guard, opener, plaintext, waiting, frames: 0, last_opened: now };
        Self { sender, receiver }
    }

    /// The two directions, for two tasks.
    #[must_use]
    pub fn split(self) -> (GuardedSender, GuardedReceiver) {
        (self.sender, self.receiver)
    }
}

/// What both halves are asked for.
macro_rules! half {
    ($half:ident) => {
        impl $half {
            /// What the connection may do, and for which session.
            #[must_use]
            pub fn guard(&self) -> &Guard {
                &self.guard
            }

            /// Whether the connection may go on at all. Ask when [`Self::time_left`] has run out.
            ///
            /// # Errors
            /// [`PermitError::Over`] with why it is over, or [`PermitError::Stale`].
            pub fn check(&mut self, now: Now) -> Result<(), PermitError> {
                self.guard.check(now)
            }

            /// As [`Guard::time_left`].
            #[must_use]
            pub fn time_left(&self, now: Now) -> core::time::Duration {
                self.guard.time_left(now)
            }

            /// As [`Guard::cut`].
            pub fn cut(&self) -> impl Future<Output = Denial> + Send + Sync + Unpin + use<> {
                self.guard.cut()
            }

            /// As [`Guard::settled`].
            pub fn settled(&self) -> impl Future<Output = ()> + Send + Sync + Unpin + use<> {
                self.guard.settled()
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

/// The half of a [`GuardedChannel`] that sends. Send what it gives in the order in which it gives it, each as
/// one binary WebSocket message.
pub struct GuardedSender {
    guard: Guard,
    sealer: Sealer,
    plaintext: Vec<u8>,
}

impl GuardedSender {
    /// Encrypts a data frame under a permit for `op`, now. Costs a permit and one encryption.
    ///
    /// # Errors
    /// [`PermitError::Refused`], also with [`Denial::FrameTooLong`]; [`PermitError::Stale`]; [`PermitError::Over`].
    /// Nothing was encrypted.
    pub fn try_send(&mut self, op: Op, data: &[u8], now: Now) -> Result<Vec<u8>, PermitError> {
        self.try_send_with(Action::Session(op), now, |plaintext| plaintext.extend_from_slice(data))
            .map(|(frame, ())| frame)
    }

    /// As [`GuardedSender::try_send`], with data that `write` makes inside the permit: it appends to the buffer,
    /// must leave what is in it, must not block, and must not call the gate. Use it where reading the session is
    /// itself what has to be permitted.
    ///
    /// # Errors
    /// As [`GuardedSender::try_send`]. [`Denial::FrameTooLong`] comes after `write` was called; nothing of it
    /// leaves.
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
            // Whatever stands in the head's place now, a data frame leaves or none.
            let is_data = matches!(frame::read(plaintext), Ok(Frame::Data(_)));
            let sealed = if is_data { sealer.seal(plaintext) } else { Err(Error::MessageMalformed) };
            sealed.map(|frame| (frame, written))
        });
        plaintext.clear();
        sealed?.map_err(|error| sending_failed(&error))
    }

    /// As [`GuardedSender::try_send`]; a frame that is refused as stale waits for the next settling and is asked
    /// about again. Works on any executor. If it is dropped while it waits, nothing was encrypted.
    ///
    /// # Errors
    /// [`PermitError::Refused`] or [`PermitError::Over`].
    pub async fn send(
        &mut self,
        op: Op,
        data: &[u8],
        mut clock: impl FnMut() -> Now,
    ) -> Result<Vec<u8>, PermitError> {
        loop {
            match self.try_send(op, data, clock()) {
                Err(PermitError::Stale) => self.guard.settled().await,
                outcome => return outcome,
            }
        }
    }

    /// Encrypts a notice. It needs no operation, and a connection that is not over.
    ///
    /// # Errors
    /// [`PermitError::Stale`] and [`PermitError::Over`].
    pub fn try_notice(&mut self, notice: Notice, now: Now) -> Result<Vec<u8>, PermitError> {
        self.try_control(&Frame::Notice(notice), now)
    }

    /// Encrypts a ping, or the answer to one with the same number. A phone that sends nothing for ten seconds after
    /// a ping may be gone: its connection does not keep another one of the same phone out, which takes its place.
    ///
    /// # Errors
    /// [`PermitError::Stale`] and [`PermitError::Over`].
    pub fn try_ping(&mut self, answer: bool, number: u64, now: Now) -> Result<Vec<u8>, PermitError> {
        let frame = self.try_control(&Frame::Ping { answer, number }, now)?;
        if !answer {
            self.guard.ping(now);
        }
        Ok(frame)
    }

    fn try_control(&mut self, frame: &Frame<()>, now: Now) -> Result<Vec<u8>, PermitError> {
        let plaintext = frame.control_bytes().unwrap_or_default();
        let Self { guard, sealer, .. } = self;
        guard.permit_control(now, || sealer.seal(&plaintext))?.map_err(|error| sending_failed(&error))
    }

    /// Encrypts the end, the last frame of this side. It passes after a cut as well. `None` if nothing can be
    /// encrypted any more.
    #[must_use = "send it, so that the phone knows an end from a lost connection"]
    pub fn end(mut self, code: EndCode) -> Option<Vec<u8>> {
        let plaintext = Frame::End(code).control_bytes()?;
        self.sealer.seal(&plaintext).ok()
    }
}

fn sending_failed(error: &Error) -> PermitError {
    match error {
        Error::FrameTooLong { .. } => PermitError::Refused(Denial::FrameTooLong { max: MAX_DATA_LEN }),
        Error::MessageMalformed => PermitError::Refused(Denial::Internal),
        _ => PermitError::Over(Denial::FrameUnreadable),
    }
}

/// What a receiver holds back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Nothing,
    Data,
    /// A first frame that is not data.
    Control(Frame<()>),
}

impl Waiting {
    fn of(plaintext: &[u8]) -> Result<Self, PermitError> {
        match frame::read(plaintext) {
            Ok(Frame::Data(_)) => Ok(Self::Data),
            Ok(Frame::Notice(notice)) => Ok(Self::Control(Frame::Notice(notice))),
            Ok(Frame::Ping { answer, number }) => Ok(Self::Control(Frame::Ping { answer, number })),
            Ok(Frame::End(code)) => Ok(Self::Control(Frame::End(code))),
            Err(_) => Err(PermitError::Over(Denial::FrameUnreadable)),
        }
    }
}

/// The phone's first frame, read by its head.
pub(crate) struct FirstFrame {
    plaintext: Vec<u8>,
    waiting: Waiting,
}

impl FirstFrame {
    pub(crate) fn read(plaintext: Vec<u8>) -> Result<Self, PermitError> {
        Waiting::of(&plaintext).map(|waiting| Self { plaintext, waiting })
    }
}

/// The half of a [`GuardedChannel`] that receives. It holds at most one data frame back.
///
/// Take the first frame with [`GuardedReceiver::first`], decrypt each further one with
/// [`GuardedReceiver::open`], and let data out with [`GuardedReceiver::try_receive`] or one of its kin:
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
    /// How many data frames there were.
    frames: u64,
    last_opened: Now,
}

impl GuardedReceiver {
    /// The kind of the phone's first frame; data waits to be received. Afterwards `None`.
    pub fn first(&mut self) -> Option<Frame<()>> {
        match self.waiting {
            Waiting::Control(frame) => {
                self.waiting = Waiting::Nothing;
                Some(frame)
            }
            Waiting::Data if self.frames == 0 => Some(Frame::Data(())),
            Waiting::Data | Waiting::Nothing => None,
        }
    }

    /// Decrypts the next frame. Data waits to be received; only its kind is told. Costs one decryption.
    ///
    /// # Errors
    /// [`PermitError::Refused`] with [`Denial::FrameWaiting`] if a data frame still waits; `frame` was not looked
    /// at. [`PermitError::Over`] with [`Denial::FrameUnreadable`] for what does not decrypt or is no frame of
    /// section 6.5, or with why the connection is over: then only the phone's end still passes.
    pub fn open(&mut self, frame: &[u8], now: Now) -> Result<Frame<()>, PermitError> {
        if self.waiting != Waiting::Nothing {
            return Err(PermitError::Refused(Denial::FrameWaiting));
        }
        let opened = self.opener.open_into(frame, &mut self.plaintext);
        opened.map_err(|_| PermitError::Over(Denial::FrameUnreadable))?;
        let waiting = Waiting::of(&self.plaintext)?;
        if let (Err(over @ PermitError::Over(_)), false) =
            (self.guard.check(now), matches!(waiting, Waiting::Control(Frame::End(_))))
        {
            return Err(over);
        }
        self.last_opened = now;
        self.guard.hear(now);
        match waiting {
            Waiting::Control(frame) => Ok(frame),
            Waiting::Data | Waiting::Nothing => {
                self.waiting = Waiting::Data;
                Ok(Frame::Data(()))
            }
        }
    }

    /// Lets the waiting data frame out under a permit for `op`, now. `use_it` hands the bytes to a queue or to a
    /// write that does not wait; it must not block and must not call the gate. `None` if no data waits.
    ///
    /// # Errors
    /// [`PermitError::Stale`]: the frame goes on waiting. After any other error it is gone.
    pub fn try_receive<T>(
        &mut self,
        op: Op,
        now: Now,
        use_it: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, PermitError> {
        let Self { guard, plaintext, waiting, .. } = self;
        let (Waiting::Data, Ok(Frame::Data(data))) = (*waiting, frame::read(plaintext)) else {
            return Ok(None);
        };
        let outcome = guard.permit(op, now, || use_it(data));
        self.settle_frame(outcome)
    }

    /// As [`GuardedReceiver::try_receive`], where the data says which operation it needs. `read` sees it before it
    /// is permitted, and must do nothing but read it: it gives the action and whatever it has read, which
    /// `use_it` gets under the permit, or why the data is refused. A privilege is refused in any case.
    ///
    /// # Errors
    /// As [`GuardedReceiver::try_receive`]. What `read` refuses is [`PermitError::Refused`], unless the connection
    /// is over.
    pub fn try_receive_as<M, T>(
        &mut self,
        read: impl FnOnce(&[u8]) -> Result<(Action, M), Denial>,
        now: Now,
        use_it: impl FnOnce(M) -> T,
    ) -> Result<Option<T>, PermitError> {
        let Self { guard, plaintext, waiting, .. } = self;
        let (Waiting::Data, Ok(Frame::Data(data))) = (*waiting, frame::read(plaintext)) else {
            return Ok(None);
        };
        let outcome = match read(data) {
            Ok((action, message)) => guard.permit_action(action, now, || use_it(message)),
            Err(denial) => guard.check(now).and(Err(PermitError::Refused(denial))),
        };
        self.settle_frame(outcome)
    }

    /// Lets go of the waiting frame unless it is to be asked about again.
    fn settle_frame<T>(&mut self, outcome: Result<T, PermitError>) -> Result<Option<T>, PermitError> {
        if !matches!(outcome, Err(PermitError::Stale)) {
            self.waiting = Waiting::Nothing;
            self.plaintext.clear();
            self.frames = self.frames.saturating_add(1);
        }
        outcome.map(Some)
    }

    /// As [`GuardedReceiver::try_receive`]; a frame that is refused as stale waits for the next settling and is
    /// asked about again. Works on any executor; dropped while it waits, the frame goes on waiting.
    ///
    /// # Errors
    /// [`PermitError::Refused`] or [`PermitError::Over`].
    pub async fn receive<T>(
        &mut self,
        op: Op,
        mut clock: impl FnMut() -> Now,
        mut use_it: impl FnMut(&[u8]) -> T,
    ) -> Result<Option<T>, PermitError> {
        loop {
            match self.try_receive(op, clock(), &mut use_it) {
                Err(PermitError::Stale) => self.guard.settled().await,
                outcome => return outcome,
            }
        }
    }

    /// As [`GuardedReceiver::try_receive_as`]; a frame that is refused as stale waits for the next settling and is
    /// asked about again. Works on any executor; dropped while it waits, the frame goes on waiting.
    ///
    /// # Errors
    /// [`PermitError::Refused`] or [`PermitError::Over`].
    pub async fn receive_as<M, T>(
        &mut self,
        mut read: impl FnMut(&[u8]) -> Result<(Action, M), Denial>,
        mut clock: impl FnMut() -> Now,
        mut use_it: impl FnMut(M) -> T,
    ) -> Result<Option<T>, PermitError> {
        loop {
            match self.try_receive_as(&mut read, clock(), &mut use_it) {
                Err(PermitError::Stale) => self.guard.settled().await,
                outcome => return outcome,
            }
        }
    }

    /// The notice that tells the phone why the last data frame was refused.
    #[must_use]
    pub fn notice(&self, denial: &Denial) -> Notice {
        let (code, detail) = denial.notice();
        Notice { code, detail, number: self.frames.saturating_sub(1) }
    }

    /// When the last frame was opened: for finding out whether the phone is still there.
    #[must_use]
    pub fn last_opened(&self) -> Now {
        self.last_opened
    }
}
