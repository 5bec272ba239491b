//! The guard: decides on every frame of a live connection, and can be cut (`docs/PROTOCOL.md` section 10).
//!
//! **Contract: after a revoking call returns, no further permit is granted, and none granted earlier is still
//! in use.** A renewal that narrows gives the same guarantee for what it removes.
//!
//! A permit runs a closure between setting and clearing the `in_use` flag of its guard. A revoker first marks
//! the credential as cut, then waits until the flag of each of its guards is clear. Both sides write, pass a
//! sequentially consistent fence, and read: either the permit sees the mark or the revoker sees the flag.
//! `guard/models.rs` checks every interleaving.

use core::fmt;
use core::future::Future;
use core::panic::AssertUnwindSafe;
use core::task::Waker;
use std::panic::catch_unwind;
use std::sync::{Arc, PoisonError, Weak};

use time::Duration;

use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::stats::FrameCount;
use crate::clock::{Now, Timestamp};
use crate::id::{CredentialId, SessionId};
use crate::key::HolderPublicKey;
use crate::op::OpSet;
use crate::sync::{
    AtomicBool, AtomicU8, AtomicU32, Mutex, MutexGuard, Ordering, fence, spin_loop, yield_now,
};

mod bridge;
mod channel;
mod connection;
mod count;
mod drive;
mod incoming;
mod lease;
mod narrow;
mod permit;
mod permit_error;
mod signal;
mod terms;

pub use bridge::{BridgeEnd, MessageSocket, SessionInput, SessionOutput};
pub(crate) use channel::FirstFrame;
pub use channel::{GuardedChannel, GuardedReceiver, GuardedSender, LongMessage};
use connection::Connection;
pub(crate) use count::{Watch, report_cuts, wake_each};
pub(crate) use incoming::MessageRoom;
pub(crate) use lease::Lease;
use lease::nanoseconds;
pub(crate) use permit::check_outside_permit;
pub use permit_error::PermitError;
use signal::{CutSignal, Settled};
use terms::Due;
pub(crate) use terms::Terms;

/// The reason why a credential's connections were cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Cut {
    Revoked = 1,
    Contested = 2,
    SessionGone = 3,
    Expired = 4,
    LedgerFailed = 5,
    GateClosed = 6,
    Fenced = 7,
}

/// The mark of a paused credential: no permit is granted, but its connections stay open.
const PAUSED: u8 = 255;

impl Cut {
    fn denial(number: u8) -> Option<Denial> {
        match number {
            0 => None,
            1 => Some(Denial::CredentialRevoked),
            2 => Some(Denial::TicketContested),
            3 => Some(Denial::SessionGone),
            4 => Some(Denial::CredentialExpired),
            5 => Some(Denial::Ledger(LedgerFailure::Poisoned)),
            7 => Some(Denial::Ledger(LedgerFailure::Fenced)),
            PAUSED => Some(Denial::Stale),
            _ => Some(Denial::Ledger(LedgerFailure::Closed)),
        }
    }
}

/// The live state of one credential, shared by its connections.
pub(crate) struct Live {
    /// 0 while the credential is live, [`PAUSED`], or a [`Cut`], which is final.
    cut: AtomicU8,
    lease: Arc<Lease>,
    watch: Watch,
    /// Counts the narrowings, under the lock of `slots`.
    narrowings: AtomicU32,
    slots: Mutex<Vec<Arc<Slot>>>,
    /// One entry for each connection; the guards of a connection share it.
    connections: Mutex<Vec<Weak<Connection>>>,
}

/// The state of one guard that revokers read.
struct Slot {
    /// Set while a permit's closure runs.
    in_use: AtomicBool,
    /// Counts the changes of `terms`, so that a permit can skip the lock if there were none.
    changes: AtomicU32,
    /// Terms, which are only narrowed.
    terms: Mutex<Terms>,
    /// The last waker of each task that waits for a cut.
    waiting: Mutex<Vec<Weak<Mutex<Option<Waker>>>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Code that holds these locks cannot panic in the middle of a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    pub(crate) fn new(lease: Arc<Lease>, watch: Watch) -> Arc<Self> {
        Arc::new(Self {
            cut: AtomicU8::new(0),
            lease,
            watch,
            narrowings: AtomicU32::new(0),
            slots: Mutex::new(Vec::new()),
            connections: Mutex::new(Vec::new()),
        })
    }

