//! The shared state of a gate, each part under its own lock.
//!
//! Locks are taken in the order *ledger, clock, registry*. The two of the outbox, the condition's and the
//! last error's may be taken inside any of them, and no other lock inside those. The ledger's lock is held by
//! whoever runs a commit (see `commit.rs`; the others wait for their outcome, not for the lock); all others are
//! held only briefly. Foreign code (a sink, a context, a waker) runs under no lock but the outbox's own.

mod batch;

use std::collections::HashSet;
use std::sync::Arc;

pub(super) use batch::Kind;
use batch::Write;

use super::clock::Clock;
use super::commit::Queue;
use super::lock;
use super::outbox::Outbox;
use super::recent::Recent;
use super::registry::Registry;
use crate::agent::audit::{AuditPosition, AuditRecord, AuditSink};
use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::guard::{Cut, Lease, Live, check_outside_permit, wake_each};
use crate::agent::health::LedgerCondition;
use crate::agent::ledger::record::Progress;
use crate::agent::ledger::transition::{Closed, Done, Exit, Moment, Revocation, Step};
use crate::agent::ledger::{Ledger, LedgerError, Outcome, store};
use crate::agent::nodes::Following;
use crate::agent::stats::{Counters, Timer};
use crate::clock::{Now, Timestamp};
use crate::id::{CredentialId, NodeId};
use crate::key::AgentPublicKey;
use crate::limits::MAX_READS_AGAIN;
use crate::sync::{Mutex, MutexGuard};

/// The shared state of a gate.
pub(crate) struct Core {
    pub(super) agent: AgentPublicKey,
    pub(super) node: NodeId,
    pub(super) lease: Arc<Lease>,
    /// The transitions that wait for a commit.
    pub(super) queue: Queue<Write>,
    /// The ledger's lock.
    pub(super) ledger_state: Mutex<LedgerState>,
    pub(super) condition: Mutex<Condition>,
    /// The latest ledger failure, with the system's error.
    pub(super) last_error: Mutex<Option<LedgerError>>,
    pub(super) clock: Mutex<Clock>,
    pub(super) registry: Mutex<Registry>,
    pub(super) outbox: Outbox,
    pub(super) counters: Arc<Counters>,
    /// How it follows a ledger that other nodes share.
    pub(super) following: Option<Following>,
    /// A copy of the ledger that is read before a first frame has come.
    pub(super) copy: Option<Arc<dyn Ledger>>,
    /// Until when the set of enrolled devices is valid. Its lock may be taken before the clock's and inside no
    /// other.
    pub(super) devices_until: Mutex<Option<Timestamp>>,
}

/// The state under the ledger's lock.
pub(super) struct LedgerState {
    /// The position of the next audit record.
    pub(super) next: AuditPosition,
    pub(super) recent: Recent,
    /// The node's time on record, as this gate has last written or read it. A smaller one on record is another
    /// node's reset of the clock.
    pub(super) mark: Timestamp,
}

/// Whether the ledger can be used.
pub(super) enum Condition {
    Usable {
        ledger: Arc<dyn Ledger>,
        /// The number of the ledger's opening.
        opening: u64,
    },
    /// The ledger has to be opened again.
    Broken,
    /// The gate is shut permanently.
    Shut(LedgerFailure),
}

/// The state at the start of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallStart {
    pub(crate) agent_time: Timestamp,
    pub(super) revocation_epoch: u64,
}

/// The result of opening a ledger.
struct Found {
    progress: Progress,
    /// Records of earlier openings for the sink.
    kept: Vec<AuditRecord>,
    /// Records of this opening.
    records: Vec<AuditRecord>,
    /// Connected credentials that are no longer valid.
    no_longer_valid: Vec<(CredentialId, Denial)>,
    /// The revocations, written late, that ended something.
    late: Vec<Revocation>,
}

