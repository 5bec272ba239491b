//! Looks into links, credentials and ledgers: `cargo run --example inspect -- --help`.

use std::process::ExitCode;

use clap::Parser;
use sessioncap_programs::inspect::{Arguments, run};

fn main() -> ExitCode {
    run(Arguments::parse())
}
