//! A small world: one agent with its gate, sessions that come and go, desktops, phones, and a clock
//! that moves only when told.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "each test file uses a part of it")]

pub mod cbor;
pub mod draws;
pub mod lax;
pub mod ledger;
pub mod log;
pub mod rng;
pub mod vector_files;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use rand::RngCore;
use sessioncap::agent::ledger::{Ledger, MemoryLedger};
use sessioncap::agent::{
    Admission, AgentContext, AuditEvent, AuditRecord, Denial, Gate, GateConfig, Guard, LedgerFailure, Peer,
    PeerAdmission, PendingGuard, Presence,
};
use sessioncap::desktop::{Issuer, Pairing, PairingTerms, Renewal};
use sessioncap::noise::{Channel, Received, Responder};
#[allow(unused_imports, reason = "each test uses a part")]
pub use sessioncap::pair::{List, Listing, ListingState, RevocationReason, Revoked};
use sessioncap::phone::{Asking, Attached, PhoneError, Redeemed, Redeeming};
use sessioncap::{
    Action, AgentPublicKey, AgentSecretKey, AgentUrl, CredentialBytes, DevicePublicKey, DeviceSecretKey,
    Error, HolderSecretKey, IssuerSecretKey, Label, Link, Now, Offer, OfferReceipt, Op, OpSet, Registration,
    RenewalReceipt, SessionId, Timestamp,
};
use time::{Duration, OffsetDateTime};

use draws::Draws;

pub const URL: &str = "wss://agent.example";
pub const SESSION: &str = "3f0c8f0e-5f0b-4a53-9a58-0d6f3c1c9e55";
/// 2026-05-28T20:26:40Z, a Thursday.
pub const START: i64 = 1_780_000_000;
/// The handshake hash of the desktop's channel.
pub const CHANNEL: [u8; 32] = [7; 32];

#[derive(Default)]
pub struct Facts {
    pub devices: HashSet<DevicePublicKey>,
    pub sessions: HashSet<SessionId>,
    pub private: HashSet<SessionId>,
    /// For these the agent does not know whether they run.
    pub unknown: HashSet<SessionId>,
    pub unknown_devices: HashSet<DevicePublicKey>,
}

#[derive(Clone, Default)]
pub struct Context(pub Arc<Mutex<Facts>>);

impl AgentContext for Context {
    fn device(&self, device: &DevicePublicKey) -> Presence {
        let facts = self.0.lock().unwrap();
        if facts.unknown_devices.contains(device) {
            return Presence::Unknown;
        }
        facts.devices.contains(device).into()
    }
    fn session(&self, session: &SessionId) -> Presence {
        let facts = self.0.lock().unwrap();
        if facts.unknown.contains(session) {
            return Presence::Unknown;
        }
        facts.sessions.contains(session).into()
    }
    fn may_share(&self, _: &DevicePublicKey, session: &SessionId) -> bool {
        !self.0.lock().unwrap().private.contains(session)
    }
}

pub fn session(id: &str) -> SessionId {
    SessionId::new(id).unwrap()
}

pub fn seconds(seconds: u64) -> Timestamp {
    Timestamp::from_seconds(seconds).unwrap()
}

pub fn at(wall: i64, monotonic: i64) -> Now {
    Now::new(OffsetDateTime::from_unix_timestamp(wall).unwrap(), Duration::seconds(monotonic))
}

/// The answer of a guard, with the reason alone if a permit is not granted.
pub trait Asks {
    fn ask<T>(&mut self, op: Op, now: Now, use_it: impl FnOnce() -> T) -> Result<T, Denial>;
    fn ask_action<T>(&mut self, action: Action, now: Now, use_it: impl FnOnce() -> T) -> Result<T, Denial>;
    fn checked(&mut self, now: Now) -> Result<(), Denial>;
    fn check_named(&self, session: &str) -> Result<(), Denial>;
}

