//! The operating system's clocks, for callers that have no time source. Only this file of the crate reads a
//! clock, and nothing else in the crate uses it.

use core::fmt;

use thiserror::Error;

use crate::clock::Now;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod since_boot;

/// Reads the operating system's clocks.
///
/// The wall clock is the one of [`SystemTime`](std::time::SystemTime). The monotonic clock is one that continues
/// while the machine sleeps, so that a night in a closed laptop counts. On Linux and Android both are read as of the
/// kernel's last timer tick if these are less than 10 milliseconds apart, which is several times cheaper; a clock that
/// is set, and a machine that has slept, show at once:
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
    clocks: counts_sleep::Clocks,
}

impl SystemClock {
    /// Returns the clocks of the operating system.
    ///
    /// # Errors
    /// [`ClockUnsupported`] if no monotonic clock of this system is known to count sleep.
    pub fn new() -> Result<Self, ClockUnsupported> {
        counts_sleep::clocks().map(|clocks| Self { clocks }).ok_or(ClockUnsupported { _private: () })
    }

    /// Reads both clocks, one right after the other. Cheap enough for every frame: no lock, no allocation, and
    /// usually no system call.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Now {
        let (wall, monotonic) = counts_sleep::read(self.clocks);
        Now::since_1970(wall, monotonic)
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

#[cfg(any(target_os = "linux", target_os = "android"))]
mod counts_sleep {
    use rustix::time::{ClockId, clock_getres, clock_gettime};
    use time::Duration;

    use super::since_boot::{Reading, SinceBoot};

    /// Whether clocks are read as of the last tick. man7.org, clock_gettime(2): `CLOCK_REALTIME_COARSE` and
    /// `CLOCK_MONOTONIC_COARSE` are "faster but less precise" versions of the others; `clock_getres` says how precise.
    #[derive(Clone, Copy)]
    pub(super) enum Clocks {
        OfTheLastTick,
        Precise,
    }

    pub(super) fn clocks() -> Option<Clocks> {
        let often = |clock| {
            let ticks = clock_getres(clock);
            ticks.tv_sec == 0 && (1..COARSEST).contains(&ticks.tv_nsec)
        };
        match often(ClockId::RealtimeCoarse) && often(ClockId::MonotonicCoarse) {
            true => Some(Clocks::OfTheLastTick),
            false => Some(Clocks::Precise),
        }
    }

    /// A reading must not be older than this, nanoseconds.
    const COARSEST: i64 = 10_000_000;

    /// How much longer the machine has been up than `CLOCK_MONOTONIC` has run.
    static SINCE_BOOT: SinceBoot = SinceBoot::new();

    /// Returns the time since 1970, and the time since boot.
    ///
    /// man7.org, clock_gettime(2): `CLOCK_BOOTTIME` is "a nonsettable system-wide clock that is identical to
    /// CLOCK_MONOTONIC, except that it also includes any time that the system is suspended". It has no version as of
    /// the last tick.
    #[inline]
    pub(super) fn read(clocks: Clocks) -> (Duration, Duration) {
        match clocks {
            Clocks::OfTheLastTick => {
                let (wall, monotonic) =
                    (read_one(ClockId::RealtimeCoarse), read_one(ClockId::MonotonicCoarse));
                let asleep = SINCE_BOOT.beyond(wall.since(monotonic), || {
                    // In this order, so that what passes in between makes things expire earlier, not later.
                    let monotonic = read_one(ClockId::Monotonic);
                    read_one(ClockId::Boottime).since(monotonic)
                });
                (wall.plus(0), monotonic.plus(asleep))
            }
            Clocks::Precise => {
                let wall = read_one(ClockId::Realtime);
                (wall.plus(0), read_one(ClockId::Boottime).plus(0))
            }
        }
    }

    #[inline]
    fn read_one(clock: ClockId) -> Reading {
        let reading = clock_gettime(clock);
        Reading::new(reading.tv_sec, reading.tv_nsec)
    }
}

#[cfg(target_vendor = "apple")]
mod counts_sleep {
    use rustix::time::{ClockId, clock_gettime};
    use time::Duration;

    #[derive(Clone, Copy)]
    pub(super) struct Clocks;

    pub(super) fn clocks() -> Option<Clocks> {
        Some(Clocks)
    }

    /// Returns the time since 1970, and the monotonic clock.
    ///
    /// macOS, clock_gettime(3): `CLOCK_MONOTONIC` is a "clock that increments monotonically, tracking the
    /// time since an arbitrary point, and will continue to increment while the system is asleep", and
    /// `CLOCK_UPTIME_RAW` one that "does not increment while the system is asleep".
    #[inline]
    pub(super) fn read(_: Clocks) -> (Duration, Duration) {
        let (wall, monotonic) = (clock_gettime(ClockId::Realtime), clock_gettime(ClockId::Monotonic));
        // The nanoseconds are below one second.
        let since = |seconds, nanoseconds| Duration::new(seconds, i32::try_from(nanoseconds).unwrap_or(0));
        (since(wall.tv_sec, wall.tv_nsec), since(monotonic.tv_sec, monotonic.tv_nsec))
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
mod counts_sleep {
    use time::Duration;

    pub(super) type Clocks = core::convert::Infallible;

    pub(super) fn clocks() -> Option<Clocks> {
        None
    }

    pub(super) fn read(clocks: Clocks) -> (Duration, Duration) {
        match clocks {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use time::{Duration, OffsetDateTime};

    use super::*;

    #[test]
    fn both_clocks_are_read_anew_each_time() {
        let clock = SystemClock::new().unwrap();
        let earlier = clock.now();
        // The wall clock may be read as of the last tick.
        let later = core::iter::repeat_with(|| clock.now()).find(|later| later.wall != earlier.wall);
        assert!(later.is_some_and(|later| later.monotonic > earlier.monotonic));
    }

    #[test]
    fn the_wall_clock_is_the_standard_librarys() {
        let wall = SystemClock::new().unwrap().now().wall;
        let difference = OffsetDateTime::from(SystemTime::now()) - (OffsetDateTime::UNIX_EPOCH + wall);
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
    }

    /// Between two readings of the precise clocks, and not 10 ms behind the first of them.
    #[cfg(target_os = "linux")]
    #[test]
    fn no_reading_is_older_than_ten_milliseconds_or_later_than_the_precise_clocks() {
        use rustix::time::{ClockId, clock_gettime};
        let precise = |clock| {
            let read = clock_gettime(clock);
            Duration::new(read.tv_sec, i32::try_from(read.tv_nsec).unwrap())
        };
        let (clock, oldest) = (SystemClock::new().unwrap(), Duration::milliseconds(10));
        for _ in 0..10_000 {
            let (wall, boot) = (precise(ClockId::Realtime), precise(ClockId::Boottime));
            let now = clock.now();
            assert!(now.wall > wall - oldest && now.wall <= precise(ClockId::Realtime));
            // What was measured once between two clocks can be a little too much, never too little.
            let most = precise(ClockId::Boottime) + Duration::milliseconds(1);
            assert!(now.monotonic > boot - oldest && now.monotonic <= most, "{} {boot}", now.monotonic);
        }
    }
}
