//! The one-time ticket: a 16-byte secret in the link, a signing key derived from it on both sides,
//! and the proof of possession that redeems it (`docs/PROTOCOL.md` section 4).
//!
//! ```text
//! seed = HKDF-SHA256(salt = "sessioncap/1", ikm = s, info = "ticket-signing-key")
//! (tk, TPK) = Ed25519(seed)
//! tid = SHA-256("sessioncap/1 ticket-id\0" ‖ TPK)[..16]
//! proof = Ed25519_tk("sessioncap/1 redeem\0" ‖ A ‖ P ‖ tid)
//! ```
//!
//! The secret is known only to the desktop, the link and the phone: the agent stores `TPK` and receives a
//! signature over the two Noise static keys. Message 1 of Noise IK has no forward secrecy and can be
//! replayed, but the signature in it is useless to anyone who reads or replays it later, and at any other
//! agent.

use core::fmt;
use core::str::FromStr;

use hkdf::Hkdf;
use rand_core::{CryptoRng, RngCore};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::codec::{from_hex, to_hex};
use crate::error::Error;
use crate::id::TicketId;
use crate::key::{
    AgentPublicKey, HolderPublicKey, check_ed25519, ed25519_public, ed25519_sign, ed25519_verify,
};
use crate::secret::Secret;
use crate::text::text_forms;

const SALT: &[u8] = b"sessioncap/1";
const KEY_INFO: &[u8] = b"ticket-signing-key";
const ID_LABEL: &[u8] = b"sessioncap/1 ticket-id\0";
const PROOF_LABEL: &[u8] = b"sessioncap/1 redeem\0";
const CODE_LABEL: &[u8] = b"sessioncap/1 pair-code\0";

/// A ticket's 16-byte secret `s`. Only the desktop that generated it, the link, and the phone that scanned it
/// have it.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketSecret(Secret<16>);

impl TicketSecret {
    /// Generates a secret from the caller's generator.
    pub fn generate<R: RngCore + CryptoRng>(rng: &mut R) -> Self {
        Self(Secret::random(rng))
    }

    /// Makes a secret from stored bytes. Every 16-byte string is a valid secret.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Secret::new(bytes))
    }

    /// Returns the bytes, to be stored like a password.
    #[must_use]
    pub fn expose_bytes(&self) -> &[u8; 16] {
        self.0.expose()
    }

    /// Returns the ticket's id, which is no secret. Costs one scalar multiplication.
    #[must_use]
    pub fn id(&self) -> TicketId {
        self.public_key().id()
    }

    /// Returns the ticket's public key `TPK`, which the desktop gives to the agent. Costs one scalar
    /// multiplication.
    #[doc(hidden)]
    #[must_use]
    pub fn public_key(&self) -> TicketPublicKey {
        TicketPublicKey(ed25519_public(&self.signing_seed()))
    }

    /// Proves possession for this agent and this phone. Costs two scalar multiplications.
    pub(crate) fn prove(&self, agent: &AgentPublicKey, holder: &HolderPublicKey) -> TicketProof {
        let seed = self.signing_seed();
        let id = TicketPublicKey(ed25519_public(&seed)).id();
        TicketProof { id, signature: ed25519_sign(&seed, &proof_message(agent, holder, &id)) }
    }

    fn signing_seed(&self) -> Zeroizing<[u8; 32]> {
        let mut seed = Zeroizing::new([0; 32]);
        let expanded = Hkdf::<Sha256>::new(Some(SALT), self.0.expose()).expand(KEY_INFO, seed.as_mut_slice());
        debug_assert!(expanded.is_ok(), "HKDF-SHA256 gives up to 8,160 bytes");
        seed
    }
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSecret(redacted)")
    }
}

/// A ticket's public key `TPK`, from which the agent cannot compute the secret.
///
/// 32 bytes; `Display` and [`FromStr`] are 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketPublicKey([u8; 32]);

impl TicketPublicKey {
    /// Makes a key after checking bytes from a desktop.
    ///
    /// # Errors
    /// [`Error::KeyNotCanonical`] if the encoding is not canonical or the point is not on the curve,
    /// [`Error::KeyLowOrder`] if the point is of low order, because anybody could redeem such a ticket.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, Error> {
        check_ed25519(&bytes)?;
        Ok(Self(bytes))
    }

    /// Makes a key from bytes that were checked before this agent stored them, as
    /// [`IssuerPublicKey::from_stored`](crate::IssuerPublicKey) does.
    #[cfg(feature = "agent")]
    pub(crate) const fn from_stored(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the ticket's id.
    #[must_use]
    pub fn id(&self) -> TicketId {
        TicketId::from_bytes(first_bytes(Sha256::new().chain_update(ID_LABEL).chain_update(self.0)))
    }

    /// Whether `signature` proves possession of this ticket by `holder` at `agent`.
    pub(crate) fn verify(
        &self,
        agent: &AgentPublicKey,
        holder: &HolderPublicKey,
        signature: &[u8; 64],
    ) -> bool {
        ed25519_verify(&self.0, &proof_message(agent, holder, &self.id()), signature)
    }
}

impl fmt::Display for TicketPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for TicketPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketPublicKey({self})")
    }
}

impl FromStr for TicketPublicKey {
    type Err = Error;

    /// # Errors
    /// [`Error::KeyText`] for any other text, and as [`TicketPublicKey::from_bytes`].
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::from_bytes(from_hex(text).ok_or(Error::KeyText)?)
    }
}

