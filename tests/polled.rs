//! A gate that is told lists: what it ends, what it keeps, and what waits for it.
#![cfg(all(feature = "holder", feature = "issuer", feature = "agent"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::*;
use proptest::prelude::*;
use rand::rngs::OsRng;
use sessioncap::agent::ledger::{Ledger, LedgerError, MemoryLedger};
use sessioncap::agent::*;
use sessioncap::desktop::Issuer;
use sessioncap::phone::*;
use sessioncap::*;

struct Scene {
    phones: PolledGate,
    clock: Arc<Mutex<Now>>,
    device: DevicePublicKey,
    issuer: Issuer,
}

type Devices = Option<Vec<DevicePublicKey>>;
type Sessions = Option<Vec<SessionId>>;

impl Scene {
    fn new() -> Self {
        Self::over(|| Ok(MemoryLedger::new()))
    }

    fn over<L: Ledger + 'static>(open: impl Fn() -> Result<L, LedgerError> + Send + Sync + 'static) -> Self {
        let agent = AgentSecretKey::from_bytes([1; 32]).public();
        let url = AgentUrl::parse(URL).unwrap();
        let clock = Arc::new(Mutex::new(at(START, 1_000)));
        let time = Arc::clone(&clock);
        let config = GateConfig::new(agent, [url.clone()]).unwrap();
        let may_share = |_: &DevicePublicKey, shared: &SessionId| shared.as_str() != "private";
        let phones = PolledGate::open(config, open, may_share, move || *time.lock().unwrap()).unwrap();
        let device = DeviceSecretKey::from_bytes([3; 32]).public();
        let issuer = Issuer::new(IssuerSecretKey::from_bytes([4; 32]), agent, url);
        Self { phones, clock, device, issuer }
    }

    fn gate(&self) -> &Gate {
        self.phones.gate()
    }

    fn pass(&self, seconds: i64) {
        let mut now = self.clock.lock().unwrap();
        *now = now.plus(time::Duration::seconds(seconds));
    }

    fn settle(&self, devices: Devices, sessions: Sessions) {
        self.phones.settle(devices, sessions).unwrap();
    }

    fn all(&self) -> (Devices, Sessions) {
        (Some(vec![self.device]), Some(vec![session(SESSION), session("private")]))
    }

    fn settle_all(&self) {
        let (devices, sessions) = self.all();
        self.settle(devices, sessions);
    }

    fn share(&self, id: &str) -> Result<desktop::Pairing, Denial> {
        let now = self.phones.now();
        let registration = self.issuer.registration(&self.device, &CHANNEL);
        self.gate().register_issuer(&self.device, &CHANNEL, &registration, now)?;
        let pairing = self.issuer.pair(session(id), &terms(), now.timestamp(), &mut OsRng).unwrap();
        self.gate().offer(&self.device, &pairing.offer, now).map(|_| pairing)
    }

    fn join(&self) -> (CredentialBytes, GuardedChannel) {
        let pairing = self.share(SESSION).unwrap();
        let asking = redeem(&pairing.link, &phone(2), Label::default(), &mut OsRng).unwrap();
        let agent = AgentSecretKey::from_bytes([1; 32]);
        let received = noise::Responder::read(&agent, &asking.message, &mut OsRng).unwrap();
        let admitted = self.gate().admit(received, self.phones.now(), &mut OsRng);
        let Admission::Admitted { message, pending } = admitted else { panic!("{admitted:?}") };
        let Redeemed::Attached { credential, mut attached } = asking.next.finish(&message).unwrap() else {
            panic!()
        };
        let first = attached.channel.seal(&Frame::Data(b"first").to_bytes()).unwrap();
        (credential, pending.activate(&first, self.phones.now()).unwrap())
    }

    fn attach(&self, credential: &CredentialBytes) -> Option<Denial> {
        let agent = AgentSecretKey::from_bytes([1; 32]);
        let asking = attach(&agent.public(), &phone(2), credential, OpSet::EMPTY, &mut OsRng).unwrap();
        let received = noise::Responder::read(&agent, &asking.message, &mut OsRng).unwrap();
        match self.gate().admit(received, self.phones.now(), &mut OsRng) {
            Admission::Refused { denial, .. } => Some(denial),
            _ => None,
        }
    }

    fn sends(&self, channel: &mut GuardedChannel) -> Result<(), PermitError> {
        channel.sender.try_send(Op::StreamOutput, b"shown", self.phones.now()).map(drop)
    }
}

