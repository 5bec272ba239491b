//! The audit file: one JSON object a line, appended as things happen, and read again for devices.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sessioncap::limits::MAX_FRAME_LEN;
use sessioncap::{AuditRecord, SessionId};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};

use super::Log;
use crate::programs::problem::{Outcome, Problem, While};

/// Records that are shown at most, the last ones.
const SHOWN: usize = 1_000;
/// Bytes of the file that are looked through at most, the last ones.
const LOOKED_THROUGH: u64 = 16 * 1024 * 1024;
/// Bytes of one answer, with room for what stands around the records.
const ROOM: usize = MAX_FRAME_LEN - 256;

/// An audit file that is being written.
pub(super) struct Journal {
    path: PathBuf,
    queue: mpsc::UnboundedSender<Entry>,
    /// One reader at a time: the file may be long.
    reading: Mutex<()>,
}

enum Entry {
    Record(AuditRecord),
    /// To be answered once everything before it is in the file.
    Written(oneshot::Sender<()>),
}

impl Journal {
    /// Opens the file, and starts the task that writes it. The task ends once the journal and every
    /// sink of it are dropped and what they took is written.
    pub(super) fn open(path: PathBuf, log: Log) -> Outcome<(Self, JoinHandle<()>)> {
        let opened = open_whole(&path);
        let file = opened.during(format_args!(
            "the audit file {} cannot be written; name another with `--audit`, or `--audit none`",
            path.display()
        ))?;
        let (queue, entries) = mpsc::unbounded_channel();
        let writing = tokio::spawn(write(file.into(), path.clone(), entries, log));
        Ok((Self { path, queue, reading: Mutex::default() }, writing))
    }

    /// Takes the gate's records, without waiting.
    pub(super) fn sink(&self) -> impl Fn(AuditRecord) + Send + Sync + 'static {
        let queue = self.queue.clone();
        move |record| drop(queue.send(Entry::Record(record)))
    }

    /// The records of a session, or all, oldest first: as many as fit an answer. `after` is what the
    /// answer before said to go on from.
    pub(super) async fn read(&self, session: Option<SessionId>, after: Option<u64>) -> Outcome<Value> {
        let (tell, written) = oneshot::channel();
        let _one = self.reading.lock().await;
        // A writer that is gone has written what it could.
        let _ = self.queue.send(Entry::Written(tell));
        let _ = written.await;
        let path = self.path.clone();
        let read = spawn_blocking(move || read_page(&path, session.as_ref().map(SessionId::as_str), after));
        let read = read.await.map_err(|_| Problem::said("the audit file could not be read"))?;
        read.during(format_args!("the audit file {} cannot be read", self.path.display()))
    }
}

