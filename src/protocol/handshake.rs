//! The payloads of handshake messages 1 and 2 (`docs/PROTOCOL.md` section 6).
//!
//! A handshake payload is four bytes of magic and one deterministic CBOR map whose last field is padding. The
//! padding extends the payload to one of a few sizes, so that an observer does not learn the length of a
//! label or credential. Each message has exactly one encoding, padding included; any other is refused.

use crate::clock::Timestamp;
use crate::codec::{Reader, Writer};
use crate::credential::bytes::CredentialBytes;
use crate::error::Error;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::label::Label;
use crate::limits::{MAX_CREDENTIAL_LEN, MAX_LABEL_LEN, MAX_PAYLOAD_LEN, MAX_SESSION_ID_LEN};
use crate::op::OpSet;
use crate::protocol::ticket::TicketProof;
use crate::status::Status;

/// The first bytes of every payload of this protocol.
pub const MAGIC: [u8; 4] = *b"SCP1";

/// The sizes to which payloads are padded, bytes.
const SIZES: [usize; 5] = [160, 1_024, 1_536, 2_560, MAX_PAYLOAD_LEN];

/// The size of most payloads that contain a credential.
const USUAL_SIZE: usize = 1_024;

/// Whether a first handshake payload belongs to this protocol. A peer with another payload, or none, may be
/// an enrolled device of the agent's own protocol, which this crate does not handle.
#[must_use]
pub fn is_scoped(payload: &[u8]) -> bool {
    payload.starts_with(&MAGIC)
}

/// The payload of message 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// Redeem a ticket.
    Redeem { proof: TicketProof, label: Label },
    /// Attach with a credential. Empty `ops` mean all operations of the credential.
    Attach { ops: OpSet, credential: CredentialBytes },
}

/// The payload of message 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Admitted. It contains a credential after a redemption, or if a renewed one waits.
    Admitted(Admitted),
    /// The desktop has to confirm; both sides derive the digits from the nonce.
    Pending { agent_time: Timestamp, seconds_left: u64, nonce: [u8; 16] },
    /// Refused, for a reason that a proven peer may know.
    Refused { status: Status, agent_time: Timestamp },
}

/// The wire statuses that are not refusals; refusals are [`Status`].
mod status {
    pub(super) const ADMITTED: u64 = 0;
    pub(super) const PENDING: u64 = 1;
}

/// The data for an admitted phone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admitted {
    pub(crate) agent_time: Timestamp,
    pub(crate) seconds_left: u64,
    pub(crate) ops: OpSet,
    pub(crate) session: SessionId,
    pub(crate) id: CredentialId,
    pub(crate) credential: Option<CredentialBytes>,
}

/// The keys of a handshake payload. Each kind of message has its own, so that its first key identifies it.
mod key {
    pub(super) const REDEEM_TICKET: u64 = 1;
    pub(super) const REDEEM_PROOF: u64 = 2;
    pub(super) const REDEEM_LABEL: u64 = 3;
    pub(super) const ATTACH_OPS: u64 = 4;
    pub(super) const ATTACH_CREDENTIAL: u64 = 5;
    pub(super) const STATUS: u64 = 6;
    pub(super) const AGENT_TIME: u64 = 7;
    pub(super) const SECONDS_LEFT: u64 = 8;
    pub(super) const GRANTED_OPS: u64 = 9;
    pub(super) const SESSION: u64 = 10;
    pub(super) const CREDENTIAL_ID: u64 = 11;
    pub(super) const CREDENTIAL: u64 = 12;
    pub(super) const NONCE: u64 = 13;
    pub(super) const PADDING: u64 = 15;
}

impl Request {
    pub(crate) fn to_payload(&self) -> Result<Vec<u8>, Error> {
        to_payload(self)
    }

    pub(crate) fn from_payload(payload: &[u8]) -> Result<Self, Error> {
        from_payload(payload)
    }
}

impl Answer {
    pub(crate) fn to_payload(&self) -> Result<Vec<u8>, Error> {
        to_payload(self)
    }

    pub(crate) fn from_payload(payload: &[u8]) -> Result<Self, Error> {
        from_payload(payload)
    }
}

