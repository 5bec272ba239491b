//! Credentials narrowed offline, stolen, swapped and forged.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer", feature = "attenuate"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use common::*;
use proptest::prelude::*;
use rand::rngs::OsRng;
use sessioncap::agent::*;
use sessioncap::phone::PhoneError;
use sessioncap::*;

fn narrow(credential: &CredentialBytes, ops: Option<OpSet>, end: Option<Timestamp>) -> CredentialBytes {
    Credential::parse(credential).unwrap().attenuate(ops, end, &mut OsRng).unwrap().bytes().clone()
}

fn only(op: Op) -> OpSet {
    OpSet::only(op)
}

#[test]
fn a_narrowed_child_does_what_is_left_and_no_more() {
    let world = World::new();
    let joined = world.join(&world.desktop(9).share(&world, &terms()).link, &phone(2)).unwrap();
    let child = narrow(&joined.credential, Some(only(Op::StreamOutput).with(Op::Detach)), None);
    let mut guard = world.attach(&phone(2), &child, OpSet::EMPTY).unwrap();
    assert_eq!(guard.ops(), only(Op::StreamOutput).with(Op::Detach));
    assert_eq!(guard.ask(Op::StreamOutput, world.now, || 1), Ok(1));
    assert_eq!(
        guard.ask(Op::SendInput, world.now, || ()),
        Err(Denial::OperationNotGranted { op: Op::SendInput })
    );
    let grandchild = narrow(&child, Some(only(Op::Detach)), None);
    assert_eq!(world.attach(&phone(2), &grandchild, OpSet::EMPTY).unwrap().ops(), only(Op::Detach));
    let mut parent = world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap();
    assert_eq!(parent.ask(Op::SendInput, world.now, || 1), Ok(1), "the parent keeps what it had");
}

#[test]
fn a_wider_block_has_no_effect() {
    let mut world = World::new();
    let terms = terms().with_ops(only(Op::StreamOutput)).unwrap().with_valid_for(3_600).unwrap();
    let joined = world.join(&world.desktop(9).share(&world, &terms).link, &phone(2)).unwrap();
    let child = narrow(&joined.credential, Some(OpSet::ALL), Some(Timestamp::MAX));
    let guard = world.attach(&phone(2), &child, OpSet::ALL).unwrap();
    assert_eq!(guard.ops(), only(Op::StreamOutput));
    assert_eq!(guard.expires_at(), joined.guard.expires_at());
    let narrowed_then_widened =
        narrow(&narrow(&child, Some(only(Op::SendInput)), None), Some(OpSet::ALL), None);
    let refusal = world.attach(&phone(2), &narrowed_then_widened, OpSet::EMPTY).unwrap_err();
    assert_eq!(refusal.told, Some(PhoneError::Refused(Status::OperationDenied)));
    world.pass(3_600);
    assert!(world.attach(&phone(2), &child, OpSet::EMPTY).is_err());
}

#[test]
fn a_child_expires_at_its_own_date_and_the_parent_stays_valid() {
    let mut world = World::new();
    let joined = world.join(&world.desktop(9).share(&world, &terms()).link, &phone(2)).unwrap();
    let end = world.now.timestamp().plus(60);
    let child = narrow(&joined.credential, None, Some(end));
    let mut stream = world.attach(&phone(2), &child, OpSet::EMPTY).unwrap();
    assert_eq!(stream.expires_at(), end);
    world.pass(59);
    assert_eq!(stream.ask(Op::StreamOutput, world.now, || 1), Ok(1));
    world.pass(1);
    assert_eq!(stream.ask(Op::StreamOutput, world.now, || 1), Err(Denial::CredentialExpired));
    let refusal = world.attach(&phone(2), &child, OpSet::EMPTY).unwrap_err();
    let caveat = Box::new(Caveat::ExpiresAt(end));
    assert_eq!(refusal, Refusal::told(Denial::CaveatFailed { block: 2, caveat }, Status::Expired));
    assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_ok());
}

