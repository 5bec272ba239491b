//! Pairing from end to end, without sockets: offer, redeem, retry, contest, confirm, attach.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use common::ledger::TestLedger;
use common::*;
use proptest::prelude::*;
use rand::rngs::OsRng;
use sessioncap::agent::ledger::Table;
use sessioncap::agent::*;
use sessioncap::desktop::*;
use sessioncap::noise::Initiator;
use sessioncap::phone::*;
use sessioncap::*;
use time::Duration;

const TICKET_LIFE: i64 = limits::DEFAULT_TICKET_LIFETIME as i64;
const RETRY: i64 = limits::RETRY_WINDOW as i64;

#[test]
fn a_phone_redeems_and_may_do_what_the_desktop_named() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    assert_eq!(joined.guard.ops(), OpSet::COMPANION);
    assert_eq!(joined.guard.session(), &session(SESSION));
    assert_eq!(joined.guard.credential(), pairing.credential);
    assert_eq!(joined.guard.holder(), phone(2).public());
    assert_eq!(joined.guard.ask(Op::SendInput, world.now, || 5), Ok(5));
    assert_eq!(
        joined.guard.ask(Op::Resize, world.now, || 5),
        Err(Denial::OperationNotGranted { op: Op::Resize })
    );
    let mut guard = world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap();
    assert_eq!(guard.ask(Op::StreamOutput, world.now, || 6), Ok(6));
}

#[test]
fn the_phone_learns_session_operations_and_times_from_the_agent() {
    let world = World::new();
    let terms = terms().with_ops("companion,resize".parse().unwrap()).unwrap().with_valid_for(3_600).unwrap();
    let pairing = world.desktop(9).share(&world, &terms);
    let asking = world.ask(&pairing.link, &phone(2));
    let Response::Admitted(message, ..) = world.respond(&asking.message) else { panic!() };
    let Redeemed::Attached { attached, .. } = asking.next.finish(&message).unwrap() else { panic!() };
    assert_eq!(attached.session, session(SESSION));
    assert_eq!(attached.id, pairing.credential);
    assert_eq!(attached.ops, OpSet::COMPANION.with(Op::Resize));
    assert_eq!(attached.agent_time, world.now.timestamp());
    assert_eq!(attached.seconds_left, 3_600);
    assert!(attached.renewed.is_none());
}

#[test]
fn one_round_trip_stays_within_the_size_budget() {
    let world = World::new();
    let desktop = Desktop::of(world.agent.public(), "wss://agent-7f3a.dd.example-of-host", 9);
    let pairing = desktop.mint(&world, &terms());
    let asking = world.ask(&pairing.link, &phone(2));
    assert_eq!(asking.message.len(), 256);
    let pairing = world.desktop(9).share(&world, &terms());
    let asking = world.ask(&pairing.link, &phone(2));
    let Response::Admitted(message, ..) = world.respond(&asking.message) else { panic!() };
    assert!(message.len() <= 1_100, "{}", message.len());
}

// --- the same phone again ---

#[test]
fn the_same_key_gets_the_same_credential_bytes_after_a_lost_answer() {
    let mut world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    // The agent answers, and the answer is lost.
    let Response::Admitted(..) = world.respond(&world.ask(&pairing.link, &phone(2)).message) else {
        panic!()
    };
    let before = world.only_listing();
    world.pass(20);
    let first = world.join(&pairing.link, &phone(2)).unwrap();
    world.pass(20);
    let second = world.join(&pairing.link, &phone(2)).unwrap();
    assert_eq!(first.credential, second.credential);
    let mut after = world.only_listing();
    assert_eq!(after.connections, 2);
    assert!(before.last_seen.is_none() && after.last_seen.is_some());
    after.connections = 0;
    after.last_seen = None;
    assert_eq!(after, before, "one record, made once");
}

#[test]
fn a_retry_gets_the_present_time_and_the_remaining_seconds() {
    let mut world = World::new();
    let pairing = world.desktop(9).share(&world, &terms().with_valid_for(3_600).unwrap());
    let _first = world.join(&pairing.link, &phone(2)).unwrap();
    world.pass(600);
    let asking = world.ask(&pairing.link, &phone(2));
    let Response::Admitted(message, ..) = world.respond(&asking.message) else { panic!() };
    let Redeemed::Attached { attached, .. } = asking.next.finish(&message).unwrap() else { panic!() };
    assert_eq!(attached.agent_time, world.now.timestamp());
    assert_eq!(attached.seconds_left, 3_000);
}

