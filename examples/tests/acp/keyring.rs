//! Keyrings that are not there, that never answer, and that work, on buses of the tests' own. The crate sets its
//! store up once a process, and finds the bus in the environment: each case is a process of its own, which runs this
//! test program again.

use std::process::Stdio;
use std::time::Duration;

use sessioncap_programs::keys::Keeper;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use super::world::{eventually, new_directory, within};

const SECRETS: &str = "org.freedesktop.secrets";

/// Of a bus that starts no service: what is installed here has no part in it.
const CONFIGURATION: &str = r#"<busconfig>
  <type>session</type>
  <listen>unix:tmpdir=DIRECTORY</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"#;

/// A message bus.
struct Bus {
    _daemon: Child,
    address: String,
}

impl Bus {
    async fn new() -> Option<Self> {
        let directory = new_directory();
        let configuration = directory.join("bus.conf");
        let short = std::env::temp_dir();
        let text = CONFIGURATION.replace("DIRECTORY", short.to_str().unwrap());
        std::fs::write(&configuration, text).unwrap();
        let mut daemon = Command::new("dbus-daemon");
        daemon.arg("--config-file").arg(&configuration).args(["--nofork", "--nopidfile", "--print-address"]);
        daemon.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let Ok(mut daemon) = daemon.spawn() else {
            println!("skipped: there is no dbus-daemon here");
            return None;
        };
        let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
        let address = within("the bus's address", lines.next_line()).await.unwrap().unwrap();
        std::fs::remove_dir_all(directory).unwrap();
        Some(Self { _daemon: daemon, address })
    }

    async fn connect(&self) -> zbus::Connection {
        let connecting = zbus::connection::Builder::address(self.address.as_str()).unwrap().build();
        within("a connection to the bus", connecting).await.unwrap()
    }

    /// What a process says that does this with the keyring of this bus.
    async fn run(&self, steps: &str) -> String {
        run(&self.address, steps).await
    }
}

async fn run(address: &str, steps: &str) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "keyring::steps_with_the_keyring", "--ignored", "--nocapture"]);
    command.env("DBUS_SESSION_BUS_ADDRESS", address).env("KEYRING_STEPS", steps);
    command.kill_on_drop(true);
    let output = within("the end of the steps", command.output()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    text
}

#[tokio::test]
#[ignore = "a process of the other tests"]
async fn steps_with_the_keyring() {
    let steps = std::env::var("KEYRING_STEPS").unwrap();
    let keeper = Keeper::system(Duration::from_secs(if steps.contains("stuck") { 1 } else { 60 })).unwrap();
    println!("{keeper}");
    for step in steps.split_whitespace() {
        let secret: Vec<u8> = (0..=255).collect();
        let said = match step {
            "set" => format!(
                "{:?}",
                keeper.set("sessioncap-test", "agent", &secret).await.map_err(|e| e.to_string())
            ),
            "delete" => {
                format!("{:?}", keeper.delete("sessioncap-test", "agent").await.map_err(|e| e.to_string()))
            }
            _ => match keeper.get("sessioncap-test", "agent").await {
                Ok(Some(got)) => format!("got {}", got.as_slice() == secret),
                Ok(None) => "nothing".to_owned(),
                Err(error) => error.to_string(),
            },
        };
        println!("{step}: {said}");
    }
}

#[tokio::test]
async fn without_a_bus_or_a_keyring_on_it_the_program_says_what_to_do() {
    for address in [None, Some(Bus::new().await)] {
        let text = match &address {
            None => run("unix:path=/nonexistent/bus", "get set").await,
            Some(Some(bus)) => bus.run("get set").await,
            Some(None) => return,
        };
        assert!(text.contains("keys are in the system's keyring"), "{text}");
        for step in ["get: ", "set: "] {
            let line = text.lines().find(|line| line.starts_with(step)).unwrap();
            assert!(line.contains("the system's keyring cannot be used: "), "{line}");
            assert!(line.contains("or keep the keys in files"), "{line}");
        }
    }
}

#[tokio::test]
async fn a_keyring_that_never_answers_keeps_nobody() {
    let Some(bus) = Bus::new().await else { return };
    let silent = bus.connect().await;
    silent.request_name(SECRETS).await.unwrap();
    // Whoever owns the name and has no objects leaves every call unanswered.
    let text = bus.run("get-stuck set-stuck get-stuck").await;
    assert_eq!(text.matches("has not answered within 1 seconds; unlock it").count(), 3, "{text}");
    drop(silent);
}

#[tokio::test]
async fn a_keyring_that_works_keeps_any_bytes() {
    let Some(bus) = Bus::new().await else { return };
    let home = new_directory();
    let mut daemon = Command::new("gnome-keyring-daemon");
    daemon.args(["--foreground", "--components=secrets", "--unlock"]);
    daemon.env("DBUS_SESSION_BUS_ADDRESS", &bus.address);
    daemon.env("HOME", &home).env("XDG_RUNTIME_DIR", &home).env("XDG_DATA_HOME", &home);
    daemon.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let Ok(mut daemon) = daemon.spawn() else {
        println!("skipped: there is no gnome-keyring-daemon here");
        return;
    };
    // The end of its input is the end of the password of a new keyring.
    daemon.stdin.take().unwrap().write_all(b"password").await.unwrap();
    let asking = bus.connect().await;
    let names = zbus::fdo::DBusProxy::new(&asking).await.unwrap();
    eventually("the keyring is on the bus", async || {
        names.name_has_owner(SECRETS.try_into().unwrap()).await.unwrap()
    })
    .await;
    let text = bus.run("get set set get delete delete get-again").await;
    for said in [
        "get: nothing",
        "set: Ok(())",
        "get: got true",
        "delete: Ok(true)",
        "delete: Ok(false)",
        "get-again: nothing",
    ] {
        assert!(text.contains(said), "no {said:?} in {text}");
    }
    std::fs::remove_dir_all(home).unwrap();
}
