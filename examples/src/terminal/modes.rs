//! The modes that a session has set in its viewer's terminal, and what undoes them.
//!
//! A session's program may end, or its viewer leave, at any byte. What it switched on is read from the bytes that the
//! viewer has shown, so that only that is switched off: some of the sequences that undo a mode move the cursor.

use std::collections::BTreeMap;

/// Longest parameters that are read. Longer sequences set no mode that this module knows.
const LONGEST: usize = 128;
/// Private modes that are remembered at most.
const MOST: usize = 256;
/// Deepest stack of keyboard flags.
const DEEPEST: u16 = 64;

/// Private modes that are on in a terminal that nobody has changed: wrapping, repeating keys, the cursor, and what
/// xterm does with the Alt key.
const ON_BY_DEFAULT: [u16; 6] = [7, 8, 25, 1034, 1035, 1036];
/// The screens that a program can draw on beside the usual one.
const ALTERNATE: [u16; 3] = [47, 1047, 1049];
/// A paste is bracketed.
const PASTE: u16 = 2004;
/// The cursor counts from the scrolling region, and goes home when that changes.
const ORIGIN: u16 = 6;

/// Ends whatever sequence the terminal is in.
const ABORT: &str = "\x18\x1b\\";
/// What is undone in any case, because it shows nothing where it was not set: the end of a synchronised update, mouse
/// reports, focus reports, pastes in brackets, application keys, character sets, colours, and the hidden cursor.
const ALWAYS: &str = "\x1b[?2026l\x1b[?9l\x1b[?1000l\x1b[?1001l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1005l\x1b[?1006l\
                      \x1b[?1015l\x1b[?1016l\x1b[?2004l\x1b[?1l\x1b>\x0f\x1b(B\x1b[4l\x1b[?7h\x1b[0m\x1b[?25h";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ground,
    /// After the first byte of a C1 control in UTF-8.
    Utf8,
    Escape,
    /// In an escape sequence with intermediate bytes.
    Intermediate,
    Csi,
    /// In an operating system command, which may end in BEL.
    Osc,
    OscEscape,
    /// In another control string.
    Text,
    TextEscape,
}

/// Reads a terminal's output, and remembers what has to be undone.
#[derive(Debug, Clone)]
pub struct Modes {
    state: State,
    collected: Vec<u8>,
    /// The last value of each private mode that was changed.
    private: BTreeMap<u16, bool>,
    /// Pushed keyboard flags of the usual screen and the other one, and whether flags were set without a push.
    kitty: [(u16, bool); 2],
    /// xterm's options for modified keys.
    modified_keys: BTreeMap<u16, ()>,
    hyperlink: bool,
    colours: bool,
    cursor_style: bool,
    region: bool,
    line_feed: bool,
    locator: bool,
    progress: bool,
    /// Whether brackets around pastes were switched off since that was last asked.
    brackets_off: bool,
}

impl Default for Modes {
    fn default() -> Self {
        Self {
            state: State::Ground,
            collected: Vec::new(),
            private: BTreeMap::new(),
            kitty: [(0, false); 2],
            modified_keys: BTreeMap::new(),
            hyperlink: false,
            colours: false,
            cursor_style: false,
            region: false,
            line_feed: false,
            locator: false,
            progress: false,
            brackets_off: false,
        }
    }
}

