//! The connected credentials, indexes for cutting them, and the closed names.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Weak};

use time::Duration;

use super::pending::{PendingMark, Waiting};
use crate::agent::denial::Denial;
use crate::agent::guard::{Cut, Lease, Live, Watch};
use crate::agent::ledger::observed::Over;
use crate::agent::ledger::record::CredentialRecord;
use crate::agent::ledger::transition::{Closed, Names, Revocation, Seen};
use crate::agent::stats::Counters;
use crate::clock::Timestamp;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{DevicePublicKey, IssuerPublicKey};
use crate::label::Label;
use crate::limits::{LAST_SEEN_RESOLUTION, MAX_UNWRITTEN, MAX_VISITS_OWED, UNKNOWN_TIMEOUT};
use crate::op::OpSet;

/// The credentials that have connections or waiting admissions, and the unwritten revocations.
pub(crate) struct Registry {
    lease: Arc<Lease>,
    counters: Arc<Counters>,
    entries: HashMap<CredentialId, Entry>,
    by_ticket: HashMap<TicketId, HashSet<CredentialId>>,
    by_session: HashMap<SessionId, HashSet<CredentialId>>,
    by_issuer: HashMap<IssuerPublicKey, HashSet<CredentialId>>,
    by_device: HashMap<DevicePublicKey, HashSet<CredentialId>>,
    by_end: BTreeSet<(Timestamp, CredentialId)>,
    prune_at: usize,
    closed: Arc<Closed>,
    /// The last number given to a revocation.
    revocations: u64,
    /// How many revocations have outdated answers of the agent's context.
    revocation_epoch: u64,
    waiting: Waiting,
    /// How often something was revoked, narrowed, ended or confirmed to be so. What was read before a change is
    /// not published after it.
    changes: u64,
    /// The visits of phones that the next commit writes, with the order in which they came.
    visits: HashMap<CredentialId, (u64, Seen)>,
    /// The number of the next visit.
    next_visit: u64,
    /// Since when the context has answered "unknown", by session and by device.
    unknown: HashMap<Subject, Duration>,
    /// How many credentials cuts have looked at.
    #[cfg(test)]
    looked_at: usize,
}

struct Entry {
    /// Usually one. A cut one stays listed while anyone holds it, so that a second revoker waits for the same
    /// permits as the first.
    lives: Vec<Weak<Live>>,
    ticket: TicketId,
    session: SessionId,
    epoch: u64,
    issuer: IssuerPublicKey,
    generation: u64,
    device: DevicePublicKey,
    label: Label,
    ends_at: Timestamp,
    /// The widest terms under which a stream may have joined since the last narrowing that was observed.
    widest: (OpSet, Timestamp),
}

/// A subject that the context is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    /// A session, with its epoch.
    Session(SessionId, u64),
    /// A device, with one of its issuers and that issuer's generation.
    Device(DevicePublicKey, IssuerPublicKey, u64),
}

impl Registry {
    pub(crate) fn new(lease: Arc<Lease>, counters: Arc<Counters>) -> Self {
        Self {
            lease,
            counters,
            entries: HashMap::new(),
            by_ticket: HashMap::new(),
            by_session: HashMap::new(),
            by_issuer: HashMap::new(),
            by_device: HashMap::new(),
            by_end: BTreeSet::new(),
            prune_at: 64,
            closed: Arc::default(),
            revocations: 0,
            revocation_epoch: 0,
            waiting: Waiting::default(),
            changes: 0,
            visits: HashMap::new(),
            next_visit: 0,
            unknown: HashMap::new(),
            #[cfg(test)]
            looked_at: 0,
        }
    }

    // --- connected credentials ---

