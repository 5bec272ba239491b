//! One pairing, as one value for a phone's keychain.

use core::fmt;

use zeroize::Zeroizing;

use super::error::AppError;
use crate::agent_url::AgentUrl;
use crate::clock::Timestamp;
use crate::codec::{Reader, Writer};
use crate::credential::bytes::CredentialBytes;
use crate::error::Error;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{AgentPublicKey, HolderSecretKey};
use crate::label::Label;
use crate::limits::{
    MAX_ADDRESS_LEN, MAX_ADDRESSES, MAX_CREDENTIAL_LEN, MAX_LABEL_LEN, MAX_SESSION_ID_LEN, MAX_STORED_LEN,
    MAX_TLS_PINS,
};
use crate::op::OpSet;
use crate::phone::Attached;
use crate::protocol::link::Link;
use crate::protocol::ticket::TicketSecret;

/// Every stored pairing begins with it, before the version.
const MAGIC: [u8; 4] = *b"SCPP";
const VERSION: u8 = 1;

/// One pairing: the phone's key, the agent's key and addresses, and the credential once there is one. It is one value
/// for the keychain, under the [`ticket`](Self::ticket) as its name.
///
/// Store it so that it is readable after the first unlock, on this device only, and is not synchronised. A backup does
/// not carry it to another phone: that one pairs anew. `Debug` shows no secret, and secrets are wiped when dropped.
///
/// # Format
///
/// `SCPP`, a byte with the version (1), and one CBOR map in the deterministic encoding of `docs/PROTOCOL.md` section 2:
/// 1 the phone's secret key, 2 the agent's key, 3 a list of addresses, 4 the label, 5 a list of SHA-256 hashes of TLS
/// keys; then either 6 the link's secret, or 7 the ticket's id, 8 the credential, 9 the session, 10 the credential's id,
/// 11 the operations, 12 the end, 13 the agent's time when it was stored. Of the lists, 3 is not empty, and nothing
/// in it is twice.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored {
    holder: HolderSecretKey,
    agent: AgentPublicKey,
    /// At least one; the one that worked last is first.
    addresses: Vec<AgentUrl>,
    label: Label,
    ticket: TicketId,
    pins: Vec<[u8; 32]>,
    state: Grant,
}

/// Not redeemed, or what came of it.
#[derive(Clone, PartialEq, Eq)]
enum Grant {
    Ticket(TicketSecret),
    Credential(CredentialBytes, Access),
}

/// The agent's terms of a pairing, from when its credential was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Access {
    /// The session.
    pub session: SessionId,
    /// The credential's id.
    pub id: CredentialId,
    /// The operations that are allowed.
    pub ops: OpSet,
    /// When it ends, by the agent's clock. A renewal may have moved it since.
    pub end: Timestamp,
    /// The agent's time when this was stored.
    pub seen: Timestamp,
}

/// The bytes of a [`Stored`] pairing. They contain its key: `Debug` shows only how many there are, and they are wiped
/// when dropped. A copy that the app makes is the app's to wipe.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredBytes(Zeroizing<Vec<u8>>);

impl StoredBytes {
    /// Returns the bytes, for the keychain.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for StoredBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredBytes({} bytes, redacted)", self.0.len())
    }
}

impl Stored {
    /// The version of the format that this crate writes. It reads this one and every earlier one.
    pub const VERSION: u8 = VERSION;
    /// Longest stored pairing, bytes.
    pub const MAX_LEN: usize = MAX_STORED_LEN;
    /// Most addresses of one agent.
    pub const MAX_ADDRESSES: usize = MAX_ADDRESSES;
    /// Most hashes of the keys of an agent's TLS certificates.
    pub const MAX_TLS_PINS: usize = MAX_TLS_PINS;

    pub(super) fn begin(link: &Link, holder: HolderSecretKey, label: Label) -> Self {
        Self {
            holder,
            agent: *link.agent(),
            addresses: vec![link.url().clone()],
            label,
            ticket: link.ticket().id(),
            pins: Vec::new(),
            state: Grant::Ticket(link.ticket().clone()),
        }
    }

