//! Where the processes of the tests wait, for the message of a test that has waited for too long.

use std::fs;
use std::path::Path;

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().replace('\0', " ")
}

/// A line for each thread of each child process: its program, its state and where in the system it waits.
pub fn of_children() -> String {
    let own = format!("PPid:\t{}\n", std::process::id());
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let children = entries(Path::new("/proc")).filter(|process| text(&process.join("status")).contains(&own));
    let threads = children.flat_map(|process| {
        let command = text(&process.join("cmdline"));
        entries(&process.join("task")).map(move |thread| {
            let stat = text(&thread.join("stat"));
            let state = stat.rsplit(')').next().unwrap_or_default().trim().chars().next().unwrap_or('?');
            format!("{command}: {state} {} {}", text(&thread.join("wchan")), text(&thread.join("syscall")))
        })
    });
    threads.collect::<Vec<_>>().join("\n")
}
