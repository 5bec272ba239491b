//! A gate that is opened again over the same ledger, and an operator's reset of the clock.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::ledger::{Rows, TestLedger};
use common::*;
use sessioncap::agent::ledger::{MemoryLedger, Table};
use sessioncap::agent::*;
use sessioncap::*;
use time::Duration;

/// The same agent started again, at these readings of its clocks.
fn restarted(ledger: &TestLedger, now: Now, desktop: &Desktop) -> World {
    let mut world = World::try_with(ledger.clone(), now, |config| config).unwrap();
    world.now = now;
    world.enrol(desktop.device);
    world
}

fn started(ledger: &TestLedger) -> (World, Desktop) {
    let world = World::on(ledger.clone());
    let desktop = world.desktop(9);
    (world, desktop)
}

/// The wall clock set by so many seconds against the beginning, the monotonic clock started again.
fn wall(offset: i64) -> Now {
    at(START + offset, 0)
}

// --- time ---

#[test]
fn nothing_that_has_ended_is_revived_by_a_restart_with_the_wall_clock_set_back() {
    let ledger = TestLedger::default();
    let (mut world, desktop) = started(&ledger);
    let pairing = desktop.share(&world, &terms().with_valid_for(600).unwrap());
    let open = desktop.share(&world, &terms().with_ticket_lifetime(300).unwrap());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    world.pass(600);
    world.gate.settle(world.now).unwrap();
    for back in [-1, -600, -3_600, -86_400 * 4_000] {
        let again = restarted(&ledger, wall(back), &desktop);
        let refused = again.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err();
        assert_eq!(refused, Refusal::told(Denial::CredentialExpired, Status::Expired), "{back}");
        let refused = again.join(&open.link, &phone(3)).unwrap_err();
        assert_eq!(refused, Refusal::told(Denial::TicketExpired, Status::Expired), "{back}");
    }
}

#[test]
fn at_most_a_minute_of_the_agents_time_is_unwritten() {
    let ledger = TestLedger::default();
    let (mut world, desktop) = started(&ledger);
    let pairing = desktop.share(&world, &terms().with_valid_for(600).unwrap());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    // A gate that is asked once a second, as an agent's timer does, and is then killed.
    for _ in 0..570 {
        world.pass(1);
        world.gate.settle(world.now).unwrap();
    }
    let again = restarted(&ledger, wall(0), &desktop);
    let guard = again.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap();
    let left = guard.time_left(again.now).as_secs();
    let wall_left = guard.expires_at().since(again.now.timestamp());
    assert_eq!(wall_left, 600, "the wall clock is back at the beginning");
    assert!((30..=90).contains(&left), "{left}: by the agent's time about 30 are left");
}

#[test]
fn an_idle_gate_writes_its_time_once_a_minute_and_no_oftener() {
    let ledger = TestLedger::default();
    let (mut world, _desktop) = started(&ledger);
    let mut last = ledger.rows();
    let mut changes = Vec::new();
    for second in 1..=3_600 {
        world.pass(1);
        world.gate.settle(world.now).unwrap();
        let rows = ledger.rows();
        if rows != last {
            changes.push(second);
            last = rows;
        }
    }
    let gaps: Vec<i64> = changes.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap == 60) && gaps.len() > 50, "{gaps:?}");
}

#[test]
fn every_write_brings_the_time_up_to_date() {
    let ledger = TestLedger::default();
    let (mut world, desktop) = started(&ledger);
    for seconds in [1, 2, 7, 30] {
        world.pass(seconds);
        desktop.share(&world, &terms().with_ticket_lifetime(30).unwrap());
        let again = World::try_with(ledger.clone(), wall(-100), |config| config).unwrap();
        let record = again.audit.lock().unwrap()[0].clone();
        assert_eq!(record.at, world.now.timestamp());
        world.gate = restarted(&ledger, world.now, &desktop).gate;
    }
}

#[test]
fn time_goes_on_by_the_monotonic_clock_after_a_restart_in_the_past() {
    let ledger = TestLedger::default();
    let (mut world, desktop) = started(&ledger);
    let pairing = desktop.share(&world, &terms().with_valid_for(600).unwrap());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    world.pass(300);
    world.gate.settle(world.now).unwrap();
    let mut again = restarted(&ledger, wall(-10_000), &desktop);
    for _ in 0..299 {
        again.now = Now::since_1970(again.now.wall, again.now.monotonic + Duration::seconds(1));
        again.gate.settle(again.now).unwrap();
    }
    assert!(again.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_ok());
    again.now = Now::since_1970(again.now.wall, again.now.monotonic + Duration::seconds(1));
    assert!(again.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_err(), "the wall clock stood still");
}

