//! One agent process, its desktop's files, and the client programs, in a directory of their own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sessioncap::{AgentPublicKey, AgentUrl, DeviceSecretKey, Link, SessionId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Notify;
use tokio::time::timeout;
use uuid::Uuid;

/// How long anything may take.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Prints `ready`, then repeats every typed line once.
pub const ECHO: &str = "stty -echo; echo ready; while read -r line; do echo \"got:$line\"; done";

pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(DEADLINE, work)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen\n{}", super::waits::of_children()))
}

/// Asks again until it holds: for changes without an event.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < DEADLINE, "{what}\n{}", super::waits::of_children());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A built example, beside this test's own executable.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is missing; run `cargo build --examples` first", path.display());
    path
}

pub fn new_directory() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("programs-{}", Uuid::new_v4().simple()));
    std::fs::create_dir_all(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    path
}

/// A running program whose output is collected.
pub struct Running {
    pub child: Child,
    stdin: Option<ChildStdin>,
    pub stdout: Arc<Text>,
    pub stderr: Arc<Text>,
}

/// Text that grows.
#[derive(Default)]
pub struct Text {
    bytes: Mutex<Vec<u8>>,
    complete: AtomicBool,
    grown: Notify,
    /// The program's other output, shown when a test fails.
    beside: OnceLock<Arc<Self>>,
}

impl Text {
    pub fn get(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }

    pub async fn until(&self, what: &str) -> String {
        self.until_holds(what, |text| text.contains(what)).await
    }

    /// Everything so far, once it is as it should be.
    pub async fn until_holds(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let seen = async {
            loop {
                let grown = self.grown.notified();
                let complete = self.complete.load(Ordering::Acquire);
                let text = self.get();
                if holds(&text) {
                    return Some(text);
                }
                if complete {
                    return None;
                }
                grown.await;
            }
        };
        let beside = || self.beside.get().map(|text| text.get()).unwrap_or_default();
        match timeout(DEADLINE, seen).await {
            Ok(Some(text)) => text,
            Ok(None) => panic!("the program has ended without `{what}` in: {}\n{}", self.get(), beside()),
            Err(_) => panic!("no `{what}` in: {}\n{}", self.get(), beside()),
        }
    }

    /// Everything, once the program has closed it.
    pub async fn all(&self) -> String {
        let closed = async {
            loop {
                let grown = self.grown.notified();
                if self.complete.load(Ordering::Acquire) {
                    return self.get();
                }
                grown.await;
            }
        };
        within("the end of a program's output", closed).await
    }

    pub fn follow(mut from: impl AsyncReadExt + Unpin + Send + 'static) -> Arc<Self> {
        let text = Arc::new(Self::default());
        let filled = Arc::clone(&text);
        tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok(length @ 1..) = from.read(&mut buffer).await {
                filled.bytes.lock().unwrap().extend_from_slice(&buffer[..length]);
                filled.grown.notify_waiters();
            }
            filled.complete.store(true, Ordering::Release);
            filled.grown.notify_waiters();
        });
        text
    }
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let stdout = Text::follow(child.stdout.take().unwrap());
        let stderr = Text::follow(child.stderr.take().unwrap());
        let _ = stdout.beside.set(Arc::clone(&stderr));
        Self { stdin: child.stdin.take(), child, stdout, stderr }
    }

    pub async fn type_in(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).await.unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id as i32));
        if let Some(pid) = pid {
            kill_process(pid, signal).unwrap();
        }
    }

    pub async fn exit_code(&mut self) -> i32 {
        within("the program's end", self.child.wait()).await.unwrap().code().unwrap_or(-1)
    }
}

/// An agent with one enrolled desktop.
pub struct World {
    pub directory: PathBuf,
    pub agent: Running,
    pub url: AgentUrl,
    pub key: AgentPublicKey,
}

impl World {
    pub async fn start() -> Self {
        Self::start_with(new_directory(), &[]).await
    }

    /// With more arguments for the agent.
    pub async fn start_with(directory: PathBuf, arguments: &[&str]) -> Self {
        Self::start_program(&program("agent"), directory, arguments).await
    }

