//! The adapter of the Agent Client Protocol: reads what a phone sends about one session, rebuilds what an agent
//! sends to it (`docs/PROTOCOL.md` section 17). Pure: it reads and writes texts, and sends nothing.
//!
//! Each message of the guarded channel is one JSON-RPC 2.0 message. [`Guest`] is one phone's side of one session.
//! Nothing is passed on as it came: both directions are made anew of values that were checked, with the keys that
//! the table allows.
//!
//! # Example
//!
//! ```
//! use sessioncap::acp::{AcpSessionId, Guest, Refusal};
//! use sessioncap::{Action, Op, OpSet, SessionId};
//!
//! let upstream = AcpSessionId::new("sess_0f").ok_or("no id")?;
//! let mut guest = Guest::new(SessionId::new("build-42")?, upstream, OpSet::COMPANION);
//!
//! // A phone's message: what it needs, and what of it goes to the agent.
//! let text = br#"{"jsonrpc":"2.0","id":1,"method":"session/prompt",
//!     "params":{"sessionId":"build-42","prompt":[{"type":"text","text":"run the tests"}]}}"#;
//! let asked = guest.read(text).map_err(|refusal| refusal.reason.code())?;
//! assert_eq!(guest.action(&asked), Action::Session(Op::SendInput));
//! // The guard permits it.
//! guest.take(&asked).map_err(|refusal| refusal.reason.code())?;
//! let (method, params) = asked.upstream(guest.upstream()).ok_or("nothing goes to the agent")?;
//! assert_eq!(method, "session/prompt");
//! assert_eq!(params.get("sessionId").and_then(|id| id.as_text()), Some("sess_0f"));
//!
//! // No credential changes the mode. The answer says so.
//! let text = br#"{"jsonrpc":"2.0","id":2,"method":"session/set_mode",
//!     "params":{"sessionId":"build-42","modeId":"code"}}"#;
//! let refusal: Refusal = guest.read(text).err().ok_or("it is refused")?;
//! assert!(refusal.answer().is_some_and(|answer| answer.contains("do it at the desktop")));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
