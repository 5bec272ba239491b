//! The part of an unreadable message that says what it is.

use serde::Deserialize;
use serde::de::IgnoredAny;
use sessioncap::acp::{Json, RequestId};

/// A message that cannot be read whole, and that somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// The agent's answer to this request.
    Answer(RequestId),
    /// A request of the agent, which waits for its answer.
    Request(RequestId),
}

#[derive(Deserialize)]
struct Head {
    id: Option<Id>,
    method: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Number(i64),
    Text(String),
}

impl Unreadable {
    /// Finds the id in a line of JSON that is beyond a bound: too many values, too deep, a key twice, a key too many.
    /// Keeps nothing of the rest, and does not recurse. Returns `None` if there is no id, or no whole JSON.
    pub fn find(line: &[u8]) -> Option<Self> {
        let Head { id, method } = serde_json::from_slice(line).ok()?;
        let id = RequestId::from_json(&match id? {
            Id::Number(number) => Json::integer(number),
            Id::Text(text) => Json::text(text),
        })?;
        Some(if method.is_some() { Self::Request(id) } else { Self::Answer(id) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_found_beside_what_is_too_much() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let many = format!("[{}0]", "0,".repeat(1_000_000));
        for much in [deep.as_str(), &many, r#"{"a":1,"a":2}"#] {
            let answer = format!(r#"{{"jsonrpc":"2.0","id":7,"result":{much}}}"#);
            assert_eq!(Unreadable::find(answer.as_bytes()), Some(Unreadable::Answer(RequestId::Number(7))));
            let request = format!(r#"{{"params":{much},"method":"m","id":"q"}}"#);
            let id = RequestId::Text("q".to_owned());
            assert_eq!(Unreadable::find(request.as_bytes()), Some(Unreadable::Request(id)));
            let notice = format!(r#"{{"params":{much},"method":"m"}}"#);
            assert_eq!(Unreadable::find(notice.as_bytes()), None);
        }
    }

    #[test]
    fn what_is_no_json_or_has_two_ids_or_a_strange_one_has_none() {
        let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(RequestId::MAX_LEN + 1));
        for line in [
            "",
            "{",
            r#"{"id":1,"result":[}"#,
            r#"{"id":1,"id":2}"#,
            r#"{"id":1.5}"#,
            "[1]",
            r#"{"id":1} {"#,
            &long,
        ] {
            assert_eq!(Unreadable::find(line.as_bytes()), None, "{line}");
        }
    }
}
