//! The refusals that the agent may tell a peer that has proven a ticket or a credential.

use core::fmt;

use serde::de::Visitor;
use thiserror::Error;

/// The reason for a refusal in message 2 (`docs/PROTOCOL.md` section 13).
///
/// A peer that has proven nothing gets no status; its connection is closed as for any stranger. The wire
/// numbers 0 and 1 are not refusals: they mean "admitted" and "waiting for confirmation".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Status {
    /// The ticket or the credential has expired.
    #[error("it has expired; ask the desktop for a new code")]
    Expired,
    /// Another phone has redeemed this ticket.
    #[error("another phone has used this code; ask the desktop for a new one")]
    Claimed,
    /// The owner revoked it.
    #[error("it was revoked, or another phone used the same code; ask for a new code")]
    Revoked,
    /// The session has ended.
    #[error("the session has ended; ask its owner to share another")]
    SessionGone,
    /// None of the requested operations is allowed.
    #[error("none of these operations is allowed; ask for others, or later")]
    OperationDenied,
    /// The credential has as many connections as it may have.
    #[error("too many connections with this credential; close one")]
    Busy,
    /// The agent could not decide and therefore refuses; a later attempt may succeed.
    #[error("the agent could not decide; try again later")]
    Unavailable,
}

impl Status {
    /// Every status, in the order of the wire numbers.
    pub const ALL: &'static [Self] = &[
        Self::Expired,
        Self::Claimed,
        Self::Revoked,
        Self::SessionGone,
        Self::OperationDenied,
        Self::Busy,
        Self::Unavailable,
    ];

    /// Returns the number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Expired => 2,
            Self::Claimed => 3,
            Self::Revoked => 4,
            Self::SessionGone => 5,
            Self::OperationDenied => 6,
            Self::Busy => 7,
            Self::Unavailable => 8,
        }
    }

    /// Returns the refusal with this wire number, if there is one.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.iter().copied().find(|status| u64::from(status.number()) == number)
    }

    /// Returns the status with this [`code`](Self::code), if there is one.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|status| status.code() == code)
    }

    /// A stable name for programs and logs.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Claimed => "claimed",
            Self::Revoked => "revoked",
            Self::SessionGone => "session_gone",
            Self::OperationDenied => "operation_denied",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Serialises as the [`code`](Status::code).
impl serde::Serialize for Status {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> serde::Deserialize<'de> for Status {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Code)
    }
}

struct Code;

impl Visitor<'_> for Code {
    type Value = Status;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the code of a status")
    }

    fn visit_str<E: serde::de::Error>(self, code: &str) -> Result<Status, E> {
        Status::from_code(code).ok_or_else(|| E::custom("unknown status"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_numbers_count_up_from_two_and_come_back() {
        for (number, status) in (2_u8..).zip(Status::ALL.iter().copied()) {
            assert_eq!(status.number(), number);
            assert_eq!(Status::from_number(number.into()), Some(status));
        }
        for number in [0, 1, 9, 256 + 2, u64::MAX] {
            assert_eq!(Status::from_number(number), None, "{number}");
        }
    }
}
