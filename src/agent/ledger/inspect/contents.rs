//! Every row of a ledger, read once, with what could not be read.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{Damage, Finding};
use crate::agent::audit::{AuditPosition, AuditRecord};
use crate::agent::denial::LedgerFailure;
use crate::agent::ledger::event::StoredEvent;
use crate::agent::ledger::record::{
    Counters, Counts, CredentialRecord, FORMAT, Header, IssuerRecord, Progress, SessionRecord, TicketRecord,
};
use crate::agent::ledger::rows::{COUNTERS, HEADER, PROGRESS, position};
use crate::agent::ledger::{Ledger, LedgerError, Snapshot, Table};
use crate::codec::{self, Wire};
use crate::id::{CredentialId, NodeId, SessionId, TicketId};
use crate::key::{DevicePublicKey, IssuerPublicKey};

/// How many rows are read at a time.
const PAGE: usize = 1_024;

#[derive(Default)]
pub(super) struct Contents {
    pub(super) rows: usize,
    pub(super) header: Option<Header>,
    pub(super) counters: Option<Counters>,
    pub(super) nodes: BTreeMap<NodeId, Progress>,
    pub(super) issuers: BTreeMap<IssuerPublicKey, IssuerRecord>,
    pub(super) sessions: BTreeMap<SessionId, SessionRecord>,
    pub(super) tickets: BTreeMap<TicketId, TicketRecord>,
    pub(super) credentials: BTreeMap<CredentialId, CredentialRecord>,
    pub(super) devices: BTreeMap<DevicePublicKey, Counts>,
    pub(super) events: Vec<AuditRecord>,
    /// The rows of every index, which have no value.
    pub(super) indexes: BTreeSet<(Table, Vec<u8>)>,
    pub(super) findings: Vec<Finding>,
}

impl Contents {
    pub(super) fn read(ledger: &dyn Ledger) -> Result<Self, LedgerError> {
        let mut contents = Self::default();
        // A backend may run it more than once.
        ledger.read(&mut |snapshot| Self::of(snapshot).map(|read| contents = read))?;
        Ok(contents)
    }

    fn of(snapshot: &dyn Snapshot) -> Result<Self, LedgerFailure> {
        let mut contents = Self::default();
        if let Some(header) = snapshot.get(Table::Meta, HEADER)? {
            // Every format keeps the encoding of this row; of another format, nothing else is read.
            contents.header = codec::decode(&header).ok();
            match contents.header {
                Some(Header { format, .. }) if format != FORMAT => {
                    return Err(LedgerFailure::UnknownFormat { version: format });
                }
                _ => {}
            }
        }
        for &table in Table::ALL {
            let mut after: Option<Vec<u8>> = None;
            loop {
                let page = snapshot.range(table, &[], after.as_deref(), PAGE)?;
                let full = page.len() >= PAGE;
                after = page.last().map(|(key, _)| key.clone());
                for (key, value) in page {
                    contents.rows = contents.rows.saturating_add(1);
                    if let Err(damage) = contents.take(table, &key, &value) {
                        contents.findings.push(Finding::new(table, &key, damage));
                    }
                }
                if !full || after.is_none() {
                    break;
                }
            }
        }
        if contents.rows > 0 && contents.header.is_none() {
            contents.findings.push(Finding::new(Table::Meta, HEADER, Damage::NoHeader));
        }
        Ok(contents)
    }

    fn take(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Damage> {
        match table {
            Table::Meta => self.take_meta(key, value)?,
            Table::Issuers => {
                let issuer = IssuerPublicKey::from_bytes(bytes(key)?).map_err(|_| Damage::WrongKey)?;
                self.issuers.insert(issuer, decoded(value)?);
            }
            Table::Sessions => drop(self.sessions.insert(session(key)?, decoded(value)?)),
            Table::Tickets => {
                drop(self.tickets.insert(TicketId::from_bytes(bytes(key)?), decoded(value)?));
            }
            Table::Credentials => {
                drop(self.credentials.insert(CredentialId::from_bytes(bytes(key)?), decoded(value)?));
            }
            Table::Devices => {
                let device = DevicePublicKey::from_bytes(bytes(key)?).map_err(|_| Damage::WrongKey)?;
                self.devices.insert(device, decoded(value)?);
            }
            Table::Events => self.events.push(event(key, value)?),
            Table::BySession | Table::ByHandle | Table::ByTime | Table::Ended | Table::EndedOf => {
                if !value.is_empty() {
                    return Err(Damage::Unreadable);
                }
                self.indexes.insert((table, key.to_vec()));
            }
        }
        Ok(())
    }

    fn take_meta(&mut self, key: &[u8], value: &[u8]) -> Result<(), Damage> {
        match (key, key.strip_prefix(PROGRESS)) {
            (HEADER, _) => drop(decoded::<Header>(value)?),
            (COUNTERS, _) => self.counters = Some(decoded(value)?),
            (_, Some(node)) => {
                let node = NodeId::new(u32::from_be_bytes(bytes(node)?));
                self.nodes.insert(node, decoded(value)?);
            }
            _ => return Err(Damage::UnknownRow),
        }
        Ok(())
    }
}

fn decoded<T: Wire>(value: &[u8]) -> Result<T, Damage> {
    codec::decode(value).map_err(|_| Damage::Unreadable)
}

fn bytes<const N: usize>(key: &[u8]) -> Result<[u8; N], Damage> {
    key.try_into().map_err(|_| Damage::WrongKey)
}

fn session(key: &[u8]) -> Result<SessionId, Damage> {
    let id = core::str::from_utf8(key).ok().and_then(|id| SessionId::new(id).ok());
    id.ok_or(Damage::WrongKey)
}

fn event(key: &[u8], value: &[u8]) -> Result<AuditRecord, Damage> {
    let (node, _) = key.split_first_chunk::<4>().ok_or(Damage::WrongKey)?;
    let AuditPosition { opening, sequence } = position(key).ok_or(Damage::WrongKey)?;
    let StoredEvent { agent, at, event } = decoded(value)?;
    let node = NodeId::new(u32::from_be_bytes(*node));
    Ok(AuditRecord { agent, node, opening, sequence, at, event })
}
