//! Who is connected, and what takes them back.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::agent::guard::{Cut, Live};
use crate::agent::ledger::record::CredentialRecord;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{DevicePublicKey, IssuerPublicKey};

/// Which connected credentials a cut is meant for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target<'a> {
    Credential(&'a CredentialId),
    Ticket(&'a TicketId),
    Session(&'a SessionId),
    Issuer(&'a IssuerPublicKey),
    Device(&'a DevicePublicKey),
    DevicesOutside(&'a [DevicePublicKey]),
    All,
}

/// The credentials that have connections, or are about to.
#[derive(Default)]
pub(crate) struct Registry {
    entries: HashMap<CredentialId, Entry>,
    prune_at: usize,
}

struct Entry {
    live: Weak<Live>,
    ticket: TicketId,
    session: SessionId,
    issuer: IssuerPublicKey,
    device: DevicePublicKey,
}

impl Registry {
    /// The live state of a credential whose record was just found to stand.
    pub(crate) fn join(&mut self, id: &CredentialId, record: &CredentialRecord) -> Arc<Live> {
        if let Some(live) = self.find(id) {
            return live;
        }
        if self.entries.len() >= self.prune_at {
            self.entries.retain(|_, entry| entry.live.strong_count() > 0);
            self.prune_at = self.entries.len().saturating_mul(2).max(64);
        }
        let live = Live::new();
        let entry = Entry {
            live: Arc::downgrade(&live),
            ticket: record.ticket,
            session: record.session.clone(),
            issuer: record.issuer,
            device: record.device,
        };
        self.entries.insert(*id, entry);
        live
    }

    /// The live state of a credential that has connections, or is about to.
    pub(crate) fn find(&self, id: &CredentialId) -> Option<Arc<Live>> {
        self.entries.get(id).and_then(|entry| entry.live.upgrade())
    }

    pub(crate) fn connections(&self, id: &CredentialId) -> usize {
        self.find(id).map_or(0, |live| live.connections())
    }

    /// Cuts what is connected, and returns it so that the caller can drain it once the lock is gone.
    pub(crate) fn cut(&mut self, target: Target<'_>, why: Cut) -> Vec<Arc<Live>> {
        let hit = |id: &CredentialId, entry: &Entry| match target {
            Target::Credential(wanted) => id == wanted,
            Target::Ticket(wanted) => entry.ticket == *wanted,
            Target::Session(wanted) => entry.session == *wanted,
            Target::Issuer(wanted) => entry.issuer == *wanted,
            Target::Device(wanted) => entry.device == *wanted,
            Target::DevicesOutside(enrolled) => !enrolled.contains(&entry.device),
            Target::All => true,
        };
        let mut cut = Vec::new();
        // What was cut stays listed while anyone holds it, so that a second revoker waits for the same
        // permits as the first.
        self.entries.retain(|id, entry| match entry.live.upgrade() {
            Some(live) if hit(id, entry) => {
                live.cut(why);
                cut.push(live);
                true
            }
            Some(_) => true,
            None => false,
        });
        cut
    }
}
