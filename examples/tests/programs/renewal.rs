//! Renewal without another scan, and several phones of one session.

use serde_json::{Value, json};
use sessioncap::{CredentialBytes, OpSet, Status};

use super::phone;
use super::revocation::{follow, go_on};
use super::wire::{Told, attach, redeem};
use super::world::{ECHO, World, eventually, set_clock_ahead, world_with_clock};
use sessioncap_programs::companion;
use sessioncap_programs::companion::state::Pairing;

#[tokio::test]
async fn operations_that_a_renewal_removes_are_refused_at_once_and_the_stream_continues() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &[]).await;
    let mut stream = follow(redeem(&world, &pairing.link, &phone(1)).await.unwrap().stream).await;
    stream.type_in("before\r").await;
    stream.until("got:before").await;
    let before = world.grant(&pairing.ticket).await;

    let renew =
        ["session", "renew", session.as_str(), &pairing.ticket, "--ops", "read_metadata,stream_output"];
    let told = world.dd_ok(&renew).await;
    assert!(
        told.contains("`raw` may now read_metadata, stream_output, until") && !told.contains("renewal"),
        "{told}"
    );
    let typed = stream.type_in("forbidden\r").await;
    assert_eq!(stream.typed(typed).await.code, sessioncap::Notice::NOT_GRANTED);
    go_on(&world, session.as_str(), "by the device").await;
    let seen = stream.until("got:by the device").await;
    assert!(!seen.contains("forbidden"), "{seen}");

    let after = world.grant(&pairing.ticket).await;
    assert_eq!(after["expires_at"], before["expires_at"], "what was not named stays");
    assert_eq!(after["ops"], json!(["read_metadata", "stream_output"]));
    assert_eq!((&after["connections"], &after["renewal"]), (&json!(1), &Value::Null));
}

#[tokio::test]
async fn operations_that_a_renewal_adds_come_with_the_next_attach_and_are_stored_before_use() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &["--expires", "1h", "--label", "kitchen"]).await;
    assert_eq!(world.companion_done("phone.json", &["join", &pairing.text]).await.0, 0);
    let file = world.file("phone.json");
    let old = Pairing::open(&file).unwrap();

    let told = world
        .dd_ok(&[
            "session",
            "renew",
            session.as_str(),
            &pairing.ticket,
            "--ops",
            "companion,resize",
            "--valid-for",
            "24h",
        ])
        .await;
    assert!(
        told.contains("a renewal waits for the phone to come back: may") && told.contains("resize"),
        "{told}"
    );
    let listed = world.dd_ok(&["session", "grants", session.as_str()]).await;
    for part in
        ["label `kitchen`", "phone `companion`", "active", "a renewal waits", "created 2", "last seen 2"]
    {
        assert!(listed.contains(part), "{part}: {listed}");
    }

    // Admitted, and nothing sent yet.
    let live = companion::come_back(&file, OpSet::EMPTY).await.unwrap();
    let new = Pairing::open(&file).unwrap();
    assert_ne!(new.credential().unwrap(), old.credential().unwrap());
    assert!(world.grant(&pairing.ticket).await["renewal"].is_object(), "it is not used yet");
    drop(live);

    let (code, status, told) = world.companion_done("phone.json", &["status"]).await;
    assert!(
        code == 0 && status.contains("resize the terminal") && status.contains("resize at the agent, for 2"),
        "{status}{told}"
    );
    eventually("the renewal is used", || async { world.grant(&pairing.ticket).await["renewal"].is_null() })
        .await;
    let retired: CredentialBytes = old.credential().unwrap().clone();
    let back = attach(&world, &old.holder, &retired).await.err();
    assert_eq!(back, Some(Told::Status(Status::Expired)));
}

#[tokio::test]
async fn a_desktop_whose_clock_is_off_renews_with_the_agents() {
    let (world, ahead) = world_with_clock().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &["--expires", "12h"]).await;
    let joined = redeem(&world, &pairing.link, &phone(1)).await.unwrap();
    set_clock_ahead(&ahead, 7_200);
    world.dd_ok(&["session", "renew", session.as_str(), &pairing.ticket, "--valid-for", "1h"]).await;
    let (_, terms) = attach(&world, &phone(1), &joined.credential).await.unwrap();
    assert!((3_500..=3_600).contains(&terms.seconds_left), "{terms:?}");
}

#[tokio::test]
async fn a_code_that_nobody_has_redeemed_is_not_renewed() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &[]).await;
    for (id, told) in
        [(pairing.ticket.as_str(), "no phone has it yet"), ("nothing", "there is no such ticket")]
    {
        let output = world.dd(&["session", "renew", session.as_str(), id]).await;
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains(told));
    }
}

#[tokio::test]
async fn several_phones_of_one_session_are_listed_and_revoked_one_by_one() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let mut phones = Vec::new();
    for (seed, label) in [(1, "kitchen"), (2, "desk"), (3, "bag")] {
        let pairing = world.pair(&session, &["--label", label]).await;
        let joined = redeem(&world, &pairing.link, &phone(seed)).await.unwrap();
        phones.push((pairing, follow(joined.stream).await));
    }
    let listed = world.dd_ok(&["session", "grants", session.as_str()]).await;
    for label in ["kitchen", "desk", "bag"] {
        assert!(listed.contains(&format!("label `{label}`  phone `raw`")), "{listed}");
    }
    assert_eq!(listed.matches("active, 1 connected").count(), 3, "{listed}");

    let (first, mut cut) = phones.remove(0);
    world.dd_ok(&["session", "revoke", &first.ticket]).await;
    assert_eq!(cut.until_end().await.1, Some("revoked"));
    go_on(&world, session.as_str(), "for two").await;
    for (pairing, stream) in &mut phones {
        stream.until("got:for two").await;
        assert_eq!(world.grant(&pairing.ticket).await["state"]["state"], "active");
    }
    let gone = world.grant(&first.ticket).await;
    assert_eq!((&gone["state"]["state"], &gone["connections"]), (&json!("revoked"), &json!(0)));

    // The same phone, with a new code.
    let again = world.pair(&session, &["--label", "kitchen again"]).await;
    let mut back = follow(redeem(&world, &again.link, &phone(1)).await.unwrap().stream).await;
    back.type_in("back\r").await;
    for (_, stream) in &mut phones {
        stream.until("got:back").await;
    }
    assert_eq!(world.grant(&first.ticket).await["state"]["state"], "revoked", "the old one stays revoked");
}
