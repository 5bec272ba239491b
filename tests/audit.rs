//! Audit records: each once and in order, also if the process is killed or the sink fails.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::ledger::{Fault, TestLedger};
use common::*;
use sessioncap::agent::ledger::{MemoryLedger, Table};
use sessioncap::agent::*;
use sessioncap::limits::MAX_AUDIT_WAITING;
use sessioncap::*;

/// A log that outlives the process that writes it, and may refuse to take anything.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    records: Vec<AuditRecord>,
    full: bool,
    panics: bool,
}

impl Log {
    /// Also after a panic.
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn records(&self) -> Vec<AuditRecord> {
        self.lines().records.clone()
    }

    fn names(&self) -> Vec<String> {
        self.records().iter().map(|record| name(&record.event)).collect()
    }

    fn fill(&self, full: bool) {
        self.lines().full = full;
    }
}

impl AuditSink for Log {
    fn record(&self, record: &AuditRecord) -> Result<(), NotKept> {
        let mut lines = self.lines();
        assert!(!lines.panics, "a sink that panics");
        if lines.full {
            return Err(NotKept);
        }
        lines.records.push(record.clone());
        Ok(())
    }

    fn has(&self, record: &AuditRecord) -> bool {
        self.lines().records.contains(record)
    }
}

fn name(event: &AuditEvent) -> String {
    let written = serde_json::to_value(event).unwrap();
    assert_eq!(serde_json::from_value::<AuditEvent>(written.clone()).unwrap(), *event);
    written["event"].as_str().unwrap().to_owned()
}

#[test]
fn a_shared_sink_is_called_like_an_owned_one() {
    fn has(sink: impl AuditSink, record: &AuditRecord) -> bool {
        sink.has(record)
    }
    let log = Log::default();
    let shared: Arc<dyn AuditSink> = Arc::new(log.clone());
    let world = World::with(MemoryLedger::new(), |config| config.with_audit(Arc::clone(&shared)));
    world.enrol(Desktop::new(&world, 9).device);
    let records = log.records();
    assert!(!records.is_empty());
    let boxed: Box<dyn AuditSink> = Box::new(Arc::clone(&shared));
    assert!(has(Arc::clone(&shared), &records[0]) && has(boxed, &records[0]));
    let empty: Arc<dyn AuditSink> = Arc::new(Log::default());
    assert!(!has(empty, &records[0]));
}

fn open(ledger: &TestLedger, log: &Log) -> (World, Desktop) {
    let world = World::with(ledger.clone(), |config| config.with_audit(log.clone()));
    let desktop = Desktop::new(&world, 9);
    world.enrol(desktop.device);
    (world, desktop)
}

/// As a process that is killed leaves its gate.
fn kill(world: World) {
    std::mem::forget(world);
}

fn kept(ledger: &TestLedger) -> usize {
    ledger.rows().keys().filter(|(table, _)| *table == Table::Events).count()
}

/// Every number once, and none missing.
fn assert_whole(records: &[AuditRecord]) {
    for pair in records.windows(2) {
        let place = |record: &AuditRecord| (record.opening, record.sequence);
        let (before, after) = (place(&pair[0]), place(&pair[1]));
        let (next, opened) = ((before.0, before.1 + 1), (before.0 + 1, 0));
        assert!(after == next || after == opened, "{after:?} follows {before:?}");
    }
}

#[test]
fn records_that_the_sink_missed_are_passed_to_it_at_the_next_opening() {
    let mut durable = 0;
    for nth in 1.. {
        let (ledger, log) = (TestLedger::default(), Log::default());
        let (world, desktop) = open(&ledger, &log);
        desktop.register(&world).unwrap();
        let pairing = desktop.share(&world, &terms());
        let _joined = world.join(&pairing.link, &phone(2)).unwrap();
        let before = log.names();
        // The last call of a transaction is its commit: the change is on the disk, and the sink has not been called.
        ledger.fail_nth(nth, Fault::Done);
        if world.gate.revoke_credential(&pairing.credential, world.now).is_ok() {
            assert_eq!(durable, 1);
            return;
        }
        assert_eq!(log.names(), before);
        kill(world);
        let ledger = ledger.opened_again();
        let (world, _) = open(&ledger, &log);
        let revoked = matches!(world.only_listing().state, ListingState::Revoked { .. });
        durable += usize::from(revoked);
        // The visit was waiting for a commit to be written with.
        let told: &[&str] = match revoked {
            true => &["phone_attached", "credential_revoked", "gate_opened"],
            false => &["gate_opened"],
        };
        assert_eq!(log.names()[before.len()..], *told, "call {nth}");
        assert_whole(&log.records());
    }
}