#[test]
fn a_replayed_first_message_changes_nothing() {
    let mut world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let recorded = world.ask(&pairing.link, &phone(2)).message;
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    // Long enough that a note of the phone's presence would show.
    world.pass(2 * limits::LAST_SEEN_RESOLUTION as i64);
    let (listed, events) = (world.only_listing(), world.events());
    let Response::Admitted(_, _, waiting) = world.respond(&recorded) else { panic!("refused") };
    for _ in 0..100 {
        let Response::Closed(Some(denial)) = world.respond(&recorded) else { panic!("answered") };
        assert_eq!(denial, Denial::Repeated, "while the first one waits");
    }
    drop(waiting);
    let mut replayed = Vec::new();
    for _ in 0..100 {
        let Response::Admitted(_, _, guard) = world.respond(&recorded) else { panic!("refused") };
        replayed.push(guard.time_left(world.now));
    }
    assert_eq!(world.only_listing(), listed);
    assert_eq!(world.events(), events);
    // The replayed admissions take no place among the connections.
    let more: Vec<_> =
        (1..4).map(|_| world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap()).collect();
    assert_eq!(more.len(), 3);
}

#[test]
fn a_replayed_first_message_is_no_second_redemption_before_the_phone_comes() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let recorded = world.ask(&pairing.link, &phone(2)).message;
    for _ in 0..100 {
        let Response::Admitted(..) = world.respond(&recorded) else { panic!("refused") };
    }
    let redeemed = world.events().into_iter().filter(|e| matches!(e, AuditEvent::TicketRedeemed { .. }));
    assert_eq!(redeemed.count(), 1);
    assert!(!world.events().iter().any(|e| matches!(e, AuditEvent::PhoneAttached { .. })));
    assert_eq!(world.only_listing().connections, 0);
}

#[test]
fn a_replayed_attach_does_not_count_as_presence() {
    let mut world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let asking =
        attach(&world.agent.public(), &phone(2), &joined.credential, OpSet::EMPTY, &mut OsRng).unwrap();
    world.pass(600);
    let (listed, events) = (world.only_listing(), world.events());
    for _ in 0..10 {
        let Response::Admitted(..) = world.respond(&asking.message) else { panic!("refused") };
    }
    assert_eq!((world.only_listing(), world.events()), (listed, events));
}

#[test]
fn retries_work_until_ten_minutes_after_the_ticket_ended() {
    let mut world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let first = world.join(&pairing.link, &phone(2)).unwrap();
    for wait in [TICKET_LIFE, RETRY - 1] {
        world.pass(wait);
        assert_eq!(world.join(&pairing.link, &phone(2)).unwrap().credential, first.credential);
    }
    world.pass(1);
    let refusal = world.join(&pairing.link, &phone(2)).unwrap_err();
    assert_eq!(refusal, Refusal::silent(Denial::TicketUnknown));
    let mut guard = world.attach(&phone(2), &first.credential, OpSet::EMPTY).unwrap();
    assert_eq!(guard.ask(Op::Detach, world.now, || ()), Ok(()), "the credential goes on");
}

#[test]
fn an_unredeemed_ticket_ends_with_its_lifetime() {
    let mut world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    world.pass(TICKET_LIFE - 1);
    assert_eq!(world.only_listing().state, ListingState::Open);
    world.pass(1);
    assert_eq!(world.only_listing().state, ListingState::Expired);
    let refusal = world.join(&pairing.link, &phone(2)).unwrap_err();
    assert_eq!(refusal, Refusal::told(Denial::TicketExpired, Status::Expired));
}

#[test]
fn a_ticket_whose_credential_has_expired_is_not_claimed_and_the_answer_is_expired() {
    let mut world = World::new();
    let pairing = world.desktop(9).share(&world, &terms().with_valid_for(30).unwrap());
    world.pass(30);
    let refusal = world.join(&pairing.link, &phone(2)).unwrap_err();
    assert_eq!(refusal, Refusal::told(Denial::CredentialExpired, Status::Expired));
    assert_eq!(world.only_listing().state, ListingState::Open);
    assert_eq!(world.only_listing().holder, None);
}

// --- another phone ---

