//! How a phone's connection ends.

use std::fmt;

use sessioncap::agent::{Denial, PermitError};
use sessioncap::session::Profile;
use sessioncap::{EndCode, Status};

/// How a connection ends.
pub enum End {
    /// The phone has ended its side.
    Left,
    /// The session has ended, and the phone has had all of its output.
    SessionEnded,
    /// The credential is not valid any more, or the connection is over for another reason.
    Over(Denial),
    /// The phone reads too slowly to follow the output.
    Lagged,
    /// The phone speaks no version of the session profile that this agent speaks.
    NoCommonVersion,
    /// The phone broke the protocol.
    Protocol,
    /// The phone is gone, does not read, or sends what does not decrypt. No message can reach it.
    Gone,
    /// The phone has answered no ping.
    Silent,
    /// Over in the middle of a frame that the phone does not take: no later one would decrypt, so
    /// nothing can follow. The phone learns why when it attaches again.
    Mute(Denial),
}

impl End {
    /// The code of the last frame, if one can still be sent.
    pub(super) fn code(&self) -> Option<EndCode> {
        match self {
            Self::Left => Some(EndCode::LEFT),
            Self::SessionEnded => Some(EndCode::from(Status::SessionGone)),
            Self::Over(denial) => Some(denial.end_code()),
            Self::Lagged => Some(EndCode::TOO_SLOW),
            Self::NoCommonVersion => Some(Profile::NO_COMMON_VERSION),
            Self::Protocol => Some(EndCode::PROTOCOL),
            Self::Gone | Self::Silent | Self::Mute(_) => None,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => f.write_str("it has left"),
            Self::SessionEnded => f.write_str("the session has ended"),
            Self::Over(denial) => denial.fmt(f),
            Self::Lagged => f.write_str("it reads too slowly"),
            Self::NoCommonVersion => {
                f.write_str("it speaks no version of the session profile that this agent speaks")
            }
            Self::Protocol => f.write_str("it broke the session profile: data came before its version"),
            Self::Gone => f.write_str("its connection broke off, or it does not read"),
            Self::Silent => f.write_str("it has answered no ping"),
            Self::Mute(denial) => write!(f, "{denial}, while it did not read"),
        }
    }
}

impl From<PermitError> for End {
    fn from(error: PermitError) -> Self {
        Self::Over(error.into())
    }
}
