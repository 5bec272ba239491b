//! `inspect`: explains links, credentials and ledgers without their secrets.

mod credential;
mod ledger;
mod link;

use std::io::Read;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::terminal::{harmless, note, print_raw};

/// The longest link or credential that is read, with room for the file around it.
const MAX_INPUT: u64 = 1024 * 1024;

/// Explains a pairing link, a credential or an agent's ledger, and shows no secret of it.
///
/// Exits with 0 if all is well, with 1 if what it was given is damaged or the request is refused, and with 2 if
/// it could not look.
#[derive(Parser)]
#[command(name = "inspect")]
pub struct Arguments {
    /// Print one JSON object.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Explain a pairing link without its secret.
    Link {
        /// The link; `-` reads it from standard input, where other users of the machine do not see it.
        link: String,
    },
    /// Explain a credential, and decide a request as the agent would.
    Credential(Box<credential::Arguments>),
    /// Look into the ledger of a stopped agent. The file is read into memory and stays as it is.
    Ledger {
        #[command(subcommand)]
        command: ledger::Command,
    },
}

/// What is printed, and the exit code.
struct Report {
    text: String,
    json: Value,
    /// Whether all is well.
    good: bool,
}

/// Why there is nothing to explain.
struct Failure {
    /// A stable name.
    code: String,
    detail: String,
    /// More fields of the JSON object.
    more: Box<Value>,
    /// 1 if what was given is damaged, 2 if it could not be looked at.
    exit: u8,
}

impl Failure {
    /// What was given is not what it should be.
    fn damaged(code: &str, detail: impl ToString) -> Self {
        Self { code: code.to_owned(), detail: detail.to_string(), more: Box::new(json!({})), exit: 1 }
    }

    /// It could not be looked at.
    fn not_looked(code: &str, detail: impl ToString) -> Self {
        Self { exit: 2, ..Self::damaged(code, detail) }
    }
}

/// Runs one command.
pub fn run(arguments: Arguments) -> ExitCode {
    let outcome = match arguments.command {
        Command::Link { link } => link::explain(&link),
        Command::Credential(arguments) => credential::explain(*arguments),
        Command::Ledger { command } => ledger::look(&command),
    };
    let (text, code) = match (outcome, arguments.json) {
        (Ok(report), true) => (format!("{}\n", report.json), u8::from(!report.good)),
        (Ok(report), false) => (report.text, u8::from(!report.good)),
        (Err(failure), true) => {
            let mut object = json!({ "error": failure.code, "detail": failure.detail });
            if let (Some(object), Value::Object(more)) = (object.as_object_mut(), *failure.more) {
                object.extend(more);
            }
            (format!("{object}\n"), failure.exit)
        }
        (Err(failure), false) => {
            note(&format!("inspect: {} ({})", harmless(&failure.detail), failure.code));
            return ExitCode::from(failure.exit);
        }
    };
    match print_raw(text.as_bytes()) {
        Ok(()) => ExitCode::from(code),
        Err(problem) => {
            note(&format!("inspect: {problem}"));
            ExitCode::from(2)
        }
    }
}

/// All of standard input.
fn read_stdin() -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut bytes = Zeroizing::new(Vec::new());
    let read = std::io::stdin().lock().take(MAX_INPUT).read_to_end(&mut bytes);
    read.map_err(|error| Failure::not_looked("input", format!("standard input cannot be read: {error}")))?;
    Ok(bytes)
}
