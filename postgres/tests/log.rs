//! Rows of the log as files: the corpus of the fuzz target, and vectors, valid and refused.
//!
//! `vectors/valid` and `vectors/invalid` hold transactions as bytes, what they are read as, and what a gate makes of
//! them that observes them. Each file is checked from its own content alone, and all of them together are what
//! `cargo test -p sessioncap-postgres --test log -- --ignored write_the_files` writes.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../src/copy.rs"]
mod copy;
#[path = "../fuzz/log.rs"]
mod target;
#[path = "../src/wire.rs"]
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use common::*;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sessioncap::agent::ledger::{Changes, Ledger, LedgerError, Look, MemoryLedger, Table, Transition};
use sessioncap::agent::*;
use sessioncap::*;
use vector_files::Files;
use wire::Change;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn files(path: &str) -> Vec<(PathBuf, Vec<u8>)> {
    vector_files::read(&here(path))
}

fn vectors(path: &str) -> Vec<(PathBuf, Value)> {
    vector_files::read_vectors(&here(path))
}

#[test]
fn every_corpus_file_of_the_log_passes_its_target() {
    let files = files("fuzz/corpus/log");
    assert!(files.len() >= 8);
    for (path, data) in files {
        println!("{}", path.display());
        target::log(&data);
    }
}

/// Pieces of the corpus, cut, joined and changed. `SESSIONCAP_CASES` multiplies them.
#[test]
fn changed_pieces_of_the_corpus_pass_the_target() {
    let files = files("fuzz/corpus/log");
    let mut rng = rand::rngs::StdRng::seed_from_u64(1);
    let times: u32 = std::env::var("SESSIONCAP_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for _ in 0..times * 200 {
        let mut data = files[rng.gen_range(0..files.len())].1.clone();
        let other = &files[rng.gen_range(0..files.len())].1;
        if rng.gen_bool(0.5) && other.len() > 1 {
            data.extend_from_slice(&other[1..]);
            data[0] = 255;
        }
        for _ in 0..rng.gen_range(0..4) {
            let at = rng.gen_range(0..data.len());
            data[at] = rng.r#gen();
        }
        data.truncate(rng.gen_range(1..=data.len()));
        target::log(&data);
    }
}

// --- vectors ---

fn rows(rows: &[Change]) -> Value {
    let row = |(table, key, value): &Change| json!({ "table": table.name(), "key": hex(key), "value": value.as_ref().map(|value| hex(value)) });
    rows.iter().map(row).collect()
}

/// A gate that observes, with a stream of the credential, over the rows that there were before.
fn observer(vector: &Value) -> (World, Guard) {
    let ledger = MemoryLedger::new();
    for bytes in vector["before"].as_array().unwrap() {
        let changes: Changes = wire::decode(&unhex(bytes)).unwrap().into_iter().collect();
        ledger.transact(&mut |_| Ok(changes.clone())).unwrap();
    }
    let world = World::with(ledger, |config| {
        let read = LogRead::new(at(START, 1_000).monotonic, at(START, 1_000).timestamp());
        config.with_node(NodeId::new(2)).with_other_nodes(std::time::Duration::from_secs(2), read, ())
    });
    world.desktop(9);
    let credential = CredentialBytes::new(unhex(&vector["credential"])).unwrap();
    let guard = world.attach(&phone(2), &credential, OpSet::EMPTY).unwrap();
    (world, guard)
}

/// The stream's state afterwards, by the code of its refusal.
fn observed(vector: &Value) -> &'static str {
    let (world, mut guard) = observer(vector);
    let changes: Changes = wire::decode(&unhex(&vector["then"])).unwrap().into_iter().collect();
    let outcome = world.gate.observe(&changes, world.now);
    if world.gate.health(world.now).shut {
        assert!(outcome.is_err(), "shut, and says that all is well");
        return "shut";
    }
    outcome.unwrap();
    guard.ask(Op::SendInput, world.now, || ()).map_or_else(|denial| denial.code(), |()| "goes_on")
}

