//! QR codes as a phone's camera sees them. A decoder that shares no code with the encoder reads the terminal
//! output, as a terminal emulator shows it in themes of every kind, and the rasterised SVG.

#![cfg(feature = "qr")]

use std::num::NonZeroU16;

use image::{GrayImage, Luma};
use proptest::prelude::*;
use resvg::{tiny_skia, usvg};
use sessioncap::{
    AgentSecretKey, AgentUrl, ErrorCorrection, Link, LinkHost, QrCode, QrMode, QrSegment, TerminalStyle,
    TicketSecret,
};

const STYLES: [TerminalStyle; 2] = [TerminalStyle::HalfBlocks, TerminalStyle::FullBlocks];
/// As long as the hosts that the version targets name.
const AGENT_HOST: &str = "desktop-1.tailnet-a1b.example";
const LINK_HOST: &str = "pair.link-host7.example";
const QUIET_ZONE: u32 = 4;
const BLACK: u8 = 0;
const WHITE: u8 = 255;

fn link(url: &str) -> Link {
    link_of(url, [0xa7; 16], [0x5c; 32])
}

fn link_of(url: &str, secret: [u8; 16], agent: [u8; 32]) -> Link {
    let url = AgentUrl::parse(url).expect("the test's address");
    Link::new(url, AgentSecretKey::from_bytes(agent).public(), TicketSecret::from_bytes(secret))
}

fn fixed() -> LinkHost {
    LinkHost::Fixed(LINK_HOST.to_owned())
}

// --- the terminal ---

/// What a terminal makes of the colours that a program does not fix.
#[derive(Debug, Clone, Copy)]
struct Theme {
    foreground: u8,
    background: u8,
    /// Colours 0 to 15, as brightness.
    palette: [u8; 16],
}

const DARK_THEME: Theme = Theme {
    foreground: 0xd0,
    background: 0x1c,
    palette: [
        0x1c, 0x60, 0x80, 0xa0, 0x50, 0x70, 0x90, 0xd0, 0x50, 0x90, 0xa0, 0xc0, 0x80, 0xa0, 0xb0, WHITE,
    ],
};
const LIGHT_THEME: Theme = Theme {
    foreground: 0x20,
    background: 0xf8,
    palette: [
        0x20, 0x60, 0x80, 0xa0, 0x50, 0x70, 0x90, 0xd0, 0x50, 0x90, 0xa0, 0xc0, 0x80, 0xa0, 0xb0, WHITE,
    ],
};
/// "Black" is bright and "white" is dark.
const UPSIDE_DOWN_THEME: Theme = Theme {
    palette: [
        WHITE, 0x60, 0x80, 0xa0, 0x50, 0x70, 0x90, 0x10, 0xd0, 0x90, 0xa0, 0xc0, 0x80, 0xa0, 0xb0, BLACK,
    ],
    ..DARK_THEME
};
/// All one colour: everything that depends on the theme vanishes.
const MUD_THEME: Theme = Theme { foreground: 0x80, background: 0x80, palette: [0x80; 16] };
const THEMES: [Theme; 4] = [DARK_THEME, LIGHT_THEME, UPSIDE_DOWN_THEME, MUD_THEME];

impl Theme {
    fn brightness(&self, colour: vt100::Color, default: u8) -> u8 {
        let cube = |level: u8| if level == 0 { 0 } else { 55 + 40 * u32::from(level) };
        match colour {
            vt100::Color::Default => default,
            vt100::Color::Idx(index @ 0..=15) => self.palette[usize::from(index)],
            vt100::Color::Idx(index @ 16..=231) => {
                let index = index - 16;
                gray(cube(index / 36), cube(index / 6 % 6), cube(index % 6))
            }
            vt100::Color::Idx(index) => 8 + 10 * (index - 232),
            vt100::Color::Rgb(r, g, b) => gray(r.into(), g.into(), b.into()),
        }
    }
}

fn gray(r: u32, g: u32, b: u32) -> u8 {
    u8::try_from((299 * r + 587 * g + 114 * b) / 1000).expect("at most 255")
}

/// A code somewhere in an image.
struct Picture {
    image: GrayImage,
    /// Where what was drawn begins, the quiet zone included, pixels.
    left: u32,
    top: u32,
    /// What was drawn, pixels.
    width: u32,
    height: u32,
    /// A module, pixels.
    module: u32,
}

