//! JSON-RPC 2.0 messages, read strictly.

use thiserror::Error;

use crate::json::{Json, JsonError};
use crate::limits::{
    MAX_ACP_JSON_DEPTH, MAX_ACP_REQUEST_ID_LEN, MAX_ERROR_TEXT_LEN, MAX_MESSAGE_LEN, MAX_METHOD_LEN,
    MAX_REQUESTS,
};
use crate::protocol::frame::EndCode;

/// The version of the ACP profile and its bounds (`docs/PROTOCOL.md` section 17).
#[derive(Debug, Clone, Copy)]
pub enum AcpProfile {}

impl AcpProfile {
    /// The highest version that this crate speaks.
    pub const VERSION: u16 = 1;
    /// The end code of a bridge that speaks none of the phone's versions: that of the session profile.
    pub const NO_COMMON_VERSION: EndCode = EndCode::new(64);
    /// Most requests of one phone that are not answered yet.
    pub const MAX_REQUESTS: usize = MAX_REQUESTS;

    /// Returns the version that a bridge and a phone use, from the highest that the phone speaks.
    ///
    /// # Errors
    /// [`AcpProfile::NO_COMMON_VERSION`], to end the connection with.
    pub fn agree(highest: u16) -> Result<u16, EndCode> {
        match highest.min(Self::VERSION) {
            0 => Err(Self::NO_COMMON_VERSION),
            version => Ok(version),
        }
    }
}

/// The id of a JSON-RPC request. A number and a text are different ids, also if they look alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestId {
    /// `null`.
    Null,
    /// An integer.
    Number(i64),
    /// A text, at most [`RequestId::MAX_LEN`] bytes.
    Text(String),
}

impl RequestId {
    /// Longest id that is a text, bytes.
    pub const MAX_LEN: usize = MAX_ACP_REQUEST_ID_LEN;

    /// Reads an id from a JSON value. Returns `None` if the value is none: a fraction, a list, a text that is too long.
    #[must_use]
    pub fn from_json(json: &Json) -> Option<Self> {
        match json {
            Json::Null => Some(Self::Null),
            Json::Text(text) if text.len() <= Self::MAX_LEN => Some(Self::Text(text.clone())),
            json => json.as_integer().map(Self::Number),
        }
    }

    /// Returns the id as a JSON value.
    #[must_use]
    pub fn to_json(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Number(number) => Json::integer(*number),
            Self::Text(text) => Json::text(text.as_str()),
        }
    }
}

/// The error of a JSON-RPC response.
#[derive(Debug, Clone, PartialEq)]
pub struct RpcError {
    /// The number of the error.
    pub code: i64,
    /// A sentence for a person.
    pub message: String,
    /// More about it.
    pub data: Option<Json>,
}

/// A JSON-RPC 2.0 message of either side.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// A request, which is answered by a response with the same id.
    Request {
        /// The id.
        id: RequestId,
        /// The method's name.
        method: String,
        /// The parameters: an object or a list. `null` reads as none.
        params: Option<Json>,
    },
    /// A notification, which has no answer.
    Notification {
        /// The method's name.
        method: String,
        /// The parameters: an object or a list. `null` reads as none.
        params: Option<Json>,
    },
    /// The answer to a request.
    Response {
        /// The id of the request.
        id: RequestId,
        /// The result, or the error.
        outcome: Result<Json, RpcError>,
    },
}

/// Why bytes are not a JSON-RPC 2.0 message that the adapter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MessageError {
    /// More bytes than allowed.
    #[error("the message has more than {max} bytes; send less at once")]
    TooLong {
        /// The most bytes.
        max: usize,
    },
    /// Not JSON, not UTF-8, a repeated key, nested too deeply, or too many values.
    #[error("the message is not json in utf-8 with each key once and at most {depth} levels; write it so")]
    NotJson {
        /// The most levels of arrays and objects.
        depth: usize,
    },
    /// Several messages in a list.
    #[error("several messages came in one list; send each by itself")]
    Batch,
    /// JSON, but no request, notification or response of JSON-RPC 2.0.
    #[error("not a request, notification or response of json-rpc 2.0; send only the keys that it defines")]
    Malformed,
}

impl MessageError {
    /// Returns the name of the error, which stays the same from version to version.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "too_long",
            Self::NotJson { .. } => "not_json",
            Self::Batch => "batch",
            Self::Malformed => "malformed",
        }
    }
}

impl Message {
    /// Longest message on the guarded channel, bytes.
    pub const MAX_LEN: usize = MAX_MESSAGE_LEN;
    /// Deepest nesting of arrays and objects in a message.
    pub const MAX_DEPTH: usize = MAX_ACP_JSON_DEPTH;
    /// Longest name of a method, bytes.
    pub const MAX_METHOD_LEN: usize = MAX_METHOD_LEN;

