//! Strict deterministic CBOR (RFC 8949 section 4.2) and base64url (RFC 4648 section 5).
//!
//! A value has one encoding. [`decode`] reads a value, encodes it again and compares, so that a longer
//! integer, another key order, an unknown field or a trailing byte is refused without a separate rule. Only
//! unsigned integers, byte strings, text strings, arrays and maps of definite length are used, so a peer
//! cannot choose the nesting.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ciborium_ll::{Decoder, Encoder, Header};

use crate::error::Error;

/// A value with one encoding.
pub(crate) trait Wire: Sized {
    /// Appends the value's encoding.
    fn encode(&self, writer: &mut Writer);
    /// Reads a value. It need not be strict, because [`decode`] compares.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error>;
}

/// Returns the one encoding of `value`.
pub(crate) fn encode<T: Wire>(value: &T) -> Vec<u8> {
    let mut writer = Writer::default();
    value.encode(&mut writer);
    writer.bytes
}

/// Returns the value whose one encoding is `bytes`.
pub(crate) fn decode<T: Wire>(bytes: &[u8]) -> Result<T, Error> {
    let value = T::decode(&mut Reader::new(bytes))?;
    let mut writer = Writer::with_capacity(bytes.len());
    value.encode(&mut writer);
    if writer.bytes == bytes { Ok(value) } else { Err(Error::MessageMalformed) }
}

/// Writes an encoding.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// With room for `capacity` bytes, for what must not be left in a buffer that has grown.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity) }
    }

    /// Writes bytes without a head.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn header(&mut self, header: Header) {
        // The longest head is one byte and an eight-byte argument, so the buffer always suffices.
        let mut head = [0_u8; 9];
        let mut free = head.as_mut_slice();
        let written = Encoder::from(&mut free).push(header).is_ok();
        let left = free.len();
        debug_assert!(written, "a CBOR head fits nine bytes");
        self.bytes.extend_from_slice(head.get(..head.len() - left).unwrap_or_default());
    }

    pub(crate) fn map(&mut self, pairs: usize) -> &mut Self {
        self.header(Header::Map(Some(pairs)));
        self
    }

    pub(crate) fn array(&mut self, items: usize) -> &mut Self {
        self.header(Header::Array(Some(items)));
        self
    }

    pub(crate) fn uint(&mut self, value: u64) -> &mut Self {
        self.header(Header::Positive(value));
        self
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.header(Header::Bytes(Some(value.len())));
        self.bytes.extend_from_slice(value);
        self
    }

    /// Writes a byte string of so many zeros.
    pub(crate) fn zeros(&mut self, len: usize) -> &mut Self {
        self.header(Header::Bytes(Some(len)));
        self.bytes.resize(self.bytes.len().saturating_add(len), 0);
        self
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        self.header(Header::Text(Some(value.len())));
        self.bytes.extend_from_slice(value.as_bytes());
        self
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads an encoding from the front.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn header(&mut self) -> Result<Header, Error> {
        let mut decoder = Decoder::from(self.rest);
        let header = decoder.pull().map_err(|_| Error::MessageMalformed)?;
        let used = decoder.offset();
        self.rest = self.rest.get(used..).ok_or(Error::MessageMalformed)?;
        Ok(header)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(Error::MessageMalformed)?;
        self.rest = tail;
        Ok(head)
    }

    /// Reads the number of pairs in the map that begins here.
    pub(crate) fn map(&mut self) -> Result<usize, Error> {
        match self.header()? {
            Header::Map(Some(pairs)) => Ok(pairs),
            _ => Err(Error::MessageMalformed),
        }
    }

    /// Reads the number of items in the array that begins here, at most `max`.
    pub(crate) fn array(&mut self, max: usize) -> Result<usize, Error> {
        match self.header()? {
            Header::Array(Some(items)) if items <= max => Ok(items),
            _ => Err(Error::MessageMalformed),
        }
    }

    /// Consumes the map key `expected`.
    pub(crate) fn key(&mut self, expected: u64) -> Result<&mut Self, Error> {
        if self.uint()? == expected { Ok(self) } else { Err(Error::MessageMalformed) }
    }

    /// Whether the next item is the map key `expected`, which is then consumed.
    pub(crate) fn optional_key(&mut self, expected: u64) -> bool {
        let before = self.rest;
        if self.uint() == Ok(expected) {
            return true;
        }
        self.rest = before;
        false
    }

    pub(crate) fn uint(&mut self) -> Result<u64, Error> {
        match self.header()? {
            Header::Positive(value) => Ok(value),
            _ => Err(Error::MessageMalformed),
        }
    }

    /// Reads a byte string of at most `max` bytes.
    pub(crate) fn bytes(&mut self, max: usize) -> Result<&'a [u8], Error> {
        match self.header()? {
            Header::Bytes(Some(len)) if len <= max => self.take(len),
            _ => Err(Error::MessageMalformed),
        }
    }

    /// Reads a byte string of exactly `N` bytes.
    pub(crate) fn array_of<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.bytes(N)?.try_into().map_err(|_| Error::MessageMalformed)
    }

    /// Reads a text string of at most `max` bytes.
    pub(crate) fn text(&mut self, max: usize) -> Result<&'a str, Error> {
        match self.header()? {
            Header::Text(Some(len)) if len <= max => {
                core::str::from_utf8(self.take(len)?).map_err(|_| Error::MessageMalformed)
            }
            _ => Err(Error::MessageMalformed),
        }
    }
}

