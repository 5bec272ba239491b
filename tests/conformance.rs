//! The public suite for backends: correct ones pass, and one that is wrong in one way fails that clause.
#![cfg(feature = "conformance")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "common/ledger.rs"]
#[allow(dead_code, reason = "its rows alone are used here")]
mod ledger;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ledger::{Rows, apply, range};
use sessioncap::NodeId;
use sessioncap::agent::LedgerFailure;
use sessioncap::agent::ledger::conformance::{Backend, Clause, Report, Verdict, check};
use sessioncap::agent::ledger::{
    Changes, Ledger, LedgerError, Look, MemoryLedger, Outcome, Row, Snapshot, Table, Transition,
};

/// Which one thing a backend does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// Now and then a success is not stored.
    LosesWrites,
    /// A success is stored, and gone after a crash.
    KeptInACache,
    /// The rows of a transition are applied one by one.
    AppliesOneByOne,
    /// After a crash half of the last transition is there.
    HalfAfterACrash,
    /// The rows of a transition that refused are stored.
    KeepsWhatWasRefused,
    /// Each read of a row sees what is committed by then, and nothing is compared at the commit.
    ReadCommitted,
    /// A transition sees one state, and only rows that both have written are compared at the commit.
    SnapshotIsolation,
    /// Another opening reads what was there a transaction ago.
    StaleReads,
    /// Each opening has its own copy.
    TwoOwners,
    /// Reports that nothing was done, and did it.
    SaysNotDone,
    /// Reports that a commit without an answer was not done.
    SaysNotDoneWhenUnknown,
    /// Reports success for a commit that was made to fail.
    SaysDone,
    /// Does not keep the cause of a refusal.
    ForgetsCauses,
    /// Gives the rows in another order.
    Unordered,
    /// Gives one row more than it was asked for.
    IgnoresTheLimit,
    /// Cannot hold an empty value.
    ForgetsEmptyValues,
    /// Panics at one of its commits.
    Panics(u64),
}

#[derive(Default)]
struct Store {
    rows: Rows,
    /// The rows after the transaction before the last.
    before: Rows,
    /// The rows after a crash.
    durable: Rows,
    commits: u64,
    reads: u64,
    fail_next: Option<Outcome>,
}

#[derive(Clone)]
struct Db {
    store: Arc<Mutex<Store>>,
    writer: Arc<Mutex<()>>,
    wrong: Wrong,
    openings: Arc<AtomicU64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Db {
    fn new(wrong: Wrong) -> Self {
        Self { store: Arc::default(), writer: Arc::default(), wrong, openings: Arc::default() }
    }
}

impl Backend for Db {
    fn open(&self, _: NodeId) -> Result<Box<dyn Ledger>, LedgerFailure> {
        let nth = self.openings.fetch_add(1, Ordering::Relaxed);
        let mut db = self.clone();
        if self.wrong == Wrong::TwoOwners {
            let store = lock(&self.store);
            db.store = Arc::new(Mutex::new(Store {
                rows: store.rows.clone(),
                durable: store.durable.clone(),
                ..Store::default()
            }));
        }
        Ok(Box::new(Opening { db, first: nth.is_multiple_of(2) }))
    }

    fn crash(&self) -> bool {
        let mut store = lock(&self.store);
        store.rows = store.durable.clone();
        true
    }

    fn fail_next(&self, outcome: Outcome) -> bool {
        lock(&self.store).fail_next = Some(outcome);
        true
    }
}

struct Opening {
    db: Db,
    first: bool,
}

/// One state of the rows, or, for a backend that reads what is committed by now, none.
struct View<'a> {
    db: &'a Db,
    rows: Option<Rows>,
}

impl View<'_> {
    fn with<T>(&self, look: impl FnOnce(&Rows) -> T) -> T {
        match &self.rows {
            Some(rows) => look(rows),
            None => look(&lock(&self.db.store).rows),
        }
    }
}

impl Snapshot for View<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerFailure> {
        Ok(self.with(|rows| rows.get(&(table, key.to_vec())).cloned()))
    }

    fn range(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, LedgerFailure> {
        let mut found: Vec<Row> = self.with(|rows| range(rows, table, prefix, after).collect());
        if self.db.wrong == Wrong::Unordered {
            found.reverse();
        }
        found.truncate(limit + usize::from(self.db.wrong == Wrong::IgnoresTheLimit));
        Ok(found)
    }
}

