//! Follows a ledger that other nodes write: observes their changes, and keeps the lease and the clock within
//! what the store says.

use std::sync::Arc;

use super::lock;
use super::state::{Condition, Core};
use crate::agent::audit::AuditEvent;
use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::guard::{Cut, Live, Terms, check_outside_permit, report_cuts};
use crate::agent::ledger::observed::{Observed, observed};
use crate::agent::ledger::record::{CredentialRecord, CredentialState, Progress};
use crate::agent::ledger::transition::{Closed, Exit, Moment, Step};
use crate::agent::ledger::{Changes, Ledger, store};
use crate::agent::nodes::LogRead;
use crate::clock::{Now, Timestamp};
use crate::id::CredentialId;
use crate::pair::RevocationReason;

impl Core {
    /// Observes what another node has committed: cuts and narrows, and notes what outdates answers of the
    /// context. Runs no transaction, and does not wait for the ledger's lock.
    pub(crate) fn observe(&self, changes: &Changes, now: Now) -> Result<(), Denial> {
        check_outside_permit()?;
        let seen = match observed(changes, self.node) {
            Ok(seen) => seen,
            Err(failure) => {
                // An unreadable record may be a revocation.
                let mut ended = Vec::new();
                self.shut(failure, Cut::LedgerFailed, &mut ended);
                end(&ended);
                return Err(Denial::Ledger(failure));
            }
        };
        let time = self.time(now);
        let mut ended: Vec<Arc<Live>> = Vec::new();
        let mut narrowed: Vec<Arc<Live>> = Vec::new();
        for one in seen {
            match one {
                Observed::Credential(id, record) => {
                    self.observe_credential(id, record.as_deref(), time, now, &mut ended, &mut narrowed);
                }
                Observed::Session(id, over) => {
                    ended.extend(lock(&self.registry).cut_epochs(&id, over));
                }
                Observed::Issuer(issuer, over) => {
                    ended.extend(lock(&self.registry).cut_generations(&issuer, over));
                }
                Observed::Event(
                    AuditEvent::SessionClosed { .. }
                    | AuditEvent::IssuerRevoked { .. }
                    | AuditEvent::ClockReset { .. },
                ) => lock(&self.registry).outdate_context(),
                Observed::Event(_) => {}
                Observed::Progress(progress) => self.observe_progress(progress, now, &mut ended),
            }
        }
        end(&ended);
        narrowed.iter().for_each(|live| live.wait_for_permits());
        Ok(())
    }

    fn observe_credential(
        &self,
        id: CredentialId,
        record: Option<&CredentialRecord>,
        time: Timestamp,
        now: Now,
        ended: &mut Vec<Arc<Live>>,
        narrowed: &mut Vec<Arc<Live>>,
    ) {
        let why = match record.map(|record| record.state) {
            Some(CredentialState::Active | CredentialState::Pending { .. }) => None,
            Some(CredentialState::Expired) => Some(Cut::Expired),
            Some(CredentialState::Revoked(RevocationReason::SessionEnd)) => Some(Cut::SessionGone),
            Some(CredentialState::Revoked(RevocationReason::Contest)) => Some(Cut::Contested),
            // Removed, too many having ended, or at the end of its time on record.
            Some(CredentialState::Revoked(_)) | None => Some(Cut::Revoked),
        };
        if let (None, Some(record)) = (why, record) {
            let latest = record.latest();
            let to = Terms {
                ops: latest.ops,
                expires_at: latest.expires_at,
                ends_at: self.reaches(latest.expires_at, now),
            };
            let mut registry = lock(&self.registry);
            // What was read before joins nothing with the earlier terms. A second safeguard: activations count
            // narrowings.
            registry.change();
            registry.ends_at(&id, record.ends_at());
            let narrows = registry.narrows(&id, to.ops, to.expires_at);
            if let Some(live) = registry.find(&id).filter(|_| narrows) {
                live.narrow(to);
                narrowed.push(live);
            }
            return;
        }
        let mut registry = lock(&self.registry);
        // Its end may have passed before the row was removed.
        let why = match registry.end_of(&id) {
            Some(ends_at) if record.is_none() && ends_at <= time => Cut::Expired,
            _ => why.unwrap_or(Cut::Revoked),
        };
        ended.extend(registry.cut_one(id, why));
    }

    /// Observes that another writer has changed this node's own progress: another opening of the node, or a
    /// reset of the clock.
    fn observe_progress(&self, progress: Progress, now: Now, ended: &mut Vec<Arc<Live>>) {
        let opening = match &*lock(&self.condition) {
            Condition::Usable { opening, .. } => *opening,
            Condition::Broken | Condition::Shut(_) => return,
        };
        if progress.openings > opening {
            self.shut(LedgerFailure::Fenced, Cut::Fenced, ended);
        } else if progress.openings == opening {
            lock(&self.clock).set(progress.mark, now.monotonic);
        }
    }

    /// Continues the lease for a read of the log, all of which was observed, and takes the store's time from
    /// it. Without [`Following`], it changes nothing that a permit depends on.
    pub(crate) fn caught_up(&self, read: LogRead) {
        let Some(following) = &self.following else { return };
        lock(&self.clock).bound(read.store_time, read.began);
        self.lease.caught_up(read.began.saturating_add(following.limit));
        self.lease.wake();
    }

    /// Has admissions read a copy of the ledger first.
    #[must_use]
    pub(crate) fn with_copy(self, copy: Option<Arc<dyn Ledger>>) -> Self {
        Self { copy, ..self }
    }

    /// Reads the copy of the ledger, for what activation confirms. Returns `None` without a copy, if the copy was
    /// not continued within the lease, and for every refusal, which the ledger itself has to decide.
    pub(crate) fn by_copy<T, E: Into<Exit>>(
        &self,
        now: Now,
        mut look: impl FnMut(&Step<'_>) -> Result<T, E>,
    ) -> Option<T> {
        let copy = self.copy.as_ref().filter(|_| !self.lease.is_stale(now.monotonic))?;
        let (_, opening) = self.usable().ok()?;
        let moment =
            Moment { agent: &self.agent, node: self.node, now: self.time(now), closed: Closed::NONE };
        let found = store::read(&**copy, |snapshot| {
            let step = Step::new(snapshot, moment);
            step.check_owner(opening)?;
            Exit::split(look(&step).map_err(Into::into))
        });
        found.ok()?.ok()
    }

    /// Waits until no other node grants a permit under what this node's transactions have ended. Call it
    /// without holding a lock.
    pub(crate) fn wait_for_other_nodes(&self) {
        if let Some(following) = &self.following {
            following.nodes.wait();
        }
    }
}

/// Wakes what was cut, reports it, and waits for its permits.
fn end(ended: &[Arc<Live>]) {
    ended.iter().for_each(|live| live.wake());
    report_cuts(ended);
    ended.iter().for_each(|live| live.wait_for_permits());
}
