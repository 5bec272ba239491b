//! For tests that compare a document with the source: which files there are, and which tests.
#![allow(dead_code, reason = "not all tests use all of it")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Adds all Rust files below a directory.
pub fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names of all functions below these directories that are tests, those of property tests and of models too.
pub fn tests(root: &Path, directories: &[&str]) -> BTreeSet<String> {
    let mut files = Vec::new();
    directories.iter().for_each(|directory| sources(&root.join(directory), &mut files));
    let mut names = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(rest) = line.trim_start_matches("async ").strip_prefix("fn ") else { continue };
            // The attribute is above, with others or a comment between.
            let above = lines.get(at.saturating_sub(4)..at).unwrap();
            if above.iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test")) {
                names.extend(rest.split_once('(').map(|(name, _)| name.to_owned()));
            }
        }
    }
    names
}

/// The texts between backticks.
pub fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}
