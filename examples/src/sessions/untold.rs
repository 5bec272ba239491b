//! Floors that an agent has not told the others yet.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::Notify;

use super::message::Floor;
use crate::lock;

/// The latest floor of each credential. So it is no longer than the list of credentials, however long the server
/// cannot be reached.
#[derive(Default)]
pub(super) struct Untold {
    floors: Mutex<VecDeque<Floor>>,
    added: Notify,
}

impl Untold {
    /// In the place of an earlier one of the credential: a later floor is never less.
    pub(super) fn add(&self, floor: Floor) {
        let mut floors = lock(&self.floors);
        floors.retain(|earlier| earlier.credential != floor.credential);
        floors.push_back(floor);
        drop(floors);
        self.added.notify_one();
    }

    /// One that could not be told. A later one of the credential stands.
    pub(super) fn return_unsent(&self, floor: Floor) {
        let mut floors = lock(&self.floors);
        if !floors.iter().any(|later| later.credential == floor.credential) {
            floors.push_front(floor);
        }
    }

    /// Takes the one that waits longest. Cancel-safe.
    pub(super) async fn take(&self) -> Floor {
        loop {
            if let Some(floor) = lock(&self.floors).pop_front() {
                return floor;
            }
            self.added.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floor(credential: &str, position: u64) -> Floor {
        Floor { credential: credential.to_owned(), session: "s".to_owned(), position: Some(position) }
    }

    #[tokio::test]
    async fn only_the_latest_floor_of_a_credential_waits_and_one_that_was_not_sent_comes_first() {
        let untold = Untold::default();
        for position in 0..9 {
            untold.add(floor("a", position));
            untold.add(floor("b", position));
        }
        assert_eq!(lock(&untold.floors).len(), 2);
        let first = untold.take().await;
        assert_eq!(first, floor("a", 8));
        untold.return_unsent(first);
        assert_eq!(untold.take().await, floor("a", 8));
        untold.add(floor("a", 9));
        untold.return_unsent(floor("a", 8));
        assert_eq!(untold.take().await, floor("b", 8));
        assert_eq!(untold.take().await, floor("a", 9));
    }
}
