//! Whatever comes in, what goes out is a message of the official schema, for the one session, and nothing that a
//! credential could not allow. The judge shares no code with the adapter: it reads the output with the types of the
//! official crate. Those are lenient, so that what they write again must also be the same value.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fmt::Debug;

use agent_client_protocol_schema::{ProtocolVersion, v1, v2};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use sessioncap::acp::{AcpSessionId, FromPhone, Guest, Json, Message, RequestId, ToPhone};
use sessioncap::{OpSet, SessionId};

const OWN: &str = "mine";
const UPSTREAM: &str = "agent session/1";
const OTHER: &str = "agent session/2";
/// In every value that no phone and no agent may be sent.
const SECRET: &str = "SECRET";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// `SESSIONCAP_CASES` multiplies the cases, `SESSIONCAP_SEED` chooses them.
fn cases(mut case: impl FnMut(&mut StdRng)) {
    let mut rng = StdRng::seed_from_u64(number("SESSIONCAP_SEED", 1));
    for _ in 0..8_000 * number("SESSIONCAP_CASES", 1) {
        case(&mut rng);
    }
}

fn guest() -> Guest {
    Guest::new(SessionId::new(OWN).unwrap(), AcpSessionId::new(UPSTREAM).unwrap(), OpSet::ALL)
}

fn json(value: &Value) -> Option<Json> {
    Json::from_bytes(value.to_string().as_bytes(), Message::MAX_LEN, Message::MAX_DEPTH).ok()
}

/// Without what stands for "nothing", which writers may leave out.
fn plain(value: &Value) -> Value {
    let nothing = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    };
    match value {
        Value::Array(values) => values.iter().map(plain).collect(),
        Value::Object(entries) => entries
            .iter()
            .map(|(key, value)| (key.clone(), plain(value)))
            .filter(|(key, value)| {
                let default = (key == "kind" && value == "other") || (key == "status" && value == "pending");
                !nothing(value) && !default
            })
            .collect::<Map<_, _>>()
            .into(),
        // One and the same, however they are spelled.
        Value::Number(number) => json!(number.as_f64()),
        other => other.clone(),
    }
}

/// Reads as the official type, and that writes the same again.
fn official<T: DeserializeOwned + Serialize + Debug>(value: &Value) -> Result<T, String> {
    let read: T = serde_json::from_value(value.clone()).map_err(|error| format!("{error}: {value}"))?;
    let again = serde_json::to_value(&read).unwrap();
    if plain(&again) == plain(value) { Ok(read) } else { Err(format!("{value} is read as {again}")) }
}

fn is_official<T: DeserializeOwned + Serialize + Debug>(value: &Value) -> T {
    official(value).unwrap_or_else(|error| panic!("{error}"))
}

/// Changes a value in a few places, as an attacker or a later version would.
fn change(value: &mut Value, rng: &mut StdRng) {
    for _ in 0..rng.gen_range(0..4) {
        change_once(value, rng);
    }
}

fn change_once(value: &mut Value, rng: &mut StdRng) {
    let added = [
        "_meta",
        "session_id",
        "sessionId",
        "futureKey",
        "mcpServers",
        "uri",
        "cwd",
        "systemPrompt",
        "method",
    ];
    match value {
        Value::Object(entries) if !entries.is_empty() && rng.gen_bool(0.85) => {
            let keys: Vec<String> = entries.keys().cloned().collect();
            let key = keys.choose(rng).unwrap().clone();
            match rng.gen_range(0..10) {
                0 => drop(entries.remove(&key)),
                1 | 2 => {
                    let key = *added.choose(rng).unwrap();
                    let value = if key == "sessionId" || key == "session_id" { id(rng) } else { odd(rng) };
                    // An address is looked at where there is one; elsewhere it is as foreign as the others.
                    if key != "uri" {
                        entries.insert(key.to_owned(), value);
                    }
                }
                // Content, whatever it is.
                _ if key == "rawInput" || key == "rawOutput" => {}
                _ if key.ends_with("essionId") => drop(entries.insert(key, id(rng))),
                _ => change_once(entries.get_mut(&key).unwrap(), rng),
            }
        }
        Value::Array(values) if !values.is_empty() && rng.gen_bool(0.8) => {
            let at = rng.gen_range(0..values.len());
            if rng.gen_bool(0.2) {
                values.push(values[at].clone());
            } else {
                change_once(&mut values[at], rng);
            }
        }
        Value::String(text) if rng.gen_bool(0.7) => {
            let texts = [
                "text",
                "image",
                "audio",
                "resource",
                "resource_link",
                "selected",
                "cancelled",
                "accept",
                "decline",
                "yes",
                "always",
                "no",
                "never",
                "allow_once",
                "allow_always",
                "reject_once",
                "tool_call",
                "plan",
                "tool_call_update",
                "agent_message_chunk",
                "session_message",
                "session_message_chunk",
                "subagent_update",
                "notice",
                "usage_update",
                "completed",
                "high",
                "end_turn",
                "form",
                "url",
                "",
            ];
            *text = (*texts.choose(rng).unwrap()).to_owned();
        }
        other => *other = odd(rng),
    }
}

