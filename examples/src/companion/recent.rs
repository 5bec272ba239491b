//! Several pairings, each under a name in one directory: `--name NAME`, `list`, `forget NAME`.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sessioncap::Credential;

use super::state::Pairing;
use crate::files::make_private_directory;
use crate::problem::{Outcome, Problem, While};

/// The end of a pairing's file.
pub const SUFFIX: &str = "json";

/// Where named pairings are.
pub fn directory() -> Outcome<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    state
        .map(|state| state.join("sessioncap-companion"))
        .ok_or_else(|| Problem::said("name a file with --state: this user has no home"))
}

/// Reads a name: it becomes that of a file.
///
/// # Errors
/// A sentence, for anything but 1 to 64 letters, digits, `-` and `_`.
pub fn parse_name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match (1..=64).contains(&text.len()) && text.chars().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err("a name has 1 to 64 letters, digits, `-` and `_`".to_owned()),
    }
}

/// The file of a name, in a directory that is made if it is missing.
pub fn file(directory: &Path, name: &str) -> Outcome<PathBuf> {
    make_private_directory(directory)?;
    Ok(directory.join(name).with_extension(SUFFIX))
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recent {
    /// Its name.
    pub name: String,
    /// What is known of it, or why it cannot be read.
    pub about: String,
}

/// The pairings in a directory, the latest first.
pub fn list(directory: &Path) -> Outcome<Vec<Recent>> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let doing = format!("{} cannot be read", directory.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).during(&doing)? {
        let path = entry.during(&doing)?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).map(str::to_owned);
        let (Some(name), true) = (name, path.extension().is_some_and(|end| end == SUFFIX)) else { continue };
        if parse_name(&name).is_err() {
            continue;
        }
        let changed = path.metadata().and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        found.push((changed, Recent { name, about: about(&path) }));
    }
    found.sort_by(|(one, _), (other, _)| other.cmp(one));
    Ok(found.into_iter().map(|(_, recent)| recent).collect())
}

/// The pairing in a file outside the directory; `None` if there is none.
pub fn of_file(directory: &Path, file: &Path) -> Option<Recent> {
    (file.exists() && file.parent() != Some(directory))
        .then(|| Recent { name: file.display().to_string(), about: about(file) })
}

/// One that cannot be read is said, and hides no other.
fn about(path: &Path) -> String {
    match Pairing::open(path) {
        Ok(pairing) => describe(&pairing),
        Err(problem) => problem.to_string(),
    }
}

fn describe(pairing: &Pairing) -> String {
    let host = pairing.url.host();
    let (Some(session), Some(credential)) = (&pairing.session, &pairing.credential) else {
        return format!("{host}, not joined yet");
    };
    match Credential::parse(credential).map(|credential| credential.scope().expires_at()) {
        Ok(Some(end)) => format!("{session} at {host}, until {end}"),
        Ok(None) | Err(_) => format!("{session} at {host}"),
    }
}

/// Forgets a pairing. The agent keeps its record of it until its end, or until its owner revokes it.
pub fn forget(path: &Path) -> Outcome<()> {
    std::fs::remove_file(path).during(format_args!("{} cannot be forgotten", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use sessioncap::{AgentSecretKey, AgentUrl, Link, TicketSecret};

    use super::*;

    fn directory_of(test: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("sessioncap-recent-{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        directory
    }

    fn pairing() -> Pairing {
        let url = AgentUrl::parse("ws://127.0.0.1:7").unwrap();
        let agent = AgentSecretKey::from_bytes([1; 32]).public();
        let link = Link::new(url, agent, TicketSecret::from_bytes([3; 16]));
        Pairing::begin(&link, link.ticket().public_key().id())
    }

    #[test]
    fn pairings_are_listed_by_name_and_forgotten_one_by_one() {
        let directory = directory_of("list");
        assert_eq!(list(&directory).unwrap(), []);
        for name in ["kitchen", "work"] {
            pairing().save(&file(&directory, name).unwrap()).unwrap();
        }
        assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::write(directory.join("damaged.json"), "{").unwrap();
        std::fs::write(directory.join("notes.txt"), "not a pairing").unwrap();
        let mut names: Vec<String> =
            list(&directory).unwrap().into_iter().map(|recent| recent.name).collect();
        names.sort();
        assert_eq!(names, ["damaged", "kitchen", "work"]);
        let about = |name: &str| {
            list(&directory)
                .unwrap()
                .into_iter()
                .find(|recent| recent.name == name)
                .map(|recent| recent.about)
        };
        assert_eq!(about("kitchen").unwrap(), "127.0.0.1, not joined yet");
        assert!(about("damaged").unwrap().contains("damaged.json"));
        forget(&directory.join("kitchen.json")).unwrap();
        assert_eq!(about("kitchen"), None);
        assert!(forget(&directory.join("kitchen.json")).is_err() && about("work").is_some());
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_name_leaves_its_directory_nowhere() {
        for name in ["", "..", "a/b", "a.json", "é", &"a".repeat(65)] {
            assert!(parse_name(name).is_err(), "{name}");
        }
        assert_eq!(parse_name("my-phone_2"), Ok("my-phone_2".to_owned()));
    }
}
