//! What a gate keeps, each part under a lock of its own.
//!
//! Locks are taken in the order *ledger, clock, registry*; the two of the outbox and the condition's are
//! taken inside any of them, and no other lock inside those. The ledger's lock is held while the disk works;
//! all others are held for moments. Foreign code (a sink, a context, a waker) runs under no lock but the
//! outbox's own.

use std::collections::HashSet;
use std::sync::Arc;

use super::clock::Clock;
use super::lock;
use super::outbox::Outbox;
use super::registry::{Registry, Subject, TooMany};
use crate::agent::audit::{AuditEvent, AuditPosition, AuditRecord, AuditSink, RevocationReason};
use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::guard::{Cut, Lease, Live, check_outside_permit};
use crate::agent::ledger::record::{CredentialRecord, Progress};
use crate::agent::ledger::transition::{Closed, Done, Moment, Names, Revocation, Step, Verdict};
use crate::agent::ledger::{Ledger, LedgerError, Outcome, Overlay, Snapshot, store};
use crate::clock::{Now, Timestamp};
use crate::id::{CredentialId, NodeId};
use crate::key::AgentPublicKey;
use crate::limits::SETTLE_FIRST;
use crate::sync::{Mutex, MutexGuard};

/// What a gate keeps.
pub(crate) struct Core {
    agent: AgentPublicKey,
    node: NodeId,
    lease: Arc<Lease>,
    /// The ledger's lock.
    books: Mutex<Books>,
    condition: Mutex<Condition>,
    clock: Mutex<Clock>,
    registry: Mutex<Registry>,
    outbox: Outbox,
}

/// Under the ledger's lock.
struct Books {
    /// The next audit record's place.
    next: AuditPosition,
}

/// Whether the ledger can be used.
enum Condition {
    Usable {
        ledger: Arc<dyn Ledger>,
        /// The number of its opening.
        opening: u64,
    },
    /// It has to be opened again.
    Broken,
    /// For good.
    Shut(LedgerFailure),
}

/// The moment at which a call began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    pub(crate) agent_time: Timestamp,
    closures: u64,
}

/// What an opening found.
struct Found {
    progress: Progress,
    /// What earlier openings have left for the sink.
    kept: Vec<AuditRecord>,
    /// What the opening itself has to tell.
    records: Vec<AuditRecord>,
    /// Of connected credentials, those that no longer stand.
    fallen: Vec<(CredentialId, Denial)>,
}

impl Core {
    /// Opens the ledger for this agent, and takes up its time where it left off.
    pub(crate) fn open(
        agent: AgentPublicKey,
        node: NodeId,
        ledger: Arc<dyn Ledger>,
        sink: Box<dyn AuditSink>,
        now: Now,
    ) -> Result<Self, LedgerFailure> {
        let lease = Arc::new(Lease::at(now.monotonic));
        let core = Self {
            agent,
            node,
            books: Mutex::new(Books { next: AuditPosition { opening: 0, sequence: 0 } }),
            condition: Mutex::new(Condition::Broken),
            clock: Mutex::new(Clock::at(now.timestamp(), now.monotonic)),
            registry: Mutex::new(Registry::new(Arc::clone(&lease))),
            outbox: Outbox::new(sink),
            lease,
        };
        let at = now.timestamp();
        // What the sink has goes with the opening, so that an agent that is killed at every start fills
        // nothing. A ledger that cannot be read says so below.
        let moment = Moment { agent: &core.agent, node, now: at, closed: Closed::NONE };
        match store::read(&*ledger, |snapshot| Step::new(snapshot, moment).untold()) {
            Ok(kept) => core.outbox.begin(kept),
            // Rows of another format, perhaps: the opening says what it is.
            Err(error) if error.cause() == LedgerFailure::Corrupt => {}
            Err(error) => return Err(error.cause()),
        }
        let found = core.find(&*ledger, at, &[], &[]).map_err(|error| error.cause())?;
        core.take_up(ledger, found, now);
        core.outbox.tell();
        Ok(core)
    }

