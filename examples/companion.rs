//! A phone in miniature: `cargo run --example companion -- --help`.

use std::process::ExitCode;

use clap::Parser;
use sessioncap_programs::companion::cli;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    sessioncap_programs::run("companion", cli::run(arguments))
}
