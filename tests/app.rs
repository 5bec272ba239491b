//! A phone app's connection against a real gate: it joins, waits, stores, follows, comes back, and knows when to stop.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod app_scene;
mod common;

use core::time::Duration;

use app_scene::{Keychain, Scene, label};
use common::*;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sessioncap::app::*;
use sessioncap::desktop::Confirmation;
use sessioncap::phone::PhoneError;
use sessioncap::session::*;
use sessioncap::*;

fn confirmed() -> sessioncap::desktop::PairingTerms {
    terms().with_confirmation(Confirmation::Required)
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(7)
}

fn url(text: &str) -> AgentUrl {
    AgentUrl::parse(text).unwrap()
}

// --- before anything is sent ---

#[test]
fn nothing_is_opened_before_the_key_is_stored() {
    let mut scene = Scene::new();
    scene.keychain = Keychain::Refuses;
    scene.tell(Input::Start);
    assert_eq!((scene.opened.len(), scene.error()), (0, Some(AppError::NotStored)));
    scene.keychain = Keychain::Waits;
    scene.wait();
    assert_eq!((scene.opened.len(), scene.phone.state()), (0, &State::Storing));
    scene.keychain = Keychain::Stores;
    scene.answer_store(Keychain::Stores);
    scene.work();
    assert_eq!(scene.phone.state().code(), "live");
    assert_eq!(scene.states(), ["storing", "retrying", "storing", "connecting", "storing", "live"]);
}

#[test]
fn a_preview_names_host_and_key_and_whether_the_phone_knows_them() {
    let scene = Scene::live();
    let link = &scene.pairing.link;
    let mut pairings = Pairings::new();
    let preview = Preview::new(link.clone(), &pairings);
    assert_eq!((preview.host().as_str(), preview.known()), ("agent.example", Known::Nothing));
    assert_eq!(preview.fingerprint().replace(' ', ""), link.agent().to_string());
    assert_eq!(preview.fingerprint().split(' ').count(), 8);
    pairings.put(scene.phone.stored().clone()).unwrap();
    assert_eq!(Preview::new(link.clone(), &pairings).known(), Known::Link);
    let another = TicketSecret::from_bytes([3; 16]);
    let same_agent = Link::new(url("wss://elsewhere.example"), *link.agent(), another.clone());
    assert_eq!(Preview::new(same_agent, &pairings).known(), Known::Agent);
    let other = AgentSecretKey::from_bytes([2; 32]).public();
    let same_host = Link::new(url("wss://agent.example:8443/x"), other, another);
    assert_eq!(Preview::new(same_host, &pairings).known(), Known::HostOfAnother);
}

#[test]
fn a_link_that_is_delivered_twice_is_redeemed_once() {
    let mut scene = Scene::live();
    let mut pairings = Pairings::new();
    pairings.put(scene.phone.stored().clone()).unwrap();
    let again = Preview::new(scene.pairing.link.clone(), &pairings).accept(label(), &mut rng());
    assert_eq!(again.stored(), scene.phone.stored());
    scene.tell(Input::Leave);
    scene.phone = Connection::join(again);
    scene.tell(Input::Start);
    assert_eq!(scene.phone.state().code(), "live");
    assert_eq!(scene.world.list().len(), 1);
    let contested = |event: &sessioncap::agent::AuditEvent| format!("{event:?}").contains("Contest");
    assert!(!scene.world.events().iter().any(contested));
}

#[test]
fn an_app_that_ends_while_it_joins_goes_on_with_the_same_key() {
    let mut scene = Scene::with(&confirmed());
    scene.tell(Input::Start);
    let State::Waiting { code, .. } = scene.phone.state().clone() else { panic!() };
    let key = scene.phone.stored().holder().public();
    scene.restart();
    let State::Waiting { code: again, .. } = scene.phone.state().clone() else { panic!() };
    assert_eq!((code, key), (again, scene.phone.stored().holder().public()));
    scene.world.gate.confirm(&scene.desktop.device, &scene.pairing.ticket, &key, scene.world.now).unwrap();
    scene.wait();
    assert_eq!(scene.phone.state().code(), "live");
    assert!(Stored::from_bytes(scene.kept.as_ref().unwrap()).unwrap().credential().is_some());
}

// --- credentials are stored before they are used ---

#[test]
fn the_first_frame_waits_until_the_credential_is_stored() {
    let mut scene = Scene::new();
    // The key first.
    scene.keychain = Keychain::Waits;
    scene.tell(Input::Start);
    scene.answer_store(Keychain::Stores);
    scene.work();
    assert_eq!((scene.phone.state(), scene.activations), (&State::Storing, 0));
    scene.pass(2);
    assert_eq!((scene.phone.state(), scene.activations), (&State::Storing, 0));
    scene.answer_store(Keychain::Stores);
    scene.work();
    assert_eq!((scene.phone.state().code(), scene.activations), ("live", 1));
}

