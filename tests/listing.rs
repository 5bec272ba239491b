//! The list of tickets and credentials, page by page, and the outcome of a revocation.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use common::ledger::TestLedger;
use common::*;
use proptest::prelude::*;
use sessioncap::agent::*;
use sessioncap::desktop::*;
use sessioncap::pair::*;
use sessioncap::*;

const STATES: [StateKind; 5] =
    [StateKind::Open, StateKind::Pending, StateKind::Active, StateKind::Revoked, StateKind::Expired];

struct Scene {
    world: World,
    desktops: [Desktop; 2],
    _joined: Vec<Joined>,
}

/// Two desktops, two sessions, everything in every state.
fn scene() -> Scene {
    let quotas = Quotas::default().with_tickets_per_session(16).with_credentials_per_session(16);
    let mut world = World::with(TestLedger::default(), |config| config.with_quotas(quotas));
    let desktops = [world.desktop(9), world.desktop(8)];
    world.start_session("other");
    let mut joined = Vec::new();
    let mut seed = 20;
    for desktop in &desktops {
        for id in [SESSION, "other"] {
            let short = terms().with_ticket_lifetime(30).unwrap();
            desktop.share_session(&world, id, &short);
            world.pass(31);
            let [active, revoked] = [(); 2].map(|()| desktop.share_session(&world, id, &terms()));
            let confirm = terms().with_confirmation(Confirmation::Required);
            let pending = desktop.share_session(&world, id, &confirm);
            desktop.share_session(&world, id, &terms());
            for pairing in [&active, &revoked] {
                seed += 1;
                joined.push(world.join(&pairing.link, &phone(seed)).unwrap());
            }
            seed += 1;
            assert!(world.join(&pending.link, &phone(seed)).is_err());
            world.gate.revoke_credential(&revoked.credential, world.now).unwrap();
        }
    }
    Scene { world, desktops, _joined: joined }
}

fn pages(gate: &Gate, list: &List, now: Now) -> Vec<Page> {
    let (mut list, mut pages) = (list.clone(), Vec::new());
    loop {
        let page = gate.list(&list, now).unwrap();
        let next = page.next;
        pages.push(page);
        match next {
            Some(next) => list = list.after(next),
            None => return pages,
        }
    }
}

fn joined(pages: Vec<Page>) -> Vec<Listing> {
    pages.into_iter().flat_map(|page| page.entries).collect()
}

fn limit(limit: u32) -> NonZeroU32 {
    NonZeroU32::new(limit).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn pages_of_any_size_joined_are_the_whole_list_each_entry_once(
        limits in proptest::collection::vec(1_u32..60, 12),
        filter in 0..36_usize,
    ) {
        let scene = scene();
        let Scene { world, desktops, .. } = &scene;
        let whole = joined(pages(&world.gate, &List::default(), world.now));
        let kinds: BTreeSet<_> = whole.iter().map(|entry| format!("{:?}", entry.state.kind())).collect();
        prop_assert_eq!((whole.len(), kinds.len()), (20, 5));
        for (size, filter) in limits.into_iter().zip((0..36).cycle().skip(filter)) {
            let mut list = List::default();
            let session = [None, Some(SESSION)][filter % 2].map(session);
            let device = [None, Some(desktops[0].device), Some(desktops[1].device)][filter / 2 % 3];
            let state = STATES.get(filter / 6).copied();
            if let Some(session) = &session { list = list.with_session(session.clone()); }
            if let Some(device) = device { list = list.with_device(device); }
            if let Some(state) = state { list = list.with_state(state); }
            let wanted: Vec<_> = whole
                .iter()
                .filter(|entry| session.as_ref().is_none_or(|session| entry.session == *session))
                .filter(|entry| device.is_none_or(|device| entry.device == device))
                .filter(|entry| state.is_none_or(|state| entry.state.kind() == state))
                .cloned()
                .collect();
            let pages = pages(&world.gate, &list.with_limit(limit(size)), world.now);
            prop_assert!(pages.iter().all(|page| page.entries.len() <= size as usize));
            prop_assert_eq!(joined(pages), wanted, "{} at a time", size);
        }
    }
}

