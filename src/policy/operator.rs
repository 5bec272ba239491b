//! An operator's own rules: read, judged, tried out, before the agent starts.
//!
//! A rule that can never fire is worse than none, because its author relies on it. The engine would
//! accept `operation("sned_input")`, an unknown predicate, or a regular expression that does not
//! compile, and quietly match nothing. Here each of them is an error.

use std::collections::BTreeSet;

use biscuit_auth::builder::{
    Binary, Check, Op as Operator, Policy, PolicyKind, Predicate, Rule, Term, Unary,
};
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

/// Every predicate that a run can hold, with its number of terms.
const PREDICATES: [(&str, usize); 14] = [
    ("agent", 2),
    ("session", 1),
    ("operation", 1),
    ("peer", 1),
    ("epoch", 1),
    ("time", 1),
    ("live", 3),
    ("redeemed", 2),
    ("hour", 1),
    ("minute", 1),
    ("weekday", 1),
    ("credential", 1),
    ("ticket", 1),
    ("version", 1),
];

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
        let mut authorizer: Authorizer = state(&sample)?.build_unauthenticated()?;
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
    let mut operation_variables = BTreeSet::new();
    for predicate in &rule.body {
        judge_predicate(predicate)?;
        if let ("operation", [Term::Variable(name)]) = (predicate.name.as_str(), predicate.terms.as_slice()) {
            operation_variables.insert(name.as_str());
        }
    }
    rule.expressions.iter().try_for_each(|expression| judge_expression(&expression.ops, &operation_variables))
}

fn judge_predicate(predicate: &Predicate) -> Result<(), RuleProblem> {
    let known = PREDICATES.contains(&(predicate.name.as_str(), predicate.terms.len()));
    if !known {
        return Err(RuleProblem::UnknownPredicate);
    }
    match (predicate.name.as_str(), predicate.terms.as_slice()) {
        ("operation", [Term::Str(name)]) => known_operation(name),
        ("operation", [Term::Variable(_)]) => Ok(()),
        ("operation", _) => Err(RuleProblem::UnknownOperation),
        ("hour", [Term::Integer(value)]) => in_range(*value, 0, 23),
        ("minute", [Term::Integer(value)]) => in_range(*value, 0, 59),
        ("weekday", [Term::Integer(value)]) => in_range(*value, 1, 7),
        ("hour" | "minute" | "weekday", [Term::Variable(_)]) => Ok(()),
        ("hour" | "minute" | "weekday", _) => Err(RuleProblem::ValueOutOfRange),
        _ => Ok(()),
    }
}

fn in_range(value: i64, low: i64, high: i64) -> Result<(), RuleProblem> {
    if (low..=high).contains(&value) { Ok(()) } else { Err(RuleProblem::ValueOutOfRange) }
}

fn known_operation(name: &str) -> Result<(), RuleProblem> {
    name.parse::<Op>().map(|_| ()).map_err(|_| RuleProblem::UnknownOperation)
}

/// Judges an expression in postfix form, closures included.
fn judge_expression(ops: &[Operator], operation_variables: &BTreeSet<&str>) -> Result<(), RuleProblem> {
    let flat = flatten(ops);
    let partial =
        flat.iter().any(|op| matches!(op, Operator::Binary(Binary::Regex | Binary::Prefix | Binary::Suffix)));
    let about_operations = flat.iter().any(|op| {
        matches!(op, Operator::Value(Term::Variable(name)) if operation_variables.contains(name.as_str()))
    });
    let mut previous: Option<&Operator> = None;
    for op in &flat {
        match op {
            Operator::Unary(Unary::Ffi(_)) | Operator::Binary(Binary::Ffi(_)) => {
                return Err(RuleProblem::Unsupported);
            }
            Operator::Binary(Binary::Regex) => match previous {
                Some(Operator::Value(Term::Str(pattern))) => {
                    regex::Regex::new(pattern).map_err(|_| RuleProblem::Regex)?;
                }
                _ => return Err(RuleProblem::Regex),
            },
            Operator::Value(value) if about_operations && !partial => judge_value(value)?,
            _ => {}
        }
        previous = Some(op);
    }
    Ok(())
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
fn judge_value(value: &Term) -> Result<(), RuleProblem> {
    match value {
        Term::Str(name) => known_operation(name),
        Term::Set(values) => values.iter().try_for_each(judge_value),
        Term::Array(values) => values.iter().try_for_each(judge_value),
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
