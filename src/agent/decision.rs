//! The decisions of the policy that are on record (`docs/PROTOCOL.md` section 9).
//!
//! Without operator rules, the policy's decision on the same bytes depends on the operation and the time only
//! through the credential's own operations and end. So it decides once over all of them, and the record keeps
//! what it has allowed, under a hash of everything else that it was told. Whatever differs runs it again.

use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::codec::{self, Reader, Wire, Writer};
use crate::error::Error;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{HolderPublicKey, IssuerPublicKey};
use crate::op::OpSet;

/// Returns the SHA-256 of these parts, each after its length, so that no two lists are the same text.
pub(crate) fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let hash = parts.into_iter().fold(Sha256::new(), |hash, part| {
        hash.chain_update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes()).chain_update(part)
    });
    hash.finalize().into()
}

/// Everything that the policy was told, apart from the operations and the time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    /// [`digest`] of the policy, its rules, the agent's key and its addresses.
    pub(crate) configuration: &'a [u8; 32],
    pub(crate) credential: &'a CredentialId,
    pub(crate) ticket: &'a TicketId,
    pub(crate) holder: &'a HolderPublicKey,
    pub(crate) session: &'a SessionId,
    pub(crate) epoch: u64,
    /// Not told to the policy: the key with which the signatures were verified.
    pub(crate) issuer: &'a IssuerPublicKey,
    /// The hash of the credential's bytes.
    pub(crate) bytes: &'a [u8; 32],
}

/// What the policy has allowed for a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decision {
    /// All operations of the credential.
    pub(crate) ops: OpSet,
    /// The credential's own end.
    pub(crate) until: Timestamp,
    /// The hash of the question and of the two above.
    seal: [u8; 32],
}

impl Decision {
    pub(crate) fn new(question: &Question<'_>, ops: OpSet, until: Timestamp) -> Self {
        let seal = digest([
            question.configuration.as_slice(),
            question.credential.as_bytes(),
            question.ticket.as_bytes(),
            question.holder.as_bytes(),
            question.session.as_str().as_bytes(),
            &question.epoch.to_be_bytes(),
            question.issuer.as_bytes(),
            question.bytes,
            &u64::from(ops.bits()).to_be_bytes(),
            &until.seconds().to_be_bytes(),
        ]);
        Self { ops, until, seal }
    }

    fn answers(&self, question: &Question<'_>) -> bool {
        *self == Self::new(question, self.ops, self.until)
    }
}

impl Wire for Decision {
    fn encode(&self, writer: &mut Writer) {
        writer.array(3).uint(self.ops.bits().into()).uint(self.until.seconds()).bytes(&self.seal);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.array(3)?;
        Ok(Self {
            ops: OpSet::from_bits(reader.uint()?)?,
            until: Timestamp::from_seconds(reader.uint()?)?,
            seal: reader.array_of()?,
        })
    }
}

/// The decisions that a record keeps: the last on an edition, and the last on a copy that its holder has
/// narrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Decisions {
    edition: Option<Decision>,
    narrowed: Option<Decision>,
}

impl Decisions {
    /// Reads a record's decisions. What cannot be read is not there: the policy then decides again.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        codec::decode(bytes).unwrap_or_default()
    }

    /// Whether these are bytes that [`Decisions::to_bytes`] writes, or there are none.
    pub(crate) fn is_readable(bytes: &[u8]) -> bool {
        bytes.is_empty() || codec::decode::<Self>(bytes).is_ok()
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        codec::encode(&self)
    }

    /// Returns the decision on this question, if there is one that still holds.
    pub(crate) fn on(&self, question: &Question<'_>, now: Timestamp) -> Option<Decision> {
        let kept = [self.edition, self.narrowed].into_iter().flatten();
        kept.filter(|decision| now < decision.until).find(|decision| decision.answers(question))
    }

    /// Keeps these in place of the last of their kinds.
    #[must_use]
    pub(crate) fn and(self, newer: Self) -> Self {
        Self { edition: newer.edition.or(self.edition), narrowed: newer.narrowed.or(self.narrowed) }
    }

    /// Keeps a decision in place of the last of its kind.
    #[must_use]
    pub(crate) fn with(self, decision: Decision, narrowed: bool) -> Self {
        match narrowed {
            false => Self { edition: Some(decision), ..self },
            true => Self { narrowed: Some(decision), ..self },
        }
    }
}

