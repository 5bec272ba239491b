//! Live terminal sessions: programs on real PTYs, each with any number of readers.
//!
//! Every session has two tasks. One reads the terminal and appends to the session's transcript, from
//! which each reader takes the output at its own pace; the other writes queued input. Neither waits
//! for a reader that has stopped: one that falls too far behind gets an error. No lock is held across an
//! `.await`.

mod feed;
mod program;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use pty_process::{OwnedReadPty, OwnedWritePty};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use feed::Feed;
pub use feed::{Output, OutputEvent, Replay};
use program::{Program, Terminal};
pub use program::{safe_environment, spawn_alone};

/// Sessions that may exist at once, counting those whose program is not reaped yet.
const MAX_SESSIONS: u32 = 64;
/// Largest number of columns or rows.
const MAX_SIDE: u16 = 1000;
/// Most bytes of output read at a time.
const CHUNK: usize = 4 * 1024;
/// Bytes of input that may wait for a program to read.
const PENDING_INPUT: usize = 256 * 1024;
/// What a closed program gets between SIGHUP and SIGKILL, and the last output of an exited one to
/// arrive.
const GRACE: Duration = Duration::from_millis(250);

/// What to run, and on what terminal.
pub struct SessionSpec {
    /// A label for people.
    pub name: Option<String>,
    /// The program and its arguments; without any, the user's shell.
    pub argv: Vec<String>,
    /// Without one, the agent's own working directory.
    pub cwd: Option<PathBuf>,
    /// Width of the terminal.
    pub cols: u16,
    /// Height of the terminal.
    pub rows: u16,
}

impl SessionSpec {
    /// A shell command on a terminal of the usual size.
    pub fn command(command: &str) -> Self {
        let argv = ["/bin/sh", "-c", command].map(str::to_owned).to_vec();
        Self { name: None, argv, cwd: None, cols: 80, rows: 24 }
    }
}

/// What the hub tells about a session.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// A version 4 UUID.
    pub id: String,
    /// A label for people.
    pub name: Option<String>,
    /// The program and its arguments.
    pub command: String,
    /// Where it was started.
    pub cwd: String,
    /// Width of the terminal.
    pub cols: u16,
    /// Height of the terminal.
    pub rows: u16,
    /// When it was started.
    pub created_at: SystemTime,
    /// The process id of its first program.
    pub pid: i32,
}

/// Why the hub refused.
#[derive(Debug)]
pub enum HubError {
    /// No such session, or it has ended.
    NoSuchSession,
    /// The agent has its fill.
    TooManySessions,
    /// A side is 0 or above 1000.
    BadSize,
    /// The program does not read its input, and no more can wait.
    InputFull,
    /// The terminal could not be opened or resized, or the program not started on it.
    Terminal(io::Error),
}

impl fmt::Display for HubError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchSession => f.write_str("no such session; list the sessions to see which there are"),
            Self::TooManySessions => write!(f, "there are {MAX_SESSIONS} sessions already; close one"),
            Self::BadSize => write!(f, "a terminal has 1 to {MAX_SIDE} columns and rows"),
            Self::InputFull => f.write_str("the program does not read its input; try again later"),
            Self::Terminal(error) => write!(f, "the terminal or its program could not be used: {error}"),
        }
    }
}

impl std::error::Error for HubError {}

/// A reader of a session.
pub struct Attachment {
    /// Output up to the moment of attaching; `output` continues with the next byte.
    pub replay: Vec<u8>,
    /// The output from then on.
    pub output: Output,
}

/// The sessions of one agent. Clones share them; dropping the last kills every program.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    on_end: Box<dyn Fn(&str) + Send + Sync>,
    slots: Arc<Semaphore>,
}

impl Hub {
    /// An empty hub. `on_end` is called once with the id of every session that ends, with no lock
    /// held; it must not block.
    pub fn new(on_end: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let slots = Arc::new(Semaphore::new(MAX_SESSIONS as usize));
        Self(Arc::new(Inner { sessions: Mutex::default(), on_end: Box::new(on_end), slots }))
    }

