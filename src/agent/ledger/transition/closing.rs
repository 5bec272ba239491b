//! Revocations and the names that they close while they are in progress.

use std::sync::Arc;

use super::Step;
use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::guard::Cut;
use crate::agent::ledger::record::{CredentialRecord, TicketRecord};
use crate::agent::ledger::rows::Entry;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{DevicePublicKey, IssuerPublicKey};
use crate::label::Label;
use crate::pair::{RevocationReason, Revoked};

/// A revocation: its target and reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Revocation {
    Ticket(TicketId),
    Credential(CredentialId),
    /// A second phone has presented the ticket of this credential.
    Contest(CredentialId),
    Session(SessionId),
    SessionEnd(SessionId),
    /// The context reports the session as gone: only this epoch.
    SessionGone(SessionId, u64),
    Issuer(IssuerPublicKey),
    /// The context reports the device as gone: only this generation of its issuer.
    IssuerGone(IssuerPublicKey, u64),
    Device(DevicePublicKey),
    /// Every device that is not in this set.
    DevicesOutside(Arc<[DevicePublicKey]>),
    /// Everything that a device has offered under this phone name.
    Phone(DevicePublicKey, Label),
    /// Every record, and the agent's time.
    Everything,
}

/// The names of a ticket or credential.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Names<'a> {
    pub(crate) ticket: Option<&'a TicketId>,
    pub(crate) credential: Option<&'a CredentialId>,
    pub(crate) session: Option<&'a SessionId>,
    pub(crate) issuer: Option<&'a IssuerPublicKey>,
    pub(crate) device: Option<&'a DevicePublicKey>,
    pub(crate) label: Option<&'a Label>,
}

impl<'a> Names<'a> {
    pub(crate) fn of_ticket(id: &'a TicketId, record: &'a TicketRecord) -> Self {
        Self {
            ticket: Some(id),
            credential: Some(&record.credential),
            session: Some(&record.session),
            issuer: Some(&record.issuer),
            device: Some(&record.device),
            label: Some(&record.label),
        }
    }

    pub(crate) fn of_credential(id: &'a CredentialId, record: &'a CredentialRecord) -> Self {
        Self {
            ticket: Some(&record.ticket),
            credential: Some(id),
            session: Some(&record.session),
            issuer: Some(&record.issuer),
            device: Some(&record.device),
            label: Some(&record.label),
        }
    }
}

impl Revocation {
    /// Whether it revokes something with these names. An unknown name does not match.
    pub(crate) fn takes(&self, names: &Names<'_>) -> bool {
        match self {
            Self::Ticket(ticket) => names.ticket == Some(ticket),
            Self::Credential(credential) | Self::Contest(credential) => names.credential == Some(credential),
            Self::Session(session) | Self::SessionEnd(session) | Self::SessionGone(session, _) => {
                names.session == Some(session)
            }
            Self::Issuer(issuer) | Self::IssuerGone(issuer, _) => names.issuer == Some(issuer),
            Self::Device(device) => names.device == Some(device),
            Self::DevicesOutside(enrolled) => names.device.is_some_and(|device| !enrolled.contains(device)),
            Self::Phone(device, label) => names.device == Some(device) && names.label == Some(label),
            Self::Everything => true,
        }
    }

    /// Whether it is a set of devices, which replaces earlier sets.
    fn is_device_set(&self) -> bool {
        matches!(self, Self::DevicesOutside(_))
    }

    /// Returns the reason for cutting its streams.
    pub(crate) fn cut(&self) -> Cut {
        match self {
            Self::Contest(_) => Cut::Contested,
            Self::SessionEnd(_) | Self::SessionGone(..) => Cut::SessionGone,
            _ => Cut::Revoked,
        }
    }

    /// Returns the reason for refusing a phone meanwhile.
    fn denial(&self) -> Denial {
        match self {
            Self::Contest(_) => Denial::TicketContested,
            Self::SessionEnd(_) | Self::SessionGone(..) => Denial::SessionGone,
            Self::Issuer(_) | Self::IssuerGone(..) | Self::Device(_) | Self::DevicesOutside(_) => {
                Denial::IssuerRevoked
            }
            Self::Everything => Denial::Interrupted,
            Self::Ticket(_) | Self::Credential(_) | Self::Session(_) | Self::Phone(..) => {
                Denial::CredentialRevoked
            }
        }
    }

