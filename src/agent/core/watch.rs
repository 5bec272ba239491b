//! What an operator can watch: statistics and health without a lock, and the counted and traced form of the
//! core's calls.

use std::sync::Arc;

use super::state::Core;
use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::health::Health;
use crate::agent::ledger::transition::Revocation;
use crate::agent::ledger::{Changes, Ledger, LedgerError, Outcome, Snapshot, store};
use crate::agent::stats::{Counter, Counters, Stats};
use crate::agent::trace::{Call, Ids, Trace};
use crate::clock::Now;
use crate::pair::Revoked;

impl Core {
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Reads the counters, without a lock.
    pub(crate) fn stats(&self) -> Stats {
        self.counters.read()
    }

    /// Reads the condition, without a lock.
    pub(crate) fn health(&self, now: Now) -> Health {
        let paused = self.lease.is_stale(now.monotonic);
        self.counters.gauges.read(self.lease.settled_ago(now.monotonic), paused)
    }

    /// Runs a call in its span; counts and reports how it ends.
    pub(crate) fn watched<T>(
        &self,
        trace: &Trace,
        [done, refused]: [&Counter; 2],
        run: impl FnOnce() -> Result<T, Denial>,
    ) -> Result<T, Denial> {
        let outcome = trace.run(run);
        match &outcome {
            Ok(_) => {
                done.add_one();
                trace.end("done", None);
            }
            Err(denial) => {
                refused.add_one();
                self.counters.denied(denial);
                trace.end("refused", Some(denial.code()));
            }
        }
        outcome
    }

    /// Runs a ledger transaction, counted by its outcome.
    pub(super) fn transact<T>(
        &self,
        ledger: &dyn Ledger,
        transition: impl FnMut(&dyn Snapshot) -> Result<(Changes, T), LedgerFailure>,
    ) -> Result<T, LedgerError> {
        let begun = self.counters.begin();
        let outcome = store::transact(ledger, transition);
        self.counters.end(begun, &self.counters.transaction_time);
        let counter = match outcome.as_ref().map_err(LedgerError::outcome) {
            Ok(_) => &self.counters.transactions_done,
            Err(Outcome::NotDone) => &self.counters.transactions_not_done,
            Err(Outcome::Unknown) => &self.counters.transactions_unknown,
        };
        counter.add_one();
        outcome
    }

    /// Revokes: closes the name and cuts first, then writes, then cuts again. Counts and reports the outcome.
    pub(crate) fn revoke(&self, revocation: &Revocation, now: Now) -> Result<Revoked, Denial> {
        let begun = self.counters.begin();
        // A subscriber may hang, so that the cut comes before the span.
        let begun_with = self.cut_first(revocation);
        let (call, ids) = call_of(revocation);
        let trace = Trace::begin(call, &ids);
        let outcome = trace.run(|| self.write_revocation(revocation, begun_with?, now));
        self.counters.end(begun, &self.counters.revoke_time);
        self.count_revocation(&outcome);
        match &outcome {
            Ok(Revoked::Ended { .. }) => trace.end("ended", None),
            Ok(Revoked::Already) => trace.end("already", None),
            Ok(Revoked::Unknown) => trace.end("unknown", None),
            Err(denial) => {
                self.counters.denied(denial);
                trace.end("failed", Some(denial.code()));
            }
        }
        outcome
    }

    pub(super) fn count_revocation(&self, outcome: &Result<Revoked, Denial>) {
        let counter = match outcome {
            Ok(Revoked::Ended { .. }) => &self.counters.revocations_ended,
            Ok(Revoked::Already) => &self.counters.revocations_already,
            Ok(Revoked::Unknown) => &self.counters.revocations_unknown,
            Err(_) => &self.counters.revocations_failed,
        };
        counter.add_one();
    }

    /// Reopens, as [`Core::reopen_now`] does, and counts and reports the outcome.
    pub(crate) fn reopen(&self, ledger: Arc<dyn Ledger>, now: Now) -> Result<(), LedgerError> {
        let trace = Trace::begin(Call::Reopen, &Ids::NONE);
        let outcome = trace.run(|| self.reopen_now(ledger, now));
        match &outcome {
            Ok(()) => {
                self.counters.reopenings.add_one();
                trace.end("done", None);
            }
            Err(error) => {
                self.counters.reopenings_failed.add_one();
                trace.end("failed", Some(error.code()));
            }
        }
        outcome
    }
}

