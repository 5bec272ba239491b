//! Contracts at their edges: two revokers, a clock that is set back, a session that ends while an offer
//! is under way, a ledger that panics, policy decisions that are repeated.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::ledger::TestLedger;
use common::*;
use sessioncap::agent::ledger::{Ledger, LedgerError, Look, MemoryLedger, Transition};
use sessioncap::agent::*;
use sessioncap::phone::PhoneError;
use sessioncap::*;
use time::{Duration, UtcOffset};

#[test]
fn a_second_revoker_waits_for_the_same_permit_as_the_first() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    let held = HeldPermit::default();
    let (held, world) = (&held, &world);
    let revoke = move || {
        world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
        assert!(!held.is_in_use(), "returned while a permit was in use");
    };
    std::thread::scope(|scope| {
        scope.spawn(move || held.hold(&mut joined.guard, world.now).unwrap());
        held.wait_until_in_use();
        scope.spawn(revoke);
        // The first has written its revocation and waits.
        while world.only_listing().state == ListingState::Active {
            std::thread::yield_now();
        }
        let second = scope.spawn(revoke);
        assert!(held.release_later(&second), "the second did not wait");
    });
}

#[test]
fn time_runs_at_full_speed_under_a_wall_clock_set_back() {
    let mut world = World::new();
    let pairing = world.desktop(9).share(&world, &terms().with_valid_for(3600).unwrap());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    world.now.wall -= Duration::hours(24);
    for _ in 0..2000 {
        world.now = world.now.plus(Duration::milliseconds(1900));
        world.gate.settle(world.now).unwrap();
    }
    assert!(
        world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_err(),
        "attached 3800 s into a 3600 s credential"
    );
}

struct Panicky(MemoryLedger, Arc<AtomicBool>);
impl Ledger for Panicky {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        if self.1.load(Ordering::SeqCst) {
            panic!("the backend panics");
        }
        self.0.read(look)
    }
    fn transact(&self, t: Transition<'_>) -> Result<(), LedgerError> {
        if self.1.load(Ordering::SeqCst) {
            panic!("the backend panics");
        }
        self.0.transact(t)
    }
}
#[test]
fn a_ledger_that_panics_has_failed_like_any_other() {
    let fail = Arc::new(AtomicBool::new(false));
    let world = World::on(Panicky(MemoryLedger::new(), fail.clone()));
    let pairing = world.desktop(9).share(&world, &terms());
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    fail.store(true, Ordering::SeqCst);
    assert_eq!(world.gate.settle(world.now), Err(Denial::Ledger(LedgerFailure::Io)));
    assert!(world.gate.is_poisoned());
    assert!(joined.guard.ask(Op::SendInput, world.now, || ()).is_err(), "every stream is cut");
    fail.store(false, Ordering::SeqCst);
    assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_err(), "and it stays shut");
}

#[test]
fn a_ledger_that_panics_while_its_gate_is_dropped_keeps_no_stream() {
    let fail = Arc::new(AtomicBool::new(false));
    let world = World::on(Panicky(MemoryLedger::new(), fail.clone()));
    let pairing = world.desktop(9).share(&world, &terms());
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    let now = world.now;
    fail.store(true, Ordering::SeqCst);
    drop(world);
    assert!(joined.guard.ask(Op::SendInput, now, || ()).is_err());
}

#[test]
fn a_stream_ends_when_the_gate_has_expired_it() {
    let mut world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    let real = world.now;
    world.now.wall += Duration::days(365);
    world.gate.settle(world.now).unwrap();
    assert!(world.events().iter().any(|e| matches!(e, AuditEvent::CredentialExpired { .. })));
    world.now = real.plus(Duration::seconds(10));
    assert!(joined.guard.ask(Op::SendInput, world.now, || ()).is_err(), "a stream of an expired credential");
}

