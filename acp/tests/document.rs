//! The tests that `docs/ACP_BRIDGE.md` names exist, its numbers are those of the code, and no file is too long.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../../tests/common/documents.rs"]
mod documents;

use std::path::Path;
use std::time::Duration;

use documents::{quoted, sources, tests};
use sessioncap_acp::mux::{Mux, Settings};
use sessioncap_acp::process::Agent;

const MOST_CODE_LINES: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn document() -> String {
    std::fs::read_to_string(root().join("../docs/ACP_BRIDGE.md")).unwrap()
}

#[test]
fn every_row_of_the_document_names_tests_that_exist() {
    let tests = tests(root(), &["src", "tests"]);
    let document = document();
    let table = document.split("| what goes wrong |").nth(1).unwrap();
    let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with("| ")).collect();
    assert!(rows.len() > 15);
    for row in rows {
        let last = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap();
        let names = quoted(last);
        assert!(!names.is_empty(), "{row}");
        for name in names {
            assert!(tests.contains(name), "no such test: {name}");
        }
    }
}

#[test]
fn the_numbers_in_the_document_are_those_of_the_code() {
    let settings = Settings::default();
    let said = [
        (Agent::MAX_LINE, 8 << 20, "at most 8 MiB"),
        (Agent::MAX_LOG_LINE, 4 << 10, "at most 4 KiB"),
        (Agent::INPUT_ROOM, 16 << 20, "more than 16 MiB"),
        (Mux::MAX_TRANSCRIPT, 4 << 20, "about 4 MiB"),
        (Mux::MAX_EARLY, 1 << 20, "up to 1 MiB"),
        (Mux::MAX_WAITING_OF_ONE, 4, "four of a viewer"),
        (Mux::MAX_WAITING, 16, "sixteen in all"),
        (Mux::MAX_SESSIONS, 64, "64 sessions"),
        (Mux::MAX_OPEN, 64, "64 open requests of a viewer"),
        (Mux::MAX_UPSTREAM, 1024, "1,024 requests"),
        (Mux::MAX_QUESTIONS, 32, "32 open requests of the agent"),
    ];
    let times = [
        (Agent::GRACE, 1, "after 1 s SIGTERM"),
        (Agent::TERM, 2, "after 2 s more SIGKILL"),
        (Mux::SEEN, 1, "in view for one second"),
        (settings.settle, 30, "after 30 s"),
        (settings.unattended, 120, "waits for two minutes"),
    ];
    let codes = [
        (Mux::AGENT_GONE, "−32060"),
        (Mux::SESSION_BUSY, "−32061"),
        (Mux::TOO_MANY, "−32062"),
        (Mux::NOBODY_THERE, "−32063"),
        (Mux::CANCELLED, "−32800"),
    ];
    let document = document();
    for (is, expected, words) in said {
        assert_eq!(is, expected, "{words}");
        assert!(document.contains(words), "{words}");
    }
    for (is, expected, words) in times {
        assert_eq!(is, Duration::from_secs(expected), "{words}");
        assert!(document.contains(words), "{words}");
    }
    for (code, words) in codes {
        assert_eq!(code.to_string().replace('-', "−"), words);
        assert!(document.contains(words), "{words}");
    }
}

#[test]
fn no_file_has_more_than_five_hundred_lines_of_code() {
    let mut files = Vec::new();
    ["src", "examples"].iter().for_each(|directory| sources(&root().join(directory), &mut files));
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
        let count = code.take_while(|line| *line != "#[cfg(test)]").count();
        assert!(count <= MOST_CODE_LINES, "{}: {count}", file.display());
    }
}
