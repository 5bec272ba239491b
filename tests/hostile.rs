//! Truncated, oversized, changed and random bytes at every step. Each is refused with a clear error,
//! and nothing is lost by it: the records do not change, and the honest flow continues.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use common::cbor::Value;
use common::ledger::{Rows, TestLedger};
use common::rng::CounterRng;
use common::*;
use rand::rngs::OsRng;
use rand_core::RngCore;
use sessioncap::agent::*;
use sessioncap::desktop::*;
use sessioncap::noise::{Initiator, Responder};
use sessioncap::phone::*;
use sessioncap::*;

/// Bytes that are not `good`: cut short at every length, lengthened, one bit changed in every byte,
/// far too long, and noise.
fn spoiled(good: &[u8], too_long: usize) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..good.len()).map(|len| good[..len].to_vec()).collect();
    all.push([good, &[0]].concat());
    all.push([good, good].concat());
    all.push(vec![0; too_long]);
    all.push([good, &vec![0; too_long]].concat());
    for place in 0..good.len() {
        let mut changed = good.to_vec();
        changed[place] ^= 1 << (place % 8);
        all.push(changed);
    }
    let mut rng = CounterRng::new(1);
    for len in [1, 16, 48, 96, 160, 256, 1_024, good.len()] {
        for _ in 0..8 {
            let mut noise = vec![0; len];
            rng.fill_bytes(&mut noise);
            all.push(noise);
        }
    }
    all
}

/// A world with an open ticket, whose rows are compared before and after.
struct Besieged {
    world: World,
    ledger: TestLedger,
    desktop: Desktop,
    open: Pairing,
    joined: Joined,
}

impl Besieged {
    fn new() -> Self {
        let ledger = TestLedger::default();
        let world = World::on(ledger.clone());
        let desktop = world.desktop(9);
        let (redeemed, open) = (desktop.share(&world, &terms()), desktop.share(&world, &terms()));
        let joined = world.join(&redeemed.link, &phone(2)).unwrap();
        Self { world, ledger, desktop, open, joined }
    }

    fn state(&self) -> (Rows, Vec<Listing>, Vec<AuditEvent>) {
        (self.ledger.rows(), self.world.list(), self.world.events())
    }

    /// The honest flow still works, for the phone that is in and for the one that comes.
    fn honest_flow_succeeds(mut self) {
        let world = &self.world;
        assert_eq!(self.joined.guard.ask(Op::SendInput, world.now, || 1), Ok(1));
        assert!(world.attach(&phone(2), &self.joined.credential, OpSet::EMPTY).is_ok());
        assert!(world.join(&self.open.link, &phone(3)).is_ok());
        let pairing = self.desktop.share(world, &terms());
        assert!(world.join(&pairing.link, &phone(4)).is_ok());
    }
}

fn silent(admission: PeerAdmission) -> Denial {
    match admission {
        PeerAdmission::Refused { reply: None, denial } => denial,
        other => panic!("{other:?}"),
    }
}

// --- message 1 ---

#[test]
fn a_spoiled_first_message_is_not_even_decrypted() {
    let siege = Besieged::new();
    let before = siege.state();
    let good = siege.world.ask(&siege.open.link, &phone(3)).message;
    for message in spoiled(&good, limits::MAX_HANDSHAKE_LEN + 1) {
        assert_eq!(siege.world.open(&message).err(), Some(Error::Noise));
    }
    assert_eq!(siege.state(), before);
    siege.honest_flow_succeeds();
}

#[test]
fn a_spoiled_redemption_under_proper_encryption_is_refused_in_silence() {
    let siege = Besieged::new();
    let before = siege.state();
    let good =
        siege.world.open(&siege.world.ask(&siege.open.link, &phone(3)).message).unwrap().payload().to_vec();
    let proof = |payload: &[u8]| {
        cbor::decode_payload(payload).map(|map| map.into_iter().take(2).collect::<cbor::Map>())
    };
    for payload in spoiled(&good, limits::MAX_PAYLOAD_LEN + 1) {
        // The proof does not cover the label. Noise does, and nobody but the phone can write this.
        if proof(&payload) == proof(&good) {
            continue;
        }
        match siege.world.admit(&phone(3), &payload) {
            PeerAdmission::PassThrough => assert!(!payload.starts_with(b"SCP1")),
            admission => {
                let denial = silent(admission);
                assert!(
                    matches!(
                        denial,
                        Denial::PayloadMalformed | Denial::TicketUnknown | Denial::TicketProofInvalid
                    ),
                    "{denial:?}"
                );
            }
        }
    }
    assert_eq!(siege.state(), before);
    siege.honest_flow_succeeds();
}

