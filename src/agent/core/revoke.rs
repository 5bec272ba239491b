//! Revocations, from the cut to the record, and the settling.

use std::collections::HashSet;
use std::sync::Arc;

use super::lock;
use super::registry::Subject;
use super::state::{CallStart, Core, Kind};
use crate::agent::denial::Denial;
use crate::agent::denial::LedgerFailure;
use crate::agent::guard::{Cut, Live, check_outside_permit, report_cuts, wake_each};
use crate::agent::ledger::transition::Revocation;
use crate::clock::Now;
use crate::pair::Revoked;
use crate::sync::Mutex;

impl Core {
    /// Settles what has expired, and lets streams continue from `now`, except those whose session or device
    /// has been unknown to the context for too long.
    pub(crate) fn settle(&self, unknown: HashSet<Subject>, now: Now) -> Result<(), Denial> {
        self.end_devices(now);
        let (settled, after) = self.write(
            (now, Kind::Usual, None),
            |_| Ok(()),
            move |published, outcome| {
                outcome?;
                let core = published.core();
                lock(&core.registry).unknown(&unknown, now.monotonic);
                core.lease.renew(now.monotonic);
                Ok(())
            },
        );
        // The sink is told below, so that one that hangs delays no stream.
        match settled {
            Ok(()) => after.without_the_sink(),
            Err(denial) => return Err(denial),
        }
        self.lease.wake();
        self.outbox.tell_unless_busy();
        Ok(())
    }

    /// Begins a revocation: closes the name and cuts, before anything is reported or waited for.
    pub(super) fn cut_first(&self, revocation: &Revocation) -> Result<(u64, Vec<Arc<Live>>), Denial> {
        check_outside_permit()?;
        let (number, cut) = lock(&self.registry).begin(revocation);
        cut.iter().for_each(|live| live.wake());
        Ok((number, cut))
    }

    /// Writes a revocation that has begun, then cuts again. A revocation that could not be written stays cut and
    /// closed, and a later transaction writes it.
    pub(super) fn write_revocation(
        &self,
        revocation: &Revocation,
        (number, cut): (u64, Vec<Arc<Live>>),
        now: Now,
    ) -> Result<Revoked, Denial> {
        report_cuts(&cut);
        let kind = match revocation {
            Revocation::Everything => Kind::Reset,
            _ => Kind::Revocation,
        };
        let (applied, cut_again) = (revocation.clone(), revocation.clone());
        // What the transition has found, kept also if it is unknown whether it was written.
        let found = Arc::new(Mutex::new(Revoked::Unknown));
        let keeps = Arc::clone(&found);
        let (outcome, after) = self.write(
            (now, kind, None),
            move |step| {
                let revoked = applied.apply(step)?;
                if kind == Kind::Revocation {
                    *lock(&keeps) = revoked;
                }
                Ok(())
            },
            move |published, outcome| {
                published.settle_revocation(number, &cut_again, outcome.is_ok());
                let revoked = *lock(&found);
                let revoked = published.remember(&cut_again, revoked);
                outcome.map(|_| revoked)
            },
        );
        // Nobody knows what became of a revocation whose commit has panicked.
        if outcome == Err(Denial::Internal) && lock(&self.registry).unwritten(number).is_err() {
            let mut ended = Vec::new();
            self.shut(LedgerFailure::Unwritten, Cut::LedgerFailed, &mut ended);
            wake_each(&ended);
        }
        drop(after);
        cut.iter().for_each(|live| live.wait_for_permits());
        if outcome.is_ok() {
            self.wait_for_other_nodes();
        }
        outcome
    }

    /// Revokes what the context reported as gone, of the epochs and generations that it was asked about, and
    /// only if nothing was revoked since.
    pub(crate) fn revoke_gone(&self, gone: &[Revocation], begun: &CallStart, now: Now) -> Result<(), Denial> {
        if gone.is_empty() {
            return Ok(());
        }
        let begun: Vec<_> = {
            let mut registry = lock(&self.registry);
            if registry.revocation_epoch() != begun.revocation_epoch {
                return Err(Denial::Interrupted);
            }
            gone.iter().map(|revocation| (revocation, registry.begin(revocation))).collect()
        };
        begun.iter().flat_map(|(_, (_, cut))| cut).for_each(|live| live.wake());
        let mut first = Ok(());
        // Each is written, also if another one is not, because its name is closed by now.
        for (revocation, begun) in begun {
            let outcome = self.write_revocation(revocation, begun, now);
            self.count_revocation(&outcome);
            first = first.and(outcome.map(drop));
        }
        first
    }
}
