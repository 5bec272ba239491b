//! The agent's command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;
use sessioncap::{AgentUrl, DevicePublicKey};
use time::UtcOffset;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::logging::Writer;
use super::site::SiteOptions;
use super::{Config, FleetOptions, Observe, Options, Running, notify, start};
use crate::clock::Clock;
use crate::problem::{Outcome, Problem, While};
use crate::terminal::print_raw;
use crate::transport;

/// An agent daemon that owns terminal sessions and lets phones into them.
///
/// Prints one line of JSON with its address and key once it listens; everything else goes to standard
/// error, or to the file of `--log`. SIGHUP has the list of devices read and the log and the audit file opened
/// again, SIGUSR1 only the latter; SIGTERM and Ctrl-C end it.
///
/// If the ledger fails, phones wait while the agent tries to open it again, and are cut off after a minute;
/// devices and sessions continue.
#[derive(Parser)]
#[command(name = "agent")]
pub struct Arguments {
    /// Where to listen; port 0 takes a free one. For 0.0.0.0 or [::], codes name the addresses of this machine's
    /// interfaces, unless `--url` names others.
    #[arg(long, default_value = "127.0.0.1:9480", value_name = "HOST:PORT")]
    listen: SocketAddr,
    /// The directory of `noise.key`, `devices.json` and what was shared.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Keep no record of what was shared: every pairing ends with the process.
    #[arg(long)]
    in_memory: bool,
    /// An address under which phones reach the agent; may be repeated.
    #[arg(long = "url", value_name = "URL")]
    urls: Vec<AgentUrl>,
    /// A file of Datalog rules, `check` and `deny` lines that narrow what credentials allow.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// The offset from UTC at which the rules read the clock.
    #[arg(long, value_name = "+HH:MM", default_value = "+00:00", allow_hyphen_values = true, value_parser = parse_offset)]
    utc_offset: UtcOffset,
    /// A device's public key to enrol, or a file with one on each line; may be repeated.
    #[arg(long, value_name = "HEX|FILE")]
    enroll: Vec<String>,
    /// Where to append audit records, one JSON object a line; `none` for nowhere. Without it,
    /// `audit.jsonl` in the state directory. A record that cannot be written waits in the ledger. The
    /// file only grows: rename it, and the agent goes on in a new one.
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
    /// Where to append the log, in place of standard error.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// A web page's origin, such as https://app.example, that may connect; may be repeated. Without it, none may.
    #[arg(long = "origin", value_name = "ORIGIN")]
    origins: Vec<String>,
    #[command(flatten)]
    site: SiteOptions,
    #[command(flatten)]
    fleet: FleetOptions,
    /// How many connections from one address may have proven nothing yet. Raise it behind a proxy, where all
    /// peers have the same address; at most 128.
    #[arg(long, value_name = "NUMBER", default_value_t = 16)]
    per_address: usize,
    /// Where to serve /metrics and /healthz: `unix:PATH`, or a loopback address such as 127.0.0.1:9464.
    #[arg(long, value_name = "unix:PATH|ADDRESS")]
    observe: Option<Observe>,
    /// A file with the number of seconds that the agent's wall clock is ahead (negative: behind), read
    /// at each use. For trying out by hand the effects of passing time, and of a clock that is set
    /// back.
    #[arg(long, value_name = "FILE")]
    clock_offset_file: Option<PathBuf>,
}

/// Runs an agent until it is stopped.
pub async fn run(arguments: Arguments) -> Outcome<ExitCode> {
    let log = Writer::start(arguments.log.clone())?;
    let ended = serve(arguments, &log).await;
    log.finish();
    ended
}

async fn serve(arguments: Arguments, log: &Writer) -> Outcome<ExitCode> {
    let rules = match &arguments.rules {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            Some(text.during(format_args!("the rules in {} cannot be read", path.display()))?)
        }
        None => None,
    };
    let keys: Outcome<Vec<_>> = arguments.enroll.iter().map(|enroll| read_keys(enroll)).collect();
    let audit = match arguments.audit {
        Some(file) if file.as_os_str() == "none" => None,
        Some(file) => Some(file),
        None => Some(arguments.state.join("audit.jsonl")),
    };
    // Before anything can be renamed under the agent, or it can be told to end.
    let signals = Signals::watch()?;
    let running = start(Config {
        listen: arguments.listen,
        state: arguments.state,
        in_memory: arguments.in_memory,
        urls: arguments.urls,
        rules,
        offset: arguments.utc_offset,
        enroll: keys?.concat(),
        audit,
        clock: arguments.clock_offset_file.map_or_else(Clock::system, Clock::moved_by_file)?,
        look: super::LOOK,
        patience: transport::FRAME_PATIENCE,
        log: log.log(),
        options: Options {
            origins: arguments.origins,
            site: arguments.site,
            per_address: Some(arguments.per_address),
            observe: arguments.observe,
            log_dropped: log.dropped(),
            fleet: arguments.fleet,
            ..Options::default()
        },
    })
    .await?;
    signals.serve(&running, log).await?;
    running.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// The signals of an agent.
pub struct Signals {
    hang_up: Signal,
    reopen: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on none of them ends the process by itself.
    pub fn watch() -> Outcome<Self> {
        let watch = |kind| signal(kind).during("signals cannot be watched");
        Ok(Self {
            hang_up: watch(SignalKind::hangup())?,
            reopen: watch(SignalKind::user_defined1())?,
            terminate: watch(SignalKind::terminate())?,
        })
    }

    /// Says that the agent listens, and does as the signals say until one of them ends it.
    pub async fn serve(mut self, running: &Running, log: &Writer) -> Outcome<()> {
        let line = json!({
            "event": "listening", "url": running.url, "urls": running.urls, "agent_key": running.key,
        });
        print_raw(format!("{line}\n").as_bytes())?;
        notify("READY=1");
        loop {
            tokio::select! {
                _ = self.hang_up.recv() => {
                    running.reload_devices();
                    running.reopen_files();
                    log.reopen();
                }
                _ = self.reopen.recv() => {
                    running.reopen_files();
                    log.reopen();
                }
                _ = self.terminate.recv() => break,
                _ = tokio::signal::ctrl_c() => break,
            }
        }
        notify("STOPPING=1");
        Ok(())
    }
}

/// A device's public key, or those in a file.
pub fn read_keys(enroll: &str) -> Outcome<Vec<DevicePublicKey>> {
    if let Ok(key) = enroll.parse() {
        return Ok(vec![key]);
    }
    let text = std::fs::read_to_string(enroll);
    let text = text.during(format_args!("`{enroll}` is neither a public key nor a file of them"))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.parse().during(format_args!("{enroll}: `{line}` is not a public key"))).collect()
}

fn parse_offset(text: &str) -> Result<UtcOffset, Problem> {
    let wrong = || Problem::said("write an offset as +HH:MM or -HH:MM");
    let (sign, rest) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(rest), _) => (1, rest),
        (_, Some(rest)) => (-1, rest),
        _ => return Err(wrong()),
    };
    let (hours, minutes) = rest.split_once(':').ok_or_else(wrong)?;
    let number = |digits: &str| digits.parse::<i8>().ok().filter(|number| *number >= 0).ok_or_else(wrong);
    UtcOffset::from_hms(sign * number(hours)?, sign * number(minutes)?, 0).map_err(|_| wrong())
}
