//! The adapter of the Agent Client Protocol: each row of its table, and what each of its checks refuses.
#![cfg(feature = "acp")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use serde_json::{Value, json};
use sessioncap::acp::*;
use sessioncap::session::SessionNotice;
use sessioncap::{Action, EndCode, Op, OpSet, Privilege, SessionId};

const UPSTREAM: &str = "agent session/1";

fn guest() -> Guest {
    guest_with(OpSet::ALL)
}

fn guest_with(ops: OpSet) -> Guest {
    Guest::new(SessionId::new("mine").unwrap(), AcpSessionId::new(UPSTREAM).unwrap(), ops)
}

fn read(guest: &Guest, message: &Value) -> Result<FromPhone, Refusal> {
    guest.read(message.to_string().as_bytes())
}

fn request(method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
}

fn notification(method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "method": method, "params": params })
}

fn reason(guest: &Guest, message: &Value) -> Reason {
    match read(guest, message) {
        Err(refusal) => refusal.reason,
        Ok(read) => panic!("{message} reads as {read:?}"),
    }
}

fn params(value: &Value) -> Json {
    let message = Message::from_bytes(notification("x", value.clone()).to_string().as_bytes()).unwrap();
    match message {
        Message::Notification { params: Some(params), .. } => params,
        other => panic!("{other:?}"),
    }
}

fn shown(sent: Option<ToPhone>) -> (Op, Value) {
    let sent = sent.expect("it is for the phone");
    (sent.op, serde_json::from_str(&sent.text).unwrap())
}

fn prompt() -> Value {
    json!({ "sessionId": "mine", "prompt": [{ "type": "text", "text": "hello" }] })
}

/// Each method that is served: what it needs, with parameters that are enough.
fn served() -> Vec<(Value, Op)> {
    vec![
        (request("session/prompt", prompt()), Op::SendInput),
        (request("session/list", json!({})), Op::ReadMetadata),
        (request("session/status", json!({ "sessionId": "mine" })), Op::ReadMetadata),
        (
            request("session/resume", json!({ "sessionId": "mine", "cwd": "/", "mcpServers": [] })),
            Op::StreamOutput,
        ),
        (
            request("session/load", json!({ "sessionId": "mine", "cwd": "/", "mcpServers": [] })),
            Op::ReadHistory,
        ),
        (notification("session/cancel", json!({ "sessionId": "mine" })), Op::Interrupt),
    ]
}

#[test]
fn every_method_that_is_served_needs_the_operation_of_its_row() {
    let guest = guest();
    for (message, op) in served() {
        let read = read(&guest, &message).unwrap_or_else(|refusal| panic!("{message}: {refusal:?}"));
        assert_eq!(guest.action(&read), Action::Session(op), "{message}");
    }
}

#[test]
fn what_concerns_the_connection_alone_needs_any_operation_that_the_phone_has() {
    for message in [
        request("initialize", json!({ "protocolVersion": 1 })),
        request("authenticate", json!({ "methodId": "link" })),
        request("auth/login", json!({ "methodId": "link" })),
        request("logout", json!({})),
        request("auth/logout", json!({})),
        request("auth/status", json!({})),
    ] {
        for op in Op::ALL {
            let guest = guest_with(OpSet::only(*op));
            let read = read(&guest, &message).unwrap();
            assert_eq!(guest.action(&read), Action::Session(*op), "{message}");
            assert_eq!(read.upstream(guest.upstream()), None, "{message}");
        }
    }
}

#[test]
fn every_privileged_method_is_refused_as_request_and_as_notification_whatever_its_parameters() {
    use Privilege::{
        AccessFiles, Administer, Configure, CreateSession, DiscoverFleet, ExecuteOutsideSession,
    };
    let rows = [
        (CreateSession, &["session/new", "session/fork", "orchestrate.explore.start"][..]),
        (
            Administer,
            &[
                "session/close",
                "session/delete",
                "session/archive",
                "session/unarchive",
                "proxy/initialize",
                "proxy/successor",
                "tinyvex/history.deleteSession",
                "scheduler.run",
            ],
        ),
        (
            Configure,
            &[
                "session/set_mode",
                "session/set_config_option",
                "session/set_title",
                "session/options",
                "providers/list",
                "providers/set",
                "providers/disable",
                "tinyvex/history.setSessionTitle",
                "tinyvex/history.clearSessionTitle",
                "orchestrate/config.set",
                "setup.status",
            ],
        ),
        (
            ExecuteOutsideSession,
            &[
                "mcp/message",
                "mcp/connect",
                "mcp/disconnect",
                "terminal/create",
                "terminal/output",
                "terminal/release",
                "terminal/wait_for_exit",
                "terminal/kill",
                "terminal/run",
            ],
        ),
        (AccessFiles, &["fs/read_text_file", "fs/write_text_file"]),
        (
            DiscoverFleet,
            &["tinyvex/history.recentSessions", "threads/list", "thread/load_latest_typed", "index.status"],
        ),
    ];
    let guest = guest();
    for (privilege, methods) in rows {
        for method in methods {
            for parameters in
                [json!({}), json!({ "sessionId": "mine" }), json!({ "sessionId": "theirs" }), json!([1])]
            {
                for message in [request(method, parameters.clone()), notification(method, parameters)] {
                    assert_eq!(reason(&guest, &message), Reason::Privileged(privilege), "{message}");
                }
            }
        }
    }
}

#[test]
fn methods_of_drafts_and_of_version_2_alone_are_not_served() {
    for (method, op) in [
        ("tool_call/cancel", Op::Interrupt),
        ("terminal/cancel", Op::Interrupt),
        ("session/attach", Op::StreamOutput),
        ("session/detach", Op::Detach),
        ("tinyvex/history.sessionTimeline", Op::ReadHistory),
        ("tinyvex/history.getSessionTitle", Op::ReadMetadata),
    ] {
        let asked = request(method, json!({ "sessionId": "mine" }));
        assert_eq!(reason(&guest(), &asked), Reason::Unserved(op), "{method}");
    }
}

#[test]
fn unknown_methods_and_methods_of_the_other_kind_are_unknown() {
    let guest = guest();
    for message in [
        request("session/update", json!({ "sessionId": "mine" })),
        request("session/request_permission", json!({})),
        request("elicitation/create", json!({})),
        request("session/cancel", json!({ "sessionId": "mine" })),
        request("$/cancel_request", json!({ "requestId": 1 })),
        request("_extension", json!({})),
        request("Session/Prompt", prompt()),
        request("session/prompt ", prompt()),
        request("", json!({})),
        notification("session/prompt", prompt()),
        notification("session/load", json!({ "sessionId": "mine" })),
        notification("initialize", json!({})),
        notification("session/update", json!({ "sessionId": "mine" })),
    ] {
        assert_eq!(reason(&guest, &message), Reason::UnknownMethod, "{message}");
    }
}