#[test]
fn a_spoiled_attach_under_proper_encryption_is_refused_in_silence() {
    let siege = Besieged::new();
    let before = siege.state();
    let good = attach_payload(OpSet::EMPTY, siege.joined.credential.as_bytes());
    for payload in spoiled(&good, limits::MAX_PAYLOAD_LEN + 1) {
        match siege.world.admit(&phone(2), &payload) {
            PeerAdmission::PassThrough => assert!(!payload.starts_with(b"SCP1")),
            // The operations asked for are the phone's to choose.
            PeerAdmission::Admitted { .. } => {
                let map = cbor::decode_payload(&payload).unwrap();
                assert_eq!(cbor::bytes_of(&map, 5), siege.joined.credential.as_bytes());
            }
            PeerAdmission::Refused { reply, denial } if reply.is_some() => {
                let map = cbor::decode_payload(&payload).unwrap();
                assert_eq!(cbor::bytes_of(&map, 5), siege.joined.credential.as_bytes());
                assert_eq!(denial.status(), Some(Status::OperationDenied));
            }
            admission => {
                silent(admission);
            }
        }
    }
    assert_eq!(siege.state(), before);
    siege.honest_flow_succeeds();
}

#[test]
fn a_spoiled_credential_is_refused_in_silence() {
    let siege = Besieged::new();
    let before = siege.state();
    for credential in spoiled(siege.joined.credential.as_bytes(), limits::MAX_CREDENTIAL_LEN - 1_200) {
        if credential.is_empty() || credential.len() > limits::MAX_CREDENTIAL_LEN {
            assert!(CredentialBytes::new(credential).is_err());
            continue;
        }
        let denial = silent(siege.world.admit(&phone(2), &attach_payload(OpSet::EMPTY, &credential)));
        assert!(
            matches!(
                denial,
                Denial::CredentialMalformed(_)
                    | Denial::CredentialUnknown
                    | Denial::CredentialSignatureInvalid
                    | Denial::HolderMismatch
            ),
            "{denial:?}"
        );
    }
    assert_eq!(siege.state(), before);
    siege.honest_flow_succeeds();
}

#[test]
fn every_other_spelling_of_a_payload_is_refused() {
    let siege = Besieged::new();
    let before = siege.state();
    let good =
        siege.world.open(&siege.world.ask(&siege.open.link, &phone(3)).message).unwrap().payload().to_vec();
    let map = cbor::decode_payload(&good).unwrap();
    assert_eq!(cbor::payload(&map), good, "both writers agree");
    let frame = |map: &cbor::Map| [b"SCP1".to_vec(), cbor::encode(map)].concat();
    let padded = |len: usize| [map.clone(), vec![(15, Value::Bytes(vec![0; len]))]].concat();
    let own = 160 - 4 - cbor::encode(&map).len() - 3;
    let mut nonzero = good.clone();
    *nonzero.last_mut().unwrap() = 1;
    let reversed: cbor::Map = map.iter().rev().cloned().collect();
    let with_kind: cbor::Map = [vec![(0, Value::Uint(1))], map.clone()].concat();
    let answer = vec![(6, Value::Uint(0)), (7, Value::Uint(START as u64))];
    let mut wide_head = good.clone();
    wide_head.splice(4..5, [0xb8, 0x04]);
    for payload in [
        frame(&map),
        frame(&padded(own + 1)),
        frame(&padded(own.saturating_sub(1))),
        frame(&padded(0)),
        nonzero,
        cbor::payload(&reversed),
        cbor::payload(&with_kind),
        cbor::payload(&answer),
        cbor::payload(&Vec::new()),
        cbor::payload(&vec![(1, Value::Uint(1))]),
        cbor::payload(&cbor::with(&map, 3, Value::Text("x\u{202e}".into()))),
        cbor::payload(&cbor::with(&map, 3, Value::Text("x".repeat(41)))),
        cbor::payload(&cbor::with(&map, 3, cbor::bytes(b"phone"))),
        cbor::payload(&cbor::with(&map, 1, cbor::bytes(&[1; 15]))),
        cbor::payload(&cbor::with(&map, 2, cbor::bytes(&[1; 65]))),
        cbor::payload(&vec![(4, Value::Uint(0x100)), (5, cbor::bytes(siege.joined.credential.as_bytes()))]),
        cbor::payload(&vec![(4, Value::Uint(0)), (5, cbor::bytes(&[]))]),
        cbor::payload(&vec![(4, Value::Uint(0)), (5, cbor::bytes(&[1; 4_097]))]),
        wide_head,
        b"SCP1".to_vec(),
    ] {
        assert_eq!(silent(siege.world.admit(&phone(3), &payload)), Denial::PayloadMalformed);
    }
    assert_eq!(siege.state(), before);
    siege.honest_flow_succeeds();
}

