//! Tries a rule before the agent starts: on every operation, on each hour, minute and weekday that can make a
//! difference, and on each literal in the rule.
//!
//! This finds expressions that cannot be evaluated, which would otherwise fail at runtime, and rules that
//! never fire. An expression over a value that is not enumerated here (a pattern over session ids, arithmetic
//! with a time) is assumed to be satisfiable.

use std::collections::{BTreeMap, BTreeSet};

use biscuit_auth::AuthorizerBuilder;
use biscuit_auth::builder::{
    Binary, Check, CheckKind, Expression, Op as Operator, Policy, Rule, Term, Unary, fact,
};
use biscuit_auth::error::Token as Failure;

use super::{Kind, Narrowing, flatten, kinds_of, literals};
use crate::agent::policy::bounded;
use crate::agent::policy::error::RuleProblem;
use crate::agent_url::AgentUrl;
use crate::id::SessionId;
use crate::op::Op;

/// The approximate steps of one rule's trial: a costly rule has fewer runs.
const MOST_STEPS: u64 = 1_000_000;
/// The most runs of one rule. A rule with more combinations is tried on this many of them, evenly spread, and
/// is not refused for never firing.
const MOST_RUNS: usize = 4_096;
/// A second in the year 2026, for rules without a time.
const SOME_TIME: u64 = 1_780_000_000;

/// A value that varies between runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Dimension {
    Operation,
    Hour,
    Minute,
    Weekday,
    Session,
    Url,
    Agent,
    Peer,
    Credential,
    Ticket,
    Epoch,
    Time,
}

/// The values of each dimension.
type Values = BTreeMap<Dimension, Vec<Term>>;

/// Evaluates the rule; returns its problem and, for a failed evaluation, the engine's message. `work` is the
/// most steps of one run.
pub(super) fn try_out(rule: &Narrowing, work: u64) -> Result<(), (RuleProblem, String)> {
    let queries = rule.queries();
    let values = values(queries);
    let combinations = values.values().fold(1_usize, |product, values| product.saturating_mul(values.len()));
    let affordable = usize::try_from(MOST_STEPS.checked_div(work).unwrap_or(MOST_STEPS)).unwrap_or(MOST_RUNS);
    let runs = combinations.min(MOST_RUNS).min(affordable.max(1));
    let weakened = rule.weakened();
    let mut fires = combinations > runs || rule.may_fail_unseen();
    for run in 0..runs {
        let nth = run.saturating_mul(combinations).checked_div(runs).unwrap_or(0);
        let sample = sample(&values, nth);
        fires |= fires_on(rule, &sample)?;
        if let Some(weakened) = &weakened {
            // The parts left out here were evaluated above.
            fires |= fires_on(weakened, &sample)?;
        }
    }
    if fires { Ok(()) } else { Err((RuleProblem::NeverFires, String::new())) }
}

/// Returns one value of each dimension.
fn sample(values: &Values, mut nth: usize) -> BTreeMap<Dimension, &Term> {
    let mut sample = BTreeMap::new();
    for (dimension, values) in values {
        if let Some(value) = nth.checked_rem(values.len()).and_then(|at| values.get(at)) {
            sample.insert(*dimension, value);
        }
        nth = nth.checked_div(values.len()).unwrap_or(0);
    }
    sample
}

fn fires_on(rule: &Narrowing, sample: &BTreeMap<Dimension, &Term>) -> Result<bool, (RuleProblem, String)> {
    match run(rule, sample) {
        Ok(_) => Ok(false),
        Err(Failure::FailedLogic(_)) => Ok(true),
        Err(failure @ Failure::RunLimit(_)) => Err((RuleProblem::TooComplex, failure.to_string())),
        Err(failure) => Err((RuleProblem::Evaluation, failure.to_string())),
    }
}

fn run(rule: &Narrowing, sample: &BTreeMap<Dimension, &Term>) -> Result<usize, Failure> {
    use Dimension::*;
    let value = |dimension: Dimension| sample.get(&dimension).map_or(Term::Null, |term| (*term).clone());
    let facts = [
        fact("agent", &[value(Agent), value(Url)]),
        fact("session", &[value(Session)]),
        fact("operation", &[value(Operation)]),
        fact("peer", &[value(Peer)]),
        fact("epoch", &[value(Epoch)]),
        fact("time", &[value(Time)]),
        fact("live", &[value(Credential), value(Ticket), value(Peer)]),
        fact("redeemed", &[value(Ticket), value(Peer)]),
        fact("hour", &[value(Hour)]),
        fact("minute", &[value(Minute)]),
        fact("weekday", &[value(Weekday)]),
        fact("credential", &[value(Credential)]),
        fact("ticket", &[value(Ticket)]),
        fact("version", &[Term::Integer(1)]),
    ];
    let builder = facts.into_iter().try_fold(bounded(), AuthorizerBuilder::fact)?;
    let builder = match rule {
        Narrowing::Check(check) => builder.check(check.clone())?,
        Narrowing::Denial(policy) => builder.policy(policy.clone())?,
    };
    builder.policy("allow if true")?.build_unauthenticated()?.authorize()
}

