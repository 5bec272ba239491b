//! The sampler: two sides in alternating slices of about two milliseconds, one ratio for each pair of
//! slices, and the quartiles of those ratios.
//!
//! A machine that slows down for a second slows both sides of the same pair, so the ratio holds where
//! two separate averages would not. The order inside a pair alternates too. What is counted is this
//! thread's own CPU time: nothing measured here waits, and other programs' turns are nobody's cost.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// Runs an operation so many times and says how long that took, preparation not counted.
pub type Side<'a> = Box<dyn FnMut(usize) -> Duration + 'a>;

const SLICE: Duration = Duration::from_millis(2);

/// Two sides compared.
#[derive(Debug, Clone, Copy)]
pub struct Compared {
    /// Our time over the peer's: lower quartile, median, upper quartile.
    pub ratio: [f64; 3],
    /// Median nanoseconds for one operation.
    pub ours: f64,
    pub peer: f64,
}

impl Compared {
    /// The same comparison as throughput: the peer's time over ours.
    pub fn inverted(mut self) -> Self {
        let [low, median, high] = self.ratio;
        self.ratio = [1.0 / high, 1.0 / median, 1.0 / low];
        self
    }
}

/// This thread's CPU time since it began to count.
pub struct Stopwatch(Duration);

impl Stopwatch {
    pub fn start() -> Self {
        Self(Self::read())
    }

    pub fn elapsed(&self) -> Duration {
        Self::read() - self.0
    }

    fn read() -> Duration {
        Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap()
    }
}

/// Compares two sides in `rounds` pairs of slices.
pub fn compare(rounds: usize, mut ours: Side<'_>, mut peer: Side<'_>) -> Compared {
    let (ours_batch, peer_batch) = (calibrate(&mut ours), calibrate(&mut peer));
    let (mut ratios, mut our_times, mut peer_times) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let (our_time, peer_time) = if round % 2 == 0 {
            let our_time = one(&mut ours, ours_batch);
            (our_time, one(&mut peer, peer_batch))
        } else {
            let peer_time = one(&mut peer, peer_batch);
            (one(&mut ours, ours_batch), peer_time)
        };
        ratios.push(our_time / peer_time);
        our_times.push(our_time);
        peer_times.push(peer_time);
    }
    let [_, ours, _] = quartiles(our_times);
    let [_, peer, _] = quartiles(peer_times);
    Compared { ratio: quartiles(ratios), ours, peer }
}

/// Runs what is measured while another thread reads memory. On a server that does nothing else, the first reads of memory
/// after a slice that stays in the caches take ten times as long, whoever makes them.
pub fn while_another_thread_reads<T>(measured: impl FnOnce() -> T) -> T {
    const LINE: usize = 64;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut memory = vec![0_u8; 1 << 26];
            let mut at = 0;
            while !over.load(Relaxed) {
                at = (at + 61 * LINE) % memory.len();
                memory[at] = memory[at].wrapping_add(1);
            }
            black_box(memory);
        });
        let result = measured();
        over.store(true, Relaxed);
        result
    })
}

/// A side that has nothing to prepare.
pub fn repeat<'a, O>(mut operation: impl FnMut() -> O + 'a) -> Side<'a> {
    Box::new(move |times| {
        timed(&mut || {
            for _ in 0..times {
                black_box(operation());
            }
        })
    })
}

/// Whether slices are timed, or run for valgrind, which counts the instructions of the measured ones. No
/// clock is read there, because valgrind does not have the kernel's page for it.
static MODE: AtomicU8 = AtomicU8::new(TIMED);
const TIMED: u8 = 0;
const UNMEASURED: u8 = 1;
const MEASURED: u8 = 2;

/// Runs a side once for valgrind, after a run that is not counted.
pub fn count(side: &mut Side<'_>, times: usize) {
    MODE.store(UNMEASURED, Relaxed);
    side(2);
    MODE.store(MEASURED, Relaxed);
    side(times);
}

/// Returns the system's time, which some peers read by themselves.
pub fn unix_time() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// Returns how long a slice has taken.
pub fn timed(slice: &mut dyn FnMut()) -> Duration {
    match MODE.load(Relaxed) {
        MEASURED => measured_slice(slice),
        UNMEASURED => slice(),
        _ => {
            let start = Stopwatch::start();
            slice();
            return start.elapsed();
        }
    }
    Duration::ZERO
}

/// The function whose instructions valgrind is told to count.
#[inline(never)]
fn measured_slice(slice: &mut dyn FnMut()) {
    slice();
}

/// A side that needs something fresh for each operation. What the operation returns is dropped
/// outside the measured time.
pub fn consume<'a, I, O>(
    mut prepare: impl FnMut() -> I + 'a,
    mut operation: impl FnMut(I) -> O + 'a,
) -> Side<'a> {
    Box::new(move |times| {
        let inputs: Vec<I> = (0..times).map(|_| prepare()).collect();
        let mut outputs = Vec::with_capacity(times);
        let mut inputs = inputs.into_iter();
        let elapsed = timed(&mut || {
            for input in inputs.by_ref() {
                outputs.push(operation(black_box(input)));
            }
        });
        black_box(outputs);
        elapsed
    })
}

fn one(side: &mut Side<'_>, times: usize) -> f64 {
    side(times).as_secs_f64() * 1e9 / times as f64
}

/// Doubles the number of operations until they fill a slice.
fn calibrate(side: &mut Side<'_>) -> usize {
    let mut times = 1;
    loop {
        // the first call warms up
        side(times);
        if side(times) * 3 / 2 >= SLICE {
            return times;
        }
        times *= 2;
    }
}

/// Returns the lower quartile, the median and the upper quartile.
pub fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}
