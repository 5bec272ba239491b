//! The acceptance rule of a token: parse, rebuild, compare (`docs/PROTOCOL.md` section 5.4).

use biscuit_auth::builder::{Algorithm, BlockBuilder};
use biscuit_auth::format::schema;
use biscuit_auth::{KeyPair, PublicKey, UnverifiedBiscuit};
use prost::Message;
use rand_core::{CryptoRng, RngCore};
#[cfg(feature = "agent")]
use sha2::{Digest, Sha256};

#[cfg(feature = "agent")]
use crate::credential::block::stated_id;
use crate::credential::block::{Authority, Binding, Block, Symbols};
use crate::credential::bytes::CredentialBytes;
use crate::credential::caveat::Scope;
use crate::error::{CredentialProblem, Error};
#[cfg(feature = "agent")]
use crate::id::CredentialId;
use crate::key::IssuerPublicKey;
use crate::limits::MAX_BLOCKS;

pub(super) fn problem(problem: CredentialProblem) -> Error {
    Error::Credential(problem)
}

/// A token whose shape was checked: every block was rendered again and is equal. Its signatures are not
/// verified.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) blocks: Vec<Block>,
    pub(super) sealed: bool,
    /// SHA-256 of blocks 0 and 1 in their encoding, signatures included.
    #[cfg(feature = "agent")]
    pub(super) stem: [u8; 32],
}

impl Shape {
    pub(super) fn check(bytes: &[u8]) -> Result<Self, Error> {
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

    pub(super) fn authority(&self) -> Result<&Authority, Error> {
        match self.blocks.first() {
            Some(Block::Authority(authority)) => Ok(authority),
            _ => Err(problem(CredentialProblem::Binding)),
        }
    }

    pub(super) fn binding(&self) -> Result<&Binding, Error> {
        match self.blocks.get(1) {
            Some(Block::Binding(binding)) => Ok(binding),
            _ => Err(problem(CredentialProblem::Binding)),
        }
    }

    pub(super) fn scope(&self) -> Scope {
        self.blocks.iter().flat_map(Block::caveats).collect::<Vec<_>>().iter().collect()
    }
}

/// Returns the id in a token whose shape was not checked. It can name any credential: it is good for looking up
/// a record to compare the bytes with, and for nothing else.
#[cfg(feature = "agent")]
pub(super) fn unchecked_id(bytes: &[u8]) -> Option<CredentialId> {
    let token = schema::Biscuit::decode(bytes).ok()?;
    stated_id(&schema::Block::decode(token.authority.block.as_slice()).ok()?)
}

/// Requires Ed25519 throughout, signatures of the original kind, and no third-party signature.
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

pub(super) fn block_builder(block: &Block) -> Result<BlockBuilder, Error> {
    let (text, values) = block.datalog();
    BlockBuilder::new()
        .code_with_params(text, values, Default::default())
        .map_err(|_| problem(CredentialProblem::Encoding))
}

pub(super) fn append<R: RngCore + CryptoRng>(
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

pub(super) fn public_key(issuer: &IssuerPublicKey) -> Result<PublicKey, Error> {
    PublicKey::from_bytes(issuer.as_bytes(), Algorithm::Ed25519)
        .map_err(|_| problem(CredentialProblem::Signature))
}
