//! The desktop client's command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};
use sessioncap::{AgentPublicKey, AgentUrl, Confirmation, Label, LinkHost, OpSet, PairingTerms, SessionId};

use super::pair_mobile::{self, Show};
use super::profile::{Profile, default_directory};
use super::{Desktop, Entry, Identity, State, attach};
use crate::programs::problem::{Outcome, Problem};
use crate::programs::terminal::{harmless, parse_duration, print_raw};

/// A desktop client: starts sessions at an agent, and shares one of them with a phone.
#[derive(Parser)]
#[command(name = "dd_client")]
pub struct Arguments {
    /// The directory of the keys and of `agent.json`.
    #[arg(long, global = true, value_name = "DIR")]
    profile: Option<PathBuf>,
    /// The agent's address.
    #[arg(long, global = true, value_name = "URL")]
    agent: Option<AgentUrl>,
    /// The agent's public key.
    #[arg(long, global = true, value_name = "HEX")]
    agent_key: Option<AgentPublicKey>,
    /// The device key's file, instead of the profile's.
    #[arg(long, global = true, value_name = "FILE")]
    key: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the keys that are not there yet, and print the device's public key. With --agent and
    /// --agent-key, remember the agent.
    Keygen,
    /// Work with sessions.
    #[command(subcommand)]
    Session(SessionCommand),
}

