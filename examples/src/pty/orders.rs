//! An agent's orders to the server of its sessions. The number that wait is bounded, however slow the server is.

use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot};

use super::{HubError, SessionInfo, SessionSpec};
use crate::lock;

/// A program to start.
#[derive(Debug)]
pub struct Start {
    /// Which.
    pub spec: SessionSpec,
    /// Whether it stays when the agent ends.
    pub stays: bool,
    /// Takes the session, once every agent knows it.
    pub answer: oneshot::Sender<Result<SessionInfo, HubError>>,
}

/// A change of a session that its server has to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Note a size that the terminal was given.
    Resize {
        /// The session.
        id: String,
        /// Width of the terminal.
        columns: u16,
        /// Height of the terminal.
        rows: u16,
    },
    /// End a session.
    Close {
        /// The session.
        id: String,
    },
}

/// Where a hub's orders go. Clones go to the same place.
#[derive(Debug, Clone)]
pub struct Orders {
    starts: mpsc::Sender<Start>,
    changes: mpsc::Sender<Waiting>,
}

/// The changes that the server was not asked for yet, in their order.
#[derive(Debug)]
pub struct Changes(mpsc::Receiver<Waiting>);

/// The size that a session's server was not told yet. While there is one, its order waits, and a later size takes the
/// place of the earlier.
#[derive(Debug, Clone, Default)]
pub(super) struct UntoldSize(Arc<Mutex<Option<(u16, u16)>>>);

#[derive(Debug)]
enum Waiting {
    Resize { id: String, size: UntoldSize },
    Close { id: String },
}

impl Orders {
    /// At most so many changes wait. A caller that starts a program waits until the program before was taken.
    pub fn new(most_changes: usize) -> (Self, mpsc::Receiver<Start>, Changes) {
        let (starts, started) = mpsc::channel(1);
        let (changes, changed) = mpsc::channel(most_changes);
        (Self { starts, changes }, started, Changes(changed))
    }

    /// Returns once the server has answered.
    pub(super) async fn start(&self, spec: SessionSpec, stays: bool) -> Result<SessionInfo, HubError> {
        let gone = || HubError::Server("the server of the sessions cannot be reached; try again".to_owned());
        let (answer, answered) = oneshot::channel();
        self.starts.send(Start { spec, stays, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Takes one place of those that may wait, however often it is called.
    pub(super) fn resize(
        &self,
        id: &str,
        untold: &UntoldSize,
        columns: u16,
        rows: u16,
    ) -> Result<(), HubError> {
        let mut size = lock(&untold.0);
        if size.is_none() {
            self.put(Waiting::Resize { id: id.to_owned(), size: untold.clone() })?;
        }
        *size = Some((columns, rows));
        Ok(())
    }

    pub(super) fn close(&self, id: &str) -> Result<(), HubError> {
        self.put(Waiting::Close { id: id.to_owned() })
    }

    fn put(&self, change: Waiting) -> Result<(), HubError> {
        match self.changes.try_send(change) {
            // It is closed only while the agent stops.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(HubError::Server("the server of the sessions is behind; try again".to_owned()))
            }
        }
    }
}

impl Changes {
    /// Takes the one that waits longest; of a session's sizes, the newest. `None` once the hub is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            match self.0.recv().await? {
                Waiting::Resize { id, size } => {
                    // A size that comes from here on waits anew.
                    let size = lock(&size.0).take();
                    if let Some((columns, rows)) = size {
                        return Some(Change::Resize { id, columns, rows });
                    }
                }
                Waiting::Close { id } => return Some(Change::Close { id }),
            }
        }
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}
