//! The part of a phone app around [`phone`](crate::phone): the stored pairing, the preview of a link, the
//! list of pairings, and a connection that joins, attaches, follows and comes back by itself (`docs/PROTOCOL.md`
//! sections 6.4 and 16).
//!
//! Nothing here opens a socket, reads a clock or touches a keychain. The app passes in what happened ([`Input`]) and
//! does what comes out ([`Output`]), over whatever WebSocket its platform has.
//!
//! 1. Read the link ([`Link::parse`](crate::Link::parse)) and show a [`Preview`]. Nothing is sent before the person
//!    accepts it.
//! 2. [`Preview::accept`] makes the [`Stored`] pairing; [`Connection::join`] first asks to have it stored.
//! 3. Later, read the stored bytes with [`Stored::from_bytes`] and call [`Connection::reopen`].
//!
//! # Storage
//!
//! A keychain has three answers: a value, none, and not now (the phone was restarted and not unlocked yet). Only a
//! value goes into [`Stored::from_bytes`], and only *none* means that there is no pairing. After *not now* ask again
//! later; a new key would be another phone. Nothing here ever asks the app to delete a pairing: that is the person's
//! decision.

mod clean;
mod connection;
mod error;
mod input;
mod key_press;
mod output;
mod pairings;
mod preview;
mod stored;

pub use connection::Connection;
pub use error::{Advice, AppError};
pub use input::Input;
pub use key_press::KeyPress;
pub use output::{Fate, Output, State};
pub use pairings::Pairings;
pub use preview::{Accepted, Known, Preview};
pub use stored::{Access, Stored, StoredBytes};