/// Pixels of one terminal cell.
const CELL: (u32, u32) = (4, 8);

/// Columns and lines of the terminal around the code.
const BESIDE: u16 = 5;

/// Prints the code below a prompt and photographs the screen.
fn photograph(code: &QrCode, style: TerminalStyle, theme: &Theme) -> Picture {
    let (columns, lines) = code.terminal_size(style);
    let size = |cells: usize| u16::try_from(cells).expect("a code has at most 370 columns") + BESIDE;
    let (columns, lines) = (size(columns), size(lines));
    let mut terminal =
        vt100::Parser::new(NonZeroU16::new(lines).unwrap(), NonZeroU16::new(columns).unwrap(), 0);
    // A prompt that leaves reverse video, bold and underline on.
    terminal.process(b"$ pair\r\n\x1b[1;4;7m");
    // The kernel's terminal driver turns a line feed into both.
    terminal.process(code.to_terminal(style).replace('\n', "\r\n").as_bytes());
    let screen = terminal.screen();
    assert_eq!((screen.fgcolor(), screen.bgcolor()), Default::default(), "colours are put back");
    assert!(!screen.bold() && !screen.dim() && !screen.inverse() && !screen.underline());

    let mut image = GrayImage::new(u32::from(columns) * CELL.0, u32::from(lines) * CELL.1);
    // The cells with a colour of their own, without and with the last.
    let (mut first, mut last) = ((u16::MAX, u16::MAX), (0, 0));
    for (row, column) in (0..lines).flat_map(|row| (0..columns).map(move |column| (row, column))) {
        let cell = screen.cell(row, column).expect("a cell of the screen");
        let mut foreground = theme.brightness(cell.fgcolor(), theme.foreground);
        let mut background = theme.brightness(cell.bgcolor(), theme.background);
        if cell.inverse() {
            (foreground, background) = (background, foreground);
        }
        if cell.bgcolor() != vt100::Color::Default {
            first = (first.0.min(row), first.1.min(column));
            last = (last.0.max(row + 1), last.1.max(column + 1));
            assert!(!cell.bold() && !cell.dim() && !cell.underline() && !cell.inverse());
        }
        // Prompt text stays background: it is not what the camera looks for.
        let upper = if cell.contents() == "▀" { foreground } else { background };
        for (x, y) in (0..CELL.0).flat_map(|x| (0..CELL.1).map(move |y| (x, y))) {
            let shade = if y < CELL.1 / 2 { upper } else { background };
            image.put_pixel(u32::from(column) * CELL.0 + x, u32::from(row) * CELL.1 + y, Luma([shade]));
        }
    }
    let (columns, lines) = (u32::from(last.1 - first.1), u32::from(last.0 - first.0));
    let (promised_columns, promised_lines) = code.terminal_size(style);
    assert_eq!((columns as usize, lines as usize), (promised_columns, promised_lines), "{style:?}");
    Picture {
        image,
        left: u32::from(first.1) * CELL.0,
        top: u32::from(first.0) * CELL.1,
        width: columns * CELL.0,
        height: lines * CELL.1,
        module: if style == TerminalStyle::HalfBlocks { CELL.0 } else { 2 * CELL.0 },
    }
}

// --- the page ---

/// Draws the SVG on a dark page, `scale` pixels a module.
fn rasterise(code: &QrCode, scale: u32) -> Picture {
    const MARGIN: u32 = 11;
    let tree = usvg::Tree::from_str(&code.to_svg(), &usvg::Options::default()).expect("an svg");
    let (width, height) = (tree.size().width() as u32 * scale, tree.size().height() as u32 * scale);
    let mut page = tiny_skia::Pixmap::new(width + 2 * MARGIN, height + 2 * MARGIN).expect("a page");
    page.fill(tiny_skia::Color::from_rgba8(0x1c, 0x1c, 0x1c, 255));
    let place = tiny_skia::Transform::from_scale(scale as f32, scale as f32)
        .post_translate(MARGIN as f32, MARGIN as f32);
    resvg::render(&tree, place, &mut page.as_mut());
    let image = GrayImage::from_fn(page.width(), page.height(), |x, y| {
        let pixel = page.pixel(x, y).expect("inside the page");
        assert_eq!(pixel.alpha(), 255);
        Luma([gray(pixel.red().into(), pixel.green().into(), pixel.blue().into())])
    });
    Picture { image, left: MARGIN, top: MARGIN, width, height, module: scale }
}

