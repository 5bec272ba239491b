//! The transitions: what may happen to records, and in which order it is judged. Pure functions
//! over one transaction; each validates first and writes last.

use std::collections::BTreeSet;

use crate::agent::audit::{AuditEvent, AuditPosition, AuditRecord};
use crate::agent::denial::{Denial, LedgerFailure, Quota};
use crate::agent::ledger::record::{Counts, IssuerRecord, SessionRecord, TicketRecord};
use crate::agent::ledger::rows::{Handle, Records};
use crate::agent::ledger::{Changes, Snapshot};
use crate::clock::Timestamp;
use crate::id::{CredentialId, NodeId, TicketId};
use crate::key::{AgentPublicKey, DevicePublicKey, IssuerPublicKey};
use crate::limits::{ISSUERS_PER_DEVICE, TICKETS_KEPT_PER_OPEN};

mod attach;
mod bookkeeping;
mod closing;
mod list;
mod open;
mod redeem;
mod renew;
mod revoke;
mod settle;

pub(crate) use attach::Visit;
pub(crate) use closing::{Closed, Names, Revocation};
pub(crate) use list::Found;
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
pub(crate) type Said = Result<(), Denial>;

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

    // --- issuers -------------------------------------------------------------------------------

    /// Registers an issuer key for a device. The same device may do it again without effect.
    pub(crate) fn register_issuer(
        &mut self,
        issuer: &IssuerPublicKey,
        device: &DevicePublicKey,
    ) -> Verdict<()> {
        match self.records.issuer(issuer)? {
            Some(record) if record.device == *device => return Ok(()),
            Some(_) => return Err(Denial::IssuerOfAnotherDevice.into()),
            None => {}
        }
        let names = Names { issuer: Some(issuer), device: Some(device), ..Names::default() };
        self.moment.closed.interrupts(&names)?;
        let of_device =
            self.records.issuers()?.into_iter().filter(|(_, record)| record.device == *device).count();
        if u32::try_from(of_device).unwrap_or(u32::MAX) >= ISSUERS_PER_DEVICE {
            return Err(
                Denial::QuotaReached { quota: Quota::IssuersPerDevice, max: ISSUERS_PER_DEVICE }.into()
            );
        }
        let generation = self.records.next_number()?;
        self.records.put_issuer(issuer, &IssuerRecord { device: *device, generation });
        self.events.push(AuditEvent::IssuerRegistered { issuer: *issuer, device: *device });
        Ok(())
    }

    /// The issuer's record, if `device` registered it.
    pub(crate) fn issuer_of(
        &mut self,
        issuer: &IssuerPublicKey,
        device: &DevicePublicKey,
    ) -> Verdict<IssuerRecord> {
        match self.records.issuer(issuer)? {
            Some(record) if record.device == *device => Ok(record),
            Some(_) => Err(Denial::IssuerOfAnotherDevice.into()),
            None => Err(Denial::IssuerUnknown.into()),
        }
    }

    /// The issuers of the devices for which `wanted` is true.
    fn issuers_where(
        &self,
        wanted: impl Fn(&DevicePublicKey) -> bool,
    ) -> Result<Vec<IssuerPublicKey>, LedgerFailure> {
        let issuers = self.records.issuers()?;
        Ok(issuers.into_iter().filter(|(_, record)| wanted(&record.device)).map(|(key, _)| key).collect())
    }

    // --- offers --------------------------------------------------------------------------------

    /// Takes an offer. `record` comes with its session's epoch still unset.
    pub(crate) fn offer(
        &mut self,
        id: &TicketId,
        mut record: TicketRecord,
        quotas: &QuotaLimits,
    ) -> Verdict<()> {
        let issuer = self.issuer_of(&record.issuer, &record.device)?;
        record.generation = issuer.generation;
        self.moment.closed.interrupts(&Names::of_ticket(id, &record))?;
        if self.is_taken(id, &record.credential)? {
            return Err(Denial::OfferRepeated.into());
        }
        self.settle_session(&record.session)?;
        let session = self.records.session(&record.session)?;
        let counters = self.records.counters()?;
        let of_device = self.records.device(&record.device)?;
        check_quotas(session.as_ref(), &of_device, &counters.of_all, quotas)?;
        let session = match session {
            Some(session) => session,
            None => {
                let epoch = self.records.next_number()?;
                SessionRecord { epoch, open_tickets: 0, live_credentials: 0, ended: 0 }
            }
        };
        record.epoch = session.epoch;
        self.records.put_session(&record.session, Some(session));
        self.insert_ticket(id, &record)?;
        self.events.push(AuditEvent::TicketOffered {
            ticket: *id,
            credential: record.credential,
            session: record.session.clone(),
            device: record.device,
            ops: record.ops,
            label: record.label.clone(),
            expires_at: record.expires_at,
        });
        Ok(())
    }

    /// Whether a ticket's or its credential's id stands for something else. Desktops choose both, and what
    /// is revoked by one of them must be all that it names.
    fn is_taken(&mut self, ticket: &TicketId, credential: &CredentialId) -> Result<bool, LedgerFailure> {
        Ok(self.records.ticket(ticket)?.is_some()
            || self.records.credential(credential)?.is_some()
            || !self.records.of_handle(Handle::Ticket(*ticket))?.is_empty()
            || !self.records.of_handle(Handle::Credential(*credential))?.is_empty())
    }

    pub(crate) fn ticket(&self, id: &TicketId) -> Result<Option<TicketRecord>, LedgerFailure> {
        self.records.ticket(id)
    }
}

/// An open ticket reserves the place of its credential, so that a redemption never fails for want of
/// one.
fn check_quotas(
    session: Option<&SessionRecord>,
    device: &Counts,
    agent: &Counts,
    quotas: &QuotaLimits,
) -> Result<(), Denial> {
    let (tickets, credentials) =
        session.map_or((0, 0), |session| (session.open_tickets, session.live_credentials));
    let live = |counts: &Counts| counts.open_tickets.saturating_add(counts.live_credentials);
    let kept = |open: u32| open.saturating_mul(TICKETS_KEPT_PER_OPEN);
    let used = [
        (Quota::TicketsPerSession, tickets, quotas.tickets_per_session),
        (Quota::CredentialsPerSession, tickets.saturating_add(credentials), quotas.credentials_per_session),
        (Quota::TicketsPerDevice, device.open_tickets, quotas.tickets_per_device),
        (Quota::CredentialsPerDevice, live(device), quotas.credentials_per_device),
        (Quota::TicketsKeptPerDevice, device.tickets, kept(quotas.tickets_per_device)),
        (Quota::TicketsPerAgent, agent.open_tickets, quotas.tickets_per_agent),
        (Quota::CredentialsPerAgent, live(agent), quotas.credentials_per_agent),
        (Quota::TicketsKept, agent.tickets, kept(quotas.tickets_per_agent)),
    ];
    match used.into_iter().find(|(_, used, max)| used >= max) {
        Some((quota, _, max)) => Err(Denial::QuotaReached { quota, max }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
