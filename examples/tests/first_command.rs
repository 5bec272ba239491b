//! What `cargo run --example pair_mobile` builds: a person's first impression is how long that takes.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// The list, one `name version` a line, with their number above.
const LIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/first_command.txt");

/// The crates of the programs, on this platform, without those that only tests need.
fn crates() -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--package", "sessioncap-programs", "--edges", "normal,build", "--prefix", "none"])
        .args(["--format", "{p}", "--locked", "--offline"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output();
    let output = output.expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    let words = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    text.lines().filter(|line| !line.is_empty()).map(words).collect()
}

#[test]
#[cfg(target_os = "linux")]
fn the_first_command_builds_the_crates_that_are_listed() {
    let crates = crates();
    let lines: String = crates.iter().map(|name| format!("{name}\n")).collect();
    let text = format!("{} crates\n\n{lines}", crates.len());
    if std::env::var_os("SESSIONCAP_FIRST_COMMAND").is_some() {
        std::fs::write(LIST, &text).expect("the list can be written");
    }
    let listed = std::fs::read_to_string(LIST).unwrap_or_default();
    assert_eq!(
        listed, text,
        "the crates of `cargo run --example pair_mobile` are others than before; see whether each new one is \
         needed there, or belongs behind a feature that is off by default, and write the list again with \
         SESSIONCAP_FIRST_COMMAND=write"
    );
}

#[test]
fn crates_that_only_tests_need_are_not_among_them() {
    let crates = crates();
    for only_tests in ["image", "proptest", "resvg", "rqrr", "loom"] {
        assert!(!crates.iter().any(|name| name.starts_with(&format!("{only_tests} "))), "{only_tests}");
    }
}
