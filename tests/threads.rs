//! The durable writes that each call of the gate waits for: the table on `Gate`'s page is correct.
#![cfg(all(feature = "holder", feature = "issuer", feature = "agent"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::*;
use rand::rngs::OsRng;
use sessioncap::agent::ledger::{Changes, Ledger, LedgerError, Look, MemoryLedger, Snapshot, Transition};
use sessioncap::agent::{Denial, LedgerFailure, PeerAdmission};
use sessioncap::desktop::Renewal;
use sessioncap::{Op, OpSet};

/// Counts what is read and what is written.
#[derive(Clone)]
struct Counting {
    ledger: Arc<MemoryLedger>,
    reads: Arc<AtomicU64>,
    writes: Arc<AtomicU64>,
}

impl Counting {
    fn new() -> Self {
        Self { ledger: Arc::new(MemoryLedger::new()), reads: Arc::default(), writes: Arc::default() }
    }

    /// How many reads beside a commit, and how many commits, `call` has asked for.
    fn of<T>(&self, call: impl FnOnce() -> T) -> ((u64, u64), T) {
        let count = || (self.reads.load(Ordering::SeqCst), self.writes.load(Ordering::SeqCst));
        let before = count();
        let done = call();
        let after = count();
        ((after.0 - before.0, after.1 - before.1), done)
    }
}

impl Ledger for Counting {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.ledger.read(look)
    }

    fn transact(&self, transition: Transition<'_>) -> Result<(), LedgerError> {
        let writes = &self.writes;
        self.ledger.transact(&mut |snapshot: &dyn Snapshot| -> Result<Changes, LedgerFailure> {
            let changes = transition(snapshot)?;
            writes.fetch_add(u64::from(changes.iter().next().is_some()), Ordering::SeqCst);
            Ok(changes)
        })
    }
}

/// The rows of the table on `Gate`'s page: the call, and how many durable writes it waits for.
fn documented() -> BTreeMap<String, String> {
    let source = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/agent/gate.rs")).unwrap();
    let table = source.split("/// # Threads").nth(1).unwrap_or_default().split("\n#[derive").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("/// | `").map(|row| format!("`{row}")));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_end_matches('|').split('|').map(str::trim).collect();
        let [call, writes, _] = cells.as_slice() else { panic!("{row}") };
        ((*call).to_owned(), (*writes).to_owned())
    })
    .collect()
}

#[test]
fn each_call_waits_for_as_many_writes_as_its_page_says() {
    let ledger = Counting::new();
    let mut seen: Vec<(&str, u64)> = Vec::new();
    let ((_, writes), mut world) = ledger.of(|| World::on(ledger.clone()));
    seen.push(("`open`", writes));
    let desktop = Desktop::new(&world, 1);
    world.enrol(desktop.device);
    seen.push(("`register_issuer`", ledger.of(|| desktop.register(&world).unwrap()).0.1));
    seen.push(("`register_issuer`, again", ledger.of(|| desktop.register(&world).unwrap()).0.1));
    let (count, pairing) = ledger.of(|| desktop.share(&world, &terms()));
    seen.push(("`offer`", count.1));

    let asking = world.ask(&pairing.link, &phone(2));
    let payload = world.open(&asking.message).unwrap().payload().to_vec();
    let (count, admission) = ledger.of(|| world.admit(&phone(2), &payload));
    seen.push(("`admit`, a redemption", count.1));
    let PeerAdmission::Admitted { guard, .. } = admission else { panic!() };
    let (count, guard) = ledger.of(|| guard.activate_after_first_frame(world.now));
    seen.push(("`activate`", count.1));
    let mut guard = guard.unwrap();
    let credential = world.join(&pairing.link, &phone(2)).unwrap().credential;
    let payload = attach_payload(OpSet::EMPTY, credential.as_bytes());
    let (count, admission) = ledger.of(|| world.admit(&phone(2), &payload));
    seen.push(("`admit`, an attach", count.1));
    let PeerAdmission::Admitted { guard: pending, .. } = admission else { panic!() };
    let (count, again) = ledger.of(|| pending.activate_after_first_frame(world.now));
    assert_eq!(count.1, 0);
    drop(again);
    desktop.renew(&world, &pairing, OpSet::ALL, 1_200).unwrap();
    let renewed = world.attach_renewed(&phone(2), &credential).unwrap();
    let payload = attach_payload(OpSet::EMPTY, renewed.as_bytes());
    let PeerAdmission::Admitted { guard: pending, .. } = world.admit(&phone(2), &payload) else { panic!() };
    let (count, again) = ledger.of(|| pending.activate_after_first_frame(world.now).unwrap());
    seen.push(("`activate`, the first use of a renewal", count.1));
    drop(again);
    let (count, permitted) = ledger.of(|| guard.permit(Op::SendInput, world.now, || ()));
    permitted.unwrap();
    assert_eq!(count, (0, 0), "a frame asks no ledger");
    seen.push(("`permit`, and every frame", count.1));
    let (count, _) = ledger.of(|| (world.gate.stats(), world.gate.health(world.now)));
    assert_eq!(count, (0, 0), "numbers ask no ledger");
    seen.push(("`stats`, `health`", count.1));
    let (count, _) = ledger.of(|| list_all(&world.gate, None, world.now).unwrap());
    assert_eq!(count.0, 1);
    seen.push(("`list`", count.1));
    let (count, _) = ledger.of(|| {
        let renewal = Renewal {
            credential: pairing.credential,
            ticket: pairing.ticket,
            session: session(SESSION),
            ops: OpSet::only(Op::StreamOutput),
            valid_for: 600,
        };
        let offer = desktop.issuer.renew(renewal, world.now.timestamp(), &mut OsRng).unwrap();
        world.gate.renew(&desktop.device, &offer, world.now, &mut OsRng).unwrap()
    });
    seen.push(("`renew`", count.1));
    world.pass_unsettled(1);
    let payload = attach_payload(OpSet::EMPTY, renewed.as_bytes());
    let PeerAdmission::Admitted { guard: pending, .. } = world.admit(&phone(2), &payload) else { panic!() };
    let visiting = pending.activate_after_first_frame(world.now).unwrap();
    drop(visiting);
    seen.push(("`settle`", ledger.of(|| world.gate.settle(world.now).unwrap()).0.1));
    world.pass_unsettled(90);
    seen.push((
        "`settle`, once a minute and after an attach",
        ledger.of(|| world.gate.settle(world.now).unwrap()).0.1,
    ));
    seen.push((
        "`revoke_credential` and other revoking methods",
        ledger.of(|| world.gate.revoke_credential(&pairing.credential, world.now).unwrap()).0.1,
    ));
    seen.push((
        "`sync_devices`, nothing to revoke",
        ledger.of(|| world.gate.sync_devices(&[desktop.device], world.now).unwrap()).0.1,
    ));
    seen.push((
        "`end_session`",
        ledger.of(|| world.gate.end_session(&session(SESSION), world.now).unwrap()).0.1,
    ));
    assert_eq!(
        guard.permit(Op::SendInput, world.now, || ()).map_err(Denial::from),
        Err(Denial::CredentialRevoked)
    );
    let documented = documented();
    let found = seen.iter().map(|(call, writes)| ((*call).to_owned(), writes.to_string())).collect();
    assert_eq!(documented, found);
}