fn id(rng: &mut StdRng) -> Value {
    json!(*[OWN, UPSTREAM, OTHER, "", "MINE"].choose(rng).unwrap())
}

fn odd(rng: &mut StdRng) -> Value {
    match rng.gen_range(0..6) {
        0 => json!(null),
        1 => json!([]),
        2 => json!({ SECRET: 1 }),
        3 => json!([{ SECRET: SECRET }]),
        4 => json!(true),
        _ => json!(-1),
    }
}

fn permission() -> Value {
    json!({
        "sessionId": UPSTREAM,
        "toolCall": { "toolCallId": "t", "title": "run", "kind": "execute", "rawInput": { "a": [1] },
            "content": [{ "type": "diff", "path": "/a", "oldText": "o", "newText": "n" }] },
        "options": [
            { "optionId": "yes", "name": "Allow", "kind": "allow_once" },
            { "optionId": "always", "name": "Always", "kind": "allow_always" },
            { "optionId": "no", "name": "Reject", "kind": "reject_once" },
            { "optionId": "never", "name": "Never", "kind": "reject_always" },
        ],
    })
}

fn form() -> Value {
    json!({
        "sessionId": UPSTREAM, "mode": "form", "message": "which?",
        "requestedSchema": { "type": "object", "properties": {
            "name": { "type": "string", "title": "Name", "minLength": 1 },
            "count": { "type": "integer", "minimum": 1 },
            "sure": { "type": "boolean", "default": true },
            "one": { "type": "string", "enum": ["a", "b"] },
            "some": { "type": "array", "items": { "type": "string", "enum": ["x", "y"] } },
        }, "required": ["name"] },
    })
}

fn phone_messages() -> Vec<Value> {
    let request = |method: &str, params: Value| json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let answer = |id: i64, result: Value| json!({ "jsonrpc": "2.0", "id": id, "result": result });
    let follow = json!({ "sessionId": OWN, "cwd": "/", "mcpServers": [] });
    vec![
        request(
            "session/prompt",
            json!({ "sessionId": OWN, "prompt": [
                { "type": "text", "text": "t", "annotations": { "audience": ["user"], "priority": 0.5 } },
                { "type": "image", "data": "aGk=", "mimeType": "image/png" },
                { "type": "audio", "data": "aGk=", "mimeType": "audio/wav" },
                { "type": "resource", "resource": { "uri": "file:///a", "text": "t" } } ] }),
        ),
        request("session/load", follow.clone()),
        request("session/resume", follow),
        request("session/list", json!({})),
        request("session/status", json!({ "sessionId": OWN })),
        request(
            "initialize",
            json!({ "protocolVersion": 1, "clientCapabilities": { "fs": { "readTextFile": true } } }),
        ),
        json!({ "jsonrpc": "2.0", "method": "session/cancel", "params": { "sessionId": OWN } }),
        answer(7, json!({ "outcome": { "outcome": "selected", "optionId": "yes" } })),
        answer(
            8,
            json!({ "action": "accept", "content": { "name": "n", "count": 1, "sure": true, "one": "a",
            "some": ["x"] } }),
        ),
    ]
}

