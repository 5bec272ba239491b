//! Admissions that wait for their first frame, bounded: message 1 can be replayed by anyone who saw it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use time::Duration;

use crate::agent::denial::Denial;
use crate::id::CredentialId;
use crate::limits::MAX_PENDING;
use crate::sync::{AtomicBool, Ordering};

/// Held by an admission while it waits.
pub(crate) struct PendingMark {
    /// Whether newer ones have taken its place.
    displaced: AtomicBool,
    until: Duration,
}

impl PendingMark {
    pub(crate) fn is_displaced(&self) -> bool {
        self.displaced.load(Ordering::Acquire)
    }
}

/// The admissions that wait, by first message and by credential.
#[derive(Default)]
pub(crate) struct Waiting {
    messages: HashMap<[u8; 32], Weak<PendingMark>>,
    credentials: HashMap<CredentialId, VecDeque<Weak<PendingMark>>>,
    prune_at: usize,
}

fn waits(mark: &Weak<PendingMark>, now: Duration) -> bool {
    mark.upgrade().is_some_and(|mark| now < mark.until && !mark.is_displaced())
}

impl Waiting {
    /// Refuses a first message by which an admission waits already.
    pub(crate) fn check(&self, message: &[u8; 32], now: Duration) -> Result<(), Denial> {
        match self.messages.get(message) {
            Some(mark) if waits(mark, now) => Err(Denial::Repeated),
            _ => Ok(()),
        }
    }

    /// One more waits. If its credential has too many, the oldest goes.
    pub(crate) fn add(
        &mut self,
        credential: CredentialId,
        message: [u8; 32],
        until: Duration,
        now: Duration,
    ) -> Result<Arc<PendingMark>, Denial> {
        self.check(&message, now)?;
        if self.messages.len() >= self.prune_at {
            self.messages.retain(|_, mark| waits(mark, now));
            self.credentials.retain(|_, marks| marks.iter().any(|mark| waits(mark, now)));
            self.prune_at = self.messages.len().saturating_mul(2).max(64);
        }
        let mark = Arc::new(PendingMark { displaced: AtomicBool::new(false), until });
        self.messages.insert(message, Arc::downgrade(&mark));
        let marks = self.credentials.entry(credential).or_default();
        marks.retain(|mark| waits(mark, now));
        if marks.len() >= MAX_PENDING
            && let Some(oldest) = marks.pop_front().and_then(|oldest| oldest.upgrade())
        {
            oldest.displaced.store(true, Ordering::Release);
        }
        marks.push_back(Arc::downgrade(&mark));
        Ok(mark)
    }
}
