//! The desktop client's command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};
use sessioncap::desktop::{Confirmation, PairingTerms};
use sessioncap::pair::{self, Listing, ListingState, RevocationReason, Revoked, WaitingRenewal};
use sessioncap::{AgentPublicKey, AgentUrl, DevicePublicKey, Label, LinkHost, Op, OpSet, SessionId};

use super::code::{Background, Form};
use super::pair_mobile::{self, Options, Question, Show};
use super::profile::{Profile, default_directory};
use super::{Desktop, Identity, attach, log};
#[cfg(feature = "keyring")]
use crate::keys::Keeper;
use crate::problem::{Outcome, Problem, While};
#[cfg(feature = "keyring")]
use crate::terminal::note;
use crate::terminal::{Answers, harmless, parse_duration, print_raw, says_yes, width};

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
    /// Keep the device's and the issuer's key in the system's keyring, instead of in files.
    #[cfg(feature = "keyring")]
    #[arg(long, global = true, conflicts_with = "key")]
    keyring: bool,
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
    /// At a bridge of the Agent Client Protocol, be the agent of an editor: carry JSON-RPC messages between standard input
    /// and output, one on each line, and the bridge.
    Acp,
    /// Operate the agent.
    #[command(subcommand)]
    Agent(AgentCommand),
}

