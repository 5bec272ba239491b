//! What travels: the ticket and its link, the Noise handshake with its payloads, the messages of desktop and
//! agent.

pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod link;
pub(crate) mod message;
#[cfg(any(feature = "holder", feature = "agent"))]
pub mod noise;
pub(crate) mod ticket;
