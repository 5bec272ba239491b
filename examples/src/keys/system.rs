//! The system's keyring, on a thread of its own: its calls wait for a person where it is locked, and may start a
//! runtime, which no thread of ours may have then.

use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use keyring::{Entry, Error};
use tokio::sync::oneshot;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::problem::{Outcome, Problem, While};

/// Calls that wait for the one before them.
const MOST_WAITING: usize = 8;

type Job = Box<dyn FnOnce() + Send>;

/// The thread. It ends with its last job; one that never ends keeps nothing but the thread.
pub(super) struct Worker {
    jobs: SyncSender<Job>,
    patience: Duration,
}

impl Worker {
    pub fn start(patience: Duration) -> Outcome<Self> {
        let (jobs, waiting) = sync_channel::<Job>(MOST_WAITING);
        let thread = thread::Builder::new().name("keyring".to_owned());
        let started = thread.spawn(move || waiting.into_iter().for_each(|job| job()));
        started.during("no thread can be started for the system's keyring")?;
        Ok(Self { jobs, patience })
    }

    pub async fn get(&self, service: &str, name: &str) -> Outcome<Option<Zeroizing<Vec<u8>>>> {
        let got = self.ask(service, name, |entry| entry.get_secret().map(Zeroizing::new)).await?;
        present(got)
    }

    pub async fn set(&self, service: &str, name: &str, secret: &[u8]) -> Outcome<()> {
        let secret = Zeroizing::new(secret.to_vec());
        let set = self.ask(service, name, move |entry| entry.set_secret(&secret)).await?;
        set.map_err(|error| failed(&error))
    }

    pub async fn delete(&self, service: &str, name: &str) -> Outcome<bool> {
        let deleted = self.ask(service, name, Entry::delete_credential).await?;
        Ok(present(deleted)?.is_some())
    }

    async fn ask<T: Send + 'static>(
        &self,
        service: &str,
        name: &str,
        call: impl FnOnce(&Entry) -> Result<T, Error> + Send + 'static,
    ) -> Outcome<Result<T, Error>> {
        let (answer, answered) = oneshot::channel();
        let (service, name) = (service.to_owned(), name.to_owned());
        let job = move || {
            // Nobody waits any more where it has taken too long.
            if !answer.is_closed() {
                let _ = answer.send(Entry::new(&service, &name).and_then(|entry| call(&entry)));
            }
        };
        let stuck = || {
            Problem::Said(format!(
                "the system's keyring has not answered within {} seconds; unlock it, or keep the keys in files",
                self.patience.as_secs()
            ))
        };
        match self.jobs.try_send(Box::new(job)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(stuck()),
            Err(TrySendError::Disconnected(_)) => return Err(broken()),
        }
        match timeout(self.patience, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(broken()),
            Err(_) => Err(stuck()),
        }
    }
}

/// The thread has ended, which only a panic of the keyring's code does.
fn broken() -> Problem {
    Problem::said("the system's keyring failed; keep the keys in files")
}

fn present<T>(answer: Result<T, Error>) -> Outcome<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Error::NoEntry) => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

/// What an error says; some of its forms hold the secret.
fn failed(error: &Error) -> Problem {
    let why = match error {
        Error::NoDefaultStore => match Entry::store_status() {
            Err(cause) => format!("there is none: {}", words(cause)),
            Ok(()) => "there is none".to_owned(),
        },
        error => words(error),
    };
    Problem::Said(format!(
        "the system's keyring cannot be used: {why}; start it or log in to a desktop, or keep the keys in files"
    ))
}

fn words(error: &Error) -> String {
    match error {
        Error::PlatformFailure(cause) => cause.to_string(),
        Error::NoStorageAccess(cause) => format!("it is locked or refuses access: {cause}"),
        Error::BadEncoding(_) | Error::BadDataFormat(..) | Error::BadStoreFormat(_) => {
            "what it holds under this name is damaged".to_owned()
        }
        Error::TooLong(..) => "the secret is too long for it".to_owned(),
        Error::Ambiguous(_) => "it holds several secrets under this name".to_owned(),
        _ => "it has no place for this secret".to_owned(),
    }
}
