//! Registrations and offers of desktops, and every way in which an agent refuses them.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use std::sync::{Arc, OnceLock};

use common::cbor::Value;
use common::ledger::TestLedger;
use common::*;
use rand::RngCore;
use rand::rngs::OsRng;
use rand_core::CryptoRng;
use sessioncap::agent::ledger::{MemoryLedger, Table};
use sessioncap::agent::*;
use sessioncap::desktop::*;
use sessioncap::*;

/// An offer's map, to be written again with something else in it.
fn taken_apart(pairing: &Pairing) -> cbor::Map {
    let map = cbor::decode(&pairing.offer.to_bytes()).unwrap();
    assert_eq!(cbor::encode(&map), pairing.offer.to_bytes(), "both writers agree");
    map
}

fn offer(world: &World, desktop: &Desktop, offer: &[u8]) -> Result<OfferReceipt, Denial> {
    world.take_offer(&desktop.device, offer)
}

fn changed(world: &World, desktop: &Desktop, key: u64, value: Value) -> Result<OfferReceipt, Denial> {
    let pairing = desktop.mint(world, &terms());
    offer(world, desktop, &cbor::encode(&cbor::with(&taken_apart(&pairing), key, value)))
}

// --- registration ---

#[test]
fn a_device_that_is_not_enrolled_registers_nothing() {
    let world = World::new();
    let desktop = Desktop::new(&world, 9);
    assert_eq!(desktop.register(&world), Err(Denial::DeviceNotEnrolled));
    assert!(world.events().is_empty());
}

#[test]
fn registering_twice_has_no_effect() {
    let world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &terms());
    assert_eq!(desktop.register(&world), Ok(()));
    let registered = world.events().into_iter().filter(|e| matches!(e, AuditEvent::IssuerRegistered { .. }));
    assert_eq!(registered.count(), 1);
    assert!(world.join(&pairing.link, &phone(2)).is_ok(), "what was offered before still stands");
}

#[test]
fn a_registration_holds_on_its_own_channel_only() {
    let world = World::new();
    let desktop = Desktop::new(&world, 9);
    let thief = Desktop::new(&world, 8);
    world.enrol(desktop.device);
    world.enrol(thief.device);
    let register = |device: &DevicePublicKey, hash: &[u8; 32], registration: &Registration| {
        world.gate.register_issuer(device, hash, registration, world.now)
    };
    let registration = desktop.issuer.registration(&desktop.device, &CHANNEL);
    let refused = Err(Denial::RegistrationInvalid);
    assert_eq!(register(&desktop.device, &[8; 32], &registration), refused, "another channel");
    assert_eq!(register(&thief.device, &CHANNEL, &registration), refused, "another device");
    let elsewhere = Desktop::of(AgentSecretKey::from_bytes([50; 32]).public(), URL, 9);
    let registration = elsewhere.issuer.registration(&elsewhere.device, &CHANNEL);
    assert_eq!(register(&desktop.device, &CHANNEL, &registration), refused, "another agent");
    assert!(world.events().is_empty());
}

#[test]
fn an_issuer_belongs_to_the_device_that_registered_it_first() {
    let world = World::new();
    let desktop = world.desktop(9);
    let other = Desktop { device: DeviceSecretKey::from_bytes([8; 32]).public(), ..Desktop::new(&world, 9) };
    world.enrol(other.device);
    assert_eq!(other.register(&world), Err(Denial::IssuerOfAnotherDevice));
    let pairing = other.mint(&world, &terms());
    assert_eq!(other.lodge(&world, &pairing), Err(Denial::IssuerOfAnotherDevice));
    assert_eq!(desktop.lodge(&world, &pairing), Ok(()), "the offer itself was good");
}

#[test]
fn a_device_has_four_issuer_keys_and_a_revoked_one_makes_room() {
    let world = World::new();
    let device = world.desktop(9).device;
    let with_key = |seed: u8| Desktop { device, ..Desktop::new(&world, seed) };
    for seed in 10..13 {
        with_key(seed).register(&world).unwrap();
    }
    let full = Err(Denial::QuotaReached { quota: Quota::IssuersPerDevice, max: 4 });
    assert_eq!(with_key(13).register(&world), full);
    assert_eq!(with_key(12).register(&world), Ok(()), "a known one is no further one");
    assert!(world.desktop(20).register(&world).is_ok(), "another device has its own four");
    world.gate.revoke_issuer(&with_key(10).issuer.public(), world.now).unwrap();
    assert_eq!(with_key(13).register(&world), Ok(()));
}

