//! An operator's own rules, from start-up to the end of a stream that they forbid.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use common::*;
use sessioncap::agent::ledger::MemoryLedger;
use sessioncap::agent::*;
use sessioncap::phone::*;
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
        match guard.ask(Op::SendInput, now, || ()) {
            Ok(()) => assert_eq!(refused_since, None, "it does not come back by itself"),
            Err(denial) => {
                assert_eq!(denial, Denial::OperationNotGranted { op: Op::SendInput });
                refused_since = refused_since.or(Some(second));
            }
        }
        assert_eq!(guard.ask(Op::StreamOutput, now, || ()), Ok(()), "the output goes on");
    }
    let after_ten = refused_since.unwrap() - 120;
    assert!((0..=60).contains(&after_ten), "{after_ten} s after ten");
    assert_eq!(guard.ops(), OpSet::COMPANION.without(Op::SendInput));
    // At midnight the rule is over.
    world.pass(2 * 3_600 + 120);
    assert_eq!(guard.ask(Op::SendInput, world.now, || ()), Ok(()));
}

#[test]
fn a_stream_that_is_asked_only_now_and_then_is_reviewed_by_the_caller_s_timer() {
    let world = world(NO_INPUT_AT_NIGHT);
    let mut guard = world.join(&world.desktop(9).share(&world, &terms()).link, &phone(2)).unwrap().guard;
    // As an agent does: sleep for `time_left`, then `check`.
    let mut now = world.now;
    for _ in 0..4 {
        now = now.plus(guard.time_left(now).try_into().unwrap());
        world.gate.settle(now).unwrap();
        guard.checked(now).unwrap();
    }
    assert!(now.timestamp().seconds() >= (BEFORE_TEN + 180) as u64);
    assert!(!guard.ops().contains(Op::SendInput));
}

#[test]
fn without_rules_nothing_is_due_before_the_end() {
    let world = World::new();
    let terms = terms().with_valid_for(3_600).unwrap();
    let guard = world.join(&world.desktop(9).share(&world, &terms).link, &phone(2)).unwrap().guard;
    assert_eq!(guard.time_left(world.now), Duration::seconds(3_600));
}

#[test]
fn an_attach_at_night_gets_the_rest_and_is_told_so() {
    let mut world = world(NO_INPUT_AT_NIGHT);
    let joined = world.join(&world.desktop(9).share(&world, &terms()).link, &phone(2)).unwrap();
    world.pass(120);
    // `attach` of the harness compares the phone's answer with the guard.
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
    assert_eq!(guard.activate_after_first_frame(world.now).unwrap().ops(), attached.ops);
}

/// The first redemption claims the ticket. One that is forbidden whole at this hour must not.
#[test]
fn a_ticket_that_an_operator_rule_forbids_at_this_hour_is_not_claimed() {
    let mut world = world("check if hour($h), $h < 22");
    world.pass(120);
    let desktop = world.desktop(9);
    let waits =
        terms().with_valid_for(86_000).unwrap().with_ticket_lifetime(limits::MAX_TICKET_LIFETIME).unwrap();
    let pairing = desktop.share(&world, &waits);
    let told = world.events().len();
    let refused = world.join(&pairing.link, &phone(2)).unwrap_err();
    assert_eq!(refused, Refusal::told(Denial::OperatorRule { rule: 1 }, Status::OperationDenied));
    assert_eq!((world.events().len(), world.only_listing().state), (told, ListingState::Open));
    // The ledger's reason comes before the rule's.
    world.gate.revoke_ticket(&pairing.ticket, world.now).unwrap();
    assert_eq!(world.join(&pairing.link, &phone(2)).unwrap_err().denial, Denial::TicketRevoked);
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
    assert_eq!(guard.checked(world.now), Err(Denial::OperatorRule { rule: 1 }));
    assert_eq!(guard.ask(Op::Detach, world.now, || ()), Err(Denial::OperatorRule { rule: 1 }));
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
    assert_eq!(guard.checked(world.now), Err(Denial::CredentialRevoked));
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
fn a_rule_that_names_one_operation_allows_no_other() {
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
            Err(error) => assert_eq!(error.problem(), problem, "{rules}: {error}"),
            Ok(_) => panic!("{rules}"),
        }
    }
}

/// Refused with this problem, at this rule and line.
#[track_caller]
fn refused(rules: &str, problem: RuleProblem, rule: usize, line: usize) -> RuleError {
    let error = Policy::with_operator_rules(rules, UtcOffset::UTC).expect_err(rules);
    assert_eq!((error.problem(), error.rule(), error.line()), (problem, rule, line), "{rules}: {error}");
    error
}

