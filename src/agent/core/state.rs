//! What the gate keeps under its one lock: the ledger, the clock, and who is connected.

use core::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::clock::Clock;
use super::outbox::Outbox;
use super::registry::{Registry, Target};
use crate::agent::audit::{AuditEvent, AuditSink};
use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::guard::{Cut, Live};
use crate::agent::ledger::record::Progress;
use crate::agent::ledger::transition::{Step, Verdict};
use crate::agent::ledger::{Ledger, Store};
use crate::clock::{Now, Timestamp};
use crate::key::AgentPublicKey;
use crate::sync::MutexGuard;

/// Under the gate's lock.
pub(crate) struct State {
    store: Store,
    clock: Clock,
    /// As it is stored.
    progress: Progress,
    registry: Registry,
    outbox: Outbox,
    closures: u64,
    /// What was cut and waits to be told so, once the lock is gone.
    ended: Vec<Arc<Live>>,
}

/// The state under its lock. Whoever waits for what was cut meanwhile is woken when the lock is gone: a
/// waker may run foreign code.
pub(crate) struct Locked<'a> {
    state: MutexGuard<'a, State>,
    /// Dropped after the lock.
    wakeups: Wakeups,
}

impl<'a> Locked<'a> {
    pub(crate) fn new(state: MutexGuard<'a, State>) -> Self {
        Self { state, wakeups: Wakeups(Vec::new()) }
    }
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.wakeups.0 = core::mem::take(&mut self.state.ended);
    }
}

/// Wakes when it is dropped.
struct Wakeups(Vec<Arc<Live>>);

impl Drop for Wakeups {
    fn drop(&mut self) {
        for live in &self.0 {
            live.wake();
        }
    }
}

impl State {
    /// Opens the ledger for this agent, and takes up its time where it left off.
    pub(crate) fn open(
        ledger: Box<dyn Ledger>,
        agent: &AgentPublicKey,
        now: Now,
        audit: &dyn AuditSink,
    ) -> Result<Self, LedgerFailure> {
        let mut store = Store::new(ledger);
        let (progress, mut outbox, told) = store.transact(|transaction| {
            let mut step = Step::new(transaction, now.timestamp());
            let progress = step.open(agent)?;
            let outbox = Outbox::new(progress.openings, step.untold()?, audit);
            let told = step.tell(outbox.next(), outbox.taken())?;
            Ok((progress, outbox, told))
        })?;
        outbox.forget_taken();
        let mut state = Self {
            store,
            clock: Clock::at(progress.mark, now.monotonic),
            progress,
            registry: Registry::default(),
            outbox,
            closures: 0,
            ended: Vec::new(),
        };
        state.outbox.send(told.records, audit);
        Ok(state)
    }

    /// Ends everything that goes on, and lets the ledger go, so that it can be opened again. Takes out of
    /// it what the sink has, so that it is not told again; nothing is lost if that fails.
    pub(crate) fn close(&mut self) -> Vec<Arc<Live>> {
        let cut = self.registry.cut(Target::All, Cut::GateClosed);
        let taken = self.outbox.taken();
        if !taken.is_empty() {
            let _ = self
                .store
                .transact(|transaction| Step::new(transaction, Timestamp::EPOCH).forget_told(taken));
        }
        self.store.close();
        cut
    }

    /// The agent's time.
    pub(crate) fn effective(&mut self, now: Now) -> Timestamp {
        self.clock.advance(now)
    }

    /// Drops every record and sets the agent's time to the wall clock's. Streams are cut already.
    pub(crate) fn reset_clock(&mut self, now: Now, audit: &dyn AuditSink) -> Result<(), Denial> {
        let (from, to) = (self.effective(now), now.timestamp());
        let stored = self.progress;
        // If it cannot be written, nothing is asked of this clock any more.
        self.clock.set(to, now.monotonic);
        self.run(to, audit, |step| Ok(((), step.reset_clock(stored, from)?)))
    }

    /// How often a session, issuer or device was taken back. What the agent's context said before the
    /// number changed may no longer be so.
    pub(crate) fn closures(&self) -> u64 {
        self.closures
    }

    pub(crate) fn count_closure(&mut self) {
        self.closures += 1;
    }

    pub(crate) fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.store.is_shut()
    }

    /// Runs a transition; once it is durable, tells the audit sink what happened.
    pub(crate) fn transact<T>(
        &mut self,
        now: Timestamp,
        audit: &dyn AuditSink,
        mut transition: impl FnMut(&mut Step<'_>) -> Result<T, LedgerFailure>,
    ) -> Result<T, Denial> {
        let stored = self.progress;
        self.run(now, audit, |step| {
            let result = transition(step)?;
            Ok((result, step.keep_time(stored)?))
        })
    }

    /// Runs a transition that also says what progress is on record after it.
    fn run<T>(
        &mut self,
        at: Timestamp,
        audit: &dyn AuditSink,
        mut transition: impl FnMut(&mut Step<'_>) -> Result<(T, Progress), LedgerFailure>,
    ) -> Result<T, Denial> {
        let outbox = &self.outbox;
        let outcome = self.store.transact(|transaction| {
            let mut step = Step::new(transaction, at);
            let (result, progress) = transition(&mut step)?;
            Ok((result, progress, step.tell(outbox.next(), outbox.taken())?))
        });
        let (result, progress, told) = match outcome {
            Ok(done) => done,
            Err(failure) => {
                // What cannot be taken back for good any more does not go on.
                let cut = self.registry.cut(Target::All, Cut::LedgerFailed);
                self.ended.extend(cut);
                return Err(Denial::Ledger(failure));
            }
        };
        self.progress = progress;
        for record in &told.records {
            // What has run out by the agent's clock has ended for good, whatever a stream's own clock
            // says later.
            if let AuditEvent::CredentialExpired { credential, .. } = &record.event {
                let cut = self.registry.cut(Target::Credential(credential), Cut::Expired);
                self.ended.extend(cut);
            }
        }
        if told.wrote {
            self.outbox.forget_taken();
        }
        self.outbox.send(told.records, audit);
        Ok(result)
    }

    /// As [`State::transact`], for a transition that judges. What has run out is settled with it.
    pub(crate) fn judge<T>(
        &mut self,
        now: Timestamp,
        audit: &dyn AuditSink,
        mut transition: impl FnMut(&mut Step<'_>) -> Verdict<T>,
    ) -> Result<T, Denial> {
        self.transact(now, audit, |step| {
            step.settle()?;
            transition(step)
        })?
    }
}
