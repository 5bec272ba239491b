//! The pairing link as a QR code, for a terminal or a page (ISO/IEC 18004:2015, sections 7.4 for
//! the segments and 6.3.8 for the quiet zone).
//!
//! A scanner needs dark modules on a light background and four light modules on every side. A terminal with a
//! dark theme provides neither, so both renderings set their colours and add a quiet zone. Only this file
//! uses the crate `qrcode`, which computes the modules.

use core::fmt::{self, Write as _};

use qrcode::bits::Bits;
use qrcode::{Color, EcLevel, Version};
use zeroize::Zeroizing;

use crate::protocol::link::{Link, LinkError, LinkHost, QrMode, QrSegment};

/// The light margin that a scanner needs, modules.
const QUIET_ZONE: usize = 4;

/// The largest version that ISO/IEC 18004 has.
const MAX_VERSION: u8 = 40;

/// Black and white in the colour cube of 256-colour terminals. Themes redefine the 16 colours below the cube
/// and the default colours, but not the cube.
const DARK: u8 = 16;
const LIGHT: u8 = 231;

/// A pairing link as a QR code.
///
/// `Debug` shows the version but no module. Anyone who sees the code, or has the result of [`to_terminal`] or
/// [`to_svg`], has the ticket's secret: show it to the link's owner only, keep it out of logs, and clear it
/// from the screen once the ticket is redeemed or expired. The modules are wiped when this value is dropped;
/// the encoder's working memory and the rendered strings are not.
///
/// [`to_terminal`]: QrCode::to_terminal
/// [`to_svg`]: QrCode::to_svg
#[derive(Clone)]
pub struct QrCode {
    version: u8,
    width: usize,
    /// The modules, row by row from the top left; true is dark.
    modules: Zeroizing<Vec<bool>>,
}

/// How much of a QR code can be lost to glare or dirt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorCorrection {
    /// Level L: 7 % of the codewords. The code is one or two versions smaller, for a window that is too small for
    /// [`ErrorCorrection::Medium`].
    Low,
    /// Level M: 15 % of the codewords.
    Medium,
}

impl ErrorCorrection {
    const fn level(self) -> EcLevel {
        match self {
            Self::Low => EcLevel::L,
            Self::Medium => EcLevel::M,
        }
    }
}

/// How a terminal draws modules. Cells are assumed to be about twice as high as wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TerminalStyle {
    /// One column a module, two rows of modules a line, with `▀` (U+2580). The smallest style.
    HalfBlocks,
    /// Two columns a module and one row a line, using only coloured spaces, for terminals that draw half
    /// blocks with gaps or lack the character.
    FullBlocks,
}

impl QrCode {
    /// Makes the smallest code of error correction level M for the link, with its digits in numeric mode
    /// (`docs/PROTOCOL.md` section 7).
    ///
    /// Costs about a millisecond, mostly for choosing the mask.
    ///
    /// # Errors
    /// As [`Link::to_https`], and [`LinkError::TooLong`] if version 40 cannot hold the link; the longest link
    /// that this crate can build needs version 19.
    pub fn new(link: &Link, host: &LinkHost) -> Result<Self, LinkError> {
        Self::with_correction(link, host, ErrorCorrection::Medium)
    }

    /// Does the same as [`QrCode::new`] with another error correction level.
    ///
    /// # Errors
    /// As [`QrCode::new`].
    pub fn with_correction(
        link: &Link,
        host: &LinkHost,
        correction: ErrorCorrection,
    ) -> Result<Self, LinkError> {
        let segments = link.to_qr_segments(host)?;
        let encode = |version| Self::encode(&segments, version, correction.level());
        (1..=MAX_VERSION).find_map(encode).ok_or(LinkError::TooLong)
    }

    /// Encodes the segments; `None` if they do not fit `version`.
    fn encode(segments: &[QrSegment], version: u8, level: EcLevel) -> Option<Self> {
        let mut bits = Bits::new(Version::Normal(version.into()));
        for segment in segments {
            let characters = segment.as_str().as_bytes();
            match segment.mode() {
                QrMode::Alphanumeric => bits.push_alphanumeric_data(characters),
                QrMode::Bytes => bits.push_byte_data(characters),
                QrMode::Numeric => bits.push_numeric_data(characters),
            }
            .ok()?;
        }
        bits.push_terminator(level).ok()?;
        let code = qrcode::QrCode::with_bits(bits, level).ok()?;
        let width = code.width();
        let modules = code.into_colors().into_iter().map(|module| module == Color::Dark).collect();
        Some(Self { version, width, modules: Zeroizing::new(modules) })
    }

