//! The audit file: one JSON object a line, appended as things happen, and read again for devices.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sessioncap::SessionId;
use sessioncap::agent::{AuditRecord, AuditSink, NotKept};
use sessioncap::noise::Channel;
use tokio::task::spawn_blocking;

use super::Log;
use crate::lock;
use crate::problem::{Outcome, Problem, While};

/// Records that are shown at most, the last ones.
const SHOWN: usize = 1_000;
/// Bytes of the file that are looked through at most, the last ones.
const LOOKED_THROUGH: u64 = 16 * 1024 * 1024;
/// Bytes of one answer, with room for the JSON around the records.
const ROOM: usize = Channel::MAX_PLAINTEXT_LEN - 256;
/// Bytes at the end of the file that are kept in memory: more than the ledger can pass again.
const TAIL: u64 = 1024 * 1024;
/// How every record begins.
const OPENS_LINE: &[u8] = b"{\"opening\":";

/// The audit file, for those who read it.
pub(super) struct Journal {
    path: PathBuf,
    file: Arc<Mutex<Appended>>,
    log: Log,
    /// One reader at a time: the file may be long.
    reading: tokio::sync::Mutex<()>,
}

/// The audit file, for the gate. A record is on the disk when it has been taken, so the file has what
/// any answer was about before the answer is sent.
pub(super) struct Writing {
    path: PathBuf,
    file: Arc<Mutex<Appended>>,
    /// The last lines of earlier processes.
    earlier: HashSet<Vec<u8>>,
    log: Log,
}

struct Appended {
    path: PathBuf,
    file: File,
    /// Where half a line begins that has to go before the next.
    torn_at: Option<u64>,
    /// Whether the last record could not be written, and was logged so.
    failing: bool,
}

impl Journal {
    /// Opens the file, to be written and to be read.
    pub(super) fn open(path: PathBuf, log: Log) -> Outcome<(Self, Writing)> {
        let (file, earlier) = open_whole(&path).during(format_args!(
            "the audit file {} cannot be written; name another with `--audit`, or `--audit none`",
            path.display()
        ))?;
        let file = Arc::new(Mutex::new(file));
        let journal = Self {
            path: path.clone(),
            file: Arc::clone(&file),
            log: Arc::clone(&log),
            reading: tokio::sync::Mutex::default(),
        };
        Ok((journal, Writing { path, file, earlier, log }))
    }

    /// Makes a new file if the old one was renamed. The next record would do the same.
    pub(super) fn reopen(&self) {
        let mut file = lock(&self.file);
        if let Err(error) = file.follow() {
            (self.log)(format!("the audit file {} cannot be opened: {error}", self.path.display()));
        }
    }

    /// The records of a session, or all, oldest first: as many as fit an answer. `after` is what the
    /// answer before said to go on from.
    pub(super) async fn read(&self, session: Option<SessionId>, after: Option<u64>) -> Outcome<Value> {
        let _one = self.reading.lock().await;
        let path = self.path.clone();
        let read = spawn_blocking(move || read_page(&path, session.as_ref().map(SessionId::as_str), after));
        let read = read.await.map_err(|_| Problem::said("the audit file could not be read"))?;
        read.during(format_args!("the audit file {} cannot be read", self.path.display()))
    }
}

impl AuditSink for Writing {
    fn record(&self, record: &AuditRecord) -> Result<(), NotKept> {
        let mut line = serde_json::to_vec(record).map_err(|_| NotKept)?;
        line.push(b'\n');
        let mut file = lock(&self.file);
        let outcome = file.append(&line);
        let failed_before = std::mem::replace(&mut file.failing, outcome.is_err());
        drop(file);
        outcome.map_err(|error| {
            // It is tried again with the next record.
            if !failed_before {
                let path = self.path.display();
                (self.log)(format!("audit records wait in the ledger: {path} cannot be written: {error}"));
            }
            NotKept
        })
    }

    fn has(&self, record: &AuditRecord) -> bool {
        serde_json::to_vec(record).is_ok_and(|line| self.earlier.contains(&line))
    }
}

