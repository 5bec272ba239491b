//! Replays the committed corpora of `fuzz/` through the bodies of its targets, and makes the seeds.
#![cfg(all(
    feature = "agent",
    feature = "holder",
    feature = "issuer",
    feature = "attenuate",
    feature = "qr",
    feature = "acp",
    feature = "dd"
))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sessioncap::phone::*;
use sessioncap::*;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 15] = [
    ("bridge", targets::bridge),
    ("web", targets::web),
    ("connection", targets::connection),
    ("stored", targets::stored),
    ("link", targets::link),
    ("message_1", targets::message_1),
    ("message_2", targets::message_2),
    ("credential", targets::credential),
    ("operations", targets::operations),
    ("rules", targets::rules),
    ("frames", targets::frames),
    ("pair", targets::pair_methods),
    ("session", targets::session_messages),
    ("acp", targets::acp),
    ("dd", targets::dd),
];

const MOST_FILES: usize = 40;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

#[test]
fn every_corpus_file_passes_its_target() {
    let folders = fs::read_dir(corpus()).unwrap().count();
    assert_eq!(folders, TARGETS.len(), "one corpus for each target");
    for (name, target) in TARGETS {
        let files: Vec<_> =
            fs::read_dir(corpus().join(name)).unwrap().map(|file| file.unwrap().path()).collect();
        assert!((5..=MOST_FILES).contains(&files.len()), "{name}: {} files", files.len());
        for file in files {
            // shown with the failure of a target
            println!("{}", file.display());
            target(&fs::read(file).unwrap());
        }
    }
}

