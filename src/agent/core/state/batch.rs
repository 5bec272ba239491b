//! One commit: the members' transitions, one after the other in one transaction, and what follows once it is
//! durable.

use core::mem::take;
use std::sync::Arc;

use super::{CallStart, Core, LedgerState};
use crate::agent::audit::{AuditEvent, AuditPosition, AuditRecord};
use crate::agent::core::commit::{Member, Seat};
use crate::agent::core::lock;
use crate::agent::core::registry::TooMany;
use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::guard::{Cut, Live, check_outside_permit, wake_each};
use crate::agent::ledger::record::CredentialRecord;
use crate::agent::ledger::transition::{Exit, Moment, Revocation, Seen, Step, Verdict};
use crate::agent::ledger::{Changes, Ledger, Overlay, Snapshot};
use crate::clock::{Now, Timestamp};
use crate::id::CredentialId;
use crate::limits::SETTLE_FIRST;
use crate::pair::{RevocationReason, Revoked};

/// The kind of a transition.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Usual,
    Revocation,
    /// Drops every record and sets the agent's time to the wall clock's.
    Reset,
}

/// A transition that waits for its commit, or is in it.
pub(crate) struct Write {
    now: Now,
    kind: Kind,
    /// It is refused if something was revoked since: the context's answers may then predate a session's end, and
    /// another session may already have the same id.
    since: Option<CallStart>,
    interrupted: bool,
    ended: Ended,
    /// Revocations that it has decided itself, and that cut before it is written.
    contests: Vec<(u64, Revocation)>,
    job: Box<dyn Job>,
}

impl Member for Write {
    fn goes_first(&self) -> bool {
        self.kind != Kind::Usual
    }

    fn is_alone(&self) -> bool {
        self.kind == Kind::Reset
    }

    fn lead(&self) {
        self.job.lead();
    }
}

/// The streams that a transition has ended. They are woken without a lock, because a waker may run foreign code.
#[derive(Default)]
pub(crate) struct Ended {
    pub(crate) cut: Vec<Arc<Live>>,
    /// Those that were revoked: their permits are waited for, without a lock, because a permit in use may need it.
    pub(crate) drain: Vec<Arc<Live>>,
    /// Whether there are records for the sink.
    told: bool,
}

/// What is done after a commit, by the caller itself: wakes cut streams and passes records to the sink.
pub(crate) struct After<'a> {
    pub(crate) core: &'a Core,
    pub(crate) ended: Ended,
}

impl After<'_> {
    /// Leaves the sink to the caller.
    pub(crate) fn without_the_sink(mut self) {
        self.ended.told = false;
    }
}

impl Drop for After<'_> {
    fn drop(&mut self) {
        let Ended { cut, drain, told } = &self.ended;
        let ended: Vec<_> = cut.iter().chain(drain).cloned().collect();
        wake_each(&ended);
        if check_outside_permit().is_ok() {
            drain.iter().for_each(|live| live.wait_for_permits());
        }
        if *told {
            self.core.outbox.tell();
        }
    }
}

