//! One viewer's hold on a session.

use std::sync::Arc;

use sessioncap::session::{EventKind, Following, ResumePoint};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::input::{Input, Permit};
use super::{HubError, Output, Session, SessionInfo};
use crate::lock;

/// What happened in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// What.
    pub kind: EventKind,
    /// After how many bytes of output.
    pub position: u64,
    /// As in the event of the session profile.
    pub value: i32,
    /// Likewise, and as clean as that demands.
    pub text: String,
}

/// The screen of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screen {
    /// After how many bytes of output.
    pub position: u64,
    /// Width of the terminal.
    pub columns: u16,
    /// Height of the terminal.
    pub rows: u16,
    /// Output that clears a terminal and draws it.
    pub bytes: Vec<u8>,
}

/// What follows a point of the output.
pub struct Followed {
    /// From where, and what is missed.
    pub following: Following,
    /// The screen, if it comes first.
    pub screen: Option<Screen>,
    /// The output from there on.
    pub output: Output,
}

/// A viewer of a session, also after its end.
pub struct Viewer {
    session: Arc<Session>,
    happens: broadcast::Receiver<Happened>,
}

impl Viewer {
    pub(super) fn new(session: Arc<Session>) -> Self {
        let happens = session.happened.subscribe();
        Self { session, happens }
    }

    /// The session, unless it has ended.
    pub fn info(&self) -> Option<SessionInfo> {
        (!self.session.has_ended()).then(|| self.session.info())
    }

    /// After how many bytes of output the session is now.
    pub fn position(&self) -> u64 {
        self.session.feed.kept().1
    }

    /// The output from now on, and the screen of this moment.
    pub fn watch(&self) -> (Screen, Output) {
        let mut shown = lock(&self.session.shown);
        let position = self.position();
        let bytes = shown.picture.screen();
        let output = self.session.feed.read_from(position);
        drop(shown);
        let SessionInfo { cols, rows, .. } = self.session.info();
        (Screen { position, columns: cols, rows, bytes }, output)
    }

    /// The output from now on.
    pub fn watch_only(&self) -> Output {
        self.session.feed.read_from(self.position())
    }

    /// The output from a point on, without anything before `floor`; with the screen where that leaves a gap.
    pub fn follow(&self, point: Option<ResumePoint>, floor: u64) -> Followed {
        let incarnation = self.session.incarnation;
        let from = |position| ResumePoint { incarnation, position };
        let (kept, end) = self.session.feed.kept();
        let named = point.filter(|point| point.incarnation == incarnation).map(|point| point.position);
        if let Some(position) = named
            && (kept.max(floor)..=end).contains(&position)
        {
            let following = Following { from: from(position), missed: Some(0), screen: false };
            return Followed { following, screen: None, output: self.session.feed.read_from(position) };
        }
        let (screen, output) = self.watch();
        let missed = match (point, named) {
            (None, _) => Some(0),
            (Some(_), named) => named.map(|position| screen.position.saturating_sub(position)),
        };
        let following = Following { from: from(screen.position), missed, screen: true };
        Followed { following, screen: Some(screen), output }
    }

    /// A queue for what this viewer types, of at most `limit` bytes.
    pub fn input(&self, limit: usize, permit: impl Permit) -> Input {
        Input::new(Arc::clone(&self.session), limit, permit)
    }

    /// Changes the size of the terminal.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<(), HubError> {
        self.session.resize(columns, rows)
    }

    /// Sends SIGINT to the group in front, ahead of everything that was typed.
    pub fn interrupt(&self) {
        self.session.terminal.interrupt();
    }

    /// The last output, up to 1 MiB.
    pub fn history(&self) -> Vec<u8> {
        self.session.feed.history()
    }

    /// The end of the session, once it has ended.
    pub fn end(&self) -> Happened {
        self.session.end()
    }

    /// Waits until the server of the session was lost, so that nothing more is heard of it here.
    pub fn lost(&self) -> impl Future<Output = ()> + use<> {
        let session = Arc::clone(&self.session);
        async move {
            // Fails only if the sender is gone, which the session holds.
            let _ = session.lost.subscribe().wait_for(|lost| *lost).await;
        }
    }

    /// What happens next. Cancel-safe. A viewer that is far behind misses some.
    pub async fn happens(&mut self) -> Happened {
        loop {
            match self.happens.recv().await {
                Ok(happened) => return happened,
                Err(RecvError::Lagged(_)) => {}
                // The session holds a sender.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}
