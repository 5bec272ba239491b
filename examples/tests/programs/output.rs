//! What viewers get of a session's output: whole sequences, no clipboard writes, and the picture of its terminal.

use std::num::NonZeroU16;

use sessioncap_programs::pty::{Emulator, Picture, Scanned, Scanner, Told};

#[path = "../../fuzz/output.rs"]
mod target;
use target::scan;

#[test]
fn every_corpus_file_of_output_passes_its_target() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/output");
    let files: Vec<_> = std::fs::read_dir(corpus).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 10);
    for file in files {
        println!("{}", file.display());
        target::output(&std::fs::read(file).unwrap());
    }
}

/// Pieces of sequences in all orders that a seeded generator comes to. `SESSIONCAP_CASES` multiplies them.
#[test]
fn output_of_random_pieces_of_sequences_passes_the_target() {
    use rand::{Rng, SeedableRng};
    const PIECES: [&[u8]; 24] = [
        b"\x1b",
        b"\x1b]",
        b"52",
        b"052;",
        b";c;",
        b"AAAA",
        b"\x07",
        b"\x1b\\",
        b"\x9d",
        b"\xc2\x9d",
        b"\x9c",
        b"\xc2\x9c",
        b"\x1bP",
        b"\x1b[",
        b"12",
        b"m",
        b"\x18",
        b"\x1a",
        b"133;A",
        b"133;B",
        b"text",
        b"\xf0\x9f\x99\x82",
        b"\xf0",
        b"\x00",
    ];
    let mut rng = rand::rngs::StdRng::seed_from_u64(1);
    let times: u32 = std::env::var("SESSIONCAP_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for _ in 0..times * 20_000 {
        let mut data = vec![rng.gen_range(1..9)];
        for _ in 0..rng.gen_range(0..16) {
            data.extend_from_slice(PIECES[rng.gen_range(0..PIECES.len())]);
        }
        target::output(&data);
    }
}

fn shown(output: &[u8]) -> Vec<u8> {
    let whole = scan(output, output.len().max(1));
    for piece in 1..output.len() {
        assert_eq!(scan(output, piece), whole, "in pieces of {piece}: {}", output.escape_ascii());
    }
    whole.shown
}

fn terminal(output: &[&[u8]]) -> vt100::Parser {
    let mut terminal = vt100::Parser::new(NonZeroU16::new(24).unwrap(), NonZeroU16::new(80).unwrap(), 0);
    output.iter().for_each(|output| terminal.process(output));
    terminal
}

#[test]
fn clipboard_writes_are_taken_out_wherever_they_are_and_nothing_else() {
    for write in [
        &b"\x1b]52;c;AAAA\x07"[..],
        b"\x1b]52;c;AAAA\x1b\\",
        b"\x1b]052;c;?\x07",
        b"\x1b]5\x002;;AAAA\x07",
        b"\x1b]5522;type=write:mime=Lg;AAAA\x1b\\",
        b"\x1b]1337;Copy=:AAAA\x07",
        b"\x1b]1337;CopyToClipboard=\x07",
        b"\x9d52;c;AAAA\x07",
        b"\xc2\x9d52;c;AAAA\xc2\x9c",
    ] {
        let output = [b"before", write, b"after"].concat();
        assert_eq!(shown(&output).escape_ascii().to_string(), "beforeafter", "{}", write.escape_ascii());
        assert_eq!(scan(&output, 3).clipboard, [(6, write.to_vec())], "{}", write.escape_ascii());
    }
    // One that the session's end leaves unfinished: the terminal would take the next sequence for its end.
    assert_eq!(shown(b"a\x1b]52;c;AAAA"), b"a");
    assert_eq!(shown(b"a\x1b]52;c;AAAA\x1b"), b"a");
    // One that breaks another sequence off still breaks it off.
    assert_eq!(shown(b"\x1bPtmux;\x1b\x1b]52;c;AA\x07\x1b\\x"), b"\x1bPtmux;\x1b\x18\x1b\\x");
    assert_eq!(shown(b"\x1b[12\x1b]52;c;AA\x07x"), b"\x1b[12\x18x");
    // One inside another string takes that with it.
    assert_eq!(shown(b"a\x1bPq\xc2\x9d52;c;AA\x1b\\b"), b"ab");
    // A long one is not kept for anybody.
    let long = [b"\x1b]52;c;".as_slice(), &[b'A'; 300_000], b"\x07after"].concat();
    assert_eq!(scan(&long, 4096), Scanned { shown: b"after".to_vec(), ..Scanned::default() });
    for other in [
        &b"\x1b]0;title 52;c;\x07text"[..],
        b"\x1b]8;;https://example/52;c\x1b\\link\x1b]8;;\x1b\\",
        b"\x1b]1337;SetMark\x07",
        b"\x1b[52;1H\x1b[1m\xe2\x9c\x9d52;\xf0\x9f\x98\x80",
        b"\x1b(B\x1b#8\x1bP1$r0m\x1b\\\x1b]52\x18",
        b"latin\xe9 \x9d5 \xff\xc2 \xe2\x28",
    ] {
        let expected = other.strip_suffix(b"\x1b]52\x18").map(|rest| [rest, b"\x18"].concat());
        assert_eq!(shown(other), expected.unwrap_or_else(|| other.to_vec()), "{}", other.escape_ascii());
    }
}

