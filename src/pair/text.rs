//! How the fields of the pairing messages are read where serde's own way would take too much.

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::{Serialize, Serializer};

use crate::codec::{from_text, to_text};

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
        let text = String::deserialize(deserializer)?;
        place(text).ok_or_else(|| D::Error::custom("a place in a list is 17 bytes as base64url"))
    }
}

/// Reads a field that must be there, also where it holds nothing: serde itself would take its absence for that.
pub(super) fn if_any<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

/// Reads an object without fields; serde itself would accept any object.
pub(super) fn nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    Nothing::deserialize(deserializer).map(|Nothing {}| ())
}
