//! A primary with a synchronous standby: what is answered as done is on both, and what is not is not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#[path = "../../tests/common/mod.rs"]
mod common;
mod nodes;
mod scene;

use std::time::Duration;

use common::*;
use nodes::{Node, permit};
use scene::Server;
use scene::proxy::Proxy;
use sessioncap::agent::ledger::Outcome;
use sessioncap::agent::{Denial, LedgerFailure};
use sessioncap::*;
use sessioncap_postgres::{Options, PostgresLedger, Problem};

/// How long a transaction may take here: a commit that waits for a stopped standby takes all of it.
const TIMEOUT: Duration = Duration::from_secs(8);

fn options(server: &Server, proxy: &Proxy) -> Options {
    // Reads are not to fail because the machine is slow.
    let limit = Duration::from_secs(40);
    let options = server.options_at(proxy.directory()).with_limit(limit).unwrap();
    options.with_reads(limit / 40, limit * 9 / 10).unwrap().with_timeout(TIMEOUT)
}

fn node(server: &Server, number: u32) -> Node {
    let proxy = Proxy::new(&server.directory.0);
    let options = options(server, &proxy);
    Node::open(number, proxy, options)
}

impl Node {
    /// What the last failure of the ledger came from.
    fn problem(&self) -> Problem {
        let error = self.world.gate.ledger_error().unwrap();
        std::error::Error::source(&error).unwrap().downcast_ref::<Problem>().unwrap().clone()
    }

    fn outcome(&self) -> Outcome {
        self.world.gate.ledger_error().unwrap().outcome()
    }
}

fn pair() -> Option<(Server, Server)> {
    let primary = Server::primary()?;
    primary.migrate();
    let standby = primary.standby("second");
    primary.wait_for_standby("second");
    Some((primary, standby))
}

#[test]
fn a_database_that_keeps_nothing_on_a_standby_is_refused_and_every_drift_is_found() {
    let Some(primary) = Server::primary() else { return };
    primary.migrate();
    let proxy = Proxy::new(&primary.directory.0);
    let agent = AgentSecretKey::from_bytes([1; 32]).public();
    let open =
        || PostgresLedger::open(options(&primary, &proxy), &agent, NodeId::new(1), at(START, 0)).map(drop);
    let names = |value: &str| Problem::Setting { name: "synchronous_standby_names", value: value.to_owned() };
    assert_eq!(open(), Err(names("")));
    primary.set("synchronous_standby_names", "*");
    assert_eq!(open(), Err(names("*")));
    primary.set("synchronous_standby_names", "second");
    assert_eq!(open(), Err(Problem::NoStandby), "none is connected");
    let standby = primary.standby("second");
    primary.wait_for_standby("second");
    assert_eq!(open(), Ok(()));

    // Settings that change need no new connection, and are found by the next transaction.
    let node = node(&primary, 1);
    let desktop = node.world.desktop(9);
    let refused = |node: &Node| {
        let pairing = desktop.mint(&node.world, &terms());
        assert_eq!(desktop.lodge(&node.world, &pairing), Err(Denial::Ledger(LedgerFailure::Io)));
        assert_eq!(node.outcome(), Outcome::NotDone);
        assert_eq!(node.world.gate.failure(), None, "the next may succeed");
        node.problem()
    };
    primary.set("synchronous_standby_names", "");
    assert_eq!(refused(&node), names(""));
    primary.set("synchronous_standby_names", "nobody");
    assert_eq!(refused(&node), Problem::NoStandby, "one of another name is none");
    primary.wait_for_standby("second");
    desktop.share(&node.world, &terms());
    // What the role or the database sets for its sessions does not count.
    primary.sql("ALTER ROLE gate SET synchronous_commit = 'local'");
    node.proxy.cut_all();
    let pairing = desktop.mint(&node.world, &terms());
    let _ = desktop.lodge(&node.world, &pairing);
    let _ = desktop.lodge(&node.world, &pairing);
    standby.freeze(true);
    let pairing = desktop.mint(&node.world, &terms());
    assert_eq!(desktop.lodge(&node.world, &pairing), Err(Denial::Ledger(LedgerFailure::Io)));
    assert_eq!(node.outcome(), Outcome::Unknown, "it has waited for the standby: {}", node.problem());
    standby.freeze(false);
}