#[test]
fn registrations_that_are_not_exactly_one_are_refused() {
    let world = World::new();
    let desktop = Desktop::new(&world, 9);
    world.enrol(desktop.device);
    let good = desktop.issuer.registration(&desktop.device, &CHANNEL).to_bytes();
    let map = cbor::decode(&good).unwrap();
    let low_order = {
        let mut key = [0; 32];
        key[0] = 1;
        cbor::bytes(&key)
    };
    let mut bad: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![0; 5_000],
        [good.as_slice(), &[0]].concat(),
        cbor::encode(&cbor::with(&map, 0, Value::Uint(2))),
        cbor::encode(&cbor::with(&map, 1, low_order)),
        cbor::encode(&map.iter().rev().cloned().collect()),
    ];
    bad.extend((0..good.len()).map(|len| good[..len].to_vec()));
    for registration in bad {
        let outcome = world.take_registration(&desktop.device, &registration);
        assert_eq!(outcome, Err(Denial::RegistrationInvalid));
    }
    assert_eq!(desktop.register(&world), Ok(()));
}

// --- offers ---

#[test]
fn an_accepted_offer_is_listed_and_receipted() {
    let world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.mint(&world, &terms().with_label(text("build box")));
    let receipt = offer(&world, &desktop, &pairing.offer.to_bytes()).unwrap();
    assert_eq!(receipt.ticket, pairing.ticket);
    assert_eq!(receipt.agent_time, world.now.timestamp());
    assert_eq!(receipt.expires_at, world.now.timestamp().plus(limits::DEFAULT_TICKET_LIFETIME));
    assert_eq!(OfferReceipt::from_bytes(&receipt.to_bytes()), Ok(receipt));
    let listing = world.only_listing();
    assert_eq!(listing.state, ListingState::Open);
    assert_eq!((listing.ticket, listing.credential), (pairing.ticket, pairing.credential));
    assert_eq!((listing.device, listing.holder), (desktop.device, None));
    assert_eq!(listing.label.as_str(), "build box");
    assert_eq!(listing.expires_at, receipt.expires_at);
}

#[test]
fn an_offer_needs_an_enrolled_device_and_its_own_issuer() {
    let world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.mint(&world, &terms());
    world.strike_off(&desktop.device);
    assert_eq!(desktop.lodge(&world, &pairing), Err(Denial::DeviceNotEnrolled));
    let newcomer = Desktop::new(&world, 8);
    world.enrol(newcomer.device);
    let pairing = newcomer.mint(&world, &terms());
    assert_eq!(newcomer.lodge(&world, &pairing), Err(Denial::IssuerUnknown));
}

#[test]
fn a_credential_for_another_agent_address_or_ticket_is_refused() {
    let world = World::new();
    let desktop = world.desktop(9);
    for other in [
        Desktop::of(AgentSecretKey::from_bytes([50; 32]).public(), URL, 9),
        Desktop::of(world.agent.public(), "wss://elsewhere.example", 9),
        Desktop::of(world.agent.public(), "ws://agent.example", 9),
        Desktop::of(world.agent.public(), "wss://agent.example:8443", 9),
    ] {
        let pairing = other.mint(&world, &terms());
        assert_eq!(desktop.lodge(&world, &pairing), Err(Denial::OfferMismatch));
    }
    let ticket = TicketSecret::from_bytes([3; 16]).public_key();
    assert_eq!(
        changed(&world, &desktop, 2, cbor::bytes(ticket.as_bytes())),
        Err(Denial::OfferMismatch),
        "the credential names another ticket"
    );
}

