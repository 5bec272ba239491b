//! Tests that a file keeps its records when the disk fails, the process is killed or another program changes
//! it.
//!
//! `SESSIONCAP_CASES` multiplies the random cases; 1 by default.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::agent::ledger::faulty::{Disk, Fault};
use crate::agent::ledger::record::FORMAT;
use crate::agent::ledger::{MemoryLedger, Outcome, Overlay};
use crate::key::AgentSecretKey;

type Model = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

fn scale() -> u64 {
    std::env::var("SESSIONCAP_CASES").map_or(1, |text| text.parse().unwrap())
}

/// A directory for one test, removed with this value. One at a time: some of these tests start processes, and
/// a forked child shares the lock on a file that another thread has open until it executes its program.
struct Place(PathBuf, #[expect(dead_code, reason = "held until the files are gone")] MutexGuard<'static, ()>);

static FILES: Mutex<()> = Mutex::new(());

impl Place {
    fn new(name: &str) -> Self {
        let alone = FILES.lock().unwrap_or_else(PoisonError::into_inner);
        let path = std::env::temp_dir().join(format!("sessioncap-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path, alone)
    }

    fn file(&self) -> PathBuf {
        self.0.join("ledger.redb")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug, Clone)]
enum Change {
    Put(Table, u8, usize),
    Remove(Table, u8),
}

fn apply(changes: &[Change], overlay: &mut Overlay<'_>) {
    for change in changes {
        match change {
            Change::Put(table, key, len) => overlay.put(*table, &[*key], &vec![*key; *len]),
            Change::Remove(table, key) => overlay.remove(*table, &[*key]),
        }
    }
}

fn header() -> Vec<u8> {
    codec::encode(&Header { format: FORMAT, agent: AgentSecretKey::from_bytes([1; 32]).public() })
}

/// Runs one transition, with the header that a gate writes first.
fn refusal(opened: Result<RedbLedger, LedgerError>) -> Option<LedgerFailure> {
    opened.err().map(|error| error.cause())
}

fn change(ledger: &dyn Ledger, mut act: impl FnMut(&mut Overlay<'_>)) -> Result<(), LedgerFailure> {
    let outcome = ledger.transact(&mut |snapshot| {
        let mut overlay = Overlay::new(snapshot);
        overlay.put(Table::Meta, HEADER_KEY, &header());
        act(&mut overlay);
        overlay.into_changes()
    });
    outcome.map_err(|error| error.cause())
}

fn apply_to_model(changes: &[Change], rows: &mut Model) {
    for change in changes {
        match change {
            Change::Put(table, key, len) => drop(rows.insert((*table, vec![*key]), vec![*key; *len])),
            Change::Remove(table, key) => drop(rows.remove(&(*table, vec![*key]))),
        }
    }
}

/// All rows but the header.
fn rows(ledger: &dyn Ledger) -> Result<Model, LedgerFailure> {
    let mut rows = Model::new();
    let outcome = ledger.read(&mut |snapshot| {
        for &table in Table::ALL {
            let found = snapshot.range(table, &[], None, usize::MAX)?.into_iter();
            let found = found.filter(|(key, _)| table != Table::Meta || key != HEADER_KEY);
            rows.extend(found.map(|(key, value)| ((table, key), value)));
        }
        Ok(())
    });
    outcome.map(|()| rows).map_err(|error| error.cause())
}

fn put(ledger: &dyn Ledger, key: u8, len: usize) -> Result<(), LedgerFailure> {
    change(ledger, |overlay| apply(&[Change::Put(Table::Tickets, key, len)], overlay))
}

/// Short scripts of transactions, as a gate makes them: a few rows each.
fn script(seed: u64) -> Vec<Vec<Change>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut change = |_| {
        let table = Table::ALL[rng.gen_range(0..Table::ALL.len())];
        match rng.gen_bool(0.7) {
            true => Change::Put(table, rng.gen_range(0..12), rng.gen_range(1..1_500)),
            false => Change::Remove(table, rng.gen_range(0..12)),
        }
    };
    (0..30).map(|_| (0..3).map(&mut change).collect()).collect()
}

/// Runs a script until something fails. Returns the rows after the acknowledged transactions, and after the
/// failed one.
fn run(disk: &Disk, script: &[Vec<Change>]) -> (Model, Option<Model>) {
    let mut acknowledged = Model::new();
    let Ok(ledger) = RedbLedger::on_backend(disk.clone()) else {
        return (acknowledged, Some(Model::new()));
    };
    for changes in script {
        let mut next = acknowledged.clone();
        apply_to_model(changes, &mut next);
        if change(&ledger, |overlay| apply(changes, overlay)).is_err() {
            assert_eq!(put(&ledger, 0, 1), Err(LedgerFailure::Poisoned));
            return (acknowledged, Some(next));
        }
        acknowledged = next;
    }
    (acknowledged, None)
}

#[test]
fn after_any_failure_acknowledged_changes_exist_and_others_are_whole_or_absent() {
    let mut failed = 0;
    for seed in 0..scale() {
        let script = script(seed);
        let untouched = Disk::default();
        run(&untouched, &script);
        for nth in 1..=untouched.operations() {
            for fault in [Fault::Fail(io::ErrorKind::StorageFull), Fault::Tear, Fault::Gone] {
                let disk = Disk::default();
                disk.fault_at(nth, fault);
                let (acknowledged, attempted) = run(&disk, &script);
                failed += u32::from(attempted.is_some());
                let cuts = (0..4).map(|cut| disk.after_power_cut((seed * 10_000 + nth) * 4 + cut));
                for (way, disk) in std::iter::once(disk.after_kill()).chain(cuts).enumerate() {
                    let at = format!("seed {seed}, operation {nth}, {fault:?}, way {way}");
                    let again = match RedbLedger::on_backend(disk) {
                        Ok(ledger) => ledger,
                        // Torn while the file was created: nothing was acknowledged.
                        Err(_) if acknowledged.is_empty() => continue,
                        Err(failure) => panic!("{at}: {failure}"),
                    };
                    let found = rows(&again).unwrap();
                    assert!(found == acknowledged || Some(&found) == attempted.as_ref(), "{at}");
                    assert_eq!(put(&again, 1, 1), Ok(()), "{at}: it goes on");
                }
            }
        }
    }
    assert!(failed > 100, "{failed}");
}

#[test]
fn each_kind_of_failure_has_its_name_and_shuts_the_ledger() {
    let kinds = [
        (io::ErrorKind::StorageFull, LedgerFailure::Full),
        (io::ErrorKind::QuotaExceeded, LedgerFailure::Full),
        (io::ErrorKind::FileTooLarge, LedgerFailure::Full),
        (io::ErrorKind::InvalidData, LedgerFailure::Corrupt),
        (io::ErrorKind::ReadOnlyFilesystem, LedgerFailure::ReadOnly),
        (io::ErrorKind::PermissionDenied, LedgerFailure::ReadOnly),
        (io::ErrorKind::Other, LedgerFailure::Io),
    ];
    for (kind, name) in kinds {
        let disk = Disk::default();
        let ledger = RedbLedger::on_backend(disk.clone()).unwrap();
        put(&ledger, 1, 10).unwrap();
        disk.fault_at(1, Fault::Fail(kind));
        assert_eq!(put(&ledger, 2, 100_000), Err(name));
        assert_eq!(rows(&ledger), Err(LedgerFailure::Poisoned), "reads as well");
        drop(ledger);
        let again = RedbLedger::on_backend(disk.after_kill()).unwrap();
        assert_eq!(rows(&again).unwrap().len(), 1);
    }
}

fn cause_of(error: &LedgerError) -> Option<io::ErrorKind> {
    let cause = std::error::Error::source(error)?;
    cause.downcast_ref::<io::Error>().map(io::Error::kind)
}

#[test]
fn every_failure_keeps_the_systems_error_as_its_source() {
    let kind = io::ErrorKind::HostUnreachable;
    let (mut writes, mut unknown, mut reads) = (0, 0, 0);
    for nth in 1..60 {
        let disk = Disk::default();
        let ledger = RedbLedger::on_backend(disk.clone()).unwrap();
        put(&ledger, 1, 10).unwrap();
        disk.fault_at(nth, Fault::Fail(kind));
        let written = ledger.transact(&mut |snapshot| {
            let mut overlay = Overlay::new(snapshot);
            apply(&[Change::Put(Table::Tickets, 2, 100_000)], &mut overlay);
            overlay.into_changes()
        });
        let Err(error) = written else { continue };
        assert_eq!((error.cause(), cause_of(&error)), (LedgerFailure::Io, Some(kind)), "{nth}");
        writes += 1;
        unknown += u32::from(error.outcome() == Outcome::Unknown);
    }
    for nth in 1..60 {
        let disk = Disk::default();
        drop(RedbLedger::on_backend(disk.clone()).unwrap());
        disk.fault_at(nth, Fault::Fail(kind));
        let Err(error) = RedbLedger::on_backend(disk) else { continue };
        assert_eq!((error.cause(), cause_of(&error)), (LedgerFailure::Io, Some(kind)), "{nth}");
        reads += 1;
    }
    assert!(writes > unknown && unknown > 0 && reads > 0, "{writes}, {unknown}, {reads}");
}

#[test]
fn a_failure_that_a_transition_made_itself_has_no_cause() {
    let ledger = RedbLedger::on_backend(Disk::default()).unwrap();
    let error = ledger.transact(&mut |_| Err(LedgerFailure::Io)).unwrap_err();
    assert!(error.is_usable() && std::error::Error::source(&error).is_none());
}

#[test]
fn a_transition_that_changes_nothing_writes_nothing() {
    let disk = Disk::default();
    let ledger = RedbLedger::on_backend(disk.clone()).unwrap();
    put(&ledger, 1, 10).unwrap();
    let (syncs, writes) = (disk.syncs(), disk.writes());
    put(&ledger, 1, 10).unwrap();
    change(&ledger, |overlay| overlay.remove(Table::Tickets, &[9])).unwrap();
    rows(&ledger).unwrap();
    assert_eq!((disk.syncs(), disk.writes()), (syncs, writes));
    put(&ledger, 2, 10).unwrap();
    assert_eq!(disk.syncs(), syncs + 2, "two phases");
}

#[test]
fn a_transition_that_fails_leaves_nothing() {
    let disk = Disk::default();
    let ledger = RedbLedger::on_backend(disk.clone()).unwrap();
    let failed = ledger.transact(&mut |snapshot| {
        Overlay::new(snapshot).put(Table::Meta, b"a", b"1");
        Err(LedgerFailure::Corrupt)
    });
    let error = failed.unwrap_err();
    assert_eq!((error.cause(), error.outcome()), (LedgerFailure::Corrupt, Outcome::NotDone));
    assert!(error.is_usable(), "the transition's own refusal says nothing about the file");
    assert_eq!(put(&ledger, 1, 1), Ok(()));
    assert_eq!(rows(&ledger).unwrap().len(), 1);
    drop(ledger);
    assert_eq!(rows(&RedbLedger::on_backend(disk.after_kill()).unwrap()).unwrap().len(), 1);
}

#[test]
fn a_file_that_was_changed_is_refused_or_says_what_it_said() {
    let mut rng = StdRng::seed_from_u64(5);
    let disk = Disk::default();
    let ledger = RedbLedger::on_backend(disk.clone()).unwrap();
    for key in 0..40 {
        put(&ledger, key, 700).unwrap();
    }
    let whole = rows(&ledger).unwrap();
    drop(ledger);
    let content = disk.content();
    let mut refused = 0;
    for _ in 0..200 * scale() {
        let mut changed = content.clone();
        match rng.gen_range(0..4) {
            0 => changed.truncate(rng.gen_range(0..content.len())),
            1 => changed.extend((0..rng.gen_range(1..9_000)).map(|_| 7)),
            2 => {
                let place = rng.gen_range(0..content.len());
                changed[place] ^= 1 << rng.gen_range(0..8);
            }
            _ => {
                let place = rng.gen_range(0..content.len() - 600);
                rng.fill(&mut changed[place..place + 600]);
            }
        }
        let empty = changed.is_empty();
        let disk = Disk::holding(changed);
        // An empty file is a new ledger without an owner, so the gate starts anew.
        let found =
            RedbLedger::on_backend(disk).map_err(|error| error.cause()).and_then(|ledger| rows(&ledger));
        match found {
            Ok(found) => assert!(found == whole || empty, "{} rows", found.len()),
            Err(failure) => {
                refused += 1;
                let known = [LedgerFailure::Corrupt, LedgerFailure::Io];
                assert!(
                    known.contains(&failure) || matches!(failure, LedgerFailure::UnknownFormat { .. }),
                    "{failure:?}"
                );
            }
        }
    }
    assert!(refused > 50, "{refused}");
}

#[test]
fn what_is_not_a_ledger_is_not_touched() {
    let place = Place::new("foreign");
    for content in [&b"# notes\n"[..], &[0; 4_096], &[255; 10_000], b"x"] {
        fs::write(place.file(), content).unwrap();
        #[cfg(unix)]
        fs::set_permissions(place.file(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(refusal(RedbLedger::open(place.file())), Some(LedgerFailure::Corrupt));
        assert_eq!(fs::read(place.file()).unwrap(), content);
        #[cfg(unix)]
        assert_eq!(mode(&place.file()), 0o644, "its owner's word about it stands");
    }
}

#[test]
fn somebody_elses_database_is_not_touched() {
    let place = Place::new("database");
    let theirs: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("sessions of theirs");
    let database = Database::create(place.file()).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(theirs).unwrap().insert(b"key".as_slice(), b"value".as_slice()).unwrap();
    write.commit().unwrap();
    drop(database);
    assert_eq!(refusal(RedbLedger::open(place.file())), Some(LedgerFailure::Corrupt));
    let database = Database::create(place.file()).unwrap();
    let table = database.begin_read().unwrap().open_table(theirs).unwrap();
    assert_eq!(table.get(b"key".as_slice()).unwrap().unwrap().value(), b"value");
    drop(table);
    drop(database);
    fs::remove_file(place.file()).unwrap();
    // Tables with our names, of every kind.
    let ours = |name| redb::TableDefinition::<&[u8], &[u8]>::new(name);
    for name in Table::ALL.iter().copied().map(Table::name) {
        for row in [None, Some((b"header".as_slice(), b"theirs".as_slice())), Some((b"key", b"value"))] {
            let database = Database::create(place.file()).unwrap();
            let write = database.begin_write().unwrap();
            let mut table = write.open_table(ours(name)).unwrap();
            if let Some((key, value)) = row {
                table.insert(key, value).unwrap();
            }
            drop(table);
            write.commit().unwrap();
            drop(database);
            #[cfg(unix)]
            fs::set_permissions(place.file(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
            assert_eq!(
                refusal(RedbLedger::open(place.file())),
                Some(LedgerFailure::Corrupt),
                "{name} {row:?}"
            );
            #[cfg(unix)]
            assert_eq!(mode(&place.file()), 0o644);
            fs::remove_file(place.file()).unwrap();
        }
    }
    let theirs: redb::MultimapTableDefinition<'_, u64, u64> = redb::MultimapTableDefinition::new("many");
    let database = Database::create(place.file()).unwrap();
    let write = database.begin_write().unwrap();
    write.open_multimap_table(theirs).unwrap().insert(1, 2).unwrap();
    write.commit().unwrap();
    drop(database);
    assert_eq!(refusal(RedbLedger::open(place.file())), Some(LedgerFailure::Corrupt));
}

#[test]
fn a_version_of_the_database_that_is_not_known_is_named() {
    let disk = Disk::default();
    drop(RedbLedger::on_backend(disk.clone()).unwrap());
    let content = disk.content();
    // the versions of both commit slots, by redb's own description of its file
    let with = |version| {
        let mut changed = content.clone();
        changed[64] = version;
        changed[192] = version;
        refusal(RedbLedger::on_backend(Disk::holding(changed)))
    };
    assert_eq!(with(1), Some(LedgerFailure::UnknownFormat { version: 1 }));
    assert_eq!(with(2), Some(LedgerFailure::UnknownFormat { version: 2 }));
    // redb itself does not distinguish a later version from damage
    assert_eq!(with(9), Some(LedgerFailure::Corrupt));
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[cfg(unix)]
#[test]
fn the_file_is_its_owners_alone_from_the_beginning_and_again() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new("mode");
    let mode = || mode(&place.file());
    // before its permissions could be restricted
    drop(opened(&place.file()).unwrap());
    assert_eq!(mode(), 0o600);
    drop(RedbLedger::open(place.file()).unwrap());
    assert_eq!(mode(), 0o600);
    fs::set_permissions(place.file(), fs::Permissions::from_mode(0o644)).unwrap();
    drop(RedbLedger::open(place.file()).unwrap());
    assert_eq!(mode(), 0o600);
}

#[cfg(unix)]
#[test]
fn a_link_in_the_files_place_is_refused() {
    let place = Place::new("link");
    let elsewhere = place.0.join("elsewhere");
    fs::write(&elsewhere, b"").unwrap();
    std::os::unix::fs::symlink(&elsewhere, place.file()).unwrap();
    assert_eq!(refusal(RedbLedger::open(place.file())), Some(LedgerFailure::NotAFile));
    assert_eq!(refusal(RedbLedger::open(&place.0)), Some(LedgerFailure::NotAFile), "a directory");
}

#[test]
fn a_second_opening_is_refused_until_the_first_is_gone() {
    let place = Place::new("twice");
    let first = RedbLedger::open(place.file()).unwrap();
    put(&first, 1, 1).unwrap();
    assert_eq!(refusal(RedbLedger::open(place.file())), Some(LedgerFailure::InUse));
    put(&first, 2, 1).unwrap();
    drop(first);
    assert_eq!(rows(&RedbLedger::open(place.file()).unwrap()).unwrap().len(), 2);
}

/// The other process of the next test; does nothing if run directly.
#[test]
fn another_process_tries_the_file() {
    if let Some(path) = std::env::var_os("SESSIONCAP_HELD_FILE") {
        let free = std::env::var_os("SESSIONCAP_FILE_IS_FREE").is_some();
        assert_eq!(refusal(RedbLedger::open(path)), (!free).then_some(LedgerFailure::InUse));
    }
}

#[test]
fn another_process_is_refused_until_this_one_closes_the_file() {
    let place = Place::new("process");
    let other = |free: bool| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "agent::ledger::embedded::tests::another_process_tries_the_file"]);
        command.env("SESSIONCAP_HELD_FILE", place.file());
        if free {
            command.env("SESSIONCAP_FILE_IS_FREE", "1");
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    };
    let held = RedbLedger::open(place.file()).unwrap();
    other(false);
    drop(held);
    other(true);
}

#[test]
fn a_panic_below_is_a_corrupt_ledger_that_stays_shut() {
    let mut panics = 0;
    let untouched = Disk::default();
    let ledger = RedbLedger::on_backend(untouched.clone()).unwrap();
    let opening = untouched.operations();
    put(&ledger, 1, 5_000).unwrap();
    for nth in 1..=untouched.operations() {
        let disk = Disk::default();
        disk.fault_at(nth, Fault::Panic);
        let opened = RedbLedger::on_backend(disk.clone());
        if nth <= opening {
            assert_eq!(refusal(opened), Some(LedgerFailure::Corrupt), "{nth}");
            continue;
        }
        let ledger = opened.unwrap();
        assert_eq!(put(&ledger, 1, 5_000), Err(LedgerFailure::Corrupt), "{nth}");
        assert_eq!(rows(&ledger), Err(LedgerFailure::Poisoned), "{nth}");
        drop(ledger);
        let again = rows(&RedbLedger::on_backend(disk.after_kill()).unwrap()).unwrap();
        assert!(again.is_empty() || again.len() == 1, "{nth}");
        panics += 1;
    }
    assert!(panics > 3, "{panics}");
}

#[test]
fn a_file_whose_making_was_cut_short_is_made_anew() {
    let place = Place::new("unfinished");
    let untouched = Disk::default();
    drop(RedbLedger::on_backend(untouched.clone()).unwrap());
    let mut refused = 0;
    for nth in 1..=untouched.operations() {
        for fault in [Fault::Fail(io::ErrorKind::StorageFull), Fault::Tear, Fault::Gone] {
            let disk = Disk::default();
            disk.fault_at(nth, fault);
            drop(RedbLedger::on_backend(disk.clone()));
            let found = [
                disk.after_kill(),
                disk.after_power_cut(nth),
                disk.after_power_cut(nth + 500),
                disk.after_power_cut(nth + 1_000),
            ];
            for disk in found {
                fs::write(place.file(), disk.content()).unwrap();
                refused += u32::from(RedbLedger::on_backend(disk).is_err());
                let ledger = RedbLedger::open(place.file())
                    .unwrap_or_else(|failure| panic!("operation {nth}, {fault:?}: {failure}"));
                assert!(rows(&ledger).unwrap().is_empty());
                assert_eq!(put(&ledger, 1, 1), Ok(()));
            }
        }
    }
    assert!(refused > 5, "redb itself refused {refused}");
}

#[test]
fn only_a_file_that_never_held_anything_is_made_anew() {
    let begun = |len: usize| {
        let mut content = vec![0; len];
        content[PAGE_SIZE].copy_from_slice(&4_096_u32.to_le_bytes());
        content
    };
    let new = usize::try_from(NEW_FILE).unwrap();
    assert!(is_unfinished(&vec![0; new]) && is_unfinished(&begun(new)) && is_unfinished(&begun(320)));
    assert!(!is_unfinished(&[]) && !is_unfinished(&[0; 4_096]) && !is_unfinished(&[0; 100]));
    for place in [0, 8, HEADER, 4_096, new - 1] {
        let mut content = begun(new);
        content[place] = 1;
        assert!(!is_unfinished(&content), "{place}");
    }
    // A ledger that had grown and was wiped is not a new one.
    let place = Place::new("wiped");
    fs::write(place.file(), vec![0; new + 4_096]).unwrap();
    assert_eq!(refusal(RedbLedger::open(place.file())), Some(LedgerFailure::Corrupt));
    assert_eq!(fs::read(place.file()).unwrap().len(), new + 4_096);
    // A file that another process is creating now is not new either.
    fs::write(place.file(), begun(new)).unwrap();
    let other = File::open(place.file()).unwrap();
    other.lock().unwrap();
    assert_eq!(refusal(RedbLedger::open(place.file())), Some(LedgerFailure::InUse));
    // redb has its own lock, which reports it first
    let refused = discard_unfinished(&place.file()).map_err(|error| error.cause());
    assert_eq!(refused, Err(LedgerFailure::InUse));
    assert_eq!(fs::read(place.file()).unwrap(), begun(new));
}

#[test]
fn a_place_that_is_not_there_is_an_error_of_its_own() {
    let place = Place::new("nowhere");
    let error = RedbLedger::open(place.0.join("no/such/file")).unwrap_err();
    assert_eq!((error.cause(), cause_of(&error)), (LedgerFailure::Io, Some(io::ErrorKind::NotFound)));
}

#[test]
fn a_full_disk_is_named_and_nothing_acknowledged_is_lost() {
    let place = Place::new("full");
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(&place.0)
        .output();
    if !mount.is_ok_and(|output| output.status.success()) {
        eprintln!("a small file system cannot be mounted here: only the made disk was tried");
        return;
    }
    let outcome = std::panic::catch_unwind(|| {
        let ledger = RedbLedger::open(place.file()).unwrap();
        let mut acknowledged = 0_u8;
        let failure = loop {
            match put(&ledger, acknowledged, 60_000) {
                Ok(()) => acknowledged += 1,
                Err(failure) => break failure,
            }
        };
        assert_eq!(failure, LedgerFailure::Full);
        assert!(acknowledged > 3);
        assert_eq!(put(&ledger, 0, 1), Err(LedgerFailure::Poisoned));
        drop(ledger);
        let more =
            std::process::Command::new("mount").args(["-o", "remount,size=16m"]).arg(&place.0).output();
        assert!(more.unwrap().status.success());
        let again = RedbLedger::open(place.file()).unwrap();
        let found = rows(&again).unwrap();
        let expected = |count: u8| -> Model {
            (0..count).map(|key| ((Table::Tickets, vec![key]), vec![key; 60_000])).collect()
        };
        assert!(found == expected(acknowledged) || found == expected(acknowledged + 1));
        assert_eq!(put(&again, 200, 60_000), Ok(()));
    });
    let unmounted = std::process::Command::new("umount").arg(&place.0).output();
    assert!(unmounted.unwrap().status.success());
    outcome.unwrap();
}

/// 200,000 small changes to at most 500 rows: what has been freed is used again.
#[test]
fn a_file_that_is_written_over_and_over_does_not_grow() {
    let disk = Disk::default();
    let ledger = RedbLedger::on_backend(disk.clone()).unwrap();
    let mut rng = StdRng::seed_from_u64(9);
    let mut most = [0; 2];
    for half in &mut most {
        for _ in 0..2_000 * scale() {
            change(&ledger, |overlay| {
                for _ in 0..50 {
                    let key = rng.gen_range(0..500_u16).to_be_bytes();
                    match rng.gen_bool(0.6) {
                        true => {
                            let value = vec![rng.r#gen(); rng.gen_range(20..300)];
                            overlay.put(Table::Credentials, &key, &value);
                        }
                        false => overlay.remove(Table::Credentials, &key),
                    }
                }
            })
            .unwrap();
            *half = disk.len().unwrap().max(*half);
        }
    }
    assert!(most[1] <= most[0] + most[0] / 10 && most[1] < 1_000_000, "{most:?}");
}

fn any_change() -> impl Strategy<Value = Change> {
    let table = (0..Table::ALL.len()).prop_map(|index| Table::ALL[index]);
    let key = 0..20_u8;
    prop_oneof![
        (table.clone(), key.clone(), 0..2_000_usize)
            .prop_map(|(table, key, len)| Change::Put(table, key, len)),
        (table, key).prop_map(|(table, key)| Change::Remove(table, key)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(u32::try_from(24 * scale()).unwrap()))]
    #[test]
    fn file_and_memory_say_the_same_also_when_the_file_is_opened_again(
        transactions in proptest::collection::vec((proptest::collection::vec(any_change(), 0..8), any::<bool>()), 1..12),
        prefix: u8, limit in 0..25_usize,
    ) {
        let mut disk = Disk::default();
        let mut file = RedbLedger::on_backend(disk.clone()).unwrap();
        let memory = MemoryLedger::new();
        for (changes, reopen) in transactions {
            let read = |ledger: &dyn Ledger| {
                let mut seen = Vec::new();
                ledger.transact(&mut |snapshot| {
                    seen.clear();
                    let mut overlay = Overlay::new(snapshot);
                    overlay.put(Table::Meta, HEADER_KEY, &header());
                    apply(&changes, &mut overlay);
                    for table in Table::ALL.iter().copied().filter(|table| *table != Table::Meta) {
                        seen.push(overlay.range(table, &[], None, limit)?);
                        seen.push(overlay.range(table, &[prefix % 20], None, limit)?);
                        let value = overlay.get(table, &[prefix % 20])?;
                        seen.push(value.map(|value| (Vec::new(), value)).into_iter().collect());
                    }
                    overlay.into_changes()
                }).unwrap();
                seen
            };
            prop_assert_eq!(read(&file), read(&memory));
            if reopen {
                drop(file);
                disk = disk.after_kill();
                file = RedbLedger::on_backend(disk.clone()).unwrap();
            }
            prop_assert_eq!(rows(&file).unwrap(), rows(&memory).unwrap());
        }
    }
}

#[test]
fn a_file_that_is_read_and_written_all_the_time_stays_small() {
    let disk = Disk::default();
    let ledger = RedbLedger::on_backend(disk.clone()).unwrap();
    for number in 0..2_000_u32 {
        let key = (number % 16).to_be_bytes();
        ledger
            .transact(&mut |snapshot| {
                let mut overlay = Overlay::new(snapshot);
                overlay.put(Table::Credentials, &key, &[u8::try_from(number % 251).unwrap(); 500]);
                overlay.into_changes()
            })
            .unwrap();
        // A page of a list that goes on beside the commits: no snapshot outlives its page.
        ledger
            .read(&mut |snapshot| snapshot.range(Table::Credentials, &[], Some(&key), 1).map(drop))
            .unwrap();
    }
    assert!(disk.content().len() < 1_000_000, "{} bytes", disk.content().len());
}
