//! Every public error has a stable name, and a text that a person can act on. Read from the source, so that
//! no variant is left out.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Errors with a single thing to say: their callers have nothing to tell apart.
const WITHOUT_A_CODE: [&str; 1] = ["NotKept"];

/// Errors that have a denial whatever they are, and its name.
const NAMED_BY_THEIR_DENIAL: [&str; 2] = ["NotActivated", "PermitError"];

/// A public type that is an error.
struct PublicError {
    name: String,
    /// Of an enum.
    variants: usize,
    texts: Vec<String>,
}

fn source_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The files of `src`, without the tests at their ends.
fn sources() -> Vec<String> {
    let mut paths = Vec::new();
    source_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut paths);
    let text = |path: &PathBuf| fs::read_to_string(path).unwrap();
    paths.iter().map(text).map(|text| text.split("\nmod tests {").next().unwrap().to_owned()).collect()
}

fn public_errors() -> Vec<PublicError> {
    let mut found = Vec::new();
    for text in sources() {
        for (at, derive) in text.match_indices("#[derive(") {
            let rest = &text[at..];
            let derives = rest[derive.len()..].split_once(")]").unwrap().0;
            let Some(kind) = derives.split(", ").any(|one| one.ends_with("Error")).then(|| {
                let lines = rest.lines().skip(1);
                lines
                    .map(str::trim)
                    .find(|line| line.starts_with("pub ") || line.starts_with("struct "))
                    .unwrap()
            }) else {
                continue;
            };
            let Some(name) = kind.strip_prefix("pub enum ").or_else(|| kind.strip_prefix("pub struct "))
            else {
                continue;
            };
            let name = name.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned();
            let body = rest.split("\n}").next().unwrap();
            let texts: Vec<String> = body
                .split("#[error(")
                .skip(1)
                .filter_map(|text| text.trim_start().strip_prefix('"'))
                .map(|text| text.split("\"").next().unwrap().to_owned())
                .collect();
            let variants = if kind.contains("enum") { body.matches("#[error(").count() } else { 0 };
            found.push(PublicError { name, variants, texts });
        }
    }
    assert!(found.len() > 12, "{}", found.len());
    found
}

/// The names that the `code` of each type gives, and whether it passes another's on.
fn codes() -> BTreeMap<String, (Vec<String>, usize)> {
    let mut found = BTreeMap::new();
    for text in sources() {
        for block in text.split("\nimpl ").skip(1) {
            let name = block.split(|c: char| !c.is_alphanumeric()).next().unwrap();
            let block = block.split("\n}").next().unwrap();
            let Some((_, body)) = block.split_once("fn code(") else { continue };
            let body = body.split("\n    }\n").next().unwrap();
            assert!(!body.contains("_ =>"), "{name}: a wildcard would give a new variant another's name");
            let own = body.split("=> \"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
            let passed_on = body.matches(".code()").count();
            found.insert(name.to_owned(), (own.collect(), passed_on));
        }
    }
    found
}

#[test]
fn every_public_error_has_a_code_for_each_of_its_variants() {
    let codes = codes();
    for PublicError { name, variants, .. } in public_errors() {
        if WITHOUT_A_CODE.contains(&name.as_str()) {
            continue;
        }
        let (own, passed_on) = codes.get(&name).unwrap_or_else(|| panic!("`{name}` has no `code()`"));
        if NAMED_BY_THEIR_DENIAL.contains(&name.as_str()) {
            assert_eq!((own.len(), *passed_on), (0, 1), "{name}");
        } else if variants > 0 {
            assert_eq!(own.len() + passed_on, variants, "{name}");
        }
    }
}

#[test]
fn codes_are_unique_within_their_type_and_in_snake_case() {
    let codes = codes();
    assert!(codes.len() > 12, "{:?}", codes.keys());
    for (name, (own, _)) in &codes {
        assert_eq!(own.iter().collect::<BTreeSet<_>>().len(), own.len(), "{name}: {own:?}");
        for code in own {
            let begins = code.starts_with(|c: char| c.is_ascii_lowercase());
            let snake = code.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            assert!(begins && snake && !code.ends_with('_') && !code.contains("__"), "{name}: {code}");
        }
    }
    // An error that passes on what a part of it says has no second meaning for a name.
    for parts in
        [&["Error", "UrlProblem", "LabelProblem", "CredentialProblem"][..], &["PhoneError", "Status"]]
    {
        let all: Vec<&String> = parts.iter().flat_map(|name| &codes[*name].0).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
    }
}

#[test]
fn texts_are_lower_case_and_end_without_a_full_stop() {
    let mut texts = 0;
    for PublicError { name, texts: of_type, .. } in public_errors() {
        for text in of_type {
            texts += 1;
            assert!(!text.ends_with('.') && !text.ends_with('!'), "{name}: {text}");
            let capital = text.chars().next().is_some_and(char::is_uppercase);
            assert!(!capital || text.starts_with("U+"), "{name}: {text}");
        }
    }
    assert!(texts > 100, "{texts}");
}

#[test]
fn the_source_is_read_as_it_is_written() {
    let errors = public_errors();
    let names: BTreeSet<&str> = errors.iter().map(|error| error.name.as_str()).collect();
    for name in
        ["Denial", "DesktopError", "Error", "LedgerFailure", "LinkError", "Misuse", "PhoneError", "Quota"]
    {
        assert!(names.contains(name), "{names:?}");
    }
    assert_eq!(errors.iter().find(|error| error.name == "PhoneError").unwrap().variants, 6);
}
