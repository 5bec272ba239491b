//! The operating system's clocks, for callers that have no time source. Only this file of the crate reads a
//! clock, and nothing else in the crate uses it.

use core::fmt;
use std::time::SystemTime;

use thiserror::Error;
use time::{Duration, OffsetDateTime};

use crate::clock::Now;

/// Reads the operating system's clocks.
///
/// The wall clock is [`SystemTime`]. The monotonic clock is one that continues while the machine sleeps, so
/// that a night in a closed laptop counts:
///
/// | operating system | clock | its manual |
/// |---|---|---|
/// | Linux, Android | `CLOCK_BOOTTIME` | `clock_gettime(2)`: as `CLOCK_MONOTONIC`, and "also includes any time that the system is suspended" |
/// | macOS, iOS and the rest of Apple's | `CLOCK_MONOTONIC` | `clock_gettime(3)`: "will continue to increment while the system is asleep" |
/// | any other | none | [`SystemClock::new`] refuses |
///
/// `CLOCK_MONOTONIC` on Linux stops during sleep, and so do `CLOCK_UPTIME_RAW` on Apple's systems and the
/// `Instant` of the standard library on both. On a system that is not in the table, read a clock that counts
/// sleep and build each [`Now`] with [`Now::new`].
///
/// ```
/// let clock = sessioncap::SystemClock::new()?;
/// let (earlier, later) = (clock.now(), clock.now());
/// assert!(earlier.monotonic <= later.monotonic);
/// # Ok::<(), sessioncap::ClockUnsupported>(())
/// ```
#[derive(Clone, Copy)]
pub struct SystemClock {
    monotonic: counts_sleep::Clock,
}

impl SystemClock {
    /// Returns the clocks of the operating system.
    ///
    /// # Errors
    /// [`ClockUnsupported`] if no monotonic clock of this system is known to count sleep.
    pub fn new() -> Result<Self, ClockUnsupported> {
        counts_sleep::clock().map(|monotonic| Self { monotonic }).ok_or(ClockUnsupported { _private: () })
    }

    /// Reads both clocks, one right after the other.
    #[must_use]
    pub fn now(&self) -> Now {
        Now::new(wall(), counts_sleep::read(self.monotonic))
    }
}

impl fmt::Debug for SystemClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemClock").finish_non_exhaustive()
    }
}

/// The error if no monotonic clock of this operating system is known to count sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no clock of this operating system is known to count the time that the machine sleeps")]
pub struct ClockUnsupported {
    _private: (),
}

impl ClockUnsupported {
    /// Returns a stable name for programs and logs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "clock_unsupported"
    }
}

/// Reads the wall clock. A time beyond the range of a date reads as the nearest date.
fn wall() -> OffsetDateTime {
    let length = |length| Duration::try_from(length).unwrap_or(Duration::MAX);
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => OffsetDateTime::UNIX_EPOCH.saturating_add(length(since)),
        Err(before) => OffsetDateTime::UNIX_EPOCH.saturating_sub(length(before.duration())),
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
mod counts_sleep {
    use rustix::time::{ClockId, clock_gettime};
    use time::Duration;

    pub(super) type Clock = ClockId;

    /// man7.org, clock_gettime(2): `CLOCK_BOOTTIME` is "a nonsettable system-wide clock that is identical to
    /// CLOCK_MONOTONIC, except that it also includes any time that the system is suspended".
    #[cfg(not(target_vendor = "apple"))]
    const CLOCK: Clock = ClockId::Boottime;

    /// macOS, clock_gettime(3): `CLOCK_MONOTONIC` is a "clock that increments monotonically, tracking the
    /// time since an arbitrary point, and will continue to increment while the system is asleep", and
    /// `CLOCK_UPTIME_RAW` one that "does not increment while the system is asleep".
    #[cfg(target_vendor = "apple")]
    const CLOCK: Clock = ClockId::Monotonic;

    pub(super) fn clock() -> Option<Clock> {
        Some(CLOCK)
    }

    pub(super) fn read(clock: Clock) -> Duration {
        let reading = clock_gettime(clock);
        // The nanoseconds are below one second.
        Duration::new(reading.tv_sec, i32::try_from(reading.tv_nsec).unwrap_or(0))
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
mod counts_sleep {
    use time::Duration;

    pub(super) type Clock = core::convert::Infallible;

    pub(super) fn clock() -> Option<Clock> {
        None
    }

    pub(super) fn read(clock: Clock) -> Duration {
        match clock {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_are_read_anew_each_time() {
        let clock = SystemClock::new().unwrap();
        let earlier = clock.now();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let later = clock.now();
        assert!(later.monotonic - earlier.monotonic >= Duration::milliseconds(2));
        assert!(later.wall != earlier.wall);
    }

    #[test]
    fn the_wall_clock_is_the_standard_librarys() {
        let wall = SystemClock::new().unwrap().now().wall;
        let difference = OffsetDateTime::from(SystemTime::now()) - wall;
        assert!(difference.abs() < Duration::MINUTE, "{difference}");
    }

    /// Neither the clock that stops during sleep nor one that starts with the process.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_monotonic_clock_is_the_time_since_boot() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split_whitespace().next().unwrap().parse().unwrap();
        let read = SystemClock::new().unwrap().now().monotonic.as_seconds_f64();
        assert!((read - seconds).abs() < 60.0, "{read} {seconds}");
        assert_eq!(counts_sleep::clock(), Some(rustix::time::ClockId::Boottime));
    }
}
