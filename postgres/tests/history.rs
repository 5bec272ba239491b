//! Three nodes that follow one log by threads of their own, random operations at all of them, a network that fails,
//! and a checker that sees nothing but the history: when each permit was used, and when each revocation returned.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#[path = "../../tests/common/mod.rs"]
mod common;
mod scene;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use scene::Server;
use scene::proxy::Proxy;
use sessioncap::agent::{Denial, Gate, Guard, PermitError};
use sessioncap::*;
use sessioncap_postgres::{Feed, Following, PostgresLedger};

/// Something that happened, with its place in the order of all that happened. A permit has two: before its closure
/// begins, inside it.
#[derive(Debug, Clone, Copy)]
enum Happened {
    /// A revocation of this credential has returned with success.
    Revoked(CredentialId),
    /// A permit of this credential was in use.
    Used(CredentialId),
}

#[derive(Default)]
struct History {
    /// Nothing depends on the real time.
    tick: AtomicU64,
    all: Mutex<Vec<(u64, Happened)>>,
}

impl History {
    fn note(&self, happened: Happened) {
        let tick = self.tick.fetch_add(1, Ordering::SeqCst);
        self.all.lock().unwrap().push((tick, happened));
    }
}

/// Returns the permits that were used after a revocation of their credential had returned.
fn violations(history: &[(u64, Happened)]) -> Vec<(u64, CredentialId)> {
    let mut history = history.to_vec();
    history.sort_by_key(|(tick, _)| *tick);
    let mut over: HashMap<CredentialId, u64> = HashMap::new();
    let mut found = Vec::new();
    for (tick, happened) in history {
        match happened {
            Happened::Revoked(id) => drop(over.entry(id).or_insert(tick)),
            Happened::Used(id) if over.contains_key(&id) => found.push((tick, id)),
            Happened::Used(_) => {}
        }
    }
    found
}

#[test]
fn the_checker_finds_a_permit_after_a_revocation_and_nothing_else() {
    let [a, b] = [1, 2].map(|seed| CredentialId::from_bytes([seed; 16]));
    let good =
        [(0, Happened::Used(a)), (3, Happened::Revoked(a)), (2, Happened::Used(a)), (4, Happened::Used(b))];
    assert_eq!(violations(&good), []);
    let bad =
        [(3, Happened::Revoked(a)), (1, Happened::Used(a)), (5, Happened::Used(a)), (4, Happened::Used(b))];
    assert_eq!(violations(&bad), [(5, a)]);
}

struct Node {
    world: World,
    ledger: PostgresLedger,
    proxy: Proxy,
    _following: Following,
}

/// The clock of every node: the real one.
fn clock() -> Now {
    SystemClock::new().unwrap().now()
}

fn node(server: &Server, number: u32, limit: Duration) -> Node {
    let proxy = Proxy::new(&server.directory.0);
    let options = server.options_at(proxy.directory()).without_standby();
    let options = options.with_limit(limit).unwrap().with_reads(limit / 10, limit * 3 / 4).unwrap();
    let options = options.with_timeout(Duration::from_secs(20));
    let agent = AgentSecretKey::from_bytes([1; 32]).public();
    let ledger = PostgresLedger::open(options, &agent, NodeId::new(number), clock()).unwrap();
    let world = World::try_with(ledger.clone(), clock(), |config| ledger.configure(config)).unwrap();
    let feed: Feed = ledger.feed();
    let following = feed.follow(world.gate.clone(), clock).unwrap();
    Node { world, ledger, proxy, _following: following }
}

/// Settles a gate as its agent does, and opens its ledger again when that has failed.
fn settle(gate: &Gate, ledger: &PostgresLedger) {
    if gate.settle(clock()).is_err() && gate.is_poisoned() {
        let _ = gate.reopen(ledger.clone(), clock());
    }
}

