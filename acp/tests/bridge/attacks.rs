//! Attempts of a phone to go beyond its credential, and peers without one.

use futures_util::{SinkExt, StreamExt};
use sessioncap::acp::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite;

use super::*;

#[tokio::test]
async fn everything_else_is_refused_with_an_error_that_says_what_a_person_can_do() {
    let bridge = Bridge::start().await;
    let (mut desktop, upstream, session) = bridge.with_session().await;
    let other = desktop.new_session().await;
    let other_id = bridge.session(&other).await;
    let mut phone = bridge.phone(&session, "phone.json").await;
    let own = session.as_str();
    let prompt = json!([{ "type": "text", "text": "echo smuggled" }]);
    let tries = [
        ("session/new", json!({ "cwd": "/", "mcpServers": [] }), "operation_denied"),
        ("session/fork", json!({ "sessionId": own, "cwd": "/", "mcpServers": [] }), "operation_denied"),
        ("session/set_mode", json!({ "sessionId": own, "modeId": "code" }), "operation_denied"),
        (
            "session/set_config_option",
            json!({ "sessionId": own, "configId": "m", "value": "x" }),
            "operation_denied",
        ),
        ("session/set_title", json!({ "sessionId": own, "title": "x" }), "operation_denied"),
        ("session/close", json!({ "sessionId": own }), "operation_denied"),
        ("session/delete", json!({ "sessionId": own }), "operation_denied"),
        ("providers/list", json!({}), "operation_denied"),
        ("fs/read_text_file", json!({ "sessionId": own, "path": "/etc/passwd" }), "operation_denied"),
        (
            "fs/write_text_file",
            json!({ "sessionId": own, "path": "/tmp/x", "content": "x" }),
            "operation_denied",
        ),
        ("terminal/create", json!({ "sessionId": own, "command": "id" }), "operation_denied"),
        ("terminal/run", json!({ "command": "id" }), "operation_denied"),
        ("session/prompt", json!({ "sessionId": other, "prompt": prompt }), "other_session"),
        ("session/prompt", json!({ "sessionId": other_id.as_str(), "prompt": prompt }), "other_session"),
        // Not even by the agent's own name of it.
        ("session/prompt", json!({ "sessionId": upstream, "prompt": prompt }), "other_session"),
        ("session/prompt", json!({ "sessionId": own, "session_id": other, "prompt": prompt }), "parameters"),
        ("session/prompt", json!({ "sessionId": own, "prompt": prompt, "mcpServers": [] }), "parameters"),
        (
            "session/load",
            json!({ "sessionId": own, "cwd": "/", "mcpServers": [{ "name": "x" }] }),
            "parameters",
        ),
        (
            "session/resume",
            json!({ "sessionId": other_id.as_str(), "cwd": "/", "mcpServers": [] }),
            "other_session",
        ),
        ("no/such_method", json!({}), "unknown_method"),
    ];
    for (method, asked, reason) in tries {
        let id = phone.ask(method, params(asked)).await.unwrap();
        let refused = outcome(&mut phone, &id).await.unwrap_err();
        assert_eq!(refused["reason"], reason, "{method}: {refused}");
        let sentence = refused["message"].as_str().unwrap();
        assert!(sentence.len() > 20, "{method}: {sentence}");
    }
    // Nothing of it has reached the agent: both sessions still answer, in their mode.
    for session in [&upstream, &other] {
        let id = desktop.prompt(session, "echo still here").await;
        desktop.answer(id).await.unwrap();
    }
    let heard = format!("{:?}", desktop.early);
    assert!(!heard.contains("smuggled") && !heard.contains("current_mode_update"), "{heard}");
}

