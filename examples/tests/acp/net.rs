//! Networks of their own for processes, joined by cables that can be pulled.
#![allow(dead_code, reason = "not all tests use all of it")]

use std::path::Path;
use std::process::{Command as Blocking, Stdio};

use sessioncap::AgentPublicKey;
use tokio::process::Command;

use super::world::{Running, program};

/// A switch, and networks that are joined to it, with no other network reachable. All of it ends with the processes
/// that hold the networks.
pub struct Net {
    pub switch: Host,
    pub hosts: Vec<Host>,
}

/// A network namespace, held by a process that waits.
pub struct Host {
    holder: std::process::Child,
    /// Of its one interface, `lan0`.
    pub address: String,
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

impl Host {
    /// `None` where the system does not allow it.
    fn new(address: &str) -> Option<Self> {
        // It says so when it is in its namespace, and ends with this process's end of the pipe.
        let mut holder = Blocking::new("unshare")
            .args(["--net", "--", "sh", "-c", "echo in; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut said = [0; 3];
        let mut output = holder.stdout.take()?;
        std::io::Read::read_exact(&mut output, &mut said).ok()?;
        let host = Self { holder, address: address.to_owned() };
        // Addresses are usable at once, without asking for a second whether another has them.
        let at_once = "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad";
        host.within("sh").args(["-c", at_once]).stderr(Stdio::null()).status().ok()?;
        host.ip("link set lo up").then_some(host)
    }

    pub fn within(&self, name: &str) -> Blocking {
        let mut command = Blocking::new("nsenter");
        command.args(["--net", "--target", &self.holder.id().to_string(), "--", name]);
        command
    }

    /// Whether `ip` did it.
    pub fn ip(&self, arguments: &str) -> bool {
        let status = self.within("ip").args(arguments.split(' ')).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    }

    pub fn discover(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(&program("discover"));
        command.args(arguments);
        Running::start(command)
    }

    /// A program that is to run in this network.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.holder.id().to_string(), "--"]).arg(program);
        command
    }

    pub fn advertise(&self, name: &str, key: &AgentPublicKey, more: &[&str]) -> Running {
        let key = key.to_string();
        self.discover(&[&["advertise", "--port", "7000", "--name", name, "--key", &key], more].concat())
    }

    pub fn browse(&self, more: &[&str]) -> Running {
        self.discover(&[&["browse"], more].concat())
    }
}

impl Net {
    /// As many hosts as asked for: 10.9.0.1 and so on.
    pub fn new(hosts: u8) -> Option<Self> {
        let made = (|| {
            let switch = Host::new("")?;
            let mut net = Self { switch, hosts: Vec::new() };
            let switch = &net.switch;
            let ready =
                switch.ip("link add name sw0 type bridge mcast_snooping 0") && switch.ip("link set sw0 up");
            ready.then_some(())?;
            for number in 1..=hosts {
                let host = Host::new(&format!("10.9.0.{number}"))?;
                let holder = host.holder.id();
                let joined = net
                    .switch
                    .ip(&format!("link add name port{number} type veth peer name lan0 netns {holder}"))
                    && net.switch.ip(&format!("link set port{number} master sw0"))
                    && net.switch.ip(&format!("link set port{number} up"))
                    && host.ip(&format!("address add {}/24 dev lan0", host.address))
                    && host.ip("link set lan0 up");
                joined.then_some(())?;
                net.hosts.push(host);
            }
            Some(net)
        })();
        if made.is_none() {
            println!(
                "skipped: networks of its own need `ip`, `unshare`, `nsenter` and the right to make them"
            );
        }
        made
    }
}
