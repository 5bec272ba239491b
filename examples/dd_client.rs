//! A desktop client in miniature: `cargo run --example dd_client -- --help`.

use std::process::ExitCode;

use clap::Parser;
use sessioncap_programs::desktop::cli;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    sessioncap_programs::run("dd_client", cli::run(arguments))
}
