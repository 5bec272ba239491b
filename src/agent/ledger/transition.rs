//! The transitions: what may happen to records, and in which order it is judged. Pure functions
//! over one transaction; each validates first and writes last.

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

pub(crate) use attach::Visit;
pub(crate) use closing::{Closed, Names, Revocation};
pub(crate) use list::Found;
pub(crate) use offer::NewTicket;
pub(crate) use redeem::Redemption;
pub(crate) use renew::{Extension, NewTerms};

/// Why a transition ends before its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exit {
    /// An answer, not a failure: what was written before it is committed.
    Denied(Denial),
    /// The transaction fails, and nothing of it is written.
    Failed(LedgerFailure),
}

/// What a transition gives.
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
    /// Separates what a transaction commits, a denial included, from what it does not.
    pub(crate) fn split<T>(verdict: Verdict<T>) -> Result<Result<T, Denial>, LedgerFailure> {
        match verdict {
            Ok(value) => Ok(Ok(value)),
            Err(Self::Denied(denial)) => Ok(Err(denial)),
            Err(Self::Failed(failure)) => Err(failure),
        }
    }
}

/// What the agent's context said about a session and the device that shared it, before the transaction.
///
/// It is passed on instead of returned, because what is on record comes before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    Present,
    /// One of them is gone or unknown.
    Denied(Denial),
}

impl From<Result<(), Denial>> for Said {
    fn from(checked: Result<(), Denial>) -> Self {
        checked.err().map_or(Self::Present, Self::Denied)
    }
}

impl Said {
    /// Denies, where it is its turn.
    fn check(&self) -> Result<(), Denial> {
        match self {
            Self::Present => Ok(()),
            Self::Denied(denial) => Err(denial.clone()),
        }
    }
}

/// How many may be open or live at a time. See [`Quotas`](crate::agent::Quotas).
#[derive(Debug, Clone, Copy)]
pub(crate) struct QuotaLimits {
    pub(crate) tickets_per_session: u32,
    pub(crate) credentials_per_session: u32,
    pub(crate) tickets_per_device: u32,
    pub(crate) credentials_per_device: u32,
    pub(crate) tickets_per_agent: u32,
    pub(crate) credentials_per_agent: u32,
}

/// Who does it, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment<'a> {
    pub(crate) agent: &'a AgentPublicKey,
    pub(crate) node: NodeId,
    /// The agent's time.
    pub(crate) now: Timestamp,
    /// What is being taken back meanwhile.
    pub(crate) closed: &'a Closed,
}

/// What a transition changed, and what happened in it.
pub(crate) struct Done {
    pub(crate) changes: Changes,
    pub(crate) records: Vec<AuditRecord>,
    /// Whether what the sink has was removed.
    pub(crate) forgot: bool,
}

/// One transition in progress, at one moment.
pub(crate) struct Step<'a> {
    records: Records<'a>,
    moment: Moment<'a>,
    now: Timestamp,
    events: Vec<AuditEvent>,
    /// Devices of which a credential has ended here.
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

    /// What has happened so far.
    pub(crate) fn events(&self) -> &[AuditEvent] {
        &self.events
    }

    /// Numbers what happened, from `first` on, and keeps it, so that it will be told whatever comes after
    /// the commit. With anything that is written, what the sink has `taken` since goes.
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
            self.forget_told(taken);
        }
        Ok(Done { changes: self.records.into_changes()?, records, forgot })
    }

    /// What the ledger keeps for the sink from earlier openings of this node.
    pub(crate) fn untold(&self) -> Result<Vec<AuditRecord>, LedgerFailure> {
        self.records.events(self.moment.node)
    }

    /// Takes out what the sink has, and nothing else.
    pub(crate) fn forget_told(&mut self, taken: &[AuditPosition]) {
        taken.iter().for_each(|position| self.records.remove_event(self.moment.node, *position));
    }
}

#[cfg(test)]
mod tests;