impl Ledger for Opening {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        let rows = {
            let mut store = lock(&self.db.store);
            store.reads += 1;
            match self.db.wrong {
                Wrong::StaleReads if !self.first => store.before.clone(),
                _ => store.rows.clone(),
            }
        };
        look(&View { db: &self.db, rows: Some(rows) }).map_err(LedgerError::not_done)
    }

    fn transact(&self, transition: Transition<'_>) -> Result<(), LedgerError> {
        let wrong = self.db.wrong;
        let free = matches!(wrong, Wrong::ReadCommitted | Wrong::SnapshotIsolation);
        let _one = (!free).then(|| lock(&self.db.writer));
        let begun = lock(&self.db.store).rows.clone();
        let view = View { db: &self.db, rows: (wrong != Wrong::ReadCommitted).then(|| begun.clone()) };
        let changes = match transition(&view) {
            Ok(changes) => changes,
            Err(cause) => {
                if wrong == Wrong::KeepsWhatWasRefused {
                    lock(&self.db.store).rows.insert((Table::Tickets, b"whole".to_vec()), Vec::new());
                }
                let cause = if wrong == Wrong::ForgetsCauses { LedgerFailure::Io } else { cause };
                return Err(LedgerError::not_done(cause));
            }
        };
        if wrong == Wrong::SnapshotIsolation {
            let store = lock(&self.db.store);
            let of = |rows: &Rows, table, key: &[u8]| rows.get(&(table, key.to_vec())).cloned();
            let conflict =
                |(table, key, _): (Table, &[u8], _)| of(&begun, table, key) != of(&store.rows, table, key);
            if changes.iter().any(conflict) {
                return Err(LedgerError::not_done(LedgerFailure::Io));
            }
        }
        self.commit(&changes)
    }
}

impl Opening {
    fn commit(&self, changes: &Changes) -> Result<(), LedgerError> {
        let wrong = self.db.wrong;
        let fault = lock(&self.db.store).fail_next.take();
        if fault == Some(Outcome::NotDone) && !matches!(wrong, Wrong::SaysNotDone | Wrong::SaysDone) {
            return Err(LedgerError::not_done(LedgerFailure::Io));
        }
        if wrong == Wrong::AppliesOneByOne {
            for (nth, (table, key, value)) in changes.iter().enumerate() {
                apply(&mut lock(&self.db.store).rows, table, key, value);
                if nth == 100 {
                    // Until somebody has read in between: the suite's reader does, until it has seen enough.
                    let seen = lock(&self.db.store).reads;
                    for _ in 0..20_000 {
                        if lock(&self.db.store).reads >= seen + 2 {
                            break;
                        }
                        std::thread::yield_now();
                    }
                }
            }
            let mut store = lock(&self.db.store);
            store.durable = store.rows.clone();
            return Ok(());
        }
        let mut store = lock(&self.db.store);
        store.commits += 1;
        if wrong == Wrong::Panics(store.commits) {
            panic!("as a wrong backend does");
        }
        if wrong == Wrong::LosesWrites && store.commits.is_multiple_of(7) && !changes.is_empty() {
            return Ok(());
        }
        store.before = store.rows.clone();
        for (nth, (table, key, value)) in changes.iter().enumerate() {
            let value = value.filter(|value| wrong != Wrong::ForgetsEmptyValues || !value.is_empty());
            apply(&mut store.rows, table, key, value);
            if wrong != Wrong::KeptInACache && (wrong != Wrong::HalfAfterACrash || nth.is_multiple_of(2)) {
                apply(&mut store.durable, table, key, value);
            }
        }
        match fault {
            Some(Outcome::NotDone) if wrong == Wrong::SaysNotDone => {
                Err(LedgerError::not_done(LedgerFailure::Io))
            }
            Some(Outcome::Unknown) if wrong == Wrong::SaysNotDoneWhenUnknown => {
                Err(LedgerError::not_done(LedgerFailure::Io))
            }
            Some(Outcome::Unknown) if wrong != Wrong::SaysDone => {
                Err(LedgerError::unknown(LedgerFailure::Io))
            }
            _ => Ok(()),
        }
    }
}

fn report(wrong: Wrong) -> Report {
    check(&Db::new(wrong))
}

#[test]
fn a_backend_that_does_nothing_wrong_passes_every_clause() {
    let report = report(Wrong::Nothing);
    assert!(report.all_passed(), "{report}");
    assert_eq!(report.verdicts().len(), Clause::ALL.len());
}