    /// Reads what the keychain has returned. Costs one scalar multiplication if the link is not redeemed yet.
    ///
    /// # Errors
    /// [`AppError::StoredForeign`] if it is not a pairing, [`AppError::StoredNewer`] if a later version has written
    /// it, [`AppError::StoredDamaged`] if it is cut or changed. Delete it only if the person says so.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AppError> {
        let (version, rest) = bytes
            .strip_prefix(&MAGIC)
            .ok_or(AppError::StoredForeign)?
            .split_first()
            .ok_or(AppError::StoredDamaged)?;
        match *version {
            VERSION if bytes.len() <= MAX_STORED_LEN => {}
            0 | VERSION => return Err(AppError::StoredDamaged),
            version => return Err(AppError::StoredNewer { version }),
        }
        let stored = Self::read(&mut Reader::new(rest)).map_err(|_| AppError::StoredDamaged)?;
        // One encoding: what would be written otherwise, was changed.
        if stored.to_bytes().as_bytes() == bytes { Ok(stored) } else { Err(AppError::StoredDamaged) }
    }

    /// Returns the bytes to store in the keychain, at most [`Stored::MAX_LEN`].
    #[must_use]
    pub fn to_bytes(&self) -> StoredBytes {
        // With room for all of it, so that no copy is left behind by a buffer that grows.
        let mut writer = Writer::with_capacity(MAX_STORED_LEN);
        writer.raw(&MAGIC).raw(&[VERSION]);
        writer.map(match &self.state {
            Grant::Ticket(_) => 6,
            Grant::Credential(..) => 12,
        });
        writer.uint(1).bytes(self.holder.expose_bytes()).uint(2).bytes(self.agent.as_bytes());
        writer.uint(3).array(self.addresses.len());
        for address in &self.addresses {
            writer.text(&address.to_string());
        }
        writer.uint(4).text(self.label.as_str());
        writer.uint(5).array(self.pins.len());
        for pin in &self.pins {
            writer.bytes(pin);
        }
        match &self.state {
            Grant::Ticket(secret) => _ = writer.uint(6).bytes(secret.expose_bytes()),
            Grant::Credential(credential, Access { session, id, ops, end, seen }) => {
                writer.uint(7).bytes(self.ticket.as_bytes()).uint(8).bytes(credential.as_bytes());
                writer.uint(9).text(session.as_str()).uint(10).bytes(id.as_bytes());
                writer.uint(11).uint(ops.bits().into()).uint(12).uint(end.seconds());
                writer.uint(13).uint(seen.seconds());
            }
        }
        StoredBytes(Zeroizing::new(writer.into_bytes()))
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.map()?;
        let key = Zeroizing::new(reader.key(1)?.array_of()?);
        let holder = HolderSecretKey::from_bytes(*key);
        let agent = AgentPublicKey::from_bytes(reader.key(2)?.array_of()?)?;
        let count = reader.key(3)?.array(MAX_ADDRESSES)?;
        let mut addresses = Vec::with_capacity(count);
        for _ in 0..count {
            let address = AgentUrl::parse(reader.text(MAX_ADDRESS_LEN)?)?;
            if addresses.contains(&address) {
                return Err(Error::MessageMalformed);
            }
            addresses.push(address);
        }
        if addresses.is_empty() {
            return Err(Error::MessageMalformed);
        }
        let label = Label::new(reader.key(4)?.text(MAX_LABEL_LEN)?)?;
        let count = reader.key(5)?.array(MAX_TLS_PINS)?;
        let mut pins = Vec::with_capacity(count);
        for _ in 0..count {
            pins.push(reader.array_of()?);
        }
        let (ticket, state) = match reader.optional_key(6) {
            true => {
                let secret = Zeroizing::new(reader.array_of()?);
                let secret = TicketSecret::from_bytes(*secret);
                (secret.id(), Grant::Ticket(secret))
            }
            false => {
                let ticket = TicketId::from_bytes(reader.key(7)?.array_of()?);
                let credential = CredentialBytes::new(reader.key(8)?.bytes(MAX_CREDENTIAL_LEN)?.to_vec())?;
                let access = Access {
                    session: SessionId::new(reader.key(9)?.text(MAX_SESSION_ID_LEN)?)?,
                    id: CredentialId::from_bytes(reader.key(10)?.array_of()?),
                    ops: OpSet::from_bits(reader.key(11)?.uint()?)?,
                    end: Timestamp::from_seconds(reader.key(12)?.uint()?)?,
                    seen: Timestamp::from_seconds(reader.key(13)?.uint()?)?,
                };
                (ticket, Grant::Credential(credential, access))
            }
        };
        Ok(Self { holder, agent, addresses, label, ticket, pins, state })
    }

    /// Returns the id of the ticket that it came from: the pairing's name in the keychain. Not a secret.
    #[must_use]
    pub fn ticket(&self) -> &TicketId {
        &self.ticket
    }

    /// Returns the agent's key.
    #[must_use]
    pub fn agent(&self) -> &AgentPublicKey {
        &self.agent
    }

    /// Returns the phone's key of this pairing, for a program that makes its own handshake.
    #[must_use]
    pub fn holder(&self) -> &HolderSecretKey {
        &self.holder
    }

    /// Returns the phone's name for itself, which the desktop was shown.
    #[must_use]
    pub fn label(&self) -> &Label {
        &self.label
    }

    /// Returns the agent's addresses, at least one; the one that worked last comes first.
    #[must_use]
    pub fn addresses(&self) -> &[AgentUrl] {
        &self.addresses
    }

    /// Adds an address at which the agent may be as well, if there is room. It grants nothing: whoever answers there
    /// has to prove the agent's key. Returns whether it is among the addresses now. Store the pairing afterwards.
    pub fn add_address(&mut self, address: AgentUrl) -> bool {
        if self.addresses.contains(&address) {
            return true;
        }
        let room = self.addresses.len() < MAX_ADDRESSES && address.to_string().len() <= MAX_ADDRESS_LEN;
        if room {
            self.addresses.push(address);
        }
        room
    }

    /// Returns the SHA-256 hashes of the keys of the agent's TLS certificates, for an agent that has made its
    /// certificate itself (`docs/PROTOCOL.md` section 17.7). Empty if the system's authorities are to be trusted.
    #[must_use]
    pub fn tls_pins(&self) -> &[[u8; 32]] {
        &self.pins
    }

    /// Replaces the hashes of the keys of the agent's TLS certificates. Returns whether there was room for all of
    /// them; if not, nothing changes. Store the pairing afterwards.
    pub fn set_tls_pins(&mut self, pins: &[[u8; 32]]) -> bool {
        let room = pins.len() <= MAX_TLS_PINS;
        if room {
            self.pins = pins.to_vec();
        }
        room
    }

    /// Returns what the agent has granted, or `None` while the link is not redeemed.
    #[must_use]
    pub fn access(&self) -> Option<&Access> {
        match &self.state {
            Grant::Ticket(_) => None,
            Grant::Credential(_, access) => Some(access),
        }
    }

    /// Returns the credential, or `None` while the link is not redeemed.
    #[must_use]
    pub fn credential(&self) -> Option<&CredentialBytes> {
        match &self.state {
            Grant::Ticket(_) => None,
            Grant::Credential(credential, _) => Some(credential),
        }
    }

    /// The link again, to an address, while it is not redeemed.
    pub(super) fn link(&self, url: &AgentUrl) -> Option<Link> {
        match &self.state {
            Grant::Ticket(secret) => Some(Link::new(url.clone(), self.agent, secret.clone())),
            Grant::Credential(..) => None,
        }
    }

    /// Takes a credential in place of the ticket or of an earlier one.
    pub(super) fn grant(&mut self, credential: CredentialBytes, attached: &Attached) {
        let access = Access {
            session: attached.session.clone(),
            id: attached.id,
            ops: attached.ops,
            end: attached.agent_time.plus(attached.seconds_left),
            seen: attached.agent_time,
        };
        self.state = Grant::Credential(credential, access);
    }

    /// Puts the address that worked to the front. Returns whether that has changed anything.
    pub(super) fn prefer(&mut self, place: usize) -> bool {
        match self.addresses.get_mut(..=place) {
            Some(addresses) if place > 0 => {
                addresses.rotate_right(1);
                true
            }
            _ => false,
        }
    }
}

/// Shows no secret.
impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("ticket", &self.ticket)
            .field("agent", &self.agent)
            .field("addresses", &self.addresses)
            .field("access", &self.access())
            .finish_non_exhaustive()
    }
}
