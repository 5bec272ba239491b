//! How a fleet grows: real gates and the real local copies, over a log in memory, with as many nodes and credentials as
//! one asks for.
//!
//! `SESSIONCAP_GROWTH=NODES,CREDENTIALS` sets the size, and `--nocapture` prints the figures of `docs/FLEET.md`. The
//! database and its network are not part of it; `figures.rs` has those.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests, with sources of the crate"
)]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../src/copy.rs"]
mod copy;
#[path = "../src/wire.rs"]
mod wire;

use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use common::*;
use copy::{Copy, Place, Rows};
use sessioncap::agent::ledger::{Changes, Ledger, LedgerError, Look, MemoryLedger, Table, Transition};
use sessioncap::agent::*;
use sessioncap::*;

const LIMIT: Duration = Duration::from_secs(2);

/// A row of the log, as the database has it.
#[derive(Clone)]
struct Entry {
    place: Place,
    previous: wire::Hash,
    changes: Vec<u8>,
}

/// The end of the log, and what of it is kept.
struct Log {
    end: Place,
    kept: Option<Vec<Entry>>,
}

impl Log {
    fn append(&mut self, changes: Vec<u8>) -> Entry {
        let position = self.end.position + 1;
        let hash = wire::hash(&self.end.hash, position, &changes);
        let entry = Entry { place: Place { position, hash }, previous: self.end.hash, changes };
        self.end = entry.place;
        if let Some(kept) = &mut self.kept {
            kept.push(entry.clone());
        }
        entry
    }
}

/// The ledger of all nodes, which keeps a log.
#[derive(Clone)]
struct Shared {
    ledger: Arc<MemoryLedger>,
    log: Arc<Mutex<Log>>,
}

impl Ledger for Shared {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        self.ledger.read(look)
    }

    fn transact(&self, transition: Transition<'_>) -> Result<(), LedgerError> {
        let mut log = self.log.lock().unwrap();
        let mut done = Changes::default();
        self.ledger.transact(&mut |snapshot| {
            done = transition(snapshot)?;
            Ok(done.clone())
        })?;
        if !done.is_empty() {
            log.append(wire::encode(&done).unwrap());
        }
        Ok(())
    }
}

struct LocalCopy(Arc<RwLock<Copy>>);

impl Ledger for LocalCopy {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        look(&*self.0.read().unwrap()).map_err(LedgerError::not_done)
    }

    fn transact(&self, _: Transition<'_>) -> Result<(), LedgerError> {
        Err(LedgerError::not_done(LedgerFailure::ReadOnly))
    }
}

struct Node {
    world: World,
    copy: Arc<RwLock<Copy>>,
}

impl Node {
    fn open(shared: &Shared, number: u32) -> Self {
        let read = LogRead::new(at(START, 1_000).monotonic, at(START, 1_000).timestamp());
        let mut copy = Copy::new(Rows::default(), Place { position: 0, hash: [0; 32] });
        copy.follow();
        let copy = Arc::new(RwLock::new(copy));
        let most =
            Quotas::default().with_tickets_per_session(u32::MAX).with_credentials_per_session(u32::MAX);
        let most = most.with_tickets_per_agent(u32::MAX).with_credentials_per_agent(u32::MAX);
        let most = most.with_tickets_per_device(u32::MAX).with_credentials_per_device(u32::MAX);
        let world = World::with(shared.clone(), |config| {
            config
                .with_quotas(most)
                .with_node(NodeId::new(number))
                .with_other_nodes(LIMIT, read, ())
                .with_copy(LocalCopy(Arc::clone(&copy)))
        });
        world.desktop(9);
        Self { world, copy }
    }

    /// Takes in a row of the log that another node has written.
    fn apply(&self, entry: &Entry) {
        let mut copy = self.copy.write().unwrap();
        assert_eq!(entry.previous, copy.place().hash);
        assert_eq!(entry.place.hash, wire::hash(&entry.previous, entry.place.position, &entry.changes));
        copy.apply(entry.place, wire::decode(&entry.changes).unwrap(), false);
        let unobserved = copy.take_unobserved();
        drop(copy);
        for changes in &unobserved {
            self.world.gate.observe(changes, self.world.now).unwrap();
        }
    }

