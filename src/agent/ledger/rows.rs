//! Typed access to the records inside one transaction, and the indexes over them.

use std::collections::BTreeMap;

use crate::agent::audit::{AuditPosition, AuditRecord};
use crate::agent::denial::LedgerFailure;
use crate::agent::ledger::event::StoredEvent;
use crate::agent::ledger::kept::Kept;
use crate::agent::ledger::record::{
    Counters, Counts, CredentialRecord, Header, IssuerRecord, Progress, SessionRecord, TicketRecord,
};
use crate::agent::ledger::{Changes, Overlay, Row, Snapshot, Table};
use crate::clock::Timestamp;
use crate::codec::{self, Wire};
use crate::id::{CredentialId, NodeId, SessionId, TicketId};
use crate::key::{DevicePublicKey, IssuerPublicKey};
use crate::label::Label;

/// The record that an index entry points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entry {
    Ticket(TicketId),
    Credential(CredentialId),
}

impl Entry {
    pub(crate) fn bytes(self) -> [u8; 17] {
        let (kind, id) = match self {
            Self::Ticket(id) => (0, *id.as_bytes()),
            Self::Credential(id) => (1, *id.as_bytes()),
        };
        let mut bytes = [kind; 17];
        for (to, from) in bytes.iter_mut().skip(1).zip(id) {
            *to = from;
        }
        bytes
    }

    /// Returns the entry at the end of an index's key.
    pub(crate) fn from_key(key: &[u8]) -> Result<Self, LedgerFailure> {
        match key.last_chunk::<17>().ok_or(LedgerFailure::Corrupt)? {
            [0, id @ ..] => Ok(Self::Ticket(TicketId::from_bytes(*id))),
            [1, id @ ..] => Ok(Self::Credential(CredentialId::from_bytes(*id))),
            _ => Err(LedgerFailure::Corrupt),
        }
    }
}

/// Whether a record of a session is live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Group {
    /// Open tickets and live credentials.
    Live = 0,
    /// All others.
    Ended = 1,
}

/// A handle by which a live record is revoked, besides its own id and its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handle<'a> {
    /// The generation of the issuer that signed it.
    Issuer(u64),
    /// For a credential: the ticket that gave it.
    Ticket(TicketId),
    /// For a ticket: the credential that it would give.
    Credential(CredentialId),
    /// The device that offered it, and its name for the phone.
    Phone(&'a DevicePublicKey, &'a Label),
}

impl Handle<'_> {
    fn prefix(self) -> Vec<u8> {
        match self {
            Self::Issuer(generation) => [[0].as_slice(), &generation.to_be_bytes()].concat(),
            Self::Ticket(id) => [[1].as_slice(), id.as_bytes()].concat(),
            Self::Credential(id) => [[2].as_slice(), id.as_bytes()].concat(),
            Self::Phone(device, name) => {
                let name = name.as_str().as_bytes();
                // A label has at most 40 bytes, so its length takes one byte. With it, no name's keys are a
                // prefix of another's.
                let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
                [[3].as_slice(), device.as_bytes(), &[length], name].concat()
            }
        }
    }

    pub(super) fn key(self, entry: Entry) -> Vec<u8> {
        [self.prefix().as_slice(), &entry.bytes()].concat()
    }
}

/// A queue of records that wait for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue<'a> {
    /// Tickets and live credentials, until their end; ended tickets, until their removal.
    Ending,
    /// Ended credentials, until their removal.
    Ended,
    /// The same for one device.
    EndedOf(&'a DevicePublicKey),
}

impl Queue<'_> {
    pub(super) fn table(self) -> Table {
        match self {
            Self::Ending => Table::ByTime,
            Self::Ended => Table::Ended,
            Self::EndedOf(_) => Table::EndedOf,
        }
    }

    fn prefix(&self) -> &[u8] {
        match self {
            Self::Ending | Self::Ended => &[],
            Self::EndedOf(device) => device.as_bytes(),
        }
    }

    pub(super) fn key(&self, at: Timestamp, entry: Entry) -> Vec<u8> {
        [self.prefix(), &at.seconds().to_be_bytes(), &entry.bytes()].concat()
    }
}

