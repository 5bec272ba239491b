//! A transaction that reads from what is stored and keeps its own changes apart until they are
//! applied: what memory and file have in common.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{Table, Transaction};
use crate::denial::LedgerFailure;

pub(super) type Bytes = Box<[u8]>;

/// What is stored, as it was before the transaction.
pub(super) trait Stored {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerFailure>;

    /// The keys that begin with `prefix`, ascending, at most `limit`.
    fn keys(&self, table: Table, prefix: &[u8], limit: usize) -> Result<Vec<Bytes>, LedgerFailure>;
}

/// Changes by table and key. `None` removes.
pub(super) type Changes = BTreeMap<(Table, Bytes), Option<Bytes>>;

/// The changes of one transaction over what is stored.
pub(super) struct Overlay<'a, S> {
    stored: &'a S,
    changes: Changes,
}

impl<'a, S: Stored> Overlay<'a, S> {
    pub(super) fn new(stored: &'a S) -> Self {
        Self { stored, changes: BTreeMap::new() }
    }

    /// What has to be written: changes that leave a row as it is stored are none.
    pub(super) fn into_changes(self) -> Result<Changes, LedgerFailure> {
        let mut changes = self.changes;
        let mut failure = None;
        changes.retain(|(table, key), value| match self.stored.get(*table, key) {
            Ok(stored) => stored.as_deref() != value.as_deref(),
            Err(error) => {
                failure = Some(error);
                true
            }
        });
        failure.map_or(Ok(changes), Err)
    }

    /// The transaction's own changes to rows that begin with `prefix`.
    fn changed(
        &self,
        table: Table,
        prefix: &[u8],
    ) -> impl Iterator<Item = (&Bytes, &Option<Bytes>)> + use<'_, 'a, S> {
        let prefix = Bytes::from(prefix);
        self.changes
            .range((Bound::Included((table, prefix.clone())), Bound::Unbounded))
            .take_while(move |((of, key), _)| *of == table && key.starts_with(&prefix))
            .map(|((_, key), value)| (key, value))
    }
}

impl<S: Stored> Transaction for Overlay<'_, S> {
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerFailure> {
        match self.changes.get(&(table, Box::from(key))) {
            Some(value) => Ok(value.as_deref().map(<[u8]>::to_vec)),
            None => self.stored.get(table, key),
        }
    }

    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), LedgerFailure> {
        self.changes.insert((table, Box::from(key)), Some(Box::from(value)));
        Ok(())
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), LedgerFailure> {
        self.changes.insert((table, Box::from(key)), None);
        Ok(())
    }

    fn keys(&mut self, table: Table, prefix: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, LedgerFailure> {
        // A stored row that this transaction removed makes room for a later one.
        let removed = self.changed(table, prefix).filter(|(_, value)| value.is_none()).count();
        let mut found = self.stored.keys(table, prefix, limit.saturating_add(removed))?;
        for (key, value) in self.changed(table, prefix) {
            match (found.binary_search(key), value) {
                (Ok(at), None) => drop(found.remove(at)),
                (Err(at), Some(_)) => found.insert(at, key.clone()),
                (Ok(_), Some(_)) | (Err(_), None) => {}
            }
        }
        found.truncate(limit);
        Ok(found.into_iter().map(Vec::from).collect())
    }
}
