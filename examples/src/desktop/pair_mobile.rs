//! `session pair-mobile`: shows a link and its QR code, and waits for the phone.
//!
//! The code is bound to this program: while the program runs it follows what becomes of the code, across broken
//! links, and when the program ends without a phone it takes the code back.

use std::process::ExitCode;
use std::time::Duration;

use rand::Rng;
use rand::rngs::OsRng;
use rand::seq::SliceRandom;
use serde_json::{Value, json};
use sessioncap::desktop::PairingTerms;
use sessioncap::pair::{Listing, ListingState, Revoke};
use sessioncap::{LinkHost, PairCode, SessionId, TicketId, Timestamp};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::code::{self, Form, Window};
use super::{Desktop, Shared};
use crate::desktop::cli::{name, names};
use crate::outage::Outage;
use crate::problem::{Outcome, Problem, While};
use crate::terminal::viewer::Viewer;
use crate::terminal::{Answers, harmless, print_raw};

/// How often the agent is asked what has become of the ticket.
const POLL: Duration = Duration::from_millis(500);
/// How long after a code's end it is no longer tried to take it back.
const AFTER_END: u64 = 5;
/// Codes that a person chooses from.
const CHOICES: usize = 3;

/// How the outcome is shown.
#[derive(Clone, Copy)]
pub(super) enum Show<'a> {
    /// For a person, with a QR code.
    Text,
    /// One JSON object for each thing that happens.
    Json,
    /// In a viewer's window.
    Viewer(&'a Viewer),
}

impl Show<'_> {
    /// What cannot be shown any more must keep nobody from taking a code back.
    pub(super) async fn event(self, text: &str, json: Value) {
        let _ = match self {
            Self::Text => print_raw(format!("{text}\n").as_bytes()),
            Self::Json => print_raw(format!("{json}\n").as_bytes()),
            Self::Viewer(viewer) => viewer.more(&format!("{text}\n")).await,
        };
    }
}

/// How a phone is confirmed, if it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// The digits that the phone shows are typed.
    Digits,
    /// One of several codes is chosen.
    Choice,
}

/// What was asked for, beside the terms.
pub(super) struct Options {
    pub host: LinkHost,
    pub form: Form,
    pub question: Question,
    /// Whether the code stays good when this program ends.
    pub leave_open: bool,
}

/// A code that may be open.
pub(super) struct Offered {
    session: SessionId,
    ticket: TicketId,
    expires_at: Timestamp,
    /// When it can have been redeemed at last, by this machine's clock.
    over: Instant,
}

/// How waiting for a phone ended.
pub(super) enum Waited {
    /// A phone is in.
    In,
    /// No phone can come any more.
    Closed(Problem),
}

pub(super) async fn run(
    desktop: &mut Desktop<'_>,
    session: &SessionId,
    terms: &PairingTerms,
    options: &Options,
    show: Show<'_>,
) -> Outcome<ExitCode> {
    // Watched from before the offer, so that neither Ctrl-C nor a closed window leaves it open.
    let mut signals = Signals::watch()?;
    let (shared, offered) = offer(desktop, session, terms).await?;
    code::write_pictures(&shared.pairing.link, &options.host, &options.form)?;
    show_link(&shared, options, show).await?;
    let mut answers = Answers::default();
    let outcome = tokio::select! {
        outcome = wait(desktop, &offered, options.question, &mut answers, show) => Some(outcome),
        () = signals.next() => None,
    };
    match outcome {
        Some(Ok(Waited::In)) => return Ok(ExitCode::SUCCESS),
        Some(Ok(Waited::Closed(problem))) => return Err(problem),
        None if options.leave_open => {
            let text = format!("the code stays good until {}", offered.expires_at);
            show.event(&text, json!({ "event": "left_open", "until": offered.expires_at })).await;
            return Ok(ExitCode::FAILURE);
        }
        Some(Err(_)) | None => {}
    }
    let taken = tokio::select! {
        taken = take_back(desktop, &offered, show) => taken,
        () = signals.next() => Err(Problem::said("interrupted")),
    };
    let (until, ticket) = (offered.expires_at, offered.ticket);
    let code = taken.during(format_args!(
        "the code could not be revoked and may be used until {until}; `session revoke {ticket}` revokes it"
    ))?;
    match outcome {
        Some(Err(problem)) => Err(problem),
        _ => Ok(code),
    }
}

/// The signals that end a program.
struct Signals(Signal, Signal, Signal);

impl Signals {
    fn watch() -> Outcome<Self> {
        let watched = |kind| signal(kind).during("signals cannot be watched");
        Ok(Self(
            watched(SignalKind::interrupt())?,
            watched(SignalKind::terminate())?,
            watched(SignalKind::hangup())?,
        ))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
            _ = self.2.recv() => {}
        }
    }
}