pub(super) const HEADER: &[u8] = b"header";
pub(super) const COUNTERS: &[u8] = b"counters";
pub(super) const PROGRESS: &[u8] = b"progress";

/// Typed access to the records in one transition.
pub(crate) struct Records<'a> {
    rows: Overlay<'a>,
    wrote: bool,
    counted: Counted,
}

/// Counts that were changed. Every entry of a transition changes them, so they are encoded once, at its end.
#[derive(Default)]
struct Counted {
    all: Option<Counters>,
    devices: BTreeMap<DevicePublicKey, Counts>,
    sessions: BTreeMap<SessionId, Option<SessionRecord>>,
}

impl<'a> Records<'a> {
    pub(crate) fn over(below: &'a dyn Snapshot) -> Self {
        Self { rows: Overlay::new(below), wrote: false, counted: Counted::default() }
    }

    /// Whether anything was written or removed.
    pub(crate) fn wrote(&self) -> bool {
        self.wrote
    }

    /// Returns the changes.
    pub(crate) fn into_changes(mut self) -> Result<Changes, LedgerFailure> {
        self.write_counts();
        self.rows.into_changes()
    }

    fn write_counts(&mut self) {
        let Counted { all, devices, sessions } = core::mem::take(&mut self.counted);
        if let Some(counters) = all {
            self.write(Table::Meta, COUNTERS, &counters);
        }
        for (device, counts) in devices {
            // A device without records has no row.
            match counts == Counts::default() {
                true => self.remove(Table::Devices, device.as_bytes()),
                false => self.write(Table::Devices, device.as_bytes(), &counts),
            }
        }
        for (id, session) in sessions {
            match session {
                Some(record) => self.write(Table::Sessions, id.as_str().as_bytes(), &record),
                None => self.remove(Table::Sessions, id.as_str().as_bytes()),
            }
        }
    }

    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.wrote = true;
        self.rows.put(table, key, value);
    }

    fn remove(&mut self, table: Table, key: &[u8]) {
        self.wrote = true;
        self.rows.remove(table, key);
    }

    fn range(&self, table: Table, prefix: &[u8], limit: usize) -> Result<Vec<Row>, LedgerFailure> {
        self.rows.range(table, prefix, None, limit)
    }

    fn read<T: Wire>(&self, table: Table, key: &[u8]) -> Result<Option<T>, LedgerFailure> {
        self.rows.get(table, key)?.map(|bytes| decoded(&bytes)).transpose()
    }

    fn write<T: Wire>(&mut self, table: Table, key: &[u8], record: &T) {
        self.put(table, key, &codec::encode(record));
    }

    /// Returns the header. Every format keeps the encoding of this one row.
    pub(crate) fn header(&self) -> Result<Option<Header>, LedgerFailure> {
        self.read(Table::Meta, HEADER)
    }

    pub(crate) fn put_header(&mut self, header: &Header) {
        self.write(Table::Meta, HEADER, header);
    }

    pub(crate) fn progress(&self, node: NodeId) -> Result<Progress, LedgerFailure> {
        Ok(self.read(Table::Meta, &progress_key(node))?.unwrap_or(Progress::NONE))
    }

    pub(crate) fn put_progress(&mut self, node: NodeId, progress: &Progress) {
        self.write(Table::Meta, &progress_key(node), progress);
    }

    /// Returns the latest time that any node has used.
    pub(crate) fn latest_mark(&self) -> Result<Timestamp, LedgerFailure> {
        let mut latest = Timestamp::EPOCH;
        for (_, bytes) in self.range(Table::Meta, PROGRESS, usize::MAX)? {
            latest = latest.max(decoded::<Progress>(&bytes)?.mark);
        }
        Ok(latest)
    }

    /// Sets the time that every node has used.
    pub(crate) fn set_marks(&mut self, mark: Timestamp) -> Result<(), LedgerFailure> {
        for (key, bytes) in self.range(Table::Meta, PROGRESS, usize::MAX)? {
            let progress = Progress { mark, ..decoded(&bytes)? };
            self.write(Table::Meta, &key, &progress);
        }
        Ok(())
    }

    /// Whether the ledger has no rows.
    pub(crate) fn is_empty(&mut self) -> Result<bool, LedgerFailure> {
        self.write_counts();
        for &table in Table::ALL {
            if !self.range(table, &[], 1)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes every record. Used numbers stay used, and audit records are kept.
    pub(crate) fn clear(&mut self) -> Result<(), LedgerFailure> {
        self.write_counts();
        for table in Table::ALL.iter().copied().filter(|table| !matches!(table, Table::Meta | Table::Events))
        {
            for (key, _) in self.range(table, &[], usize::MAX)? {
                self.remove(table, &key);
            }
        }
        let sequence = self.counters()?.sequence;
        self.put_counters(Counters { sequence, ..Counters::default() });
        Ok(())
    }

    pub(crate) fn counters(&self) -> Result<Counters, LedgerFailure> {
        match self.counted.all {
            Some(counters) => Ok(counters),
            None => Ok(self.read(Table::Meta, COUNTERS)?.unwrap_or_default()),
        }
    }

    pub(crate) fn put_counters(&mut self, counters: Counters) {
        self.wrote = true;
        self.counted.all = Some(counters);
    }

    /// Returns the counts of one device.
    pub(crate) fn device(&self, device: &DevicePublicKey) -> Result<Counts, LedgerFailure> {
        match self.counted.devices.get(device) {
            Some(counts) => Ok(*counts),
            None => Ok(self.read(Table::Devices, device.as_bytes())?.unwrap_or_default()),
        }
    }

    pub(crate) fn put_device(&mut self, device: &DevicePublicKey, counts: Counts) {
        self.wrote = true;
        self.counted.devices.insert(*device, counts);
    }

    /// Returns a number that was not used before.
    pub(crate) fn next_number(&mut self) -> Result<u64, LedgerFailure> {
        let mut counters = self.counters()?;
        counters.sequence = counters.sequence.checked_add(1).ok_or(LedgerFailure::Corrupt)?;
        self.put_counters(counters);
        Ok(counters.sequence)
    }

    pub(crate) fn issuer(&self, key: &IssuerPublicKey) -> Result<Option<IssuerRecord>, LedgerFailure> {
        self.read(Table::Issuers, key.as_bytes())
    }

    pub(crate) fn put_issuer(&mut self, key: &IssuerPublicKey, record: &IssuerRecord) {
        self.write(Table::Issuers, key.as_bytes(), record);
    }

    pub(crate) fn remove_issuer(&mut self, key: &IssuerPublicKey) {
        self.remove(Table::Issuers, key.as_bytes());
    }

    pub(crate) fn issuers(&self) -> Result<Vec<(IssuerPublicKey, IssuerRecord)>, LedgerFailure> {
        let rows = self.range(Table::Issuers, &[], usize::MAX)?;
        let issuer = |(key, record): Row| {
            let key = <[u8; 32]>::try_from(key).map_err(|_| LedgerFailure::Corrupt)?;
            Ok((IssuerPublicKey::from_stored(key), decoded(&record)?))
        };
        rows.into_iter().map(issuer).collect()
    }

    pub(crate) fn session(&self, id: &SessionId) -> Result<Option<SessionRecord>, LedgerFailure> {
        match self.counted.sessions.get(id) {
            Some(session) => Ok(*session),
            None => self.read(Table::Sessions, id.as_str().as_bytes()),
        }
    }

    /// Puts a session on record, or removes it.
    pub(crate) fn put_session(&mut self, id: &SessionId, record: Option<SessionRecord>) {
        self.wrote = true;
        match self.counted.sessions.get_mut(id) {
            Some(session) => *session = record,
            None => drop(self.counted.sessions.insert(id.clone(), record)),
        }
    }

    pub(crate) fn ticket(&self, id: &TicketId) -> Result<Option<TicketRecord>, LedgerFailure> {
        self.read(Table::Tickets, id.as_bytes())
    }

    pub(crate) fn put_ticket(&mut self, id: &TicketId, record: &TicketRecord) {
        self.write(Table::Tickets, id.as_bytes(), record);
    }

    pub(crate) fn remove_ticket(&mut self, id: &TicketId) {
        self.remove(Table::Tickets, id.as_bytes());
    }

    pub(crate) fn credential(&self, id: &CredentialId) -> Result<Option<CredentialRecord>, LedgerFailure> {
        self.read(Table::Credentials, id.as_bytes())
    }

    /// Returns the same, decoded only if its row is not the one that `known` was decoded from.
    pub(crate) fn credential_as(
        &self,
        id: &CredentialId,
        known: Option<&Kept>,
    ) -> Result<Option<Kept>, LedgerFailure> {
        let Some(row) = self.rows.get(Table::Credentials, id.as_bytes())? else { return Ok(None) };
        match known.filter(|known| known.is_of(&row)) {
            Some(known) => Ok(Some(known.clone())),
            None => decoded(&row).map(|record| Some(Kept::new(row, record))),
        }
    }

    pub(crate) fn put_credential(&mut self, id: &CredentialId, record: &CredentialRecord) {
        self.write(Table::Credentials, id.as_bytes(), record);
    }

    pub(crate) fn remove_credential(&mut self, id: &CredentialId) {
        self.remove(Table::Credentials, id.as_bytes());
    }

    pub(crate) fn join_session(&mut self, session: &SessionId, group: Group, entry: Entry) {
        self.put(Table::BySession, &session_key(session, group, entry), &[]);
    }

    pub(crate) fn leave_session(&mut self, session: &SessionId, group: Group, entry: Entry) {
        self.remove(Table::BySession, &session_key(session, group, entry));
    }

    pub(crate) fn add_handles<'h>(&mut self, handles: impl IntoIterator<Item = Handle<'h>>, entry: Entry) {
        for handle in handles {
            self.put(Table::ByHandle, &handle.key(entry), &[]);
        }
    }

    pub(crate) fn remove_handles<'h>(&mut self, handles: impl IntoIterator<Item = Handle<'h>>, entry: Entry) {
        for handle in handles {
            self.remove(Table::ByHandle, &handle.key(entry));
        }
    }

    /// Returns the live entries with this handle.
    pub(crate) fn of_handle(&self, handle: Handle<'_>) -> Result<Vec<Entry>, LedgerFailure> {
        self.entries(Table::ByHandle, &handle.prefix(), usize::MAX)
    }

    /// Returns the live entries of a session, at most as many as the quotas allow, however many have ended.
    pub(crate) fn live_of_session(&self, session: &SessionId) -> Result<Vec<Entry>, LedgerFailure> {
        let prefix = [session_prefix(session), vec![Group::Live as u8]].concat();
        self.entries(Table::BySession, &prefix, usize::MAX)
    }

    /// Returns a session's entries in order, after one of them, at most `limit`.
    pub(crate) fn of_session(
        &self,
        session: &SessionId,
        after: Option<Entry>,
        limit: usize,
    ) -> Result<Vec<Entry>, LedgerFailure> {
        let mut entries = Vec::new();
        for group in [Group::Live, Group::Ended] {
            let prefix = [session_prefix(session), vec![group as u8]].concat();
            let after = after.map(|after| session_key(session, group, after));
            let rows = self.rows.range(Table::BySession, &prefix, after.as_deref(), limit)?;
            for (key, _) in &rows {
                entries.push(Entry::from_key(key)?);
            }
        }
        entries.sort_unstable();
        entries.truncate(limit);
        Ok(entries)
    }

    /// Returns the tickets after an id, at most `limit`.
    pub(crate) fn tickets_after(
        &self,
        after: Option<TicketId>,
        limit: usize,
    ) -> Result<Vec<(TicketId, TicketRecord)>, LedgerFailure> {
        let after = after.as_ref().map(|id| id.as_bytes().as_slice());
        let rows = self.rows.range(Table::Tickets, &[], after, limit)?;
        rows.iter().map(|(key, value)| Ok((TicketId::from_bytes(id_of(key)?), decoded(value)?))).collect()
    }

    /// Returns the credentials after an id, at most `limit`.
    pub(crate) fn credentials_after(
        &self,
        after: Option<CredentialId>,
        limit: usize,
    ) -> Result<Vec<(CredentialId, CredentialRecord)>, LedgerFailure> {
        let after = after.as_ref().map(|id| id.as_bytes().as_slice());
        let rows = self.rows.range(Table::Credentials, &[], after, limit)?;
        rows.iter().map(|(key, value)| Ok((CredentialId::from_bytes(id_of(key)?), decoded(value)?))).collect()
    }

    fn entries(&self, table: Table, prefix: &[u8], limit: usize) -> Result<Vec<Entry>, LedgerFailure> {
        self.range(table, prefix, limit)?.iter().map(|(key, _)| Entry::from_key(key)).collect()
    }

    /// Stores an audit record until the sink has it.
    pub(crate) fn put_event(&mut self, record: &AuditRecord) {
        let stored = StoredEvent { agent: record.agent, at: record.at, event: record.event.clone() };
        self.write(Table::Events, &position_key(record.node, record.position()), &stored);
    }

    pub(crate) fn remove_event(&mut self, node: NodeId, position: AuditPosition) {
        self.remove(Table::Events, &position_key(node, position));
    }

    /// Returns the stored audit records of a node, in order.
    pub(crate) fn events(&self, node: NodeId) -> Result<Vec<AuditRecord>, LedgerFailure> {
        let rows = self.range(Table::Events, &node.number().to_be_bytes(), usize::MAX)?;
        let record = |(key, stored): &Row| {
            let AuditPosition { opening, sequence } = position(key).ok_or(LedgerFailure::Corrupt)?;
            let StoredEvent { agent, at, event } = decoded(stored)?;
            Ok(AuditRecord { agent, node, opening, sequence, at, event })
        };
        rows.iter().map(record).collect()
    }

    pub(crate) fn schedule(&mut self, queue: Queue<'_>, at: Timestamp, entry: Entry) {
        self.put(queue.table(), &queue.key(at, entry), &[]);
    }

    pub(crate) fn unschedule(&mut self, queue: Queue<'_>, at: Timestamp, entry: Entry) {
        self.remove(queue.table(), &queue.key(at, entry));
    }

    /// Returns the earliest entries of a queue, at most `limit`.
    pub(crate) fn earliest(
        &self,
        queue: Queue<'_>,
        limit: usize,
    ) -> Result<Vec<(Timestamp, Entry)>, LedgerFailure> {
        let entry = |(key, _): &Row| {
            let time = key.get(queue.prefix().len()..).and_then(<[u8]>::split_first_chunk::<8>);
            let (at, _) = time.ok_or(LedgerFailure::Corrupt)?;
            let at = Timestamp::from_seconds(u64::from_be_bytes(*at)).map_err(|_| LedgerFailure::Corrupt)?;
            Ok((at, Entry::from_key(key)?))
        };
        self.range(queue.table(), queue.prefix(), limit)?.iter().map(entry).collect()
    }
}

