use biscuit_auth::Biscuit;
use proptest::prelude::*;
use rand::rngs::OsRng;

use super::*;
use crate::agent::decision::{Decision, Decisions, Question};
use crate::agent_url::AgentUrl;
use crate::clock::Timestamp;
use crate::credential::block::{Authority, Binding};
use crate::credential::caveat::Caveat;
use crate::credential::mint::{Signer, UnboundCredential};
use crate::credential::verify::Credential;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{AgentPublicKey, AgentSecretKey, HolderPublicKey, HolderSecretKey, IssuerSecretKey};
use crate::op::Privilege;

const END: u64 = 1_800_000_000;

fn agent(seed: u8) -> AgentPublicKey {
    AgentSecretKey::from_bytes([seed; 32]).public()
}

fn holder(seed: u8) -> HolderPublicKey {
    HolderSecretKey::from_bytes([seed; 32]).public()
}

fn url(n: u8) -> AgentUrl {
    AgentUrl::parse(&format!("wss://agent{n}.example")).unwrap()
}

fn session(n: u8) -> SessionId {
    SessionId::new(format!("session-{n}")).unwrap()
}

fn credential(ops: OpSet, attenuated: &[(Option<OpSet>, Option<u64>)]) -> VerifiedCredential {
    let issuer = IssuerSecretKey::from_bytes([5; 32]);
    let authority = Authority {
        credential: CredentialId::from_bytes([1; 16]),
        ticket: TicketId::from_bytes([1; 16]),
        agent: agent(1),
        url: url(1),
        session: session(1),
        ops,
        expires_at: Timestamp::from_seconds(END).unwrap(),
    };
    let binding =
        Binding { holder: holder(1), epoch: 1, expires_at: Timestamp::from_seconds(END - 50).unwrap() };
    let unbound = UnboundCredential::mint(authority, &Signer::new(&issuer).unwrap(), &mut OsRng).unwrap();
    let verified = unbound.verify(&issuer.public()).unwrap();
    let mut credential = Credential::parse(&verified.bind(binding, &mut OsRng).unwrap()).unwrap();
    for (ops, end) in attenuated {
        let end = end.map(|end| Timestamp::from_seconds(end).unwrap());
        credential = credential.attenuate(*ops, end, &mut OsRng).unwrap();
    }
    credential.verify(&issuer.public()).unwrap()
}

/// Circumstances that can be bent one dimension at a time; 1 everywhere is what the credential is for.
#[derive(Debug, Clone)]
struct Place {
    agent: AgentPublicKey,
    urls: Vec<AgentUrl>,
    session: SessionId,
    epoch: u64,
    peer: HolderPublicKey,
    time: u64,
    live: Option<LiveRecord>,
}

impl Place {
    fn right() -> Self {
        Self::at([1; 6], END - 100, Some([1; 3]))
    }

    fn at([a, u, s, epoch, p, _]: [u8; 6], time: u64, live: Option<[u8; 3]>) -> Self {
        Self {
            agent: agent(a),
            urls: vec![url(u), url(9)],
            session: session(s),
            epoch: epoch.into(),
            peer: holder(p),
            time,
            live: live.map(|[credential, ticket, by]| LiveRecord {
                credential: CredentialId::from_bytes([credential; 16]),
                ticket: TicketId::from_bytes([ticket; 16]),
                holder: holder(by),
            }),
        }
    }

    fn circumstances(&self) -> Circumstances<'_> {
        Circumstances {
            agent: &self.agent,
            urls: &self.urls,
            session: &self.session,
            epoch: self.epoch,
            peer: &self.peer,
            time: Timestamp::from_seconds(self.time).unwrap(),
            live: self.live,
        }
    }
}

fn decide(credential: &VerifiedCredential, place: &Place, op: Op) -> Result<(), Denial> {
    Policy::new().decide(credential, &place.circumstances(), Action::Session(op))
}

