//! What a gate keeps: the ledger, the clock, who is connected, and audit records on their way to the sink.

mod clock;
mod desk;
mod outbox;
mod pending;
mod recent;
mod registry;
mod state;

use std::sync::PoisonError;

pub(crate) use pending::PendingMark;
pub(crate) use registry::Subject;
pub(crate) use state::{Begun, Core};

use crate::sync::{Mutex, MutexGuard};

/// No code that holds these locks can panic half-way through a change: a ledger that panics is caught by
/// its store.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
