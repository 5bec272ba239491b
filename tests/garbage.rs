//! Which records are kept, for how long, and that the cost of a call does not grow with them. A year passes in seconds.
//!
//! `SESSIONCAP_CASES` multiplies the pairings of the year; 1 by default.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::cell::Cell;
use std::sync::{Arc, Mutex};

use common::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sessioncap::agent::ledger::{Ledger, LedgerError, Look, MemoryLedger, Row, Snapshot, Table, Transition};
use sessioncap::agent::*;
use sessioncap::*;

const DAY: i64 = 86_400;

/// A ledger in memory that a test can look into while a gate has it.
#[derive(Clone, Default)]
struct Watched(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    ledger: Arc<MemoryLedger>,
    /// Reads and writes since they were last taken.
    calls: usize,
}

impl Watched {
    fn take_calls(&self) -> usize {
        core::mem::take(&mut self.0.lock().unwrap().calls)
    }

    /// The number of rows, and the bytes in them.
    fn size(&self) -> (usize, usize) {
        let (mut rows, mut bytes) = (0, 0);
        let inside = self.0.lock().unwrap();
        let outcome = inside.ledger.read(&mut |snapshot| {
            for &table in Table::ALL {
                for (key, value) in snapshot.range(table, &[], None, usize::MAX)? {
                    rows += 1;
                    bytes += key.len() + value.len();
                }
            }
            Ok(())
        });
        outcome.unwrap();
        (rows, bytes)
    }
}

impl Ledger for Watched {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        let ledger = Arc::clone(&self.0.lock().unwrap().ledger);
        let calls = Cell::new(0);
        let outcome = ledger.read(&mut |snapshot| look(&Counted { snapshot, calls: &calls }));
        self.0.lock().unwrap().calls += calls.get();
        outcome
    }

    fn transact(&self, transition: Transition<'_>) -> Result<(), LedgerError> {
        let ledger = Arc::clone(&self.0.lock().unwrap().ledger);
        let calls = Cell::new(0);
        let outcome = ledger.transact(&mut |snapshot| {
            let changes = transition(&Counted { snapshot, calls: &calls })?;
            calls.set(calls.get() + changes.len());
            Ok(changes)
        });
        self.0.lock().unwrap().calls += calls.get();
        outcome
    }
}

struct Counted<'a> {
    snapshot: &'a dyn Snapshot,
    calls: &'a Cell<usize>,
}

impl Snapshot for Counted<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerFailure> {
        self.calls.set(self.calls.get() + 1);
        self.snapshot.get(table, key)
    }

    fn range(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, LedgerFailure> {
        let rows = self.snapshot.range(table, prefix, after, limit)?;
        self.calls.set(self.calls.get() + 1 + rows.len());
        Ok(rows)
    }
}

fn wide() -> Quotas {
    Quotas::default()
        .with_tickets_per_session(100_000)
        .with_credentials_per_session(100_000)
        .with_tickets_per_agent(100_000)
        .with_credentials_per_agent(100_000)
}

#[test]
fn a_year_of_use_leaves_no_more_behind_than_a_week() {
    let scale: i64 = std::env::var("SESSIONCAP_CASES").map_or(1, |text| text.parse().unwrap());
    let ledger = Watched::default();
    let mut world = World::on(ledger.clone());
    let desktop = world.desktop(9);
    let mut rng = StdRng::seed_from_u64(1);
    let (mut most_rows, mut most_bytes, mut after_a_week) = (0, 0, (0, 0));
    let mut phones = 0_u64;
    for day in 0..365_i64 {
        let id = format!("session-{day}");
        world.start_session(&id);
        for _ in 0..4 * scale {
            let valid_for = rng.gen_range(limits::MIN_CREDENTIAL_LIFETIME..=limits::MAX_CREDENTIAL_LIFETIME);
            let pairing = desktop.mint_for(&world, &id, &terms().with_valid_for(valid_for).unwrap());
            match desktop.lodge(&world, &pairing) {
                Ok(()) => {}
                Err(Denial::QuotaReached { .. }) => {
                    world.gate.revoke_session(&session(&id), world.now).map(drop).unwrap()
                }
                Err(other) => panic!("{other}"),
            }
            phones += 1;
            let mut secret = [7; 32];
            secret[..8].copy_from_slice(&phones.to_be_bytes());
            let phone = HolderSecretKey::from_bytes(secret);
            if rng.gen_bool(0.9) {
                let payload =
                    world.open(&world.ask(&pairing.link, &phone).message).unwrap().payload().to_vec();
                let _ = world.admit(&phone, &payload);
            }
            if rng.gen_bool(0.3) {
                world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
            }
            world.pass(rng.gen_range(0..DAY / (2 * scale)));
        }
        world.stop_session(&id);
        world.gate.end_session(&session(&id), world.now).unwrap();
        // as an agent's timer does
        for _ in 0..8 {
            world.gate.settle(world.now).unwrap();
        }
        let (rows, bytes) = ledger.size();
        (most_rows, most_bytes) = (most_rows.max(rows), most_bytes.max(bytes));
        if day == 7 {
            after_a_week = (most_rows, most_bytes);
        }
    }
    assert!(most_rows <= 3 * after_a_week.0 + 50, "{most_rows} rows, {} in the first week", after_a_week.0);
    assert!(most_bytes <= 3 * after_a_week.1 + 50_000, "{most_bytes} bytes, {} in a week", after_a_week.1);
    world.pass(4 * DAY);
    for _ in 0..40 * scale {
        world.gate.settle(world.now).unwrap();
    }
    assert_eq!(ledger.size().0, 4, "header, counters, time, issuer");
}