    /// Reads a message of at most [`Message::MAX_LEN`] bytes.
    ///
    /// # Errors
    /// [`MessageError`], if it is none: also for a batch, for unknown keys beside those of JSON-RPC, for a `jsonrpc`
    /// other than `"2.0"`, for both `result` and `error`, and for an id that is neither a text, an integer of 64
    /// bits nor `null`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MessageError> {
        Self::from_bytes_up_to(bytes, Self::MAX_LEN)
    }

    /// As [`Message::from_bytes`], with another bound: an agent at the desktop may send longer ones.
    ///
    /// # Errors
    /// As [`Message::from_bytes`].
    pub fn from_bytes_up_to(bytes: &[u8], max: usize) -> Result<Self, MessageError> {
        let entries = match Json::from_bytes(bytes, max, Self::MAX_DEPTH) {
            Ok(Json::Object(entries)) => entries,
            Ok(Json::List(_)) => return Err(MessageError::Batch),
            Ok(_) => return Err(MessageError::Malformed),
            Err(JsonError::TooLong { max }) => return Err(MessageError::TooLong { max }),
            Err(JsonError::Malformed { depth }) => return Err(MessageError::NotJson { depth }),
        };
        Self::from_entries(entries).ok_or(MessageError::Malformed)
    }

    fn from_entries(entries: Vec<(String, Json)>) -> Option<Self> {
        let (mut version, mut id, mut method, mut params, mut result, mut error) = Default::default();
        for (key, value) in entries {
            let field: &mut Option<Json> = match key.as_str() {
                "jsonrpc" => &mut version,
                "id" => &mut id,
                "method" => &mut method,
                "params" => &mut params,
                "result" => &mut result,
                "error" => &mut error,
                _ => return None,
            };
            *field = Some(value);
        }
        if version?.as_text() != Some("2.0") {
            return None;
        }
        let id = id.as_ref().map(|id| RequestId::from_json(id).ok_or(())).transpose().ok()?;
        match (method, result, error) {
            (Some(Json::Text(method)), None, None) if method.len() <= Self::MAX_METHOD_LEN => {
                let params = match params {
                    None | Some(Json::Null) => None,
                    Some(params @ (Json::Object(_) | Json::List(_))) => Some(params),
                    Some(_) => return None,
                };
                Some(match id {
                    Some(id) => Self::Request { id, method, params },
                    None => Self::Notification { method, params },
                })
            }
            (None, Some(result), None) if params.is_none() => {
                Some(Self::Response { id: id?, outcome: Ok(result) })
            }
            (None, None, Some(error)) if params.is_none() => {
                Some(Self::Response { id: id?, outcome: Err(RpcError::from_json(error)?) })
            }
            _ => None,
        }
    }

    /// Returns the message as a JSON value.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut entries = vec![("jsonrpc".to_owned(), Json::text("2.0"))];
        let mut put = |key: &str, value: Json| entries.push((key.to_owned(), value));
        match self {
            Self::Request { id, method, params } => {
                put("id", id.to_json());
                put("method", Json::text(method.as_str()));
                params.iter().for_each(|params| put("params", params.clone()));
            }
            Self::Notification { method, params } => {
                put("method", Json::text(method.as_str()));
                params.iter().for_each(|params| put("params", params.clone()));
            }
            Self::Response { id, outcome } => {
                put("id", id.to_json());
                match outcome {
                    Ok(result) => put("result", result.clone()),
                    Err(error) => put("error", error.to_json()),
                }
            }
        }
        Json::Object(entries)
    }

    /// Writes the message as one line of JSON, without a line break.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.to_json().to_text()
    }
}

impl RpcError {
    /// The text is not JSON.
    pub const PARSE: i64 = -32700;
    /// Not a request that may be sent so.
    pub const INVALID_REQUEST: i64 = -32600;
    /// There is no such method.
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// The method does not take these parameters.
    pub const INVALID_PARAMS: i64 = -32602;
    /// The bridge or the agent failed.
    pub const INTERNAL: i64 = -32603;
    /// The credential, or any credential, does not allow it. `data.reason` says why.
    pub const NOT_ALLOWED: i64 = -32050;
    /// Longest text of an agent's error that a phone is shown, bytes.
    pub const MAX_SHOWN_LEN: usize = MAX_ERROR_TEXT_LEN;

    fn from_json(json: Json) -> Option<Self> {
        let Json::Object(entries) = json else { return None };
        let (mut code, mut message, mut data) = (None, None, None);
        for (key, value) in entries {
            match key.as_str() {
                "code" => code = Some(value.as_integer()?),
                "message" => message = Some(value.as_text()?.to_owned()),
                "data" => data = Some(value),
                _ => return None,
            }
        }
        Some(Self { code: code?, message: message?, data })
    }

    fn to_json(&self) -> Json {
        let mut entries = vec![
            ("code".to_owned(), Json::integer(self.code)),
            ("message".to_owned(), Json::text(self.message.as_str())),
        ];
        entries.extend(self.data.iter().map(|data| ("data".to_owned(), data.clone())));
        Json::Object(entries)
    }
}
