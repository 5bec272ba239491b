//! The policy: a one-page Datalog authorizer, run beside a native check of the same scope
//! (`docs/PROTOCOL.md` section 9).
//!
//! Three layers refuse independently: code refuses a privilege before anything else; the Datalog policy
//! refuses whatever is outside the session vocabulary or a caveat; and without a live record nothing is
//! allowed. If the Datalog decision and the native scope disagree, the request is denied as
//! [`Denial::PolicyDisagreement`].

mod engine;
mod error;
mod facts;
mod operator;

use std::time::Duration;

use biscuit_auth::builder::Policy as DatalogPolicy;
use biscuit_auth::error::{FailedCheck, Logic, MatchedPolicy, Token as Failure};
use biscuit_auth::{AuthorizerBuilder, AuthorizerLimits};
use time::UtcOffset;

use crate::agent::decision;
use crate::agent::denial::Denial;
use crate::agent::stats::Counter;
use crate::credential::caveat::{Circumstances, LiveRecord};
use crate::credential::verify::{Credential, VerifiedCredential};
use crate::limits::{MAX_OPERATOR_RULES_LEN, POLICY_MAX_FACTS, POLICY_MAX_ITERATIONS, POLICY_MAX_MILLIS};
use crate::op::{Action, Op, OpSet};
use engine::{Engine, Stated, Value};
pub use error::{RuleError, RuleProblem};
pub use facts::RequestFacts;
use operator::OperatorRules;

const POLICY: &str = include_str!("policy/policy.datalog");

/// How many denials precede the operator's.
const LEADING_DENIALS: usize = 2;

/// The policy of an agent. Parsed once, usable from any thread.
///
/// Without operator rules, its decision depends only on the credential, the request and the ledger's record;
/// with them, also on the time of day.
#[derive(Debug, Clone)]
pub struct Policy {
    engine: Engine,
    /// The numbers of the operator's checks, in the engine's order.
    checks: Vec<usize>,
    denials: Vec<usize>,
    offset: UtcOffset,
    /// A hash of the text, the rules, the offset and this crate's version.
    fingerprint: [u8; 32],
}

/// Makes an empty authorizer. Only the limits of the builder apply to the whole run.
fn bounded() -> AuthorizerBuilder {
    AuthorizerBuilder::new().set_limits(AuthorizerLimits {
        max_facts: POLICY_MAX_FACTS,
        max_iterations: POLICY_MAX_ITERATIONS,
        max_time: Duration::from_millis(POLICY_MAX_MILLIS),
    })
}

impl Default for Policy {
    fn default() -> Self {
        Self::new()
    }
}

impl Policy {
    /// The authorizer's text, one page.
    pub const TEXT: &'static str = POLICY;
    /// Longest text of an operator's rules, bytes.
    pub const MAX_RULES_LEN: usize = MAX_OPERATOR_RULES_LEN;

    /// Makes the policy without operator rules.
    #[must_use]
    pub fn new() -> Self {
        Self::build("", OperatorRules::default(), UtcOffset::UTC)
    }

    /// Makes the policy with an operator's own `check` and `deny` lines, which can only narrow.
    ///
    /// In addition to the facts listed in [`Policy::TEXT`], the rules can use `hour(0..23)`, `minute(0..59)`
    /// and `weekday(1..7)`, with Monday as 1, at `offset` from UTC:
    ///
    /// ```text
    /// deny if operation("send_input"), hour($h), $h >= 22;
    /// check if weekday($d), $d <= 5 or operation("read_metadata");
    /// ```
    ///
    /// Rules are numbered in the order of the text. Each is tried on every operation and on each hour,
    /// minute, weekday and value that it could depend on, which takes milliseconds for a rule; nothing is
    /// read or waited for. The text has at most [`Policy::MAX_RULES_LEN`] bytes. The nesting, the operators,
    /// the regular expressions and the work of the rules are also bounded; a [`RuleError`] says which bound
    /// was exceeded, and its value.
    ///
    /// # Errors
    /// [`RuleError`], with the rule's number and line, if a rule would silently never fire, would widen,
    /// cannot be evaluated, or could take too long.
    pub fn with_operator_rules(rules: &str, offset: UtcOffset) -> Result<Self, RuleError> {
        Ok(Self::build(rules, OperatorRules::parse(rules)?, offset))
    }

    /// Builds the policy. If the engine rejects something that it parsed, the policy allows nothing.
    fn build(text: &str, rules: OperatorRules, offset: UtcOffset) -> Self {
        let version = env!("CARGO_PKG_VERSION").as_bytes();
        let seconds = offset.whole_seconds().to_be_bytes();
        let fingerprint = decision::digest([version, POLICY.as_bytes(), text.as_bytes(), &seconds]);
        let empty = bounded();
        let checks = rules.checks.iter().map(|(number, _)| *number).collect();
        let denials = rules.denials.iter().map(|(number, _)| *number).collect();
        let authorizer = Self::assemble(empty.clone(), rules).unwrap_or(empty);
        Self { engine: Engine::new(authorizer), checks, denials, offset, fingerprint }
    }

