//! Rows of a table in memory, packed so that many small ones share an allocation.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::{array, iter};

use super::packed::{self, length, put_length, take};
use crate::agent::denial::LedgerFailure;

/// The most bytes and rows of a leaf with more than one row: so many that a row costs little of its own, so few that
/// changing one copies little.
const MOST_BYTES: usize = 8_192;
const MOST_ROWS: usize = 24;

/// The longest key or value: with its form, its length takes at most four bytes with seven bits each.
const MAX_LEN: usize = (1 << 26) - 1;
const LONGEST: usize = 4;

/// The rows of one table in the order of their keys.
#[derive(Debug)]
pub(super) struct Rows {
    leaves: BTreeMap<Place<'static>, Leaf>,
    /// Whether values that resemble each other are packed.
    packs: bool,
}

/// Where a leaf is: its first key. The start of the key stands in the tree's nodes, so that a search among many leaves
/// reads no other memory, which would be in no cache.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place<'a> {
    /// Sixteen bytes as two numbers whose order is that of the bytes; zeros follow a short key. The whole key decides
    /// between equal ones.
    start: [u64; 2],
    key: Cow<'a, [u8]>,
}

/// Neighbouring rows in one allocation. Each is: how many bytes its key shares with the one before, how many
/// follow, the length and form of its value, the rest of its key, its value. The first key is whole, and the leaf's
/// place. Of the values that are long enough, one is the sample, and the others are packed with it.
#[derive(Debug, Default)]
struct Leaf(Box<[u8]>);

/// How a value is in a leaf: its length times four, and this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain = 0,
    /// Plain, and the one with which others are packed. A leaf has at most one, and none is packed without.
    Sample = 1,
    Packed = 2,
}

impl Rows {
    /// Makes a table without rows. Packing takes time at each write, which rows that stay are worth.
    pub(super) fn new(packs: bool) -> Self {
        Self { leaves: BTreeMap::new(), packs }
    }

    /// Checks that a row can be set.
    pub(super) fn check(key: &[u8], value: &[u8]) -> Result<(), LedgerFailure> {
        match key.len().max(value.len()) <= MAX_LEN {
            true => Ok(()),
            false => Err(LedgerFailure::Full),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.leaves.values().map(Leaf::count).sum()
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let leaf = self.of(key)?;
        let found = leaf.search(key);
        let row = found.row.filter(|_| found.is_same)?;
        Some(unpacked(row.form, row.value, || leaf.sample())?.into_owned())
    }

    /// Calls `found` with each row from a key on, until it returns false.
    pub(super) fn each_from(&self, from: Bound<&[u8]>, mut found: impl FnMut(&[u8], &[u8]) -> bool) {
        let start = match from {
            Bound::Included(key) | Bound::Excluded(key) => self.of(key).map_or(key, Leaf::first),
            Bound::Unbounded => &[],
        };
        for (_, leaf) in self.leaves().range((Bound::Included(Place::of(start)), Bound::Unbounded)) {
            // It is looked for once, and not at all where nothing is packed.
            let sample = LazyCell::new(|| leaf.sample());
            let mut rows = leaf.each();
            while let Some((form, value)) = rows.next_value() {
                let is_before = match from {
                    Bound::Included(key) => rows.key.as_slice() < key,
                    Bound::Excluded(key) => rows.key.as_slice() <= key,
                    Bound::Unbounded => false,
                };
                if is_before {
                    continue;
                }
                // A leaf is always built so that it can be read.
                let Some(value) = unpacked(form, value, || *sample) else { return };
                if !found(&rows.key, &value) {
                    return;
                }
            }
        }
    }

    /// Sets a row that was checked, or removes it.
    pub(super) fn set(&mut self, key: &[u8], value: Option<&[u8]>) {
        // What precedes every row joins the first leaf.
        let leaf = self.of(key).or_else(|| self.leaves.values().next());
        let place = leaf.map(|leaf| Place::of(leaf.first()).into_owned());
        let leaf = place.and_then(|place| self.leaves.remove(&place)).unwrap_or_default();
        self.put(leaf.with(key, value, self.packs));
    }

    /// Puts a leaf in its place, in halves if it is too large.
    fn put(&mut self, leaf: Leaf) {
        match leaf.halves() {
            Some([first, second]) => {
                self.put(first);
                self.put(second);
            }
            None if leaf.0.is_empty() => {}
            None => drop(self.leaves.insert(Place::of(leaf.first()).into_owned(), leaf)),
        }
    }

    /// Returns the leaf in which a key is, if it is anywhere.
    fn of<'a>(&'a self, key: &'a [u8]) -> Option<&'a Leaf> {
        let mut before = self.leaves().range((Bound::Unbounded, Bound::Included(Place::of(key))));
        before.next_back().map(|(_, leaf)| leaf)
    }

    /// Returns the leaves by places that may borrow a key.
    fn leaves<'a>(&'a self) -> &'a BTreeMap<Place<'a>, Leaf> {
        &self.leaves
    }
}

