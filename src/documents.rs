//! The project's documents, rendered with the API.

/// How the crate is built, and which file to change for what.
#[doc = include_str!("../docs/ARCHITECTURE.md")]
pub mod architecture {}
/// The reasons for the design.
#[doc = include_str!("../docs/DESIGN.md")]
pub mod design {}
/// How to implement a ledger over another database.
#[doc = include_str!("../docs/LEDGER.md")]
pub mod ledger {}
/// The specification of every byte, for other implementations.
#[doc = include_str!("../docs/PROTOCOL.md")]
pub mod protocol {}
/// What can be revoked, by whom, and what a restart preserves.
#[doc = include_str!("../docs/REVOCATION.md")]
pub mod revocation {}
/// Attacks, their defences, and the tests that fail without each defence.
#[doc = include_str!("../docs/THREAT_MODEL.md")]
pub mod threat_model {}
