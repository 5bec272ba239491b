use proptest::prelude::*;
use rand::rngs::OsRng;

use biscuit_auth::builder::{Algorithm, BlockBuilder};
use biscuit_auth::format::schema;
use biscuit_auth::{Biscuit, KeyPair, PrivateKey, UnverifiedBiscuit};
use prost::Message;

use super::block::*;
use super::bytes::CredentialBytes;
use super::caveat::Caveat;
use super::mint::Signer;
use super::shape::{block_builder, problem};
use super::*;
use crate::agent_url::AgentUrl;
use crate::clock::Timestamp;
use crate::credential::caveat::Scope;
use crate::error::{CredentialProblem, Error};
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::IssuerSecretKey;
use crate::key::{AgentSecretKey, HolderSecretKey};
use crate::limits::MAX_ATTENUATIONS;
use crate::op::{Op, OpSet};

fn issuer() -> IssuerSecretKey {
    IssuerSecretKey::from_bytes([5; 32])
}

fn authority() -> Authority {
    Authority {
        credential: CredentialId::from_bytes([1; 16]),
        ticket: TicketId::from_bytes([2; 16]),
        agent: AgentSecretKey::from_bytes([3; 32]).public(),
        url: AgentUrl::parse("wss://agent-7f3a.dd.example.dev").unwrap(),
        session: SessionId::new("3f0c8f0e-5f0b-4a53-9a58-0d6f3c1c9e55").unwrap(),
        ops: OpSet::COMPANION,
        expires_at: Timestamp::from_seconds(1_800_000_000).unwrap(),
    }
}

fn binding() -> Binding {
    Binding {
        holder: HolderSecretKey::from_bytes([4; 32]).public(),
        epoch: 7,
        expires_at: Timestamp::from_seconds(1_799_999_000).unwrap(),
    }
}

fn signer() -> Signer {
    Signer::new(&issuer()).unwrap()
}

fn unbound() -> UnboundCredential {
    UnboundCredential::mint(authority(), &signer(), &mut OsRng).unwrap()
}

fn bound() -> Credential {
    let verified = unbound().verify(&issuer().public()).unwrap();
    Credential::parse(&verified.bind(binding(), &mut OsRng).unwrap()).unwrap()
}

fn refused(bytes: Vec<u8>) -> CredentialProblem {
    match Credential::parse(&CredentialBytes::new(bytes).unwrap()) {
        Err(Error::Credential(problem)) => problem,
        other => panic!("accepted: {other:?}"),
    }
}

/// A correctly signed token with `code` as the block after the binding.
fn with_block(code: &str) -> Vec<u8> {
    let token = UnverifiedBiscuit::from(bound().bytes().as_bytes()).unwrap();
    token.append(BlockBuilder::new().code(code).unwrap()).unwrap().to_vec().unwrap()
}

/// A correctly signed token with `code` as the authority block, and a proper binding.
fn with_authority(code: &str) -> Vec<u8> {
    let root = KeyPair::from(&PrivateKey::from_bytes(&[5; 32], Algorithm::Ed25519).unwrap());
    let token = Biscuit::builder().code(code).unwrap().build(&root).unwrap();
    let token = token.append(block_builder(&Block::Binding(binding())).unwrap()).unwrap();
    token.to_vec().unwrap()
}

#[test]
fn a_bound_credential_fits_the_message_budget() {
    let len = bound().bytes().as_bytes().len();
    assert!(len <= 960, "{len}");
    println!("bound credential: {len} bytes, unbound: {}", unbound().bytes().as_bytes().len());
}

#[test]
fn a_minted_credential_reads_back_and_verifies() {
    let credential = bound();
    assert_eq!(credential.id(), authority().credential);
    assert_eq!(credential.ticket(), authority().ticket);
    assert_eq!(credential.scope().ops(), OpSet::COMPANION);
    assert_eq!(credential.scope().expires_at(), Some(binding().expires_at));
    assert!(credential.clone().verify(&issuer().public()).is_ok());
    let other = IssuerSecretKey::from_bytes([6; 32]).public();
    assert_eq!(credential.verify(&other).err(), Some(problem(CredentialProblem::Signature)));
}

#[test]
fn unbound_and_bound_do_not_pass_for_each_other() {
    assert_eq!(Credential::parse(unbound().bytes()).err(), Some(problem(CredentialProblem::Binding)));
    assert_eq!(UnboundCredential::parse(bound().bytes()).err(), Some(problem(CredentialProblem::Binding)));
}