// --- the camera ---

struct Reading {
    version: usize,
    level: u16,
    text: String,
}

fn read(picture: &GrayImage) -> Reading {
    let mut prepared = rqrr::PreparedImage::prepare(picture.clone());
    let grids = prepared.detect_grids();
    assert_eq!(grids.len(), 1, "codes found");
    let (meta, text) = grids[0].decode().expect("a code that reads");
    Reading { version: meta.version.0, level: meta.ecc_level, text }
}

/// The bits of the format information for level M.
const LEVEL_M: u16 = 0;

fn assert_reads(picture: &GrayImage, code: &QrCode, link: &Link, host: &LinkHost) {
    let reading = read(picture);
    assert_eq!(reading.level, LEVEL_M);
    assert_eq!(reading.version, usize::from(code.version()));
    let segments = link.to_qr_segments(host).expect("the test's link");
    assert_eq!(reading.text, segments.iter().map(QrSegment::as_str).collect::<String>());
    assert_eq!(Link::parse(&reading.text).as_ref(), Ok(link), "{}", reading.text);
}

/// Every pixel of every module has the one colour that `is_dark` says, to the corners of the quiet
/// zone.
fn assert_polarity(picture: &Picture, code: &QrCode) {
    for (x, y) in (0..picture.width).flat_map(|x| (0..picture.height).map(move |y| (x, y))) {
        let of =
            |pixels: u32| (pixels / picture.module).checked_sub(QUIET_ZONE).map(|module| module as usize);
        let dark = of(x).zip(of(y)).is_some_and(|(x, y)| code.is_dark(x, y));
        let shade = picture.image.get_pixel(picture.left + x, picture.top + y).0[0];
        assert_eq!(shade, if dark { BLACK } else { WHITE }, "module {:?} {:?}", of(x), of(y));
    }
}

/// Modules between the outermost black pixels and the edges: left, right, top, bottom. Knows
/// nothing of the code.
fn quiet_zone(picture: &Picture) -> [u32; 4] {
    let black = |x: u32, y: u32| picture.image.get_pixel(picture.left + x, picture.top + y).0[0] == BLACK;
    let column = |x: &u32| (0..picture.height).any(|y| black(*x, y));
    let row = |y: &u32| (0..picture.width).any(|x| black(x, *y));
    let edges = [
        (0..picture.width).find(column),
        (0..picture.width).rev().find(column).map(|x| picture.width - 1 - x),
        (0..picture.height).find(row),
        (0..picture.height).rev().find(row).map(|y| picture.height - 1 - y),
    ];
    edges.map(|pixels| {
        let pixels = pixels.expect("a black pixel");
        assert_eq!(pixels % picture.module, 0);
        pixels / picture.module
    })
}

// --- what is tested ---

const URLS: [&str; 10] = [
    "wss://desktop-1.tailnet-a1b.example",
    "wss://desktop-1.tailnet-a1b.example:8443/Other_path/~x",
    "ws://a",
    "ws://desktop-1.tailnet-a1b.example:443",
    "ws://127.0.0.1:9099",
    "wss://192.0.2.200",
    "ws://[::1]:9099",
    "wss://[2001:db8:1234:5678:9abc:def0:1234:5678]",
    "wss://[2001:db8::7]:65535/x",
    "ws://[2001:db8::7]:443",
];

#[test]
fn every_form_of_link_is_read_from_the_terminal() {
    for url in URLS {
        let link = link(url);
        for host in [LinkHost::Agent, fixed()] {
            let code = QrCode::new(&link, &host).unwrap();
            for style in STYLES {
                assert_reads(&photograph(&code, style, &DARK_THEME).image, &code, &link, &host);
            }
        }
    }
}

#[test]
fn every_form_of_link_is_read_from_the_svg() {
    for (url, scale) in URLS.into_iter().zip((3..=7).cycle()) {
        let link = link(url);
        for host in [LinkHost::Agent, fixed()] {
            let code = QrCode::new(&link, &host).unwrap();
            assert_reads(&rasterise(&code, scale).image, &code, &link, &host);
        }
    }
}

