//! The agent's time, which never goes back.

use time::Duration;

use crate::clock::{Now, Timestamp};
use crate::limits::MAX_NODE_LEAD;

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
    /// The clock of a store that several nodes share, and the monotonic reading when it was read. The wall clock
    /// counts no further than a bound ahead of it, so that one node in the future does not take the others along.
    store: Option<(Timestamp, Duration)>,
}

impl Clock {
    pub(crate) fn at(mark: Timestamp, monotonic: Duration) -> Self {
        Self { mark, monotonic, set_at: None, store: None }
    }

    pub(crate) fn set(&mut self, mark: Timestamp, monotonic: Duration) {
        *self = Self { mark, monotonic, set_at: Some(monotonic), store: self.store };
    }

    /// Bounds the wall clock by a store's clock, which was read after this moment.
    pub(crate) fn bound(&mut self, store_time: Timestamp, read_at: Duration) {
        if self.store.is_none_or(|(_, earlier)| earlier <= read_at) {
            self.store = Some((store_time, read_at));
        }
    }

    /// Returns the wall clock's time, as far as it counts.
    pub(crate) fn wall(&self, now: Now) -> Timestamp {
        let wall = now.timestamp();
        match self.store {
            None => wall,
            Some((time, read_at)) => {
                let since = now.monotonic.saturating_sub(read_at).whole_seconds().max(0);
                wall.min(time.plus(u64::try_from(since).unwrap_or(0)).plus(MAX_NODE_LEAD))
            }
        }
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
        let wall = self.wall(now);
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
    fn a_wall_clock_in_the_future_counts_no_further_than_a_bound_ahead_of_the_stores() {
        let mut clock = Clock::at(Timestamp::EPOCH, Duration::ZERO);
        clock.bound(Timestamp::from_seconds(1_000).unwrap(), Duration::seconds(10));
        assert_eq!(
            clock.advance(at(1_000 + i64::try_from(MAX_NODE_LEAD).unwrap(), 10)).seconds(),
            1_000 + MAX_NODE_LEAD
        );
        assert_eq!(clock.advance(at(90_000, 10)).seconds(), 1_000 + MAX_NODE_LEAD);
        assert_eq!(clock.advance(at(90_000, 15)).seconds(), 1_005 + MAX_NODE_LEAD, "and goes on from there");
        clock.bound(Timestamp::from_seconds(5).unwrap(), Duration::seconds(9));
        assert_eq!(clock.wall(at(90_000, 15)).seconds(), 1_005 + MAX_NODE_LEAD, "the later reading stands");
        clock.bound(Timestamp::from_seconds(2_000).unwrap(), Duration::seconds(20));
        assert_eq!(clock.advance(at(90_000, 20)).seconds(), 2_000 + MAX_NODE_LEAD);
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
