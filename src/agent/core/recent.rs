//! The names that were revoked recently, so that a repeated revocation is not taken for a typo after its
//! records were removed.

use std::collections::VecDeque;

use crate::agent::ledger::transition::Revocation;
use crate::limits::MAX_REMEMBERED;

/// The latest names whose revocation ended something. Not kept across restarts.
#[derive(Default)]
pub(super) struct Recent(VecDeque<Revocation>);

impl Recent {
    pub(super) fn add(&mut self, revocation: &Revocation) {
        let Some(name) = name_of(revocation) else { return };
        if self.0.len() >= MAX_REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(name);
    }

    pub(super) fn has(&self, revocation: &Revocation) -> bool {
        name_of(revocation).is_some_and(|name| self.0.contains(&name))
    }
}

/// Returns the revocation's name, without who revoked it and why.
fn name_of(revocation: &Revocation) -> Option<Revocation> {
    match revocation {
        Revocation::Session(id) | Revocation::SessionEnd(id) | Revocation::SessionGone(id, _) => {
            Some(Revocation::Session(id.clone()))
        }
        Revocation::Issuer(issuer) | Revocation::IssuerGone(issuer, _) => Some(Revocation::Issuer(*issuer)),
        Revocation::Ticket(_) | Revocation::Credential(_) | Revocation::Device(_) | Revocation::Phone(..) => {
            Some(revocation.clone())
        }
        Revocation::Contest(_) | Revocation::DevicesOutside(_) | Revocation::Everything => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{SessionId, TicketId};

    fn ticket(number: usize) -> Revocation {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        Revocation::Ticket(TicketId::from_bytes(id))
    }

    #[test]
    fn the_latest_names_are_remembered_and_the_earliest_make_room() {
        let mut recent = Recent::default();
        (0..MAX_REMEMBERED + 1).for_each(|number| recent.add(&ticket(number)));
        assert!(!recent.has(&ticket(0)) && recent.has(&ticket(1)) && recent.has(&ticket(MAX_REMEMBERED)));
        assert_eq!(recent.0.len(), MAX_REMEMBERED);
    }

    #[test]
    fn a_sessions_end_and_its_revocation_have_one_name() {
        let session = SessionId::new("s").unwrap();
        let mut recent = Recent::default();
        recent.add(&Revocation::SessionEnd(session.clone()));
        assert!(recent.has(&Revocation::Session(session)));
        assert!(!recent.has(&Revocation::Session(SessionId::new("t").unwrap())));
    }
}
