//! Dispatches a desktop's revocation. The other revoking methods of [`Gate`](super::Gate) call the core
//! directly.

use super::Inner;
use crate::agent::denial::Denial;
use crate::agent::ledger::transition::Revocation;
use crate::clock::Now;
use crate::error::Misuse;
use crate::key::DevicePublicKey;
use crate::label::Label;
use crate::pair::{Revoke, Revoked};

impl Inner {
    pub(super) fn revoke(&self, what: &Revoke, now: Now) -> Result<Revoked, Denial> {
        let revocation = match what {
            Revoke::Ticket(ticket) => Revocation::Ticket(*ticket),
            Revoke::Credential(credential) => Revocation::Credential(*credential),
            Revoke::Session(session) => Revocation::Session(session.clone()),
            Revoke::Issuer(issuer) => Revocation::Issuer(*issuer),
            Revoke::Device(device) => Revocation::Device(*device),
            Revoke::Phone { device, name } => return self.revoke_phone(device, name, now),
        };
        self.core.revoke(&revocation, now)
    }

    pub(super) fn revoke_phone(
        &self,
        device: &DevicePublicKey,
        name: &Label,
        now: Now,
    ) -> Result<Revoked, Denial> {
        if name.as_str().is_empty() {
            let denial = Denial::ApiMisuse(Misuse::NoPhoneName);
            self.core.counters().revocations_failed.add_one();
            self.core.counters().denied(&denial);
            return Err(denial);
        }
        self.core.revoke(&Revocation::Phone(*device, name.clone()), now)
    }
}
