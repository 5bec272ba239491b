//! A gate for an agent that learns of its sessions and devices by asking for lists.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use crate::agent::config::{AgentContext, GateConfig, Presence};
use crate::agent::denial::Denial;
use crate::agent::gate::Gate;
use crate::agent::ledger::{Ledger, LedgerError};
use crate::clock::Now;
use crate::id::SessionId;
use crate::key::DevicePublicKey;
use crate::sync::{Mutex, MutexGuard};

/// A [`Gate`] whose context is the latest lists of sessions and devices, for an agent that has to ask another
/// service for them. Clones are cheap and share one gate.
///
/// Instead of an [`AgentContext`] and the calls `settle`, `end_session`, `sync_devices` and `reopen`, such an agent
/// calls [`PolledGate::settle`] about once a second with the lists that it has just read. If it does not, no frame
/// passes. Before the first list, and while one could not be read, nobody is admitted for it, and streams pause
/// after 30 seconds.
///
/// A session or device is known with the next call of `settle`: an offer that comes earlier is refused.
#[derive(Clone)]
pub struct PolledGate {
    gate: Gate,
    lists: Arc<Lists>,
    open_ledger: Arc<OpenLedger>,
    clock: Arc<dyn Fn() -> Now + Send + Sync>,
}

type OpenLedger = dyn Fn() -> Result<Box<dyn Ledger>, LedgerError> + Send + Sync;

struct Lists {
    may_share: Box<MayShare>,
    devices: Mutex<List<DevicePublicKey>>,
    sessions: Mutex<List<SessionId>>,
}

type MayShare = dyn Fn(&DevicePublicKey, &SessionId) -> bool + Send + Sync;

/// The latest list that could be read.
struct List<T> {
    entries: BTreeSet<T>,
    is_known: bool,
    /// Entries that have left the list, until the gate has recorded that.
    left: BTreeSet<T>,
    /// Whether the gate has to be told all of them.
    is_news: bool,
}

impl<T: Ord> List<T> {
    fn new() -> Mutex<Self> {
        Mutex::new(Self { entries: BTreeSet::new(), is_known: false, left: BTreeSet::new(), is_news: true })
    }

    fn replace(&mut self, entries: Option<Vec<T>>) {
        self.is_known = entries.is_some();
        let Some(entries) = entries else { return };
        let entries: BTreeSet<T> = entries.into_iter().collect();
        self.is_news |= entries != self.entries;
        let before = core::mem::replace(&mut self.entries, entries);
        self.left.extend(before.into_iter().filter(|entry| !self.entries.contains(entry)));
    }

    fn presence(&self, entry: &T) -> Presence {
        match self.is_known {
            true => self.entries.contains(entry).into(),
            false => Presence::Unknown,
        }
    }
}

fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    // Code that holds these locks cannot panic in the middle of a change.
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AgentContext for Lists {
    fn device(&self, device: &DevicePublicKey) -> Presence {
        lock(&self.devices).presence(device)
    }

    fn session(&self, session: &SessionId) -> Presence {
        lock(&self.sessions).presence(session)
    }

    fn may_share(&self, device: &DevicePublicKey, session: &SessionId) -> bool {
        (self.may_share)(device, session)
    }
}

fn valid<T, E: TryInto<T>>(entries: impl IntoIterator<Item = E>) -> Vec<T> {
    entries.into_iter().filter_map(|entry| entry.try_into().ok()).collect()
}

impl PolledGate {
    /// Opens a gate that knows no session and no device yet. `open_ledger` opens the ledger, now and after it has
    /// failed. `may_share` answers [`AgentContext::may_share`]. `clock` reads both clocks, and is called for each
    /// reading. Costs what [`Gate::open`] does.
    ///
    /// # Errors
    /// Those of `open_ledger`, and as [`Gate::open`].
    pub fn open<L: Ledger + 'static>(
        config: GateConfig,
        open_ledger: impl Fn() -> Result<L, LedgerError> + Send + Sync + 'static,
        may_share: impl Fn(&DevicePublicKey, &SessionId) -> bool + Send + Sync + 'static,
        clock: impl Fn() -> Now + Send + Sync + 'static,
    ) -> Result<Self, LedgerError> {
        let lists =
            Arc::new(Lists { may_share: Box::new(may_share), devices: List::new(), sessions: List::new() });
        let gate = Gate::open(config, open_ledger()?, Arc::clone(&lists), clock())?;
        let open_ledger = move || open_ledger().map(|ledger| -> Box<dyn Ledger> { Box::new(ledger) });
        Ok(Self { gate, lists, open_ledger: Arc::new(open_ledger), clock: Arc::new(clock) })
    }

    /// Returns the gate, for all its other calls.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Reads the clock.
    #[must_use]
    pub fn now(&self) -> Now {
        (self.clock)()
    }

    /// Takes the lists as they are now, `None` for one that could not be read; opens the ledger again if it has
    /// failed ([`Gate::reopen`]); revokes the devices that are no longer enrolled ([`Gate::sync_devices`]); ends
    /// the sessions that are gone ([`Gate::end_session`]); and settles ([`Gate::settle`]). Costs what those calls
    /// do; all but the last are made only if they are due.
    ///
    /// An entry that is no public key of a device, or no session id, is left out: nothing can be shared for it.
    /// An empty list is a list: it revokes everything. Call it from one task only, so that no list overtakes a
    /// later one. A session whose id is used again between two calls is taken for the same session; call
    /// [`Gate::end_session`] where that can happen.
    ///
    /// # Errors
    /// The first [`Denial`] of those calls; [`Gate::ledger_error`] explains one of the ledger. The next call
    /// repeats what failed. Streams may continue for [`Gate::LEASE`] seconds if settling itself succeeded.
    pub fn settle<D: TryInto<DevicePublicKey>, S: TryInto<SessionId>>(
        &self,
        devices: Option<impl IntoIterator<Item = D>>,
        sessions: Option<impl IntoIterator<Item = S>>,
    ) -> Result<(), Denial> {
        let devices = devices.map(valid);
        let sessions = sessions.map(valid);
        let mut outcome = Ok(());
        if self.gate.is_poisoned() {
            let reopened = (self.open_ledger)().and_then(|ledger| self.gate.reopen(ledger, self.now()));
            outcome = reopened.map_err(|error| Denial::Ledger(error.cause()));
        }
        // The gate asks for both lists while it carries out a call, so no lock is held then.
        let enrolled = {
            let mut list = lock(&self.lists.devices);
            list.replace(devices);
            let is_due = list.is_known && list.is_news;
            is_due.then(|| list.entries.iter().copied().collect::<Vec<_>>())
        };
        let left = {
            let mut list = lock(&self.lists.sessions);
            list.replace(sessions);
            core::mem::take(&mut list.left)
        };
        if let Some(enrolled) = enrolled {
            let synced = self.gate.sync_devices(&enrolled, self.now());
            let mut list = lock(&self.lists.devices);
            list.is_news = synced.is_err();
            list.left.clear();
            outcome = outcome.and(synced.map(drop));
        }
        for session in left {
            if let Err(denial) = self.gate.end_session(&session, self.now()) {
                lock(&self.lists.sessions).left.insert(session);
                outcome = outcome.and(Err(denial));
            }
        }
        // Settled whatever else failed, so that what has ended is cut.
        let settled = self.gate.settle(self.now());
        outcome.and(settled)
    }
}

impl core::fmt::Debug for PolledGate {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PolledGate").field("gate", &self.gate).finish_non_exhaustive()
    }
}
