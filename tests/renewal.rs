//! New terms for a credential that a phone holds: narrower at once, wider with its next attach, and
//! never so that the phone is locked out.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::sync::{Arc, Mutex};

use common::ledger::TestLedger;
use common::*;
use rand::rngs::OsRng;
use sessioncap::agent::ledger::{Ledger, LedgerError, Look, MemoryLedger, Transition};
use sessioncap::agent::*;
use sessioncap::desktop::*;
use sessioncap::*;
use time::UtcOffset;

const HOUR: u64 = 3_600;

fn ops(names: impl IntoIterator<Item = Op>) -> OpSet {
    names.into_iter().collect()
}

fn read_only() -> OpSet {
    ops([Op::ReadMetadata, Op::StreamOutput, Op::Detach])
}

struct Phone {
    key: HolderSecretKey,
    credential: CredentialBytes,
    guard: Guard,
}

struct Scene {
    world: World,
    desktop: Desktop,
    pairing: Pairing,
    phone: Phone,
}

/// A phone with the companion's operations for one hour.
fn scene() -> Scene {
    scene_on(World::new())
}

fn scene_on(world: World) -> Scene {
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &terms().with_valid_for(HOUR).unwrap());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let phone = Phone { key: phone(2), credential: joined.credential, guard: joined.guard };
    Scene { world, desktop, pairing, phone }
}

impl Scene {
    fn renew(&self, ops: OpSet, valid_for: u64) -> Result<RenewalReceipt, Denial> {
        self.desktop.renew(&self.world, &self.pairing, ops, valid_for)
    }

    fn attach(&self, credential: &CredentialBytes) -> Result<(Guard, Option<CredentialBytes>), Refusal> {
        self.world.attach_and_store(&self.phone.key, credential, OpSet::EMPTY)
    }

    /// Message 1 arrives, the answer gets lost.
    fn attach_and_lose_the_answer(&self, credential: &CredentialBytes) {
        let admission =
            self.world.admit(&self.phone.key, &attach_payload(OpSet::EMPTY, credential.as_bytes()));
        assert!(matches!(admission, PeerAdmission::Admitted { .. }), "{admission:?}");
    }

    fn listed(&self) -> Listing {
        self.world.only_listing()
    }
}

fn retired() -> Refusal {
    Refusal::told(Denial::CredentialRetired, Status::Expired)
}

// --- narrowing ---

#[test]
fn fewer_operations_take_effect_at_once_and_the_stream_continues() {
    let Scene { world, desktop, pairing, phone: Phone { mut guard, .. } } = scene();
    let mut other_task = guard.fork();
    assert_eq!(guard.ask(Op::SendInput, world.now, || 1), Ok(1));
    let receipt = desktop.renew(&world, &pairing, read_only(), HOUR).unwrap();
    assert!(!receipt.waiting, "nothing to fetch");
    for guard in [&mut guard, &mut other_task] {
        let denied = guard.ask(Op::SendInput, world.now, || panic!("not called"));
        assert_eq!(denied, Err(Denial::OperationNotGranted { op: Op::SendInput }));
        assert_eq!(guard.ask(Op::StreamOutput, world.now, || 2), Ok(2));
        assert_eq!(guard.ops(), read_only());
    }
    let mut later = guard.fork();
    assert!(later.ask(Op::SendInput, world.now, || ()).is_err(), "a fork from afterwards");
    assert_eq!(world.list()[0].ops, read_only());
}

#[test]
fn a_fork_of_a_guard_that_has_not_noticed_a_narrowing_is_narrow() {
    let Scene { world, desktop, pairing, phone: Phone { guard, .. } } = scene();
    desktop.renew(&world, &pairing, read_only(), HOUR).unwrap();
    // The guard has not been asked since.
    let mut fork = guard.fork();
    let denied = fork.ask(Op::SendInput, world.now, || panic!("not called"));
    assert_eq!(denied, Err(Denial::OperationNotGranted { op: Op::SendInput }));
    assert_eq!(fork.ops(), read_only());
    let mut of_the_fork = fork.fork();
    assert!(of_the_fork.ask(Op::SendInput, world.now, || ()).is_err());
}

