//! Where an agent's ledger is.

use std::any::Any;

use sessioncap::agent::ledger::Ledger;
use sessioncap::agent::{Gate, GateConfig};
use sessioncap::{AgentPublicKey, Now};

use crate::clock::Clock;
use crate::problem::Outcome;

/// The follower of a ledger's log, until it is dropped.
pub(super) type Following = Option<Box<dyn Any + Send + Sync>>;

/// A place for the ledger.
pub(super) trait Store: Send + Sync + 'static {
    /// The ledger.
    type Ledger: Ledger + 'static;

    /// Opens it, also again after a failure.
    fn open(&self, agent: &AgentPublicKey, now: Now) -> Outcome<Self::Ledger>;

    /// Configures the gate for what was opened.
    fn configure(&self, config: GateConfig) -> GateConfig {
        config
    }

    /// Follows what others write.
    fn follow(&self, _: &Gate, _: &Clock) -> Outcome<Following> {
        Ok(None)
    }
}

/// A ledger that nobody else writes.
pub(super) struct Opened<F>(pub(super) F);

impl<L: Ledger + 'static, F: Fn() -> Outcome<L> + Send + Sync + 'static> Store for Opened<F> {
    type Ledger = L;

    fn open(&self, _: &AgentPublicKey, _: Now) -> Outcome<L> {
        (self.0)()
    }
}
