//! The transitions: the allowed changes of records, and the order of their checks. Pure functions over one
//! transaction; each validates first and writes last.

use std::collections::BTreeSet;

use crate::agent::audit::{AuditEvent, AuditPosition, AuditRecord};
use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::ledger::rows::Records;
use crate::agent::ledger::{Changes, Snapshot};
use crate::clock::Timestamp;
use crate::id::NodeId;
use crate::key::{AgentPublicKey, DevicePublicKey};

mod attach;
mod bookkeeping;
mod closing;
mod list;
mod offer;
mod open;
mod redeem;
mod register;
mod renew;
mod revoke;
mod settle;

pub(crate) use attach::{Seen, Visit, Visited};
pub(crate) use bookkeeping::{credential_due, credential_handles, removal_due, ticket_due, ticket_handles};
pub(crate) use closing::{Closed, Names, Revocation};
pub(crate) use list::Found;
pub(crate) use offer::NewTicket;
pub(crate) use redeem::Redemption;
pub(crate) use renew::{Extension, NewTerms, Renewed};

/// The reason why a transition returns early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exit {
    /// An answer, not a failure: earlier writes of the transition are committed.
    Denied(Denial),
    /// A failure: the transaction fails, and nothing is written.
    Failed(LedgerFailure),
}

/// The result of a transition.
pub(crate) type Verdict<T> = Result<T, Exit>;

impl From<Denial> for Exit {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl From<LedgerFailure> for Exit {
    fn from(failure: LedgerFailure) -> Self {
        Self::Failed(failure)
    }
}

impl Exit {
    /// Separates what a transaction commits, including denials, from failures.
    pub(crate) fn split<T>(verdict: Verdict<T>) -> Result<Result<T, Denial>, LedgerFailure> {
        match verdict {
            Ok(value) => Ok(Ok(value)),
            Err(Self::Denied(denial)) => Ok(Err(denial)),
            Err(Self::Failed(failure)) => Err(failure),
        }
    }
}

/// The context's answer about a session and the device that shared it, from before the transaction.
///
/// It is passed on instead of returned, because reasons on record take precedence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ContextAnswer {
    Present,
    /// One of them is gone or unknown.
    Denied(Denial),
}

impl From<Result<(), Denial>> for ContextAnswer {
    fn from(checked: Result<(), Denial>) -> Self {
        checked.err().map_or(Self::Present, Self::Denied)
    }
}

impl ContextAnswer {
    /// Returns the context's denial, where its precedence is reached.
    fn check(&self) -> Result<(), Denial> {
        match self {
            Self::Present => Ok(()),
            Self::Denied(denial) => Err(denial.clone()),
        }
    }
}

/// The bounds of tickets and credentials. See [`Quotas`](crate::agent::Quotas).
#[derive(Debug, Clone, Copy)]
pub(crate) struct QuotaLimits {
    pub(crate) tickets_per_session: u32,
    pub(crate) credentials_per_session: u32,
    pub(crate) tickets_per_device: u32,
    pub(crate) credentials_per_device: u32,
    pub(crate) tickets_per_agent: u32,
    pub(crate) credentials_per_agent: u32,
}

/// The agent, node and time of a transition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment<'a> {
    pub(crate) agent: &'a AgentPublicKey,
    pub(crate) node: NodeId,
    /// The agent's time.
    pub(crate) now: Timestamp,
    /// The revocations in progress or unwritten.
    pub(crate) closed: &'a Closed,
}

/// The changes and events of a transition.
pub(crate) struct Done {
    pub(crate) changes: Changes,
    pub(crate) records: Vec<AuditRecord>,
    /// Whether audit records that the sink has were removed.
    pub(crate) forgot: bool,
}

/// A transition in progress.
pub(crate) struct Step<'a> {
    records: Records<'a>,
    moment: Moment<'a>,
    now: Timestamp,
    events: Vec<AuditEvent>,
    /// Devices with a credential that has ended in this transition.
    ended_of: BTreeSet<DevicePublicKey>,
}

impl<'a> Step<'a> {
    pub(crate) fn new(below: &'a dyn Snapshot, moment: Moment<'a>) -> Self {
        Self {
            records: Records::over(below),
            now: moment.now,
            moment,
            events: Vec::new(),
            ended_of: BTreeSet::new(),
        }
    }

    /// Returns the events so far.
    pub(crate) fn events(&self) -> &[AuditEvent] {
        &self.events
    }

    /// Numbers the events, from `first` on, and stores them, so that the sink gets them whatever happens
    /// after the commit. If anything is written, removes the records that the sink has `taken`.
    pub(crate) fn finish(
        mut self,
        first: AuditPosition,
        taken: &[AuditPosition],
    ) -> Result<Done, LedgerFailure> {
        self.forget_surplus()?;
        let Moment { agent, node, .. } = self.moment;
        let (opening, at) = (first.opening, self.now);
        let numbered = (first.sequence..).zip(core::mem::take(&mut self.events));
        let record = |(sequence, event)| AuditRecord { agent: *agent, node, opening, sequence, at, event };
        let records: Vec<AuditRecord> = numbered.map(record).collect();
        records.iter().for_each(|record| self.records.put_event(record));
        let forgot = self.records.wrote();
        if forgot {
            self.forget_delivered(taken);
        }
        Ok(Done { changes: self.records.into_changes()?, records, forgot })
    }

    /// Returns the audit records that the ledger keeps from earlier openings of this node.
    pub(crate) fn undelivered(&self) -> Result<Vec<AuditRecord>, LedgerFailure> {
        self.records.events(self.moment.node)
    }

    /// Removes only the records that the sink has.
    pub(crate) fn forget_delivered(&mut self, taken: &[AuditPosition]) {
        taken.iter().for_each(|position| self.records.remove_event(self.moment.node, *position));
    }
}

#[cfg(test)]
mod tests;
