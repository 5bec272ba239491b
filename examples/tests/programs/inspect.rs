//! `inspect`: explains links, credentials and ledgers, shows no secret, and changes no file.

use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustix::process::Signal;
use serde_json::{Value, json};
use sessioncap::agent::ledger::{Changes, Ledger, Overlay, RedbLedger, Table};
use sessioncap::{CredentialBytes, IssuerSecretKey, Link};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::world::{ECHO, World, new_directory, program, within};

/// Runs it to its end: exit code, standard output, standard error.
async fn inspect(arguments: &[&str]) -> (i32, String, String) {
    inspect_with(arguments, "").await
}

async fn inspect_with(arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut command = Command::new(program("inspect"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may have ended without reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
    let output = within("the end of inspect", child.wait_with_output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

async fn inspect_json(arguments: &[&str]) -> (i32, Value) {
    let (code, out, told) = inspect(&[&["--json"], arguments].concat()).await;
    assert!(told.is_empty(), "{told}");
    assert_eq!(out.lines().count(), 1, "{out}");
    (code, serde_json::from_str(&out).unwrap())
}

/// In hexadecimal and base64, whole and in parts.
fn assert_without(shown: &str, secrets: &[Vec<u8>]) {
    let lower = shown.to_lowercase();
    for secret in secrets {
        for part in secret.chunks_exact(12) {
            let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(!lower.contains(&hex), "{shown}");
            assert!(!shown.contains(&STANDARD.encode(part)), "{shown}");
            assert!(!shown.contains(&URL_SAFE_NO_PAD.encode(part)), "{shown}");
        }
    }
}

fn ticket_secrets(link: &Link) -> Vec<Vec<u8>> {
    let ticket = link.ticket();
    vec![ticket.expose_bytes().to_vec(), ticket.public_key().as_bytes().to_vec()]
}

/// Of a phone's state file: its key, the key for the next block, and the beginning of the credential.
fn kept_secrets(file: &Path) -> Vec<Vec<u8>> {
    let kept: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let decode = |name: &str| URL_SAFE_NO_PAD.decode(kept[name].as_str().unwrap()).unwrap();
    let credential = decode("credential");
    vec![decode("holder_key"), credential[credential.len() - 32..].to_vec(), credential[..36].to_vec()]
}

#[tokio::test]
async fn a_link_is_explained_without_its_secret() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    for (more, form) in [(&[][..], "agent"), (&["--link-host", "pair.example"], "link_host")] {
        let pairing = world.pair(&session, more).await;
        let (code, explained) = inspect_json(&["link", &pairing.text]).await;
        assert_eq!(code, 0, "{explained}");
        assert_eq!((&explained["form"], &explained["version"]), (&json!(form), &json!(1)));
        assert_eq!(explained["ticket"], pairing.ticket.as_str());
        assert_eq!(explained["agent_key"], world.key.to_string());
        assert_eq!(explained["agent_url"], world.url.to_string());
        assert_eq!(explained["link_host"] == "pair.example", form == "link_host");
        let (code, text, told) = inspect_with(&["link", "-"], &format!("{}\n", pairing.text)).await;
        assert!(code == 0 && text.contains(&pairing.ticket) && told.is_empty(), "{text}{told}");
        let own = pairing.link.to_custom_scheme("example-app").unwrap();
        let (_, custom) = inspect_json(&["link", &own]).await;
        assert_eq!((&custom["form"], &custom["scheme"]), (&json!("own_scheme"), &json!("example-app")));
        let digits = pairing.text.split_once('#').unwrap().1.split('/').next().unwrap().to_owned();
        for shown in [explained.to_string(), text, custom.to_string()] {
            assert!(!shown.contains(&digits) && !shown.contains(&digits[..34]), "{shown}");
            assert_without(&shown, &ticket_secrets(&pairing.link));
        }
        let (origin, fragment) = pairing.text.split_once('#').unwrap();
        let newer = format!("{origin}#{}", fragment.replacen(&digits[..2], "99", 1));
        for (wrong, classes) in [
            (pairing.text.replace("https", "http"), &["not_a_link"][..]),
            ("hello".to_owned(), &["not_a_link"]),
            (pairing.text.replacen(&digits, &digits[..digits.len() - 1], 1), &["damaged"]),
            (newer, &["damaged", "unknown_version"]),
        ] {
            let (code, error) = inspect_json(&["link", &wrong]).await;
            let class = error["class"].as_str().unwrap();
            assert!(code == 1 && classes.contains(&class), "{error}");
            let (_, out, told) = inspect(&["link", &wrong]).await;
            assert!(out.is_empty() && !told.contains(&digits[..34]), "{told}");
        }
    }
}

#[tokio::test]
async fn a_credential_is_explained_and_a_request_decided_as_the_agent_would() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &["--expires", "1h"]).await;
    assert_eq!(world.companion_done("phone.json", &["join", &pairing.text]).await.0, 0);
    let (phone, widget) = (world.file("phone.json"), world.file("widget.json"));
    let narrow = ["narrow", "--ops", "read_metadata,stream_output", "--out", widget.to_str().unwrap()];
    assert_eq!(world.companion_done("phone.json", &narrow).await.0, 0);
    let issuer = std::fs::read(world.file("desktop/issuer.key")).unwrap();
    let issuer = IssuerSecretKey::from_bytes(issuer.try_into().unwrap()).public().to_string();
    let secrets = [kept_secrets(&phone), kept_secrets(&widget), ticket_secrets(&pairing.link)].concat();
    let file = widget.to_str().unwrap();

    let (code, explained) = inspect_json(&["credential", file]).await;
    assert_eq!(code, 0, "{explained}");
    assert_eq!((&explained["narrowed"], &explained["sealed"]), (&json!(1), &json!(false)));
    assert_eq!(explained["signatures"], "not checked");
    assert_eq!(explained["scope"]["ops"], json!(["read_metadata", "stream_output"]));
    let by: Vec<_> = explained["blocks"].as_array().unwrap().iter().map(|block| &block["by"]).collect();
    assert_eq!(by, ["desktop", "agent", "holder"]);
    assert_without(&explained.to_string(), &secrets);
    let (_, of_phone) = inspect_json(&["credential", phone.to_str().unwrap()]).await;
    assert_eq!(of_phone["edition"], explained["edition"], "a narrowed copy is of the same edition");
    let kept: Value = serde_json::from_slice(&std::fs::read(&widget).unwrap()).unwrap();
    let text = kept["credential"].as_str().unwrap();
    assert_eq!(inspect_json(&["credential", text]).await.1, explained, "as a text");

    let (code, good) = inspect_json(&["credential", file, "--issuer", &issuer]).await;
    assert_eq!((code, &good["signatures"]), (0, &json!("right")));
    let other = IssuerSecretKey::from_bytes([1; 32]).public().to_string();
    let (code, wrong) = inspect_json(&["credential", file, "--issuer", &other]).await;
    assert_eq!((code, &wrong["signatures"]), (1, &json!("wrong")));

    let decide = |op: &'static str, at: &'static str, more: Vec<String>| {
        let mut arguments: Vec<String> =
            ["credential", file, "--issuer", &issuer, "--decide", op, "--at", at].map(str::to_owned).to_vec();
        arguments.extend(more);
        async move {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let (code, decided) = inspect_json(&arguments).await;
            assert_eq!(decided["record"], "assumed live");
            let reasons = decided["decisions"].as_array().unwrap().iter();
            let reasons = reasons.flat_map(|decision| decision["reasons"].as_array().unwrap().clone());
            let name = |reason: Value| match reason["caveat"].as_str() {
                Some(caveat) => format!("{} {caveat}", reason["block"]),
                None => reason["code"].as_str().unwrap().to_owned(),
            };
            (code, reasons.map(name).collect::<Vec<_>>())
        }
    };
    let none = Vec::<String>::new();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    assert_eq!(decide("stream_output,read_metadata", "now", none.clone()).await, (0, none.clone()));
    assert_eq!(decide("send_input", "now", none.clone()).await, (1, words(&["2 ops"])));
    assert_eq!(decide("access_files", "now", none.clone()).await, (1, words(&["privilege_denied"])));
    let late = decide("stream_output", "2999-01-01T00:00:00Z", none.clone()).await;
    assert_eq!(late, (1, words(&["0 expires_at", "1 expires_at"])));
    let elsewhere = decide("stream_output", "now", words(&["--session", "another", "--epoch", "77"])).await;
    assert_eq!(elsewhere, (1, words(&["0 session", "1 epoch"])));
    let agent = format!("{}@wss://other.example", world.key);
    assert_eq!(decide("stream_output", "now", words(&["--agent", &agent])).await, (1, words(&["0 agent"])));
    let holder = words(&["--holder", &super::phone(9).public().to_string()]);
    let (code, reasons) = decide("stream_output", "now", holder).await;
    assert!(code == 1 && reasons.contains(&"1 holder".to_owned()), "{reasons:?}");
    let rules = world.file("rules");
    std::fs::write(&rules, "deny if operation(\"stream_output\");").unwrap();
    let ruled = decide("stream_output", "now", words(&["--rules", rules.to_str().unwrap()])).await;
    assert_eq!(ruled, (1, words(&["operator_rule"])));

    let decided =
        inspect(&["credential", file, "--issuer", &issuer, "--decide", "send_input", "--at", "now"]).await;
    assert!(decided.1.contains("send_input: refused") && decided.1.contains("record of it is live"));
    assert_without(&format!("{decided:?}"), &secrets);
    // A credential that is damaged is not repeated.
    let (code, out, told) = inspect(&["credential", &text[..text.len() - 8]]).await;
    assert!(code == 1 && out.is_empty() && !told.contains(&text[..20]), "{told}");
    assert_eq!(
        inspect(&["credential", file, "--decide", "resize"]).await.0,
        2,
        "it needs a time and an issuer"
    );
}

fn remove_one_index_row(file: &Path) -> String {
    let ledger = RedbLedger::open(file).unwrap();
    let mut removed = String::new();
    ledger
        .transact(&mut |snapshot| {
            let mut rows = Overlay::new(snapshot);
            let (key, _) = snapshot.range(Table::ByTime, &[], None, 1)?.remove(0);
            removed = key.iter().map(|byte| format!("{byte:02x}")).collect();
            rows.remove(Table::ByTime, &key);
            let changes: Changes = rows.into_changes()?;
            Ok(changes)
        })
        .unwrap();
    removed
}

#[tokio::test]
async fn a_stopped_agents_ledger_is_shown_and_checked_and_stays_as_it_is() {
    let mut world = World::start().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &["--label", "kitchen phone"]).await;
    assert_eq!(world.companion_done("phone.json", &["join", &pairing.text]).await.0, 0);
    let waiting = world.pair(&session, &[]).await;
    let file = world.file("agent/ledger.redb");
    let path = file.to_str().unwrap().to_owned();
    let (code, error) = inspect_json(&["ledger", "check", &path]).await;
    assert_eq!((code, &error["error"]), (2, &json!("ledger_in_use")), "{error}");
    assert!(error["detail"].as_str().unwrap().contains("stop that agent first"));
    assert_eq!(inspect(&["ledger", "dump", &path]).await.0, 2);

    // Killed: the file was not closed.
    world.agent.signal(Signal::KILL);
    world.agent.exit_code().await;
    let before = std::fs::read(&file).unwrap();
    let (code, check) = inspect_json(&["ledger", "check", &path]).await;
    assert_eq!((code, &check["sound"], &check["format"]), (0, &json!(true), &json!(3)), "{check}");
    let (code, text, _) = inspect(&["ledger", "check", &path]).await;
    assert!(code == 0 && text.contains("sound") && text.contains("the file was not changed"), "{text}");
    let (code, dump) = inspect_json(&["ledger", "dump", &path]).await;
    assert_eq!(code, 0);
    let (_, lines, _) = inspect(&["ledger", "dump", &path]).await;
    assert!(lines.contains("state=active") && lines.contains("label=\"kitchen phone\""), "{lines}");
    let rows = dump["rows"].as_array().unwrap();
    let find = |ticket: &str, row: &str| {
        rows.iter().find(|found| found["ticket"] == ticket && found["row"] == row).unwrap().clone()
    };
    assert_eq!(find(&waiting.ticket, "ticket")["state"], "open");
    let active = find(&pairing.ticket, "credential");
    assert_eq!((&active["state"], &active["label"]), (&json!("active"), &json!("kitchen phone")));
    let (_, credential) = inspect_json(&["credential", world.file("phone.json").to_str().unwrap()]).await;
    assert!(rows.iter().any(|row| row["edition"] == credential["edition"] && row["in_use"] == true));
    let secrets = [
        kept_secrets(&world.file("phone.json")),
        ticket_secrets(&pairing.link),
        ticket_secrets(&waiting.link),
    ];
    for shown in [dump.to_string(), lines, check.to_string()] {
        assert_without(&shown, &secrets.concat());
    }
    assert_eq!(std::fs::read(&file).unwrap(), before);

    let removed = remove_one_index_row(&file);
    let (code, check) = inspect_json(&["ledger", "check", &path]).await;
    assert_eq!((code, &check["sound"]), (1, &json!(false)));
    let finding = &check["findings"][0];
    assert_eq!((&finding["table"], &finding["key"]), (&json!("by_time"), &json!(removed)));
    assert_eq!(finding["damage"], "missing_index");
    let (_, text, _) = inspect(&["ledger", "check", &path]).await;
    assert!(text.contains("DAMAGED") && text.contains(&removed), "{text}");

    for place in [10, 100, 5_000, 20_000] {
        let mut damaged = before.clone();
        damaged[place..place + 60].fill(0xa5);
        std::fs::write(&file, &damaged).unwrap();
        let (code, out, told) = inspect(&["ledger", "check", &path]).await;
        assert!((0..=2).contains(&code) && !format!("{out}{told}").contains("panicked"), "{out}{told}");
        assert_eq!(std::fs::read(&file).unwrap(), damaged);
    }
}

#[tokio::test]
async fn a_file_that_is_no_ledger_is_said_to_be_none() {
    let directory = new_directory();
    let file = directory.join("file");
    let path = file.to_str().unwrap();
    assert_eq!(inspect(&["ledger", "check", path]).await.0, 2, "there is none");
    assert!(!file.exists());
    std::fs::write(&file, "notes").unwrap();
    let (code, error) = inspect_json(&["ledger", "check", path]).await;
    assert_eq!((code, &error["error"]), (1, &json!("ledger_corrupt")));
    assert_eq!(inspect(&["ledger", "dump", directory.to_str().unwrap()]).await.0, 2);
    let bytes = CredentialBytes::new(vec![7; 40]).unwrap().to_text();
    assert_eq!(inspect(&["credential", &bytes]).await.0, 1);
    std::fs::remove_dir_all(directory).unwrap();
}
