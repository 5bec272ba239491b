//! The public suite for ledgers, against a real database.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod scene;

use std::sync::Mutex;

use scene::Server;
use scene::proxy::{Cut, Proxy};
use sessioncap::agent::LedgerFailure;
use sessioncap::agent::ledger::conformance::{Backend, check};
use sessioncap::agent::ledger::{Ledger, Outcome};
use sessioncap::{AgentSecretKey, NodeId, SystemClock};
use sessioncap_postgres::PostgresLedger;

struct Postgres {
    server: Mutex<Server>,
    proxy: Proxy,
    unknown: Mutex<u32>,
}

impl Backend for Postgres {
    fn open(&self, node: NodeId) -> Result<Box<dyn Ledger>, LedgerFailure> {
        let agent = AgentSecretKey::from_bytes([1; 32]).public();
        let options = self.server.lock().unwrap().options_at(self.proxy.directory()).without_standby();
        let options = options.with_timeout(std::time::Duration::from_secs(60));
        let now = SystemClock::new().unwrap().now();
        let ledger = PostgresLedger::open(options, &agent, node, now).map_err(|problem| {
            println!("{problem}");
            LedgerFailure::Io
        })?;
        Ok(Box::new(ledger))
    }

    fn crash(&self) -> bool {
        self.server.lock().unwrap().start_again();
        true
    }

    fn fail_next(&self, outcome: Outcome) -> bool {
        self.proxy.cut_next(match outcome {
            Outcome::NotDone => Cut::BeforeAppend,
            // Done and not done in turn.
            Outcome::Unknown => {
                let mut unknown = self.unknown.lock().unwrap();
                *unknown += 1;
                if unknown.is_multiple_of(2) { Cut::BeforeCommit } else { Cut::AfterCommit }
            }
        });
        true
    }
}

#[test]
fn it_keeps_every_clause_of_the_ledgers_contract() {
    let Some(server) = Server::primary() else { return };
    server.migrate();
    let proxy = Proxy::new(&server.directory.0);
    let report = check(&Postgres { server: Mutex::new(server), proxy, unknown: Mutex::new(0) });
    assert!(report.all_passed(), "{report}");
}
