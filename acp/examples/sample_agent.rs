//! An agent of the official crate on standard input and output, which does what a prompt's first word says.

use std::process::ExitCode;

#[path = "agent/mod.rs"]
mod agent;

fn main() -> ExitCode {
    agent::run()
}
