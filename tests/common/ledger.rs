//! A ledger whose rows a test can look at, change, and make fail.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use sessioncap::agent::LedgerFailure;
use sessioncap::agent::ledger::{Ledger, LedgerError, Look, Row, Snapshot, Table, Transition};

pub type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// How a failing call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing was written, and the ledger can be used.
    NotDone,
    /// Nothing was written, and the ledger has to be opened again.
    Broken,
    /// Nothing was written, and the error says that it may have been.
    Lost,
    /// Everything was written, and the error says that it may not have been.
    Done,
}

#[derive(Default)]
struct Inner {
    rows: Rows,
    calls: u64,
    fail_at: Option<(u64, Fault)>,
    /// Whether it has to be opened again.
    broken: bool,
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

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no test panics here")
    }

    pub fn rows(&self) -> Rows {
        self.inner().rows.clone()
    }

    pub fn set_rows(&self, rows: Rows) {
        self.inner().rows = rows;
    }

    /// How often it was asked for anything so far: a read, a row, a commit.
    pub fn calls(&self) -> u64 {
        self.inner().calls
    }

    /// The `nth` call from now on fails, counted from 1.
    pub fn fail_nth(&self, nth: u64, fault: Fault) {
        let mut inner = self.inner();
        inner.fail_at = Some((inner.calls + nth, fault));
    }

    /// As another process finds it.
    pub fn opened_again(&self) -> Self {
        Self::with_rows(self.rows())
    }

    fn error(&self, cause: LedgerFailure) -> LedgerError {
        let mut inner = self.inner();
        match inner.fail_at {
            // Or the caller's own refusal.
            None | Some((_, Fault::NotDone)) => LedgerError::not_done(cause),
            Some((at, _)) if at > inner.calls => LedgerError::not_done(cause),
            Some(_) => {
                inner.broken = true;
                LedgerError::not_done(cause).unusable()
            }
        }
    }

    fn check(&self) -> Result<(), LedgerError> {
        match self.inner().broken {
            true => Err(LedgerError::not_done(LedgerFailure::Poisoned).unusable()),
            false => Ok(()),
        }
    }
}

impl Ledger for TestLedger {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        self.check()?;
        look(self).map_err(|cause| self.error(cause))
    }

    fn transact(&self, transition: Transition<'_>) -> Result<(), LedgerError> {
        self.check()?;
        let changes = transition(self).map_err(|cause| self.error(cause))?;
        let committed = self.inner().call();
        let fault = self.inner().fail_at.map(|(_, fault)| fault);
        if committed.is_ok() || fault == Some(Fault::Done) {
            let mut inner = self.inner();
            for (table, key, value) in changes.iter() {
                apply(&mut inner.rows, table, key, value);
            }
        }
        committed.map_err(|cause| match fault {
            Some(Fault::Lost | Fault::Done) => {
                self.inner().broken = true;
                LedgerError::unknown(cause)
            }
            _ => self.error(cause),
        })
    }
}

impl Snapshot for TestLedger {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerFailure> {
        let mut inner = self.inner();
        inner.call()?;
        Ok(inner.rows.get(&(table, key.to_vec())).cloned())
    }

    fn range(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, LedgerFailure> {
        let mut inner = self.inner();
        inner.call()?;
        Ok(range(&inner.rows, table, prefix, after).take(limit).collect())
    }
}

/// The rows that [`Snapshot::range`] has to return, without its limit.
pub fn range<'a>(
    rows: &'a Rows,
    table: Table,
    prefix: &'a [u8],
    after: Option<&'a [u8]>,
) -> impl Iterator<Item = Row> + 'a {
    rows.range((table, prefix.to_vec())..)
        .take_while(move |((of, key), _)| *of == table && key.starts_with(prefix))
        .filter(move |((_, key), _)| after.is_none_or(|after| key.as_slice() > after))
        .map(|((_, key), value)| (key.clone(), value.clone()))
}

/// Sets a row, or removes it.
pub fn apply(rows: &mut Rows, table: Table, key: &[u8], value: Option<&[u8]>) {
    match value {
        Some(value) => drop(rows.insert((table, key.to_vec()), value.to_vec())),
        None => drop(rows.remove(&(table, key.to_vec()))),
    }
}
