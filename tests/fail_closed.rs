//! A ledger that fails at any one call, or whose records have changed, leads to a denial, never to an
//! admission that the records do not carry.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use core::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::ledger::{Fault, TestLedger};
use common::*;
use rand::rngs::OsRng;
use sessioncap::agent::ledger::Table;
use sessioncap::agent::*;
use sessioncap::desktop::*;
use sessioncap::phone::PhoneError;
use sessioncap::*;

const IO: Denial = Denial::Ledger(LedgerFailure::Io);
const POISONED: Denial = Denial::Ledger(LedgerFailure::Poisoned);

fn refusal(refusal: Refusal) -> Denial {
    // To a phone that has proven itself: try later. To any other: nothing.
    assert!(matches!(refusal.told, None | Some(PhoneError::Refused(Status::Unavailable))), "{refusal:?}");
    refusal.denial
}

/// What the script has got hold of so far.
#[derive(Default)]
struct Held {
    pairing: Option<Pairing>,
    joined: Option<Joined>,
    second: Option<Guard>,
}

type Act = fn(&World, &Desktop, &mut Held) -> Result<(), Denial>;

/// A short life, each step of which needs the one before it.
const SCRIPT: [(&str, Act); 7] = [
    ("register", |world, desktop, _| desktop.register(world)),
    ("offer", |world, desktop, held| {
        let pairing = desktop.mint(world, &terms());
        desktop.lodge(world, &pairing)?;
        held.pairing = Some(pairing);
        Ok(())
    }),
    ("redeem", |world, _, held| {
        let link = &held.pairing.as_ref().unwrap().link;
        held.joined = Some(world.join(link, &phone(2)).map_err(refusal)?);
        Ok(())
    }),
    ("attach", |world, _, held| {
        let credential = &held.joined.as_ref().unwrap().credential;
        held.second = Some(world.attach(&phone(2), credential, OpSet::EMPTY).map_err(refusal)?);
        Ok(())
    }),
    ("list", |world, _, _| list_all(&world.gate, None, world.now).map(|_| ())),
    ("explain", |world, _, held| {
        let credential = &held.joined.as_ref().unwrap().credential;
        let action = Action::Session(Op::SendInput);
        world.gate.explain(&phone(2).public(), credential, action, world.now)
    }),
    ("revoke", |world, _, held| {
        let pairing = held.pairing.as_ref().unwrap();
        world.gate.revoke_credential(&pairing.credential, world.now).map(drop)
    }),
];

fn world_on(ledger: &TestLedger) -> (World, Desktop) {
    let world = World::on(ledger.clone());
    let desktop = Desktop::new(&world, 9);
    world.enrol(desktop.device);
    (world, desktop)
}

/// How many calls the script makes of its ledger.
fn calls_of_the_script() -> u64 {
    let ledger = TestLedger::default();
    let (world, desktop) = world_on(&ledger);
    let mut held = Held::default();
    for (_, act) in SCRIPT {
        act(&world, &desktop, &mut held).unwrap();
    }
    let (untouched, calls) = (TestLedger::default(), ledger.calls());
    let _ = world_on(&untouched);
    let calls = calls - untouched.calls();
    assert!(calls > 60, "{calls}");
    calls
}

#[test]
fn whichever_call_fails_the_outcome_is_a_denial_and_the_gate_refuses_until_it_is_opened_again() {
    for fault in [Fault::Broken, Fault::Lost, Fault::Done] {
        for nth in 1..=calls_of_the_script() {
            let ledger = TestLedger::default();
            let (world, desktop) = world_on(&ledger);
            ledger.fail_nth(nth, fault);
            let mut held = Held::default();
            let failed = SCRIPT.iter().enumerate().find_map(|(at, (name, act))| {
                act(&world, &desktop, &mut held).err().map(|denial| (at, *name, denial))
            });
            let (at, name, denial) = failed.unwrap_or_else(|| panic!("call {nth} did not fail anything"));
            assert_eq!(denial, IO, "call {nth}, {name}");
            assert!(world.gate.is_poisoned(), "call {nth}, {name}");
            assert_shut(&world, &desktop, &mut held);

            world.gate.reopen(ledger.opened_again(), world.now).unwrap();
            assert_eq!(world.gate.failure(), None);
            let revoked = held.joined.is_some();
            for (name, act) in SCRIPT.iter().skip(at.min(2)).filter(|_| !revoked) {
                act(&world, &desktop, &mut held)
                    .unwrap_or_else(|denial| panic!("call {nth}, {name}: {denial}"));
            }
            // With every outcome it was revoked in the end, also where the first write failed.
            for guard in held.joined.iter_mut().map(|joined| &mut joined.guard).chain(&mut held.second) {
                let cut = guard.ask(Op::SendInput, world.now, || ()).unwrap_err();
                assert_eq!(cut, Denial::CredentialRevoked, "call {nth}, {name}");
            }
            let revoked = |listing: &Listing| matches!(listing.state, ListingState::Revoked { .. });
            assert!(world.list().iter().any(revoked), "call {nth}, {name}");
        }
    }
}

