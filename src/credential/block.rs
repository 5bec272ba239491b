//! The three kinds of block, each with one rendering (`docs/PROTOCOL.md` section 5.3).
//!
//! [`Block::datalog`] returns the text and values with which biscuit-auth mints a block. [`Block::render`]
//! writes the same block's protobuf directly. To check a received block, its caveats are read and rendered,
//! and the bytes must be equal.

use std::collections::BTreeSet;
#[cfg(test)]
use std::collections::HashMap;

#[cfg(test)]
use biscuit_auth::builder::Term as Value;
use biscuit_auth::format::schema::{
    self, Check, Expression, Fact, Op as Operator, OpBinary, Predicate, Rule, Term, TermSet, check, op,
    op_binary, term,
};

use crate::agent_url::AgentUrl;
use crate::clock::Timestamp;
use crate::credential::caveat::Caveat;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{AgentPublicKey, HolderPublicKey};
use crate::op::{Op, OpSet};

/// The version of the vocabulary, a fact in every authority block.
pub(super) const VERSION: i64 = 1;

/// Biscuit's number for Datalog 3.1, the first version with `check all`.
const SCHEMA_VERSION: u32 = 4;

/// The strings that Biscuit does not write out, in the order of its specification. Their indices are 0 to 27;
/// a token's own strings start at 1024.
const DEFAULT_SYMBOLS: [&str; 28] = [
    "read",
    "write",
    "resource",
    "operation",
    "right",
    "time",
    "role",
    "owner",
    "tenant",
    "namespace",
    "user",
    "team",
    "service",
    "admin",
    "email",
    "group",
    "member",
    "ip_address",
    "client",
    "client_ip",
    "domain",
    "path",
    "version",
    "cluster",
    "node",
    "hostname",
    "nonce",
    "query",
];
const FIRST_OWN_SYMBOL: u64 = 1_024;

/// The block that the desktop writes and signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority {
    pub(crate) credential: CredentialId,
    pub(crate) ticket: TicketId,
    pub(crate) agent: AgentPublicKey,
    pub(crate) url: AgentUrl,
    pub(crate) session: SessionId,
    pub(crate) ops: OpSet,
    pub(crate) expires_at: Timestamp,
}

/// The block that the agent appends at redemption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) holder: HolderPublicKey,
    pub(crate) epoch: u64,
    pub(crate) expires_at: Timestamp,
}

/// A block that any holder may append: fewer operations, an earlier end, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attenuation {
    pub(crate) ops: Option<OpSet>,
    pub(crate) expires_at: Option<Timestamp>,
}

/// One block of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Block {
    Authority(Authority),
    Binding(Binding),
    Attenuation(Attenuation),
}

impl Block {
    /// Returns the caveats, in the order of the block's checks.
    pub(crate) fn caveats(&self) -> Vec<Caveat> {
        match self {
            Self::Authority(block) => vec![
                Caveat::Agent { key: block.agent, url: block.url.clone() },
                Caveat::Session(block.session.clone()),
                Caveat::Ops(block.ops),
                Caveat::ExpiresAt(block.expires_at),
                Caveat::Ticket(block.ticket),
            ],
            Self::Binding(block) => vec![
                Caveat::Holder(block.holder),
                Caveat::Epoch(block.epoch),
                Caveat::ExpiresAt(block.expires_at),
            ],
            Self::Attenuation(block) => {
                let ops = block.ops.map(Caveat::Ops);
                ops.into_iter().chain(block.expires_at.map(Caveat::ExpiresAt)).collect()
            }
        }
    }

    /// Returns the block as Datalog text with named values in braces.
    #[cfg(test)]
    pub(crate) fn datalog(&self) -> (String, HashMap<String, Value>) {
        let mut text = String::new();
        let mut values = HashMap::new();
        if let Self::Authority(block) = self {
            text.push_str("version({version}); credential({credential}); ticket({ticket});\n");
            values.insert(String::from("version"), Value::Integer(VERSION));
            values.insert(String::from("credential"), Value::Bytes(block.credential.as_bytes().to_vec()));
        }
        for caveat in self.caveats() {
            text.push_str(caveat_datalog(&caveat));
            caveat_values(&caveat, &mut values);
        }
        (text, values)
    }