    /// Reads what a ledger says, and makes this opening the only one of its node.
    fn find(
        &self,
        ledger: &dyn Ledger,
        at: Timestamp,
        to_write: &[(u64, Revocation)],
        connected: &[CredentialId],
    ) -> Result<Found, LedgerError> {
        let moment = Moment { agent: &self.agent, node: self.node, now: at, closed: Closed::NONE };
        let taken = self.outbox.taken();
        let found = store::transact(ledger, |snapshot| {
            let mut step = Step::new(snapshot, moment);
            let mut progress = step.open()?;
            let kept = step.untold()?;
            for (_, revocation) in to_write {
                revocation.apply(&mut step)?;
            }
            if to_write.iter().any(|(_, revocation)| *revocation == Revocation::Everything) {
                progress = step.reset_time(progress, progress.mark)?;
            }
            let mut fallen = Vec::new();
            for id in connected {
                if let Err(denial) = step.stands(id)? {
                    fallen.push((*id, denial));
                }
            }
            let first = AuditPosition { opening: progress.openings, sequence: 0 };
            let Done { changes, records, .. } = step.finish(first, &taken)?;
            Ok((changes, Found { progress, kept, records, fallen }))
        })?;
        self.outbox.forget(&taken);
        Ok(found)
    }

    fn take_up(&self, ledger: Arc<dyn Ledger>, found: Found, now: Now) {
        let mut books = lock(&self.books);
        self.take_up_in(&mut books, ledger, found, now);
    }

    fn take_up_in(&self, books: &mut Books, ledger: Arc<dyn Ledger>, found: Found, now: Now) {
        let Found { progress, records, .. } = found;
        books.next = AuditPosition { opening: progress.openings, sequence: 0 };
        *lock(&self.condition) = Condition::Usable { ledger, opening: progress.openings };
        lock(&self.clock).raise(progress.mark, now.monotonic);
        self.told(books, records);
    }

    /// Queues what has become durable.
    fn told(&self, books: &mut Books, records: Vec<AuditRecord>) {
        if let Some(last) = records.last() {
            books.next.sequence = last.sequence.saturating_add(1);
        }
        self.outbox.add(records);
    }

    /// Opens another ledger, or the same one again, after a failure. Every stream is looked up in it before
    /// any goes on.
    pub(crate) fn reopen(&self, ledger: Arc<dyn Ledger>, now: Now) -> Result<(), LedgerFailure> {
        let mut ended = Vec::new();
        {
            let mut books = lock(&self.books);
            match &*lock(&self.condition) {
                Condition::Broken => {}
                Condition::Usable { .. } => return Err(LedgerFailure::InUse),
                Condition::Shut(failure) => return Err(*failure),
            }
            let at = lock(&self.clock).advance(now);
            let (connected, to_write) = {
                let registry = lock(&self.registry);
                let to_write: Vec<_> =
                    registry.closed().to_write().map(|(number, of)| (number, of.clone())).collect();
                (registry.connected(), to_write)
            };
            let mut found = match self.find(&*ledger, at, &to_write, &connected) {
                Ok(found) => found,
                Err(error) => return Err(self.failed(&error, now, &mut ended)),
            };
            if to_write.iter().any(|(_, revocation)| *revocation == Revocation::Everything) {
                lock(&self.clock).set(found.progress.mark, now.monotonic);
            }
            self.outbox.resume(core::mem::take(&mut found.kept));
            let fallen = core::mem::take(&mut found.fallen);
            self.take_up_in(&mut books, ledger, found, now);
            let mut registry = lock(&self.registry);
            to_write.iter().for_each(|(number, _)| registry.written(*number));
            for (id, denial) in fallen {
                let why = match denial {
                    Denial::CredentialExpired => Cut::Expired,
                    Denial::SessionGone => Cut::SessionGone,
                    Denial::TicketContested => Cut::Contested,
                    _ => Cut::Revoked,
                };
                ended.extend(registry.cut_one(id, why));
            }
            drop(registry);
            self.lease.resume(now.monotonic);
        }
        ended.iter().for_each(|live| live.wake());
        self.lease.wake();
        self.outbox.tell();
        Ok(())
    }

    /// Ends everything that goes on, and lets the ledger go, so that it can be opened again. Takes out of
    /// it what the sink has, so that it is not told again; nothing is lost if that fails.
    pub(crate) fn close(&self) {
        let cut = lock(&self.registry).cut_all(Cut::GateClosed);
        cut.iter().for_each(|live| live.wake());
        {
            let _books = lock(&self.books);
            let before =
                core::mem::replace(&mut *lock(&self.condition), Condition::Shut(LedgerFailure::Closed));
            if let Condition::Usable { ledger, opening } = before {
                self.forget_told(&*ledger, opening);
            }
        }
        // Whoever joined meanwhile.
        let late = lock(&self.registry).cut_all(Cut::GateClosed);
        late.iter().for_each(|live| live.wake());
        if check_outside_permit().is_ok() {
            cut.iter().chain(&late).for_each(|live| live.wait_for_permits());
        }
    }

