//! Signatures that plain Ed25519 verification accepts and strict verification refuses.

use curve25519_dalek::scalar::{Scalar, clamp_integer};
use ed25519_dalek::{Signature, SigningKey, Verifier};
use sha2::{Digest, Sha512};

/// A signature of `message` whose commitment `R` is the identity: `s = H(R ‖ A ‖ message) · a` fits the
/// equation without any randomness, and a signer that follows RFC 8032 makes none like it.
pub fn signature(seed: &[u8; 32], message: &[u8]) -> [u8; 64] {
    let key = SigningKey::from_bytes(seed);
    let public = key.verifying_key();
    let hashed = Sha512::digest(seed);
    let a = Scalar::from_bytes_mod_order(clamp_integer(hashed[..32].try_into().unwrap()));
    let mut identity = [0; 32];
    identity[0] = 1;
    let k = Sha512::digest([identity.as_slice(), public.as_bytes(), message].concat());
    let k = Scalar::from_bytes_mod_order_wide(&k.into());
    let bytes: [u8; 64] = [identity, (k * a).to_bytes()].concat().try_into().unwrap();
    let signature = Signature::from_bytes(&bytes);
    assert!(public.verify(message, &signature).is_ok(), "the plain verification takes it");
    assert!(public.verify_strict(message, &signature).is_err(), "the strict one does not");
    bytes
}