    /// Returns the block's protobuf, with strings interned after those of earlier blocks.
    pub(crate) fn render(&self, symbols: &mut Symbols) -> schema::Block {
        symbols.begin_block();
        let facts = match self {
            Self::Authority(block) => vec![
                fact(symbols, "version", integer(VERSION)),
                fact(symbols, "credential", bytes(block.credential.as_bytes())),
                fact(symbols, "ticket", bytes(block.ticket.as_bytes())),
            ],
            Self::Binding(_) | Self::Attenuation(_) => Vec::new(),
        };
        let checks = self.caveats().iter().map(|caveat| render_caveat(symbols, caveat)).collect();
        schema::Block {
            symbols: symbols.of_this_block(),
            context: None,
            version: Some(SCHEMA_VERSION),
            facts,
            rules: Vec::new(),
            checks,
            scope: Vec::new(),
            public_keys: Vec::new(),
        }
    }

    /// Reads the values of the block at `index`, only where a rendering has them. The caller renders the
    /// result and compares.
    pub(crate) fn read(index: usize, block: &schema::Block, symbols: &mut Symbols) -> Option<Self> {
        symbols.begin_block();
        symbols.append(&block.symbols);
        let check = |at: usize| block.checks.get(at)?.queries.first();
        match index {
            0 => Some(Self::Authority(Authority {
                credential: CredentialId::from_bytes(bytes_of(fact_term(block, 1)?)?),
                ticket: TicketId::from_bytes(bytes_of(fact_term(block, 2)?)?),
                agent: AgentPublicKey::from_bytes(bytes_of(body_term(check(0)?, 0)?)?).ok()?,
                url: AgentUrl::parse(symbols.string_of(body_term(check(0)?, 1)?)?).ok()?,
                session: SessionId::new(symbols.string_of(body_term(check(1)?, 0)?)?).ok()?,
                ops: ops_of(check(2)?, symbols)?,
                expires_at: date_of(check(3)?)?,
            })),
            1 => Some(Self::Binding(Binding {
                holder: HolderPublicKey::from_bytes(bytes_of(operand(check(0)?, 1)?)?).ok()?,
                epoch: integer_of(body_term(check(1)?, 0)?)?,
                expires_at: date_of(check(2)?)?,
            })),
            _ => {
                let ops = check(0).and_then(|rule| ops_of(rule, symbols));
                let expires_at = check(usize::from(ops.is_some())).and_then(date_of);
                Some(Self::Attenuation(Attenuation { ops, expires_at }))
            }
        }
    }
}

#[cfg(test)]
fn caveat_datalog(caveat: &Caveat) -> &'static str {
    match caveat {
        Caveat::Agent { .. } => "check if agent({agent}, {url});\n",
        Caveat::Session(_) => "check if session({session});\n",
        Caveat::Ops(_) => "check all operation($o), {ops}.contains($o);\n",
        Caveat::ExpiresAt(_) => "check all time($t), $t < {expires_at};\n",
        Caveat::Ticket(_) => "check if redeemed({ticket}, $k), peer($k);\n",
        Caveat::Holder(_) => "check all peer($k), $k === {holder};\n",
        Caveat::Epoch(_) => "check if epoch({epoch});\n",
    }
}

#[cfg(test)]
fn caveat_values(caveat: &Caveat, values: &mut HashMap<String, Value>) {
    let mut set = |name: &str, value| values.insert(String::from(name), value);
    match caveat {
        Caveat::Agent { key, url } => {
            set("agent", Value::Bytes(key.as_bytes().to_vec()));
            set("url", Value::Str(url.to_string()))
        }
        Caveat::Session(id) => set("session", Value::Str(id.to_string())),
        Caveat::Ops(ops) => {
            let names: BTreeSet<_> = ops.iter().map(|op| Value::Str(op.name().to_owned())).collect();
            set("ops", Value::Set(names))
        }
        Caveat::ExpiresAt(time) => set("expires_at", Value::Date(time.seconds())),
        Caveat::Ticket(id) => set("ticket", Value::Bytes(id.as_bytes().to_vec())),
        Caveat::Holder(key) => set("holder", Value::Bytes(key.as_bytes().to_vec())),
        Caveat::Epoch(epoch) => set("epoch", Value::Integer(saturate(*epoch))),
    };
}

