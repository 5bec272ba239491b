//! An agent of the official crate on standard input and output. It has no model: the first word of a prompt says
//! what it does, so that tests and demonstrations can rely on it.
//!
//! | prompt | what it does |
//! |---|---|
//! | `ask` | asks for permission before a pretended write |
//! | `slow` | begins, and ends only when it is cancelled |
//! | `deaf` | as `slow`, but a cancel does not end it; the word `wake` in another session does |
//! | `flood N` | sends N pieces of a kilobyte |
//! | `crash` | ends the process with status 9 |
//! | `read FILE` | reads a file through the client |
//! | `noise` | writes a line that is no message |
//! | `echo TEXT` | says the text |
//! | anything else | a thought, a plan, a tool call, and three pieces of an answer |

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_client_protocol::v1::ConnectionTo;
use agent_client_protocol::v1::schema::{
    AgentCapabilities, CancelNotification, ContentBlock, ContentChunk, CurrentModeUpdate, Implementation,
    InitializeRequest, InitializeResponse, LoadSessionRequest, LoadSessionResponse, NewSessionRequest,
    NewSessionResponse, PermissionOption, PermissionOptionKind, Plan, PlanEntry, PlanEntryPriority,
    PlanEntryStatus, PromptRequest, PromptResponse, ReadTextFileRequest, RequestPermissionOutcome,
    RequestPermissionRequest, SessionId, SessionInfoUpdate, SessionMode, SessionModeState,
    SessionNotification, SessionUpdate, SetSessionModeRequest, SetSessionModeResponse, StopReason,
    TextContent, ToolCall, ToolCallStatus, ToolCallUpdate, ToolCallUpdateFields, ToolKind,
};
use agent_client_protocol::{
    Agent, Client, Error, Result, Stdio, on_receive_notification, on_receive_request,
};
use tokio::sync::watch;

/// The agent's memory. It ends with the process.
#[derive(Default)]
struct Memory {
    sessions: BTreeMap<String, Session>,
    made: u32,
    wake: Option<watch::Sender<()>>,
}

struct Session {
    mode: String,
    past: Vec<SessionUpdate>,
    /// Counts the cancels.
    cancels: watch::Sender<u64>,
}

impl Session {
    fn new() -> Self {
        Self { mode: "ask".to_owned(), past: Vec::new(), cancels: watch::Sender::new(0) }
    }

    fn modes(&self) -> SessionModeState {
        let modes = [("ask", "Ask first"), ("code", "Write code")];
        SessionModeState::new(
            self.mode.clone(),
            modes.into_iter().map(|(id, name)| SessionMode::new(id, name)).collect(),
        )
    }
}

type Shared = Arc<Mutex<Memory>>;

fn lock(memory: &Shared) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One turn.
struct Turn {
    memory: Shared,
    client: ConnectionTo<Client>,
    session: SessionId,
    cancels: watch::Receiver<u64>,
}

impl Turn {
    fn send(&self, update: SessionUpdate) -> Result<()> {
        if let Some(session) = lock(&self.memory).sessions.get_mut(&*self.session.0) {
            session.past.push(update.clone());
        }
        self.client.send_notification(SessionNotification::new(self.session.clone(), update))
    }

    fn say(&self, text: impl Into<String>) -> Result<()> {
        self.send(SessionUpdate::AgentMessageChunk(chunk(text)))
    }

    /// Whether the cancel came first.
    async fn cancelled(&mut self) -> bool {
        self.cancels.changed().await.is_ok()
    }

