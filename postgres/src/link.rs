//! A connection on a thread of its own. Every call has the caller's own deadline; at the deadline the connection is
//! thrown away.

use core::future::Future;
use core::pin::Pin;
use core::time::Duration;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::options::Options;
use crate::problem::{Failure, Problem};

/// Something to do with a connection.
pub(crate) trait Job: Send + 'static {
    type Output: Send + 'static;

    fn run(self, session: &Session) -> impl Future<Output = Result<Self::Output, Failure>>;
}

/// An open connection.
pub(crate) struct Session {
    pub(crate) client: Client,
    notices: Arc<Notices>,
    commit_sent: Arc<AtomicBool>,
}

/// The notices that a connection has received. The server sends a notice before the answer that it belongs to.
#[derive(Default)]
struct Notices(Mutex<Vec<String>>);

impl Notices {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    async fn open(
        options: &Options,
        hint: Option<Hint>,
        commit_sent: Arc<AtomicBool>,
    ) -> Result<Self, Problem> {
        let notices = Arc::new(Notices::default());
        let client = match &options.tls {
            None => {
                let connected = options.connection.connect(NoTls).await;
                let (client, connection) = connected.map_err(|error| Problem::of(&error))?;
                drive(connection, Arc::clone(&notices), hint.clone());
                client
            }
            Some(tls) => {
                let connected = options.connection.connect(tls.clone()).await;
                let (client, connection) = connected.map_err(|error| Problem::of(&error))?;
                drive(connection, Arc::clone(&notices), hint.clone());
                client
            }
        };
        if hint.is_some() {
            // Only a hint: without it the log is read at intervals.
            let _ = client.batch_execute("LISTEN sessioncap").await;
        }
        Ok(Self { client, notices, commit_sent })
    }

    /// Commits. Whatever goes wrong from here on, the outcome is unknown; so is a success with a notice, which the
    /// server sends when it gave up waiting for its standby.
    pub(crate) async fn commit(&self) -> Result<(), Failure> {
        self.notices.lock().clear();
        self.commit_sent.store(true, Ordering::Release);
        let outcome = self.client.batch_execute("COMMIT").await;
        outcome.map_err(|error| Failure::Unknown(Problem::of(&error)))?;
        match self.notices.lock().pop() {
            Some(notice) => Err(Failure::Unknown(Problem::Notice(notice))),
            None => Ok(()),
        }
    }
}

/// Wakes whoever follows the log.
#[derive(Clone)]
pub(crate) struct Hint {
    pub(crate) agent: Arc<str>,
    pub(crate) sender: SyncSender<()>,
}

fn drive<S, T>(mut connection: tokio_postgres::Connection<S, T>, notices: Arc<Notices>, hint: Option<Hint>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    tokio::task::spawn_local(async move {
        while let Some(Ok(message)) = core::future::poll_fn(|context| connection.poll_message(context)).await
        {
            match (message, &hint) {
                (AsyncMessage::Notice(notice), _) => {
                    let mut notices = notices.lock();
                    // Bounded, although a server sends few.
                    notices.truncate(15);
                    notices.push(format!("{}: {}", notice.code().code(), notice.message()));
                }
                (AsyncMessage::Notification(notification), Some(hint))
                    if notification.payload() == &*hint.agent =>
                {
                    // If it is full, one is on its way.
                    let _ = hint.sender.try_send(());
                }
                _ => {}
            }
        }
    });
}

type Work = Box<dyn for<'a> FnOnce(&'a mut Slot) -> Pin<Box<dyn Future<Output = ()> + 'a>> + Send>;

/// The thread's connection, if there is one.
struct Slot {
    options: Options,
    hint: Option<Hint>,
    session: Option<Session>,
}

impl Slot {
    async fn run<J: Job>(&mut self, job: J, limit: Duration) -> Result<J::Output, Failure> {
        let commit_sent = Arc::new(AtomicBool::new(false));
        let outcome = tokio::time::timeout(limit, self.run_without_limit(job, &commit_sent)).await;
        let outcome = outcome.unwrap_or_else(|_| {
            let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            let problem = Problem::Timeout { milliseconds };
            Err(match commit_sent.load(Ordering::Acquire) {
                true => Failure::Unknown(problem),
                false => Failure::NotDone(problem),
            })
        });
        if !matches!(outcome, Ok(_) | Err(Failure::Conflict)) {
            // Whatever it is still doing, nobody waits for it. Nothing is cancelled: a cancelled commit would be
            // answered as a success.
            self.session = None;
        }
        outcome
    }

    async fn run_without_limit<J: Job>(
        &mut self,
        job: J,
        commit_sent: &Arc<AtomicBool>,
    ) -> Result<J::Output, Failure> {
        let open = self.session.take().filter(|session| !session.client.is_closed());
        let mut session = match open {
            Some(session) => session,
            None => Session::open(&self.options, self.hint.clone(), Arc::clone(commit_sent)).await?,
        };
        session.commit_sent = Arc::clone(commit_sent);
        // Dropped with this future at the deadline.
        let outcome = job.run(&session).await;
        self.session = Some(session);
        outcome
    }
}

/// A connection on a thread of its own.
pub(crate) struct Link {
    sender: Option<UnboundedSender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    pub(crate) fn new(options: Options, hint: Option<Hint>) -> io::Result<Self> {
        let (sender, mut receiver) = unbounded_channel::<Work>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("sessioncap-postgres".to_owned()).spawn(move || {
            let mut slot = Slot { options, hint, session: None };
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                while let Some(work) = receiver.recv().await {
                    work(&mut slot).await;
                }
            });
        })?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }

    /// Runs a job after those before it, and waits for its outcome. The job itself has this long.
    pub(crate) fn call<J: Job>(&self, job: J, limit: Duration) -> Result<J::Output, Failure> {
        let (reply, outcome) = sync_channel(1);
        self.send(move |slot: &mut Slot| {
            Box::pin(async move {
                let _ = reply.send(slot.run(job, limit).await);
            })
        });
        let gone = || Problem::Connection("its thread has ended".to_owned());
        outcome.recv().map_err(|_| Failure::NotDone(gone()))?
    }

    /// Runs a job after those before it, and does not wait.
    pub(crate) fn cast<J: Job>(
        &self,
        job: J,
        limit: Duration,
        then: impl FnOnce(J::Output) + Send + 'static,
    ) {
        self.send(move |slot: &mut Slot| {
            Box::pin(async move {
                if let Ok(output) = slot.run(job, limit).await {
                    then(output);
                }
            })
        });
    }

    fn send(
        &self,
        work: impl for<'a> FnOnce(&'a mut Slot) -> Pin<Box<dyn Future<Output = ()> + 'a>> + Send + 'static,
    ) {
        if let Some(sender) = &self.sender {
            let _ = sender.send(Box::new(work));
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}
