//! One run of the engine over a credential's blocks.
//!
//! A checked credential's blocks and bytes determine each other (`docs/PROTOCOL.md` section 5.4), so the engine
//! gets the blocks as they were read, beside the agent's facts. That needs no signature to be verified anew, which
//! the engine's own way to take a token does. Only block 0 states facts, which is checked again here, and no block or rule
//! says whose facts it trusts, so that every check sees the same facts as it would in a token.

use biscuit_auth::AuthorizerBuilder;
use biscuit_auth::builder::{Fact, Predicate, Term};
use biscuit_auth::error::Token as Failure;

use crate::credential::block::Block;
use crate::credential::shape::block_builder;

/// The policy and its limits, ready for a run.
#[derive(Debug, Clone)]
pub(super) struct Engine(AuthorizerBuilder);

/// A value in one of the agent's facts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Bytes(&'a [u8]),
    Text(&'a str),
    Integer(u64),
    /// Seconds since 1970.
    Date(u64),
}

/// A fact that the agent states.
pub(super) struct Stated<'a> {
    pub(super) name: &'static str,
    pub(super) values: Vec<Value<'a>>,
}

impl Engine {
    pub(super) fn new(policy: AuthorizerBuilder) -> Self {
        Self(policy)
    }

    /// Decides anew each time: after reaching a limit, the engine would resume where it stopped. The blocks' checks
    /// follow the policy's, in order.
    pub(super) fn run(&self, facts: &[Stated<'_>], blocks: &[Block]) -> Result<(), Failure> {
        let mut authorizer = self.stating(facts)?;
        for (index, block) in blocks.iter().enumerate() {
            // The engine trusts what is merged into the authorizer, so a later block may state nothing.
            if matches!(block, Block::Authority(_)) != (index == 0) {
                return Err(Failure::InternalError);
            }
            authorizer = authorizer.merge_block(block_builder(block).map_err(|_| Failure::InternalError)?);
        }
        authorizer.build_unauthenticated()?.authorize().map(|_| ())
    }

    fn stating(&self, facts: &[Stated<'_>]) -> Result<AuthorizerBuilder, Failure> {
        facts.iter().map(Stated::built).try_fold(self.0.clone(), AuthorizerBuilder::fact)
    }

    /// Runs only the policy over a token, as the engine itself takes one.
    #[cfg(test)]
    pub(super) fn run_token(
        &self,
        facts: &[Stated<'_>],
        token: &biscuit_auth::Biscuit,
    ) -> Result<(), Failure> {
        self.stating(facts)?.build(token)?.authorize().map(|_| ())
    }
}

impl Stated<'_> {
    fn built(&self) -> Fact {
        let term = |value: &Value<'_>| match value {
            Value::Bytes(bytes) => Term::Bytes(bytes.to_vec()),
            Value::Text(text) => Term::Str((*text).to_owned()),
            Value::Integer(value) => Term::Integer(i64::try_from(*value).unwrap_or(i64::MAX)),
            Value::Date(seconds) => Term::Date(*seconds),
        };
        let terms = self.values.iter().map(term).collect();
        Fact { predicate: Predicate { name: self.name.to_owned(), terms }, parameters: None }
    }
}
