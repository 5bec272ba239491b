//! Serialisation of text fields through the reader of their type.

use core::fmt::Display;
use core::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::clock::Timestamp;
use crate::codec::{from_text, to_text};
use crate::error::Error;
use crate::label::Label;
use crate::op::{Op, OpSet};

/// A position in a list, from which the next page starts: [`Page::next`](super::Page::next).
///
/// Its 17 bytes, 23 characters of base64url, are opaque; keep them unchanged. A position stays valid after
/// its entry is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor([u8; 17]);

impl Cursor {
    #[cfg(feature = "agent")]
    pub(crate) fn new(place: [u8; 17]) -> Self {
        Self(place)
    }

    #[cfg(feature = "agent")]
    pub(crate) fn place(&self) -> &[u8; 17] {
        &self.0
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_text(&self.0))
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Two kinds of positions: a ticket's and a credential's.
        let place = |text: String| match <[u8; 17]>::try_from(from_text(&text)?).ok()? {
            place @ [0 | 1, ..] => Some(Self(place)),
            _ => None,
        };
        read(deserializer, |text| place(text).ok_or("a place in a list is 17 bytes as base64url"))
    }
}

/// Reads any type by its `FromStr`.
pub(super) fn parsed<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    read(deserializer, |text| text.parse())
}

pub(super) fn parsed_if_any<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    read_if_any(deserializer, |text| text.parse())
}

pub(super) fn label<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Label, D::Error> {
    read(deserializer, Label::new)
}

pub(super) fn label_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Label>, D::Error> {
    read_if_any(deserializer, Label::new)
}

pub(super) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    read(deserializer, timestamp)
}

pub(super) fn time_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    read_if_any(deserializer, timestamp)
}

/// Reads names of operations, each at most once.
pub(super) fn ops<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OpSet, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    names.iter().try_fold(OpSet::EMPTY, |set, name| {
        let op: Op = name.parse().map_err(D::Error::custom)?;
        match set.contains(op) {
            true => Err(D::Error::custom("an operation is named twice")),
            false => Ok(set.with(op)),
        }
    })
}

/// Reads an object without fields; serde itself would accept any object.
pub(super) fn nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    Nothing::deserialize(deserializer).map(|Nothing {}| ())
}

fn read<'de, D: Deserializer<'de>, T, E: Display>(
    deserializer: D,
    of: impl FnOnce(String) -> Result<T, E>,
) -> Result<T, D::Error> {
    of(String::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn read_if_any<'de, D: Deserializer<'de>, T, E: Display>(
    deserializer: D,
    of: impl FnOnce(String) -> Result<T, E>,
) -> Result<Option<T>, D::Error> {
    Option::<String>::deserialize(deserializer)?.map(of).transpose().map_err(D::Error::custom)
}

/// Reads a time in its one text form.
fn timestamp(text: String) -> Result<Timestamp, Error> {
    let date = OffsetDateTime::parse(&text, &Rfc3339).map_err(|_| Error::Time)?;
    let seconds = u64::try_from(date.unix_timestamp()).map_err(|_| Error::Time)?;
    let time = Timestamp::from_seconds(seconds)?;
    if time.to_string() == text { Ok(time) } else { Err(Error::Time) }
}
