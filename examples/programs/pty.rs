//! Live terminal sessions: programs on real PTYs, each with any number of readers.
//!
//! Every session has two threads. One reads the terminal and appends to the session's transcript, from which
//! each reader takes the output at its own pace; the other writes queued input. Neither holds a lock while it
//! reads, writes or waits, and neither waits for a reader: one that falls too far behind is told so.

#[path = "pty/terminal.rs"]
mod terminal;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::pending;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, SystemTime};

use portable_pty::PtySize;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use terminal::{Launch, MasterEnd, Program, Started, Terminal};

/// Sessions that may exist at once, counting those whose threads have not finished yet.
const MAX_SESSIONS: usize = 64;
/// Largest number of columns or rows.
const MAX_SIDE: u16 = 1000;
/// Most bytes in one `OutputEvent::Data`.
const CHUNK: usize = 4 * 1024;
/// Bytes of output kept, for `Hub::history` and for readers that are behind.
const TRANSCRIPT: usize = 1024 * 1024;
/// Bytes of output that `Replay::Ring` gives a new reader.
const RING: usize = 256 * 1024;
/// Bytes of input that may wait for a program to read.
const PENDING_INPUT: usize = 256 * 1024;
/// What a closed program gets between SIGHUP and SIGKILL, and the last output of an exited one to arrive.
const GRACE: Duration = Duration::from_millis(250);

/// What to run, and on what terminal.
pub struct SessionSpec {
    /// A label for people.
    pub name: Option<String>,
    /// Run as `/bin/sh -c COMMAND`; without one, the user's shell.
    pub command: Option<String>,
    /// Without one, the hub's own working directory.
    pub cwd: Option<PathBuf>,
    pub cols: u16,
    pub rows: u16,
}

/// What `Hub` tells about a session.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// A version 4 UUID.
    pub id: String,
    pub name: Option<String>,
    pub command: String,
    pub cwd: String,
    pub cols: u16,
    pub rows: u16,
    pub created_at: SystemTime,
    /// False once the program has exited; the session then goes as soon as its last output is read.
    pub running: bool,
}

/// What a new reader gets of the output before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// The last output, up to 256 KiB.
    Ring,
    None,
}

/// Why the hub refused.
#[derive(Debug)]
pub enum HubError {
    /// No such session, or it has ended.
    NoSuchSession,
    TooManySessions,
    /// A side is 0 or above 1000.
    BadSize,
    /// The working directory cannot be used.
    BadDirectory(io::Error),
    /// The program does not read its input, and no more can wait.
    InputFull,
    /// The terminal could not be opened or resized, or the program not started on it.
    Terminal(io::Error),
    /// A thread, or the event loop, could not be started.
    System(io::Error),
}

impl fmt::Display for HubError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchSession => f.write_str("no such session"),
            Self::TooManySessions => write!(f, "there are {MAX_SESSIONS} sessions already"),
            Self::BadSize => write!(f, "a terminal has 1 to {MAX_SIDE} columns and rows"),
            Self::BadDirectory(error) => write!(f, "working directory: {error}"),
            Self::InputFull => f.write_str("the program does not read its input"),
            Self::Terminal(error) => write!(f, "terminal: {error}"),
            Self::System(error) => write!(f, "system: {error}"),
        }
    }
}

impl std::error::Error for HubError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::BadDirectory(error) | Self::Terminal(error) | Self::System(error) => Some(error),
            _ => None,
        }
    }
}

/// A reader of a session.
pub struct Attachment {
    pub info: SessionInfo,
    /// Output up to the moment of attaching; `output` goes on with the very next byte.
    pub replay: Vec<u8>,
    pub output: Output,
}

/// The output of a session from the moment of attaching. Dropping it detaches.
pub struct Output {
    feed: Arc<Feed>,
    /// How much of the stream this reader has had.
    position: u64,
}

