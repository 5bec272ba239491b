//! The plaintext of frames between a phone and its agent: a one-byte head, then data, or a code and a number
//! (`docs/PROTOCOL.md` section 6.5).

mod assembler;

use core::fmt;

pub use assembler::Assembler;

use crate::error::Error;
use crate::limits::MAX_DATA_LEN;
use crate::op::{Op, Privilege};
use crate::status::Status;

const DATA: u8 = 0;
const NOTICE: u8 = 1;
const PING: u8 = 2;
const END: u8 = 3;
const PART: u8 = 4;

/// Length of a notice, ping or end: the head, a code and a detail of 2 bytes each, and a number of 8
/// bytes, all big-endian.
const CONTROL_LEN: usize = 13;

/// One decrypted frame. `D` is the type of its data: bytes, or `()` if the data waits in a
/// [`GuardedReceiver`](crate::agent::GuardedReceiver).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame<D = Vec<u8>> {
    /// Session data, at most [`Frame::MAX_DATA_LEN`] bytes: a whole message, or the end of one whose beginning came
    /// in parts. The session profile ([`session`](crate::session)) or the agent's own protocol defines its meaning.
    Data(D),
    /// The beginning or middle of a message, 1 to [`Frame::MAX_DATA_LEN`] bytes. An [`Assembler`] puts the message
    /// together; a [`GuardedReceiver`](crate::agent::GuardedReceiver) does it by itself. A part without bytes would
    /// be [`Frame::Discard`].
    Part(D),
    /// The parts so far are dropped: the message that they began does not come.
    Discard,
    /// A code and a number, without session data.
    Notice(Notice),
    /// A ping, which asks whether the other side is there, or the answer to a ping with the same number.
    /// Answer a ping with `answer: false` at once, with `answer: true` and the same number.
    Ping {
        /// Whether this is the answer.
        answer: bool,
        /// Any number.
        number: u64,
    },
    /// The sender has ended its side. A connection that closes without this frame was lost.
    End(EndCode),
}

/// A code and two numbers about the connection, not the session. Its frame has room for these three fields
/// only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice {
    /// The subject: one of the constants, or a code of 64 or more: a
    /// [`SessionNotice`](crate::session::SessionNotice), or one that the agent's own protocol defines.
    pub code: u16,
    /// Defined by the code; otherwise 0.
    pub detail: u16,
    /// Defined by the code; otherwise 0.
    pub number: u64,
}

impl Notice {
    /// A data frame was refused because its operation was not granted. The detail is the operation's bit in
    /// an [`OpSet`](crate::OpSet), counted from 0, or 65535 if an operator's rule or a failure refused it. The
    /// number is the refused frame's index among the data frames that the reader of the notice has sent, counted
    /// from 0; this holds for every refusal code.
    pub const NOT_GRANTED: u16 = 1;
    /// A data frame asked for something that no credential can allow. The detail is the privilege's index in
    /// [`Privilege::ALL`], counted from 0.
    pub const NEVER_ALLOWED: u16 = 2;
    /// A data frame named another session.
    pub const OTHER_SESSION: u16 = 3;
    /// A data frame could not be read.
    pub const UNREADABLE: u16 = 4;
    /// A message in parts was discarded. The detail is 0 if it was longer than a message may be, or too slow, and 1
    /// if the agent had no room for it: it may be sent again.
    pub const DISCARDED: u16 = 5;
}