impl Asks for Guard {
    fn ask<T>(&mut self, op: Op, now: Now, use_it: impl FnOnce() -> T) -> Result<T, Denial> {
        self.permit(op, now, use_it).map_err(Denial::from)
    }
    fn ask_action<T>(&mut self, action: Action, now: Now, use_it: impl FnOnce() -> T) -> Result<T, Denial> {
        self.permit_action(action, now, use_it).map_err(Denial::from)
    }
    fn checked(&mut self, now: Now) -> Result<(), Denial> {
        self.check(now).map_err(Denial::from)
    }
    fn check_named(&self, session: &str) -> Result<(), Denial> {
        self.check_session(session).map_err(Denial::from)
    }
}

/// A permit that a test holds in use for as long as it likes.
#[derive(Default)]
pub struct HeldPermit {
    in_use: AtomicBool,
    released: AtomicBool,
}

impl HeldPermit {
    /// Uses a permit until [`Self::release`]. Call it in a thread of its own.
    pub fn hold(&self, guard: &mut Guard, now: Now) -> Result<(), Denial> {
        guard.ask(Op::SendInput, now, || {
            self.in_use.store(true, Ordering::SeqCst);
            while !self.released.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            self.in_use.store(false, Ordering::SeqCst);
        })
    }

    pub fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::SeqCst)
    }

    pub fn wait_until_in_use(&self) {
        while !self.is_in_use() {
            std::thread::yield_now();
        }
    }

    pub fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
    }

    /// Gives a thread that has to wait for the permit a chance to return too early, and releases it. Whether
    /// the thread has waited.
    pub fn release_later<T>(&self, thread: &std::thread::ScopedJoinHandle<'_, T>) -> bool {
        let mut waited = true;
        for _ in 0..2_000 {
            waited &= !thread.is_finished();
            std::thread::yield_now();
        }
        self.release();
        waited
    }
}

pub fn phone(seed: u8) -> HolderSecretKey {
    HolderSecretKey::from_bytes([seed; 32])
}

pub fn terms() -> PairingTerms {
    PairingTerms::default()
}

pub fn text(label: &str) -> Label {
    Label::new(label).unwrap()
}

/// The agent and its surroundings.
pub struct World {
    pub agent: AgentSecretKey,
    pub gate: Gate,
    pub context: Context,
    pub audit: Arc<Mutex<Vec<AuditRecord>>>,
    pub now: Now,
}

impl World {
    pub fn new() -> Self {
        Self::with(MemoryLedger::new(), |config| config)
    }

    pub fn on(ledger: impl Ledger + 'static) -> Self {
        Self::with(ledger, |config| config)
    }

    pub fn with(ledger: impl Ledger + 'static, configure: impl FnOnce(GateConfig) -> GateConfig) -> Self {
        Self::try_with(ledger, at(START, 1_000), configure).unwrap()
    }

