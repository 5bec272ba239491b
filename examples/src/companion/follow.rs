//! `attach`: follows the session until it is over, across broken connections.
//!
//! On a terminal every key goes to the session, and Ctrl-] leaves. From a pipe, lines are typed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use sessioncap::phone::PhoneError;
use sessioncap::session::{ResumePoint, SessionNotice};
use sessioncap::{EndCode, Notice, OpSet, Status};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Duration, sleep};

use super::{BRIEFLY, Heard, Live, come_back, ended, is_final, is_refusal, not_taken, refused};
use crate::outage::Outage;
use crate::problem::{Outcome, Problem, While};
use crate::terminal::keys::{Keys, Typed};
use crate::terminal::viewer::Viewer;
use crate::terminal::{note, read_stdin};

/// How long a key that may be the beginning of another is held back.
const HOLD: Duration = Duration::from_millis(50);

/// Standard input, as long as it has not ended.
struct Input {
    chunks: Option<mpsc::Receiver<Vec<u8>>>,
    keys: Keys,
    raw: bool,
}

/// What was typed.
enum Entered {
    Bytes(Vec<u8>),
    Leave,
}

impl Input {
    /// Cancel-safe.
    async fn next(&mut self, brackets: bool) -> Vec<Entered> {
        let held = self.keys.holds();
        let chunk = async {
            match &mut self.chunks {
                Some(chunks) => chunks.recv().await,
                None => std::future::pending().await,
            }
        };
        let typed = tokio::select! {
            chunk = chunk => match chunk {
                Some(bytes) if self.raw => self.keys.feed(&bytes, brackets),
                // What the Enter key sends.
                Some(bytes) => {
                    let enter = |byte| if byte == b'\n' { b'\r' } else { byte };
                    vec![Typed::Bytes(bytes.into_iter().map(enter).collect())]
                }
                None => {
                    self.chunks = None;
                    Vec::new()
                }
            },
            () = sleep(HOLD), if held => vec![Typed::Bytes(self.keys.flush())],
        };
        let entered = |typed| match typed {
            Typed::Bytes(bytes) => Entered::Bytes(bytes),
            Typed::Leader => Entered::Leave,
        };
        typed.into_iter().map(entered).collect()
    }
}

/// How following ended.
enum Next {
    Over,
    Left,
    Signal(u8),
}

struct Phone<'a> {
    file: &'a Path,
    viewer: Viewer,
    input: Input,
    signals: [Signal; 3],
    shown: Option<ResumePoint>,
    /// How many bytes each message has typed of which nothing is known yet.
    typed: BTreeMap<u64, usize>,
}

pub(super) async fn run(file: &Path, live: Option<Live>) -> Outcome<ExitCode> {
    let watched = |kind| signal(kind).during("signals cannot be watched");
    let signals = [
        watched(SignalKind::hangup())?,
        watched(SignalKind::interrupt())?,
        watched(SignalKind::terminate())?,
    ];
    let viewer = Viewer::enter()?;
    viewer.bracket_pastes().await?;
    let input = Input { chunks: Some(read_stdin()), keys: Keys::default(), raw: viewer.is_raw() };
    let mut phone = Phone { file, viewer, input, signals, shown: None, typed: BTreeMap::new() };
    let outcome = phone.stay(live).await;
    phone.viewer.finish().await;
    match outcome {
        Ok(Next::Over) => over("the session has ended", ExitCode::SUCCESS),
        Ok(Next::Left) => over("left; the session continues", ExitCode::SUCCESS),
        Ok(Next::Signal(number)) => over("left; the session continues", ExitCode::from(128 + number)),
        Err(Problem::TurnedAway) => {
            over("the agent does not know this pairing any more; pair again", ExitCode::FAILURE)
        }
        Err(problem) => over(&problem.to_string(), ExitCode::FAILURE),
    }
}

fn over(why: &str, code: ExitCode) -> Outcome<ExitCode> {
    note(&format!("companion: {why}"));
    Ok(code)
}

