//! The questions of an agent that a phone may answer: one tool call, or a form.

use crate::acp::refusal::Reason;
use crate::acp::shape::{Field, Rebuild, Shape, may, need};
use crate::acp::update::TOOL_CALL_UPDATE;
use crate::json::{Json, Number};
use crate::limits::{MAX_ACP_FORM_LEN, MAX_ACP_OPTIONS};

/// What may be answered.
#[derive(Debug)]
pub(super) enum Question {
    /// One of these ids of options.
    Permission(Vec<String>),
    /// The fields of a form.
    Form(Vec<Entry>),
}

/// A field of a form.
#[derive(Debug)]
pub(super) struct Entry {
    name: String,
    required: bool,
    takes: Takes,
}

#[derive(Debug)]
enum Takes {
    Text,
    Number,
    Integer,
    Bool,
    OneOf(Vec<String>),
    SomeOf(Vec<String>),
}

const PERMISSION: Shape = Shape::Object(&[
    need("sessionId", Shape::OwnSession),
    need("toolCall", Shape::Object(TOOL_CALL_UPDATE)),
    need(
        "options",
        Shape::List(&Shape::Object(&[
            need("optionId", Shape::Text),
            need("name", Shape::Text),
            need("kind", Shape::Text),
        ])),
    ),
]);

const TITLED: &[Field] =
    &[need("const", Shape::Text), need("title", Shape::Text), may("description", Shape::Text)];
const PROPERTY: Shape = Shape::Tagged(
    "type",
    &[
        (
            "string",
            &[
                may("title", Shape::Text),
                may("description", Shape::Text),
                may("minLength", Shape::Count),
                may("maxLength", Shape::Count),
                may("pattern", Shape::Text),
                may("format", Shape::Text),
                may("default", Shape::Text),
                may("enum", Shape::List(&Shape::Text)),
                may("oneOf", Shape::List(&Shape::Object(TITLED))),
            ],
        ),
        ("number", NUMBER),
        ("integer", INTEGER),
        (
            "boolean",
            &[may("title", Shape::Text), may("description", Shape::Text), may("default", Shape::Bool)],
        ),
        (
            "array",
            &[
                may("title", Shape::Text),
                may("description", Shape::Text),
                may("minItems", Shape::Count),
                may("maxItems", Shape::Count),
                need(
                    "items",
                    Shape::Either(&[
                        Shape::Tagged("type", &[("string", &[need("enum", Shape::List(&Shape::Text))])]),
                        Shape::Object(&[need("anyOf", Shape::List(&Shape::Object(TITLED)))]),
                    ]),
                ),
                may("default", Shape::List(&Shape::Text)),
            ],
        ),
    ],
);
const INTEGER: &[Field] = &[
    may("title", Shape::Text),
    may("description", Shape::Text),
    may("minimum", Shape::Integer),
    may("maximum", Shape::Integer),
    may("default", Shape::Integer),
];
const NUMBER: &[Field] = &[
    may("title", Shape::Text),
    may("description", Shape::Text),
    may("minimum", Shape::Number),
    may("maximum", Shape::Number),
    may("default", Shape::Number),
];

/// A form. A question that sends the person to a web page is for the desktop.
const FORM: Shape = Shape::Object(&[
    need("sessionId", Shape::OwnSession),
    may("toolCallId", Shape::Text),
    need("mode", Shape::Choice(&["form"])),
    need("message", Shape::Text),
    need(
        "requestedSchema",
        Shape::Object(&[
            need("type", Shape::Choice(&["object"])),
            may("title", Shape::Text),
            may("description", Shape::Text),
            need("properties", Shape::Map(&PROPERTY)),
            may("required", Shape::List(&Shape::Text)),
        ]),
    ),
]);

impl Question {
    /// Reads a question of an agent: what may be answered, and the parameters for the phone. `None` if it is not one
    /// that a phone may answer.
    pub(super) fn read(rebuild: Rebuild<'_>, method: &str, params: &Json) -> Option<(Self, Json)> {
        match method {
            "session/request_permission" => permission(rebuild, params),
            "elicitation/create" => form(rebuild, params),
            _ => None,
        }
    }

    /// Checks a phone's result and makes it anew for the agent.
    pub(super) fn answer(&self, result: &Json) -> Result<Json, Reason> {
        match self {
            Self::Permission(offered) => {
                let outcome = strict(&PERMISSION_RESULT, result)?;
                let chosen = outcome.get("outcome").and_then(|outcome| outcome.get("optionId"));
                match chosen.and_then(Json::as_text) {
                    Some(chosen) if !offered.iter().any(|offered| offered == chosen) => {
                        Err(Reason::NotOffered)
                    }
                    _ => Ok(outcome),
                }
            }
            Self::Form(entries) => {
                let answer = strict(&FORM_RESULT, result)?;
                if answer.get("action").and_then(Json::as_text) == Some("accept") {
                    let content = match answer.get("content") {
                        Some(Json::Object(content)) => content.as_slice(),
                        _ => &[],
                    };
                    fits(entries, content)?;
                }
                Ok(answer)
            }
        }
    }
}

const PERMISSION_RESULT: Shape = Shape::Object(&[need(
    "outcome",
    Shape::Tagged("outcome", &[("selected", &[need("optionId", Shape::Text)]), ("cancelled", &[])]),
)]);
const FORM_RESULT: Shape = Shape::Tagged(
    "action",
    &[
        (
            "accept",
            &[may(
                "content",
                Shape::Map(&Shape::Either(&[
                    Shape::Text,
                    Shape::Number,
                    Shape::Bool,
                    Shape::List(&Shape::Text),
                ])),
            )],
        ),
        ("decline", &[]),
        ("cancel", &[]),
    ],
);

