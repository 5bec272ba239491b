//! A credential before a phone is known: minted by the desktop, bound by the agent
//! (`docs/PROTOCOL.md` section 5.3).

use biscuit_auth::builder::Algorithm;
use biscuit_auth::{Biscuit, KeyPair, PrivateKey};
use rand_core::{CryptoRng, RngCore};

use crate::credential::block::{Authority, Binding, Block};
use crate::credential::bytes::CredentialBytes;
use crate::credential::caveat::Scope;
use crate::credential::shape::{Shape, append, block_builder, problem, public_key};
use crate::error::{CredentialProblem, Error};
use crate::id::CredentialId;
use crate::key::{IssuerPublicKey, IssuerSecretKey};

/// A credential as the desktop mints it, before a phone is known. It travels from desktop to agent
/// inside an offer and no further.
#[derive(Debug, Clone)]
pub struct UnboundCredential {
    bytes: CredentialBytes,
    authority: Authority,
}

impl UnboundCredential {
    /// Mints and signs. Costs two Ed25519 signatures' worth of work.
    pub(crate) fn mint<R: RngCore + CryptoRng>(
        authority: Authority,
        issuer: &IssuerSecretKey,
        rng: &mut R,
    ) -> Result<Self, Error> {
        let root = PrivateKey::from_bytes(issuer.expose_bytes(), Algorithm::Ed25519)
            .map_err(|_| problem(CredentialProblem::Encoding))?;
        let bytes = Biscuit::builder()
            .merge(block_builder(&Block::Authority(authority))?)
            .build_with_rng(&KeyPair::from(&root), biscuit_auth::datalog::SymbolTable::default(), rng)
            .and_then(|token| token.to_vec())
            .map_err(|_| problem(CredentialProblem::Encoding))?;
        // What was minted is read back by the same rule as anyone else's.
        Self::parse(&CredentialBytes::new(bytes)?)
    }

    /// Reads one, by shape only.
    ///
    /// # Errors
    /// [`Error::Credential`] with what is wrong.
    pub fn parse(bytes: &CredentialBytes) -> Result<Self, Error> {
        let shape = Shape::check(bytes.as_bytes())?;
        if shape.blocks.len() != 1 || shape.sealed {
            return Err(problem(CredentialProblem::Binding));
        }
        Ok(Self { authority: shape.authority()?.clone(), bytes: bytes.clone() })
    }

    /// The credential's id.
    #[must_use]
    pub fn id(&self) -> CredentialId {
        self.authority.credential
    }

    /// What it would allow.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Block::Authority(self.authority.clone()).caveats().iter().collect()
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &CredentialBytes {
        &self.bytes
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Checks the signature. One Ed25519 verification.
    pub(crate) fn verify(&self, issuer: &IssuerPublicKey) -> Result<VerifiedUnbound, Error> {
        match Biscuit::from(self.bytes.as_bytes(), public_key(issuer)?) {
            Ok(_) => Ok(VerifiedUnbound { bytes: self.bytes.clone() }),
            Err(_) => Err(problem(CredentialProblem::Signature)),
        }
    }
}

/// An unbound credential whose signature verified: what can be bound. [`UnboundCredential::verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VerifiedUnbound {
    bytes: CredentialBytes,
}

impl VerifiedUnbound {
    /// From a record. It was verified before it was stored, and is not again.
    pub(crate) fn from_stored(bytes: CredentialBytes) -> Self {
        Self { bytes }
    }

    pub(crate) fn bytes(&self) -> &CredentialBytes {
        &self.bytes
    }

    /// Appends the binding block. One Ed25519 signature.
    pub(crate) fn bind<R: RngCore + CryptoRng>(
        &self,
        binding: Binding,
        rng: &mut R,
    ) -> Result<CredentialBytes, Error> {
        append(self.bytes.as_bytes(), &Block::Binding(binding), rng)
    }
}
