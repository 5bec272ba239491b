//! Access ends: revoked, contested, expired, or ended with its session or device.

use futures_util::FutureExt;
use serde_json::json;
use sessioncap::Status;

use super::phone;
use super::wire::{Stream, Told, attach, connect_device, redeem};
use super::world::{ECHO, World, eventually, set_clock_ahead, within, world_with_clock};

/// Attached, and past its first output.
pub async fn follow(mut stream: Stream) -> Stream {
    stream.follow(None).await.unwrap();
    stream.until("ready").await;
    stream
}

/// Types into a session through its device, and waits for what it does.
pub async fn go_on(world: &World, session: &str, line: &str) {
    let mut device = connect_device(world, &world.device_key()).await.unwrap();
    device.call(json!({ "method": "shell.attach_session", "id": session })).await;
    device.send(format!("{line}\r").as_bytes()).await;
    device.until_raw(&format!("got:{line}")).await;
}

#[tokio::test]
async fn a_ticket_is_revoked_before_anyone_redeems_it() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let mut pairing = world.pair(&session, &[]).await;
    world.dd_ok(&["session", "revoke", &pairing.ticket]).await;
    assert_eq!(pairing.desktop.exit_code().await, 1);
    assert!(pairing.desktop.stderr.all().await.contains("revoked"));
    let (code, _, told) = world.companion_done("phone.json", &["join", &pairing.text]).await;
    assert!(code == 1 && told.contains("it was revoked"), "{told}");
}

#[tokio::test]
async fn the_desktop_is_told_what_a_revocation_ended_and_that_a_typo_ended_nothing() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &["--label", "kitchen"]).await;
    let unknown = "0".repeat(32);
    let typos: [&[&str]; 4] = [
        &[&unknown],
        &["--session", "no-such-session"],
        &["--phone", "kitchem"],
        &["--issuer", &"2a".repeat(32)],
    ];
    for what in typos {
        let output = world.dd(&[&["session", "revoke"], what].concat()).await;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && output.stdout.is_empty(), "{what:?}");
        assert!(told.contains("nothing was revoked") || told.contains("public key"), "{what:?}: {told}");
    }
    assert_eq!(world.grant(&pairing.ticket).await["state"]["state"], "open");
    let told = world.dd_ok(&["session", "revoke", "--phone", "kitchen"]).await;
    assert!(told.starts_with("revoked: phone `kitchen`") && told.ends_with("(1 ended)"), "{told}");
    let told = world.dd_ok(&["session", "revoke", "--phone", "kitchen"]).await;
    assert!(told.starts_with("revoked before: phone `kitchen`"), "{told}");
    assert_eq!(world.grant(&pairing.ticket).await["state"]["state"], "revoked");
}

#[tokio::test]
async fn a_revoked_phone_sees_and_types_nothing_more() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    for how in ["credential", "--session", "--issuer", "--device"] {
        let pairing = world.pair(&session, &[]).await;
        let joined = redeem(&world, &pairing.link, &phone(1)).await.unwrap();
        let mut stream = follow(joined.stream).await;
        let credential =
            world.grants().await.into_iter().find(|grant| grant["ticket"] == pairing.ticket.as_str());
        let credential = credential.unwrap()["credential"].as_str().unwrap().to_owned();
        let what = match how {
            "credential" => vec![credential.as_str()],
            "--session" => vec![how, session.as_str()],
            how => vec![how],
        };
        world.dd_ok(&[&["session", "revoke"], what.as_slice()].concat()).await;
        // The call has returned: the phone gets no output and types nothing from here on.
        if how == "--device" {
            stream.type_in_if_open("after\r").await;
        }
        go_on(&world, session.as_str(), &format!("secret of {how}")).await;
        let (seen, code) = stream.until_end().await;
        assert!(!seen.contains("secret") && !seen.contains("after"), "{how}: {seen}");
        assert_eq!(code, Some("revoked"), "{how}");
        let back = attach(&world, &phone(1), &joined.credential).await.err();
        assert_eq!(back, Some(Told::Status(Status::Revoked)), "{how}");
    }
    let mut device = connect_device(&world, &world.device_key()).await.unwrap();
    device.call(json!({ "method": "shell.attach_session", "id": session, "tail": true })).await;
    let all = device.until_raw("got:secret of --device").await;
    assert!(!all.contains("after"), "typed by a revoked phone: {all}");
}

#[tokio::test]
async fn a_code_that_two_phones_redeem_is_revoked_for_both() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &[]).await;
    let first = redeem(&world, &pairing.link, &phone(1)).await.unwrap();
    let mut stream = follow(first.stream).await;
    let second = redeem(&world, &pairing.link, &phone(2)).await.err();
    assert_eq!(second, Some(Told::Status(Status::Revoked)));
    assert_eq!(stream.until_end().await.1, Some("revoked"));
    let back = attach(&world, &phone(1), &first.credential).await.err();
    assert_eq!(back, Some(Told::Status(Status::Revoked)));
    eventually("the contest in the audit", || async { world.audit().contains("ticket_contested") }).await;
}

