//! Whether the rows of a ledger can be read and agree with each other.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::contents::Contents;
use super::finding::{Damage, Finding};
use crate::agent::decision::Decisions;
use crate::agent::ledger::record::{
    Counters, Counts, CredentialRecord, CredentialState, SessionRecord, TicketRecord, TicketState,
};
use crate::agent::ledger::rows::{COUNTERS, Entry, Group, Handle, Queue, progress_key, session_key};
use crate::agent::ledger::transition::{
    credential_due, credential_handles, removal_due, ticket_due, ticket_handles,
};
use crate::agent::ledger::{Ledger, LedgerError, Table};
use crate::clock::Timestamp;
use crate::credential::mint::UnboundCredential;
use crate::credential::verify::Credential;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{DevicePublicKey, IssuerPublicKey};
use crate::limits::{ENDED_CREDENTIALS_SHARE, ISSUERS_PER_DEVICE, MAX_ENDED_CREDENTIALS};
use crate::protocol::ticket::TicketPublicKey;

/// The result of checking a ledger: for an operator's tool, not for a gate, which refuses what it cannot read
/// when it meets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Check {
    /// The number of the format, or `None` if the ledger has no header: it was never opened by a gate.
    pub format: Option<u64>,
    /// How many rows were read.
    pub rows: usize,
    /// What is wrong, by table and key. One damaged record can be several findings, because its rows in the
    /// indexes then belong to nobody.
    pub findings: Vec<Finding>,
}

impl Check {
    /// Reads every row and compares: each value has its canonical form; the indexes, queues and counts are
    /// those of the records; what is live belongs to the present epoch of its session and to a registered
    /// issuer, and its stored credential is its own; no fixed bound is exceeded. Verifies no signature.
    ///
    /// Reads one consistent state, writes nothing, and waits for no transition. Costs time and memory in
    /// proportion to the size of the ledger.
    ///
    /// # Errors
    /// [`LedgerError`] if the ledger itself cannot be read, or has an unknown format.
    pub fn of(ledger: &dyn Ledger) -> Result<Self, LedgerError> {
        let mut contents = Contents::read(ledger)?;
        let mut findings = core::mem::take(&mut contents.findings);
        let mut checker = Checker { contents: &contents, needed: BTreeSet::new(), findings: Vec::new() };
        checker.run();
        findings.append(&mut checker.findings);
        findings.sort_unstable();
        Ok(Self { format: contents.header.map(|header| header.format), rows: contents.rows, findings })
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

struct Checker<'a> {
    contents: &'a Contents,
    /// The rows of the indexes that the records need.
    needed: BTreeSet<(Table, Vec<u8>)>,
    findings: Vec<Finding>,
}

/// The names that tickets and credentials share.
struct Names<'a> {
    session: &'a SessionId,
    epoch: u64,
    issuer: &'a IssuerPublicKey,
    generation: u64,
    device: &'a DevicePublicKey,
}

impl<'a> Checker<'a> {
    fn report(&mut self, table: Table, key: &[u8], damage: Damage) {
        self.findings.push(Finding::new(table, key, damage));
    }

    fn run(&mut self) {
        let contents = self.contents;
        for (id, record) in &contents.tickets {
            self.ticket(id, record);
        }
        for (id, record) in &contents.credentials {
            self.credential(id, record);
        }
        for (table, key) in self.needed.difference(&contents.indexes).cloned().collect::<Vec<_>>() {
            self.report(table, &key, Damage::MissingIndex);
        }
        for (table, key) in contents.indexes.difference(&self.needed).cloned().collect::<Vec<_>>() {
            self.report(table, &key, Damage::StrayIndex);
        }
        self.counts();
        self.issuers();
        self.events();
    }

    fn need(&mut self, table: Table, key: Vec<u8>) {
        self.needed.insert((table, key));
    }

    fn need_queued(&mut self, queue: Queue<'_>, at: Timestamp, entry: Entry) {
        self.need(queue.table(), queue.key(at, entry));
    }

