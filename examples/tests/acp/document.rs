//! The rows of `docs/ACP_BRIDGE.md` name files and tests that exist.

use std::fs;
use std::path::Path;

use super::documents::{quoted, tests};

#[test]
fn every_row_of_the_bridges_defences_names_a_file_and_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let tests = tests(&root, &["src", "tests", "examples", "acp"]);
    let document = fs::read_to_string(root.join("docs/ACP_BRIDGE.md")).unwrap();
    let table = document.split("| Attack |").nth(1).unwrap();
    let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with("| ")).collect();
    let mut wrong = Vec::new();
    for row in &rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [attack, mechanism, file, named] = cells.as_slice() else { panic!("not four cells: {row}") };
        assert!(!attack.is_empty() && !mechanism.is_empty() && !quoted(named).is_empty(), "{row}");
        wrong.extend(quoted(file).into_iter().filter(|file| !root.join(file).is_file()));
        wrong.extend(quoted(named).into_iter().filter(|name| !tests.contains(*name)));
    }
    assert!(wrong.is_empty(), "not there: {wrong:#?}");
    assert!(rows.len() >= 12, "{} rows", rows.len());
}