fn render_caveat(symbols: &mut Symbols, caveat: &Caveat) -> Check {
    match caveat {
        Caveat::Agent { key, url } => {
            let name = symbols.intern("agent");
            let url = symbols.string(&url.to_string());
            check_if(vec![Predicate { name, terms: vec![bytes(key.as_bytes()), url] }])
        }
        Caveat::Session(id) => {
            let name = symbols.intern("session");
            let id = symbols.string(id.as_str());
            check_if(vec![Predicate { name, terms: vec![id] }])
        }
        Caveat::Ops(ops) => {
            let name = symbols.intern("operation");
            let variable = symbols.variable("o");
            let names: BTreeSet<_> = ops.iter().map(Op::name).collect();
            let mut indices: Vec<_> = names.into_iter().map(|name| symbols.intern(name)).collect();
            indices.sort_unstable();
            let set = TermSet {
                set: indices.into_iter().map(|index| term_of(term::Content::String(index))).collect(),
            };
            let body = Predicate { name, terms: vec![variable.clone()] };
            check_all(body, [term_of(term::Content::Set(set)), variable], op_binary::Kind::Contains)
        }
        Caveat::ExpiresAt(time) => {
            let name = symbols.intern("time");
            let variable = symbols.variable("t");
            let body = Predicate { name, terms: vec![variable.clone()] };
            let date = term_of(term::Content::Date(time.seconds()));
            check_all(body, [variable, date], op_binary::Kind::LessThan)
        }
        Caveat::Ticket(id) => {
            let redeemed = symbols.intern("redeemed");
            let variable = symbols.variable("k");
            let peer = symbols.intern("peer");
            check_if(vec![
                Predicate { name: redeemed, terms: vec![bytes(id.as_bytes()), variable.clone()] },
                Predicate { name: peer, terms: vec![variable] },
            ])
        }
        Caveat::Holder(key) => {
            let name = symbols.intern("peer");
            let variable = symbols.variable("k");
            let body = Predicate { name, terms: vec![variable.clone()] };
            check_all(body, [variable, bytes(key.as_bytes())], op_binary::Kind::Equal)
        }
        Caveat::Epoch(epoch) => {
            let name = symbols.intern("epoch");
            check_if(vec![Predicate { name, terms: vec![integer(saturate(*epoch))] }])
        }
    }
}

/// The strings of a token with their indices.
#[derive(Default)]
pub(crate) struct Symbols {
    own: Vec<String>,
    block_start: usize,
}

impl Symbols {
    fn begin_block(&mut self) {
        self.block_start = self.own.len();
    }

    fn of_this_block(&self) -> Vec<String> {
        self.own.get(self.block_start..).unwrap_or_default().to_vec()
    }

    fn append(&mut self, strings: &[String]) {
        self.own.extend_from_slice(strings);
    }

    pub(crate) fn intern(&mut self, text: &str) -> u64 {
        if let Some(index) = DEFAULT_SYMBOLS.iter().position(|symbol| *symbol == text) {
            return index_of(index);
        }
        let index = self.own.iter().position(|symbol| symbol == text).unwrap_or_else(|| {
            self.own.push(text.to_owned());
            self.own.len() - 1
        });
        FIRST_OWN_SYMBOL + index_of(index)
    }

    fn string(&mut self, text: &str) -> Term {
        term_of(term::Content::String(self.intern(text)))
    }

    /// Interns a variable's name, which is a symbol too.
    fn variable(&mut self, name: &str) -> Term {
        let index = u32::try_from(self.intern(name)).unwrap_or(u32::MAX);
        term_of(term::Content::Variable(index))
    }

