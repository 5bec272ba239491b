//! What waits for one viewer, bounded in bytes: nobody who fills it waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, mpsc};

/// Fills a viewer's queue.
#[derive(Debug, Clone)]
pub struct Outbox<T> {
    queue: mpsc::UnboundedSender<(T, usize)>,
    waiting: Arc<AtomicUsize>,
    overflowed: Arc<Notify>,
    most: usize,
}

/// Empties it.
#[derive(Debug)]
pub struct Inbox<T> {
    queue: mpsc::UnboundedReceiver<(T, usize)>,
    waiting: Arc<AtomicUsize>,
    overflowed: Arc<Notify>,
}

/// What comes out of a queue.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// The next one.
    Item(T),
    /// More has come than the queue takes. What comes after it is lost, so the viewer has to begin anew.
    Overflow,
    /// Nothing more will come.
    End,
}

/// Bytes that wait for one phone at most.
pub const FOR_PHONE: usize = 8 << 20;
/// Bytes that wait for one desktop at most. It is the owner's, and a client of it that draws slowly is no fault.
pub const FOR_DESKTOP: usize = 64 << 20;

/// Marks a queue that has overflowed.
const OVERFLOWED: usize = usize::MAX / 2;

/// A queue in which at most so many bytes wait.
#[must_use]
pub fn outbox<T>(most: usize) -> (Outbox<T>, Inbox<T>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let overflowed = Arc::new(Notify::new());
    let outbox =
        Outbox { queue: sender, waiting: Arc::clone(&waiting), overflowed: Arc::clone(&overflowed), most };
    (outbox, Inbox { queue: receiver, waiting, overflowed })
}

impl<T> Outbox<T> {
    /// Adds one of this many bytes. Returns whether there was room; if not, the viewer gets
    /// [`Next::Overflow`] after what waits already, and nothing more.
    pub fn push(&self, item: T, bytes: usize) -> bool {
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let has_room = before.saturating_add(bytes) <= self.most;
        if has_room {
            // A viewer that is gone needs nothing.
            let _ = self.queue.send((item, bytes));
        } else {
            self.waiting.fetch_max(OVERFLOWED, Ordering::Relaxed);
            self.overflowed.notify_one();
        }
        has_room
    }
}

impl<T> Inbox<T> {
    /// Waits until more has come than the queue takes.
    pub async fn overflowed(&self) {
        while self.waiting.load(Ordering::Relaxed) < OVERFLOWED {
            self.overflowed.notified().await;
        }
    }

    /// The next one. Cancel-safe.
    pub async fn next(&mut self) -> Next<T> {
        if self.waiting.load(Ordering::Relaxed) >= OVERFLOWED {
            return Next::Overflow;
        }
        match self.queue.recv().await {
            Some((item, bytes)) => {
                self.waiting.fetch_sub(bytes, Ordering::Relaxed);
                Next::Item(item)
            }
            None => Next::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_viewer_that_takes_nothing_is_told_and_costs_a_bounded_number_of_bytes() {
        let (outbox, mut inbox) = outbox(1000);
        let taken = (0..100).take_while(|number| outbox.push(*number, 100)).count();
        assert_eq!(taken, 10);
        assert_eq!(inbox.next().await, Next::Overflow);
        assert!(!outbox.push(100, 0));
        assert_eq!(inbox.next().await, Next::Overflow);
    }

    #[tokio::test]
    async fn what_was_taken_makes_room() {
        let (outbox, mut inbox) = outbox(1000);
        for number in 0..100 {
            assert!(outbox.push(number, 1000));
            assert_eq!(inbox.next().await, Next::Item(number));
        }
        drop(outbox);
        assert_eq!(inbox.next().await, Next::<i32>::End);
    }
}
