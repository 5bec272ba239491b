//! The agent's log: written by a thread of its own, so that nobody who serves a peer waits for a terminal, a pipe
//! or a disk. What it cannot take is dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Log;
use crate::problem::{Outcome, While};
use crate::terminal::{harmless, note};

/// Lines that wait to be written.
const WAITING: usize = 1024;
/// How long the end of the program waits for them.
const FINISH: Duration = Duration::from_secs(1);

/// A log that is being written, to a file or to standard error.
pub struct Writer {
    lines: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

enum Entry {
    Line(String),
    Reopen,
    Finish(SyncSender<()>),
}

impl Writer {
    /// Opens the file; without one, lines go to standard error.
    pub fn start(path: Option<PathBuf>) -> Outcome<Self> {
        let file = match &path {
            Some(path) => {
                Some(open(path).during(format_args!("the log {} cannot be written", path.display()))?)
            }
            None => None,
        };
        let (lines, waiting) = sync_channel(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        std::thread::spawn(move || write_all(path.as_deref(), file, &waiting, &counted));
        Ok(Self { lines, dropped })
    }

    /// Takes lines without waiting.
    pub fn log(&self) -> Log {
        let (lines, dropped) = (self.lines.clone(), Arc::clone(&self.dropped));
        Arc::new(move |line| {
            if let Err(TrySendError::Full(_)) = lines.try_send(Entry::Line(line)) {
                dropped.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    /// How many lines were dropped.
    pub fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    /// Opens the file again, which may have been renamed.
    pub fn reopen(&self) {
        // Behind a full queue it is asked for again with the next signal.
        let _ = self.lines.try_send(Entry::Reopen);
    }

    /// Waits a moment until what was said before is written.
    pub fn finish(&self) {
        let (tell, told) = sync_channel(1);
        if self.lines.try_send(Entry::Finish(tell)).is_ok() {
            let _: Result<(), RecvTimeoutError> = told.recv_timeout(FINISH);
        }
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn write_all(path: Option<&Path>, mut file: Option<File>, lines: &Receiver<Entry>, dropped: &AtomicU64) {
    let mut told = 0;
    let mut failing = false;
    while let Ok(entry) = lines.recv() {
        let line = match entry {
            Entry::Line(line) => line,
            Entry::Reopen => {
                if let Some(path) = path {
                    match open(path) {
                        Ok(new) => file = Some(new),
                        Err(error) => {
                            note(&format!("agent: the log {} stays as it is: {error}", path.display()))
                        }
                    }
                }
                continue;
            }
            Entry::Finish(tell) => {
                let _ = tell.send(());
                continue;
            }
        };
        let mut write = |line: &str| match &mut file {
            None => note(&format!("agent: {}", harmless(line))),
            Some(file) => {
                let time = OffsetDateTime::now_utc().replace_nanosecond(0).ok();
                let time = time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default();
                let written = writeln!(file, "{time} {}", harmless(line));
                if let Err(error) = &written {
                    dropped.fetch_add(1, Ordering::Relaxed);
                    if !failing {
                        note(&format!("agent: lines of the log are lost: {error}"));
                    }
                }
                failing = written.is_err();
            }
        };
        let now = dropped.load(Ordering::Relaxed);
        if now > told {
            write(&format!("{} lines were dropped here: the log is not written fast enough", now - told));
            told = now;
        }
        write(&line);
    }
}