#[test]
fn a_second_phone_within_the_lifetime_gets_both_refused() {
    let mut world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let mut first = world.join(&pairing.link, &phone(2)).unwrap();
    world.pass(TICKET_LIFE - 1);
    let contested = Refusal::told(Denial::TicketContested, Status::Revoked);
    assert_eq!(world.join(&pairing.link, &phone(3)).unwrap_err(), contested);
    assert_eq!(first.guard.ask(Op::StreamOutput, world.now, || ()), Err(Denial::TicketContested));
    assert_eq!(world.attach(&phone(2), &first.credential, OpSet::EMPTY).unwrap_err(), contested);
    assert_eq!(world.join(&pairing.link, &phone(2)).unwrap_err(), contested);
    assert_eq!(world.only_listing().state, ListingState::Revoked { why: RevocationReason::Contest });
    let event = AuditEvent::TicketContested {
        session: session(SESSION),
        ticket: pairing.ticket,
        credential: pairing.credential,
        holder: phone(2).public(),
        contender: phone(3).public(),
    };
    assert_eq!(world.events().into_iter().filter(|e| *e == event).count(), 1);
}

#[test]
fn a_second_phone_after_the_lifetime_is_refused_and_harms_nobody() {
    let mut world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let mut first = world.join(&pairing.link, &phone(2)).unwrap();
    world.pass(TICKET_LIFE);
    let refusal = world.join(&pairing.link, &phone(3)).unwrap_err();
    assert_eq!(refusal, Refusal::told(Denial::TicketClaimed, Status::Claimed));
    assert_eq!(first.guard.ask(Op::StreamOutput, world.now, || 1), Ok(1));
    assert_eq!(world.only_listing().state, ListingState::Active);
}

#[test]
fn a_contest_needs_the_secret_not_just_the_ticket_id() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let mut first = world.join(&pairing.link, &phone(2)).unwrap();
    let map = vec![
        (1, cbor::bytes(pairing.ticket.as_bytes())),
        (2, cbor::bytes(&[7; 64])),
        (3, cbor::Value::Text("x".into())),
    ];
    let PeerAdmission::Refused { reply, denial } = world.admit(&phone(3), &cbor::payload(&map)) else {
        panic!()
    };
    assert_eq!((reply, denial), (None, Denial::TicketProofInvalid));
    // Nor can the first phone's own proof be shown by somebody else.
    let received = world.open(&world.ask(&pairing.link, &phone(2)).message).unwrap();
    let PeerAdmission::Refused { reply, denial } = world.admit(&phone(3), received.payload()) else {
        panic!()
    };
    assert_eq!((reply, denial), (None, Denial::TicketProofInvalid));
    assert_eq!(first.guard.ask(Op::StreamOutput, world.now, || 1), Ok(1));
}

#[test]
fn a_proof_made_for_another_agent_is_refused() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let rogue = AgentSecretKey::from_bytes([66; 32]);
    let url = AgentUrl::parse("wss://rogue.example").unwrap();
    let link = Link::new(url, rogue.public(), pairing.link.ticket().clone());
    let message = redeem(&link, &phone(2), text("phone"), &mut OsRng).unwrap().message;
    let seen_by_rogue = noise::Responder::read(&rogue, &message, &mut OsRng).unwrap();
    let PeerAdmission::Refused { reply, denial } = world.admit(&phone(2), seen_by_rogue.payload()) else {
        panic!()
    };
    assert_eq!((reply, denial), (None, Denial::TicketProofInvalid));
    assert!(world.join(&pairing.link, &phone(2)).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any number of phones with the same code, in any order, with retries in between and time
    /// passing: at no moment is the credential active for more than one, and a second one within the
    /// ticket's lifetime ends it for good.
    #[test]
    fn a_race_of_phones_leaves_at_most_one_active(
        order in proptest::collection::vec((1..5_u8, 0..120_i64), 1..12)
    ) {
        let mut world = World::new();
        let pairing = world.desktop(9).share(&world, &terms());
        let begin = world.now.monotonic;
        let mut guards: Vec<(u8, Guard)> = Vec::new();
        let mut first = None;
        let mut contested = false;
        for (seed, wait) in order {
            let within = world.now.monotonic - begin < Duration::seconds(TICKET_LIFE);
            let outcome = world.join(&pairing.link, &phone(seed));
            match first {
                None if within => { prop_assert!(outcome.is_ok()); first = Some(seed); }
                None => prop_assert!(outcome.is_err()),
                Some(winner) if winner != seed => {
                    prop_assert!(outcome.is_err());
                    contested |= within;
                }
                Some(_) if contested => prop_assert!(outcome.is_err()),
                Some(_) => {}
            }
            if let Ok(joined) = outcome {
                guards.push((seed, joined.guard));
            }
            let mut alive: Vec<u8> = Vec::new();
            for (seed, guard) in &mut guards {
                if guard.ask(Op::StreamOutput, world.now, || ()).is_ok() {
                    alive.push(*seed);
                }
            }
            alive.dedup();
            prop_assert!(alive.len() <= 1, "{:?}", alive);
            prop_assert!(!contested || alive.is_empty());
            world.pass(wait);
        }
    }
}

