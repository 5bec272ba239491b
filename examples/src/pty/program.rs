//! The operating system's side of a session: a terminal, the program on it, and their signals.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use pty_process::OwnedReadPty;
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
use rustix::termios::{LocalModes, SpecialCodeIndex, Winsize, tcgetattr, tcgetpgrp, tcsetwinsize};
use tokio::process::Child;

use super::SessionSpec;

/// What a program inherits. The agent's own environment may hold secrets.
const INHERITED: [&str; 9] = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// Forks one at a time. A terminal's master side is marked close-on-exec only after it is open, and a
/// program started in between would inherit another session's terminal.
static SPAWNING: Mutex<()> = Mutex::new(());

/// Runs `spawn` while nothing else forks.
pub fn spawn_alone<T>(spawn: impl FnOnce() -> T) -> T {
    let _alone = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
    spawn()
}

/// The part of the agent's environment that programs get.
pub fn safe_environment() -> impl Iterator<Item = (&'static str, OsString)> {
    INHERITED.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)))
}

/// A program just started, and its terminal.
pub(super) struct Started {
    pub(super) command: String,
    pub(super) cwd: String,
    pub(super) terminal: Terminal,
    pub(super) reading: OwnedReadPty,
    pub(super) program: Program,
}

pub(super) fn start(spec: &SessionSpec) -> io::Result<Started> {
    let cwd = working_directory(spec.cwd.clone())?;
    let argv = if spec.argv.is_empty() { vec![user_shell()] } else { spec.argv.clone() };
    let (name, arguments) = argv.split_first().ok_or(ErrorKind::InvalidInput)?;
    let command = pty_process::Command::new(name)
        .args(arguments)
        .current_dir(&cwd)
        .env_clear()
        .envs(safe_environment())
        .env("TERM", "xterm-256color")
        // For an agent whose runtime ends without a shutdown.
        .kill_on_drop(true);
    let (master, terminal, child) = spawn_alone(|| {
        let (master, slave) = pty_process::open().map_err(io::Error::other)?;
        let terminal = Terminal(master.as_fd().try_clone_to_owned()?);
        terminal.resize(spec.cols, spec.rows)?;
        // The slave is closed here: with the program's own gone, reading must come to an end.
        let child = command.spawn(slave).map_err(io::Error::other)?;
        io::Result::Ok((master, terminal, child))
    })?;
    let (reading, _) = master.into_split();
    // The child leads a new session, so its process id is its group's id too.
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let group = group.ok_or_else(|| io::Error::other("the program has no process id"))?;
    let program = Program { child, group, front: None, exit: None };
    let (command, cwd) = (argv.join(" "), cwd.to_string_lossy().into_owned());
    Ok(Started { command, cwd, terminal, reading, program })
}

/// Checked here, so that an unusable directory is an error of its own and not of the program.
fn working_directory(cwd: Option<PathBuf>) -> io::Result<PathBuf> {
    let cwd = cwd.map_or_else(std::env::current_dir, Ok)?.canonicalize()?;
    if cwd.is_dir() { Ok(cwd) } else { Err(ErrorKind::NotADirectory.into()) }
}

fn user_shell() -> String {
    let shell = std::env::var("SHELL").ok();
    shell.filter(|shell| Path::new(shell).is_absolute()).unwrap_or_else(|| "/bin/sh".to_owned())
}

/// The hub's hold on a terminal, beside the half that the session's task reads. Writing to it does not block.
pub(super) struct Terminal(pub(super) OwnedFd);

