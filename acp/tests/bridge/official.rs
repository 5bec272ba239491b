//! The official crate at both ends: its agent behind the bridge, its client as an editor at the desktop and as a phone, each
//! over a program that carries lines.

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use agent_client_protocol::schema::ProtocolVersion;
use agent_client_protocol::v1::ConnectionTo;
use agent_client_protocol::v1::schema::{
    ContentBlock, InitializeRequest, ListSessionsRequest, NewSessionRequest, PermissionOptionKind,
    PromptRequest, RequestPermissionOutcome, RequestPermissionRequest, RequestPermissionResponse,
    ResumeSessionRequest, SelectedPermissionOutcome, SessionNotification, SessionUpdate, StopReason,
    TextContent,
};
use agent_client_protocol::{Agent, ByteStreams, Client, on_receive_notification, on_receive_request};
use tokio::process::{Child, Command};
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

use super::*;

fn spawn(mut command: Command) -> Child {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Runs the official client over a program's standard input and output, and returns the agent's words.
async fn run<T>(
    mut child: Child,
    work: impl AsyncFnOnce(ConnectionTo<Agent>) -> Result<T, agent_client_protocol::Error>,
) -> (T, String) {
    let words = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&words);
    let streams =
        ByteStreams::new(child.stdin.take().unwrap().compat_write(), child.stdout.take().unwrap().compat());
    let done = Client
        .v1()
        .on_receive_notification(
            async move |notification: SessionNotification, _| {
                if let SessionUpdate::AgentMessageChunk(chunk) = notification.update
                    && let ContentBlock::Text(text) = chunk.content
                {
                    heard.lock().unwrap().push_str(&text.text);
                }
                Ok(())
            },
            on_receive_notification!(),
        )
        .on_receive_request(
            async move |request: RequestPermissionRequest, responder, _| {
                let option =
                    request.options.iter().find(|option| option.kind == PermissionOptionKind::AllowOnce);
                let option = option.expect("to allow once is offered").option_id.clone();
                responder.respond(RequestPermissionResponse::new(RequestPermissionOutcome::Selected(
                    SelectedPermissionOutcome::new(option),
                )))
            },
            on_receive_request!(),
        )
        .connect_with(streams, work);
    let done = within("the official client", done).await.unwrap();
    let words = words.lock().unwrap().clone();
    (done, words)
}

fn prompt(session: impl Into<agent_client_protocol::v1::schema::SessionId>, text: &str) -> PromptRequest {
    PromptRequest::new(session, vec![ContentBlock::Text(TextContent::new(text))])
}

#[tokio::test]
async fn the_official_client_is_an_unmodified_desktop_and_an_unmodified_phone() {
    let bridge = Bridge::start().await;
    // At the desktop, as an editor that runs `dd_client acp` as its agent.
    let mut editor = world::dd_client(&bridge.world.file("desktop"));
    editor.arg("acp");
    let made = run(spawn(editor), async |agent| {
        let initialize = InitializeRequest::new(ProtocolVersion::V1);
        agent.send_request(initialize).block_task().await?;
        let new = agent.send_request(NewSessionRequest::new("/tmp")).block_task().await?;
        let answer =
            agent.send_request(prompt(new.session_id.clone(), "echo at the desktop")).block_task().await?;
        assert_eq!(answer.stop_reason, StopReason::EndTurn);
        Ok(new.session_id.to_string())
    });
    let (upstream, words) = made.await;
    assert_eq!(words, "at the desktop");

    // The editor has left, and the session goes on.
    let session = bridge.session(&upstream).await;
    let (phone, _) = bridge.pair(&session, OpSet::COMPANION, "phone.json").await;
    phone.leave().await;
    let mut companion = Command::new(program("companion"));
    companion.arg("--state").arg(bridge.world.file("phone.json")).args(["acp", "stdio"]);
    let own = session.to_string();
    let ((), words) = run(spawn(companion), async |agent| {
        let initialized =
            agent.send_request(InitializeRequest::new(ProtocolVersion::V1)).block_task().await?;
        assert_eq!(initialized.protocol_version, ProtocolVersion::V1);
        let listed = agent.send_request(ListSessionsRequest::new()).block_task().await?;
        let listed: Vec<_> = listed.sessions.iter().map(|session| session.session_id.to_string()).collect();
        assert_eq!(listed, [own.as_str()]);
        agent.send_request(ResumeSessionRequest::new(own.clone(), "/")).block_task().await?;
        let answer = agent.send_request(prompt(own.clone(), "ask")).block_task().await?;
        assert_eq!(answer.stop_reason, StopReason::EndTurn);
        let refused = agent.send_request(NewSessionRequest::new("/")).block_task().await;
        assert!(refused.unwrap_err().message.contains("do it at the desktop"));
        Ok(())
    })
    .await;
    assert!(!words.is_empty());
}