#[test]
fn a_keychain_that_answers_after_the_agent_has_gone_loses_no_credential() {
    let mut scene = Scene::new();
    scene.keychain = Keychain::Waits;
    scene.tell(Input::Start);
    scene.answer_store(Keychain::Stores);
    scene.work();
    scene.break_off(Some(1008));
    assert_eq!(scene.phone.state(), &State::Storing);
    scene.keychain = Keychain::Stores;
    scene.answer_store(Keychain::Stores);
    scene.work();
    assert_eq!(scene.error(), Some(AppError::Lost));
    scene.wait();
    assert_eq!(scene.phone.state().code(), "live");
}

#[test]
fn a_renewed_credential_is_stored_before_the_first_frame_and_used_after() {
    let mut scene = Scene::live();
    let first = scene.phone.stored().credential().cloned();
    scene.break_off(None);
    let fewer = OpSet::only(Op::StreamOutput);
    scene.desktop.renew(&scene.world, &scene.pairing, fewer, 86_400).unwrap();
    scene.keychain = Keychain::Refuses;
    scene.wait();
    assert_eq!((scene.error(), scene.activations), (Some(AppError::NotStored), 1));
    assert_eq!(Stored::from_bytes(scene.kept.as_ref().unwrap()).unwrap().credential(), first.as_ref());
    scene.keychain = Keychain::Stores;
    scene.wait();
    let State::Live { ops, seconds_left, .. } = scene.phone.state() else { panic!() };
    assert_eq!((*ops, *seconds_left > 80_000), (fewer, true));
    assert_ne!(scene.phone.stored().credential(), first.as_ref());
    assert_eq!(scene.phone.stored().access().unwrap().ops, fewer);
}

// --- in the session ---

#[test]
fn output_goes_on_after_a_lost_connection_and_nothing_is_shown_twice() {
    let mut scene = Scene::live();
    scene.output(b"one ");
    scene.break_off(None);
    scene.wait();
    scene.output(b"two ");
    scene.break_off(None);
    // What came meanwhile is told by a new screen.
    scene.position += 5;
    scene.wait();
    scene.output(b"three");
    assert_eq!(scene.shown(), "one two three");
    let screens = |output: &Output| match output {
        Output::Screen { missing, .. } => Some(*missing),
        _ => None,
    };
    assert_eq!(scene.log.iter().filter_map(screens).collect::<Vec<_>>(), [None, Some(5)]);
}

#[test]
fn what_was_typed_is_taken_refused_or_unknown_and_each_is_told_once() {
    let mut scene = Scene::live();
    scene.tell(Input::Line { id: 1, text: "ls" });
    scene.takes = false;
    scene.tell(Input::Type { id: 2, bytes: b"x" });
    scene.tell(Input::Type { id: 3, bytes: b"" });
    scene.tell(Input::Type { id: 4, bytes: &[b'x'; 65_536] });
    scene.break_off(None);
    scene.tell(Input::Type { id: 5, bytes: b"y" });
    let too_much = Fate::NotTaken(NotTaken::TooMuch);
    assert_eq!(
        scene.fates(),
        [(1, Fate::Taken), (3, Fate::NotSent), (4, too_much), (2, Fate::Unknown), (5, Fate::NotSent)]
    );
    assert_eq!(FromPhone::from_bytes(&scene.received[1]), Ok(FromPhone::Input(b"ls\r")));
    let before = scene.received.len();
    scene.wait();
    let sent: Vec<_> = scene.received[before..].iter().map(|m| FromPhone::from_bytes(m).unwrap()).collect();
    assert!(matches!(sent[..], [FromPhone::Follow(Some(_))]), "nothing is typed again: {sent:?}");
}

#[test]
fn a_key_with_its_modifiers_is_one_message_of_one_frame() {
    let mut scene = Scene::live();
    let (sent, received) = (scene.sent, scene.received.len());
    let keys =
        ["ctrl+c", "alt+x", "ctrl+alt+shift+left", "f12", "é"].map(|key| key.parse::<KeyPress>().unwrap());
    for (id, key) in (1..).zip(keys) {
        scene.tell(Input::Key { id, key, application: false });
    }
    scene.tell(Input::Key { id: 6, key: "up".parse().unwrap(), application: true });
    assert_eq!(scene.sent - sent, 6);
    let typed: Vec<_> =
        scene.received[received..].iter().map(|m| FromPhone::from_bytes(m).unwrap()).collect();
    let expected = [&b"\x03"[..], b"\x1bx", b"\x1b[1;8D", b"\x1b[24~", "é".as_bytes(), b"\x1bOA"];
    assert_eq!(typed, expected.map(FromPhone::Input));
    assert_eq!(scene.fates(), [1, 2, 3, 4, 5, 6].map(|id| (id, Fate::Taken)));
}

