//! Conditions for streams to continue: `settle`, the context, and being the only gate of a node.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use core::future::Future;
use core::pin::pin;
use core::task::{Context as Task, Poll, Waker};
use std::sync::{Arc, Mutex};

use common::ledger::{Fault, TestLedger};
use common::*;
use sessioncap::agent::*;
use sessioncap::desktop::*;
use sessioncap::*;
use time::Duration;

fn permit(guard: &mut Guard, now: Now) -> Result<u8, Denial> {
    guard.ask(Op::SendInput, now, || 1)
}

fn is_ready<F: Future>(future: core::pin::Pin<&mut F>) -> bool {
    matches!(future.poll(&mut Task::from_waker(Waker::noop())), Poll::Ready(_))
}

#[test]
fn a_gate_that_nobody_settles_permits_nothing_after_five_seconds() {
    let ledger = TestLedger::default();
    let mut world = World::on(ledger.clone());
    let pairing = world.desktop(9).share(&world, &terms());
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    let guard = &mut joined.guard;
    world.pass_unsettled(4);
    let almost = world.now.plus(Duration::milliseconds(999));
    assert_eq!(permit(guard, almost), Ok(1));
    world.pass_unsettled(1);
    assert_eq!(permit(guard, world.now), Err(Denial::Stale));
    assert_eq!(guard.checked(world.now), Err(Denial::Stale));
    assert_eq!(guard.ask_action(Action::Session(Op::SendInput), world.now, || 1), Err(Denial::Stale));
    assert_eq!(guard.fork().checked(world.now), Err(Denial::Stale));
    // Neither another call, nor a `settle` that fails, nor one of long ago.
    world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap();
    assert_eq!(permit(guard, world.now), Err(Denial::Stale));
    ledger.fail_nth(1, Fault::NotDone);
    assert!(world.gate.settle(world.now).is_err());
    assert_eq!(permit(guard, world.now), Err(Denial::Stale));
    let long_ago = Now::since_1970(world.now.wall, world.now.monotonic - Duration::seconds(5));
    world.gate.settle(long_ago).unwrap();
    assert_eq!(permit(guard, world.now), Err(Denial::Stale), "counted from the time that it was given");
    world.gate.settle(world.now).unwrap();
    assert_eq!(permit(guard, world.now), Ok(1), "it was not final");
    world.pass_unsettled(5);
    assert_eq!(permit(guard, world.now), Err(Denial::Stale));
}

#[test]
fn a_final_denial_precedes_stale() {
    let mut world = World::new();
    let desktop = world.desktop(9);
    let short = terms().with_valid_for(30).unwrap();
    let mut expires = world.join(&desktop.share(&world, &short).link, &phone(2)).unwrap().guard;
    let pairing = desktop.share(&world, &terms());
    let mut revoked = world.join(&pairing.link, &phone(3)).unwrap().guard;
    world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
    world.pass_unsettled(29);
    assert_eq!(permit(&mut expires, world.now), Err(Denial::Stale));
    assert_eq!(permit(&mut revoked, world.now), Err(Denial::CredentialRevoked));
    world.pass_unsettled(1);
    assert_eq!(permit(&mut expires, world.now), Err(Denial::CredentialExpired));
}

#[test]
fn a_task_that_waits_for_a_settle_is_woken_by_it_or_by_the_cut() {
    let mut world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &terms());
    let mut guard = world.join(&pairing.link, &phone(2)).unwrap().guard;
    world.pass_unsettled(6);
    assert_eq!(permit(&mut guard, world.now), Err(Denial::Stale));
    let mut waits = pin!(guard.settled());
    assert!(!is_ready(waits.as_mut()));
    world.gate.settle(world.now).unwrap();
    assert!(is_ready(waits.as_mut()));
    // A `settle` between the refusal and the wait is not missed.
    world.pass_unsettled(6);
    assert_eq!(permit(&mut guard, world.now), Err(Denial::Stale));
    world.gate.settle(world.now).unwrap();
    assert!(is_ready(pin!(guard.settled())));
    world.pass_unsettled(6);
    assert_eq!(permit(&mut guard, world.now), Err(Denial::Stale));
    let mut waits = pin!(guard.settled());
    assert!(!is_ready(waits.as_mut()));
    world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
    assert!(is_ready(waits.as_mut()));
    assert_eq!(permit(&mut guard, world.now), Err(Denial::CredentialRevoked));
}

// --- the only gate of a node ---