#[test]
fn a_narrowing_returns_only_when_no_permit_under_the_earlier_terms_is_in_use() {
    let Scene { world, desktop, pairing, phone: Phone { mut guard, .. } } = scene();
    let held = HeldPermit::default();
    let (held, world) = (&held, &world);
    std::thread::scope(|scope| {
        scope.spawn(move || held.hold(&mut guard, world.now).unwrap());
        held.wait_until_in_use();
        let narrowing = scope.spawn(move || {
            desktop.renew(world, &pairing, read_only(), HOUR).unwrap();
            !held.is_in_use()
        });
        // It is on record, and waits.
        while world.list()[0].ops != read_only() {
            std::thread::yield_now();
        }
        let waited = held.release_later(&narrowing);
        assert!(narrowing.join().unwrap() && waited, "it returned while a permit was in use");
    });
}

#[test]
fn a_shorter_time_takes_effect_at_once_by_either_clock_and_ends_the_stream() {
    for end in ["permit", "settle", "monotonic"] {
        let mut scene = scene();
        scene.renew(OpSet::COMPANION, 60).unwrap();
        let (world, guard) = (&mut scene.world, &mut scene.phone.guard);
        assert_eq!(guard.expires_at(), world.now.timestamp().plus(60));
        assert_eq!(guard.time_left(world.now).as_secs(), 60);
        world.pass(59);
        assert_eq!(guard.ask(Op::StreamOutput, world.now, || ()), Ok(()));
        world.pass(1);
        match end {
            "settle" => {
                world.gate.settle(world.now).unwrap();
                let earlier =
                    Now::since_1970(world.now.wall - time::Duration::minutes(1), world.now.monotonic);
                assert_eq!(guard.checked(earlier), Err(Denial::CredentialExpired), "cut by the gate");
            }
            "monotonic" => {
                let back = Now::since_1970(world.now.wall - time::Duration::days(1), world.now.monotonic);
                assert_eq!(guard.checked(back), Err(Denial::CredentialExpired));
            }
            _ => assert_eq!(guard.ask(Op::StreamOutput, world.now, || ()), Err(Denial::CredentialExpired)),
        }
        let expired = Refusal::told(Denial::CredentialExpired, Status::Expired);
        assert_eq!(scene.attach(&scene.phone.credential).unwrap_err(), expired, "{end}");
    }
}

#[test]
fn a_connection_that_was_admitted_before_the_narrowing_and_activated_after_it_has_what_is_left() {
    let scene = scene();
    let payload = attach_payload(OpSet::EMPTY, scene.phone.credential.as_bytes());
    let PeerAdmission::Admitted { guard, .. } = scene.world.admit(&scene.phone.key, &payload) else {
        panic!()
    };
    scene.renew(read_only(), 60).unwrap();
    let guard = guard.activate_after_first_frame(scene.world.now).unwrap();
    assert_eq!(guard.ops(), read_only());
    assert_eq!(guard.expires_at(), scene.world.now.timestamp().plus(60));
}

#[test]
fn a_connection_without_operations_left_is_not_activated() {
    let scene = scene();
    let payload = attach_payload(ops([Op::SendInput]), scene.phone.credential.as_bytes());
    let PeerAdmission::Admitted { guard, .. } = scene.world.admit(&scene.phone.key, &payload) else {
        panic!()
    };
    scene.renew(read_only(), HOUR).unwrap();
    let denial = guard.activate_after_first_frame(scene.world.now).unwrap_err();
    assert_eq!(denial, Denial::OperationNotGranted { op: Op::SendInput });
}

#[test]
fn what_was_narrowed_is_narrow_for_the_next_attach_and_for_copies() {
    let scene = scene();
    let child = Credential::parse(&scene.phone.credential)
        .unwrap()
        .attenuate(Some(ops([Op::SendInput, Op::StreamOutput])), None, &mut OsRng)
        .unwrap();
    scene.renew(read_only(), HOUR).unwrap();
    let (guard, renewed) = scene.attach(&scene.phone.credential).unwrap();
    assert_eq!((guard.ops(), renewed), (read_only(), None));
    let explained = |op| {
        let (phone, credential) = (scene.phone.key.public(), &scene.phone.credential);
        scene.world.gate.explain(&phone, credential, Action::Session(op), scene.world.now)
    };
    assert_eq!(explained(Op::StreamOutput), Ok(()));
    assert_eq!(explained(Op::SendInput), Err(Denial::OperationNotGranted { op: Op::SendInput }));
    let (guard, renewed) = scene.attach(child.bytes()).unwrap();
    assert_eq!((guard.ops(), renewed), (ops([Op::StreamOutput]), None));
    let asked = scene.world.attach(&scene.phone.key, child.bytes(), ops([Op::SendInput])).unwrap_err();
    let none = Refusal::told(Denial::OperationNotGranted { op: Op::SendInput }, Status::OperationDenied);
    assert_eq!(asked, none);
}