    fn assemble(
        mut authorizer: AuthorizerBuilder,
        rules: OperatorRules,
    ) -> Result<AuthorizerBuilder, Failure> {
        let (_, _, _, built_in) = AuthorizerBuilder::new().code(POLICY)?.build_unauthenticated()?.dump();
        let (leading, trailing) = built_in.split_at_checked(LEADING_DENIALS).unwrap_or((&built_in, &[]));
        for (_, check) in rules.checks {
            authorizer = authorizer.check(check)?;
        }
        let denials = rules.denials.into_iter().map(|(_, policy)| policy);
        for policy in leading.iter().cloned().chain(denials).chain(trailing.iter().cloned()) {
            authorizer = authorizer.policy::<DatalogPolicy>(policy)?;
        }
        Ok(authorizer)
    }

    /// Whether the decision can change with the time of day.
    #[must_use]
    pub fn has_operator_rules(&self) -> bool {
        !self.checks.is_empty() || !self.denials.is_empty()
    }

    /// Returns a hash of everything that the policy knows beforehand: of two policies that could decide
    /// differently, it differs.
    pub(crate) fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// Decides one action.
    pub(crate) fn decide(
        &self,
        credential: &VerifiedCredential,
        circumstances: &Circumstances<'_>,
        action: Action,
    ) -> Result<(), Denial> {
        match action {
            Action::Privileged(privilege) => Err(Denial::PrivilegeDenied { privilege }),
            Action::Session(op) => self.decide_in_one_run(credential, circumstances, OpSet::only(op)),
        }
    }

    /// Decides several operations in one run, all of them or none: every check on operations in a credential
    /// is a `check all`.
    fn decide_in_one_run(
        &self,
        credential: &VerifiedCredential,
        circumstances: &Circumstances<'_>,
        ops: OpSet,
    ) -> Result<(), Denial> {
        let datalog = self.run(credential, circumstances, ops.iter().map(Op::name));
        match (datalog, Self::scope_contains(credential.credential(), circumstances, ops)) {
            (Ok(()), true) => Ok(()),
            (Ok(()), false)
            | (Err(Denial::CaveatFailed { .. } | Denial::OutsideVocabulary | Denial::NoLiveRecord), true) => {
                Err(Denial::PolicyDisagreement)
            }
            (Err(denial), _) => Err(denial),
        }
    }

    /// The native check beside the engine's: whether the credential's scope contains these operations, and the
    /// record is its own.
    pub(crate) fn scope_contains(
        credential: &Credential,
        circumstances: &Circumstances<'_>,
        ops: OpSet,
    ) -> bool {
        let recorded = LiveRecord {
            credential: credential.id(),
            ticket: credential.ticket(),
            holder: *circumstances.peer,
        };
        credential.scope().contains(circumstances, ops) && circumstances.live == Some(recorded)
    }

    /// Returns which of `ops` are allowed: all, or, if an operator's rule forbids some, those that it does
    /// not forbid.
    ///
    /// With operator rules, each operation has its own run. In a common run, a rule such as `check if
    /// operation("read_metadata")` would be satisfied by one operation and let the others through.
    pub(crate) fn grant(
        &self,
        credential: &VerifiedCredential,
        circumstances: &Circumstances<'_>,
        ops: OpSet,
        runs: &Counter,
    ) -> Result<OpSet, Denial> {
        if !self.has_operator_rules() {
            runs.add_one();
            return self.decide_in_one_run(credential, circumstances, ops).map(|()| ops);
        }
        let mut granted = OpSet::EMPTY;
        let mut forbidden = Denial::NoLiveRecord;
        for op in ops.iter() {
            runs.add_one();
            match self.decide_in_one_run(credential, circumstances, OpSet::only(op)) {
                Ok(()) => granted = granted.with(op),
                Err(denial @ Denial::OperatorRule { .. }) => forbidden = denial,
                Err(denial) => return Err(denial),
            }
        }
        if granted.is_empty() { Err(forbidden) } else { Ok(granted) }
    }