#[tokio::test]
async fn each_operation_is_needed_for_what_it_names() {
    let bridge = Bridge::start().await;
    let (mut desktop, upstream, session) = bridge.with_session().await;
    for (missing, method, more) in [
        (Op::SendInput, "session/prompt", json!({ "prompt": [{ "type": "text", "text": "echo no" }] })),
        (Op::ReadHistory, "session/load", json!({ "cwd": "/", "mcpServers": [] })),
        (Op::StreamOutput, "session/resume", json!({ "cwd": "/", "mcpServers": [] })),
        (Op::ReadMetadata, "session/list", Value::Null),
    ] {
        let ops: OpSet = Op::ALL.iter().copied().filter(|op| *op != missing).collect();
        let mut phone = bridge.phone_with(&session, ops, &format!("{missing}.json")).await;
        let asked = match more {
            Value::Null => json!({}),
            mut more => {
                more["sessionId"] = session.as_str().into();
                more
            }
        };
        let id = phone.ask(method, params(asked)).await.unwrap();
        let refused = outcome(&mut phone, &id).await.unwrap_err();
        assert_eq!(refused["reason"], "not_granted", "{method}: {refused}");
        if missing == Op::StreamOutput {
            let id = desktop.prompt(&upstream, "echo unseen").await;
            desktop.answer(id).await.unwrap();
            let id = phone.ask("session/list", params(json!({}))).await.unwrap();
            let is_answer =
                |message: &Message| matches!(message, Message::Response { id: of, .. } if *of == id);
            loop {
                match within("the list", phone.next()).await.unwrap() {
                    Heard::Message(message) if is_answer(&message) => break,
                    Heard::Message(message) => assert!(said(&message).is_none(), "{message:?}"),
                    other => panic!("{other:?}"),
                }
            }
        }
        phone.leave().await;
    }
}

#[tokio::test]
async fn a_plain_peer_and_a_legacy_hello_are_told_how_to_pair_and_closed() {
    let bridge = Bridge::start().await;
    let port = bridge.world.url.port();
    for path in ["/acp", "/"] {
        for (first, id) in [
            (
                json!({ "jsonrpc": "2.0", "id": 7, "method": "initialize", "params": { "protocolVersion": 1 } }),
                json!(7),
            ),
            (json!({ "type": "Hello", "token": "dev" }), Value::Null),
        ] {
            let url = format!("ws://127.0.0.1:{port}{path}");
            let (mut socket, _) = within("a websocket", tokio_tungstenite::connect_async(url)).await.unwrap();
            socket.send(tungstenite::Message::text(first.to_string())).await.unwrap();
            let answer = within("an answer", socket.next()).await.unwrap().unwrap();
            let answer: Value = serde_json::from_str(answer.to_text().unwrap()).unwrap();
            assert_eq!((&answer["id"], &answer["error"]["data"]["reason"]), (&id, &json!("not_paired")));
            assert!(answer["error"]["message"].as_str().unwrap().contains("pair-mobile"));
            let close = within("the close", socket.next()).await;
            assert!(matches!(close, Some(Ok(tungstenite::Message::Close(_)))), "{close:?}");
        }
    }
}

#[tokio::test]
async fn no_http_request_reads_or_changes_a_session() {
    let bridge = Bridge::start().await;
    let (_desktop, upstream, session) = bridge.with_session().await;
    let port = bridge.world.url.port();
    for request in [
        "GET / ",
        "GET /acp ",
        "GET /sessions ",
        "POST /acp ",
        "GET /api/sessions ",
        "DELETE /sessions/1 ",
        "OPTIONS * ",
    ] {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let text = format!("{request}HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within("an answer", stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 "), "{request}: {answer}");
        assert!(!answer.contains(&upstream) && !answer.contains(session.as_str()), "{request}: {answer}");
    }
}

#[tokio::test]
async fn a_web_page_is_refused_whatever_path_it_asks_for() {
    use tungstenite::client::IntoClientRequest;
    let bridge = Bridge::start().await;
    for path in ["/acp", "/", bridge.world.url.path()] {
        let mut request =
            format!("ws://127.0.0.1:{}{path}", bridge.world.url.port()).into_client_request().unwrap();
        request.headers_mut().insert("Origin", "http://localhost:3000".parse().unwrap());
        match within("an answer", tokio_tungstenite::connect_async(request)).await {
            Err(tungstenite::Error::Http(response)) => assert_eq!(response.status(), 403, "{path}"),
            other => panic!("{path}: {other:?}"),
        }
    }
}
