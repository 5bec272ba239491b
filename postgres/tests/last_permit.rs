//! The last permit at one node, when another revokes: trials with and without faults, judged by what they recorded.
//!
//! `SESSIONCAP_CASES` is the number of trials of each kind, 4 by default. With `--nocapture` it prints the figures of
//! `docs/FLEET.md`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#[path = "../../tests/common/mod.rs"]
mod common;
mod scene;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use scene::proxy::Proxy;
use scene::{Server, until};
use sessioncap::agent::{Guard, PermitError};
use sessioncap::*;
use sessioncap_postgres::{Following, PostgresLedger};

/// X.
const LIMIT: Duration = Duration::from_secs(1);

fn clock() -> Now {
    SystemClock::new().unwrap().now()
}

struct Node {
    world: World,
    ledger: PostgresLedger,
    proxy: Proxy,
    _following: Following,
}

impl Node {
    fn open(server: &Server, number: u32) -> Self {
        let proxy = Proxy::new(&server.directory.0);
        let options = server.options_at(proxy.directory()).without_standby();
        // A loaded machine may be slow to read, and slower to write.
        let options = options.with_limit(LIMIT).unwrap().with_reads(LIMIT / 10, LIMIT / 2).unwrap();
        let options = options.with_timeout(scene::PATIENCE);
        let agent = AgentSecretKey::from_bytes([1; 32]).public();
        let ledger = PostgresLedger::open(options, &agent, NodeId::new(number), clock()).unwrap();
        let world = World::try_with(ledger.clone(), clock(), |config| ledger.configure(config)).unwrap();
        let following = ledger.feed().follow(world.gate.clone(), clock).unwrap();
        Self { world, ledger, proxy, _following: following }
    }

    /// Settles, as an agent does, until that has let streams go on.
    fn settle(&mut self) {
        until("the node settles", || {
            let settled = self.world.gate.settle(clock()).is_ok();
            if self.world.gate.is_poisoned() {
                let _ = self.world.gate.reopen(self.ledger.clone(), clock());
            }
            settled && !self.world.gate.health(clock()).streams_paused
        });
        self.world.now = clock();
    }
}

/// The fault in the network of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// No notification passes.
    Mute,
    /// The node with the stream does not reach the database any more.
    Freeze,
}

/// One trial, as it was recorded. Every number is in an order in which all that happens has its place, and every time
/// was read from the clock before what it belongs to.
struct Trial {
    /// The place of the first thing after the call had returned.
    returned: u64,
    began: Instant,
    returned_at: Instant,
    /// Each permit, inside it: its place, the time with which it was asked for, and a finer one for the figures.
    used: Vec<(u64, Now, Instant)>,
    frozen_at: Option<Now>,
}

impl Trial {
    /// Checks the contract of `docs/FLEET.md`.
    fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (place, now, _) in &self.used {
            if *place > self.returned {
                found.push(format!("a permit at {place}, after the call returned at {}", self.returned));
            }
            // A read that began before it froze is the last that can have succeeded.
            if let Some(frozen_at) = self.frozen_at
                && now.monotonic > frozen_at.monotonic + LIMIT
            {
                found.push(format!("a permit at {now:?}, frozen at {frozen_at:?}"));
            }
        }
        found
    }

    /// How long after the last permit the call returned.
    fn margin(&self) -> Duration {
        let last = self.used.last().map_or(self.began, |(.., at)| *at);
        self.returned_at.saturating_duration_since(last)
    }

    fn took(&self) -> Duration {
        self.returned_at - self.began
    }
}

