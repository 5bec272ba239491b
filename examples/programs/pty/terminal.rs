//! The operating system's side of a session: a terminal, the program on it, and their signals.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use portable_pty::{Child, CommandBuilder, MasterPty, PtyPair, PtySize, native_pty_system};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

/// Most bytes written at a time: what a terminal that is ready for any takes without blocking.
const WRITE_STEP: usize = 256;

/// What to run, and where.
pub struct Launch {
    command: CommandBuilder,
    pub shown_command: String,
    pub cwd: PathBuf,
}

impl Launch {
    /// `/bin/sh -c COMMAND`, or the user's shell.
    pub fn new(command: Option<String>, cwd: Option<PathBuf>) -> io::Result<Self> {
        let cwd = working_directory(cwd)?;
        let (mut builder, shown_command) = match command {
            Some(command) => (shell_command(&command), command),
            None => {
                let shell = user_shell();
                (CommandBuilder::new(&shell), shell)
            }
        };
        builder.cwd(&cwd);
        builder.env("TERM", "xterm-256color");
        Ok(Self { command: builder, shown_command, cwd })
    }

    /// Starts the program on a new terminal.
    pub fn start(self, size: PtySize) -> io::Result<Started> {
        let PtyPair { slave, master } = native_pty_system().openpty(size).map_err(io::Error::other)?;
        let reading = MasterEnd::of(master.as_ref())?;
        let writing = MasterEnd::of(master.as_ref())?;
        let leader = slave.spawn_command(self.command).map_err(io::Error::other)?;
        // The slave is dropped here: with the program's own gone, reading must come to an end.
        Ok(Started {
            terminal: Terminal { master: Some(master), size },
            program: Program::new(leader)?,
            reading,
            writing,
        })
    }
}

/// A program just started, and the two ends of its terminal.
pub struct Started {
    pub terminal: Terminal,
    pub program: Program,
    pub reading: MasterEnd,
    pub writing: MasterEnd,
}

/// Checked here, because portable-pty starts a program in the home directory if it cannot in the one given.
fn working_directory(cwd: Option<PathBuf>) -> io::Result<PathBuf> {
    let cwd = cwd.map_or_else(std::env::current_dir, Ok)?.canonicalize()?;
    if cwd.is_dir() { Ok(cwd) } else { Err(ErrorKind::NotADirectory.into()) }
}

fn shell_command(command: &str) -> CommandBuilder {
    let mut builder = CommandBuilder::new("/bin/sh");
    builder.args(["-c", command]);
    builder
}

fn user_shell() -> String {
    let shell = std::env::var("SHELL").ok();
    shell.filter(|shell| Path::new(shell).is_absolute()).unwrap_or_else(|| "/bin/sh".to_owned())
}

/// The hub's hold on a terminal.
pub struct Terminal {
    master: Option<Box<dyn MasterPty + Send>>,
    size: PtySize,
}

impl Terminal {
    pub fn size(&self) -> PtySize {
        self.size
    }

    pub fn resize(&mut self, size: PtySize) -> io::Result<()> {
        let master = self.master.as_ref().ok_or(ErrorKind::NotConnected)?;
        master.resize(size).map_err(io::Error::other)?;
        self.size = size;
        Ok(())
    }

    /// Once both ends are dropped too, the kernel hangs up on whoever still has the terminal open.
    pub fn let_go(&mut self) {
        self.master = None;
    }

    /// The group that the terminal sends its signals to: with an interactive shell, the job in front.
    pub fn foreground(&self) -> Option<ProcessGroup> {
        ProcessGroup::new(self.master.as_ref()?.process_group_leader()?)
    }
}

/// A descriptor of a terminal's master side, for one thread to read or to write.
///
/// The descriptor blocks, so each call first waits until it would not. That wait can be dropped, whereas a
/// blocked call might never return: a process outside the program's group may keep the terminal open.
pub struct MasterEnd(File);

impl MasterEnd {
    /// Not `try_clone_reader` and `take_writer`, which cannot be waited on; and that writer, when dropped,
    /// blocks on a program that does not read.
    fn of(master: &dyn MasterPty) -> io::Result<Self> {
        let fd = master.as_raw_fd().ok_or(ErrorKind::Unsupported)?;
        // SAFETY: `fd` is the descriptor that `master` owns, and `master` outlives this borrow of it.
        let owned = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
        Ok(Self(File::from(owned)))
    }

