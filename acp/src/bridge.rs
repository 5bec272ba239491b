//! The sessions of one agent as an agent's host: who is connected, what waits for whom, and the agent's process.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::SinkExt;
use serde_json::{Value, json};
use sessioncap::acp::{AcpSessionId, FromPhone, Guest, Json, Message, RequestId, RpcError, ToPhone};
use sessioncap::agent::Guard;
use sessioncap::{Op, SessionId};
use sessioncap_programs::agent::phone::Wire;
use sessioncap_programs::agent::{DeviceStream, Ends, Host, Log, Serving};
use sessioncap_programs::clock::Clock;
use sessioncap_programs::lock;
use sessioncap_programs::request::Request;
use sessioncap_programs::transport::{self, STRANGER, Socket};
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite;

use crate::mux::{Effect, Kind, Mux, Settings, Turns, ViewerId};
use crate::names::{Changes, Names};
use crate::outbox::{FOR_DESKTOP, FOR_PHONE, Inbox, Outbox, outbox};
use crate::process::{self, Agent, Event, Start};
use crate::{desk, phone};

/// The shortest time between two starts of the agent.
const RESTART: Duration = Duration::from_secs(1);
/// How long a plain peer may take to take its answer.
const FAREWELL: Duration = Duration::from_secs(1);
/// The answer to a plain peer.
const PAIR_FIRST: &str = "this bridge talks only to phones that were paired and desktops that are enrolled: run \
    `dd_client session pair-mobile` at the desktop, and open the link or scan the code on the phone";
/// Characters of a session's title in the list.
const LONGEST_NAME: usize = 100;
/// The bridge's notification in the place of one that is longer than a message may be: its `method`, its `sessionId` and
/// its `length` in bytes.
const LEFT_OUT: &str = "_sessioncap/left_out";
/// The code of that error, as the protocol has it for a missing authentication.
const AUTHENTICATION_REQUIRED: i64 = -32000;

/// The agent's program and its settings.
pub struct Run {
    /// The agent's command line.
    pub words: Vec<OsString>,
    /// Where it starts.
    pub directory: Option<PathBuf>,
    /// The calls that it may make to a desktop.
    pub settings: Settings,
    /// The hashes of the keys of the bridge's certificates, the present one and the next; none without TLS.
    pub certificates: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Where lines go.
    pub log: Log,
}

/// One agent, its sessions and its viewers.
pub struct Bridge {
    run: Run,
    ends: Ends,
    started: Instant,
    /// Asked under the gate's locks, so nothing else is done while it is held.
    names: Mutex<Names>,
    state: Mutex<State>,
    /// Something may be due earlier than before.
    sooner: Notify,
    /// The agent is gone for good.
    ended: Notify,
}

#[derive(Default)]
struct State {
    agent: Option<Running>,
    /// How many agents there were. A viewer's number is of one of them.
    generation: u64,
    last_start: Option<Instant>,
    phones: HashMap<ViewerId, PhoneSide>,
    desktops: HashMap<ViewerId, Outbox<String>>,
    stopping: bool,
}

struct Running {
    mux: Mux,
    process: Agent,
}

struct PhoneSide {
    guest: Arc<Mutex<Guest>>,
    outbox: Outbox<Out>,
    guard: Guard,
    clock: Clock,
}

/// A message to a phone, with the number of the question if it is one.
pub(crate) struct Out {
    pub(crate) message: ToPhone,
    pub(crate) question: Option<i64>,
}

/// A viewer's place. Dropping it takes the viewer away.
pub(crate) struct Joined {
    bridge: Arc<Bridge>,
    viewer: ViewerId,
    generation: u64,
}

impl Joined {
    /// Takes a message of the phone. Waits for no other peer.
    pub(crate) fn phone_sent(&self, message: FromPhone) {
        self.bridge.with_mux(self.generation, |mux, now| mux.from_phone(self.viewer, message, now));
    }