#[test]
fn a_node_that_is_opened_again_closes_the_gate_that_had_it() {
    let ledger = TestLedger::default();
    let first = World::on(ledger.clone());
    let pairing = first.desktop(9).share(&first, &terms());
    let mut joined = first.join(&pairing.link, &phone(2)).unwrap();
    let _second = World::on(ledger.clone());
    let fenced = Denial::Ledger(LedgerFailure::Fenced);
    assert_eq!(list_all(&first.gate, None, first.now), Err(fenced.clone()), "reads as well");
    assert_eq!(permit(&mut joined.guard, first.now), Err(fenced.clone()));
    assert_eq!(first.gate.settle(first.now), Err(fenced.clone()));
    assert_eq!(first.gate.failure(), Some(LedgerFailure::Fenced));
    let refused = first.gate.reopen(ledger.clone(), first.now).map_err(|error| error.cause());
    assert_eq!(refused, Err(LedgerFailure::Fenced), "for good");
    // Every call returns it, also the first that finds it.
    let third = World::on(ledger.clone());
    let _fourth = World::on(ledger);
    assert_eq!(third.gate.revoke_credential(&pairing.credential, third.now), Err(fenced));
}

#[test]
fn two_nodes_share_a_ledger_and_neither_closes_the_other() {
    let ledger = TestLedger::default();
    let node = |number| World::with(ledger.clone(), |config| config.with_node(NodeId::new(number)));
    let (one, two) = (node(1), node(2));
    let desktop = one.desktop(9);
    two.enrol(desktop.device);
    let pairing = desktop.share(&one, &terms());
    let joined = two.join(&pairing.link, &phone(2)).unwrap();
    assert!(one.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_ok());
    one.gate.revoke_credential(&pairing.credential, one.now).unwrap();
    let refused = two.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err();
    assert_eq!(refused.denial, Denial::CredentialRevoked);
    let nodes = |world: &World| {
        let records = world.audit.lock().unwrap().clone();
        assert!(records.iter().all(|record| record.agent == world.agent.public()));
        let sequences: Vec<u64> = records.iter().map(|record| record.sequence).collect();
        assert_eq!(sequences, (0..records.len() as u64).collect::<Vec<_>>());
        records.into_iter().map(|record| record.node.number()).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!((nodes(&one), nodes(&two)), ([1].into(), [2].into()));
    assert!(node(1).list().len() == 1, "opening one node again");
    assert_eq!(one.gate.settle(one.now), Err(Denial::Ledger(LedgerFailure::Fenced)));
    assert_eq!(two.gate.settle(two.now), Ok(()), "is nothing to the other");
}

// --- the answers of the context ---

#[test]
fn a_session_or_device_that_the_context_calls_gone_ends_at_the_next_settle() {
    type Gone = fn(&World, &Desktop);
    let ways: [(Gone, Denial, RevocationReason); 2] = [
        (|world, _| world.stop_session(SESSION), Denial::SessionGone, RevocationReason::SessionEnd),
        (
            |world, desktop| world.strike_off(&desktop.device),
            Denial::CredentialRevoked,
            RevocationReason::Issuer,
        ),
    ];
    for (gone, reason, why) in ways {
        let world = World::new();
        world.start_session("other");
        let (desktop, other) = (world.desktop(9), world.desktop(8));
        let (pairing, open) = (desktop.share(&world, &terms()), desktop.share(&world, &terms()));
        let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
        let theirs = other.share_session(&world, "other", &terms());
        let mut stays = world.join(&theirs.link, &phone(3)).unwrap();
        gone(&world, &desktop);
        assert_eq!(permit(&mut joined.guard, world.now), Ok(1), "nobody has asked");
        world.gate.settle(world.now).unwrap();
        assert_eq!(permit(&mut joined.guard, world.now), Err(reason));
        assert_eq!(permit(&mut stays.guard, world.now), Ok(1));
        // It is on record: the session's or device's return does not revive it.
        world.start_session(SESSION);
        world.enrol(desktop.device);
        assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_err());
        assert!(world.join(&open.link, &phone(4)).is_err());
        let ended: Vec<_> = world.list().into_iter().filter(|one| one.device == desktop.device).collect();
        assert!(ended.len() == 2 && ended.iter().all(|one| one.state == ListingState::Revoked { why }));
    }
}