#[test]
fn a_page_that_holds_the_last_entry_says_that_there_are_no_more() {
    let scene = scene();
    let page =
        |size| scene.world.gate.list(&List::default().with_limit(limit(size)), scene.world.now).unwrap();
    let whole = page(20);
    assert_eq!((whole.entries.len(), whole.next), (20, None));
    assert!(page(19).next.is_some());
}

#[test]
fn tickets_come_before_credentials_and_both_in_the_order_of_their_ids() {
    let scene = scene();
    let whole = joined(pages(&scene.world.gate, &List::default().with_limit(limit(3)), scene.world.now));
    let key = |entry: &Listing| match entry.holder {
        None => (0, *entry.ticket.as_bytes()),
        Some(_) => (1, *entry.credential.as_bytes()),
    };
    assert!(whole.is_sorted_by_key(key));
}

#[test]
fn an_entry_that_ends_between_two_pages_keeps_its_place() {
    let scene = scene();
    let Scene { world, .. } = &scene;
    for of in [List::default(), List::default().with_session(session(SESSION))] {
        let whole = joined(pages(&world.gate, &of, world.now));
        let first = world.gate.list(&of.clone().with_limit(limit(5)), world.now).unwrap();
        world.gate.revoke_session(&session(SESSION), world.now).unwrap();
        let rest = joined(pages(&world.gate, &of.after(first.next.unwrap()), world.now));
        let ids = |entries: &[Listing]| entries.iter().map(|entry| entry.credential).collect::<Vec<_>>();
        assert_eq!([ids(&first.entries), ids(&rest)].concat(), ids(&whole));
    }
}

#[test]
fn a_ticket_that_is_redeemed_between_two_pages_is_not_missed() {
    let world = World::new();
    let desktop = world.desktop(9);
    let pairings: Vec<_> = (0..4).map(|_| desktop.share(&world, &terms())).collect();
    let first = world.gate.list(&List::default().with_limit(limit(2)), world.now).unwrap();
    let _joined: Vec<_> = (30..)
        .zip(&pairings)
        .map(|(seed, pairing)| world.join(&pairing.link, &phone(seed)).unwrap())
        .collect();
    let rest = joined(pages(&world.gate, &List::default().after(first.next.unwrap()), world.now));
    assert_eq!(rest.len(), 4, "each as a credential, two of them for the second time");
}

#[test]
fn a_page_reads_a_bounded_number_of_records_whatever_the_filter_leaves() {
    let quotas = Quotas::default()
        .with_tickets_per_session(2_000)
        .with_tickets_per_device(2_000)
        .with_tickets_per_agent(2_000);
    let quotas = quotas
        .with_credentials_per_session(4_000)
        .with_credentials_per_device(4_000)
        .with_credentials_per_agent(4_000);
    let world = World::with(TestLedger::default(), |config| config.with_quotas(quotas));
    let desktop = world.desktop(9);
    for _ in 0..520 {
        desktop.share(&world, &terms());
    }
    let nobodys = List::default().with_device(Desktop::new(&world, 77).device);
    let found = pages(&world.gate, &nobodys, world.now);
    assert_eq!(found.iter().map(|page| page.entries.len()).collect::<Vec<_>>(), [0, 0]);
    // No ticket is active, so that none is read for it.
    let active = pages(&world.gate, &List::default().with_state(StateKind::Active), world.now);
    assert_eq!(active.len(), 1);
    let all = pages(&world.gate, &List::default().with_limit(limit(u32::MAX)), world.now);
    assert_eq!(all.len(), 520_usize.div_ceil(limits::MAX_LISTED as usize));
    assert!(all.iter().all(|page| page.entries.len() <= limits::MAX_LISTED as usize));
}

#[test]
fn the_longest_page_fits_one_frame() {
    let label = "\"".repeat(limits::MAX_LABEL_LEN);
    let entry = serde_json::json!({
        "ticket": "0".repeat(32), "credential": "0".repeat(32),
        "session": "x".repeat(limits::MAX_SESSION_ID_LEN), "device": phone(2).public(), "label": label,
        "holder": phone(2).public(), "phone_label": label, "ops": OpSet::ALL, "created_at": Timestamp::MAX,
        "last_seen": Timestamp::MAX, "expires_at": Timestamp::MAX, "connections": u32::MAX,
        "renewal": { "ops": OpSet::ALL, "expires_at": Timestamp::MAX },
        "state": { "state": "revoked", "why": "session_end" },
    });
    let entries = vec![entry; limits::MAX_LISTED as usize];
    let page = serde_json::json!({
        "answer": "pair.list", "entries": entries, "next": "AQEBAQEBAQEBAQEBAQEBAQE",
    });
    let answer: Answer = serde_json::from_value(page).unwrap();
    let length = serde_json::to_string(&answer).unwrap().len();
    assert!((limits::MAX_FRAME_LEN / 2..=limits::MAX_FRAME_LEN).contains(&length), "{length}");
}