#[test]
fn a_ticket_is_not_used_up_while_the_operator_forbids_everything() {
    let policy = Policy::with_operator_rules("deny if weekday($d), $d == 4;", UtcOffset::UTC).unwrap();
    let world = World::with(MemoryLedger::new(), |config| config.with_policy(policy));
    let pairing = world.desktop(9).share(&world, &terms());
    // 2026-05-28 is a Thursday
    let refusal = world.join(&pairing.link, &phone(2)).unwrap_err();
    assert_eq!(refusal.denial, Denial::OperatorRule { rule: 1 });
    assert_eq!(refusal.told, Some(PhoneError::Refused(Status::OperationDenied)));
    assert_eq!(world.only_listing().state, ListingState::Open);
}

#[test]
fn a_policy_decision_is_repeated_every_60_seconds() {
    let policy = Policy::with_operator_rules(
        r#"deny if operation("send_input"), hour($h), $h >= 21;"#,
        UtcOffset::UTC,
    )
    .unwrap();
    let mut world = World::with(MemoryLedger::new(), |c| c.with_policy(policy));
    // START 20:26:40
    world.pass(33 * 60 + 17); // 20:59:57
    let pairing = world.desktop(9).share(&world, &terms());
    let asking = world.ask(&pairing.link, &phone(2));
    let Response::Admitted(_, _, guard) = world.respond(&asking.message) else { panic!() };
    world.pass(4); // 21:00:01
    let mut guard = guard.activate_after_first_frame(world.now).unwrap();
    world.pass(59); // 21:01:00, 63 s after the verdict
    assert!(
        guard.ask(Op::SendInput, world.now, || ()).is_err(),
        "input 60 s after 21:00, 63 s after the verdict"
    );
}

/// Ticket secret differs, credential id is the same.
struct SameCid(u8, u8);
impl rand::RngCore for SameCid {
    fn next_u32(&mut self) -> u32 {
        0
    }
    fn next_u64(&mut self) -> u64 {
        0
    }
    fn fill_bytes(&mut self, d: &mut [u8]) {
        self.1 += 1;
        let v = match self.1 {
            1 => self.0,
            2 => 66,
            n => n.wrapping_mul(self.0),
        };
        d.fill(v);
    }
    fn try_fill_bytes(&mut self, d: &mut [u8]) -> Result<(), rand::Error> {
        self.fill_bytes(d);
        Ok(())
    }
}
impl rand::CryptoRng for SameCid {}

/// A revocation by id covers everything with that id, so an id names one record at a time.
#[test]
fn an_id_names_one_record_until_that_is_forgotten() {
    let mut world = World::new();
    let desktop = world.desktop(9);
    let mint = |w: &World, seed, ttl, valid| {
        let t = terms().with_ticket_lifetime(ttl).unwrap().with_valid_for(valid).unwrap();
        desktop.issuer.pair(session(SESSION), &t, w.now.timestamp(), &mut SameCid(seed, 0)).unwrap()
    };
    let a = mint(&world, 10, 900, 30);
    let b = mint(&world, 20, 900, 3600);
    assert_eq!(a.credential, b.credential);
    desktop.lodge(&world, &a).unwrap();
    assert_eq!(desktop.lodge(&world, &b), Err(Denial::OfferRepeated), "while the first is open");
    world.join(&a.link, &phone(2)).map(|_| ()).unwrap();
    assert_eq!(desktop.lodge(&world, &b), Err(Denial::OfferRepeated), "while its credential is on record");
    world.pass(30);
    world.gate.settle(world.now).unwrap();
    world.pass(605);
    world.gate.settle(world.now).unwrap();
    world.gate.settle(world.now).unwrap();
    let b = mint(&world, 20, 900, 3600);
    desktop.lodge(&world, &b).unwrap();
    let mut joined = world.join(&b.link, &phone(3)).unwrap();
    world.gate.revoke_ticket(&a.ticket, world.now).unwrap();
    let p = joined.guard.ask(Op::SendInput, world.now, || ());
    let at = world.attach(&phone(3), &joined.credential, OpSet::EMPTY).map(|_| ());
    assert!(p.is_ok() && at.is_ok(), "stream {p:?}, record {at:?}");
    // The second ticket is forgotten long before its credential, and its id is still in use.
    world.pass(900 + 600);
    world.gate.settle(world.now).unwrap();
    world.gate.settle(world.now).unwrap();
    let again = mint(&world, 20, 900, 3600);
    assert_eq!(again.ticket, b.ticket);
    assert_eq!(desktop.lodge(&world, &again), Err(Denial::OfferRepeated));
    world.gate.revoke_ticket(&b.ticket, world.now).unwrap();
    drop(joined.guard);
    let back = world.attach(&phone(3), &joined.credential, OpSet::EMPTY).unwrap_err();
    assert_eq!(back.denial, Denial::CredentialRevoked);
}

