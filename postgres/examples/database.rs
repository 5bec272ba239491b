//! For an operator's first hour: sets a database up, checks it, and watches it through a failover.
//!
//! ```console
//! cargo run -p sessioncap-postgres --example database -- migrate "host=… user=owner dbname=agent" gate roots.pem
//! cargo run -p sessioncap-postgres --example database -- check "postgres://gate:…@db.example/agent" roots.pem
//! cargo run -p sessioncap-postgres --example database -- watch "postgres://gate:…@db.example/agent" roots.pem
//! ```
//!
//! The certificates are left out for a Unix socket. `check` and `watch` write to a log of their own, under a key that
//! is no agent's.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use sessioncap::agent::ledger::{Ledger, LedgerError, Outcome, Overlay, Table};
use sessioncap::{AgentSecretKey, NodeId, SystemClock};
use sessioncap_postgres::{Options, PostgresLedger};

const USAGE: &str = "usage: database migrate CONNECTION ROLE [ROOTS.pem] | check CONNECTION [ROOTS.pem] | \
    watch CONNECTION [ROOTS.pem]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["migrate", connection, role, roots @ ..] => migrate(connection, role, roots.first()),
        ["check", connection, roots @ ..] => check(connection, roots.first()),
        ["watch", connection, roots @ ..] => watch(connection, roots.first()),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

type Done<T = ()> = Result<T, Box<dyn Error>>;

fn options(connection: &str, roots: Option<&&str>) -> Done<Options> {
    let roots = roots.map(std::fs::read).transpose()?;
    Ok(Options::new(connection, roots.as_deref())?)
}

fn migrate(connection: &str, role: &str, roots: Option<&&str>) -> Done {
    PostgresLedger::migrate(&options(connection, roots)?, Some(role))?;
    println!("the tables are there, and `{role}` may append to the log");
    Ok(())
}

fn open(connection: &str, roots: Option<&&str>) -> Done<PostgresLedger> {
    // No agent has this key, so the log under it is this program's own.
    let nobody = AgentSecretKey::from_bytes(*b"a key for checks, of no agent   ").public();
    let now = SystemClock::new()?.now();
    Ok(PostgresLedger::open(options(connection, roots)?, &nobody, NodeId::new(0), now)?)
}

/// Commits something, and returns how long that took.
fn commit(ledger: &PostgresLedger, number: u64) -> Result<Duration, LedgerError> {
    let begun = Instant::now();
    ledger.transact(&mut |snapshot| {
        let mut overlay = Overlay::new(snapshot);
        overlay.put(Table::Meta, b"check", &number.to_be_bytes());
        overlay.into_changes()
    })?;
    Ok(begun.elapsed())
}

fn check(connection: &str, roots: Option<&&str>) -> Done {
    let ledger = open(connection, roots)?;
    println!("it is a primary, its settings keep a commit, and a synchronous standby is connected");
    let begun = SystemClock::new()?.now().timestamp().seconds();
    let times = (0..20).map(|number| commit(&ledger, begun.wrapping_mul(100).wrapping_add(number)));
    let mut times = times.collect::<Result<Vec<_>, _>>()?;
    times.sort_unstable();
    println!("a commit takes {:?}", times.get(times.len() / 2).copied().unwrap_or_default());
    Ok(())
}

/// Commits once a second, and says what becomes of it, until it is interrupted.
fn watch(connection: &str, roots: Option<&&str>) -> Done {
    let ledger = open(connection, roots)?;
    for number in 0_u64.. {
        let time = SystemClock::new()?.now().timestamp();
        match commit(&ledger, time.seconds().wrapping_mul(100).wrapping_add(number)) {
            Ok(took) => println!("{time} kept, in {took:?}"),
            Err(error) => {
                let outcome = match error.outcome() {
                    Outcome::NotDone => "not done",
                    Outcome::Unknown => "unknown whether it was done",
                };
                let why = error.source().map(ToString::to_string).unwrap_or_default();
                println!("{time} {outcome}: {why}");
            }
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}