#[test]
fn the_right_phone_at_the_right_place_is_allowed_what_its_credential_says() {
    let credential = credential(OpSet::COMPANION, &[]);
    for &op in Op::ALL {
        let outcome = decide(&credential, &Place::right(), op);
        match OpSet::COMPANION.contains(op) {
            true => assert_eq!(outcome, Ok(())),
            false => assert_eq!(
                outcome,
                Err(Denial::CaveatFailed { block: 0, caveat: Box::new(Caveat::Ops(OpSet::COMPANION)) }),
                "{op}"
            ),
        }
    }
}

#[test]
fn each_dimension_alone_denies_and_names_its_caveat() {
    let credential = credential(OpSet::COMPANION, &[(Some(OpSet::only(Op::StreamOutput)), None)]);
    let denied = |place: Place, op| match decide(&credential, &place, op) {
        Err(Denial::CaveatFailed { block, caveat }) => (block, caveat.name()),
        other => panic!("{other:?}"),
    };
    let right = Place::right;
    let output = Op::StreamOutput;
    assert_eq!(denied(Place { agent: agent(2), ..right() }, output), (0, "agent"));
    assert_eq!(denied(Place { urls: vec![url(2)], ..right() }, output), (0, "agent"));
    assert_eq!(denied(Place { session: session(2), ..right() }, output), (0, "session"));
    assert_eq!(denied(Place { epoch: 2, ..right() }, output), (1, "epoch"));
    assert_eq!(denied(Place { time: END - 50, ..right() }, output), (1, "expires_at"));
    assert_eq!(denied(Place { time: END, ..right() }, output), (0, "expires_at"));
    assert_eq!(denied(right(), Op::SendInput), (2, "ops"));
    let stolen = Place { peer: holder(2), ..right() };
    assert_eq!(denied(stolen, output), (0, "ticket"), "the ticket was redeemed by another");
    let redeemed_by_thief = Place::at([1, 1, 1, 1, 2, 0], END - 100, Some([1, 1, 2]));
    assert_eq!(denied(redeemed_by_thief, output), (1, "holder"));
}

#[test]
fn without_a_live_record_nothing_is_allowed() {
    let credential = credential(OpSet::ALL, &[]);
    let gone = Place { live: None, ..Place::right() };
    assert!(matches!(decide(&credential, &gone, Op::ReadMetadata), Err(Denial::CaveatFailed { .. })));
    let of_another = Place::at([1; 6], END - 100, Some([2, 1, 1]));
    assert_eq!(decide(&credential, &of_another, Op::ReadMetadata), Err(Denial::NoLiveRecord));
}

#[test]
fn blocks_of_which_a_later_one_states_facts_are_not_run() {
    let credential = credential(OpSet::ALL, &[]);
    let [authority, binding] = credential.credential().blocks() else { panic!("two blocks") };
    let [authority, binding] = [authority, binding].map(Clone::clone);
    for blocks in [
        vec![authority.clone(), binding.clone(), authority.clone()],
        vec![binding.clone(), authority],
        vec![binding],
    ] {
        let outcome = Policy::new().engine.run(&[], &blocks);
        assert_eq!(outcome, Err(Failure::InternalError), "{blocks:?}");
    }
}

#[test]
fn layer_one_refuses_privileges_in_code() {
    let credential = credential(OpSet::ALL, &[]);
    for &privilege in Privilege::ALL {
        let outcome =
            Policy::new().decide(&credential, &Place::right().circumstances(), Action::Privileged(privilege));
        assert_eq!(outcome, Err(Denial::PrivilegeDenied { privilege }));
    }
}