impl<'a> Place<'a> {
    fn of(key: &'a [u8]) -> Self {
        let mut bytes = key.iter().copied().chain(iter::repeat(0));
        let mut number = || u64::from_be_bytes(array::from_fn(|_| bytes.next().unwrap_or(0)));
        Self { start: [number(), number()], key: key.into() }
    }

    fn into_owned(self) -> Place<'static> {
        Place { start: self.start, key: self.key.into_owned().into() }
    }
}

impl Leaf {
    /// Returns it with a row set or removed. The other rows are copied as they are, apart from the next one, whose key
    /// follows another; if the sample changes, each is packed again.
    fn with(&self, key: &[u8], value: Option<&[u8]>, packs: bool) -> Self {
        let search = self.search(key);
        if search.is_same && search.row.as_ref().is_some_and(|row| row.form == Form::Sample) {
            return self.with_other_sample(key, value);
        }
        let Search { shared, row, is_same, common } = search;
        let at = row.as_ref().map_or(self.0.len(), |row| row.at);
        let value = value.map(|value| match packs {
            true => packed_with(self.sample(), value),
            false => (Form::Plain, value.into()),
        });
        let len = value.as_ref().map_or(0, |(_, value)| value.len());
        let room = self.0.len().saturating_add(key.len()).saturating_add(len);
        let mut bytes = Vec::with_capacity(room.saturating_add(6 * LONGEST));
        bytes.extend_from_slice(self.0.get(..at).unwrap_or_default());
        if let Some((form, value)) = &value {
            put_row(&mut bytes, shared, [key.get(shared..).unwrap_or_default(), &[]], *form, value);
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
                    put_row(&mut bytes, next.shared.min(row.shared), rest, next.form, next.value);
                }
                bytes.extend_from_slice(behind);
            }
            (Some(row), false) if value.is_some() => {
                let rest = row.rest.get(common.saturating_sub(row.shared)..).unwrap_or_default();
                put_row(&mut bytes, common, [rest, &[]], row.form, row.value);
                bytes.extend_from_slice(row.behind);
            }
            (Some(_), false) => bytes.extend_from_slice(self.0.get(at..).unwrap_or_default()),
        }
        Self(bytes.into())
    }

    /// Returns it with the row of the sample set or removed.
    fn with_other_sample(&self, key: &[u8], value: Option<&[u8]>) -> Self {
        let (mut leaf, sample) = (Packing::default(), self.sample());
        let mut rows = self.each();
        while let Some((form, stored)) = rows.next_value() {
            match (rows.key == key, value) {
                (true, Some(value)) => leaf.add(&rows.key, value),
                (true, None) => {}
                (false, _) => leaf.add(&rows.key, &unpacked(form, stored, || sample).unwrap_or_default()),
            }
        }
        leaf.into_leaf()
    }

    /// Returns the value with which others are packed.
    fn sample(&self) -> Option<&[u8]> {
        let mut rest = &*self.0;
        let mut rows = core::iter::from_fn(|| Row::read(&mut rest, 0));
        rows.find(|row| row.form == Form::Sample).map(|row| row.value)
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
        let (form, value) = rows.next_value()?;
        let mut second = Vec::with_capacity(self.0.len());
        put_row(&mut second, 0, [&rows.key, &[]], form, value);
        second.extend_from_slice(rows.rest);
        let halves = [Self(self.0.get(..at)?.into()), Self(second.into())];
        Some(match self.sample() {
            None => halves,
            Some(sample) => halves.map(|half| half.apart_from(sample)),
        })
    }

    /// Returns it packed with a sample of its own, if it is not the half with the sample.
    fn apart_from(self, sample: &[u8]) -> Self {
        if self.sample().is_some() {
            return self;
        }
        let mut leaf = Packing::default();
        let mut rows = self.each();
        while let Some((form, value)) = rows.next_value() {
            leaf.add(&rows.key, &unpacked(form, value, || Some(sample)).unwrap_or_default());
        }
        leaf.into_leaf()
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
    /// Reads the next row, and returns its value as it is in the leaf.
    fn next_value(&mut self) -> Option<(Form, &'a [u8])> {
        let Row { shared, rest, form, value, .. } = Row::read(&mut self.rest, 0)?;
        self.key.truncate(shared);
        self.key.extend_from_slice(rest);
        Some((form, value))
    }
}

