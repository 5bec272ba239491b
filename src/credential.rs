//! A credential's life: minted by the desktop, bound by the agent, narrowed by its holder, verified
//! by the agent (`docs/PROTOCOL.md` section 5).
//!
//! A credential is a Biscuit whose blocks hold nothing but the closed vocabulary of caveats. The
//! acceptance rule is *parse, rebuild, compare*: a block is read into caveats, rendered again by
//! this crate's own writer, and must come out as the same bytes; the token around it must be its own
//! canonical serialization. Whatever is not exactly such a token is refused before the Datalog
//! engine sees it, which leaves the engine no loop, no regular expression, no foreign fact and no
//! second meaning to be attacked with.
//!
//! Shape-checked ([`Credential`]) and verified ([`VerifiedCredential`]) are different types. With
//! `policy.rs` this is the only owner of biscuit-auth.

#[cfg(all(feature = "_credential", feature = "attenuate"))]
mod attenuate;
#[cfg(feature = "_credential")]
pub(crate) mod block;
pub(crate) mod bytes;
pub(crate) mod caveat;
#[cfg(feature = "agent")]
mod glance;
#[cfg(feature = "_credential")]
pub(crate) mod mint;
#[cfg(feature = "_credential")]
pub(crate) mod shape;
#[cfg(feature = "_credential")]
pub(crate) mod verify;

#[cfg(feature = "_credential")]
pub use mint::UnboundCredential;
#[cfg(feature = "_credential")]
pub use verify::Credential;

#[cfg(all(test, feature = "agent", feature = "attenuate"))]
mod tests;