/// A token without any caveat, signed by the right key, with a live record: only the policy text is
/// left to refuse.
#[test]
fn layer_two_refuses_privileges_in_datalog_alone() {
    let root = biscuit_auth::KeyPair::new();
    let token = Biscuit::builder()
        .code("version(1); credential(hex:01010101010101010101010101010101); ticket(hex:01010101010101010101010101010101);")
        .unwrap()
        .build(&root)
        .unwrap();
    let policy = Policy::new();
    let place = Place::right();
    let run = |names: &[&str]| {
        policy
            .run_token(&token, &place.circumstances(), names)
            .map_err(|failure| policy.explain(failure, None))
    };
    for &op in Op::ALL {
        assert_eq!(run(&[op.name()]), Ok(()), "{op}");
    }
    for &privilege in Privilege::ALL {
        assert_eq!(run(&[privilege.name()]), Err(Denial::OutsideVocabulary), "{privilege}");
        assert_eq!(run(&["send_input", privilege.name()]), Err(Denial::OutsideVocabulary), "{privilege}");
    }
    assert_eq!(run(&["shell.create_session"]), Err(Denial::OutsideVocabulary));
    assert_eq!(run(&[]), Err(Denial::NoLiveRecord), "asking for nothing");
}

/// The same token, and an operation of the vocabulary: only the missing record is left to refuse.
#[test]
fn layer_three_refuses_without_a_record_alone() {
    let root = biscuit_auth::KeyPair::new();
    let token = Biscuit::builder()
        .code("version(1); credential(hex:01010101010101010101010101010101); ticket(hex:01010101010101010101010101010101);")
        .unwrap()
        .build(&root)
        .unwrap();
    let policy = Policy::new();
    for live in [None, Some([2, 1, 1]), Some([1, 2, 1]), Some([1, 1, 2])] {
        let place = Place::at([1; 6], END - 100, live);
        let outcome = policy.run_token(&token, &place.circumstances(), &["read_metadata"]);
        let outcome = outcome.map_err(|failure| policy.explain(failure, None));
        assert_eq!(outcome, Err(Denial::NoLiveRecord), "{live:?}");
    }
}

#[test]
fn the_policy_names_every_operation_and_every_privilege() {
    for &op in Op::ALL {
        assert!(POLICY.contains(&format!("\"{}\"", op.name())));
    }
    for &privilege in Privilege::ALL {
        assert!(POLICY.contains(&format!("\"{}\"", privilege.name())));
    }
}

fn with_rules(rules: &str) -> Result<Policy, RuleError> {
    Policy::with_operator_rules(rules, UtcOffset::from_hms(2, 0, 0).unwrap())
}

#[test]
fn operator_rules_narrow_by_local_time_and_are_granted_one_by_one() {
    let policy = with_rules(
        "deny if operation(\"send_input\"), hour($h), $h >= 22;\n\
         check if weekday($d), $d <= 5 or operation(\"read_metadata\");",
    )
    .unwrap();
    let credential = credential(OpSet::COMPANION, &[]);
    // Monday 2026-06-01, 20:00 UTC is 22:00 at +02:00
    let at = |seconds: u64| Place { time: seconds, ..Place::right() };
    let monday_evening = 1_780_344_000;
    let grant = |place: &Place| {
        policy.grant(&credential, &place.circumstances(), OpSet::COMPANION, &Counter::default())
    };
    assert_eq!(grant(&at(monday_evening - 1)), Ok(OpSet::COMPANION));
    assert_eq!(grant(&at(monday_evening)), Ok(OpSet::COMPANION.without(Op::SendInput)));
    let saturday_noon = monday_evening + 4 * 86_400 + 14 * 3_600;
    assert_eq!(grant(&at(saturday_noon)), Ok(OpSet::only(Op::ReadMetadata)));
    let input =
        policy.decide(&credential, &at(monday_evening).circumstances(), Action::Session(Op::SendInput));
    assert_eq!(input, Err(Denial::OperatorRule { rule: 1 }));
    let metadata = OpSet::only(Op::StreamOutput);
    let saturday =
        policy.grant(&credential, &at(saturday_noon).circumstances(), metadata, &Counter::default());
    assert_eq!(saturday, Err(Denial::OperatorRule { rule: 2 }));
}

