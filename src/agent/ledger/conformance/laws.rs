//! The checks of the clauses, a function for each. Each returns a verdict and does not panic itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::{Backend, Verdict};
use crate::agent::denial::LedgerFailure;
use crate::agent::ledger::record::{FORMAT, Header};
use crate::agent::ledger::rows::HEADER;
use crate::agent::ledger::{Changes, Ledger, LedgerError, Outcome, Overlay, Row, Snapshot, Table};
use crate::codec;
use crate::id::NodeId;
use crate::key::AgentPublicKey;

/// A verdict that ends a check early, or the continuation.
type Found = Result<(), Verdict>;

const ROUNDS: u8 = 12;
/// How often a transaction that was not done is tried again.
const TRIES: u32 = 1_000;
/// How long one side of a race keeps its transition open for the other. In a store with one writer, the other
/// side waits this long.
const OPEN: Duration = Duration::from_millis(3);

/// The u-coordinate of Curve25519's base point, used as an agent's key.
const BASE_POINT: [u8; 32] = {
    let mut key = [0; 32];
    key[0] = 9;
    key
};

/// The verdict if the author's backend does not support the check.
const NO_CRASH: &str = "`Backend::crash` is not given";
const NO_FAULT: &str = "`Backend::fail_next` is not given";

fn failed<T>(how: impl Into<String>) -> Result<T, Verdict> {
    Err(Verdict::Failed(how.into()))
}

fn verdict(found: Found) -> Verdict {
    found.err().unwrap_or(Verdict::Passed)
}

fn node(number: u8) -> NodeId {
    NodeId::new(number.into())
}

/// Opens the store when nothing else has it open, and writes a ledger's header, because a backend may refuse
/// another program's data.
fn open(backend: &dyn Backend) -> Result<Box<dyn Ledger>, Verdict> {
    let opened = backend.open(node(0));
    let ledger = opened.or_else(|failure| failed(format!("it cannot be opened: {failure}")))?;
    let agent = AgentPublicKey::from_bytes(BASE_POINT).or_else(|_| failed("no key"))?;
    write(&*ledger, &[(Table::Meta, HEADER, Some(&codec::encode(&Header { format: FORMAT, agent })))])?;
    Ok(ledger)
}

/// Makes another opening beside the first, or none if the store can be open only once at a time.
fn open_beside(backend: &dyn Backend, number: u8) -> Result<Option<Box<dyn Ledger>>, Verdict> {
    match backend.open(node(number)) {
        Ok(ledger) => Ok(Some(ledger)),
        Err(LedgerFailure::InUse) => Ok(None),
        Err(failure) => {
            failed(format!("it cannot be opened twice, and says {failure}, not that it is in use"))
        }
    }
}

/// Retries a transition that fails as not done and usable, as a gate would.
fn transact<T>(
    ledger: &dyn Ledger,
    mut transition: impl FnMut(&dyn Snapshot) -> Result<(Changes, T), LedgerFailure>,
) -> Result<T, Verdict> {
    for _ in 0..TRIES {
        let mut result = None;
        let outcome = ledger.transact(&mut |snapshot| {
            let (changes, value) = transition(snapshot)?;
            result = Some(value);
            Ok(changes)
        });
        match (outcome, result) {
            (Ok(()), Some(result)) => return Ok(result),
            (Ok(()), None) => return failed("a transaction succeeded without running its transition"),
            (Err(error), _) if error.outcome() == Outcome::NotDone && error.is_usable() => {}
            (Err(error), _) => return failed(format!("a transaction failed: {error:?}")),
        }
    }
    failed(format!("a transaction was not done in {TRIES} tries"))
}

fn read<T>(
    ledger: &dyn Ledger,
    mut look: impl FnMut(&dyn Snapshot) -> Result<T, LedgerFailure>,
) -> Result<T, Verdict> {
    let mut found = None;
    let outcome = ledger.read(&mut |snapshot| {
        found = Some(look(snapshot)?);
        Ok(())
    });
    match (outcome, found) {
        (Ok(()), Some(found)) => Ok(found),
        (Ok(()), None) => failed("a read succeeded without looking"),
        (Err(error), _) => failed(format!("a read failed: {error:?}")),
    }
}

