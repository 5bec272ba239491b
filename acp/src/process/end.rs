//! How an agent ends, with everything in its group.

use std::io;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process_group, test_kill_process_group, waitid,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use super::{Agent, Cause, Ended, Event};

/// How often a group that was told to end is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A process that leads a group. Dropped, it kills the group.
pub struct Group {
    leader: Child,
    id: Pid,
    gone: bool,
}

impl Group {
    /// Takes a process that has just been started as the leader of its group.
    pub fn new(leader: Child) -> io::Result<Self> {
        let id = i32::try_from(leader.id()).ok().and_then(Pid::from_raw);
        let id = id.ok_or_else(|| io::Error::other("the agent has no process id"))?;
        Ok(Self { leader, id, gone: false })
    }

    fn signal(&self, signal: Signal) {
        // A group that is gone is no failure.
        kill_process_group(self.id, signal).ok();
    }

    /// Reaps the leader, which has ended, and waits for the rest of the group, which has been told to end.
    async fn reap(mut self, until: Instant) -> Option<ExitStatus> {
        let status = self.leader.wait().ok();
        // While a process is in the group, the system gives the group's number to no other.
        while test_kill_process_group(self.id).is_ok() {
            if Instant::now() >= until {
                self.signal(Signal::KILL);
                break;
            }
            sleep(LOOK).await;
        }
        self.gone = true;
        status
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.gone {
            self.signal(Signal::KILL);
            self.leader.wait().ok();
        }
    }
}

/// Waits for whatever ends the agent, ends its group, and says so after all that it had sent.
pub async fn supervise(
    group: Group,
    mut stop: mpsc::Receiver<Cause>,
    no_more_input: oneshot::Sender<()>,
    (mut reader, mut drained): (JoinHandle<bool>, JoinHandle<()>),
    events: mpsc::Sender<Event>,
) {
    let id = group.id;
    // Not reaped by this: until the group has its signal, its number must not be given away.
    let mut exited = spawn_blocking(move || {
        while let Err(rustix::io::Errno::INTR) =
            waitid(WaitId::Pid(id), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        {}
    });
    let mut reading = true;
    let mut cause = tokio::select! {
        _ = &mut exited => Cause::Exited,
        cause = stop.recv() => cause.unwrap_or(Cause::Asked),
        too_long = &mut reader => {
            reading = false;
            if too_long.unwrap_or(false) { Cause::MessageTooLong } else { Cause::OutputClosed }
        }
    };
    no_more_input.send(()).ok();
    if cause != Cause::Exited {
        if timeout(Agent::GRACE, &mut exited).await.is_ok() {
            // A process that ends closes its pipes a moment before.
            if matches!(cause, Cause::OutputClosed | Cause::InputClosed) {
                cause = Cause::Exited;
            }
        } else {
            group.signal(Signal::TERM);
            if timeout(Agent::TERM, &mut exited).await.is_err() {
                group.signal(Signal::KILL);
                exited.await.ok();
            }
        }
    }
    group.signal(Signal::TERM);
    let status = group.reap(Instant::now() + Agent::TERM).await;
    // A process that has left the group may hold the pipes open.
    if reading && timeout(Agent::GRACE, &mut reader).await.is_err() {
        reader.abort();
    }
    if timeout(Agent::GRACE, &mut drained).await.is_err() {
        drained.abort();
    }
    events.send(Event::Ended(Ended { cause, status })).await.ok();
}