/// An attach that names no operations. The denial says on which side nothing is left.
#[test]
fn a_copy_of_whose_operations_none_is_left_is_refused() {
    let send = ops([Op::SendInput]);
    let of_the_copy = Denial::CaveatFailed { block: 2, caveat: Box::new(Caveat::Ops(send)) };
    let of_its_edition = Denial::OperationNotGranted { op: Op::SendInput };
    for (left, denial) in [(read_only(), of_the_copy), (ops([Op::Resize]), of_its_edition)] {
        let scene = scene();
        let whole = Credential::parse(&scene.phone.credential).unwrap();
        let copy = whole.attenuate(Some(send), None, &mut OsRng).unwrap();
        scene.renew(left, HOUR).unwrap();
        let refused = scene.attach(copy.bytes()).unwrap_err();
        assert_eq!(refused, Refusal::told(denial, Status::OperationDenied), "{left:?}");
    }
}

#[test]
fn an_operator_rule_that_is_asked_again_does_not_widen_what_was_narrowed() {
    let policy = Policy::with_operator_rules("check if hour($h), $h != 3", UtcOffset::UTC).unwrap();
    let Scene { mut world, desktop, pairing, phone: Phone { mut guard, .. } } =
        scene_on(World::with(MemoryLedger::new(), |config| config.with_policy(policy)));
    desktop.renew(&world, &pairing, read_only(), HOUR).unwrap();
    world.pass(61);
    assert!(guard.ask(Op::SendInput, world.now, || ()).is_err());
    assert!(guard.ask(Op::StreamOutput, world.now, || ()).is_ok());
}

/// A ledger that runs something once it has been read so many times.
#[derive(Default)]
struct Interrupting {
    rows: MemoryLedger,
    then: Mutex<Option<Interruption>>,
}

/// How many reads are left, and what follows the last of them.
type Interruption = (usize, Box<dyn FnOnce() + Send>);

impl Ledger for Interrupting {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        let read = self.rows.read(look);
        let mut then = self.then.lock().unwrap();
        let due = then.as_mut().is_some_and(|(left, _)| {
            *left -= 1;
            *left == 0
        });
        let act = if due { then.take() } else { None };
        drop(then);
        if let Some((_, act)) = act {
            act();
        }
        read
    }

    fn transact(&self, transition: Transition<'_>) -> Result<(), LedgerError> {
        self.rows.transact(transition)
    }
}

/// The gate decides without a lock: here the credential is renewed between the read on which it decides and the
/// one that it publishes, or after both.
#[test]
fn terms_that_changed_during_an_attach_are_not_granted() {
    for (renewed_before, reads) in [(false, 2), (true, 2), (true, 3)] {
        let ledger = Arc::new(Interrupting::default());
        let world = World::on(Arc::clone(&ledger));
        let desktop = world.desktop(9);
        let pairing = desktop.share(&world, &terms().with_valid_for(HOUR).unwrap());
        let (key, credential) = (phone(2), world.join(&pairing.link, &phone(2)).unwrap().credential);
        if renewed_before {
            desktop.renew(&world, &pairing, OpSet::COMPANION, 2 * HOUR).unwrap();
        }
        let (gate, now, outcome) = (world.gate.clone(), world.now, Arc::new(Mutex::new(None)));
        let renewal = Renewal {
            credential: pairing.credential,
            ticket: pairing.ticket,
            session: session(SESSION),
            ops: OpSet::ALL,
            valid_for: 3 * HOUR,
        };
        let message = desktop.issuer.renew(renewal, now.timestamp(), &mut OsRng).unwrap();
        let renew = {
            let outcome = Arc::clone(&outcome);
            move || *outcome.lock().unwrap() = Some(gate.renew(&desktop.device, &message, now, &mut OsRng))
        };
        *ledger.then.lock().unwrap() = Some((reads, Box::new(renew)));
        let admission = world.admit(&key, &attach_payload(OpSet::EMPTY, credential.as_bytes()));
        assert!(matches!(outcome.lock().unwrap().take(), Some(Ok(_))), "it was renewed meanwhile");
        match (renewed_before, admission) {
            // The bytes that would be given are not the latest.
            (true, PeerAdmission::Refused { denial, .. }) => assert_eq!(denial, Denial::Interrupted),
            // The credential that was shown is still valid, and no other is given this time.
            (false, PeerAdmission::Admitted { guard, .. }) => {
                assert_eq!(guard.activate_after_first_frame(world.now).unwrap().ops(), OpSet::COMPANION);
            }
            (_, admission) => panic!("{reads} reads: {admission:?}"),
        }
    }
}

