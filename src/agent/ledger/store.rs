//! Calls to a backend that may fail, lie or panic.

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use super::{Changes, Ledger, LedgerError, Snapshot};
use crate::agent::denial::LedgerFailure;

/// Reads, and gives what was read.
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
        // A backend that panics, or says that it has read what it has not, is used no more.
        (Ok(Ok(())), None) | (Err(_), _) => Err(LedgerError::not_done(LedgerFailure::Io).unusable()),
    }
}

/// Runs a transition, and gives the result of its last run once it is durable.
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