#[test]
fn tickets_on_record_are_bounded_and_make_room_within_minutes() {
    let quotas = wide().with_tickets_per_agent(2);
    let mut world = World::with(MemoryLedger::new(), |config| config.with_quotas(quotas));
    let desktop = world.desktop(9);
    let most = 2 * limits::TICKETS_KEPT_PER_OPEN;
    let full = Denial::QuotaReached { quota: Quota::TicketsKept, max: most };
    for _ in 0..most {
        let pairing = desktop.share(&world, &terms());
        world.gate.revoke_ticket(&pairing.ticket, world.now).unwrap();
    }
    let one_more = desktop.mint(&world, &terms());
    assert_eq!(desktop.lodge(&world, &one_more), Err(full));
    world.pass(limits::DEFAULT_TICKET_LIFETIME as i64 + limits::RETRY_WINDOW as i64);
    for _ in 0..8 {
        world.gate.settle(world.now).unwrap();
    }
    desktop.share(&world, &terms());
}

#[test]
fn no_call_costs_more_when_many_expire_at_once() {
    let mut cost = Vec::new();
    for many in [200, 1_000] {
        let ledger = Watched::default();
        let mut world = World::with(ledger.clone(), |config| config.with_quotas(wide()));
        let desktop = world.desktop(9);
        world.start_session("other");
        let live = desktop.share(&world, &terms().with_valid_for(7_200).unwrap());
        let joined = world.join(&live.link, &phone(2)).unwrap();
        for _ in 0..many {
            desktop.share_session(&world, "other", &terms());
        }
        world.pass(3_600);
        let mut worst = 0;
        ledger.take_calls();
        for _ in 0..10 {
            world.gate.settle(world.now).unwrap();
            worst = worst.max(ledger.take_calls());
        }
        assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_ok());
        cost.push((worst, ledger.take_calls()));
    }
    let [(few, few_attach), (many, many_attach)] = cost[..] else { panic!() };
    assert!(many <= few + few / 4, "settling: {many} calls with 1,000 due, {few} with 200");
    assert!(many_attach <= few_attach + few_attach / 4, "attaching: {many_attach} and {few_attach}");
}

#[test]
fn a_revocation_costs_the_same_however_many_other_records_there_are() {
    let mut cost = Vec::new();
    for many in [10, 1_000] {
        let ledger = Watched::default();
        let world = World::with(ledger.clone(), |config| config.with_quotas(wide()));
        let (desktop, other) = (world.desktop(9), world.desktop(8));
        world.start_session("other");
        for number in 0..many {
            let pairing = other.share_session(&world, "other", &terms());
            if number % 3 == 0 {
                world.gate.revoke_ticket(&pairing.ticket, world.now).unwrap();
            }
        }
        let mut worst = 0;
        let mut measure = |what: Result<(), Denial>| {
            what.unwrap();
            worst = worst.max(ledger.take_calls());
        };
        let [open, redeemed, last] = [1, 2, 3].map(|_| desktop.share(&world, &terms()));
        let _joined = world.join(&redeemed.link, &phone(2)).unwrap();
        ledger.take_calls();
        measure(world.gate.revoke_credential(&open.credential, world.now).map(drop));
        measure(world.gate.revoke_ticket(&redeemed.ticket, world.now).map(drop));
        measure(world.gate.revoke_credential(&CredentialId::from_bytes([7; 16]), world.now).map(drop));
        measure(world.gate.revoke_ticket(&TicketId::from_bytes([7; 16]), world.now).map(drop));
        measure(world.gate.revoke_issuer(&desktop.issuer.public(), world.now).map(drop));
        assert!(world.join(&last.link, &phone(2)).is_err());
        cost.push(worst);
    }
    assert!(cost[1] <= cost[0], "{} calls beside 1,000 others, {} beside 10", cost[1], cost[0]);
}

#[test]
fn after_a_jump_of_the_clock_connected_credentials_are_expired_first() {
    let mut world = World::with(MemoryLedger::new(), |config| config.with_quotas(wide()));
    let desktop = world.desktop(9);
    // Tickets that end first, and would be found first.
    let short = terms().with_ticket_lifetime(30).unwrap();
    let _tickets: Vec<_> = (0..40).map(|_| desktop.share(&world, &short)).collect();
    // More than one transition puts on record.
    let mut joined: Vec<_> = (0..100_u8)
        .map(|seed| world.join(&desktop.share(&world, &terms()).link, &phone(10 + seed)).unwrap())
        .collect();
    // One whose own clock is behind.
    let behind = world.now;
    world.pass_unsettled(limits::DEFAULT_CREDENTIAL_LIFETIME as i64);
    list_all(&world.gate, None, world.now).unwrap();
    assert_eq!(desktop.register(&world), Ok(()), "whichever call comes first");
    for joined in &mut joined {
        assert_eq!(joined.guard.ask(Op::SendInput, behind, || ()), Err(Denial::CredentialExpired));
    }
    let ended = |world: &World| {
        let told =
            world.events().into_iter().filter(|event| matches!(event, AuditEvent::CredentialExpired { .. }));
        told.count()
    };
    assert_eq!(ended(&world), 64, "as many as one call puts on record");
    let attached = world.attach(&phone(10), &joined[0].credential, OpSet::EMPTY).unwrap_err();
    assert_eq!(attached.denial, Denial::CredentialExpired, "on record or not");
    (0..40).for_each(|_| world.gate.settle(world.now).unwrap());
    assert_eq!(ended(&world), 100);
}
