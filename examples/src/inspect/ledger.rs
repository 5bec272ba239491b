//! `inspect ledger`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};
use sessioncap::agent::LedgerFailure;
use sessioncap::agent::ledger::{Check, Dump, Finding, LedgerError, RedbLedger};

use super::{Failure, Report};
use crate::problem::with_causes;
use crate::terminal::harmless;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Show every record, without anything that redeems or attaches.
    Dump {
        /// The ledger's file, `ledger.redb` in the agent's state directory.
        file: PathBuf,
    },
    /// Read every row, and see whether all of them agree.
    Check {
        /// The ledger's file, `ledger.redb` in the agent's state directory.
        file: PathBuf,
    },
}

pub(super) fn look(command: &Command) -> Result<Report, Failure> {
    match command {
        Command::Dump { file } => dump(file),
        Command::Check { file } => check(file),
    }
}

/// The library turns a panic of the database over a damaged file into an error; its message would only
/// confuse.
fn quietly<T>(act: impl FnOnce() -> T) -> T {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let done = act();
    std::panic::set_hook(hook);
    done
}

fn read<T>(file: &Path, look: impl FnOnce(&RedbLedger) -> Result<T, LedgerError>) -> Result<T, Failure> {
    let looked = quietly(|| RedbLedger::copy_of(file).and_then(|copy| look(&copy)));
    looked.map_err(|error| {
        let shown = file.display();
        let detail = match error.cause() {
            LedgerFailure::InUse => format!("{shown}: an agent has it open; stop that agent first"),
            LedgerFailure::Corrupt => {
                let causes = with_causes(&error);
                format!(
                    "{shown}: the file is damaged, or is not a ledger; no row of it can be trusted: {causes}"
                )
            }
            _ => format!("{shown}: {}", with_causes(&error)),
        };
        match error.cause() {
            LedgerFailure::Corrupt => Failure::damaged(error.code(), detail),
            _ => Failure::not_looked(error.code(), detail),
        }
    })
}

const COPY: &str = "read from a copy in memory; the file was not changed";

fn finding(finding: &Finding) -> Value {
    let (table, key, damage) = (finding.table, &finding.key, finding.damage);
    json!({ "table": table, "key": key, "damage": damage, "detail": damage.to_string() })
}

fn check(file: &Path) -> Result<Report, Failure> {
    let check = read(file, |copy| Check::of(copy))?;
    let findings: String = check.findings.iter().map(|finding| format!("  {finding}\n")).collect();
    let result = match (check.format, check.findings.len()) {
        (None, 0) => "empty: no agent has used it yet".to_owned(),
        (_, 0) => "sound".to_owned(),
        (_, 1) => "DAMAGED, 1 finding:".to_owned(),
        (_, number) => format!("DAMAGED, {number} findings:"),
    };
    let format = check.format.map_or_else(|| "none".to_owned(), |format| format.to_string());
    let shown = file.display();
    Ok(Report {
        text: format!("{shown}: format {format}, {} rows, {result}\n{findings}({COPY})\n", check.rows),
        json: json!({
            "file": file.to_string_lossy(),
            "copy": true,
            "format": check.format,
            "rows": check.rows,
            "sound": check.is_sound(),
            "findings": check.findings.iter().map(finding).collect::<Vec<_>>(),
        }),
        good: check.is_sound(),
    })
}

fn dump(file: &Path) -> Result<Report, Failure> {
    let dump = read(file, |copy| Dump::of(copy))?;
    let rows: Vec<Value> = dump.rows.iter().map(|row| json!(row)).collect();
    let mut text: String = rows.iter().map(|row| format!("{}\n", line(row))).collect();
    for finding in &dump.unreadable {
        text.push_str(&format!("UNREADABLE {finding}\n"));
    }
    text.push_str(&format!("({COPY})\n"));
    Ok(Report {
        text,
        json: json!({
            "file": file.to_string_lossy(),
            "copy": true,
            "rows": rows,
            "unreadable": dump.unreadable.iter().map(finding).collect::<Vec<_>>(),
        }),
        good: dump.unreadable.is_empty(),
    })
}

/// A record on a line: its kind, then each field.
fn line(row: &Value) -> String {
    let mut line = row["row"].as_str().unwrap_or_default().to_owned();
    for (name, value) in row.as_object().into_iter().flatten().filter(|(name, _)| *name != "row") {
        let shown = match value {
            Value::String(text) if !text.is_empty() && !text.contains(' ') => text.clone(),
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
            value => value.to_string(),
        };
        line.push_str(&format!("  {name}={}", harmless(&shown)));
    }
    line
}