/// A gate that is opened over the same ledger afterwards could not cut the connections of an earlier one.
#[test]
fn dropping_a_gate_cuts_its_connections() {
    let ledger = TestLedger::default();
    let world = World::on(ledger.clone());
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &terms());
    let Joined { mut guard, credential } = world.join(&pairing.link, &phone(2)).unwrap();
    let PeerAdmission::Admitted { guard: pending, .. } =
        world.admit(&phone(2), &attach_payload(OpSet::EMPTY, credential.as_bytes()))
    else {
        panic!()
    };
    let (signal, now, other) = (guard.cut(), world.now, world.gate.clone());
    drop(world);
    assert_eq!(guard.ask(Op::SendInput, now, || ()), Ok(()), "a clone is left");
    drop(other);
    let closed = Denial::Ledger(LedgerFailure::Closed);
    assert_eq!(guard.ask(Op::SendInput, now, || ()), Err(closed.clone()));
    let told = core::pin::pin!(signal).poll(&mut core::task::Context::from_waker(core::task::Waker::noop()));
    assert_eq!(told, core::task::Poll::Ready(closed.clone()));
    assert_eq!(pending.activate_after_first_frame(now).unwrap_err(), closed);
    let again = World::on(ledger);
    again.enrol(desktop.device);
    assert!(again.attach(&phone(2), &credential, OpSet::EMPTY).is_ok(), "the phone may come back");
}

#[test]
fn dropping_a_gate_waits_for_the_permit_that_is_in_use() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    let now = world.now;
    let mut cut = Box::pin(joined.guard.cut());
    let held = HeldPermit::default();
    std::thread::scope(|scope| {
        let held = &held;
        scope.spawn(move || held.hold(&mut joined.guard, now));
        held.wait_until_in_use();
        let dropping = scope.spawn(move || drop(world));
        // From the cut on, it is only the permit that it waits for.
        while cut.as_mut().poll(&mut core::task::Context::from_waker(core::task::Waker::noop())).is_pending()
        {
            std::thread::yield_now();
        }
        let waited = (0..200).all(|_| {
            std::thread::yield_now();
            !dropping.is_finished()
        });
        held.release();
        assert!(waited);
    });
}

#[test]
fn a_gate_may_be_dropped_inside_a_permit() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    let now = world.now;
    assert_eq!(joined.guard.ask(Op::SendInput, now, || drop(world)), Ok(()));
    assert!(joined.guard.ask(Op::SendInput, now, || ()).is_err());
}

#[cfg(feature = "redb")]
#[test]
fn a_file_can_be_opened_again_once_its_gate_is_dropped_or_has_failed() {
    let directory = std::env::temp_dir().join(format!("sessioncap-contracts-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("ledger.redb");
    let open = || sessioncap::agent::ledger::RedbLedger::open(&path);
    let world = World::on(open().unwrap());
    let joined = world.join(&world.desktop(9).share(&world, &terms()).link, &phone(2)).unwrap();
    assert_eq!(open().err().map(|error| error.cause()), Some(LedgerFailure::InUse));
    drop(world.gate);
    drop(World::on(open().unwrap()));
    drop(joined);
    std::fs::remove_dir_all(&directory).unwrap();
}

struct PanickingWaker;

impl std::task::Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        panic!("foreign code");
    }
}

