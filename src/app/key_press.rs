//! The keys of a phone's keyboard, as a terminal sends them.

use core::fmt;
use core::str::FromStr;

use super::error::AppError;

/// A key with the modifiers that are held with it. An app that has a row of keys names each key here, so that it needs
/// no table of its own, and a key with its modifiers is one message: what is sent in two, programs read as two keys.
///
/// The text is modifiers and a key, joined by `+`: `ctrl+c`, `alt+ctrl+left`, `shift+tab`, `f5`, `ctrl++`. The modifiers
/// are `ctrl`, `alt` and `shift`, each at most once. The key is one character, or one of
/// [`KeyPress::names`]. `Display` writes the modifiers in the order above. `docs/PROTOCOL.md` section 16.4 has the
/// bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyPress {
    key: Key,
    ctrl: bool,
    alt: bool,
    shift: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    /// Text, without a modifier but `ctrl` and `alt`.
    Character(char),
    /// A place in [`TABLE`].
    Named(usize),
}

#[derive(Clone, Copy)]
enum Sends {
    /// One byte, whatever is held but Alt.
    Byte(u8),
    /// `ESC [ X`, or `ESC O X` where the program has asked for application cursor keys.
    Cursor(u8),
    /// `ESC O X`.
    Function(u8),
    /// `ESC [ N ~`.
    Number(u8),
}

const TABLE: [(&str, Sends); 26] = [
    ("enter", Sends::Byte(b'\r')),
    ("tab", Sends::Byte(b'\t')),
    ("backspace", Sends::Byte(0x7f)),
    ("escape", Sends::Byte(0x1b)),
    ("up", Sends::Cursor(b'A')),
    ("down", Sends::Cursor(b'B')),
    ("right", Sends::Cursor(b'C')),
    ("left", Sends::Cursor(b'D')),
    ("home", Sends::Cursor(b'H')),
    ("end", Sends::Cursor(b'F')),
    ("insert", Sends::Number(2)),
    ("delete", Sends::Number(3)),
    ("pageup", Sends::Number(5)),
    ("pagedown", Sends::Number(6)),
    ("f1", Sends::Function(b'P')),
    ("f2", Sends::Function(b'Q')),
    ("f3", Sends::Function(b'R')),
    ("f4", Sends::Function(b'S')),
    ("f5", Sends::Number(15)),
    ("f6", Sends::Number(17)),
    ("f7", Sends::Number(18)),
    ("f8", Sends::Number(19)),
    ("f9", Sends::Number(20)),
    ("f10", Sends::Number(21)),
    ("f11", Sends::Number(23)),
    ("f12", Sends::Number(24)),
];

/// The name of the one character that does not show.
const SPACE: &str = "space";

impl KeyPress {
    /// Returns the names of the keys that have one, in lower case. Each other key is a character.
    pub fn names() -> impl Iterator<Item = &'static str> {
        TABLE.iter().map(|(name, _)| *name).chain([SPACE])
    }

    /// Returns the bytes that a terminal sends. `application` says that the session's program has asked for application
    /// cursor keys (`ESC[?1h`).
    #[must_use]
    pub fn to_bytes(self, application: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        let modifiers = 1 + u8::from(self.shift) + 2 * u8::from(self.alt) + 4 * u8::from(self.ctrl);
        let sends = match self.key {
            Key::Character(character) => {
                bytes.extend(self.alt.then_some(0x1b));
                match control(character).filter(|_| self.ctrl) {
                    Some(byte) => bytes.push(byte),
                    None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
                }
                return bytes;
            }
            Key::Named(place) => TABLE.get(place).map_or(Sends::Byte(0), |(_, sends)| *sends),
        };
        match (sends, modifiers) {
            (Sends::Byte(b'\t'), _) if self.shift => {
                bytes.extend(self.alt.then_some(0x1b));
                bytes.extend_from_slice(b"\x1b[Z");
            }
            (Sends::Byte(byte), _) => {
                bytes.extend(self.alt.then_some(0x1b));
                // Ctrl and Backspace delete a word in many shells.
                bytes.push(if self.ctrl && byte == 0x7f { 0x08 } else { byte });
            }
            (Sends::Cursor(letter), 1) => bytes.extend([0x1b, if application { b'O' } else { b'[' }, letter]),
            (Sends::Function(letter), 1) => bytes.extend([0x1b, b'O', letter]),
            (Sends::Cursor(letter) | Sends::Function(letter), held) => {
                bytes.extend(format!("\x1b[1;{held}{}", char::from(letter)).into_bytes());
            }
            (Sends::Number(number), 1) => bytes.extend(format!("\x1b[{number}~").into_bytes()),
            (Sends::Number(number), held) => bytes.extend(format!("\x1b[{number};{held}~").into_bytes()),
        }
        bytes
    }
}

