//! Runs the policy, or finds its decision on record.

use std::borrow::Cow;

use super::Inner;
use crate::agent::decision::{Decision, Decisions, Question, digest};
use crate::agent::denial::Denial;
use crate::agent::ledger::record::CredentialRecord;
use crate::agent::policy::Policy;
use crate::agent_url::AgentUrl;
use crate::clock::Timestamp;
use crate::credential::bytes::CredentialBytes;
use crate::credential::caveat::{Circumstances, LiveRecord};
use crate::credential::verify::{Credential, VerifiedCredential};
use crate::id::CredentialId;
use crate::key::AgentPublicKey;
use crate::op::OpSet;

/// Returns the hash of what the policy is told about the agent, and of the policy itself.
pub(super) fn configuration(policy: &Policy, agent: &AgentPublicKey, urls: &[AgentUrl]) -> [u8; 32] {
    let urls: Vec<String> = urls.iter().map(ToString::to_string).collect();
    let known = [policy.fingerprint().as_slice(), agent.as_bytes()];
    digest(known.into_iter().chain(urls.iter().map(String::as_bytes)))
}

/// A credential, and why the policy may be asked about it.
pub(super) enum Evidence {
    /// Its bytes are those of an edition on record, which this agent has bound itself, or of a narrowed copy whose
    /// decision is on record. With it the credential, if it was read already.
    OnRecord(CredentialBytes, Option<Box<Credential>>),
    /// Its signatures were verified.
    Verified(Box<VerifiedCredential>),
}

impl Evidence {
    pub(super) fn is_on_record(&self) -> bool {
        matches!(self, Self::OnRecord(..))
    }

    /// Reads the credential.
    pub(super) fn credential(&self) -> Result<Cow<'_, Credential>, Denial> {
        match self {
            Self::OnRecord(_, Some(credential)) => Ok(Cow::Borrowed(credential)),
            Self::OnRecord(bytes, None) => read(bytes).map(Cow::Owned),
            Self::Verified(verified) => Ok(Cow::Borrowed(verified.credential())),
        }
    }

    /// Returns the credential for the policy.
    pub(super) fn verified(self) -> Result<VerifiedCredential, Denial> {
        match self {
            Self::OnRecord(_, Some(credential)) => Ok(credential.on_record()),
            Self::OnRecord(bytes, None) => Ok(read(&bytes)?.on_record()),
            Self::Verified(verified) => Ok(*verified),
        }
    }

    /// Returns the hash of its blocks 0 and 1. What is on record was read before it was put there.
    pub(super) fn stem(&self) -> Result<[u8; 32], Denial> {
        match self {
            Self::OnRecord(bytes, _) => Credential::stem_of(bytes).ok_or(Denial::Internal),
            Self::Verified(verified) => Ok(*verified.credential().stem()),
        }
    }
}

fn read(bytes: &CredentialBytes) -> Result<Credential, Denial> {
    Credential::parse(bytes).map_err(|_| Denial::Internal)
}

impl Inner {
    /// Runs the policy. Returns which of `ops` it allows.
    pub(super) fn grant(
        &self,
        verified: &VerifiedCredential,
        record: &CredentialRecord,
        ops: OpSet,
        time: Timestamp,
    ) -> Result<OpSet, Denial> {
        let id = verified.credential().id();
        let runs = &self.core.counters().policy_runs;
        self.policy.grant(verified, &self.circumstances(&id, record, time), ops, runs)
    }

    /// Runs the policy once over all operations of a credential, and returns its decision, if it allows `ops`
    /// at least. Without operator rules only.
    pub(super) fn decide_for_the_record(
        &self,
        evidence: Evidence,
        (record, bytes): (&CredentialRecord, &[u8; 32]),
        ops: OpSet,
        time: Timestamp,
    ) -> Result<Option<Decision>, Denial> {
        let verified = evidence.verified()?;
        let scope = verified.credential().scope();
        // More than the credential has is asked so that the policy gives the reason.
        let asked = if ops.is_subset_of(scope.ops()) { scope.ops() } else { ops };
        let granted = self.grant(&verified, record, asked, time)?;
        if !ops.is_subset_of(granted) {
            return Err(Denial::PolicyDisagreement);
        }
        let id = verified.credential().id();
        let question = self.question(&id, record, bytes);
        Ok(scope.expires_at().map(|end| Decision::new(&question, granted, end)))
    }

    /// Returns the decision on record, or on its way there, about a credential with these bytes, if the policy would decide the same.
    /// Operator rules can depend on the time of day, so with them there is none.
    pub(super) fn decision_on_record(
        &self,
        id: &CredentialId,
        record: &CredentialRecord,
        bytes: &[u8; 32],
        time: Timestamp,
    ) -> Option<Decision> {
        match self.policy.has_operator_rules() {
            true => None,
            false => {
                let question = self.question(id, record, bytes);
                let owed =
                    || self.core.registry().owed(id).and_then(|seen| seen.decisions.on(&question, time));
                Decisions::read(&record.verdict).on(&question, time).or_else(owed)
            }
        }
    }

    fn question<'a>(
        &'a self,
        id: &'a CredentialId,
        record: &'a CredentialRecord,
        bytes: &'a [u8; 32],
    ) -> Question<'a> {
        Question {
            configuration: &self.configuration,
            credential: id,
            ticket: &record.ticket,
            holder: &record.holder,
            session: &record.session,
            epoch: record.epoch,
            issuer: &record.issuer,
            bytes,
        }
    }

    pub(super) fn circumstances<'a>(
        &'a self,
        id: &CredentialId,
        record: &'a CredentialRecord,
        time: Timestamp,
    ) -> Circumstances<'a> {
        Circumstances {
            agent: &self.agent,
            urls: &self.urls,
            session: &record.session,
            epoch: record.epoch,
            peer: &record.holder,
            time,
            live: Some(LiveRecord { credential: *id, ticket: record.ticket, holder: record.holder }),
        }
    }
}