    /// Returns the version, 1 to 40.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version
    }

    /// Returns the modules on a side without the quiet zone: 17 and four for each version.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Whether the module `x` from the left and `y` from the top is dark, counted from 0 and without the
    /// quiet zone. Every module outside the code is light.
    #[must_use]
    pub fn is_dark(&self, x: usize, y: usize) -> bool {
        let inside = x < self.width && y < self.width;
        inside && self.modules.get(y * self.width + x).copied().unwrap_or_default()
    }

    /// Renders lines for a terminal of at least 256 colours, each ending in `\n`, with a quiet zone of four
    /// modules on every side (five below with half blocks, to fill the last line). Print them only if
    /// [`QrCode::terminal_size`] fits: a code that wraps or scrolls cannot be scanned.
    ///
    /// Dark is black and light is white in every theme, and each line begins and ends with a reset of all
    /// attributes. A terminal in raw mode needs `\r\n` instead of `\n`. The text contains the secret.
    #[must_use]
    pub fn to_terminal(&self, style: TerminalStyle) -> String {
        let (rows_per_line, blank) = match style {
            TerminalStyle::HalfBlocks => (2, " "),
            TerminalStyle::FullBlocks => (1, "  "),
        };
        let colour = |dark| if dark { DARK } else { LIGHT };
        let mut text = String::new();
        for y in (0..self.framed_width()).step_by(rows_per_line) {
            // Attributes that are still set, especially reverse video, would spoil the code.
            text.push_str("\x1b[0m");
            let mut current = None;
            for x in 0..self.framed_width() {
                let upper = self.is_dark_in_frame(x, y);
                let lower = self.is_dark_in_frame(x, y + rows_per_line - 1);
                if current != Some((upper, lower)) {
                    current = Some((upper, lower));
                    // Writing to a string does not fail.
                    let _ = write!(text, "\x1b[38;5;{};48;5;{}m", colour(upper), colour(lower));
                }
                // A space fills its cell in any font; a block character does not.
                text.push_str(if upper == lower { blank } else { "▀" });
            }
            // Reset before the line feed, because some terminals colour the rest of the next line.
            text.push_str("\x1b[0m\n");
        }
        text
    }

    /// Returns the columns and lines of [`QrCode::to_terminal`]. The cursor ends on the line below them.
    #[must_use]
    pub fn terminal_size(&self, style: TerminalStyle) -> (usize, usize) {
        let side = self.framed_width();
        match style {
            TerminalStyle::HalfBlocks => (side, side.div_ceil(2)),
            TerminalStyle::FullBlocks => (side * 2, side),
        }
    }

    /// Renders an SVG image: black on its own white background, one unit a module, with a quiet zone of four
    /// modules on every side. It sets no size, so it fills its container.
    ///
    /// It has one `rect` and one `path`, no script and no external resources, so it can be inlined in HTML.
    /// The text contains the secret.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let side = self.framed_width();
        let mut path = String::new();
        for y in 0..side {
            let mut x = 0;
            while x < side {
                let run = (x..side).take_while(|x| self.is_dark_in_frame(*x, y)).count();
                if run > 0 {
                    // Writing to a string does not fail.
                    let _ = write!(path, "M{x} {y}h{run}v1h-{run}z");
                }
                x += run + 1;
            }
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" \
             shape-rendering=\"crispEdges\"><rect width=\"{side}\" height=\"{side}\" fill=\"#fff\"/>\
             <path fill=\"#000\" d=\"{path}\"/></svg>"
        )
    }

    fn framed_width(&self) -> usize {
        self.width + 2 * QUIET_ZONE
    }

    /// Does the same as [`QrCode::is_dark`], counted from the corner of the quiet zone.
    fn is_dark_in_frame(&self, x: usize, y: usize) -> bool {
        match (x.checked_sub(QUIET_ZONE), y.checked_sub(QUIET_ZONE)) {
            (Some(x), Some(y)) => self.is_dark(x, y),
            _ => false,
        }
    }
}

impl fmt::Debug for QrCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QrCode").field("version", &self.version).finish_non_exhaustive()
    }
}
