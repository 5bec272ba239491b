//! The agent: a process that speaks JSON-RPC in lines on its standard input and output.
//!
//! The process leads a group of its own, so that what it starts ends with it. It gets the environment of the
//! bridge: the agent is the user's own program, and its keys and paths are there. What it writes to standard
//! error is always read, and goes to a [`Log`] in bounded lines.
//!
//! # What ends it
//! [`Agent::end`], or dropping the [`Agent`]: standard input is closed; after [`Agent::GRACE`] the group gets
//! SIGTERM, after [`Agent::TERM`] SIGKILL. The same follows when the process ends, closes its output, leaves
//! more than [`Agent::INPUT_ROOM`] unread, or sends a message longer than [`Agent::MAX_LINE`]. Such a message
//! may have been the answer that somebody waits for, or a request of the agent that nobody could answer, so
//! nothing after it can be relied on. A long line that does not begin like a message is noise and is skipped.
//!
//! # Noise
//! A line that is no JSON-RPC message is counted, reported as [`Event::Noise`] and never answered. So is the
//! unfinished line before the end of the output. Empty lines are skipped. If such a line is JSON and has the id of an
//! answer or a request, [`Event::Unreadable`] follows, so that nobody waits for it for ever.

mod end;
mod head;
mod lines;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use sessioncap::acp::{Message, MessageError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::{mpsc, oneshot};

use lines::{Line, Lines, replace_lone_surrogates};

pub use head::Unreadable;

/// Gets each line of standard error, at most [`Agent::MAX_LOG_LINE`] bytes of it, with control characters
/// replaced. Called from the task that reads: it must not wait.
pub type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// What to run. Splitting a command line into words is the caller's.
#[derive(Clone)]
pub struct Start {
    /// The program, looked up in `PATH` unless it has a slash.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Where it starts; the bridge's own directory if there is none.
    pub directory: Option<PathBuf>,
    /// Gets its standard error.
    pub log: Log,
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An argument may be a secret.
        f.debug_struct("Start").field("program", &self.program).finish_non_exhaustive()
    }
}

/// What the agent did.
#[derive(Debug)]
pub enum Event {
    /// It sent a message.
    Message(Message),
    /// It wrote a line that is no message.
    Noise(Noise),
    /// The noise before this was an answer or a request.
    Unreadable(Unreadable),
    /// It is gone and reaped, and so is its group. The last event.
    Ended(Ended),
}

/// A line that is no message.
#[derive(Debug)]
pub struct Noise {
    /// Why it is none.
    pub problem: NoiseProblem,
    /// Its beginning, at most [`Agent::MAX_LOG_LINE`] bytes, with control characters replaced.
    pub start: String,
}

/// Why a line is no message.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoiseProblem {
    /// It is no JSON-RPC message.
    NotAMessage(MessageError),
    /// It is longer than [`Agent::MAX_LINE`] and does not begin like a message.
    TooLong,
    /// The output ended within it.
    Unfinished,
}

/// How the agent ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The cause of the end.
    pub cause: Cause,
    /// What the process returned; none if the system does not say.
    pub status: Option<ExitStatus>,
}

/// What began the end of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// [`Agent::end`] was called, or the [`Agent`] dropped.
    Asked,
    /// The process ended by itself.
    Exited,
    /// It closed its standard output, so that nothing more could come.
    OutputClosed,
    /// It sent a message longer than [`Agent::MAX_LINE`].
    MessageTooLong,
    /// It left more than [`Agent::INPUT_ROOM`] bytes unread.
    InputFull,
    /// It closed its standard input, or writing to it failed.
    InputClosed,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "it was asked to end",
            Self::Exited => "it ended by itself",
            Self::OutputClosed => "it closed its output",
            Self::MessageTooLong => "it sent a message longer than 8 MiB",
            Self::InputFull => "it does not read its input",
            Self::InputClosed => "it closed its input",
        })
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    input: mpsc::UnboundedSender<String>,
    shared: Arc<Shared>,
    stop: mpsc::Sender<Cause>,
}

/// What the tasks of one agent count together.
#[derive(Debug, Default)]
struct Shared {
    waiting: AtomicUsize,
    noise: AtomicU64,
}

impl Agent {
    /// The longest line read from the agent, in bytes: a file in a tool call, with room.
    pub const MAX_LINE: usize = 8 << 20;
    /// The most that waits to be written to the agent, in bytes.
    pub const INPUT_ROOM: usize = 16 << 20;
    /// The most of one line of standard error that is kept, in bytes. The rest of the line is dropped.
    pub const MAX_LOG_LINE: usize = 4096;
    /// Events that wait for whoever takes them. The reader waits when there are more: the pipe then holds the
    /// agent back. Whoever takes them must therefore not wait for a viewer.
    pub const EVENTS: usize = 4;
    /// From closing standard input to SIGTERM.
    pub const GRACE: Duration = Duration::from_secs(1);
    /// From SIGTERM to SIGKILL.
    pub const TERM: Duration = Duration::from_secs(2);

