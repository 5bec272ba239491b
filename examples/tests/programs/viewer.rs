//! `session attach` on a terminal: its keys, what it leaves behind, and links that break.

use std::os::fd::AsFd;

use rustix::process::Signal;
use rustix::termios::{Termios, tcgetattr};
use sessioncap::SessionId;
use sessioncap_programs::terminal::keys::{Keys, Typed};
use sessioncap_programs::terminal::modes::Modes;
use sessioncap_programs::terminal::viewer::Viewer;
use tokio::io::AsyncReadExt;

use super::proxy::{Mood, Proxy};
use super::tty::Tty;
use super::world::{ECHO, World, within};

/// Everything that a program may switch on: the other screen, mouse and focus reports, pastes in brackets, a hidden
/// cursor, a keyboard of kitty's and xterm's kind, application keys, line drawing, insertion, a scrolling region, no
/// wrapping, an open hyperlink, another cursor, and colours.
const EVERY_MODE: &str = "\\033[?1049h\\033[?1000h\\033[?1003h\\033[?1006h\\033[?1004h\\033[?2004h\\033[?25l\\033[>1u\\033[>5u\
                          \\033[>4;2m\\033=\\033[?1h\\033(0\\033[4h\\033[3;9r\\033[?7l\\033]8;;http://x\\033\\\\\\033[5 q\
                          \\033[1;31mset";

/// Waits for a line, sets every mode, and repeats lines.
fn every_mode() -> String {
    format!(
        "stty -echo; echo ready; read x; printf '{EVERY_MODE}'; while read -r line; do echo \"got:$line\"; done"
    )
}

fn same_settings(one: &Termios, other: &Termios) {
    assert_eq!(one.input_modes, other.input_modes);
    assert_eq!(one.output_modes, other.output_modes);
    assert_eq!(one.control_modes, other.control_modes);
    assert_eq!(one.local_modes, other.local_modes);
}

fn as_it_was(tty: &Tty) {
    same_settings(&tty.settings(), &tty.before);
    let terminal = tty.screen();
    let screen = terminal.screen();
    assert!(!screen.alternate_screen() && !screen.hide_cursor());
    assert!(!screen.application_keypad() && !screen.application_cursor() && !screen.bracketed_paste());
    assert_eq!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None);
    assert_eq!(screen.fgcolor(), vt100::Color::Default);
    assert!(!screen.bold());
    let output = tty.output.get();
    let (_, after) = output.split_once("\u{1b}[1;31mset").expect("the modes were set");
    for undone in [
        "\u{1b}[<2u",
        "\u{1b}[>4m",
        "\u{1b}]8;;\u{1b}\\",
        "\u{1b}[0 q",
        "\u{1b}(B",
        "\u{1b}[4l",
        "\u{1b}[r",
        "\u{1b}[?7h",
        "\u{1b}[?1004l",
        "\u{1b}[?1003l",
    ] {
        assert!(after.contains(undone), "{undone:?} in {after:?}");
    }
}

async fn attached(world: &World, session: &SessionId) -> Tty {
    let tty = Tty::dd_client(world, &["session", "attach", session.as_str()], 80, 24);
    tty.output.until("ready").await;
    tty
}

#[tokio::test]
async fn the_terminal_is_as_before_after_every_kind_of_end() {
    let world = World::start().await;
    for end in ["key", "key twice", "hang up", "interrupt", "terminate", "quit", "session"] {
        let session = world.session(&every_mode()).await;
        let mut tty = attached(&world, &session).await;
        tty.type_in(b"go\r").await;
        tty.output.until("\u{1b}[1;31mset").await;
        assert!(tty.screen().screen().alternate_screen());
        let code = match end {
            "key" => {
                tty.type_in(b"\x1d").await;
                tty.output.until("d leave").await;
                tty.type_in(b"d").await;
                0
            }
            "key twice" => {
                tty.type_in(b"\x1d\x1d").await;
                0
            }
            "session" => {
                world.dd_ok(&["session", "close", session.as_str()]).await;
                0
            }
            signal => {
                let (signal, code) = match signal {
                    "hang up" => (Signal::HUP, 129),
                    "interrupt" => (Signal::INT, 130),
                    "quit" => (Signal::QUIT, 131),
                    _ => (Signal::TERM, 143),
                };
                tty.signal(signal);
                code
            }
        };
        assert_eq!(tty.exit_code().await, code, "{end}: {:?}", tty.output.get());
        tty.output.all().await;
        as_it_was(&tty);
        let told = if end == "session" { "the session has ended" } else { "the session continues" };
        assert!(tty.output.get().contains(told), "{end}");
    }
}