#[test]
fn a_child_that_has_expired_already_names_the_block_that_says_so() {
    let world = World::new();
    let joined = world.join(&world.desktop(9).share(&world, &terms()).link, &phone(2)).unwrap();
    let child = narrow(&narrow(&joined.credential, Some(OpSet::ALL), None), None, Some(Timestamp::EPOCH));
    let refusal = world.attach(&phone(2), &child, OpSet::EMPTY).unwrap_err();
    assert!(matches!(refusal.denial, Denial::CaveatFailed { block: 3, .. }), "{refusal:?}");
}

#[test]
fn revoking_a_parent_revokes_its_children() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let child = narrow(&joined.credential, Some(only(Op::StreamOutput)), None);
    let sealed = Credential::parse(&child).unwrap().seal().unwrap().bytes().clone();
    let mut stream = world.attach(&phone(2), &child, OpSet::EMPTY).unwrap();
    world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
    assert_eq!(stream.ask(Op::StreamOutput, world.now, || 1), Err(Denial::CredentialRevoked));
    for credential in [&child, &sealed] {
        let refusal = world.attach(&phone(2), credential, OpSet::EMPTY).unwrap_err();
        assert_eq!(refusal, Refusal::told(Denial::CredentialRevoked, Status::Revoked));
    }
}

#[test]
fn children_share_the_connections_of_their_parent() {
    let world = World::new();
    let joined = world.join(&world.desktop(9).share(&world, &terms()).link, &phone(2)).unwrap();
    let children: Vec<_> = [Op::StreamOutput, Op::SendInput, Op::Detach]
        .map(|op| narrow(&joined.credential, Some(only(op)), None))
        .to_vec();
    let _streams: Vec<_> =
        children.iter().map(|child| world.attach(&phone(2), child, OpSet::EMPTY).unwrap()).collect();
    let refusal = world.attach(&phone(2), &children[0], OpSet::EMPTY).unwrap_err();
    assert_eq!(refusal.denial, Denial::TooManyConnections { max: 4 });
}

#[test]
fn a_sealed_credential_works_and_cannot_be_narrowed() {
    let world = World::new();
    let joined = world.join(&world.desktop(9).share(&world, &terms()).link, &phone(2)).unwrap();
    let sealed = Credential::parse(&joined.credential).unwrap().seal().unwrap();
    assert!(sealed.is_sealed());
    assert!(world.attach(&phone(2), sealed.bytes(), OpSet::EMPTY).is_ok());
    let narrowed = sealed.attenuate(Some(only(Op::Detach)), None, &mut OsRng);
    assert_eq!(narrowed.err(), Some(Error::CredentialSealed));
    assert_eq!(sealed.seal().err(), Some(Error::CredentialSealed));
}

#[test]
fn six_narrowings_are_accepted_by_the_agent() {
    let world = World::new();
    let joined = world.join(&world.desktop(9).share(&world, &terms()).link, &phone(2)).unwrap();
    let mut credential = joined.credential;
    for op in
        [Op::ReadMetadata, Op::SendInput, Op::Detach, Op::ReceiveNotifications, Op::Resize, Op::Interrupt]
    {
        credential = narrow(&credential, Some(OpSet::ALL.without(op)), None);
    }
    assert_eq!(
        world.attach(&phone(2), &credential, OpSet::EMPTY).unwrap().ops(),
        only(Op::StreamOutput),
        "each took one away"
    );
    let seventh = Credential::parse(&credential).unwrap().attenuate(Some(OpSet::ALL), None, &mut OsRng);
    assert_eq!(seventh.err(), Some(Error::TooManyAttenuations { max: 6 }));
}

#[test]
fn an_attach_grants_the_operations_both_held_and_requested() {
    let world = World::new();
    let joined = world.join(&world.desktop(9).share(&world, &terms()).link, &phone(2)).unwrap();
    let child =
        narrow(&joined.credential, Some(only(Op::StreamOutput).with(Op::SendInput).with(Op::Resize)), None);
    let asked = only(Op::SendInput).with(Op::Resize).with(Op::Interrupt);
    assert_eq!(world.attach(&phone(2), &child, asked).unwrap().ops(), only(Op::SendInput));
    let refusal = world.attach(&phone(2), &child, only(Op::Interrupt)).unwrap_err();
    assert_eq!(refusal.told, Some(PhoneError::Refused(Status::OperationDenied)));
    assert!(matches!(refusal.denial, Denial::CaveatFailed { block: 0, .. }), "{refusal:?}");
    let refusal = world.attach(&phone(2), &child, only(Op::Detach)).unwrap_err();
    assert!(matches!(refusal.denial, Denial::CaveatFailed { block: 2, .. }), "{refusal:?}");
}

