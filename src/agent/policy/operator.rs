//! An operator's own rules: read, judged, tried out, before the agent starts.
//!
//! A rule that can never fire is worse than none, because its author relies on it. The engine would
//! accept `operation("sned_input")`, an unknown predicate, or a regular expression that does not
//! compile, and quietly match nothing. Here each of them is an error.

use std::collections::{BTreeMap, BTreeSet};

use biscuit_auth::builder::{Binary, Check, Op as Operator, Policy, PolicyKind, Rule, Term, Unary, fact};
use biscuit_auth::error::Token as Failure;
use biscuit_auth::{Authorizer, AuthorizerBuilder};

use crate::agent_url::AgentUrl;
use crate::caveat::{Circumstances, LiveRecord};
use crate::clock::Timestamp;
use crate::error::{Error, RuleProblem};
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{AgentPublicKey, HolderPublicKey};
use crate::limits::{MAX_OPERATOR_RULE_DEPTH, MAX_OPERATOR_RULES_LEN};
use crate::op::Op;

/// What a term of a predicate can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bytes(usize),
    Text,
    SessionName,
    Operation,
    Date,
    Number(i64, i64),
}

/// Every predicate that a run can hold, with its terms.
const PREDICATES: [(&str, &[Kind]); 14] = [
    ("agent", &[Kind::Bytes(32), Kind::Text]),
    ("session", &[Kind::SessionName]),
    ("operation", &[Kind::Operation]),
    ("peer", &[Kind::Bytes(32)]),
    ("epoch", &[Kind::Number(0, i64::MAX)]),
    ("time", &[Kind::Date]),
    ("live", &[Kind::Bytes(16), Kind::Bytes(16), Kind::Bytes(32)]),
    ("redeemed", &[Kind::Bytes(16), Kind::Bytes(32)]),
    ("hour", &[Kind::Number(0, 23)]),
    ("minute", &[Kind::Number(0, 59)]),
    ("weekday", &[Kind::Number(1, 7)]),
    ("credential", &[Kind::Bytes(16)]),
    ("ticket", &[Kind::Bytes(16)]),
    ("version", &[Kind::Number(1, 1)]),
];

impl Kind {
    /// Whether a written value could ever be equal to one that the agent states.
    fn judge(self, value: &Term) -> Result<(), RuleProblem> {
        match (self, value) {
            (_, Term::Variable(_)) => Ok(()),
            (Self::Operation, Term::Str(name)) => known_operation(name),
            (Self::Operation, _) => Err(RuleProblem::UnknownOperation),
            (Self::Number(low, high), Term::Integer(number)) if (low..=high).contains(number) => Ok(()),
            (Self::Bytes(len), Term::Bytes(bytes)) if bytes.len() == len => Ok(()),
            (Self::Text, Term::Str(_)) | (Self::Date, Term::Date(_)) => Ok(()),
            (Self::SessionName, Term::Str(id)) if SessionId::new(id.as_str()).is_ok() => Ok(()),
            _ => Err(RuleProblem::ValueOutOfRange),
        }
    }
}

/// Rules that passed.
pub(super) struct OperatorRules {
    pub(super) checks: Vec<Check>,
    pub(super) denials: Vec<Policy>,
}