    /// Returns the live state of a credential whose record was just found valid, unless its name is closed.
    pub(crate) fn join(&mut self, id: &CredentialId, record: &CredentialRecord) -> Result<Arc<Live>, Denial> {
        if let Some(denial) = self.closed.denial(&Names::of_credential(id, record)) {
            return Err(denial);
        }
        if let Some(live) = self.find(id) {
            // Another node may have extended it. The guards have ends of their own.
            let ends_at = self.end_of(id).max(Some(record.ends_at()));
            ends_at.into_iter().for_each(|ends_at| self.ends_at(id, ends_at));
            if let Some(entry) = self.entries.get_mut(id) {
                let (ops, end) = entry.widest;
                let latest = record.latest();
                entry.widest = (ops.union(latest.ops), end.max(latest.expires_at));
            }
            return Ok(live);
        }
        if self.entries.len() >= self.prune_at {
            self.prune();
        }
        let live = Live::new(Arc::clone(&self.lease), Watch::new(*id, Arc::clone(&self.counters)));
        self.list(id, record, &live);
        Ok(live)
    }

    fn list(&mut self, id: &CredentialId, record: &CredentialRecord, live: &Arc<Live>) {
        // A credential that was cut may rejoin with other terms.
        let mut lives = self.unlist(id).map(|entry| entry.lives).unwrap_or_default();
        lives.retain(|live| live.strong_count() > 0);
        lives.push(Arc::downgrade(live));
        let entry = Entry {
            lives,
            ticket: record.ticket,
            session: record.session.clone(),
            epoch: record.epoch,
            issuer: record.issuer,
            generation: record.generation,
            device: record.device,
            label: record.label.clone(),
            ends_at: record.ends_at(),
            widest: (record.latest().ops, record.latest().expires_at),
        };
        self.by_ticket.entry(entry.ticket).or_default().insert(*id);
        self.by_session.entry(entry.session.clone()).or_default().insert(*id);
        self.by_issuer.entry(entry.issuer).or_default().insert(*id);
        self.by_device.entry(entry.device).or_default().insert(*id);
        self.by_end.insert((entry.ends_at, *id));
        self.entries.insert(*id, entry);
    }

    fn unlist(&mut self, id: &CredentialId) -> Option<Entry> {
        let entry = self.entries.remove(id)?;
        leave(&mut self.by_ticket, &entry.ticket, id);
        leave(&mut self.by_session, &entry.session, id);
        leave(&mut self.by_issuer, &entry.issuer, id);
        leave(&mut self.by_device, &entry.device, id);
        self.by_end.remove(&(entry.ends_at, *id));
        Some(entry)
    }

    /// Removes entries that nobody holds. Runs when their number has doubled, which spreads its cost over the
    /// joins.
    fn prune(&mut self) {
        let gone = |entry: &Entry| entry.lives.iter().all(|live| live.strong_count() == 0);
        let gone: Vec<CredentialId> =
            self.entries.iter().filter(|(_, entry)| gone(entry)).map(|(id, _)| *id).collect();
        for id in gone {
            self.unlist(&id);
        }
        self.prune_at = self.entries.len().saturating_mul(2).max(64);
    }

    /// Returns the live state of a credential that has connections or waiting admissions.
    pub(crate) fn find(&self, id: &CredentialId) -> Option<Arc<Live>> {
        let lives = self.entries.get(id)?.lives.iter();
        lives.rev().filter_map(Weak::upgrade).find(|live| !live.is_cut())
    }

    pub(crate) fn connections(&self, id: &CredentialId) -> usize {
        self.find(id).map_or(0, |live| live.connections())
    }

    /// Returns the credentials that have connections or waiting admissions. Nothing that was read before joins
    /// them afterwards.
    pub(crate) fn connected(&mut self) -> Vec<CredentialId> {
        self.change();
        self.entries.keys().filter(|id| self.find(id).is_some()).copied().collect()
    }

    /// Counts a change: what was read before it is not published.
    pub(crate) fn change(&mut self) {
        self.changes = self.changes.wrapping_add(1);
    }

    /// Returns how many changes there were.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Updates the end of a credential's record.
    pub(crate) fn ends_at(&mut self, id: &CredentialId, ends_at: Timestamp) {
        if let Some(entry) = self.entries.get_mut(id) {
            self.by_end.remove(&(entry.ends_at, *id));
            self.by_end.insert((ends_at, *id));
            entry.ends_at = ends_at;
        }
    }

