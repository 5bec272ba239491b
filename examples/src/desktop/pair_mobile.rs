//! `session pair-mobile`: shows a link and its QR code, and waits for the phone.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use sessioncap::desktop::PairingTerms;
use sessioncap::pair::{ListingState, Revoke};
use sessioncap::{Link, LinkHost, QrCode, SessionId, TerminalStyle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::{Desktop, Shared};
use crate::desktop::cli::{name, names};
use crate::problem::{Outcome, Problem, While};
use crate::terminal::{harmless, print_raw, says_yes, width};

/// How often the agent is asked what has become of the ticket.
const POLL: Duration = Duration::from_millis(500);

/// How the outcome is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    /// For a person, with a QR code.
    Text,
    /// One JSON object for each thing that happens.
    Json,
}

impl Show {
    fn event(self, text: &str, json: Value) -> Outcome<()> {
        match self {
            Self::Text => print_raw(format!("{text}\n").as_bytes()),
            Self::Json => print_raw(format!("{json}\n").as_bytes()),
        }
    }
}

pub(super) async fn run(
    desktop: &mut Desktop<'_>,
    session: &SessionId,
    terms: &PairingTerms,
    host: &LinkHost,
    show: Show,
) -> Outcome<ExitCode> {
    // Watched from before the offer, so that neither Ctrl-C nor a closed window leaves it open.
    let watched = |kind| signal(kind).during("signals cannot be watched");
    let mut interrupt = watched(SignalKind::interrupt())?;
    let mut terminate = watched(SignalKind::terminate())?;
    let mut hang_up = watched(SignalKind::hangup())?;
    let shared = desktop.share(session, terms).await?;
    let ticket = shared.pairing.ticket.to_string();
    show_link(&shared, host, show)?;
    let outcome = tokio::select! {
        outcome = wait(desktop, session, &shared, show) => Some(outcome),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        _ = hang_up.recv() => None,
    };
    match outcome {
        Some(Ok(code)) => Ok(code),
        Some(Err(problem)) => Err(problem),
        None => {
            let until = shared.receipt.expires_at;
            give_up(desktop, session, &shared, show).await.during(format_args!(
                "the code could not be revoked and may be used until {until}; `session revoke {ticket}` revokes it"
            ))
        }
    }
}

/// Revokes the code, unless a phone was admitted.
async fn give_up(
    desktop: &mut Desktop<'_>,
    session: &SessionId,
    shared: &Shared,
    show: Show,
) -> Outcome<ExitCode> {
    // On a new connection: a request may have been abandoned in the middle.
    desktop.resume().await?;
    let entry = desktop.entry(session, &shared.pairing.ticket).await?;
    if entry.is_some_and(|entry| entry.state == ListingState::Active) {
        show.event("the phone is in; revoke it if you did not mean that", json!({ "event": "redeemed" }))?;
        return Ok(ExitCode::SUCCESS);
    }
    desktop.revoke(Revoke::Ticket(shared.pairing.ticket)).await?;
    show.event("given up: the code is worth nothing any more", json!({ "event": "revoked" }))?;
    Ok(ExitCode::FAILURE)
}

fn show_link(shared: &Shared, host: &LinkHost, show: Show) -> Outcome<()> {
    let Shared { pairing, receipt } = shared;
    let link = pairing.link.to_https(host)?;
    if show == Show::Json {
        return show.event(
            "",
            json!({
                "event": "offered",
                "link": link,
                "ticket": pairing.ticket,
                "credential": pairing.credential,
                "ticket_expires_at": receipt.expires_at,
            }),
        );
    }
    print_raw(qr(&pairing.link, host)?.as_bytes())?;
    let text =
        format!("scan the code, or open on the phone:\n\n{link}\n\nuntil {}, once\n", receipt.expires_at);
    print_raw(text.as_bytes())
}

/// The code as a terminal shows it, or why it cannot.
pub fn qr(link: &Link, host: &LinkHost) -> Outcome<String> {
    let code = QrCode::new(link, host)?;
    let (columns, _) = code.terminal_size(TerminalStyle::HalfBlocks);
    if width().is_some_and(|width| width < columns) {
        return Ok(format!("this window is too narrow for a qr code; it takes {columns} columns\n"));
    }
    Ok(code.to_terminal(TerminalStyle::HalfBlocks))
}

/// Follows the ticket until a phone is in, or none can come any more.
async fn wait(
    desktop: &mut Desktop<'_>,
    session: &SessionId,
    shared: &Shared,
    show: Show,
) -> Outcome<ExitCode> {
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        poll.tick().await;
        let Some(entry) = desktop.entry(session, &shared.pairing.ticket).await? else {
            return Err(Problem::said("the agent has forgotten the code; did it restart? pair again"));
        };
        let phone = entry.phone_label.as_ref().map(|label| harmless(label.as_str())).unwrap_or_default();
        match &entry.state {
            ListingState::Open => {}
            ListingState::Pending { code } => {
                let question = format!("the phone `{phone}` shows: {code}\ndoes it? [y/N]");
                show.event(&question, json!({ "event": "pending", "code": code, "phone": phone }))?;
                if !says_yes().await {
                    desktop.revoke(Revoke::Ticket(entry.ticket)).await?;
                    return Err(Problem::said("not confirmed: the code is worth nothing any more"));
                }
                desktop.confirm(&entry).await?;
            }
            ListingState::Active => {
                let text = format!("`{phone}` is in, with {}, until {}", names(entry.ops), entry.expires_at);
                let json = json!({
                    "event": "redeemed", "phone": phone, "credential": entry.credential,
                    "ops": entry.ops, "expires_at": entry.expires_at,
                });
                show.event(&text, json)?;
                return Ok(ExitCode::SUCCESS);
            }
            ListingState::Revoked { why } => {
                let why = name(why);
                return Err(Problem::Said(format!(
                    "the code was revoked ({why}) before a phone was admitted"
                )));
            }
            ListingState::Expired => return Err(Problem::said("no phone came in time; pair again")),
            _ => return Err(Problem::said("the agent is newer than this client; update it")),
        }
    }
}