impl Modes {
    /// Reads output that the terminal gets.
    pub fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.state = self.step(*byte);
        }
    }

    /// Whether the session wants pastes in brackets.
    pub fn brackets_pastes(&self) -> bool {
        self.is_on(PASTE)
    }

    /// Whether the output has switched brackets around pastes off since the last call.
    pub fn took_brackets(&mut self) -> bool {
        std::mem::take(&mut self.brackets_off)
    }

    /// Whether the session draws on the other screen.
    pub fn on_alternate_screen(&self) -> bool {
        ALTERNATE.iter().any(|mode| self.is_on(*mode))
    }

    fn is_on(&self, mode: u16) -> bool {
        self.private.get(&mode).copied().unwrap_or(ON_BY_DEFAULT.contains(&mode))
    }

    /// Whether the output is between two sequences.
    pub fn is_between(&self) -> bool {
        self.state == State::Ground
    }

    /// Ends a sequence that the output broke off in; nothing between sequences.
    pub fn abort(&mut self) -> &'static str {
        match std::mem::replace(&mut self.state, State::Ground) {
            State::Ground => "",
            _ => ABORT,
        }
    }

    /// What makes the terminal as it was before the session's output.
    pub fn undo(&mut self) -> String {
        let mut text = self.abort().to_owned();
        let alternate = usize::from(self.on_alternate_screen());
        text += &self.keyboard(alternate);
        for mode in ALTERNATE {
            if self.is_on(mode) {
                text += &format!("\x1b[?{mode}l");
            }
        }
        if alternate == 1 {
            text += &self.keyboard(0);
        }
        let place = self.region || self.is_on(ORIGIN);
        for (mode, on) in &self.private {
            let usual = ON_BY_DEFAULT.contains(mode);
            if *on != usual && !ALTERNATE.contains(mode) {
                text += &format!("\x1b[?{mode}{}", if usual { 'h' } else { 'l' });
            }
        }
        if place {
            // Both moved the cursor home.
            text += "\x1b[r\x1b[999;1H";
        }
        for option in self.modified_keys.keys() {
            text += &format!("\x1b[>{option}m");
        }
        for (set, undone) in [
            (self.line_feed, "\x1b[20l"),
            (self.locator, "\x1b[0'z"),
            (self.cursor_style, "\x1b[0 q"),
            (self.hyperlink, "\x1b]8;;\x1b\\"),
            (self.progress, "\x1b]9;4;0\x1b\\"),
            (self.colours, "\x1b]104\x1b\\\x1b]110\x1b\\\x1b]111\x1b\\\x1b]112\x1b\\"),
        ] {
            if set {
                text += undone;
            }
        }
        text += ALWAYS;
        *self = Self::default();
        text
    }

    fn keyboard(&self, screen: usize) -> String {
        match self.kitty.get(screen) {
            Some((0, false)) | None => String::new(),
            Some((0, true)) => "\x1b[=0u".to_owned(),
            Some((pushed, false)) => format!("\x1b[<{pushed}u"),
            Some((pushed, true)) => format!("\x1b[<{pushed}u\x1b[=0u"),
        }
    }

    fn step(&mut self, byte: u8) -> State {
        match (self.state, byte) {
            (State::Osc, 0x07) => self.command(),
            (State::Osc, 0x1b) => State::OscEscape,
            (State::OscEscape, b'\\') => self.command(),
            (State::Text, 0x1b) => State::TextEscape,
            (State::TextEscape, b'\\') | (_, 0x18 | 0x1a) => State::Ground,
            (State::Osc, _) => {
                self.collect(byte);
                State::Osc
            }
            (State::Text, _) => State::Text,
            (_, 0x1b) => State::Escape,
            (State::OscEscape | State::TextEscape | State::Escape, _) => self.escape(byte),
            (State::Csi, 0x20..=0x3f) => {
                self.collect(byte);
                State::Csi
            }
            (State::Csi, 0x40..=0x7e) => {
                self.control(byte);
                State::Ground
            }
            (State::Intermediate, 0x30..=0x7e) => State::Ground,
            // Controls inside a sequence act, and do not end it.
            (State::Csi | State::Intermediate, _) => self.state,
            (State::Ground, 0xc2) => State::Utf8,
            (State::Utf8, 0x90 | 0x98 | 0x9e | 0x9f) => State::Text,
            (State::Utf8, 0x9b) => self.begin(State::Csi),
            (State::Utf8, 0x9d) => self.begin(State::Osc),
            (State::Utf8, 0xc2) => State::Utf8,
            (State::Ground | State::Utf8, _) => State::Ground,
        }
    }

    fn begin(&mut self, state: State) -> State {
        self.collected.clear();
        state
    }

    fn collect(&mut self, byte: u8) {
        if self.collected.len() < LONGEST {
            self.collected.push(byte);
        }
    }

    fn escape(&mut self, byte: u8) -> State {
        match byte {
            b'[' => self.begin(State::Csi),
            b']' => self.begin(State::Osc),
            b'P' | b'X' | b'^' | b'_' => State::Text,
            b'c' => {
                *self = Self { brackets_off: true, ..Self::default() };
                State::Ground
            }
            0x20..=0x2f => State::Intermediate,
            0x1b => State::Escape,
            _ => State::Ground,
        }
    }

    /// A control sequence, at its last byte.
    fn control(&mut self, last: u8) {
        let text = String::from_utf8_lossy(&self.collected).into_owned();
        let prefix = text.chars().next().filter(|c| matches!(c, '?' | '>' | '<' | '='));
        let rest = text.trim_start_matches(['?', '>', '<', '=']);
        let plain = rest.trim_end_matches(|c: char| matches!(c, ' '..='/'));
        let between = rest.get(plain.len()..).unwrap_or_default();
        let mut numbers = plain.split([';', ':']).map(|number| number.parse::<u16>().ok());
        match (prefix, between, last) {
            (Some('?'), "", b'h' | b'l' | b'r') => {
                // Which value a mode is restored to is not known; a terminal's usual one is undone to in any case.
                let on = last != b'l';
                for mode in numbers.flatten() {
                    self.brackets_off |= mode == PASTE && !on;
                    if self.private.len() < MOST || self.private.contains_key(&mode) {
                        self.private.insert(mode, on);
                    }
                }
            }
            (None, "", b'h' | b'l') if numbers.any(|number| number == Some(20)) => {
                self.line_feed = last == b'h';
            }
            (None, "", b'r') => self.region = numbers.any(|number| number.is_some()),
            (None, " ", b'q') => self.cursor_style = numbers.next().flatten().unwrap_or(0) != 0,
            (None, "'", b'z') => self.locator = numbers.next().flatten().unwrap_or(0) != 0,
            (Some('>'), "", b'm' | b'n') => {
                if let Some(option @ 0..8) = numbers.next().flatten() {
                    self.modified_keys.insert(option, ());
                }
            }
            (Some(how @ ('>' | '<' | '=')), "", b'u') => {
                let screen = usize::from(self.on_alternate_screen());
                let number = numbers.next().flatten();
                if let Some((pushed, set)) = self.kitty.get_mut(screen) {
                    match how {
                        '>' => *pushed = pushed.saturating_add(1).min(DEEPEST),
                        '<' => *pushed = pushed.saturating_sub(number.unwrap_or(1)),
                        _ => *set = true,
                    }
                }
            }
            _ => {}
        }
    }

    /// An operating system command, at its end.
    fn command(&mut self) -> State {
        let text = String::from_utf8_lossy(&self.collected).into_owned();
        let (number, rest) = text.split_once(';').unwrap_or((&text, ""));
        match number {
            "8" => self.hyperlink = rest.split_once(';').is_some_and(|(_, address)| !address.is_empty()),
            "9" => {
                if let Some(progress) = rest.strip_prefix("4;") {
                    self.progress = !progress.starts_with('0');
                }
            }
            "4" | "10" | "11" | "12" if !rest.ends_with('?') => self.colours = true,
            _ => {}
        }
        State::Ground
    }
}
