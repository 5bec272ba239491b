//! `session log`: audit records as lines for a person.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{Log, Logged};
use crate::terminal::{columns, cut_to, harmless};

const RESTARTED: &str = "the agent was started again";
const MISSING: &str = "records are missing here";
/// Columns of what happened at least, however narrow the window is.
const LEAST: usize = 12;

/// One line for each record, no wider than `width` if there is one.
pub fn lines(log: &Log, all: bool, width: Option<usize>) -> Vec<String> {
    let mut names = Names::default();
    let mut lines = Vec::new();
    if log.earlier {
        lines.push("earlier records are in the agent's audit file".to_owned());
    }
    for Logged { record, restarted, missing } in &log.entries {
        // In the whole log the start is a record of its own.
        marks(*restarted && !all, *missing, &mut lines);
        let time = text(record, "at").replace('T', " ").replace('Z', "");
        let who = names.of(record);
        let room = width.map(|width| width.saturating_sub(time.len() + 2 + columns(&who) + 3).max(LEAST));
        let what = what(record);
        let what = room.map_or(what.clone(), |room| cut_to(&what, room));
        let line = match who.is_empty() {
            true => format!("{time}  {what}"),
            false => format!("{time}  {what} ({who})"),
        };
        lines.push(width.map_or(line.clone(), |width| cut_to(&line, width)));
    }
    marks(log.restarted, log.missing, &mut lines);
    lines
}

/// The records as they are in the file, one on each line.
pub fn json_lines(log: &Log, all: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let marks = |restarted, missing, lines: &mut Vec<String>| {
        if restarted {
            lines.push(json!({ "event": "agent_started_again" }).to_string());
        }
        if missing {
            lines.push(json!({ "event": "records_missing" }).to_string());
        }
    };
    for Logged { record, restarted, missing } in &log.entries {
        marks(*restarted && !all, *missing, &mut lines);
        lines.push(record.to_string());
    }
    marks(log.restarted, log.missing, &mut lines);
    lines
}

fn marks(restarted: bool, missing: bool, lines: &mut Vec<String>) {
    lines.extend(restarted.then(|| format!("  -- {RESTARTED} --")));
    lines.extend(missing.then(|| format!("  -- {MISSING} --")));
}

fn text(record: &Value, key: &str) -> String {
    harmless(record.get(key).and_then(Value::as_str).unwrap_or_default())
}

/// What people call a ticket or credential.
#[derive(Default)]
struct Names(HashMap<String, String>);

impl Names {
    fn of(&mut self, record: &Value) -> String {
        let (ticket, credential) = (text(record, "ticket"), text(record, "credential"));
        let label = text(record, "label");
        let known = self.0.get(&credential).or_else(|| self.0.get(&ticket)).cloned();
        let name = match (text(record, "event").as_str(), known) {
            ("ticket_offered", _) if !label.is_empty() => format!("`{label}`"),
            // The desktop's name, then the phone's own.
            ("ticket_redeemed", Some(known)) if known.starts_with('`') => format!("{known}, `{label}`"),
            ("ticket_redeemed", _) => format!("`{label}`"),
            (_, Some(known)) => known,
            (_, None) => [credential.as_str(), &ticket, &text(record, "issuer")]
                .into_iter()
                .find(|id| !id.is_empty())
                .map(|id| id.chars().take(8).collect())
                .unwrap_or_default(),
        };
        for id in [credential, ticket] {
            if !id.is_empty() {
                self.0.insert(id, name.clone());
            }
        }
        name
    }
}

fn what(record: &Value) -> String {
    let flag = |key: &str| record.get(key).and_then(Value::as_bool).unwrap_or_default();
    let ops = || {
        let ops = record.get("ops").and_then(Value::as_array).into_iter().flatten();
        harmless(&ops.filter_map(Value::as_str).collect::<Vec<_>>().join(", "))
    };
    let why = || match text(record, "why").as_str() {
        "owner" => "by its owner".to_owned(),
        "contest" => "two phones showed one code".to_owned(),
        "session" => "with all of its session".to_owned(),
        "session_end" => "the session has ended".to_owned(),
        "issuer" => "with the desktop that shared it".to_owned(),
        other => other.to_owned(),
    };
    match text(record, "event").as_str() {
        "gate_opened" if flag("discarded") => "the agent was started with another key; all is new".to_owned(),
        "gate_opened" => "the agent was started".to_owned(),
        "clock_reset" => "the clock was reset; everything shared is gone".to_owned(),
        "issuer_registered" => "a desktop registered its key".to_owned(),
        "issuer_revoked" => "a desktop's key was revoked".to_owned(),
        "ticket_offered" => format!("code offered: {}", ops()),
        "ticket_redeemed" if flag("pending") => "code redeemed; waits to be confirmed".to_owned(),
        "ticket_redeemed" => "code redeemed".to_owned(),
        "ticket_contested" => "a second phone showed the code; both are out".to_owned(),
        "ticket_revoked" => format!("code revoked: {}", why()),
        "ticket_expired" => "code ran out unused".to_owned(),
        "credential_confirmed" => "confirmed by the desktop".to_owned(),
        "phone_attached" => format!("attached: {}", ops()),
        "credential_renewed" => {
            let waits = if flag("waiting") { " once the phone comes back" } else { "" };
            format!("renewed{waits}: {} until {}", ops(), text(record, "expires_at"))
        }
        "renewal_used" => "took its renewed credential".to_owned(),
        "credential_revoked" => format!("revoked: {}", why()),
        "credential_expired" => "ran out".to_owned(),
        "session_closed" => format!("closed: {}", why()),
        other => other.replace('_', " "),
    }
}