#[test]
fn every_smuggled_block_is_refused_before_the_engine_runs() {
    let sets = r#"{"a","b","c","d","e","f","g","h"}"#;
    for code in [
        r#"operation("send_input");"#.to_owned(),
        "time(2019-01-01T00:00:00Z);".to_owned(),
        "check if true;".to_owned(),
        "check if epoch(7);".to_owned(),
        r#"check if operation("send_input");"#.to_owned(),
        r#"check all operation($x), {"send_input"}.contains($x);"#.to_owned(),
        r#"check all operation($o), {"send_input"}.contains($o) || true;"#.to_owned(),
        r#"check all operation($o), ["send_input"].contains($o);"#.to_owned(),
        r#"check all operation($o), {"fleet"}.contains($o);"#.to_owned(),
        r#"check all operation($o), {"send_input", "administer"}.contains($o);"#.to_owned(),
        "check all operation($o), {,}.contains($o);".to_owned(),
        "check all time($t), $t <= 2030-01-01T00:00:00Z;".to_owned(),
        "check if time($t), $t < 2030-01-01T00:00:00Z;".to_owned(),
        "reject if time($t), $t > 2030-01-01T00:00:00Z;".to_owned(),
        "check all time($t), $t < 2030-01-01T00:00:00Z or true;".to_owned(),
        "check all time($t), $t < 2030-01-01T00:00:00Z trusting previous;".to_owned(),
        r#"operation("x") <- session($s);"#.to_owned(),
        r#"check if session($s), $s.matches("^(a+)+$");"#.to_owned(),
        format!("check if [1,2,3,4,5].all($x -> {sets}.length() > $x);"),
        // both caveats of an attenuation, in the wrong order
        r#"check all time($t), $t < 2030-01-01T00:00:00Z; check all operation($o), {"send_input"}.contains($o);"#
            .to_owned(),
        // one of them twice
        "check all time($t), $t < 2030-01-01T00:00:00Z; check all time($t), $t < 2031-01-01T00:00:00Z;".to_owned(),
        String::new(),
    ] {
        // Datalog 3.3 also brings another kind of signature
        let problem = refused(with_block(&code));
        let either = [CredentialProblem::Content { block: 2 }, CredentialProblem::Cryptography { block: 2 }];
        assert!(either.contains(&problem), "{code}: {problem}");
    }
}

#[test]
fn a_proper_attenuation_by_another_biscuit_library_is_accepted() {
    for (code, ops, end) in [
        (
            r#"check all operation($o), {"stream_output"}.contains($o);"#,
            OpSet::only(Op::StreamOutput),
            1_799_999_000,
        ),
        ("check all time($t), $t < 2020-01-01T00:00:00Z;", OpSet::COMPANION, 1_577_836_800),
        (
            r#"check all operation($o), {"stream_output","detach"}.contains($o); check all time($t), $t < 2020-01-01T00:00:00Z;"#,
            OpSet::only(Op::StreamOutput).with(Op::Detach),
            1_577_836_800,
        ),
    ] {
        let credential = Credential::parse(&CredentialBytes::new(with_block(code)).unwrap()).unwrap();
        assert_eq!(credential.scope().ops(), ops);
        assert_eq!(credential.scope().expires_at().unwrap().seconds(), end);
        assert!(credential.verify(&issuer().public()).is_ok());
    }
}

#[test]
fn every_smuggled_authority_is_refused() {
    let (text, values) = Block::Authority(authority()).datalog();
    let good = BlockBuilder::new().code_with_params(text, values, Default::default()).unwrap().to_string();
    assert!(Credential::parse(&CredentialBytes::new(with_authority(&good)).unwrap()).is_ok());
    for (what, code) in [
        ("a time fact that defeats its own expiry", format!("{good} time(2019-01-01T00:00:00Z);")),
        ("an operation fact", format!("{good} operation(\"send_input\");")),
        ("a rule", format!("{good} live($a, $b, $c) <- credential($a), ticket($b), peer($c);")),
        ("another version", good.replace("version(1)", "version(2)")),
        ("a second credential", format!("{good} credential(hex:00);")),
        ("no session", good.lines().filter(|line| !line.contains("session(")).collect()),
        ("a second spelling of the address", good.replace("/noise/ws", "/noise/ws/")),
        ("an address in capitals", good.replace("wss://agent", "wss://AGENT")),
        ("a session that climbs", good.replace("3f0c8f0e-5f0b-4a53-9a58-0d6f3c1c9e55", "../sessions?x=")),
        ("an operation that does not exist", good.replace("\"send_input\"", "\"create_session\"")),
    ] {
        assert_eq!(refused(with_authority(&code)), CredentialProblem::Content { block: 0 }, "{what}");
    }
}

