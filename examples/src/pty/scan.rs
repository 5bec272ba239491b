//! Reads a session's output as it comes: cuts it where a character or a control sequence ends, takes clipboard writes
//! out of it, and notes what programs tell the viewer.
//!
//! What is passed on always ends with a whole character and a whole sequence, so that a viewer who begins there begins
//! in the middle of nothing. It holds back at most [`LONGEST`] bytes: a control string that becomes longer is ended.

/// Longest control string, such as a picture.
const LONGEST: usize = 256 * 1024;
/// Longest clipboard write that those get who ask for such.
const LONGEST_CLIPBOARD: usize = 64 * 1024;
/// Longest other sequence, which no program needs.
const LONGEST_SEQUENCE: usize = 256;
/// After how many bytes a control string has said what it is.
const HEAD: usize = 64;
/// Ends whatever sequence a terminal is in the middle of.
const CAN: u8 = 0x18;
const SUB: u8 = 0x1a;
const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;

/// What a program tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// BEL outside a control string.
    Bell,
    /// A text for the user.
    Notification(String),
    /// The session waits for a person.
    Prompt,
    /// The exit status, or -1 if the shell named none.
    CommandEnded(i32),
    /// A mode or the scrolling region was set: the sequence without its introducer.
    Set(Vec<u8>),
    /// All modes are as they were at the beginning.
    Reset,
}

/// What has come out of some output.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// What every viewer gets.
    pub shown: Vec<u8>,
    /// Clipboard writes, each with how many bytes of `shown` come before it.
    pub clipboard: Vec<(usize, Vec<u8>)>,
    /// What was told, likewise.
    pub told: Vec<(usize, Told)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    /// In a character of which this many bytes are still to come.
    Character(u8),
    Escape,
    Csi,
    /// After a C1 introducer of a control string, which some terminals know: clipboard write or text.
    Probe,
    Osc,
    /// Another control string.
    Other,
    /// After an ESC in a control string.
    MaybeEnd {
        osc: bool,
    },
}

/// Reads output. One for each session.
#[derive(Debug, Default)]
pub struct Scanner {
    state: State,
    /// The unfinished character or sequence.
    held: Vec<u8>,
    /// Whether the sequence is a clipboard write, which is taken out.
    clipboard: bool,
    /// Whether it has broken off another one, which a terminal is still in the middle of.
    broke_off: bool,
    /// Set after a mark of a prompt's beginning, until its end or other output.
    prompt: bool,
    /// Whether the prompt was told.
    prompted: bool,
}

impl Scanner {
    /// Reads the next output.
    pub fn read(&mut self, output: &[u8]) -> Scanned {
        let mut scanned = Scanned::default();
        let mut rest = output;
        while let Some((byte, after)) = rest.split_first() {
            let plain = match self.state {
                State::Ground => rest.iter().take_while(|byte| (b' '..0x7f).contains(*byte)).count(),
                _ => 0,
            };
            match rest.split_at_checked(plain) {
                Some((text, after)) if plain > 1 => {
                    if self.prompt && text.iter().any(|byte| *byte != b' ') {
                        self.text(&mut scanned);
                    }
                    scanned.shown.extend_from_slice(text);
                    rest = after;
                }
                _ => {
                    self.take(*byte, &mut scanned);
                    rest = after;
                }
            }
        }
        scanned
    }

    /// What was held back, after the last output.
    pub fn finish(&mut self) -> Scanned {
        let mut scanned = Scanned::default();
        // A clipboard write without an end is one all the same: whatever the viewer's terminal gets next ends it.
        self.break_off(&mut scanned);
        scanned
    }

    fn take(&mut self, byte: u8, scanned: &mut Scanned) {
        match self.state {
            State::Ground => self.begin(byte, scanned),
            State::Character(left) => match byte {
                0x80..=0xbf => {
                    self.held.push(byte);
                    match left {
                        1 if self.held == [0xc2, 0x9d] => self.state = State::Probe,
                        1 => {
                            self.text(scanned);
                            self.flush(scanned);
                        }
                        _ => self.state = State::Character(left.saturating_sub(1)),
                    }
                }
                _ => self.again(byte, scanned),
            },
            State::Escape => self.escape(byte, scanned),
            State::Csi => self.csi(byte, scanned),
            State::Probe => match byte {
                b'0'..=b'9' | b';' if self.held.len() < HEAD => {
                    self.held.push(byte);
                    if byte == b';' {
                        match is_clipboard(&self.held) {
                            true => (self.state, self.clipboard) = (State::Osc, true),
                            false => self.flush(scanned),
                        }
                    }
                }
                0..ESC if !matches!(byte, BEL | CAN | SUB | b'\n' | b'\r') && self.held.len() < HEAD => {
                    self.held.push(byte);
                }
                _ => self.again(byte, scanned),
            },
            State::Osc | State::Other => self.string(byte, scanned),
            State::MaybeEnd { osc } if byte == b'\\' => {
                self.held.push(byte);
                self.end_string(osc, scanned);
            }
            State::MaybeEnd { .. } => {
                // The ESC begins another sequence.
                self.held.pop();
                self.break_off(scanned);
                self.begin(ESC, scanned);
                self.take(byte, scanned);
            }
        }
    }

