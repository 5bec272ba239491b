//! Narrows the guards of a credential.

use super::{Live, Terms, lock};
use crate::sync::Ordering;

impl Live {
    /// Narrows every guard of the credential. No permit outside these terms is granted afterwards.
    pub(crate) fn narrow(&self, to: Terms) {
        // Holding the list's lock prevents a fork from copying the old terms and joining afterwards.
        let slots = lock(&self.slots);
        self.narrowings.fetch_add(1, Ordering::Release);
        for slot in slots.iter() {
            let mut terms = lock(&slot.terms);
            *terms = terms.meet(to);
            drop(terms);
            slot.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// Counts the narrowings. One that came before a guard joined has not narrowed it, and is counted once the
    /// guard has joined.
    pub(crate) fn narrowings(&self) -> u32 {
        self.narrowings.load(Ordering::Acquire)
    }
}
