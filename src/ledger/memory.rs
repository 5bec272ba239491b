//! A ledger in memory: for agents whose sessions end with the process, and for tests.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use super::overlay::{Bytes, Overlay, Stored};
use super::{Ledger, Table, Transition};
use crate::denial::LedgerFailure;

/// Records in memory. Nothing survives the process, so after a restart every phone pairs anew.
#[derive(Default)]
pub struct MemoryLedger {
    tables: HashMap<Table, BTreeMap<Bytes, Bytes>>,
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
        let records: usize = self.tables.values().map(BTreeMap::len).sum();
        f.debug_struct("MemoryLedger").field("records", &records).finish_non_exhaustive()
    }
}

impl Ledger for MemoryLedger {
    fn transact(&mut self, transition: Transition<'_>) -> Result<(), LedgerFailure> {
        let mut overlay = Overlay::new(&*self);
        transition(&mut overlay)?;
        for ((table, key), value) in overlay.into_changes()? {
            let rows = self.tables.entry(table).or_default();
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
        Ok(())
    }
}

impl Stored for MemoryLedger {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerFailure> {
        Ok(self.tables.get(&table).and_then(|rows| rows.get(key)).map(|value| value.to_vec()))
    }

    fn keys(&self, table: Table, prefix: &[u8], limit: usize) -> Result<Vec<Bytes>, LedgerFailure> {
        let rows = self.tables.get(&table).into_iter();
        let keys = rows.flat_map(|rows| {
            rows.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
                .map(|(key, _)| key)
                .take_while(|key| key.starts_with(prefix))
        });
        Ok(keys.take(limit).cloned().collect())
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
