//! The messages and notices of the session profile, each in its one encoding.

use core::fmt;

use rand_core::{CryptoRng, RngCore};

use crate::error::Error;
use crate::limits::{
    MAX_EVENT_TEXT_LEN, MAX_JSON_DEPTH, MAX_MESSAGE_LEN, MAX_REQUESTS, MAX_TERMINAL_QUEUE, MAX_TERMINAL_SIDE,
    MAX_UNTAKEN_INPUT,
};
use crate::op::{Action, Op};
use crate::protocol::frame::{EndCode, Notice};

/// The profile's version and bounds (section 16).
#[derive(Debug, Clone, Copy)]
pub enum Profile {}

impl Profile {
    /// The highest version that this crate speaks.
    pub const VERSION: u16 = 1;
    /// The end code of an agent that speaks none of the phone's versions.
    pub const NO_COMMON_VERSION: EndCode = EndCode::new(64);
    /// Most bytes of input that a connection may have sent and that are not in the terminal yet.
    pub const MAX_UNTAKEN_INPUT: usize = MAX_UNTAKEN_INPUT;
    /// Most bytes of input that stand in the terminal's own queue, where the agent cannot take them back.
    pub const MAX_TERMINAL_QUEUE: usize = MAX_TERMINAL_QUEUE;
    /// Most requests of a connection that are not answered yet.
    pub const MAX_REQUESTS: usize = MAX_REQUESTS;
    /// Longest text of an event, bytes of UTF-8.
    pub const MAX_EVENT_TEXT_LEN: usize = MAX_EVENT_TEXT_LEN;
    /// Most columns and most rows of a terminal.
    pub const MAX_TERMINAL_SIDE: u16 = MAX_TERMINAL_SIDE;
    /// Deepest nesting in the JSON of a request or an answer. The reader of the JSON checks it.
    pub const MAX_JSON_DEPTH: usize = MAX_JSON_DEPTH;

    /// Returns the version that an agent and a phone use, from the highest that the phone speaks (section 16.1).
    ///
    /// # Errors
    /// [`Profile::NO_COMMON_VERSION`], to end the connection with.
    pub fn agree(highest: u16) -> Result<u16, EndCode> {
        match highest.min(Self::VERSION) {
            0 => Err(Self::NO_COMMON_VERSION),
            version => Ok(version),
        }
    }
}

/// A notice of the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionNotice {
    /// From a phone, its first frame: the highest version that it speaks. From an agent, its first frame: the
    /// version that both use.
    Profile {
        /// The version.
        version: u16,
    },
    /// From an agent: the input message with this number is in the terminal.
    Taken {
        /// Counts the phone's data frames, from 0.
        number: u64,
    },
    /// From an agent: the input message with this number is not all in the terminal, and no more of it will be; or
    /// the request with this number is not answered.
    NotTaken {
        /// Counts the phone's data frames, from 0.
        number: u64,
        /// Why.
        why: NotTaken,
    },
    /// In the place of [`SessionNotice::Profile`] where the messages are those of the Agent Client Protocol (section
    /// 17): the highest version of that profile that a phone speaks; from a bridge, the version that both use.
    Acp {
        /// The version.
        version: u16,
    },
    /// The answer to a question came when the question was over, or a `$/cancel_request` when its request was answered
    /// (`docs/PROTOCOL.md` section 17.5).
    Late {
        /// The number of that message, counted from 0 among all that the phone has sent.
        number: u64,
    },
}

/// Why input did not get into the terminal, or a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotTaken {
    /// More input waited than [`Profile::MAX_UNTAKEN_INPUT`] allows, or more requests than
    /// [`Profile::MAX_REQUESTS`]. It may be sent again later.
    TooMuch,
    /// The session has ended.
    Ended,
    /// An interrupt of the same connection overtook and discarded it.
    Interrupted,
}

impl NotTaken {
    /// All reasons, in the order of their details, from 0.
    pub const ALL: &'static [Self] = &[Self::TooMuch, Self::Ended, Self::Interrupted];

    fn detail(self) -> u16 {
        match self {
            Self::TooMuch => 0,
            Self::Ended => 1,
            Self::Interrupted => 2,
        }
    }
}

