//! Whether a credential stands, and what a visit of its phone changes.

use super::{Names, Said, Step, Verdict};
use crate::agent::audit::AuditEvent;
use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::ledger::record::{CredentialRecord, CredentialState};
use crate::clock::Timestamp;
use crate::id::{CredentialId, TicketId};
use crate::key::{DevicePublicKey, HolderPublicKey};
use crate::limits::{LAST_SEEN_RESOLUTION, TOMBSTONE_GRACE};
use crate::op::OpSet;
use crate::pair::RevocationReason;

/// A phone that is there, and what it was admitted with.
pub(crate) struct Visit<'a> {
    pub(crate) credential: &'a CredentialId,
    /// The edition on whose word it was admitted, by the hash of its bytes.
    pub(crate) edition: [u8; 32],
    /// The edition that it has shown, if it has shown one whole.
    pub(crate) shown: Option<[u8; 32]>,
    /// What it was granted at admission.
    pub(crate) ops: OpSet,
    pub(crate) expires_at: Timestamp,
    pub(crate) said: &'a Said,
    /// Whether there is room for one more connection.
    pub(crate) room: Result<(), Denial>,
}

/// What a visit may do after all.
pub(crate) struct Visited {
    pub(crate) ops: OpSet,
    pub(crate) expires_at: Timestamp,
}