impl TryFrom<[u8; 32]> for TicketPublicKey {
    type Error = Error;

    /// # Errors
    /// As [`TicketPublicKey::from_bytes`].
    fn try_from(bytes: [u8; 32]) -> Result<Self, Error> {
        Self::from_bytes(bytes)
    }
}

text_forms!(TicketPublicKey, "a public key of 64 hexadecimal digits");

/// The proof that redeems a ticket: its id and a signature over both static keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TicketProof {
    pub(crate) id: TicketId,
    pub(crate) signature: [u8; 64],
}

fn proof_message(agent: &AgentPublicKey, holder: &HolderPublicKey, id: &TicketId) -> Vec<u8> {
    [PROOF_LABEL, agent.as_bytes(), holder.as_bytes(), id.as_bytes()].concat()
}

/// The six digits that both screens show if the desktop has to confirm a phone.
///
/// The agent stores the nonce in the pending record before it tells anyone, so nobody can try keys until the
/// digits match: a wrong phone has one chance in a million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PairCode(u32);

impl PairCode {
    /// Computes the digits for a ticket, an agent, a phone and the agent's nonce.
    #[must_use]
    pub fn new(
        ticket: &TicketId,
        agent: &AgentPublicKey,
        holder: &HolderPublicKey,
        nonce: &[u8; 16],
    ) -> Self {
        let hash = Sha256::new()
            .chain_update(CODE_LABEL)
            .chain_update(ticket.as_bytes())
            .chain_update(agent.as_bytes())
            .chain_update(holder.as_bytes())
            .chain_update(nonce);
        let number = u64::from_be_bytes(first_bytes(hash)) % 1_000_000;
        Self(u32::try_from(number).unwrap_or_default())
    }
}

/// Writes two groups of three digits.
impl fmt::Display for PairCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03} {:03}", self.0 / 1_000, self.0 % 1_000)
    }
}

/// Reads what `Display` writes.
impl FromStr for PairCode {
    type Err = Error;

    /// # Errors
    /// [`Error::PairCodeText`] for any other text.
    fn from_str(text: &str) -> Result<Self, Error> {
        let group = |digits: &str| {
            let three = digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse::<u32>().ok().filter(|_| three)
        };
        let (first, second) = text.split_once(' ').ok_or(Error::PairCodeText)?;
        match (group(first), group(second)) {
            (Some(first), Some(second)) => Ok(Self(first * 1_000 + second)),
            _ => Err(Error::PairCodeText),
        }
    }
}

text_forms!(PairCode, "a pair code, two groups of three digits");

/// Returns the first `N` bytes of a SHA-256, `N` at most 32.
pub(crate) fn first_bytes<const N: usize>(hash: Sha256) -> [u8; N] {
    let mut first = [0; N];
    for (to, from) in first.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    first
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::{AgentSecretKey, HolderSecretKey};

    fn agent(seed: u8) -> AgentPublicKey {
        AgentSecretKey::from_bytes([seed; 32]).public()
    }

    fn holder(seed: u8) -> HolderPublicKey {
        HolderSecretKey::from_bytes([seed; 32]).public()
    }

    #[test]
    fn a_proof_holds_for_its_agent_phone_and_ticket_only() {
        let ticket = TicketSecret::from_bytes([1; 16]);
        let proof = ticket.prove(&agent(2), &holder(3));
        let key = ticket.public_key();
        assert_eq!(proof.id, key.id());
        assert!(key.verify(&agent(2), &holder(3), &proof.signature));
        assert!(!key.verify(&agent(4), &holder(3), &proof.signature), "relayed by another agent");
        assert!(!key.verify(&agent(2), &holder(4), &proof.signature), "replayed by another phone");
        let other = TicketSecret::from_bytes([2; 16]).public_key();
        assert!(!other.verify(&agent(2), &holder(3), &proof.signature));
    }

    #[test]
    fn the_secret_prints_nothing() {
        assert_eq!(format!("{:?}", TicketSecret::from_bytes([0xab; 16])), "TicketSecret(redacted)");
    }

    #[test]
    fn the_code_depends_on_every_input() {
        let code = |ticket: u8, a: u8, p: u8, nonce: u8| {
            PairCode::new(&TicketId::from_bytes([ticket; 16]), &agent(a), &holder(p), &[nonce; 16])
                .to_string()
        };
        let base = code(1, 2, 3, 4);
        assert_eq!(base.len(), 7);
        for other in [code(9, 2, 3, 4), code(1, 9, 3, 4), code(1, 2, 9, 4), code(1, 2, 3, 9)] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_pair_code_reads_back_from_its_one_spelling() {
        for code in ["000 000", "012 345", "999 999"] {
            assert_eq!(code.parse::<PairCode>().unwrap().to_string(), code);
        }
        for text in
            ["", "012345", "12 345", "0012 345", "012 3456", "012  345", "01 2345", " 012 345", "012 34a"]
        {
            assert_eq!(text.parse::<PairCode>(), Err(Error::PairCodeText), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bit_of_a_proof_can_change(secret: [u8; 16], byte in 0..64_usize, bit in 0..8_u32) {
            let ticket = TicketSecret::from_bytes(secret);
            let mut signature = ticket.prove(&agent(2), &holder(3)).signature;
            signature[byte] ^= 1 << bit;
            prop_assert!(!ticket.public_key().verify(&agent(2), &holder(3), &signature));
        }
    }
}
