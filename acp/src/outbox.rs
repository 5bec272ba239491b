//! A viewer's queue, bounded in bytes: nobody who fills it waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{Notify, mpsc};

/// Fills a viewer's queue.
#[derive(Debug, Clone)]
pub struct Outbox<T> {
    queue: mpsc::UnboundedSender<(T, usize)>,
    waiting: Arc<AtomicUsize>,
    overflow: Arc<Overflow>,
    most: usize,
}

/// Empties it.
#[derive(Debug)]
pub struct Inbox<T> {
    queue: mpsc::UnboundedReceiver<(T, usize)>,
    waiting: Arc<AtomicUsize>,
    overflow: Arc<Overflow>,
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

/// Whether a queue has overflowed. Never taken back.
#[derive(Debug, Default)]
struct Overflow {
    has: AtomicBool,
    told: Notify,
}

/// A queue in which at most so many bytes wait.
#[must_use]
pub fn outbox<T>(most: usize) -> (Outbox<T>, Inbox<T>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let overflow = Arc::new(Overflow::default());
    let outbox =
        Outbox { queue: sender, waiting: Arc::clone(&waiting), overflow: Arc::clone(&overflow), most };
    (outbox, Inbox { queue: receiver, waiting, overflow })
}

impl<T> Outbox<T> {
    /// Adds one of this many bytes. Returns whether there was room; if not, the viewer gets
    /// [`Next::Overflow`] after what waits already, and nothing more.
    pub fn push(&self, item: T, bytes: usize) -> bool {
        if self.overflow.has.load(Ordering::Relaxed) {
            return false;
        }
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let has_room = before.saturating_add(bytes) <= self.most;
        if has_room {
            // A viewer that is gone needs nothing.
            let _ = self.queue.send((item, bytes));
        } else {
            self.overflow.has.store(true, Ordering::Relaxed);
            self.overflow.told.notify_one();
        }
        has_room
    }
}

impl<T> Inbox<T> {
    /// Waits until more has come than the queue takes.
    pub async fn overflowed(&self) {
        while !self.overflow.has.load(Ordering::Relaxed) {
            self.overflow.told.notified().await;
        }
    }

    /// The next one. Cancel-safe.
    pub async fn next(&mut self) -> Next<T> {
        if self.overflow.has.load(Ordering::Relaxed) {
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
    #![allow(clippy::unwrap_used, reason = "tests")]

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
    async fn an_overflow_while_something_is_taken_is_not_forgotten() {
        let (outbox, mut inbox) = outbox(1000);
        assert!(outbox.push(0, 900));
        // As if the one had been taken a moment before the overflow, and its room given back after it.
        let taken = inbox.queue.try_recv().unwrap();
        assert!(!outbox.push(1, 900));
        inbox.waiting.fetch_sub(taken.1, Ordering::Relaxed);
        assert_eq!(inbox.next().await, Next::Overflow);
        inbox.overflowed().await;
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
