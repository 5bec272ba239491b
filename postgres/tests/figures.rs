//! Prints the figures of `docs/FLEET.md`. Asserts nothing, so it is run by hand:
//! `cargo test --release -p sessioncap-postgres --test figures -- --ignored --nocapture`
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#[path = "../../tests/common/mod.rs"]
mod common;
mod scene;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use scene::Server;
use scene::proxy::Proxy;
use sessioncap::agent::ledger::{Ledger, Overlay, Table};
use sessioncap::*;
use sessioncap_postgres::{Following, PostgresLedger};

fn clock() -> Now {
    SystemClock::new().unwrap().now()
}

struct Node {
    world: World,
    proxy: Proxy,
    _following: Following,
}

fn node(server: &Server, number: u32) -> Node {
    let proxy = Proxy::new(&server.directory.0);
    let options = server.options_at(proxy.directory()).without_standby();
    let options = options.with_limit(Duration::from_secs(4)).unwrap();
    let agent = AgentSecretKey::from_bytes([1; 32]).public();
    let ledger = PostgresLedger::open(options, &agent, NodeId::new(number), clock()).unwrap();
    let world = World::try_with(ledger.clone(), clock(), |config| ledger.configure(config)).unwrap();
    let following = ledger.feed().follow(world.gate.clone(), clock).unwrap();
    world.desktop(9);
    Node { world, proxy, _following: following }
}

fn middle(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

#[test]
#[ignore = "prints figures"]
fn attach_and_revoke_by_the_distance_to_the_database() {
    let Some(server) = Server::primary() else { return };
    server.migrate();
    let mut nodes = [node(&server, 1), node(&server, 2)];
    for round_trip in [0, 1, 10_u64] {
        for node in &nodes {
            node.proxy.set_delay(Duration::from_micros(round_trip * 500));
        }
        let (mut first, mut again, mut revoked, mut cut) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..40 {
            for node in &mut nodes {
                node.world.now = clock();
                node.world.gate.settle(clock()).unwrap();
            }
            let [one, two] = &nodes;
            let desktop = Desktop::new(&one.world, 9);
            let pairing = desktop.share(&one.world, &terms());
            let joined = one.world.join(&pairing.link, &phone(2)).unwrap();
            drop(joined.guard);
            let begun = Instant::now();
            let guard = two.world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap();
            first.push(begun.elapsed());
            drop(guard);
            let begun = Instant::now();
            let mut guard = one.world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap();
            again.push(begun.elapsed());
            assert!(guard.permit(Op::SendInput, clock(), || ()).is_ok());
            let over = AtomicBool::new(false);
            let last = thread::scope(|scope| {
                let streaming = scope.spawn(|| {
                    let mut last = Instant::now();
                    while !over.load(Ordering::SeqCst) {
                        if guard.permit(Op::SendInput, clock(), || ()).is_ok() {
                            last = Instant::now();
                        }
                        // As a stream that has something to say now and then: it leaves the core to others.
                        thread::sleep(Duration::from_micros(200));
                    }
                    last
                });
                let begun = Instant::now();
                let outcome = two.world.gate.revoke_credential(&pairing.credential, clock());
                revoked.push(begun.elapsed());
                over.store(true, Ordering::SeqCst);
                outcome.unwrap();
                let returned = begun + *revoked.last().unwrap();
                (streaming.join().unwrap(), returned)
            });
            assert!(last.0 <= last.1, "a permit after the revocation returned");
            cut.push(last.1 - last.0);
        }
        println!(
            "round trip {round_trip} ms: attach at another node {:?}, again within a minute {:?}, revoke {:?} (p50, \
             p99); the last permit elsewhere came {:?} before revoke returned",
            middle(first),
            middle(again),
            middle(revoked),
            middle(cut)
        );
    }
}

#[test]
#[ignore = "prints figures"]
fn commits_a_second_by_the_number_of_agent_keys() {
    let Some(server) = Server::primary() else { return };
    server.migrate();
    for keys in [1, 8, 32_u8] {
        let done = AtomicU64::new(0);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for key in 0..keys {
                let options = server.options().without_standby();
                let agent = AgentSecretKey::from_bytes([key + 1; 32]).public();
                let ledger = PostgresLedger::open(options, &agent, NodeId::new(1), clock()).unwrap();
                let (done, over) = (&done, &over);
                scope.spawn(move || {
                    let mut number = 0_u64;
                    while !over.load(Ordering::SeqCst) {
                        number += 1;
                        let put = ledger.transact(&mut |snapshot| {
                            let mut overlay = Overlay::new(snapshot);
                            overlay.put(Table::Tickets, b"key", &number.to_be_bytes());
                            overlay.into_changes()
                        });
                        done.fetch_add(u64::from(put.is_ok()), Ordering::SeqCst);
                    }
                });
            }
            thread::sleep(Duration::from_secs(1));
            let (begun, before) = (Instant::now(), done.load(Ordering::SeqCst));
            thread::sleep(Duration::from_secs(5));
            let all = done.load(Ordering::SeqCst) - before;
            over.store(true, Ordering::SeqCst);
            println!("{keys} agent keys: {:.0} commits a second", all as f64 / begun.elapsed().as_secs_f64());
        });
    }
}