impl SessionNotice {
    /// The code of [`SessionNotice::Profile`].
    pub const PROFILE: u16 = 64;
    /// The code of [`SessionNotice::Taken`].
    pub const TAKEN: u16 = 65;
    /// The code of [`SessionNotice::NotTaken`].
    pub const NOT_TAKEN: u16 = 66;
    /// The code of [`SessionNotice::Acp`].
    pub const ACP: u16 = 67;
    /// The code of [`SessionNotice::Late`].
    pub const LATE: u16 = 68;

    /// Reads a notice. Returns `None` if it is none of the profile, such as a refusal.
    #[must_use]
    pub fn from_notice(notice: Notice) -> Option<Self> {
        match (notice.code, notice.detail, notice.number) {
            (Self::PROFILE, version, 0) => Some(Self::Profile { version }),
            (Self::TAKEN, 0, number) => Some(Self::Taken { number }),
            (Self::NOT_TAKEN, detail, number) => {
                let why = NotTaken::ALL.iter().copied().find(|why| why.detail() == detail)?;
                Some(Self::NotTaken { number, why })
            }
            (Self::ACP, version, 0) => Some(Self::Acp { version }),
            (Self::LATE, 0, number) => Some(Self::Late { number }),
            _ => None,
        }
    }

    /// Returns the notice to send.
    #[must_use]
    pub fn to_notice(self) -> Notice {
        let (code, detail, number) = match self {
            Self::Profile { version } => (Self::PROFILE, version, 0),
            Self::Taken { number } => (Self::TAKEN, 0, number),
            Self::NotTaken { number, why } => (Self::NOT_TAKEN, why.detail(), number),
            Self::Acp { version } => (Self::ACP, version, 0),
            Self::Late { number } => (Self::LATE, 0, number),
        };
        Notice { code, detail, number }
    }
}

/// One run of a session's program: 16 random bytes, not all zero, that the agent draws when it starts the program.
/// Positions of two incarnations have nothing to do with each other.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation([u8; 16]);

impl Incarnation {
    /// Draws an incarnation.
    pub fn generate<R: RngCore + CryptoRng>(rng: &mut R) -> Self {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        // All zero means none; a generator that draws it is not random.
        Self::from_bytes(bytes).unwrap_or(Self([0xff; 16]))
    }

    /// Makes an incarnation from its bytes. Returns `None` if they are all zero, which stands for none.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// Returns the bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// 32 hexadecimal digits.
impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Incarnation(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// Position in the output up to which a phone has shown it, in which incarnation. A phone may store it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResumePoint {
    /// The incarnation.
    pub incarnation: Incarnation,
    /// How many bytes of output came before, since the session began.
    pub position: u64,
}

impl ResumePoint {
    /// Length of the bytes of a point.
    pub const LEN: usize = 24;

    /// Returns the bytes of the point, for an app that stores it: the fields of *follow* (section 16.2).
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let (incarnation, position) = (self.incarnation.0, self.position.to_be_bytes());
        core::array::from_fn(|at| incarnation.iter().chain(&position).nth(at).copied().unwrap_or_default())
    }

    /// Reads the bytes of a point.
    ///
    /// # Errors
    /// [`Error::MessageMalformed`] for another length, or an incarnation of zeros, which stands for none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut rest = Reader::new(bytes)?;
        let incarnation = Incarnation::from_bytes(rest.take()?).ok_or(Error::MessageMalformed)?;
        let position = rest.number()?;
        rest.end(Self { incarnation, position })
    }
}

/// A message of a phone: the content of its data (section 16.2). Reading and writing copy nothing but the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FromPhone<'a> {
    /// What was typed, at least one byte. Enter is `\r`.
    Input(&'a [u8]),
    /// A request: a JSON object with `method` and parameters. Only `{` at its beginning, `}` at its end and UTF-8 are
    /// checked here. Its method decides which operation it needs.
    Request(&'a str),
    /// Send the output: what comes after the point, or from now on with the screen.
    Follow(Option<ResumePoint>),
    /// Change the size of the terminal, each side 1 to [`Profile::MAX_TERMINAL_SIDE`].
    Resize {
        /// Characters in a line.
        columns: u16,
        /// Lines.
        rows: u16,
    },
    /// Send SIGINT to the terminal's foreground process group, ahead of queued input.
    Interrupt,
    /// A message of the agent's own protocol.
    Own {
        /// Its first byte, 128 or more.
        kind: u8,
        /// What follows.
        content: &'a [u8],
    },
}

/// The answer to a follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Following {
    /// Where the output goes on, in the session's present incarnation.
    pub from: ResumePoint,
    /// How many bytes between the point that the phone named and `from` do not come; `None` if the point was of
    /// another incarnation. 0 if there is no screen.
    pub missed: Option<u64>,
    /// Whether a screen comes before the output.
    pub screen: bool,
}

