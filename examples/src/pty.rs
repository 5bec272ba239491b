//! Live terminal sessions: programs on real PTYs, each with any number of viewers.
//!
//! Every session has a task that reads the terminal, keeps a picture of it, and appends to the session's transcript,
//! from which each reader takes the output at its own pace. A viewer who types has a queue and a task for that, so that
//! nobody's input holds up another's. Nobody waits for a reader that has stopped: one that falls too far behind gets an
//! error. No lock is held across an `.await`, except the turn to type.
//!
//! A terminal has one size. Viewers of other sizes share it: it is the size of the viewer who asked for one last.

mod feed;
mod input;
mod mirror;
mod orders;
mod picture;
mod program;
mod scan;
mod viewer;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use pty_process::OwnedReadPty;
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};
use sessioncap::session::{Event, EventKind, Incarnation};
use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::lock;
use feed::Feed;
pub(crate) use feed::TRANSCRIPT;
pub use feed::{Output, OutputEvent};
pub use input::{Always, Input, Permit, Typed};
use input::{Queue, Turn};
pub use mirror::{Mirror, WeakHub, Whole};
use orders::UntoldSize;
pub use orders::{Change, Changes, Orders, Start};
pub use picture::{Emulator, Picture};
use program::{Program, Terminal};
pub use program::{safe_environment, spawn_alone};
pub use scan::{Scanned, Scanner, Told};
pub use viewer::{Followed, Happened, Screen, Viewer};

/// Sessions that may exist at once, counting those whose program is not reaped yet.
pub(crate) const MAX_SESSIONS: u32 = 64;
/// Largest number of columns or rows.
const MAX_SIDE: u16 = 1000;
/// Most bytes of output read at a time.
const CHUNK: usize = 4 * 1024;
/// Events that a viewer may be behind; it misses older ones.
const EVENTS: usize = 64;
/// How often viewers are told of the bell at most.
const BELLS: Duration = Duration::from_secs(1);
/// What a closed program gets between SIGHUP and SIGKILL, and the last output of an exited one to
/// arrive.
const GRACE: Duration = Duration::from_millis(250);

/// What to run, and on what terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// A version 4 UUID, after the number of a node and a dot where several agents share the session.
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
    /// The terminal could not be opened or resized, or the program not started on it.
    Terminal(io::Error),
    /// The server of the sessions that several agents share did not do it.
    Server(String),
}

impl fmt::Display for HubError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchSession => f.write_str("no such session; list the sessions to see which there are"),
            Self::TooManySessions => write!(f, "there are {MAX_SESSIONS} sessions already; close one"),
            Self::BadSize => write!(f, "a terminal has 1 to {MAX_SIDE} columns and rows"),
            Self::Terminal(error) => write!(f, "the terminal or its program could not be used: {error}"),
            Self::Server(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for HubError {}

/// The sessions of one agent. Clones share them; dropping the last kills every program.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    on_end: Box<dyn Fn(&str) + Send + Sync>,
    slots: Arc<Semaphore>,
    /// To the server of the sessions, which other agents share; without one, they are this hub's own.
    server: Option<Orders>,
}

impl Hub {
    /// An empty hub. `on_end` is called once with the id of every session that ends, with no lock
    /// held; it must not block.
    pub fn new(on_end: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self::with_server(on_end, None)
    }

    fn with_server(on_end: impl Fn(&str) + Send + Sync + 'static, server: Option<Orders>) -> Self {
        let slots = Arc::new(Semaphore::new(MAX_SESSIONS as usize));
        Self(Arc::new(Inner { sessions: Mutex::default(), on_end: Box::new(on_end), slots, server }))
    }

    /// Starts a program on a new terminal. Takes as long as a fork and an exec. To be called on a
    /// tokio runtime.
    pub fn create(&self, spec: SessionSpec) -> Result<SessionInfo, HubError> {
        self.create_as(Uuid::new_v4().to_string(), spec)
    }