#[test]
fn equal_readings_are_no_progress_and_no_harm() {
    let (world, desktop) = started(&TestLedger::default());
    let first = desktop.share(&world, &terms());
    let second = desktop.share(&world, &terms());
    assert!(world.join(&first.link, &phone(2)).is_ok() && world.join(&second.link, &phone(3)).is_ok());
    world.gate.revoke_credential(&first.credential, world.now).unwrap();
    assert_eq!(list_all(&world.gate, None, world.now).unwrap().len(), 2);
}

#[test]
fn time_in_suspension_counts_for_expiry() {
    let (mut world, desktop) = started(&TestLedger::default());
    let pairing = desktop.share(&world, &terms().with_valid_for(3_600).unwrap());
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    // both clocks count the sleep
    world.pass(8 * 3_600);
    assert_eq!(joined.guard.ask(Op::SendInput, world.now, || ()), Err(Denial::CredentialExpired));
    assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_err());
}

// --- the operator's way back ---

#[test]
fn a_clock_from_the_future_expires_everything_and_only_a_reset_goes_back() {
    let ledger = TestLedger::default();
    let (mut world, desktop) = started(&ledger);
    let pairing = desktop.share(&world, &terms());
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    let today = world.now;
    world.now = Now::since_1970(today.wall + Duration::days(3_650), today.monotonic);
    world.gate.settle(world.now).unwrap();
    world.now = today;
    assert_eq!(joined.guard.checked(today), Err(Denial::CredentialExpired), "and the stream is cut");
    let minted = desktop.mint(&world, &terms());
    assert!(matches!(desktop.lodge(&world, &minted), Err(Denial::ClockSkew { .. })));
    let again = restarted(&ledger, today, &desktop);
    assert!(matches!(desktop.lodge(&again, &minted), Err(Denial::ClockSkew { .. })), "nor by a restart");

    again.gate.reset_clock(today).unwrap();
    assert_eq!(desktop.lodge(&again, &minted), Err(Denial::IssuerUnknown), "every record is gone");
    desktop.register(&again).unwrap();
    desktop.lodge(&again, &minted).unwrap();
    assert!(again.join(&minted.link, &phone(4)).is_ok());
    let later = restarted(&ledger, today, &desktop);
    assert_eq!(later.list().len(), 1, "and it stays so");
}

#[test]
fn a_reset_cuts_every_stream_and_leaves_no_record_behind() {
    let ledger = TestLedger::default();
    let (mut world, desktop) = started(&ledger);
    world.start_session("other");
    let (one, two) = (desktop.share(&world, &terms()), desktop.share(&world, &terms()));
    let open = desktop.share_session(&world, "other", &terms());
    let mut joined = [world.join(&one.link, &phone(2)).unwrap(), world.join(&two.link, &phone(3)).unwrap()];
    let payload = attach_payload(OpSet::EMPTY, joined[0].credential.as_bytes());
    let PeerAdmission::Admitted { guard, .. } = world.admit(&phone(2), &payload) else { panic!() };
    world.now = Now::since_1970(world.now.wall - Duration::days(1), world.now.monotonic);
    world.gate.reset_clock(world.now).unwrap();
    assert_eq!(guard.activate_after_first_frame(world.now).unwrap_err(), Denial::CredentialUnknown);
    for joined in &mut joined {
        let cut = joined.guard.ask(Op::SendInput, world.now, || panic!("not called"));
        assert_eq!(cut, Err(Denial::CredentialRevoked));
    }
    assert!(world.list().is_empty());
    assert_eq!(tables(&ledger.rows()), [Table::Meta, Table::Events]);
    assert_eq!(world.join(&open.link, &phone(4)).unwrap_err(), Refusal::silent(Denial::TicketUnknown));
    let known = world.attach(&phone(2), &joined[0].credential, OpSet::EMPTY).unwrap_err();
    assert_eq!(known, Refusal::silent(Denial::CredentialUnknown));
    desktop.register(&world).unwrap();
    assert!(world.join(&desktop.share(&world, &terms()).link, &phone(2)).is_ok());
}

#[test]
fn used_numbers_are_not_used_again_after_a_reset() {
    let epoch = |joined: &Joined| {
        let credential = Credential::parse(&joined.credential).unwrap();
        let epoch = credential.caveats().find_map(|(_, caveat)| match caveat {
            Caveat::Epoch(epoch) => Some(epoch),
            _ => None,
        });
        epoch.unwrap()
    };
    let (world, desktop) = started(&TestLedger::default());
    let mut last = 0;
    for round in 0..5 {
        let joined = world.join(&desktop.share(&world, &terms()).link, &phone(round + 2)).unwrap();
        assert!(epoch(&joined) > last);
        last = epoch(&joined);
        world.gate.reset_clock(world.now).unwrap();
        desktop.register(&world).unwrap();
    }
}

// --- whose ledger it is ---

