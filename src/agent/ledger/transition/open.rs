//! Opening a ledger, and emptying it.

use super::Step;
use crate::agent::audit::AuditEvent;
use crate::agent::denial::LedgerFailure;
use crate::agent::ledger::record::{FORMAT, Header, Progress};
use crate::clock::Timestamp;
use crate::key::AgentPublicKey;
use crate::limits::CLOCK_MARK_RESOLUTION;

impl Step<'_> {
    /// Makes the ledger this agent's. Another agent key means that its sessions are gone, so their
    /// records go too.
    pub(crate) fn open(&mut self, agent: &AgentPublicKey) -> Result<Progress, LedgerFailure> {
        // Nothing else is read of another format.
        let header = match self.records.header()? {
            Some(Header { format, .. }) if format != FORMAT => {
                return Err(LedgerFailure::UnknownFormat { version: format });
            }
            header => header,
        };
        if header.is_none() && !self.records.is_empty()? {
            // Somebody else's rows, or what is left of ours.
            return Err(LedgerFailure::Corrupt);
        }
        let mut progress = self.records.progress()?;
        match header {
            Some(header) if header.agent == *agent => {
                self.events.push(AuditEvent::GateOpened { discarded: false })
            }
            found => {
                self.records.clear()?;
                self.records.put_header(&Header { format: FORMAT, agent: *agent })?;
                // Times of another agent's records say nothing about this one's.
                progress.mark = Timestamp::EPOCH;
                self.events.push(AuditEvent::GateOpened { discarded: found.is_some() });
            }
        }
        progress.openings = progress.openings.checked_add(1).ok_or(LedgerFailure::Corrupt)?;
        progress.mark = progress.mark.max(self.now);
        self.now = progress.mark;
        self.records.put_progress(&progress)?;
        Ok(progress)
    }

    /// Stores the agent's time with whatever else is written; alone, no oftener than once a minute.
    pub(crate) fn keep_time(&mut self, stored: Progress) -> Result<Progress, LedgerFailure> {
        let progress = Progress { mark: stored.mark.max(self.now), ..stored };
        let due = self.records.wrote() || progress.mark.since(stored.mark) >= CLOCK_MARK_RESOLUTION;
        if !due || progress == stored {
            return Ok(stored);
        }
        self.records.put_progress(&progress)?;
        Ok(progress)
    }

    /// Drops every record and begins anew at another time, which may be earlier.
    pub(crate) fn reset_clock(
        &mut self,
        stored: Progress,
        from: Timestamp,
    ) -> Result<Progress, LedgerFailure> {
        self.records.clear()?;
        let progress = Progress { mark: self.now, ..stored };
        self.records.put_progress(&progress)?;
        self.events.push(AuditEvent::ClockReset { from });
        Ok(progress)
    }
}
