//! What a session puts out, and its readers.
//!
//! Readers come for it, so one that is slow or gone costs the others nothing. A flood runs at the pace
//! of the fastest reader, as long as that one reads at all; where some lead, of the fastest of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::{CHUNK, lock};

/// Bytes of output kept, for the history and for readers that are behind.
const TRANSCRIPT: usize = 1024 * 1024;

/// How far the output may run ahead of its fastest reader.
const AHEAD: u64 = 256 * 1024;
/// How long the output waits for readers of which none reads on.
const PATIENCE: Duration = Duration::from_secs(1);

/// What [`Output::next`] returns. After `Lagged` or `Ended`, every further call returns the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputEvent {
    /// Between 1 byte and 4 KiB.
    Data(Vec<u8>),
    /// This reader fell more than 1 MiB behind and gets no more; it may attach again.
    Lagged,
    /// The session has ended, and this reader has had all of its output.
    Ended,
}

/// The output of a session from the moment of attaching. Dropping it detaches.
pub struct Output {
    feed: Arc<Feed>,
    /// How much of the stream this reader has had.
    position: u64,
    rank: Rank,
}

/// Whose pace counts.
#[derive(Clone, Copy)]
enum Rank {
    Follows,
    Leads,
}

impl Output {
    /// Makes this a reader whose pace counts before that of those who only follow: a network that
    /// takes a flood for one of them must not leave it behind.
    pub fn lead(mut self) -> Self {
        let mut transcript = lock(&self.feed.transcript);
        transcript.pace(self.rank).leave();
        self.rank = Rank::Leads;
        transcript.pace(self.rank).join(self.position);
        drop(transcript);
        self
    }

    /// How many bytes of the session's output came before the next event.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next event. Cancel-safe: nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> OutputEvent {
        loop {
            // Before the look, so that no change after it is missed.
            let changed = self.feed.changed.notified();
            let event = {
                let mut transcript = lock(&self.feed.transcript);
                let event = transcript.event_at(self.position);
                if let Some(OutputEvent::Data(chunk)) = &event {
                    self.position = self.position.saturating_add(chunk.len() as u64);
                    let pace = transcript.pace(self.rank);
                    pace.furthest = pace.furthest.max(self.position);
                }
                event
            };
            match event {
                Some(event) => {
                    self.feed.read_on.notify_waiters();
                    return event;
                }
                None => changed.await,
            }
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let mut transcript = lock(&self.feed.transcript);
        transcript.pace(self.rank).leave();
        drop(transcript);
        self.feed.read_on.notify_waiters();
    }
}

#[derive(Default)]
pub(super) struct Feed {
    transcript: Mutex<Transcript>,
    changed: Notify,
    read_on: Notify,
}

/// The last bytes of a stream.
#[derive(Default)]
struct Transcript {
    bytes: VecDeque<u8>,
    /// The length of the whole stream.
    end: u64,
    complete: bool,
    following: Pace,
    leading: Pace,
}

/// Readers of one rank.
#[derive(Default)]
struct Pace {
    readers: usize,
    /// How much of the stream the fastest of them has had.
    furthest: u64,
    /// Where the fastest was when it was waited for in vain.
    stalled_at: Option<u64>,
}

impl Pace {
    fn join(&mut self, position: u64) {
        // What readers have had who are gone does not count.
        self.furthest = if self.readers == 0 { position } else { self.furthest.max(position) };
        self.readers = self.readers.saturating_add(1);
    }

    fn leave(&mut self) {
        self.readers = self.readers.saturating_sub(1);
    }
}

impl Feed {
    /// A reader from this position on. One that is not kept any more gets [`OutputEvent::Lagged`].
    pub(super) fn read_from(self: &Arc<Self>, position: u64) -> Output {
        lock(&self.transcript).following.join(position);
        Output { feed: Arc::clone(self), position, rank: Rank::Follows }
    }

    /// The positions of the first byte that is kept and after the last.
    pub(super) fn kept(&self) -> (u64, u64) {
        let transcript = lock(&self.transcript);
        (transcript.end.saturating_sub(transcript.bytes.len() as u64), transcript.end)
    }

    pub(super) fn history(&self) -> Vec<u8> {
        lock(&self.transcript).tail(TRANSCRIPT)
    }

    /// Waits while the output is far ahead of every reader, but not for readers that have stopped.
    pub(super) async fn pace(&self) {
        loop {
            let read_on = self.read_on.notified();
            if !lock(&self.transcript).is_far_ahead() {
                return;
            }
            if timeout(PATIENCE, read_on).await.is_err() {
                let mut transcript = lock(&self.transcript);
                let pace = transcript.counting();
                pace.stalled_at = Some(pace.furthest);
                return;
            }
        }
    }

    pub(super) fn publish(&self, bytes: &[u8]) {
        lock(&self.transcript).append(bytes);
        self.changed.notify_waiters();
    }

    pub(super) fn complete(&self) {
        lock(&self.transcript).complete = true;
        self.changed.notify_waiters();
    }
}

impl Transcript {
    fn append(&mut self, bytes: &[u8]) {
        self.end = self.end.saturating_add(bytes.len() as u64);
        self.bytes.extend(bytes);
        let overflow = self.bytes.len().saturating_sub(TRANSCRIPT);
        self.bytes.drain(..overflow);
    }

    fn pace(&mut self, rank: Rank) -> &mut Pace {
        match rank {
            Rank::Follows => &mut self.following,
            Rank::Leads => &mut self.leading,
        }
    }

    /// The readers whose pace counts.
    fn counting(&mut self) -> &mut Pace {
        if self.leading.readers > 0 { &mut self.leading } else { &mut self.following }
    }

    fn is_far_ahead(&mut self) -> bool {
        let end = self.end;
        let pace = self.counting();
        let ahead = end.saturating_sub(pace.furthest);
        pace.readers > 0 && ahead > AHEAD && pace.stalled_at != Some(pace.furthest)
    }

    /// Up to `limit` bytes, the last ones.
    fn tail(&self, limit: usize) -> Vec<u8> {
        let skipped = self.bytes.len().saturating_sub(limit);
        self.bytes.range(skipped..).copied().collect()
    }

    /// What a reader at `position` gets; `None` if that is still to come.
    fn event_at(&self, position: u64) -> Option<OutputEvent> {
        let unread = usize::try_from(self.end.saturating_sub(position)).ok();
        let Some(start) = unread.and_then(|unread| self.bytes.len().checked_sub(unread)) else {
            return Some(OutputEvent::Lagged);
        };
        let chunk: Vec<u8> = self.bytes.range(start..).take(CHUNK).copied().collect();
        if chunk.is_empty() {
            self.complete.then_some(OutputEvent::Ended)
        } else {
            Some(OutputEvent::Data(chunk))
        }
    }
}