    fn need_handles<'h>(&mut self, handles: impl Iterator<Item = Handle<'h>>, entry: Entry) {
        handles.for_each(|handle| self.need(Table::ByHandle, handle.key(entry)));
    }

    fn ticket(&mut self, id: &TicketId, record: &TicketRecord) {
        let (entry, table, key) = (Entry::Ticket(*id), Table::Tickets, id.as_bytes());
        let open = matches!(record.state, TicketState::Open(_));
        let group = if open { Group::Live } else { Group::Ended };
        self.need(Table::BySession, session_key(&record.session, group, entry));
        self.need_queued(Queue::Ending, ticket_due(record), entry);
        let public = TicketPublicKey::from_bytes(*record.key.as_bytes());
        if public.map(|public| public.id()) != Ok(*id) {
            self.report(table, key, Damage::WrongKey);
        }
        let names = Names {
            session: &record.session,
            epoch: record.epoch,
            issuer: &record.issuer,
            generation: record.generation,
            device: &record.device,
        };
        self.names(table, key, &names, open);
        if let TicketState::Open(unbound) = &record.state {
            self.need_handles(ticket_handles(record), entry);
            let own = UnboundCredential::parse(unbound.bytes()).is_ok_and(|unbound| {
                let authority = unbound.authority();
                (authority.credential, authority.ticket) == (record.credential, *id)
                    && authority.session == record.session
            });
            if !own {
                self.report(table, key, Damage::WrongCredential);
            }
            if self.contents.credentials.contains_key(&record.credential) {
                self.report(table, key, Damage::WrongState);
            }
        }
    }

    fn credential(&mut self, id: &CredentialId, record: &CredentialRecord) {
        let (entry, table, key) = (Entry::Credential(*id), Table::Credentials, id.as_bytes());
        let live = record.is_live();
        let group = if live { Group::Live } else { Group::Ended };
        self.need(Table::BySession, session_key(&record.session, group, entry));
        let names = Names {
            session: &record.session,
            epoch: record.epoch,
            issuer: &record.issuer,
            generation: record.generation,
            device: &record.device,
        };
        self.names(table, key, &names, live);
        match credential_due(record) {
            Some(due) => {
                self.need_queued(Queue::Ending, due, entry);
                self.need_handles(credential_handles(record), entry);
                if !self.is_own(id, record) {
                    self.report(table, key, Damage::WrongCredential);
                }
                let ticket = self.contents.tickets.get(&record.ticket);
                if ticket.is_some_and(|t| t.state != TicketState::Claimed || t.credential != *id) {
                    self.report(table, key, Damage::WrongState);
                }
            }
            None => {
                self.need_queued(Queue::Ended, removal_due(record), entry);
                self.need_queued(Queue::EndedOf(&record.device), removal_due(record), entry);
                if record.bytes.is_some() || !record.renewals.is_empty() {
                    self.report(table, key, Damage::WrongState);
                }
            }
        }
        if !Decisions::is_readable(&record.verdict) || (!live && !record.verdict.is_empty()) {
            self.report(table, key, Damage::Unreadable);
        }
    }

    /// Whether the stored credential of a live record is the record's latest edition.
    fn is_own(&self, id: &CredentialId, record: &CredentialRecord) -> bool {
        let credential = record.bytes.as_ref().map(Credential::parse);
        let Some(Ok(credential)) = credential else { return false };
        let binding = credential.binding();
        (credential.id(), credential.ticket()) == (*id, record.ticket)
            && *credential.session() == record.session
            && (binding.holder, binding.epoch) == (record.holder, record.epoch)
            && credential.hashes() == record.latest().hashes
    }

    /// What is live is of the present epoch and of a registered issuer; no number was made up.
    fn names(&mut self, table: Table, key: &[u8], names: &Names<'_>, live: bool) {
        let last = self.contents.counters.unwrap_or_default().sequence;
        let session = self.contents.sessions.get(names.session);
        let epoch = session.is_some_and(|session| match live {
            true => session.epoch == names.epoch,
            false => session.epoch >= names.epoch,
        });
        if !epoch || names.epoch > last || names.generation > last {
            self.report(table, key, Damage::WrongEpoch);
        }
        let issuer = self.contents.issuers.get(names.issuer);
        let registered = issuer
            .is_some_and(|issuer| (issuer.generation, issuer.device) == (names.generation, *names.device));
        if live && !registered {
            self.report(table, key, Damage::WrongIssuer);
        }
    }

    fn counts(&mut self) {
        let contents = self.contents;
        let (mut devices, mut sessions) = (BTreeMap::<_, Counts>::new(), BTreeMap::<_, SessionRecord>::new());
        let none = SessionRecord { epoch: 0, open_tickets: 0, live_credentials: 0, ended: 0 };
        for record in contents.tickets.values() {
            let device = devices.entry(record.device).or_default();
            let session = sessions.entry(record.session.clone()).or_insert(none);
            add(&mut device.tickets);
            match record.state {
                TicketState::Open(_) => {
                    add(&mut device.open_tickets);
                    add(&mut session.open_tickets);
                }
                _ => add(&mut session.ended),
            }
        }
        for record in contents.credentials.values() {
            let device = devices.entry(record.device).or_default();
            let session = sessions.entry(record.session.clone()).or_insert(none);
            match record.state {
                CredentialState::Pending { .. } | CredentialState::Active => {
                    add(&mut device.live_credentials);
                    add(&mut session.live_credentials);
                }
                CredentialState::Revoked(_) | CredentialState::Expired => {
                    add(&mut device.ended_credentials);
                    add(&mut session.ended);
                }
            }
        }
        let all: BTreeSet<_> = devices.keys().chain(contents.devices.keys()).copied().collect();
        for device in all {
            let counted = devices.get(&device).copied();
            if counted != contents.devices.get(&device).copied() {
                self.report(Table::Devices, device.as_bytes(), Damage::WrongCount);
            }
            if counted.is_some_and(|counts| counts.ended_credentials > ENDED_CREDENTIALS_SHARE) {
                self.report(Table::Devices, device.as_bytes(), Damage::OverBound);
            }
        }
        let last = contents.counters.unwrap_or_default().sequence;
        let all: BTreeSet<_> = sessions.keys().chain(contents.sessions.keys()).collect();
        for id in all {
            let (counted, stored) = (sessions.get(id), contents.sessions.get(id));
            // The epoch is compared with each record.
            let stored_counts = stored.map(|stored| SessionRecord { epoch: 0, ..*stored });
            if counted.copied() != stored_counts {
                self.report(Table::Sessions, id.as_str().as_bytes(), Damage::WrongCount);
            }
            if stored.is_some_and(|stored| stored.epoch > last) {
                self.report(Table::Sessions, id.as_str().as_bytes(), Damage::WrongEpoch);
            }
        }
        let of_all = devices.values().fold(Counts::default(), |sum, counts| Counts {
            open_tickets: sum.open_tickets.saturating_add(counts.open_tickets),
            live_credentials: sum.live_credentials.saturating_add(counts.live_credentials),
            tickets: sum.tickets.saturating_add(counts.tickets),
            ended_credentials: sum.ended_credentials.saturating_add(counts.ended_credentials),
        });
        if contents.counters.map_or(Counters::default().of_all, |counters| counters.of_all) != of_all {
            self.report(Table::Meta, COUNTERS, Damage::WrongCount);
        }
        if of_all.ended_credentials > MAX_ENDED_CREDENTIALS {
            self.report(Table::Meta, COUNTERS, Damage::OverBound);
        }
    }

    fn issuers(&mut self) {
        let contents = self.contents;
        let last = contents.counters.unwrap_or_default().sequence;
        let (mut generations, mut of_device) = (BTreeSet::new(), BTreeMap::<_, u32>::new());
        for (issuer, record) in &contents.issuers {
            // Each number is given once.
            if record.generation > last || !generations.insert(record.generation) {
                self.report(Table::Issuers, issuer.as_bytes(), Damage::WrongEpoch);
            }
            let count = of_device.entry(record.device).or_default();
            add(count);
            if *count > ISSUERS_PER_DEVICE {
                self.report(Table::Issuers, issuer.as_bytes(), Damage::OverBound);
            }
        }
    }

    fn events(&mut self) {
        for record in &self.contents.events {
            let openings = self.contents.nodes.get(&record.node).map_or(0, |progress| progress.openings);
            if record.opening > openings {
                self.report(Table::Meta, &progress_key(record.node), Damage::WrongOpening);
            }
        }
        self.findings.dedup();
    }
}

fn add(count: &mut u32) {
    *count = count.saturating_add(1);
}
