//! Agents on the local network, by multicast DNS (`docs/ACP_BRIDGE.md`, "Being found"). Anybody there can send any
//! record: one says where an agent may be, grants nothing and proves nothing. Noise proves the agent.

mod advertise;
mod browse;
pub mod cli;
mod record;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use mdns_sd::{IfKind, IfPredicate, ServiceDaemon};
use sessioncap::AgentPublicKey;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};

use super::problem::{Outcome, Problem, While};
pub use advertise::{Advert, Advertisement, State};
pub use browse::{Browse, Event};
pub use record::{Found, Record};

/// The service, as a whole name.
pub const SERVICE_TYPE: &str = "_openagents._tcp.local.";

/// How long one record is tried at first, all its addresses together.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// What a record says of its agent's key: the first 8 bytes of SHA-256 over `sessioncap.mdns.key.v1` and the 32 bytes of
/// the key, in lower-case hexadecimal. It finds the record of an agent that a phone has paired with. It proves
/// nothing: it can be copied, and another key with the same hash can be searched for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 8]);

impl KeyHash {
    /// Of a key.
    pub fn of(key: &AgentPublicKey) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"sessioncap.mdns.key.v1");
        hash.update(key.as_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        let [a, b, c, d, e, f, g, h, ..] = hash;
        Self([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({self})")
    }
}

impl FromStr for KeyHash {
    type Err = Problem;

    fn from_str(text: &str) -> Outcome<Self> {
        let said = || Problem::said("the hash of an agent's key is 16 lower-case hexadecimal digits");
        read_hex(text).map(Self).ok_or_else(said)
    }
}

/// Lower-case hexadecimal digits of exactly so many bytes.
pub(crate) fn read_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// The network interfaces over which an agent is advertised, or looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Interfaces {
    /// All but loopback and those of containers and virtual machines, where no phone is.
    #[default]
    Networks,
    /// All, for tests and for agents that phones of the same machine look for.
    All,
    /// Those with these names.
    Only(Vec<String>),
}

/// How the names of interfaces begin that lead to containers and virtual machines of this machine.
const INWARD: [&str; 4] = ["docker", "br-", "veth", "virbr"];

impl Interfaces {
    /// Whether an interface is one of them.
    pub fn takes(&self, name: &str, is_loopback: bool) -> bool {
        match self {
            Self::Networks => !is_loopback && !INWARD.iter().any(|begin| name.starts_with(begin)),
            Self::All => true,
            Self::Only(names) => names.iter().any(|listed| listed == name),
        }
    }

    /// A thread that speaks multicast DNS over these alone.
    fn daemon(&self) -> Outcome<ServiceDaemon> {
        let daemon = ServiceDaemon::new().during("multicast dns cannot be started")?;
        let taken = self.clone();
        let others =
            IfPredicate::new(move |interface| !taken.takes(&interface.name, interface.is_loopback()));
        daemon.disable_interface(IfKind::Predicate(others)).during(UNABLE)?;
        daemon.set_ip_check_interval(LOOK_AT_INTERFACES).during(UNABLE)?;
        Ok(daemon)
    }
}

const UNABLE: &str = "multicast dns does not work";

/// How often the interfaces are looked at, seconds: a laptop comes to another network.
const LOOK_AT_INTERFACES: u32 = 2;

/// Tries each record in turn, at most [`Browse::MOST_CANDIDATES`], and each address of it, until one is the agent.
/// `attempt` connects and has Noise prove the agent's key. A record gets `patience`, of which the addresses not
/// yet tried have equal shares.
///
/// # Errors
/// None is the agent; the last failure, or that there is no record.
pub async fn try_each<T>(
    candidates: &[Found],
    patience: Duration,
    mut attempt: impl AsyncFnMut(&Found, SocketAddr) -> Outcome<T>,
) -> Outcome<T> {
    let mut last = Problem::said(
        "no agent with this key is advertised on the network; name its address, or bring the phone to the same network",
    );
    for found in candidates.iter().take(Browse::MOST_CANDIDATES) {
        let deadline = Instant::now() + patience;
        for (at, address) in found.addresses.iter().enumerate() {
            let untried = u32::try_from(found.addresses.len() - at).unwrap_or(u32::MAX);
            let share = deadline.saturating_duration_since(Instant::now()) / untried;
            match timeout(share, attempt(found, *address)).await {
                Ok(Ok(made)) => return Ok(made),
                Ok(Err(problem)) => last = problem,
                Err(_) => last = Problem::TooSlow { seconds: patience.as_secs() },
            }
        }
    }
    Err(last)
}