    fn caught_up(&self) {
        let now = self.world.now;
        self.world.gate.caught_up(LogRead::new(now.monotonic, now.timestamp()));
    }
}

/// The transactions by which one credential came to be, from which those of others are made: the same rows, with other
/// ids.
struct Pattern {
    transactions: Vec<Vec<u8>>,
    /// Where the ids are.
    places: Vec<Vec<(usize, bool)>>,
}

impl Pattern {
    fn of(entries: &[Entry], ticket: &[u8; 16], credential: &[u8; 16]) -> Self {
        // Counters and events belong to the ledger, and not to the credential.
        let own = |(table, ..): &wire::Change| !matches!(table, Table::Meta | Table::Events);
        let rows = entries.iter().map(|entry| wire::decode(&entry.changes).unwrap().into_iter().filter(own));
        let transactions: Vec<Vec<u8>> = rows
            .map(|rows| wire::encode(&rows.collect::<Changes>()).unwrap())
            .filter(|of| of.len() > 1)
            .collect();
        let places = transactions.iter().map(|bytes| {
            let ids = bytes.windows(16).enumerate();
            ids.filter_map(|(at, id)| match id {
                id if id == ticket => Some((at, true)),
                id if id == credential => Some((at, false)),
                _ => None,
            })
            .collect()
        });
        Self { places: places.collect(), transactions }
    }

    /// Those of another credential.
    fn numbered(&self, number: u64) -> impl Iterator<Item = Vec<u8>> {
        let id = |salt: u8| {
            let mut id = [salt; 16];
            id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            id
        };
        let (ticket, credential) = (id(0xa1), id(0xb2));
        self.transactions.iter().zip(&self.places).map(move |(bytes, places)| {
            let mut bytes = bytes.clone();
            for (at, is_ticket) in places {
                bytes[*at..*at + 16].copy_from_slice(if *is_ticket { &ticket } else { &credential });
            }
            bytes
        })
    }
}

/// The memory of this process, in bytes.
fn resident() -> i64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<i64>().ok()).unwrap_or(0) * 4_096
}

/// Calls `found` with each row in its order, until it returns false. Returns whether it never did.
fn each(ledger: &impl Ledger, mut found: impl FnMut(Table, &[u8], &[u8]) -> bool) -> bool {
    let mut goes_on = true;
    ledger
        .read(&mut |snapshot| {
            for table in Table::ALL {
                let mut after: Option<Vec<u8>> = None;
                while goes_on {
                    let page = snapshot.range(*table, b"", after.as_deref(), 1_000)?;
                    let Some((last, _)) = page.last() else { break };
                    after = Some(last.clone());
                    goes_on = page.iter().all(|(key, value)| found(*table, key, value));
                }
            }
            Ok(())
        })
        .unwrap();
    goes_on
}

fn all(ledger: &impl Ledger) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    each(ledger, |table, key, value| {
        rows.push((table, key.to_vec(), value.to_vec()));
        true
    });
    rows
}

