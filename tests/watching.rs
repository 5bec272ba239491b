//! Statistics and health of a gate, over a story with every outcome.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration as Time;

use common::ledger::{Fault, TestLedger};
use common::*;
use rand::rngs::OsRng;
use sessioncap::agent::ledger::MemoryLedger;
use sessioncap::agent::*;
use sessioncap::desktop::Confirmation;
use sessioncap::*;
use time::Duration;

fn denials(stats: &Stats) -> BTreeMap<&'static str, u64> {
    stats.denials().filter(|(_, count)| *count > 0).collect()
}

fn problems(gate: &Gate, now: Now) -> Vec<&'static str> {
    gate.health(now).problems().map(HealthProblem::code).collect()
}

/// What has changed between two readings, by the names in their JSON.
fn changed(before: &Stats, after: &Stats) -> BTreeMap<String, u64> {
    let numbers = |stats: &Stats| {
        let serde_json::Value::Object(fields) = serde_json::to_value(stats).unwrap() else { panic!() };
        let plain = |(name, value): (String, serde_json::Value)| Some((name, value.as_u64()?));
        fields.into_iter().filter_map(plain).collect::<BTreeMap<_, _>>()
    };
    let before = numbers(before);
    let after = numbers(after).into_iter();
    after
        .filter(|(name, value)| before[name] != *value)
        .map(|(name, value)| (name.clone(), value - before[&name]))
        .collect()
}

/// Without the number of transactions, which `tests/threads.rs` is about.
fn counted<T>(gate: &Gate, act: impl FnOnce() -> T) -> (T, String) {
    let before = gate.stats();
    let result = act();
    let mut changed = changed(&before, &gate.stats());
    changed.remove("transactions_done");
    let changed = changed.into_iter().map(|(name, count)| format!("{name} {count}"));
    (result, changed.collect::<Vec<_>>().join(", "))
}