/// A row to set, or to remove.
type Change<'a> = (Table, &'a [u8], Option<&'a [u8]>);

fn write(ledger: &dyn Ledger, rows: &[Change<'_>]) -> Result<(), Verdict> {
    transact(ledger, |snapshot| {
        let mut overlay = Overlay::new(snapshot);
        for (table, key, value) in rows {
            match value {
                Some(value) => overlay.put(*table, key, value),
                None => overlay.remove(*table, key),
            }
        }
        Ok((overlay.into_changes()?, ()))
    })
}

/// One value under each key of each table, in one transition.
fn fill<const N: usize>(
    ledger: &dyn Ledger,
    tables: &[Table],
    keys: &[[u8; N]],
    value: u8,
) -> Result<(), Verdict> {
    let value = [value];
    let of = |table: Table| keys.iter().map(move |key| (table, key.as_slice()));
    let rows: Vec<Change<'_>> = tables
        .iter()
        .flat_map(|table| of(*table))
        .map(|(table, key)| (table, key, Some(value.as_slice())))
        .collect();
    write(ledger, &rows)
}

fn get(ledger: &dyn Ledger, key: &[u8]) -> Result<Option<Vec<u8>>, Verdict> {
    read(ledger, |snapshot| snapshot.get(Table::Tickets, key))
}

pub(super) fn rows(backend: &dyn Backend) -> Verdict {
    verdict((|| {
        let ledger = open(backend)?;
        let long = vec![0xab; 100_000];
        let keys: [&[u8]; 7] = [b"", b"\0", b"a", b"a\0", b"a\xff", b"b", b"\xff\xff"];
        for &table in Table::ALL {
            let rows: Vec<_> = keys.iter().map(|key| (table, *key, Some(table.name().as_bytes()))).collect();
            write(&*ledger, &rows)?;
        }
        write(&*ledger, &[(Table::Tickets, b"long", Some(&long)), (Table::Tickets, b"none", Some(b""))])?;
        for &table in Table::ALL {
            for key in keys {
                let value = read(&*ledger, |snapshot| snapshot.get(table, key))?;
                if value.as_deref() != Some(table.name().as_bytes()) {
                    return failed(format!("{} has not its own value under {key:?}", table.name()));
                }
            }
        }
        if get(&*ledger, b"long")? != Some(long) || get(&*ledger, b"none")? != Some(Vec::new()) {
            return failed("a value of 100,000 bytes, or an empty one, is not there as it was written");
        }
        if get(&*ledger, b"absent")?.is_some() {
            return failed("there is a row that nobody wrote");
        }
        type Case<'a> = (&'a [u8], Option<&'a [u8]>, usize, &'a [&'a [u8]]);
        let cases: [Case<'_>; 9] = [
            (b"", None, 100, &keys),
            (b"a", None, 100, &[b"a", b"a\0", b"a\xff"]),
            (b"a", None, 2, &[b"a", b"a\0"]),
            (b"a", Some(b"a"), 100, &[b"a\0", b"a\xff"]),
            (b"a", Some(b"A"), 100, &[b"a", b"a\0", b"a\xff"]),
            (b"a", Some(b"a\xff"), 100, &[]),
            (b"\xff", None, 100, &[b"\xff\xff"]),
            (b"", Some(b"b"), 100, &[b"\xff\xff"]),
            (b"", None, 0, &[]),
        ];
        for (prefix, after, limit, expected) in cases {
            let found = read(&*ledger, |snapshot| snapshot.range(Table::Ended, prefix, after, limit))?;
            let as_expected: Vec<Row> =
                expected.iter().map(|key| (key.to_vec(), Table::Ended.name().into())).collect();
            if found != as_expected {
                return failed(format!("range({prefix:?}, {after:?}, {limit}) gives {found:?}"));
            }
        }
        write(&*ledger, &[(Table::Ended, b"a", None), (Table::Ended, b"a\0", Some(b"new"))])?;
        let found = read(&*ledger, |snapshot| snapshot.range(Table::Ended, b"a", None, 100))?;
        if found != [(b"a\0".to_vec(), b"new".to_vec()), (b"a\xff".to_vec(), b"ended".to_vec())] {
            return failed(format!("after a removal and a change, range gives {found:?}"));
        }
        Ok(())
    })())
}

pub(super) fn whole(backend: &dyn Backend) -> Verdict {
    verdict((|| {
        let ledger = open(backend)?;
        let refused = ledger.transact(&mut |snapshot| {
            let mut overlay = Overlay::new(snapshot);
            overlay.put(Table::Tickets, b"whole", b"refused");
            drop(overlay);
            Err(LedgerFailure::Corrupt)
        });
        if refused.is_ok() || get(&*ledger, b"whole")?.is_some() {
            return failed("a transition that refused has left a row");
        }
        let keys: Vec<[u8; 2]> = (0..64).map(|n| [b'w', n]).collect();
        let tables = [Table::Tickets, Table::Credentials, Table::BySession];
        let through = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                // While anything is written, and once after that.
                let mut last = false;
                while !last {
                    last = through.load(Ordering::Acquire);
                    let seen = read(&*ledger, |snapshot| {
                        let mut seen = Vec::new();
                        for table in tables {
                            for key in &keys {
                                seen.push(snapshot.get(table, key)?);
                            }
                            seen.extend(
                                snapshot.range(table, b"w", None, 200)?.into_iter().map(|row| Some(row.1)),
                            );
                        }
                        Ok(seen)
                    })?;
                    let first = seen.first().cloned().flatten();
                    if seen.iter().any(|value| *value != first) {
                        return failed("a reader has seen a part of a transition without the rest");
                    }
                }
                Ok(())
            });
            let writing = Through(&through);
            let mut written = Ok(());
            for round in 0..100_u8 {
                written = written.and_then(|()| fill(&*ledger, &tables, &keys, round));
            }
            drop(writing);
            written.and(joined(reading))
        })
    })())
}

