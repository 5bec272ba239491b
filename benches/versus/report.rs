//! The table.

use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::sample::Compared;

/// Where the rows are kept for programs.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/versus.json");

/// What a row may cost.
#[derive(Debug, Clone, Copy)]
pub enum Budget {
    AtMost(f64),
    AtLeast(f64),
    /// Printed because a reader would ask, held to nothing.
    Information,
}

#[derive(Default)]
pub struct Report {
    rows: Vec<[String; 5]>,
    times: Vec<[String; 3]>,
    /// The rows of each section, for programs.
    sections: Vec<(String, Vec<Value>)>,
    over: usize,
}

impl Report {
    pub fn section(&mut self, title: &str) {
        eprintln!("measuring: {title}");
        // Rows of one section can be measured between those of another.
        let at = self.sections.iter().position(|(known, _)| known == title);
        let section = at.map_or_else(|| (title.to_owned(), Vec::new()), |at| self.sections.remove(at));
        self.sections.push(section);
        self.rows.push([format!("**{title}**"), String::new(), String::new(), String::new(), String::new()]);
    }

    /// A comparison with its times.
    pub fn compared(&mut self, row: &str, compared: Compared, budget: Budget) {
        let [low, median, high] = compared.ratio;
        self.row(row, format!("{median:.3}"), format!("{low:.3} to {high:.3}"), median, budget);
        self.add([("low", json!(low)), ("high", json!(high))]);
        self.add([("ours", json!(compared.ours)), ("peer", json!(compared.peer))]);
        self.times.push([row.to_owned(), nanoseconds(compared.ours), nanoseconds(compared.peer)]);
    }

    /// A comparison that is a point of a curve: one of a series, at so many of something.
    pub fn point(&mut self, series: &str, at: usize, of: &str, compared: Compared, budget: Budget) {
        self.compared(&format!("{series}, {at} {of}"), compared, budget);
        self.add([("series", json!(series)), ("at", json!(at))]);
    }

    /// A figure that is no ratio.
    pub fn figure(&mut self, row: &str, value: f64, budget: Budget) {
        self.row(row, format!("{value:.0}"), String::from("-"), value, budget);
    }

    /// A ratio of two figures that were counted.
    pub fn ratio(&mut self, row: &str, ratio: f64, budget: Budget) {
        self.row(row, format!("{ratio:.3}"), String::from("-"), ratio, budget);
    }

    fn row(&mut self, row: &str, value: String, spread: String, number: f64, budget: Budget) {
        let (budget, verdict) = match budget {
            Budget::AtMost(most) => (format!("<= {most}"), self.verdict(number <= most)),
            Budget::AtLeast(least) => (format!(">= {least}"), self.verdict(number >= least)),
            Budget::Information => (String::from("-"), "-"),
        };
        eprintln!("  {row}: {value} ({spread}), budget {budget}: {verdict}");
        if let Some((_, rows)) = self.sections.last_mut() {
            rows.push(json!({ "row": row, "value": number, "budget": budget, "over": verdict == "OVER" }));
        }
        self.rows.push([row.to_owned(), value, spread, budget, verdict.to_owned()]);
    }

    /// Says more of the row that was added last.
    fn add<const N: usize>(&mut self, members: [(&str, Value); N]) {
        let row = self.sections.last_mut().and_then(|(_, rows)| rows.last_mut());
        let object = row.and_then(Value::as_object_mut).unwrap();
        object.extend(members.map(|(name, value)| (name.to_owned(), value)));
    }

    /// Writes the rows into the file, in place of those of the same sections that an earlier run has left there.
    pub fn save(&self) {
        let before = std::fs::read(FILE).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let mut sections: Vec<Value> =
            before.and_then(|file| file["sections"].as_array().cloned()).unwrap_or_default();
        let machine = machine();
        for (title, rows) in &self.sections {
            let mut section = machine.clone();
            section.extend([("title".to_owned(), json!(title)), ("rows".to_owned(), json!(rows))]);
            match sections.iter_mut().find(|known| known["title"] == **title) {
                Some(known) => *known = section.into(),
                None => sections.push(section.into()),
            }
        }
        std::fs::create_dir_all(Path::new(FILE).parent().unwrap()).unwrap();
        let text = serde_json::to_string_pretty(&json!({ "sections": sections })).unwrap();
        std::fs::write(FILE, text + "\n").unwrap();
    }

    fn verdict(&mut self, kept: bool) -> &'static str {
        self.over += usize::from(!kept);
        if kept { "ok" } else { "OVER" }
    }

    pub fn print(&self, with_times: bool) {
        println!();
        table(["row", "ours / peer", "quartiles", "budget", ""], &self.rows);
        println!("\n{} over budget", self.over);
        if with_times {
            println!();
            table(["row", "ours", "peer"], &self.times);
        }
    }
}

/// The compiler and the machine of the figures.
fn machine() -> Map<String, Value> {
    let rustc = Command::new("rustc").arg("--version").output().ok();
    let rustc = rustc.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let members = [
        ("rustc", json!(rustc.trim())),
        ("processor", json!(name.trim_start_matches(['\t', ' ', ':']))),
        ("cores", json!(cores)),
        ("profile", json!(if cfg!(debug_assertions) { "with debug assertions" } else { "release" })),
    ];
    members.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
}

fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) {
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = core::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let cells: Vec<_> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("| {} |", cells.join(" | "));
    };
    line(head);
    let rules: [String; N] = widths.map(|width| "-".repeat(width));
    line(rules.each_ref().map(String::as_str));
    for row in rows {
        line(row.each_ref().map(String::as_str));
    }
}

fn nanoseconds(value: f64) -> String {
    match value {
        value if value < 1e3 => format!("{value:.1} ns"),
        value if value < 1e6 => format!("{:.1} us", value / 1e3),
        value => format!("{:.2} ms", value / 1e6),
    }
}