#[test]
fn a_record_that_the_log_has_is_not_recorded_again_after_a_kill() {
    let (ledger, log) = (TestLedger::default(), Log::default());
    for _ in 0..3 {
        let (world, desktop) = open(&ledger, &log);
        desktop.register(&world).unwrap();
        let _pairing = desktop.share(&world, &terms());
        assert!(kept(&ledger) > 0, "kept until the next write");
        kill(world);
    }
    let opening = ["gate_opened", "issuer_registered", "ticket_offered"];
    assert_eq!(
        log.names(),
        [&opening[..], &["gate_opened", "ticket_offered"], &["gate_opened", "ticket_offered"]].concat()
    );
    assert_whole(&log.records());
}

#[test]
fn a_sink_without_memory_gets_the_last_records_again_only_after_a_kill() {
    let ledger = TestLedger::default();
    let (world, desktop) = open(&ledger, &Log::default());
    desktop.register(&world).unwrap();
    drop(world);
    assert_eq!(kept(&ledger), 0, "a gate that is dropped leaves nothing to be told");
    let forgetful = Log::default();
    let (world, _) = open(&ledger, &forgetful);
    assert_eq!(forgetful.names(), ["gate_opened"]);
    kill(world);
    let forgetful = Log::default();
    let _again = open(&ledger, &forgetful);
    assert_eq!(forgetful.names(), ["gate_opened", "gate_opened"]);
    assert_whole(&forgetful.records());
}

#[test]
fn a_full_log_delays_records_and_neither_loses_nor_reorders_them() {
    let (ledger, log) = (TestLedger::default(), Log::default());
    let (world, desktop) = open(&ledger, &log);
    desktop.register(&world).unwrap();
    log.fill(true);
    let pairing = desktop.share(&world, &terms());
    let _joined = world.join(&pairing.link, &phone(2)).unwrap();
    world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
    assert_eq!(log.names(), ["gate_opened", "issuer_registered"]);
    // Not even a restart loses them.
    kill(world);
    let (world, _) = open(&ledger, &log);
    world.gate.settle(world.now).unwrap();
    log.fill(false);
    world.gate.settle(world.now).unwrap();
    let told = log.names();
    assert_eq!(
        told[2..],
        ["ticket_offered", "ticket_redeemed", "phone_attached", "credential_revoked", "gate_opened"]
    );
    assert_whole(&log.records());
    drop(world);
    assert_eq!(kept(&ledger), 0);
}

#[test]
fn a_sink_that_panics_has_not_taken_the_record_and_holds_up_no_revocation() {
    let (ledger, log) = (TestLedger::default(), Log::default());
    let (mut world, desktop) = open(&ledger, &log);
    desktop.register(&world).unwrap();
    let pairing = desktop.share(&world, &terms());
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    let panics = |yes: bool| log.lines().panics = yes;
    panics(true);
    assert!(world.gate.revoke_credential(&pairing.credential, world.now).is_ok());
    assert!(joined.guard.ask(Op::SendInput, world.now, || ()).is_err());
    assert_eq!(list_all(&world.gate, None, world.now).unwrap().len(), 1);
    // An operator's reset holds as well.
    world.now.wall -= time::Duration::days(1);
    world.now.monotonic += time::Duration::SECOND;
    world.gate.reset_clock(world.now).unwrap();
    panics(false);
    desktop.register(&world).unwrap();
    let records = log.records();
    let names: Vec<_> = records.iter().map(|record| name(&record.event)).collect();
    assert_eq!(names[names.len() - 3..], ["credential_revoked", "clock_reset", "issuer_registered"]);
    assert_eq!(records.last().unwrap().at, world.now.timestamp());
    assert_whole(&records);
}

