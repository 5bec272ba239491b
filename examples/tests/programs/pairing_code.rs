//! `session pair-mobile` for people: a code that fits, digits that were compared, and a code that is taken back.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};
use sessioncap::{HolderSecretKey, Link, SessionId, Status};
use sessioncap_programs::desktop::log::lines;
use sessioncap_programs::desktop::{Log, Logged};
use sessioncap_programs::terminal::columns;
use sessioncap_programs_tests as screen;

use super::proxy::{Mood, Proxy};
use super::tty::Tty;
use super::wire::{Told, redeem};
use super::world::{ECHO, Pairing, Running, World, dd_client, within};

fn phone(seed: u8) -> HolderSecretKey {
    HolderSecretKey::from_bytes([seed; 32])
}

async fn pair_on(world: &World, session: &SessionId, more: &[&str], size: (u16, u16)) -> Tty {
    let arguments = [&["session", "pair-mobile", session.as_str()], more].concat();
    Tty::dd_client_in(world, &arguments, &[], size)
}

#[tokio::test]
async fn a_window_of_any_size_shows_a_whole_code_or_says_what_to_do() {
    let world = World::start().await;
    for (columns, lines) in [(80, 24), (80, 25), (80, 26), (80, 40), (50, 24), (200, 60)] {
        let session = world.session(ECHO).await;
        let tty = pair_on(&world, &session, &[], (columns, lines)).await;
        tty.output.until("once").await;
        // What can still be seen, not what has scrolled away.
        let visible = tty.screen().screen().contents_formatted();
        let link = Link::parse(&screen::read_qr_visible(&visible, columns, lines)).unwrap();
        assert!(redeem(&world, &link, &phone(1)).await.is_ok(), "{columns}x{lines}");
    }
    for size in [(80, 20), (40, 24), (20, 10)] {
        let session = world.session(ECHO).await;
        let tty = pair_on(&world, &session, &[], size).await;
        let told = tty.output.until("once").await;
        assert!(told.contains("too small") && told.contains("--svg") && !told.contains('\u{2580}'), "{told}");
        let link = told.lines().find(|line| line.starts_with("https://")).unwrap();
        assert!(Link::parse(link.trim_end()).is_ok());
    }
}

#[tokio::test]
async fn no_escape_code_goes_where_none_is_wanted() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let piped = world.dd_start(&["session", "pair-mobile", session.as_str()]);
    let told = piped.stdout.until("once\n").await;
    assert!(!told.contains('\u{1b}') && !told.contains('\u{2580}'), "{told}");
    for variable in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let arguments = ["session", "pair-mobile", session.as_str()];
        let tty = Tty::dd_client_in(&world, &arguments, &[variable], (100, 60));
        let told = tty.output.until("once").await;
        assert!(!told.contains('\u{1b}') && !told.contains('\u{2580}'), "{told}");
    }
    let only = pair_on(&world, &session, &["--link-only"], (200, 60)).await;
    let told = only.output.until("once").await;
    assert!(!told.contains('\u{1b}') && told.contains("https://"), "{told}");
    for (background, light) in [("dark", true), ("light", false)] {
        let session = world.session(ECHO).await;
        let plain = world.dd_start(&["session", "pair-mobile", session.as_str(), "--qr", background]);
        let told = plain.stdout.until("once\n").await;
        assert!(!told.contains('\u{1b}'), "{told}");
        let code: String =
            told.lines().take_while(|line| !line.starts_with("scan")).map(|l| format!("{l}\n")).collect();
        let link = told.lines().find(|line| line.starts_with("https://")).unwrap();
        assert_eq!(Link::parse(&screen::read_plain_qr(&code, light)), Link::parse(link));
    }
}

