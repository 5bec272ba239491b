//! Rows of a table in memory, packed so that many small ones share an allocation.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;

use crate::agent::denial::LedgerFailure;

/// The most bytes and rows of a leaf with more than one row: so many that a row costs little of its own, so few that
/// changing one copies little.
const MOST_BYTES: usize = 4_096;
const MOST_ROWS: usize = 24;

/// The longest key or value, so that its length takes at most [`LONGEST`] bytes.
const MAX_LEN: usize = (1 << 28) - 1;
const LONGEST: usize = 4;

/// The rows of one table in the order of their keys.
#[derive(Debug, Default)]
pub(super) struct Rows(BTreeSet<Leaf>);

/// Neighbouring rows in one allocation. Each is: how many bytes its key shares with the one before, how many
/// follow, the length of its value, the rest of its key, its value. The first key is whole, and the leaf's place.
#[derive(Debug, Default)]
struct Leaf(Box<[u8]>);

impl Rows {
    /// Checks that a row can be set.
    pub(super) fn check(key: &[u8], value: &[u8]) -> Result<(), LedgerFailure> {
        match key.len().max(value.len()) <= MAX_LEN {
            true => Ok(()),
            false => Err(LedgerFailure::Full),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(Leaf::count).sum()
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let found = self.of(key)?.search(key);
        found.row.filter(|_| found.is_same).map(|row| row.value)
    }

    /// Calls `found` with each row from a key on, until it returns false.
    pub(super) fn each_from(&self, from: Bound<&[u8]>, mut found: impl FnMut(&[u8], &[u8]) -> bool) {
        let start = match from {
            Bound::Included(key) | Bound::Excluded(key) => self.of(key).map_or(key, Leaf::first),
            Bound::Unbounded => &[],
        };
        for leaf in self.0.range::<[u8], _>((Bound::Included(start), Bound::Unbounded)) {
            let mut rows = leaf.each();
            while let Some(value) = rows.next_value() {
                let is_before = match from {
                    Bound::Included(key) => rows.key.as_slice() < key,
                    Bound::Excluded(key) => rows.key.as_slice() <= key,
                    Bound::Unbounded => false,
                };
                if !is_before && !found(&rows.key, value) {
                    return;
                }
            }
        }
    }

    /// Sets a row that was checked, or removes it.
    pub(super) fn set(&mut self, key: &[u8], value: Option<&[u8]>) {
        let first = self.of(key).map(|leaf| leaf.first().to_vec());
        let leaf = first.and_then(|first| self.0.take(&*first)).unwrap_or_default();
        self.put(leaf.with(key, value));
    }

    /// Puts a leaf in its place, in halves if it is too large.
    fn put(&mut self, leaf: Leaf) {
        match leaf.halves() {
            Some([first, second]) => {
                self.put(first);
                self.put(second);
            }
            None if leaf.0.is_empty() => {}
            None => drop(self.0.replace(leaf)),
        }
    }

    /// Returns the leaf in which a key is, if it is anywhere.
    fn of(&self, key: &[u8]) -> Option<&Leaf> {
        self.0.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()
    }
}

impl Leaf {
    /// Returns it with a row set or removed. The other rows are copied as they are, apart from the next one, whose key
    /// follows another.
    fn with(&self, key: &[u8], value: Option<&[u8]>) -> Self {
        let Search { shared, row, is_same, common } = self.search(key);
        let at = row.as_ref().map_or(self.0.len(), |row| row.at);
        let room = self.0.len().saturating_add(key.len()).saturating_add(value.map_or(0, <[u8]>::len));
        let mut bytes = Vec::with_capacity(room.saturating_add(6 * LONGEST));
        bytes.extend_from_slice(self.0.get(..at).unwrap_or_default());
        if let Some(value) = value {
            put_row(&mut bytes, shared, [key.get(shared..).unwrap_or_default(), &[]], value);
        }
        match (row, is_same) {
            (None, _) => {}
            // The next row shares as much with the same key.
            (Some(row), true) if value.is_some() => bytes.extend_from_slice(row.behind),
            (Some(row), true) => {
                let mut behind = row.behind;
                if let Some(next) = Row::read(&mut behind, 0) {
                    // Of the removed key, it keeps what the key before does not have.
                    let kept = next.shared.saturating_sub(row.shared);
                    let rest = [row.rest.get(..kept).unwrap_or_default(), next.rest];
                    put_row(&mut bytes, next.shared.min(row.shared), rest, next.value);
                }
                bytes.extend_from_slice(behind);
            }
            (Some(row), false) if value.is_some() => {
                let rest = row.rest.get(common.saturating_sub(row.shared)..).unwrap_or_default();
                put_row(&mut bytes, common, [rest, &[]], row.value);
                bytes.extend_from_slice(row.behind);
            }
            (Some(_), false) => bytes.extend_from_slice(self.0.get(at..).unwrap_or_default()),
        }
        Self(bytes.into())
    }

