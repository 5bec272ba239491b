//! The updates of a session, as a phone gets them.

use crate::acp::message::Message;
use crate::acp::shape::{Field, Misfit, Rebuild, Shape, may, need};
use crate::json::Json;
use crate::op::Op;

const ANNOTATIONS: Shape = Shape::Object(&[
    may("audience", Shape::List(&Shape::Choice(&["assistant", "user"]))),
    may("lastModified", Shape::Text),
    may("priority", Shape::Number),
]);

/// The content blocks that a phone may put into a prompt. A link is not among them: the agent's program would read a
/// file or an address of the phone's choosing. An image's address is not taken for the same reason.
pub(super) const INPUT_BLOCK: Shape = Shape::Tagged(
    "type",
    &[
        ("text", &[need("text", Shape::Text), may("annotations", ANNOTATIONS)]),
        ("image", INPUT_MEDIA),
        ("audio", INPUT_MEDIA),
        ("resource", &[need("resource", Shape::Object(TEXT_RESOURCE)), may("annotations", ANNOTATIONS)]),
    ],
);

const INPUT_MEDIA: &[Field] = &[
    need("data", Shape::Text),
    need("mimeType", Shape::Text),
    may("uri", Shape::Null),
    may("annotations", ANNOTATIONS),
];

const TEXT_RESOURCE: &[Field] =
    &[need("text", Shape::Text), need("uri", Shape::Text), may("mimeType", Shape::Text)];
const BLOB_RESOURCE: &[Field] =
    &[need("blob", Shape::Text), need("uri", Shape::Text), may("mimeType", Shape::Text)];

const BLOCK: Shape = Shape::Tagged(
    "type",
    &[
        ("text", &[need("text", Shape::Text), may("annotations", ANNOTATIONS)]),
        (
            "image",
            &[
                need("data", Shape::Text),
                need("mimeType", Shape::Text),
                may("uri", Shape::Text),
                may("annotations", ANNOTATIONS),
            ],
        ),
        (
            "audio",
            &[need("data", Shape::Text), need("mimeType", Shape::Text), may("annotations", ANNOTATIONS)],
        ),
        (
            "resource_link",
            &[
                need("name", Shape::Text),
                need("uri", Shape::Text),
                may("title", Shape::Text),
                may("description", Shape::Text),
                may("mimeType", Shape::Text),
                may("size", Shape::Count),
                may("annotations", ANNOTATIONS),
            ],
        ),
        (
            "resource",
            &[
                need(
                    "resource",
                    Shape::Either(&[Shape::Object(TEXT_RESOURCE), Shape::Object(BLOB_RESOURCE)]),
                ),
                may("annotations", ANNOTATIONS),
            ],
        ),
    ],
);
const BLOCKS: Shape = Shape::List(&BLOCK);

const TOOL_KIND: Shape = Shape::Choice(&[
    "read",
    "edit",
    "delete",
    "move",
    "search",
    "execute",
    "think",
    "fetch",
    "switch_mode",
    "other",
]);
const TOOL_STATUS: Shape =
    Shape::Choice(&["pending", "in_progress", "paused", "completed", "failed", "cancelled"]);
/// Of `tool_call`, which version 1 alone has.
const TOOL_STATUS_1: Shape = Shape::Choice(&["pending", "in_progress", "completed", "failed"]);
const PATHS: &[(&str, &[Field])] = &[
    ("add", &[need("path", Shape::Text), may("fileType", Shape::Text), may("mimeType", Shape::Text)]),
    ("delete", &[need("path", Shape::Text), may("fileType", Shape::Text), may("mimeType", Shape::Text)]),
    ("modify", &[need("path", Shape::Text), may("fileType", Shape::Text), may("mimeType", Shape::Text)]),
    ("move", TWO_PATHS),
    ("copy", TWO_PATHS),
];
const TWO_PATHS: &[Field] = &[
    need("oldPath", Shape::Text),
    need("path", Shape::Text),
    may("fileType", Shape::Text),
    may("mimeType", Shape::Text),
];
const TOOL_CONTENT_1: Shape = Shape::Tagged(
    "type",
    &[
        ("content", &[need("content", BLOCK)]),
        ("diff", &[need("path", Shape::Text), may("oldText", Shape::Text), need("newText", Shape::Text)]),
        ("terminal", &[need("terminalId", Shape::Text)]),
        ("session", &[need("sessionId", Shape::OwnSession)]),
    ],
);
const TOOL_CONTENT: Shape = Shape::Either(&[
    TOOL_CONTENT_1,
    // Of version 2.
    Shape::Tagged(
        "type",
        &[(
            "diff",
            &[
                need("changes", Shape::List(&Shape::Tagged("operation", PATHS))),
                may("patch", Shape::Object(&[need("format", Shape::Text), need("text", Shape::Text)])),
            ],
        )],
    ),
]);
const LOCATIONS: Shape = Shape::List(&Shape::Object(&[need("path", Shape::Text), may("line", Shape::Count)]));