    fn begin(&mut self, byte: u8, scanned: &mut Scanned) {
        self.state = match byte {
            ESC => State::Escape,
            0x9d => State::Probe,
            0xc2..=0xdf => State::Character(1),
            0xe0..=0xef => State::Character(2),
            0xf0..=0xf4 => State::Character(3),
            _ => {
                if byte > b' ' && byte != 0x7f {
                    self.text(scanned);
                }
                scanned.shown.push(byte);
                if byte == BEL {
                    scanned.told.push((scanned.shown.len(), Told::Bell));
                }
                // What it follows is over for a terminal too.
                self.broke_off &= !matches!(byte, CAN | SUB);
                return;
            }
        };
        self.held.push(byte);
    }

    fn escape(&mut self, byte: u8, scanned: &mut Scanned) {
        match byte {
            ESC => {
                self.break_off(scanned);
                self.begin(ESC, scanned);
                return;
            }
            CAN | SUB => return self.again(byte, scanned),
            _ if self.held.len() >= LONGEST_SEQUENCE || byte >= 0x80 => return self.again(byte, scanned),
            _ => self.held.push(byte),
        }
        self.state = match byte {
            b'[' if self.held.len() == 2 => State::Csi,
            b']' if self.held.len() == 2 => State::Osc,
            b'P' | b'X' | b'^' | b'_' if self.held.len() == 2 => State::Other,
            // Intermediates, and controls that are carried out meanwhile.
            0..=0x2f => State::Escape,
            _ => {
                let reset = self.held.get(1..) == Some(b"c");
                self.flush(scanned);
                if reset {
                    scanned.told.push((scanned.shown.len(), Told::Reset));
                }
                return;
            }
        };
    }

    fn csi(&mut self, byte: u8, scanned: &mut Scanned) {
        match byte {
            ESC => {
                self.break_off(scanned);
                self.begin(ESC, scanned);
            }
            CAN | SUB => self.again(byte, scanned),
            _ if self.held.len() >= LONGEST_SEQUENCE || byte >= 0x80 => self.again(byte, scanned),
            0x40..=0x7e => {
                self.held.push(byte);
                let sequence = self.held.get(2..).unwrap_or_default().to_vec();
                self.flush(scanned);
                let told = match byte {
                    b'h' | b'l' | b'r' => Told::Set(sequence),
                    b'p' if sequence == b"!p" => Told::Reset,
                    _ => return,
                };
                scanned.told.push((scanned.shown.len(), told));
            }
            _ => self.held.push(byte),
        }
    }

    fn string(&mut self, byte: u8, scanned: &mut Scanned) {
        let osc = self.state == State::Osc;
        match byte {
            ESC => {
                self.state = State::MaybeEnd { osc };
                self.held.push(byte);
            }
            BEL if osc => {
                self.held.push(byte);
                self.end_string(osc, scanned);
            }
            CAN | SUB => {
                self.break_off(scanned);
                self.begin(byte, scanned);
            }
            0x9c if self.clipboard && self.held.last() == Some(&0xc2) => {
                self.held.push(byte);
                self.end_string(osc, scanned);
            }
            _ => {
                // A long clipboard write is dropped as it comes.
                if !self.clipboard || self.held.len() <= LONGEST_CLIPBOARD {
                    self.held.push(byte);
                }
                if self.held.len() == HEAD && osc {
                    self.clipboard |= is_clipboard(&self.held);
                }
                if self.held.len() >= LONGEST && !self.clipboard {
                    self.clipboard = is_clipboard(&self.held);
                    if !self.clipboard {
                        self.held.push(CAN);
                        self.flush(scanned);
                    }
                }
            }
        }
    }