    /// Starts the agent. Does not wait for it to say anything.
    ///
    /// # Errors
    /// The system's, if the program cannot be started.
    pub fn start(start: &Start) -> io::Result<(Self, mpsc::Receiver<Event>)> {
        let mut command = Command::new(&start.program);
        command.args(&start.arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        if let Some(directory) = &start.directory {
            command.current_dir(directory);
        }
        let mut child = command.spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let group = end::Group::new(child)?;
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(io::Error::other("the agent has no pipes"));
        };
        let stdin = ChildStdin::from_std(stdin)?;
        let stdout = ChildStdout::from_std(stdout)?;
        let stderr = ChildStderr::from_std(stderr)?;

        let shared = Arc::new(Shared::default());
        let (input, lines) = mpsc::unbounded_channel();
        // One place: the first cause is the one that counts.
        let (stop, stopped) = mpsc::channel(1);
        let (events, received) = mpsc::channel(Self::EVENTS);
        let (no_more, writer_ends) = oneshot::channel();
        let drained = tokio::spawn(drain(stderr, Arc::clone(&start.log)));
        tokio::spawn(write(stdin, lines, Arc::clone(&shared), stop.downgrade(), writer_ends));
        let reader = tokio::spawn(read(stdout, events.clone(), Arc::clone(&shared)));
        tokio::spawn(end::supervise(group, stopped, no_more, (reader, drained), events));
        Ok((Self { input, shared, stop }, received))
    }

    /// Queues a message for the agent. Never waits.
    ///
    /// If the agent is ending, the message is dropped: [`Event::Ended`] follows. If there is no more room, the
    /// agent is ended for [`Cause::InputFull`].
    pub fn send(&self, message: &Message) {
        let mut line = message.to_text();
        line.push('\n');
        let waiting = self.shared.waiting.fetch_add(line.len(), Ordering::Relaxed);
        if waiting.saturating_add(line.len()) > Self::INPUT_ROOM {
            self.stop.try_send(Cause::InputFull).ok();
        } else {
            self.input.send(line).ok();
        }
    }

    /// Lines that were no messages, so far.
    #[must_use]
    pub fn noise(&self) -> u64 {
        self.shared.noise.load(Ordering::Relaxed)
    }

    /// Begins the end of the agent, and returns at once. [`Event::Ended`] comes when it is gone.
    pub fn end(&self) {
        self.stop.try_send(Cause::Asked).ok();
    }
}

async fn write(
    mut stdin: ChildStdin,
    mut lines: mpsc::UnboundedReceiver<String>,
    shared: Arc<Shared>,
    stop: mpsc::WeakSender<Cause>,
    no_more: oneshot::Receiver<()>,
) {
    let writing = async {
        while let Some(line) = lines.recv().await {
            if stdin.write_all(line.as_bytes()).await.is_err() {
                if let Some(stop) = stop.upgrade() {
                    stop.try_send(Cause::InputClosed).ok();
                }
                return;
            }
            shared.waiting.fetch_sub(line.len(), Ordering::Relaxed);
        }
    };
    tokio::select! {
        () = writing => {}
        _ = no_more => {}
    }
}

/// Reads messages until the output ends. True if the last message was too long to be read.
async fn read(mut stdout: ChildStdout, events: mpsc::Sender<Event>, shared: Arc<Shared>) -> bool {
    let mut lines = Lines::new(Agent::MAX_LINE);
    let mut buffer = vec![0; 64 << 10];
    let noise = |problem, line: &[u8]| {
        shared.noise.fetch_add(1, Ordering::Relaxed);
        Event::Noise(Noise { problem, start: shown(line) })
    };
    loop {
        let length = stdout.read(&mut buffer).await.unwrap_or(0);
        for line in lines.read(buffer.get(..length).unwrap_or_default()) {
            let mut unreadable = None;
            let event = match line {
                Line::Whole(line) if line.iter().all(u8::is_ascii_whitespace) => continue,
                Line::Whole(mut line) => match message(&mut line) {
                    Ok(message) => Event::Message(message),
                    Err(problem) => {
                        unreadable = Unreadable::find(&line);
                        noise(NoiseProblem::NotAMessage(problem), &line)
                    }
                },
                Line::TooLong(start) if start.trim_ascii_start().first() == Some(&b'{') => return true,
                Line::TooLong(start) => noise(NoiseProblem::TooLong, &start),
            };
            let mut sent = events.send(event).await;
            if let (Ok(()), Some(unreadable)) = (&sent, unreadable) {
                sent = events.send(Event::Unreadable(unreadable)).await;
            }
            if sent.is_err() {
                // Nobody listens; the pipe is still read, so that the agent can end in order.
                drain(stdout, Arc::new(|_: &str| {})).await;
                return false;
            }
        }
        if length == 0 {
            if lines.is_within_line() {
                events.send(noise(NoiseProblem::Unfinished, b"")).await.ok();
            }
            return false;
        }
    }
}

/// Reads a message. An agent that has cut a text in the middle of a character writes half of a surrogate pair, which
/// is no text; its message counts all the same, or whoever waits for it would wait for ever.
fn message(line: &mut [u8]) -> Result<Message, MessageError> {
    match Message::from_bytes_up_to(line, Agent::MAX_LINE) {
        Err(MessageError::NotJson { .. }) if replace_lone_surrogates(line) => {
            Message::from_bytes_up_to(line, Agent::MAX_LINE)
        }
        read => read,
    }
}

/// Reads to the end and gives each line to `log`.
async fn drain(mut pipe: impl AsyncRead + Unpin, log: Log) {
    let mut lines = Lines::new(Agent::MAX_LOG_LINE);
    let mut buffer = vec![0; 16 << 10];
    loop {
        let length = match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        for line in lines.read(buffer.get(..length).unwrap_or_default()) {
            let (Line::Whole(line) | Line::TooLong(line)) = line;
            log(&shown(&line));
        }
    }
}

/// The beginning of a line, fit for a terminal.
fn shown(line: &[u8]) -> String {
    let start = line.get(..Agent::MAX_LOG_LINE).unwrap_or(line);
    let text = String::from_utf8_lossy(start);
    text.chars().map(|c| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