    /// Returns the end of a connected credential's record.
    pub(crate) fn end_of(&self, id: &CredentialId) -> Option<Timestamp> {
        self.entries.get(id).map(|entry| entry.ends_at)
    }

    /// Notes the latest terms of a connected credential, as another node has put them on record, and returns
    /// whether some stream may have wider ones. Most changes of a record are no narrowing.
    pub(super) fn narrows(&mut self, id: &CredentialId, ops: OpSet, end: Timestamp) -> bool {
        let Some(entry) = self.entries.get_mut(id) else { return false };
        let (known, until) = core::mem::replace(&mut entry.widest, (ops, end));
        !known.is_subset_of(ops) || end < until
    }

    // --- cuts ---

    /// Cuts what was joined in epochs of a session that are over.
    pub(super) fn cut_epochs(&mut self, session: &SessionId, over: Over) -> Vec<Arc<Live>> {
        let ids = self.by_session.get(session);
        let ids = self.only(ids, |entry| over.takes(entry.epoch));
        self.cut_each(ids, Cut::SessionGone)
    }

    /// Cuts what was joined under generations of an issuer that are over.
    pub(super) fn cut_generations(&mut self, issuer: &IssuerPublicKey, over: Over) -> Vec<Arc<Live>> {
        let ids = self.by_issuer.get(issuer);
        let ids = self.only(ids, |entry| over.takes(entry.generation));
        self.cut_each(ids, Cut::Revoked)
    }

    fn only(
        &self,
        ids: Option<&HashSet<CredentialId>>,
        wanted: impl Fn(&Entry) -> bool,
    ) -> Vec<CredentialId> {
        let ids = ids.into_iter().flatten().copied();
        ids.filter(|id| self.entries.get(id).is_some_and(&wanted)).collect()
    }

    /// Cuts what a revocation names and returns it, so that the caller can wait for its permits after
    /// releasing the lock. The cost grows with what it names.
    pub(crate) fn cut(&mut self, revocation: &Revocation) -> Vec<Arc<Live>> {
        let ids = self.named_by(revocation);
        self.cut_each(ids, revocation.cut())
    }

    pub(crate) fn cut_all(&mut self, why: Cut) -> Vec<Arc<Live>> {
        let ids = self.entries.keys().copied().collect();
        self.cut_each(ids, why)
    }

    /// Cuts what has expired by the agent's time, and returns those credentials. Expiry by the agent's time
    /// is final, whatever a stream's own clock reads later.
    pub(crate) fn cut_expired(&mut self, now: Timestamp) -> (Vec<CredentialId>, Vec<Arc<Live>>) {
        if self.by_end.first().is_none_or(|(ends_at, _)| *ends_at > now) {
            return (Vec::new(), Vec::new());
        }
        let mut ids = Vec::new();
        while let Some((ends_at, id)) = self.by_end.first().copied().filter(|(ends_at, _)| *ends_at <= now) {
            self.by_end.remove(&(ends_at, id));
            ids.push(id);
        }
        let cut = self.cut_each(ids.clone(), Cut::Expired);
        (ids, cut)
    }

    pub(crate) fn cut_one(&mut self, id: CredentialId, why: Cut) -> Vec<Arc<Live>> {
        self.cut_each(vec![id], why)
    }

    fn cut_each(&mut self, ids: Vec<CredentialId>, why: Cut) -> Vec<Arc<Live>> {
        self.change();
        let mut cut = Vec::new();
        #[cfg(test)]
        {
            self.looked_at = self.looked_at.saturating_add(ids.len());
        }
        for id in ids {
            let lives = self.entries.get(&id).map(|entry| entry.lives.iter().filter_map(Weak::upgrade));
            let lives: Vec<_> = lives.into_iter().flatten().collect();
            if lives.is_empty() {
                self.unlist(&id);
            }
            for live in lives {
                live.cut(why);
                cut.push(live);
            }
        }
        cut
    }

