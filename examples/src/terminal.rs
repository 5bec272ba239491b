//! The terminal that a program runs in.

use std::io::{BufRead, IsTerminal, Read, Write};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

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

/// Text from elsewhere, without the characters that steer a terminal.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
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

/// As many characters as fit, the last of them an ellipsis if there were more.
pub fn cut_to(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width.saturating_sub(1)).chain(['\u{2026}']).collect(),
        false => text.to_owned(),
    }
}

/// Columns of the terminal behind standard output, if it is one.
pub fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}

/// Whether the next line of standard input says yes.
pub async fn says_yes() -> bool {
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    matches!(line.await, Ok(Ok(line)) if matches!(line.trim(), "y" | "Y" | "yes"))
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

/// A terminal that passes every key on, until this is dropped.
pub struct RawMode(Termios);

impl RawMode {
    /// `None` if standard input is no terminal.
    pub fn enter() -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A closed terminal needs no repair.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
