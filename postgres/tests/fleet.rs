//! Several gates over one real PostgreSQL, with a proxy between each and the database.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#[path = "../../tests/common/mod.rs"]
mod common;
mod nodes;
mod scene;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use nodes::{Node, permit};
use scene::proxy::{Cut, Proxy};
use scene::{PATIENCE, Server};
use sessioncap::agent::{Denial, LedgerFailure, PermitError};
use sessioncap::*;
use sessioncap_postgres::{Following, Options, PostgresLedger, Problem};

/// X, in real time where a call waits for other nodes, and by the clock that a test passes in for everything else.
const LIMIT: Duration = Duration::from_secs(20);
/// X of the tests that wait until it has passed.
const SHORT_LIMIT: Duration = Duration::from_secs(5);

fn node(server: &Server, number: u32) -> Node {
    node_with(server, number, Options::without_standby)
}

/// Options with the short limit, for [`node_with`].
fn short_limit(options: Options) -> Options {
    let options = options.without_standby().with_limit(SHORT_LIMIT).unwrap();
    options.with_reads(SHORT_LIMIT / 10, SHORT_LIMIT * 4 / 5).unwrap()
}

fn node_with(server: &Server, number: u32, options: impl Fn(Options) -> Options) -> Node {
    let proxy = Proxy::new(&server.directory.0);
    let long = server.options_at(proxy.directory()).with_limit(LIMIT).unwrap();
    // Whatever else the machine has to do.
    let long = long.with_reads(LIMIT / 20, LIMIT * 9 / 10).unwrap().with_timeout(PATIENCE);
    Node::open(number, proxy, options(long))
}

impl Node {
    /// Reads the log on a thread of its own, at the time that it has now.
    fn follow(&self) -> Following {
        let now = self.world.now;
        self.ledger.feed().follow(self.world.gate.clone(), move || now).unwrap()
    }

    fn pass(&mut self, seconds: i64) {
        self.world.pass(seconds);
    }

    fn why(&self) -> String {
        let error = self.world.gate.ledger_error().unwrap();
        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()
    }
}

#[test]
fn one_ticket_that_two_phones_redeem_at_two_gates_has_one_holder_or_none() {
    let Some(server) = Server::primary() else { return };
    server.migrate();
    let nodes = [node(&server, 1), node(&server, 2)];
    let desktop = nodes[0].world.desktop(9);
    let mut won = [0; 3];
    for round in 0..20_u8 {
        let pairing = desktop.share(&nodes[0].world, &terms());
        let start = Barrier::new(2);
        let joined: Vec<bool> = thread::scope(|scope| {
            let race = |at: usize| {
                let (node, start, link) = (&nodes[at], &start, &pairing.link);
                let holder = phone(100 + round * 2 + u8::try_from(at).unwrap());
                scope.spawn(move || {
                    start.wait();
                    node.world.join(link, &holder).is_ok()
                })
            };
            let races = [race(0), race(1)];
            races.map(|race| race.join().unwrap()).to_vec()
        });
        let winners = joined.iter().filter(|joined| **joined).count();
        won[winners] += 1;
        // The one that came second within the ticket's lifetime contests it, and ends both.
        let listed = nodes[0].world.list();
        let listing = listed.iter().find(|listing| listing.ticket == pairing.ticket).unwrap();
        assert_eq!(listing.state, ListingState::Revoked { why: RevocationReason::Contest }, "{joined:?}");
    }
    assert_eq!(won[2], 0, "{won:?}: one ticket, two holders");
}

#[test]
fn a_revocation_at_one_gate_cuts_the_live_stream_at_the_other_before_it_returns() {
    let Some(server) = Server::primary() else { return };
    server.migrate();
    let (one, two) = (node(&server, 1), node(&server, 2));
    let desktop = one.world.desktop(9);
    let pairing = desktop.share(&one.world, &terms());
    let mut guard = one.world.join(&pairing.link, &phone(2)).unwrap().guard;
    two.poll().unwrap();
    let returned = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            two.world.gate.revoke_credential(&pairing.credential, two.world.now).unwrap();
            returned.store(true, Ordering::SeqCst);
        });
        let begun = Instant::now();
        // The first node reads its log again and again, as a feed does.
        while !returned.load(Ordering::SeqCst) {
            one.poll().unwrap();
            assert!(begun.elapsed() < PATIENCE);
        }
        assert_eq!(permit(&mut guard, one.world.now), Err(Denial::CredentialRevoked));
    });
}

