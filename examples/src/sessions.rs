//! Sessions that several agents share: a server has their programs, and each agent mirrors them.
//!
//! The server listens on a Unix socket that only its user can open. It knows nothing of phones and credentials.

pub mod cli;
pub mod limits;
mod link;
pub mod message;
mod server;
mod untold;
pub mod wire;

pub use link::{Begun, Link, Lost, OnFloor, Shared, fill};
pub use server::Server;

/// The id of a new session of this node. It tells the node, which alone ends what an earlier start of it has left.
fn new_id(node: u32) -> String {
    format!("{node}.{}", uuid::Uuid::new_v4())
}

/// Whether a session was started at this node.
pub fn is_of(node: u32, id: &str) -> bool {
    id.split_once('.').is_some_and(|(of, _)| of.parse() == Ok(node))
}