    fn forget_told(&self, ledger: &dyn Ledger, opening: u64) {
        let moment =
            Moment { agent: &self.agent, node: self.node, now: Timestamp::EPOCH, closed: Closed::NONE };
        loop {
            let taken = self.outbox.taken();
            if taken.is_empty() {
                return;
            }
            let outcome = store::transact(ledger, |snapshot| {
                let mut step = Step::new(snapshot, moment);
                step.check_owner(opening)?;
                step.forget_told(&taken);
                let first = AuditPosition { opening, sequence: 0 };
                Ok((step.finish(first, &[])?.changes, ()))
            });
            if outcome.is_err() {
                return;
            }
            self.outbox.forget(&taken);
        }
    }

    /// The agent's time.
    pub(crate) fn time(&self, now: Now) -> Timestamp {
        lock(&self.clock).advance(now)
    }

    /// When the agent's time reaches `end`, by the monotonic clock.
    pub(crate) fn reaches(&self, end: Timestamp, now: Now) -> time::Duration {
        let mut clock = lock(&self.clock);
        clock.advance(now);
        clock.reaches(end)
    }

    /// The agent's time, and how often something was revoked until then.
    pub(crate) fn begin(&self, now: Now) -> Begun {
        let agent_time = self.time(now);
        Begun { agent_time, closures: lock(&self.registry).closures() }
    }

    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        lock(&self.registry)
    }

    /// Settles what has run out, and lets streams go on from `now`: all but those whose session or device
    /// the context has not known for too long.
    pub(crate) fn settle(&self, unknown: &HashSet<Subject>, now: Now) -> Result<(), Denial> {
        {
            let mut desk = self.desk();
            desk.judge(now, |_| Ok(Ok(())))?;
            lock(&self.registry).unknown(unknown, now.monotonic);
            self.lease.renew(now.monotonic);
            // Below: a sink that hangs lets no stream wait.
            desk.after.told = false;
        }
        self.lease.wake();
        self.outbox.tell_unless_busy();
        Ok(())
    }

    /// Why the ledger cannot be used, if so. Waits for no disk.
    pub(crate) fn failure(&self) -> Option<LedgerFailure> {
        match &*lock(&self.condition) {
            Condition::Usable { .. } => None,
            Condition::Broken => Some(LedgerFailure::Poisoned),
            Condition::Shut(failure) => Some(*failure),
        }
    }

    fn usable(&self) -> Result<(Arc<dyn Ledger>, u64), LedgerFailure> {
        match &*lock(&self.condition) {
            Condition::Usable { ledger, opening } => Ok((Arc::clone(ledger), *opening)),
            Condition::Broken => Err(LedgerFailure::Poisoned),
            Condition::Shut(failure) => Err(*failure),
        }
    }

    /// Looks something up in what is on record. Waits neither for a commit nor for the sink.
    pub(crate) fn read<T>(
        &self,
        now: Now,
        mut look: impl FnMut(&Step<'_>) -> Result<T, LedgerFailure>,
    ) -> Result<T, Denial> {
        let (ledger, opening) = self.usable().map_err(Denial::Ledger)?;
        let moment =
            Moment { agent: &self.agent, node: self.node, now: self.time(now), closed: Closed::NONE };
        let found = store::read(&*ledger, |snapshot| {
            let step = Step::new(snapshot, moment);
            step.check_owner(opening)?;
            look(&step)
        });
        found.map_err(|error| {
            let mut ended = Vec::new();
            let failure = self.failed(&error, now, &mut ended);
            ended.iter().for_each(|live| live.wake());
            Denial::Ledger(failure)
        })
    }

    /// Takes the ledger's lock.
    pub(crate) fn desk(&self) -> Desk<'_> {
        Desk {
            books: lock(&self.books),
            after: After { core: self, cut: Vec::new(), drain: Vec::new(), told: false },
        }
    }

    /// Takes the ledger's lock, unless something was revoked since: what the context has said may be from
    /// before a session's end then, and another session may have the same id by now.
    pub(crate) fn desk_since(&self, begun: &Begun) -> Result<Desk<'_>, Denial> {
        let desk = self.desk();
        if lock(&self.registry).closures() == begun.closures { Ok(desk) } else { Err(Denial::Interrupted) }
    }

    /// Revokes: closes the name and cuts first, then writes, then cuts again whatever had slipped in. What
    /// could not be written stays cut and closed, and is written with the next transaction that can be.
    pub(crate) fn revoke(&self, revocation: &Revocation, now: Now) -> Result<(), Denial> {
        check_outside_permit()?;
        let (number, cut) = lock(&self.registry).begin(revocation);
        cut.iter().for_each(|live| live.wake());
        let mut desk = self.desk();
        let outcome = match revocation {
            Revocation::Everything => desk.reset(now),
            _ => desk.judge(now, |step| revocation.apply(step).map(Ok)),
        };
        desk.settle_revocation(number, revocation, outcome.is_ok());
        drop(desk);
        cut.iter().for_each(|live| live.wait_for_permits());
        outcome
    }

    /// Revokes what the context says is gone, of the epochs and generations about which it was asked, and only
    /// if nothing was revoked since.
    pub(crate) fn revoke_gone(&self, gone: &[Revocation], begun: &Begun, now: Now) -> Result<(), Denial> {
        if gone.is_empty() {
            return Ok(());
        }
        let mut desk = self.desk_since(begun)?;
        for revocation in gone {
            let (number, cut) = lock(&self.registry).begin(revocation);
            desk.after.drain.extend(cut);
            let outcome = desk.judge(now, |step| revocation.apply(step).map(Ok));
            desk.settle_revocation(number, revocation, outcome.is_ok());
            outcome?;
        }
        Ok(())
    }

    /// What a failure leaves. What was cut by it is added to `ended`.
    fn failed(&self, error: &LedgerError, now: Now, ended: &mut Vec<Arc<Live>>) -> LedgerFailure {
        let cause = error.cause();
        match cause {
            // What cannot be read may say "revoked".
            LedgerFailure::Corrupt | LedgerFailure::UnknownFormat { .. } => {
                self.shut(cause, Cut::LedgerFailed, ended);
            }
            LedgerFailure::Fenced => self.shut(cause, Cut::Fenced, ended),
            _ if error.outcome() == Outcome::NotDone && error.is_usable() => {}
            _ => {
                let mut condition = lock(&self.condition);
                if !matches!(*condition, Condition::Shut(_)) {
                    *condition = Condition::Broken;
                }
                drop(condition);
                self.lease.suspend(now.monotonic);
            }
        }
        cause
    }

    fn shut(&self, failure: LedgerFailure, why: Cut, ended: &mut Vec<Arc<Live>>) {
        {
            let mut condition = lock(&self.condition);
            // The first reason stays.
            if !matches!(*condition, Condition::Shut(_)) {
                *condition = Condition::Shut(failure);
            }
        }
        ended.extend(lock(&self.registry).cut_all(why));
    }
}

