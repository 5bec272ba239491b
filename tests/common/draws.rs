//! What the world of the tests draws from.

use std::cell::RefCell;

use rand::rngs::OsRng;
use rand_core::{CryptoRng, Error, RngCore, impls};

use super::rng::CounterRng;

thread_local! {
    static SEEDED: RefCell<Option<CounterRng>> = const { RefCell::new(None) };
}

/// Does this with draws of [`Draws`] that are the same every time, on this thread.
pub fn seeded<T>(seed: u64, act: impl FnOnce() -> T) -> T {
    let before = SEEDED.replace(Some(CounterRng::new(seed)));
    let done = act();
    SEEDED.replace(before);
    done
}

/// What the world of the tests draws from: the system, or within [`seeded`] its generator.
#[derive(Debug, Clone, Copy)]
pub struct Draws;

impl RngCore for Draws {
    fn next_u32(&mut self) -> u32 {
        impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        SEEDED.with_borrow_mut(|seeded| match seeded {
            Some(seeded) => seeded.fill_bytes(dest),
            None => OsRng.fill_bytes(dest),
        });
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

// Within `seeded` it is none, as the other says.
impl CryptoRng for Draws {}