    /// A gate that is opened at some time, over a ledger that may not open.
    pub fn try_with(
        ledger: impl Ledger + 'static,
        now: Now,
        configure: impl FnOnce(GateConfig) -> GateConfig,
    ) -> Result<Self, LedgerFailure> {
        let agent = AgentSecretKey::from_bytes([1; 32]);
        let context = Context::default();
        context.0.lock().unwrap().sessions.insert(session(SESSION));
        let audit = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&audit);
        let config = GateConfig::new(agent.public(), [AgentUrl::parse(URL).unwrap()]).unwrap();
        let config = configure(config.with_audit_fn(move |record| sink.lock().unwrap().push(record)));
        let gate = Gate::open(config, ledger, context.clone(), now).map_err(|error| error.cause())?;
        Ok(Self { agent, gate, context, audit, now })
    }

    /// Time passes, and the agent settles its gate, as it does about once a second.
    pub fn pass(&mut self, seconds: i64) {
        self.now = self.now.plus(Duration::seconds(seconds));
        let _ = self.gate.settle(self.now);
    }

    /// Time passes, and nobody settles the gate.
    pub fn pass_unsettled(&mut self, seconds: i64) {
        self.now = self.now.plus(Duration::seconds(seconds));
    }

    pub fn enrol(&self, device: DevicePublicKey) {
        self.context.0.lock().unwrap().devices.insert(device);
    }

    pub fn strike_off(&self, device: &DevicePublicKey) {
        self.context.0.lock().unwrap().devices.remove(device);
    }

    pub fn start_session(&self, id: &str) {
        self.context.0.lock().unwrap().sessions.insert(session(id));
    }

    pub fn stop_session(&self, id: &str) {
        self.context.0.lock().unwrap().sessions.remove(&session(id));
    }

    /// An enrolled desktop whose issuer key is registered.
    pub fn desktop(&self, seed: u8) -> Desktop {
        let desktop = Desktop::new(self, seed);
        self.enrol(desktop.device);
        desktop.register(self).unwrap();
        desktop
    }

    /// Reads message 1 as the agent does.
    pub fn open(&self, message: &[u8]) -> Result<Received, Error> {
        Responder::read(&self.agent, message, &mut Draws)
    }

    /// The gate's answer to a payload from a phone's key.
    pub fn admit(&self, phone: &HolderSecretKey, payload: &[u8]) -> PeerAdmission {
        self.admit_key(phone.public().as_bytes(), payload)
    }

    /// The same, for any bytes in the key's place. Each message is another.
    pub fn admit_key(&self, key: &[u8; 32], payload: &[u8]) -> PeerAdmission {
        let mut message = [0; 32];
        Draws.fill_bytes(&mut message);
        self.gate.admit_peer(Peer::new(key, payload, message), self.now, &mut Draws)
    }

    /// What the agent does with message 1, up to message 2.
    pub fn respond(&self, message: &[u8]) -> Response {
        let received = match self.open(message) {
            Ok(received) => received,
            Err(_) => return Response::Closed(None),
        };
        match self.gate.admit(received, self.now, &mut Draws) {
            Admission::PassThrough(_) => Response::Device,
            Admission::Admitted { message, pending } => {
                let (guard, channel) = pending.into_raw();
                Response::Admitted(message, channel, guard)
            }
            Admission::Refused { message, denial } => match message {
                Some(message) => Response::Refused(message, denial),
                None => Response::Closed(Some(denial)),
            },
        }
    }

    /// A phone's first message of a redemption.
    pub fn ask(&self, link: &Link, phone: &HolderSecretKey) -> Asking<Redeeming> {
        sessioncap::phone::redeem(link, phone, text("phone"), &mut Draws).unwrap()
    }

    /// Redeems and sends the first frame.
    pub fn join(&self, link: &Link, phone: &HolderSecretKey) -> Result<Joined, Refusal> {
        let Asking { message, next, .. } = self.ask(link, phone);
        match self.respond(&message) {
            Response::Admitted(message, channel, guard) => match next.finish(&message).unwrap() {
                Redeemed::Attached { credential, attached } => {
                    Ok(Joined { guard: self.first_frame(attached, channel, guard)?, credential })
                }
                Redeemed::Waiting { .. } => panic!("admitted, and told to wait"),
            },
            Response::Refused(message, denial) => match next.finish(&message) {
                Ok(Redeemed::Waiting { code, .. }) => {
                    Err(Refusal { denial, told: None, code: Some(code.to_string()) })
                }
                Err(error) => Err(Refusal { denial, told: Some(error), code: None }),
                Ok(Redeemed::Attached { .. }) => panic!("refused, and told to go on"),
            },
            Response::Closed(denial) => Err(Refusal::closed(denial)),
            Response::Device => panic!("taken for a device"),
        }
    }

    /// Attaches and sends the first frame. No operation named means all.
    pub fn attach(
        &self,
        phone: &HolderSecretKey,
        credential: &CredentialBytes,
        ops: OpSet,
    ) -> Result<Guard, Refusal> {
        self.attach_and_store(phone, credential, ops).map(|(guard, _)| guard)
    }

    /// The same, for a renewed credential that has to come with it.
    pub fn attach_renewed(
        &self,
        phone: &HolderSecretKey,
        credential: &CredentialBytes,
    ) -> Option<CredentialBytes> {
        self.attach_and_store(phone, credential, OpSet::EMPTY).unwrap().1
    }

    /// The same, with the values that the phone has to store.
    pub fn attach_and_store(
        &self,
        phone: &HolderSecretKey,
        credential: &CredentialBytes,
        ops: OpSet,
    ) -> Result<(Guard, Option<CredentialBytes>), Refusal> {
        let asking =
            sessioncap::phone::attach(&self.agent.public(), phone, credential, ops, &mut Draws).unwrap();
        match self.respond(&asking.message) {
            Response::Admitted(message, channel, guard) => {
                let attached = asking.next.finish(&message).unwrap();
                assert_eq!(attached.session, session(SESSION));
                let (ops, renewed) = (attached.ops, attached.renewed.clone());
                let guard = self.first_frame(attached, channel, guard)?;
                assert_eq!(guard.ops(), ops, "the phone is told what it got");
                Ok((guard, renewed))
            }
            Response::Refused(message, denial) => {
                Err(Refusal { denial, told: asking.next.finish(&message).err(), code: None })
            }
            Response::Closed(denial) => Err(Refusal::closed(denial)),
            Response::Device => panic!("taken for a device"),
        }
    }

    fn first_frame(
        &self,
        mut attached: Attached,
        mut channel: Channel,
        guard: PendingGuard,
    ) -> Result<Guard, Refusal> {
        let frame = attached.channel.seal(b"hello").unwrap();
        assert_eq!(channel.open(&frame).unwrap(), b"hello");
        guard.activate_after_first_frame(self.now).map_err(|denial| Refusal {
            denial,
            told: None,
            code: None,
        })
    }

    /// The audit records since the gate was opened.
    pub fn events(&self) -> Vec<AuditEvent> {
        let events: Vec<_> = self.audit.lock().unwrap().iter().map(|record| record.event.clone()).collect();
        let opened = |event: &AuditEvent| matches!(event, AuditEvent::GateOpened { .. });
        events.into_iter().filter(|event| !opened(event)).collect()
    }

    /// An offer as it comes over the desktop's channel.
    pub fn take_offer(&self, device: &DevicePublicKey, bytes: &[u8]) -> Result<OfferReceipt, Denial> {
        let offer = Offer::from_bytes(bytes).map_err(Denial::OfferMalformed)?;
        assert_eq!(offer.to_bytes(), bytes, "one encoding");
        self.gate.offer(device, &offer, self.now)
    }

    /// A registration as it comes over the desktop's channel.
    pub fn take_registration(&self, device: &DevicePublicKey, bytes: &[u8]) -> Result<(), Denial> {
        let registration = Registration::from_bytes(bytes).map_err(|_| Denial::RegistrationInvalid)?;
        assert_eq!(registration.to_bytes(), bytes, "one encoding");
        self.gate.register_issuer(device, &CHANNEL, &registration, self.now)
    }

    /// Everything there is, in the order of tickets.
    pub fn list(&self) -> Vec<Listing> {
        let mut listings = list_all(&self.gate, None, self.now).unwrap();
        listings.sort_by_key(|listing| listing.ticket);
        listings
    }

    /// The only entry.
    pub fn only_listing(&self) -> Listing {
        match self.list().as_slice() {
            [listing] => listing.clone(),
            other => panic!("{other:?}"),
        }
    }
}

