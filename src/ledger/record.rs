//! The records, each with one encoding, and typed access to them inside a transaction.

use crate::audit::RevocationReason;
use crate::clock::Timestamp;
use crate::codec::{self, Reader, Wire, Writer};
use crate::denial::LedgerFailure;
use crate::error::Error;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{DevicePublicKey, HolderPublicKey, IssuerPublicKey};
use crate::ledger::{Table, Transaction};
use crate::limits::{MAX_CREDENTIAL_LEN, MAX_LABEL_LEN, MAX_SESSION_ID_LEN};
use crate::op::OpSet;
use crate::ticket::TicketPublicKey;
use crate::token::CredentialBytes;
use crate::wire::Label;

/// A registered issuer key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IssuerRecord {
    pub(crate) device: DevicePublicKey,
    /// Never used before and never again: a later registration of the same key revives nothing.
    pub(crate) generation: u64,
}

/// A session that something was offered for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionRecord {
    /// Never used before and never again.
    pub(crate) epoch: u64,
    pub(crate) open_tickets: u32,
    pub(crate) live_credentials: u32,
}

/// What became of a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TicketState {
    /// Waiting for a phone, with the credential that it will get.
    Open(CredentialBytes),
    /// Redeemed; the credential's record says by whom.
    Claimed,
    Revoked(RevocationReason),
    Expired,
}

/// An offered ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TicketRecord {
    pub(crate) key: TicketPublicKey,
    pub(crate) credential: CredentialId,
    pub(crate) session: SessionId,
    pub(crate) epoch: u64,
    pub(crate) issuer: IssuerPublicKey,
    pub(crate) generation: u64,
    pub(crate) device: DevicePublicKey,
    pub(crate) offered_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    /// The end of the credential that it gives, by the agent's clock.
    pub(crate) credential_expires_at: Timestamp,
    pub(crate) ops: OpSet,
    pub(crate) label: Label,
    pub(crate) require_confirm: bool,
    pub(crate) state: TicketState,
}

/// What became of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CredentialState {
    /// Redeemed; the desktop has to confirm before `until`.
    Pending {
        nonce: [u8; 16],
        until: Timestamp,
    },
    Active,
    Revoked(RevocationReason),
    Expired,
}

/// A redeemed credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CredentialRecord {
    pub(crate) ticket: TicketId,
    pub(crate) holder: HolderPublicKey,
    pub(crate) session: SessionId,
    pub(crate) epoch: u64,
    pub(crate) issuer: IssuerPublicKey,
    pub(crate) generation: u64,
    pub(crate) device: DevicePublicKey,
    pub(crate) created_at: Timestamp,
    /// None until its first transport frame.
    pub(crate) last_seen: Option<Timestamp>,
    pub(crate) expires_at: Timestamp,
    pub(crate) ops: OpSet,
    pub(crate) label: Label,
    pub(crate) phone_label: Label,
    pub(crate) state: CredentialState,
    /// As bound at redemption; the same bytes for every retry.
    pub(crate) bytes: CredentialBytes,
}

/// The agent's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counters {
    /// The last number given to an epoch or a generation.
    pub(crate) sequence: u64,
    pub(crate) open_tickets: u32,
    pub(crate) live_credentials: u32,
}

const REASONS: [RevocationReason; 5] = [
    RevocationReason::Owner,
    RevocationReason::Contest,
    RevocationReason::Session,
    RevocationReason::SessionEnd,
    RevocationReason::Issuer,
];

/// A reason's number is its place in the list, which is fixed for ever.
fn reason_number(reason: RevocationReason) -> u64 {
    REASONS
        .into_iter()
        .zip(0..)
        .find_map(|(listed, number)| (listed == reason).then_some(number))
        .unwrap_or_default()
}

fn reason(reader: &mut Reader<'_>) -> Result<RevocationReason, Error> {
    let number = usize::try_from(reader.uint()?).map_err(|_| Error::MessageMalformed)?;
    REASONS.get(number).copied().ok_or(Error::MessageMalformed)
}

fn timestamp(reader: &mut Reader<'_>) -> Result<Timestamp, Error> {
    Timestamp::from_seconds(reader.uint()?)
}

fn session(reader: &mut Reader<'_>) -> Result<SessionId, Error> {
    SessionId::new(reader.text(MAX_SESSION_ID_LEN)?)
}

fn label(reader: &mut Reader<'_>) -> Result<Label, Error> {
    Label::new(reader.text(MAX_LABEL_LEN)?)
}

fn credential_bytes(reader: &mut Reader<'_>) -> Result<CredentialBytes, Error> {
    CredentialBytes::new(reader.bytes(MAX_CREDENTIAL_LEN)?.to_vec())
}

fn count(reader: &mut Reader<'_>) -> Result<u32, Error> {
    u32::try_from(reader.uint()?).map_err(|_| Error::MessageMalformed)
}

