//! `attach`: follows the session until it is over, across broken connections.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use sessioncap::phone::PhoneError;
use sessioncap::session::SessionNotice;
use sessioncap::{EndCode, OpSet, Status};
use tokio::sync::mpsc;

use super::{Heard, Live, come_back, ended, is_final, not_taken, refused};
use crate::problem::{Outcome, Problem};
use crate::terminal::{note, print_raw, read_stdin};

/// The first wait before coming back, doubled up to the longest.
const SHORTEST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Standard input, as long as it has not ended.
struct Typed(Option<mpsc::Receiver<Vec<u8>>>);

impl Typed {
    async fn next(&mut self) -> Vec<u8> {
        let next = match &mut self.0 {
            Some(receiver) => receiver.recv().await,
            None => std::future::pending().await,
        };
        match next {
            // What the Enter key sends.
            Some(bytes) => bytes.into_iter().map(|byte| if byte == b'\n' { b'\r' } else { byte }).collect(),
            None => {
                self.0 = None;
                std::future::pending().await
            }
        }
    }
}

pub(super) async fn run(file: &Path, mut live: Option<Live>) -> Outcome<ExitCode> {
    let mut typed = Typed(Some(read_stdin()));
    let mut wait = SHORTEST_WAIT;
    let mut been_in = false;
    let mut shown = None;
    loop {
        let attached = match live.take() {
            Some(live) => Ok(live),
            None => come_back(file, OpSet::EMPTY).await,
        };
        let outcome = match attached {
            Ok(live) => {
                wait = SHORTEST_WAIT;
                been_in = true;
                let mut live = live.resume_after(shown);
                let followed = follow(&mut live, &mut typed).await;
                shown = live.shown();
                followed
            }
            Err(problem) => Err(problem),
        };
        match outcome {
            Ok(()) => return over("the session has ended", ExitCode::SUCCESS),
            Err(Problem::Phone(PhoneError::Refused(Status::SessionGone))) => {
                return over("the session has ended", ExitCode::SUCCESS);
            }
            Err(Problem::TurnedAway) => {
                return over("the agent does not know this pairing any more; pair again", ExitCode::FAILURE);
            }
            // An agent that was there may be starting again; one that never was may be misspelt.
            Err(problem @ Problem::Unreachable { .. }) if !been_in => {
                return over(&problem.to_string(), ExitCode::FAILURE);
            }
            Err(problem) if is_final(&problem) => return over(&problem.to_string(), ExitCode::FAILURE),
            Err(problem) => note(&format!("companion: {problem}; coming back")),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

fn over(why: &str, code: ExitCode) -> Outcome<ExitCode> {
    note(&format!("companion: {why}"));
    Ok(code)
}

/// One connection's life.
async fn follow(live: &mut Live, typed: &mut Typed) -> Outcome<()> {
    live.start_output().await?;
    loop {
        tokio::select! {
            next = live.next() => match next? {
                Heard::Output(bytes) => print_raw(&bytes)?,
                Heard::Screen { missing, bytes, .. } => {
                    match missing {
                        Some(0) => {}
                        Some(missing) => note(&format!("companion: {missing} bytes of output are left out here")),
                        None => note("companion: the session was started again"),
                    }
                    print_raw(&bytes)?;
                }
                Heard::Refusal(notice) => note(&format!("companion: {}", refused(notice))),
                Heard::Typed(SessionNotice::NotTaken { why, .. }) => note(&format!("companion: {}", not_taken(why))),
                Heard::Following(_) | Heard::Answer { .. } | Heard::Typed(_) | Heard::Happened(_) => {}
                Heard::End(code) => match code.status() {
                    Some(Status::SessionGone) => return Ok(()),
                    None if code == EndCode::LEFT => return Ok(()),
                    _ => return Err(ended(code)),
                },
            },
            bytes = typed.next() => live.type_in(&bytes).await.map(drop)?,
        }
    }
}