#[test]
fn a_call_that_was_certainly_not_done_fails_alone() {
    for nth in 1..=calls_of_the_script() {
        let ledger = TestLedger::default();
        let (world, desktop) = world_on(&ledger);
        ledger.fail_nth(nth, Fault::NotDone);
        let mut held = Held::default();
        let mut failed = 0;
        for (name, act) in SCRIPT {
            if let Err(denial) = act(&world, &desktop, &mut held) {
                assert_eq!(denial, IO, "call {nth}, {name}");
                failed += 1;
                assert_eq!(world.gate.failure(), None);
                for guard in held.joined.iter_mut().map(|joined| &mut joined.guard).chain(&mut held.second) {
                    let permitted = guard.ask(Op::SendInput, world.now, || ());
                    let named = (name == "revoke").then_some(Err(Denial::CredentialRevoked));
                    assert_eq!(permitted, named.unwrap_or(Ok(())), "call {nth}, {name}: others go on");
                }
                act(&world, &desktop, &mut held)
                    .unwrap_or_else(|denial| panic!("call {nth}, {name}: {denial}"));
            }
        }
        assert_eq!(failed, 1, "call {nth}");
    }
}

/// Everything is denied, streams wait, and a revocation still cuts.
fn assert_shut(world: &World, desktop: &Desktop, held: &mut Held) {
    assert_eq!(desktop.register(world), Err(POISONED));
    if let Some(pairing) = &held.pairing {
        assert_eq!(desktop.lodge(world, pairing), Err(POISONED));
        assert_eq!(refusal(world.join(&pairing.link, &phone(2)).unwrap_err()), POISONED);
        assert_eq!(refusal(world.join(&pairing.link, &phone(3)).unwrap_err()), POISONED);
    }
    assert_eq!(list_all(&world.gate, None, world.now), Err(POISONED));
    assert_eq!(world.gate.settle(world.now), Err(POISONED));
    let Some(joined) = &mut held.joined else { return };
    let attached = world.attach(&phone(2), &joined.credential, OpSet::EMPTY);
    assert_eq!(refusal(attached.unwrap_err()), POISONED);
    for guard in core::iter::once(&mut joined.guard).chain(&mut held.second) {
        let waits = guard.ask(Op::SendInput, world.now, || ()).unwrap_err();
        // Not final, or cut already by the revocation whose record failed.
        assert!([Denial::Stale, Denial::CredentialRevoked].contains(&waits), "{waits}");
    }
    let pairing = held.pairing.as_ref().unwrap();
    assert_eq!(world.gate.revoke_credential(&pairing.credential, world.now), Err(POISONED));
    for guard in core::iter::once(&mut joined.guard).chain(&mut held.second) {
        let cut = guard.ask(Op::SendInput, world.now, || ());
        assert_eq!(cut, Err(Denial::CredentialRevoked), "cut although nothing can be written");
    }
}

#[test]
fn a_revocation_that_cannot_be_written_still_cuts_and_says_so() {
    type Verb = fn(&World, &Pairing, &Desktop) -> Result<(), Denial>;
    let verbs: [(Verb, Denial); 7] = [
        (|w, p, _| w.gate.revoke_ticket(&p.ticket, w.now).map(drop), Denial::CredentialRevoked),
        (|w, p, _| w.gate.revoke_credential(&p.credential, w.now).map(drop), Denial::CredentialRevoked),
        (|w, _, _| w.gate.revoke_session(&session(SESSION), w.now).map(drop), Denial::CredentialRevoked),
        (|w, _, _| w.gate.end_session(&session(SESSION), w.now).map(drop), Denial::SessionGone),
        (|w, _, d| w.gate.revoke_issuer(&d.issuer.public(), w.now).map(drop), Denial::CredentialRevoked),
        (|w, _, d| w.gate.revoke_device(&d.device, w.now).map(drop), Denial::CredentialRevoked),
        (|w, _, _| w.gate.sync_devices(&[], w.now).map(drop), Denial::CredentialRevoked),
    ];
    for (verb, cut) in verbs {
        let ledger = TestLedger::default();
        let (world, desktop) = world_on(&ledger);
        desktop.register(&world).unwrap();
        let pairing = desktop.share(&world, &terms());
        let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
        ledger.fail_nth(1, Fault::Lost);
        assert_eq!(verb(&world, &pairing, &desktop), Err(IO));
        assert_eq!(joined.guard.ask(Op::SendInput, world.now, || ()), Err(cut));
    }
}

fn poll<F: Future>(future: &mut core::pin::Pin<&mut F>) -> core::task::Poll<F::Output> {
    future.as_mut().poll(&mut core::task::Context::from_waker(core::task::Waker::noop()))
}

