//! What a gate keeps under its lock: the ledger, the clock, who is connected, and audit records on their
//! way to the sink.

mod clock;
mod outbox;
mod registry;
mod state;

pub(crate) use registry::Target;
pub(crate) use state::{Locked, State};
