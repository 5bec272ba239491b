//! The connection of one pairing, from the first message to the last retry.

mod live;
mod storing;

use core::time::Duration;
use std::collections::VecDeque;

use rand_core::{CryptoRng, RngCore};

use super::clean;
use super::error::{Advice, AppError};
use super::input::Input;
use super::output::{Fate, Output, State};
use super::preview::Accepted;
use super::stored::Stored;
use crate::agent_url::AgentUrl;
use crate::limits::{ANSWER_PATIENCE, ASK_AGAIN_AFTER, ASK_BRIEFLY, LONGEST_JOIN, OPEN_PATIENCE};
use crate::op::OpSet;
use crate::phone::{self, Asking, Attached, Attaching, PhoneError, Redeemed, Redeeming};
use crate::protocol::frame::EndCode;
use crate::session::{OutputTracker, Reconnect, ResumePoint};
use live::Live;

/// The code of a close frame after an end, or after an answer that was a refusal.
const CLOSE_NORMAL: u16 = 1000;
/// The close codes with which an agent, or what stands before it, asks for patience.
const CLOSE_RESTART: u16 = 1012;
const CLOSE_TRY_LATER: u16 = 1013;
/// The close code of an agent for whoever has proven nothing.
const CLOSE_POLICY: u16 = 1008;

/// One pairing's connection: it joins or attaches, waits for the desktop, has every credential stored before it uses
/// it, follows the session, and comes back after a lost connection (`docs/PROTOCOL.md` sections 6.4 and 16).
///
/// Pass every [`Input`] to [`handle`](Self::handle), then do everything that [`next_output`](Self::next_output) returns,
/// in order, until it returns nothing; call `handle` with [`Input::Time`] at [`wait_until`](Self::wait_until). Time is
/// monotonic time since any start, of a clock that counts the phone's sleep. A call costs at most a handshake message:
/// one signature and three scalar multiplications. It waits for nothing.
///
/// Only what the agent itself says is final. Everything else is tried again, with growing, random pauses.
pub struct Connection {
    stored: Stored,
    /// True if the pairing has something that is not in the keychain; and if the app was asked to store it and has not
    /// answered.
    unsaved: bool,
    asked_to_store: bool,
    /// Number of changes of the pairing; and of those that were in the bytes that the app was asked to store.
    changes: u32,
    asked_after: u32,
    phase: Phase,
    /// The number of the last attempt, and whether its socket may be open.
    attempt: u32,
    is_open: bool,
    stores: u32,
    /// The place of the address that is tried.
    address: usize,
    pauses: Reconnect,
    /// Number of attempts on which nobody has proven anything, since the agent was there; and if the system has refused.
    unproven: u32,
    denied: bool,
    /// When joining began.
    joining_since: Option<Duration>,
    suspended: bool,
    size: Option<(u16, u16)>,
    tracker: OutputTracker,
    state: State,
    outputs: VecDeque<Output>,
}

enum Phase {
    Idle,
    /// The pairing is being stored, with the admitted connection that waits for it.
    Storing(Option<Box<Attached>>),
    Opening {
        until: Duration,
    },
    Asking {
        asked: Asked,
        until: Duration,
    },
    Live {
        live: Box<Live>,
        look: Duration,
    },
    Pausing {
        until: Duration,
    },
    Stopped,
}

enum Asked {
    Redeem(Box<Redeeming>),
    Attach(Attaching),
}

impl Connection {
    /// Longest time that an attempt may take until its socket is open.
    pub const OPEN_PATIENCE: Duration = Duration::from_secs(OPEN_PATIENCE);
    /// Longest time that the agent may take to answer message 1.
    pub const ANSWER_PATIENCE: Duration = Duration::from_secs(ANSWER_PATIENCE);
    /// Longest time for which a link is tried, from the first attempt on: after that no agent keeps its answer.
    pub const LONGEST_JOIN: Duration = Duration::from_secs(LONGEST_JOIN);

