//! `session attach`: the session in this terminal.
//!
//! Ctrl-] asks what to do: `d` or Ctrl-] again leaves, `p` shows a code for a phone, `]` sends Ctrl-] to the session,
//! any other key goes back. A connection that is lost is made again until the person leaves; only what the agent says
//! in the channel ends the view.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use sessioncap::SessionId;
use sessioncap::desktop::PairingTerms;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::pair_mobile::{self, Question, Show, Waited};
use super::wire::{FromSession, Wire};
use super::{Desktop, Identity};
use crate::outage::Outage;
use crate::problem::{Outcome, Problem, While};
use crate::terminal::keys::{CTRL_BRACKET, Keys, Typed, first_key};
use crate::terminal::viewer::Viewer;
use crate::terminal::{self, Answers};

/// How long a key that may be the beginning of another is held back.
const HOLD: Duration = Duration::from_millis(50);
/// The agent sets it for the programs of a session.
const INSIDE: &str = "SESSIONCAP_SESSION";

const MENU: &str = "Ctrl-]:  d leave   p code for a phone   ] send Ctrl-]   other keys: back";

/// Why a part of the program is over.
enum Next {
    /// The session is shown again, from a new connection.
    Back,
    /// The person leaves.
    Leave,
    /// The session has ended.
    Over,
    /// A signal ends the program.
    Signal(i32),
}

/// The terminal, what is typed at it, and the signals.
struct Seat<'a> {
    identity: &'a Identity,
    session: &'a SessionId,
    viewer: Viewer,
    typed: Option<mpsc::Receiver<Vec<u8>>>,
    keys: Keys,
    /// Typed after Ctrl-] in one piece with it.
    rest: VecDeque<Typed>,
    signals: [(Signal, i32); 4],
    resized: Signal,
}

