//! The body of the fuzz target `log`: rows of the log that anybody may have written. It panics when a law is broken.
//!
//! The first byte says how many rows there are at most; each has its length in two bytes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a target fails by panicking")]

use std::collections::BTreeMap;

use sessioncap::agent::ledger::{Changes, MemoryLedger, Snapshot, Table};
use sessioncap::agent::{AgentContext, Gate, GateConfig, LogRead, Presence};
use sessioncap::{AgentSecretKey, AgentUrl, DevicePublicKey, Now, SessionId};

use crate::copy::{Copy, Place, Rows};
use crate::wire;

struct Everything;

impl AgentContext for Everything {
    fn device(&self, _: &DevicePublicKey) -> Presence {
        Presence::Present
    }

    fn session(&self, _: &SessionId) -> Presence {
        Presence::Present
    }

    fn may_share(&self, _: &DevicePublicKey, _: &SessionId) -> bool {
        true
    }
}

fn parts(data: &[u8]) -> Vec<&[u8]> {
    let Some((most, mut rest)) = data.split_first() else { return Vec::new() };
    let mut parts = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (part, after) = after.split_at(length);
        parts.push(part);
        rest = after;
        if parts.len() >= usize::from(*most) {
            break;
        }
    }
    parts
}

/// Rows of the log, read, applied and observed.
pub fn log(data: &[u8]) {
    let mut copy = Copy::new(Rows::default(), Place { position: 0, hash: [0; 32] });
    copy.follow();
    let mut model = BTreeMap::<(Table, Vec<u8>), Vec<u8>>::new();
    let mut read = Vec::new();
    for bytes in parts(data) {
        let Some(rows) = wire::decode(bytes) else { continue };
        let changes: Changes = rows.iter().cloned().collect();
        // Rows that were read can be written, and read as the same.
        let written = wire::encode(&changes).unwrap();
        let again: Changes = wire::decode(&written).unwrap().into_iter().collect();
        assert_eq!(again, changes);
        let mut place = copy.place();
        place.position += 1;
        place.hash = wire::hash(&place.hash, place.position, bytes);
        assert_ne!(place.hash, wire::hash(&copy.place().hash, place.position, &[bytes, &[0]].concat()));
        for (table, key, value) in &rows {
            match value {
                Some(value) => drop(model.insert((*table, key.clone()), value.clone())),
                None => drop(model.remove(&(*table, key.clone()))),
            }
        }
        copy.apply(place, rows.clone(), false);
        // A second time it changes nothing.
        copy.apply(place, rows, false);
        assert_eq!(copy.place(), place);
        read.push(changes);
    }
    for table in Table::ALL {
        let rows = copy.range(*table, b"", None, usize::MAX).unwrap();
        let expected = model.iter().filter(|((of, _), _)| of == table);
        let expected: Vec<_> = expected.map(|((_, key), value)| (key.clone(), value.clone())).collect();
        assert_eq!(rows, expected);
    }
    let unobserved: Vec<Changes> = copy.take_unobserved().into();
    assert_eq!(unobserved, read);

    // Variants of these rows are observed as well.
    let place = copy.place();
    copy.replace(Rows::default(), Place { position: 0, hash: [1; 32] });
    let removed: usize = copy.take_unobserved().iter().map(|changes| changes.iter().count()).sum();
    assert_eq!(removed, model.len());
    assert_ne!(copy.place(), place);

    if read.is_empty() {
        return;
    }
    let key = AgentSecretKey::from_bytes([1; 32]).public();
    let now =
        Now::new(sessioncap::Timestamp::from_seconds(1_780_000_000).unwrap().to_date(), Default::default());
    let first = LogRead::new(now.monotonic, now.timestamp());
    let config = GateConfig::new(key, [AgentUrl::parse("wss://agent.example").unwrap()]).unwrap();
    let config = config.with_other_nodes(std::time::Duration::from_secs(2), first, ());
    let gate = Gate::open(config, MemoryLedger::new(), Everything, now).unwrap();
    for changes in &read {
        // A row that cannot be read shuts the gate, and no other does. Another opening of this node ends it too.
        let observed = gate.observe(changes, now);
        assert!(observed.is_ok() || gate.health(now).shut, "{observed:?}");
    }
}
