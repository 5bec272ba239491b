//! The messages between the server of the sessions and agents: vectors, valid and refused, the corpus of their fuzz target,
//! and any message.
//!
//! `examples/fuzz/vectors/sessions` and the corpus are written by
//! `cargo test -p sessioncap-programs-tests --test programs -- --ignored messages::write_the_files`.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use serde_json::{Value, json};
use sessioncap_programs::pty::{SessionInfo, SessionSpec};
use sessioncap_programs::sessions::limits::{LONGEST_ASK, LONGEST_OUTPUT, LONGEST_TELL, MOST_LISTED};
use sessioncap_programs::sessions::message::{
    self, Ask, Failure, Floor, Message, MessageError, Process, Side, Tell,
};

#[path = "../../fuzz/sessions.rs"]
mod target;
use target::{FOLLOWED, follow, messages};
#[path = "../../../tests/common/vector_files.rs"]
mod vector_files;
use vector_files::Files;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(path)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

// --- what the files contain ---

const CREDENTIAL: &str = "07070707070707070707070707070707";

fn info() -> SessionInfo {
    SessionInfo {
        id: FOLLOWED.to_owned(),
        name: Some("build".to_owned()),
        command: "/bin/sh -c make".to_owned(),
        cwd: "/home/me".to_owned(),
        cols: 80,
        rows: 24,
        created_at: UNIX_EPOCH + Duration::new(1_780_000_000, 5),
        pid: 4242,
    }
}

fn spec() -> SessionSpec {
    SessionSpec {
        name: Some("Büro \"1\"\n".to_owned()),
        cwd: Some("/tmp".into()),
        ..SessionSpec::command("make")
    }
}

fn session() -> Tell {
    Tell::Session { info: info(), incarnation: [7; 16], position: 6 }
}

fn floor(position: Option<u64>) -> Floor {
    Floor { credential: CREDENTIAL.to_owned(), session: FOLLOWED.to_owned(), position }
}

fn asks() -> Vec<(&'static str, Ask)> {
    let id = || FOLLOWED.to_owned();
    let process = Process { node: 1, number: u64::MAX };
    vec![
        ("join", Ask::Join(process)),
        ("known", Ask::Known),
        ("floor", Ask::Floor(floor(Some(9)))),
        ("floor-not-known", Ask::Floor(floor(None))),
        ("create", Ask::Create { process, spec: spec(), stays: true }),
        (
            "create-shell",
            Ask::Create {
                process,
                spec: SessionSpec { name: None, argv: Vec::new(), cwd: None, cols: 0, rows: 1 },
                stays: false,
            },
        ),
        ("follow", Ask::Follow { id: id() }),
        ("lead", Ask::Lead(true)),
        ("resize", Ask::Resize { id: id(), columns: 99, rows: 0 }),
        ("close", Ask::Close { id: id() }),
        ("list", Ask::List),
    ]
}

fn tells() -> Vec<(&'static str, Tell)> {
    vec![
        ("sessions", Tell::Sessions(vec!["1.a".to_owned(), "2.b".to_owned()])),
        ("sessions-none", Tell::Sessions(Vec::new())),
        ("begun", Tell::Begun(FOLLOWED.to_owned())),
        ("floor", Tell::Floor(floor(Some(0)))),
        ("made", Tell::Made(info())),
        ("session", session()),
        ("resized", Tell::Resized { columns: 1, rows: 1000 }),
        ("ended", Tell::Ended(-9)),
        ("done", Tell::Done),
        ("failed-no-such-session", Tell::Failed(Failure::NoSuchSession)),
        ("failed-too-many-sessions", Tell::Failed(Failure::TooManySessions)),
        ("failed-bad-size", Tell::Failed(Failure::BadSize)),
        ("failed-other", Tell::Failed(Failure::Other("the terminal is gone".to_owned()))),
    ]
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], u32::try_from(body.len()).unwrap().to_be_bytes().as_slice(), body].concat()
}

/// JSON of a message with something changed.
fn changed<T: Side>(message: &T, from: &str, to: &str) -> Vec<u8> {
    let text = serde_json::to_string(message).unwrap();
    assert!(text.contains(from), "{text}");
    framed(0, text.replacen(from, to, 1).as_bytes())
}

