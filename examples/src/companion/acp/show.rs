//! Messages of a bridge, for a person.

use sessioncap::acp::{Json, Message, RequestId};

use crate::terminal::harmless;

/// A choice of a question.
pub struct Choice {
    /// The id that the answer names.
    pub id: String,
    /// The name for a person.
    pub name: String,
}

/// A question that waits for an answer.
pub struct Question {
    /// Its id.
    pub id: RequestId,
    /// The question, for a person.
    pub title: String,
    /// The choices.
    pub choices: Vec<Choice>,
}

/// What a message says.
pub enum Shown {
    /// Text of the agent that goes on where the last has ended.
    Text(String),
    /// A line of its own.
    Line(String),
    /// A question.
    Question(Question),
    /// A question is over.
    Over(RequestId),
    /// Nothing for a person.
    Nothing,
}

fn text<'a>(json: &'a Json, key: &str) -> &'a str {
    json.get(key).and_then(Json::as_text).unwrap_or_default()
}

/// Reads a message that is no answer. Text of the agent may hold anything: it is made harmless here.
pub fn read(message: &Message) -> Shown {
    match message {
        Message::Notification { method, params: Some(params) } if method == "session/update" => {
            params.get("update").map_or(Shown::Nothing, update)
        }
        Message::Notification { method, params: Some(params) } if method == "$/cancel_request" => {
            match params.get("requestId").map(|id| (id.as_integer(), id.as_text())) {
                Some((Some(number), _)) => Shown::Over(RequestId::Number(number)),
                Some((_, Some(text))) => Shown::Over(RequestId::Text(text.to_owned())),
                _ => Shown::Nothing,
            }
        }
        Message::Request { id, method, params: Some(params) } if method == "session/request_permission" => {
            let title = params.get("toolCall").map(|call| text(call, "title")).unwrap_or_default();
            let title = if title.is_empty() { "something that it does not name" } else { title };
            let choices = match params.get("options") {
                Some(Json::List(options)) => options
                    .iter()
                    .map(|option| Choice {
                        id: text(option, "optionId").to_owned(),
                        name: harmless(text(option, "name")),
                    })
                    .collect(),
                _ => Vec::new(),
            };
            Shown::Question(Question { id: id.clone(), title: harmless(title), choices })
        }
        _ => Shown::Nothing,
    }
}

fn content(update: &Json) -> String {
    let Some(content) = update.get("content") else { return String::new() };
    match text(content, "type") {
        "text" => text(content, "text").to_owned(),
        "" => String::new(),
        other => format!("[{other}]"),
    }
}

/// Keeps line breaks and tabs of the agent's text, and makes everything else harmless.
fn lines(text: &str) -> String {
    text.split('\n').map(harmless).collect::<Vec<_>>().join("\n")
}

fn update(update: &Json) -> Shown {
    let line = |text: String| Shown::Line(harmless(&text));
    match text(update, "sessionUpdate") {
        "agent_message_chunk" => Shown::Text(lines(&content(update))),
        "agent_thought_chunk" => line(format!("thinks: {}", content(update))),
        "user_message_chunk" => line(format!("prompt: {}", content(update))),
        "tool_call" => line(format!("tool: {} ({})", text(update, "title"), status(update))),
        "tool_call_update" => match (text(update, "title"), status(update)) {
            ("", "unknown") => Shown::Nothing,
            (title, status) => line(format!("tool {}: {title} {status}", text(update, "toolCallId"))),
        },
        "plan" => match update.get("entries") {
            Some(Json::List(entries)) => {
                let entries: Vec<_> = entries.iter().map(|entry| text(entry, "content")).collect();
                line(format!("plan: {}", entries.join("; ")))
            }
            _ => Shown::Nothing,
        },
        "current_mode_update" => line(format!("mode: {}", text(update, "currentModeId"))),
        "session_info_update" => line(format!("session: {}", text(update, "title"))),
        _ => Shown::Nothing,
    }
}

fn status(update: &Json) -> &str {
    match text(update, "status") {
        "" => "unknown",
        status => status,
    }
}