    fn text_of(&self, index: u64) -> Option<&str> {
        match index.checked_sub(FIRST_OWN_SYMBOL) {
            Some(own) => self.own.get(usize::try_from(own).ok()?).map(String::as_str),
            None => DEFAULT_SYMBOLS.get(usize::try_from(index).ok()?).copied(),
        }
    }

    fn string_of(&self, term: &Term) -> Option<&str> {
        match term.content {
            Some(term::Content::String(index)) => self.text_of(index),
            _ => None,
        }
    }
}

/// Converts a length, which fits 64 bits on every platform of Rust.
fn index_of(index: usize) -> u64 {
    u64::try_from(index).unwrap_or(u64::MAX)
}

/// Converts to Datalog's signed integers; an epoch does not reach the limit.
pub(super) fn saturate(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn term_of(content: term::Content) -> Term {
    Term { content: Some(content) }
}

fn bytes(value: &[u8]) -> Term {
    term_of(term::Content::Bytes(value.to_vec()))
}

fn integer(value: i64) -> Term {
    term_of(term::Content::Integer(value))
}

fn fact(symbols: &mut Symbols, name: &str, value: Term) -> Fact {
    Fact { predicate: Predicate { name: symbols.intern(name), terms: vec![value] } }
}

fn rule(body: Vec<Predicate>, expressions: Vec<Expression>) -> Rule {
    // `query` is the head that the specification gives to the rule inside a check
    let query = DEFAULT_SYMBOLS.len() - 1;
    let head = Predicate { name: index_of(query), terms: Vec::new() };
    Rule { head, body, expressions, scope: Vec::new() }
}

fn check_if(body: Vec<Predicate>) -> Check {
    Check { queries: vec![rule(body, Vec::new())], kind: None }
}

fn check_all(body: Predicate, operands: [Term; 2], operator: op_binary::Kind) -> Check {
    let [left, right] = operands.map(|term| Operator { content: Some(op::Content::Value(term)) });
    let binary = OpBinary { kind: operator.into(), ffi_name: None };
    let operator = Operator { content: Some(op::Content::Binary(binary)) };
    let expression = Expression { ops: vec![left, right, operator] };
    Check { queries: vec![rule(vec![body], vec![expression])], kind: Some(check::Kind::All.into()) }
}

fn fact_term(block: &schema::Block, index: usize) -> Option<&Term> {
    block.facts.get(index)?.predicate.terms.first()
}

fn body_term(rule: &Rule, index: usize) -> Option<&Term> {
    rule.body.first()?.terms.get(index)
}

/// Returns the value at `index` in the postfix form of the rule's only expression.
fn operand(rule: &Rule, index: usize) -> Option<&Term> {
    match rule.expressions.first()?.ops.get(index)?.content.as_ref()? {
        op::Content::Value(term) => Some(term),
        _ => None,
    }
}

fn bytes_of<const N: usize>(term: &Term) -> Option<[u8; N]> {
    match term.content.as_ref()? {
        term::Content::Bytes(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    }
}

fn integer_of(term: &Term) -> Option<u64> {
    match term.content.as_ref()? {
        term::Content::Integer(value) => u64::try_from(*value).ok(),
        _ => None,
    }
}

fn date_of(rule: &Rule) -> Option<Timestamp> {
    match operand(rule, 1)?.content.as_ref()? {
        term::Content::Date(seconds) => Timestamp::from_seconds(*seconds).ok(),
        _ => None,
    }
}

/// Returns the operations of an `Ops` caveat. An empty set is not one.
fn ops_of(rule: &Rule, symbols: &Symbols) -> Option<OpSet> {
    let Some(term::Content::Set(set)) = operand(rule, 0)?.content.as_ref() else {
        return None;
    };
    let ops = set.set.iter().map(|term| symbols.string_of(term)?.parse::<Op>().ok());
    let ops = ops.collect::<Option<OpSet>>()?;
    (!ops.is_empty()).then_some(ops)
}
