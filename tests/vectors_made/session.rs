//! Vectors of the session profile and of messages in parts, written by hand from sections 6.5 and 16.

use serde_json::{Value, json};
use sessioncap::session::{Event, Following, FromAgent, FromPhone, ResumePoint};
use sessioncap::{Assembler, Error, Frame};

use super::{hex, invalid, valid};
use crate::{Files, unhex};

/// What a message of a phone says.
pub fn phone_says(message: &FromPhone<'_>) -> Value {
    match message {
        FromPhone::Input(bytes) => json!({ "type": "input", "bytes": hex(bytes) }),
        FromPhone::Request(json) => json!({ "type": "request", "json": json }),
        FromPhone::Follow(None) => json!({ "type": "follow" }),
        FromPhone::Follow(Some(ResumePoint { incarnation, position })) => {
            json!({ "type": "follow", "incarnation": hex(incarnation.as_bytes()), "position": position })
        }
        FromPhone::Resize { columns, rows } => json!({ "type": "resize", "columns": columns, "rows": rows }),
        FromPhone::Interrupt => json!({ "type": "interrupt" }),
        FromPhone::Own { kind, content } => json!({ "type": kind, "content": hex(content) }),
        other => panic!("{other:?}"),
    }
}

/// What a message of an agent says.
pub fn agent_says(message: &FromAgent<'_>) -> Value {
    match message {
        FromAgent::Output { position, bytes } => {
            json!({ "type": "output", "position": position, "bytes": hex(bytes) })
        }
        FromAgent::Answer { number, json } => json!({ "type": "answer", "number": number, "json": json }),
        FromAgent::Following(Following { from, missed, screen }) => json!({
            "type": "following", "incarnation": hex(from.incarnation.as_bytes()), "position": from.position,
            "missed": missed, "screen": screen,
        }),
        FromAgent::Screen { position, columns, rows, bytes } => json!({
            "type": "screen", "position": position, "columns": columns, "rows": rows, "bytes": hex(bytes),
        }),
        FromAgent::Event(Event { kind, position, value, text }) => json!({
            "type": "event", "event": format!("{kind:?}"), "position": position, "value": value, "text": text,
        }),
        FromAgent::Own { kind, content } => json!({ "type": kind, "content": hex(content) }),
        other => panic!("{other:?}"),
    }
}

/// What comes out of frames that are given by their plaintexts, or by the length of a run of one byte.
pub fn assembled(frames: &Value) -> Result<Vec<Vec<u8>>, Error> {
    let mut assembler = Assembler::new();
    let mut messages = Vec::new();
    for frame in frames.as_array().unwrap() {
        let (plaintext, times) = match frame.as_str() {
            Some(plaintext) => (unhex(plaintext), 1),
            None => {
                let length = usize::try_from(frame["length"].as_u64().unwrap()).unwrap();
                let mut plaintext = unhex(frame["head"].as_str().unwrap());
                plaintext.resize(1 + length, 0);
                (plaintext, frame["times"].as_u64().unwrap())
            }
        };
        for _ in 0..times {
            if let Some(Frame::Data(message)) = assembler.take(Frame::from_bytes(&plaintext).unwrap())? {
                messages.push(message);
            }
        }
    }
    Ok(messages)
}