/// Whichever call finds the failure.
#[test]
fn streams_wait_while_the_ledger_has_failed_and_continue_once_it_is_open_again() {
    for fault in [Fault::Broken, Fault::Lost, Fault::Done] {
        let ledger = TestLedger::default();
        let (mut world, desktop) = world_on(&ledger);
        desktop.register(&world).unwrap();
        let mut guards: Vec<Guard> = (2..5)
            .map(|seed| world.join(&desktop.share(&world, &terms()).link, &phone(seed)).unwrap().guard)
            .collect();
        ledger.fail_nth(1, fault);
        assert_eq!(list_all(&world.gate, None, world.now), Err(IO));
        world.pass(58);
        for guard in &mut guards {
            assert_eq!(guard.ask(Op::ReadMetadata, world.now, || ()), Err(Denial::Stale));
            assert_eq!(guard.checked(world.now), Err(Denial::Stale));
        }
        let mut cut = core::pin::pin!(guards[0].cut());
        let mut settled = core::pin::pin!(guards[0].settled());
        assert!(poll(&mut cut).is_pending() && poll(&mut settled).is_pending(), "a pause is no end");
        world.gate.reopen(ledger.opened_again(), world.now).unwrap();
        assert!(poll(&mut settled).is_ready() && poll(&mut cut).is_pending());
        for guard in &mut guards {
            assert_eq!(guard.ask(Op::ReadMetadata, world.now, || 7), Ok(7));
        }
        assert_eq!(world.list().len(), 3);
    }
}

#[test]
fn streams_that_have_waited_for_a_minute_are_cut_and_phones_attach_once_the_ledger_is_open() {
    let ledger = TestLedger::default();
    let (mut world, desktop) = world_on(&ledger);
    desktop.register(&world).unwrap();
    let mut asks = world.join(&desktop.share(&world, &terms()).link, &phone(2)).unwrap();
    let idle = world.join(&desktop.share(&world, &terms()).link, &phone(3)).unwrap();
    let mut cut = core::pin::pin!(idle.guard.cut());
    ledger.fail_nth(1, Fault::Broken);
    assert_eq!(list_all(&world.gate, None, world.now), Err(IO));
    world.pass_unsettled(60);
    assert_eq!(asks.guard.ask(Op::SendInput, world.now, || ()), Err(POISONED));
    assert!(poll(&mut cut).is_pending(), "nobody has asked for it");
    assert_eq!(world.gate.settle(world.now), Err(POISONED));
    assert_eq!(poll(&mut cut), core::task::Poll::Ready(POISONED), "whoever settles ends what waits");
    world.gate.reopen(ledger.opened_again(), world.now).unwrap();
    assert_eq!(asks.guard.ask(Op::SendInput, world.now, || ()), Err(POISONED), "over is over");
    // The old guards are still held: their phones are admitted anyway.
    for (seed, credential) in [(2, &asks.credential), (3, &idle.credential)] {
        let mut back = world.attach(&phone(seed), credential, OpSet::EMPTY).unwrap();
        assert_eq!(back.ask(Op::SendInput, world.now, || 1), Ok(1));
    }
}

/// Another ledger, or an older state of the same one.
#[test]
fn a_stream_without_a_valid_record_in_the_reopened_ledger_is_cut() {
    let ledger = TestLedger::default();
    let (world, desktop) = world_on(&ledger);
    desktop.register(&world).unwrap();
    let (kept, lost) = (desktop.share(&world, &terms()), desktop.share(&world, &terms()));
    let mut stays = world.join(&kept.link, &phone(2)).unwrap();
    let before = ledger.rows();
    let mut falls = world.join(&lost.link, &phone(3)).unwrap();
    ledger.fail_nth(1, Fault::Broken);
    assert_eq!(list_all(&world.gate, None, world.now), Err(IO));
    world.gate.reopen(TestLedger::with_rows(before), world.now).unwrap();
    assert_eq!(stays.guard.ask(Op::SendInput, world.now, || 1), Ok(1));
    assert_eq!(falls.guard.ask(Op::SendInput, world.now, || ()), Err(Denial::CredentialRevoked));
}

