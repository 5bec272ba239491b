//! Calls a backend, which may fail, misbehave or panic.

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use super::{Changes, Ledger, LedgerError, Snapshot};
use crate::agent::denial::LedgerFailure;

/// Reads from the backend and returns the result.
pub(crate) fn read<T>(
    ledger: &dyn Ledger,
    mut look: impl FnMut(&dyn Snapshot) -> Result<T, LedgerFailure>,
) -> Result<T, LedgerError> {
    let mut found = None;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        ledger.read(&mut |snapshot| {
            found = None;
            found = Some(look(snapshot)?);
            Ok(())
        })
    }));
    match (outcome, found) {
        (Ok(Ok(())), Some(found)) => Ok(found),
        (Ok(Err(error)), _) => Err(error),
        // A backend that panics, or reports a read that did not happen, is no longer used.
        (Ok(Ok(())), None) | (Err(_), _) => Err(LedgerError::not_done(LedgerFailure::Io).unusable()),
    }
}

/// Runs a transition, and returns the result of its last run once it is durable.
pub(crate) fn transact<T>(
    ledger: &dyn Ledger,
    mut transition: impl FnMut(&dyn Snapshot) -> Result<(Changes, T), LedgerFailure>,
) -> Result<T, LedgerError> {
    let mut result = None;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        ledger.transact(&mut |snapshot| {
            result = None;
            let (changes, value) = transition(snapshot)?;
            result = Some(value);
            Ok(changes)
        })
    }));
    match (outcome, result) {
        (Ok(Ok(())), Some(result)) => Ok(result),
        (Ok(Err(error)), _) => Err(error),
        (Ok(Ok(())), None) | (Err(_), _) => Err(LedgerError::unknown(LedgerFailure::Io)),
    }
}
