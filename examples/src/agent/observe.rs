//! `/metrics` and `/healthz`, for whoever watches the agent: numbers and fixed words, without ids, names and
//! addresses of peers.

use std::fmt::{self, Display, Write as _};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sessioncap::agent::Histogram;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::http::header::HOST;
use uuid::Uuid;

use super::Agent;
use super::upgrade::{http, read_head};
use crate::problem::{Outcome, Problem, While};

/// Questions that are answered at a time.
const MOST: usize = 8;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// After a failed accept.
const PAUSE: Duration = Duration::from_millis(250);

/// Where metrics are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observe {
    /// A socket that only the agent's user can open.
    Unix(PathBuf),
    /// An address of this machine that no other reaches.
    Loopback(SocketAddr),
}

impl FromStr for Observe {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let wrong = || Problem::said("write unix:PATH, or a loopback address such as 127.0.0.1:9464");
        let address: SocketAddr = text.parse().map_err(|_| wrong())?;
        address.ip().is_loopback().then_some(Self::Loopback(address)).ok_or_else(wrong)
    }
}

impl Display for Observe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Loopback(address) => address.fmt(f),
        }
    }
}

/// A socket that is open already.
pub(super) enum Observing {
    Unix { listener: UnixListener, _file: Remove },
    Loopback(TcpListener, SocketAddr),
}

/// Removes a socket's file when the agent ends.
pub(super) struct Remove(PathBuf);

impl Drop for Remove {
    fn drop(&mut self) {
        // It may have been removed already.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Observe {
    pub(super) async fn bind(self) -> Outcome<Observing> {
        let doing = format!("metrics cannot be served on {self}");
        let bound = match self {
            Self::Unix(path) => {
                bind_private(&path).await.map(|listener| Observing::Unix { listener, _file: Remove(path) })
            }
            Self::Loopback(address) => TcpListener::bind(address)
                .await
                .and_then(|listener| Ok((listener.local_addr()?, listener)))
                .map(|(address, listener)| Observing::Loopback(listener, address)),
        };
        bound.during(doing)
    }
}

/// A socket of mode 0600. It is made in a directory that nobody else can enter, so that nobody connects before
/// its mode is set, and then takes the place of one that an earlier process has left.
pub(crate) async fn bind_private(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file exists and is no socket"));
        }
        Ok(_) if UnixStream::connect(path).await.is_ok() => return Err(io::ErrorKind::AddrInUse.into()),
        _ => {}
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Short, because the path of a socket may have 107 bytes only.
    let id = Uuid::new_v4().simple().to_string();
    let private = parent.join(format!(".{}", id.get(..8).unwrap_or_default()));
    std::fs::DirBuilder::new().mode(0o700).create(&private)?;
    let inside = private.join("s");
    let bound = UnixListener::bind(&inside).and_then(|listener| {
        std::fs::set_permissions(&inside, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&inside, path)?;
        Ok(listener)
    });
    // Empty now, or of no use.
    let _ = std::fs::remove_file(&inside);
    let _ = std::fs::remove_dir(&private);
    bound
}

impl Observing {
    pub(super) async fn serve(self, agent: Arc<Agent>) {
        if let Self::Loopback(_, address) = &self {
            // The port may have been chosen by the system.
            agent.log(format!("metrics are served on {address}"));
        }
        let few = Arc::new(Semaphore::new(MOST));
        loop {
            let Ok(place) = Arc::clone(&few).acquire_owned().await else { return };
            let agent = Arc::clone(&agent);
            let accepted = match &self {
                Self::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| {
                    tokio::spawn(async move {
                        answer(stream, &agent, None).await;
                        drop(place);
                    });
                }),
                Self::Loopback(listener, address) => {
                    let address = *address;
                    listener.accept().await.map(|(stream, _)| {
                        tokio::spawn(async move {
                            answer(stream, &agent, Some(address)).await;
                            drop(place);
                        });
                    })
                }
            };
            if accepted.is_err() {
                sleep(PAUSE).await;
            }
        }
    }
}

/// One question, one answer.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, agent: &Agent, own: Option<SocketAddr>) {
    let answering = async {
        let Some(read) = read_head(&mut stream).await else { return };
        let text = match read {
            Err(_) => http("400 Bad Request", "", "ask with GET\n"),
            // A web page whose name leads here has another host.
            Ok((request, _))
                if own.is_some_and(|own| {
                    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
                    !host.is_some_and(|host| is_own(host, own))
                }) =>
            {
                http("403 Forbidden", "", "ask for this machine's own address\n")
            }
            Ok((request, _)) => match request.uri().path() {
                "/metrics" => http("200 OK", "", &metrics(agent)),
                "/healthz" => health(agent),
                _ => http("404 Not Found", "", "ask for /metrics or /healthz\n"),
            },
        };
        let _ = stream.write_all(text.as_bytes()).await;
        let _ = stream.shutdown().await;
    };
    // Whoever is slower gets nothing.
    let _ = timeout(PATIENCE, answering).await;
}

fn is_own(host: &str, own: SocketAddr) -> bool {
    let local = format!("localhost:{}", own.port());
    host == own.to_string() || host.eq_ignore_ascii_case(&local)
}

