//! The table.

use crate::sample::Compared;

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
    over: usize,
}

impl Report {
    pub fn section(&mut self, title: &str) {
        eprintln!("measuring: {title}");
        self.rows.push([format!("**{title}**"), String::new(), String::new(), String::new(), String::new()]);
    }

    /// A comparison with its times.
    pub fn compared(&mut self, row: &str, compared: Compared, budget: Budget) {
        let [low, median, high] = compared.ratio;
        self.row(row, format!("{median:.3}"), format!("{low:.3} to {high:.3}"), median, budget);
        self.times.push([row.to_owned(), nanoseconds(compared.ours), nanoseconds(compared.peer)]);
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
        self.rows.push([row.to_owned(), value, spread, budget, verdict.to_owned()]);
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
