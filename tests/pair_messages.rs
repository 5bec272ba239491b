//! The pairing methods in a build of the desktop alone: it writes every request and reads every answer.
#![cfg(feature = "issuer")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::Path;

use serde_json::Value;
use sessioncap::pair::{Answer, ListingState, Request, StateKind};

/// The vectors of one kind, by name.
fn vectors(begin: &str) -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/valid");
    let mut found = Vec::new();
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if name.starts_with(begin) {
            let value: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
            found.push((name, value["json"].clone()));
        }
    }
    found
}

#[test]
fn a_desktop_reads_every_answer_and_writes_every_request() {
    let (requests, answers) = (vectors("pair-request-"), vectors("pair-answer-"));
    assert_eq!((requests.len(), answers.len()), (12, 9));
    for (name, json) in requests {
        let request: Request = serde_json::from_value(json.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(serde_json::to_value(request).unwrap(), json, "{name}");
    }
    for (name, json) in answers {
        let answer: Answer = serde_json::from_value(json.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(serde_json::to_value(answer).unwrap(), json, "{name}");
    }
}

#[test]
fn a_desktop_reads_back_every_state_of_a_listing() {
    let (_, json) = vectors("pair-answer-list-of-every-state").remove(0);
    let Answer::Listed(page) = serde_json::from_value(json).unwrap() else { panic!() };
    let kinds: Vec<_> = page.entries.iter().map(|entry| entry.state.kind()).collect();
    for kind in
        [StateKind::Open, StateKind::Pending, StateKind::Active, StateKind::Revoked, StateKind::Expired]
    {
        assert!(kinds.contains(&kind), "{kind:?}");
    }
    let code = page.entries.iter().find_map(|entry| match entry.state {
        ListingState::Pending { code } => Some(code.to_string()),
        _ => None,
    });
    assert_eq!(code.as_deref(), Some("012 345"));
    assert!(page.next.is_some());
}
