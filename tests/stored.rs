//! What a phone app keeps: one value for each pairing, and the list of them.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod app_scene;
mod common;

use app_scene::{Scene, label};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sessioncap::app::*;
use sessioncap::*;

fn url(text: &str) -> AgentUrl {
    AgentUrl::parse(text).unwrap()
}

fn unredeemed(ticket: u8) -> Stored {
    let agent = AgentSecretKey::from_bytes([1; 32]).public();
    let link = Link::new(url("wss://agent.example"), agent, TicketSecret::from_bytes([ticket; 16]));
    let mut rng = StdRng::seed_from_u64(ticket.into());
    Preview::new(link, &Pairings::new()).accept(label(), &mut rng).stored().clone()
}

#[test]
fn what_is_stored_reads_back_before_and_after_the_link_is_redeemed() {
    let mut scene = Scene::new();
    let before = scene.phone.stored().clone();
    assert_eq!((before.credential(), before.access()), (None, None));
    assert_eq!(Stored::from_bytes(before.to_bytes().as_bytes()).unwrap(), before);
    scene.tell(Input::Start);
    let after = scene.phone.stored().clone();
    assert_eq!(Stored::from_bytes(after.to_bytes().as_bytes()).unwrap(), after);
    assert_eq!((after.ticket(), after.holder()), (before.ticket(), before.holder()));
    let access = after.access().unwrap();
    assert_eq!(access.end.since(access.seen), 12 * 60 * 60);
    assert_eq!(access.session.as_str(), common::SESSION);
    // The link's secret is of no more use, and is not kept.
    let secret = scene.pairing.link.ticket().expose_bytes();
    let holds = |stored: &Stored| stored.to_bytes().as_bytes().windows(16).any(|part| part == secret);
    assert!(holds(&before) && !holds(&after));
}

#[test]
fn no_part_of_a_stored_pairing_reads_and_no_byte_can_be_changed_unnoticed_in_its_form() {
    let scene = Scene::live();
    for stored in [unredeemed(1), scene.phone.stored().clone()] {
        let bytes = stored.to_bytes();
        for cut in 0..bytes.as_bytes().len() {
            assert!(Stored::from_bytes(&bytes.as_bytes()[..cut]).is_err(), "{cut}");
        }
    }
}

#[test]
fn a_later_format_and_foreign_bytes_are_told_apart() {
    let mut bytes = unredeemed(1).to_bytes().as_bytes().to_vec();
    bytes[4] = 2;
    let newer = Stored::from_bytes(&bytes).unwrap_err();
    assert_eq!((newer.clone(), newer.advice()), (AppError::StoredNewer { version: 2 }, Advice::Update));
    assert_eq!(Stored::from_bytes(b"{}"), Err(AppError::StoredForeign));
}

#[test]
fn nothing_that_is_printed_holds_a_secret() {
    let scene = Scene::live();
    let stored = scene.phone.stored();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let decimal = |bytes: &[u8]| bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let outputs: Vec<String> = scene.log.iter().map(|output| format!("{output:?}")).collect();
    let key = &stored.holder().expose_bytes()[..8];
    let credential = &stored.credential().unwrap().as_bytes()[..8];
    let text = format!("{stored:?} {:?} {:?} {outputs:?}", stored.to_bytes(), scene.phone);
    for secret in [key, credential, &scene.pairing.link.ticket().expose_bytes()[..8]] {
        assert!(!text.contains(&hex(secret)) && !text.contains(&decimal(secret)), "{text}");
    }
}

#[test]
fn addresses_and_pins_are_bounded_and_kept() {
    let mut stored = unredeemed(1);
    for number in 0..20 {
        let added = stored.add_address(url(&format!("wss://host{number}.example")));
        assert_eq!(added, number < Stored::MAX_ADDRESSES - 1);
    }
    assert!(stored.add_address(url("wss://agent.example")), "it is there already");
    assert_eq!(stored.addresses().len(), Stored::MAX_ADDRESSES);
    assert!(!stored.set_tls_pins(&[[1; 32]; Stored::MAX_TLS_PINS + 1]) && stored.tls_pins().is_empty());
    assert!(stored.set_tls_pins(&[[1; 32], [2; 32]]));
    assert_eq!(Stored::from_bytes(stored.to_bytes().as_bytes()).unwrap(), stored);
}

