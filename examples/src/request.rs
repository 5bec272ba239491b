//! Requests as the deployed agents speak them: `{"method":…, parameters}` in one Noise frame, flat,
//! without an id, strictly one after another.

use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

use sessioncap::agent::Denial;
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
        let mut reader = serde_json::Deserializer::from_slice(frame);
        let read = Strict(DEPTH).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
        let Ok(Value::Object(mut parameters)) = read else { return Err(BadRequest) };
        match parameters.remove("method") {
            Some(Value::String(method)) => Ok(Self { method, parameters }),
            _ => Err(BadRequest),
        }
    }

    /// The method's name.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The session that the request names, whatever that is.
    pub fn named_session(&self) -> Option<&Value> {
        self.parameters.get("id")
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

/// A value without a repeated key in any object, nested up to this depth.
struct Strict(usize);

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Strict {
    fn inside<E: serde::de::Error>(&self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom("nested too deeply"))
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a json value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(self.inside()?)? {
            list.push(value);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(self.inside()?)?;
            if map.insert(key, value).is_some() {
                return Err(A::Error::custom("a key comes twice"));
            }
        }
        Ok(map.into())
    }
}

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
