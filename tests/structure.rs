//! The shape of the source: who may import whom, how long a file may be, which file owns which crate.
//! These are rules that the compiler does not check.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules from bottom to top. A module imports from rows below its own and from nowhere else, so
/// there is no circle.
const ROWS: [&[&str]; 11] = [
    &["documents", "error", "limits", "secret", "status", "sync", "text"],
    &["agent/health", "agent_url", "clock", "codec", "json", "label", "op"],
    &["agent/nodes", "credential/bytes", "id", "key", "protocol/frame", "system_clock"],
    &[
        "acp",
        "agent/decision",
        "agent/trace",
        "credential/caveat",
        "credential/glance",
        "dd",
        "protocol/noise",
        "protocol/ticket",
        "session",
    ],
    &["agent/denial", "credential/block", "protocol/handshake", "protocol/link", "protocol/message"],
    &["agent/stats", "credential/shape", "pair", "phone", "qr", "web"],
    &["agent/audit", "agent/guard", "app", "credential/mint", "credential/verify"],
    &["agent/ledger", "agent/policy", "credential/attenuate", "desktop"],
    &["agent/config", "agent/core"],
    &["agent/gate"],
    &["agent/polled"],
];

/// Directories whose modules count as modules of their own, like those at the root.
const OPEN: &[&str] = &["agent", "credential", "protocol"];

/// A third-party crate and the modules, or the one file, that may name it. What is not listed may be named
/// anywhere.
const OWNERS: [(&str, &[&str]); 21] = [
    ("base64", &["codec"]),
    (
        "biscuit_auth",
        &["agent/policy", "credential/attenuate", "credential/block", "credential/mint", "credential/shape"],
    ),
    ("biscuit_parser", &["agent/policy"]),
    ("ciborium_ll", &["codec"]),
    ("curve25519_dalek", &["key"]),
    ("ed25519_dalek", &["key"]),
    ("hkdf", &["protocol/ticket"]),
    ("lz4_flex", &["agent/ledger/memory/packed"]),
    ("prost", &["credential/glance", "credential/shape"]),
    ("qrcode", &["qr"]),
    ("redb", &["agent/ledger/embedded"]),
    (
        "rand_core",
        &[
            "agent/gate",
            "app",
            "credential/attenuate",
            "credential/mint",
            "credential/shape",
            "desktop",
            "key",
            "phone",
            "protocol/noise",
            "protocol/ticket",
            "secret",
            "session",
        ],
    ),
    ("regex", &["agent/policy"]),
    ("rustix", &["system_clock"]),
    (
        "sha2",
        &[
            "agent/decision",
            "credential/glance",
            "credential/verify",
            "protocol/link",
            "protocol/ticket",
            "web",
        ],
    ),
    ("serde_json", &["json"]),
    ("snow", &["protocol/noise"]),
    ("subtle", &["credential/bytes", "secret"]),
    (
        "thiserror",
        &[
            "acp",
            "agent/audit",
            "agent/denial",
            "agent/gate",
            "agent/guard",
            "agent/ledger",
            "agent/policy",
            "app",
            "dd",
            "desktop",
            "error",
            "json",
            "phone",
            "protocol/link",
            "status",
            "system_clock",
            "web",
        ],
    ),
    ("tracing", &["agent/trace"]),
    (
        "time",
        &["agent/core", "agent/gate", "agent/guard", "agent/nodes", "agent/policy", "clock", "system_clock"],
    ),
];

/// The one file that opens files.
const OPENS_FILES: &str = "src/agent/ledger/embedded.rs";

/// The one file that reads the clock, for callers that ask it.
const READS_CLOCK: &str = "src/system_clock.rs";

const MOST_CODE_LINES: usize = 500;

/// Words that would mean a clock, a socket, a file, ambient randomness or a terminal.
const OUTSIDE_WORLD: [&str; 16] = [
    "Instant::now",
    "OffsetDateTime::now",
    "OsRng",
    "SystemTime",
    "TcpStream",
    "UdpSocket",
    "dbg!",
    "eprintln!",
    "from_entropy",
    "getrandom",
    "println!",
    "std::env",
    "std::fs",
    "std::process",
    "thread::sleep",
    "thread_rng",
];

struct File {
    path: PathBuf,
    /// The module directly under the crate's root, or under one of [`OPEN`] with that one's name before it.
    module: String,
    /// Without comments, blank lines and the tests at its end.
    code: Vec<String>,
}

fn source_files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    let for_tests = test_files(&paths);
    let files = paths.into_iter().filter(|path| !for_tests.contains(path)).map(|path| {
        let relative = path.strip_prefix(&root).unwrap().with_extension("");
        let module = module_of(relative.components().map(|part| part.as_os_str().to_str().unwrap()));
        let code = code_lines(&fs::read_to_string(&path).unwrap());
        File { path, module, code }
    });
    files.collect()
}

