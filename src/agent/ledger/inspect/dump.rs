//! What is on record, for a person.

use serde::Serialize;

use super::contents::Contents;
use super::finding::Finding;
use crate::agent::audit::AuditRecord;
use crate::agent::ledger::record::{CredentialRecord, CredentialState, Edition, TicketRecord, TicketState};
use crate::agent::ledger::{Ledger, LedgerError};
use crate::clock::Timestamp;
use crate::id::{CredentialId, NodeId, SessionId, TicketId};
use crate::key::{AgentPublicKey, DevicePublicKey, HolderPublicKey, IssuerPublicKey};
use crate::label::Label;
use crate::op::OpSet;
use crate::pair::RevocationReason;

/// A record of a ledger without anything that redeems or attaches: no credential's bytes, no ticket's key, no
/// nonce of a confirmation. `Serialize` writes an object with the kind as `row`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "row", rename_all = "snake_case")]
#[non_exhaustive]
pub enum DumpedRow {
    /// The ledger's header.
    Header {
        /// The number of the format.
        format: u64,
        /// The agent to which the records belong.
        agent: AgentPublicKey,
    },
    /// The counts of all records, and the last number that was given.
    Counters {
        /// The last number given to an epoch or a generation.
        sequence: u64,
        /// Open tickets.
        open_tickets: u32,
        /// Live credentials.
        live_credentials: u32,
        /// Tickets in any state.
        tickets: u32,
        /// Ended credentials that are still on record.
        ended_credentials: u32,
    },
    /// One gateway's progress.
    Node {
        /// The gateway.
        node: NodeId,
        /// The latest time that it has used.
        time: Timestamp,
        /// How often it has opened the ledger.
        openings: u64,
    },
    /// A registered issuer key.
    Issuer {
        /// The key.
        issuer: IssuerPublicKey,
        /// Its device.
        device: DevicePublicKey,
        /// The number of this registration.
        generation: u64,
    },
    /// A session with records.
    Session {
        /// The session.
        session: SessionId,
        /// Its present epoch.
        epoch: u64,
        /// Its open tickets.
        open_tickets: u32,
        /// Its live credentials.
        live_credentials: u32,
        /// Its ended tickets and credentials that are still on record.
        ended: u32,
    },
    /// A ticket.
    Ticket {
        /// The ticket.
        ticket: TicketId,
        /// `open`, `claimed`, `revoked` or `expired`.
        state: &'static str,
        /// Why it was revoked.
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<RevocationReason>,
        /// The credential that it gives.
        credential: CredentialId,
        /// The session.
        session: SessionId,
        /// The session's epoch at the offer.
        epoch: u64,
        /// The issuer.
        issuer: IssuerPublicKey,
        /// The issuer's registration.
        generation: u64,
        /// The device that offered it.
        device: DevicePublicKey,
        /// What its credential allows.
        ops: OpSet,
        /// The desktop's name for the phone.
        label: Label,
        /// When it was offered.
        offered_at: Timestamp,
        /// When it ends.
        expires_at: Timestamp,
        /// When its credential ends.
        credential_expires_at: Timestamp,
        /// Whether the desktop has to confirm the phone.
        confirm: bool,
    },
    /// A credential.
    Credential {
        /// The credential.
        credential: CredentialId,
        /// `pending`, `active`, `revoked` or `expired`.
        state: &'static str,
        /// Why it was revoked.
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<RevocationReason>,
        /// Until when the desktop can confirm it.
        #[serde(skip_serializing_if = "Option::is_none")]
        confirm_until: Option<Timestamp>,
        /// The ticket that gave it.
        ticket: TicketId,
        /// The phone.
        holder: HolderPublicKey,
        /// The session.
        session: SessionId,
        /// The session's epoch at the offer.
        epoch: u64,
        /// The issuer.
        issuer: IssuerPublicKey,
        /// The issuer's registration.
        generation: u64,
        /// The device that offered it.
        device: DevicePublicKey,
        /// The desktop's name for the phone.
        label: Label,
        /// The phone's name for itself.
        phone_label: Label,
        /// When it was redeemed.
        created_at: Timestamp,
        /// When its phone was last seen, at most a minute late; `None` if never.
        last_seen: Option<Timestamp>,
        /// Where it was redeemed.
        node: NodeId,
    },
    /// One edition of the credential of the row before it.
    Edition {
        /// The credential.
        credential: CredentialId,
        /// The edition, as [`Credential::edition`](crate::Credential::edition) has it.
        edition: String,
        /// Whether the phone uses it; otherwise it is a renewal that waits.
        in_use: bool,
        /// What it allows.
        ops: OpSet,
        /// When it ends.
        expires_at: Timestamp,
    },
    /// The counts of one device's records.
    Device {
        /// The device.
        device: DevicePublicKey,
        /// Its open tickets.
        open_tickets: u32,
        /// Its live credentials.
        live_credentials: u32,
        /// Its tickets in any state.
        tickets: u32,
        /// Its ended credentials that are still on record.
        ended_credentials: u32,
    },
    /// An audit record that the sink may not have yet.
    Event(AuditRecord),
}

