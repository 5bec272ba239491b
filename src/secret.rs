//! Containers for secret bytes: wiped when dropped, compared in constant time, never printed.

use core::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// `N` secret bytes on the heap.
///
/// They are wiped when dropped and kept behind a pointer, so that moving the value leaves no copies on the
/// stack. `Debug` prints none of the bytes, and equality takes the same time for all inputs.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// Takes the bytes. The caller wipes its own copy.
    pub(crate) fn new(bytes: [u8; N]) -> Self {
        let mut bytes = bytes;
        let secret = Self(Box::new(bytes));
        bytes.zeroize();
        secret
    }

    /// Fills a new secret from the caller's generator.
    pub(crate) fn random<R: rand_core::RngCore + rand_core::CryptoRng>(rng: &mut R) -> Self {
        let mut secret = Self(Box::new([0; N]));
        rng.fill_bytes(secret.0.as_mut_slice());
        secret
    }

    pub(crate) fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl<const N: usize> Eq for Secret<N> {}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_holds_no_secret_byte() {
        assert_eq!(format!("{:?}", Secret::new([0xab; 16])), "Secret(redacted)");
    }

    #[test]
    fn equality_looks_at_every_byte() {
        for position in 0..16 {
            let mut other = [7; 16];
            other[position] ^= 0x80;
            assert_ne!(Secret::new([7; 16]), Secret::new(other));
        }
        assert_eq!(Secret::new([7; 16]), Secret::new([7; 16]));
    }
}