    fn end_string(&mut self, osc: bool, scanned: &mut Scanned) {
        self.clipboard |= is_clipboard(&self.held);
        let told = match osc && !self.clipboard {
            true => self.told(),
            false => None,
        };
        self.flush(scanned);
        if let Some(told) = told {
            scanned.told.push((scanned.shown.len(), told));
        }
    }

    /// What a whole operating system command tells.
    fn told(&mut self) -> Option<Told> {
        let content = content(&self.held);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if let Some(rest) = content.strip_prefix(b"9;") {
            // Progress is no notification.
            return (!rest.is_empty() && rest != b"4" && !rest.starts_with(b"4;"))
                .then(|| Told::Notification(text(rest)));
        }
        if let Some(rest) = content.strip_prefix(b"777;notify;") {
            return Some(Told::Notification(text(rest).replacen(';', ": ", 1)));
        }
        let mut fields = content.strip_prefix(b"133;")?.split(|byte| *byte == b';');
        match fields.next()? {
            b"A" => {
                (self.prompt, self.prompted) = (true, false);
                None
            }
            b"B" => {
                self.prompt = false;
                (!std::mem::replace(&mut self.prompted, true)).then_some(Told::Prompt)
            }
            b"C" => {
                (self.prompt, self.prompted) = (false, false);
                None
            }
            b"D" => {
                (self.prompt, self.prompted) = (false, false);
                let status = fields.next().and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
                Some(Told::CommandEnded(status.unwrap_or(-1)))
            }
            _ => None,
        }
    }

    /// Text comes: a prompt whose beginning was marked, and not its end, has begun.
    fn text(&mut self, scanned: &mut Scanned) {
        if std::mem::take(&mut self.prompt) {
            self.prompted = true;
            scanned.told.push((scanned.shown.len(), Told::Prompt));
        }
    }

    /// Passes what is held on as it is, and reads the byte as if nothing had come before.
    fn again(&mut self, byte: u8, scanned: &mut Scanned) {
        self.flush(scanned);
        self.begin(byte, scanned);
    }

    /// Passes an unfinished sequence on: a terminal is in the middle of it until the next one.
    fn break_off(&mut self, scanned: &mut Scanned) {
        let was = self.broke_off;
        self.clipboard |= is_clipboard(&self.held);
        let passed = !self.clipboard;
        self.flush(scanned);
        self.broke_off = passed || was;
    }

    /// Passes on what is held, unless it is a clipboard write.
    fn flush(&mut self, scanned: &mut Scanned) {
        let held = std::mem::take(&mut self.held);
        self.state = State::Ground;
        if std::mem::take(&mut self.clipboard) {
            if std::mem::take(&mut self.broke_off) {
                scanned.shown.push(CAN);
            }
            if held.len() <= LONGEST_CLIPBOARD {
                scanned.clipboard.push((scanned.shown.len(), held));
            }
        } else {
            self.broke_off = false;
            scanned.shown.extend_from_slice(&held);
        }
    }
}

/// What stands between the introducer and the end of a control string.
fn content(held: &[u8]) -> &[u8] {
    let rest = held.get(2..).unwrap_or_default();
    let rest = rest.strip_suffix(&[BEL]).unwrap_or(rest);
    rest.strip_suffix(b"\x1b\\").unwrap_or(rest)
}

/// Whether a control string writes or reads a clipboard, or has one that does inside.
fn is_clipboard(held: &[u8]) -> bool {
    let begins = |held: &[u8]| {
        // Controls inside are skipped, and zeros before the number mean nothing.
        let mut bytes = held.iter().filter(|byte| **byte >= b' ').take(HEAD).copied().peekable();
        let mut number = 0_u32;
        while let Some(digit) = bytes.next_if(u8::is_ascii_digit) {
            number = number.saturating_mul(10).saturating_add(u32::from(digit.wrapping_sub(b'0')));
        }
        let rest: Vec<u8> = bytes.take(12).collect();
        match number {
            52 | 5522 => rest.first().is_none_or(|next| *next == b';'),
            1337 => [b";Copy".as_slice(), b";EndCopy"].iter().any(|verb| rest.starts_with(verb)),
            _ => false,
        }
    };
    let introduced = |at: usize| held.get(at..).is_some_and(begins);
    match held {
        [ESC, b']', ..] | [0xc2, 0x9d, ..] if introduced(2) => true,
        [0x9d, ..] if introduced(1) => true,
        // Some terminals know the one-byte introducer in the middle of another string.
        [ESC, ..] => {
            held.iter().enumerate().any(|(at, byte)| *byte == 0x9d && introduced(at.saturating_add(1)))
        }
        _ => false,
    }
}
