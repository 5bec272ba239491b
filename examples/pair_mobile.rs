//! A desktop hands a phone one terminal session, from the first QR code to the last revocation, in one
//! process: `cargo run --example pair_mobile`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sessioncap_programs::run("pair_mobile", sessioncap_programs::story::run())
}
