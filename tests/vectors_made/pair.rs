//! The `pair.*` methods in JSON (section 8).

use serde_json::{Value, json};
use sessioncap::pair;

use super::*;

const BLOB: &str = "a registration, offer or renewal is the message of the file of that name, as base64url";

pub fn valid_pair_methods(stage: &Stage, files: &mut Files) {
    let device = stage.desktop.device;
    let registration = stage.desktop.issuer.registration(&device, &CHANNEL);
    let (ticket, credential) = (stage.pairing.ticket, stage.pairing.credential);
    let cursor = stage.world.gate.list(&page_of_one(), stage.world.now).unwrap();
    assert!(cursor.next.is_none(), "one entry");
    let requests = [
        ("register-issuer", json!({ "method": "pair.register_issuer", "registration": registration })),
        ("offer", json!({ "method": "pair.offer", "offer": stage.pairing.offer })),
        ("confirm", json!({ "method": "pair.confirm", "ticket": ticket, "holder": phone(2).public() })),
        ("renew", json!({ "method": "pair.renew", "renewal": stage.renewal() })),
        ("list-all", json!({ "method": "pair.list" })),
        (
            "list-some",
            json!({
                "method": "pair.list", "session": SESSION, "device": device, "state": "active",
                "after": "AQEBAQEBAQEBAQEBAQEBAQE", "limit": 20,
            }),
        ),
        ("revoke-ticket", json!({ "method": "pair.revoke", "ticket": ticket })),
        ("revoke-credential", json!({ "method": "pair.revoke", "credential": credential })),
        ("revoke-session", json!({ "method": "pair.revoke", "session": SESSION })),
        ("revoke-issuer", json!({ "method": "pair.revoke", "issuer": stage.desktop.issuer.public() })),
        ("revoke-device", json!({ "method": "pair.revoke", "device": device })),
        (
            "revoke-phone",
            json!({ "method": "pair.revoke", "phone": { "device": device, "name": "Anna's phone" } }),
        ),
    ];
    for (name, json) in requests {
        let value = json!({ "kind": "pair_request", "comment": BLOB, "json": json });
        valid(files, &format!("pair-request-{name}"), value);
    }
    let renewed = Stage::new().renew(&stage.renewal()).unwrap().0;
    let renewed = RenewalReceipt::from_bytes(&renewed).unwrap();
    let listed = stage.world.gate.list(&List::default(), stage.world.now).unwrap();
    let answers = [
        ("register-issuer", json!({ "answer": "pair.register_issuer" })),
        ("offer", json!({ "answer": "pair.offer", "receipt": stage.receipt })),
        ("confirm", json!({ "answer": "pair.confirm" })),
        ("renew", json!({ "answer": "pair.renew", "receipt": renewed })),
        ("list", serde_json::to_value(pair::Answer::Listed(listed)).unwrap()),
        ("list-of-every-state", every_state(stage)),
        ("revoke-ended", json!({ "answer": "pair.revoke", "outcome": "ended", "pairings": 3 })),
        ("revoke-already", json!({ "answer": "pair.revoke", "outcome": "already" })),
        ("revoke-unknown", json!({ "answer": "pair.revoke", "outcome": "unknown" })),
    ];
    for (name, json) in answers {
        valid(files, &format!("pair-answer-{name}"), json!({ "kind": "pair_answer", "json": json }));
    }
}

fn page_of_one() -> List {
    List::default().with_limit(1.try_into().unwrap())
}

fn entry(stage: &Stage) -> Value {
    json!({
        "ticket": stage.pairing.ticket, "credential": stage.pairing.credential, "session": SESSION,
        "device": stage.desktop.device, "label": "Anna's phone", "holder": null, "phone_label": null,
        "ops": ["read_metadata", "stream_output"], "created_at": "2026-05-28T20:26:40Z", "last_seen": null,
        "expires_at": "2026-05-28T20:31:40Z", "connections": 0, "renewal": null, "state": { "state": "open" },
    })
}

