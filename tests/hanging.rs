//! A ledger, an audit sink, a context and a waker that hang: a cut waits for none of them. Each is released
//! only after the refusal was seen.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context as Task, Poll, Wake, Waker};
use std::thread;
use std::time::Duration as Time;

use common::*;
use sessioncap::agent::ledger::{Ledger, LedgerError, Look, MemoryLedger, Transition};
use sessioncap::agent::*;
use sessioncap::desktop::*;
use sessioncap::*;

/// Longer than anything here takes. Reached only by a call that waits for what it must not wait for.
const PATIENCE: Time = Time::from_secs(120);

/// A place at which a thread hangs until it is released.
#[derive(Clone, Default)]
struct Hold(Arc<(Mutex<HoldState>, Condvar)>);

#[derive(Default)]
struct HoldState {
    armed: bool,
    hanging: usize,
}

impl Hold {
    fn arm(&self) {
        self.0.0.lock().unwrap().armed = true;
    }

    /// Hangs, if it is armed.
    fn pass(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        if state.armed {
            state.hanging += 1;
            changed.notify_all();
            drop(changed.wait_while(state, |state| state.armed).unwrap());
        }
    }

    /// Until somebody hangs here.
    fn wait_for_somebody(&self) {
        let (state, changed) = &*self.0;
        let waited = changed.wait_timeout_while(state.lock().unwrap(), PATIENCE, |state| state.hanging == 0);
        assert!(!waited.unwrap().1.timed_out(), "nobody came here");
    }

    fn release(&self) {
        let (state, changed) = &*self.0;
        *state.lock().unwrap() = HoldState::default();
        changed.notify_all();
    }
}

/// Wakes by an event, so that a test can wait for a future.
#[derive(Default)]
struct Bell(Mutex<bool>, Condvar);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

fn wait_for<F: Future>(future: F) -> F::Output {
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Task::from_waker(&waker)) {
            return output;
        }
        let rung = bell.1.wait_timeout_while(bell.0.lock().unwrap(), PATIENCE, |rung| !*rung).unwrap();
        assert!(!rung.1.timed_out(), "nothing has happened");
        drop(rung);
        *bell.0.lock().unwrap() = false;
    }
}

#[derive(Default)]
struct HangingLedger {
    rows: MemoryLedger,
    hold: Hold,
}

impl Ledger for HangingLedger {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        self.rows.read(look)
    }

    fn transact(&self, transition: Transition<'_>) -> Result<(), LedgerError> {
        self.hold.pass();
        self.rows.transact(transition)
    }
}

/// One way to revoke what a pairing gave.
type Verb = fn(&Gate, &Pairing, &Desktop, Now) -> Result<(), Denial>;

const VERBS: [(&str, Verb, Denial); 9] = [
    (
        "ticket",
        |gate, pairing, _, now| gate.revoke_ticket(&pairing.ticket, now).map(drop),
        Denial::CredentialRevoked,
    ),
    (
        "credential",
        |gate, pairing, _, now| gate.revoke_credential(&pairing.credential, now).map(drop),
        Denial::CredentialRevoked,
    ),
    (
        "session",
        |gate, _, _, now| gate.revoke_session(&session(SESSION), now).map(drop),
        Denial::CredentialRevoked,
    ),
    (
        "session's end",
        |gate, _, _, now| gate.end_session(&session(SESSION), now).map(drop),
        Denial::SessionGone,
    ),
    (
        "issuer",
        |gate, _, desktop, now| gate.revoke_issuer(&desktop.issuer.public(), now).map(drop),
        Denial::CredentialRevoked,
    ),
    (
        "device",
        |gate, _, desktop, now| gate.revoke_device(&desktop.device, now).map(drop),
        Denial::CredentialRevoked,
    ),
    ("devices", |gate, _, _, now| gate.sync_devices(&[], now).map(drop), Denial::CredentialRevoked),
    (
        "phone",
        |gate, _, desktop, now| gate.revoke_phone(&desktop.device, &text("kitchen"), now).map(drop),
        Denial::CredentialRevoked,
    ),
    ("clock", |gate, _, _, now| gate.reset_clock(now), Denial::CredentialRevoked),
];

fn named() -> PairingTerms {
    terms().with_label(text("kitchen"))
}