/// Tells the reader to end, also if the backend panics.
struct Through<'a>(&'a AtomicBool);

impl Drop for Through<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T, Verdict>>) -> Result<T, Verdict> {
    thread.join().unwrap_or_else(|_| failed("the backend panicked in a thread"))
}

/// Runs two transitions so that the second begins while the first has read and not yet committed.
fn race<T: Send>(
    one: &dyn Ledger,
    other: &dyn Ledger,
    first: impl Fn(&dyn Snapshot) -> Result<(Changes, T), LedgerFailure>,
    second: impl Fn(&dyn Snapshot) -> Result<(Changes, T), LedgerFailure> + Send,
) -> Result<(T, T), Verdict> {
    let (begin, begun) = channel();
    // Sends when the second is in its transition, and disconnects when it has ended.
    let (entered, other_side) = channel();
    std::thread::scope(|scope| {
        // Dropped after a panic too; otherwise the other side would wait forever.
        let begin = begin;
        let running = scope.spawn(move || {
            let outcome = match begun.recv() {
                Ok(()) => transact(other, |snapshot| {
                    let _ = entered.send(());
                    second(snapshot)
                }),
                Err(_) => failed("a transaction never ran its transition"),
            };
            drop(entered);
            outcome
        });
        let outcome = transact(one, |snapshot| {
            let changes = first(snapshot)?;
            let _ = begin.send(());
            wait(&other_side);
            Ok(changes)
        });
        drop(begin);
        Ok((outcome, joined(running)))
    })
    .and_then(|(one, other)| Ok((one?, other?)))
}

/// Waits until the other side has ended. A store with one writer does not let it start; another store may
/// make its commit wait.
fn wait(other: &Receiver<()>) {
    if other.recv_timeout(OPEN).is_ok() {
        let _ = other.recv_timeout(OPEN.saturating_mul(100));
    }
}

/// Each pair races over two openings, if the store allows two, and over one.
fn pairs(backend: &dyn Backend, law: impl Fn(&dyn Ledger, &dyn Ledger, u8) -> Found) -> Found {
    let one = open(backend)?;
    for round in 0..ROUNDS {
        law(&*one, &*one, round)?;
    }
    if let Some(other) = open_beside(backend, 1)? {
        for round in ROUNDS..2 * ROUNDS {
            law(&*one, &*other, round)?;
        }
    }
    Ok(())
}

fn number(bytes: Option<Vec<u8>>) -> u8 {
    bytes.and_then(|bytes| bytes.first().copied()).unwrap_or(0)
}

