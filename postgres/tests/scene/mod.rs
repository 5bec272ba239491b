//! A throwaway PostgreSQL, and a proxy in front of it that delays, drops and cuts.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "each test uses a part"
)]

pub mod proxy;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sessioncap_postgres::{Options, PostgresLedger};

/// How long anything may take that takes a moment.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The programs of PostgreSQL, if they are here and may be run.
fn programs() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let given = std::env::var_os("SESSIONCAP_POSTGRES_BIN").map(PathBuf::from);
            let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
            let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
            found.sort();
            let found =
                given.into_iter().chain(found.into_iter().rev()).find(|bin| bin.join("initdb").exists());
            let found = found.filter(|_| !is_root() || user().is_some());
            if found.is_none() {
                println!("skipped: PostgreSQL's programs are not here; install the package `postgresql`");
            }
            found
        })
        .as_deref()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The unprivileged user for a server that a privileged test starts.
fn user() -> Option<&'static str> {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let known =
        FOUND.get_or_init(|| Command::new("id").arg("postgres").output().is_ok_and(|id| id.status.success()));
    known.then_some("postgres")
}

/// A program of PostgreSQL, as a user that is not privileged.
fn program(name: &str) -> Command {
    let path = programs().unwrap().join(name);
    let mut command = match is_root() {
        false => Command::new(path),
        true => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(path);
            command
        }
    };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn run(command: &mut Command) -> String {
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Waits for something that takes a moment.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

/// A directory that is removed, which the server's user owns.
pub struct Directory(pub PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("scpg-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        if is_root() {
            run(Command::new("chown").args([user().unwrap()]).arg(&path));
        }
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server with its data, which ends with the test.
pub struct Server {
    child: Child,
    stopped: bool,
    port: String,
    pub directory: Directory,
}

impl Server {
    /// Starts a primary without a standby, or skips.
    pub fn primary() -> Option<Self> {
        programs()?;
        let directory = Directory::new();
        let data = directory.0.join("data");
        run(program("initdb").args(["--no-sync", "-A", "trust", "-U", "postgres", "-D"]).arg(&data));
        let settings = "listen_addresses = ''\nshared_buffers = 16MB\nmax_connections = 100\nmax_wal_senders = 5\n\
            wal_keep_size = 64MB\nlog_min_messages = panic\n";
        let mut file = fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
        file.write_all(settings.as_bytes()).unwrap();
        writeln!(file, "unix_socket_directories = '{}'", directory.0.display()).unwrap();
        Some(Self::start(directory))
    }

    fn start(directory: Directory) -> Self {
        let child = Self::spawn(&directory.0);
        let server = Self { child, stopped: false, port: "5432".to_owned(), directory };
        server.wait();
        server
    }

    fn spawn(directory: &Path) -> Child {
        program("postgres").arg("-D").arg(directory.join("data")).spawn().unwrap()
    }

    fn wait(&self) {
        until("the server answers", || {
            let ready = program("pg_isready")
                .args(["-p", &self.port, "-h"])
                .arg(&self.directory.0)
                .status()
                .unwrap()
                .success();
            ready && self.try_sql("SELECT 1").is_some()
        });
    }

    /// Makes a standby of this server, which receives all of it under this name.
    pub fn standby(&self, name: &str) -> Self {
        let directory = Directory::new();
        let data = directory.0.join("data");
        let from = format!("host={} user=postgres application_name={name}", self.directory.0.display());
        let mut copy = program("pg_basebackup");
        run(copy
            .args(["-R", "-X", "stream", "--checkpoint=fast", "--no-sync", "-d"])
            .arg(from)
            .arg("-D")
            .arg(&data));
        let mut file = fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
        writeln!(file, "unix_socket_directories = '{}'", directory.0.display()).unwrap();
        let standby = Self::start(directory);
        until("the standby receives", || {
            self.sql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") != "0"
        });
        standby
    }

    /// Waits for this standby at each commit from now on.
    pub fn wait_for_standby(&self, name: &str) {
        self.set("synchronous_standby_names", name);
        until("the standby is synchronous", || {
            self.sql("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == "1"
        });
    }

    pub fn set(&self, name: &str, value: &str) {
        self.sql(&format!("ALTER SYSTEM SET {name} = '{value}'"));
        self.sql("SELECT pg_reload_conf()");
        until("the setting holds", || self.sql(&format!("SHOW {name}")) == value);
    }

    /// A setting that holds from the next start on.
    pub fn set_at_start(&mut self, name: &str, value: &str) {
        let path = self.directory.0.join("data/postgresql.conf");
        let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
        writeln!(file, "{name} = '{value}'").unwrap();
        if name == "port" {
            value.clone_into(&mut self.port);
        }
    }

    /// A file of the server's alone, in its data.
    pub fn put_file(&self, name: &str, text: &str) {
        let path = self.directory.0.join("data").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if is_root() {
            run(Command::new("chown").args([user().unwrap()]).arg(&path));
        }
    }

    pub fn promote(&self) {
        self.sql("SELECT pg_promote()");
        until("it is a primary", || self.sql("SELECT pg_is_in_recovery()") == "f");
    }

    pub fn sql(&self, text: &str) -> String {
        run(self.psql().args(["-c", text]))
    }

    fn try_sql(&self, text: &str) -> Option<String> {
        let output = self.psql().args(["-c", text]).stdout(Stdio::piped()).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }

    fn psql(&self) -> Command {
        let mut psql = program("psql");
        psql.args(["-X", "-At", "-U", "postgres", "-d", "postgres", "-p", &self.port, "-h"])
            .arg(&self.directory.0);
        psql
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Stops every process of the server, or lets them go on.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        let children = Command::new("pgrep").args(["-P", &self.child.id().to_string()]).output().unwrap();
        let children = String::from_utf8(children.stdout).unwrap();
        let children = children.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
        for pid in children.chain([self.pid()]) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Ends it as a crash does.
    pub fn crash(&mut self) {
        if !self.stopped {
            self.freeze(false);
            let _ = kill_process(self.pid(), Signal::QUIT);
            self.child.wait().unwrap();
            self.stopped = true;
        }
    }

    pub fn start_again(&mut self) {
        self.crash();
        let _ = fs::remove_file(self.directory.0.join("data/postmaster.pid"));
        self.child = Self::spawn(&self.directory.0);
        self.stopped = false;
        self.wait();
    }

    /// The options of an agent, by its own role, over this server or a proxy's directory.
    pub fn options_at(&self, directory: &Path) -> Options {
        let text = format!("host={} user=gate dbname=postgres", directory.display());
        Options::new(&text, None).unwrap()
    }

    pub fn options(&self) -> Options {
        self.options_at(&self.directory.0)
    }

    /// Creates the tables, and the role that an agent has.
    pub fn migrate(&self) {
        self.sql("CREATE ROLE gate LOGIN");
        let owner = format!("host={} user=postgres dbname=postgres", self.directory.0.display());
        let owner = Options::new(&owner, None).unwrap();
        PostgresLedger::migrate(&owner, Some("gate")).unwrap();
        PostgresLedger::migrate(&owner, Some("gate")).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.crash();
    }
}
