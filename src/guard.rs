//! The guard: what a live connection asks before every frame, and how it is cut
//! (`docs/PROTOCOL.md` section 10).
//!
//! **Contract: after a revoking call returns, no further permit is granted, and none granted earlier
//! is still in use.**
//!
//! A permit is a closure that runs between two stores to the guard's own flag. A revoker first marks
//! the credential, then waits until the flag of every guard of it is down. Both sides write before
//! they read, in one total order, so either the permit sees the mark or the revoker sees the flag.

use core::cell::Cell;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use time::Duration;

use crate::clock::{Now, Timestamp};
use crate::denial::Denial;
use crate::error::Misuse;
use crate::id::{CredentialId, SessionId};
use crate::key::HolderPublicKey;
use crate::op::{Action, Op, OpSet};

thread_local! {
    /// Whether this thread is inside a permit. A revoker that ran there would wait for itself.
    static IN_PERMIT: Cell<bool> = const { Cell::new(false) };
}

/// Refuses what waits for permits, when it is called from inside one.
pub(crate) fn check_outside_permit() -> Result<(), Denial> {
    if IN_PERMIT.get() { Err(Denial::ApiMisuse(Misuse::InsidePermit)) } else { Ok(()) }
}

/// Why a credential's connections were cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Cut {
    Revoked = 1,
    Contested = 2,
    SessionGone = 3,
    Expired = 4,
}

impl Cut {
    fn denial(number: u8) -> Option<Denial> {
        match number {
            0 => None,
            1 => Some(Denial::CredentialRevoked),
            2 => Some(Denial::TicketContested),
            3 => Some(Denial::SessionGone),
            _ => Some(Denial::CredentialExpired),
        }
    }
}

/// The live state of one credential, shared by its connections.
pub(crate) struct Live {
    /// 0 while the credential lives, else a [`Cut`]. Never goes back to 0.
    cut: AtomicU8,
    slots: Mutex<Vec<Arc<Slot>>>,
    /// One token for each connection; a connection's guards share it.
    connections: Mutex<Vec<Weak<Connection>>>,
}

/// What the guards of one connection share.
#[derive(Default)]
struct Connection {
    /// Up once one of them has found the credential expired. A clock that is set back afterwards
    /// revives nothing.
    ended: AtomicBool,
}