#[test]
fn the_envelope_is_canonical_or_refused() {
    let good = bound().bytes().as_bytes().to_vec();
    let change = |edit: &dyn Fn(&mut schema::Biscuit)| {
        let mut token = schema::Biscuit::decode(good.as_slice()).unwrap();
        edit(&mut token);
        token.encode_to_vec()
    };
    assert_eq!(refused(change(&|token| token.root_key_id = Some(1))), CredentialProblem::Encoding);
    for block in [0, 1] {
        let crypto = CredentialProblem::Cryptography { block };
        let edit = |edit: &dyn Fn(&mut schema::SignedBlock)| {
            change(&|token| edit(if block == 0 { &mut token.authority } else { &mut token.blocks[0] }))
        };
        assert_eq!(refused(edit(&|signed| signed.next_key.algorithm = 1)), crypto);
        assert_eq!(refused(edit(&|signed| signed.version = Some(1))), crypto);
        assert_eq!(refused(edit(&|signed| signed.version = Some(0))), crypto);
        assert_eq!(refused(edit(&|signed| signed.signature.push(0))), crypto);
        let external = |signed: &mut schema::SignedBlock| {
            signed.external_signature = Some(schema::ExternalSignature {
                signature: signed.signature.clone(),
                public_key: signed.next_key.clone(),
            });
        };
        assert_eq!(refused(edit(&external)), crypto);
    }
    let unknown_field = [good.as_slice(), &[0x30, 0x01]].concat();
    assert_eq!(refused(unknown_field), CredentialProblem::Encoding);
    let truncated = good[..good.len() - 1].to_vec();
    assert_eq!(refused(truncated), CredentialProblem::Encoding);
}

#[test]
fn a_p256_key_is_refused_in_any_place() {
    let root = KeyPair::from(&PrivateKey::from_bytes(&[5; 32], Algorithm::Ed25519).unwrap());
    let next = KeyPair::new_with_algorithm(Algorithm::Secp256r1);
    let token = Biscuit::builder().merge(block_builder(&Block::Authority(authority())).unwrap());
    let token = token.build_with_key_pair(&root, Default::default(), &next).unwrap();
    let token = token.append(block_builder(&Block::Binding(binding())).unwrap()).unwrap();
    assert_eq!(refused(token.to_vec().unwrap()), CredentialProblem::Cryptography { block: 0 });
}

#[test]
fn narrowing_stops_at_six_and_at_a_seal() {
    let mut credential = bound();
    for _ in 0..MAX_ATTENUATIONS {
        credential = credential.attenuate(Some(OpSet::ALL), None, &mut OsRng).unwrap();
    }
    let full = credential.attenuate(Some(OpSet::ALL), None, &mut OsRng);
    assert_eq!(full.err(), Some(Error::TooManyAttenuations { max: 6 }));
    let sealed = credential.seal().unwrap();
    assert_eq!(sealed.scope(), credential.scope());
    assert!(sealed.is_sealed() && sealed.seal().is_err());
    assert_eq!(
        bound().seal().unwrap().attenuate(None, Some(Timestamp::EPOCH), &mut OsRng).err(),
        Some(Error::CredentialSealed)
    );
    assert!(sealed.verify(&issuer().public()).is_ok());
    let token = UnverifiedBiscuit::from(credential.bytes().as_bytes()).unwrap();
    let seventh = token.append(
        block_builder(&Block::Attenuation(Attenuation { ops: Some(OpSet::ALL), expires_at: None })).unwrap(),
    );
    assert_eq!(refused(seventh.unwrap().to_vec().unwrap()), CredentialProblem::TooManyBlocks);
}

#[test]
fn an_attenuation_must_name_something() {
    assert_eq!(bound().attenuate(None, None, &mut OsRng).err(), Some(Error::AttenuationEmpty));
    assert_eq!(bound().attenuate(Some(OpSet::EMPTY), None, &mut OsRng).err(), Some(Error::OpsEmpty));
}

#[test]
fn description_and_debug_show_no_key_material() {
    let credential = bound();
    let token = schema::Biscuit::decode(credential.bytes().as_bytes()).unwrap();
    let Some(schema::proof::Content::NextSecret(secret)) = token.proof.content else { panic!() };
    let shown = format!("{credential} {credential:?} {:?}", unbound());
    assert!(shown.contains("follow its output"));
    assert!(!shown.contains(&crate::codec::to_hex(&secret)) && !shown.contains(&format!("{secret:?}")));
}

