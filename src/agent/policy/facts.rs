//! Decides a request from stated facts, for a tool that explains a decision.

use biscuit_auth::error::{Logic, MatchedPolicy, Token as Failure};

use super::{LEADING_DENIALS, Policy};
use crate::agent::denial::Denial;
use crate::agent_url::AgentUrl;
use crate::clock::Timestamp;
use crate::credential::caveat::{Circumstances, LiveRecord};
use crate::credential::verify::{Credential, VerifiedCredential};
use crate::id::SessionId;
use crate::key::{AgentPublicKey, HolderPublicKey, IssuerPublicKey};
use crate::op::{Action, Op};

/// The facts of a request that an agent would state itself, stated by a caller who wants to know what the
/// policy says about them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestFacts {
    /// The agent's Noise key.
    pub agent: AgentPublicKey,
    /// The agent's addresses.
    pub urls: Vec<AgentUrl>,
    /// The session that the request is about.
    pub session: SessionId,
    /// The session's present epoch.
    pub epoch: u64,
    /// The peer's Noise key.
    pub holder: HolderPublicKey,
    /// The agent's time.
    pub time: Timestamp,
}

impl RequestFacts {
    /// Returns the facts that the credential itself asks for, at `time`: its own phone at its own agent, about
    /// its own session in the same epoch. Change the fields for other facts.
    #[must_use]
    pub fn of(credential: &Credential, time: Timestamp) -> Self {
        let (agent, url) = credential.agent();
        let binding = credential.binding();
        Self {
            agent: *agent,
            urls: vec![url.clone()],
            session: credential.session().clone(),
            epoch: binding.epoch,
            holder: binding.holder,
            time,
        }
    }
}

impl Policy {
    /// Decides one action as a gate would with these facts, for a tool that explains a decision. Verifies
    /// the signatures and runs the policy, twice for a refusal; reads and waits for nothing.
    ///
    /// The ledger is not asked: the credential's record is assumed to be live, with the phone that block 1
    /// names. A gate also refuses what was revoked or replaced, and what its phone has not asked for.
    ///
    /// # Errors
    /// Every reason to refuse it, at least one: each caveat that fails, each operator rule that forbids it, or
    /// [`Denial::CredentialSignatureInvalid`]. A gate reports the first.
    pub fn decide_with_facts(
        &self,
        credential: &Credential,
        issuer: &IssuerPublicKey,
        facts: &RequestFacts,
        action: Action,
    ) -> Result<(), Vec<Denial>> {
        let verified = credential.clone().verify(issuer);
        let verified = verified.map_err(|_| vec![Denial::CredentialSignatureInvalid])?;
        let live = LiveRecord {
            credential: credential.id(),
            ticket: credential.ticket(),
            holder: credential.binding().holder,
        };
        let circumstances = Circumstances {
            agent: &facts.agent,
            urls: &facts.urls,
            session: &facts.session,
            epoch: facts.epoch,
            peer: &facts.holder,
            time: facts.time,
            live: Some(live),
        };
        self.decide(&verified, &circumstances, action).map_err(|first| {
            let mut reasons = match action {
                Action::Session(op) => self.reasons(&verified, &circumstances, op),
                Action::Privileged(_) => Vec::new(),
            };
            reasons.retain(|reason| *reason != first);
            reasons.insert(0, first);
            reasons
        })
    }

    /// Returns every caveat and operator rule that the engine reports.
    fn reasons(
        &self,
        credential: &VerifiedCredential,
        circumstances: &Circumstances<'_>,
        op: Op,
    ) -> Vec<Denial> {
        let failure = self.evaluate(credential, circumstances, core::iter::once(op.name()));
        let Err(Failure::FailedLogic(logic)) = failure else { return Vec::new() };
        let (policy, checks) = match logic {
            Logic::Unauthorized { policy, checks } => (Some(policy), checks),
            Logic::NoMatchingPolicy { checks } => (None, checks),
            _ => return Vec::new(),
        };
        let failed = checks.iter().filter_map(|check| self.failed(check, Some(credential)));
        let denied = match policy {
            Some(MatchedPolicy::Deny(at)) => {
                at.checked_sub(LEADING_DENIALS).and_then(|at| self.denials.get(at))
            }
            _ => None,
        };
        failed.chain(denied.map(|rule| Denial::OperatorRule { rule: *rule })).collect()
    }
}
