//! draft
#![forbid(unsafe_code)]
#![deny(missing_docs)]
mod agent_url;
mod caveat;
mod clock;
mod codec;
mod error;
mod id;
mod key;
pub mod limits;
mod link;
#[cfg(any(feature = "holder", feature = "agent"))]
pub mod noise;
mod op;
mod secret;
mod status;
mod ticket;
mod token;
pub use agent_url::{AgentUrl, Scheme};
pub use caveat::*;
pub use clock::*;
pub use error::*;
pub use id::*;
pub use key::*;
pub use link::*;
pub use op::*;
pub use secret::*;
pub use status::*;
pub use ticket::*;
pub use token::*;
#[cfg(feature = "_credential")]
mod credential;
#[cfg(feature = "_credential")]
pub use credential::*;
#[cfg(feature = "_credential")]
mod denial;
#[cfg(feature = "_credential")]
pub use denial::*;
#[cfg(feature = "agent")]
mod policy;
#[cfg(feature = "agent")]
pub use policy::*;