// --- the outcome of a revocation ---

type Verb = (&'static str, fn(&World, &Pairing, &Desktop) -> Result<Revoked, Denial>);

const VERBS: [Verb; 7] = [
    ("ticket", |w, p, _| w.gate.revoke_ticket(&p.ticket, w.now)),
    ("credential", |w, p, _| w.gate.revoke_credential(&p.credential, w.now)),
    ("session", |w, _, _| w.gate.revoke_session(&session(SESSION), w.now)),
    ("session's end", |w, _, _| w.gate.end_session(&session(SESSION), w.now)),
    ("issuer", |w, _, d| w.gate.revoke_issuer(&d.issuer.public(), w.now)),
    ("device", |w, _, d| w.gate.revoke_device(&d.device, w.now)),
    ("phone", |w, _, d| w.gate.revoke_phone(&d.device, &text("kitchen"), w.now)),
];

fn named() -> PairingTerms {
    terms().with_label(text("kitchen"))
}

#[test]
fn every_method_returns_ended_and_when_repeated_already() {
    for redeemed in [false, true] {
        for (name, verb) in VERBS {
            let mut world = World::new();
            let desktop = world.desktop(9);
            let pairing = desktop.share(&world, &named());
            let _joined = redeemed.then(|| world.join(&pairing.link, &phone(2)).unwrap());
            assert_eq!(verb(&world, &pairing, &desktop), Ok(Revoked::Ended { pairings: 1 }), "{name}");
            assert_eq!(verb(&world, &pairing, &desktop), Ok(Revoked::Already), "{name}");
            // When every record of it is gone as well.
            world.pass(80 * 3_600);
            for _ in 0..4 {
                world.gate.settle(world.now).unwrap();
            }
            assert!(world.list().is_empty());
            assert_eq!(verb(&world, &pairing, &desktop), Ok(Revoked::Already), "{name}, later");
        }
    }
}

#[test]
fn every_method_returns_unknown_for_an_unknown_name() {
    let world = World::new();
    let desktop = world.desktop(9);
    desktop.share(&world, &named());
    let stranger = Desktop::new(&world, 7);
    let unknown = stranger.mint_for(&world, "no-such-session", &terms());
    let said = [
        world.gate.revoke_ticket(&unknown.ticket, world.now),
        world.gate.revoke_credential(&unknown.credential, world.now),
        world.gate.revoke_session(&session("no-such-session"), world.now),
        world.gate.end_session(&session("no-such-session"), world.now),
        world.gate.revoke_issuer(&stranger.issuer.public(), world.now),
        world.gate.revoke_device(&stranger.device, world.now),
        world.gate.revoke_phone(&desktop.device, &text("kitchem"), world.now),
    ];
    for outcome in said {
        assert_eq!(outcome, Ok(Revoked::Unknown));
    }
    assert_eq!(world.list().len(), 1);
}

#[test]
fn a_revocation_of_many_says_how_many_it_has_ended() {
    for (name, verb) in VERBS.iter().skip(2) {
        let world = World::new();
        let desktop = world.desktop(9);
        let pairings: Vec<_> = (0..3).map(|_| desktop.share(&world, &named())).collect();
        let _joined = world.join(&pairings[0].link, &phone(2)).unwrap();
        world.gate.revoke_ticket(&pairings[1].ticket, world.now).unwrap();
        assert_eq!(verb(&world, &pairings[0], &desktop), Ok(Revoked::Ended { pairings: 2 }), "{name}");
    }
}

#[test]
fn an_ended_name_is_known_as_long_as_it_is_on_record() {
    let mut world = World::new();
    let desktop = world.desktop(9);
    let ticket = desktop.share(&world, &terms().with_ticket_lifetime(30).unwrap());
    let redeemed = desktop.share(&world, &terms().with_valid_for(60).unwrap());
    let _joined = world.join(&redeemed.link, &phone(2)).unwrap();
    world.pass(61);
    assert_eq!(world.gate.revoke_ticket(&ticket.ticket, world.now), Ok(Revoked::Already));
    assert_eq!(world.gate.revoke_ticket(&redeemed.ticket, world.now), Ok(Revoked::Already));
    assert_eq!(world.gate.revoke_credential(&redeemed.credential, world.now), Ok(Revoked::Already));
}

#[test]
fn an_issuer_without_pairings_ends_as_a_registration() {
    let world = World::new();
    let desktop = world.desktop(9);
    let revoke = || world.gate.revoke_issuer(&desktop.issuer.public(), world.now);
    assert_eq!((revoke(), revoke()), (Ok(Revoked::Ended { pairings: 0 }), Ok(Revoked::Already)));
}

#[test]
fn syncing_the_devices_returns_what_it_ended_and_never_unknown() {
    let world = World::new();
    let (one, other) = (world.desktop(9), world.desktop(8));
    one.share(&world, &terms());
    let sync = |enrolled: &[DevicePublicKey]| world.gate.sync_devices(enrolled, world.now).unwrap();
    assert_eq!(sync(&[one.device, other.device]), Revoked::Already);
    assert_eq!(sync(&[other.device]), Revoked::Ended { pairings: 1 });
    assert_eq!(sync(&[other.device]), Revoked::Already);
}

#[test]
fn a_revocation_that_could_not_be_written_returns_already_when_repeated() {
    use common::ledger::Fault;
    for (name, verb) in VERBS {
        let ledger = TestLedger::default();
        let world = World::with(ledger.clone(), |config| config);
        let desktop = world.desktop(9);
        let pairing = desktop.share(&world, &named());
        ledger.fail_nth(1, Fault::NotDone);
        assert!(verb(&world, &pairing, &desktop).is_err(), "{name}");
        assert_eq!(verb(&world, &pairing, &desktop), Ok(Revoked::Already), "{name}");
        assert_eq!(verb(&world, &pairing, &desktop), Ok(Revoked::Already), "{name}");
    }
}

#[test]
fn a_revocation_with_a_lost_or_unknown_write_returns_already_once_the_ledger_is_open_again() {
    use common::ledger::Fault;
    for fault in [Fault::Broken, Fault::Lost, Fault::Done] {
        for (name, verb) in VERBS {
            // Each call of the ledger fails in its turn, the last of them the commit.
            for nth in 1.. {
                let ledger = TestLedger::default();
                let world = World::with(ledger.clone(), |config| config);
                let desktop = world.desktop(9);
                let pairing = desktop.share(&world, &named());
                ledger.fail_nth(nth, fault);
                if verb(&world, &pairing, &desktop).is_ok() {
                    assert!(nth > 5, "{name}: {nth} calls");
                    break;
                }
                if world.gate.is_poisoned() {
                    world.gate.reopen(ledger.opened_again(), world.now).unwrap();
                }
                let again = verb(&world, &pairing, &desktop);
                assert_eq!(again, Ok(Revoked::Already), "{name}, {fault:?}, call {nth}");
            }
        }
    }
}

#[test]
fn a_request_to_revoke_calls_the_method_that_it_names() {
    let requests: [fn(&Pairing, &Desktop) -> Revoke; 6] = [
        |p, _| Revoke::Ticket(p.ticket),
        |p, _| Revoke::Credential(p.credential),
        |_, _| Revoke::Session(session(SESSION)),
        |_, d| Revoke::Issuer(d.issuer.public()),
        |_, d| Revoke::Device(d.device),
        |_, d| Revoke::Phone { device: d.device, name: text("kitchen") },
    ];
    let reasons = ["Owner", "Owner", "Session", "Issuer", "Issuer", "Owner"];
    for (request, reason) in requests.into_iter().zip(reasons) {
        let world = World::new();
        let desktop = world.desktop(9);
        let pairing = desktop.share(&world, &named());
        let revoked = world.gate.revoke(&request(&pairing, &desktop), world.now);
        assert_eq!(revoked, Ok(Revoked::Ended { pairings: 1 }));
        let ListingState::Revoked { why } = world.only_listing().state else { panic!() };
        assert_eq!(format!("{why:?}"), reason);
    }
}