#[test]
fn every_address_of_the_agent_counts_as_its_own() {
    let second = AgentUrl::parse("ws://127.0.0.1:9099").unwrap();
    let config = |world: &AgentSecretKey| {
        GateConfig::new(world.public(), [AgentUrl::parse(URL).unwrap(), second.clone()]).unwrap()
    };
    let world = World::with(MemoryLedger::new(), |_| config(&AgentSecretKey::from_bytes([1; 32])));
    let desktop = world.desktop(9);
    let local = Desktop::of(world.agent.public(), "ws://127.0.0.1:9099", 9);
    let pairing = local.mint(&world, &terms());
    assert_eq!(desktop.lodge(&world, &pairing), Ok(()));
    assert!(world.join(&pairing.link, &phone(2)).is_ok());
    let none = GateConfig::new(world.agent.public(), []);
    assert_eq!(none.err(), Some(Misuse::NoAgentUrl));
}

#[test]
fn an_offer_signed_by_another_issuer_is_refused() {
    let world = World::new();
    let desktop = world.desktop(9);
    let forger = Desktop::new(&world, 8);
    let pairing = forger.mint(&world, &terms());
    let map = cbor::with(&taken_apart(&pairing), 1, cbor::bytes(desktop.issuer.public().as_bytes()));
    let outcome = offer(&world, &desktop, &cbor::encode(&map));
    assert_eq!(outcome, Err(Denial::OfferMalformed(Error::Credential(CredentialProblem::Signature))));
}

#[test]
fn lifetimes_outside_the_bounds_are_refused_on_both_sides() {
    let world = World::new();
    let desktop = world.desktop(9);
    let ticket = (limits::MIN_TICKET_LIFETIME, limits::MAX_TICKET_LIFETIME);
    let credential = (limits::MIN_CREDENTIAL_LIFETIME, limits::MAX_CREDENTIAL_LIFETIME);
    for (key, (min, max)) in [(3, ticket), (4, credential)] {
        for bad in [0, min - 1, max + 1, u64::MAX] {
            let outcome = changed(&world, &desktop, key, Value::Uint(bad));
            assert_eq!(outcome, Err(Denial::LifetimeOutOfBounds { min, max }));
        }
    }
    for (min, max) in [ticket, credential] {
        for bad in [0, min - 1, max + 1, u64::MAX] {
            let refused = Some(DesktopError::Lifetime { min, max });
            if (min, max) == ticket {
                assert_eq!(terms().with_ticket_lifetime(bad).err(), refused);
            } else {
                assert_eq!(terms().with_valid_for(bad).err(), refused);
            }
        }
    }
    for edge in [30, limits::MAX_TICKET_LIFETIME] {
        desktop.share(&world, &terms().with_ticket_lifetime(edge).unwrap());
    }
    for edge in [30, limits::MAX_CREDENTIAL_LIFETIME] {
        desktop.share(&world, &terms().with_valid_for(edge).unwrap());
    }
}

#[test]
fn a_desktop_whose_clock_is_off_mints_again_with_the_agents_time() {
    let world = World::new();
    let desktop = world.desktop(9);
    let mint_at =
        |time| desktop.issuer.pair(session(SESSION), &terms(), time, &mut OsRng).expect("minting works");
    let agent_time = world.now.timestamp();
    let early = seconds(agent_time.seconds() - 61);
    for off in [early, agent_time.plus(61), Timestamp::EPOCH, Timestamp::MAX] {
        let refused = desktop.lodge(&world, &mint_at(off));
        assert_eq!(refused, Err(Denial::ClockSkew { agent_time }));
        let Err(Denial::ClockSkew { agent_time }) = refused else { panic!() };
        let pairing = mint_at(agent_time);
        assert_eq!(desktop.lodge(&world, &pairing), Ok(()));
        world.gate.revoke_ticket(&pairing.ticket, world.now).unwrap();
    }
    for near in [seconds(agent_time.seconds() - 60), agent_time.plus(60)] {
        assert_eq!(desktop.lodge(&world, &mint_at(near)), Ok(()));
    }
}

#[test]
fn the_earlier_of_both_clocks_ends_the_credential() {
    let world = World::new();
    let desktop = world.desktop(9);
    let terms = terms().with_valid_for(3_600).unwrap();
    let now = world.now.timestamp();
    for (minted, seed) in [(seconds(now.seconds() - 50), 2), (now, 3), (now.plus(50), 4)] {
        let pairing = desktop.issuer.pair(session(SESSION), &terms, minted, &mut OsRng).unwrap();
        desktop.lodge(&world, &pairing).unwrap();
        let joined = world.join(&pairing.link, &phone(seed)).unwrap();
        assert_eq!(joined.guard.expires_at(), minted.min(now).plus(3_600));
    }
}