pub(super) fn serializable(backend: &dyn Backend) -> Verdict {
    let put = |snapshot: &dyn Snapshot, key: &[u8], value: u8| {
        let mut overlay = Overlay::new(snapshot);
        overlay.put(Table::Tickets, key, &[value]);
        overlay.into_changes()
    };
    verdict(pairs(backend, |one, other, round| {
        // A lost update: both read and raise one row.
        let key = [b'u', round];
        let raise = |snapshot: &dyn Snapshot| {
            let before = number(snapshot.get(Table::Tickets, &key)?);
            Ok((put(snapshot, &key, before.wrapping_add(1))?, before))
        };
        let seen = race(one, other, raise, raise)?;
        if number(get(one, &key)?) != 2 || seen.0 == seen.1 {
            return failed("one of two raced changes of a row was lost: READ COMMITTED is not enough");
        }
        // Write skew: each takes its own row if the other's is missing.
        let keys = [[b's', round, 0], [b's', round, 1]];
        let take = |own: [u8; 3], theirs: [u8; 3]| {
            move |snapshot: &dyn Snapshot| match snapshot.get(Table::Tickets, &theirs)? {
                Some(_) => Ok((Changes::default(), false)),
                None => Ok((put(snapshot, &own, 1)?, true)),
            }
        };
        let [first, second] = keys;
        if race(one, other, take(first, second), take(second, first))? == (true, true) {
            return failed("both of two transitions found the other's row missing: snapshots are not enough");
        }
        // A phantom: each adds a row to a range that it found empty.
        let prefix = [b'p', round];
        let add = |last: u8| {
            move |snapshot: &dyn Snapshot| match snapshot.range(Table::Tickets, &prefix, None, 1)?.is_empty()
            {
                false => Ok((Changes::default(), false)),
                true => Ok((put(snapshot, &[b'p', round, last], 1)?, true)),
            }
        };
        if race(one, other, add(0), add(1))? == (true, true) {
            return failed("both of two transitions found a range empty, and added to it");
        }
        Ok(())
    }))
}

pub(super) fn fresh(backend: &dyn Backend) -> Verdict {
    verdict(pairs(backend, |one, other, round| {
        for (writer, reader) in [(one, other), (other, one)] {
            for value in 1..=4_u8 {
                write(writer, &[(Table::Tickets, &[b'f', round], Some(&[value]))])?;
                let look = || number_in_a_read(reader, round);
                let seen = std::thread::scope(|scope| joined(scope.spawn(look)))?;
                let inside = transact(reader, |snapshot| {
                    Ok((Changes::default(), number(snapshot.get(Table::Tickets, &[b'f', round])?)))
                })?;
                if (seen, inside) != (value, value) || number_in_a_read(writer, round)? != value {
                    return failed("something that began after a success has not seen it");
                }
            }
        }
        Ok(())
    }))
}

fn number_in_a_read(ledger: &dyn Ledger, round: u8) -> Result<u8, Verdict> {
    get(ledger, &[b'f', round]).map(number)
}

/// Does as a gate does: an opening writes a number that every later transition of the node compares.
pub(super) fn one_owner(backend: &dyn Backend) -> Verdict {
    verdict((|| {
        let earlier = open(backend)?;
        for round in 0..ROUNDS {
            let (fence, row) = ([b'o', round], [b'o', round, 0]);
            write(&*earlier, &[(Table::Meta, &fence, Some(&[1]))])?;
            // The same node, opened again.
            let Some(later) = open_beside(backend, 0)? else { return Ok(()) };
            let work = |snapshot: &dyn Snapshot| {
                let seen = number(snapshot.get(Table::Meta, &fence)?);
                let mut overlay = Overlay::new(snapshot);
                if seen == 1 {
                    overlay.put(Table::Tickets, &row, &[1]);
                }
                Ok((overlay.into_changes()?, seen == 1))
            };
            let take_over = |snapshot: &dyn Snapshot| {
                let seen = snapshot.get(Table::Tickets, &row)?.is_some();
                let mut overlay = Overlay::new(snapshot);
                overlay.put(Table::Meta, &fence, &[2]);
                Ok((overlay.into_changes()?, seen))
            };
            let (worked, seen) = race(&*earlier, &*later, work, take_over)?;
            if worked != seen {
                return failed("an earlier opening wrote after a later one had taken the node over");
            }
            if transact(&*earlier, |snapshot| Ok((Changes::default(), snapshot.get(Table::Meta, &fence)?)))?
                != Some(vec![2])
            {
                return failed("an earlier opening does not find the later one's number");
            }
        }
        Ok(())
    })())
}

