#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;
use crate::outbox::Next;

const NOW: Duration = Duration::from_secs(600);

fn message(text: &str) -> Message {
    Message::from_bytes_up_to(text.as_bytes(), Agent::MAX_LINE).unwrap()
}

/// The state of an agent that is there, with a desktop that serves files and has the session `s`.
fn state() -> (State, ViewerId, Inbox<String>, mpsc::Receiver<Event>) {
    let start =
        Start { program: "cat".into(), arguments: Vec::new(), directory: None, log: Arc::new(|_: &str| {}) };
    let (process, events) = Agent::start(&start).unwrap();
    let settings = Settings { read_files: true, write_files: true, ..Settings::default() };
    let (mux, _) = Mux::new(settings, NOW);
    let (outbox, inbox) = outbox(FOR_DESKTOP);
    let mut state = State { agent: Some(Running { mux, process }), ..State::default() };
    let agent = state.agent.as_mut().unwrap();
    let (desktop, _) = agent.mux.join(Kind::Desktop, NOW);
    state.desktops.insert(desktop, outbox);
    let initialized = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1}}"#;
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1,
        "clientCapabilities":{"fs":{"readTextFile":true,"writeTextFile":true}}}}"#;
    let resume = r#"{"jsonrpc":"2.0","id":2,"method":"session/resume","params":{"sessionId":"s","cwd":"/"}}"#;
    let resumed = r#"{"jsonrpc":"2.0","id":2,"result":{}}"#;
    state.run(NOW, |mux| mux.from_agent(message(initialized), NOW));
    state.run(NOW, |mux| mux.from_desktop(desktop, message(initialize), NOW));
    state.run(NOW, |mux| mux.from_desktop(desktop, message(resume), NOW));
    state.run(NOW, |mux| mux.from_agent(message(resumed), NOW));
    (state, desktop, inbox, events)
}

fn mux(state: &State) -> &Mux {
    &state.agent.as_ref().unwrap().mux
}

fn questions(state: &State) -> usize {
    mux(state).sessions().map(|session| session.questions).sum()
}

#[tokio::test]
async fn a_call_that_is_too_long_for_the_desktop_is_answered_and_does_not_wait_for_ever() {
    let (mut state, ..) = state();
    let write = |length: usize| {
        message(&format!(
            r#"{{"jsonrpc":"2.0","id":"w{length}","method":"fs/write_text_file","params":{{"sessionId":"s","path":"/x","content":"{}"}}}}"#,
            "x".repeat(length)
        ))
    };
    state.run(NOW, |mux| mux.from_agent(write(1000), NOW));
    assert_eq!(questions(&state), 1);
    state.run(NOW, |mux| mux.from_agent(write(Message::MAX_LEN), NOW));
    assert_eq!(questions(&state), 1, "the long one is answered");
}

#[tokio::test]
async fn an_update_that_is_too_long_for_the_desktop_is_named_in_its_place() {
    let (mut state, _, mut inbox, _events) = state();
    let update = |length: usize| {
        message(&format!(
            r#"{{"jsonrpc":"2.0","method":"session/update","params":{{"sessionId":"s","update":{{"sessionUpdate":"agent_message_chunk","content":{{"type":"text","text":"{}"}}}}}}}}"#,
            "x".repeat(length)
        ))
    };
    state.run(NOW, |mux| mux.from_agent(update(Message::MAX_LEN), NOW));
    state.run(NOW, |mux| mux.from_agent(update(3), NOW));
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let Next::Item(text) = inbox.next().await else { panic!("{heard:?}") };
        if let Message::Notification { method, params } = message(&text) {
            heard.push((method, params.unwrap()));
        }
    }
    let (method, params) = &heard[0];
    assert_eq!(method, LEFT_OUT);
    assert_eq!(params.get("method").and_then(Json::as_text), Some("session/update"));
    assert_eq!(params.get("sessionId").and_then(Json::as_text), Some("s"));
    assert!(params.get("length").is_some());
    // The next arrives as it is.
    assert_eq!(heard[1].0, "session/update");
    // Names that the agent chose are not what makes it too long.
    let long = left_out(&"m".repeat(Message::MAX_LEN), Some(&Json::text("s".repeat(Message::MAX_LEN))), 1);
    assert!(long.to_text().len() < 1_000);
}

#[tokio::test]
async fn a_question_that_cannot_be_shown_to_the_only_viewer_waits_from_then_on() {
    let (mut state, desktop, ..) = state();
    state.run(NOW, |mux| mux.leave(desktop, NOW));
    // A phone that is leaving: it has no queue any more.
    let session = AcpSessionId::new("s").unwrap();
    state.run(NOW, |mux| mux.join(Kind::Phone { session }, NOW).1);
    let ask = r#"{"jsonrpc":"2.0","id":"q","method":"session/request_permission","params":{"sessionId":"s",
        "toolCall":{"toolCallId":"t"},"options":[{"optionId":"y","name":"Yes","kind":"allow_once"}]}}"#;
    state.run(NOW, |mux| mux.from_agent(message(ask), NOW));
    assert_eq!(questions(&state), 1);
    assert_eq!(mux(&state).next_look(), Some(NOW + Settings::default().unattended));
}