/// A tool call. Its input and output are data of the session, whatever is in them.
const TOOL_CALL: &[Field] = &[
    need("toolCallId", Shape::Text),
    need("title", Shape::Text),
    may("name", Shape::Text),
    may("kind", TOOL_KIND),
    may("status", TOOL_STATUS_1),
    may("content", Shape::List(&TOOL_CONTENT_1)),
    may("locations", LOCATIONS),
    may("rawInput", Shape::Any),
    may("rawOutput", Shape::Any),
];
/// A change of a tool call, and the one that a permission is asked for.
pub(super) const TOOL_CALL_UPDATE: &[Field] = &[
    need("toolCallId", Shape::Text),
    may("title", Shape::Text),
    may("name", Shape::Text),
    may("kind", TOOL_KIND),
    may("status", TOOL_STATUS),
    may("content", Shape::List(&TOOL_CONTENT)),
    may("locations", LOCATIONS),
    may("rawInput", Shape::Any),
    may("rawOutput", Shape::Any),
];

const PLAN_ENTRIES: Shape = Shape::List(&Shape::Object(&[
    need("content", Shape::Text),
    need("priority", Shape::Choice(&["high", "medium", "low"])),
    need("status", Shape::Choice(&["pending", "in_progress", "completed", "cancelled"])),
]));
/// Of `plan`, which version 1 alone has.
const PLAN_ENTRIES_1: Shape = Shape::List(&Shape::Object(&[
    need("content", Shape::Text),
    need("priority", Shape::Choice(&["high", "medium", "low"])),
    need("status", Shape::Choice(&["pending", "in_progress", "completed"])),
]));
const PLANS: Shape = Shape::Tagged(
    "type",
    &[
        ("items", &[need("planId", Shape::Text), need("entries", PLAN_ENTRIES)]),
        ("file", &[need("planId", Shape::Text), need("uri", Shape::Text)]),
        ("markdown", &[need("planId", Shape::Text), need("content", Shape::Text)]),
    ],
);

const CHUNK: &[Field] = &[need("content", BLOCK), may("messageId", Shape::Text)];
const WHOLE: &[Field] = &[need("messageId", Shape::Text), may("content", BLOCKS)];

const COMMANDS: Shape = Shape::List(&Shape::Object(&[
    may("type", Shape::Choice(&["command"])),
    need("name", Shape::Text),
    need("description", Shape::Text),
    may("input", Shape::Object(&[may("type", Shape::Choice(&["text"])), need("hint", Shape::Text)])),
]));

const SELECTABLE: &[Field] =
    &[need("value", Shape::Text), need("name", Shape::Text), may("description", Shape::Text)];
/// The settings of a session. A phone sees them and cannot change them.
pub(super) const CONFIG_OPTIONS: Shape = Shape::List(&Shape::Tagged(
    "type",
    &[
        (
            "select",
            &[
                need("id", Shape::Text),
                need("name", Shape::Text),
                may("description", Shape::Text),
                may("category", Shape::Text),
                need("currentValue", Shape::Text),
                need(
                    "options",
                    Shape::List(&Shape::Either(&[
                        Shape::Object(SELECTABLE),
                        Shape::Object(&[
                            need("group", Shape::Text),
                            need("name", Shape::Text),
                            need("options", Shape::List(&Shape::Object(SELECTABLE))),
                        ]),
                    ])),
                ),
            ],
        ),
        (
            "boolean",
            &[
                need("id", Shape::Text),
                need("name", Shape::Text),
                may("description", Shape::Text),
                may("category", Shape::Text),
                need("currentValue", Shape::Bool),
            ],
        ),
    ],
));
/// The modes of a session.
pub(super) const MODES: Shape = Shape::Object(&[
    need("currentModeId", Shape::Text),
    need(
        "availableModes",
        Shape::List(&Shape::Object(&[
            need("id", Shape::Text),
            need("name", Shape::Text),
            may("description", Shape::Text),
        ])),
    ),
]);

/// What a turn used.
pub(super) const USAGE: Shape = Shape::Object(&[
    need("totalTokens", Shape::Count),
    need("inputTokens", Shape::Count),
    need("outputTokens", Shape::Count),
    may("thoughtTokens", Shape::Count),
    may("cachedReadTokens", Shape::Count),
    may("cachedWriteTokens", Shape::Count),
]);