#[test]
fn records_of_another_agent_key_are_discarded_at_opening() {
    let ledger = TestLedger::default();
    let (world, desktop) = started(&ledger);
    let pairing = desktop.share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let config = |seed: u8| {
        let agent = AgentSecretKey::from_bytes([seed; 32]).public();
        GateConfig::new(agent, [AgentUrl::parse(URL).unwrap()]).unwrap()
    };
    let audit = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = std::sync::Arc::clone(&audit);
    let audited = config(55).with_audit_fn(move |record: AuditRecord| sink.lock().unwrap().push(record));
    let other = Gate::open(audited, ledger.clone(), world.context.clone(), world.now).unwrap();
    assert!(list_all(&other, None, world.now).unwrap().is_empty());
    assert_eq!(tables(&ledger.rows()), [Table::Meta, Table::Events]);
    let last = audit.lock().unwrap().last().cloned().unwrap();
    assert_eq!(last.event, AuditEvent::GateOpened { discarded: true });
    drop(other);
    // and the first key does not get them back
    let again = restarted(&ledger, world.now, &desktop);
    let gone = again.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err();
    assert_eq!(gone, Refusal::silent(Denial::CredentialUnknown));
}

#[test]
fn another_agents_time_does_not_bind_this_one() {
    let ledger = TestLedger::default();
    let (world, _) = started(&ledger);
    world.gate.settle(Now::since_1970(world.now.wall + Duration::days(900), world.now.monotonic)).unwrap();
    let agent = AgentSecretKey::from_bytes([55; 32]).public();
    let config = GateConfig::new(agent, [AgentUrl::parse(URL).unwrap()]).unwrap();
    let gate = Gate::open(config, ledger, world.context.clone(), world.now).unwrap();
    let issuer = Desktop::of(agent, URL, 9);
    world.enrol(issuer.device);
    let registration = issuer.issuer.registration(&issuer.device, &CHANNEL);
    gate.register_issuer(&issuer.device, &CHANNEL, &registration, world.now).unwrap();
    let minted = issuer.mint(&world, &terms());
    assert!(gate.offer(&issuer.device, &minted.offer, world.now).is_ok());
}

#[test]
fn a_format_that_is_not_known_is_not_touched() {
    let ledger = TestLedger::default();
    let (world, desktop) = started(&ledger);
    let _pairing = desktop.share(&world, &terms());
    let mut rows = ledger.rows();
    let header = rows.get_mut(&(Table::Meta, b"header".to_vec())).unwrap();
    assert_eq!(header[1], 3, "the format, behind the array's head");
    header[1] = 4;
    // Other rows of a later format are not read.
    rows.insert((Table::Meta, b"progress".to_vec()), vec![0xff; 3]);
    ledger.set_rows(rows.clone());
    let refused = World::try_with(ledger.clone(), world.now, |config| config).err();
    assert_eq!(refused, Some(LedgerFailure::UnknownFormat { version: 4 }));
    assert_eq!(ledger.rows(), rows);
}

#[test]
fn rows_without_a_header_are_not_touched() {
    let ledger = TestLedger::default();
    let (world, desktop) = started(&ledger);
    let pairing = desktop.share(&world, &terms());
    let _joined = world.join(&pairing.link, &phone(2)).unwrap();
    let mut rows = ledger.rows();
    rows.remove(&(Table::Meta, b"header".to_vec()));
    ledger.set_rows(rows.clone());
    let refused = World::try_with(ledger.clone(), world.now, |config| config).err();
    assert_eq!(refused, Some(LedgerFailure::Corrupt));
    assert_eq!(ledger.rows(), rows);
}

#[test]
fn a_gate_does_not_open_over_a_ledger_that_fails() {
    for nth in 1.. {
        let ledger = TestLedger::default();
        drop(started(&ledger));
        let before = ledger.calls();
        ledger.fail_nth(nth, common::ledger::Fault::Lost);
        let opened = World::try_with(ledger.clone(), wall(0), |config| config);
        if ledger.calls() - before < nth {
            assert!(opened.is_ok() && nth > 3, "{nth}");
            return;
        }
        assert_eq!(opened.err(), Some(LedgerFailure::Io), "{nth}");
    }
}

#[test]
fn openings_are_counted_and_each_begins_its_records_anew() {
    let ledger = TestLedger::default();
    for opening in 1..4 {
        let (world, desktop) = started(&ledger);
        let _pairing = desktop.share(&world, &terms().with_ticket_lifetime(30).unwrap());
        let records = world.audit.lock().unwrap().clone();
        assert_eq!(records[0].event, AuditEvent::GateOpened { discarded: false });
        for (index, record) in records.iter().enumerate() {
            assert_eq!((record.opening, record.sequence), (opening, index as u64));
        }
    }
}

#[test]
fn a_memory_ledger_begins_empty() {
    let world = World::on(MemoryLedger::new());
    assert!(world.list().is_empty());
}

fn tables(rows: &Rows) -> Vec<Table> {
    let mut tables: Vec<Table> = rows.keys().map(|(table, _)| *table).collect();
    tables.dedup();
    tables
}