#[test]
fn a_session_or_device_that_the_context_calls_gone_ends_at_the_next_request() {
    type Ask = fn(&World, &Pairing, PendingGuard, &CredentialBytes) -> Denial;
    let asks: [Ask; 4] = [
        |world, _, _, credential| world.attach(&phone(2), credential, OpSet::EMPTY).unwrap_err().denial,
        |world, open, _, _| world.join(&open.link, &phone(3)).unwrap_err().denial,
        |world, _, pending, _| pending.activate_after_first_frame(world.now).unwrap_err(),
        |world, open, _, _| world.join(&open.link, &phone(2)).unwrap_err().denial,
    ];
    for ask in asks {
        for device_gone in [false, true] {
            let world = World::new();
            let desktop = world.desktop(9);
            let (pairing, open) = (desktop.share(&world, &terms()), desktop.share(&world, &terms()));
            let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
            let payload = attach_payload(OpSet::EMPTY, joined.credential.as_bytes());
            let PeerAdmission::Admitted { guard, .. } = world.admit(&phone(2), &payload) else { panic!() };
            if device_gone {
                world.strike_off(&desktop.device)
            } else {
                world.stop_session(SESSION)
            }
            let denial = ask(&world, &open, guard, &joined.credential);
            let expected: &[Denial] = match device_gone {
                true => &[Denial::IssuerRevoked, Denial::CredentialRevoked, Denial::TicketRevoked],
                false => &[Denial::SessionGone],
            };
            assert!(expected.contains(&denial), "{denial}");
            let cut = if device_gone { Denial::CredentialRevoked } else { Denial::SessionGone };
            assert_eq!(permit(&mut joined.guard, world.now), Err(cut));
            assert!(world.list().iter().all(|one| matches!(one.state, ListingState::Revoked { .. })));
        }
    }
}

/// Something that happens while the context is asked.
type Meanwhile = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// Answers that a session is gone, and makes a change before the gate receives the answer.
struct SaysGone {
    context: Context,
    meanwhile: Meanwhile,
}

impl AgentContext for SaysGone {
    fn device(&self, device: &DevicePublicKey) -> Presence {
        self.context.device(device)
    }

    fn session(&self, session: &SessionId) -> Presence {
        let said = self.context.session(session);
        if said == Presence::Gone
            && let Some(happen) = self.meanwhile.lock().unwrap().take()
        {
            happen();
        }
        said
    }

    fn may_share(&self, device: &DevicePublicKey, session: &SessionId) -> bool {
        self.context.may_share(device, session)
    }
}

/// The answer is about a session that has ended and begun again by the time the gate hears it.
#[test]
fn gone_ends_only_the_epoch_or_generation_in_question() {
    let mut world = World::new();
    let meanwhile = Meanwhile::default();
    let context = SaysGone { context: world.context.clone(), meanwhile: Arc::clone(&meanwhile) };
    let config = GateConfig::new(world.agent.public(), [AgentUrl::parse(URL).unwrap()]).unwrap();
    world.gate = Gate::open(config, TestLedger::default(), context, world.now).unwrap();
    let desktop = world.desktop(9);
    let before = world.join(&desktop.share(&world, &terms()).link, &phone(2)).unwrap();
    let fresh = desktop.mint(&world, &terms());
    let (gate, context, now) = (world.gate.clone(), world.context.clone(), world.now);
    let (device, offer) = (desktop.device, fresh.offer.clone());
    *meanwhile.lock().unwrap() = Some(Box::new(move || {
        gate.end_session(&session(SESSION), now).unwrap();
        context.0.lock().unwrap().sessions.insert(session(SESSION));
        gate.offer(&device, &offer, now).unwrap();
    }));
    world.stop_session(SESSION);
    assert_eq!(world.gate.settle(world.now), Err(Denial::Interrupted));
    let open = world.list().into_iter().find(|one| one.ticket == fresh.ticket).unwrap();
    assert_eq!(open.state, ListingState::Open, "the session of now is another");
    world.gate.settle(world.now).unwrap();
    let mut joined = world.join(&fresh.link, &phone(3)).unwrap();
    assert_eq!(permit(&mut joined.guard, world.now), Ok(1));
    assert!(world.attach(&phone(2), &before.credential, OpSet::EMPTY).is_err());
}

