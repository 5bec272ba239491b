//! What the gate keeps under its one lock: the ledger, the clock, and who is connected.

use core::ops::{Deref, DerefMut};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use time::Duration;

use super::outbox::Outbox;
use crate::audit::{AuditEvent, AuditSink};
use crate::clock::{Now, Timestamp};
use crate::denial::{Denial, LedgerFailure};
use crate::guard::{Cut, Live};
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{AgentPublicKey, DevicePublicKey, IssuerPublicKey};
use crate::ledger::record::{CredentialRecord, Progress};
use crate::ledger::transition::{Step, Verdict};
use crate::ledger::{Ledger, Store};
use crate::sync::MutexGuard;

/// Under the gate's lock.
pub(super) struct State {
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
pub(super) struct Locked<'a> {
    state: MutexGuard<'a, State>,
    /// Dropped after the lock.
    wakeups: Wakeups,
}

impl<'a> Locked<'a> {
    pub(super) fn new(state: MutexGuard<'a, State>) -> Self {
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
    pub(super) fn open(
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
    pub(super) fn close(&mut self) -> Vec<Arc<Live>> {
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
    pub(super) fn effective(&mut self, now: Now) -> Timestamp {
        self.clock.advance(now)
    }

    /// Drops every record and sets the agent's time to the wall clock's. Streams are cut already.
    pub(super) fn reset_clock(&mut self, now: Now, audit: &dyn AuditSink) -> Result<(), Denial> {
        let (from, to) = (self.effective(now), now.timestamp());
        let stored = self.progress;
        // If it cannot be written, nothing is asked of this clock any more.
        self.clock.set(to, now.monotonic);
        self.run(to, audit, |step| Ok(((), step.reset_clock(stored, from)?)))
    }

    /// How often a session, issuer or device was taken back. What the agent's context said before the
    /// number changed may no longer be so.
    pub(super) fn closures(&self) -> u64 {
        self.closures
    }

    pub(super) fn count_closure(&mut self) {
        self.closures += 1;
    }

    pub(super) fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.store.is_shut()
    }

    /// Runs a transition; once it is durable, tells the audit sink what happened.
    pub(super) fn transact<T>(
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
    pub(super) fn judge<T>(
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

/// A wall clock that never goes back.
///
/// Effective time is the later of the wall clock and the last effective time plus the monotonic time
/// since then, so that setting the wall clock back neither revives anything nor stops the clock. Across
/// a restart the last time that was stored takes the place of the last time that was used; it is at
/// most a minute older, and never older than anything on record.
struct Clock {
    mark: Timestamp,
    monotonic: Duration,
    /// When an operator has set it. A reading from before knows nothing of that.
    set_at: Option<Duration>,
}

impl Clock {
    fn at(mark: Timestamp, monotonic: Duration) -> Self {
        Self { mark, monotonic, set_at: None }
    }

    fn set(&mut self, mark: Timestamp, monotonic: Duration) {
        *self = Self { mark, monotonic, set_at: Some(monotonic) };
    }

    fn advance(&mut self, now: Now) -> Timestamp {
        if self.set_at.is_some_and(|set_at| now.monotonic < set_at) {
            return self.mark;
        }
        let elapsed = now.monotonic.saturating_sub(self.monotonic).whole_seconds().max(0);
        let by_mark = self.mark.plus(u64::try_from(elapsed).unwrap_or(0));
        let wall = now.timestamp();
        (self.mark, self.monotonic) = match wall > by_mark {
            true => (wall, now.monotonic),
            // By whole seconds only, or the fractions would be lost at each call.
            false => (by_mark, self.monotonic.saturating_add(Duration::seconds(elapsed))),
        };
        self.mark
    }
}

/// Which connected credentials a cut is meant for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    Credential(&'a CredentialId),
    Ticket(&'a TicketId),
    Session(&'a SessionId),
    Issuer(&'a IssuerPublicKey),
    Device(&'a DevicePublicKey),
    DevicesOutside(&'a [DevicePublicKey]),
    All,
}

/// The credentials that have connections, or are about to.
#[derive(Default)]
pub(super) struct Registry {
    entries: HashMap<CredentialId, Entry>,
    prune_at: usize,
}

struct Entry {
    live: Weak<Live>,
    ticket: TicketId,
    session: SessionId,
    issuer: IssuerPublicKey,
    device: DevicePublicKey,
}

impl Registry {
    /// The live state of a credential whose record was just found to stand.
    pub(super) fn join(&mut self, id: &CredentialId, record: &CredentialRecord) -> Arc<Live> {
        if let Some(live) = self.find(id) {
            return live;
        }
        if self.entries.len() >= self.prune_at {
            self.entries.retain(|_, entry| entry.live.strong_count() > 0);
            self.prune_at = self.entries.len().saturating_mul(2).max(64);
        }
        let live = Live::new();
        let entry = Entry {
            live: Arc::downgrade(&live),
            ticket: record.ticket,
            session: record.session.clone(),
            issuer: record.issuer,
            device: record.device,
        };
        self.entries.insert(*id, entry);
        live
    }

    /// The live state of a credential that has connections, or is about to.
    pub(super) fn find(&self, id: &CredentialId) -> Option<Arc<Live>> {
        self.entries.get(id).and_then(|entry| entry.live.upgrade())
    }

    pub(super) fn connections(&self, id: &CredentialId) -> usize {
        self.find(id).map_or(0, |live| live.connections())
    }

    /// Cuts what is connected, and returns it so that the caller can drain it once the lock is gone.
    pub(super) fn cut(&mut self, target: Target<'_>, why: Cut) -> Vec<Arc<Live>> {
        let hit = |id: &CredentialId, entry: &Entry| match target {
            Target::Credential(wanted) => id == wanted,
            Target::Ticket(wanted) => entry.ticket == *wanted,
            Target::Session(wanted) => entry.session == *wanted,
            Target::Issuer(wanted) => entry.issuer == *wanted,
            Target::Device(wanted) => entry.device == *wanted,
            Target::DevicesOutside(enrolled) => !enrolled.contains(&entry.device),
            Target::All => true,
        };
        let mut cut = Vec::new();
        // What was cut stays listed while anyone holds it, so that a second revoker waits for the same
        // permits as the first.
        self.entries.retain(|id, entry| match entry.live.upgrade() {
            Some(live) if hit(id, entry) => {
                live.cut(why);
                cut.push(live);
                true
            }
            Some(_) => true,
            None => false,
        });
        cut
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    fn at(wall: i64, monotonic: i64) -> Now {
        Now::new(OffsetDateTime::from_unix_timestamp(wall).unwrap(), Duration::seconds(monotonic))
    }

    #[test]
    fn a_wall_clock_set_back_neither_revives_nor_stops_time() {
        let mut clock = Clock::at(Timestamp::EPOCH, Duration::ZERO);
        assert_eq!(clock.advance(at(1_000, 0)).seconds(), 1_000);
        assert_eq!(clock.advance(at(400, 10)).seconds(), 1_010);
        assert_eq!(clock.advance(at(410, 25)).seconds(), 1_025);
        assert_eq!(clock.advance(at(2_000, 30)).seconds(), 2_000, "a forward step counts at once");
        assert_eq!(clock.advance(at(1_031, 31)).seconds(), 2_001, "and is not undone by itself");
    }

    #[test]
    fn fractions_of_seconds_add_up_under_a_frozen_wall_clock() {
        let frozen = OffsetDateTime::from_unix_timestamp(1_000).unwrap();
        for step in [100, 700, 1_900, 2_500] {
            let mut clock = Clock::at(Timestamp::EPOCH, Duration::ZERO);
            let mut elapsed = 0;
            while elapsed <= 100_000 {
                let effective = clock.advance(Now::new(frozen, Duration::milliseconds(elapsed)));
                assert_eq!(effective.seconds(), 1_000 + u64::try_from(elapsed / 1_000).unwrap(), "{step} ms");
                elapsed += step;
            }
        }
    }
}