#[test]
fn a_cut_waits_for_no_ledger() {
    for (name, verb, reason) in VERBS {
        let ledger = Arc::new(HangingLedger::default());
        let world = World::on(Arc::clone(&ledger));
        let desktop = world.desktop(9);
        let pairing = desktop.share(&world, &named());
        let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
        let (gate, now) = (world.gate.clone(), world.now);
        ledger.hold.arm();
        // Somebody else's call has the ledger, and hangs in it.
        let other = world.gate.clone();
        let settling = thread::spawn(move || other.settle(now));
        ledger.hold.wait_for_somebody();
        let revoking = thread::spawn(move || verb(&gate, &pairing, &desktop, now));
        assert_eq!(wait_for(joined.guard.cut()), reason, "{name}");
        assert_eq!(joined.guard.ask(Op::SendInput, now, || ()), Err(reason), "{name}");
        assert!(!world.gate.is_poisoned() && world.gate.failure().is_none(), "nor does health wait");
        let (stats, health) = (world.gate.stats(), world.gate.health(world.now));
        assert_eq!((stats.redeemed, stats.connections), (1, 1), "{name}");
        assert!(health.is_healthy(), "{name}: {health:?}");
        assert!(!revoking.is_finished(), "it is not on record yet");
        ledger.hold.release();
        assert_eq!(revoking.join().unwrap(), Ok(()), "{name}");
        let _ = settling.join().unwrap();
    }
}

/// A revocation wakes what it has cut before it asks for the ledger, so that a waker acts in between.
#[test]
fn nobody_joins_between_the_cut_and_its_record() {
    for (name, verb, _) in VERBS {
        let world = Arc::new(World::new());
        let desktop = world.desktop(9);
        let (pairing, open) = (Arc::new(desktop.share(&world, &named())), desktop.share(&world, &named()));
        let joined = world.join(&pairing.link, &phone(2)).unwrap();
        let payload = attach_payload(OpSet::EMPTY, joined.credential.as_bytes());
        let PeerAdmission::Admitted { guard, .. } = world.admit(&phone(2), &payload) else { panic!() };
        // Neither has a name in common with it but the device, or the label.
        world.start_session("other");
        let (neighbour, hall) = (world.desktop(8), terms().with_label(text("hall")));
        let bystanders = [
            (phone(4), neighbour.share_session(&world, "other", &named())),
            (phone(5), desktop.share_session(&world, "other", &hall)),
        ];
        let bystanders = bystanders.map(|(key, pairing)| {
            let joined = world.join(&pairing.link, &key).unwrap();
            (key, joined)
        });
        world.gate.settle(world.now).unwrap();
        let events = world.events().len();
        let outcome = Arc::new(Mutex::new(None));
        let waker = on_wake({
            let (world, pairing, outcome) = (Arc::clone(&world), Arc::clone(&pairing), Arc::clone(&outcome));
            move || {
                let activated = guard.activate_after_first_frame(world.now).map(drop);
                let attached = match world.admit(&phone(2), &payload) {
                    PeerAdmission::Admitted { .. } => Ok(()),
                    PeerAdmission::Refused { denial, .. } => Err(denial),
                    PeerAdmission::PassThrough => panic!("taken for a device"),
                };
                let again = world.join(&pairing.link, &phone(2)).map(drop).map_err(|refusal| refusal.denial);
                let redeemed = world.join(&open.link, &phone(3)).map(drop).map_err(|refusal| refusal.denial);
                let told = world.events().len();
                let others = bystanders.map(|(key, joined)| {
                    let payload = attach_payload(OpSet::EMPTY, joined.credential.as_bytes());
                    matches!(world.admit(&key, &payload), PeerAdmission::Admitted { .. })
                });
                *outcome.lock().unwrap() = Some(([activated, attached, again], redeemed, told, others));
            }
        });
        let mut cut = pin!(joined.guard.cut());
        assert!(cut.as_mut().poll(&mut Task::from_waker(&waker)).is_pending());
        verb(&world.gate, &pairing, &desktop, world.now).unwrap();
        let (of_the_first, redeemed, told, others) = outcome.lock().unwrap().take().unwrap();
        // The reason, from the revocation under way.
        let denial = match name {
            "issuer" | "device" | "devices" => Denial::IssuerRevoked,
            "session's end" => Denial::SessionGone,
            "clock" => Denial::Interrupted,
            _ => Denial::CredentialRevoked,
        };
        assert_eq!(of_the_first, [(); 3].map(|()| Err(denial.clone())), "{name}");
        let go_on = match name {
            "issuer" | "device" => [true, false],
            "devices" | "clock" => [false, false],
            _ => [true, true],
        };
        assert_eq!(others, go_on, "{name}: another device's, and another one of this device");
        // A ticket and a credential are one pairing; every other verb names both.
        match ["ticket", "credential"].contains(&name) {
            true => assert_eq!(redeemed, Ok(()), "{name}"),
            false => assert_eq!((redeemed, told), (Err(denial), events), "{name}"),
        }
    }
}

