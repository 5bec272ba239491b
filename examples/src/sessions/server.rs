//! The server: it has the terminals and their programs.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::geteuid;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::new_id;
use super::wire::{self, Ask, Failure, Floor, Process, Tell};
use crate::agent::bind_private;
use crate::lock;
use crate::problem::{Outcome, While};
use crate::pty::{Hub, OutputEvent, SessionInfo, SessionSpec, Whole};

/// How long an agent may take to know a new session. One that takes longer is disconnected, and comes again.
const KNOWING: Duration = Duration::from_secs(5);
/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(250);

/// The server of the sessions that several agents share. It ends with the process, and every program with it.
pub struct Server {
    listener: UnixListener,
    shared: Arc<Shared>,
}

struct Shared {
    hub: Hub,
    joined: Mutex<Vec<Joined>>,
    /// The sessions that end with the process of an agent.
    bound: Mutex<HashMap<String, Process>>,
}

/// An agent that is told of new sessions.
struct Joined {
    process: Process,
    news: mpsc::UnboundedSender<News>,
}

enum News {
    Begun(String, oneshot::Sender<()>),
    Floor(Floor),
}

impl Server {
    /// Listens at this path, which only this user can open then.
    pub async fn bind(path: &Path) -> Outcome<Self> {
        let listener =
            bind_private(path).await.during(format_args!("cannot listen at {}", path.display()))?;
        let shared = Shared {
            // Agents learn of an end as they follow the session.
            hub: Hub::new(|_| ()),
            joined: Mutex::default(),
            bound: Mutex::default(),
        };
        Ok(Self { listener, shared: Arc::new(shared) })
    }

    /// Serves agents until the future is dropped.
    pub async fn serve(&self) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let shared = Arc::clone(&self.shared);
                    // An agent that breaks off says so by that.
                    tokio::spawn(async move { shared.answer(stream).await });
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Kills every program and waits until all are reaped.
    pub async fn stop(&self) {
        self.shared.hub.shutdown().await;
    }
}

impl Shared {
    async fn answer(self: Arc<Self>, mut stream: UnixStream) -> io::Result<()> {
        // The socket's mode says the same, unless somebody has changed it.
        if stream.peer_cred()?.uid() != geteuid().as_raw() {
            return Ok(());
        }
        let answer = match wire::receive_json(&mut stream).await? {
            Ask::Join(process) => return self.tell_news(stream, process).await,
            Ask::Follow { id } => match self.hub.whole(&id) {
                Ok(whole) => return follow(stream, whole).await,
                Err(error) => Tell::Failed(error.into()),
            },
            Ask::Create { process, spec, stays } => match self.create(process, spec, stays).await {
                Ok(info) => Tell::Made(info),
                Err(failure) => Tell::Failed(failure),
            },
            Ask::Resize { id, columns, rows } => done(self.hub.resize(&id, columns, rows)),
            Ask::Close { id } => done(self.hub.close(&id)),
            Ask::List => Tell::Sessions(self.ids()),
            Ask::Known | Ask::Floor(_) | Ask::Lead(_) => return Ok(()),
        };
        wire::send(&mut stream, &answer).await
    }

    fn ids(&self) -> Vec<String> {
        self.hub.list().into_iter().map(|info| info.id).collect()
    }

    /// Starts a program, and returns when every agent knows the session: a phone may come to any of them next.
    async fn create(&self, process: Process, spec: SessionSpec, stays: bool) -> Result<SessionInfo, Failure> {
        let info = self.hub.create_as(new_id(process.node), spec)?;
        if !stays {
            lock(&self.bound).insert(info.id.clone(), process);
        }
        let known: Vec<_> = lock(&self.joined)
            .iter()
            .filter_map(|joined| {
                let (tell, known) = oneshot::channel();
                joined.news.send(News::Begun(info.id.clone(), tell)).ok()?;
                Some((joined.process, known))
            })
            .collect();
        for (process, known) in known {
            if timeout(KNOWING, known).await.is_err() {
                lock(&self.joined).retain(|joined| joined.process != process);
            }
        }
        if !lock(&self.joined).iter().any(|joined| joined.process == process) {
            self.end_bound_to(process);
        }
        Ok(info)
    }

