//! The adapter of the Agent Client Protocol: reads what a phone sends about one session, rebuilds what an agent
//! sends to it (`docs/PROTOCOL.md` section 17). Pure: it reads and writes texts, and sends nothing.
//!
//! Each message of the guarded channel is one JSON-RPC 2.0 message. [`Guest`] is one phone's side of one session.
//! Nothing is passed on as it came: both directions are made anew of values that were checked, with the keys that
//! the table allows.

mod answer;
mod guest;
mod message;
mod question;
mod refusal;
mod shape;
mod table;
mod update;

pub use crate::json::{Json, JsonError, Number};
pub use guest::{AcpSessionId, FromPhone, Guest, ToPhone};
pub use message::{AcpProfile, Message, MessageError, RequestId, RpcError};
pub use refusal::{Reason, Refusal};
pub use table::{Asked, Kind, Rule, Sender};
