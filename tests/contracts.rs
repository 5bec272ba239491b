//! Contracts at their edges: two revokers, a clock that is set back, a session that ends while an offer
//! is under way, a ledger that panics, verdicts that grow old.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::*;
use sessioncap::ledger::{Ledger, MemoryLedger, Transition};
use sessioncap::*;
use time::{Duration, UtcOffset};

#[test]
fn a_second_revoker_waits_for_the_same_permit_as_the_first() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    let (inside, release) = (AtomicBool::new(false), AtomicBool::new(false));
    let (inside, release, world) = (&inside, &release, &world);
    let revoke = move || {
        world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
        assert!(!inside.load(Ordering::SeqCst), "returned while a permit was in use");
    };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let permit = joined.guard.permit(Op::SendInput, world.now, || {
                inside.store(true, Ordering::SeqCst);
                while !release.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                inside.store(false, Ordering::SeqCst);
            });
            permit.unwrap();
        });
        while !inside.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        scope.spawn(revoke);
        // The first has written its revocation and waits.
        while world.only_listing().state == ListingState::Active {
            std::thread::yield_now();
        }
        let second = scope.spawn(revoke);
        for _ in 0..2_000 {
            assert!(!second.is_finished(), "the second did not wait");
            std::thread::yield_now();
        }
        release.store(true, Ordering::SeqCst);
    });
}

