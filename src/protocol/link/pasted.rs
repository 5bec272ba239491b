//! A link in text that a person has copied, with what mail programs, chats and terminals put around and into it.

use core::fmt;

use zeroize::Zeroizing;

use super::{Link, LinkError};
use crate::limits::MAX_PASTED_LEN;

/// What [`Link::from_pasted`] has left out. Show it to the person who pasted the text: `Display` writes for example
/// `line breaks, brackets or quotes`, and `nothing` if nothing was left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trimmed {
    line_breaks: bool,
    white_space: bool,
    invisible: bool,
    brackets: bool,
    punctuation: bool,
}

impl Trimmed {
    /// Returns whether nothing was left out: [`Link::parse`] reads the text too.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        !(self.line_breaks || self.white_space || self.invisible || self.brackets || self.punctuation)
    }

    /// Returns whether line breaks were left out, as a copy of several lines has them.
    #[must_use]
    pub const fn line_breaks(&self) -> bool {
        self.line_breaks
    }

    /// Returns whether spaces, tabs or no-break spaces were left out.
    #[must_use]
    pub const fn white_space(&self) -> bool {
        self.white_space
    }

    /// Returns whether characters without a shape of their own were left out: of zero width, soft hyphens, and those
    /// that steer the direction of writing.
    #[must_use]
    pub const fn invisible(&self) -> bool {
        self.invisible
    }

    /// Returns whether brackets or quotes around the link were left out.
    #[must_use]
    pub const fn brackets(&self) -> bool {
        self.brackets
    }

    /// Returns whether punctuation before or after the link was left out.
    #[must_use]
    pub const fn punctuation(&self) -> bool {
        self.punctuation
    }
}

impl fmt::Display for Trimmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (self.line_breaks, "line breaks"),
            (self.white_space, "spaces"),
            (self.invisible, "invisible characters"),
            (self.brackets, "brackets or quotes"),
            (self.punctuation, "punctuation"),
        ];
        let mut separator = "";
        for (_, name) in all.iter().filter(|(was, _)| *was) {
            write!(f, "{separator}{name}")?;
            separator = ", ";
        }
        if self.is_empty() { f.write_str("nothing") } else { Ok(()) }
    }
}

impl Link {
    /// Longest text that [`Link::from_pasted`] reads, bytes.
    pub const MAX_PASTED_LEN: usize = MAX_PASTED_LEN;

    /// Reads an https link from pasted text, without the characters that are never part of one: white space, line
    /// breaks and invisible characters anywhere, and brackets, quotes and punctuation at both ends
    /// (`docs/PROTOCOL.md` section 7). The rest must be a link as [`Link::parse`] reads it, so nothing is guessed and
    /// no other text around a link is skipped.
    ///
    /// Use it for text that a person pastes or types, and [`Link::parse`] for what a camera or the system hands over.
    ///
    /// # Errors
    /// As [`Link::parse`], and [`LinkError::Foreign`] if the text is longer than [`Link::MAX_PASTED_LEN`].
    pub fn from_pasted(text: &str) -> Result<(Self, Trimmed), LinkError> {
        if text.len() > MAX_PASTED_LEN {
            return Err(LinkError::Foreign);
        }
        let mut trimmed = Trimmed::default();
        let mut kept = Zeroizing::new(String::with_capacity(text.len()));
        for character in text.chars() {
            match character {
                '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
                    trimmed.line_breaks = true
                }
                _ if character.is_whitespace() => trimmed.white_space = true,
                _ if is_invisible(character) => trimmed.invisible = true,
                _ => kept.push(character),
            }
        }
        let link = kept.trim_matches(|character| {
            let (bracket, punctuation) = (is_bracket(character), is_punctuation(character));
            trimmed.brackets |= bracket;
            trimmed.punctuation |= punctuation;
            bracket || punctuation
        });
        Ok((Self::parse(link)?, trimmed))
    }
}

const fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
    )
}

/// A link begins with a letter and ends in a letter or digit, so none of these is its own.
const fn is_bracket(character: char) -> bool {
    matches!(
        character,
        '<' | '>' | '(' | ')' | '[' | ']' | '{' | '}' | '"' | '\'' | '`' | '\u{ab}' | '\u{bb}'
            | '\u{2018}'..='\u{201f}' | '\u{2039}' | '\u{203a}' | '\u{3008}'..='\u{3011}' | '\u{ff08}' | '\u{ff09}'
            | '\u{ff1c}' | '\u{ff1e}'
    )
}