#[test]
fn operator_rules_that_would_never_fire_or_would_widen_are_refused() {
    use RuleProblem::*;
    for (rules, problem) in [
        ("deny if operation(\"sned_input\");", UnknownOperation),
        ("deny if operation($o), $o == \"sned_input\";", UnknownOperation),
        ("deny if operation($o), {\"send_input\", \"tpye\"}.contains($o);", UnknownOperation),
        ("deny if operation($o), hour($h), $h > 3 && $o == \"tpye\";", UnknownOperation),
        ("deny if operation(3);", UnknownOperation),
        ("deny if opration(\"send_input\");", UnknownPredicate),
        ("deny if hour($h, $m), $h > $m;", UnknownPredicate),
        ("check if user($u);", UnknownPredicate),
        ("deny if hour(24);", ValueOutOfRange),
        ("deny if minute(60);", ValueOutOfRange),
        ("deny if weekday(0);", ValueOutOfRange),
        ("deny if weekday(\"monday\");", ValueOutOfRange),
        ("deny if operation($o), $o.matches(\"^(send|admin\");", Regex),
        ("deny if operation($o), session($s), $o.matches($s);", Regex),
        ("allow if true;", NotNarrowing),
        ("check if weekday(1); allow if hour($h), $h < 5;", NotNarrowing),
        ("operation(\"send_input\");", NotNarrowing),
        ("live($c, $t, $k) <- credential($c), ticket($t), peer($k);", NotNarrowing),
        ("deny if hour($h), $h > 3 trusting previous;", Unsupported),
        ("deny if session($s), $s.extern::f();", Unsupported),
        ("deny if hour($h), $h > \"22\";", ValueOutOfRange),
        ("deny if hour($h), $h == \"22\";", ValueOutOfRange),
        ("deny if hour($h), $h >= 24;", ValueOutOfRange),
        ("deny if weekday($d), $d == 0;", ValueOutOfRange),
        ("deny if weekday($d), {0, 7}.contains($d);", ValueOutOfRange),
        ("deny if time(\"2026\");", ValueOutOfRange),
        ("deny if peer(\"00ff\");", ValueOutOfRange),
        ("deny if session(\"no such id!\");", ValueOutOfRange),
        ("deny if operation($o), $o.starts_with(\"sned\");", UnknownOperation),
        ("deny if operation(\"send_input\"), operation(\"resize\");", NeverFires),
        ("deny if credential($c), $c > 5;", Evaluation),
        ("deny if hour($h), 1 / ($h - 9) > 0;", Evaluation),
        ("deny if", Syntax),
        ("what is this", Syntax),
    ] {
        match with_rules(rules) {
            Err(error) => assert_eq!(error.problem(), problem, "{rules}: {error}"),
            Ok(_) => panic!("{rules}"),
        }
    }
}

#[test]
fn rules_that_mean_something_are_accepted() {
    for rules in [
        "",
        "// nothing",
        "deny if operation($o), $o.starts_with(\"send\"), hour($h), $h >= 22 || $h < 6;",
        "deny if operation($o), $o.matches(\"^send_\\\\w+$\");",
        "check if session(\"session-1\");",
        "deny if operation(\"interrupt\"), weekday(7);",
        "deny if time($t), $t > 2030-01-01T00:00:00Z;",
    ] {
        let policy = with_rules(rules).unwrap();
        assert_eq!(policy.has_operator_rules(), rules.contains("if"), "{rules}");
        assert_eq!(
            policy.decide(
                &credential(OpSet::ALL, &[]),
                &Place::right().circumstances(),
                Action::Session(Op::Detach)
            ),
            Ok(()),
            "{rules}"
        );
    }
}

/// The engine's default wall-clock limit refuses valid credentials at random on a busy machine.
#[test]
fn ten_thousand_decisions_on_a_busy_machine_are_all_the_same() {
    let credential = credential(OpSet::COMPANION, &[]);
    let policy = Policy::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_500 {
                    assert_eq!(
                        policy.grant(
                            &credential,
                            &Place::right().circumstances(),
                            OpSet::COMPANION,
                            &Counter::default()
                        ),
                        Ok(OpSet::COMPANION)
                    );
                }
            });
        }
    });
}