/// Describes the codes of a refusal, for a person.
impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = usize::from(self.detail);
        match (self.code, Op::ALL.get(place), Privilege::ALL.get(place)) {
            (Self::NOT_GRANTED, Some(op), _) => write!(f, "`{op}` was not granted to this connection"),
            (Self::NOT_GRANTED, None, _) => f.write_str("this was not granted to this connection"),
            (Self::NEVER_ALLOWED, _, Some(privilege)) => {
                write!(f, "`{privilege}` is never allowed by a credential")
            }
            (Self::NEVER_ALLOWED, _, None) => f.write_str("this is never allowed by a credential"),
            (Self::OTHER_SESSION, ..) => f.write_str("the credential is for another session"),
            (Self::UNREADABLE, ..) => f.write_str("the agent could not read the request"),
            (Self::DISCARDED, ..) if self.detail == 1 => {
                f.write_str("the agent has no room for a long message now; send it again later")
            }
            (Self::DISCARDED, ..) => f.write_str("the message was too long or too slow"),
            (code, ..) => write!(f, "notice {code}"),
        }
    }
}

/// The reason why a side ends the connection.
///
/// Code 0 means that it leaves, 2 to 8 are the statuses of message 2, 32 to 63 are these constants, and codes
/// from 64 on are defined by the session profile ([`Profile::NO_COMMON_VERSION`](crate::session::Profile)) or by the
/// agent's own protocol. A phone handles a code with a [`status`](Self::status) as
/// that refusal of an attach, does not attach again after [`PROTOCOL`](Self::PROTOCOL), and takes any other code
/// below 64 for [`CLOSED`](Self::CLOSED).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndCode(u16);

impl EndCode {
    /// The sender leaves; nothing is wrong.
    pub const LEFT: Self = Self(0);
    /// The other side violated this protocol.
    pub const PROTOCOL: Self = Self(32);
    /// The other side reads too slowly; attach again.
    pub const TOO_SLOW: Self = Self(33);
    /// The agent closes the connection for its own reasons; attach again.
    pub const CLOSED: Self = Self(34);

    /// Makes a code of the agent's own protocol: use 64 or more. A lower number is one of the codes above.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// Returns the number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Returns the status, if the code is that of a status.
    #[must_use]
    pub fn status(self) -> Option<Status> {
        Status::from_number(self.0.into())
    }
}

impl From<Status> for EndCode {
    fn from(status: Status) -> Self {
        Self(status.number().into())
    }
}

impl Frame<Vec<u8>> {
    /// Most bytes of data in one frame.
    pub const MAX_DATA_LEN: usize = MAX_DATA_LEN;

    /// Reads the plaintext of a frame.
    ///
    /// # Errors
    /// [`Error::MessageMalformed`] if it is not one of the kinds in its one encoding.
    pub fn from_bytes(plaintext: &[u8]) -> Result<Self, Error> {
        read(plaintext).map(|frame| frame.map(<[u8]>::to_vec))
    }

    /// Splits a message into its frames: parts of [`Frame::MAX_DATA_LEN`] bytes, then one data frame. A message
    /// that fits one frame is that data frame. Send no other data between them. The other side takes at most
    /// [`Assembler::MAX_MESSAGE_LEN`] bytes.
    pub fn split(message: &[u8]) -> impl Iterator<Item = Frame<&[u8]>> {
        let mut rest = Some(message);
        core::iter::from_fn(move || match rest?.split_at_checked(MAX_DATA_LEN) {
            Some((part, after)) if !after.is_empty() => {
                rest = Some(after);
                Some(Frame::Part(part))
            }
            _ => rest.take().map(Frame::Data),
        })
    }
}

impl<D: AsRef<[u8]>> Frame<D> {
    /// Returns the plaintext of the frame, to be encrypted by a [`Channel`](crate::noise::Channel).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Data(data) => [&[DATA], data.as_ref()].concat(),
            Self::Part(data) => [&[PART], data.as_ref()].concat(),
            Self::Discard => vec![PART],
            Self::Notice(Notice { code, detail, number }) => control(NOTICE, *code, *detail, *number),
            Self::Ping { answer, number } => control(PING, u16::from(*answer), 0, *number),
            Self::End(EndCode(code)) => control(END, *code, 0, 0),
        }
    }
}