/// The two functions of a transition, whatever their types.
trait Job: Send {
    /// Runs it. It may run again if the backend has to repeat the transaction.
    fn run(&mut self, step: &mut Step<'_>) -> Result<(), LedgerFailure>;

    /// Publishes it, and gives its caller the outcome.
    fn finish(&mut self, published: Published<'_>, outcome: Result<(), Denial>);

    fn lead(&self);
}

struct Judged<V, T, J, P> {
    seat: Arc<Seat<(Result<T, Denial>, Ended)>>,
    judge: J,
    /// Of the last run.
    verdict: Option<Result<V, Denial>>,
    publish: Option<P>,
}

impl<V, T, J, P> Job for Judged<V, T, J, P>
where
    V: Send,
    T: Send,
    J: FnMut(&mut Step<'_>) -> Verdict<V> + Send,
    P: FnOnce(&mut Published<'_>, Result<V, Denial>) -> Result<T, Denial> + Send,
{
    fn run(&mut self, step: &mut Step<'_>) -> Result<(), LedgerFailure> {
        self.verdict = None;
        self.verdict = Some(Exit::split((self.judge)(step))?);
        Ok(())
    }

    fn finish(&mut self, mut published: Published<'_>, outcome: Result<(), Denial>) {
        let verdict = self.verdict.take().unwrap_or(Err(Denial::Internal));
        if let Some(publish) = self.publish.take() {
            let result = publish(&mut published, outcome.and(verdict));
            self.seat.complete(Some((result, take(published.ended))));
        }
    }

    fn lead(&self) {
        self.seat.lead();
    }
}

impl<V, T, J, P> Drop for Judged<V, T, J, P> {
    fn drop(&mut self) {
        self.seat.complete(None);
    }
}

/// What a durable transition may do before any other transition runs: publish what it has written.
pub(crate) struct Published<'a> {
    core: &'a Core,
    state: &'a mut LedgerState,
    ended: &'a mut Ended,
}

impl Published<'_> {
    pub(crate) fn core(&self) -> &Core {
        self.core
    }

    /// Returns the live state of a credential whose record was just found valid. No other transition has run
    /// since, so no revocation was written in between.
    pub(crate) fn join(&self, id: &CredentialId, record: &CredentialRecord) -> Result<Arc<Live>, Denial> {
        lock(&self.core.registry).join(id, record)
    }

    /// Has the caller wait until no permit of these streams is in use.
    pub(crate) fn drain(&mut self, live: Option<Arc<Live>>) {
        self.ended.drain.extend(live);
    }

    /// Remembers what a revocation has ended, so that repeating it is not taken for a typo.
    pub(crate) fn remember(&mut self, revocation: &Revocation, revoked: Revoked) -> Revoked {
        match revoked {
            Revoked::Ended { .. } => self.state.recent.add(revocation),
            Revoked::Unknown if self.state.recent.has(revocation) => return Revoked::Already,
            Revoked::Already | Revoked::Unknown => {}
        }
        revoked
    }

    /// Completes a revocation that was written, or was not. Nothing can have joined meanwhile, because the
    /// name was closed; the cut is repeated as a second safeguard, which no test can distinguish.
    pub(crate) fn settle_revocation(&mut self, number: u64, revocation: &Revocation, written: bool) {
        let mut registry = lock(&self.core.registry);
        self.ended.drain.extend(registry.cut(revocation));
        let kept = match written {
            true => {
                registry.written(number);
                Ok(())
            }
            false => registry.unwritten(number),
        };
        drop(registry);
        if let Err(TooMany) = kept {
            self.core.shut(LedgerFailure::Unwritten, Cut::LedgerFailed, &mut self.ended.cut);
        }
    }
}

/// What a commit has written.
struct Written {
    /// The node's time on record.
    mark: Timestamp,
    /// The agent's time, if another node has set the clock back.
    set_back: Option<Timestamp>,
    /// The revocations, written late, that ended something.
    late: Vec<Revocation>,
    records: Vec<AuditRecord>,
    forgot: bool,
}

impl Written {
    /// Adds a member's records, and returns the position of the next.
    fn add(&mut self, first: AuditPosition, records: Vec<AuditRecord>, forgot: bool) -> AuditPosition {
        let last = records.last().map(|record| record.sequence.saturating_add(1));
        self.records.extend(records);
        self.forgot |= forgot;
        AuditPosition { sequence: last.unwrap_or(first.sequence), ..first }
    }
}

/// What a commit writes beside its members.
struct Owed<'a> {
    opening: u64,
    first: AuditPosition,
    /// Audit records that the sink has.
    taken: &'a [AuditPosition],
    visits: &'a [Seen],
    to_write: &'a [(u64, &'a Revocation)],
    /// Whether a reset of the clock is one of them.
    reset_late: bool,
    /// The agent's time, also if it is reset.
    time: Timestamp,
    /// The wall clock's time, as far as it counts.
    wall: Timestamp,
    /// The node's time on record, as far as this gate knows; none if this commit resets the clock.
    known: Option<Timestamp>,
    /// Connected credentials that are known to have expired.
    first_to_end: &'a [CredentialId],
}