    /// A question that cannot be shown to the phone now.
    pub(crate) fn cannot_answer(&self, question: i64) {
        self.bridge.with_mux(self.generation, |mux, now| mux.cannot_answer(self.viewer, question, now));
    }

    /// Takes a message of the desktop. Waits for no other peer.
    pub(crate) fn desktop_sent(&self, message: Message) {
        self.bridge.with_mux(self.generation, |mux, now| mux.from_desktop(self.viewer, message, now));
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.bridge.with_state(|state, now| {
            if state.generation == self.generation {
                state.phones.remove(&self.viewer);
                state.desktops.remove(&self.viewer);
            }
            state.run_of(self.generation, now, |mux| mux.leave(self.viewer, now));
        });
    }
}

impl Bridge {
    /// A bridge whose agent starts with the first desktop.
    pub fn new(run: Run, ends: Ends) -> Arc<Self> {
        Arc::new(Self {
            run,
            ends,
            started: Instant::now(),
            names: Mutex::default(),
            state: Mutex::default(),
            sooner: Notify::new(),
            ended: Notify::new(),
        })
    }

    /// The agent's id of a session.
    pub(crate) fn upstream(&self, session: &SessionId) -> Option<AcpSessionId> {
        lock(&self.names).upstream(session)
    }

    pub(crate) fn certificates(&self) -> Vec<String> {
        (self.run.certificates)()
    }

    /// Adds a phone. `None` if its session is gone.
    pub(crate) fn join_phone(
        self: &Arc<Self>,
        guest: &Arc<Mutex<Guest>>,
        wire: &Wire,
    ) -> Option<(Joined, Inbox<Out>)> {
        let session = lock(guest).upstream().clone();
        let (outbox, inbox) = outbox(FOR_PHONE);
        let joined = self.with_state(|state, now| {
            // It may have ended since the phone was admitted, and another have the agent's id of it.
            if self.upstream(wire.session()).as_ref() != Some(&session) {
                return None;
            }
            let agent = state.agent.as_mut()?;
            let (viewer, effects) = agent.mux.join(Kind::Phone { session }, now);
            state.phones.insert(
                viewer,
                PhoneSide { guest: Arc::clone(guest), outbox, guard: wire.guard(), clock: wire.clock() },
            );
            state.carry_out(effects, now);
            Some((viewer, state.generation))
        });
        joined.map(|(viewer, generation)| (self.place(viewer, generation), inbox))
    }

    /// Adds a desktop, and starts the agent if it does not run. `None` if it cannot be started now.
    pub(crate) fn join_desktop(self: &Arc<Self>) -> Option<(Joined, Inbox<String>)> {
        let (outbox, inbox) = outbox(FOR_DESKTOP);
        let joined = self.with_state(|state, now| {
            self.start(state, now);
            let agent = state.agent.as_mut()?;
            let (viewer, effects) = agent.mux.join(Kind::Desktop, now);
            state.desktops.insert(viewer, outbox);
            state.carry_out(effects, now);
            Some((viewer, state.generation))
        });
        joined.map(|(viewer, generation)| (self.place(viewer, generation), inbox))
    }