#[test]
fn every_outcome_of_a_call_is_counted_once_under_its_name() {
    let world = World::new();
    let gate = &world.gate;
    let (desktop, counts) = counted(gate, || world.desktop(9));
    assert_eq!(counts, "registrations 1");
    assert_eq!(
        counted(gate, || world.take_registration(&desktop.device, &[])).1,
        "",
        "it never reached the gate"
    );
    let other = Desktop::new(&world, 8);
    assert_eq!(counted(gate, || other.register(&world).unwrap_err()).1, "registrations_refused 1");

    let (pairing, counts) = counted(gate, || desktop.share(&world, &terms()));
    assert_eq!(counts, "offers 1");
    assert_eq!(counted(gate, || desktop.lodge(&world, &pairing).unwrap_err()).1, "offers_refused 1");

    let (mut joined, counts) = counted(gate, || world.join(&pairing.link, &phone(2)).unwrap());
    assert_eq!(counts, "activated 1, connections 1, policy_runs 1, redeemed 1");
    let attach = || world.attach(&phone(2), &joined.credential, OpSet::EMPTY);
    let (second, counts) = counted(gate, attach);
    assert_eq!(counts, "activated 1, attached 1, connections 1");
    let fork = second.as_ref().unwrap().fork();
    assert_eq!(gate.stats().connections, 2, "a fork is no connection");
    drop(second);
    assert_eq!(gate.stats().connections, 2, "its fork is left");
    drop(fork);
    assert_eq!(gate.stats().connections, 1);

    // A stranger, somebody else's credential, an operation that was not granted.
    assert_eq!(counted(gate, || world.admit(&phone(3), b"hello")).1, "passed_through 1");
    let stolen = || world.attach(&phone(3), &joined.credential, OpSet::EMPTY).unwrap_err();
    assert_eq!(counted(gate, stolen).1, "refused_silently 1");
    let history = [Op::ReadHistory].into_iter().collect();
    let too_much = || world.attach(&phone(2), &joined.credential, history).unwrap_err();
    assert_eq!(counted(gate, too_much).1, "policy_runs 1, refused_with_answer 1");
    let payload = attach_payload(OpSet::EMPTY, joined.credential.as_bytes());
    let late = || {
        let PeerAdmission::Admitted { guard, .. } = world.admit(&phone(2), &payload) else { panic!() };
        guard.activate_after_first_frame(world.now.plus(Duration::seconds(30))).unwrap_err()
    };
    assert_eq!(counted(gate, late).1, "activations_failed 1, attached 1");

    // Frames.
    let now = world.now;
    assert_eq!(counted(gate, || joined.guard.ask(Op::SendInput, now, || ())).1, "frames_permitted 1");
    assert_eq!(counted(gate, || joined.guard.ask(Op::ReadHistory, now, || ())).1, "frames_refused 1");
    let deploy = Action::Privileged(Privilege::ALL[0]);
    assert_eq!(counted(gate, || joined.guard.ask_action(deploy, now, || ())).1, "frames_refused 1");
    let stale = now.plus(Duration::seconds(5));
    assert_eq!(counted(gate, || joined.guard.ask(Op::SendInput, stale, || ())).1, "frames_stale 1");
    assert_eq!(counted(gate, || joined.guard.checked(stale)).1, "", "a check is no frame");
    assert_eq!(counted(gate, || gate.settle(now).unwrap()).1, "settlings 1");

    // Confirmation.
    let waits = desktop.share(&world, &terms().with_confirmation(Confirmation::Required));
    assert_eq!(counted(gate, || world.join(&waits.link, &phone(4)).unwrap_err()).1, "pending 1");
    let confirm = |holder: u8| gate.confirm(&desktop.device, &waits.ticket, &phone(holder).public(), now);
    assert_eq!(counted(gate, || confirm(5).unwrap_err()).1, "confirmations_refused 1");
    assert_eq!(counted(gate, || confirm(4).unwrap()).1, "confirmations 1");

    // Renewal.
    assert_eq!(counted(gate, || desktop.renew(&world, &pairing, OpSet::ALL, 3_600).unwrap()).1, "renewals 1");
    let renewals_of_another = || other.renew(&world, &pairing, OpSet::ALL, 3_600).unwrap_err();
    assert_eq!(counted(gate, renewals_of_another).1, "renewals_refused 1");

    // A contest, revocations.
    let contested = desktop.share(&world, &terms());
    let _first = world.join(&contested.link, &phone(6)).unwrap();
    let contest = || world.join(&contested.link, &phone(7)).map(drop).unwrap_err();
    assert_eq!(counted(gate, contest).1, "contests 1, refused_with_answer 1");
    let revoke = || gate.revoke_credential(&pairing.credential, now).unwrap();
    assert_eq!(counted(gate, revoke).1, "revocations_ended 1");
    assert_eq!(counted(gate, revoke).1, "revocations_already 1");
    let unknown = || gate.revoke_session(&session("unknown"), now).unwrap();
    assert_eq!(counted(gate, unknown).1, "revocations_unknown 1");
    assert_eq!(
        counted(gate, || gate.sync_devices(&[desktop.device], now).unwrap()).1,
        "revocations_already 1"
    );
    assert_eq!(counted(gate, || gate.end_session(&session(SESSION), now).unwrap()).1, "revocations_ended 1");
    let nameless = || gate.revoke_phone(&desktop.device, &Label::default(), now).unwrap_err();
    assert_eq!(counted(gate, nameless).1, "revocations_failed 1");
    assert_eq!(counted(gate, || joined.guard.ask(Op::SendInput, now, || ())).1, "frames_refused 1");

    let expected = [
        ("activation_timeout", 1),
        ("api_misuse", 1),
        ("caveat_failed", 1),
        ("confirmation_pending", 1),
        ("credential_revoked", 1),
        ("device_not_enrolled", 2),
        ("holder_mismatch", 1),
        ("nothing_to_confirm", 1),
        ("offer_repeated", 1),
        ("operation_not_granted", 1),
        ("privilege_denied", 1),
        ("stale", 1),
        ("ticket_contested", 1),
    ];
    assert_eq!(denials(&gate.stats()), expected.into());
}

