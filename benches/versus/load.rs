//! How long callers wait, by the wall clock: beside a thread that offers without pause, after a restart, and for a
//! ledger to open. The figures depend on the disk, and on what else the machine does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rand::rngs::OsRng;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use sessioncap::agent::ledger::{MemoryLedger, RedbLedger, Table};
use sessioncap::noise::Responder;

use crate::report::{Budget, Report};
use crate::revocation::{Shared, begin_durable, definition, fill, rows};
use crate::world::{self, Folder, Phone, World};

/// Attaches that are timed beside the offers.
const ATTACHES: usize = 1_000;

/// Phones that come back after a restart.
const PHONES: usize = 10_000;

pub fn all(report: &mut Report, live: usize) {
    let place = Folder::new();
    written(report, &place);
    beside_offers(report, &place);
    storm(report, &place);
    opening(report, &place, live);
}

/// Bytes that an offer and a redemption up to the live stream write, two commits, beside two commits of bare redb with
/// one row each, in a file with as many rows as phones.
fn written(report: &mut Report, place: &Path) {
    const PAIRINGS: u64 = 20;
    if bytes_written().is_none() {
        eprintln!("  no /proc/self/io here: bytes are not counted");
        return;
    }
    report.section("bytes from an offer to the live stream, redb, alone");
    for (phones, budget) in [(0, Budget::AtMost(3.0)), (1_000, Budget::Information)] {
        let world = World::on(RedbLedger::open(place.join(format!("alone-{phones}.redb"))).unwrap(), 8);
        let pairing = || drop(world.redeem_one().activate_after_first_frame(world.now).unwrap());
        let database = Database::create(place.join(format!("bare-{phones}.redb"))).unwrap();
        let row = vec![0x5a; world.phone().credential.as_bytes().len()];
        let mut key = 0_u64;
        let mut commit = || {
            key += 1;
            commit_of_one(&database, key, &row);
        };
        (0..phones).for_each(|_| {
            pairing();
            commit();
        });
        let [mut ours, mut bare] = [0, 0];
        for _ in 0..PAIRINGS {
            // The visit of the phone before is written with the next commit, at the latest by this one.
            world.gate.settle(world.now).unwrap();
            ours += bytes_of(pairing);
            bare += bytes_of(|| (0..2).for_each(|_| commit()));
        }
        report.figure(
            &format!("bytes of a pairing, {phones} phones on record"),
            ours as f64 / PAIRINGS as f64,
            Budget::Information,
        );
        report.ratio("the same / two commits of bare redb, one row each", ours as f64 / bare as f64, budget);
    }
}

fn bytes_of(work: impl FnOnce()) -> u64 {
    let before = bytes_written().unwrap();
    work();
    bytes_written().unwrap() - before
}

fn commit_of_one(database: &Database, key: u64, value: &[u8]) {
    const ROWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rows");
    let begun = begin_durable(database);
    begun.open_table(ROWS).unwrap().insert(key, value).unwrap();
    begun.commit().unwrap();
}

/// Returns what this process has written so far, where the system says.
fn bytes_written() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/io").ok()?;
    text.lines().find_map(|line| line.strip_prefix("wchar: "))?.parse().ok()
}

/// Attaches while another thread offers, each offer a commit of its own.
fn beside_offers(report: &mut Report, place: &Path) {
    report.section("attaches beside a thread that offers without pause, redb");
    let world = World::on(RedbLedger::open(place.join("offers.redb")).unwrap(), 8);
    let phones: Vec<Phone> = (0..64).map(|_| world.phone()).collect();
    let ready = (0..ATTACHES).map(|turn| {
        let message = world.fresh_attach(&phones[turn % phones.len()]);
        Responder::read(&world.agent, &message, &mut OsRng).unwrap()
    });
    let ready: Vec<_> = ready.collect();
    let over = AtomicBool::new(false);
    let (waits, commits) = std::thread::scope(|scope| {
        let offers = scope.spawn(|| {
            let mut commits = Vec::new();
            while !over.load(Relaxed) {
                let pairing = world.pair(world.next_session());
                commits.push(timed(|| _ = world.offer(&pairing)));
            }
            commits
        });
        let waits: Vec<_> = ready
            .iter()
            .map(|received| {
                // As they come: not all of them during one commit.
                std::thread::sleep(Duration::from_micros(500));
                timed(|| drop(world.admit(received).1.activate_after_first_frame(world.now).unwrap()))
            })
            .collect();
        over.store(true, Relaxed);
        (waits, offers.join().unwrap())
    });
    let commit = percentile(commits, 50);
    report.figure("median commit, microseconds", commit, Budget::Information);
    report.figure("median attach, microseconds", percentile(waits.clone(), 50), Budget::Information);
    report.ratio(
        "99th percentile of an attach / a commit",
        percentile(waits, 99) / commit,
        Budget::AtMost(2.0),
    );
}

