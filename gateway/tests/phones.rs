//! The gateways over real sockets: devices as before, and phones held to their credentials.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod harness;

use harness::{EVENTS, Event, SESSION, Start, World, refusal, run};
use serde_json::json;
use sessioncap::desktop::PairingTerms;
use sessioncap::pair::{Answer, Request, Revoke, Revoked};
use sessioncap::{Frame, Notice, Op, OpSet, Status};
use sessioncap_gateway::{after, after_responder, before};

const WITH_PHONES: [Start; 2] = [after::router, after_responder::router];

fn without_phones(
    key: [u8; 32],
    trust: before::Trust,
    backend: sessioncap_gateway::backend::Backend,
    _: &str,
    _: std::path::PathBuf,
) -> sessioncap_gateway::Outcome<axum::Router> {
    Ok(before::router(key, trust, backend))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_uses_each_gateway_as_before() {
    for start in [without_phones, WITH_PHONES[0], WITH_PHONES[1]] {
        let world = World::start(start).await.unwrap();
        let mut desktop = world.desktop().await.unwrap();
        let listed = desktop.ask_json(&json!({ "method": "shell.list_sessions" })).await.unwrap();
        assert_eq!(listed, json!({ "sessions": [SESSION] }));
        let refused = desktop.ask_json(&json!({ "method": "shell.fly" })).await.unwrap();
        assert_eq!(refused["error"], "method_rejected");
        let attach = json!({ "method": "shell.attach_session", "id": SESSION });
        assert_eq!(desktop.ask_json(&attach).await.unwrap(), json!({ "ok": true }));
        assert_eq!(desktop.ask(b"typed\n").await.unwrap(), b"typed\n");
        world.trust.write().await.clear();
        assert!(world.desktop().await.is_err(), "a device that is struck off");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_follows_types_and_is_revoked() {
    for start in WITH_PHONES {
        let world = World::start(start).await.unwrap();
        let pairing = world.share(&PairingTerms::default()).await.unwrap();
        let (mut phone, holder, credential) = world.redeem(&pairing).await.unwrap();
        phone.type_in("hello\n").await.unwrap();
        phone.shows("hello\n").await.unwrap();
        phone.send(&Frame::Ping { answer: false, number: 7 }).await.unwrap();
        assert_eq!(phone.next().await.unwrap(), Frame::Ping { answer: true, number: 7 });

        let revoke = Request::Revoke(Revoke::Credential(pairing.credential));
        let revoked = world.desktop().await.unwrap().pair(&revoke).await.unwrap();
        assert_eq!(revoked, Answer::Revoked(Revoked::Ended { pairings: 1 }));
        assert_eq!(phone.end().await.unwrap().status(), Some(Status::Revoked));
        let again = world.attach(&holder, &credential).await;
        assert_eq!(refusal(&again.err().unwrap()), Some(Status::Revoked));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_may_only_follow_is_told_so_when_it_types() {
    for start in WITH_PHONES {
        let world = World::start(start).await.unwrap();
        let terms = PairingTerms::default().with_ops(OpSet::EMPTY.with(Op::StreamOutput)).unwrap();
        let pairing = world.share(&terms).await.unwrap();
        let (mut phone, _, _) = world.redeem(&pairing).await.unwrap();
        let output = world.watch().await.unwrap();
        phone.type_in("forbidden\n").await.unwrap();
        assert_eq!(phone.notice().await.unwrap().code, Notice::NOT_GRANTED);
        // It follows what the desktop types.
        let mut desktop = world.desktop().await.unwrap();
        desktop.ask_json(&json!({ "method": "shell.attach_session", "id": SESSION })).await.unwrap();
        desktop.ask(b"by the desktop\n").await.unwrap();
        phone.shows("by the desktop\n").await.unwrap();
        assert!(!String::from_utf8_lossy(&output.lock().await).contains("forbidden"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_ends_with_its_device_and_with_its_session() {
    for start in WITH_PHONES {
        for event in EVENTS {
            let seen = run(start, event).await;
            assert!(seen.came_in && seen.is_closed(), "{event:?}: {seen:?}");
        }
        assert!(EVENTS.contains(&Event::SessionGone));
    }
}
