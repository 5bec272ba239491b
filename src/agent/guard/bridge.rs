//! Carries the bytes of one session over a guarded channel: what the phone types to the session, and the
//! session's output to the phone (`docs/PROTOCOL.md` sections 6.5 and 10).
//!
//! Two futures in one task: one writes to the session and is polled under permits only, so that nothing typed
//! reaches the session after a revocation has returned; the other reads and sends frames. A cut drops both.

use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::Poll;

use super::signal::Settled;
use super::{Guard, GuardedChannel, GuardedReceiver, GuardedSender, PermitError, lock};
use crate::agent::denial::Denial;
use crate::clock::Now;
use crate::limits::{MAX_BRIDGED_INPUT, MAX_DATA_LEN};
use crate::op::Op;
use crate::protocol::frame::{EndCode, Frame};
use crate::sync::Mutex;

/// The WebSocket of one peer: whole binary messages, in order.
pub trait MessageSocket: Send {
    /// Why a message could not be sent or received. The connection is lost then.
    type Error: Send;

    /// Sends one message. Waits while the peer does not read.
    fn send(&mut self, message: Vec<u8>) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Receives the next message. A future that is dropped before it is ready must lose no message, as tokio's
    /// documentation of `select!` explains.
    fn receive(&mut self) -> impl Future<Output = Result<Vec<u8>, Self::Error>> + Send;
}

/// The bytes that a session puts out.
pub trait SessionOutput: Send {
    /// Returns the next bytes, or `None` once there will be no more. A future that is dropped before it is ready
    /// must lose no bytes.
    fn next(&mut self) -> impl Future<Output = Option<Vec<u8>>> + Send;
}

/// Where a session takes its input.
pub trait SessionInput: Send {
    /// Why the session takes no more input. The connection ends then.
    type Error: Send;

    /// Writes all of `bytes`. A poll must not block or call the gate, because a revoker waits for it. What the
    /// returned future holds must not reach the session once it is dropped: write to the session itself, not to
    /// a queue of another task.
    fn write(&mut self, bytes: &[u8]) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// How a bridged connection ended.
#[derive(Clone, PartialEq, Eq)]
#[must_use = "send its message, then close the connection"]
#[non_exhaustive]
pub struct BridgeEnd {
    /// The end frame to send before closing the connection. `None` if the phone has left or was lost.
    pub message: Option<Vec<u8>>,
    /// Why the gate or the phone's frames ended it. `None` if the phone left or was lost, or if the session takes
    /// no more input or has no more output.
    pub denial: Option<Denial>,
}

impl fmt::Debug for BridgeEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BridgeEnd").field("denial", &self.denial).finish_non_exhaustive()
    }
}

/// What ended a connection.
enum Why {
    /// The phone left, or its connection was lost: nobody reads an end.
    Gone,
    /// The session's input or output ended, or typing was forbidden while input waited.
    Closed(Option<Denial>),
    Denied(Denial),
}

impl From<PermitError> for Why {
    fn from(error: PermitError) -> Self {
        Self::Denied(error.into())
    }
}

/// What was typed and is not in the session yet.
#[derive(Default)]
struct Typed(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    queue: Vec<u8>,
    /// How many bytes the writing future has taken and not written.
    taken: usize,
}

impl Typed {
    fn push(&self, bytes: &[u8]) {
        lock(&self.0).queue.extend_from_slice(bytes);
    }

    fn len(&self) -> usize {
        let waiting = lock(&self.0);
        waiting.queue.len().saturating_add(waiting.taken)
    }

    fn has_room(&self) -> bool {
        self.len() < MAX_BRIDGED_INPUT
    }

    fn take(&self) -> Option<Vec<u8>> {
        let mut waiting = lock(&self.0);
        let bytes = core::mem::take(&mut waiting.queue);
        waiting.taken = bytes.len();
        drop(waiting);
        (!bytes.is_empty()).then_some(bytes)
    }

    fn written(&self) {
        lock(&self.0).taken = 0;
    }
}

impl GuardedChannel {
    /// Bytes that were typed and wait for the session, beyond which [`GuardedChannel::bridge`] receives nothing
    /// more of the phone. One message of up to 1 MiB may come on top.
    pub const MAX_BRIDGED_INPUT: usize = MAX_BRIDGED_INPUT;

