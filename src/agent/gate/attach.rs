//! Decides what a phone with a verified credential is granted.

use std::sync::Arc;

use super::Inner;
use super::activate::{AdmittedEditions, Judged, Pending, PendingGuard};
use super::context::Shared;
use super::grant::Evidence;
use super::prove::{ProvenCredential, Refusal};
use crate::agent::denial::Denial;
use crate::agent::ledger::kept::Kept;
use crate::agent::ledger::record::CredentialRecord;
use crate::agent::ledger::transition::ContextAnswer;
use crate::agent::policy::Policy;
use crate::clock::{Now, Timestamp};
use crate::credential::bytes::CredentialBytes;
use crate::credential::verify::whole_hash;
use crate::id::CredentialId;
use crate::op::OpSet;
use crate::protocol::handshake::Answer;

/// The edition on which an attach is decided: the presented credential, or the renewed one that its holder
/// receives for it. It has not expired.
pub(super) struct ChosenEdition {
    pub(super) evidence: Evidence,
    /// The hash of its bytes.
    bytes: [u8; 32],
    /// Its terms after the latest renewal.
    pub(super) ops: OpSet,
    expires_at: Timestamp,
    /// The edition, as the hash of its bytes.
    edition: [u8; 32],
    /// The presented edition, if it was not narrowed.
    shown: Option<[u8; 32]>,
    /// The later edition that the holder receives.
    given: Option<CredentialBytes>,
}

impl ChosenEdition {
    /// Selects the edition. Only a holder that presents one of the record's editions unnarrowed receives a
    /// later one.
    pub(super) fn of(
        shown: Evidence,
        bytes: &[u8; 32],
        record: &CredentialRecord,
        time: Timestamp,
    ) -> Result<Self, Denial> {
        let found = match record.find(bytes).filter(|_| shown.is_on_record()) {
            Some(found) => Some(found),
            None => record.origin_of(&shown.stem()?),
        };
        let (place, edition) = found.ok_or(Denial::CredentialRetired)?;
        let whole = (*bytes == edition.hashes.whole).then_some(*bytes);
        if whole.is_none() || place == record.renewals.len() {
            let basis = Self {
                ops: edition.ops,
                expires_at: edition.expires_at,
                edition: edition.hashes.whole,
                evidence: shown,
                bytes: *bytes,
                shown: whole,
                given: None,
            };
            return basis.at(time);
        }
        let latest = record.latest();
        let bytes = record.bytes.clone().ok_or(Denial::Internal)?;
        if whole_hash(&bytes) != latest.hashes.whole {
            return Err(Denial::Internal);
        }
        let basis = Self {
            evidence: Evidence::OnRecord(bytes.clone(), None),
            bytes: latest.hashes.whole,
            ops: latest.ops,
            expires_at: latest.expires_at,
            edition: latest.hashes.whole,
            shown: whole,
            given: Some(bytes),
        };
        basis.at(time)
    }

    fn at(self, time: Timestamp) -> Result<Self, Denial> {
        if time < self.expires_at { Ok(self) } else { Err(Denial::CredentialExpired) }
    }
}

impl Inner {
    pub(super) fn attach(
        self: &Arc<Self>,
        proven: ProvenCredential,
        message: [u8; 32],
        now: Now,
    ) -> Result<(Answer, PendingGuard), Refusal> {
        let ProvenCredential { id, shown, bytes, record, ops, begun } = proven;
        let said = self.ask(&begun, &Shared::from(&*record), now)?;
        let record = match self.core.by_copy(now, |step| step.standing_record(&id, &said, Some(&record))) {
            Some(record) => record,
            None => self.standing(&id, &said, Some(&record), now)?,
        };
        let agent_time = self.core.time(now);
        let basis = ChosenEdition::of(shown, &bytes, &record, agent_time)?;
        let decision = self.decision_on_record(&id, &record, &basis.bytes, agent_time);
        let (all, end) = match decision {
            Some(decision) => (decision.ops, Some(decision.until)),
            None => {
                let scope = basis.evidence.credential()?.scope();
                (scope.ops(), scope.expires_at())
            }
        };
        let held = all.intersection(basis.ops);
        // An empty request means all operations. If none is left, the policy gives the reason.
        let wanted = match ops.is_empty() {
            false => [ops.intersection(held), ops],
            true if basis.ops.is_empty() => [held, all],
            true => [held, basis.ops],
        };
        let asked = wanted.into_iter().find(|ops| !ops.is_empty()).unwrap_or_default();
        let (ops, judged) = match decision {
            Some(decision) if !asked.is_empty() && asked.is_subset_of(decision.ops) => {
                (asked, Judged::Decided(None))
            }
            _ => self.judge_anew(basis.evidence, &id, &record, asked, agent_time)?,
        };
        let ops = ops.intersection(basis.ops);
        if let Some(op) = asked.iter().next().filter(|_| ops.is_empty()) {
            return Err(Denial::OperationNotGranted { op }.into());
        }
        let expires_at = end.map_or(basis.expires_at, |end| end.min(basis.expires_at));
        // What a phone is given in its answer is read from the ledger.
        let copied = match basis.given {
            Some(_) => None,
            None => self.core.by_copy(now, |step| step.standing_record(&id, &said, Some(&record))),
        };
        let (live, record) = match copied {
            Some(record) => (self.core.registry().join(&id, &record)?, record),
            // Much may have happened meanwhile, so the record is read again before anything is published.
            None => self.core.read_and_publish(
                now,
                |step| match basis.given {
                    Some(_) => step.standing_at(&id, &basis.edition, &said, &record),
                    None => step.standing_record(&id, &said, Some(&record)),
                },
                |registry, record| Ok((registry.join(&id, &record)?, record)),
            )?,
        };
        self.check_room(&live, now)?;
        let given = basis.given;
        let basis =
            AdmittedEditions { edition: basis.edition, shown: basis.shown, bytes: basis.bytes, judged };
        let pending = Pending { live, id, record, basis, ops, expires_at, message };
        Ok(self.admitted(pending, given, now, agent_time)?)
    }

    /// Returns a credential's record, if it is valid. Waits for no commit, unless it is not: a refusal is also
    /// the moment to end what has expired.
    pub(super) fn standing(
        &self,
        id: &CredentialId,
        said: &ContextAnswer,
        known: Option<&Kept>,
        now: Now,
    ) -> Result<Kept, Denial> {
        match self.core.look(now, |step| step.standing_record(id, said, known)) {
            Err(denial) if !matches!(denial, Denial::Ledger(_)) => {
                let (id, said) = (*id, said.clone());
                self.core.judge(now, move |step| step.standing_record(&id, &said, None))
            }
            found => found,
        }
    }

    /// Decides without a decision on record. Without operator rules, what the credential's own scope contains
    /// is left to the policy at activation, so that a replayed message 1 costs no run; the reason of a refusal
    /// is the policy's.
    fn judge_anew(
        &self,
        evidence: Evidence,
        id: &CredentialId,
        record: &CredentialRecord,
        asked: OpSet,
        time: Timestamp,
    ) -> Result<(OpSet, Judged), Denial> {
        if !self.policy.has_operator_rules()
            && Policy::scope_contains(&*evidence.credential()?, &self.circumstances(id, record, time), asked)
        {
            return Ok((asked, Judged::AtActivation(evidence)));
        }
        let verified = evidence.verified()?;
        let ops = self.grant(&verified, record, asked, time)?;
        Ok((ops, Judged::Decided(Some(Arc::new(verified)))))
    }
}
