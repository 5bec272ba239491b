//! A short text for people (`docs/PROTOCOL.md` sections 2 and 15).

use core::fmt;
use core::str::FromStr;

use crate::error::{Error, LabelProblem};
use crate::limits::MAX_LABEL_LEN;
use crate::text::text_forms;

mod table;

/// A short text that is shown to people beside a key. No admission depends on it; the owner can revoke by the label of an offer.
///
/// It may be empty. Otherwise it has something visible, and no character that hides or rearranges the text
/// around it: no control or format character, no line separator, no private-use character and none that
/// Unicode 16.0 does not assign. The two joiners that names and emoji need are allowed, and so are the two
/// variation selectors that choose between text and emoji.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Label(String);

impl Label {
    /// Longest label, bytes of UTF-8.
    pub const MAX_LEN: usize = MAX_LABEL_LEN;

    /// Makes a label after checking the text. Costs two table look-ups for each character.
    ///
    /// # Errors
    /// [`Error::Label`] with the first rule that the text breaks: it is longer than [`Label::MAX_LEN`] bytes,
    /// has a forbidden character, or has nothing visible.
    pub fn new(text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        check(&text).map_err(Error::Label)?;
        Ok(Self(text))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(text: &str) -> Result<(), LabelProblem> {
    if text.len() > MAX_LABEL_LEN {
        return Err(LabelProblem::TooLong { max: MAX_LABEL_LEN });
    }
    if let Some(problem) = text.chars().find_map(problem) {
        return Err(problem);
    }
    // An empty label cannot be mistaken for another.
    if !text.is_empty() && text.chars().all(|character| is_in(&table::BLANK, character)) {
        return Err(LabelProblem::Blank);
    }
    Ok(())
}

fn problem(character: char) -> Option<LabelProblem> {
    match character {
        // Unicode never changes these first three groups.
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => Some(LabelProblem::Control { character }),
        '\u{2028}' | '\u{2029}' => Some(LabelProblem::Separator { character }),
        '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{ffffd}' | '\u{100000}'..='\u{10fffd}' => {
            Some(LabelProblem::PrivateUse { character })
        }
        _ if is_in(&table::INVISIBLE, character) => Some(LabelProblem::Invisible { character }),
        _ if is_in(&table::UNASSIGNED, character) => Some(LabelProblem::Unassigned { character }),
        _ => None,
    }
}

/// Whether `character` is after an odd number of `borders`.
fn is_in(borders: &[u32], character: char) -> bool {
    borders.partition_point(|border| *border <= u32::from(character)) % 2 == 1
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Label {
    type Err = Error;

    /// # Errors
    /// As [`Label::new`].
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::new(text)
    }
}

text_forms!(Label, "a label");
