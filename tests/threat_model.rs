//! The files and tests that `docs/THREAT_MODEL.md` and `tests/weakened/` name exist.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "common/documents.rs"]
mod documents;

use std::path::Path;

use documents::{quoted, tests};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_row_names_a_mechanism_a_file_and_tests_that_exist() {
    let text = std::fs::read_to_string(root().join("docs/THREAT_MODEL.md")).unwrap();
    let tests = tests(root(), &["src", "tests"]);
    let mut rows = 0;
    let mut wrong = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Attack")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [attack, mechanism, file, named] = cells.as_slice() else {
            wrong.push(format!("not four cells: {line}"));
            continue;
        };
        rows += 1;
        if attack.is_empty() || mechanism.is_empty() {
            wrong.push(format!("nothing said: {line}"));
        }
        let files = quoted(file);
        if files.is_empty() || files.iter().any(|file| !root().join(file).is_file()) {
            wrong.push(format!("no such file: {file}"));
        }
        let names = quoted(named);
        if names.is_empty() {
            wrong.push(format!("no test: {line}"));
        }
        wrong.extend(
            names.iter().filter(|name| !tests.contains(**name)).map(|name| format!("no such test: {name}")),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(rows >= 40, "{rows} rows");
}

#[test]
fn every_weakened_check_names_its_test_and_applies_to_files_that_exist() {
    let tests = tests(root(), &["src", "tests"]);
    let mut patches = 0;
    for entry in std::fs::read_dir(root().join("tests/weakened")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap();
        let named = first.strip_prefix("# test: ").unwrap_or_else(|| panic!("{path:?}: {first}"));
        let name = named.rsplit([' ', ':']).next().unwrap();
        assert!(tests.contains(name), "{path:?}: no such test: {name}");
        if named.contains(" --lib ") {
            // A unit test is named with its modules: in their file, or in one of their own.
            let path = named.rsplit(' ').next().unwrap();
            let modules = path.rsplit_once("::").unwrap().0.replace("::", "/");
            let places = [modules.strip_suffix("/tests").unwrap_or(&modules), modules.as_str()];
            let sources = places.map(|place| {
                std::fs::read_to_string(root().join("src").join(place).with_extension("rs"))
                    .unwrap_or_default()
            });
            let declared = format!("fn {name}(");
            assert!(sources.iter().any(|source| source.contains(&declared)), "{path:?}: not in its modules");
        }
        let files: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("--- a/")).collect();
        assert!(!files.is_empty() && files.iter().all(|file| root().join(file).is_file()), "{path:?}");
        // The lines that it removes still exist.
        for file in files {
            let source = std::fs::read_to_string(root().join(file)).unwrap();
            for line in text.lines().filter(|line| line.starts_with('-') && !line.starts_with("---")) {
                assert!(source.contains(&line[1..]), "{path:?} does not apply any more: {line}");
            }
        }
        patches += 1;
    }
    assert!(patches >= 12, "{patches} patches");
}
