//! A terminal that shows a session: raw while it does, and as it was before afterwards, however that ends.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

use super::may_style;
use super::modes::Modes;
use crate::lock;
use crate::problem::{Outcome, Problem, While};

/// Pieces of output that wait for the terminal at most.
const WAITING: usize = 16;
/// How long a terminal that takes nothing is waited for, when it is put in order.
const PATIENCE: Duration = Duration::from_millis(500);

/// Brings pastes in brackets, so that what they contain is not taken for keys.
const BRACKET_PASTES: &[u8] = b"\x1b[?2004h";

/// A terminal in a viewer's hands. It is put in order when this is dropped, also by a panic.
pub struct Viewer {
    shared: Arc<Shared>,
    output: mpsc::Sender<Vec<u8>>,
}

struct Shared {
    input: OwnedFd,
    out: OwnedFd,
    before: Option<Termios>,
    /// Whether what is shown goes to a terminal.
    shows: bool,
    modes: Mutex<Modes>,
    /// Held while bytes go out.
    writing: Mutex<()>,
    over: AtomicBool,
}

impl Viewer {
    /// Takes the terminal of standard input and output. What is no terminal is left as it is.
    pub fn enter() -> Outcome<Self> {
        let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().during("the terminal cannot be used");
        let viewer = Self::on(copy(io::stdin().as_fd())?, copy(io::stdout().as_fd())?);
        let shared = Arc::clone(&viewer.shared);
        let report = std::panic::take_hook();
        // Before the report, which nobody could read on the session's screen.
        std::panic::set_hook(Box::new(move |panic| {
            shared.restore();
            report(panic);
        }));
        Ok(viewer)
    }

    /// Takes any terminal.
    pub fn on(input: OwnedFd, out: OwnedFd) -> Self {
        let shows = out.is_terminal();
        let before = tcgetattr(&input).ok().filter(|before| {
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(&input, OptionalActions::Now, &raw).is_ok()
        });
        let (modes, writing, over) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        let shared = Arc::new(Shared { input, out, before, shows, modes, writing, over });
        let (output, waiting) = mpsc::channel(WAITING);
        let writer = Arc::clone(&shared);
        // A thread of its own: a terminal that is stopped must keep nobody from leaving it.
        std::thread::spawn(move || writer.write_all(waiting));
        Self { shared, output }
    }

    /// Whether keys come one by one.
    pub fn is_raw(&self) -> bool {
        self.shared.before.is_some()
    }

    /// Whether the session wants pastes in brackets.
    pub fn brackets_pastes(&self) -> bool {
        lock(&self.shared.modes).brackets_pastes()
    }

    /// Has pastes bracketed from now on. The session's programs notice nothing of it.
    pub async fn bracket_pastes(&self) -> Outcome<()> {
        self.put(if self.shared.shows && self.is_raw() { BRACKET_PASTES.to_vec() } else { Vec::new() }).await
    }

    /// Shows output. Cancel-safe: it is shown whole or not at all.
    pub async fn show(&self, bytes: Vec<u8>) -> Outcome<()> {
        let room = self.room().await?;
        let shown = {
            let mut modes = lock(&self.shared.modes);
            modes.feed(&bytes);
            // The session does not want them any more; the viewer still does. Not within a sequence.
            let again = self.shared.shows && self.is_raw() && modes.is_between() && modes.took_brackets();
            if again { [&bytes, BRACKET_PASTES].concat() } else { bytes }
        };
        room.send(shown);
        Ok(())
    }

    /// Says something on the last line, where it is overwritten by what comes; where nothing is raw, on a line of its
    /// own on standard error.
    pub async fn say(&self, text: &str) -> Outcome<()> {
        if !(self.shared.shows && self.is_raw()) {
            super::note(text);
            return Ok(());
        }
        let abort = lock(&self.shared.modes).abort();
        let line = match may_style() {
            true => format!("{abort}\x1b7\x1b[999;1H\x1b[0;7m {text} \x1b[0m\x1b[K\x1b8"),
            false => format!("{abort}\r\n[{text}]\r\n"),
        };
        self.put(line.into_bytes()).await
    }

    /// Clears the screen, and shows lines of the viewer's own.
    pub async fn page(&self, lines: &str) -> Outcome<()> {
        let abort = lock(&self.shared.modes).abort();
        let clear = if may_style() { "\x1b[0m\x1b[2J\x1b[H" } else { "" };
        self.put(format!("{abort}{clear}{}", lines.replace('\n', "\r\n")).into_bytes()).await
    }

    /// More lines of the viewer's own.
    pub async fn more(&self, lines: &str) -> Outcome<()> {
        self.put(lines.replace('\n', "\r\n").into_bytes()).await
    }

    async fn put(&self, bytes: Vec<u8>) -> Outcome<()> {
        self.room().await?.send(bytes);
        Ok(())
    }

    async fn room(&self) -> Outcome<mpsc::Permit<'_, Vec<u8>>> {
        self.output.reserve().await.map_err(|_| Problem::said("standard output is closed"))
    }

    /// Waits until everything was shown, or the terminal takes nothing more.
    pub async fn finish(self) {
        let shared = Arc::clone(&self.shared);
        let all = self.output.reserve_many(WAITING);
        // All places are free once the last piece was taken; it is written before the lock is free again.
        let _ = tokio::time::timeout(PATIENCE, all).await.map(drop);
        drop(self);
        drop(shared);
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.shared.restore();
    }
}

impl Shared {
    fn write_all(&self, mut waiting: mpsc::Receiver<Vec<u8>>) {
        while let Some(bytes) = waiting.blocking_recv() {
            let writing = lock(&self.writing);
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                if self.over.load(Ordering::Acquire) {
                    return;
                }
                match self.write_some(rest) {
                    Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                    // The receiver is dropped, so that the viewer is told.
                    Err(_) => return,
                }
            }
            drop(writing);
        }
    }

    /// Writes what the terminal takes; nothing after a moment in which it took nothing.
    fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        let moment = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        match poll(&mut [PollFd::new(&self.out, PollFlags::OUT)], Some(&moment)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => Ok(0),
            // A part of it: a terminal that is written to takes the whole or waits.
            Ok(_) => match rustix::io::write(&self.out, bytes.get(..256).unwrap_or(bytes)) {
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(0),
                written => Ok(written?),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Puts the terminal in order, once.
    fn restore(&self) {
        if self.over.swap(true, Ordering::AcqRel) {
            return;
        }
        let end = Instant::now() + PATIENCE;
        // The writer ends at its next piece. One that is stuck is not waited for.
        let writing = loop {
            match self.writing.try_lock() {
                Ok(writing) => break Some(writing),
                Err(std::sync::TryLockError::Poisoned(poisoned)) => break Some(poisoned.into_inner()),
                Err(std::sync::TryLockError::WouldBlock) if Instant::now() >= end => break None,
                Err(std::sync::TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        if self.shows && (self.before.is_some() || self.out.is_terminal()) {
            let undo = lock(&self.modes).undo();
            let mut rest = undo.as_bytes();
            while !rest.is_empty() && Instant::now() < end && writing.is_some() {
                match self.write_some(rest) {
                    Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                    Err(_) => break,
                }
            }
        }
        if let Some(before) = &self.before {
            // At once: output that the terminal does not take would be waited for otherwise.
            let _ = tcsetattr(&self.input, OptionalActions::Now, before);
        }
    }
}
