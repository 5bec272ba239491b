//! Vectors of keys with modifiers, by hand from the table in section 16.4.

use sessioncap::app::KeyPress;

use super::{hex, invalid, valid};
use crate::{Fields, Files};

/// A file's name, the key's name, what it sends, and what it sends to a program that has asked for application cursor keys.
const KEYS: [(&str, &str, &str, &str); 24] = [
    ("letter", "a", "a", "a"),
    ("letter-not-ascii", "\u{e9}", "\u{e9}", "\u{e9}"),
    ("plus", "+", "+", "+"),
    ("space", "space", " ", " "),
    ("alt-letter", "alt+x", "\x1bx", "\x1bx"),
    ("alt-capital", "alt+X", "\x1bX", "\x1bX"),
    ("ctrl-letter", "ctrl+c", "\x03", "\x03"),
    ("ctrl-alt-letter", "ctrl+alt+d", "\x1b\x04", "\x1b\x04"),
    ("ctrl-space", "ctrl+space", "\0", "\0"),
    ("ctrl-bracket", "ctrl+]", "\x1d", "\x1d"),
    ("ctrl-slash", "ctrl+/", "\x1f", "\x1f"),
    ("ctrl-question-mark", "ctrl+?", "\x7f", "\x7f"),
    ("enter", "enter", "\r", "\r"),
    ("escape", "escape", "\x1b", "\x1b"),
    ("tab", "tab", "\t", "\t"),
    ("shift-tab", "shift+tab", "\x1b[Z", "\x1b[Z"),
    ("backspace", "backspace", "\x7f", "\x7f"),
    ("alt-backspace", "alt+backspace", "\x1b\x7f", "\x1b\x7f"),
    ("up", "up", "\x1b[A", "\x1bOA"),
    ("ctrl-left", "ctrl+left", "\x1b[1;5D", "\x1b[1;5D"),
    ("f4", "f4", "\x1bOS", "\x1bOS"),
    ("shift-f4", "shift+f4", "\x1b[1;2S", "\x1b[1;2S"),
    ("f11", "f11", "\x1b[23~", "\x1b[23~"),
    ("ctrl-alt-shift-delete", "ctrl+alt+shift+delete", "\x1b[3;8~", "\x1b[3;8~"),
];

const NO_KEYS: [(&str, &str); 9] = [
    ("nothing", ""),
    ("modifier-alone", "ctrl+"),
    ("modifier-twice", "alt+alt+x"),
    ("shift-and-a-character", "shift+a"),
    ("ctrl-and-a-capital", "ctrl+C"),
    ("ctrl-and-a-digit", "ctrl+5"),
    ("two-characters", "ab"),
    ("control-character", "\u{1b}"),
    ("name-in-capitals", "F1"),
];

pub fn keys(files: &mut Files) {
    for (file, name, bytes, application) in KEYS {
        let value = serde_json::json!({
            "kind": "key", "name": name, "bytes": hex(bytes.as_bytes()), "application": hex(application.as_bytes()),
        });
        valid(files, &format!("key-{file}"), value);
    }
    for (file, name) in NO_KEYS {
        let value = serde_json::json!({ "kind": "key", "input": name, "error": "unknown_key" });
        invalid(files, &format!("key-{file}"), value);
    }
}

pub fn check_key(fields: &mut Fields) {
    let name = fields.text("name");
    let key: KeyPress = name.parse().unwrap();
    assert_eq!(key.to_string(), name);
    assert_eq!(key.to_bytes(false), fields.bytes("bytes"));
    assert_eq!(key.to_bytes(true), fields.bytes("application"));
}