impl Core {
    /// Runs a transition after settling what has expired, and returns once its commit is durable, and it was
    /// published. A denial is committed like any other outcome.
    ///
    /// `publish` runs before the next transition, with the outcome. It must not block.
    pub(crate) fn write<V: Send + 'static, T: Send + 'static>(
        &self,
        (now, kind, since): (Now, Kind, Option<CallStart>),
        mut judge: impl FnMut(&mut Step<'_>) -> Verdict<V> + Send + 'static,
        publish: impl FnOnce(&mut Published<'_>, Result<V, Denial>) -> Result<T, Denial> + Send + 'static,
    ) -> (Result<T, Denial>, After<'_>) {
        let seat = Seat::new();
        let judge = move |step: &mut Step<'_>| {
            if kind != Kind::Reset {
                step.settle()?;
            }
            judge(step)
        };
        let job = Box::new(Judged { seat: Arc::clone(&seat), judge, verdict: None, publish: Some(publish) });
        let (ended, contests) = (Ended::default(), Vec::new());
        let write = Write { now, kind, since, interrupted: false, ended, contests, job };
        // A member without an outcome was dropped by a panic.
        let (result, ended) = self
            .queue
            .wait(write, &seat, |writes| self.commit(writes))
            .unwrap_or((Err(Denial::Internal), Ended::default()));
        (result, After { core: self, ended })
    }

    /// Does the same for a transition with nothing to publish.
    pub(crate) fn judge<T: Send + 'static>(
        &self,
        now: Now,
        judge: impl FnMut(&mut Step<'_>) -> Verdict<T> + Send + 'static,
    ) -> Result<T, Denial> {
        self.write((now, Kind::Usual, None), judge, |_, outcome| outcome).0
    }

    /// Does the same, unless something was revoked since `begun`.
    pub(crate) fn judge_since<T: Send + 'static>(
        &self,
        begun: &CallStart,
        now: Now,
        judge: impl FnMut(&mut Step<'_>) -> Verdict<T> + Send + 'static,
    ) -> Result<T, Denial> {
        self.write((now, Kind::Usual, Some(*begun)), judge, |_, outcome| outcome).0
    }

    /// Runs one commit and publishes it.
    fn commit(&self, mut writes: Vec<Write>) {
        let mut state = lock(&self.ledger_state);
        let outcome = self.commit_in(&mut state, &mut writes);
        for write in &mut writes {
            let outcome = match write.interrupted {
                true => Err(Denial::Interrupted),
                false => outcome.map_err(Denial::Ledger),
            };
            let mut published = Published { core: self, state: &mut state, ended: &mut write.ended };
            for (number, revocation) in take(&mut write.contests) {
                published.settle_revocation(number, &revocation, outcome.is_ok());
            }
            write.job.finish(published, outcome);
        }
    }

    fn commit_in(&self, state: &mut LedgerState, writes: &mut [Write]) -> Result<(), LedgerFailure> {
        let Some(leader) = writes.first().map(|write| write.now) else { return Ok(()) };
        let mut ended = Ended::default();
        let outcome = self
            .usable()
            .and_then(|(ledger, opening)| self.transact_each(&*ledger, opening, state, writes, &mut ended));
        if outcome.is_err() && self.failure().is_some() && self.lease.is_over(leader.monotonic) {
            // The time for reopening the ledger has passed.
            ended.cut.extend(lock(&self.registry).cut_all(Cut::LedgerFailed));
        }
        if let Some(write) = writes.first_mut() {
            write.ended.cut.append(&mut ended.cut);
            write.ended.told |= ended.told;
        }
        outcome
    }

    fn transact_each(
        &self,
        ledger: &dyn Ledger,
        opening: u64,
        state: &mut LedgerState,
        writes: &mut [Write],
        ended: &mut Ended,
    ) -> Result<(), LedgerFailure> {
        let Some(now) = writes.first().map(|write| write.now) else { return Ok(()) };
        let mut time = Timestamp::EPOCH;
        for write in writes.iter() {
            time = lock(&self.clock).advance(write.now);
        }
        let (expired, closed, visits) = {
            let mut registry = lock(&self.registry);
            for write in writes.iter_mut() {
                let since = write.since.as_ref();
                write.interrupted =
                    since.is_some_and(|begun| begun.revocation_epoch != registry.revocation_epoch());
            }
            let (expired, cut) = registry.cut_expired(time);
            ended.cut.extend(cut);
            (expired, registry.closed(), registry.visits_owed())
        };
        if writes.iter().all(|write| write.interrupted) {
            return Ok(());
        }
        let to_write: Vec<_> = closed.to_write().collect();
        let reset_late = to_write.iter().any(|(_, revocation)| **revocation == Revocation::Everything);
        let resets = reset_late || writes.iter().any(|write| write.kind == Kind::Reset);
        let wall = lock(&self.clock).wall(now);
        let at = if resets { wall } else { time };
        let moment = Moment { agent: &self.agent, node: self.node, now: at, closed: &closed };
        let taken = self.outbox.taken();
        let owed = Owed {
            opening,
            first: state.next,
            taken: &taken,
            visits: &visits,
            to_write: &to_write,
            reset_late,
            time,
            wall,
            known: (!resets).then_some(state.mark),
            first_to_end: expired.get(..SETTLE_FIRST).unwrap_or(&expired),
        };
        let outcome =
            self.transact(ledger, |snapshot| self.run_each(snapshot, moment, &owed, writes, &mut ended.cut));
        let written = match outcome {
            Ok(written) => written,
            Err(error) => return Err(self.failed(&error, now, &mut ended.cut)),
        };
        state.mark = written.mark;
        if let Some(at) = written.set_back.or(resets.then_some(at)) {
            lock(&self.clock).set(at, now.monotonic);
        }
        {
            let mut registry = lock(&self.registry);
            registry.visits_written(&visits);
            to_write.iter().for_each(|(number, _)| registry.written(*number));
        }
        if written.forgot {
            self.outbox.forget(&taken);
        }
        ended.told |= !written.records.is_empty();
        self.told(state, written.records);
        for write in writes.iter() {
            write.contests.iter().for_each(|_| self.counters.contests.add_one());
        }
        written.late.iter().for_each(|revocation| state.recent.add(revocation));
        Ok(())
    }

    /// Runs what is owed, and then each member, each with an overlay of its own, so that one that is dropped
    /// leaves nothing behind.
    fn run_each(
        &self,
        snapshot: &dyn Snapshot,
        moment: Moment<'_>,
        owed: &Owed<'_>,
        writes: &mut [Write],
        cut: &mut Vec<Arc<Live>>,
    ) -> Result<(Changes, Written), LedgerFailure> {
        let mut progress = Step::new(snapshot, moment).check_owner(owed.opening)?;
        // Another node has reset the clock, and removed every record, after this node's time.
        let is_set_back = owed.known.is_some_and(|known| progress.mark < known);
        let set_back = is_set_back.then(|| progress.mark.max(owed.wall));
        let moment = Moment { now: set_back.unwrap_or(moment.now), ..moment };
        let mut batch = Overlay::new(snapshot);
        let (late, records) = (Vec::new(), Vec::new());
        let mut written = Written { mark: progress.mark, set_back, late, records, forgot: false };
        let (mut next, mut taken) = (owed.first, owed.taken);
        if !owed.visits.is_empty() {
            // They were before a reset of the clock.
            let mut step = Step::new(&batch, Moment { now: set_back.unwrap_or(owed.time), ..moment });
            owed.visits.iter().try_for_each(|seen| step.note(seen))?;
            progress = step.keep_time(progress);
            let done = step.finish(next, take(&mut taken))?;
            next = written.add(next, done.records, done.forgot);
            batch.absorb(done.changes);
        }
        if !owed.to_write.is_empty() {
            let mut step = Step::new(&batch, moment);
            let late = owed.to_write.iter().map(|(_, revocation)| *revocation);
            written.late = Revocation::apply_each(late, &mut step)?;
            if owed.reset_late {
                progress = step.reset_time(progress, owed.time, moment.now)?;
            }
            let forgets = take(&mut taken);
            let done = step.finish(next, forgets)?;
            next = written.add(next, done.records, done.forgot && !forgets.is_empty());
            batch.absorb(done.changes);
        }
        let mut first_to_end = owed.first_to_end;
        let mut waiting = writes.iter_mut().filter(|write| !write.interrupted).peekable();
        while let Some(write) = waiting.next() {
            let mut step = Step::new(&batch, moment);
            step.settle_first(take(&mut first_to_end))?;
            write.job.run(&mut step)?;
            self.cut_by(step.events(), write, cut);
            progress = match write.kind {
                Kind::Reset => step.reset_time(progress, owed.time, moment.now)?,
                Kind::Usual | Kind::Revocation => step.keep_time(progress),
            };
            written.mark = progress.mark;
            let forgets = take(&mut taken);
            let done = step.finish(next, forgets)?;
            write.ended.told = !done.records.is_empty();
            next = written.add(next, done.records, done.forgot && !forgets.is_empty());
            // A lone transition has found its changes already.
            if batch.is_unchanged() && waiting.peek().is_none() {
                return Ok((done.changes, written));
            }
            batch.absorb(done.changes);
        }
        Ok((batch.into_changes()?, written))
    }

    /// Cuts what a transition has ended, before it is written. If the transition runs again, the cuts remain.
    fn cut_by(&self, events: &[AuditEvent], write: &mut Write, cut: &mut Vec<Arc<Live>>) {
        for event in events {
            match event {
                AuditEvent::CredentialExpired { credential, .. } => {
                    cut.extend(lock(&self.registry).cut_one(*credential, Cut::Expired));
                }
                // The ticket's code has leaked.
                AuditEvent::CredentialRevoked { credential, why: RevocationReason::Contest, .. } => {
                    let revocation = Revocation::Contest(*credential);
                    if !write.contests.iter().any(|(_, begun)| *begun == revocation) {
                        let (number, cut) = lock(&self.registry).begin(&revocation);
                        write.ended.drain.extend(cut);
                        write.contests.push((number, revocation));
                    }
                }
                _ => {}
            }
        }
    }
}