impl Core {
    /// Opens the ledger for this agent, and continues its stored time.
    pub(crate) fn open(
        agent: AgentPublicKey,
        node: NodeId,
        ledger: Arc<dyn Ledger>,
        sink: Box<dyn AuditSink>,
        timer: Option<Timer>,
        following: Option<Following>,
        now: Now,
    ) -> Result<Self, LedgerError> {
        let counters = Arc::new(Counters::new(timer));
        let lease = Arc::new(Lease::at(now.monotonic));
        let mut clock = Clock::at(Timestamp::EPOCH, now.monotonic);
        if let Some(Following { limit, read, .. }) = &following {
            lease.follow(read.began.saturating_add(*limit));
            clock.bound(read.store_time, read.began);
        }
        let at = clock.wall(now);
        clock.raise(at, now.monotonic);
        let core = Self {
            agent,
            node,
            queue: Queue::default(),
            ledger_state: Mutex::new(LedgerState {
                next: AuditPosition { opening: 0, sequence: 0 },
                recent: Recent::default(),
                mark: Timestamp::EPOCH,
            }),
            condition: Mutex::new(Condition::Broken),
            last_error: Mutex::new(None),
            clock: Mutex::new(clock),
            registry: Mutex::new(Registry::new(Arc::clone(&lease), Arc::clone(&counters))),
            outbox: Outbox::new(sink, Arc::clone(&counters)),
            lease,
            counters,
            following,
            copy: None,
            devices_until: Mutex::new(None),
        };
        // Records that the sink has are removed with the opening, so that an agent that is killed at every
        // start does not fill the ledger. An unreadable ledger is reported below.
        let moment = Moment { agent: &core.agent, node, now: at, closed: Closed::NONE };
        match store::read(&*ledger, |snapshot| Step::new(snapshot, moment).undelivered()) {
            Ok(kept) => core.outbox.begin(kept),
            // The rows may have another format, which the opening reports.
            Err(error) if error.cause() == LedgerFailure::Corrupt => {}
            Err(error) => return Err(error),
        }
        let found = core.find(&*ledger, at, at, &[], &[])?;
        core.take_up(ledger, found, now);
        core.outbox.tell();
        Ok(core)
    }

    /// Reads the ledger, and makes this opening the only one of its node. `wall` is the wall clock's time,
    /// used if a reset of the clock is written late.
    fn find(
        &self,
        ledger: &dyn Ledger,
        at: Timestamp,
        wall: Timestamp,
        to_write: &[(u64, Revocation)],
        connected: &[CredentialId],
    ) -> Result<Found, LedgerError> {
        let moment = Moment { agent: &self.agent, node: self.node, now: at, closed: Closed::NONE };
        let taken = self.outbox.taken();
        let gone: HashSet<AuditPosition> = taken.iter().copied().collect();
        let found = self.transact(ledger, |snapshot| {
            let mut step = Step::new(snapshot, moment);
            let mut progress = step.open()?;
            // Records that the sink has taken are removed by this transaction.
            let mut kept = step.undelivered()?;
            kept.retain(|record| !gone.contains(&record.position()));
            let late = Revocation::apply_each(to_write.iter().map(|(_, revocation)| revocation), &mut step)?;
            if to_write.iter().any(|(_, revocation)| *revocation == Revocation::Everything) {
                progress = step.reset_time(progress, progress.mark, wall)?;
            }
            let mut no_longer_valid = Vec::new();
            for id in connected {
                if let Err(denial) = Exit::split(step.still_valid(id))? {
                    no_longer_valid.push((*id, denial));
                }
            }
            let first = AuditPosition { opening: progress.openings, sequence: 0 };
            let Done { changes, records, .. } = step.finish(first, &taken)?;
            Ok((changes, Found { progress, kept, records, no_longer_valid, late }))
        })?;
        self.outbox.forget(&taken);
        Ok(found)
    }

    /// Changes the condition under its lock, also for those who watch it without, and returns the one before.
    fn set(&self, condition: &mut Condition, to: Condition) -> Condition {
        self.counters.gauges.set_ledger(match &to {
            Condition::Usable { .. } => LedgerCondition::Usable,
            Condition::Broken => LedgerCondition::Failed,
            Condition::Shut(_) => LedgerCondition::Shut,
        });
        core::mem::replace(condition, to)
    }