impl Step<'_> {
    /// Whether a credential stands: revoked, session gone, expired, pending, in this order.
    pub(super) fn standing(&self, record: &CredentialRecord, said: &Said) -> Verdict<()> {
        match record.state {
            CredentialState::Revoked(RevocationReason::SessionEnd) => return Ok(Err(Denial::SessionGone)),
            CredentialState::Revoked(RevocationReason::Contest) => return Ok(Err(Denial::TicketContested)),
            CredentialState::Revoked(_) => return Ok(Err(Denial::CredentialRevoked)),
            CredentialState::Pending { .. } | CredentialState::Active | CredentialState::Expired => {}
        }
        let issuer = self.records.issuer(&record.issuer)?;
        if issuer.is_none_or(|issuer| issuer.generation != record.generation) {
            return Ok(Err(Denial::IssuerRevoked));
        }
        let session = self.records.session(&record.session)?;
        if session.is_none_or(|session| session.epoch != record.epoch) {
            return Ok(Err(Denial::SessionGone));
        }
        if let Err(denial) = said {
            return Ok(Err(denial.clone()));
        }
        Ok(match record.state {
            CredentialState::Expired => Err(Denial::CredentialExpired),
            _ if self.now >= record.ends_at() => Err(Denial::CredentialExpired),
            CredentialState::Pending { until, .. } if self.now >= until => Err(Denial::TicketExpired),
            CredentialState::Pending { .. } => Err(Denial::ConfirmationPending),
            CredentialState::Active | CredentialState::Revoked(_) => Ok(()),
        })
    }

    pub(crate) fn credential(&self, id: &CredentialId) -> Result<Option<CredentialRecord>, LedgerFailure> {
        self.records.credential(id)
    }

    /// A credential's record, until it may be removed, whenever it is.
    pub(super) fn credential_on_record(
        &self,
        id: &CredentialId,
    ) -> Result<Option<CredentialRecord>, LedgerFailure> {
        let now = self.now;
        Ok(self.records.credential(id)?.filter(|record| now < record.ends_at().plus(TOMBSTONE_GRACE)))
    }

    /// A credential's record, if it stands.
    pub(crate) fn standing_record(&self, id: &CredentialId, said: &Said) -> Verdict<CredentialRecord> {
        let Some(record) = self.credential_on_record(id)? else {
            return Ok(Err(Denial::CredentialUnknown));
        };
        if let Some(denial) = self.moment.closed.denial(&Names::of_credential(id, &record)) {
            // What has ended for another reason is told that one.
            return Ok(Err(self.standing(&record, said)?.err().unwrap_or(denial)));
        }
        Ok(self.standing(&record, said)?.map(|()| record))
    }

    /// Whether a credential that was found to stand still does, by its record alone.
    pub(crate) fn stands(&self, id: &CredentialId) -> Verdict<CredentialRecord> {
        self.standing_record(id, &Ok(()))
    }

    /// Confirms a phone that waits.
    pub(crate) fn confirm(
        &mut self,
        device: &DevicePublicKey,
        ticket: &TicketId,
        holder: &HolderPublicKey,
        said: &Said,
    ) -> Verdict<()> {
        let Some(offered) = self.records.ticket(ticket)? else {
            return Ok(Err(Denial::NothingToConfirm));
        };
        let id = offered.credential;
        let Some(record) = self.credential_of(ticket, &offered)? else {
            return Ok(Err(Denial::NothingToConfirm));
        };
        if record.device != *device {
            return Ok(Err(Denial::IssuerOfAnotherDevice));
        }
        if record.holder != *holder {
            return Ok(Err(Denial::NothingToConfirm));
        }
        if let Err(denial) = self.moment.closed.interrupts(&Names::of_credential(&id, &record)) {
            return Ok(Err(denial));
        }
        match self.standing(&record, said)? {
            Ok(()) => Ok(Ok(())),
            Err(Denial::ConfirmationPending) => {
                let record =
                    self.change_credential(&id, record, |record| record.state = CredentialState::Active)?;
                self.events.push(AuditEvent::CredentialConfirmed {
                    credential: id,
                    session: record.session,
                    holder: *holder,
                });
                Ok(Ok(()))
            }
            Err(denial) => Ok(Err(denial)),
        }
    }

    /// A credential's record, if it stands and `edition` is still its latest.
    pub(crate) fn standing_at(
        &self,
        id: &CredentialId,
        edition: &[u8; 32],
        said: &Said,
    ) -> Verdict<CredentialRecord> {
        let record = self.standing_record(id, said)?;
        // Other terms may have come since it was chosen.
        Ok(record.and_then(|record| match record.latest().hashes.whole == *edition {
            true => Ok(record),
            false => Err(Denial::Interrupted),
        }))
    }

    /// Notes that a phone is there, once a minute at most, and retires what a renewed credential replaces
    /// once it is used.
    pub(crate) fn attached(&mut self, visit: &Visit<'_>) -> Verdict<Visited> {
        let record = match self.standing_record(visit.credential, visit.said)? {
            Ok(record) => record,
            Err(denial) => return Ok(Err(denial)),
        };
        // It may have been narrowed or retired since it was admitted.
        let Some((_, edition)) = record.find(&visit.edition) else {
            return Ok(Err(Denial::CredentialRetired));
        };
        let visited = Visited {
            ops: visit.ops.intersection(edition.ops),
            expires_at: visit.expires_at.min(edition.expires_at),
        };
        if self.now >= visited.expires_at {
            return Ok(Err(Denial::CredentialExpired));
        }
        if visited.ops.is_empty() {
            let op = visit.ops.iter().next();
            return Ok(Err(op.map_or(Denial::Internal, |op| Denial::OperationNotGranted { op })));
        }
        if let Err(denial) = &visit.room {
            return Ok(Err(denial.clone()));
        }
        // What the phone has shown it has stored, so it needs none from before.
        let used = visit.shown.and_then(|shown| record.find(&shown)).map_or(0, |(place, _)| place);
        let renewed = used > 0;
        let now = self.now;
        let seen = record.last_seen.is_some_and(|seen| now.since(seen) < LAST_SEEN_RESOLUTION);
        if seen && !renewed {
            return Ok(Ok(visited));
        }
        let record = self.change_credential(visit.credential, record, |record| {
            record.last_seen = Some(now);
            if renewed {
                record.retire_before(used);
            }
        })?;
        if renewed {
            self.events.push(AuditEvent::RenewalUsed {
                credential: *visit.credential,
                session: record.session.clone(),
                holder: record.holder,
            });
        }
        self.events.push(AuditEvent::PhoneAttached {
            credential: *visit.credential,
            session: record.session,
            holder: record.holder,
            ops: visited.ops,
        });
        Ok(Ok(visited))
    }
}
