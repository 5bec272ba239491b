//! The rows of `docs/ACP_BRIDGE.md` name files and tests that exist.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The texts between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_row_of_the_bridges_defences_names_a_file_and_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    ["src", "tests", "examples", "acp"]
        .iter()
        .for_each(|directory| sources(&root.join(directory), &mut files));
    let mut tests = Vec::new();
    for text in files.iter().map(|file| fs::read_to_string(file).unwrap()) {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(rest) = line.trim_start_matches("async ").strip_prefix("fn ") else { continue };
            // The attribute is above, with others or a comment between.
            let above = &lines[at.saturating_sub(4)..at];
            if above.iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test")) {
                tests.push(rest.split('(').next().unwrap().to_owned());
            }
        }
    }
    let document = fs::read_to_string(root.join("docs/ACP_BRIDGE.md")).unwrap();
    let table = document.split("| Attack |").nth(1).unwrap();
    let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with("| ")).collect();
    let mut wrong = Vec::new();
    for row in &rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [attack, mechanism, file, named] = cells.as_slice() else { panic!("not four cells: {row}") };
        assert!(!attack.is_empty() && !mechanism.is_empty() && !quoted(named).is_empty(), "{row}");
        wrong.extend(quoted(file).into_iter().filter(|file| !root.join(file).is_file()));
        wrong.extend(quoted(named).into_iter().filter(|name| !tests.iter().any(|test| test == name)));
    }
    assert!(wrong.is_empty(), "not there: {wrong:#?}");
    assert!(rows.len() >= 12, "{} rows", rows.len());
}