#[test]
fn an_error_has_rule_line_and_column_and_the_engines_error() {
    let rules =
        "// nights\ndeny if hour($h), $h >= 22;\n/* input\n\n*/ deny if operation($o),\n    $o == ;\n";
    let error = refused(rules, RuleProblem::Syntax, 2, 6);
    assert_eq!((error.column(), error.code()), (8, "syntax"));
    assert!(error.to_string().starts_with("operator rule 2, line 6, column 8: it is not a readable"));
    assert!(std::error::Error::source(&error).is_some());
    let error = refused(
        "check if hour($h), $h < 22; deny if hour($h), 1 / ($h - 9) > 0;",
        RuleProblem::Evaluation,
        2,
        1,
    );
    assert_eq!(error.column(), 29);
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("zero"), "{error:?}");
    let error = refused(r#"deny if session($s), $s.matches("^(dev");"#, RuleProblem::Regex, 1, 1);
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("unclosed group"), "{error:?}");
}

#[test]
fn a_rule_that_can_never_fire_is_an_error_with_its_line() {
    for rule in [
        "deny if false;",
        "check if true;",
        "deny if hour($h), $h >= 22, $h < 6;",
        "check if hour($h), $h >= 0;",
        "check if hour($h), $h < 22 or hour($h), $h >= 22;",
        "reject if weekday($d), $d == 3, $d == 4;",
        "deny if hour(3), hour(4);",
        "deny if minute($m), $m > 30, $m < 31;",
        r#"deny if session("one"), session("two");"#,
        r#"deny if session($s), $s == "one", $s == "two";"#,
        r#"deny if operation("send_input"), operation("resize");"#,
        r#"check if operation($o), $o == "send_input" || $o != "send_input";"#,
        "deny if time($t), $t > 2030-01-01T00:00:00Z, $t < 2029-01-01T00:00:00Z;",
        "deny if epoch($e), $e > 5, $e < 5;",
        "check if epoch($e), $e >= 0;",
        "check if version(1);",
        "deny if time($t), $t > 2030-01-01T00:00:00Z, hour($h), $h > 22, $h < 4;",
        r#"deny if session($s), $s.matches("^dev-"), hour($h), $h >= 22, $h < 6;"#,
        "deny if peer(hex:0000000000000000000000000000000000000000000000000000000000000001), \
         peer(hex:0000000000000000000000000000000000000000000000000000000000000002);",
    ] {
        refused(&format!("deny if weekday(7);\n{rule}"), RuleProblem::NeverFires, 2, 2);
    }
}

#[test]
fn a_rule_that_fires_for_a_value_it_names_or_could_fire_for_one_it_does_not_is_accepted() {
    for rule in [
        "deny if true;",
        "check if false;",
        "deny if hour(5), minute(30);",
        "deny if hour($h), minute($m), $h * 60 + $m >= 1350;",
        "deny if hour($h), minute($m), $h > 5, $m > $h, $m < 8;",
        r#"deny if session("one");"#,
        r#"deny if session($s), {"one", "two"}.contains($s), weekday(7), hour(23), operation("resize");"#,
        r#"deny if session($s), ["dev-", "test-"].any($p -> $s.starts_with($p));"#,
        r#"deny if operation($o), ["send_", "re"].any($p -> $o.starts_with($p));"#,
        r#"deny if session($s), $s.matches("^prod-[0-9]+$");"#,
        r#"deny if session($s), $s.length() > 60;"#,
        r#"check if session($s), $s.matches(".*");"#,
        "deny if time($t), $t >= 2030-01-01T00:00:00Z, $t < 2030-01-01T00:00:01Z;",
        "deny if epoch($e), $e > 4, $e < 6;",
        "deny if peer(hex:0000000000000000000000000000000000000000000000000000000000000001);",
        "deny if live($c, $t, $p), $c == hex:00000000000000000000000000000003;",
        r#"deny if agent($k, "wss://other.example/path");"#,
        r#"check if operation($o), $o != "a;b(" || $o == "send_input";"#,
        r#"deny if session($s), $s != "((((((((((((((((((((((((((((((((((((((";"#,
        r#"deny if session($s), $s != "\"; ]]]]", $s != "//", $s != "/*";"#,
        "reject if hour($h), $h < 6;",
        "check all operation($o), $o != \"resize\";",
    ] {
        let accepted = Policy::with_operator_rules(rule, UtcOffset::UTC);
        assert!(accepted.is_ok_and(|policy| policy.has_operator_rules()) || rule.contains("a;b("), "{rule}");
    }
}

