//! Keys and signatures from a peer: an invalid key is refused where it is read, and a signature
//! counts only if strict verification accepts it.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use biscuit_auth::format::schema;
use common::cbor::Value;
use common::*;
use hkdf::Hkdf;
use prost::Message;
use sessioncap::agent::*;
use sessioncap::*;
use sha2::Sha256;

/// The encodings of all eight points of low order that are canonical, one that is a second spelling of
/// the identity, one that is negative zero, and one that is off the curve.
fn no_keys() -> Vec<([u8; 32], Error)> {
    let key = |text: &str| -> [u8; 32] {
        let bytes: Vec<u8> =
            (0..64).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect();
        bytes.try_into().unwrap()
    };
    let mut all = Vec::new();
    for text in [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    ] {
        all.push((key(text), Error::KeyLowOrder));
    }
    for text in [
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "0200000000000000000000000000000000000000000000000000000000000000",
    ] {
        all.push((key(text), Error::KeyNotCanonical));
    }
    all
}

#[test]
fn an_offer_with_an_invalid_ticket_key_is_malformed() {
    let world = World::new();
    let desktop = world.desktop(9);
    for (key, error) in no_keys() {
        assert_eq!(TicketPublicKey::from_bytes(key), Err(error.clone()));
        let map = cbor::decode(&desktop.mint(&world, &terms()).offer.to_bytes()).unwrap();
        let offer = cbor::encode(&cbor::with(&map, 2, cbor::bytes(&key)));
        let refused = world.take_offer(&desktop.device, &offer);
        assert_eq!(refused, Err(Denial::OfferMalformed(error)), "{key:x?}");
    }
    assert!(world.list().is_empty());
}

#[test]
fn invalid_issuer_keys_are_refused_wherever_they_enter() {
    let world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &terms());
    let device = &desktop.device;
    let registration = desktop.issuer.registration(device, &CHANNEL);
    let registration = cbor::decode(&registration.to_bytes()).unwrap();
    let offer = cbor::decode(&pairing.offer.to_bytes()).unwrap();
    for (key, error) in no_keys() {
        assert_eq!(IssuerPublicKey::from_bytes(key), Err(error.clone()));
        let message = |map| cbor::encode(&cbor::with(map, 1, cbor::bytes(&key)));
        let registered = world.take_registration(device, &message(&registration));
        assert_eq!(registered, Err(Denial::RegistrationInvalid));
        let offered = world.take_offer(device, &message(&offer));
        assert_eq!(offered, Err(Denial::OfferMalformed(error)));
    }
}

#[test]
fn text_that_is_no_key_and_a_refused_key_are_different_errors() {
    let good = phone(2).public().to_string();
    for text in ["", "x", &good[1..], &good.to_uppercase(), &good.replacen(&good[..1], "g", 1)] {
        assert_eq!(text.parse::<HolderPublicKey>(), Err(Error::KeyText), "{text}");
    }
    assert_eq!("00".repeat(32).parse::<HolderPublicKey>(), Err(Error::KeyLowOrder));
    assert_eq!("ff".repeat(32).parse::<HolderPublicKey>(), Err(Error::KeyNotCanonical));
}

#[test]
fn a_ticket_proof_that_only_the_plain_verification_takes_redeems_nothing() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let mut seed = [0; 32];
    let secret = pairing.link.ticket();
    Hkdf::<Sha256>::new(Some(b"sessioncap/1"), secret.expose_bytes())
        .expand(b"ticket-signing-key", &mut seed)
        .unwrap();
    let (agent, holder, id) = (world.agent.public(), phone(2).public(), secret.public_key().id());
    let message =
        [b"sessioncap/1 redeem\0".as_slice(), agent.as_bytes(), holder.as_bytes(), id.as_bytes()].concat();
    let payload = cbor::payload(&vec![
        (1, cbor::bytes(id.as_bytes())),
        (2, cbor::bytes(&lax::signature(&seed, &message))),
        (3, Value::Text(String::from("phone"))),
    ]);
    let PeerAdmission::Refused { reply, denial } = world.admit(&phone(2), &payload) else {
        panic!("admitted")
    };
    assert_eq!((denial, reply), (Denial::TicketProofInvalid, None));
    assert!(world.join(&pairing.link, &phone(2)).is_ok(), "the ticket is still open");
}

#[test]
fn a_registration_that_only_the_plain_verification_takes_is_refused() {
    let world = World::new();
    let desktop = Desktop::new(&world, 9);
    world.enrol(desktop.device);
    let (agent, device, issuer) = (world.agent.public(), desktop.device, desktop.issuer.public());
    let label = b"sessioncap/1 issuer\0".as_slice();
    let message = [label, &CHANNEL, agent.as_bytes(), device.as_bytes(), issuer.as_bytes()].concat();
    let registration = cbor::encode(&vec![
        (0, Value::Uint(1)),
        (1, cbor::bytes(issuer.as_bytes())),
        (2, cbor::bytes(&lax::signature(&[9 ^ 0x55; 32], &message))),
    ]);
    let registered = world.take_registration(&device, &registration);
    assert_eq!(registered, Err(Denial::RegistrationInvalid));
    assert_eq!(desktop.register(&world), Ok(()), "the same message with a signature of RFC 8032");
}

#[test]
fn a_credential_whose_signature_only_the_plain_verification_takes_is_refused() {
    let world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.mint(&world, &terms());
    let offer = cbor::decode(&pairing.offer.to_bytes()).unwrap();
    let mut token = schema::Biscuit::decode(cbor::bytes_of(&offer, 7).as_slice()).unwrap();
    let signed = &mut token.authority;
    let message = [signed.block.as_slice(), &[0; 4], &signed.next_key.key].concat();
    signed.signature = lax::signature(&[9 ^ 0x55; 32], &message).to_vec();
    let lax = cbor::encode(&cbor::with(&offer, 7, cbor::bytes(&token.encode_to_vec())));
    let refused = world.take_offer(&desktop.device, &lax);
    let signature = Error::Credential(CredentialProblem::Signature);
    assert_eq!(refused, Err(Denial::OfferMalformed(signature)));
    assert_eq!(desktop.lodge(&world, &pairing), Ok(()), "the same offer with a signature of RFC 8032");
}