    fn take_up(&self, ledger: Arc<dyn Ledger>, found: Found, now: Now) {
        let mut ledger_state = lock(&self.ledger_state);
        self.take_up_in(&mut ledger_state, ledger, found, now);
    }

    fn take_up_in(&self, ledger_state: &mut LedgerState, ledger: Arc<dyn Ledger>, found: Found, now: Now) {
        let Found { progress, records, .. } = found;
        ledger_state.next = AuditPosition { opening: progress.openings, sequence: 0 };
        ledger_state.mark = progress.mark;
        self.set(&mut lock(&self.condition), Condition::Usable { ledger, opening: progress.openings });
        lock(&self.clock).raise(progress.mark, now.monotonic);
        self.told(ledger_state, records);
    }

    /// Queues durable records for the sink.
    pub(super) fn told(&self, ledger_state: &mut LedgerState, records: Vec<AuditRecord>) {
        if let Some(last) = records.last() {
            ledger_state.next.sequence = last.sequence.saturating_add(1);
        }
        self.outbox.add(records);
    }

    /// Opens another ledger, or the same one again, after a failure. Every stream's credential is checked
    /// before any stream continues.
    pub(super) fn reopen_now(&self, ledger: Arc<dyn Ledger>, now: Now) -> Result<(), LedgerError> {
        let mut ended = Vec::new();
        let outcome = self.reopen_for(ledger, now, &mut ended);
        wake_each(&ended);
        outcome?;
        self.lease.wake();
        self.outbox.tell();
        Ok(())
    }