const fn is_punctuation(character: char) -> bool {
    matches!(
        character,
        '.' | ','
            | ';'
            | ':'
            | '!'
            | '?'
            | '*'
            | '_'
            | '~'
            | '|'
            | '-'
            | '\u{2013}'
            | '\u{2014}'
            | '\u{2026}'
            | '\u{3001}'
            | '\u{3002}'
            | '\u{ff01}'
            | '\u{ff0c}'
            | '\u{ff0e}'
            | '\u{ff1a}'
            | '\u{ff1b}'
            | '\u{ff1f}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::LinkHost;
    use super::*;
    use crate::agent_url::AgentUrl;
    use crate::key::AgentSecretKey;
    use crate::protocol::ticket::TicketSecret;

    fn links() -> Vec<(Link, String)> {
        let urls = ["wss://agent.example", "ws://127.0.0.1:9099/x", "ws://[2001:db8::7]:9099"];
        let hosts = [LinkHost::Agent, LinkHost::Fixed("link.example".to_owned())];
        let link = |url| {
            let agent = AgentSecretKey::from_bytes([7; 32]).public();
            Link::new(AgentUrl::parse(url).unwrap(), agent, TicketSecret::from_bytes([9; 16]))
        };
        let forms = |url| hosts.iter().map(move |host| (link(url), link(url).to_https(host).unwrap()));
        urls.into_iter().flat_map(forms).collect()
    }

    #[test]
    fn what_is_never_part_of_a_link_is_left_out_and_named() {
        for (link, text) in links() {
            let half = text.len() / 2;
            let wrapped = format!("{}\r\n    {}", &text[..half], &text[half..]);
            for (pasted, told) in [
                (text.clone(), "nothing"),
                (format!("{text}\n"), "line breaks"),
                (format!("{text}."), "punctuation"),
                (format!("({text})"), "brackets or quotes"),
                (format!("<{text}>"), "brackets or quotes"),
                (format!("\u{201c}{text}\u{201d}"), "brackets or quotes"),
                (format!("'{text}',"), "brackets or quotes, punctuation"),
                (format!("\u{a0}{text}\u{a0}"), "spaces"),
                (format!("\u{feff}{}\u{200b}{}", &text[..half], &text[half..]), "invisible characters"),
                (wrapped, "line breaks, spaces"),
                (format!("[{text}]\u{3002}\n"), "line breaks, brackets or quotes, punctuation"),
            ] {
                let (read, trimmed) =
                    Link::from_pasted(&pasted).unwrap_or_else(|error| panic!("{pasted}: {error}"));
                assert_eq!((read, trimmed.to_string().as_str()), (link.clone(), told), "{pasted}");
                assert_eq!(trimmed.is_empty(), pasted == text);
                assert_eq!(
                    Link::parse(&pasted).is_ok(),
                    pasted == text,
                    "the reader of exact text stays strict"
                );
            }
        }
    }

    #[test]
    fn other_text_around_a_link_is_not_skipped() {
        for (_, text) in links() {
            for other in
                [format!("see {text}"), format!("{text} today"), format!("{text}{text}"), format!("{text}/")]
            {
                assert!(Link::from_pasted(&other).is_err(), "{other}");
            }
        }
        assert_eq!(Link::from_pasted(""), Err(LinkError::Foreign));
        assert_eq!(Link::from_pasted("...\n"), Err(LinkError::Foreign));
        let (_, text) = links().remove(0);
        let longest = format!("{text}{}", " ".repeat(Link::MAX_PASTED_LEN - text.len()));
        assert!(Link::from_pasted(&longest).is_ok());
        assert_eq!(Link::from_pasted(&format!("{longest} ")), Err(LinkError::Foreign));
    }

    proptest! {
        #[test]
        fn a_link_reads_through_whatever_is_never_its_own(
            which in 0..6_usize,
            before in "[<(\\[\"' .:\n\u{a0}\u{201c}]{0,4}",
            after in "[>)\\]\"'.,;!?\n\r\t \u{200b}\u{a0}\u{201d}]{0,6}",
            breaks in proptest::collection::vec((0..200_usize, "(\n|\r\n| |\u{200b}|\u{ad}|\n  )"), 0..5),
        ) {
            let (link, text) = links().remove(which);
            let mut pasted = text.clone();
            for (place, inside) in &breaks {
                pasted.insert_str(pasted.floor_char_boundary(place % pasted.len()), inside);
            }
            let pasted = format!("{before}{pasted}{after}");
            let (read, trimmed) = Link::from_pasted(&pasted).unwrap();
            prop_assert_eq!(read, link);
            prop_assert_eq!(trimmed.is_empty(), pasted == text);
        }

        #[test]
        fn what_is_read_is_a_link_once_the_rest_is_gone(text in "\\PC{0,80}", which in 0..6_usize, place in 0..200_usize) {
            let _ = Link::from_pasted(&text);
            let (_, good) = links().remove(which);
            let mut changed = good.clone();
            changed.insert_str(place % good.len(), &text);
            // The text may have gone into the name of the host, which any link may have.
            match Link::from_pasted(&changed) {
                Ok((link, trimmed)) if trimmed.is_empty() => prop_assert_eq!(Link::parse(&changed), Ok(link)),
                _ => {}
            }
        }
    }
}
