//! The agent's time, which never goes back.

use time::Duration;

use crate::clock::{Now, Timestamp};

/// A wall clock that never goes back.
///
/// Effective time is the later of two: the wall clock, and the last effective time plus the monotonic time
/// since then. Setting the wall clock back therefore neither revives anything nor stops the clock. After a
/// restart, the last stored time replaces the last used time. It is at most a minute older than the last
/// decision, because a read stores no time, and not older than anything on record.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    mark: Timestamp,
    /// The monotonic reading when `mark` began.
    monotonic: Duration,
    /// When an operator set the clock. Earlier readings are outdated.
    set_at: Option<Duration>,
}

impl Clock {
    pub(crate) fn at(mark: Timestamp, monotonic: Duration) -> Self {
        Self { mark, monotonic, set_at: None }
    }

    pub(crate) fn set(&mut self, mark: Timestamp, monotonic: Duration) {
        *self = Self { mark, monotonic, set_at: Some(monotonic) };
    }

    /// Raises the time to one that is on record, if that is later.
    pub(crate) fn raise(&mut self, mark: Timestamp, monotonic: Duration) {
        if mark > self.mark {
            (self.mark, self.monotonic) = (mark, monotonic.max(self.monotonic));
        }
    }

    pub(crate) fn advance(&mut self, now: Now) -> Timestamp {
        if self.set_at.is_some_and(|set_at| now.monotonic < set_at) {
            return self.mark;
        }
        let elapsed = now.monotonic.saturating_sub(self.monotonic).whole_seconds().max(0);
        let by_mark = self.mark.plus(u64::try_from(elapsed).unwrap_or(0));
        let wall = now.timestamp();
        (self.mark, self.monotonic) = match wall > by_mark {
            // The wall clock's fraction of a second has elapsed already.
            true => (wall, now.monotonic.saturating_sub(now.fraction())),
            // Advanced by whole seconds, because the fractions would be lost at each call.
            false => (by_mark, self.monotonic.saturating_add(Duration::seconds(elapsed))),
        };
        self.mark
    }

    /// Returns when the agent's time reaches `end`, by the monotonic clock alone.
    pub(crate) fn reaches(&self, end: Timestamp) -> Duration {
        self.monotonic.saturating_add(end.after(self.mark))
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    fn at(wall: i64, monotonic: i64) -> Now {
        Now::new(OffsetDateTime::from_unix_timestamp(wall).unwrap(), Duration::seconds(monotonic))
    }

    #[test]
    fn a_wall_clock_set_back_neither_revives_nor_stops_time() {
        let mut clock = Clock::at(Timestamp::EPOCH, Duration::ZERO);
        assert_eq!(clock.advance(at(1_000, 0)).seconds(), 1_000);
        assert_eq!(clock.advance(at(400, 10)).seconds(), 1_010);
        assert_eq!(clock.advance(at(410, 25)).seconds(), 1_025);
        assert_eq!(clock.advance(at(2_000, 30)).seconds(), 2_000, "a forward step counts at once");
        assert_eq!(clock.advance(at(1_031, 31)).seconds(), 2_001, "and is not undone by itself");
    }

    #[test]
    fn fractions_of_seconds_add_up_under_a_frozen_wall_clock() {
        let frozen = OffsetDateTime::from_unix_timestamp(1_000).unwrap();
        for step in [100, 700, 1_900, 2_500] {
            let mut clock = Clock::at(Timestamp::EPOCH, Duration::ZERO);
            let mut elapsed = 0;
            while elapsed <= 100_000 {
                let effective = clock.advance(Now::new(frozen, Duration::milliseconds(elapsed)));
                assert_eq!(effective.seconds(), 1_000 + u64::try_from(elapsed / 1_000).unwrap(), "{step} ms");
                elapsed += step;
            }
        }
    }
}
