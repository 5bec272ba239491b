//! Drives a future under permits.

use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::Poll;

use super::signal::Settled;
use super::{Guard, PermitError};
use crate::clock::Now;
use crate::op::Op;

impl Guard {
    /// Drives `future` to completion, polling it under permits for `op`. Works with any executor.
    ///
    /// For agents that hand a frame over asynchronously. A revoker waits for the current poll, so a poll must
    /// not block or call the gate. While the gate is stale, the future is not polled; it continues after the
    /// next settling. A cut wakes the task and drops the future unfinished. `clock` is read once before each
    /// poll. The credential's expiry does not wake the task, but the next settling then cuts it.
    ///
    /// # Errors
    /// [`PermitError::Refused`] or [`PermitError::Over`], with `future` dropped. [`PermitError::Stale`] is
    /// not returned.
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
            // The waker is registered before the permit, so that no cut is missed.
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
