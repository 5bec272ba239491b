use std::collections::HashSet;
use std::net::SocketAddr;
use std::str::FromStr;

use mdns_sd::{ServiceEvent, ServiceInfo};
use sessioncap::Label;

use super::browse::Known;
use super::record::Record;
use super::*;

const HASH: &str = "0123456789abcdef";

fn raw(name: &str, addresses: &[(&str, u32)], properties: &[(&str, &str)]) -> Record {
    Record {
        fullname: format!("{name}.{SERVICE_TYPE}"),
        port: 7_000,
        addresses: addresses.iter().map(|(ip, scope)| (ip.parse().unwrap(), *scope)).collect(),
        properties: properties
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Some(value.as_bytes().to_vec())))
            .collect(),
    }
}

const GOOD: [(&str, &str); 3] = [("v", "1"), ("path", "/noise/ws"), ("key", HASH)];

fn found(name: &str, key: &str, at: &str) -> Found {
    Found {
        name: Label::new(name).unwrap(),
        addresses: vec![at.parse().unwrap()],
        path: "/noise/ws".to_owned(),
        key: key.parse().unwrap(),
    }
}

#[test]
fn a_record_is_read_with_its_addresses_in_the_order_in_which_they_are_tried() {
    let addresses = [
        ("fe80::1", 7),
        ("169.254.1.1", 0),
        ("fd00::1", 0),
        ("10.0.0.1", 0),
        ("10.0.0.1", 0),
        // Not of another machine, or of no machine.
        ("fe80::2", 0),
        ("127.0.0.1", 0),
        ("::1", 0),
        ("0.0.0.0", 0),
        ("224.0.0.1", 0),
        ("255.255.255.255", 0),
        ("::ffff:10.0.0.9", 0),
        ("ff02::1", 7),
    ];
    let mut properties = GOOD.to_vec();
    properties.push(("theirs", "\u{1b}[2J"));
    let read = raw(r"a\.b\\c", &addresses, &properties).read(&Interfaces::Networks).unwrap();
    assert_eq!(read.name.as_str(), r"a.b\c");
    let shown: Vec<String> = read.addresses.iter().map(SocketAddr::to_string).collect();
    assert_eq!(shown, ["10.0.0.1:7000", "[fd00::1]:7000", "169.254.1.1:7000", "[fe80::1%7]:7000"]);
    assert_eq!((read.path.as_str(), read.key.to_string().as_str()), ("/noise/ws", HASH));
    let own = raw("a", &[("127.0.0.1", 0)], &GOOD);
    assert!(own.read(&Interfaces::Networks).is_none());
    assert!(raw("a", &[("127.0.0.1", 0)], &GOOD).read(&Interfaces::All).is_some());
}

#[test]
fn no_more_addresses_are_kept_than_are_tried() {
    let many: Vec<String> = (0..200).map(|last| format!("10.0.0.{last}")).collect();
    let many: Vec<(&str, u32)> = many.iter().map(|ip| (ip.as_str(), 0)).collect();
    let read = raw("a", &many, &GOOD).read(&Interfaces::Networks).unwrap();
    assert_eq!(read.addresses.len(), Found::MOST_ADDRESSES);
}

#[test]
fn a_record_that_no_agent_writes_is_dropped() {
    let at = [("10.0.0.1", 0)];
    let reads = |raw: Record| raw.read(&Interfaces::Networks).is_some();
    assert!(reads(raw("a", &at, &GOOD)));
    for name in ["", "\u{1b}[31m", "a\nb", "\u{202e}a", " ", &"n".repeat(65), "a\\"] {
        assert!(!reads(raw(name, &at, &GOOD)), "{name:?}");
    }
    let long = format!("/{}", "p".repeat(4_000));
    for (key, value) in [
        ("v", "2"),
        ("v", ""),
        ("key", ""),
        ("key", "0123456789ABCDEF"),
        ("key", "0123456789abcdef0"),
        ("key", "+123456789abcdef"),
        ("path", ""),
        ("path", "noise"),
        ("path", "/a b"),
        ("path", "/../x"),
        ("path", "/a\r\nHost: x"),
        ("path", "@evil.example/noise/ws"),
        ("path", ":80/noise/ws"),
        ("path", &long),
    ] {
        let properties: Vec<_> = GOOD.iter().map(|(k, v)| (*k, if *k == key { value } else { *v })).collect();
        assert!(!reads(raw("a", &at, &properties)), "{key}={value:?}");
        let twice: Vec<_> = GOOD.iter().copied().chain([(key, value)]).collect();
        assert!(!reads(raw("a", &at, &twice)), "{key} twice");
        let without: Vec<_> = GOOD.iter().copied().filter(|(k, _)| *k != key).collect();
        assert!(!reads(raw("a", &at, &without)), "no {key}");
    }
    assert!(!reads(raw("a", &[], &GOOD)));
    assert!(!reads(Record { port: 0, ..raw("a", &at, &GOOD) }));
    for other in ["a._http._tcp.local.", "_openagents._tcp.local.", "x_openagents._tcp.local.", "a"] {
        assert!(!reads(Record { fullname: other.to_owned(), ..raw("a", &at, &GOOD) }), "{other}");
    }
}

