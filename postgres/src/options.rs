//! How to reach the database, and the bounds of the contract.

use core::str::FromStr;
use core::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use crate::problem::Problem;
use crate::tls::MakeTls;

/// The clocks of two nodes may run at rates that differ by one part in this many.
const RATE: u32 = 100;

/// How to reach the database, and the bounds of the contract in `docs/FLEET.md`.
#[derive(Clone)]
pub struct Options {
    pub(crate) connection: Config,
    pub(crate) tls: Option<MakeTls>,
    pub(crate) limit: Duration,
    pub(crate) interval: Duration,
    pub(crate) read_timeout: Duration,
    pub(crate) timeout: Duration,
    pub(crate) standby: bool,
}

impl Options {
    /// How long a node permits after a read of the log began, if [`Options::with_limit`] is not called.
    pub const DEFAULT_LIMIT: Duration = Duration::from_secs(2);
    /// How long a transaction may take, if [`Options::with_timeout`] is not called.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

    /// Reads a connection string: `postgres://user:password@host:port/database`, or `host=/run/postgresql
    /// user=agent` for a Unix socket. Except over a Unix socket, the connection is encrypted, and the server is
    /// checked against `root_certificates`, in PEM; `sslmode` in the string is not used.
    ///
    /// # Errors
    /// [`Problem::Options`] if the string cannot be read, names no host, or a certificate cannot be read.
    pub fn new(connection: &str, root_certificates: Option<&[u8]>) -> Result<Self, Problem> {
        let mut config = Config::from_str(connection).map_err(|error| {
            let source = core::error::Error::source(&error).map(|source| format!(": {source}"));
            Problem::Options(format!("{error}{}", source.unwrap_or_default()))
        })?;
        let hosts = config.get_hosts();
        if hosts.is_empty() {
            return Err(Problem::Options("the connection string names no host".to_owned()));
        }
        let local = hosts.iter().all(|host| matches!(host, Host::Unix(_)));
        let tls = match (local, root_certificates) {
            (true, _) => None,
            (false, Some(roots)) => Some(MakeTls::new(roots)?),
            (false, None) => {
                return Err(Problem::Options(
                    "root certificates are needed, unless the host is a Unix socket".to_owned(),
                ));
            }
        };
        config
            .ssl_mode(if local { SslMode::Disable } else { SslMode::Require })
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .application_name("sessioncap");
        let options = Self {
            connection: config,
            tls,
            limit: Self::DEFAULT_LIMIT,
            interval: Duration::ZERO,
            read_timeout: Duration::ZERO,
            timeout: Self::DEFAULT_TIMEOUT,
            standby: true,
        };
        options.with_limit(Self::DEFAULT_LIMIT)
    }

    /// Sets X: how long a node permits after a read of the log began, and so for how long a revocation at most
    /// waits for a node that does not answer. The log is read every tenth of it, and a read may take a
    /// quarter. Every node must have the same.
    ///
    /// # Errors
    /// [`Problem::Options`] below 100 milliseconds or above 60 seconds.
    pub fn with_limit(mut self, limit: Duration) -> Result<Self, Problem> {
        if limit < Duration::from_millis(100) || limit > Duration::from_secs(60) {
            return Err(Problem::Options("the limit must be 100 milliseconds to 60 seconds".to_owned()));
        }
        (self.limit, self.interval, self.read_timeout) = (limit, limit / 10, limit / 4);
        self.check()
    }

    /// Sets how often the log is read without a notification, and how long one read may take.
    ///
    /// # Errors
    /// [`Problem::Options`] if a node could reach the limit although every read succeeds: if the limit is not
    /// more than the two together and a hundredth of itself.
    pub fn with_reads(mut self, every: Duration, timeout: Duration) -> Result<Self, Problem> {
        (self.interval, self.read_timeout) = (every, timeout);
        self.check()
    }

    fn check(self) -> Result<Self, Problem> {
        let needed = self.interval.saturating_add(self.read_timeout).saturating_add(self.limit / RATE);
        if self.interval.is_zero() || self.read_timeout.is_zero() || self.limit <= needed {
            return Err(Problem::Options(
                "the limit must be more than the interval, the timeout of a read and a hundredth of itself"
                    .to_owned(),
            ));
        }
        Ok(self)
    }

    /// Sets how long a transaction may take. After this the connection is thrown away; if its commit was sent, the
    /// outcome is unknown.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Accepts commits that no standby has. **If the primary's disk is lost, or a standby that lags is promoted,
    /// revocations that were answered as done are undone: a revoked phone is admitted again.** For tests, and for
    /// a database whose storage is itself replicated before a commit is answered.
    #[must_use]
    pub fn without_standby(mut self) -> Self {
        self.standby = false;
        self
    }

    /// Returns X.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Returns how long after a commit no other node permits by a read of before, however fast or slow its clock
    /// is within the bound.
    pub(crate) fn last_permit(&self) -> Duration {
        self.limit.saturating_add(self.limit / RATE)
    }
}

impl core::fmt::Debug for Options {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Without the connection, whose password is a secret.
        f.debug_struct("Options")
            .field("limit", &self.limit)
            .field("standby", &self.standby)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const LOCAL: &str = "host=/run/postgresql user=agent";

    #[test]
    fn a_connection_is_encrypted_unless_it_is_a_unix_socket() {
        assert!(Options::new("postgres://agent@db.example/x", None).is_err());
        assert!(Options::new("postgres://agent@db.example/x?sslmode=disable", None).is_err());
        assert!(Options::new("user=agent", None).is_err(), "no host");
        let options = Options::new("postgres://agent@db.example/x?sslmode=disable", Some(b"")).unwrap();
        assert_eq!(options.connection.get_ssl_mode(), SslMode::Require);
        let mixed = Options::new("host=/run/postgresql,db.example user=agent", None);
        assert!(mixed.is_err(), "one of two hosts is not local");
        assert_eq!(Options::new(LOCAL, None).unwrap().connection.get_ssl_mode(), SslMode::Disable);
        assert!(Options::new(LOCAL, Some(b"-----BEGIN CERTIFICATE-----")).is_ok(), "not read");
        let wrong = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(Options::new("postgres://db.example/x", Some(wrong)).is_err());
    }

    #[test]
    fn a_limit_without_a_margin_is_refused() {
        let options = Options::new(LOCAL, None).unwrap().with_limit(Duration::from_secs(1)).unwrap();
        let with = |every, timeout| {
            options.clone().with_reads(Duration::from_millis(every), Duration::from_millis(timeout)).is_ok()
        };
        assert!(with(490, 490) && with(500, 489));
        assert!(!with(495, 495), "nothing is left for clocks of another rate");
        assert!(!with(0, 500) && !with(500, 0));
        assert!(options.clone().with_limit(Duration::from_millis(99)).is_err());
        assert!(options.clone().with_limit(Duration::from_secs(61)).is_err());
        assert_eq!(options.last_permit(), Duration::from_millis(1_010));
    }

    #[test]
    fn no_password_is_printed() {
        let options = Options::new("host=/run/postgresql password=hunter2", None).unwrap();
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
