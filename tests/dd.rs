//! The adapter of the deployed agents' requests: each method, and what each check refuses.
#![cfg(feature = "dd")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use serde_json::{Value, json};
use sessioncap::dd::*;
use sessioncap::{Action, Op, Privilege, SessionId};

fn own() -> SessionId {
    SessionId::new("3f0c8f0e-5f0b-4a53-9a58-0d6f3c1c9e55").unwrap()
}

fn read(request: &Value) -> Result<Request, Refusal> {
    Request::read(request.to_string().as_bytes(), &own())
}

fn served() -> Vec<(Value, Op, Request)> {
    let id = own();
    vec![
        (json!({ "method": "shell.list_sessions" }), Op::ReadMetadata, Request::ListSessions),
        (
            json!({ "method": "shell.attach_session", "id": id }),
            Op::StreamOutput,
            Request::AttachSession { tail: false },
        ),
        (
            json!({ "method": "shell.attach_session", "id": id, "tail": true }),
            Op::StreamOutput,
            Request::AttachSession { tail: true },
        ),
        (json!({ "method": "shell.replay_session", "id": id }), Op::ReadHistory, Request::ReplaySession),
        (
            json!({ "method": "shell.resize_session", "id": id, "cols": 80, "rows": 24 }),
            Op::Resize,
            Request::ResizeSession { cols: 80, rows: 24 },
        ),
    ]
}

#[test]
fn every_method_that_is_served_needs_the_operation_of_its_row_and_is_written_with_the_own_session() {
    for (asked, op, request) in served() {
        assert_eq!(read(&asked), Ok(request), "{asked}");
        assert_eq!(request.action(), Action::Session(op));
        assert_eq!(action_of(asked["method"].as_str().unwrap()), Some(Action::Session(op)));
        let mut without_id = asked.clone();
        without_id.as_object_mut().unwrap().remove("id");
        assert_eq!(read(&without_id), Ok(request), "the credential names it");
        let written: Value = serde_json::from_str(&request.to_text(&own())).unwrap();
        let mut expected = asked.clone();
        if let Request::AttachSession { tail } = request {
            expected["tail"] = json!(tail);
        }
        assert_eq!(written, expected);
    }
}

#[test]
fn every_privileged_method_is_refused_whatever_its_parameters() {
    use Privilege::{Administer, CreateSession, DiscoverFleet, Enroll, ExecuteOutsideSession};
    for (privilege, methods) in [
        (DiscoverFleet, &["shell.list_recipes", "list", "logs", "health", "attest"][..]),
        (CreateSession, &["shell.create_session"]),
        (ExecuteOutsideSession, &["exec", "attach"]),
        (Administer, &["shell.close_session", "deploy"]),
        (
            Enroll,
            &["pair.register_issuer", "pair.offer", "pair.confirm", "pair.renew", "pair.list", "pair.revoke"],
        ),
    ] {
        for method in methods {
            for asked in
                [json!({ "method": method }), json!({ "method": method, "id": own(), "cmd": ["sh"] })]
            {
                assert_eq!(read(&asked), Err(Refusal::Privileged(privilege)), "{asked}");
            }
        }
    }
}

#[test]
fn what_is_no_method_is_unknown() {
    for method in ["", "shell.list_sessions ", "Shell.list_sessions", "shell.detach", "session/prompt"] {
        let refusal = Refusal::UnknownMethod { method: method.to_owned() };
        assert_eq!((read(&json!({ "method": method })), action_of(method)), (Err(refusal), None));
    }
    assert_eq!(read(&json!({ "method": "m".repeat(257) })), Err(Refusal::Malformed));
}

#[test]
fn an_id_is_the_sessions_byte_for_byte_or_missing() {
    let upper = own().to_string().to_uppercase();
    let behind = format!("{} notail", own());
    for (asked, ..) in served().into_iter().skip(1) {
        for id in [
            json!("../sessions?x="),
            json!("OTHER/close#"),
            json!(""),
            json!("."),
            json!(upper),
            json!(behind),
            json!(null),
            json!([own()]),
            json!({ "id": own() }),
        ] {
            let mut other = asked.clone();
            other["id"] = id;
            assert_eq!(read(&other), Err(Refusal::OtherSession), "{other}");
        }
    }
}

#[test]
fn unknown_and_malformed_parameters_are_refused() {
    for (asked, ..) in served() {
        for key in ["readonly", "clipboard", "session_id", "_meta"] {
            let mut more = asked.clone();
            more[key] = json!(true);
            assert_eq!(read(&more), Err(Refusal::Parameters), "{more}");
        }
    }
    let list = json!({ "method": "shell.list_sessions", "id": own() });
    assert_eq!(read(&list), Err(Refusal::Parameters));
    for side in [json!(0), json!(1_001), json!(-1), json!(65_536 + 80), json!(80.0), json!("80"), json!(null)]
    {
        for key in ["cols", "rows"] {
            let mut asked = json!({ "method": "shell.resize_session", "cols": 80, "rows": 24 });
            asked[key] = side.clone();
            assert_eq!(read(&asked), Err(Refusal::Parameters), "{asked}");
            asked.as_object_mut().unwrap().remove(key);
            assert_eq!(read(&asked), Err(Refusal::Parameters), "{asked}");
        }
    }
    let tail = json!({ "method": "shell.attach_session", "tail": "false" });
    assert_eq!(read(&tail), Err(Refusal::Parameters));
}

