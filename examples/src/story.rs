//! The whole story in one process: an agent, a desktop and phones, over real WebSockets on loopback
//! and a real terminal. Every step checks what it shows.

mod stage;
pub mod teller;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;
use sessioncap::desktop::{Confirmation, PairingTerms};
use sessioncap::pair::{ListingState, Revoke, Revoked};
use sessioncap::phone::PhoneError;
use sessioncap::{Label, Link, Op, OpSet, SessionId, Status};

use super::companion::state::Pairing;
use super::companion::{self, Joined, Live, Progress};
use super::desktop::{Desktop, log};
use super::problem::{Outcome, Problem};
use stage::{Stage, see, see_end};
use teller::{check, unlike};

/// A session that prints something, asks something, and then runs what is typed.
const SCRIPT: &str = "echo 'build: 3 of 3 tests pass'
printf 'deploy to staging? [y/N] '
read -r answer
case $answer in y) echo 'deploying, as answered' ;; *) echo 'left alone' ;; esac
while read -r line; do echo \"you said: $line\"; done";

/// The shortest ticket that an agent takes, seconds.
const SHORT_TICKET: u64 = 30;

/// Runs the story, or returns the step that went wrong.
pub async fn run() -> Outcome<ExitCode> {
    let stage = Stage::set_up().await?;
    let told = tell(&stage).await;
    stage.clear().await;
    told.map(|()| ExitCode::SUCCESS)
}

async fn tell(stage: &Stage) -> Outcome<()> {
    let mut desktop = Desktop::connect(&stage.identity).await?;
    let session = a_session_starts(stage, &mut desktop).await?;
    let link = the_desktop_shares_it(stage, &mut desktop, &session).await?;
    let (mut phone, pairing) = a_phone_redeems(stage, &link).await?;
    it_follows_and_answers(stage, &mut phone).await?;
    it_can_do_nothing_else(stage, &mut phone).await?;
    the_desktop_leaves(stage, desktop, &mut phone).await?;
    a_widget_gets_less(stage, &pairing).await?;
    the_desktop_renews(stage, &session, &mut phone).await?;
    an_answer_gets_lost(stage, &link, &pairing).await?;
    two_phones_show_one_code(stage, &link, phone).await?;
    the_desktop_revokes_it(stage, &session).await?;
    a_code_expires(stage, &session).await?;
    what_has_happened(stage, &session).await?;
    stage.step("Done.");
    Ok(())
}

async fn a_session_starts(stage: &Stage, desktop: &mut Desktop<'_>) -> Outcome<SessionId> {
    stage.step("The desktop starts a session at its agent.");
    let session = desktop.create_session(Some("release"), Some(SCRIPT)).await?;
    stage.say(&format!("session {session}"));
    Ok(session)
}

async fn the_desktop_shares_it(
    stage: &Stage,
    desktop: &mut Desktop<'_>,
    session: &SessionId,
) -> Outcome<Link> {
    stage.step("`session pair-mobile`: it shows a code that works once, for five minutes.");
    let terms = PairingTerms::default().with_label(Label::new("my phone")?);
    let shared = desktop.share(session, &terms).await?;
    stage.show_link(&shared.pairing.link, &shared.receipt.expires_at.to_string())?;
    stage.say("No key of the session, the desktop or the phone is in it.");
    let entry = desktop.entry(session, &shared.pairing.ticket).await?;
    check(entry.is_some_and(|entry| entry.state == ListingState::Open), "the ticket waits for a phone")?;
    Ok(shared.pairing.link)
}

async fn a_phone_redeems(stage: &Stage, link: &Link) -> Outcome<(Live, Pairing)> {
    stage.step("A phone scans it and redeems it, in one round trip.");
    let file = stage.file("phone.json");
    let Joined { pairing, mut live, message_lengths: (first, second) } =
        companion::join(link, &Label::new("phone")?, &file, |_| {}).await?;
    live.start_output().await?;
    stage.say(&format!("message 1: {first} bytes, message 2: {second} bytes"));

    let device = stage.typical(|| async { Desktop::connect(&stage.identity).await.map(drop) }).await?;
    let again = stage.typical(|| async { companion::attach(&pairing, OpSet::EMPTY).await.map(drop) }).await?;
    let ratio = again.as_secs_f64() / device.as_secs_f64().max(f64::MIN_POSITIVE);
    stage.say(&format!("attaching again takes {ratio:.1} times as long as an enrolled device's connect"));
    check(live.ops == OpSet::COMPANION, "the phone gets the companion's operations")?;
    Ok((live, pairing))
}

