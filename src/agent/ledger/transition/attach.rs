//! Whether a credential stands, and what a visit of its phone changes.

use super::{Step, Verdict};
use crate::agent::audit::{AuditEvent, RevocationReason};
use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::ledger::record::{CredentialRecord, CredentialState};
use crate::clock::Timestamp;
use crate::id::{CredentialId, TicketId};
use crate::key::{DevicePublicKey, HolderPublicKey};
use crate::limits::{LAST_SEEN_RESOLUTION, TOMBSTONE_GRACE};
use crate::op::OpSet;
use crate::token::CredentialBytes;

/// A phone that is there, and what it was admitted with.
pub(crate) struct Visit<'a> {
    pub(crate) credential: &'a CredentialId,
    /// The edition on whose word it was admitted.
    pub(crate) edition: &'a CredentialBytes,
    /// The edition that it has shown, if it has shown one whole.
    pub(crate) shown: Option<&'a CredentialBytes>,
    /// What it was granted at admission.
    pub(crate) ops: OpSet,
    pub(crate) expires_at: Timestamp,
    pub(crate) session_live: bool,
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
    pub(crate) fn standing(&mut self, record: &CredentialRecord, session_live: bool) -> Verdict<()> {
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
        if !session_live || session.is_none_or(|session| session.epoch != record.epoch) {
            return Ok(Err(Denial::SessionGone));
        }
        Ok(match record.state {
            CredentialState::Expired => Err(Denial::CredentialExpired),
            _ if self.now >= record.ends_at() => Err(Denial::CredentialExpired),
            CredentialState::Pending { until, .. } if self.now >= until => Err(Denial::TicketExpired),
            CredentialState::Pending { .. } => Err(Denial::ConfirmationPending),
            CredentialState::Active | CredentialState::Revoked(_) => Ok(()),
        })
    }

    pub(crate) fn credential(
        &mut self,
        id: &CredentialId,
    ) -> Result<Option<CredentialRecord>, LedgerFailure> {
        self.records.credential(id)
    }

    /// A credential's record, until it may be removed, whenever it is.
    pub(super) fn credential_on_record(
        &mut self,
        id: &CredentialId,
    ) -> Result<Option<CredentialRecord>, LedgerFailure> {
        let now = self.now;
        Ok(self.records.credential(id)?.filter(|record| now < record.ends_at().plus(TOMBSTONE_GRACE)))
    }

    /// A credential's record, if it stands.
    pub(crate) fn standing_record(
        &mut self,
        id: &CredentialId,
        session_live: bool,
    ) -> Verdict<CredentialRecord> {
        let Some(record) = self.credential_on_record(id)? else {
            return Ok(Err(Denial::CredentialUnknown));
        };
        Ok(self.standing(&record, session_live)?.map(|()| record))
    }

    /// Confirms a phone that waits.
    pub(crate) fn confirm(
        &mut self,
        device: &DevicePublicKey,
        ticket: &TicketId,
        holder: &HolderPublicKey,
        session_live: bool,
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
        match self.standing(&record, session_live)? {
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

    /// Notes that the latest edition is on its way to the phone. From now on it is not dropped before
    /// it or a later one was used.
    pub(crate) fn deliver(
        &mut self,
        id: &CredentialId,
        edition: &CredentialBytes,
        session_live: bool,
    ) -> Verdict<CredentialRecord> {
        let record = match self.standing_record(id, session_live)? {
            Ok(record) => record,
            Err(denial) => return Ok(Err(denial)),
        };
        // Other terms may have come since it was chosen.
        if record.latest().bytes.as_ref() != Some(edition) {
            return Ok(Err(Denial::Interrupted));
        }
        self.deliver_latest(id, record).map(Ok)
    }

    pub(super) fn deliver_latest(
        &mut self,
        id: &CredentialId,
        record: CredentialRecord,
    ) -> Result<CredentialRecord, LedgerFailure> {
        if record.latest().delivered {
            return Ok(record);
        }
        self.change_credential(id, record, |record| {
            if let Some(latest) = record.renewals.last_mut() {
                latest.delivered = true;
            }
        })
    }

    /// Notes that a phone is there, once a minute at most, and retires what a renewed credential replaces
    /// once it is used.
    pub(crate) fn attached(&mut self, visit: &Visit<'_>) -> Verdict<Visited> {
        let record = match self.standing_record(visit.credential, visit.session_live)? {
            Ok(record) => record,
            Err(denial) => return Ok(Err(denial)),
        };
        // It may have been narrowed or retired since it was admitted.
        let Some((_, edition)) = record.find(visit.edition) else {
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
        let used = visit.shown.and_then(|shown| record.find(shown)).map_or(0, |(place, _)| place);
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