#[test]
fn dark_is_black_and_light_is_white_in_any_theme() {
    let link = link(URLS[0]);
    let code = QrCode::new(&link, &LinkHost::Agent).unwrap();
    for style in STYLES {
        for theme in THEMES {
            let picture = photograph(&code, style, &theme);
            assert_polarity(&picture, &code);
            assert_reads(&picture.image, &code, &link, &LinkHost::Agent);
        }
    }
    assert_polarity(&rasterise(&code, 4), &code);
}

#[test]
fn three_finder_patterns_are_dark_rings_around_dark_squares() {
    let code = QrCode::new(&link(URLS[0]), &LinkHost::Agent).unwrap();
    let far = code.width() - 7;
    for (left, top) in [(0, 0), (far, 0), (0, far)] {
        for (x, y) in (0..7).flat_map(|x| (0..7).map(move |y| (x, y))) {
            let from_centre = (x as i32 - 3).abs().max((y as i32 - 3).abs());
            assert_eq!(code.is_dark(left + x, top + y), from_centre != 2, "{x} {y}");
        }
    }
}

/// The format information (ISO/IEC 18004:2015, section 7.9) is a codeword when read from left to
/// right and then upwards. The decoder would read a mirrored code too; not every camera does.
#[test]
fn the_code_is_not_mirrored() {
    for url in URLS {
        let code = QrCode::new(&link(url), &LinkHost::Agent).unwrap();
        let rightward = [0, 1, 2, 3, 4, 5, 7, 8].map(|x| (x, 8));
        let upward = [7, 5, 4, 3, 2, 1, 0].map(|y| (8, y));
        let places = rightward.into_iter().chain(upward);
        let word = places.fold(0_u16, |word, (x, y)| word << 1 | u16::from(code.is_dark(x, y))) ^ 0x5412;
        assert_eq!(word >> 13, LEVEL_M);
        let remainder = (0..5).rev().fold(word, |rest, shift| match rest >> (shift + 10) & 1 {
            1 => rest ^ 0x537 << shift,
            _ => rest,
        });
        assert_eq!(remainder, 0, "{url}");
    }
}

#[test]
fn four_light_modules_are_on_every_side() {
    for host in [LinkHost::Agent, fixed()] {
        let code = QrCode::new(&link(URLS[0]), &host).unwrap();
        for theme in THEMES {
            let half = photograph(&code, TerminalStyle::HalfBlocks, &theme);
            assert_eq!(quiet_zone(&half), [4, 4, 4, 5], "an odd number of rows fills its last line");
            let full = photograph(&code, TerminalStyle::FullBlocks, &theme);
            assert_eq!(quiet_zone(&full), [4; 4]);
        }
        assert_eq!(quiet_zone(&rasterise(&code, 3)), [4; 4]);
    }
}

#[test]
fn versions_are_within_the_targets() {
    let versions = |url: &str, host: &LinkHost| {
        [ErrorCorrection::Low, ErrorCorrection::Medium].map(|correction| {
            let code = QrCode::with_correction(&link(url), host, correction).unwrap();
            assert_eq!(code.width(), 17 + 4 * usize::from(code.version()));
            code.version()
        })
    };
    assert_eq!((AGENT_HOST.len(), LINK_HOST.len()), (29, 23));
    let url = format!("wss://{AGENT_HOST}");
    let (own, carried) = (versions(&url, &LinkHost::Agent), versions(&url, &fixed()));
    assert!(own[0] <= 5 && carried[0] <= 6, "{own:?} {carried:?}");
    let observed = [
        ("own origin", own, [5, 6]),
        ("link host", carried, [6, 7]),
        ("port", versions(&format!("{url}:8443"), &LinkHost::Agent), [5, 6]),
        ("port, link host", versions(&format!("{url}:8443"), &fixed()), [6, 7]),
        ("loopback", versions("ws://127.0.0.1:9099", &LinkHost::Agent), [4, 5]),
        ("ipv6", versions("ws://[2001:db8::7]:9099", &LinkHost::Agent), [5, 5]),
        ("ipv6, link host", versions("ws://[2001:db8::7]:9099", &fixed()), [5, 6]),
    ];
    for (what, versions, expected) in observed {
        assert_eq!(versions, expected, "{what}");
    }
}