#[test]
fn loopback_containers_and_virtual_machines_are_not_networks() {
    let networks = Interfaces::default();
    for (name, is_loopback) in
        [("lo", true), ("docker0", false), ("br-1f", false), ("veth3a", false), ("virbr0", false)]
    {
        assert!(!networks.takes(name, is_loopback), "{name}");
        assert!(Interfaces::All.takes(name, is_loopback));
    }
    for name in ["eth0", "wlan0", "en0", "bridge0", "tailscale0"] {
        assert!(networks.takes(name, false), "{name}");
    }
    let only = Interfaces::Only(vec!["veth3a".to_owned()]);
    assert!(only.takes("veth3a", false) && !only.takes("eth0", false));
}

#[test]
fn hashes_are_of_the_key_and_have_one_text() {
    let key = |last| {
        let mut bytes = [9; 32];
        bytes[31] = last;
        KeyHash::of(&AgentPublicKey::from_bytes(bytes).unwrap())
    };
    assert_ne!(key(1), key(2));
    // `printf 'sessioncap.mdns.key.v1' | cat - KEY | sha256sum`
    assert_eq!(key(9).to_string(), "6e593f19a459d666");
    assert_eq!(KeyHash::from_str(&key(1).to_string()).unwrap(), key(1));
}

#[test]
fn the_newest_eight_records_of_a_key_are_candidates_and_the_others_do_not_count() {
    let mut known = Known::default();
    let wanted: KeyHash = HASH.parse().unwrap();
    for at in 0..20 {
        assert!(known.add(found(&format!("ours {at}"), HASH, &format!("10.0.0.{at}:1"))).is_some());
        assert!(known.add(found(&format!("theirs {at}"), "ffffffffffffffff", "10.0.1.1:1")).is_some());
    }
    let names = |known: &Known| -> Vec<String> {
        known.of(wanted).iter().map(|found| found.name.to_string()).collect()
    };
    let expected: Vec<String> = (12..20).rev().map(|at| format!("ours {at}")).collect();
    assert_eq!(names(&known), expected);
    // The same again is no news, and something new about one makes it the newest.
    assert_eq!(known.add(found("ours 15", HASH, "10.0.0.15:1")), None);
    assert!(known.add(found("ours 15", HASH, "10.0.0.99:1")).is_some());
    assert_eq!(names(&known)[..3], ["ours 15", "ours 19", "ours 18"]);
    assert_eq!(
        known.remove(&Label::new("ours 15").unwrap()),
        Some(Event::Gone(Label::new("ours 15").unwrap()))
    );
    assert_eq!(known.remove(&Label::new("ours 15").unwrap()), None);
    assert_eq!(names(&known)[0], "ours 19");
    // Whoever copies one hash does not push the records of another out.
    let theirs = known.of("ffffffffffffffff".parse().unwrap());
    for at in 0..1_000 {
        known.add(found(&format!("copy {at}"), HASH, "10.0.0.1:1"));
    }
    assert_eq!(known.of("ffffffffffffffff".parse().unwrap()), theirs);
    for at in 0..10_000 {
        known.add(found(&format!("flood {at}"), &format!("{at:016x}"), "10.0.1.1:1"));
    }
    assert!(names(&known).is_empty());
    let kept: HashSet<String> = (0..10_000)
        .flat_map(|at| known.of(format!("{at:016x}").parse().unwrap()))
        .map(|found| found.name.to_string())
        .collect();
    assert_eq!(kept.len(), Browse::MOST_RECORDS);
}

