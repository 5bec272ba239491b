//! Sessions whose programs another process has: what that process passes on of each, and what an agent makes of it.
//!
//! The terminal itself is passed on, so input, its limits and Ctrl-C are as in an agent that has its own. Only the
//! output comes by way of the server, because a terminal's output can be read once.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

use sessioncap::session::Incarnation;
use tokio::sync::watch;

use super::program::Terminal;
use super::{Hub, HubError, Inner, Orders, Output, Screen, Session, SessionInfo, SessionSpec, Viewer};
use crate::lock;

/// All of a session, as of one moment.
pub struct Whole {
    /// Its description.
    pub info: SessionInfo,
    /// Which of its lives it is.
    pub incarnation: Incarnation,
    /// The last output, up to 1 MiB.
    pub history: Vec<u8>,
    /// The screen, and the position.
    pub screen: Screen,
    /// The output from then on.
    pub output: Output,
    /// Columns and rows from then on.
    pub size: watch::Receiver<(u16, u16)>,
    /// Its terminal.
    pub terminal: OwnedFd,
    /// For its end.
    pub viewer: Viewer,
}

impl Hub {
    /// A hub whose sessions another process has, which takes the orders. `on_end` as in [`Hub::new`].
    pub fn mirror(on_end: impl Fn(&str) + Send + Sync + 'static, server: Orders) -> Self {
        Self::with_server(on_end, Some(server))
    }

    /// Whether the sessions are another process's, which other agents share.
    pub fn is_mirror(&self) -> bool {
        self.0.server.is_some()
    }

    /// Starts a program, here or at the server. One that does not stay is closed when this agent has ended.
    pub async fn start(&self, spec: SessionSpec, stays: bool) -> Result<SessionInfo, HubError> {
        match &self.0.server {
            None => self.create(spec),
            Some(server) => server.start(spec, stays).await,
        }
    }

    /// All of a session, for another process.
    pub fn whole(&self, id: &str) -> Result<Whole, HubError> {
        let session = self.session(id)?;
        let viewer = Viewer::new(Arc::clone(&session));
        let size = session.size.subscribe();
        let info = session.info();
        // The history may be longer than what the screen shows, and is cut there.
        let (screen, output) = viewer.watch();
        let mut history = session.feed.history();
        let newer = session.feed.kept().1.saturating_sub(screen.position);
        history.truncate(history.len().saturating_sub(usize::try_from(newer).unwrap_or(usize::MAX)));
        let terminal = session.terminal.share().map_err(HubError::Terminal)?;
        let incarnation = session.incarnation;
        Ok(Whole {
            info,
            incarnation,
            history,
            screen,
            output: output.with_clipboard(),
            size,
            terminal,
            viewer,
        })
    }

    /// Weak, so that the tasks which follow a server end with the hub.
    pub fn downgrade(&self) -> WeakHub {
        WeakHub(Arc::downgrade(&self.0))
    }
}

/// A hub that may be gone.
#[derive(Clone)]
pub struct WeakHub(Weak<Inner>);

impl WeakHub {
    /// The hub, if it is there.
    pub fn upgrade(&self) -> Option<Hub> {
        self.0.upgrade().map(Hub)
    }

    /// Adds a session that the server has. `history` ends where the screen is.
    pub fn add(
        &self,
        info: SessionInfo,
        incarnation: Incarnation,
        history: &[u8],
        position: u64,
        screen: &[u8],
        terminal: OwnedFd,
    ) -> Option<Mirror> {
        let hub = self.upgrade()?;
        let id = info.id.clone();
        let session = Session::new(info, Terminal::of(terminal), incarnation, hub.0.server.clone());
        session.feed.begin_at(history, position);
        {
            let mut shown = lock(&session.shown);
            // The program has set everything in this screen before. It belongs to no position, and nobody is told again.
            let drawn = super::Scanner::default().read(screen);
            shown.picture.process(&drawn.shown);
            drawn.told.iter().for_each(|(_, told)| shown.picture.note(told));
        }
        let session = Arc::new(session);
        lock(&hub.0.sessions).insert(id.clone(), Arc::clone(&session));
        Some(Mirror { hub: self.clone(), id, session })
    }
}

/// A session of the server, as it is filled with what the server tells. One that is dropped before its end is lost:
/// its viewers come again, to the session as it will be then.
pub struct Mirror {
    hub: WeakHub,
    id: String,
    session: Arc<Session>,
}

impl Mirror {
    /// Takes output, which may have clipboard writes.
    pub fn publish(&self, output: &[u8]) {
        self.session.publish(output);
    }

    /// Waits while the output is far ahead of every reader.
    pub async fn pace(&self) {
        self.session.feed.pace().await;
    }

    /// Whether anybody reads the output.
    pub fn has_readers(&self) -> bool {
        self.session.feed.has_readers()
    }

    /// Notes the terminal's size.
    pub fn resized(&self, columns: u16, rows: u16) {
        let mut info = lock(&self.session.info);
        if (info.cols, info.rows) != (columns, rows) {
            self.session.note_size(&mut info, columns, rows);
        }
    }

    /// The session has ended, with this status.
    pub fn end(self, exit: i32) {
        self.session.complete(exit);
        if let Some(hub) = self.hub.upgrade() {
            hub.0.end(&self.id, &self.session);
        }
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        if self.session.has_ended() {
            return;
        }
        if let Some(hub) = self.hub.upgrade() {
            let mut sessions = lock(&hub.0.sessions);
            if sessions.get(&self.id).is_some_and(|session| Arc::ptr_eq(session, &self.session)) {
                sessions.remove(&self.id);
            }
        }
        self.session.lost.send_replace(true);
        self.session.feed.lose();
    }
}

impl Terminal {
    fn of(terminal: OwnedFd) -> Self {
        Self(terminal)
    }

    fn share(&self) -> std::io::Result<OwnedFd> {
        self.0.as_fd().try_clone_to_owned()
    }
}
