//! Input on its way into a terminal. Each viewer has a queue of its own, which dies with the viewer.
//!
//! The queues take turns, at most [`CHUNK`] bytes each. What is written stands in the terminal's own queue until the
//! program reads it, where nobody can take it back, so at most 4095 bytes are put there: before each turn the terminal
//! is asked how many bytes the program has not read, and where it edits lines, those of an unfinished line are added.
//! The system counts what was written a moment later: for [`SETTLING`] it counts as not read. A system that takes longer
//! to count it gets more than that.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use sessioncap::agent::Denial;
use sessioncap::session::NotTaken;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep};

use super::Session;
use crate::lock;

/// Most bytes that one turn writes.
const CHUNK: usize = 1024;
/// Most bytes that wait for a program that does not read. A terminal holds no more where it counts them.
const MOST: u64 = 4095;
/// How long the system gets to move what was written into the terminal's queue.
const SETTLING: Duration = Duration::from_millis(50);
/// How often a terminal whose program does not read is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// The state that the viewers of a session share, held by the one whose turn it is.
#[derive(Default)]
pub(super) struct Turn {
    /// When something was written last, and how many bytes the program had not read then if it has read none since.
    written: Option<(Instant, u64)>,
    /// How many bytes were written since the last one that ends a line.
    unfinished: u64,
}

impl Turn {
    /// How many bytes the program has not read, at most.
    fn unread(&self, session: &Session) -> u64 {
        let counted = session.terminal.unread(self.unfinished);
        match self.written {
            Some((at, unread)) if at.elapsed() < SETTLING => unread.max(counted),
            _ => counted,
        }
    }
}

/// Decides about each turn of a viewer.
pub trait Permit: Send + 'static {
    /// Runs `write` now, or once it may run. A revocation waits until it has returned. Dropping the future before it
    /// is done runs nothing.
    fn permit(&mut self, write: &mut (dyn FnMut() + Send))
    -> impl Future<Output = Result<(), Denial>> + Send;
}

/// For an enrolled device, which may type as long as its connection lives.
pub struct Always;

impl Permit for Always {
    async fn permit(&mut self, write: &mut (dyn FnMut() + Send)) -> Result<(), Denial> {
        write();
        Ok(())
    }
}

/// What has become of a message of input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// All of it is in the terminal.
    Taken,
    /// None or not all of it is, and no more will be.
    NotTaken(NotTaken),
    /// It was not allowed any more when its turn came.
    Refused(Denial),
}

/// One viewer's input. Dropping it discards what is not in the terminal yet.
pub struct Input {
    session: Arc<Session>,
    queue: Arc<Queue>,
    typed: mpsc::UnboundedReceiver<(u64, Typed)>,
    /// Ends with this.
    _turns: JoinSet<()>,
}

impl Input {
    pub(super) fn new(session: Arc<Session>, limit: usize, permit: impl Permit) -> Self {
        let (tell, typed) = mpsc::unbounded_channel();
        let queue = Arc::new(Queue { waiting: Mutex::default(), filled: Notify::new(), limit, tell });
        let mut turns = JoinSet::new();
        turns.spawn(take_turns(Arc::clone(&session), Arc::clone(&queue), permit));
        Self { session, queue, typed, _turns: turns }
    }

    /// Queues a message: all of it or nothing. `number` comes back from [`Input::typed`].
    pub fn push(&self, number: u64, bytes: &[u8]) -> Result<(), NotTaken> {
        if self.session.has_ended() {
            return Err(NotTaken::Ended);
        }
        let mut waiting = lock(&self.queue.waiting);
        if bytes.len() > self.queue.limit.saturating_sub(waiting.bytes.len()) {
            return Err(NotTaken::TooMuch);
        }
        waiting.bytes.extend(bytes);
        waiting.messages.push_back((number, bytes.len()));
        self.queue.filled.notify_one();
        Ok(())
    }

    /// The next message of which it is known what became of it. Cancel-safe.
    pub async fn typed(&mut self) -> (u64, Typed) {
        match self.typed.recv().await {
            Some(typed) => typed,
            // The queue holds a sender.
            None => std::future::pending().await,
        }
    }

