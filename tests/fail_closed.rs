//! A ledger that fails at any one call, or whose records have changed: always a denial, never an
//! admission that the records do not carry.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use core::future::Future;

use common::ledger::{Commit, TestLedger};
use common::*;
use sessioncap::ledger::Table;
use sessioncap::*;

const IO: Denial = Denial::Ledger(LedgerFailure::Io);
const POISONED: Denial = Denial::Ledger(LedgerFailure::Poisoned);

fn refusal(refusal: Refusal) -> Denial {
    // To a phone that has proven itself: try later. To any other: nothing.
    assert!(matches!(refusal.told, None | Some(Error::Refused(Status::Unavailable))), "{refusal:?}");
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
    ("list", |world, _, _| world.gate.list(None, world.now).map(|_| ())),
    ("explain", |world, _, held| {
        let credential = &held.joined.as_ref().unwrap().credential;
        let action = Action::Session(Op::SendInput);
        world.gate.explain(&phone(2).public(), credential, action, world.now)
    }),
    ("revoke", |world, _, held| {
        let pairing = held.pairing.as_ref().unwrap();
        world.gate.revoke_credential(&pairing.credential, world.now)
    }),
];

fn world_on(ledger: &TestLedger) -> (World, Desktop) {
    let world = World::on(ledger.clone());
    let desktop = Desktop::new(&world, 9);
    world.enrol(desktop.device);
    (world, desktop)
}

#[test]
fn whichever_call_fails_the_outcome_is_a_denial_and_the_gate_stays_shut() {
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
    for commit in [Commit::Lost, Commit::Done] {
        for nth in 1..=calls {
            let ledger = TestLedger::default();
            let (world, desktop) = world_on(&ledger);
            ledger.fail_nth(nth, commit);
            let mut held = Held::default();
            let failed = SCRIPT
                .iter()
                .find_map(|(name, act)| act(&world, &desktop, &mut held).err().map(|denial| (*name, denial)));
            let (name, denial) = failed.unwrap_or_else(|| panic!("call {nth} did not fail anything"));
            assert_eq!(denial, IO, "call {nth}, {name}");
            assert!(world.gate.is_poisoned(), "call {nth}, {name}");
            assert_shut(&world, &desktop, &mut held);
        }
    }
}

/// Everything is denied from here on, and a revocation still cuts.
fn assert_shut(world: &World, desktop: &Desktop, held: &mut Held) {
    assert_eq!(desktop.register(world), Err(POISONED));
    if let Some(pairing) = &held.pairing {
        assert_eq!(desktop.lodge(world, pairing), Err(POISONED));
        assert_eq!(refusal(world.join(&pairing.link, &phone(2)).unwrap_err()), POISONED);
        assert_eq!(refusal(world.join(&pairing.link, &phone(3)).unwrap_err()), POISONED);
    }
    assert_eq!(world.gate.list(None, world.now), Err(POISONED));
    assert_eq!(world.gate.settle(world.now), Err(POISONED));
    let Some(joined) = &mut held.joined else { return };
    let attached = world.attach(&phone(2), &joined.credential, OpSet::EMPTY);
    assert_eq!(refusal(attached.unwrap_err()), POISONED);
    let pairing = held.pairing.as_ref().unwrap();
    assert_eq!(world.gate.revoke_credential(&pairing.credential, world.now), Err(POISONED));
    for guard in core::iter::once(&mut joined.guard).chain(&mut held.second) {
        // Cut by the failure itself, or by the revocation whose record failed.
        let cut = guard.permit(Op::SendInput, world.now, || ()).unwrap_err();
        assert!([POISONED, Denial::CredentialRevoked].contains(&cut), "{cut}");
    }
}

#[test]
fn a_revocation_that_cannot_be_written_still_cuts_and_says_so() {
    type Verb = fn(&World, &Pairing, &Desktop) -> Result<(), Denial>;
    let verbs: [(Verb, Denial); 7] = [
        (|w, p, _| w.gate.revoke_ticket(&p.ticket, w.now), Denial::CredentialRevoked),
        (|w, p, _| w.gate.revoke_credential(&p.credential, w.now), Denial::CredentialRevoked),
        (|w, _, _| w.gate.revoke_session(&session(SESSION), w.now), Denial::CredentialRevoked),
        (|w, _, _| w.gate.end_session(&session(SESSION), w.now), Denial::SessionGone),
        (|w, _, d| w.gate.revoke_issuer(&d.issuer.public(), w.now), Denial::CredentialRevoked),
        (|w, _, d| w.gate.revoke_device(&d.device, w.now), Denial::CredentialRevoked),
        (|w, _, _| w.gate.sync_devices(&[], w.now), Denial::CredentialRevoked),
    ];
    for (verb, cut) in verbs {
        let ledger = TestLedger::default();
        let (world, desktop) = world_on(&ledger);
        desktop.register(&world).unwrap();
        let pairing = desktop.share(&world, &terms());
        let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
        ledger.fail_nth(1, Commit::Lost);
        assert_eq!(verb(&world, &pairing, &desktop), Err(IO));
        assert_eq!(joined.guard.permit(Op::SendInput, world.now, || ()), Err(cut));
    }
}

