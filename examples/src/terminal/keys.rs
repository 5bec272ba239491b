//! What a person types at a viewer: keys for the session, and the one key that is the viewer's own, Ctrl-].
//!
//! Depending on the mode that the session has set, a terminal sends Ctrl-] as one byte, in kitty's encoding or in
//! xterm's for modified keys. A paste may contain the byte: it is no key there.

/// Ctrl-] as terminals have always sent it.
pub const CTRL_BRACKET: u8 = 0x1d;

const ESCAPE: u8 = 0x1b;
/// The key's character.
const BRACKET: u32 = 93;
/// Ctrl among the modifiers, which are sent plus one.
const CTRL: u32 = 4;
/// Caps Lock and Num Lock, which do not make another key.
const LOCKS: u32 = 64 | 128;
/// The event type of a key that is let go.
const RELEASE: u32 = 3;
/// Longest sequence that is held back to be recognised.
const LONGEST: usize = 64;

/// What was typed, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// For the session.
    Bytes(Vec<u8>),
    /// Ctrl-].
    Leader,
}

/// Tells Ctrl-] from everything else. A sequence may come in several pieces: what may become Ctrl-] or the edge of a
/// paste is held back until the next piece or [`Keys::flush`].
#[derive(Debug, Clone, Default)]
pub struct Keys {
    held: Vec<u8>,
    pasting: bool,
}

impl Keys {
    /// Reads what was typed. The edges of a paste are passed on only if the session wants them.
    pub fn feed(&mut self, bytes: &[u8], brackets: bool) -> Vec<Typed> {
        let mut typed = Vec::new();
        for byte in bytes {
            self.step(*byte, brackets, &mut typed);
        }
        typed
    }

    /// Whether something is held back. A person's Escape key is: pass it on after a moment.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Passes on what was held back.
    pub fn flush(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    fn step(&mut self, byte: u8, brackets: bool, typed: &mut Vec<Typed>) {
        match (self.held.as_slice(), byte) {
            (_, ESCAPE) => {
                pass(&self.flush(), typed);
                self.held.push(byte);
            }
            ([], CTRL_BRACKET) if !self.pasting => typed.push(Typed::Leader),
            ([], _) => pass(&[byte], typed),
            ([ESCAPE], b'[') => self.held.push(byte),
            ([ESCAPE, b'[', parameters @ ..], 0x20..=0x3f) if parameters.len() < LONGEST => {
                self.held.push(byte)
            }
            ([ESCAPE, b'[', parameters @ ..], b'u' | b'~') => {
                let (own, edge) = (own_key(parameters, byte), paste_edge(parameters, byte));
                let mut sequence = self.flush();
                sequence.push(byte);
                match (self.pasting, own, edge) {
                    (_, _, Some(begins)) => {
                        self.pasting = begins;
                        if brackets {
                            pass(&sequence, typed);
                        }
                    }
                    (false, Some(true), None) => typed.push(Typed::Leader),
                    // Its press was not passed on either.
                    (false, Some(false), None) => {}
                    _ => pass(&sequence, typed),
                }
            }
            // An Alt key's Escape, and then the key.
            (_, CTRL_BRACKET) if !self.pasting => {
                pass(&self.flush(), typed);
                typed.push(Typed::Leader);
            }
            _ => {
                self.held.push(byte);
                pass(&self.flush(), typed);
            }
        }
    }
}

fn pass(bytes: &[u8], typed: &mut Vec<Typed>) {
    match typed.last_mut() {
        _ if bytes.is_empty() => {}
        Some(Typed::Bytes(before)) => before.extend_from_slice(bytes),
        _ => typed.push(Typed::Bytes(bytes.to_vec())),
    }
}

/// Whether a paste begins or ends here, if it does either.
fn paste_edge(parameters: &[u8], last: u8) -> Option<bool> {
    match (parameters, last) {
        (b"200", b'~') => Some(true),
        (b"201", b'~') => Some(false),
        _ => None,
    }
}

/// Whether Ctrl-] is pressed, or let go; nothing for every other key.
fn own_key(parameters: &[u8], last: u8) -> Option<bool> {
    let text = std::str::from_utf8(parameters).ok()?;
    let fields: Vec<Vec<u32>> = text
        .split(';')
        .map(|field| field.split(':').map(|number| number.parse().unwrap_or_default()).collect())
        .collect();
    let (keys, modifiers) = match (fields.as_slice(), last) {
        // kitty: the key and its alternatives; modifiers and the type of the event; text.
        ([keys, modifiers, ..], b'u') => (keys, modifiers),
        // xterm: 27, modifiers, the key.
        ([number, modifiers, keys], b'~') if number.first() == Some(&27) => (keys, modifiers),
        _ => return None,
    };
    let held = modifiers.first().copied().unwrap_or_default().checked_sub(1)? & !LOCKS;
    let own = held == CTRL && keys.contains(&BRACKET);
    own.then(|| modifiers.get(1) != Some(&RELEASE))
}

/// The character of the first key in what was typed, where it is a plain one: for a prompt that waits for one key.
/// `None` where it is none, or only a key that is let go.
pub fn first_key(bytes: &[u8]) -> Option<char> {
    match bytes {
        [ESCAPE, b'[', rest @ ..] => {
            let end = rest.iter().position(|byte| !(0x20..=0x3f).contains(byte))?;
            let (parameters, last) = (rest.get(..end)?, *rest.get(end)?);
            let text = std::str::from_utf8(parameters).ok()?;
            let mut fields = text.split(';');
            let (key, modifiers) = match (last, fields.next()?) {
                (b'u', key) => (key, fields.next().unwrap_or("1")),
                (b'~', "27") => {
                    let modifiers = fields.next()?;
                    (fields.next()?, modifiers)
                }
                // Any other key leaves a prompt.
                _ => return Some('\u{1b}'),
            };
            let released = modifiers.split(':').nth(1).is_some_and(|event| event == "3");
            let code: u32 = key.split(':').next()?.parse().ok()?;
            // The keys that only modify others.
            let alone = (57_441..=57_454).contains(&code) || (57_358..=57_360).contains(&code);
            if released || alone { None } else { char::from_u32(code) }
        }
        [first, ..] => Some(char::from(*first)),
        [] => None,
    }
}