    /// Finds the first row whose key is not before `key`, without putting keys together: a row that shares more with
    /// the one before it than that one with `key` is on the same side of it.
    fn search(&self, key: &[u8]) -> Search<'_> {
        let (mut rest, mut shared) = (&*self.0, 0);
        while let Some(row) = Row::read(&mut rest, self.0.len()) {
            if row.shared > shared {
                continue;
            }
            let ahead = key.get(row.shared..).unwrap_or_default();
            let alike = row.rest.iter().zip(ahead).take_while(|(one, other)| one == other).count();
            let common = row.shared.saturating_add(if row.shared < shared { 0 } else { alike });
            let is_same = common == key.len() && alike == row.rest.len() && row.shared == shared;
            let is_before = row.shared == shared
                && match (row.rest.get(alike), ahead.get(alike)) {
                    (Some(one), Some(other)) => one < other,
                    (one, other) => one.is_none() && other.is_some(),
                };
            if !is_before {
                return Search { shared, row: Some(row), is_same, common };
            }
            shared = common;
        }
        Search { shared, row: None, is_same: false, common: 0 }
    }

    /// Splits it, if it is too large and has two rows.
    fn halves(&self) -> Option<[Self; 2]> {
        let count = self.count();
        if count < 2 || self.0.len() <= MOST_BYTES && count <= MOST_ROWS {
            return None;
        }
        let mut rows = self.each();
        for _ in 0..count / 2 {
            rows.next_value()?;
        }
        let at = self.0.len().saturating_sub(rows.rest.len());
        let value = rows.next_value()?;
        let mut second = Vec::with_capacity(self.0.len());
        put_row(&mut second, 0, [&rows.key, &[]], value);
        second.extend_from_slice(rows.rest);
        Some([Self(self.0.get(..at)?.into()), Self(second.into())])
    }

    fn count(&self) -> usize {
        let mut rest = &*self.0;
        core::iter::from_fn(|| Row::read(&mut rest, 0)).count()
    }

    #[inline]
    fn first(&self) -> &[u8] {
        // A leaf is always built so that it can be read.
        self.first_row().unwrap_or_default()
    }

    fn first_row(&self) -> Option<&[u8]> {
        let rest = &mut &*self.0;
        let [_, len, _] = [length(rest)?, length(rest)?, length(rest)?];
        rest.get(..len)
    }

    fn each(&self) -> Each<'_> {
        Each { rest: &self.0, key: Vec::new() }
    }
}

/// Reads the rows of a leaf.
struct Each<'a> {
    rest: &'a [u8],
    /// Of the row that was read last.
    key: Vec<u8>,
}

impl<'a> Each<'a> {
    fn next_value(&mut self) -> Option<&'a [u8]> {
        let [shared, rest, value] =
            [length(&mut self.rest)?, length(&mut self.rest)?, length(&mut self.rest)?];
        self.key.truncate(shared);
        self.key.extend_from_slice(take(&mut self.rest, rest)?);
        take(&mut self.rest, value)
    }
}

/// A row as it is in a leaf.
struct Row<'a> {
    /// Where it begins.
    at: usize,
    shared: usize,
    rest: &'a [u8],
    value: &'a [u8],
    /// The bytes after it.
    behind: &'a [u8],
}

impl<'a> Row<'a> {
    /// Reads the next row of a leaf with so many bytes.
    fn read(rest: &mut &'a [u8], len: usize) -> Option<Self> {
        let at = len.saturating_sub(rest.len());
        let [shared, key, value] = [length(rest)?, length(rest)?, length(rest)?];
        let (key, value) = (take(rest, key)?, take(rest, value)?);
        Some(Self { at, shared, rest: key, value, behind: rest })
    }
}

/// Where a key is in a leaf.
struct Search<'a> {
    /// How many bytes it shares with the row before it.
    shared: usize,
    /// The first row that is not before it.
    row: Option<Row<'a>>,
    /// Whether that row has this key.
    is_same: bool,
    /// How many bytes it shares with that row.
    common: usize,
}