    /// Reopens under the ledger's lock. Adds cut streams to `ended`, which the caller wakes after releasing
    /// it.
    fn reopen_for(
        &self,
        ledger: Arc<dyn Ledger>,
        now: Now,
        ended: &mut Vec<Arc<Live>>,
    ) -> Result<(), LedgerError> {
        let mut ledger_state = lock(&self.ledger_state);
        match &*lock(&self.condition) {
            Condition::Broken => {}
            Condition::Usable { .. } => return Err(LedgerError::not_done(LedgerFailure::InUse)),
            Condition::Shut(failure) => return Err(LedgerError::not_done(*failure).unusable()),
        }
        let at = lock(&self.clock).advance(now);
        let (connected, to_write) = {
            let mut registry = lock(&self.registry);
            let to_write: Vec<_> =
                registry.closed().to_write().map(|(number, of)| (number, of.clone())).collect();
            (registry.connected(), to_write)
        };
        let mut found = match self.find(&*ledger, at, now.timestamp(), &to_write, &connected) {
            Ok(found) => found,
            Err(error) => {
                self.failed(&error, now, ended);
                return Err(error);
            }
        };
        if to_write.iter().any(|(_, revocation)| *revocation == Revocation::Everything) {
            lock(&self.clock).set(found.progress.mark, now.monotonic);
        }
        self.outbox.resume(core::mem::take(&mut found.kept));
        let no_longer_valid = core::mem::take(&mut found.no_longer_valid);
        found.late.iter().for_each(|revocation| ledger_state.recent.add(revocation));
        self.take_up_in(&mut ledger_state, ledger, found, now);
        let mut registry = lock(&self.registry);
        to_write.iter().for_each(|(number, _)| registry.written(*number));
        for (id, denial) in no_longer_valid {
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
        Ok(())
    }

    /// Ends every connection and releases the ledger, so that it can be opened again. Removes the records
    /// that the sink has; if that fails, the sink gets them again.
    pub(crate) fn close(&self) {
        let cut = lock(&self.registry).cut_all(Cut::GateClosed);
        wake_each(&cut);
        let before = {
            let mut state = lock(&self.ledger_state);
            let before = self.set(&mut lock(&self.condition), Condition::Shut(LedgerFailure::Closed));
            if let Condition::Usable { ledger, opening } = &before {
                self.write_visits(&mut state, &**ledger, *opening);
            }
            before
        };
        if let Condition::Usable { ledger, opening } = before {
            self.outbox.tell_unless_busy();
            self.forget_delivered(&*ledger, opening);
        }
        // Credentials that joined meanwhile.
        let late = lock(&self.registry).cut_all(Cut::GateClosed);
        wake_each(&late);
        if check_outside_permit().is_ok() {
            cut.iter().chain(&late).for_each(|live| live.wait_for_permits());
        }
    }

    /// Writes the visits that are owed.
    fn write_visits(&self, state: &mut LedgerState, ledger: &dyn Ledger, opening: u64) {
        let moment =
            Moment { agent: &self.agent, node: self.node, now: Timestamp::EPOCH, closed: Closed::NONE };
        let visits = lock(&self.registry).visits_owed();
        let Some(latest) = visits.iter().map(|seen| seen.at).max() else { return };
        let (first, known) = (state.next, state.mark);
        let outcome = self.transact(ledger, |snapshot| {
            let mut step = Step::new(snapshot, Moment { now: latest, ..moment });
            let progress = step.check_owner(opening)?;
            // Another node's reset of the clock has removed every record, and its time stands.
            if progress.mark >= known {
                visits.iter().try_for_each(|seen| step.note(seen))?;
                step.keep_time(progress);
            }
            let Done { changes, records, .. } = step.finish(first, &[])?;
            Ok((changes, records))
        });
        if let Ok(records) = outcome {
            self.told(state, records);
            lock(&self.registry).visits_written(&visits);
        }
    }

    fn forget_delivered(&self, ledger: &dyn Ledger, opening: u64) {
        let moment =
            Moment { agent: &self.agent, node: self.node, now: Timestamp::EPOCH, closed: Closed::NONE };
        loop {
            let taken = self.outbox.taken();
            if taken.is_empty() {
                return;
            }
            let outcome = self.transact(ledger, |snapshot| {
                let mut step = Step::new(snapshot, moment);
                step.check_owner(opening)?;
                step.forget_delivered(&taken);
                let first = AuditPosition { opening, sequence: 0 };
                Ok((step.finish(first, &[])?.changes, ()))
            });
            if outcome.is_err() {
                return;
            }
            self.outbox.forget(&taken);
        }
    }

    /// Returns the agent's time.
    pub(crate) fn time(&self, now: Now) -> Timestamp {
        lock(&self.clock).advance(now)
    }

    /// Returns when the agent's time reaches `end`, by the monotonic clock.
    pub(crate) fn reaches(&self, end: Timestamp, now: Now) -> time::Duration {
        self.clock_at(now).reaches(end)
    }

    /// Returns the agent's clock as it is now.
    pub(super) fn clock_at(&self, now: Now) -> Clock {
        let mut clock = lock(&self.clock);
        clock.advance(now);
        clock.clone()
    }

    /// Returns the agent's time and the number of revocations so far.
    pub(crate) fn begin(&self, now: Now) -> CallStart {
        let agent_time = self.time(now);
        CallStart { agent_time, revocation_epoch: lock(&self.registry).revocation_epoch() }
    }

    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        lock(&self.registry)
    }

    /// Returns how many transitions wait for a commit.
    #[cfg(all(test, not(sessioncap_loom)))]
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Returns the latest ledger failure. Does not wait for the disk.
    pub(crate) fn last_error(&self) -> Option<LedgerError> {
        lock(&self.last_error).clone()
    }

    /// Returns why the ledger cannot be used, if so. Does not wait for the disk.
    pub(crate) fn failure(&self) -> Option<LedgerFailure> {
        match &*lock(&self.condition) {
            Condition::Usable { .. } => None,
            Condition::Broken => Some(LedgerFailure::Poisoned),
            Condition::Shut(failure) => Some(*failure),
        }
    }

    pub(super) fn usable(&self) -> Result<(Arc<dyn Ledger>, u64), LedgerFailure> {
        match &*lock(&self.condition) {
            Condition::Usable { ledger, opening } => Ok((Arc::clone(ledger), *opening)),
            Condition::Broken => Err(LedgerFailure::Poisoned),
            Condition::Shut(failure) => Err(*failure),
        }
    }

