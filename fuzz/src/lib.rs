//! The bodies of the fuzz targets. Each is a function of bytes that panics when a law is broken;
//! nothing in them is random, so every finding repeats.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "a target fails by panicking")]

mod adapters;
mod app;
mod bridge;
#[path = "../../tests/common/cbor.rs"]
pub mod cbor;
mod ends;
#[path = "../../tests/common/ledger.rs"]
mod ledger;
mod operations;
#[path = "../../tests/common/rng.rs"]
mod rng;
mod web;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

pub use adapters::{acp, dd};
pub use app::{connection, stored};
pub use bridge::bridge;
use cbor::Value;
use ed25519_dalek::{Signer, SigningKey};
use hkdf::Hkdf;
use ledger::{Rows, TestLedger};
pub use operations::operations;
use rng::CounterRng;
use sessioncap::agent::*;
use sessioncap::desktop::*;
use sessioncap::noise::Responder;
use sessioncap::pair::{List, Listing, ListingState};
use sessioncap::phone::*;
use sessioncap::session::{FromAgent, FromPhone, OutputTracker, SessionNotice};
use sessioncap::*;
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};
pub use web::web;

const START: i64 = 1_780_000_000;
const CHANNEL: [u8; 32] = [7; 32];
const SESSIONS: [&str; 2] = ["one", "two"];

fn agent() -> AgentSecretKey {
    AgentSecretKey::from_bytes([1; 32])
}

/// The phones are 2 to 5.
pub fn phone(seed: u8) -> HolderSecretKey {
    HolderSecretKey::from_bytes([seed; 32])
}

fn device() -> DevicePublicKey {
    DeviceSecretKey::from_bytes([9; 32]).public()
}

fn url() -> AgentUrl {
    AgentUrl::parse("wss://agent.example").unwrap()
}

fn issuer() -> Issuer {
    Issuer::new(IssuerSecretKey::from_bytes([8; 32]), agent().public(), url())
}

fn session(id: &str) -> SessionId {
    SessionId::new(id).unwrap()
}

fn at(wall: i64, monotonic: i64) -> Now {
    Now::new(OffsetDateTime::from_unix_timestamp(wall).unwrap(), Duration::seconds(monotonic))
}

/// Which sessions run. Every device is enrolled and may share.
#[derive(Clone, Default)]
struct Surroundings(Arc<Mutex<Vec<SessionId>>>);

