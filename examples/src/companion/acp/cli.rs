//! `companion acp`: a phone at a bridge of the Agent Client Protocol.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use sessioncap::acp::{Json, Message};
use sessioncap::session::SessionNotice;

use super::show::{self, Question, Shown};
use super::{Acp, Heard, SEARCH, join, refusal};
use crate::companion::state::Pairing;
use crate::companion::{Joined, Progress, ended, refused};
use crate::discovery::{Browse, Event, Interfaces, KeyHash, PATIENCE};
use crate::problem::{Outcome, While};
use crate::terminal::{Lines, harmless, note, print_raw, show_duration};

#[derive(Args)]
pub(in crate::companion) struct AcpArguments {
    /// How long the local network is searched for a bridge that is not at its address; 0 for not at all.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = SEARCH.as_secs())]
    search: u64,
    #[command(subcommand)]
    command: AcpCommand,
}

#[derive(Subcommand)]
enum AcpCommand {
    /// Redeem a link of a bridge, and leave.
    Join {
        /// The link, or `-` to read it from standard input.
        link: String,
        /// This phone's name, shown on the desktop.
        #[arg(long, default_value = "companion")]
        label: String,
    },
    /// Send a prompt, show what the agent does, and ask about its questions. Ctrl-C cancels the turn, if the credential
    /// names `interrupt`.
    Prompt {
        /// The prompt.
        text: String,
    },
    /// Show what the agent does, and ask about its questions, until the connection ends.
    Watch,
    /// Show the bridges that are advertised on the local network, each time that something new is heard of one, for
    /// three seconds. A record proves nothing.
    Discover {
        /// Go on until interrupted.
        #[arg(long)]
        follow: bool,
    },
    /// Carry JSON-RPC messages between a client on standard input and output, one on each line, and the bridge.
    Stdio,
}