async fn it_follows_and_answers(stage: &Stage, phone: &mut Live) -> Outcome<()> {
    stage.step("The phone sees the session's output.");
    stage.show(&see(phone, "deploy to staging? [y/N] ").await?);
    stage.step("It answers the prompt, and the shell continues.");
    phone.type_in(b"y\r").await.map(drop)?;
    stage.show(&see(phone, "deploying, as answered").await?);
    Ok(())
}

async fn it_can_do_nothing_else(stage: &Stage, phone: &mut Live) -> Outcome<()> {
    stage.step("Nothing else is allowed. Each is tried over the wire:");
    let own = phone.session.to_string();
    let tries = [
        ("list the fleet", json!({ "method": "list" }), "privilege_denied"),
        ("new session", json!({ "method": "shell.create_session", "command": "id" }), "privilege_denied"),
        ("deploy", json!({ "method": "deploy", "app": "x" }), "privilege_denied"),
        ("run a command", json!({ "method": "exec", "cmd": ["id"] }), "privilege_denied"),
        ("configure", json!({ "method": "session/set_mode", "mode": "yolo" }), "privilege_denied"),
        ("enrol", json!({ "method": "pair.register_issuer", "registration": "" }), "privilege_denied"),
        ("read a file", json!({ "method": "fs/read_text_file", "path": "/etc/passwd" }), "privilege_denied"),
        ("close it", json!({ "method": "shell.close_session", "id": own }), "privilege_denied"),
        ("another session", json!({ "method": "shell.replay_session", "id": "other" }), "other_session"),
        (
            "resize it",
            json!({ "method": "shell.resize_session", "cols": 9, "rows": 9 }),
            "operation_not_granted",
        ),
        ("its history", json!({ "method": "shell.replay_session", "id": own }), "operation_not_granted"),
    ];
    for (what, request, expected) in tries {
        match phone.call(&request).await {
            Err(Problem::Refused { code, detail, .. }) if code == expected => {
                stage.say(&format!("{what:<15} {detail}"));
            }
            other => return Err(unlike(&format!("`{what}` is refused with {expected}"), &other)),
        }
    }
    let seen = phone.call(&json!({ "method": "shell.list_sessions" })).await?;
    let sessions = seen.get("sessions").and_then(serde_json::Value::as_array).map_or(0, Vec::len);
    check(sessions == 1 && seen.to_string().contains(&own), "a list of sessions shows the phone's own only")
}

async fn the_desktop_leaves(stage: &Stage, desktop: Desktop<'_>, phone: &mut Live) -> Outcome<()> {
    stage.step("The desktop disconnects. The phone stays connected.");
    desktop.disconnect().await;
    phone.type_in(b"still here\r").await?;
    stage.show(&see(phone, "you said: still here").await?);
    Ok(())
}

async fn a_widget_gets_less(stage: &Stage, pairing: &Pairing) -> Outcome<()> {
    stage.step("The phone narrows its credential for a widget, without asking anyone.");
    let narrower = companion::cli::narrow(pairing, Some(OpSet::only(Op::StreamOutput)), None)?;
    let mut widget = companion::attach(&narrower, OpSet::EMPTY).await?;
    widget.start_output().await?;
    see(&mut widget, "you said: still here").await?;
    stage.say("It sees the output. It types:");
    widget.type_in(b"from the widget\r").await?;
    stage.say(&stage::next_refusal(&mut widget, "operation_not_granted").await?);
    widget.leave().await;
    Ok(())
}

async fn the_desktop_renews(stage: &Stage, session: &SessionId, phone: &mut Live) -> Outcome<()> {
    stage.step("`session renew --ops stream_output`: the phone can now only read.");
    let mut desktop = Desktop::connect(&stage.identity).await?;
    let entries = desktop.entries(Some(session)).await?;
    let entry = entries.first().ok_or_else(|| Problem::said("the phone is not on the list"))?;
    let receipt = desktop.renew(entry, Some(OpSet::only(Op::StreamOutput)), None).await?;
    check(!receipt.waiting, "the new terms take effect at once")?;
    phone.type_in(b"one more thing\r").await?;
    stage.say(&stage::next_refusal(phone, "operation_not_granted").await?);
    let mut terminal = desktop.attach(session).await?;
    terminal.send(b"for whoever looks\r").await?;
    stage.show(&see(phone, "you said: for whoever looks").await?);
    stage.say("No new scan, and the phone's stream has not been interrupted.");
    terminal.end().await;
    Ok(())
}