impl Terminal {
    pub(super) fn resize(&self, cols: u16, rows: u16) -> io::Result<()> {
        let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(&self.0, size)?)
    }

    /// Writes what the terminal takes at once. An error is the end of the session.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match rustix::io::write(&self.0, bytes) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
            written => Ok(written?),
        }
    }

    /// How many bytes the program has not read. `unfinished` of those that were written do not end a line yet: a terminal
    /// that edits lines does not count them, and drops what makes the only line too long.
    pub(super) fn unread(&self, unfinished: u64) -> u64 {
        // Looking from the program's side: only there the terminal tells what it keeps. Fails once nobody has that
        // side open; then a write says so.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let counted = ioctl_tiocgptpeer(&self.0, flags).and_then(rustix::io::ioctl_fionread).unwrap_or(0);
        let uncounted = if counted > 0 && self.has_mode(LocalModes::ICANON) { unfinished } else { 0 };
        counted.saturating_add(uncounted)
    }

    /// Whether the terminal turns this byte into SIGINT.
    pub(super) fn interrupts_on(&self, byte: u8) -> bool {
        tcgetattr(&self.0).is_ok_and(|mode| {
            mode.local_modes.contains(LocalModes::ISIG) && mode.special_codes[SpecialCodeIndex::VINTR] == byte
        })
    }

    fn has_mode(&self, asked: LocalModes) -> bool {
        tcgetattr(&self.0).is_ok_and(|mode| mode.local_modes.contains(asked))
    }

    /// Sends SIGINT to the group in front, past all that waits to be read.
    pub(super) fn interrupt(&self) {
        if let Some(front) = self.front() {
            // Fails only if nobody is left in the group, or nobody whom this user may signal.
            let _ = kill_process_group(front, Signal::INT);
        }
    }

    /// The group that the terminal sends its signals to: with an interactive shell, the job in front.
    fn front(&self) -> Option<Pid> {
        tcgetpgrp(&self.0).ok()
    }
}

/// The process that leads a session's process group. Only the session's own task holds it, so that
/// nobody signals its group after it was reaped and its id given to another.
pub(super) struct Program {
    child: Child,
    group: Pid,
    /// The job that was in front when the terminal was hung up: its shell, when it dies of that,
    /// takes it off the terminal.
    front: Option<Pid>,
    /// The exit status, or minus the number of the signal, once it was reaped.
    exit: Option<i32>,
}

impl Program {
    pub(super) fn pid(&self) -> i32 {
        self.group.as_raw_nonzero().get()
    }

    pub(super) fn has_exited(&self) -> bool {
        self.exit.is_some()
    }

    /// The exit status, or minus the number of the signal that ended it.
    pub(super) fn exit(&self) -> i32 {
        self.exit.unwrap_or(-1)
    }

    /// Waits until the program has exited, and reaps it. Cancel-safe.
    pub(super) async fn exited(&mut self) {
        // An error means that there is no such child to wait for.
        let status = self.child.wait().await.ok();
        let signal = |status: std::process::ExitStatus| status.signal().map(|number| number.saturating_neg());
        self.exit = Some(status.and_then(|status| status.code().or(signal(status))).unwrap_or(-1));
    }

    /// What a closing terminal does. An interactive shell passes it on to its jobs.
    pub(super) fn hang_up(&mut self, terminal: &Terminal) {
        self.front = terminal.front();
        self.signal(self.front, Signal::HUP);
    }

    /// Kills what is left of the group, unless the program has exited by itself: what it left behind
    /// then, it meant to.
    pub(super) async fn kill_and_reap(&mut self, terminal: &Terminal) {
        if self.has_exited() {
            return;
        }
        self.signal(terminal.front().or(self.front), Signal::KILL);
        self.exited().await;
    }

    fn signal(&self, front: Option<Pid>, signal: Signal) {
        // Fails only if nobody is left in the group, or nobody whom this user may signal.
        let _ = kill_process_group(self.group, signal);
        if let Some(front) = front.filter(|front| *front != self.group) {
            let _ = kill_process_group(front, signal);
        }
    }
}

impl Drop for Program {
    /// For a session whose task was dropped with its runtime.
    fn drop(&mut self) {
        if !self.has_exited() {
            self.signal(self.front, Signal::KILL);
        }
    }
}
