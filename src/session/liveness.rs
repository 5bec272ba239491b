//! When to send a ping, when the other side is lost, and when to attach again.

use core::time::Duration;

use rand_core::RngCore;

use crate::limits::{
    CLOSE_AFTER, LIVENESS_STEP, LIVENESS_TICK, PING_AFTER, PING_TIMEOUT, RECONNECT_FIRST, RECONNECT_LONGEST,
};

/// What a side does after it has looked at its [`Liveness`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Look {
    /// Nothing. Look again after this time, at most [`Liveness::TICK`].
    Wait(Duration),
    /// Send a ping with this number, then call [`Liveness::sent_ping`].
    Ping {
        /// The ping's number.
        number: u64,
    },
    /// The other side is lost. Close the connection; a phone then attaches again.
    Lost,
}

/// Says when to send a ping, and when a connection is lost (`docs/PROTOCOL.md` section 16.7).
///
/// Time is passed in, as monotonic time since any start. Look at least every [`Liveness::TICK`]. Of the time between
/// two calls at most [`Liveness::STEP`] counts: in what is longer the process did not run, and the other side's frames
/// may wait unread.
///
/// ```
/// use core::time::Duration;
/// use sessioncap::session::{Liveness, Look};
///
/// let mut liveness = Liveness::of_phone(Duration::ZERO);
/// let mut now = Duration::ZERO;
/// while let Look::Wait(pause) = liveness.look(now) {
///     now += pause;
/// }
/// assert_eq!((now, liveness.look(now)), (Liveness::PING_AFTER, Look::Ping { number: 1 }));
/// ```
#[derive(Debug, Clone)]
pub struct Liveness {
    /// The time of the last call, and how much had counted by then.
    called: Duration,
    counted: Duration,
    /// Counted time of the last frame, and of the first ping since that was not answered.
    heard: Duration,
    pinged: Option<Duration>,
    pings: u64,
    patience: Duration,
}

impl Liveness {
    /// After how much silence a ping is due.
    pub const PING_AFTER: Duration = Duration::from_secs(PING_AFTER);
    /// How long after a ping without any frame a phone takes the connection for lost. From then on an agent lets a
    /// new connection of the phone take its place.
    pub const PING_TIMEOUT: Duration = Duration::from_secs(PING_TIMEOUT.unsigned_abs());
    /// How long after such a ping an agent closes the connection.
    pub const CLOSE_AFTER: Duration = Duration::from_secs(CLOSE_AFTER);
    /// How often to look, at least.
    pub const TICK: Duration = Duration::from_secs(LIVENESS_TICK);
    /// Most time that counts between two calls.
    pub const STEP: Duration = Duration::from_secs(LIVENESS_STEP);

    /// Makes the liveness of a phone's new connection.
    #[must_use]
    pub const fn of_phone(now: Duration) -> Self {
        Self::new(now, Self::PING_TIMEOUT)
    }

    /// Makes the liveness of an agent's new connection.
    #[must_use]
    pub const fn of_agent(now: Duration) -> Self {
        Self::new(now, Self::CLOSE_AFTER)
    }

    const fn new(now: Duration, patience: Duration) -> Self {
        Self { called: now, counted: Duration::ZERO, heard: Duration::ZERO, pinged: None, pings: 0, patience }
    }

    /// Notes that a frame of the other side has decrypted, whatever its kind.
    pub fn received(&mut self, now: Duration) {
        self.heard = self.count(now);
        self.pinged = None;
    }

    /// Notes that the ping that was due has been sent.
    pub fn sent_ping(&mut self, now: Duration) {
        let counted = self.count(now);
        self.pinged.get_or_insert(counted);
        self.pings = self.pings.saturating_add(1);
    }

    /// Says what to do now.
    pub fn look(&mut self, now: Duration) -> Look {
        let counted = self.count(now);
        let due = match self.pinged {
            Some(pinged) => pinged.saturating_add(self.patience),
            None => self.heard.saturating_add(Self::PING_AFTER),
        };
        match (due.saturating_sub(counted), self.pinged) {
            (Duration::ZERO, Some(_)) => Look::Lost,
            (Duration::ZERO, None) => Look::Ping { number: self.pings.saturating_add(1) },
            (left, _) => Look::Wait(left.min(Self::TICK)),
        }
    }

    /// Counts the time since the last call. A clock that goes back counts nothing.
    fn count(&mut self, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.called);
        self.called = self.called.max(now);
        self.counted = self.counted.saturating_add(passed.min(Self::STEP));
        self.counted
    }
}

/// The pauses of a phone that has lost its connection, before each further attach (`docs/PROTOCOL.md` section 16.7).
#[derive(Debug, Clone)]
pub struct Reconnect {
    /// Milliseconds, before the random factor.
    next: u64,
}

impl Reconnect {
    /// The first pause, before the random factor of 0.5 to 1.5.
    pub const FIRST: Duration = Duration::from_millis(RECONNECT_FIRST);
    /// The longest pause, before the random factor of 0.5 to 1.5.
    pub const LONGEST: Duration = Duration::from_millis(RECONNECT_LONGEST);

    /// Begins with the first pause. Make a new one after a connection on which a frame was received.
    #[must_use]
    pub const fn new() -> Self {
        Self { next: RECONNECT_FIRST }
    }

    /// Returns how long to pause before the next attach: each time twice as long, times a random factor, so that
    /// phones that were lost together do not come back together.
    pub fn pause<R: RngCore>(&mut self, rng: &mut R) -> Duration {
        let thousandths = u64::from(rng.next_u32()).saturating_mul(1_001) >> 32;
        let factor = thousandths.saturating_add(500);
        let pause = self.next;
        self.next = self.next.saturating_mul(2).min(RECONNECT_LONGEST);
        Duration::from_micros(pause.saturating_mul(factor))
    }

    /// Makes the next pause the longest. Call it when the agent asks for patience, with close code 1012 or 1013.
    pub const fn slow_down(&mut self) {
        self.next = RECONNECT_LONGEST;
    }
}

impl Default for Reconnect {
    fn default() -> Self {
        Self::new()
    }
}
