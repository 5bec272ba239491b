//! One connection to a session, carried by a task of its own: neither a network nor an agent that is stuck keeps the
//! viewer from its keys.

use std::time::Duration;

use sessioncap::SessionId;
use sessioncap::session::{Liveness, Look};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::{Desktop, Identity};
use crate::problem::{Outcome, Problem};
use crate::transport::{Heard, Secure};

/// Pieces of output that wait for the viewer at most.
const WAITING: usize = 16;
/// Pieces of input that wait for the network at most.
const TYPED: usize = 256;
/// How long a connection may take to say that it ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a connection brings.
pub(super) enum FromSession {
    /// Output.
    Output(Vec<u8>),
    /// The session has ended.
    Over,
    /// The connection is lost.
    Lost(Problem),
}

/// An attached session.
pub(super) struct Wire {
    typed: mpsc::Sender<Vec<u8>>,
    events: mpsc::Receiver<FromSession>,
    task: JoinHandle<()>,
}

impl Wire {
    /// Attaches, with the session's present screen first.
    pub(super) async fn open(identity: &Identity, session: &SessionId) -> Outcome<Self> {
        let stream = Desktop::connect(identity).await?.attach(session).await?;
        let (typed, to_send) = mpsc::channel(TYPED);
        let (tell, events) = mpsc::channel(WAITING);
        let task = tokio::spawn(async move {
            if let Err(problem) = carry(stream, to_send, &tell).await {
                let _ = tell.send(FromSession::Lost(problem)).await;
            }
        });
        Ok(Self { typed, events, task })
    }

    /// The next event. Cancel-safe.
    pub(super) async fn next(&mut self) -> FromSession {
        self.events.recv().await.unwrap_or(FromSession::Lost(Problem::BrokenOff))
    }

    /// Sends input, unless too much waits already. Returns whether it was taken.
    pub(super) fn type_in(&self, bytes: Vec<u8>) -> bool {
        // An empty frame would be an end.
        bytes.is_empty() || self.typed.try_send(bytes).is_ok()
    }

    /// Leaves, after what was typed has been sent. The session continues.
    pub(super) async fn leave(self) {
        let Self { typed, mut events, task } = self;
        drop(typed);
        let drained = async { while events.recv().await.is_some() {} };
        // A network that takes nothing is not waited for.
        let _ = timeout(FAREWELL, drained).await;
        task.abort();
    }
}

async fn carry(
    mut stream: Secure,
    mut typed: mpsc::Receiver<Vec<u8>>,
    tell: &mpsc::Sender<FromSession>,
) -> Outcome<()> {
    let start = Instant::now();
    let mut liveness = Liveness::of_phone(Duration::ZERO);
    let mut look = Duration::ZERO;
    loop {
        tokio::select! {
            heard = stream.hear() => {
                liveness.received(start.elapsed());
                let event = match heard? {
                    Heard::Frame(bytes) => FromSession::Output(bytes),
                    Heard::Alive => continue,
                    Heard::End => FromSession::Over,
                };
                let over = matches!(event, FromSession::Over);
                if tell.send(event).await.is_err() || over {
                    stream.end().await;
                    return Ok(());
                }
            }
            bytes = typed.recv() => match bytes {
                Some(bytes) => stream.send(&bytes).await?,
                None => {
                    stream.end().await;
                    return Ok(());
                }
            },
            () = sleep(look) => match liveness.look(start.elapsed()) {
                Look::Wait(pause) => look = pause,
                Look::Ping { .. } => {
                    stream.ask_for_life().await?;
                    liveness.sent_ping(start.elapsed());
                }
                _ => return Err(Problem::TooSlow { seconds: Liveness::PING_TIMEOUT.as_secs() }),
            },
        }
    }
}