#[test]
fn phones_that_redeem_at_the_same_moment_are_all_refused() {
    for _ in 0..20 {
        let world = World::new();
        let pairing = world.desktop(9).share(&world, &terms());
        let mut joined: Vec<Joined> = std::thread::scope(|scope| {
            let join = |seed| {
                let (world, link) = (&world, &pairing.link);
                scope.spawn(move || world.join(link, &phone(seed)))
            };
            let phones: Vec<_> = (2..6).map(join).collect();
            phones.into_iter().filter_map(|phone| phone.join().unwrap().ok()).collect()
        });
        assert!(joined.len() <= 1);
        for one in &mut joined {
            assert_eq!(one.guard.checked(world.now), Err(Denial::TicketContested));
        }
        assert_eq!(world.only_listing().state, ListingState::Revoked { why: RevocationReason::Contest });
    }
}

// --- confirmation ---

fn confirmed_terms() -> PairingTerms {
    terms().with_confirmation(Confirmation::Required)
}

/// The digits that the desktop's list shows.
fn listed_code(world: &World) -> String {
    match world.only_listing().state {
        ListingState::Pending { code } => code.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_phone_that_must_be_confirmed_waits_with_the_same_digits_on_both_screens() {
    let mut world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &confirmed_terms());
    let refusal = world.join(&pairing.link, &phone(2)).unwrap_err();
    assert_eq!(refusal.denial, Denial::ConfirmationPending);
    let code = refusal.code.unwrap();
    assert_eq!(code, listed_code(&world));
    assert_eq!(code.len(), 7);
    world.pass(3);
    assert_eq!(world.join(&pairing.link, &phone(2)).unwrap_err().code, Some(code), "the digits stay");
    world.gate.confirm(&desktop.device, &pairing.ticket, &phone(2).public(), world.now).unwrap();
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    assert_eq!(joined.guard.ask(Op::SendInput, world.now, || 1), Ok(1));
    world.gate.confirm(&desktop.device, &pairing.ticket, &phone(2).public(), world.now).unwrap();
    let confirmed =
        world.events().into_iter().filter(|e| matches!(e, AuditEvent::CredentialConfirmed { .. }));
    assert_eq!(confirmed.count(), 1, "confirming twice is confirming once");
}

#[test]
fn the_answer_to_a_waiting_phone_has_no_credential_and_no_room_for_one() {
    let ledger = TestLedger::default();
    let world = World::on(ledger.clone());
    let pairing = world.desktop(9).share(&world, &confirmed_terms());
    let message = world.ask(&pairing.link, &phone(2)).message;
    let received = world.open(&message).unwrap();
    let PeerAdmission::Refused { reply, .. } = world.admit(&phone(2), received.payload()) else { panic!() };
    let reply = reply.unwrap();
    assert_eq!(reply.len(), 160, "the smallest size");
    let keys: Vec<u64> = cbor::decode_payload(&reply).unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [6, 7, 8, 13], "status, time, seconds left, nonce");
    // Even with the credential from the agent's own ledger, the phone is not admitted.
    let credential = stored_credential(&ledger);
    let PeerAdmission::Refused { denial, .. } =
        world.admit(&phone(2), &attach_payload(OpSet::EMPTY, &credential))
    else {
        panic!()
    };
    assert_eq!(denial, Denial::ConfirmationPending);
}

/// In the only credential record: the one byte string with a two-byte length.
fn stored_credential(ledger: &TestLedger) -> Vec<u8> {
    let rows = ledger.rows();
    let ((_, _), row) = rows.iter().find(|((table, _), _)| *table == Table::Credentials).unwrap();
    let found = (1..row.len() - 3).filter(|at| row[*at] == 0x59).find_map(|at| {
        let len = usize::from(row[at + 1]) << 8 | usize::from(row[at + 2]);
        let bytes = row.get(at + 3..at + 3 + len)?.to_vec();
        Credential::parse(&CredentialBytes::new(bytes.clone()).ok()?).ok().map(|_| bytes)
    });
    found.unwrap()
}