/// What `Output::next` returns. After `Lagged` or `Ended`, every further call returns the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputEvent {
    /// Between 1 byte and 4 KiB.
    Data(Vec<u8>),
    /// This reader fell more than 1 MiB behind and gets no more; it may attach again.
    Lagged,
    /// The session has ended, and this reader has had all of its output.
    Ended,
}

impl Output {
    /// The next event. Cancel-safe: nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> OutputEvent {
        loop {
            // Before the look, so that no change after it is missed.
            let changed = self.feed.changed.notified();
            let event = lock(&self.feed.transcript).event_at(self.position);
            match event {
                Some(OutputEvent::Data(chunk)) => {
                    self.position = self.position.saturating_add(chunk.len() as u64);
                    return OutputEvent::Data(chunk);
                }
                Some(last) => return last,
                None => changed.await,
            }
        }
    }
}

/// The sessions of one agent. Clones share them; dropping the last kills every program.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    /// A closed session stays until its program is reaped, so that `shutdown` still finds it.
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    end_listeners: Mutex<Vec<EndListener>>,
    slots: Arc<Semaphore>,
    events: Arc<EventLoop>,
}

type EndListener = Arc<dyn Fn(&str) + Send + Sync>;

impl Hub {
    /// An empty hub.
    pub fn new() -> Result<Self, HubError> {
        Ok(Self(Arc::new(Inner {
            sessions: Mutex::default(),
            end_listeners: Mutex::default(),
            slots: Arc::new(Semaphore::new(MAX_SESSIONS)),
            events: Arc::new(EventLoop::start().map_err(HubError::System)?),
        })))
    }

    /// Starts a program on a new terminal. Takes as long as a fork and an exec.
    pub fn create(&self, spec: SessionSpec) -> Result<SessionInfo, HubError> {
        let slot = Arc::clone(&self.0.slots).try_acquire_owned().map_err(|_| HubError::TooManySessions)?;
        // Before the program starts, so that no exit goes unnoticed.
        let child_exits = self.0.events.child_exits().map_err(HubError::System)?;
        let (session, reading, writing) = Session::start(spec, slot)?;
        let session = Arc::new(session);
        let info = session.info();

        lock(&self.0.sessions).insert(session.id.clone(), Arc::clone(&session));
        self.serve(&session, reading, writing, child_exits).map_err(|error| {
            // Dropping the session kills its program.
            session.input.close();
            lock(&self.0.sessions).remove(&session.id);
            HubError::System(error)
        })?;
        Ok(info)
    }

    /// Every session, oldest first.
    pub fn list(&self) -> Vec<SessionInfo> {
        let sessions: Vec<_> = lock(&self.0.sessions).values().cloned().collect();
        let mut infos: Vec<_> =
            sessions.iter().filter(|session| !session.has_ended()).map(|session| session.info()).collect();
        infos.sort_by_key(|info| info.created_at);
        infos
    }

    /// One session, unless it has ended.
    pub fn info(&self, id: &str) -> Option<SessionInfo> {
        self.session(id).ok().map(|session| session.info())
    }

    /// Adds a reader.
    pub fn attach(&self, id: &str, replay: Replay) -> Result<Attachment, HubError> {
        let session = self.session(id)?;
        let (replay, output) = session.feed.attach(replay);
        Ok(Attachment { info: session.info(), replay, output })
    }

    /// Queues input for the program: all of it or none.
    pub fn input(&self, id: &str, bytes: &[u8]) -> Result<(), HubError> {
        self.session(id)?.input.push(bytes)
    }

    /// Changes the size of the terminal; the kernel tells the program.
    pub fn resize(&self, id: &str, cols: u16, rows: u16) -> Result<(), HubError> {
        let size = terminal_size(cols, rows)?;
        lock(&self.session(id)?.terminal).resize(size).map_err(HubError::Terminal)
    }

    /// Ends a session: hangs the terminal up and, after a short grace, kills the whole process group.
    pub fn close(&self, id: &str) -> Result<(), HubError> {
        let session = self.session(id)?;
        if !session.mark_ended() {
            return Err(HubError::NoSuchSession);
        }
        session.hang_up();
        self.0.tell_end(id);
        Ok(())
    }

