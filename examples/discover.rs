//! Who is advertised on the network, and being advertised: `cargo run --example discover --features acp -- --help`.

use std::process::ExitCode;

use clap::Parser;
use sessioncap_programs::discovery::cli;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    sessioncap_programs::run("discover", cli::run(arguments))
}
