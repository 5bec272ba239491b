//! The agent: it owns sessions, gives enrolled devices full control of them, and lets phones do what their
//! credentials say.

mod addresses;
pub mod cli;
mod command;
mod counts;
#[cfg(feature = "postgres")]
mod database;
mod device;
mod devices;
mod fleet;
mod floors;
mod host;
mod journal;
mod listener;
pub mod logging;
mod maintenance;
mod notify;
mod observe;
mod pair;
pub mod phone;
mod places;
mod site;
mod store;
mod upgrade;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sessioncap::agent::ledger::{Ledger, MemoryLedger, RedbLedger};
use sessioncap::agent::{AgentContext, Gate, GateConfig, Policy, Presence};
use sessioncap::{AgentPublicKey, AgentSecretKey, AgentUrl, DevicePublicKey, Now, SessionId};
use time::UtcOffset;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::clock::Clock;
use super::files;
use super::problem::{Outcome, Problem, While, with_causes};
use super::pty::Hub;
use super::transport::{self, Socket, Stream};
use counts::Counts;
use devices::Devices;
use fleet::Fleet;
pub use fleet::FleetOptions;
use floors::Floors;
use host::Sessions;
pub use host::{DeviceStream, Ends, Host, Serving};
use journal::Journal;
pub(crate) use notify::notify;
pub use observe::Observe;
pub(crate) use observe::bind_private;
use places::Places;
pub use site::SiteOptions;
use store::{Opened, Store};

/// How often a phone's connection looks at the clock, unless there is a reason for another.
pub const LOOK: Duration = Duration::from_secs(1);
/// How long connections may take to say that the agent stops.
const STOPPING: Duration = Duration::from_secs(2);

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
    /// Everything that has a default.
    pub options: Options,
}

/// Settings with defaults.
#[derive(Default)]
pub struct Options {
    /// The web pages that may connect, as their browsers name them; by default none.
    pub origins: Vec<String>,
    /// Connections from one address that have proven nothing; by default 16. Behind a proxy on this machine all
    /// peers have the same address.
    pub per_address: Option<usize>,
    /// Where metrics and health are served; by default nowhere.
    pub observe: Option<Observe>,
    /// Which app opens links of this agent; by default none.
    pub site: SiteOptions,
    /// How many lines the log has dropped, for the metrics.
    pub log_dropped: Arc<AtomicU64>,
    /// Makes of an accepted connection one with TLS, if its peer begins with that; by default none is.
    pub tls: Option<Secure>,
    /// Which sessions and which ledger it shares with other agents of the same key; by default none.
    pub fleet: FleetOptions,
}

/// Takes an accepted connection, and returns it as it is or with TLS.
pub type Secure =
    Arc<dyn Fn(TcpStream) -> Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>> + Send + Sync>;

/// State that all connections share.
struct Agent {
    key: AgentSecretKey,
    gate: Gate,
    sessions: Sessions,
    devices: Arc<Devices>,
    floors: Arc<Floors>,
    fleet: Option<Fleet>,
    journal: Option<Journal>,
    clock: Clock,
    look: Duration,
    patience: Duration,
    log: Log,
    /// Whether it was logged that the ledger has failed.
    failure_logged: AtomicBool,
    started: Instant,
    places: Arc<Places>,
    counts: Counts,
    /// For the arithmetic of a first message, for the admission of a phone, and for a farewell.
    turns: listener::Turns,
    origins: Vec<String>,
    site: site::Site,
    tls: Option<Secure>,
    log_dropped: Arc<AtomicU64>,
    /// Whether the agent stops.
    stopping: watch::Sender<bool>,
}

/// An agent that listens. Dropping it ends its tasks; [`Running::stop`] also waits for its programs.
pub struct Running {
    /// Where a desktop on its machine reaches it.
    pub url: AgentUrl,
    /// All addresses of which it makes codes.
    pub urls: Vec<AgentUrl>,
    /// Its Noise key.
    pub key: AgentPublicKey,
    /// Follows the ledger's log until it is dropped, before the gate.
    following: store::Following,
    agent: Arc<Agent>,
    tasks: JoinSet<()>,
    listening: JoinSet<()>,
    reload: mpsc::Sender<()>,
}

impl Running {
    /// Has the list of devices read again now.
    pub fn reload_devices(&self) {
        // A reload that is still under way counts.
        let _ = self.reload.try_send(());
    }

    /// Opens the audit file again, which may have been renamed.
    pub fn reopen_files(&self) {
        if let Some(journal) = &self.agent.journal {
            journal.reopen();
        }
    }

    /// Tells every connection that the agent stops, ends them, and kills every program.
    pub async fn stop(mut self) {
        self.agent.stopping.send_replace(true);
        // A peer that does not read is not told.
        let _ = timeout(STOPPING, self.listening.join_next()).await;
        self.listening.shutdown().await;
        self.tasks.shutdown().await;
        // Waits for a read of the log.
        let _ = spawn_blocking(move || drop(self.following)).await;
        self.agent.sessions.stop().await;
    }
}

/// Starts an agent on the current runtime.
pub async fn start(config: Config) -> Outcome<Running> {
    start_kept(config, terminals).await
}

/// As [`start`], with the sessions of a host, which is told how to say that one has ended.
pub async fn start_hosting(config: Config, host: impl FnOnce(Ends) -> Arc<dyn Host>) -> Outcome<Running> {
    start_kept(config, |ends| Sessions::Hosted(host(ends))).await
}

