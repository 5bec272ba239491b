//! Changes while a call waits for the agent's context, which it asks without holding the gate's lock.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use std::sync::{Arc, Mutex};

use common::ledger::TestLedger;
use common::*;
use sessioncap::agent::*;
use sessioncap::desktop::*;
use sessioncap::*;
use time::Duration;

type Interruption = Box<dyn FnOnce() + Send>;

/// The questions of the gate to its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Enrolled,
    SessionLive,
    MayShare,
}

/// Answers as ever, and lets something happen right after its answer to one question.
#[derive(Clone, Default)]
struct Interrupted {
    context: Context,
    next: Arc<Mutex<Option<(Question, Interruption)>>>,
}

impl Interrupted {
    fn after(&self, question: Question, what: impl FnOnce() + Send + 'static) {
        *self.next.lock().unwrap() = Some((question, Box::new(what)));
    }

    fn answered<T>(&self, question: Question, answer: T) -> T {
        let mut next = self.next.lock().unwrap();
        let now = next.take_if(|(awaited, _)| *awaited == question);
        drop(next);
        if let Some((_, interruption)) = now {
            interruption();
        }
        answer
    }
}

impl AgentContext for Interrupted {
    fn device(&self, device: &DevicePublicKey) -> Presence {
        self.answered(Question::Enrolled, self.context.device(device))
    }
    fn session(&self, session: &SessionId) -> Presence {
        self.answered(Question::SessionLive, self.context.session(session))
    }
    fn may_share(&self, device: &DevicePublicKey, session: &SessionId) -> bool {
        self.answered(Question::MayShare, self.context.may_share(device, session))
    }
}

/// A world whose agent can be interrupted, and its desktop.
fn world_on(ledger: &TestLedger) -> (World, Interrupted, Desktop) {
    let mut world = World::new();
    let context = Interrupted { context: world.context.clone(), ..Interrupted::default() };
    let audit = Arc::clone(&world.audit);
    audit.lock().unwrap().clear();
    let config = GateConfig::new(world.agent.public(), [AgentUrl::parse(URL).unwrap()]).unwrap();
    let config = config.with_audit_fn(move |record| audit.lock().unwrap().push(record));
    world.gate = Gate::open(config, ledger.clone(), context.clone(), world.now).unwrap();
    let desktop = world.desktop(9);
    (world, context, desktop)
}

fn world() -> (World, Interrupted, Desktop) {
    world_on(&TestLedger::default())
}

/// The session ends, and another begins under its id.
fn end_and_begin_again(world: &World) -> impl FnOnce() + Send + 'static {
    let (gate, context, now) = (world.gate.clone(), world.context.clone(), world.now);
    move || {
        context.0.lock().unwrap().sessions.remove(&session(SESSION));
        gate.end_session(&session(SESSION), now).unwrap();
        context.0.lock().unwrap().sessions.insert(session(SESSION));
    }
}

#[test]
fn an_offer_does_not_outlive_its_session() {
    let (world, context, desktop) = world();
    let pairing = desktop.mint(&world, &terms());
    context.after(Question::MayShare, end_and_begin_again(&world));
    assert_eq!(desktop.lodge(&world, &pairing), Err(Denial::Interrupted));
    assert!(world.join(&pairing.link, &phone(2)).is_err(), "a phone is in a session that nobody offered");
    assert_eq!(desktop.lodge(&world, &pairing), Ok(()), "the next try is about the new session");
}

#[test]
fn a_renewal_does_not_outlive_its_session() {
    for question in [Question::SessionLive, Question::MayShare] {
        let (world, context, desktop) = world();
        let pairing = desktop.share(&world, &terms());
        let joined = world.join(&pairing.link, &phone(2)).unwrap();
        context.after(question, end_and_begin_again(&world));
        let denial = desktop.renew(&world, &pairing, OpSet::ALL, 7_200).unwrap_err();
        assert!(matches!(denial, Denial::Interrupted | Denial::SessionGone), "{denial}");
        assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_err());
        assert_eq!(world.only_listing().renewal, None);
    }
}

#[test]
fn a_registration_does_not_outlive_its_device() {
    let (world, context, desktop) = world();
    world.gate.revoke_device(&desktop.device, world.now).unwrap();
    let (gate, now, devices) = (world.gate.clone(), world.now, world.context.clone());
    let device = desktop.device;
    context.after(Question::Enrolled, move || {
        devices.0.lock().unwrap().devices.remove(&device);
        gate.sync_devices(&[], now).unwrap();
    });
    assert_eq!(desktop.register(&world), Err(Denial::Interrupted));
    world.enrol(desktop.device);
    let pairing = desktop.mint(&world, &terms());
    assert_eq!(desktop.lodge(&world, &pairing), Err(Denial::IssuerUnknown), "nothing was registered");
}

