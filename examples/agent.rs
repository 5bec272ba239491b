//! An agent daemon in miniature: `cargo run --example agent -- --help`.

use std::process::ExitCode;

use clap::Parser;
use sessioncap_programs::agent::cli;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    sessioncap_programs::run("agent", cli::run(arguments))
}
