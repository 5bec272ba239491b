//! What a session's terminal shows: an emulator that is given all of its output.

use std::num::NonZeroU16;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::scan::Told;

/// Most cells of a terminal that is pictured, each of about 32 bytes, twice.
const MAX_CELLS: u32 = 128 * 1024;
/// Longest picture. A message of the session profile holds it.
const MAX_PICTURE: usize = 1024 * 1024 - 1024;
/// Ends whatever sequence a viewer's terminal is in the middle of, takes every mode back that a program may have set,
/// and clears it. What has scrolled out of it stays.
const CLEAR: &str = "\x18\x1b[?1049l\x1b[0m\x1b[r\x1b[?6l\x1b[4l\x1b[?7h\x1b(B\x0f\x1b>\x1b[?1l\x1b[?9l\x1b[?1000l\x1b[?1002l\
    \x1b[?1003l\x1b[?1004l\x1b[?1005l\x1b[?1006l\x1b[?2004l\x1b[=0;1u\x1b[0 q\x1b[H\x1b[2J";

/// Draws what it was given.
pub trait Emulator: Send {
    /// Takes output.
    fn process(&mut self, output: &[u8]);
    /// Changes its size.
    fn resize(&mut self, columns: NonZeroU16, rows: NonZeroU16);
    /// Output that draws the present state on a cleared terminal: with colours, or without.
    fn draw(&mut self, colours: bool) -> String;
    /// Row and column of the cursor, from 0.
    fn cursor(&self) -> (u16, u16);
}

/// The picture of a terminal. It reads what programs write, so anything may be in that: an emulator that panics ends
/// the picture, and nothing else.
pub struct Picture {
    emulator: Option<Box<dyn Emulator>>,
    make: fn(NonZeroU16, NonZeroU16) -> Box<dyn Emulator>,
    modes: Modes,
}

/// What the emulator does not tell.
#[derive(Debug, Default)]
struct Modes {
    /// First and last line of the scrolling region.
    region: Option<(u16, u16)>,
    origin: bool,
    no_wrap: bool,
    insert: bool,
    focus: bool,
}

impl Picture {
    /// A picture of an empty terminal.
    pub fn new(columns: u16, rows: u16) -> Self {
        Self::with(|columns, rows| Box::new(Vt(vt100::Parser::new(rows, columns, 0))), columns, rows)
    }

    /// With another emulator.
    pub fn with(make: fn(NonZeroU16, NonZeroU16) -> Box<dyn Emulator>, columns: u16, rows: u16) -> Self {
        let mut picture = Self { emulator: None, make, modes: Modes::default() };
        picture.begin(columns, rows);
        picture
    }

    fn begin(&mut self, columns: u16, rows: u16) {
        let make = self.make;
        self.emulator = size(columns, rows)
            .and_then(|(columns, rows)| catch_unwind(AssertUnwindSafe(|| make(columns, rows))).ok());
    }

    /// Takes output. It must end with a whole character and a whole control sequence.
    pub fn process(&mut self, output: &[u8]) {
        self.guarded(|emulator| emulator.process(output));
    }

    /// Takes note of what a program told with the output before.
    pub fn note(&mut self, told: &Told) {
        match told {
            Told::Reset => self.modes = Modes::default(),
            Told::Set(sequence) => self.modes.set(sequence),
            _ => {}
        }
    }

    /// Follows the terminal to another size. A terminal that was too large begins with an empty picture.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.modes.region = None;
        match (size(columns, rows), &self.emulator) {
            (Some((columns, rows)), Some(_)) => {
                self.guarded(|emulator| emulator.resize(columns, rows));
            }
            _ => self.begin(columns, rows),
        }
    }

    /// Output that clears a terminal and draws what this one shows: only the clearing if there is no picture.
    pub fn screen(&mut self) -> Vec<u8> {
        let fits = |drawn: &String| drawn.len() <= MAX_PICTURE;
        let drawn = self.guarded(|emulator| emulator.draw(true)).filter(fits);
        let drawn = drawn.or_else(|| self.guarded(|emulator| emulator.draw(false)).filter(fits));
        let cursor = self.guarded(|emulator| emulator.cursor()).unwrap_or_default();
        [CLEAR, drawn.as_deref().unwrap_or_default(), &self.modes.draw(cursor)].concat().into_bytes()
    }

    fn guarded<T>(&mut self, work: impl FnOnce(&mut dyn Emulator) -> T) -> Option<T> {
        let emulator = self.emulator.as_deref_mut()?;
        let done = catch_unwind(AssertUnwindSafe(|| work(emulator))).ok();
        if done.is_none() {
            self.emulator = None;
        }
        done
    }
}

