//! Lists tickets and credentials on record.

use super::Inner;
use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::ledger::record::{CredentialRecord, CredentialState, TicketRecord, TicketState};
use crate::agent::ledger::rows::Entry;
use crate::agent::ledger::transition::{Found, Step};
use crate::clock::{Now, Timestamp};
use crate::id::{CredentialId, TicketId};
use crate::key::AgentPublicKey;
use crate::limits::{MAX_LIST_READS, MAX_LISTED};
use crate::pair::{Cursor, List, Listing, ListingState, Page, StateKind, WaitingRenewal};
use crate::protocol::ticket::PairCode;

impl Inner {
    pub(super) fn list(&self, list: &List, now: Now) -> Result<Page, Denial> {
        let time = self.core.time(now);
        let read = self.core.read(now, |step| page(step, list, &self.agent, time));
        let mut page = read.inspect_err(|denial| self.core.counters().denied(denial))?;
        let registry = self.core.registry();
        for listing in &mut page.entries {
            let connections = registry.connections(&listing.credential);
            listing.connections = u32::try_from(connections).unwrap_or(u32::MAX);
            if let Some(seen) = registry.owed(&listing.credential).filter(|_| listing.holder.is_some()) {
                listing.last_seen = Some(seen.last_seen(listing.last_seen));
            }
        }
        Ok(page)
    }
}

fn page(step: &Step<'_>, list: &List, agent: &AgentPublicKey, now: Timestamp) -> Result<Page, LedgerFailure> {
    let limit = list.limit.map_or(MAX_LISTED, |limit| limit.get().min(MAX_LISTED));
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let session = list.session.as_ref();
    let mut after = list.after.map(|cursor| Entry::from_key(cursor.place())).transpose()?;
    if matches!(list.state, Some(StateKind::Pending | StateKind::Active)) {
        // Tickets are not listed in these states.
        after = after.max(Some(Entry::Ticket(TicketId::from_bytes([u8::MAX; 16]))));
    }
    let mut entries = Vec::new();
    let mut reads = MAX_LIST_READS;
    loop {
        let room = limit.saturating_sub(entries.len()).min(reads);
        if room == 0 {
            let more = !step.found(session, after, 1)?.is_empty();
            let next = after.filter(|_| more).map(|after| Cursor::new(after.bytes()));
            return Ok(Page { entries, next });
        }
        let found = step.found(session, after, room)?;
        reads = reads.saturating_sub(found.len());
        let last = found.len() < room;
        for found in found {
            after = Some(found.entry());
            entries.extend(listing(found, agent, now).filter(|listing| is_wanted(listing, list)));
        }
        if last {
            return Ok(Page { entries, next: None });
        }
    }
}

/// Whether the entry matches the filter. The session was selected by its index.
fn is_wanted(listing: &Listing, list: &List) -> bool {
    list.device.is_none_or(|device| device == listing.device)
        && list.state.is_none_or(|state| state == listing.state.kind())
}

/// Lists a record. A redeemed ticket is listed as its credential.
fn listing(found: Found, agent: &AgentPublicKey, now: Timestamp) -> Option<Listing> {
    match found {
        Found::Ticket(id, record) => of_ticket(id, *record, now),
        Found::Credential(id, record) => Some(of_credential(id, *record, agent, now)),
    }
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