#[test]
fn valid_vectors_are_read_and_observed_as_they_say() {
    let mut kinds = BTreeMap::<String, usize>::new();
    for (path, vector) in vectors("tests/vectors/valid") {
        let kind = vector["kind"].as_str().unwrap();
        *kinds.entry(kind.to_owned()).or_default() += 1;
        match kind {
            "transaction" => {
                let bytes = unhex(&vector["changes"]);
                let read = wire::decode(&bytes).unwrap();
                assert_eq!(rows(&read), vector["rows"], "{}", path.display());
                assert_eq!(wire::encode(&read.into_iter().collect()).unwrap(), bytes, "{}", path.display());
                let previous = unhex(&vector["previous"]).try_into().unwrap();
                let hash = wire::hash(&previous, vector["position"].as_i64().unwrap(), &bytes);
                assert_eq!(hash.as_slice(), unhex(&vector["hash"]), "{}", path.display());
            }
            "observed" => assert_eq!(observed(&vector), vector["stream"], "{}", path.display()),
            other => panic!("{other}"),
        }
    }
    assert!(kinds["transaction"] >= 4 && kinds["observed"] >= 8, "{kinds:?}");
}

#[test]
fn refused_vectors_are_refused() {
    let mut kinds = BTreeMap::<String, usize>::new();
    for (path, vector) in vectors("tests/vectors/invalid") {
        let kind = vector["kind"].as_str().unwrap();
        *kinds.entry(kind.to_owned()).or_default() += 1;
        match kind {
            "transaction" => assert_eq!(wire::decode(&unhex(&vector["changes"])), None, "{}", path.display()),
            "observed" => assert_eq!(observed(&vector), "shut", "{}", path.display()),
            other => panic!("{other}"),
        }
    }
    assert!(kinds["transaction"] >= 8 && kinds["observed"] >= 6, "{kinds:?}");
}

// --- how they are written ---

#[derive(Clone, Default)]
struct Logged(Arc<MemoryLedger>, Arc<Mutex<Vec<Changes>>>);

impl Ledger for Logged {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        self.0.read(look)
    }

    fn transact(&self, transition: Transition<'_>) -> Result<(), LedgerError> {
        let mut done = Changes::default();
        self.0.transact(&mut |snapshot| {
            done = transition(snapshot)?;
            Ok(done.clone())
        })?;
        self.1.lock().unwrap().push(done);
        Ok(())
    }
}

struct Scene {
    world: World,
    desktop: Desktop,
    pairing: sessioncap::desktop::Pairing,
    credential: CredentialBytes,
    log: Logged,
}

/// The same every time within `seeded`.
fn scene() -> Scene {
    let log = Logged::default();
    let world = World::with(log.clone(), |config| config.with_node(NodeId::new(1)));
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &terms());
    let credential = world.join(&pairing.link, &phone(2)).unwrap().credential;
    Scene { world, desktop, pairing, credential, log }
}

impl Scene {
    fn log(&self) -> Vec<Vec<u8>> {
        let log = self.log.1.lock().unwrap();
        log.iter()
            .filter(|changes| !changes.is_empty())
            .map(|changes| wire::encode(changes).unwrap())
            .collect()
    }

    /// The transactions of an act as one, and the vector of it.
    fn then(self, stream: &str, act: impl FnOnce(&Self)) -> Value {
        let before = self.log();
        act(&self);
        let after = self.log();
        let rows = after[before.len()..].iter().flat_map(|bytes| wire::decode(bytes).unwrap());
        let then = wire::encode(&rows.collect()).unwrap();
        let before: Vec<String> = before.iter().map(|bytes| hex(bytes)).collect();
        json!({
            "kind": "observed", "before": before, "credential": hex(self.credential.as_bytes()), "then": hex(&then),
            "stream": stream,
        })
    }
}

/// One with another transaction.
fn altered(vector: &Value, why: &str, alter: impl FnOnce(&mut Vec<Change>)) -> Value {
    let mut rows = wire::decode(&unhex(&vector["then"])).unwrap();
    alter(&mut rows);
    let mut altered = vector.clone();
    altered["then"] = hex(&wire::encode(&rows.into_iter().collect()).unwrap()).into();
    altered["stream"] = Value::Null;
    altered["why"] = why.into();
    altered
}