/// Rules with every kind of expression that is allowed, some of which fire.
static WITH_RULES: std::sync::LazyLock<Policy> = std::sync::LazyLock::new(|| {
    with_rules(
        "deny if operation(\"send_input\"), hour($h), $h >= 4;\n\
         check if weekday($d), {1, 2, 3}.contains($d) or operation($o), $o.starts_with(\"re\");\n\
         check all operation($o), $o.matches(\"^[a-z_]+$\") && $o.length() < 14;\n\
         deny if session(\"session-2\"), epoch(2);",
    )
    .unwrap()
});

fn root() -> biscuit_auth::PublicKey {
    let issuer = IssuerSecretKey::from_bytes([5; 32]).public();
    biscuit_auth::PublicKey::from_bytes(issuer.as_bytes(), biscuit_auth::builder::Algorithm::Ed25519).unwrap()
}

/// The failure without the text of checks: the order inside a set depends on the indices of strings. A check of
/// a token's block has a number in it, and one that was read from a credential the number that follows the policy's.
fn outline(outcome: Result<(), Failure>, rules: usize, credential: &Credential) -> Result<(), String> {
    let blocks = credential.blocks().iter().map(|block| block.caveats().len());
    let before = |block: u32| blocks.clone().take(block as usize).sum::<usize>();
    let check = |check: &FailedCheck| match check {
        FailedCheck::Block(check) => rules + before(check.block_id) + check.check_id as usize,
        FailedCheck::Authorizer(check) => check.check_id as usize,
    };
    outcome.map_err(|failure| match failure {
        Failure::FailedLogic(Logic::Unauthorized { policy, checks }) => {
            format!("{policy:?} {:?}", checks.iter().map(check).collect::<Vec<_>>())
        }
        failure => format!("{failure:?}"),
    })
}