/// Everything on record, of one session or of all, page by page.
pub fn list_all(gate: &Gate, session: Option<&SessionId>, now: Now) -> Result<Vec<Listing>, Denial> {
    let mut list =
        session.map_or_else(List::default, |session| List::default().with_session(session.clone()));
    let mut entries = Vec::new();
    loop {
        let page = gate.list(&list, now)?;
        entries.extend(page.entries);
        match page.next {
            Some(next) => list = list.after(next),
            None => return Ok(entries),
        }
    }
}

#[allow(clippy::large_enum_variant, reason = "one at a time, in tests")]
pub enum Response {
    Device,
    Admitted(Vec<u8>, Channel, PendingGuard),
    Refused(Vec<u8>, Denial),
    /// Closed as for any stranger.
    Closed(Option<Denial>),
}

#[derive(Debug)]
pub struct Joined {
    pub guard: Guard,
    pub credential: CredentialBytes,
}

/// The agent's reason, and the phone's.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    pub denial: Denial,
    pub told: Option<PhoneError>,
    pub code: Option<String>,
}

impl Refusal {
    fn closed(denial: Option<Denial>) -> Self {
        Self { denial: denial.unwrap_or(Denial::PayloadMalformed), told: None, code: None }
    }

    /// Refused with an answer to the phone.
    pub fn told(denial: Denial, status: sessioncap::Status) -> Self {
        Self { denial, told: Some(PhoneError::Refused(status)), code: None }
    }

