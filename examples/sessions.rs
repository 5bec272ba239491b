//! The terminals that several agents of one machine share: `cargo run --example sessions -- --help`.

use std::process::ExitCode;

use clap::Parser;
use sessioncap_programs::sessions::cli;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    sessioncap_programs::run("sessions", cli::run(arguments))
}