#[test]
fn what_is_passed_on_ends_with_a_whole_sequence_and_a_whole_character() {
    for whole in
        ["\u{e9}", "\u{20ac}", "\u{1f600}", "\x1b[38;5;1m", "\x1b]0;t\x07", "\x1bP1;2|x\x1b\\", "\x1b(B"]
    {
        let mut scanner = Scanner::default();
        let (last, begin) = whole.as_bytes().split_last().unwrap();
        assert_eq!(scanner.read(&[b"x", begin].concat()).shown, b"x", "{whole:?}");
        assert_eq!(scanner.read(&[*last]).shown, whole.as_bytes());
    }
    // A string without an end is ended, and holds nothing back from then on.
    let endless = [b"\x1bP".as_slice(), &[b'x'; 300_000]].concat();
    let mut scanner = Scanner::default();
    let passed = scanner.read(&endless).shown;
    assert_eq!(passed.len(), endless.len() + 1);
    assert!(passed.contains(&0x18) && scanner.finish().shown.is_empty());
}

#[test]
fn programs_tell_of_bells_notifications_prompts_and_the_ends_of_commands() {
    let told = |output: &[u8]| {
        let told = scan(output, 1).told;
        assert_eq!(told, scan(output, output.len()).told);
        told.into_iter().filter(|(_, told)| !matches!(told, Told::Set(_) | Told::Reset)).collect::<Vec<_>>()
    };
    let text = |text: &str| Told::Notification(text.to_owned());
    assert_eq!(told(b"ab\x07c"), [(3, Told::Bell)]);
    assert_eq!(told(b"\x1b]0;t\x07\x1bPx\x07\x1b\\"), [], "a bell in a control string is none");
    assert_eq!(told(b"\x1b]9;done\x07"), [(9, text("done"))]);
    assert_eq!(told(b"\x1b]9;4;1;50\x1b\\\x1b]9;4\x07"), [], "progress");
    assert_eq!(told(b"\x1b]777;notify;build;done\x1b\\"), [(25, text("build: done"))]);
    assert_eq!(told(b"\x1b]133;A\x07$ \x1b]133;B\x07"), [(8, Told::Prompt)], "one prompt is told once");
    assert_eq!(told(b"$ \x1b]133;B\x07"), [(10, Told::Prompt)]);
    assert_eq!(
        told(b"\x1b]133;D;7\x07\x1b]133;D\x07"),
        [(10, Told::CommandEnded(7)), (18, Told::CommandEnded(-1))]
    );
}

/// The same for each number.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

#[test]
fn no_output_upsets_the_reader_or_the_picture_however_it_is_cut() {
    const PIECES: &[&[u8]] = &[
        b"\x1b",
        b"\x1b[",
        b"\x1b]",
        b"\x1bP",
        b"\x1b\\",
        b"\x07",
        b"\x18",
        b"\x9d",
        b"\xc2",
        b"\x9b",
        b"52;c;",
        b"?1049h",
        b"?47l",
        b"999;999H",
        b"65535X",
        b"65535b",
        b"65535@",
        b"0;0r",
        b"5;2r",
        b"2J",
        b"3J",
        b"65535L",
        b"65535S",
        b"65535T",
        b"?6h",
        b"m",
        b"38;2;1;2;3m",
        b"\xe2\x82",
        b"\xac",
        b"\xf0\x9f\x98\x80",
        b"\xcc\x81",
        b"wide\xef\xbc\xa1",
        b"text",
        b"\r\n",
        b"\t",
        b"\x08",
        b"\x1bc",
        b"\x1bM",
        b"\x1b7",
        b"\x1b8",
        b";",
        b"1",
        b"h",
        b"l",
        b"\x00",
        b"\xff",
        b"133;B\x07",
        b"9;x\x07",
        b"!p",
        b" q",
    ];
    for seed in 0..400 {
        let mut numbers = Numbers(seed);
        let output: Vec<u8> =
            (0..200).flat_map(|_| PIECES[numbers.below(PIECES.len())].iter().copied()).collect();
        let whole = scan(&output, output.len());
        assert_eq!(scan(&output, 1 + numbers.below(40)), whole, "seed {seed}");
        let taken: usize = whole.clipboard.iter().map(|(_, write)| write.len()).sum();
        assert!(whole.shown.len() + taken <= 2 * output.len(), "seed {seed}");
        let again = scan(&whole.shown, 7);
        assert!(again.clipboard.is_empty(), "seed {seed}: {}", whole.shown.escape_ascii());

        let (columns, rows) = (1 + numbers.below(90), 1 + numbers.below(40));
        let mut picture = Picture::new(columns as u16, rows as u16);
        let mut scanner = Scanner::default();
        for piece in output.chunks(16) {
            let scanned = scanner.read(piece);
            picture.process(&scanned.shown);
            scanned.told.iter().for_each(|(_, told)| picture.note(told));
            if numbers.below(10) == 0 {
                picture.resize(1 + numbers.below(90) as u16, 1 + numbers.below(40) as u16);
            }
            let screen = picture.screen();
            assert!(screen.starts_with(b"\x18") && screen.len() < 1_000_000, "seed {seed}");
            assert_eq!(scan(&screen, 5).shown, screen, "a screen is whole and writes no clipboard");
        }
    }
}