fn strict(shape: &Shape, json: &Json) -> Result<Json, Reason> {
    Rebuild::from_phone("").value(shape, json).map_err(|_| Reason::Parameters)
}

fn permission(rebuild: Rebuild<'_>, params: &Json) -> Option<(Question, Json)> {
    let Json::Object(mut entries) = rebuild.value(&PERMISSION, params).ok()? else { return None };
    // Of those as well that have not the form of an option and are left out.
    let all: Vec<String> = match params.get("options") {
        Some(Json::List(options)) => {
            options.iter().filter_map(|option| text_of(option, "optionId")).collect()
        }
        _ => Vec::new(),
    };
    // Allowing a change of mode changes a setting, which no phone may.
    let changes_mode = entries.iter().any(|(key, value)| {
        key == "toolCall" && value.get("kind").and_then(Json::as_text) == Some("switch_mode")
    });
    let (_, Json::List(options)) = entries.iter_mut().find(|(key, _)| key == "options")? else { return None };
    options.retain(|option| {
        let once = match option.get("kind").and_then(Json::as_text) {
            Some("allow_once") => !changes_mode,
            Some("reject_once") => true,
            _ => false,
        };
        // An id that stands for two options could be taken for the other one.
        let id = text_of(option, "optionId");
        once && all.iter().filter(|other| Some(*other) == id.as_ref()).count() == 1
    });
    let offered: Vec<String> = options.iter().filter_map(|option| text_of(option, "optionId")).collect();
    let some = (1..=MAX_ACP_OPTIONS).contains(&offered.len());
    some.then_some((Question::Permission(offered), Json::Object(entries)))
}

fn text_of(json: &Json, key: &str) -> Option<String> {
    json.get(key).and_then(Json::as_text).map(str::to_owned)
}

fn form(rebuild: Rebuild<'_>, params: &Json) -> Option<(Question, Json)> {
    let params = rebuild.value(&FORM, params).ok()?;
    if params.to_text().len() > MAX_ACP_FORM_LEN {
        return None;
    }
    let schema = params.get("requestedSchema")?;
    let required = texts(schema.get("required"));
    let Some(Json::Object(properties)) = schema.get("properties") else { return None };
    let entries: Option<Vec<Entry>> = properties
        .iter()
        .map(|(name, property)| {
            Some(Entry { name: name.clone(), required: required.contains(name), takes: takes(property)? })
        })
        .collect();
    let entries = entries?;
    // A form that asks for what it does not have cannot be filled in.
    let whole = required.iter().all(|name| entries.iter().any(|entry| entry.name == *name));
    whole.then_some((Question::Form(entries), params))
}

fn takes(property: &Json) -> Option<Takes> {
    Some(match property.get("type")?.as_text()? {
        "string" => match (property.get("enum"), property.get("oneOf")) {
            (Some(Json::List(_)), _) => Takes::OneOf(texts(property.get("enum"))),
            (_, Some(Json::List(_))) => Takes::OneOf(titled(property.get("oneOf"))),
            _ => Takes::Text,
        },
        "number" => Takes::Number,
        "integer" => Takes::Integer,
        "boolean" => Takes::Bool,
        "array" => {
            let items = property.get("items")?;
            Takes::SomeOf([texts(items.get("enum")), titled(items.get("anyOf"))].concat())
        }
        _ => return None,
    })
}

fn texts(list: Option<&Json>) -> Vec<String> {
    let Some(Json::List(values)) = list else { return Vec::new() };
    values.iter().filter_map(|value| value.as_text().map(str::to_owned)).collect()
}

fn titled(list: Option<&Json>) -> Vec<String> {
    let Some(Json::List(values)) = list else { return Vec::new() };
    values.iter().filter_map(|value| text_of(value, "const")).collect()
}

fn fits(entries: &[Entry], content: &[(String, Json)]) -> Result<(), Reason> {
    for (name, value) in content {
        let entry = entries.iter().find(|entry| entry.name == *name).ok_or(Reason::Parameters)?;
        let chosen = |choices: &[String], value: &Json| {
            value.as_text().is_some_and(|text| choices.iter().any(|choice| choice == text))
        };
        let (fits, otherwise) = match (&entry.takes, value) {
            (Takes::Text, Json::Text(_))
            | (Takes::Number, Json::Number(_))
            | (Takes::Bool, Json::Bool(_)) => (true, Reason::Parameters),
            (Takes::Integer, Json::Number(Number::Integer(_) | Number::Large(_))) => {
                (true, Reason::Parameters)
            }
            (Takes::OneOf(choices), value @ Json::Text(_)) => (chosen(choices, value), Reason::NotOffered),
            (Takes::SomeOf(choices), Json::List(values)) => {
                (values.iter().all(|value| chosen(choices, value)), Reason::NotOffered)
            }
            _ => (false, Reason::Parameters),
        };
        if !fits {
            return Err(otherwise);
        }
    }
    let given = |entry: &Entry| content.iter().any(|(name, _)| *name == entry.name);
    if entries.iter().all(|entry| !entry.required || given(entry)) { Ok(()) } else { Err(Reason::Parameters) }
}
