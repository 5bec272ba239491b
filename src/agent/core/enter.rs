//! What becomes live: a redeemed credential, a renewal, and the connection of an admitted phone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use time::Duration;

use super::lock;
use super::registry::Registry;
use super::state::{CallStart, Core, Kind};
use crate::agent::denial::Denial;
use crate::agent::guard::{Grant, Guard, Live, Review, Terms};
use crate::agent::ledger::kept::Kept;
use crate::agent::ledger::record::{CredentialRecord, CredentialState};
use crate::agent::ledger::transition::{
    Extension, Names, NewTerms, Redemption, Renewed, Step, Visit, Visited,
};
use crate::clock::Now;
use crate::id::{CredentialId, TicketId};
use crate::key::HolderPublicKey;

/// An admission whose first frame has arrived.
#[derive(Clone)]
pub(crate) struct Entry {
    /// As it was at admission.
    pub(crate) record: Kept,
    pub(crate) live: Arc<Live>,
    /// By the monotonic clock.
    pub(crate) judged_at: Duration,
    pub(crate) review: Option<Arc<dyn Review>>,
    /// The most connections that the credential may have.
    pub(crate) connections: u32,
}

/// Checks that a credential may have one more connection. Connections that have missed a ping do not count.
pub(crate) fn check_room(live: &Live, max: u32, now: Now) -> Result<(), Denial> {
    let used = u32::try_from(live.answering(now)).unwrap_or(u32::MAX);
    if used < max { Ok(()) } else { Err(Denial::TooManyConnections { max }) }
}

impl Entry {
    /// Makes the guard, unless a revocation that is under way names the credential, or its connections are all
    /// taken. Returns whether one that has been silent was replaced, and has to be woken.
    fn guard(
        &self,
        registry: &Registry,
        (visit, visited): (&Visit, &Visited),
        ends_at: Duration,
        now: Now,
    ) -> Result<(Guard, bool), Denial> {
        let names = Names::of_credential(&visit.credential, &self.record);
        // Its streams are cut already, so a guard would permit nothing, but this returns the reason.
        registry.closed().denial(&names).map_or(Ok(()), Err)?;
        check_room(&self.live, self.connections, now)?;
        let grant = Grant {
            credential: visit.credential,
            session: self.record.session.clone(),
            holder: self.record.holder,
            terms: Terms { ops: visited.ops, expires_at: visited.expires_at, ends_at },
            judged_at: self.judged_at,
            review: self.review.clone(),
        };
        // Also those that have missed a ping.
        let full = u32::try_from(self.live.connections()).unwrap_or(u32::MAX) >= self.connections;
        if full {
            self.live.replace_silent(now);
        }
        Ok((Guard::new(grant, Arc::clone(&self.live)), full))
    }
}

impl Core {
    /// Redeems a ticket, and joins the live state of its credential unless it waits for confirmation.
    pub(crate) fn redeem(
        &self,
        ticket: TicketId,
        holder: HolderPublicKey,
        redemption: Redemption,
        now: Now,
    ) -> Result<(Option<Arc<Live>>, CredentialId, CredentialRecord), Denial> {
        let redeem = move |step: &mut Step<'_>| step.redeem(&ticket, &holder, &redemption);
        let (redeemed, _after) = self.write((now, Kind::Usual, None), redeem, |published, outcome| {
            let (id, record) = outcome?;
            let live = match record.state {
                CredentialState::Pending { .. } => None,
                _ => Some(published.join(&id, &record)?),
            };
            Ok((live, id, record))
        });
        redeemed
    }

    /// Writes a renewal, unless something was revoked since `begun`. Live streams are narrowed to its terms before
    /// it is written, and those that have begun meanwhile afterwards; returns once no permit beyond them is in use.
    pub(crate) fn renew(
        &self,
        begun: &CallStart,
        terms: NewTerms,
        extension: Extension,
        narrowed: Terms,
        now: Now,
    ) -> Result<Renewed, Denial> {
        let credential = terms.credential;
        let live = lock(&self.registry).find(&credential);
        let before = live.clone();
        let checked = Arc::new(AtomicBool::new(false));
        let narrows = Arc::clone(&checked);
        let (renewed, after) = self.write(
            (now, Kind::Usual, Some(*begun)),
            move |step| {
                // Checked before anything is narrowed, and narrowed before anything is written.
                step.check_renewal(&terms, &extension)?;
                checked.store(true, Ordering::Relaxed);
                before.iter().for_each(|live| live.narrow(narrowed));
                step.renew(&terms, &extension)
            },
            move |published, outcome| {
                let mut registry = lock(&published.core().registry);
                // What was read before is not published any more, and what was published is narrowed.
                registry.change();
                if let Ok(renewed) = &outcome {
                    registry.ends_at(&credential, renewed.ends_at);
                }
                let live = registry.find(&credential).filter(|_| narrows.load(Ordering::Relaxed));
                live.iter().for_each(|live| live.narrow(narrowed));
                drop(registry);
                published.drain(live);
                outcome
            },
        );
        drop(after);
        // Without a lock, because a permit in use may need it.
        live.iter().for_each(|live| live.wait_for_permits());
        if renewed.is_ok() {
            self.wait_for_other_nodes();
        }
        renewed
    }

    /// Makes an admission live. Waits for no commit, except for the first use of a renewal, when very many visits
    /// wait to be written, or when other nodes write the ledger as well.
    pub(crate) fn enter(&self, visit: Visit, entry: &Entry, now: Now) -> Result<(Guard, bool), Denial> {
        // Rows of another node are seen before they are kept. A transaction of this node confirms it.
        if self.following.is_some() {
            return self.enter_durably(visit, entry.clone(), now);
        }
        let clock = self.clock_at(now);
        let entered = self.read_and_publish(
            now,
            |step| step.visit(&visit),
            |registry, visited| {
                let is_owed = visited.is_owed(&visit) || registry.owed(&visit.credential).is_some();
                if visited.uses_a_renewal() || is_owed && !registry.has_room_for_visits() {
                    return Ok(None);
                }
                let ends_at = clock.reaches(visited.expires_at);
                let entered = entry.guard(registry, (&visit, &visited), ends_at, now)?;
                if is_owed {
                    registry.owe(visited.seen(&visit));
                }
                Ok(Some(entered))
            },
        )?;
        match entered {
            Some(entered) => Ok(entered),
            None => self.enter_durably(visit, entry.clone(), now),
        }
    }

    /// Does the same once the visit is durable.
    fn enter_durably(&self, visit: Visit, entry: Entry, now: Now) -> Result<(Guard, bool), Denial> {
        let judged = visit.clone();
        // A narrowing of this gate is in this commit's order; another node's is not.
        let narrowings = self.following.as_ref().map(|_| entry.live.narrowings());
        let (entered, _after) = self.write(
            (now, Kind::Usual, None),
            move |step| step.attached(&judged),
            move |published, outcome| {
                let visited = outcome?;
                let core = published.core();
                let ends_at = core.reaches(visited.expires_at, now);
                // A revocation that is under way has cut the admission's live state, or closes the name.
                let entered = entry.guard(&lock(&core.registry), (&visit, &visited), ends_at, now)?;
                // The guard has joined by now, so a narrowing that comes later narrows it.
                match narrowings.is_some_and(|before| before != entry.live.narrowings()) {
                    true => Err(Denial::Interrupted),
                    false => Ok(entered),
                }
            },
        );
        entered
    }
}