#[test]
fn an_offer_is_accepted_once() {
    let world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &terms());
    assert_eq!(desktop.lodge(&world, &pairing), Err(Denial::OfferRepeated));
    let _joined = world.join(&pairing.link, &phone(2)).unwrap();
    assert_eq!(desktop.lodge(&world, &pairing), Err(Denial::OfferRepeated), "nor after redemption");
    world.gate.revoke_ticket(&pairing.ticket, world.now).unwrap();
    assert_eq!(desktop.lodge(&world, &pairing), Err(Denial::OfferRepeated), "nor after revocation");
}

/// Gives new bytes for the ticket and the same for the credential id that is drawn after it.
struct SameCredentialId {
    draws: u32,
}

impl RngCore for SameCredentialId {
    fn next_u32(&mut self) -> u32 {
        OsRng.next_u32()
    }
    fn next_u64(&mut self) -> u64 {
        OsRng.next_u64()
    }
    fn fill_bytes(&mut self, dest: &mut [u8]) {
        OsRng.fill_bytes(dest);
        self.draws += 1;
        if self.draws == 2 {
            dest.fill(0x42);
        }
    }
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

impl CryptoRng for SameCredentialId {}

#[test]
fn two_tickets_never_give_the_same_credential() {
    let world = World::new();
    let (first, second) = (world.desktop(9), world.desktop(8));
    world.start_session("other");
    let mint = |desktop: &Desktop, id: &str| {
        let mut rng = SameCredentialId { draws: 0 };
        desktop.issuer.pair(session(id), &terms(), world.now.timestamp(), &mut rng).unwrap()
    };
    let mine = mint(&first, SESSION);
    let theirs = mint(&second, "other");
    assert_eq!(mine.credential, theirs.credential);
    first.lodge(&world, &mine).unwrap();
    assert_eq!(second.lodge(&world, &theirs), Err(Denial::OfferRepeated));
    let joined = world.join(&mine.link, &phone(2)).unwrap();
    // The first phone's record is untouched and its credential still works.
    assert_eq!(
        list_all(&world.gate, Some(&session(SESSION)), world.now).unwrap()[0].holder,
        Some(phone(2).public())
    );
    assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_ok());
}

#[test]
fn only_a_live_session_that_the_device_may_share_is_shared() {
    let world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.mint_for(&world, "not-running", &terms());
    assert_eq!(desktop.lodge(&world, &pairing), Err(Denial::SessionNotLive));
    world.start_session("private");
    world.context.0.lock().unwrap().private.insert(session("private"));
    let pairing = desktop.mint_for(&world, "private", &terms());
    assert_eq!(desktop.lodge(&world, &pairing), Err(Denial::SharingForbidden));
    assert!(world.list().is_empty());
}

/// A session that ends, and begins again under its id, while the agent is being asked about it.
struct EndsWhileAsked {
    context: Context,
    gate: Arc<OnceLock<Gate>>,
}

impl AgentContext for EndsWhileAsked {
    fn device(&self, device: &DevicePublicKey) -> Presence {
        self.context.device(device)
    }
    fn session(&self, session: &SessionId) -> Presence {
        self.context.session(session)
    }
    fn may_share(&self, device: &DevicePublicKey, id: &SessionId) -> bool {
        if self.context.0.lock().unwrap().sessions.remove(id) {
            self.gate.get().unwrap().end_session(id, at(START, 1_000)).unwrap();
        }
        self.context.may_share(device, id)
    }
}

#[test]
fn an_offer_does_not_outlive_a_session_that_ended_meanwhile() {
    let world = World::new();
    let desktop = Desktop::new(&world, 9);
    world.enrol(desktop.device);
    let gate = Arc::new(OnceLock::new());
    let racing = EndsWhileAsked { context: world.context.clone(), gate: Arc::clone(&gate) };
    let config = GateConfig::new(world.agent.public(), [AgentUrl::parse(URL).unwrap()]).unwrap();
    let gate_of_both = Gate::open(config, MemoryLedger::new(), racing, world.now).unwrap();
    let world = World { gate: gate_of_both, ..world };
    gate.set(world.gate.clone()).unwrap();
    desktop.register(&world).unwrap();
    let pairing = desktop.mint(&world, &terms());
    assert_eq!(desktop.lodge(&world, &pairing), Err(Denial::Interrupted));
    assert_eq!(desktop.lodge(&world, &pairing), Err(Denial::SessionNotLive));
    world.start_session(SESSION);
    assert!(world.join(&pairing.link, &phone(2)).is_err(), "the session of before is gone");
}

