//! JSON as the adapters read it: bounded, without repeated keys, and the same whatever features other crates switch
//! on in `serde_json`.

use core::cell::Cell;
use core::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use thiserror::Error;

use crate::limits::MAX_JSON_VALUES;

/// A JSON value (RFC 8259) without repeated keys. Objects keep the order of their keys.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object. A reader refuses repeated keys; whoever builds one must not put a key in twice.
    Object(Vec<(String, Json)>),
}

/// A number of JSON. A reader takes the first form that fits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// An integer of 64 bits with a sign.
    Integer(i64),
    /// An integer that is greater than `i64::MAX`.
    Large(u64),
    /// Any other number. Not finite ones are written as `null`.
    Float(f64),
}

/// Why a text is not JSON that the adapters take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JsonError {
    /// The text has more bytes than allowed.
    #[error("the json has more than {max} bytes; send less at once")]
    TooLong {
        /// The most bytes.
        max: usize,
    },
    /// The text is not JSON, not UTF-8, repeats a key, or is nested too deeply or has too many values.
    #[error("not json in utf-8 with each key once and at most {depth} levels; send one such value")]
    Malformed {
        /// The most levels of arrays and objects.
        depth: usize,
    },
}

impl JsonError {
    /// Returns the name of the error, which stays the same from version to version.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "json_too_long",
            Self::Malformed { .. } => "json_malformed",
        }
    }
}

impl Json {
    /// Most values in one text, arrays and objects among them.
    pub const MAX_VALUES: usize = MAX_JSON_VALUES;

    /// Makes a text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Makes a number.
    #[must_use]
    pub fn integer(number: i64) -> Self {
        Self::Number(Number::Integer(number))
    }

    /// Makes an object. The keys must differ: nothing checks that.
    #[must_use]
    pub fn object<const N: usize>(entries: [(&str, Self); N]) -> Self {
        Self::Object(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// Reads a value: UTF-8 of at most `max` bytes, at most `depth` levels of arrays and objects, at most [`Json::MAX_VALUES`]
    /// values, each key once. Numbers are integers of 64 bits or finite. It reads the same whatever features of `serde_json`
    /// a build has.
    ///
    /// # Errors
    /// [`JsonError`] for anything else.
    pub fn from_bytes(bytes: &[u8], max: usize, depth: usize) -> Result<Self, JsonError> {
        if bytes.len() > max {
            return Err(JsonError::TooLong { max });
        }
        Self::parse(bytes, depth).ok_or(JsonError::Malformed { depth })
    }

    fn parse(bytes: &[u8], depth: usize) -> Option<Self> {
        let text = core::str::from_utf8(bytes).ok()?;
        // With the feature `arbitrary_precision` in the build, an object with this key would read as a number.
        if text.contains(QUOTED_NUMBER_KEY) {
            return None;
        }
        let mut reader = serde_json::Deserializer::from_str(text);
        let values = Cell::new(0);
        let value = Strict { depth, values: &values }.deserialize(&mut reader).ok()?;
        reader.end().ok()?;
        Some(value)
    }

    /// Writes the value as JSON without spaces.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    /// Returns the value of a key of an object. Returns `None` if there is none or this is no object.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Object(entries) = self else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Returns the text, if this is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the integer, if this is one that fits.
    #[must_use]
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Number(Number::Integer(number)) => Some(*number),
            _ => None,
        }
    }

    pub(crate) fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(Number::Integer(number)) => out.push_str(&number.to_string()),
            Self::Number(Number::Large(number)) => out.push_str(&number.to_string()),
            // The debug form has a point or an exponent, and reads back as the same number.
            Self::Number(Number::Float(number)) if number.is_finite() => out.push_str(&format!("{number:?}")),
            Self::Number(Number::Float(_)) => out.push_str("null"),
            Self::Text(text) => write_text(text, out),
            Self::List(values) => {
                out.push('[');
                for (at, value) in values.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    value.write(out);
                }
                out.push(']');
            }
            Self::Object(entries) => {
                out.push('{');
                for (at, (key, value)) in entries.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    write_text(key, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

/// The JSON text, as of [`Json::to_text`].
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

/// The beginning of a text of somebody else's, without control characters.
pub(crate) fn beginning(text: &str, most: usize) -> String {
    let mut shown = String::new();
    for character in text.chars().filter(|character| !character.is_control()) {
        if shown.len().saturating_add(character.len_utf8()) > most {
            break;
        }
        shown.push(character);
    }
    shown
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1f' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => out.push(character),
        }
    }
    out.push('"');
}