impl Wire for IssuerRecord {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2).bytes(self.device.as_bytes()).uint(self.generation);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.array(2)?;
        Ok(Self { device: DevicePublicKey::from_bytes(reader.array_of()?)?, generation: reader.uint()? })
    }
}

impl Wire for SessionRecord {
    fn encode(&self, writer: &mut Writer) {
        writer.array(3).uint(self.epoch);
        writer.uint(self.open_tickets.into()).uint(self.live_credentials.into());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.array(3)?;
        Ok(Self { epoch: reader.uint()?, open_tickets: count(reader)?, live_credentials: count(reader)? })
    }
}

impl Wire for Counters {
    fn encode(&self, writer: &mut Writer) {
        writer.array(3).uint(self.sequence);
        writer.uint(self.open_tickets.into()).uint(self.live_credentials.into());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.array(3)?;
        Ok(Self { sequence: reader.uint()?, open_tickets: count(reader)?, live_credentials: count(reader)? })
    }
}

impl Wire for TicketState {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Open(credential) => writer.array(2).uint(0).bytes(credential.as_bytes()),
            Self::Claimed => writer.array(1).uint(1),
            Self::Revoked(why) => writer.array(2).uint(2).uint(reason_number(*why)),
            Self::Expired => writer.array(1).uint(3),
        };
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.array(2)?;
        match reader.uint()? {
            0 => Ok(Self::Open(credential_bytes(reader)?)),
            1 => Ok(Self::Claimed),
            2 => Ok(Self::Revoked(reason(reader)?)),
            3 => Ok(Self::Expired),
            _ => Err(Error::MessageMalformed),
        }
    }
}

impl Wire for CredentialState {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Pending { nonce, until } => writer.array(3).uint(0).bytes(nonce).uint(until.seconds()),
            Self::Active => writer.array(1).uint(1),
            Self::Revoked(why) => writer.array(2).uint(2).uint(reason_number(*why)),
            Self::Expired => writer.array(1).uint(3),
        };
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.array(3)?;
        match reader.uint()? {
            0 => Ok(Self::Pending { nonce: reader.array_of()?, until: timestamp(reader)? }),
            1 => Ok(Self::Active),
            2 => Ok(Self::Revoked(reason(reader)?)),
            3 => Ok(Self::Expired),
            _ => Err(Error::MessageMalformed),
        }
    }
}

impl Wire for TicketRecord {
    fn encode(&self, writer: &mut Writer) {
        writer.array(14).bytes(self.key.as_bytes()).bytes(self.credential.as_bytes());
        writer.text(self.session.as_str()).uint(self.epoch);
        writer.bytes(self.issuer.as_bytes()).uint(self.generation).bytes(self.device.as_bytes());
        writer.uint(self.offered_at.seconds()).uint(self.expires_at.seconds());
        writer.uint(self.credential_expires_at.seconds()).uint(self.ops.bits().into());
        writer.text(self.label.as_str()).uint(self.require_confirm.into());
        self.state.encode(writer);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.array(14)?;
        Ok(Self {
            key: TicketPublicKey::from_bytes(reader.array_of()?),
            credential: CredentialId::from_bytes(reader.array_of()?),
            session: session(reader)?,
            epoch: reader.uint()?,
            issuer: IssuerPublicKey::from_bytes(reader.array_of()?)?,
            generation: reader.uint()?,
            device: DevicePublicKey::from_bytes(reader.array_of()?)?,
            offered_at: timestamp(reader)?,
            expires_at: timestamp(reader)?,
            credential_expires_at: timestamp(reader)?,
            ops: OpSet::from_bits(reader.uint()?)?,
            label: label(reader)?,
            require_confirm: reader.uint()? == 1,
            state: TicketState::decode(reader)?,
        })
    }
}

impl Wire for CredentialRecord {
    fn encode(&self, writer: &mut Writer) {
        writer.array(15).bytes(self.ticket.as_bytes()).bytes(self.holder.as_bytes());
        writer.text(self.session.as_str()).uint(self.epoch);
        writer.bytes(self.issuer.as_bytes()).uint(self.generation).bytes(self.device.as_bytes());
        // 1970 stands for never
        writer.uint(self.created_at.seconds()).uint(self.last_seen.map_or(0, Timestamp::seconds));
        writer.uint(self.expires_at.seconds()).uint(self.ops.bits().into());
        writer.text(self.label.as_str()).text(self.phone_label.as_str());
        self.state.encode(writer);
        writer.bytes(self.bytes.as_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.array(15)?;
        Ok(Self {
            ticket: TicketId::from_bytes(reader.array_of()?),
            holder: HolderPublicKey::from_bytes(reader.array_of()?)?,
            session: session(reader)?,
            epoch: reader.uint()?,
            issuer: IssuerPublicKey::from_bytes(reader.array_of()?)?,
            generation: reader.uint()?,
            device: DevicePublicKey::from_bytes(reader.array_of()?)?,
            created_at: timestamp(reader)?,
            last_seen: Some(timestamp(reader)?).filter(|seen| *seen > Timestamp::EPOCH),
            expires_at: timestamp(reader)?,
            ops: OpSet::from_bits(reader.uint()?)?,
            label: label(reader)?,
            phone_label: label(reader)?,
            state: CredentialState::decode(reader)?,
            bytes: credential_bytes(reader)?,
        })
    }
}

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

const COUNTERS: &[u8] = b"counters";

/// Typed access to one transaction.
pub(crate) struct Records<'a>(pub(crate) &'a mut dyn Transaction);

