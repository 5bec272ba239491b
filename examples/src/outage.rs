//! A time in which the agent cannot be reached: since when, and how long to pause before the next try.

use std::time::Duration;

use rand::rngs::OsRng;
use sessioncap::session::Reconnect;
use time::OffsetDateTime;

use super::problem::Problem;

/// The tries of one outage. Each pause is longer than the one before, and none is the same for two programs that were
/// cut off together.
#[derive(Default)]
pub struct Outage {
    since: Option<String>,
    pauses: Reconnect,
}

impl Outage {
    /// Notes a failure. Returns how long to pause, and what to say.
    pub fn failed(&mut self, problem: &Problem) -> (Duration, String) {
        let now = || {
            let (hour, minute, second) = OffsetDateTime::now_utc().to_hms();
            format!("{hour:02}:{minute:02}:{second:02} UTC")
        };
        let since = self.since.get_or_insert_with(now);
        (self.pauses.pause(&mut OsRng), format!("agent not reachable since {since} ({problem})"))
    }

    /// Whether one lasts.
    pub fn lasts(&self) -> bool {
        self.since.is_some()
    }

    /// Notes that the agent was heard again.
    pub fn over(&mut self) {
        *self = Self::default();
    }
}
