//! `exec`: runs one command for an enrolled device and returns what it printed.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::pty::{safe_environment, spawn_alone};
use crate::request::error;

/// Bytes kept of each of the command's two outputs.
const OUTPUT: u64 = 16_000;
/// How long a command may take if the device does not say.
const DEFAULT_TIMEOUT: u64 = 30;
/// How long it may take at most.
const MAX_TIMEOUT: u64 = 600;

#[derive(Deserialize)]
pub(super) struct Command {
    pub(super) cmd: Vec<String>,
    timeout_secs: Option<u64>,
}

pub(super) async fn exec(Command { cmd, timeout_secs }: Command) -> Result<Value, Value> {
    let failed = |failure: std::io::Error| error("exec_failed", failure);
    let Some((name, arguments)) = cmd.split_first() else {
        return Err(error("exec_failed", "name a command"));
    };
    let mut command = tokio::process::Command::new(name);
    command.args(arguments).env_clear().envs(safe_environment());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Its own group, so that what it starts ends with it.
    command.process_group(0).kill_on_drop(true);
    let mut child = spawn_alone(|| command.spawn()).map_err(failed)?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let running = async { tokio::join!(read(stdout), read(stderr), child.wait()) };
    let limit = Duration::from_secs(timeout_secs.unwrap_or(DEFAULT_TIMEOUT).min(MAX_TIMEOUT));
    match timeout(limit, running).await {
        Ok((stdout, stderr, status)) => {
            let status = status.map_err(failed)?;
            Ok(json!({ "ok": true, "status": status.code(), "stdout": stdout, "stderr": stderr }))
        }
        Err(_) => {
            if let Some(group) = group {
                // Not reaped yet, so the id is still the group's. Fails only if all are gone.
                let _ = kill_process_group(group, Signal::KILL);
            }
            Err(error("exec_failed", format_args!("the command did not end in {} s", limit.as_secs())))
        }
    }
}

/// The beginning of an output, as text. The rest is read and dropped, so that the command can end.
async fn read(output: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut output) = output else {
        return String::new();
    };
    let mut bytes = Vec::new();
    // An error ends the output as its end does.
    let _ = (&mut output).take(OUTPUT).read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut output, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&bytes).into_owned()
}