#[test]
fn a_revocation_returns_within_the_limit_although_a_node_does_not_read_and_that_node_has_stopped() {
    let Some(server) = Server::primary() else { return };
    server.migrate();
    let (mut one, two) = (node_with(&server, 1, short_limit), node_with(&server, 2, short_limit));
    let desktop = one.world.desktop(9);
    let pairing = desktop.share(&one.world, &terms());
    let other = desktop.share(&one.world, &terms());
    let mut guard = one.world.join(&pairing.link, &phone(2)).unwrap().guard;
    let mut kept = one.world.join(&other.link, &phone(3)).unwrap().guard;
    two.poll().unwrap();
    one.poll().unwrap();
    one.proxy.freeze(true);
    let begun = Instant::now();
    two.world.gate.revoke_credential(&pairing.credential, two.world.now).unwrap();
    let waited = begun.elapsed();
    assert!(waited >= SHORT_LIMIT, "it returned after {waited:?}, while the node could still permit");
    assert!(waited < PATIENCE);
    assert_eq!(permit(&mut guard, one.world.now), Ok(()), "it has not heard, at the time of its last read");
    // When the limit has passed, it permits nothing, whatever it is asked.
    assert!(matches!(one.poll(), Err(Problem::Timeout { .. })));
    one.world.now = one.world.now.plus(time::Duration::seconds(5));
    one.world.gate.caught_up(sessioncap::agent::LogRead::new(time::Duration::ZERO, Timestamp::EPOCH));
    assert_eq!(permit(&mut guard, one.world.now), Err(Denial::Stale));
    assert_eq!(permit(&mut kept, one.world.now), Err(Denial::Stale));
    one.proxy.freeze(false);
    one.pass(0);
    one.poll().unwrap();
    assert_eq!(permit(&mut guard, one.world.now), Err(Denial::CredentialRevoked));
    assert_eq!(permit(&mut kept, one.world.now), Ok(()), "it goes on");
}

#[test]
fn while_the_database_is_down_streams_go_on_for_the_limit_and_nothing_is_admitted_or_revoked() {
    let Some(server) = Server::primary() else { return };
    server.migrate();
    let (mut one, two) = (node(&server, 1), node(&server, 2));
    let desktop = one.world.desktop(9);
    let pairing = desktop.share(&one.world, &terms());
    let mut joined = one.world.join(&pairing.link, &phone(2)).unwrap();
    let second = desktop.share(&one.world, &terms());
    let mut local = one.world.join(&second.link, &phone(3)).unwrap().guard;
    one.poll().unwrap();
    one.proxy.set_down(true);
    assert_eq!(permit(&mut joined.guard, one.world.now), Ok(()));
    let refused = one.world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err();
    assert_eq!(refused.denial, Denial::Ledger(LedgerFailure::Io), "{}", one.why());
    let failed = one.world.gate.revoke_credential(&second.credential, one.world.now);
    assert_eq!(failed, Err(Denial::Ledger(LedgerFailure::Io)));
    assert_eq!(permit(&mut local, one.world.now), Err(Denial::CredentialRevoked), "its own streams are cut");
    assert!(one.poll().is_err());
    one.world.now = one.world.now.plus(time::Duration::seconds(20));
    one.world.gate.settle(one.world.now).unwrap_err();
    assert_eq!(permit(&mut joined.guard, one.world.now), Err(Denial::Stale));
    one.proxy.set_down(false);
    one.poll().unwrap();
    one.pass(0);
    assert_eq!(one.world.gate.failure(), None, "no commit was sent, so nothing is unknown");
    assert_eq!(permit(&mut joined.guard, one.world.now), Ok(()), "it goes on");
    // The revocation that failed was written by the first transaction after that.
    let listed = two.world.list();
    let listing = listed.iter().find(|listing| listing.credential == second.credential).unwrap();
    assert!(matches!(listing.state, ListingState::Revoked { .. }));
}

