//! The package has every file that its tests open, so that they pass where it was unpacked. In a checkout the files
//! are compared with what cargo would pack; in an unpacked package they have to be there.
//!
//! `.ci/long package` unpacks the package and runs every test in it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::string_slice, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// Where the tests and what they are made of are.
const SOURCES: [&str; 3] = ["src", "tests", "fuzz/src"];

/// Files at the root that a test may read by their name.
const AT_THE_ROOT: [&str; 7] = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.toml",
    "README.md",
    "SECURITY.md",
    "clippy.toml",
    "rustfmt.toml",
];

/// Folders of the checkout; a text that begins with one and a `/` is taken for a path.
const FOLDERS: [&str; 8] = [".cargo", ".ci", ".github", "benches", "docs", "examples", "fuzz", "src"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Cargo writes this file into a package, and refuses to pack one of that name.
fn is_unpacked() -> bool {
    root().join("Cargo.toml.orig").is_file()
}

/// Every file below a folder, or the file itself, from the root. A folder below it with a manifest of its own is
/// another package's.
fn files_at(path: &Path) -> Vec<PathBuf> {
    if root().join(path).is_file() {
        return vec![path.to_owned()];
    }
    let entries =
        fs::read_dir(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let inside = entries.map(|entry| path.join(entry.unwrap().file_name()));
    inside
        .filter(|path| !root().join(path).join("Cargo.toml").is_file())
        .flat_map(|path| files_at(&path))
        .collect()
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                parts.pop();
            }
            Component::CurDir => {}
            part => parts.push(part),
        }
    }
    parts.into_iter().collect()
}

/// The texts between quotes of a line of code, without those that have an escape.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('"').skip(1).step_by(2).filter(|text| !text.contains('\\'))
}

/// The paths that a file of Rust includes, as files beside it, and those that it reads by their place below the root.
fn opened_by(file: &Path) -> BTreeSet<PathBuf> {
    let text = fs::read_to_string(root().join(file)).unwrap();
    let mut opened = BTreeSet::new();
    for line in text.lines().map(str::trim_start).filter(|line| !line.starts_with("//")) {
        let beside = ["include_str!(\"", "include_bytes!(\"", "include!(\"", "#[path = \""];
        if let Some((at, start)) = beside.iter().find_map(|start| Some((line.find(start)?, start))) {
            let included = line[at + start.len()..].split('"').next().unwrap();
            opened.insert(plain(&file.parent().unwrap().join(included)));
            continue;
        }
        for text in quoted(line) {
            // `concat!(env!("CARGO_MANIFEST_DIR"), "/src/…")`
            let path = text.strip_prefix('/').unwrap_or(text);
            let folder = path.split_once('/').map_or("", |(folder, _)| folder);
            let below_the_root =
                FOLDERS.contains(&folder) || folder == "tests" || AT_THE_ROOT.contains(&path);
            if below_the_root && root().join(path).exists() {
                opened.insert(PathBuf::from(path));
            }
        }
    }
    opened
}

/// What the documents and patches name, where a test looks for it.
fn named_by_documents() -> BTreeSet<PathBuf> {
    let mut named = BTreeSet::new();
    let model = fs::read_to_string(root().join("docs/THREAT_MODEL.md")).unwrap();
    let rows = model.lines().filter(|line| line.starts_with("| "));
    let cells = rows.flat_map(|line| line.split('`').skip(1).step_by(2));
    named.extend(cells.filter(|cell| cell.contains('/')).map(PathBuf::from));
    for patch in files_at(Path::new("tests/weakened")) {
        let text = fs::read_to_string(root().join(patch)).unwrap();
        named.extend(text.lines().filter_map(|line| line.strip_prefix("--- a/")).map(PathBuf::from));
    }
    named
}

/// What cargo would pack.
fn packed() -> BTreeSet<PathBuf> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let listed = Command::new(cargo)
        .current_dir(root())
        .args(["package", "--list", "--allow-dirty", "--offline", "--package", env!("CARGO_PKG_NAME")])
        .output()
        .unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    // On Windows as well, cargo's list and these paths agree after this.
    String::from_utf8(listed.stdout)
        .unwrap()
        .lines()
        .map(|line| PathBuf::from(line.replace('\\', "/")))
        .collect()
}

#[test]
fn every_file_that_a_test_opens_is_in_the_package() {
    let mut opened = named_by_documents();
    for file in SOURCES.iter().flat_map(|folder| files_at(Path::new(folder))) {
        if file.extension().is_some_and(|extension| extension == "rs") {
            opened.insert(file.clone());
            // This one has paths of files that are not packed.
            if file != Path::new("tests/package.rs") {
                opened.extend(opened_by(&file));
            }
        }
    }
    // A change of how tests are written must not leave this one without anything to check.
    for known in
        ["docs/PROTOCOL.md", "fuzz/src/lib.rs", "fuzz/corpus", "tests/vectors", "tests/weakened", "README.md"]
    {
        assert!(opened.contains(Path::new(known)), "no test is seen to open {known}: {opened:#?}");
    }
    let absent: Vec<_> = opened.iter().filter(|path| !root().join(path).exists()).collect();
    assert!(absent.is_empty(), "{absent:#?} do not exist");
    if is_unpacked() {
        return;
    }
    let packed = packed();
    let left_out: Vec<_> =
        opened.iter().flat_map(|path| files_at(path)).filter(|file| !packed.contains(file)).collect();
    assert!(left_out.is_empty(), "`include` in Cargo.toml leaves out {left_out:#?}");
}

/// What a person who has only the package needs, and what only the repository needs.
#[test]
fn the_package_has_its_documents_and_nothing_of_the_repository_alone() {
    let documents =
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE-MIT", "LICENSE-APACHE"];
    for document in documents {
        assert!(root().join(document).is_file(), "{document}");
    }
    if is_unpacked() {
        return;
    }
    let packed = packed();
    for document in documents {
        assert!(packed.contains(Path::new(document)), "{document} is not in the package");
    }
    let foreign = |file: &&PathBuf| {
        let text = file.to_str().unwrap();
        [".ci/", ".github/", ".cargo/", "benches/", "fuzz/runner/", "target/"]
            .iter()
            .any(|folder| text.starts_with(folder))
    };
    assert_eq!(packed.iter().find(foreign), None);
}
