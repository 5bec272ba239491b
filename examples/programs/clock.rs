//! The agent's two clocks, as one value that it is given. The library reads none.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use sessioncap::Now;
use time::{Duration, OffsetDateTime};

/// Where an agent gets its time from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Now + Send + Sync>);

impl Clock {
    /// Any source.
    pub fn new(read: impl Fn() -> Now + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The machine's clocks.
    pub fn system() -> Self {
        Self::new(read_system)
    }

    /// The machine's clocks, the wall clock ahead by the whole seconds that `file` holds when they are
    /// read. A smaller number than before sets only the wall clock back, as a person could: the other
    /// never goes back. For trying out by hand what the passing of hours does.
    pub fn moved_by_file(file: PathBuf) -> Self {
        let furthest = AtomicI32::new(0);
        Self::new(move || {
            let seconds = std::fs::read_to_string(&file).ok();
            let seconds: i32 = seconds.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            let furthest = furthest.fetch_max(seconds, Ordering::Relaxed).max(seconds);
            let now = read_system();
            Now::new(
                now.wall.saturating_add(Duration::seconds(seconds.into())),
                now.monotonic.saturating_add(Duration::seconds(furthest.into())),
            )
        })
    }

    /// One reading.
    pub fn now(&self) -> Now {
        (self.0)()
    }
}

fn read_system() -> Now {
    Now::new(OffsetDateTime::now_utc(), monotonic())
}

/// Goes on while the machine sleeps, so that a night in a closed laptop counts.
#[cfg(target_os = "linux")]
fn monotonic() -> Duration {
    let reading = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(reading.tv_sec, i32::try_from(reading.tv_nsec).unwrap_or(0))
}

#[cfg(not(target_os = "linux"))]
fn monotonic() -> Duration {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let elapsed = START.get_or_init(std::time::Instant::now).elapsed();
    Duration::try_from(elapsed).unwrap_or(Duration::MAX)
}