// --- extending ---

#[test]
fn wider_terms_wait_for_the_next_attach_and_the_earlier_edition_is_kept_until_the_new_one_is_used() {
    let mut scene = scene();
    let old = scene.phone.credential.clone();
    let wider = OpSet::COMPANION.union(ops([Op::Resize]));
    let receipt = scene.renew(wider, 10 * HOUR).unwrap();
    assert!(receipt.waiting);
    assert_eq!(receipt.expires_at, scene.world.now.timestamp().plus(10 * HOUR));
    let before = scene.phone.guard.ask(Op::Resize, scene.world.now, || ());
    assert_eq!(before, Err(Denial::OperationNotGranted { op: Op::Resize }), "not on a stream from before");
    let waiting = scene.listed().renewal.unwrap();
    assert_eq!((waiting.ops, scene.listed().ops), (wider, OpSet::COMPANION));

    let (guard, new) = scene.attach(&old).unwrap();
    let new = new.unwrap();
    assert_ne!(new, old);
    assert_eq!((guard.ops(), guard.expires_at()), (wider, receipt.expires_at), "this very connection has it");
    assert!(scene.listed().renewal.is_some(), "until it is used");

    let (_, again) = scene.attach(&old).unwrap();
    assert_eq!(again.as_ref(), Some(&new), "the old one still stands, and the same one waits");
    let (guard, none) = scene.attach(&new).unwrap();
    assert_eq!((guard.ops(), none), (wider, None));
    let listed = scene.listed();
    assert_eq!((listed.renewal, listed.ops, listed.expires_at), (None, wider, receipt.expires_at));
    assert_eq!(scene.attach(&old).unwrap_err(), retired());
    let mut on_the_old_one = |now| scene.phone.guard.ask(Op::StreamOutput, now, || ());
    assert_eq!(on_the_old_one(scene.world.now), Ok(()), "a stream goes on");
    scene.world.pass(5 * HOUR as i64);
    assert_eq!(on_the_old_one(scene.world.now), Err(Denial::CredentialExpired), "to its own end");
    assert!(scene.attach(&new).is_ok(), "long after the first end");
}

#[test]
fn an_edition_shown_without_a_frame_retires_nothing() {
    let scene = scene();
    let old = scene.phone.credential.clone();
    scene.renew(OpSet::ALL, HOUR).unwrap();
    let new = scene.attach(&old).unwrap().1.unwrap();
    scene.attach_and_lose_the_answer(&new);
    assert!(scene.attach(&old).is_ok(), "a replayed message 1 proves nothing");
}

#[test]
fn no_number_of_lost_answers_locks_a_phone_out_even_past_the_first_end() {
    let mut scene = scene();
    let old = scene.phone.credential.clone();
    scene.renew(OpSet::COMPANION, 20 * HOUR).unwrap();
    for _ in 0..10 {
        scene.attach_and_lose_the_answer(&old);
        scene.world.pass(HOUR as i64);
        scene.world.gate.settle(scene.world.now).unwrap();
    }
    let (mut guard, new) = scene.attach(&old).unwrap();
    assert_eq!(guard.ask(Op::StreamOutput, scene.world.now, || ()), Ok(()));
    assert!(scene.attach(&new.unwrap()).is_ok());
}