/// Lodges an offer.
pub(super) async fn offer(
    desktop: &mut Desktop<'_>,
    session: &SessionId,
    terms: &PairingTerms,
) -> Outcome<(Shared, Offered)> {
    let asked = Instant::now();
    let shared = desktop.share(session, terms).await?;
    let lifetime = shared.receipt.expires_at.since(shared.receipt.agent_time);
    let offered = Offered {
        session: session.clone(),
        ticket: shared.pairing.ticket,
        expires_at: shared.receipt.expires_at,
        over: asked + Duration::from_secs(lifetime.saturating_add(AFTER_END)),
    };
    Ok((shared, offered))
}

async fn show_link(shared: &Shared, options: &Options, show: Show<'_>) -> Outcome<()> {
    let Shared { pairing, receipt } = shared;
    if let Show::Json = show {
        let link = pairing.link.to_https(&options.host)?;
        let event = json!({
            "event": "offered",
            "link": link,
            "ticket": pairing.ticket,
            "credential": pairing.credential,
            "ticket_expires_at": receipt.expires_at,
        });
        show.event("", event).await;
        return Ok(());
    }
    let until = receipt.expires_at.to_string();
    let window = match (show, Window::of_stdout()) {
        // A viewer has one more line below.
        (Show::Viewer(_), Window::Terminal(columns, lines)) => {
            Window::Terminal(columns, lines.saturating_sub(1))
        }
        (_, window) => window,
    };
    let page = code::page(&pairing.link, &options.host, &until, &options.form, window)?;
    match show {
        Show::Viewer(viewer) => viewer.page(&page).await,
        _ => print_raw(page.as_bytes()),
    }
}

/// Shows a code in a viewer's window.
pub(super) async fn show_in(viewer: &Viewer, shared: &Shared) -> Outcome<()> {
    let options = Options {
        host: LinkHost::Agent,
        form: Form::default(),
        question: Question::Digits,
        leave_open: false,
    };
    show_link(shared, &options, Show::Viewer(viewer)).await
}

/// What has become of the code, asked until the agent answers or the code's end has passed.
async fn look(
    desktop: &mut Desktop<'_>,
    offered: &Offered,
    outage: &mut Outage,
    show: Show<'_>,
) -> Outcome<Option<Listing>> {
    loop {
        let entry = match outage.lasts() {
            true => desktop.resume().await,
            false => Ok(()),
        };
        let entry = match entry {
            Ok(()) => desktop.entry(&offered.session, &offered.ticket).await,
            Err(problem) => Err(problem),
        };
        match entry {
            Ok(entry) => {
                if outage.lasts() {
                    show.event("the agent is back", json!({ "event": "reachable" })).await;
                }
                outage.over();
                return Ok(entry);
            }
            Err(problem) if problem.is_passing() => pause(offered, outage, &problem, show).await?,
            Err(problem) => return Err(problem),
        }
    }
}

/// Says that the agent is away, and pauses. An error once the code's end has passed.
async fn pause(offered: &Offered, outage: &mut Outage, problem: &Problem, show: Show<'_>) -> Outcome<()> {
    let (pause, text) = outage.failed(problem);
    if Instant::now() >= offered.over {
        return Err(Problem::Said(format!("{text}; the code has run out meanwhile, and is worth nothing")));
    }
    let text = format!("{text}; trying again, or the code may be used until {}", offered.expires_at);
    show.event(&text, json!({ "event": "unreachable", "detail": text })).await;
    // A code that ends is not waited for beyond its end.
    let end = offered.over.saturating_duration_since(Instant::now());
    sleep(pause.min(end)).await;
    Ok(())
}

/// Revokes the code, unless a phone was admitted. Tries until the agent has answered or the code's end has passed.
pub(super) async fn take_back(
    desktop: &mut Desktop<'_>,
    offered: &Offered,
    show: Show<'_>,
) -> Outcome<ExitCode> {
    let mut outage = Outage::default();
    loop {
        // On a new connection: a request may have been abandoned in the middle.
        let taken = async {
            desktop.resume().await?;
            let entry = desktop.entry(&offered.session, &offered.ticket).await?;
            if entry.is_some_and(|entry| entry.state == ListingState::Active) {
                return Ok(true);
            }
            desktop.revoke(Revoke::Ticket(offered.ticket)).await.map(|_| false)
        };
        match taken.await {
            Ok(true) => {
                let text = "the phone is in; revoke it if you did not mean that";
                show.event(text, json!({ "event": "redeemed" })).await;
                return Ok(ExitCode::SUCCESS);
            }
            Ok(false) => {
                let text = "given up: the code is worth nothing any more";
                show.event(text, json!({ "event": "revoked" })).await;
                return Ok(ExitCode::FAILURE);
            }
            Err(problem) if problem.is_passing() => {
                if let Err(ran_out) = pause(offered, &mut outage, &problem, show).await {
                    show.event(&ran_out.to_string(), json!({ "event": "expired" })).await;
                    return Ok(ExitCode::FAILURE);
                }
            }
            Err(problem) => return Err(problem),
        }
    }
}

