//! Where a program keeps small secrets: the system's keyring, or files that only their owner can read
//! (`docs/ACP_BRIDGE.md`, "Where keys are"). The user chooses, and the program says which; nothing falls back from
//! one to the other by itself.

#[cfg(feature = "keyring")]
mod system;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use super::files::{make_private_directory, read_private, write_private};
use super::problem::{Outcome, Problem, While};

/// A store of secrets, each under a service and a name: 1 to 64 letters, digits, dots, hyphens and underscores, not
/// beginning with a dot.
pub struct Keeper(Store);

enum Store {
    #[cfg(feature = "keyring")]
    System(system::Worker),
    Files(PathBuf),
}

impl Keeper {
    /// Longest secret, bytes. The smallest of the systems' limits is 2,560.
    pub const MAX_LEN: usize = 2_048;
    /// How long the keyring may take. A locked one waits for a person.
    pub const PATIENCE: Duration = Duration::from_secs(20);

    /// The system's keyring: the Secret Service of a Linux desktop, the keychain of macOS. Nothing is asked of it yet.
    ///
    /// # Errors
    /// The program was built without it, or no thread can be started.
    #[cfg(feature = "keyring")]
    pub fn system(patience: Duration) -> Outcome<Self> {
        system::Worker::start(patience).map(Store::System).map(Self)
    }

    /// The system's keyring.
    ///
    /// # Errors
    /// This program was built without it.
    #[cfg(not(feature = "keyring"))]
    pub fn system(_: Duration) -> Outcome<Self> {
        Err(Problem::said(
            "this program was built without the system's keyring; build it with the feature `keyring`",
        ))
    }

    /// Files in a directory, which is made with the first secret.
    pub fn files(directory: PathBuf) -> Self {
        Self(Store::Files(directory))
    }

    /// Reads a secret; `None` if there is none. Waits for the keyring or the disk, as the others do.
    ///
    /// # Errors
    /// A name is out of bounds, or the store cannot be read, or does not answer.
    pub async fn get(&self, service: &str, name: &str) -> Outcome<Option<Zeroizing<Vec<u8>>>> {
        check(service, name)?;
        match &self.0 {
            #[cfg(feature = "keyring")]
            Store::System(worker) => worker.get(service, name).await,
            Store::Files(directory) => read_private(&file(directory, service, name)),
        }
    }

    /// Stores a secret in place of the one that was there.
    ///
    /// # Errors
    /// As [`Keeper::get`]; the secret is longer than [`Keeper::MAX_LEN`]. After an error it may be stored or not.
    pub async fn set(&self, service: &str, name: &str, secret: &[u8]) -> Outcome<()> {
        check(service, name)?;
        if secret.len() > Self::MAX_LEN {
            return Err(Problem::Said(format!("a secret has at most {} bytes", Self::MAX_LEN)));
        }
        match &self.0 {
            #[cfg(feature = "keyring")]
            Store::System(worker) => worker.set(service, name, secret).await,
            Store::Files(directory) => {
                make_private_directory(directory)?;
                write_private(&file(directory, service, name), secret)
            }
        }
    }

    /// Removes a secret. Says whether there was one.
    ///
    /// # Errors
    /// As [`Keeper::get`].
    pub async fn delete(&self, service: &str, name: &str) -> Outcome<bool> {
        check(service, name)?;
        match &self.0 {
            #[cfg(feature = "keyring")]
            Store::System(worker) => worker.delete(service, name).await,
            Store::Files(directory) => {
                let path = file(directory, service, name);
                match std::fs::remove_file(&path) {
                    Ok(()) => Ok(true),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
                    Err(error) => Err(error).during(format_args!("{} cannot be removed", path.display())),
                }
            }
        }
    }
}

/// Says where the secrets are.
impl fmt::Display for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            #[cfg(feature = "keyring")]
            Store::System(_) => f.write_str("keys are in the system's keyring"),
            Store::Files(directory) => {
                write!(f, "keys are in files in {}, which only their owner can read", directory.display())
            }
        }
    }
}

fn check(service: &str, name: &str) -> Outcome<()> {
    let good = |text: &str| {
        (1..=64).contains(&text.len())
            && !text.starts_with('.')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
    };
    if good(service) && good(name) {
        return Ok(());
    }
    Err(Problem::said(
        "the name of a secret is 1 to 64 letters, digits, dots, hyphens and underscores, and begins with no dot",
    ))
}

/// The sign, which no name has, keeps the two apart.
fn file(directory: &std::path::Path, service: &str, name: &str) -> PathBuf {
    directory.join(format!("{service}@{name}"))
}