#[test]
fn only_the_desktop_that_offered_confirms_and_only_the_phone_that_waits() {
    let world = World::new();
    let desktop = world.desktop(9);
    let other = world.desktop(8);
    let pairing = desktop.share(&world, &confirmed_terms());
    let holder = phone(2).public();
    let confirm = |device: &DevicePublicKey, holder: &HolderPublicKey| {
        world.gate.confirm(device, &pairing.ticket, holder, world.now)
    };
    assert_eq!(confirm(&desktop.device, &holder), Err(Denial::NothingToConfirm), "nobody waits yet");
    assert!(world.join(&pairing.link, &phone(2)).is_err());
    assert_eq!(confirm(&other.device, &holder), Err(Denial::IssuerOfAnotherDevice));
    assert_eq!(confirm(&desktop.device, &phone(3).public()), Err(Denial::NothingToConfirm));
    let stranger = DeviceSecretKey::from_bytes([77; 32]).public();
    assert_eq!(confirm(&stranger, &holder), Err(Denial::DeviceNotEnrolled));
    let unknown = TicketId::from_bytes([9; 16]);
    let outcome = world.gate.confirm(&desktop.device, &unknown, &holder, world.now);
    assert_eq!(outcome, Err(Denial::NothingToConfirm));
    assert_eq!(world.join(&pairing.link, &phone(2)).unwrap_err().denial, Denial::ConfirmationPending);
    assert_eq!(confirm(&desktop.device, &holder), Ok(()));
}

#[test]
fn a_phone_that_nobody_confirms_expires_with_the_ticket() {
    let mut world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &confirmed_terms());
    assert!(world.join(&pairing.link, &phone(2)).is_err());
    world.pass(TICKET_LIFE - 1);
    assert!(matches!(world.only_listing().state, ListingState::Pending { .. }));
    world.pass(1);
    assert_eq!(world.only_listing().state, ListingState::Expired);
    let confirmed = world.gate.confirm(&desktop.device, &pairing.ticket, &phone(2).public(), world.now);
    assert!(matches!(confirmed, Err(Denial::TicketExpired | Denial::CredentialExpired)), "{confirmed:?}");
    let refusal = world.join(&pairing.link, &phone(2)).unwrap_err();
    assert_eq!(refusal.told, Some(PhoneError::Refused(Status::Expired)));
}

#[test]
fn a_confirmed_phone_stays_when_the_ticket_ends() {
    let mut world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &confirmed_terms());
    assert!(world.join(&pairing.link, &phone(2)).is_err());
    world.gate.confirm(&desktop.device, &pairing.ticket, &phone(2).public(), world.now).unwrap();
    world.pass(TICKET_LIFE + RETRY - 1);
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    assert_eq!(joined.guard.ask(Op::SendInput, world.now, || 1), Ok(1));
}

#[test]
fn a_second_phone_revokes_a_pending_one() {
    let world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &confirmed_terms());
    assert!(world.join(&pairing.link, &phone(2)).is_err());
    let contested = Refusal::told(Denial::TicketContested, Status::Revoked);
    assert_eq!(world.join(&pairing.link, &phone(3)).unwrap_err(), contested);
    let confirmed = world.gate.confirm(&desktop.device, &pairing.ticket, &phone(2).public(), world.now);
    assert_eq!(confirmed, Err(Denial::TicketContested));
}

// --- which reason comes first ---

/// The desktop's clock runs in step, so a credential of 30 s ends before its ticket of 5 minutes.
fn short_lived() -> PairingTerms {
    terms().with_valid_for(30).unwrap()
}

#[test]
fn revoked_comes_before_session_gone() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
    world.stop_session(SESSION);
    world.gate.end_session(&session(SESSION), world.now).unwrap();
    let revoked = Refusal::told(Denial::CredentialRevoked, Status::Revoked);
    assert_eq!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err(), revoked);
    assert_eq!(world.join(&pairing.link, &phone(2)).unwrap_err(), revoked);
}

#[test]
fn session_gone_comes_before_expired() {
    let mut world = World::new();
    let pairing = world.desktop(9).share(&world, &short_lived());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    world.pass(31);
    let expired = Refusal::told(Denial::CredentialExpired, Status::Expired);
    assert_eq!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err(), expired);
    assert_eq!(world.join(&pairing.link, &phone(2)).unwrap_err(), expired);
    world.stop_session(SESSION);
    let gone = Refusal::told(Denial::SessionGone, Status::SessionGone);
    assert_eq!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err(), gone);
    assert_eq!(world.join(&pairing.link, &phone(2)).unwrap_err(), gone);
}