#[test]
fn an_edition_that_a_phone_may_hold_is_not_dropped_for_a_later_one() {
    let scene = scene();
    let first = scene.phone.credential.clone();
    scene.renew(OpSet::COMPANION, 2 * HOUR).unwrap();
    let second = scene.attach(&first).unwrap().1.unwrap();
    scene.renew(OpSet::COMPANION, 3 * HOUR).unwrap();
    // It stored the second and crashed; the first is gone from its store.
    let third = scene.attach(&second).unwrap().1.unwrap();
    assert_ne!(second, third);
    assert_eq!(scene.attach(&third).unwrap().1, None);
    for old in [first, second] {
        assert_eq!(scene.attach(&old).unwrap_err(), retired());
    }
}

#[test]
fn a_phone_that_comes_between_any_two_renewals_can_be_renewed_for_ever() {
    let scene = scene();
    let mut stored = scene.phone.credential.clone();
    for round in 0..20 {
        scene.renew(OpSet::COMPANION, (2 + round) * HOUR).unwrap();
        stored = scene.attach(&stored).unwrap().1.unwrap();
    }
    assert!(scene.attach(&stored).is_ok());
    assert_eq!(scene.attach(&scene.phone.credential).unwrap_err(), retired());
}

#[test]
fn a_phone_is_given_the_latest_of_many_renewals() {
    let scene = scene();
    for hours in 2..50 {
        scene.renew(OpSet::COMPANION, hours * HOUR).unwrap();
    }
    scene.renew(OpSet::COMPANION, 30 * HOUR).unwrap();
    let (guard, new) = scene.attach(&scene.phone.credential).unwrap();
    assert_eq!(guard.expires_at(), scene.world.now.timestamp().plus(30 * HOUR));
    assert!(scene.attach(&new.unwrap()).is_ok());
}

#[test]
fn too_many_unused_extensions_are_refused_and_narrowing_is_not() {
    let scene = scene();
    for hours in 2..2 + limits::MAX_EDITIONS as u64 {
        scene.renew(OpSet::COMPANION, hours * HOUR).unwrap();
        scene.attach_and_lose_the_answer(&scene.phone.credential);
    }
    let full = Denial::RenewalsUnused { max: limits::MAX_EDITIONS };
    let before = scene.listed();
    assert_eq!(scene.renew(OpSet::COMPANION, 70 * HOUR), Err(full));
    assert_eq!(scene.listed(), before, "a refusal changes nothing");
    scene.renew(read_only(), 2 * HOUR).unwrap();
    let (guard, _) = scene.attach(&scene.phone.credential).unwrap();
    assert_eq!(guard.ops(), read_only());
}

#[test]
fn removing_operations_is_never_refused_even_if_the_end_cannot_change() {
    let mut scene = scene();
    for hours in 2..2 + limits::MAX_EDITIONS as u64 {
        scene.renew(OpSet::COMPANION, hours * HOUR).unwrap();
        scene.attach_and_lose_the_answer(&scene.phone.credential);
    }
    let end = scene.world.now.timestamp().plus((1 + limits::MAX_EDITIONS as u64) * HOUR);
    // As a desktop says it that means the same end, a moment later.
    scene.world.pass(1);
    let receipt = scene.renew(read_only(), 70 * HOUR).unwrap();
    assert_eq!((receipt.waiting, receipt.expires_at), (true, end), "it says what has become of it");
    let guard = &mut scene.phone.guard;
    let denied = Err(Denial::OperationNotGranted { op: Op::SendInput });
    assert_eq!(guard.ask(Op::SendInput, scene.world.now, || ()), denied);
    assert_eq!(scene.attach(&scene.phone.credential).unwrap().0.ops(), read_only());
    // But more of anything is.
    let full = Denial::RenewalsUnused { max: limits::MAX_EDITIONS };
    assert_eq!(scene.renew(OpSet::only(Op::Resize), HOUR), Err(full.clone()));
    assert_eq!(scene.renew(read_only(), 71 * HOUR), Err(full));
}