fn transaction(position: i64, changes: Vec<Change>) -> Value {
    let previous = [u8::try_from(position).unwrap(); 32];
    let bytes = wire::encode(&changes.iter().cloned().collect()).unwrap();
    let changes = wire::decode(&bytes).unwrap();
    json!({
        "kind": "transaction", "previous": hex(&previous), "position": position, "changes": hex(&bytes),
        "rows": rows(&changes), "hash": hex(&wire::hash(&previous, position, &bytes)),
    })
}

/// An act at the node that writes.
type Act = fn(&Scene);

/// Each with what it is called, and what becomes of a stream at the node that observes it.
const OBSERVED: [(&str, &str, Act); 9] = [
    ("revoked", "credential_revoked", |scene| {
        scene.world.gate.revoke_credential(&scene.pairing.credential, scene.world.now).unwrap();
    }),
    ("ticket-revoked", "credential_revoked", |scene| {
        scene.world.gate.revoke_ticket(&scene.pairing.ticket, scene.world.now).unwrap();
    }),
    ("session-ended", "session_gone", |scene| {
        scene.world.gate.end_session(&session(SESSION), scene.world.now).unwrap();
    }),
    ("issuer-revoked", "credential_revoked", |scene| {
        scene.world.gate.revoke_issuer(&scene.desktop.issuer.public(), scene.world.now).unwrap();
    }),
    ("device-revoked", "credential_revoked", |scene| {
        scene.world.gate.revoke_device(&scene.desktop.device, scene.world.now).unwrap();
    }),
    ("narrowed", "operation_not_granted", |scene| {
        scene.desktop.renew(&scene.world, &scene.pairing, OpSet::only(Op::StreamOutput), 600).unwrap();
    }),
    ("renewed", "goes_on", |scene| {
        scene.desktop.renew(&scene.world, &scene.pairing, OpSet::COMPANION, 600).unwrap();
    }),
    ("another-revoked", "goes_on", |scene| {
        let other = scene.desktop.share(&scene.world, &terms());
        scene.world.join(&other.link, &phone(3)).unwrap();
        scene.world.gate.revoke_credential(&other.credential, scene.world.now).unwrap();
    }),
    ("another-session-ended", "goes_on", |scene| {
        scene.world.gate.end_session(&session("other"), scene.world.now).unwrap();
    }),
];

/// What is wrong with the rows.
type Damage = fn(&mut Vec<Change>);

fn credential_row(rows: &mut [Change]) -> &mut Change {
    rows.iter_mut().find(|(table, ..)| *table == Table::Credentials).unwrap()
}

fn credential(rows: &mut [Change]) -> &mut Vec<u8> {
    credential_row(rows).2.as_mut().unwrap()
}

/// Each is the transaction `revoked` with damaged rows, after which a gate shuts.
const DAMAGED: [(&str, &str, Damage); 8] = [
    ("credential-cut-short", "a record is whole", |rows| {
        credential(rows).pop();
    }),
    ("credential-byte-more", "a record ends", |rows| credential(rows).push(0)),
    ("credential-empty", "a record is not empty", |rows| credential(rows).clear()),
    ("credential-id-of-15-bytes", "an id has 16 bytes", |rows| {
        credential_row(rows).1.pop();
    }),
    ("session-id-not-utf-8", "a session's id is text", |rows| rows.push((Table::Sessions, vec![0xff], None))),
    ("issuer-of-31-bytes", "a key has 32 bytes", |rows| rows.push((Table::Issuers, vec![1; 31], None))),
    ("issuer-garbled", "a record can be read", |rows| {
        rows.push((Table::Issuers, vec![1; 32], Some(vec![0xff; 8])));
    }),
    ("event-garbled", "an event can be read", |rows| {
        rows.push((Table::Events, vec![0; 8], Some(vec![0xff; 8])));
    }),
];

/// A transaction of one row, in every byte of which something can be wrong.
const ONE: &[u8] = &[1, 3, 1, 0, 0, 0, 1, b'k', 0, 0, 0, 1, b'v'];