/// What would make the agent's program open something.
fn hostile_blocks() -> [Value; 4] {
    [
        json!({ "type": "resource_link", "name": "n", "uri": "file:///etc/passwd" }),
        json!({ "type": "image", "data": "aGk=", "mimeType": "image/png", "uri": "http://inside/" }),
        json!({ "type": "resource", "resource": { "uri": "file:///a", "blob": "aGk=" } }),
        json!({ "type": "text", "text": "t", "_meta": { SECRET: 1 } }),
    ]
}

#[test]
fn whatever_a_phone_sends_the_agent_gets_a_message_of_the_schema_for_the_one_session_or_nothing() {
    let mut guest = guest();
    assert!(guest.ask(7, "session/request_permission", &json(&permission()).unwrap()).is_some());
    assert!(guest.ask(8, "elicitation/create", &json(&form()).unwrap()).is_some());
    let (mut taken, mut refused) = (0, 0);
    cases(|rng| {
        let mut message = phone_messages().choose(rng).unwrap().clone();
        if let Some(Value::Array(blocks)) =
            message.pointer_mut("/params/prompt").filter(|_| rng.gen_bool(0.3))
        {
            blocks.push(hostile_blocks().choose(rng).unwrap().clone());
        }
        change(&mut message, rng);
        let mut text = message.to_string();
        let named = format!("\"sessionId\":\"{OWN}\"");
        if text.contains(&named) && rng.gen_bool(0.05) {
            let other = format!("\"sessionId\":\"{OTHER}\"");
            let twice =
                if rng.gen_bool(0.5) { format!("{other},{named}") } else { format!("{named},{other}") };
            text = text.replacen(&named, &twice, 1);
            assert!(guest.read(text.as_bytes()).is_err(), "two readers could take different ids: {text}");
        }
        let Ok(read) = guest.read(text.as_bytes()) else {
            refused += 1;
            return;
        };
        taken += 1;
        // What was read named the phone's session and nothing else, in the one spelling.
        let params = &message["params"];
        assert!(params.get("session_id").is_none(), "{message}");
        assert!(params.get("sessionId").is_none_or(|id| id == OWN), "{message}");
        if let Some((method, params)) = read.upstream(guest.upstream()) {
            let params: Value = serde_json::from_str(&params.to_text()).unwrap();
            assert!(!params.to_string().contains(SECRET), "{params}");
            match method {
                "session/prompt" => {
                    let request: v1::PromptRequest = is_official(&params);
                    assert_eq!(&*request.session_id.0, UPSTREAM);
                    assert!(!request.prompt.is_empty());
                    for block in &request.prompt {
                        let opens_something = match block {
                            v1::ContentBlock::ResourceLink(_) => true,
                            v1::ContentBlock::Image(image) => image.uri.is_some(),
                            v1::ContentBlock::Resource(resource) => matches!(
                                resource.resource,
                                v1::EmbeddedResourceResource::BlobResourceContents(_)
                            ),
                            _ => false,
                        };
                        assert!(!opens_something, "{block:?}");
                    }
                }
                "session/cancel" => {
                    let cancel: v1::CancelNotification = is_official(&params);
                    assert_eq!(&*cancel.session_id.0, UPSTREAM);
                }
                other => panic!("{other} went to the agent"),
            }
        }
        if let FromPhone::Answer { question, outcome } = read {
            let outcome: Value = serde_json::from_str(&outcome.to_text()).unwrap();
            assert!(!outcome.to_string().contains(SECRET), "{outcome}");
            if question == 7 {
                let answer: v1::RequestPermissionResponse = is_official(&outcome);
                if let v1::RequestPermissionOutcome::Selected(selected) = answer.outcome {
                    assert!(["yes", "no"].contains(&&*selected.option_id.0), "{outcome}");
                }
            } else {
                is_official::<v1::CreateElicitationResponse>(&outcome);
            }
        }
    });
    assert!(taken > 500 && refused > 500, "{taken} {refused}");
}

