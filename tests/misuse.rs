//! The dangerous wrong orders of calls, and the error that each of them gives.
//!
//! | wrong order | what stops it |
//! |---|---|
//! | a message answered or finished twice | does not compile: the state is consumed |
//! | a permit from an admission without a first frame | does not compile: `PendingGuard` and `PendingChannel` grant none |
//! | an admission activated twice | does not compile: `activate` consumes it |
//! | a guard made or copied by hand | does not compile: no constructor, no `Clone` |
//! | a key in the place of another kind | does not compile: a type for each |
//! | a privilege among the operations | does not compile: no conversion |
//! | a secret printed or serialised | does not compile: neither `Display` nor `Serialize` |
//! | an unverified credential in a decision | does not compile: verified is another, private type |
//! | an `.await` inside a permit | does not compile: its closure is not async (a future that it *returns* would run outside the permit: use `Guard::drive`) |
//! | everything below | an error, as its test shows |
//!
//! Some of those that do not compile are `compile_fail` examples where the types are documented.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use common::*;
use rand::rngs::OsRng;
use sessioncap::agent::*;
use sessioncap::desktop::*;
use sessioncap::phone::*;
use sessioncap::*;

#[test]
fn redeeming_before_the_offer_arrived_is_refused_and_works_afterwards() {
    let world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.mint(&world, &terms());
    assert_eq!(world.join(&pairing.link, &phone(2)).unwrap_err(), Refusal::silent(Denial::TicketUnknown));
    desktop.lodge(&world, &pairing).unwrap();
    assert!(world.join(&pairing.link, &phone(2)).is_ok());
}

#[test]
fn offering_before_registering_is_refused() {
    let world = World::new();
    let desktop = Desktop::new(&world, 9);
    world.enrol(desktop.device);
    let pairing = desktop.mint(&world, &terms());
    assert_eq!(desktop.lodge(&world, &pairing), Err(Denial::IssuerUnknown));
}

#[test]
fn confirming_before_anyone_redeemed_is_refused_and_admits_nobody_later() {
    let world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &terms().with_confirmation(Confirmation::Required));
    let confirmed = world.gate.confirm(&desktop.device, &pairing.ticket, &phone(2).public(), world.now);
    assert_eq!(confirmed, Err(Denial::NothingToConfirm));
    assert_eq!(world.join(&pairing.link, &phone(2)).unwrap_err().denial, Denial::ConfirmationPending);
}

#[test]
fn an_admission_that_never_becomes_live_leaves_no_trace_of_a_phone() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let Response::Admitted(_, _, pending) = world.respond(&world.ask(&pairing.link, &phone(2)).message)
    else {
        panic!()
    };
    drop(pending);
    assert_eq!(world.only_listing().connections, 0);
    assert!(!world.events().iter().any(|event| matches!(event, AuditEvent::PhoneAttached { .. })));
}

#[test]
fn a_new_phone_key_for_a_retry_loses_the_pairing_instead_of_doubling_it() {
    // A phone that does not store its key before it asks has a new one when it asks again.
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let first = world.join(&pairing.link, &HolderSecretKey::generate(&mut OsRng)).unwrap();
    let again = world.join(&pairing.link, &HolderSecretKey::generate(&mut OsRng)).unwrap_err();
    assert_eq!(again.denial, Denial::TicketContested);
    assert!(first.guard.fork().checked(world.now).is_err());
}

#[test]
fn a_guard_used_after_its_end_is_refused_for_good() {
    let mut world = World::new();
    let pairing = world.desktop(9).share(&world, &terms().with_valid_for(60).unwrap());
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    let early = world.now;
    world.pass(60);
    assert_eq!(joined.guard.ask(Op::Detach, world.now, || ()), Err(Denial::CredentialExpired));
    assert_eq!(joined.guard.ask(Op::Detach, early, || ()), Err(Denial::CredentialExpired), "an old time");
}

#[test]
fn an_answer_to_another_request_is_refused() {
    let world = World::new();
    let desktop = world.desktop(9);
    let (one, two) = (desktop.share(&world, &terms()), desktop.share(&world, &terms()));
    let first = world.ask(&one.link, &phone(2));
    let second = world.ask(&two.link, &phone(2));
    let Response::Admitted(answer, ..) = world.respond(&second.message) else { panic!() };
    assert_eq!(first.next.finish(&answer).err(), Some(PhoneError::AnswerUnreadable));
    assert!(second.next.finish(&answer).is_ok());
}

