//! Audit records as JSON: `docs/audit.schema.json` describes every event, they read back, and a record that was
//! delivered twice is found by its identity.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::Path;

use common::*;
use regex::Regex;
use serde_json::Value;
use sessioncap::agent::AuditRecord;
use sessioncap::*;

fn schema() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/audit.schema.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Whether a value is valid, by the keywords that the schema uses and no others.
fn is_valid(value: &Value, schema: &Value, root: &Value) -> bool {
    let keywords = schema.as_object().unwrap();
    keywords.iter().all(|(keyword, with)| match keyword.as_str() {
        "$schema" | "$defs" | "title" | "description" => true,
        "$ref" => {
            let name = with.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
            is_valid(value, &root["$defs"][name], root)
        }
        "type" => match with.as_str().unwrap() {
            "object" => value.is_object(),
            "string" => value.is_string(),
            "integer" => value.is_u64(),
            "boolean" => value.is_boolean(),
            "array" => value.is_array(),
            other => panic!("type {other}"),
        },
        "const" => value == with,
        "enum" => with.as_array().unwrap().contains(value),
        "minimum" => value.as_u64() >= with.as_u64(),
        "maxLength" => {
            value.as_str().is_none_or(|text| text.chars().count() as u64 <= with.as_u64().unwrap())
        }
        "pattern" => {
            value.as_str().is_some_and(|text| Regex::new(with.as_str().unwrap()).unwrap().is_match(text))
        }
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| is_valid(item, with, root))),
        "required" => with.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some()),
        "properties" => {
            let known = with.as_object().unwrap();
            known.iter().all(|(name, of)| value.get(name).is_none_or(|value| is_valid(value, of, root)))
        }
        "additionalProperties" => {
            assert_eq!(with, &Value::Bool(false));
            value.as_object().unwrap().keys().all(|name| schema["properties"].get(name).is_some())
        }
        "oneOf" => with.as_array().unwrap().iter().filter(|one| is_valid(value, one, root)).count() == 1,
        other => panic!("keyword {other}"),
    })
}

/// Every event once, by living through all of them.
fn lived() -> Vec<AuditRecord> {
    let mut world = World::new();
    let desktop = world.desktop(9);
    let label = terms().with_label(text("Anna's phone"));
    let [open, shared, contested, expires] = [0; 4].map(|_| desktop.share(&world, &label));
    world.gate.revoke_ticket(&open.ticket, world.now).unwrap();
    let held = world.join(&shared.link, &phone(2)).unwrap().credential;
    desktop.renew(&world, &shared, OpSet::COMPANION.union(OpSet::only(Op::Resize)), 7_200).unwrap();
    if let Some(renewed) = world.attach_renewed(&phone(2), &held) {
        world.attach(&phone(2), &renewed, OpSet::EMPTY).unwrap();
    }
    let _ = world.join(&contested.link, &phone(3));
    let _ = world.join(&contested.link, &phone(4));
    let confirmed =
        desktop.share(&world, &terms().with_confirmation(sessioncap::desktop::Confirmation::Required));
    let _ = world.join(&confirmed.link, &phone(5));
    world.gate.confirm(&desktop.device, &confirmed.ticket, &phone(5).public(), world.now).unwrap();
    world.pass(700);
    drop(expires);
    world.pass(7_200);
    desktop.share(&world, &terms());
    world.gate.end_session(&session(SESSION), world.now).unwrap();
    world.gate.revoke_issuer(&desktop.issuer.public(), world.now).unwrap();
    world.pass(100_000);
    world.gate.reset_clock(world.now).unwrap();
    world.audit.lock().unwrap().clone()
}

#[test]
fn every_event_is_as_the_schema_says_and_reads_back() {
    let schema = schema();
    let records = lived();
    let mut seen = BTreeSet::new();
    for record in &records {
        let text = serde_json::to_string(record).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(is_valid(&value, &schema, &schema), "{text}");
        assert_eq!(&serde_json::from_str::<AuditRecord>(&text).unwrap(), record);
        seen.insert(value["event"].as_str().unwrap().to_owned());
        // The schema says everything: nothing can be missing, more, or of another kind.
        for name in value.as_object().unwrap().keys() {
            let mut other = value.clone();
            other.as_object_mut().unwrap().remove(name);
            assert!(!is_valid(&other, &schema, &schema), "without {name}");
            other[name] = Value::Null;
            assert!(!is_valid(&other, &schema, &schema), "{name} is null");
        }
        let mut more = value.clone();
        more["more"] = Value::Bool(true);
        assert!(!is_valid(&more, &schema, &schema));
    }
    let described = schema["oneOf"].as_array().unwrap();
    let described: BTreeSet<String> = described
        .iter()
        .map(|one| one["properties"]["event"]["const"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(seen, described, "each event happens in this test");
}

#[test]
fn a_record_that_was_delivered_twice_is_found_by_its_identity() {
    let records = lived();
    let identities: HashSet<_> = records.iter().map(AuditRecord::identity).collect();
    assert_eq!(identities.len(), records.len());
    let read: Vec<AuditRecord> = records
        .iter()
        .chain(&records)
        .map(|record| serde_json::from_str(&serde_json::to_string(record).unwrap()).unwrap())
        .collect();
    let again: HashSet<_> = read.iter().map(AuditRecord::identity).collect();
    assert_eq!(again, identities);
    let first = records.first().unwrap();
    assert_eq!(first.identity(), (first.agent, first.node, first.opening, first.sequence));
}
