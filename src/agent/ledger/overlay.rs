//! Changes over a snapshot, kept separately until they are committed.

use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::ops::Bound;

use super::{Row, Snapshot, Table};
use crate::agent::denial::LedgerFailure;

type Bytes = Box<[u8]>;

type Rows = BTreeMap<Bytes, Option<Bytes>>;

/// The rows that a transition has set or removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes(BTreeMap<Table, Rows>);

impl Changes {
    /// Whether there are no changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.values().all(BTreeMap::is_empty)
    }

    /// Returns the number of changed rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// Returns each changed row in ascending order of table and key, with its new value; `None` removes it.
    pub fn iter(&self) -> impl Iterator<Item = (Table, &[u8], Option<&[u8]>)> {
        self.0
            .iter()
            .flat_map(|(table, rows)| rows.iter().map(|(key, value)| (*table, &**key, value.as_deref())))
    }

    fn set(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) {
        let rows = self.0.entry(table).or_default();
        match rows.get_mut(key) {
            Some(row) => *row = value.map(Bytes::from),
            None => drop(rows.insert(Bytes::from(key), value.map(Bytes::from))),
        }
    }

    /// Removes those chosen rows that have the same value in the snapshot.
    fn retain_changed(
        &mut self,
        below: &dyn Snapshot,
        chosen: impl Fn(&Option<Bytes>) -> bool,
    ) -> Result<(), LedgerFailure> {
        let mut failure = None;
        for (table, rows) in &mut self.0 {
            rows.retain(|key, value| match chosen(value).then(|| below.get(*table, key)) {
                None => true,
                Some(Ok(stored)) => stored.as_deref() != value.as_deref(),
                Some(Err(error)) => {
                    failure = Some(error);
                    true
                }
            });
        }
        self.0.retain(|_, rows| !rows.is_empty());
        failure.map_or(Ok(()), Err)
    }
}

/// The changes of a transaction that was read from a log. Of two changes of one row, the later counts.
impl FromIterator<(Table, Vec<u8>, Option<Vec<u8>>)> for Changes {
    fn from_iter<I: IntoIterator<Item = (Table, Vec<u8>, Option<Vec<u8>>)>>(rows: I) -> Self {
        let mut changes = Self::default();
        for (table, key, value) in rows {
            changes.set(table, &key, value.as_deref());
        }
        changes
    }
}

/// A snapshot with changes over it. Reads see the changes. Overlays can be stacked: each member of a commit
/// has its own over that of the commit, so that dropping it leaves nothing behind.
pub struct Overlay<'a> {
    below: &'a dyn Snapshot,
    changes: Changes,
}

impl<'a> Overlay<'a> {
    /// Makes an overlay over `below`, without changes.
    #[must_use]
    pub fn new(below: &'a dyn Snapshot) -> Self {
        Self { below, changes: Changes::default() }
    }

    /// Sets the value under `key`.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.changes.set(table, key, Some(value));
    }

    /// Removes `key`, if it is there.
    pub fn remove(&mut self, table: Table, key: &[u8]) {
        self.changes.set(table, key, None);
    }

    /// Adds the changes of an overlay over this one.
    pub fn absorb(&mut self, changes: Changes) {
        for (table, rows) in changes.0 {
            self.changes.0.entry(table).or_default().extend(rows);
        }
    }

    /// Whether nothing was set or removed.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.changes.is_empty()
    }

    /// Returns the changes to be written, none if nothing has changed. A row that is set to its existing
    /// value is left out. Reads every row below that is set, and every row that is removed if none is set.
    ///
    /// # Errors
    /// [`LedgerFailure`] if a row cannot be read.
    pub fn into_changes(self) -> Result<Changes, LedgerFailure> {
        let Self { below, mut changes } = self;
        changes.retain_changed(below, |value| value.is_some())?;
        if changes.0.values().flat_map(BTreeMap::values).all(Option::is_none) {
            changes.retain_changed(below, |value| value.is_none())?;
        }
        Ok(changes)
    }

    /// Returns the changes to a table after `after`.
    fn changed(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> Option<Range<'_, Bytes, Option<Bytes>>> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.changes.0.get(&table).map(|rows| rows.range::<[u8], _>((from, Bound::Unbounded)))
    }
}

impl core::fmt::Debug for Overlay<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Overlay").field("changes", &self.changes.len()).finish_non_exhaustive()
    }
}

/// How many rows are read from below at a time.
const PORTION: usize = 256;

