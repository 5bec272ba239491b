//! Lines of a stream of bytes, within a bound.

use std::mem;

/// A line, sorted by its content.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Without its 0x0A and without one 0x0D before that.
    Whole(Vec<u8>),
    /// Longer than the limit. The rest of it is skipped when it comes.
    TooLong(Vec<u8>),
}

/// Splits at 0x0A and nowhere else: U+2028 and a lone 0x0D are legal inside a JSON text.
///
/// Keeps at most `limit` bytes.
#[derive(Debug)]
pub struct Lines {
    limit: usize,
    begun: Vec<u8>,
    skipping: bool,
}

impl Lines {
    /// `limit` is the longest line in bytes, without its end.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, begun: Vec::new(), skipping: false }
    }

    /// Gives each line that `bytes` ends, and each that has become too long.
    pub fn read(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut found = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            if !self.skipping {
                // One more than the limit, for a 0x0D that belongs to the line's end.
                let room = self.limit.saturating_add(1).saturating_sub(self.begun.len());
                self.begun.extend_from_slice(text.get(..room).unwrap_or(text));
                let over = self.begun.len() > self.limit && self.begun.last() != Some(&b'\r');
                if over || text.len() > room {
                    self.skipping = true;
                    found.push(Line::TooLong(mem::take(&mut self.begun)));
                }
            }
            if ended && !mem::take(&mut self.skipping) {
                let mut line = mem::take(&mut self.begun);
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                found.push(Line::Whole(line));
            }
        }
        found
    }

    /// Whether bytes of a line without an end are left.
    #[must_use]
    pub fn is_within_line(&self) -> bool {
        self.skipping || !self.begun.is_empty()
    }
}

/// Writes U+FFFD in the place of each escape of half a surrogate pair. Returns whether there was one.
pub fn replace_lone_surrogates(json: &mut [u8]) -> bool {
    let mut replaced = false;
    let mut at = 0_usize;
    while let Some(byte) = json.get(at) {
        let whole = match (byte, escaped_unit(json, at)) {
            // The escape of a backslash or a quote.
            (b'\\', None) => 2,
            (_, None) => 1,
            (_, Some(0xd800..=0xdbff))
                if matches!(escaped_unit(json, at.saturating_add(6)), Some(0xdc00..=0xdfff)) =>
            {
                12
            }
            (_, Some(0xd800..=0xdfff)) => {
                if let Some(escape) = json.get_mut(at..at.saturating_add(6)) {
                    escape.copy_from_slice(b"\\ufffd");
                    replaced = true;
                }
                6
            }
            (_, Some(_)) => 6,
        };
        at = at.saturating_add(whole);
    }
    replaced
}

/// The unit of UTF-16 whose escape is at this place.
fn escaped_unit(json: &[u8], at: usize) -> Option<u16> {
    let digits = json.get(at..at.checked_add(6)?)?.strip_prefix(b"\\u")?;
    let digits = digits.iter().all(u8::is_ascii_hexdigit).then_some(digits)?;
    u16::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn half_a_surrogate_pair_becomes_a_replacement_character_and_nothing_else_changes() {
        for (text, expected) in [
            (r#""cut \ud83d""#, r#""cut \ufffd""#),
            (r#""\ud83d\ud83d\ude00\uDE00""#, r#""\ufffd\ud83d\ude00\ufffd""#),
            (r#""\\ud83d \\\ud83d \u00e9 \ud8""#, r#""\\ud83d \\\ufffd \u00e9 \ud8""#),
        ] {
            let mut json = text.as_bytes().to_vec();
            assert!(replace_lone_surrogates(&mut json));
            assert_eq!(core::str::from_utf8(&json).unwrap(), expected);
            assert!(!replace_lone_surrogates(&mut json));
        }
    }

    fn whole(text: &str) -> Line {
        Line::Whole(text.as_bytes().to_vec())
    }

    #[test]
    fn a_line_ends_at_0x0a_alone() {
        let mut lines = Lines::new(64);
        let text = "a\u{2028}b\u{85}c\rd\r\n\n\r\nrest";
        assert_eq!(lines.read(text.as_bytes()), [whole("a\u{2028}b\u{85}c\rd"), whole(""), whole("")]);
        assert!(lines.is_within_line());
    }

    #[test]
    fn pieces_of_any_size_give_the_same_lines() {
        let text = b"12345\n123456\n12345\r\n1234567\n123456\r\nx\n";
        let all = Lines::new(5).read(text);
        assert_eq!(
            all,
            [
                whole("12345"),
                Line::TooLong(b"123456".to_vec()),
                whole("12345"),
                Line::TooLong(b"123456".to_vec()),
                Line::TooLong(b"123456".to_vec()),
                whole("x")
            ]
        );
        for size in 1..text.len() {
            let mut lines = Lines::new(5);
            let found: Vec<Line> = text.chunks(size).flat_map(|piece| lines.read(piece)).collect();
            assert_eq!(found, all, "{size}");
            assert!(!lines.is_within_line());
        }
    }

    proptest::proptest! {
        #[test]
        fn lines_are_those_of_the_whole_text(
            text in "[ab\r\n\u{2028}]{0,60}",
            size in 1..9_usize,
            limit in 0..12_usize,
        ) {
            let mut expected: Vec<&str> = text.split('\n').collect();
            let rest = expected.pop().unwrap_or_default();
            let expected: Vec<Option<&str>> = expected
                .into_iter()
                .map(|line| line.strip_suffix('\r').unwrap_or(line))
                .map(|line| (line.len() <= limit).then_some(line))
                .collect();
            let mut lines = Lines::new(limit);
            let found: Vec<Line> = text.as_bytes().chunks(size).flat_map(|piece| lines.read(piece)).collect();
            let mut found: Vec<Option<&str>> = found
                .iter()
                .map(|line| match line {
                    Line::Whole(line) => core::str::from_utf8(line).ok(),
                    Line::TooLong(_) => None,
                })
                .collect();
            // The last line may be too long before it ends.
            if found.len() > expected.len() {
                proptest::prop_assert!(rest.len() > limit);
                proptest::prop_assert_eq!(found.pop(), Some(None));
            }
            proptest::prop_assert_eq!(found, expected);
            proptest::prop_assert_eq!(lines.is_within_line(), !rest.is_empty());
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_told_before_its_end_and_keeps_no_memory() {
        let mut lines = Lines::new(4);
        assert_eq!(lines.read(&[b'x'; 1000]), [Line::TooLong(b"xxxxx".to_vec())]);
        assert_eq!(lines.read(&[b'x'; 1000]), []);
        assert!(lines.begun.capacity() < 16);
        assert_eq!(lines.read(b"x\nok\n"), [whole("ok")]);
    }
}