#[test]
fn time_runs_at_full_speed_under_a_wall_clock_set_back() {
    let mut world = World::new();
    let pairing = world.desktop(9).share(&world, &terms().valid_for(3600).unwrap());
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

type Interruption = Box<dyn FnOnce() + Send>;

/// Lets something happen between the agent's answer and the ledger's.
struct Racy(Arc<Mutex<Option<Interruption>>>);
struct RacyContext(Context, Racy);
impl AgentContext for RacyContext {
    fn is_enrolled(&self, d: &DevicePublicKey) -> bool {
        self.0.is_enrolled(d)
    }
    fn session_is_live(&self, s: &SessionId) -> bool {
        self.0.session_is_live(s)
    }
    fn may_share(&self, d: &DevicePublicKey, s: &SessionId) -> bool {
        let answer = self.0.may_share(d, s);
        if let Some(f) = self.1.0.lock().unwrap().take() {
            f()
        }
        answer
    }
}

#[test]
fn an_offer_in_flight_does_not_outlive_its_session() {
    let mut world = World::new();
    let slot = Arc::new(Mutex::new(None::<Interruption>));
    let config = GateConfig::new(world.agent.public(), [AgentUrl::parse(URL).unwrap()]).unwrap();
    let context = RacyContext(world.context.clone(), Racy(slot.clone()));
    world.gate = Gate::open(config, MemoryLedger::new(), context, world.now).unwrap();
    let desktop = world.desktop(9);
    let pairing = desktop.mint(&world, &terms());
    let (gate, context, now) = (world.gate.clone(), world.context.clone(), world.now);
    *slot.lock().unwrap() = Some(Box::new(move || {
        context.0.lock().unwrap().sessions.remove(&session(SESSION));
        gate.end_session(&session(SESSION), now).unwrap();
        context.0.lock().unwrap().sessions.insert(session(SESSION)); // another session under the same id
    }));
    let lodged = desktop.lodge(&world, &pairing);
    let joined = world.join(&pairing.link, &phone(2));
    assert!(lodged.is_err() || joined.is_err(), "a phone is in a session that nobody offered");
}

struct Panicky(MemoryLedger, Arc<AtomicBool>);
impl Ledger for Panicky {
    fn transact(&mut self, t: Transition<'_>) -> Result<(), LedgerFailure> {
        if self.1.load(Ordering::SeqCst) {
            panic!("the backend panics");
        }
        self.0.transact(t)
    }
}
#[test]
fn a_ledger_that_panicked_stays_shut() {
    let fail = Arc::new(AtomicBool::new(false));
    let world = World::on(Panicky(MemoryLedger::new(), fail.clone()));
    let pairing = world.desktop(9).share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    fail.store(true, Ordering::SeqCst);
    let (gate, now) = (world.gate.clone(), world.now);
    let out = std::thread::spawn(move || gate.revoke_credential(&pairing.credential, now)).join();
    assert!(out.is_err());
    fail.store(false, Ordering::SeqCst);
    let again = world.attach(&phone(2), &joined.credential, OpSet::EMPTY);
    assert!(
        world.gate.is_poisoned() && again.is_err(),
        "poisoned {}, attached {}",
        world.gate.is_poisoned(),
        again.is_ok()
    );
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
    assert!(
        joined.guard.permit(Op::SendInput, world.now, || ()).is_err(),
        "a stream of an expired credential"
    );
}

#[test]
fn a_ticket_is_not_used_up_while_the_operator_forbids_everything() {
    let policy = Policy::with_operator_rules("deny if weekday($d), $d == 4;", UtcOffset::UTC).unwrap();
    let world = World::with(MemoryLedger::new(), |config| config.with_policy(policy));
    let pairing = world.desktop(9).share(&world, &terms());
    // 2026-05-28 is a Thursday
    let refusal = world.join(&pairing.link, &phone(2)).unwrap_err();
    assert_eq!(refusal.denial, Denial::OperatorRule { rule: 1 });
    assert_eq!(refusal.told, Some(Error::Refused(Status::OperationDenied)));
    assert_eq!(world.only_listing().state, ListingState::Open);
}

#[test]
fn a_verdict_is_decided_anew_every_60_seconds() {
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
    let mut guard = guard.activate(world.now).unwrap();
    world.pass(59); // 21:01:00, 63 s after the verdict
    assert!(
        guard.permit(Op::SendInput, world.now, || ()).is_err(),
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

#[test]
fn two_tickets_with_one_credential_id_do_not_share_a_fate() {
    let mut world = World::new();
    let desktop = world.desktop(9);
    let mint = |w: &World, seed, ttl, valid| {
        let t = terms().with_ticket_lifetime(ttl).unwrap().valid_for(valid).unwrap();
        desktop.issuer.pair(session(SESSION), &t, w.now.timestamp(), &mut SameCid(seed, 0)).unwrap()
    };
    let a = mint(&world, 10, 900, 30);
    let b = mint(&world, 20, 900, 3600);
    assert_eq!(a.credential, b.credential);
    desktop.lodge(&world, &a).unwrap();
    desktop.lodge(&world, &b).unwrap();
    world.join(&a.link, &phone(2)).map(|_| ()).unwrap();
    world.pass(30);
    world.gate.settle(world.now).unwrap();
    world.pass(605);
    world.gate.settle(world.now).unwrap();
    world.gate.settle(world.now).unwrap();
    let mut joined = world.join(&b.link, &phone(3)).unwrap();
    world.gate.revoke_ticket(&a.ticket, world.now).unwrap();
    let p = joined.guard.permit(Op::SendInput, world.now, || ());
    let at = world.attach(&phone(3), &joined.credential, OpSet::EMPTY).map(|_| ());
    assert!(p.is_ok() && at.is_ok(), "stream {p:?}, record {at:?}");
}

#[test]
fn a_gone_session_comes_before_a_contest() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let _joined = world.join(&pairing.link, &phone(2)).unwrap();
    world.stop_session(SESSION);
    let other = world.join(&pairing.link, &phone(3)).unwrap_err();
    assert_eq!(other.denial, Denial::SessionGone);
    assert_eq!(world.only_listing().state, ListingState::Active, "nothing was revoked on the way");
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
fn a_narrowed_copy_that_has_nothing_left_is_told_so() {
    let world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let whole = Credential::parse(&joined.credential).unwrap();
    let copy = whole.attenuate(Some(OpSet::only(Op::StreamOutput)), None, &mut rand::rngs::OsRng).unwrap();
    desktop.renew(&world, &pairing, OpSet::only(Op::ReadMetadata), 3_600).unwrap();
    for ops in [OpSet::EMPTY, OpSet::only(Op::StreamOutput)] {
        let refusal = world.attach(&phone(2), copy.bytes(), ops).unwrap_err();
        assert_eq!(refusal.told, Some(Error::Refused(Status::OperationDenied)), "{:?}", refusal.denial);
    }
}