#[test]
fn a_commit_without_an_answer_closes_the_name_until_the_ledger_was_opened_again() {
    for cut in [Cut::BeforeCommit, Cut::AfterCommit] {
        let Some(server) = Server::primary() else { return };
        server.migrate();
        let (one, two) = (node(&server, 1), node(&server, 2));
        let desktop = one.world.desktop(9);
        let pairing = desktop.share(&one.world, &terms());
        let other = desktop.share(&one.world, &terms());
        let joined = one.world.join(&pairing.link, &phone(2)).unwrap();
        let mut kept = one.world.join(&other.link, &phone(3)).unwrap().guard;
        one.proxy.cut_next(cut);
        let failed = one.world.gate.revoke_credential(&pairing.credential, one.world.now);
        assert!(one.proxy.has_cut());
        assert_eq!(failed, Err(Denial::Ledger(LedgerFailure::Io)));
        let error = one.world.gate.ledger_error().unwrap();
        assert_eq!(error.outcome(), sessioncap::agent::ledger::Outcome::Unknown);
        assert_eq!(one.world.gate.failure(), Some(LedgerFailure::Poisoned));
        assert_eq!(permit(&mut kept, one.world.now), Err(Denial::Stale), "streams wait");
        assert!(one.world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_err());
        one.world.gate.reopen(one.ledger.clone(), one.world.now).unwrap();
        assert_eq!(permit(&mut kept, one.world.now), Ok(()));
        let refused = two.world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err();
        assert_eq!(refused.denial, Denial::CredentialRevoked, "{cut:?}");
        // Said again, it is done already.
        let _following = two.follow();
        let again = one.world.gate.revoke_credential(&pairing.credential, one.world.now);
        assert_eq!(again, Ok(Revoked::Already), "{cut:?}");
    }
}

#[test]
fn a_node_that_stops_inside_a_transaction_does_not_keep_another_from_revoking() {
    let Some(server) = Server::primary() else { return };
    server.migrate();
    let (one, two) = (node_with(&server, 1, short_limit), node_with(&server, 2, short_limit));
    let desktop = one.world.desktop(9);
    let pairing = desktop.share(&one.world, &terms());
    let joined = one.world.join(&pairing.link, &phone(2)).unwrap();
    one.proxy.cut_next(Cut::FreezeBeforeCommit);
    thread::scope(|scope| {
        let stopped = scope.spawn(|| {
            let late = desktop.mint(&one.world, &terms());
            desktop.lodge(&one.world, &late).is_ok()
        });
        scene::until("the node stops", || one.proxy.has_cut());
        // Its transaction has written the next place in the log, and has not ended.
        let revoked = two.world.gate.revoke_credential(&pairing.credential, two.world.now);
        assert_eq!(revoked, Ok(Revoked::Ended { pairings: 1 }), "{}", two.why());
        one.proxy.freeze(false);
        assert!(!stopped.join().unwrap(), "the database has given its transaction up");
    });
    one.world.gate.reopen(one.ledger.clone(), one.world.now).unwrap();
    let refused = one.world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err();
    assert_eq!(refused.denial, Denial::CredentialRevoked);
    let again = desktop.share(&one.world, &terms());
    assert!(one.world.join(&again.link, &phone(3)).is_ok(), "it goes on");
}

