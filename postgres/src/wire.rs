//! The bytes of a transaction in the log, and the chain of their hashes.

use sessioncap::agent::ledger::{Changes, Table};
use sha2::{Digest, Sha256};

/// The hash of a row of the log, which contains that of the row before it.
pub(crate) type Hash = [u8; 32];

/// The first byte of every transaction: the version of this encoding.
const VERSION: u8 = 1;

/// The tables by their number in the log, which never changes. A new table is added at the end.
const NAMES: [&str; 12] = [
    "meta",
    "issuers",
    "sessions",
    "tickets",
    "credentials",
    "by_session",
    "by_handle",
    "by_time",
    "ended",
    "ended_of",
    "devices",
    "events",
];

/// How many tables there are.
pub(crate) const TABLES: usize = NAMES.len();

/// Returns a table's number.
pub(crate) fn number(table: Table) -> Option<u8> {
    let at = NAMES.iter().position(|name| *name == table.name())?;
    u8::try_from(at).ok()
}

/// Returns the table with a number.
pub(crate) fn table(number: u8) -> Option<Table> {
    let name = NAMES.get(usize::from(number))?;
    Table::ALL.iter().copied().find(|table| table.name() == *name)
}

/// A changed row: table, key, and the new value, or none if it is removed.
pub(crate) type Change = (Table, Vec<u8>, Option<Vec<u8>>);

/// Encodes a transaction: the version, then for each row the table, whether it has a value, the key and the value,
/// each with its length in four bytes. `None` if a table is unknown or a row too long.
pub(crate) fn encode(changes: &Changes) -> Option<Vec<u8>> {
    let mut bytes = vec![VERSION];
    for (table, key, value) in changes.iter() {
        bytes.extend([number(table)?, u8::from(value.is_some())]);
        for part in core::iter::once(key).chain(value) {
            bytes.extend(u32::try_from(part.len()).ok()?.to_be_bytes());
            bytes.extend(part);
        }
    }
    Some(bytes)
}

/// Reads a transaction. `None` if it is not exactly what [`encode`] writes.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<Change>> {
    let (version, mut rest) = bytes.split_first()?;
    if *version != VERSION {
        return None;
    }
    let mut changes = Vec::new();
    while let Some(([of, has_value], after)) = rest.split_first_chunk::<2>() {
        rest = after;
        let key = part(&mut rest)?;
        let value = match has_value {
            0 => None,
            1 => Some(part(&mut rest)?),
            _ => return None,
        };
        changes.push((table(*of)?, key, value));
    }
    rest.is_empty().then_some(changes)
}

fn part(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (part, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(part.to_vec())
}

/// Returns the hash of a row of the log: over the hash of the row before, the position, and the transaction.
pub(crate) fn hash(previous: &Hash, position: i64, changes: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(b"sessioncap log 1");
    hasher.update(previous);
    hasher.update(position.to_be_bytes());
    hasher.update(changes);
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn a_change() -> impl Strategy<Value = Change> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..9);
        let table = (0..TABLES).prop_map(|at| table(u8::try_from(at).unwrap()).unwrap());
        (table, bytes(), proptest::option::of(bytes()))
    }

    #[test]
    fn every_table_has_a_number_of_its_own() {
        let numbers: Vec<_> = Table::ALL.iter().map(|of| number(*of).unwrap()).collect();
        assert_eq!(numbers, (0..12).collect::<Vec<_>>());
        assert!(Table::ALL.iter().all(|of| table(number(*of).unwrap()) == Some(*of)));
        assert_eq!(table(12), None);
    }

    proptest! {
        #[test]
        fn a_transaction_reads_as_it_was_written(rows in proptest::collection::vec(a_change(), 0..6)) {
            let changes: Changes = rows.into_iter().collect();
            let bytes = encode(&changes).unwrap();
            let read: Changes = decode(&bytes).unwrap().into_iter().collect();
            prop_assert_eq!(&read, &changes);
            for cut in 1..bytes.len() {
                let part = decode(&bytes[..cut]).map(|rows| rows.into_iter().collect::<Changes>());
                prop_assert_ne!(part.as_ref(), Some(&changes), "cut at {}", cut);
            }
        }

        #[test]
        fn no_bytes_panic_and_what_reads_is_written_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut versioned = vec![VERSION];
            versioned.extend(&bytes);
            if let Some(rows) = decode(&versioned) {
                // Unless one row is changed twice, or the rows are in another order.
                let length: usize = rows.iter().map(|(_, key, value)| 6 + key.len() + value.as_ref().map_or(0, |value| 4 + value.len())).sum();
                prop_assert_eq!(length + 1, versioned.len());
            }
            let _ = decode(&bytes);
        }

        #[test]
        fn a_hash_depends_on_all_that_comes_before(a in any::<[u8; 32]>(), at in any::<i64>(), bytes in proptest::collection::vec(any::<u8>(), 0..9)) {
            let one = hash(&a, at, &bytes);
            let mut other = a;
            other[0] ^= 1;
            prop_assert_ne!(one, hash(&other, at, &bytes));
            prop_assert_ne!(one, hash(&a, at.wrapping_add(1), &bytes));
            let mut longer = bytes.clone();
            longer.push(0);
            prop_assert_ne!(one, hash(&a, at, &longer));
        }
    }
}
