//! The cost of a revocation: for each credential of a crowded session, beside a commit of as many rows with
//! redb alone; and for one credential among many that are connected.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use redb::{Database, Durability, TableDefinition, WriteTransaction};
use sessioncap::agent::ledger::{
    Ledger, LedgerError, Look, MemoryLedger, Overlay, RedbLedger, Snapshot, Table, Transition,
};
use sessioncap::agent::{Gate, Guard};
use sessioncap::{CredentialId, SessionId};

use crate::report::{Budget, Report};
use crate::sample::{Side, compare, consume};
use crate::world::{self, Folder, World};

/// Credentials of the session that is revoked.
const CROWDS: [usize; 2] = [1_000, 10_000];

/// How much more one of ten thousand may cost than one of a thousand.
const GROWTH: f64 = 1.2;

type Row = (Table, Vec<u8>, Vec<u8>);
type Changed = (Table, Vec<u8>, Option<Vec<u8>>);

/// The session of a crowd: the first, and the only one.
fn session() -> SessionId {
    SessionId::new("00000000-5f0b-4a53-9a58-0d6f3c1c9e55").unwrap()
}

/// Revokes a crowded session, by CPU time and by instructions.
pub fn of_many(report: &mut Report) {
    let place = Folder::new();
    let crowds = CROWDS.map(|count| (count, crowd(&place, count)));
    for (count, file) in &crowds {
        report.section(&format!("revoking a session of {count} credentials, redb"));
        let changes = changes_of_revoking(&copy(file, "changes"));
        report.figure("rows for each credential", changes.len() as f64 / *count as f64, Budget::Information);
        let compared = compare(7, through_the_gate(file), bare(file, &changes));
        report.compared("CPU time beside a bare commit of as many rows", compared, Budget::Information);
    }
    report.section("instructions for each credential: one of 10,000 beside one of 1,000");
    for (name, kind) in [("file", "revoke-in-file"), ("memory", "revoke-in-memory"), ("bare", "commit-bare")]
    {
        let [few, many] = crowds.each_ref().map(|(count, file)| {
            let counted = instructions(kind, &copy(file, kind));
            counted.map(|instructions| instructions as f64 / *count as f64)
        });
        let (Some(few), Some(many)) = (few, many) else {
            eprintln!("  valgrind is not here: instructions are not counted");
            break;
        };
        report.figure(&format!("{name}, of 1,000"), few, Budget::Information);
        report.figure(&format!("{name}, of 10,000"), many, Budget::Information);
        let budget = if kind == "commit-bare" { Budget::Information } else { Budget::AtMost(GROWTH) };
        report.ratio(&format!("{name}, of 10,000 / of 1,000"), many / few, budget);
    }
    report.section("instructions to revoke one credential: of 4,000 that are connected beside one of 10");
    if let [Some(few), Some(many)] = [10, 4_000].map(instructions_of_one) {
        report.figure("of 10", few as f64, Budget::Information);
        report.figure("of 4,000", many as f64, Budget::Information);
        report.ratio("of 4,000 / of 10", many as f64 / few as f64, Budget::AtMost(GROWTH));
    }
}

/// Revokes one credential among many that are connected, beside one among ten.
pub fn of_one(report: &mut Report, rounds: usize, many: &World, connected: usize) {
    let few = World::new();
    let _connected = few.populate_connected(10);
    let compared = compare(rounds, one(many), one(&few));
    // Rows that are in no cache any more take longer. Instructions have a budget, above.
    report.point("revoking one credential", connected, "connected", compared, Budget::Information);
}

fn one(world: &World) -> Side<'_> {
    consume(
        || world.redeem_one().activate_after_first_frame(world.now).unwrap(),
        |guard: Guard| {
            world.gate.revoke_credential(&guard.credential(), world.now).unwrap();
            guard
        },
    )
}

/// Runs one measurement, in a child process whose instructions the parent counts.
pub fn once(kind: &str, file: &Path) {
    match kind {
        "revoke-in-file" => measured_revocation(&world::gate(RedbLedger::open(file).unwrap())),
        "revoke-in-memory" => {
            let rows = rows(&RedbLedger::open(file).unwrap());
            let memory = MemoryLedger::new();
            fill(&memory, &rows);
            measured_revocation(&world::gate(memory));
        }
        "commit-bare" => {
            let before = copy(file, "before");
            let changes = changes_of_revoking(file);
            measured_commit(&Database::open(before).unwrap(), &changes);
        }
        "revoke-one-of" => one_of(file.to_str().unwrap().parse().unwrap()),
        other => panic!("no such measurement: {other}"),
    }
}

/// The next call is part of it: nothing may be left to be done for it.
#[inline(never)]
fn measured_revocation(gate: &Gate) {
    gate.revoke_session(&session(), world::now()).unwrap();
    gate.settle(world::now()).unwrap();
}

/// Revokes one of `count` connected credentials, once the parent says so.
fn one_of(count: usize) {
    let world = World::new();
    let guards = world.populate_connected(count);
    let revoked = guards.first().unwrap().credential();
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    measured_single(&world.gate, &revoked);
    drop(guards);
}

#[inline(never)]
fn measured_single(gate: &Gate, credential: &CredentialId) {
    gate.revoke_credential(credential, world::now()).unwrap();
}

