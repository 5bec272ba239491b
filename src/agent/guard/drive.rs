//! A future that is driven under permits.

use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::Poll;

use super::{Guard, PermitError, Settled};
use crate::clock::Now;
use crate::op::Op;

impl Guard {
    /// Drives `future` to its end, each poll of it under a permit for `op`. It works on any executor.
    ///
    /// For agents that hand a frame over asynchronously. A revoker waits for the poll that is under way, so a poll
    /// must not block and must not call the gate. While the gate is stale the future is not polled; it goes on
    /// with the next settling. A cut wakes the task, and the future is dropped unfinished. `clock` is read
    /// once before each poll; it is not woken when the credential runs out, but a gate that is settled ends it
    /// then.
    ///
    /// # Errors
    /// [`PermitError::Refused`] or [`PermitError::Over`], with `future` dropped. Never [`PermitError::Stale`].
    pub async fn drive<F: Future>(
        &mut self,
        op: Op,
        mut clock: impl FnMut() -> Now,
        future: F,
    ) -> Result<F::Output, PermitError> {
        let mut future = pin!(future);
        let mut cut = self.cut_signal();
        let mut settled: Option<Settled> = None;
        poll_fn(|context| {
            // Its waker is in place before the permit is asked for, so that no cut falls in between.
            if let Poll::Ready(denial) = Pin::new(&mut cut).poll(context) {
                return Poll::Ready(Err(PermitError::Over(denial)));
            }
            loop {
                match self.permit(op, clock(), || future.as_mut().poll(context)) {
                    Ok(Poll::Ready(output)) => return Poll::Ready(Ok(output)),
                    Ok(Poll::Pending) => return Poll::Pending,
                    Err(PermitError::Stale) => {
                        let mut waiting = settled.take().unwrap_or_else(|| self.settled_signal());
                        if Pin::new(&mut waiting).poll(context).is_pending() {
                            settled = Some(waiting);
                            return Poll::Pending;
                        }
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        })
        .await
    }
}