#[test]
fn a_narrowed_copy_never_gains() {
    let scene = scene();
    let whole = Credential::parse(&scene.phone.credential).unwrap();
    let copies = [
        whole.attenuate(Some(ops([Op::StreamOutput])), None, &mut OsRng).unwrap(),
        whole.attenuate(Some(OpSet::ALL), None, &mut OsRng).unwrap(),
        whole.seal().unwrap(),
    ];
    let before: Vec<OpSet> = copies.iter().map(|copy| scene.attach(copy.bytes()).unwrap().0.ops()).collect();
    // narrower first, then wider than ever
    scene.renew(read_only(), HOUR / 2).unwrap();
    scene.renew(OpSet::ALL, 10 * HOUR).unwrap();
    for (copy, before) in copies.iter().zip(before) {
        let (guard, renewed) = scene.attach(copy.bytes()).unwrap();
        assert_eq!(guard.ops(), before.intersection(read_only()));
        assert!(guard.expires_at() <= scene.world.now.timestamp().plus(HOUR / 2));
        assert_eq!(renewed, None);
    }
    let new = scene.attach(&scene.phone.credential).unwrap().1.unwrap();
    assert_eq!(scene.attach(&new).unwrap().0.ops(), OpSet::ALL);
    for copy in copies {
        assert_eq!(scene.attach(copy.bytes()).unwrap_err(), retired());
    }
}

#[test]
fn a_copy_of_the_new_one_does_not_retire_the_old_one() {
    let scene = scene();
    scene.renew(OpSet::ALL, HOUR).unwrap();
    let new = scene.attach(&scene.phone.credential).unwrap().1.unwrap();
    let copy = Credential::parse(&new).unwrap();
    let copy = copy.attenuate(Some(ops([Op::Resize])), None, &mut OsRng).unwrap();
    assert_eq!(scene.attach(copy.bytes()).unwrap().0.ops(), ops([Op::Resize]));
    assert!(scene.attach(&scene.phone.credential).is_ok());
}

#[test]
fn a_phone_that_still_asks_by_its_ticket_is_given_the_latest() {
    let scene = scene();
    scene.renew(OpSet::ALL, 2 * HOUR).unwrap();
    let joined = scene.world.join(&scene.pairing.link, &scene.phone.key).unwrap();
    assert_eq!(joined.guard.ops(), OpSet::ALL);
    assert_ne!(joined.credential, scene.phone.credential);
    assert!(scene.attach(&scene.phone.credential).is_ok(), "it was not shown yet");
    assert!(scene.attach(&joined.credential).is_ok());
}

#[test]
fn a_waiting_edition_and_its_bytes_survive_a_restart() {
    let ledger = TestLedger::default();
    let mut scene = scene_on(World::on(ledger.clone()));
    scene.renew(OpSet::ALL, 2 * HOUR).unwrap();
    let new = scene.attach(&scene.phone.credential).unwrap().1.unwrap();
    let again = World::try_with(ledger, scene.world.now, |config| config).unwrap();
    again.enrol(scene.desktop.device);
    scene.world = again;
    assert_eq!(scene.attach(&scene.phone.credential).unwrap().1, Some(new.clone()));
    assert!(scene.attach(&new).is_ok());
    assert_eq!(scene.attach(&scene.phone.credential).unwrap_err(), retired());
}

// --- revocation ---

#[test]
fn a_revocation_revokes_every_edition() {
    let mut scene = scene();
    scene.renew(OpSet::ALL, 2 * HOUR).unwrap();
    let (mut guard, new) = scene.attach(&scene.phone.credential).unwrap();
    scene.world.gate.revoke_credential(&scene.pairing.credential, scene.world.now).unwrap();
    for guard in [&mut guard, &mut scene.phone.guard] {
        assert_eq!(guard.checked(scene.world.now), Err(Denial::CredentialRevoked));
    }
    let told = Refusal::told(Denial::CredentialRevoked, Status::Revoked);
    for credential in [&scene.phone.credential, &new.unwrap()] {
        assert_eq!(scene.attach(credential).unwrap_err(), told);
    }
    scene.world.pass(2 * HOUR as i64 - 1);
    assert_eq!(
        scene.attach(&scene.phone.credential).unwrap_err(),
        told,
        "until the last one would have ended"
    );
    assert_eq!(scene.renew(OpSet::ALL, HOUR), Err(Denial::CredentialRevoked));
}

#[test]
fn a_phone_that_was_revoked_pairs_again_with_a_new_ticket() {
    let scene = scene();
    scene.world.gate.revoke_credential(&scene.pairing.credential, scene.world.now).unwrap();
    let pairing = scene.desktop.share(&scene.world, &terms());
    let joined = scene.world.join(&pairing.link, &scene.phone.key).unwrap();
    assert!(scene.attach(&joined.credential).is_ok());
    assert!(scene.attach(&scene.phone.credential).is_err());
}

