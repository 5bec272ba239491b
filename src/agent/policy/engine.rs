//! One run of the engine over a credential's blocks.
//!
//! A checked credential's blocks and bytes determine each other (`docs/PROTOCOL.md` section 5.4), so the engine
//! gets the blocks as they were read, with the agent's facts, as one snapshot of an authorizer. That needs no
//! signature to be verified anew, which the engine's own way to take a token does.

use biscuit_auth::error::Token as Failure;
use biscuit_auth::format::schema::{self, AuthorizerSnapshot, Fact, Predicate, Term, term};
use biscuit_auth::{Authorizer, AuthorizerBuilder};

use crate::credential::block::{Block, Symbols};

/// The policy and its limits, ready for a run. Without it, nothing is allowed.
#[derive(Debug, Clone)]
pub(super) struct Engine(Option<AuthorizerSnapshot>);

/// A value in one of the agent's facts.
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
    pub(super) fn new(policy: &AuthorizerBuilder) -> Self {
        Self(policy.snapshot().ok())
    }

    /// Decides anew each time: after reaching a limit, the engine would resume where it stopped.
    pub(super) fn run(&self, facts: &[Stated<'_>], blocks: &[Block]) -> Result<(), Failure> {
        let mut snapshot = self.0.clone().ok_or(Failure::InternalError)?;
        let world = &mut snapshot.world;
        let mut symbols = Symbols::from_strings(core::mem::take(&mut world.symbols));
        for fact in facts {
            world.authorizer_block.facts.push(fact.render(&mut symbols));
        }
        for block in blocks {
            let schema::Block { version, facts, rules, checks, scope, .. } = block.render(&mut symbols);
            let block = schema::SnapshotBlock {
                context: None,
                version,
                facts,
                rules,
                checks,
                scope,
                external_key: None,
            };
            world.blocks.push(block);
        }
        world.symbols = symbols.into_strings();
        Authorizer::from_snapshot(snapshot)?.authorize().map(|_| ())
    }
}

impl Stated<'_> {
    fn render(&self, symbols: &mut Symbols) -> Fact {
        let name = symbols.intern(self.name);
        let values = self.values.iter().map(|value| {
            let content = match value {
                Value::Bytes(bytes) => term::Content::Bytes(bytes.to_vec()),
                Value::Text(text) => term::Content::String(symbols.intern(text)),
                Value::Integer(value) => term::Content::Integer(i64::try_from(*value).unwrap_or(i64::MAX)),
                Value::Date(seconds) => term::Content::Date(*seconds),
            };
            Term { content: Some(content) }
        });
        Fact { predicate: Predicate { name, terms: values.collect() } }
    }

    /// The same fact for the engine's own builder, with which the tests compare.
    #[cfg(test)]
    pub(super) fn built(&self) -> biscuit_auth::builder::Fact {
        use biscuit_auth::builder::Term as Built;
        let values = self.values.iter().map(|value| match value {
            Value::Bytes(bytes) => Built::Bytes(bytes.to_vec()),
            Value::Text(text) => Built::Str((*text).to_owned()),
            Value::Integer(value) => Built::Integer(i64::try_from(*value).unwrap_or(i64::MAX)),
            Value::Date(seconds) => Built::Date(*seconds),
        });
        biscuit_auth::builder::fact(self.name, &values.collect::<Vec<_>>())
    }
}