/// Name, who sent it, what is wrong with it, and the bytes.
fn refused() -> Vec<(&'static str, &'static str, &'static str, Vec<u8>)> {
    let resize = Ask::Resize { id: FOLLOWED.to_owned(), columns: 80, rows: 24 };
    let follow = Ask::Follow { id: FOLLOWED.to_owned() };
    let resized = Tell::Resized { columns: 80, rows: 24 };
    let many = vec![FOLLOWED.to_owned(); MOST_LISTED + 1];
    let long =
        |kind, length: usize| [&[kind], u32::try_from(length).unwrap().to_be_bytes().as_slice()].concat();
    let whole = message::encode(&follow).unwrap();
    vec![
        ("nothing", "agent", "there is no message", Vec::new()),
        ("head-cut-short", "agent", "a length has four bytes", vec![0, 0, 0]),
        ("body-cut-short", "agent", "the message ends too early", whole[..whole.len() - 1].to_vec()),
        ("kind-2", "agent", "there are two kinds", framed(2, b"\"known\"")),
        ("kind-2", "server", "there are two kinds", framed(2, b"\"done\"")),
        ("plain-bytes", "agent", "an agent sends none", framed(1, b"output")),
        ("json-too-long", "agent", "longer than is allowed", long(0, LONGEST_ASK + 1)),
        ("json-too-long", "server", "longer than is allowed", long(0, LONGEST_TELL + 1)),
        ("bytes-too-long", "server", "longer than is allowed", long(1, LONGEST_OUTPUT + 1)),
        ("four-gigabytes", "server", "longer than is allowed", vec![1, 255, 255, 255, 255]),
        ("empty", "agent", "it is no JSON", framed(0, b"")),
        ("not-utf-8", "agent", "it is no JSON", framed(0, b"\"kn\xff\"")),
        ("number", "agent", "it is no message", framed(0, b"7")),
        ("of-the-server", "agent", "only the server sends it", message::encode(&Tell::Done).unwrap()),
        ("of-an-agent", "server", "only an agent sends it", message::encode(&Ask::List).unwrap()),
        ("unknown", "agent", "there is no such message", framed(0, b"\"leave\"")),
        ("two-messages", "agent", "one at a time", framed(0, br#"{"lead":true,"follow":{"id":"1.a"}}"#)),
        ("field-missing", "agent", "a resize has rows", changed(&resize, ",\"rows\":24", "")),
        ("field-more", "agent", "a follow has no rows", changed(&follow, "}}", ",\"rows\":1}}")),
        (
            "field-twice",
            "agent",
            "each field comes once",
            changed(&resize, ",\"rows", ",\"columns\":80,\"rows"),
        ),
        (
            "fields-in-another-order",
            "agent",
            "one spelling",
            framed(0, br#"{"resize":{"columns":80,"id":"1.a","rows":24}}"#),
        ),
        ("space", "agent", "one spelling", changed(&follow, ":{", ": {")),
        ("escape", "agent", "one spelling", changed(&follow, "1.a", "1.\\u0061")),
        ("known-as-an-object", "agent", "one spelling", framed(0, br#"{"known":null}"#)),
        (
            "optional-field-missing",
            "agent",
            "one spelling",
            changed(&asks()[4].1, "\"name\":\"Büro \\\"1\\\"\\n\",", ""),
        ),
        ("side-negative", "agent", "a side is no negative number", changed(&resize, "80", "-1")),
        ("side-too-large", "agent", "a side has two bytes", changed(&resize, "80", "65536")),
        (
            "number-of-a-process-too-large",
            "agent",
            "it has eight bytes",
            framed(0, br#"{"join":{"node":1,"number":18446744073709551616}}"#),
        ),
        ("id-empty", "agent", "an id has a character", changed(&follow, "1.a", "")),
        ("id-with-a-slash", "agent", "an id is no path", changed(&follow, "1.a", "../a")),
        ("id-of-129-characters", "agent", "an id is no longer", changed(&follow, "1.a", &"a".repeat(129))),
        (
            "credential-not-an-id",
            "agent",
            "a credential's id has 16 bytes",
            changed(&asks()[2].1, CREDENTIAL, "7"),
        ),
        (
            "credential-not-an-id",
            "server",
            "a credential's id has 16 bytes",
            changed(&tells()[3].1, CREDENTIAL, "7"),
        ),
        (
            "65-sessions",
            "server",
            "there are 64 at most",
            framed(0, &serde_json::to_vec(&Tell::Sessions(many)).unwrap()),
        ),
        ("id-in-a-list", "server", "each is an id", changed(&tells()[0].1, "2.b", "2/b")),
        ("resized-to-0", "server", "a terminal has 1 to 1000 columns", changed(&resized, "80", "0")),
        ("resized-to-1001", "server", "a terminal has 1 to 1000 columns", changed(&resized, "24", "1001")),
        (
            "session-of-no-size",
            "server",
            "a terminal has 1 to 1000 columns",
            changed(&session(), "\"cols\":80", "\"cols\":0"),
        ),
        (
            "session-without-an-incarnation",
            "server",
            "an incarnation is not 0",
            changed(
                &session(),
                &serde_json::to_string(&[7; 16]).unwrap(),
                &serde_json::to_string(&[0; 16]).unwrap(),
            ),
        ),
        ("session-of-15-bytes", "server", "an incarnation has 16 bytes", changed(&session(), "[7,", "[")),
        (
            "session-made-before-1970",
            "server",
            "a time is no negative number",
            changed(&session(), "1780000000", "-1"),
        ),
        (
            "session-made-in-no-year",
            "server",
            "such a time does not exist",
            changed(&session(), "1780000000", "18446744073709551615"),
        ),
        (
            "session-nanoseconds",
            "server",
            "one spelling",
            changed(&session(), "\"nanos_since_epoch\":5", "\"nanos_since_epoch\":1000000000"),
        ),
        ("exit-status-too-large", "server", "it has four bytes", changed(&tells()[7].1, "-9", "2147483648")),
    ]
}

/// All that a server sends of one session.
fn story(info: &Tell, history: &[u8], screen: &[u8], then: &[Message<Tell>]) -> Vec<u8> {
    let mut bytes = message::encode(info).unwrap();
    for part in [history, screen] {
        bytes.extend(message::encode_bytes(part).unwrap());
    }
    for message in then {
        bytes.extend(match message {
            Message::Json(tell) => message::encode(tell).unwrap(),
            Message::Bytes(output) => message::encode_bytes(output).unwrap(),
        });
    }
    bytes
}

/// Sessions that an agent follows: name, bytes, and whether it is told the end.
fn stories() -> Vec<(&'static str, Vec<u8>, bool)> {
    let output = |text: &[u8]| Message::Bytes(text.to_vec());
    let resized = |columns, rows| Message::Json(Tell::Resized { columns, rows });
    let ended = || Message::Json(Tell::Ended(0));
    let at = |position| Tell::Session { info: info(), incarnation: [7; 16], position };
    let sized = |cols, rows| Tell::Session {
        info: SessionInfo { cols, rows, ..info() },
        incarnation: [7; 16],
        position: 6,
    };
    let other = Tell::Session {
        info: SessionInfo { id: "1.b".to_owned(), ..info() },
        incarnation: [7; 16],
        position: 6,
    };
    let screen = b"\x1b[H\x1b[2J$ make";
    vec![
        (
            "ends",
            story(
                &session(),
                b"$ make",
                screen,
                &[output(b"\r\ndone\r\n"), resized(100, 30), output(b"$ "), ended()],
            ),
            true,
        ),
        ("lost", story(&session(), b"$ make", screen, &[output(b"half of a seq\x1b[3")]), false),
        (
            "clipboard-and-bell",
            story(&session(), b"", b"\x1b]52;c;", &[output(b"AAAA\x07\x07\x1b]133;D;1\x07"), ended()]),
            true,
        ),
        ("last-position", story(&at(u64::MAX), b"$ make", screen, &[output(b"more"), ended()]), true),
        ("history-before-its-beginning", story(&at(0), b"$ make", screen, &[output(b"more"), ended()]), true),
        (
            "largest",
            story(
                &sized(1000, 1000),
                b"",
                screen,
                &[
                    resized(1, 1),
                    output(b"\xf0\x9f\x99\x82wide"),
                    resized(1000, 131),
                    output(b"x"),
                    resized(1000, 132),
                    ended(),
                ],
            ),
            true,
        ),
        (
            "wide-in-one-column",
            story(
                &sized(1, 1),
                b"",
                screen,
                &[output("好\x1b[5;5H好".as_bytes()), resized(2, 1), output("好".as_bytes()), ended()],
            ),
            true,
        ),
        (
            "alternate-screen",
            story(
                &session(),
                b"",
                b"\x1b[?1049h",
                &[
                    output(b"\x1b[2;3r\x1b[?6h\x1b[9;9Hx"),
                    resized(3, 1),
                    output(b"\x1bM\x1bD\x1b[L"),
                    ended(),
                ],
            ),
            true,
        ),
        ("answer-in-between", story(&session(), b"", screen, &[Message::Json(Tell::Done), ended()]), false),
        ("another-session", story(&other, b"", screen, &[ended()]), false),
        ("no-such-session", message::encode(&Tell::Failed(Failure::NoSuchSession)).unwrap(), false),
    ]
}

fn generate() -> Files {
    let mut files = Files::new();
    let mut add = |folder: &str, name: &str, vector: &Value, direction: u8, bytes: &[u8]| {
        files.insert(format!("vectors/sessions/{folder}/{name}.json"), vector_files::spelled(vector));
        files.insert(format!("corpus/sessions/{name}"), [&[direction], bytes].concat());
    };
    let valid =
        |from: &str, bytes: &[u8], json: Value| json!({ "from": from, "message": hex(bytes), "json": json });
    for (name, ask) in asks() {
        let bytes = message::encode(&ask).unwrap();
        add("valid", &format!("agent-{name}"), &valid("agent", &bytes, json!(ask)), 0, &bytes);
    }
    for (name, tell) in tells() {
        let bytes = message::encode(&tell).unwrap();
        add("valid", &format!("server-{name}"), &valid("server", &bytes, json!(tell)), 1, &bytes);
    }
    for (name, plain) in [("bytes", &b"\x1b[1moutput\xff"[..]), ("bytes-none", b"")] {
        let bytes = message::encode_bytes(plain).unwrap();
        let vector = json!({ "from": "server", "message": hex(&bytes), "bytes": hex(plain) });
        add("valid", &format!("server-{name}"), &vector, 1, &bytes);
    }
    for (name, from, why, bytes) in refused() {
        let error = match from {
            "agent" => messages::<Ask>(&bytes).1,
            _ => messages::<Tell>(&bytes).1,
        };
        let vector = json!({ "from": from, "message": hex(&bytes), "why": why, "error": error.to_string() });
        add("invalid", &format!("{from}-{name}"), &vector, u8::from(from != "agent"), &bytes);
    }
    // Short messages of one kind are the same to a fuzzer.
    let kept = |path: &String| {
        !path.starts_with("corpus/") || IN_THE_CORPUS.iter().any(|name| path.ends_with(&format!("/{name}")))
    };
    files.retain(|path, _| kept(path));
    for (name, bytes, _) in stories() {
        files.insert(format!("corpus/sessions/story-{name}"), [&[2], bytes.as_slice()].concat());
    }
    let all = |bytes: Vec<Vec<u8>>| bytes.concat();
    let every_ask = all(asks().iter().map(|(_, ask)| message::encode(ask).unwrap()).collect());
    let every_tell = all(tells().iter().map(|(_, tell)| message::encode(tell).unwrap()).collect());
    files.insert("corpus/sessions/every-ask".to_owned(), [&[0], every_ask.as_slice()].concat());
    files.insert("corpus/sessions/every-tell".to_owned(), [&[1], every_tell.as_slice()].concat());
    files
}

/// Those whose bytes lead somewhere else than those of the others.
const IN_THE_CORPUS: [&str; 12] = [
    "agent-create",
    "agent-floor-not-known",
    "agent-body-cut-short",
    "agent-plain-bytes",
    "agent-json-too-long",
    "agent-escape",
    "agent-field-twice",
    "agent-known-as-an-object",
    "server-bytes",
    "server-65-sessions",
    "server-session-nanoseconds",
    "server-session-made-in-no-year",
];

// --- tests ---

fn vectors(folder: &str) -> Vec<(PathBuf, Value)> {
    vector_files::read_vectors(&here(&format!("vectors/sessions/{folder}")))
}

#[test]
fn valid_vectors_of_the_servers_messages_are_read_as_they_say_and_written_the_same() {
    fn check<T: Side + PartialEq + std::fmt::Debug>(bytes: &[u8], vector: &Value) {
        let (messages, end) = messages::<T>(bytes);
        assert_eq!(end.kind(), std::io::ErrorKind::UnexpectedEof, "{end}");
        match messages.as_slice() {
            [Message::Json(message)] => assert_eq!(json!(message), vector["json"]),
            [Message::Bytes(plain)] => assert_eq!(*plain, unhex(&vector["bytes"])),
            more => panic!("{more:?}"),
        }
    }
    let vectors = vectors("valid");
    assert!(vectors.len() >= 20, "{}", vectors.len());
    for (path, vector) in vectors {
        println!("{}", path.display());
        let bytes = unhex(&vector["message"]);
        match vector["from"].as_str().unwrap() {
            "agent" => check::<Ask>(&bytes, &vector),
            "server" => check::<Tell>(&bytes, &vector),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn refused_vectors_of_the_servers_messages_are_refused_as_they_say() {
    let vectors = vectors("invalid");
    assert!(vectors.len() >= 35, "{}", vectors.len());
    for (path, vector) in vectors {
        let bytes = unhex(&vector["message"]);
        let (read, error) = match vector["from"].as_str().unwrap() {
            "agent" => {
                let (read, error) = messages::<Ask>(&bytes);
                (read.len(), error)
            }
            _ => {
                let (read, error) = messages::<Tell>(&bytes);
                (read.len(), error)
            }
        };
        assert_eq!(read, 0, "{}", path.display());
        assert_eq!(error.to_string(), vector["error"].as_str().unwrap(), "{}", path.display());
    }
}

#[test]
fn the_files_of_the_servers_messages_are_what_this_build_writes() {
    let folders = ["vectors/sessions/valid", "vectors/sessions/invalid", "corpus/sessions"];
    vector_files::assert_same(&generate(), &here(""), &folders);
}

#[test]
#[ignore = "writes the vectors and the corpus"]
fn write_the_files() {
    vector_files::write(&generate(), &here(""));
}

#[test]
fn every_corpus_file_of_the_servers_messages_passes_its_target() {
    let files = vector_files::read(&here("corpus/sessions"));
    assert!((20..=40).contains(&files.len()), "{}", files.len());
    for (path, data) in files {
        println!("{}", path.display());
        target::sessions(&data);
    }
}

#[test]
fn an_agent_follows_what_a_server_sends_to_the_end_or_to_what_it_refuses() {
    for (name, bytes, ends) in stories() {
        assert_eq!(follow(&bytes).unwrap_or(false), ends, "{name}");
        // However early it breaks off.
        for cut in 0..bytes.len() {
            assert!(!follow(&bytes[..cut]).unwrap_or(false), "{name}, cut at {cut}");
        }
    }
}

#[test]
fn a_message_that_the_other_side_would_refuse_is_not_sent() {
    let long = |length| Ask::Create {
        process: Process { node: 1, number: 1 },
        spec: SessionSpec { name: Some("x".repeat(length)), ..spec() },
        stays: false,
    };
    let around = message::encode(&long(0)).unwrap().len() - message::HEAD;
    assert!(message::encode(&long(LONGEST_ASK - around)).is_ok());
    assert_eq!(
        message::encode(&long(LONGEST_ASK - around + 1)),
        Err(MessageError::TooLong(LONGEST_ASK + 1, LONGEST_ASK))
    );
    assert!(message::encode_bytes(&vec![0; LONGEST_OUTPUT]).is_ok());
    assert!(message::encode_bytes(&vec![0; LONGEST_OUTPUT + 1]).is_err());
    assert!(message::encode(&Ask::Close { id: "a/b".to_owned() }).is_err());
    assert!(message::encode(&Tell::Resized { columns: 0, rows: 1 }).is_err());
}

fn an_id() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_~-][a-zA-Z0-9._~-]{0,127}"
}

fn a_floor() -> impl Strategy<Value = Floor> {
    (any::<[u8; 16]>(), an_id(), any::<Option<u64>>()).prop_map(|(credential, session, position)| Floor {
        credential: sessioncap::CredentialId::from_bytes(credential).to_string(),
        session,
        position,
    })
}

fn a_process() -> impl Strategy<Value = Process> {
    (any::<u32>(), any::<u64>()).prop_map(|(node, number)| Process { node, number })
}

fn a_spec() -> impl Strategy<Value = SessionSpec> {
    let argv = proptest::collection::vec(any::<String>(), 0..4);
    (any::<Option<String>>(), argv, any::<Option<String>>(), any::<u16>(), any::<u16>()).prop_map(
        |(name, argv, cwd, cols, rows)| SessionSpec { name, argv, cwd: cwd.map(PathBuf::from), cols, rows },
    )
}

fn an_info() -> impl Strategy<Value = SessionInfo> {
    let sides = (1..=1000_u16, 1..=1000_u16);
    let created = (0..1_u64 << 40, 0..1_000_000_000_u32);
    (an_id(), any::<Option<String>>(), any::<String>(), any::<String>(), sides, created, any::<i32>())
        .prop_map(|(id, name, command, cwd, (cols, rows), (seconds, nanos), pid)| {
            let created_at = UNIX_EPOCH + Duration::new(seconds, nanos);
            SessionInfo { id, name, command, cwd, cols, rows, created_at, pid }
        })
}

fn an_ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        a_process().prop_map(Ask::Join),
        Just(Ask::Known),
        Just(Ask::List),
        a_floor().prop_map(Ask::Floor),
        (a_process(), a_spec(), any::<bool>()).prop_map(|(process, spec, stays)| Ask::Create {
            process,
            spec,
            stays
        }),
        an_id().prop_map(|id| Ask::Follow { id }),
        any::<bool>().prop_map(Ask::Lead),
        (an_id(), any::<u16>(), any::<u16>()).prop_map(|(id, columns, rows)| Ask::Resize {
            id,
            columns,
            rows
        }),
        an_id().prop_map(|id| Ask::Close { id }),
    ]
}

fn a_tell() -> impl Strategy<Value = Tell> {
    prop_oneof![
        proptest::collection::vec(an_id(), 0..=4).prop_map(Tell::Sessions),
        an_id().prop_map(Tell::Begun),
        a_floor().prop_map(Tell::Floor),
        an_info().prop_map(Tell::Made),
        (an_info(), 1_u128.., any::<u64>()).prop_map(|(info, incarnation, position)| Tell::Session {
            info,
            incarnation: incarnation.to_be_bytes(),
            position,
        }),
        (1..=1000_u16, 1..=1000_u16).prop_map(|(columns, rows)| Tell::Resized { columns, rows }),
        any::<i32>().prop_map(Tell::Ended),
        Just(Tell::Done),
        any::<String>().prop_map(|text| Tell::Failed(Failure::Other(text))),
    ]
}

/// A stream of these messages reads as them, and one that is cut anywhere reads as those that are whole.
fn reads<T: Side + PartialEq + std::fmt::Debug + Clone>(sent: &[T], cut: prop::sample::Index) {
    let encoded: Vec<Vec<u8>> = sent.iter().map(|message| message::encode(message).unwrap()).collect();
    let bytes = encoded.concat();
    let as_sent: Vec<_> = sent.iter().cloned().map(Message::Json).collect();
    assert_eq!(messages::<T>(&bytes).0, as_sent);
    let cut = cut.index(bytes.len() + 1);
    let mut left = cut;
    let whole = encoded.iter().take_while(|message| {
        let fits = message.len() <= left;
        left = left.saturating_sub(message.len());
        fits
    });
    assert_eq!(messages::<T>(&bytes[..cut]).0, as_sent[..whole.count()]);
}

proptest! {
    #[test]
    fn any_messages_of_an_agent_read_as_they_were_sent(sent in proptest::collection::vec(an_ask(), 0..5), cut: prop::sample::Index) {
        reads(&sent, cut);
    }

    #[test]
    fn any_messages_of_the_server_read_as_they_were_sent(sent in proptest::collection::vec(a_tell(), 0..5), cut: prop::sample::Index) {
        reads(&sent, cut);
    }

    #[test]
    fn any_bytes_pass_the_target(who in 0..3_u8, kind in 0..3_u8, body in proptest::collection::vec(any::<u8>(), 0..40)) {
        target::sessions(&[&[who], framed(kind, &body).as_slice()].concat());
        target::sessions(&[&[who], body.as_slice()].concat());
    }

    /// Each reads as a message or is refused; what reads has one spelling, as the target asserts.
    #[test]
    fn a_message_in_which_a_byte_was_changed_passes_the_target(ask in an_ask(), tell in a_tell(), at: prop::sample::Index, byte: u8) {
        for (who, mut bytes) in [(0, message::encode(&ask).unwrap()), (1, message::encode(&tell).unwrap())] {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            target::sessions(&[&[who], bytes.as_slice()].concat());
        }
    }
}
