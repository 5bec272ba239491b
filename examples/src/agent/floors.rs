//! From which position on a phone may get output again after a lost connection.
//!
//! A phone gets nothing that was written before its credential was redeemed, or while a rule or a renewal forbade it
//! output. What it may have missed lawfully is known only of credentials that are on this list; for any other, the
//! position at which it comes is the first, so that it gets the screen, and is told of the gap.

use std::collections::VecDeque;
use std::sync::{Mutex, OnceLock};

use sessioncap::{CredentialId, SessionId};

use crate::lock;

/// Most credentials on the list. One that is pushed off begins anew.
const MOST: usize = 1024;

struct Floor {
    credential: CredentialId,
    session: SessionId,
    position: u64,
}

/// Tells other agents of a credential's floor, or that it is not known any more.
pub(super) type Tell = Box<dyn Fn(CredentialId, &SessionId, Option<u64>) + Send + Sync>;

/// The list, the credential that came last at its end.
pub(super) struct Floors {
    /// Whether the operator has rules. They may forbid output at times at which nobody is connected to notice.
    rules: bool,
    list: Mutex<VecDeque<Floor>>,
    /// To the other agents that serve the same sessions.
    tell: OnceLock<Tell>,
}

impl Floors {
    pub(super) fn new(rules: bool) -> Self {
        Self { rules, list: Mutex::default(), tell: OnceLock::new() }
    }

    /// Tells other agents of each change.
    pub(super) fn tell_others(&self, tell: Tell) {
        // Set once, where the agent starts.
        let _ = self.tell.set(tell);
    }

    fn tell(&self, credential: CredentialId, session: &SessionId, position: Option<u64>) {
        if let Some(tell) = self.tell.get() {
            tell(credential, session, position);
        }
    }

    /// Another agent has told of a floor.
    pub(super) fn hear(&self, credential: CredentialId, session: SessionId, position: Option<u64>) {
        let mut list = lock(&self.list);
        let known = list.iter().position(|floor| floor.credential == credential);
        let known = known.and_then(|at| list.remove(at));
        let Some(position) = position else { return };
        // Neither agent knows what the other has not told yet.
        let position = known.map_or(position, |floor| floor.position.max(position));
        list.push_back(Floor { credential, session, position });
        if list.len() > MOST {
            list.pop_front();
        }
    }

    /// The other agents cannot be heard: what they have forbidden is not known.
    pub(super) fn forget_all(&self) {
        lock(&self.list).clear();
    }

    /// A connection begins while the session is at `position`. Returns the first position that it may get.
    pub(super) fn begin(&self, credential: CredentialId, session: &SessionId, position: u64) -> u64 {
        let mut list = lock(&self.list);
        let known = list.iter().position(|floor| floor.credential == credential);
        let known = known.and_then(|at| list.remove(at)).filter(|_| !self.rules);
        let position = known.map_or(position, |floor| floor.position);
        list.push_back(Floor { credential, session: session.clone(), position });
        if list.len() > MOST {
            list.pop_front();
        }
        drop(list);
        self.tell(credential, session, Some(position));
        position
    }

    /// Output before `position` may have been written while it was forbidden.
    pub(super) fn raise(&self, credential: CredentialId, position: u64) {
        let mut list = lock(&self.list);
        let Some(floor) = list.iter_mut().find(|floor| floor.credential == credential) else { return };
        floor.position = floor.position.max(position);
        let (session, position) = (floor.session.clone(), floor.position);
        drop(list);
        self.tell(credential, &session, Some(position));
    }

    /// The terms of a credential change: what its phone may have missed is not known any more.
    pub(super) fn forget(&self, credential: CredentialId) {
        let mut list = lock(&self.list);
        let known = list.iter().position(|floor| floor.credential == credential);
        let known = known.and_then(|at| list.remove(at));
        drop(list);
        // Another agent may know it although this one does not.
        let session = known.map_or(SessionId::new("-").ok(), |floor| Some(floor.session));
        if let Some(session) = session {
            self.tell(credential, &session, None);
        }
    }

    /// A session has ended.
    pub(super) fn end_session(&self, session: &SessionId) {
        lock(&self.list).retain(|floor| floor.session != *session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_begins_where_it_first_came_unless_it_was_forbidden_or_forgotten() {
        let (session, other) = (SessionId::new("s").expect("an id"), SessionId::new("t").expect("an id"));
        let credential = |byte| CredentialId::from_bytes([byte; 16]);
        let floors = Floors::new(false);
        assert_eq!(floors.begin(credential(1), &session, 10), 10);
        assert_eq!(floors.begin(credential(1), &session, 90), 10);
        floors.raise(credential(1), 50);
        floors.raise(credential(1), 40);
        assert_eq!(floors.begin(credential(1), &session, 90), 50);
        floors.forget(credential(1));
        assert_eq!(floors.begin(credential(1), &session, 95), 95);
        assert_eq!(floors.begin(credential(2), &other, 7), 7);
        floors.end_session(&other);
        assert_eq!(floors.begin(credential(2), &other, 8), 8);
        for byte in 0..=255 {
            for low in 0..5 {
                let mut bytes = [byte; 16];
                bytes[0] = low;
                floors.begin(CredentialId::from_bytes(bytes), &other, 1);
            }
        }
        assert_eq!(floors.begin(credential(1), &session, 99), 99, "it was pushed off the list");
    }

    #[test]
    fn with_rules_of_the_operator_each_connection_begins_anew() {
        let session = SessionId::new("s").expect("an id");
        let floors = Floors::new(true);
        let credential = CredentialId::from_bytes([1; 16]);
        assert_eq!(floors.begin(credential, &session, 10), 10);
        assert_eq!(floors.begin(credential, &session, 90), 90);
    }
}
