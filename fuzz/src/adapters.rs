//! The bodies of the targets for the adapters of other protocols.

use sessioncap::acp::{AcpSessionId, FromPhone, Guest, Json, Message, RequestId, ToPhone};
use sessioncap::dd;
use sessioncap::{OpSet, SessionId};

const UPSTREAM: &str = "agent session/1";

/// The session of the phone.
fn own() -> SessionId {
    SessionId::new("mine").unwrap()
}

fn guest(upstream: &str) -> Guest {
    Guest::new(own(), AcpSessionId::new(upstream).unwrap(), OpSet::ALL)
}

/// The questions of an agent that are open at the phone, as 7 and 8.
const PERMISSION: &str = r#"{"sessionId":"agent session/1","toolCall":{"toolCallId":"t"},"options":[
    {"optionId":"yes","name":"Allow","kind":"allow_once"},{"optionId":"always","name":"A","kind":"allow_always"}]}"#;
const FORM: &str = r#"{"sessionId":"agent session/1","mode":"form","message":"m","requestedSchema":{"type":"object",
    "properties":{"name":{"type":"string"},"one":{"type":"string","enum":["a"]}},"required":["name"]}}"#;

fn json(text: &str) -> Json {
    Json::from_bytes(text.as_bytes(), Message::MAX_LEN, Message::MAX_DEPTH).unwrap()
}

/// A message of a phone after an even byte, what an agent sends after an odd one: 1 an update, 3 a permission, 5 a form,
/// otherwise the result of the request with id 1.
pub fn acp(data: &[u8]) {
    let Some((kind, text)) = data.split_first() else { return };
    if kind % 2 == 0 { acp_phone(text) } else { acp_agent(*kind, text) }
}

fn acp_phone(text: &[u8]) {
    let mut guest = guest(UPSTREAM);
    assert!(guest.ask(7, "session/request_permission", &json(PERMISSION)).is_some());
    assert!(guest.ask(8, "elicitation/create", &json(FORM)).is_some());
    let read = match guest.read(text) {
        Ok(read) => read,
        Err(refusal) => {
            let answer = refusal.answer();
            assert_eq!(answer.is_some(), refusal.id.is_some());
            answer.iter().for_each(|answer| drop(Message::from_bytes(answer.as_bytes()).unwrap()));
            return;
        }
    };
    if let Some((method, params)) = read.upstream(guest.upstream()) {
        assert!(["session/prompt", "session/cancel"].contains(&method));
        assert_eq!(params.get("sessionId").and_then(Json::as_text), Some(UPSTREAM));
        assert!(!params.to_text().contains("\"_meta\""));
    }
    match &read {
        // What was made anew reads as itself.
        FromPhone::Prompt { id, prompt } => {
            let params = vec![
                ("sessionId".to_owned(), Json::Text("mine".to_owned())),
                ("prompt".to_owned(), prompt.clone()),
            ];
            let again = Message::Request {
                id: id.clone(),
                method: "session/prompt".to_owned(),
                params: Some(Json::Object(params)),
            };
            assert_eq!(guest.read(again.to_text().as_bytes()).as_ref(), Ok(&read));
        }
        FromPhone::Answer { question, outcome } => {
            assert!(!outcome.to_text().contains("always"));
            let again = Message::Response { id: RequestId::Number(*question), outcome: Ok(outcome.clone()) };
            assert_eq!(guest.read(again.to_text().as_bytes()).as_ref(), Ok(&read));
        }
        FromPhone::CancelRequest { .. } => panic!("no request is open"),
        _ => {}
    }
    guest.take(&read).unwrap();
    if let Some(id) = read.id() {
        assert!(guest.take(&read).is_err(), "an id that waits is not used twice");
        let sent = guest.result(id, &Ok(Json::Null)).unwrap();
        assert!(Message::from_bytes(sent.text.as_bytes()).is_ok());
    }
}

fn acp_agent(kind: u8, text: &[u8]) {
    let Ok(params) = Json::from_bytes(text, Message::MAX_LEN, Message::MAX_DEPTH) else { return };
    // A second time with what the first one wrote, at a phone whose session has one name on both sides.
    let once = |upstream: &str, params: &Json| -> Option<ToPhone> {
        let mut guest = guest(upstream);
        match kind {
            1 => guest.update(params),
            3 => guest.ask(1, "session/request_permission", params),
            5 => guest.ask(1, "elicitation/create", params),
            _ => {
                let request =
                    br#"{"jsonrpc":"2.0","id":1,"method":"session/load","params":{"sessionId":"mine"}}"#;
                let asked = guest.read(request).unwrap();
                guest.take(&asked).unwrap();
                guest.result(&RequestId::Number(1), &Ok(params.clone()))
            }
        }
    };
    let Some(sent) = once(UPSTREAM, &params) else { return };
    let written = match Message::from_bytes(sent.text.as_bytes()).unwrap() {
        Message::Request { params: Some(params), .. }
        | Message::Notification { params: Some(params), .. } => {
            assert_eq!(params.get("sessionId").and_then(Json::as_text), Some("mine"));
            params
        }
        Message::Response { outcome: Ok(result), .. } => result,
        _ => return,
    };
    assert_eq!(once("mine", &written), Some(sent));
}

/// A phone's request in the deployed form after an even byte, otherwise an agent's answer to one.
pub fn dd(data: &[u8]) {
    let Some((kind, text)) = data.split_first() else { return };
    if kind % 2 == 0 {
        if let Ok(request) = dd::Request::read(text, &own()) {
            let written = request.to_text(&own());
            assert_eq!(dd::Request::read(written.as_bytes(), &own()), Ok(request));
            assert!(matches!(request, dd::Request::ListSessions) || written.contains("\"id\":\"mine\""));
        }
        return;
    }
    for request in [
        dd::Request::ListSessions,
        dd::Request::AttachSession { tail: true },
        dd::Request::ReplaySession,
        dd::Request::ResizeSession { cols: 1, rows: 1 },
    ] {
        let Ok(shown) = request.answer(text, &own()) else { continue };
        assert_eq!(request.answer(shown.as_bytes(), &own()), Ok(shown.clone()));
        let shown = json(&shown);
        if let Some(Json::List(sessions)) = shown.get("sessions") {
            assert!(sessions.iter().all(|entry| entry.get("id").and_then(Json::as_text) == Some("mine")));
        }
    }
}