/// What happened in a session. Defined by section 16.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// The terminal's bell.
    Bell,
    /// A program shows a text to the user.
    Notification,
    /// The session waits for a person.
    Prompt,
    /// A command has ended. The value is its exit status, or −1 if the shell named none.
    CommandEnded,
    /// The session's program has ended. The value is its exit status, or minus the number of the signal.
    SessionEnded,
}

impl EventKind {
    /// All kinds, in the order of their numbers, from 1.
    pub const ALL: &'static [Self] =
        &[Self::Bell, Self::Notification, Self::Prompt, Self::CommandEnded, Self::SessionEnded];

    fn number(self) -> u8 {
        match self {
            Self::Bell => 1,
            Self::Notification => 2,
            Self::Prompt => 3,
            Self::CommandEnded => 4,
            Self::SessionEnded => 5,
        }
    }
}

/// An event of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// What happened.
    pub kind: EventKind,
    /// After how many bytes of output.
    pub position: u64,
    /// Defined by the kind, otherwise 0.
    pub value: i32,
    /// Of a notification: at most [`Profile::MAX_EVENT_TEXT_LEN`] bytes without control characters. Otherwise
    /// empty.
    pub text: &'a str,
}

impl Event<'_> {
    /// Makes the text of a notification from what a program wrote: control characters are left out, then it is cut
    /// to [`Profile::MAX_EVENT_TEXT_LEN`] bytes at a character boundary.
    #[must_use]
    pub fn clean_text(text: &str) -> String {
        let mut clean = String::new();
        for character in text.chars().filter(|character| !character.is_control()) {
            if clean.len().saturating_add(character.len_utf8()) > MAX_EVENT_TEXT_LEN {
                break;
            }
            clean.push(character);
        }
        clean
    }

    fn is_well_formed(&self) -> bool {
        let has_text = self.kind == EventKind::Notification;
        let has_value = matches!(self.kind, EventKind::CommandEnded | EventKind::SessionEnded);
        (has_value || self.value == 0)
            && (has_text || self.text.is_empty())
            && self.text.len() <= MAX_EVENT_TEXT_LEN
            && !self.text.chars().any(char::is_control)
    }
}