#[test]
fn a_request_is_one_object_with_each_key_once() {
    let deep = format!(r#"{{"method":"shell.list_sessions","x":{}{}}}"#, "[".repeat(16), "]".repeat(16));
    for text in [
        "",
        "{}",
        "[]",
        "\"shell.list_sessions\"",
        r#"[{"method":"shell.list_sessions"}]"#,
        r#"{"method":1}"#,
        r#"{"method":null}"#,
        r#"{"method":"shell.list_sessions"} "#.trim_end_matches("} "),
        r#"{"method":"shell.list_sessions"}{}"#,
        r#"{"method":"exec","method":"shell.list_sessions"}"#,
        r#"{"method":"shell.list_sessions","\u006dethod":"exec"}"#,
        r#"{"method":"shell.replay_session","id":"a","id":"b"}"#,
        deep.as_str(),
    ] {
        assert_eq!(Request::read(text.as_bytes(), &own()), Err(Refusal::Malformed), "{text}");
    }
    let long = json!({ "method": "shell.list_sessions", "x": "x".repeat(Request::MAX_LEN) });
    assert_eq!(read(&long), Err(Refusal::Malformed));
}

fn answer(request: Request, answer: &Value) -> Value {
    serde_json::from_str(&request.answer(answer.to_string().as_bytes(), &own()).unwrap()).unwrap()
}

#[test]
fn a_list_has_the_own_entry_without_command_line_and_directory() {
    let entry = |id: &str| {
        json!({ "id": id, "name": "n", "cols": 80, "rows": 24, "created_at_ms": 7, "running": true,
            "command": "psql -p secret", "cwd": "/home/me", "pid": 1, "env": { "KEY": "secret" } })
    };
    let own = own();
    let all = json!({ "ok": true, "sessions": [entry("other"), entry(own.as_str())], "host": "h" });
    let shown = json!({ "ok": true, "sessions": [
        { "id": own, "name": "n", "cols": 80, "rows": 24, "created_at_ms": 7, "running": true }] });
    assert_eq!(answer(Request::ListSessions, &all), shown);
    for nothing in [json!({ "sessions": [entry("other")] }), json!({ "sessions": {} }), json!({})] {
        assert_eq!(answer(Request::ListSessions, &nothing), json!({ "ok": true, "sessions": [] }));
    }
    let odd = json!({ "sessions": [{ "id": own, "name": { "secret": 1 }, "running": "yes" }] });
    assert_eq!(answer(Request::ListSessions, &odd), json!({ "ok": true, "sessions": [{ "id": own }] }));
}

#[test]
fn other_answers_have_the_keys_of_their_method_and_errors_their_code() {
    let replay = json!({ "ok": true, "id": "other", "data": "aGk=", "truncated": false, "path": "/log" });
    assert_eq!(
        answer(Request::ReplaySession, &replay),
        json!({ "ok": true, "id": own(), "data": "aGk=", "truncated": false })
    );
    for request in [Request::ResizeSession { cols: 1, rows: 1 }, Request::AttachSession { tail: true }] {
        assert_eq!(answer(request, &json!({ "ok": true, "sessions": ["other"] })), json!({ "ok": true }));
    }
    let failed = json!({ "error": "shell_failed", "detail": format!("no\u{1b}[2J{}", "x".repeat(2_000)), "path": "/" });
    let shown = answer(Request::ReplaySession, &failed);
    assert_eq!((&shown["error"], shown.as_object().unwrap().len()), (&json!("shell_failed"), 2));
    assert_eq!(shown["detail"].as_str().unwrap().len(), 1_024);
    for malformed in ["", "[]", "1", r#"{"ok":true,"ok":true}"#] {
        assert!(Request::ListSessions.answer(malformed.as_bytes(), &own()).is_err(), "{malformed}");
    }
}

#[test]
fn refusals_have_codes_that_stay_and_texts_that_help() {
    for (refusal, code) in [
        (Refusal::Privileged(Privilege::CreateSession), "privilege_denied"),
        (Refusal::OtherSession, "other_session"),
        (Refusal::UnknownMethod { method: "x".to_owned() }, "unknown_method"),
        (Refusal::Parameters, "parameters"),
        (Refusal::Malformed, "malformed"),
    ] {
        assert_eq!(refusal.code(), code);
        let text = refusal.to_string();
        assert!(text.contains(';') && !text.ends_with('.'), "{text}");
    }
}
