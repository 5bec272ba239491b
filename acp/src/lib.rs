//! The desktop bridge of the Agent Client Protocol.
//!
//! [`process`] runs the agent, [`mux`] shares its one connection among a desktop and phones. The rules are in
//! `docs/ACP_BRIDGE.md`.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(
    not(test),
    deny(
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::todo,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

pub mod mux;
pub mod process;

mod bridge;
pub mod cli;
mod desk;
mod names;
mod outbox;
mod phone;
mod secure;

pub use bridge::{Bridge, Run};
