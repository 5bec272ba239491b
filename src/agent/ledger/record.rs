//! The record types, each with one encoding.

use crate::clock::Timestamp;
use crate::codec::{Reader, Wire, Writer};
use crate::credential::bytes::CredentialBytes;
use crate::credential::mint::VerifiedUnbound;
use crate::credential::verify::EditionHashes;
use crate::error::Error;
use crate::id::{CredentialId, NodeId, SessionId, TicketId};
use crate::key::{AgentPublicKey, DevicePublicKey, HolderPublicKey, IssuerPublicKey};
use crate::label::Label;
use crate::limits::{MAX_CREDENTIAL_LEN, MAX_EDITIONS, MAX_LABEL_LEN, MAX_SESSION_ID_LEN, MAX_VERDICT_LEN};
use crate::op::OpSet;
use crate::pair::RevocationReason;
use crate::protocol::ticket::TicketPublicKey;

/// A registered issuer key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IssuerRecord {
    pub(crate) device: DevicePublicKey,
    /// Each number is used once: a later registration of the same key revives nothing.
    pub(crate) generation: u64,
}

/// A session with offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionRecord {
    /// Each number is used once.
    pub(crate) epoch: u64,
    pub(crate) open_tickets: u32,
    pub(crate) live_credentials: u32,
    /// How many ended tickets and credentials are still on record.
    pub(crate) ended: u32,
}

impl SessionRecord {
    /// Whether no record of the session is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.open_tickets == 0 && self.live_credentials == 0 && self.ended == 0
    }
}

/// The state of a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TicketState {
    /// Waiting for a phone, with the unbound credential that it will get.
    Open(VerifiedUnbound),
    /// Redeemed; the credential's record names the phone.
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

/// The state of a credential.
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
    /// `None` until its first transport frame.
    pub(crate) last_seen: Option<Timestamp>,
    pub(crate) label: Label,
    pub(crate) phone_label: Label,
    pub(crate) state: CredentialState,
    /// The latest edition, the same bytes for every retry. `None` once the record has ended, because it is
    /// then never sent again.
    pub(crate) bytes: Option<CredentialBytes>,
    /// The edition in use: the one bound at redemption, or the renewed one that the phone has used.
    pub(crate) edition: Edition,
    /// Renewed editions that the phone has not used yet, the latest last. Empty once the record has ended.
    pub(crate) renewals: Vec<Edition>,
    /// The node where it was redeemed.
    pub(crate) node: NodeId,
    /// The policy's decisions: [`Decisions`](crate::agent::decision::Decisions). Empty before the first and after
    /// the end.
    pub(crate) verdict: Vec<u8>,
}

/// One edition of a credential, and its terms after the latest renewal. Only the latest is stored whole;
/// earlier ones are identified by their hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edition {
    pub(crate) ops: OpSet,
    pub(crate) expires_at: Timestamp,
    /// The hashes of the bytes, and of the part that every copy narrowed from it keeps.
    pub(crate) hashes: EditionHashes,
}

impl CredentialRecord {
    /// Returns the editions of the record, the one in use first.
    pub(crate) fn editions(&self) -> impl Iterator<Item = &Edition> {
        core::iter::once(&self.edition).chain(&self.renewals)
    }

    /// Returns when the last edition ends.
    pub(crate) fn ends_at(&self) -> Timestamp {
        self.editions().map(|edition| edition.expires_at).max().unwrap_or(self.edition.expires_at)
    }

    /// Returns the latest edition, the only one that allows everything in the current terms.
    pub(crate) fn latest(&self) -> &Edition {
        self.renewals.last().unwrap_or(&self.edition)
    }

    /// Returns an edition and its index, by the hash of its bytes.
    pub(crate) fn find(&self, whole: &[u8; 32]) -> Option<(usize, &Edition)> {
        self.editions().enumerate().find(|(_, edition)| edition.hashes.whole == *whole)
    }

    /// Returns the edition, and its index, whose blocks 0 and 1 have this hash: it, or what it was narrowed to, was
    /// presented.
    pub(crate) fn origin_of(&self, stem: &[u8; 32]) -> Option<(usize, &Edition)> {
        self.editions().enumerate().find(|(_, edition)| edition.hashes.stem == *stem)
    }

    /// Uses the edition at this index, and drops those before it.
    pub(crate) fn retire_before(&mut self, place: usize) {
        if let Some(edition) = self.renewals.drain(..place.min(self.renewals.len())).next_back() {
            self.edition = edition;
        }
    }

    /// Whether it may be used, now or after a confirmation.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.state, CredentialState::Pending { .. } | CredentialState::Active)
    }
}