impl Modes {
    fn set(&mut self, sequence: &[u8]) {
        let Ok(sequence) = std::str::from_utf8(sequence) else { return };
        let (private, rest) = match sequence.strip_prefix('?') {
            Some(rest) => (true, rest),
            None => (false, sequence),
        };
        let Some((at, end)) = rest.char_indices().next_back() else { return };
        let (parameters, _) = rest.split_at(at);
        let mut numbers = parameters.split(';').map(|number| number.parse::<u16>().unwrap_or(0));
        if end == 'r' {
            let (first, last) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            if !private {
                self.region = (first > 1 || last > 0).then_some((first, last));
            }
            return;
        }
        for number in numbers {
            match (private, number) {
                (true, 6) => self.origin = end == 'h',
                (true, 7) => self.no_wrap = end == 'l',
                (true, 1004) => self.focus = end == 'h',
                (false, 4) => self.insert = end == 'h',
                _ => {}
            }
        }
    }

    /// Sets them, with the cursor where it is: a region and its origin move it.
    fn draw(&self, (row, column): (u16, u16)) -> String {
        let mut drawn = String::new();
        let mut first = 0;
        if let Some((top, bottom)) = self.region {
            first = if self.origin { top.saturating_sub(1) } else { 0 };
            let bottom = if bottom == 0 { String::new() } else { bottom.to_string() };
            drawn.push_str(&format!("\x1b[{};{bottom}r", top.max(1)));
        }
        for (set, sequence) in [
            (self.origin, "\x1b[?6h"),
            (self.no_wrap, "\x1b[?7l"),
            (self.insert, "\x1b[4h"),
            (self.focus, "\x1b[?1004h"),
        ] {
            drawn.push_str(if set { sequence } else { "" });
        }
        if self.region.is_some() || self.origin {
            let row = row.saturating_sub(first).saturating_add(1);
            drawn.push_str(&format!("\x1b[{row};{}H", column.saturating_add(1)));
        }
        drawn
    }
}

fn size(columns: u16, rows: u16) -> Option<(NonZeroU16, NonZeroU16)> {
    let cells = u32::from(columns).saturating_mul(rows.into());
    (cells <= MAX_CELLS).then_some(())?;
    NonZeroU16::new(columns).zip(NonZeroU16::new(rows))
}

struct Vt(vt100::Parser);

impl Emulator for Vt {
    fn process(&mut self, output: &[u8]) {
        self.0.process(output);
    }

    fn resize(&mut self, columns: NonZeroU16, rows: NonZeroU16) {
        self.0.set_size(rows, columns);
    }

    fn cursor(&self) -> (u16, u16) {
        self.0.screen().cursor_position()
    }

    fn draw(&mut self, colours: bool) -> String {
        let contents = |screen: &vt100::Screen| match colours {
            true => screen.contents_formatted(),
            false => {
                let (row, column) = screen.cursor_position();
                let rows: Vec<_> = screen.rows(0, u16::MAX).collect();
                let cursor = (row.saturating_add(1), column.saturating_add(1));
                format!("{}\x1b[{};{}H", rows.join("\r\n"), cursor.0, cursor.1)
            }
        };
        let mut drawn = String::new();
        if self.0.screen().alternate_screen() {
            // What is below the alternate screen comes back when the program leaves it.
            self.0.process(b"\x1b[?47l");
            drawn = contents(self.0.screen());
            self.0.process(b"\x1b[?47h");
            drawn.push_str("\x1b[?1049h");
        }
        drawn.push_str(&contents(self.0.screen()));
        drawn.push_str(&self.0.screen().input_mode_formatted());
        drawn
    }
}