impl OperatorRules {
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let whole = |problem| Error::OperatorRule { rule: 0, problem };
        if text.len() > MAX_OPERATOR_RULES_LEN || depth(text) > MAX_OPERATOR_RULE_DEPTH {
            return Err(whole(RuleProblem::Syntax));
        }
        let builder = AuthorizerBuilder::new().code(text).map_err(|_| whole(RuleProblem::Syntax))?;
        let read = builder.build_unauthenticated().map_err(|_| whole(RuleProblem::Syntax))?;
        let (facts, rules, checks, denials) = read.dump();
        if !facts.is_empty() || !rules.is_empty() {
            return Err(whole(RuleProblem::NotNarrowing));
        }
        let queries = checks.iter().map(|check| &check.queries);
        let queries = queries.chain(denials.iter().map(|policy| &policy.queries));
        for (index, queries) in queries.enumerate() {
            let allows = index.checked_sub(checks.len()).and_then(|at| denials.get(at));
            let judged = match allows {
                Some(policy) if policy.kind == PolicyKind::Allow => Err(RuleProblem::NotNarrowing),
                _ => queries.iter().try_for_each(judge),
            };
            judged.map_err(|problem| Error::OperatorRule { rule: index + 1, problem })?;
        }
        Ok(Self { checks, denials })
    }

    /// Evaluates the rules against made-up facts, without a credential.
    pub(super) fn try_out(
        &self,
        state: impl FnOnce(&Sample) -> Result<AuthorizerBuilder, Failure>,
    ) -> Result<usize, Failure> {
        if self.checks.is_empty() && self.denials.is_empty() {
            return Ok(0);
        }
        let sample = Sample::new().map_err(|_| Failure::InternalError)?;
        // What a credential would state beside the agent's facts.
        let of_credential = [
            fact("version", &[Term::Integer(1)]),
            fact("credential", &[Term::Bytes(vec![1; 16])]),
            fact("ticket", &[Term::Bytes(vec![2; 16])]),
        ];
        let state = of_credential.into_iter().try_fold(state(&sample)?, AuthorizerBuilder::fact)?;
        let mut authorizer: Authorizer = state.build_unauthenticated()?;
        authorizer.authorize()
    }
}

/// How deeply brackets and negations nest at most. The engine's parser recurses on each, and a
/// stack overflow cannot be caught.
fn depth(text: &str) -> usize {
    let mut open = 0_usize;
    let mut deepest = 0;
    for character in text.chars() {
        match character {
            '(' | '[' | '{' | '!' => open += 1,
            ')' | ']' | '}' => open = open.saturating_sub(1),
            ';' => open = 0,
            _ => {}
        }
        deepest = deepest.max(open);
    }
    deepest
}

fn judge(rule: &Rule) -> Result<(), RuleProblem> {
    if !rule.scopes.is_empty() {
        return Err(RuleProblem::Unsupported);
    }
    let mut kinds = BTreeMap::new();
    let mut operations = BTreeSet::new();
    for predicate in &rule.body {
        let (_, terms) = PREDICATES
            .iter()
            .find(|(name, terms)| *name == predicate.name && terms.len() == predicate.terms.len())
            .ok_or(RuleProblem::UnknownPredicate)?;
        for (kind, value) in terms.iter().zip(&predicate.terms) {
            kind.judge(value)?;
            match value {
                Term::Variable(name) => {
                    kinds.insert(name.as_str(), *kind);
                }
                Term::Str(name) if *kind == Kind::Operation => {
                    operations.insert(name.as_str());
                }
                _ => {}
            }
        }
    }
    // Each operation is decided in a run of its own, so two at once never match.
    if operations.len() > 1 {
        return Err(RuleProblem::UnknownOperation);
    }
    rule.expressions.iter().try_for_each(|expression| judge_expression(&expression.ops, &kinds))
}

fn known_operation(name: &str) -> Result<(), RuleProblem> {
    name.parse::<Op>().map(|_| ()).map_err(|_| RuleProblem::UnknownOperation)
}

/// Judges an expression in postfix form, closures included. Where it speaks of one operation, hour,
/// minute or weekday and of no other variable, every value in it has to be one of those.
fn judge_expression(ops: &[Operator], kinds: &BTreeMap<&str, Kind>) -> Result<(), RuleProblem> {
    let flat = flatten(ops);
    let mut values = Vec::new();
    let mut spoken_of = Vec::new();
    let mut patterns = Vec::new();
    let mut previous: Option<&Operator> = None;
    for op in &flat {
        match op {
            Operator::Unary(Unary::Ffi(_)) | Operator::Binary(Binary::Ffi(_)) => {
                return Err(RuleProblem::Unsupported);
            }
            Operator::Binary(binary @ (Binary::Regex | Binary::Prefix | Binary::Suffix)) => match previous {
                Some(Operator::Value(Term::Str(pattern))) => patterns.push((binary, pattern.as_str())),
                _ => return Err(RuleProblem::Regex),
            },
            Operator::Value(Term::Variable(name)) => spoken_of.extend(kinds.get(name.as_str()).copied()),
            Operator::Value(value) => values.push(value),
            _ => {}
        }
        previous = Some(op);
    }
    let about_operations = spoken_of.contains(&Kind::Operation);
    for (binary, pattern) in &patterns {
        judge_pattern(binary, pattern, about_operations)?;
    }
    if about_operations && patterns.is_empty() {
        return values.into_iter().try_for_each(judge_operation_value);
    }
    match spoken_of.as_slice() {
        [kind @ Kind::Number(..), rest @ ..] if rest.iter().all(|other| other == kind) => {
            judge_numbers(&flat, values, *kind)
        }
        _ => Ok(()),
    }
}