/// Reads a value of another type, from JSON that [`Json::from_bytes`] takes.
#[cfg(all(feature = "agent", feature = "dd"))]
pub(crate) fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    let depth = crate::limits::MAX_JSON_DEPTH;
    Json::from_bytes(bytes, crate::limits::MAX_MESSAGE_LEN, depth)?;
    serde_json::from_slice(bytes).map_err(|_| JsonError::Malformed { depth })
}

/// Writes a value of another type. Returns `None` if it is not one that JSON has.
#[cfg(all(feature = "agent", feature = "dd"))]
pub(crate) fn write<T: serde::Serialize>(value: &T) -> Option<String> {
    serde_json::to_string(value).ok()
}

/// The key under which `serde_json` hands out numbers with its feature `arbitrary_precision`.
const NUMBER_KEY: &str = "$serde_json::private::Number";
const QUOTED_NUMBER_KEY: &str = "\"$serde_json::private::Number\"";

/// Reads a value without repeated keys, of at most so many levels.
#[derive(Clone, Copy)]
struct Strict<'a> {
    depth: usize,
    values: &'a Cell<usize>,
}

impl Strict<'_> {
    fn inside<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))?;
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Json;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        let values = self.values.get().saturating_add(1);
        self.values.set(values);
        if values > MAX_JSON_VALUES {
            return Err(D::Error::custom("too many values"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a json value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(i64::try_from(value).map_or(Number::Large(value), Number::Integer)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(Number::Integer(value)))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Json, E> {
        if value.is_finite() { Ok(Json::Number(Number::Float(value))) } else { Err(E::custom("too large")) }
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let inside = self.inside()?;
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(inside)? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let Some(first) = access.next_key_seed(KeySeed)? else {
            self.inside::<A::Error>()?;
            return Ok(Json::Object(Vec::new()));
        };
        let first = match first {
            Key::Number => return number(&access.next_value::<String>()?),
            Key::Text(first) => first,
        };
        let inside = self.inside()?;
        let mut entries = vec![(first, access.next_value_seed(inside)?)];
        while let Some(key) = access.next_key_seed(KeySeed)? {
            let Key::Text(key) = key else { return Err(A::Error::custom("a number among keys")) };
            entries.push((key, access.next_value_seed(inside)?));
        }
        let mut keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
            return Err(A::Error::custom("a key comes twice"));
        }
        Ok(Json::Object(entries))
    }
}

/// Reads a number from its text, as `serde_json` does without `arbitrary_precision`.
fn number<E: serde::de::Error>(text: &str) -> Result<Json, E> {
    // `-0` is a float there.
    if text != "-0" {
        if let Ok(number) = text.parse() {
            return Ok(Json::Number(Number::Integer(number)));
        }
        if let Ok(number) = text.parse() {
            return Ok(Json::Number(Number::Large(number)));
        }
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(Json::Number(Number::Float(number))),
        _ => Err(E::custom("too large")),
    }
}

enum Key {
    Number,
    Text(String),
}

/// Reads a key. The number's key, borrowed, comes from `serde_json` itself: [`Json::parse`] refuses it in a text.
struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Key;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key, E> {
        Ok(if key == NUMBER_KEY { Key::Number } else { Key::Text(key.to_owned()) })
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Key, E> {
        // Written with an escape, it is from the text.
        if key == NUMBER_KEY { Err(E::custom("a reserved key")) } else { Ok(Key::Text(key.to_owned())) }
    }
}
