//! Counters of frames: one set for each guard that exists, so that no guard waits for another to count.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// How many sets are made at first. Each further time, as many are made as there are.
const FIRST: usize = 16;

/// The sets of all guards, also of those that are gone. Reading them takes no lock.
#[derive(Default)]
pub(super) struct Frames {
    /// Each is made once, in their order.
    blocks: [OnceLock<Arc<[FrameCounters]>>; 32],
    /// The sets that no guard has.
    free: Mutex<Vec<Place>>,
}

type Place = (Arc<[FrameCounters]>, usize);

/// Counts the frames of one guard, and goes on from what the guards before it have counted. On a cache line of its own,
/// so that guards of other cores do not wait.
#[derive(Debug, Default)]
#[repr(align(64))]
struct FrameCounters {
    permitted: Frame,
    refused: Frame,
    stale: Frame,
}

/// A number that only grows, and that one guard at a time writes.
#[derive(Debug, Default)]
struct Frame(AtomicU64);

impl Frame {
    /// Only the guard that has the set may call it: two that add at once would lose a frame.
    #[inline]
    fn add_one(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

impl Frames {
    /// Returns how many frames were permitted, refused and stale.
    pub(super) fn read(&self) -> [u64; 3] {
        let blocks = self.blocks.iter().map_while(OnceLock::get);
        blocks.flat_map(|block| block.iter()).fold([0; 3], |[permitted, refused, stale], counters| {
            let plus = |sum: u64, frame: &Frame| sum.saturating_add(frame.0.load(Ordering::Relaxed));
            [
                plus(permitted, &counters.permitted),
                plus(refused, &counters.refused),
                plus(stale, &counters.stale),
            ]
        })
    }

    /// Returns a set that no other guard has.
    fn take(&self) -> Place {
        // The lock is held also while sets are made, so that no block is made twice, and is what makes the counts of the
        // guard before visible to the next one.
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.is_empty() {
            let made = self.blocks.iter().map_while(OnceLock::get).map(|block| block.len()).sum::<usize>();
            let block: Arc<[FrameCounters]> =
                core::iter::repeat_with(FrameCounters::default).take(made.max(FIRST)).collect();
            if let Some(next) = self.blocks.iter().find(|block| block.get().is_none()) {
                let _ = next.set(Arc::clone(&block));
            }
            free.extend((0..block.len()).rev().map(|at| (Arc::clone(&block), at)));
        }
        free.pop().unwrap_or_default()
    }

    fn give_back(&self, place: Place) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(place);
    }
}

/// The set of one guard, which goes to another when this is dropped.
pub(crate) struct FrameCount {
    place: Place,
    of: Arc<super::Counters>,
}

impl FrameCount {
    pub(crate) fn new(of: Arc<super::Counters>) -> Self {
        Self { place: of.frames.take(), of }
    }

    #[inline]
    pub(crate) fn permitted(&mut self) {
        self.counters().inspect(|counters| counters.permitted.add_one());
    }

    pub(crate) fn refused(&mut self) {
        self.counters().inspect(|counters| counters.refused.add_one());
    }

    pub(crate) fn stale(&mut self) {
        self.counters().inspect(|counters| counters.stale.add_one());
    }

    #[inline]
    fn counters(&self) -> Option<&FrameCounters> {
        let (block, at) = &self.place;
        block.get(*at)
    }
}

impl Drop for FrameCount {
    fn drop(&mut self) {
        self.of.frames.give_back(core::mem::take(&mut self.place));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Counters;
    use super::*;

    #[test]
    fn guards_that_come_and_go_lose_no_frame() {
        let counters = Arc::new(Counters::default());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let mut held: Vec<_> =
                            (0..7).map(|_| FrameCount::new(Arc::clone(&counters))).collect();
                        for count in &mut held {
                            count.permitted();
                            count.refused();
                            count.permitted();
                            count.stale();
                        }
                    }
                });
            }
        });
        assert_eq!(counters.frames.read(), [2 * 5_600, 5_600, 5_600]);
        let made: usize =
            counters.frames.blocks.iter().map_while(OnceLock::get).map(|block| block.len()).sum();
        assert!(made <= 64, "sets are used again: {made}");
        assert_eq!(counters.frames.free.lock().unwrap().len(), made, "and all were given back");
    }

    #[test]
    fn no_two_guards_have_the_same_set() {
        let counters = Arc::new(Counters::default());
        let mut held: Vec<_> = (0..200).map(|_| FrameCount::new(Arc::clone(&counters))).collect();
        held.iter_mut().for_each(FrameCount::permitted);
        let once = |count: &FrameCount| count.counters().unwrap().permitted.0.load(Ordering::Relaxed);
        assert!(held.iter().all(|count| once(count) == 1));
        assert_eq!(counters.frames.read(), [200, 0, 0]);
    }
}
