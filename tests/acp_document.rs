//! Section 17 of `docs/PROTOCOL.md` says what the adapter of the Agent Client Protocol does.
#![cfg(feature = "acp")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use sessioncap::acp::*;
use sessioncap::{OpSet, SessionId};

const DOCUMENT: &str = include_str!("../docs/PROTOCOL.md");

fn table(head: &str) -> Vec<Vec<String>> {
    let rows = DOCUMENT.lines().skip_while(|line| !line.starts_with(head)).skip(2);
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    rows.take_while(|line| line.starts_with('|')).map(cells).collect()
}

fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn words(rule: Rule) -> String {
    match rule {
        Rule::Session(op) => format!("`{op}`"),
        Rule::Connection => "any operation".to_owned(),
        Rule::Privileged(privilege) => format!("no credential: `{privilege}`"),
        Rule::Unserved(op) => format!("`{op}`, not served"),
        other => format!("{other:?}"),
    }
}

#[test]
fn the_methods_of_a_phone_are_those_of_the_document() {
    let mut rows = 0;
    for row in table("| method of a phone |") {
        let [methods, kind, needs] = row.as_slice() else { panic!("{row:?}") };
        for method in quoted(methods) {
            rows += 1;
            let method = method.replace('…', "anything");
            let of = |kind| words(Rule::of(Sender::Phone, kind, &method));
            let (request, notification) = (of(Kind::Request), of(Kind::Notification));
            match kind.as_str() {
                "request" => assert_eq!((&request, notification.as_str()), (needs, "Unknown"), "{method}"),
                "notification" => {
                    assert_eq!((request.as_str(), &notification), ("Unknown", needs), "{method}")
                }
                "either" => assert_eq!((&request, &notification), (needs, needs), "{method}"),
                other => panic!("{other}"),
            }
        }
    }
    assert!(rows > 50, "{rows}");
}

#[test]
fn the_errors_are_those_of_the_document() {
    let written: Vec<(i64, String)> = table("| number | `data.reason` |")
        .iter()
        .flat_map(|row| quoted(&row[1]).into_iter().map(|reason| (row[0].parse().unwrap(), reason)))
        .collect();
    let message = |error| Reason::Message(error);
    let reasons = [
        message(MessageError::NotJson { depth: 1 }),
        message(MessageError::TooLong { max: 1 }),
        message(MessageError::Batch),
        message(MessageError::Malformed),
        Reason::NotPending,
        Reason::IdInUse,
        Reason::TooManyRequests,
        Reason::UnknownMethod,
        Reason::Unserved(sessioncap::Op::Interrupt),
        Reason::Parameters,
        Reason::Privileged(sessioncap::Privilege::Configure),
        Reason::NotGranted(sessioncap::Op::Interrupt),
        Reason::OtherSession,
        Reason::NotOffered,
    ];
    let mut found: Vec<(i64, String)> =
        reasons.iter().map(|reason| (reason.to_error().code, reason.code().to_owned())).collect();
    found.insert(10, (RpcError::INTERNAL, "agent_answer".to_owned()));
    assert_eq!(written, found);
}

#[test]
fn the_limits_are_those_of_the_document() {
    let written: BTreeMap<String, String> = table("| limit of the ACP profile |")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let limits = [
        ("version of the ACP profile", AcpProfile::VERSION.to_string()),
        ("a message to or from a phone", format!("{} bytes", Message::MAX_LEN)),
        ("nesting of a message; values in it", format!("{}; {}", Message::MAX_DEPTH, Json::MAX_VALUES)),
        (
            "text as id of a request; name of a method",
            format!("{}; {} bytes", RequestId::MAX_LEN, Message::MAX_METHOD_LEN),
        ),
        ("the agent's id of the session", format!("{} bytes", AcpSessionId::MAX_LEN)),
        ("unanswered requests of a phone", Guest::MAX_REQUESTS.to_string()),
        ("open questions at a phone", Guest::MAX_QUESTIONS.to_string()),
        ("options of a permission; a form", format!("{}; {} bytes", Guest::MAX_OPTIONS, Guest::MAX_FORM_LEN)),
        ("text of an agent's error", format!("{} bytes", RpcError::MAX_SHOWN_LEN)),
    ];
    let found = limits.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    assert_eq!(written, found);
}

#[test]
fn the_worked_messages_are_what_this_build_reads_and_writes() {
    let section = DOCUMENT.split("### 17.9").nth(1).unwrap();
    let block = section.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    let lines: Vec<&str> = block.lines().collect();
    let [phone, agent_gets, agent, phone_gets, refused, error] =
        lines.iter().skip(1).step_by(2).map(|line| line.trim()).collect::<Vec<_>>()[..]
    else {
        panic!("{lines:?}")
    };
    let upstream = AcpSessionId::new("sess_0f/é").unwrap();
    let guest = Guest::new(SessionId::new("build-42").unwrap(), upstream.clone(), OpSet::COMPANION);
    let (method, params) = guest.read(phone.as_bytes()).unwrap().upstream(&upstream).unwrap();
    let request =
        Message::Request { id: RequestId::Number(1), method: method.to_owned(), params: Some(params) };
    assert_eq!(request.to_text(), agent_gets);
    let Message::Notification { params: Some(params), .. } = Message::from_bytes(agent.as_bytes()).unwrap()
    else {
        panic!("{agent}")
    };
    assert_eq!(guest.update(&params).unwrap().text, phone_gets);
    assert_eq!(guest.read(refused.as_bytes()).unwrap_err().answer().as_deref(), Some(error));
}