#[test]
fn a_dropped_record_stays_dropped_after_a_kill() {
    let (ledger, log) = (TestLedger::default(), Log::default());
    log.fill(true);
    let (mut world, desktop) = open(&ledger, &log);
    desktop.register(&world).unwrap();
    for _ in 0..MAX_AUDIT_WAITING / 2 + 10 {
        let pairing = desktop.share(&world, &terms().with_ticket_lifetime(30).unwrap());
        world.gate.revoke_ticket(&pairing.ticket, world.now).unwrap();
        world.pass(660);
    }
    log.fill(false);
    // Recorded, and nothing is written after it.
    world.gate.settle(world.now).unwrap();
    let before = log.names().len();
    kill(world);
    let (_world, _) = open(&ledger, &log);
    assert_eq!(log.names()[before..], ["gate_opened"]);
    assert_whole(&log.records());
}

#[test]
fn an_agent_that_is_killed_at_every_start_does_not_fill_the_ledger() {
    for full in [false, true] {
        let (ledger, log) = (TestLedger::default(), Log::default());
        log.fill(full);
        (0..MAX_AUDIT_WAITING + 30).for_each(|_| kill(open(&ledger, &log).0));
        let most = if full { MAX_AUDIT_WAITING + 1 } else { 1 };
        assert!(kept(&ledger) <= most, "{} are kept, full: {full}", kept(&ledger));
    }
}

#[test]
fn a_log_that_is_never_written_fills_neither_ledger_nor_memory_and_stops_no_call() {
    let (ledger, log) = (TestLedger::default(), Log::default());
    log.fill(true);
    let (mut world, desktop) = open(&ledger, &log);
    desktop.register(&world).unwrap();
    for _ in 0..MAX_AUDIT_WAITING {
        let pairing = desktop.share(&world, &terms().with_ticket_lifetime(30).unwrap());
        world.gate.revoke_ticket(&pairing.ticket, world.now).unwrap();
        world.pass(660);
    }
    let most = MAX_AUDIT_WAITING + 8;
    assert!((MAX_AUDIT_WAITING..=most).contains(&kept(&ledger)), "{}", kept(&ledger));
    log.fill(false);
    world.gate.settle(world.now).unwrap();
    let records = log.records();
    assert!((MAX_AUDIT_WAITING..=most).contains(&records.len()), "{}", records.len());
    assert!(records[0].sequence > MAX_AUDIT_WAITING as u64 / 2, "the oldest are given up");
    assert_whole(&records);
}

/// As after a corrupt ledger was moved away, and its log was not.
#[test]
fn a_new_ledger_with_an_old_log_loses_no_record() {
    let log = Log::default();
    let old = TestLedger::default();
    (0..3).for_each(|_| kill(open(&old, &log).0));
    let before = log.names().len();
    let ledger = TestLedger::default();
    log.fill(true);
    let (world, desktop) = open(&ledger, &log);
    desktop.register(&world).unwrap();
    let pairing = desktop.share(&world, &terms());
    world.gate.revoke_ticket(&pairing.ticket, world.now).unwrap();
    kill(world);
    log.fill(false);
    let (_world, _) = open(&ledger, &log);
    let told = &log.names()[before..];
    assert_eq!(
        told[told.len() - 4..],
        ["issuer_registered", "ticket_offered", "ticket_revoked", "gate_opened"]
    );
}

#[test]
fn unrecorded_events_of_another_agent_key_are_recorded_before_its_records_are_discarded() {
    let (ledger, log) = (TestLedger::default(), Log::default());
    let (world, desktop) = open(&ledger, &log);
    log.fill(true);
    desktop.register(&world).unwrap();
    kill(world);
    log.fill(false);
    let agent = AgentSecretKey::from_bytes([55; 32]).public();
    let config = GateConfig::new(agent, [AgentUrl::parse(URL).unwrap()]).unwrap().with_audit(log.clone());
    let _gate = Gate::open(config, ledger, Context::default(), at(START, 1_000)).unwrap();
    assert_eq!(log.names(), ["gate_opened", "issuer_registered", "gate_opened"]);
    assert_eq!(log.records()[2].event, AuditEvent::GateOpened { discarded: true });
}