/// Bytes that are no transaction.
fn unreadable() -> [(&'static str, &'static str, Vec<u8>); 11] {
    let cut = |length| ONE[..length].to_vec();
    [
        ("without-version", "there is no version", vec![]),
        ("version-2", "the version is another", vec![2]),
        ("unknown-table", "there are twelve tables, from 0 on", vec![1, 12, 0, 0, 0, 0, 0]),
        ("flag-2", "a row has a value or has none", vec![1, 0, 2, 0, 0, 0, 0]),
        ("without-flag", "a row ends after its table", vec![1, 0]),
        ("key-cut-short", "a key ends too early", vec![1, 0, 0, 0, 0, 0, 2, b'k']),
        ("key-of-four-gigabytes", "a key ends too early", vec![1, 0, 0, 255, 255, 255, 255, b'k']),
        ("length-cut-short", "a length has four bytes", vec![1, 0, 0, 0, 0, 0]),
        ("value-missing", "a value was announced", cut(8)),
        ("value-cut-short", "a value ends too early", cut(12)),
        ("byte-more", "a row has a flag", [ONE, &[0]].concat()),
    ]
}

/// Transactions that are read as what they are made of.
fn readable() -> [(&'static str, Vec<Change>); 5] {
    let row = |table, key: &[u8], value: Option<&[u8]>| (table, key.to_vec(), value.map(<[u8]>::to_vec));
    let all = Table::ALL.iter().map(|table| row(*table, table.name().as_bytes(), Some(b"1"))).collect();
    [
        ("nothing", vec![]),
        ("one-row", vec![row(Table::Tickets, b"key", Some(b"value"))]),
        ("removal", vec![row(Table::Credentials, b"key", None)]),
        ("empty-key-and-value", vec![row(Table::Meta, b"", Some(b""))]),
        ("every-table", all),
    ]
}

/// Every vector, and the corpus: the observed transactions, each after those before it, and what is refused.
fn generate() -> Files {
    let mut files = Files::new();
    let mut vector = |path: String, vector: &Value| {
        files.insert(format!("tests/vectors/{path}.json"), vector_files::spelled(vector));
    };
    let framed = |parts: &[Vec<u8>]| {
        let mut data = vec![255];
        for part in parts {
            data.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
            data.extend(part);
        }
        data
    };
    let mut corpus = Files::new();
    for (position, (name, changes)) in (1..).zip(readable()) {
        vector(format!("valid/transaction-{name}"), &transaction(position, changes));
    }
    for (name, why, bytes) in unreadable() {
        let refused = json!({ "kind": "transaction", "changes": hex(&bytes), "why": why });
        vector(format!("invalid/transaction-{name}"), &refused);
        corpus.insert(format!("transaction-{name}"), framed(&[bytes]));
    }
    let mut revoked = None;
    for (seed, (name, stream, act)) in (1..).zip(OBSERVED) {
        let observed = draws::seeded(seed, || scene().then(stream, act));
        vector(format!("valid/observed-{name}"), &observed);
        let mut parts: Vec<Vec<u8>> = observed["before"].as_array().unwrap().iter().map(unhex).collect();
        parts.push(unhex(&observed["then"]));
        corpus.insert(name.to_owned(), framed(&parts));
        revoked.get_or_insert(observed);
    }
    for (name, why, damage) in DAMAGED {
        let damaged = altered(revoked.as_ref().unwrap(), why, damage);
        vector(format!("invalid/observed-{name}"), &damaged);
        corpus.insert(format!("observed-{name}"), framed(&[unhex(&damaged["then"])]));
    }
    files.extend(corpus.into_iter().map(|(name, data)| (format!("fuzz/corpus/log/{name}"), data)));
    files
}

#[test]
fn the_files_of_the_log_are_what_this_build_writes() {
    let folders = ["tests/vectors/valid", "tests/vectors/invalid", "fuzz/corpus/log"];
    vector_files::assert_same(&generate(), &here(""), &folders);
}

#[test]
#[ignore = "writes the vectors and the corpus"]
fn write_the_files() {
    vector_files::write(&generate(), &here(""));
}