#[test]
fn an_agent_that_says_the_name_of_another_does_not_hide_it() {
    let mut known = Known::default();
    let wanted: KeyHash = HASH.parse().unwrap();
    let (ours, theirs) = (found("desk", HASH, "10.0.0.1:1"), found("desk", HASH, "10.0.0.2:1"));
    for spoken in [&ours, &theirs, &ours, &theirs] {
        known.add(spoken.clone());
    }
    assert_eq!(known.of(wanted), [theirs.clone(), ours.clone()]);
    // A record that says more of the same agent is one record.
    let mut more = ours.clone();
    more.addresses.push("[fd00::1]:1".parse().unwrap());
    assert_eq!(known.add(more.clone()), Some(Event::Found(more.clone())));
    assert_eq!(known.of(wanted), [more.clone(), theirs]);
    // Another key is another agent, whatever its name and address.
    // One that says less of it is no news.
    assert_eq!(known.add(ours), None);
    known.add(found("desk", "ffffffffffffffff", "10.0.0.1:1"));
    assert_eq!(known.of(wanted).len(), 2);
    assert!(known.remove(&more.name).is_some());
    assert!(known.of(wanted).is_empty());
}

#[tokio::test]
async fn the_network_is_asked_anew_and_no_record_is_forgotten() {
    let mut browse = Browse::start(None, Interfaces::Only(Vec::new())).unwrap();
    let heard = found("desk", HASH, "10.0.0.1:1");
    browse.known.add(heard.clone());
    let mut pauses = Vec::new();
    for _ in 0..6 {
        // Each question says so when it begins.
        while !matches!(browse.receive().await.unwrap(), ServiceEvent::SearchStarted(_)) {}
        pauses.push(browse.ask_now().as_secs());
    }
    assert_eq!(pauses[0], 2);
    assert!(
        pauses.is_sorted() && pauses.contains(&16) && pauses.iter().all(|pause| *pause <= 16),
        "{pauses:?}"
    );
    assert_eq!(browse.candidates(heard.key), [heard]);
}

#[tokio::test]
async fn a_subscription_that_was_closed_begins_again() {
    let mut browse = Browse::start(None, Interfaces::Only(Vec::new())).unwrap();
    let started = async |browse: &mut Browse| loop {
        if matches!(browse.receive().await.unwrap(), ServiceEvent::SearchStarted(_)) {
            return;
        }
    };
    started(&mut browse).await;
    browse.known.add(found("a", HASH, "10.0.0.1:1"));
    browse.daemon().stop_browse(SERVICE_TYPE).unwrap();
    while !matches!(browse.receive().await.unwrap(), ServiceEvent::SearchStopped(_)) {}
    started(&mut browse).await;
    assert!(browse.candidates(HASH.parse().unwrap()).is_empty(), "what may have gone is forgotten");
}

#[tokio::test]
async fn an_agent_does_not_find_itself() {
    let of = |name: &str, key: &str| {
        let properties = [("v", "1"), ("path", "/noise/ws"), ("key", key)];
        let service = ServiceInfo::new(SERVICE_TYPE, name, "h.local.", "10.0.0.1", 7_000, &properties[..]);
        ServiceEvent::ServiceResolved(Box::new(service.unwrap().as_resolved_service()))
    };
    let mut browse = Browse::start(Some(HASH.parse().unwrap()), Interfaces::Only(Vec::new())).unwrap();
    assert_eq!(browse.take(of("own", HASH)), None);
    assert!(browse.candidates(HASH.parse().unwrap()).is_empty());
    let other = found("other", "ffffffffffffffff", "10.0.0.1:7000");
    assert_eq!(browse.take(of("other", "ffffffffffffffff")), Some(Event::Found(other.clone())));
    assert_eq!(browse.candidates(other.key).as_slice(), std::slice::from_ref(&other));
    let removed = format!("other.{SERVICE_TYPE}");
    let removed = ServiceEvent::ServiceRemoved(SERVICE_TYPE.to_owned(), removed);
    assert_eq!(browse.take(removed), Some(Event::Gone(other.name)));
}

#[tokio::test]
async fn an_advert_out_of_bounds_is_refused() {
    let good = Advert::new(Label::new("desk").unwrap(), 7_000, "/noise/ws", HASH.parse().unwrap());
    let refused = |advert: Advert| Advertisement::start(&advert, Interfaces::Only(Vec::new())).is_err();
    assert!(refused(Advert { port: 0, ..good.clone() }));
    assert!(refused(Advert { path: "/a b".to_owned(), ..good.clone() }));
    assert!(refused(Advert { host: "a.b".to_owned(), ..good.clone() }));
    assert!(refused(Advert { host: String::new(), ..good.clone() }));
    assert!(refused(Advert { name: Label::default(), ..good.clone() }));
    assert!(refused(Advert {
        name: Label::new("n".repeat(Advert::MAX_NAME_LEN + 1)).unwrap(),
        ..good.clone()
    }));
    let advertised = Advertisement::start(&good, Interfaces::Only(Vec::new())).unwrap();
    assert_eq!(advertised.state(), State { name: good.name, announced: false, trouble: None });
    advertised.stop().await;
}
