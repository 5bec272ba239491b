//! An agent daemon in miniature: `cargo run --example agent -- --help`.

#[path = "programs/mod.rs"]
mod programs;

use std::process::ExitCode;

use clap::Parser;
use programs::agent::cli;

#[tokio::main]
async fn main() -> ExitCode {
    match cli::run(cli::Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("agent: {problem}");
            ExitCode::FAILURE
        }
    }
}
