//! The ledger of [`sessioncap`] in PostgreSQL, for several gateways that answer for one agent key.
//!
//! Each gateway is a *node*: it opens a [`PostgresLedger`], configures its gate with
//! [`PostgresLedger::configure`], and follows the log of the others with a [`Feed`]. `docs/FLEET.md` has the contract,
//! what happens when something fails, and how to set the database up. In short:
//!
//! *After a revoking call returns on any node, no node grants a permit under what it revoked, and none is in use. A
//! node that has not read the log within X refuses every permit until it has.*
//!
//! ```no_run
//! # use sessioncap::agent::{AgentContext, Gate, GateConfig};
//! # use sessioncap::{AgentPublicKey, NodeId, Now};
//! # fn agent(key: AgentPublicKey, config: GateConfig, context: impl AgentContext + 'static, clock: fn() -> Now)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use sessioncap_postgres::{Options, PostgresLedger};
//!
//! let options = Options::new("host=/run/postgresql dbname=agent user=agent", None)?;
//! let ledger = PostgresLedger::open(options, &key, NodeId::new(1), clock())?;
//! let gate = Gate::open(ledger.configure(config), ledger.clone(), context, clock())?;
//! let following = ledger.feed().follow(gate.clone(), clock)?;
//! // … serve; after a failure, `gate.reopen(ledger.clone(), clock())`.
//! # drop(following);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod copy;
mod feed;
mod jobs;
mod ledger;
mod link;
mod options;
mod problem;
mod schema;
mod tls;
mod wire;

pub use feed::{Feed, Following};
pub use ledger::PostgresLedger;
pub use options::Options;
pub use problem::Problem;
pub use schema::grants;