impl Phone<'_> {
    async fn stay(&mut self, mut live: Option<Live>) -> Outcome<Next> {
        let mut outage = Outage::default();
        let (mut been_in, mut tries) = (false, 0);
        loop {
            let attached = match live.take() {
                Some(live) => Ok(live),
                None => {
                    let file = self.file;
                    tokio::select! {
                        attached = come_back(file, OpSet::EMPTY) => attached,
                        next = self.leaves() => return Ok(next),
                    }
                }
            };
            let outcome = match attached {
                Ok(live) => {
                    been_in = true;
                    let mut live = live.resume_after(self.shown);
                    let followed = self.follow(&mut live).await;
                    self.shown = live.shown();
                    if live.has_heard() {
                        outage.over();
                    }
                    if matches!(followed, Ok(Next::Left | Next::Signal(_))) {
                        live.leave().await;
                    }
                    followed
                }
                Err(problem) => Err(problem),
            };
            let problem = match outcome {
                Ok(next) => return Ok(next),
                Err(Problem::Phone(PhoneError::Refused(Status::SessionGone))) => return Ok(Next::Over),
                Err(problem) if is_final(&problem) => return Err(problem),
                // An agent that was there may be starting again; one that never was may be misspelt.
                Err(problem @ Problem::Unreachable { .. }) if !been_in => return Err(problem),
                Err(problem) => problem,
            };
            tries += 1;
            if !been_in && tries >= BRIEFLY {
                return Err(problem);
            }
            self.unknown().await?;
            let (pause, text) = outage.failed(&problem);
            self.viewer.say(&format!("companion: {text}; coming back")).await?;
            tokio::select! {
                () = sleep(pause) => {}
                next = self.leaves() => return Ok(next),
            }
        }
    }

    /// What was typed on a connection that is lost, and not taken or refused, may have arrived or not.
    async fn unknown(&mut self) -> Outcome<()> {
        let bytes: usize = std::mem::take(&mut self.typed).into_values().sum();
        if bytes == 0 {
            return Ok(());
        }
        let text =
            format!("it is unknown whether the last {bytes} typed bytes arrived; they are not typed again");
        self.say(&text).await
    }

    /// One connection's life.
    async fn follow(&mut self, live: &mut Live) -> Outcome<Next> {
        live.start_output().await?;
        loop {
            let brackets = self.viewer.brackets_pastes();
            tokio::select! {
                heard = live.next() => if let Some(next) = self.take(heard?).await? {
                    return Ok(next);
                },
                entered = self.input.next(brackets) => for entered in entered {
                    match entered {
                        Entered::Bytes(bytes) if bytes.is_empty() => {}
                        Entered::Bytes(bytes) => {
                            // Also where sending fails: some of it may have left.
                            self.typed.insert(live.next_number(), bytes.len());
                            live.type_in(&bytes).await?;
                        }
                        Entered::Leave => return Ok(Next::Left),
                    }
                },
                number = next_signal(&mut self.signals) => return Ok(Next::Signal(number)),
            }
        }
    }

    async fn take(&mut self, heard: Heard) -> Outcome<Option<Next>> {
        match heard {
            Heard::Output(bytes) => self.viewer.show(bytes).await?,
            Heard::Screen { missing, bytes, .. } => {
                self.viewer.show(bytes).await?;
                match missing {
                    Some(0) => {}
                    Some(missing) => {
                        self.say(&format!("\u{2026} {} bytes are missing", grouped(missing))).await?
                    }
                    // Nothing was shown before, so nothing is missing.
                    None if self.shown.is_none() => {}
                    None => self.say("the session was started again; what was before it is missing").await?,
                }
            }
            Heard::Typed(SessionNotice::Taken { number }) => drop(self.typed.remove(&number)),
            Heard::Typed(SessionNotice::NotTaken { number, why }) => {
                self.typed.remove(&number);
                self.say(&format!("not delivered: {}", not_taken(why))).await?;
            }
            Heard::Refusal(notice) => self.refuse(notice).await?,
            Heard::Following(_) | Heard::Answer { .. } | Heard::Typed(_) | Heard::Happened(_) => {}
            Heard::End(code) => match code.status() {
                Some(Status::SessionGone) => return Ok(Some(Next::Over)),
                None if code == EndCode::LEFT => return Ok(Some(Next::Over)),
                _ => return Err(ended(code)),
            },
        }
        Ok(None)
    }

    async fn refuse(&mut self, notice: Notice) -> Outcome<()> {
        let typed = is_refusal(&notice) && self.typed.remove(&notice.number).is_some();
        let what = if typed { "not delivered: " } else { "" };
        self.say(&format!("{what}{}", refused(notice))).await
    }

    async fn say(&self, text: &str) -> Outcome<()> {
        self.viewer.say(&format!("companion: {text}")).await
    }

    /// Waits until the person leaves, while there is no connection. What a terminal's keys say meanwhile goes nowhere;
    /// a pipe's lines wait.
    async fn leaves(&mut self) -> Next {
        loop {
            tokio::select! {
                entered = self.input.next(true), if self.input.raw => {
                    if entered.iter().any(|entered| matches!(entered, Entered::Leave)) {
                        return Next::Left;
                    }
                }
                number = next_signal(&mut self.signals) => return Next::Signal(number),
            }
        }
    }
}

async fn next_signal(signals: &mut [Signal; 3]) -> u8 {
    let [hang_up, interrupt, terminate] = signals;
    tokio::select! {
        _ = hang_up.recv() => 1,
        _ = interrupt.recv() => 2,
        _ = terminate.recv() => 15,
    }
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