#[tokio::test]
async fn a_panic_puts_the_terminal_in_order_too() {
    let (pty, slave) = pty_process::open().unwrap();
    let end = |fd: &dyn AsFd| fd.as_fd().try_clone_to_owned().unwrap();
    // `pty_process` lets nobody else use the slave, so it is opened again by the master's name.
    let name = rustix::pty::ptsname(pty.as_fd(), Vec::new()).unwrap();
    drop(slave);
    let slave = std::fs::OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let before = tcgetattr(&slave).unwrap();
    let viewer = Viewer::on(end(&slave), end(&slave));
    viewer.show(b"\x1b[?1049h\x1b[?25l\x1b[>1uset".to_vec()).await.unwrap();
    let (mut reading, _writing) = pty.into_split();
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    while !String::from_utf8_lossy(&seen).contains("set") {
        let length = within("output", reading.read(&mut buffer)).await.unwrap();
        seen.extend(&buffer[..length]);
    }
    assert!(!tcgetattr(&slave).unwrap().local_modes.contains(rustix::termios::LocalModes::ICANON));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _viewer = viewer;
        panic!("as a bug would");
    }));
    assert!(panicked.is_err());
    same_settings(&tcgetattr(&slave).unwrap(), &before);
    while !String::from_utf8_lossy(&seen).contains("\u{1b}[?25h") {
        let length = within("output", reading.read(&mut buffer)).await.unwrap();
        seen.extend(&buffer[..length]);
    }
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(seen.contains("\u{1b}[?1049l") && seen.contains("\u{1b}[<1u"), "{seen:?}");
}

#[tokio::test]
async fn every_encoding_of_the_key_leaves_and_a_paste_does_not() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    for pieces in [
        &["\u{1b}[93;5u", "d"][..],
        &["\u{1b}[", "93;5:1", "u", "\u{1b}[93;5:3u", "d"],
        &["\u{1b}[27;5;93~", "d"],
        &["\u{1b}[93;133u", "\u{1b}[100u"],
    ] {
        let mut tty = attached(&world, &session).await;
        for piece in pieces {
            tty.type_in(piece.as_bytes()).await;
        }
        assert_eq!(tty.exit_code().await, 0, "{pieces:?}");
    }
    let mut tty = attached(&world, &session).await;
    // The session has not asked for brackets, and gets none.
    tty.type_in(b"\x1b[200~a\x1d\x1b[93;5ub\x1b[201~\r").await;
    tty.output.until("got:a\u{1d}\u{1b}[93;5ub\r\n").await;
    tty.type_in(b"\x1d]\r").await;
    tty.output.until("got:\u{1d}\r\n").await;
    tty.type_in(b"\x1dd").await;
    assert_eq!(tty.exit_code().await, 0);
}