// --- who may renew, and which terms match ---

#[test]
fn only_the_device_that_offered_renews() {
    let scene = scene();
    let other = scene.world.desktop(10);
    let Scene { world, pairing, .. } = &scene;
    assert_eq!(other.renew(world, pairing, OpSet::ALL, HOUR), Err(Denial::IssuerOfAnotherDevice));
    // another device that sends the first one's message
    let renewal = Renewal {
        credential: pairing.credential,
        ticket: pairing.ticket,
        session: session(SESSION),
        ops: OpSet::ALL,
        valid_for: HOUR,
    };
    let message = scene.desktop.issuer.renew(renewal, world.now.timestamp(), &mut OsRng).unwrap();
    let sent = world.gate.renew(&other.device, &message, world.now, &mut OsRng);
    assert_eq!(sent, Err(Denial::IssuerOfAnotherDevice));
    world.strike_off(&scene.desktop.device);
    assert_eq!(scene.renew(OpSet::ALL, HOUR), Err(Denial::DeviceNotEnrolled));
}

#[test]
fn a_renewal_fits_its_credential_or_is_refused() {
    let scene = scene();
    let Scene { world, desktop, pairing, .. } = &scene;
    let before = world.list();
    let good = || Renewal {
        credential: pairing.credential,
        ticket: pairing.ticket,
        session: session(SESSION),
        ops: OpSet::ALL,
        valid_for: HOUR,
    };
    let send = |desktop: &Desktop, renewal: Renewal, clock: Timestamp| {
        let message = desktop.issuer.renew(renewal, clock, &mut OsRng).unwrap();
        world.gate.renew(&scene.desktop.device, &message, world.now, &mut OsRng)
    };
    let now = world.now.timestamp();
    let unknown = Renewal { credential: CredentialId::from_bytes([1; 16]), ..good() };
    assert_eq!(send(desktop, unknown, now), Err(Denial::CredentialUnknown));
    let ticket = Renewal { ticket: TicketId::from_bytes([1; 16]), ..good() };
    assert_eq!(send(desktop, ticket, now), Err(Denial::RenewalMismatch));
    world.start_session("other");
    let other_session = Renewal { session: session("other"), ..good() };
    assert_eq!(send(desktop, other_session, now), Err(Denial::RenewalMismatch));
    let elsewhere = Desktop::of(world.agent.public(), "wss://elsewhere.example", 9);
    assert_eq!(send(&elsewhere, good(), now), Err(Denial::RenewalMismatch));
    let other_agent = Desktop::of(AgentSecretKey::from_bytes([77; 32]).public(), URL, 9);
    assert_eq!(send(&other_agent, good(), now), Err(Denial::RenewalMismatch));
    let other_issuer = Desktop::of(world.agent.public(), URL, 11);
    assert_eq!(send(&other_issuer, good(), now), Err(Denial::RenewalMismatch));
    assert_eq!(send(desktop, good(), now.plus(61)), Err(Denial::ClockSkew { agent_time: now }));
    assert!(send(desktop, good(), now.plus(60)).is_ok());
    let refused = desktop.issuer.renew(Renewal { ops: OpSet::EMPTY, ..good() }, now, &mut OsRng);
    assert_eq!(refused, Err(DesktopError::OpsEmpty));
    for valid_for in [0, 29, 72 * HOUR + 1] {
        let refused = desktop.issuer.renew(Renewal { valid_for, ..good() }, now, &mut OsRng);
        assert!(matches!(refused, Err(DesktopError::Lifetime { .. })), "{valid_for}");
    }
    for junk in [&b""[..], &pairing.offer.to_bytes(), &[0xa4; 9]] {
        assert!(RenewalOffer::from_bytes(junk).is_err());
    }
    assert_eq!(world.list()[0].ops, before[0].ops);
}

#[test]
fn a_desktop_with_a_slow_clock_does_not_end_what_it_renews() {
    let scene = scene();
    let Scene { world, desktop, pairing, .. } = &scene;
    let now = world.now.timestamp();
    let renew = |clock: Timestamp| {
        let renewal = Renewal {
            credential: pairing.credential,
            ticket: pairing.ticket,
            session: session(SESSION),
            ops: OpSet::COMPANION,
            valid_for: 30,
        };
        let message = desktop.issuer.renew(renewal, clock, &mut OsRng).unwrap();
        world.gate.renew(&desktop.device, &message, world.now, &mut OsRng).map(|_| ())
    };
    let slow = Timestamp::from_seconds(now.seconds() - 30).unwrap();
    assert_eq!(renew(slow), Err(Denial::ClockSkew { agent_time: now }));
    assert_eq!(scene.listed().expires_at, now.plus(HOUR));
    assert_eq!(renew(slow.plus(1)), Ok(()));
}

