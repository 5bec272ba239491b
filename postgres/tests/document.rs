//! Every row of the tables of failures and attempts in `docs/FLEET.md` names a test that exists, of this member or of the
//! example programs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::Path;

#[test]
fn every_test_that_the_document_names_exists() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(here.join("../docs/FLEET.md")).unwrap();
    let mut sources = String::new();
    for folder in ["tests", "../examples/tests/programs"] {
        for entry in fs::read_dir(here.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                sources += &fs::read_to_string(path).unwrap();
            }
        }
    }
    let (mut rows, mut attempts) = (0, 0);
    for line in document.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| failure")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if let [_, _, _, _, named] = cells.as_slice() {
            let name = named.trim_matches('`');
            assert!(sources.contains(&format!("fn {name}()")), "no test: {line}");
            rows += 1;
        }
        // The names of the tests of the other table are looked for below.
        attempts += usize::from(
            matches!(cells.as_slice(), [_, _, named] if named.starts_with('`') && named.len() > 40),
        );
    }
    assert!(rows >= 14 && attempts >= 7, "{rows} and {attempts} rows");
    for name in document.split('`').filter(|word| word.len() > 40 && !word.contains(' ')) {
        assert!(sources.contains(&format!("fn {name}()")), "no test: {name}");
    }
}