#[test]
fn session_gone_comes_before_expired_for_a_ticket_that_nobody_redeemed() {
    let mut world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    world.stop_session(SESSION);
    world.pass(TICKET_LIFE);
    let gone = Refusal::told(Denial::SessionGone, Status::SessionGone);
    assert_eq!(world.join(&pairing.link, &phone(2)).unwrap_err(), gone);
}

#[test]
fn expired_comes_before_pending() {
    let mut world = World::new();
    let pairing = world.desktop(9).share(&world, &short_lived().with_confirmation(Confirmation::Required));
    assert_eq!(world.join(&pairing.link, &phone(2)).unwrap_err().denial, Denial::ConfirmationPending);
    world.pass(30);
    let refusal = world.join(&pairing.link, &phone(2)).unwrap_err();
    assert_eq!(refusal.told, Some(PhoneError::Refused(Status::Expired)));
}

// --- the first frame ---

#[test]
fn an_admission_must_be_followed_by_a_frame_within_five_seconds() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let pending = || {
        let Response::Admitted(_, _, guard) = world.respond(&world.ask(&pairing.link, &phone(2)).message)
        else {
            panic!()
        };
        guard
    };
    let (in_time, late) = (pending(), pending());
    assert_eq!(in_time.time_left(world.now), Duration::seconds(5));
    let events = world.events();
    let late = late.activate_after_first_frame(world.now.plus(Duration::seconds(5)));
    assert_eq!(late.err(), Some(Denial::ActivationTimeout));
    assert_eq!(world.events(), events);
    assert!(in_time.activate_after_first_frame(world.now.plus(Duration::milliseconds(4_999))).is_ok());
}

#[test]
fn a_wall_clock_set_back_does_not_stretch_the_five_seconds() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let Response::Admitted(_, _, guard) = world.respond(&world.ask(&pairing.link, &phone(2)).message) else {
        panic!()
    };
    assert_eq!(
        guard.activate_after_first_frame(at(START - 3_600, 1_005)).err(),
        Some(Denial::ActivationTimeout)
    );
}

#[test]
fn presence_is_noted_with_the_first_frame_and_once_a_minute() {
    let mut world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let first = world.now.timestamp();
    world.pass(59);
    let _again = world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap();
    assert_eq!(world.only_listing().last_seen, Some(first));
    world.pass(1);
    let _again = world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap();
    assert_eq!(world.only_listing().last_seen, Some(world.now.timestamp()));
    let attached = AuditEvent::PhoneAttached {
        session: session(SESSION),
        credential: pairing.credential,
        holder: phone(2).public(),
        ops: OpSet::COMPANION,
    };
    world.gate.settle(world.now).unwrap();
    // So does the log: a phone that attaches again and again does not fill it.
    assert_eq!(world.events().into_iter().filter(|e| *e == attached).count(), 2);
}

#[test]
fn what_happens_between_admission_and_first_frame_counts() {
    let world = World::new();
    let desktop = world.desktop(9);
    type Verb = fn(&World, &Pairing, &Desktop);
    let verbs: [(Verb, Denial); 4] = [
        (
            |w, p, _| w.gate.revoke_credential(&p.credential, w.now).map(drop).unwrap(),
            Denial::CredentialRevoked,
        ),
        (|w, p, _| w.gate.revoke_ticket(&p.ticket, w.now).map(drop).unwrap(), Denial::CredentialRevoked),
        (|w, _, _| w.gate.end_session(&session(SESSION), w.now).map(drop).unwrap(), Denial::SessionGone),
        (|w, _, d| w.gate.revoke_device(&d.device, w.now).map(drop).unwrap(), Denial::CredentialRevoked),
    ];
    for (verb, denial) in verbs {
        desktop.register(&world).unwrap();
        let pairing = desktop.share(&world, &terms());
        let message = world.ask(&pairing.link, &phone(2)).message;
        let Response::Admitted(_, _, guard) = world.respond(&message) else { panic!() };
        verb(&world, &pairing, &desktop);
        assert_eq!(guard.activate_after_first_frame(world.now).err(), Some(denial));
    }
}

// --- connections ---

