//! The example programs, started as processes and joined over real sockets and terminals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "programs/daemon.rs"]
mod daemon;
#[path = "programs/following.rs"]
mod following;
#[path = "programs/generate.rs"]
mod generate;
#[path = "programs/history.rs"]
mod history;
#[path = "programs/hostile.rs"]
mod hostile;
#[path = "programs/hub.rs"]
mod hub;
#[path = "programs/inspect.rs"]
mod inspect;
#[path = "programs/liveness.rs"]
mod liveness;
#[path = "programs/messages.rs"]
mod messages;
#[path = "programs/operator.rs"]
mod operator;
#[path = "programs/output.rs"]
mod output;
#[path = "programs/pairing_code.rs"]
mod pairing_code;
#[path = "programs/proxy.rs"]
mod proxy;
#[path = "programs/recent.rs"]
mod recent;
#[path = "programs/renewal.rs"]
mod renewal;
#[path = "programs/revocation.rs"]
mod revocation;
#[path = "programs/shared.rs"]
mod shared;
#[path = "programs/socket.rs"]
mod socket;
#[path = "programs/tty.rs"]
mod tty;
#[path = "programs/typing.rs"]
mod typing;
#[path = "programs/viewer.rs"]
mod viewer;
#[path = "programs/waits.rs"]
mod waits;
#[path = "programs/wire.rs"]
mod wire;
#[path = "programs/world.rs"]
mod world;

use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::{Value, json};
use sessioncap::{HolderSecretKey, Link, Op, OpSet};
use sessioncap_programs_tests as screen;
use tokio::process::Command;

use proxy::Proxy;
use wire::{Told, attach, connect_device, redeem};
use world::{ECHO, World, new_directory, program, within};

fn phone(seed: u8) -> HolderSecretKey {
    HolderSecretKey::from_bytes([seed; 32])
}

#[tokio::test]
async fn the_story_runs_to_its_end() {
    let output = Command::new(program("pair_mobile")).output();
    let output = within("the story's end", output).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    for line in text.lines().filter(|line| !line.contains('\u{1b}')) {
        assert!(line.chars().count() <= 78, "{line}");
    }
}

#[tokio::test]
async fn the_code_on_the_screen_is_the_link_that_is_printed() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    for more in [&[][..], &["--link-host", "pair.example"]] {
        let arguments = [&["session", "pair-mobile", session.as_str()], more].concat();
        let desktop = tty::Tty::dd_client(&world, &arguments, 200, 60);
        let shown = desktop.output.until("once\r\n").await;
        let printed = shown.lines().find(|line| line.starts_with("https://")).unwrap();
        let link = Link::parse(printed.trim_end()).unwrap();
        assert_eq!(Link::parse(&screen::read_qr(&shown)).as_ref(), Ok(&link));
        assert_eq!((link.url(), link.agent()), (&world.url, &world.key));
    }
}