#[derive(Subcommand)]
enum SessionCommand {
    /// Start a session, and print its id.
    Create {
        /// A name for it.
        #[arg(long)]
        name: Option<String>,
        /// What to run in it; without, the user's shell.
        command: Option<String>,
    },
    /// List the sessions.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show a session in this terminal. Ctrl-] leaves it.
    Attach {
        /// The session.
        id: SessionId,
    },
    /// End a session.
    Close {
        /// The session.
        id: SessionId,
    },
    /// Hand a phone this one session: show a link and QR code, and wait for it.
    PairMobile(PairMobile),
    /// List what was shared.
    Grants {
        /// Only of this session.
        id: Option<SessionId>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take back what was shared. Whoever uses it is cut off at once.
    Revoke(Revoke),
}

#[derive(Args)]
struct PairMobile {
    /// The session.
    id: SessionId,
    /// What the phone may do, names separated by commas; `companion` stands for the default.
    #[arg(long, default_value = "companion")]
    ops: OpSet,
    /// How long the code can be redeemed.
    #[arg(long, default_value = "5m", value_parser = parse_duration)]
    ttl: u64,
    /// How long the phone may stay.
    #[arg(long, default_value = "12h", value_parser = parse_duration)]
    expires: u64,
    /// A name for the list.
    #[arg(long, default_value = "", value_parser = parse_label)]
    label: Label,
    /// Compare six digits before the phone is let in.
    #[arg(long)]
    confirm: bool,
    /// Print JSON, one object for each thing that happens. The link in it is a secret.
    #[arg(long)]
    json: bool,
    /// The host that carries the link, instead of the agent's own.
    #[arg(long, value_name = "HOST")]
    link_host: Option<String>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Revoke {
    /// A ticket or credential: its id, or the beginning of it.
    id: Option<String>,
    /// Everything of a session.
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
    /// Everything that an issuer key signed; without a key, this profile's.
    #[arg(long, value_name = "HEX", num_args = 0..=1, default_missing_value = "")]
    issuer: Option<String>,
    /// Everything that a device shared; without a key, this one.
    #[arg(long, value_name = "HEX", num_args = 0..=1, default_missing_value = "")]
    device: Option<String>,
}

fn parse_label(text: &str) -> Result<Label, sessioncap::Error> {
    Label::new(text)
}

/// Runs one command.
pub async fn run(arguments: Arguments) -> Outcome<ExitCode> {
    let profile = Profile {
        directory: arguments.profile.map_or_else(default_directory, Ok)?,
        url: arguments.agent,
        agent: arguments.agent_key,
        device_key: arguments.key,
    };
    let command = match arguments.command {
        Command::Keygen => {
            let key = profile.make()?;
            print_raw(format!("{}\n", key.public()).as_bytes())?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Session(command) => command,
    };
    let identity = profile.open()?;
    match command {
        SessionCommand::Attach { id } => attach::run(&identity, &id).await?,
        SessionCommand::PairMobile(pairing) => {
            let terms = PairingTerms::default()
                .with_ops(pairing.ops)?
                .with_ticket_lifetime(pairing.ttl)?
                .valid_for(pairing.expires)?
                .with_label(pairing.label)
                .with_confirmation(match pairing.confirm {
                    true => Confirmation::Required,
                    false => Confirmation::NotRequired,
                });
            let host = pairing.link_host.map_or(LinkHost::Agent, LinkHost::Fixed);
            let show = if pairing.json { Show::Json } else { Show::Text };
            let mut desktop = Desktop::connect(&identity).await?;
            return pair_mobile::run(&mut desktop, &pairing.id, &terms, &host, show).await;
        }
        command => {
            let mut desktop = Desktop::connect(&identity).await?;
            run_request(&mut desktop, &identity, command).await?;
            desktop.disconnect().await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The commands that are one request and its answer.
async fn run_request(desktop: &mut Desktop<'_>, identity: &Identity, command: SessionCommand) -> Outcome<()> {
    match command {
        SessionCommand::Create { name, command } => {
            let id = desktop.create_session(name.as_deref(), command.as_deref()).await?;
            print_raw(format!("{id}\n").as_bytes())
        }
        SessionCommand::List { json } => {
            let answer = desktop.call(&json!({ "method": "shell.list_sessions" })).await?;
            let sessions = answer.get("sessions").cloned().unwrap_or_default();
            match json {
                true => print_raw(format!("{sessions}\n").as_bytes()),
                false => list_sessions(&sessions),
            }
        }
        SessionCommand::Close { id } => {
            desktop.call(&json!({ "method": "shell.close_session", "id": id })).await.map(drop)
        }
        SessionCommand::Grants { id, json } => {
            if json {
                let answer = desktop.call(&json!({ "method": "pair.list", "id": id })).await?;
                let entries = answer.get("entries").cloned().unwrap_or_default();
                return print_raw(format!("{entries}\n").as_bytes());
            }
            let entries = desktop.entries(id.as_ref()).await?;
            entries.iter().try_for_each(show_entry)
        }
        SessionCommand::Revoke(what) => {
            let (key, value) = what.resolve(desktop, identity).await?;
            desktop.revoke(key, &value).await?;
            print_raw(format!("revoked: {key} {value}\n").as_bytes())
        }
        SessionCommand::Attach { .. } | SessionCommand::PairMobile(_) => Ok(()),
    }
}

impl Revoke {
    async fn resolve(
        self,
        desktop: &mut Desktop<'_>,
        identity: &Identity,
    ) -> Outcome<(&'static str, String)> {
        let own = |named: String, own: String| if named.is_empty() { own } else { named };
        match self {
            Self { session: Some(session), .. } => Ok(("session", session.to_string())),
            Self { issuer: Some(key), .. } => Ok(("issuer", own(key, identity.issuer.public().to_string()))),
            Self { device: Some(key), .. } => Ok(("device", own(key, identity.device.public().to_string()))),
            Self { id, .. } => {
                let begin =
                    id.filter(|id| !id.is_empty()).ok_or_else(|| Problem::said("name what to revoke"))?;
                let entries = desktop.entries(None).await?;
                let mut hits = entries
                    .into_iter()
                    .filter(|entry| entry.ticket.starts_with(&begin) || entry.credential.starts_with(&begin));
                match (hits.next(), hits.next()) {
                    // Revoking the ticket of a redeemed one revokes its credential.
                    (Some(entry), None) => Ok(("ticket", entry.ticket)),
                    (Some(_), Some(_)) => Err(Problem::said("more than one begins so; write more of the id")),
                    (None, _) => {
                        Err(Problem::said("there is no such ticket or credential; see `session grants`"))
                    }
                }
            }
        }
    }
}

fn list_sessions(sessions: &Value) -> Outcome<()> {
    for session in sessions.as_array().into_iter().flatten() {
        let text = |key: &str| harmless(session.get(key).and_then(Value::as_str).unwrap_or("-"));
        print_raw(format!("{}  {}  {}\n", text("id"), text("name"), text("command")).as_bytes())?;
    }
    Ok(())
}

fn show_entry(entry: &Entry) -> Outcome<()> {
    let state = match &entry.state {
        State::Open => "waits for a phone".to_owned(),
        State::Pending { code } => format!("waits for you to confirm {code}"),
        State::Active => format!("active, {} connected", entry.connections),
        State::Revoked { why } => format!("revoked ({why})"),
        State::Expired => "expired".to_owned(),
        State::Unknown => "unknown to this client".to_owned(),
    };
    let phone = entry.phone_label.as_deref().map(harmless).unwrap_or_default();
    let text = format!(
        "{}  {state}\n  session {}  label `{}`  phone `{phone}`\n  may {}  until {}\n",
        entry.credential,
        harmless(&entry.session),
        harmless(&entry.label),
        entry.ops.join(", "),
        entry.expires_at,
    );
    print_raw(text.as_bytes())
}