#[test]
fn a_credential_has_four_connections_and_a_dropped_one_makes_room() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let attach = || world.attach(&phone(2), &joined.credential, OpSet::EMPTY);
    let mut guards: Vec<_> = (1..4).map(|_| attach().unwrap()).collect();
    assert_eq!(world.only_listing().connections, 4);
    let busy = Refusal::told(Denial::TooManyConnections { max: 4 }, Status::Busy);
    assert_eq!(attach().unwrap_err(), busy);
    assert_eq!(world.join(&pairing.link, &phone(2)).unwrap_err(), busy, "nor by redeeming again");
    let fork = guards[0].fork();
    guards.remove(0);
    assert_eq!(attach().unwrap_err(), busy, "a connection lives as long as one of its guards");
    drop(fork);
    assert!(attach().is_ok());
}

#[test]
fn the_cap_holds_for_admissions_that_become_live_later() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let pending: Vec<_> = (0..6)
        .map(|_| match world.respond(&world.ask(&pairing.link, &phone(2)).message) {
            Response::Admitted(_, _, guard) => guard,
            _ => panic!(),
        })
        .collect();
    let outcomes: Vec<_> =
        pending.into_iter().map(|guard| guard.activate_after_first_frame(world.now)).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 4);
    assert_eq!(outcomes[5].as_ref().err(), Some(&Denial::TooManyConnections { max: 4 }));
}

#[test]
fn of_admissions_that_wait_for_their_first_frame_the_oldest_gives_way() {
    let mut world = World::new();
    let desktop = world.desktop(9);
    let (pairing, other) = (desktop.share(&world, &terms()), desktop.share(&world, &terms()));
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let bystander = world.join(&other.link, &phone(3)).unwrap();
    let wait = |world: &World, seed: u8, credential: &CredentialBytes| match world
        .admit(&phone(seed), &attach_payload(OpSet::EMPTY, credential.as_bytes()))
    {
        PeerAdmission::Admitted { guard, .. } => guard,
        other => panic!("{other:?}"),
    };
    let theirs = wait(&world, 3, &bystander.credential);
    let mut waiting: Vec<_> =
        (0..limits::MAX_PENDING + 2).map(|_| wait(&world, 2, &joined.credential)).collect();
    for _ in 0..2 {
        assert_eq!(waiting.remove(0).activate_after_first_frame(world.now).unwrap_err(), Denial::Displaced);
    }
    assert!(waiting.remove(0).activate_after_first_frame(world.now).is_ok(), "sixteen may wait");
    assert!(theirs.activate_after_first_frame(world.now).is_ok(), "another credential's are not touched");
    // Admissions that were dropped, or have waited for too long, use no place.
    drop(waiting);
    let first = wait(&world, 2, &joined.credential);
    let _given_up: Vec<_> = (0..10).map(|_| drop(wait(&world, 2, &joined.credential))).collect();
    let _waiting: Vec<_> = (1..limits::MAX_PENDING).map(|_| wait(&world, 2, &joined.credential)).collect();
    assert!(first.activate_after_first_frame(world.now).is_ok());
    world.pass(limits::ACTIVATION_TIMEOUT as i64);
    let fresh = wait(&world, 2, &joined.credential);
    let _more: Vec<_> = (1..limits::MAX_PENDING).map(|_| wait(&world, 2, &joined.credential)).collect();
    assert!(fresh.activate_after_first_frame(world.now).is_ok());
}

#[test]
fn forks_of_a_connection_do_not_count() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let mut fork = joined.guard.fork();
    assert_eq!(world.only_listing().connections, 1);
    assert_eq!(fork.ask(Op::SendInput, world.now, || 3), Ok(3));
    assert_eq!(fork.session(), joined.guard.session());
}

// --- who is a phone at all ---

#[test]
fn a_payload_without_the_magic_is_a_device_whoever_sends_it() {
    let world = World::new();
    let desktop = world.desktop(9);
    for payload in [b"".as_slice(), b"SCP", b"scp1", b"SCP2", b"{\"method\":\"session.list\"}", &[0; 5_000]] {
        assert!(matches!(world.admit(&phone(2), payload), PeerAdmission::PassThrough));
        let admission = world.admit_key(desktop.device.as_bytes(), payload);
        assert!(matches!(admission, PeerAdmission::PassThrough));
    }
    assert!(!is_scoped(b"") && is_scoped(&MAGIC));
}