    /// Whether earlier answers of the agent's context may be outdated, because an id may be reused
    /// afterwards. Ending one pairing does not outdate them.
    pub(crate) fn outdates_context(&self) -> bool {
        !matches!(self, Self::Ticket(_) | Self::Credential(_) | Self::Contest(_) | Self::Phone(..))
    }

    /// Applies it to the records, and returns what it has ended.
    pub(crate) fn apply(&self, step: &mut Step<'_>) -> Result<Revoked, LedgerFailure> {
        let before = step.events().len();
        self.write(step)?;
        Ok(match step.ended_since(before) {
            Some(pairings) => Revoked::Ended { pairings },
            None if self.is_known(step)? => Revoked::Already,
            None => Revoked::Unknown,
        })
    }

    /// Applies each to the records, and returns those that have ended something.
    pub(crate) fn apply_each<'a>(
        revocations: impl Iterator<Item = &'a Self>,
        step: &mut Step<'_>,
    ) -> Result<Vec<Self>, LedgerFailure> {
        let mut ended = Vec::new();
        for revocation in revocations {
            if let Revoked::Ended { .. } = revocation.apply(step)? {
                ended.push(revocation.clone());
            }
        }
        Ok(ended)
    }

    /// Whether this name is on record, although nothing of it is usable.
    fn is_known(&self, step: &Step<'_>) -> Result<bool, LedgerFailure> {
        match self {
            Self::Ticket(id) => Ok(step.ticket(id)?.is_some()),
            Self::Credential(id) | Self::Contest(id) => Ok(step.credential(id)?.is_some()),
            Self::Session(id) | Self::SessionEnd(id) | Self::SessionGone(id, _) => step.has_session(id),
            Self::Device(device) => step.has_device(device),
            // No record of them is kept.
            Self::Issuer(_) | Self::IssuerGone(..) | Self::Phone(..) => Ok(false),
            // They match any state.
            Self::DevicesOutside(_) | Self::Everything => Ok(true),
        }
    }

    fn write(&self, step: &mut Step<'_>) -> Result<(), LedgerFailure> {
        match self {
            Self::Ticket(id) => step.revoke_ticket(id),
            Self::Credential(id) => step.revoke_credential(id),
            Self::Contest(id) => step.revoke_entry(Entry::Credential(*id), RevocationReason::Contest),
            Self::Session(id) => step.close_session(id, RevocationReason::Session, None),
            Self::SessionEnd(id) => step.close_session(id, RevocationReason::SessionEnd, None),
            Self::SessionGone(id, epoch) => {
                step.close_session(id, RevocationReason::SessionEnd, Some(*epoch))
            }
            Self::Issuer(issuer) => step.revoke_issuer(issuer, None),
            Self::IssuerGone(issuer, generation) => step.revoke_issuer(issuer, Some(*generation)),
            Self::Device(device) => step
                .issuers_where(|of| of == device)?
                .iter()
                .try_for_each(|issuer| step.revoke_issuer(issuer, None)),
            Self::DevicesOutside(enrolled) => step
                .issuers_where(|of| !enrolled.contains(of))?
                .iter()
                .try_for_each(|issuer| step.revoke_issuer(issuer, None)),
            Self::Phone(device, label) => step.revoke_phone(device, label),
            Self::Everything => step.clear(),
        }
    }
}

/// The closed names: those of revocations in progress, and of revocations that were not, or may not have
/// been, written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Closed(Vec<Closing>);

#[derive(Debug, Clone)]
struct Closing {
    number: u64,
    revocation: Revocation,
    /// Whether its write has failed, so that a later transaction must write it.
    unwritten: bool,
}

impl Closed {
    /// No closed names.
    pub(crate) const NONE: &'static Self = &Self(Vec::new());

    /// Returns why a phone with these names is refused.
    pub(crate) fn denial(&self, names: &Names<'_>) -> Option<Denial> {
        self.0
            .iter()
            .find(|closing| closing.revocation.takes(names))
            .map(|closing| closing.revocation.denial())
    }

    /// Refuses a desktop's request for these names, which it has to repeat.
    pub(crate) fn interrupts(&self, names: &Names<'_>) -> Result<(), Denial> {
        match self.denial(names) {
            Some(_) => Err(Denial::Interrupted),
            None => Ok(()),
        }
    }

