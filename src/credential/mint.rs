//! A credential before a phone is known: minted by the desktop, bound by the agent
//! (`docs/PROTOCOL.md` section 5.3).

use biscuit_auth::builder::Algorithm;
use biscuit_auth::format::SerializedBiscuit;
use biscuit_auth::format::convert::proto_block_to_token_block;
use biscuit_auth::{KeyPair, PrivateKey};
use rand_core::{CryptoRng, RngCore};

use crate::credential::block::{Authority, Binding, Block, Symbols};
use crate::credential::bytes::CredentialBytes;
use crate::credential::caveat::Scope;
use crate::credential::shape::{Shape, append, check_signatures, next_key_pair, problem};
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
        let encoding = |_| problem(CredentialProblem::Encoding);
        let block = Block::Authority(authority).render(&mut Symbols::default());
        let block = proto_block_to_token_block(&block, None).map_err(encoding)?;
        let token = SerializedBiscuit::new(None, &signer.0, &next_key_pair(rng), &block)
            .map_err(|_| problem(CredentialProblem::Encoding))?;
        let bytes = token.to_vec().map_err(encoding)?;
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
        check_signatures(self.bytes.as_bytes(), issuer)?;
        Ok(VerifiedUnbound { bytes: self.bytes.clone() })
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
