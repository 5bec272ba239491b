//! The operating system's clocks, for callers that have no time source. Only this file of the crate reads a
//! clock, and nothing else in the crate uses it.

use core::fmt;

use thiserror::Error;
use time::OffsetDateTime;

use crate::clock::Now;

/// Reads the operating system's clocks.
///
/// The wall clock is the one of [`SystemTime`](std::time::SystemTime); on Linux and Android it is read as of the
/// kernel's last timer tick if these are less than 10 milliseconds apart, which is several times cheaper, and a
/// clock that is set shows at once. The monotonic clock is one that continues while the machine sleeps, so
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
        let (seconds, nanoseconds) = counts_sleep::wall(self.clocks);
        Now::new(date(seconds, nanoseconds), counts_sleep::monotonic(self.clocks))
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

/// Returns the date of a reading. A time beyond the range of a date reads as the nearest date.
#[inline]
fn date(seconds: i64, nanoseconds: u32) -> OffsetDateTime {
    match OffsetDateTime::from_unix_timestamp(seconds) {
        // The nanoseconds are below one second.
        Ok(date) => date.replace_nanosecond(nanoseconds).unwrap_or(date),
        Err(_) if seconds < 0 => LIMITS.0,
        Err(_) => LIMITS.1,
    }
}

/// The earliest and the latest date.
const LIMITS: (OffsetDateTime, OffsetDateTime) =
    (time::PrimitiveDateTime::MIN.assume_utc(), time::PrimitiveDateTime::MAX.assume_utc());

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
mod counts_sleep {
    use rustix::time::{ClockId, clock_gettime};
    use time::Duration;

    /// The wall clock's id and the monotonic clock's.
    pub(super) type Clocks = (ClockId, ClockId);

    /// man7.org, clock_gettime(2): `CLOCK_BOOTTIME` is "a nonsettable system-wide clock that is identical to
    /// CLOCK_MONOTONIC, except that it also includes any time that the system is suspended".
    #[cfg(not(target_vendor = "apple"))]
    const MONOTONIC: ClockId = ClockId::Boottime;

    /// macOS, clock_gettime(3): `CLOCK_MONOTONIC` is a "clock that increments monotonically, tracking the
    /// time since an arbitrary point, and will continue to increment while the system is asleep", and
    /// `CLOCK_UPTIME_RAW` one that "does not increment while the system is asleep".
    #[cfg(target_vendor = "apple")]
    const MONOTONIC: ClockId = ClockId::Monotonic;

    pub(super) fn clocks() -> Option<Clocks> {
        Some((wall_clock(), MONOTONIC))
    }

    /// man7.org, clock_gettime(2): `CLOCK_REALTIME_COARSE` is a "faster but less precise version of
    /// CLOCK_REALTIME"; `clock_getres` says how precise. The monotonic clock has no such version that counts
    /// sleep.
    #[cfg(not(target_vendor = "apple"))]
    fn wall_clock() -> ClockId {
        use rustix::time::clock_getres;
        let coarse = clock_getres(ClockId::RealtimeCoarse);
        let often = coarse.tv_sec == 0
            && u32::try_from(coarse.tv_nsec).is_ok_and(|between| (1..COARSEST).contains(&between));
        if often { ClockId::RealtimeCoarse } else { ClockId::Realtime }
    }

    #[cfg(target_vendor = "apple")]
    fn wall_clock() -> ClockId {
        ClockId::Realtime
    }

    /// A reading must not be older than this, nanoseconds.
    #[cfg(not(target_vendor = "apple"))]
    const COARSEST: u32 = 10_000_000;

    /// Returns the seconds since 1970 and the nanoseconds of the wall clock.
    #[inline]
    pub(super) fn wall((wall, _): Clocks) -> (i64, u32) {
        let reading = clock_gettime(wall);
        (reading.tv_sec, u32::try_from(reading.tv_nsec).unwrap_or(0))
    }

    #[inline]
    pub(super) fn monotonic((_, monotonic): Clocks) -> Duration {
        let reading = clock_gettime(monotonic);
        // The nanoseconds are below one second.
        Duration::new(reading.tv_sec, i32::try_from(reading.tv_nsec).unwrap_or(0))
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
mod counts_sleep {
    use time::Duration;

    pub(super) type Clocks = core::convert::Infallible;

    pub(super) fn clocks() -> Option<Clocks> {
        None
    }

    pub(super) fn wall(clocks: Clocks) -> (i64, u32) {
        match clocks {}
    }

    pub(super) fn monotonic(clocks: Clocks) -> Duration {
        match clocks {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use time::Duration;

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
        assert_eq!(
            counts_sleep::clocks().map(|(_, monotonic)| monotonic),
            Some(rustix::time::ClockId::Boottime)
        );
    }

    /// The wall clock that a program sets is read, and by its resolution no reading is 10 ms old.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_wall_clock_can_be_set_and_ticks_every_few_milliseconds() {
        use rustix::time::{ClockId, clock_getres};
        let (wall, _) = counts_sleep::clocks().unwrap();
        assert!(matches!(wall, ClockId::Realtime | ClockId::RealtimeCoarse));
        let resolution = clock_getres(wall);
        assert!(resolution.tv_sec == 0 && resolution.tv_nsec < 10_000_000);
    }

    #[test]
    fn a_time_beyond_the_range_of_a_date_reads_as_the_nearest_date() {
        assert_eq!(date(0, 0), OffsetDateTime::UNIX_EPOCH);
        assert_eq!(date(-1, 999_999_999), OffsetDateTime::UNIX_EPOCH - Duration::nanoseconds(1));
        assert_eq!(date(i64::MAX, 0), time::PrimitiveDateTime::MAX.assume_utc());
        assert_eq!(date(i64::MIN, 0), time::PrimitiveDateTime::MIN.assume_utc());
    }
}
