//! Vectors of a phone's stored pairing, written by hand from the format on `Stored`'s page.

use sessioncap::app::{AppError, Stored};

use super::{hex, invalid, valid};
use crate::common::cbor::head;
use crate::{Fields, Files, Stage};

fn text(value: &str) -> Vec<u8> {
    [head(3, value.len() as u64), value.as_bytes().to_vec()].concat()
}

fn bytes(value: &[u8]) -> Vec<u8> {
    [head(2, value.len() as u64), value.to_vec()].concat()
}

fn list(items: &[Vec<u8>]) -> Vec<u8> {
    [head(4, items.len() as u64), items.concat()].concat()
}

fn uint(value: u64) -> Vec<u8> {
    head(0, value)
}

/// Key and value in order, after the magic and the version.
fn stored(fields: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let fields_written = fields.iter().map(|(key, value)| [head(0, *key), value.clone()].concat());
    [b"SCPP\x01".to_vec(), head(5, fields.len() as u64), fields_written.collect::<Vec<_>>().concat()].concat()
}

const AGENT: &str = "wss://agent.example/noise/ws";

fn common(addresses: &[&str], label: &str, pins: &[[u8; 32]]) -> Vec<(u64, Vec<u8>)> {
    let agent = sessioncap::AgentSecretKey::from_bytes([1; 32]).public();
    vec![
        (1, bytes(&[2; 32])),
        (2, bytes(agent.as_bytes())),
        (3, list(&addresses.iter().map(|address| text(address)).collect::<Vec<_>>())),
        (4, text(label)),
        (5, list(&pins.iter().map(|pin| bytes(pin)).collect::<Vec<_>>())),
    ]
}

fn joined(stage: &Stage, ops: u64, end: u64) -> Vec<(u64, Vec<u8>)> {
    let mut fields = common(&[AGENT, "ws://10.0.0.7:9099/noise/ws"], "phone", &[[7; 32], [8; 32]]);
    fields.extend([
        (7, bytes(&[0x33; 16])),
        (8, bytes(stage.credential_bytes())),
        (9, text("build-42")),
        (10, bytes(&[0x44; 16])),
        (11, uint(ops)),
        (12, uint(end)),
        (13, uint(1_780_000_000)),
    ]);
    fields
}

fn with(fields: &[(u64, Vec<u8>)], key: u64, value: Vec<u8>) -> Vec<(u64, Vec<u8>)> {
    fields.iter().map(|(at, old)| (*at, if *at == key { value.clone() } else { old.clone() })).collect()
}

pub fn stored_pairings(stage: &Stage, files: &mut Files) {
    let mut link = common(&[AGENT], "", &[]);
    link.push((6, bytes(&[0x11; 16])));
    let joined_fields = joined(stage, 31, 1_780_043_200);
    for (name, fields) in [("link", &link), ("joined", &joined_fields)] {
        let input = stored(fields);
        let read = Stored::from_bytes(&input).unwrap();
        let value = serde_json::json!({
            "kind": "stored",
            "bytes": hex(&input),
            "ticket": read.ticket().to_string(),
            "holder_secret": hex(&[2; 32]),
            "addresses": read.addresses().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "label": read.label().as_str(),
            "session": read.access().map(|access| access.session.as_str()),
            "end": read.access().map(|access| access.end.seconds()),
        });
        valid(files, &format!("stored-{name}"), value);
    }
    let good = stored(&joined_fields);
    let newer = [b"SCPP\x02".as_slice(), &good[5..]].concat();
    let mut refuse = |name: &str, input: &[u8], error: &str| {
        let value = serde_json::json!({ "kind": "stored", "input": hex(input), "error": error });
        invalid(files, &format!("stored-{name}"), value);
    };
    refuse("nothing", b"", "stored_foreign");
    refuse("foreign", b"{\"agent_url\":\"wss://agent.example\"}", "stored_foreign");
    refuse("newer", &newer, "stored_newer");
    refuse("newer-of-another-shape", b"SCPP\x09anything", "stored_newer");
    refuse("version-0", b"SCPP\x00", "stored_damaged");
    refuse("without-a-version", b"SCPP", "stored_damaged");
    refuse("cut", &good[..good.len() - 1], "stored_damaged");
    refuse("cut-after-the-version", &good[..5], "stored_damaged");
    refuse("a-byte-more", &[good.as_slice(), &[0]].concat(), "stored_damaged");
    let damaged = [
        ("without-an-address", with(&joined_fields, 3, list(&[]))),
        ("address-twice", with(&joined_fields, 3, list(&[text(AGENT), text(AGENT)]))),
        ("address-in-another-spelling", with(&joined_fields, 3, list(&[text("https://agent.example")]))),
        (
            "nine-addresses",
            with(
                &joined_fields,
                3,
                list(&(0..9).map(|n| text(&format!("wss://a{n}.example/noise/ws"))).collect::<Vec<_>>()),
            ),
        ),
        ("five-pins", with(&joined_fields, 5, list(&vec![bytes(&[7; 32]); 5]))),
        ("agent-key-of-low-order", with(&joined_fields, 2, bytes(&[0; 32]))),
        ("unknown-operation", joined(stage, 256, 1_780_043_200)),
        ("end-after-the-last-year", joined(stage, 31, 253_402_300_800)),
        ("label-with-a-control", with(&joined_fields, 4, text("a\u{1b}b"))),
        ("ticket-and-credential", [link.as_slice(), &joined_fields[5..]].concat()),
        ("neither-ticket-nor-credential", common(&[AGENT], "", &[])),
    ];
    for (name, fields) in damaged {
        refuse(name, &stored(&fields), "stored_damaged");
    }
}

pub fn check_stored(fields: &mut Fields) {
    let input = fields.bytes("bytes");
    let read = Stored::from_bytes(&input).unwrap();
    assert_eq!(read.to_bytes().as_bytes(), input);
    assert_eq!(read.ticket().to_string(), fields.text("ticket"));
    assert_eq!(hex(read.holder().expose_bytes()), fields.text("holder_secret"));
    let addresses: Vec<String> = read.addresses().iter().map(ToString::to_string).collect();
    assert_eq!(serde_json::json!(addresses), fields.take("addresses"));
    assert_eq!(read.label().as_str(), fields.text("label"));
    let session = read.access().map(|access| access.session.as_str());
    assert_eq!(serde_json::json!(session), fields.take("session"));
    let end = read.access().map(|access| access.end.seconds());
    assert_eq!(serde_json::json!(end), fields.take("end"));
}

pub fn refusal(input: &[u8]) -> String {
    Stored::from_bytes(input).map_err(|error: AppError| error.code().to_owned()).expect_err("it is invalid")
}