    fn place(self: &Arc<Self>, viewer: ViewerId, generation: u64) -> Joined {
        Joined { bridge: Arc::clone(self), viewer, generation }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Does something to the state, and what follows from it outside.
    fn with_state<T>(&self, work: impl FnOnce(&mut State, Duration) -> T) -> T {
        let done = self.change(work);
        self.sooner.notify_one();
        done
    }

    /// As [`Bridge::with_state`], for the one that looks at what is due anyway.
    fn change<T>(&self, work: impl FnOnce(&mut State, Duration) -> T) -> T {
        let mut state = lock(&self.state);
        let done = work(&mut state, self.now());
        let Changes { began, ended } = {
            let ids = state.agent.iter().flat_map(|agent| agent.mux.session_ids());
            lock(&self.names).update(ids)
        };
        drop(state);
        for session in began {
            (self.run.log)(format!("session {session} began"));
        }
        // Only without the lock: the gate asks about sessions under locks of its own.
        ended.iter().for_each(|session| self.ends.tell(session));
        done
    }

    fn with_mux(&self, generation: u64, work: impl FnOnce(&mut Mux, Duration) -> Vec<Effect>) {
        self.with_state(|state, now| state.run_of(generation, now, |mux| work(mux, now)));
    }

    /// Starts the agent if it does not run.
    fn start(self: &Arc<Self>, state: &mut State, now: Duration) {
        let too_soon = state.last_start.is_some_and(|last| last.elapsed() < RESTART);
        if state.agent.is_some() || state.stopping || too_soon {
            return;
        }
        let Some((program, arguments)) = self.run.words.split_first() else { return };
        state.last_start = Some(Instant::now());
        let log = Arc::clone(&self.run.log);
        let start = Start {
            program: program.clone(),
            arguments: arguments.to_vec(),
            directory: self.run.directory.clone(),
            log: Arc::new(move |line: &str| log(format!("the agent says: {line}"))),
        };
        match Agent::start(&start) {
            Ok((process, events)) => {
                let (mux, effects) = Mux::new(self.run.settings.clone(), now);
                state.generation = state.generation.saturating_add(1);
                state.agent = Some(Running { mux, process });
                state.carry_out(effects, now);
                tokio::spawn(Arc::clone(self).hear(events, state.generation));
            }
            Err(problem) => (self.run.log)(format!("the agent cannot be started: {problem}")),
        }
    }

    /// Hears one agent out.
    async fn hear(self: Arc<Self>, mut events: mpsc::Receiver<Event>, generation: u64) {
        loop {
            let due = lock(&self.state).agent.as_ref().and_then(|agent| agent.mux.next_look());
            let until = due.map_or(Duration::from_secs(3600), |due| due.saturating_sub(self.now()));
            tokio::select! {
                event = events.recv() => match event {
                    Some(Event::Message(message)) => {
                        self.change(|state, now| state.run_of(generation, now, |mux| mux.from_agent(message, now)));
                    }
                    Some(Event::Noise(process::Noise { problem, start })) => {
                        (self.run.log)(format!("the agent wrote what is no message ({problem:?}): {start}"));
                    }
                    Some(Event::Unreadable(which)) => {
                        self.change(|state, now| state.run_of(generation, now, |mux| mux.unreadable(which, now)));
                    }
                    Some(Event::Ended(ended)) => return self.end(&ended.cause.to_string()),
                    None => return self.end("it is gone"),
                },
                () = self.sooner.notified() => {}
                () = sleep(until) => self.change(|state, now| state.run_of(generation, now, |mux| mux.look(now))),
            }
        }
    }

    /// The agent is gone: everybody is answered, and sent away.
    fn end(&self, why: &str) {
        (self.run.log)(format!("the agent has ended: {why}"));
        self.with_state(|state, now| {
            state.run(now, Mux::agent_gone);
            state.agent = None;
            // Their connections send the rest of their queues before they end.
            state.phones.clear();
            state.desktops.clear();
        });
        self.ended.notify_waiters();
    }
}

impl State {
    /// Does something to the agent's multiplexer, if it is the agent of this number.
    fn run_of(&mut self, generation: u64, now: Duration, work: impl FnOnce(&mut Mux) -> Vec<Effect>) {
        if self.generation == generation {
            self.run(now, work);
        }
    }

    fn run(&mut self, now: Duration, work: impl FnOnce(&mut Mux) -> Vec<Effect>) {
        if let Some(agent) = &mut self.agent {
            let effects = work(&mut agent.mux);
            self.carry_out(effects, now);
        }
    }