#[test]
fn another_session_is_refused_wherever_one_is_named() {
    for (message, _) in served() {
        let mut other = message.clone();
        if other["params"].get("sessionId").is_none() {
            continue;
        }
        for id in ["theirs", "", "MINE", "mine ", UPSTREAM] {
            other["params"]["sessionId"] = json!(id);
            assert_eq!(reason(&guest(), &other), Reason::OtherSession, "{other}");
        }
        other["params"].as_object_mut().unwrap().remove("sessionId");
        assert_eq!(reason(&guest(), &other), Reason::Parameters, "{other}");
        other["params"]["session_id"] = json!("mine");
        assert_eq!(reason(&guest(), &other), Reason::Parameters, "the other spelling alone: {other}");
        other["params"]["sessionId"] = json!("mine");
        assert_eq!(reason(&guest(), &other), Reason::Parameters, "both spellings: {other}");
    }
}

#[test]
fn an_unknown_key_is_refused_and_meta_goes_nowhere() {
    for (message, _) in served() {
        let mut more = message.clone();
        more["params"]["more"] = json!(null);
        assert_eq!(reason(&guest(), &more), Reason::Parameters, "{more}");
        let mut meta = message.clone();
        meta["params"]["_meta"] = json!({ "working_directory": "/etc" });
        let read = read(&guest(), &meta).unwrap();
        assert_eq!(read, guest().read(message.to_string().as_bytes()).unwrap());
        let upstream = format!("{:?}", read.upstream(guest().upstream()));
        assert!(!upstream.contains("_meta"), "{upstream}");
    }
}

#[test]
fn resuming_and_loading_bring_no_program_directory_or_prompt_of_the_phones() {
    for method in ["session/resume", "session/load"] {
        for (key, value) in [
            ("mcpServers", json!([{ "name": "x", "command": "/bin/sh", "args": [], "env": [] }])),
            ("mcpServers", json!(null)),
            ("mcpServers", json!({})),
            ("additionalDirectories", json!(["/etc"])),
            ("additionalDirectories", json!(null)),
            ("systemPrompt", json!({ "mode": "override", "content": [] })),
            ("configOptions", json!([])),
            ("replayFrom", json!({})),
            ("cwd", json!(1)),
        ] {
            let mut asked = request(method, json!({ "sessionId": "mine", "cwd": "/", "mcpServers": [] }));
            asked["params"][key] = value;
            assert_eq!(reason(&guest(), &asked), Reason::Parameters, "{asked}");
        }
        let asked = request(method, json!({ "sessionId": "mine", "cwd": "/etc", "mcpServers": [] }));
        assert_eq!(read(&guest(), &asked).unwrap().upstream(guest().upstream()), None);
    }
}

#[test]
fn a_prompt_goes_to_the_agent_with_its_own_id_and_nothing_that_was_not_checked() {
    let blocks = json!([
        { "type": "text", "text": "look", "_meta": { "a": 1 }, "annotations": { "priority": 0.5, "_meta": {} } },
        { "type": "image", "data": "aGk=", "mimeType": "image/png", "uri": null },
        { "type": "audio", "data": "aGk=", "mimeType": "audio/wav" },
        { "type": "resource", "resource": { "uri": "file:///a", "text": "t", "mimeType": null, "_meta": {} } },
    ]);
    let asked = request("session/prompt", json!({ "sessionId": "mine", "prompt": blocks }));
    let (method, params) = read(&guest(), &asked).unwrap().upstream(guest().upstream()).unwrap();
    let sent: Value = serde_json::from_str(&params.to_text()).unwrap();
    let expected = json!({ "sessionId": UPSTREAM, "prompt": [
        { "type": "text", "text": "look", "annotations": { "priority": 0.5 } },
        { "type": "image", "data": "aGk=", "mimeType": "image/png" },
        { "type": "audio", "data": "aGk=", "mimeType": "audio/wav" },
        { "type": "resource", "resource": { "uri": "file:///a", "text": "t" } },
    ]});
    assert_eq!((method, sent), ("session/prompt", expected));
}

#[test]
fn a_prompt_makes_the_agent_open_nothing_of_the_phones_choosing() {
    for block in [
        json!({ "type": "resource_link", "name": "x", "uri": "file:///etc/passwd" }),
        json!({ "type": "image", "data": "aGk=", "mimeType": "image/png", "uri": "http://inside/" }),
        json!({ "type": "resource", "resource": { "uri": "file:///a", "blob": "aGk=" } }),
        json!({ "type": "resource", "resource": { "uri": "file:///a", "text": "t", "blob": "aGk=" } }),
        json!({ "type": "text", "text": "x", "uri": "file:///etc/passwd" }),
        json!({ "type": "text", "text": 1 }),
        json!({ "type": "other", "text": "x" }),
        json!({ "text": "x" }),
        json!("x"),
    ] {
        let asked = request("session/prompt", json!({ "sessionId": "mine", "prompt": [block] }));
        assert_eq!(reason(&guest(), &asked), Reason::Parameters, "{asked}");
    }
    for prompt in [json!([]), json!({}), json!(null), json!("x")] {
        let asked = request("session/prompt", json!({ "sessionId": "mine", "prompt": prompt }));
        assert_eq!(reason(&guest(), &asked), Reason::Parameters, "{asked}");
    }
}

#[test]
fn a_phone_cancels_only_requests_of_its_own_that_wait() {
    let mut guest = guest();
    let cancel = |id: Value| notification("$/cancel_request", json!({ "requestId": id }));
    assert_eq!(reason(&guest, &cancel(json!(1))), Reason::NotPending);
    let asked = read(&guest, &request("session/prompt", prompt())).unwrap();
    assert_eq!(reason(&guest, &cancel(json!(1))), Reason::NotPending, "read, and not permitted yet");
    guest.take(&asked).unwrap();
    assert_eq!(read(&guest, &cancel(json!(1))), Ok(FromPhone::CancelRequest { id: RequestId::Number(1) }));
    assert_eq!(reason(&guest, &cancel(json!("1"))), Reason::NotPending, "a text is another id");
    assert_eq!(reason(&guest, &cancel(json!(1.5))), Reason::Parameters);
    let done = Ok(Json::Object(vec![("stopReason".to_owned(), Json::Text("end_turn".to_owned()))]));
    assert!(guest.result(&RequestId::Number(1), &done).is_some());
    assert_eq!(reason(&guest, &cancel(json!(1))), Reason::NotPending);
    assert_eq!(guest.result(&RequestId::Number(1), &done), None, "it was answered");
}

