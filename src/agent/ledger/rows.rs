//! Typed access to the records inside one transaction, and the indexes over them.

use crate::agent::audit::{AuditPosition, AuditRecord};
use crate::agent::denial::LedgerFailure;
use crate::agent::ledger::event::StoredEvent;
use crate::agent::ledger::record::{
    Counters, CredentialRecord, Header, IssuerRecord, Progress, SessionRecord, TicketRecord,
};
use crate::agent::ledger::{Table, Transaction};
use crate::clock::Timestamp;
use crate::codec::{self, Wire};
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::IssuerPublicKey;

/// What an index entry points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entry {
    Ticket(TicketId),
    Credential(CredentialId),
}

impl Entry {
    fn bytes(self) -> [u8; 17] {
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

    fn from_key(key: &[u8]) -> Result<Self, LedgerFailure> {
        match key.last_chunk::<17>().ok_or(LedgerFailure::Corrupt)? {
            [0, id @ ..] => Ok(Self::Ticket(TicketId::from_bytes(*id))),
            [1, id @ ..] => Ok(Self::Credential(CredentialId::from_bytes(*id))),
            _ => Err(LedgerFailure::Corrupt),
        }
    }
}

/// Whether something of a session can still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Group {
    /// Open tickets and live credentials.
    Live = 0,
    /// The rest.
    Ended = 1,
}

/// By what something that can still be used is taken back, beside its own id and its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handle {
    /// The generation of the issuer that signed it.
    Issuer(u64),
    /// Of a credential: the ticket that gave it.
    Ticket(TicketId),
    /// Of a ticket: the credential that it would give.
    Credential(CredentialId),
}

impl Handle {
    fn prefix(self) -> Vec<u8> {
        match self {
            Self::Issuer(generation) => [[0].as_slice(), &generation.to_be_bytes()].concat(),
            Self::Ticket(id) => [[1].as_slice(), id.as_bytes()].concat(),
            Self::Credential(id) => [[2].as_slice(), id.as_bytes()].concat(),
        }
    }

    fn key(self, entry: Entry) -> Vec<u8> {
        [self.prefix().as_slice(), &entry.bytes()].concat()
    }
}

/// What waits for its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue {
    /// Tickets and live credentials, for their end; tickets that have ended, for their removal.
    Ending,
    /// Ended credentials, for their removal.
    Ended,
}

impl Queue {
    fn table(self) -> Table {
        match self {
            Self::Ending => Table::ByTime,
            Self::Ended => Table::Ended,
        }
    }
}

const HEADER: &[u8] = b"header";
const COUNTERS: &[u8] = b"counters";
const PROGRESS: &[u8] = b"progress";

/// Typed access to one transaction.
pub(crate) struct Records<'a> {
    transaction: &'a mut dyn Transaction,
    wrote: bool,
}

impl<'a> Records<'a> {
    pub(crate) fn new(transaction: &'a mut dyn Transaction) -> Self {
        Self { transaction, wrote: false }
    }

