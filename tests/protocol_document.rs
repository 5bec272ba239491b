//! This build reproduces the worked vector of `docs/PROTOCOL.md` byte for byte.
#![cfg(all(feature = "holder", feature = "issuer", feature = "agent", feature = "attenuate"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::HashSet;
use std::fmt::Write;

use common::{Context, session};
use rand::{CryptoRng, Error, RngCore};
use sessioncap::agent::ledger::MemoryLedger;
use sessioncap::agent::*;
use sessioncap::desktop::*;
use sessioncap::noise::Responder;
use sessioncap::phone::*;
use sessioncap::session::*;
use sessioncap::*;
use time::{Duration, OffsetDateTime};

/// Gives bytes that are written down in the document, and nothing else.
struct Drawn(Vec<u8>);

impl Drawn {
    fn new<const N: usize>(draws: [(u8, usize); N]) -> Self {
        Self(draws.into_iter().flat_map(|(byte, len)| vec![byte; len]).collect())
    }
}

impl RngCore for Drawn {
    fn next_u32(&mut self) -> u32 {
        panic!("only whole draws")
    }
    fn next_u64(&mut self) -> u64 {
        panic!("only whole draws")
    }
    fn fill_bytes(&mut self, dest: &mut [u8]) {
        assert!(dest.len() <= self.0.len(), "more was drawn than the document says");
        dest.copy_from_slice(&self.0.drain(..dest.len()).collect::<Vec<_>>());
    }
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

impl CryptoRng for Drawn {}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Every value of the vector, in the order of the document.
fn vector() -> Vec<(&'static str, String)> {
    let agent = AgentSecretKey::from_bytes([0x01; 32]);
    let phone = HolderSecretKey::from_bytes([0x02; 32]);
    let issuer_key = IssuerSecretKey::from_bytes([0x03; 32]);
    let desktop = DeviceSecretKey::from_bytes([0x04; 32]).public();
    let url = AgentUrl::parse("wss://agent.example").unwrap();
    let now = Now::new(OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap(), Duration::seconds(5));

    // the desktop: ticket secret, credential id, key for the next block
    let issuer = Issuer::new(issuer_key, agent.public(), url.clone());
    let mut rng = Drawn::new([(0x05, 16), (0x06, 16), (0x07, 32)]);
    let pairing = issuer.pair(session("demo"), &PairingTerms::default(), now.timestamp(), &mut rng).unwrap();
    let registration = issuer.registration(&desktop, &[0x08; 32]);

    let context = Context::default();
    context.0.lock().unwrap().sessions = HashSet::from([session("demo")]);
    context.0.lock().unwrap().devices = HashSet::from([desktop]);
    let config = GateConfig::new(agent.public(), [url]).unwrap();
    let gate = Gate::open(config, MemoryLedger::new(), context, now).unwrap();
    gate.register_issuer(&desktop, &[0x08; 32], &registration, now).unwrap();
    let receipt = gate.offer(&desktop, &pairing.offer, now).unwrap();

    // the phone: its ephemeral key
    let label = Label::new("phone").unwrap();
    let asking = redeem(&pairing.link, &phone, label, &mut Drawn::new([(0x09, 32)])).unwrap();
    let received = Responder::read(&agent, &asking.message, &mut Drawn::new([(0x0a, 32)])).unwrap();
    // the agent: its ephemeral key above, then the nonce and the key for the next block
    let mut rng = Drawn::new([(0x0b, 16), (0x0c, 32)]);
    let PeerAdmission::Admitted { reply, .. } = gate.admit_peer(
        Peer::new(received.peer().as_bytes(), received.payload(), received.handshake_hash()),
        now,
        &mut rng,
    ) else {
        panic!("refused")
    };
    let redeem_payload = received.payload().to_vec();
    let replied = received.reply(&reply).unwrap();
    let Redeemed::Attached { credential, mut attached } = asking.next.finish(&replied.message).unwrap()
    else {
        panic!("not attached")
    };
    let frame = attached.channel.seal(b"hello").unwrap();

    let parsed = Credential::parse(&credential).unwrap();
    let narrowed =
        parsed.attenuate(Some(OpSet::only(Op::StreamOutput)), None, &mut Drawn::new([(0x0d, 32)])).unwrap();
    let attaching =
        attach(&agent.public(), &phone, &credential, OpSet::EMPTY, &mut Drawn::new([(0x0e, 32)])).unwrap();
    let attach_payload = Responder::read(&agent, &attaching.message, &mut Drawn::new([(0x0f, 32)]))
        .unwrap()
        .payload()
        .to_vec();
    let code = PairCode::new(&pairing.ticket, &agent.public(), &phone.public(), &[0x0b; 16]);

    vec![
        ("A", hex(agent.public().as_bytes())),
        ("P", hex(phone.public().as_bytes())),
        ("I", hex(issuer.public().as_bytes())),
        ("D", hex(desktop.as_bytes())),
        ("TPK", hex(pairing.link.ticket().public_key().as_bytes())),
        ("tid", hex(pairing.ticket.as_bytes())),
        ("link", pairing.link.to_https(&LinkHost::Agent).unwrap()),
        ("link-host", pairing.link.to_https(&LinkHost::Fixed(String::from("link.example"))).unwrap()),
        ("registration", hex(&registration.to_bytes())),
        ("offer", hex(&pairing.offer.to_bytes())),
        ("receipt", hex(&receipt.to_bytes())),
        ("redeem-payload", hex(&redeem_payload)),
        ("message-1", hex(&asking.message)),
        ("credential", hex(credential.as_bytes())),
        ("answer-payload", hex(&reply)),
        ("message-2", hex(&replied.message)),
        ("handshake-hash", hex(&replied.handshake_hash)),
        ("frame", hex(&frame)),
        ("attach-payload", hex(&attach_payload)),
        ("narrowed", hex(narrowed.bytes().as_bytes())),
        ("pair-code", code.to_string()),
    ]
}

/// The values as the document writes them: hexadecimal in lines of 64 digits.
fn rendered() -> String {
    let mut text = String::new();
    for (name, value) in vector() {
        writeln!(text, "{name} =").unwrap();
        let characters: Vec<char> = value.chars().collect();
        for line in characters.chunks(96) {
            writeln!(text, "  {}", line.iter().collect::<String>()).unwrap();
        }
    }
    text
}

#[test]
fn the_worked_vector_is_what_this_build_does() {
    let document = include_str!("../docs/PROTOCOL.md");
    let rendered = rendered();
    assert!(document.contains(&rendered), "the vector should read:\n{rendered}");
}

#[test]
fn the_policy_in_the_document_is_the_one_that_runs() {
    assert!(include_str!("../docs/PROTOCOL.md").contains(Policy::TEXT));
}

/// The cells of the rows of a table in section 6.4 or 13, without its head. `head` is the head's beginning.
fn table(head: &str) -> Vec<Vec<String>> {
    let document = std::fs::read_to_string("docs/PROTOCOL.md").unwrap();
    let rows = document.lines().skip_while(|line| !line.starts_with(head)).skip(2);
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    rows.take_while(|line| line.starts_with('|')).map(cells).collect()
}

#[test]
fn what_a_phone_does_after_each_error_is_what_the_document_says() {
    let mut errors = vec![
        ("no message 2: the connection was closed".to_owned(), PhoneError::NoAnswer),
        ("a message 2 that does not decrypt".to_owned(), PhoneError::AnswerUnreadable),
        (
            "a message 2 that is malformed".to_owned(),
            PhoneError::AnswerMalformed(sessioncap::Error::MessageMalformed),
        ),
        ("a message 2 that does not fit the request".to_owned(), PhoneError::AnswerMismatch),
    ];
    for status in Status::ALL {
        let came = format!("status {}, {}", status.number(), status.code());
        errors.push((came, PhoneError::Refused(*status)));
    }
    let code = |step: NextStep| format!("`{}`", step.code());
    let found: Vec<Vec<String>> = errors
        .into_iter()
        .map(|(came, error)| vec![came, code(error.after_redeem()), code(error.after_attach())])
        .collect();
    assert_eq!(table("| what came |"), found);
}

#[test]
fn what_each_step_keeps_and_repeats_is_what_the_document_says() {
    let yes = |yes: bool| if yes { "yes".to_owned() } else { "no".to_owned() };
    let found: Vec<Vec<String>> = NextStep::ALL
        .iter()
        .map(|step| vec![format!("`{}`", step.code()), yes(step.keeps_key()), yes(step.is_retryable())])
        .collect();
    let written: Vec<Vec<String>> =
        table("| step |").into_iter().map(|mut row| row.drain(..3).collect()).collect();
    assert_eq!(written, found);
}

#[test]
fn the_statuses_are_those_of_the_document() {
    let written: Vec<(String, String)> =
        table("| number | name |").into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let mut found = vec![("0".to_owned(), "ok".to_owned()), ("1".to_owned(), "pending".to_owned())];
    found.extend(Status::ALL.iter().map(|status| (status.number().to_string(), status.code().to_owned())));
    assert_eq!(written, found);
}

// --- section 16 ---

/// Bytes with the names that the document gives them.
type Named = Vec<(&'static str, Vec<u8>)>;

/// The frames of the conversation of section 16.10, and the refused messages.
fn conversation() -> (Named, Named) {
    let incarnation = Incarnation::from_bytes([0xa1; 16]).unwrap();
    let from = ResumePoint { incarnation, position: 300 };
    let notice = |notice: SessionNotice| Frame::<Vec<u8>>::Notice(notice.to_notice()).to_bytes();
    let phone = |message: FromPhone<'_>| Frame::Data(message.to_bytes().unwrap()).to_bytes();
    let agent = |message: FromAgent<'_>| Frame::Data(message.to_bytes().unwrap()).to_bytes();
    let event = |kind, value, position| FromAgent::Event(Event { kind, position, value, text: "" });
    let request = FromPhone::Request(r#"{"method":"shell.list_sessions"}"#).to_bytes().unwrap();
    let (begin, end) = request.split_at(20);
    let said = vec![
        ("phone-profile", notice(SessionNotice::Profile { version: Profile::VERSION })),
        ("agent-profile", notice(SessionNotice::Profile { version: Profile::agree(1).unwrap() })),
        ("phone-follow", phone(FromPhone::Follow(None))),
        ("agent-following", agent(FromAgent::Following(Following { from, missed: Some(0), screen: true }))),
        (
            "agent-screen",
            agent(FromAgent::Screen { position: 300, columns: 80, rows: 24, bytes: b"\x1b[H\x1b[2J$ " }),
        ),
        ("phone-input", phone(FromPhone::Input(b"ls\r"))),
        ("agent-taken", notice(SessionNotice::Taken { number: 1 })),
        ("agent-output", agent(FromAgent::Output { position: 300, bytes: b"ls\r\n" })),
        ("agent-command-ended", agent(event(EventKind::CommandEnded, 0, 304))),
        ("phone-part", Frame::Part(begin).to_bytes()),
        ("phone-end-of-the-request", Frame::Data(end).to_bytes()),
        ("agent-answer", agent(FromAgent::Answer { number: 2, json: r#"{"ok":true,"sessions":[]}"# })),
        ("phone-part-of-nothing-more", Frame::Part(b"\0rm").to_bytes()),
        ("phone-discard", Frame::<Vec<u8>>::Discard.to_bytes()),
        ("agent-session-ended", agent(event(EventKind::SessionEnded, 0, 304))),
        ("agent-end", Frame::<Vec<u8>>::End(EndCode::from(Status::SessionGone)).to_bytes()),
        ("phone-follow-again", phone(FromPhone::Follow(Some(ResumePoint { incarnation, position: 304 })))),
    ];
    let refused = vec![
        ("input-without-a-byte", vec![0]),
        ("resize-without-columns", vec![3, 0, 0, 0, 24]),
        ("output-without-a-byte", [&[16], [0; 8].as_slice()].concat()),
        ("bell-with-a-text", [&[20, 1], [0; 12].as_slice(), b"x"].concat()),
    ];
    (said, refused)
}

#[test]
fn the_worked_conversation_is_what_this_build_says() {
    let document = include_str!("../docs/PROTOCOL.md");
    let (said, refused) = conversation();
    for text in [&said, &refused].map(|values| {
        let mut text = String::new();
        for (name, bytes) in values {
            let digits: Vec<char> = hex(bytes).chars().collect();
            writeln!(text, "{name} =").unwrap();
            for line in digits.chunks(96) {
                writeln!(text, "  {}", line.iter().collect::<String>()).unwrap();
            }
        }
        text
    }) {
        assert!(document.contains(&format!("```text\n{text}```")), "section 16.10 should read:\n{text}");
    }
    for (name, message) in &refused {
        let read = (FromPhone::from_bytes(message), FromAgent::from_bytes(message));
        let malformed = sessioncap::Error::MessageMalformed;
        assert_eq!(read, (Err(malformed.clone()), Err(malformed)), "{name}");
    }
}

/// A phone that is given the conversation shows what the agent has sent, and can follow from there.
#[test]
fn a_phone_follows_the_worked_conversation() {
    let (said, _) = conversation();
    let (mut from_phone, mut from_agent) = (Assembler::new(), Assembler::new());
    let mut tracker = OutputTracker::new(None);
    let (mut shown, mut asked, mut last) = (Vec::new(), Vec::new(), None);
    for (name, plaintext) in &said {
        let frame = Frame::from_bytes(plaintext).unwrap();
        if name.starts_with("phone") {
            if let Some(Frame::Data(message)) = from_phone.take(frame).unwrap() {
                asked.push(FromPhone::from_bytes(&message).unwrap().action());
                last = Some(message);
            }
            continue;
        }
        let Some(Frame::Data(message)) = from_agent.take(frame).unwrap() else { continue };
        match FromAgent::from_bytes(&message).unwrap() {
            FromAgent::Following(following) => tracker.following(&following).unwrap(),
            FromAgent::Screen { position, bytes, .. } => {
                shown.extend_from_slice(tracker.screen(position, bytes).unwrap().bytes);
            }
            FromAgent::Output { position, bytes } => {
                shown.extend_from_slice(tracker.output(position, bytes).unwrap().bytes);
            }
            _ => {}
        }
    }
    assert_eq!(shown, b"\x1b[H\x1b[2J$ ls\r\n");
    let session = |op| Some(Action::Session(op));
    assert_eq!(asked, [session(Op::StreamOutput), session(Op::SendInput), None, session(Op::StreamOutput)]);
    assert_eq!(tracker.follow().to_bytes().ok(), last);
}

/// The numbers in the row of a table that begins so.
fn numbers(row: &str) -> Vec<u64> {
    let document = std::fs::read_to_string("docs/PROTOCOL.md").unwrap();
    let line = document.lines().find(|line| line.starts_with(&format!("| {row} |")));
    let value =
        line.unwrap_or_else(|| panic!("no row `{row}`")).trim_matches('|').rsplit('|').next().unwrap();
    let digits = value.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    digits.map(|digits| digits.parse().unwrap()).collect()
}

#[test]
fn the_limits_of_messages_and_of_the_profile_are_those_of_the_document() {
    let usize = |value: usize| u64::try_from(value).unwrap();
    let seconds = |duration: core::time::Duration| duration.as_secs();
    let milliseconds = |duration: core::time::Duration| u64::try_from(duration.as_millis()).unwrap();
    assert_eq!(
        numbers("message in parts; all unfinished ones at an agent; time to complete one"),
        [
            usize(Assembler::MAX_MESSAGE_LEN),
            GateConfig::DEFAULT_MESSAGE_ROOM.into(),
            limits::MESSAGE_TIMEOUT.unsigned_abs()
        ]
    );
    for (row, values) in [
        ("version", vec![Profile::VERSION.into()]),
        ("columns; rows", vec![Profile::MAX_TERMINAL_SIDE.into(); 2]),
        (
            "untaken input of a connection; of it in the terminal's own queue",
            vec![usize(Profile::MAX_UNTAKEN_INPUT), usize(Profile::MAX_TERMINAL_QUEUE)],
        ),
        ("unanswered requests of a connection", vec![usize(Profile::MAX_REQUESTS)]),
        ("nesting of JSON", vec![usize(Profile::MAX_JSON_DEPTH)]),
        ("text of an event", vec![usize(Profile::MAX_EVENT_TEXT_LEN)]),
        (
            "a ping after silence of; an answer to it; closed by the agent after",
            [Liveness::PING_AFTER, Liveness::PING_TIMEOUT, Liveness::CLOSE_AFTER].map(seconds).to_vec(),
        ),
        ("time between two looks; of it counts", [Liveness::TICK, Liveness::STEP].map(seconds).to_vec()),
        (
            "first pause before attaching again; longest",
            [Reconnect::FIRST, Reconnect::LONGEST].map(milliseconds).to_vec(),
        ),
    ] {
        assert_eq!(numbers(row), values, "{row}");
    }
}

/// The operation in the document of each type of message.
#[test]
fn the_types_of_messages_are_those_of_the_document() {
    let written: Vec<(u8, String)> = table("| type | name |")
        .into_iter()
        .map(|row| (row[0].parse().unwrap(), row[4].trim_matches('`').to_owned()))
        .collect();
    let json = "{}";
    let from = ResumePoint { incarnation: Incarnation::from_bytes([1; 16]).unwrap(), position: 0 };
    let following = Following { from, missed: None, screen: true };
    let event = Event { kind: EventKind::Bell, position: 0, value: 0, text: "" };
    let of_phone = [
        FromPhone::Input(b"x"),
        FromPhone::Request(json),
        FromPhone::Follow(None),
        FromPhone::Resize { columns: 1, rows: 1 },
        FromPhone::Interrupt,
    ];
    let of_agent = [
        FromAgent::Output { position: 0, bytes: b"x" },
        FromAgent::Answer { number: 0, json },
        FromAgent::Following(following),
        FromAgent::Screen { position: 0, columns: 1, rows: 1, bytes: b"x" },
        FromAgent::Event(event),
    ];
    let mut found: Vec<(u8, String)> = Vec::new();
    for message in of_phone {
        let op = match message.action() {
            Some(Action::Session(op)) => op.to_string(),
            _ => "that of the method".to_owned(),
        };
        found.push((message.to_bytes().unwrap()[0], op));
    }
    for message in of_agent {
        let op = message.op().map_or("that of the request".to_owned(), |op| op.to_string());
        found.push((message.to_bytes().unwrap()[0], op));
    }
    assert_eq!(written, found);
}