// --- a peer that has proven nothing gets no message ---

#[test]
fn a_peer_that_has_proven_nothing_gets_no_message() {
    let siege = Besieged::new();
    let redeem =
        |link: &Link| siege.world.open(&siege.world.ask(link, &phone(3)).message).unwrap().payload().to_vec();
    let unknown_ticket = Desktop::new(&siege.world, 9).mint(&siege.world, &terms());
    let map = cbor::decode_payload(&redeem(&siege.open.link)).unwrap();
    let bad_proof = cbor::payload(&cbor::with(&map, 2, cbor::bytes(&[1; 64])));
    let other = Besieged::new();
    let credential = siege.joined.credential.as_bytes();
    let mut wrong_signature = credential.to_vec();
    let len = wrong_signature.len();
    wrong_signature[len - 40] ^= 1;
    for (who, payload, denial) in [
        (3, redeem(&unknown_ticket.link), Denial::TicketUnknown),
        (3, bad_proof, Denial::TicketProofInvalid),
        (4, redeem(&siege.open.link), Denial::TicketProofInvalid),
        (2, attach_payload(OpSet::EMPTY, other.joined.credential.as_bytes()), Denial::CredentialUnknown),
        (3, attach_payload(OpSet::EMPTY, credential), Denial::HolderMismatch),
        (3, b"SCP1".to_vec(), Denial::PayloadMalformed),
        (
            2,
            attach_payload(OpSet::EMPTY, b"nonsense"),
            Denial::CredentialMalformed(CredentialProblem::Encoding),
        ),
    ] {
        let found = silent(siege.world.admit(&phone(who), &payload));
        assert_eq!(found, denial);
        assert_eq!(found.status(), None, "there is nothing that could be told");
    }
    let tampered = silent(siege.world.admit(&phone(2), &attach_payload(OpSet::EMPTY, &wrong_signature)));
    assert!(matches!(tampered, Denial::CredentialMalformed(_) | Denial::CredentialSignatureInvalid));
    siege.honest_flow_succeeds();
}

// --- message 2 ---

#[test]
fn a_spoiled_answer_is_refused_and_the_phone_asks_again() {
    let siege = Besieged::new();
    let world = &siege.world;
    let asking = world.ask(&siege.open.link, &phone(3));
    let Response::Admitted(good, ..) = world.respond(&asking.message) else { panic!() };
    drop(asking);
    for answer in spoiled(&good, limits::MAX_HANDSHAKE_LEN + 1).into_iter().step_by(7) {
        let asking = world.ask(&siege.open.link, &phone(3));
        assert_eq!(asking.next.finish(&answer).err(), Some(PhoneError::AnswerUnreadable));
    }
    siege.honest_flow_succeeds();
}

/// What a phone makes of an answer from the agent itself, whose payload is `payload`.
fn answered(world: &World, payload: &[u8]) -> Result<Redeemed, PhoneError> {
    let pairing = Desktop::new(world, 9).mint(world, &terms());
    let asking = world.ask(&pairing.link, &phone(3));
    asking.next.finish(&world.open(&asking.message).unwrap().reply(payload).unwrap().message)
}

fn answered_attach(world: &World, payload: &[u8]) -> Result<Attached, PhoneError> {
    let credential = CredentialBytes::new(vec![1; 40]).unwrap();
    let asking = attach(&world.agent.public(), &phone(3), &credential, OpSet::EMPTY, &mut OsRng).unwrap();
    asking.next.finish(&world.open(&asking.message).unwrap().reply(payload).unwrap().message)
}

