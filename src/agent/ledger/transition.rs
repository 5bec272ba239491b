//! The transitions: what may happen to records, and in which order it is judged. Pure functions
//! over one transaction; each validates first and writes last.

use crate::agent::audit::{AuditEvent, AuditPosition, AuditRecord};
use crate::agent::denial::{Denial, LedgerFailure, Quota};
use crate::agent::ledger::Transaction;
use crate::agent::ledger::record::{Counters, IssuerRecord, SessionRecord, TicketRecord};
use crate::agent::ledger::rows::{Entry, Handle, Records};
use crate::clock::Timestamp;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{DevicePublicKey, IssuerPublicKey};
use crate::limits::{ISSUERS_PER_DEVICE, TICKETS_KEPT_PER_OPEN};

mod attach;
mod bookkeeping;
mod open;
mod redeem;
mod renew;
mod revoke;
mod settle;

pub(crate) use attach::Visit;
pub(crate) use redeem::Redemption;
pub(crate) use renew::NewTerms;

/// A verdict inside a transaction that went through: a denial is an answer, not a failure.
pub(crate) type Verdict<T> = Result<Result<T, Denial>, LedgerFailure>;

/// How many may be open or live at a time. See [`Quotas`](crate::Quotas).
#[derive(Debug, Clone, Copy)]
pub(crate) struct QuotaLimits {
    pub(crate) tickets_per_session: u32,
    pub(crate) credentials_per_session: u32,
    pub(crate) tickets_per_agent: u32,
    pub(crate) credentials_per_agent: u32,
}

/// What happened in a transaction, to be told once it is durable.
pub(crate) struct Told {
    pub(crate) records: Vec<AuditRecord>,
    /// Whether anything was written.
    pub(crate) wrote: bool,
}

/// One transaction in progress, at one moment.
pub(crate) struct Step<'a> {
    records: Records<'a>,
    now: Timestamp,
    events: Vec<AuditEvent>,
}

impl<'a> Step<'a> {
    pub(crate) fn new(transaction: &'a mut dyn Transaction, now: Timestamp) -> Self {
        Self { records: Records::new(transaction), now, events: Vec::new() }
    }

    /// Numbers what happened, from `first` on, and keeps it, so that it will be told whatever comes after
    /// the commit. With anything that is written, what the sink has `taken` since goes.
    pub(crate) fn tell(
        mut self,
        first: AuditPosition,
        taken: &[AuditPosition],
    ) -> Result<Told, LedgerFailure> {
        let (opening, at) = (first.opening, self.now);
        let numbered = (first.sequence..).zip(core::mem::take(&mut self.events));
        let records: Vec<AuditRecord> =
            numbered.map(|(sequence, event)| AuditRecord { opening, sequence, at, event }).collect();
        records.iter().try_for_each(|record| self.records.put_event(record))?;
        let wrote = self.records.wrote();
        if wrote {
            self.forget_told(taken)?;
        }
        Ok(Told { records, wrote })
    }

    /// What the ledger keeps for the sink from earlier openings.
    pub(crate) fn untold(&mut self) -> Result<Vec<AuditRecord>, LedgerFailure> {
        self.records.events()
    }

    /// Takes out what the sink has, and nothing else.
    pub(crate) fn forget_told(&mut self, taken: &[AuditPosition]) -> Result<(), LedgerFailure> {
        taken.iter().try_for_each(|position| self.records.remove_event(*position))
    }

    // --- issuers -------------------------------------------------------------------------------

    /// Registers an issuer key for a device. The same device may do it again without effect.
    pub(crate) fn register_issuer(
        &mut self,
        issuer: &IssuerPublicKey,
        device: &DevicePublicKey,
    ) -> Verdict<()> {
        match self.records.issuer(issuer)? {
            Some(record) if record.device == *device => return Ok(Ok(())),
            Some(_) => return Ok(Err(Denial::IssuerOfAnotherDevice)),
            None => {}
        }
        let of_device =
            self.records.issuers()?.into_iter().filter(|(_, record)| record.device == *device).count();
        if u32::try_from(of_device).unwrap_or(u32::MAX) >= ISSUERS_PER_DEVICE {
            return Ok(Err(Denial::QuotaReached { quota: Quota::IssuersPerDevice, max: ISSUERS_PER_DEVICE }));
        }
        let generation = self.records.next_number()?;
        self.records.put_issuer(issuer, &IssuerRecord { device: *device, generation })?;
        self.events.push(AuditEvent::IssuerRegistered { issuer: *issuer, device: *device });
        Ok(Ok(()))
    }