fn module_of<'a>(mut path: impl Iterator<Item = &'a str>) -> String {
    let first = path.next().unwrap();
    match path.next().filter(|_| OPEN.contains(&first)) {
        Some(second) => format!("{first}/{second}"),
        None => first.to_owned(),
    }
}

/// Files whose module is declared for tests only.
fn test_files(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for path in paths {
        let text = fs::read_to_string(path).unwrap();
        let home = match path.file_name().unwrap().to_str().unwrap() {
            "lib.rs" => path.parent().unwrap().to_path_buf(),
            _ => path.with_extension(""),
        };
        for (condition, declaration) in text.lines().zip(text.lines().skip(1)) {
            let name =
                declaration.strip_suffix(';').and_then(|line| line.rsplit_once("mod ")).map(|(_, name)| name);
            if let Some(name) = name.filter(|_| is_for_tests(condition)) {
                found.insert(home.join(name).with_extension("rs"));
            }
        }
    }
    assert!(found.len() > 3, "{found:?}");
    found
}

fn walk(directory: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

fn code_lines(text: &str) -> Vec<String> {
    let mut code = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        match lines.peek() {
            // Tests in the file itself are at its end; those in a file of their own may be declared anywhere.
            Some(next) if is_for_tests(line) && next.contains("mod ") => {
                if next.ends_with('{') {
                    break;
                }
                lines.next();
            }
            _ => code.push(line.trim()),
        }
    }
    code.retain(|line| !line.is_empty() && !line.starts_with("//"));
    code.into_iter().map(str::to_owned).collect()
}

fn is_for_tests(condition: &str) -> bool {
    condition.starts_with("#[cfg(") && condition.contains("test")
}

/// The first path segments after each `prefix` that begins a path, also inside braces.
fn named_after(code: &[String], prefix: &str) -> BTreeSet<String> {
    let text = code.join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices(prefix) {
        let begins = !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        let rest = &text[at + prefix.len()..];
        if begins {
            assert!(
                !rest.starts_with('{'),
                "write one `use` for each module: {}",
                &rest[..rest.len().min(40)]
            );
            let word = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let (first, second): (String, String) =
                (word(rest), rest.split_once("::").map(|(_, rest)| word(rest)).unwrap_or_default());
            found.insert(module_of([first.as_str(), second.as_str()].into_iter()));
        }
    }
    found
}

/// A file that only lists modules.
fn is_root(file: &File) -> bool {
    file.module == "lib" || OPEN.contains(&file.module.as_str())
}

fn row_of(module: &str) -> usize {
    let row = ROWS.iter().position(|row| row.contains(&module));
    row.unwrap_or_else(|| panic!("give module `{module}` a row in tests/structure.rs"))
}

#[test]
fn every_module_imports_only_from_rows_below_its_own() {
    let mut upward = Vec::new();
    for file in source_files().iter().filter(|file| !is_root(file)) {
        for import in named_after(&file.code, "crate::") {
            if import != file.module && row_of(&import) >= row_of(&file.module) {
                upward.push(format!("{} imports {import}", file.path.display()));
            }
        }
    }
    assert!(upward.is_empty(), "{upward:#?}");
}

/// The modules of each file, from the crate's root: `src/agent/gate/admit.rs` is agent, gate, admit.
fn segments(file: &File) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let relative = file.path.strip_prefix(&root).unwrap().with_extension("");
    relative.components().map(|part| part.as_os_str().to_str().unwrap().to_owned()).collect()
}