/// A row as it is in a leaf.
struct Row<'a> {
    /// Where it begins.
    at: usize,
    shared: usize,
    rest: &'a [u8],
    form: Form,
    value: &'a [u8],
    /// The bytes after it.
    behind: &'a [u8],
}

impl<'a> Row<'a> {
    /// Reads the next row of a leaf with so many bytes.
    fn read(rest: &mut &'a [u8], len: usize) -> Option<Self> {
        let at = len.saturating_sub(rest.len());
        let [shared, key, value] = [length(rest)?, length(rest)?, length(rest)?];
        let form = match value & 3 {
            0 => Form::Plain,
            1 => Form::Sample,
            _ => Form::Packed,
        };
        let (key, value) = (take(rest, key)?, take(rest, value >> 2)?);
        Some(Self { at, shared, rest: key, form, value, behind: rest })
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

/// Puts rows together to a leaf, in the order of their keys.
#[derive(Default)]
struct Packing {
    bytes: Vec<u8>,
    sample: Option<Vec<u8>>,
    /// Of the row before.
    key: Vec<u8>,
}

impl Packing {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let shared = self.key.iter().zip(key).take_while(|(one, other)| one == other).count();
        let (form, stored) = packed_with(self.sample.as_deref(), value);
        put_row(&mut self.bytes, shared, [key.get(shared..).unwrap_or_default(), &[]], form, &stored);
        if form == Form::Sample {
            self.sample = Some(value.to_vec());
        }
        self.key = key.to_vec();
    }

    fn into_leaf(self) -> Leaf {
        Leaf(self.bytes.into())
    }
}

/// Returns a value as it is put into a leaf with this sample. The first that may be the sample is it.
fn packed_with<'a>(sample: Option<&[u8]>, value: &'a [u8]) -> (Form, Cow<'a, [u8]>) {
    match sample {
        _ if !packed::LENGTHS.contains(&value.len()) => (Form::Plain, value.into()),
        None => (Form::Sample, value.into()),
        Some(sample) => match packed::pack(value, sample) {
            Some(packed) => (Form::Packed, packed.into()),
            None => (Form::Plain, value.into()),
        },
    }
}

/// Returns a value as it was set. The sample is that of its leaf, and is asked for if the value is packed.
fn unpacked<'a, 'b>(
    form: Form,
    value: &'a [u8],
    sample: impl FnOnce() -> Option<&'b [u8]>,
) -> Option<Cow<'a, [u8]>> {
    match form {
        Form::Plain | Form::Sample => Some(value.into()),
        Form::Packed => packed::unpack(value, sample()?).map(Cow::Owned),
    }
}