#[test]
fn terms_without_operations_are_refused() {
    assert_eq!(terms().with_ops(OpSet::EMPTY).err(), Some(DesktopError::OpsEmpty));
}

#[test]
fn offers_that_are_not_exactly_one_are_refused_and_leave_nothing() {
    let world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.mint(&world, &terms());
    let good = pairing.offer.to_bytes();
    let map = taken_apart(&pairing);
    let with = |key, value| cbor::encode(&cbor::with(&map, key, value));
    let bad = [
        Vec::new(),
        vec![0; limits::MAX_OFFER_LEN + 1],
        [good.as_slice(), &[0]].concat(),
        good[..good.len() - 1].to_vec(),
        with(0, Value::Uint(1)),
        with(1, cbor::bytes(&[0; 32])),
        with(1, cbor::bytes(&[1; 31])),
        with(5, Value::Text("a\nb".into())),
        with(5, Value::Text("x".repeat(41))),
        with(6, Value::Uint(2)),
        with(7, cbor::bytes(&[])),
        with(7, cbor::bytes(&[1; 4_097])),
        with(7, cbor::bytes(b"not a credential")),
        cbor::encode(&map.iter().rev().cloned().collect()),
        cbor::encode(&[map.clone(), vec![(8, Value::Uint(0))]].concat()),
    ];
    for offered in bad {
        let outcome = offer(&world, &desktop, &offered);
        assert!(matches!(outcome, Err(Denial::OfferMalformed(_))), "{outcome:?}");
    }
    assert!(world.list().is_empty());
    assert_eq!(desktop.lodge(&world, &pairing), Ok(()));
}

#[test]
fn a_bound_credential_cannot_be_offered() {
    let world = World::new();
    let desktop = world.desktop(9);
    let joined = world.join(&desktop.share(&world, &terms()).link, &phone(2)).unwrap();
    let outcome = changed(&world, &desktop, 7, cbor::bytes(joined.credential.as_bytes()));
    assert_eq!(outcome, Err(Denial::OfferMalformed(Error::Credential(CredentialProblem::Binding))));
}

// --- quotas ---

fn with_quotas(change: impl FnOnce(&mut Quotas)) -> World {
    let mut quotas = Quotas::default();
    change(&mut quotas);
    World::with(MemoryLedger::new(), |config| config.with_quotas(quotas))
}

fn full(quota: Quota, max: u32) -> Result<(), Denial> {
    Err(Denial::QuotaReached { quota, max })
}

fn try_share(world: &World, desktop: &Desktop, id: &str) -> Result<Pairing, Denial> {
    let pairing = desktop.mint_for(world, id, &terms());
    desktop.lodge(world, &pairing).map(|()| pairing)
}

#[test]
fn four_tickets_can_wait_for_one_session() {
    let mut world = World::new();
    let desktop = world.desktop(9);
    let open: Vec<_> = (0..4).map(|_| desktop.share(&world, &terms())).collect();
    let refused = || try_share(&world, &desktop, SESSION).map(|_| ());
    assert_eq!(refused(), full(Quota::TicketsPerSession, 4));
    world.gate.revoke_ticket(&open[0].ticket, world.now).unwrap();
    assert_eq!(refused(), Ok(()), "a revoked one makes room");
    assert_eq!(refused(), full(Quota::TicketsPerSession, 4));
    let _joined = world.join(&open[1].link, &phone(2)).unwrap();
    assert_eq!(refused(), Ok(()), "a redeemed one makes room");
    assert_eq!(refused(), full(Quota::TicketsPerSession, 4));
    world.pass(limits::DEFAULT_TICKET_LIFETIME as i64);
    assert_eq!(try_share(&world, &desktop, SESSION).map(|_| ()), Ok(()), "an expired one makes room");
}

