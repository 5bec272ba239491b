//! A proxy between a node and the database.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Directory;

/// Where the proxy cuts the next transaction that appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Before the append reaches the server.
    BeforeAppend,
    /// When the commit is sent; it does not reach the server.
    BeforeCommit,
    /// The commit reaches the server, the answer not the client.
    AfterCommit,
    /// When the commit is sent, nothing passes any more, as of a node that has stopped.
    FreezeBeforeCommit,
}

#[derive(Default)]
struct State {
    /// Nothing is passed on.
    frozen: AtomicBool,
    /// No notification of this client reaches another.
    mute: AtomicBool,
    /// Nobody is connected, and nobody can connect.
    down: AtomicBool,
    /// How long each way takes, microseconds.
    delay: AtomicU64,
    cut: Mutex<Option<Cut>>,
    open: Mutex<Vec<UnixStream>>,
    to: Mutex<PathBuf>,
    commits: AtomicU64,
    ended: AtomicBool,
}

pub struct Proxy {
    directory: Directory,
    state: Arc<State>,
}

const SOCKET: &str = ".s.PGSQL.5432";
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";
const APPEND: &[u8] = b"INSERT INTO sessioncap.log";
const NOTIFY: &[u8] = b"pg_notify('sessioncap'";
/// As long, to a channel on which nobody listens.
const MUTED: &[u8] = b"pg_notify('nobody....'";

impl Proxy {
    pub fn new(to: &Path) -> Self {
        let directory = Directory::new();
        let listener = UnixListener::bind(directory.0.join(SOCKET)).unwrap();
        let state = Arc::new(State { to: Mutex::new(to.join(SOCKET)), ..State::default() });
        let accepting = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { return };
                if accepting.down.load(Ordering::SeqCst) {
                    continue;
                }
                let to = accepting.to.lock().unwrap().clone();
                let Ok(server) = UnixStream::connect(to) else { continue };
                let streams = [client.try_clone().unwrap(), server.try_clone().unwrap()];
                accepting.open.lock().unwrap().extend(streams);
                for (from, to, is_client) in [
                    (client.try_clone().unwrap(), server.try_clone().unwrap(), true),
                    (server, client, false),
                ] {
                    let state = Arc::clone(&accepting);
                    std::thread::spawn(move || pass(&state, from, to, is_client));
                }
            }
        });
        Self { directory, state }
    }

    pub fn directory(&self) -> &Path {
        &self.directory.0
    }

    pub fn freeze(&self, frozen: bool) {
        self.state.frozen.store(frozen, Ordering::SeqCst);
    }

    /// Drops every notification.
    pub fn mute(&self, mute: bool) {
        self.state.mute.store(mute, Ordering::SeqCst);
    }

    /// Cuts every connection, and accepts none until it is up again.
    pub fn set_down(&self, down: bool) {
        self.state.down.store(down, Ordering::SeqCst);
        self.cut_all();
    }

    pub fn cut_all(&self) {
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn set_delay(&self, each_way: Duration) {
        self.state.delay.store(u64::try_from(each_way.as_micros()).unwrap(), Ordering::SeqCst);
    }

    pub fn cut_next(&self, cut: Cut) {
        *self.state.cut.lock().unwrap() = Some(cut);
    }

    /// Whether the cut has happened.
    pub fn has_cut(&self) -> bool {
        self.state.cut.lock().unwrap().is_none()
    }

    /// Leads to another server, for those who connect from now on.
    pub fn lead_to(&self, to: &Path) {
        *self.state.to.lock().unwrap() = to.join(SOCKET);
    }

    /// How many commits of appends have passed.
    pub fn commits(&self) -> u64 {
        self.state.commits.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        self.freeze(false);
        self.cut_all();
        // So that the listener wakes.
        let _ = UnixStream::connect(self.directory.0.join(SOCKET));
    }
}

/// Bytes on their way, when they arrive, and whether nothing comes after them.
struct OnTheWay(Instant, Vec<u8>, bool);

fn pass(state: &Arc<State>, mut from: UnixStream, to: UnixStream, is_client: bool) {
    let (sender, receiver) = channel();
    let (arriving, end) = (Arc::clone(state), to.try_clone().unwrap());
    std::thread::spawn(move || arrive(&arriving, &receiver, to));
    let mut bytes = vec![0; 1 << 16];
    let mut appends = false;
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        let due = Instant::now() + Duration::from_micros(state.delay.load(Ordering::SeqCst));
        let mut part = bytes[..length].to_vec();
        let mut cut = None;
        if is_client {
            let notifies = part.windows(NOTIFY.len()).position(|window| window == NOTIFY);
            if let Some(at) = notifies.filter(|_| state.mute.load(Ordering::SeqCst)) {
                part[at..at + MUTED.len()].copy_from_slice(MUTED);
            }
            appends |= part.windows(APPEND.len()).any(|window| window == APPEND);
            let commits = part == COMMIT && appends;
            let mut wanted = state.cut.lock().unwrap();
            let now = match *wanted {
                Some(Cut::BeforeAppend) => appends,
                Some(Cut::BeforeCommit | Cut::AfterCommit | Cut::FreezeBeforeCommit) => commits,
                None => false,
            };
            if now {
                cut = wanted.take();
            }
            if commits {
                appends = false;
                state.commits.fetch_add(1, Ordering::SeqCst);
            }
        }
        match cut {
            Some(Cut::BeforeAppend | Cut::BeforeCommit) => {
                let _ = end.shutdown(Shutdown::Both);
                break;
            }
            Some(Cut::AfterCommit) => {
                // The answer goes nowhere.
                let _ = from.shutdown(Shutdown::Both);
                let _ = sender.send(OnTheWay(due, part, true));
                return;
            }
            Some(Cut::FreezeBeforeCommit) => state.frozen.store(true, Ordering::SeqCst),
            None => {}
        }
        if sender.send(OnTheWay(due, part, false)).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
}

/// Delivers what is on its way, in its order and not before its time.
fn arrive(state: &State, receiver: &Receiver<OnTheWay>, mut to: UnixStream) {
    for OnTheWay(due, bytes, last) in receiver {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        while state.frozen.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if to.write_all(&bytes).is_err() {
            break;
        }
        if last {
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
