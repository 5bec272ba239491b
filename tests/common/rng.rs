//! A generator whose bytes anyone can compute again.

use rand_core::{CryptoRng, Error, RngCore, impls};
use sha2::{Digest, Sha256};

/// `SHA-256("sessioncap counter rng" ‖ seed ‖ 0) ‖ SHA-256(… ‖ 1) ‖ …`, seed and counter as eight
/// bytes each, the highest first. For tests and vectors only.
#[derive(Debug, Clone)]
pub struct CounterRng {
    seed: u64,
    counter: u64,
    left: Vec<u8>,
}

impl CounterRng {
    pub fn new(seed: u64) -> Self {
        Self { seed, counter: 0, left: Vec::new() }
    }
}

impl RngCore for CounterRng {
    fn next_u32(&mut self) -> u32 {
        impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        for byte in dest {
            if self.left.is_empty() {
                let block = Sha256::new()
                    .chain_update(b"sessioncap counter rng")
                    .chain_update(self.seed.to_be_bytes())
                    .chain_update(self.counter.to_be_bytes())
                    .finalize();
                // the last byte is taken first from the end of a reversed copy
                self.left = block.iter().rev().copied().collect();
                self.counter += 1;
            }
            *byte = self.left.pop().unwrap_or_default();
        }
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

// It is none. The library asks for one, and a vector must be the same every time.
impl CryptoRng for CounterRng {}

/// Gives the bytes that it was made with, and panics when more are drawn.
#[derive(Debug, Clone)]
pub struct Fixed(Vec<u8>);

impl Fixed {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }
}

impl RngCore for Fixed {
    fn next_u32(&mut self) -> u32 {
        impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        assert!(dest.len() <= self.0.len(), "more was drawn than was fixed");
        dest.copy_from_slice(&self.0.drain(..dest.len()).collect::<Vec<_>>());
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

impl CryptoRng for Fixed {}
