//! Tasks that no peer asks for: the agent settles the gate, opens a failed ledger again, ends the credentials of
//! sessions that have ended, and follows the list of devices.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sessioncap::SessionId;
use sessioncap::agent::Denial;
use sessioncap::pair::{List, StateKind};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::Agent;
use super::devices::Reload;
use super::store::Store;
use crate::problem::{Outcome, While, with_causes};

/// How often the list of devices is looked at.
const DEVICES_LOOK: Duration = Duration::from_secs(1);
/// How often the gate is settled. Streams wait when it was not settled for five seconds.
const SETTLE: Duration = Duration::from_secs(1);
/// The longest time between two tries to open a ledger that has failed, in calls of `settle`.
const LONGEST_PAUSE: u32 = 30;
/// How long viewers have for reading a session's last output before its credentials end. Nobody attaches
/// within it: the session is off the list already.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// The tries to open a ledger again.
#[derive(Default)]
struct Tries {
    /// How many have failed.
    failed: u32,
    /// Calls of `settle` until the next.
    wait: u32,
    reason: String,
}

impl Tries {
    /// Counts one call of `settle`.
    fn is_due(&mut self) -> bool {
        let due = self.wait == 0;
        self.wait = self.wait.saturating_sub(1);
        due
    }

    /// The line for the log: for another reason than before at once, for the same one after 2, 4, 8 … tries.
    fn failed(&mut self, reason: &str) -> Option<String> {
        self.failed = self.failed.saturating_add(1);
        let pause = 1_u32.checked_shl(self.failed.saturating_sub(1)).unwrap_or(LONGEST_PAUSE);
        let pause = pause.min(LONGEST_PAUSE);
        self.wait = pause.saturating_sub(1);
        let said = self.reason == reason && !self.failed.is_power_of_two();
        reason.clone_into(&mut self.reason);
        (!said).then(|| {
            let (failed, tries) = (self.failed, if self.failed == 1 { "try" } else { "tries" });
            format!("the ledger is not open again after {failed} {tries}, the next in {pause} s: {reason}")
        })
    }
}

impl Agent {
    /// Settles the gate about once a second, and opens its ledger again once that has failed: at once, and
    /// then at growing intervals.
    pub(super) async fn maintain<S: Store>(self: Arc<Self>, store: Arc<S>) {
        let mut turn = interval(SETTLE);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tries = Tries::default();
        loop {
            turn.tick().await;
            if self.gate.is_poisoned() && tries.is_due() {
                let (store, key) = (Arc::clone(&store), self.key.public());
                let opened = self.ask(move |gate, now| {
                    store.open(&key, now).and_then(|ledger| {
                        gate.reopen(ledger, now).map_err(|error| with_causes(&error)).during("the ledger")
                    })
                });
                match opened.await.and_then(|opened| opened) {
                    Ok(()) => {
                        self.log("the ledger is open again: phones continue");
                        self.failure_logged.store(false, Ordering::Relaxed);
                        tries = Tries::default();
                    }
                    Err(problem) => {
                        if let Some(line) = tries.failed(&problem.to_string()) {
                            self.log(line);
                        }
                    }
                }
            }
            // Also where the ledger has failed: streams that have waited for too long end by it.
            if let Ok(Err(denial)) = self.ask(|gate, now| gate.settle(now)).await
                && !self.gate.is_poisoned()
            {
                let cause = self.gate.ledger_error().map(|error| with_causes(&error));
                let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
                self.log(format!("the gate could not be settled: {denial}{cause}"));
            }
        }
    }

    /// Revokes what an earlier process has left: the pairings of removed devices, and every session, since none has
    /// survived it. Where other agents share the sessions, only those of this node that their server does not have.
    pub(super) async fn catch_up(self: &Arc<Self>) -> Outcome<()> {
        // A list that cannot be read revokes nobody.
        let enrolled = self.devices.enrolled();
        let shared = self.ask(move |gate, now| {
            if let Some(enrolled) = enrolled {
                gate.sync_devices(&enrolled, now)?;
            }
            let mut sessions = HashSet::new();
            for state in [StateKind::Open, StateKind::Pending, StateKind::Active] {
                let mut list = List::default().with_state(state);
                loop {
                    let page = gate.list(&list, now)?;
                    sessions.extend(page.entries.into_iter().map(|listing| listing.session));
                    match page.next {
                        Some(next) => list = list.after(next),
                        None => break,
                    }
                }
            }
            Ok::<_, Denial>(sessions)
        });
        let failed = "the sessions of an earlier start could not be ended";
        let mut gone = shared.await?.during(failed)?;
        // Asked after the list was read: what is on it has begun before.
        match &self.fleet {
            Some(fleet) => fleet.keep_gone(&mut gone).await?,
            None => gone.retain(|session| !self.sessions.has(session)),
        }
        let ended = self.ask(move |gate, now| {
            gone.iter().try_for_each(|session| gate.end_session(session, now).map(drop))
        });
        ended.await?.during(failed)
    }

