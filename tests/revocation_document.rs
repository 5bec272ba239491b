//! Every row of the tables in `docs/REVOCATION.md` names a test that exists.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The source of a test by its name: `file::name` in `tests/`, or a module path in `src/`.
fn source(path: &str) -> String {
    let (module, _) = path.rsplit_once("::").unwrap();
    match module.contains("::") {
        true => read(&format!("src/{}.rs", module.replace("::", "/"))),
        false => read(&format!("tests/{module}.rs")),
    }
}

#[test]
fn every_row_of_the_tables_names_a_test_that_exists() {
    let document = read("docs/REVOCATION.md");
    let mut named = 0;
    let mut in_tested_table = false;
    for line in document.lines() {
        if !line.starts_with('|') {
            in_tested_table = false;
            continue;
        }
        if line.ends_with("| test |") {
            in_tested_table = true;
            continue;
        }
        if !in_tested_table || line.starts_with("|---") {
            continue;
        }
        let tests = line.trim_end_matches('|').rsplit('|').next().unwrap().trim();
        assert!(!tests.is_empty(), "{line}");
        for test in tests.split(", ") {
            let path = test.trim_matches('`');
            let (_, name) = path.rsplit_once("::").unwrap_or_else(|| panic!("{line}"));
            let declared = format!("#[test]\nfn {name}(");
            assert!(source(path).contains(&declared), "no test `{path}`");
            named += 1;
        }
    }
    assert!(named > 50, "{named}");
}
