//! How a story is told: numbered steps, lines in the terminal's width, and checks of what they show.

use std::cell::Cell;
use std::fmt::Debug;
use std::time::Duration;

use sessioncap::{Link, LinkHost};
use tokio::time::timeout;

use crate::desktop::code::{self, Form, Window};
use crate::problem::{Outcome, Problem};
use crate::terminal::{may_style, print_raw, tell};

/// How long anything may take until the story counts as broken.
const DEADLINE: Duration = Duration::from_secs(20);
/// Columns of the story's text.
pub const WIDTH: usize = 78;

/// Tells a story.
#[derive(Default)]
pub struct Teller {
    step: Cell<u32>,
}

impl Teller {
    /// Begins a numbered step.
    pub fn step(&self, title: &str) {
        let number = self.step.get().saturating_add(1);
        self.step.set(number);
        let title = format!("{number:>2}. {title}");
        match may_style() {
            true => tell(&format!("\n\x1b[1m{title}\x1b[0m")),
            false => tell(&format!("\n{title}")),
        }
    }

    /// Says something, in as many lines as it takes.
    pub fn say(&self, text: &str) {
        let mut line = String::new();
        for word in text.split_inclusive(' ') {
            if line.len() + word.trim_end().len() > WIDTH - 4 && !line.is_empty() {
                tell(&format!("    {}", line.trim_end()));
                line.clear();
            }
            line.push_str(word);
        }
        tell(&format!("    {}", line.trim_end()));
    }

    /// Prints one long word, broken into lines.
    pub fn say_broken(&self, word: &str) {
        for piece in word.as_bytes().chunks(WIDTH - 4) {
            tell(&format!("    {}", String::from_utf8_lossy(piece)));
        }
    }

    /// Shows lines as they are.
    pub fn list(&self, lines: &[String]) {
        for line in lines {
            tell(&format!("    {line}"));
        }
    }

    /// Shows a link as a code and as text.
    pub fn show_link(&self, link: &Link, until: &str) -> Outcome<()> {
        if let Window::Terminal(width, _) = Window::of_stdout() {
            // The story scrolls anyway.
            let (form, window) = (Form::default(), Window::Terminal(width, usize::MAX));
            let page = code::page(link, &LinkHost::Agent, until, &form, window)?;
            let code: String = page.split_inclusive('\n').filter(|line| line.starts_with('\u{1b}')).collect();
            print_raw(code.as_bytes())?;
        }
        // Broken into lines here; `dd_client` prints it in one.
        self.say_broken(&link.to_https(&LinkHost::Agent)?);
        Ok(())
    }
}

/// Stops the story where something is not as it should be.
pub fn check(holds: bool, what: &str) -> Outcome<()> {
    if holds { Ok(()) } else { Err(Problem::Said(format!("it should be that {what}, and it is not"))) }
}

/// The same, with what was seen instead.
pub fn unlike(what: &str, seen: &impl Debug) -> Problem {
    Problem::Said(format!("it should be that {what}, and it is not: {seen:?}"))
}

/// Waits for something, but not for ever.
pub async fn in_time<T>(what: &str, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    timeout(DEADLINE, work).await.unwrap_or_else(|_| Err(Problem::Said(format!("{what} did not happen"))))
}