    /// Carries out effects, and those that follow from them. Waits for nobody.
    fn carry_out(&mut self, effects: Vec<Effect>, now: Duration) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::ToAgent(message) => {
                    if let Some(agent) = &self.agent {
                        agent.process.send(&message);
                    }
                }
                Effect::ToDesktop(viewer, message) => {
                    let unasked = self.to_desktop(viewer, &message);
                    if let (Some(question), Some(agent)) = (unasked, &mut self.agent) {
                        effects.extend(agent.mux.cannot_answer(viewer, question, now));
                    }
                }
                Effect::Update(viewer, params) => self.to_phone(viewer, |guest| guest.update(&params)),
                Effect::Replay(viewer, params) => self.to_phone(viewer, |guest| guest.replay(&params)),
                Effect::Permit(viewer, session) => self.permit(viewer, &session, now),
                Effect::Ask { viewer, question, method, params } => {
                    let asked = self.ask(viewer, question, |guest| guest.ask(question, &method, &params));
                    if let (false, Some(agent)) = (asked, &mut self.agent) {
                        effects.extend(agent.mux.cannot_answer(viewer, question, now));
                    }
                }
                Effect::Retire(viewer, question) => self.to_phone(viewer, |guest| guest.retire(question)),
                Effect::Answer(viewer, id, outcome) => {
                    self.to_phone(viewer, |guest| guest.result(&id, &outcome));
                }
                Effect::EndAgent(_) => {
                    if let Some(agent) = &self.agent {
                        agent.process.end();
                    }
                }
                // The retirement has told them.
                Effect::AlreadyResolved(..) | Effect::NotOffered(..) => {}
            }
        }
    }

    /// Begins the turn of a prompt that has waited, if its phone still may. A revocation that comes meanwhile waits until
    /// the prompt is in the agent's queue, and none comes there after it has returned.
    fn permit(&mut self, viewer: ViewerId, session: &AcpSessionId, now: Duration) {
        let permitted = self.phones.get(&viewer).map(|phone| (phone.guard.fork(), phone.clock.now()));
        let begun = permitted.is_some_and(|(mut guard, time)| {
            guard.permit(Op::SendInput, time, || self.next_turn(session, true, now)).is_ok()
        });
        if !begun {
            self.next_turn(session, false, now);
        }
    }

    fn next_turn(&mut self, session: &AcpSessionId, may: bool, now: Duration) {
        let effects = self.agent.as_mut().map(|agent| agent.mux.permitted(session, may, now));
        self.carry_out(effects.unwrap_or_default(), now);
    }

    fn to_phone(&self, viewer: ViewerId, make: impl FnOnce(&mut Guest) -> Option<ToPhone>) {
        self.push(viewer, None, make);
    }

    /// Returns whether it is shown.
    fn ask(&self, viewer: ViewerId, question: i64, make: impl FnOnce(&mut Guest) -> Option<ToPhone>) -> bool {
        self.push(viewer, Some(question), make)
    }

    fn push(
        &self,
        viewer: ViewerId,
        question: Option<i64>,
        make: impl FnOnce(&mut Guest) -> Option<ToPhone>,
    ) -> bool {
        let Some(PhoneSide { guest, outbox, .. }) = self.phones.get(&viewer) else { return false };
        let Some(message) = make(&mut lock(guest)) else { return false };
        let bytes = message.text.len();
        outbox.push(Out { message, question }, bytes)
    }

    /// Returns the number of a question that is longer than a message may be: nobody would ever answer it.
    fn to_desktop(&self, viewer: ViewerId, message: &Message) -> Option<i64> {
        let outbox = self.desktops.get(&viewer)?;
        let mut text = message.to_text();
        if text.len() > Message::MAX_LEN {
            match message {
                Message::Response { id, .. } => text = too_long(id.clone()).to_text(),
                Message::Request { id: RequestId::Number(question), .. } => return Some(*question),
                Message::Notification { method, params } => {
                    let session = params.as_ref().and_then(|params| params.get("sessionId"));
                    text = left_out(method, session, text.len()).to_text();
                }
                Message::Request { .. } => return None,
            }
        }
        let bytes = text.len();
        outbox.push(text, bytes);
        None
    }
}

