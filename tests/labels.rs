//! The characters of a label: the tables in the code and in `docs/PROTOCOL.md` section 15 agree with Unicode
//! 16.0 says, for every character.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::fmt::Write;

use regex::Regex;
use sessioncap::{Error, Label, LabelProblem, limits};

/// Joiners, which names in Persian or Sinhala and emoji of several parts need, and the two variation
/// selectors that tell text from emoji.
const ALLOWED: [char; 4] = ['\u{200c}', '\u{200d}', '\u{fe0e}', '\u{fe0f}'];

/// Characters that are neither spaces nor marks and yet show nothing.
const SHOWS_NOTHING: [char; 6] = ['\u{200c}', '\u{200d}', '\u{2800}', '\u{13441}', '\u{13442}', '\u{1d159}'];

struct Unicode {
    unassigned: BTreeSet<char>,
    invisible: BTreeSet<char>,
    blank: BTreeSet<char>,
}

fn all() -> impl Iterator<Item = char> {
    '\0'..=char::MAX
}

/// The characters that match.
fn set(pattern: &str) -> BTreeSet<char> {
    let pattern = Regex::new(pattern).unwrap();
    let mut buffer = [0; 4];
    all().filter(|c| pattern.is_match(c.encode_utf8(&mut buffer))).collect()
}

impl Unicode {
    fn new() -> Self {
        let mut invisible = set(r"[\p{Cf}\p{Default_Ignorable_Code_Point}]");
        invisible.retain(|c| !ALLOWED.contains(c));
        let mut unassigned = set(r"[\p{Cn}\P{Age:16.0}]");
        unassigned.retain(|c| !invisible.contains(c));
        let mut blank = set(r"[\p{Zs}\p{M}]");
        blank.extend(SHOWS_NOTHING);
        blank.retain(|c| !invisible.contains(c) && !unassigned.contains(c));
        Self { unassigned, invisible, blank }
    }
}

/// First and last of each run, without gaps but the surrogates.
fn ranges(set: &BTreeSet<char>) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for c in set.iter().map(|c| u32::from(*c)) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == c => *last = c,
            _ => ranges.push((c, c)),
        }
    }
    ranges
}