/// Follows the ticket until a phone is in, or none can come any more.
pub(super) async fn wait(
    desktop: &mut Desktop<'_>,
    offered: &Offered,
    question: Question,
    answers: &mut Answers,
    show: Show<'_>,
) -> Outcome<Waited> {
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut outage = Outage::default();
    // The phone that the person is asked about.
    let mut asked: Option<PairCode> = None;
    let mut choices = Vec::new();
    loop {
        let answer = tokio::select! {
            _ = poll.tick() => None,
            answer = answers.next(), if asked.is_some() => Some(answer.unwrap_or_default()),
        };
        let Some(entry) = look(desktop, offered, &mut outage, show).await? else {
            return Ok(closed("the agent has forgotten the code; did it restart? pair again"));
        };
        let phone = entry.phone_label.as_ref().map(|label| harmless(label.as_str())).unwrap_or_default();
        match &entry.state {
            ListingState::Open => {}
            ListingState::Pending { code } => {
                if asked != Some(*code) {
                    choices = choices_for(*code, question);
                    // What was typed before the question answers nothing.
                    answers.forget();
                    ask(&phone, *code, &choices, show).await;
                    asked = Some(*code);
                } else if let Some(answer) = answer {
                    let chosen =
                        answer.parse().ok().and_then(|number: usize| choices.get(number.checked_sub(1)?));
                    if chosen != Some(code) && digits(&answer) != digits(&code.to_string()) {
                        decline(desktop, offered, show).await?;
                        return Ok(closed("not confirmed: the code is worth nothing any more"));
                    }
                    match desktop.confirm(&entry).await {
                        Err(problem) if problem.is_passing() => {
                            pause(offered, &mut outage, &problem, show).await?;
                            // The person answers anew: another phone may wait by then.
                            asked = None;
                        }
                        outcome => outcome?,
                    }
                }
            }
            ListingState::Active => {
                let text = format!("`{phone}` is in, with {}, until {}", names(entry.ops), entry.expires_at);
                let json = json!({
                    "event": "redeemed", "phone": phone, "credential": entry.credential,
                    "ops": entry.ops, "expires_at": entry.expires_at,
                });
                show.event(&text, json).await;
                return Ok(Waited::In);
            }
            ListingState::Revoked { why } => {
                let why = name(why);
                return Ok(closed(&format!("the code was revoked ({why}) before a phone was admitted")));
            }
            ListingState::Expired => return Ok(closed("no phone came in time; pair again")),
            _ => return Err(Problem::said("the agent is newer than this client; update it")),
        }
    }
}

fn closed(why: &str) -> Waited {
    Waited::Closed(Problem::said(why))
}

/// Revokes the code of a phone that was not confirmed, as long as that takes.
async fn decline(desktop: &mut Desktop<'_>, offered: &Offered, show: Show<'_>) -> Outcome<()> {
    match desktop.revoke(Revoke::Ticket(offered.ticket)).await {
        Err(problem) if problem.is_passing() => take_back(desktop, offered, show).await.map(drop),
        outcome => outcome.map(drop),
    }
}

/// Asks about a phone. Its digits are not shown where they are to be typed: whoever does not look at the phone has
/// nothing to type.
async fn ask(phone: &str, code: PairCode, choices: &[PairCode], show: Show<'_>) {
    let mut question = format!("the phone `{phone}` asks to be let in.\n");
    match choices {
        [] => question += "type the six digits that it shows; anything else declines:",
        _ => {
            for (number, choice) in choices.iter().enumerate() {
                question += &format!("  {}:  {choice}\n", number + 1);
            }
            question +=
                &format!("which of these does it show? 1 to {}; anything else declines:", choices.len());
        }
    }
    // A program that shows the digits in a window of its own needs them.
    let json = json!({ "event": "pending", "code": code, "phone": phone, "choices": choices });
    show.event(&question, json).await;
}

/// The code among others, where one is to be chosen.
fn choices_for(code: PairCode, question: Question) -> Vec<PairCode> {
    let mut choices = Vec::new();
    if question == Question::Choice {
        choices.push(code);
        while choices.len() < CHOICES {
            let number = OsRng.gen_range(0..1_000_000_u32);
            let other = format!("{:03} {:03}", number / 1_000, number % 1_000).parse();
            choices.extend(other.ok().filter(|other| !choices.contains(other)));
        }
        choices.shuffle(&mut OsRng);
    }
    choices
}

/// Six digits as a person writes them, with or without a space between.
fn digits(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    (digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(digits)
}
