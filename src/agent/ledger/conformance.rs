//! A test suite for the contract of [`Ledger`], clause by clause, for authors of backends. `docs/LEDGER.md`
//! describes its use.
//!
//! It runs reads, transitions and races on a store that the author opens for it. It needs no clock from the
//! caller; waits inside only make races more likely, and no verdict depends on them.

mod laws;

use core::fmt;
use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use super::{Ledger, Outcome};
use crate::agent::denial::LedgerFailure;
use crate::id::NodeId;

/// A store under test, controlled by its author. Start with an empty one: the suite leaves its rows.
pub trait Backend {
    /// Opens the store for a node, as one more process would: earlier openings stay.
    ///
    /// # Errors
    /// [`LedgerFailure`], for example [`LedgerFailure::InUse`] from a store that can be open once at a time.
    /// The suite then opens it anew when nothing else has it open.
    fn open(&self, node: NodeId) -> Result<Box<dyn Ledger>, LedgerFailure>;

    /// Loses everything that a crash of process and machine would lose, after every opening was dropped.
    /// Return `false` if that cannot be done: durability is then unchecked.
    fn crash(&self) -> bool {
        false
    }

    /// Makes the next commit of any opening fail: with [`Outcome::NotDone`], nothing of it is stored; with
    /// [`Outcome::Unknown`], it may or may not be. Return `false` if that cannot be done: the clause is then
    /// unchecked.
    fn fail_next(&self, outcome: Outcome) -> bool {
        let _ = outcome;
        false
    }
}

/// A clause of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Clause {
    /// `get` and `range` return exactly the existing rows: by table, prefix, order and limit, with any bytes.
    Rows,
    /// Every reader sees all changes of a transition or none, and none of one that refuses.
    Whole,
    /// Transitions behave as if they ran one after the other.
    Serializable,
    /// A read or transition that begins after a success sees its changes, on every opening.
    Fresh,
    /// An earlier opening of a node sees the number that a later one has written.
    OneOwner,
    /// A success survives a crash completely.
    Durable,
    /// A transition that refuses, or fails before its commit, is reported as not done, and has no effect.
    HonestNotDone,
    /// A commit that may have happened is reported as unknown, and the ledger as unusable.
    HonestUnknown,
}

impl Clause {
    /// Every clause, in the order in which they are checked.
    pub const ALL: &'static [Self] = &[
        Self::Rows,
        Self::Whole,
        Self::Serializable,
        Self::Fresh,
        Self::OneOwner,
        Self::Durable,
        Self::HonestNotDone,
        Self::HonestUnknown,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Whole => "whole",
            Self::Serializable => "serializable",
            Self::Fresh => "fresh",
            Self::OneOwner => "one owner",
            Self::Durable => "durable",
            Self::HonestNotDone => "honest: not done",
            Self::HonestUnknown => "honest: unknown",
        }
    }
}

/// The outcome of checking a clause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No violation was found.
    Passed,
    /// The clause was violated, as described.
    Failed(String),
    /// The clause could not be checked, for this reason. It must not count as passed.
    Unchecked(String),
}

/// The verdict on every clause. `Display` is a line for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report(Vec<(Clause, Verdict)>);

impl Report {
    /// Returns each clause with its verdict, in the order of [`Clause::ALL`].
    #[must_use]
    pub fn verdicts(&self) -> &[(Clause, Verdict)] {
        &self.0
    }

    /// Returns the verdict on one clause.
    #[must_use]
    pub fn verdict(&self, clause: Clause) -> Option<&Verdict> {
        self.0.iter().find(|(of, _)| *of == clause).map(|(_, verdict)| verdict)
    }

    /// Whether every clause passed: none failed and none is unchecked.
    #[must_use]
    pub fn all_passed(&self) -> bool {
        self.0.iter().all(|(_, verdict)| *verdict == Verdict::Passed)
    }

    /// Returns the clauses that failed.
    pub fn failed(&self) -> impl Iterator<Item = Clause> + '_ {
        self.0.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Failed(_))).map(|(clause, _)| *clause)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (clause, verdict) in &self.0 {
            match verdict {
                Verdict::Passed => writeln!(f, "{:<17} passed", clause.name())?,
                Verdict::Failed(how) => writeln!(f, "{:<17} FAILED: {how}", clause.name())?,
                Verdict::Unchecked(why) => writeln!(f, "{:<17} unchecked: {why}", clause.name())?,
            }
        }
        Ok(())
    }
}

/// Checks every clause. Runs some thousand transactions on up to three threads. It waits for the store and,
/// in races, up to a few milliseconds for the other side. A panic of the backend counts as a failed clause; a
/// backend that hangs is waited for.
pub fn check(backend: &dyn Backend) -> Report {
    let verdict = |clause: &Clause| {
        let law = match clause {
            Clause::Rows => laws::rows,
            Clause::Whole => laws::whole,
            Clause::Serializable => laws::serializable,
            Clause::Fresh => laws::fresh,
            Clause::OneOwner => laws::one_owner,
            Clause::Durable => laws::durable,
            Clause::HonestNotDone => laws::honest_not_done,
            Clause::HonestUnknown => laws::honest_unknown,
        };
        let found = catch_unwind(AssertUnwindSafe(|| law(backend)));
        (*clause, found.unwrap_or_else(|_| Verdict::Failed("the backend panicked".to_owned())))
    };
    Report(Clause::ALL.iter().map(verdict).collect())
}