#[test]
fn two_gates_that_write_at_once_both_succeed_and_neither_undoes_the_other() {
    let Some(server) = Server::primary() else { return };
    server.migrate();
    let nodes = [1, 2, 3].map(|number| node(&server, number));
    let _following = nodes.each_ref().map(Node::follow);
    let start = Barrier::new(3);
    let shared: Vec<_> = thread::scope(|scope| {
        let sharing = nodes.each_ref().map(|node| {
            let start = &start;
            scope.spawn(move || {
                let desktop = Desktop::new(&node.world, 9);
                start.wait();
                for _ in 0..4 {
                    let pairing = desktop.share(&node.world, &terms());
                    let ended = node.world.gate.revoke_ticket(&pairing.ticket, node.world.now);
                    assert_eq!(ended, Ok(Revoked::Ended { pairings: 1 }));
                }
                desktop.share(&node.world, &terms()).ticket
            })
        });
        sharing.into_iter().map(|sharing| sharing.join().unwrap()).collect()
    });
    for node in &nodes {
        let open = node.world.list().into_iter().filter(|listing| listing.state == ListingState::Open);
        let mut listed: Vec<_> = open.map(|listing| listing.ticket).collect();
        let mut shared = shared.clone();
        listed.sort();
        shared.sort();
        assert_eq!(listed, shared);
    }
    // Each position is written once, and the chain is whole.
    let holes = "SELECT count(*) FROM sessioncap.log a WHERE position > 0 AND NOT EXISTS (SELECT 1 FROM \
        sessioncap.log b WHERE b.agent = a.agent AND b.position = a.position - 1 AND b.hash = a.previous)";
    assert_eq!(server.sql(holes), "0");
}

#[test]
fn a_node_that_is_opened_again_fences_the_process_that_had_it() {
    let Some(server) = Server::primary() else { return };
    server.migrate();
    let first = node(&server, 1);
    let pairing = first.world.desktop(9).share(&first.world, &terms());
    let mut guard = first.world.join(&pairing.link, &phone(2)).unwrap().guard;
    let second = node(&server, 1);
    assert_eq!(permit(&mut guard, first.world.now), Ok(()), "within the limit of its last read");
    first.poll().unwrap();
    assert_eq!(permit(&mut guard, first.world.now), Err(Denial::Ledger(LedgerFailure::Fenced)));
    assert!(second.world.gate.settle(second.world.now).is_ok());
}

#[test]
fn the_agents_role_can_neither_change_nor_remove_what_is_in_the_log() {
    let Some(server) = Server::primary() else { return };
    server.migrate();
    let one = node(&server, 1);
    one.world.desktop(9).share(&one.world, &terms());
    let as_gate = |statement: &str| {
        let text = format!(
            "DO $$ BEGIN SET LOCAL ROLE gate; BEGIN {statement}; RAISE EXCEPTION 'allowed'; \
             EXCEPTION WHEN insufficient_privilege THEN NULL; END; END $$"
        );
        server.sql(&text)
    };
    for statement in [
        "UPDATE sessioncap.log SET changes = ''",
        "DELETE FROM sessioncap.log",
        "TRUNCATE sessioncap.log",
        "INSERT INTO sessioncap.migrations VALUES (9)",
        "CREATE TABLE sessioncap.other ()",
        "DROP TABLE sessioncap.rows",
        "ALTER TABLE sessioncap.nodes ADD x int",
    ] {
        as_gate(statement);
    }
}

#[test]
fn a_log_that_is_trimmed_serves_the_nodes_that_follow_and_new_ones() {
    let Some(server) = Server::primary() else { return };
    server.migrate();
    let (one, two) = (node(&server, 1), node(&server, 2));
    let desktop = one.world.desktop(9);
    let pairing = desktop.share(&one.world, &terms());
    let joined = one.world.join(&pairing.link, &phone(2)).unwrap();
    // Nothing that a node has not confirmed.
    let before: i64 = server.sql("SELECT count(*) FROM sessioncap.log").parse().unwrap();
    server.sql("SELECT sessioncap.trim(agent, 0) FROM sessioncap.log GROUP BY agent");
    let confirmed: i64 = server.sql("SELECT min(confirmed) FROM sessioncap.nodes").parse().unwrap();
    assert_eq!(server.sql("SELECT min(position) FROM sessioncap.log"), confirmed.to_string());
    assert!(confirmed < before - 1);
    two.poll().unwrap();
    assert!(two.world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_ok());
    // What a process has said of one does not go back when it says the other.
    assert_eq!(server.sql("SELECT count(*) FROM sessioncap.nodes WHERE observed = 0 OR confirmed = 0"), "0");
    server.sql("UPDATE sessioncap.nodes SET confirmed = 1000000");
    server.sql("SELECT sessioncap.trim(agent, 0) FROM sessioncap.log GROUP BY agent");
    assert_eq!(server.sql("SELECT count(*) FROM sessioncap.log"), "1", "the last row stays");
    let three = node(&server, 3);
    assert_eq!(three.world.list().len(), 1);
    assert!(three.world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_ok());
}