#[derive(Subcommand)]
enum AgentCommand {
    /// Set the agent's time to its machine's clock. Its time never goes back by itself; this is for a
    /// clock that once stood in the future. Every ticket, phone and issuer registration goes.
    ResetClock {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
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
    /// Show a session in this terminal. Ctrl-] asks what to do: d or Ctrl-] again leaves, p shows a code for a phone,
    /// ] sends Ctrl-] to the session.
    Attach {
        /// The session.
        id: SessionId,
        /// Also inside a session. Not inside the one that is shown: it would show itself without end.
        #[arg(long)]
        nested: bool,
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
    /// Give a paired phone new terms, without another scan. Operations that they remove are refused at
    /// once; operations that they add come with its next attach.
    Renew(Renew),
    /// Show what has happened to what was shared, oldest first, the last 1,000 records. Those that could
    /// not be written yet are missing until they can.
    Log {
        /// Of this session.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<SessionId>,
        /// Of all sessions, and of the agent itself.
        #[arg(long)]
        all: bool,
        /// Print JSON lines.
        #[arg(long)]
        json: bool,
    },
    /// Revoke what was shared. Phones that use it are cut off at once.
    Revoke(Revoke),
}

#[derive(Args)]
struct PairMobile {
    /// The session.
    id: SessionId,
    /// What the phone may do, names separated by commas; `companion` means the default.
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
    /// Compare six digits before the phone is admitted: type those that it shows.
    #[arg(long)]
    confirm: bool,
    /// With --confirm, choose the digits that the phone shows from three, instead of typing them. Whoever guesses is
    /// right in one case of three.
    #[arg(long, requires = "confirm")]
    choose: bool,
    /// The code stays good when this program ends. Without it, the program takes the code back.
    #[arg(long)]
    leave_open: bool,
    /// Write the code to a picture that only you can read.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write the code to a picture of pixels that only you can read.
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
    /// Show the link without a code.
    #[arg(long, conflicts_with_all = ["qr", "json"])]
    link_only: bool,
    /// Show a code of plain characters where there are no colours (output that is no terminal, NO_COLOR, TERM=dumb),
    /// for this background.
    #[arg(long, value_name = "BACKGROUND", num_args = 0..=1, default_missing_value = "dark")]
    qr: Option<Background>,
    /// Print JSON, one object for each thing that happens. The link in it is a secret.
    #[arg(long)]
    json: bool,
    /// The host that carries the link, instead of the agent's own.
    #[arg(long, value_name = "HOST")]
    link_host: Option<String>,
}

#[derive(Args)]
struct Renew {
    /// The session.
    session: SessionId,
    /// The credential, or its ticket: the id, or the beginning of it.
    credential: String,
    /// What the phone may do from now on, instead of what it may.
    #[arg(long)]
    ops: Option<OpSet>,
    /// How long from now. Without it the end stays; with neither --ops nor this, 12h.
    #[arg(long, value_parser = parse_duration)]
    valid_for: Option<u64>,
}

#[derive(Args)]
#[group(required = true)]
struct Revoke {
    /// A ticket or credential: its id, or the beginning of it.
    id: Option<String>,
    /// Everything of a session.
    #[arg(long, value_name = "ID", conflicts_with_all = ["id", "issuer"])]
    session: Option<SessionId>,
    /// Everything that an issuer key signed; without a key, this profile's.
    #[arg(long, value_name = "HEX", num_args = 0..=1, default_missing_value = "", conflicts_with = "id")]
    issuer: Option<String>,
    /// Everything that a device shared; without a key, this one.
    #[arg(long, value_name = "HEX", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["id", "session", "issuer"])]
    device: Option<String>,
    /// Everything that a device shared under this label, for a phone that was lost; without --device, this
    /// one's.
    #[arg(long, value_name = "LABEL", value_parser = parse_label, conflicts_with_all = ["id", "session", "issuer"])]
    phone: Option<Label>,
}

fn parse_label(text: &str) -> Result<Label, sessioncap::Error> {
    Label::new(text)
}

/// Runs one command.
pub async fn run(arguments: Arguments) -> Outcome<ExitCode> {
    run_command(arguments).await.map_err(|problem| match problem {
        Problem::TurnedAway => Problem::said(
            "the agent turned this device away; enrol its public key at the agent, and check the agent's key",
        ),
        problem => problem,
    })
}

async fn run_command(arguments: Arguments) -> Outcome<ExitCode> {
    let profile = Profile {
        directory: arguments.profile.map_or_else(default_directory, Ok)?,
        url: arguments.agent,
        agent: arguments.agent_key,
        device_key: arguments.key,
    };
    #[cfg(feature = "keyring")]
    let keyring = match arguments.keyring {
        true => {
            let keyring = Keeper::system(Keeper::PATIENCE)?;
            note(&format!("dd_client: {keyring}"));
            Some(keyring)
        }
        false => None,
    };
    let open = async || match () {
        #[cfg(feature = "keyring")]
        () if keyring.is_some() => match &keyring {
            Some(keyring) => profile.open_in(keyring).await,
            None => profile.open(),
        },
        () => profile.open(),
    };
    let command = match arguments.command {
        #[cfg(feature = "keyring")]
        Command::Keygen if keyring.is_some() => {
            if let Some(keyring) = &keyring {
                let key = profile.make_in(keyring).await?;
                print_raw(format!("{}\n", key.public()).as_bytes())?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        Command::Keygen => {
            let key = profile.make()?;
            print_raw(format!("{}\n", key.public()).as_bytes())?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Agent(AgentCommand::ResetClock { yes }) => {
            return reset_clock(&open().await?, yes).await;
        }
        Command::Acp => return super::acp::run(&open().await?).await,
        Command::Session(command) => command,
    };
    let identity = open().await?;
    match command {
        SessionCommand::Attach { id, nested } => return attach::run(&identity, &id, nested).await,
        SessionCommand::PairMobile(pairing) => {
            let terms = PairingTerms::default()
                .with_ops(pairing.ops)?
                .with_ticket_lifetime(pairing.ttl)?
                .with_valid_for(pairing.expires)?
                .with_label(pairing.label)
                .with_confirmation(match pairing.confirm {
                    true => Confirmation::Required,
                    false => Confirmation::NotRequired,
                });
            let options = Options {
                host: pairing.link_host.map_or(LinkHost::Agent, LinkHost::Fixed),
                form: Form {
                    svg: pairing.svg,
                    png: pairing.png,
                    link_only: pairing.link_only,
                    plain: pairing.qr,
                },
                question: if pairing.choose { Question::Choice } else { Question::Digits },
                leave_open: pairing.leave_open,
            };
            let show = if pairing.json { Show::Json } else { Show::Text };
            let mut desktop = Desktop::connect(&identity).await?;
            return pair_mobile::run(&mut desktop, &pairing.id, &terms, &options, show).await;
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
            let entries = desktop.entries(id.as_ref()).await?;
            if json {
                let entries = serde_json::to_string(&entries).during("the list cannot be shown")?;
                return print_raw(format!("{entries}\n").as_bytes());
            }
            entries.iter().try_for_each(show_entry)
        }
        SessionCommand::Renew(renewal) => renew(desktop, renewal).await,
        SessionCommand::Log { id, all, json } => {
            let log = desktop.log(id.as_ref()).await?;
            let lines = match json {
                true => log::json_lines(&log, all),
                false => log::lines(&log, all, width()),
            };
            lines.iter().try_for_each(|line| print_raw(format!("{line}\n").as_bytes()))
        }
        SessionCommand::Revoke(what) => {
            let (named, what) = what.resolve(desktop, identity).await?;
            let told = match desktop.revoke(what).await? {
                Revoked::Ended { pairings } => format!("revoked: {named} ({pairings} ended)\n"),
                Revoked::Already => format!("revoked before: {named}\n"),
                Revoked::Unknown => {
                    return Err(Problem::Said(format!("nothing was revoked: the agent knows no {named}")));
                }
            };
            print_raw(told.as_bytes())
        }
        SessionCommand::Attach { .. } | SessionCommand::PairMobile(_) => Ok(()),
    }
}

impl Revoke {
    /// What is meant, in words and for the agent.
    async fn resolve(
        self,
        desktop: &mut Desktop<'_>,
        identity: &Identity,
    ) -> Outcome<(String, pair::Revoke)> {
        match self {
            Self { session: Some(session), .. } => {
                Ok((format!("session {session}"), pair::Revoke::Session(session)))
            }
            Self { issuer: Some(key), .. } => {
                let issuer = if key.is_empty() { identity.issuer.public() } else { key.parse()? };
                Ok((format!("issuer {issuer}"), pair::Revoke::Issuer(issuer)))
            }
            Self { phone: Some(name), device, .. } => {
                let device = device_of(device.unwrap_or_default(), identity)?;
                let named = format!("phone `{}` of device {device}", harmless(name.as_str()));
                Ok((named, pair::Revoke::Phone { device, name }))
            }
            Self { device: Some(key), .. } => {
                let device = device_of(key, identity)?;
                Ok((format!("device {device}"), pair::Revoke::Device(device)))
            }
            Self { id, .. } => {
                let begin =
                    id.filter(|id| !id.is_empty()).ok_or_else(|| Problem::said("name what to revoke"))?;
                // Revoking the ticket of a redeemed one revokes its credential.
                let found = find(desktop.entries(None).await?, &begin);
                let (named, ticket) = match (found, begin.parse()) {
                    (Ok(entry), _) if entry.ticket.to_string().starts_with(&begin) => {
                        (format!("ticket {}", entry.ticket), entry.ticket)
                    }
                    (Ok(entry), _) => (format!("credential {}", entry.credential), entry.ticket),
                    // A whole id that is not on the list is asked for all the same: it may be revoked already.
                    (Err(_), Ok(ticket)) => (format!("ticket {ticket}"), ticket),
                    (Err(problem), Err(_)) => return Err(problem),
                };
                Ok((named, pair::Revoke::Ticket(ticket)))
            }
        }
    }
}

fn device_of(key: String, identity: &Identity) -> Outcome<DevicePublicKey> {
    if key.is_empty() { Ok(identity.device.public()) } else { Ok(key.parse()?) }
}

/// The operations, separated for people.
pub(super) fn names(ops: OpSet) -> String {
    ops.iter().map(Op::name).collect::<Vec<_>>().join(", ")
}

/// The name that a reason has in JSON.
pub(super) fn name(why: &RevocationReason) -> String {
    serde_json::to_value(why).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The one whose ticket or credential begins so.
fn find(entries: Vec<Listing>, begin: &str) -> Outcome<Listing> {
    let begins = |entry: &Listing| {
        entry.ticket.to_string().starts_with(begin) || entry.credential.to_string().starts_with(begin)
    };
    let mut hits = entries.into_iter().filter(begins);
    match (hits.next(), hits.next()) {
        (Some(entry), None) => Ok(entry),
        (Some(_), Some(_)) => Err(Problem::said("more than one begins so; write more of the id")),
        (None, _) => Err(Problem::said("there is no such ticket or credential; see `session grants`")),
    }
}

async fn renew(desktop: &mut Desktop<'_>, renewal: Renew) -> Outcome<()> {
    let Renew { session, credential, ops, valid_for } = renewal;
    let entry = find(desktop.entries(Some(&session)).await?, &credential)?;
    if entry.holder.is_none() {
        return Err(Problem::said("no phone has it yet; revoke the code and pair with other terms"));
    }
    desktop.renew(&entry, ops, valid_for).await?;
    let entry = find(desktop.entries(Some(&session)).await?, &entry.credential.to_string())?;
    let phone = harmless(entry.phone_label.as_ref().map_or("", Label::as_str));
    let holds = format!("`{phone}` may now {}, until {}\n", names(entry.ops), entry.expires_at);
    print_raw(holds.as_bytes())?;
    match &entry.renewal {
        Some(waiting) => print_raw(format!("{}\n", describe(waiting)).as_bytes()),
        None => Ok(()),
    }
}

fn describe(waiting: &WaitingRenewal) -> String {
    let ops = names(waiting.ops);
    format!("a renewal waits for the phone to come back: may {ops}, until {}", waiting.expires_at)
}

async fn reset_clock(identity: &Identity, yes: bool) -> Outcome<ExitCode> {
    if !yes {
        let question = "every ticket and every phone of every session is gone after this, and desktops\n\
                        register anew when they next pair. reset the agent's clock? [y/N]\n";
        let mut answers = Answers::default();
        answers.forget();
        print_raw(question.as_bytes())?;
        if !says_yes(&mut answers).await {
            print_raw(b"nothing has changed\n")?;
            return Ok(ExitCode::FAILURE);
        }
    }
    let mut desktop = Desktop::connect(identity).await?;
    let time = desktop.reset_clock().await?;
    desktop.disconnect().await;
    print_raw(format!("it is {time} at the agent; pair every phone again\n").as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn list_sessions(sessions: &Value) -> Outcome<()> {
    for session in sessions.as_array().into_iter().flatten() {
        let text = |key: &str| harmless(session.get(key).and_then(Value::as_str).unwrap_or("-"));
        print_raw(format!("{}  {}  {}\n", text("id"), text("name"), text("command")).as_bytes())?;
    }
    Ok(())
}

fn show_entry(entry: &Listing) -> Outcome<()> {
    let state = match &entry.state {
        ListingState::Open => "waits for a phone".to_owned(),
        ListingState::Pending { code } => format!("waits for you to confirm {code}"),
        ListingState::Active => format!("active, {} connected", entry.connections),
        ListingState::Revoked { why } => format!("revoked ({})", name(why)),
        ListingState::Expired => "expired".to_owned(),
        _ => "unknown to this client".to_owned(),
    };
    let phone = harmless(entry.phone_label.as_ref().map_or("", Label::as_str));
    let mut text = format!(
        "{}  {state}\n  session {}  label `{}`  phone `{phone}`\n  may {}\n",
        entry.credential,
        harmless(entry.session.as_str()),
        harmless(entry.label.as_str()),
        names(entry.ops),
    );
    let seen = entry.last_seen.map_or_else(|| "never".to_owned(), |seen| seen.to_string());
    text += &format!("  created {}  last seen {seen}  until {}\n", entry.created_at, entry.expires_at);
    if let Some(waiting) = &entry.renewal {
        text += &format!("  {}\n", describe(waiting));
    }
    print_raw(text.as_bytes())
}