#[test]
fn keys_are_told_apart_wherever_they_are_split() {
    let leader = |text: &str, brackets| {
        let whole = typed(&[text.as_bytes()], brackets);
        for at in 1..text.len() {
            let (one, other) = text.as_bytes().split_at(at);
            assert_eq!(typed(&[one, other], brackets), whole, "{text:?} at {at}");
        }
        let single: Vec<_> = text.as_bytes().chunks(1).collect();
        assert_eq!(typed(&single, brackets), whole, "{text:?} byte by byte");
        whole
    };
    let bytes = |text: &str| Typed::Bytes(text.as_bytes().to_vec());
    for text in
        ["\u{1d}", "\u{1b}[93;5u", "\u{1b}[93;5:1u", "\u{1b}[93:125;5:2u", "\u{1b}[27;5;93~", "\u{1b}[93;69u"]
    {
        assert_eq!(leader(&format!("a{text}b"), true), [bytes("a"), Typed::Leader, bytes("b")], "{text:?}");
    }
    assert_eq!(leader("\u{1b}[93;5:3u", true), [], "let go");
    for other in [
        "\u{1b}[93;1u",
        "\u{1b}[93;7u",
        "\u{1b}[92;5u",
        "\u{1b}[A",
        "\u{1b}[27;5;9~",
        "\u{1b}x",
        "\u{1b}\u{1b}[A",
        "\u{1b}[<0;1;1M",
    ] {
        assert_eq!(leader(other, true), [bytes(other)], "{other:?}");
    }
    let paste = "\u{1b}[200~a\u{1d}b\u{1b}[93;5u\u{1b}[201~";
    assert_eq!(leader(paste, true), [bytes(paste)]);
    assert_eq!(leader(paste, false), [bytes("a\u{1d}b\u{1b}[93;5u")]);
    assert_eq!(leader(&format!("{paste}\u{1d}"), true), [bytes(paste), Typed::Leader]);
}

/// The pieces as one row of keys.
fn typed(pieces: &[&[u8]], brackets: bool) -> Vec<Typed> {
    let mut keys = Keys::default();
    let mut all: Vec<Typed> = Vec::new();
    let mut pieces: Vec<Vec<Typed>> = pieces.iter().map(|piece| keys.feed(piece, brackets)).collect();
    pieces.push(vec![Typed::Bytes(keys.flush())]);
    for typed in pieces.concat() {
        match (all.last_mut(), typed) {
            (_, Typed::Bytes(bytes)) if bytes.is_empty() => {}
            (Some(Typed::Bytes(before)), Typed::Bytes(bytes)) => before.extend(bytes),
            (_, typed) => all.push(typed),
        }
    }
    all
}

#[test]
fn whatever_a_session_prints_is_undone() {
    use rand::{Rng, SeedableRng};
    let mut rng = rand::rngs::StdRng::seed_from_u64(7);
    let words = [
        "\x1b[?1049h",
        "\x1b[?47h",
        "\x1b[?1049l",
        "\x1b[?25l",
        "\x1b[?1000h",
        "\x1b[?1002;1006h",
        "\x1b[?2004h",
        "\x1b=",
        "\x1b[?1h",
        "\x1b[31;1;7m",
        "\x1b[?6h",
        "\x1b[2;5r",
        "\x1bc",
        "\x1b]0;title",
        "\x07",
        "\x1b\\",
        "\x1b[",
        "\x1b",
        "\x18",
        "text",
        "\u{9b}?25l",
        "\x1bP",
        ";",
        "1",
        "\x1b]8;;x\x1b\\",
        "\x1b[4h",
        "é",
    ];
    for round in 0..2_000 {
        let count = rng.gen_range(0..30);
        let mut output = Vec::new();
        for _ in 0..count {
            match rng.gen_range(0..8) {
                0 => output.push(rng.r#gen::<u8>()),
                _ => output.extend(words[rng.gen_range(0..words.len())].as_bytes()),
            }
        }
        let (mut whole, mut pieces) = (Modes::default(), Modes::default());
        whole.feed(&output);
        output.chunks(1).for_each(|piece| pieces.feed(piece));
        let undo = whole.undo();
        assert_eq!(pieces.undo(), undo, "round {round}: {:?}", String::from_utf8_lossy(&output));
        let mut terminal = vt100::Parser::default();
        terminal.process(&output);
        terminal.process(undo.as_bytes());
        terminal.process(b"x");
        let screen = terminal.screen();
        let sane = !screen.alternate_screen()
            && !screen.hide_cursor()
            && !screen.application_keypad()
            && !screen.application_cursor()
            && !screen.bracketed_paste()
            && screen.mouse_protocol_mode() == vt100::MouseProtocolMode::None
            && screen.fgcolor() == vt100::Color::Default
            && !screen.inverse();
        assert!(sane, "round {round}: {:?} then {undo:?}", String::from_utf8_lossy(&output));
    }
}

#[tokio::test]
async fn a_session_is_not_attached_to_inside_itself() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let arguments = ["session", "attach", session.as_str()];
    let inside = [("SESSIONCAP_SESSION", session.as_str())];
    let mut tty = Tty::dd_client_in(&world, &arguments, &inside, (80, 24));
    assert_eq!(tty.exit_code().await, 1);
    assert!(tty.output.all().await.contains("--nested"));
    let nested = [&arguments[..], &["--nested"]].concat();
    let mut tty = Tty::dd_client_in(&world, &nested, &inside, (80, 24));
    tty.output.until("ready").await;
    tty.type_in(b"\x1d\x1d").await;
    assert_eq!(tty.exit_code().await, 0);
}

