//! The server: it has the terminals and their programs.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::geteuid;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::limits::{FIRST, KNOWING, MOST_NEWS, MOST_WAITING, PATIENCE};
use super::message::{Ask, Failure, Floor, Process, Tell};
use super::{new_id, wire};
use crate::agent::bind_private;
use crate::lock;
use crate::problem::{Outcome, While};
use crate::pty::{Hub, OutputEvent, SessionInfo, SessionSpec, Whole};
use crate::terminal::note;

/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(250);
/// Users of whose refused connections a line is printed.
const MOST_STRANGERS: usize = 16;

/// The server of the sessions that several agents share. It ends with the process, and every program with it.
pub struct Server {
    listener: UnixListener,
    shared: Arc<Shared>,
}

struct Shared {
    hub: Hub,
    joined: Mutex<Vec<Joined>>,
    connections: AtomicU64,
    /// The sessions that end with the process of an agent.
    bound: Mutex<HashMap<String, Process>>,
}

/// An agent that is told of new sessions.
struct Joined {
    process: Process,
    /// Of the connection, which no other has: a process that was disconnected comes again.
    connection: u64,
    news: mpsc::Sender<News>,
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
            connections: AtomicU64::default(),
            bound: Mutex::default(),
        };
        Ok(Self { listener, shared: Arc::new(shared) })
    }

    /// Serves agents until the future is dropped.
    pub async fn serve(&self) {
        let places = Arc::new(Semaphore::new(MOST_WAITING));
        let mut strangers = HashSet::new();
        loop {
            // Fails only if closed, which it never is.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => match refusal(&stream) {
                    None => {
                        let shared = Arc::clone(&self.shared);
                        // An agent that breaks off says so by that.
                        tokio::spawn(async move { shared.answer(stream, place).await });
                    }
                    // Once for each, so that nobody fills a disk with it.
                    Some(refusal)
                        if strangers.len() < MOST_STRANGERS && strangers.insert(refusal.clone()) =>
                    {
                        note(&format!("sessions: a connection was refused: {refusal}"));
                    }
                    Some(_) => {}
                },
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Kills every program and waits until all are reaped.
    pub async fn stop(&self) {
        self.shared.hub.shutdown().await;
    }
}

/// Why whoever has connected is not served. The socket's mode says the same, unless somebody has changed it.
fn refusal(stream: &UnixStream) -> Option<String> {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == geteuid().as_raw() => None,
        Ok(peer) => Some(format!(
            "it is of the user {}, and only this one may; look at the socket's mode",
            peer.uid()
        )),
        Err(error) => Some(format!("its user is not known: {error}")),
    }
}

impl Shared {
    /// Holds the place until the first message is whole.
    async fn answer(self: Arc<Self>, mut stream: UnixStream, place: OwnedSemaphorePermit) -> io::Result<()> {
        let first = timeout(FIRST, wire::receive_json(&mut stream)).await??;
        drop(place);
        let answer = match first {
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
        timeout(PATIENCE, wire::send(&mut stream, &answer)).await?
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
        let mut known = Vec::new();
        // One that does not take it any more is disconnected, and asks for all of them when it comes again.
        lock(&self.joined).retain(|joined| {
            let (tell, told) = oneshot::channel();
            known.push((joined.connection, told));
            joined.news.try_send(News::Begun(info.id.clone(), tell)).is_ok()
        });
        let deadline = Instant::now() + KNOWING;
        for (connection, known) in known {
            if timeout_at(deadline, known).await.is_err() {
                self.disconnect(connection);
            }
        }
        self.end_bound_to(process);
        Ok(info)
    }

    /// Its task ends then.
    fn disconnect(&self, connection: u64) {
        lock(&self.joined).retain(|joined| joined.connection != connection);
    }

    /// Unless it is joined.
    fn end_bound_to(&self, process: Process) {
        if lock(&self.joined).iter().any(|joined| joined.process == process) {
            return;
        }
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
        let (news, mut next) = mpsc::channel(MOST_NEWS);
        // Before the list is made, so that no session is in neither.
        let connection = self.connections.fetch_add(1, Ordering::Relaxed);
        lock(&self.joined).push(Joined { process, connection, news });
        let told = self.tell_until_gone(stream, process, &mut next).await;
        self.disconnect(connection);
        self.end_bound_to(process);
        told
    }

    async fn tell_until_gone(
        &self,
        stream: UnixStream,
        process: Process,
        next: &mut mpsc::Receiver<News>,
    ) -> io::Result<()> {
        let (from, mut to) = stream.into_split();
        timeout(KNOWING, wire::send(&mut to, &Tell::Sessions(self.ids()))).await??;
        let (mut asks, reading) = wire::reading::<Ask>(from);
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
                    if next.is_closed() {
                        // It is behind, so the rest is not sent either.
                        break Ok(());
                    }
                    match timeout(KNOWING, wire::send(&mut to, &tell)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => break Err(error),
                        Err(late) => break Err(late.into()),
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
        // One that does not take it any more is disconnected, and then knows no floor.
        lock(&self.joined).retain(|joined| {
            joined.process == from || joined.news.try_send(News::Floor(floor.clone())).is_ok()
        });
    }
}

fn done(outcome: Result<(), crate::pty::HubError>) -> Tell {
    outcome.map_or_else(|error| Tell::Failed(error.into()), |()| Tell::Done)
}

/// Passes a session on, until it has ended or the agent is gone.
async fn follow(mut stream: UnixStream, whole: Whole) -> io::Result<()> {
    let Whole { info, incarnation, history, screen, mut output, mut size, terminal, viewer } = whole;
    let head = Tell::Session { info, incarnation: *incarnation.as_bytes(), position: screen.position };
    let beginning = async {
        wire::send(&mut stream, &head).await?;
        wire::send_terminal(&stream, &terminal).await?;
        wire::send_bytes(&mut stream, &history).await?;
        wire::send_bytes(&mut stream, &screen.bytes).await
    };
    timeout(PATIENCE, beginning).await??;
    drop((terminal, history, screen));
    let (from, mut to) = stream.into_split();
    let (mut asks, reading) = wire::reading::<Ask>(from);
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