/// Somebody else has had the records meanwhile.
#[test]
fn a_stream_that_a_reopening_cuts_has_a_reason() {
    type Meanwhile = fn(&mut World, &Pairing);
    let cases: [(Meanwhile, Denial); 4] = [
        (
            |other, _| other.gate.end_session(&session(SESSION), other.now).map(drop).unwrap(),
            Denial::SessionGone,
        ),
        (|other, pairing| drop(other.join(&pairing.link, &phone(3)).unwrap_err()), Denial::TicketContested),
        (|other, _| other.pass(600), Denial::CredentialExpired),
        (
            |other, pairing| other.gate.revoke_ticket(&pairing.ticket, other.now).map(drop).unwrap(),
            Denial::CredentialRevoked,
        ),
    ];
    for (meanwhile, denial) in cases {
        let ledger = TestLedger::default();
        let (world, desktop) = world_on(&ledger);
        desktop.register(&world).unwrap();
        let pairing = desktop.share(&world, &terms().with_valid_for(600).unwrap());
        let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
        ledger.fail_nth(1, Fault::Broken);
        assert_eq!(list_all(&world.gate, None, world.now), Err(IO));
        let changed = ledger.opened_again();
        let (mut other, _) = world_on(&changed);
        meanwhile(&mut other, &pairing);
        drop(other);
        world.gate.reopen(changed, world.now).unwrap();
        assert_eq!(joined.guard.ask(Op::SendInput, world.now, || ()), Err(denial));
    }
}

#[test]
fn a_ledger_that_is_open_is_not_opened_again_and_one_that_fails_to_open_changes_nothing() {
    let ledger = TestLedger::default();
    let (world, desktop) = world_on(&ledger);
    desktop.register(&world).unwrap();
    let mut joined = world.join(&desktop.share(&world, &terms()).link, &phone(2)).unwrap();
    let refused = world.gate.reopen(TestLedger::default(), world.now).map_err(|error| error.cause());
    assert_eq!(refused, Err(LedgerFailure::InUse));
    assert_eq!(joined.guard.ask(Op::SendInput, world.now, || 1), Ok(1));
    ledger.fail_nth(1, Fault::Broken);
    assert_eq!(list_all(&world.gate, None, world.now), Err(IO));
    for nth in 1.. {
        let again = ledger.opened_again();
        again.fail_nth(nth, Fault::Broken);
        let opened = world.gate.reopen(again.clone(), world.now).map_err(|error| error.cause());
        if again.calls() < nth {
            assert!(opened.is_ok() && nth > 3, "{nth}");
            break;
        }
        assert_eq!(opened, Err(LedgerFailure::Io), "{nth}");
        assert_eq!(joined.guard.ask(Op::SendInput, world.now, || ()), Err(Denial::Stale), "{nth}");
    }
    assert_eq!(joined.guard.ask(Op::SendInput, world.now, || 1), Ok(1));
}

#[test]
fn a_gate_that_a_reopening_closes_for_good_wakes_the_streams_that_it_cut() {
    let ledger = TestLedger::default();
    let (world, desktop) = world_on(&ledger);
    desktop.register(&world).unwrap();
    let joined = world.join(&desktop.share(&world, &terms()).link, &phone(2)).unwrap();
    ledger.fail_nth(1, Fault::Broken);
    assert_eq!(list_all(&world.gate, None, world.now), Err(IO));
    let woken = Arc::new(AtomicBool::new(false));
    let waker = on_wake({
        let woken = Arc::clone(&woken);
        move || woken.store(true, Ordering::SeqCst)
    });
    let mut cut = pin!(joined.guard.cut());
    let mut context = core::task::Context::from_waker(&waker);
    assert!(cut.as_mut().poll(&mut context).is_pending());
    let again = ledger.opened_again();
    let mut rows = again.rows();
    rows.iter_mut().filter(|((table, _), _)| *table == Table::Meta).for_each(|(_, value)| value.push(0));
    again.set_rows(rows);
    let error = world.gate.reopen(again, world.now).unwrap_err();
    assert_eq!(error.cause(), LedgerFailure::Corrupt);
    assert!(woken.load(Ordering::SeqCst));
    assert!(cut.as_mut().poll(&mut context).is_ready());
}

/// The names of a revocation that is not on record.
#[test]
fn an_unwritten_revocation_keeps_its_name_closed_and_the_next_transaction_writes_it() {
    let ledger = TestLedger::default();
    let (world, desktop) = world_on(&ledger);
    desktop.register(&world).unwrap();
    let (redeemed, open) = (desktop.share(&world, &terms()), desktop.share(&world, &terms()));
    let joined = world.join(&redeemed.link, &phone(2)).unwrap();
    let other = Desktop::new(&world, 8);
    world.enrol(other.device);
    other.register(&world).unwrap();
    let mut unharmed = world.join(&other.share(&world, &terms()).link, &phone(4)).unwrap();
    ledger.fail_nth(1, Fault::NotDone);
    assert_eq!(world.gate.revoke_device(&desktop.device, world.now), Err(IO));
    assert!(ledger.rows().iter().any(|((table, _), _)| *table == Table::Issuers), "not on record");
    assert_eq!(unharmed.guard.ask(Op::SendInput, world.now, || 1), Ok(1));
    // Reads write nothing, so the name stays closed by the gate alone.
    let listed = world.list();
    assert!(listed.iter().any(|listing| listing.state == ListingState::Active), "{listed:?}");
    // The next transaction writes it first.
    let refused = world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err();
    assert_eq!(refused.denial, Denial::CredentialRevoked);
    assert!(world.join(&open.link, &phone(3)).is_err());
    let still = world.list().into_iter().filter(|listing| listing.device == desktop.device);
    assert!(
        still.clone().count() == 2
            && still.clone().all(|listing| matches!(listing.state, ListingState::Revoked { .. }))
    );
    assert_eq!(desktop.lodge(&world, &desktop.mint(&world, &terms())), Err(Denial::IssuerUnknown));
    assert_eq!(unharmed.guard.ask(Op::SendInput, world.now, || 1), Ok(1));
}

