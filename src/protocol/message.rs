//! The messages between desktop and agent, sent over their existing channel (`docs/PROTOCOL.md` section 8).
//!
//! Each message is one deterministic CBOR map whose first field is its kind. Each has exactly one encoding;
//! any other is refused.

use crate::clock::Timestamp;
use crate::codec::{self, Reader, Wire, Writer};
use crate::credential::bytes::CredentialBytes;
use crate::error::Error;
use crate::id::{CredentialId, TicketId};
use crate::key::{AgentPublicKey, DevicePublicKey, IssuerPublicKey};
use crate::label::Label;
use crate::limits::{MAX_CREDENTIAL_LEN, MAX_LABEL_LEN, MAX_OFFER_LEN};
use crate::protocol::ticket::TicketPublicKey;

/// A desktop's offer of one ticket, made by `Issuer::pair` and accepted by `Gate::offer` (`docs/PROTOCOL.md`
/// section 8).
///
/// It contains the ticket's public key, the terms and the unbound credential, at most [`MAX_OFFER_LEN`]
/// bytes. Send it only to the agent, over the desktop's own channel. `Debug` does not show the credential,
/// and serde writes base64url without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub(crate) issuer: IssuerPublicKey,
    pub(crate) ticket: TicketPublicKey,
    pub(crate) ticket_lifetime: u64,
    pub(crate) valid_for: u64,
    pub(crate) label: Label,
    pub(crate) require_confirm: bool,
    pub(crate) credential: CredentialBytes,
}

/// The agent's answer to an [`Offer`]. serde writes its bytes as base64url without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OfferReceipt {
    /// The ticket's id.
    pub ticket: TicketId,
    /// The agent's time.
    pub agent_time: Timestamp,
    /// When the ticket ends, by the agent's clock.
    pub expires_at: Timestamp,
}

/// New terms for a credential that a phone holds, made by `Issuer::renew` and accepted by `Gate::renew`
/// (`docs/PROTOCOL.md` section 8).
///
/// It contains a new unbound credential, at most [`MAX_OFFER_LEN`] bytes. Send it only to the agent, like an
/// [`Offer`]. `Debug` does not show the credential, and serde writes base64url without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalOffer {
    pub(crate) issuer: IssuerPublicKey,
    pub(crate) valid_for: u64,
    pub(crate) credential: CredentialBytes,
}

/// The agent's answer to a [`RenewalOffer`]. serde writes its bytes as base64url without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RenewalReceipt {
    /// The credential's id, the same as before.
    pub credential: CredentialId,
    /// The agent's time.
    pub agent_time: Timestamp,
    /// When the credential now ends, by the agent's clock. If operations were removed and the phone has used
    /// none of its renewed credentials, this can be earlier than requested.
    pub expires_at: Timestamp,
    /// Whether a renewed credential waits for the phone's next attach. If not, the new operations and this
    /// end apply already.
    pub waiting: bool,
}

/// An issuer key with its proof for one channel, made by `Issuer::registration` and accepted by
/// `Gate::register_issuer` (`docs/PROTOCOL.md` section 8).
///
/// About 106 bytes, without secrets: the signature is valid only on the channel for which it was made. serde
/// writes base64url without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration {
    pub(crate) issuer: IssuerPublicKey,
    pub(crate) signature: [u8; 64],
}

/// An issuer key whose owner has signed for the device and channel of the registration. Only
/// [`Registration::verify`] makes one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VerifiedRegistration {
    issuer: IssuerPublicKey,
    device: DevicePublicKey,
}

impl VerifiedRegistration {
    pub(crate) fn issuer(&self) -> &IssuerPublicKey {
        &self.issuer
    }

    pub(crate) fn device(&self) -> &DevicePublicKey {
        &self.device
    }
}

/// The kind of a message between desktop and agent, its first field.
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

impl Wire for Offer {
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

/// Reads a message between desktop and agent, refusing one longer than the longest kind.
fn decode<T: Wire>(bytes: &[u8]) -> Result<T, Error> {
    if bytes.len() > MAX_OFFER_LEN {
        return Err(Error::MessageMalformed);
    }
    codec::decode(bytes)
}

/// Implements the byte form of a message, and its text form for JSON.
macro_rules! message {
    ($name:ident, $what:literal) => {
        impl $name {
            /// Returns the one encoding, for sending over the desktop's own channel.
            #[must_use]
            pub fn to_bytes(&self) -> Vec<u8> {
                codec::encode(self)
            }

            #[doc = concat!("Reads ", $what, ".")]
            ///
            /// # Errors
            #[doc = concat!("[`Error::MessageMalformed`] if the bytes are not the one encoding of ", $what)]
            /// or are more than [`MAX_OFFER_LEN`]; a field's own error, such as [`Error::KeyNotCanonical`], if a
            /// field is invalid.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
                decode(bytes)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&codec::to_text(&self.to_bytes()))
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                let bytes = codec::from_text(&text).ok_or(Error::MessageMalformed);
                bytes.and_then(|bytes| Self::from_bytes(&bytes)).map_err(serde::de::Error::custom)
            }
        }
    };
}

