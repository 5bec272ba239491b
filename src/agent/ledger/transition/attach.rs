//! Checks whether a credential is valid, and records the attach of its phone.

use super::{ContextAnswer, Exit, Names, Step, Verdict};
use crate::agent::audit::AuditEvent;
use crate::agent::decision::{Decision, Decisions};
use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::ledger::kept::Kept;
use crate::agent::ledger::record::{CredentialRecord, CredentialState};
use crate::clock::Timestamp;
use crate::id::{CredentialId, TicketId};
use crate::key::{DevicePublicKey, HolderPublicKey};
use crate::limits::{LAST_SEEN_RESOLUTION, TOMBSTONE_GRACE};
use crate::op::OpSet;
use crate::pair::RevocationReason;

/// An attached phone, and the editions for which it was admitted.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    pub(crate) credential: CredentialId,
    /// As it was at admission.
    pub(crate) record: Kept,
    /// The admitted edition, as the hash of its bytes.
    pub(crate) edition: [u8; 32],
    /// The presented edition, if it was not narrowed.
    pub(crate) shown: Option<[u8; 32]>,
    /// The operations granted at admission.
    pub(crate) ops: OpSet,
    pub(crate) expires_at: Timestamp,
    pub(crate) said: ContextAnswer,
    /// Whether one more connection is allowed.
    pub(crate) room: Result<(), Denial>,
    /// The policy's decision if it was not on record, and whether it is about a narrowed copy.
    pub(crate) decision: Option<(Decision, bool)>,
}

/// The terms of the attach after all checks.
pub(crate) struct Visited {
    pub(crate) ops: OpSet,
    pub(crate) expires_at: Timestamp,
    at: Timestamp,
    /// How many editions the presented one replaces.
    used: usize,
    /// Whether a use within the last minute is on record.
    seen: bool,
    record: Kept,
}

impl Visited {
    /// Whether the phone uses a renewal for the first time, which has to be on record before it goes on.
    pub(crate) fn uses_a_renewal(&self) -> bool {
        self.used > 0
    }

    /// Whether there is something to write: a use in a new minute, or the policy's decision on an edition. The
    /// policy decides each edition once. Narrowed copies are without number, so the decision on one is recorded
    /// with the visit, not by a write of its own.
    pub(crate) fn is_owed(&self, visit: &Visit) -> bool {
        !self.seen || visit.decision.is_some_and(|(_, narrowed)| !narrowed)
    }

    /// Returns what has to be written of the visit.
    pub(crate) fn seen(&self, visit: &Visit) -> Seen {
        let decided = |(decision, narrowed)| Decisions::default().with(decision, narrowed);
        Seen {
            credential: visit.credential,
            edition: visit.edition,
            at: self.at,
            ops: self.ops,
            decisions: visit.decision.map(decided).unwrap_or_default(),
        }
    }
}

/// A visit of a phone that is not written yet. It is written with the next commit, whatever that is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) credential: CredentialId,
    /// The admitted edition, as the hash of its bytes.
    pub(crate) edition: [u8; 32],
    pub(crate) at: Timestamp,
    pub(crate) ops: OpSet,
    /// The policy's decisions that are not on record.
    pub(crate) decisions: Decisions,
}

impl Seen {
    /// Returns the time of last use, at most one a minute.
    pub(crate) fn last_seen(&self, on_record: Option<Timestamp>) -> Timestamp {
        on_record.filter(|seen| self.at.since(*seen) < LAST_SEEN_RESOLUTION).unwrap_or(self.at)
    }
}