    /// As [`Hub::create`], under this id, which no session has had.
    pub fn create_as(&self, id: String, spec: SessionSpec) -> Result<SessionInfo, HubError> {
        let slot = Arc::clone(&self.0.slots).try_acquire_owned().map_err(|_| HubError::TooManySessions)?;
        check_size(spec.cols, spec.rows)?;
        let started = program::start(&spec).map_err(HubError::Terminal)?;
        let info = SessionInfo {
            id,
            name: spec.name,
            command: started.command,
            cwd: started.cwd,
            cols: spec.cols,
            rows: spec.rows,
            created_at: SystemTime::now(),
            pid: started.program.pid(),
        };
        let incarnation = Incarnation::generate(&mut OsRng);
        let session = Arc::new(Session::new(info.clone(), started.terminal, incarnation, None));
        lock(&self.0.sessions).insert(info.id.clone(), Arc::clone(&session));
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

    /// Adds a viewer.
    pub fn view(&self, id: &str) -> Result<Viewer, HubError> {
        Ok(Viewer::new(self.session(id)?))
    }

    /// Changes the size of the terminal; the kernel tells the program.
    pub fn resize(&self, id: &str, cols: u16, rows: u16) -> Result<(), HubError> {
        self.session(id)?.resize(cols, rows)
    }

    /// Ends a session: hangs the terminal up and, after a short grace, kills the whole process group.
    pub fn close(&self, id: &str) -> Result<(), HubError> {
        let session = self.session(id)?;
        if let Some(server) = &self.0.server {
            server.close(id)?;
        }
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
        if self.server.is_some() {
            // The sessions go on at the server, for the other agents.
            return;
        }
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

/// What becomes of a session's output before viewers get it.
struct Shown {
    scanner: Scanner,
    picture: Picture,
    /// When the bell was last told.
    bell: Option<Instant>,
}

/// One program on one terminal.
struct Session {
    info: Mutex<SessionInfo>,
    terminal: Terminal,
    incarnation: Incarnation,
    /// Taken before the lock of `feed`, so that the picture is that of the last byte.
    shown: Mutex<Shown>,
    feed: Arc<Feed>,
    happened: broadcast::Sender<Happened>,
    inputs: Mutex<Vec<Weak<Queue>>>,
    turn: tokio::sync::Mutex<Turn>,
    ended: AtomicBool,
    /// The exit status, or minus the number of the signal.
    exit: watch::Sender<Option<i32>>,
    phase: watch::Sender<Phase>,
    /// Columns and rows.
    size: watch::Sender<(u16, u16)>,
    /// Whether its server was lost.
    lost: watch::Sender<bool>,
    /// The server that has its program.
    server: Option<Orders>,
    untold_size: UntoldSize,
}

impl Session {
    fn new(info: SessionInfo, terminal: Terminal, incarnation: Incarnation, server: Option<Orders>) -> Self {
        let (columns, rows) = (info.cols, info.rows);
        Self {
            info: Mutex::new(info),
            terminal,
            incarnation,
            shown: Mutex::new(Shown {
                scanner: Scanner::default(),
                picture: Picture::new(columns, rows),
                bell: None,
            }),
            feed: Arc::default(),
            happened: broadcast::channel(EVENTS).0,
            inputs: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            ended: AtomicBool::new(false),
            exit: watch::channel(None).0,
            phase: watch::channel(Phase::Running).0,
            size: watch::channel((columns, rows)).0,
            lost: watch::channel(false).0,
            server,
            untold_size: UntoldSize::default(),
        }
    }

    fn info(&self) -> SessionInfo {
        lock(&self.info).clone()
    }

    fn resize(&self, cols: u16, rows: u16) -> Result<(), HubError> {
        check_size(cols, rows)?;
        let mut info = lock(&self.info);
        // First, so that nothing has changed if it is refused.
        if let Some(server) = &self.server {
            server.resize(&info.id, &self.untold_size, cols, rows)?;
        }
        self.terminal.resize(cols, rows).map_err(HubError::Terminal)?;
        self.note_size(&mut info, cols, rows);
        Ok(())
    }

    fn note_size(&self, info: &mut SessionInfo, cols: u16, rows: u16) {
        (info.cols, info.rows) = (cols, rows);
        lock(&self.shown).picture.resize(cols, rows);
        self.size.send_replace((cols, rows));
    }

    fn publish(&self, output: &[u8]) {
        let mut shown = lock(&self.shown);
        let scanned = shown.scanner.read(output);
        self.show(&mut shown, scanned);
    }

    fn show(&self, shown: &mut Shown, Scanned { shown: output, clipboard, told }: Scanned) {
        let before = self.feed.kept().1;
        shown.picture.process(&output);
        self.feed.publish(&output, clipboard);
        for (at, told) in told {
            shown.picture.note(&told);
            let (kind, value, text) = match told {
                Told::Bell if shown.bell.is_some_and(|last| last.elapsed() < BELLS) => continue,
                Told::Bell => {
                    shown.bell = Some(Instant::now());
                    (EventKind::Bell, 0, String::new())
                }
                Told::Notification(text) => (EventKind::Notification, 0, Event::clean_text(&text)),
                Told::Prompt => (EventKind::Prompt, 0, String::new()),
                Told::CommandEnded(status) => (EventKind::CommandEnded, status, String::new()),
                Told::Set(_) | Told::Reset => continue,
            };
            let position = before.saturating_add(at as u64);
            // Fails if there is no viewer.
            let _ = self.happened.send(Happened { kind, position, value, text });
        }
    }

    fn complete(&self, exit: i32) {
        let mut shown = lock(&self.shown);
        let rest = shown.scanner.finish();
        self.show(&mut shown, rest);
        drop(shown);
        self.exit.send_replace(Some(exit));
        self.feed.complete();
        // Fails if there is no viewer.
        let _ = self.happened.send(self.end());
    }

    fn end(&self) -> Happened {
        let (position, value) = (self.feed.kept().1, self.exit.borrow().unwrap_or(-1));
        Happened { kind: EventKind::SessionEnded, position, value, text: String::new() }
    }

    fn has_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    async fn ended(&self) {
        // Fails only if the sender is gone, which this session holds.
        let _ = self.exit.subscribe().wait_for(Option::is_some).await;
    }

    fn add_input(&self, queue: &Arc<Queue>) {
        let mut inputs = lock(&self.inputs);
        inputs.retain(|queue| queue.strong_count() > 0);
        inputs.push(Arc::downgrade(queue));
    }

    fn inputs_wait(&self) -> bool {
        lock(&self.inputs).iter().filter_map(Weak::upgrade).any(|queue| !queue.is_empty())
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
    program.kill_and_reap(&session.terminal).await;
    session.complete(program.exit());
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
                Ok(length @ 1..) => session.publish(buffer.get(..length).unwrap_or_default()),
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

pub(crate) fn check_size(cols: u16, rows: u16) -> Result<(), HubError> {
    let sides = 1..=MAX_SIDE;
    if sides.contains(&cols) && sides.contains(&rows) { Ok(()) } else { Err(HubError::BadSize) }
}
