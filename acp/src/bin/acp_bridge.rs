//! A bridge of the Agent Client Protocol: `cargo run -p sessioncap-acp --bin acp_bridge -- --help`.

use std::process::ExitCode;

use clap::Parser;
use sessioncap_acp::cli;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    sessioncap_programs::run("acp_bridge", cli::run(arguments))
}
