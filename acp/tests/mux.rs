//! The rules by which viewers share one agent (`docs/ACP_BRIDGE.md`).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod bench;

use std::sync::Arc;
use std::time::Duration;

use bench::{Bench, INITIALIZED, json, notice, refusal, request, result};
use sessioncap::acp::{Asked, FromPhone, Json, Message, RequestId, RpcError};
use sessioncap_acp::mux::{Effect, Kind, Mux, Settings, Turns, Unusable, ViewerId};
use sessioncap_acp::process::Unreadable;

const NONE: &str = "{}";
const PROMPT: &str = r#"{"sessionId":"s","prompt":[{"type":"text","text":"hello"}]}"#;
const CANCEL: &str = r#"{"sessionId":"s"}"#;
const ASK: &str = r#"{"sessionId":"s","toolCall":{"toolCallId":"t"},"options":[
    {"optionId":"yes","name":"Yes","kind":"allow_once"},{"optionId":"no","name":"No","kind":"reject_once"}]}"#;

fn bench() -> Bench {
    Bench::new(Settings::default())
}

fn update(text: &str) -> String {
    let content = format!(r#"{{"type":"text","text":"{text}"}}"#);
    format!(r#"{{"sessionId":"s","update":{{"sessionUpdate":"agent_message_chunk","content":{content}}}}}"#)
}

fn user(text: &str) -> String {
    update(text).replace("agent_message", "user_message")
}

fn selected(option: &str) -> String {
    format!(r#"{{"outcome":{{"outcome":"selected","optionId":"{option}"}}}}"#)
}

fn reason(outcome: &Result<Json, RpcError>) -> &str {
    outcome.as_ref().unwrap_err().data.as_ref().unwrap().get("reason").unwrap().as_text().unwrap()
}

fn outcome(message: Message) -> Result<Json, RpcError> {
    match message {
        Message::Response { outcome, .. } => outcome,
        other => panic!("{other:?}"),
    }
}

fn phone_prompt(id: i64) -> FromPhone {
    let prompt = json(PROMPT).get("prompt").unwrap().clone();
    FromPhone::Prompt { id: RequestId::Number(id), prompt }
}

fn phone(bench: &mut Bench, viewer: ViewerId, message: FromPhone) {
    let effects = bench.mux.from_phone(viewer, message, bench.now);
    bench.add(effects);
}

/// The desktop begins a turn; what tells the others is dropped.
fn begin(bench: &mut Bench, viewer: ViewerId, id: i64) -> RequestId {
    bench.desktop(viewer, request(id, "session/prompt", PROMPT));
    let number = bench.agent_gets("session/prompt").0;
    bench.all();
    number
}

#[test]
fn the_agent_is_initialized_once_and_everybody_gets_its_answer() {
    let settings = Settings { read_files: true, ..Settings::default() };
    let (mux, effects) = Mux::new(settings, Duration::ZERO);
    let mut bench = Bench { mux, now: Duration::ZERO, out: effects.into(), forbidden: Default::default() };
    let (number, params) = bench.agent_gets("initialize");
    let declared = params.unwrap();
    let declared = declared.get("clientCapabilities").unwrap().clone();
    assert_eq!(declared, json(r#"{"fs":{"readTextFile":true,"writeTextFile":false},"terminal":false}"#));

    let early = bench.join(Kind::Desktop);
    bench.desktop(early, request(1, "session/new", NONE));
    assert_eq!(reason(&outcome(bench.desktop_gets(early))), "not_initialized");
    bench.desktop(early, request(1, "initialize", NONE));
    bench.desktop(early, request(2, "session/new", NONE));
    assert_eq!(reason(&outcome(bench.desktop_gets(early))), "not_initialized");
    let waiting = bench.phone_in("s");
    phone(&mut bench, waiting, FromPhone::Request { id: RequestId::Null, asked: Asked::Initialize });
    bench.nothing();
    bench.agent(result(&number, INITIALIZED));
    assert_eq!(bench.desktop_gets(early), result(1, INITIALIZED));
    assert_eq!(bench.phone_gets(waiting), (RequestId::Null, Ok(json(INITIALIZED))));

    let late = bench.join(Kind::Desktop);
    for id in ["once", "again"] {
        bench.desktop(late, request(id, "initialize", NONE));
        assert_eq!(bench.desktop_gets(late), result(id, INITIALIZED));
    }
    bench.nothing();
}

#[test]
fn an_agent_of_another_version_or_that_refuses_or_says_nothing_is_ended() {
    let cases = [
        (Some(result(0, r#"{"protocolVersion":2}"#)), Unusable::Version),
        (Some(refusal(0, -32603)), Unusable::Refused),
        (None, Unusable::Silent),
    ];
    for (answer, why) in cases {
        let (mux, effects) = Mux::new(Settings::default(), Duration::ZERO);
        let mut bench =
            Bench { mux, now: Duration::ZERO, out: effects.into(), forbidden: Default::default() };
        let number = bench.agent_gets("initialize").0;
        let desktop = bench.join(Kind::Desktop);
        bench.desktop(desktop, request(1, "initialize", NONE));
        match answer {
            Some(Message::Response { outcome, .. }) => bench.agent(Message::Response { id: number, outcome }),
            _ => {
                assert_eq!(bench.mux.next_look(), Some(Mux::START));
                bench.now = Mux::START;
                bench.look();
            }
        }
        assert_eq!(reason(&outcome(bench.desktop_gets(desktop))), "agent_gone");
        assert_eq!(bench.all(), [Effect::EndAgent(why)]);
    }
}

#[test]
fn viewers_and_the_agent_may_use_the_same_ids() {
    let mut bench = bench();
    let ids = [RequestId::Number(0), RequestId::Number(1), RequestId::Text("1".to_owned()), RequestId::Null];
    let viewers = [(); 3].map(|()| bench.desktop_in("s", NONE));
    let mut sent = Vec::new();
    for viewer in viewers {
        for id in &ids {
            bench.desktop(viewer, request(id, "session/list", NONE));
            sent.push((viewer, id.clone(), bench.agent_gets("session/list").0));
        }
    }
    // Each of the agent's own requests is asked of the three, under a number that nobody else uses.
    for id in &ids {
        bench.agent(request(id, "session/request_permission", ASK));
    }
    let mut asked = Vec::new();
    for _ in &ids {
        for viewer in viewers {
            match bench.desktop_gets(viewer) {
                Message::Request { id, .. } => asked.push((viewer, id)),
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(asked.iter().all(|(_, id)| sent.iter().all(|(_, _, number)| number != id)));
    // Answered in the opposite order, each comes to its own sender.
    for (at, (viewer, id, number)) in sent.into_iter().enumerate().rev() {
        let answer = format!(r#"{{"sessions":[],"n":{at}}}"#);
        bench.agent(result(&number, &answer));
        assert_eq!(bench.desktop_gets(viewer), result(&id, &answer));
    }
    for (at, id) in ids.iter().enumerate() {
        let (viewer, question) = asked[at * 3 + at % 3].clone();
        bench.desktop(viewer, result(&question, &selected("yes")));
        for _ in 0..2 {
            assert!(matches!(bench.out.pop_front(), Some(Effect::ToDesktop(..))));
        }
        assert_eq!(bench.answer_to_agent(), (id.clone(), Ok(json(&selected("yes")))));
    }
    bench.nothing();
}

#[test]
fn an_answer_of_the_agent_to_nothing_is_dropped() {
    let mut bench = bench();
    for id in [RequestId::Number(999), RequestId::Text("1".to_owned()), RequestId::Null] {
        bench.agent(result(&id, NONE));
    }
    bench.nothing();
    assert_eq!(bench.mux.dropped().strange_messages, 3);
}

#[test]
fn one_turn_runs_in_a_session_and_the_others_wait() {
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    let guest = bench.phone_in("s");
    bench.desktop(desktop, request(1, "session/prompt", PROMPT));
    let first = bench.agent_gets("session/prompt").0;
    // The others hear the prompt, for the agent does not repeat it.
    assert_eq!(bench.all(), [Effect::Update(guest, Arc::new(json(&user("hello"))))]);
    phone(&mut bench, guest, phone_prompt(1));
    bench.nothing();
    bench.agent(result(&first, r#"{"stopReason":"end_turn"}"#));
    assert_eq!(bench.desktop_gets(desktop), result(1, r#"{"stopReason":"end_turn"}"#));
    let (second, params) = bench.agent_gets("session/prompt");
    assert_eq!(params.unwrap(), json(PROMPT));
    assert_eq!(bench.desktop_gets(desktop), notice("session/update", &user("hello")));
    bench.agent(result(&second, r#"{"stopReason":"refusal"}"#));
    assert_eq!(bench.phone_gets(guest), (RequestId::Number(1), Ok(json(r#"{"stopReason":"refusal"}"#))));
    bench.nothing();
}

#[test]
fn a_waiting_prompt_whose_phone_may_not_prompt_any_more_never_reaches_the_agent() {
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    let (guest, other) = (bench.phone_in("s"), bench.phone_in("s"));
    let first = begin(&mut bench, desktop, 0);
    for (id, viewer) in [(0, guest), (1, other), (2, guest)] {
        phone(&mut bench, viewer, phone_prompt(id));
    }
    bench.forbidden.insert(guest);
    bench.agent(result(&first, r#"{"stopReason":"end_turn"}"#));
    bench.desktop_gets(desktop);
    let (id, refused) = bench.phone_gets(guest);
    assert_eq!((id, reason(&refused)), (RequestId::Number(0), "not_granted"));
    // The other's turn begins, and when it has ended the last one is refused too.
    let second = bench.agent_gets("session/prompt").0;
    bench.all();
    bench.agent(result(&second, r#"{"stopReason":"end_turn"}"#));
    assert!(bench.phone_gets(other).1.is_ok());
    assert_eq!(reason(&bench.phone_gets(guest).1), "not_granted");
    bench.nothing();
}

#[test]
fn prompts_that_wait_are_bounded_for_each_viewer_and_for_the_session() {
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    begin(&mut bench, desktop, 0);
    let mut accepted = 0;
    for _ in 0..6 {
        let guest = bench.phone_in("s");
        for id in 0..5 {
            phone(&mut bench, guest, phone_prompt(id));
            match bench.out.pop_front() {
                None => accepted += 1,
                Some(Effect::Answer(to, _, outcome)) => {
                    assert_eq!((to, reason(&outcome)), (guest, "too_many"));
                    assert!(id >= 4 || accepted == Mux::MAX_WAITING);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(accepted, Mux::MAX_WAITING);
}

#[test]
fn a_prompt_never_opens_a_session() {
    let mut bench = bench();
    let desktop = bench.desktop_with(NONE);
    let guest = bench.phone_in("s");
    bench.desktop(desktop, request(1, "session/prompt", PROMPT));
    assert_eq!(reason(&outcome(bench.desktop_gets(desktop))), "no_such_session");
    phone(&mut bench, guest, phone_prompt(1));
    assert_eq!(reason(&bench.phone_gets(guest).1), "no_such_session");
    bench.nothing();
}

#[test]
fn a_cancel_that_comes_after_the_turn_of_its_sender_harms_no_other_turn() {
    let mut bench = bench();
    let one = bench.desktop_in("s", NONE);
    let other = bench.phone_in("s");
    let first = begin(&mut bench, one, 1);
    phone(&mut bench, other, phone_prompt(1));
    // The first turn ends, the second begins, and the first sender's stop arrives a millisecond later.
    bench.agent(result(&first, r#"{"stopReason":"end_turn"}"#));
    bench.all();
    bench.now += Duration::from_millis(1);
    bench.desktop(one, notice("session/cancel", CANCEL));
    bench.nothing();
    assert_eq!(bench.mux.dropped().late_cancels, 1);
    // Once the sender has had the other's turn in view, its stop means that one.
    bench.now += Mux::SEEN;
    bench.desktop(one, notice("session/cancel", CANCEL));
    assert_eq!(bench.agent_gets("session/cancel").1.unwrap(), json(CANCEL));
    bench.desktop(one, notice("session/cancel", CANCEL));
    bench.nothing();
}

#[test]
fn a_cancel_with_no_turn_is_dropped() {
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    bench.now += Duration::from_secs(60);
    bench.desktop(desktop, notice("session/cancel", CANCEL));
    bench.nothing();
    assert_eq!(bench.mux.dropped().late_cancels, 1);
}

#[test]
fn a_cancelled_turn_is_reported_so_whatever_the_agent_calls_it() {
    let answers = [
        result(0, r#"{"stopReason":"end_turn","usage":1}"#),
        result(0, r#"{"stopReason":"cancelled"}"#),
        result(0, "null"),
        refusal(0, Mux::CANCELLED),
    ];
    for answer in answers {
        let mut bench = bench();
        let desktop = bench.desktop_in("s", NONE);
        let number = begin(&mut bench, desktop, 1);
        bench.desktop(desktop, notice("session/cancel", CANCEL));
        bench.agent_gets("session/cancel");
        let Message::Response { outcome: answer, .. } = answer else { panic!() };
        bench.agent(Message::Response { id: number, outcome: answer });
        let told = outcome(bench.desktop_gets(desktop)).unwrap();
        assert_eq!(told.get("stopReason").unwrap().as_text(), Some("cancelled"));
        bench.nothing();
    }
    // An error that is no cancellation is still an error.
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    let number = begin(&mut bench, desktop, 1);
    bench.desktop(desktop, notice("session/cancel", CANCEL));
    bench.agent_gets("session/cancel");
    bench.agent(refusal(&number, -32603));
    assert_eq!(bench.desktop_gets(desktop), refusal(1, -32603));
}

#[test]
fn a_viewer_cancels_its_own_waiting_prompt_and_not_the_turn_of_another() {
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    let guest = bench.phone_in("s");
    begin(&mut bench, desktop, 1);
    bench.now += Duration::from_secs(60);
    phone(&mut bench, guest, phone_prompt(1));
    phone(&mut bench, guest, FromPhone::Cancel);
    assert_eq!(bench.phone_gets(guest), (RequestId::Number(1), Ok(json(r#"{"stopReason":"cancelled"}"#))));
    bench.nothing();
    phone(&mut bench, guest, phone_prompt(2));
    phone(&mut bench, guest, FromPhone::CancelRequest { id: RequestId::Number(2) });
    assert_eq!(bench.phone_gets(guest).1.unwrap_err().code, Mux::CANCELLED);
    bench.nothing();
}

#[test]
fn cancelling_a_request_reaches_the_agent_under_its_own_id() {
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    bench.desktop(desktop, request("x", "session/list", NONE));
    let number = bench.agent_gets("session/list").0;
    bench.desktop(desktop, notice("$/cancel_request", r#"{"requestId":1}"#));
    bench.nothing();
    bench.desktop(desktop, notice("$/cancel_request", r#"{"requestId":"x"}"#));
    assert_eq!(bench.agent_gets("$/cancel_request").1.unwrap().get("requestId"), Some(&number.to_json()));
    bench.agent(refusal(&number, Mux::CANCELLED));
    assert_eq!(bench.desktop_gets(desktop), refusal("x", Mux::CANCELLED));

    begin(&mut bench, desktop, 7);
    bench.desktop(desktop, notice("$/cancel_request", r#"{"requestId":7}"#));
    bench.agent_gets("session/cancel");
    bench.nothing();
}

#[test]
fn a_cancelled_turn_that_does_not_end_is_given_up_until_the_agent_ends_it() {
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    let guest = bench.phone_in("s");
    let number = begin(&mut bench, desktop, 1);
    phone(&mut bench, guest, phone_prompt(1));
    bench.now = Duration::from_secs(5);
    bench.desktop(desktop, notice("session/cancel", CANCEL));
    bench.agent_gets("session/cancel");
    let due = bench.mux.next_look().unwrap();
    assert_eq!(due, Duration::from_secs(35));
    bench.now = due - Duration::from_nanos(1);
    bench.look();
    bench.nothing();
    bench.now = due;
    bench.look();
    assert_eq!(bench.desktop_gets(desktop), result(1, r#"{"stopReason":"cancelled"}"#));
    assert_eq!(reason(&bench.phone_gets(guest).1), "stuck");
    assert_eq!(bench.mux.sessions().next().unwrap().turns, Turns::Stuck);
    assert_eq!(bench.mux.next_look(), None);
    bench.desktop(desktop, request(2, "session/prompt", PROMPT));
    assert_eq!(reason(&outcome(bench.desktop_gets(desktop))), "stuck");
    bench.agent(result(&number, r#"{"stopReason":"end_turn"}"#));
    bench.nothing();
    begin(&mut bench, desktop, 3);
}

#[test]
fn the_first_of_three_answers_counts_a_thousand_times() {
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    let phones = [bench.phone_in("s"), bench.phone_in("s")];
    for round in 0..1000_i64 {
        bench.agent(request(round, "session/request_permission", ASK));
        let Message::Request { id: RequestId::Number(question), .. } = bench.desktop_gets(desktop) else {
            panic!()
        };
        for guest in phones {
            assert!(matches!(bench.out.pop_front(), Some(Effect::Ask { viewer, question: q, .. })
                if viewer == guest && q == question));
        }
        // All three have answered before any of them hears of another's answer.
        let first = usize::try_from(round % 3).unwrap();
        for turn in 0..3 {
            let outcome = json(&selected(if turn == 0 { "yes" } else { "no" }));
            match (first + turn) % 3 {
                2 => bench.desktop(
                    desktop,
                    Message::Response { id: RequestId::Number(question), outcome: Ok(outcome) },
                ),
                at => phone(&mut bench, phones[at], FromPhone::Answer { question, outcome }),
            }
        }
        let all = bench.all();
        let upstream: Vec<_> = all.iter().filter(|effect| matches!(effect, Effect::ToAgent(_))).collect();
        assert_eq!(upstream, [&Effect::ToAgent(result(round, &selected("yes")))]);
        let late =
            all.iter().filter(|effect| matches!(effect, Effect::AlreadyResolved(_, q) if *q == question));
        assert_eq!(late.count(), 2);
        // The two were told, and then that they were late.
        assert_eq!(all.len(), 5);
    }
}

#[test]
fn only_an_option_that_was_offered_reaches_the_agent() {
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    let other = bench.desktop_in("s", NONE);
    bench.agent(request("q", "session/request_permission", ASK));
    let Message::Request { id, .. } = bench.desktop_gets(desktop) else { panic!() };
    bench.desktop_gets(other);
    bench.desktop(desktop, result(&id, &selected("always")));
    assert!(matches!(bench.all()[..], [Effect::NotOffered(viewer, _)] if viewer == desktop));
    // That desktop has answered; the other still has the question.
    bench.desktop(desktop, result(&id, &selected("yes")));
    assert!(matches!(bench.all()[..], [Effect::AlreadyResolved(viewer, _)] if viewer == desktop));
    let extra = r#"{"outcome":{"outcome":"selected","optionId":"no","more":1},"_meta":{}}"#;
    bench.desktop(other, result(&id, extra));
    assert_eq!(bench.answer_to_agent().1, Ok(json(&selected("no"))));
    bench.nothing();
}

#[test]
fn open_questions_are_cancelled_with_the_turn_and_at_its_end() {
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    let guest = bench.phone_in("s");
    let cancelled = Ok(json(r#"{"outcome":{"outcome":"cancelled"}}"#));
    for by_cancel in [true, false] {
        let number = begin(&mut bench, desktop, 1);
        bench.agent(request("q", "session/request_permission", ASK));
        bench.all();
        if by_cancel {
            bench.desktop(desktop, notice("session/cancel", CANCEL));
            bench.agent_gets("session/cancel");
        } else {
            bench.agent(result(&number, r#"{"stopReason":"end_turn"}"#));
        }
        assert!(
            matches!(bench.desktop_gets(desktop), Message::Notification { method, .. } if method == "$/cancel_request")
        );
        assert!(matches!(bench.out.pop_front(), Some(Effect::Retire(viewer, _)) if viewer == guest));
        assert_eq!(bench.answer_to_agent(), (RequestId::Text("q".to_owned()), cancelled.clone()));
        if by_cancel {
            // A question that it asks before it has heard of the cancel is shown to nobody.
            bench.agent(request("q", "session/request_permission", ASK));
            assert_eq!(bench.answer_to_agent().1, cancelled.clone());
            bench.agent(result(&number, r#"{"stopReason":"cancelled"}"#));
        }
        bench.desktop_gets(desktop);
        bench.nothing();
    }
}

#[test]
fn a_question_waits_for_somebody_to_come_and_not_for_ever() {
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    begin(&mut bench, desktop, 1);
    bench.leave(desktop);
    bench.agent(request("q", "session/request_permission", ASK));
    bench.nothing();
    assert_eq!(bench.mux.next_look(), Some(Duration::from_secs(120)));
    bench.now = Duration::from_secs(100);
    let guest = bench.phone_in("s");
    let Some(Effect::Ask { viewer, question, .. }) = bench.out.pop_front() else { panic!() };
    assert_eq!(viewer, guest);
    bench.nothing();
    assert_eq!(bench.mux.next_look(), None);
    // A phone that is not shown it does not have it.
    let effects = bench.mux.cannot_answer(guest, question, bench.now);
    bench.add(effects);
    bench.now = Duration::from_secs(219);
    bench.look();
    bench.nothing();
    bench.now = Duration::from_secs(220);
    bench.look();
    assert_eq!(bench.answer_to_agent().1, Ok(json(r#"{"outcome":{"outcome":"cancelled"}}"#)));
    bench.nothing();
}

#[test]
fn a_question_of_a_session_that_nobody_opened_does_not_wait() {
    let mut bench = bench();
    bench.desktop_in("s", NONE);
    bench.agent(request(1, "session/request_permission", &ASK.replace("\"s\"", "\"child\"")));
    assert_eq!(bench.answer_to_agent().1, Ok(json(r#"{"outcome":{"outcome":"cancelled"}}"#)));
    bench.agent(request(2, "session/request_permission", r#"{"sessionId":"s"}"#));
    assert_eq!(reason(&bench.answer_to_agent().1), "invalid_params");
    bench.agent(request(3, "mcp/message", r#"{"sessionId":"s"}"#));
    assert_eq!(bench.answer_to_agent().1.unwrap_err().code, RpcError::METHOD_NOT_FOUND);
    bench.nothing();
}

#[test]
fn the_agent_may_take_a_question_back() {
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    bench.agent(request("q", "session/request_permission", ASK));
    bench.all();
    bench.agent(notice("$/cancel_request", r#"{"requestId":"q"}"#));
    bench.desktop_gets(desktop);
    assert_eq!(bench.answer_to_agent().1.unwrap_err().code, Mux::CANCELLED);
    bench.nothing();
}

#[test]
fn files_and_terminals_are_for_one_desktop_that_serves_them_and_never_for_a_phone() {
    const FILES: &str = r#"{"fs":{"readTextFile":true},"terminal":true}"#;
    const READ: &str = r#"{"sessionId":"s","path":"/a"}"#;
    const TERMINAL: &str = r#"{"sessionId":"s","terminalId":"1"}"#;
    let mut bench = bench();
    let plain = bench.desktop_in("s", NONE);
    bench.phone_in("s");
    for method in ["fs/read_text_file", "fs/write_text_file", "terminal/create", "terminal/kill"] {
        bench.agent(request(method, method, READ));
        assert_eq!(reason(&bench.answer_to_agent().1), "nobody_there");
    }
    let first = bench.desktop_in("s", FILES);
    let second = bench.desktop_in("s", FILES);
    bench.agent(request(1, "fs/write_text_file", READ));
    assert_eq!(reason(&bench.answer_to_agent().1), "nobody_there");
    bench.agent(request(1, "terminal/create", READ));
    let Message::Request { id, method, params } = bench.desktop_gets(first) else { panic!() };
    assert_eq!((method.as_str(), params), ("terminal/create", Some(json(READ))));
    // Nobody else can answer it.
    bench.desktop(second, result(&id, r#"{"terminalId":"2"}"#));
    assert!(matches!(bench.all()[..], [Effect::AlreadyResolved(..)]));
    bench.desktop(first, result(&id, r#"{"terminalId":"1"}"#));
    assert_eq!(bench.answer_to_agent(), (RequestId::Number(1), Ok(json(r#"{"terminalId":"1"}"#))));
    bench.agent(request(2, "terminal/output", TERMINAL));
    bench.desktop_gets(first);
    bench.agent(request(3, "terminal/output", &TERMINAL.replace("\"1\"", "\"7\"")));
    assert_eq!(reason(&bench.answer_to_agent().1), "nobody_there");
    // It leaves: what it had is an error, and its terminals are not looked for elsewhere.
    bench.leave(first);
    assert_eq!(bench.answer_to_agent().0, RequestId::Number(2));
    bench.agent(request(4, "terminal/output", TERMINAL));
    assert_eq!(reason(&bench.answer_to_agent().1), "nobody_there");
    bench.agent(request(5, "fs/read_text_file", READ));
    let Message::Request { id, .. } = bench.desktop_gets(second) else { panic!() };
    bench.desktop(second, refusal(&id, -32002));
    assert_eq!(bench.answer_to_agent().1.unwrap_err().code, -32002);
    bench.leave(plain);
    bench.nothing();
}

#[test]
fn a_turn_goes_on_when_its_viewer_leaves_and_its_waiting_prompts_do_not() {
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    let guest = bench.phone_in("s");
    phone(&mut bench, guest, phone_prompt(1));
    let number = bench.agent_gets("session/prompt").0;
    bench.all();
    phone(&mut bench, guest, phone_prompt(2));
    bench.leave(guest);
    bench.agent(notice("session/update", &update("a")));
    assert_eq!(bench.desktop_gets(desktop), notice("session/update", &update("a")));
    assert_eq!(bench.mux.sessions().next().unwrap().turns, Turns::Running);
    bench.agent(result(&number, r#"{"stopReason":"end_turn"}"#));
    bench.nothing();
    assert_eq!(bench.mux.sessions().next().unwrap().turns, Turns::Idle);
}

#[test]
fn updates_before_the_result_that_names_their_session_come_after_it() {
    let mut bench = bench();
    let desktop = bench.desktop_with(NONE);
    let other = bench.desktop_with(NONE);
    bench.agent(notice("session/update", &update("nobody")));
    assert_eq!(bench.mux.dropped().strange_updates, 1);
    bench.desktop(desktop, request(1, "session/new", r#"{"cwd":"/home","mcpServers":[]}"#));
    let number = bench.agent_gets("session/new").0;
    bench.agent(notice("session/update", &update("early")));
    bench.agent(notice("session/update", &update("other").replace("\"s\"", "\"x\"")));
    bench.nothing();
    bench.agent(result(&number, r#"{"sessionId":"s"}"#));
    assert_eq!(bench.desktop_gets(desktop), result(1, r#"{"sessionId":"s"}"#));
    assert_eq!(bench.desktop_gets(desktop), notice("session/update", &update("early")));
    bench.nothing();
    assert_eq!(bench.mux.dropped().strange_updates, 2);
    assert_eq!(bench.mux.sessions().next().unwrap().cwd.as_deref(), Some("/home"));
    // Only who has the session hears of it.
    bench.agent(notice("session/update", &update("live")));
    bench.desktop_gets(desktop);
    bench.nothing();
    let _ = other;
}

#[test]
fn updates_that_nobody_can_place_yet_are_bounded() {
    let mut bench = bench();
    let desktop = bench.desktop_with(NONE);
    bench.desktop(desktop, request(1, "session/new", NONE));
    let number = bench.agent_gets("session/new").0;
    let long = update(&"x".repeat(10_000));
    for _ in 0..200 {
        bench.agent(notice("session/update", &long));
    }
    let dropped = bench.mux.dropped().strange_updates;
    assert!((90..110).contains(&dropped), "{dropped}");
    bench.agent(result(&number, r#"{"sessionId":"s"}"#));
    assert_eq!(bench.all().len(), 1 + 200 - usize::try_from(dropped).unwrap());
}

#[test]
fn what_a_load_replays_goes_to_who_asked_and_what_a_resume_replays_to_nobody() {
    let mut bench = bench();
    let desktop = bench.desktop_with(NONE);
    let guest = bench.phone_in("s");
    bench.desktop(desktop, request(1, "session/load", r#"{"sessionId":"s","cwd":"/","mcpServers":[]}"#));
    let number = bench.agent_gets("session/load").0;
    bench.agent(notice("session/update", &user("past")));
    assert_eq!(bench.desktop_gets(desktop), notice("session/update", &user("past")));
    let plan = r#"{"sessionId":"s","update":{"sessionUpdate":"plan","entries":[]}}"#;
    bench.agent(notice("session/update", plan));
    assert_eq!(bench.desktop_gets(desktop), notice("session/update", plan));
    let other = bench.desktop_with(NONE);
    bench.desktop(other, request(1, "session/load", r#"{"sessionId":"s"}"#));
    assert_eq!(reason(&outcome(bench.desktop_gets(other))), "opening");
    bench.agent(result(&number, r#"{"modes":{"currentModeId":"ask","availableModes":[]}}"#));
    let loaded = r#"{"modes":{"currentModeId":"ask","availableModes":[]}}"#;
    assert_eq!(bench.desktop_gets(desktop), result(1, loaded));
    // The phone that was there before the session is told how it stands.
    assert_eq!(bench.all(), [Effect::Update(guest, Arc::new(json(plan)))]);
    // A session that lives is not loaded again: the second gets the same from here.
    bench.desktop(other, request(2, "session/load", r#"{"sessionId":"s"}"#));
    assert_eq!(bench.desktop_gets(other), notice("session/update", &user("past")));
    assert_eq!(bench.desktop_gets(other), result(2, loaded));
    assert_eq!(bench.desktop_gets(other), notice("session/update", plan));
    phone(&mut bench, guest, FromPhone::Request { id: RequestId::Null, asked: Asked::Load });
    assert_eq!(bench.out.pop_front(), Some(Effect::Replay(guest, Arc::new(json(&user("past"))))));
    assert_eq!(bench.phone_gets(guest).1, Ok(json(loaded)));
    phone(&mut bench, guest, FromPhone::Request { id: RequestId::Null, asked: Asked::Resume });
    assert_eq!(bench.phone_gets(guest).1, Ok(json(loaded)));
    bench.nothing();

    let early = bench.phone_in("r");
    bench.desktop(desktop, request(3, "session/resume", r#"{"sessionId":"r"}"#));
    let number = bench.agent_gets("session/resume").0;
    bench.agent(notice("session/update", &update("again").replace("\"s\"", "\"r\"")));
    bench.agent(result(&number, "null"));
    assert_eq!(bench.desktop_gets(desktop), result(3, "null"));
    bench.nothing();
    let live = update("live").replace("\"s\"", "\"r\"");
    bench.agent(notice("session/update", &live));
    assert_eq!(bench.desktop_gets(desktop), notice("session/update", &live));
    assert_eq!(bench.all(), [Effect::Update(early, Arc::new(json(&live)))]);
}

#[test]
fn a_session_that_cannot_be_loaded_is_not_there() {
    let mut bench = bench();
    let desktop = bench.desktop_with(NONE);
    bench.desktop(desktop, request(1, "session/load", r#"{"sessionId":"s"}"#));
    let number = bench.agent_gets("session/load").0;
    bench.agent(refusal(&number, -32002));
    assert_eq!(bench.desktop_gets(desktop), refusal(1, -32002));
    assert_eq!(bench.mux.sessions().count(), 0);
    bench.desktop(desktop, request(2, "session/prompt", PROMPT));
    assert_eq!(reason(&outcome(bench.desktop_gets(desktop))), "no_such_session");
}

#[test]
fn who_comes_later_gets_the_state_then_the_open_questions_then_what_happens() {
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    let info = |text: &str| {
        format!(r#"{{"sessionId":"s","update":{{"sessionUpdate":"session_info_update",{text}}}}}"#)
    };
    bench.agent(notice("session/update", &info(r#""title":"Tests""#)));
    bench.agent(notice("session/update", &info(r#""updatedAt":"now""#)));
    bench.agent(notice("session/update", &update("words")));
    bench.agent(request("q", "session/request_permission", ASK));
    bench.all();
    assert_eq!(bench.mux.sessions().next().unwrap().title.as_deref(), Some("Tests"));
    let guest = bench.phone_in("s");
    let all = bench.all();
    let both = Arc::new(json(&info(r#""updatedAt":"now","title":"Tests""#)));
    assert_eq!(all[0], Effect::Update(guest, both));
    assert!(matches!(all[1], Effect::Ask { viewer, .. } if viewer == guest));
    assert_eq!(all.len(), 2);
    let _ = desktop;
}

#[test]
fn a_change_of_mode_or_options_is_told_to_the_others() {
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    let other = bench.desktop_in("s", NONE);
    let guest = bench.phone_in("s");
    bench.desktop(desktop, request(1, "session/set_mode", r#"{"sessionId":"s","modeId":"code"}"#));
    let number = bench.agent_gets("session/set_mode").0;
    bench.agent(result(&number, NONE));
    assert_eq!(bench.desktop_gets(desktop), result(1, NONE));
    let told = r#"{"sessionId":"s","update":{"sessionUpdate":"current_mode_update","currentModeId":"code"}}"#;
    assert_eq!(bench.desktop_gets(other), notice("session/update", told));
    assert_eq!(bench.out.pop_front(), Some(Effect::Update(guest, Arc::new(json(told)))));
    let options = r#"{"configOptions":[{"id":"m"}]}"#;
    bench.desktop(other, request(1, "session/set_config_option", r#"{"sessionId":"s"}"#));
    let number = bench.agent_gets("session/set_config_option").0;
    bench.agent(result(&number, options));
    let told =
        r#"{"sessionId":"s","update":{"sessionUpdate":"config_option_update","configOptions":[{"id":"m"}]}}"#;
    assert_eq!(bench.desktop_gets(other), result(1, options));
    assert_eq!(bench.desktop_gets(desktop), notice("session/update", told));
    bench.all();
    // One that was refused is not.
    bench.desktop(desktop, request(2, "session/set_mode", r#"{"sessionId":"s","modeId":"x"}"#));
    let number = bench.agent_gets("session/set_mode").0;
    bench.agent(refusal(&number, -32602));
    assert_eq!(bench.desktop_gets(desktop), refusal(2, -32602));
    bench.nothing();
}

#[test]
fn closing_a_session_that_others_have_takes_it_from_nobody_else() {
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    let guest = bench.phone_in("s");
    bench.desktop(desktop, request(1, "session/delete", CANCEL));
    assert_eq!(reason(&outcome(bench.desktop_gets(desktop))), "in_use");
    bench.desktop(desktop, request(1, "session/close", CANCEL));
    assert_eq!(bench.desktop_gets(desktop), result(1, NONE));
    bench.agent(notice("session/update", &update("a")));
    assert_eq!(bench.out.pop_front(), Some(Effect::Update(guest, Arc::new(json(&update("a"))))));
    bench.nothing();
    bench.leave(guest);
    let desktop = bench.desktop_in("s", NONE);
    begin(&mut bench, desktop, 5);
    bench.desktop(desktop, request(1, "session/close", CANCEL));
    let number = bench.agent_gets("session/close").0;
    bench.agent(result(&number, NONE));
    assert_eq!(bench.desktop_gets(desktop), result(1, NONE));
    // The turn that ran there has an answer.
    assert_eq!(bench.desktop_gets(desktop), result(5, r#"{"stopReason":"cancelled"}"#));
    assert_eq!(bench.mux.sessions().count(), 0);
    bench.nothing();
}

#[test]
fn a_question_is_taken_back_from_a_desktop_that_leaves_its_session_and_comes_again_under_a_new_number() {
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    let guest = bench.phone_in("s");
    bench.agent(request("q", "session/request_permission", ASK));
    let first = match bench.desktop_gets(desktop) {
        Message::Request { id: RequestId::Number(number), .. } => number,
        other => panic!("{other:?}"),
    };
    assert!(matches!(bench.out.pop_front(), Some(Effect::Ask { viewer, .. }) if viewer == guest));
    bench.desktop(desktop, request(1, "session/close", CANCEL));
    assert_eq!(
        bench.desktop_gets(desktop),
        notice("$/cancel_request", &format!(r#"{{"requestId":{first}}}"#))
    );
    assert_eq!(bench.desktop_gets(desktop), result(1, NONE));
    bench.desktop(desktop, request(2, "session/resume", CANCEL));
    assert_eq!(bench.desktop_gets(desktop), result(2, NONE));
    let second = match bench.desktop_gets(desktop) {
        Message::Request { id: RequestId::Number(number), .. } => number,
        other => panic!("{other:?}"),
    };
    assert_ne!(first, second);
    // The answer to what was taken back arrives now, and does not count for the second.
    bench.desktop(desktop, refusal(first, -32800));
    bench.nothing();
    bench.desktop(desktop, result(second, &selected("no")));
    assert!(matches!(bench.out.pop_front(), Some(Effect::Retire(viewer, _)) if viewer == guest));
    assert_eq!(bench.answer_to_agent(), (RequestId::Text("q".to_owned()), Ok(json(&selected("no")))));
    bench.nothing();
}

#[test]
fn a_message_of_the_agent_that_cannot_be_read_leaves_nobody_waiting() {
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    begin(&mut bench, desktop, 1);
    let begun = bench.mux.sessions().next().unwrap().turns;
    assert_eq!(begun, Turns::Running);
    bench.desktop(desktop, request(2, "session/list", NONE));
    let RequestId::Number(number) = bench.agent_gets("session/list").0 else { panic!() };
    for upstream in [number, number - 1] {
        let effects = bench.mux.unreadable(Unreadable::Answer(RequestId::Number(upstream)), bench.now);
        bench.add(effects);
        assert_eq!(reason(&outcome(bench.desktop_gets(desktop))), "unreadable");
    }
    assert_eq!(bench.mux.sessions().next().unwrap().turns, Turns::Idle);
    let id = RequestId::Text("q".to_owned());
    let effects = bench.mux.unreadable(Unreadable::Request(id.clone()), bench.now);
    bench.add(effects);
    let (answered, outcome) = bench.answer_to_agent();
    assert_eq!((answered, reason(&outcome)), (id.clone(), "unreadable"));
    // A request under an id that is in use: its answer would be taken for that of the other.
    bench.agent(request("q", "session/request_permission", ASK));
    bench.desktop_gets(desktop);
    let effects = bench.mux.unreadable(Unreadable::Request(id), bench.now);
    bench.add(effects);
    bench.nothing();
}

#[test]
fn requests_of_the_agent_are_bounded_together_in_bytes() {
    let mut bench = bench();
    bench.desktop_in("s", NONE);
    let long = "x".repeat(7 << 20);
    for number in 0..4 {
        bench.agent(large(request(number, "session/request_permission", ASK), &long));
    }
    assert_eq!(bench.all().len(), 4);
    bench.agent(large(request(4, "session/request_permission", ASK), &long));
    assert_eq!(reason(&bench.answer_to_agent().1), "too_many");
    bench.agent(request(5, "session/request_permission", ASK));
    assert_eq!(bench.all().len(), 1);
}

/// A request with a title of this length.
fn large(message: Message, title: &str) -> Message {
    match message {
        Message::Request { id, method, params: Some(Json::Object(mut entries)) } => {
            entries.push(("title".to_owned(), Json::text(title)));
            Message::Request { id, method, params: Some(Json::Object(entries)) }
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_agent_that_ends_in_mid_turn_answers_everybody() {
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    let guest = bench.phone_in("s");
    begin(&mut bench, desktop, 1);
    phone(&mut bench, guest, phone_prompt(1));
    bench.desktop(desktop, request(2, "session/list", NONE));
    bench.agent(request("q", "session/request_permission", ASK));
    bench.all();
    let effects = bench.mux.agent_gone();
    bench.add(effects);
    bench.desktop_gets(desktop);
    assert!(matches!(bench.out.pop_front(), Some(Effect::Retire(viewer, _)) if viewer == guest));
    for _ in 0..2 {
        assert_eq!(reason(&outcome(bench.desktop_gets(desktop))), "agent_gone");
    }
    assert_eq!(reason(&bench.phone_gets(guest).1), "agent_gone");
    bench.nothing();
    phone(&mut bench, guest, phone_prompt(1));
    assert_eq!(reason(&bench.phone_gets(guest).1), "agent_gone");
    bench.desktop(desktop, request(3, "session/new", NONE));
    assert_eq!(reason(&outcome(bench.desktop_gets(desktop))), "agent_gone");
    assert_eq!(bench.mux.agent_gone(), []);
    bench.agent(notice("session/update", &update("ghost")));
    bench.nothing();
}

#[test]
fn a_viewer_and_an_agent_that_answers_nothing_are_bounded() {
    let mut bench = bench();
    let mut refused = 0;
    for _ in 0..20 {
        let desktop = bench.desktop_with(NONE);
        for id in 0..=i64::try_from(Mux::MAX_OPEN).unwrap() {
            bench.desktop(desktop, request(id, "session/list", NONE));
            if !matches!(bench.out.pop_front(), Some(Effect::ToAgent(_))) {
                refused += 1;
            }
        }
        bench.leave(desktop);
    }
    assert_eq!(refused, 20 * (Mux::MAX_OPEN + 1) - Mux::MAX_UPSTREAM);
    let mut bench = self::bench();
    let desktop = bench.desktop_in("s", NONE);
    for expected in ["", "id_in_use"] {
        bench.desktop(desktop, request(0, "session/list", NONE));
        match bench.out.pop_front() {
            Some(Effect::ToDesktop(_, message)) => assert_eq!(reason(&outcome(message)), expected),
            _ => assert_eq!(expected, ""),
        }
    }
    for id in 0..=i64::try_from(Mux::MAX_QUESTIONS).unwrap() {
        bench.agent(request(id, "session/request_permission", ASK));
    }
    let last = bench.all().pop().unwrap();
    assert!(
        matches!(last, Effect::ToAgent(Message::Response { outcome, .. }) if reason(&outcome) == "too_many")
    );
    let _ = desktop;
}

#[test]
fn the_past_that_a_session_keeps_is_bounded_and_the_oldest_goes_first() {
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    let rounds = Mux::MAX_TRANSCRIPT / 100_000 + 10;
    for round in 0..rounds {
        bench.agent(notice("session/update", &update(&format!("{round} {}", "x".repeat(100_000)))));
    }
    bench.all();
    let guest = bench.phone_in("s");
    phone(&mut bench, guest, FromPhone::Request { id: RequestId::Null, asked: Asked::Load });
    let kept = bench.all();
    let text = |effect: &Effect| match effect {
        Effect::Replay(_, params) => params.to_text(),
        _ => String::new(),
    };
    assert!((rounds - 15..rounds - 5).contains(&kept.len()), "{}", kept.len());
    assert!(text(&kept[kept.len() - 2]).contains(&format!("\"{} x", rounds - 1)));
    assert!(!text(&kept[0]).contains("\"0 x"));
    let _ = desktop;
}

#[test]
fn a_phone_of_a_session_that_was_closed_has_no_part_in_one_of_the_same_id_that_is_opened_later() {
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    bench.desktop(desktop, request(1, "session/close", CANCEL));
    let number = bench.agent_gets("session/close").0;
    // It comes while the agent closes the session.
    let guest = bench.phone_in("s");
    bench.agent(result(&number, NONE));
    assert_eq!(bench.desktop_gets(desktop), result(1, NONE));
    bench.desktop_in("s", NONE);
    bench.agent(notice("session/update", &update("secret")));
    bench.agent(request("q", "session/request_permission", ASK));
    let all = bench.all();
    let reaches_the_phone = |effect: &Effect| match effect {
        Effect::Update(to, _) | Effect::Replay(to, _) => *to == guest,
        Effect::Ask { viewer, .. } => *viewer == guest,
        _ => false,
    };
    assert!(!all.iter().any(reaches_the_phone), "{all:?}");
    phone(&mut bench, guest, phone_prompt(1));
    assert_eq!(reason(&bench.phone_gets(guest).1), "no_such_session");
    for (id, asked) in [(2, Asked::Load), (3, Asked::Resume)] {
        phone(&mut bench, guest, FromPhone::Request { id: RequestId::Number(id), asked });
        assert_eq!(reason(&bench.phone_gets(guest).1), "no_such_session");
    }
    phone(&mut bench, guest, FromPhone::Cancel);
    bench.nothing();
}

#[test]
fn a_request_for_permission_says_that_its_tool_call_changes_the_mode_where_an_update_has_said_so() {
    let mut bench = bench();
    let desktop = bench.desktop_in("s", NONE);
    let call = |id: &str, kind: &str| {
        format!(
            r#"{{"sessionId":"s","update":{{"sessionUpdate":"tool_call","toolCallId":"{id}","title":"x","kind":"{kind}"}}}}"#
        )
    };
    bench.agent(notice("session/update", &call("plan", "switch_mode")));
    bench.agent(notice("session/update", &call("t", "edit")));
    bench.all();
    let guest = bench.phone_in("s");
    for (id, expected) in [("plan", Some("switch_mode")), ("t", None)] {
        let ask = ASK.replace(r#""toolCallId":"t""#, &format!(r#""toolCallId":"{id}""#));
        bench.agent(request(id, "session/request_permission", &ask));
        bench.desktop_gets(desktop);
        match bench.out.pop_front() {
            Some(Effect::Ask { viewer, params, .. }) if viewer == guest => {
                let kind = params.get("toolCall").and_then(|call| call.get("kind")).and_then(Json::as_text);
                assert_eq!(kind, expected, "{id}");
            }
            other => panic!("{other:?}"),
        }
    }
    // At most so many are remembered, and the last ones are.
    for number in 0..=Mux::MAX_MODE_SWITCHES {
        bench.agent(notice("session/update", &call(&number.to_string(), "switch_mode")));
    }
    bench.all();
    for (id, is_known) in [("plan", false), ("0", false), ("1", true), ("64", true)] {
        let ask = ASK.replace(r#""toolCallId":"t""#, &format!(r#""toolCallId":"{id}""#));
        bench.agent(request(format!("again {id}").as_str(), "session/request_permission", &ask));
        let shown = format!("{:?}", bench.all());
        assert_eq!(shown.contains("switch_mode"), is_known, "{id}");
    }
}
