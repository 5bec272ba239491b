//! The ids of sessions: a credential names one of ours, the agent names them as it likes.

use std::collections::HashMap;

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

impl Names {
    /// Our id of a session, a new one if it has none.
    pub fn name(&mut self, upstream: &AcpSessionId) -> Option<SessionId> {
        if let Some(known) = self.ours.get(upstream) {
            return Some(known.clone());
        }
        let mut random = [0; 8];
        OsRng.fill_bytes(&mut random);
        let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let id = SessionId::new(format!("acp-{id}")).ok()?;
        self.ours.insert(upstream.clone(), id.clone());
        self.theirs.insert(id.clone(), upstream.clone());
        Some(id)
    }

    /// Whether a session has no id of ours yet.
    #[must_use]
    pub fn upstream_is_new(&self, upstream: &AcpSessionId) -> bool {
        !self.ours.contains_key(upstream)
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

    /// Keeps only these, and returns the others.
    pub fn retain(&mut self, present: &[AcpSessionId]) -> Vec<SessionId> {
        let gone: Vec<_> = self.ours.keys().filter(|id| !present.contains(id)).cloned().collect();
        let ours: Vec<_> = gone.iter().filter_map(|id| self.ours.remove(id)).collect();
        for id in &ours {
            self.theirs.remove(id);
        }
        ours
    }
}
