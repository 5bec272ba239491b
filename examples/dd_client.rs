//! A desktop client in miniature: `cargo run --example dd_client -- --help`.

#[path = "programs/mod.rs"]
mod programs;

use std::process::ExitCode;

use clap::Parser;
use programs::desktop::cli;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    programs::run("dd_client", cli::run(arguments))
}
