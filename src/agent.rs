//! The agent's side: it takes offers, admits phones, and takes everything back.

pub(crate) mod audit;
mod core;
pub(crate) mod denial;
pub(crate) mod gate;
pub(crate) mod guard;
pub mod ledger;
pub(crate) mod policy;
