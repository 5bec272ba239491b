//! Writes to the ledger: one transition at a time under the ledger's lock, with streams cut before the write.

use std::collections::HashSet;
use std::sync::Arc;

use super::lock;
use super::registry::{Subject, TooMany};
use super::state::{CallStart, Core, LedgerState};
use crate::agent::audit::{AuditEvent, AuditPosition, AuditRecord};
use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::guard::{Cut, Live, check_outside_permit, report_cuts, wake_each};
use crate::agent::ledger::record::CredentialRecord;
use crate::agent::ledger::transition::{Done, Exit, Moment, Names, Revocation, Step, Verdict};
use crate::agent::ledger::{Overlay, Snapshot};
use crate::clock::{Now, Timestamp};
use crate::id::CredentialId;
use crate::limits::SETTLE_FIRST;
use crate::pair::{RevocationReason, Revoked};
use crate::sync::MutexGuard;

impl Core {
    /// Settles what has expired, and lets streams continue from `now`, except those whose session or device
    /// has been unknown to the context for too long.
    pub(crate) fn settle(&self, unknown: &HashSet<Subject>, now: Now) -> Result<(), Denial> {
        self.end_devices(now);
        {
            let mut locked = self.lock_ledger();
            locked.judge(now, |_| Ok(()))?;
            lock(&self.registry).unknown(unknown, now.monotonic);
            self.lease.renew(now.monotonic);
            // The caller tells the sink below, so that a hanging sink delays no stream.
            locked.after.told = false;
        }
        self.lease.wake();
        self.outbox.tell_unless_busy();
        Ok(())
    }

    /// Takes the ledger's lock.
    pub(crate) fn lock_ledger(&self) -> LockedLedger<'_> {
        LockedLedger {
            ledger_state: lock(&self.ledger_state),
            after: After { core: self, cut: Vec::new(), drain: Vec::new(), told: false },
        }
    }

    /// Takes the ledger's lock, unless something was revoked since `begun`: the context's answers may then
    /// predate a session's end, and another session may already have the same id.
    pub(crate) fn lock_ledger_since(&self, begun: &CallStart) -> Result<LockedLedger<'_>, Denial> {
        let locked = self.lock_ledger();
        if lock(&self.registry).revocation_epoch() == begun.revocation_epoch {
            Ok(locked)
        } else {
            Err(Denial::Interrupted)
        }
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
        let mut locked = self.lock_ledger();
        // The transition's outcome, kept also if it is unknown whether it was written.
        let mut found = Revoked::Unknown;
        let outcome = match revocation {
            Revocation::Everything => locked.reset(now),
            _ => locked.judge(now, |step| {
                found = revocation.apply(step)?;
                Ok(found)
            }),
        };
        locked.settle_revocation(number, revocation, outcome.is_ok());
        let found = locked.remember(revocation, found);
        let outcome = outcome.map(|_| found);
        drop(locked);
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
        let mut locked = self.lock_ledger_since(begun)?;
        for revocation in gone {
            let (number, cut) = lock(&self.registry).begin(revocation);
            locked.after.drain.extend(cut);
            let outcome = locked.judge(now, |step| Ok(revocation.apply(step)?));
            locked.settle_revocation(number, revocation, outcome.is_ok());
            let outcome = outcome.map(|revoked| locked.remember(revocation, revoked));
            self.count_revocation(&outcome);
            outcome?;
        }
        Ok(())
    }
}

/// The held lock of the ledger. When it is released, cut streams are woken and the sink gets its records.
pub(crate) struct LockedLedger<'a> {
    // Dropped before `after`.
    ledger_state: MutexGuard<'a, LedgerState>,
    after: After<'a>,
}

struct After<'a> {
    core: &'a Core,
    /// Streams that were cut. They are woken without the lock, because a waker may run foreign code.
    cut: Vec<Arc<Live>>,
    /// Streams that were revoked. They are woken, and their permits waited for, without the lock, because a
    /// permit in use may need it.
    drain: Vec<Arc<Live>>,
    /// Whether there are records for the sink.
    told: bool,
}

impl Drop for After<'_> {
    fn drop(&mut self) {
        let ended: Vec<_> = self.cut.iter().chain(&self.drain).cloned().collect();
        wake_each(&ended);
        if check_outside_permit().is_ok() {
            self.drain.iter().for_each(|live| live.wait_for_permits());
        }
        if self.told {
            self.core.outbox.tell();
        }
    }
}