/// The answer in the place of one that does not fit a message.
fn too_long(id: RequestId) -> Message {
    let error = RpcError {
        code: RpcError::INTERNAL,
        message: "the agent's answer is longer than a message may be".to_owned(),
        data: Some(Json::object([("reason", Json::text("too_long"))])),
    };
    Message::Response { id, outcome: Err(error) }
}

/// The notification in the place of one that does not fit a message, such as an update with a large file.
fn left_out(method: &str, session: Option<&Json>, length: usize) -> Message {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    // An agent chooses both, so they could be what is too long.
    let short = |text: &&str| text.len() <= AcpSessionId::MAX_LEN;
    let method = Some(method).filter(short).map(|method| ("method", Json::text(method)));
    let session = session.and_then(Json::as_text).filter(short);
    let session = session.map(|session| ("sessionId", Json::text(session)));
    let params = [Some(("length", Json::integer(length))), method, session].into_iter().flatten();
    let params = Json::Object(params.map(|(name, value)| (name.to_owned(), value)).collect());
    Message::Notification { method: LEFT_OUT.to_owned(), params: Some(params) }
}

/// How a session is doing, in a word.
fn state_of(turns: Turns) -> &'static str {
    match turns {
        Turns::Idle => "idle",
        Turns::Running => "running",
        Turns::Settling => "settling",
        Turns::Stuck => "stuck",
    }
}

impl Host for Bridge {
    fn has(&self, session: &SessionId) -> bool {
        lock(&self.names).upstream(session).is_some()
    }

    fn count(&self) -> usize {
        lock(&self.names).count()
    }

    fn serve_phone(self: Arc<Self>, wire: Wire) -> Serving {
        Box::pin(phone::serve(self, wire))
    }

    fn answer(&self, request: &Request) -> Option<Result<Value, Value>> {
        if request.method() != "shell.list_sessions" {
            return None;
        }
        let state = lock(&self.state);
        let names = lock(&self.names);
        let sessions: Vec<_> = match &state.agent {
            Some(agent) => agent.mux.sessions().collect(),
            None => Vec::new(),
        };
        let entries = sessions.into_iter().filter_map(|session| {
            Some(json!({
                "id": names.session(&session.id)?,
                // All sessions must fit one answer.
                "name": session.title.map(|title| title.chars().take(LONGEST_NAME).collect::<String>()),
                "command": state_of(session.turns),
                "cwd": session.cwd,
                "acp_session_id": session.id.as_str(),
                "running": true,
            }))
        });
        Some(Ok(json!({ "ok": true, "sessions": entries.collect::<Vec<_>>() })))
    }

    fn serve_device(self: Arc<Self>, stream: DeviceStream) -> Serving {
        Box::pin(desk::serve(self, stream))
    }

    fn turn_away(&self, mut socket: Socket, message: String) -> Serving {
        Box::pin(async move {
            let id = match Message::from_bytes(message.as_bytes()) {
                Ok(Message::Request { id, .. }) => id,
                _ => RequestId::Null,
            };
            let error = RpcError {
                code: AUTHENTICATION_REQUIRED,
                message: PAIR_FIRST.to_owned(),
                data: Some(Json::object([("reason", Json::text("not_paired"))])),
            };
            let text = Message::Response { id, outcome: Err(error) }.to_text();
            let told = socket.send(tungstenite::Message::text(text));
            // A peer that does not read is not waited for.
            let _ = timeout(FAREWELL, told).await;
            transport::close(&mut socket, STRANGER).await;
        })
    }

    fn stop(self: Arc<Self>) -> Serving {
        Box::pin(async move {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            {
                let mut state = lock(&self.state);
                state.stopping = true;
                match &state.agent {
                    Some(agent) => agent.process.end(),
                    None => return,
                }
            }
            ended.await;
        })
    }
}

#[cfg(test)]
mod tests;