#[tokio::test]
async fn a_ticket_expires_by_the_agents_clock() {
    let (world, ahead) = world_with_clock().await;
    let session = world.session(ECHO).await;
    let mut pairing = world.pair(&session, &["--ttl", "30s"]).await;
    set_clock_ahead(&ahead, 31);
    let (code, _, told) = world.companion_done("phone.json", &["join", &pairing.text]).await;
    assert!(code == 1 && told.contains("it has expired"), "{told}");
    assert_eq!(pairing.desktop.exit_code().await, 1);
    assert!(pairing.desktop.stderr.all().await.contains("no phone came in time"));
}

#[tokio::test]
async fn a_credential_expires_in_the_middle_of_a_stream() {
    let (world, ahead) = world_with_clock().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &["--expires", "5m"]).await;
    let joined = redeem(&world, &pairing.link, &phone(1)).await.unwrap();
    let mut stream = follow(joined.stream).await;
    set_clock_ahead(&ahead, 301);
    go_on(&world, session.as_str(), "too late").await;
    let (seen, code) = stream.until_end().await;
    assert!(!seen.contains("too late"), "{seen}");
    assert_eq!(code, Some("expired"));
    let back = attach(&world, &phone(1), &joined.credential).await.err();
    assert_eq!(back, Some(Told::Status(Status::Expired)));
}

#[tokio::test]
async fn a_desktop_whose_clock_is_off_mints_again_with_the_agents() {
    let (world, ahead) = world_with_clock().await;
    let session = world.session(ECHO).await;
    set_clock_ahead(&ahead, 7_200);
    let pairing = world.pair(&session, &["--expires", "1h"]).await;
    let joined = redeem(&world, &pairing.link, &phone(1)).await.unwrap();
    let (_, terms) = attach(&world, &phone(1), &joined.credential).await.unwrap();
    assert!((3_500..=3_600).contains(&terms.seconds_left), "{terms:?}");
}

#[tokio::test]
async fn a_session_that_ends_cuts_its_phones_after_their_last_output() {
    let world = World::start().await;
    let session = world.session("echo ready; read -r line; echo \"last:$line\"").await;
    let pairing = world.pair(&session, &[]).await;
    let joined = redeem(&world, &pairing.link, &phone(1)).await.unwrap();
    let mut stream = follow(joined.stream).await;
    stream.type_in("words\r").await;
    let (seen, code) = stream.until_end().await;
    assert!(seen.contains("last:words"), "{seen}");
    assert_eq!(code, Some("session_gone"));
    let back = attach(&world, &phone(1), &joined.credential).await.err();
    assert_eq!(back, Some(Told::Status(Status::SessionGone)));
    eventually("the session's end in the audit", || async { world.audit().contains("session_closed") }).await;
}

#[tokio::test]
async fn removing_a_device_from_the_list_revokes_what_it_shared() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &[]).await;
    let joined = redeem(&world, &pairing.link, &phone(1)).await.unwrap();
    let mut stream = follow(joined.stream).await;
    let mut device = connect_device(&world, &world.device_key()).await.unwrap();
    device.call(json!({ "method": "shell.attach_session", "id": session })).await;

    // As the deployed agent's own tools do it.
    let file = world.file("agent/devices.json");
    let list = std::fs::read_to_string(&file).unwrap();
    let mut list: serde_json::Value = serde_json::from_str(&list).unwrap();
    list["devices"][0]["revoked_at_ms"] = 1_780_000_000_000_u64.into();
    std::fs::write(&file, list.to_string()).unwrap();
    world.agent.signal(rustix::process::Signal::HUP);

    assert_eq!(stream.until_end().await.1, Some("revoked"));
    while within("the end of the device's stream", device.next()).await.is_some() {}
    assert!(connect_device(&world, &world.device_key()).await.is_err());
}

#[tokio::test]
async fn a_phone_that_does_not_read_delays_neither_the_desktop_nor_its_revocation() {
    let world = World::start().await;
    let session = world.session("stty -opost -echo; echo ready; read -r go; head -c 20000000 /dev/zero | tr '\\0' x; echo; echo done; cat").await;
    let pairing = world.pair(&session, &[]).await;
    let mut stalled = follow(redeem(&world, &pairing.link, &phone(1)).await.unwrap().stream).await;
    let mut device = connect_device(&world, &world.device_key()).await.unwrap();
    device.call(json!({ "method": "shell.attach_session", "id": session })).await;
    device.send(b"go\r").await;
    // The phone reads none of the twenty megabytes; the desktop gets them all.
    let mut length = 0;
    let mut tail = Vec::new();
    while !tail.ends_with(b"done\n") {
        let chunk = within("the desktop's output", device.next()).await.expect("the desktop is not cut off");
        length += chunk.len();
        tail = chunk;
    }
    assert!(length > 20_000_000);
    // Its answer comes while the phone has still read nothing.
    world.dd_ok(&["session", "revoke", &pairing.ticket]).await;
    assert!(stalled.hear().now_or_never().is_some(), "it was stalled by its own choice");
}