pub(in crate::companion) async fn run(file: &Path, arguments: AcpArguments) -> Outcome<ExitCode> {
    let search = Duration::from_secs(arguments.search);
    match arguments.command {
        AcpCommand::Join { link, label } => {
            let link = crate::companion::cli::read_link(&link)?;
            let Joined { mut live, .. } =
                join(&link, &label.parse()?, file, search, |progress| match progress {
                    Progress::Connecting => note(&format!("companion: asking {}", link.url())),
                    Progress::Waiting(code) => note(&format!("companion: both screens must show {code}")),
                    Progress::Trouble(text) => note(&format!("companion: {text}; asking again")),
                })
                .await?;
            // Somebody who ends TLS on the way is noticed now, not when the session is used.
            live.initialize(|_| {}).await?;
            let left = show_duration(live.seconds_left);
            note(&format!("companion: joined session {} for {left}; may {}", live.session, live.ops));
            live.leave().await;
        }
        AcpCommand::Prompt { text } => return converse(file, search, Some(&text)).await,
        AcpCommand::Watch => return converse(file, search, None).await,
        AcpCommand::Discover { follow } => discover(file, follow).await?,
        AcpCommand::Stdio => return relay(Acp::come_back(file, search).await?).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows who is there, and says which has the key of this phone's pairing.
async fn discover(file: &Path, follow: bool) -> Outcome<()> {
    let own = Pairing::load(file)?.map(|pairing| KeyHash::of(&pairing.agent));
    let mut browse = Browse::start(None, Interfaces::default())?;
    let over = async {
        match follow {
            true => std::future::pending().await,
            false => tokio::time::sleep(PATIENCE).await,
        }
    };
    tokio::pin!(over);
    let mut nobody = true;
    loop {
        let event = tokio::select! {
            event = browse.next() => event?,
            () = &mut over => break,
        };
        let line = match event {
            Event::Found(record) => {
                let addresses: Vec<_> = record.addresses.iter().map(ToString::to_string).collect();
                let paired = if Some(record.key) == own { "  paired with this phone" } else { "" };
                format!("{}  {}{paired}", harmless(record.name.as_str()), addresses.join(" "))
            }
            Event::Gone(name) => format!("{}  gone", harmless(name.as_str())),
        };
        nobody = false;
        print_raw(format!("{line}\n").as_bytes())?;
    }
    if nobody {
        note("companion: no bridge is advertised on this network");
    }
    Ok(())
}

/// What is shown, and where the cursor is.
#[derive(Default)]
struct Screen {
    in_text: bool,
    asked: Vec<Question>,
}

impl Screen {
    fn show(&mut self, message: &Message) -> Outcome<()> {
        match show::read(message) {
            Shown::Text(text) => {
                self.in_text = !text.ends_with('\n');
                print_raw(text.as_bytes())?;
            }
            Shown::Line(line) => self.line(&line)?,
            Shown::Question(question) => {
                self.line(&format!("the agent asks: {}", question.title))?;
                for (number, choice) in question.choices.iter().enumerate() {
                    self.line(&format!("  {}. {}", number.saturating_add(1), choice.name))?;
                }
                self.line("  answer with a number, or 0 for none")?;
                self.asked.push(question);
            }
            Shown::Over(id) => {
                let before = self.asked.len();
                self.asked.retain(|question| question.id != id);
                if self.asked.len() < before {
                    self.line("that question is over: it was answered elsewhere, or its turn has ended")?;
                }
            }
            Shown::Nothing => {}
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> Outcome<()> {
        let before = if std::mem::take(&mut self.in_text) { "\n" } else { "" };
        print_raw(format!("{before}{line}\n").as_bytes())
    }
}

async fn converse(file: &Path, search: Duration, prompt: Option<&str>) -> Outcome<ExitCode> {
    let mut acp = Acp::come_back(file, search).await?;
    let mut screen = Screen::default();
    let mut early = Vec::new();
    acp.initialize(|message| early.push(message)).await?;
    for message in early {
        screen.show(&message)?;
    }
    let asked = match prompt {
        Some(text) => Some(acp.ask("session/prompt", acp.prompt(text)).await?),
        None => None,
    };
    let mut lines = Lines::of_stdin(Message::MAX_LEN);
    let mut reads = true;
    loop {
        tokio::select! {
            heard = acp.next() => match heard? {
                Heard::Message(Message::Response { id, outcome }) if Some(&id) == asked.as_ref() => {
                    let result = outcome.map_err(|error| refusal(&error))?;
                    let reason = result.get("stopReason").and_then(Json::as_text).unwrap_or("unknown").to_owned();
                    screen.line(&format!("the turn has ended: {}", harmless(&reason)))?;
                    acp.leave().await;
                    return Ok(ExitCode::SUCCESS);
                }
                Heard::Message(message) => screen.show(&message)?,
                Heard::Notice(notice) => match SessionNotice::from_notice(notice) {
                    Some(SessionNotice::Late { .. }) => screen.line("your answer came too late")?,
                    _ => note(&format!("companion: {}", refused(notice))),
                },
                Heard::End(code) => return Err(ended(code)),
            },
            line = lines.next(), if reads => match line {
                Some(line) => answer(&mut acp, &mut screen, String::from_utf8_lossy(&line).trim()).await?,
                None => reads = false,
            },
            _ = tokio::signal::ctrl_c() => match asked {
                Some(_) => acp.cancel().await?,
                None => {
                    acp.leave().await;
                    return Ok(ExitCode::SUCCESS);
                }
            },
        }
    }
}

/// Answers the oldest question with the choice of this number.
async fn answer(acp: &mut Acp, screen: &mut Screen, line: &str) -> Outcome<()> {
    let Some(question) = screen.asked.first() else { return screen.line("nothing is asked now") };
    let chosen = match line.parse::<usize>() {
        Ok(0) => None,
        Ok(number) if number <= question.choices.len() => question.choices.get(number.saturating_sub(1)),
        _ => return screen.line("answer with one of the numbers"),
    };
    let option = chosen.map(|choice| choice.id.clone());
    let id = question.id.clone();
    screen.asked.remove(0);
    acp.answer(id, option.as_deref()).await
}

async fn relay(mut acp: Acp) -> Outcome<ExitCode> {
    let mut lines = Lines::of_stdin(Message::MAX_LEN);
    loop {
        tokio::select! {
            heard = acp.next() => match heard? {
                Heard::Message(message) => print_raw(format!("{}\n", message.to_text()).as_bytes())?,
                Heard::Notice(notice) => note(&format!("companion: {}", refused(notice))),
                Heard::End(code) => return Err(ended(code)),
            },
            line = lines.next() => match line {
                Some(line) => {
                    let text = String::from_utf8(line).during("standard input is not utf-8")?;
                    if !text.trim().is_empty() {
                        acp.send_text(text.trim()).await?;
                    }
                }
                None => {
                    acp.leave().await;
                    return Ok(ExitCode::SUCCESS);
                }
            },
        }
    }
}
