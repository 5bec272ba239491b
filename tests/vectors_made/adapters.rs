//! Vectors of the adapters, written by hand from sections 16.5 and 17.

use serde_json::{Value, json};
use sessioncap::acp::{AcpSessionId, FromPhone, Guest, Json, Message, RequestId};
use sessioncap::{Action, OpSet, SessionId, dd};

use super::{invalid, valid};
use crate::{Fields, Files};

const SESSION: &str = "build-42";
const UPSTREAM: &str = "sess_0f/é";

fn own() -> SessionId {
    SessionId::new(SESSION).unwrap()
}

/// A phone with an open request 1 and an open question 7.
fn guest() -> Guest {
    let mut guest = Guest::new(own(), AcpSessionId::new(UPSTREAM).unwrap(), OpSet::ALL);
    let open = json!({ "jsonrpc": "2.0", "id": 1, "method": "session/list" });
    let open = guest.read(open.to_string().as_bytes()).unwrap();
    guest.take(&open).unwrap();
    assert!(guest.ask(7, "session/request_permission", &as_json(&permission())).is_some());
    guest
}

fn permission() -> Value {
    json!({
        "sessionId": UPSTREAM,
        "toolCall": { "toolCallId": "call_1", "title": "cargo test", "kind": "execute" },
        "options": [
            { "optionId": "once", "name": "Allow", "kind": "allow_once" },
            { "optionId": "always", "name": "Always allow", "kind": "allow_always" },
            { "optionId": "no", "name": "Reject", "kind": "reject_once" },
        ],
    })
}

fn as_json(value: &Value) -> Json {
    Json::from_bytes(value.to_string().as_bytes(), Message::MAX_LEN, Message::MAX_DEPTH).unwrap()
}

fn as_value(json: &Json) -> Value {
    serde_json::from_str(&json.to_text()).unwrap()
}

/// What a phone's message is read as.
pub fn acp_phone_says(message: &str) -> Value {
    let guest = guest();
    let read = guest.read(message.as_bytes()).unwrap_or_else(|refusal| panic!("{message}: {refusal:?}"));
    let Action::Session(op) = guest.action(&read) else { panic!("{read:?}") };
    let mut says = json!({ "op": op.name() });
    if let Some((method, params)) = read.upstream(guest.upstream()) {
        says["upstream"] = json!({ "method": method, "params": as_value(&params) });
    }
    if let FromPhone::Answer { question, outcome } = &read {
        says["answers"] = json!(question);
        says["result"] = as_value(outcome);
    }
    says
}

pub fn acp_refusal(message: &str) -> String {
    guest().read(message.as_bytes()).expect_err("it is invalid").reason.code().to_owned()
}

/// What a phone gets of what an agent sends: the operation, and the message.
pub fn acp_shown(method: &str, params: &Value) -> Option<(String, Value)> {
    let mut guest = guest();
    let params = as_json(params);
    let sent = match method {
        "session/update" => guest.update(&params),
        "session/list" => guest.result(&RequestId::Number(1), &Ok(params)),
        method => guest.ask(9, method, &params),
    }?;
    Some((sent.op.name().to_owned(), serde_json::from_str(&sent.text).unwrap()))
}

pub fn dd_refusal(request: &str) -> String {
    dd::Request::read(request.as_bytes(), &own()).expect_err("it is invalid").code().to_owned()
}

pub fn check_acp_from_phone(fields: &mut Fields) {
    assert_eq!(acp_phone_says(&fields.text("message")), fields.take("says"), "{}", fields.name);
}

pub fn check_acp_to_phone(fields: &mut Fields) {
    let (op, message) =
        acp_shown(&fields.text("method"), &fields.take("params")).expect("it is for the phone");
    assert_eq!((json!(op), message), (fields.take("op"), fields.take("message")), "{}", fields.name);
}

pub fn check_dd_request(fields: &mut Fields) {
    let request = dd::Request::read(fields.text("request").as_bytes(), &own()).unwrap();
    let Action::Session(op) = request.action() else { panic!("{request:?}") };
    let upstream: Value = serde_json::from_str(&request.to_text(&own())).unwrap();
    assert_eq!((json!(op.name()), upstream), (fields.take("op"), fields.take("upstream")), "{}", fields.name);
    let answer = request.answer(fields.take("answer").to_string().as_bytes(), &own()).unwrap();
    let shown: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(shown, fields.take("shown"), "{}", fields.name);
}

pub fn adapters(files: &mut Files) {
    acp_phone(files);
    acp_agent(files);
    acp_refused(files);
    deployed(files);
}

