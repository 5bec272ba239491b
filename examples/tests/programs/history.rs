//! The contents of the audit file, and what a desktop reads of it.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::{Value, json};

use super::phone;
use super::revocation::follow;
use super::wire::redeem;
use super::world::{ECHO, World, eventually, new_directory};
use sessioncap_programs::desktop::log::lines;
use sessioncap_programs::desktop::{Log, Logged};

async fn json_log(world: &World, arguments: &[&str]) -> Vec<Value> {
    let log = world.dd_ok(&[&["session", "log", "--json"], arguments].concat()).await;
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn events(log: &[Value]) -> Vec<&str> {
    log.iter().map(|record| record["event"].as_str().unwrap()).collect()
}

/// That these come in this order.
fn assert_told(log: &str, story: &[&str]) {
    let mut rest = log;
    for part in story {
        let at = rest.find(part).unwrap_or_else(|| panic!("no `{part}` in its place: {log}"));
        rest = &rest[at..];
    }
}

#[tokio::test]
async fn a_sessions_log_tells_its_story_in_order_and_no_secret() {
    let world = World::start().await;
    let (session, other) = (world.session(ECHO).await, world.session(ECHO).await);
    let mut elsewhere = world.pair(&other, &["--label", "elsewhere"]).await;
    elsewhere.desktop.signal(rustix::process::Signal::INT);
    elsewhere.desktop.exit_code().await;
    let pairing = world.pair(&session, &["--label", "kitchen"]).await;
    let mut companion =
        world.companion("phone.json", &["join", &pairing.text, "--attach", "--label", "pixel"]);
    companion.stdout.until("ready").await;
    let kept: Value = serde_json::from_slice(&std::fs::read(world.file("phone.json")).unwrap()).unwrap();
    world.dd_ok(&["session", "renew", session.as_str(), &pairing.ticket, "--ops", "stream_output"]).await;
    world.dd_ok(&["session", "revoke", &pairing.ticket]).await;
    assert_eq!(companion.exit_code().await, 1);
    world.dd_ok(&["session", "close", session.as_str()]).await;

    // Events that were answered are in the file already.
    let log = json_log(&world, &[session.as_str()]).await;
    let story =
        ["ticket_offered", "ticket_redeemed", "phone_attached", "credential_renewed", "credential_revoked"];
    assert_eq!(events(&log)[..5], story);
    let text = world.dd_ok(&["session", "log", session.as_str()]).await;
    assert_told(
        &text,
        &[
            "code offered: read_metadata",
            "(`kitchen`)",
            "code redeemed",
            "(`kitchen`, `pixel`)",
            "attached: read_metadata",
            "renewed: stream_output until 2",
            "revoked: by its owner",
        ],
    );
    assert!(!text.contains("elsewhere"), "{text}");
    let all = world.dd_ok(&["session", "log", "--all"]).await;
    assert_told(
        &all,
        &[
            "the agent was started",
            "a desktop registered its key",
            "`elsewhere`",
            "code revoked",
            "`kitchen`",
        ],
    );

    let digits = pairing.text.split_once('#').unwrap().1;
    for shown in [text, all, Value::from(log).to_string()] {
        for secret in [digits, kept["holder_key"].as_str().unwrap(), kept["credential"].as_str().unwrap()] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_log_shows_where_the_agent_was_started_again_and_where_records_are_missing() {
    let mut world = World::start().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &[]).await;
    let _stream = follow(redeem(&world, &pairing.link, &phone(1)).await.unwrap().stream).await;
    // The visit is written with the next settling.
    eventually("the visit is in the log", || async {
        events(&json_log(&world, &[session.as_str()]).await).len() > 2
    })
    .await;
    let whole = json_log(&world, &[session.as_str()]).await;
    assert_eq!(events(&whole), ["ticket_offered", "ticket_redeemed", "phone_attached"]);

    let file = world.file("agent/audit.jsonl");
    world.restart(|_| ()).await;
    let text = world.dd_ok(&["session", "log", session.as_str()]).await;
    assert_told(&text, &["attached", "-- the agent was started again --"]);
    assert!(!text.contains("missing"), "{text}");

    // A writer that was killed leaves half a line, which goes, and somebody takes a whole one out.
    world
        .restart(|_| {
            let records = std::fs::read_to_string(&file).unwrap();
            let kept: Vec<_> = records.lines().filter(|line| !line.contains("ticket_redeemed")).collect();
            std::fs::write(&file, kept.join("\n") + "\n{\"opening\":1,\"sequ").unwrap();
        })
        .await;
    let text = world.dd_ok(&["session", "log", session.as_str()]).await;
    assert_told(
        &text,
        &["code offered", "-- records are missing here --", "attached", "-- the agent was started again --"],
    );
    assert_eq!(text.matches("missing").count(), 1, "{text}");
    let records = std::fs::read_to_string(&file).unwrap();
    assert!(records.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{records}");
}

#[tokio::test]
async fn a_long_log_is_shown_from_its_last_thousand_on() {
    let directory = new_directory();
    std::fs::create_dir_all(directory.join("agent")).unwrap();
    let mut file = std::fs::File::create(directory.join("agent/audit.jsonl")).unwrap();
    let mut records = String::new();
    for number in 0..2_500 {
        let session = if number % 2 == 0 { "even" } else { "odd" };
        let record = json!({
            "opening": 1, "sequence": number, "at": "2026-01-01T00:00:00Z", "event": "phone_attached",
            "session": session, "credential": "ab".repeat(16), "holder": "cd".repeat(32), "ops": ["stream_output"],
        });
        writeln!(records, "{record}").unwrap();
    }
    file.write_all(records.as_bytes()).unwrap();
    let world = World::start_with(directory, &[]).await;
    let sequence =
        |log: &[Value]| log.iter().map(|r| r["sequence"].as_u64().unwrap_or(u64::MAX)).collect::<Vec<_>>();
    let odd = json_log(&world, &["odd"]).await;
    assert_eq!(sequence(&odd[..1_000]), (0..1_000).map(|n| 501 + 2 * n).collect::<Vec<_>>());
    assert_eq!(events(&odd[1_000..]), ["agent_started_again"]);
    let text = world.dd_ok(&["session", "log", "odd"]).await;
    assert!(text.starts_with("earlier records are in the agent's audit file"), "{text}");
    assert!(!text.contains("missing"));
    let all = json_log(&world, &["--all"]).await;
    assert_eq!((sequence(&all)[0], all.len()), (1_501, 1_000));
}

#[test]
fn a_line_of_the_log_is_no_wider_than_its_window_and_steers_no_terminal() {
    let record = json!({
        "at": "2026-01-01T00:00:00Z", "event": "ticket_redeemed", "credential": "ab".repeat(16),
        "label": "x\u{1b}[2J".repeat(10), "ops": [], "session": "s",
    });
    let entries = vec![Logged { record, restarted: true, missing: true }];
    let log = Log { entries, earlier: true, ..Log::default() };
    for width in [10, 40, 80] {
        for line in lines(&log, false, Some(width)).iter().filter(|line| line.starts_with("2026")) {
            assert!(line.chars().count() <= width && !line.contains('\u{1b}'), "{line}");
        }
    }
}

#[tokio::test]
async fn an_agent_without_an_audit_file_says_so() {
    let world = World::start_with(new_directory(), &["--audit", "none", "--in-memory"]).await;
    let output = world.dd(&["session", "log", "--all"]).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("without an audit file"));
    assert!(!world.file("agent/audit.jsonl").exists());
}