#[tokio::test]
async fn a_code_in_a_file_is_for_its_owner_and_reads() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let (svg, png) = (world.file("code.svg"), world.file("code.png"));
    let pairing =
        world.pair(&session, &["--svg", svg.to_str().unwrap(), "--png", png.to_str().unwrap()]).await;
    assert_eq!(Link::parse(&screen::read_picture(&png)), Ok(pairing.link.clone()));
    assert!(std::fs::read_to_string(&svg).unwrap().starts_with("<svg "));
    for file in [svg, png] {
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

/// A pairing with confirmation, and a phone that waits.
async fn waiting(world: &World, more: &[&str]) -> (Pairing, Running, String) {
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &[&["--confirm"], more].concat()).await;
    let name = format!("phone-{}.json", uuid::Uuid::new_v4().simple());
    let companion = world.companion(&name, &["join", &pairing.text]);
    let shown = companion.stderr.until("must show ").await;
    let digits = shown.trim().rsplit("show ").next().unwrap().to_owned();
    (pairing, companion, digits)
}

#[tokio::test]
async fn what_was_typed_ahead_confirms_nobody() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let mut desktop = pair_on(&world, &session, &["--confirm"], (100, 60)).await;
    let shown = desktop.output.until("once").await;
    let link = shown.lines().find(|line| line.starts_with("https://")).unwrap().trim_end().to_owned();
    desktop.type_in(b"y\ny\n").await;
    let mut companion = world.companion("phone.json", &["join", &link]);
    let digits = companion.stderr.until("must show ").await;
    let digits = digits.trim().rsplit("show ").next().unwrap().to_owned();
    let asked = desktop.output.until("anything else declines:").await;
    assert!(!asked.contains(&digits), "the digits are the phone's to show: {asked}");
    // With a space or without.
    desktop.type_in(format!("{}\n", digits.replace(' ', "")).as_bytes()).await;
    assert_eq!((desktop.exit_code().await, companion.exit_code().await), (0, 0));
}

#[tokio::test]
async fn other_digits_or_none_decline_the_phone_and_revoke_the_code() {
    let world = World::start().await;
    for answer in ["y\n", "yes\n", "\n", "000 000 \n", "1\n"] {
        let (mut pairing, mut companion, digits) = waiting(&world, &[]).await;
        assert!(!digits.starts_with("000 000"), "one in a million");
        pairing.desktop.stdout.until("pending").await;
        pairing.desktop.type_in(answer).await;
        assert_eq!((pairing.desktop.exit_code().await, companion.exit_code().await), (1, 1), "{answer:?}");
        let told = redeem(&world, &pairing.link, &phone(9)).await.err();
        assert_eq!(told, Some(Told::Status(Status::Revoked)), "{answer:?}");
    }
}

#[tokio::test]
async fn a_choice_has_the_digits_once_among_three() {
    let world = World::start().await;
    for right in [true, false] {
        let (mut pairing, mut companion, digits) = waiting(&world, &["--choose"]).await;
        let pending = pairing.desktop.stdout.until("pending").await;
        let pending: Value = serde_json::from_str(pending.lines().last().unwrap()).unwrap();
        let choices: Vec<&str> =
            pending["choices"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
        assert_eq!((choices.len(), choices.iter().filter(|choice| **choice == digits).count()), (3, 1));
        let number = choices.iter().position(|choice| (*choice == digits) == right).unwrap() + 1;
        pairing.desktop.type_in(&format!("{number}\n")).await;
        let code = i32::from(!right);
        assert_eq!((pairing.desktop.exit_code().await, companion.exit_code().await), (code, code));
    }
}

#[tokio::test]
async fn a_code_is_taken_back_once_the_agent_can_be_reached_again() {
    let (proxy, world) = Proxy::before_an_agent().await;
    let session = world.session(ECHO).await;
    for mood in [Mood::BadGateway, Mood::Closes] {
        let mut pairing = world.pair(&session, &[]).await;
        proxy.set(mood);
        pairing.desktop.stdout.until("unreachable").await;
        // The person gives up meanwhile.
        pairing.desktop.signal(Signal::TERM);
        proxy.asked_again(2).await;
        proxy.set(Mood::Forwards);
        assert_eq!(pairing.desktop.exit_code().await, 1);
        assert!(pairing.desktop.stdout.all().await.contains("\"revoked\""));
        let told = redeem(&world, &pairing.link, &phone(3)).await.err();
        assert_eq!(told, Some(Told::Status(Status::Revoked)), "{mood:?}");
    }
    // A break that passes is no end: the code is still followed.
    let pairing = world.pair(&session, &[]).await;
    proxy.set(Mood::BadGateway);
    pairing.desktop.stdout.until("unreachable").await;
    proxy.set(Mood::Forwards);
    pairing.desktop.stdout.until("\"reachable\"").await;
    assert!(redeem(&world, &pairing.link, &phone(4)).await.is_ok());
}

#[tokio::test]
async fn a_code_can_be_left_open() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let mut pairing = world.pair(&session, &["--leave-open"]).await;
    pairing.desktop.signal(Signal::TERM);
    assert_eq!(pairing.desktop.exit_code().await, 1);
    assert!(pairing.desktop.stdout.all().await.contains("left_open"));
    assert!(redeem(&world, &pairing.link, &phone(5)).await.is_ok());
}