#[test]
fn eight_credentials_can_live_for_one_session() {
    let mut world = World::new();
    let desktop = world.desktop(9);
    let mut credentials = Vec::new();
    for seed in 0..8 {
        let terms = terms().with_valid_for(if seed == 0 { 60 } else { 600 }).unwrap();
        let pairing = desktop.share(&world, &terms);
        assert!(world.join(&pairing.link, &phone(10 + seed)).is_ok());
        credentials.push(pairing.credential);
    }
    let refused = |world: &World| try_share(world, &desktop, SESSION).map(|_| ());
    assert_eq!(refused(&world), full(Quota::CredentialsPerSession, 8));
    world.gate.revoke_credential(&credentials[1], world.now).unwrap();
    assert_eq!(refused(&world), Ok(()), "a revoked one makes room, which the open ticket takes");
    assert_eq!(refused(&world), full(Quota::CredentialsPerSession, 8));
    world.pass(60);
    assert_eq!(refused(&world), Ok(()), "an expired one makes room");
}

#[test]
fn an_open_ticket_keeps_the_place_of_its_credential() {
    let world = with_quotas(|quotas| quotas.credentials_per_session = 2);
    let desktop = world.desktop(9);
    let (first, second) = (desktop.share(&world, &terms()), desktop.share(&world, &terms()));
    let refused = try_share(&world, &desktop, SESSION).map(|_| ());
    assert_eq!(refused, full(Quota::CredentialsPerSession, 2));
    assert!(world.join(&first.link, &phone(2)).is_ok());
    assert!(world.join(&second.link, &phone(3)).is_ok(), "no redemption fails for want of a place");
}

#[test]
fn the_agents_own_quotas_span_sessions() {
    let mut world = with_quotas(|quotas| {
        quotas.tickets_per_agent = 2;
        quotas.credentials_per_agent = 3;
    });
    let desktop = world.desktop(9);
    for id in ["a", "b", "c", "d"] {
        world.start_session(id);
    }
    let (a, b) = (desktop.share_session(&world, "a", &terms()), desktop.share_session(&world, "b", &terms()));
    let refused = |world: &World, id: &str| try_share(world, &desktop, id).map(|_| ());
    assert_eq!(refused(&world, "c"), full(Quota::TicketsPerAgent, 2));
    for (pairing, seed) in [(&a, 2), (&b, 3)] {
        let message = world.ask(&pairing.link, &phone(seed)).message;
        assert!(matches!(world.respond(&message), Response::Admitted(..)));
    }
    assert_eq!(refused(&world, "c"), Ok(()));
    assert_eq!(refused(&world, "d"), full(Quota::CredentialsPerAgent, 3));
    world.gate.end_session(&session("a"), world.now).unwrap();
    assert_eq!(refused(&world, "d"), Ok(()), "an ended session makes room");
    world.pass(limits::DEFAULT_CREDENTIAL_LIFETIME as i64);
    for id in ["c", "d"] {
        assert_eq!(refused(&world, id), Ok(()), "everything has expired");
    }
}

#[test]
fn a_devices_own_quotas_span_sessions_and_leave_the_others_alone() {
    let mut world = with_quotas(|quotas| {
        quotas.tickets_per_device = Some(2);
        quotas.credentials_per_device = Some(3);
    });
    let (desktop, other) = (world.desktop(9), world.desktop(8));
    for id in ["a", "b", "c", "d"] {
        world.start_session(id);
    }
    let (a, b) = (desktop.share_session(&world, "a", &terms()), desktop.share_session(&world, "b", &terms()));
    let refused = |world: &World, id: &str| try_share(world, &desktop, id).map(|_| ());
    assert_eq!(refused(&world, "c"), full(Quota::TicketsPerDevice, 2));
    assert!(try_share(&world, &other, "c").is_ok(), "another device has its own");
    for (pairing, seed) in [(&a, 2), (&b, 3)] {
        assert!(world.join(&pairing.link, &phone(seed)).is_ok());
    }
    assert_eq!(refused(&world, "c"), Ok(()), "redeemed ones make room");
    assert_eq!(refused(&world, "d"), full(Quota::CredentialsPerDevice, 3));
    assert!(try_share(&world, &other, "d").is_ok(), "another device has its own");
    world.gate.end_session(&session("a"), world.now).unwrap();
    assert_eq!(refused(&world, "d"), Ok(()), "an ended session makes room");
    assert_eq!(refused(&world, "d"), full(Quota::TicketsPerDevice, 2));
    world.pass(limits::DEFAULT_CREDENTIAL_LIFETIME as i64);
    for id in ["c", "d"] {
        assert_eq!(refused(&world, id), Ok(()), "everything has expired");
    }
}

