//! Races of real threads over each ledger. The contract that `src/agent/guard.rs` states: *after a revoking
//! call returns, no further permit is granted, and none granted earlier is still in use.*
//! `src/agent/guard/models.rs` and `src/agent/gate/models.rs` check it for every interleaving of a few threads;
//! here are many threads, a real database and a real machine.
//!
//! `SESSIONCAP_CASES` multiplies the rounds; 1 by default.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use common::*;
use rand::rngs::OsRng;
use sessioncap::agent::ledger::{Ledger, MemoryLedger};
use sessioncap::agent::*;
use sessioncap::desktop::*;
use sessioncap::*;

fn rounds(number: u64) -> u64 {
    number * std::env::var("SESSIONCAP_CASES").map_or(1, |text| text.parse::<u64>().unwrap())
}

/// Runs a race over each kind of ledger, with a new one for every round.
fn over_each_ledger(memory_rounds: u64, file_rounds: u64, race: impl Fn(World)) {
    for _ in 0..rounds(memory_rounds) {
        race(World::on(MemoryLedger::new()));
    }
    #[cfg(feature = "redb")]
    {
        let name = format!("sessioncap-races-{}-{}", std::process::id(), rand::random::<u64>());
        let place = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&place).unwrap();
        for round in 0..rounds(file_rounds) {
            race(World::on(file(&place.join(format!("{round}.redb")))));
        }
        std::fs::remove_dir_all(place).unwrap();
    }
    let _ = file_rounds;
}

#[cfg(feature = "redb")]
fn file(path: &std::path::Path) -> impl Ledger + 'static {
    sessioncap::agent::ledger::RedbLedger::open(path).unwrap()
}

fn admit(world: &World, phone: &HolderSecretKey, payload: &[u8]) -> Option<PendingGuard> {
    match world.admit(phone, payload) {
        PeerAdmission::Admitted { guard, .. } => Some(guard),
        PeerAdmission::Refused { .. } => None,
        PeerAdmission::PassThrough => panic!("taken for a device"),
    }
}

#[test]
fn of_many_phones_that_redeem_at_once_at_most_one_is_ever_active_and_none_stays() {
    over_each_ledger(15, 5, |world| {
        let pairing = world.desktop(9).share(&world, &terms());
        let phones: Vec<_> = (20..26).map(phone).collect();
        let payloads: Vec<_> = phones
            .iter()
            .map(|phone| world.open(&world.ask(&pairing.link, phone).message).unwrap().payload().to_vec())
            .collect();
        let start = Barrier::new(phones.len());
        let admitted: Vec<PendingGuard> = thread::scope(|scope| {
            let racing = phones.iter().zip(&payloads).map(|(phone, payload)| {
                scope.spawn(|| {
                    start.wait();
                    admit(&world, phone, payload)
                })
            });
            let racing: Vec<_> = racing.collect();
            racing.into_iter().filter_map(|phone| phone.join().unwrap()).collect()
        });
        assert!(admitted.len() <= 1, "{} holders of one ticket", admitted.len());
        assert!(
            admitted.into_iter().all(|guard| guard.activate_after_first_frame(world.now).is_err()),
            "the code has leaked"
        );
        assert!(matches!(world.only_listing().state, ListingState::Revoked { .. }));
    });
}

type Verb = fn(&World, &Desktop, &Pairing);

const VERBS: [(&str, Verb); 9] = [
    ("ticket", |world, _, pairing| world.gate.revoke_ticket(&pairing.ticket, world.now).map(drop).unwrap()),
    ("credential", |world, _, pairing| {
        world.gate.revoke_credential(&pairing.credential, world.now).map(drop).unwrap()
    }),
    ("session", |world, _, _| world.gate.revoke_session(&session(SESSION), world.now).map(drop).unwrap()),
    ("session's end", |world, _, _| world.gate.end_session(&session(SESSION), world.now).map(drop).unwrap()),
    ("issuer", |world, desktop, _| {
        world.gate.revoke_issuer(&desktop.issuer.public(), world.now).map(drop).unwrap()
    }),
    ("device", |world, desktop, _| world.gate.revoke_device(&desktop.device, world.now).map(drop).unwrap()),
    ("devices", |world, _, _| world.gate.sync_devices(&[], world.now).map(drop).unwrap()),
    ("clock", |world, _, _| world.gate.reset_clock(world.now).unwrap()),
    ("contest", |world, _, pairing| assert!(world.join(&pairing.link, &phone(3)).is_err())),
];