    /// Carries a session's bytes until the connection ends, for an agent whose phones follow and type and do
    /// nothing else: data of the phone goes to `input` under [`Op::SendInput`], and what `output` returns goes to
    /// the phone under [`Op::StreamOutput`]. Works with any executor, and never blocks on its own.
    ///
    /// It answers the phone's pings and tells it by a notice which message was refused. Output that the phone may
    /// not see is dropped. Input is written under a permit for each poll: when a revoking call has returned,
    /// nothing more of it reaches the session, and what was not written yet is discarded. While the gate is
    /// stale, frames wait. `clock` is read for every permit.
    ///
    /// It does not watch a clock: [`Gate::settle`](crate::agent::Gate::settle) cuts an expired credential. Send
    /// the message of the returned [`BridgeEnd`], with a deadline, and close.
    pub async fn bridge<W: MessageSocket, O: SessionOutput, I: SessionInput>(
        self,
        socket: &mut W,
        mut output: O,
        mut input: I,
        clock: impl Fn() -> Now + Send + Sync,
    ) -> BridgeEnd {
        let (mut sender, mut receiver) = self.split();
        let mut guard = receiver.guard().fork();
        let typed = Typed::default();
        let why = {
            let mut cut = guard.cut_signal();
            let mut writing = pin!(write(&typed, &mut input));
            let mut carrying = pin!(carry(&mut sender, &mut receiver, socket, &mut output, &typed, &clock));
            let mut settled = None;
            poll_fn(|context| {
                // The waker is registered before any permit, so that no cut is missed.
                if let Poll::Ready(denial) = Pin::new(&mut cut).poll(context) {
                    return Poll::Ready(Why::Denied(denial));
                }
                loop {
                    if let Poll::Ready(why) = carrying.as_mut().poll(context) {
                        return Poll::Ready(why);
                    }
                    let waited = typed.has_room();
                    let written =
                        poll_writing(&mut guard, &typed, &clock, &mut settled, context, |context| {
                            writing.as_mut().poll(context)
                        });
                    if let Some(why) = written {
                        return Poll::Ready(why);
                    }
                    // Room for more is news for the other future.
                    if waited || !typed.has_room() {
                        return Poll::Pending;
                    }
                }
            })
            .await
        };
        match why {
            Why::Gone => BridgeEnd { message: None, denial: None },
            Why::Closed(denial) => BridgeEnd { message: sender.end(EndCode::CLOSED), denial },
            Why::Denied(denial) => BridgeEnd { message: sender.end(denial.end_code()), denial: Some(denial) },
        }
    }
}

/// Polls the writing under a permit, if there is something to write.
fn poll_writing(
    guard: &mut Guard,
    typed: &Typed,
    clock: &impl Fn() -> Now,
    settled: &mut Option<Settled>,
    context: &mut core::task::Context<'_>,
    mut poll: impl FnMut(&mut core::task::Context<'_>) -> Poll<Why>,
) -> Option<Why> {
    while typed.len() > 0 {
        match guard.permit(Op::SendInput, clock(), || poll(context)) {
            Ok(Poll::Ready(why)) => return Some(why),
            Ok(Poll::Pending) => return None,
            Err(PermitError::Stale) => {
                let mut waiting = settled.take().unwrap_or_else(|| guard.settled_signal());
                if Pin::new(&mut waiting).poll(context).is_pending() {
                    *settled = Some(waiting);
                    return None;
                }
            }
            // Waiting input must not be written when typing is allowed again: it goes with the connection.
            Err(PermitError::Refused(denial)) => return Some(Why::Closed(Some(denial))),
            Err(over @ PermitError::Over(_)) => return Some(over.into()),
        }
    }
    None
}

/// Writes what was typed. Polled under permits.
async fn write<I: SessionInput>(typed: &Typed, input: &mut I) -> Why {
    loop {
        let bytes = poll_fn(|_| typed.take().map_or(Poll::Pending, Poll::Ready)).await;
        if input.write(&bytes).await.is_err() {
            return Why::Closed(None);
        }
        typed.written();
    }
}

enum Next<E> {
    Message(Result<Vec<u8>, E>),
    Output(Option<Vec<u8>>),
}

/// Sends and receives frames.
async fn carry<W: MessageSocket, O: SessionOutput>(
    sender: &mut GuardedSender,
    receiver: &mut GuardedReceiver,
    socket: &mut W,
    output: &mut O,
    typed: &Typed,
    clock: &(impl Fn() -> Now + Send + Sync),
) -> Why {
    let mut frame = receiver.first();
    loop {
        let answer = match frame.take() {
            Some(Frame::Data(())) => {
                match receiver.receive(Op::SendInput, clock, |bytes| typed.push(bytes)).await {
                    Ok(_) => None,
                    Err(over @ PermitError::Over(_)) => return over.into(),
                    Err(refused) => {
                        let notice = receiver.notice(refused.denial());
                        Some(sender.notice(notice, clock).await)
                    }
                }
            }
            Some(Frame::Ping { answer: false, number }) => Some(sender.ping(true, number, clock).await),
            Some(Frame::End(_)) => return Why::Gone,
            _ => None,
        };
        if let Some(answer) = answer {
            let answer = match answer {
                Ok(answer) => answer,
                Err(over) => return over.into(),
            };
            if socket.send(answer).await.is_err() {
                return Why::Gone;
            }
        }
        match next(socket, output, typed).await {
            Next::Message(Ok(message)) => match receiver.open(&message, clock()) {
                Ok(opened) => frame = Some(opened),
                Err(over) => return over.into(),
            },
            Next::Message(Err(_)) => return Why::Gone,
            Next::Output(None) => return Why::Closed(None),
            Next::Output(Some(bytes)) => {
                for part in bytes.chunks(MAX_DATA_LEN) {
                    let sealed = match sender.send(Op::StreamOutput, part, clock).await {
                        Ok(sealed) => sealed,
                        Err(over @ PermitError::Over(_)) => return over.into(),
                        // Output that the phone may not see.
                        Err(_) => continue,
                    };
                    if socket.send(sealed).await.is_err() {
                        return Why::Gone;
                    }
                }
            }
        }
    }
}

/// Waits for the phone, unless too much waits for the session, and for the session.
async fn next<W: MessageSocket, O: SessionOutput>(
    socket: &mut W,
    output: &mut O,
    typed: &Typed,
) -> Next<W::Error> {
    let (mut message, mut bytes) = (pin!(socket.receive()), pin!(output.next()));
    poll_fn(|context| {
        if typed.has_room()
            && let Poll::Ready(message) = message.as_mut().poll(context)
        {
            return Poll::Ready(Next::Message(message));
        }
        bytes.as_mut().poll(context).map(Next::Output)
    })
    .await
}
