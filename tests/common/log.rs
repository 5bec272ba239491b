//! The state of every ticket and credential according to an audit log alone, to be compared with what the ledger
//! says. Knows only the JSON that a log holds.

use std::collections::BTreeMap;

use sessioncap::agent::AuditRecord;
use sessioncap::pair::{Listing, ListingState};

use serde_json::Value;

/// The state of a ticket, or of its credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Open,
    Pending,
    Active,
    Revoked(Value),
    Expired,
}

impl Fate {
    fn is_live(&self) -> bool {
        matches!(self, Self::Open | Self::Pending | Self::Active)
    }

    fn of(listing: &Listing) -> Self {
        match listing.state {
            ListingState::Open => Self::Open,
            ListingState::Pending { .. } => Self::Pending,
            ListingState::Active => Self::Active,
            ListingState::Revoked { why } => Self::Revoked(serde_json::to_value(why).unwrap()),
            ListingState::Expired => Self::Expired,
            ref other => panic!("{other:?}"),
        }
    }
}

/// A log, as far as it was read.
#[derive(Debug, Default)]
pub struct Story {
    last: Option<(u64, u64)>,
    fates: BTreeMap<String, Fate>,
    tickets: BTreeMap<String, String>,
}

impl Story {
    /// Applies a record. A record that contradicts an earlier one is an error.
    pub fn take(&mut self, record: &AuditRecord) -> Result<(), String> {
        self.take_json(&serde_json::to_value(record).unwrap())
    }

    pub fn take_json(&mut self, record: &Value) -> Result<(), String> {
        let number = |name: &str| record[name].as_u64().unwrap();
        let place = (number("opening"), number("sequence"));
        let follows = match self.last {
            None => place.1 == 0,
            Some((opening, sequence)) => place == (opening, sequence + 1) || place == (opening + 1, 0),
        };
        if !follows {
            return Err(format!("{place:?} follows {:?}", self.last));
        }
        self.last = Some(place);
        let text = |name: &str| record[name].as_str().unwrap().to_owned();
        let event = text("event");
        let (fate, before): (Fate, &[Fate]) = match event.as_str() {
            "ticket_offered" => {
                self.tickets.insert(text("credential"), text("ticket"));
                return match self.fates.insert(text("ticket"), Fate::Open) {
                    Some(live) if live.is_live() => Err(format!("{record} offers what was {live:?}")),
                    _ => Ok(()),
                };
            }
            "ticket_redeemed" if record["pending"] == true => (Fate::Pending, &[Fate::Open]),
            "ticket_redeemed" => (Fate::Active, &[Fate::Open]),
            "credential_confirmed" => (Fate::Active, &[Fate::Pending]),
            "phone_attached" | "renewal_used" | "credential_renewed" => (Fate::Active, &[Fate::Active]),
            "ticket_revoked" => (Fate::Revoked(record["why"].clone()), &[Fate::Open]),
            "ticket_expired" => (Fate::Expired, &[Fate::Open]),
            "credential_revoked" => (Fate::Revoked(record["why"].clone()), &[Fate::Pending, Fate::Active]),
            "credential_expired" => (Fate::Expired, &[Fate::Pending, Fate::Active]),
            "clock_reset" => return self.forget(),
            "gate_opened" if record["discarded"] == true => return self.forget(),
            "gate_opened" | "issuer_registered" | "issuer_revoked" | "session_closed"
            | "ticket_contested" => {
                return Ok(());
            }
            other => return Err(format!("{other} is not known")),
        };
        let ticket = match record["ticket"].as_str() {
            Some(ticket) => ticket.to_owned(),
            None => {
                self.tickets.get(&text("credential")).cloned().ok_or(format!("{record}: never offered"))?
            }
        };
        match self.fates.insert(ticket, fate) {
            Some(was) if before.contains(&was) => Ok(()),
            was => Err(format!("{record} follows {was:?}")),
        }
    }

    fn forget(&mut self) -> Result<(), String> {
        self.fates.clear();
        Ok(())
    }

    /// Checks that the ledger agrees.
    pub fn compare(&self, listings: &[Listing]) -> Result<(), String> {
        let mut listed = BTreeMap::new();
        for listing in listings {
            let ticket = listing.ticket.to_string();
            let (says, told) = (Fate::of(listing), self.fates.get(&ticket));
            // An expiry is recorded when `settle` finds it.
            let same = told == Some(&says) || says == Fate::Expired && told.is_some_and(Fate::is_live);
            if !same {
                return Err(format!("the ledger says {says:?} of {ticket}, and the log {told:?}"));
            }
            listed.insert(ticket, says);
        }
        match self.fates.iter().find(|(ticket, fate)| fate.is_live() && !listed.contains_key(*ticket)) {
            Some((ticket, fate)) => Err(format!("the log says {fate:?} of {ticket}, and the ledger nothing")),
            None => Ok(()),
        }
    }
}