    /// Runs only the Datalog layer.
    fn run<'a>(
        &self,
        credential: &VerifiedCredential,
        circumstances: &Circumstances<'_>,
        operations: impl Iterator<Item = &'a str>,
    ) -> Result<(), Denial> {
        self.evaluate(credential, circumstances, operations)
            .map_err(|failure| self.explain(failure, Some(credential)))
    }

    fn evaluate<'a>(
        &self,
        credential: &VerifiedCredential,
        circumstances: &Circumstances<'_>,
        operations: impl Iterator<Item = &'a str>,
    ) -> Result<(), Failure> {
        let urls: Vec<String> = circumstances.urls.iter().map(ToString::to_string).collect();
        let facts = self.state(circumstances, &urls, operations)?;
        self.engine.run(&facts, credential.credential().blocks())
    }

    /// Returns the facts that the agent states. `urls` are its addresses as text.
    fn state<'a, 'names: 'a>(
        &self,
        circumstances: &'a Circumstances<'_>,
        urls: &'a [String],
        operations: impl Iterator<Item = &'names str>,
    ) -> Result<Vec<Stated<'a>>, Failure> {
        let mut facts = Vec::with_capacity(24);
        let mut state = |name, values| facts.push(Stated { name, values });
        for url in urls {
            state("agent", vec![Value::Bytes(circumstances.agent.as_bytes()), Value::Text(url)]);
        }
        state("session", vec![Value::Text(circumstances.session.as_str())]);
        operations.for_each(|name| state("operation", vec![Value::Text(name)]));
        state("peer", vec![Value::Bytes(circumstances.peer.as_bytes())]);
        state("epoch", vec![Value::Integer(circumstances.epoch)]);
        state("time", vec![Value::Date(circumstances.time.seconds())]);
        if let Some(live) = &circumstances.live {
            let [id, ticket] = [live.credential.as_bytes(), live.ticket.as_bytes()].map(|id| id.as_slice());
            let holder = live.holder.as_bytes();
            state("live", vec![Value::Bytes(id), Value::Bytes(ticket), Value::Bytes(holder)]);
            state("redeemed", vec![Value::Bytes(ticket), Value::Bytes(holder)]);
        }
        if self.has_operator_rules() {
            // `None` only in the last hours of the year 9999.
            let local = circumstances.time.to_date().checked_to_offset(self.offset);
            let local = local.ok_or(Failure::InternalError)?;
            state("hour", vec![Value::Integer(local.hour().into())]);
            state("minute", vec![Value::Integer(local.minute().into())]);
            state("weekday", vec![Value::Integer(local.weekday().number_from_monday().into())]);
        }
        Ok(facts)
    }

    /// Returns the most useful reason of an engine failure. A failed caveat is preferred to a denial before
    /// it, and an operator's rule to the final `deny if true`.
    fn explain(&self, failure: Failure, credential: Option<&VerifiedCredential>) -> Denial {
        let (policy, checks) = match failure {
            Failure::RunLimit(_) => return Denial::PolicyLimit,
            Failure::FailedLogic(Logic::Unauthorized { policy, checks }) => (Some(policy), checks),
            Failure::FailedLogic(Logic::NoMatchingPolicy { checks }) => (None, checks),
            _ => return Denial::PolicyFailed,
        };
        let mut operator_rule = None;
        for check in checks {
            match self.failed(&check, credential) {
                Some(Denial::OperatorRule { rule }) => {
                    operator_rule.get_or_insert(rule);
                }
                Some(caveat) => return caveat,
                None => return Denial::PolicyDisagreement,
            }
        }
        let denied_by = |at: usize| self.denials.get(at.checked_sub(LEADING_DENIALS)?).copied();
        match (policy, operator_rule) {
            (Some(MatchedPolicy::Deny(0 | 1)), _) => Denial::OutsideVocabulary,
            (Some(MatchedPolicy::Deny(at)), check) => match denied_by(at).or(check) {
                Some(rule) => Denial::OperatorRule { rule },
                None => Denial::NoLiveRecord,
            },
            (_, Some(rule)) => Denial::OperatorRule { rule },
            (Some(MatchedPolicy::Allow(_)) | None, None) => Denial::PolicyFailed,
        }
    }

    /// Returns what a failed check says: an operator's check, or one of the credential's caveats, which follow
    /// them.
    fn failed(&self, check: &FailedCheck, credential: Option<&VerifiedCredential>) -> Option<Denial> {
        let FailedCheck::Authorizer(check) = check else { return None };
        let at = usize::try_from(check.check_id).ok()?;
        if let Some(rule) = self.checks.get(at) {
            return Some(Denial::OperatorRule { rule: *rule });
        }
        let mut caveats = credential?.credential().caveats();
        let (block, caveat) = caveats.nth(at.checked_sub(self.checks.len())?)?;
        Some(Denial::CaveatFailed { block, caveat: Box::new(caveat) })
    }

    /// Runs only the Datalog layer over a token, as the engine itself takes one, with any operation names: to
    /// show that this layer suffices, and that the engine decides the same from the blocks alone.
    #[cfg(test)]
    fn run_token(
        &self,
        token: &biscuit_auth::Biscuit,
        circumstances: &Circumstances<'_>,
        names: &[&str],
    ) -> Result<(), Failure> {
        let urls: Vec<String> = circumstances.urls.iter().map(ToString::to_string).collect();
        let facts = self.state(circumstances, &urls, names.iter().copied())?;
        self.engine.run_token(&facts, token)
    }
}

#[cfg(all(test, feature = "issuer", feature = "attenuate"))]
mod tests;
