//! An operator's own rules: parsed, checked and tried before the agent starts.
//!
//! A rule that can never fire is dangerous, because its author relies on it. The engine would accept
//! `operation("sned_input")`, an unknown predicate, or a regular expression that does not compile, and match
//! nothing without an error. Here each of them is an error.

mod text;
mod trial;

use std::collections::BTreeMap;

use biscuit_auth::builder::{
    Binary, Check, Fact, MapKey, Op as Operator, Policy, PolicyKind, Rule, Term, Unary,
};
use biscuit_auth::error::Token as Failure;
use biscuit_parser::error::LanguageError;

use super::error::{RuleError, RuleProblem};
use crate::id::SessionId;
use crate::limits::{MAX_OPERATOR_REGEX_SIZE, MAX_OPERATOR_RULES_WORK};
use crate::op::Op;
use text::{Statement, statements};

/// The kind of a term in a predicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bytes(usize),
    Text,
    SessionName,
    Operation,
    Date,
    Number(i64, i64),
}

/// Every predicate of a run, with its terms.
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
    /// Checks that a literal could equal a value that the agent states.
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

/// A statement that can only narrow.
#[derive(Debug, Clone)]
pub(super) enum Narrowing {
    Check(Check),
    Denial(Policy),
}

impl Narrowing {
    fn queries(&self) -> &[Rule] {
        match self {
            Self::Check(check) => &check.queries,
            Self::Denial(policy) => &policy.queries,
        }
    }

    fn parse(statement: &Statement<'_>) -> Result<Self, RuleError> {
        let text = statement.text;
        let begins =
            |word: &str| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        let read = if begins("check ") || begins("reject ") {
            Check::try_from(text).map(Self::Check)
        } else if begins("deny ") || begins("allow ") {
            Policy::try_from(text).map(Self::Denial)
        } else if Fact::try_from(text).is_ok() || Rule::try_from(text).is_ok() {
            return Err(statement.error(RuleProblem::NotNarrowing));
        } else {
            return Err(statement.error(RuleProblem::Syntax));
        };
        match read {
            Ok(Self::Denial(policy)) if policy.kind == PolicyKind::Allow => {
                Err(statement.error(RuleProblem::NotNarrowing))
            }
            Ok(read) => Ok(read),
            Err(failure) => {
                let (at, said) = where_it_failed(text, &failure);
                Err(statement.error_at(at, RuleProblem::Syntax).because(said))
            }
        }
    }
}

/// Returns the position and message of the engine's parse error.
fn where_it_failed(text: &str, failure: &Failure) -> (usize, String) {
    match failure {
        Failure::Language(LanguageError::ParseError(errors)) => match errors.errors.first() {
            Some(error) => {
                let rest = error.input.as_str();
                let at = if rest.is_empty() { text.len() } else { text.rfind(rest).unwrap_or(0) };
                (at, error.message.clone().unwrap_or_else(|| format!("cannot read on at {rest:?}")))
            }
            None => (0, failure.to_string()),
        },
        failure => (0, failure.to_string()),
    }
}

/// Accepted rules, each with its number in the text.
#[derive(Default)]
pub(super) struct OperatorRules {
    pub(super) checks: Vec<(usize, Check)>,
    pub(super) denials: Vec<(usize, Policy)>,
}

impl OperatorRules {
    /// Parses, checks and tries the rules.
    pub(super) fn parse(text: &str) -> Result<Self, RuleError> {
        let mut rules = Self::default();
        let mut work = 0_u64;
        for statement in statements(text)? {
            let rule = Narrowing::parse(&statement)?;
            for query in rule.queries() {
                judge(query).map_err(|(problem, cause)| match cause {
                    Some(cause) => statement.error(problem).because(cause),
                    None => statement.error(problem),
                })?;
            }
            let own = rule.queries().iter().map(work_of).fold(0, u64::saturating_add);
            work = work.saturating_add(own);
            if work > MAX_OPERATOR_RULES_WORK {
                return Err(statement.error(RuleProblem::TooComplex));
            }
            trial::try_out(&rule, own).map_err(|(problem, cause)| match cause.is_empty() {
                true => statement.error(problem),
                false => statement.error(problem).because(cause),
            })?;
            match rule {
                Narrowing::Check(check) => rules.checks.push((statement.number, check)),
                Narrowing::Denial(policy) => rules.denials.push((statement.number, policy)),
            }
        }
        Ok(rules)
    }
}

/// Returns the most steps of one evaluation, because the engine's own limit does not interrupt an expression.
/// A closure counts once for each element anywhere in the rule.
fn work_of(query: &Rule) -> u64 {
    let elements = query
        .expressions
        .iter()
        .flat_map(|expression| flatten(&expression.ops))
        .map(|op| if let Operator::Value(term) = op { size(term) } else { 0 })
        .fold(1_u64, u64::saturating_add);
    let predicates = u64::try_from(query.body.len()).unwrap_or(u64::MAX);
    let expressions = query.expressions.iter().map(|expression| steps(&expression.ops, elements));
    expressions.fold(predicates, u64::saturating_add)
}

fn steps(ops: &[Operator], elements: u64) -> u64 {
    let step = |op: &Operator| match op {
        Operator::Closure(parameters, inner) if parameters.is_empty() => steps(inner, elements),
        Operator::Closure(_, inner) => elements.saturating_mul(steps(inner, elements)),
        Operator::Value(term) => size(term),
        _ => 1,
    };
    ops.iter().map(step).fold(0, u64::saturating_add)
}

/// Returns the number of values in a term.
fn size(term: &Term) -> u64 {
    parts(term).into_iter().fold(1, |sum, part| size(part).saturating_add(sum))
}