/// A message of an agent: the content of its data (section 16.2). Reading and writing copy nothing but the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FromAgent<'a> {
    /// Output of the terminal, at least one byte.
    Output {
        /// How many bytes of output came before it.
        position: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The answer to a request.
    Answer {
        /// The request's number: counts the phone's data frames, from 0.
        number: u64,
        /// A JSON object. Only `{` at its beginning, `}` at its end and UTF-8 are checked here.
        json: &'a str,
    },
    /// The answer to a follow.
    Following(Following),
    /// The present screen.
    Screen {
        /// After how many bytes of output.
        position: u64,
        /// Characters in a line, 1 to [`Profile::MAX_TERMINAL_SIDE`].
        columns: u16,
        /// Lines, 1 to [`Profile::MAX_TERMINAL_SIDE`].
        rows: u16,
        /// At least one byte of terminal output, which clears the terminal and draws the screen.
        bytes: &'a [u8],
    },
    /// Something happened in the session.
    Event(Event<'a>),
    /// A message of the agent's own protocol. Skip it if its kind is not known.
    Own {
        /// Its first byte, 128 or more.
        kind: u8,
        /// What follows.
        content: &'a [u8],
    },
}

const INPUT: u8 = 0;
const REQUEST: u8 = 1;
const FOLLOW: u8 = 2;
const RESIZE: u8 = 3;
const INTERRUPT: u8 = 4;
const OUTPUT: u8 = 16;
const ANSWER: u8 = 17;
const FOLLOWING: u8 = 18;
const SCREEN: u8 = 19;
const EVENT: u8 = 20;
/// The first type of an agent's own protocol.
const OWN: u8 = 128;

/// In a `following`: unknown, because the phone's point was of another incarnation.
const UNKNOWN: u64 = u64::MAX;

impl<'a> FromPhone<'a> {
    /// Reads the content of a phone's data.
    ///
    /// # Errors
    /// [`Error::MessageMalformed`] if it is none of these in its one encoding. An agent answers with notice
    /// [`Notice::UNREADABLE`].
    pub fn from_bytes(message: &'a [u8]) -> Result<Self, Error> {
        let mut rest = Reader::new(message)?;
        let read = match rest.byte()? {
            INPUT => Self::Input(rest.all_but_nothing()?),
            REQUEST => Self::Request(rest.json()?),
            FOLLOW => Self::Follow(match (Incarnation::from_bytes(rest.take()?), rest.number()?) {
                (Some(incarnation), position) => Some(ResumePoint { incarnation, position }),
                (None, 0) => None,
                (None, _) => return Err(Error::MessageMalformed),
            }),
            RESIZE => Self::Resize { columns: rest.side()?, rows: rest.side()? },
            INTERRUPT => Self::Interrupt,
            kind @ OWN.. => Self::Own { kind, content: rest.all() },
            _ => return Err(Error::MessageMalformed),
        };
        rest.end(read)
    }

    /// Writes the content of the data to send.
    ///
    /// # Errors
    /// [`Error::MessageMalformed`] if no reader would take it, such as input without a byte, a side of 0 or more than
    /// 1 MiB.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let bytes = match *self {
            Self::Input(typed) => [&[INPUT], typed].concat(),
            Self::Request(json) => [&[REQUEST], json.as_bytes()].concat(),
            Self::Follow(point) => {
                let incarnation = point.map_or([0; 16], |point| *point.incarnation.as_bytes());
                let position = point.map_or(0, |point| point.position);
                [&[FOLLOW], incarnation.as_slice(), &position.to_be_bytes()].concat()
            }
            Self::Resize { columns, rows } => {
                [&[RESIZE], columns.to_be_bytes().as_slice(), &rows.to_be_bytes()].concat()
            }
            Self::Interrupt => vec![INTERRUPT],
            Self::Own { kind, content } => [&[kind], content].concat(),
        };
        // What the reader refuses is not written.
        if FromPhone::from_bytes(&bytes)? == *self { Ok(bytes) } else { Err(Error::MessageMalformed) }
    }

    /// Returns what the message needs a permit for. `None` for a request, whose method decides, and for a message of
    /// the agent's own protocol.
    #[must_use]
    pub fn action(&self) -> Option<Action> {
        match self {
            Self::Input(_) => Some(Action::Session(Op::SendInput)),
            Self::Follow(_) => Some(Action::Session(Op::StreamOutput)),
            Self::Resize { .. } => Some(Action::Session(Op::Resize)),
            Self::Interrupt => Some(Action::Session(Op::Interrupt)),
            Self::Request(_) | Self::Own { .. } => None,
        }
    }
}

impl<'a> FromAgent<'a> {
    /// Reads the content of an agent's data.
    ///
    /// # Errors
    /// [`Error::MessageMalformed`] if it is none of these in its one encoding. A phone ends the connection with
    /// [`EndCode::PROTOCOL`].
    pub fn from_bytes(message: &'a [u8]) -> Result<Self, Error> {
        let mut rest = Reader::new(message)?;
        let read = match rest.byte()? {
            OUTPUT => {
                let (position, bytes) = (rest.number()?, rest.all_but_nothing()?);
                // The position after it is a position as well.
                end_of(position, bytes)?;
                Self::Output { position, bytes }
            }
            ANSWER => Self::Answer { number: rest.number()?, json: rest.json()? },
            FOLLOWING => {
                let incarnation = Incarnation::from_bytes(rest.take()?).ok_or(Error::MessageMalformed)?;
                let from = ResumePoint { incarnation, position: rest.number()? };
                let missed = Some(rest.number()?).filter(|missed| *missed != UNKNOWN);
                let screen = match rest.byte()? {
                    1 => true,
                    // Without a screen nothing is left out.
                    0 if missed == Some(0) => false,
                    _ => return Err(Error::MessageMalformed),
                };
                Self::Following(Following { from, missed, screen })
            }
            SCREEN => Self::Screen {
                position: rest.number()?,
                columns: rest.side()?,
                rows: rest.side()?,
                bytes: rest.all_but_nothing()?,
            },
            EVENT => {
                let kind = rest.byte()?;
                let kind = EventKind::ALL.iter().copied().find(|known| known.number() == kind);
                let event = Event {
                    kind: kind.ok_or(Error::MessageMalformed)?,
                    position: rest.number()?,
                    value: i32::from_be_bytes(rest.take()?),
                    text: rest.text()?,
                };
                if !event.is_well_formed() {
                    return Err(Error::MessageMalformed);
                }
                Self::Event(event)
            }
            kind @ OWN.. => Self::Own { kind, content: rest.all() },
            _ => return Err(Error::MessageMalformed),
        };
        rest.end(read)
    }