    /// The last output, up to 1 MiB.
    pub fn history(&self, id: &str) -> Result<Vec<u8>, HubError> {
        let session = self.session(id)?;
        let history = lock(&session.feed.transcript).tail(TRANSCRIPT);
        Ok(history)
    }

    /// Ends every session, killing at once.
    pub fn shutdown(&self) {
        self.0.shutdown();
    }

    /// Has `listener` called, once, with the id of every session that ends from now on, whether it was closed
    /// or its program exited. It is called by `close`, by `shutdown` or on a thread of the hub, with no lock
    /// held, and must not block.
    pub fn on_end(&self, listener: impl Fn(&str) + Send + Sync + 'static) {
        lock(&self.0.end_listeners).push(Arc::new(listener));
    }

    fn serve(
        &self,
        session: &Arc<Session>,
        reading: MasterEnd,
        writing: MasterEnd,
        child_exits: Signal,
    ) -> io::Result<()> {
        let events = &self.0.events;
        WritingThread { events: Arc::clone(events), session: Arc::clone(session), terminal: writing }
            .spawn()?;
        ReadingThread {
            hub: Arc::downgrade(&self.0),
            events: Arc::clone(events),
            session: Arc::clone(session),
            terminal: reading,
            child_exits,
        }
        .spawn()
    }

    fn session(&self, id: &str) -> Result<Arc<Session>, HubError> {
        lock(&self.0.sessions)
            .get(id)
            .filter(|session| !session.has_ended())
            .cloned()
            .ok_or(HubError::NoSuchSession)
    }
}

impl Inner {
    fn tell_end(&self, id: &str) {
        let listeners = lock(&self.end_listeners).clone();
        for listener in listeners {
            listener(id);
        }
    }

