//! Runs the policy.

use super::Inner;
use crate::agent::denial::Denial;
use crate::agent::ledger::record::CredentialRecord;
use crate::clock::Timestamp;
use crate::credential::caveat::{Circumstances, LiveRecord};
use crate::credential::verify::VerifiedCredential;
use crate::op::OpSet;

impl Inner {
    /// Returns which of `ops` the policy allows.
    pub(super) fn grant(
        &self,
        verified: &VerifiedCredential,
        record: &CredentialRecord,
        ops: OpSet,
        time: Timestamp,
    ) -> Result<OpSet, Denial> {
        self.policy.grant(verified, &self.circumstances(verified, record, time), ops)
    }

    pub(super) fn circumstances<'a>(
        &'a self,
        verified: &VerifiedCredential,
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
            live: Some(LiveRecord {
                credential: verified.credential().id(),
                ticket: record.ticket,
                holder: record.holder,
            }),
        }
    }
}
