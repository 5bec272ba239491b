//! A transaction that reads from what is stored and keeps its own changes apart until they are
//! applied: what memory and file have in common.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{Table, Transaction};
use crate::agent::denial::LedgerFailure;

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::agent::ledger::{Ledger, MemoryLedger};

    type Model = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

    /// A row and what it becomes.
    type Step = (Table, Vec<u8>, Option<u8>);

    /// Few bytes, the first and the last among them, so that prefixes meet and end where a byte can not
    /// be counted up.
    fn any_key() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(0), Just(7), Just(255)], 0..4)
    }

    fn any_table() -> impl Strategy<Value = Table> {
        prop_oneof![Just(Table::Meta), Just(Table::Issuers), Just(Table::Sessions)]
    }

    fn any_steps() -> impl Strategy<Value = Vec<Step>> {
        proptest::collection::vec((any_table(), any_key(), any::<Option<u8>>()), 0..30)
    }

    fn apply(steps: &[Step], transaction: &mut dyn Transaction, model: &mut Model) {
        for (table, key, value) in steps {
            match value {
                Some(value) => {
                    transaction.put(*table, key, &[*value]).unwrap();
                    model.insert((*table, key.clone()), vec![*value]);
                }
                None => {
                    transaction.remove(*table, key).unwrap();
                    model.remove(&(*table, key.clone()));
                }
            }
        }
    }

    fn compare(transaction: &mut dyn Transaction, model: &Model, prefix: &[u8], limit: usize) {
        for table in [Table::Meta, Table::Issuers, Table::Sessions] {
            let keys = model.keys().filter(|(of, key)| *of == table && key.starts_with(prefix));
            let keys: Vec<_> = keys.map(|(_, key)| key.clone()).take(limit).collect();
            assert_eq!(transaction.keys(table, prefix, limit).unwrap(), keys, "{table:?} {prefix:?}");
            let value = model.get(&(table, prefix.to_vec())).cloned();
            assert_eq!(transaction.get(table, prefix).unwrap(), value, "{table:?} {prefix:?}");
        }
    }

    /// Inside the transaction that writes, and in the next one.
    fn reads_are_the_models(ledger: &mut dyn Ledger, steps: [&[Step]; 2], prefix: &[u8], limit: usize) {
        let mut model = Model::new();
        for steps in steps {
            ledger
                .transact(&mut |transaction| {
                    compare(transaction, &model, prefix, limit);
                    apply(steps, transaction, &mut model);
                    compare(transaction, &model, prefix, limit);
                    Ok(())
                })
                .unwrap();
        }
        ledger
            .transact(&mut |transaction| {
                compare(transaction, &model, prefix, limit);
                compare(transaction, &model, &[], usize::MAX);
                Ok(())
            })
            .unwrap();
    }

    proptest! {
        #[test]
        fn reads_see_what_was_written_before_and_inside_the_transaction(
            before in any_steps(), inside in any_steps(), prefix in any_key(), limit in 0..25_usize,
        ) {
            reads_are_the_models(&mut MemoryLedger::new(), [&before, &inside], &prefix, limit);
            #[cfg(feature = "redb")]
            {
                let disk = crate::agent::ledger::faulty::Disk::default();
                let mut file = crate::agent::ledger::RedbLedger::on_backend(disk).unwrap();
                reads_are_the_models(&mut file, [&before, &inside], &prefix, limit);
            }
        }
    }
}
