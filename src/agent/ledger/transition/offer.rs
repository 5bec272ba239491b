//! Offers: checks who may offer a ticket, and the quotas.

use super::{Names, QuotaLimits, Step, Verdict};
use crate::agent::audit::AuditEvent;
use crate::agent::denial::{Denial, LedgerFailure, Quota};
use crate::agent::ledger::record::{Counts, SessionRecord, TicketRecord, TicketState};
use crate::agent::ledger::rows::Handle;
use crate::clock::Timestamp;
use crate::credential::mint::VerifiedUnbound;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{DevicePublicKey, IssuerPublicKey};
use crate::label::Label;
use crate::limits::TICKETS_KEPT_PER_OPEN;
use crate::op::OpSet;
use crate::protocol::ticket::TicketPublicKey;

/// An offered ticket that is not on record yet. The ledger adds the epoch of its session and the generation
/// of its issuer.
pub(crate) struct NewTicket {
    pub(crate) key: TicketPublicKey,
    pub(crate) credential: CredentialId,
    pub(crate) session: SessionId,
    pub(crate) issuer: IssuerPublicKey,
    pub(crate) device: DevicePublicKey,
    pub(crate) offered_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    /// The end of the credential that it gives, by the agent's clock.
    pub(crate) credential_expires_at: Timestamp,
    pub(crate) ops: OpSet,
    pub(crate) label: Label,
    pub(crate) require_confirm: bool,
    /// The credential that its phone will get.
    pub(crate) unbound: VerifiedUnbound,
}

impl NewTicket {
    fn names<'a>(&'a self, id: &'a TicketId) -> Names<'a> {
        Names {
            ticket: Some(id),
            credential: Some(&self.credential),
            session: Some(&self.session),
            issuer: Some(&self.issuer),
            device: Some(&self.device),
            label: Some(&self.label),
        }
    }

    fn on_record(&self, epoch: u64, generation: u64) -> TicketRecord {
        TicketRecord {
            key: self.key,
            credential: self.credential,
            session: self.session.clone(),
            epoch,
            issuer: self.issuer,
            generation,
            device: self.device,
            offered_at: self.offered_at,
            expires_at: self.expires_at,
            credential_expires_at: self.credential_expires_at,
            ops: self.ops,
            label: self.label.clone(),
            require_confirm: self.require_confirm,
            state: TicketState::Open(self.unbound.clone()),
        }
    }
}

impl Step<'_> {
    /// Puts the ticket of an offer on record, in the current epoch of its session and under the current
    /// generation of its issuer.
    pub(crate) fn offer(&mut self, id: &TicketId, new: &NewTicket, quotas: &QuotaLimits) -> Verdict<()> {
        let issuer = self.issuer_of(&new.issuer, &new.device)?;
        self.moment.closed.interrupts(&new.names(id))?;
        if self.is_taken(id, &new.credential)? {
            return Err(Denial::OfferRepeated.into());
        }
        self.settle_session(&new.session)?;
        let session = self.records.session(&new.session)?;
        let counters = self.records.counters()?;
        let of_device = self.records.device(&new.device)?;
        check_quotas(session.as_ref(), &of_device, &counters.of_all, quotas)?;
        let session = match session {
            Some(session) => session,
            None => {
                let epoch = self.records.next_number()?;
                SessionRecord { epoch, open_tickets: 0, live_credentials: 0, ended: 0 }
            }
        };
        let record = new.on_record(session.epoch, issuer.generation);
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

    /// Whether the ticket or credential id is already in use. Desktops choose both, and revoking one of them
    /// must revoke everything that it names.
    fn is_taken(&mut self, ticket: &TicketId, credential: &CredentialId) -> Result<bool, LedgerFailure> {
        Ok(self.records.ticket(ticket)?.is_some()
            || self.records.credential(credential)?.is_some()
            || !self.records.of_handle(Handle::Ticket(*ticket))?.is_empty()
            || !self.records.of_handle(Handle::Credential(*credential))?.is_empty())
    }
}

/// Checks the quotas. An open ticket reserves the place of its credential, so that a redemption does not fail
/// because of a quota.
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