/// A padded message. Its map counts the padding as one more pair.
trait Padded: Sized {
    fn encode_fields(&self, writer: &mut Writer);
    fn decode_fields(reader: &mut Reader<'_>) -> Result<Self, Error>;
}

fn to_payload<T: Padded>(message: &T) -> Result<Vec<u8>, Error> {
    // Room for most messages, so that it is taken once.
    let mut writer = Writer::with_capacity(USUAL_SIZE);
    writer.raw(&MAGIC);
    message.encode_fields(&mut writer);
    // Padding of n bytes takes one byte for its key, one to three for its length, and n.
    let fields = writer.len();
    let fits = |size: usize| {
        let room = size.checked_sub(fields + 1)?;
        [1, 2, 3].into_iter().find_map(|head| {
            let len = room.checked_sub(head)?;
            let right_head = match len {
                0..=23 => 1,
                24..=255 => 2,
                _ => 3,
            };
            (head == right_head).then_some(len)
        })
    };
    let padding = SIZES.into_iter().find_map(fits).ok_or(Error::MessageMalformed)?;
    writer.uint(key::PADDING).zeros(padding);
    Ok(writer.into_bytes())
}

fn from_payload<T: Padded>(payload: &[u8]) -> Result<T, Error> {
    if payload.len() > MAX_PAYLOAD_LEN {
        return Err(Error::MessageMalformed);
    }
    let fields = payload.strip_prefix(&MAGIC).ok_or(Error::MessageMalformed)?;
    let message = T::decode_fields(&mut Reader::new(fields))?;
    // Each message has one encoding, so comparing also checks the padding.
    if to_payload(&message)? == payload { Ok(message) } else { Err(Error::MessageMalformed) }
}

impl Padded for Request {
    fn encode_fields(&self, writer: &mut Writer) {
        match self {
            Self::Redeem { proof, label } => {
                writer.map(4).uint(key::REDEEM_TICKET).bytes(proof.id.as_bytes());
                writer.uint(key::REDEEM_PROOF).bytes(&proof.signature);
                writer.uint(key::REDEEM_LABEL).text(label.as_str());
            }
            Self::Attach { ops, credential } => {
                writer.map(3).uint(key::ATTACH_OPS).uint(ops.bits().into());
                writer.uint(key::ATTACH_CREDENTIAL).bytes(credential.as_bytes());
            }
        }
    }

    fn decode_fields(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.map()?;
        if reader.optional_key(key::REDEEM_TICKET) {
            return Ok(Self::Redeem {
                proof: TicketProof {
                    id: TicketId::from_bytes(reader.array_of()?),
                    signature: reader.key(key::REDEEM_PROOF)?.array_of()?,
                },
                label: Label::new(reader.key(key::REDEEM_LABEL)?.text(MAX_LABEL_LEN)?)?,
            });
        }
        Ok(Self::Attach {
            ops: OpSet::from_bits(reader.key(key::ATTACH_OPS)?.uint()?)?,
            credential: credential(reader.key(key::ATTACH_CREDENTIAL)?)?,
        })
    }
}

impl Padded for Answer {
    fn encode_fields(&self, writer: &mut Writer) {
        let (status, agent_time, rest) = match self {
            Self::Admitted(admitted) => {
                (status::ADMITTED, admitted.agent_time, 4 + usize::from(admitted.credential.is_some()))
            }
            Self::Pending { agent_time, .. } => (status::PENDING, *agent_time, 2),
            Self::Refused { status, agent_time } => (status.number().into(), *agent_time, 0),
        };
        writer.map(3 + rest).uint(key::STATUS).uint(status);
        writer.uint(key::AGENT_TIME).uint(agent_time.seconds());
        match self {
            Self::Admitted(admitted) => {
                writer.uint(key::SECONDS_LEFT).uint(admitted.seconds_left);
                writer.uint(key::GRANTED_OPS).uint(admitted.ops.bits().into());
                writer.uint(key::SESSION).text(admitted.session.as_str());
                writer.uint(key::CREDENTIAL_ID).bytes(admitted.id.as_bytes());
                if let Some(credential) = &admitted.credential {
                    writer.uint(key::CREDENTIAL).bytes(credential.as_bytes());
                }
            }
            Self::Pending { seconds_left, nonce, .. } => {
                writer.uint(key::SECONDS_LEFT).uint(*seconds_left).uint(key::NONCE).bytes(nonce);
            }
            Self::Refused { .. } => {}
        }
    }