#[test]
fn an_id_that_waits_is_not_used_twice_and_a_phone_has_sixteen_requests_at_most() {
    let mut guest = guest();
    for id in 0..16 {
        let mut asked = request("session/list", json!({}));
        asked["id"] = json!(id);
        let asked = read(&guest, &asked).unwrap();
        guest.take(&asked).unwrap();
        let again = guest.take(&asked).unwrap_err();
        assert_eq!((again.reason, again.id), (Reason::IdInUse, Some(RequestId::Number(id))));
    }
    let mut asked = request("session/list", json!({}));
    assert_eq!(reason(&guest, &asked), Reason::IdInUse);
    asked["id"] = json!("another");
    assert_eq!(reason(&guest, &asked), Reason::TooManyRequests);
}

fn permission() -> Value {
    json!({
        "sessionId": UPSTREAM,
        "toolCall": { "toolCallId": "t", "title": "run it", "kind": "execute", "_meta": { "secret": 1 } },
        "options": [
            { "optionId": "yes", "name": "Allow", "kind": "allow_once", "_meta": {} },
            { "optionId": "always", "name": "Always", "kind": "allow_always" },
            { "optionId": "no", "name": "Reject", "kind": "reject_once" },
            { "optionId": "never", "name": "Never", "kind": "reject_always" },
            { "optionId": "odd", "name": "Odd", "kind": "allow_everything" },
        ],
        "_meta": { "more": 1 },
    })
}

fn selected(question: i64, option: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": question, "result": { "outcome": { "outcome": "selected", "optionId": option } } })
}