/// `answer` counts as the method that it calls, once.
#[test]
fn a_request_counts_as_the_call_that_it_makes() {
    let world = World::new();
    let desktop = world.desktop(9);
    let offer = pair::Request::Offer { offer: desktop.mint(&world, &terms()).offer };
    let answer = |request: &pair::Request| {
        world.gate.answer(&desktop.device, &CHANNEL, request, world.now, &mut OsRng).map(drop)
    };
    assert_eq!(counted(&world.gate, || answer(&offer).unwrap()).1, "offers 1");
    world.strike_off(&desktop.device);
    assert_eq!(counted(&world.gate, || answer(&offer).unwrap_err()).1, "");
    assert_eq!(denials(&world.gate.stats()), [("device_not_enrolled", 1)].into());
}

#[test]
fn a_data_frame_that_its_reader_refuses_and_a_first_frame_that_nobody_can_read_are_counted() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let pending = |seed: u8| {
        let sessioncap::phone::Asking { message, next, .. } = world.ask(&pairing.link, &phone(seed));
        let received = world.open(&message).unwrap();
        let Admission::Admitted { message, pending } = world.gate.admit(received, world.now, &mut OsRng)
        else {
            panic!()
        };
        let sessioncap::phone::Redeemed::Attached { attached, .. } = next.finish(&message).unwrap() else {
            panic!()
        };
        (attached, pending)
    };
    let (_, first) = pending(2);
    assert_eq!(
        counted(&world.gate, || first.activate(b"no frame", world.now).unwrap_err()).1,
        "activations_failed 1"
    );
    let (mut attached, second) = pending(2);
    let malformed = attached.channel.seal(&[0xff]).unwrap();
    assert_eq!(
        counted(&world.gate, || second.activate(&malformed, world.now).unwrap_err()).1,
        "activations_failed 1"
    );
    let (mut attached, third) = pending(2);
    let data = attached.channel.seal(&Frame::Data(b"x").to_bytes()).unwrap();
    let (_, mut receiver) = third.activate(&data, world.now).unwrap().split();
    let refuse =
        || receiver.try_receive_as::<(), ()>(|_| Err(Denial::OtherSession), world.now, |()| ()).unwrap_err();
    assert_eq!(counted(&world.gate, refuse).1, "frames_refused 1");
    assert_eq!(denials(&world.gate.stats()), [("frame_unreadable", 2), ("other_session", 1)].into());
}

#[test]
fn what_the_context_ends_counts_as_a_revocation() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let _joined = world.join(&pairing.link, &phone(2)).unwrap();
    world.stop_session(SESSION);
    assert_eq!(
        counted(&world.gate, || world.gate.settle(world.now).unwrap()).1,
        "revocations_ended 1, settlings 1"
    );
}

#[test]
fn a_ledger_that_fails_is_counted_by_outcome_and_reported() {
    let set_up = || {
        let ledger = TestLedger::default();
        let world = World::on(ledger.clone());
        let pairing = world.desktop(9).share(&world, &terms());
        (ledger, world, pairing)
    };
    // The commit is the last call of a revocation.
    let commit = {
        let (ledger, world, pairing) = set_up();
        let before = ledger.calls();
        let _ = world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
        ledger.calls() - before
    };
    for (fault, counter, usable) in [
        (Fault::NotDone, "transactions_not_done", true),
        (Fault::Broken, "transactions_not_done", false),
        (Fault::Lost, "transactions_unknown", false),
        (Fault::Done, "transactions_unknown", false),
    ] {
        let (ledger, world, pairing) = set_up();
        let (gate, now) = (&world.gate, world.now);
        assert!(gate.health(now).is_healthy());
        ledger.fail_nth(commit, fault);
        let revoke = || gate.revoke_credential(&pairing.credential, now).unwrap_err();
        assert_eq!(counted(gate, revoke).1, format!("revocations_failed 1, {counter} 1"), "{fault:?}");
        assert_eq!(gate.health(now).revocations_unwritten, 1, "{fault:?}");
        if usable {
            assert_eq!(problems(gate, now), ["revocations_unwritten"], "{fault:?}");
            gate.settle(now).unwrap();
        } else {
            let found = ["ledger_failed", "revocations_unwritten", "streams_paused"];
            assert_eq!(problems(gate, now), found, "{fault:?}");
            assert_eq!(counted(gate, || gate.settle(now).unwrap_err()).1, "settlings_failed 1");
            let opened = ledger.opened_again();
            assert_eq!(counted(gate, || gate.reopen(opened, now).unwrap()).1, "reopenings 1");
        }
        assert_eq!(problems(gate, now), [""; 0], "{fault:?}");
    }
}