impl Records<'_> {
    fn read<T: Wire>(&mut self, table: Table, key: &[u8]) -> Result<Option<T>, LedgerFailure> {
        let bytes = self.0.get(table, key)?;
        bytes.map(|bytes| codec::decode(&bytes).map_err(|_| LedgerFailure::Corrupt)).transpose()
    }

    fn write<T: Wire>(&mut self, table: Table, key: &[u8], record: &T) -> Result<(), LedgerFailure> {
        self.0.put(table, key, &codec::encode(record))
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
        self.0.remove(Table::Issuers, key.as_bytes())
    }

    pub(crate) fn issuers(&mut self) -> Result<Vec<(IssuerPublicKey, IssuerRecord)>, LedgerFailure> {
        let keys = self.0.keys(Table::Issuers, &[], usize::MAX)?;
        let mut issuers = Vec::with_capacity(keys.len());
        for key in keys {
            let key = <[u8; 32]>::try_from(key).map_err(|_| LedgerFailure::Corrupt)?;
            let key = IssuerPublicKey::from_bytes(key).map_err(|_| LedgerFailure::Corrupt)?;
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
        self.0.remove(Table::Sessions, id.as_str().as_bytes())
    }

    pub(crate) fn ticket(&mut self, id: &TicketId) -> Result<Option<TicketRecord>, LedgerFailure> {
        self.read(Table::Tickets, id.as_bytes())
    }

    pub(crate) fn put_ticket(&mut self, id: &TicketId, record: &TicketRecord) -> Result<(), LedgerFailure> {
        self.write(Table::Tickets, id.as_bytes(), record)
    }

    pub(crate) fn remove_ticket(&mut self, id: &TicketId) -> Result<(), LedgerFailure> {
        self.0.remove(Table::Tickets, id.as_bytes())
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
        self.0.remove(Table::Credentials, id.as_bytes())
    }

    pub(crate) fn join_session(&mut self, session: &SessionId, entry: Entry) -> Result<(), LedgerFailure> {
        self.0.put(Table::BySession, &session_key(session, &entry.bytes()), &[])
    }

    pub(crate) fn leave_session(&mut self, session: &SessionId, entry: Entry) -> Result<(), LedgerFailure> {
        self.0.remove(Table::BySession, &session_key(session, &entry.bytes()))
    }

    pub(crate) fn of_session(
        &mut self,
        session: &SessionId,
        limit: usize,
    ) -> Result<Vec<Entry>, LedgerFailure> {
        let keys = self.0.keys(Table::BySession, &session_key(session, &[]), limit)?;
        keys.iter().map(|key| Entry::from_key(key)).collect()
    }

    /// Everything that there is, of every session.
    pub(crate) fn all(&mut self) -> Result<Vec<Entry>, LedgerFailure> {
        let keys = self.0.keys(Table::BySession, &[], usize::MAX)?;
        keys.iter().map(|key| Entry::from_key(key)).collect()
    }

    pub(crate) fn schedule(&mut self, at: Timestamp, entry: Entry) -> Result<(), LedgerFailure> {
        self.0.put(Table::ByTime, &time_key(at, entry), &[])
    }

    pub(crate) fn unschedule(&mut self, at: Timestamp, entry: Entry) -> Result<(), LedgerFailure> {
        self.0.remove(Table::ByTime, &time_key(at, entry))
    }

    /// The earliest scheduled entries that are due, at most `limit`.
    pub(crate) fn due(
        &mut self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Timestamp, Entry)>, LedgerFailure> {
        let mut due = Vec::new();
        for key in self.0.keys(Table::ByTime, &[], limit)? {
            let (at, _) = key.split_first_chunk::<8>().ok_or(LedgerFailure::Corrupt)?;
            let at = Timestamp::from_seconds(u64::from_be_bytes(*at)).map_err(|_| LedgerFailure::Corrupt)?;
            if at > now {
                break;
            }
            due.push((at, Entry::from_key(&key)?));
        }
        Ok(due)
    }
}

/// A session id holds no zero byte, so no id is the beginning of another's keys.
fn session_key(session: &SessionId, entry: &[u8]) -> Vec<u8> {
    [session.as_str().as_bytes(), &[0], entry].concat()
}

fn time_key(at: Timestamp, entry: Entry) -> Vec<u8> {
    [at.seconds().to_be_bytes().as_slice(), &entry.bytes()].concat()
}