    fn named_by(&self, revocation: &Revocation) -> Vec<CredentialId> {
        let all =
            |ids: Option<&HashSet<CredentialId>>| ids.into_iter().flatten().copied().collect::<Vec<_>>();
        let only = |mut ids: Vec<CredentialId>, wanted: &dyn Fn(&Entry) -> bool| {
            ids.retain(|id| self.entries.get(id).is_some_and(wanted));
            ids
        };
        match revocation {
            Revocation::Ticket(ticket) => all(self.by_ticket.get(ticket)),
            Revocation::Credential(id) | Revocation::Contest(id) => vec![*id],
            Revocation::Session(session) | Revocation::SessionEnd(session) => {
                all(self.by_session.get(session))
            }
            Revocation::SessionGone(session, epoch) => {
                only(all(self.by_session.get(session)), &|entry| entry.epoch == *epoch)
            }
            Revocation::Issuer(issuer) => all(self.by_issuer.get(issuer)),
            Revocation::IssuerGone(issuer, generation) => {
                only(all(self.by_issuer.get(issuer)), &|entry| entry.generation == *generation)
            }
            Revocation::Device(device) => all(self.by_device.get(device)),
            Revocation::DevicesOutside(enrolled) => {
                let outside = self.by_device.iter().filter(|(device, _)| !enrolled.contains(device));
                outside.flat_map(|(_, ids)| ids).copied().collect()
            }
            Revocation::Phone(device, label) => {
                only(all(self.by_device.get(device)), &|entry| entry.label == *label)
            }
            Revocation::Everything => self.entries.keys().copied().collect(),
        }
    }

    // --- closed names ---

    /// Closes what a revocation names and cuts it. Returns a number that identifies it.
    pub(crate) fn begin(&mut self, revocation: &Revocation) -> (u64, Vec<Arc<Live>>) {
        self.revocations = self.revocations.saturating_add(1);
        if revocation.outdates_context() {
            self.revocation_epoch = self.revocation_epoch.saturating_add(1);
        }
        Arc::make_mut(&mut self.closed).begin(self.revocations, revocation.clone());
        (self.revocations, self.cut(revocation))
    }

    /// Notes that the revocation is on record.
    pub(crate) fn written(&mut self, number: u64) {
        self.change();
        Arc::make_mut(&mut self.closed).written(number);
        self.counters.gauges.set_unwritten(self.closed.to_write().count());
    }

    /// Notes that the revocation was not, or may not have been, written: what it names stays closed until it
    /// is.
    ///
    /// # Errors
    /// [`TooMany`] if the gate has the most unwritten revocations already.
    pub(crate) fn unwritten(&mut self, number: u64) -> Result<(), TooMany> {
        let closed = Arc::make_mut(&mut self.closed);
        closed.unwritten(number);
        let unwritten = closed.to_write().count();
        self.counters.gauges.set_unwritten(unwritten);
        if unwritten > MAX_UNWRITTEN { Err(TooMany) } else { Ok(()) }
    }

    /// Returns the names that are closed now.
    pub(crate) fn closed(&self) -> Arc<Closed> {
        Arc::clone(&self.closed)
    }

    /// Returns how many revocations have outdated answers of the context.
    pub(crate) fn revocation_epoch(&self) -> u64 {
        self.revocation_epoch
    }

    // --- answers of the context ---

    /// Notes that earlier answers of the context may be outdated.
    pub(super) fn outdate_context(&mut self) {
        self.revocation_epoch = self.revocation_epoch.saturating_add(1);
    }

    /// Returns the subjects to ask the context about: each session and device of a connection, once.
    pub(crate) fn subjects(&self) -> Vec<Subject> {
        let mut subjects = HashSet::new();
        for (id, entry) in &self.entries {
            if self.find(id).is_some() {
                subjects.insert(Subject::Session(entry.session.clone(), entry.epoch));
                subjects.insert(Subject::Device(entry.device, entry.issuer, entry.generation));
            }
        }
        subjects.into_iter().collect()
    }