#[test]
fn each_wrong_backend_fails_the_clause_that_it_breaks() {
    use Clause::*;
    for (wrong, clause) in [
        (Wrong::LosesWrites, Fresh),
        (Wrong::KeptInACache, Durable),
        (Wrong::AppliesOneByOne, Whole),
        (Wrong::HalfAfterACrash, Durable),
        (Wrong::KeepsWhatWasRefused, Whole),
        (Wrong::ReadCommitted, Serializable),
        (Wrong::SnapshotIsolation, Serializable),
        (Wrong::StaleReads, Fresh),
        (Wrong::TwoOwners, OneOwner),
        (Wrong::TwoOwners, Fresh),
        (Wrong::SaysNotDone, HonestNotDone),
        (Wrong::SaysNotDoneWhenUnknown, HonestUnknown),
        (Wrong::SaysDone, HonestUnknown),
        (Wrong::SaysDone, HonestNotDone),
        (Wrong::ForgetsCauses, HonestNotDone),
        (Wrong::Unordered, Rows),
        (Wrong::IgnoresTheLimit, Rows),
        (Wrong::ForgetsEmptyValues, Rows),
        (Wrong::Panics(3), Rows),
        (Wrong::Panics(40), Whole),
        (Wrong::Panics(190), Serializable),
        (Wrong::Panics(400), Fresh),
    ] {
        let report = report(wrong);
        let failed = matches!(report.verdict(clause), Some(Verdict::Failed(_)));
        // A panic hits whichever clause makes that commit.
        let failed = failed || matches!(wrong, Wrong::Panics(_)) && report.failed().count() > 0;
        assert!(failed, "{wrong:?}\n{report}");
        assert!(!report.all_passed());
    }
}

#[test]
fn clauses_of_missing_hooks_are_reported_as_unchecked() {
    struct Plain(Arc<MemoryLedger>);
    impl Backend for Plain {
        fn open(&self, _: NodeId) -> Result<Box<dyn Ledger>, LedgerFailure> {
            Ok(Box::new(Arc::clone(&self.0)))
        }
    }
    let report = check(&Plain(Arc::default()));
    for (clause, verdict) in report.verdicts() {
        let unchecked = [Clause::Durable, Clause::HonestNotDone, Clause::HonestUnknown].contains(clause);
        assert_eq!(matches!(verdict, Verdict::Unchecked(_)), unchecked, "{report}");
        assert_eq!(*verdict == Verdict::Passed, !unchecked, "{report}");
    }
    assert!(!report.all_passed() && report.failed().count() == 0);
    assert!(report.to_string().contains("durable           unchecked: `Backend::crash` is not given"));
}

#[test]
fn a_store_that_cannot_be_opened_fails_and_does_not_panic() {
    struct Nowhere;
    impl Backend for Nowhere {
        fn open(&self, _: NodeId) -> Result<Box<dyn Ledger>, LedgerFailure> {
            Err(LedgerFailure::Io)
        }
    }
    assert_eq!(check(&Nowhere).failed().count(), Clause::ALL.len());
}

/// Runs each transition one to three times and keeps the last, as a database does that retries.
struct Rerun<L>(L, AtomicU64);

impl<L: Ledger> Ledger for Rerun<L> {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        for _ in 0..self.1.fetch_add(1, Ordering::Relaxed) % 3 {
            self.0.read(look)?;
        }
        self.0.read(look)
    }

    fn transact(&self, transition: Transition<'_>) -> Result<(), LedgerError> {
        let more = self.1.fetch_add(1, Ordering::Relaxed) % 3;
        self.0.transact(&mut |snapshot| {
            for _ in 0..more {
                let _ = transition(snapshot);
            }
            transition(snapshot)
        })
    }
}

#[test]
fn a_backend_that_runs_transitions_again_passes() {
    struct Again(Db);
    impl Backend for Again {
        fn open(&self, node: NodeId) -> Result<Box<dyn Ledger>, LedgerFailure> {
            Ok(Box::new(Rerun(self.0.open(node)?, AtomicU64::new(0))))
        }
        fn crash(&self) -> bool {
            self.0.crash()
        }
        fn fail_next(&self, outcome: Outcome) -> bool {
            self.0.fail_next(outcome)
        }
    }
    let report = check(&Again(Db::new(Wrong::Nothing)));
    assert!(report.all_passed(), "{report}");
}

#[cfg(feature = "redb")]
#[test]
fn the_ledger_in_a_file_passes() {
    use sessioncap::agent::ledger::RedbLedger;

    struct File(std::path::PathBuf);
    impl Backend for File {
        fn open(&self, _: NodeId) -> Result<Box<dyn Ledger>, LedgerFailure> {
            match RedbLedger::open(self.0.join("ledger.redb")) {
                Ok(ledger) => Ok(Box::new(ledger)),
                Err(error) => Err(error.cause()),
            }
        }
        /// What a kill leaves: the file as it is. `src/agent/ledger/embedded/tests.rs` cuts the power too.
        fn crash(&self) -> bool {
            true
        }
    }
    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
    let place = std::env::temp_dir().join(format!("sessioncap-conformance-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place).unwrap();
    let report = check(&File(place));
    let passed = report.verdicts().iter().filter(|(_, verdict)| *verdict == Verdict::Passed).count();
    assert_eq!((passed, report.failed().count()), (Clause::ALL.len() - 2, 0), "{report}");
}
