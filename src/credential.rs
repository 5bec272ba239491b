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

#[cfg(feature = "attenuate")]
mod attenuate;
pub(crate) mod block;

use core::fmt;

use biscuit_auth::builder::{Algorithm, BlockBuilder};
use biscuit_auth::format::schema;
use biscuit_auth::{Biscuit, KeyPair, PrivateKey, PublicKey, UnverifiedBiscuit};
use prost::Message;
use rand_core::{CryptoRng, RngCore};
#[cfg(feature = "agent")]
use sha2::{Digest, Sha256};

use crate::caveat::{Caveat, Scope};
use crate::error::{CredentialProblem, Error};
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{IssuerPublicKey, IssuerSecretKey};
use crate::limits::{MAX_ATTENUATIONS, MAX_BLOCKS};
use crate::op::Op;
use crate::token::CredentialBytes;
use block::{Authority, Binding, Block, Symbols};

fn problem(problem: CredentialProblem) -> Error {
    Error::Credential(problem)
}

/// A shape-checked token: every block rendered again and found equal. Its signatures are not
/// checked.
#[derive(Debug, Clone)]
struct Shape {
    blocks: Vec<Block>,
    sealed: bool,
    /// SHA-256 of blocks 0 and 1 as they are encoded, signatures included.
    #[cfg(feature = "agent")]
    stem: [u8; 32],
}

impl Shape {
    fn check(bytes: &[u8]) -> Result<Self, Error> {
        let token = schema::Biscuit::decode(bytes).map_err(|_| problem(CredentialProblem::Encoding))?;
        if token.blocks.len() >= MAX_BLOCKS {
            return Err(problem(CredentialProblem::TooManyBlocks));
        }
        if token.root_key_id.is_some() || token.encode_to_vec() != bytes {
            return Err(problem(CredentialProblem::Encoding));
        }
        let sealed = match &token.proof.content {
            Some(schema::proof::Content::NextSecret(secret)) if secret.len() == 32 => false,
            Some(schema::proof::Content::FinalSignature(signature)) if signature.len() == 64 => true,
            _ => return Err(problem(CredentialProblem::Encoding)),
        };
        let (mut read, mut written) = (Symbols::default(), Symbols::default());
        let mut blocks = Vec::with_capacity(token.blocks.len() + 1);
        for (index, signed) in core::iter::once(&token.authority).chain(&token.blocks).enumerate() {
            check_cryptography(index, signed)?;
            let content = || problem(CredentialProblem::Content { block: index });
            let decoded = schema::Block::decode(signed.block.as_slice()).map_err(|_| content())?;
            let block = Block::read(index, &decoded, &mut read).ok_or_else(content)?;
            if block.caveats().is_empty() || block.render(&mut written).encode_to_vec() != signed.block {
                return Err(content());
            }
            blocks.push(block);
        }
        #[cfg(feature = "agent")]
        let stem = {
            let first = token.blocks.iter().take(1);
            let blocks = core::iter::once(&token.authority).chain(first);
            let hash = blocks
                .fold(Sha256::new(), |hash, block| hash.chain_update(block.encode_length_delimited_to_vec()));
            hash.finalize().into()
        };
        Ok(Self {
            blocks,
            sealed,
            #[cfg(feature = "agent")]
            stem,
        })
    }

    fn authority(&self) -> Result<&Authority, Error> {
        match self.blocks.first() {
            Some(Block::Authority(authority)) => Ok(authority),
            _ => Err(problem(CredentialProblem::Binding)),
        }
    }

    fn binding(&self) -> Result<&Binding, Error> {
        match self.blocks.get(1) {
            Some(Block::Binding(binding)) => Ok(binding),
            _ => Err(problem(CredentialProblem::Binding)),
        }
    }

    fn scope(&self) -> Scope {
        self.blocks.iter().flat_map(Block::caveats).collect::<Vec<_>>().iter().collect()
    }
}

/// Ed25519 throughout, signatures of the original kind, no third-party signature.
fn check_cryptography(index: usize, signed: &schema::SignedBlock) -> Result<(), Error> {
    let ed25519: i32 = schema::public_key::Algorithm::Ed25519.into();
    let usual = signed.next_key.algorithm == ed25519
        && signed.next_key.key.len() == 32
        && signed.signature.len() == 64
        && signed.external_signature.is_none()
        && signed.version.is_none();
    if usual { Ok(()) } else { Err(problem(CredentialProblem::Cryptography { block: index })) }
}

fn next_key_pair<R: RngCore + CryptoRng>(rng: &mut R) -> KeyPair {
    KeyPair::new_with_rng(Algorithm::Ed25519, rng)
}

fn block_builder(block: &Block) -> Result<BlockBuilder, Error> {
    let (text, values) = block.datalog();
    BlockBuilder::new()
        .code_with_params(text, values, Default::default())
        .map_err(|_| problem(CredentialProblem::Encoding))
}