    /// Refused without an answer.
    pub fn silent(denial: Denial) -> Self {
        Self { denial, told: None, code: None }
    }
}

pub struct Desktop {
    pub device: DevicePublicKey,
    pub issuer: Issuer,
}

impl Desktop {
    pub fn new(world: &World, seed: u8) -> Self {
        Self::of(world.agent.public(), URL, seed)
    }

    pub fn of(agent: AgentPublicKey, url: &str, seed: u8) -> Self {
        let issuer = IssuerSecretKey::from_bytes([seed ^ 0x55; 32]);
        Self {
            device: DeviceSecretKey::from_bytes([seed; 32]).public(),
            issuer: Issuer::new(issuer, agent, AgentUrl::parse(url).unwrap()),
        }
    }

    pub fn register(&self, world: &World) -> Result<(), Denial> {
        let registration = self.issuer.registration(&self.device, &CHANNEL);
        world.gate.register_issuer(&self.device, &CHANNEL, &registration, world.now)
    }

    pub fn mint(&self, world: &World, terms: &PairingTerms) -> Pairing {
        self.mint_for(world, SESSION, terms)
    }

    pub fn mint_for(&self, world: &World, id: &str, terms: &PairingTerms) -> Pairing {
        self.issuer.pair(session(id), terms, world.now.timestamp(), &mut Draws).unwrap()
    }

    pub fn lodge(&self, world: &World, pairing: &Pairing) -> Result<(), Denial> {
        let receipt = world.gate.offer(&self.device, &pairing.offer, world.now)?;
        assert_eq!(receipt.ticket, pairing.ticket);
        Ok(())
    }

    /// Mints and lodges the offer.
    pub fn share(&self, world: &World, terms: &PairingTerms) -> Pairing {
        self.share_session(world, SESSION, terms)
    }

    pub fn share_session(&self, world: &World, id: &str, terms: &PairingTerms) -> Pairing {
        let pairing = self.mint_for(world, id, terms);
        self.lodge(world, &pairing).unwrap();
        pairing
    }

    /// New terms for a pairing's credential, `valid_for` seconds from now.
    pub fn renew(
        &self,
        world: &World,
        pairing: &Pairing,
        ops: OpSet,
        valid_for: u64,
    ) -> Result<RenewalReceipt, Denial> {
        self.renew_for(world, SESSION, pairing, ops, valid_for)
    }

    pub fn renew_for(
        &self,
        world: &World,
        id: &str,
        pairing: &Pairing,
        ops: OpSet,
        valid_for: u64,
    ) -> Result<RenewalReceipt, Denial> {
        let (credential, ticket, session) = (pairing.credential, pairing.ticket, session(id));
        let renewal = Renewal { credential, ticket, session, ops, valid_for };
        let message = self.issuer.renew(renewal, world.now.timestamp(), &mut Draws).unwrap();
        world.gate.renew(&self.device, &message, world.now, &mut Draws)
    }
}

/// The payload that attaches with a credential.
pub fn attach_payload(ops: OpSet, credential: &[u8]) -> Vec<u8> {
    use cbor::Value::Uint;
    cbor::payload(&vec![(4, Uint(ops.bits().into())), (5, cbor::bytes(credential))])
}

/// A waker that does something, the first time that it wakes.
pub fn on_wake(act: impl FnOnce() + Send + 'static) -> Waker {
    struct OnWake(Mutex<Option<Box<dyn FnOnce() + Send>>>);

    impl Wake for OnWake {
        fn wake(self: Arc<Self>) {
            let act = self.0.lock().unwrap().take();
            if let Some(act) = act {
                act();
            }
        }
    }

    Waker::from(Arc::new(OnWake(Mutex::new(Some(Box::new(act))))))
}

/// A waker that counts.
pub struct Woken(Arc<std::sync::atomic::AtomicUsize>, Waker);

impl Woken {
    pub fn new() -> Self {
        struct Counter(Arc<std::sync::atomic::AtomicUsize>);
        impl Wake for Counter {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let waker = Waker::from(Arc::new(Counter(Arc::clone(&count))));
        Self(count, waker)
    }

    pub fn waker(&self) -> &Waker {
        &self.1
    }

    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}