/// What could not be taken back for good any more does not go on, whichever call finds the failure, and
/// those who wait for a cut are told.
#[test]
fn a_ledger_that_fails_takes_every_stream_along() {
    let ledger = TestLedger::default();
    let (world, desktop) = world_on(&ledger);
    desktop.register(&world).unwrap();
    let mut guards: Vec<Guard> = (2..5)
        .map(|seed| world.join(&desktop.share(&world, &terms()).link, &phone(seed)).unwrap().guard)
        .collect();
    let waiting: Vec<_> = guards.iter().map(Guard::cut).collect();
    ledger.fail_nth(1, Commit::Lost);
    assert_eq!(world.gate.list(None, world.now), Err(IO));
    for guard in &mut guards {
        assert_eq!(guard.permit(Op::ReadMetadata, world.now, || ()), Err(POISONED));
    }
    for cut in waiting {
        let told = core::pin::pin!(cut).poll(&mut core::task::Context::from_waker(core::task::Waker::noop()));
        assert_eq!(told, core::task::Poll::Ready(POISONED));
    }
    // The next gate over the same records lets them come back.
    let again = World::on(ledger);
    again.enrol(desktop.device);
    assert_eq!(again.list().len(), 3);
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
        ledger.fail_nth(nth, Commit::Lost);
        let denial = world.join(&pairing.link, &phone(3)).unwrap_err().denial;
        if denial == Denial::TicketContested {
            assert!(nth > 8 && contested > 5, "{contested} of {nth}");
            break;
        }
        assert_eq!(denial, IO);
        let cut = joined.guard.permit(Op::SendInput, world.now, || ()).unwrap_err();
        // Once it was seen to be a contest, that is the reason.
        assert!([POISONED, Denial::TicketContested].contains(&cut), "call {nth}: {cut}");
        contested += u32::from(cut == Denial::TicketContested);
        assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_err());
    }
}

/// A gate that failed is opened again over whatever was written.
#[test]
fn after_a_failure_a_reopened_gate_has_one_holder_at_most() {
    for commit in [Commit::Lost, Commit::Done] {
        for nth in 1.. {
            let ledger = TestLedger::default();
            let (world, desktop) = world_on(&ledger);
            desktop.register(&world).unwrap();
            let pairing = desktop.share(&world, &terms());
            ledger.fail_nth(nth, commit);
            let first = world.join(&pairing.link, &phone(2));
            let (again, _) = world_on(&TestLedger::with_rows(ledger.rows()));
            if first.is_ok() {
                break;
            }
            let written = again.list().iter().any(|listing| listing.holder.is_some());
            assert!(!written || commit == Commit::Done || again.list()[0].holder == Some(phone(2).public()));
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
    let redemption = |link: &Link| world.open(&world.ask(link, &phone(3)).message).unwrap().payload;
    let (first_redemption, second_redemption) = (redemption(&open.link), redemption(&redeemed.link));
    let rows = ledger.rows();
    let mut denied = 0;
    let mut corrupt = 0;
    for ((table, key), value) in &rows {
        for place in 0..value.len() {
            let mut changed = rows.clone();
            changed.get_mut(&(*table, key.clone())).unwrap()[place] ^= 1 << (place % 8);
            let open_with = || World::on(TestLedger::with_rows(changed.clone()));
            if World::try_with(TestLedger::with_rows(changed.clone()), world.now, |config| config).is_err() {
                assert!(matches!(table, Table::Meta | Table::Events), "{table:?}");
                continue;
            }
            let ask = |seed: u8, payload: &[u8]| live(&open_with(), &phone(seed), payload);
            let at = format!("{table:?}, byte {place}");
            match ask(2, &own) {
                Ok(guard) => {
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
}

/// Admission and first frame, without the encryption around them.
fn live(world: &World, phone: &HolderSecretKey, payload: &[u8]) -> Result<Guard, Denial> {
    match world.admit(phone, payload) {
        Admission::Admitted(admitted) => admitted.guard.activate(world.now),
        Admission::Refused(refused) => Err(refused.denial),
        Admission::Device => panic!("taken for a device"),
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
