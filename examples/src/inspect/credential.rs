//! `inspect credential`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::str::{self, FromStr};

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use sessioncap::agent::{Denial, Policy, RequestFacts};
use sessioncap::{
    Action, AgentPublicKey, AgentUrl, Credential, CredentialBytes, Error, HolderPublicKey, IssuerPublicKey,
    OpSet, SessionId, Timestamp,
};
use time::UtcOffset;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{Failure, Report, read_stdin};
use crate::clock::Clock;
use crate::files;

#[derive(Args)]
pub(super) struct Arguments {
    /// The credential in base64url, a file with it, a phone's state file, or `-` for standard input.
    #[arg(value_name = "TEXT|FILE|-")]
    credential: String,
    /// The public key of the issuer that should have signed it, 64 hexadecimal digits.
    #[arg(long, value_name = "KEY")]
    issuer: Option<IssuerPublicKey>,
    /// Decide these operations or privileges, separated by commas, with the agent's policy.
    #[arg(long, value_name = "OP[,OP]", value_parser = parse_actions, requires = "issuer", requires = "at")]
    decide: Option<Actions>,
    /// When: `2026-05-28T20:26:40Z`, or `now`.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<Timestamp>,
    /// About which session; without it, the credential's own.
    #[arg(long, value_name = "ID", requires = "decide")]
    session: Option<SessionId>,
    /// At which agent; without it, the credential's own.
    #[arg(long, value_name = "KEY@URL", value_parser = parse_agent, requires = "decide")]
    agent: Option<(AgentPublicKey, AgentUrl)>,
    /// From which phone, by its public key; without it, the credential's own.
    #[arg(long, value_name = "KEY", requires = "decide")]
    holder: Option<HolderPublicKey>,
    /// The session's present epoch; without it, the credential's own.
    #[arg(long, value_name = "N", requires = "decide")]
    epoch: Option<u64>,
    /// The operator's rules, as the agent has them.
    #[arg(long, value_name = "FILE", requires = "decide")]
    rules: Option<PathBuf>,
    /// The offset from UTC, in minutes, at which the rules read the clock.
    #[arg(long, value_name = "MINUTES", default_value_t = 0, allow_hyphen_values = true, requires = "rules")]
    utc_offset: i32,
}

#[derive(Clone)]
struct Actions(Vec<Action>);

fn parse_actions(text: &str) -> Result<Actions, Error> {
    let mut actions = Vec::new();
    for name in text.split(',') {
        match (name.parse::<OpSet>(), name.parse()) {
            (Ok(ops), _) => actions.extend(ops.iter().map(Action::Session)),
            (_, Ok(privilege)) => actions.push(Action::Privileged(privilege)),
            (Err(error), _) => return Err(error),
        }
    }
    Ok(Actions(actions))
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    match text {
        "now" => Ok(Clock::system().map_err(|problem| problem.to_string())?.now().timestamp()),
        text => Timestamp::from_str(text).map_err(|error| error.to_string()),
    }
}

fn parse_agent(text: &str) -> Result<(AgentPublicKey, AgentUrl), String> {
    let (key, url) = text.split_once('@').ok_or("write the agent's key, `@`, and its address")?;
    let key = key.parse().map_err(|error: Error| error.to_string())?;
    Ok((key, url.parse().map_err(|error: Error| error.to_string())?))
}

/// The only field of a phone's state file that is looked at: its key stays unread.
#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
struct Kept {
    credential: Option<String>,
}

pub(super) fn explain(arguments: Arguments) -> Result<Report, Failure> {
    let bytes = read(&arguments.credential)?;
    let credential = Credential::parse(&bytes).map_err(|error| Failure::damaged(error.code(), error))?;
    let verified = arguments.issuer.as_ref().map(|issuer| credential.check_signatures(issuer).is_ok());
    let mut text = String::new();
    let mut json = describe(&credential, verified, &mut text);
    let mut good = verified != Some(false);
    if let (Some(actions), Some(issuer), Some(at)) = (&arguments.decide, &arguments.issuer, arguments.at) {
        let decided = decide(&credential, issuer, at, actions, &arguments, &mut text)?;
        good &= decided.iter().all(|decision| decision["allowed"] == true);
        json["decisions"] = Value::Array(decided);
        json["record"] = json!("assumed live");
    }
    Ok(Report { text, json, good })
}

/// Writing into a string cannot fail.
macro_rules! line {
    ($text:expr, $($what:tt)+) => {
        let _ = writeln!($text, $($what)+);
    };
}

