//! The command line of `discover`.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use sessioncap::{AgentPublicKey, Label};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use super::{Advert, Advertisement, Browse, Event, Found, Interfaces, KeyHash, PATIENCE, try_each};
use crate::problem::{Outcome, Problem, While};
use crate::terminal::{read_stdin, tell};

/// Shows the agents that are advertised on the network, or advertises one. A record proves nothing.
#[derive(Parser)]
#[command(name = "discover")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print who comes and goes, until it is interrupted.
    Browse {
        /// Only the agent with this key.
        #[arg(long)]
        key: Option<AgentPublicKey>,
        /// Connect when one comes, and when Enter is pressed: to the newest record first, until one accepts.
        #[arg(long, requires = "key")]
        connect: bool,
        #[command(flatten)]
        over: Over,
    },
    /// Advertise an agent until it is interrupted, and then say goodbye.
    Advertise {
        /// The name for people.
        #[arg(long)]
        name: Label,
        /// The agent's public key.
        #[arg(long)]
        key: AgentPublicKey,
        /// Where it listens.
        #[arg(long)]
        port: u16,
        /// The path of its WebSocket.
        #[arg(long, default_value = "/noise/ws")]
        path: String,
        /// Accept connections on the port and close them, to try out whether it can be reached.
        #[arg(long)]
        listen: bool,
        #[command(flatten)]
        over: Over,
    },
}

#[derive(Args)]
struct Over {
    /// Over this interface; may be repeated. Without it: all but loopback, containers and virtual machines.
    #[arg(long = "interface", value_name = "NAME")]
    interfaces: Vec<String>,
    /// Over every interface.
    #[arg(long, conflicts_with = "interfaces")]
    all_interfaces: bool,
}

impl Over {
    fn interfaces(self) -> Interfaces {
        match (self.all_interfaces, self.interfaces) {
            (true, _) => Interfaces::All,
            (false, names) if names.is_empty() => Interfaces::Networks,
            (false, names) => Interfaces::Only(names),
        }
    }
}

/// Runs the program.
pub async fn run(arguments: Arguments) -> Outcome<ExitCode> {
    let mut terminated = signal(SignalKind::terminate()).during("no signal can be waited for")?;
    let working = async {
        match arguments.command {
            Command::Browse { key, connect, over } => {
                browse(key.as_ref().map(KeyHash::of), connect, over.interfaces()).await.map(|()| None)
            }
            Command::Advertise { name, key, port, path, listen, over } => {
                let advert = Advert::new(name, port, &path, KeyHash::of(&key));
                let listener = match listen {
                    true => Some(bind(port).await?),
                    false => None,
                };
                Ok(Some((Advertisement::start(&advert, over.interfaces())?, listener)))
            }
        }
    };
    let stopped = async {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    tokio::pin!(stopped);
    let started = tokio::select! {
        started = working => started?,
        () = &mut stopped => None,
    };
    if let Some((advertisement, listener)) = started {
        tokio::select! {
            () = advertise(&advertisement, listener) => {}
            () = stopped => {}
        }
        advertisement.stop().await;
        tell("stopped");
    }
    Ok(ExitCode::SUCCESS)
}

async fn bind(port: u16) -> Outcome<TcpListener> {
    let all = SocketAddr::from(([0_u16; 8], port));
    TcpListener::bind(all).await.during(format_args!("port {port} cannot be listened on"))
}

/// Prints how it goes, and accepts who comes.
async fn advertise(advertisement: &Advertisement, listener: Option<TcpListener>) {
    let mut state = advertisement.watch();
    let mut shown = None;
    let telling = async {
        loop {
            let now = state.borrow_and_update().clone();
            if shown.as_ref() != Some(&now) {
                match &now.trouble {
                    Some(trouble) => tell(&format!("trouble: {}", crate::terminal::harmless(trouble))),
                    None if now.announced => tell(&format!("announced {:?}", now.name.as_str())),
                    None => {}
                }
                shown = Some(now);
            }
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let accepting = async {
        while let Some(listener) = &listener {
            // Whoever has connected has seen that it is here.
            let _ = listener.accept().await;
        }
        std::future::pending::<()>().await;
    };
    tokio::join!(telling, accepting);
}

async fn browse(key: Option<KeyHash>, connecting: bool, interfaces: Interfaces) -> Outcome<()> {
    let mut browse = Browse::start(None, interfaces)?;
    let mut typed = key.filter(|_| connecting).map(|key| (key, read_stdin()));
    loop {
        let entered = async {
            match &mut typed {
                Some((key, lines)) => lines.recv().await.map(|_| *key),
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            event = browse.next() => event?,
            entered = entered => {
                match entered {
                    Some(key) => connect(&browse.candidates(key)).await,
                    None => typed = None,
                }
                continue;
            }
        };
        match event {
            Event::Found(found) if key.is_none_or(|key| key == found.key) => {
                let addresses: Vec<String> = found.addresses.iter().map(SocketAddr::to_string).collect();
                let (name, path) = (found.name.as_str(), &found.path);
                tell(&format!("found {name:?} {} {path} {}", found.key, addresses.join(" ")));
                if connecting {
                    connect(&browse.candidates(found.key)).await;
                }
            }
            Event::Found(_) => {}
            Event::Gone(name) => tell(&format!("gone {:?}", name.as_str())),
        }
    }
}

/// Prints which of the records leads somewhere.
async fn connect(candidates: &[Found]) {
    let connected =
        try_each(candidates, PATIENCE, async |found, address| match TcpStream::connect(address).await {
            Ok(_) => {
                tell(&format!("connected to {:?} at {address}", found.name.as_str()));
                Ok(())
            }
            Err(cause) => {
                tell(&format!("no answer from {:?} at {address}", found.name.as_str()));
                Err(Problem::Unreachable { url: address.to_string(), cause: cause.to_string() })
            }
        });
    if connected.await.is_err() {
        tell("no record leads to an agent");
    }
}
