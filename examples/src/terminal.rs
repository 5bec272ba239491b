//! The terminal that a program runs in.

pub mod keys;
pub mod modes;
pub mod viewer;

use std::io::{IsTerminal, Read, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{QueueSelector, tcflush};
use tokio::sync::mpsc;
use unicode_width::UnicodeWidthChar;

use super::problem::{Outcome, Problem};

/// Puts bytes on standard output at once.
pub fn print_raw(bytes: &[u8]) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|_| Problem::said("standard output is closed"))
}

/// A line on standard output. A closed output is no reason to stop.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// A line on standard error, likewise.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Whether standard output is a terminal, and may be coloured.
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Text from elsewhere, without the characters that steer a terminal or turn the order of the text around.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || rearranges(c) { '\u{fffd}' } else { c }).collect()
}

/// The marks, embeddings, overrides and isolates of two directions, and the separators of lines and paragraphs.
fn rearranges(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `30s`, `5m`, `12h`, `3d` or plain seconds.
pub fn parse_duration(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(split).unwrap_or((text, ""));
    let unit = match unit {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        _ => None,
    };
    number
        .parse::<u64>()
        .ok()
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit))
        .ok_or_else(|| "write a duration as 30s, 5m, 12h or 3d".to_owned())
}

/// The other way round, in the largest unit that fits.
pub fn show_duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h {:02} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// As much as fits, with an ellipsis at its end if there was more.
pub fn cut_to(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut room = width.saturating_sub(1);
    let fits = |c: &char| {
        let left = room.checked_sub(columns_of(*c));
        room = left.unwrap_or(0);
        left.is_some()
    };
    text.chars().take_while(fits).chain(['\u{2026}']).collect()
}

/// How many columns of a terminal a text takes.
pub fn columns(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

fn columns_of(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// Columns of the terminal behind standard output, if it is one.
pub fn width() -> Option<usize> {
    size().map(|(columns, _)| columns)
}

/// Columns and lines of the terminal behind standard output, if it is one.
pub fn size() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col.into(), size.ws_row.into()))
}

/// Whether standard output takes colours: a terminal that understands escape codes, and a user who has not asked for
/// none.
pub fn may_style() -> bool {
    let asked_for_none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb" || terminal.is_empty());
    is_terminal() && !asked_for_none && !dumb
}

/// What a person answers on standard input. What was typed before a question is no answer to it.
#[derive(Default)]
pub struct Answers {
    typed: Option<mpsc::Receiver<Vec<u8>>>,
    line: Vec<u8>,
}

/// Longest answer, bytes.
const LONGEST_ANSWER: usize = 4096;

impl Answers {
    /// Takes chunks that are read already.
    pub fn new(typed: mpsc::Receiver<Vec<u8>>) -> Self {
        Self { typed: Some(typed), line: Vec::new() }
    }

    /// Drops what was typed ahead. Call it right before a question is shown.
    pub fn forget(&mut self) {
        self.line.clear();
        match &mut self.typed {
            // The thread that reads may have taken some of it.
            Some(typed) => while typed.try_recv().is_ok() {},
            None => drain(),
        }
        // Only a terminal has such a queue.
        let _ = tcflush(std::io::stdin(), QueueSelector::IFlush);
    }

    /// The next line; `None` at the end of the input. Cancel-safe.
    pub async fn next(&mut self) -> Option<String> {
        let typed = self.typed.get_or_insert_with(read_stdin);
        loop {
            if let Some(end) = self.line.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
                let line = self.line.drain(..=end).collect::<Vec<_>>();
                return Some(String::from_utf8_lossy(&line).trim().to_owned());
            }
            if self.line.len() > LONGEST_ANSWER {
                return None;
            }
            self.line.extend(typed.recv().await?);
        }
    }
}

/// Reads and drops what is there already, of a terminal or a pipe.
fn drain() {
    let mut buffer = [0; 4096];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    // Bounded, for an input without end.
    for _ in 0..256 {
        let stdin = std::io::stdin();
        let ready = poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&at_once));
        if !matches!(ready, Ok(1..)) || !matches!(rustix::io::read(&stdin, &mut buffer), Ok(1..)) {
            return;
        }
    }
}

/// Whether the next line of standard input says yes.
pub async fn says_yes(answers: &mut Answers) -> bool {
    matches!(answers.next().await.as_deref(), Some("y" | "Y" | "yes"))
}

/// Lines of standard input.
pub struct Lines {
    chunks: mpsc::Receiver<Vec<u8>>,
    read: Vec<u8>,
    most: usize,
}

impl Lines {
    /// Lines of at most `most` bytes.
    pub fn of_stdin(most: usize) -> Self {
        Self { chunks: read_stdin(), read: Vec::new(), most }
    }

    /// The next line, without its end; `None` at the end of standard input, or after a line that is too long.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let rest = self.read.split_off(end.saturating_add(1));
                let mut line = std::mem::replace(&mut self.read, rest);
                line.truncate(end);
                return Some(line);
            }
            if self.read.len() > self.most {
                return None;
            }
            match self.chunks.recv().await {
                Some(chunk) => self.read.extend(chunk),
                None if self.read.is_empty() => return None,
                None => return Some(std::mem::take(&mut self.read)),
            }
        }
    }
}

/// Standard input, chunk by chunk, from a thread of its own: a read cannot be called off.
pub fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 4096];
        while let Ok(length @ 1..) = std::io::stdin().lock().read(&mut buffer) {
            let chunk = buffer.get(..length).unwrap_or_default().to_vec();
            if sender.blocking_send(chunk).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_elsewhere_neither_steers_the_terminal_nor_turns_around() {
        assert_eq!(harmless("a\u{1b}[2Jb\u{9b}c\nd\u{202e}e\u{2066}f\u{2028}g"), "a�[2Jb�c�d�e�f�g");
        assert_eq!(harmless("שלום, é 👨‍👩‍👧"), "שלום, é 👨‍👩‍👧");
    }
}
