//! An admitted connection: frames, messages, pings.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use crate::app::error::AppError;
use crate::app::output::{Fate, Output};
use crate::clock::Timestamp;
use crate::id::SessionId;
use crate::limits::{MAX_REQUESTS, MAX_UNTAKEN_INPUT, STABLE_AFTER};
use crate::op::{Op, OpSet};
use crate::phone::{Attached, PhoneError};
use crate::protocol::frame::{Assembler, EndCode, Frame, Notice};
use crate::protocol::noise::Channel;
use crate::session::{
    Event, FromAgent, FromPhone, Liveness, Look, NotTaken, OutputTracker, Profile, SessionNotice,
};

/// A message for which an answer of the agent is awaited.
enum Pending {
    Input { id: u64, len: usize },
    Request { id: u64 },
}

impl Pending {
    /// Makes the output for a message that does not end well.
    fn ends(self, fate: Fate) -> Output {
        match self {
            Self::Input { id, .. } => Output::Typed { id, fate },
            Self::Request { id } => Output::NotAnswered { id, fate },
        }
    }
}

pub(super) struct Live {
    attempt: u32,
    channel: Channel,
    liveness: Liveness,
    assembler: Assembler,
    since: Duration,
    heard: bool,
    /// Number of messages that were sent.
    messages: u64,
    pending: BTreeMap<u64, Pending>,
    pub(super) session: SessionId,
    pub(super) ops: OpSet,
    pub(super) agent_time: Timestamp,
    pub(super) seconds_left: u64,
}

impl Live {
    /// Sends the first frames: the version, and what to follow.
    pub(super) fn begin(
        attached: Attached,
        attempt: u32,
        tracker: &OutputTracker,
        size: Option<(u16, u16)>,
        now: Duration,
        out: &mut VecDeque<Output>,
    ) -> Result<Self, AppError> {
        let mut live = Self {
            attempt,
            channel: attached.channel,
            liveness: Liveness::of_phone(now),
            assembler: Assembler::new(),
            since: now,
            heard: false,
            messages: 0,
            pending: BTreeMap::new(),
            session: attached.session,
            ops: attached.ops,
            agent_time: attached.agent_time,
            seconds_left: attached.seconds_left,
        };
        let version = SessionNotice::Profile { version: Profile::VERSION };
        live.frame(&Frame::<Vec<u8>>::Notice(version.to_notice()), out)?;
        if live.ops.contains(Op::StreamOutput) {
            live.message(&tracker.follow(), out)?;
        }
        if let Some((columns, rows)) = size {
            live.resize(columns, rows, out)?;
        }
        Ok(live)
    }

    fn frame<D: AsRef<[u8]>>(
        &mut self,
        frame: &Frame<D>,
        out: &mut VecDeque<Output>,
    ) -> Result<(), AppError> {
        let bytes = self.channel.seal(&frame.to_bytes()).map_err(|_| AppError::Lost)?;
        out.push_back(Output::Send { attempt: self.attempt, bytes });
        Ok(())
    }

    /// Sends a message. `None` if it is not well formed.
    fn message(
        &mut self,
        message: &FromPhone<'_>,
        out: &mut VecDeque<Output>,
    ) -> Result<Option<u64>, AppError> {
        let Ok(bytes) = message.to_bytes() else { return Ok(None) };
        for frame in Frame::split(&bytes) {
            self.frame(&frame, out)?;
        }
        let number = self.messages;
        self.messages = self.messages.saturating_add(1);
        Ok(Some(number))
    }

    pub(super) fn input(
        &mut self,
        id: u64,
        bytes: &[u8],
        out: &mut VecDeque<Output>,
    ) -> Result<(), AppError> {
        let untaken = self.pending.values().map(|pending| match pending {
            Pending::Input { len, .. } => *len,
            Pending::Request { .. } => 0,
        });
        let fate = if untaken.sum::<usize>().saturating_add(bytes.len()) > MAX_UNTAKEN_INPUT {
            Fate::NotTaken(NotTaken::TooMuch)
        } else if let Some(number) = self.message(&FromPhone::Input(bytes), out)? {
            self.pending.insert(number, Pending::Input { id, len: bytes.len() });
            return Ok(());
        } else {
            Fate::NotSent
        };
        out.push_back(Output::Typed { id, fate });
        Ok(())
    }

    pub(super) fn request(
        &mut self,
        id: u64,
        json: &str,
        out: &mut VecDeque<Output>,
    ) -> Result<(), AppError> {
        let asked = self.pending.values().filter(|pending| matches!(pending, Pending::Request { .. }));
        let fate = if asked.count() >= MAX_REQUESTS {
            Fate::NotTaken(NotTaken::TooMuch)
        } else if let Some(number) = self.message(&FromPhone::Request(json), out)? {
            self.pending.insert(number, Pending::Request { id });
            return Ok(());
        } else {
            Fate::NotSent
        };
        out.push_back(Output::NotAnswered { id, fate });
        Ok(())
    }

    pub(super) fn interrupt(&mut self, out: &mut VecDeque<Output>) -> Result<(), AppError> {
        self.message(&FromPhone::Interrupt, out).map(drop)
    }

    pub(super) fn resize(
        &mut self,
        columns: u16,
        rows: u16,
        out: &mut VecDeque<Output>,
    ) -> Result<(), AppError> {
        // A phone that may not is told so by its own operations, not by a refusal each time it is turned.
        if self.ops.contains(Op::Resize) {
            self.message(&FromPhone::Resize { columns, rows }, out)?;
        }
        Ok(())
    }

    /// Ends this side.
    pub(super) fn end(&mut self, code: EndCode, out: &mut VecDeque<Output>) {
        // A channel that cannot send the end is closed all the same.
        let _ = self.frame(&Frame::<Vec<u8>>::End(code), out);
    }

