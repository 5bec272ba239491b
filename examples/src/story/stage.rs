//! The setting of the story: an agent with a clock that can be moved, the desktop's files, and checks of the output.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sessioncap::pair::ListingState;
use sessioncap::phone::PhoneError;
use sessioncap::session::SessionNotice;
use sessioncap::{SessionId, Status, TicketId};
use time::UtcOffset;
use uuid::Uuid;

use super::teller::{Teller, check, in_time, unlike};
use super::timed;
use crate::agent::{self, Running};
use crate::clock::Clock;
use crate::companion::{self, Heard, Live};
use crate::desktop::profile::Profile;
use crate::desktop::{Desktop, Identity};
use crate::problem::{Outcome, Problem};
use crate::terminal::{harmless, tell};
use crate::transport::Secure;

/// Where the story plays.
pub struct Stage {
    /// The desktop's.
    pub identity: Identity,
    agent: Running,
    directory: PathBuf,
    /// Seconds that the agent's clock is ahead.
    ahead: Arc<AtomicI64>,
    teller: Teller,
}

impl Deref for Stage {
    type Target = Teller;

    fn deref(&self) -> &Teller {
        &self.teller
    }
}

impl Stage {
    /// Starts the agent, with the desktop enrolled.
    pub async fn set_up() -> Outcome<Self> {
        let directory = std::env::temp_dir().join(format!("sessioncap-story-{}", Uuid::new_v4().simple()));
        let profile =
            Profile { directory: directory.join("desktop"), url: None, agent: None, device_key: None };
        let device = profile.make()?;
        let ahead = Arc::new(AtomicI64::new(0));
        let (clock, moved) = (Clock::system()?, Arc::clone(&ahead));
        let running = agent::start(agent::Config {
            listen: ([127, 0, 0, 1], 0).into(),
            state: directory.join("agent"),
            in_memory: false,
            urls: Vec::new(),
            rules: None,
            offset: UtcOffset::UTC,
            enroll: vec![device.public()],
            audit: Some(directory.join("audit.jsonl")),
            look: agent::LOOK,
            patience: crate::transport::PATIENCE,
            clock: Clock::new(move || {
                clock.now().plus(time::Duration::seconds(moved.load(Ordering::Relaxed)))
            }),
            // The story says what matters.
            log: Arc::new(|_| {}),
            options: agent::Options::default(),
        })
        .await?;
        let profile = Profile { url: Some(running.url.clone()), agent: Some(running.key), ..profile };
        let identity = profile.open()?;
        Ok(Self { identity, agent: running, directory, ahead, teller: Teller::default() })
    }

    /// Stops the agent and removes every file.
    pub async fn clear(self) {
        self.agent.stop().await;
        // A temporary directory that stays costs nothing but room.
        let _ = std::fs::remove_dir_all(&self.directory);
    }

    /// A phone's file.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Moves the agent's clock forward.
    pub fn move_clock(&self, by: Duration) {
        self.ahead.fetch_add(i64::try_from(by.as_secs()).unwrap_or(0), Ordering::Relaxed);
    }

    /// Shows the last lines of a terminal.
    pub fn show(&self, output: &str) {
        let lines: Vec<_> = output.lines().filter(|line| !line.trim().is_empty()).collect();
        for line in lines.iter().skip(lines.len().saturating_sub(3)) {
            tell(&format!("    | {}", harmless(line.trim_end())));
        }
    }

    /// The middle one of five times.
    pub async fn typical<T, F: Future<Output = Outcome<T>>>(
        &self,
        mut work: impl FnMut() -> F,
    ) -> Outcome<Duration> {
        let mut times = Vec::new();
        for _ in 0..5 {
            times.push(timed(work()).await?);
        }
        times.sort();
        Ok(times.get(times.len() / 2).copied().unwrap_or_default())
    }
}

