//! Records that anybody may have written, and how they are tried.

use std::net::IpAddr;
use std::sync::Mutex;

use proptest::prelude::*;
use sessioncap::Label;
use sessioncap_programs::discovery::{Found, Interfaces, PATIENCE, Record, SERVICE_TYPE, try_each};
use sessioncap_programs::problem::Problem;

const HASH: &str = "0123456789abcdef";

fn found(name: &str, key: &str, at: &str) -> Found {
    Found {
        name: Label::new(name).unwrap(),
        addresses: vec![at.parse().unwrap()],
        path: "/noise/ws".to_owned(),
        key: key.parse().unwrap(),
    }
}

proptest! {
    #[test]
    fn whatever_a_record_holds_is_dropped_or_harmless(
        fullname in prop_oneof![any::<String>(), "\\PC{0,70}\\._openagents\\._tcp\\.local\\.", ".{0,70}\\._OpenAgents\\._tcp\\.local\\."],
        port in any::<u16>(),
        addresses in prop::collection::vec((any::<IpAddr>(), 0_u32..3), 0..12),
        properties in prop::collection::vec(
            (prop_oneof![Just("v".to_owned()), Just("path".to_owned()), Just("key".to_owned()), any::<String>()],
             prop::option::of(prop_oneof![
                 Just(b"1".to_vec()), Just(b"/noise/ws".to_vec()), Just(HASH.as_bytes().to_vec()),
                 prop::collection::vec(any::<u8>(), 0..300)])), 0..6),
    ) {
        if let Some(found) = (Record { fullname, port, addresses, properties }).read(&Interfaces::Networks) {
            let shown = format!("{} {} {} {:?}", found.name, found.path, found.key, found.addresses);
            prop_assert!(!shown.chars().any(char::is_control));
            prop_assert!(shown.len() < 1_000);
            prop_assert!((1..=Found::MOST_ADDRESSES).contains(&found.addresses.len()));
            prop_assert!(found.addresses.iter().all(|at| at.port() != 0 && !at.ip().is_loopback()));
        }
    }

    #[test]
    fn a_name_is_read_as_it_was_given(name in "[a-zA-Z0-9 .\\\\()äß-]{1,20}") {
        let Ok(label) = Label::new(name.clone()) else { return Ok(()) };
        let escaped = name.replace('\\', "\\\\").replace('.', "\\.");
        let properties = [("v", "1"), ("path", "/noise/ws"), ("key", HASH)];
        let record = Record {
            fullname: format!("{escaped}.{SERVICE_TYPE}"),
            port: 1,
            addresses: vec![("10.0.0.1".parse().unwrap(), 0)],
            properties: properties.map(|(key, value)| (key.to_owned(), Some(value.as_bytes().to_vec()))).to_vec(),
        };
        prop_assert_eq!(record.read(&Interfaces::Networks).map(|found| found.name), Some(label));
    }
}

#[tokio::test(start_paused = true)]
async fn each_record_has_three_seconds_and_eight_are_tried() {
    let many: Vec<Found> =
        (0..12).map(|at| found(&format!("a {at}"), HASH, &format!("10.0.0.{at}:1"))).collect();
    let start = tokio::time::Instant::now();
    let tried = Mutex::new(0);
    let outcome = try_each::<()>(&many, PATIENCE, async |_, _| {
        *tried.lock().unwrap() += 1;
        std::future::pending().await
    });
    assert!(matches!(outcome.await, Err(Problem::TooSlow { .. })));
    assert_eq!((*tried.lock().unwrap(), start.elapsed()), (8, 8 * PATIENCE));
    // An address that swallows everything leaves time for the others of its record.
    let mut two = found("b", HASH, "10.0.0.1:1");
    two.addresses.push("10.0.0.2:1".parse().unwrap());
    let two = [two];
    let outcome = try_each(&two, PATIENCE, async |found, address| match address == found.addresses[0] {
        true => std::future::pending().await,
        false => Ok(address),
    });
    assert_eq!(outcome.await.unwrap().to_string(), "10.0.0.2:1");
    let none = try_each::<()>(&[], PATIENCE, async |_, _| Ok(())).await.unwrap_err();
    assert!(none.to_string().contains("no agent with this key"));
}