#[test]
fn an_issuer_key_is_not_registered_before_its_revocation_is_on_record() {
    let ledger = TestLedger::default();
    let (world, desktop) = world_on(&ledger);
    ledger.fail_nth(1, Fault::NotDone);
    assert_eq!(world.gate.revoke_issuer(&desktop.issuer.public(), world.now), Err(IO));
    assert_eq!(desktop.register(&world), Err(Denial::Interrupted), "with this very call it is");
    assert_eq!(desktop.register(&world), Ok(()));
}

/// By a call that has something to tell itself.
#[test]
fn a_revocation_that_is_written_late_opens_its_name_and_is_recorded_once() {
    let ledger = TestLedger::default();
    let (mut world, desktop) = world_on(&ledger);
    desktop.register(&world).unwrap();
    world.start_session("other");
    let _joined = world.join(&desktop.share(&world, &terms()).link, &phone(2)).unwrap();
    let other = desktop.share_session(&world, "other", &terms());
    ledger.fail_nth(1, Fault::NotDone);
    assert_eq!(world.gate.revoke_session(&session(SESSION), world.now), Err(IO));
    // The wall clock is behind the agent's time, and only a reset goes back.
    let agent_time = world.now.timestamp();
    world.now.wall -= time::Duration::hours(1);
    world.gate.revoke_ticket(&other.ticket, world.now).unwrap();
    let pairing = desktop.issuer.pair(session(SESSION), &terms(), agent_time, &mut OsRng).unwrap();
    let receipt = world.gate.offer(&desktop.device, &pairing.offer, world.now).unwrap();
    assert_eq!(receipt.agent_time, agent_time);
    assert!(world.join(&pairing.link, &phone(3)).is_ok(), "its name is open again");
    assert_eq!(told_in_order(&world, |event| matches!(event, AuditEvent::SessionClosed { .. })), 1);
    assert_eq!(told_in_order(&world, |event| matches!(event, AuditEvent::ClockReset { .. })), 0);
}

/// How many such events were told. Each record has the number after the one before, or is the first of a later
/// opening.
fn told_in_order(world: &World, wanted: impl Fn(&AuditEvent) -> bool) -> usize {
    let told = world.audit.lock().unwrap();
    let numbers: Vec<(u64, u64)> = told.iter().map(|record| (record.opening, record.sequence)).collect();
    let follows = |pair: &[(u64, u64)]| match pair {
        [(opening, sequence), next] => *next == (*opening, sequence + 1) || *next == (opening + 1, 0),
        _ => false,
    };
    assert!(numbers.windows(2).all(follows), "{numbers:?}");
    told.iter().filter(|record| wanted(&record.event)).count()
}

#[test]
fn a_reset_of_the_clock_that_is_written_late_sets_the_clock_with_the_next_transaction() {
    let ledger = TestLedger::default();
    let (mut world, desktop) = world_on(&ledger);
    desktop.register(&world).unwrap();
    let mut joined = world.join(&desktop.share(&world, &terms()).link, &phone(2)).unwrap();
    let before = world.now.timestamp();
    world.now.wall -= time::Duration::hours(1);
    ledger.fail_nth(1, Fault::NotDone);
    assert_eq!(world.gate.reset_clock(world.now), Err(IO));
    assert_eq!(joined.guard.checked(world.now), Err(Denial::CredentialRevoked));
    world.gate.settle(world.now).unwrap();
    desktop.register(&world).unwrap();
    let receipt =
        world.gate.offer(&desktop.device, &desktop.mint(&world, &terms()).offer, world.now).unwrap();
    assert_eq!(receipt.agent_time, world.now.timestamp());
    let reset = |event: &AuditEvent| matches!(event, AuditEvent::ClockReset { from } if *from == before);
    assert_eq!(told_in_order(&world, reset), 1);
    assert_eq!(world.only_listing().state, ListingState::Open, "nothing is left from before");
}

