//! What there is: every ticket and credential, for the people who may take them back.

use serde::Serialize;

use super::Gate;
use crate::agent::audit::RevocationReason;
use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::ledger::record::{CredentialRecord, CredentialState, TicketRecord, TicketState};
use crate::agent::ledger::rows::Entry;
use crate::agent::ledger::transition::Step;
use crate::clock::{Now, Timestamp};
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{AgentPublicKey, DevicePublicKey, HolderPublicKey};
use crate::label::Label;
use crate::op::OpSet;
use crate::protocol::ticket::PairCode;

/// One ticket or credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// The ticket.
    pub ticket: TicketId,
    /// The credential that it gives or gave.
    pub credential: CredentialId,
    /// The session.
    pub session: SessionId,
    /// The device that offered it.
    pub device: DevicePublicKey,
    /// The desktop's name for it.
    pub label: Label,
    /// The phone, once it was redeemed.
    pub holder: Option<HolderPublicKey>,
    /// The phone's name for itself.
    pub phone_label: Option<Label>,
    /// What it allows.
    pub ops: OpSet,
    /// When it was offered, or redeemed.
    pub created_at: Timestamp,
    /// When the phone was last there, at most a minute stale; none before its first transport frame.
    pub last_seen: Option<Timestamp>,
    /// When the ticket, or the credential, ends.
    pub expires_at: Timestamp,
    /// How many connections there are now.
    pub connections: u32,
    /// A renewed credential that the phone has not used yet.
    pub renewal: Option<WaitingRenewal>,
    /// What has become of it.
    pub state: ListingState,
}

/// Terms that hold once the phone uses its renewed credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WaitingRenewal {
    /// What it will allow.
    pub ops: OpSet,
    /// When it will end.
    pub expires_at: Timestamp,
}

/// What has become of a ticket or credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ListingState {
    /// The ticket waits for a phone.
    Open,
    /// A phone waits for [`Gate::confirm`]; both screens show these digits.
    Pending {
        /// The digits.
        code: PairCode,
    },
    /// The credential is live.
    Active,
    /// It was revoked.
    Revoked {
        /// Why.
        why: RevocationReason,
    },
    /// It ran out.
    Expired,
}

impl Gate {
    /// The tickets and credentials of one session, or of all, in no particular order. A redeemed
    /// ticket is listed as its credential. Costs one read for each.
    ///
    /// # Errors
    /// [`Denial::Ledger`].
    pub fn list(&self, session: Option<&SessionId>, now: Now) -> Result<Vec<Listing>, Denial> {
        let inner = &self.inner;
        let time = inner.core.time(now);
        let mut listings = inner.core.read(now, |step| {
            let entries = step.entries(session)?;
            let listings = entries.into_iter().map(|entry| listing(step, entry, &inner.agent, time));
            Ok(listings.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect::<Vec<_>>())
        })?;
        let registry = inner.core.registry();
        for listing in &mut listings {
            let connections = registry.connections(&listing.credential);
            listing.connections = u32::try_from(connections).unwrap_or(u32::MAX);
        }
        Ok(listings)
    }
}

fn listing(
    step: &Step<'_>,
    entry: Entry,
    agent: &AgentPublicKey,
    now: Timestamp,
) -> Result<Option<Listing>, LedgerFailure> {
    Ok(match entry {
        Entry::Ticket(id) => step.ticket(&id)?.and_then(|record| of_ticket(id, record, now)),
        Entry::Credential(id) => step.credential(&id)?.map(|record| of_credential(id, record, agent, now)),
    })
}

fn of_ticket(id: TicketId, record: TicketRecord, now: Timestamp) -> Option<Listing> {
    let state = match record.state {
        TicketState::Open(_) if now >= record.expires_at => ListingState::Expired,
        TicketState::Open(_) => ListingState::Open,
        TicketState::Revoked(why) => ListingState::Revoked { why },
        TicketState::Expired => ListingState::Expired,
        TicketState::Claimed => return None,
    };
    Some(Listing {
        ticket: id,
        credential: record.credential,
        session: record.session,
        device: record.device,
        label: record.label,
        holder: None,
        phone_label: None,
        ops: record.ops,
        created_at: record.offered_at,
        last_seen: None,
        expires_at: record.expires_at,
        connections: 0,
        renewal: None,
        state,
    })
}

fn of_credential(
    id: CredentialId,
    record: CredentialRecord,
    agent: &AgentPublicKey,
    now: Timestamp,
) -> Listing {
    let state = match record.state {
        CredentialState::Revoked(why) => ListingState::Revoked { why },
        CredentialState::Expired => ListingState::Expired,
        _ if now >= record.ends_at() => ListingState::Expired,
        CredentialState::Pending { until, .. } if now >= until => ListingState::Expired,
        CredentialState::Pending { nonce, .. } => {
            ListingState::Pending { code: PairCode::new(&record.ticket, agent, &record.holder, &nonce) }
        }
        CredentialState::Active => ListingState::Active,
    };
    let renewal = record
        .renewals
        .last()
        .map(|renewal| WaitingRenewal { ops: renewal.ops, expires_at: renewal.expires_at });
    Listing {
        ticket: record.ticket,
        credential: id,
        session: record.session,
        device: record.device,
        label: record.label,
        holder: Some(record.holder),
        phone_label: Some(record.phone_label),
        ops: record.edition.ops,
        created_at: record.created_at,
        last_seen: record.last_seen,
        expires_at: record.edition.expires_at,
        connections: 0,
        renewal,
        state,
    }
}