    /// With a program that is started like the agent.
    pub async fn start_program(program: &Path, directory: PathBuf, arguments: &[&str]) -> Self {
        let profile = directory.join("desktop");
        let keygen = dd_client(&profile).arg("keygen").output().await.unwrap();
        assert!(keygen.status.success());
        let device = String::from_utf8(keygen.stdout).unwrap();

        let mut command = Command::new(program);
        command.arg("--state").arg(directory.join("agent")).args(["--enroll", device.trim()]);
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.args(arguments);
        let agent = Running::start(command);
        let line = agent.stdout.until("\n").await;
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["event"], "listening");
        let url = AgentUrl::parse(line["url"].as_str().unwrap()).unwrap();
        let key = line["agent_key"].as_str().unwrap().parse().unwrap();
        let world = Self { directory, agent, url, key };
        world.point_desktop_at(&world.url.to_string()).await;
        world
    }

    /// Ends the agent and starts it again at the same address. `meanwhile` finds it down.
    pub async fn restart(&mut self, meanwhile: impl FnOnce(&Self)) {
        self.agent.signal(Signal::TERM);
        self.agent.exit_code().await;
        meanwhile(self);
        let mut command = Command::new(program("agent"));
        command.arg("--state").arg(self.file("agent"));
        command.arg("--listen").arg(format!("{}:{}", self.url.host(), self.url.port()));
        self.agent = Running::start(command);
        self.agent.stdout.until("listening").await;
    }

    /// The entry of one ticket in `session grants --json`.
    pub async fn grant(&self, ticket: &str) -> Value {
        let mut grants = self.grants().await.into_iter();
        grants.find(|grant| grant["ticket"] == ticket).expect("the ticket is listed")
    }

    /// Which address the desktop uses and puts in links.
    pub async fn point_desktop_at(&self, url: &str) {
        let key = self.key.to_string();
        self.dd_ok(&["keygen", "--agent", url, "--agent-key", &key]).await;
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub fn device_key(&self) -> DeviceSecretKey {
        let bytes = std::fs::read(self.file("desktop/device.key")).unwrap();
        DeviceSecretKey::from_bytes(bytes.try_into().unwrap())
    }

    pub async fn dd(&self, arguments: &[&str]) -> Output {
        let mut command = dd_client(&self.file("desktop"));
        within("the desktop client's end", command.args(arguments).stdin(Stdio::null()).output())
            .await
            .unwrap()
    }

    pub async fn dd_ok(&self, arguments: &[&str]) -> String {
        let output = self.dd(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub fn dd_start(&self, arguments: &[&str]) -> Running {
        let mut command = dd_client(&self.file("desktop"));
        command.args(arguments);
        Running::start(command)
    }

    pub async fn session(&self, command: &str) -> SessionId {
        SessionId::new(self.dd_ok(&["session", "create", command]).await).unwrap()
    }

    /// `session pair-mobile --json`, and the link that it shows.
    pub async fn pair(&self, session: &SessionId, more: &[&str]) -> Pairing {
        let arguments = [&["session", "pair-mobile", session.as_str(), "--json"], more].concat();
        let desktop = self.dd_start(&arguments);
        let line = desktop.stdout.until("\n").await;
        let offered: Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
        assert_eq!(offered["event"], "offered");
        let text = offered["link"].as_str().unwrap().to_owned();
        let link = Link::parse(&text).unwrap();
        Pairing { desktop, link, text, ticket: offered["ticket"].as_str().unwrap().to_owned() }
    }

    pub fn companion(&self, file: &str, arguments: &[&str]) -> Running {
        let mut command = Command::new(program("companion"));
        command.arg("--state").arg(self.file(file)).args(arguments);
        Running::start(command)
    }

    /// Runs the companion to its end.
    pub async fn companion_done(&self, file: &str, arguments: &[&str]) -> (i32, String, String) {
        let mut companion = self.companion(file, arguments);
        let code = companion.exit_code().await;
        (code, companion.stdout.all().await, companion.stderr.all().await)
    }

    /// `session grants --json`.
    pub async fn grants(&self) -> Vec<Value> {
        let json = self.dd_ok(&["session", "grants", "--json"]).await;
        serde_json::from_str(&json).unwrap()
    }

    pub fn audit(&self) -> String {
        std::fs::read_to_string(self.file("agent/audit.jsonl")).unwrap_or_default()
    }
}

/// An agent whose clock is ahead by the number in the file.
pub async fn world_with_clock() -> (World, PathBuf) {
    let directory = new_directory();
    let ahead = directory.join("ahead");
    let world = World::start_with(directory, &["--clock-offset-file", ahead.to_str().unwrap()]).await;
    (world, ahead)
}

pub fn set_clock_ahead(file: &Path, seconds: i32) {
    let new = file.with_extension("new");
    std::fs::write(&new, seconds.to_string()).unwrap();
    std::fs::rename(new, file).unwrap();
}

impl Drop for World {
    /// The agent ends by itself, so that it takes its programs with it.
    fn drop(&mut self) {
        self.agent.signal(Signal::TERM);
        let start = Instant::now();
        while matches!(self.agent.child.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

pub struct Pairing {
    pub desktop: Running,
    pub link: Link,
    pub text: String,
    pub ticket: String,
}

pub fn dd_client(profile: &Path) -> Command {
    let mut command = Command::new(program("dd_client"));
    command.arg("--profile").arg(profile);
    command
}
