//! Keys: one type for each role, so that a key cannot be used in place of another.
//!
//! Agent, device and holder keys are X25519 (RFC 7748) and serve as Noise static keys. Issuer keys are
//! Ed25519 (RFC 8032). Every public key is checked when it is read: its encoding must be canonical, and its
//! point not of low order. Only this file uses the curve crates.

use core::fmt;
use core::str::FromStr;
use std::sync::OnceLock;

use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::montgomery::MontgomeryPoint;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rand_core::{CryptoRng, RngCore};

use crate::codec::{from_hex, to_hex};
use crate::error::Error;
use crate::secret::Secret;
use crate::text::text_forms;

/// The canonical u-coordinates of low order on Curve25519 and its twist: 0, 1, the two of order 8, and p - 1.
/// Key agreement with any of them gives zero.
const LOW_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
        0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    [
        0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
    ],
];

/// Whether `bytes`, little-endian, are below p = 2^255 - 19. If bit 255 is set, they are not.
fn is_canonical_x25519(bytes: &[u8; 32]) -> bool {
    let [low, middle @ .., high] = bytes;
    *high < 0x7f || (*high == 0x7f && (middle.iter().any(|byte| *byte != 0xff) || *low < 0xed))
}

fn check_x25519(bytes: &[u8; 32]) -> Result<(), Error> {
    if !is_canonical_x25519(bytes) {
        return Err(Error::KeyNotCanonical);
    }
    if LOW_ORDER.contains(bytes) {
        return Err(Error::KeyLowOrder);
    }
    Ok(())
}

/// Refuses a non-canonical encoding, and a point of low order, for which anyone can find a signature that
/// verifies.
pub(crate) fn check_ed25519(bytes: &[u8; 32]) -> Result<(), Error> {
    let point = CompressedEdwardsY(*bytes).decompress().ok_or(Error::KeyNotCanonical)?;
    if point.compress().as_bytes() != bytes {
        return Err(Error::KeyNotCanonical);
    }
    if point.is_small_order() {
        return Err(Error::KeyLowOrder);
    }
    Ok(())
}

/// A value that depends on another one and is made once it is needed.
#[derive(Clone)]
struct Kept<T>(OnceLock<T>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

/// It says nothing beyond what it depends on.
impl<T> PartialEq for Kept<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Kept<T> {}

/// Returns the shared secret of X25519 (RFC 7748 section 5).
pub(crate) fn x25519(secret: &[u8; 32], public: &[u8; 32]) -> [u8; 32] {
    MontgomeryPoint(*public).mul_clamped(*secret).to_bytes()
}

fn x25519_public(secret: &[u8; 32]) -> [u8; 32] {
    MontgomeryPoint::mul_base_clamped(*secret).to_bytes()
}

/// Returns the Ed25519 public key of a 32-byte seed (RFC 8032 section 5.1.5).
pub(crate) fn ed25519_public(seed: &[u8; 32]) -> [u8; 32] {
    SigningKey::from_bytes(seed).verifying_key().to_bytes()
}

/// Returns the Ed25519 signature of `message` (RFC 8032 section 5.1.6).
pub(crate) fn ed25519_sign(seed: &[u8; 32], message: &[u8]) -> [u8; 64] {
    SigningKey::from_bytes(seed).sign(message).to_bytes()
}

/// Verifies strictly: canonical encodings, no key or commitment of low order, no cofactor. A signer that
/// follows the RFC makes one signature for a message, and nobody else can derive a second one from it.
pub(crate) fn ed25519_verify(public: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(public)
        .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
}

macro_rules! key_pair {
    ($(#[$secret_doc:meta])* $secret:ident, $(#[$public_doc:meta])* $public:ident, $check:ident, $derive:ident) => {
        $(#[$secret_doc])*
        ///
        /// 32 bytes, wiped when dropped, never printed.
        #[derive(Clone, PartialEq, Eq)]
        pub struct $secret(Secret<32>, Kept<$public>);

        impl $secret {
            /// Generates a key from the caller's generator.
            pub fn generate<R: RngCore + CryptoRng>(rng: &mut R) -> Self {
                Self(Secret::random(rng), Kept::default())
            }

            /// Makes a key from stored bytes. Every 32-byte string is a valid key. The caller wipes its own
            /// copy.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(Secret::new(bytes), Kept::default())
            }

            /// Returns the 32 bytes to store, in a keychain or in a file that only its owner can read.
            #[must_use]
            pub fn expose_bytes(&self) -> &[u8; 32] {
                self.0.expose()
            }

            /// Returns the public key. Costs one scalar multiplication the first time, for this value and its
            /// later clones.
            #[must_use]
            pub fn public(&self) -> $public {
                *self.1.0.get_or_init(|| $public($derive(self.0.expose())))
            }
        }

        impl fmt::Debug for $secret {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($secret), "(redacted)"))
            }
        }

        $(#[$public_doc])*
        ///
        /// 32 bytes; `Display` and [`FromStr`] are 64 lower-case hexadecimal digits.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $public([u8; 32]);

        impl $public {
            /// Makes a key after checking its bytes.
            ///
            /// # Errors
            /// [`Error::KeyNotCanonical`] if the encoding is not canonical, [`Error::KeyLowOrder`] if the
            /// point is of low order, so that the key protects nothing.
            pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, Error> {
                $check(&bytes)?;
                Ok(Self(bytes))
            }

            /// Returns the 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $public {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }

        impl fmt::Debug for $public {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($public), "({})"), self)
            }
        }

        impl FromStr for $public {
            type Err = Error;

            /// # Errors
            /// [`Error::KeyText`] for any other text, and as `from_bytes`.
            fn from_str(text: &str) -> Result<Self, Error> {
                Self::from_bytes(from_hex(text).ok_or(Error::KeyText)?)
            }
        }

        impl TryFrom<[u8; 32]> for $public {
            type Error = Error;

            /// # Errors
            /// As `from_bytes`.
            fn try_from(bytes: [u8; 32]) -> Result<Self, Error> {
                Self::from_bytes(bytes)
            }
        }

        text_forms!($public, "a public key of 64 hexadecimal digits");
    };
}

