//! The transitions: what may happen to records, and in which order it is judged. Pure functions
//! over one transaction; each validates first and writes last.

use crate::audit::{AuditEvent, RevocationReason};
use crate::clock::Timestamp;
use crate::denial::{Denial, LedgerFailure, Quota};
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{DevicePublicKey, HolderPublicKey, IssuerPublicKey};
use crate::ledger::Transaction;
use crate::ledger::record::{
    Counters, CredentialRecord, CredentialState, Entry, IssuerRecord, Records, SessionRecord, TicketRecord,
    TicketState,
};
use crate::limits::{
    COLLECT_PER_TRANSITION, ISSUERS_PER_DEVICE, LAST_SEEN_RESOLUTION, RETRY_WINDOW, TOMBSTONE_GRACE,
};
use crate::op::OpSet;
use crate::token::CredentialBytes;
use crate::wire::Label;

/// A verdict inside a transaction that went through: a denial is an answer, not a failure.
pub(crate) type Verdict<T> = Result<Result<T, Denial>, LedgerFailure>;

/// How many may be open or live at a time. See [`Quotas`](crate::Quotas).
#[derive(Debug, Clone, Copy)]
pub(crate) struct QuotaLimits {
    pub(crate) tickets_per_session: u32,
    pub(crate) credentials_per_session: u32,
    pub(crate) tickets_per_agent: u32,
    pub(crate) credentials_per_agent: u32,
}

/// One transaction in progress, at one moment.
pub(crate) struct Step<'a> {
    records: Records<'a>,
    now: Timestamp,
    events: Vec<AuditEvent>,
}

impl<'a> Step<'a> {
    pub(crate) fn new(transaction: &'a mut dyn Transaction, now: Timestamp) -> Self {
        Self { records: Records(transaction), now, events: Vec::new() }
    }

    /// What happened, to be told once the transaction is durable.
    pub(crate) fn into_events(self) -> Vec<AuditEvent> {
        self.events
    }

    // --- issuers -------------------------------------------------------------------------------

    /// Registers an issuer key for a device. The same device may do it again without effect.
    pub(crate) fn register_issuer(
        &mut self,
        issuer: &IssuerPublicKey,
        device: &DevicePublicKey,
    ) -> Verdict<()> {
        match self.records.issuer(issuer)? {
            Some(record) if record.device == *device => return Ok(Ok(())),
            Some(_) => return Ok(Err(Denial::IssuerOfAnotherDevice)),
            None => {}
        }
        let of_device =
            self.records.issuers()?.into_iter().filter(|(_, record)| record.device == *device).count();
        if u32::try_from(of_device).unwrap_or(u32::MAX) >= ISSUERS_PER_DEVICE {
            return Ok(Err(Denial::QuotaReached { quota: Quota::IssuersPerDevice, max: ISSUERS_PER_DEVICE }));
        }
        let generation = self.records.next_number()?;
        self.records.put_issuer(issuer, &IssuerRecord { device: *device, generation })?;
        self.events.push(AuditEvent::IssuerRegistered { issuer: *issuer, device: *device });
        Ok(Ok(()))
    }

    /// The issuer's record, if `device` registered it.
    pub(crate) fn issuer_of(
        &mut self,
        issuer: &IssuerPublicKey,
        device: &DevicePublicKey,
    ) -> Verdict<IssuerRecord> {
        Ok(match self.records.issuer(issuer)? {
            Some(record) if record.device == *device => Ok(record),
            Some(_) => Err(Denial::IssuerOfAnotherDevice),
            None => Err(Denial::IssuerUnknown),
        })
    }

    pub(crate) fn issuers_of(
        &mut self,
        device: &DevicePublicKey,
    ) -> Result<Vec<IssuerPublicKey>, LedgerFailure> {
        let issuers = self.records.issuers()?;
        Ok(issuers.into_iter().filter(|(_, record)| record.device == *device).map(|(key, _)| key).collect())
    }

    /// The issuers whose device is not in `enrolled`.
    pub(crate) fn issuers_outside(
        &mut self,
        enrolled: &[DevicePublicKey],
    ) -> Result<Vec<IssuerPublicKey>, LedgerFailure> {
        let issuers = self.records.issuers()?;
        Ok(issuers
            .into_iter()
            .filter(|(_, record)| !enrolled.contains(&record.device))
            .map(|(key, _)| key)
            .collect())
    }