/// A pattern over operations has to match at least one of them.
fn judge_pattern(binary: &Binary, pattern: &str, about_operations: bool) -> Result<(), RuleProblem> {
    let regex = match binary {
        Binary::Regex => Some(regex::Regex::new(pattern).map_err(|_| RuleProblem::Regex)?),
        _ => None,
    };
    let matches = |op: Op| match (&regex, binary) {
        (Some(regex), _) => regex.is_match(op.name()),
        (None, Binary::Prefix) => op.name().starts_with(pattern),
        (None, _) => op.name().ends_with(pattern),
    };
    if about_operations && !Op::ALL.into_iter().any(matches) {
        return Err(RuleProblem::UnknownOperation);
    }
    Ok(())
}

/// Numbers beside an hour, minute or weekday are in its range; arithmetic is left alone.
fn judge_numbers(ops: &[&Operator], values: Vec<&Term>, kind: Kind) -> Result<(), RuleProblem> {
    let arithmetic = |op: &&Operator| {
        matches!(op, Operator::Binary(Binary::Add | Binary::Sub | Binary::Mul | Binary::Div))
    };
    if ops.iter().any(arithmetic) {
        return Ok(());
    }
    let judge = |value: &Term| match value {
        Term::Set(values) => values.iter().try_for_each(|value| kind.judge(value)),
        Term::Array(values) => values.iter().try_for_each(|value| kind.judge(value)),
        Term::Bool(_) => Ok(()),
        value => kind.judge(value),
    };
    values.into_iter().try_for_each(judge)
}

fn flatten(ops: &[Operator]) -> Vec<&Operator> {
    ops.iter()
        .flat_map(|op| match op {
            Operator::Closure(_, inner) => flatten(inner),
            op => vec![op],
        })
        .collect()
}

/// Every string that is compared with an operation is an operation's name.
fn judge_operation_value(value: &Term) -> Result<(), RuleProblem> {
    match value {
        Term::Str(name) => known_operation(name),
        Term::Set(values) => values.iter().try_for_each(judge_operation_value),
        Term::Array(values) => values.iter().try_for_each(judge_operation_value),
        _ => Ok(()),
    }
}

/// Made-up facts of the right types.
pub(super) struct Sample {
    agent: AgentPublicKey,
    urls: [AgentUrl; 1],
    session: SessionId,
    peer: HolderPublicKey,
}

impl Sample {
    fn new() -> Result<Self, Error> {
        // 9 is the u-coordinate of Curve25519's base point
        let mut base = [0; 32];
        base[0] = 9;
        Ok(Self {
            agent: AgentPublicKey::from_bytes(base)?,
            urls: [AgentUrl::parse("wss://agent.example")?],
            session: SessionId::new("session")?,
            peer: HolderPublicKey::from_bytes(base)?,
        })
    }

    pub(super) fn circumstances(&self, time: Timestamp) -> Circumstances<'_> {
        Circumstances {
            agent: &self.agent,
            urls: &self.urls,
            session: &self.session,
            epoch: 1,
            peer: &self.peer,
            time,
            live: Some(LiveRecord {
                credential: CredentialId::from_bytes([1; 16]),
                ticket: TicketId::from_bytes([2; 16]),
                holder: self.peer,
            }),
        }
    }
}
