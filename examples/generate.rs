//! Writes the completions of five shells and the man pages of the programs into a directory:
//! `cargo run -p sessioncap-programs --features generate --example generate -- DIRECTORY`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, ValueEnum};
use clap_complete::{Shell, generate_to};
use clap_mangen::generate_to as generate_pages_to;
use sessioncap_programs::{agent, companion, desktop, inspect, sessions};

/// Writes completions and man pages of the programs.
#[derive(Parser)]
#[command(name = "generate")]
struct Arguments {
    /// Where to; it is made if it is not there.
    directory: PathBuf,
}

fn write(directory: &Path) -> io::Result<()> {
    let pages = directory.join("man");
    std::fs::create_dir_all(&pages)?;
    for mut command in [
        agent::cli::Arguments::command(),
        companion::cli::Arguments::command(),
        desktop::cli::Arguments::command(),
        inspect::Arguments::command(),
        sessions::cli::Arguments::command(),
    ] {
        let name = command.get_name().to_owned();
        for shell in Shell::value_variants() {
            let completions = directory.join(shell.to_string());
            std::fs::create_dir_all(&completions)?;
            generate_to(*shell, &mut command, name.clone(), completions)?;
        }
        generate_pages_to(command, &pages)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let Arguments { directory } = Arguments::parse();
    match write(&directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("generate: {} cannot be written: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}