    /// Some bytes, or 0 or an error when nobody has the other side open. Cancel-safe.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.ready(Interest::READABLE).await?;
        self.0.read(buffer)
    }

    /// Writes some of `bytes` and returns how many. Cancel-safe.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Linux may block a write for good that comes while the last holder of the other side closes it.
        if self.ready(Interest::WRITABLE).await?.is_write_closed() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        self.0.write(bytes.get(..WRITE_STEP).unwrap_or(bytes))
    }

    /// Registers anew each time: the event loop reports changes only, and a descriptor that blocks cannot be
    /// used up to the point where a change is sure to come.
    async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        // SAFETY: the descriptor is open as long as `self`, and the registration ends with this borrow of it.
        let watched = unsafe { AsyncFd::register_with_interest(self.0.as_raw_fd(), interest) }?;
        let guard = watched.ready(interest).await?;
        Ok(guard.ready())
    }
}

/// The process that leads a session's process group, and how far its end has come.
pub struct Program {
    leader: Box<dyn Child + Send + Sync>,
    group: ProcessGroup,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// With the job that was in front: its shell, when it dies of the signal, takes it off the terminal.
    HungUp(Option<ProcessGroup>),
    Killed,
    /// The leader's id may belong to another process by now: it must not be signalled.
    Reaped,
}

impl Program {
    fn new(mut leader: Box<dyn Child + Send + Sync>) -> io::Result<Self> {
        // portable-pty makes the child a session leader, so its process id is its group's id too.
        let id = leader.process_id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = id.and_then(ProcessGroup::new) {
            return Ok(Self { leader, group, phase: Phase::Running });
        }
        leader.kill()?;
        leader.wait()?;
        Err(io::Error::other("the program has no process id"))
    }

    /// Neither reaped nor signalled to end.
    pub fn is_undisturbed(&self) -> bool {
        self.phase == Phase::Running
    }

    pub fn has_exited(&self) -> bool {
        self.phase == Phase::Reaped
    }

    /// What a closing terminal does. An interactive shell passes it on to its jobs.
    pub fn hang_up(&mut self, foreground: Option<ProcessGroup>) {
        if self.phase == Phase::Running {
            self.signal(foreground, SIGHUP);
            self.phase = Phase::HungUp(foreground);
        }
    }

    pub fn kill(&mut self, foreground: Option<ProcessGroup>) {
        match self.phase {
            Phase::Running => self.signal(foreground, SIGKILL),
            // The kernel hands ids out in a circle: one that came free within the grace is not in use again.
            Phase::HungUp(job) => self.signal(foreground.or(job), SIGKILL),
            Phase::Killed | Phase::Reaped => return,
        }
        self.phase = Phase::Killed;
    }

    fn signal(&self, foreground: Option<ProcessGroup>, signal: i32) {
        self.group.signal(signal);
        if let Some(job) = foreground.filter(|job| *job != self.group) {
            job.signal(signal);
        }
    }

    /// Whether the leader has exited; reaps it if so. After `hang_up` it takes a `kill` first: members that
    /// ignored the SIGHUP can be reached only as long as the leader holds the group's id.
    pub fn reap(&mut self) -> bool {
        match self.phase {
            Phase::Reaped => return true,
            Phase::HungUp(_) => return false,
            Phase::Running | Phase::Killed => {}
        }
        // An error means that there is no such child to wait for any more.
        let exited = !matches!(self.leader.try_wait(), Ok(None));
        if exited {
            self.phase = Phase::Reaped;
        }
        exited
    }
}

impl Drop for Program {
    /// For a session that failed to start; any other is reaped by its reading thread.
    fn drop(&mut self) {
        self.kill(None);
        if !self.reap() {
            // Fails only if there is nothing to wait for.
            let _ = self.leader.wait();
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ProcessGroup(i32);

impl ProcessGroup {
    /// None for the ids with which kill(2) would reach the hub's own group or every process.
    fn new(id: i32) -> Option<Self> {
        (id > 1).then_some(Self(id))
    }

    /// Fails only if nobody is left in the group, or nobody whom this user may signal.
    fn signal(self, signal: i32) {
        kill(-self.0, signal);
    }
}

// The same on every Unix.
const SIGHUP: i32 = 1;
const SIGKILL: i32 = 9;

// SAFETY: kill(2) of the C library that std links anyway. It takes two integers, as pid_t is an i32 on every
// Unix that Rust supports, and touches no memory.
unsafe extern "C" {
    safe fn kill(pid: i32, signal: i32) -> i32;
}