fn with(mut value: Value, path: &str, new: Value) -> Value {
    *value.pointer_mut(path).unwrap_or_else(|| panic!("no {path}")) = new;
    value
}

fn every_state(stage: &Stage) -> Value {
    let redeemed = with(entry(stage), "/holder", json!(phone(2).public()));
    let redeemed = with(redeemed, "/phone_label", json!("phone"));
    let states = [
        json!({ "state": "pending", "code": "012 345" }),
        json!({ "state": "active" }),
        json!({ "state": "expired" }),
    ];
    let reasons = ["owner", "contest", "session", "session_end", "issuer"];
    let revoked = reasons.map(|why| json!({ "state": "revoked", "why": why }));
    let mut entries = vec![entry(stage)];
    entries.extend(states.into_iter().chain(revoked).map(|state| with(redeemed.clone(), "/state", state)));
    let renewal = json!({ "ops": ["read_metadata"], "expires_at": "2026-05-29T20:26:40Z" });
    let seen = with(redeemed, "/last_seen", json!("2026-05-28T20:27:00Z"));
    let seen = with(seen, "/state", json!({ "state": "active" }));
    entries.push(with(with(seen, "/connections", json!(2)), "/renewal", renewal));
    json!({ "answer": "pair.list", "entries": entries, "next": "AQEBAQEBAQEBAQEBAQEBAQE" })
}