impl<D> Frame<D> {
    /// The same frame with what `of` makes of its data.
    pub(crate) fn map<E>(self, of: impl FnOnce(D) -> E) -> Frame<E> {
        match self {
            Self::Data(data) => Frame::Data(of(data)),
            Self::Part(data) => Frame::Part(of(data)),
            Self::Discard => Frame::Discard,
            Self::Notice(notice) => Frame::Notice(notice),
            Self::Ping { answer, number } => Frame::Ping { answer, number },
            Self::End(code) => Frame::End(code),
        }
    }
}

/// Starts the plaintext of a data frame.
#[cfg(feature = "agent")]
pub(crate) fn begin_data(plaintext: &mut Vec<u8>) {
    plaintext.clear();
    plaintext.push(DATA);
}

fn control(head: u8, code: u16, detail: u16, number: u64) -> Vec<u8> {
    let mut plaintext = Vec::with_capacity(CONTROL_LEN);
    plaintext.push(head);
    plaintext.extend_from_slice(&code.to_be_bytes());
    plaintext.extend_from_slice(&detail.to_be_bytes());
    plaintext.extend_from_slice(&number.to_be_bytes());
    plaintext
}

/// Reads a frame without copying its data.
pub(crate) fn read(plaintext: &[u8]) -> Result<Frame<&[u8]>, Error> {
    let (head, rest) = plaintext.split_first().ok_or(Error::MessageMalformed)?;
    match *head {
        DATA => return Ok(Frame::Data(rest)),
        PART if rest.is_empty() => return Ok(Frame::Discard),
        PART => return Ok(Frame::Part(rest)),
        _ => {}
    }
    let (code, rest) = rest.split_first_chunk().ok_or(Error::MessageMalformed)?;
    let (detail, number) = rest.split_first_chunk().ok_or(Error::MessageMalformed)?;
    let number = number.try_into().map_err(|_| Error::MessageMalformed)?;
    match (*head, u16::from_be_bytes(*code), u16::from_be_bytes(*detail), u64::from_be_bytes(number)) {
        (NOTICE, code, detail, number) => Ok(Frame::Notice(Notice { code, detail, number })),
        (PING, code @ (0 | 1), 0, number) => Ok(Frame::Ping { answer: code == 1, number }),
        (END, code, 0, 0) => Ok(Frame::End(EndCode(code))),
        _ => Err(Error::MessageMalformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_plaintext_is_one_frame_or_none(plaintext in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(frame) = Frame::from_bytes(&plaintext) {
                prop_assert_eq!(frame.to_bytes(), plaintext);
            }
        }

        #[test]
        fn frames_read_back(head in 0..6_u8, code: u16, detail: u16, number: u64, data: Vec<u8>) {
            let frame = match head {
                0 => Frame::Data(data),
                1 => Frame::Notice(Notice { code, detail, number }),
                2 => Frame::Ping { answer: code % 2 == 1, number },
                3 if data.is_empty() => Frame::Discard,
                3 => Frame::Part(data),
                4 => Frame::Discard,
                _ => Frame::End(EndCode::new(code)),
            };
            prop_assert_eq!(Frame::from_bytes(&frame.to_bytes()), Ok(frame));
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let ended = Frame::<Vec<u8>>::End(EndCode::LEFT).to_bytes();
        for plaintext in [
            b"".as_slice(),
            b"{\"method\":1}",
            &[5; 13],
            &ended[..12],
            &[ended.as_slice(), &[0]].concat(),
            &[2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            &[3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(Frame::from_bytes(plaintext), Err(Error::MessageMalformed), "{plaintext:?}");
        }
    }

    #[test]
    fn an_end_tells_a_status_or_none() {
        for &status in Status::ALL {
            assert_eq!(EndCode::from(status).status(), Some(status));
        }
        for code in [EndCode::LEFT, EndCode::PROTOCOL, EndCode::TOO_SLOW, EndCode::CLOSED, EndCode::new(64)] {
            assert_eq!(code.status(), None);
        }
    }
}