/// Sequences that no fuzzer had to find. `SESSIONCAP_CASES` multiplies them, `SESSIONCAP_SEED` chooses.
#[test]
fn random_sequences_of_calls_pass() {
    use rand::{Rng, SeedableRng};
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let mut rng = rand::rngs::StdRng::seed_from_u64(number("SESSIONCAP_SEED", 1));
    for _ in 0..60 * number("SESSIONCAP_CASES", 1) {
        let mut calls: Vec<u8> = (0..180).map(|_| rng.r#gen()).collect();
        // Something has to be on record before it can be revoked.
        calls[..6].copy_from_slice(&[0, 0, rng.gen_range(1..200), 1, 0, 0]);
        println!("{calls:?}");
        targets::operations(&calls);
    }
}

/// Of a bridge and of a phone app. Most begin where something can happen.
#[test]
fn random_stories_of_a_bridge_and_of_an_app_pass() {
    use rand::{Rng, SeedableRng};
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let mut rng = rand::rngs::StdRng::seed_from_u64(number("SESSIONCAP_SEED", 1));
    for case in 0..150 * number("SESSIONCAP_CASES", 1) {
        let mut story: Vec<u8> = (0..120).map(|_| rng.r#gen()).collect();
        println!("bridge {story:?}");
        targets::bridge(&story);
        if case % 4 != 0 {
            story.splice(..0, [0, 5, 1, 16, 0, 5]);
        }
        println!("connection {story:?}");
        targets::connection(&story);
    }
}

/// Changed in a few bytes, with words of the protocols among them. What the adapters' reader of JSON takes, another
/// reader takes as the same value.
#[test]
fn changed_corpus_files_of_the_adapters_pass() {
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let mut rng = rand::rngs::StdRng::seed_from_u64(number("SESSIONCAP_SEED", 1));
    let words = [
        "\"mine\"",
        "\"build-42\"",
        "\"sessionId\"",
        "\"session_id\"",
        "\"_meta\"",
        "null",
        "[]",
        "{}",
        "7",
        "\"7\"",
        "-0",
        "1e5",
        ",",
        ":",
        "{",
        "}",
        "\"",
        "\\u0061",
        "\"agent session/1\"",
        "\"id\"",
        "\"method\"",
        "\"yes\"",
        "\"allow_once\"",
    ];
    let mut read = 0;
    for (name, target) in TARGETS.into_iter().filter(|(name, _)| ["acp", "dd"].contains(name)) {
        let files = fs::read_dir(corpus().join(name)).unwrap().map(|file| file.unwrap().path());
        let mut files: Vec<_> = files.map(|path| fs::read(path).unwrap()).collect();
        files.sort();
        for _ in 0..3_000 * number("SESSIONCAP_CASES", 1) {
            let mut bytes = files.choose(&mut rng).unwrap().clone();
            // The phone of the targets has another session than that of the vectors.
            let text = String::from_utf8(bytes.clone()).unwrap();
            if rng.gen_bool(0.8) {
                bytes = text.replace("build-42", "mine").replace("sess_0f/é", "agent session/1").into_bytes();
            }
            for _ in 0..rng.gen_range(0..4) {
                let at = rng.gen_range(1..=bytes.len());
                let until = at + rng.gen_range(0..=6.min(bytes.len() - at));
                let word = match rng.gen_range(0..3) {
                    0 => Vec::new(),
                    1 => vec![rng.r#gen()],
                    _ => words.choose(&mut rng).unwrap().as_bytes().to_vec(),
                };
                bytes.splice(at..until, word);
            }
            println!("{name} {:?}", String::from_utf8_lossy(&bytes));
            target(&bytes);
            let ours = acp::Json::from_bytes(&bytes[1..], bytes.len(), 32);
            let theirs = serde_json::from_slice::<serde_json::Value>(&bytes[1..]);
            if let Ok(ours) = ours {
                read += 1;
                let written: serde_json::Value = serde_json::from_str(&ours.to_text()).unwrap();
                assert_eq!(written, theirs.unwrap());
            }
        }
    }
    assert!(read > 1_000, "{read}");
}

/// A corpus that no target reads past its first check is worth little.
#[test]
fn the_seeds_reach_past_the_first_checks() {
    targets::with_base(|base| {
        let payload = targets::redeem_payload(&base.open, &targets::phone(3));
        let by_library =
            redeem(&base.open, &targets::phone(3), Label::new("phone").unwrap(), &mut rand::rngs::OsRng);
        let agent = AgentSecretKey::from_bytes([1; 32]);
        let message = by_library.unwrap().message;
        let received = noise::Responder::read(&agent, &message, &mut rand::rngs::OsRng).unwrap();
        assert_eq!(received.payload(), payload, "the targets write what the library writes");
        assert!(Credential::parse(base.credential.bytes()).is_ok());
    });
    for (target, seeds) in seeds() {
        assert!(seeds.len() <= MOST_FILES, "{target}");
    }
}

/// `cargo test --all-features --test fuzz_corpora -- --ignored`
#[test]
#[ignore = "writes the seeds"]
fn write_the_seeds() {
    for (target, seeds) in seeds() {
        let folder = corpus().join(target);
        fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in seeds {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
}

type Seeds = BTreeMap<String, Vec<u8>>;

fn seeds() -> [(&'static str, Seeds); 14] {
    let vector = |name: &str, member: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
        let value: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        value[member].as_str().unwrap().to_owned()
    };
    let unhex = |text: String| -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    };

    let mut link = Seeds::new();
    for name in [
        "own-plain",
        "own-port",
        "own-path",
        "own-loopback",
        "own-ws-port-443",
        "own-ipv6",
        "host-plain",
        "host-port",
        "host-path",
        "host-ws-port-443",
        "host-ipv6",
        "host-ipv6-port-443-path",
        "scheme-plain",
        "scheme-ipv6",
        "scheme-path",
    ] {
        link.insert(name.to_owned(), vector(&format!("valid/link-{name}.json"), "text").into_bytes());
    }
    for name in [
        "damaged-behind-digits-ipv6-port-without-flag",
        "damaged-ipv6-mapped",
        "damaged-ipv6-port-0",
        "damaged-needless-path",
        "damaged-needless-port",
        "damaged-own-default-port-covered",
        "unknown-version-2",
        "foreign-small-p",
    ] {
        link.insert(name.to_owned(), vector(&format!("invalid/link-{name}.json"), "input").into_bytes());
    }

    let with_how = |how: u8, bytes: &[u8]| [&[how], bytes].concat();
    let fields = |payload: &[u8]| targets::cbor::encode(&targets::cbor::decode_payload(payload).unwrap());
    let (mut message_1, mut message_2, mut credential) = (Seeds::new(), Seeds::new(), Seeds::new());
    targets::with_base(|base| {
        let phone = targets::phone;
        let narrowed =
            base.credential.attenuate(Some(OpSet::only(Op::StreamOutput)), None, &mut Zeros).unwrap();
        let labelled = |text: &str| {
            let map = targets::cbor::decode_payload(&targets::redeem_payload(&base.open, &phone(3))).unwrap();
            let label = targets::cbor::Value::Text(text.to_owned());
            targets::cbor::payload(&targets::cbor::with(&map, 3, label))
        };
        let payloads = [
            ("redeem-label-joiner", 1, labelled("👩\u{200d}💻")),
            ("redeem-label-tag", 1, labelled("x\u{e0067}")),
            ("redeem-label-unassigned", 1, labelled("x\u{378}")),
            ("redeem-open", 1, targets::redeem_payload(&base.open, &phone(3))),
            ("redeem-again", 0, targets::redeem_payload(&base.redeemed, &phone(2))),
            ("redeem-contest", 1, targets::redeem_payload(&base.redeemed, &phone(3))),
            ("redeem-pending", 2, targets::redeem_payload(&base.pending, &phone(4))),
            ("redeem-other-phone", 3, targets::redeem_payload(&base.open, &phone(3))),
            ("attach", 0, targets::attach_payload(OpSet::EMPTY, base.credential.bytes().as_bytes())),
            (
                "attach-some",
                0,
                targets::attach_payload(OpSet::only(Op::SendInput), base.credential.bytes().as_bytes()),
            ),
            (
                "attach-none-held",
                0,
                targets::attach_payload(OpSet::only(Op::Resize), base.credential.bytes().as_bytes()),
            ),
            ("attach-narrowed", 0, targets::attach_payload(OpSet::EMPTY, narrowed.bytes().as_bytes())),
            ("attach-stolen", 1, targets::attach_payload(OpSet::EMPTY, base.credential.bytes().as_bytes())),
            ("attach-revoked", 3, targets::attach_payload(OpSet::EMPTY, base.revoked.as_bytes())),
        ];
        for (name, who, payload) in &payloads {
            message_1.insert((*name).to_owned(), with_how(1 | who << 2, payload));
            message_1.insert(format!("{name}-fields"), with_how(3 | who << 2, &fields(payload)));
        }
        message_1.insert("device".to_owned(), vec![1]);
        message_1.insert("magic-alone".to_owned(), vec![2]);
        for (name, seed) in [("raw", 2), ("raw-contest", 3)] {
            let label = Label::new("phone").unwrap();
            let asking = redeem(&base.redeemed, &phone(seed), label, &mut Zeros).unwrap();
            message_1.insert(name.to_owned(), with_how(0, &asking.message));
        }
        for (name, reply) in [("admitted", &base.reply), ("pending", &base.pending_reply)] {
            for (to, how) in [("redeem", 1), ("attach", 2)] {
                message_2.insert(format!("{name}-to-{to}"), with_how(how, reply));
            }
            message_2.insert(format!("{name}-to-redeem-fields"), with_how(7, &fields(reply)));
            message_2.insert(format!("{name}-to-attach-fields"), with_how(5, &fields(reply)));
        }
        for name in ["expired", "revoked", "busy"] {
            let payload = unhex(vector(&format!("valid/answer-refused-{name}.json"), "payload"));
            message_2.insert(format!("refused-{name}"), with_how(1, &payload));
        }
        message_2.insert("empty".to_owned(), vec![1]);
        message_2.insert(
            "raw".to_owned(),
            with_how(0, &unhex(vector("valid/handshake-redeem.json", "message_2"))),
        );
        credential.insert("bound".to_owned(), base.credential.bytes().as_bytes().to_vec());
        credential.insert("sealed".to_owned(), base.credential.seal().unwrap().bytes().as_bytes().to_vec());
        credential.insert("narrowed".to_owned(), narrowed.bytes().as_bytes().to_vec());
        credential.insert("revoked".to_owned(), base.revoked.as_bytes().to_vec());
        let offer = targets::cbor::decode(&base.offer.to_bytes()).unwrap();
        credential.insert("unbound".to_owned(), targets::cbor::bytes_of(&offer, 7));
    });
    for name in [
        "smuggled-check-or",
        "smuggled-check-regex",
        "smuggled-check-unknown-op",
        "smuggled-fact-operation",
        "smuggled-rule",
        "smuggled-second-binding",
        "smuggled-empty-block",
        "authority-second-credential",
        "authority-no-session",
        "p256-next-key",
        "envelope-root-key-id",
        "envelope-external-signature",
        "envelope-unknown-field",
        "envelope-nine-blocks",
        "smuggled-check-closure",
        "smuggled-check-scope",
    ] {
        credential
            .insert(name.to_owned(), unhex(vector(&format!("invalid/credential-{name}.json"), "input")));
    }
    for name in ["narrowed-both", "narrowed-six-times", "narrowed-sealed"] {
        credential.insert(name.to_owned(), unhex(vector(&format!("valid/credential-{name}.json"), "token")));
    }

    [
        ("link", link),
        ("message_1", message_1),
        ("message_2", message_2),
        ("credential", credential),
        ("operations", operations()),
        ("frames", frames()),
        ("pair", pair_methods()),
        ("session", session_messages()),
        ("acp", acp()),
        ("dd", dd()),
        ("bridge", bridges()),
        ("web", web()),
        ("connection", connections()),
        ("stored", stored()),
    ]
}

/// What happens to a phone app; see the target for the numbers.
fn connections() -> Seeds {
    const START: u8 = 0;
    const OPENED: u8 = 1;
    const CLOSED: u8 = 2;
    const FRAME: u8 = 3;
    const STORED: u8 = 5;
    const NOT_STORED: u8 = 6;
    const PASS: u8 = 7;
    const AWAY: u8 = 8;
    const BACK: u8 = 9;
    const NETWORK: u8 = 10;
    const TYPE: u8 = 11;
    const ASK: u8 = 12;
    const LEAVE: u8 = 13;
    const DENIED: u8 = 14;
    const RESIZE: u8 = 15;
    const ANSWER: [u8; 2] = [16, 0];
    const KEY: u8 = 17;
    const ADDRESS: u8 = 18;
    const KEY_NAME: u8 = 19;
    let joined = [&[START, STORED, OPENED][..], &ANSWER, &[STORED]].concat();
    let frame = |plaintext: &[u8]| [&[FRAME, u8::try_from(plaintext.len()).unwrap()], plaintext].concat();
    let taken = |number: u8| frame(&[1, 0, 65, 0, 0, 0, 0, 0, 0, 0, 0, 0, number]);
    let end = |code: u8| frame(&[3, 0, code, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let live = |after: &[Vec<u8>]| [&joined[..], &after.concat()].concat();
    [
        ("join", joined.clone()),
        (
            "join-not-stored",
            [&[START, NOT_STORED, PASS, 4, STORED, OPENED][..], &ANSWER, &[NOT_STORED, PASS, 9]].concat(),
        ),
        ("join-leave-while-storing", vec![START, LEAVE, START, STORED, OPENED, CLOSED, 8]),
        (
            "join-closed-while-storing",
            [&[START, STORED, OPENED][..], &ANSWER, &[CLOSED, 8, STORED, PASS, 9]].concat(),
        ),
        (
            "join-frame-while-storing",
            [&[START, STORED, OPENED][..], &ANSWER, &frame(&[2; 13]), &[STORED]].concat(),
        ),
        ("answer-of-nothing", vec![START, STORED, OPENED, 16, 5, b'S', b'C', b'P', b'1', 0xa0]),
        ("opened-never", vec![START, STORED, PASS, 80, PASS, 9, PASS, 80]),
        ("denied-twice", vec![START, STORED, DENIED, PASS, 9, DENIED, START, OPENED]),
        ("typed-taken", live(&[vec![TYPE, 1, TYPE, 2], taken(1), taken(2), taken(2)])),
        ("typed-lost", live(&[vec![TYPE, 1, TYPE, 219, TYPE, 0, ASK], vec![CLOSED, 0, PASS, 9]])),
        ("asked", live(&[vec![ASK], frame(b"\x00\x11\x00\x00\x00\x00\x00\x00\x00\x01{}")])),
        ("ends", live(&[end(33), vec![PASS, 9, OPENED]])),
        ("ends-for-good", live(&[end(4), vec![START, NETWORK]])),
        ("breaks-the-protocol", live(&[frame(&[9]), vec![START]])),
        ("away-and-back", live(&[vec![AWAY, PASS, 255, BACK, NETWORK, PASS, 8, PASS, 8, PASS, 8]])),
        ("turned", live(&[vec![RESIZE, 20, RESIZE, 20, RESIZE, 255]])),
        ("keys", live(&[vec![KEY, 0, KEY, 9, KEY, 26], taken(1), taken(2)])),
        (
            "key-names",
            [&[KEY_NAME, 10][..], b"shift+tab!", &[KEY_NAME, 7], b"ctrl+c+", &[KEY_NAME, 6], b"ctrl+c"]
                .concat(),
        ),
        (
            "addresses",
            live(&[vec![ADDRESS, 1, STORED, ADDRESS, 2, ADDRESS, 3, NOT_STORED, CLOSED, 0, PASS, 9, STORED]]),
        ),
        (
            "address-while-storing",
            vec![START, ADDRESS, 1, STORED, STORED, OPENED, 16, 0, ADDRESS, 2, STORED, STORED],
        ),
        ("busy", live(&[vec![CLOSED, 13, PASS, 100, OPENED, CLOSED, 12]])),
    ]
    .map(|(name, story)| (name.to_owned(), story))
    .into()
}

/// What happens at a bridge; see the target for the numbers.
fn bridges() -> Seeds {
    const TYPE: u8 = 0;
    const FRAME: u8 = 1;
    const GARBAGE: u8 = 2;
    const PRINT: u8 = 3;
    const ROOM: u8 = 4;
    const PASS: u8 = 5;
    const SETTLE: u8 = 6;
    const REVOKE: u8 = 7;
    const NARROW: u8 = 8;
    const STOP: u8 = 9;
    const PING: u8 = 10;
    const AND: u8 = 0x80;
    let frame = |plaintext: &[u8]| [&[FRAME, u8::try_from(plaintext.len()).unwrap()], plaintext].concat();
    let part = frame(&Frame::Part("pa").to_bytes());
    let data = frame(&Frame::Data("rt").to_bytes());
    let discard = frame(&Frame::<Vec<u8>>::Discard.to_bytes());
    let end = frame(&Frame::<Vec<u8>>::End(EndCode::LEFT).to_bytes());
    [
        ("types-and-prints", vec![TYPE, 9, PRINT, 1, PING, TYPE, 200, ROOM, 255, PRINT, 255]),
        ("revoked-with-input-waiting", vec![TYPE, 90, ROOM, 3, REVOKE, ROOM, 255]),
        ("revoked-before-its-turn", vec![TYPE | AND, 9, PRINT | AND, 1, REVOKE]),
        ("narrowed-to-watch", vec![ROOM, 90, NARROW, 1, TYPE, 9, PRINT, 1, PING, TYPE, 3]),
        ("narrowed-to-type", vec![ROOM, 90, PRINT | AND, 9, NARROW, 2, TYPE, 9, PRINT, 1]),
        ("narrowed-with-input-waiting", vec![TYPE, 90, NARROW, 1, ROOM, 255, PING]),
        ("narrowed-to-nothing-and-back", vec![ROOM, 9, NARROW, 1, NARROW, 2, NARROW, 0, TYPE, 9, PRINT, 9]),
        ("stale", vec![TYPE, 40, PASS, PASS, ROOM, 99, PRINT, 1, PING, SETTLE, TYPE, 3]),
        ("revoked-while-stale", vec![TYPE, 40, PASS, PASS, PASS, PRINT, 1, ROOM | AND, 99, REVOKE]),
        ("parts", [&[ROOM, 99][..], &part, &data, &part, &discard, &data, &part, &[PING], &end].concat()),
        ("broken-frame", [&[TYPE, 3][..], &frame(&[9, 9])].concat()),
        ("part-in-a-part", [&part[..], &discard, &discard].concat()),
        ("garbage", vec![TYPE, 3, GARBAGE, 40]),
        ("lost", vec![TYPE | AND, 3, STOP, 0]),
        ("session-ended", vec![PRINT | AND, 3, STOP, 1]),
    ]
    .map(|(name, story)| (name.to_owned(), story))
    .into()
}

/// The vectors of what a link host serves.
fn web() -> Seeds {
    let mut seeds = Seeds::new();
    for (name, valid, value) in vectors().filter(|(name, ..)| name.starts_with("web-")) {
        let number = || vec![1, u8::try_from(value["fingerprints"].as_u64().unwrap()).unwrap()];
        let text = |member: &str| value[member].as_str().unwrap_or_default().as_bytes().to_vec();
        let (head, rest) = match value["kind"].as_str().unwrap() {
            "apple_file" => {
                let ids = value[if valid { "apps" } else { "input" }].as_array().unwrap();
                (
                    vec![0],
                    ids.iter().map(|id| id.as_str().unwrap()).collect::<Vec<_>>().join("\n").into_bytes(),
                )
            }
            "android_file" => (number(), text(if valid { "package" } else { "input" })),
            _ => (vec![2], text(if valid { "scheme" } else { "input" })),
        };
        seeds.insert(name, [head, rest].concat());
    }
    seeds
}

/// The vectors of stored pairings.
fn stored() -> Seeds {
    let mut seeds = Seeds::new();
    for (name, valid, value) in vectors().filter(|(name, ..)| name.starts_with("stored-")) {
        let text = value[if valid { "bytes" } else { "input" }].as_str().unwrap();
        let bytes = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap());
        seeds.insert(name, bytes.collect());
    }
    seeds
}

/// The frames of a phone; see the target for the bytes before each plaintext.
fn frames() -> Seeds {
    const SETTLE: u8 = 1;
    const PASS: u8 = 2;
    const REVOKE: u8 = 3;
    let data = |text: &str| Frame::Data(text).to_bytes();
    let part = |text: &str| Frame::Part(text).to_bytes();
    let control = |frame: Frame| frame.to_bytes();
    let story = |frames: &[(u8, Vec<u8>)]| -> Vec<u8> {
        let length = |frame: &[u8]| u8::try_from(frame.len()).unwrap();
        frames
            .iter()
            .flat_map(|(how, frame)| [&[how << 6 | length(frame)], frame.as_slice()].concat())
            .collect()
    };
    let ping = || control(Frame::Ping { answer: false, number: 7 });
    let end = || control(Frame::End(EndCode::LEFT));
    let notice = || control(Frame::Notice(Notice { code: 64, detail: 1, number: 2 }));
    [
        ("data", story(&[(0, data("a")), (0, data("b")), (0, data("c"))])),
        ("controls", story(&[(0, ping()), (0, notice()), (0, end()), (0, data("after its end"))])),
        ("cut-while-waiting", story(&[(0, data("a")), (REVOKE, data("b")), (0, ping()), (0, end())])),
        ("cut", story(&[(0, ping()), (0, data("b")), (0, data("c")), (REVOKE, data("d")), (0, end())])),
        (
            "stale",
            story(&[
                (0, data("a")),
                (0, data("b")),
                (PASS, data("c")),
                (PASS, data("d")),
                (0, data("e")),
                (SETTLE, data("f")),
                (0, data("g")),
            ]),
        ),
        (
            "parts",
            story(&[
                (0, part("a")),
                (0, ping()),
                (0, part("b")),
                (0, data("c")),
                (0, part("d")),
                (0, part("")),
                (0, data("e")),
                (0, ping()),
            ]),
        ),
        ("cut-in-parts", story(&[(0, data("a")), (0, part("b")), (REVOKE, data("c")), (0, end())])),
        (
            "stale-in-parts",
            story(&[
                (0, part("a")),
                (PASS, part("b")),
                (PASS, data("c")),
                (0, part("d")),
                (SETTLE, part("e")),
                (0, data("f")),
                (0, data("g")),
            ]),
        ),
        ("unreadable-first", story(&[(0, vec![9])])),
        ("unreadable-later", story(&[(0, data("a")), (0, b"{}".to_vec()), (0, data("b"))])),
        ("empty-later", story(&[(0, data("a")), (0, Vec::new()), (0, data("b"))])),
    ]
    .map(|(name, story)| (name.to_owned(), story))
    .into()
}

/// The vectors of the session profile, and stories of several messages; see the target for the lengths.
fn session_messages() -> Seeds {
    let mut seeds = Seeds::new();
    for (name, valid, value) in vectors() {
        if valid && name.starts_with("session-") || REFUSED_MESSAGES.contains(&name.as_str()) {
            let text = value[if valid { "message" } else { "input" }].as_str().unwrap();
            let bytes =
                (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap());
            seeds.insert(name, std::iter::once(0).chain(bytes).collect());
        }
    }
    let following = |run: u8, position: u64, missed: u64, screen: u8| {
        [&[18], [run; 16].as_slice(), &position.to_be_bytes(), &missed.to_be_bytes(), &[screen]].concat()
    };
    let screen = |position: u64| [&[19], position.to_be_bytes().as_slice(), &[0, 80, 0, 24], b"$ "].concat();
    let output =
        |position: u64, text: &str| [&[16], position.to_be_bytes().as_slice(), text.as_bytes()].concat();
    for (name, messages) in [
        ("story-follow", vec![following(1, 5, 0, 1), screen(5), output(5, "abc"), output(8, "d")]),
        (
            "story-resume",
            vec![following(1, 5, 0, 1), screen(5), output(5, "abc"), following(1, 8, 0, 0), output(6, "bcd")],
        ),
        ("story-gap", vec![following(1, 5, 0, 1), screen(5), output(9, "x"), output(7, "vwxyz")]),
        (
            "story-another-run",
            vec![following(1, 5, 0, 1), screen(5), following(2, 1, u64::MAX, 1), screen(1)],
        ),
        ("story-nothing-followed", vec![screen(5), output(5, "x"), following(1, 5, 0, 0)]),
        ("story-screen-of-another-place", vec![following(1, 5, 0, 1), screen(6), output(5, "x")]),
    ] {
        let length = |message: &[u8]| u8::try_from(message.len()).unwrap();
        let story = messages.iter().flat_map(|message| [&[length(message)], message.as_slice()].concat());
        seeds.insert(name.to_owned(), story.collect());
    }
    seeds
}

const REFUSED_MESSAGES: [&str; 6] = [
    "session-phone-follow-without-incarnation-from-a-position",
    "session-phone-resize-too-many-rows",
    "session-agent-output-beyond-the-last-position",
    "session-agent-following-gap-without-a-screen",
    "session-agent-event-bell-with-text",
    "session-agent-event-text-too-long",
];

/// The vectors of the adapter of the Agent Client Protocol; see the target for the byte before each.
fn acp() -> Seeds {
    let mut seeds = Seeds::new();
    for (name, valid, value) in vectors() {
        let text = |key: &str| value[key].as_str().unwrap().to_owned();
        let (kind, text) = match (name.as_str(), valid) {
            (name, true) if name.starts_with("acp-phone-") => (0, text("message")),
            (name, true) if name.starts_with("acp-agent-") => {
                let kind = match value["method"].as_str() {
                    Some("session/update") => 1,
                    Some("session/request_permission") => 3,
                    _ => 7,
                };
                (kind, value["params"].to_string())
            }
            (name, false) if REFUSED_BY_ACP.contains(&name) => (0, text("input")),
            ("acp-agent-message-of-a-subagent", false) => (1, value["input"].to_string()),
            ("acp-agent-web-page", false) => (5, value["input"].to_string()),
            _ => continue,
        };
        seeds.insert(name, [&[kind], text.as_bytes()].concat());
    }
    seeds
}

const REFUSED_BY_ACP: [&str; 8] = [
    "acp-phone-batch",
    "acp-phone-key-twice-escaped",
    "acp-phone-set-mode",
    "acp-phone-both-spellings",
    "acp-phone-load-with-a-program",
    "acp-phone-prompt-with-a-link",
    "acp-phone-answer-that-lasts",
    "acp-phone-cancel-of-a-foreign-request",
];

/// The vectors of the deployed agents' requests, and the answers to them; see the target for the byte before each.
fn dd() -> Seeds {
    let mut seeds = Seeds::new();
    for (name, valid, value) in vectors().filter(|(name, ..)| name.starts_with("dd-")) {
        let request = value[if valid { "request" } else { "input" }].as_str().unwrap();
        seeds.insert(name.clone(), [&[0], request.as_bytes()].concat());
        if valid {
            let answer = value["answer"].to_string();
            seeds.insert(format!("{name}-answer"), [&[1], answer.as_bytes()].concat());
        }
    }
    seeds
}

/// The vectors of the pairing methods: each shape, and some that are refused.
fn pair_methods() -> Seeds {
    let mut seeds = Seeds::new();
    for (name, valid, value) in vectors() {
        let wanted = match valid {
            true => name.starts_with("pair-request-") || name.starts_with("pair-answer-"),
            false => REFUSED_METHODS.contains(&name.as_str()),
        };
        if wanted {
            let text = match valid {
                true => value["json"].to_string(),
                false => value["input"].as_str().unwrap().to_owned(),
            };
            seeds.insert(name, text.into_bytes());
        }
    }
    seeds
}

/// Every vector: its name, whether it is a valid one, and its content.
fn vectors() -> impl Iterator<Item = (String, bool, serde_json::Value)> {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    ["valid", "invalid"].into_iter().flat_map(move |folder| {
        fs::read_dir(vectors.join(folder)).unwrap().map(move |file| {
            let path = file.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let content = fs::read_to_string(&path).unwrap();
            (name, folder == "valid", serde_json::from_str(&content).unwrap())
        })
    })
}

const REFUSED_METHODS: [&str; 8] = [
    "pair-request-method-twice",
    "pair-request-offer-padded",
    "pair-request-offer-as-renewal",
    "pair-request-revoke-two-things",
    "pair-request-list-cursor-of-no-kind",
    "pair-answer-entry-operation-twice",
    "pair-answer-state-open-with-code",
    "pair-answer-outcome-already-with-a-number",
];

/// Stories for the target `operations`; see there for the numbers.
fn operations() -> Seeds {
    const OFFER: u8 = 0;
    const REDEEM: u8 = 1;
    const ATTACH: u8 = 2;
    const PERMIT: u8 = 3;
    const CONFIRM: u8 = 12;
    const PASS: u8 = 13;
    const WALL: u8 = 14;
    const DROP: u8 = 15;
    let story = |calls: &[[u8; 3]]| calls.concat();
    let begin = [[OFFER, 0, 250], [REDEEM, 0, 0], [PERMIT, 0, 1], [ATTACH, 0, 0], [PERMIT, 1, 1]];
    let mut seeds = Seeds::new();
    let mut add = |name: &str, more: &[[u8; 3]]| {
        seeds.insert(name.to_owned(), [story(&begin), story(more)].concat());
    };
    let after = [[PERMIT, 0, 1], [PERMIT, 1, 1], [ATTACH, 0, 0], [REDEEM, 0, 0]];
    for (name, verb) in [
        ("revoke-ticket", 4),
        ("revoke-credential", 5),
        ("revoke-session", 6),
        ("end-session", 7),
        ("revoke-issuer", 9),
        ("revoke-device", 10),
        ("sync-devices", 11),
    ] {
        add(name, &[&[[verb, 0, 0], [8, 0, 0]], after.as_slice()].concat());
    }
    add("contest", &[&[[REDEEM, 0, 1]], after.as_slice()].concat());
    add("late-second-phone", &[&[[PASS, 1, 100], [REDEEM, 0, 1]], after.as_slice()].concat());
    add("expiry", &[&[[PASS, 200, 255]], after.as_slice()].concat());
    add("revoke-ticket-late", &[&[[PASS, 4, 64], [16, 0, 0], [4, 0, 0]], after.as_slice()].concat());
    add(
        "wall-forward-and-back",
        &[&[[WALL, 255, 255], [PERMIT, 0, 1], [WALL, 1, 255]], after.as_slice()].concat(),
    );
    add("wall-back", &[&[[WALL, 0, 255], [PASS, 100, 100]], after.as_slice()].concat());
    add("many-connections", &[[ATTACH, 0, 0], [ATTACH, 0, 0], [ATTACH, 0, 0], [DROP, 0, 0], [ATTACH, 0, 0]]);
    add(
        "confirm",
        &[[OFFER, 1, 4], [REDEEM, 1, 0], [CONFIRM, 1, 1], [CONFIRM, 1, 0], [REDEEM, 1, 0], [PERMIT, 2, 1]],
    );
    add("gate-opened-again", &[&[[17, 0, 0]], after.as_slice()].concat());
    add("revoked-and-opened-again", &[&[[5, 0, 0], [17, 0, 0]], after.as_slice()].concat());
    add(
        "quota",
        &[
            [OFFER, 0, 2],
            [OFFER, 0, 2],
            [OFFER, 0, 2],
            [OFFER, 0, 2],
            [OFFER, 0, 2],
            [4, 1, 0],
            [OFFER, 0, 2],
        ],
    );
    add(
        "revoke-before-redemption",
        &[[OFFER, 1, 3], [5, 1, 0], [REDEEM, 1, 0], [OFFER, 1, 3], [4, 2, 0], [REDEEM, 2, 0]],
    );
    add(
        "session-begins-again",
        &[[OFFER, 0, 3], [7, 0, 0], [8, 0, 0], [OFFER, 0, 3], [REDEEM, 1, 0], [REDEEM, 2, 0]],
    );
    seeds
}

/// Draws nothing but zeros: a seed must be the same every time.
struct Zeros;

impl rand_core::RngCore for Zeros {
    fn next_u32(&mut self) -> u32 {
        0
    }
    fn next_u64(&mut self) -> u64 {
        0
    }
    fn fill_bytes(&mut self, dest: &mut [u8]) {
        dest.fill(0);
    }
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

impl rand_core::CryptoRng for Zeros {}