    /// Waits until everything is in the terminal, or will not be.
    pub async fn drained(&mut self) {
        while !self.queue.is_empty() {
            self.typed().await;
        }
    }

    /// Discards what this viewer has queued and sends SIGINT to the group in front.
    pub fn interrupt(&self) {
        self.queue.discard(&Typed::NotTaken(NotTaken::Interrupted));
        self.session.terminal.interrupt();
    }

    /// Whether this byte is to interrupt, and would have to wait for others.
    pub fn must_overtake(&self, byte: u8) -> bool {
        let jammed =
            self.session.inputs_wait() || self.session.terminal.unread(0).saturating_add(CHUNK as u64) > MOST;
        jammed && self.session.terminal.interrupts_on(byte)
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.queue.discard(&Typed::NotTaken(NotTaken::Ended));
    }
}

pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
    limit: usize,
    tell: mpsc::UnboundedSender<(u64, Typed)>,
}

#[derive(Default)]
struct Waiting {
    bytes: VecDeque<u8>,
    /// The number of each message, and how many of its bytes wait.
    messages: VecDeque<(u64, usize)>,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.waiting).bytes.is_empty()
    }

    async fn filled(&self) {
        while self.is_empty() {
            self.filled.notified().await;
        }
    }

    fn discard(&self, why: &Typed) {
        let dropped = std::mem::take(&mut *lock(&self.waiting));
        for (number, _) in dropped.messages {
            self.tell(number, why.clone());
        }
    }

    fn tell(&self, number: u64, typed: Typed) {
        // A viewer that is gone needs no answer.
        let _ = self.tell.send((number, typed));
    }

    /// Writes up to `room` bytes, and returns how many and whether that worked.
    fn write(&self, session: &Session, turn: &mut Turn, room: usize) -> bool {
        let mut waiting = lock(&self.waiting);
        let chunk: Vec<u8> = waiting.bytes.iter().take(room).copied().collect();
        let unread = turn.unread(session);
        let Ok(written) = session.terminal.write(&chunk) else { return false };
        waiting.bytes.drain(..written);
        turn.written = Some((Instant::now(), unread.saturating_add(written as u64)));
        for byte in chunk.iter().take(written) {
            let ends_line = matches!(byte, b'\n' | b'\r' | 0x04);
            turn.unfinished = if ends_line { 0 } else { turn.unfinished.saturating_add(1) };
        }
        let mut left = written;
        while let Some((number, len)) = waiting.messages.front_mut() {
            if *len > left {
                *len = len.saturating_sub(left);
                break;
            }
            left = left.saturating_sub(*len);
            let number = *number;
            waiting.messages.pop_front();
            self.tell(number, Typed::Taken);
        }
        true
    }
}

/// A viewer's turns, until the session ends.
async fn take_turns(session: Arc<Session>, queue: Arc<Queue>, mut permit: impl Permit) {
    session.add_input(&queue);
    loop {
        tokio::select! {
            () = session.ended() => return queue.discard(&Typed::NotTaken(NotTaken::Ended)),
            taken = take_turn(&session, &queue, &mut permit) => match taken {
                Ok(true) => {}
                // Nobody has the other side open, so the session is about to end.
                Ok(false) => {
                    session.ended().await;
                    return queue.discard(&Typed::NotTaken(NotTaken::Ended));
                }
                Err(denial) => queue.discard(&Typed::Refused(denial)),
            },
        }
    }
}

async fn take_turn(session: &Session, queue: &Queue, permit: &mut impl Permit) -> Result<bool, Denial> {
    loop {
        queue.filled().await;
        // Waiting for a permit must not keep the turn from the others.
        permit.permit(&mut || {}).await?;
        // Who waits for it gets it in the order of asking.
        let mut turn = session.turn.lock().await;
        let room = loop {
            match usize::try_from(MOST.saturating_sub(turn.unread(session))).unwrap_or(0) {
                0 => sleep(LOOK).await,
                room => break room.min(CHUNK),
            }
        };
        let mut written = true;
        // It may have been taken away meanwhile.
        if let Some(permitted) =
            permit.permit(&mut || written = queue.write(session, &mut turn, room)).now_or_never()
        {
            return permitted.map(|()| written);
        }
        drop(turn);
        yield_now().await;
    }
}