/// Writes a row whose key shares so many bytes with the one before it. The rest of its key is in two parts.
fn put_row(bytes: &mut Vec<u8>, shared: usize, [start, end]: [&[u8]; 2], form: Form, value: &[u8]) {
    for length in [shared, start.len().saturating_add(end.len()), value.len() << 2 | form as usize] {
        put_length(bytes, length);
    }
    bytes.extend_from_slice(start);
    bytes.extend_from_slice(end);
    bytes.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Few bytes, so that keys meet and share beginnings, and some keys and values that a leaf is too small for.
    fn any_key() -> impl Strategy<Value = Vec<u8>> {
        let short = proptest::collection::vec(prop_oneof![Just(0), Just(7), Just(255)], 0..6);
        prop_oneof![9 => short, 1 => (any::<u8>(), 100..300_usize).prop_map(|(byte, len)| vec![byte; len])]
    }

    /// Values of one byte, and such that resemble each other but for the bytes in the middle.
    fn any_value() -> impl Strategy<Value = Vec<u8>> {
        let plain = prop_oneof![6 => Just(0), 3 => 0..40_usize, 1 => 100..20_000_usize];
        let alike = (200..900_u32, proptest::collection::vec(any::<u8>(), 0..80));
        prop_oneof![
            1 => plain.prop_map(|len| vec![9; len]),
            1 => alike.prop_map(|(len, middle)| resembling(len, &middle)),
        ]
    }

    fn resembling(len: u32, middle: &[u8]) -> Vec<u8> {
        let mut value: Vec<u8> =
            (0..len).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        value.splice(100..100, middle.iter().copied());
        value
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
            asked in proptest::collection::vec(any_key(), 1..20), packs: bool
        ) {
            let (mut rows, mut model) = (Rows::new(packs), BTreeMap::new());
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
                prop_assert_eq!(rows.get(key), model.get(key).cloned());
                for from in [Bound::Included(key.as_slice()), Bound::Excluded(key.as_slice())] {
                    let expected = model.range::<[u8], _>((from, Bound::Unbounded));
                    let expected: Vec<_> = expected.map(|(key, value)| (key.clone(), value.clone())).collect();
                    prop_assert_eq!(all(&rows, from), expected);
                }
            }
            for leaf in rows.leaves.values() {
                prop_assert!(leaf.halves().is_none() && !leaf.0.is_empty());
                let mut rest = &*leaf.0;
                let rows: Vec<_> = core::iter::from_fn(|| Row::read(&mut rest, 0)).collect();
                let of = |form| rows.iter().filter(|row| row.form == form).count();
                prop_assert!(of(Form::Sample) == 1 || of(Form::Sample) + of(Form::Packed) == 0);
            }
        }
    }

    proptest! {
        #[test]
        fn places_are_in_the_order_of_their_keys(
            start in proptest::collection::vec(0..2_u8, 0..20), ends in any::<[[bool; 4]; 2]>(), lens in [0..5_usize, 0..5],
        ) {
            let keys = [0, 1].map(|at| {
                let end = ends[at].iter().map(|bit| u8::from(*bit) * 255).take(lens[at]);
                start.iter().copied().chain(end).collect::<Vec<_>>()
            });
            let [one, other] = keys.each_ref().map(|key| Place::of(key));
            prop_assert_eq!(one.cmp(&other), keys[0].cmp(&keys[1]));
            prop_assert_eq!(Place::of(&keys[0]).into_owned(), one);
        }
    }

    #[test]
    fn a_row_that_is_too_long_is_refused() {
        assert_eq!(Rows::check(&[1; 20], &[]), Ok(()));
        assert_eq!(Rows::check(&[], &vec![0; MAX_LEN + 1]), Err(LedgerFailure::Full));
    }

    #[test]
    fn rows_that_share_most_of_their_keys_take_little() {
        let mut rows = Rows::new(true);
        for number in 0..1_000_u32 {
            rows.set(&[[5; 40].as_slice(), &number.to_be_bytes()].concat(), Some(&[]));
        }
        let bytes: usize = rows.leaves.values().map(|leaf| leaf.0.len()).sum();
        assert!(bytes < 12 * 1_000, "{bytes}");
        assert_eq!(rows.len(), 1_000);
    }

    #[test]
    fn values_that_resemble_each_other_take_what_they_differ_in() {
        let mut rows = Rows::new(true);
        let value = |number: u32| resembling(800, &number.to_be_bytes().repeat(8));
        for number in (0..1_000_u32).rev() {
            rows.set(&number.to_be_bytes(), Some(&value(number)));
        }
        let bytes: usize = rows.leaves.values().map(|leaf| leaf.0.len()).sum();
        assert!(bytes < 150 * 1_000, "{bytes}");
        // A leaf without its sample has another.
        for number in (0..1_000_u32).filter(|number| number % 7 != 0) {
            rows.set(&number.to_be_bytes(), None);
        }
        for number in 0..1_000_u32 {
            let expected = (number % 7 == 0).then(|| value(number));
            assert_eq!(rows.get(&number.to_be_bytes()), expected, "{number}");
        }
    }
}