#[test]
fn frames_cannot_be_sealed_for_one_connection_and_opened_on_another() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let connect = || {
        let asking = world.ask(&pairing.link, &phone(2));
        let Response::Admitted(answer, agent, _) = world.respond(&asking.message) else { panic!() };
        let Redeemed::Attached { attached, .. } = asking.next.finish(&answer).unwrap() else { panic!() };
        (attached.channel, agent)
    };
    let ((mut phone_one, _), (_, mut agent_two)) = (connect(), connect());
    assert_eq!(agent_two.open(&phone_one.seal(b"x").unwrap()), Err(Error::Noise));
}

#[test]
fn a_frame_too_long_is_refused_before_anything_is_encrypted() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let asking = world.ask(&pairing.link, &phone(2));
    let Response::Admitted(answer, mut agent, _) = world.respond(&asking.message) else { panic!() };
    let Redeemed::Attached { mut attached, .. } = asking.next.finish(&answer).unwrap() else { panic!() };
    let too_long = vec![0; limits::MAX_FRAME_LEN + 1];
    let refused = Err(Error::FrameTooLong { max: limits::MAX_FRAME_LEN });
    assert_eq!(attached.channel.seal(&too_long), refused);
    let frame = attached.channel.seal(b"still in order").unwrap();
    assert_eq!(agent.open(&frame).unwrap(), b"still in order");
}

#[test]
fn an_unbound_credential_parsed_as_bound_and_the_reverse_are_errors() {
    let world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &terms());
    let unbound = cbor::bytes_of(&cbor::decode(&pairing.offer.to_bytes()).unwrap(), 7);
    let unbound = CredentialBytes::new(unbound).unwrap();
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let step = Some(Error::Credential(CredentialProblem::Binding));
    assert_eq!(Credential::parse(&unbound).err(), step);
    assert_eq!(UnboundCredential::parse(&joined.credential).err(), step);
}

#[test]
fn the_wrong_agent_in_an_issuer_is_found_at_the_offer_not_by_the_phone() {
    let world = World::new();
    let desktop = world.desktop(9);
    let elsewhere = Desktop::of(AgentSecretKey::from_bytes([5; 32]).public(), URL, 9);
    let pairing = elsewhere.mint(&world, &terms());
    assert_eq!(desktop.lodge(&world, &pairing), Err(Denial::OfferMismatch));
}

#[test]
fn asking_for_the_agents_own_privileges_by_their_names_gives_none() {
    for &privilege in Privilege::ALL {
        assert_eq!(privilege.name().parse::<Op>(), Err(Error::OpUnknown));
        assert_eq!(privilege.name().parse::<OpSet>(), Err(Error::OpUnknown));
    }
}

#[test]
fn a_permit_inside_a_permit_works_and_ends_with_it() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    let mut other = joined.guard.fork();
    let inside = joined.guard.ask(Op::SendInput, world.now, || other.ask(Op::StreamOutput, world.now, || 1));
    assert_eq!(inside, Ok(Ok(1)));
    world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
}

#[test]
fn the_gate_returns_an_error_when_it_is_called_from_inside_a_permit() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let payload = world.open(&world.ask(&pairing.link, &phone(3)).message).unwrap().payload().to_vec();
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    let inside = joined.guard.ask(Op::SendInput, world.now, || world.admit(&phone(3), &payload));
    let Ok(PeerAdmission::Refused { denial, .. }) = inside else { panic!("{inside:?}") };
    assert_eq!(denial, Denial::ApiMisuse(Misuse::InsidePermit));
    assert_eq!(joined.guard.checked(world.now), Ok(()), "nothing happened");
}

#[test]
fn a_session_that_a_request_names_has_to_be_the_connections_own_byte_for_byte() {
    let world = World::new();
    let joined = world.join(&world.desktop(9).share(&world, &terms()).link, &phone(2)).unwrap();
    assert_eq!(joined.guard.check_named(SESSION), Ok(()));
    let other = [
        String::new(),
        String::from("other"),
        SESSION.to_uppercase(),
        format!("{SESSION} "),
        format!("{SESSION}\0"),
        format!(" {SESSION}"),
        SESSION[..SESSION.len() - 1].to_owned(),
    ];
    for named in other {
        assert_eq!(joined.guard.check_named(&named), Err(Denial::OtherSession), "{named:?}");
    }
}
