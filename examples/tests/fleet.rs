//! Two example agents with one key, as processes: a PostgreSQL has their ledger, a server their sessions, and a balancer
//! stands before them.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests, which share their tools with others"
)]

#[path = "../../postgres/tests/scene/mod.rs"]
mod scene;
#[path = "programs/waits.rs"]
mod waits;
#[path = "programs/wire.rs"]
mod wire;
#[path = "programs/world.rs"]
mod world;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;
use sessioncap::session::Following;
use sessioncap::{HolderSecretKey, SessionId, Status};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use scene::Server;
use wire::{Told, attach, redeem};
use world::{ECHO, Running, World, dd_client, eventually, new_directory, program};

/// Gives each connection to the agent that the test names, and knows nothing else of them.
struct Balancer {
    url: String,
    agents: [String; 2],
    next: Arc<AtomicUsize>,
}

impl Balancer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        // Free ports, which the agents take next.
        let mut agents = [const { String::new() }; 2];
        for agent in &mut agents {
            let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
            *agent = free.local_addr().unwrap().to_string();
        }
        let next = Arc::new(AtomicUsize::new(0));
        let (to, picked) = (agents.clone(), Arc::clone(&next));
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let to = to[picked.load(Ordering::SeqCst)].clone();
                tokio::spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(to).await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Self { url, agents, next }
    }

    /// From now on.
    fn lead_to(&self, agent: usize) {
        self.next.store(agent, Ordering::SeqCst);
    }
}

/// A fleet. What the balancer reaches is `world`.
struct Fleet {
    directory: PathBuf,
    socket: PathBuf,
    sessions: Running,
    balancer: Balancer,
    agents: Vec<Running>,
    world: World,
    database: Server,
}

impl Fleet {
    /// Starts all of it, or skips.
    async fn start() -> Option<Self> {
        let database = Server::primary()?;
        database.migrate();
        let directory = new_directory();
        let socket = directory.join("s");
        let sessions = start_sessions(&socket).await;
        let balancer = Balancer::start().await;
        // Both have the key, and the list with the one device.
        let key = directory.join("noise.key");
        std::fs::write(&key, [7; 32]).unwrap();
        let keygen = dd_client(&directory.join("desktop")).arg("keygen").output().await.unwrap();
        let device = String::from_utf8(keygen.stdout).unwrap();
        for number in 0..2 {
            let state = directory.join(format!("agent{number}"));
            std::fs::create_dir(&state).unwrap();
            std::fs::copy(&key, state.join("noise.key")).unwrap();
            for (file, mode) in [(state.join("noise.key"), 0o600), (state, 0o700)] {
                use std::os::unix::fs::PermissionsExt;
                std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
            }
        }
        let agents = vec![
            start_agent(&directory, &database, &balancer, 0, &["--enroll", device.trim()]).await,
            start_agent(&directory, &database, &balancer, 1, &["--enroll", device.trim()]).await,
        ];
        let line: serde_json::Value =
            serde_json::from_str(agents[0].stdout.get().lines().next().unwrap()).unwrap();
        let agent_key = line["agent_key"].as_str().unwrap();
        let world = World {
            directory: directory.clone(),
            // Any process ends with the world.
            agent: Running::start(Command::new("true")),
            url: sessioncap::AgentUrl::parse(&balancer.url).unwrap(),
            key: agent_key.parse().unwrap(),
        };
        world.point_desktop_at(&balancer.url).await;
        Some(Self { directory, socket, sessions, balancer, agents, world, database })
    }

    async fn start_agent_again(&mut self, number: usize) {
        self.agents[number] = start_agent(&self.directory, &self.database, &self.balancer, number, &[]).await;
    }

    async fn kill(&mut self, number: usize) {
        self.agents[number].signal(Signal::KILL);
        self.agents[number].exit_code().await;
    }

    /// Which sessions have a grant that is in use.
    async fn shared(&self) -> Vec<String> {
        let grants = self.world.grants().await.into_iter();
        let active = grants.filter(|grant| grant["state"]["state"] == "active");
        active.map(|grant| grant["session"].as_str().unwrap().to_owned()).collect()
    }
}

async fn start_sessions(socket: &Path) -> Running {
    let mut command = Command::new(program("sessions"));
    command.arg("--listen").arg(socket);
    let server = Running::start(command);
    server.stdout.until("listening at").await;
    server
}

async fn start_agent(
    directory: &Path,
    database: &Server,
    balancer: &Balancer,
    number: usize,
    more: &[&str],
) -> Running {
    let ledger = format!("host={} user=gate dbname=postgres", database.directory.0.display());
    let mut command = Command::new(program("agent"));
    command.args(["--listen", &balancer.agents[number], "--url", &balancer.url]);
    command.args(["--ledger", &ledger, "--ledger-without-standby", "--node", &(number + 1).to_string()]);
    command.arg("--sessions").arg(directory.join("s"));
    command.arg("--state").arg(directory.join(format!("agent{number}"))).args(more);
    let agent = Running::start(command);
    agent.stdout.until("listening").await;
    agent
}

fn phone() -> HolderSecretKey {
    HolderSecretKey::from_bytes([1; 32])
}

