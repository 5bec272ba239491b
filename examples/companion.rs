//! A phone in miniature: `cargo run --example companion -- --help`.

#[path = "programs/mod.rs"]
mod programs;

use std::process::ExitCode;

use clap::Parser;
use programs::companion::cli;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    programs::run("companion", cli::run(arguments))
}