#[test]
fn a_screen_draws_the_terminal_with_its_alternate_screen_modes_and_cursor() {
    let output = b"one\r\n\x1b[31mtwo\x1b[?1049h\x1b[2;20r\x1b[5;7Hfull\x1b[?25l\x1b[?2004h\x1b[?1002h\x1b[?1006h\x1b[?1h";
    let mut picture = Picture::new(80, 24);
    let scanned = scan(output, 9);
    picture.process(&scanned.shown);
    scanned.told.iter().for_each(|(_, told)| picture.note(told));
    // Whatever the viewer's terminal was in the middle of.
    for before in [&b""[..], b"\x1b]0;half", b"\x1b[?1003h\x1b[?1049hother\x1b[5;9r\x1b[?6h"] {
        let mut drawn = terminal(&[before, &picture.screen()]);
        let (drawn_now, meant) = (drawn.screen(), terminal(&[output]));
        let meant = meant.screen();
        assert_eq!(drawn_now.contents(), meant.contents());
        assert_eq!(drawn_now.cursor_position(), meant.cursor_position());
        assert!(drawn_now.alternate_screen() && drawn_now.hide_cursor() && drawn_now.bracketed_paste());
        assert!(drawn_now.application_cursor());
        assert_eq!(drawn_now.mouse_protocol_mode(), meant.mouse_protocol_mode());
        assert_eq!(drawn_now.mouse_protocol_encoding(), meant.mouse_protocol_encoding());
        // The region scrolls, and what is below comes back.
        drawn.process(b"\x1b[20;1H\nlast\x1b[?1049l");
        assert_eq!(drawn.screen().contents(), "one\ntwo");
        assert_eq!(drawn.screen().cell(1, 0).unwrap().fgcolor(), vt100::Color::Idx(1));
    }
}

#[test]
fn a_screen_of_any_size_fits_one_message() {
    let mut picture = Picture::new(1000, 131);
    let coloured: String = (0..131_000).map(|n| format!("\x1b[38;2;{};{};3mx", n % 251, n % 241)).collect();
    picture.process(coloured.as_bytes());
    let screen = picture.screen();
    assert!(screen.len() < 1024 * 1024 - 64);
    let text = String::from_utf8(screen).unwrap();
    assert_eq!(text.matches('x').count(), 131_000, "without colours rather than without text");
    // A terminal that is too large has no picture, until it is smaller again.
    picture.resize(1000, 1000);
    picture.process(b"unseen");
    assert!(!picture.screen().ends_with(b"unseen"));
    picture.resize(80, 24);
    picture.process(b"seen");
    assert!(String::from_utf8(picture.screen()).unwrap().contains("seen"));
}

struct Fragile(Vec<u8>);

impl Emulator for Fragile {
    fn process(&mut self, output: &[u8]) {
        assert!(!output.contains(&b'!'), "as a faulty emulator would");
        self.0.extend(output);
    }
    fn resize(&mut self, _: NonZeroU16, _: NonZeroU16) {}
    fn draw(&mut self, _: bool) -> String {
        String::from_utf8(self.0.clone()).unwrap()
    }
    fn cursor(&self) -> (u16, u16) {
        (0, 0)
    }
}

#[test]
fn an_emulator_that_panics_ends_the_picture_and_nothing_else() {
    let mut picture = Picture::with(|_, _| Box::new(Fragile(Vec::new())), 80, 24);
    picture.process(b"fine");
    assert!(picture.screen().ends_with(b"fine"));
    picture.process(b"bad!");
    let screen = picture.screen();
    assert!(screen.starts_with(b"\x18") && screen.ends_with(b"\x1b[H\x1b[2J"), "{}", screen.escape_ascii());
    picture.process(b"more");
    assert_eq!(picture.screen(), screen);
}
