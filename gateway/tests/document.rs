//! The blocks of `docs/INTEGRATION.md` are parts of compiled samples, and what it names exists.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn document() -> String {
    fs::read_to_string(root().join("docs/INTEGRATION.md")).unwrap()
}

/// Lines without their common indentation.
fn dedented(lines: &[&str]) -> Vec<String> {
    let filled = lines.iter().filter(|line| !line.trim().is_empty());
    let indentation = filled.map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
    lines.iter().map(|line| line.get(indentation..).unwrap_or_default().to_owned()).collect()
}

#[test]
fn every_block_of_code_is_a_part_of_the_file_that_is_named_above_it() {
    let document = document();
    let lines: Vec<&str> = document.lines().collect();
    let mut blocks = 0;
    for (at, _) in lines.iter().enumerate().filter(|(_, line)| **line == "```rust") {
        let named = lines[at - 1].strip_prefix("<!-- ").and_then(|line| line.strip_suffix(" -->"));
        let named = named.unwrap_or_else(|| panic!("line {at}: no file is named above the block"));
        let block: Vec<&str> = lines[at + 1..].iter().take_while(|line| **line != "```").copied().collect();
        let file = fs::read_to_string(root().join(named)).unwrap();
        let file: Vec<&str> = file.lines().collect();
        let found = file.windows(block.len()).any(|window| dedented(window) == block);
        assert!(found, "{named} has no such lines:\n{}", block.join("\n"));
        blocks += 1;
    }
    assert!(blocks >= 10, "{blocks} blocks");
}

#[test]
fn the_files_that_the_table_names_exist() {
    let document = document();
    let rows = document.lines().filter(|line| line.starts_with("| an ") || line.starts_with("| the client"));
    let mut files = 0;
    for row in rows {
        for name in row.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs")) {
            assert!(root().join(name).is_file(), "{name}");
            files += 1;
        }
    }
    assert!(files >= 5, "{files}");
}

#[test]
fn the_codes_that_the_guide_names_are_those_of_the_library() {
    use sessioncap::agent::{Denial, Quota};
    let document = document();
    let codes = [
        Denial::DeviceNotEnrolled.code(),
        Denial::SessionNotLive.code(),
        Denial::OfferMismatch.code(),
        "clock_skew",
        Denial::QuotaReached { quota: Quota::TicketsPerAgent, max: 1 }.code(),
    ];
    for code in codes {
        assert!(document.contains(&format!("`{code}`")), "{code}");
    }
}
