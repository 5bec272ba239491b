//! The futures that a guard gives: for a cut, and for the next settling.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::sync::Arc;

use super::connection::Connection;
use super::{Live, Slot, lock};
use crate::agent::denial::Denial;
use crate::sync::Mutex;

/// Resolves with the reason when a credential is cut.
#[must_use = "a future does nothing unless it is awaited"]
pub(super) struct CutSignal {
    pub(super) live: Arc<Live>,
    pub(super) connection: Arc<Connection>,
    /// Keeps the slot listed after its guard is dropped.
    pub(super) _slot: Arc<Slot>,
    pub(super) waker: Arc<Mutex<Option<Waker>>>,
}

impl Future for CutSignal {
    type Output = Denial;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Denial> {
        lock(&self.waker).replace(context.waker().clone());
        // Checked after the waker is registered, so that no cut is missed. A pause is not a cut.
        match self.live.denial() {
            None | Some(Denial::Stale) if self.connection.is_replaced() => Poll::Ready(Denial::Replaced),
            None | Some(Denial::Stale) => Poll::Pending,
            Some(denial) => Poll::Ready(denial),
        }
    }
}

impl fmt::Debug for CutSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CutSignal").finish_non_exhaustive()
    }
}

/// Resolves when the gate is next settled, or the credential is cut.
#[must_use = "a future does nothing unless it is awaited"]
pub(super) struct Settled {
    pub(super) cut: CutSignal,
    pub(super) waker: Arc<Mutex<Option<Waker>>>,
    /// The number of settlings when the guard last found the gate stale.
    pub(super) settlings: u32,
}

impl Future for Settled {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        lock(&self.waker).replace(context.waker().clone());
        // Checked after the waker is registered, so that no settling is missed.
        let settled = self.cut.live.lease.settlings() != self.settlings;
        match settled || Pin::new(&mut self.cut).poll(context).is_ready() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl fmt::Debug for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settled").finish_non_exhaustive()
    }
}