/// Each is one that the ledger has refused and that can be written later.
/// Whichever call fails, and whether the change was written or not.
#[test]
fn reopening_a_ledger_passes_each_record_to_the_sink_once() {
    for fault in [Fault::Broken, Fault::Lost, Fault::Done] {
        for nth in 1.. {
            let ledger = TestLedger::default();
            let (world, desktop) = world_on(&ledger);
            desktop.register(&world).unwrap();
            let pairing = desktop.share(&world, &terms());
            let _joined = world.join(&pairing.link, &phone(2)).unwrap();
            ledger.fail_nth(nth, fault);
            let outcome = world.gate.revoke_ticket(&pairing.ticket, world.now);
            if outcome.is_err() {
                world.gate.reopen(ledger.opened_again(), world.now).unwrap();
            }
            let revoked = |event: &AuditEvent| matches!(event, AuditEvent::CredentialRevoked { .. });
            assert_eq!(told_in_order(&world, revoked), 1, "{fault:?}, call {nth}");
            if outcome.is_ok() {
                assert!(nth > 10, "{nth} calls");
                break;
            }
        }
    }
}

#[test]
fn a_reset_of_the_clock_that_is_written_when_the_ledger_is_opened_again_sets_the_clock() {
    for fault in [Fault::Broken, Fault::Lost, Fault::Done] {
        let ledger = TestLedger::default();
        let (mut world, desktop) = world_on(&ledger);
        desktop.register(&world).unwrap();
        let mut joined = world.join(&desktop.share(&world, &terms()).link, &phone(2)).unwrap();
        let before = world.now.timestamp();
        world.now.wall -= time::Duration::hours(1);
        ledger.fail_nth(1, fault);
        assert_eq!(world.gate.reset_clock(world.now), Err(IO));
        world.gate.reopen(ledger.opened_again(), world.now).unwrap();
        assert_eq!(joined.guard.checked(world.now), Err(Denial::CredentialRevoked));
        desktop.register(&world).unwrap();
        let offered = desktop.mint(&world, &terms()).offer;
        let receipt = world.gate.offer(&desktop.device, &offered, world.now).unwrap();
        assert_eq!(receipt.agent_time, world.now.timestamp(), "{fault:?}");
        let reset = |event: &AuditEvent| matches!(event, AuditEvent::ClockReset { from } if *from == before);
        assert!(told_in_order(&world, reset) == 1 || fault == Fault::Done, "{fault:?}");
        assert_eq!(world.only_listing().state, ListingState::Open, "nothing is left from before");
    }
}

#[test]
fn a_gate_keeps_a_bounded_number_of_unwritten_revocations_and_closes_with_the_next() {
    let ledger = TestLedger::default();
    let (world, desktop) = world_on(&ledger);
    desktop.register(&world).unwrap();
    let mut joined = world.join(&desktop.share(&world, &terms()).link, &phone(2)).unwrap();
    let unknown = |number: u32| {
        let mut id = [9; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        TicketId::from_bytes(id)
    };
    for number in 0..1_024 {
        ledger.fail_nth(1, Fault::NotDone);
        assert_eq!(world.gate.revoke_ticket(&unknown(number), world.now), Err(IO));
    }
    assert_eq!((world.gate.failure(), world.gate.is_poisoned()), (None, false));
    assert_eq!(joined.guard.ask(Op::SendInput, world.now, || 1), Ok(1));
    ledger.fail_nth(1, Fault::NotDone);
    assert_eq!(world.gate.revoke_ticket(&unknown(1_024), world.now), Err(IO));
    assert_eq!(world.gate.failure(), Some(LedgerFailure::Unwritten));
    assert!(joined.guard.ask(Op::SendInput, world.now, || ()).is_err());
    assert!(list_all(&world.gate, None, world.now).is_err());
}

/// A phone that attaches again after its streams were cut has a new stream; a permit of the old one may still be
/// in use.
#[test]
fn a_revoker_waits_for_a_permit_of_a_stream_that_was_cut_before_its_phone_came_back() {
    let ledger = TestLedger::default();
    let (mut world, desktop) = world_on(&ledger);
    desktop.register(&world).unwrap();
    let pairing = desktop.share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let (mut guard, credential, held) = (joined.guard, joined.credential, HeldPermit::default());
    let begun = world.now;
    std::thread::scope(|scope| {
        let held = &held;
        scope.spawn(move || held.hold(&mut guard, begun).unwrap());
        held.wait_until_in_use();
        ledger.fail_nth(1, Fault::Broken);
        assert_eq!(list_all(&world.gate, None, world.now), Err(IO));
        world.pass_unsettled(60);
        assert_eq!(world.gate.settle(world.now), Err(POISONED));
        world.gate.reopen(ledger.opened_again(), world.now).unwrap();
        let _back = world.attach(&phone(2), &credential, OpSet::EMPTY).unwrap();
        let (gate, now, id) = (world.gate.clone(), world.now, pairing.credential);
        let revoking = scope.spawn(move || {
            gate.revoke_credential(&id, now).unwrap();
            !held.is_in_use()
        });
        while !matches!(world.only_listing().state, ListingState::Revoked { .. }) {
            std::thread::yield_now();
        }
        let waited = held.release_later(&revoking);
        assert!(revoking.join().unwrap() && waited, "it returned while a permit was in use");
    });
}

#[test]
fn a_contest_that_cannot_be_written_still_cuts() {
    // every call of the second phone's redemption, until it goes through
    let mut contested = 0;
    for nth in 1.. {
        let ledger = TestLedger::default();
        let (world, desktop) = world_on(&ledger);
        desktop.register(&world).unwrap();
        let pairing = desktop.share(&world, &terms());
        let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
        ledger.fail_nth(nth, Fault::Lost);
        let denial = world.join(&pairing.link, &phone(3)).unwrap_err().denial;
        if denial == Denial::TicketContested {
            assert!(nth > 8 && contested > 0, "{contested} of {nth}");
            break;
        }
        assert_eq!(denial, IO);
        let cut = joined.guard.ask(Op::SendInput, world.now, || ()).unwrap_err();
        // Once it was seen to be a contest, that is the reason.
        assert!([Denial::Stale, Denial::TicketContested].contains(&cut), "call {nth}: {cut}");
        contested += u32::from(cut == Denial::TicketContested);
        assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_err());
    }
}