    /// The issuer's record, if `device` registered it.
    pub(crate) fn issuer_of(
        &mut self,
        issuer: &IssuerPublicKey,
        device: &DevicePublicKey,
    ) -> Verdict<IssuerRecord> {
        Ok(match self.records.issuer(issuer)? {
            Some(record) if record.device == *device => Ok(record),
            Some(_) => Err(Denial::IssuerOfAnotherDevice),
            None => Err(Denial::IssuerUnknown),
        })
    }

    pub(crate) fn issuers_of(
        &mut self,
        device: &DevicePublicKey,
    ) -> Result<Vec<IssuerPublicKey>, LedgerFailure> {
        let issuers = self.records.issuers()?;
        Ok(issuers.into_iter().filter(|(_, record)| record.device == *device).map(|(key, _)| key).collect())
    }

    /// The issuers whose device is not in `enrolled`.
    pub(crate) fn issuers_outside(
        &mut self,
        enrolled: &[DevicePublicKey],
    ) -> Result<Vec<IssuerPublicKey>, LedgerFailure> {
        let issuers = self.records.issuers()?;
        Ok(issuers
            .into_iter()
            .filter(|(_, record)| !enrolled.contains(&record.device))
            .map(|(key, _)| key)
            .collect())
    }

    // --- offers --------------------------------------------------------------------------------

    /// Takes an offer. `record` comes with its session's epoch still unset.
    pub(crate) fn offer(
        &mut self,
        id: &TicketId,
        mut record: TicketRecord,
        quotas: &QuotaLimits,
    ) -> Verdict<()> {
        match self.issuer_of(&record.issuer, &record.device)? {
            Ok(issuer) => record.generation = issuer.generation,
            Err(denial) => return Ok(Err(denial)),
        }
        if self.is_taken(id, &record.credential)? {
            return Ok(Err(Denial::OfferRepeated));
        }
        self.settle_session(&record.session)?;
        let session = self.records.session(&record.session)?;
        let counters = self.records.counters()?;
        if let Err(denial) = check_quotas(session.as_ref(), &counters, quotas) {
            return Ok(Err(denial));
        }
        let session = match session {
            Some(session) => session,
            None => {
                SessionRecord { epoch: self.records.next_number()?, open_tickets: 0, live_credentials: 0 }
            }
        };
        record.epoch = session.epoch;
        self.records.put_session(&record.session, &session)?;
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
        Ok(Ok(()))
    }

    /// Whether a ticket's or its credential's id stands for something else. Desktops choose both, and what
    /// is revoked by one of them must be all that it names.
    fn is_taken(&mut self, ticket: &TicketId, credential: &CredentialId) -> Result<bool, LedgerFailure> {
        Ok(self.records.ticket(ticket)?.is_some()
            || self.records.credential(credential)?.is_some()
            || !self.records.of_handle(Handle::Ticket(*ticket))?.is_empty()
            || !self.records.of_handle(Handle::Credential(*credential))?.is_empty())
    }

    pub(crate) fn ticket(&mut self, id: &TicketId) -> Result<Option<TicketRecord>, LedgerFailure> {
        self.records.ticket(id)
    }

    // --- listing -------------------------------------------------------------------------------

    /// Everything of one session, or of all.
    pub(crate) fn entries(&mut self, session: Option<&SessionId>) -> Result<Vec<Entry>, LedgerFailure> {
        match session {
            Some(session) => self.records.of_session(session, usize::MAX),
            None => self.records.all(),
        }
    }
}

/// An open ticket reserves the place of its credential, so that a redemption never fails for want of
/// one.
fn check_quotas(
    session: Option<&SessionRecord>,
    agent: &Counters,
    quotas: &QuotaLimits,
) -> Result<(), Denial> {
    let (tickets, credentials) =
        session.map_or((0, 0), |session| (session.open_tickets, session.live_credentials));
    let used = [
        (Quota::TicketsPerSession, tickets, quotas.tickets_per_session),
        (Quota::CredentialsPerSession, tickets.saturating_add(credentials), quotas.credentials_per_session),
        (Quota::TicketsPerAgent, agent.open_tickets, quotas.tickets_per_agent),
        (
            Quota::CredentialsPerAgent,
            agent.open_tickets.saturating_add(agent.live_credentials),
            quotas.credentials_per_agent,
        ),
        (Quota::TicketsKept, agent.tickets, quotas.tickets_per_agent.saturating_mul(TICKETS_KEPT_PER_OPEN)),
    ];
    match used.into_iter().find(|(_, used, max)| used >= max) {
        Some((quota, _, max)) => Err(Denial::QuotaReached { quota, max }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