/// Requests of a desktop in between are refused as interrupted; it asks again.
#[test]
fn nothing_is_registered_offered_renewed_or_confirmed_between_the_cut_and_its_record() {
    for (name, verb, _) in VERBS {
        let world = Arc::new(World::new());
        let desktop = Arc::new(world.desktop(9));
        let pairing = Arc::new(desktop.share(&world, &named()));
        let joined = world.join(&pairing.link, &phone(2)).unwrap();
        let waits = desktop.share(&world, &named().with_confirmation(Confirmation::Required));
        assert!(world.join(&waits.link, &phone(3)).is_err(), "it waits");
        let offered = desktop.mint(&world, &named());
        let second_key = Desktop { device: desktop.device, ..Desktop::new(&world, 11) };
        let outcome = Arc::new(Mutex::new(None));
        let waker = on_wake({
            let (world, desktop, pairing) = (Arc::clone(&world), Arc::clone(&desktop), Arc::clone(&pairing));
            let outcome = Arc::clone(&outcome);
            move || {
                let renewed = desktop.renew(&world, &pairing, OpSet::ALL, 3_600).map(drop);
                let confirmed =
                    world.gate.confirm(&desktop.device, &waits.ticket, &phone(3).public(), world.now);
                let offered = world.gate.offer(&desktop.device, &offered.offer, world.now).map(drop);
                *outcome.lock().unwrap() = Some([renewed, confirmed, offered, second_key.register(&world)]);
            }
        });
        let mut cut = pin!(joined.guard.cut());
        assert!(cut.as_mut().poll(&mut Task::from_waker(&waker)).is_pending());
        verb(&world.gate, &pairing, &desktop, world.now).unwrap();
        // The renewal is of the very pairing. The phone that waits and the offer have another ticket, but the
        // same session and label; the registration has another issuer key of the same device.
        let refused = match name {
            "ticket" | "credential" => [true, false, false, false],
            "session" | "session's end" | "phone" | "issuer" => [true, true, true, false],
            _ => [true; 4],
        };
        let outcome = outcome.lock().unwrap().take().unwrap();
        let expected = refused.map(|refused| if refused { Err(Denial::Interrupted) } else { Ok(()) });
        assert_eq!(outcome, expected, "{name}: renewed, confirmed, offered, registered");
    }
}

/// A sink that hangs, and otherwise keeps its records.
#[derive(Clone, Default)]
struct HangingSink {
    hold: Hold,
    records: Arc<Mutex<Vec<AuditRecord>>>,
}

impl AuditSink for HangingSink {
    fn record(&self, record: &AuditRecord) -> Result<(), NotKept> {
        self.hold.pass();
        self.records.lock().unwrap().push(record.clone());
        Ok(())
    }
}

#[test]
fn a_cut_waits_for_no_audit_sink() {
    for (name, verb, reason) in VERBS {
        let sink = HangingSink::default();
        let world = World::with(MemoryLedger::new(), |config| config.with_audit(sink.clone()));
        world.start_session("other");
        let (desktop, elsewhere) = (world.desktop(9), world.desktop(8));
        let pairing = desktop.share(&world, &named());
        let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
        let first = elsewhere.share_session(&world, "other", &terms());
        let second = elsewhere.share_session(&world, "other", &terms());
        let _first = world.join(&first.link, &phone(3)).unwrap();
        let mut goes_on = world.join(&second.link, &phone(4)).unwrap();
        let now = world.now;
        world.gate.settle(now).unwrap();
        sink.hold.arm();
        let gate = world.gate.clone();
        let hanging = thread::spawn(move || gate.revoke_credential(&first.credential, now));
        sink.hold.wait_for_somebody();
        assert_eq!(world.gate.health(now).audit_waiting, 1, "{name}: nor does watching wait for the sink");
        // The ledger is free, so all of this answers.
        assert!(world.list().iter().any(|listing| listing.credential == second.credential));
        let later = now.plus(time::Duration::seconds(60));
        world.gate.settle(later).unwrap();
        assert_eq!(goes_on.guard.ask(Op::SendInput, later, || 1), Ok(1), "{name}: streams go on");
        let gate = world.gate.clone();
        let revoking = thread::spawn(move || verb(&gate, &pairing, &desktop, later));
        assert_eq!(wait_for(joined.guard.cut()), reason, "{name}");
        assert_eq!(joined.guard.ask(Op::SendInput, later, || ()), Err(reason), "{name}");
        sink.hold.release();
        assert!(hanging.join().unwrap().is_ok());
        assert_eq!(revoking.join().unwrap(), Ok(()), "{name}");
        let records = sink.records.lock().unwrap();
        let told = records.iter().map(|record| record.sequence);
        assert!(told.eq(0..records.len() as u64), "{name}: in order, each once");
    }
}

