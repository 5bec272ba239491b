//! A ledger in PostgreSQL, which several agents of one key share.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use clap::Args;
use sessioncap::agent::{Gate, GateConfig};
use sessioncap::{AgentPublicKey, NodeId, Now};
use sessioncap_postgres::{Options, PostgresLedger};

use super::store::{Following, Store};
use crate::clock::Clock;
use crate::files::read_private;
use crate::problem::{Outcome, Problem, While};

/// How to reach the database.
#[derive(Args, Default)]
pub(super) struct LedgerOptions {
    /// A PostgreSQL that has the ledger, in place of the file in the state directory, for several agents with one
    /// key: postgres://USER@HOST/DATABASE, or `host=/run/postgresql user=USER dbname=DATABASE`. Whoever lists this
    /// machine's processes sees it: give one with a password as `file:PATH`, of a file that only you can read.
    #[arg(
        long,
        value_name = "CONNECTION|file:PATH",
        requires = "sessions",
        requires = "node",
        conflicts_with = "in_memory"
    )]
    ledger: Option<String>,
    /// A file with the root certificates, in PEM, that the database's certificate is checked against. Needed unless
    /// the host is a Unix socket.
    #[arg(long, value_name = "FILE", requires = "ledger")]
    ledger_roots: Option<PathBuf>,
    /// For how long this agent lets phones go on without hearing from the database, which is how long a revocation waits for
    /// an agent that does not answer: milliseconds, the same at each.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 2_000, requires = "ledger")]
    ledger_limit: u64,
    /// Accept commits that no standby has. Whoever loses the database's disk then undoes revocations: phones that
    /// were revoked are admitted again.
    #[arg(long, requires = "ledger")]
    ledger_without_standby: bool,
}

impl LedgerOptions {
    /// The database, if there is one.
    pub(super) fn open(&self, node: u32) -> Outcome<Option<Database>> {
        let Some(connection) = &self.ledger else { return Ok(None) };
        let connection = match connection.strip_prefix("file:") {
            None => connection.clone(),
            Some(path) => {
                let text = read_private(Path::new(path))?;
                let text = text.ok_or_else(|| Problem::Said(format!("{path} is not there")))?;
                String::from_utf8_lossy(&text).trim().to_owned()
            }
        };
        let roots = match &self.ledger_roots {
            None => None,
            Some(path) => {
                let read = std::fs::read(path);
                Some(read.during(format_args!("the certificates in {} cannot be read", path.display()))?)
            }
        };
        let options = Options::new(&connection, roots.as_deref())
            .and_then(|options| options.with_limit(Duration::from_millis(self.ledger_limit)))
            .during("the ledger's database")?;
        let options = if self.ledger_without_standby { options.without_standby() } else { options };
        Ok(Some(Database { options, node: NodeId::new(node), opened: OnceLock::new() }))
    }
}

/// A ledger in PostgreSQL.
pub(super) struct Database {
    options: Options,
    node: NodeId,
    opened: OnceLock<PostgresLedger>,
}

impl Store for Database {
    type Ledger = PostgresLedger;

    fn open(&self, agent: &AgentPublicKey, now: Now) -> Outcome<PostgresLedger> {
        if let Some(ledger) = self.opened.get() {
            return Ok(ledger.clone());
        }
        let ledger = PostgresLedger::open(self.options.clone(), agent, self.node, now);
        let ledger = ledger.during("the ledger's database")?;
        Ok(self.opened.get_or_init(|| ledger).clone())
    }

    fn configure(&self, config: GateConfig) -> GateConfig {
        match self.opened.get() {
            Some(ledger) => ledger.configure(config),
            None => config,
        }
    }

    fn follow(&self, gate: &Gate, clock: &Clock) -> Outcome<Following> {
        let Some(ledger) = self.opened.get() else { return Ok(None) };
        let clock = clock.clone();
        let following = ledger.feed().follow(gate.clone(), move || clock.now());
        Ok(Some(Box::new(following.during("the ledger's log cannot be followed")?)))
    }
}