/// Phones compare the scheme by case, and so do apps the hosts that they have claimed.
#[test]
fn a_code_has_its_link_in_lower_case_up_to_the_digits() {
    for url in URLS {
        for host in [LinkHost::Agent, fixed()] {
            let link = link(url);
            let text = link.to_https(&host).unwrap();
            let (head, _) = text.split_once('#').unwrap();
            for correction in [ErrorCorrection::Low, ErrorCorrection::Medium] {
                let code = QrCode::with_correction(&link, &host, correction).unwrap();
                let read = read(&rasterise(&code, 3).image);
                assert!(read.text.starts_with(&format!("{head}#")), "{}", read.text);
                assert!(head.starts_with("https://") && head.ends_with("/P"));
                assert_eq!(Link::parse(&read.text), Ok(link.clone()));
            }
        }
    }
}

#[test]
fn the_longest_link_fits() {
    let name = |end: &str| {
        format!("{}.{}.{}.{}{end}", "a".repeat(63), "b".repeat(63), "c".repeat(59), "d".repeat(57))
    };
    let (agent, carrier) = (name(".example"), name(".invalid"));
    assert_eq!((agent.len(), carrier.len()), (253, 253));
    let link = link(&format!("ws://{agent}:65535/{}", "p".repeat(127)));
    let host = LinkHost::Fixed(carrier);
    let code = QrCode::new(&link, &host).unwrap();
    assert_eq!(code.version(), 20);
    assert_reads(&rasterise(&code, 3).image, &code, &link, &host);
}

#[test]
fn a_terminal_of_the_promised_size_shows_the_whole_code() {
    let code = QrCode::new(&link(URLS[0]), &LinkHost::Agent).unwrap();
    for style in STYLES {
        let (columns, lines) = code.terminal_size(style);
        let size = |cells: usize| NonZeroU16::new(u16::try_from(cells).unwrap()).unwrap();
        // One line more for the cursor.
        let mut terminal = vt100::Parser::new(size(lines + 1), size(columns), 10);
        terminal.process(code.to_terminal(style).replace('\n', "\r\n").as_bytes());
        terminal.screen_mut().set_scrollback(usize::MAX);
        assert_eq!(terminal.screen().scrollback(), 0, "nothing scrolled away");
        assert_eq!(terminal.screen().cursor_position(), (u16::try_from(lines).unwrap(), 0));
    }
}

#[test]
fn terminal_text_is_blocks_and_colours_only() {
    let code = QrCode::new(&link(URLS[0]), &LinkHost::Agent).unwrap();
    for style in STYLES {
        let text = code.to_terminal(style);
        assert!(text.ends_with("\x1b[0m\n"));
        for line in text.lines() {
            assert!(line.starts_with("\x1b[0m") && line.ends_with("\x1b[0m"), "{line:?}");
            for (at, sequence) in line.split("\x1b[").enumerate() {
                // Nothing precedes the first sequence.
                let (attributes, shown) =
                    if at == 0 { ("", sequence) } else { sequence.split_once('m').unwrap() };
                assert!(attributes.bytes().all(|byte| byte.is_ascii_digit() || byte == b';'));
                match style {
                    TerminalStyle::FullBlocks => assert!(shown.chars().all(|shown| shown == ' ')),
                    _ => assert!(shown.chars().all(|shown| shown == ' ' || shown == '▀')),
                }
            }
        }
    }
}

#[test]
fn the_svg_is_two_shapes_and_nothing_that_loads_or_runs() {
    let code = QrCode::new(&link(URLS[0]), &LinkHost::Agent).unwrap();
    let svg = code.to_svg();
    let side = code.width() + 8;
    let elements: Vec<&str> = svg.split('<').skip(1).filter_map(|tag| tag.split([' ', '>']).next()).collect();
    assert_eq!(elements, ["svg", "rect", "path", "/svg"]);
    assert!(svg.contains(&format!("viewBox=\"0 0 {side} {side}\"")));
    assert!(svg.contains("shape-rendering=\"crispEdges\""));
    assert_eq!(svg.matches("://").count(), 1, "only the name of the svg namespace");
    for unwanted in ["href", "url(", "style", "script", " on", "&", "<!"] {
        assert!(!svg.contains(unwanted), "{unwanted}");
    }
}

#[test]
fn scaled_by_a_fraction_the_svg_has_no_gray() {
    let code = QrCode::new(&link(URLS[0]), &LinkHost::Agent).unwrap();
    let tree = usvg::Tree::from_str(&code.to_svg(), &usvg::Options::default()).unwrap();
    let mut page = tiny_skia::Pixmap::new(160, 160).unwrap();
    let scale = 160.0 / tree.size().width();
    resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut page.as_mut());
    assert!(page.pixels().iter().all(|pixel| matches!(pixel.red(), BLACK | WHITE) && pixel.alpha() == 255));
}