fn updates() -> Vec<Value> {
    let block = json!({ "type": "text", "text": "t" });
    [
        json!({ "sessionUpdate": "user_message_chunk", "content": block, "messageId": "m" }),
        json!({ "sessionUpdate": "agent_message_chunk", "content": { "type": "image", "data": "aGk=",
            "mimeType": "image/png", "uri": "file:///a" } }),
        json!({ "sessionUpdate": "agent_thought_chunk", "content": { "type": "resource", "resource": {
            "uri": "file:///a", "blob": "aGk=" } } }),
        json!({ "sessionUpdate": "tool_call", "toolCallId": "t", "title": "run", "kind": "execute",
            "status": "in_progress", "rawInput": { "deep": [{ "a": 1 }] }, "locations": [{ "path": "/a", "line": 3 }],
            "content": [{ "type": "content", "content": block }, { "type": "terminal", "terminalId": "1" },
                { "type": "diff", "path": "/a", "newText": "n" }, { "type": "session", "sessionId": UPSTREAM }] }),
        json!({ "sessionUpdate": "tool_call_update", "toolCallId": "t", "status": "completed" }),
        json!({ "sessionUpdate": "plan", "entries": [{ "content": "c", "priority": "high", "status": "completed" }] }),
        json!({ "sessionUpdate": "plan_update", "plan": { "type": "markdown", "planId": "p", "content": "c" } }),
        json!({ "sessionUpdate": "plan_removed", "planId": "p" }),
        json!({ "sessionUpdate": "available_commands_update", "availableCommands": [
            { "name": "n", "description": "d", "input": { "hint": "h" } }] }),
        json!({ "sessionUpdate": "current_mode_update", "currentModeId": "ask" }),
        json!({ "sessionUpdate": "config_option_update", "configOptions": [{ "type": "select", "id": "m",
            "name": "Model", "category": "model", "currentValue": "a", "options": [{ "value": "a", "name": "A" }] }] }),
        json!({ "sessionUpdate": "session_info_update", "title": "t" }),
        json!({ "sessionUpdate": "usage_update", "used": 1, "size": 2, "cost": { "amount": 0.5, "currency": "USD" } }),
        json!({ "sessionUpdate": "notice", "severity": "warning", "title": "t" }),
        json!({ "sessionUpdate": "compaction_update", "compactionId": "c", "status": "completed", "summary": [block] }),
        json!({ "sessionUpdate": "compaction_summary_chunk", "compactionId": "c", "content": block }),
        json!({ "sessionUpdate": "subagent_update", "sessionId": UPSTREAM, "title": "t" }),
        json!({ "sessionUpdate": "session_message", "messageId": "m", "senderSessionId": UPSTREAM, "content": [block] }),
        json!({ "sessionUpdate": "session_message_chunk", "messageId": "m", "content": block }),
        json!({ "sessionUpdate": "agent_message", "messageId": "m", "content": [block] }),
        json!({ "sessionUpdate": "state_update", "state": "idle", "stopReason": "end_turn" }),
        json!({ "sessionUpdate": "tool_call_content_chunk", "toolCallId": "t", "content": { "type": "content",
            "content": block } }),
        json!({ "sessionUpdate": "terminal_output_chunk", "terminalId": "1", "data": "d" }),
    ]
    .map(|update| json!({ "sessionId": UPSTREAM, "update": update }))
    .to_vec()
}