#[tokio::test]
async fn a_companion_follows_and_types_and_outlives_the_desktop() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let mut watching = world.dd_start(&["session", "attach", session.as_str()]);
    watching.stdout.until("ready").await;
    let mut pairing = world.pair(&session, &["--label", "kitchen"]).await;
    let mut companion =
        world.companion("phone.json", &["join", &pairing.text, "--attach", "--label", "pixel"]);
    companion.stdout.until("ready").await;
    assert_eq!(pairing.desktop.exit_code().await, 0);
    let redeemed = pairing.desktop.stdout.all().await;
    let redeemed: Value = serde_json::from_str(redeemed.lines().last().unwrap()).unwrap();
    assert_eq!((&redeemed["event"], &redeemed["phone"]), (&json!("redeemed"), &json!("pixel")));

    companion.type_in("one\n").await;
    companion.stdout.until("got:one").await;
    watching.stdout.until("got:one").await;

    // No desktop is connected any more.
    watching.child.kill().await.unwrap();
    companion.type_in("two\n").await;
    companion.stdout.until("got:two").await;

    let grants = world.grants().await;
    assert_eq!(grants.len(), 1);
    assert_eq!((&grants[0]["label"], &grants[0]["state"]["state"]), (&json!("kitchen"), &json!("active")));
    assert_eq!(grants[0]["connections"], 1);

    // Secrets stay in files that only their owner can read, and out of every log.
    for file in [
        "agent/noise.key",
        "agent/devices.json",
        "agent/audit.jsonl",
        "desktop/device.key",
        "desktop/issuer.key",
        "phone.json",
    ] {
        let mode = std::fs::metadata(world.file(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let kept: Value = serde_json::from_slice(&std::fs::read(world.file("phone.json")).unwrap()).unwrap();
    let digits = pairing.text.split_once('#').unwrap().1;
    for log in [world.agent.stderr.get(), world.audit(), companion.stderr.get()] {
        for secret in [digits, kept["holder_key"].as_str().unwrap(), kept["credential"].as_str().unwrap()] {
            assert!(!log.contains(secret), "{log}");
        }
    }

    // The last output arrives before the end.
    world.dd_ok(&["session", "close", session.as_str()]).await;
    assert_eq!(companion.exit_code().await, 0);
    assert!(companion.stderr.all().await.contains("the session has ended"));
}

#[tokio::test]
async fn a_companion_comes_back_by_itself_after_a_cut() {
    let (proxy, world) = Proxy::before_an_agent().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &[]).await;
    let mut companion = world.companion("phone.json", &["join", &pairing.text, "--attach"]);
    companion.stdout.until("ready").await;
    proxy.cut();
    companion.stderr.until("broke off").await;
    companion.type_in("after the cut\n").await;
    companion.stdout.until("got:after the cut").await;
}

#[tokio::test]
async fn a_line_is_sent_and_a_narrowed_credential_cannot() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &[]).await;
    let (code, _, told) = world.companion_done("phone.json", &["join", &pairing.text]).await;
    assert_eq!(code, 0, "{told}");
    let narrower = world.file("widget.json");
    let narrow = ["narrow", "--ops", "read_metadata,stream_output", "--out", narrower.to_str().unwrap()];
    assert_eq!(world.companion_done("phone.json", &narrow).await.0, 0);

    let mut widget = world.companion("widget.json", &["attach"]);
    widget.stdout.until("ready").await;
    assert_eq!(world.companion_done("phone.json", &["send", "by the phone"]).await.0, 0);
    widget.stdout.until("got:by the phone").await;
    let (code, _, told) = world.companion_done("widget.json", &["send", "by the widget"]).await;
    assert!(code == 1 && told.contains("none of these operations is allowed"), "{told}");
    widget.type_in("typed anyway\n").await;
    widget.stderr.until("`send_input` was not granted").await;
    assert_eq!(world.companion_done("phone.json", &["send", "last"]).await.0, 0);
    let seen = widget.stdout.until("got:last").await;
    assert!(!seen.contains("widget") && !seen.contains("typed anyway"), "{seen}");

    let (code, status, _) = world.companion_done("widget.json", &["status"]).await;
    assert_eq!(code, 0);
    assert!(status.contains("narrowed  1 of 6 times") && status.contains("follow its output"), "{status}");
}

#[tokio::test]
async fn both_screens_show_the_same_digits_before_a_phone_is_confirmed() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    for (right, code) in [(true, 0), (false, 1)] {
        let mut pairing = world.pair(&session, &["--confirm"]).await;
        let mut companion = world.companion(&format!("{code}.json"), &["join", &pairing.text]);
        let shown = companion.stderr.until("both screens must show ").await;
        let digits = shown.trim().rsplit("show ").next().unwrap().to_owned();
        let pending = pairing.desktop.stdout.until("pending").await;
        let pending: Value = serde_json::from_str(pending.lines().last().unwrap()).unwrap();
        assert_eq!(pending["code"].as_str().unwrap(), digits);
        // Whoever does not look at the phone has nothing to answer.
        let answer = if right { format!("{digits}\n") } else { "y\n".to_owned() };
        pairing.desktop.type_in(&answer).await;
        assert_eq!(pairing.desktop.exit_code().await, code);
        assert_eq!(companion.exit_code().await, code);
    }
}

