//! The shared state of a gate: ledger, clock, registry of connections, and audit outbox.

mod clock;
mod commit;
mod devices;
mod enter;
mod nodes;
mod outbox;
mod pending;
mod recent;
mod registry;
mod revoke;
mod state;
mod watch;

use std::sync::PoisonError;

pub(crate) use enter::{Entry, check_room};
pub(crate) use pending::PendingMark;
pub(crate) use registry::Subject;
pub(crate) use state::{CallStart, Core};

use crate::sync::{Mutex, MutexGuard};

/// Locks a mutex and ignores poisoning: code that holds these locks cannot panic in the middle of a change,
/// because the store catches a ledger's panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