#[test]
fn an_unknown_session_or_device_admits_nobody_and_pauses_streams_after_thirty_seconds() {
    type Set = fn(&World, &Desktop, bool);
    let ways: [Set; 2] = [
        |world, _, unknown| {
            let mut facts = world.context.0.lock().unwrap();
            if unknown {
                facts.unknown.insert(session(SESSION))
            } else {
                facts.unknown.remove(&session(SESSION))
            };
        },
        |world, desktop, unknown| {
            let mut facts = world.context.0.lock().unwrap();
            match unknown {
                true => facts.unknown_devices.insert(desktop.device),
                false => facts.unknown_devices.remove(&desktop.device),
            };
        },
    ];
    for set in ways {
        let mut world = World::new();
        world.start_session("other");
        let (desktop, other) = (world.desktop(9), world.desktop(8));
        let (pairing, open) = (desktop.share(&world, &terms()), desktop.share(&world, &terms()));
        let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
        let mut stays = world.join(&other.share_session(&world, "other", &terms()).link, &phone(3)).unwrap();
        set(&world, &desktop, true);
        let unavailable = Refusal::told(Denial::ContextUnknown, Status::Unavailable);
        assert_eq!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err(), unavailable);
        assert_eq!(world.join(&open.link, &phone(4)).unwrap_err(), unavailable);
        world.gate.settle(world.now).unwrap();
        for second in 1..=40 {
            world.pass(1);
            let expected = if second < 30 { Ok(1) } else { Err(Denial::Stale) };
            assert_eq!(joined.guard.checked(world.now), expected.clone().map(drop), "second {second}");
            assert_eq!(permit(&mut joined.guard, world.now), expected, "second {second}");
            assert_eq!(permit(&mut stays.guard, world.now), Ok(1), "second {second}");
        }
        assert!(!is_ready(pin!(joined.guard.cut())), "nothing has ended");
        assert!(world.list().iter().all(|one| !matches!(one.state, ListingState::Revoked { .. })));
        set(&world, &desktop, false);
        world.pass(1);
        assert_eq!(permit(&mut joined.guard, world.now), Ok(1), "and it goes on");
        assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_ok());
        assert!(world.join(&open.link, &phone(4)).is_ok(), "the ticket is still open");
        // The thirty seconds begin again.
        set(&world, &desktop, true);
        world.pass(29);
        assert_eq!(permit(&mut joined.guard, world.now), Ok(1));
    }
}

#[test]
fn a_phone_is_revoked_by_the_name_that_its_desktop_gave_it() {
    let world = World::new();
    let (desktop, other) = (world.desktop(9), world.desktop(8));
    let named = |name: &str| terms().with_label(text(name));
    let share = |desktop: &Desktop, name: &str, seed: u8| {
        let pairing = desktop.share(&world, &named(name));
        world.join(&pairing.link, &phone(seed)).unwrap()
    };
    let mut stolen = [share(&desktop, "anna's", 2), share(&desktop, "anna's", 3)];
    let open = desktop.share(&world, &named("anna's"));
    let mut kept = [share(&desktop, "anna's2", 4), share(&desktop, "ANNA'S", 5), share(&other, "anna's", 6)];
    let unnamed = Err(Denial::ApiMisuse(Misuse::NoPhoneName));
    assert_eq!(world.gate.revoke_phone(&desktop.device, &Label::default(), world.now), unnamed);
    world.gate.revoke_phone(&desktop.device, &text("anna's"), world.now).unwrap();
    for phone in &mut stolen {
        assert_eq!(permit(&mut phone.guard, world.now), Err(Denial::CredentialRevoked));
    }
    assert_eq!(world.join(&open.link, &phone(7)).unwrap_err().denial, Denial::TicketRevoked);
    for phone in &mut kept {
        assert_eq!(permit(&mut phone.guard, world.now), Ok(1));
    }
    world.gate.revoke_phone(&desktop.device, &text("anna's"), world.now).unwrap();
}

/// By its own clocks, before anybody settles.
#[test]
fn a_paused_stream_whose_credential_has_expired_is_over_and_not_paused() {
    let mut world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &terms().with_valid_for(60).unwrap());
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    world.context.0.lock().unwrap().unknown.insert(session(SESSION));
    (0..40).for_each(|_| world.pass(1));
    assert_eq!(joined.guard.ask(Op::SendInput, world.now, || ()), Err(Denial::Stale));
    world.pass_unsettled(20);
    assert_eq!(joined.guard.ask(Op::SendInput, world.now, || ()), Err(Denial::CredentialExpired));
    assert_eq!(joined.guard.checked(world.now), Err(Denial::CredentialExpired));
}
