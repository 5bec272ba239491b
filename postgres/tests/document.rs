//! Every row of the failure matrix in `docs/FLEET.md` names a test of this member that exists.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::Path;

#[test]
fn every_test_that_the_document_names_exists() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(here.join("../docs/FLEET.md")).unwrap();
    let mut sources = String::new();
    for entry in fs::read_dir(here.join("tests")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            sources += &fs::read_to_string(path).unwrap();
        }
    }
    let mut rows = 0;
    for line in document.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| failure")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if let [_, _, _, _, named] = cells.as_slice() {
            let name = named.trim_matches('`');
            assert!(sources.contains(&format!("fn {name}()")), "no test: {line}");
            rows += 1;
        }
    }
    assert!(rows >= 14, "{rows} rows");
    for name in document.split('`').filter(|word| word.len() > 40 && !word.contains(' ')) {
        assert!(sources.contains(&format!("fn {name}()")), "no test: {name}");
    }
}
