//! The public names, by the role that writes them, and the crates whose types occur in public signatures.
//! Both are read from the source and compared with what is committed in `tests/public_names/`.
//!
//! A public name is what `use` can reach at any depth: a module, type, trait, function, constant or alias;
//! no method, variant or field. What is `#[doc(hidden)]` is for this crate's own tests and does not count,
//! and a crate that is exported again counts as that crate. To see what a change asks for:
//!
//! ```text
//! SESSIONCAP_PUBLIC_NAMES=print cargo test --all-features --test public_api -- --nocapture
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "tests"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A role, and how many names its programs may need to write at most. `ledger` is whoever keeps the records in
/// another database; `tool` is whoever looks into credentials, records and listings, watches a gate, makes the
/// first move of the handshake by itself, or looks at what was left out of a pasted link; `app` is a phone's app that
/// leaves the connection to this crate; `session` is what the two sides of a session write, beyond their role; `bridge`
/// is a bridge to another protocol, `deployed` an agent with the deployed requests, `gateway` an agent that carries
/// bytes between a socket and another service, and `link_host` whoever serves what is behind a link.
const ROLES: [(&str, usize); 11] = [
    ("phone", 30),
    ("app", 40),
    ("desktop", 31),
    ("agent", 55),
    ("ledger", 20),
    ("tool", 31),
    ("session", 20),
    ("bridge", 20),
    ("deployed", 7),
    ("gateway", 7),
    ("link_host", 7),
];