    /// Writes the content of the data to send.
    ///
    /// # Errors
    /// [`Error::MessageMalformed`] if no reader would take it, such as output without a byte, an event with a text
    /// that [`Event::clean_text`] would change, or more than 1 MiB.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let bytes = match *self {
            Self::Output { position, bytes } => {
                [&[OUTPUT], position.to_be_bytes().as_slice(), bytes].concat()
            }
            Self::Answer { number, json } => {
                [&[ANSWER], number.to_be_bytes().as_slice(), json.as_bytes()].concat()
            }
            Self::Following(Following { from, missed, screen }) => [
                &[FOLLOWING],
                from.incarnation.as_bytes().as_slice(),
                &from.position.to_be_bytes(),
                &missed.unwrap_or(UNKNOWN).to_be_bytes(),
                &[u8::from(screen)],
            ]
            .concat(),
            Self::Screen { position, columns, rows, bytes } => [
                &[SCREEN],
                position.to_be_bytes().as_slice(),
                &columns.to_be_bytes(),
                &rows.to_be_bytes(),
                bytes,
            ]
            .concat(),
            Self::Event(Event { kind, position, value, text }) => [
                &[EVENT, kind.number()],
                position.to_be_bytes().as_slice(),
                &value.to_be_bytes(),
                text.as_bytes(),
            ]
            .concat(),
            Self::Own { kind, content } => [&[kind], content].concat(),
        };
        // What the reader refuses is not written.
        if FromAgent::from_bytes(&bytes)? == *self { Ok(bytes) } else { Err(Error::MessageMalformed) }
    }

    /// Returns the operation under which the message is sent. `None` for an answer, which has its request's, and for
    /// a message of the agent's own protocol.
    #[must_use]
    pub fn op(&self) -> Option<Op> {
        match self {
            Self::Output { .. } | Self::Following(_) | Self::Screen { .. } => Some(Op::StreamOutput),
            Self::Event(_) => Some(Op::ReceiveNotifications),
            Self::Answer { .. } | Self::Own { .. } => None,
        }
    }
}

/// The position after these bytes.
pub(super) fn end_of(position: u64, bytes: &[u8]) -> Result<u64, Error> {
    let len = u64::try_from(bytes.len()).map_err(|_| Error::MessageMalformed)?;
    position.checked_add(len).ok_or(Error::MessageMalformed)
}

/// Reads fields one after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(message: &'a [u8]) -> Result<Self, Error> {
        if message.len() > MAX_MESSAGE_LEN { Err(Error::MessageMalformed) } else { Ok(Self(message)) }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Error::MessageMalformed)?;
        self.0 = rest;
        Ok(*field)
    }

    fn byte(&mut self) -> Result<u8, Error> {
        self.take().map(u8::from_be_bytes)
    }

    fn number(&mut self) -> Result<u64, Error> {
        self.take().map(u64::from_be_bytes)
    }

    /// Columns or rows.
    fn side(&mut self) -> Result<u16, Error> {
        let side = u16::from_be_bytes(self.take()?);
        if (1..=MAX_TERMINAL_SIDE).contains(&side) { Ok(side) } else { Err(Error::MessageMalformed) }
    }

    fn all(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.0)
    }

    fn all_but_nothing(&mut self) -> Result<&'a [u8], Error> {
        Some(self.all()).filter(|rest| !rest.is_empty()).ok_or(Error::MessageMalformed)
    }

    fn text(&mut self) -> Result<&'a str, Error> {
        core::str::from_utf8(self.all()).map_err(|_| Error::MessageMalformed)
    }

    fn json(&mut self) -> Result<&'a str, Error> {
        let text = self.text()?;
        if text.starts_with('{') && text.ends_with('}') { Ok(text) } else { Err(Error::MessageMalformed) }
    }

    /// Nothing may follow the last field.
    fn end<T>(self, read: T) -> Result<T, Error> {
        if self.0.is_empty() { Ok(read) } else { Err(Error::MessageMalformed) }
    }
}
