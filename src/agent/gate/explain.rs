//! Explains what a phone would be answered.

use super::Inner;
use super::attach::ChosenEdition;
use crate::agent::denial::Denial;
use crate::agent::ledger::transition::ContextAnswer;
use crate::clock::Now;
use crate::credential::bytes::CredentialBytes;
use crate::key::HolderPublicKey;
use crate::op::{Action, OpSet};

impl Inner {
    pub(super) fn explain(
        &self,
        peer: &HolderPublicKey,
        credential: &CredentialBytes,
        action: Action,
        now: Now,
    ) -> Result<(), Denial> {
        let proven = self.prove_credential(peer, credential, OpSet::EMPTY, now)?;
        let id = proven.id;
        // Explaining revokes nothing, even if the session is gone.
        let session = self.check_session(&proven.record.session);
        let device = self.check_device_at(&proven.record.device, now).map_err(|denial| match denial {
            Denial::DeviceNotEnrolled => Denial::IssuerRevoked,
            denial => denial,
        });
        let said = ContextAnswer::from(session.and(device));
        let record = self.core.read(now, |step| step.standing_record(&id, &said, Some(&proven.record)))?;
        let time = self.core.time(now);
        let basis = ChosenEdition::of(proven.shown, &proven.bytes, &record, time)?;
        let ops = basis.ops;
        // Whatever is on record, so that the reason is the policy's own.
        let verified = basis.evidence.verified()?;
        self.policy.decide(&verified, &self.circumstances(&id, &record, time), action)?;
        match action {
            Action::Session(op) if !ops.contains(op) => Err(Denial::OperationNotGranted { op }),
            _ => Ok(()),
        }
    }
}
