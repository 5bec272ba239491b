//! What a session puts out, and its readers.
//!
//! Readers come for it, so one that is slow or gone costs the others nothing. A flood runs at the pace
//! of the fastest reader, as long as that one reads at all; where some lead, of the fastest of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::CHUNK;
use crate::lock;

/// Bytes of output kept, for the history and for readers that are behind.
pub(crate) const TRANSCRIPT: usize = 1024 * 1024;

/// Bytes of clipboard writes kept, for readers who get them.
const WRITES: usize = 128 * 1024;

/// How far the output may run ahead of its fastest reader.
const AHEAD: u64 = 256 * 1024;
/// How long the output waits for readers of which none reads on.
const PATIENCE: Duration = Duration::from_secs(1);

/// What [`Output::next`] returns. After `Lagged` or `Ended`, every further call returns the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputEvent {
    /// Between 1 byte and 4 KiB, or one clipboard write.
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
    /// The next clipboard write, for a reader who gets them.
    clipboard: Option<u64>,
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
        self.set_lead(true);
        self
    }

    /// Makes the pace of this reader count less, or as much as that of those who lead.
    pub fn set_lead(&mut self, leads: bool) {
        let mut transcript = lock(&self.feed.transcript);
        transcript.pace(self.rank).leave();
        self.rank = if leads { Rank::Leads } else { Rank::Follows };
        transcript.pace(self.rank).join(self.position);
    }

    /// Makes this a reader who also gets clipboard writes. They have no place in the positions.
    pub fn with_clipboard(mut self) -> Self {
        let transcript = lock(&self.feed.transcript);
        self.clipboard = Some(transcript.next_write);
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
                let until = match self.clipboard.and_then(|next| transcript.write_from(next)) {
                    Some((number, at, bytes)) if at <= self.position => {
                        let bytes = bytes.to_vec();
                        self.clipboard = Some(number.saturating_add(1));
                        return OutputEvent::Data(bytes);
                    }
                    Some((_, at, _)) => at,
                    None => u64::MAX,
                };
                let event = transcript.event_at(self.position, until);
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
    lost: bool,
    /// The last clipboard writes, each with how much of the stream came before it, and the number of the next.
    writes: VecDeque<(u64, Vec<u8>)>,
    next_write: u64,
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
        Output { feed: Arc::clone(self), position, rank: Rank::Follows, clipboard: None }
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

    /// Appends output. `writes` are clipboard writes, each with how many of its bytes come before it.
    pub(super) fn publish(&self, bytes: &[u8], writes: Vec<(usize, Vec<u8>)>) {
        lock(&self.transcript).append(bytes, writes);
        self.changed.notify_waiters();
    }

    /// A stream of which these bytes are the last before `end`.
    pub(super) fn begin_at(&self, kept: &[u8], end: u64) {
        let mut transcript = lock(&self.transcript);
        transcript.end = end.saturating_sub(kept.len() as u64);
        transcript.append(kept, Vec::new());
    }

    /// Whether anybody reads.
    pub(super) fn has_readers(&self) -> bool {
        let transcript = lock(&self.transcript);
        transcript.following.readers > 0 || transcript.leading.readers > 0
    }

    /// Tells every reader that it has missed output, because some was lost.
    pub(super) fn lose(&self) {
        let mut transcript = lock(&self.transcript);
        transcript.lost = true;
        drop(transcript);
        self.changed.notify_waiters();
    }

    pub(super) fn complete(&self) {
        lock(&self.transcript).complete = true;
        self.changed.notify_waiters();
    }
}

impl Transcript {
    fn append(&mut self, bytes: &[u8], writes: Vec<(usize, Vec<u8>)>) {
        for (before, write) in writes {
            self.writes.push_back((self.end.saturating_add(before as u64), write));
            self.next_write = self.next_write.saturating_add(1);
        }
        let mut kept: usize = self.writes.iter().map(|(_, write)| write.len()).sum();
        while kept > WRITES {
            let Some((_, dropped)) = self.writes.pop_front() else { break };
            kept = kept.saturating_sub(dropped.len());
        }
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

    /// The first clipboard write from this number on that is kept.
    fn write_from(&self, number: u64) -> Option<(u64, u64, &[u8])> {
        let first = self.next_write.saturating_sub(self.writes.len() as u64);
        let number = number.max(first);
        let at = usize::try_from(number.saturating_sub(first)).ok()?;
        self.writes.get(at).map(|(position, write)| (number, *position, write.as_slice()))
    }

    /// What a reader at `position` gets, up to another; `None` if that is still to come.
    fn event_at(&self, position: u64, until: u64) -> Option<OutputEvent> {
        if self.lost {
            return Some(OutputEvent::Lagged);
        }
        let unread = usize::try_from(self.end.saturating_sub(position)).ok();
        let Some(start) = unread.and_then(|unread| self.bytes.len().checked_sub(unread)) else {
            return Some(OutputEvent::Lagged);
        };
        let most = usize::try_from(until.saturating_sub(position)).unwrap_or(CHUNK).min(CHUNK);
        let chunk: Vec<u8> = self.bytes.range(start..).take(most).copied().collect();
        if chunk.is_empty() {
            self.complete.then_some(OutputEvent::Ended)
        } else {
            Some(OutputEvent::Data(chunk))
        }
    }
}