impl Appended {
    /// Opens the file that has the name now, if it is another.
    fn follow(&mut self) -> io::Result<()> {
        let own = self.file.metadata()?;
        let same = match fs::metadata(&self.path) {
            Ok(named) => (named.dev(), named.ino()) == (own.dev(), own.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if !same {
            let (new, _) = open_whole(&self.path)?;
            (self.file, self.torn_at) = (new.file, new.torn_at);
        }
        Ok(())
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        self.follow()?;
        let length = self.file.metadata()?.len();
        // An operator may have emptied the file to make room.
        let whole = self.torn_at.unwrap_or(length).min(length);
        if whole < length {
            self.file.set_len(whole)?;
        }
        let written = self.file.write_all(line).and_then(|()| self.file.sync_data());
        // Making a file shorter needs no room; if it fails, it is tried again with the next line.
        if written.is_err() && self.file.set_len(whole).is_err() {
            self.torn_at = Some(whole);
        } else {
            self.torn_at = None;
        }
        written
    }
}

/// Opens for appending, and reads the last lines. Half a record, from a writer that was killed, goes: it
/// is told again.
fn open_whole(path: &Path) -> io::Result<(Appended, HashSet<Vec<u8>>)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        // Whoever reads a pipe or a terminal could keep the gate from its work.
        return Err(io::Error::other("it is no plain file"));
    }
    let begin = found.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(begin))?;
    let mut tail = Vec::new();
    Read::by_ref(&mut file).take(TAIL).read_to_end(&mut tail)?;
    let lines = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let half = &tail[lines..];
    let begins = half.starts_with(OPENS_LINE) || OPENS_LINE.starts_with(half);
    let torn = !half.is_empty() && parse(half).is_none() && begins;
    if !half.is_empty() && !torn {
        // Whole but for its end, or not ours.
        file.write_all(b"\n")?;
    }
    let earlier = tail.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let torn_at = torn.then_some(begin + lines as u64);
    Ok((Appended { path: path.to_owned(), file, torn_at, failing: false }, earlier))
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
                // The next answer continues after the last one that fits.
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
    /// The record with the remarks before it, if it is to be shown.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> PathBuf {
        std::env::temp_dir().join(format!("sessioncap-journal-{}", uuid::Uuid::new_v4()))
    }

    /// What a file holds after a writer has come, over what was there.
    fn after(before: &str) -> String {
        let path = place();
        std::fs::write(&path, before).unwrap();
        let (mut file, _) = open_whole(&path).unwrap();
        file.append(b"{\"opening\":2}\n").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        text
    }

    #[test]
    fn half_a_record_goes_and_everything_else_stays() {
        let next = "{\"opening\":2}\n";
        let whole = "{\"opening\":1,\"sequence\":0}";
        assert_eq!(after(""), next);
        assert_eq!(after(&format!("{whole}\n")), format!("{whole}\n{next}"));
        for half in ["{", "{\"open", "{\"opening\":1,\"sequ"] {
            assert_eq!(after(&format!("{whole}\n{half}")), format!("{whole}\n{next}"), "{half}");
            assert_eq!(after(half), next);
        }
        // As an editor leaves it, and as somebody else's file ends.
        assert_eq!(after(whole), format!("{whole}\n{next}"));
        assert_eq!(after("notes"), format!("notes\n{next}"));
    }

    #[test]
    fn a_file_that_was_emptied_after_a_failed_write_begins_anew() {
        let path = place();
        std::fs::write(&path, "some lines\n").unwrap();
        let (mut file, _) = open_whole(&path).unwrap();
        // As a write that failed half-way leaves it.
        file.torn_at = Some(11);
        std::fs::write(&path, "").unwrap();
        file.append(b"{\"opening\":2}\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"opening\":2}\n");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn after_a_rename_records_go_to_a_new_file() {
        let (path, moved) = (place(), place());
        let (mut file, _) = open_whole(&path).unwrap();
        file.append(b"one\n").unwrap();
        std::fs::rename(&path, &moved).unwrap();
        file.append(b"two\n").unwrap();
        // As a rotation leaves it that makes the new file itself.
        std::fs::rename(&path, path.with_extension("2")).unwrap();
        std::fs::write(&path, "").unwrap();
        file.append(b"three\n").unwrap();
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!((read(&moved).as_str(), read(&path).as_str()), ("one\n", "three\n"));
        assert_eq!(read(&path.with_extension("2")), "two\n");
        for path in [&path, &moved, &path.with_extension("2")] {
            std::fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn what_is_no_plain_file_is_refused() {
        assert!(open_whole(Path::new("/dev/null")).is_err());
    }
}