/// The outcome of a durable transition.
struct Written<T> {
    result: T,
    /// The node's time on record.
    mark: Timestamp,
    /// The revocations, written late, that ended something.
    late: Vec<Revocation>,
    records: Vec<AuditRecord>,
    forgot: bool,
}

impl LockedLedger<'_> {
    /// Runs a transition after settling what has expired. A denial is committed like any other outcome.
    pub(crate) fn judge<T>(
        &mut self,
        now: Now,
        mut judge: impl FnMut(&mut Step<'_>) -> Verdict<T>,
    ) -> Result<T, Denial> {
        self.run(now, false, |step| {
            step.settle()?;
            Exit::split(judge(step))
        })?
    }

    /// Drops every record and sets the agent's time to the wall clock's.
    fn reset(&mut self, now: Now) -> Result<Revoked, Denial> {
        self.run(now, true, |step| Revocation::Everything.apply(step))
    }

    /// Returns the live state of a credential whose record was just found valid. The same lock prevents a
    /// revocation in between.
    pub(crate) fn join(&self, id: &CredentialId, record: &CredentialRecord) -> Result<Arc<Live>, Denial> {
        lock(&self.after.core.registry).join(id, record)
    }

    /// Checks that no revocation in progress or unwritten names this credential. Its streams are already cut,
    /// so a guard would permit nothing, but this returns the reason.
    pub(crate) fn check_open(&self, id: &CredentialId, record: &CredentialRecord) -> Result<(), Denial> {
        let closed = lock(&self.after.core.registry).closed();
        closed.denial(&Names::of_credential(id, record)).map_or(Ok(()), Err)
    }

    /// Remembers what a revocation has ended, so that repeating it is not taken for a typo.
    fn remember(&mut self, revocation: &Revocation, revoked: Revoked) -> Revoked {
        match revoked {
            Revoked::Ended { .. } => self.ledger_state.recent.add(revocation),
            Revoked::Unknown if self.ledger_state.recent.has(revocation) => return Revoked::Already,
            Revoked::Already | Revoked::Unknown => {}
        }
        revoked
    }

    /// Completes a revocation that was written, or was not. Nothing can have joined meanwhile, because the
    /// name was closed; the cut is repeated as a second safeguard, which no test can distinguish.
    fn settle_revocation(&mut self, number: u64, revocation: &Revocation, written: bool) {
        let core = self.after.core;
        let mut registry = lock(&core.registry);
        self.after.drain.extend(registry.cut(revocation));
        let kept = match written {
            true => {
                registry.written(number);
                Ok(())
            }
            false => registry.unwritten(number),
        };
        drop(registry);
        if let Err(TooMany) = kept {
            core.shut(LedgerFailure::Unwritten, Cut::LedgerFailed, &mut self.after.cut);
        }
    }

    /// Runs a transition, after writing what could not be written earlier; once it is durable, queues its
    /// records for the sink.
    fn run<T>(
        &mut self,
        now: Now,
        reset: bool,
        mut transition: impl FnMut(&mut Step<'_>) -> Result<T, LedgerFailure>,
    ) -> Result<T, Denial> {
        let core = self.after.core;
        let (ledger, opening) = core.usable().map_err(|failure| {
            // The time for reopening the ledger has passed.
            if core.lease.is_over(now.monotonic) {
                self.after.cut.extend(lock(&core.registry).cut_all(Cut::LedgerFailed));
            }
            Denial::Ledger(failure)
        })?;
        let time = lock(&core.clock).advance(now);
        let (expired, closed) = {
            let mut registry = lock(&core.registry);
            let (expired, cut) = registry.cut_expired(time);
            self.after.cut.extend(cut);
            (expired, registry.closed())
        };
        let first_to_end = expired.get(..SETTLE_FIRST).unwrap_or(&expired);
        let to_write: Vec<_> = closed.to_write().collect();
        let reset_late = to_write.iter().any(|(_, revocation)| **revocation == Revocation::Everything);
        let wall = lock(&core.clock).wall(now);
        let at = if reset || reset_late { wall } else { time };
        let (known, mut set_back) = (self.ledger_state.mark, None);
        let moment = Moment { agent: &core.agent, node: core.node, now: at, closed: &closed };
        let (first, taken) = (self.ledger_state.next, core.outbox.taken());
        // Revocations that the transition itself decides, and that cut before it is written.
        let mut contests: Vec<(u64, Revocation)> = Vec::new();

        let outcome = core.transact(&*ledger, |snapshot| {
            let mut member = |below: &dyn Snapshot, first: AuditPosition| {
                let progress = Step::new(below, moment).check_owner(opening)?;
                // Another node has reset the clock, and removed every record, after this node's time.
                set_back = (progress.mark < known && !reset).then(|| progress.mark.max(wall));
                let at = set_back.unwrap_or(at);
                let mut step = Step::new(below, Moment { now: at, ..moment });
                step.settle_first(first_to_end)?;
                let result = transition(&mut step)?;
                self.after.cut_by(step.events(), &mut contests);
                let progress = match reset {
                    true => step.reset_time(progress, time, at)?,
                    false => step.keep_time(progress),
                };
                Ok((step.finish(first, &taken)?, (result, progress.mark)))
            };
            let (records, changes, (result, mark), forgot, late) = match to_write.is_empty() {
                true => {
                    let (done, result) = member(snapshot, first)?;
                    (done.records, done.changes, result, done.forgot, Vec::new())
                }
                // Each with an overlay of its own.
                false => {
                    let mut batch = Overlay::new(snapshot);
                    let (late, ended) =
                        write_late(&batch, moment, opening, first, &to_write, reset_late.then_some(time))?;
                    batch.absorb(late.changes);
                    let next = after_all(first, &late.records);
                    let (done, result) = member(&batch, next)?;
                    batch.absorb(done.changes);
                    let mut records = late.records;
                    records.extend(done.records);
                    (records, batch.into_changes()?, result, done.forgot, ended)
                }
            };
            Ok((changes, Written { result, mark, late, records, forgot }))
        });

        let written = match outcome {
            Ok(written) => written,
            Err(error) => {
                let failure = core.failed(&error, now, &mut self.after.cut);
                self.settle_contests(contests, false);
                return Err(Denial::Ledger(failure));
            }
        };
        self.ledger_state.mark = written.mark;
        if let Some(at) = set_back.or((reset || reset_late).then_some(at)) {
            lock(&core.clock).set(at, now.monotonic);
        }
        if !to_write.is_empty() {
            let mut registry = lock(&core.registry);
            to_write.iter().for_each(|(number, _)| registry.written(*number));
        }
        if written.forgot {
            core.outbox.forget(&taken);
        }
        self.after.told |= !written.records.is_empty();
        core.told(&mut self.ledger_state, written.records);
        contests.iter().for_each(|_| core.counters.contests.add_one());
        self.settle_contests(contests, true);
        written.late.iter().for_each(|revocation| self.ledger_state.recent.add(revocation));
        Ok(written.result)
    }

    fn settle_contests(&mut self, contests: Vec<(u64, Revocation)>, written: bool) {
        for (number, revocation) in contests {
            self.settle_revocation(number, &revocation, written);
        }
    }
}

impl After<'_> {
    /// Cuts what a transition has ended, before it is written. If the transition runs again, the cuts remain.
    fn cut_by(&mut self, events: &[AuditEvent], contests: &mut Vec<(u64, Revocation)>) {
        for event in events {
            match event {
                AuditEvent::CredentialExpired { credential, .. } => {
                    let cut = lock(&self.core.registry).cut_one(*credential, Cut::Expired);
                    self.cut.extend(cut);
                }
                // The ticket's code has leaked.
                AuditEvent::CredentialRevoked { credential, why: RevocationReason::Contest, .. } => {
                    let revocation = Revocation::Contest(*credential);
                    if !contests.iter().any(|(_, begun)| *begun == revocation) {
                        let (number, cut) = lock(&self.core.registry).begin(&revocation);
                        self.drain.extend(cut);
                        contests.push((number, revocation));
                    }
                }
                _ => {}
            }
        }
    }
}

/// Writes revocations that could not be written earlier, and returns those that ended something.
fn write_late(
    below: &dyn Snapshot,
    moment: Moment<'_>,
    opening: u64,
    first: AuditPosition,
    to_write: &[(u64, &Revocation)],
    reset_from: Option<Timestamp>,
) -> Result<(Done, Vec<Revocation>), LedgerFailure> {
    let mut step = Step::new(below, moment);
    let progress = step.check_owner(opening)?;
    let ended = Revocation::apply_each(to_write.iter().map(|(_, revocation)| *revocation), &mut step)?;
    if let Some(from) = reset_from {
        step.reset_time(progress, from, moment.now)?;
    }
    Ok((step.finish(first, &[])?, ended))
}

/// Returns the position after these records.
fn after_all(first: AuditPosition, records: &[AuditRecord]) -> AuditPosition {
    let last = records.last().map(|record| record.sequence.saturating_add(1));
    AuditPosition { sequence: last.unwrap_or(first.sequence), ..first }
}