#[test]
fn when_any_revocation_returns_no_permit_is_granted_and_none_is_in_use() {
    for (name, verb) in VERBS {
        over_each_ledger(3, 2, |world| {
            let desktop = world.desktop(9);
            let pairing = desktop.share(&world, &terms());
            let guard = world.join(&pairing.link, &phone(2)).unwrap().guard;
            let (returned, frames) = (AtomicBool::new(false), AtomicU64::new(0));
            thread::scope(|scope| {
                for mut guard in [guard.fork(), guard] {
                    let (returned, frames, now) = (&returned, &frames, world.now);
                    scope.spawn(move || {
                        let mut permit = || {
                            guard.ask(Op::StreamOutput, now, || {
                                assert!(!returned.load(Ordering::SeqCst), "{name}: in use after it returned");
                                frames.fetch_add(1, Ordering::SeqCst);
                                assert!(!returned.load(Ordering::SeqCst), "{name}: in use when it returned");
                            })
                        };
                        while permit().is_ok() {}
                        assert!(permit().is_err(), "{name}: denied is denied");
                    });
                }
                while frames.load(Ordering::SeqCst) < 50 {
                    thread::yield_now();
                }
                verb(&world, &desktop, &pairing);
                returned.store(true, Ordering::SeqCst);
            });
        });
    }
}

#[test]
fn when_a_narrowing_returns_no_permit_for_the_removed_operations_is_granted_or_in_use() {
    over_each_ledger(10, 4, |world| {
        let desktop = world.desktop(9);
        let pairing = desktop.share(&world, &terms());
        let mut guard = world.join(&pairing.link, &phone(2)).unwrap().guard;
        let (returned, frames) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            let (returned, frames, now) = (&returned, &frames, world.now);
            scope.spawn(move || {
                let mut typed = || {
                    guard.ask(Op::SendInput, now, || {
                        assert!(!returned.load(Ordering::SeqCst), "typed after it was taken away");
                        frames.fetch_add(1, Ordering::SeqCst);
                    })
                };
                while typed().is_ok() {}
                assert_eq!(typed(), Err(Denial::OperationNotGranted { op: Op::SendInput }));
                assert_eq!(guard.ask(Op::StreamOutput, now, || ()), Ok(()), "the stream goes on");
            });
            while frames.load(Ordering::SeqCst) < 50 {
                thread::yield_now();
            }
            desktop.renew(&world, &pairing, OpSet::only(Op::StreamOutput), 3_600).unwrap();
            returned.store(true, Ordering::SeqCst);
        });
    });
}

#[test]
fn a_connection_that_becomes_live_during_a_revocation_is_cut_by_it() {
    over_each_ledger(12, 6, |world| {
        let pairing = world.desktop(9).share(&world, &terms());
        let joined = world.join(&pairing.link, &phone(2)).unwrap();
        let payload = attach_payload(OpSet::EMPTY, joined.credential.as_bytes());
        let start = Barrier::new(4);
        thread::scope(|scope| {
            let arriving: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        admit(&world, &phone(2), &payload)?.activate_after_first_frame(world.now).ok()
                    })
                })
                .collect();
            start.wait();
            world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
            for mut guard in arriving.into_iter().filter_map(|phone| phone.join().unwrap()) {
                assert_eq!(guard.checked(world.now), Err(Denial::CredentialRevoked));
            }
        });
        assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_err());
    });
}

#[test]
fn audit_records_come_in_their_order_however_many_call_at_once() {
    over_each_ledger(3, 2, |world| {
        let desktop = world.desktop(9);
        let start = Barrier::new(4);
        thread::scope(|scope| {
            for thread in 0..4_u8 {
                let (world, desktop, start) = (&world, &desktop, &start);
                scope.spawn(move || {
                    let id = format!("session-{thread}");
                    world.start_session(&id);
                    start.wait();
                    for _ in 0..8 {
                        let time = world.now.timestamp();
                        let pairing = desktop.issuer.pair(session(&id), &terms(), time, &mut OsRng).unwrap();
                        world.gate.offer(&desktop.device, &pairing.offer, world.now).unwrap();
                        world.gate.revoke_ticket(&pairing.ticket, world.now).unwrap();
                    }
                });
            }
        });
        let records = world.audit.lock().unwrap();
        assert!(records.iter().map(|record| record.sequence).eq(0..records.len() as u64));
        let offered =
            records.iter().filter(|record| matches!(record.event, AuditEvent::TicketOffered { .. }));
        let revoked =
            records.iter().filter(|record| matches!(record.event, AuditEvent::TicketRevoked { .. }));
        assert_eq!((offered.count(), revoked.count()), (32, 32));
    });
}