pub(super) async fn run(identity: &Identity, session: &SessionId, nested: bool) -> Outcome<ExitCode> {
    if let Some(outer) = std::env::var_os(INSIDE).filter(|outer| !outer.is_empty() && !nested) {
        return Err(Problem::Said(format!(
            "this terminal is session {} itself, and would show itself without end; attach from outside it, or to \
             another session with --nested",
            terminal::harmless(&outer.to_string_lossy())
        )));
    }
    let watched = |kind| signal(kind).during("signals cannot be watched");
    let first = Wire::open(identity, session).await?;
    let mut seat = Seat {
        identity,
        session,
        signals: [
            (watched(SignalKind::hangup())?, 1),
            (watched(SignalKind::interrupt())?, 2),
            (watched(SignalKind::quit())?, 3),
            (watched(SignalKind::terminate())?, 15),
        ],
        resized: watched(SignalKind::window_change())?,
        viewer: Viewer::enter()?,
        typed: Some(terminal::read_stdin()),
        keys: Keys::default(),
        rest: VecDeque::new(),
    };
    seat.viewer.bracket_pastes().await?;
    let outcome = seat.stay(first).await;
    seat.viewer.finish().await;
    match outcome? {
        Next::Over => terminal::note("the session has ended"),
        Next::Leave | Next::Back => terminal::note("detached; the session continues"),
        Next::Signal(number) => {
            terminal::note("detached by a signal; the session continues");
            return Ok(ExitCode::from(u8::try_from(128 + number).unwrap_or(1)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Seat<'_> {
    /// Shows the session until the person leaves or it ends.
    async fn stay(&mut self, first: Wire) -> Outcome<Next> {
        let mut wire = Some(first);
        let mut outage = Outage::default();
        loop {
            let opened = match wire.take() {
                Some(wire) => Ok(wire),
                None => {
                    let (identity, session) = (self.identity, self.session);
                    tokio::select! {
                        opened = Wire::open(identity, session) => opened,
                        next = self.leaves() => return Ok(next),
                    }
                }
            };
            let ended = match opened {
                Ok(wire) => {
                    outage.over();
                    self.resize();
                    self.watch(wire).await
                }
                Err(problem) => Err(problem),
            };
            let problem = match ended {
                Ok(Next::Back) => continue,
                Ok(next) => return Ok(next),
                Err(problem) if problem.is_passing() => problem,
                // It was there before.
                Err(Problem::Refused { code, .. }) if code == "shell_attach_failed" => return Ok(Next::Over),
                Err(problem) => return Err(problem),
            };
            let (pause, text) = outage.failed(&problem);
            self.viewer.say(&format!("{text}; keys are not sent, Ctrl-] d leaves")).await?;
            tokio::select! {
                () = sleep(pause) => {}
                next = self.leaves() => return Ok(next),
            }
        }
    }

    /// One connection's life.
    async fn watch(&mut self, mut wire: Wire) -> Outcome<Next> {
        loop {
            let holds = self.keys.holds();
            tokio::select! {
                event = wire.next() => match event {
                    FromSession::Output(bytes) => self.viewer.show(bytes).await?,
                    FromSession::Over => return Ok(Next::Over),
                    FromSession::Lost(problem) => return Err(problem),
                },
                chunk = next_of(&mut self.typed) => {
                    if !self.viewer.is_raw() {
                        // A pipe has no keys.
                        wire.type_in(chunk);
                        continue;
                    }
                    self.rest.extend(self.keys.feed(&chunk, self.viewer.brackets_pastes()));
                    while let Some(typed) = self.rest.pop_front() {
                        match typed {
                            Typed::Bytes(bytes) => if !wire.type_in(bytes) {
                                self.viewer.say("the agent takes no more input for now").await?;
                            },
                            Typed::Leader => return self.menu(wire).await,
                        }
                    }
                }
                () = sleep(HOLD), if holds => {
                    let held = self.keys.flush();
                    wire.type_in(held);
                }
                number = next_signal(&mut self.signals) => {
                    wire.leave().await;
                    return Ok(Next::Signal(number));
                }
                _ = self.resized.recv() => self.resize(),
            }
        }
    }

    /// What the person wants after Ctrl-]. What the session prints meanwhile is on the screen that is fetched
    /// afterwards.
    async fn menu(&mut self, wire: Wire) -> Outcome<Next> {
        self.viewer.say(MENU).await?;
        let key = match self.key().await {
            Ok(key) => key,
            Err(number) => {
                wire.leave().await;
                return Ok(Next::Signal(number));
            }
        };
        // What is typed ahead of a screen that is not there yet goes nowhere.
        let ahead = std::mem::take(&mut self.rest);
        if key == Some(']') {
            wire.type_in(vec![CTRL_BRACKET]);
            for typed in ahead {
                if let Typed::Bytes(bytes) = typed {
                    wire.type_in(bytes);
                }
            }
        }
        wire.leave().await;
        match key {
            None | Some('d' | 'D') => Ok(Next::Leave),
            Some('p' | 'P') => self.code().await,
            _ => Ok(Next::Back),
        }
    }

    /// The next key; `None` for Ctrl-] and at the end of the input. The number of a signal that came instead.
    async fn key(&mut self) -> Result<Option<char>, i32> {
        loop {
            while let Some(typed) = self.rest.pop_front() {
                match typed {
                    Typed::Leader => return Ok(None),
                    Typed::Bytes(bytes) => {
                        if let Some(key) = first_key(&bytes) {
                            return Ok(Some(key));
                        }
                    }
                }
            }
            tokio::select! {
                chunk = async { match &mut self.typed {
                    Some(typed) => typed.recv().await,
                    None => None,
                }} => {
                    let Some(chunk) = chunk else { return Ok(None) };
                    self.rest.extend(self.keys.feed(&chunk, true));
                    self.rest.push_back(Typed::Bytes(self.keys.flush()));
                }
                number = next_signal(&mut self.signals) => return Err(number),
            }
        }
    }

    /// Shows a code for a phone until one is in, no phone can come any more, or a key is pressed, which takes the code
    /// back.
    async fn code(&mut self) -> Outcome<Next> {
        let shown = async {
            let mut desktop = Desktop::connect(self.identity).await?;
            let (shared, offered) =
                pair_mobile::offer(&mut desktop, self.session, &PairingTerms::default()).await?;
            pair_mobile::show_in(&self.viewer, &shared).await?;
            self.viewer.more("any key takes the code back and returns to the session\n").await?;
            Ok::<_, Problem>((desktop, offered))
        };
        let (mut desktop, offered) = match shown.await {
            Ok(shown) => shown,
            Err(problem) => {
                self.viewer.page(&format!("no code: {problem}\n\nany key returns to the session\n")).await?;
                return Ok(self.key().await.map_or_else(Next::Signal, |_| Next::Back));
            }
        };
        // No phone is confirmed here, so nothing is asked.
        let mut answers = Answers::new(mpsc::channel(1).1);
        let pressed = {
            let viewer = &self.viewer;
            let waiting = pair_mobile::wait(
                &mut desktop,
                &offered,
                Question::Digits,
                &mut answers,
                Show::Viewer(viewer),
            );
            tokio::select! {
                waited = waiting => Err(waited),
                pressed = key_of(&mut self.typed, &mut self.keys, &mut self.signals) => Ok(pressed),
            }
        };
        let next = match pressed {
            Ok(pressed) => {
                pair_mobile::take_back(&mut desktop, &offered, Show::Viewer(&self.viewer)).await?;
                pressed
            }
            Err(waited) => {
                if let Ok(Waited::Closed(problem)) | Err(problem) = waited {
                    self.viewer.more(&format!("{problem}\n")).await?;
                }
                self.viewer.more("any key returns to the session\n").await?;
                self.key().await.map(|_| ())
            }
        };
        desktop.disconnect().await;
        Ok(next.map_or_else(Next::Signal, |()| Next::Back))
    }

    /// Waits until the person leaves, while there is no connection: other keys go nowhere.
    async fn leaves(&mut self) -> Next {
        loop {
            tokio::select! {
                chunk = next_of(&mut self.typed) => {
                    if !self.viewer.is_raw() {
                        continue;
                    }
                    let mut typed = self.keys.feed(&chunk, true).into_iter();
                    if typed.any(|typed| typed == Typed::Leader) {
                        self.rest.extend(typed);
                        match self.key().await {
                            Ok(None | Some('d' | 'D')) => return Next::Leave,
                            Ok(_) => {}
                            Err(number) => return Next::Signal(number),
                        }
                    }
                }
                number = next_signal(&mut self.signals) => return Next::Signal(number),
            }
        }
    }

    /// Tells the agent the window's size, on a connection of its own: the session's carries nothing but its bytes.
    fn resize(&self) {
        let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdin()) else { return };
        if !self.viewer.is_raw() || size.ws_col == 0 || size.ws_row == 0 {
            return;
        }
        let request = json!({
            "method": "shell.resize_session", "id": self.session, "cols": size.ws_col, "rows": size.ws_row,
        });
        let identity = self.identity.clone();
        // A session of the wrong size is still a session.
        tokio::spawn(async move {
            if let Ok(mut desktop) = Desktop::connect(&identity).await {
                let _ = desktop.call(&request).await;
                desktop.disconnect().await;
            }
        });
    }
}

/// What is typed next; never at the end of a pipe, which is not the end of the session.
async fn next_of(typed: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Vec<u8> {
    if let Some(receiver) = typed {
        if let Some(chunk) = receiver.recv().await {
            return chunk;
        }
        *typed = None;
    }
    std::future::pending().await
}

/// Waits for any key, or a signal.
async fn key_of(
    typed: &mut Option<mpsc::Receiver<Vec<u8>>>,
    keys: &mut Keys,
    signals: &mut [(Signal, i32); 4],
) -> Result<(), i32> {
    loop {
        tokio::select! {
            chunk = next_of(typed) => {
                keys.flush();
                if first_key(&chunk).is_some() {
                    return Ok(());
                }
            }
            number = next_signal(signals) => return Err(number),
        }
    }
}

async fn next_signal(signals: &mut [(Signal, i32); 4]) -> i32 {
    let [(hang_up, a), (interrupt, b), (quit, c), (terminate, d)] = signals;
    tokio::select! {
        _ = hang_up.recv() => *a,
        _ = interrupt.recv() => *b,
        _ = quit.recv() => *c,
        _ = terminate.recv() => *d,
    }
}