#[test]
fn nothing_is_shared_before_the_first_lists_and_only_what_is_on_them_afterwards() {
    let scene = Scene::new();
    assert_eq!(scene.share(SESSION).err(), Some(Denial::ContextUnknown));
    let (devices, sessions) = scene.all();
    scene.settle(devices.clone(), None);
    assert_eq!(scene.share(SESSION).err(), Some(Denial::ContextUnknown));
    scene.settle(Some(vec![]), sessions);
    assert_eq!(scene.share(SESSION).err(), Some(Denial::DeviceNotEnrolled));
    scene.settle(devices, Some(vec![]));
    assert_eq!(scene.share(SESSION).err(), Some(Denial::SessionNotLive));
    scene.settle_all();
    assert!(scene.share(SESSION).is_ok());
    assert_eq!(scene.share("private").err(), Some(Denial::SharingForbidden));
}

#[test]
fn a_session_that_leaves_the_list_ends_and_does_not_come_back_with_its_id() {
    let scene = Scene::new();
    scene.settle_all();
    let (credential, mut channel) = scene.join();
    assert_eq!(scene.sends(&mut channel), Ok(()));
    scene.settle(Some(vec![scene.device]), Some(vec![]));
    assert_eq!(scene.sends(&mut channel), Err(PermitError::Over(Denial::SessionGone)));
    scene.settle_all();
    assert!(scene.attach(&credential).is_some());
}

#[test]
fn a_session_that_comes_back_between_two_settlings_has_no_phone_of_the_earlier_one() {
    let scene = Scene::new();
    scene.settle_all();
    let (credential, channel) = scene.join();
    // Nothing is asked about a phone that is not connected.
    drop(channel);
    scene.settle(Some(vec![scene.device]), Some(vec![]));
    scene.settle_all();
    assert_eq!(scene.attach(&credential), Some(Denial::SessionGone));
}

#[test]
fn a_device_that_leaves_the_list_takes_its_pairings_along_for_good() {
    let scene = Scene::new();
    scene.settle_all();
    let (credential, mut channel) = scene.join();
    let (_, sessions) = scene.all();
    scene.settle(Some(vec![]), sessions);
    assert_eq!(scene.sends(&mut channel), Err(PermitError::Over(Denial::CredentialRevoked)));
    scene.settle_all();
    assert!(scene.attach(&credential).is_some());
}

#[test]
fn lists_that_cannot_be_read_end_nothing_and_admit_nobody() {
    let scene = Scene::new();
    scene.settle_all();
    let (credential, mut channel) = scene.join();
    for _ in 0..20 {
        scene.pass(1);
        scene.settle(None, None);
    }
    assert_eq!(scene.sends(&mut channel), Ok(()));
    let refused = scene.attach(&credential);
    assert!(matches!(refused, Some(Denial::ContextUnknown)), "{refused:?}");
    for _ in 0..20 {
        scene.pass(1);
        scene.settle(None, None);
    }
    assert_eq!(scene.sends(&mut channel), Err(PermitError::Stale), "streams pause after half a minute");
    scene.settle_all();
    assert_eq!(scene.sends(&mut channel), Ok(()));
    assert_eq!(scene.attach(&credential), None);
}

#[test]
fn streams_wait_for_a_settling_that_is_forgotten() {
    let scene = Scene::new();
    scene.settle_all();
    let (_, mut channel) = scene.join();
    scene.pass(6);
    assert_eq!(scene.sends(&mut channel), Err(PermitError::Stale));
    scene.settle_all();
    assert_eq!(scene.sends(&mut channel), Ok(()));
}

/// A memory ledger that can be told to fail, and whose contents outlive the failure.
#[derive(Clone, Default)]
struct Fails(Arc<(MemoryLedger, AtomicBool)>);

impl Ledger for Fails {
    fn read(&self, look: sessioncap::agent::ledger::Look<'_>) -> Result<(), LedgerError> {
        self.0.0.read(look)
    }
    fn transact(&self, transition: sessioncap::agent::ledger::Transition<'_>) -> Result<(), LedgerError> {
        match self.0.1.load(Ordering::Relaxed) {
            true => Err(LedgerError::unknown(LedgerFailure::Io)),
            false => self.0.0.transact(transition),
        }
    }
}

