//! An agent daemon in miniature: `cargo run --example agent -- --help`.

#[path = "programs/mod.rs"]
mod programs;

use std::process::ExitCode;

use clap::Parser;
use programs::agent::cli;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    programs::run("agent", cli::run(arguments))
}
