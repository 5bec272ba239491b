//! Code shared by the example programs. `pair_mobile` runs all of it in one process.

pub mod agent;
pub mod clock;
pub mod companion;
pub mod desktop;
#[cfg(feature = "acp")]
pub mod discovery;
pub mod files;
pub mod inspect;
#[cfg(feature = "acp")]
pub mod keys;
pub mod outage;
pub mod problem;
pub mod pty;
pub mod request;
pub mod sessions;
pub mod story;
pub mod terminal;
#[cfg(feature = "acp")]
pub mod tls;
pub mod transport;

use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

use problem::{Outcome, Problem};

/// Runs a program to its end on a runtime of its own, and says what went wrong.
pub fn run(name: &str, program: impl Future<Output = Outcome<ExitCode>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(program);
            // Without waiting: a thread may still be reading standard input.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(Problem::Said(format!("no runtime: {error}"))),
    };
    outcome.unwrap_or_else(|problem| {
        terminal::note(&format!("{name}: {problem}"));
        ExitCode::FAILURE
    })
}

/// Locks. A panic elsewhere leaves nothing half done that the next holder of a lock would trip over.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