/// Writes base64url without padding.
pub(crate) fn to_text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads base64url without padding. Padding, line breaks and stray bits in the last character are
/// refused.
pub(crate) fn from_text(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Writes lower-case hexadecimal.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Reads exactly `N` bytes of lower-case hexadecimal.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N.checked_mul(2)? {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = pair.try_into().ok()?;
        *byte = (value(high)? << 4) | value(low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `{0: uint, 1: bytes}` and an optional `{2: text}`.
    #[derive(Debug, Clone, PartialEq)]
    struct Sample(u64, Vec<u8>, Option<String>);

    impl Wire for Sample {
        fn encode(&self, writer: &mut Writer) {
            writer.map(2 + usize::from(self.2.is_some()));
            writer.uint(0).uint(self.0).uint(1).bytes(&self.1);
            if let Some(text) = &self.2 {
                writer.uint(2).text(text);
            }
        }

        fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
            reader.map()?;
            let number = reader.key(0)?.uint()?;
            let bytes = reader.key(1)?.bytes(64)?.to_vec();
            let text = match reader.optional_key(2) {
                true => Some(reader.text(64)?.to_owned()),
                false => None,
            };
            Ok(Self(number, bytes, text))
        }
    }

    #[test]
    fn shortest_heads_as_rfc_8949_appendix_a() {
        for (value, hex) in [
            (0, "00"),
            (23, "17"),
            (24, "1818"),
            (255, "18ff"),
            (256, "190100"),
            (1_000_000, "1a000f4240"),
            (u64::MAX, "1bffffffffffffffff"),
        ] {
            let mut writer = Writer::default();
            writer.uint(value);
            assert_eq!(to_hex(&writer.bytes), hex);
        }
    }

    #[test]
    fn every_other_spelling_of_the_same_value_is_refused() {
        let good = encode(&Sample(5, vec![1, 2], None));
        assert_eq!(to_hex(&good), "a200050142 0102".replace(' ', ""));
        for hex in [
            "a20018050142 0102",   // integer in two bytes
            "b80200050142 0102",   // map length in two bytes
            "bf00050142 0102ff",   // indefinite length
            "a2014201020005",      // keys in another order
            "a200050158020102",    // byte string length in two bytes
            "a20005015f420102ff",  // byte string in pieces
            "a200050142 010200",   // a trailing byte
            "a300050142 01020304", // an unknown field
            "a2c000050142 0102",   // a tag
            "a200f93c000142 0102", // a float
        ] {
            let bytes: Vec<u8> = hex
                .replace(' ', "")
                .as_bytes()
                .chunks(2)
                .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect();
            assert_eq!(decode::<Sample>(&bytes), Err(Error::MessageMalformed), "{hex}");
        }
    }

    proptest! {
        #[test]
        fn a_value_reads_back(number: u64, bytes in proptest::collection::vec(any::<u8>(), 0..64), text in proptest::option::of("[a-z]{0,64}")) {
            let sample = Sample(number, bytes, text);
            prop_assert_eq!(decode::<Sample>(&encode(&sample)), Ok(sample));
        }

        #[test]
        fn whatever_reads_is_the_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            if let Ok(sample) = decode::<Sample>(&bytes) {
                prop_assert_eq!(encode(&sample), bytes);
            }
        }

        #[test]
        fn hex_reads_back(bytes: [u8; 7]) {
            prop_assert_eq!(from_hex::<7>(&to_hex(&bytes)), Some(bytes));
        }
    }

    #[test]
    fn base64url_is_read_in_one_spelling_only() {
        assert_eq!(from_text("_-8"), Some(vec![0xff, 0xef]));
        for text in ["_-8=", "/+8", "_-9", "_-8\n", "_"] {
            assert_eq!(from_text(text), None, "{text:?}");
        }
    }
}