pub(super) fn decoded<T: Wire>(bytes: &[u8]) -> Result<T, LedgerFailure> {
    codec::decode(bytes).map_err(|_| LedgerFailure::Corrupt)
}

pub(super) fn id_of(key: &[u8]) -> Result<[u8; 16], LedgerFailure> {
    key.try_into().map_err(|_| LedgerFailure::Corrupt)
}

pub(super) fn progress_key(node: NodeId) -> Vec<u8> {
    [PROGRESS, &node.number().to_be_bytes()].concat()
}

/// A session id has no zero byte, so no id's keys are a prefix of another's.
fn session_prefix(session: &SessionId) -> Vec<u8> {
    [session.as_str().as_bytes(), &[0]].concat()
}

pub(super) fn session_key(session: &SessionId, group: Group, entry: Entry) -> Vec<u8> {
    [session_prefix(session).as_slice(), &[group as u8], &entry.bytes()].concat()
}

fn position_key(node: NodeId, position: AuditPosition) -> Vec<u8> {
    let node = node.number().to_be_bytes();
    [node.as_slice(), &position.opening.to_be_bytes(), &position.sequence.to_be_bytes()].concat()
}

pub(super) fn position(key: &[u8]) -> Option<AuditPosition> {
    let (_, key) = key.split_first_chunk::<4>()?;
    let (opening, sequence) = key.split_first_chunk::<8>()?;
    let sequence = sequence.try_into().ok()?;
    Some(AuditPosition { opening: u64::from_be_bytes(*opening), sequence: u64::from_be_bytes(sequence) })
}
