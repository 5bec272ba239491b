//! What `after` has more than `before`: how many lines, and what happens if one of them, or one statement or arm in
//! them, is forgotten. A version that compiles without it is run over real sockets against every event that should
//! end a phone's connection.
//!
//! `gateway/tests/forgotten.txt` lists each part with the outcome without it. To write it again:
//!
//! ```text
//! SESSIONCAP_GATEWAY=write cargo test -p sessioncap-gateway --test forgotten
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "tests"
)]

#[path = "../../tests/readme_agent/compiler.rs"]
mod compiler;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use compiler::Compiler;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

const BEFORE: &str = include_str!("../src/before.rs");
const AFTER: &str = include_str!("../src/after.rs");
const AFTER_RESPONDER: &str = include_str!("../src/after_responder.rs");
const HARNESS: &str = include_str!("harness/mod.rs");

/// Lines that an integrator may have to add.
const MOST_LINES: usize = 60;

/// The numbers of the lines of `new` that are not in `old`, by a longest common subsequence.
fn added(old: &str, new: &str) -> Vec<usize> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let mut common = vec![vec![0_u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = match old[i] == new[j] {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut found) = (0, 0, Vec::new());
    while j < new.len() {
        if i < old.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if i < old.len() && common[i + 1][j] >= common[i][j + 1] {
            i += 1;
        } else {
            found.push(j);
            j += 1;
        }
    }
    let is_code = |line: &usize| !new[*line].trim().is_empty() && !new[*line].trim().starts_with("//");
    found.into_iter().filter(is_code).collect()
}

#[test]
fn phones_cost_a_gateway_with_a_noise_of_its_own_at_most_sixty_lines() {
    let lines = added(BEFORE, AFTER).len();
    assert!(lines <= MOST_LINES, "{lines} lines");
    let other = added(AFTER, AFTER_RESPONDER).len();
    assert!(other < 25, "{other} lines differ where this crate's Noise takes the place of snow");
    assert!(!AFTER_RESPONDER.contains("snow"));
}

/// A part of `after`, and its replacement.
struct Deletion {
    range: Range<usize>,
    instead: &'static str,
    what: &'static str,
}

struct Finder {
    starts: Vec<usize>,
    added: BTreeSet<usize>,
    found: Vec<Deletion>,
}

impl Finder {
    fn add(&mut self, span: proc_macro2::Span, instead: &'static str, what: &'static str) {
        // Lines of spans count from 1.
        let lines = span.start().line - 1..span.end().line;
        // What is added, and what stands on one added line alone is counted as that line.
        if !self.added.contains(&lines.start) || lines.len() == 1 && what == "statement" {
            return;
        }
        let at = |place: proc_macro2::LineColumn| self.starts[place.line - 1] + place.column;
        self.found.push(Deletion { range: at(span.start())..at(span.end()), instead, what });
    }
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_stmt(&mut self, statement: &'ast syn::Stmt) {
        self.add(statement.span(), "", "statement");
        visit::visit_stmt(self, statement);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        self.add(arm.body.span(), "{}", "arm's body");
        visit::visit_arm(self, arm);
    }
}

/// Every added line, and every statement and arm that begins in one.
fn deletions() -> Vec<Deletion> {
    let mut starts: Vec<usize> = vec![0];
    starts.extend(AFTER.match_indices('\n').map(|(at, _)| at + 1));
    let added: BTreeSet<usize> = added(BEFORE, AFTER).into_iter().collect();
    let line = |line: &usize| Deletion { range: starts[*line]..starts[*line + 1], instead: "", what: "line" };
    let mut found: Vec<Deletion> = added.iter().map(line).collect();
    let mut finder = Finder { starts, added, found: Vec::new() };
    finder.visit_file(&syn::parse_file(AFTER).unwrap());
    found.append(&mut finder.found);
    found.sort_by_key(|deletion| (deletion.range.start, std::cmp::Reverse(deletion.range.end)));
    found
}

fn program(versions: &[(String, String)]) -> String {
    let mut source = format!("mod harness {{\n{}\n}}\n", HARNESS.replace("//!", "//").replace("#![", "#["));
    for (name, version) in versions {
        let version = version.replace("crate::", "sessioncap_gateway::").replace("//!", "//");
        writeln!(source, "mod {name} {{\n{version}\n}}").unwrap();
    }
    source.push_str(
        "fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut running = tokio::task::JoinSet::new();
        for event in harness::EVENTS {\n",
    );
    for (name, _) in versions {
        writeln!(
            source,
            "            running.spawn(async move {{
                let seen = harness::run({name}::router, event).await;
                println!(\"{name} {{event:?}} {{}} {{seen:?}}\", seen.is_closed());
            }});"
        )
        .unwrap();
    }
    source.push_str("        }\n        while running.join_next().await.is_some() {}\n    });\n}\n");
    source
}

fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(90) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line,
    }
}

#[test]
fn no_line_that_is_forgotten_lets_anybody_in_or_keeps_anybody_there() {
    let libraries = [
        ("axum", ""),
        ("futures_util", ""),
        ("rand", "0.8."),
        ("serde_json", ""),
        ("sessioncap", ""),
        ("sessioncap_gateway", ""),
        ("snow", "0.9."),
        ("tokio", ""),
        ("tokio_tungstenite", "0.28."),
    ];
    let compiler = Compiler::new("forgotten", &["--test", "forgotten"], &libraries);
    let deletions = deletions();
    let mut versions = vec![("whole".to_owned(), AFTER.to_owned())];
    versions.extend(deletions.iter().enumerate().map(|(index, deletion)| {
        let (before, after) = (&AFTER[..deletion.range.start], &AFTER[deletion.range.end..]);
        (format!("without_{index}"), format!("{before}{}{after}", deletion.instead))
    }));
    let check = |(name, version): &(String, String)| {
        // What does not parse does not compile.
        syn::parse_file(version).map_err(|error| error.to_string())?;
        let source = program(&[(name.clone(), version.clone())]);
        compiler.compile(name, &source, &["--emit=metadata", "--crate-type=bin"]).map(drop)
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let checked: Vec<Result<(), String>> = std::thread::scope(|scope| {
        let running: Vec<_> = versions
            .chunks(versions.len().div_ceil(workers))
            .map(|share| scope.spawn(move || share.iter().map(check).collect::<Vec<_>>()))
            .collect();
        running.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(checked[0], Ok(()), "the gateway as it stands");
    let compiled: Vec<(String, String)> = versions
        .iter()
        .zip(&checked)
        .filter(|(_, outcome)| outcome.is_ok())
        .map(|(v, _)| v.clone())
        .collect();
    let binary = compiler.compile("all", &program(&compiled), &["--crate-type=bin"]);
    let ran = Command::new(binary.unwrap_or_else(|said| panic!("{said}"))).output().unwrap();
    let printed = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let mut runs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in printed.lines().filter(|line| line.starts_with("without_") || line.starts_with("whole ")) {
        runs.entry(line.split(' ').next().unwrap()).or_default().push(line);
    }
    for (name, _) in &compiled {
        let lines = &runs[name.as_str()];
        assert_eq!(lines.len(), 4, "{name}");
        for line in lines {
            let left_out =
                name.strip_prefix("without_").map(|index| &deletions[index.parse::<usize>().unwrap()]);
            let left_out = left_out.map(|deletion| &AFTER[deletion.range.clone()]);
            assert_eq!(line.split(' ').nth(2), Some("true"), "without {left_out:?}: {line}");
        }
    }
    for line in &runs["whole"] {
        assert!(line.contains("came_in: true"), "{line}");
    }

    let mut listed = String::new();
    for (index, deletion) in deletions.iter().enumerate() {
        let name = format!("without_{index}");
        let outcome = match runs.get(name.as_str()) {
            None => "does not compile",
            Some(lines) if lines.iter().any(|line| line.contains("came_in: true")) => "runs, closed",
            Some(_) => "no phone gets in",
        };
        let text = shortened(&AFTER[deletion.range.clone()]);
        writeln!(listed, "{outcome:<16} without the {}: {text}", deletion.what).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/forgotten.txt");
    if std::env::var_os("SESSIONCAP_GATEWAY").is_some() {
        fs::write(&path, &listed).unwrap();
    }
    assert_eq!(listed, fs::read_to_string(path).unwrap_or_default(), "forgotten.txt is not what happens");
}