pub fn invalid_pair_methods(stage: &Stage, files: &mut Files) {
    let id = "01".repeat(16);
    let key = phone(2).public().to_string();
    let text = |value: Value| crate::common::vector_files::sorted(&value).to_string();
    let offer = serde_json::to_value(&stage.pairing.offer).unwrap();
    let offer = offer.as_str().unwrap();
    let requests = [
        ("no-method", text(json!({ "ticket": id }))),
        ("method-unknown", text(json!({ "method": "pair.enroll" }))),
        ("method-twice", r#"{"method":"pair.list","method":"pair.list"}"#.to_owned()),
        ("unknown-field", text(json!({ "method": "pair.offer", "offer": offer, "force": true }))),
        ("field-missing", text(json!({ "method": "pair.confirm", "ticket": id }))),
        ("field-twice", format!(r#"{{"method":"pair.revoke","ticket":"{id}","ticket":"{id}"}}"#)),
        ("offer-padded", text(json!({ "method": "pair.offer", "offer": format!("{offer}=") }))),
        (
            "offer-in-hexadecimal",
            text(json!({ "method": "pair.offer", "offer": hex(&stage.pairing.offer.to_bytes()) })),
        ),
        ("offer-empty", text(json!({ "method": "pair.offer", "offer": "" }))),
        ("offer-as-renewal", text(json!({ "method": "pair.renew", "renewal": offer }))),
        ("offer-as-registration", text(json!({ "method": "pair.register_issuer", "registration": offer }))),
        ("ticket-upper-case", text(json!({ "method": "pair.revoke", "ticket": "AB".repeat(16) }))),
        (
            "holder-of-low-order",
            text(json!({ "method": "pair.confirm", "ticket": id, "holder": "00".repeat(32) })),
        ),
        ("revoke-nothing", text(json!({ "method": "pair.revoke" }))),
        ("revoke-two-things", text(json!({ "method": "pair.revoke", "ticket": id, "credential": id }))),
        ("revoke-unknown-thing", text(json!({ "method": "pair.revoke", "holder": key }))),
        ("revoke-phone-without-name", text(json!({ "method": "pair.revoke", "phone": { "device": key } }))),
        (
            "revoke-phone-unknown-field",
            text(json!({ "method": "pair.revoke", "phone": { "device": key, "name": "a", "all": true } })),
        ),
        (
            "revoke-phone-label-with-newline",
            text(json!({ "method": "pair.revoke", "phone": { "device": key, "name": "a\nb" } })),
        ),
        ("list-limit-0", text(json!({ "method": "pair.list", "limit": 0 }))),
        ("list-limit-negative", text(json!({ "method": "pair.list", "limit": -1 }))),
        ("list-state-unknown", text(json!({ "method": "pair.list", "state": "live" }))),
        ("list-unknown-field", text(json!({ "method": "pair.list", "id": SESSION }))),
        ("list-session-with-slash", text(json!({ "method": "pair.list", "session": "a/b" }))),
        ("list-cursor-too-short", text(json!({ "method": "pair.list", "after": "AQEB" }))),
        (
            "list-cursor-of-no-kind",
            text(json!({ "method": "pair.list", "after": "AgEBAQEBAQEBAQEBAQEBAQE" })),
        ),
    ];
    for (name, input) in requests {
        let error = serde_json::from_str::<pair::Request>(&input).expect_err(name).to_string();
        let value = json!({ "kind": "pair_request", "input": input, "error": without_place(&error) });
        invalid(files, &format!("pair-request-{name}"), value);
    }
    let page = |entry: Value| text(json!({ "answer": "pair.list", "entries": [entry], "next": null }));
    let entry = || entry(stage);
    let changed = |path: &str, new: Value| page(with(entry(), path, new));
    let answers = [
        ("no-answer", text(json!({ "outcome": "already" }))),
        ("unknown-field", text(json!({ "answer": "pair.confirm", "ok": true }))),
        ("receipt-missing", text(json!({ "answer": "pair.offer" }))),
        ("receipt-of-a-renewal", {
            let renewed =
                RenewalReceipt::from_bytes(&Stage::new().renew(&stage.renewal()).unwrap().0).unwrap();
            text(json!({ "answer": "pair.offer", "receipt": renewed }))
        }),
        ("outcome-unknown", text(json!({ "answer": "pair.revoke", "outcome": "maybe" }))),
        ("outcome-ended-without-a-number", text(json!({ "answer": "pair.revoke", "outcome": "ended" }))),
        (
            "outcome-already-with-a-number",
            text(json!({ "answer": "pair.revoke", "outcome": "already", "pairings": 1 })),
        ),
        ("entry-unknown-field", {
            let mut entry = entry();
            entry["secret"] = json!(1);
            page(entry)
        }),
        ("entry-without-state", {
            let mut entry = entry();
            entry.as_object_mut().unwrap().remove("state");
            page(entry)
        }),
        ("entry-operation-unknown", changed("/ops", json!(["fly"]))),
        ("entry-operation-twice", changed("/ops", json!(["stream_output", "stream_output"]))),
        ("entry-time-with-offset", changed("/created_at", json!("2026-05-28T22:26:40+02:00"))),
        ("entry-time-with-fraction", changed("/expires_at", json!("2026-05-28T20:31:40.0Z"))),
        ("entry-time-before-1970", changed("/created_at", json!("1969-12-31T23:59:59Z"))),
        ("entry-connections-negative", changed("/connections", json!(-1))),
        ("state-open-with-code", changed("/state", json!({ "state": "open", "code": "012 345" }))),
        (
            "state-pending-code-of-five-digits",
            changed("/state", json!({ "state": "pending", "code": "12 345" })),
        ),
        ("state-revoked-without-reason", changed("/state", json!({ "state": "revoked" }))),
        ("page-without-entries", text(json!({ "answer": "pair.list", "next": null }))),
    ];
    for (name, input) in answers {
        let error = serde_json::from_str::<pair::Answer>(&input).expect_err(name).to_string();
        let value = json!({ "kind": "pair_answer", "input": input, "error": without_place(&error) });
        invalid(files, &format!("pair-answer-{name}"), value);
    }
}

/// An error of the JSON reader, without where it was found.
pub fn without_place(error: &str) -> String {
    error.split(" at line ").next().unwrap().to_owned()
}