    /// Reads from the ledger. Waits neither for a commit nor for the sink.
    pub(crate) fn read<T, E: Into<Exit>>(
        &self,
        now: Now,
        look: impl FnMut(&Step<'_>) -> Result<T, E>,
    ) -> Result<T, Denial> {
        self.read_with(Closed::NONE, now, look)
    }

    /// Reads from the ledger, with the names that are closed now.
    pub(crate) fn look<T, E: Into<Exit>>(
        &self,
        now: Now,
        look: impl FnMut(&Step<'_>) -> Result<T, E>,
    ) -> Result<T, Denial> {
        let closed = lock(&self.registry).closed();
        self.read_with(&closed, now, look)
    }

    /// Reads from the ledger, and publishes what was found, unless something was revoked, narrowed or ended
    /// meanwhile: then it reads again. Waits neither for a commit nor for the sink.
    ///
    /// What is read is durable. Whatever takes a right away counts a change before it is written and again once
    /// it is, so either this read has seen it, or `publish` does not run. `publish` runs under the registry's lock.
    pub(crate) fn read_and_publish<T, U, E: Into<Exit>>(
        &self,
        now: Now,
        mut look: impl FnMut(&Step<'_>) -> Result<T, E>,
        publish: impl FnOnce(&mut Registry, T) -> Result<U, Denial>,
    ) -> Result<U, Denial> {
        for _ in 0..MAX_READS_AGAIN {
            let (changes, closed) = {
                let registry = lock(&self.registry);
                (registry.changes(), registry.closed())
            };
            let found = self.read_with(&closed, now, &mut look)?;
            let mut registry = lock(&self.registry);
            if registry.changes() == changes {
                return publish(&mut registry, found);
            }
        }
        Err(Denial::Interrupted)
    }

    fn read_with<T, E: Into<Exit>>(
        &self,
        closed: &Closed,
        now: Now,
        mut look: impl FnMut(&Step<'_>) -> Result<T, E>,
    ) -> Result<T, Denial> {
        let (ledger, opening) = self.usable().map_err(Denial::Ledger)?;
        let moment = Moment { agent: &self.agent, node: self.node, now: self.time(now), closed };
        let found = store::read(&*ledger, |snapshot| {
            let step = Step::new(snapshot, moment);
            step.check_owner(opening)?;
            Exit::split(look(&step).map_err(Into::into))
        });
        found.map_err(|error| {
            let mut ended = Vec::new();
            let failure = self.failed(&error, now, &mut ended);
            wake_each(&ended);
            Denial::Ledger(failure)
        })?
    }

    /// Handles a ledger failure. Adds the streams that it cuts to `ended`.
    pub(super) fn failed(&self, error: &LedgerError, now: Now, ended: &mut Vec<Arc<Live>>) -> LedgerFailure {
        let cause = error.cause();
        *lock(&self.last_error) = Some(error.clone());
        match cause {
            // An unreadable record may be a revocation.
            LedgerFailure::Corrupt | LedgerFailure::UnknownFormat { .. } => {
                self.shut(cause, Cut::LedgerFailed, ended);
            }
            LedgerFailure::Fenced => self.shut(cause, Cut::Fenced, ended),
            _ if error.outcome() == Outcome::NotDone && error.is_usable() => {}
            _ => {
                let mut condition = lock(&self.condition);
                if !matches!(*condition, Condition::Shut(_)) {
                    self.set(&mut condition, Condition::Broken);
                }
                drop(condition);
                self.lease.suspend(now.monotonic);
            }
        }
        cause
    }

    pub(super) fn shut(&self, failure: LedgerFailure, why: Cut, ended: &mut Vec<Arc<Live>>) {
        {
            let mut condition = lock(&self.condition);
            // The first reason is kept.
            if !matches!(*condition, Condition::Shut(_)) {
                self.set(&mut condition, Condition::Shut(failure));
            }
        }
        ended.extend(lock(&self.registry).cut_all(why));
    }
}
