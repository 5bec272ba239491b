//! What the phone's build costs: crates, and bytes on top of an empty program.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::report::{Budget, Report};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Uses everything that a phone uses.
const PHONE: &str = r#"
use std::io::Read;
use sessioncap::{HolderSecretKey, Label, Link, OpSet};
use sessioncap::phone::{Redeemed, attach, redeem};

fn main() {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    let link = Link::parse(&text).unwrap();
    let key = HolderSecretKey::generate(&mut rand_core::OsRng);
    let asking = redeem(&link, &key, Label::new("phone").unwrap(), &mut rand_core::OsRng).unwrap();
    println!("{:?}", asking.message);
    let mut answer = Vec::new();
    std::io::stdin().read_to_end(&mut answer).unwrap();
    let credential = match asking.next.finish(&answer).unwrap() {
        Redeemed::Attached { credential, mut attached } => {
            println!("{:?}", attached.channel.seal(b"hello").unwrap());
            println!("{:?}", attached.channel.open(&answer).unwrap());
            credential
        }
        Redeemed::Waiting { code, seconds_left } => panic!("{code} {seconds_left}"),
    };
    let asking = attach(link.agent(), &key, &credential, OpSet::EMPTY, &mut rand_core::OsRng).unwrap();
    println!("{:?}", asking.message);
    println!("{:?}", asking.next.finish(&answer).unwrap());
}
"#;

/// Builds two small programs in cargo's scratch folder, so it takes a minute the first time.
pub fn build(report: &mut Report) {
    report.section("holder build");
    report.figure("crates, proc-macros not counted", crates(), Budget::AtMost(50.0));
    let small = "opt-level = \"z\"\nlto = true\ncodegen-units = 1\npanic = \"abort\"";
    for (row, profile, budget) in [
        ("kB stripped on top of an empty program", "", Budget::AtMost(400.0)),
        ("the same optimised for size", small, Budget::Information),
    ] {
        let [empty, phone] =
            [("empty", "fn main() {}"), ("phone", PHONE)].map(|(name, source)| size(name, source, profile));
        report.figure(row, (phone - empty) / 1e3, budget);
    }
}

fn cargo() -> Command {
    Command::new(env!("CARGO"))
}

fn crates() -> f64 {
    let arguments = "tree --edges normal,no-proc-macro --no-default-features --features holder --prefix none";
    let output = cargo().args(arguments.split(' ')).current_dir(ROOT).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let names: BTreeSet<_> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| core::str::from_utf8(line).ok())
        .map(|line| line.trim_end_matches(" (*)"))
        // this crate itself is the first line
        .filter(|line| !line.is_empty() && !line.starts_with("sessioncap "))
        .collect();
    names.len() as f64
}

fn size(name: &str, source: &str, profile: &str) -> f64 {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("holder-{name}"));
    std::fs::create_dir_all(folder.join("src")).unwrap();
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n\
         sessioncap = {{ path = {ROOT:?}, default-features = false, features = [\"holder\"] }}\n\
         rand_core = {{ version = \"0.6\", features = [\"getrandom\"] }}\n\
         [profile.release]\nstrip = true\n{profile}\n"
    );
    std::fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    std::fs::write(folder.join("src/main.rs"), source).unwrap();
    std::fs::copy(Path::new(ROOT).join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    let target = folder.join("target");
    let status = cargo()
        .args(["build", "--release", "--quiet", "--offline"])
        .env("CARGO_TARGET_DIR", &target)
        .current_dir(&folder)
        .status()
        .unwrap();
    assert!(status.success(), "{name}");
    std::fs::metadata(target.join("release").join(name)).unwrap().len() as f64
}
