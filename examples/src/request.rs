//! Requests as the deployed agents speak them: `{"method":…, parameters}` in one Noise frame, flat,
//! without an id, strictly one after another.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use sessioncap::agent::Denial;
use sessioncap::dd::Json;
use sessioncap::session::Profile;

use super::problem::{Outcome, Problem};

/// A request whose parameters are not read yet.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    parameters: Map<String, Value>,
}

impl Request {
    /// Reads one. A key that comes twice is refused: two readers could take different ones.
    pub fn parse(frame: &[u8]) -> Result<Self, BadRequest> {
        Json::from_bytes(frame, frame.len(), DEPTH).map_err(|_| BadRequest)?;
        let Ok(Value::Object(mut parameters)) = serde_json::from_slice(frame) else { return Err(BadRequest) };
        match parameters.remove("method") {
            Some(Value::String(method)) => Ok(Self { method, parameters }),
            _ => Err(BadRequest),
        }
    }

    /// The method's name.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The whole request, as the type of a known method.
    pub fn whole<T: DeserializeOwned>(&self) -> Result<T, BadRequest> {
        let mut request = self.parameters.clone();
        request.insert("method".to_owned(), self.method.clone().into());
        serde_json::from_value(Value::Object(request)).map_err(|_| BadRequest)
    }

    /// The parameters of a known method.
    pub fn parameters<T: DeserializeOwned>(&self) -> Result<T, BadRequest> {
        serde_json::from_value(Value::Object(self.parameters.clone())).map_err(|_| BadRequest)
    }
}

/// A request that is not one, or lacks a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadRequest;

/// Deepest nesting of a request.
const DEPTH: usize = Profile::MAX_JSON_DEPTH;

/// `{"error":code,"detail":text}`.
pub fn error(code: &str, detail: impl fmt::Display) -> Value {
    json!({ "error": code, "detail": detail.to_string() })
}

/// The answer to a peer about a denial.
pub fn denied(denial: &Denial) -> Value {
    let mut reply = error("denied", denial);
    if let Some(reply) = reply.as_object_mut() {
        reply.insert("code".to_owned(), denial.code().into());
        if let Denial::ClockSkew { agent_time } = denial {
            reply.insert("agent_time".to_owned(), agent_time.seconds().into());
        }
    }
    reply
}

/// A client's reading of an answer: the agent's errors become its own.
pub fn read_answer(frame: &[u8]) -> Outcome<Value> {
    let answer: Value = serde_json::from_slice(frame)
        .map_err(|_| Problem::said("the agent's answer is not json; is it an older version?"))?;
    let text = |key: &str| answer.get(key).and_then(Value::as_str).map(str::to_owned);
    match text("error") {
        None => Ok(answer),
        Some(error) => Err(Problem::Refused {
            code: text("code").unwrap_or(error),
            detail: text("detail").unwrap_or_else(|| "it does not say why".to_owned()),
            agent_time: answer.get("agent_time").and_then(Value::as_u64),
        }),
    }
}