fn health(agent: &Agent) -> String {
    let mut problems = String::new();
    for problem in agent.gate.health(agent.now()).problems() {
        let _ = writeln!(problems, "{}: {problem}", problem.code());
    }
    if !agent.devices.is_known() {
        problems.push_str("devices_unknown: the list of devices cannot be read\n");
    }
    match problems.is_empty() {
        true => http("200 OK", "", "ok\n"),
        false => http("503 Service Unavailable", "", &problems),
    }
}

/// Prometheus' text format.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# TYPE sessioncap_{name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "sessioncap_{name}{labels} {value}");
    }

    fn gauge(&mut self, name: &str, value: impl Display) {
        self.family(name, "gauge");
        self.value(name, "", value);
    }

    fn counter(&mut self, name: &str, value: u64) {
        self.family(name, "counter");
        self.value(name, "", value);
    }

    fn by(&mut self, name: &str, kind: &str, label: &str, values: impl Iterator<Item = (&'static str, u64)>) {
        self.family(name, kind);
        for (of, value) in values {
            self.value(name, &format!("{{{label}=\"{of}\"}}"), value);
        }
    }

    fn histogram(&mut self, name: &str, times: &Histogram) {
        self.family(name, "histogram");
        let mut sum = 0_u64;
        for (end, count) in times.buckets() {
            sum = sum.saturating_add(count);
            let end = if end == Duration::MAX { "+Inf".to_owned() } else { end.as_secs_f64().to_string() };
            self.value(&format!("{name}_bucket"), &format!("{{le=\"{end}\"}}"), sum);
        }
        self.value(&format!("{name}_sum"), "", times.total().as_secs_f64());
        self.value(&format!("{name}_count"), "", sum);
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn metrics(agent: &Agent) -> String {
    let mut text = Text::default();
    let (counts, places) = (&agent.counts, &agent.places);
    let members = places.members();
    let kinds = [
        ("waiting", count(places.waiting.len())),
        ("stranger", count(places.strangers.len())),
        ("unproven", count(places.unproven.len())),
        ("phone", count(members.phones)),
        ("device", count(members.devices)),
    ];
    text.by("agent_connections", "gauge", "kind", kinds.into_iter());
    text.counter("agent_accepted_total", counts.accepted.get());
    text.counter("agent_accept_errors_total", counts.accept_errors.get());
    text.by("agent_sent_away_total", "counter", "reason", counts.all_sent_away());
    text.gauge("agent_sessions", agent.sessions.count());
    text.gauge("agent_uptime_seconds", agent.started.elapsed().as_secs());
    text.gauge("agent_devices_list_readable", u8::from(agent.devices.is_known()));
    text.counter("agent_log_lines_dropped_total", agent.log_dropped.load(Ordering::Relaxed));

    let health = agent.gate.health(agent.now());
    text.gauge("gate_healthy", u8::from(health.is_healthy()));
    text.gauge("gate_ledger_usable", u8::from(health.ledger_usable));
    text.gauge("gate_shut", u8::from(health.shut));
    text.gauge("gate_settled_seconds_ago", health.settled_ago.as_secs_f64());
    text.gauge("gate_audit_waiting", health.audit_waiting);
    text.gauge("gate_revocations_unwritten", health.revocations_unwritten);
    text.gauge("gate_streams_paused", u8::from(health.streams_paused));
    text.gauge("gate_credentials_paused", health.credentials_paused);

    let stats = agent.gate.stats();
    // From the library's own list of fields, so that none is forgotten.
    if let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(&stats) {
        for (name, value) in &fields {
            match value.as_u64() {
                Some(value) if name == "connections" => text.gauge("gate_connections", value),
                Some(value) => text.counter(&format!("gate_{name}_total"), value),
                None => {}
            }
        }
    }
    text.by("gate_denials_total", "counter", "reason", stats.denials());
    text.histogram("gate_admit_seconds", &stats.admit_time);
    text.histogram("gate_transaction_seconds", &stats.transaction_time);
    text.histogram("gate_revoke_seconds", &stats.revoke_time);
    text.histogram("gate_settle_seconds", &stats.settle_time);
    text.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_served_to_this_machine_alone() {
        assert_eq!("unix:a/b".parse::<Observe>().unwrap(), Observe::Unix("a/b".into()));
        let loopback: Observe = "127.0.0.1:9464".parse().unwrap();
        assert_eq!(loopback, Observe::Loopback(([127, 0, 0, 1], 9464).into()));
        for wrong in ["0.0.0.0:9464", "192.0.2.1:9464", "[::]:9464", "unix:", "9464", ""] {
            assert!(wrong.parse::<Observe>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_that_leads_here_is_not_the_machines_own() {
        let own = ([127, 0, 0, 1], 9464).into();
        assert!(is_own("127.0.0.1:9464", own) && is_own("LocalHost:9464", own));
        for other in ["evil.example:9464", "127.0.0.1", "127.0.0.1:80", "localhost.evil.example:9464", ""] {
            assert!(!is_own(other, own), "{other}");
        }
    }
}
