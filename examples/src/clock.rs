//! The agent's two clocks, as one value that it is given. The library's gate reads none.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use sessioncap::{Now, SystemClock};
use time::Duration;

use super::problem::Outcome;

/// Where an agent gets its time from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Now + Send + Sync>);

impl Clock {
    /// Any source.
    pub fn new(read: impl Fn() -> Now + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The machine's clocks.
    pub fn system() -> Outcome<Self> {
        let system = SystemClock::new()?;
        Ok(Self::new(move || system.now()))
    }

    /// The machine's clocks, the wall clock ahead by the whole seconds that `file` holds when they are
    /// read. A smaller number than before sets only the wall clock back, as a person could: the other
    /// never goes back. For trying out by hand the effects of passing hours.
    pub fn moved_by_file(file: PathBuf) -> Outcome<Self> {
        let system = SystemClock::new()?;
        let furthest = AtomicI32::new(0);
        Ok(Self::new(move || {
            let seconds = std::fs::read_to_string(&file).ok();
            let seconds: i32 = seconds.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            let furthest = furthest.fetch_max(seconds, Ordering::Relaxed).max(seconds);
            let now = system.now();
            Now::since_1970(
                now.wall.saturating_add(Duration::seconds(seconds.into())),
                now.monotonic.saturating_add(Duration::seconds(furthest.into())),
            )
        }))
    }

    /// One reading.
    pub fn now(&self) -> Now {
        (self.0)()
    }
}

/// The time by which liveness is judged.
pub fn monotonic(now: Now) -> std::time::Duration {
    now.monotonic.unsigned_abs()
}