fn any_authority() -> impl Strategy<Value = Authority> {
    (
        any::<[[u8; 16]; 2]>(),
        any::<[u8; 32]>(),
        1..=0xff_u64,
        0..253_402_300_800_u64,
        session_text(),
        url_text(),
    )
        .prop_map(|([credential, ticket], agent, ops, expires_at, session, url)| Authority {
            credential: CredentialId::from_bytes(credential),
            ticket: TicketId::from_bytes(ticket),
            agent: AgentSecretKey::from_bytes(agent).public(),
            url: AgentUrl::parse(&url).unwrap(),
            session: SessionId::new(session).unwrap(),
            ops: OpSet::from_bits(ops).unwrap(),
            expires_at: Timestamp::from_seconds(expires_at).unwrap(),
        })
}

/// Ids that collide with Biscuit's own symbols and with this vocabulary, too.
fn session_text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("read".to_owned()),
        Just("operation".to_owned()),
        Just("query".to_owned()),
        Just("session".to_owned()),
        Just("o".to_owned()),
        Just("send_input".to_owned()),
        Just("k".to_owned()),
        "[A-Za-z0-9_~-]{1,128}"
    ]
}

fn url_text() -> impl Strategy<Value = String> {
    ("[a-z]{1,20}", 1..65_535_u16, "(/[A-Za-z0-9]{1,10}){0,2}")
        .prop_map(|(host, port, path)| format!("ws://{host}:{port}{path}"))
}

fn any_attenuation() -> impl Strategy<Value = (Option<OpSet>, Option<Timestamp>)> {
    (proptest::option::of(1..=0xff_u64), proptest::option::of(0..3_000_000_000_u64))
        .prop_filter("empty", |(ops, end)| ops.is_some() || end.is_some())
        .prop_map(|(ops, end)| {
            (
                ops.map(|ops| OpSet::from_bits(ops).unwrap()),
                end.map(|end| Timestamp::from_seconds(end).unwrap()),
            )
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_engine_and_our_writer_agree_on_every_block(
        authority in any_authority(), holder: [u8; 32], epoch in 0..u64::from(u32::MAX), end in 0..253_402_300_800_u64,
        attenuations in proptest::collection::vec(any_attenuation(), 0..4)
    ) {
        let binding = Binding { holder: HolderSecretKey::from_bytes(holder).public(), epoch, expires_at: Timestamp::from_seconds(end).unwrap() };
        // mint, bind and attenuate parse what biscuit-auth wrote, which renders it again and compares
        let unbound = UnboundCredential::mint(authority.clone(), &signer(), &mut OsRng).unwrap();
        prop_assert_eq!(unbound.authority(), &authority);
        let verified = unbound.verify(&issuer().public()).unwrap();
        let mut credential = Credential::parse(&verified.bind(binding, &mut OsRng).unwrap()).unwrap();
        prop_assert_eq!(credential.binding(), &binding);
        for (ops, end) in attenuations {
            let child = credential.attenuate(ops, end, &mut OsRng).unwrap();
            prop_assert!(child.scope().is_within(&credential.scope()), "a child never gains");
            let stated = Scope::from_iter(&ops.map(Caveat::Ops).into_iter().chain(end.map(Caveat::ExpiresAt)).collect::<Vec<_>>());
            prop_assert_eq!(child.scope(), credential.scope().meet(&stated));
            credential = child;
        }
        prop_assert!(credential.verify(&issuer().public()).is_ok());
    }

    #[test]
    fn no_bit_of_a_credential_can_change(place in 0..10_000_usize, bit in 0..8_u32) {
        let mut bytes = bound().bytes().as_bytes().to_vec();
        let place = place % bytes.len();
        bytes[place] ^= 1 << bit;
        let outcome = Credential::parse(&CredentialBytes::new(bytes).unwrap()).and_then(|credential| credential.verify(&issuer().public()));
        prop_assert!(outcome.is_err());
    }

    #[test]
    fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 1..600)) {
        prop_assert!(Credential::parse(&CredentialBytes::new(bytes).unwrap()).is_err());
    }
}

/// The blocks that are minted are those of the document's text.
#[test]
fn a_minted_block_is_what_the_engine_parses_from_its_text() {
    let attenuations = [
        (Some(OpSet::ALL), None),
        (None, Some(Timestamp::MAX)),
        (Some(OpSet::COMPANION), Some(Timestamp::EPOCH)),
    ];
    let attenuations =
        attenuations.map(|(ops, expires_at)| Block::Attenuation(Attenuation { ops, expires_at }));
    for block in [Block::Authority(authority()), Block::Binding(binding())].into_iter().chain(attenuations) {
        let (text, values) = block.datalog();
        let parsed = BlockBuilder::new().code_with_params(text, values, Default::default()).unwrap();
        assert_eq!(block_builder(&block).unwrap().to_string(), parsed.to_string());
    }
}
