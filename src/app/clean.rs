//! Text that is pasted, without what a terminal would take for keys.

/// Makes what a paste types. Control characters are left out but tab and Enter, so that no pasted text can end the
/// brackets around it or press keys. `bracketed` says that the session's program has asked for brackets.
pub(super) fn pasted(text: &str, bracketed: bool) -> Vec<u8> {
    let mut typed = String::with_capacity(text.len());
    if bracketed {
        typed.push_str("\x1b[200~");
    }
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            // One Enter for each end of a line, however it is written.
            '\r' if characters.peek() == Some(&'\n') => {}
            '\r' | '\n' => typed.push('\r'),
            '\t' => typed.push('\t'),
            character if character.is_control() => {}
            character => typed.push(character),
        }
    }
    if bracketed {
        typed.push_str("\x1b[201~");
    }
    typed.into_bytes()
}

/// Makes what a line types: as pasted, without its ends of lines, then Enter.
pub(super) fn line(text: &str) -> Vec<u8> {
    let mut typed = pasted(text, false);
    typed.retain(|byte| *byte != b'\r');
    typed.push(b'\r');
    typed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_paste_cannot_end_its_brackets_or_press_keys() {
        let hostile = "ls\x1b[201~\nrm -rf ~\u{9b}201~\r\nx\ty\x03\x04\x7f";
        assert_eq!(pasted(hostile, true), "\x1b[200~ls[201~\rrm -rf ~201~\rx\ty\x1b[201~".as_bytes());
    }

    #[test]
    fn a_line_has_one_enter_at_its_end() {
        assert_eq!(line("echo \u{1f600}\r\nrm\n"), "echo \u{1f600}rm\r".as_bytes());
    }

    proptest! {
        #[test]
        fn a_paste_has_no_escape_between_its_brackets(text in any::<String>()) {
            let typed = pasted(&text, true);
            let inside = &typed[6..typed.len() - 6];
            prop_assert!(!inside.contains(&0x1b));
            let inside = core::str::from_utf8(inside).unwrap();
            prop_assert!(inside.chars().all(|c| !c.is_control() || c == '\t' || c == '\r'));
        }
    }
}