#[test]
fn a_commit_that_the_standby_does_not_answer_is_unknown_and_the_node_serves_again_afterwards() {
    let Some((primary, standby)) = pair() else { return };
    let node = node(&primary, 1);
    let desktop = node.world.desktop(9);
    let pairing = desktop.share(&node.world, &terms());
    let other = desktop.share(&node.world, &terms());
    let joined = node.world.join(&pairing.link, &phone(2)).unwrap();
    let mut kept = node.world.join(&other.link, &phone(3)).unwrap().guard;
    standby.freeze(true);
    let failed = node.world.gate.revoke_credential(&pairing.credential, node.world.now);
    assert_eq!(failed, Err(Denial::Ledger(LedgerFailure::Io)));
    assert!(matches!(node.problem(), Problem::Timeout { .. }));
    assert_eq!(node.outcome(), Outcome::Unknown);
    // The place in the log is held by the commit that waits: a second one is certainly not done.
    let error = node.world.gate.reopen(node.ledger.clone(), node.world.now).unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotDone, "{error:?}");
    assert_eq!(permit(&mut kept, node.world.now), Err(Denial::Stale));
    standby.freeze(false);
    scene::until("the ledger opens again", || {
        node.world.gate.reopen(node.ledger.clone(), node.world.now).is_ok()
    });
    assert_eq!(permit(&mut kept, node.world.now), Ok(()));
    let refused = node.world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err();
    assert_eq!(refused.denial, Denial::CredentialRevoked);
}

#[test]
fn a_commit_whose_wait_is_cancelled_is_unknown_although_the_database_answers_with_success() {
    let Some((primary, standby)) = pair() else { return };
    let node = node(&primary, 1);
    let desktop = node.world.desktop(9);
    standby.freeze(true);
    let pairing = desktop.mint(&node.world, &terms());
    let lodged = std::thread::scope(|scope| {
        let lodging = scope.spawn(|| desktop.lodge(&node.world, &pairing));
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = 'gate'";
        scene::until("the commit waits", || primary.sql(waits) != "0" || lodging.is_finished());
        primary.sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
        lodging.join().unwrap()
    });
    assert_eq!(lodged, Err(Denial::Ledger(LedgerFailure::Io)));
    assert!(matches!(node.problem(), Problem::Notice(_)), "{}", node.problem());
    assert_eq!(node.outcome(), Outcome::Unknown);
    standby.freeze(false);
}

#[test]
fn after_the_synchronous_standby_is_promoted_nothing_is_lost_and_the_node_goes_on() {
    let Some((mut primary, standby)) = pair() else { return };
    let node = node(&primary, 1);
    let desktop = node.world.desktop(9);
    let (kept, revoked) = (desktop.share(&node.world, &terms()), desktop.share(&node.world, &terms()));
    let mut stays = node.world.join(&kept.link, &phone(2)).unwrap().guard;
    let ended = node.world.join(&revoked.link, &phone(3)).unwrap();
    node.world.gate.revoke_credential(&revoked.credential, node.world.now).unwrap();
    primary.crash();
    assert!(node.poll().is_err());
    standby.promote();
    standby.set("synchronous_standby_names", "third");
    let third = standby.standby("third");
    standby.wait_for_standby("third");
    node.proxy.lead_to(&standby.directory.0);
    node.poll().unwrap();
    assert_eq!(permit(&mut stays, node.world.now), Ok(()));
    let refused = node.world.attach(&phone(3), &ended.credential, OpSet::EMPTY).unwrap_err();
    assert_eq!(refused.denial, Denial::CredentialRevoked);
    desktop.share(&node.world, &terms());
    drop(third);
}

