//! Counts frames, and reports cuts, for whoever watches the gate.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use super::{Guard, Live, PermitError};
use crate::agent::denial::Denial;
use crate::agent::stats::{CountedConnection, Counters, FrameCount};
use crate::agent::trace;
use crate::clock::Now;
use crate::id::CredentialId;

/// Counts and reports for the connections of one credential.
pub(crate) struct Watch {
    credential: CredentialId,
    counters: Arc<Counters>,
    /// Whether the cut was reported.
    reported: AtomicBool,
}

impl Watch {
    pub(crate) fn new(credential: CredentialId, counters: Arc<Counters>) -> Self {
        Self { credential, counters, reported: AtomicBool::new(false) }
    }

    pub(super) fn frames(&self) -> FrameCount {
        FrameCount::new(Arc::clone(&self.counters))
    }

    pub(super) fn connection(&self) -> CountedConnection {
        CountedConnection::new(Arc::clone(&self.counters))
    }

    /// Reports a cut once.
    fn cut(&self, why: &Denial) {
        if !self.reported.swap(true, Ordering::Relaxed) {
            trace::cut(&self.credential, why.code());
        }
    }
}

/// Wakes the tasks that wait on these connections, and then reports what was cut. Call it without holding a
/// lock.
pub(crate) fn wake_each(lives: &[Arc<Live>]) {
    lives.iter().for_each(|live| live.wake());
    report_cuts(lives);
}

/// Reports which of these were cut, each once. Call it without holding a lock.
pub(crate) fn report_cuts(lives: &[Arc<Live>]) {
    for live in lives.iter().filter(|live| live.is_cut()) {
        if let Some(why) = live.denial() {
            live.watch.cut(&why);
        }
    }
}

impl Guard {
    /// Counts a frame that was not permitted.
    #[cold]
    pub(super) fn count_refused(&mut self, error: &PermitError) {
        match error {
            PermitError::Stale => self.frames.stale(),
            PermitError::Refused(_) | PermitError::Over(_) => self.frames.refused(),
        }
        self.live.watch.counters.denied(error.denial());
    }

    /// Refuses a frame; if the connection is over, that is the reason.
    pub(super) fn refuse<T>(&mut self, denial: Denial, now: Now) -> Result<T, PermitError> {
        let error = self.check(now).err().unwrap_or(PermitError::Refused(denial));
        self.count_refused(&error);
        Err(error)
    }
}
