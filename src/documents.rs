//! The documents of the project, for reading here.

/// How the crate is built, and where to change what.
#[doc = include_str!("../docs/ARCHITECTURE.md")]
pub mod architecture {}
/// Why it is as it is.
#[doc = include_str!("../docs/DESIGN.md")]
pub mod design {}
/// How to keep the records in another database.
#[doc = include_str!("../docs/LEDGER.md")]
pub mod ledger {}
/// Every byte, for another implementation.
#[doc = include_str!("../docs/PROTOCOL.md")]
pub mod protocol {}
/// What can be revoked, by whom, and what survives a restart.
#[doc = include_str!("../docs/REVOCATION.md")]
pub mod revocation {}
/// Each attack, its defence, and the tests that fail without it.
#[doc = include_str!("../docs/THREAT_MODEL.md")]
pub mod threat_model {}
