//! The bare Noise handshake of snow, as an agent runs it today, and ours beside it.

use std::hint::black_box;

use curve25519_dalek::MontgomeryPoint;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use rand::RngCore;
use rand::rngs::OsRng;
use sessioncap::desktop::Pairing;
use sessioncap::noise::{Channel, Initiator, Responder};
use sessioncap::{AgentSecretKey, HolderSecretKey};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState, TransportState};

use crate::plain::Presented;
use crate::report::{Budget, Report};
use crate::sample::{Side, compare, consume, repeat};
use crate::world::World;

const MAX_MESSAGE: usize = 65_535;

/// A whole redemption at the agent beside a handshake with payloads of the same sizes: build the
/// responder, read message 1, write message 2, split. Each operation of either side has a fresh
/// ticket and a fresh phone, and both read the same kind of message; the peer writes into a buffer
/// that it keeps.
pub fn redemption(report: &mut Report, rounds: usize) {
    report.section("redemption at the agent, memory ledger");
    let world = World::new();
    let payload = vec![0; reply_size(&world)];
    let handshake = || bare(&world, || world.fresh_redemption(), &payload);
    let compared = compare(rounds, redemptions(&world), handshake());
    report.compared("read, admit, reply, activate / snow IK responder", compared, Budget::AtMost(1.7));
    let whole = consume(|| world.fresh_redemption(), |message| world.respond(&message));
    let compared = compare(rounds, whole, handshake());
    report.compared("read, admit, reply / the same", compared, Budget::Information);
    let read = |message: Vec<u8>| Responder::read(&world.agent, &message, &mut OsRng).unwrap();
    let noise = consume(|| world.fresh_redemption(), |message| read(message).reply(&payload).unwrap());
    let compared = compare(rounds, noise, handshake());
    report.compared("read, reply alone / the same", compared, Budget::Information);
    let admit = consume(|| read(world.fresh_redemption()), |received| world.admit(&received));
    let compared = compare(rounds, admit, handshake());
    report.compared("admit alone / the same", compared, Budget::Information);
    let compared = compare(rounds, activations(&world), handshake());
    report.compared("activation, at the first frame / the same", compared, Budget::Information);
    let phone = world.phone();
    let presented = Presented::new(&world, &phone);
    let mut responder = handshake();
    let mut rest = repeat(|| (presented.verification(), presented.append(), presented.one_run()));
    let floor: Side<'_> = Box::new(move |times| responder(times) + rest(times));
    let compared = compare(rounds, floor, handshake());
    let row = "(floors) snow, one verification, biscuit-auth's append and one run / the same";
    report.compared(row, compared, Budget::Information);
}

/// From message 1 to a live guard.
pub fn redemptions(world: &World) -> Side<'_> {
    consume(|| world.fresh_redemption(), |message| world.respond_and_activate(&message))
}

/// The first frame of a phone that was redeemed.
pub fn activations(world: &World) -> Side<'_> {
    consume(|| world.redeem_one(), |guard| guard.activate_after_first_frame(world.now).unwrap())
}

/// snow's responder: built, message 1 read, message 2 with this payload written, split.
pub fn bare<'a>(world: &'a World, prepare: impl FnMut() -> Vec<u8> + 'a, payload: &'a [u8]) -> Side<'a> {
    let mut buffer = vec![0; MAX_MESSAGE];
    consume(prepare, move |message| raw_respond(&world.agent, &message, payload, &mut buffer))
}

/// An offer at the agent beside the one signature check that it cannot do without.
pub fn offer(report: &mut Report, rounds: usize) {
    report.section("an offer at the agent, memory ledger");
    let world = World::new();
    let compared = compare(rounds, offers(&world), verifications());
    report.compared("offer / one strict Ed25519 verification", compared, Budget::AtMost(3.0));
    let compared = compare(rounds, verifications(), repeat(ladder()));
    report.compared("(floors) that verification / one X25519 ladder", compared, Budget::Information);
    let responder = bare(&world, || world.fresh_redemption(), &[]);
    let compared = compare(rounds, responder, repeat(ladder()));
    report.compared("(floors) snow IK responder / one X25519 ladder", compared, Budget::Information);
}

