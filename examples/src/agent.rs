//! The agent: it owns sessions, gives enrolled devices full control of them, and lets phones do what their
//! credentials say.

pub mod cli;
mod command;
mod device;
mod devices;
mod floors;
mod journal;
mod pair;
mod phone;

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::OsRng;
use sessioncap::agent::ledger::{Ledger, MemoryLedger, RedbLedger};
use sessioncap::agent::{Admission, AgentContext, Gate, GateConfig, PendingChannel, Policy, Presence};
use sessioncap::noise::{Channel, Received, Responder};
use sessioncap::pair::{List, StateKind};
use sessioncap::{AgentPublicKey, AgentSecretKey, AgentUrl, DevicePublicKey, Now, SessionId};
use time::UtcOffset;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::clock::Clock;
use super::files;
use super::problem::{Outcome, Problem, While, with_causes};
use super::pty::Hub;
use super::transport::{self, STRANGER, Socket};
use devices::Devices;
use floors::Floors;
use journal::Journal;

/// Connections at a time, devices and phones together.
const MAX_CONNECTIONS: usize = 256;
/// Of these, peers that have not proven anything yet. The others keep their places.
const MAX_STRANGERS: usize = 128;
/// First messages processed at a time: each costs curve arithmetic, and the sessions need the machine too.
const MAX_JUDGED: usize = 4;
/// How long a peer has from connecting to its first message.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Bytes on their way to one peer that the system keeps.
const SEND_BUFFER: u32 = 64 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;
/// How often a phone's connection looks at the clock, unless there is a reason for another.
pub const LOOK: Duration = Duration::from_secs(1);
/// How often the list of devices is looked at.
const DEVICES_LOOK: Duration = Duration::from_secs(1);

/// How often the gate is settled. Streams wait when it was not settled for five seconds.
const SETTLE: Duration = Duration::from_secs(1);

/// The longest time between two tries to open a ledger that has failed, in calls of `settle`.
const LONGEST_PAUSE: u32 = 30;
/// What viewers get to read a session's last output before its credentials end. Nobody attaches
/// within it: the session is off the list already.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// Takes lines for the agent's log. No line holds a secret.
pub type Log = Arc<dyn Fn(String) + Send + Sync>;

/// The configuration of an agent.
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where `noise.key`, `devices.json` and the ledger live.
    pub state: PathBuf,
    /// Whether the ledger is not kept: every pairing ends with the process.
    pub in_memory: bool,
    /// Its own addresses, as phones may reach it; without any, the one it listens on.
    pub urls: Vec<AgentUrl>,
    /// The operator's own Datalog rules.
    pub rules: Option<String>,
    /// At which offset from UTC those rules read the clock.
    pub offset: UtcOffset,
    /// Devices to add to the list.
    pub enroll: Vec<DevicePublicKey>,
    /// Where audit records go, one JSON object a line; without one, nowhere.
    pub audit: Option<PathBuf>,
    /// Its clock.
    pub clock: Clock,
    /// How often a phone's connection looks at it at least: a wall clock that is set forward must end it
    /// although no timer has expired. Nothing else waits for that.
    pub look: Duration,
    /// How long a phone may take for one frame.
    pub patience: Duration,
    /// Its log.
    pub log: Log,
}

/// State that all connections share.
struct Agent {
    key: AgentSecretKey,
    gate: Gate,
    hub: Hub,
    devices: Arc<Devices>,
    floors: Floors,
    journal: Option<Journal>,
    clock: Clock,
    look: Duration,
    patience: Duration,
    log: Log,
    /// Whether it was logged that the ledger has failed.
    failure_logged: AtomicBool,
    started: Instant,
    strangers: Semaphore,
    judged: Semaphore,
}

/// An agent that listens. Dropping it ends its tasks; [`Running::stop`] also waits for its programs.
pub struct Running {
    /// Where it listens.
    pub url: AgentUrl,
    /// Its Noise key.
    pub key: AgentPublicKey,
    hub: Hub,
    tasks: JoinSet<()>,
    reload: mpsc::Sender<()>,
}

impl Running {
    /// Has the list of devices read again now.
    pub fn reload_devices(&self) {
        // A reload that is still under way counts.
        let _ = self.reload.try_send(());
    }

    /// Ends every connection and kills every program.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        self.hub.shutdown().await;
    }
}

/// Starts an agent on the current runtime.
pub async fn start(config: Config) -> Outcome<Running> {
    match config.in_memory {
        true => start_over(config, |_| Ok(MemoryLedger::new())).await,
        false => start_over(config, open_ledger).await,
    }
}