impl Surroundings {
    fn running(ids: &[&str]) -> Self {
        Self(Arc::new(Mutex::new(ids.iter().map(|id| session(id)).collect())))
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, Vec<SessionId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AgentContext for Surroundings {
    fn device(&self, _: &DevicePublicKey) -> Presence {
        Presence::Present
    }
    fn session(&self, session: &SessionId) -> Presence {
        self.sessions().contains(session).into()
    }
    fn may_share(&self, _: &DevicePublicKey, _: &SessionId) -> bool {
        true
    }
}

fn gate_over(ledger: &TestLedger, surroundings: &Surroundings, now: Now) -> Gate {
    let config = GateConfig::new(agent().public(), [url()]).unwrap();
    Gate::open(config, ledger.clone(), surroundings.clone(), now).unwrap()
}

fn register(gate: &Gate, now: Now) {
    let registration = issuer().registration(&device(), &CHANNEL);
    gate.register_issuer(&device(), &CHANNEL, &registration, now).unwrap();
}

/// A redemption as section 6.2 of the protocol has it, made from the primitives.
pub fn redeem_payload(link: &Link, holder: &HolderSecretKey) -> Vec<u8> {
    let mut seed = [0; 32];
    let secret = link.ticket().expose_bytes();
    Hkdf::<Sha256>::new(Some(b"sessioncap/1"), secret).expand(b"ticket-signing-key", &mut seed).unwrap();
    let key = SigningKey::from_bytes(&seed);
    let hash = Sha256::digest([b"sessioncap/1 ticket-id\0", &key.verifying_key().to_bytes()[..]].concat());
    let (id, holder) = (&hash[..16], holder.public());
    let message = [&b"sessioncap/1 redeem\0"[..], link.agent().as_bytes(), holder.as_bytes(), id].concat();
    cbor::payload(&vec![
        (1, cbor::bytes(id)),
        (2, cbor::bytes(&key.sign(&message).to_bytes())),
        (3, Value::Text("phone".to_owned())),
    ])
}

pub fn attach_payload(ops: OpSet, credential: &[u8]) -> Vec<u8> {
    cbor::payload(&vec![(4, Value::Uint(ops.bits().into())), (5, cbor::bytes(credential))])
}

/// An agent with something of each kind in its ledger. It is made once; each run gets its records
/// back as they were.
pub struct Base {
    gate: Gate,
    ledger: TestLedger,
    rows: Rows,
    now: Now,
    /// When the gate was last settled, in seconds: it stays settled for later runs.
    settled: AtomicI64,
    /// Waits for a phone.
    pub open: Link,
    /// Redeemed by phone 2.
    pub redeemed: Link,
    /// Phone 2's credential.
    pub credential: Credential,
    /// What the agent told phone 2.
    pub reply: Vec<u8>,
    /// Redeemed by phone 4, who has to be confirmed.
    pub pending: Link,
    /// What the agent told phone 4.
    pub pending_reply: Vec<u8>,
    /// Phone 5's credential, revoked.
    pub revoked: CredentialBytes,
    /// An offer that was not lodged.
    pub offer: Offer,
}

impl Base {
    fn new() -> Self {
        let ledger = TestLedger::default();
        let now = at(START, 1_000);
        let gate = gate_over(&ledger, &Surroundings::running(&SESSIONS), now);
        register(&gate, now);
        let pair = |seed: u64, terms: PairingTerms| {
            let time = now.timestamp();
            issuer().pair(session(SESSIONS[0]), &terms, time, &mut CounterRng::new(seed)).unwrap()
        };
        let share = |seed: u64, terms: PairingTerms| {
            let pairing = pair(seed, terms);
            gate.offer(&device(), &pairing.offer, now).unwrap();
            pairing
        };
        let redeem = |pairing: &Pairing, seed: u8| {
            let payload = redeem_payload(&pairing.link, &phone(seed));
            let holder = phone(seed).public();
            let peer = Peer::new(holder.as_bytes(), &payload, [seed; 32]);
            match gate.admit_peer(peer, now, &mut CounterRng::new(seed.into())) {
                PeerAdmission::Admitted { reply, .. } => reply,
                PeerAdmission::Refused { reply, .. } => reply.unwrap(),
                PeerAdmission::PassThrough => panic!("taken for a device"),
            }
        };
        let credential_in = |reply: &[u8]| {
            let map = cbor::decode_payload(reply).unwrap();
            CredentialBytes::new(cbor::bytes_of(&map, 12)).unwrap()
        };
        let open = share(1, PairingTerms::default());
        let redeemed = share(2, PairingTerms::default());
        let reply = redeem(&redeemed, 2);
        let pending = share(4, PairingTerms::default().with_confirmation(Confirmation::Required));
        let pending_reply = redeem(&pending, 4);
        let revoked = share(5, PairingTerms::default());
        let revoked_reply = redeem(&revoked, 5);
        gate.revoke_credential(&revoked.credential, now).unwrap();
        Self {
            rows: ledger.rows(),
            settled: AtomicI64::new(now.monotonic.whole_seconds()),
            credential: Credential::parse(&credential_in(&reply)).unwrap(),
            revoked: credential_in(&revoked_reply),
            offer: pair(6, PairingTerms::default()).offer,
            open: open.link,
            redeemed: redeemed.link,
            pending: pending.link,
            reply,
            pending_reply,
            gate,
            ledger,
            now,
        }
    }

    fn admit(&self, seed: u8, payload: &[u8]) -> PeerAdmission {
        let holder = phone(seed).public();
        let peer = Peer::new(holder.as_bytes(), payload, [7; 32]);
        self.gate.admit_peer(peer, self.now, &mut CounterRng::new(7))
    }
}

static BASE: LazyLock<Mutex<Base>> = LazyLock::new(|| Mutex::new(Base::new()));

/// Runs `law` on the agent with its records as they were in the beginning.
pub fn with_base<T>(law: impl FnOnce(&Base) -> T) -> T {
    let base = BASE.lock().unwrap_or_else(PoisonError::into_inner);
    base.ledger.set_rows(base.rows.clone());
    law(&base)
}

/// Text that may be a link: it has one spelling and reads back from every form.
pub fn link(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    if let Ok(url) = AgentUrl::parse(text) {
        assert_eq!(AgentUrl::parse(&url.to_string()).as_ref(), Ok(&url), "canonical is a fixed point");
    }
    if let Ok(link) = Link::parse_custom_scheme(text, "example-app") {
        let spelled = link.to_custom_scheme("example-app").unwrap();
        assert!(spelled.eq_ignore_ascii_case(text), "{spelled} {text}");
    }
    let pasted = Link::from_pasted(text);
    if let Ok((link, _)) = &pasted {
        let again = Link::from_pasted(&format!(" <{text}>.\n")).expect("more that is not part of a link");
        assert!(again.0 == *link && !again.1.is_empty());
    }
    let Ok(link) = Link::parse(text) else { return };
    assert_eq!(pasted, Ok((link.clone(), Default::default())), "a link is pasted as it is");
    assert_eq!(AgentUrl::parse(&link.url().to_string()).as_ref(), Ok(link.url()));
    let (head, _) = text.split_once("/P#").expect("every https link has one");
    let host = head["https://".len()..].to_ascii_lowercase();
    let spellings = [LinkHost::Agent, LinkHost::Fixed(host)].map(|host| link.to_https(&host));
    assert!(
        spellings.iter().flatten().any(|spelled| spelled.eq_ignore_ascii_case(text)),
        "{spellings:?} {text}"
    );
    for host in [LinkHost::Agent, LinkHost::Fixed("link.example".to_owned())] {
        assert_eq!(Link::parse(&link.to_https(&host).unwrap()).as_ref(), Ok(&link));
        let scanned: String =
            link.to_qr_segments(&host).unwrap().iter().map(|segment| segment.as_str().to_owned()).collect();
        assert_eq!(Link::parse(&scanned).as_ref(), Ok(&link));
    }
    let custom = link.to_custom_scheme("example-app").unwrap();
    assert_eq!(Link::parse_custom_scheme(&custom, "example-app"), Ok(link));
}

/// Everything on record, page by page.
fn listed(gate: &Gate, now: Now) -> Vec<Listing> {
    let (mut list, mut entries) = (List::default(), Vec::new());
    loop {
        let page = gate.list(&list, now).unwrap();
        entries.extend(page.entries);
        match page.next {
            Some(next) => list = list.after(next),
            None => return entries,
        }
    }
}

/// The first byte says how the rest arrives: its low bits as what, the others from which phone.
pub fn message_1(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let who = 2 + (how >> 2) % 4;
    with_base(|base| match how % 4 {
        0 => {
            let Ok(received) = Responder::read(&agent(), rest, &mut CounterRng::new(8)) else { return };
            let admission = base.gate.admit_peer(
                Peer::new(received.peer().as_bytes(), received.payload(), received.handshake_hash()),
                base.now,
                &mut CounterRng::new(9),
            );
            judge_admission(base, received.peer(), received.payload(), admission);
        }
        1 => judge_payload(base, who, rest),
        2 => judge_payload(base, who, &[&MAGIC, rest].concat()),
        // the fields alone: what is hard to find, the padding, is put on
        _ => {
            if let Some(map) = cbor::decode(rest).filter(|map| cbor::encode(map).len() < 4_500) {
                judge_payload(base, who, &cbor::payload(&map));
            }
        }
    });
}

fn judge_payload(base: &Base, who: u8, payload: &[u8]) {
    judge_admission(base, &phone(who).public(), payload, base.admit(who, payload));
}

/// What holds for every admission at the base.
fn judge_admission(base: &Base, peer: &HolderPublicKey, payload: &[u8], admission: PeerAdmission) {
    match admission {
        PeerAdmission::PassThrough => assert!(!is_scoped(payload)),
        PeerAdmission::Refused { reply, denial } => {
            assert!(is_scoped(payload));
            if reply.is_none() {
                assert_eq!(base.ledger.rows(), base.rows, "a silent refusal changes nothing");
            }
            if let Some(reply) = reply {
                assert_eq!(reply.len(), 160, "no room for a credential");
            }
            assert!(!matches!(denial, Denial::Ledger(_) | Denial::PolicyDisagreement), "{payload:x?}");
        }
        PeerAdmission::Admitted { guard, .. } => {
            let guard = guard.activate_after_first_frame(base.now).unwrap();
            assert_eq!(guard.holder(), *peer);
            assert!(guard.ops().is_subset_of(OpSet::COMPANION) && !guard.ops().is_empty());
            let id = guard.credential();
            let listed = listed(&base.gate, base.now);
            let record = listed.iter().find(|listing| listing.credential == id).unwrap();
            assert_eq!((record.holder, record.state), (Some(*peer), ListingState::Active));
            let known = cbor::decode_payload(payload).unwrap();
            assert_eq!(cbor::payload(&known), payload, "one spelling");
        }
    }
}

/// The first byte says how the rest arrives at a phone that waits for an answer.
pub fn message_2(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let holder = phone(3);
    let ticket = TicketSecret::from_bytes([0x11; 16]);
    let link = Link::new(url(), agent().public(), ticket);
    let rng = &mut CounterRng::new(10);
    let reply = |message: &[u8], payload: &[u8]| {
        let received = Responder::read(&agent(), message, &mut CounterRng::new(11)).unwrap();
        received.reply(payload).map(|replied| replied.message)
    };
    let payload = match how >> 2 & 1 {
        0 => rest.to_vec(),
        // the fields alone, to be padded
        _ => match cbor::decode(rest).filter(|map| cbor::encode(map).len() < 4_500) {
            Some(map) => cbor::payload(&map),
            None => return,
        },
    };
    match how % 3 {
        0 => {
            let asking = redeem(&link, &holder, Label::default(), rng).unwrap();
            assert!(asking.next.finish(rest).is_err(), "nobody without the agent's key can answer");
        }
        1 => {
            let asking = redeem(&link, &holder, Label::default(), rng).unwrap();
            let Ok(message) = reply(&asking.message, &payload) else { return };
            if asking.next.finish(&message).is_ok() {
                judge_answer(&payload);
            }
        }
        _ => {
            let credential = CredentialBytes::new(vec![1]).unwrap();
            let asking = attach(&agent().public(), &holder, &credential, OpSet::EMPTY, rng).unwrap();
            let Ok(message) = reply(&asking.message, &payload) else { return };
            if let Ok(attached) = asking.next.finish(&message) {
                assert!(SessionId::new(attached.session.as_str()).is_ok());
                judge_answer(&payload);
            }
        }
    }
}

/// An accepted answer is what a second encoder makes of its fields.
fn judge_answer(payload: &[u8]) {
    let map = cbor::decode_payload(payload).expect("an accepted answer is a map with padding");
    assert_eq!(cbor::payload(&map), payload);
}

/// Bytes as a credential: read, narrowed, shown to the agent, offered.
pub fn credential(data: &[u8]) {
    let Ok(bytes) = CredentialBytes::new(data.to_vec()) else { return };
    assert_eq!(bytes.to_text().parse().as_ref(), Ok(&bytes));
    if let Ok(unbound) = UnboundCredential::parse(&bytes) {
        assert!(unbound.scope().is_within(&Scope::ANY));
        assert!(Credential::parse(&bytes).is_err(), "bound and unbound at once");
    }
    if let Ok(credential) = Credential::parse(&bytes) {
        judge_credential(&credential);
    }
    with_base(|base| {
        if let PeerAdmission::Admitted { guard, .. } = base.admit(2, &attach_payload(OpSet::EMPTY, data)) {
            let guard = guard.activate_after_first_frame(base.now).unwrap();
            let (scope, whole) = (Credential::parse(&bytes).unwrap().scope(), base.credential.scope());
            assert!(scope.is_within(&whole));
            assert!(guard.ops().is_subset_of(whole.ops()));
            assert!(Some(guard.expires_at()) <= whole.expires_at());
        }
        let stolen = base.admit(3, &attach_payload(OpSet::EMPTY, data));
        assert!(matches!(stolen, PeerAdmission::Refused { reply: None, .. }));
        let offer = cbor::decode(&base.offer.to_bytes()).unwrap();
        let offer = cbor::encode(&cbor::with(&offer, 7, cbor::bytes(data)));
        let Ok(offer) = Offer::from_bytes(&offer) else { return };
        if base.gate.offer(&device(), &offer, base.now).is_ok() {
            assert_eq!(offer, base.offer, "nobody else signs for this ticket");
        }
    });
}

fn judge_credential(credential: &Credential) {
    let scope = credential.scope();
    let met: Scope = credential.caveats().map(|(_, caveat)| caveat).collect::<Vec<_>>().iter().collect();
    assert_eq!(scope, met);
    assert!(!credential.to_string().is_empty());
    let narrowed =
        credential.attenuate(Some(OpSet::COMPANION), Some(Timestamp::MAX), &mut CounterRng::new(12));
    match narrowed {
        Ok(child) => assert!(child.scope().is_within(&scope)),
        Err(error) => assert!(
            credential.is_sealed()
                || credential.attenuations() == limits::MAX_ATTENUATIONS
                || matches!(error, Error::Credential(_)),
            "{error:?}"
        ),
    }
    if let Ok(sealed) = credential.seal() {
        assert_eq!(sealed.scope(), scope);
    }
}

/// An operator's rules: every text is read or refused, at a place that it has; accepted rules are accepted
/// again among others, and only take away.
pub fn rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let utc = time::UtcOffset::UTC;
    match Policy::with_operator_rules(text, utc) {
        Err(error) => {
            assert!(error.line() <= text.matches('\n').count() + 1, "{error}");
            assert!(error.column() <= text.chars().count() + 1, "{error}");
            assert!(!error.code().is_empty() && !error.to_string().is_empty());
        }
        Ok(policy) => {
            let before = format!("deny if weekday(7);\n{text}");
            match Policy::with_operator_rules(&before, utc) {
                Ok(both) => assert!(both.has_operator_rules()),
                // Together they may be more than the limits allow.
                Err(error) => {
                    assert!(
                        matches!(error.problem(), RuleProblem::TooLong | RuleProblem::TooComplex),
                        "{error}"
                    )
                }
            }
            assert!(policy.has_operator_rules() || !text.contains("deny if true"));
        }
    }
}

/// What a phone sends after message 2: plaintexts, each with one byte before it for its length. The first makes
/// the connection live. Two bits of the length say what happens before the frame arrives.
pub fn frames(data: &[u8]) {
    let mut rest = data;
    let mut plaintexts = Vec::new();
    while let Some((how, after)) = rest.split_first() {
        let (plaintext, after) = after.split_at(usize::from(how & 0x3f).min(after.len()));
        plaintexts.push((how >> 6, plaintext));
        rest = after;
    }
    let Some(((_, first), later)) = plaintexts.split_first() else { return };
    with_base(|base| {
        let asking = redeem(&base.redeemed, &phone(2), Label::default(), &mut CounterRng::new(3)).unwrap();
        let received = Responder::read(&agent(), &asking.message, &mut CounterRng::new(4)).unwrap();
        let Admission::Admitted { message, pending } =
            base.gate.admit(received, base.now, &mut CounterRng::new(5))
        else {
            panic!("refused")
        };
        let Redeemed::Attached { attached, .. } = asking.next.finish(&message).unwrap() else { panic!() };
        let mut phone = attached.channel;
        let mut now = base.now;
        let is_frame = |plaintext: &[u8]| match Frame::from_bytes(plaintext) {
            Ok(frame) => {
                assert_eq!(frame.to_bytes(), plaintext, "one spelling");
                Some(frame)
            }
            Err(_) => None,
        };
        let channel = match pending.activate(&phone.seal(first).unwrap(), now) {
            Ok(channel) => channel,
            Err(refused) => {
                assert_eq!((is_frame(first), refused.denial), (None, Denial::FrameUnreadable));
                return;
            }
        };
        assert!(is_frame(first).is_some());
        let (mut sender, mut receiver) = channel.split();
        let (mut sent, mut cut) = (0_u64, false);
        // What a phone would put together of the same frames.
        let mut assembler = Assembler::new();
        let mut waiting = match (receiver.first(), is_frame(first)) {
            (Some(Frame::Data(())), Some(Frame::Data(data))) => Some(data),
            (Some(_), Some(frame)) => {
                assembler.take(frame).unwrap();
                None
            }
            other => panic!("{other:?}"),
        };
        for (how, plaintext) in later {
            match how {
                1 => {
                    base.gate.settle(now).unwrap();
                    base.settled.fetch_max(now.monotonic.whole_seconds(), Ordering::Relaxed);
                }
                2 => now = now.plus(Duration::seconds(3)),
                3 => {
                    base.gate.revoke_credential(&base.credential.id(), now).unwrap();
                    cut = true;
                }
                _ => {}
            }
            let settled = Duration::seconds(base.settled.load(Ordering::Relaxed));
            let stale = now.monotonic - settled >= Duration::seconds(5);
            match receiver.try_receive(Op::SendInput, now, <[u8]>::to_vec) {
                Ok(out) => {
                    assert!(out.is_none() || !cut && !stale);
                    assert_eq!(out, waiting.take());
                }
                Err(PermitError::Stale) => assert!(stale && !cut && waiting.is_some()),
                Err(PermitError::Over(_)) => {
                    assert!(cut);
                    waiting = None;
                }
                Err(error) => panic!("{error}"),
            }
            match sender.try_send(Op::StreamOutput, plaintext, now) {
                Ok(frame) => {
                    assert!(!cut && !stale);
                    assert_eq!(phone.open(&frame).unwrap(), Frame::Data(plaintext).to_bytes());
                    sent += 1;
                }
                Err(error) => assert_eq!(error.is_over(), cut, "{sent}"),
            }
            if waiting.is_some() {
                let held = receiver.open(&[0; 32], now);
                assert_eq!(held, Err(PermitError::Refused(Denial::FrameWaiting)));
                continue;
            }
            match (receiver.open(&phone.seal(plaintext).unwrap(), now), is_frame(plaintext)) {
                (Ok(Frame::Data(())), Some(data @ Frame::Data(_))) => {
                    assert!(!cut);
                    let Ok(Some(Frame::Data(whole))) = assembler.take(data) else { panic!("no message") };
                    waiting = Some(whole);
                }
                (Ok(Frame::Part(()) | Frame::Discard), Some(frame)) => {
                    assert!(!cut);
                    assert_eq!(assembler.take(frame), Ok(None));
                }
                (Ok(Frame::End(code)), Some(frame)) => assert_eq!(frame, Frame::End(code)),
                (Ok(_), Some(_)) => assert!(!cut),
                (Err(PermitError::Over(_)), Some(frame)) => assert!(cut && !matches!(frame, Frame::End(_))),
                (Err(PermitError::Over(Denial::FrameUnreadable)), None) => {}
                other => panic!("{other:?}"),
            }
        }
        let end = phone.open(&sender.end(EndCode::LEFT).unwrap()).unwrap();
        assert_eq!(Frame::from_bytes(&end), Ok(Frame::End(EndCode::LEFT)));
    });
}

/// Messages of the session profile in both directions, and what a phone shows of them. Each begins with its length
/// in one byte, as in the target `frames`; a message of length 0 is the rest.
pub fn session_messages(data: &[u8]) {
    let mut rest = data;
    let mut tracker = OutputTracker::new(None);
    while let Some((len, after)) = rest.split_first() {
        let len = if *len == 0 { after.len() } else { usize::from(*len).min(after.len()) };
        let (message, after) = after.split_at(len);
        rest = after;
        if let Ok(read) = FromPhone::from_bytes(message) {
            assert_eq!(read.to_bytes().as_deref(), Ok(message), "one spelling");
        }
        if let Ok(Frame::Notice(notice)) = Frame::from_bytes(message)
            && let Some(read) = SessionNotice::from_notice(notice)
        {
            assert_eq!(read.to_notice(), notice);
        }
        let Ok(read) = FromAgent::from_bytes(message) else { continue };
        assert_eq!(read.to_bytes().as_deref(), Ok(message), "one spelling");
        let before = tracker.shown();
        match read {
            FromAgent::Following(following) => {
                let joins = tracker.following(&following).is_ok();
                assert!(joins || before == tracker.shown());
            }
            FromAgent::Screen { position, bytes, .. } => {
                let taken = tracker.screen(position, bytes).is_ok();
                let shown = tracker.shown().map(|point| point.position);
                assert!(!taken || shown == Some(position));
            }
            FromAgent::Output { position, bytes } => {
                if let Ok(shown) = tracker.output(position, bytes) {
                    // What is shown and what is missing are as many bytes as the position moved.
                    let moved = tracker.shown().unwrap().position - before.unwrap().position;
                    assert_eq!(shown.missing.unwrap() + shown.bytes.len() as u64, moved);
                    assert!(bytes.ends_with(shown.bytes));
                }
            }
            _ => {}
        }
        let still = |point: Option<sessioncap::session::ResumePoint>| point.map(|point| point.incarnation);
        if still(before) == still(tracker.shown()) {
            assert!(before.map(|point| point.position) <= tracker.shown().map(|point| point.position));
        }
    }
    // The whole input as one message, split in two ways.
    let frames: Vec<Frame> = data.chunks(7).map(|part| Frame::Part(part.to_vec())).collect();
    let mut assembler = Assembler::new();
    for frame in frames {
        assert_eq!(assembler.take(frame), Ok(None));
    }
    assert_eq!(assembler.take(Frame::Data(Vec::new())), Ok(Some(Frame::Data(data.to_vec()))));
}

/// Text as a desktop or an agent reads it. What reads is written in one way, which reads as the same.
pub fn pair_methods(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let request = one_spelling::<pair::Request>(text);
    let answer = one_spelling::<pair::Answer>(text);
    // What is no request does nothing. Requests would change the gate that all inputs share.
    with_base(|base| {
        if request.is_none() {
            let refused = base.gate.answer_json(&device(), &[7; 32], data, base.now, &mut CounterRng::new(9));
            assert!(refused.starts_with(r#"{"error":"method_rejected""#), "{text}: {refused}");
        }
    });
    // A request that names what an answer does is none: neither has the other's tag.
    assert!(request.is_none() || answer.is_none(), "{text}");
    match request {
        Some(pair::Request::Offer { offer }) => {
            assert_eq!(Offer::from_bytes(&offer.to_bytes()), Ok(offer));
        }
        Some(pair::Request::List(list)) => with_base(|base| {
            let page = base.gate.list(&list, base.now).unwrap();
            assert!(page.entries.len() <= limits::MAX_LISTED as usize);
            assert!(page.entries.is_sorted_by_key(|entry| match entry.holder {
                None => (0, *entry.ticket.as_bytes()),
                Some(_) => (1, *entry.credential.as_bytes()),
            }));
        }),
        _ => {}
    }
}

fn one_spelling<T>(text: &str) -> Option<T>
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let read: T = serde_json::from_str(text).ok()?;
    let written = serde_json::to_string(&read).unwrap();
    let again: T = serde_json::from_str(&written).expect("reads what it writes");
    assert_eq!(again, read);
    assert_eq!(serde_json::to_string(&again).unwrap(), written);
    Some(read)
}
