//! The pairing code in a form that fits: in the terminal's colours, in plain characters, in a file, or only the link.

use std::path::PathBuf;

use clap::ValueEnum;
use sessioncap::{ErrorCorrection, Link, LinkHost, QrCode, TerminalStyle};

use super::png::png;
use crate::files;
use crate::problem::Outcome;
use crate::terminal::{columns, may_style, size};

/// What a person asked for.
#[derive(Debug, Clone, Default)]
pub struct Form {
    /// Where to write the code as a picture that scales.
    pub svg: Option<PathBuf>,
    /// Where to write the code as a picture of pixels.
    pub png: Option<PathBuf>,
    /// No code.
    pub link_only: bool,
    /// A code of plain characters where there are no colours, for this background.
    pub plain: Option<Background>,
}

/// The background that plain characters are shown on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Background {
    /// Light characters on a dark background.
    Dark,
    /// Dark characters on a light background.
    Light,
}

/// Where the code is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// A terminal with colours, of so many columns and lines.
    Terminal(usize, usize),
    /// A file, a pipe, or a terminal without escape codes.
    Plain,
}

impl Window {
    /// Standard output.
    pub fn of_stdout() -> Self {
        match size().filter(|_| may_style()) {
            Some((columns, lines)) => Self::Terminal(columns, lines),
            None => Self::Plain,
        }
    }
}

/// Writes the pictures that were asked for, each readable by its owner only.
pub fn write_pictures(link: &Link, host: &LinkHost, form: &Form) -> Outcome<()> {
    if form.svg.is_none() && form.png.is_none() {
        return Ok(());
    }
    let code = QrCode::new(link, host)?;
    if let Some(path) = &form.svg {
        files::write_private(path, code.to_svg().as_bytes())?;
    }
    if let Some(path) = &form.png {
        files::write_private(path, &png(&code))?;
    }
    Ok(())
}

/// What is shown of a link that can be used until then: the largest form that the window has room for, so that
/// nothing of the code scrolls away.
pub fn page(link: &Link, host: &LinkHost, until: &str, form: &Form, window: Window) -> Outcome<String> {
    let text = link.to_https(host)?;
    let once = format!("until {until}, once\n");
    let link_only = format!("open on the phone:\n\n{text}\n\n{once}");
    if form.link_only {
        return Ok(link_only);
    }
    let whole = format!("scan the code, or {link_only}");
    let short = format!("scan the code {once}");
    let (width, height) = match window {
        Window::Terminal(width, height) => (width, height),
        Window::Plain => {
            return Ok(match form.plain {
                Some(background) => format!("{}{whole}", plain(&QrCode::new(link, host)?, background)),
                None => link_only,
            });
        }
    };
    let medium = QrCode::new(link, host)?;
    let small = QrCode::with_correction(link, host, ErrorCorrection::Low)?;
    for below in [&whole, &short] {
        for code in [&medium, &small] {
            let (across, down) = code.terminal_size(TerminalStyle::HalfBlocks);
            // The cursor ends on a line of its own.
            if across <= width && down + lines(below, width) < height {
                return Ok(format!("{}{below}", code.to_terminal(TerminalStyle::HalfBlocks)));
            }
        }
    }
    let (across, down) = small.terminal_size(TerminalStyle::HalfBlocks);
    let needs = down + lines(&short, width) + 1;
    Ok(format!(
        "this window is too small for a qr code, which takes {across} columns and {needs} lines:\nmake it larger, or \
         have the code written to a file with --svg or --png, or {link_only}"
    ))
}

/// How many lines a terminal of this width takes for a text.
fn lines(text: &str, width: usize) -> usize {
    text.lines().map(|line| columns(line).div_ceil(width.max(1)).max(1)).sum()
}

/// The code in characters without colours.
fn plain(code: &QrCode, background: Background) -> String {
    let side = code.width() + 8;
    let drawn = |x: usize, y: usize| {
        let dark = x.checked_sub(4).zip(y.checked_sub(4)).is_some_and(|(x, y)| code.is_dark(x, y));
        dark == (background == Background::Light)
    };
    let mut text = String::new();
    for y in (0..side).step_by(2) {
        for x in 0..side {
            text.push(match (drawn(x, y), drawn(x, y + 1)) {
                (true, true) => '\u{2588}',
                (true, false) => '\u{2580}',
                (false, true) => '\u{2584}',
                (false, false) => ' ',
            });
        }
        text.push('\n');
    }
    text
}