pub fn offers(world: &World) -> Side<'_> {
    consume(|| world.pair(world.next_session()), |pairing| world.offer(&pairing))
}

/// One signature of 200 bytes, verified strictly.
pub fn verifications() -> Side<'static> {
    let signer = SigningKey::generate(&mut OsRng);
    let (message, key) = ([7; 200], signer.verifying_key().to_bytes());
    let signature = signer.sign(&message);
    repeat(move || {
        let key = VerifyingKey::from_bytes(black_box(&key)).unwrap();
        key.verify_strict(black_box(&message), &signature).unwrap();
    })
}

/// One multiplication on the curve of X25519, the unit in which the floors are given.
pub fn ladder() -> impl FnMut() -> MontgomeryPoint {
    let point = MontgomeryPoint::mul_base_clamped([9; 32]);
    move || black_box(point).mul_clamped(black_box([7; 32]))
}

/// What a desktop does beside one plain mint of the same authority block.
pub fn mint(report: &mut Report, rounds: usize) {
    report.section("mint, ticket and link at the desktop");
    let world = World::new();
    let plain = crate::plain::Mint::new(&world, &world.next_session());
    let compared = compare(rounds, links(&world), repeat(|| plain.by_macro()));
    report.compared("pair + link / biscuit! macro, built and serialized", compared, Budget::AtMost(1.5));
    let compared = compare(rounds, links(&world), repeat(|| plain.by_text()));
    report.compared("pair + link / the same from text with parameters", compared, Budget::Information);
}

/// Ticket, credential and link of one session.
pub fn links(world: &World) -> Side<'_> {
    let session = world.next_session();
    repeat(move || {
        let Pairing { link, .. } = world.pair(session.clone());
        link.to_https(&sessioncap::LinkHost::Agent).unwrap()
    })
}

pub fn reply_size(world: &World) -> usize {
    let received = Responder::read(&world.agent, &world.fresh_redemption(), &mut OsRng).unwrap();
    world.admit(&received).0.len()
}

/// Our channel after a handshake.
pub fn channel(agent: &AgentSecretKey) -> Channel {
    let phone = HolderSecretKey::generate(&mut OsRng);
    let started = Initiator::start(&phone, &agent.public(), b"", &mut OsRng).unwrap();
    Responder::read(agent, &started.message, &mut OsRng).unwrap().reply(b"").unwrap().channel
}

/// snow's transport after a handshake.
pub fn raw_transport() -> TransportState {
    let agent = AgentSecretKey::generate(&mut OsRng);
    raw_respond(&agent, &raw_message_1(&agent, 0), b"", &mut vec![0; MAX_MESSAGE]).1
}

fn raw_respond(
    agent: &AgentSecretKey,
    message: &[u8],
    payload: &[u8],
    buffer: &mut [u8],
) -> (usize, TransportState) {
    let mut state = builder().local_private_key(agent.expose_bytes()).unwrap().build_responder().unwrap();
    state.read_message(message, buffer).unwrap();
    assert_eq!(state.get_remote_static().map(<[u8]>::len), Some(32));
    let len = state.write_message(payload, buffer).unwrap();
    (len, state.into_transport_mode().unwrap())
}

fn raw_message_1(agent: &AgentSecretKey, payload: usize) -> Vec<u8> {
    let agent = agent.public();
    let mut state: HandshakeState = builder()
        .local_private_key(&[5; 32])
        .and_then(|builder| builder.remote_public_key(agent.as_bytes()))
        .and_then(Builder::build_initiator)
        .unwrap();
    let mut message = vec![0; MAX_MESSAGE];
    let len = state.write_message(&vec![0; payload], &mut message).unwrap();
    message.truncate(len);
    message
}

fn builder<'key>() -> Builder<'key> {
    Builder::with_resolver(Channel::PROTOCOL_NAME.parse().unwrap(), Box::new(Resolver))
}

/// snow's own primitives with the system's randomness. This crate builds snow without its
/// generator, so the default resolver has none.
struct Resolver;

struct SystemRandom;

impl Random for SystemRandom {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        OsRng.try_fill_bytes(dest).map_err(|_| snow::Error::Rng)
    }
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(SystemRandom))
    }
    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }
    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }
    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}