#[test]
fn a_phone_refuses_whatever_is_not_exactly_an_answer() {
    let siege = Besieged::new();
    let world = &siege.world;
    let redemption = world.open(&world.ask(&siege.open.link, &phone(3)).message).unwrap().payload().to_vec();
    let PeerAdmission::Admitted { reply, .. } = world.admit(&phone(3), &redemption) else { panic!() };
    let good = reply;
    let map = cbor::decode_payload(&good).unwrap();
    assert_eq!(cbor::payload(&map), good, "both writers agree");
    assert!(answered(world, &good).is_ok());
    let spoiled = spoiled(&good, 0).into_iter().filter(|bytes| bytes.len() <= limits::MAX_PAYLOAD_LEN);
    for payload in spoiled.step_by(5) {
        // Whoever changes a bit here is the agent itself. It can name other times and operations,
        // but not make the phone read anything but an answer.
        if let Ok(Redeemed::Attached { .. }) = answered(world, &payload) {
            assert!(cbor::decode_payload(&payload).is_some());
        }
    }
    let refused = |payload: Vec<u8>, error: Error| {
        assert_eq!(answered(world, &payload).err(), Some(PhoneError::AnswerMalformed(error)));
    };
    for malformed in [
        Vec::new(),
        b"SCP1".to_vec(),
        redemption,
        cbor::payload(&cbor::with(&map, 6, Value::Uint(9))),
        cbor::payload(&map.iter().rev().cloned().collect()),
    ] {
        refused(malformed, Error::MessageMalformed);
    }
    refused(cbor::payload(&cbor::with(&map, 7, Value::Uint(253_402_300_800))), Error::Time);
    refused(cbor::payload(&cbor::with(&map, 9, Value::Uint(0x100))), Error::OpUnknown);
    for id in ["", ".", "..", "../sessions?x=", "a b", "a\nb"] {
        refused(cbor::payload(&cbor::with(&map, 10, Value::Text(id.into()))), Error::SessionId);
    }
    siege.honest_flow_succeeds();
}

#[test]
fn an_answer_to_another_request_is_a_mismatch() {
    let world = World::new();
    let time = (7, Value::Uint(START as u64));
    let left = (8, Value::Uint(60));
    let admitted = |credential: Option<&[u8]>| {
        let mut map = vec![
            (6, Value::Uint(0)),
            time.clone(),
            left.clone(),
            (9, Value::Uint(1)),
            (10, Value::Text("s".into())),
            (11, cbor::bytes(&[1; 16])),
        ];
        map.extend(credential.map(|bytes| (12, cbor::bytes(bytes))));
        cbor::payload(&map)
    };
    let pending =
        cbor::payload(&vec![(6, Value::Uint(1)), time.clone(), left.clone(), (13, cbor::bytes(&[1; 16]))]);
    assert!(answered(&world, &admitted(Some(&[1; 40]))).is_ok());
    assert_eq!(answered(&world, &admitted(None)).err(), Some(PhoneError::AnswerMismatch));
    assert!(matches!(answered(&world, &pending), Ok(Redeemed::Waiting { .. })));
    assert!(answered_attach(&world, &admitted(None)).is_ok());
    assert_eq!(answered_attach(&world, &pending).err(), Some(PhoneError::AnswerMismatch));
    for number in 2..9 {
        let refused = cbor::payload(&vec![(6, Value::Uint(number)), time.clone()]);
        let status = Status::from_number(number).unwrap();
        assert_eq!(answered(&world, &refused).err(), Some(PhoneError::Refused(status)));
        assert_eq!(answered_attach(&world, &refused).err(), Some(PhoneError::Refused(status)));
    }
}

// --- the link ---

#[test]
fn a_spoiled_link_is_damaged_or_foreign_and_never_another_link() {
    let siege = Besieged::new();
    let good = siege.open.link.to_https(&LinkHost::Agent).unwrap();
    for text in spoiled(good.as_bytes(), limits::MAX_LINK_LEN + 1) {
        let Ok(text) = String::from_utf8(text) else { continue };
        match Link::parse(&text) {
            Ok(link) => {
                assert!(text.eq_ignore_ascii_case(&good), "{text}");
                assert_eq!(link, siege.open.link);
            }
            Err(error) => assert!(matches!(
                error,
                LinkError::Damaged | LinkError::Foreign | LinkError::UnknownVersion { .. }
            )),
        }
    }
    assert_eq!(Link::parse(&good).unwrap(), siege.open.link);
    siege.honest_flow_succeeds();
}

// --- the desktop's messages ---

#[test]
fn a_spoiled_offer_is_refused() {
    let siege = Besieged::new();
    let before = siege.state();
    let pairing = siege.desktop.mint(&siege.world, &terms());
    let signed = |offer: &[u8]| {
        cbor::decode(offer).map(|map| [1, 2, 7].map(|key| map.iter().find(|pair| pair.0 == key).cloned()))
    };
    let good = pairing.offer.to_bytes();
    for offer in spoiled(&good, limits::MAX_OFFER_LEN + 1) {
        // The desktop chooses lifetimes, label and confirmation, on its own channel.
        if signed(&offer) == signed(&good) {
            continue;
        }
        let denial = siege.world.take_offer(&siege.desktop.device, &offer).unwrap_err();
        assert!(
            matches!(
                denial,
                Denial::OfferMalformed(_)
                    | Denial::OfferMismatch
                    | Denial::IssuerUnknown
                    | Denial::ClockSkew { .. }
                    | Denial::SessionNotLive
            ),
            "{denial:?}"
        );
    }
    assert_eq!(siege.state(), before);
    siege.honest_flow_succeeds();
}

