//! A ledger whose rows a test can look at, change, and make fail.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use sessioncap::LedgerFailure;
use sessioncap::ledger::{Ledger, Table, Transaction, Transition};

pub type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// How a failing commit fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// Nothing was written.
    Lost,
    /// Everything was written, and the caller is told that it was not.
    Done,
}

#[derive(Default)]
struct Inner {
    rows: Rows,
    calls: u64,
    fail_at: Option<(u64, Commit)>,
}

impl Inner {
    /// Counts one call, and fails it if its turn has come.
    fn call(&mut self) -> Result<(), LedgerFailure> {
        self.calls += 1;
        match self.fail_at {
            Some((at, _)) if at == self.calls => Err(LedgerFailure::Io),
            _ => Ok(()),
        }
    }
}

/// Clones are one ledger.
#[derive(Clone, Default)]
pub struct TestLedger(Arc<Mutex<Inner>>);

impl TestLedger {
    pub fn with_rows(rows: Rows) -> Self {
        let ledger = Self::default();
        ledger.set_rows(rows);
        ledger
    }

    pub fn rows(&self) -> Rows {
        self.0.lock().expect("no test panics here").rows.clone()
    }

    pub fn set_rows(&self, rows: Rows) {
        self.0.lock().expect("no test panics here").rows = rows;
    }

    /// How often it was asked for anything so far: a read, a write, a commit.
    pub fn calls(&self) -> u64 {
        self.0.lock().expect("no test panics here").calls
    }

    /// The `nth` call from now on fails, counted from 1.
    pub fn fail_nth(&self, nth: u64, commit: Commit) {
        let mut inner = self.0.lock().expect("no test panics here");
        inner.fail_at = Some((inner.calls + nth, commit));
    }
}

impl Ledger for TestLedger {
    fn transact(&mut self, transition: Transition<'_>) -> Result<(), LedgerFailure> {
        let mut inner = self.0.lock().expect("no test panics here");
        let before = inner.rows.clone();
        let outcome = transition(&mut Open(&mut inner));
        if outcome.is_err() {
            inner.rows = before;
            return outcome;
        }
        let committed = inner.call();
        if committed.is_err() && inner.fail_at.is_some_and(|(_, commit)| commit == Commit::Lost) {
            inner.rows = before;
        }
        committed
    }
}

struct Open<'a>(&'a mut Inner);

impl Transaction for Open<'_> {
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerFailure> {
        self.0.call()?;
        Ok(self.0.rows.get(&(table, key.to_vec())).cloned())
    }

    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), LedgerFailure> {
        self.0.call()?;
        self.0.rows.insert((table, key.to_vec()), value.to_vec());
        Ok(())
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), LedgerFailure> {
        self.0.call()?;
        self.0.rows.remove(&(table, key.to_vec()));
        Ok(())
    }

    fn keys(&mut self, table: Table, prefix: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, LedgerFailure> {
        self.0.call()?;
        let from = (table, prefix.to_vec());
        let keys = self.0.rows.range(from..).map(|((of, key), _)| (*of, key));
        let keys = keys.take_while(|(of, key)| *of == table && key.starts_with(prefix));
        Ok(keys.take(limit).map(|(_, key)| key.clone()).collect())
    }
}
