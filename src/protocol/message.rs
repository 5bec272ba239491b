//! What desktop and agent exchange over the channel that they have (`docs/PROTOCOL.md` section 8).
//!
//! Each message is one deterministic CBOR map whose first field says what it is. There is exactly one encoding
//! of each, and everything else is refused.

use crate::clock::Timestamp;
use crate::codec::{self, Reader, Wire, Writer};
use crate::credential::bytes::CredentialBytes;
use crate::error::Error;
use crate::id::{CredentialId, TicketId};
use crate::key::{AgentPublicKey, DevicePublicKey, IssuerPublicKey};
use crate::label::Label;
use crate::limits::{MAX_CREDENTIAL_LEN, MAX_LABEL_LEN, MAX_OFFER_LEN};
use crate::protocol::ticket::TicketPublicKey;

/// What the desktop lodges at the agent for one ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OfferFields {
    pub(crate) issuer: IssuerPublicKey,
    pub(crate) ticket: TicketPublicKey,
    pub(crate) ticket_lifetime: u64,
    pub(crate) valid_for: u64,
    pub(crate) label: Label,
    pub(crate) require_confirm: bool,
    pub(crate) credential: CredentialBytes,
}

/// What the agent answers to an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfferReceipt {
    /// The ticket's id.
    pub ticket: TicketId,
    /// The agent's time.
    pub agent_time: Timestamp,
    /// When the ticket ends, by the agent's clock.
    pub expires_at: Timestamp,
}

impl OfferReceipt {
    /// For sending over the desktop's own channel.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// # Errors
    /// [`Error::MessageMalformed`] for anything but the one encoding of a receipt.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        codec::decode(bytes)
    }
}

/// New terms for a credential that a phone holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RenewalFields {
    pub(crate) issuer: IssuerPublicKey,
    pub(crate) valid_for: u64,
    pub(crate) credential: CredentialBytes,
}

/// What the agent answers to a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewalReceipt {
    /// The credential's id, the same as before.
    pub credential: CredentialId,
    /// The agent's time.
    pub agent_time: Timestamp,
    /// When the credential ends from now on, by the agent's clock. Where operations were taken from a
    /// phone that has used none of its renewed credentials, that can be earlier than was asked for.
    pub expires_at: Timestamp,
    /// Whether a renewed credential waits for the phone's next attach. If not, the new operations, and
    /// the end as it is given here, hold already.
    pub waiting: bool,
}

impl RenewalReceipt {
    /// For sending over the desktop's own channel.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// # Errors
    /// [`Error::MessageMalformed`] for anything but the one encoding of a receipt.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        codec::decode(bytes)
    }
}

/// An issuer key with its proof for one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RegistrationFields {
    pub(crate) issuer: IssuerPublicKey,
    pub(crate) signature: [u8; 64],
}

/// The first field of a message between desktop and agent says what it is.
mod kind {
    pub(super) const REGISTRATION: u64 = 1;
    pub(super) const OFFER: u64 = 2;
    pub(super) const RECEIPT: u64 = 3;
    pub(super) const RENEWAL: u64 = 4;
    pub(super) const RENEWAL_RECEIPT: u64 = 5;
}

fn credential(reader: &mut Reader<'_>) -> Result<CredentialBytes, Error> {
    CredentialBytes::new(reader.bytes(MAX_CREDENTIAL_LEN)?.to_vec())
}

