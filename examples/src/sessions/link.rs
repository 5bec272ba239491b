//! An agent's side: it mirrors every session of the server, and asks the server for what it does to them.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::OsRng;
use rustix::process::geteuid;
use sessioncap::session::Incarnation;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};

use super::limits::{MOST_CHANGES, MOST_STARTING, PATIENCE};
use super::message::{Ask, Floor, Message, Process, Tell};
use super::untold::Untold;
use super::{message, wire};
use crate::problem::{Outcome, Problem};
use crate::pty::{Change, Changes, Hub, HubError, Mirror, Orders, SessionInfo, Start, WeakHub};

/// How long to wait before the server is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// Where the server is, and which node asks.
#[derive(Clone)]
pub struct Link {
    path: Arc<Path>,
    process: Process,
}

/// The sessions of a server, as an agent has them.
#[derive(Clone)]
pub struct Shared {
    link: Link,
    /// Whether the server is joined.
    joined: watch::Receiver<bool>,
    floors: Arc<Untold>,
}

/// Takes a floor that the server tells: the credential, the session, and the position, if it is known.
pub type OnFloor = Arc<dyn Fn(&str, &str, Option<u64>) + Send + Sync>;

impl Link {
    /// To the server at this path, of this node.
    pub fn new(path: PathBuf, node: u32) -> Self {
        Self { path: path.into(), process: Process { node, number: OsRng.r#gen() } }
    }

    /// Mirrors the server's sessions until the hub is dropped. `on_end` as in [`Hub::new`].
    pub fn mirror(self, on_end: impl Fn(&str) + Send + Sync + 'static, on_floor: OnFloor) -> (Hub, Shared) {
        let (orders, starts, changes) = Orders::new(MOST_CHANGES);
        let hub = Hub::mirror(on_end, orders);
        let (tell_joined, joined) = watch::channel(false);
        let floors = Arc::<Untold>::default();
        let untold = Arc::clone(&floors);
        tokio::spawn(self.clone().follow_server(hub.downgrade(), tell_joined, untold, on_floor));
        tokio::spawn(self.clone().start(starts));
        tokio::spawn(self.clone().change(changes));
        (hub, Shared { link: self, joined, floors })
    }

    /// Connects, and sends the first message.
    async fn connect(&self, first: &[u8]) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.path).await?;
        if stream.peer_cred()?.uid() != geteuid().as_raw() {
            return Err(io::Error::new(ErrorKind::PermissionDenied, "another user listens there"));
        }
        stream.write_all(first).await?;
        Ok(stream)
    }