fn acp_phone(files: &mut Files) {
    let mut phone = |name: &str, message: &str, says: Value| {
        let value = json!({ "kind": "acp_from_phone", "message": message, "says": says });
        valid(files, &format!("acp-phone-{name}"), value);
    };
    let request = |method: &str, params: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":"a","method":"{method}","params":{params}}}"#)
    };
    phone("initialize", &request("initialize", r#"{"protocolVersion":1}"#), json!({ "op": "read_metadata" }));
    phone(
        "prompt",
        &request(
            "session/prompt",
            r#"{"sessionId":"build-42","prompt":[{"type":"text","text":"go","_meta":{"x":1}}],"_meta":{"x":1}}"#,
        ),
        json!({ "op": "send_input", "upstream": { "method": "session/prompt", "params": {
            "sessionId": UPSTREAM, "prompt": [{ "type": "text", "text": "go" }] } } }),
    );
    let cancel = r#"{"jsonrpc":"2.0","method":"session/cancel","params":{"sessionId":"build-42"}}"#;
    let upstream = json!({ "method": "session/cancel", "params": { "sessionId": UPSTREAM } });
    phone("cancel", cancel, json!({ "op": "interrupt", "upstream": upstream }));
    let follow = r#"{"sessionId":"build-42","cwd":"/","mcpServers":[]}"#;
    phone("resume", &request("session/resume", follow), json!({ "op": "stream_output" }));
    phone("load", &request("session/load", follow), json!({ "op": "read_history" }));
    phone("list", &request("session/list", "{}"), json!({ "op": "read_metadata" }));
    let cancel = r#"{"jsonrpc":"2.0","method":"$/cancel_request","params":{"requestId":1}}"#;
    phone("cancel-request", cancel, json!({ "op": "read_metadata" }));
    phone(
        "answer-to-a-permission",
        r#"{"jsonrpc":"2.0","id":7,"result":{"outcome":{"outcome":"selected","optionId":"once"}}}"#,
        json!({ "op": "send_input", "answers": 7,
            "result": { "outcome": { "outcome": "selected", "optionId": "once" } } }),
    );
}

fn acp_agent(files: &mut Files) {
    let mut agent = |name: &str, method: &str, params: Value, op: &str, message: Value| {
        let value = json!({ "kind": "acp_to_phone", "method": method, "params": params, "op": op, "message": message });
        valid(files, &format!("acp-agent-{name}"), value);
    };
    let update = |params: Value| json!({ "jsonrpc": "2.0", "method": "session/update", "params": params });
    let text = json!({ "type": "text", "text": "done" });
    agent(
        "message",
        "session/update",
        json!({ "sessionId": UPSTREAM, "_meta": { "x": 1 }, "update": {
            "sessionUpdate": "agent_message_chunk", "content": text, "future": 1 } }),
        "stream_output",
        update(
            json!({ "sessionId": SESSION, "update": { "sessionUpdate": "agent_message_chunk", "content": text } }),
        ),
    );
    agent(
        "tool-call-with-another-session",
        "session/update",
        json!({ "sessionId": UPSTREAM, "update": { "sessionUpdate": "tool_call", "toolCallId": "c", "title": "t",
            "content": [{ "type": "session", "sessionId": "child" }, { "type": "content", "content": text }] } }),
        "stream_output",
        update(json!({ "sessionId": SESSION, "update": { "sessionUpdate": "tool_call", "toolCallId": "c",
            "title": "t", "content": [{ "type": "content", "content": text }] } })),
    );
    let mut asked = permission();
    asked["sessionId"] = json!(SESSION);
    asked["options"].as_array_mut().unwrap().remove(1);
    agent(
        "permission",
        "session/request_permission",
        permission(),
        "send_input",
        json!({ "jsonrpc": "2.0", "id": 9, "method": "session/request_permission", "params": asked }),
    );
    agent(
        "list",
        "session/list",
        json!({ "sessions": [
            { "sessionId": "other", "cwd": "/other" },
            { "sessionId": UPSTREAM, "cwd": "/home/me", "title": "tests" }] }),
        "read_metadata",
        json!({ "jsonrpc": "2.0", "id": 1, "result": { "sessions": [
            { "sessionId": SESSION, "title": "tests", "cwd": "/" }] } }),
    );
}

fn acp_refused(files: &mut Files) {
    let mut refused = |name: &str, input: &str, error: &str| {
        let value = json!({ "kind": "acp_from_phone", "input": input, "error": error });
        invalid(files, &format!("acp-phone-{name}"), value);
    };
    let request = |method: &str, params: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":2,"method":"{method}","params":{params}}}"#)
    };
    let prompt =
        |block: &str| request("session/prompt", &format!(r#"{{"sessionId":"build-42","prompt":[{block}]}}"#));
    refused("batch", &format!("[{}]", request("session/list", "{}")), "batch");
    refused("key-twice", r#"{"jsonrpc":"2.0","id":2,"id":3,"method":"session/list"}"#, "not_json");
    refused(
        "key-twice-escaped",
        r#"{"jsonrpc":"2.0","id":2,"\u0069d":3,"method":"session/list"}"#,
        "not_json",
    );
    refused(
        "unknown-top-level-key",
        r#"{"jsonrpc":"2.0","id":2,"method":"session/list","x":1}"#,
        "malformed",
    );
    refused(
        "result-and-error",
        r#"{"jsonrpc":"2.0","id":7,"result":1,"error":{"code":1,"message":"m"}}"#,
        "malformed",
    );
    refused("jsonrpc-1", r#"{"jsonrpc":"1.0","id":2,"method":"session/list"}"#, "malformed");
    refused("fraction-as-id", r#"{"jsonrpc":"2.0","id":2.5,"method":"session/list"}"#, "malformed");
    refused("id-in-use", r#"{"jsonrpc":"2.0","id":1,"method":"session/list"}"#, "id_in_use");
    refused("unknown-method", &request("session/everything", "{}"), "unknown_method");
    refused(
        "prompt-as-notification",
        r#"{"jsonrpc":"2.0","method":"session/prompt","params":{}}"#,
        "unknown_method",
    );
    refused("new", &request("session/new", r#"{"cwd":"/","mcpServers":[]}"#), "operation_denied");
    refused(
        "set-mode",
        &request("session/set_mode", r#"{"sessionId":"build-42","modeId":"yolo"}"#),
        "operation_denied",
    );
    refused(
        "read-file",
        &request("fs/read_text_file", r#"{"sessionId":"build-42","path":"/"}"#),
        "operation_denied",
    );
    refused(
        "terminal",
        &request("terminal/create", r#"{"sessionId":"build-42","command":"sh"}"#),
        "operation_denied",
    );
    refused(
        "tool-call-cancel",
        &request("tool_call/cancel", r#"{"sessionId":"build-42","toolCallId":"c"}"#),
        "not_served",
    );
    refused("other-session", &request("session/status", r#"{"sessionId":"other"}"#), "other_session");
    refused(
        "upstream-session",
        &request("session/status", &json!({ "sessionId": UPSTREAM }).to_string()),
        "other_session",
    );
    refused(
        "both-spellings",
        &request("session/status", r#"{"sessionId":"build-42","session_id":"build-42"}"#),
        "parameters",
    );
    refused("other-spelling", &request("session/status", r#"{"session_id":"build-42"}"#), "parameters");
    refused(
        "unknown-parameter",
        &request("session/status", r#"{"sessionId":"build-42","all":true}"#),
        "parameters",
    );
    refused(
        "load-with-a-program",
        &request(
            "session/load",
            r#"{"sessionId":"build-42","cwd":"/","mcpServers":[{"name":"x","command":"sh"}]}"#,
        ),
        "parameters",
    );
    refused(
        "load-with-null-programs",
        &request("session/load", r#"{"sessionId":"build-42","cwd":"/","mcpServers":null}"#),
        "parameters",
    );
    refused(
        "resume-with-a-root",
        &request("session/resume", r#"{"sessionId":"build-42","cwd":"/","additionalDirectories":["/etc"]}"#),
        "parameters",
    );
    refused(
        "resume-with-a-system-prompt",
        &request(
            "session/resume",
            r#"{"sessionId":"build-42","systemPrompt":{"mode":"override","content":[]}}"#,
        ),
        "parameters",
    );
    refused(
        "prompt-with-a-link",
        &prompt(r#"{"type":"resource_link","name":"n","uri":"file:///etc/passwd"}"#),
        "parameters",
    );
    refused(
        "prompt-of-nothing",
        &request("session/prompt", r#"{"sessionId":"build-42","prompt":[]}"#),
        "parameters",
    );
    refused(
        "cancel-of-a-foreign-request",
        r#"{"jsonrpc":"2.0","method":"$/cancel_request","params":{"requestId":"1"}}"#,
        "not_pending",
    );
    let answer = |id: &str, option: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"outcome":{{"outcome":"selected","optionId":"{option}"}}}}}}"#
        )
    };
    refused("answer-that-lasts", &answer("7", "always"), "not_offered");
    refused("answer-that-is-invented", &answer("7", "maybe"), "not_offered");
    refused("answer-to-nothing", &answer("8", "once"), "not_pending");
    refused("answer-to-a-text", &answer("\"7\"", "once"), "not_pending");

    let mut withheld = |name: &str, method: &str, params: Value| {
        let value = json!({ "kind": "acp_to_phone", "method": method, "input": params, "error": "withheld" });
        invalid(files, &format!("acp-agent-{name}"), value);
    };
    let text = json!({ "type": "text", "text": "t" });
    let chunk = json!({ "sessionUpdate": "agent_message_chunk", "content": text });
    withheld("other-session", "session/update", json!({ "sessionId": "other", "update": chunk }));
    withheld(
        "phones-name-of-the-session",
        "session/update",
        json!({ "sessionId": SESSION, "update": chunk }),
    );
    withheld(
        "unknown-update",
        "session/update",
        json!({ "sessionId": UPSTREAM, "update": { "sessionUpdate": "later", "content": text } }),
    );
    withheld(
        "message-of-a-subagent",
        "session/update",
        json!({ "sessionId": UPSTREAM, "update": { "sessionUpdate": "session_message", "messageId": "m",
            "senderSessionId": "child", "content": [text] } }),
    );
    let mut lasting = permission();
    lasting["options"].as_array_mut().unwrap().retain(|option| option["kind"] == "allow_always");
    withheld("permission-that-lasts", "session/request_permission", lasting);
    withheld("read-file", "fs/read_text_file", json!({ "sessionId": UPSTREAM, "path": "/" }));
    withheld(
        "web-page",
        "elicitation/create",
        json!({ "sessionId": UPSTREAM, "mode": "url", "message": "m", "elicitationId": "e", "url": "https://a" }),
    );
}

fn deployed(files: &mut Files) {
    let mut served = |name: &str, request: &str, op: &str, upstream: Value, answer: Value, shown: Value| {
        let value = json!({ "kind": "dd_request", "request": request, "op": op, "upstream": upstream,
            "answer": answer, "shown": shown });
        valid(files, &format!("dd-{name}"), value);
    };
    let entry = |id: &str| json!({ "id": id, "name": "n", "cols": 80, "rows": 24, "running": true });
    let mut own = entry(SESSION);
    own["command"] = json!("psql -p secret");
    own["cwd"] = json!("/home/me");
    served(
        "list-sessions",
        r#"{"method":"shell.list_sessions"}"#,
        "read_metadata",
        json!({ "method": "shell.list_sessions" }),
        json!({ "ok": true, "sessions": [entry("other"), own] }),
        json!({ "ok": true, "sessions": [entry(SESSION)] }),
    );
    served(
        "attach-session",
        r#"{"method":"shell.attach_session","tail":true}"#,
        "stream_output",
        json!({ "method": "shell.attach_session", "id": SESSION, "tail": true }),
        json!({ "ok": true, "pid": 7 }),
        json!({ "ok": true }),
    );
    served(
        "replay-session",
        r#"{"method":"shell.replay_session","id":"build-42"}"#,
        "read_history",
        json!({ "method": "shell.replay_session", "id": SESSION }),
        json!({ "ok": true, "id": SESSION, "data": "aGk=", "truncated": false, "path": "/log" }),
        json!({ "ok": true, "id": SESSION, "data": "aGk=", "truncated": false }),
    );
    served(
        "resize-session",
        r#"{"rows":24,"cols":80,"method":"shell.resize_session"}"#,
        "resize",
        json!({ "method": "shell.resize_session", "id": SESSION, "cols": 80, "rows": 24 }),
        json!({ "error": "shell_failed", "detail": "no terminal", "path": "/" }),
        json!({ "error": "shell_failed", "detail": "no terminal" }),
    );
    let mut refused = |name: &str, input: &str, error: &str| {
        let value = json!({ "kind": "dd_request", "input": input, "error": error });
        invalid(files, &format!("dd-{name}"), value);
    };
    refused("no-object", r#"["shell.list_sessions"]"#, "malformed");
    refused("no-method", r#"{"id":"build-42"}"#, "malformed");
    refused("method-twice", r#"{"method":"exec","method":"shell.list_sessions"}"#, "malformed");
    refused("id-twice", r#"{"method":"shell.replay_session","id":"build-42","id":"other"}"#, "malformed");
    refused("exec", r#"{"method":"exec","cmd":["sh"]}"#, "privilege_denied");
    refused("attach-of-a-command", r#"{"method":"attach","cmd":["sh"]}"#, "privilege_denied");
    refused("create-session", r#"{"method":"shell.create_session","command":"sh"}"#, "privilege_denied");
    refused("close-session", r#"{"method":"shell.close_session","id":"build-42"}"#, "privilege_denied");
    refused("unknown-method", r#"{"method":"shell.detach"}"#, "unknown_method");
    refused("id-that-climbs", r#"{"method":"shell.replay_session","id":"../sessions?"}"#, "other_session");
    refused(
        "id-with-words-behind",
        r#"{"method":"shell.attach_session","id":"build-42 notail"}"#,
        "other_session",
    );
    refused("readonly", r#"{"method":"shell.attach_session","id":"build-42","readonly":true}"#, "parameters");
    refused("size-of-nothing", r#"{"method":"shell.resize_session","cols":0,"rows":24}"#, "parameters");
}
