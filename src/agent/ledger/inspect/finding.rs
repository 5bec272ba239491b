//! A row with something wrong, and what.

use core::fmt;

use serde::Serialize;

use crate::agent::ledger::Table;
use crate::codec::to_hex;

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Damage {
    /// There are rows and no header that can be read.
    NoHeader,
    /// The value is not in its canonical form.
    Unreadable,
    /// The format has no such row.
    UnknownRow,
    /// The key is not one of its table, or not that of its record.
    WrongKey,
    /// The record needs this row of an index, and it is missing.
    MissingIndex,
    /// No record has this row of an index.
    StrayIndex,
    /// The counts are not those of the records.
    WrongCount,
    /// The record is live in an epoch that is over, or has a number that was never given.
    WrongEpoch,
    /// The record is live, and its issuer's registration is gone.
    WrongIssuer,
    /// The stored credential is not that of its record.
    WrongCredential,
    /// The states of ticket and credential exclude each other.
    WrongState,
    /// An event is of an opening that never was.
    WrongOpening,
    /// There are more records than their fixed bound allows.
    OverBound,
}

impl Damage {
    /// Returns a stable name for programs and logs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoHeader => "no_header",
            Self::Unreadable => "unreadable",
            Self::UnknownRow => "unknown_row",
            Self::WrongKey => "wrong_key",
            Self::MissingIndex => "missing_index",
            Self::StrayIndex => "stray_index",
            Self::WrongCount => "wrong_count",
            Self::WrongEpoch => "wrong_epoch",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongCredential => "wrong_credential",
            Self::WrongState => "wrong_state",
            Self::WrongOpening => "wrong_opening",
            Self::OverBound => "over_bound",
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHeader => "there are rows and no header",
            Self::Unreadable => "the value is not in its canonical form",
            Self::UnknownRow => "this format has no such row",
            Self::WrongKey => "the key is not that of its record",
            Self::MissingIndex => "a record needs this row of the index, and it is missing",
            Self::StrayIndex => "no record has this row of the index",
            Self::WrongCount => "the counts are not those of the records",
            Self::WrongEpoch => "its epoch or generation is over, or was never given",
            Self::WrongIssuer => "it is live, and its issuer's registration is gone",
            Self::WrongCredential => "the stored credential is not that of its record",
            Self::WrongState => "the states of ticket and credential exclude each other",
            Self::WrongOpening => "the event is of an opening that never was",
            Self::OverBound => "there are more records than their bound allows",
        })
    }
}

impl Serialize for Damage {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

/// A row with something wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// The table's name, as [`Table::name`] has it.
    pub table: &'static str,
    /// The row's key in hexadecimal. Keys are names, public keys and times; none is a secret.
    pub key: String,
    /// What is wrong.
    pub damage: Damage,
}

impl Finding {
    pub(super) fn new(table: Table, key: &[u8], damage: Damage) -> Self {
        Self { table: table.name(), key: to_hex(key), damage }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {}, row {}: {}", self.table, self.key, self.damage)
    }
}