impl Step<'_> {
    /// Checks whether a credential is valid: revoked, session gone, expired, pending, in this order.
    pub(super) fn standing(&self, record: &CredentialRecord, said: &ContextAnswer) -> Verdict<()> {
        match record.state {
            CredentialState::Revoked(RevocationReason::SessionEnd) => return Err(Denial::SessionGone.into()),
            CredentialState::Revoked(RevocationReason::Contest) => return Err(Denial::TicketContested.into()),
            CredentialState::Revoked(_) => return Err(Denial::CredentialRevoked.into()),
            CredentialState::Pending { .. } | CredentialState::Active | CredentialState::Expired => {}
        }
        let issuer = self.records.issuer(&record.issuer)?;
        if issuer.is_none_or(|issuer| issuer.generation != record.generation) {
            return Err(Denial::IssuerRevoked.into());
        }
        let session = self.records.session(&record.session)?;
        if session.is_none_or(|session| session.epoch != record.epoch) {
            return Err(Denial::SessionGone.into());
        }
        said.check()?;
        match record.state {
            CredentialState::Expired => Err(Denial::CredentialExpired.into()),
            _ if self.now >= record.ends_at() => Err(Denial::CredentialExpired.into()),
            CredentialState::Pending { until, .. } if self.now >= until => Err(Denial::TicketExpired.into()),
            CredentialState::Pending { .. } => Err(Denial::ConfirmationPending.into()),
            CredentialState::Active | CredentialState::Revoked(_) => Ok(()),
        }
    }

    pub(crate) fn credential(&self, id: &CredentialId) -> Result<Option<Kept>, LedgerFailure> {
        self.records.credential_as(id, None)
    }

    /// Returns a credential's record, until the time of its removal, even if it is removed later.
    pub(super) fn credential_on_record(
        &self,
        id: &CredentialId,
    ) -> Result<Option<CredentialRecord>, LedgerFailure> {
        Ok(self.records.credential(id)?.filter(|record| self.is_on_record(record)))
    }

    fn is_on_record(&self, record: &CredentialRecord) -> bool {
        self.now < record.ends_at().plus(TOMBSTONE_GRACE)
    }

    /// Returns a credential's record, if it is valid. `known` is the record as it was read before.
    pub(crate) fn standing_record(
        &self,
        id: &CredentialId,
        said: &ContextAnswer,
        known: Option<&Kept>,
    ) -> Verdict<Kept> {
        let record = self.records.credential_as(id, known)?.filter(|record| self.is_on_record(record));
        let record = record.ok_or(Denial::CredentialUnknown)?;
        let closed = self.moment.closed.denial(&Names::of_credential(id, &record));
        // Another reason for the end takes precedence.
        self.standing(&record, said)?;
        match closed {
            Some(denial) => Err(denial.into()),
            None => Ok(record),
        }
    }

    /// Checks whether a credential that was found valid still is, by its record alone.
    pub(crate) fn still_valid(&self, id: &CredentialId) -> Verdict<()> {
        self.standing_record(id, &ContextAnswer::Present, None).map(drop)
    }

    /// Confirms a waiting phone.
    pub(crate) fn confirm(
        &mut self,
        device: &DevicePublicKey,
        ticket: &TicketId,
        holder: &HolderPublicKey,
        said: &ContextAnswer,
    ) -> Verdict<()> {
        let offered = self.records.ticket(ticket)?.ok_or(Denial::NothingToConfirm)?;
        let id = offered.credential;
        let record = self.credential_of(ticket, &offered)?.ok_or(Denial::NothingToConfirm)?;
        if record.device != *device {
            return Err(Denial::IssuerOfAnotherDevice.into());
        }
        if record.holder != *holder {
            return Err(Denial::NothingToConfirm.into());
        }
        self.moment.closed.interrupts(&Names::of_credential(&id, &record))?;
        match self.standing(&record, said) {
            Err(Exit::Denied(Denial::ConfirmationPending)) => {
                let record =
                    self.change_credential(&id, record, |record| record.state = CredentialState::Active)?;
                self.events.push(AuditEvent::CredentialConfirmed {
                    credential: id,
                    session: record.session,
                    holder: *holder,
                });
                Ok(())
            }
            // Confirmed already, or no longer valid.
            standing => standing,
        }
    }

    /// Returns a credential's record, if it is valid and `edition` is still its latest.
    pub(crate) fn standing_at(
        &self,
        id: &CredentialId,
        edition: &[u8; 32],
        said: &ContextAnswer,
        known: &Kept,
    ) -> Verdict<Kept> {
        let record = self.standing_record(id, said, Some(known))?;
        // New terms may have arrived since it was chosen.
        match record.latest().hashes.whole == *edition {
            true => Ok(record),
            false => Err(Denial::Interrupted.into()),
        }
    }

    /// Checks whether the phone may attach, and returns the terms. Writes nothing.
    pub(crate) fn visit(&self, visit: &Visit) -> Verdict<Visited> {
        let record = self.standing_record(&visit.credential, &visit.said, Some(&visit.record))?;
        // It may have been narrowed or retired since it was admitted.
        let (_, edition) = record.find(&visit.edition).ok_or(Denial::CredentialRetired)?;
        let ops = visit.ops.intersection(edition.ops);
        let expires_at = visit.expires_at.min(edition.expires_at);
        if self.now >= expires_at {
            return Err(Denial::CredentialExpired.into());
        }
        if ops.is_empty() {
            let op = visit.ops.iter().next();
            return Err(op.map_or(Denial::Internal, |op| Denial::OperationNotGranted { op }).into());
        }
        visit.room.clone()?;
        // The phone has stored the edition that it presented, so it needs no earlier one.
        let used = visit.shown.and_then(|shown| record.find(&shown)).map_or(0, |(place, _)| place);
        let seen = record.last_seen.is_some_and(|seen| self.now.since(seen) < LAST_SEEN_RESOLUTION);
        Ok(Visited { ops, expires_at, at: self.now, used, seen, record })
    }

    /// Records the attach of a phone that uses a renewal: retires the editions that the renewal replaces.
    pub(crate) fn attached(&mut self, visit: &Visit) -> Verdict<Visited> {
        let visited = self.visit(visit)?;
        let seen = visited.seen(visit);
        if visited.used > 0 {
            let record = CredentialRecord::clone(&visited.record);
            let record = self.change_credential(&visit.credential, record, |record| {
                record.last_seen = Some(seen.at);
                record.retire_before(visited.used);
                record.verdict = Decisions::read(&record.verdict).and(seen.decisions).to_bytes();
            })?;
            self.events.push(AuditEvent::RenewalUsed {
                credential: visit.credential,
                session: record.session.clone(),
                holder: record.holder,
            });
            self.phone_attached(&seen, &record);
        } else {
            self.note(&seen)?;
        }
        Ok(visited)
    }

    /// Records a visit, at most once a minute, and what the policy has decided. A credential that has ended
    /// meanwhile, or whose edition is retired, stays as it is.
    pub(crate) fn note(&mut self, seen: &Seen) -> Result<(), LedgerFailure> {
        let Some(record) = self.records.credential(&seen.credential)? else { return Ok(()) };
        if record.state != CredentialState::Active || record.find(&seen.edition).is_none() {
            return Ok(());
        }
        let last_seen = seen.last_seen(record.last_seen);
        let recent = record.last_seen == Some(last_seen);
        let record = self.change_credential(&seen.credential, record, |record| {
            if seen.decisions != Decisions::default() {
                record.verdict = Decisions::read(&record.verdict).and(seen.decisions).to_bytes();
            }
            record.last_seen = Some(last_seen);
        })?;
        if !recent {
            self.phone_attached(seen, &record);
        }
        Ok(())
    }

    fn phone_attached(&mut self, seen: &Seen, record: &CredentialRecord) {
        self.events.push(AuditEvent::PhoneAttached {
            credential: seen.credential,
            session: record.session.clone(),
            holder: record.holder,
            ops: seen.ops,
        });
    }
}