/// A gate that failed is opened again over whatever was written.
#[test]
fn after_a_failure_a_reopened_gate_has_one_holder_at_most() {
    for fault in [Fault::Lost, Fault::Done] {
        for nth in 1.. {
            let ledger = TestLedger::default();
            let (world, desktop) = world_on(&ledger);
            desktop.register(&world).unwrap();
            let pairing = desktop.share(&world, &terms());
            ledger.fail_nth(nth, fault);
            let first = world.join(&pairing.link, &phone(2));
            let (again, _) = world_on(&TestLedger::with_rows(ledger.rows()));
            if first.is_ok() {
                break;
            }
            let written = again.list().iter().any(|listing| listing.holder.is_some());
            assert!(!written || fault == Fault::Done || again.list()[0].holder == Some(phone(2).public()));
            let retried = again.join(&pairing.link, &phone(2)).expect("the honest phone tries again");
            assert_eq!(again.only_listing().holder, Some(phone(2).public()));
            assert!(again.attach(&phone(2), &retried.credential, OpSet::EMPTY).is_ok());
            assert!(again.join(&pairing.link, &phone(3)).is_err());
        }
    }
}

#[test]
fn a_revocation_that_was_written_holds_in_a_reopened_gate() {
    let ledger = TestLedger::default();
    let (world, desktop) = world_on(&ledger);
    desktop.register(&world).unwrap();
    let pairing = desktop.share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
    drop(world);
    let (again, _) = world_on(&ledger);
    let refusal = again.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err();
    assert_eq!(refusal, Refusal::told(Denial::CredentialRevoked, Status::Revoked));
}

// --- changed records ---

#[test]
fn a_lost_record_is_a_denial() {
    let ledger = TestLedger::default();
    let (world, desktop) = world_on(&ledger);
    desktop.register(&world).unwrap();
    let pairing = desktop.share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let rows = ledger.rows();
    for (lost, key) in rows.keys() {
        let mut fewer = rows.clone();
        fewer.remove(&(*lost, key.clone()));
        let opened = World::try_with(TestLedger::with_rows(fewer), world.now, |config| config);
        let again = match opened {
            Ok(again) => again,
            Err(failure) => {
                assert_eq!((*lost, failure), (Table::Meta, LedgerFailure::Corrupt));
                continue;
            }
        };
        again.enrol(desktop.device);
        let attached = again.attach(&phone(2), &joined.credential, OpSet::EMPTY);
        match lost {
            Table::Issuers | Table::Sessions | Table::Credentials => assert!(attached.is_err(), "{lost:?}"),
            // indices, counters, and the ticket whose part is done
            _ => {}
        }
        assert!(again.join(&pairing.link, &phone(3)).is_err(), "{lost:?}");
    }
}

