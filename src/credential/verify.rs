//! A bound credential: what a phone holds, and its verified form at the agent (`docs/PROTOCOL.md` section
//! 5.3).

use core::fmt;

#[cfg(feature = "agent")]
use sha2::{Digest, Sha256};

#[cfg(feature = "agent")]
use crate::agent_url::AgentUrl;
#[cfg(feature = "agent")]
use crate::codec::to_hex;
#[cfg(feature = "agent")]
use crate::credential::block::Block;
use crate::credential::block::{Authority, Binding};
use crate::credential::bytes::CredentialBytes;
use crate::credential::caveat::{Caveat, Scope};
#[cfg(feature = "agent")]
use crate::credential::glance;
use crate::credential::shape::Shape;
#[cfg(feature = "agent")]
use crate::credential::shape::check_signatures;
use crate::error::Error;
use crate::id::{CredentialId, SessionId, TicketId};
#[cfg(feature = "agent")]
use crate::key::{AgentPublicKey, IssuerPublicKey};
use crate::limits::MAX_ATTENUATIONS;
use crate::op::Op;

/// A bound credential, as a phone holds it, whose shape was checked. Its signatures are not verified, so it
/// must not be used to allow anything.
#[derive(Debug, Clone)]
pub struct Credential {
    pub(super) bytes: CredentialBytes,
    pub(super) shape: Shape,
    authority: Authority,
    binding: Binding,
}

impl Credential {
    /// How often a credential can be narrowed after it was bound.
    pub const MAX_ATTENUATIONS: usize = MAX_ATTENUATIONS;

    /// Reads a credential, checking only its shape. Costs no cryptography.
    ///
    /// # Errors
    /// [`Error::Credential`] with the problem.
    pub fn parse(bytes: &CredentialBytes) -> Result<Self, Error> {
        let shape = Shape::check(bytes.as_bytes())?;
        let (authority, binding) = (shape.authority()?.clone(), *shape.binding()?);
        Ok(Self { bytes: bytes.clone(), authority, binding, shape })
    }

    /// Returns the credential's id, which is used to revoke it.
    #[must_use]
    pub fn id(&self) -> CredentialId {
        self.authority.credential
    }

    /// Returns the ticket that it came from.
    #[must_use]
    pub fn ticket(&self) -> TicketId {
        self.authority.ticket
    }

    /// Returns the session that it is for.
    #[must_use]
    pub fn session(&self) -> &SessionId {
        &self.authority.session
    }

