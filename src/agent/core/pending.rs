//! Admissions that wait for their first frame. Their number is bounded, because anyone who saw a message 1
//! can replay it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use time::Duration;

use crate::agent::denial::Denial;
use crate::id::CredentialId;
use crate::limits::MAX_PENDING;
use crate::sync::{AtomicBool, Ordering};

/// Held by an admission while it waits.
pub(crate) struct PendingMark {
    /// Whether newer admissions have displaced it.
    displaced: AtomicBool,
    until: Duration,
}

impl PendingMark {
    pub(crate) fn is_displaced(&self) -> bool {
        self.displaced.load(Ordering::Acquire)
    }
}

/// The waiting admissions, by first message and by credential.
#[derive(Default)]
pub(crate) struct Waiting {
    messages: HashMap<[u8; 32], Weak<PendingMark>>,
    credentials: HashMap<CredentialId, VecDeque<Weak<PendingMark>>>,
    prune_at: usize,
}

fn waits(mark: &Weak<PendingMark>, now: Duration) -> bool {
    mark.upgrade().is_some_and(|mark| now < mark.until && !mark.is_displaced())
}

impl Waiting {
    /// Refuses a first message if an admission by it already waits.
    pub(crate) fn check(&self, message: &[u8; 32], now: Duration) -> Result<(), Denial> {
        match self.messages.get(message) {
            Some(mark) if waits(mark, now) => Err(Denial::Repeated),
            _ => Ok(()),
        }
    }

    /// Adds a waiting admission. If its credential has too many, the oldest is displaced.
    pub(crate) fn add(
        &mut self,
        credential: CredentialId,
        message: [u8; 32],
        until: Duration,
        now: Duration,
    ) -> Result<Arc<PendingMark>, Denial> {
        self.check(&message, now)?;
        if self.messages.len() >= self.prune_at {
            self.messages.retain(|_, mark| waits(mark, now));
            self.credentials.retain(|_, marks| marks.iter().any(|mark| waits(mark, now)));
            self.prune_at = self.messages.len().saturating_mul(2).max(64);
        }
        let mark = Arc::new(PendingMark { displaced: AtomicBool::new(false), until });
        self.messages.insert(message, Arc::downgrade(&mark));
        let marks = self.credentials.entry(credential).or_default();
        marks.retain(|mark| waits(mark, now));
        if marks.len() >= MAX_PENDING
            && let Some(oldest) = marks.pop_front().and_then(|oldest| oldest.upgrade())
        {
            oldest.displaced.store(true, Ordering::Release);
        }
        marks.push_back(Arc::downgrade(&mark));
        Ok(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: Duration = Duration::seconds(30);

    fn message(number: usize) -> [u8; 32] {
        [u8::try_from(number).unwrap(); 32]
    }

    #[test]
    fn a_message_may_come_again_once_its_admission_has_run_out_or_gone() {
        let (mut waiting, id) = (Waiting::default(), CredentialId::from_bytes([1; 16]));
        let held = waiting.add(id, message(0), END, Duration::ZERO).unwrap();
        let moment_before = END - Duration::NANOSECOND;
        assert_eq!(waiting.check(&message(0), moment_before), Err(Denial::Repeated));
        assert!(waiting.add(id, message(0), END, moment_before).is_err());
        assert_eq!(waiting.check(&message(0), END), Ok(()), "held, and over");
        assert_eq!(waiting.check(&message(1), Duration::ZERO), Ok(()));
        drop(held);
        assert_eq!(waiting.check(&message(0), Duration::ZERO), Ok(()));
    }

    #[test]
    fn the_oldest_admission_of_a_credential_goes_and_those_of_others_stay() {
        let (mut waiting, id) = (Waiting::default(), CredentialId::from_bytes([1; 16]));
        let other =
            waiting.add(CredentialId::from_bytes([2; 16]), message(200), END, Duration::ZERO).unwrap();
        let held: Vec<_> = (0..MAX_PENDING)
            .map(|number| waiting.add(id, message(number), END, Duration::ZERO).unwrap())
            .collect();
        assert!(held.iter().all(|mark| !mark.is_displaced()));
        let _next = waiting.add(id, message(MAX_PENDING), END, Duration::ZERO).unwrap();
        let displaced: Vec<bool> = held.iter().map(|mark| mark.is_displaced()).collect();
        assert_eq!(displaced.iter().filter(|displaced| **displaced).count(), 1);
        assert!(displaced[0] && !other.is_displaced());
        assert_eq!(waiting.check(&message(0), Duration::ZERO), Ok(()), "it does not wait any more");
        assert_eq!(waiting.check(&message(1), Duration::ZERO), Err(Denial::Repeated));
    }
}