#[test]
fn a_changed_record_is_a_denial_or_changes_nothing_that_counts() {
    let ledger = TestLedger::default();
    let (world, desktop) = world_on(&ledger);
    desktop.register(&world).unwrap();
    let terms = terms().with_label(text("L"));
    let (open, redeemed) = (desktop.share(&world, &terms), desktop.share(&world, &terms));
    let joined = world.join(&redeemed.link, &phone(2)).unwrap();
    let revoked = desktop.share(&world, &terms);
    let dead = world.join(&revoked.link, &phone(5)).unwrap();
    world.gate.revoke_credential(&revoked.credential, world.now).unwrap();
    let expires_at = joined.guard.expires_at();
    let own = attach_payload(OpSet::ALL, joined.credential.as_bytes());
    let revoked_one = attach_payload(OpSet::EMPTY, dead.credential.as_bytes());
    let redemption =
        |link: &Link| world.open(&world.ask(link, &phone(3)).message).unwrap().payload().to_vec();
    let (first_redemption, second_redemption) = (redemption(&open.link), redemption(&redeemed.link));
    let rows = ledger.rows();
    let (mut denied, mut corrupt, mut admitted) = (0, 0, 0);
    for ((table, key), value) in &rows {
        for place in 0..value.len() {
            let mut changed = rows.clone();
            changed.get_mut(&(*table, key.clone())).unwrap()[place] ^= 1 << (place % 8);
            let open_with = || world_on(&TestLedger::with_rows(changed.clone())).0;
            if World::try_with(TestLedger::with_rows(changed.clone()), world.now, |config| config).is_err() {
                assert!(matches!(table, Table::Meta | Table::Events), "{table:?}");
                continue;
            }
            let ask = |seed: u8, payload: &[u8]| live(&open_with(), &phone(seed), payload);
            let at = format!("{table:?}, byte {place}");
            match ask(2, &own) {
                Ok(guard) => {
                    admitted += 1;
                    assert!(guard.ops().is_subset_of(OpSet::COMPANION), "{at}");
                    assert!(guard.expires_at() <= expires_at, "{at}");
                    assert_eq!(guard.session(), &session(SESSION), "{at}");
                }
                Err(denial) => {
                    denied += 1;
                    corrupt += u32::from(denial == Denial::Ledger(LedgerFailure::Corrupt));
                }
            }
            assert!(ask(3, &own).is_err(), "{at}: stolen");
            assert!(ask(5, &revoked_one).is_err(), "{at}: revived");
            assert!(ask(3, &second_redemption).is_err(), "{at}: redeemed by a second phone");
            if let Ok(guard) = ask(3, &first_redemption) {
                assert!(guard.ops().is_subset_of(OpSet::COMPANION), "{at}");
                assert_eq!(guard.session(), &session(SESSION), "{at}");
            }
        }
    }
    assert!(denied > 100 && corrupt > 20, "{denied} denied, {corrupt} of them as corrupt");
    assert!(admitted > 100, "{admitted} admitted");
}

#[test]
fn an_operation_that_only_the_record_names_is_not_permitted() {
    let ledger = TestLedger::default();
    let (world, desktop) = world_on(&ledger);
    desktop.register(&world).unwrap();
    let ops: OpSet = [Op::ReadMetadata, Op::StreamOutput].into_iter().collect();
    let pairing = desktop.share(&world, &terms().with_ops(ops).unwrap());
    world.join(&pairing.link, &phone(2)).unwrap();
    // A phone that has lost the answer asks by its ticket, and gets what the record says.
    let again = world.open(&world.ask(&pairing.link, &phone(2)).message).unwrap().payload().to_vec();
    let rows = ledger.rows();
    let ((_, key), record) = rows.iter().find(|((table, _), _)| *table == Table::Credentials).unwrap();
    let mut widened = 0;
    for bit in 0..8 * record.len() {
        let mut changed = rows.clone();
        changed.get_mut(&(Table::Credentials, key.clone())).unwrap()[bit / 8] ^= 1 << (bit % 8);
        match live(&world_on(&TestLedger::with_rows(changed)).0, &phone(2), &again) {
            Ok(guard) => assert!(guard.ops().is_subset_of(ops), "bit {bit}: {:?}", guard.ops()),
            Err(denial) => widened += u32::from(matches!(denial, Denial::CaveatFailed { block: 0, .. })),
        }
    }
    assert!(widened > 0, "no bit has widened the record");
}

/// Admission and first frame, without the encryption around them.
fn live(world: &World, phone: &HolderSecretKey, payload: &[u8]) -> Result<Guard, Denial> {
    match world.admit(phone, payload) {
        PeerAdmission::Admitted { guard, .. } => guard.activate_after_first_frame(world.now),
        PeerAdmission::Refused { denial, .. } => Err(denial),
        PeerAdmission::PassThrough => panic!("taken for a device"),
    }
}

#[test]
fn a_record_cut_short_or_lengthened_is_corrupt() {
    let ledger = TestLedger::default();
    let (world, desktop) = world_on(&ledger);
    desktop.register(&world).unwrap();
    let pairing = desktop.share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let rows = ledger.rows();
    for table in [Table::Issuers, Table::Sessions, Table::Credentials] {
        let ((_, key), value) = rows.iter().find(|((of, _), _)| *of == table).unwrap();
        for bad in [value[..value.len() - 1].to_vec(), [value.as_slice(), &[0]].concat(), Vec::new()] {
            let mut changed = rows.clone();
            changed.insert((table, key.clone()), bad);
            let (again, _) = world_on(&TestLedger::with_rows(changed));
            let refused = again.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err();
            assert_eq!(refusal(refused), Denial::Ledger(LedgerFailure::Corrupt), "{table:?}");
            assert!(again.gate.is_poisoned());
        }
    }
}
