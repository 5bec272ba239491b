//! The phone's command line.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rand::rngs::OsRng;
use sessioncap::{Credential, Label, Link, Op, OpSet, Trimmed};
use zeroize::Zeroizing;

use super::state::Pairing;
use super::{Progress, come_back, follow, join, recent};
use crate::clock::Clock;
use crate::problem::{Outcome, Problem, While};
use crate::terminal::{harmless, note, parse_duration, print_raw, show_duration};

/// A phone: joins one session by a link, and attaches to it again later.
#[derive(Parser)]
#[command(name = "companion")]
pub struct Arguments {
    /// Where the pairing is kept: a key, and a credential bound to it.
    #[arg(long, global = true, value_name = "FILE", default_value = "companion.json")]
    state: PathBuf,
    /// Keep the pairing under this name, beside others; `list` shows them.
    #[arg(long, global = true, value_name = "NAME", value_parser = recent::parse_name, conflicts_with = "state")]
    name: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Redeem a link. After a lost answer, run it again.
    Join {
        /// The link, or `-` to read it from standard input: it is a secret, and a command line can be read by others on
        /// this machine.
        #[cfg_attr(feature = "image", arg(required_unless_present = "image"))]
        #[cfg_attr(not(feature = "image"), arg(required = true))]
        link: Option<String>,
        /// A picture of the code, instead of the link.
        #[cfg(feature = "image")]
        #[arg(long, value_name = "FILE", conflicts_with = "link")]
        image: Option<PathBuf>,
        /// This phone's name, shown on the desktop.
        #[arg(long, default_value = "companion")]
        label: String,
        /// Follow the session on the same connection.
        #[arg(long)]
        attach: bool,
    },
    /// Follow the session; lines of standard input are typed into it.
    Attach,
    /// Type one line into the session.
    Send {
        /// The line.
        text: String,
    },
    /// At a bridge of the Agent Client Protocol.
    #[cfg(feature = "acp")]
    Acp(super::acp::cli::AcpArguments),
    /// List the pairings that have a name, the latest first, and the one in the file of `--state`.
    List,
    /// Delete a pairing. Its owner can still see and revoke it.
    Forget {
        /// Its name; without one, the pairing in the file of `--state`.
        #[arg(value_parser = recent::parse_name)]
        pairing: Option<String>,
    },
    /// Show what the credential allows, and how long.
    Status {
        /// Without asking the agent.
        #[arg(long)]
        offline: bool,
    },
    /// Make a credential that allows less, for something else on this phone.
    Narrow {
        /// What it may still do, names separated by commas.
        #[arg(long)]
        ops: Option<OpSet>,
        /// How long it may still do it.
        #[arg(long, value_parser = parse_duration)]
        expires: Option<u64>,
        /// Where to store it.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// Runs one command.
pub async fn run(arguments: Arguments) -> Outcome<ExitCode> {
    let file = match &arguments.name {
        Some(name) => recent::file(&recent::directory()?, name)?,
        None => arguments.state,
    };
    match arguments.command {
        Command::Join {
            link,
            #[cfg(feature = "image")]
            image,
            label,
            attach,
        } => {
            #[cfg(feature = "image")]
            let link = match image {
                Some(file) => Link::parse(&super::picture::read(&file)?)?,
                None => read_link(link.as_deref().unwrap_or_default())?,
            };
            #[cfg(not(feature = "image"))]
            let link = read_link(link.as_deref().unwrap_or_default())?;
            let mut shown = None;
            let joined = join(&link, &Label::new(label)?, &file, |progress| match progress {
                Progress::Connecting => note(&format!("companion: asking {}", link.url())),
                Progress::Waiting(code) if shown == Some(code) => {}
                Progress::Waiting(code) => {
                    shown = Some(code);
                    note(&format!("companion: the desktop has to confirm; both screens must show {code}"));
                }
                Progress::Trouble(text) => note(&format!("companion: {text}; asking again")),
            })
            .await?;
            let live = joined.live;
            let left = show_duration(live.seconds_left);
            note(&format!("companion: joined session {} for {left}; may {}", live.session, live.ops));
            if attach {
                return follow::run(&file, Some(live)).await;
            }
            live.leave().await;
        }
        Command::Attach => return follow::run(&file, None).await,
        Command::Send { text } => send(&file, &text).await?,
        #[cfg(feature = "acp")]
        Command::Acp(arguments) => return super::acp::cli::run(&file, arguments).await,
        Command::List => {
            let directory = recent::directory()?;
            let named = recent::list(&directory)?;
            for recent::Recent { name, about } in named.into_iter().chain(recent::of_file(&directory, &file))
            {
                print_raw(format!("{}  {}\n", harmless(&name), harmless(&about)).as_bytes())?;
            }
        }
        Command::Forget { pairing } => {
            let forgotten = match &pairing {
                Some(name) => recent::directory()?.join(name).with_extension(recent::SUFFIX),
                None => file,
            };
            recent::forget(&forgotten)?;
            let shown = pairing.unwrap_or_else(|| forgotten.display().to_string());
            note(&format!("companion: forgot {}; its owner can still revoke it", harmless(&shown)));
        }
        Command::Status { offline } => status(&file, offline).await?,
        Command::Narrow { ops, expires, out } => {
            let pairing = Pairing::open(&file)?;
            let narrower = narrow(&pairing, ops, expires)?;
            narrower.save(&out)?;
            print_raw(format!("{}\n", Credential::parse(narrower.credential()?)?).as_bytes())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The link of the command line, or of standard input, without what copying has added.
pub(super) fn read_link(argument: &str) -> Outcome<Link> {
    let (link, trimmed) = match argument {
        "-" => pasted()?,
        link => {
            note(
                "companion: others on this machine can see a command line; `join -` reads the link from standard input",
            );
            Link::from_pasted(link)?
        }
    };
    if !trimmed.is_empty() {
        note(&format!("companion: left out of what was pasted: {trimmed}"));
    }
    Ok(link)
}

/// Line by line, until the lines are a link: a wrapped copy has several. What comes after it stays unread.
fn pasted() -> Outcome<(Link, Trimmed)> {
    let mut text = Zeroizing::new(String::new());
    loop {
        let read = std::io::stdin().lock().read_line(&mut text).during("standard input cannot be read")?;
        match Link::from_pasted(text.trim_end_matches('\n')) {
            Ok(link) => return Ok(link),
            Err(problem) if read == 0 || text.len() > Link::MAX_PASTED_LEN => return Err(problem.into()),
            Err(_) => {}
        }
    }
}

/// Types one line, and waits until the session's terminal has it.
async fn send(file: &Path, text: &str) -> Outcome<()> {
    let mut live = come_back(file, OpSet::only(Op::SendInput)).await?;
    let number = live.type_in(format!("{text}\r").as_bytes()).await?;
    match live.typed(number).await {
        Ok(()) => note("companion: delivered"),
        Err(refusal @ (Problem::Refused { .. } | Problem::Ended { .. })) => {
            return Err(refusal).during("not delivered");
        }
        Err(problem) => {
            return Err(problem)
                .during("it is unknown whether the line arrived; look before you send it again");
        }
    }
    live.leave().await;
    Ok(())
}

async fn status(file: &Path, offline: bool) -> Outcome<()> {
    let live = match offline {
        true => None,
        false => Some(come_back(file, OpSet::EMPTY).await),
    };
    // After the agent was asked: it may have given a renewed one.
    print_raw(format!("{}\n", Credential::parse(Pairing::open(file)?.credential()?)?).as_bytes())?;
    if let Some(live) = live.transpose()? {
        let left = show_duration(live.seconds_left);
        print_raw(format!("  now       {} at the agent, for {left} more\n", live.ops).as_bytes())?;
        live.leave().await;
    }
    Ok(())
}

/// A copy of a pairing that allows less. Needs no connection. The end is by this phone's clock; if
/// that is off, the original's end still holds.
pub fn narrow(pairing: &Pairing, ops: Option<OpSet>, expires: Option<u64>) -> Outcome<Pairing> {
    let now = Clock::system()?.now().timestamp();
    let end = expires.map(|seconds| now.plus(seconds));
    let narrower = Credential::parse(pairing.credential()?)?.attenuate(ops, end, &mut OsRng)?;
    Ok(Pairing {
        url: pairing.url.clone(),
        agent: pairing.agent,
        ticket: pairing.ticket,
        holder: pairing.holder.clone(),
        credential: Some(narrower.bytes().clone()),
        session: pairing.session.clone(),
    })
}
