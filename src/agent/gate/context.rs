//! Asks the agent's context whether a session runs, a device is enrolled, and may share the session.

use super::Inner;
use crate::agent::config::Presence;
use crate::agent::core::CallStart;
use crate::agent::denial::Denial;
use crate::agent::ledger::record::{CredentialRecord, TicketRecord};
use crate::agent::ledger::transition::{ContextAnswer, Revocation};
use crate::clock::Now;
use crate::id::SessionId;
use crate::key::{DevicePublicKey, IssuerPublicKey};

/// The session of a record and the device that shared it.
pub(super) struct Shared<'a> {
    session: &'a SessionId,
    epoch: u64,
    device: &'a DevicePublicKey,
    issuer: &'a IssuerPublicKey,
    generation: u64,
}

impl<'a> From<&'a TicketRecord> for Shared<'a> {
    fn from(record: &'a TicketRecord) -> Self {
        let TicketRecord { session, epoch, device, issuer, generation, .. } = record;
        Self { session, epoch: *epoch, device, issuer, generation: *generation }
    }
}

impl<'a> From<&'a CredentialRecord> for Shared<'a> {
    fn from(record: &'a CredentialRecord) -> Self {
        let CredentialRecord { session, epoch, device, issuer, generation, .. } = record;
        Self { session, epoch: *epoch, device, issuer, generation: *generation }
    }
}

impl Inner {
    /// Asks the context about a session and the device that shared it, without holding a lock. Revokes what
    /// is gone: only of the epoch and generation read before, and only if nothing was revoked since `begun`.
    pub(super) fn ask(
        &self,
        begun: &CallStart,
        shared: &Shared<'_>,
        now: Now,
    ) -> Result<ContextAnswer, Denial> {
        if let Err(denial) = self.core.check_devices(now) {
            return Ok(ContextAnswer::Denied(denial));
        }
        let session = self.context.session(shared.session);
        let device = self.context.device(shared.device);
        let mut gone = Vec::new();
        if session == Presence::Gone {
            gone.push(Revocation::SessionGone(shared.session.clone(), shared.epoch));
        }
        if device == Presence::Gone {
            gone.push(Revocation::IssuerGone(*shared.issuer, shared.generation));
        }
        self.core.revoke_gone(&gone, begun, now)?;
        Ok(match (session, device) {
            (Presence::Gone, _) => ContextAnswer::Denied(Denial::SessionGone),
            (_, Presence::Gone) => ContextAnswer::Denied(Denial::IssuerRevoked),
            (Presence::Unknown, _) | (_, Presence::Unknown) => ContextAnswer::Denied(Denial::ContextUnknown),
            (Presence::Present, Presence::Present) => ContextAnswer::Present,
        })
    }

    /// Checks that the session runs now. Does not revoke it if it is gone.
    pub(super) fn check_session(&self, session: &SessionId) -> Result<(), Denial> {
        match self.context.session(session) {
            Presence::Present => Ok(()),
            Presence::Gone => Err(Denial::SessionGone),
            Presence::Unknown => Err(Denial::ContextUnknown),
        }
    }

    /// Checks that the device is enrolled now.
    pub(super) fn check_device(&self, device: &DevicePublicKey) -> Result<(), Denial> {
        match self.context.device(device) {
            Presence::Present => Ok(()),
            Presence::Gone => Err(Denial::DeviceNotEnrolled),
            Presence::Unknown => Err(Denial::ContextUnknown),
        }
    }

    /// Checks that the device is enrolled now, by a set of devices that is still valid.
    pub(super) fn check_device_at(&self, device: &DevicePublicKey, now: Now) -> Result<(), Denial> {
        self.core.check_devices(now)?;
        self.check_device(device)
    }

    /// Checks that the device may share the session now.
    pub(super) fn check_sharing(
        &self,
        device: &DevicePublicKey,
        session: &SessionId,
        now: Now,
    ) -> Result<(), Denial> {
        self.check_device_at(device, now)?;
        match self.context.session(session) {
            Presence::Gone => Err(Denial::SessionNotLive),
            Presence::Unknown => Err(Denial::ContextUnknown),
            Presence::Present if self.context.may_share(device, session) => Ok(()),
            Presence::Present => Err(Denial::SharingForbidden),
        }
    }
}
