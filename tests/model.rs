//! Random sequences of everything that can happen at a gate, beside a small model written from the
//! documents (`docs/PROTOCOL.md` sections 6, 8 and 10 to 12, and the gate's own).
//!
//! `SESSIONCAP_CASES` sets the number of sequences for each ledger, 100 by default, and
//! `SESSIONCAP_SEED` chooses them: the same seed plays the same sequences. A failure prints the shortest
//! sequence that was found, move by move.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer", feature = "attenuate"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod common;
#[path = "model/moves.rs"]
mod moves;
#[path = "model/player.rs"]
mod player;
#[path = "model/rules.rs"]
mod rules;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use moves::{Move, Sequences};
use player::Player;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use proptest_state_machine::ReferenceStateMachine;
use sessioncap::agent::ledger::{Ledger, MemoryLedger};

const CASES: u32 = 100;
const MOVES: usize = 120;

/// Plays sequences, each over a place of its own; what `place` makes opens the ledger there.
fn play<O: Fn() -> Box<dyn Ledger>>(place: impl Fn() -> O) {
    let cases = std::env::var("SESSIONCAP_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 4_000, ..Config::default() };
    let seed: u64 = std::env::var("SESSIONCAP_SEED").map_or(1, |text| text.parse().unwrap());
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let tally = RefCell::new(BTreeMap::new());
    let outcome = runner.run(&Sequences::sequential_strategy(1..=MOVES), |(_, moves, seen)| {
        let opens = place();
        let mut player = Player::new(&opens).map_err(TestCaseError::fail)?;
        for (number, next) in moves.iter().enumerate() {
            if let Some(seen) = &seen {
                seen.fetch_add(1, Ordering::SeqCst);
            }
            player
                .play(next)
                .map_err(|what| TestCaseError::fail(format!("at move {}: {what}", number + 1)))?;
        }
        player.finish().map_err(|what| TestCaseError::fail(format!("in the end: {what}")))?;
        for (what, times) in player.tally {
            *tally.borrow_mut().entry(what).or_insert(0) += times;
        }
        Ok(())
    });
    match outcome {
        Ok(()) => check_reach(&tally.take(), cases),
        Err(TestError::Fail(what, (_, moves, _))) => panic!("{what}\n{}", told(&moves)),
        Err(TestError::Abort(what)) => panic!("{what}"),
    }
}

/// Sequences in which no call succeeds prove nothing.
fn check_reach(tally: &BTreeMap<(String, &'static str), usize>, cases: u32) {
    let each = [
        ("Activate", &["ok", "activation_timeout", "too_many_connections"][..]),
        ("Attach", &["ok", "caveat_failed", "credential_expired", "holder_mismatch", "session_gone"][..]),
        ("Confirm", &["ok", "nothing_to_confirm"][..]),
        ("Offer", &["ok", "clock_skew", "quota_reached"][..]),
        ("OfferAgain", &["offer_repeated"][..]),
        (
            "Redeem",
            &["ok", "confirmation_pending", "ticket_contested", "ticket_expired", "ticket_revoked"][..],
        ),
        ("Renew", &["ok", "clock_skew", "renewal_mismatch"][..]),
    ];
    for (name, outcomes) in each {
        // The rare ones want more sequences.
        let expected = outcomes.iter().filter(|outcome| cases >= 10 * CASES || **outcome == "ok");
        for outcome in expected {
            let reached = tally.contains_key(&(name.to_owned(), *outcome));
            assert!(reached, "{cases} sequences, and {outcome} never came of {name}: {tally:?}");
        }
    }
}

fn told(moves: &[Move]) -> String {
    moves.iter().zip(1..).map(|(next, number)| format!("{number:3}  {next:?}\n")).collect()
}

#[test]
fn a_gate_over_memory_does_what_the_documents_say() {
    play(|| {
        let kept = Arc::new(MemoryLedger::new());
        move || Box::new(Arc::clone(&kept))
    });
}

#[test]
fn a_gate_over_rows_does_what_the_documents_say() {
    play(|| {
        let kept = common::ledger::TestLedger::default();
        move || Box::new(kept.clone())
    });
}

#[cfg(feature = "redb")]
#[test]
fn a_gate_over_a_file_does_what_the_documents_say() {
    let directory = std::env::temp_dir().join(format!("sessioncap-model-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    let files = std::cell::Cell::new(0);
    play(|| {
        files.set(files.get() + 1);
        let path = directory.join(format!("{}.redb", files.get()));
        let _ = std::fs::remove_file(&path);
        move || Box::new(sessioncap::agent::ledger::RedbLedger::open(&path).unwrap())
    });
    std::fs::remove_dir_all(directory).unwrap();
}