impl Snapshot for Overlay<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerFailure> {
        match self.changes.0.get(&table).and_then(|rows| rows.get(key)) {
            Some(value) => Ok(value.as_deref().map(<[u8]>::to_vec)),
            None => self.below.get(table, key),
        }
    }

    fn range(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, LedgerFailure> {
        let Some(changed) = self.changed(table, prefix, after).filter(|_| limit > 0) else {
            return self.below.range(table, prefix, after, limit);
        };
        let mut changed = changed.take_while(|(key, _)| key.starts_with(prefix)).peekable();
        let mut found: Vec<Row> = Vec::new();
        let mut cursor = after.map(<[u8]>::to_vec);
        loop {
            let wanted = limit.saturating_sub(found.len()).saturating_add(1).min(PORTION);
            let stored = self.below.range(table, prefix, cursor.as_deref(), wanted)?;
            let last = stored.len() < wanted;
            cursor = stored.last().map(|(key, _)| key.clone()).or(cursor);
            for (key, value) in stored {
                while let Some((before, change)) = changed.next_if(|(changed, _)| ***changed < *key) {
                    found.extend(change.as_ref().map(|value| (before.to_vec(), value.to_vec())));
                }
                match changed.next_if(|(changed, _)| ***changed == *key) {
                    Some((_, change)) => found.extend(change.as_ref().map(|value| (key, value.to_vec()))),
                    None => found.push((key, value)),
                }
                if found.len() >= limit {
                    break;
                }
            }
            if last || found.len() >= limit {
                break;
            }
        }
        if found.len() < limit {
            let rest = changed.filter_map(|(key, value)| Some((key.to_vec(), value.as_ref()?.to_vec())));
            found.extend(rest.take(limit.saturating_sub(found.len())));
        }
        found.truncate(limit);
        Ok(found)
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

    fn apply(steps: &[Step], overlay: &mut Overlay<'_>, model: &mut Model) {
        for (table, key, value) in steps {
            match value {
                Some(value) => {
                    overlay.put(*table, key, &[*value]);
                    model.insert((*table, key.clone()), vec![*value]);
                }
                None => {
                    overlay.remove(*table, key);
                    model.remove(&(*table, key.clone()));
                }
            }
        }
    }

    fn compare(snapshot: &dyn Snapshot, model: &Model, prefix: &[u8], after: Option<&[u8]>, limit: usize) {
        for table in [Table::Meta, Table::Issuers, Table::Sessions] {
            let rows = model.iter().filter(|((of, key), _)| {
                *of == table && key.starts_with(prefix) && after.is_none_or(|after| key.as_slice() > after)
            });
            let rows: Vec<_> =
                rows.map(|((_, key), value)| (key.clone(), value.clone())).take(limit).collect();
            assert_eq!(snapshot.range(table, prefix, after, limit).unwrap(), rows, "{table:?} {prefix:?}");
            let value = model.get(&(table, prefix.to_vec())).cloned();
            assert_eq!(snapshot.get(table, prefix).unwrap(), value, "{table:?} {prefix:?}");
        }
    }

    /// Where to read from.
    type Place = (Vec<u8>, Option<Vec<u8>>, usize);

    /// Inside the transaction that writes, in an overlay over it, and in the next one.
    fn reads_are_the_models(ledger: &dyn Ledger, steps: [&[Step]; 3], place: &Place) {
        let (prefix, after, limit) = (place.0.as_slice(), place.1.as_deref(), place.2);
        let mut model = Model::new();
        for steps in steps.chunks(2) {
            let before = model.clone();
            ledger
                .transact(&mut |snapshot| {
                    model = before.clone();
                    compare(snapshot, &model, prefix, after, limit);
                    let mut batch = Overlay::new(snapshot);
                    for steps in steps {
                        let mut member = Overlay::new(&batch);
                        apply(steps, &mut member, &mut model);
                        compare(&member, &model, prefix, after, limit);
                        let changes = member.into_changes()?;
                        batch.absorb(changes);
                        compare(&batch, &model, prefix, after, limit);
                    }
                    batch.into_changes()
                })
                .unwrap();
        }
        ledger
            .read(&mut |snapshot| {
                compare(snapshot, &model, prefix, after, limit);
                compare(snapshot, &model, &[], None, usize::MAX);
                Ok(())
            })
            .unwrap();
    }

    proptest! {
        #[test]
        fn reads_see_what_was_written_before_and_inside_the_transaction(
            before in any_steps(), inside in any_steps(), later in any_steps(), prefix in any_key(),
            after in proptest::option::of(any_key()), limit in 0..25_usize,
        ) {
            let steps = [before.as_slice(), &inside, &later];
            let place = (prefix, after, limit);
            reads_are_the_models(&MemoryLedger::new(), steps, &place);
            #[cfg(feature = "redb")]
            {
                let disk = crate::agent::ledger::faulty::Disk::default();
                let file = crate::agent::ledger::RedbLedger::on_backend(disk).unwrap();
                reads_are_the_models(&file, steps, &place);
            }
        }
    }

    #[test]
    fn rows_beyond_one_portion_are_read_in_order() {
        let ledger = MemoryLedger::new();
        let key = |number: u32| number.to_be_bytes();
        ledger
            .transact(&mut |snapshot| {
                let mut overlay = Overlay::new(snapshot);
                (0..2_000).for_each(|number| overlay.put(Table::Ended, &key(number), &[]));
                overlay.into_changes()
            })
            .unwrap();
        ledger
            .read(&mut |snapshot| {
                let mut overlay = Overlay::new(snapshot);
                (0..1_500)
                    .filter(|number| number % 3 != 0)
                    .for_each(|number| overlay.remove(Table::Ended, &key(number)));
                let rows = overlay.range(Table::Ended, &[], None, 700)?;
                let expected = (0..1_500).step_by(3).chain(1_500..1_700);
                assert!(
                    rows.iter()
                        .map(|(key, _)| key.as_slice().to_vec())
                        .eq(expected.map(|number| key(number).to_vec()))
                );
                Ok(())
            })
            .unwrap();
    }
}
