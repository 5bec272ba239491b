//! A ledger in memory: for agents whose sessions end with the process, and for tests.

mod leaf;
mod packed;

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use leaf::Rows;

use super::{Ledger, LedgerError, Look, Snapshot, Table, Transition};
use crate::agent::denial::LedgerFailure;

/// A ledger in memory. Nothing survives the process, so after a restart every phone must pair again.
#[derive(Default)]
pub struct MemoryLedger {
    tables: RwLock<Tables>,
    writer: Mutex<()>,
}

#[derive(Default)]
struct Tables(HashMap<Table, Rows>);

impl MemoryLedger {
    /// Makes an empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl core::fmt::Debug for MemoryLedger {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let records: usize = lock_read(&self.tables).0.values().map(Rows::len).sum();
        f.debug_struct("MemoryLedger").field("records", &records).finish_non_exhaustive()
    }
}

impl Ledger for MemoryLedger {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        look(&*lock_read(&self.tables)).map_err(LedgerError::not_done)
    }

    fn transact(&self, transition: Transition<'_>) -> Result<(), LedgerError> {
        // One transition at a time; reads run concurrently until it is applied.
        let _one = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = transition(&*lock_read(&self.tables)).map_err(LedgerError::not_done)?;
        // Checked before any is applied, so that all are applied or none.
        let checked = changes.iter().try_for_each(|(_, key, value)| Rows::check(key, value.unwrap_or(&[])));
        checked.map_err(LedgerError::not_done)?;
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        for (table, key, value) in changes.iter() {
            // The rows that are long and stay for long.
            let rows = tables.0.entry(table).or_insert_with(|| Rows::new(table == Table::Credentials));
            rows.set(key, value);
        }
        Ok(())
    }
}

/// Code that holds this lock cannot panic in the middle of a change.
fn lock_read(tables: &RwLock<Tables>) -> RwLockReadGuard<'_, Tables> {
    tables.read().unwrap_or_else(PoisonError::into_inner)
}

impl Snapshot for Tables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerFailure> {
        Ok(self.0.get(&table).and_then(|rows| rows.get(key)))
    }

    fn range(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<super::Row>, LedgerFailure> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut found = Vec::new();
        let Some(rows) = self.0.get(&table).filter(|_| limit > 0) else { return Ok(found) };
        rows.each_from(from, |key, value| {
            if key.starts_with(prefix) {
                found.push((key.to_vec(), value.to_vec()));
            }
            key.starts_with(prefix) && found.len() < limit
        });
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::ledger::Overlay;

    #[test]
    fn a_failed_transition_leaves_nothing() {
        let ledger = MemoryLedger::new();
        let failed = ledger.transact(&mut |snapshot| {
            Overlay::new(snapshot).put(Table::Meta, b"a", b"1");
            Err(LedgerFailure::Io)
        });
        assert_eq!(failed, Err(LedgerError::not_done(LedgerFailure::Io)));
        let look = ledger.read(&mut |snapshot| {
            assert_eq!(snapshot.get(Table::Meta, b"a"), Ok(None));
            Ok(())
        });
        assert_eq!(look, Ok(()));
    }
}
