//! This crate beside what it is built from and what it replaces, in one run on one machine.
//!
//! ```text
//! cargo bench                                   every row but those of the last four, half an hour
//! cargo bench -- permit mint                    the rows of these groups
//! VERSUS_LIVE=1000000 cargo bench ...           a million live credentials instead of 100,000
//! VERSUS_ROUNDS=501 cargo bench ...             more pairs of slices than 201
//! VERSUS_TIMES=1 cargo bench ...                absolute times as well
//! cargo bench -- counts          instructions of the rows, if valgrind is there
//! cargo bench -- resident        the process's memory with 100,000 credentials
//! cargo bench -- load            how long callers wait: a busy disk, a restart, an opening
//! cargo bench -- holder          crates and bytes of the phone's build
//! ```
//!
//! Every row goes into `target/versus.json` of the repository as well, in place of those of the same section there.
//!
//! A row is a ratio: our time over the peer's, the median over many pairs of slices that follow each
//! other (`versus/sample.rs`), with the quartiles. Absolute times differ between machines; the ratios
//! are what the budgets are set for.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a benchmark")]
#![allow(clippy::cast_precision_loss, reason = "counts and times far below 2^52")]

#[path = "versus/admission.rs"]
mod admission;
#[path = "versus/attach.rs"]
mod attach;
#[path = "versus/backends.rs"]
mod backends;
#[path = "versus/counting.rs"]
mod counting;
#[path = "versus/counts.rs"]
mod counts;
#[path = "versus/frame.rs"]
mod frame;
#[path = "versus/handshake.rs"]
mod handshake;
#[path = "versus/holder.rs"]
mod holder;
#[path = "versus/ledger.rs"]
mod ledger;
#[path = "versus/load.rs"]
mod load;
#[path = "versus/peers.rs"]
mod peers;
#[path = "versus/plain.rs"]
mod plain;
#[path = "versus/report.rs"]
mod report;
#[path = "versus/revocation.rs"]
mod revocation;
#[path = "versus/sample.rs"]
mod sample;
#[path = "versus/threads.rs"]
mod threads;
#[path = "versus/world.rs"]
mod world;

use report::Report;
use world::World;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, kind, file] = &arguments[..]
        && flag == "--once"
    {
        return revocation::once(kind, file.as_ref());
    }
    if let [flag, side] = &arguments[..]
        && flag == "--count"
    {
        return counts::once(side);
    }
    let wanted: Vec<String> = arguments.into_iter().filter(|argument| !argument.starts_with('-')).collect();
    let runs = |group: &str| match wanted.is_empty() {
        true => !["counts", "holder", "load", "resident"].contains(&group),
        false => wanted.iter().any(|wanted| wanted == group),
    };
    let rounds = number("VERSUS_ROUNDS", 201);
    let live = number("VERSUS_LIVE", 100_000);
    let mut report = Report::default();

    let world = World::new();
    let mut guard = frame::guard(&world);
    if runs("permit") {
        frame::permit(&mut report, rounds, &mut guard, world.now);
    }
    if runs("admit") {
        admission::attach(&mut report, rounds);
        admission::first_sight(&mut report, rounds);
    }
    if runs("peers") {
        peers::attach(&mut report, rounds);
    }
    if runs("blocks") {
        admission::blocks(&mut report, rounds);
    }
    if runs("redeem") {
        handshake::redemption(&mut report, rounds);
    }
    if runs("backends") {
        backends::beside_memory(&mut report, rounds);
    }
    if runs("threads") {
        threads::rows(&mut report);
    }
    if runs("offer") {
        handshake::offer(&mut report, rounds);
    }
    if runs("transport") {
        frame::transport(&mut report, rounds, &mut guard, &world);
    }
    if runs("mint") {
        handshake::mint(&mut report, rounds);
    }
    if runs("revoke") {
        revocation::of_many(&mut report);
    }
    if runs("counts") {
        counts::rows(&mut report);
    }
    if runs("memory") {
        ledger::memory(&mut report);
    }
    if runs("resident") {
        ledger::resident(&mut report, live);
    }
    if runs("ledger") {
        ledger::growth(&mut report, rounds, live);
    }
    if runs("load") {
        load::all(&mut report, live);
    }
    if runs("holder") {
        holder::build(&mut report);
    }
    report.save();
    report.print(std::env::var_os("VERSUS_TIMES").is_some());
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}