    /// Forgets an issuer and ends everything that it signed.
    pub(crate) fn revoke_issuer(&mut self, issuer: &IssuerPublicKey) -> Result<(), LedgerFailure> {
        if self.records.issuer(issuer)?.is_none() {
            return Ok(());
        }
        self.records.remove_issuer(issuer)?;
        self.events.push(AuditEvent::IssuerRevoked { issuer: *issuer });
        self.revoke_all(
            |record| record.issuer == *issuer,
            |record| record.issuer == *issuer,
            RevocationReason::Issuer,
        )
    }

    // --- offers --------------------------------------------------------------------------------

    /// Takes an offer. `record` comes with its session's epoch still unset.
    pub(crate) fn offer(
        &mut self,
        id: &TicketId,
        mut record: TicketRecord,
        quotas: &QuotaLimits,
    ) -> Verdict<()> {
        match self.issuer_of(&record.issuer, &record.device)? {
            Ok(issuer) => record.generation = issuer.generation,
            Err(denial) => return Ok(Err(denial)),
        }
        if self.records.ticket(id)?.is_some() || self.records.credential(&record.credential)?.is_some() {
            return Ok(Err(Denial::OfferRepeated));
        }
        self.settle_session(&record.session)?;
        let session = self.records.session(&record.session)?;
        let counters = self.records.counters()?;
        if let Err(denial) = check_quotas(session.as_ref(), &counters, quotas) {
            return Ok(Err(denial));
        }
        let mut session = match session {
            Some(session) => session,
            None => {
                SessionRecord { epoch: self.records.next_number()?, open_tickets: 0, live_credentials: 0 }
            }
        };
        session.open_tickets = session.open_tickets.saturating_add(1);
        record.epoch = session.epoch;
        self.records.put_session(&record.session, &session)?;
        let mut counters = self.records.counters()?;
        counters.open_tickets = counters.open_tickets.saturating_add(1);
        self.records.put_counters(&counters)?;
        self.records.join_session(&record.session, Entry::Ticket(*id))?;
        self.records.schedule(ticket_due(&record), Entry::Ticket(*id))?;
        self.events.push(AuditEvent::TicketOffered {
            ticket: *id,
            credential: record.credential,
            session: record.session.clone(),
            device: record.device,
            ops: record.ops,
            label: record.label.clone(),
            expires_at: record.expires_at,
        });
        self.records.put_ticket(id, &record)?;
        Ok(Ok(()))
    }

    pub(crate) fn ticket(&mut self, id: &TicketId) -> Result<Option<TicketRecord>, LedgerFailure> {
        self.records.ticket(id)
    }

    // --- redemption ----------------------------------------------------------------------------

    /// Redeems a ticket for a phone that has proven it. The record that comes back stands, or waits
    /// for confirmation.
    pub(crate) fn redeem(
        &mut self,
        id: &TicketId,
        holder: &HolderPublicKey,
        redemption: &Redemption,
    ) -> Verdict<(CredentialId, CredentialRecord)> {
        let Some(ticket) = self.records.ticket(id)? else {
            return Ok(Err(Denial::TicketUnknown));
        };
        match ticket.state {
            TicketState::Claimed => self.redeem_again(id, &ticket, holder, redemption.session_live),
            TicketState::Revoked(RevocationReason::SessionEnd) => Ok(Err(Denial::SessionGone)),
            TicketState::Revoked(_) => Ok(Err(Denial::TicketRevoked)),
            // A gone session or issuer comes before the ticket's own end.
            TicketState::Expired => {
                let gone = self.may_claim(&ticket, redemption.session_live)?;
                Ok(gone.and(Err(Denial::TicketExpired)))
            }
            TicketState::Open(_) => {
                if let Err(denial) = self.may_claim(&ticket, redemption.session_live)? {
                    return Ok(Err(denial));
                }
                // Issuers choose credential ids, and two open tickets may name the same one.
                if self.records.credential(&ticket.credential)?.is_some() {
                    return Ok(Err(Denial::OfferRepeated));
                }
                match &redemption.bound {
                    Some(bytes) => self.claim(id, ticket, holder, bytes, redemption).map(Ok),
                    None => Ok(Err(Denial::Internal)),
                }
            }
        }
    }