#[test]
fn a_payload_with_the_magic_is_scoped_even_from_an_enrolled_key() {
    let world = World::new();
    let desktop = world.desktop(9);
    let admission = world.admit_key(desktop.device.as_bytes(), b"SCP1");
    let PeerAdmission::Refused { reply, denial } = admission else {
        panic!("an enrolled key got past the magic")
    };
    assert_eq!((reply, denial), (None, Denial::PayloadMalformed));
    // The desktop's own key redeems like any phone and gets no more than the ticket gives.
    let pairing = desktop.share(&world, &terms().with_ops(OpSet::only(Op::ReadMetadata)).unwrap());
    let mut joined = world.join(&pairing.link, &phone(9)).unwrap();
    assert_eq!(phone(9).public().as_bytes(), desktop.device.as_bytes());
    assert_eq!(joined.guard.ops(), OpSet::only(Op::ReadMetadata));
    assert!(joined.guard.ask(Op::SendInput, world.now, || ()).is_err());
}

#[test]
fn a_key_that_is_not_canonical_or_of_low_order_is_not_even_answered() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let payload = world.open(&world.ask(&pairing.link, &phone(2)).message).unwrap().payload().to_vec();
    let mut second_spelling = *phone(2).public().as_bytes();
    second_spelling[31] |= 0x80;
    for key in [[0; 32], [0xff; 32], second_spelling] {
        let PeerAdmission::Refused { reply, denial } = world.admit_key(&key, &payload) else { panic!() };
        assert_eq!((reply, denial), (None, Denial::HolderMismatch));
    }
}

// --- what a guard permits ---

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The operations that a guard permits are those that were both offered and asked for; none
    /// asked for means all that were offered.
    #[test]
    fn a_guard_permits_the_requested_operations_within_the_scope(offered in 1..=0xff_u64, asked in 0..=0xff_u64) {
        let (offered, asked) = (OpSet::from_bits(offered).unwrap(), OpSet::from_bits(asked).unwrap());
        let world = World::new();
        let pairing = world.desktop(9).share(&world, &terms().with_ops(offered).unwrap());
        let joined = world.join(&pairing.link, &phone(2)).unwrap();
        prop_assert_eq!(joined.guard.ops(), offered);
        let expected = if asked.is_empty() { offered } else { offered.intersection(asked) };
        match world.attach(&phone(2), &joined.credential, asked) {
            Ok(mut guard) => {
                let permitted: OpSet =
                    Op::ALL.iter().copied().filter(|op| guard.ask(*op, world.now, || ()).is_ok()).collect();
                prop_assert_eq!(permitted, expected);
                let action = |op| Action::Session(op);
                let by_action: OpSet = Op::ALL
                    .iter()
                    .copied()
                    .filter(|op| guard.ask_action(action(*op), world.now, || ()).is_ok())
                    .collect();
                prop_assert_eq!(by_action, expected);
            }
            Err(refusal) => {
                prop_assert!(expected.is_empty());
                prop_assert_eq!(refusal.told, Some(PhoneError::Refused(Status::OperationDenied)));
                let named = matches!(refusal.denial, Denial::CaveatFailed { block: 0, ref caveat } if caveat.name() == "ops");
                prop_assert!(named, "{:?}", refusal.denial);
            }
        }
    }
}

#[test]
fn no_guard_permits_a_privilege_and_no_closure_runs() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms().with_ops(OpSet::ALL).unwrap());
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    for &privilege in Privilege::ALL {
        let action = Action::Privileged(privilege);
        let outcome = joined.guard.ask_action(action, world.now, || panic!("ran"));
        assert_eq!(outcome, Err::<(), _>(Denial::PrivilegeDenied { privilege }));
        let explained = world.gate.explain(&phone(2).public(), &joined.credential, action, world.now);
        assert_eq!(explained, Err(Denial::PrivilegeDenied { privilege }));
    }
}

#[test]
fn the_agent_that_answers_must_be_the_one_in_the_link() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let other = AgentSecretKey::from_bytes([3; 32]);
    let asking = world.ask(&pairing.link, &phone(2));
    assert!(noise::Responder::read(&other, &asking.message, &mut OsRng).is_err());
    // A stranger that answers with a handshake of its own is noticed.
    let theirs = Initiator::start(&phone(2), &other.public(), b"", &mut OsRng).unwrap();
    let received = noise::Responder::read(&other, &theirs.message, &mut OsRng).unwrap();
    let answer = received.reply(b"").unwrap().message;
    assert_eq!(asking.next.finish(&answer).err(), Some(PhoneError::AnswerUnreadable));
}
