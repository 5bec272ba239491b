//! What the agent may tell a peer that has proven a ticket or a credential.

use core::fmt;

use serde::de::Visitor;
use thiserror::Error;

/// The agent's answer in message 2 (`docs/PROTOCOL.md` section 6.3).
///
/// A peer that has proven nothing gets no status at all, only the close that any stranger gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Status {
    /// The peer is admitted.
    #[error("admitted")]
    Ok,
    /// The desktop has to confirm first; ask again with the same key.
    #[error("the desktop has to confirm this phone first")]
    Pending,
    /// The ticket or the credential has ended.
    #[error("it has expired; ask the desktop for a new code")]
    Expired,
    /// Another phone has redeemed this ticket.
    #[error("another phone has used this code; ask the desktop for a new one")]
    Claimed,
    /// The owner took it back.
    #[error("it was revoked by the owner")]
    Revoked,
    /// The session has ended.
    #[error("the session has ended")]
    SessionGone,
    /// None of the operations asked for is allowed.
    #[error("none of these operations is allowed")]
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
        Self::Ok,
        Self::Pending,
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
            Self::Ok => 0,
            Self::Pending => 1,
            Self::Expired => 2,
            Self::Claimed => 3,
            Self::Revoked => 4,
            Self::SessionGone => 5,
            Self::OperationDenied => 6,
            Self::Busy => 7,
            Self::Unavailable => 8,
        }
    }

    /// The status of a wire number, if there is one.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        let number = usize::try_from(number).ok()?;
        Self::ALL.get(number).copied()
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
            Self::Ok => "ok",
            Self::Pending => "pending",
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
    fn wire_numbers_count_up_from_zero_and_come_back() {
        for (index, status) in Status::ALL.iter().copied().enumerate() {
            assert_eq!(usize::from(status.number()), index);
            assert_eq!(Status::from_number(index as u64), Some(status));
        }
        assert_eq!(Status::from_number(Status::ALL.len() as u64), None);
        assert_eq!(Status::from_number(u64::MAX), None);
    }
}