    /// Ends what a server of the sessions that was started again does not have any more.
    pub(super) async fn follow_sessions(self: Arc<Self>) {
        let Some(mut fleet) = self.fleet.clone() else { return };
        while fleet.lost(&self.floors).await {
            self.log("the server of the sessions is lost: phones are refused until it is there again");
            if !fleet.joined().await {
                return;
            }
            self.log("the server of the sessions is there again");
            if let Err(problem) = self.catch_up().await {
                self.log(problem.to_string());
            }
        }
    }

    /// Ends the credentials of sessions that have ended.
    pub(super) async fn end_sessions(self: Arc<Self>, mut ends: mpsc::UnboundedReceiver<String>) {
        let mut waiting = JoinSet::new();
        loop {
            tokio::select! {
                ended = ends.recv() => {
                    let Some(id) = ended else { return };
                    let agent = Arc::clone(&self);
                    waiting.spawn(async move {
                        tokio::time::sleep(LAST_OUTPUT).await;
                        agent.end_session(&id).await;
                    });
                }
                Some(_) = waiting.join_next() => {}
            }
        }
    }

    async fn end_session(self: &Arc<Self>, id: &str) {
        let Ok(session) = SessionId::new(id) else { return };
        self.floors.end_session(&session);
        let ended = self.ask(move |gate, now| gate.end_session(&session, now)).await;
        match ended {
            // Most sessions were never shared.
            Ok(Ok(_)) => {}
            Ok(Err(denial)) => self.log(format!("session {id}: its end could not be recorded: {denial}")),
            Err(problem) => self.log(format!("session {id}: its end could not be recorded: {problem}")),
        }
    }

    /// Follows the list of devices, and revokes what removed ones have shared. Only a list that was read
    /// removes anybody.
    pub(super) async fn watch_devices(self: Arc<Self>, mut reloads: mpsc::Receiver<()>) {
        let mut look = interval(DEVICES_LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Whether a removal still has to be recorded.
        let mut unrecorded = false;
        loop {
            let forced = tokio::select! {
                _ = look.tick() => false,
                asked = reloads.recv() => match asked {
                    Some(()) => true,
                    None => return,
                },
            };
            match self.devices.reload(forced) {
                Reload::Same => {}
                Reload::Changed => {
                    self.devices.announce();
                    unrecorded = true;
                }
                Reload::Back { changed } => {
                    self.log("the list of devices can be read again");
                    self.devices.announce();
                    unrecorded |= changed;
                }
                Reload::Unreadable(warning) => self.log(warning),
            }
            if unrecorded && let Some(enrolled) = self.devices.enrolled() {
                match self.ask(move |gate, now| gate.sync_devices(&enrolled, now)).await {
                    Ok(Ok(_)) => unrecorded = false,
                    Ok(Err(denial)) => {
                        self.log(format!("the removal of devices could not be recorded yet: {denial}"));
                    }
                    Err(problem) => {
                        self.log(format!("the removal of devices could not be recorded yet: {problem}"));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_ledger_is_tried_at_growing_intervals_and_each_reason_is_logged() {
        let mut tries = Tries::default();
        let (mut at, mut lines) = (Vec::new(), Vec::new());
        for second in 0..200 {
            if tries.is_due() {
                at.push(second);
                lines.extend(tries.failed(if second < 100 { "full" } else { "damaged" }));
            }
        }
        assert_eq!(at, [0, 1, 3, 7, 15, 31, 61, 91, 121, 151, 181]);
        let expected = [(1, "full"), (2, "full"), (4, "full"), (8, "full"), (9, "damaged")];
        assert_eq!(lines.len(), expected.len(), "{lines:?}");
        for (line, (tries, reason)) in lines.iter().zip(expected) {
            assert!(line.contains(&format!("after {tries} tr")) && line.ends_with(reason), "{line}");
        }
    }
}