/// The message of JSON-RPC that a phone gets.
fn sent(sent: &ToPhone) -> Value {
    assert!(
        !sent.text.contains(SECRET) && !sent.text.contains(OTHER) && !sent.text.contains(UPSTREAM),
        "{}",
        sent.text
    );
    let message: Value = serde_json::from_str(&sent.text).unwrap();
    let known = ["jsonrpc", "id", "method", "params", "result", "error"];
    assert!(message.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{message}");
    assert_eq!(message["jsonrpc"], "2.0");
    message
}

#[test]
fn whatever_an_agent_updates_a_phone_gets_an_update_of_the_schema_for_its_session_or_nothing() {
    let guest = guest();
    let (mut shown, mut withheld) = (0, 0);
    cases(|rng| {
        let mut params = updates().choose(rng).unwrap().clone();
        change(&mut params, rng);
        let Some(read) = json(&params) else { return };
        let Some(update) = guest.update(&read) else {
            withheld += 1;
            return;
        };
        shown += 1;
        // It was of the session, and all of it: the name that goes out is the same for every session.
        assert_eq!(params["sessionId"], UPSTREAM);
        let kind = params["update"]["sessionUpdate"].as_str().unwrap();
        for key in ["sessionId", "senderSessionId", "recipientSessionId"] {
            let named = params["update"].get(key).is_some_and(|id| !id.is_null() && id != UPSTREAM);
            let of_this_kind = kind == "session_message" || (kind == "subagent_update" && key == "sessionId");
            assert!(!named || !of_this_kind || (kind == "session_message" && key == "sessionId"), "{params}");
        }
        let message = sent(&update);
        assert_eq!(message["method"], "session/update");
        let params = &message["params"];
        assert_ne!(params["update"]["sessionUpdate"], "session_message_chunk");
        let first = official::<v1::SessionNotification>(params).map(|read| read.session_id.0.to_string());
        let either = first.or_else(|first| {
            let second =
                official::<v2::UpdateSessionNotification>(params).and_then(|read| match read.update {
                    v2::SessionUpdate::Other(_) => Err("of no kind".to_owned()),
                    _ => Ok(read.session_id.0.to_string()),
                });
            second.map_err(|second| format!("{first}; {second}"))
        });
        assert_eq!(either.as_deref(), Ok(OWN));
    });
    assert!(shown > 500 && withheld > 500, "{shown} {withheld}");
}

#[test]
fn whatever_an_agent_asks_a_phone_is_asked_a_question_of_the_schema_that_holds_once_or_nothing() {
    let (mut shown, mut withheld) = (0, 0);
    cases(|rng| {
        let mut guest = guest();
        let (method, mut params) = if rng.gen_bool(0.5) {
            ("session/request_permission", permission())
        } else {
            ("elicitation/create", form())
        };
        change(&mut params, rng);
        let Some(read) = json(&params) else { return };
        let Some(asked) = guest.ask(3, method, &read) else {
            withheld += 1;
            return;
        };
        shown += 1;
        assert_eq!(params["sessionId"], UPSTREAM);
        let message = sent(&asked);
        assert_eq!((&message["id"], &message["method"]), (&json!(3), &json!(method)));
        if method == "elicitation/create" {
            is_official::<v1::CreateElicitationRequest>(&message["params"]);
            assert_eq!(
                (&message["params"]["mode"], &message["params"]["sessionId"]),
                (&json!("form"), &json!(OWN))
            );
            return;
        }
        let request: v1::RequestPermissionRequest = is_official(&message["params"]);
        assert_eq!(&*request.session_id.0, OWN);
        assert!(!request.options.is_empty());
        for option in &request.options {
            let once = matches!(
                option.kind,
                v1::PermissionOptionKind::AllowOnce | v1::PermissionOptionKind::RejectOnce
            );
            assert!(once, "{option:?}");
        }
    });
    assert!(shown > 300 && withheld > 300, "{shown} {withheld}");
}

#[test]
fn whatever_an_agent_answers_a_phone_gets_a_result_of_the_schema_about_its_session_or_an_error() {
    let modes = json!({ "currentModeId": "a", "availableModes": [{ "id": "a", "name": "A" }] });
    let follow = json!({ "sessionId": OWN, "cwd": "/", "mcpServers": [] });
    let answers = [
        (
            "initialize",
            json!({ "protocolVersion": 1 }),
            json!({ "protocolVersion": 1, "agentCapabilities": { "loadSession": true, "promptCapabilities":
                { "image": true }, "sessionCapabilities": { "delete": {} } }, "agentInfo": { "name": "a",
                "version": "1" }, "authMethods": [{ "id": SECRET, "name": SECRET }] }),
        ),
        (
            "session/list",
            json!({}),
            json!({ "sessions": [{ "sessionId": OTHER, "cwd": "/other", "title": "theirs" },
                { "sessionId": UPSTREAM, "cwd": "/secret", "title": "t", "updatedAt": "2026-01-01T00:00:00Z" }] }),
        ),
        (
            "session/prompt",
            json!({ "sessionId": OWN, "prompt": [{ "type": "text", "text": "t" }] }),
            json!({ "stopReason": "end_turn", "usage": { "totalTokens": 3, "inputTokens": 1, "outputTokens": 2 } }),
        ),
        ("session/load", follow.clone(), json!({ "modes": modes })),
        ("session/resume", follow, json!({ "modes": modes })),
        ("session/status", json!({ "sessionId": OWN }), json!({ "status": "open" })),
    ];
    let (mut results, mut errors) = (0, 0);
    cases(|rng| {
        let (method, params, mut answer) = answers.choose(rng).unwrap().clone();
        change(&mut answer, rng);
        let Some(answer) = json(&answer) else { return };
        let mut guest = guest();
        let request = json!({ "jsonrpc": "2.0", "id": "r", "method": method, "params": params });
        let asked = guest.read(request.to_string().as_bytes()).unwrap();
        guest.take(&asked).unwrap();
        let answered = guest.result(&RequestId::Text("r".to_owned()), &Ok(answer)).unwrap();
        let message = sent(&answered);
        assert_eq!(message["id"], "r");
        let Some(result) = message.get("result") else {
            assert!(message["error"]["code"].is_i64());
            errors += 1;
            return;
        };
        results += 1;
        match method {
            "initialize" => {
                let read: v1::InitializeResponse = is_official(result);
                assert!(read.auth_methods.is_empty());
                let can = read.agent_capabilities.session_capabilities;
                assert!(can.delete.is_none() && can.fork.is_none() && can.close.is_none());
            }
            "session/list" => {
                let read: v1::ListSessionsResponse = is_official(result);
                let ids: Vec<_> =
                    read.sessions.iter().map(|session| session.session_id.0.to_string()).collect();
                assert_eq!(ids, [OWN]);
                assert_eq!(read.sessions[0].cwd.to_str(), Some("/"));
            }
            "session/prompt" => drop(is_official::<v1::PromptResponse>(result)),
            "session/load" => drop(is_official::<v1::LoadSessionResponse>(result)),
            "session/resume" => drop(is_official::<v1::ResumeSessionResponse>(result)),
            _ => drop(is_official::<v1::SessionStatusResponse>(result)),
        }
    });
    assert!(results > 500 && errors > 50, "{results} {errors}");
}

/// What the official crate writes for a phone is taken: nobody has to write messages by hand.
#[test]
fn a_phone_of_the_official_crate_is_understood() {
    let mut guest = guest();
    assert!(guest.ask(7, "session/request_permission", &json(&permission()).unwrap()).is_some());
    let own = || v1::SessionId::new(OWN);
    fn written(method: &str, params: impl Serialize) -> Value {
        json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
    }
    let text = v1::ContentBlock::Text(v1::TextContent::new("hello"));
    for message in [
        written("initialize", v1::InitializeRequest::new(ProtocolVersion::V1)),
        written("authenticate", v1::AuthenticateRequest::new("link")),
        written("logout", v1::LogoutRequest::new()),
        written("session/list", v1::ListSessionsRequest::new()),
        written("session/status", v1::SessionStatusRequest::new(own())),
        written("session/prompt", v1::PromptRequest::new(own(), vec![text])),
        written("session/load", v1::LoadSessionRequest::new(own(), "/")),
        written("session/resume", v1::ResumeSessionRequest::new(own(), "/")),
    ] {
        let read = guest.read(message.to_string().as_bytes());
        assert!(read.is_ok(), "{message}: {read:?}");
    }
    let cancel = serde_json::to_value(v1::CancelNotification::new(own())).unwrap();
    let cancel = json!({ "jsonrpc": "2.0", "method": "session/cancel", "params": cancel });
    assert_eq!(guest.read(cancel.to_string().as_bytes()), Ok(FromPhone::Cancel));
    let selected = v1::RequestPermissionOutcome::Selected(v1::SelectedPermissionOutcome::new("yes"));
    for outcome in [selected, v1::RequestPermissionOutcome::Cancelled] {
        let result = serde_json::to_value(v1::RequestPermissionResponse::new(outcome)).unwrap();
        let answer = json!({ "jsonrpc": "2.0", "id": 7, "result": result });
        assert!(guest.read(answer.to_string().as_bytes()).is_ok(), "{answer}");
    }
}