#[test]
fn a_phone_is_offered_only_choices_that_hold_once() {
    let mut guest = guest();
    let (op, asked) = shown(guest.ask(7, "session/request_permission", &params(&permission())));
    assert_eq!(op, Op::SendInput);
    let expected = json!({ "jsonrpc": "2.0", "id": 7, "method": "session/request_permission", "params": {
        "sessionId": "mine",
        "toolCall": { "toolCallId": "t", "title": "run it", "kind": "execute" },
        "options": [
            { "optionId": "yes", "name": "Allow", "kind": "allow_once" },
            { "optionId": "no", "name": "Reject", "kind": "reject_once" },
        ],
    }});
    assert_eq!(asked, expected);
    for option in ["always", "never", "odd", "invented", ""] {
        assert_eq!(reason(&guest, &selected(7, option)), Reason::NotOffered, "{option}");
    }
    let answer = read(&guest, &selected(7, "yes")).unwrap();
    assert_eq!(guest.action(&answer), Action::Session(Op::SendInput));
    let FromPhone::Answer { question: 7, outcome } = &answer else { panic!("{answer:?}") };
    assert_eq!(outcome.to_text(), r#"{"outcome":{"outcome":"selected","optionId":"yes"}}"#);
    guest.take(&answer).unwrap();
    assert_eq!(reason(&guest, &selected(7, "yes")), Reason::NotPending, "answered once");
    assert_eq!(guest.take(&answer).unwrap_err().reason, Reason::NotPending);
}

#[test]
fn a_question_is_answered_only_as_itself() {
    let mut guest = guest();
    assert!(guest.ask(7, "session/request_permission", &params(&permission())).is_some());
    let answer = |id: Value, result: Value| json!({ "jsonrpc": "2.0", "id": id, "result": result });
    let yes = json!({ "outcome": { "outcome": "selected", "optionId": "yes" } });
    for id in [json!(8), json!("7"), json!(null), json!(-7)] {
        assert_eq!(reason(&guest, &answer(id, yes.clone())), Reason::NotPending);
    }
    for result in [
        json!(null),
        json!({}),
        json!({ "outcome": "selected", "optionId": "yes" }),
        json!({ "outcome": { "outcome": "selected" } }),
        json!({ "outcome": { "outcome": "selected", "optionId": "yes", "more": 1 } }),
        json!({ "outcome": { "outcome": "selected", "optionId": "yes" }, "more": 1 }),
        json!({ "outcome": { "outcome": "allowed" } }),
        json!({ "action": "accept" }),
    ] {
        assert_eq!(reason(&guest, &answer(json!(7), result.clone())), Reason::Parameters, "{result}");
    }
    let cancelled =
        read(&guest, &answer(json!(7), json!({ "outcome": { "outcome": "cancelled", "_meta": 1 } })));
    let FromPhone::Answer { outcome, .. } = cancelled.unwrap() else { panic!() };
    assert_eq!(outcome.to_text(), r#"{"outcome":{"outcome":"cancelled"}}"#);
    let error = json!({ "jsonrpc": "2.0", "id": 7, "error": { "code": -32601, "message": "cannot" } });
    assert_eq!(read(&guest, &error), Ok(FromPhone::AnswerError { question: 7 }));
}

#[test]
fn a_question_that_is_over_is_taken_back_once() {
    let mut guest = guest();
    assert!(guest.ask(7, "session/request_permission", &params(&permission())).is_some());
    let (op, told) = shown(guest.retire(7));
    assert_eq!((op, told), (Op::SendInput, notification("$/cancel_request", json!({ "requestId": 7 }))));
    assert_eq!(guest.retire(7), None);
    assert_eq!(reason(&guest, &selected(7, "yes")), Reason::NotPending);
}

#[test]
fn a_phone_that_is_narrowed_names_the_questions_that_it_may_not_answer_any_more() {
    let mut guest = guest();
    for question in [7, 9] {
        assert!(guest.ask(question, "session/request_permission", &params(&permission())).is_some());
    }
    assert_eq!(guest.narrow(OpSet::ALL.without(Op::Interrupt)), [0_i64; 0]);
    assert_eq!(guest.narrow(OpSet::only(Op::StreamOutput)), [7, 9]);
    assert_eq!(guest.ask(8, "session/request_permission", &params(&permission())), None);
    // Nothing gives an operation back.
    assert_eq!(guest.narrow(OpSet::ALL), [7, 9]);
    assert!(guest.retire(7).is_some() && guest.retire(9).is_some());
    assert_eq!(guest.narrow(OpSet::ALL), [0_i64; 0]);
}

#[test]
fn no_phone_is_asked_what_it_may_not_answer() {
    let ask = |guest: &mut Guest, value: &Value| guest.ask(7, "session/request_permission", &params(value));
    let mut without = guest_with(OpSet::ALL.without(Op::SendInput));
    assert_eq!(ask(&mut without, &permission()), None);
    let mut other = permission();
    other["sessionId"] = json!("agent session/2");
    assert_eq!(ask(&mut guest(), &other), None, "of another session");
    let mut lasting = permission();
    lasting["options"] = json!([{ "optionId": "a", "name": "Always", "kind": "allow_always" }]);
    assert_eq!(ask(&mut guest(), &lasting), None, "no choice that holds once");
    for method in
        ["fs/read_text_file", "fs/write_text_file", "terminal/create", "mcp/message", "session/prompt"]
    {
        assert_eq!(guest().ask(7, method, &params(&permission())), None, "{method}");
    }
    let mut asked = guest();
    assert!(ask(&mut asked, &permission()).is_some());
    assert_eq!(ask(&mut asked, &permission()), None, "the number is in use");
}

#[test]
fn an_option_id_that_stands_for_two_choices_is_offered_as_neither() {
    let mut twice = permission();
    twice["options"] = json!([
        { "optionId": "ok", "name": "Allow", "kind": "allow_once" },
        { "optionId": "ok", "name": "Always", "kind": "allow_always" },
        { "optionId": "no", "name": "Reject", "kind": "reject_once" },
    ]);
    let mut guest = guest();
    let (_, asked) = shown(guest.ask(7, "session/request_permission", &params(&twice)));
    assert_eq!(asked["params"]["options"].as_array().unwrap().len(), 1);
    assert_eq!(reason(&guest, &selected(7, "ok")), Reason::NotOffered);
}

#[test]
fn an_option_without_a_name_still_takes_its_id_from_another_choice() {
    let mut twice = permission();
    twice["options"] = json!([
        { "optionId": "ok", "name": "Allow", "kind": "allow_once" },
        { "optionId": "ok", "kind": "allow_always" },
        { "optionId": "no", "name": "Reject", "kind": "reject_once" },
    ]);
    let mut guest = guest();
    let (_, asked) = shown(guest.ask(7, "session/request_permission", &params(&twice)));
    assert_eq!(asked["params"]["options"].as_array().unwrap().len(), 1);
    assert_eq!(reason(&guest, &selected(7, "ok")), Reason::NotOffered);
}

#[test]
fn a_change_of_mode_can_be_rejected_by_a_phone_and_not_allowed() {
    let mut mode = permission();
    mode["toolCall"]["kind"] = json!("switch_mode");
    let mut guest = guest();
    let (_, asked) = shown(guest.ask(7, "session/request_permission", &params(&mode)));
    assert_eq!(
        asked["params"]["options"],
        json!([{ "optionId": "no", "name": "Reject", "kind": "reject_once" }])
    );
    assert_eq!(reason(&guest, &selected(7, "yes")), Reason::NotOffered);
}

fn form() -> Value {
    json!({
        "sessionId": UPSTREAM,
        "mode": "form",
        "message": "which?",
        "requestedSchema": {
            "type": "object",
            "properties": {
                "name": { "type": "string", "title": "Name", "_meta": {} },
                "count": { "type": "integer", "minimum": 1 },
                "share": { "type": "number" },
                "sure": { "type": "boolean" },
                "one": { "type": "string", "enum": ["a", "b"] },
                "other": { "type": "string", "oneOf": [{ "const": "c", "title": "C" }] },
                "some": { "type": "array", "items": { "type": "string", "enum": ["x", "y"] } },
                "titled": { "type": "array", "items": { "anyOf": [{ "const": "z", "title": "Z" }] } },
            },
            "required": ["name"],
        },
    })
}

#[test]
fn a_form_is_filled_in_with_the_fields_and_choices_that_it_has() {
    let mut guest = guest();
    let (op, asked) = shown(guest.ask(9, "elicitation/create", &params(&form())));
    assert_eq!((op, &asked["params"]["sessionId"]), (Op::SendInput, &json!("mine")));
    assert_eq!(
        asked["params"]["requestedSchema"]["properties"]["name"],
        json!({ "type": "string", "title": "Name" })
    );
    let answer = |content: Value| json!({ "jsonrpc": "2.0", "id": 9, "result": { "action": "accept", "content": content } });
    let all = json!({ "name": "n", "count": 2, "share": 0.5, "sure": true, "one": "a", "other": "c",
        "some": ["x", "y"], "titled": ["z"] });
    let FromPhone::Answer { outcome, .. } = read(&guest, &answer(all.clone())).unwrap() else { panic!() };
    let outcome: Value = serde_json::from_str(&outcome.to_text()).unwrap();
    assert_eq!(outcome, json!({ "action": "accept", "content": all }));
    for (key, value, expected) in [
        ("count", json!("2"), Reason::Parameters),
        ("count", json!(1.5), Reason::Parameters),
        ("name", json!(1), Reason::Parameters),
        ("name", json!(null), Reason::Parameters),
        ("sure", json!("true"), Reason::Parameters),
        ("share", json!([]), Reason::Parameters),
        ("more", json!("x"), Reason::Parameters),
        ("one", json!("c"), Reason::NotOffered),
        ("other", json!("a"), Reason::NotOffered),
        ("some", json!(["x", "z"]), Reason::NotOffered),
        ("titled", json!(["x"]), Reason::NotOffered),
    ] {
        let mut content = all.clone();
        content[key] = value;
        assert_eq!(reason(&guest, &answer(content.clone())), expected, "{content}");
    }
    assert_eq!(reason(&guest, &answer(json!({}))), Reason::Parameters, "a required field is missing");
    for action in ["decline", "cancel"] {
        let answer = json!({ "jsonrpc": "2.0", "id": 9, "result": { "action": action } });
        let FromPhone::Answer { outcome, .. } = read(&guest, &answer).unwrap() else { panic!() };
        assert_eq!(outcome.to_text(), format!(r#"{{"action":"{action}"}}"#));
    }
}

#[test]
fn forms_that_are_no_plain_forms_of_the_session_are_not_shown() {
    let ask = |value: &Value| guest().ask(9, "elicitation/create", &params(value));
    assert!(ask(&form()).is_some());
    for (key, value) in [
        ("mode", json!("url")),
        ("mode", json!("other")),
        ("sessionId", json!("agent session/2")),
        ("requestedSchema", json!({ "type": "object", "properties": { "x": { "type": "object" } } })),
        ("requestedSchema", json!({ "type": "object", "properties": {}, "required": ["x"] })),
        ("message", json!("m".repeat(70_000))),
    ] {
        let mut changed = form();
        changed[key] = value;
        assert_eq!(ask(&changed), None, "{key}");
    }
    let by_request = json!({ "requestId": 1, "mode": "form", "message": "m",
        "requestedSchema": { "type": "object", "properties": {} } });
    assert_eq!(ask(&by_request), None, "of no session");
}

fn update(update: Value) -> Value {
    json!({ "sessionId": UPSTREAM, "update": update, "_meta": { "secret": 1 } })
}

/// An update of each kind that phones get, with every key that they get.
fn updates() -> Vec<(Op, Value)> {
    let block = json!({ "type": "text", "text": "t" });
    let stream = [
        json!({ "sessionUpdate": "user_message_chunk", "content": block, "messageId": "m" }),
        json!({ "sessionUpdate": "agent_message_chunk", "content": { "type": "image", "data": "aGk=",
            "mimeType": "image/png", "uri": "file:///a" } }),
        json!({ "sessionUpdate": "agent_thought_chunk", "content": { "type": "resource_link", "name": "n",
            "uri": "file:///a", "title": "t", "description": "d", "mimeType": "text/plain", "size": 3 } }),
        json!({ "sessionUpdate": "tool_call", "toolCallId": "t", "title": "run", "kind": "execute",
            "status": "in_progress", "rawInput": { "deep": [{ "a": 1 }] }, "rawOutput": "out",
            "locations": [{ "path": "/a", "line": 3 }],
            "content": [{ "type": "content", "content": block },
                { "type": "diff", "path": "/a", "oldText": null, "newText": "n" },
                { "type": "terminal", "terminalId": "1" },
                { "type": "session", "sessionId": "mine" }] }),
        json!({ "sessionUpdate": "tool_call_update", "toolCallId": "t", "title": null, "status": "completed" }),
        json!({ "sessionUpdate": "plan", "entries": [{ "content": "c", "priority": "high", "status": "pending" }] }),
        json!({ "sessionUpdate": "plan_update", "plan": { "type": "markdown", "planId": "p", "content": "c" } }),
        json!({ "sessionUpdate": "plan_removed", "planId": "p" }),
        json!({ "sessionUpdate": "available_commands_update", "availableCommands": [
            { "name": "n", "description": "d", "input": { "hint": "h" } }] }),
        json!({ "sessionUpdate": "notice", "severity": "warning", "title": "t", "description": "d" }),
        json!({ "sessionUpdate": "compaction_update", "compactionId": "c", "status": "completed",
            "summary": [block], "error": null }),
        json!({ "sessionUpdate": "compaction_summary_chunk", "compactionId": "c", "content": block }),
        json!({ "sessionUpdate": "subagent_update", "sessionId": "mine", "title": "t" }),
        json!({ "sessionUpdate": "session_message", "messageId": "m", "senderSessionId": "mine",
            "recipientSessionId": "mine", "content": [block] }),
        json!({ "sessionUpdate": "user_message", "messageId": "m", "content": [block] }),
        json!({ "sessionUpdate": "agent_message", "messageId": "m", "content": [block] }),
        json!({ "sessionUpdate": "agent_thought", "messageId": "m", "content": [block] }),
        json!({ "sessionUpdate": "state_update", "state": "idle", "stopReason": "end_turn" }),
        json!({ "sessionUpdate": "tool_call_content_chunk", "toolCallId": "t", "content": { "type": "diff",
            "changes": [{ "operation": "move", "oldPath": "/a", "path": "/b" }],
            "patch": { "format": "git_patch", "text": "p" } } }),
        json!({ "sessionUpdate": "terminal_update", "terminalId": "1", "command": "ls", "output": { "data": "d" },
            "exitStatus": { "exitCode": 0, "signal": null } }),
        json!({ "sessionUpdate": "terminal_output_chunk", "terminalId": "1", "data": "d" }),
    ];
    let metadata = [
        json!({ "sessionUpdate": "current_mode_update", "currentModeId": "ask" }),
        json!({ "sessionUpdate": "config_option_update", "configOptions": [
            { "type": "select", "id": "m", "name": "Model", "category": "model", "currentValue": "a",
                "options": [{ "value": "a", "name": "A" }] },
            { "type": "boolean", "id": "b", "name": "B", "currentValue": true }] }),
        json!({ "sessionUpdate": "session_info_update", "title": "t", "updatedAt": null }),
        json!({ "sessionUpdate": "usage_update", "used": 1, "size": 2, "cost": { "amount": 0.1, "currency": "USD" } }),
    ];
    let stream = stream.into_iter().map(|update| (Op::StreamOutput, update));
    stream.chain(metadata.into_iter().map(|update| (Op::ReadMetadata, update))).collect()
}

/// What the agent sends: its own id, and keys that nobody asked for at every object.
fn as_the_agent_writes_it(value: &Value) -> Value {
    match value {
        Value::Array(values) => values.iter().map(as_the_agent_writes_it).collect(),
        Value::Object(entries) => {
            let mut object: serde_json::Map<_, _> = entries
                .iter()
                .map(|(key, value)| {
                    let value = match key.as_str() {
                        "rawInput" => value.clone(),
                        key if key.ends_with("essionId") => json!(UPSTREAM),
                        _ => as_the_agent_writes_it(value),
                    };
                    (key.clone(), value)
                })
                .collect();
            object.insert("_meta".to_owned(), json!({ "secret": 1 }));
            object.insert("futureKey".to_owned(), json!("secret"));
            object.into()
        }
        other => other.clone(),
    }
}

#[test]
fn every_kind_of_update_reaches_the_phone_with_the_keys_of_the_table_and_no_others() {
    for (op, expected) in updates() {
        let (sent_under, sent) = shown(guest().update(&params(&update(as_the_agent_writes_it(&expected)))));
        let expected = notification("session/update", json!({ "sessionId": "mine", "update": expected }));
        assert_eq!((sent_under, sent), (op, expected));
    }
}

#[test]
fn updates_of_other_sessions_unknown_kinds_and_malformed_ones_reach_no_phone() {
    for (_, own) in updates() {
        let mut other = update(as_the_agent_writes_it(&own));
        for id in ["agent session/2", "mine", ""] {
            other["sessionId"] = json!(id);
            assert_eq!(guest().update(&params(&other)), None, "{other}");
        }
    }
    let block = json!({ "type": "text", "text": "t" });
    for never in [
        json!({ "sessionUpdate": "unknown_kind", "content": block }),
        json!({ "sessionUpdate": "session_message_chunk", "messageId": "m", "content": block }),
        json!({ "sessionUpdate": "subagent_update", "sessionId": "child" }),
        json!({ "sessionUpdate": "session_message", "messageId": "m", "senderSessionId": "child", "content": [block] }),
        json!({ "sessionUpdate": "session_message", "messageId": "m", "senderSessionId": UPSTREAM,
            "recipientSessionId": "child", "content": [block] }),
        json!({ "sessionUpdate": "agent_message_chunk" }),
        json!({ "sessionUpdate": "agent_message_chunk", "content": { "type": "hologram" } }),
        json!({ "sessionUpdate": "tool_call", "toolCallId": "t" }),
        json!({ "sessionUpdate": 1 }),
        json!({}),
    ] {
        assert_eq!(guest().update(&params(&update(never.clone()))), None, "{never}");
    }
    for shapeless in [json!({}), json!([]), json!({ "sessionId": UPSTREAM })] {
        assert_eq!(guest().update(&params(&shapeless)), None, "{shapeless}");
    }
}

#[test]
fn a_reference_to_another_session_is_left_out_of_a_tool_call() {
    let (_, sent) = shown(guest().update(&params(&update(json!({
        "sessionUpdate": "tool_call_update", "toolCallId": "t",
        "content": [{ "type": "session", "sessionId": "child" }, { "type": "terminal", "terminalId": "1" }],
    })))));
    assert_eq!(sent["params"]["update"]["content"], json!([{ "type": "terminal", "terminalId": "1" }]));
}

#[test]
fn an_update_of_the_past_goes_under_the_right_to_the_past() {
    for (_, own) in updates() {
        assert_eq!(
            guest().replay(&params(&update(as_the_agent_writes_it(&own)))).unwrap().op,
            Op::ReadHistory
        );
    }
}

/// Longer than a message of the guarded channel, which the agent's side is not bound to.
fn long_params(value: &Value) -> Json {
    let text = notification("x", value.clone()).to_string();
    match Message::from_bytes_up_to(text.as_bytes(), 8 * 1024 * 1024).unwrap() {
        Message::Notification { params: Some(params), .. } => params,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_update_that_is_too_long_comes_without_its_content_and_says_so() {
    let long = "x".repeat(2 * 1024 * 1024);
    for own in [
        json!({ "sessionUpdate": "agent_message_chunk", "content": { "type": "text", "text": long } }),
        json!({ "sessionUpdate": "tool_call", "toolCallId": "t", "title": "run", "rawOutput": long,
            "content": [{ "type": "diff", "path": "/a", "newText": "n" }] }),
    ] {
        let sent = guest().update(&long_params(&update(own))).unwrap();
        assert!(sent.text.len() < 1_000);
        assert!(sent.text.contains("too long for a phone"), "{}", sent.text);
    }
    let title = json!({ "sessionUpdate": "session_info_update", "title": long });
    assert_eq!(guest().update(&long_params(&update(title))), None);
    assert_eq!(
        Message::from_bytes(notification("x", json!({ "x": long })).to_string().as_bytes()),
        Err(MessageError::TooLong { max: Message::MAX_LEN })
    );
}

fn answer_to(ops: OpSet, asked: &Value, outcome: &Result<Json, RpcError>) -> (Op, Value) {
    let mut guest = guest_with(ops);
    let asked = read(&guest, asked).unwrap();
    guest.take(&asked).unwrap();
    shown(guest.result(&RequestId::Number(1), outcome))
}

#[test]
fn initialize_is_answered_with_what_the_phone_may_use_of_what_the_agent_can_do() {
    let agent = params(&json!({
        "protocolVersion": 1,
        "agentCapabilities": {
            "loadSession": true,
            "promptCapabilities": { "image": true, "audio": false, "embeddedContext": true },
            "mcpCapabilities": { "http": true, "sse": true },
            "sessionCapabilities": { "list": {}, "delete": {}, "fork": {}, "close": {} },
            "providers": {},
            "_meta": {},
        },
        "authMethods": [{ "id": "key", "name": "an agent's secret way in" }],
        "agentInfo": { "name": "a", "version": "1", "_meta": {} },
        "_meta": { "working_directory": "/home/me" },
    }));
    let asked = request("initialize", json!({ "protocolVersion": 1, "clientCapabilities": { "fs": {} } }));
    let expected = |load: bool, image: bool, session: Value| {
        json!({
            "protocolVersion": 1,
            "agentCapabilities": {
                "loadSession": load,
                "promptCapabilities": { "image": image, "audio": false, "embeddedContext": image },
                "mcpCapabilities": { "http": false, "sse": false },
                "sessionCapabilities": session,
            },
            "authMethods": [],
            "agentInfo": { "name": "a", "version": "1" },
        })
    };
    let (_, all) = answer_to(OpSet::ALL, &asked, &Ok(agent.clone()));
    assert_eq!(all["result"], expected(true, true, json!({ "list": {}, "status": {}, "resume": {} })));
    let (op, few) = answer_to(OpSet::only(Op::StreamOutput), &asked, &Ok(agent));
    assert_eq!((op, &few["result"]), (Op::StreamOutput, &expected(false, false, json!({ "resume": {} }))));
}

#[test]
fn a_list_has_the_one_session_without_its_directories() {
    let sessions = json!({ "sessions": [
        { "sessionId": "agent session/2", "cwd": "/b", "title": "theirs" },
        { "sessionId": UPSTREAM, "cwd": "/home/me", "additionalDirectories": ["/c"], "title": "own", "_meta": {} },
    ], "nextCursor": "more" });
    let asked = request("session/list", json!({}));
    let (op, listed) = answer_to(OpSet::ALL, &asked, &Ok(params(&sessions)));
    assert_eq!(op, Op::ReadMetadata);
    assert_eq!(
        listed["result"],
        json!({ "sessions": [{ "sessionId": "mine", "title": "own", "cwd": "/" }] })
    );
    let (_, unlisted) = answer_to(OpSet::ALL, &asked, &Ok(params(&json!({ "sessions": [] }))));
    assert_eq!(unlisted["result"], json!({ "sessions": [{ "sessionId": "mine", "cwd": "/" }] }));
}

#[test]
fn results_are_made_anew_for_each_request() {
    let of_session = json!({ "sessionId": "mine" });
    let follow = json!({ "sessionId": "mine", "cwd": "/", "mcpServers": [] });
    let modes = json!({ "currentModeId": "a", "availableModes": [{ "id": "a", "name": "A" }] });
    for (asked, op, result, expected) in [
        (
            request("session/prompt", prompt()),
            Op::SendInput,
            json!({ "stopReason": "cancelled", "usage": { "totalTokens": 3, "inputTokens": 1, "outputTokens": 2 },
                "_meta": {}, "more": 1 }),
            json!({ "stopReason": "cancelled", "usage": { "totalTokens": 3, "inputTokens": 1, "outputTokens": 2 } }),
        ),
        (
            request("session/status", of_session),
            Op::ReadMetadata,
            json!({ "status": "open", "more": 1 }),
            json!({ "status": "open" }),
        ),
        (request("session/resume", follow.clone()), Op::StreamOutput, json!(null), json!({})),
        (
            request("session/load", follow),
            Op::ReadHistory,
            json!({ "modes": modes, "cwd": "/b" }),
            json!({ "modes": modes }),
        ),
        (
            request("authenticate", json!({ "methodId": "x" })),
            Op::ReadMetadata,
            json!({ "token": 1 }),
            json!({}),
        ),
        (request("logout", json!({})), Op::ReadMetadata, json!(null), json!({})),
        (
            request("auth/status", json!({})),
            Op::ReadMetadata,
            json!({ "accounts": [{ "email": "a@b" }] }),
            json!({ "state": "authenticated", "accounts": [] }),
        ),
    ] {
        let result = match &result {
            Value::Null => Json::Null,
            result => params(result),
        };
        let (sent_under, sent) = answer_to(OpSet::ALL, &asked, &Ok(result));
        assert_eq!(sent, json!({ "jsonrpc": "2.0", "id": 1, "result": expected }), "{asked}");
        assert_eq!(sent_under, op, "{asked}");
    }
}

#[test]
fn an_agents_error_reaches_the_phone_without_its_data_and_an_answer_that_is_none_is_an_error() {
    let asked = request("session/prompt", prompt());
    let error = RpcError {
        code: -32002,
        message: format!("no\u{1b}[2J{}", "é".repeat(2_000)),
        data: Some(params(&json!({ "path": "/home/me" }))),
    };
    let (op, sent) = answer_to(OpSet::ALL, &asked, &Err(error));
    assert_eq!(
        (op, &sent["error"]["code"], sent["error"].get("data")),
        (Op::SendInput, &json!(-32002), None)
    );
    let message = sent["error"]["message"].as_str().unwrap();
    assert!(message.len() <= 1_024 && message.starts_with("no[2J"), "{message}");
    let (_, sent) = answer_to(OpSet::ALL, &asked, &Ok(params(&json!({ "stopReason": "invented" }))));
    assert_eq!(sent["error"]["data"], json!({ "reason": "agent_answer" }));
}

#[test]
fn every_refusal_says_what_a_person_can_do_under_a_code_that_stays() {
    let parse = Reason::Message(MessageError::NotJson { depth: 64 });
    for (reason, code, number) in [
        (Reason::Privileged(Privilege::CreateSession), "operation_denied", -32050),
        (Reason::NotGranted(Op::SendInput), "not_granted", -32050),
        (Reason::OtherSession, "other_session", -32050),
        (Reason::NotOffered, "not_offered", -32050),
        (parse, "not_json", -32700),
        (Reason::Message(MessageError::TooLong { max: 1 }), "too_long", -32700),
        (Reason::Message(MessageError::Batch), "batch", -32600),
        (Reason::Message(MessageError::Malformed), "malformed", -32600),
        (Reason::UnknownMethod, "unknown_method", -32601),
        (Reason::Unserved(Op::Interrupt), "not_served", -32601),
        (Reason::Parameters, "parameters", -32602),
        (Reason::NotPending, "not_pending", -32600),
        (Reason::IdInUse, "id_in_use", -32600),
        (Reason::TooManyRequests, "too_many_requests", -32600),
    ] {
        let answer = Refusal { id: Some(RequestId::Text("a".to_owned())), reason }.answer().unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["id"], json!("a"));
        assert_eq!(answer["error"]["code"], json!(number), "{reason:?}");
        assert_eq!(answer["error"]["data"], json!({ "reason": code }), "{reason:?}");
        let sentence = answer["error"]["message"].as_str().unwrap();
        assert!(sentence.contains(';') && !sentence.ends_with('.'), "{sentence}");
        assert_eq!(Refusal { id: None, reason }.answer(), None);
    }
}

#[test]
fn a_text_that_is_no_message_is_answered_without_an_id() {
    let refusal = guest().read(b"{").unwrap_err();
    let answer: Value = serde_json::from_str(&refusal.answer().unwrap()).unwrap();
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(null), &json!(-32700)));
    let cancel = notification("session/cancel", json!({ "sessionId": "theirs" }));
    assert_eq!(read(&guest(), &cancel).unwrap_err().answer(), None, "a notification has no answer");
}

#[test]
fn messages_are_read_strictly() {
    let text = |text: &str| Message::from_bytes(text.as_bytes());
    let malformed = MessageError::Malformed;
    let not_json = MessageError::NotJson { depth: Message::MAX_DEPTH };
    for (wrong, error) in [
        (r#"[{"jsonrpc":"2.0","method":"a"}]"#, MessageError::Batch),
        ("[]", MessageError::Batch),
        ("1", malformed),
        (r#"{"method":"a"}"#, malformed),
        (r#"{"jsonrpc":"1.0","method":"a"}"#, malformed),
        (r#"{"jsonrpc":2.0,"method":"a"}"#, malformed),
        (r#"{"jsonrpc":"2.0"}"#, malformed),
        (r#"{"jsonrpc":"2.0","id":1}"#, malformed),
        (r#"{"jsonrpc":"2.0","method":1}"#, malformed),
        (r#"{"jsonrpc":"2.0","method":"a","params":1}"#, malformed),
        (r#"{"jsonrpc":"2.0","method":"a","more":1}"#, malformed),
        (r#"{"jsonrpc":"2.0","method":"a","sessionId":"mine"}"#, malformed),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a","result":1}"#, malformed),
        (r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{"code":1,"message":"m"}}"#, malformed),
        (r#"{"jsonrpc":"2.0","id":1,"result":1,"params":{}}"#, malformed),
        (r#"{"jsonrpc":"2.0","result":1}"#, malformed),
        (r#"{"jsonrpc":"2.0","id":1,"error":1}"#, malformed),
        (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1}}"#, malformed),
        (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m","more":1}}"#, malformed),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"a"}"#, malformed),
        (r#"{"jsonrpc":"2.0","id":1e0,"method":"a"}"#, malformed),
        (r#"{"jsonrpc":"2.0","id":true,"method":"a"}"#, malformed),
        (r#"{"jsonrpc":"2.0","id":[1],"method":"a"}"#, malformed),
        (r#"{"jsonrpc":"2.0","id":9223372036854775808,"method":"a"}"#, malformed),
        (r#"{"jsonrpc":"2.0","method":"a","method":"b"}"#, not_json),
        (r#"{"jsonrpc":"2.0","method":"a","\u006dethod":"b"}"#, not_json),
        (r#"{"jsonrpc":"2.0","method":"a","params":{"x":[{"k":1,"k":1}]}}"#, not_json),
        (r#"{"jsonrpc":"2.0","method":"a"} {}"#, not_json),
        (r#"{"jsonrpc":"2.0","method":"\ud800"}"#, not_json),
        (r#"{"jsonrpc":"2.0","method":"a",}"#, not_json),
        (r#"{"jsonrpc":"2.0","method":"a","params":{"x":1e999}}"#, not_json),
        ("\u{feff}{\"jsonrpc\":\"2.0\",\"method\":\"a\"}", not_json),
        ("", not_json),
    ] {
        assert_eq!(text(wrong), Err(error), "{wrong}");
    }
    assert_eq!(Message::from_bytes(b"\"\xff\""), Err(not_json));
    let method = |length: usize| format!(r#"{{"jsonrpc":"2.0","method":"{}"}}"#, "m".repeat(length));
    assert!(text(&method(Message::MAX_METHOD_LEN)).is_ok());
    assert_eq!(text(&method(Message::MAX_METHOD_LEN + 1)), Err(malformed));
    let id = |length: usize| format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"a"}}"#, "m".repeat(length));
    assert!(text(&id(RequestId::MAX_LEN)).is_ok());
    assert_eq!(text(&id(RequestId::MAX_LEN + 1)), Err(malformed));
    let deep = |depth: usize| {
        format!(r#"{{"jsonrpc":"2.0","method":"a","params":{}{}}}"#, "[".repeat(depth), "]".repeat(depth))
    };
    assert!(text(&deep(Message::MAX_DEPTH - 1)).is_ok());
    assert_eq!(text(&deep(Message::MAX_DEPTH)), Err(not_json));
    let many = |values: usize| {
        let values = vec!["1"; values].join(",");
        format!(r#"{{"jsonrpc":"2.0","method":"a","params":[{values}]}}"#)
    };
    assert!(text(&many(60_000)).is_ok());
    assert_eq!(text(&many(70_000)), Err(not_json));
}

#[test]
fn a_number_and_a_text_are_different_ids_and_null_is_one() {
    let id = |text: &str| match Message::from_bytes(
        format!(r#"{{"jsonrpc":"2.0","id":{text},"method":"a"}}"#).as_bytes(),
    ) {
        Ok(Message::Request { id, .. }) => id,
        other => panic!("{other:?}"),
    };
    assert_eq!(id("1"), RequestId::Number(1));
    assert_eq!(id("\"1\""), RequestId::Text("1".to_owned()));
    assert_eq!(id("null"), RequestId::Null);
    assert_eq!(id("-9223372036854775808"), RequestId::Number(i64::MIN));
}

#[test]
fn a_message_reads_back_as_it_was_written() {
    for text in [
        r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":[1,-2,18446744073709551615,0.1,1e300,-0.0,"\u0001\"\\é\n"]}}"#,
        r#"{"jsonrpc":"2.0","method":"a"}"#,
        r#"{"jsonrpc":"2.0","id":"x","result":null}"#,
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"m","data":[true,false]}}"#,
    ] {
        let read = Message::from_bytes(text.as_bytes()).unwrap();
        let written = read.to_text();
        assert_eq!(Message::from_bytes(written.as_bytes()), Ok(read));
        let (one, other): (Value, Value) =
            (serde_json::from_str(text).unwrap(), serde_json::from_str(&written).unwrap());
        assert_eq!(one, other);
    }
    let absent = Message::from_bytes(br#"{"jsonrpc":"2.0","method":"a","params":null}"#).unwrap();
    assert_eq!(absent, Message::Notification { method: "a".to_owned(), params: None });
}

#[test]
fn the_notice_of_the_profile_is_67_and_its_version_1() {
    let notice = SessionNotice::Acp { version: AcpProfile::VERSION }.to_notice();
    assert_eq!((notice.code, notice.detail, notice.number), (67, 1, 0));
    assert_eq!(SessionNotice::from_notice(notice), Some(SessionNotice::Acp { version: 1 }));
    assert_eq!(AcpProfile::agree(0), Err(EndCode::new(64)));
    assert_eq!((AcpProfile::agree(1), AcpProfile::agree(9)), (Ok(1), Ok(1)));
}

#[test]
fn an_agents_id_of_a_session_is_free_text_of_a_bounded_length() {
    assert_eq!(AcpSessionId::new(""), None);
    assert_eq!(AcpSessionId::new("x".repeat(1_025)), None);
    for id in [UPSTREAM, "é\n", &"x".repeat(1_024)] {
        assert_eq!(AcpSessionId::new(id).unwrap().as_str(), id);
    }
}

#[test]
fn what_an_agent_sends_beside_updates_and_questions_is_withheld() {
    for method in
        ["fs/read_text_file", "fs/write_text_file", "terminal/create", "terminal/kill", "mcp/message"]
    {
        assert_eq!(Rule::of(Sender::Agent, Kind::Request, method), Rule::Withheld, "{method}");
    }
    for method in ["elicitation/complete", "auth/status_update"] {
        assert_eq!(Rule::of(Sender::Agent, Kind::Notification, method), Rule::Withheld, "{method}");
    }
    assert_eq!(Rule::of(Sender::Agent, Kind::Request, "session/update"), Rule::Unknown);
    assert_eq!(Rule::of(Sender::Agent, Kind::Request, "session/prompt"), Rule::Unknown);
}