#[test]
fn a_gate_that_nobody_settles_is_not_healthy_after_five_seconds() {
    let mut world = World::new();
    let ago = |world: &World| world.gate.health(world.now).settled_ago;
    assert_eq!(ago(&world), Time::ZERO);
    world.pass_unsettled(4);
    assert_eq!((ago(&world), problems(&world.gate, world.now)), (Time::from_secs(4), vec![]));
    world.pass_unsettled(1);
    assert_eq!(problems(&world.gate, world.now), ["streams_paused", "not_settled"]);
    world.gate.settle(world.now).unwrap();
    assert_eq!((ago(&world), problems(&world.gate, world.now)), (Time::ZERO, vec![]));
    assert_eq!(world.gate.health(at(START, 0)).settled_ago, Time::ZERO, "a clock that went back");
}

#[test]
fn streams_that_the_context_pauses_are_reported_until_they_go_on() {
    let mut world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let _joined = world.join(&pairing.link, &phone(2)).unwrap();
    world.context.0.lock().unwrap().unknown.insert(session(SESSION));
    world.pass(1);
    world.pass(29);
    assert!(world.gate.health(world.now).is_healthy());
    world.pass(1);
    assert_eq!(problems(&world.gate, world.now), ["context_unknown"]);
    assert_eq!(world.gate.health(world.now).credentials_paused, 1);
    world.context.0.lock().unwrap().unknown.clear();
    world.pass(1);
    assert!(world.gate.health(world.now).is_healthy());
}

/// A sink that keeps nothing while it is told so.
#[derive(Clone, Default)]
struct Sink(Arc<AtomicBool>);

impl AuditSink for Sink {
    fn record(&self, _: &AuditRecord) -> Result<(), NotKept> {
        if self.0.load(Ordering::SeqCst) { Err(NotKept) } else { Ok(()) }
    }
}

#[test]
fn audit_records_that_wait_or_are_dropped_are_reported() {
    let sink = Sink::default();
    let world = World::with(MemoryLedger::new(), |config| config.with_audit(sink.clone()));
    let desktop = world.desktop(9);
    assert_eq!(world.gate.health(world.now).audit_waiting, 0);
    sink.0.store(true, Ordering::SeqCst);
    let pairing = desktop.share(&world, &terms());
    let _ = world.gate.revoke_ticket(&pairing.ticket, world.now).unwrap();
    assert_eq!(world.gate.health(world.now).audit_waiting, 2);
    assert_eq!(problems(&world.gate, world.now), ["audit_waiting"]);
    while world.gate.health(world.now).audit_waiting < Gate::MAX_AUDIT_WAITING as u64 {
        let _ = desktop
            .register(&world)
            .and_then(|()| world.gate.revoke_issuer(&desktop.issuer.public(), world.now));
    }
    let dropped = world.gate.stats().audit_dropped;
    let _ = world.desktop(8);
    assert_eq!(world.gate.stats().audit_dropped, dropped + 1);
    sink.0.store(false, Ordering::SeqCst);
    world.gate.settle(world.now).unwrap();
    assert_eq!(world.gate.health(world.now).audit_waiting, 0);
    assert!(world.gate.health(world.now).is_healthy());
}

