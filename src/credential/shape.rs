//! The acceptance rule of a token: parse, rebuild, compare (`docs/PROTOCOL.md` section 5.4).

use biscuit_auth::builder::{
    Algorithm, Binary, BlockBuilder, Check, CheckKind, Expression, Op, Predicate, Rule, Term as Value, fact,
    pred, var,
};
use biscuit_auth::format::{SerializedBiscuit, schema};
use biscuit_auth::{KeyPair, PublicKey, UnverifiedBiscuit};
use prost::Message;
use rand_core::{CryptoRng, RngCore};

use crate::credential::block::{Authority, Binding, Block, Symbols, VERSION, saturate};
use crate::credential::bytes::CredentialBytes;
use crate::credential::caveat::{Caveat, Scope};
#[cfg(feature = "agent")]
use crate::credential::glance::stem;
use crate::error::{CredentialProblem, Error};
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
        let stem = stem(bytes).ok_or_else(|| problem(CredentialProblem::Encoding))?;
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

pub(super) fn next_key_pair<R: RngCore + CryptoRng>(rng: &mut R) -> KeyPair {
    KeyPair::new_with_rng(Algorithm::Ed25519, rng)
}

/// Returns the block for minting. The tests compare it with the block's text, as the engine parses it.
pub(crate) fn block_builder(block: &Block) -> Result<BlockBuilder, Error> {
    let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
    let mut facts = Vec::new();
    if let Block::Authority(block) = block {
        facts.push(fact("version", &[Value::Integer(VERSION)]));
        facts.push(fact("credential", &[bytes(block.credential.as_bytes())]));
        facts.push(fact("ticket", &[bytes(block.ticket.as_bytes())]));
    }
    let builder = facts.into_iter().try_fold(BlockBuilder::new(), BlockBuilder::fact);
    let checks = block.caveats();
    let built = builder.and_then(|builder| checks.iter().map(check).try_fold(builder, BlockBuilder::check));
    built.map_err(|_| problem(CredentialProblem::Encoding))
}

fn check(caveat: &Caveat) -> Check {
    let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
    let text = |text: &str| Value::Str(text.to_owned());
    match caveat {
        Caveat::Agent { key, url } => {
            check_if(vec![pred("agent", &[bytes(key.as_bytes()), text(&url.to_string())])])
        }
        Caveat::Session(id) => check_if(vec![pred("session", &[text(id.as_str())])]),
        Caveat::Ops(ops) => {
            let names = Value::Set(ops.iter().map(|op| text(op.name())).collect());
            check_all("operation", "o", [names, var("o")], Binary::Contains)
        }
        Caveat::ExpiresAt(time) => {
            check_all("time", "t", [var("t"), Value::Date(time.seconds())], Binary::LessThan)
        }
        Caveat::Ticket(id) => {
            check_if(vec![pred("redeemed", &[bytes(id.as_bytes()), var("k")]), pred("peer", &[var("k")])])
        }
        Caveat::Holder(key) => check_all("peer", "k", [var("k"), bytes(key.as_bytes())], Binary::Equal),
        Caveat::Epoch(epoch) => check_if(vec![pred("epoch", &[Value::Integer(saturate(*epoch))])]),
    }
}

fn check_if(body: Vec<Predicate>) -> Check {
    Check { queries: vec![Rule::new(query(), body, Vec::new(), Vec::new())], kind: CheckKind::One }
}

fn check_all(name: &str, variable: &str, [left, right]: [Value; 2], operator: Binary) -> Check {
    let ops = vec![Op::Value(left), Op::Value(right), Op::Binary(operator)];
    let body = vec![pred(name, &[var(variable)])];
    Check {
        queries: vec![Rule::new(query(), body, vec![Expression { ops }], Vec::new())],
        kind: CheckKind::All,
    }
}

/// The head that the engine gives to a check's rule.
fn query() -> Predicate {
    pred::<Value>("query", &[])
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

/// Verifies every signature of a token, beginning with that of the issuer's key. The blocks are not read.
pub(super) fn check_signatures(bytes: &[u8], issuer: &IssuerPublicKey) -> Result<(), Error> {
    let signature = |_| problem(CredentialProblem::Signature);
    let root = PublicKey::from_bytes(issuer.as_bytes(), Algorithm::Ed25519).map_err(signature)?;
    SerializedBiscuit::from_slice(bytes, root).map(drop).map_err(signature)
}