/// An agent whose clock once stood ten years ahead, with a phone's ticket, and its right time.
fn world_from_the_future(ledger: &TestLedger) -> (World, Interrupted, Desktop, Pairing, Now) {
    let (mut world, context, desktop) = world_on(ledger);
    let right = world.now.plus(Duration::seconds(5));
    world.now.wall += Duration::days(3_650);
    world.gate.settle(world.now).unwrap();
    let pairing = desktop.share(&world, &terms());
    (world, context, desktop, pairing, right)
}

/// Sets the clock right, as an operator does.
fn reset(world: &World, right: Now) -> impl FnOnce() + Send + 'static {
    let gate = world.gate.clone();
    move || gate.reset_clock(right).unwrap()
}

/// That the agent's time is right, here and after a restart.
fn assert_reset(mut world: World, desktop: &Desktop, ledger: &TestLedger, right: Now) {
    world.now = right.plus(Duration::seconds(1));
    desktop.register(&world).unwrap();
    let pairing = desktop.share(&world, &terms());
    let receipt_is_right = world.only_listing().expires_at.since(right.timestamp()) < 1_000;
    assert!(receipt_is_right, "the future is back: {:?}", world.only_listing());
    drop(world);
    let mut again =
        World::try_with(ledger.clone(), right.plus(Duration::seconds(2)), |config| config).unwrap();
    again.now = right.plus(Duration::seconds(2));
    again.enrol(desktop.device);
    assert!(again.join(&pairing.link, &phone(4)).is_ok(), "the future is back after a restart");
}

#[test]
fn an_operators_reset_is_not_undone_by_a_renewal_under_way() {
    for question in [Question::Enrolled, Question::SessionLive, Question::MayShare] {
        let ledger = TestLedger::default();
        let (world, context, desktop, pairing, right) = world_from_the_future(&ledger);
        let _joined = world.join(&pairing.link, &phone(2)).unwrap();
        context.after(question, reset(&world, right));
        assert!(desktop.renew(&world, &pairing, OpSet::COMPANION, 600).is_err());
        assert_reset(world, &desktop, &ledger, right);
    }
}

#[test]
fn an_operators_reset_is_not_undone_by_a_redemption_under_way() {
    let ledger = TestLedger::default();
    let (world, context, desktop, pairing, right) = world_from_the_future(&ledger);
    context.after(Question::SessionLive, reset(&world, right));
    assert!(world.join(&pairing.link, &phone(2)).is_err());
    assert_reset(world, &desktop, &ledger, right);
}

#[test]
fn an_operators_reset_is_not_undone_by_an_attach_or_an_activation_under_way() {
    let ledger = TestLedger::default();
    let (world, context, desktop, pairing, right) = world_from_the_future(&ledger);
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let payload = attach_payload(OpSet::EMPTY, joined.credential.as_bytes());
    let PeerAdmission::Admitted { guard, .. } = world.admit(&phone(2), &payload) else { panic!() };
    context.after(Question::SessionLive, reset(&world, right));
    assert!(guard.activate_after_first_frame(world.now).is_err());
    assert!(matches!(world.admit(&phone(2), &payload), PeerAdmission::Refused { .. }));
    assert_reset(world, &desktop, &ledger, right);
}

#[test]
fn an_offer_does_not_outlive_a_reset() {
    let ledger = TestLedger::default();
    let (world, context, desktop, _, right) = world_from_the_future(&ledger);
    let pairing = desktop.mint(&world, &terms());
    context.after(Question::MayShare, reset(&world, right));
    assert_eq!(desktop.lodge(&world, &pairing), Err(Denial::Interrupted));
    assert_reset(world, &desktop, &ledger, right);
}

#[test]
fn audit_records_never_go_back_in_time() {
    let (mut world, context, desktop) = world();
    let pairing = desktop.share(&world, &terms().with_ticket_lifetime(30).unwrap());
    let other = desktop.share(&world, &terms());
    let _joined = world.join(&pairing.link, &phone(2)).unwrap();
    let (gate, later) = (world.gate.clone(), world.now.plus(Duration::seconds(100)));
    context.after(Question::SessionLive, move || gate.revoke_ticket(&other.ticket, later).map(drop).unwrap());
    world.pass(40);
    let _ = desktop.renew(&world, &pairing, OpSet::COMPANION, 600);
    let records = world.audit.lock().unwrap().clone();
    assert!(records.len() > 5);
    assert!(records.is_sorted_by_key(|record| record.at), "{records:?}");
}

#[test]
fn a_phone_that_waits_is_not_confirmed_into_a_session_that_is_gone() {
    let (world, context, desktop) = world();
    let pairing = desktop.share(&world, &terms().with_confirmation(Confirmation::Required));
    assert_eq!(world.join(&pairing.link, &phone(2)).unwrap_err().denial, Denial::ConfirmationPending);
    let confirm = || world.gate.confirm(&desktop.device, &pairing.ticket, &phone(2).public(), world.now);
    world.stop_session(SESSION);
    assert_eq!(confirm(), Err(Denial::SessionGone), "by the agent's word alone");
    world.start_session(SESSION);
    context.after(Question::SessionLive, end_and_begin_again(&world));
    assert_eq!(confirm(), Err(Denial::SessionGone), "by the ledger's word");
}