    /// Returns the intersection of all its caveats.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.shape.scope()
    }

    /// Returns every caveat with the number of its block: 0 the desktop's, 1 the agent's, then the holder's.
    pub fn caveats(&self) -> impl Iterator<Item = (usize, Caveat)> {
        self.shape
            .blocks
            .iter()
            .enumerate()
            .flat_map(|(index, block)| block.caveats().into_iter().map(move |caveat| (index, caveat)))
    }

    /// Whether it can no longer be narrowed.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.shape.sealed
    }

    /// Returns how often it was narrowed.
    #[must_use]
    pub fn attenuations(&self) -> usize {
        self.shape.blocks.len().saturating_sub(2)
    }

    /// Returns the bytes, to be stored like a password.
    #[must_use]
    pub fn bytes(&self) -> &CredentialBytes {
        &self.bytes
    }

    /// Checks that every signature is right, beginning with that of the issuer's key. Costs an Ed25519
    /// verification for each block, and one for a seal; waits for nothing.
    ///
    /// Says that the desktop with this key has shared what block 0 says, and nothing more: whoever holds the
    /// unbound credential can append block 1, and only the agent's ledger knows what was revoked. For a tool
    /// that explains a credential; an agent uses a [`Gate`](crate::agent::Gate).
    ///
    /// # Errors
    /// [`Error::Credential`] with [`CredentialProblem::Signature`](crate::CredentialProblem::Signature).
    #[cfg(feature = "agent")]
    pub fn check_signatures(&self, issuer: &IssuerPublicKey) -> Result<(), Error> {
        self.clone().verify(issuer).map(drop)
    }

    /// Returns a name for the edition that this credential is, or was narrowed from: the first 8 bytes of
    /// SHA-256 over blocks 0 and 1, in hexadecimal. A renewal gives the same credential another edition. Not a
    /// secret.
    #[cfg(feature = "agent")]
    #[must_use]
    pub fn edition(&self) -> String {
        self.hashes().edition()
    }

    /// Verifies every signature with the issuer's key: one Ed25519 verification for each block, and one for a
    /// seal.
    #[cfg(feature = "agent")]
    pub(crate) fn verify(self, issuer: &IssuerPublicKey) -> Result<VerifiedCredential, Error> {
        check_signatures(self.bytes.as_bytes(), issuer)?;
        Ok(VerifiedCredential { credential: self })
    }

    /// Takes a credential for verified because the caller has found its bytes on record: this agent has made them
    /// from a verified one.
    #[cfg(feature = "agent")]
    pub(crate) fn on_record(self) -> VerifiedCredential {
        VerifiedCredential { credential: self }
    }

    /// Returns its blocks, which with the signatures are its bytes.
    #[cfg(feature = "agent")]
    pub(crate) fn blocks(&self) -> &[Block] {
        &self.shape.blocks
    }

    /// Returns the agent that it is for, and its address.
    #[cfg(feature = "agent")]
    pub(crate) fn agent(&self) -> (&AgentPublicKey, &AgentUrl) {
        (&self.authority.agent, &self.authority.url)
    }

    #[cfg(feature = "agent")]
    pub(crate) fn binding(&self) -> &Binding {
        &self.binding
    }

    /// Returns the hashes that identify it where its bytes are not kept. Costs two hashes.
    #[cfg(feature = "agent")]
    pub(crate) fn hashes(&self) -> EditionHashes {
        EditionHashes { stem: self.shape.stem, whole: whole_hash(&self.bytes) }
    }

    /// Returns the id in bytes that were not checked, for looking up a record to compare them with.
    #[cfg(feature = "agent")]
    pub(crate) fn unchecked_id(bytes: &CredentialBytes) -> Option<CredentialId> {
        glance::stated_id(bytes.as_bytes())
    }

    /// Returns the hash that names the edition of which these bytes, whose shape was checked before, are a copy.
    #[cfg(feature = "agent")]
    pub(crate) fn stem_of(bytes: &CredentialBytes) -> Option<[u8; 32]> {
        glance::stem(bytes.as_bytes())
    }

    /// Returns the same of this credential.
    #[cfg(feature = "agent")]
    pub(crate) fn stem(&self) -> &[u8; 32] {
        &self.shape.stem
    }
}

/// Returns the SHA-256 of all bytes.
#[cfg(feature = "agent")]
pub(crate) fn whole_hash(bytes: &CredentialBytes) -> [u8; 32] {
    Sha256::digest(bytes.as_bytes()).into()
}

/// The SHA-256 hashes that identify an edition.
#[cfg(feature = "agent")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EditionHashes {
    /// The hash of blocks 0 and 1, signatures included: the same for every copy narrowed or sealed from it.
    pub(crate) stem: [u8; 32],
    /// The hash of all bytes.
    pub(crate) whole: [u8; 32],
}

#[cfg(feature = "agent")]
impl EditionHashes {
    /// Returns the edition's name.
    pub(crate) fn edition(&self) -> String {
        to_hex(self.stem.get(..8).unwrap_or_default())
    }
}

/// Describes what it allows, for a person. Contains no secret.
impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scope = self.scope();
        writeln!(f, "credential {}", self.id())?;
        writeln!(f, "  session   {}", self.authority.session)?;
        writeln!(f, "  agent     {} key {}", self.authority.url, self.authority.agent)?;
        writeln!(f, "  phone     {}", self.binding.holder)?;
        let ops: Vec<_> = scope.ops().iter().map(Op::describe).collect();
        let ops = if ops.is_empty() { String::from("nothing") } else { ops.join(", ") };
        writeln!(f, "  may       {ops}")?;
        if let Some(end) = scope.expires_at() {
            writeln!(f, "  until     {end}")?;
        }
        write!(
            f,
            "  narrowed  {} of {MAX_ATTENUATIONS} times{}",
            self.attenuations(),
            if self.is_sealed() { ", sealed" } else { "" }
        )
    }
}

/// A credential whose signatures were all verified, or whose bytes are on record. [`Credential::verify`] and
/// [`Credential::on_record`] make one.
#[cfg(feature = "agent")]
pub(crate) struct VerifiedCredential {
    credential: Credential,
}

#[cfg(feature = "agent")]
impl VerifiedCredential {
    pub(crate) fn credential(&self) -> &Credential {
        &self.credential
    }
}

#[cfg(feature = "agent")]
impl fmt::Debug for VerifiedCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VerifiedCredential").field(&self.credential.id()).finish()
    }
}
