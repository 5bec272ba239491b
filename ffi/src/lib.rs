//! `sessioncap::app` for other languages: the C interface of `include/sessioncap.h` and, with the feature `uniffi`,
//! objects for Swift, Kotlin and Python over the same core.
//!
//! Nothing here opens a socket, reads a clock or starts a thread. Every object can be called from any thread, can be
//! wiped, and answers `wiped` after that and after a panic. No panic leaves this library.
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

mod c;
mod connection;
mod event;
mod failure;
mod guarded;
mod pairings;
mod preview;

pub use c::*;
pub use connection::{Connection, key_names, reopen};
pub use event::{ConnectionState, Event};
pub use failure::{Failed, Failure};
pub use pairings::{PairingInfo, Pairings, new_pairings};
pub use preview::{Preview, preview};

#[cfg(feature = "uniffi")]
uniffi::setup_scaffolding!("sessioncap");