    /// Closes what a revocation names, under its number.
    pub(crate) fn begin(&mut self, number: u64, revocation: Revocation) {
        self.0.push(Closing { number, revocation, unwritten: false });
    }

    /// Removes a revocation that is on record.
    pub(crate) fn written(&mut self, number: u64) {
        self.0.retain(|closing| closing.number != number);
    }

    /// Keeps a revocation that was not, or may not have been, written. Of several equal ones, and of several
    /// sets of devices, only the latest is kept.
    pub(crate) fn unwritten(&mut self, number: u64) {
        let Some(at) = self.0.iter().position(|closing| closing.number == number) else { return };
        let failed = self.0.remove(at);
        let same = |other: &Closing| {
            other.unwritten
                && (other.revocation == failed.revocation
                    || other.revocation.is_device_set() && failed.revocation.is_device_set())
        };
        if self.0.iter().any(|other| same(other) && other.number > number) {
            return;
        }
        self.0.retain(|other| !same(other));
        self.0.push(Closing { unwritten: true, ..failed });
    }

    /// Returns the revocations that a later transaction must write, the oldest first, with their numbers.
    pub(crate) fn to_write(&self) -> impl Iterator<Item = (u64, &Revocation)> {
        self.0.iter().filter(|closing| closing.unwritten).map(|closing| (closing.number, &closing.revocation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::DeviceSecretKey;

    fn session(name: &str) -> Revocation {
        Revocation::Session(SessionId::new(name).unwrap())
    }

    fn devices(seeds: &[u8]) -> Revocation {
        Revocation::DevicesOutside(
            seeds.iter().map(|seed| DeviceSecretKey::from_bytes([*seed; 32]).public()).collect(),
        )
    }

    /// Begins each under its number, from 1 on, and lets the writes of some fail, in this order.
    fn after(begun: &[Revocation], failed: &[u64]) -> Closed {
        let mut closed = Closed::default();
        for (number, revocation) in (1..).zip(begun) {
            closed.begin(number, revocation.clone());
        }
        failed.iter().for_each(|number| closed.unwritten(*number));
        closed
    }

    fn to_write(closed: &Closed) -> Vec<u64> {
        closed.to_write().map(|(number, _)| number).collect()
    }

    fn closes(closed: &Closed, name: &str) -> bool {
        let session = SessionId::new(name).unwrap();
        closed.denial(&Names { session: Some(&session), ..Names::default() }).is_some()
    }

    #[test]
    fn of_revocations_that_say_the_same_the_latest_is_written_late() {
        let same = [session("a"), session("a"), session("b")];
        assert_eq!(to_write(&after(&same, &[1, 2])), [2]);
        assert_eq!(to_write(&after(&same, &[2, 1])), [2], "whichever fails first");
        assert_eq!(to_write(&after(&same, &[1, 3])), [1, 3], "another name is another revocation");
        assert_eq!(to_write(&after(&same, &[3, 2, 1])), [3, 2]);
    }

    #[test]
    fn of_sets_of_devices_the_latest_is_written_late_and_nothing_else_goes_with_an_earlier_one() {
        let sets = [devices(&[1, 2]), session("a"), devices(&[1]), devices(&[3])];
        assert_eq!(to_write(&after(&sets, &[1, 2, 3])), [2, 3]);
        assert_eq!(to_write(&after(&sets, &[4, 3, 2, 1])), [4, 2]);
        assert_eq!(to_write(&after(&sets, &[2, 1])), [2, 1]);
    }

    #[test]
    fn a_revocation_in_progress_stays_closed_when_others_end() {
        let mut closed = after(&[session("a"), session("a"), session("b"), session("c")], &[1, 4]);
        assert!(closes(&closed, "a") && closes(&closed, "b") && closes(&closed, "c"));
        assert_eq!(to_write(&closed), [1, 4]);
        closed.written(1);
        assert!(closes(&closed, "a"), "the second is not on record");
        closed.written(2);
        assert!(!closes(&closed, "a") && closes(&closed, "b") && closes(&closed, "c"));
        // A number that is not under way any more changes nothing.
        closed.unwritten(2);
        closed.written(2);
        assert!(!closes(&closed, "a") && closes(&closed, "b") && to_write(&closed) == [4]);
        closed.written(3);
        closed.written(4);
        assert!(closed.denial(&Names::default()).is_none() && to_write(&closed).is_empty());
    }
}
