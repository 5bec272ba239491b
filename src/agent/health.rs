//! Whether a gate is in order. Read from atomics, without a lock.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use core::time::Duration;

use serde::Serialize;

use crate::limits::{LEASE, MAX_AUDIT_WAITING};

/// The condition of a gate. Contains no id, key or name.
///
/// [`Gate::health`](crate::agent::Gate::health) returns it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// Whether the ledger can be used. If not, the gate refuses everything;
    /// [`Gate::failure`](crate::agent::Gate::failure) says why.
    pub ledger_usable: bool,
    /// Whether the gate is shut for good, so that [`Gate::reopen`](crate::agent::Gate::reopen) cannot succeed.
    pub shut: bool,
    /// How long ago the gate was settled, reopened or opened, whichever was last. Only a call that succeeded
    /// counts.
    pub settled_ago: Duration,
    /// Audit records that wait for the sink.
    pub audit_waiting: u64,
    /// Whether the sink did not keep the latest record that it was given.
    pub audit_refused: bool,
    /// Revocations that could not be written yet. What they name stays cut and closed, and the next
    /// transaction writes them.
    pub revocations_unwritten: u64,
    /// Whether the streams of all connections wait.
    pub streams_paused: bool,
    /// Credentials whose streams wait because the context has not known their session or device for too long.
    pub credentials_paused: u64,
}

impl Health {
    /// Whether there is no problem.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.problems().next().is_none()
    }

    /// Returns what is wrong, the most serious first.
    pub fn problems(&self) -> impl Iterator<Item = HealthProblem> + use<> {
        let many = u64::try_from(MAX_AUDIT_WAITING / 2).unwrap_or(u64::MAX);
        let found = [
            (self.shut, HealthProblem::Shut),
            (!self.ledger_usable && !self.shut, HealthProblem::LedgerFailed),
            (self.revocations_unwritten > 0, HealthProblem::RevocationsUnwritten),
            (self.streams_paused, HealthProblem::StreamsPaused),
            (self.settled_ago >= Duration::from_secs(LEASE), HealthProblem::NotSettled),
            (self.credentials_paused > 0, HealthProblem::ContextUnknown),
            // A record waits for a moment in any case.
            (self.audit_refused || self.audit_waiting >= many, HealthProblem::AuditWaiting),
        ];
        found.into_iter().filter(|(is_so, _)| *is_so).map(|(_, problem)| problem)
    }
}

/// Something that is wrong with a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HealthProblem {
    /// The gate is shut for good: open another one.
    Shut,
    /// The ledger has failed: call [`Gate::reopen`](crate::agent::Gate::reopen).
    LedgerFailed,
    /// Revocations could not be written. They hold meanwhile, but not after this process ends.
    RevocationsUnwritten,
    /// The streams of all connections wait: for a settling, for a read of the log that several nodes share, or for
    /// the next set of enrolled devices.
    StreamsPaused,
    /// Nobody has settled the gate for [`Gate::LEASE`](crate::agent::Gate::LEASE) seconds.
    NotSettled,
    /// The agent's context has not known some session or device for too long, and its streams wait.
    ContextUnknown,
    /// The audit sink does not keep records, or keeps them too slowly.
    AuditWaiting,
}

impl HealthProblem {
    /// Returns a stable name for programs and logs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Shut => "shut",
            Self::LedgerFailed => "ledger_failed",
            Self::RevocationsUnwritten => "revocations_unwritten",
            Self::StreamsPaused => "streams_paused",
            Self::NotSettled => "not_settled",
            Self::ContextUnknown => "context_unknown",
            Self::AuditWaiting => "audit_waiting",
        }
    }
}

impl fmt::Display for HealthProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shut => "the gate is shut for good; see why, and open another one",
            Self::LedgerFailed => "the ledger has failed; open it again",
            Self::RevocationsUnwritten => {
                "revocations could not be written; keep the process running until they are"
            }
            Self::StreamsPaused => {
                "all streams wait for a settling, for a read of the shared log or for a valid set of devices"
            }
            Self::NotSettled => "the gate was not settled in time; settle it about once a second",
            Self::ContextUnknown => {
                "streams wait because the agent cannot tell whether their sessions or devices exist"
            }
            Self::AuditWaiting => "audit records wait because the sink does not keep them; check the log",
        })
    }
}

/// The condition of the ledger, as it was last set under its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum LedgerCondition {
    /// Broken or not opened yet.
    Failed = 0,
    Usable = 1,
    Shut = 2,
}

/// The values behind [`Health`], each stored by whoever changes what it describes. Relaxed, because nothing is
/// decided by them.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    ledger: AtomicU8,
    audit_waiting: AtomicU64,
    audit_refused: AtomicBool,
    unwritten: AtomicU64,
    paused: AtomicU64,
}

impl Gauges {
    pub(crate) fn set_ledger(&self, condition: LedgerCondition) {
        self.ledger.store(condition as u8, Ordering::Relaxed);
    }

    pub(crate) fn set_audit_waiting(&self, records: usize) {
        self.audit_waiting.store(u64::try_from(records).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn set_audit_refused(&self, refused: bool) {
        self.audit_refused.store(refused, Ordering::Relaxed);
    }

    pub(crate) fn set_unwritten(&self, revocations: usize) {
        self.unwritten.store(u64::try_from(revocations).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn set_paused(&self, credentials: u64) {
        self.paused.store(credentials, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, settled_ago: Duration, streams_paused: bool) -> Health {
        let ledger = self.ledger.load(Ordering::Relaxed);
        Health {
            ledger_usable: ledger == LedgerCondition::Usable as u8,
            shut: ledger == LedgerCondition::Shut as u8,
            settled_ago,
            audit_waiting: self.audit_waiting.load(Ordering::Relaxed),
            audit_refused: self.audit_refused.load(Ordering::Relaxed),
            revocations_unwritten: self.unwritten.load(Ordering::Relaxed),
            streams_paused,
            credentials_paused: self.paused.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_problem_is_found_alone_and_has_its_own_code() {
        let gauges = Gauges::default();
        gauges.set_ledger(LedgerCondition::Usable);
        let healthy = gauges.read(Duration::from_millis(4_999), false);
        assert!(healthy.is_healthy());
        let lease = Duration::from_secs(LEASE);
        let with = [
            (Health { ledger_usable: false, ..healthy.clone() }, "ledger_failed"),
            (Health { ledger_usable: false, shut: true, ..healthy.clone() }, "shut"),
            (Health { settled_ago: lease, ..healthy.clone() }, "not_settled"),
            (Health { revocations_unwritten: 1, ..healthy.clone() }, "revocations_unwritten"),
            (Health { streams_paused: true, ..healthy.clone() }, "streams_paused"),
            (Health { credentials_paused: 1, ..healthy.clone() }, "context_unknown"),
            (Health { audit_refused: true, audit_waiting: 1, ..healthy.clone() }, "audit_waiting"),
            (Health { audit_waiting: 512, ..healthy.clone() }, "audit_waiting"),
        ];
        for (health, code) in with {
            let codes: Vec<_> = health.problems().map(HealthProblem::code).collect();
            assert_eq!((codes, health.is_healthy()), (vec![code], false));
        }
        assert!(Health { audit_waiting: 511, ..healthy }.is_healthy(), "records wait for a moment");
    }
}
