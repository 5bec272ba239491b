//! An operator's own rules, from start-up to the end of a stream that they forbid.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use common::*;
use sessioncap::ledger::MemoryLedger;
use sessioncap::*;
use time::{Duration, UtcOffset};

const NO_INPUT_AT_NIGHT: &str = r#"deny if operation("send_input"), hour($h), $h >= 22;"#;
/// 21:58:00 UTC on the day on which worlds begin.
const BEFORE_TEN: i64 = START + 5_480;

fn world(rules: &str) -> World {
    let policy = Policy::with_operator_rules(rules, UtcOffset::UTC).unwrap();
    let mut world = World::with(MemoryLedger::new(), |config| config.with_policy(policy));
    world.now = at(BEFORE_TEN, 1_000);
    world
}

#[test]
fn ten_in_the_evening_ends_the_input_of_a_stream_that_began_before() {
    let mut world = world(NO_INPUT_AT_NIGHT);
    let joined = world.join(&world.desktop(9).share(&world, &terms()).link, &phone(2)).unwrap();
    let mut guard = joined.guard;
    assert_eq!(guard.ops(), OpSet::COMPANION);
    assert!(guard.time_left(world.now) <= Duration::seconds(60), "it has to be asked again");
    let mut refused_since = None;
    for second in 0..=180 {
        let now = at(BEFORE_TEN + second, 1_000 + second);
        world.gate.settle(now).unwrap();
        assert!(guard.time_left(now) <= Duration::seconds(60));
        match guard.permit(Op::SendInput, now, || ()) {
            Ok(()) => assert_eq!(refused_since, None, "it does not come back by itself"),
            Err(denial) => {
                assert_eq!(denial, Denial::OperationNotGranted { op: Op::SendInput });
                refused_since = refused_since.or(Some(second));
            }
        }
        assert_eq!(guard.permit(Op::StreamOutput, now, || ()), Ok(()), "the output goes on");
    }
    let after_ten = refused_since.unwrap() - 120;
    assert!((0..=60).contains(&after_ten), "{after_ten} s after ten");
    assert_eq!(guard.ops(), OpSet::COMPANION.without(Op::SendInput));
    // At midnight the rule is over.
    world.pass(2 * 3_600 + 120);
    assert_eq!(guard.permit(Op::SendInput, world.now, || ()), Ok(()));
}

#[test]
fn a_stream_that_is_asked_only_now_and_then_is_reviewed_by_the_caller_s_timer() {
    let world = world(NO_INPUT_AT_NIGHT);
    let mut guard = world.join(&world.desktop(9).share(&world, &terms()).link, &phone(2)).unwrap().guard;
    // What an agent does: sleep for `time_left`, then `check`.
    let mut now = world.now;
    for _ in 0..4 {
        now = now.plus(guard.time_left(now));
        world.gate.settle(now).unwrap();
        guard.check(now).unwrap();
    }
    assert!(now.timestamp().seconds() >= (BEFORE_TEN + 180) as u64);
    assert!(!guard.ops().contains(Op::SendInput));
}

#[test]
fn without_rules_nothing_is_due_before_the_end() {
    let world = World::new();
    let terms = terms().valid_for(3_600).unwrap();
    let guard = world.join(&world.desktop(9).share(&world, &terms).link, &phone(2)).unwrap().guard;
    assert_eq!(guard.time_left(world.now), Duration::seconds(3_600));
}

#[test]
fn an_attach_at_night_gets_the_rest_and_is_told_so() {
    let mut world = world(NO_INPUT_AT_NIGHT);
    let joined = world.join(&world.desktop(9).share(&world, &terms()).link, &phone(2)).unwrap();
    world.pass(120);
    // `attach` of the harness compares what the phone is told with what the guard has.
    let guard = world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap();
    assert_eq!(guard.ops(), OpSet::COMPANION.without(Op::SendInput));
    let both = OpSet::only(Op::SendInput).with(Op::StreamOutput);
    assert_eq!(world.attach(&phone(2), &joined.credential, both).unwrap().ops(), both.without(Op::SendInput));
    let refusal = world.attach(&phone(2), &joined.credential, OpSet::only(Op::SendInput)).unwrap_err();
    assert_eq!(refusal, Refusal::told(Denial::OperatorRule { rule: 1 }, Status::OperationDenied));
}

#[test]
fn a_redemption_at_night_names_what_is_allowed_at_that_hour() {
    let mut world = world(NO_INPUT_AT_NIGHT);
    world.pass(120);
    let pairing = world.desktop(9).share(&world, &terms());
    let asking = world.ask(&pairing.link, &phone(2));
    let Response::Admitted(message, _, guard) = world.respond(&asking.message) else { panic!() };
    let Redeemed::Attached { attached, .. } = asking.next.finish(&message).unwrap() else { panic!() };
    assert_eq!(attached.ops, OpSet::COMPANION.without(Op::SendInput));
    assert_eq!(guard.activate(world.now).unwrap().ops(), attached.ops);
}