#[test]
fn a_ledger_that_has_failed_is_opened_again_by_the_next_settling() {
    let ledger = Fails::default();
    let opens = ledger.clone();
    let scene = Scene::over(move || Ok(opens.clone()));
    scene.settle_all();
    let (_, mut channel) = scene.join();
    ledger.0.1.store(true, Ordering::Relaxed);
    assert!(scene.gate().end_session(&session("another"), scene.phones.now()).is_err());
    assert!(scene.gate().is_poisoned());
    let (devices, sessions) = scene.all();
    assert!(scene.phones.settle(devices, sessions).is_err());
    assert_eq!(scene.sends(&mut channel), Err(PermitError::Stale));
    ledger.0.1.store(false, Ordering::Relaxed);
    scene.settle_all();
    assert!(!scene.gate().is_poisoned());
    assert_eq!(scene.sends(&mut channel), Ok(()));
}

#[test]
fn an_entry_that_is_no_key_or_id_is_left_out() {
    let scene = Scene::new();
    let devices = vec![[0; 32], *scene.device.as_bytes()];
    scene.phones.settle(Some(devices), Some(vec!["", SESSION, "a\nb"])).unwrap();
    assert!(scene.share(SESSION).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever lists come, a phone goes on exactly as long as its session and its device were on every list that
    /// could be read, and never comes back after they were not.
    #[test]
    fn a_phone_stays_as_long_as_its_session_and_device_are_on_every_list(
        polls in prop::collection::vec((prop::option::of(any::<bool>()), prop::option::of(any::<bool>())), 1..12)
    ) {
        let scene = Scene::new();
        scene.settle_all();
        let (credential, mut channel) = scene.join();
        let mut lives = true;
        for (device, listed) in polls {
            scene.pass(1);
            let devices = device.map(|is_there| if is_there { vec![scene.device] } else { vec![] });
            let sessions = listed.map(|is_there| if is_there { vec![session(SESSION)] } else { vec![] });
            scene.settle(devices, sessions);
            lives &= device != Some(false) && listed != Some(false);
            prop_assert_eq!(scene.sends(&mut channel).is_ok(), lives);
        }
        scene.settle_all();
        prop_assert_eq!(scene.attach(&credential).is_none(), lives);
    }
}

#[cfg(feature = "dd")]
mod json {
    use super::*;
    use serde_json::{Value, json};
    use sessioncap::pair::{Answer, Request};

    fn ask(scene: &Scene, request: &[u8]) -> Value {
        let now = scene.phones.now();
        let answer = scene.gate().answer_json(&scene.device, &CHANNEL, request, now, &mut OsRng);
        serde_json::from_str(&answer).unwrap()
    }

    #[test]
    fn a_pair_request_in_json_is_carried_out_and_a_refusal_has_code_and_text() {
        let scene = Scene::new();
        scene.settle_all();
        let registration = scene.issuer.registration(&scene.device, &CHANNEL);
        let register = serde_json::to_vec(&Request::RegisterIssuer { registration }).unwrap();
        let registered = ask(&scene, &register);
        assert_eq!(registered, serde_json::to_value(Answer::Registered).unwrap());
        scene.settle(Some(vec![]), Some(vec![]));
        let refused = ask(&scene, br#"{"method":"pair.list"}"#);
        assert_eq!(refused["error"], Denial::DeviceNotEnrolled.code());
        assert_eq!(refused["detail"], Denial::DeviceNotEnrolled.to_string());
    }

    #[test]
    fn json_that_is_no_pair_request_does_nothing() {
        let scene = Scene::new();
        scene.settle_all();
        for text in [
            "",
            "[]",
            "{}",
            r#"{"method":"pair.fly"}"#,
            r#"{"method":"pair.list","limit":0}"#,
            r#"{"method":"pair.list","unknown":1}"#,
            r#"{"method":"pair.list","method":"pair.list"}"#,
            r#"{"method":"pair.list"} {}"#,
        ] {
            let refused = ask(&scene, text.as_bytes());
            assert_eq!(refused["error"], json!("method_rejected"), "{text}");
        }
    }
}