/// Reads a phone's output until `text` has come.
pub async fn see(phone: &mut Live, text: &str) -> Outcome<String> {
    let seeing = async {
        let mut seen = Vec::new();
        loop {
            match phone.next().await? {
                Heard::Output(bytes) => seen.extend(bytes),
                Heard::Screen { bytes, .. } => seen = as_text(&bytes).into_bytes(),
                Heard::Following(_) | Heard::Typed(SessionNotice::Taken { .. }) | Heard::Happened(_) => {
                    continue;
                }
                other => return Err(unlike(&format!("the phone sees `{text}`"), &other)),
            }
            let shown = String::from_utf8_lossy(&seen);
            if shown.contains(text) {
                return Ok(shown.into_owned());
            }
        }
    };
    in_time(&format!("the output `{text}`"), seeing).await
}

/// What a screen shows.
fn as_text(screen: &[u8]) -> String {
    let mut terminal = vt100::Parser::default();
    terminal.process(screen);
    terminal.screen().contents()
}

/// As [`see`], for the desktop's raw terminal.
pub async fn see_raw(terminal: &mut Secure, text: &str) -> Outcome<()> {
    let seeing = async {
        let mut seen = Vec::new();
        while let Some(bytes) = terminal.receive().await? {
            seen.extend(bytes);
            if String::from_utf8_lossy(&seen).contains(text) {
                return Ok(());
            }
        }
        Err(Problem::BrokenOff)
    };
    in_time(&format!("the output `{text}`"), seeing).await
}

/// Reads until the agent ends a phone's stream, and returns why. No output may hold `forbidden`.
pub async fn see_end(phone: &mut Live, forbidden: &str) -> Outcome<(String, String)> {
    let seeing = async {
        loop {
            match phone.next().await? {
                Heard::Following(_) | Heard::Typed(_) | Heard::Happened(_) => {}
                Heard::Output(bytes) | Heard::Screen { bytes, .. } => {
                    let leaked = !forbidden.is_empty() && String::from_utf8_lossy(&bytes).contains(forbidden);
                    check(!leaked, "a phone that was cut off sees nothing more")?;
                }
                Heard::End(code) => match companion::ended(code) {
                    Problem::Ended { code, detail } => return Ok((code, detail)),
                    other => return Err(other),
                },
                other => return Err(unlike("the stream ends", &other)),
            }
        }
    };
    in_time("the end of the phone's stream", seeing).await
}

/// Reads until the agent refuses something that was typed.
pub async fn next_refusal(phone: &mut Live, expected: &str) -> Outcome<String> {
    let seeing = async {
        loop {
            match phone.next().await? {
                Heard::Output(_)
                | Heard::Screen { .. }
                | Heard::Following(_)
                | Heard::Typed(_)
                | Heard::Happened(_) => {}
                Heard::Refusal(notice) => match companion::refused(notice) {
                    Problem::Refused { code, detail, .. } if code == expected => return Ok(detail),
                    other => return Err(unlike(&format!("typing is refused with {expected}"), &other)),
                },
                other => return Err(unlike("typing is refused", &other)),
            }
        }
    };
    in_time("a refusal", seeing).await
}

/// Checks that the agent refused, and said so in message 2.
pub fn refused_with<T>(status: Status, outcome: Outcome<T>) -> Outcome<()> {
    match outcome {
        Err(Problem::Phone(PhoneError::Refused(told))) if told == status => Ok(()),
        Err(other) => Err(unlike(&format!("the agent answers `{}`", status.code()), &other)),
        Ok(_) => {
            Err(Problem::Said(format!("the agent should answer `{}`, and let the phone in", status.code())))
        }
    }
}

/// Confirms the phone that waits, once there is one, and returns the digits on the desktop.
pub async fn confirm(desktop: &mut Desktop<'_>, session: &SessionId, ticket: &TicketId) -> Outcome<String> {
    let confirming = async {
        let mut look = tokio::time::interval(Duration::from_millis(100));
        loop {
            look.tick().await;
            let entry = desktop.entry(session, ticket).await?;
            let entry = entry.ok_or_else(|| Problem::said("the agent has forgotten the ticket"))?;
            if let ListingState::Pending { code } = &entry.state {
                let code = code.to_string();
                desktop.confirm(&entry).await?;
                return Ok(code);
            }
        }
    };
    in_time("a phone that waits", confirming).await
}
