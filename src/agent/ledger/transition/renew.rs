//! Renewal: new terms for a credential that a phone already holds.

use super::{ContextAnswer, Names, Step, Verdict};
use crate::agent::audit::AuditEvent;
use crate::agent::denial::Denial;
use crate::agent::ledger::record::{CredentialRecord, Edition};
use crate::clock::Timestamp;
use crate::credential::bytes::CredentialBytes;
use crate::credential::verify::EditionHashes;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{DevicePublicKey, IssuerPublicKey};
use crate::limits::MAX_EDITIONS;
use crate::op::OpSet;

/// New terms, and the device and issuer that ask for them.
pub(crate) struct NewTerms {
    pub(crate) credential: CredentialId,
    pub(crate) ticket: TicketId,
    pub(crate) session: SessionId,
    pub(crate) issuer: IssuerPublicKey,
    pub(crate) device: DevicePublicKey,
    pub(crate) ops: OpSet,
    pub(crate) expires_at: Timestamp,
}

/// The renewed credential, bound to the phone.
pub(crate) struct Extension {
    pub(crate) bytes: CredentialBytes,
    pub(crate) hashes: EditionHashes,
}

/// The result of new terms.
pub(crate) struct Renewed {
    pub(crate) expires_at: Timestamp,
    /// When the last of the record's editions ends.
    pub(crate) ends_at: Timestamp,
    /// Whether a renewed credential waits for the phone.
    pub(crate) waiting: bool,
}

impl NewTerms {
    /// Returns the record with these terms: narrowed to them at once, with `extension` added if they exceed
    /// the latest edition.
    fn applied_to(
        &self,
        mut record: CredentialRecord,
        extension: &Extension,
    ) -> Result<CredentialRecord, Denial> {
        let mut took_away = false;
        for edition in core::iter::once(&mut record.edition).chain(&mut record.renewals) {
            took_away |= !edition.ops.is_subset_of(self.ops);
            edition.ops = edition.ops.intersection(self.ops);
            edition.expires_at = edition.expires_at.min(self.expires_at);
        }
        let latest = record.latest();
        if latest.ops == self.ops && latest.expires_at == self.expires_at {
            return Ok(record);
        }
        if record.renewals.len() >= MAX_EDITIONS {
            // Removing operations is not refused, even if the end has to stay the same.
            return match took_away && latest.ops == self.ops {
                true => Ok(record),
                false => Err(Denial::RenewalsUnused { max: MAX_EDITIONS }),
            };
        }
        record.renewals.push(Edition {
            ops: self.ops,
            expires_at: self.expires_at,
            hashes: extension.hashes,
        });
        record.bytes = Some(extension.bytes.clone());
        Ok(record)
    }
}

impl Step<'_> {
    /// Returns the record that new terms would change, if they are allowed.
    pub(crate) fn renewable(&self, terms: &NewTerms, said: &ContextAnswer) -> Verdict<CredentialRecord> {
        let record = self.records.credential(&terms.credential)?.ok_or(Denial::CredentialUnknown)?;
        if record.device != terms.device {
            return Err(Denial::IssuerOfAnotherDevice.into());
        }
        let same =
            record.issuer == terms.issuer && record.ticket == terms.ticket && record.session == terms.session;
        if !same {
            return Err(Denial::RenewalMismatch.into());
        }
        let open = self.moment.closed.interrupts(&Names::of_credential(&terms.credential, &record));
        self.standing(&record, said)?;
        open?;
        Ok(record)
    }

    /// Checks whether new terms can be put on record, without doing it.
    pub(crate) fn check_renewal(&self, terms: &NewTerms, extension: &Extension) -> Verdict<()> {
        let record = self.renewable(terms, &ContextAnswer::Present)?;
        terms.applied_to(record, extension)?;
        Ok(())
    }

    /// Puts new terms on record. The caller knows that the session runs.
    pub(crate) fn renew(&mut self, terms: &NewTerms, extension: &Extension) -> Verdict<Renewed> {
        let record = self.renewable(terms, &ContextAnswer::Present)?;
        let changed = terms.applied_to(record.clone(), extension)?;
        let latest = changed.latest();
        let renewed = Renewed {
            expires_at: latest.expires_at,
            ends_at: changed.ends_at(),
            waiting: !changed.renewals.is_empty(),
        };
        if changed != record {
            self.events.push(AuditEvent::CredentialRenewed {
                credential: terms.credential,
                session: terms.session.clone(),
                ops: latest.ops,
                expires_at: latest.expires_at,
                waiting: renewed.waiting,
            });
            self.change_credential(&terms.credential, record, |record| *record = changed)?;
        }
        Ok(renewed)
    }
}