    /// The credential that a ticket gave. Issuers choose credential ids, so a record under the same id
    /// may be another ticket's.
    fn credential_of(
        &mut self,
        id: &TicketId,
        ticket: &TicketRecord,
    ) -> Result<Option<CredentialRecord>, LedgerFailure> {
        Ok(self.records.credential(&ticket.credential)?.filter(|record| record.ticket == *id))
    }

    /// The credential that a redemption by `holder` contests, if it does.
    pub(crate) fn contested(
        &mut self,
        id: &TicketId,
        holder: &HolderPublicKey,
        session_live: bool,
    ) -> Result<Option<CredentialId>, LedgerFailure> {
        let Some(ticket) = self.records.ticket(id)? else { return Ok(None) };
        if ticket.state != TicketState::Claimed || self.now >= ticket.expires_at {
            return Ok(None);
        }
        match self.credential_of(id, &ticket)? {
            Some(record) if record.holder != *holder => {
                let standing = self.standing(&record, session_live)?;
                Ok(matches!(standing, Ok(()) | Err(Denial::ConfirmationPending)).then_some(ticket.credential))
            }
            _ => Ok(None),
        }
    }

    fn may_claim(&mut self, ticket: &TicketRecord, session_live: bool) -> Verdict<()> {
        let issuer = self.records.issuer(&ticket.issuer)?;
        if issuer.is_none_or(|issuer| issuer.generation != ticket.generation) {
            return Ok(Err(Denial::IssuerRevoked));
        }
        let session = self.records.session(&ticket.session)?;
        if !session_live || session.is_none_or(|session| session.epoch != ticket.epoch) {
            return Ok(Err(Denial::SessionGone));
        }
        Ok(if self.now >= ticket.expires_at { Err(Denial::TicketExpired) } else { Ok(()) })
    }

    fn claim(
        &mut self,
        id: &TicketId,
        ticket: TicketRecord,
        holder: &HolderPublicKey,
        bytes: &CredentialBytes,
        redemption: &Redemption,
    ) -> Result<(CredentialId, CredentialRecord), LedgerFailure> {
        let credential = ticket.credential;
        let state = match ticket.require_confirm {
            true => CredentialState::Pending { nonce: redemption.nonce, until: ticket.expires_at },
            false => CredentialState::Active,
        };
        let record = CredentialRecord {
            ticket: *id,
            holder: *holder,
            session: ticket.session.clone(),
            epoch: ticket.epoch,
            issuer: ticket.issuer,
            generation: ticket.generation,
            device: ticket.device,
            created_at: self.now,
            last_seen: None,
            expires_at: ticket.credential_expires_at,
            ops: ticket.ops,
            label: ticket.label.clone(),
            phone_label: redemption.label.clone(),
            state,
            bytes: bytes.clone(),
        };
        self.change_ticket(id, ticket, TicketState::Claimed)?;
        self.count_credential(&record.session, Count::Up)?;
        self.records.join_session(&record.session, Entry::Credential(credential))?;
        self.records.schedule(credential_due(&record), Entry::Credential(credential))?;
        self.records.put_credential(&credential, &record)?;
        self.events.push(AuditEvent::TicketRedeemed {
            ticket: *id,
            credential,
            session: record.session.clone(),
            holder: *holder,
            label: record.phone_label.clone(),
            pending: matches!(state, CredentialState::Pending { .. }),
        });
        Ok((credential, record))
    }