    /// Starts a program on a new terminal. Takes as long as a fork and an exec. To be called on a
    /// tokio runtime.
    pub fn create(&self, spec: SessionSpec) -> Result<SessionInfo, HubError> {
        let slot = Arc::clone(&self.0.slots).try_acquire_owned().map_err(|_| HubError::TooManySessions)?;
        check_size(spec.cols, spec.rows)?;
        let started = program::start(&spec).map_err(HubError::Terminal)?;
        let (phase, _) = watch::channel(Phase::Running);
        let session = Arc::new(Session {
            info: Mutex::new(SessionInfo {
                id: Uuid::new_v4().to_string(),
                name: spec.name,
                command: started.command,
                cwd: started.cwd,
                cols: spec.cols,
                rows: spec.rows,
                created_at: SystemTime::now(),
                pid: started.program.pid(),
            }),
            terminal: started.terminal,
            feed: Arc::default(),
            input: InputQueue::default(),
            ended: AtomicBool::new(false),
            phase,
        });
        let info = session.info();
        lock(&self.0.sessions).insert(info.id.clone(), Arc::clone(&session));
        tokio::spawn(write_input(Arc::clone(&session), started.writing));
        tokio::spawn(live(Arc::downgrade(&self.0), session, started.reading, started.program, slot));
        Ok(info)
    }

    /// Every session, oldest first.
    pub fn list(&self) -> Vec<SessionInfo> {
        let sessions: Vec<_> = lock(&self.0.sessions).values().cloned().collect();
        let mut infos: Vec<_> = sessions.iter().map(|session| session.info()).collect();
        infos.sort_by_key(|info| info.created_at);
        infos
    }

    /// One session, unless it has ended.
    pub fn info(&self, id: &str) -> Option<SessionInfo> {
        self.session(id).ok().map(|session| session.info())
    }

    /// Adds a reader.
    pub fn attach(&self, id: &str, replay: Replay) -> Result<Attachment, HubError> {
        let (replay, output) = self.session(id)?.feed.attach(replay);
        Ok(Attachment { replay, output })
    }

    /// Queues input for the program: all of it or none.
    pub fn input(&self, id: &str, bytes: &[u8]) -> Result<(), HubError> {
        self.session(id)?.input.push(bytes)
    }

    /// Waits until no input is pending, or the session is over.
    pub async fn input_room(&self, id: &str) {
        if let Ok(session) = self.session(id) {
            session.input.emptied().await;
        }
    }

    /// Changes the size of the terminal; the kernel tells the program.
    pub fn resize(&self, id: &str, cols: u16, rows: u16) -> Result<(), HubError> {
        check_size(cols, rows)?;
        let session = self.session(id)?;
        session.terminal.resize(cols, rows).map_err(HubError::Terminal)?;
        let mut info = lock(&session.info);
        (info.cols, info.rows) = (cols, rows);
        Ok(())
    }

    /// Ends a session: hangs the terminal up and, after a short grace, kills the whole process group.
    pub fn close(&self, id: &str) -> Result<(), HubError> {
        let session = self.session(id)?;
        session.phase.send_replace(Phase::Closing);
        self.0.end(id, &session);
        Ok(())
    }

    /// The last output, up to 1 MiB.
    pub fn history(&self, id: &str) -> Result<Vec<u8>, HubError> {
        Ok(self.session(id)?.feed.history())
    }

    /// Kills every program and waits until all are reaped.
    pub async fn shutdown(&self) {
        self.0.kill_all();
        // Each session's task holds one until its program is reaped. Fails only if closed, which it
        // never is.
        drop(self.0.slots.acquire_many(MAX_SESSIONS).await);
    }

    fn session(&self, id: &str) -> Result<Arc<Session>, HubError> {
        lock(&self.0.sessions).get(id).cloned().ok_or(HubError::NoSuchSession)
    }
}

impl Inner {
    /// Takes a session off the list, and tells of it the first time.
    fn end(&self, id: &str, session: &Session) {
        lock(&self.sessions).remove(id);
        if !session.ended.swap(true, Ordering::AcqRel) {
            (self.on_end)(id);
        }
    }