async fn what_has_happened(stage: &Stage, session: &SessionId) -> Outcome<()> {
    stage.step("`session log`: the last records.");
    let mut desktop = Desktop::connect(&stage.identity).await?;
    let log = desktop.log(Some(session)).await?;
    desktop.disconnect().await;
    let lines = log::lines(&log, false, Some(teller::WIDTH - 4));
    check(lines.iter().any(|line| line.contains("revoked: by its owner")), "the revocation is in the log")?;
    stage.list(lines.get(lines.len().saturating_sub(6)..).unwrap_or_default());
    Ok(())
}

async fn an_answer_gets_lost(stage: &Stage, link: &Link, pairing: &Pairing) -> Outcome<()> {
    stage.step("As after a lost answer, the same phone redeems the same code again.");
    let again = companion::join(link, &Label::new("phone")?, &stage.file("phone.json"), |_| {}).await?;
    again.live.leave().await;
    check(again.pairing.credential()? == pairing.credential()?, "it gets the same credential")?;
    stage.say("It gets the same credential, byte for byte.");
    Ok(())
}

async fn two_phones_show_one_code(stage: &Stage, link: &Link, mut first: Live) -> Outcome<()> {
    stage.step("A second phone has photographed the code.");
    let second = companion::join(link, &Label::new("stranger")?, &stage.file("second.json"), |_| {}).await;
    stage::refused_with(Status::Revoked, second)?;
    stage.say("It is refused. Nobody can tell which of the two is the owner's, so");
    let (code, detail) = see_end(&mut first, "").await?;
    check(code == "revoked", "the first phone is told of the contest")?;
    stage.say(&format!("the first is cut off too: {detail}"));
    Ok(())
}

async fn the_desktop_revokes_it(stage: &Stage, session: &SessionId) -> Outcome<()> {
    stage.step("They pair again. This time the desktop has to confirm the phone.");
    let mut desktop = Desktop::connect(&stage.identity).await?;
    let terms = PairingTerms::default().with_confirmation(Confirmation::Required);
    let shared = desktop.share(session, &terms).await?;
    let (mut shown, label, file) = (None, Label::new("phone")?, stage.file("third.json"));
    let joining = companion::join(&shared.pairing.link, &label, &file, |progress| {
        if let Progress::Waiting(code) = progress {
            shown = Some(code.to_string());
        }
    });
    let confirming = stage::confirm(&mut desktop, session, &shared.pairing.ticket);
    let (joined, on_desktop) = tokio::join!(joining, confirming);
    let (mut phone, on_desktop) = (joined?.live, on_desktop?);
    check(shown.as_deref() == Some(on_desktop.as_str()), "both screens show the same digits")?;
    stage.say(&format!("Both screens show {on_desktop}. The desktop confirms, and the phone is admitted."));
    phone.start_output().await?;
    see(&mut phone, "you said: still here").await?;

    stage.step("`session revoke`: the stream is cut at once.");
    let revoked = desktop.revoke(Revoke::Ticket(shared.pairing.ticket)).await?;
    check(revoked == Revoked::Ended { pairings: 1 }, "the agent says that it ended one phone's credential")?;
    // The session continues, and its output must not reach the phone from here on.
    let mut terminal = desktop.attach(session).await?;
    terminal.send(b"after the revocation\r").await?;
    stage::see_raw(&mut terminal, "you said: after the revocation").await?;
    let (code, detail) = see_end(&mut phone, "after the revocation").await?;
    check(code == "revoked", "the phone is told that it was revoked")?;
    stage.say(&format!("{detail}; nothing that the session printed since has reached it"));
    terminal.end().await;
    let back = companion::attach(&Pairing::open(&file)?, OpSet::EMPTY).await;
    stage::refused_with(Status::Revoked, back)
}

async fn a_code_expires(stage: &Stage, session: &SessionId) -> Outcome<()> {
    stage.step("A code is left unused for 31 seconds, on the agent's clock.");
    let mut desktop = Desktop::connect(&stage.identity).await?;
    let terms = PairingTerms::default().with_ticket_lifetime(SHORT_TICKET)?;
    let shared = desktop.share(session, &terms).await?;
    stage.move_clock(Duration::from_secs(SHORT_TICKET + 1));
    let late =
        companion::join(&shared.pairing.link, &Label::new("late")?, &stage.file("late.json"), |_| {}).await;
    stage::refused_with(Status::Expired, late)?;
    stage.say(&PhoneError::Refused(Status::Expired).to_string());
    desktop.disconnect().await;
    Ok(())
}

/// How long something takes.
async fn timed<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<Duration> {
    let start = Instant::now();
    work.await.map(|_| start.elapsed())
}