    /// Records which subjects are unknown to the context, and pauses the streams of those that have been
    /// unknown for too long. Other streams continue.
    pub(crate) fn unknown(&mut self, unknown: &HashSet<Subject>, now: Duration) {
        self.unknown.retain(|subject, _| unknown.contains(subject));
        for subject in unknown {
            self.unknown.entry(subject.clone()).or_insert(now);
        }
        let timeout = Duration::seconds(i64::try_from(UNKNOWN_TIMEOUT).unwrap_or(i64::MAX));
        let for_too_long = |subject: &Subject| {
            self.unknown.get(subject).is_some_and(|since| now.saturating_sub(*since) >= timeout)
        };
        let mut paused = 0_u64;
        for entry in self.entries.values() {
            let pause = for_too_long(&Subject::Session(entry.session.clone(), entry.epoch))
                || for_too_long(&Subject::Device(entry.device, entry.issuer, entry.generation));
            for live in entry.lives.iter().filter_map(Weak::upgrade) {
                if pause { live.pause() } else { live.resume() }
            }
            let is_held = entry.lives.iter().any(|live| live.strong_count() > 0);
            paused = paused.saturating_add(u64::from(pause && is_held));
        }
        self.counters.gauges.set_paused(paused);
    }

    // --- visits that are not written yet ---

    /// Adds a visit, and what the policy has decided, to what the next commit writes.
    pub(crate) fn owe(&mut self, seen: Seen) {
        let next = self.next_visit;
        self.next_visit = next.saturating_add(1);
        match self.visits.entry(seen.credential) {
            MapEntry::Vacant(place) => drop(place.insert((next, seen))),
            MapEntry::Occupied(mut place) => {
                let (_, owed) = place.get_mut();
                let decisions = owed.decisions.and(seen.decisions);
                // At most one use a minute.
                let first = if seen.at.since(owed.at) < LAST_SEEN_RESOLUTION { owed.clone() } else { seen };
                *owed = Seen { decisions, ..first };
            }
        }
    }

    /// Returns the visit of a credential that is not written yet.
    pub(crate) fn owed(&self, id: &CredentialId) -> Option<&Seen> {
        self.visits.get(id).map(|(_, seen)| seen)
    }

    /// Whether one more visit can wait for a commit.
    pub(crate) fn has_room_for_visits(&self) -> bool {
        self.visits.len() < MAX_VISITS_OWED
    }

    /// Returns the visits to be written, in the order in which they came.
    pub(crate) fn visits_owed(&self) -> Vec<Seen> {
        let mut owed: Vec<&(u64, Seen)> = self.visits.values().collect();
        owed.sort_unstable_by_key(|(number, _)| *number);
        owed.into_iter().map(|(_, seen)| seen.clone()).collect()
    }

    /// Notes that these visits are written.
    pub(crate) fn visits_written(&mut self, written: &[Seen]) {
        for seen in written {
            if self.owed(&seen.credential) == Some(seen) {
                self.visits.remove(&seen.credential);
            }
        }
        // After a rush.
        if self.visits.is_empty() {
            self.visits.shrink_to(64);
        }
    }

    // --- admissions that wait for their first frame ---

    pub(crate) fn waiting(&mut self) -> &mut Waiting {
        &mut self.waiting
    }

    /// Adds a waiting admission, which holds the returned mark.
    pub(crate) fn wait(
        &mut self,
        credential: CredentialId,
        message: [u8; 32],
        until: Duration,
        now: Duration,
    ) -> Result<Arc<PendingMark>, Denial> {
        self.waiting.add(credential, message, until, now)
    }
}

/// The error if there are more unwritten revocations than the gate keeps.
pub(crate) struct TooMany;