const EXTERNAL: &str = "external_crates";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn list(name: &str) -> Vec<String> {
    let path = root().join("tests/public_names").join(name).with_extension("txt");
    fs::read_to_string(&path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// An item of a file, as rustfmt lays it out: its attributes, and its text from the first column to the end.
struct Item {
    hidden: bool,
    text: String,
}

/// The items at the first column of a file, up to tests in the file itself.
fn items(source: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let (mut attributes, mut current) = (String::new(), None::<String>);
    let mut open_attribute = false;
    for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
        let indented = line.starts_with(char::is_whitespace);
        if let Some(text) = &mut current {
            text.push(' ');
            text.push_str(line.trim());
        } else if line.starts_with("#[") || line.starts_with("#![") || open_attribute {
            attributes.push_str(line.trim());
            open_attribute = !line.trim_end().ends_with(']') || (open_attribute && indented);
            continue;
        } else if !line.trim().is_empty() {
            current = Some(line.trim().to_owned());
        }
        if attributes.contains("#[cfg(test)]") && line.starts_with("mod ") && line.ends_with('{') {
            break;
        }
        let ends = line.ends_with(';') || line.ends_with('}');
        if !indented
            && ends
            && let Some(text) = current.take()
        {
            items.push(Item {
                hidden: attributes.contains("doc(hidden)") || attributes.contains("cfg(docsrs)"),
                text,
            });
            attributes.clear();
        }
    }
    items
}

/// Splits at commas outside inner braces.
fn split(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[from..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// The paths of a `use`, each with the name that it gets.
fn used(tree: &str) -> Vec<(String, String)> {
    let tree = tree.trim();
    assert!(!tree.ends_with('*'), "a glob hides which names are public: {tree}");
    if let Some((prefix, inner)) = tree.split_once('{') {
        let inner = inner.strip_suffix('}').unwrap();
        return split(inner).into_iter().flat_map(|part| used(&format!("{prefix}{part}"))).collect();
    }
    let (path, name) = tree.split_once(" as ").unwrap_or((tree, tree.rsplit("::").next().unwrap()));
    vec![(path.to_owned(), name.to_owned())]
}

/// The file of a module, if the path is one.
fn module_file(directory: &Path, path: &str) -> Option<PathBuf> {
    let (base, path) = match path.strip_prefix("crate::") {
        Some(path) => (root().join("src"), path),
        None => (directory.to_path_buf(), path.strip_prefix("self::").unwrap_or(path)),
    };
    let file = base.join(path.replace("::", "/")).with_extension("rs");
    file.is_file().then_some(file)
}

/// Where the modules of a file are.
fn directory_of(file: &Path) -> PathBuf {
    if file.ends_with("lib.rs") { file.parent().unwrap().to_path_buf() } else { file.with_extension("") }
}

#[derive(Default)]
struct Reachable {
    names: BTreeSet<String>,
    crates: BTreeSet<String>,
}

impl Reachable {
    fn walk(&mut self, file: &Path, prefix: &str) {
        let source = fs::read_to_string(file).unwrap();
        assert!(!source.contains("macro_export"), "{}: count exported macros as well", file.display());
        let directory = directory_of(file);
        for item in items(&source).iter().filter(|item| !item.hidden) {
            let defines = item.text.starts_with("macro_rules!") && item.text.contains("pub ");
            assert!(!defines, "{}: what does its macro make public?", file.display());
            let Some(text) = item.text.strip_prefix("pub ") else { continue };
            if let Some(tree) = text.strip_prefix("use ") {
                for (path, name) in used(tree.trim_end_matches(';')) {
                    match module_file(&directory, &path) {
                        Some(module) => self.module(&module, prefix, &name),
                        None if !path.contains("::") => _ = self.crates.insert(path),
                        None => self.add(prefix, &name),
                    }
                }
            } else if let Some(name) = text.strip_prefix("mod ") {
                let name = name.strip_suffix(';').unwrap_or_else(|| panic!("a module in a file: {text}"));
                self.module(&module_file(&directory, name).unwrap(), prefix, name);
            } else {
                let skipped =
                    ["const fn", "async fn", "struct", "enum", "trait", "fn", "const", "type", "static"];
                let rest = skipped.iter().find_map(|kind| text.strip_prefix(kind)?.strip_prefix(' '));
                let rest = rest.unwrap_or_else(|| panic!("what kind of item is this? {text}"));
                let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                self.add(prefix, name);
            }
        }
    }

    fn module(&mut self, file: &Path, prefix: &str, name: &str) {
        self.add(prefix, name);
        self.walk(file, &format!("{prefix}{name}::"));
    }

    fn add(&mut self, prefix: &str, name: &str) {
        assert!(self.names.insert(format!("{prefix}{name}")), "{prefix}{name} twice");
    }
}

fn reachable() -> Reachable {
    let mut reachable = Reachable::default();
    reachable.walk(&root().join("src/lib.rs"), "");
    reachable
}

/// Which roles name it.
fn by_name() -> BTreeMap<String, Vec<&'static str>> {
    let mut by_name: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (role, _) in ROLES {
        for name in list(role) {
            by_name.entry(name).or_default().push(role);
        }
    }
    by_name
}

#[test]
fn every_public_name_is_in_the_list_of_a_role_and_every_listed_name_exists() {
    let (reachable, listed) = (reachable().names, by_name());
    if std::env::var_os("SESSIONCAP_PUBLIC_NAMES").is_some() {
        for name in &reachable {
            println!("{name}: {}", listed.get(name).map_or("no role".to_owned(), |roles| roles.join(", ")));
        }
    }
    let unlisted: Vec<&String> = reachable.iter().filter(|name| !listed.contains_key(*name)).collect();
    let gone: Vec<_> = listed.iter().filter(|(name, _)| !reachable.contains(*name)).collect();
    assert!(
        unlisted.is_empty() && gone.is_empty(),
        "in tests/public_names/, add to a role or hide: {unlisted:#?}; remove: {gone:#?}"
    );
}

#[test]
fn a_role_needs_few_names_each_listed_once_in_order() {
    for (role, most) in ROLES {
        let names = list(role);
        assert!(names.is_sorted_by(|one, next| one < next), "{role}: sort them, each once");
        assert!((1..=most).contains(&names.len()), "{role}: {} names, {most} at most", names.len());
    }
}

/// The dependencies of `Cargo.toml`, as the source spells them.
fn dependencies() -> BTreeSet<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut section = "";
    let mut found = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.ends_with("dependencies]") && !section.contains("dev-") && !line.starts_with('#') {
            found.extend(line.split_once(" = ").map(|(name, _)| name.replace('-', "_")));
        }
    }
    assert!(found.len() > 15, "{found:?}");
    // It has macros only, and the one that is imported has the name of this crate's `Error`.
    found.remove("thiserror");
    found
}

fn source_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => source_files(&path, found),
            false if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
            false => {}
        }
    }
}

/// The parts of an item that are an interface: up to the body of a function; the fields and variants of a
/// public type; the functions of a public trait and of an inherent implementation; what a trait's
/// implementation says of the types; the same of what a macro writes.
fn signatures(item: &str) -> Vec<&str> {
    let is_public = item.starts_with("pub ");
    let is_type = ["pub struct ", "pub enum ", "pub trait ", "pub type ", "pub use "];
    if is_type.iter().any(|kind| item.starts_with(kind)) {
        return vec![item];
    }
    let mut found = Vec::new();
    if is_public || item.starts_with("impl") {
        found.push(item.split(['{', ';']).next().unwrap());
    }
    let is_macro = item.starts_with("macro_rules!");
    for (at, _) in item.match_indices(" impl").filter(|_| is_macro) {
        found.push(item[at..].split(['{', ';']).next().unwrap());
    }
    if item.starts_with("impl") || is_macro {
        for (at, _) in item.match_indices("pub ") {
            found.push(item[at..].split(['{', ';']).next().unwrap());
        }
        for (at, _) in item.match_indices(" type ") {
            found.push(item[at..].split(';').next().unwrap());
        }
    }
    found
}

