//! Where the agent is: at its address, or wherever the local network says that the agent with its key is.

use sessioncap::{AgentPublicKey, AgentUrl};

#[cfg(feature = "acp")]
use crate::discovery::{Browse, Found, Interfaces, KeyHash, PATIENCE, try_each};
use crate::problem::Outcome;
use crate::transport::{self, Unproven};

/// Connects and has `attempt` prove the agent: first at its address, and if that leads to nobody or to somebody else,
/// and it is to be searched for, where the local network's records with the hash of its key point. Where it was found grants nothing.
pub(super) async fn agent<T>(
    url: &AgentUrl,
    key: &AgentPublicKey,
    search: bool,
    mut attempt: impl AsyncFnMut(Unproven) -> Outcome<T>,
) -> Outcome<T> {
    let tried = match transport::connect(url).await {
        Ok(socket) => attempt(socket).await,
        Err(problem) => Err(problem),
    };
    match tried {
        Err(problem) if search && problem.is_passing() => {
            nearby(url, key, attempt).await.unwrap_or(Err(problem))
        }
        tried => tried,
    }
}

/// `None` if no agent with this key is found.
#[cfg(feature = "acp")]
async fn nearby<T>(
    url: &AgentUrl,
    key: &AgentPublicKey,
    mut attempt: impl AsyncFnMut(Unproven) -> Outcome<T>,
) -> Option<Outcome<T>> {
    let found = browse(KeyHash::of(key)).await;
    let proven = try_each(&found, async |_, address| {
        match attempt(transport::connect_at(url, address).await?).await {
            // A peer that is not the agent decides nothing.
            Err(problem) if problem.is_passing() => Err(problem),
            decided => Ok(decided),
        }
    });
    proven.await.ok()
}

/// The records with this hash that are there within a moment.
#[cfg(feature = "acp")]
async fn browse(key: KeyHash) -> Vec<Found> {
    // Without multicast there is nobody to find.
    let Ok(mut browse) = Browse::start(None, Interfaces::default()) else { return Vec::new() };
    let mut until = tokio::time::Instant::now() + PATIENCE;
    while let Ok(Ok(_)) = tokio::time::timeout_at(until, browse.next()).await {
        if !browse.candidates(key).is_empty() {
            // Others with the same hash may follow, and only one of them is the agent.
            until = until.min(tokio::time::Instant::now() + PATIENCE / 6);
        }
    }
    browse.candidates(key)
}

#[cfg(not(feature = "acp"))]
async fn nearby<T>(
    _: &AgentUrl,
    _: &AgentPublicKey,
    _: impl AsyncFnMut(Unproven) -> Outcome<T>,
) -> Option<Outcome<T>> {
    None
}
