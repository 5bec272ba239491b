//! Small pieces of JSON.

use sessioncap::acp::{Json, RpcError};

/// The object with `key` set, in its old place if it has one.
pub fn set(json: &mut Json, key: &str, value: Json) {
    if let Json::Object(entries) = json {
        match entries.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => entries.push((key.to_owned(), value)),
        }
    }
}

/// The text under `key`.
pub fn text_at<'a>(json: Option<&'a Json>, key: &str) -> Option<&'a str> {
    json?.get(key)?.as_text()
}

/// About the bytes that the value takes in memory.
pub fn weight(json: &Json) -> usize {
    const EACH: usize = size_of::<Json>();
    match json {
        Json::Null | Json::Bool(_) | Json::Number(_) => EACH,
        Json::Text(text) => EACH.saturating_add(text.len()),
        Json::List(values) => values.iter().fold(EACH, |sum, value| sum.saturating_add(weight(value))),
        Json::Object(entries) => entries.iter().fold(EACH, |sum, (key, value)| {
            sum.saturating_add(size_of::<String>()).saturating_add(key.len()).saturating_add(weight(value))
        }),
    }
}

/// An error of the multiplexer. `reason` stays the same from version to version.
pub fn error(code: i64, reason: &str, message: &str) -> RpcError {
    RpcError { code, message: message.to_owned(), data: Some(Json::object([("reason", Json::text(reason))])) }
}
