//! What the example programs share. `pair_mobile` runs all of it in one process.
#![allow(dead_code, reason = "each program uses a part of it")]

pub mod agent;
pub mod classify;
pub mod clock;
//pub mod companion;
//pub mod desktop;
pub mod files;
pub mod problem;
pub mod pty;
pub mod request;
pub mod terminal;
pub mod transport;
