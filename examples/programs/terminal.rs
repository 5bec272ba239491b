//! What the programs share of the terminal they run in.

use std::io::{IsTerminal, Write};

use super::problem::{Outcome, Problem};

/// Puts bytes on standard output at once.
pub fn print_raw(bytes: &[u8]) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|_| Problem::said("standard output is closed"))
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
