//! Follows the log for a gate, and waits for the other nodes.

use core::time::Duration;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use sessioncap::Now;
use sessioncap::agent::{Gate, LogRead, OtherNodes};

use crate::jobs::{Behind, Seen};
use crate::ledger::Shared;
use crate::problem::{Failure, Problem};

/// How often a process says that it is there, if there is nothing else to say.
const SEEN_EVERY: time::Duration = time::Duration::seconds(5);

/// How long after it last said so a process still permits.
const SEEN_FOR: time::Duration = time::Duration::seconds(20);

/// How long after it last said so a process is waited for, besides twice the limit. More than [`SEEN_FOR`], because
/// the clocks of process and database are read at different moments.
const WAITED_FOR: Duration = Duration::from_secs(30);

/// Follows the log of a ledger for a gate that [`PostgresLedger::configure`](crate::PostgresLedger::configure) was
/// called for. One ledger has one gate.
pub struct Feed {
    shared: Arc<Shared>,
    state: Mutex<State>,
}

/// What was last said to the others.
#[derive(Default)]
struct State {
    observed: i64,
    /// By the clock of [`Now::monotonic`].
    said_at: Option<time::Duration>,
}

impl Feed {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, state: Mutex::default() }
    }

    /// Reads the log once, to its end, lets the gate observe what others have written, and lets it permit for the
    /// limit from `now`, which must be read right before the call. Costs one round trip, and another if something
    /// was written.
    ///
    /// # Errors
    /// [`Problem`]. What was read is observed in any case, but the gate's permits are not continued.
    pub fn poll(&self, gate: &Gate, now: Now) -> Result<(), Problem> {
        let shared = &self.shared;
        // Held throughout, so that transactions are observed in their order.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let read = shared.catch_up(&shared.reader, shared.options.read_timeout, || ());
        let unobserved = shared.copy_mut().take_unobserved();
        for changes in &unobserved {
            // A gate that cannot read them is shut, and permits nothing.
            let observed = gate.observe(changes, now);
            observed.map_err(|denial| Problem::Connection(format!("the gate cannot observe: {denial}")))?;
        }
        let (place, status) = read.map_err(Failure::problem)?;
        let due = state.said_at.is_none_or(|said_at| now.monotonic.saturating_sub(said_at) >= SEEN_EVERY);
        let mut said = Ok(());
        if due || place.position > state.observed {
            let seen = Seen { me: shared.me, observed: place.position };
            said = shared.reader.call(seen, shared.options.read_timeout).map_err(Failure::problem);
            if said.is_ok() {
                *state = State { observed: place.position, said_at: Some(now.monotonic) };
            }
        }
        if due {
            shared.confirm_later();
        }
        // Others take a process that was silent for longer for one that permits nothing.
        if state.said_at.is_some_and(|said_at| now.monotonic.saturating_sub(said_at) < SEEN_FOR) {
            gate.caught_up(LogRead::new(now.monotonic, status.time));
        }
        said
    }

    /// Follows the log on a thread of its own until the result is dropped: reads it when another node says that it
    /// has written, and at the interval of [`Options::with_reads`](crate::Options::with_reads) in any case. `clock` is
    /// called before each read, and must be the clock whose readings the gate is given.
    ///
    /// # Errors
    /// [`Problem::Connection`] if no thread can be started.
    pub fn follow(self, gate: Gate, clock: impl Fn() -> Now + Send + 'static) -> Result<Following, Problem> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let latest = Arc::new(Mutex::new(Ok(())));
        let told = Arc::clone(&latest);
        let name = "sessioncap-feed".to_owned();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                let outcome = self.poll(&gate, clock());
                let failed = outcome.is_err();
                *told.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
                let hints = self.shared.hints.lock().unwrap_or_else(PoisonError::into_inner);
                let hinted = hints.recv_timeout(self.shared.options.interval);
                drop(hints);
                if hinted == Err(RecvTimeoutError::Disconnected) || failed && hinted.is_ok() {
                    std::thread::sleep(self.shared.options.interval);
                }
            }
        });
        let thread = thread.map_err(|error| Problem::Connection(error.to_string()))?;
        Ok(Following { stop, latest, thread: Some(thread) })
    }
}

impl core::fmt::Debug for Feed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

/// A thread that follows the log. It ends when this is dropped, which waits for the read in progress. It has a
/// handle of the gate, so drop it before the gate.
pub struct Following {
    stop: Arc<AtomicBool>,
    latest: Arc<Mutex<Result<(), Problem>>>,
    thread: Option<JoinHandle<()>>,
}

impl Following {
    /// Returns how the latest read went.
    ///
    /// # Errors
    /// Its [`Problem`].
    pub fn latest(&self) -> Result<(), Problem> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl core::fmt::Debug for Following {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Following").field("latest", &self.latest()).finish_non_exhaustive()
    }
}

/// The other processes that share the log.
pub(crate) struct Nodes(pub(crate) Arc<Shared>);

impl OtherNodes for Nodes {
    /// Waits until each has observed all that this process has committed, or for as long as one that has not read it
    /// may still permit. The time is this process's own, so that it ends without the database.
    fn wait(&self) {
        let shared = &self.0;
        let begun = Instant::now();
        let last_permit = shared.options.last_permit();
        let position = shared.copy().place().position;
        let silent = WAITED_FOR.saturating_add(shared.options.limit * 2).as_secs_f64();
        let mut pause = Duration::from_millis(1);
        loop {
            let left = last_permit.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return;
            }
            let behind = Behind { me: shared.me, position, silent };
            match shared.writer.call(behind, left.min(shared.options.read_timeout)) {
                Ok(0) => return,
                Ok(_) => std::thread::sleep(pause.min(left)),
                Err(_) => std::thread::sleep(shared.options.interval.min(left)),
            }
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}