#[test]
fn the_longest_pairing_fits() {
    let label_of = |length: usize| "a".repeat(length);
    let host = format!("{}.{}.{}.{}", label_of(62), label_of(63), label_of(63), label_of(61));
    let path = format!("/{}", label_of(127));
    let mut stored = Scene::live().phone.stored().clone();
    for number in 0..Stored::MAX_ADDRESSES {
        stored.add_address(url(&format!("wss://{}{host}:6552{number}{path}", label_of(1))));
    }
    assert_eq!(stored.addresses().len(), Stored::MAX_ADDRESSES);
    assert!(stored.set_tls_pins(&[[0xff; 32]; Stored::MAX_TLS_PINS]));
    let credential = stored.credential().unwrap().as_bytes().len();
    let longest = stored.to_bytes().as_bytes().len() - credential + CredentialBytes::MAX_LEN;
    assert!(longest + Label::MAX_LEN + SessionId::MAX_LEN <= Stored::MAX_LEN, "{longest}");
}

#[test]
fn the_list_holds_each_pairing_once_the_latest_first_and_forgets_when_told() {
    let scene = Scene::live();
    let mut pairings = Pairings::new();
    pairings.put(scene.phone.stored().clone()).unwrap();
    pairings.put(unredeemed(1)).unwrap();
    pairings.put(scene.phone.stored().clone()).unwrap();
    let tickets: Vec<TicketId> = pairings.iter().map(|stored| *stored.ticket()).collect();
    assert_eq!(tickets, [*unredeemed(1).ticket(), scene.pairing.ticket]);
    assert_eq!(pairings.with_agent(scene.pairing.link.agent()).count(), 2);
    assert!(pairings.forget(&scene.pairing.ticket).is_some());
    assert_eq!((pairings.iter().count(), pairings.forget(&scene.pairing.ticket)), (1, None));
    for ticket in 2..=u8::try_from(Pairings::MAX).unwrap() {
        pairings.put(unredeemed(ticket)).unwrap();
    }
    assert_eq!(pairings.put(unredeemed(200)), Err(AppError::TooManyPairings { max: Pairings::MAX }));
    assert_eq!(pairings.put(unredeemed(2)), Ok(()), "one that is there can be replaced");
}

#[test]
fn every_error_has_a_sentence_and_an_advice() {
    let refused = |status| AppError::Attach(phone::PhoneError::Refused(status));
    for (error, advice) in [
        (refused(Status::Revoked), Advice::Forget),
        (refused(Status::OperationDenied), Advice::AskOwner),
        (refused(Status::Busy), Advice::AskAgain),
        (AppError::Join(phone::PhoneError::Refused(Status::OperationDenied)), Advice::AskAgain),
        (AppError::Join(phone::PhoneError::AnswerMismatch), Advice::Update),
        (AppError::from(LinkError::Damaged), Advice::AskOwner),
        (AppError::from(LinkError::UnknownVersion { version: 2 }), Advice::Update),
        (AppError::from(Status::Expired), Advice::Forget),
        (AppError::Unreachable, Advice::AskAgain),
        (AppError::StoredDamaged, Advice::Forget),
    ] {
        assert_eq!(error.advice(), advice, "{error}");
        assert!(!error.to_string().is_empty() && !error.code().is_empty());
    }
    let codes: Vec<&str> = Advice::ALL.iter().map(|advice| advice.code()).collect();
    assert_eq!(codes, ["ask_again", "ask_owner", "forget", "update"]);
}

proptest! {
    #[test]
    fn no_bytes_panic_and_what_reads_is_written_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let with_head = [b"SCPP\x01", bytes.as_slice()].concat();
        for bytes in [&bytes, &with_head] {
            if let Ok(stored) = Stored::from_bytes(bytes) {
                let written = stored.to_bytes();
                prop_assert_eq!(written.as_bytes(), &bytes[..]);
            }
        }
    }

    #[test]
    fn a_changed_byte_is_another_pairing_or_none(at in 0..300_usize, with in 1..=255_u8) {
        let bytes = unredeemed(1).to_bytes();
        let mut changed = bytes.as_bytes().to_vec();
        let at = at % changed.len();
        changed[at] ^= with;
        if let Ok(stored) = Stored::from_bytes(&changed) {
            prop_assert_ne!(&stored, &unredeemed(1));
            let written = stored.to_bytes();
            prop_assert_eq!(written.as_bytes(), &changed[..]);
        }
    }
}