fn describe(credential: &Credential, verified: Option<bool>, text: &mut String) -> Value {
    let scope = credential.scope();
    let ops: Vec<_> = scope.ops().iter().collect();
    line!(text, "{credential}");
    line!(text, "  bound     to the phone above");
    line!(text, "  edition   {}", credential.edition());
    let mut blocks: Vec<Value> = Vec::new();
    for (block, caveat) in credential.caveats() {
        if block >= blocks.len() {
            let by = match block {
                0 => "desktop",
                1 => "agent",
                _ => "holder",
            };
            line!(text, "  block {block}, by the {by}");
            blocks.push(json!({ "block": block, "by": by, "caveats": [] }));
        }
        line!(text, "    {:<10}  {caveat}", caveat.name());
        let caveat = json!({ "name": caveat.name(), "detail": caveat.to_string() });
        if let Some(caveats) = blocks.last_mut().and_then(|block| block["caveats"].as_array_mut()) {
            caveats.push(caveat);
        }
    }
    match verified {
        Some(true) => line_of(text, "signatures  right, beginning with the issuer's"),
        Some(false) => line_of(text, "signatures  WRONG for this issuer"),
        None => line_of(text, "signatures  not checked; --issuer KEY checks them"),
    }
    line_of(text, "whether it was revoked or renewed, only the agent's ledger knows");
    json!({
        "credential": credential.id(),
        "ticket": credential.ticket(),
        "session": credential.session(),
        "edition": credential.edition(),
        "bound": true,
        "holder": scope.holder(),
        "sealed": credential.is_sealed(),
        "narrowed": credential.attenuations(),
        "length": credential.bytes().as_bytes().len(),
        "blocks": blocks,
        "scope": {
            "ops": ops,
            "expires_at": scope.expires_at(),
            "agent_key": scope.agent().map(|(key, _)| key),
            "agent_url": scope.agent().map(|(_, url)| url),
            "session": scope.session(),
        },
        "signatures": match verified { Some(true) => "right", Some(false) => "wrong", None => "not checked" },
    })
}

fn line_of(text: &mut String, line: &str) {
    line!(text, "  {line}");
}

fn decide(
    credential: &Credential,
    issuer: &IssuerPublicKey,
    at: Timestamp,
    actions: &Actions,
    arguments: &Arguments,
    text: &mut String,
) -> Result<Vec<Value>, Failure> {
    let policy = match &arguments.rules {
        None => Policy::new(),
        Some(file) => {
            let rules = std::fs::read_to_string(file);
            let rules = rules.map_err(|error| {
                Failure::not_looked(
                    "rules",
                    format!("the rules in {} cannot be read: {error}", file.display()),
                )
            })?;
            let offset = arguments.utc_offset.saturating_mul(60);
            let offset = UtcOffset::from_whole_seconds(offset);
            let offset =
                offset.map_err(|_| Failure::not_looked("utc_offset", "an offset is less than a day"))?;
            Policy::with_operator_rules(&rules, offset)
                .map_err(|error| Failure::not_looked(error.code(), error))?
        }
    };
    let mut facts = RequestFacts::of(credential, at);
    if let Some((key, url)) = &arguments.agent {
        facts.agent = *key;
        facts.urls = vec![url.clone()];
    }
    if let Some(session) = &arguments.session {
        facts.session = session.clone();
    }
    facts.holder = arguments.holder.unwrap_or(facts.holder);
    facts.epoch = arguments.epoch.unwrap_or(facts.epoch);
    let urls: Vec<_> = facts.urls.iter().map(ToString::to_string).collect();
    line!(text, "at {} the agent's policy decides, if the ledger's record of it is live,", facts.time);
    line!(text, "  at agent {} at {}", facts.agent, urls.join(", "));
    line!(text, "  from phone {}", facts.holder);
    line!(text, "  about session {} in epoch {}", facts.session, facts.epoch);
    let mut decisions = Vec::new();
    for action in &actions.0 {
        let reasons = policy.decide_with_facts(credential, issuer, &facts, *action).err().unwrap_or_default();
        let allowed = reasons.is_empty();
        line!(text, "  {action}: {}", if allowed { "allowed" } else { "refused" });
        for reason in &reasons {
            line!(text, "    {reason} ({})", reason.code());
        }
        let reasons: Vec<_> = reasons.iter().map(reason_object).collect();
        decisions.push(json!({ "action": action.to_string(), "allowed": allowed, "reasons": reasons }));
    }
    Ok(decisions)
}

fn reason_object(denial: &Denial) -> Value {
    let mut object = json!({ "code": denial.code(), "detail": denial.to_string() });
    match denial {
        Denial::CaveatFailed { block, caveat } => {
            object["block"] = json!(block);
            object["caveat"] = json!(caveat.name());
        }
        Denial::OperatorRule { rule } => object["rule"] = json!(rule),
        _ => {}
    }
    object
}

/// A text, a file or standard input. What cannot be read is not repeated: it may be a secret.
fn read(argument: &str) -> Result<CredentialBytes, Failure> {
    if argument == "-" {
        return of_content(&read_stdin()?);
    }
    match files::read_private(Path::new(argument)) {
        Ok(Some(content)) => of_content(&content),
        Ok(None) => of_text(argument),
        // A text may be longer than a file's name can be.
        Err(problem) => of_text(argument).map_err(|failure| match Path::new(argument).exists() {
            true => Failure::not_looked("file", problem),
            false => failure,
        }),
    }
}

fn of_content(content: &[u8]) -> Result<CredentialBytes, Failure> {
    let Ok(text) = str::from_utf8(content) else {
        let bytes = Zeroizing::new(content.to_vec());
        return CredentialBytes::new(bytes.to_vec()).map_err(|error| Failure::damaged(error.code(), error));
    };
    let text = text.trim();
    if !text.starts_with('{') {
        return of_text(text);
    }
    let kept: Kept = serde_json::from_str(text)
        .map_err(|_| Failure::damaged("state_file", "the file is not a phone's state file"))?;
    match &kept.credential {
        Some(credential) => of_text(credential),
        None => Err(Failure::damaged("not_redeemed", "the phone has not redeemed its link yet")),
    }
}

fn of_text(text: &str) -> Result<CredentialBytes, Failure> {
    text.parse().map_err(|error: Error| Failure::damaged(error.code(), error))
}