fn parts(term: &Term) -> Vec<&Term> {
    match term {
        Term::Set(parts) => parts.iter().collect(),
        Term::Array(parts) => parts.iter().collect(),
        Term::Map(parts) => parts.values().collect(),
        _ => Vec::new(),
    }
}

/// Returns every literal in the queries, including those in sets, arrays and maps.
fn literals(queries: &[Rule]) -> Vec<&Term> {
    let in_predicates = queries.iter().flat_map(|query| &query.body).flat_map(|predicate| &predicate.terms);
    let ops = queries.iter().flat_map(|query| &query.expressions).flat_map(|e| flatten(&e.ops));
    let in_expressions = ops.filter_map(|op| if let Operator::Value(term) = op { Some(term) } else { None });
    let mut waiting: Vec<&Term> = in_predicates.chain(in_expressions).collect();
    let mut found = Vec::new();
    while let Some(term) = waiting.pop() {
        waiting.extend(parts(term));
        found.push(term);
    }
    found
}

/// Returns the kind of each variable in a query.
fn kinds_of(query: &Rule) -> BTreeMap<&str, Kind> {
    let mut kinds = BTreeMap::new();
    for predicate in &query.body {
        let known = PREDICATES.iter().find(|(name, _)| *name == predicate.name);
        for (kind, value) in known.into_iter().flat_map(|(_, kinds)| *kinds).zip(&predicate.terms) {
            if let Term::Variable(name) = value {
                kinds.insert(name.as_str(), *kind);
            }
        }
    }
    kinds
}

/// The problem, and for a pattern its cause.
type Judgement = Result<(), (RuleProblem, Option<String>)>;

fn judge(rule: &Rule) -> Judgement {
    let problem = |problem| (problem, None);
    let parameters = |term: &&Term| match term {
        Term::Parameter(_) => true,
        Term::Map(map) => map.keys().any(|key| matches!(key, MapKey::Parameter(_))),
        _ => false,
    };
    if !rule.scopes.is_empty() || literals(std::slice::from_ref(rule)).iter().any(parameters) {
        return Err(problem(RuleProblem::Unsupported));
    }
    for predicate in &rule.body {
        let (_, terms) = PREDICATES
            .iter()
            .find(|(name, terms)| *name == predicate.name && terms.len() == predicate.terms.len())
            .ok_or(problem(RuleProblem::UnknownPredicate))?;
        for (kind, value) in terms.iter().zip(&predicate.terms) {
            kind.judge(value).map_err(problem)?;
        }
    }
    let kinds = kinds_of(rule);
    rule.expressions.iter().try_for_each(|expression| judge_expression(&expression.ops, &kinds))
}

fn known_operation(name: &str) -> Result<(), RuleProblem> {
    name.parse::<Op>().map(|_| ()).map_err(|_| RuleProblem::UnknownOperation)
}

/// Checks an expression in postfix form, including closures. If it is about one operation, hour, minute or
/// weekday and no other variable, every literal in it must be one of those.
fn judge_expression(ops: &[Operator], kinds: &BTreeMap<&str, Kind>) -> Judgement {
    let flat = flatten(ops);
    let mut values = Vec::new();
    let mut spoken_of = Vec::new();
    let mut patterns = Vec::new();
    let mut has_patterns_of_variables = false;
    let mut previous: Option<&Operator> = None;
    for op in &flat {
        match op {
            Operator::Unary(Unary::Ffi(_)) | Operator::Binary(Binary::Ffi(_)) => {
                return Err((RuleProblem::Unsupported, None));
            }
            Operator::Binary(binary @ (Binary::Regex | Binary::Prefix | Binary::Suffix)) => match previous {
                Some(Operator::Value(Term::Str(pattern))) => patterns.push((binary, pattern.as_str())),
                _ if *binary == Binary::Regex => return Err((RuleProblem::Regex, None)),
                _ => has_patterns_of_variables = true,
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
    if about_operations && patterns.is_empty() && !has_patterns_of_variables {
        return values.into_iter().try_for_each(judge_operation_value).map_err(|problem| (problem, None));
    }
    match spoken_of.as_slice() {
        [kind @ Kind::Number(..), rest @ ..] if rest.iter().all(|other| other == kind) => {
            judge_numbers(&flat, values, *kind).map_err(|problem| (problem, None))
        }
        _ => Ok(()),
    }
}

/// Checks that a pattern over operations matches at least one of them.
fn judge_pattern(binary: &Binary, pattern: &str, about_operations: bool) -> Judgement {
    // The engine compiles it for every evaluation.
    let compile = || regex::RegexBuilder::new(pattern).size_limit(MAX_OPERATOR_REGEX_SIZE).build();
    let regex = match binary {
        Binary::Regex => Some(compile().map_err(|error| (RuleProblem::Regex, Some(error.to_string())))?),
        _ => None,
    };
    let matches = |op: Op| match (&regex, binary) {
        (Some(regex), _) => regex.is_match(op.name()),
        (None, Binary::Prefix) => op.name().starts_with(pattern),
        (None, _) => op.name().ends_with(pattern),
    };
    if about_operations && !Op::ALL.iter().copied().any(matches) {
        return Err((RuleProblem::UnknownOperation, None));
    }
    Ok(())
}

/// Checks that numbers beside an hour, minute or weekday are in its range; arithmetic is not checked.
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

/// Checks that a string that is compared with an operation is an operation's name.
fn judge_operation_value(value: &Term) -> Result<(), RuleProblem> {
    match value {
        Term::Str(name) => known_operation(name),
        Term::Set(values) => values.iter().try_for_each(judge_operation_value),
        Term::Array(values) => values.iter().try_for_each(judge_operation_value),
        _ => Ok(()),
    }
}
