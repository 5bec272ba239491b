//! The diagrams of `docs/PICTURES.md`: the states are those of a listing, the transitions those that
//! `docs/REVOCATION.md` has with their tests, and the drawings can be shown and say what the text says.
#![cfg(any(feature = "issuer", feature = "agent"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use resvg::usvg;
use sessioncap::pair::StateKind;

/// What the text calls the state before an offer and after a record was forgotten.
const NONE: &str = "[*]";

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The lines of the diagram of a kind.
fn diagram(kind: &str) -> Vec<String> {
    let document = read("docs/PICTURES.md");
    let start = format!("```mermaid\n{kind}\n");
    let (_, rest) = document.split_once(&start).unwrap_or_else(|| panic!("no {kind}"));
    let (lines, _) = rest.split_once("```").unwrap();
    lines.lines().map(|line| line.trim().to_owned()).collect()
}

/// From, to, and why.
fn transitions() -> Vec<(String, String, String)> {
    let transition = |line: &String| {
        let (from, rest) = line.split_once(" --> ").unwrap();
        let (to, why) = rest.split_once(": ").unwrap();
        (from.to_owned(), to.to_owned(), why.to_owned())
    };
    diagram("stateDiagram-v2").iter().map(transition).collect()
}

fn states() -> BTreeSet<String> {
    let ends = transitions().into_iter().flat_map(|(from, to, _)| [from, to]);
    ends.filter(|state| state != NONE).collect()
}

#[test]
fn the_states_are_those_of_a_listing() {
    let kinds = ["open", "pending", "active", "revoked", "expired"];
    for state in states() {
        let kind: Result<StateKind, _> = serde_json::from_value(state.clone().into());
        assert!(kind.is_ok(), "no state `{state}` in a listing");
    }
    assert_eq!(states(), kinds.map(str::to_owned).into());
    // The list above is complete: the enumeration has as many.
    let source = read("src/pair.rs");
    let (_, listing) = source.split_once("pub enum ListingState {").unwrap();
    let (variants, _) = listing.split_once("\n}").unwrap();
    let is_variant = |line: &&str| line.starts_with("    ") && line.trim().starts_with(char::is_uppercase);
    let named: Vec<String> = variants
        .lines()
        .filter(is_variant)
        .map(|line| line.trim().trim_end_matches([',', '{', ' ']).to_lowercase())
        .collect();
    assert_eq!(named.into_iter().collect::<BTreeSet<_>>(), states());
}

/// The states of the diagram that a cell of a table names.
fn named_in(cell: &str) -> Vec<String> {
    // After these words, another ticket or credential is meant, or every state but the one.
    let own = cell.split("another").next().unwrap().split("any but").next().unwrap();
    let words: BTreeSet<&str> = own.split(|c: char| !c.is_alphanumeric()).collect();
    let mut named: Vec<String> =
        states().into_iter().filter(|state| words.contains(state.as_str())).collect();
    if words.contains("none") {
        named.push(NONE.to_owned());
    }
    named
}

/// From and to of each row of the two tables of states.
fn documented() -> BTreeSet<(String, String)> {
    let document = read("docs/REVOCATION.md");
    let mut found = BTreeSet::new();
    for title in ["## States of a ticket", "## States of a credential"] {
        let (_, section) = document.split_once(&format!("{title}\n")).unwrap();
        let (section, _) = section.split_once("\n## ").unwrap_or((section, ""));
        for row in section.lines().filter(|line| line.starts_with("| ")).skip(1) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            for from in named_in(cells[1]) {
                found.extend(named_in(cells[3]).into_iter().map(|to| (from.clone(), to)));
            }
        }
    }
    found
}

#[test]
fn the_transitions_are_those_of_the_document_on_revocation() {
    let drawn: BTreeSet<(String, String)> =
        transitions().into_iter().map(|(from, to, _)| (from, to)).collect();
    let documented = documented();
    assert!(documented.len() > 8, "{documented:?}");
    let only_drawn: Vec<_> = drawn.difference(&documented).collect();
    assert!(only_drawn.is_empty(), "no row for {only_drawn:?}");
    let changes = documented.iter().filter(|(from, to)| from != to);
    let not_drawn: Vec<_> = changes.filter(|change| !drawn.contains(*change)).collect();
    assert!(not_drawn.is_empty(), "the diagram lacks {not_drawn:?}");
}

/// The texts of a drawing, lines of one label joined.
fn words(svg: &str) -> String {
    let texts = svg.split("<text").skip(1).map(|rest| rest.split_once('>').unwrap().1);
    let texts: Vec<&str> = texts.map(|text| text.split("</text>").next().unwrap()).collect();
    texts.join(" ").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

#[test]
fn each_drawing_can_be_shown_and_has_the_words_of_its_text() {
    let labels = |kind: &str| -> Vec<String> {
        let label = |line: &String| line.split_once(": ").map(|(_, label)| label.to_owned());
        diagram(kind).iter().filter_map(label).collect()
    };
    for (name, kind) in [("pairing", "sequenceDiagram"), ("states", "stateDiagram-v2")] {
        let svg = read(&format!("docs/pictures/{name}.svg"));
        let tree = usvg::Tree::from_str(&svg, &usvg::Options::default()).unwrap();
        assert!(tree.root().has_children(), "{name}");
        for label in labels(kind) {
            assert!(words(&svg).contains(&label), "{name} lacks `{label}`");
        }
    }
    // The recording shows the link and its code as the program printed them.
    let recording = read("docs/pictures/pair_mobile.svg");
    let tree = usvg::Tree::from_str(&recording, &usvg::Options::default()).unwrap();
    assert!(tree.root().children().len() > 200, "no QR code");
    assert!(words(&recording).contains("/P#"), "no link");
}