#[test]
fn a_waker_that_panics_holds_up_neither_the_revoker_nor_other_streams() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let mut second = world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap();
    let (panicking, counting) =
        (std::task::Waker::from(Arc::new(PanickingWaker)), Arc::new(Counting::default()));
    let (mut first_cut, mut second_cut) = (Box::pin(joined.guard.cut()), Box::pin(second.cut()));
    let counted = std::task::Waker::from(Arc::clone(&counting));
    assert!(first_cut.as_mut().poll(&mut core::task::Context::from_waker(&panicking)).is_pending());
    assert!(second_cut.as_mut().poll(&mut core::task::Context::from_waker(&counted)).is_pending());
    assert!(world.gate.revoke_credential(&pairing.credential, world.now).is_ok());
    assert_eq!(counting.0.load(Ordering::SeqCst), 1, "the other stream is woken");
    assert_eq!(second.ask(Op::SendInput, world.now, || ()), Err(Denial::CredentialRevoked));
}

#[derive(Default)]
struct Counting(std::sync::atomic::AtomicUsize);

impl std::task::Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_gone_session_comes_before_a_contest() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let _joined = world.join(&pairing.link, &phone(2)).unwrap();
    world.stop_session(SESSION);
    let other = world.join(&pairing.link, &phone(3)).unwrap_err();
    assert_eq!(other.denial, Denial::SessionGone);
    let ended = ListingState::Revoked { why: RevocationReason::SessionEnd };
    assert_eq!(world.only_listing().state, ended, "by the session's end, not by the contest");
}

#[test]
fn the_last_second_of_the_year_9999_panics_nowhere() {
    let rules = "deny if weekday($d), $d == 4, hour($h), $h == 3;";
    let policy = Policy::with_operator_rules(rules, UtcOffset::from_hms(2, 0, 0).unwrap()).unwrap();
    let mut world = World::with(MemoryLedger::new(), |config| config.with_policy(policy));
    world.now = common::at(253_402_300_700, 5);
    let desktop = world.desktop(9);
    let pairing = desktop.mint(&world, &terms());
    let _ = desktop.lodge(&world, &pairing);
    assert!(world.join(&pairing.link, &phone(2)).is_err());
}

#[test]
fn a_narrowed_copy_without_operations_left_is_refused_as_such() {
    let world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let whole = Credential::parse(&joined.credential).unwrap();
    let copy = whole.attenuate(Some(OpSet::only(Op::StreamOutput)), None, &mut rand::rngs::OsRng).unwrap();
    desktop.renew(&world, &pairing, OpSet::only(Op::ReadMetadata), 3_600).unwrap();
    // Its own block excludes the operations that the owner has left; the owner removed the one it asks for.
    let own = Caveat::Ops(OpSet::only(Op::StreamOutput));
    let reasons = [
        (OpSet::EMPTY, Denial::CaveatFailed { block: 2, caveat: Box::new(own) }),
        (OpSet::only(Op::StreamOutput), Denial::OperationNotGranted { op: Op::StreamOutput }),
    ];
    for (ops, denial) in reasons {
        let refusal = world.attach(&phone(2), copy.bytes(), ops).unwrap_err();
        assert_eq!(refusal, Refusal::told(denial, Status::OperationDenied));
    }
}

#[test]
fn at_activation_the_ledgers_reason_precedes_the_credentials() {
    let mut world = World::new();
    let desktop = world.desktop(9);
    let admitted = |world: &World, seed: u8| {
        let pairing = desktop.share(world, &terms().with_valid_for(60).unwrap());
        let payload = world.open(&world.ask(&pairing.link, &phone(seed)).message).unwrap().payload().to_vec();
        let PeerAdmission::Admitted { guard, .. } = world.admit(&phone(seed), &payload) else { panic!() };
        (pairing, guard)
    };
    let ((revoked, first), (_, second)) = (admitted(&world, 2), admitted(&world, 3));
    world.gate.revoke_credential(&revoked.credential, world.now).unwrap();
    // the wall clock alone, so that neither has waited too long
    world.now.wall += Duration::seconds(60);
    assert_eq!(first.activate_after_first_frame(world.now).unwrap_err(), Denial::CredentialRevoked);
    assert_eq!(second.activate_after_first_frame(world.now).unwrap_err(), Denial::CredentialExpired);
}