#[test]
fn a_closed_gate_has_no_connections_left_and_one_that_is_shut_says_so() {
    let ledger = Arc::new(MemoryLedger::new());
    let first = World::on(Arc::clone(&ledger));
    let pairing = first.desktop(9).share(&first, &terms());
    let joined = first.join(&pairing.link, &phone(2)).unwrap();
    let _second = World::on(ledger);
    let _ = first.gate.settle(first.now);
    assert_eq!(problems(&first.gate, first.now), ["shut"]);
    assert_eq!(first.gate.stats().connections, 1, "cut, and not dropped yet");
    drop(joined);
    assert_eq!(first.gate.stats().connections, 0);
}

/// Times are those of the timer, and without one there are none.
#[test]
fn times_are_measured_by_the_timer_alone() {
    let story = |world: &World| {
        let pairing = world.desktop(9).share(world, &terms());
        let joined = world.join(&pairing.link, &phone(2)).unwrap();
        assert!(matches!(world.admit(&phone(3), b"hello"), PeerAdmission::PassThrough));
        world.gate.settle(world.now).unwrap();
        world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
        drop(joined);
        world.gate.stats()
    };
    let stats = story(&World::new());
    let times = |stats: &Stats| {
        [&stats.admit_time, &stats.revoke_time, &stats.settle_time, &stats.transaction_time]
            .map(Histogram::count)
    };
    assert_eq!(times(&stats), [0; 4]);
    // Each reading of the timer is a millisecond after the one before.
    let ticks = Arc::new(AtomicU64::new(0));
    let timer = Arc::clone(&ticks);
    let world = World::with(MemoryLedger::new(), |config| {
        config.with_timer(move || Time::from_millis(timer.fetch_add(1, Ordering::SeqCst)))
    });
    let stats = story(&world);
    assert_eq!(times(&stats), [1, 1, 1, stats.transactions_done]);
    assert_eq!(stats.transaction_time.total(), Time::from_millis(stats.transactions_done));
    // An admission, a revocation and a settling each contain transactions.
    for time in [&stats.admit_time, &stats.revoke_time, &stats.settle_time] {
        let total = time.total().as_millis();
        assert!(total >= 3 && total % 2 == 1, "{time:?}");
    }
    let sum: u64 = stats.admit_time.buckets().map(|(_, count)| count).sum();
    assert_eq!(sum, 1);
}

/// A sink, a waker and a permit run where the gate holds something; watching is possible in each.
#[test]
fn a_gate_can_be_watched_from_inside_a_permit_and_a_sink() {
    let seen = Arc::new(Mutex::new(None::<Gate>));
    let watched = Arc::new(AtomicU64::new(0));
    let (gate, count) = (Arc::clone(&seen), Arc::clone(&watched));
    let world = World::with(MemoryLedger::new(), move |config| {
        config.with_audit_fn(move |_| {
            if let Some(gate) = &*gate.lock().unwrap() {
                assert!(gate.health(at(START, 1_000)).ledger_usable);
                count.fetch_add(gate.stats().transactions_done, Ordering::SeqCst);
            }
        })
    });
    *seen.lock().unwrap() = Some(world.gate.clone());
    let pairing = world.desktop(9).share(&world, &terms());
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    assert!(watched.load(Ordering::SeqCst) > 0);
    let connections = joined.guard.ask(Op::SendInput, world.now, || world.gate.stats().connections);
    assert_eq!(connections, Ok(1));
    seen.lock().unwrap().take();
}

/// Names of counters, and of reasons, are all the text that there is.
#[test]
fn stats_and_health_hold_numbers_and_fixed_words_alone() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms().with_label(text("kitchen")));
    let _joined = world.join(&pairing.link, &phone(2)).unwrap();
    let mut values = vec![
        serde_json::to_value(world.gate.stats()).unwrap(),
        serde_json::to_value(world.gate.health(world.now)).unwrap(),
    ];
    let mut names = 0;
    while let Some(value) = values.pop() {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    names += 1;
                    assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
                    values.push(value);
                }
            }
            serde_json::Value::Array(items) => values.extend(items),
            serde_json::Value::Number(_) | serde_json::Value::Bool(_) => {}
            other => panic!("{other}"),
        }
    }
    assert!(names > 90, "{names}");
}