#[test]
fn explain_says_which_rule_forbids() {
    let rules = r#"
        check if operation("read_metadata") or hour($h), $h >= 6;
        deny if operation("interrupt");
        deny if operation("send_input"), hour($h), $h >= 22;
    "#;
    let mut world = world(rules);
    let terms = terms().with_ops(OpSet::ALL).unwrap();
    let joined = world.join(&world.desktop(9).share(&world, &terms).link, &phone(2)).unwrap();
    let explain = |world: &World, op| {
        world.gate.explain(&phone(2).public(), &joined.credential, Action::Session(op), world.now)
    };
    assert_eq!(explain(&world, Op::SendInput), Ok(()));
    assert_eq!(explain(&world, Op::Interrupt), Err(Denial::OperatorRule { rule: 2 }));
    world.pass(120);
    assert_eq!(explain(&world, Op::SendInput), Err(Denial::OperatorRule { rule: 3 }));
    world.pass(4 * 3_600);
    assert_eq!(explain(&world, Op::SendInput), Err(Denial::OperatorRule { rule: 1 }), "at two at night");
    assert_eq!(explain(&world, Op::ReadMetadata), Ok(()));
    let denial = Denial::OperatorRule { rule: 3 };
    assert_eq!((denial.code(), denial.to_string().as_str()), ("operator_rule", "operator rule 3 forbids it"));
    assert_eq!(world.only_listing().connections, 1, "it admits nobody");
}

#[test]
fn explain_knows_the_other_reasons_too() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let explain = |peer: &HolderPublicKey, op| {
        world.gate.explain(peer, &joined.credential, Action::Session(op), world.now)
    };
    assert_eq!(explain(&phone(2).public(), Op::Detach), Ok(()));
    assert_eq!(explain(&phone(3).public(), Op::Detach), Err(Denial::HolderMismatch));
    let Err(Denial::CaveatFailed { block: 0, caveat }) = explain(&phone(2).public(), Op::Resize) else {
        panic!()
    };
    assert_eq!(*caveat, Caveat::Ops(OpSet::COMPANION));
    world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
    assert_eq!(explain(&phone(2).public(), Op::Detach), Err(Denial::CredentialRevoked));
}

#[test]
fn a_rule_against_everything_ends_the_stream_with_its_number() {
    let mut world = world("check if hour($h), $h < 22;");
    let joined = world.join(&world.desktop(9).share(&world, &terms()).link, &phone(2)).unwrap();
    let mut guard = joined.guard;
    world.pass(180);
    assert_eq!(guard.check(world.now), Err(Denial::OperatorRule { rule: 1 }));
    assert_eq!(guard.permit(Op::Detach, world.now, || ()), Err(Denial::OperatorRule { rule: 1 }));
    let refusal = world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err();
    assert_eq!(refusal, Refusal::told(Denial::OperatorRule { rule: 1 }, Status::OperationDenied));
}

#[test]
fn a_review_ends_with_the_guard_when_it_was_revoked() {
    let mut world = world(NO_INPUT_AT_NIGHT);
    let pairing = world.desktop(9).share(&world, &terms());
    let mut guard = world.join(&pairing.link, &phone(2)).unwrap().guard;
    world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
    world.pass(120);
    assert_eq!(guard.check(world.now), Err(Denial::CredentialRevoked));
}

#[test]
fn the_hour_is_the_operators_own() {
    let east = UtcOffset::from_hms(2, 0, 0).unwrap();
    let policy = Policy::with_operator_rules(NO_INPUT_AT_NIGHT, east).unwrap();
    let mut world = World::with(MemoryLedger::new(), |config| config.with_policy(policy));
    let joined = world.join(&world.desktop(9).share(&world, &terms()).link, &phone(2)).unwrap();
    assert!(!joined.guard.ops().contains(Op::SendInput), "20:26 UTC is 22:26 there");
    world.pass(2 * 3_600);
    let guard = world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap();
    assert!(guard.ops().contains(Op::SendInput), "and 22:26 UTC is 00:26 there");
}

#[test]
fn a_rule_that_names_one_operation_lets_no_other_through_with_it() {
    let world = world(r#"check if operation("read_metadata");"#);
    let joined = world.join(&world.desktop(9).share(&world, &terms()).link, &phone(2)).unwrap();
    assert_eq!(joined.guard.ops(), OpSet::only(Op::ReadMetadata));
}

#[test]
fn rules_that_would_never_fire_or_would_widen_do_not_start() {
    use RuleProblem::*;
    for (rules, problem) in [
        ("allow if true;", NotNarrowing),
        (r#"operation("send_input");"#, NotNarrowing),
        (r#"live($c, $t, $p) <- credential($c), ticket($t), peer($p);"#, NotNarrowing),
        (r#"deny if operation("sned_input");"#, UnknownOperation),
        (r#"deny if operations("send_input");"#, UnknownPredicate),
        ("deny if hour(24);", ValueOutOfRange),
        ("deny if weekday(0);", ValueOutOfRange),
        (r#"deny if operation($o), $o.matches("^(send");"#, Regex),
        ("deny if", Syntax),
        (r#"deny if hour($h), $h > "22";"#, ValueOutOfRange),
        ("deny if credential($c), $c > 5;", Evaluation),
    ] {
        match Policy::with_operator_rules(rules, UtcOffset::UTC) {
            Err(Error::OperatorRule { problem: found, .. }) => assert_eq!(found, problem, "{rules}"),
            other => panic!("{rules}: {other:?}"),
        }
    }
    assert!(Policy::with_operator_rules(&"(".repeat(10_000), UtcOffset::UTC).is_err(), "no stack overflow");
}

#[test]
fn what_the_ledger_has_to_say_comes_before_an_operators_rule() {
    let mut world = world("deny if true;");
    let desktop = world.desktop(9);
    let short = desktop.share(&world, &terms().with_ticket_lifetime(30).unwrap());
    let open = desktop.share(&world, &terms());
    let refused = |world: &World, link: &Link| world.join(link, &phone(2)).unwrap_err().denial;
    assert_eq!(refused(&world, &open.link), Denial::OperatorRule { rule: 1 });
    world.pass(31);
    assert_eq!(refused(&world, &short.link), Denial::TicketExpired);
    world.stop_session(SESSION);
    assert_eq!(refused(&world, &open.link), Denial::SessionGone);
}