    fn kill_all(&self) {
        let sessions: Vec<_> =
            lock(&self.sessions).iter().map(|(id, s)| (id.clone(), Arc::clone(s))).collect();
        for (id, session) in sessions {
            session.phase.send_replace(Phase::Killing);
            self.end(&id, &session);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// How far a session's end was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Closing,
    Killing,
}

/// One program on one terminal.
struct Session {
    info: Mutex<SessionInfo>,
    terminal: Terminal,
    feed: Arc<Feed>,
    input: InputQueue,
    ended: AtomicBool,
    phase: watch::Sender<Phase>,
}

impl Session {
    fn info(&self) -> SessionInfo {
        lock(&self.info).clone()
    }
}

/// A session's life, until its program is reaped. Holds `_slot` as long.
async fn live(
    hub: Weak<Inner>,
    session: Arc<Session>,
    mut reading: OwnedReadPty,
    mut program: Program,
    _slot: OwnedSemaphorePermit,
) {
    relay(&session, &mut reading, &mut program).await;
    session.input.close();
    program.kill_and_reap(&session.terminal).await;
    session.feed.complete();
    if let Some(hub) = hub.upgrade() {
        let id = session.info().id;
        hub.end(&id, &session);
    }
}

/// Publishes what the program writes until there is no more to come: it has exited, let go of its
/// terminal or was told to end, and the grace is over.
async fn relay(session: &Session, reading: &mut OwnedReadPty, program: &mut Program) {
    let mut phase = session.phase.subscribe();
    let mut asked = Phase::Running;
    let mut buffer = vec![0; CHUNK];
    let mut open = true;
    let mut deadline = None;
    while open || !program.has_exited() {
        tokio::select! {
            // Output comes last, so that a flood of it delays no end.
            biased;
            () = passed(deadline) => return,
            changed = phase.wait_for(|phase| *phase != asked) => match changed.map(|phase| *phase) {
                Ok(Phase::Running) => {}
                Ok(Phase::Closing) => {
                    asked = Phase::Closing;
                    program.hang_up(&session.terminal);
                    start_grace(&mut deadline);
                }
                Ok(Phase::Killing) | Err(_) => return,
            },
            // Not once it was hung up: until it is reaped its group's id cannot be another's.
            () = program.exited(), if asked == Phase::Running && !program.has_exited() => {
                start_grace(&mut deadline);
            }
            read = read_paced(session, reading, &mut buffer), if open => match read {
                Ok(length @ 1..) => session.feed.publish(buffer.get(..length).unwrap_or_default()),
                // Nobody has the other side open. A program that still runs gets the grace to exit.
                Ok(0) | Err(_) => {
                    open = false;
                    start_grace(&mut deadline);
                }
            },
        }
    }
}

/// Cancel-safe.
async fn read_paced(session: &Session, reading: &mut OwnedReadPty, buffer: &mut [u8]) -> io::Result<usize> {
    session.feed.pace().await;
    reading.read(buffer).await
}

/// Writes the input until the queue is closed, also in the middle of what the program does not read.
async fn write_input(session: Arc<Session>, mut writing: OwnedWritePty) {
    while let Some(bytes) = session.input.take().await {
        tokio::select! {
            () = session.input.closed() => return,
            written = writing.write_all(&bytes) => if written.is_err() {
                // Nobody has the other side open, so the session is about to end.
                session.input.close();
            },
        }
    }
}

fn start_grace(deadline: &mut Option<Instant>) {
    deadline.get_or_insert_with(|| Instant::now() + GRACE);
}

/// Never, without a deadline.
async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Input on its way to the writing task.
#[derive(Default)]
struct InputQueue {
    pending: Mutex<PendingInput>,
    filled: Notify,
    emptied: Notify,
}

#[derive(Default)]
struct PendingInput {
    bytes: Vec<u8>,
    closed: bool,
}

impl InputQueue {
    fn push(&self, bytes: &[u8]) -> Result<(), HubError> {
        let mut pending = lock(&self.pending);
        if pending.closed {
            return Err(HubError::NoSuchSession);
        }
        if bytes.len() > PENDING_INPUT.saturating_sub(pending.bytes.len()) {
            return Err(HubError::InputFull);
        }
        pending.bytes.extend_from_slice(bytes);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for input and takes all of it; `None` once the queue is closed.
    async fn take(&self) -> Option<Vec<u8>> {
        loop {
            {
                let mut pending = lock(&self.pending);
                if pending.closed {
                    return None;
                }
                if !pending.bytes.is_empty() {
                    self.emptied.notify_waiters();
                    return Some(std::mem::take(&mut pending.bytes));
                }
            }
            self.filled.notified().await;
        }
    }

    async fn emptied(&self) {
        loop {
            // Before the look, so that no change after it is missed.
            let emptied = self.emptied.notified();
            {
                let pending = lock(&self.pending);
                if pending.closed || pending.bytes.is_empty() {
                    return;
                }
            }
            emptied.await;
        }
    }

    /// Waits until the queue is closed. May use up a wake-up meant for `take`, which looks before it
    /// waits.
    async fn closed(&self) {
        while !lock(&self.pending).closed {
            self.filled.notified().await;
        }
    }

    fn close(&self) {
        lock(&self.pending).closed = true;
        self.filled.notify_one();
        self.emptied.notify_waiters();
    }
}

fn check_size(cols: u16, rows: u16) -> Result<(), HubError> {
    let sides = 1..=MAX_SIDE;
    if sides.contains(&cols) && sides.contains(&rows) { Ok(()) } else { Err(HubError::BadSize) }
}

/// A panic elsewhere leaves nothing half done that the next holder of a lock would trip over.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
