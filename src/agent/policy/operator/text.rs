//! Splits an operator's text into statements, and measures each before the engine parses it: the parser
//! recurses on brackets, negations and operators, and a stack overflow cannot be caught.
//!
//! Each statement is parsed alone, because the engine's parser for whole texts continues after an error at an
//! unpredictable position.

use crate::agent::policy::error::{RuleError, RuleProblem};
use crate::limits::{MAX_OPERATOR_RULE_DEPTH, MAX_OPERATOR_RULE_OPERATORS, MAX_OPERATOR_RULES_LEN};

/// One statement without its semicolon.
#[derive(Debug, Clone, Copy)]
pub(super) struct Statement<'a> {
    pub(super) text: &'a str,
    /// Counted from 1.
    pub(super) number: usize,
    /// Its start in the whole text, bytes.
    start: usize,
    whole: &'a str,
}

impl Statement<'_> {
    pub(super) fn error(&self, problem: RuleProblem) -> RuleError {
        self.error_at(0, problem)
    }

    /// Makes an error at a byte of the statement.
    pub(super) fn error_at(&self, at: usize, problem: RuleProblem) -> RuleError {
        RuleError::new(self.number, place(self.whole, self.start.saturating_add(at)), problem)
    }
}

/// Returns the line and the column of a byte.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or(before);
    (before.matches('\n').count().saturating_add(1), line.chars().count().saturating_add(1))
}

/// Returns the statements of a text, without the comments between them.
pub(super) fn statements(text: &str) -> Result<Vec<Statement<'_>>, RuleError> {
    if text.len() > MAX_OPERATOR_RULES_LEN {
        return Err(RuleError::new(0, (1, 1), RuleProblem::TooLong));
    }
    let mut found = Vec::new();
    let mut start = 0;
    loop {
        start = skip_blank(text, start).map_err(|at| {
            RuleError::new(found.len().saturating_add(1), place(text, at), RuleProblem::Syntax)
                .because("a comment does not end")
        })?;
        let rest = text.get(start..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(found);
        }
        let whole = Statement { text: rest, number: found.len().saturating_add(1), start, whole: text };
        let len = measure(&whole)?;
        found.push(Statement { text: rest.get(..len).unwrap_or(rest), ..whole });
        start = start.saturating_add(len).saturating_add(1);
    }
}

/// Returns the start of the next statement, or the position of an unterminated comment.
fn skip_blank(text: &str, mut at: usize) -> Result<usize, usize> {
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        at += blank;
        let rest = rest.get(blank..).unwrap_or_default();
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            at += rest.find("*/").ok_or(at)? + 2;
        } else {
            return Ok(at);
        }
    }
}

/// Returns the length of the statement at the start of the text.
fn measure(statement: &Statement<'_>) -> Result<usize, RuleError> {
    let (mut open, mut negations, mut operators) = (0_usize, 0_usize, 0_usize);
    let mut characters = statement.text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => loop {
                match characters.next() {
                    Some((_, '"')) => break,
                    Some((_, '\\')) => drop(characters.next()),
                    Some(_) => {}
                    None => {
                        let error = statement.error_at(at, RuleProblem::Syntax);
                        return Err(error.because("a string does not end"));
                    }
                }
            },
            ';' => return Ok(at),
            '(' | '[' | '{' => open += 1,
            ')' | ']' | '}' => open = open.saturating_sub(1),
            '!' if characters.peek().is_none_or(|(_, next)| *next != '=') => negations += 1,
            '+' | '-' | '*' | '/' | '&' | '|' | '^' | '<' | '>' | '=' | '!' | '.' => operators += 1,
            _ => {}
        }
        if open.saturating_add(negations) > MAX_OPERATOR_RULE_DEPTH {
            return Err(statement.error_at(at, RuleProblem::TooDeep));
        }
        if operators > MAX_OPERATOR_RULE_OPERATORS {
            return Err(statement.error_at(at, RuleProblem::TooComplex));
        }
    }
    Ok(statement.text.len())
}