fn append<R: RngCore + CryptoRng>(
    bytes: &[u8],
    block: &Block,
    rng: &mut R,
) -> Result<CredentialBytes, Error> {
    let token = UnverifiedBiscuit::from(bytes).map_err(|_| problem(CredentialProblem::Encoding))?;
    let longer = token
        .append_with_keypair(&next_key_pair(rng), block_builder(block)?)
        .and_then(|token| token.to_vec())
        .map_err(|_| problem(CredentialProblem::Encoding))?;
    CredentialBytes::new(longer)
}

fn public_key(issuer: &IssuerPublicKey) -> Result<PublicKey, Error> {
    PublicKey::from_bytes(issuer.as_bytes(), Algorithm::Ed25519)
        .map_err(|_| problem(CredentialProblem::Signature))
}

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
    pub(crate) fn verify(&self, issuer: &IssuerPublicKey) -> Result<(), Error> {
        Biscuit::from(self.bytes.as_bytes(), public_key(issuer)?)
            .map(|_| ())
            .map_err(|_| problem(CredentialProblem::Signature))
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

/// A bound credential, checked by shape: this is what a phone holds. Its signatures are not checked,
/// so nothing may be allowed because of it.
#[derive(Debug, Clone)]
pub struct Credential {
    bytes: CredentialBytes,
    shape: Shape,
    authority: Authority,
    binding: Binding,
}

impl Credential {
    /// Reads one, by shape only. Costs no cryptography.
    ///
    /// # Errors
    /// [`Error::Credential`] with what is wrong.
    pub fn parse(bytes: &CredentialBytes) -> Result<Self, Error> {
        let shape = Shape::check(bytes.as_bytes())?;
        let (authority, binding) = (shape.authority()?.clone(), *shape.binding()?);
        Ok(Self { bytes: bytes.clone(), authority, binding, shape })
    }

    /// The credential's id, the handle by which it is revoked.
    #[must_use]
    pub fn id(&self) -> CredentialId {
        self.authority.credential
    }

    /// The ticket that it came from.
    #[must_use]
    pub fn ticket(&self) -> TicketId {
        self.authority.ticket
    }

    /// The session that it is for.
    #[must_use]
    pub fn session(&self) -> &SessionId {
        &self.authority.session
    }

    /// The intersection of all its caveats.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.shape.scope()
    }

    /// Every caveat with the number of its block: 0 the desktop's, 1 the agent's, then the holder's.
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

    /// How often it was narrowed.
    #[must_use]
    pub fn attenuations(&self) -> usize {
        self.shape.blocks.len().saturating_sub(2)
    }

    /// The bytes, to be stored like a password.
    #[must_use]
    pub fn bytes(&self) -> &CredentialBytes {
        &self.bytes
    }

    /// Checks every signature against the issuer's key: one Ed25519 verification for each block, and
    /// one for a seal.
    #[cfg(feature = "agent")]
    pub(crate) fn verify(self, issuer: &IssuerPublicKey) -> Result<VerifiedCredential, Error> {
        let token = Biscuit::from(self.bytes.as_bytes(), public_key(issuer)?)
            .map_err(|_| problem(CredentialProblem::Signature))?;
        Ok(VerifiedCredential { credential: self, token })
    }

    #[cfg(feature = "agent")]
    pub(crate) fn binding(&self) -> &Binding {
        &self.binding
    }

    /// What it is told by where its bytes are not kept. Costs two hashes.
    #[cfg(feature = "agent")]
    pub(crate) fn hashes(&self) -> EditionHashes {
        EditionHashes { stem: self.shape.stem, whole: Sha256::digest(self.bytes.as_bytes()).into() }
    }
}

/// A bound credential, told by SHA-256.
#[cfg(feature = "agent")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EditionHashes {
    /// Of its blocks 0 and 1, signatures included: the same for every copy narrowed or sealed from it.
    pub(crate) stem: [u8; 32],
    /// Of all bytes.
    pub(crate) whole: [u8; 32],
}

/// What it allows, for a person. No secret.
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

/// A credential whose every signature verified. Only [`Credential::verify`] makes one.
#[cfg(feature = "agent")]
pub(crate) struct VerifiedCredential {
    credential: Credential,
    token: Biscuit,
}

#[cfg(feature = "agent")]
impl VerifiedCredential {
    pub(crate) fn credential(&self) -> &Credential {
        &self.credential
    }

    pub(crate) fn token(&self) -> &Biscuit {
        &self.token
    }
}

#[cfg(feature = "agent")]
impl fmt::Debug for VerifiedCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VerifiedCredential").field(&self.credential.id()).finish()
    }
}

#[cfg(all(test, feature = "agent", feature = "attenuate"))]
mod tests;