    /// The same phone gets the same credential. Another phone within the ticket's lifetime means that
    /// the code has leaked: both are out.
    fn redeem_again(
        &mut self,
        id: &TicketId,
        ticket: &TicketRecord,
        holder: &HolderPublicKey,
        session_live: bool,
    ) -> Verdict<(CredentialId, CredentialRecord)> {
        let credential = ticket.credential;
        let Some(record) = self.credential_of(id, ticket)? else {
            return Ok(Err(Denial::TicketUnknown));
        };
        let standing = self.standing(&record, session_live)?;
        if record.holder == *holder {
            match standing {
                Ok(()) | Err(Denial::ConfirmationPending) => {}
                Err(denial) => return Ok(Err(denial)),
            }
            if self.now >= ticket.expires_at.plus(RETRY_WINDOW) {
                return Ok(Err(Denial::TicketExpired));
            }
            return Ok(Ok((credential, record)));
        }
        match standing {
            // The same precedence as for the first phone, where there is nothing left to contest.
            Err(
                denial @ (Denial::CredentialRevoked
                | Denial::TicketContested
                | Denial::IssuerRevoked
                | Denial::SessionGone),
            ) => return Ok(Err(denial)),
            _ if self.now >= ticket.expires_at => return Ok(Err(Denial::TicketClaimed)),
            _ => {}
        }
        if is_live(&record.state) {
            let first = record.holder;
            self.revoke_entry(Entry::Credential(credential), RevocationReason::Contest)?;
            self.events.push(AuditEvent::TicketContested {
                ticket: *id,
                credential,
                holder: first,
                contender: *holder,
            });
        }
        Ok(Err(Denial::TicketContested))
    }

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
            _ if self.now >= record.expires_at => Err(Denial::CredentialExpired),
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
                self.change_credential(&id, record, CredentialState::Active)?;
                self.events.push(AuditEvent::CredentialConfirmed { credential: id, holder: *holder });
                Ok(Ok(()))
            }
            Err(denial) => Ok(Err(denial)),
        }
    }

    /// Notes that a phone is there. The stored time is at most a minute stale.
    pub(crate) fn attached(
        &mut self,
        id: &CredentialId,
        holder: &HolderPublicKey,
        ops: OpSet,
        session_live: bool,
    ) -> Verdict<()> {
        let Some(mut record) = self.records.credential(id)? else {
            return Ok(Err(Denial::CredentialUnknown));
        };
        if let Err(denial) = self.standing(&record, session_live)? {
            return Ok(Err(denial));
        }
        if record.last_seen.is_none_or(|seen| self.now.since(seen) >= LAST_SEEN_RESOLUTION) {
            record.last_seen = Some(self.now);
            self.records.put_credential(id, &record)?;
        }
        self.events.push(AuditEvent::PhoneAttached { credential: *id, holder: *holder, ops });
        Ok(Ok(()))
    }

    // --- revocation ----------------------------------------------------------------------------

    /// Revokes a ticket, or, once it was redeemed, its credential.
    pub(crate) fn revoke_ticket(&mut self, id: &TicketId) -> Result<(), LedgerFailure> {
        match self.records.ticket(id)? {
            Some(ticket) if ticket.state == TicketState::Claimed => match self.credential_of(id, &ticket)? {
                Some(_) => self.revoke_credential(&ticket.credential),
                None => Ok(()),
            },
            Some(_) => self.revoke_entry(Entry::Ticket(*id), RevocationReason::Owner),
            // A redeemed ticket's record is gone long before its credential's.
            None => self.revoke_all(|_| false, |record| record.ticket == *id, RevocationReason::Owner),
        }
    }

    /// Revokes a credential, or, before it was redeemed, the ticket that gives it.
    pub(crate) fn revoke_credential(&mut self, id: &CredentialId) -> Result<(), LedgerFailure> {
        match self.records.credential(id)? {
            Some(_) => self.revoke_entry(Entry::Credential(*id), RevocationReason::Owner),
            None => self.revoke_all(|record| record.credential == *id, |_| false, RevocationReason::Owner),
        }
    }

    /// Revokes whatever is picked. Looks at every record once.
    fn revoke_all(
        &mut self,
        of_ticket: impl Fn(&TicketRecord) -> bool,
        of_credential: impl Fn(&CredentialRecord) -> bool,
        why: RevocationReason,
    ) -> Result<(), LedgerFailure> {
        for entry in self.records.all()? {
            let picked = match entry {
                Entry::Ticket(id) => self.records.ticket(&id)?.is_some_and(|record| of_ticket(&record)),
                Entry::Credential(id) => {
                    self.records.credential(&id)?.is_some_and(|record| of_credential(&record))
                }
            };
            if picked {
                self.revoke_entry(entry, why)?;
            }
        }
        Ok(())
    }

    /// Ends everything of a session and moves its epoch on.
    pub(crate) fn close_session(
        &mut self,
        id: &SessionId,
        why: RevocationReason,
    ) -> Result<(), LedgerFailure> {
        for entry in self.records.of_session(id, usize::MAX)? {
            self.revoke_entry(entry, why)?;
        }
        if let Some(mut session) = self.records.session(id)? {
            session.epoch = self.records.next_number()?;
            self.records.put_session(id, &session)?;
            self.events.push(AuditEvent::SessionClosed { session: id.clone(), why });
        }
        Ok(())
    }

    fn revoke_entry(&mut self, entry: Entry, why: RevocationReason) -> Result<(), LedgerFailure> {
        match entry {
            Entry::Ticket(id) => {
                let Some(record) = self.records.ticket(&id)? else { return Ok(()) };
                if matches!(record.state, TicketState::Open(_)) {
                    self.change_ticket(&id, record, TicketState::Revoked(why))?;
                    self.events.push(AuditEvent::TicketRevoked { ticket: id, why });
                }
            }
            Entry::Credential(id) => {
                let Some(record) = self.records.credential(&id)? else { return Ok(()) };
                if is_live(&record.state) {
                    self.change_credential(&id, record, CredentialState::Revoked(why))?;
                    self.events.push(AuditEvent::CredentialRevoked { credential: id, why });
                }
            }
        }
        Ok(())
    }

    // --- listing -------------------------------------------------------------------------------

    /// Everything of one session, or of all.
    pub(crate) fn entries(&mut self, session: Option<&SessionId>) -> Result<Vec<Entry>, LedgerFailure> {
        match session {
            Some(session) => self.records.of_session(session, usize::MAX),
            None => self.records.all(),
        }
    }

    // --- time ----------------------------------------------------------------------------------

    /// Ends what is due and removes what nobody asks for any more: the earliest first, a bounded
    /// number in one transition.
    pub(crate) fn settle(&mut self) -> Result<(), LedgerFailure> {
        for (at, entry) in self.records.due(self.now, COLLECT_PER_TRANSITION)? {
            self.settle_entry(at, entry)?;
        }
        Ok(())
    }

    /// The same for one session, so that its quotas count what is live now.
    fn settle_session(&mut self, session: &SessionId) -> Result<(), LedgerFailure> {
        for entry in self.records.of_session(session, usize::MAX)? {
            let due = match entry {
                Entry::Ticket(id) => self.records.ticket(&id)?.map(|record| ticket_due(&record)),
                Entry::Credential(id) => self.records.credential(&id)?.map(|record| credential_due(&record)),
            };
            if let Some(due) = due.filter(|due| *due <= self.now) {
                self.settle_entry(due, entry)?;
            }
        }
        Ok(())
    }

    fn settle_entry(&mut self, at: Timestamp, entry: Entry) -> Result<(), LedgerFailure> {
        match entry {
            Entry::Ticket(id) => match self.records.ticket(&id)? {
                Some(record) if matches!(record.state, TicketState::Open(_)) => {
                    self.change_ticket(&id, record, TicketState::Expired)?;
                    self.events.push(AuditEvent::TicketExpired { ticket: id });
                }
                Some(record) => {
                    self.records.remove_ticket(&id)?;
                    self.records.unschedule(at, entry)?;
                    self.forget(&record.session, entry)?;
                }
                None => self.records.unschedule(at, entry)?,
            },
            Entry::Credential(id) => match self.records.credential(&id)? {
                Some(record) if is_live(&record.state) => {
                    self.change_credential(&id, record, CredentialState::Expired)?;
                    self.events.push(AuditEvent::CredentialExpired { credential: id });
                }
                Some(record) => {
                    self.records.remove_credential(&id)?;
                    self.records.unschedule(at, entry)?;
                    self.forget(&record.session, entry)?;
                }
                None => self.records.unschedule(at, entry)?,
            },
        }
        Ok(())
    }

    /// Takes an entry out of its session, and the session with its last entry.
    fn forget(&mut self, session: &SessionId, entry: Entry) -> Result<(), LedgerFailure> {
        self.records.leave_session(session, entry)?;
        if self.records.of_session(session, 1)?.is_empty() {
            self.records.remove_session(session)?;
        }
        Ok(())
    }

    // --- writing -------------------------------------------------------------------------------

    /// Moves a ticket on, with its schedule and its count.
    fn change_ticket(
        &mut self,
        id: &TicketId,
        mut record: TicketRecord,
        to: TicketState,
    ) -> Result<(), LedgerFailure> {
        self.records.unschedule(ticket_due(&record), Entry::Ticket(*id))?;
        let was_open = matches!(record.state, TicketState::Open(_));
        record.state = to;
        if was_open && !matches!(record.state, TicketState::Open(_)) {
            let mut counters = self.records.counters()?;
            counters.open_tickets = counters.open_tickets.saturating_sub(1);
            self.records.put_counters(&counters)?;
            if let Some(mut session) = self.records.session(&record.session)? {
                session.open_tickets = session.open_tickets.saturating_sub(1);
                self.records.put_session(&record.session, &session)?;
            }
        }
        self.records.schedule(ticket_due(&record), Entry::Ticket(*id))?;
        self.records.put_ticket(id, &record)
    }

    /// Moves a credential on, with its schedule and its count.
    fn change_credential(
        &mut self,
        id: &CredentialId,
        mut record: CredentialRecord,
        to: CredentialState,
    ) -> Result<(), LedgerFailure> {
        self.records.unschedule(credential_due(&record), Entry::Credential(*id))?;
        if is_live(&record.state) && !is_live(&to) {
            self.count_credential(&record.session, Count::Down)?;
        }
        record.state = to;
        self.records.schedule(credential_due(&record), Entry::Credential(*id))?;
        self.records.put_credential(id, &record)
    }

    fn count_credential(&mut self, session: &SessionId, count: Count) -> Result<(), LedgerFailure> {
        let step = |number: u32| match count {
            Count::Up => number.saturating_add(1),
            Count::Down => number.saturating_sub(1),
        };
        let mut counters = self.records.counters()?;
        counters.live_credentials = step(counters.live_credentials);
        self.records.put_counters(&counters)?;
        if let Some(mut record) = self.records.session(session)? {
            record.live_credentials = step(record.live_credentials);
            self.records.put_session(session, &record)?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Count {
    Up,
    Down,
}

/// What a redemption brings along.
pub(crate) struct Redemption {
    pub(crate) label: Label,
    pub(crate) bound: Option<CredentialBytes>,
    pub(crate) nonce: [u8; 16],
    pub(crate) session_live: bool,
}

/// A credential that may be used, now or after a confirmation.
pub(crate) fn is_live(state: &CredentialState) -> bool {
    matches!(state, CredentialState::Pending { .. } | CredentialState::Active)
}

/// When something has to happen to a ticket: its end, and later its removal.
fn ticket_due(record: &TicketRecord) -> Timestamp {
    match record.state {
        TicketState::Open(_) => record.expires_at,
        TicketState::Claimed | TicketState::Revoked(_) | TicketState::Expired => {
            record.expires_at.plus(RETRY_WINDOW)
        }
    }
}

/// When something has to happen to a credential: the end of waiting, its end, and later its removal.
fn credential_due(record: &CredentialRecord) -> Timestamp {
    match record.state {
        CredentialState::Pending { until, .. } => until.min(record.expires_at),
        CredentialState::Active => record.expires_at,
        CredentialState::Revoked(_) | CredentialState::Expired => record.expires_at.plus(TOMBSTONE_GRACE),
    }
}

/// An open ticket reserves the place of its credential, so that a redemption never fails for want of
/// one.
fn check_quotas(
    session: Option<&SessionRecord>,
    agent: &Counters,
    quotas: &QuotaLimits,
) -> Result<(), Denial> {
    let (tickets, credentials) =
        session.map_or((0, 0), |session| (session.open_tickets, session.live_credentials));
    let used = [
        (Quota::TicketsPerSession, tickets, quotas.tickets_per_session),
        (Quota::CredentialsPerSession, tickets.saturating_add(credentials), quotas.credentials_per_session),
        (Quota::TicketsPerAgent, agent.open_tickets, quotas.tickets_per_agent),
        (
            Quota::CredentialsPerAgent,
            agent.open_tickets.saturating_add(agent.live_credentials),
            quotas.credentials_per_agent,
        ),
    ];
    match used.into_iter().find(|(_, used, max)| used >= max) {
        Some((quota, _, max)) => Err(Denial::QuotaReached { quota, max }),
        None => Ok(()),
    }
}