    /// Makes the connection of a link that was accepted. It asks first to have the pairing stored.
    #[must_use]
    pub fn join(accepted: Accepted) -> Self {
        Self::new(accepted.stored, true)
    }

    /// Makes the connection of a pairing that was read from the keychain. A link that was not redeemed is redeemed
    /// again with the same key.
    #[must_use]
    pub fn reopen(stored: Stored) -> Self {
        Self::new(stored, false)
    }

    fn new(stored: Stored, unsaved: bool) -> Self {
        Self {
            stored,
            unsaved,
            asked_to_store: false,
            changes: 0,
            asked_after: 0,
            phase: Phase::Idle,
            attempt: 0,
            is_open: false,
            stores: 0,
            address: 0,
            pauses: Reconnect::new(),
            unproven: 0,
            denied: false,
            joining_since: None,
            suspended: false,
            size: None,
            tracker: OutputTracker::new(None),
            state: State::Idle,
            outputs: VecDeque::new(),
        }
    }

    /// Goes on after what was shown before, if the session still has it. Call it before [`Input::Start`].
    #[must_use]
    pub fn resume_after(mut self, shown: Option<ResumePoint>) -> Self {
        self.tracker = OutputTracker::new(shown);
        self
    }

    /// Returns up to where the output was shown.
    #[must_use]
    pub fn shown(&self) -> Option<ResumePoint> {
        self.tracker.shown()
    }