    async fn run(mut self, prompt: String) -> Result<StopReason> {
        let (word, rest) = prompt.split_once(' ').unwrap_or((&prompt, ""));
        match word {
            "ask" => return self.ask().await,
            "slow" => {
                self.say("Working...")?;
                self.cancelled().await;
                return Ok(StopReason::Cancelled);
            }
            "deaf" => {
                self.say("Working...")?;
                let wake = lock(&self.memory).wake.get_or_insert_with(|| watch::Sender::new(())).subscribe();
                let mut wake = wake;
                wake.changed().await.ok();
            }
            "wake" => {
                if let Some(wake) = &lock(&self.memory).wake {
                    wake.send_replace(());
                }
            }
            "flood" => {
                let piece = "flood ".repeat(170);
                for number in 0..rest.trim().parse().unwrap_or(1_u64) {
                    self.client.send_notification(SessionNotification::new(
                        self.session.clone(),
                        SessionUpdate::AgentMessageChunk(chunk(format!("{number} {piece}"))),
                    ))?;
                    // So that a cancel is heard.
                    tokio::task::yield_now().await;
                    if self.cancels.has_changed().unwrap_or(true) {
                        return Ok(StopReason::Cancelled);
                    }
                }
            }
            "crash" => std::process::exit(9),
            "read" => {
                let request = ReadTextFileRequest::new(self.session.clone(), rest.trim());
                match self.client.send_request(request).block_task().await {
                    Ok(file) => self.say(file.content)?,
                    Err(error) => self.say(format!("I could not read it: {}", error.message))?,
                }
            }
            "noise" => {
                writeln!(std::io::stdout(), "a library says hello").ok();
                self.say("I made noise.")?;
            }
            "echo" => self.say(rest)?,
            _ => self.think()?,
        }
        Ok(StopReason::EndTurn)
    }

    fn think(&self) -> Result<()> {
        self.send(SessionUpdate::SessionInfoUpdate(SessionInfoUpdate::new().title("A sample".to_owned())))?;
        self.send(SessionUpdate::AgentThoughtChunk(chunk("Let me see.")))?;
        let entry = |text: &str, status| PlanEntry::new(text, PlanEntryPriority::Medium, status);
        self.send(SessionUpdate::Plan(Plan::new(vec![
            entry("Look around", PlanEntryStatus::Completed),
            entry("Answer", PlanEntryStatus::InProgress),
        ])))?;
        let call =
            ToolCall::new("look", "Look around").kind(ToolKind::Read).status(ToolCallStatus::InProgress);
        self.send(SessionUpdate::ToolCall(call))?;
        let done = ToolCallUpdateFields::new().status(ToolCallStatus::Completed);
        self.send(SessionUpdate::ToolCallUpdate(ToolCallUpdate::new("look", done)))?;
        ["I ", "looked ", "around."].into_iter().try_for_each(|piece| self.say(piece))
    }

    async fn ask(&mut self) -> Result<StopReason> {
        let call = ToolCall::new("write", "Write notes.txt").kind(ToolKind::Edit);
        self.send(SessionUpdate::ToolCall(call))?;
        let fields = ToolCallUpdateFields::new().title("Write notes.txt".to_owned()).kind(ToolKind::Edit);
        let options = [
            ("yes", "Write it", PermissionOptionKind::AllowOnce),
            ("always", "Always write", PermissionOptionKind::AllowAlways),
            ("no", "Do not write", PermissionOptionKind::RejectOnce),
        ];
        let options =
            options.into_iter().map(|(id, name, kind)| PermissionOption::new(id, name, kind)).collect();
        let call = ToolCallUpdate::new("write", fields);
        let request = RequestPermissionRequest::new(self.session.clone(), call, options);
        let outcome = self.client.send_request(request).block_task().await?.outcome;
        let allowed = match &outcome {
            RequestPermissionOutcome::Selected(selected) => {
                matches!(&*selected.option_id.0, "yes" | "always")
            }
            _ => return Ok(StopReason::Cancelled),
        };
        let status = if allowed { ToolCallStatus::Completed } else { ToolCallStatus::Failed };
        let fields = ToolCallUpdateFields::new().status(status);
        self.send(SessionUpdate::ToolCallUpdate(ToolCallUpdate::new("write", fields)))?;
        self.say(if allowed { "Written." } else { "Not written." })?;
        Ok(StopReason::EndTurn)
    }
}