/// One guard's part in the contract.
struct Slot {
    /// Up while a permit's closure runs.
    in_use: AtomicBool,
    /// Those who wait for a cut, each with its last waker.
    waiting: Mutex<Vec<Weak<Mutex<Option<Waker>>>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that holds these locks can panic half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { cut: AtomicU8::new(0), slots: Mutex::default(), connections: Mutex::default() })
    }

    /// Marks the credential. No permit is granted from here on.
    pub(crate) fn cut(&self, why: Cut) {
        // The first reason stays.
        let _ = self.cut.compare_exchange(0, why as u8, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Wakes the connections and waits until no permit is in use. To be called after [`Live::cut`] and
    /// without any lock: a waker may run foreign code, and a permit may be waiting for the lock.
    pub(crate) fn drain(&self) {
        let slots: Vec<Arc<Slot>> = lock(&self.slots).clone();
        for slot in &slots {
            let waiting: Vec<_> = lock(&slot.waiting).iter().filter_map(Weak::upgrade).collect();
            for waiter in waiting {
                let waker = lock(&waiter).take();
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        }
        for slot in slots {
            let mut spins = 0_u32;
            while slot.in_use.load(Ordering::SeqCst) {
                // A permit encrypts one frame: microseconds, unless its thread is descheduled.
                spins = spins.saturating_add(1);
                if spins < 100 {
                    core::hint::spin_loop();
                } else {
                    std::thread::yield_now();
                }
            }
        }
    }

    /// How many connections there are. One that was cut is none, even if its guard is still held.
    pub(crate) fn connections(&self) -> usize {
        if self.denial().is_some() {
            return 0;
        }
        let mut connections = lock(&self.connections);
        connections.retain(|connection| connection.strong_count() > 0);
        connections.len()
    }

    fn connect(&self) -> Arc<Connection> {
        let connection = Arc::new(Connection::default());
        lock(&self.connections).push(Arc::downgrade(&connection));
        connection
    }

    fn join(&self) -> Arc<Slot> {
        let slot = Arc::new(Slot { in_use: AtomicBool::new(false), waiting: Mutex::default() });
        let mut slots = lock(&self.slots);
        // A slot that only this list holds has neither a guard nor anyone who waits for a cut.
        slots.retain(|slot| Arc::strong_count(slot) > 1);
        slots.push(Arc::clone(&slot));
        drop(slots);
        slot
    }

    fn denial(&self) -> Option<Denial> {
        Cut::denial(self.cut.load(Ordering::SeqCst))
    }
}

/// Asked again now and then where an operator's rules depend on the time of day.
pub(crate) trait Review: Send + Sync {
    /// Which of `ops` are allowed now.
    fn review(&self, ops: OpSet, now: Now) -> Result<OpSet, Denial>;
}

/// What a guard is made of.
pub(crate) struct Grant {
    pub(crate) credential: CredentialId,
    pub(crate) session: SessionId,
    pub(crate) holder: HolderPublicKey,
    pub(crate) ops: OpSet,
    /// The credential's end, by the wall clock.
    pub(crate) expires_at: Timestamp,
    /// The same moment by the monotonic clock.
    pub(crate) ends_at: Duration,
    /// When the policy gave its verdict, by the monotonic clock.
    pub(crate) judged_at: Duration,
    pub(crate) review: Option<Arc<dyn Review>>,
}

impl Clone for Grant {
    fn clone(&self) -> Self {
        Self {
            credential: self.credential,
            session: self.session.clone(),
            holder: self.holder,
            ops: self.ops,
            expires_at: self.expires_at,
            ends_at: self.ends_at,
            judged_at: self.judged_at,
            review: self.review.clone(),
        }
    }
}

/// The live right of one connection.
///
/// A guard cannot be made by hand or copied; only an activation gives one:
///
/// ```compile_fail
/// fn twice(guard: sessioncap::Guard) -> (sessioncap::Guard, sessioncap::Guard) {
///     (guard.clone(), guard)
/// }
/// ```
///
/// Every frame to or from the phone goes through [`Guard::permit`]. A guard belongs to one task;
/// [`Guard::fork`] makes another for a connection whose two directions run in two tasks. Dropping it
/// frees its place.
pub struct Guard {
    grant: Grant,
    /// What the last review left of the grant.
    allowed: OpSet,
    next_review: Duration,
    live: Arc<Live>,
    slot: Arc<Slot>,
    connection: Arc<Connection>,
}

impl Guard {
    pub(crate) fn new(grant: Grant, live: Arc<Live>) -> Self {
        let slot = live.join();
        let next_review = match grant.review {
            Some(_) => grant.judged_at.saturating_add(review_interval()),
            None => Duration::MAX,
        };
        let connection = live.connect();
        Self { allowed: grant.ops, grant, next_review, live, slot, connection }
    }

    /// Runs `use_it` if the connection may do `op` now. Nothing else may carry the phone's bytes.
    ///
    /// `use_it` encrypts one frame, or hands bytes to a non-blocking write or a queue. It must not
    /// block or call the gate: a revoker waits for it. It must not return a future: that would run
    /// after the permit. Costs a few atomic operations, no lock and no allocation; where the operator
    /// has rules, one permit a minute also asks the policy, under the gate's lock.
    ///
    /// # Errors
    /// [`Denial`] with the reason; `use_it` was not called. After [`Denial::OperationNotGranted`] the
    /// connection may go on, after any other it is over.
    pub fn permit<T>(&mut self, op: Op, now: Now, use_it: impl FnOnce() -> T) -> Result<T, Denial> {
        self.check(now)?;
        if !self.allowed.contains(op) {
            return Err(Denial::OperationNotGranted { op });
        }
        let in_use = InUse::enter(&self.slot.in_use);
        // Read after the flag is up: see the module's contract.
        if let Some(denial) = self.live.denial() {
            return Err(denial);
        }
        let result = use_it();
        drop(in_use);
        Ok(result)
    }

    /// As [`Guard::permit`], for an action that an adapter has read. A privilege is refused here, in
    /// code, whatever the credential says; a connection that is over is told that instead.
    ///
    /// # Errors
    /// As [`Guard::permit`], and [`Denial::PrivilegeDenied`], after which the connection may go on.
    pub fn permit_action<T>(
        &mut self,
        action: Action,
        now: Now,
        use_it: impl FnOnce() -> T,
    ) -> Result<T, Denial> {
        match action {
            Action::Session(op) => self.permit(op, now, use_it),
            Action::Privileged(privilege) => {
                self.check(now)?;
                Err(Denial::PrivilegeDenied { privilege })
            }
        }
    }

    /// Whether a session id that a request names is the connection's own, byte for byte. Pass
    /// [`Guard::session`] on, not what was named.
    ///
    /// # Errors
    /// [`Denial::OtherSession`], after which the connection may go on.
    pub fn check_session(&self, named: &str) -> Result<(), Denial> {
        if named == self.grant.session.as_str() { Ok(()) } else { Err(Denial::OtherSession) }
    }

    /// Whether the connection may go on at all. Ask when [`Guard::time_left`] has run out.
    ///
    /// # Errors
    /// [`Denial`] with why it is over.
    pub fn check(&mut self, now: Now) -> Result<(), Denial> {
        if let Some(denial) = self.live.denial() {
            return Err(denial);
        }
        if self.connection.ended.load(Ordering::Relaxed)
            || now.monotonic >= self.grant.ends_at
            || now.timestamp() >= self.grant.expires_at
        {
            self.connection.ended.store(true, Ordering::Relaxed);
            return Err(Denial::CredentialExpired);
        }
        if now.monotonic >= self.next_review {
            self.review(now)?;
        }
        Ok(())
    }

    fn review(&mut self, now: Now) -> Result<(), Denial> {
        if let Some(review) = &self.grant.review {
            self.allowed = review.review(self.grant.ops, now)?;
            self.next_review = now.monotonic.saturating_add(review_interval());
        }
        Ok(())
    }

    /// How long from `now` until [`Guard::check`] is due: at the credential's end, or earlier where
    /// the operator's rules have to be asked again. It cannot foresee a wall clock that is set
    /// forward: an idle connection should also check now and then, every second or so.
    #[must_use]
    pub fn time_left(&self, now: Now) -> Duration {
        if self.connection.ended.load(Ordering::Relaxed) || self.live.denial().is_some() {
            return Duration::ZERO;
        }
        let by_wall = Duration::seconds(
            i64::try_from(self.grant.expires_at.since(now.timestamp())).unwrap_or(i64::MAX),
        );
        let by_monotonic = self.grant.ends_at.min(self.next_review).saturating_sub(now.monotonic);
        by_wall.min(by_monotonic).max(Duration::ZERO)
    }

    /// Resolves when the credential is cut: revoked, contested, or its session ended. It does not
    /// watch the clock; sleep for [`Guard::time_left`] beside it. Works on any executor.
    pub fn cut(&self) -> CutSignal {
        let waker = Arc::new(Mutex::new(None));
        let mut waiting = lock(&self.slot.waiting);
        waiting.retain(|waiter| waiter.strong_count() > 0);
        waiting.push(Arc::downgrade(&waker));
        drop(waiting);
        CutSignal { live: Arc::clone(&self.live), _slot: Arc::clone(&self.slot), waker }
    }

    /// A second guard of the same connection, for a second task. It does not count as a connection.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            grant: self.grant.clone(),
            allowed: self.allowed,
            next_review: self.next_review,
            live: Arc::clone(&self.live),
            slot: self.live.join(),
            connection: Arc::clone(&self.connection),
        }
    }

    /// What the connection may do.
    #[must_use]
    pub fn ops(&self) -> OpSet {
        self.allowed
    }

    /// The session. Pass this id on, never one from a request.
    #[must_use]
    pub fn session(&self) -> &SessionId {
        &self.grant.session
    }

    /// The credential.
    #[must_use]
    pub fn credential(&self) -> CredentialId {
        self.grant.credential
    }

    /// The phone.
    #[must_use]
    pub fn holder(&self) -> HolderPublicKey {
        self.grant.holder
    }

    /// The credential's end.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.grant.expires_at
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
            .field("ops", &self.allowed)
            .finish_non_exhaustive()
    }
}

/// The flag is up while this lives, also when the closure panics.
struct InUse<'a> {
    flag: &'a AtomicBool,
    /// Whether a permit of another guard was in use on this thread already.
    nested: bool,
}

impl<'a> InUse<'a> {
    fn enter(flag: &'a AtomicBool) -> Self {
        // A swap, not a store: the flag must be visible before the mark is read.
        flag.swap(true, Ordering::SeqCst);
        Self { flag, nested: IN_PERMIT.replace(true) }
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        IN_PERMIT.set(self.nested);
        self.flag.store(false, Ordering::Release);
    }
}

/// A future that resolves with the reason when a credential is cut.
#[must_use = "a future does nothing unless it is awaited"]
pub struct CutSignal {
    live: Arc<Live>,
    /// Keeps the slot listed after its guard is dropped.
    _slot: Arc<Slot>,
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Future for CutSignal {
    type Output = Denial;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Denial> {
        lock(&self.waker).replace(context.waker().clone());
        // Looked at after the waker is in place, so that no cut falls in between.
        self.live.denial().map_or(Poll::Pending, Poll::Ready)
    }
}

impl fmt::Debug for CutSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CutSignal").finish_non_exhaustive()
    }
}