/// Each would overflow the stack, never end, panic or take minutes in the engine.
#[test]
fn a_hostile_text_is_refused_before_the_engine_reads_it() {
    use RuleProblem::*;
    let of = |n: usize, text: &str| text.repeat(n);
    let wrap = |n: usize, open: &str, middle: &str, close: &str| {
        format!("check if hour($h), {}{middle}{};", of(n, open), of(n, close))
    };
    let set: String = (0..8).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let closures = |depth: usize| {
        let open: String = (0..depth).map(|n| format!("[{set}].all($x{n} -> ")).collect();
        format!("check if hour($h), {open}$h < 22{};", of(depth, ")"))
    };
    let long: String = (0..1_500).map(|n| (n % 24).to_string()).collect::<Vec<_>>().join(",");
    let texts: Vec<(String, RuleProblem)> = vec![
        (of(10_000, "("), TooDeep),
        (wrap(5_000, "(", "true", ")"), TooDeep),
        (wrap(33, "(", "true", ")"), TooDeep),
        (wrap(40, "[", "1", "]"), TooDeep),
        (wrap(40, "{", "1", "}"), TooDeep),
        (wrap(40, "{\"a\":", "1", "}"), TooDeep),
        (wrap(5_000, "!", "true", ""), TooDeep),
        (wrap(40, "! ", "true", ""), TooDeep),
        (wrap(20, "!(", "true", ")"), TooDeep),
        (wrap(5_000, "1+", "1 > 0", ""), TooComplex),
        (wrap(2_000, "true&&", "true", ""), TooComplex),
        (wrap(2_000, "true||", "true", ""), TooComplex),
        (wrap(5_000, "1*", "1 > 0", ""), TooComplex),
        (wrap(5_000, "1-", "1 > 0", ""), TooComplex),
        (wrap(1_500, "", "\"a\"", ".length()"), TooComplex),
        (wrap(5_000, "1|", "1 > 0", ""), TooComplex),
        (wrap(300, "\"(\".length()+", "1 > 0", ""), TooComplex),
        // A bracket or a semicolon in a string or a comment changes no count.
        (wrap(40, "(\")\" == \")\" && ", "true", ")"), TooDeep),
        (wrap(40, "(\";\" == \";\" && ", "true", ")"), TooDeep),
        (wrap(40, "(\"\\\");\" == \"\" && ", "true", ")"), TooDeep),
        (format!("/* ) ; */ check if {}", of(9_000, "(")), TooDeep),
        (format!("// )))\n check if {}", of(9_000, "(")), TooDeep),
        // The engine's reader of whole texts continues after the semicolon of a comment that it does not know.
        (format!("check if 1 // ; check if {}", of(9_000, "(")), TooDeep),
        (format!("check if 1 /* ; */ check if {}", of(9_000, "(")), TooDeep),
        ("check if hour($h), $h < 22 // ; \n;".to_owned(), Syntax),
        (closures(5), TooComplex),
        (closures(12), TooComplex),
        (format!("check if hour($h), [{long}].all($x -> [{long}].all($y -> $x + $y + $h < 0));"), TooComplex),
        (
            format!("check if hour($h), [{long}].all($x -> [1].all($y -> [1].all($z -> $h < 22)));"),
            TooComplex,
        ),
        (of(90, &format!("check if hour($h), [{}].any($x -> $x < $h);", of(60, "1,") + "1")), TooComplex),
        (r#"deny if session($s), $s.matches("\\w{900}");"#.to_owned(), Regex),
        (r#"deny if session($s), $s.matches("((a{99}){99}){99}");"#.to_owned(), Regex),
        (format!(r#"deny if session($s), $s.matches("{}");"#, of(3_000, "(")), Regex),
        ("check if {parameter} == 1;".to_owned(), Unsupported),
        ("check if [{parameter}].contains(1);".to_owned(), Unsupported),
        ("check if {{parameter}: 1}.length() > 1;".to_owned(), Unsupported),
        ("deny if session({parameter});".to_owned(), Unsupported),
        ("deny if hour($h), $x > 3;".to_owned(), Evaluation),
        ("deny if hour($h), $h + 9223372036854775807 > 0;".to_owned(), Evaluation),
        ("deny if hour($h), $h > 9223372036854775808;".to_owned(), Syntax),
        ("deny if time($t), $t > 2030-01-01T00:00:00;".to_owned(), Syntax),
        ("deny if session(\"one".to_owned(), Syntax),
        ("deny if session(\"one\\".to_owned(), Syntax),
        ("/* deny if true;".to_owned(), Syntax),
        ("deny if true /".to_owned(), Syntax),
        (";;;;".to_owned(), Syntax),
        ("deny if \u{202e}true;".to_owned(), Syntax),
        ("deny if true;".repeat(2_000), TooLong),
    ];
    assert!(texts.len() >= 30);
    for (text, problem) in texts {
        // As small a stack as a thread of an agent may have.
        let thread = std::thread::Builder::new().stack_size(2 << 20);
        let running = thread.spawn(move || (Policy::with_operator_rules(&text, UtcOffset::UTC).err(), text));
        let (error, text) = running.unwrap().join().unwrap();
        let start: String = text.chars().take(80).collect();
        let found = error.as_ref().map(RuleError::problem);
        assert_eq!(found, Some(problem), "{start}: {error:?}");
    }
}

#[test]
fn the_largest_rules_within_the_limits_are_read_and_evaluated() {
    let nested = format!("check if hour($h), {}$h < 22{};", "(".repeat(31), ")".repeat(31));
    let chained = format!("check if hour($h), {}$h < 22;", "1 + ".repeat(200) + "1 > 0, ");
    let closures = "check if hour($h), [1, 2, 3].any($x -> [4, 5, 6].any($y -> $x + $y < $h));";
    for text in [nested.as_str(), &chained, closures, &"deny if weekday(7);\n".repeat(800)] {
        if let Err(error) = Policy::with_operator_rules(text, UtcOffset::UTC) {
            panic!("{error}");
        }
    }
}

#[test]
fn a_denial_by_the_ledger_precedes_one_by_an_operators_rule() {
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
