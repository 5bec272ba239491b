//! The ledger: transitions run over the local copy, and are appended if the log still ends where the copy does.

use core::time::Duration;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rand_core::{OsRng, RngCore};
use sessioncap::agent::ledger::{Changes, Ledger, LedgerError, Look, Transition};
use sessioncap::agent::{GateConfig, LedgerFailure, LogRead};
use sessioncap::{AgentPublicKey, NodeId, Now};

use crate::copy::{Copy, Place};
use crate::feed::Nodes;
use crate::jobs::{Append, Confirm, Grant, Leave, Load, Me, Migrate, Notify, PAGE, Read, Status, Trim};
use crate::link::{Hint, Link};
use crate::options::Options;
use crate::problem::{Failure, Problem};
use crate::wire::Change;

/// How often a transition runs anew because other nodes have written in between.
const TRIES: u32 = 64;

/// How many appends there are between two trims of the log.
const TRIM_EVERY: i64 = 256;

/// An agent's ledger in PostgreSQL. Clones are handles of one opening.
///
/// All of the agent's records are in memory as well. A transaction costs two round trips to the database, and one if
/// it changes nothing; a read costs one. `docs/FLEET.md` has the contract and how to set the database up.
#[derive(Clone)]
pub struct PostgresLedger {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) me: Me,
    node: NodeId,
    agent: Arc<str>,
    copy: RwLock<Copy>,
    /// The latest timeline on which a commit of this process was kept, or that it found when it began.
    timeline: Mutex<u32>,
    first_read: LogRead,
    /// Appends. One that waits for its standby holds up no read of the log.
    pub(crate) writer: Link,
    /// Reads the log, and tells how far it was observed.
    pub(crate) reader: Link,
    /// Notifications of other nodes.
    pub(crate) hints: Mutex<Receiver<()>>,
}