#[test]
fn an_app_that_kept_its_resume_point_goes_on_after_it() {
    let mut scene = Scene::live();
    scene.output(b"before");
    let point = scene.phone.shown().unwrap().to_bytes();
    scene.tell(Input::Leave);
    let stored = Stored::from_bytes(scene.kept.as_ref().unwrap()).unwrap();
    scene.phone = Connection::reopen(stored).resume_after(Some(ResumePoint::from_bytes(&point).unwrap()));
    let screens =
        |scene: &Scene| scene.log.iter().filter(|output| matches!(output, Output::Screen { .. })).count();
    let before = screens(&scene);
    scene.tell(Input::Start);
    scene.output(b" after");
    assert_eq!((scene.shown().as_str(), screens(&scene)), ("before after", before));
    for wrong in [&point[..23], &[point.as_slice(), &[0]].concat(), &[0; 24]] {
        assert_eq!(ResumePoint::from_bytes(wrong), Err(Error::MessageMalformed));
    }
}

#[test]
fn of_a_thousand_sizes_the_last_one_wins_and_a_new_connection_is_told_it_once() {
    let mut scene = Scene::live_with(&terms().with_ops(OpSet::COMPANION.with(Op::Resize)).unwrap());
    for side in (1..=1_000).chain([999, 999, 999]) {
        scene.tell(Input::Resize { columns: side, rows: side });
    }
    let sizes = |received: &[Vec<u8>]| {
        let sides = received.iter().filter_map(|message| match FromPhone::from_bytes(message) {
            Ok(FromPhone::Resize { columns, .. }) => Some(columns),
            _ => None,
        });
        sides.collect::<Vec<_>>()
    };
    let told = sizes(&scene.received);
    assert_eq!((told.len(), told.last()), (1_001, Some(&999)));
    let before = scene.received.len();
    scene.break_off(None);
    scene.tell(Input::Resize { columns: 80, rows: 80 });
    scene.tell(Input::Resize { columns: 81, rows: 81 });
    scene.wait();
    assert_eq!(sizes(&scene.received[before..]), [81]);
}

#[test]
fn a_phone_that_may_only_watch_is_told_that_its_input_is_refused() {
    let mut scene = Scene::live_with(&terms().with_ops(OpSet::only(Op::StreamOutput)).unwrap());
    scene.tell(Input::Line { id: 1, text: "ls" });
    let [(1, Fate::Refused(notice))] = scene.fates()[..] else { panic!("{:?}", scene.fates()) };
    assert_eq!((notice.code, notice.detail), (Notice::NOT_GRANTED, 2));
    assert_eq!(scene.phone.state().code(), "live");
}