#[test]
fn outside_the_code_is_light() {
    let code = QrCode::new(&link(URLS[0]), &LinkHost::Agent).unwrap();
    let width = code.width();
    assert!(code.is_dark(width - 1, 0), "the corner of a finder pattern");
    for (x, y) in [(width, 0), (0, width), (usize::MAX, 0), (0, usize::MAX), (usize::MAX, usize::MAX)] {
        assert!(!code.is_dark(x, y), "{x} {y}");
    }
}

#[test]
fn debug_output_is_the_same_for_two_secrets() {
    let shown = |secret| {
        let link = link_of(URLS[0], secret, [1; 32]);
        format!("{:?}", QrCode::new(&link, &LinkHost::Agent).unwrap())
    };
    assert_eq!(shown([1; 16]), shown([2; 16]));
    assert_eq!(shown([1; 16]), "QrCode { version: 6, .. }");
}

#[test]
fn a_host_that_cannot_carry_a_link_is_refused() {
    let host = LinkHost::Fixed(String::from("link.example:8080"));
    let link = link(URLS[0]);
    assert_eq!(QrCode::new(&link, &host).err(), link.to_https(&host).err());
    assert!(QrCode::new(&link, &host).is_err());
}

/// Data codewords of level M for versions 1 to 20 (ISO/IEC 18004:2015, table 7).
const CAPACITY: [usize; 20] =
    [16, 28, 44, 64, 86, 108, 124, 154, 182, 216, 254, 290, 334, 365, 415, 453, 507, 563, 627, 669];

/// Bits that the segments need (ISO/IEC 18004:2015, sections 7.4.3 to 7.4.5, counts from table 3).
fn bits(segments: &[QrSegment], version: usize) -> usize {
    let small = version <= 9;
    let bits = |segment: &QrSegment| {
        let length = segment.as_str().len();
        4 + match segment.mode() {
            QrMode::Numeric => (if small { 10 } else { 12 }) + length / 3 * 10 + [0, 4, 7][length % 3],
            QrMode::Alphanumeric => (if small { 9 } else { 11 }) + length / 2 * 11 + length % 2 * 6,
            QrMode::Bytes => (if small { 8 } else { 16 }) + length * 8,
        }
    };
    segments.iter().map(bits).sum()
}

fn any_url() -> impl Strategy<Value = String> {
    let host = prop_oneof![
        4 => "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?(\\.[a-z0-9]{1,12}){0,4}\\.[a-z]{2,10}",
        1 => any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()),
        1 => any::<std::net::Ipv6Addr>()
            .prop_filter("has an IPv4 spelling", |address| address.to_ipv4_mapped().is_none())
            .prop_map(|address| format!("[{address}]")),
    ];
    let port = prop_oneof![Just(String::new()), (1..=u16::MAX).prop_map(|port| format!(":{port}"))];
    let path = prop_oneof![Just(String::new()), "(/[A-Za-z0-9_~-]{1,20}){1,3}"];
    (prop_oneof![Just("ws"), Just("wss")], host, port, path)
        .prop_map(|(scheme, host, port, path)| format!("{scheme}://{host}{port}{path}"))
}

proptest! {
    // A case takes three pictures.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_link_is_read_back(
        url in any_url(),
        secret in any::<[u8; 16]>(),
        agent in any::<[u8; 32]>(),
        link_host in proptest::option::of("[a-z]{1,20}\\.[a-z]{2,12}"),
        theme in 0..THEMES.len(),
        scale in 3..6_u32,
    ) {
        let link = link_of(&url, secret, agent);
        let host = link_host.map_or(LinkHost::Agent, LinkHost::Fixed);
        let code = QrCode::new(&link, &host).unwrap();

        let segments = link.to_qr_segments(&host).unwrap();
        let fits = |version: usize| bits(&segments, version) <= CAPACITY[version - 1] * 8;
        let smallest = (1..=CAPACITY.len()).find(|version| fits(*version));
        prop_assert_eq!(Some(usize::from(code.version())), smallest);

        for style in STYLES {
            assert_reads(&photograph(&code, style, &THEMES[theme]).image, &code, &link, &host);
        }
        assert_reads(&rasterise(&code, scale).image, &code, &link, &host);
    }
}