fn fields(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

pub fn session(files: &mut Files) {
    messages(files);
    refused(files);
    parts(files);
}

fn messages(files: &mut Files) {
    let run = [0xa1; 16];
    let (at_7, at_300) = (7_u64.to_be_bytes(), 300_u64.to_be_bytes());
    let run_text = hex(&run);
    let mut phone = |name: &str, says: Value, message: Vec<u8>| {
        let value = json!({ "kind": "from_phone", "says": says, "message": hex(&message) });
        valid(files, &format!("session-phone-{name}"), value);
    };
    phone("input", json!({ "type": "input", "bytes": hex(b"ls -l\r") }), fields(&[&[0], b"ls -l\r"]));
    let request = r#"{"method":"shell.list_sessions","id":1}"#;
    phone("request", json!({ "type": "request", "json": request }), fields(&[&[1], request.as_bytes()]));
    phone("follow-from-now", json!({ "type": "follow" }), fields(&[&[2], &[0; 24]]));
    phone(
        "follow-from-a-point",
        json!({ "type": "follow", "incarnation": run_text, "position": 300 }),
        fields(&[&[2], &run, &at_300]),
    );
    phone("resize", json!({ "type": "resize", "columns": 80, "rows": 24 }), vec![3, 0, 80, 0, 24]);
    phone(
        "resize-largest",
        json!({ "type": "resize", "columns": 1000, "rows": 1000 }),
        vec![3, 3, 0xe8, 3, 0xe8],
    );
    phone("interrupt", json!({ "type": "interrupt" }), vec![4]);
    phone("of-the-agents-own", json!({ "type": 200, "content": "01" }), vec![200, 1]);

    let mut agent = |name: &str, says: Value, message: Vec<u8>| {
        let value = json!({ "kind": "from_agent", "says": says, "message": hex(&message) });
        valid(files, &format!("session-agent-{name}"), value);
    };
    agent(
        "output",
        json!({ "type": "output", "position": 300, "bytes": hex(b"total 0\r\n") }),
        fields(&[&[16], &at_300, b"total 0\r\n"]),
    );
    let answer = r#"{"ok":true}"#;
    agent(
        "answer",
        json!({ "type": "answer", "number": 7, "json": answer }),
        fields(&[&[17], &at_7, answer.as_bytes()]),
    );
    for (name, missed, bytes) in [("a-screen", Some(12_u64), 12_u64), ("another-incarnation", None, u64::MAX)]
    {
        agent(
            &format!("following-with-{name}"),
            json!({
                "type": "following", "incarnation": run_text, "position": 300, "missed": missed, "screen": true,
            }),
            fields(&[&[18], &run, &at_300, &bytes.to_be_bytes(), &[1]]),
        );
    }
    agent(
        "following-without-a-gap",
        json!({ "type": "following", "incarnation": run_text, "position": 7, "missed": 0, "screen": false }),
        fields(&[&[18], &run, &at_7, &[0; 8], &[0]]),
    );
    agent(
        "screen",
        json!({
            "type": "screen", "position": 300, "columns": 80, "rows": 24, "bytes": hex(b"\x1b[H\x1b[2J$ "),
        }),
        fields(&[&[19], &at_300, &[0, 80, 0, 24], b"\x1b[H\x1b[2J$ "]),
    );
    for (name, number, kind, value, text) in [
        ("bell", 1, "Bell", 0, ""),
        ("notification", 2, "Notification", 0, "tests passed ✓"),
        ("prompt", 3, "Prompt", 0, ""),
        ("command-ended", 4, "CommandEnded", 101, ""),
        ("command-ended-without-status", 4, "CommandEnded", -1, ""),
        ("session-ended", 5, "SessionEnded", 0, ""),
        ("session-ended-by-a-signal", 5, "SessionEnded", -9_i32, ""),
    ] {
        agent(
            &format!("event-{name}"),
            json!({ "type": "event", "event": kind, "position": 300, "value": value, "text": text }),
            fields(&[&[20, number], &at_300, &value.to_be_bytes(), text.as_bytes()]),
        );
    }
    agent("of-the-agents-own", json!({ "type": 128, "content": "" }), vec![128]);
}

fn refused(files: &mut Files) {
    let run = [0xa1; 16];
    let mut bad = |from: &str, name: &str, message: Vec<u8>| {
        let kind = format!("from_{from}");
        let value = json!({ "kind": kind, "input": hex(&message), "error": "MessageMalformed" });
        invalid(files, &format!("session-{from}-{name}"), value);
    };
    bad("phone", "empty", vec![]);
    bad("phone", "unknown-type", vec![5]);
    bad("phone", "input-without-a-byte", vec![0]);
    bad("phone", "request-array", fields(&[&[1], b"[]"]));
    bad("phone", "request-with-a-newline-after-it", fields(&[&[1], b"{}\n"]));
    bad("phone", "request-not-utf-8", fields(&[&[1], b"{\"\xff\"}"]));
    bad("phone", "follow-short", fields(&[&[2], &run, &[0; 7]]));
    bad("phone", "follow-long", fields(&[&[2], &run, &[0; 9]]));
    bad("phone", "follow-without-incarnation-from-a-position", fields(&[&[2], &[0; 23], &[1]]));
    bad("phone", "resize-without-columns", vec![3, 0, 0, 0, 24]);
    bad("phone", "resize-too-many-rows", vec![3, 0, 80, 3, 0xe9]);
    bad("phone", "resize-short", vec![3, 0, 80, 0]);
    bad("phone", "interrupt-long", vec![4, 0]);
    bad("phone", "output-of-an-agent", fields(&[&[16], &[0; 8], b"x"]));
    bad("agent", "empty", vec![]);
    bad("agent", "unknown-type", vec![21, 0]);
    bad("agent", "input-of-a-phone", fields(&[&[0], b"ls\r"]));
    bad("agent", "output-without-a-byte", fields(&[&[16], &[0; 8]]));
    bad("agent", "output-beyond-the-last-position", fields(&[&[16], &[0xff; 8], b"x"]));
    bad("agent", "answer-no-object", fields(&[&[17], &[0; 8], b"true"]));
    bad("agent", "following-no-incarnation", fields(&[&[18], &[0; 16], &[0; 16], &[1]]));
    bad("agent", "following-gap-without-a-screen", fields(&[&[18], &run, &[0; 15], &[9], &[0]]));
    bad("agent", "following-unknown-flag", fields(&[&[18], &run, &[0; 16], &[2]]));
    bad("agent", "following-long", fields(&[&[18], &run, &[0; 16], &[1, 0]]));
    bad("agent", "screen-without-a-byte", fields(&[&[19], &[0; 8], &[0, 80, 0, 24]]));
    bad("agent", "screen-without-rows", fields(&[&[19], &[0; 8], &[0, 80, 0, 0], b"x"]));
    bad("agent", "event-unknown", fields(&[&[20, 6], &[0; 12]]));
    bad("agent", "event-bell-with-text", fields(&[&[20, 1], &[0; 12], b"x"]));
    bad("agent", "event-bell-with-value", fields(&[&[20, 1], &[0; 11], &[1]]));
    bad("agent", "event-text-with-a-control", fields(&[&[20, 2], &[0; 12], b"a\x1b"]));
    bad("agent", "event-text-too-long", fields(&[&[20, 2], &[0; 12], &[b'x'; 257]]));
    bad("agent", "event-text-not-utf-8", fields(&[&[20, 2], &[0; 12], b"\xc3"]));
}

/// Plaintexts of frames, and the messages that they are.
fn parts(files: &mut Files) {
    let plaintext = |head: u8, bytes: &[u8]| hex(&fields(&[&[head], bytes]));
    let ping = hex(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    for (name, frames, messages) in [
        ("one-part", vec![plaintext(4, b"good "), plaintext(0, b"day")], vec!["good day"]),
        (
            "parts-with-a-ping-between",
            vec![plaintext(4, b"a"), ping, plaintext(4, b"b"), plaintext(0, b""), plaintext(0, b"c")],
            vec!["ab", "c"],
        ),
        ("discarded", vec![plaintext(4, b"no"), plaintext(4, b""), plaintext(0, b"yes")], vec!["yes"]),
        ("discard-of-nothing", vec![plaintext(4, b""), plaintext(0, b"x")], vec!["x"]),
    ] {
        let messages: Vec<String> = messages.iter().map(|message| hex(message.as_bytes())).collect();
        let value = json!({ "kind": "frames", "frames": frames, "messages": messages });
        valid(files, &format!("frames-{name}"), value);
    }
    let run =
        |head: &str, length: usize, times: u64| json!({ "head": head, "length": length, "times": times });
    let rest = 1_048_576 - 16 * 65_518;
    for (name, frames) in [
        ("one-byte-too-long", json!([run("04", 65_518, 16), run("00", rest + 1, 1)])),
        ("far-too-long", json!([run("04", 65_518, 40), run("00", 0, 1)])),
    ] {
        let value = json!({
            "kind": "frames", "input": frames, "error": "MessageTooLong { max: 1048576 }",
        });
        invalid(files, &format!("frames-{name}"), value);
    }
}
