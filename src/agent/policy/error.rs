//! The errors of an operator's rules.

use thiserror::Error;

use crate::limits::{
    MAX_OPERATOR_RULE_DEPTH, MAX_OPERATOR_RULE_OPERATORS, MAX_OPERATOR_RULES_LEN, MAX_OPERATOR_RULES_WORK,
};

/// The reason why an operator's rules are refused: which rule, its position, and the problem.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("operator rule {rule}, line {line}, column {column}: {problem}")]
pub struct RuleError {
    rule: usize,
    line: usize,
    column: usize,
    problem: RuleProblem,
    source: Option<Cause>,
}

/// The message of the engine's parser or of the regular expression compiler.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
struct Cause(String);

impl RuleError {
    pub(super) fn new(rule: usize, (line, column): (usize, usize), problem: RuleProblem) -> Self {
        Self { rule, line, column, problem, source: None }
    }

    pub(super) fn because(mut self, cause: impl ToString) -> Self {
        self.source = Some(Cause(cause.to_string()));
        self
    }

    /// Returns the rule's number, counted from 1 in the order of the text, as in
    /// [`Denial::OperatorRule`](crate::agent::Denial).
    #[must_use]
    pub fn rule(&self) -> usize {
        self.rule
    }

    /// Returns the line on which the rule begins, or on which parsing failed; counted from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// Returns the column in that line, in characters, counted from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.column
    }

    /// Returns the problem.
    #[must_use]
    pub fn problem(&self) -> RuleProblem {
        self.problem
    }

    /// Returns a stable name for programs and logs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.problem.code()
    }
}

/// The problem with an operator's rule. Most of these would otherwise make it fire never, or always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RuleProblem {
    /// The rule is not Datalog, or does not end with a semicolon.
    #[error("it is not a readable `check`, `reject` or `deny` line; see the cause")]
    Syntax,
    /// The whole text is longer than [`MAX_OPERATOR_RULES_LEN`] bytes.
    #[error("the rules have more than {MAX_OPERATOR_RULES_LEN} bytes; shorten them")]
    TooLong,
    /// Brackets and negations nest deeper than [`MAX_OPERATOR_RULE_DEPTH`].
    #[error("it nests more than {MAX_OPERATOR_RULE_DEPTH} brackets and negations; split it")]
    TooDeep,
    /// More than [`MAX_OPERATOR_RULE_OPERATORS`] characters of operators in one rule, or, in all rules
    /// together, more than [`MAX_OPERATOR_RULES_WORK`] steps for one decision.
    #[error(
        "it takes too many operators (at most {MAX_OPERATOR_RULE_OPERATORS}) or steps (all rules together \
         at most {MAX_OPERATOR_RULES_WORK}); use fewer closures or smaller sets"
    )]
    TooComplex,
    /// The rule is an `allow`, a fact or a rule, but operators can only narrow.
    #[error("only `check`, `reject` and `deny` lines may stand here")]
    NotNarrowing,
    /// The agent does not state this predicate, or states it with another number of terms.
    #[error("it uses a predicate that is never stated")]
    UnknownPredicate,
    /// A name that is compared with an operation is not an operation's.
    #[error("it names an operation that does not exist")]
    UnknownOperation,
    /// An hour, minute or weekday is out of range, or a value has another type than the fact's.
    #[error(
        "a value cannot be the fact's: hours are 0 to 23, minutes 0 to 59, weekdays 1 (monday) to 7, keys \
         `hex:` and 64 digits"
    )]
    ValueOutOfRange,
    /// A regular expression does not compile, is too large, or is not a literal string.
    #[error("its pattern is not a string in the rule, or does not compile to a small regular expression")]
    Regex,
    /// The rule uses a scope, a parameter or an external function.
    #[error("scopes, parameters and external functions are not used here")]
    Unsupported,
    /// An expression fails when it is evaluated, for example because it compares a number with a string.
    #[error("its expression cannot be evaluated; see the cause")]
    Evaluation,
    /// The rule fires for no hour, operation or value that it names.
    #[error("it can never fire; take it out or mend its conditions")]
    NeverFires,
}

impl RuleProblem {
    /// Returns a stable name for programs and logs.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::TooLong => "too_long",
            Self::TooDeep => "too_deep",
            Self::TooComplex => "too_complex",
            Self::NotNarrowing => "not_narrowing",
            Self::UnknownPredicate => "unknown_predicate",
            Self::UnknownOperation => "unknown_operation",
            Self::ValueOutOfRange => "value_out_of_range",
            Self::Regex => "regex",
            Self::Unsupported => "unsupported",
            Self::Evaluation => "evaluation",
            Self::NeverFires => "never_fires",
        }
    }
}