/// Every phone attaches once, on two threads, to an agent that has just been started.
fn storm(report: &mut Report, place: &Path) {
    report.section(&format!("{PHONES} phones attach after a restart, redb, two threads"));
    let memory = Arc::new(MemoryLedger::new());
    let mut world = World::on(Shared(Arc::clone(&memory)), 8);
    let phones: Vec<Phone> = (0..PHONES).map(|_| world.phone()).collect();
    let file = stored(&place.join("storm.redb"), &memory);
    world.gate = world::gate(RedbLedger::open(file).unwrap());
    // Every visit has to be written, as after a night.
    world.now = world.now.plus(time::Duration::hours(2));
    let messages: Vec<_> = phones.iter().map(|phone| world.fresh_attach(phone)).collect();
    let world = &world;
    let start = Instant::now();
    let spent: Vec<[f64; 3]> = std::thread::scope(|scope| {
        let halves = messages.chunks(PHONES / 2).map(|half| {
            scope.spawn(move || {
                let (start, before) = (Instant::now(), scheduled());
                let guards: Vec<_> = half.iter().map(|message| world.respond_and_activate(message)).collect();
                world.gate.settle(world.now).unwrap();
                let (elapsed, after) = (start.elapsed().as_secs_f64(), scheduled());
                drop(guards);
                [elapsed, after[0] - before[0], after[1] - before[1]]
            })
        });
        let halves: Vec<_> = halves.collect();
        halves.into_iter().map(|half| half.join().unwrap()).collect()
    });
    let wall = start.elapsed();
    report.figure("phones a second", PHONES as f64 / wall.as_secs_f64(), Budget::Information);
    let [elapsed, ran, queued] = [0, 1, 2].map(|at| spent.iter().map(|times| times[at]).sum::<f64>());
    report.ratio(
        "time, less that in the queue for a core / CPU time",
        (elapsed - queued) / ran,
        Budget::AtMost(1.3),
    );
    report.ratio(
        "the same with that queue, which other programs make longer",
        elapsed / ran,
        Budget::Information,
    );
}

/// Returns how long this thread has run, and how long it could have run and had no core, in seconds.
fn scheduled() -> [f64; 2] {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let mut times = text.split_whitespace().map(|nanoseconds| nanoseconds.parse::<f64>().unwrap() / 1e9);
    [times.next().unwrap(), times.next().unwrap()]
}

/// A gate is opened over a file, beside redb alone that checks the same file and reads its rows.
fn opening(report: &mut Report, place: &Path, live: usize) {
    report.section(&format!("opening a ledger of {live} live credentials, redb"));
    let memory = Arc::new(MemoryLedger::new());
    World::on(Shared(Arc::clone(&memory)), 8).populate(live);
    let file = stored(&place.join("opening.redb"), &memory);
    drop(world::gate(RedbLedger::open(&file).unwrap()));
    let turns = (0..5).map(|_| {
        let ours = timed(|| drop(world::gate(RedbLedger::open(&file).unwrap())));
        (ours, timed(|| read_all(&file)))
    });
    let (ours, peer): (Vec<_>, Vec<_>) = turns.unzip();
    let (ours, peer) = (percentile(ours, 50), percentile(peer, 50));
    report.figure("a gate over it, milliseconds", ours / 1e3, Budget::Information);
    report.ratio("the same / redb: open, check, read every row", ours / peer, Budget::AtMost(1.5));
}

fn read_all(file: &Path) {
    let mut database = Database::open(file).unwrap();
    assert!(database.check_integrity().unwrap());
    let begun = database.begin_read().unwrap();
    for table in Table::ALL {
        // A table without rows may not be there.
        let Ok(rows) = begun.open_table(definition(*table)) else { continue };
        let bytes: usize = rows.iter().unwrap().map(|row| row.unwrap().1.value().len()).sum();
        std::hint::black_box(bytes);
    }
}

fn stored(file: &Path, memory: &MemoryLedger) -> PathBuf {
    fill(&RedbLedger::open(file).unwrap(), &rows(memory));
    file.to_owned()
}

/// Returns microseconds.
fn timed(operation: impl FnOnce()) -> f64 {
    let start = Instant::now();
    operation();
    start.elapsed().as_secs_f64() * 1e6
}

fn percentile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) * percent / 100]
}
