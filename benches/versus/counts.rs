//! The instructions of the rows, as valgrind counts them: they depend on the compiler, and neither on the machine's
//! load nor on its clock.

use std::process::Command;

use crate::admission;
use crate::attach;
use crate::frame;
use crate::handshake;
use crate::peers;
use crate::plain::Mint;
use crate::report::{Budget, Report};
use crate::sample::{Side, count, repeat};
use crate::world::World;

/// The rows that are counted: a name, our side and the peer's.
const ROWS: [(&str, &str, &str); 10] = [
    ("redemption to a live guard, with Noise", "redeem", "snow-redeem"),
    ("of that, the first frame", "activate", "snow-redeem"),
    ("attach to a live guard, with Noise", "attach-noise", "snow-attach"),
    ("attach to a live guard", "attach", "macaroon"),
    ("attach with a narrowed copy, first sight", "narrowed", "ladder"),
    ("the same bytes again", "narrowed-again", "ladder"),
    ("permit", "permit", "match"),
    ("offer", "offer", "verify"),
    ("ticket, credential and link", "link", "mint"),
    ("4 KiB permitted and encrypted", "transport", "snow-transport"),
];

/// A file beside this program, in which a change shows.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");

/// Counts every row, and writes the file.
pub fn rows(report: &mut Report) {
    report.section("instructions, ours / peer's");
    let mut text = String::from(HEAD);
    for (row, ours, peer) in ROWS {
        let (Some(mine), Some(theirs)) = (counted(ours), counted(peer)) else {
            eprintln!("  valgrind is not here: instructions are not counted");
            return;
        };
        report.ratio(&format!("{row} / {peer}"), mine / theirs, Budget::Information);
        let line = format!("{row:<42} {:>10}  {peer:<15} {:>10}\n", rounded(mine), rounded(theirs));
        text.push_str(&line);
    }
    std::fs::write(FILE, text).unwrap();
}

const HEAD: &str = "\
# Instructions of one operation, ours and the peer's, to three digits, written by
#   cargo bench --manifest-path benches/Cargo.toml -- counts
# They depend on the compiler. valgrind has no instructions for SHA-256, so that hashes count more than they take.
";

/// Returns a count to three digits, because a hash table's order differs from run to run.
fn rounded(count: f64) -> f64 {
    let unit = 10_f64.powf(count.log10().floor() - 2.0);
    ((count / unit).round() * unit).round()
}

/// Returns the instructions of one operation.
fn counted(side: &str) -> Option<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*::measured_slice*"])
        .arg(std::env::current_exe().unwrap())
        .args(["--count", side])
        .output()
        .ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(crate::revocation::counted(&output.stderr) as f64 / times(side) as f64)
}

/// Runs one side, in a child process whose instructions the parent counts.
pub fn once(name: &str) {
    count(&mut side(name), times(name));
}

fn times(side: &str) -> usize {
    match side {
        "permit" | "match" => 10_000,
        _ => 20,
    }
}

fn side(name: &str) -> Side<'static> {
    let world: &World = Box::leak(Box::new(World::new()));
    let phone: &_ = Box::leak(Box::new(world.phone()));
    let zeros = |len: usize| -> &'static [u8] { Box::leak(vec![0; len].into_boxed_slice()) };
    match name {
        "redeem" => handshake::redemptions(world),
        "activate" => handshake::activations(world),
        "snow-redeem" => {
            handshake::bare(world, || world.fresh_redemption(), zeros(handshake::reply_size(world)))
        }
        "attach-noise" => admission::attaches_with_noise(world, phone),
        "snow-attach" => {
            handshake::bare(world, || world.fresh_attach(phone), zeros(admission::reply_size(world, phone)))
        }
        "attach" => attach::attaches(world, phone),
        "macaroon" => {
            let peer = peers::macaroon(world, phone);
            repeat(move || peer.admit())
        }
        "ladder" => repeat(handshake::ladder()),
        "narrowed" => admission::first_sights(world, phone),
        "narrowed-again" => {
            let world = World::new();
            let copy: &_ = Box::leak(Box::new(admission::narrowed(&world.phone())));
            let world: &World = Box::leak(Box::new(admission::seen_before(copy, world)));
            attach::attaches(world, copy)
        }
        "permit" => frame::permits(Box::leak(Box::new(frame::guard(world))), world.now),
        "match" => frame::one_method(),
        "offer" => handshake::offers(world),
        "verify" => handshake::verifications(),
        "link" => handshake::links(world),
        "mint" => {
            let plain = Mint::new(world, &world.next_session());
            repeat(move || plain.by_macro())
        }
        "transport" => frame::guarded(Box::leak(Box::new(frame::guard(world))), world),
        "snow-transport" => frame::raw(),
        other => panic!("no such side: {other}"),
    }
}