    async fn ask(&self, ask: &Ask) -> Result<Tell, HubError> {
        let ask = message::encode(ask).map_err(|error| {
            HubError::Server(format!("the server of the sessions cannot be asked: {error}"))
        })?;
        let answered = timeout(PATIENCE, async {
            let mut stream = self.connect(&ask).await?;
            wire::receive_json(&mut stream).await
        });
        let answer = answered.await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
        match answer {
            Ok(Tell::Failed(failure)) => Err(failure.into()),
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.unreachable(&error)),
        }
    }

    fn unreachable(&self, error: &io::Error) -> HubError {
        HubError::Server(format!(
            "the server of the sessions at {} does not answer: {error}",
            self.path.display()
        ))
    }

    /// Starts the programs that the hub is asked for. Ends with it.
    async fn start(self, mut starts: mpsc::Receiver<Start>) {
        let places = Arc::new(Semaphore::new(MOST_STARTING));
        while let Some(Start { spec, stays, answer }) = starts.recv().await {
            // Fails only if closed, which it never is.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (link, process) = (self.clone(), self.process);
            // Others need not wait until every agent knows this one.
            tokio::spawn(async move {
                let made = match link.ask(&Ask::Create { process, spec, stays }).await {
                    Ok(Tell::Made(info)) => Ok(info),
                    Ok(_) => Err(link.unreachable(&ErrorKind::InvalidData.into())),
                    Err(error) => Err(error),
                };
                drop(place);
                // The caller may be gone.
                let _ = answer.send(made);
            });
        }
    }

    /// Tells the server of the sizes and ends of the hub's sessions. Ends with it.
    async fn change(self, mut changes: Changes) {
        while let Some(change) = changes.next().await {
            let ask = match change {
                Change::Resize { id, columns, rows } => Ask::Resize { id, columns, rows },
                Change::Close { id } => Ask::Close { id },
            };
            // It has its size, or has ended here; the server is told so.
            let _ = self.ask(&ask).await;
        }
    }

    /// Hears of new sessions, and joins again whenever the server was lost.
    async fn follow_server(
        self,
        hub: WeakHub,
        joined: watch::Sender<bool>,
        floors: Arc<Untold>,
        on_floor: OnFloor,
    ) {
        while hub.upgrade().is_some() {
            // However it ended, it is begun again.
            let _ = self.join(&hub, &joined, &floors, &on_floor).await;
            joined.send_replace(false);
            tokio::select! {
                () = sleep(PAUSE) => {}
                () = joined.closed() => return,
            }
        }
    }

    async fn join(
        &self,
        hub: &WeakHub,
        joined: &watch::Sender<bool>,
        floors: &Untold,
        on_floor: &OnFloor,
    ) -> io::Result<()> {
        let stream = self.connect(&message::encode(&Ask::Join(self.process))?).await?;
        let (from, mut to) = stream.into_split();
        let (mut tells, reading) = wire::reading::<Tell>(from);
        let heard = loop {
            let tell = tokio::select! {
                tell = tells.recv() => tell,
                floor = floors.take() => {
                    if let Err(error) = wire::send(&mut to, &Ask::Floor(floor.clone())).await {
                        floors.return_unsent(floor);
                        break Err(error);
                    }
                    continue;
                }
                // The agent ends.
                () = joined.closed() => break Ok(()),
            };
            match tell {
                Some(Tell::Sessions(ids)) => {
                    for id in ids {
                        // One that has ended since is not there.
                        let _ = self.follow(hub, &id).await;
                    }
                    joined.send_replace(true);
                }
                Some(Tell::Begun(id)) => {
                    let _ = self.follow(hub, &id).await;
                    if let Err(error) = wire::send(&mut to, &Ask::Known).await {
                        break Err(error);
                    }
                }
                Some(Tell::Floor(Floor { credential, session, position })) => {
                    on_floor(&credential, &session, position);
                }
                _ => break Ok(()),
            }
        };
        reading.abort();
        heard
    }

    /// Adds a session, and fills it until it has ended or its server is lost.
    async fn follow(&self, hub: &WeakHub, id: &str) -> io::Result<()> {
        if hub.upgrade().is_none_or(|hub| hub.info(id).is_some()) {
            return Ok(());
        }
        let begun = self.begin(hub, id).await?;
        let (link, hub, id) = (self.clone(), hub.clone(), id.to_owned());
        tokio::spawn(async move {
            let (mut stream, mut mirror) = begun;
            // A server that goes on without this agent's having read all is followed from the present screen on.
            loop {
                let (mut from, mut to) = stream.into_split();
                let Err(Lost::Behind) = fill(&mut from, &mut to, mirror).await else { return };
                let Ok(again) = link.begin(&hub, &id).await else { return };
                (stream, mirror) = again;
            }
        });
        Ok(())
    }

    async fn begin(&self, hub: &WeakHub, id: &str) -> io::Result<(UnixStream, Mirror)> {
        let beginning = timeout(PATIENCE, async {
            let mut stream = self.connect(&message::encode(&Ask::Follow { id: id.to_owned() })?).await?;
            let begun = Begun::receive(&mut stream, id).await?;
            let terminal = wire::receive_terminal(&stream).await?;
            let mirror = begun.mirror(&mut stream, hub, terminal).await?;
            Ok((stream, mirror))
        });
        beginning.await.map_err(|_| io::Error::from(ErrorKind::TimedOut))?
    }
}

/// A session that the server begins to pass on. Its terminal comes next.
pub struct Begun {
    info: SessionInfo,
    incarnation: Incarnation,
    position: u64,
}