fn problem(character: char, unicode: &Unicode) -> Option<LabelProblem> {
    let private_use = matches!(character, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{ffffd}' | '\u{100000}'..='\u{10fffd}');
    match character {
        c if c.is_control() => Some(LabelProblem::Control { character }),
        '\u{2028}' | '\u{2029}' => Some(LabelProblem::Separator { character }),
        _ if private_use => Some(LabelProblem::PrivateUse { character }),
        c if unicode.invisible.contains(&c) => Some(LabelProblem::Invisible { character }),
        c if unicode.unassigned.contains(&c) => Some(LabelProblem::Unassigned { character }),
        _ => None,
    }
}

#[test]
fn every_character_is_accepted_or_refused_as_unicode_16_says() {
    let unicode = Unicode::new();
    for character in all() {
        let expected = problem(character, &unicode);
        let found = Label::new(format!("x{character}")).map(|_| ());
        assert_eq!(found, expected.map_or(Ok(()), |p| Err(Error::Label(p))), "{character:?}");
        if expected.is_none() {
            let alone = Label::new(character).map(|_| ());
            let blank = unicode.blank.contains(&character);
            assert_eq!(
                alone,
                if blank { Err(Error::Label(LabelProblem::Blank)) } else { Ok(()) },
                "{character:?}"
            );
        }
    }
}

/// The code points of general categories that no later version of Unicode changes.
#[test]
fn controls_separators_and_private_use_are_what_unicode_says() {
    let code = |pattern| ranges(&set(pattern));
    assert_eq!(code(r"\p{Cc}"), [(0, 0x1f), (0x7f, 0x9f)]);
    assert_eq!(code(r"[\p{Zl}\p{Zp}]"), [(0x2028, 0x2029)]);
    assert_eq!(code(r"\p{Co}"), [(0xe000, 0xf8ff), (0xf_0000, 0xf_fffd), (0x10_0000, 0x10_fffd)]);
}

/// The ranges in the document's block of that name.
fn in_document(name: &str) -> Vec<(u32, u32)> {
    let document = include_str!("../docs/PROTOCOL.md");
    let (_, block) =
        document.split_once(&format!("```text\n{name}\n")).unwrap_or_else(|| panic!("no block `{name}`"));
    let (block, _) = block.split_once("```").unwrap();
    let number = |text: &str| u32::from_str_radix(text, 16).unwrap();
    let range = |text: &str| match text.split_once('-') {
        Some((first, last)) => (number(first), number(last)),
        None => (number(text), number(text)),
    };
    block.split_whitespace().map(range).collect()
}

#[test]
fn the_documents_tables_are_what_unicode_16_says() {
    let unicode = Unicode::new();
    assert_eq!(in_document("unassigned"), ranges(&unicode.unassigned));
    assert_eq!(in_document("invisible"), ranges(&unicode.invisible));
    assert_eq!(in_document("blank"), ranges(&unicode.blank));
}

/// Prints the tables for the document and for `src/label/table.rs`:
///
/// ```text
/// cargo test --all-features --test labels -- --ignored --nocapture
/// ```
#[test]
#[ignore = "prints the tables"]
fn print_the_tables() {
    let unicode = Unicode::new();
    let tables =
        [("unassigned", &unicode.unassigned), ("invisible", &unicode.invisible), ("blank", &unicode.blank)];
    for (name, set) in tables {
        println!("```text\n{name}");
        let mut line = String::new();
        for (first, last) in ranges(set) {
            let range = if first == last { format!("{first:x}") } else { format!("{first:x}-{last:x}") };
            if line.len() + 1 + range.len() > 100 {
                println!("{line}");
                line.clear();
            }
            write!(line, "{}{range}", if line.is_empty() { "" } else { " " }).unwrap();
        }
        println!("{line}\n```\n");
    }
    for (name, set) in tables {
        let borders: Vec<String> =
            ranges(set).iter().map(|(first, last)| format!("{first:#x}, {:#x}", last + 1)).collect();
        println!(
            "pub(super) const {}: [u32; {}] = [{}];\n",
            name.to_uppercase(),
            borders.len() * 2,
            borders.join(", ")
        );
    }
}

#[test]
fn names_of_people_and_things_are_accepted_as_labels() {
    for label in [
        "",
        "phone",
        "Anna's phone 📱",
        "Zoë’s 手机",
        "محمد",
        "علی‌رضا",
        "ශ්‍රී",
        "Нина 2",
        "👩‍💻",
        "❤️",
        "❤︎",
        "1️⃣",
        "👍🏽",
        "🇪🇺",
        "a\u{a0}b",
        "e\u{301}",
        &"x".repeat(limits::MAX_LABEL_LEN),
        "✂",
    ] {
        assert_eq!(Label::new(label).unwrap().as_str(), label);
    }
}

#[test]
fn each_refusal_names_the_rule_that_was_broken() {
    let max = limits::MAX_LABEL_LEN;
    let too_long = LabelProblem::TooLong { max };
    for label in ["x".repeat(max + 1), "é".repeat(max / 2) + "x", "\n".repeat(max + 1)] {
        assert_eq!(Label::new(label), Err(Error::Label(too_long)));
    }
    for (text, found, shown) in [
        ("a\nb", LabelProblem::Control { character: '\n' }, "U+000A is a control character"),
        ("\u{1b}[2J", LabelProblem::Control { character: '\u{1b}' }, "U+001B is a control character"),
        ("a\u{85}", LabelProblem::Control { character: '\u{85}' }, "U+0085 is a control character"),
        (
            "a\u{2028}",
            LabelProblem::Separator { character: '\u{2028}' },
            "U+2028 separates lines or paragraphs",
        ),
        (
            "a\u{2029}",
            LabelProblem::Separator { character: '\u{2029}' },
            "U+2029 separates lines or paragraphs",
        ),
        ("a\u{e000}", LabelProblem::PrivateUse { character: '\u{e000}' }, "U+E000 is for private use"),
        ("a\u{10fffd}", LabelProblem::PrivateUse { character: '\u{10fffd}' }, "U+10FFFD is for private use"),
        (
            "a\u{378}",
            LabelProblem::Unassigned { character: '\u{378}' },
            "U+0378 is no character of unicode 16.0",
        ),
        (
            "a\u{ffff}",
            LabelProblem::Unassigned { character: '\u{ffff}' },
            "U+FFFF is no character of unicode 16.0",
        ),
        (" \u{301}", LabelProblem::Blank, "nothing in it can be seen; leave it empty or write something"),
    ] {
        assert_eq!(Label::new(text), Err(Error::Label(found)), "{text:?}");
        assert_eq!(Label::new(text).unwrap_err().to_string(), format!("not a label: {shown}"));
    }
    for character in [
        '\u{ad}',
        '\u{34f}',
        '\u{61c}',
        '\u{115f}',
        '\u{180b}',
        '\u{180e}',
        '\u{200b}',
        '\u{200e}',
        '\u{202e}',
        '\u{2060}',
        '\u{2066}',
        '\u{3164}',
        '\u{fe00}',
        '\u{feff}',
        '\u{ffa0}',
        '\u{fff9}',
        '\u{1d173}',
        '\u{e0001}',
        '\u{e0041}',
        '\u{e007f}',
        '\u{e0100}',
    ] {
        let label = Label::new(format!("a{character}b"));
        assert_eq!(label, Err(Error::Label(LabelProblem::Invisible { character })));
        let shown = label.unwrap_err().to_string();
        let number = format!("U+{:04X}", u32::from(character));
        assert_eq!(
            shown,
            format!("not a label: {number} cannot be seen, or changes how the text around it is shown")
        );
    }
    for blank in
        [" ", "\u{a0}\u{3000}", "\u{200d}", "\u{200c} ", "\u{301}", "\u{fe0f}", "\u{2800}", "\u{20e3}"]
    {
        assert_eq!(Label::new(blank), Err(Error::Label(LabelProblem::Blank)), "{blank:?}");
    }
}