/// Returns the call that a revocation is, and the names that it concerns.
fn call_of(revocation: &Revocation) -> (Call, Ids<'_>) {
    let of_session = |session| Ids { session: Some(session), ..Ids::NONE };
    match revocation {
        Revocation::Ticket(ticket) => (Call::RevokeTicket, Ids { ticket: Some(ticket), ..Ids::NONE }),
        Revocation::Credential(credential) | Revocation::Contest(credential) => {
            (Call::RevokeCredential, Ids { credential: Some(credential), ..Ids::NONE })
        }
        Revocation::Session(session) => (Call::RevokeSession, of_session(session)),
        Revocation::SessionEnd(session) | Revocation::SessionGone(session, _) => {
            (Call::EndSession, of_session(session))
        }
        Revocation::Issuer(_) | Revocation::IssuerGone(..) => (Call::RevokeIssuer, Ids::NONE),
        Revocation::Device(device) => (Call::RevokeDevice, Ids::of_device(device)),
        Revocation::DevicesOutside(_) => (Call::SyncDevices, Ids::NONE),
        Revocation::Phone(device, _) => (Call::RevokePhone, Ids::of_device(device)),
        Revocation::Everything => (Call::ResetClock, Ids::NONE),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration as Time;

    use time::{Duration, OffsetDateTime};

    use super::*;
    use crate::agent::audit::{AuditRecord, AuditSink, NotKept};
    use crate::agent::core::lock;
    use crate::agent::health::HealthProblem;
    use crate::agent::ledger::MemoryLedger;
    use crate::id::{NodeId, SessionId};
    use crate::key::AgentSecretKey;

    /// Longer than reading some numbers takes. Reached only by a reading that waits.
    const PATIENCE: Time = Time::from_secs(120);

    struct Sink;

    impl AuditSink for Sink {
        fn record(&self, _: &AuditRecord) -> Result<(), NotKept> {
            Ok(())
        }
    }

    fn now() -> Now {
        Now::new(OffsetDateTime::from_unix_timestamp(1_780_000_000).unwrap(), Duration::hours(1))
    }

    fn core() -> Core {
        let agent = AgentSecretKey::from_bytes([1; 32]).public();
        let ledger = Arc::new(MemoryLedger::new());
        Core::open(agent, NodeId::default(), ledger, Box::new(Sink), None, None, now()).unwrap()
    }

    #[test]
    fn stats_and_health_are_read_while_another_thread_holds_every_lock() {
        let core = core();
        thread::scope(|scope| {
            let _ledger = lock(&core.ledger_state);
            let _condition = lock(&core.condition);
            let _last_error = lock(&core.last_error);
            let _clock = lock(&core.clock);
            let _registry = lock(&core.registry);
            let _outbox = core.outbox.hold();
            let (sender, receiver) = mpsc::channel();
            let core = &core;
            scope.spawn(move || {
                sender.send((core.stats(), core.health(now()))).unwrap();
            });
            let (stats, health) = receiver.recv_timeout(PATIENCE).expect("it waits for a lock");
            assert_eq!(stats.transactions_done, 1);
            assert!(health.is_healthy());
        });
    }

    #[test]
    fn health_follows_every_change_of_the_ledgers_condition() {
        let core = core();
        let problems = || core.health(now()).problems().collect::<Vec<_>>();
        assert_eq!(problems(), []);
        let mut ended = Vec::new();
        core.failed(&LedgerError::unknown(LedgerFailure::Io), now(), &mut ended);
        assert_eq!(problems(), [HealthProblem::LedgerFailed, HealthProblem::StreamsPaused]);
        core.reopen(Arc::new(MemoryLedger::new()), now()).unwrap();
        assert_eq!(problems(), []);
        core.failed(&LedgerError::not_done(LedgerFailure::Full), now(), &mut ended);
        assert_eq!(problems(), [], "this call alone has failed");
        core.shut(LedgerFailure::Fenced, crate::agent::guard::Cut::Fenced, &mut ended);
        assert_eq!(problems(), [HealthProblem::Shut]);
        assert!(core.reopen(Arc::new(MemoryLedger::new()), now()).is_err());
        assert_eq!(problems(), [HealthProblem::Shut]);
        let stats = core.stats();
        assert_eq!((stats.reopenings, stats.reopenings_failed), (1, 1));
    }

    #[test]
    fn revocations_are_unwritten_until_they_are_written_or_replaced() {
        let core = core();
        let unwritten = || core.health(now()).revocations_unwritten;
        let session = |name| Revocation::Session(SessionId::new(name).unwrap());
        let mut numbers = Vec::new();
        for (name, then) in [("a", 1), ("a", 1), ("b", 2)] {
            let mut registry = lock(&core.registry);
            let (number, _) = registry.begin(&session(name));
            let before = unwritten();
            assert!(registry.unwritten(number).is_ok());
            assert_eq!(unwritten(), then, "{name}, from {before}");
            numbers.push(number);
        }
        lock(&core.registry).written(numbers[2]);
        assert_eq!(unwritten(), 1);
        core.settle(std::collections::HashSet::new(), now()).unwrap();
        assert_eq!(unwritten(), 0, "the next transaction has written the other");
    }
}
