//! Keyrings that are not there, that never answer, and that work, on buses of the tests' own. The crate sets its
//! store up once a process, and finds the bus in the environment: each case is a process of its own, which runs this
//! test program again.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sessioncap_programs::keys::Keeper;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use zbus::object_server::SignalEmitter;
use zbus::zvariant::{ObjectPath, OwnedObjectPath, OwnedValue, Value};

use super::world::within;

const SECRETS: &str = "org.freedesktop.secrets";

/// A message bus.
struct Bus {
    _daemon: Child,
    address: String,
}

impl Bus {
    async fn new() -> Option<Self> {
        let mut daemon = Command::new("dbus-daemon");
        daemon.args(["--session", "--nofork", "--nopidfile", "--print-address"]);
        // Nothing that is installed here is started for it.
        daemon.args(["--address", "unix:tmpdir=/tmp"]).env("XDG_DATA_DIRS", "/nonexistent");
        daemon.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let Ok(mut daemon) = daemon.spawn() else {
            println!("skipped: there is no dbus-daemon here");
            return None;
        };
        let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
        let address = within("the bus's address", lines.next_line()).await.unwrap().unwrap();
        Some(Self { _daemon: daemon, address })
    }

    async fn connect(&self) -> zbus::Connection {
        zbus::connection::Builder::address(self.address.as_str()).unwrap().build().await.unwrap()
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