/// The ledger's lock, held. When it is let go, what was cut is woken and the sink is told.
pub(crate) struct Desk<'a> {
    // Dropped before what comes after.
    books: MutexGuard<'a, Books>,
    after: After<'a>,
}

struct After<'a> {
    core: &'a Core,
    /// What was cut, to be woken: a waker may run foreign code.
    cut: Vec<Arc<Live>>,
    /// What was revoked, to be woken and waited for: a permit that is in use may want a lock.
    drain: Vec<Arc<Live>>,
    /// Whether there is something for the sink.
    told: bool,
}

impl Drop for After<'_> {
    fn drop(&mut self) {
        self.cut.iter().chain(&self.drain).for_each(|live| live.wake());
        if check_outside_permit().is_ok() {
            self.drain.iter().for_each(|live| live.wait_for_permits());
        }
        if self.told {
            self.core.outbox.tell();
        }
    }
}

/// What one transition has left, once it is durable.
struct Written<T> {
    result: T,
    records: Vec<AuditRecord>,
    forgot: bool,
}

impl Desk<'_> {
    /// Judges something, with what has run out settled first.
    pub(crate) fn judge<T>(
        &mut self,
        now: Now,
        mut judge: impl FnMut(&mut Step<'_>) -> Verdict<T>,
    ) -> Result<T, Denial> {
        self.run(now, false, |step| {
            step.settle()?;
            judge(step)
        })?
    }

    /// Drops every record and sets the agent's time to the wall clock's.
    fn reset(&mut self, now: Now) -> Result<(), Denial> {
        self.run(now, true, |step| Revocation::Everything.apply(step))
    }

    /// The live state of a credential whose record was just found to stand. Under the same lock, so that no
    /// revocation falls in between.
    pub(crate) fn join(&self, id: &CredentialId, record: &CredentialRecord) -> Result<Arc<Live>, Denial> {
        lock(&self.after.core.registry).join(id, record)
    }

    /// Whether no revocation that names this credential is under way or unwritten. What it names has been cut
    /// by then, so that a guard made in spite of it would permit nothing; an answer that says why is better.
    pub(crate) fn check_open(&self, id: &CredentialId, record: &CredentialRecord) -> Result<(), Denial> {
        let closed = lock(&self.after.core.registry).closed();
        closed.denial(&Names::of_credential(id, record)).map_or(Ok(()), Err)
    }

    /// A revocation was written, or was not. Nothing can have joined meanwhile, because the name was closed;
    /// the cut is repeated all the same, so that it does not rest on that alone (no test can tell).
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

    /// Runs a transition, and before it whatever could not be written earlier; once it is durable, queues for
    /// the sink what happened.
    fn run<T>(
        &mut self,
        now: Now,
        reset: bool,
        mut transition: impl FnMut(&mut Step<'_>) -> Result<T, LedgerFailure>,
    ) -> Result<T, Denial> {
        let core = self.after.core;
        let (ledger, opening) = core.usable().map_err(|failure| {
            // Nobody will open it again in time.
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
        let at = if reset || reset_late { now.timestamp() } else { time };
        let moment = Moment { agent: &core.agent, node: core.node, now: at, closed: &closed };
        let (first, taken) = (self.books.next, core.outbox.taken());
        // Revocations that a transition decides, and cuts before it is written.
        let mut contests: Vec<(u64, Revocation)> = Vec::new();

        let outcome = store::transact(&*ledger, |snapshot| {
            let mut member = |below: &dyn Snapshot, first: AuditPosition| {
                let mut step = Step::new(below, moment);
                let progress = step.check_owner(opening)?;
                step.settle_first(first_to_end)?;
                let result = transition(&mut step)?;
                self.after.cut_by(step.events(), &mut contests);
                match reset {
                    true => drop(step.reset_time(progress, time)?),
                    false => drop(step.keep_time(progress)),
                }
                Ok((step.finish(first, &taken)?, result))
            };
            let (records, changes, result, forgot) = match to_write.is_empty() {
                true => {
                    let (done, result) = member(snapshot, first)?;
                    (done.records, done.changes, result, done.forgot)
                }
                // Each with an overlay of its own.
                false => {
                    let mut batch = Overlay::new(snapshot);
                    let late =
                        write_late(&batch, moment, opening, first, &to_write, reset_late.then_some(time))?;
                    batch.absorb(late.changes);
                    let next = after_all(first, &late.records);
                    let (done, result) = member(&batch, next)?;
                    batch.absorb(done.changes);
                    let mut records = late.records;
                    records.extend(done.records);
                    (records, batch.into_changes()?, result, done.forgot)
                }
            };
            Ok((changes, Written { result, records, forgot }))
        });

        let written = match outcome {
            Ok(written) => written,
            Err(error) => {
                let failure = core.failed(&error, now, &mut self.after.cut);
                self.settle_contests(contests, false);
                return Err(Denial::Ledger(failure));
            }
        };
        if reset || reset_late {
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
        core.told(&mut self.books, written.records);
        self.settle_contests(contests, true);
        Ok(written.result)
    }

    fn settle_contests(&mut self, contests: Vec<(u64, Revocation)>, written: bool) {
        for (number, revocation) in contests {
            self.settle_revocation(number, &revocation, written);
        }
    }
}

impl After<'_> {
    /// Cuts what a transition has ended by its own judgement, before it is written. A transition may run
    /// again: what was cut stays so.
    fn cut_by(&mut self, events: &[AuditEvent], contests: &mut Vec<(u64, Revocation)>) {
        for event in events {
            match event {
                AuditEvent::CredentialExpired { credential, .. } => {
                    let cut = lock(&self.core.registry).cut_one(*credential, Cut::Expired);
                    self.cut.extend(cut);
                }
                // A leaked code.
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

/// Puts on record what could not be written earlier.
fn write_late(
    below: &dyn Snapshot,
    moment: Moment<'_>,
    opening: u64,
    first: AuditPosition,
    to_write: &[(u64, &Revocation)],
    reset_from: Option<Timestamp>,
) -> Result<Done, LedgerFailure> {
    let mut step = Step::new(below, moment);
    let progress = step.check_owner(opening)?;
    for (_, revocation) in to_write {
        revocation.apply(&mut step)?;
    }
    if let Some(from) = reset_from {
        step.reset_time(progress, from)?;
    }
    step.finish(first, &[])
}

/// The place after these records.
fn after_all(first: AuditPosition, records: &[AuditRecord]) -> AuditPosition {
    let last = records.last().map(|record| record.sequence.saturating_add(1));
    AuditPosition { sequence: last.unwrap_or(first.sequence), ..first }
}
