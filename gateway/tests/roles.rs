//! The sample desktop and the sample phone against the gateways.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod harness;

#[allow(dead_code, reason = "its `main` is of the program")]
#[path = "../examples/desktop.rs"]
mod desktop;
#[allow(dead_code, reason = "its `main` is of the program")]
#[path = "../examples/phone.rs"]
mod phone;

use desktop::Agent;
use harness::{SESSION, World};
use phone::{Kept, Live, News, come_back, join};
use sessioncap::desktop::Issuer;
use sessioncap::pair::Revoked;
use sessioncap::{IssuerSecretKey, Label, SessionId, Status};
use sessioncap_gateway::{after, after_responder};

async fn shows(live: &mut Live, text: &str) {
    let mut shown = Vec::new();
    while !String::from_utf8_lossy(&shown).contains(text) {
        if let News::Output(output) = live.next().await.unwrap() {
            shown.extend(output);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_desktop_shares_with_the_sample_phone_which_comes_back_until_it_is_revoked() {
    for start in [after::router, after_responder::router] {
        let world = World::start(start).await.unwrap();
        // Until the gateway has heard of the device and the session.
        world.share(&sessioncap::desktop::PairingTerms::default()).await.unwrap();
        let (url, agent) = (world.url.clone(), world.agent);
        let issuer = IssuerSecretKey::from_bytes(desktop::key(&world.directory.join("issuer.key")).unwrap());
        let issuer = Issuer::new(issuer, agent, url.clone());
        let mut channel = Agent::connect(&url, &agent, &world.device).await.unwrap();
        let session = SessionId::new(SESSION).unwrap();
        let name = Label::new("a phone").unwrap();
        let pairing = desktop::share(&mut channel, &issuer, session, name).await.unwrap();

        let kept = Kept(world.directory.clone());
        let mut live = join(&pairing.link, &kept).await.unwrap();
        live.type_in(b"hello\n").await.unwrap();
        shows(&mut live, "hello\n").await;
        drop(live);
        let mut live = come_back(&kept).await.unwrap();
        live.type_in(b"again\n").await.unwrap();
        shows(&mut live, "again\n").await;
        let revoked = desktop::revoke(&mut channel, &pairing).await.unwrap();
        assert_eq!(revoked, Revoked::Ended { pairings: 1 });
        let code = loop {
            if let News::Ended(code) = live.next().await.unwrap() {
                break code;
            }
        };
        assert_eq!(code.status(), Some(Status::Revoked));
        assert!(come_back(&kept).await.is_err());
    }
}

#[test]
fn the_keys_of_the_sample_desktop_are_made_once_and_only_for_their_owner() {
    use std::os::unix::fs::PermissionsExt;
    let directory = std::env::temp_dir().join(format!("sessioncap-desktop-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("device.key");
    let made = desktop::key(&file).unwrap();
    assert_eq!(desktop::key(&file).unwrap(), made);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(desktop::key(&file).is_err());
    std::fs::remove_dir_all(directory).unwrap();
}