/// Over the ledger that the configuration names.
async fn start_kept(mut config: Config, sessions: impl FnOnce(Ends) -> Sessions) -> Outcome<Running> {
    let fleet = std::mem::take(&mut config.options.fleet);
    let sessions = |ends: Ends, floors: &Arc<Floors>| match fleet.link() {
        Some(link) => fleet::mirror(link, ends, floors),
        None => (sessions(ends), None),
    };
    #[cfg(feature = "postgres")]
    if let Some(database) = fleet.database()? {
        return start_with(config, database, sessions).await;
    }
    match config.in_memory {
        true => start_with(config, Opened(|| Ok(MemoryLedger::new())), sessions).await,
        false => {
            let place = ledger_of(&config);
            start_with(config, Opened(move || open_ledger(&place)), sessions).await
        }
    }
}

fn terminals(Ends(ends): Ends) -> Sessions {
    Sessions::Terminals(Hub::new(move |id: &str| drop(ends.send(id.to_owned()))))
}

fn ledger_of(config: &Config) -> PathBuf {
    config.state.join("ledger.redb")
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
    let place = ledger_of(&config);
    start_with(config, Opened(move || open(&place)), |ends, _| (terminals(ends), None)).await
}

async fn start_with<S: Store>(
    config: Config,
    store: S,
    sessions: impl FnOnce(Ends, &Arc<Floors>) -> (Sessions, Option<Fleet>),
) -> Outcome<Running> {
    files::make_private_directory(&config.state)?;
    let key = noise_key(&config.state)?;
    let ledger = store.open(&key.public(), config.clock.now())?;
    let floors = Arc::new(Floors::new(config.rules.is_some()));
    let (devices, warning) = Devices::open(&config.state, &config.enroll)?;
    let devices = Arc::new(devices);
    if let Some(warning) = warning {
        (config.log)(warning);
    }
    let policy = Policy::with_operator_rules(config.rules.as_deref().unwrap_or_default(), config.offset)?;

    let listener = listener::listen_on(config.listen);
    let listener = listener.during(format_args!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr().during("the listening address is unknown")?;
    let addresses::Addresses { own: url, urls, path, warning } = addresses::of(address, config.urls)?;
    if let Some(warning) = warning {
        (config.log)(warning);
    }
    let Options { origins, per_address, observe, site, log_dropped, tls, .. } = config.options;
    let site = site::Site::new(&site, &urls)?;

    let mut tasks = JoinSet::new();
    let (tell_end, ends) = mpsc::unbounded_channel();
    let (sessions, fleet) = sessions(Ends(tell_end), &floors);
    if let Some(fleet) = &fleet {
        fleet.wait().await?;
    }
    let mut gate = store.configure(GateConfig::new(key.public(), urls.clone())?.with_policy(policy));
    let started = Instant::now();
    let observing = match observe {
        Some(observe) => {
            gate = gate.with_timer(move || started.elapsed());
            Some(observe.bind().await?)
        }
        None => None,
    };
    let journal = match config.audit {
        Some(path) => {
            let (journal, writing) = Journal::open(path, Arc::clone(&config.log))?;
            gate = gate.with_audit(writing);
            Some(journal)
        }
        None => None,
    };
    let context = Context { devices: Arc::clone(&devices), sessions: sessions.clone() };
    let agent = Arc::new(Agent {
        key,
        gate: Gate::open(gate, ledger, context, config.clock.now())
            .map_err(|error| with_causes(&error))
            .during("the ledger")?,
        sessions,
        devices,
        floors,
        fleet,
        journal,
        clock: config.clock,
        look: config.look,
        patience: config.patience,
        log: config.log,
        failure_logged: AtomicBool::new(false),
        started,
        places: Places::new(per_address),
        counts: Counts::default(),
        turns: listener::Turns::default(),
        origins,
        site,
        tls,
        log_dropped,
        stopping: watch::Sender::new(false),
    });
    // From here on the gate permits.
    let following = store.follow(&agent.gate, &agent.clock)?;
    agent.catch_up().await?;

    let (reload, reloads) = mpsc::channel(1);
    let key = agent.key.public();
    tasks.spawn(Arc::clone(&agent).end_sessions(ends));
    tasks.spawn(Arc::clone(&agent).maintain(Arc::new(store)));
    tasks.spawn(Arc::clone(&agent).follow_sessions());
    tasks.spawn(Arc::clone(&agent).watch_devices(reloads));
    if let Some(observing) = observing {
        tasks.spawn(observing.serve(Arc::clone(&agent)));
    }
    let mut listening = JoinSet::new();
    listening.spawn(Arc::clone(&agent).listen(listener, path));
    Ok(Running { url, urls, key, following, agent, tasks, listening, reload })
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
    sessions: Sessions,
}

impl AgentContext for Context {
    fn device(&self, device: &DevicePublicKey) -> Presence {
        self.devices.presence(device)
    }

    fn session(&self, session: &SessionId) -> Presence {
        self.sessions.presence(session)
    }

    /// An enrolled device has the whole machine, so it may share any of it.
    fn may_share(&self, _: &DevicePublicKey, _: &SessionId) -> bool {
        true
    }
}

impl Agent {
    fn now(&self) -> Now {
        self.clock.now()
    }

    fn log(&self, line: impl Into<String>) {
        (self.log)(line.into());
    }

    /// The next message of a peer; when the agent stops, the peer is told. Cancel-safe.
    async fn receive(&self, socket: &mut Socket) -> Outcome<Vec<u8>> {
        tokio::select! {
            biased;
            received = transport::receive(socket) => received,
            () = self.stopped() => {
                transport::close(socket, CloseCode::Away).await;
                Err(Problem::BrokenOff)
            }
        }
    }

    /// Waits until the agent stops.
    async fn stopped(&self) {
        // The sender is the agent's own.
        let _ = self.stopping.subscribe().wait_for(|stops| *stops).await;
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
}
