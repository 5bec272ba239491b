//! The state that the guards of one connection share: whether it has ended, and when its phone was heard.

use time::Duration;

use super::lease::nanoseconds;
use crate::agent::denial::Denial;
use crate::agent::stats::CountedConnection;
use crate::clock::Now;
use crate::sync::{AtomicI64, AtomicU8, Ordering};

/// The state that the guards of one connection share.
pub(super) struct Connection {
    /// 0 while the connection lives. [`EXPIRED`] once a guard has found the credential expired, so that setting a
    /// clock back revives nothing; [`REPLACED`] once a newer connection of the same phone has replaced this one.
    ended: AtomicU8,
    /// When the phone was last heard, and since when a ping is unanswered, in nanoseconds of the monotonic
    /// clock.
    heard: AtomicI64,
    pinged: AtomicI64,
    _counted: CountedConnection,
}

const EXPIRED: u8 = 1;
const REPLACED: u8 = 2;

/// The value if no ping is unanswered.
const NO_PING: i64 = i64::MAX;

impl Connection {
    pub(super) fn new(now: Duration, counted: CountedConnection) -> Self {
        Self {
            ended: AtomicU8::new(0),
            heard: AtomicI64::new(nanoseconds(now)),
            pinged: AtomicI64::new(NO_PING),
            _counted: counted,
        }
    }

    #[inline]
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire) != 0
    }

    pub(super) fn is_replaced(&self) -> bool {
        self.ended.load(Ordering::Acquire) == REPLACED
    }

    /// Ends a connection whose credential has expired, unless it has ended already, and returns why it is over.
    #[cold]
    pub(super) fn end(&self) -> Denial {
        match self.ended.compare_exchange(0, EXPIRED, Ordering::AcqRel, Ordering::Acquire) {
            Err(REPLACED) => Denial::Replaced,
            Ok(_) | Err(_) => Denial::CredentialExpired,
        }
    }

    /// Ends it in favour of a newer connection of the same phone.
    pub(super) fn replace(&self) {
        self.ended.store(REPLACED, Ordering::Release);
    }

    /// When the phone was last heard, in nanoseconds of the monotonic clock.
    pub(super) fn heard_at(&self) -> i64 {
        self.heard.load(Ordering::Acquire)
    }

    /// Notes that a frame of the phone has decrypted.
    pub(super) fn hear(&self, now: Now) {
        self.heard.fetch_max(nanoseconds(now.monotonic), Ordering::AcqRel);
        self.pinged.store(NO_PING, Ordering::Release);
    }

    /// Notes that a ping was sent. Only the first unanswered one counts.
    pub(super) fn ping(&self, now: Now) {
        let at = nanoseconds(now.monotonic);
        let _ = self.pinged.compare_exchange(NO_PING, at, Ordering::AcqRel, Ordering::Acquire);
    }

    pub(super) fn has_missed_a_ping(&self, now: Now) -> bool {
        let since = self.pinged.load(Ordering::Acquire);
        since != NO_PING && nanoseconds(now.monotonic).saturating_sub(since) >= nanoseconds(PING_TIMEOUT)
    }
}

/// How long the phone may take to answer a ping.
const PING_TIMEOUT: Duration = Duration::seconds(crate::limits::PING_TIMEOUT);