message!(Registration, "a registration");
message!(Offer, "an offer");
message!(RenewalOffer, "a renewal");
message!(OfferReceipt, "an offer's receipt");
message!(RenewalReceipt, "a renewal's receipt");

impl Wire for RenewalOffer {
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

impl Registration {
    /// Returns the bytes that the issuer key signs: the channel's handshake hash and all three keys, so that
    /// the signature is not valid on another channel, at another agent or for another device.
    pub(crate) fn message(
        handshake_hash: &[u8; 32],
        agent: &AgentPublicKey,
        device: &DevicePublicKey,
        issuer: &IssuerPublicKey,
    ) -> Vec<u8> {
        let label = b"sessioncap/1 issuer\0".as_slice();
        [label, handshake_hash, agent.as_bytes(), device.as_bytes(), issuer.as_bytes()].concat()
    }

    /// Verifies the signature for this channel, agent and device. Costs one Ed25519 verification.
    pub(crate) fn verify(
        &self,
        handshake_hash: &[u8; 32],
        agent: &AgentPublicKey,
        device: &DevicePublicKey,
    ) -> Option<VerifiedRegistration> {
        let message = Self::message(handshake_hash, agent, device, &self.issuer);
        self.issuer
            .verify(&message, &self.signature)
            .then_some(VerifiedRegistration { issuer: self.issuer, device: *device })
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

impl Wire for Registration {
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

    fn messages() -> (Registration, Offer, RenewalOffer) {
        let issuer = crate::key::IssuerSecretKey::from_bytes([1; 32]).public();
        let credential = CredentialBytes::new(vec![0xc7; 40]).unwrap();
        let offer = Offer {
            issuer,
            ticket: TicketPublicKey::from_bytes(*issuer.as_bytes()).unwrap(),
            ticket_lifetime: 300,
            valid_for: 600,
            label: Label::default(),
            require_confirm: false,
            credential: credential.clone(),
        };
        (
            Registration { issuer, signature: [2; 64] },
            offer,
            RenewalOffer { issuer, valid_for: 600, credential },
        )
    }

    #[test]
    fn no_message_of_a_desktop_reads_as_another() {
        let (registration, offer, renewal) = messages();
        let all = [registration.to_bytes(), offer.to_bytes(), renewal.to_bytes()];
        for (at, bytes) in all.iter().enumerate() {
            let reads = [
                Registration::from_bytes(bytes).is_ok(),
                Offer::from_bytes(bytes).is_ok(),
                RenewalOffer::from_bytes(bytes).is_ok(),
            ];
            assert_eq!(reads, [at == 0, at == 1, at == 2]);
            assert!(OfferReceipt::from_bytes(bytes).is_err() && RenewalReceipt::from_bytes(bytes).is_err());
        }
    }

    #[test]
    fn debug_output_of_an_offer_and_a_renewal_hides_the_unbound_credential() {
        let (_, offer, renewal) = messages();
        for text in [format!("{offer:?}"), format!("{renewal:?}")] {
            assert!(text.contains("redacted") && !text.contains("199") && !text.contains("c7c7"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = (Offer::from_bytes(&bytes), RenewalOffer::from_bytes(&bytes), Registration::from_bytes(&bytes));
            let _ = (OfferReceipt::from_bytes(&bytes), RenewalReceipt::from_bytes(&bytes));
        }

        #[test]
        fn offers_read_back(key: [u8; 32], ticket_lifetime: u64, valid_for: u64, label in "([ -~]{0,39}[!-~])?", require_confirm: bool, credential in proptest::collection::vec(any::<u8>(), 1..=MAX_CREDENTIAL_LEN)) {
            let offer = Offer {
                issuer: crate::key::IssuerSecretKey::from_bytes(key).public(), ticket: TicketPublicKey::from_bytes(*crate::key::IssuerSecretKey::from_bytes(key).public().as_bytes()).unwrap(), ticket_lifetime, valid_for, label: Label::new(label).unwrap(), require_confirm,
                credential: CredentialBytes::new(credential).unwrap(),
            };
            let bytes = offer.to_bytes();
            prop_assert!(RenewalOffer::from_bytes(&bytes).is_err() && Registration::from_bytes(&bytes).is_err());
            prop_assert_eq!(Offer::from_bytes(&bytes), Ok(offer));
        }
    }
}