#[inline(never)]
fn measured_commit(database: &Database, changes: &[Changed]) {
    let begun = begin_durable(database);
    for run in changes.chunk_by(|one, next| one.0 == next.0) {
        let Some((table, ..)) = run.first() else { continue };
        let mut rows = begun.open_table(definition(*table)).unwrap();
        for (_, key, value) in run {
            match value {
                Some(value) => drop(rows.insert(key.as_slice(), value.as_slice()).unwrap()),
                None => drop(rows.remove(key.as_slice()).unwrap()),
            }
        }
    }
    begun.commit().unwrap();
}

/// As the ledger in a file commits.
pub fn begin_durable(database: &Database) -> WriteTransaction {
    let mut begun = database.begin_write().unwrap();
    begun.set_durability(Durability::Immediate).unwrap();
    begun.set_two_phase_commit(true);
    begun
}

pub fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

/// The instructions of the measured part of one child, or nothing if there is no valgrind.
fn instructions(kind: &str, file: &Path) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*::measured_*"])
        .arg(std::env::current_exe().unwrap())
        .args(["--once", kind])
        .arg(file)
        .output()
        .ok()?;
    assert!(output.status.success());
    Some(counted(&output.stderr))
}

/// The same where thousands of phones have to be paired first: nothing is simulated until they are.
fn instructions_of_one(connected: usize) -> Option<u64> {
    let mut child = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*::measured_*"])
        .arg("--instr-atstart=no")
        .arg(std::env::current_exe().unwrap())
        .args(["--once", "revoke-one-of", &connected.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let mut ready = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    let control = Command::new("callgrind_control").args(["-i", "on", &child.id().to_string()]).output();
    assert!(control.unwrap().status.success());
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    Some(counted(&output.stderr))
}

/// The number of instructions that valgrind prints at its end.
pub fn counted(stderr: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(stderr);
    let counted = text.lines().find_map(|line| line.split_once("Collected : "));
    let instructions = counted.unwrap().1.trim().parse().unwrap();
    assert!(instructions > 0, "the measured part was not found: {text}");
    instructions
}

fn through_the_gate(file: &Path) -> Side<'_> {
    let mut number = 0;
    let fresh = move || {
        number += 1;
        world::gate(RedbLedger::open(copy(file, &format!("gate-{}", number))).unwrap())
    };
    consume(fresh, |gate| {
        measured_revocation(&gate);
        gate
    })
}

fn bare<'a>(file: &'a Path, changes: &'a [Changed]) -> Side<'a> {
    let mut number = 0;
    let fresh = move || {
        number += 1;
        Database::open(copy(file, &format!("bare-{}", number))).unwrap()
    };
    consume(fresh, |database| {
        measured_commit(&database, changes);
        database
    })
}

/// A file with one session of `count` credentials, each of which a phone has redeemed.
fn crowd(place: &Path, count: usize) -> PathBuf {
    eprintln!("pairing {count} phones with one session");
    let memory = Arc::new(MemoryLedger::new());
    World::on(Shared(Arc::clone(&memory)), count).populate(count);
    let path = place.join(count.to_string());
    fill(&RedbLedger::open(&path).unwrap(), &rows(&*memory));
    path
}

fn copy(file: &Path, name: &str) -> PathBuf {
    let to = file.with_extension(name);
    std::fs::copy(file, &to).unwrap();
    to
}

pub fn rows(ledger: &dyn Ledger) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut look = |snapshot: &dyn Snapshot| {
        for &table in Table::ALL {
            let found = snapshot.range(table, &[], None, usize::MAX)?;
            rows.extend(found.into_iter().map(|(key, value)| (table, key, value)));
        }
        Ok(())
    };
    ledger.read(&mut look).unwrap();
    rows
}

pub fn fill(ledger: &dyn Ledger, rows: &[Row]) {
    let mut transition = |snapshot: &dyn Snapshot| {
        let mut overlay = Overlay::new(snapshot);
        rows.iter().for_each(|(table, key, value)| overlay.put(*table, key, value));
        overlay.into_changes()
    };
    ledger.transact(&mut transition).unwrap();
}

/// Every row that a revocation of the crowded session changes.
fn changes_of_revoking(file: &Path) -> Vec<Changed> {
    let changes = Arc::new(Mutex::new(Vec::new()));
    let ledger = Recorded { ledger: RedbLedger::open(file).unwrap(), changes: Arc::clone(&changes) };
    let gate = world::gate(ledger);
    gate.revoke_session(&session(), world::now()).unwrap();
    drop(gate);
    let changes = changes.lock().unwrap();
    changes.clone()
}

/// A ledger that someone else keeps a hold of.
pub struct Shared(pub Arc<MemoryLedger>);

impl Ledger for Shared {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        self.0.read(look)
    }

    fn transact(&self, transition: Transition<'_>) -> Result<(), LedgerError> {
        self.0.transact(transition)
    }
}

/// Keeps what the transition with the most changes has changed.
struct Recorded {
    ledger: RedbLedger,
    changes: Arc<Mutex<Vec<Changed>>>,
}

impl Ledger for Recorded {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        self.ledger.read(look)
    }

    fn transact(&self, transition: Transition<'_>) -> Result<(), LedgerError> {
        self.ledger.transact(&mut |snapshot| {
            let changes = transition(snapshot)?;
            let owned =
                changes.iter().map(|(table, key, value)| (table, key.to_vec(), value.map(<[u8]>::to_vec)));
            let owned: Vec<_> = owned.collect();
            let mut kept = self.changes.lock().unwrap();
            if owned.len() > kept.len() {
                *kept = owned;
            }
            Ok(changes)
        })
    }
}
