//! The command line of the server.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use super::Server;
use crate::agent::notify;
use crate::problem::{Outcome, While};
use crate::terminal::print_raw;

/// Has the terminal sessions of the agents that name its socket with `--sessions`, so that the sessions outlive
/// each of the agents, and all of them serve each session.
///
/// Prints a line once it listens. SIGTERM and Ctrl-C end it, and every session with it.
#[derive(Parser)]
#[command(name = "sessions")]
pub struct Arguments {
    /// The socket, which only this user can open.
    #[arg(long, value_name = "PATH")]
    listen: PathBuf,
}

/// Runs the server until it is stopped.
pub async fn run(arguments: Arguments) -> Outcome<ExitCode> {
    let mut terminate = signal(SignalKind::terminate()).during("signals cannot be watched")?;
    let server = Server::bind(&arguments.listen).await?;
    print_raw(format!("listening at {}\n", arguments.listen.display()).as_bytes())?;
    notify("READY=1");
    tokio::select! {
        () = server.serve() => {}
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    notify("STOPPING=1");
    server.stop().await;
    // The next server takes its place in any case.
    let _ = std::fs::remove_file(&arguments.listen);
    Ok(ExitCode::SUCCESS)
}