key_pair! {
    /// The agent's X25519 static key, the Noise responder's. An agent may generate it anew at each boot.
    AgentSecretKey,
    /// The agent's public key, `A`. It is in the link, and the phone trusts it.
    AgentPublicKey, check_x25519, x25519_public
}
key_pair! {
    /// A desktop's X25519 static key.
    DeviceSecretKey,
    /// An enrolled desktop's public key, `D`.
    DevicePublicKey, check_x25519, x25519_public
}
key_pair! {
    /// A phone's X25519 static key: a new one for each pairing, stored before its first message is sent.
    HolderSecretKey,
    /// A phone's public key, `P`, to which a credential is bound.
    HolderPublicKey, check_x25519, x25519_public
}
key_pair! {
    /// The Ed25519 key with which a desktop signs credentials.
    IssuerSecretKey,
    /// The issuer's public key, `I`, registered at the agent by an enrolled device.
    IssuerPublicKey, check_ed25519, ed25519_public
}

#[cfg(feature = "agent")]
impl IssuerPublicKey {
    /// Makes a key from bytes that were checked before this agent stored them. The check costs about half of
    /// a signature verification, and records are read often. Verification is strict, so a key that was
    /// damaged in storage verifies nothing.
    pub(crate) const fn from_stored(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl IssuerSecretKey {
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        ed25519_sign(self.0.expose(), message)
    }
}

impl IssuerPublicKey {
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        ed25519_verify(&self.0, message, signature)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::rngs::OsRng;

    use super::*;

    const P_LOW_BYTE: u8 = 0xed;

    fn near_p(low: u8) -> [u8; 32] {
        let mut bytes = [0xff; 32];
        bytes[0] = low;
        bytes[31] = 0x7f;
        bytes
    }

    #[test]
    fn the_low_order_table_holds_exactly_the_points_that_the_cofactor_kills() {
        for bytes in LOW_ORDER {
            assert!(is_canonical_x25519(&bytes), "{bytes:02x?}");
            // every clamped scalar is a multiple of 8
            assert_eq!(MontgomeryPoint(bytes).mul_clamped([0x55; 32]).to_bytes(), [0; 32]);
            assert_eq!(HolderPublicKey::from_bytes(bytes), Err(Error::KeyLowOrder));
        }
    }

    #[test]
    fn second_spellings_of_x25519_keys_are_refused() {
        for low in P_LOW_BYTE..=0xff {
            assert_eq!(HolderPublicKey::from_bytes(near_p(low)), Err(Error::KeyNotCanonical));
        }
        assert!(HolderPublicKey::from_bytes(near_p(P_LOW_BYTE - 2)).is_ok());
        let mut bit_255 = *HolderSecretKey::generate(&mut OsRng).public().as_bytes();
        bit_255[31] |= 0x80;
        assert_eq!(HolderPublicKey::from_bytes(bit_255), Err(Error::KeyNotCanonical));
    }

    #[test]
    fn weak_and_second_spelled_issuer_keys_are_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(IssuerPublicKey::from_bytes(identity), Err(Error::KeyLowOrder));
        // y = p + 1, a second spelling of the identity
        assert_eq!(IssuerPublicKey::from_bytes(near_p(0xee)), Err(Error::KeyNotCanonical));
        // y = 2 is not on the curve
        let mut off_curve = [0; 32];
        off_curve[0] = 2;
        assert_eq!(IssuerPublicKey::from_bytes(off_curve), Err(Error::KeyNotCanonical));
    }

    #[test]
    fn rfc_7748_section_6_1_key_pairs() {
        for (secret, public) in [
            (
                "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
                "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
            ),
            (
                "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
                "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
            ),
        ] {
            let key = HolderSecretKey::from_bytes(from_hex(secret).unwrap());
            assert_eq!(key.public().to_string(), public);
        }
    }

    #[test]
    fn rfc_8032_first_test_vector() {
        let seed = from_hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let key = IssuerSecretKey::from_bytes(seed);
        assert_eq!(
            key.public().to_string(),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
        let signature = key.sign(b"");
        assert!(
            to_hex(&signature)
                .starts_with("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155")
        );
        assert!(key.public().verify(b"", &signature));
        assert!(!key.public().verify(b"x", &signature));
    }

    #[test]
    fn secrets_print_nothing() {
        let key = HolderSecretKey::from_bytes([0xab; 32]);
        assert_eq!(format!("{key:?}"), "HolderSecretKey(redacted)");
    }

    proptest! {
        #[test]
        fn public_keys_read_back_from_bytes_and_text(secret: [u8; 32]) {
            let holder = HolderSecretKey::from_bytes(secret).public();
            prop_assert_eq!(HolderPublicKey::from_bytes(*holder.as_bytes()), Ok(holder));
            prop_assert_eq!(holder.to_string().parse(), Ok(holder));
            let issuer = IssuerSecretKey::from_bytes(secret).public();
            prop_assert_eq!(IssuerPublicKey::from_bytes(*issuer.as_bytes()), Ok(issuer));
        }
    }
}