fn one_or_two() -> impl Strategy<Value = u8> {
    prop_oneof![4 => Just(1_u8), 1 => Just(2_u8)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A disagreement would come back as a denial of its own kind; neither side may be wider.
    #[test]
    fn datalog_allows_exactly_what_the_scope_contains(
        ops in 1..=0xff_u64,
        attenuated in proptest::collection::vec((proptest::option::of(1..=0xff_u64), proptest::option::of(END - 120..END + 20)), 0..3),
        asked in 1..=0xff_u64, dimensions in [one_or_two(), one_or_two(), one_or_two(), one_or_two(), one_or_two(), one_or_two()],
        time in END - 130..END + 10, live in proptest::option::weighted(0.9, [one_or_two(), one_or_two(), one_or_two()])
    ) {
        let set = |bits| OpSet::from_bits(bits).unwrap();
        let attenuated: Vec<_> = attenuated.into_iter().filter(|(ops, end)| ops.is_some() || end.is_some()).map(|(ops, end)| (ops.map(set), end)).collect();
        let credential = credential(set(ops), &attenuated);
        let place = Place::at(dimensions, time, live);
        let policy = Policy::new();
        let verdict = policy.grant(&credential, &place.circumstances(), set(asked), &Counter::default());
        let recorded = place.live.is_some_and(|live| live.credential == credential.credential().id() && live.ticket == credential.credential().ticket() && live.holder == place.peer);
        let inside = credential.credential().scope().contains(&place.circumstances(), set(asked)) && recorded;
        prop_assert_eq!(verdict.is_ok(), inside, "{:?}", verdict);
        prop_assert_ne!(verdict, Err(Denial::PolicyDisagreement));
        let datalog = policy.run(&credential, &place.circumstances(), set(asked).iter().map(Op::name));
        prop_assert_eq!(datalog.is_ok(), inside, "{:?}", datalog);
        let token = Biscuit::from(credential.credential().bytes().as_bytes(), root()).unwrap();
        let names: Vec<_> = set(asked).iter().map(Op::name).collect();
        for policy in [&policy, &*WITH_RULES] {
            let of_token = policy.run_token(&token, &place.circumstances(), &names);
            let of_blocks = policy.evaluate(&credential, &place.circumstances(), names.iter().copied());
            let outline = |outcome| outline(outcome, policy.checks.len(), credential.credential());
            prop_assert_eq!(outline(of_blocks), outline(of_token));
        }
    }
}

/// The question about a credential at a place, as a gate asks it, with the hash of its configuration.
fn asked<'a>(
    place: &'a Place,
    credential: &'a VerifiedCredential,
    record: &'a LiveRecord,
    issuer: &'a crate::key::IssuerPublicKey,
    hashes: &'a ([u8; 32], [u8; 32]),
) -> Question<'a> {
    assert_eq!(hashes.1, credential.credential().hashes().whole);
    Question {
        configuration: &hashes.0,
        credential: &record.credential,
        ticket: &record.ticket,
        holder: &place.peer,
        session: &place.session,
        epoch: place.epoch,
        issuer,
        bytes: &hashes.1,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A decision made at one place and time, asked for at another, over random credentials, records, clocks
    /// and agents: it answers only what the engine and the native scope allow there, and the same place is
    /// answered from the record.
    #[test]
    fn a_recorded_decision_allows_exactly_what_the_policy_would(
        ops in 1..=0xff_u64,
        attenuated in proptest::collection::vec((proptest::option::of(1..=0xff_u64), proptest::option::of(END - 120..END + 20)), 0..3),
        asked_ops in 1..=0xff_u64, first in [one_or_two(), one_or_two(), one_or_two(), one_or_two(), one_or_two(), one_or_two()],
        then in [one_or_two(), one_or_two(), one_or_two(), one_or_two(), one_or_two(), one_or_two()], same in any::<bool>(),
        times in (END - 130..END + 10, END - 130..END + 10), records in ([one_or_two(), one_or_two()], [one_or_two(), one_or_two()])
    ) {
        let set = |bits| OpSet::from_bits(bits).unwrap();
        let attenuated: Vec<_> = attenuated.into_iter().filter(|(ops, end)| ops.is_some() || end.is_some()).map(|(ops, end)| (ops.map(set), end)).collect();
        let credential = credential(set(ops), &attenuated);
        let issuer = IssuerSecretKey::from_bytes([5; 32]).public();
        let policy = Policy::new();
        let whole = credential.credential().hashes().whole;
        let (then, second_record) = if same { (first, records.0) } else { (then, records.1) };
        let at = |dimensions: [u8; 6], time, record: [u8; 2]| {
            let place = Place::at(dimensions, time, Some([record[0], record[1], dimensions[4]]));
            let urls: Vec<_> = place.urls.iter().map(ToString::to_string).collect();
            let parts = [policy.fingerprint().as_slice(), place.agent.as_bytes()];
            let configuration = decision::digest(parts.into_iter().chain(urls.iter().map(String::as_bytes)));
            (place, configuration)
        };
        let (place, configuration) = at(first, times.0, records.0);
        let scope = credential.credential().scope();
        let granted = policy.grant(&credential, &place.circumstances(), scope.ops(), &Counter::default());
        let hashes = (configuration, whole);
        let record = place.live.unwrap();
        let decisions = match granted {
            Ok(granted) => {
                let question = asked(&place, &credential, &record, &issuer, &hashes);
                Decisions::default().with(Decision::new(&question, granted, scope.expires_at().unwrap()), false)
            }
            Err(_) => Decisions::default(),
        };
        let (place, configuration) = at(then, times.1, second_record);
        let hashes = (configuration, whole);
        let record = place.live.unwrap();
        let question = asked(&place, &credential, &record, &issuer, &hashes);
        let time = Timestamp::from_seconds(place.time).unwrap();
        let found = decisions.on(&question, time).filter(|decision| set(asked_ops).is_subset_of(decision.ops));
        let engine = policy.run(&credential, &place.circumstances(), set(asked_ops).iter().map(Op::name)).is_ok();
        let native = Policy::scope_contains(credential.credential(), &place.circumstances(), set(asked_ops));
        prop_assert_eq!(engine, native);
        prop_assert!(found.is_none() || engine);
        if same && decisions != Decisions::default() {
            prop_assert_eq!(found.is_some(), engine);
        }
    }
}
