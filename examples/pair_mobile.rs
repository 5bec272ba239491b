//! A desktop hands a phone one terminal session, from the first QR code to the last revocation, in one
//! process: `cargo run --example pair_mobile`.

#[path = "programs/mod.rs"]
mod programs;

use std::process::ExitCode;

fn main() -> ExitCode {
    programs::run("pair_mobile", programs::story::run())
}