#[tokio::test]
async fn a_code_is_shown_from_inside_a_session() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let mut tty = Tty::dd_client(&world, &["session", "attach", session.as_str()], 80, 24);
    tty.output.until("ready").await;
    tty.type_in(b"\x1dp").await;
    tty.output.until("any key takes it back").await;
    let visible = tty.screen().screen().contents_formatted();
    let link = Link::parse(&screen::read_qr_visible(&visible, 80, 24)).unwrap();
    redeem(&world, &link, &phone(6)).await.unwrap();
    tty.output.until("is in, with").await;
    tty.type_in(b" ").await;
    tty.output.until_holds("the session again", |text| text.matches("ready").count() > 1).await;
    tty.type_in(b"still\r").await;
    tty.output.until("got:still").await;
    // A code that nobody uses is taken back with the next key.
    tty.type_in(b"\x1dp").await;
    tty.output.until_holds("another code", |text| text.matches("any key takes it back").count() > 1).await;
    let visible = tty.screen().screen().contents_formatted();
    let link = Link::parse(&screen::read_qr_visible(&visible, 80, 24)).unwrap();
    tty.type_in(b" ").await;
    tty.output.until("worth nothing any more").await;
    assert_eq!(redeem(&world, &link, &phone(7)).await.err(), Some(Told::Status(Status::Revoked)));
    tty.type_in(b"\x1d\x1d").await;
    assert_eq!(tty.exit_code().await, 0);
}

#[tokio::test]
async fn an_offer_for_another_address_is_told_the_right_one() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let localhost = world.url.to_string().replace("127.0.0.1", "localhost");
    let mut command = dd_client(&world.file("desktop"));
    command.args(["--agent", &localhost, "session", "pair-mobile", session.as_str()]);
    let output = within("the refusal", command.stdin(Stdio::null()).output()).await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(told.contains("offer_mismatch") && told.contains(&world.url.to_string()), "{told}");
}

#[test]
fn wide_names_keep_the_columns_of_the_log() {
    for label in [
        "\u{53f0}\u{6240}\u{306e}\u{96fb}\u{8a71}\u{6a5f}\u{53f0}\u{6240}",
        "\u{1f4f1} phone",
        "e\u{301}te\u{301}",
    ] {
        let record = json!({
            "at": "2026-01-02T03:04:05Z", "event": "ticket_offered", "ticket": "t", "credential": "c", "label": label,
            "ops": ["read_metadata", "stream_output", "send_input", "interrupt", "receive_notifications"],
        });
        let log =
            Log { entries: vec![Logged { record, restarted: false, missing: false }], ..Log::default() };
        for width in 30..100 {
            for line in lines(&log, true, Some(width)) {
                assert!(columns(&line) <= width, "{width}: {line}");
            }
        }
    }
}
