//! Agents that are found, keys that are kept: programs in networks and on buses of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "acp/discovery.rs"]
mod discovery;
#[path = "acp/document.rs"]
mod document;
#[path = "../../tests/common/documents.rs"]
mod documents;
#[cfg(feature = "keyring")]
#[path = "acp/keyring.rs"]
mod keyring;
#[path = "acp/net.rs"]
mod net;
#[path = "acp/records.rs"]
mod records;
#[path = "programs/waits.rs"]
mod waits;
#[path = "programs/world.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod world;