impl PostgresLedger {
    /// Connects, loads the records of this agent, and checks the database's settings. `now` must be read right before
    /// the call. Each opening is told from others, also of the same node, whose gate this one's gate then fences.
    ///
    /// # Errors
    /// [`Problem`], which says what an operator can do.
    pub fn open(options: Options, agent: &AgentPublicKey, node: NodeId, now: Now) -> Result<Self, Problem> {
        let mut writer = [0; 16];
        OsRng.fill_bytes(&mut writer);
        let standby = options.standby;
        let me = Me { agent: *agent.as_bytes(), writer, node: i64::from(node.number()), standby };
        let name: String = me.agent.iter().map(|byte| format!("{byte:02x}")).collect();
        let (name, (sender, hints)) = (Arc::<str>::from(name), sync_channel(1));
        let hint = Hint { agent: Arc::clone(&name), sender };
        let no_thread = |error: std::io::Error| Problem::Connection(error.to_string());
        let link = |hint| Link::new(options.clone(), hint).map_err(no_thread);
        let (appends, reads) = (link(None)?, link(Some(hint))?);
        let (status, rows, place) = appends.call(Load(me), options.timeout).map_err(Failure::problem)?;
        status.check(standby)?;
        let first_read = LogRead::new(now.monotonic, status.time);
        // What was loaded is kept by the standby once this is, and the others know of this process before it permits.
        let confirmed = appends.call(Confirm { me, place }, options.timeout);
        confirmed.map_err(Failure::problem)?;
        let shared = Shared {
            node,
            agent: name,
            copy: RwLock::new(Copy::new(rows, place)),
            timeline: Mutex::new(status.timeline),
            first_read,
            writer: appends,
            reader: reads,
            hints: Mutex::new(hints),
            options,
            me,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Creates or updates the tables, and with `role` grants an agent's rights to that role. Needs the rights of the
    /// tables' owner, which an agent should not have.
    ///
    /// # Errors
    /// [`Problem`] if the database refuses.
    pub fn migrate(options: &Options, role: Option<&str>) -> Result<(), Problem> {
        let no_thread = |error: std::io::Error| Problem::Connection(error.to_string());
        let link = Link::new(options.clone(), None).map_err(no_thread)?;
        link.call(Migrate, options.timeout).map_err(Failure::problem)?;
        match role {
            Some(role) => link.call(Grant(role.to_owned()), options.timeout).map_err(Failure::problem),
            None => Ok(()),
        }
    }

    /// Configures a gate for this ledger: its node, the limit of [`Options::with_limit`], and the other nodes, for
    /// which its revoking methods wait. The gate permits nothing unless a [`Feed`](crate::Feed) follows the log.
    #[must_use]
    pub fn configure(&self, config: GateConfig) -> GateConfig {
        self.shared.copy_mut().follow();
        let nodes = Nodes(Arc::clone(&self.shared));
        config
            .with_node(self.shared.node)
            .with_other_nodes(self.shared.options.limit, self.shared.first_read, nodes)
            .with_copy(LocalCopy(Arc::clone(&self.shared)))
    }

    /// Returns what follows the log for a gate.
    #[must_use]
    pub fn feed(&self) -> crate::Feed {
        crate::Feed::new(Arc::clone(&self.shared))
    }
}

impl Shared {
    pub(crate) fn copy(&self) -> RwLockReadGuard<'_, Copy> {
        self.copy.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn copy_mut(&self) -> RwLockWriteGuard<'_, Copy> {
        self.copy.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen_timeline(&self) -> u32 {
        *self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_timeline(&self, status: &Status) {
        let mut seen = self.timeline.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = status.timeline.max(*seen);
    }

    /// Reads the log to its end, and returns the place of the end and the status of the last read. `before_read` is
    /// called before each read is sent.
    pub(crate) fn catch_up(
        &self,
        link: &Link,
        limit: Duration,
        mut before_read: impl FnMut(),
    ) -> Result<(Place, Status), Failure> {
        loop {
            let (confirmed, place) = {
                let copy = self.copy();
                (copy.confirmed(), copy.place())
            };
            before_read();
            let read = Read { me: self.me, confirmed: confirmed.position, from: place.position };
            let (status, entries) = link.call(read, limit)?;
            status.check_timeline(self.seen_timeline())?;
            let has = |place: &Place| entries.iter().any(|entry| entry.place == *place);
            if !has(&confirmed) {
                return Err(Problem::LostPosition { position: confirmed.position }.into());
            }
            if !has(&place) {
                // What was seen after the confirmed place was lost: another server has taken over without it.
                self.reload(link, limit, place)?;
                continue;
            }
            let full = entries.len() >= PAGE;
            let mut last = place;
            let mut copy = self.copy_mut();
            for entry in entries.iter().filter(|entry| entry.place.position > place.position) {
                let changes: Vec<Change> = entry.read(&last)?;
                last = entry.place;
                copy.apply(entry.place, changes, entry.writer == self.me.writer);
            }
            drop(copy);
            if !full {
                return Ok((last, status));
            }
        }
    }

    /// Loads all rows again, if the copy is still at this place.
    fn reload(&self, link: &Link, limit: Duration, from: Place) -> Result<(), Failure> {
        let (status, rows, place) = link.call(Load(self.me), limit)?;
        status.check_timeline(self.seen_timeline())?;
        let mut copy = self.copy_mut();
        if copy.place() == from {
            copy.replace(rows, place);
        }
        Ok(())
    }

    /// Appends changes that were made over this place.
    fn append(&self, over: Place, changes: &Changes) -> Result<(), Failure> {
        let append = Append::new(self.me, over, self.seen_timeline(), changes);
        let append = append.ok_or(Problem::Damaged { position: over.position })?;
        let (place, status) = self.writer.call(append, self.options.timeout)?;
        let rows = changes.iter().map(|(table, key, value)| (table, key.to_vec(), value.map(<[u8]>::to_vec)));
        let mut copy = self.copy_mut();
        copy.apply(place, rows.collect(), true);
        copy.confirm(place);
        drop(copy);
        self.keep_timeline(&status);
        self.reader.cast(Notify(Arc::clone(&self.agent)), self.options.read_timeout, drop);
        if place.position % TRIM_EVERY == 0 {
            self.reader.cast(Trim(self.me), self.options.timeout, drop);
        }
        Ok(())
    }

    /// Makes sure that what was read up to this place is kept by the standby.
    fn confirm(&self, place: Place) -> Result<(), Failure> {
        // Without a standby, what is seen is all that is ever kept.
        if !self.me.standby || self.copy().confirmed().position >= place.position {
            return Ok(());
        }
        let confirm = Confirm { me: self.me, place };
        let (place, status) = self.writer.call(confirm, self.options.timeout)?;
        self.keep_timeline(&status);
        self.copy_mut().confirm(place);
        Ok(())
    }

    /// Confirms in the background, so that a node that only reads keeps up.
    pub(crate) fn confirm_later(self: &Arc<Self>) {
        let place = self.copy().place();
        let shared = Arc::downgrade(self);
        self.writer.cast(Confirm { me: self.me, place }, self.options.timeout, move |(place, status)| {
            if let Some(shared) = shared.upgrade() {
                shared.keep_timeline(&status);
                shared.copy_mut().confirm(place);
            }
        });
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.reader.cast(Leave(self.me), self.options.read_timeout, drop);
    }
}

impl Ledger for PostgresLedger {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        let shared = &self.shared;
        shared.catch_up(&shared.reader, shared.options.timeout, || ()).map_err(Failure::into_error)?;
        look(&*shared.copy()).map_err(LedgerError::not_done)
    }

    fn transact(&self, transition: Transition<'_>) -> Result<(), LedgerError> {
        let shared = &self.shared;
        for _ in 0..TRIES {
            let (place, outcome) = {
                let copy = shared.copy();
                (copy.place(), transition(&*copy))
            };
            match outcome {
                Ok(changes) if !changes.is_empty() => match shared.append(place, &changes) {
                    Ok(()) => return Ok(()),
                    Err(Failure::Conflict) => drop(self.fresh()?),
                    Err(failure) => return Err(failure.into_error()),
                },
                // An answer, or a refusal, by a copy that others may have left behind.
                unchanged => {
                    if self.fresh()? == place {
                        shared.confirm(place).map_err(Failure::into_error)?;
                        return unchanged.map(drop).map_err(LedgerError::not_done);
                    }
                }
            }
        }
        Err(LedgerError::not_done(LedgerFailure::Io).because(Problem::Contended { tries: TRIES }))
    }
}

/// The local copy, without a look at the database.
struct LocalCopy(Arc<Shared>);

impl Ledger for LocalCopy {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        look(&*self.0.copy()).map_err(LedgerError::not_done)
    }

    fn transact(&self, _: Transition<'_>) -> Result<(), LedgerError> {
        Err(LedgerError::not_done(LedgerFailure::ReadOnly))
    }
}

impl PostgresLedger {
    fn fresh(&self) -> Result<Place, LedgerError> {
        let shared = &self.shared;
        let read = shared.catch_up(&shared.writer, shared.options.timeout, || ());
        read.map(|(place, _)| place).map_err(Failure::into_error)
    }
}

impl core::fmt::Debug for PostgresLedger {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PostgresLedger").field("node", &self.shared.node).finish_non_exhaustive()
    }
}
