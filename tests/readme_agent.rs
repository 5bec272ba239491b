//! The README's agent, unchanged and with each of its parts left out. What compiles without a part is run in
//! simulated time against every event that should end a phone's connection: it is over five seconds and one `settle`
//! later, and no phone is admitted that should not be.
//!
//! `tests/readme_agent/outcomes.txt` lists each part with the outcome without it. To write it again:
//!
//! ```text
//! SESSIONCAP_README=write cargo test --all-features --test readme_agent
//! ```
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

#[path = "readme_agent/compiler.rs"]
mod compiler;

use compiler::Compiler;

const HARNESS: &str = include_str!("readme_agent/harness.rs");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The README's agent: its only block of Rust that opens a gate.
fn sample() -> String {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let blocks: Vec<&str> = readme
        .split("```rust")
        .skip(1)
        .map(|block| block.split_once('\n').unwrap().1.split("```").next().unwrap())
        .filter(|block| block.contains("Gate::open"))
        .collect();
    let [sample] = blocks.as_slice() else { panic!("{} blocks open a gate", blocks.len()) };
    assert!(sample.is_ascii());
    (*sample).to_owned()
}

/// One part of the sample, and its replacement.
#[derive(Debug)]
struct Deletion {
    range: Range<usize>,
    instead: &'static str,
    what: &'static str,
}

/// Finds every statement at every depth, every arm's body, and every builder call.
struct Finder<'a> {
    lines: Vec<usize>,
    text: &'a str,
    found: Vec<Deletion>,
}

impl Finder<'_> {
    fn range(&self, span: proc_macro2::Span) -> Range<usize> {
        let at = |place: proc_macro2::LineColumn| self.lines[place.line - 1] + place.column;
        at(span.start())..at(span.end())
    }

    fn add(&mut self, range: Range<usize>, instead: &'static str, what: &'static str) {
        self.found.push(Deletion { range, instead, what });
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_stmt(&mut self, statement: &'ast syn::Stmt) {
        let range = self.range(statement.span());
        self.add(range, "", "statement");
        visit::visit_stmt(self, statement);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        let range = self.range(arm.body.span());
        self.add(range, "{}", "arm's body");
        visit::visit_arm(self, arm);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method.to_string().starts_with("with_") {
            let range = self.range(call.receiver.span()).end..self.range(call.span()).end;
            self.add(range, "", "builder call");
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        if call.path.is_ident("println") {
            return;
        }
        let Select { biased, branches } = call.parse_body().unwrap();
        let range = self.range(biased.span());
        self.add(range.start..range.end + 1, "", "`biased`");
        for branch in &branches {
            let (begin, body) = (self.range(branch.pattern.span()), self.range(branch.body.span()));
            let comma = usize::from(self.text[body.end..].starts_with(','));
            self.add(begin.start..body.end + comma, "", "branch");
            self.add(body, "{}", "branch's body");
        }
        for branch in &branches {
            self.visit_expr(&branch.body);
        }
    }
}

/// The body of `tokio::select!`.
struct Select {
    biased: syn::Ident,
    branches: Vec<Branch>,
}

struct Branch {
    pattern: syn::Pat,
    body: syn::Expr,
}

impl Parse for Select {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let biased = input.parse()?;
        input.parse::<syn::Token![;]>()?;
        let mut branches = Vec::new();
        while !input.is_empty() {
            let pattern = syn::Pat::parse_multi(input)?;
            input.parse::<syn::Token![=]>()?;
            input.parse::<syn::Expr>()?;
            input.parse::<syn::Token![=>]>()?;
            let body = input.parse()?;
            input.parse::<Option<syn::Token![,]>>()?;
            branches.push(Branch { pattern, body });
        }
        Ok(Self { biased, branches })
    }
}

fn deletions(text: &str) -> Vec<Deletion> {
    let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let mut finder = Finder { lines, text, found: Vec::new() };
    finder.visit_file(&syn::parse_file(text).unwrap());
    finder.found.sort_by_key(|deletion| (deletion.range.start, std::cmp::Reverse(deletion.range.end)));
    finder.found
}

/// A version of the sample as a module, with what the harness calls.
fn module(name: &str, sample: &str) -> String {
    format!(
        "mod {name} {{
    use crate::harness::*;
    // Each version implements the context for a type of its own.
    pub struct Sessions(crate::harness::Sessions);
    impl std::ops::Deref for Sessions {{
        type Target = crate::harness::Sessions;
        fn deref(&self) -> &Self::Target {{
            &self.0
        }}
    }}
    {sample}
    pub fn parts() -> Parts {{
        Parts {{
            open: |key, url, sessions, now| {{
                open(key, url, sessioncap::agent::ledger::MemoryLedger::new(), Sessions(sessions), now)
            }},
            settle: |agent| Box::pin(settle(agent)),
            session_ended: |agent, session| Box::pin(session_ended(agent, session)),
            devices_changed: |agent, enrolled| Box::pin(devices_changed(agent, enrolled)),
            device_request: |agent, channel, request| Box::pin(device_request(agent, channel, request)),
            connection: |agent, socket| Box::pin(connection(agent, socket)),
        }}
    }}
}}
"
    )
}