/// The one place that opens the ledger's file.
fn open_ledger(path: &Path) -> Outcome<RedbLedger> {
    let opened = RedbLedger::open(path).map_err(|error| with_causes(&error));
    opened.during(format_args!("the ledger {}", path.display()))
}

/// As [`start`], over a ledger of the caller's, who is told where its file would be. It is opened again
/// after a failure.
pub async fn start_over<L: Ledger + 'static>(
    config: Config,
    open: impl Fn(&Path) -> Outcome<L> + Send + Sync + 'static,
) -> Outcome<Running> {
    files::make_private_directory(&config.state)?;
    let place = config.state.join("ledger.redb");
    let ledger = open(&place)?;
    let key = noise_key(&config.state)?;
    let devices = Arc::new(Devices::open(config.state.join("devices.json"), &config.enroll)?);
    let floors = Floors::new(config.rules.is_some());
    let policy = Policy::with_operator_rules(config.rules.as_deref().unwrap_or_default(), config.offset)?;

    let listener = listen_on(config.listen);
    let listener = listener.during(format_args!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr().during("the listening address is unknown")?;
    let url = AgentUrl::parse(&format!("ws://{address}"))?;
    let urls = if config.urls.is_empty() { vec![url.clone()] } else { config.urls };

    let mut tasks = JoinSet::new();
    let (tell_end, ends) = mpsc::unbounded_channel();
    let hub = Hub::new(move |id: &str| drop(tell_end.send(id.to_owned())));
    let mut gate = GateConfig::new(key.public(), urls)?.with_policy(policy);
    let journal = match config.audit {
        Some(path) => {
            let (journal, writing) = Journal::open(path, Arc::clone(&config.log))?;
            gate = gate.with_audit(writing);
            Some(journal)
        }
        None => None,
    };
    let context = Context { devices: Arc::clone(&devices), hub: hub.clone() };
    let agent = Arc::new(Agent {
        key,
        gate: Gate::open(gate, ledger, context, config.clock.now())
            .map_err(|error| with_causes(&error))
            .during("the ledger")?,
        hub: hub.clone(),
        devices,
        floors,
        journal,
        clock: config.clock,
        look: config.look,
        patience: config.patience,
        log: config.log,
        failure_logged: AtomicBool::new(false),
        started: Instant::now(),
        strangers: Semaphore::new(MAX_STRANGERS),
        judged: Semaphore::new(MAX_JUDGED),
    });
    agent.catch_up().await?;

    let (reload, reloads) = mpsc::channel(1);
    let key = agent.key.public();
    let default_path = url.path().to_owned();
    tasks.spawn(Arc::clone(&agent).end_sessions(ends));
    tasks.spawn(Arc::clone(&agent).maintain(Arc::new(move || open(&place))));
    tasks.spawn(Arc::clone(&agent).watch_devices(reloads));
    tasks.spawn(agent.listen(listener, default_path));
    Ok(Running { url, key, hub, tasks, reload })
}

/// Accepted connections inherit the size of the buffer: what is in it when a phone is cut is out of reach.
fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn noise_key(state: &Path) -> Outcome<AgentSecretKey> {
    let path = state.join("noise.key");
    match files::read_key(&path, AgentSecretKey::from_bytes)? {
        Some(key) => Ok(key),
        None => files::new_key(&path, AgentSecretKey::generate, AgentSecretKey::expose_bytes),
    }
}

/// The gate's context.
struct Context {
    devices: Arc<Devices>,
    hub: Hub,
}

impl AgentContext for Context {
    fn device(&self, device: &DevicePublicKey) -> Presence {
        self.devices.contains(device).into()
    }

    fn session(&self, session: &SessionId) -> Presence {
        self.hub.info(session.as_str()).is_some().into()
    }

    /// An enrolled device has the whole machine, so it may share any of it.
    fn may_share(&self, _: &DevicePublicKey, _: &SessionId) -> bool {
        true
    }
}

/// A peer whose handshake is done.
enum Peer {
    Device { socket: Socket, channel: Channel, device: DevicePublicKey, handshake_hash: [u8; 32] },
    Phone { socket: Socket, pending: PendingChannel },
}

impl Agent {
    fn now(&self) -> Now {
        self.clock.now()
    }

    fn log(&self, line: impl Into<String>) {
        (self.log)(line.into());
    }

    /// Asks the gate away from the tasks that carry frames: a durable ledger waits for the disk, and
    /// a revocation for permits in use.
    async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnOnce(&Gate, Now) -> T + Send + 'static,
    ) -> Outcome<T> {
        let agent = Arc::clone(self);
        let answer = spawn_blocking(move || {
            let answer = question(&agent.gate, agent.now());
            agent.look_at_ledger();
            answer
        });
        answer.await.map_err(|_| Problem::said("the agent could not decide; see its log"))
    }

    /// Once the ledger has failed, the gate makes streams wait and admits no phone. Devices and
    /// sessions continue.
    fn look_at_ledger(&self) {
        if self.gate.is_poisoned() && !self.failure_logged.swap(true, Ordering::Relaxed) {
            self.log(
                "the ledger failed: all phones wait, and are cut off after a minute, until it can be opened \
                 again. see that its disk has room and can be written",
            );
        }
    }

    /// Settles the gate about once a second, and opens its ledger again once that has failed: at once, and
    /// then at growing intervals.
    async fn maintain<L: Ledger + 'static>(self: Arc<Self>, open: Arc<dyn Fn() -> Outcome<L> + Send + Sync>) {
        let mut turn = interval(SETTLE);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut pause, mut skip) = (1, 0);
        loop {
            turn.tick().await;
            if self.gate.is_poisoned() && skip == 0 {
                let again = Arc::clone(&open);
                let opened = self.ask(move |gate, now| {
                    again().and_then(|ledger| {
                        gate.reopen(ledger, now).map_err(|error| with_causes(&error)).during("the ledger")
                    })
                });
                match opened.await.and_then(|opened| opened) {
                    Ok(()) => {
                        self.log("the ledger is open again: phones continue");
                        self.failure_logged.store(false, Ordering::Relaxed);
                        pause = 1;
                    }
                    Err(_) => (skip, pause) = (pause, (pause * 2).min(LONGEST_PAUSE)),
                }
            }
            skip = u32::saturating_sub(skip, 1);
            // Also where the ledger has failed: streams that have waited for too long end by it.
            if let Ok(Err(denial)) = self.ask(|gate, now| gate.settle(now)).await
                && !self.gate.is_poisoned()
            {
                self.log(format!("the gate could not be settled: {denial}"));
            }
        }
    }

    /// Revokes what an earlier process has left: the pairings of removed devices, and every session,
    /// since none has survived it.
    async fn catch_up(self: &Arc<Self>) -> Outcome<()> {
        let (enrolled, hub) = (self.devices.enrolled(), self.hub.clone());
        let caught_up = self.ask(move |gate, now| {
            gate.sync_devices(&enrolled, now)?;
            let mut sessions = HashSet::new();
            for state in [StateKind::Open, StateKind::Pending, StateKind::Active] {
                let mut list = List::default().with_state(state);
                loop {
                    let page = gate.list(&list, now)?;
                    sessions.extend(page.entries.into_iter().map(|listing| listing.session));
                    match page.next {
                        Some(next) => list = list.after(next),
                        None => break,
                    }
                }
            }
            let mut gone = sessions.iter().filter(|session| hub.info(session.as_str()).is_none());
            gone.try_for_each(|session| gate.end_session(session, now).map(drop))
        });
        caught_up.await?.during("the sessions of an earlier start could not be ended")
    }

    async fn listen(self: Arc<Self>, listener: TcpListener, path: String) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let place = Arc::clone(&places).try_acquire_owned();
                    // A failed accept is the peer's own loss; without a place, so is this one.
                    if let (Ok((stream, _)), Ok(place)) = (accepted, place) {
                        let (agent, path) = (Arc::clone(&self), path.clone());
                        connections.spawn(async move {
                            agent.serve(stream, &path).await;
                            drop(place);
                        });
                    }
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, path: &str) {
        let greeting = timeout(HANDSHAKE, self.greet(stream, path)).await;
        match greeting {
            Ok(Some(Peer::Device { socket, channel, device, handshake_hash })) => {
                device::serve(&self, socket, channel, device, handshake_hash).await;
            }
            Ok(Some(Peer::Phone { socket, pending })) => {
                phone::serve(&self, socket, pending).await;
            }
            Ok(None) | Err(_) => {}
        }
    }

    /// From the first byte to message 2. `None` if the peer was sent away.
    async fn greet(self: &Arc<Self>, stream: TcpStream, path: &str) -> Option<Peer> {
        let _stranger = self.strangers.try_acquire().ok()?;
        let mut socket = transport::accept(stream, path).await.ok()?;
        let message = match transport::receive(&mut socket).await {
            Ok(message) => message,
            Err(_) => return turn_away(socket).await,
        };
        let agent = Arc::clone(self);
        let decided = {
            // Fails only if closed, which it never is.
            let _one_of_few = self.judged.acquire().await.ok()?;
            spawn_blocking(move || agent.decide(&message)).await.ok().flatten()
        };
        match decided {
            Some(Decided::Device { device, received }) => {
                let replied = received.reply(b"").ok()?;
                transport::send(&mut socket, replied.message).await.ok()?;
                let handshake_hash = replied.handshake_hash;
                Some(Peer::Device { socket, channel: replied.channel, device, handshake_hash })
            }
            Some(Decided::Admitted { message, pending }) => {
                transport::send(&mut socket, message).await.ok()?;
                Some(Peer::Phone { socket, pending: *pending })
            }
            Some(Decided::Refused(message)) => {
                transport::send_last(socket, [message], CloseCode::Normal).await;
                None
            }
            // The agent cannot tell a phone from a stranger, so any peer that is no device may try again.
            None if self.failure_logged.load(Ordering::Relaxed) => {
                transport::send_last(socket, [], CloseCode::Again).await;
                None
            }
            // A stranger, a message for another agent, a wrong ticket, an unknown credential: from
            // outside they are one.
            None => turn_away(socket).await,
        }
    }

    /// The result of message 1; `None` if the peer has proven nothing.
    fn decide(&self, message: &[u8]) -> Option<Decided> {
        let received = Responder::read(&self.key, message, &mut OsRng).ok()?;
        let admission = self.gate.admit(received, self.now(), &mut OsRng);
        self.look_at_ledger();
        match admission {
            Admission::PassThrough(received) => {
                let device = DevicePublicKey::from_bytes(*received.peer().as_bytes()).ok()?;
                self.devices.contains(&device).then_some(Decided::Device { device, received })
            }
            Admission::Admitted { message, pending } => {
                Some(Decided::Admitted { message, pending: Box::new(pending) })
            }
            Admission::Refused { message, denial } => {
                self.log(format!("turned a phone away: {}", denial));
                message.map(Decided::Refused)
            }
        }
    }

    /// Ends the credentials of sessions that have ended.
    async fn end_sessions(self: Arc<Self>, mut ends: mpsc::UnboundedReceiver<String>) {
        let mut waiting = JoinSet::new();
        loop {
            tokio::select! {
                ended = ends.recv() => {
                    let Some(id) = ended else { return };
                    let agent = Arc::clone(&self);
                    waiting.spawn(async move {
                        tokio::time::sleep(LAST_OUTPUT).await;
                        agent.end_session(&id).await;
                    });
                }
                Some(_) = waiting.join_next() => {}
            }
        }
    }

    async fn end_session(self: &Arc<Self>, id: &str) {
        let Ok(session) = SessionId::new(id) else { return };
        self.floors.end_session(&session);
        let ended = self.ask(move |gate, now| gate.end_session(&session, now)).await;
        match ended {
            // Most sessions were never shared.
            Ok(Ok(_)) => {}
            Ok(Err(denial)) => self.log(format!("session {id}: its end could not be recorded: {denial}")),
            Err(problem) => self.log(format!("session {id}: its end could not be recorded: {problem}")),
        }
    }

    /// Follows the list of devices, and revokes what removed ones have shared.
    async fn watch_devices(self: Arc<Self>, mut reloads: mpsc::Receiver<()>) {
        let mut look = interval(DEVICES_LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let forced = tokio::select! {
                _ = look.tick() => false,
                asked = reloads.recv() => match asked {
                    Some(()) => true,
                    None => return,
                },
            };
            match self.devices.reload(forced) {
                Ok(true) => {
                    let enrolled = self.devices.enrolled();
                    if let Ok(Err(denial)) =
                        self.ask(move |gate, now| gate.sync_devices(&enrolled, now)).await
                    {
                        self.log(format!("the removal of devices could not be recorded: {denial}"));
                    }
                    self.devices.announce();
                }
                Ok(false) => {}
                Err(problem) => self.log(format!("the list of devices stays as it was: {problem}")),
            }
        }
    }
}

enum Decided {
    Device { device: DevicePublicKey, received: Received },
    Admitted { message: Vec<u8>, pending: Box<PendingChannel> },
    Refused(Vec<u8>),
}

async fn turn_away(socket: Socket) -> Option<Peer> {
    transport::send_last(socket, [], STRANGER).await;
    None
}