/// Private fields are no interface.
fn without_private_fields(signature: &str) -> String {
    match signature.split_once('{') {
        Some((head, fields)) if signature.starts_with("pub struct ") => {
            let public: Vec<&str> =
                split(fields).into_iter().filter(|field| field.starts_with("pub ")).collect();
            format!("{head} {}", public.join(", "))
        }
        None if signature.starts_with("pub struct ") => {
            let (head, fields) = signature.split_once('(').unwrap_or((signature, ""));
            let public: Vec<&str> =
                split(fields).into_iter().filter(|field| field.starts_with("pub ")).collect();
            format!("{head} {}", public.join(", "))
        }
        _ => signature.to_owned(),
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The names of types that an implementation or a signature is about, if the crate does not export them,
/// say that it is no interface.
fn is_about_a_hidden_type(item: &str, public: &BTreeSet<String>) -> bool {
    if item.starts_with("macro_rules!") {
        return false;
    }
    let head = item.split(['{', ';']).next().unwrap();
    let subject = match (head.starts_with("impl"), head.split_once(" for ")) {
        (true, Some((_, subject))) => subject,
        (true, None) => head.trim_start_matches("impl"),
        (false, _) => head,
    };
    !words(subject).any(|word| public.contains(word))
}

#[test]
fn only_the_listed_crates_have_types_in_public_signatures() {
    let reachable = reachable();
    let public: BTreeSet<String> =
        reachable.names.iter().map(|name| name.rsplit("::").next().unwrap().to_owned()).collect();
    let dependencies = dependencies();
    let mut files = Vec::new();
    source_files(&root().join("src"), &mut files);
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for file in files {
        let items = items(&fs::read_to_string(&file).unwrap());
        // The path of each imported word.
        let mut imported: BTreeMap<String, String> = BTreeMap::new();
        for item in &items {
            if let Some(tree) = item.text.strip_prefix("use ") {
                for (path, name) in used_or_glob(tree.trim_end_matches(';')) {
                    let from = path.split("::").next().unwrap();
                    if dependencies.contains(from) {
                        imported.insert(name, from.to_owned());
                    }
                }
            }
        }
        for item in items.iter().filter(|item| !item.hidden && !is_about_a_hidden_type(&item.text, &public)) {
            for signature in signatures(&item.text) {
                let signature = without_private_fields(signature);
                for (at, word) in words(&signature).map(|word| (offset(&signature, word), word)) {
                    let is_path = signature[at + word.len()..].starts_with("::");
                    let origin = imported.get(word).cloned();
                    let origin = origin.or((is_path && dependencies.contains(word)).then(|| word.to_owned()));
                    if let Some(origin) = origin {
                        found.entry(origin).or_insert_with(|| format!("{}: {signature}", file.display()));
                    }
                }
            }
        }
    }
    let listed: BTreeSet<String> = list(EXTERNAL).into_iter().collect();
    assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), listed, "{found:#?}");
    assert!(reachable.crates.is_subset(&listed), "{:?}", reachable.crates);
    for word in reachable.names {
        let word = word.rsplit("::").next().unwrap();
        assert!(!dependencies.contains(word), "{word} is a crate");
    }
}

fn used_or_glob(tree: &str) -> Vec<(String, String)> {
    if tree.ends_with('*') { Vec::new() } else { used(tree) }
}

/// Where a word that was cut out of a text stands in it.
fn offset(text: &str, word: &str) -> usize {
    word.as_ptr() as usize - text.as_ptr() as usize
}

#[test]
fn the_reader_sees_what_rustfmt_writes() {
    let source = "//! Doc.\n#![deny(x)]\n/// A.\n#[derive(Debug)]\npub struct A {\n    pub b: u8,\n}\n\nimpl A {\n    \
                  pub fn c(&self) -> u8 {\n        1\n    }\n}\n#[cfg(all(\n    feature = \"x\",\n    feature = \
                  \"y\"\n))]\n#[doc(hidden)]\npub use d::{\n    E, F as G,\n};\npub(crate) fn h() {}\npub mod \
                  i;\n#[cfg(test)]\nmod tests {\n    use z;\n}\n";
    let items = items(source);
    let texts: Vec<&str> = items.iter().map(|item| item.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "pub struct A { pub b: u8, }",
            "impl A { pub fn c(&self) -> u8 { 1 } }",
            "pub use d::{ E, F as G, };",
            "pub(crate) fn h() {}",
            "pub mod i;",
        ]
    );
    let hidden: Vec<bool> = items.iter().map(|item| item.hidden).collect();
    assert_eq!(hidden, [false, false, true, false, false]);
    let names = used("d::{ E, f::{G, H}, I as J, }");
    let names: Vec<&str> = names.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["E", "G", "H", "J"]);
}
