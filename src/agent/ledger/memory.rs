//! A ledger in memory: for agents whose sessions end with the process, and for tests.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use super::overlay::Bytes;
use super::{Ledger, LedgerError, Look, Snapshot, Table, Transition};
use crate::agent::denial::LedgerFailure;

/// A ledger in memory. Nothing survives the process, so after a restart every phone must pair again.
#[derive(Default)]
pub struct MemoryLedger {
    tables: RwLock<Tables>,
    writer: Mutex<()>,
}

#[derive(Default)]
struct Tables(HashMap<Table, BTreeSet<Row>>);

/// A key and its value in one allocation, because most rows are index entries without a value: the key's
/// length, the key, the value. Rows are compared by key.
struct Row(Bytes);

type Length = u32;
const LENGTH: usize = size_of::<Length>();

impl Row {
    fn new(key: &[u8], value: &[u8]) -> Result<Self, LedgerFailure> {
        let length = Length::try_from(key.len()).map_err(|_| LedgerFailure::Full)?;
        Ok(Self([length.to_le_bytes().as_slice(), key, value].concat().into()))
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        let split = self.0.split_first_chunk::<LENGTH>().and_then(|(length, rest)| {
            rest.split_at_checked(usize::try_from(Length::from_le_bytes(*length)).ok()?)
        });
        // A row is always built so that it can be split.
        split.unwrap_or_default()
    }

    fn key(&self) -> &[u8] {
        self.parts().0
    }
}

impl Borrow<[u8]> for Row {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Row {}

impl PartialOrd for Row {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Row {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key())
    }
}

impl MemoryLedger {
    /// Makes an empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl core::fmt::Debug for MemoryLedger {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let records: usize = lock_read(&self.tables).0.values().map(BTreeSet::len).sum();
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
        // Built before any is applied, so that all are applied or none.
        let rows = changes.iter().map(|(table, key, value)| {
            Ok((table, key, value.map(|value| Row::new(key, value)).transpose()?))
        });
        let rows = rows.collect::<Result<Vec<_>, _>>().map_err(LedgerError::not_done)?;
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        for (table, key, row) in rows {
            let stored = tables.0.entry(table).or_default();
            match row {
                Some(row) => drop(stored.replace(row)),
                None => drop(stored.take(key)),
            }
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
        Ok(self.0.get(&table).and_then(|rows| rows.get(key)).map(|row| row.parts().1.to_vec()))
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
        let rows = self.0.get(&table).into_iter();
        let rows = rows.flat_map(|rows| rows.range::<[u8], _>((from, Bound::Unbounded)).map(Row::parts));
        let rows = rows.take_while(|(key, _)| key.starts_with(prefix)).take(limit);
        Ok(rows.map(|(key, value)| (key.to_vec(), value.to_vec())).collect())
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