    fn shutdown(&self) {
        let sessions: Vec<_> = lock(&self.sessions).values().cloned().collect();
        // Marked before they are killed, so that their ends are told here and not later.
        let ended: Vec<_> = sessions.iter().filter(|session| session.mark_ended()).collect();
        for session in &sessions {
            session.kill();
        }
        for session in ended {
            self.tell_end(&session.id);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// One program on one terminal.
struct Session {
    id: String,
    name: Option<String>,
    command: String,
    cwd: String,
    created_at: SystemTime,
    terminal: Mutex<Terminal>,
    program: Mutex<Program>,
    feed: Arc<Feed>,
    input: InputQueue,
    /// The session is off the list.
    ended: AtomicBool,
    /// Tells the reading thread that the program was signalled.
    signalled: Notify,
    _slot: OwnedSemaphorePermit,
}

impl Session {
    /// Starts a program; its terminal's ends are for the reading and the writing thread.
    fn start(
        spec: SessionSpec,
        slot: OwnedSemaphorePermit,
    ) -> Result<(Self, MasterEnd, MasterEnd), HubError> {
        let size = terminal_size(spec.cols, spec.rows)?;
        let launch = Launch::new(spec.command, spec.cwd).map_err(HubError::BadDirectory)?;
        let command = launch.shown_command.clone();
        let cwd = launch.cwd.to_string_lossy().into_owned();
        let Started { terminal, program, reading, writing } =
            launch.start(size).map_err(HubError::Terminal)?;
        let session = Self {
            id: Uuid::new_v4().to_string(),
            name: spec.name,
            command,
            cwd,
            created_at: SystemTime::now(),
            terminal: Mutex::new(terminal),
            program: Mutex::new(program),
            feed: Arc::default(),
            input: InputQueue::default(),
            ended: AtomicBool::new(false),
            signalled: Notify::new(),
            _slot: slot,
        };
        Ok((session, reading, writing))
    }

    fn info(&self) -> SessionInfo {
        let size = lock(&self.terminal).size();
        SessionInfo {
            id: self.id.clone(),
            name: self.name.clone(),
            command: self.command.clone(),
            cwd: self.cwd.clone(),
            cols: size.cols,
            rows: size.rows,
            created_at: self.created_at,
            running: !lock(&self.program).has_exited(),
        }
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Takes the session off the list; true the first time.
    fn mark_ended(&self) -> bool {
        !self.ended.swap(true, Ordering::AcqRel)
    }

    /// Gives up the hub's side of the terminal, as far as no thread is using it.
    fn let_go(&self) {
        lock(&self.terminal).let_go();
        self.input.close();
    }

    fn hang_up(&self) {
        let foreground = lock(&self.terminal).foreground();
        lock(&self.program).hang_up(foreground);
        self.signalled.notify_one();
    }

    fn kill(&self) {
        let foreground = lock(&self.terminal).foreground();
        lock(&self.program).kill(foreground);
        self.signalled.notify_one();
    }
}

/// What a session puts out. Readers come for it, so one that is slow or gone costs nothing.
#[derive(Default)]
struct Feed {
    transcript: Mutex<Transcript>,
    changed: Notify,
}

/// The last bytes of a stream.
#[derive(Default)]
struct Transcript {
    bytes: VecDeque<u8>,
    /// The length of the whole stream.
    end: u64,
    complete: bool,
}

impl Feed {
    fn attach(self: &Arc<Self>, replay: Replay) -> (Vec<u8>, Output) {
        let transcript = lock(&self.transcript);
        let replay = match replay {
            Replay::Ring => transcript.tail(RING),
            Replay::None => Vec::new(),
        };
        (replay, Output { feed: Arc::clone(self), position: transcript.end })
    }

    fn publish(&self, bytes: &[u8]) {
        lock(&self.transcript).append(bytes);
        self.changed.notify_waiters();
    }

    fn complete(&self) {
        lock(&self.transcript).complete = true;
        self.changed.notify_waiters();
    }
}

impl Transcript {
    fn append(&mut self, bytes: &[u8]) {
        self.end = self.end.saturating_add(bytes.len() as u64);
        self.bytes.extend(bytes);
        let overflow = self.bytes.len().saturating_sub(TRANSCRIPT);
        self.bytes.drain(..overflow);
    }

    /// Up to `limit` bytes, the last ones.
    fn tail(&self, limit: usize) -> Vec<u8> {
        let skipped = self.bytes.len().saturating_sub(limit);
        self.bytes.range(skipped..).copied().collect()
    }

    /// What a reader at `position` gets; None if that is still to come.
    fn event_at(&self, position: u64) -> Option<OutputEvent> {
        let unread = usize::try_from(self.end.saturating_sub(position)).ok();
        let Some(start) = unread.and_then(|unread| self.bytes.len().checked_sub(unread)) else {
            return Some(OutputEvent::Lagged);
        };
        let chunk: Vec<u8> = self.bytes.range(start..).take(CHUNK).copied().collect();
        if chunk.is_empty() {
            self.complete.then_some(OutputEvent::Ended)
        } else {
            Some(OutputEvent::Data(chunk))
        }
    }
}

/// Input on its way to the writing thread.
#[derive(Default)]
struct InputQueue {
    pending: Mutex<PendingInput>,
    changed: Notify,
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
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for input and takes all of it; None once the queue is closed.
    async fn take(&self) -> Option<Vec<u8>> {
        loop {
            {
                let mut pending = lock(&self.pending);
                if pending.closed {
                    return None;
                }
                if !pending.bytes.is_empty() {
                    return Some(std::mem::take(&mut pending.bytes));
                }
            }
            self.changed.notified().await;
        }
    }

    fn close(&self) {
        lock(&self.pending).closed = true;
        self.changed.notify_one();
    }

    /// Waits until the queue is closed. May use up a wake-up meant for `take`, which looks before it waits.
    async fn closed(&self) {
        while !lock(&self.pending).closed {
            self.changed.notified().await;
        }
    }
}

/// What the threads wait on. It is the hub's own, and every thread holds it, because to wait on a runtime
/// that has shut down is a panic.
struct EventLoop {
    handle: Handle,
    /// Taken when dropped.
    runtime: Option<Runtime>,
}

impl EventLoop {
    fn start() -> io::Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("pty-events").enable_all().build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Every SIGCHLD from now on.
    fn child_exits(&self) -> io::Result<Signal> {
        let _entered = self.handle.enter();
        signal(SignalKind::child())
    }
}

impl Drop for EventLoop {
    /// Without waiting, because an async task may be what drops the hub.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What the reading thread works with.
struct ReadingThread {
    hub: Weak<Inner>,
    events: Arc<EventLoop>,
    session: Arc<Session>,
    terminal: MasterEnd,
    child_exits: Signal,
}

impl ReadingThread {
    fn spawn(self) -> io::Result<()> {
        thread::Builder::new().name("pty-read".to_owned()).spawn(move || self.run()).map(drop)
    }

    /// A session's life, from its first output until its program is reaped.
    fn run(mut self) {
        let events = Arc::clone(&self.events);
        events.handle.block_on(self.relay());
        let Self { hub, session, terminal, mut child_exits, .. } = self;
        session.kill();
        drop(terminal);
        session.let_go();
        let first = session.mark_ended();
        session.feed.complete();
        events.handle.block_on(reaped(&session, &mut child_exits));
        if let Some(hub) = hub.upgrade() {
            lock(&hub.sessions).remove(&session.id);
            if first {
                hub.tell_end(&session.id);
            }
        }
    }

    /// Publishes what the program writes until there is no more: it has exited or was signalled, and either
    /// nobody has its side of the terminal open or the grace is over.
    async fn relay(&mut self) {
        let session = &self.session;
        let mut buffer = [0; CHUNK];
        let mut open = true;
        let mut deadline = None;
        while open || lock(&session.program).is_undisturbed() {
            tokio::select! {
                // Output comes last, so that a flood of it delays no end.
                biased;
                () = passed(deadline) => return,
                () = session.signalled.notified() => start_grace(&mut deadline),
                Some(()) = self.child_exits.recv() => {
                    if lock(&session.program).reap() {
                        start_grace(&mut deadline);
                    }
                }
                read = self.terminal.read(&mut buffer), if open => match read {
                    Ok(length @ 1..) => session.feed.publish(&buffer[..length]),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // The program, if it still runs, has let go of its terminal: it gets the grace to exit.
                    Ok(0) | Err(_) => {
                        open = false;
                        start_grace(&mut deadline);
                    }
                }
            }
        }
    }
}

async fn reaped(session: &Session, child_exits: &mut Signal) {
    while !lock(&session.program).reap() {
        if child_exits.recv().await.is_none() {
            return;
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
        None => pending().await,
    }
}

/// What the writing thread works with.
struct WritingThread {
    events: Arc<EventLoop>,
    session: Arc<Session>,
    terminal: MasterEnd,
}

impl WritingThread {
    fn spawn(mut self) -> io::Result<()> {
        let run = move || {
            let events = Arc::clone(&self.events);
            events.handle.block_on(self.relay());
        };
        thread::Builder::new().name("pty-write".to_owned()).spawn(run).map(drop)
    }

    /// Writes the input until the queue is closed.
    async fn relay(&mut self) {
        let input = &self.session.input;
        while let Some(bytes) = input.take().await {
            tokio::select! {
                () = input.closed() => return,
                written = write_all(&mut self.terminal, &bytes) => {
                    // Nobody has the other side open, so the session is about to end.
                    if written.is_err() {
                        input.close();
                    }
                }
            }
        }
    }
}

async fn write_all(terminal: &mut MasterEnd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match terminal.write(bytes).await {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn terminal_size(cols: u16, rows: u16) -> Result<PtySize, HubError> {
    let sides = 1..=MAX_SIDE;
    if sides.contains(&cols) && sides.contains(&rows) {
        Ok(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 })
    } else {
        Err(HubError::BadSize)
    }
}

/// A panic elsewhere leaves nothing half done that the next holder of a lock would trip over.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
