//! The fuzz target of what reads a session's output. Panics when a law is broken; nothing in it is random.

use sessioncap_programs::pty::{Scanned, Scanner};

/// Shown bytes, clipboard writes and what was told, with positions, of output that comes in pieces of this length.
pub fn scan(output: &[u8], piece: usize) -> Scanned {
    let mut scanner = Scanner::default();
    let mut whole = Scanned::default();
    let mut add = |scanned: Scanned| {
        let before = whole.shown.len();
        whole.shown.extend(scanned.shown);
        whole.clipboard.extend(scanned.clipboard.into_iter().map(|(at, write)| (before + at, write)));
        whole.told.extend(scanned.told.into_iter().map(|(at, told)| (before + at, told)));
    };
    for piece in output.chunks(piece) {
        add(scanner.read(piece));
    }
    add(scanner.finish());
    whole
}

/// Finds clipboard writes with a parser that shares no code with the scanner.
#[derive(Default)]
struct Writes(usize);

impl vte::Perform for Writes {
    fn osc_dispatch(&mut self, parameters: &[&[u8]], _bell: bool) {
        // Without a second field there is nothing to write.
        let [number, _, ..] = parameters else { return };
        let number = std::str::from_utf8(number).ok().and_then(|number| number.parse::<u32>().ok());
        self.0 += usize::from(number == Some(52));
    }
}

/// The first byte is the length of the pieces, the rest the output: pieces change nothing, no clipboard write is shown,
/// little is added, and what was told stands within what is shown.
pub fn output(data: &[u8]) {
    let Some((piece, output)) = data.split_first() else { return };
    let whole = scan(output, output.len().max(1));
    assert_eq!(scan(output, usize::from(*piece).max(1)), whole, "in pieces of {piece}");
    let mut writes = Writes::default();
    vte::Parser::new().advance(&mut writes, &whole.shown);
    assert_eq!(writes.0, 0, "{}", whole.shown.escape_ascii());
    let kept: usize = whole.clipboard.iter().map(|(_, write)| write.len()).sum();
    // At most one CAN for each sequence that is broken off.
    let escapes = output.iter().filter(|byte| matches!(byte, 0x1b | 0x80..=0x9f)).count();
    assert!(whole.shown.len() + kept <= output.len() + escapes + 1, "{}", output.escape_ascii());
    assert!(whole.told.iter().all(|(at, _)| *at <= whole.shown.len()));
    assert!(whole.clipboard.iter().all(|(at, _)| *at <= whole.shown.len()));
}
