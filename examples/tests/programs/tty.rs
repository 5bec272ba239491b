//! A program on a terminal of its own, as a person has it.

use std::num::NonZeroU16;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use pty_process::{OwnedWritePty, Size};
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{Termios, tcgetattr};
use tokio::io::AsyncWriteExt;
use tokio::process::Child;

use super::world::{Text, World, program, within};

pub struct Tty {
    pub child: Child,
    pub output: Arc<Text>,
    input: OwnedWritePty,
    master: OwnedFd,
    /// The terminal's settings before the program began.
    pub before: Termios,
    size: (u16, u16),
}

impl Tty {
    /// Starts a program on a terminal of so many columns and lines.
    pub fn start(path: &Path, arguments: &[&str], environment: &[(&str, &str)], size: (u16, u16)) -> Self {
        let (pty, slave) = pty_process::open().unwrap();
        pty.resize(Size::new(size.1, size.0)).unwrap();
        let master = pty.as_fd().try_clone_to_owned().unwrap();
        let before = tcgetattr(&master).unwrap();
        let mut command = pty_process::Command::new(path).args(arguments).env("TERM", "xterm-256color");
        for name in ["NO_COLOR", "SESSIONCAP_SESSION"] {
            command = command.env_remove(name);
        }
        for (name, value) in environment {
            command = command.env(name, value);
        }
        let child = command.kill_on_drop(true).spawn(slave).unwrap();
        let (reading, input) = pty.into_split();
        Self { child, output: Text::follow(reading), input, master, before, size }
    }

    /// The desktop client of a world.
    pub fn dd_client(world: &World, arguments: &[&str], columns: u16, lines: u16) -> Self {
        Self::dd_client_in(world, arguments, &[], (columns, lines))
    }

    pub fn dd_client_in(world: &World, arguments: &[&str], env: &[(&str, &str)], size: (u16, u16)) -> Self {
        let profile = world.file("desktop");
        let arguments = [&["--profile", profile.to_str().unwrap()], arguments].concat();
        Self::start(&program("dd_client"), &arguments, env, size)
    }

    pub async fn type_in(&mut self, bytes: &[u8]) {
        within("typing", self.input.write_all(bytes)).await.unwrap();
    }

    /// What the terminal shows after everything so far.
    pub fn screen(&self) -> vt100::Parser {
        let (columns, lines) = self.size;
        let mut terminal =
            vt100::Parser::new(NonZeroU16::new(lines).unwrap(), NonZeroU16::new(columns).unwrap(), 0);
        terminal.process(&self.output.bytes());
        terminal
    }

    pub fn settings(&self) -> Termios {
        tcgetattr(&self.master).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id as i32)).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub async fn exit_code(&mut self) -> i32 {
        within("the program's end", self.child.wait()).await.unwrap().code().unwrap_or(-1)
    }
}
