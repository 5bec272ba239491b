//! The permit for one frame.

use core::cell::Cell;

use super::lease::nanoseconds;
use super::{Guard, PermitError};
use crate::agent::denial::Denial;
use crate::clock::Now;
use crate::error::Misuse;
use crate::op::{Action, Op};
use crate::sync::{AtomicBool, Ordering, fence};

#[cfg(not(sessioncap_loom))]
std::thread_local! {
    /// Whether this thread is inside a permit. Revoking there would wait for its own permit.
    static IN_PERMIT: Cell<bool> = const { Cell::new(false) };
}
#[cfg(sessioncap_loom)]
loom::thread_local! {
    static IN_PERMIT: Cell<bool> = Cell::new(false);
}

/// Refuses a call that waits for permits if it is made from inside one.
pub(crate) fn check_outside_permit() -> Result<(), Denial> {
    if IN_PERMIT.with(Cell::get) { Err(Denial::ApiMisuse(Misuse::InsidePermit)) } else { Ok(()) }
}

impl Guard {
    /// Runs `use_it` if the connection may do `op` now. The phone's bytes must not pass any other way.
    ///
    /// `use_it` encrypts one frame, or hands bytes to a non-blocking write or a queue. It must not block or
    /// call the gate, because a revoker waits for it, and it must not return a future, which would run after
    /// the permit. Costs a few atomic operations, no lock and no allocation. With operator rules, one permit
    /// a minute also runs the policy, under the gate's lock.
    ///
    /// # Errors
    /// [`PermitError`], which says whether the connection goes on. `use_it` was not called.
    #[inline]
    pub fn permit<T>(&mut self, op: Op, now: Now, use_it: impl FnOnce() -> T) -> Result<T, PermitError> {
        self.permit_for(Some(op), now, use_it)
    }

    /// Grants a permit without an operation, for a frame that carries no session data.
    pub(super) fn permit_control<T>(
        &mut self,
        now: Now,
        use_it: impl FnOnce() -> T,
    ) -> Result<T, PermitError> {
        self.permit_for(None, now, use_it)
    }

    /// Does the same as [`Guard::permit`] for an action that an adapter has parsed. Refuses a privilege in
    /// code, whatever the credential says; if the connection is over, it reports that instead.
    ///
    /// # Errors
    /// As [`Guard::permit`]; [`PermitError::Refused`] with [`Denial::PrivilegeDenied`] for a privilege.
    pub fn permit_action<T>(
        &mut self,
        action: Action,
        now: Now,
        use_it: impl FnOnce() -> T,
    ) -> Result<T, PermitError> {
        match action {
            Action::Session(op) => self.permit(op, now, use_it),
            Action::Privileged(privilege) => self.refuse(Denial::PrivilegeDenied { privilege }, now),
        }
    }

    /// The usual frame needs only comparisons. Everything else is in a function of its own, because moving a result
    /// that may be an error costs as much as all of them.
    #[inline]
    fn permit_for<T>(
        &mut self,
        op: Option<Op>,
        now: Now,
        use_it: impl FnOnce() -> T,
    ) -> Result<T, PermitError> {
        let use_it = match self.allows(op) && !self.is_due(now) {
            true => match self.use_now(use_it) {
                Ok(result) => return Ok(result),
                Err(use_it) => use_it,
            },
            false => use_it,
        };
        self.permit_after_checks(op, now, use_it)
    }

    /// Looks at everything that ends, pauses or narrows a connection, and grants the permit if nothing does.
    #[cold]
    #[inline(never)]
    fn permit_after_checks<T, F: FnOnce() -> T>(
        &mut self,
        op: Option<Op>,
        now: Now,
        mut use_it: F,
    ) -> Result<T, PermitError> {
        let error = loop {
            if let Err(error) = self.check(now) {
                break error;
            }
            if let Some(op) = op.filter(|_| !self.allows(op)) {
                break PermitError::Refused(Denial::OperationNotGranted { op });
            }
            use_it = match self.use_now(use_it) {
                Ok(result) => return Ok(result),
                // Something has changed since the check. Each change is one that the next check sees.
                Err(use_it) => use_it,
            };
        };
        self.count_refused(&error);
        Err(error)
    }

    #[inline]
    fn allows(&self, op: Option<Op>) -> bool {
        op.is_none_or(|op| self.allowed.contains(op))
    }

    /// Whether [`Guard::check`] would look closer, the mark and the terms apart, which [`Guard::use_now`] looks at.
    #[inline]
    fn is_due(&self, now: Now) -> bool {
        let moment = nanoseconds(now.monotonic);
        self.connection.has_ended() || self.due.is(now, moment) || self.live.lease.is_stale_at(moment)
    }

    /// Sets the flag, then checks the mark and the terms: see the contract of [`super`]. Runs `use_it` and counts the
    /// frame, or returns it if the credential is cut or paused, or its terms are not those that were read.
    #[inline]
    fn use_now<T, F: FnOnce() -> T>(&mut self, use_it: F) -> Result<T, F> {
        let in_use = InUse::enter(&self.slot.in_use);
        let is_marked = self.live.cut.load(Ordering::Acquire) != 0;
        if is_marked || self.slot.changes.load(Ordering::Acquire) != self.changes {
            return Err(use_it);
        }
        let result = use_it();
        drop(in_use);
        self.frames.permitted();
        Ok(result)
    }
}

/// Keeps the flag set until it is dropped, also if the closure panics.
struct InUse<'a> {
    flag: &'a AtomicBool,
    /// Whether another guard's permit was already in use on this thread.
    nested: bool,
}

impl<'a> InUse<'a> {
    #[inline]
    fn enter(flag: &'a AtomicBool) -> Self {
        flag.store(true, Ordering::Relaxed);
        // The flag must be visible before the mark is read; the matching fence is in `wait_for_permits`.
        fence(Ordering::SeqCst);
        Self { flag, nested: IN_PERMIT.with(|within| within.replace(true)) }
    }
}

impl Drop for InUse<'_> {
    #[inline]
    fn drop(&mut self) {
        IN_PERMIT.with(|within| within.set(self.nested));
        self.flag.store(false, Ordering::Release);
    }
}
