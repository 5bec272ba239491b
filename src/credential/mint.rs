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

/// A credential as the desktop mints it, before a phone is known. Only offers and renewals contain it, on the
/// way from desktop to agent.
#[derive(Debug, Clone)]
pub struct UnboundCredential {
    bytes: CredentialBytes,
    authority: Authority,
}

impl UnboundCredential {
    /// Mints and signs a credential. Costs about two Ed25519 signatures.
    pub(crate) fn mint<R: RngCore + CryptoRng>(
        authority: Authority,
        signer: &Signer,
        rng: &mut R,
    ) -> Result<Self, Error> {
        let bytes = Biscuit::builder()
            .merge(block_builder(&Block::Authority(authority))?)
            .build_with_rng(&signer.0, biscuit_auth::datalog::SymbolTable::default(), rng)
            .and_then(|token| token.to_vec())
            .map_err(|_| problem(CredentialProblem::Encoding))?;
        // A minted credential must pass the same check as any other.
        Self::parse(&CredentialBytes::new(bytes)?)
    }

    /// Reads an unbound credential, checking only its shape.
    ///
    /// # Errors
    /// [`Error::Credential`] with the problem.
    pub fn parse(bytes: &CredentialBytes) -> Result<Self, Error> {
        let shape = Shape::check(bytes.as_bytes())?;
        if shape.blocks.len() != 1 || shape.sealed {
            return Err(problem(CredentialProblem::Binding));
        }
        Ok(Self { authority: shape.authority()?.clone(), bytes: bytes.clone() })
    }

    /// Returns the credential's id.
    #[must_use]
    pub fn id(&self) -> CredentialId {
        self.authority.credential
    }

    /// Returns the scope of its caveats.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Block::Authority(self.authority.clone()).caveats().iter().collect()
    }

    /// Returns the bytes.
    #[must_use]
    pub fn bytes(&self) -> &CredentialBytes {
        &self.bytes
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Verifies the signature. Costs one Ed25519 verification.
    pub(crate) fn verify(&self, issuer: &IssuerPublicKey) -> Result<VerifiedUnbound, Error> {
        match Biscuit::from(self.bytes.as_bytes(), public_key(issuer)?) {
            Ok(_) => Ok(VerifiedUnbound { bytes: self.bytes.clone() }),
            Err(_) => Err(problem(CredentialProblem::Signature)),
        }
    }
}

/// An issuer's key, ready to sign. Keep it: making one costs a scalar multiplication.
pub(crate) struct Signer(KeyPair);

impl Signer {
    pub(crate) fn new(key: &IssuerSecretKey) -> Result<Self, Error> {
        let root = PrivateKey::from_bytes(key.expose_bytes(), Algorithm::Ed25519);
        root.map(|root| Self(KeyPair::from(&root))).map_err(|_| problem(CredentialProblem::Encoding))
    }
}

/// An unbound credential whose signature was verified, so that it can be bound. [`UnboundCredential::verify`]
/// makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VerifiedUnbound {
    bytes: CredentialBytes,
}

impl VerifiedUnbound {
    /// Makes one from a record, which was verified before it was stored.
    pub(crate) fn from_stored(bytes: CredentialBytes) -> Self {
        Self { bytes }
    }

    pub(crate) fn bytes(&self) -> &CredentialBytes {
        &self.bytes
    }

    /// Appends the binding block. Costs one Ed25519 signature.
    pub(crate) fn bind<R: RngCore + CryptoRng>(
        &self,
        binding: Binding,
        rng: &mut R,
    ) -> Result<CredentialBytes, Error> {
        append(self.bytes.as_bytes(), &Block::Binding(binding), rng)
    }
}