impl Begun {
    /// Receives the session that was asked for.
    ///
    /// # Errors
    /// If there is no such session, or the server sends something else.
    pub async fn receive(from: &mut (impl AsyncRead + Unpin), id: &str) -> io::Result<Self> {
        let Tell::Session { info, incarnation, position } = wire::receive_json(from).await? else {
            return Err(ErrorKind::NotFound.into());
        };
        let incarnation = Incarnation::from_bytes(incarnation).filter(|_| info.id == id);
        let incarnation = incarnation.ok_or(ErrorKind::InvalidData)?;
        Ok(Self { info, incarnation, position })
    }

    /// Receives the history and the screen, and adds the session.
    ///
    /// # Errors
    /// If the server sends something else, or the hub is gone.
    pub async fn mirror(
        self,
        from: &mut (impl AsyncRead + Unpin),
        hub: &WeakHub,
        terminal: OwnedFd,
    ) -> io::Result<Mirror> {
        let history = wire::receive_bytes(from).await?;
        let screen = wire::receive_bytes(from).await?;
        let Self { info, incarnation, position } = self;
        let mirror = hub.add(info, incarnation, &history, position, &screen, terminal);
        mirror.ok_or_else(|| ErrorKind::NotFound.into())
    }
}

/// Why a session is not filled any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The server has closed: it is gone, or this agent was behind.
    Behind,
    /// A message of it cannot be understood.
    Garbled,
}

/// Fills a session with what the server sends, until it has ended.
///
/// # Errors
/// If the server is lost before, or cannot be understood.
pub async fn fill(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mirror: Mirror,
) -> Result<(), Lost> {
    let mut leads = false;
    loop {
        // Not before the agent's own readers have had what came before, so that a flood runs at their pace.
        mirror.pace().await;
        match wire::receive(from).await {
            Ok(Message::Bytes(bytes)) => mirror.publish(&bytes),
            Ok(Message::Json(Tell::Resized { columns, rows })) => mirror.resized(columns, rows),
            Ok(Message::Json(Tell::Ended(exit))) => {
                mirror.end(exit);
                return Ok(());
            }
            Ok(Message::Json(_)) => return Err(Lost::Garbled),
            Err(error) if error.kind() == ErrorKind::InvalidData => return Err(Lost::Garbled),
            Err(_) => return Err(Lost::Behind),
        }
        if mirror.has_readers() != leads {
            leads = !leads;
            // The next read says whether the server is gone.
            let _ = wire::send(to, &Ask::Lead(leads)).await;
        }
    }
}

impl Shared {
    /// Waits until the server was joined, but not for long.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn wait(&self) -> Outcome<()> {
        let mut joined = self.joined.clone();
        let waiting = timeout(PATIENCE, joined.wait_for(|joined| *joined));
        match waiting.await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Problem::Said(format!(
                "the server of the sessions at {} does not answer; start it first",
                self.link.path.display()
            ))),
        }
    }

    /// Waits until the server is lost. Returns `false` when that will not happen any more.
    pub async fn lost(&mut self) -> bool {
        self.joined.wait_for(|joined| !joined).await.is_ok()
    }

    /// Waits until the server is joined. Returns `false` when that will not happen any more.
    pub async fn joined(&mut self) -> bool {
        self.joined.wait_for(|joined| *joined).await.is_ok()
    }

    /// The number of this node.
    pub fn node(&self) -> u32 {
        self.link.process.node
    }

    /// The ids of the sessions that there are at the server now.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn sessions(&self) -> Outcome<Vec<String>> {
        match self.link.ask(&Ask::List).await {
            Ok(Tell::Sessions(ids)) => Ok(ids),
            Ok(_) => Err(Problem::said("the server of the sessions gave another answer")),
            Err(error) => Err(Problem::said(error.to_string())),
        }
    }

    /// Tells the other agents from where on a credential's phone may get output again.
    pub fn tell_floor(&self, credential: String, session: String, position: Option<u64>) {
        self.floors.add(Floor { credential, session, position });
    }
}
