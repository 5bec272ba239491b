//! The message that a receiver collects from its parts, bounded for each connection and for the agent.

use std::sync::Arc;

use time::Duration;

use crate::agent::denial::Denial;
use crate::clock::Now;
use crate::limits::{MAX_MESSAGE_LEN, MESSAGE_TIMEOUT};
use crate::protocol::frame::Assembler;
use crate::sync::{AtomicU32, Ordering};

/// How many bytes the unfinished messages of all connections of a gate may hold.
pub(crate) struct MessageRoom {
    max: u32,
    left: AtomicU32,
}

impl MessageRoom {
    pub(crate) fn new(max: u32) -> Self {
        Self { max, left: AtomicU32::new(max) }
    }

    /// Takes room for `bytes`, or nothing if there is not as much.
    fn reserve(&self, bytes: u32) -> bool {
        let less = |left: u32| left.checked_sub(bytes);
        self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }

    fn release(&self, bytes: u32) {
        self.left.fetch_add(bytes, Ordering::AcqRel);
    }
}

/// The unfinished message of one connection. It gives its room back when it is cleared or dropped.
pub(super) struct Incoming {
    assembler: Assembler,
    room: Arc<MessageRoom>,
    reserved: u32,
    /// When its first part came, by the monotonic clock.
    since: Option<Duration>,
    /// Why the message is refused; the rest of it is skipped.
    refusal: Option<Denial>,
}

impl Incoming {
    pub(super) fn new(room: Arc<MessageRoom>) -> Self {
        Self { assembler: Assembler::new(), room, reserved: 0, since: None, refusal: None }
    }

    /// Takes a part.
    pub(super) fn part(&mut self, bytes: &[u8], now: Now) {
        let since = *self.since.get_or_insert(now.monotonic);
        if self.refusal.is_some() {
            return;
        }
        if now.monotonic.saturating_sub(since) >= Duration::seconds(MESSAGE_TIMEOUT) {
            return self.refuse(Denial::MessageTooSlow { seconds: MESSAGE_TIMEOUT });
        }
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if self.assembler.collected().len().saturating_add(bytes.len()) > MAX_MESSAGE_LEN {
            return self.refuse(Denial::MessageTooLong { max: MAX_MESSAGE_LEN });
        }
        if !self.room.reserve(len) {
            return self.refuse(Denial::NoRoomForMessage { max: self.room.max });
        }
        self.reserved = self.reserved.saturating_add(len);
        self.assembler.add(bytes);
    }

    /// Takes the last frame of a message. Returns whether parts came before it.
    pub(super) fn finish(&mut self, bytes: &[u8], now: Now) -> bool {
        if self.since.is_none() {
            return false;
        }
        self.part(bytes, now);
        true
    }

    /// Discards a message that is too old. Its last frame is then refused.
    pub(super) fn expire(&mut self, now: Now) {
        if self.since.is_some() {
            self.part(&[], now);
        }
    }

    /// How long from `now` until the message is too old, if there is one that was not refused.
    pub(super) fn time_left(&self, now: Now) -> Option<core::time::Duration> {
        let since = self.since.filter(|_| self.refusal.is_none())?;
        let left = since.saturating_add(Duration::seconds(MESSAGE_TIMEOUT)).saturating_sub(now.monotonic);
        // A negative time has already elapsed.
        Some(left.try_into().unwrap_or_default())
    }

    /// The complete message, or why it is refused.
    pub(super) fn message(&self) -> Result<&[u8], Denial> {
        self.refusal.clone().map_or_else(|| Ok(self.assembler.collected()), Err)
    }

    /// Drops the message and gives its room back.
    pub(super) fn clear(&mut self) {
        self.assembler.discard();
        (self.since, self.refusal) = (None, None);
        self.release();
    }

    fn refuse(&mut self, denial: Denial) {
        self.assembler.discard();
        self.refusal = Some(denial);
        self.release();
    }

    fn release(&mut self) {
        self.room.release(core::mem::take(&mut self.reserved));
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.release();
    }
}
