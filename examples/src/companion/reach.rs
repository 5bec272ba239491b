//! Where the agent is: at its address, or wherever the local network says that the agent with its key is.

use std::time::Duration;

use sessioncap::{AgentPublicKey, AgentUrl};
#[cfg(feature = "acp")]
use tokio::time::{Instant, timeout_at};

#[cfg(feature = "acp")]
use crate::discovery::{Browse, Interfaces, KeyHash, PATIENCE, try_each};
use crate::problem::Outcome;
use crate::transport::{self, Unproven};

/// Connects and has `attempt` prove the agent: first at its address, and if that leads to nobody or to somebody else,
/// where the local network's records with the hash of its key point. They are looked for as long as `search` says, and
/// not at all if that is zero. Where the agent was found grants nothing.
pub(super) async fn agent<T>(
    url: &AgentUrl,
    key: &AgentPublicKey,
    search: Duration,
    mut attempt: impl AsyncFnMut(Unproven) -> Outcome<T>,
) -> Outcome<T> {
    let tried = match transport::connect(url).await {
        Ok(socket) => attempt(socket).await,
        Err(problem) => Err(problem),
    };
    match tried {
        Err(problem) if !search.is_zero() && problem.is_passing() => {
            nearby(url, key, search, attempt).await.unwrap_or(Err(problem))
        }
        tried => tried,
    }
}

/// `None` if no agent with this key is found. Those that are there are tried again, each time for longer, until the
/// search is over: the agent may be slow, and others with its hash may be heard first.
#[cfg(feature = "acp")]
async fn nearby<T>(
    url: &AgentUrl,
    key: &AgentPublicKey,
    search: Duration,
    mut attempt: impl AsyncFnMut(Unproven) -> Outcome<T>,
) -> Option<Outcome<T>> {
    // Without multicast there is nobody to find.
    let mut browse = Browse::start(None, Interfaces::default()).ok()?;
    let key = KeyHash::of(key);
    let end = Instant::now() + search;
    let mut patience = PATIENCE;
    loop {
        hear(&mut browse, key, end).await;
        let found = browse.candidates(key);
        let proven = try_each(&found, patience, async |_, address| {
            match attempt(transport::connect_at(url, address).await?).await {
                // A peer that is not the agent decides nothing.
                Err(problem) if problem.is_passing() => Err(problem),
                decided => Ok(decided),
            }
        });
        match proven.await {
            Ok(decided) => return Some(decided),
            Err(_) if Instant::now() >= end => return None,
            Err(_) => patience = patience.saturating_mul(2),
        }
    }
}

/// Listens until there is a record with this hash, and a moment longer: others may follow, and only one is the agent.
#[cfg(feature = "acp")]
async fn hear(browse: &mut Browse, key: KeyHash, end: Instant) {
    let mut until = end;
    loop {
        if !browse.candidates(key).is_empty() {
            until = until.min(Instant::now() + PATIENCE / 6);
        }
        match timeout_at(until, browse.next()).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

#[cfg(not(feature = "acp"))]
async fn nearby<T>(
    _: &AgentUrl,
    _: &AgentPublicKey,
    _: Duration,
    _: impl AsyncFnMut(Unproven) -> Outcome<T>,
) -> Option<Outcome<T>> {
    None
}