fn leave<K: Hash + Eq>(index: &mut HashMap<K, HashSet<CredentialId>>, key: &K, id: &CredentialId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::ledger::record::{CredentialState, Edition};
    use crate::credential::verify::EditionHashes;
    use crate::id::NodeId;
    use crate::key::{DeviceSecretKey, HolderSecretKey, IssuerSecretKey};

    fn record() -> CredentialRecord {
        CredentialRecord {
            ticket: TicketId::from_bytes([1; 16]),
            holder: HolderSecretKey::from_bytes([2; 32]).public(),
            session: SessionId::new("session").unwrap(),
            epoch: 1,
            issuer: IssuerSecretKey::from_bytes([3; 32]).public(),
            generation: 1,
            device: DeviceSecretKey::from_bytes([4; 32]).public(),
            created_at: Timestamp::EPOCH,
            last_seen: None,
            label: Label::default(),
            phone_label: Label::default(),
            state: CredentialState::Active,
            bytes: None,
            edition: Edition {
                ops: OpSet::COMPANION,
                expires_at: Timestamp::EPOCH.plus(600),
                hashes: EditionHashes { stem: [5; 32], whole: [6; 32] },
            },
            renewals: Vec::new(),
            node: NodeId::default(),
            verdict: Vec::new(),
        }
    }

    fn id(number: u32) -> CredentialId {
        let mut id = [7; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        CredentialId::from_bytes(id)
    }

    /// Counted in credentials that are looked at, not in time.
    #[test]
    fn a_cut_looks_at_what_it_names_however_many_others_are_connected() {
        let mut registry = Registry::new(Arc::new(Lease::at(Duration::ZERO)), Arc::default());
        let of = |number: u32| CredentialRecord {
            ticket: TicketId::from_bytes(*id(number).as_bytes()),
            session: SessionId::new(format!("session-{}", number / 10)).unwrap(),
            issuer: IssuerSecretKey::from_bytes([u8::try_from(number / 1_000).unwrap() + 1; 32]).public(),
            device: DeviceSecretKey::from_bytes([u8::try_from(number / 1_000).unwrap() + 1; 32]).public(),
            edition: Edition { expires_at: Timestamp::EPOCH.plus(u64::from(number) + 1), ..record().edition },
            ..record()
        };
        let held: Vec<_> = (0..5_000).map(|number| registry.join(&id(number), &of(number)).ok()).collect();
        let session = |name: &str| SessionId::new(name).unwrap();
        let (last, unknown) = (of(4_999), DeviceSecretKey::from_bytes([99; 32]).public());
        let cuts = [
            (Revocation::Ticket(last.ticket), 1),
            (Revocation::Credential(id(4_998)), 1),
            (Revocation::Session(session("session-490")), 10),
            (Revocation::SessionEnd(session("session-491")), 10),
            (Revocation::Session(session("unknown")), 0),
            (Revocation::Ticket(TicketId::from_bytes([250; 16])), 0),
            (Revocation::Issuer(of(3_500).issuer), 1_000),
            (Revocation::Device(of(2_500).device), 1_000),
            (Revocation::Device(unknown), 0),
        ];
        for (revocation, expected) in cuts {
            let before = registry.looked_at;
            registry.cut(&revocation);
            assert_eq!(registry.looked_at - before, expected, "{revocation:?}");
        }
        for end in 0..20 {
            let before = registry.looked_at;
            assert_eq!(registry.cut_expired(Timestamp::EPOCH.plus(end)).0.len(), usize::from(end > 0));
            assert_eq!(registry.looked_at - before, usize::from(end > 0), "each at its own end");
        }
        drop(held);
    }

    #[test]
    fn dropped_credentials_are_forgotten_and_held_ones_are_kept() {
        let mut registry = Registry::new(Arc::new(Lease::at(Duration::ZERO)), Arc::default());
        let held: Vec<_> = (0..100).filter_map(|number| registry.join(&id(number), &record()).ok()).collect();
        for number in 100..5_000 {
            drop(registry.join(&id(number), &record()));
        }
        let listed = registry.entries.len();
        assert!((100..=200).contains(&listed), "{listed}");
        assert_eq!(registry.by_end.len(), listed);
        assert_eq!(registry.by_session.values().map(HashSet::len).sum::<usize>(), listed);
        assert_eq!(registry.connected().len(), 100);
        assert_eq!(registry.cut(&Revocation::Session(record().session)).len(), held.len());
    }
}
