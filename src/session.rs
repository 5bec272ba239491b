//! The session profile: what a phone and an agent say to each other about a terminal session (`docs/PROTOCOL.md`
//! section 16). Pure: it encodes, decodes and counts, and sends nothing.
//!
//! The contents of data frames are [`FromPhone`] and [`FromAgent`]; notices are [`SessionNotice`]. A phone keeps an
//! [`OutputTracker`], which knows what it has shown and from where to go on after a lost connection. [`Liveness`]
//! says when to send a ping and when the other side is lost, [`Reconnect`] how long to pause before the next attach.

mod liveness;
mod message;
mod output;

pub use liveness::{Liveness, Look, Reconnect};
pub use message::{
    Event, EventKind, Following, FromAgent, FromPhone, Incarnation, NotTaken, Profile, ResumePoint,
    SessionNotice,
};
pub use output::{OutputTracker, Shown};