/// Every path that a file writes from the root or from its parent, as segments from the root.
fn paths_written(file: &File) -> BTreeSet<Vec<String>> {
    let text = file.code.join("\n");
    let mut found = BTreeSet::new();
    let own = segments(file);
    for (at, prefix) in text.match_indices("crate::").chain(text.match_indices("super::")) {
        // `super::super::` is found at its last part; how many there are is counted backwards.
        let before = &text[..at];
        if prefix == "super::" && text[at + prefix.len()..].starts_with("super::") {
            continue;
        }
        let ups = 1 + before.len().saturating_sub(before.trim_end_matches("super::").len()) / "super::".len();
        let base = match prefix {
            "crate::" if before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') => continue,
            "crate::" => Vec::new(),
            _ => own[..own.len().saturating_sub(ups)].to_vec(),
        };
        let rest = &text[at + prefix.len()..];
        let items: Vec<&str> = match rest.strip_prefix('{') {
            Some(inner) => inner.split_once('}').map_or(inner, |(inner, _)| inner).split(',').collect(),
            None => vec![rest.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').next().unwrap()],
        };
        for item in items {
            let words = item.trim().split("::").map(str::to_owned).filter(|word| !word.is_empty());
            found.insert(base.iter().cloned().chain(words).collect());
        }
    }
    found
}

/// Inside the modules as well: of two that stand beside each other, one may import from the other, and not
/// both, whether directly or by way of a third.
#[test]
fn no_modules_that_stand_beside_each_other_import_in_a_circle() {
    let files = source_files();
    let modules: BTreeSet<Vec<String>> = files.iter().map(segments).collect();
    let mut imports: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for file in &files {
        let own = segments(file);
        for path in paths_written(file) {
            let shared = own.iter().zip(&path).take_while(|(one, other)| one == other).count();
            if let (Some(from), Some(to)) = (own.get(..=shared), path.get(..=shared))
                && modules.contains(to)
            {
                imports.entry(from.to_vec()).or_default().insert(to.to_vec());
            }
        }
    }
    let inside = imports.keys().filter(|module| module.len() > 2).count();
    assert!(inside > 12, "{inside} modules inside others import from one beside them");
    // Removes each module whose imports have all been removed, until only circles are left.
    while let Some(module) = imports
        .iter()
        .find_map(|(module, to)| (!to.iter().any(|to| imports.contains_key(to))).then(|| module.clone()))
    {
        imports.remove(&module);
    }
    assert!(imports.is_empty(), "{imports:#?}");
}

#[test]
fn every_row_is_needed_and_every_module_exists() {
    let files = source_files();
    let modules: BTreeSet<&str> = files.iter().map(|file| file.module.as_str()).collect();
    for module in ROWS.concat() {
        assert!(modules.contains(module), "no module `{module}`");
    }
    // Each module is in the lowest row that its imports allow.
    let mut lowest: BTreeMap<&str, usize> = BTreeMap::new();
    for file in files.iter().filter(|file| !is_root(file)) {
        let imports = named_after(&file.code, "crate::").into_iter().filter(|import| *import != file.module);
        let row = imports.map(|import| row_of(&import) + 1).max().unwrap_or(0);
        let entry = lowest.entry(&file.module).or_default();
        *entry = (*entry).max(row);
    }
    for (module, row) in lowest {
        assert_eq!(row_of(module), row, "`{module}` belongs into row {row}");
    }
}

#[test]
fn every_third_party_crate_stays_with_its_owner() {
    let mut strays = Vec::new();
    for file in &source_files() {
        let text = file.code.join("\n");
        for (name, owners) in OWNERS {
            let named = text
                .match_indices(&format!("{name}::"))
                .any(|(at, _)| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'));
            let path = file.path.with_extension("");
            let owned = |owner: &&str| file.module == **owner || owner.contains('/') && path.ends_with(owner);
            if named && !owners.iter().any(owned) {
                strays.push(format!("{} names {name}", file.path.display()));
            }
        }
    }
    assert!(strays.is_empty(), "{strays:#?}");
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    for file in source_files() {
        assert!(file.code.len() <= MOST_CODE_LINES, "{}: {} lines", file.path.display(), file.code.len());
    }
}

#[test]
fn code_after_a_test_modules_declaration_is_read_as_well() {
    let code =
        code_lines("#[cfg(test)]\nmod faulty;\nuse a;\n// b\n#[cfg(test)]\nmod tests {\n    use c;\n}");
    assert_eq!(code, ["use a;"]);
}

#[test]
fn the_crate_root_holds_no_logic() {
    for root in source_files().iter().filter(|file| is_root(file)) {
        assert!(!root.code.iter().any(|line| line.contains("fn ") || line.contains("impl ")));
    }
}

#[test]
fn nothing_reads_a_clock_a_file_or_the_systems_randomness() {
    for file in source_files() {
        let allowed = |word: &str| match word {
            "std::fs" => file.path.ends_with(OPENS_FILES),
            "SystemTime" => file.path.ends_with(READS_CLOCK),
            _ => false,
        };
        for word in OUTSIDE_WORLD.iter().filter(|word| !allowed(word)) {
            let line = file.code.iter().find(|line| line.contains(word));
            assert!(line.is_none(), "{}: {line:?}", file.path.display());
        }
    }
}

/// Gate and guard take the time from their caller: no file but the root, which exports it, names it.
#[test]
fn nothing_in_the_crate_asks_the_system_clock() {
    let names = |file: &File| {
        file.code.iter().any(|line| line.contains("system_clock") || line.contains("SystemClock"))
    };
    let files = source_files();
    let naming: Vec<&Path> =
        files.iter().filter(|file| names(file)).map(|file| file.path.as_path()).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert_eq!(naming, [root.join("src/lib.rs"), root.join(READS_CLOCK)]);
    let root = files.iter().find(|file| file.module == "lib").unwrap();
    let lines: Vec<&String> = root.code.iter().filter(|line| line.contains("ystem_clock")).collect();
    assert_eq!(lines, ["mod system_clock;", "pub use system_clock::{ClockUnsupported, SystemClock};"]);
}

#[test]
fn there_is_no_unsafe_code_and_no_note_to_self() {
    let root = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    assert!(root.contains("#![forbid(unsafe_code)]"));
    for file in source_files() {
        let text = fs::read_to_string(&file.path).unwrap();
        for note in ["TODO", "FIXME", "XXX", "HACK"] {
            assert!(!text.contains(note), "{}: {note}", file.path.display());
        }
    }
}