#[tokio::test]
async fn nothing_but_the_session_is_reached_over_the_wire() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let other = world.session(ECHO).await;
    let pairing = world.pair(&session, &[]).await;
    let mut stream = redeem(&world, &pairing.link, &phone(1)).await.unwrap().stream;
    let mark = world.file("mark");
    let touch = format!("touch {}", mark.display());
    for (request, privilege) in [
        (json!({ "method": "shell.list_recipes" }), "discover_fleet"),
        (json!({ "method": "list" }), "discover_fleet"),
        (json!({ "method": "logs", "id": session }), "discover_fleet"),
        (json!({ "method": "health" }), "discover_fleet"),
        (json!({ "method": "attest", "nonce": "00" }), "discover_fleet"),
        (json!({ "method": "shell.create_session", "command": touch }), "create_session"),
        (json!({ "method": "shell.close_session", "id": session }), "administer"),
        (json!({ "method": "deploy" }), "administer"),
        (json!({ "method": "exec", "cmd": ["sh", "-c", touch] }), "execute_outside_session"),
        (json!({ "method": "attach", "cmd": ["sh", "-c", touch] }), "execute_outside_session"),
        (json!({ "method": "session/set_mode", "mode": "auto" }), "configure"),
        (json!({ "method": "pair.register_issuer", "registration": "" }), "enroll"),
        (json!({ "method": "pair.offer", "offer": "" }), "enroll"),
        (json!({ "method": "pair.confirm", "ticket": "", "holder": "" }), "enroll"),
        (json!({ "method": "pair.renew", "renewal": "" }), "enroll"),
        (json!({ "method": "pair.list" }), "enroll"),
        (json!({ "method": "pair.log", "id": session }), "discover_fleet"),
        (json!({ "method": "agent.reset_clock" }), "administer"),
        (json!({ "method": "pair.revoke", "session": other }), "enroll"),
        (json!({ "method": "fs/read_text_file", "path": "/etc/passwd" }), "access_files"),
    ] {
        let answer = stream.call(request.clone()).await;
        assert_eq!(
            (&answer["error"], &answer["code"]),
            (&json!("denied"), &json!("privilege_denied")),
            "{request}"
        );
        assert!(answer["detail"].as_str().unwrap().contains(privilege), "{request}: {answer}");
    }
    for request in [
        json!({ "method": "shell.resize_session", "id": session, "cols": 10, "rows": 10 }),
        json!({ "method": "shell.replay_session", "id": session }),
    ] {
        assert_eq!(stream.call(request).await["code"], "operation_not_granted");
    }
    // No id in a request leads anywhere but to the credential's own session.
    let tricks = ["../sessions?x=", "X/close?", "OTHER/close#", "", ".", "X notail"];
    let tricks = tricks.into_iter().map(str::to_owned);
    for id in tricks.chain([other.to_string(), format!("{session} "), session.to_string().to_uppercase()]) {
        let answer = stream.call(json!({ "method": "shell.replay_session", "id": id })).await;
        assert_eq!(answer["code"], "other_session", "{id}");
    }
    let odd = json!({ "method": "shell.replay_session", "id": [session] });
    assert_eq!(stream.call(odd).await["code"], "other_session");
    for malformed in [
        r#"{"method":"shell.list_sessions","method":"shell.list_sessions"}"#.to_owned(),
        format!(r#"{{"method":"shell.replay_session","id":"{session}","id":"{session}"}}"#),
        format!(r#"{{"method":"shell.replay_session","id":"{session}","readonly":false}}"#),
        r#"{"method":"exec","cmd":{"a":1,"a":1}}"#.to_owned(),
        format!(r#"{{"method":"exec","cmd":{}{}}}"#, "[".repeat(16), "]".repeat(16)),
        r#"{"method":"shell.list_sessions"} {}"#.to_owned(),
        r#"{"method":7}"#.to_owned(),
        r#"{"method":"anything else"}"#.to_owned(),
        r#"{"method":""}"#.to_owned(),
        // For enrolled devices.
        r#"{"method":"shell.attach_session"}"#.to_owned(),
        "{".to_owned(),
    ] {
        assert_eq!(stream.call_raw(malformed.as_bytes()).await["error"], "method_rejected", "{malformed}");
    }
    let own = stream.call(json!({ "method": "shell.list_sessions" })).await;
    assert_eq!(own["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(own["sessions"][0]["id"], session.as_str());
    assert!(own["sessions"][0].get("command").is_none() && own["sessions"][0].get("cwd").is_none());

    assert!(!mark.exists(), "a command ran");
    let listed: Value = serde_json::from_str(&world.dd_ok(&["session", "list", "--json"]).await).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!((&listed[0]["cols"], &listed[0]["rows"]), (&json!(80), &json!(24)));
    assert_eq!(world.grants().await.len(), 1);
}

#[tokio::test]
async fn opt_in_operations_work_when_they_were_named_and_only_on_the_own_session() {
    let world = World::start().await;
    let other = world.session(ECHO).await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &["--ops", "read_metadata,resize,read_history"]).await;
    let joined = redeem(&world, &pairing.link, &phone(1)).await.unwrap();
    assert_eq!(joined.ops, OpSet::only(Op::ReadMetadata).with(Op::Resize).with(Op::ReadHistory));
    let mut stream = joined.stream;
    let resize = |id: &str| json!({ "method": "shell.resize_session", "id": id, "cols": 99, "rows": 33 });
    assert_eq!(stream.call(resize(other.as_str())).await["code"], "other_session");
    assert_eq!(
        stream.call(json!({ "method": "shell.resize_session", "cols": 0, "rows": 1 })).await["error"],
        "method_rejected"
    );
    assert_eq!(stream.call(resize(session.as_str())).await["ok"], true);
    assert_eq!(stream.call(json!({ "method": "shell.replay_session" })).await["ok"], true);
    assert_eq!(stream.follow(None).await.unwrap_err()["code"], "operation_not_granted");
    let sessions: Value = serde_json::from_str(&world.dd_ok(&["session", "list", "--json"]).await).unwrap();
    let sizes: Vec<_> = sessions.as_array().unwrap().iter().map(|s| s["cols"].as_u64().unwrap()).collect();
    assert_eq!(sizes, [80, 99]);
}

#[tokio::test]
async fn an_operators_rule_ends_the_permission_to_type() {
    let directory = new_directory();
    let rules = directory.join("rules");
    std::fs::write(&rules, r#"deny if operation("send_input"), hour($h), $h >= 0;"#).unwrap();
    let rules = rules.to_str().unwrap();
    let world = World::start_with(directory.clone(), &["--rules", rules, "--utc-offset", "+05:30"]).await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &[]).await;
    let joined = redeem(&world, &pairing.link, &phone(1)).await.unwrap();
    assert_eq!(joined.ops, OpSet::COMPANION.without(Op::SendInput));
    let mut stream = joined.stream;
    stream.follow(None).await.unwrap();
    let typed = stream.type_in("forbidden\r").await;
    assert_eq!(stream.typed(typed).await.code, sessioncap::Notice::NOT_GRANTED);

    // What the device types is the first that the session gets.
    let mut device = connect_device(&world, &world.device_key()).await.unwrap();
    device.call(json!({ "method": "shell.attach_session", "id": session, "tail": true })).await;
    device.send(b"allowed\r").await;
    let seen = device.until_raw("got:allowed").await;
    assert!(!seen.contains("forbidden"), "{seen}");

    for wrong in [r#"deny if operation("sned_input");"#, "allow if true;"] {
        std::fs::write(rules, wrong).unwrap();
        let mut command = Command::new(program("agent"));
        command.args(["--listen", "127.0.0.1:0", "--rules", rules, "--state"]).arg(directory.join("other"));
        let output = within("the agent's refusal", command.output()).await.unwrap();
        assert!(!output.status.success() && output.stdout.is_empty());
        assert!(String::from_utf8_lossy(&output.stderr).contains("operator rule"));
    }
}

#[tokio::test]
async fn a_device_of_the_old_kind_sees_no_change() {
    let world = World::start().await;
    let mut device = connect_device(&world, &world.device_key()).await.unwrap();
    let created =
        device.call(json!({ "method": "shell.create_session", "name": "old", "command": ECHO })).await;
    let id = created["id"].as_str().unwrap().to_owned();
    let listed = device.call(json!({ "method": "shell.list_sessions" })).await;
    assert_eq!(listed["sessions"][0]["id"], id.as_str());
    assert_eq!(device.call(json!({ "method": "deploy" })).await["error"], "method_rejected");
    let run =
        device.call(json!({ "method": "exec", "cmd": ["sh", "-c", "echo out; echo err >&2; exit 3"] })).await;
    assert_eq!(run, json!({ "ok": true, "status": 3, "stdout": "out\n", "stderr": "err\n" }));
    let slow = device.call(json!({ "method": "exec", "cmd": ["sleep", "1000"], "timeout_secs": 0 })).await;
    assert_eq!(slow["error"], "exec_failed");
    let unknown =
        device.call(json!({ "method": "shell.resize_session", "id": "nope", "cols": 1, "rows": 1 })).await;
    assert_eq!(unknown["error"], "shell_failed");
    let smuggled = json!({ "method": "shell.resize_session", "id": "X/close?", "cols": 1, "rows": 1 });
    assert_eq!(device.call(smuggled).await["error"], "method_rejected");
    // `readonly` is what deployed clients send, and the agent does not know.
    let attached = device
        .call(json!({ "method": "shell.attach_session", "id": id, "tail": true, "readonly": true }))
        .await;
    assert_eq!(attached["ok"], true);
    device.until_raw("ready").await;
    device.send(b"{\"method\":\"list\"}\r").await;
    device.until_raw("got:{\"method\":\"list\"}").await;
    world.dd_ok(&["session", "close", &id]).await;
    while device.next().await.is_some_and(|bytes| !bytes.is_empty()) {}
}

#[tokio::test]
async fn a_lost_answer_is_fetched_again_by_the_same_phone_alone() {
    use futures_util::SinkExt;
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &[]).await;
    let lost = wire::first_message(&pairing.link, &phone(1));
    // The message arrives, its answer does not; and somebody who saw it repeats it.
    // While the agent has not seen that the one before is gone, it refuses a repeat.
    let ten_answers = async {
        let mut answers = 0;
        while answers < 10 {
            let mut socket = wire::open(&world).await;
            let message = tokio_tungstenite::tungstenite::Message::binary(lost.message.clone());
            socket.send(message).await.unwrap();
            answers += u32::from(matches!(wire::answer(&mut socket).await, wire::Answer::Message(_)));
        }
    };
    within("ten answers", ten_answers).await;
    let grants = world.grants().await;
    assert_eq!((grants.len(), &grants[0]["connections"]), (1, &json!(0)), "a replay attaches nobody");
    assert!(!world.audit().contains("phone_attached"));

    let first = redeem(&world, &pairing.link, &phone(1)).await.unwrap();
    let again = redeem(&world, &pairing.link, &phone(1)).await.unwrap();
    assert_eq!(first.credential, again.credential);
    let (mut stream, terms) = attach(&world, &phone(1), &first.credential).await.unwrap();
    assert_eq!(terms.ops, OpSet::COMPANION);
    assert!(terms.seconds_left <= 12 * 3_600);
    stream.follow(None).await.unwrap();
    // The companion does the same with its file.
    let (_, _, told) = world.companion_done("late.json", &["join", &pairing.text]).await;
    assert!(told.contains("revoked"), "another phone, another key: {told}");
    assert_eq!(
        attach(&world, &phone(1), &first.credential).await.err(),
        Some(Told::Status(sessioncap::Status::Revoked))
    );
}

#[tokio::test]
async fn giving_up_revokes_the_ticket() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    // Ctrl-C, a service manager, a window that is closed.
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut pairing = world.pair(&session, &[]).await;
        pairing.desktop.signal(signal);
        assert_eq!(pairing.desktop.exit_code().await, 1);
        let told = redeem(&world, &pairing.link, &phone(1)).await.err();
        assert_eq!(told, Some(Told::Status(sessioncap::Status::Revoked)), "{signal:?}");
    }
}

#[tokio::test]
async fn a_phone_waits_for_an_agent_that_starts_again() {
    let mut world = World::start().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &[]).await;
    let mut companion = world.companion("phone.json", &["join", &pairing.text, "--attach"]);
    companion.stdout.until("ready").await;
    // The agent is killed, and away until the phone has failed to connect.
    world.agent.signal(Signal::KILL);
    companion.stderr.until("cannot be reached").await;
    world.restart(|_| ()).await;
    assert_eq!(companion.exit_code().await, 0);
    assert!(companion.stderr.all().await.contains("the session has ended"));
    // One that was never there may be misspelt.
    world.agent.signal(Signal::KILL);
    world.agent.exit_code().await;
    let (code, _, told) = world.companion_done("phone.json", &["attach"]).await;
    assert!(code == 1 && told.contains("cannot be reached"), "{told}");
}
