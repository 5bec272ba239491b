//! What the agent may tell a peer that has proven a ticket or a credential, and refuses nevertheless.

use core::fmt;

use serde::de::Visitor;
use thiserror::Error;

/// Why the agent refuses, as it says in message 2 (`docs/PROTOCOL.md` section 13).
///
/// A peer that has proven nothing gets no status at all, only the close that any stranger gets. The wire
/// numbers 0 and 1 are no refusals: they admit, and ask to wait for the desktop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Status {
    /// The ticket or the credential has ended.
    #[error("it has expired; ask the desktop for a new code")]
    Expired,
    /// Another phone has redeemed this ticket.
    #[error("another phone has used this code; ask the desktop for a new one")]
    Claimed,
    /// The owner took it back.
    #[error("it was revoked by the owner; ask for a new code")]
    Revoked,
    /// The session has ended.
    #[error("the session has ended; ask its owner to share another")]
    SessionGone,
    /// None of the operations asked for is allowed.
    #[error("none of these operations is allowed; ask for others, or later")]
    OperationDenied,
    /// The credential has as many connections as it may have.
    #[error("too many connections with this credential; close one")]
    Busy,
    /// The agent could not decide and therefore refuses; trying later may help.
    #[error("the agent could not decide; try again later")]
    Unavailable,
}

impl Status {
    /// All of them, in the order of their wire numbers.
    pub const ALL: &'static [Self] = &[
        Self::Expired,
        Self::Claimed,
        Self::Revoked,
        Self::SessionGone,
        Self::OperationDenied,
        Self::Busy,
        Self::Unavailable,
    ];

    /// The number on the wire.
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

    /// The refusal of a wire number, if it is one.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.iter().copied().find(|status| u64::from(status.number()) == number)
    }

    /// The status with this [`code`](Self::code), if there is one.
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

/// As its [`code`](Status::code).
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