#[test]
fn a_row_of_the_log_that_was_changed_is_refused() {
    let Some(server) = Server::primary() else { return };
    server.migrate();
    let (one, two) = (node(&server, 1), node(&server, 2));
    two.poll().unwrap();
    one.world.desktop(9).share(&one.world, &terms());
    let last = "position = (SELECT max(position) FROM sessioncap.log)";
    server.sql(&format!("UPDATE sessioncap.log SET changes = changes || '\\x00' WHERE {last}"));
    assert!(matches!(two.poll(), Err(Problem::Damaged { .. })));
    assert!(two.world.gate.settle(two.world.now).is_err());
    assert_eq!(two.world.gate.failure(), Some(LedgerFailure::Corrupt));
}

#[test]
fn nothing_is_appended_after_another_last_row_than_the_one_that_was_seen() {
    let Some(server) = Server::primary() else { return };
    server.migrate();
    let one = node(&server, 1);
    let desktop = one.world.desktop(9);
    desktop.share(&one.world, &terms());
    let rows = || server.sql("SELECT count(*) FROM sessioncap.log");
    let before = rows();
    // Another database of the same length, as an old primary is.
    let last = "position = (SELECT max(position) FROM sessioncap.log)";
    server.sql(&format!("UPDATE sessioncap.log SET hash = sha256(hash) WHERE {last}"));
    let pairing = desktop.mint(&one.world, &terms());
    assert_eq!(desktop.lodge(&one.world, &pairing), Err(Denial::Ledger(LedgerFailure::Io)));
    assert_eq!(rows(), before);
    assert!(one.why().contains("has lost, or never had"), "{}", one.why());
}

#[test]
fn missing_tables_and_those_of_another_version_are_refused_with_what_to_do() {
    let Some(server) = Server::primary() else { return };
    let agent = AgentSecretKey::from_bytes([1; 32]).public();
    server.sql("CREATE ROLE gate LOGIN");
    let open = || {
        let options = server.options().without_standby();
        PostgresLedger::open(options, &agent, NodeId::new(1), at(START, 0)).map(drop)
    };
    assert_eq!(open(), Err(Problem::Version { found: 0, needed: 1 }));
    server.sql("DROP ROLE gate");
    server.migrate();
    assert_eq!(open(), Ok(()));
    server.sql("INSERT INTO sessioncap.migrations VALUES (2)");
    assert_eq!(open(), Err(Problem::Version { found: 2, needed: 1 }));
}

#[test]
fn a_following_thread_hears_of_another_nodes_revocation_without_waiting_for_its_interval() {
    let Some(server) = Server::primary() else { return };
    server.migrate();
    // Read only when told: the interval is longer than the test would wait.
    let slow = |options: Options| {
        let minute = Duration::from_secs(60);
        options.without_standby().with_limit(minute).unwrap().with_reads(minute / 2, minute / 4).unwrap()
    };
    let (one, two) = (node_with(&server, 1, slow), node_with(&server, 2, slow));
    let desktop = one.world.desktop(9);
    let pairing = desktop.share(&one.world, &terms());
    let mut guard = one.world.join(&pairing.link, &phone(2)).unwrap().guard;
    two.poll().unwrap();
    let now = one.world.now;
    let following = one.feed.follow(one.world.gate.clone(), move || now).unwrap();
    let begun = Instant::now();
    two.world.gate.revoke_credential(&pairing.credential, two.world.now).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(30), "not the interval");
    assert_eq!(permit(&mut guard, now), Err(Denial::CredentialRevoked));
    assert_eq!(following.latest(), Ok(()));
    let over = guard.permit(Op::SendInput, now, || ());
    assert!(matches!(over, Err(PermitError::Over(_))));
    drop(following);
}