    /// Returns the pairing as it is now.
    #[must_use]
    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    /// Returns how the connection stands.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Returns the next thing to do. Do all of them, in order, before the next input.
    pub fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns until when nothing happens by itself, in the time that was passed in. `None` if nothing will.
    #[must_use]
    pub fn wait_until(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Opening { until } | Phase::Asking { until, .. } => Some(*until),
            Phase::Live { look, .. } if !self.suspended => Some(*look),
            Phase::Pausing { until } if !self.suspended => Some(*until),
            _ => None,
        }
    }

    /// Takes what has happened.
    pub fn handle<R: RngCore + CryptoRng>(&mut self, input: Input<'_>, now: Duration, rng: &mut R) {
        let done = match input {
            Input::Start => {
                self.start(now);
                Ok(())
            }
            Input::Opened { attempt } if self.is_current(attempt) => self.opened(now, rng),
            Input::Message { attempt, bytes } if self.is_current(attempt) => self.message(bytes, now, rng),
            Input::Closed { attempt, code } if self.is_current(attempt) => {
                self.is_open = false;
                Err(self.closed(code))
            }
            Input::PermissionDenied { attempt } if self.is_current(attempt) => {
                Err(match core::mem::replace(&mut self.denied, true) {
                    true => AppError::NotPermitted,
                    false => AppError::Unreachable,
                })
            }
            Input::Stored { number } if self.is_storing(number) => self.saved(now, rng),
            Input::NotStored { number } if self.is_storing(number) => {
                self.asked_to_store = false;
                match self.phase {
                    Phase::Storing(_) => Err(AppError::NotStored),
                    _ => Ok(()),
                }
            }
            Input::Suspended => {
                self.suspended = true;
                Ok(())
            }
            Input::Resumed => {
                self.suspended = false;
                self.check_at_once(now)
            }
            Input::NetworkChanged => self.check_at_once(now),
            Input::Type { id, bytes } => self.typed(id, bytes),
            Input::Key { id, key, application } => self.typed(id, &key.to_bytes(application)),
            Input::Line { id, text } => self.typed(id, &clean::line(text)),
            Input::Paste { id, text, bracketed } => self.typed(id, &clean::pasted(text, bracketed)),
            Input::Request { id, json } => match &mut self.phase {
                Phase::Live { live, .. } => live.request(id, json, &mut self.outputs),
                _ => {
                    self.outputs.push_back(Output::NotAnswered { id, fate: Fate::NotSent });
                    Ok(())
                }
            },
            Input::Interrupt => match &mut self.phase {
                Phase::Live { live, .. } => live.interrupt(&mut self.outputs),
                _ => Ok(()),
            },
            Input::Resize { columns, rows } => self.resize(columns, rows),
            Input::Leave => {
                self.leave();
                Ok(())
            }
            // Of an attempt or a request to store that is over.
            Input::Opened { .. }
            | Input::Message { .. }
            | Input::Closed { .. }
            | Input::PermissionDenied { .. }
            | Input::Stored { .. }
            | Input::NotStored { .. }
            | Input::Time => Ok(()),
        };
        if let Err(error) = done.and_then(|()| self.look(now)) {
            self.fail(error, now, rng);
        }
    }

    fn is_current(&self, attempt: u32) -> bool {
        self.is_open && attempt == self.attempt
    }

    fn set_state(&mut self, state: State) {
        if self.state != state {
            self.state = state.clone();
            self.outputs.push_back(Output::State(state));
        }
    }

    fn start(&mut self, now: Duration) {
        match (&self.phase, &self.state) {
            (Phase::Idle | Phase::Pausing { .. }, _) => self.begin(now),
            // The person cannot begin again either if nothing can come of it.
            (Phase::Stopped, State::Stopped { error }) if error.advice() != Advice::Forget => {
                (self.unproven, self.denied) = (0, false);
                self.begin(now);
            }
            _ => {}
        }
    }

    /// Has the pairing stored, or opens an attempt.
    fn begin(&mut self, now: Duration) {
        if self.unsaved {
            return self.store(None);
        }
        if self.stored.credential().is_none() {
            self.joining_since.get_or_insert(now);
        }
        let Some(url) = self.url() else { return };
        self.attempt = self.attempt.wrapping_add(1);
        self.is_open = true;
        self.phase = Phase::Opening { until: now.saturating_add(Self::OPEN_PATIENCE) };
        self.outputs.push_back(Output::Open { attempt: self.attempt, url });
        // A person who compares digits goes on to see them.
        if !matches!(self.state, State::Waiting { .. }) {
            self.set_state(State::Connecting);
        }
    }

    /// The address that is tried. A pairing has at least one.
    fn url(&mut self) -> Option<AgentUrl> {
        let addresses = self.stored.addresses();
        let url = addresses.get(self.address).or_else(|| addresses.first()).cloned();
        self.address = if self.address < addresses.len() { self.address } else { 0 };
        url
    }

    fn opened<R: RngCore + CryptoRng>(&mut self, now: Duration, rng: &mut R) -> Result<(), AppError> {
        if !matches!(self.phase, Phase::Opening { .. }) {
            return Ok(());
        }
        self.denied = false;
        let url = self.url().ok_or(AppError::Unreachable)?;
        let (message, asked) = match (self.stored.link(&url), self.stored.credential()) {
            (Some(link), _) => {
                let (holder, label) = (self.stored.holder(), self.stored.label().clone());
                let Asking { message, next } =
                    phone::redeem(&link, holder, label, rng).map_err(AppError::Join)?;
                (message, Asked::Redeem(Box::new(next)))
            }
            (None, Some(credential)) => {
                let (agent, holder) = (self.stored.agent(), self.stored.holder());
                let Asking { message, next } =
                    phone::attach(agent, holder, credential, OpSet::EMPTY, rng).map_err(AppError::Attach)?;
                (message, Asked::Attach(next))
            }
            // A pairing has one or the other.
            (None, None) => return Err(AppError::StoredDamaged),
        };
        self.outputs.push_back(Output::Send { attempt: self.attempt, bytes: message });
        self.phase = Phase::Asking { asked, until: now.saturating_add(Self::ANSWER_PATIENCE) };
        Ok(())
    }

    fn message<R: RngCore + CryptoRng>(
        &mut self,
        bytes: &[u8],
        now: Duration,
        rng: &mut R,
    ) -> Result<(), AppError> {
        if let Phase::Live { live, .. } = &mut self.phase {
            return live.receive(bytes, &mut self.tracker, now, &mut self.outputs);
        }
        match core::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Asking { asked: Asked::Redeem(asked), .. } => {
                match asked.finish(bytes).map_err(AppError::Join)? {
                    Redeemed::Attached { credential, attached } => {
                        self.proven();
                        self.stored.grant(credential, &attached);
                        self.stored.prefer(core::mem::take(&mut self.address));
                        self.changed();
                        self.store(Some(Box::new(attached)));
                    }
                    Redeemed::Waiting { code, seconds_left } => {
                        self.proven();
                        self.pauses = Reconnect::new();
                        self.close(CLOSE_NORMAL);
                        self.check_joining(now)?;
                        let until = now.saturating_add(ask_again_after(rng));
                        self.phase = Phase::Pausing { until };
                        self.set_state(State::Waiting { code, seconds_left });
                    }
                }
                Ok(())
            }
            Phase::Asking { asked: Asked::Attach(asked), .. } => {
                let attached = asked.finish(bytes).map_err(AppError::Attach)?;
                self.proven();
                if let Some(renewed) = &attached.renewed {
                    self.stored.grant(renewed.clone(), &attached);
                }
                let moved = self.stored.prefer(core::mem::take(&mut self.address));
                if moved || attached.renewed.is_some() {
                    self.changed();
                    self.store(Some(Box::new(attached)));
                    return Ok(());
                }
                self.go_live(attached, now)
            }
            // The agent says nothing before the first frame, and before message 1.
            phase => {
                self.phase = phase;
                Err(AppError::Lost)
            }
        }
    }

    /// The agent was there.
    fn proven(&mut self) {
        self.unproven = 0;
    }

    fn go_live(&mut self, attached: Attached, now: Duration) -> Result<(), AppError> {
        let live = Live::begin(attached, self.attempt, &self.tracker, self.size, now, &mut self.outputs)?;
        let (session, ops) = (live.session.clone(), live.ops);
        let (agent_time, seconds_left) = (live.agent_time, live.seconds_left);
        self.phase = Phase::Live { live: Box::new(live), look: now };
        self.set_state(State::Live { session, ops, agent_time, seconds_left });
        Ok(())
    }

    fn typed(&mut self, id: u64, bytes: &[u8]) -> Result<(), AppError> {
        match &mut self.phase {
            Phase::Live { live, .. } => live.input(id, bytes, &mut self.outputs),
            _ => {
                self.outputs.push_back(Output::Typed { id, fate: Fate::NotSent });
                Ok(())
            }
        }
    }

    fn resize(&mut self, columns: u16, rows: u16) -> Result<(), AppError> {
        if self.size == Some((columns, rows)) {
            return Ok(());
        }
        self.size = Some((columns, rows));
        match &mut self.phase {
            Phase::Live { live, .. } => live.resize(columns, rows, &mut self.outputs),
            _ => Ok(()),
        }
    }

    /// After the app was away or the network is another: asks whether the connection lives, or begins the attempt that
    /// waits.
    fn check_at_once(&mut self, now: Duration) -> Result<(), AppError> {
        match &mut self.phase {
            Phase::Live { live, .. } => live.probe(now, &mut self.outputs),
            Phase::Pausing { .. } if !self.suspended => {
                self.begin(now);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Does everything that is due.
    fn look(&mut self, now: Duration) -> Result<(), AppError> {
        match &mut self.phase {
            Phase::Opening { until } if now >= *until => Err(AppError::Unreachable),
            Phase::Asking { until, .. } if now >= *until => Err(AppError::Lost),
            Phase::Pausing { until } if now >= *until && !self.suspended => {
                self.begin(now);
                Ok(())
            }
            Phase::Live { live, look } => {
                if live.is_stable(now) {
                    self.pauses = Reconnect::new();
                }
                if !self.suspended {
                    *look = live.look(now, &mut self.outputs)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The meaning of a closed socket.
    fn closed(&mut self, code: Option<u16>) -> AppError {
        if matches!(code, Some(CLOSE_RESTART | CLOSE_TRY_LATER)) {
            self.pauses.slow_down();
            return AppError::TryLater;
        }
        match &self.phase {
            Phase::Opening { .. } => AppError::Unreachable,
            Phase::Asking { asked, .. } if matches!(code, Some(CLOSE_NORMAL | CLOSE_POLICY)) => match asked {
                Asked::Redeem(_) => AppError::Join(PhoneError::NoAnswer),
                Asked::Attach(_) => AppError::Attach(PhoneError::NoAnswer),
            },
            _ => AppError::Lost,
        }
    }

    fn close(&mut self, code: u16) {
        if core::mem::take(&mut self.is_open) {
            self.outputs.push_back(Output::Close { attempt: self.attempt, code });
        }
    }

    fn check_joining(&self, now: Duration) -> Result<(), AppError> {
        match self.joining_since {
            Some(since)
                if self.stored.credential().is_none() && now.saturating_sub(since) >= Self::LONGEST_JOIN =>
            {
                Err(AppError::JoinTimedOut)
            }
            _ => Ok(()),
        }
    }

    /// Ends an attempt, and decides whether there is another.
    fn fail<R: RngCore + CryptoRng>(&mut self, error: AppError, now: Duration, rng: &mut R) {
        let phase = core::mem::replace(&mut self.phase, Phase::Idle);
        if let Phase::Live { mut live, .. } = phase {
            if let AppError::Protocol(_) = error {
                live.end(EndCode::PROTOCOL, &mut self.outputs);
            }
            live.lose(&mut self.outputs);
        } else if let (Phase::Storing(_), AppError::Lost | AppError::TryLater) = (&phase, &error) {
            // It is stored all the same, and the next attempt waits for it.
            self.close(CLOSE_NORMAL);
            self.phase = phase;
            return;
        }
        self.tracker.disconnected();
        self.close(CLOSE_NORMAL);
        let error = self.check_joining(now).err().unwrap_or(error);
        let is_unproven = match &error {
            AppError::Join(error) | AppError::Attach(error) => {
                matches!(error, PhoneError::NoAnswer | PhoneError::AnswerUnreadable)
            }
            _ => false,
        };
        // A peer that has proven nothing may be another host that has the address now.
        if is_unproven || error == AppError::Unreachable {
            self.address = self.address.wrapping_add(1);
            if self.address < self.stored.addresses().len() && !self.suspended {
                return self.begin(now);
            }
            self.address = 0;
        }
        self.unproven = self.unproven.saturating_add(u32::from(is_unproven));
        let enough = is_unproven && self.unproven >= ASK_BRIEFLY;
        if enough
            || error.is_typed_answer()
            || matches!(error, AppError::JoinTimedOut | AppError::NotPermitted)
        {
            self.phase = Phase::Stopped;
            return self.set_state(State::Stopped { error });
        }
        let at = now.saturating_add(self.pauses.pause(rng));
        self.phase = Phase::Pausing { until: at };
        self.set_state(State::Retrying { error, at });
    }

    fn leave(&mut self) {
        if let Phase::Live { live, .. } = &mut self.phase {
            live.end(EndCode::LEFT, &mut self.outputs);
            live.lose(&mut self.outputs);
        }
        self.tracker.disconnected();
        self.close(CLOSE_NORMAL);
        self.phase = Phase::Idle;
        self.set_state(State::Idle);
    }
}

/// A few seconds, not the same for every phone.
fn ask_again_after<R: RngCore>(rng: &mut R) -> Duration {
    let spread = u64::from(rng.next_u32()).saturating_mul(ASK_AGAIN_AFTER) >> 32;
    Duration::from_millis(ASK_AGAIN_AFTER.saturating_add(spread))
}

/// Shows no secret.
impl core::fmt::Debug for Connection {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Connection")
            .field("stored", &self.stored)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
