//! A ledger in memory: for agents whose sessions end with the process, and for tests.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use super::overlay::{Bytes, Overlay, Stored};
use super::{Ledger, Table, Transition};
use crate::agent::denial::LedgerFailure;

/// Records in memory. Nothing survives the process, so after a restart every phone pairs anew.
#[derive(Default)]
pub struct MemoryLedger {
    tables: HashMap<Table, BTreeSet<Row>>,
}

/// A key and its value in one allocation, since most rows are entries of an index and have no value:
/// the key's length, the key, the value. Rows are told apart by their keys.
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
        // As it was made, it can be split.
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
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl core::fmt::Debug for MemoryLedger {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let records: usize = self.tables.values().map(BTreeSet::len).sum();
        f.debug_struct("MemoryLedger").field("records", &records).finish_non_exhaustive()
    }
}

impl Ledger for MemoryLedger {
    fn transact(&mut self, transition: Transition<'_>) -> Result<(), LedgerFailure> {
        let mut overlay = Overlay::new(&*self);
        transition(&mut overlay)?;
        let changes = overlay.into_changes()?.into_iter();
        // Made before any is applied, so that none is applied without the others.
        let rows = changes.map(|((table, key), value)| {
            let row = value.map(|value| Row::new(&key, &value)).transpose()?;
            Ok((table, key, row))
        });
        for (table, key, row) in rows.collect::<Result<Vec<_>, _>>()? {
            let rows = self.tables.entry(table).or_default();
            match row {
                Some(row) => drop(rows.replace(row)),
                None => drop(rows.take(&*key)),
            }
        }
        Ok(())
    }
}

impl Stored for MemoryLedger {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerFailure> {
        Ok(self.tables.get(&table).and_then(|rows| rows.get(key)).map(|row| row.parts().1.to_vec()))
    }

    fn keys(&self, table: Table, prefix: &[u8], limit: usize) -> Result<Vec<Bytes>, LedgerFailure> {
        let rows = self.tables.get(&table).into_iter();
        let keys = rows.flat_map(|rows| {
            rows.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
                .map(Row::key)
                .take_while(|key| key.starts_with(prefix))
        });
        Ok(keys.take(limit).map(Bytes::from).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_transition_leaves_nothing() {
        let mut ledger = MemoryLedger::new();
        let failed = ledger.transact(&mut |transaction| {
            transaction.put(Table::Meta, b"a", b"1")?;
            Err(LedgerFailure::Io)
        });
        assert_eq!(failed, Err(LedgerFailure::Io));
        ledger
            .transact(&mut |transaction| {
                assert_eq!(transaction.get(Table::Meta, b"a"), Ok(None));
                Ok(())
            })
            .unwrap();
    }
}