#[test]
fn a_request_is_answered_under_the_apps_own_number() {
    let mut scene = Scene::live();
    scene.tell(Input::Request { id: 77, json: r#"{"method":"shell.list_sessions"}"# });
    let answered = Output::Answered { id: 77, json: r#"{"ok":true}"#.to_owned() };
    assert!(scene.log.contains(&answered));
    scene.tell(Input::Request { id: 78, json: "no json" });
    assert!(scene.log.contains(&Output::NotAnswered { id: 78, fate: Fate::NotSent }));
}

#[test]
fn a_revoked_phone_stops_and_is_told_to_forget() {
    let mut scene = Scene::live();
    scene.world.gate.revoke_credential(&scene.pairing.credential, scene.world.now).unwrap();
    scene.end(EndCode::from(Status::Revoked));
    let error = scene.error().unwrap();
    assert_eq!((error.code(), error.advice()), ("revoked", Advice::Forget));
    assert_eq!((scene.phone.state().code(), scene.phone.wait_until()), ("stopped", None));
    let opened = scene.opened.len();
    scene.tell(Input::Start);
    scene.tell(Input::NetworkChanged);
    assert_eq!(scene.opened.len(), opened, "a revoked phone does not ask again");
    assert!(scene.kept.is_some(), "only the person forgets");
}

#[test]
fn a_message_that_is_none_ends_the_connection_with_the_protocols_code() {
    let mut scene = Scene::live();
    scene.say(Op::StreamOutput, &[0, b'x']);
    scene.work();
    let error = scene.error().unwrap();
    assert_eq!((error.code(), error.advice()), ("protocol", Advice::Update));
    assert_eq!(scene.phone.wait_until(), None);
}

// --- what proves nothing is tried again ---

#[test]
fn everything_before_proof_is_tried_again_with_growing_pauses() {
    let mut scene = Scene::live();
    scene.break_off(None);
    scene.reachable = false;
    let mut pauses = Vec::new();
    for _ in 0..12 {
        assert_eq!(scene.phone.state().code(), "retrying");
        pauses.push(scene.wait());
    }
    let most = |bound: u64| Duration::from_millis(bound * 3 / 2);
    assert!(pauses[0] <= most(250) && pauses[1] <= most(500), "{pauses:?}");
    let slow = Duration::from_millis(7_500);
    assert!(pauses[8..].iter().all(|pause| (slow..=most(15_000)).contains(pause)), "{pauses:?}");
    scene.reachable = true;
    scene.tell(Input::NetworkChanged);
    assert_eq!(scene.phone.state().code(), "live");
}

#[test]
fn the_pauses_begin_anew_only_after_a_connection_that_lasted() {
    let mut scene = Scene::live();
    let mut pauses = Vec::new();
    for _ in 0..9 {
        scene.break_off(None);
        pauses.push(scene.wait());
        assert_eq!(scene.phone.state().code(), "live");
    }
    assert!(pauses[8] >= Duration::from_millis(7_500), "an agent that falls over is left alone: {pauses:?}");
    scene.pass(11);
    scene.break_off(None);
    assert!(scene.wait() <= Duration::from_millis(375));
}

#[test]
fn an_agent_that_does_not_know_the_phone_is_asked_a_few_times_and_then_the_person() {
    let mut scene = Scene::live();
    scene.break_off(None);
    // Another agent has the address: message 1 is not for it.
    scene.world.agent = AgentSecretKey::from_bytes([5; 32]);
    let opened = scene.opened.len();
    while scene.phone.wait_until().is_some() {
        scene.wait();
    }
    assert_eq!(scene.opened.len() - opened, 5);
    let error = scene.error().unwrap();
    assert_eq!(error, AppError::Attach(PhoneError::NoAnswer));
    assert_eq!((error.code(), error.advice()), ("no_answer", Advice::AskAgain));
    scene.world.agent = AgentSecretKey::from_bytes([1; 32]);
    scene.tell(Input::Start);
    assert_eq!(scene.phone.state().code(), "live");
}

#[test]
fn an_agent_that_asks_for_patience_gets_it() {
    for code in [1012, 1013] {
        let mut scene = Scene::live();
        scene.break_off(Some(code));
        assert_eq!(scene.error(), Some(AppError::TryLater));
        assert!(scene.wait() >= Duration::from_millis(7_500));
    }
}

#[test]
fn five_hundred_phones_that_are_cut_off_together_do_not_come_back_together() {
    let mut buckets = std::collections::BTreeMap::<u128, usize>::new();
    let scene = Scene::live();
    for seed in 0..500 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut phone = Connection::reopen(scene.phone.stored().clone());
        let start = Duration::from_secs(1);
        phone.handle(Input::Start, start, &mut rng);
        phone.handle(Input::Closed { attempt: 1, code: Some(1012) }, start, &mut rng);
        *buckets.entry((phone.wait_until().unwrap() - start).as_millis() / 500).or_default() += 1;
    }
    assert!(buckets.len() >= 28 && buckets.values().all(|phones| *phones <= 40), "{buckets:?}");
}

/// The agent is away, from the first second on, for five minutes. The clock is the test's.
#[test]
fn five_hundred_phones_whose_agent_is_away_never_try_together() {
    const AWAY: u64 = 300;
    let stored = Scene::live().phone.stored().clone();
    let (mut tries, mut back) = (vec![0_usize; 400], Vec::new());
    let mut first = std::collections::BTreeMap::<u128, usize>::new();
    for seed in 0..500 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut phone = Connection::reopen(stored.clone());
        let mut now = Duration::ZERO;
        phone.handle(Input::Start, now, &mut rng);
        let mut attempts = 0;
        while now.as_secs() < AWAY {
            let outputs: Vec<Output> = core::iter::from_fn(|| phone.next_output()).collect();
            let opens = outputs.iter().find_map(|output| match output {
                Output::Open { attempt, .. } => Some(*attempt),
                _ => None,
            });
            let attempt = opens.expect("it tries");
            attempts += 1;
            phone.handle(Input::Closed { attempt, code: None }, now, &mut rng);
            now = phone.wait_until().expect("it tries again");
            if attempts == 1 {
                *first.entry(now.as_millis() / 25).or_default() += 1;
            }
            tries[usize::try_from(now.as_secs()).unwrap()] += 1;
            phone.handle(Input::Time, now, &mut rng);
        }
        back.push(now);
        assert!((20..=45).contains(&attempts), "{attempts}");
    }
    // 250 ms, more or less by half: ten parts of 25 ms, with 50 phones each.
    assert!(first.len() >= 10 && first.values().all(|phones| *phones <= 80), "{first:?}");
    // From the first minute on a try each 15 seconds, more or less by half: 33 phones in a second.
    let steady = &tries[60..300];
    assert!(steady.iter().all(|phones| (12..=60).contains(phones)), "{steady:?}");
    // All are back within the longest pause, and no second gets a crowd.
    assert!(back.iter().all(|back| back.as_secs_f64() < 300.0 + 22.5));
    assert!(tries[300..].iter().all(|phones| *phones <= 60), "{:?}", &tries[300..]);
}

#[test]
fn what_answers_in_the_agents_place_proves_nothing() {
    // A redirect, a page and a TLS alert open no WebSocket. What opens one may say anything on it.
    type Portal = (&'static str, bool, Option<&'static [u8]>, Option<u16>);
    let page = b"<html><form action=/login>".as_slice();
    let portals: [Portal; 7] = [
        ("no WebSocket", false, None, None),
        ("a close for a broken protocol", false, None, Some(1002)),
        ("a page", true, Some(page), None),
        ("nothing", true, Some(b""), None),
        ("as much as an answer", true, Some(&[0; 208]), None),
        ("a close in the agent's manner", true, None, Some(1008)),
        ("a close in an end's manner", true, None, Some(1000)),
    ];
    for is_joining in [true, false] {
        for (name, opens, message, code) in portals {
            let mut scene = Scene::new();
            if !is_joining {
                scene.tell(Input::Start);
                scene.tell(Input::Leave);
            }
            scene.frozen = true;
            scene.tell(Input::Start);
            let before = scene.phone.stored().clone();
            let attempt = u32::try_from(scene.opened.len()).unwrap();
            if opens {
                scene.tell(Input::Opened { attempt });
            }
            if let Some(bytes) = message {
                scene.tell(Input::Message { attempt, bytes });
            }
            scene.tell(Input::Closed { attempt, code });
            let error = scene.error().unwrap();
            assert_eq!(
                (scene.phone.state().code(), error.advice()),
                ("retrying", Advice::AskAgain),
                "{name}"
            );
            assert_eq!(scene.phone.stored(), &before, "{name}");
            scene.break_off(None);
            scene.frozen = false;
            scene.tell(Input::NetworkChanged);
            assert_eq!(scene.phone.state().code(), "live", "{name}");
        }
    }
}

#[test]
fn other_addresses_are_tried_at_once_and_the_one_that_worked_comes_first() {
    let mut scene = Scene::live();
    scene.tell(Input::Leave);
    let mut stored = scene.phone.stored().clone();
    assert!(stored.add_address(url("wss://second.example")));
    scene.phone = Connection::reopen(stored);
    scene.opened.clear();
    scene.reachable = false;
    scene.tell(Input::Start);
    assert_eq!(scene.opened, [url("wss://agent.example"), url("wss://second.example")]);
    // The first still leads nowhere.
    scene.phone.handle(Input::Start, scene.time, &mut scene.rng);
    let Some(Output::Open { attempt, .. }) = scene.phone.next_output() else { panic!() };
    scene.phone.handle(Input::Closed { attempt, code: None }, scene.time, &mut scene.rng);
    scene.reachable = true;
    scene.work();
    assert_eq!(scene.phone.state().code(), "live");
    let kept = Stored::from_bytes(scene.kept.as_ref().unwrap()).unwrap();
    assert_eq!(kept.addresses(), [url("wss://second.example"), url("wss://agent.example")]);
}

#[test]
fn an_address_that_is_added_is_stored_while_the_connection_goes_on() {
    let mut scene = Scene::live();
    let second = url("wss://second.example");
    assert!(scene.phone.add_address(second.clone()) && scene.phone.add_address(second.clone()));
    scene.work();
    scene.output(b"text");
    assert_eq!((scene.phone.state().code(), scene.shown().as_str()), ("live", "text"));
    let kept = |scene: &Scene| Stored::from_bytes(scene.kept.as_ref().unwrap()).unwrap().addresses().to_vec();
    assert_eq!(kept(&scene), [url("wss://agent.example"), second.clone()]);
    // One that could not be stored is stored before the next attempt.
    scene.keychain = Keychain::Refuses;
    let third = url("wss://third.example");
    assert!(scene.phone.add_address(third.clone()));
    scene.work();
    assert_eq!((scene.phone.state().code(), kept(&scene).len()), ("live", 2));
    scene.keychain = Keychain::Stores;
    scene.break_off(None);
    scene.wait();
    assert_eq!((scene.phone.state().code(), kept(&scene).len()), ("live", 3));
    for number in 0..20 {
        scene.phone.add_address(url(&format!("wss://host{number}.example")));
        scene.work();
    }
    assert_eq!(kept(&scene).len(), Stored::MAX_ADDRESSES);
}

#[test]
fn what_was_changed_while_the_keychain_was_asked_is_stored_before_anything_goes_on() {
    let mut scene = Scene::new();
    scene.keychain = Keychain::Waits;
    scene.tell(Input::Start);
    assert!(scene.phone.add_address(url("wss://second.example")));
    scene.work();
    scene.answer_store(Keychain::Stores);
    scene.work();
    assert_eq!((scene.phone.state(), scene.opened.len()), (&State::Storing, 0));
    scene.answer_store(Keychain::Stores);
    scene.work();
    assert_eq!(scene.opened.len(), 1);
    let kept = Stored::from_bytes(scene.kept.as_ref().unwrap()).unwrap();
    assert_eq!(kept.addresses().len(), 2);
    // A credential too: the first frame waits for it, whatever was stored meanwhile.
    assert_eq!((scene.phone.state(), scene.activations), (&State::Storing, 0));
    assert!(scene.phone.add_address(url("wss://third.example")));
    scene.answer_store(Keychain::Stores);
    scene.work();
    assert_eq!((scene.phone.state(), scene.activations), (&State::Storing, 0));
    scene.answer_store(Keychain::Stores);
    scene.work();
    assert_eq!((scene.phone.state().code(), scene.activations), ("live", 1));
}

#[test]
fn the_first_refusal_of_the_system_is_free_and_the_second_asks_the_person() {
    let mut scene = Scene::live();
    scene.tell(Input::Leave);
    let refuse = |scene: &mut Scene| {
        let Some(Output::Open { attempt, .. }) = scene.phone.next_output() else { panic!() };
        scene.phone.handle(Input::PermissionDenied { attempt }, scene.time, &mut scene.rng);
        while scene.phone.next_output().is_some() {}
    };
    scene.phone.handle(Input::Start, scene.time, &mut scene.rng);
    refuse(&mut scene);
    assert_eq!(scene.phone.state().code(), "retrying");
    scene.phone.handle(Input::Start, scene.time, &mut scene.rng);
    refuse(&mut scene);
    let error = scene.error().unwrap();
    assert_eq!((error.code(), scene.phone.state().code()), ("not_permitted", "stopped"));
    scene.tell(Input::Start);
    assert_eq!(scene.phone.state().code(), "live");
}

#[test]
fn a_link_is_tried_for_twenty_five_minutes_at_most() {
    let mut scene = Scene::new();
    scene.reachable = false;
    scene.tell(Input::Start);
    let begun = scene.time;
    while scene.phone.wait_until().is_some() {
        scene.wait();
    }
    assert_eq!(scene.error(), Some(AppError::JoinTimedOut));
    let took = scene.time - begun;
    assert!((Connection::LONGEST_JOIN..Connection::LONGEST_JOIN + Duration::from_secs(23)).contains(&took));
}

// --- sockets that die silently ---

#[test]
fn a_return_to_the_foreground_asks_at_once_whether_the_connection_lives() {
    let mut scene = Scene::live();
    scene.tell(Input::Suspended);
    assert_eq!(scene.phone.wait_until(), None, "no ping from the background");
    // An hour later; the agent has long closed its side, and nobody told the phone.
    scene.time += Duration::from_secs(3_600);
    scene.phone.handle(Input::Resumed, scene.time, &mut scene.rng);
    let Some(Output::Send { .. }) = scene.phone.next_output() else { panic!("a ping") };
    assert_eq!(scene.phone.next_output(), None);
    for _ in 0..9 {
        scene.time += Duration::from_secs(1);
        scene.phone.handle(Input::Time, scene.time, &mut scene.rng);
    }
    assert_eq!(scene.phone.state().code(), "live");
    scene.time += Duration::from_secs(1);
    scene.tell(Input::Time);
    assert_eq!(scene.error(), Some(AppError::Lost));
    scene.wait();
    assert_eq!(scene.phone.state().code(), "live");
}

#[test]
fn a_frozen_connection_is_given_up_and_leaves_nothing_behind() {
    // What tells the app, and how long it then takes.
    for (hint, patience) in [(None, 25), (Some(Input::Resumed), 10), (Some(Input::NetworkChanged), 10)] {
        let mut scene = Scene::live();
        scene.frozen = true;
        scene.output(b"kept back by the network");
        scene.tell(Input::Type { id: 1, bytes: b"x" });
        if let Some(hint) = hint {
            let sent = scene.sent;
            scene.tell(hint);
            assert_eq!(scene.sent, sent + 1, "asked at once: {hint:?}");
        }
        scene.pass(patience - 1);
        assert_eq!(scene.phone.state().code(), "live", "{hint:?}");
        scene.pass(1);
        assert_eq!((scene.error(), scene.fates()), (Some(AppError::Lost), vec![(1, Fate::Unknown)]));
        // The scene itself checks that no attempt begins before the socket of the one before is closed.
        let opened = scene.opened.len();
        scene.pass(90);
        assert!(scene.opened.len() >= opened + 2, "it tries on");
        assert_ne!(scene.phone.state().code(), "live");
        scene.thaw();
        assert_ne!(scene.phone.state().code(), "live", "what comes late is of a socket that was given up");
        while scene.phone.state().code() != "live" {
            scene.wait();
        }
        assert_eq!(scene.shown(), "", "what was kept back is on the new screen, once");
        let screens = |output: &Output| match output {
            Output::Screen { missing, .. } => Some(*missing),
            _ => None,
        };
        assert_eq!(scene.log.iter().filter_map(screens).collect::<Vec<_>>(), [None, Some(24)]);
        let closed = scene.log.iter().filter(|output| matches!(output, Output::Close { .. })).count();
        assert_eq!(closed, scene.opened.len() - 1, "each socket but the last was closed");
    }
}

#[test]
fn a_hint_that_comes_twice_asks_and_opens_once_more_at_most() {
    let mut scene = Scene::live();
    scene.break_off(None);
    scene.reachable = false;
    let opened = scene.opened.len();
    scene.frozen = true;
    scene.tell(Input::NetworkChanged);
    scene.tell(Input::NetworkChanged);
    scene.tell(Input::Resumed);
    assert_eq!(scene.opened.len(), opened + 1, "one attempt at a time");
}

#[test]
fn a_silent_connection_is_pinged_and_an_answer_keeps_it() {
    let mut scene = Scene::live();
    scene.pass(120);
    assert_eq!(scene.phone.state().code(), "live");
    let opens = scene.log.iter().filter(|output| matches!(output, Output::Open { .. })).count();
    assert_eq!(opens, 1);
}

#[test]
fn a_socket_that_never_opens_or_answers_is_given_up() {
    let scene = Scene::live();
    let mut rng = rng();
    let mut phone = Connection::reopen(scene.phone.stored().clone());
    phone.handle(Input::Start, Duration::ZERO, &mut rng);
    assert_eq!(phone.wait_until(), Some(Connection::OPEN_PATIENCE));
    phone.handle(Input::Time, Connection::OPEN_PATIENCE, &mut rng);
    assert!(matches!(phone.state(), State::Retrying { error: AppError::Unreachable, .. }));
    let now = Duration::from_secs(100);
    phone.handle(Input::Time, now, &mut rng);
    phone.handle(Input::Opened { attempt: 2 }, now, &mut rng);
    assert_eq!(phone.wait_until(), Some(now + Connection::ANSWER_PATIENCE));
    phone.handle(Input::Time, now + Connection::ANSWER_PATIENCE, &mut rng);
    assert!(matches!(phone.state(), State::Retrying { error: AppError::Lost, .. }));
    let outputs: Vec<Output> = core::iter::from_fn(|| phone.next_output()).collect();
    let closes = outputs.iter().filter(|output| matches!(output, Output::Close { .. })).count();
    assert_eq!(closes, 2, "each socket is closed: {outputs:?}");
}

#[test]
fn late_reports_about_an_earlier_attempt_change_nothing() {
    let mut scene = Scene::live();
    scene.break_off(None);
    scene.wait();
    let state = scene.phone.state().clone();
    scene.tell(Input::Closed { attempt: 1, code: None });
    scene.tell(Input::Message { attempt: 1, bytes: b"x" });
    scene.tell(Input::PermissionDenied { attempt: 1 });
    scene.tell(Input::NotStored { number: 1 });
    assert_eq!(scene.phone.state(), &state);
}

// --- whatever happens ---

#[derive(Debug, Clone)]
enum Happens {
    Start,
    Breaks(Option<u16>),
    Reachable(bool),
    Keychain(u8),
    Passes(u64),
    Waits,
    Suspended,
    Resumed,
    Network,
    Types,
    Asks,
    Writes,
    Garbage(u8),
    Renews(bool),
    Confirms,
    Revokes,
    Ends(u16),
    Leaves,
    Restarts,
    Resizes(u16),
    Refuses,
    Address(u8),
    Key,
}

fn happens() -> impl Strategy<Value = Happens> {
    use Happens::*;
    prop_oneof![
        3 => Just(Start),
        4 => prop_oneof![Just(None), (1000_u16..1016).prop_map(Some)].prop_map(Breaks),
        2 => any::<bool>().prop_map(Reachable),
        3 => (0..3_u8).prop_map(Keychain),
        3 => (1..40_u64).prop_map(Passes),
        6 => Just(Waits),
        1 => Just(Suspended),
        2 => Just(Resumed),
        1 => Just(Network),
        4 => Just(Types),
        2 => Just(Asks),
        3 => Just(Writes),
        1 => any::<u8>().prop_map(Garbage),
        1 => any::<bool>().prop_map(Renews),
        2 => Just(Confirms),
        1 => Just(Revokes),
        1 => prop_oneof![Just(0_u16), Just(32), Just(33), Just(34), Just(64), 2..9_u16].prop_map(Ends),
        1 => Just(Leaves),
        1 => Just(Restarts),
        1 => (0..1_200_u16).prop_map(Resizes),
        1 => Just(Refuses),
        2 => (0..10_u8).prop_map(Address),
        1 => Just(Key),
    ]
}

fn happen(scene: &mut Scene, happens: &Happens, ids: &mut u64) {
    let mut next = || {
        *ids += 1;
        *ids
    };
    match happens {
        Happens::Start => scene.tell(Input::Start),
        Happens::Breaks(code) => scene.break_off(*code),
        Happens::Reachable(reachable) => scene.reachable = *reachable,
        Happens::Keychain(how) => {
            scene.keychain = [Keychain::Stores, Keychain::Refuses, Keychain::Waits][usize::from(*how)];
            scene.answer_store(scene.keychain);
            scene.work();
        }
        Happens::Passes(seconds) => scene.pass(*seconds),
        Happens::Waits => {
            if scene.phone.wait_until().is_some() {
                scene.wait();
            }
        }
        Happens::Suspended => scene.tell(Input::Suspended),
        Happens::Resumed => scene.tell(Input::Resumed),
        Happens::Network => scene.tell(Input::NetworkChanged),
        Happens::Types => scene.tell(Input::Type { id: next(), bytes: b"x" }),
        Happens::Asks => scene.tell(Input::Request { id: next(), json: "{}" }),
        Happens::Writes => scene.output(b"text"),
        Happens::Garbage(byte) => scene.inject(&[*byte; 40]),
        Happens::Renews(narrow) => {
            let ops = if *narrow { OpSet::only(Op::StreamOutput) } else { OpSet::ALL };
            let _ = scene.desktop.renew(&scene.world, &scene.pairing, ops, 3_600);
        }
        Happens::Confirms => {
            let key = scene.phone.stored().holder().public();
            let _ =
                scene.world.gate.confirm(&scene.desktop.device, &scene.pairing.ticket, &key, scene.world.now);
        }
        Happens::Revokes => {
            scene.world.gate.revoke_credential(&scene.pairing.credential, scene.world.now).unwrap();
            scene.end(EndCode::from(Status::Revoked));
        }
        Happens::Ends(code) => scene.end(EndCode::new(*code)),
        Happens::Leaves => scene.tell(Input::Leave),
        Happens::Restarts => {
            if scene.kept.is_some() {
                scene.tell(Input::Leave);
                scene.restart();
            }
        }
        Happens::Resizes(side) => scene.tell(Input::Resize { columns: *side, rows: *side }),
        Happens::Key => {
            scene.tell(Input::Key { id: next(), key: "ctrl+left".parse().unwrap(), application: false });
        }
        Happens::Address(number) => {
            scene.phone.add_address(url(&format!("wss://host{number}.example")));
            scene.work();
        }
        Happens::Refuses => {
            for attempt in 1..40 {
                scene.tell(Input::PermissionDenied { attempt });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The scene itself checks that there is one attempt at a time, one request to store at a time, and that no first
    /// frame leaves before its credential is stored.
    #[test]
    fn whatever_happens_the_phone_keeps_its_rules(
        confirm: bool,
        all in proptest::collection::vec(happens(), 1..60),
    ) {
        let mut scene = Scene::with(&if confirm { confirmed() } else { terms() });
        let key = scene.phone.stored().holder().public();
        let (mut ids, mut is_away) = (0, false);
        for one in &all {
            happen(&mut scene, one, &mut ids);
            match one {
                Happens::Suspended => is_away = true,
                Happens::Resumed => is_away = false,
                // Unless nothing was kept, so that there is nothing to start from.
                Happens::Restarts if scene.kept.is_some() => is_away = false,
                _ => {}
            }
            let state = scene.phone.state().clone();
            // Something is always about to happen, unless somebody else has the next move.
            let waits = scene.phone.wait_until().is_some();
            match state.code() {
                "idle" | "stopped" | "storing" => prop_assert!(!waits, "{state:?}"),
                // Nothing but an attempt under way goes on in the background.
                _ => prop_assert!(waits || is_away, "{state:?}"),
            }
            if let State::Stopped { error } = &state {
                let said = matches!(
                    error,
                    AppError::Attach(_) | AppError::Join(_) | AppError::AgentLeft | AppError::Incompatible
                        | AppError::Protocol(_) | AppError::JoinTimedOut | AppError::NotPermitted
                );
                prop_assert!(said, "{error:?} is final");
            }
            // One key, in memory and in the keychain, and what is kept can be read.
            prop_assert_eq!(scene.phone.stored().holder().public(), key);
            if let Some(kept) = &scene.kept {
                prop_assert_eq!(Stored::from_bytes(kept).unwrap().holder().public(), key);
            } else {
                prop_assert!(scene.opened.is_empty(), "opened before anything was stored");
            }
        }
        scene.tell(Input::Leave);
        let mut told: Vec<u64> = scene.log.iter().filter_map(|output| match output {
            Output::Typed { id, .. } | Output::Answered { id, .. } | Output::NotAnswered { id, .. } => Some(*id),
            _ => None,
        }).collect();
        told.sort_unstable();
        prop_assert_eq!(told, (1..=ids).collect::<Vec<_>>(), "each once");
    }
}

#[test]
fn a_person_who_leaves_while_the_pairing_is_stored_can_come_back_at_once() {
    let mut scene = Scene::new();
    scene.keychain = Keychain::Waits;
    scene.tell(Input::Start);
    scene.tell(Input::Leave);
    scene.tell(Input::Start);
    assert_eq!((scene.phone.state(), scene.opened.len()), (&State::Storing, 0));
    scene.keychain = Keychain::Stores;
    scene.answer_store(Keychain::Stores);
    scene.work();
    assert_eq!(scene.phone.state().code(), "live");
}
