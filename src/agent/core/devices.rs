//! The set of enrolled devices, and how long it is valid.

use super::lock;
use super::state::Core;
use crate::agent::denial::Denial;
use crate::agent::ledger::transition::Revocation;
use crate::clock::{Now, Timestamp};
use crate::key::DevicePublicKey;
use crate::pair::Revoked;

impl Core {
    /// Revokes every device that is not in the set, and notes until when the set is valid.
    pub(crate) fn sync_devices(
        &self,
        enrolled: &[DevicePublicKey],
        valid_until: Option<Timestamp>,
        now: Now,
    ) -> Result<Revoked, Denial> {
        let revoked = self.revoke(&Revocation::DevicesOutside(enrolled.into()), now)?;
        *lock(&self.devices_until) = valid_until;
        self.end_devices(now);
        self.lease.wake();
        Ok(revoked)
    }

    /// Sets the lease by the end of the set. Repeated at each settling, because the agent's time may jump.
    pub(super) fn end_devices(&self, now: Now) {
        // Held meanwhile, so that a later set is not ended by an earlier one.
        let until = lock(&self.devices_until);
        self.lease.set_devices(until.map(|until| self.reaches(until, now)));
        drop(until);
    }

    /// Refuses what depends on the set of enrolled devices, if it is no longer valid.
    pub(crate) fn check_devices(&self, now: Now) -> Result<(), Denial> {
        let until = *lock(&self.devices_until);
        match until.is_some_and(|until| self.time(now) >= until) {
            true => Err(Denial::Stale),
            false => Ok(()),
        }
    }
}