    fn end_bound_to(&self, process: Process) {
        let mut bound = lock(&self.bound);
        let ended: Vec<String> =
            bound.iter().filter(|(_, of)| **of == process).map(|(id, _)| id.clone()).collect();
        for id in ended {
            bound.remove(&id);
            // It may have ended by itself.
            let _ = self.hub.close(&id);
        }
    }

    /// Tells an agent of new sessions, until it is gone or takes too long to know one.
    async fn tell_news(&self, stream: UnixStream, process: Process) -> io::Result<()> {
        let (news, mut next) = mpsc::unbounded_channel();
        // Before the list is made, so that no session is in neither.
        lock(&self.joined).push(Joined { process, news });
        let told = self.tell_until_gone(stream, process, &mut next).await;
        lock(&self.joined).retain(|joined| joined.process != process);
        self.end_bound_to(process);
        told
    }

    async fn tell_until_gone(
        &self,
        stream: UnixStream,
        process: Process,
        next: &mut mpsc::UnboundedReceiver<News>,
    ) -> io::Result<()> {
        let (from, mut to) = stream.into_split();
        wire::send(&mut to, &Tell::Sessions(self.ids())).await?;
        let (mut asks, reading) = wire::reading::<Ask>(from, 16);
        let mut unknown = std::collections::VecDeque::new();
        let told = loop {
            tokio::select! {
                news = next.recv() => {
                    let tell = match news {
                        Some(News::Begun(id, known)) => {
                            unknown.push_back(known);
                            Tell::Begun(id)
                        }
                        Some(News::Floor(floor)) => Tell::Floor(floor),
                        None => break Ok(()),
                    };
                    if let Err(error) = wire::send(&mut to, &tell).await {
                        break Err(error);
                    }
                }
                ask = asks.recv() => match ask {
                    Some(Ask::Known) => {
                        if let Some(known) = unknown.pop_front() {
                            // Whoever waited may have stopped.
                            let _ = oneshot::Sender::send(known, ());
                        }
                    }
                    Some(Ask::Floor(floor)) => self.pass_on(&floor, process),
                    _ => break Ok(()),
                },
            }
        };
        reading.abort();
        told
    }

    /// An agent that joins later begins without.
    fn pass_on(&self, floor: &Floor, from: Process) {
        for joined in lock(&self.joined).iter().filter(|joined| joined.process != from) {
            // One that is gone is not told.
            let _ = joined.news.send(News::Floor(floor.clone()));
        }
    }
}

fn done(outcome: Result<(), crate::pty::HubError>) -> Tell {
    outcome.map_or_else(|error| Tell::Failed(error.into()), |()| Tell::Done)
}

/// Passes a session on, until it has ended or the agent is gone.
async fn follow(mut stream: UnixStream, whole: Whole) -> io::Result<()> {
    let Whole { info, incarnation, history, screen, mut output, mut size, terminal, viewer } = whole;
    let head = Tell::Session { info, incarnation: *incarnation.as_bytes(), position: screen.position };
    wire::send(&mut stream, &head).await?;
    wire::send_terminal(&stream, &terminal).await?;
    wire::send_bytes(&mut stream, &history).await?;
    wire::send_bytes(&mut stream, &screen.bytes).await?;
    drop(terminal);
    let (from, mut to) = stream.into_split();
    let (mut asks, reading) = wire::reading::<Ask>(from, 1);
    let told = loop {
        let sent = tokio::select! {
            event = output.next() => match event {
                OutputEvent::Data(bytes) => wire::send_bytes(&mut to, &bytes).await,
                // The agent follows again.
                OutputEvent::Lagged => break Ok(()),
                OutputEvent::Ended => break wire::send(&mut to, &Tell::Ended(viewer.end().value)).await,
            },
            Ok(()) = size.changed() => {
                let (columns, rows) = *size.borrow_and_update();
                wire::send(&mut to, &Tell::Resized { columns, rows }).await
            }
            ask = asks.recv() => match ask {
                Some(Ask::Lead(leads)) => {
                    output.set_lead(leads);
                    Ok(())
                }
                _ => break Ok(()),
            },
        };
        if sent.is_err() {
            break sent;
        }
    };
    reading.abort();
    told
}