#[test]
fn a_device_has_a_quarter_of_the_agents_places_by_default_and_at_least_a_sessions() {
    for (of_agent, of_device) in [(9, 3), (8, 2), (1, 1)] {
        let world = with_quotas(|quotas| {
            quotas.tickets_per_session = 1;
            quotas.tickets_per_agent = of_agent;
        });
        let desktop = world.desktop(9);
        let refusal = (0..).find_map(|n| {
            let id = format!("s{n}");
            world.start_session(&id);
            try_share(&world, &desktop, &id).err()
        });
        let refused_by = Denial::QuotaReached { quota: Quota::TicketsPerDevice, max: of_device };
        assert_eq!((refusal, world.list().len()), (Some(refused_by), of_device as usize));
    }
    let world = with_quotas(|quotas| {
        quotas.credentials_per_agent = 8;
        quotas.credentials_per_session = 3;
    });
    let desktop = world.desktop(9);
    world.start_session("elsewhere");
    desktop.share_session(&world, "elsewhere", &terms());
    let refusal = (0..).find_map(|_| try_share(&world, &desktop, SESSION).err());
    let refused_by = Denial::QuotaReached { quota: Quota::CredentialsPerDevice, max: 3 };
    assert_eq!((refusal, world.list().len()), (Some(refused_by), 3), "a session's three, not two");
}

#[test]
fn what_expired_elsewhere_does_not_hold_up_a_sessions_own_places() {
    let mut world = World::new();
    let desktop = world.desktop(9);
    // More than the two transitions of an offer settle by themselves, and all of it due earlier.
    for n in 0..3 * limits::COLLECT_PER_TRANSITION {
        let id = format!("s{n}");
        world.start_session(&id);
        desktop.share_session(&world, &id, &terms().with_ticket_lifetime(30).unwrap());
    }
    world.pass(1);
    for _ in 0..4 {
        desktop.share(&world, &terms().with_ticket_lifetime(30).unwrap());
    }
    world.pass(30);
    assert_eq!(try_share(&world, &desktop, SESSION).map(|_| ()), Ok(()));
}

#[test]
fn a_full_quota_never_removes_a_live_record() {
    let world = with_quotas(|quotas| quotas.tickets_per_agent = 1);
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &terms());
    for _ in 0..20 {
        assert!(try_share(&world, &desktop, SESSION).is_err());
    }
    assert!(world.join(&pairing.link, &phone(2)).is_ok());
}

#[test]
fn quotas_come_free_again_however_often_they_are_used() {
    let ledger = TestLedger::default();
    let quotas = Quotas::default().with_tickets_per_session(1).with_credentials_per_agent(1);
    let mut world = World::with(ledger.clone(), |config| config.with_quotas(quotas));
    let desktop = world.desktop(9);
    let terms = terms().with_valid_for(30).unwrap().with_ticket_lifetime(30).unwrap();
    for round in 0..40_u8 {
        let pairing = desktop.share(&world, &terms);
        match round % 4 {
            0 => world.gate.revoke_ticket(&pairing.ticket, world.now).map(drop).unwrap(),
            1 => drop(world.join(&pairing.link, &phone(round + 1)).unwrap()),
            2 => {
                assert!(world.join(&pairing.link, &phone(round + 1)).is_ok());
                world.gate.revoke_session(&session(SESSION), world.now).unwrap();
            }
            _ => {
                assert!(world.join(&pairing.link, &phone(round + 1)).is_ok());
                assert!(world.join(&pairing.link, &phone(round + 2)).is_err(), "a contest");
            }
        }
        world.pass(30);
    }
    // Nothing is kept for ever.
    world.pass(3_600);
    for _ in 0..40 {
        world.gate.settle(world.now).unwrap();
    }
    assert!(world.list().is_empty());
    let left: Vec<Table> = ledger.rows().into_keys().map(|(table, _)| table).collect();
    let kept = [Table::Meta, Table::Meta, Table::Meta, Table::Issuers];
    assert_eq!(left, kept, "the header, the counters, the time, and the issuer");
}
