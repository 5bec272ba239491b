//! Opens and empties a ledger.

use super::{Moment, Step};
use crate::agent::audit::AuditEvent;
use crate::agent::denial::LedgerFailure;
use crate::agent::ledger::record::{FORMAT, Header, Progress};
use crate::clock::Timestamp;
use crate::limits::CLOCK_MARK_RESOLUTION;

impl Step<'_> {
    /// Makes the ledger this agent's, and this opening the only one of its node. If it has another agent's
    /// key, that agent's records are removed, because its sessions no longer exist.
    pub(crate) fn open(&mut self) -> Result<Progress, LedgerFailure> {
        let Moment { agent, node, .. } = self.moment;
        // With another format, nothing else is read.
        let header = match self.records.header()? {
            Some(Header { format, .. }) if format != FORMAT => {
                return Err(LedgerFailure::UnknownFormat { version: format });
            }
            header => header,
        };
        if header.is_none() && !self.records.is_empty()? {
            // Rows of another program, or remains of ours.
            return Err(LedgerFailure::Corrupt);
        }
        let mut progress = self.records.progress(node)?;
        match header {
            Some(header) if header.agent == *agent => {
                // Whatever any node has ended must stay ended.
                progress.mark = self.records.latest_mark()?;
                self.events.push(AuditEvent::GateOpened { discarded: false });
            }
            found => {
                self.records.clear()?;
                self.records.put_header(&Header { format: FORMAT, agent: *agent });
                // Times of another agent's records are meaningless here.
                self.records.set_marks(Timestamp::EPOCH)?;
                progress.mark = Timestamp::EPOCH;
                self.events.push(AuditEvent::GateOpened { discarded: found.is_some() });
            }
        }
        progress.openings = progress.openings.checked_add(1).ok_or(LedgerFailure::Corrupt)?;
        progress.mark = progress.mark.max(self.now);
        self.now = progress.mark;
        self.records.put_progress(node, &progress);
        Ok(progress)
    }

    /// Checks that this opening still owns its node.
    pub(crate) fn check_owner(&self, opening: u64) -> Result<Progress, LedgerFailure> {
        let progress = self.records.progress(self.moment.node)?;
        if progress.openings == opening { Ok(progress) } else { Err(LedgerFailure::Fenced) }
    }

    /// Stores the agent's time with other writes; alone, at most once a minute.
    pub(crate) fn keep_time(&mut self, stored: Progress) -> Progress {
        let progress = Progress { mark: stored.mark.max(self.now), ..stored };
        let due = self.records.wrote() || progress.mark.since(stored.mark) >= CLOCK_MARK_RESOLUTION;
        if !due || progress == stored {
            return stored;
        }
        self.records.put_progress(self.moment.node, &progress);
        progress
    }

    /// Drops every record.
    pub(super) fn clear(&mut self) -> Result<(), LedgerFailure> {
        self.records.clear()
    }

    /// Sets another time, which may be earlier, after every record was dropped.
    pub(crate) fn reset_time(
        &mut self,
        stored: Progress,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Progress, LedgerFailure> {
        self.now = to;
        self.records.set_marks(to)?;
        self.events.push(AuditEvent::ClockReset { from });
        Ok(Progress { mark: to, ..stored })
    }
}