#[test]
fn a_child_with_nothing_left_is_refused_with_a_caveat() {
    let world = World::new();
    let joined = world.join(&world.desktop(9).share(&world, &terms()).link, &phone(2)).unwrap();
    let nothing =
        narrow(&narrow(&joined.credential, Some(only(Op::Detach)), None), Some(only(Op::SendInput)), None);
    for asked in [OpSet::EMPTY, OpSet::ALL, only(Op::Detach)] {
        let refusal = world.attach(&phone(2), &nothing, asked).unwrap_err();
        assert_eq!(refusal.told, Some(PhoneError::Refused(Status::OperationDenied)));
        assert!(matches!(refusal.denial, Denial::CaveatFailed { .. }), "{refusal:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Narrowed as often and by whatever: a guard permits exactly the intersection of everything
    /// named, and ends at the earliest date named.
    #[test]
    fn a_chain_of_narrowings_is_an_intersection(
        offered in 1..=0xff_u64,
        chain in proptest::collection::vec((proptest::option::of(1..=0xff_u64), proptest::option::of(60..40_000_u64)), 0..6),
        asked in 0..=0xff_u64
    ) {
        let set = |bits| OpSet::from_bits(bits).unwrap();
        let world = World::new();
        let now = world.now.timestamp();
        let pairing = world.desktop(9).share(&world, &terms().with_ops(set(offered)).unwrap());
        let joined = world.join(&pairing.link, &phone(2)).unwrap();
        let mut credential = joined.credential;
        let (mut ops, mut end) = (set(offered), joined.guard.expires_at());
        for (bits, seconds) in chain {
            if bits.is_none() && seconds.is_none() {
                continue;
            }
            credential = narrow(&credential, bits.map(set), seconds.map(|s| now.plus(s)));
            ops = bits.map_or(ops, |bits| ops.intersection(set(bits)));
            end = seconds.map_or(end, |s| end.min(now.plus(s)));
        }
        let expected = if asked == 0 { ops } else { ops.intersection(set(asked)) };
        match world.attach(&phone(2), &credential, set(asked)) {
            Ok(guard) => prop_assert_eq!((guard.ops(), guard.expires_at()), (expected, end)),
            Err(refusal) => {
                prop_assert!(expected.is_empty());
                prop_assert_eq!(refusal.told, Some(PhoneError::Refused(Status::OperationDenied)));
            }
        }
    }
}

// --- not one's own ---

#[test]
fn a_stolen_credential_with_another_key_gets_the_close_of_a_stranger() {
    let world = World::new();
    let joined = world.join(&world.desktop(9).share(&world, &terms()).link, &phone(2)).unwrap();
    let child = narrow(&joined.credential, Some(only(Op::StreamOutput)), None);
    for credential in [&joined.credential, &child] {
        let refusal = world.attach(&phone(3), credential, OpSet::EMPTY).unwrap_err();
        assert_eq!(refusal, Refusal::silent(Denial::HolderMismatch));
    }
}

#[test]
fn a_credential_of_another_agent_is_unknown_here() {
    let here = World::new();
    let there = World::new();
    let joined = there.join(&there.desktop(9).share(&there, &terms()).link, &phone(2)).unwrap();
    here.desktop(9);
    let refusal = here.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err();
    assert_eq!(refusal, Refusal::silent(Denial::CredentialUnknown));
}

#[test]
fn a_guard_knows_its_own_session_whoever_else_there_is() {
    let world = World::new();
    let desktop = world.desktop(9);
    world.start_session("other");
    let mine = world.join(&desktop.share(&world, &terms()).link, &phone(2)).unwrap();
    let other = desktop.share_session(&world, "other", &terms());
    let theirs = world.join(&other.link, &phone(3)).unwrap();
    assert_eq!(mine.guard.session(), &session(SESSION));
    assert_eq!(theirs.guard.session(), &session("other"));
    world.stop_session("other");
    world.gate.end_session(&session("other"), world.now).unwrap();
    assert!(world.attach(&phone(2), &mine.credential, OpSet::EMPTY).is_ok());
}

#[test]
fn an_unbound_credential_is_no_credential() {
    let world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &terms());
    let unbound = cbor::bytes_of(&cbor::decode(&pairing.offer.to_bytes()).unwrap(), 7);
    for seed in [2, 3] {
        let PeerAdmission::Refused { reply, denial: found } =
            world.admit(&phone(seed), &attach_payload(OpSet::EMPTY, &unbound))
        else {
            panic!()
        };
        let denial = Denial::CredentialMalformed(CredentialProblem::Binding);
        assert_eq!((reply, found), (None, denial));
    }
}

/// Whoever holds an unbound credential holds the key of its next block, and can bind it to a phone of
/// his own. Only the agent writes records, so that is worth nothing.
#[test]
fn a_binding_that_the_agent_did_not_make_is_refused() {
    let world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &terms());
    let unbound = cbor::bytes_of(&cbor::decode(&pairing.offer.to_bytes()).unwrap(), 7);
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let bind = |holder: &HolderSecretKey, epoch: i64, end: Timestamp| {
        let token = biscuit_auth::UnverifiedBiscuit::from(&unbound).unwrap();
        let values = [
            ("holder", biscuit_auth::builder::Term::Bytes(holder.public().as_bytes().to_vec())),
            ("epoch", biscuit_auth::builder::Term::Integer(epoch)),
            ("end", biscuit_auth::builder::Term::Date(end.seconds())),
        ];
        let values = values.map(|(name, value)| (name.to_owned(), value)).into();
        let code =
            "check all peer($k), $k === {holder}; check if epoch({epoch}); check all time($t), $t < {end};";
        let block = biscuit_auth::builder::BlockBuilder::new()
            .code_with_params(code, values, Default::default())
            .unwrap();
        token.append(block).unwrap().to_vec().unwrap()
    };
    let end = joined.guard.expires_at();
    let scope = Credential::parse(&joined.credential).unwrap();
    let epoch = scope.caveats().find_map(|(_, c)| if let Caveat::Epoch(n) = c { Some(n) } else { None });
    let epoch = i64::try_from(epoch.unwrap()).unwrap();
    let attach =
        |who: &HolderSecretKey, bytes: &[u8]| match world.admit(who, &attach_payload(OpSet::EMPTY, bytes)) {
            PeerAdmission::Refused { reply, denial } => (reply, denial),
            other => panic!("{other:?}"),
        };
    assert_eq!(attach(&phone(3), &bind(&phone(3), epoch, end)), (None, Denial::HolderMismatch));
    let longer = bind(&phone(2), epoch, end.plus(3_600));
    // Only the issuer can have signed it, but it is none of the credentials on record.
    let (reply, denial) = attach(&phone(2), &longer);
    assert_eq!((reply.is_some(), denial), (true, Denial::CredentialRetired));
    let other_epoch = bind(&phone(2), epoch + 1, end);
    assert_eq!(attach(&phone(2), &other_epoch), (None, Denial::CredentialSignatureInvalid));
}

#[test]
fn blocks_of_two_credentials_do_not_mix() {
    use biscuit_auth::format::schema;
    use prost::Message;
    let world = World::new();
    let desktop = world.desktop(9);
    let read_only = terms().with_ops(only(Op::StreamOutput)).unwrap();
    let narrow_one = world.join(&desktop.share(&world, &read_only).link, &phone(2)).unwrap().credential;
    let wide_one = world.join(&desktop.share(&world, &terms()).link, &phone(2)).unwrap().credential;
    let read = |credential: &CredentialBytes| schema::Biscuit::decode(credential.as_bytes()).unwrap();
    let mut mixed = read(&wide_one);
    mixed.blocks = read(&narrow_one).blocks;
    mixed.proof = read(&narrow_one).proof;
    let mut without_binding = read(&wide_one);
    without_binding.blocks.clear();
    let mut twice = read(&wide_one);
    twice.blocks.push(twice.blocks[0].clone());
    for token in [mixed, without_binding, twice] {
        let admission = world.admit(&phone(2), &attach_payload(OpSet::EMPTY, &token.encode_to_vec()));
        let PeerAdmission::Refused { reply, .. } = admission else { panic!() };
        assert_eq!(reply, None);
    }
}