#[test]
fn every_node_has_every_record_and_ends_what_another_revokes_however_many_there_are() {
    let size = std::env::var("SESSIONCAP_GROWTH").unwrap_or_else(|_| "3,300".to_owned());
    let (readers, credentials) = size.split_once(',').unwrap();
    let (readers, credentials): (u32, u64) = (readers.parse().unwrap(), credentials.parse().unwrap());
    let log = Log { end: Place { position: 0, hash: [0; 32] }, kept: Some(Vec::new()) };
    let shared = Shared { ledger: Arc::default(), log: Arc::new(Mutex::new(log)) };
    let writer = Node::open(&shared, 1);
    let nodes: Vec<Node> = (2..readers + 2).map(|number| Node::open(&shared, number)).collect();
    let desktop = Desktop::new(&writer.world, 9);
    let first = shared.log.lock().unwrap().kept.as_ref().unwrap().len();
    let pairing = desktop.share(&writer.world, &terms());
    let joined = writer.world.join(&pairing.link, &phone(2)).unwrap();
    let begun = shared.log.lock().unwrap().kept.take().unwrap();
    let pattern = Pattern::of(&begun[first..], pairing.ticket.as_bytes(), pairing.credential.as_bytes());
    for node in &nodes {
        begun.iter().for_each(|entry| node.apply(entry));
        node.caught_up();
    }
    // A stream of the phone at each node.
    let mut streams: Vec<_> = nodes
        .iter()
        .map(|node| node.world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap())
        .collect();
    let attached = all(&shared);

    // The credentials come to be, at the writer.
    let before = shared.log.lock().unwrap().end;
    for number in 0..credentials {
        for changes in pattern.numbered(number) {
            let rows = wire::decode(&changes).unwrap();
            shared.ledger.transact(&mut |_| Ok(rows.clone().into_iter().collect())).unwrap();
        }
    }
    let truth = all(&shared);
    assert!(truth.len() as u64 >= 3 * credentials);
    // Nothing large was freed before, whose memory would be used again.
    let empty = resident();
    let (mut took, mut transactions, mut bytes) = (Duration::ZERO, 0_u64, 0);
    for (number, node) in nodes.iter().enumerate() {
        // Each has read the log up to here.
        let mut begin = Rows::default();
        attached.iter().for_each(|(table, key, value)| begin.set(*table, key, Some(value)));
        node.copy.write().unwrap().replace(begin, before);
        node.copy.write().unwrap().take_unobserved();
        let mut log = Log { end: before, kept: None };
        for number in 0..credentials {
            for changes in pattern.numbered(number) {
                let entry = log.append(changes);
                let begun = Instant::now();
                node.apply(&entry);
                took += begun.elapsed();
                transactions += 1;
            }
        }
        node.caught_up();
        shared.log.lock().unwrap().end = log.end;
        if number == 0 {
            bytes = (resident() - empty) / i64::try_from(credentials).unwrap();
        }
        // Each node has what the ledger has.
        let copy = LocalCopy(Arc::clone(&node.copy));
        let mut rows = truth.iter();
        let same = each(&copy, |table, key, value| {
            rows.next().is_some_and(|row| row.0 == table && row.1 == key && row.2 == value)
        });
        assert!(same && rows.next().is_none(), "a node has other rows");
        // One process has not the memory of all. The first keeps its records, and the others go on as with few.
        if number > 0 {
            let mut begin = Rows::default();
            attached.iter().for_each(|(table, key, value)| begin.set(*table, key, Some(value)));
            let mut few = Copy::new(begin, log.end);
            few.follow();
            *node.copy.write().unwrap() = few;
        }
    }

    // At this size: an attach at a node, and a revocation, until each node has observed it.
    shared.log.lock().unwrap().kept = Some(Vec::new());
    let mut attach: Vec<Duration> = (0..21)
        .map(|_| {
            let begun = Instant::now();
            drop(nodes[0].world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap());
            begun.elapsed()
        })
        .collect();
    attach.sort();
    let attach = attach[attach.len() / 2];
    let catch_up = || {
        let entries = shared.log.lock().unwrap().kept.replace(Vec::new()).unwrap();
        nodes.iter().for_each(|node| entries.iter().for_each(|entry| node.apply(entry)));
    };
    catch_up();
    for (node, stream) in nodes.iter().zip(&mut streams) {
        assert_eq!(stream.ask(Op::SendInput, node.world.now, || ()), Ok(()));
    }
    let begun = Instant::now();
    writer.world.gate.revoke_credential(&pairing.credential, writer.world.now).unwrap();
    let revoke = begun.elapsed();
    catch_up();
    let observed = (begun.elapsed() - revoke) / readers;
    for (node, stream) in nodes.iter().zip(&mut streams) {
        assert_eq!(stream.ask(Op::SendInput, node.world.now, || ()), Err(Denial::CredentialRevoked));
    }
    println!(
        "{readers} nodes, {credentials} credentials: {bytes} bytes a credential at a node; {:.0} transactions a second \
         applied by a node, {:.1?} a credential; attach {attach:.0?}, revoke {revoke:.0?}, observed by a node in \
         {observed:.0?}",
        transactions as f64 / took.as_secs_f64(),
        took / u32::try_from(credentials).unwrap() / readers,
    );
}
