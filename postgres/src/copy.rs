//! The local copy of an agent's records: all rows as of one position of the log.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use sessioncap::agent::LedgerFailure;
use sessioncap::agent::ledger::{Changes, Row, Snapshot, Table};

use crate::wire::{Change, Hash, TABLES, number};

/// A position of the log, and the hash of the row there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: i64,
    pub(crate) hash: Hash,
}

type Part = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// All rows of an agent.
#[derive(Default)]
pub(crate) struct Rows([Part; TABLES]);

impl Rows {
    fn part(&self, table: Table) -> Option<&Part> {
        self.0.get(usize::from(number(table)?))
    }

    pub(crate) fn set(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) {
        let part = number(table).and_then(|number| self.0.get_mut(usize::from(number)));
        let Some(part) = part else { return };
        match value {
            Some(value) => drop(part.insert(key.into(), value.into())),
            None => drop(part.remove(key)),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (Table, &[u8], &[u8])> {
        let part = |table| self.part(table).into_iter().flatten();
        Table::ALL.iter().flat_map(move |table| part(*table).map(|(key, value)| (*table, &**key, &**value)))
    }

    fn value(&self, table: Table, key: &[u8]) -> Option<&[u8]> {
        self.part(table)?.get(key).map(|value| &**value)
    }

    /// Returns what makes these rows of those.
    fn since(&self, before: &Self) -> Changes {
        let put = self.iter().filter(|(table, key, value)| before.value(*table, key) != Some(value));
        let put = put.map(|(table, key, value)| (table, key.to_vec(), Some(value.to_vec())));
        let gone = before.iter().filter(|(table, key, _)| self.value(*table, key).is_none());
        put.chain(gone.map(|(table, key, _)| (table, key.to_vec(), None))).collect()
    }
}

/// The rows, where in the log they are, and what the gate has not observed yet.
pub(crate) struct Copy {
    rows: Rows,
    place: Place,
    /// The latest place that a synchronous commit of this node's own has confirmed. What comes after it may be
    /// lost, although it was seen.
    confirmed: Place,
    /// Transactions of other writers, if a gate follows.
    unobserved: Option<VecDeque<Changes>>,
}

impl Copy {
    pub(crate) fn new(rows: Rows, place: Place) -> Self {
        Self { rows, place, confirmed: place, unobserved: None }
    }

    pub(crate) fn place(&self) -> Place {
        self.place
    }

    pub(crate) fn confirmed(&self) -> Place {
        self.confirmed
    }

    /// Begins to keep other writers' transactions for a gate.
    pub(crate) fn follow(&mut self) {
        self.unobserved.get_or_insert_default();
    }

    /// Takes what the gate has not observed yet.
    pub(crate) fn take_unobserved(&mut self) -> VecDeque<Changes> {
        self.unobserved.as_mut().map(core::mem::take).unwrap_or_default()
    }

    /// Applies the next row of the log. One that is not next was applied already.
    pub(crate) fn apply(&mut self, place: Place, changes: Vec<Change>, own: bool) {
        if place.position != self.place.position.saturating_add(1) {
            return;
        }
        for (table, key, value) in &changes {
            self.rows.set(*table, key, value.as_deref());
        }
        self.place = place;
        if let (Some(unobserved), false) = (&mut self.unobserved, own) {
            unobserved.push_back(changes.into_iter().collect());
        }
    }

    /// Notes that a synchronous commit of this node's own came after this place.
    pub(crate) fn confirm(&mut self, place: Place) {
        if place.position > self.confirmed.position {
            self.confirmed = place;
        }
    }

    /// Replaces all rows by those of another place, which need not come after this one.
    pub(crate) fn replace(&mut self, rows: Rows, place: Place) {
        if let Some(unobserved) = &mut self.unobserved {
            unobserved.push_back(rows.since(&self.rows));
        }
        (self.rows, self.place) = (rows, place);
    }
}

impl Snapshot for Copy {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerFailure> {
        Ok(self.rows.value(table, key).map(<[u8]>::to_vec))
    }

    fn range(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, LedgerFailure> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let rows = self.rows.part(table).ok_or(LedgerFailure::Corrupt)?;
        let rows = rows.range::<[u8], _>((from, Bound::Unbounded));
        let rows = rows.take_while(|(key, _)| key.starts_with(prefix)).take(limit);
        Ok(rows.map(|(key, value)| (key.to_vec(), value.to_vec())).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn place(position: i64) -> Place {
        Place { position, hash: [u8::try_from(position).unwrap(); 32] }
    }

    fn put(key: &[u8], value: &[u8]) -> Change {
        (Table::Tickets, key.to_vec(), Some(value.to_vec()))
    }

    fn unobserved(copy: &mut Copy) -> Vec<Vec<Change>> {
        let rows = |changes: &Changes| {
            changes.iter().map(|(t, k, v)| (t, k.to_vec(), v.map(<[u8]>::to_vec))).collect()
        };
        copy.take_unobserved().iter().map(rows).collect()
    }

    #[test]
    fn rows_of_the_log_are_applied_once_and_in_order_and_those_of_others_observed() {
        let mut copy = Copy::new(Rows::default(), place(4));
        copy.apply(place(5), vec![put(b"a", b"1")], false);
        assert_eq!(unobserved(&mut copy), Vec::<Vec<Change>>::new(), "no gate follows yet");
        copy.follow();
        copy.apply(place(5), vec![put(b"a", b"again")], false);
        copy.apply(place(7), vec![put(b"a", b"too early")], false);
        copy.apply(place(6), vec![put(b"b", b"2")], false);
        copy.apply(place(7), vec![put(b"c", b"3")], true);
        assert_eq!(copy.place(), place(7));
        assert_eq!(copy.get(Table::Tickets, b"a"), Ok(Some(b"1".to_vec())));
        assert_eq!(unobserved(&mut copy), [[put(b"b", b"2")]]);
        assert_eq!(copy.confirmed(), place(4));
        copy.confirm(place(7));
        copy.confirm(place(5));
        assert_eq!(copy.confirmed(), place(7));
    }

    #[test]
    fn what_changes_with_other_rows_is_observed() {
        let mut rows = Rows::default();
        rows.set(Table::Tickets, b"kept", Some(b"1"));
        rows.set(Table::Tickets, b"lost", Some(b"1"));
        rows.set(Table::Meta, b"changed", Some(b"1"));
        let mut copy = Copy::new(rows, place(9));
        copy.follow();
        let mut rows = Rows::default();
        rows.set(Table::Tickets, b"kept", Some(b"1"));
        rows.set(Table::Meta, b"changed", Some(b"2"));
        copy.replace(rows, place(3));
        let changed = (Table::Meta, b"changed".to_vec(), Some(b"2".to_vec()));
        assert_eq!(unobserved(&mut copy), [[changed, (Table::Tickets, b"lost".to_vec(), None)]]);
        assert_eq!(copy.place(), place(3));
    }
}