    /// Marks the credential as cut. No permit is granted afterwards.
    pub(crate) fn cut(&self, why: Cut) {
        // The first reason is kept.
        let to = |from| matches!(from, 0 | PAUSED).then_some(why as u8);
        let _ = self.cut.fetch_update(Ordering::AcqRel, Ordering::Acquire, to);
    }

    /// Grants no permit until [`Live::resume`], without ending the connections.
    pub(crate) fn pause(&self) {
        let _ = self.cut.compare_exchange(0, PAUSED, Ordering::AcqRel, Ordering::Acquire);
    }

    pub(crate) fn resume(&self) {
        let _ = self.cut.compare_exchange(PAUSED, 0, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Whether the credential was cut.
    pub(crate) fn is_cut(&self) -> bool {
        !matches!(self.cut.load(Ordering::Acquire), 0 | PAUSED)
    }

    /// Wakes the tasks that wait on a connection. Call it without holding a lock.
    pub(crate) fn wake(&self) {
        for slot in self.slots() {
            let waiting = lock(&slot.waiting).clone();
            wake_all(&waiting);
        }
    }

    /// Waits until no permit is in use. Call it without holding a lock.
    pub(crate) fn wait_for_permits(&self) {
        wait_for_permits(&self.slots());
    }

    fn slots(&self) -> Vec<Arc<Slot>> {
        lock(&self.slots).clone()
    }

    /// Counts the connections. A connection that was cut does not count, even if its guard still exists.
    pub(crate) fn connections(&self) -> usize {
        self.count(|_| true)
    }

    /// Counts the connections that have not missed a ping.
    pub(crate) fn answering(&self, now: Now) -> usize {
        self.count(|connection| !connection.has_missed_a_ping(now))
    }

    fn count(&self, counts: impl Fn(&Connection) -> bool) -> usize {
        if self.is_cut() {
            return 0;
        }
        self.standing().iter().filter(|connection| counts(connection)).count()
    }

    /// Returns the connections that have a guard and were not replaced.
    fn standing(&self) -> Vec<Arc<Connection>> {
        let mut connections = lock(&self.connections);
        connections.retain(|connection| connection.strong_count() > 0);
        let held = connections.iter().filter_map(Weak::upgrade);
        held.filter(|connection| !connection.is_replaced()).collect()
    }

    /// Replaces, of the connections that have missed a ping, the one heard the longest ago. Call `wake`
    /// afterwards.
    pub(crate) fn replace_silent(&self, now: Now) {
        let silent = self.standing().into_iter().filter(|connection| connection.has_missed_a_ping(now));
        if let Some(longest) = silent.min_by_key(|connection| connection.heard_at()) {
            longest.replace();
        }
    }

    fn connect(&self, now: Duration) -> Arc<Connection> {
        let connection = Arc::new(Connection::new(now, self.watch.connection()));
        lock(&self.connections).push(Arc::downgrade(&connection));
        connection
    }

    fn join(&self, terms: impl FnOnce() -> Terms) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        let slot = Arc::new(Slot {
            in_use: AtomicBool::new(false),
            changes: AtomicU32::new(0),
            terms: Mutex::new(terms()),
            waiting: Mutex::new(Vec::new()),
        });
        // A slot that only this list holds has no guard and no waiter.
        slots.retain(|slot| Arc::strong_count(slot) > 1);
        slots.push(Arc::clone(&slot));
        drop(slots);
        slot
    }

    fn denial(&self) -> Option<Denial> {
        Cut::denial(self.cut.load(Ordering::Acquire))
    }
}

/// Wakes each waiter once.
fn wake_all(waiting: &[Weak<Mutex<Option<Waker>>>]) {
    for waiter in waiting.iter().filter_map(Weak::upgrade) {
        let waker = lock(&waiter).take();
        if let Some(waker) = waker {
            // A waker that panics must not hold up a revoker or another stream.
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }
}

/// Waits for permits. A permit encrypts one frame: microseconds, unless its thread is descheduled.
fn wait_for_permits(slots: &[Arc<Slot>]) {
    // The mark must be visible before a flag is read.
    fence(Ordering::SeqCst);
    for slot in slots {
        let mut spins = 0_u32;
        while slot.in_use.load(Ordering::Acquire) {
            spins = spins.saturating_add(1);
            if spins < 100 { spin_loop() } else { yield_now() }
        }
    }
}

/// Evaluates the policy again for a live connection, because operator rules can depend on the time of day.
pub(crate) trait Review: Send + Sync {
    /// Returns which of `ops` are allowed now.
    fn review(&self, ops: OpSet, now: Now) -> Result<OpSet, Denial>;
}

/// The parts from which a guard is built.
#[derive(Clone)]
pub(crate) struct Grant {
    pub(crate) credential: CredentialId,
    pub(crate) session: SessionId,
    pub(crate) holder: HolderPublicKey,
    /// The terms granted at admission.
    pub(crate) terms: Terms,
    /// When the policy last ran, by the monotonic clock.
    pub(crate) judged_at: Duration,
    pub(crate) review: Option<Arc<dyn Review>>,
}

/// The live right of one connection, its stream.
///
/// A guard cannot be constructed or cloned; only activating an admission returns one:
///
/// ```compile_fail
/// fn twice(guard: sessioncap::agent::Guard) -> (sessioncap::agent::Guard, sessioncap::agent::Guard) {
///     (guard.clone(), guard)
/// }
/// ```
///
/// Pass every frame to or from the phone through [`Guard::permit`]. A guard belongs to one task;
/// [`Guard::fork`] makes another for a connection that handles its two directions in two tasks. Dropping the
/// last guard of a connection frees its place.
pub struct Guard {
    grant: Grant,
    /// The granted operations that the last review and the slot's terms, as last read, still allow.
    allowed: OpSet,
    /// The granted operations that the last review still allows.
    reviewed: OpSet,
    /// When it ends, or has to be looked at, in the forms that are compared with each reading.
    due: Due,
    /// The slot's terms as last read, and the value of `changes` then.
    terms: Terms,
    changes: u32,
    next_review: Duration,
    /// The number of settlings when this guard last found the gate stale.
    settlings: u32,
    live: Arc<Live>,
    slot: Arc<Slot>,
    connection: Arc<Connection>,
    frames: FrameCount,
}

impl Guard {
    pub(crate) fn new(grant: Grant, live: Arc<Live>) -> Self {
        let terms = grant.terms;
        let slot = live.join(|| terms);
        let next_review = match grant.review {
            Some(_) => grant.judged_at.saturating_add(review_interval()),
            None => Duration::MAX,
        };
        let connection = live.connect(grant.judged_at);
        Self {
            allowed: terms.ops,
            reviewed: terms.ops,
            due: Due::new(terms, next_review),
            terms,
            changes: 0,
            grant,
            next_review,
            settlings: live.lease.settlings(),
            frames: live.watch.frames(),
            live,
            slot,
            connection,
        }
    }

    /// Checks that a session id in a request is the connection's own, byte for byte. Use [`Guard::session`]
    /// afterwards, not the id from the request.
    ///
    /// # Errors
    /// [`PermitError::Refused`] with [`Denial::OtherSession`] if it is another session's.
    pub fn check_session(&self, named: &str) -> Result<(), PermitError> {
        match named == self.grant.session.as_str() {
            true => Ok(()),
            false => Err(PermitError::Refused(Denial::OtherSession)),
        }
    }

    /// Checks whether the connection may go on. Call it when [`Guard::time_left`] has elapsed.
    ///
    /// # Errors
    /// [`PermitError::Over`] with the reason if the connection is over, or [`PermitError::Stale`] if the gate
    /// was not settled in time.
    #[inline]
    pub fn check(&mut self, now: Now) -> Result<(), PermitError> {
        if self.live.cut.load(Ordering::Acquire) != 0 {
            self.check_cut(now)?;
        }
        if self.slot.changes.load(Ordering::Acquire) != self.changes {
            self.narrow();
        }
        let moment = nanoseconds(now.monotonic);
        if self.connection.has_ended() || self.due.is(now, moment) {
            self.check_due(now)?;
        }
        // The credential's expiry is checked first, because it is final and staleness is not.
        if self.live.lease.is_stale_at(moment) {
            self.check_stale(now)?;
        }
        Ok(())
    }

    /// Ends an expired credential, or has the policy review one.
    #[cold]
    fn check_due(&mut self, now: Now) -> Result<(), PermitError> {
        let expired = now.monotonic >= self.terms.ends_at || now.timestamp() >= self.terms.expires_at;
        if expired || self.connection.has_ended() {
            return Err(PermitError::Over(self.connection.end()));
        }
        // A stale gate is not asked to review.
        if self.live.lease.is_stale(now.monotonic) {
            self.check_stale(now)?;
        }
        if now.monotonic >= self.next_review { self.review(now) } else { Ok(()) }
    }

    /// Reports a cut or paused credential; if it has expired meanwhile, that is the reason.
    #[cold]
    fn check_cut(&mut self, now: Now) -> Result<(), PermitError> {
        self.settlings = self.live.lease.settlings();
        match self.live.denial() {
            Some(Denial::Stale) if !self.has_ended(now) => Err(self.stale(now)),
            Some(Denial::Stale) | None => Ok(()),
            Some(denial) => Err(PermitError::of_mark(denial)),
        }
    }

    /// Reports a stale gate, unless it was settled meanwhile. The count is read before the lease, so that no
    /// settling falls between the two.
    #[cold]
    fn check_stale(&mut self, now: Now) -> Result<(), PermitError> {
        self.settlings = self.live.lease.settlings();
        if self.live.lease.is_stale(now.monotonic) { Err(self.stale(now)) } else { Ok(()) }
    }

    /// Whether the slot's terms have expired.
    fn has_ended(&self, now: Now) -> bool {
        let terms = *lock(&self.slot.terms);
        self.connection.has_ended() || now.monotonic >= terms.ends_at || now.timestamp() >= terms.expires_at
    }

    /// Returns [`PermitError::Stale`], or [`PermitError::Over`] if the ledger has failed for too long.
    fn stale(&self, now: Now) -> PermitError {
        if self.live.lease.is_over(now.monotonic) {
            self.live.cut(Cut::LedgerFailed);
        }
        PermitError::of_mark(self.live.denial().unwrap_or(Denial::Stale))
    }

    /// Reads the slot's terms again.
    #[cold]
    fn narrow(&mut self) {
        // The count is read first, so that a change in between is seen by the next permit.
        self.changes = self.slot.changes.load(Ordering::Acquire);
        self.terms = *lock(&self.slot.terms);
        self.due = Due::new(self.terms, self.next_review);
        self.allowed = self.reviewed.intersection(self.terms.ops);
    }

    #[cold]
    fn review(&mut self, now: Now) -> Result<(), PermitError> {
        if let Some(review) = &self.grant.review {
            self.reviewed = review.review(self.grant.terms.ops, now).map_err(PermitError::Over)?;
            self.allowed = self.reviewed.intersection(self.terms.ops);
            self.next_review = now.monotonic.saturating_add(review_interval());
            self.due = Due::new(self.terms, self.next_review);
        }
        Ok(())
    }

    /// Returns how long from `now` [`Guard::check`] is due: at the credential's end, or earlier if the
    /// operator's rules have to be evaluated again. It cannot foresee a wall clock that is set forward, so an
    /// idle connection should also call `check` about once a second.
    #[must_use]
    pub fn time_left(&self, now: Now) -> core::time::Duration {
        if self.connection.has_ended() || self.live.is_cut() {
            return core::time::Duration::ZERO;
        }
        let terms = *lock(&self.slot.terms);
        let by_wall = now.until(terms.expires_at);
        let by_monotonic = terms.ends_at.min(self.next_review).saturating_sub(now.monotonic);
        // A negative time has already elapsed.
        by_wall.min(by_monotonic).try_into().unwrap_or_default()
    }

    /// Resolves when the connection is cut: the credential was revoked, contested or found expired, its
    /// session ended, the gate was closed or lost its ledger, or a newer connection replaced this one. It
    /// does not watch the clock; sleep for [`Guard::time_left`] beside it. Works with any executor.
    pub fn cut(&self) -> impl Future<Output = Denial> + Send + Sync + Unpin + use<> {
        self.cut_signal()
    }

    fn cut_signal(&self) -> CutSignal {
        let waker = Arc::new(Mutex::new(None));
        let mut waiting = lock(&self.slot.waiting);
        waiting.retain(|waiter| waiter.strong_count() > 0);
        waiting.push(Arc::downgrade(&waker));
        drop(waiting);
        CutSignal {
            live: Arc::clone(&self.live),
            connection: Arc::clone(&self.connection),
            _slot: Arc::clone(&self.slot),
            waker,
        }
    }

    /// Resolves when the gate is next settled, or the credential is cut. Wait for it after
    /// [`PermitError::Stale`], keep the frame, and then ask for a permit again, which decides anew. Works
    /// with any executor.
    pub fn settled(&self) -> impl Future<Output = ()> + Send + Sync + Unpin + use<> {
        self.settled_signal()
    }

    fn settled_signal(&self) -> Settled {
        let waker = Arc::new(Mutex::new(None));
        self.live.lease.wait(Arc::downgrade(&waker));
        Settled { cut: self.cut_signal(), waker, settlings: self.settlings }
    }

    /// Makes a second guard of the same connection, for a second task. It does not count as a connection.
    #[must_use]
    pub fn fork(&self) -> Self {
        let slot = self.live.join(|| *lock(&self.slot.terms));
        Self {
            grant: self.grant.clone(),
            allowed: self.allowed,
            reviewed: self.reviewed,
            due: self.due,
            terms: self.terms,
            // An impossible count, so that the first check reads the terms.
            changes: u32::MAX,
            next_review: self.next_review,
            settlings: self.settlings,
            live: Arc::clone(&self.live),
            slot,
            connection: Arc::clone(&self.connection),
            frames: self.live.watch.frames(),
        }
    }

    /// Notes that a frame of the phone has decrypted.
    fn hear(&self, now: Now) {
        self.connection.hear(now);
    }

    /// Notes that a ping was sent.
    fn ping(&self, now: Now) {
        self.connection.ping(now);
    }

    /// Returns the operations that the connection may do.
    #[must_use]
    pub fn ops(&self) -> OpSet {
        self.reviewed.intersection(lock(&self.slot.terms).ops)
    }

    /// Returns the session. Use this id, not one from a request.
    #[must_use]
    pub fn session(&self) -> &SessionId {
        &self.grant.session
    }

    /// Returns the credential's id.
    #[must_use]
    pub fn credential(&self) -> CredentialId {
        self.grant.credential
    }

    /// Returns the phone's key.
    #[must_use]
    pub fn holder(&self) -> HolderPublicKey {
        self.grant.holder
    }

    /// Returns the credential's end.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        lock(&self.slot.terms).expires_at
    }
}

fn review_interval() -> Duration {
    Duration::seconds(i64::try_from(crate::limits::POLICY_REVIEW_INTERVAL).unwrap_or(i64::MAX))
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("credential", &self.grant.credential)
            .field("session", &self.grant.session)
            .field("ops", &self.ops())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, sessioncap_loom))]
mod models;