/// Opens for appending. Half a line, from a writer that was killed, becomes a line of its own.
fn open_whole(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

async fn write(
    mut file: tokio::fs::File,
    path: PathBuf,
    mut entries: mpsc::UnboundedReceiver<Entry>,
    log: Log,
) {
    let mut torn = false;
    while let Some(entry) = entries.recv().await {
        let record = match entry {
            Entry::Record(record) => record,
            Entry::Written(tell) => {
                // Whoever asked may have left.
                let _ = tell.send(());
                continue;
            }
        };
        let Ok(mut line) = serde_json::to_vec(&record) else { continue };
        line.push(b'\n');
        if torn {
            line.insert(0, b'\n');
        }
        let written = match file.write_all(&line).await {
            Ok(()) => file.flush().await,
            Err(error) => Err(error),
        };
        torn = written.is_err();
        if let Err(error) = written {
            log(format!("an audit record could not be written to {}: {error}", path.display()));
        }
    }
}

/// A record on its way to a device.
struct Shown {
    entry: Value,
    length: usize,
    /// Where its line begins.
    at: u64,
}

fn read_page(path: &Path, session: Option<&str>, after: Option<u64>) -> io::Result<Value> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let begin = after.unwrap_or_else(|| length.saturating_sub(LOOKED_THROUGH));
    file.seek(SeekFrom::Start(begin))?;
    let mut reader = BufReader::new(file.take(LOOKED_THROUGH));
    let mut scan = Scan { last: None, from_start: begin == 0, restarted: false, missing: false, any: false };
    let mut shown = Vec::new();
    let mut at = begin;
    let mut line = Vec::new();
    let mut first = true;
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        // What is not whole yet is still being written.
        if line.last() != Some(&b'\n') {
            break;
        }
        let beginning = at;
        at = at.saturating_add(read as u64);
        let (was_first, record) = (std::mem::replace(&mut first, false), parse(&line));
        if was_first && begin > 0 {
            // The one that was shown last, or the rest of one that is too far back.
            scan.last = record.map(|record| (record.opening, record.sequence));
            scan.any = after.is_some();
            continue;
        }
        let Some(record) = record else {
            scan.missing |= line.iter().any(|byte| !byte.is_ascii_whitespace());
            continue;
        };
        if let Some(entry) = scan.take(record, session) {
            let length = entry.to_string().len();
            shown.push(Shown { entry, length, at: beginning });
        }
    }
    let dropped = if after.is_none() { shown.len().saturating_sub(SHOWN) } else { 0 };
    let earlier = after.is_none() && (begin > 0 || dropped > 0);
    let mut room = ROOM;
    let mut entries = Vec::new();
    let mut next = None;
    for Shown { entry, length, at } in shown.into_iter().skip(dropped) {
        match room.checked_sub(length.saturating_add(1)) {
            Some(less) => room = less,
            None => {
                // The last one that fits is where to go on.
                return Ok(json!({ "ok": true, "entries": entries, "earlier": earlier, "next": next }));
            }
        }
        next = Some(at);
        entries.push(entry);
    }
    Ok(json!({
        "ok": true, "entries": entries, "earlier": earlier, "next": null,
        "restarted": scan.restarted, "missing": scan.missing,
    }))
}

struct Record {
    opening: u64,
    sequence: u64,
    value: Value,
}

fn parse(line: &[u8]) -> Option<Record> {
    let value: Value = serde_json::from_slice(line).ok()?;
    let number = |key: &str| value.get(key).and_then(Value::as_u64);
    let (opening, sequence) = (number("opening")?, number("sequence")?);
    Some(Record { opening, sequence, value })
}

/// Goes through the file, and sees what is not in it.
struct Scan {
    last: Option<(u64, u64)>,
    /// Whether the first record seen is the first of the file.
    from_start: bool,
    /// What happened between the last record that was shown and the next.
    restarted: bool,
    missing: bool,
    /// Whether a record was shown.
    any: bool,
}

impl Scan {
    /// The record with what stands before it, if it is to be shown.
    fn take(&mut self, record: Record, session: Option<&str>) -> Option<Value> {
        let Record { opening, sequence, value } = record;
        let (restarted, missing) = match self.last {
            None => (false, self.from_start && sequence != 0),
            Some((last, number)) if last == opening && sequence == number.saturating_add(1) => (false, false),
            // A ledger in memory is at its first opening each time.
            Some((last, _)) if sequence == 0 => (true, opening > last.saturating_add(1)),
            Some((last, _)) => (last != opening, true),
        };
        self.last = Some((opening, sequence));
        if restarted && !self.any {
            // From before the session.
            (self.restarted, self.missing) = (false, missing);
        } else {
            self.restarted |= restarted;
            self.missing |= missing;
        }
        let event = value.get("event").and_then(Value::as_str).unwrap_or_default();
        let wanted = match session {
            None => true,
            // A reset takes every session's phones.
            Some(_) if event == "clock_reset" => self.any,
            Some(session) => value.get("session").and_then(Value::as_str) == Some(session),
        };
        wanted.then(|| {
            self.any = true;
            let (restarted, missing) =
                (std::mem::take(&mut self.restarted), std::mem::take(&mut self.missing));
            json!({ "record": value, "restarted": restarted, "missing": missing })
        })
    }
}