/// A program of some versions, each of which the harness can run.
fn program(versions: &[(String, String)]) -> String {
    let mut source = format!("mod harness {{\n{}\n}}\n", HARNESS.replace("//!", "//").replace("#![", "#["));
    versions.iter().for_each(|(name, sample)| source.push_str(&module(name, sample)));
    source.push_str("fn main() {\n    for event in harness::EVENTS {\n");
    for (name, _) in versions {
        writeln!(
            source,
            "        let seen = harness::run({name}::parts(), event);
        println!(\"{name} {{event:?}} {{}} {{seen:?}}\", seen.is_closed(event));"
        )
        .unwrap();
    }
    source.push_str("    }\n}\n");
    source
}

/// One line, cut off.
fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(90) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line,
    }
}

#[test]
fn no_part_left_out_of_the_readmes_agent_lets_anybody_in_or_keeps_anybody_there() {
    let sample = sample();
    let compiler = Compiler::of_the_library("readme_agent");
    let deletions = deletions(&sample);
    assert!(deletions.len() >= 25, "{}", deletions.len());
    let versions: Vec<(String, String)> = std::iter::once(("whole".to_owned(), sample.clone()))
        .chain(deletions.iter().enumerate().map(|(index, deletion)| {
            let (before, after) = (&sample[..deletion.range.start], &sample[deletion.range.end..]);
            (format!("without_{index}"), format!("{before}{}{after}", deletion.instead))
        }))
        .collect();

    let check = |(name, sample): &(String, String)| {
        let source = program(&[(name.clone(), sample.clone())]);
        compiler.compile(name, &source, &["--emit=metadata", "--crate-type=bin"]).map(drop)
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let checked: Vec<Result<(), String>> = std::thread::scope(|scope| {
        let share = versions.len().div_ceil(workers);
        let running: Vec<_> = versions
            .chunks(share)
            .map(|share| scope.spawn(move || share.iter().map(check).collect::<Vec<_>>()))
            .collect();
        running.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(checked[0], Ok(()), "the README's agent as it stands");
    let compiled: Vec<(String, String)> = versions
        .iter()
        .zip(&checked)
        .filter(|(_, outcome)| outcome.is_ok())
        .map(|(v, _)| v.clone())
        .collect();

    let source = program(&compiled);
    let binary =
        compiler.compile("all", &source, &["--crate-type=bin"]).unwrap_or_else(|said| panic!("{said}"));
    let ran = Command::new(binary).output().unwrap();
    let printed = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success(), "{printed}\n{}", String::from_utf8_lossy(&ran.stderr));
    let mut runs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in printed.lines().filter(|line| line.starts_with("wit") || line.starts_with("whole")) {
        runs.entry(line.split(' ').next().unwrap()).or_default().push(line);
    }
    for (name, _) in &compiled {
        let lines = &runs[name.as_str()];
        assert_eq!(lines.len(), 8, "{name}");
        for line in lines {
            let mut words = line.split(' ').skip(1);
            let (event, closed) = (words.next().unwrap(), words.next().unwrap());
            let index =
                name.strip_prefix("without_").map(|index| &deletions[index.parse::<usize>().unwrap()]);
            let left_out = index.map(|deletion| &sample[deletion.range.clone()]);
            assert_eq!(closed, "true", "{event}, without {left_out:?}: {line}");
        }
    }
    // The unchanged agent serves its phone until the event, and not after it.
    for line in &runs["whole"] {
        let works = match line.split(' ').nth(1).unwrap() {
            "None" => {
                line.contains("typed: (37, 14)")
                    && line.contains("came_back: true")
                    && line.contains("answered: 1")
            }
            "NeverSettled" => line.contains("came_back: false"),
            _ => !line.contains("typed: (0,") && !line.contains("shown: (0,"),
        };
        assert!(works, "{line}");
    }

    let mut listed = String::new();
    for (deletion, outcome) in deletions.iter().zip(&checked[1..]) {
        let outcome = if outcome.is_ok() { "runs, closed" } else { "does not compile" };
        let text = shortened(&sample[deletion.range.clone()]);
        writeln!(listed, "{outcome:<16} without the {}: {text}", deletion.what).unwrap();
    }
    let path = root().join("tests/readme_agent/outcomes.txt");
    if std::env::var_os("SESSIONCAP_README").is_some() {
        fs::write(&path, &listed).unwrap();
    }
    assert_eq!(listed, fs::read_to_string(path).unwrap_or_default(), "outcomes.txt is not what happens");
}
