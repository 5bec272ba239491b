//! Time as a value that the caller passes in. This module reads no clock.

use core::fmt;
use core::str::FromStr;

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::error::Error;
use crate::text::text_forms;

/// One reading of the caller's two clocks.
///
/// `wall` is the time that credentials contain, as what has passed since 1970-01-01T00:00:00Z. `monotonic` never goes back and continues while the machine
/// sleeps (boot time, for example `CLOCK_BOOTTIME`), counted from any fixed start. Together they reveal a
/// wall clock that was set. `SystemClock` (feature `system-clock`) reads both; any other source can build a
/// `Now` itself. Read the clocks anew for each call: with a reused reading, nothing expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Now {
    /// The wall clock: the time since 1970-01-01T00:00:00Z, which is negative before.
    pub wall: Duration,
    /// Time since any fixed moment, from a clock that never goes back.
    pub monotonic: Duration,
}

impl Now {
    /// Makes a reading of both clocks, with the wall clock's as a date.
    #[must_use]
    pub fn new(wall: OffsetDateTime, monotonic: Duration) -> Self {
        Self::since_1970(wall - OffsetDateTime::UNIX_EPOCH, monotonic)
    }

    /// Makes a reading of both clocks, with the wall clock's as the time since 1970-01-01T00:00:00Z.
    #[must_use]
    #[inline]
    pub const fn since_1970(wall: Duration, monotonic: Duration) -> Self {
        Self { wall, monotonic }
    }

    /// Returns the same reading some time later, for tests and simulations.
    #[must_use]
    pub fn plus(self, elapsed: Duration) -> Self {
        Self { wall: self.wall.saturating_add(elapsed), monotonic: self.monotonic.saturating_add(elapsed) }
    }

    /// Returns the wall clock in whole seconds since 1970, rounded down.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        Timestamp::clamped(self.wall.whole_seconds())
    }

    /// Returns the fraction of a second of the wall clock.
    #[cfg(feature = "agent")]
    pub(crate) fn fraction(self) -> Duration {
        Duration::nanoseconds(self.wall.subsec_nanoseconds().max(0).into())
    }

    /// Returns how long until the wall clock reaches `end`; zero if it has.
    #[cfg(feature = "agent")]
    pub(crate) fn until(self, end: Timestamp) -> Duration {
        end.after(self.timestamp()).saturating_sub(self.fraction()).max(Duration::ZERO)
    }
}

/// A time in whole seconds since 1970-01-01T00:00:00Z, up to the end of the year 9999. Every date in a
/// credential has this resolution. The text form is RFC 3339, for example `1970-01-01T00:00:00Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

/// 9999-12-31T23:59:59Z, the last date that RFC 3339 can spell.
const LAST: u64 = 253_402_300_799;

impl Timestamp {
    /// The earliest time.
    pub const EPOCH: Self = Self(0);
    /// The latest time.
    pub const MAX: Self = Self(LAST);

    /// Makes a time from seconds since 1970.
    ///
    /// # Errors
    /// [`Error::Time`] if it is after the year 9999.
    pub fn from_seconds(seconds: u64) -> Result<Self, Error> {
        if seconds > LAST {
            return Err(Error::Time);
        }
        Ok(Self(seconds))
    }

    fn clamped(seconds: i64) -> Self {
        Self(u64::try_from(seconds).unwrap_or(0).min(LAST))
    }

    /// Returns the seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0
    }

    /// Returns this time plus `seconds`, at most [`Timestamp::MAX`].
    #[must_use]
    pub fn plus(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds).min(LAST))
    }

    /// Returns the seconds from `earlier` to this time, or 0 if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns [`Timestamp::since`] as a duration.
    #[cfg(feature = "agent")]
    pub(crate) fn after(self, earlier: Self) -> Duration {
        Duration::seconds(i64::try_from(self.since(earlier)).unwrap_or(i64::MAX))
    }

    /// Returns the seconds between the two times, in either order.
    #[must_use]
    pub fn distance(self, other: Self) -> u64 {
        self.0.abs_diff(other.0)
    }

    /// Returns the same moment as a UTC date.
    #[must_use]
    pub fn to_date(self) -> OffsetDateTime {
        i64::try_from(self.0)
            .ok()
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = self.to_date();
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            date.year(),
            u8::from(date.month()),
            date.day(),
            date.hour(),
            date.minute(),
            date.second()
        )
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({self})")
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    /// Reads the format that `Display` writes: RFC 3339 in UTC, whole seconds, capital `T` and `Z`.
    ///
    /// # Errors
    /// [`Error::TimeText`] for any other text and for a date that does not exist.
    fn from_str(text: &str) -> Result<Self, Error> {
        let date = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| Error::TimeText)?;
        let seconds = u64::try_from(date.unix_timestamp()).map_err(|_| Error::TimeText)?;
        // RFC 3339 allows other forms of the same moment.
        Self::from_seconds(seconds).ok().filter(|time| time.to_string() == text).ok_or(Error::TimeText)
    }
}

impl TryFrom<u64> for Timestamp {
    type Error = Error;

    /// # Errors
    /// As [`Timestamp::from_seconds`].
    fn try_from(seconds: u64) -> Result<Self, Error> {
        Self::from_seconds(seconds)
    }
}

text_forms!(Timestamp, "a time such as 1970-01-01T00:00:00Z");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_rfc_3339_and_stays_in_range() {
        assert_eq!(Timestamp::EPOCH.to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(Timestamp::from_seconds(LAST + 1), Err(Error::Time));
        assert_eq!(Timestamp::MAX.plus(u64::MAX), Timestamp::MAX);
    }

    #[test]
    fn a_wall_clock_before_1970_reads_as_1970() {
        let now = Now::new(OffsetDateTime::UNIX_EPOCH - Duration::days(400), Duration::ZERO);
        assert_eq!(now.timestamp(), Timestamp::EPOCH);
    }
}