fn trial(nodes: &mut [Node; 2], fault: Fault) -> Trial {
    nodes.iter_mut().for_each(Node::settle);
    let [here, other] = nodes;
    let desktop = Desktop::new(&other.world, 9);
    let pairing = desktop.share(&other.world, &terms());
    here.world.now = clock();
    let mut guard: Guard = here.world.join(&pairing.link, &phone(2)).unwrap().guard;
    let places = AtomicU64::new(1);
    let place = || places.fetch_add(1, Ordering::SeqCst);
    let used = Mutex::new(Vec::new());
    other.proxy.mute(fault == Fault::Mute);
    let trial = thread::scope(|scope| {
        let streaming = scope.spawn(|| {
            // Asks until it is over, so that a permit that comes too late is recorded.
            until("the stream ends", || {
                let now = clock();
                let asked = guard.permit(Op::SendInput, now, || {
                    used.lock().unwrap().push((place(), now, Instant::now()));
                });
                matches!(asked, Err(PermitError::Over(_)))
            });
        });
        until("the stream has a permit", || !used.lock().unwrap().is_empty());
        let frozen_at = (fault == Fault::Freeze).then(|| {
            here.proxy.freeze(true);
            clock()
        });
        let began = Instant::now();
        let outcome = other.world.gate.revoke_credential(&pairing.credential, clock());
        let (returned, returned_at) = (place(), Instant::now());
        outcome.unwrap();
        here.proxy.freeze(false);
        other.proxy.mute(false);
        streaming.join().unwrap();
        Trial { returned, returned_at, began, used: Vec::new(), frozen_at }
    });
    Trial { used: used.into_inner().unwrap(), ..trial }
}

#[test]
fn the_judge_finds_a_permit_after_the_call_and_one_after_the_limit() {
    let at = |millis: i64| Now::since_1970(at(START, 0).wall, time::Duration::milliseconds(millis));
    let start = Instant::now();
    let instant = |millis: i64| start + Duration::from_millis(millis.unsigned_abs());
    let trial = |used: &[(u64, i64)], frozen_at: Option<i64>| Trial {
        returned: 5,
        began: instant(100),
        returned_at: instant(1_400),
        used: used.iter().map(|(place, millis)| (*place, at(*millis), instant(*millis))).collect(),
        frozen_at: frozen_at.map(at),
    };
    assert!(trial(&[(1, 90), (4, 1_090)], Some(90)).violations().is_empty());
    assert_eq!(trial(&[(1, 90), (6, 120)], None).violations().len(), 1);
    assert_eq!(trial(&[(1, 90), (4, 1_091)], Some(90)).violations().len(), 1);
    assert_eq!(trial(&[(1, 90), (4, 1_100)], None).margin(), Duration::from_millis(300));
}

#[test]
fn no_permit_is_used_after_the_call_returned_nor_after_the_limit_at_a_node_that_reads_nothing() {
    let trials: usize = std::env::var("SESSIONCAP_CASES").map_or(4, |text| text.parse().unwrap());
    assert!(trials <= 1_000, "a device has no room for more tickets that were revoked");
    for fault in [Fault::None, Fault::Mute, Fault::Freeze] {
        let Some(server) = Server::primary() else { return };
        server.migrate();
        let mut nodes = [Node::open(&server, 1), Node::open(&server, 2)];
        for node in &mut nodes {
            node.settle();
            node.world.desktop(9);
        }
        let mut figures: Vec<(Duration, Duration)> = Vec::new();
        for number in 0..trials {
            let trial = trial(&mut nodes, fault);
            let violations = trial.violations();
            assert!(
                violations.is_empty(),
                "{fault:?}, trial {number}: {} violations, such as {}",
                violations.len(),
                violations[0]
            );
            figures.push((trial.took(), trial.margin()));
        }
        let mut took: Vec<Duration> = figures.iter().map(|figure| figure.0).collect();
        took.sort();
        let least = figures.iter().map(|figure| figure.1).min().unwrap();
        println!(
            "{fault:?}: {trials} trials, revoke took {:.3?}, {:.3?}, {:.3?} (p50, p99, most), and returned at least {least:.1?} after the \
             last permit elsewhere",
            took[trials / 2],
            took[trials * 99 / 100],
            took[trials - 1],
        );
    }
}