/// The byte of Ctrl and a character, where there is one.
fn control(character: char) -> Option<u8> {
    let byte = u8::try_from(character).ok()?;
    match byte {
        b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_' => Some(byte & 0x1f),
        b' ' => Some(0),
        b'/' => Some(0x1f),
        b'?' => Some(0x7f),
        _ => None,
    }
}

impl FromStr for KeyPress {
    type Err = AppError;

    /// # Errors
    /// [`AppError::UnknownKey`] if there is no such key, or no terminal sends it with these modifiers: Shift with a
    /// character (write the character that it makes), or Ctrl with a character that has no control code.
    fn from_str(text: &str) -> Result<Self, AppError> {
        let (mut rest, mut held) = (text, [false; 3]);
        while let Some((place, after)) = ["ctrl+", "alt+", "shift+"]
            .iter()
            .enumerate()
            .find_map(|(place, name)| rest.strip_prefix(name).map(|after| (place, after)))
        {
            match held.get_mut(place) {
                Some(modifier @ false) => *modifier = true,
                _ => return Err(AppError::UnknownKey),
            }
            rest = after;
        }
        let [ctrl, alt, shift] = held;
        let mut characters = rest.chars();
        let key = match (characters.next(), characters.next()) {
            (Some(character), None) => Key::Character(character),
            _ if rest == SPACE => Key::Character(' '),
            _ => {
                let place = TABLE.iter().position(|(name, _)| *name == rest);
                Key::Named(place.ok_or(AppError::UnknownKey)?)
            }
        };
        match key {
            Key::Character(character)
                if character.is_control() || shift || (ctrl && control(character).is_none()) =>
            {
                Err(AppError::UnknownKey)
            }
            key => Ok(Self { key, ctrl, alt, shift }),
        }
    }
}

impl fmt::Display for KeyPress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (held, name) in [(self.ctrl, "ctrl+"), (self.alt, "alt+"), (self.shift, "shift+")] {
            if held {
                f.write_str(name)?;
            }
        }
        match self.key {
            Key::Character(' ') => f.write_str(SPACE),
            Key::Character(character) => write!(f, "{character}"),
            Key::Named(place) => f.write_str(TABLE.get(place).map_or("", |(name, _)| name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(text: &str) -> Vec<u8> {
        text.parse::<KeyPress>().unwrap().to_bytes(false)
    }

    #[test]
    fn keys_send_what_a_terminal_sends() {
        for (text, bytes) in [
            ("a", "a"),
            ("A", "A"),
            ("ä", "ä"),
            ("alt+x", "\x1bx"),
            ("ctrl+c", "\x03"),
            ("ctrl+space", "\0"),
            ("ctrl+alt+[", "\x1b\x1b"),
            ("+", "+"),
            ("alt++", "\x1b+"),
            ("enter", "\r"),
            ("shift+tab", "\x1b[Z"),
            ("ctrl+backspace", "\x08"),
            ("escape", "\x1b"),
            ("up", "\x1b[A"),
            ("ctrl+right", "\x1b[1;5C"),
            ("shift+f1", "\x1b[1;2P"),
            ("f1", "\x1bOP"),
            ("f12", "\x1b[24~"),
            ("ctrl+alt+shift+delete", "\x1b[3;8~"),
        ] {
            assert_eq!(sent(text), bytes.as_bytes(), "{text}");
        }
        assert_eq!("left".parse::<KeyPress>().unwrap().to_bytes(true), b"\x1bOD");
        assert_eq!("alt+left".parse::<KeyPress>().unwrap().to_bytes(true), b"\x1b[1;3D");
    }

    #[test]
    fn every_name_with_every_modifier_reads_as_itself_and_no_two_cursor_or_function_keys_are_one() {
        let mut seen = std::collections::BTreeMap::new();
        for name in KeyPress::names() {
            for modifiers in
                ["", "ctrl+", "alt+", "shift+", "ctrl+alt+", "ctrl+shift+", "alt+shift+", "ctrl+alt+shift+"]
            {
                let text = format!("{modifiers}{name}");
                let Ok(key) = text.parse::<KeyPress>() else {
                    assert!(name == SPACE && text.contains("shift"), "{text}");
                    continue;
                };
                assert_eq!(key.to_string(), text);
                let bytes = key.to_bytes(false);
                assert!((1..=8).contains(&bytes.len()), "{text}");
                if bytes.len() > 4 {
                    assert_eq!(seen.insert(bytes, text.clone()), None, "{text}");
                }
            }
        }
    }

    #[test]
    fn what_no_terminal_sends_is_no_key() {
        for text in [
            "",
            "ctrl",
            "ctrl+",
            "shift+a",
            "ctrl+A",
            "ctrl+5",
            "ctrl+ctrl+c",
            "F1",
            "f13",
            "ab",
            "\x1b",
            "ctrl+ä",
        ] {
            assert_eq!(text.parse::<KeyPress>(), Err(AppError::UnknownKey), "{text:?}");
        }
    }
}