#[tokio::test]
async fn one_phone_does_not_notice_which_of_two_agents_serves_it_and_either_revokes() {
    let Some(fleet) = Fleet::start().await else { return };
    let Fleet { world, balancer, .. } = &fleet;
    // The desktop is served by the first, the phone by the second.
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &[]).await;
    balancer.lead_to(1);
    let mut joined = redeem(world, &pairing.link, &phone()).await.unwrap();
    joined.stream.follow(None).await.unwrap();
    joined.stream.until("ready").await;
    joined.stream.type_in("one\r").await;
    joined.stream.until("got:one").await;
    let mut shown = joined.stream.shown;
    drop(joined.stream);

    for (agent, text) in [(0, "two"), (1, "three"), (0, "four")] {
        // It gets the output that it misses meanwhile afterwards, whichever agent it asks.
        balancer.lead_to(0);
        let mut desktop = wire::connect_device(world, &world.device_key()).await.unwrap();
        let request = serde_json::json!({ "method": "shell.attach_session", "id": session, "tail": true });
        assert_eq!(desktop.call(request).await["ok"], true);
        desktop.send(format!("before {text}\r").as_bytes()).await;
        desktop.until_raw(&format!("got:before {text}")).await;
        balancer.lead_to(agent);
        let (mut stream, _) = attach(world, &phone(), &joined.credential).await.unwrap();
        let point = shown.unwrap();
        let following = stream.follow(Some(point)).await.unwrap();
        assert_eq!(following, Following { from: point, missed: Some(0), screen: false }, "{text}");
        let seen = stream.until(&format!("got:before {text}")).await;
        assert!(!seen.contains("ready"), "not what it has: {seen}");
        stream.type_in(&format!("{text}\r")).await;
        stream.until(&format!("got:{text}")).await;
        shown = stream.shown;
    }

    // Served by the second, revoked at the first.
    balancer.lead_to(1);
    let (mut stream, _) = attach(world, &phone(), &joined.credential).await.unwrap();
    stream.follow(None).await.unwrap();
    stream.until("got:four").await;
    balancer.lead_to(0);
    let revoke = ["session", "revoke", "--session", session.as_str()];
    world.dd_ok(&revoke).await;
    let (_, told) = stream.until_end().await;
    assert_eq!(told, Some(Status::Revoked.code()));
    for agent in 0..2 {
        balancer.lead_to(agent);
        let refused = attach(world, &phone(), &joined.credential).await.err();
        assert_eq!(refused, Some(Told::Status(Status::Revoked)), "{agent}");
    }
}

#[tokio::test]
async fn an_agent_that_starts_again_ends_only_the_sessions_of_its_own_node() {
    let Some(mut fleet) = Fleet::start().await else { return };
    let mut sessions = Vec::new();
    for agent in 0..2 {
        fleet.balancer.lead_to(agent);
        let session = fleet.world.session(ECHO).await;
        let pairing = fleet.world.pair(&session, &[]).await;
        redeem(&fleet.world, &pairing.link, &phone()).await.unwrap();
        sessions.push(session.to_string());
    }
    sessions.sort();
    let both = async |fleet: &Fleet| {
        let mut shared = fleet.shared().await;
        shared.sort();
        shared == sessions
    };
    assert!(both(&fleet).await);

    // The first is gone and comes again: the sessions have been at their server all the time.
    fleet.kill(0).await;
    fleet.balancer.lead_to(1);
    assert!(both(&fleet).await);
    fleet.start_agent_again(0).await;
    assert!(both(&fleet).await, "nothing has ended");

    // All sessions end with their server while no agent is there to hear of it.
    fleet.kill(0).await;
    fleet.kill(1).await;
    fleet.sessions.signal(Signal::KILL);
    fleet.sessions.exit_code().await;
    fleet.sessions = start_sessions(&fleet.socket).await;
    fleet.start_agent_again(1).await;
    let left = fleet.shared().await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].starts_with("1."), "the other node's: {left:?}");
    // Nobody can say that it has ended, so nobody ends it, and nobody is let in.
    let unknown = SessionId::new(left[0].as_str()).unwrap();
    let refused = fleet.world.dd(&["session", "pair-mobile", unknown.as_str(), "--json"]).await;
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(told.contains("context_unknown"), "{told}");
    fleet.start_agent_again(0).await;
    assert_eq!(fleet.shared().await, [""; 0]);

    // A session that ends is ended at each.
    let session = fleet.world.session(ECHO).await;
    let pairing = fleet.world.pair(&session, &[]).await;
    redeem(&fleet.world, &pairing.link, &phone()).await.unwrap();
    assert_eq!(fleet.shared().await, [session.to_string()]);
    fleet.balancer.lead_to(0);
    fleet.world.dd_ok(&["session", "close", session.as_str()]).await;
    fleet.balancer.lead_to(1);
    eventually("the session is over", async || fleet.shared().await.is_empty()).await;
}

#[tokio::test]
async fn an_agent_says_what_its_ledger_lacks() {
    let directory = new_directory();
    for (arguments, told) in [
        (&["--ledger", "postgres://gate@db.example/x"][..], "--sessions"),
        (
            &["--ledger", "postgres://gate@db.example/x", "--sessions", "s", "--node", "1"],
            "root certificates",
        ),
        (&["--ledger", "host=/nowhere", "--sessions", "s", "--node", "1"], "no connection to the database"),
        (&["--ledger", "file:/nowhere/at-all", "--sessions", "s", "--node", "1"], "is not there"),
        (&["--ledger-without-standby"], "--ledger"),
        (&["--sessions", "/nowhere/at-all"], "start it first"),
    ] {
        let mut command = Command::new(program("agent"));
        command.args(["--listen", "127.0.0.1:0", "--state"]).arg(directory.join("agent")).args(arguments);
        let output = command.output().await.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && stderr.contains(told), "{arguments:?}: {stderr}");
    }
}
