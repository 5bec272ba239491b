//! Decides what a phone with a verified credential is granted.

use std::sync::Arc;

use super::Inner;
use super::activate::{AdmittedEditions, Judged, Pending, PendingGuard};
use super::context::Shared;
use super::prove::{ProvenCredential, Refusal};
use crate::agent::denial::Denial;
use crate::agent::ledger::record::CredentialRecord;
use crate::clock::{Now, Timestamp};
use crate::credential::bytes::CredentialBytes;
use crate::credential::verify::{Credential, VerifiedCredential};
use crate::op::OpSet;
use crate::protocol::handshake::Answer;

/// The edition on which an attach is decided: the presented credential, or the renewed one that its holder
/// receives for it. It has not expired.
pub(super) struct ChosenEdition {
    pub(super) verified: VerifiedCredential,
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
        shown: VerifiedCredential,
        record: &CredentialRecord,
        time: Timestamp,
    ) -> Result<Self, Denial> {
        let hashes = shown.credential().hashes();
        let (place, edition) = record.origin_of(&hashes).ok_or(Denial::CredentialRetired)?;
        let whole = (hashes.whole == edition.hashes.whole).then_some(hashes.whole);
        if whole.is_none() || place == record.renewals.len() {
            let basis = Self {
                ops: edition.ops,
                expires_at: edition.expires_at,
                edition: edition.hashes.whole,
                verified: shown,
                shown: whole,
                given: None,
            };
            return basis.at(time);
        }
        let latest = record.latest();
        let bytes = record.bytes.clone().ok_or(Denial::Internal)?;
        let verified = Credential::parse(&bytes).and_then(|credential| credential.verify(&record.issuer));
        let basis = Self {
            verified: verified.map_err(|_| Denial::Internal)?,
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
        let ProvenCredential { shown, record, ops, begun } = proven;
        let id = shown.credential().id();
        let said = self.ask(&begun, &Shared::from(&record), now)?;
        let record = self.core.lock_ledger().judge(now, |step| step.standing_record(&id, &said))?;
        let agent_time = self.core.time(now);
        let basis = ChosenEdition::of(shown, &record, agent_time)?;
        let scope = basis.verified.credential().scope();
        let held = scope.ops().intersection(basis.ops);
        // An empty request means all operations. If none is left, the policy gives the reason.
        let wanted = match ops.is_empty() {
            false => [ops.intersection(held), ops],
            true if basis.ops.is_empty() => [held, scope.ops()],
            true => [held, basis.ops],
        };
        let asked = wanted.into_iter().find(|ops| !ops.is_empty()).unwrap_or_default();
        let ops = self.grant(&basis.verified, &record, asked, agent_time)?.intersection(basis.ops);
        if let Some(op) = asked.iter().next().filter(|_| ops.is_empty()) {
            return Err(Denial::OperationNotGranted { op }.into());
        }
        let expires_at = scope.expires_at().map_or(basis.expires_at, |end| end.min(basis.expires_at));
        let (live, record) = {
            let mut locked = self.core.lock_ledger();
            // The policy ran without the lock, so the record is read again before anything is published.
            let record = locked.judge(now, |step| match basis.given {
                Some(_) => step.standing_at(&id, &basis.edition, &said),
                None => step.standing_record(&id, &said),
            })?;
            (locked.join(&id, &record)?, record)
        };
        self.check_room(&live, now)?;
        let given = basis.given.clone();
        let basis = AdmittedEditions {
            edition: basis.edition,
            shown: basis.shown,
            judged: Judged::Verified(Arc::new(basis.verified)),
        };
        let pending = Pending { live, id, record, basis, ops, expires_at, message };
        Ok(self.admitted(pending, given, now, agent_time)?)
    }
}