#[test]
fn no_permit_is_used_after_a_revocation_at_any_node_has_returned_whatever_the_network_does() {
    let Some(server) = Server::primary() else { return };
    server.migrate();
    let limit = Duration::from_secs(2);
    let mut nodes = [1, 2, 3].map(|number| node(&server, number, limit));
    for node in &mut nodes {
        node.world.now = clock();
        node.world.desktop(9);
    }
    let history = Arc::new(History::default());
    let ended = AtomicBool::new(false);
    let mut rng = StdRng::seed_from_u64(15);
    let streams: Vec<Arc<Mutex<Vec<Guard>>>> = (0..3).map(|_| Arc::default()).collect();
    let counts = thread::scope(|scope| {
        for (node, streams) in nodes.iter().zip(&streams) {
            let (history, ended) = (&history, &ended);
            // The streams of one node, each of which asks for permits without a pause.
            scope.spawn(move || {
                while !ended.load(Ordering::SeqCst) {
                    for guard in streams.lock().unwrap().iter_mut() {
                        let id = guard.credential();
                        let outcome =
                            guard.permit(Op::SendInput, clock(), || history.note(Happened::Used(id)));
                        assert!(
                            !matches!(outcome, Err(PermitError::Refused(ref why)) if *why != Denial::Stale),
                            "{outcome:?}"
                        );
                    }
                    thread::yield_now();
                }
            });
            let (gate, ledger) = (node.world.gate.clone(), node.ledger.clone());
            scope.spawn(move || {
                while !ended.load(Ordering::SeqCst) {
                    settle(&gate, &ledger);
                    thread::sleep(Duration::from_millis(200));
                }
            });
        }
        let (mut joined, mut revoked, mut unknown) = (0, 0, 0);
        for round in 0..14_u8 {
            // A desktop and a phone at nodes of their own.
            let [at, by] = [0, 1].map(|_| rng.gen_range(0..3_usize));
            nodes[at].world.now = clock();
            let pairing = {
                let world = &nodes[at].world;
                let desktop = Desktop::new(world, 9);
                let pairing = desktop.mint(world, &terms());
                desktop.lodge(world, &pairing).is_ok().then_some(pairing)
            };
            let Some(pairing) = pairing else { continue };
            nodes[by].world.now = clock();
            let first = nodes[by].world.join(&pairing.link, &phone(100 + round));
            let Ok(first) = first else { continue };
            joined += 1;
            streams[by].lock().unwrap().push(first.guard);
            // A second stream of the same phone elsewhere.
            let other = (by + 1) % 3;
            nodes[other].world.now = clock();
            if let Ok(guard) = nodes[other].world.attach(&phone(100 + round), &first.credential, OpSet::EMPTY)
            {
                streams[other].lock().unwrap().push(guard);
            }
            let fault = rng.gen_range(0..4);
            let victim = rng.gen_range(0..3_usize);
            match fault {
                0 => nodes[victim].proxy.freeze(true),
                1 => nodes[victim].proxy.set_down(true),
                2 => nodes[victim].proxy.set_delay(Duration::from_millis(20)),
                _ => {}
            }
            let revoker =
                (0..3).map(|more| (victim + 1 + more) % 3).find(|at| *at != victim || fault > 2).unwrap();
            let revoker = if fault == 1 && rng.gen_bool(0.3) { victim } else { revoker };
            let outcome = nodes[revoker].world.gate.revoke_credential(&pairing.credential, clock());
            match outcome {
                Ok(_) => {
                    history.note(Happened::Revoked(pairing.credential));
                    revoked += 1;
                }
                Err(_) => unknown += 1,
            }
            nodes[victim].proxy.freeze(false);
            nodes[victim].proxy.set_down(false);
            nodes[victim].proxy.set_delay(Duration::ZERO);
        }
        ended.store(true, Ordering::SeqCst);
        (joined, revoked, unknown)
    });
    let all = history.all.lock().unwrap();
    let used = all.iter().filter(|(_, happened)| matches!(happened, Happened::Used(_))).count();
    println!("{counts:?}: phones joined, revoked, not known; {used} permits");
    assert!(counts.0 >= 3 && counts.1 >= 3 && used > 20, "{counts:?}, {used}");
    assert_eq!(violations(&all), []);
}