/// Writes a row whose key shares so many bytes with the one before it. The rest of its key is in two parts.
fn put_row(bytes: &mut Vec<u8>, shared: usize, [start, end]: [&[u8]; 2], value: &[u8]) {
    for length in [shared, start.len().saturating_add(end.len()), value.len()] {
        put_length(bytes, length);
    }
    bytes.extend_from_slice(start);
    bytes.extend_from_slice(end);
    bytes.extend_from_slice(value);
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(taken)
}

/// Writes seven bits of a length to a byte, the lowest first. The highest bit says that more follow.
fn put_length(bytes: &mut Vec<u8>, mut length: usize) {
    while let Some(more) = (length >> 7 > 0).then_some(length >> 7) {
        bytes.push(low_bits(length) | 0x80);
        length = more;
    }
    bytes.push(low_bits(length));
}

fn low_bits(length: usize) -> u8 {
    u8::try_from(length & 0x7f).unwrap_or_default()
}

fn length(rest: &mut &[u8]) -> Option<usize> {
    let mut length = 0;
    for place in 0..LONGEST {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(length);
        }
    }
    None
}

impl Borrow<[u8]> for Leaf {
    fn borrow(&self) -> &[u8] {
        self.first()
    }
}

impl PartialEq for Leaf {
    fn eq(&self, other: &Self) -> bool {
        self.first() == other.first()
    }
}

impl Eq for Leaf {}

impl PartialOrd for Leaf {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Leaf {
    fn cmp(&self, other: &Self) -> Ordering {
        self.first().cmp(other.first())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Few bytes, so that keys meet and share beginnings, and some keys and values that a leaf is too small for.
    fn any_key() -> impl Strategy<Value = Vec<u8>> {
        let short = proptest::collection::vec(prop_oneof![Just(0), Just(7), Just(255)], 0..6);
        prop_oneof![9 => short, 1 => (any::<u8>(), 100..300_usize).prop_map(|(byte, len)| vec![byte; len])]
    }

    fn any_value() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![6 => Just(0), 3 => 0..40_usize, 1 => 100..20_000_usize].prop_map(|len| vec![9; len])
    }

    fn all(rows: &Rows, from: Bound<&[u8]>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = Vec::new();
        rows.each_from(from, |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            true
        });
        found
    }

    proptest! {
        #[test]
        fn rows_are_those_of_a_map(
            steps in proptest::collection::vec((any_key(), proptest::option::weighted(0.7, any_value())), 0..200),
            asked in proptest::collection::vec(any_key(), 1..20)
        ) {
            let (mut rows, mut model) = (Rows::default(), BTreeMap::new());
            for (key, value) in &steps {
                rows.set(key, value.as_deref());
                match value {
                    Some(value) => drop(model.insert(key.clone(), value.clone())),
                    None => drop(model.remove(key)),
                }
            }
            prop_assert_eq!(rows.len(), model.len());
            let every: Vec<_> = model.clone().into_iter().collect();
            prop_assert_eq!(&all(&rows, Bound::Unbounded), &every);
            for key in asked.iter().chain(steps.iter().map(|(key, _)| key)) {
                prop_assert_eq!(rows.get(key), model.get(key).map(Vec::as_slice));
                for from in [Bound::Included(key.as_slice()), Bound::Excluded(key.as_slice())] {
                    let expected = model.range::<[u8], _>((from, Bound::Unbounded));
                    let expected: Vec<_> = expected.map(|(key, value)| (key.clone(), value.clone())).collect();
                    prop_assert_eq!(all(&rows, from), expected);
                }
            }
            for leaf in &rows.0 {
                prop_assert!(leaf.halves().is_none() && !leaf.0.is_empty());
            }
        }

        #[test]
        fn lengths_read_back(len in 0..=MAX_LEN) {
            let mut bytes = Vec::new();
            put_length(&mut bytes, len);
            let rest = &mut bytes.as_slice();
            prop_assert_eq!((length(rest), rest.len()), (Some(len), 0));
        }
    }

    #[test]
    fn a_row_that_is_too_long_is_refused() {
        assert_eq!(Rows::check(&[1; 20], &[]), Ok(()));
        assert_eq!(Rows::check(&[], &vec![0; MAX_LEN + 1]), Err(LedgerFailure::Full));
    }

    #[test]
    fn rows_that_share_most_of_their_keys_take_little() {
        let mut rows = Rows::default();
        for number in 0..1_000_u32 {
            rows.set(&[[5; 40].as_slice(), &number.to_be_bytes()].concat(), Some(&[]));
        }
        let bytes: usize = rows.0.iter().map(|leaf| leaf.0.len()).sum();
        assert!(bytes < 12 * 1_000, "{bytes}");
        assert_eq!(rows.len(), 1_000);
    }
}