#[test]
fn a_spoiled_registration_is_refused() {
    let siege = Besieged::new();
    let before = siege.state();
    let newcomer = Desktop::new(&siege.world, 8);
    siege.world.enrol(newcomer.device);
    let good = newcomer.issuer.registration(&newcomer.device, &CHANNEL).to_bytes();
    for registration in spoiled(&good, limits::MAX_OFFER_LEN + 1) {
        let outcome = siege.world.take_registration(&newcomer.device, &registration);
        assert_eq!(outcome, Err(Denial::RegistrationInvalid));
    }
    assert_eq!(siege.state(), before);
    assert_eq!(newcomer.register(&siege.world), Ok(()));
    siege.honest_flow_succeeds();
}

#[test]
fn a_spoiled_receipt_is_refused_or_another_receipt() {
    let (agent_time, expires_at) = (1_780_000_000_u32, 1_780_000_300_u32);
    let good = [
        &[0xa4, 0, 3, 1, 0x50][..],
        &[0x5a; 16],
        &[2, 0x1a],
        &agent_time.to_be_bytes(),
        &[3, 0x1a],
        &expires_at.to_be_bytes(),
    ]
    .concat();
    let receipt = OfferReceipt::from_bytes(&good).unwrap();
    assert_eq!(receipt.ticket, TicketId::from_bytes([0x5a; 16]));
    assert_eq!(receipt.agent_time, seconds(agent_time.into()));
    assert_eq!(receipt.expires_at, seconds(expires_at.into()));
    assert_eq!(receipt.to_bytes(), good);
    for bytes in spoiled(&good, 10_000) {
        match OfferReceipt::from_bytes(&bytes) {
            Ok(other) => assert!(other != receipt && other.to_bytes() == bytes),
            Err(error) => assert!(matches!(error, Error::MessageMalformed | Error::Time)),
        }
    }
}

// --- the transport ---

/// A phone's channel and its agent's, from fixed keys, so that many of the same kind can be spoiled.
fn connected() -> (noise::Channel, noise::Channel) {
    let agent = AgentSecretKey::from_bytes([1; 32]);
    let started = Initiator::start(&phone(2), &agent.public(), b"", &mut OsRng).unwrap();
    let received = Responder::read(&agent, &started.message, &mut OsRng).unwrap();
    let replied = received.reply(b"").unwrap();
    (started.next.finish(&replied.message).unwrap().channel, replied.channel)
}

#[test]
fn a_spoiled_frame_is_refused_and_ends_its_direction() {
    // Each end of a channel is ended once, so the frame is spoiled again for each.
    for index in 0..spoiled(&[0; 36], limits::MAX_FRAME_LEN + 17).len() {
        let (mut phone, mut agent) = connected();
        let good = phone.seal(b"twenty bytes of text").unwrap();
        let frame = spoiled(&good, limits::MAX_FRAME_LEN + 17).swap_remove(index);
        assert_eq!(agent.open(&frame), Err(Error::Noise));
        assert_eq!(agent.open(&good), Err(Error::Noise), "nothing is read after it");
        let own = agent.seal(b"x").unwrap();
        assert_eq!(phone.open(&own).unwrap(), b"x", "the other direction goes on");
    }
    let (mut phone, mut agent) = connected();
    let good = phone.seal(b"twenty bytes of text").unwrap();
    assert_eq!(agent.open(&good).unwrap(), b"twenty bytes of text");
    assert_eq!(agent.open(&good), Err(Error::Noise), "not twice");
    let (_, mut agent) = connected();
    let own = agent.seal(b"x").unwrap();
    assert_eq!(agent.open(&own), Err(Error::Noise), "nor one's own");
}

#[test]
fn an_admission_whose_first_frame_is_spoiled_never_becomes_live() {
    let siege = Besieged::new();
    let Response::Admitted(_, mut channel, pending) =
        siege.world.respond(&siege.world.ask(&siege.open.link, &phone(3)).message)
    else {
        panic!()
    };
    let before = siege.world.list();
    assert_eq!(channel.open(&[7; 40]), Err(Error::Noise));
    drop(pending);
    assert_eq!(siege.world.list(), before);
    siege.honest_flow_succeeds();
}