/// Returns the values to vary: for each dimension in the rule, those that could make a difference.
fn values(queries: &[Rule]) -> Values {
    use Dimension::*;
    let predicates: BTreeSet<&str> =
        queries.iter().flat_map(|query| &query.body).map(|predicate| predicate.name.as_str()).collect();
    let named = literals(queries);
    let numbers: BTreeSet<i64> = named
        .iter()
        .filter_map(|term| if let Term::Integer(number) = term { Some(*number) } else { None })
        .flat_map(|number| (-3..=3).map(move |by| number.saturating_add(by)))
        .collect();
    let computes = queries
        .iter()
        .flat_map(|query| &query.expressions)
        .any(|e| flatten(&e.ops).into_iter().any(is_computing));
    let range = |low: i64, high: i64| -> Vec<Term> {
        let matters =
            |number: &i64| computes || *number == low || *number == high || numbers.contains(number);
        (low..=high).filter(matters).map(Term::Integer).collect()
    };
    let bytes = |len: usize, own: u8| {
        let others = named.iter().filter(|term| matches!(term, Term::Bytes(bytes) if bytes.len() == len));
        core::iter::once(Term::Bytes(vec![own; len]))
            .chain(others.map(|term| (*term).clone()))
            .collect::<Vec<_>>()
    };
    let texts = |own: &str, fits: fn(&str) -> bool| {
        let others = named.iter().filter(|term| matches!(term, Term::Str(text) if fits(text)));
        core::iter::once(Term::Str(own.to_owned()))
            .chain(others.map(|term| (*term).clone()))
            .collect::<Vec<_>>()
    };
    let mut dates = BTreeSet::from([SOME_TIME]);
    dates.extend(
        named
            .iter()
            .filter_map(|term| if let Term::Date(at) = term { Some(*at) } else { None })
            .flat_map(|at| [at.saturating_sub(1), at, at.saturating_add(1)]),
    );
    let mut epochs = BTreeSet::from([1]);
    epochs.extend(numbers.iter().copied().filter(|number| *number >= 0));
    let needs = |dimension: Dimension| match dimension {
        Operation => predicates.contains("operation"),
        Hour => predicates.contains("hour"),
        Minute => predicates.contains("minute"),
        Weekday => predicates.contains("weekday"),
        Session => predicates.contains("session"),
        Url | Agent => predicates.contains("agent"),
        Peer => ["peer", "live", "redeemed"].iter().any(|name| predicates.contains(name)),
        Credential => ["credential", "live"].iter().any(|name| predicates.contains(name)),
        Ticket => ["ticket", "live", "redeemed"].iter().any(|name| predicates.contains(name)),
        Epoch => predicates.contains("epoch"),
        Time => predicates.contains("time"),
    };
    let all = [
        (Operation, Op::ALL.iter().copied().map(|op| Term::Str(op.name().to_owned())).collect()),
        (Hour, range(0, 23)),
        (Minute, range(0, 59)),
        (Weekday, range(1, 7)),
        (Session, texts("session", |text| SessionId::new(text).is_ok())),
        (Url, texts("wss://agent.example", |text| AgentUrl::parse(text).is_ok())),
        (Agent, bytes(32, 9)),
        (Peer, bytes(32, 8)),
        (Credential, bytes(16, 1)),
        (Ticket, bytes(16, 2)),
        (Epoch, epochs.into_iter().map(Term::Integer).collect()),
        (Time, dates.into_iter().map(Term::Date).collect()),
    ];
    let vary = |(dimension, values): (Dimension, Vec<Term>)| {
        let most = if needs(dimension) { usize::MAX } else { 1 };
        (dimension, values.into_iter().take(most).collect())
    };
    all.into_iter().map(vary).collect()
}

fn is_computing(op: &Operator) -> bool {
    use Binary::*;
    matches!(
        op,
        Operator::Binary(Add | Sub | Mul | Div | BitwiseAnd | BitwiseOr | BitwiseXor | Get | Regex)
            | Operator::Unary(Unary::Length | Unary::TypeOf)
    )
}

/// Whether an expression computes with a value that the trial does not enumerate.
fn is_open(query: &Rule, expression: &Expression) -> bool {
    let kinds = kinds_of(query);
    let flat = flatten(&expression.ops);
    let of_open_kind = |op: &&Operator| match op {
        Operator::Value(Term::Variable(name)) => match kinds.get(name.as_str()) {
            None | Some(Kind::Operation) => false,
            Some(Kind::Number(_, high)) => *high == i64::MAX,
            Some(_) => true,
        },
        _ => false,
    };
    flat.iter().any(of_open_kind) && flat.into_iter().any(is_computing)
}

impl Narrowing {
    /// Returns a denial without the expressions over values that are not enumerated, or `None` if it has
    /// none.
    fn weakened(&self) -> Option<Self> {
        let without = |queries: &[Rule]| -> Option<Vec<Rule>> {
            let open = |query: &Rule| query.expressions.iter().any(|expression| is_open(query, expression));
            queries.iter().any(open).then(|| {
                let close = |query: &Rule| {
                    let mut closed = query.clone();
                    closed.expressions.retain(|expression| !is_open(query, expression));
                    closed
                };
                queries.iter().map(close).collect()
            })
        };
        match self {
            Self::Denial(policy) => without(&policy.queries)
                .map(|queries| Self::Denial(Policy { queries, kind: policy.kind.clone() })),
            Self::Check(check) if check.kind == CheckKind::Reject => without(&check.queries)
                .map(|queries| Self::Check(Check { queries, kind: check.kind.clone() })),
            Self::Check(_) => None,
        }
    }

    /// Whether it is a check with an expression that such a value could fail.
    fn may_fail_unseen(&self) -> bool {
        match self {
            Self::Check(check) if check.kind != CheckKind::Reject => {
                check.queries.iter().any(|query| query.expressions.iter().any(|e| is_open(query, e)))
            }
            _ => false,
        }
    }
}