#[tokio::test]
async fn a_viewer_comes_back_after_every_passing_failure() {
    let (proxy, world) = Proxy::before_an_agent().await;
    let session = world.session(ECHO).await;
    let mut tty = attached(&world, &session).await;
    for (number, mood) in [Mood::BadGateway, Mood::Closes, Mood::Stranger].into_iter().enumerate() {
        let seen = tty.output.bytes().len();
        proxy.set(mood);
        tty.output
            .until_holds("the outage", |text| {
                text.get(seen..).is_some_and(|new| new.contains("agent not reachable since"))
            })
            .await;
        proxy.asked_again(2).await;
        // Keys go nowhere meanwhile.
        tty.type_in(b"lost\r").await;
        proxy.set(Mood::Forwards);
        // The screen that comes with the new connection.
        let seen = tty.output.bytes().len();
        tty.output
            .until_holds("the screen", |text| text.get(seen..).is_some_and(|new| new.contains("ready")))
            .await;
        tty.type_in(format!("line {number}\r").as_bytes()).await;
        tty.output.until(&format!("got:line {number}")).await;
    }
    assert!(!tty.output.get().contains("got:lost"));
    // What the agent says in the channel is final.
    proxy.set(Mood::BadGateway);
    tty.output.until_holds("the outage", |text| text.matches("agent not reachable since").count() > 3).await;
    // The desktop's own address: the proxy is not asked.
    let direct = world.url.to_string();
    world.dd_ok(&["--agent", &direct, "session", "close", session.as_str()]).await;
    proxy.set(Mood::Forwards);
    assert_eq!(tty.exit_code().await, 0);
    assert!(tty.output.all().await.contains("the session has ended"));
    same_settings(&tty.settings(), &tty.before);
}

#[tokio::test]
async fn a_viewer_can_leave_while_the_agent_is_away_and_while_the_link_is_frozen() {
    let (proxy, world) = Proxy::before_an_agent().await;
    let session = world.session(ECHO).await;
    let mut tty = attached(&world, &session).await;
    proxy.set(Mood::Closes);
    tty.output.until("agent not reachable since").await;
    tty.type_in(b"\x1dd").await;
    assert_eq!(tty.exit_code().await, 0);
    proxy.set(Mood::Forwards);
    let mut tty = attached(&world, &session).await;
    proxy.set(Mood::Frozen);
    tty.type_in(b"into the void\r").await;
    tty.type_in(b"\x1dd").await;
    assert_eq!(tty.exit_code().await, 0);
    same_settings(&tty.settings(), &tty.before);
}

/// Takes as long as the liveness rule says: the program measures it.
#[tokio::test]
async fn a_frozen_link_is_noticed_and_said() {
    let (proxy, world) = Proxy::before_an_agent().await;
    let session = world.session(ECHO).await;
    let mut tty = attached(&world, &session).await;
    proxy.set(Mood::Frozen);
    tty.output.until("agent not reachable since").await;
    proxy.set(Mood::Forwards);
    tty.output.until_holds("the screen again", |text| text.matches("ready").count() > 1).await;
    tty.type_in(b"after\r").await;
    tty.output.until("got:after").await;
}