fn chunk(text: impl Into<String>) -> ContentChunk {
    ContentChunk::new(ContentBlock::Text(TextContent::new(text.into())))
}

fn text_of(prompt: &[ContentBlock]) -> String {
    let texts = prompt.iter().filter_map(|block| match block {
        ContentBlock::Text(text) => Some(text.text.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join(" ")
}

async fn serve(memory: Shared) -> Result<()> {
    let (making, loading, prompting) = (Arc::clone(&memory), Arc::clone(&memory), Arc::clone(&memory));
    let (setting, cancelling) = (Arc::clone(&memory), memory);
    Agent
        .v1()
        .name("sample")
        .on_receive_request(
            async move |request: InitializeRequest, responder, _client| {
                let response = InitializeResponse::new(request.protocol_version)
                    .agent_capabilities(AgentCapabilities::new().load_session(true))
                    .agent_info(Implementation::new("sample-agent", env!("CARGO_PKG_VERSION")));
                responder.respond(response)
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |_: NewSessionRequest, responder, _client| {
                let mut memory = lock(&making);
                memory.made += 1;
                // Ids of agents are free text.
                let id = format!("sample session №{}", memory.made);
                let session = Session::new();
                let response = NewSessionResponse::new(id.clone()).modes(session.modes());
                memory.sessions.insert(id, session);
                drop(memory);
                responder.respond(response)
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: LoadSessionRequest, responder, client| {
                let mut memory = lock(&loading);
                let session =
                    memory.sessions.entry(request.session_id.0.to_string()).or_insert_with(Session::new);
                let (past, modes) = (session.past.clone(), session.modes());
                drop(memory);
                for update in past {
                    client.send_notification(SessionNotification::new(request.session_id.clone(), update))?;
                }
                responder.respond(LoadSessionResponse::new().modes(modes))
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: SetSessionModeRequest, responder, client| {
                let known = match lock(&setting).sessions.get_mut(&*request.session_id.0) {
                    Some(session) => {
                        session.mode = request.mode_id.0.to_string();
                        true
                    }
                    None => false,
                };
                if !known {
                    return responder.respond_with_error(Error::invalid_params());
                }
                let update = SessionUpdate::CurrentModeUpdate(CurrentModeUpdate::new(request.mode_id));
                client.send_notification(SessionNotification::new(request.session_id, update))?;
                responder.respond(SetSessionModeResponse::new())
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: PromptRequest, responder, client: ConnectionTo<Client>| {
                let session = request.session_id;
                let prompt = text_of(&request.prompt);
                let cancels = match lock(&prompting).sessions.get_mut(&*session.0) {
                    Some(known) => {
                        known.past.push(SessionUpdate::UserMessageChunk(chunk(prompt.clone())));
                        Some(known.cancels.subscribe())
                    }
                    None => None,
                };
                let Some(cancels) = cancels else {
                    return responder.respond_with_error(Error::invalid_params());
                };
                let memory = Arc::clone(&prompting);
                let turn = Turn { memory, client: client.clone(), session, cancels };
                // The connection reads nothing while a handler waits, not even the answer that it waits for.
                client.spawn(async move {
                    match turn.run(prompt).await {
                        Ok(reason) => responder.respond(PromptResponse::new(reason)),
                        Err(error) => responder.respond_with_error(error),
                    }
                })
            },
            on_receive_request!(),
        )
        .on_receive_notification(
            async move |cancel: CancelNotification, _client| {
                if let Some(session) = lock(&cancelling).sessions.get(&*cancel.session_id.0) {
                    session.cancels.send_modify(|cancels| *cancels += 1);
                }
                Ok(())
            },
            on_receive_notification!(),
        )
        .connect_to(Stdio::new())
        .await
}

/// Serves standard input and output until they end.
pub fn run() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = match runtime {
        Ok(runtime) => runtime.block_on(serve(Shared::default())),
        Err(error) => Err(Error::into_internal_error(error)),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(std::io::stderr(), "sample_agent: {error:?}").ok();
            ExitCode::FAILURE
        }
    }
}