impl Wire for OfferFields {
    fn encode(&self, writer: &mut Writer) {
        writer.map(8).uint(0).uint(kind::OFFER).uint(1).bytes(self.issuer.as_bytes());
        writer.uint(2).bytes(self.ticket.as_bytes()).uint(3).uint(self.ticket_lifetime);
        writer.uint(4).uint(self.valid_for).uint(5).text(self.label.as_str());
        writer.uint(6).uint(self.require_confirm.into()).uint(7).bytes(self.credential.as_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.map()?;
        if reader.key(0)?.uint()? != kind::OFFER {
            return Err(Error::MessageMalformed);
        }
        Ok(Self {
            issuer: IssuerPublicKey::from_bytes(reader.key(1)?.array_of()?)?,
            ticket: TicketPublicKey::from_bytes(reader.key(2)?.array_of()?)?,
            ticket_lifetime: reader.key(3)?.uint()?,
            valid_for: reader.key(4)?.uint()?,
            label: Label::new(reader.key(5)?.text(MAX_LABEL_LEN)?)?,
            require_confirm: match reader.key(6)?.uint()? {
                0 => false,
                1 => true,
                _ => return Err(Error::MessageMalformed),
            },
            credential: credential(reader.key(7)?)?,
        })
    }
}

/// Reads what a desktop has sent: nothing that is longer than the longest of its messages.
pub(crate) fn from_desktop<T: Wire>(bytes: &[u8]) -> Result<T, Error> {
    if bytes.len() > MAX_OFFER_LEN {
        return Err(Error::MessageMalformed);
    }
    codec::decode(bytes)
}

impl Wire for RenewalFields {
    fn encode(&self, writer: &mut Writer) {
        writer.map(4).uint(0).uint(kind::RENEWAL).uint(1).bytes(self.issuer.as_bytes());
        writer.uint(2).uint(self.valid_for).uint(3).bytes(self.credential.as_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.map()?;
        if reader.key(0)?.uint()? != kind::RENEWAL {
            return Err(Error::MessageMalformed);
        }
        Ok(Self {
            issuer: IssuerPublicKey::from_bytes(reader.key(1)?.array_of()?)?,
            valid_for: reader.key(2)?.uint()?,
            credential: credential(reader.key(3)?)?,
        })
    }
}

impl Wire for RenewalReceipt {
    fn encode(&self, writer: &mut Writer) {
        writer.map(5).uint(0).uint(kind::RENEWAL_RECEIPT).uint(1).bytes(self.credential.as_bytes());
        writer.uint(2).uint(self.agent_time.seconds()).uint(3).uint(self.expires_at.seconds());
        writer.uint(4).uint(self.waiting.into());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.map()?;
        if reader.key(0)?.uint()? != kind::RENEWAL_RECEIPT {
            return Err(Error::MessageMalformed);
        }
        Ok(Self {
            credential: CredentialId::from_bytes(reader.key(1)?.array_of()?),
            agent_time: Timestamp::from_seconds(reader.key(2)?.uint()?)?,
            expires_at: Timestamp::from_seconds(reader.key(3)?.uint()?)?,
            waiting: reader.key(4)?.uint()? == 1,
        })
    }
}

impl RegistrationFields {
    /// What the issuer key signs: the channel on which the registration travels, and all three keys,
    /// so that it holds on no other channel, at no other agent and for no other device.
    pub(crate) fn message(
        handshake_hash: &[u8; 32],
        agent: &AgentPublicKey,
        device: &DevicePublicKey,
        issuer: &IssuerPublicKey,
    ) -> Vec<u8> {
        let label = b"sessioncap/1 issuer\0".as_slice();
        [label, handshake_hash, agent.as_bytes(), device.as_bytes(), issuer.as_bytes()].concat()
    }
}

impl Wire for OfferReceipt {
    fn encode(&self, writer: &mut Writer) {
        writer.map(4).uint(0).uint(kind::RECEIPT).uint(1).bytes(self.ticket.as_bytes());
        writer.uint(2).uint(self.agent_time.seconds()).uint(3).uint(self.expires_at.seconds());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.map()?;
        if reader.key(0)?.uint()? != kind::RECEIPT {
            return Err(Error::MessageMalformed);
        }
        Ok(Self {
            ticket: TicketId::from_bytes(reader.key(1)?.array_of()?),
            agent_time: Timestamp::from_seconds(reader.key(2)?.uint()?)?,
            expires_at: Timestamp::from_seconds(reader.key(3)?.uint()?)?,
        })
    }
}

impl Wire for RegistrationFields {
    fn encode(&self, writer: &mut Writer) {
        writer.map(3).uint(0).uint(kind::REGISTRATION);
        writer.uint(1).bytes(self.issuer.as_bytes()).uint(2).bytes(&self.signature);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.map()?;
        if reader.key(0)?.uint()? != kind::REGISTRATION {
            return Err(Error::MessageMalformed);
        }
        Ok(Self {
            issuer: IssuerPublicKey::from_bytes(reader.key(1)?.array_of()?)?,
            signature: reader.key(2)?.array_of()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = (from_desktop::<OfferFields>(&bytes), OfferReceipt::from_bytes(&bytes), codec::decode::<RegistrationFields>(&bytes));
        }

        #[test]
        fn offers_read_back(key: [u8; 32], ticket_lifetime: u64, valid_for: u64, label in "([ -~]{0,39}[!-~])?", require_confirm: bool, credential in proptest::collection::vec(any::<u8>(), 1..=MAX_CREDENTIAL_LEN)) {
            let offer = OfferFields {
                issuer: crate::key::IssuerSecretKey::from_bytes(key).public(), ticket: TicketPublicKey::from_bytes(*crate::key::IssuerSecretKey::from_bytes(key).public().as_bytes()).unwrap(), ticket_lifetime, valid_for, label: Label::new(label).unwrap(), require_confirm,
                credential: CredentialBytes::new(credential).unwrap(),
            };
            prop_assert_eq!(from_desktop(&codec::encode(&offer)), Ok(offer));
        }
    }
}