    /// Whether anything was written or removed.
    pub(crate) fn wrote(&self) -> bool {
        self.wrote
    }

    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), LedgerFailure> {
        self.wrote = true;
        self.transaction.put(table, key, value)
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), LedgerFailure> {
        self.wrote = true;
        self.transaction.remove(table, key)
    }

    fn keys(&mut self, table: Table, prefix: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, LedgerFailure> {
        self.transaction.keys(table, prefix, limit)
    }

    fn read<T: Wire>(&mut self, table: Table, key: &[u8]) -> Result<Option<T>, LedgerFailure> {
        let bytes = self.transaction.get(table, key)?;
        bytes.map(|bytes| codec::decode(&bytes).map_err(|_| LedgerFailure::Corrupt)).transpose()
    }

    fn write<T: Wire>(&mut self, table: Table, key: &[u8], record: &T) -> Result<(), LedgerFailure> {
        self.put(table, key, &codec::encode(record))
    }

    /// Every format keeps the shape of this one row.
    pub(crate) fn header(&mut self) -> Result<Option<Header>, LedgerFailure> {
        self.read(Table::Meta, HEADER)
    }

    pub(crate) fn put_header(&mut self, header: &Header) -> Result<(), LedgerFailure> {
        self.write(Table::Meta, HEADER, header)
    }

    pub(crate) fn progress(&mut self) -> Result<Progress, LedgerFailure> {
        Ok(self.read(Table::Meta, PROGRESS)?.unwrap_or(Progress::NONE))
    }

    pub(crate) fn put_progress(&mut self, progress: &Progress) -> Result<(), LedgerFailure> {
        self.write(Table::Meta, PROGRESS, progress)
    }

    /// Whether there is nothing at all.
    pub(crate) fn is_empty(&mut self) -> Result<bool, LedgerFailure> {
        for table in Table::ALL {
            if !self.keys(table, &[], 1)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes every record. The numbers that were given stay given, and what happened is still told.
    pub(crate) fn clear(&mut self) -> Result<(), LedgerFailure> {
        for table in Table::ALL.into_iter().filter(|table| !matches!(table, Table::Meta | Table::Events)) {
            for key in self.keys(table, &[], usize::MAX)? {
                self.remove(table, &key)?;
            }
        }
        let sequence = self.counters()?.sequence;
        self.put_counters(&Counters { sequence, ..Counters::default() })
    }

    pub(crate) fn counters(&mut self) -> Result<Counters, LedgerFailure> {
        Ok(self.read(Table::Meta, COUNTERS)?.unwrap_or_default())
    }

    pub(crate) fn put_counters(&mut self, counters: &Counters) -> Result<(), LedgerFailure> {
        self.write(Table::Meta, COUNTERS, counters)
    }

    /// A number that was never given before.
    pub(crate) fn next_number(&mut self) -> Result<u64, LedgerFailure> {
        let mut counters = self.counters()?;
        counters.sequence = counters.sequence.checked_add(1).ok_or(LedgerFailure::Corrupt)?;
        self.put_counters(&counters)?;
        Ok(counters.sequence)
    }

    pub(crate) fn issuer(&mut self, key: &IssuerPublicKey) -> Result<Option<IssuerRecord>, LedgerFailure> {
        self.read(Table::Issuers, key.as_bytes())
    }

    pub(crate) fn put_issuer(
        &mut self,
        key: &IssuerPublicKey,
        record: &IssuerRecord,
    ) -> Result<(), LedgerFailure> {
        self.write(Table::Issuers, key.as_bytes(), record)
    }

    pub(crate) fn remove_issuer(&mut self, key: &IssuerPublicKey) -> Result<(), LedgerFailure> {
        self.remove(Table::Issuers, key.as_bytes())
    }

    pub(crate) fn issuers(&mut self) -> Result<Vec<(IssuerPublicKey, IssuerRecord)>, LedgerFailure> {
        let keys = self.keys(Table::Issuers, &[], usize::MAX)?;
        let mut issuers = Vec::with_capacity(keys.len());
        for key in keys {
            let key = <[u8; 32]>::try_from(key).map_err(|_| LedgerFailure::Corrupt)?;
            let key = IssuerPublicKey::from_stored(key);
            if let Some(record) = self.issuer(&key)? {
                issuers.push((key, record));
            }
        }
        Ok(issuers)
    }

    pub(crate) fn session(&mut self, id: &SessionId) -> Result<Option<SessionRecord>, LedgerFailure> {
        self.read(Table::Sessions, id.as_str().as_bytes())
    }

    pub(crate) fn put_session(
        &mut self,
        id: &SessionId,
        record: &SessionRecord,
    ) -> Result<(), LedgerFailure> {
        self.write(Table::Sessions, id.as_str().as_bytes(), record)
    }

    pub(crate) fn remove_session(&mut self, id: &SessionId) -> Result<(), LedgerFailure> {
        self.remove(Table::Sessions, id.as_str().as_bytes())
    }

    pub(crate) fn ticket(&mut self, id: &TicketId) -> Result<Option<TicketRecord>, LedgerFailure> {
        self.read(Table::Tickets, id.as_bytes())
    }

    pub(crate) fn put_ticket(&mut self, id: &TicketId, record: &TicketRecord) -> Result<(), LedgerFailure> {
        self.write(Table::Tickets, id.as_bytes(), record)
    }

    pub(crate) fn remove_ticket(&mut self, id: &TicketId) -> Result<(), LedgerFailure> {
        self.remove(Table::Tickets, id.as_bytes())
    }

    pub(crate) fn credential(
        &mut self,
        id: &CredentialId,
    ) -> Result<Option<CredentialRecord>, LedgerFailure> {
        self.read(Table::Credentials, id.as_bytes())
    }

    pub(crate) fn put_credential(
        &mut self,
        id: &CredentialId,
        record: &CredentialRecord,
    ) -> Result<(), LedgerFailure> {
        self.write(Table::Credentials, id.as_bytes(), record)
    }

    pub(crate) fn remove_credential(&mut self, id: &CredentialId) -> Result<(), LedgerFailure> {
        self.remove(Table::Credentials, id.as_bytes())
    }

    pub(crate) fn join_session(
        &mut self,
        session: &SessionId,
        group: Group,
        entry: Entry,
    ) -> Result<(), LedgerFailure> {
        self.put(Table::BySession, &session_key(session, group, entry), &[])
    }

    pub(crate) fn leave_session(
        &mut self,
        session: &SessionId,
        group: Group,
        entry: Entry,
    ) -> Result<(), LedgerFailure> {
        self.remove(Table::BySession, &session_key(session, group, entry))
    }

    pub(crate) fn add_handles(&mut self, handles: [Handle; 2], entry: Entry) -> Result<(), LedgerFailure> {
        handles.into_iter().try_for_each(|handle| self.put(Table::ByHandle, &handle.key(entry), &[]))
    }

    pub(crate) fn remove_handles(&mut self, handles: [Handle; 2], entry: Entry) -> Result<(), LedgerFailure> {
        handles.into_iter().try_for_each(|handle| self.remove(Table::ByHandle, &handle.key(entry)))
    }

    /// What can still be used and is taken back by this.
    pub(crate) fn of_handle(&mut self, handle: Handle) -> Result<Vec<Entry>, LedgerFailure> {
        self.entries(Table::ByHandle, &handle.prefix(), usize::MAX)
    }

    /// Everything of a session.
    pub(crate) fn of_session(
        &mut self,
        session: &SessionId,
        limit: usize,
    ) -> Result<Vec<Entry>, LedgerFailure> {
        self.entries(Table::BySession, &session_prefix(session), limit)
    }

    /// What can still be used of a session. As many as the quotas allow, however much has ended.
    pub(crate) fn live_of_session(&mut self, session: &SessionId) -> Result<Vec<Entry>, LedgerFailure> {
        let prefix = [session_prefix(session), vec![Group::Live as u8]].concat();
        self.entries(Table::BySession, &prefix, usize::MAX)
    }

    /// Everything that there is, of every session.
    pub(crate) fn all(&mut self) -> Result<Vec<Entry>, LedgerFailure> {
        self.entries(Table::BySession, &[], usize::MAX)
    }

    fn entries(&mut self, table: Table, prefix: &[u8], limit: usize) -> Result<Vec<Entry>, LedgerFailure> {
        let keys = self.keys(table, prefix, limit)?;
        keys.iter().map(|key| Entry::from_key(key)).collect()
    }

    /// Keeps an audit record until the sink has it.
    pub(crate) fn put_event(&mut self, record: &AuditRecord) -> Result<(), LedgerFailure> {
        let event = StoredEvent { at: record.at, event: record.event.clone() };
        self.write(Table::Events, &position_key(record.position()), &event)
    }

    pub(crate) fn remove_event(&mut self, position: AuditPosition) -> Result<(), LedgerFailure> {
        self.remove(Table::Events, &position_key(position))
    }

    /// The audit records that are kept, in order.
    pub(crate) fn events(&mut self) -> Result<Vec<AuditRecord>, LedgerFailure> {
        let keys = self.keys(Table::Events, &[], usize::MAX)?;
        let mut records = Vec::with_capacity(keys.len());
        for key in keys {
            let AuditPosition { opening, sequence } = position(&key).ok_or(LedgerFailure::Corrupt)?;
            let StoredEvent { at, event } = self.read(Table::Events, &key)?.ok_or(LedgerFailure::Corrupt)?;
            records.push(AuditRecord { opening, sequence, at, event });
        }
        Ok(records)
    }

    pub(crate) fn schedule(
        &mut self,
        queue: Queue,
        at: Timestamp,
        entry: Entry,
    ) -> Result<(), LedgerFailure> {
        self.put(queue.table(), &time_key(at, entry), &[])
    }

    pub(crate) fn unschedule(
        &mut self,
        queue: Queue,
        at: Timestamp,
        entry: Entry,
    ) -> Result<(), LedgerFailure> {
        self.remove(queue.table(), &time_key(at, entry))
    }

    /// The earliest entries of a queue, at most `limit`.
    pub(crate) fn earliest(
        &mut self,
        queue: Queue,
        limit: usize,
    ) -> Result<Vec<(Timestamp, Entry)>, LedgerFailure> {
        let keys = self.keys(queue.table(), &[], limit)?;
        let entry = |key: &Vec<u8>| {
            let (at, _) = key.split_first_chunk::<8>().ok_or(LedgerFailure::Corrupt)?;
            let at = Timestamp::from_seconds(u64::from_be_bytes(*at)).map_err(|_| LedgerFailure::Corrupt)?;
            Ok((at, Entry::from_key(key)?))
        };
        keys.iter().map(entry).collect()
    }
}

/// A session id holds no zero byte, so no id is the beginning of another's keys.
fn session_prefix(session: &SessionId) -> Vec<u8> {
    [session.as_str().as_bytes(), &[0]].concat()
}

fn session_key(session: &SessionId, group: Group, entry: Entry) -> Vec<u8> {
    [session_prefix(session).as_slice(), &[group as u8], &entry.bytes()].concat()
}

fn time_key(at: Timestamp, entry: Entry) -> Vec<u8> {
    [at.seconds().to_be_bytes().as_slice(), &entry.bytes()].concat()
}

fn position_key(position: AuditPosition) -> Vec<u8> {
    [position.opening.to_be_bytes(), position.sequence.to_be_bytes()].concat()
}

fn position(key: &[u8]) -> Option<AuditPosition> {
    let (opening, sequence) = key.split_first_chunk::<8>()?;
    let sequence = sequence.try_into().ok()?;
    Some(AuditPosition { opening: u64::from_be_bytes(*opening), sequence: u64::from_be_bytes(sequence) })
}