pub(super) fn durable(backend: &dyn Backend) -> Verdict {
    verdict((|| {
        for round in 0..ROUNDS {
            let ledger = open(backend)?;
            let keys: Vec<[u8; 3]> = (0..16).map(|n| [b'd', round, n]).collect();
            let tables = [Table::Tickets, Table::Credentials];
            for value in [1_u8, 2] {
                fill(&*ledger, &tables, &keys, value)?;
            }
            drop(ledger);
            if !backend.crash() {
                return Err(Verdict::Unchecked(NO_CRASH.to_owned()));
            }
            let ledger = open(backend)?;
            for table in tables {
                for key in &keys {
                    if read(&*ledger, |snapshot| snapshot.get(table, key))? != Some(vec![2]) {
                        return failed("a success, or a part of it, did not survive a crash");
                    }
                }
            }
        }
        Ok(())
    })())
}

/// Checks what a failed transaction reports, and which of its two rows exist afterwards.
fn fail(backend: &dyn Backend, outcome: Outcome, round: u8) -> Result<(LedgerError, usize), Verdict> {
    let ledger = open(backend)?;
    let keys = [[b'h', round, 0], [b'h', round, 1]];
    write(&*ledger, &[(Table::Credentials, b"h", Some(&[round]))])?;
    if !backend.fail_next(outcome) {
        return Err(Verdict::Unchecked(NO_FAULT.to_owned()));
    }
    let failure = ledger.transact(&mut |snapshot| {
        let mut overlay = Overlay::new(snapshot);
        keys.iter().for_each(|key| overlay.put(Table::Tickets, key, &[1]));
        overlay.into_changes()
    });
    let Err(error) = failure else {
        return failed("a commit that was made to fail was told as a success");
    };
    let ledger = if error.is_usable() {
        ledger
    } else {
        drop(ledger);
        open(backend)?
    };
    let [one, other] = keys;
    let there = usize::from(get(&*ledger, &one)?.is_some()) + usize::from(get(&*ledger, &other)?.is_some());
    write(&*ledger, &[(Table::Credentials, b"h", Some(&[round, 1]))])?;
    Ok((error, there))
}

pub(super) fn honest_not_done(backend: &dyn Backend) -> Verdict {
    verdict((|| {
        let ledger = open(backend)?;
        let refused = ledger.transact(&mut |_| Err(LedgerFailure::Corrupt));
        match refused.map_err(|error| (error.cause(), error.outcome())) {
            Err((LedgerFailure::Corrupt, Outcome::NotDone)) => {}
            other => return failed(format!("a transition that refused as corrupt is told as {other:?}")),
        }
        let refused = ledger.read(&mut |_| Err(LedgerFailure::Corrupt));
        if refused.map_err(|error| error.cause()) != Err(LedgerFailure::Corrupt) {
            return failed("a read that refused is not told as it refused");
        }
        drop(ledger);
        for round in 0..ROUNDS {
            let (error, there) = fail(backend, Outcome::NotDone, round)?;
            if there != 0 {
                return failed("a transaction was told as failed before its commit, and was done");
            }
            if error.outcome() != Outcome::NotDone {
                return failed("a transaction that failed before its commit is not told as not done");
            }
        }
        Ok(())
    })())
}

pub(super) fn honest_unknown(backend: &dyn Backend) -> Verdict {
    verdict((|| {
        for round in ROUNDS..2 * ROUNDS {
            let (error, there) = fail(backend, Outcome::Unknown, round)?;
            if error.outcome() != Outcome::Unknown || error.is_usable() {
                return failed("a commit that may have been done is told as if it had not, or as usable");
            }
            if there == 1 {
                return failed("a commit that may have been done was done by half");
            }
        }
        Ok(())
    })())
}
