//! Lists the records in parts.

use super::Step;
use crate::agent::denial::LedgerFailure;
use crate::agent::ledger::record::{CredentialRecord, TicketRecord};
use crate::agent::ledger::rows::Entry;
use crate::id::{CredentialId, SessionId, TicketId};

/// A record with its id.
pub(crate) enum Found {
    Ticket(TicketId, Box<TicketRecord>),
    Credential(CredentialId, Box<CredentialRecord>),
}

impl Found {
    pub(crate) fn entry(&self) -> Entry {
        match self {
            Self::Ticket(id, _) => Entry::Ticket(*id),
            Self::Credential(id, _) => Entry::Credential(*id),
        }
    }
}

impl Step<'_> {
    /// Returns the records after `after`, of one session or of all, at most `limit`: tickets by their ids,
    /// then credentials by theirs. It returns fewer only at the end.
    pub(crate) fn found(
        &self,
        session: Option<&SessionId>,
        after: Option<Entry>,
        limit: usize,
    ) -> Result<Vec<Found>, LedgerFailure> {
        match session {
            Some(session) => self.of_session(session, after, limit),
            None => self.of_all(after, limit),
        }
    }

    fn of_session(
        &self,
        session: &SessionId,
        after: Option<Entry>,
        limit: usize,
    ) -> Result<Vec<Found>, LedgerFailure> {
        let found = |entry| {
            let found = match entry {
                Entry::Ticket(id) => {
                    self.records.ticket(&id)?.map(|record| Found::Ticket(id, Box::new(record)))
                }
                Entry::Credential(id) => {
                    self.records.credential(&id)?.map(|record| Found::Credential(id, Box::new(record)))
                }
            };
            found.ok_or(LedgerFailure::Corrupt)
        };
        self.records.of_session(session, after, limit)?.into_iter().map(found).collect()
    }

    fn of_all(&self, after: Option<Entry>, limit: usize) -> Result<Vec<Found>, LedgerFailure> {
        let (ticket, credential) = match after {
            None => (Some(None), None),
            Some(Entry::Ticket(id)) => (Some(Some(id)), None),
            Some(Entry::Credential(id)) => (None, Some(id)),
        };
        let mut found = Vec::new();
        if let Some(after) = ticket {
            let tickets = self.records.tickets_after(after, limit)?.into_iter();
            found.extend(tickets.map(|(id, record)| Found::Ticket(id, Box::new(record))));
        }
        let room = limit.saturating_sub(found.len());
        if room > 0 {
            let credentials = self.records.credentials_after(credential, room)?.into_iter();
            found.extend(credentials.map(|(id, record)| Found::Credential(id, Box::new(record))));
        }
        Ok(found)
    }
}