    /// Asks at once whether the agent is still there.
    pub(super) fn probe(&mut self, now: Duration, out: &mut VecDeque<Output>) -> Result<(), AppError> {
        self.ping(0, now, out)
    }

    fn ping(&mut self, number: u64, now: Duration, out: &mut VecDeque<Output>) -> Result<(), AppError> {
        self.frame(&Frame::<Vec<u8>>::Ping { answer: false, number }, out)?;
        self.liveness.sent_ping(now);
        Ok(())
    }

    /// Looks whether the agent is still there. Returns when to look again.
    pub(super) fn look(&mut self, now: Duration, out: &mut VecDeque<Output>) -> Result<Duration, AppError> {
        loop {
            match self.liveness.look(now) {
                Look::Wait(pause) => return Ok(now.saturating_add(pause)),
                Look::Ping { number } => self.ping(number, now, out)?,
                Look::Lost => return Err(AppError::Lost),
            }
        }
    }

    /// True if the connection has lasted, so that after it the pauses begin anew.
    pub(super) fn is_stable(&self, now: Duration) -> bool {
        self.heard && now.saturating_sub(self.since) >= Duration::from_secs(STABLE_AFTER)
    }

    /// Tells the app that nobody knows about the messages that were not answered before the connection was lost.
    pub(super) fn lose(&mut self, out: &mut VecDeque<Output>) {
        let pending = core::mem::take(&mut self.pending);
        out.extend(pending.into_values().map(|pending| pending.ends(Fate::Unknown)));
    }

    /// Takes one binary message of the agent.
    pub(super) fn receive(
        &mut self,
        sealed: &[u8],
        tracker: &mut OutputTracker,
        now: Duration,
        out: &mut VecDeque<Output>,
    ) -> Result<(), AppError> {
        let plaintext = self.channel.open(sealed).map_err(|_| AppError::Lost)?;
        self.heard = true;
        self.liveness.received(now);
        let frame = Frame::from_bytes(&plaintext).map_err(AppError::Protocol)?;
        match self.assembler.take(frame).map_err(AppError::Protocol)? {
            Some(Frame::Data(message)) => self.read(&message, tracker, out),
            Some(Frame::Ping { answer: false, number }) => {
                self.frame(&Frame::<Vec<u8>>::Ping { answer: true, number }, out)
            }
            Some(Frame::Notice(notice)) => self.notice(notice, out),
            Some(Frame::End(code)) => Err(ended(code)),
            _ => Ok(()),
        }
    }

    fn read(
        &mut self,
        message: &[u8],
        tracker: &mut OutputTracker,
        out: &mut VecDeque<Output>,
    ) -> Result<(), AppError> {
        match FromAgent::from_bytes(message).map_err(AppError::Protocol)? {
            FromAgent::Output { position, bytes } => {
                let shown = tracker.output(position, bytes).map_err(AppError::Protocol)?;
                if !shown.bytes.is_empty() {
                    let missing = shown.missing.unwrap_or_default();
                    out.push_back(Output::Shown { missing, bytes: shown.bytes.to_vec() });
                }
            }
            FromAgent::Screen { position, columns, rows, bytes } => {
                let before = tracker.shown();
                let shown = tracker.screen(position, bytes).map_err(AppError::Protocol)?;
                let missing = before.and(shown.missing);
                out.push_back(Output::Screen { missing, columns, rows, bytes: shown.bytes.to_vec() });
            }
            FromAgent::Following(following) => tracker.following(&following).map_err(AppError::Protocol)?,
            FromAgent::Answer { number, json } => match self.pending.remove(&number) {
                Some(Pending::Request { id }) => {
                    out.push_back(Output::Answered { id, json: json.to_owned() });
                }
                Some(input) => _ = self.pending.insert(number, input),
                None => {}
            },
            FromAgent::Event(Event { kind, value, text, .. }) => {
                out.push_back(Output::Event { kind, value, text: text.to_owned() });
            }
            // Of the agent's own protocol.
            FromAgent::Own { .. } => {}
        }
        Ok(())
    }

    fn notice(&mut self, notice: Notice, out: &mut VecDeque<Output>) -> Result<(), AppError> {
        let (number, fate) = match SessionNotice::from_notice(notice) {
            Some(SessionNotice::Taken { number }) => (number, Fate::Taken),
            Some(SessionNotice::NotTaken { number, why }) => (number, Fate::NotTaken(why)),
            Some(SessionNotice::Profile { version }) if !(1..=Profile::VERSION).contains(&version) => {
                return Err(AppError::Incompatible);
            }
            Some(_) => return Ok(()),
            None if notice.code <= Notice::DISCARDED => (notice.number, Fate::Refused(notice)),
            None => return Ok(()),
        };
        match (self.pending.remove(&number), fate) {
            // A request is answered, not taken.
            (Some(request @ Pending::Request { .. }), Fate::Taken) => {
                self.pending.insert(number, request);
            }
            (Some(pending), fate) => out.push_back(pending.ends(fate)),
            (None, Fate::Refused(notice)) => out.push_back(Output::Refused { notice }),
            (None, _) => {}
        }
        Ok(())
    }
}

/// Reads an end code of the agent as the phone's error (sections 6.5 and 16.1).
fn ended(code: EndCode) -> AppError {
    match code.status() {
        Some(status) => AppError::Attach(PhoneError::Refused(status)),
        None if code == EndCode::LEFT => AppError::AgentLeft,
        None if code == EndCode::PROTOCOL || code == Profile::NO_COMMON_VERSION => AppError::Incompatible,
        None => AppError::Lost,
    }
}
