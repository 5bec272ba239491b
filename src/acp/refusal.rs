//! Why a phone's message is refused, and what the phone is told.

use crate::acp::message::{Message, MessageError, RequestId, RpcError};
use crate::json::Json;
use crate::op::{Action, Op, Privilege};

/// Why a phone's message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// No credential allows it.
    Privileged(Privilege),
    /// The credential does not allow the operation. The guard finds this, not the adapter.
    NotGranted(Op),
    /// It names another session.
    OtherSession,
    /// It is no JSON-RPC message.
    Message(MessageError),
    /// There is no such method, or not as this kind of message.
    UnknownMethod,
    /// This version of the profile does not serve the method, which would need the operation.
    Unserved(Op),
    /// The parameters are not those of the method, or more than the table allows.
    Parameters,
    /// It answers or cancels what is not open.
    NotPending,
    /// It answers with a choice that was not offered.
    NotOffered,
    /// A request with this id is not answered yet.
    IdInUse,
    /// Too many requests are not answered yet.
    TooManyRequests,
}

impl Reason {
    /// Returns the name of the reason, `data.reason` of the answer. It stays the same from version to version.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Privileged(_) => "operation_denied",
            Self::NotGranted(_) => "not_granted",
            Self::OtherSession => "other_session",
            Self::Message(error) => error.code(),
            Self::UnknownMethod => "unknown_method",
            Self::Unserved(_) => "not_served",
            Self::Parameters => "parameters",
            Self::NotPending => "not_pending",
            Self::NotOffered => "not_offered",
            Self::IdInUse => "id_in_use",
            Self::TooManyRequests => "too_many_requests",
        }
    }

    /// Returns what the message asks for, if that is what it is refused for.
    #[must_use]
    pub fn action(&self) -> Option<Action> {
        match self {
            Self::Privileged(privilege) => Some(Action::Privileged(*privilege)),
            Self::NotGranted(op) | Self::Unserved(op) => Some(Action::Session(*op)),
            _ => None,
        }
    }

    fn number(&self) -> i64 {
        match self {
            Self::Message(MessageError::NotJson { .. } | MessageError::TooLong { .. }) => RpcError::PARSE,
            Self::Message(_) | Self::IdInUse | Self::TooManyRequests | Self::NotPending => {
                RpcError::INVALID_REQUEST
            }
            Self::UnknownMethod | Self::Unserved(_) => RpcError::METHOD_NOT_FOUND,
            Self::Parameters => RpcError::INVALID_PARAMS,
            Self::Privileged(_) | Self::NotGranted(_) | Self::OtherSession | Self::NotOffered => {
                RpcError::NOT_ALLOWED
            }
        }
    }

    /// A sentence for the person who holds the phone.
    fn sentence(&self) -> String {
        match self {
            Self::Privileged(privilege) => {
                let what = match privilege {
                    Privilege::DiscoverFleet => "see other sessions",
                    Privilege::CreateSession => "start a session",
                    Privilege::Administer => "close, delete or manage a session",
                    Privilege::Configure => "change the session's mode, settings or title",
                    Privilege::Enroll => "enrol a device",
                    Privilege::ExecuteOutsideSession => "run a command outside the session",
                    Privilege::AccessFiles => "use the file service",
                };
                format!("a phone cannot {what}; do it at the desktop")
            }
            Self::NotGranted(op) => format!(
                "this phone may not {}; ask at the desktop for a link that allows it",
                op.describe()
            ),
            Self::OtherSession => {
                "this phone was given another session; ask at the desktop for a link to this one".to_owned()
            }
            Self::Message(error) => error.to_string(),
            Self::UnknownMethod => "there is no such method here; use one of the agent client protocol".to_owned(),
            Self::Unserved(_) => {
                "this bridge serves version 1 of the protocol, without this method; do it at the desktop".to_owned()
            }
            Self::Parameters => {
                "the parameters are not those that a phone may send; send only the keys that the profile allows"
                    .to_owned()
            }
            Self::NotPending => "this is answered or over already; there is nothing to do".to_owned(),
            Self::NotOffered => "this choice was not offered to a phone; decide it at the desktop".to_owned(),
            Self::IdInUse => "a request with this id waits for its answer; use another id".to_owned(),
            Self::TooManyRequests => {
                "too many requests wait for their answers; send it again after one of them".to_owned()
            }
        }
    }

    /// Returns the error to answer with.
    #[must_use]
    pub fn to_error(&self) -> RpcError {
        RpcError {
            code: self.number(),
            message: self.sentence(),
            data: Some(Json::object([("reason", Json::text(self.code()))])),
        }
    }
}

/// A phone's message that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The id to answer with: that of the request; `null` for what is no message. `None` for a notification or a
    /// response, which have no answer.
    pub id: Option<RequestId>,
    /// Why.
    pub reason: Reason,
}

impl Refusal {
    /// Returns the JSON-RPC response that tells the phone. Returns `None` if what was refused has no answer; a notice
    /// of `docs/PROTOCOL.md` section 6.5 tells it then.
    #[must_use]
    pub fn answer(&self) -> Option<String> {
        let id = self.id.clone()?;
        Some(Message::Response { id, outcome: Err(self.reason.to_error()) }.to_text())
    }
}