#[test]
fn a_signature_by_another_key_under_the_right_name_is_refused() {
    let scene = scene();
    let Scene { world, desktop, pairing, .. } = &scene;
    let renewal = Renewal {
        credential: pairing.credential,
        ticket: pairing.ticket,
        session: session(SESSION),
        ops: OpSet::ALL,
        valid_for: HOUR,
    };
    let forger = Desktop::of(world.agent.public(), URL, 11);
    let message = forger.issuer.renew(renewal, world.now.timestamp(), &mut OsRng).unwrap();
    let mut map = cbor::decode(&message.to_bytes()).unwrap();
    map = cbor::with(&map, 1, cbor::bytes(desktop.issuer.public().as_bytes()));
    let forged = RenewalOffer::from_bytes(&cbor::encode(&map)).unwrap();
    let refused = world.gate.renew(&desktop.device, &forged, world.now, &mut OsRng);
    let bad = Error::Credential(CredentialProblem::Signature);
    assert_eq!(refused, Err(Denial::OfferMalformed(bad)));
}

#[test]
fn an_ended_or_pending_credential_is_not_renewed() {
    let mut scene = scene();
    let confirm = terms().with_confirmation(Confirmation::Required);
    let waiting = scene.desktop.share(&scene.world, &confirm);
    assert!(scene.world.join(&waiting.link, &phone(5)).is_err());
    let refused = scene.desktop.renew(&scene.world, &waiting, OpSet::ALL, HOUR);
    assert_eq!(refused, Err(Denial::ConfirmationPending));
    let open = scene.desktop.share(&scene.world, &terms());
    let refused = scene.desktop.renew(&scene.world, &open, OpSet::ALL, HOUR);
    assert_eq!(refused, Err(Denial::CredentialUnknown), "a ticket that nobody has redeemed");
    scene.world.stop_session(SESSION);
    assert_eq!(scene.renew(OpSet::ALL, HOUR), Err(Denial::SessionGone));
    scene.world.start_session(SESSION);
    scene.world.pass(HOUR as i64);
    assert_eq!(scene.renew(OpSet::ALL, HOUR), Err(Denial::CredentialExpired));
}

#[test]
fn a_session_that_may_not_be_shared_any_more_is_not_renewed() {
    let scene = scene();
    scene.world.context.0.lock().unwrap().private.insert(session(SESSION));
    assert_eq!(scene.renew(OpSet::ALL, HOUR), Err(Denial::SharingForbidden));
}

#[test]
fn renewing_inside_a_permit_is_an_error_and_changes_nothing() {
    let Scene { world, desktop, pairing, phone: Phone { mut guard, .. } } = scene();
    let inside =
        guard.ask(Op::StreamOutput, world.now, || desktop.renew(&world, &pairing, read_only(), HOUR));
    assert_eq!(inside.unwrap(), Err(Denial::ApiMisuse(Misuse::InsidePermit)));
    assert!(guard.ask(Op::SendInput, world.now, || ()).is_ok());
}

#[test]
fn a_renewal_that_cannot_be_written_leaves_streams_narrow_and_waiting() {
    for nth in 1.. {
        let ledger = TestLedger::default();
        let mut scene = scene_on(World::on(ledger.clone()));
        let before = ledger.calls();
        ledger.fail_nth(nth, common::ledger::Fault::Lost);
        let outcome = scene.renew(read_only(), HOUR);
        if ledger.calls() - before < nth {
            assert!(outcome.is_ok() && nth > 10, "{nth}");
            return;
        }
        assert_eq!(outcome, Err(Denial::Ledger(LedgerFailure::Io)), "{nth}");
        assert!(scene.world.gate.is_poisoned());
        assert!(scene.attach(&scene.phone.credential).is_err());
        let _ = scene.phone.guard.ask(Op::StreamOutput, scene.world.now, || ());
    }
}