    fn decode_fields(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.map()?;
        let status = reader.key(key::STATUS)?.uint()?;
        let agent_time = Timestamp::from_seconds(reader.key(key::AGENT_TIME)?.uint()?)?;
        match status {
            status::ADMITTED => Ok(Self::Admitted(Admitted {
                agent_time,
                seconds_left: reader.key(key::SECONDS_LEFT)?.uint()?,
                ops: match OpSet::from_bits(reader.key(key::GRANTED_OPS)?.uint()?)? {
                    OpSet::EMPTY => return Err(Error::OpsEmpty),
                    ops => ops,
                },
                session: SessionId::new(reader.key(key::SESSION)?.text(MAX_SESSION_ID_LEN)?)?,
                id: CredentialId::from_bytes(reader.key(key::CREDENTIAL_ID)?.array_of()?),
                credential: match reader.optional_key(key::CREDENTIAL) {
                    true => Some(credential(reader)?),
                    false => None,
                },
            })),
            status::PENDING => Ok(Self::Pending {
                agent_time,
                seconds_left: reader.key(key::SECONDS_LEFT)?.uint()?,
                nonce: reader.key(key::NONCE)?.array_of()?,
            }),
            number => {
                let status = Status::from_number(number).ok_or(Error::MessageMalformed)?;
                Ok(Self::Refused { status, agent_time })
            }
        }
    }
}

fn credential(reader: &mut Reader<'_>) -> Result<CredentialBytes, Error> {
    CredentialBytes::new(reader.bytes(MAX_CREDENTIAL_LEN)?.to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_request() -> impl Strategy<Value = Request> {
        prop_oneof![
            (any::<[u8; 16]>(), any::<[u8; 64]>(), "([ -~é]{0,19}[!-~])?").prop_map(
                |(id, signature, label)| {
                    Request::Redeem {
                        proof: TicketProof { id: TicketId::from_bytes(id), signature },
                        label: Label::new(label).unwrap(),
                    }
                }
            ),
            (0..=0xff_u64, proptest::collection::vec(any::<u8>(), 1..=MAX_CREDENTIAL_LEN)).prop_map(
                |(ops, credential)| {
                    Request::Attach {
                        ops: OpSet::from_bits(ops).unwrap(),
                        credential: CredentialBytes::new(credential).unwrap(),
                    }
                }
            ),
        ]
    }

    fn any_answer() -> impl Strategy<Value = Answer> {
        let time = (0..253_402_300_800_u64).prop_map(|seconds| Timestamp::from_seconds(seconds).unwrap());
        let credential = proptest::option::of(proptest::collection::vec(any::<u8>(), 1..=MAX_CREDENTIAL_LEN));
        prop_oneof![
            (time.clone(), any::<u64>(), 1..=0xff_u64, "[a-z0-9-]{1,128}", any::<[u8; 16]>(), credential)
                .prop_map(|(agent_time, seconds_left, ops, session, id, credential)| Answer::Admitted(
                    Admitted {
                        agent_time,
                        seconds_left,
                        ops: OpSet::from_bits(ops).unwrap(),
                        session: SessionId::new(session).unwrap(),
                        id: CredentialId::from_bytes(id),
                        credential: credential.map(|bytes| CredentialBytes::new(bytes).unwrap()),
                    }
                )),
            (time.clone(), any::<u64>(), any::<[u8; 16]>()).prop_map(|(agent_time, seconds_left, nonce)| {
                Answer::Pending { agent_time, seconds_left, nonce }
            }),
            (time, 0..Status::ALL.len())
                .prop_map(|(agent_time, status)| Answer::Refused { status: Status::ALL[status], agent_time }),
        ]
    }

    #[test]
    fn redemption_fits_256_bytes_on_the_wire_whatever_the_label() {
        for len in 0..=MAX_LABEL_LEN {
            let proof = TicketProof { id: TicketId::from_bytes([255; 16]), signature: [255; 64] };
            let request = Request::Redeem { proof, label: Label::new("x".repeat(len)).unwrap() };
            assert_eq!(request.to_payload().unwrap().len() + 96, 256);
        }
    }

    #[test]
    fn a_foreign_payload_is_not_ours() {
        for payload in [b"".as_slice(), b"SCP", b"SCP0....", b"{\"method\""] {
            assert!(!is_scoped(payload));
            assert!(Request::from_payload(payload).is_err());
        }
    }

    #[test]
    fn padding_is_zero_and_of_its_one_length() {
        let request = Request::Redeem {
            proof: TicketProof { id: TicketId::from_bytes([1; 16]), signature: [2; 64] },
            label: Label::default(),
        };
        let good = request.to_payload().unwrap();
        let mut nonzero = good.clone();
        *nonzero.last_mut().unwrap() = 1;
        assert!(Request::from_payload(&nonzero).is_err());
        assert!(Request::from_payload(&good[..good.len() - 1]).is_err());
        assert!(Request::from_payload(&[good.as_slice(), &[0]].concat()).is_err());
    }

    proptest! {
        #[test]
        fn requests_read_back_in_one_of_the_sizes(request in any_request()) {
            let payload = request.to_payload().unwrap();
            prop_assert!(SIZES.contains(&payload.len()));
            prop_assert_eq!(Request::from_payload(&payload), Ok(request));
        }

        #[test]
        fn answers_read_back_in_one_of_the_sizes(answer in any_answer()) {
            let payload = answer.to_payload().unwrap();
            prop_assert!(SIZES.contains(&payload.len()));
            prop_assert_eq!(Answer::from_payload(&payload), Ok(answer));
        }

        #[test]
        fn a_changed_payload_is_another_message_or_none(request in any_request(), place in 0..5_000_usize, bit in 0..8_u32) {
            let mut payload = request.to_payload().unwrap();
            let place = place % payload.len();
            payload[place] ^= 1 << bit;
            if let Ok(other) = Request::from_payload(&payload) {
                prop_assert_ne!(&other, &request);
                prop_assert_eq!(other.to_payload().unwrap(), payload);
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let framed = [MAGIC.as_slice(), &bytes].concat();
            let _ = (Request::from_payload(&framed), Answer::from_payload(&framed));
        }

    }
}