/// Everything on record in a ledger, without secrets.
///
/// It shows which phones, sessions and devices there were: show it to the agent's operator only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Dump {
    /// The records, by kind. The rows of indexes are left out.
    pub rows: Vec<DumpedRow>,
    /// Rows that could not be read and are left out. [`Check`](super::Check) finds more.
    pub unreadable: Vec<Finding>,
}

impl Dump {
    /// Reads every record.
    ///
    /// Reads one consistent state, writes nothing, and waits for no transition. Costs time and memory in
    /// proportion to the size of the ledger.
    ///
    /// # Errors
    /// [`LedgerError`] if the ledger itself cannot be read, or has an unknown format.
    pub fn of(ledger: &dyn Ledger) -> Result<Self, LedgerError> {
        let contents = Contents::read(ledger)?;
        let mut rows = Vec::new();
        rows.extend(
            contents.header.map(|header| DumpedRow::Header { format: header.format, agent: header.agent }),
        );
        rows.extend(contents.counters.map(|counters| DumpedRow::Counters {
            sequence: counters.sequence,
            open_tickets: counters.of_all.open_tickets,
            live_credentials: counters.of_all.live_credentials,
            tickets: counters.of_all.tickets,
            ended_credentials: counters.of_all.ended_credentials,
        }));
        rows.extend(contents.nodes.into_iter().map(|(node, progress)| DumpedRow::Node {
            node,
            time: progress.mark,
            openings: progress.openings,
        }));
        rows.extend(contents.issuers.into_iter().map(|(issuer, record)| DumpedRow::Issuer {
            issuer,
            device: record.device,
            generation: record.generation,
        }));
        rows.extend(contents.sessions.into_iter().map(|(session, record)| DumpedRow::Session {
            session,
            epoch: record.epoch,
            open_tickets: record.open_tickets,
            live_credentials: record.live_credentials,
            ended: record.ended,
        }));
        rows.extend(contents.tickets.into_iter().map(|(id, record)| ticket(id, record)));
        for (id, record) in contents.credentials {
            let edition = |(at, edition): (usize, &Edition)| DumpedRow::Edition {
                credential: id,
                edition: edition.hashes.edition(),
                in_use: at == 0,
                ops: edition.ops,
                expires_at: edition.expires_at,
            };
            let editions: Vec<_> = record.editions().enumerate().map(edition).collect();
            rows.push(credential(id, record));
            rows.extend(editions);
        }
        rows.extend(contents.devices.into_iter().map(|(device, counts)| DumpedRow::Device {
            device,
            open_tickets: counts.open_tickets,
            live_credentials: counts.live_credentials,
            tickets: counts.tickets,
            ended_credentials: counts.ended_credentials,
        }));
        rows.extend(contents.events.into_iter().map(DumpedRow::Event));
        Ok(Self { rows, unreadable: contents.findings })
    }
}

fn ticket(ticket: TicketId, record: TicketRecord) -> DumpedRow {
    let (state, why) = match record.state {
        TicketState::Open(_) => ("open", None),
        TicketState::Claimed => ("claimed", None),
        TicketState::Revoked(why) => ("revoked", Some(why)),
        TicketState::Expired => ("expired", None),
    };
    DumpedRow::Ticket {
        ticket,
        state,
        why,
        credential: record.credential,
        session: record.session,
        epoch: record.epoch,
        issuer: record.issuer,
        generation: record.generation,
        device: record.device,
        ops: record.ops,
        label: record.label,
        offered_at: record.offered_at,
        expires_at: record.expires_at,
        credential_expires_at: record.credential_expires_at,
        confirm: record.require_confirm,
    }
}

fn credential(credential: CredentialId, record: CredentialRecord) -> DumpedRow {
    let (state, why, confirm_until) = match record.state {
        CredentialState::Pending { until, .. } => ("pending", None, Some(until)),
        CredentialState::Active => ("active", None, None),
        CredentialState::Revoked(why) => ("revoked", Some(why), None),
        CredentialState::Expired => ("expired", None, None),
    };
    DumpedRow::Credential {
        credential,
        state,
        why,
        confirm_until,
        ticket: record.ticket,
        holder: record.holder,
        session: record.session,
        epoch: record.epoch,
        issuer: record.issuer,
        generation: record.generation,
        device: record.device,
        label: record.label,
        phone_label: record.phone_label,
        created_at: record.created_at,
        last_seen: record.last_seen,
        node: record.node,
    }
}
