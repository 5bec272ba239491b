//! Registers issuer keys.

use super::{Names, Step, Verdict};
use crate::agent::audit::AuditEvent;
use crate::agent::denial::{Denial, LedgerFailure, Quota};
use crate::agent::ledger::record::IssuerRecord;
use crate::key::{DevicePublicKey, IssuerPublicKey};
use crate::limits::ISSUERS_PER_DEVICE;
use crate::protocol::message::VerifiedRegistration;

impl Step<'_> {
    /// Registers an issuer key for a device. Repeating it for the same device has no effect.
    pub(crate) fn register_issuer(&mut self, registration: &VerifiedRegistration) -> Verdict<()> {
        let (issuer, device) = (registration.issuer(), registration.device());
        match self.records.issuer(issuer)? {
            Some(record) if record.device == *device => return Ok(()),
            Some(_) => return Err(Denial::IssuerOfAnotherDevice.into()),
            None => {}
        }
        let names = Names { issuer: Some(issuer), device: Some(device), ..Names::default() };
        self.moment.closed.interrupts(&names)?;
        let of_device =
            self.records.issuers()?.into_iter().filter(|(_, record)| record.device == *device).count();
        if u32::try_from(of_device).unwrap_or(u32::MAX) >= ISSUERS_PER_DEVICE {
            return Err(
                Denial::QuotaReached { quota: Quota::IssuersPerDevice, max: ISSUERS_PER_DEVICE }.into()
            );
        }
        let generation = self.records.next_number()?;
        self.records.put_issuer(issuer, &IssuerRecord { device: *device, generation });
        self.events.push(AuditEvent::IssuerRegistered { issuer: *issuer, device: *device });
        Ok(())
    }

    /// Returns the issuer's record, if `device` registered it.
    pub(crate) fn issuer_of(
        &self,
        issuer: &IssuerPublicKey,
        device: &DevicePublicKey,
    ) -> Verdict<IssuerRecord> {
        match self.records.issuer(issuer)? {
            Some(record) if record.device == *device => Ok(record),
            Some(_) => Err(Denial::IssuerOfAnotherDevice.into()),
            None => Err(Denial::IssuerUnknown.into()),
        }
    }

    /// Returns the issuers of the devices for which `wanted` is true.
    pub(super) fn issuers_where(
        &self,
        wanted: impl Fn(&DevicePublicKey) -> bool,
    ) -> Result<Vec<IssuerPublicKey>, LedgerFailure> {
        let issuers = self.records.issuers()?;
        Ok(issuers.into_iter().filter(|(_, record)| wanted(&record.device)).map(|(key, _)| key).collect())
    }
}