/// Twenty megabytes once it is told to, and then a line for each that is typed.
pub const FLOOD: &str = "stty -opost -echo; echo ready; read -r go; head -c 20000000 /dev/zero | tr '\\0' x; \
    echo; echo done; while read -r line; do echo \"got:$line\"; done";

/// Makes the session flood its one viewer, which does not read, and returns as the desktop.
async fn flood(world: &World, session: &str) -> Stream {
    let mut device = connect_device(world, &world.device_key()).await.unwrap();
    device.call(json!({ "method": "shell.attach_session", "id": session })).await;
    device.send(b"go\r").await;
    // It leaves; one that is lost takes what it typed with it.
    device.send(b"").await;
    drop(device);
    // The output waits for a viewer that reads, then continues without it.
    let looking = tokio::sync::Mutex::new(connect_device(world, &world.device_key()).await.unwrap());
    eventually("the end of the flood", || async {
        let logs = looking.lock().await.call(json!({ "method": "logs", "id": session })).await;
        logs["log"].as_str().unwrap().ends_with("done\n")
    })
    .await;
    let mut device = looking.into_inner();
    device.call(json!({ "method": "shell.attach_session", "id": session })).await;
    device
}

/// The agent's log line when it gives up a phone in the middle of a frame.
fn let_go(credential: &str, why: &str) -> String {
    format!("with credential {credential}: {why}, while it did not read")
}

#[tokio::test]
async fn a_phone_that_has_stopped_reading_is_cut_off_whatever_the_reason() {
    for how in ["revoked", "contested", "expired", "shortened", "closed", "removed"] {
        let (world, ahead) = world_with_clock().await;
        let session = world.session(FLOOD).await;
        let pairing = world.pair(&session, &["--expires", if how == "expired" { "5m" } else { "12h" }]).await;
        let stalled = follow(redeem(&world, &pairing.link, &phone(1)).await.unwrap().stream).await;
        let credential = world.grant(&pairing.ticket).await["credential"].as_str().unwrap().to_owned();
        let mut device = flood(&world, session.as_str()).await;
        let why = match how {
            "revoked" => {
                world.dd_ok(&["session", "revoke", &credential]).await;
                "the credential was revoked"
            }
            "contested" => {
                assert!(redeem(&world, &pairing.link, &phone(2)).await.is_err());
                "two phones redeemed the same ticket; both are cut off"
            }
            "expired" => {
                set_clock_ahead(&ahead, 301);
                "the credential has expired"
            }
            "shortened" => {
                let renew = ["session", "renew", session.as_str(), &credential, "--valid-for", "5m"];
                world.dd_ok(&renew).await;
                set_clock_ahead(&ahead, 301);
                "the credential has expired"
            }
            "closed" => {
                world.dd_ok(&["session", "close", session.as_str()]).await;
                "the session has ended"
            }
            _ => {
                world.dd_ok(&["session", "revoke", "--device"]).await;
                "the credential was revoked"
            }
        };
        world.agent.stderr.until(&let_go(&credential, why)).await;
        if how != "closed" {
            device.send(b"and on\r").await;
            device.until_raw("got:and on").await;
        }
        drop(stalled);
    }
}

#[tokio::test]
async fn an_idle_phone_notices_that_its_time_was_shortened() {
    let (world, ahead) = world_with_clock().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &[]).await;
    let mut stream = follow(redeem(&world, &pairing.link, &phone(1)).await.unwrap().stream).await;
    world.dd_ok(&["session", "renew", session.as_str(), &pairing.ticket, "--valid-for", "1m"]).await;
    set_clock_ahead(&ahead, 61);
    // Nothing is typed or printed.
    assert_eq!(stream.until_end().await.1, Some("expired"));
}

#[tokio::test]
async fn idle_phones_are_cut_one_by_one_and_the_others_continue() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let mut staying = {
        let pairing = world.pair(&session, &[]).await;
        follow(redeem(&world, &pairing.link, &phone(9)).await.unwrap().stream).await
    };
    for how in ["ticket", "credential"] {
        let pairing = world.pair(&session, &[]).await;
        let mut stream = follow(redeem(&world, &pairing.link, &phone(1)).await.unwrap().stream).await;
        let id = world.grant(&pairing.ticket).await[how].as_str().unwrap().to_owned();
        world.dd_ok(&["session", "revoke", &id]).await;
        assert_eq!(stream.until_end().await.1, Some("revoked"), "{how}");
        staying.type_in(&format!("after {how}\r")).await;
        staying.until(&format!("got:after {how}")).await;
    }
}