/// The kinds of update that phones get. `session_message_chunk` is not among them: it does not say between which
/// sessions the message goes.
const UPDATE: Shape = Shape::Tagged(
    "sessionUpdate",
    &[
        ("user_message_chunk", CHUNK),
        ("agent_message_chunk", CHUNK),
        ("agent_thought_chunk", CHUNK),
        ("tool_call", TOOL_CALL),
        ("tool_call_update", TOOL_CALL_UPDATE),
        ("plan", &[need("entries", PLAN_ENTRIES_1)]),
        ("plan_update", &[need("plan", PLANS)]),
        ("plan_removed", &[need("planId", Shape::Text)]),
        ("available_commands_update", &[need("availableCommands", COMMANDS)]),
        ("current_mode_update", &[need("currentModeId", Shape::Text)]),
        ("config_option_update", &[need("configOptions", CONFIG_OPTIONS)]),
        ("session_info_update", &[may("title", Shape::Text), may("updatedAt", Shape::Text)]),
        (
            "usage_update",
            &[
                need("used", Shape::Count),
                need("size", Shape::Count),
                may("cost", Shape::Object(&[need("amount", Shape::Number), need("currency", Shape::Text)])),
            ],
        ),
        (
            "notice",
            &[
                need("severity", Shape::Choice(&["info", "warning", "error"])),
                need("title", Shape::Text),
                may("description", Shape::Text),
            ],
        ),
        (
            "compaction_update",
            &[
                need("compactionId", Shape::Text),
                need("status", Shape::Choice(&["in_progress", "completed", "failed", "cancelled"])),
                may("summary", BLOCKS),
                may("error", Shape::Text),
            ],
        ),
        ("compaction_summary_chunk", &[need("compactionId", Shape::Text), need("content", BLOCK)]),
        // Of subagents, which are sessions of their own: only what names no other session.
        (
            "subagent_update",
            &[
                need("sessionId", Shape::OwnSession),
                may("title", Shape::Text),
                may("description", Shape::Text),
            ],
        ),
        (
            "session_message",
            &[
                need("messageId", Shape::Text),
                may("senderSessionId", Shape::OwnSession),
                may("recipientSessionId", Shape::OwnSession),
                may("senderMessageId", Shape::Text),
                may("recipientMessageId", Shape::Text),
                may("content", BLOCKS),
            ],
        ),
        // Of version 2.
        ("user_message", WHOLE),
        ("agent_message", WHOLE),
        ("agent_thought", WHOLE),
        (
            "state_update",
            &[
                need("state", Shape::Choice(&["running", "idle", "requires_action"])),
                may(
                    "stopReason",
                    Shape::Choice(&["end_turn", "max_tokens", "max_turn_requests", "refusal", "cancelled"]),
                ),
            ],
        ),
        ("tool_call_content_chunk", &[need("toolCallId", Shape::Text), need("content", TOOL_CONTENT)]),
        (
            "terminal_update",
            &[
                need("terminalId", Shape::Text),
                may("command", Shape::Text),
                may("output", Shape::Object(&[need("data", Shape::Text)])),
                may(
                    "exitStatus",
                    Shape::Object(&[may("exitCode", Shape::Integer), may("signal", Shape::Text)]),
                ),
            ],
        ),
        ("terminal_output_chunk", &[need("terminalId", Shape::Text), need("data", Shape::Text)]),
    ],
);

/// The parameters of `session/update`.
const PARAMS: Shape = Shape::Object(&[need("sessionId", Shape::OwnSession), need("update", UPDATE)]);

/// Makes an update anew, and says under which operation it goes.
pub(super) fn rebuild(rebuild: Rebuild<'_>, params: &Json) -> Result<(Op, String), Misfit> {
    let params = rebuild.value(&PARAMS, params)?;
    let kind = params.get("update").and_then(|update| update.get("sessionUpdate")).and_then(Json::as_text);
    let op = match kind {
        Some("session_info_update" | "usage_update" | "current_mode_update" | "config_option_update") => {
            Op::ReadMetadata
        }
        _ => Op::StreamOutput,
    };
    let text = notification(params.clone());
    if text.len() <= Message::MAX_LEN {
        return Ok((op, text));
    }
    let shortened = notification(without_bulk(params, text.len()));
    if shortened.len() <= Message::MAX_LEN { Ok((op, shortened)) } else { Err(Misfit::Shape) }
}

fn notification(params: Json) -> String {
    Message::Notification { method: "session/update".to_owned(), params: Some(params) }.to_text()
}

/// An update that is too long for a phone, with a sentence in the place of what makes it long.
fn without_bulk(params: Json, length: usize) -> Json {
    let sentence = Json::object([
        ("type", Json::text("text")),
        ("text", Json::text(format!("[too long for a phone, {length} bytes: read it at the desktop]"))),
    ]);
    let Json::Object(mut params) = params else { return params };
    for (key, update) in &mut params {
        let (true, Json::Object(entries)) = (key == "update", update) else { continue };
        let of_tool = entries.iter().any(|(key, _)| key == "toolCallId");
        entries.retain(|(key, _)| key != "rawInput" && key != "rawOutput");
        for (key, value) in entries {
            if key != "content" {
                continue;
            }
            let shown = if of_tool {
                Json::object([("type", Json::text("content")), ("content", sentence.clone())])
            } else {
                sentence.clone()
            };
            *value = if matches!(value, Json::List(_)) { Json::List(vec![shown]) } else { shown };
        }
    }
    Json::Object(params)
}