/// The agent's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counters {
    /// The last number given to an epoch or a generation.
    pub(crate) sequence: u64,
    /// The counts of all devices.
    pub(crate) of_all: Counts,
}

/// Counts of the records of one device or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) open_tickets: u32,
    pub(crate) live_credentials: u32,
    /// Tickets on record, in any state.
    pub(crate) tickets: u32,
    /// Ended credentials that are still on record.
    pub(crate) ended_credentials: u32,
}

/// The header of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// The format of all records. Other formats are not read.
    pub(crate) format: u64,
    /// The agent to which the records belong.
    pub(crate) agent: AgentPublicKey,
}

impl Progress {
    /// The progress in a ledger that was never opened.
    pub(crate) const NONE: Self = Self { mark: Timestamp::EPOCH, openings: 0 };
}

/// The format that this build reads and writes. Earlier ones were never in use.
pub(crate) const FORMAT: u64 = 3;

/// The progress of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// A time that the agent has used. Later times must not be earlier.
    pub(crate) mark: Timestamp,
    /// How often the ledger was opened.
    pub(crate) openings: u64,
}

const REASONS: [RevocationReason; 5] = [
    RevocationReason::Owner,
    RevocationReason::Contest,
    RevocationReason::Session,
    RevocationReason::SessionEnd,
    RevocationReason::Issuer,
];

/// Returns a reason's number: its index in the list, which is fixed permanently.
pub(super) fn reason_number(reason: RevocationReason) -> u64 {
    REASONS
        .into_iter()
        .zip(0..)
        .find_map(|(listed, number)| (listed == reason).then_some(number))
        .unwrap_or_default()
}

pub(super) fn reason(reader: &mut Reader<'_>) -> Result<RevocationReason, Error> {
    let number = usize::try_from(reader.uint()?).map_err(|_| Error::MessageMalformed)?;
    REASONS.get(number).copied().ok_or(Error::MessageMalformed)
}

pub(super) fn timestamp(reader: &mut Reader<'_>) -> Result<Timestamp, Error> {
    Timestamp::from_seconds(reader.uint()?)
}

pub(super) fn session(reader: &mut Reader<'_>) -> Result<SessionId, Error> {
    SessionId::new(reader.text(MAX_SESSION_ID_LEN)?)
}

pub(super) fn label(reader: &mut Reader<'_>) -> Result<Label, Error> {
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
        writer.array(4).uint(self.epoch).uint(self.open_tickets.into());
        writer.uint(self.live_credentials.into()).uint(self.ended.into());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.array(4)?;
        Ok(Self {
            epoch: reader.uint()?,
            open_tickets: count(reader)?,
            live_credentials: count(reader)?,
            ended: count(reader)?,
        })
    }
}

impl Wire for Counters {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2).uint(self.sequence);
        self.of_all.encode(writer);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.array(2)?;
        Ok(Self { sequence: reader.uint()?, of_all: Counts::decode(reader)? })
    }
}

impl Wire for Counts {
    fn encode(&self, writer: &mut Writer) {
        writer.array(4).uint(self.open_tickets.into()).uint(self.live_credentials.into());
        writer.uint(self.tickets.into()).uint(self.ended_credentials.into());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.array(4)?;
        Ok(Self {
            open_tickets: count(reader)?,
            live_credentials: count(reader)?,
            tickets: count(reader)?,
            ended_credentials: count(reader)?,
        })
    }
}

impl Wire for Header {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2).uint(self.format).bytes(self.agent.as_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.array(2)?;
        Ok(Self { format: reader.uint()?, agent: AgentPublicKey::from_bytes(reader.array_of()?)? })
    }
}

impl Wire for Progress {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2).uint(self.mark.seconds()).uint(self.openings);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.array(2)?;
        Ok(Self { mark: timestamp(reader)?, openings: reader.uint()? })
    }
}

impl Wire for Edition {
    fn encode(&self, writer: &mut Writer) {
        writer.array(4).uint(self.ops.bits().into()).uint(self.expires_at.seconds());
        writer.bytes(&self.hashes.stem).bytes(&self.hashes.whole);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.array(4)?;
        Ok(Self {
            ops: OpSet::from_bits(reader.uint()?)?,
            expires_at: timestamp(reader)?,
            hashes: EditionHashes { stem: reader.array_of()?, whole: reader.array_of()? },
        })
    }
}

