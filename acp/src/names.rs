//! The ids of sessions: a credential names one of ours, the agent names them as it likes.

use std::collections::{HashMap, HashSet};

use rand::RngCore;
use rand::rngs::OsRng;
use sessioncap::SessionId;
use sessioncap::acp::AcpSessionId;

/// Both ids of every session.
#[derive(Debug, Default)]
pub struct Names {
    ours: HashMap<AcpSessionId, SessionId>,
    theirs: HashMap<SessionId, AcpSessionId>,
}

/// The difference that an update makes.
#[derive(Debug, Default)]
pub struct Changes {
    /// The sessions that have an id since.
    pub began: Vec<SessionId>,
    /// The sessions that have ended.
    pub ended: Vec<SessionId>,
}

impl Names {
    /// Our id of a session.
    #[must_use]
    pub fn session(&self, upstream: &AcpSessionId) -> Option<&SessionId> {
        self.ours.get(upstream)
    }

    /// Gives each of these sessions an id, if it has none, and forgets the others.
    pub fn update<'a>(&mut self, present: impl Iterator<Item = &'a AcpSessionId> + Clone) -> Changes {
        let mut changes = Changes::default();
        let mut count = 0;
        for upstream in present.clone() {
            count += 1_usize;
            if !self.ours.contains_key(upstream) {
                changes.began.extend(self.add(upstream));
            }
        }
        // All that are present have an id now, so there are others only if there are more ids.
        if self.ours.len() > count {
            let present: HashSet<&AcpSessionId> = present.collect();
            self.theirs.retain(|ours, upstream| {
                let stays = present.contains(upstream);
                if !stays {
                    changes.ended.push(ours.clone());
                }
                stays
            });
            self.ours.retain(|upstream, _| present.contains(upstream));
        }
        changes
    }

    fn add(&mut self, upstream: &AcpSessionId) -> Option<SessionId> {
        let id = SessionId::new(format!("acp-{:016x}", OsRng.next_u64())).ok()?;
        self.ours.insert(upstream.clone(), id.clone());
        self.theirs.insert(id.clone(), upstream.clone());
        Some(id)
    }

    /// The agent's id of a session of ours.
    #[must_use]
    pub fn upstream(&self, session: &SessionId) -> Option<AcpSessionId> {
        self.theirs.get(session).cloned()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.theirs.len()
    }
}