#[test]
fn a_standby_that_lagged_and_an_old_primary_are_refused_after_a_promotion() {
    let Some((primary, second)) = pair() else { return };
    // A second standby, which stops receiving, and is then promoted.
    let lagging = primary.standby("lagging");
    let node = node(&primary, 1);
    let desktop = node.world.desktop(9);
    let pairing = desktop.share(&node.world, &terms());
    let joined = node.world.join(&pairing.link, &phone(2)).unwrap();
    let received = || {
        let at = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'lagging' AND \
            replay_lsn >= pg_current_wal_lsn()";
        primary.sql(at) == "1"
    };
    scene::until("the second standby has it all", received);
    lagging.sql("ALTER SYSTEM SET primary_conninfo = ''");
    lagging.sql("SELECT pg_reload_conf()");
    scene::until("it receives nothing more", || {
        lagging.sql("SELECT count(*) FROM pg_stat_wal_receiver") == "0"
    });
    node.world.gate.revoke_credential(&pairing.credential, node.world.now).unwrap();
    lagging.promote();
    let follower = lagging.standby("follower");
    lagging.wait_for_standby("follower");
    node.proxy.lead_to(&lagging.directory.0);
    node.proxy.cut_all();
    scene::until("the node has connected to the promoted one", || {
        matches!(node.poll(), Err(Problem::LostPosition { .. }))
    });
    let refused = node.world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err();
    assert_eq!(refused.denial, Denial::Ledger(LedgerFailure::Io), "it is not admitted again");
    assert!(matches!(node.problem(), Problem::LostPosition { .. }), "{}", node.problem());
    // Back at the primary that has everything, it goes on.
    node.proxy.lead_to(&primary.directory.0);
    node.proxy.cut_all();
    scene::until("it is back", || node.poll().is_ok());
    let refused = node.world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err();
    assert_eq!(refused.denial, Denial::CredentialRevoked);

    // The one with everything is promoted; the old primary still takes writes, at the same place of its log.
    second.promote();
    let third = second.standby("third");
    second.wait_for_standby("third");
    node.proxy.lead_to(&second.directory.0);
    node.proxy.cut_all();
    scene::until("it has moved", || node.poll().is_ok());
    desktop.share(&node.world, &terms());
    let other = primary.standby("other");
    primary.wait_for_standby("other");
    node.proxy.lead_to(&primary.directory.0);
    node.proxy.cut_all();
    scene::until("the old primary is refused", || matches!(node.poll(), Err(Problem::OldPrimary { .. })));
    assert!(node.world.gate.settle(node.world.now).is_err());
    drop((follower, third, other));
}

#[test]
fn what_was_seen_and_not_kept_ends_streams_at_once_and_admits_nobody() {
    let Some((mut primary, standby)) = pair() else { return };
    let (one, two) = (node(&primary, 1), node(&primary, 2));
    let desktop = one.world.desktop(9);
    let pairing = desktop.share(&one.world, &terms());
    let mut guard = one.world.join(&pairing.link, &phone(2)).unwrap().guard;
    two.poll().unwrap();
    // A revocation and an offer that no standby has; a restart of the primary shows them.
    standby.freeze(true);
    assert!(two.world.gate.revoke_credential(&pairing.credential, two.world.now).is_err());
    primary.set("synchronous_standby_names", "");
    primary.start_again();
    primary.set("synchronous_standby_names", "second");
    scene::until("the first has read it", || {
        let _ = one.poll();
        permit(&mut guard, one.world.now).is_err()
    });
    assert_eq!(permit(&mut guard, one.world.now), Err(Denial::CredentialRevoked), "obeyed at once");
    // An answer by what may be lost would need a commit after it, which no standby keeps.
    assert!(one.world.gate.settle(one.world.now).is_err());
    standby.freeze(false);
}