impl Wire for TicketState {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Open(credential) => writer.array(2).uint(0).bytes(credential.bytes().as_bytes()),
            Self::Claimed => writer.array(1).uint(1),
            Self::Revoked(why) => writer.array(2).uint(2).uint(reason_number(*why)),
            Self::Expired => writer.array(1).uint(3),
        };
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.array(2)?;
        match reader.uint()? {
            0 => Ok(Self::Open(VerifiedUnbound::from_stored(credential_bytes(reader)?))),
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
            key: TicketPublicKey::from_stored(reader.array_of()?),
            credential: CredentialId::from_bytes(reader.array_of()?),
            session: session(reader)?,
            epoch: reader.uint()?,
            issuer: IssuerPublicKey::from_stored(reader.array_of()?),
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
        writer.array(17).bytes(self.ticket.as_bytes()).bytes(self.holder.as_bytes());
        writer.text(self.session.as_str()).uint(self.epoch);
        writer.bytes(self.issuer.as_bytes()).uint(self.generation).bytes(self.device.as_bytes());
        // 1970 means never
        writer.uint(self.created_at.seconds()).uint(self.last_seen.map_or(0, Timestamp::seconds));
        writer.text(self.label.as_str()).text(self.phone_label.as_str());
        self.state.encode(writer);
        writer.bytes(self.bytes.as_ref().map_or(&[], CredentialBytes::as_bytes));
        self.edition.encode(writer);
        writer.array(self.renewals.len());
        for renewal in &self.renewals {
            renewal.encode(writer);
        }
        writer.uint(self.node.number().into()).bytes(&self.verdict);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.array(17)?;
        Ok(Self {
            ticket: TicketId::from_bytes(reader.array_of()?),
            holder: HolderPublicKey::from_bytes(reader.array_of()?)?,
            session: session(reader)?,
            epoch: reader.uint()?,
            issuer: IssuerPublicKey::from_stored(reader.array_of()?),
            generation: reader.uint()?,
            device: DevicePublicKey::from_bytes(reader.array_of()?)?,
            created_at: timestamp(reader)?,
            last_seen: Some(timestamp(reader)?).filter(|seen| *seen > Timestamp::EPOCH),
            label: label(reader)?,
            phone_label: label(reader)?,
            state: CredentialState::decode(reader)?,
            bytes: match reader.bytes(MAX_CREDENTIAL_LEN)? {
                [] => None,
                bytes => Some(CredentialBytes::new(bytes.to_vec())?),
            },
            edition: Edition::decode(reader)?,
            renewals: (0..reader.array(MAX_EDITIONS)?)
                .map(|_| Edition::decode(reader))
                .collect::<Result<_, _>>()?,
            node: NodeId::new(count(reader)?),
            verdict: reader.bytes(MAX_VERDICT_LEN)?.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use crate::key::{AgentSecretKey, DeviceSecretKey, HolderSecretKey, IssuerSecretKey};
    use crate::protocol::ticket::TicketSecret;

    /// Ed25519 keys in records were checked before they were stored and are not checked again when they
    /// are read. One that was damaged since verifies nothing.
    #[test]
    fn stored_keys_that_are_none_verify_nothing() {
        let agent = AgentSecretKey::from_bytes([1; 32]).public();
        let holder = HolderSecretKey::from_bytes([2; 32]).public();
        let issuer = IssuerSecretKey::from_bytes([3; 32]);
        let ticket = TicketSecret::from_bytes([4; 16]);
        let record = TicketRecord {
            key: ticket.public_key(),
            credential: CredentialId::from_bytes([5; 16]),
            session: SessionId::new("demo").unwrap(),
            epoch: 1,
            issuer: issuer.public(),
            generation: 2,
            device: DeviceSecretKey::from_bytes([6; 32]).public(),
            offered_at: Timestamp::EPOCH,
            expires_at: Timestamp::MAX,
            credential_expires_at: Timestamp::MAX,
            ops: OpSet::COMPANION,
            label: Label::default(),
            require_confirm: false,
            state: TicketState::Claimed,
        };
        let good = codec::encode(&record);
        let proof = ticket.prove(&agent, &holder).signature;
        let mut low_order = [0; 32];
        low_order[0] = 1;
        let mut off_curve = [0; 32];
        off_curve[0] = 2;
        for stored in [[0; 32], [0xff; 32], low_order, off_curve] {
            let mut bytes = good.clone();
            for key in [*record.key.as_bytes(), *record.issuer.as_bytes()] {
                let at = bytes.windows(32).position(|window| window == key).unwrap();
                bytes[at..at + 32].copy_from_slice(&stored);
            }
            let damaged: TicketRecord = codec::decode(&bytes).unwrap();
            // a commitment of low order and the scalar 0 fit every message under the identity
            for signature in [proof, [0; 64], [low_order, [0; 32]].concat().try_into().unwrap()] {
                assert!(!damaged.key.verify(&agent, &holder, &signature));
                assert!(!damaged.issuer.verify(b"message", &signature));
            }
        }
    }
}
