//! Files that a test generates: vectors and corpora. How a vector is spelled, whether the files on disk are those that
//! this build generates, and how they are written.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "not all tests use all of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Path below a folder → content.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A value with its names in order, whatever order the build's `serde_json` keeps them in.
pub fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<_, _> = members.iter().collect();
            members.into_iter().map(|(name, value)| (name.clone(), sorted(value))).collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// A vector as it is in its file.
pub fn spelled(vector: &Value) -> Vec<u8> {
    (serde_json::to_string_pretty(&sorted(vector)).unwrap() + "\n").into_bytes()
}

/// The files of a folder, in the order of their names.
pub fn read(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    files.sort();
    files
}

/// The vectors of a folder, in the order of their names.
pub fn read_vectors(folder: &Path) -> Vec<(PathBuf, Value)> {
    read(folder).into_iter().map(|(path, bytes)| (path, serde_json::from_slice(&bytes).unwrap())).collect()
}

/// Panics unless the generated files are those that these folders below `root` have.
pub fn assert_same(generated: &Files, root: &Path, folders: &[&str]) {
    let mut there = Files::new();
    for folder in folders {
        for (path, bytes) in read(&root.join(folder)) {
            let name = path.file_name().unwrap().to_str().unwrap();
            // Files that a fuzzer has found are not generated.
            if !name.starts_with("found-") || path.extension().is_some() {
                there.insert(format!("{folder}/{name}"), bytes);
            }
        }
    }
    let names = |files: &Files| files.keys().cloned().collect::<BTreeSet<_>>();
    let (written, found) = (names(generated), names(&there));
    let in_one: Vec<_> = written.symmetric_difference(&found).collect();
    assert!(in_one.is_empty(), "generated or on disk, and not both: {in_one:#?}");
    for (name, bytes) in generated {
        let (this, other) = (bytes.escape_ascii().to_string(), there[name].escape_ascii().to_string());
        assert_eq!(
            this, other,
            "{name} is another; the comment at the top of the test says how it is written"
        );
    }
}

/// Writes the generated files below `root`.
pub fn write(generated: &Files, root: &Path) {
    for (name, bytes) in generated {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}