/// Answers as ever, but hangs.
#[derive(Clone)]
struct HangingContext {
    context: Context,
    hold: Hold,
}

impl AgentContext for HangingContext {
    fn device(&self, device: &DevicePublicKey) -> Presence {
        self.hold.pass();
        self.context.device(device)
    }

    fn session(&self, session: &SessionId) -> Presence {
        self.hold.pass();
        self.context.session(session)
    }

    fn may_share(&self, device: &DevicePublicKey, session: &SessionId) -> bool {
        self.hold.pass();
        self.context.may_share(device, session)
    }
}

#[test]
fn a_cut_waits_for_no_context() {
    for (name, verb, reason) in VERBS {
        let mut world = World::new();
        let context = HangingContext { context: world.context.clone(), hold: Hold::default() };
        let config = GateConfig::new(world.agent.public(), [AgentUrl::parse(URL).unwrap()]).unwrap();
        world.gate = Gate::open(config, MemoryLedger::new(), context.clone(), world.now).unwrap();
        let desktop = world.desktop(9);
        let pairing = desktop.share(&world, &named());
        let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
        let payload = attach_payload(OpSet::EMPTY, joined.credential.as_bytes());
        let now = world.now;
        context.hold.arm();
        let gate = world.gate.clone();
        let settling = thread::spawn(move || gate.settle(now));
        let world = Arc::new(world);
        let attaching = {
            let world = Arc::clone(&world);
            thread::spawn(move || match world.admit(&phone(2), &payload) {
                PeerAdmission::Admitted { guard, .. } => guard.activate_after_first_frame(now).map(drop),
                PeerAdmission::Refused { denial, .. } => Err(denial),
                PeerAdmission::PassThrough => panic!("taken for a device"),
            })
        };
        context.hold.wait_for_somebody();
        // Not only the cut: the whole revocation.
        assert_eq!(verb(&world.gate, &pairing, &desktop, now), Ok(()), "{name}");
        assert_eq!(joined.guard.ask(Op::SendInput, now, || ()), Err(reason), "{name}");
        context.hold.release();
        assert!(attaching.join().unwrap().is_err(), "{name}");
        let _ = settling.join().unwrap();
    }
}

/// A waker of somebody who waits for a cut, that hangs.
struct HangingWaker(Hold);

impl Wake for HangingWaker {
    fn wake(self: Arc<Self>) {
        self.0.pass();
    }
}

#[test]
fn a_cut_waits_for_no_other_credentials_waker() {
    let world = World::new();
    let desktop = world.desktop(9);
    let pairings: Vec<_> = (0..4).map(|_| desktop.share(&world, &terms())).collect();
    let mut joined: Vec<_> = pairings
        .iter()
        .zip(2..)
        .map(|(pairing, seed)| world.join(&pairing.link, &phone(seed)).unwrap())
        .collect();
    let hold = Hold::default();
    let mut cuts: Vec<_> = joined.iter().map(|joined| Box::pin(joined.guard.cut())).collect();
    for cut in &mut cuts {
        let waker = Waker::from(Arc::new(HangingWaker(hold.clone())));
        assert!(cut.as_mut().poll(&mut Task::from_waker(&waker)).is_pending());
    }
    hold.arm();
    let (gate, now) = (world.gate.clone(), world.now);
    let revoking = thread::spawn(move || gate.revoke_session(&session(SESSION), now));
    hold.wait_for_somebody();
    for joined in &mut joined {
        assert_eq!(joined.guard.ask(Op::SendInput, now, || ()), Err(Denial::CredentialRevoked));
    }
    hold.release();
    assert!(revoking.join().unwrap().is_ok());
}

/// A ledger that hangs must not keep streams from being paused or ended either.
#[test]
fn a_frame_waits_for_no_ledger() {
    let rules = "deny if operation(\"resize\"), hour($h), $h == 23;";
    let policy = Policy::with_operator_rules(rules, time::UtcOffset::UTC).unwrap();
    let ledger = Arc::new(HangingLedger::default());
    let world = World::with(Arc::clone(&ledger), |config| config.with_policy(policy));
    let pairing = world.desktop(9).share(&world, &terms());
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    // A minute later the rules are asked again, inside the permit.
    let later = world.now.plus(time::Duration::seconds(61));
    world.gate.settle(later).unwrap();
    ledger.hold.arm();
    let gate = world.gate.clone();
    let settling = thread::spawn(move || gate.settle(later));
    ledger.hold.wait_for_somebody();
    assert_eq!(joined.guard.ask(Op::SendInput, later, || 1), Ok(1));
    assert_eq!(list_all(&world.gate, None, later).map(|listed| listed.len()), Ok(1), "nor does a listing");
    ledger.hold.release();
    settling.join().unwrap().unwrap();
}