impl Wire for Decisions {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2);
        for decision in [self.edition, self.narrowed] {
            writer.array(decision.iter().len());
            decision.iter().for_each(|decision| decision.encode(writer));
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.array(2)?;
        let mut one = || match reader.array(1)? {
            0 => Ok(None),
            _ => Decision::decode(reader).map(Some),
        };
        Ok(Self { edition: one()?, narrowed: one()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{HolderSecretKey, IssuerSecretKey};
    use crate::limits::MAX_VERDICT_LEN;

    struct Asked {
        configuration: [u8; 32],
        credential: CredentialId,
        ticket: TicketId,
        holder: HolderPublicKey,
        session: SessionId,
        epoch: u64,
        issuer: IssuerPublicKey,
        bytes: [u8; 32],
    }

    impl Asked {
        fn usual() -> Self {
            Self {
                configuration: [1; 32],
                credential: CredentialId::from_bytes([2; 16]),
                ticket: TicketId::from_bytes([3; 16]),
                holder: HolderSecretKey::from_bytes([4; 32]).public(),
                session: SessionId::new("session").unwrap(),
                epoch: 5,
                issuer: IssuerSecretKey::from_bytes([6; 32]).public(),
                bytes: [7; 32],
            }
        }

        fn question(&self) -> Question<'_> {
            Question {
                configuration: &self.configuration,
                credential: &self.credential,
                ticket: &self.ticket,
                holder: &self.holder,
                session: &self.session,
                epoch: self.epoch,
                issuer: &self.issuer,
                bytes: &self.bytes,
            }
        }
    }

    fn end() -> Timestamp {
        Timestamp::EPOCH.plus(600)
    }

    fn decided() -> Decision {
        Decision::new(&Asked::usual().question(), OpSet::COMPANION, end())
    }

    fn found(decisions: Decisions, asked: &Asked, now: Timestamp) -> bool {
        decisions.on(&asked.question(), now) == Some(decided())
    }

    #[test]
    fn a_decision_holds_for_its_own_question_and_for_no_other() {
        let usual = Asked::usual;
        let others = [
            Asked { configuration: [9; 32], ..usual() },
            Asked { credential: CredentialId::from_bytes([9; 16]), ..usual() },
            Asked { ticket: TicketId::from_bytes([9; 16]), ..usual() },
            Asked { holder: HolderSecretKey::from_bytes([9; 32]).public(), ..usual() },
            Asked { session: SessionId::new("sessio").unwrap(), ..usual() },
            Asked { epoch: 6, ..usual() },
            Asked { issuer: IssuerSecretKey::from_bytes([9; 32]).public(), ..usual() },
            Asked { bytes: [9; 32], ..usual() },
        ];
        for narrowed in [false, true] {
            let decisions = Decisions::default().with(decided(), narrowed);
            assert!(found(decisions, &usual(), Timestamp::EPOCH));
            for (number, other) in others.iter().enumerate() {
                assert_eq!(decisions.on(&other.question(), Timestamp::EPOCH), None, "{number}");
            }
        }
    }

    #[test]
    fn a_decision_ends_with_its_credential() {
        let decisions = Decisions::default().with(decided(), false);
        let last = Timestamp::EPOCH.plus(599);
        assert!(found(decisions, &Asked::usual(), last) && !found(decisions, &Asked::usual(), end()));
    }

    #[test]
    fn parts_are_told_apart_by_their_lengths() {
        let of = |parts: &[&str]| digest(parts.iter().map(|part| part.as_bytes()));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["a", ""]), of(&["a"]));
        assert_ne!(of(&["", "a"]), of(&["a", ""]));
    }

    #[test]
    fn decisions_fit_the_record_and_no_changed_bit_is_one() {
        let latest = Decision::new(&Asked::usual().question(), OpSet::ALL, Timestamp::MAX);
        let both = Decisions::default().with(latest, false).with(latest, true);
        assert!(both.to_bytes().len() <= MAX_VERDICT_LEN, "{}", both.to_bytes().len());
        let decisions = Decisions::default().with(decided(), false).with(latest, true);
        let bytes = decisions.to_bytes();
        assert!(Decisions::is_readable(&bytes) && Decisions::read(&bytes) == decisions);
        for bit in 0..8 * bytes.len() {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let read = Decisions::read(&changed);
            if let Some(found) = read.on(&Asked::usual().question(), Timestamp::EPOCH) {
                assert!(found == decided() || found == latest, "bit {bit}");
            }
        }
        assert_eq!(Decisions::read(b"nothing"), Decisions::default());
        assert!(!Decisions::is_readable(b"nothing") && Decisions::is_readable(&[]));
    }
}
