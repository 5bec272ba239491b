//! The agent as a process: what it may write, and how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sessioncap::acp::{Json, Message, RequestId};
use sessioncap_acp::process::{Agent, Cause, Ended, Event, NoiseProblem, Start, Unreadable};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

/// Nothing here takes near as long; a test that hangs says so.
const PATIENCE: Duration = Duration::from_secs(60);

type Logged = Arc<Mutex<Vec<String>>>;

fn start(script: &str, arguments: &[&str]) -> (Agent, Receiver<Event>, Logged) {
    let logged = Logged::default();
    let log = Arc::clone(&logged);
    let mut all = vec!["-c".into(), script.into(), "agent".into()];
    all.extend(arguments.iter().map(Into::into));
    let start = Start {
        program: "sh".into(),
        arguments: all,
        directory: None,
        log: Arc::new(move |line: &str| log.lock().unwrap().push(line.to_owned())),
    };
    let (agent, events) = Agent::start(&start).unwrap();
    (agent, events, logged)
}

async fn next(events: &mut Receiver<Event>) -> Event {
    timeout(PATIENCE, events.recv()).await.expect("the agent says nothing").expect("no event after the last")
}

async fn message(events: &mut Receiver<Event>) -> Message {
    match next(events).await {
        Event::Message(message) => message,
        other => panic!("{other:?}"),
    }
}

async fn ended(events: &mut Receiver<Event>) -> Ended {
    loop {
        if let Event::Ended(ended) = next(events).await {
            assert!(events.recv().await.is_none(), "an event after the last");
            return ended;
        }
    }
}

fn note(method: &str) -> Message {
    Message::Notification { method: method.to_owned(), params: None }
}

/// A pipe with a name. What reads it sees its end when the last process that holds it is gone.
struct Fifo(PathBuf);

impl Fifo {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sessioncap-acp-{}-{name}", std::process::id()));
        fs::remove_file(&path).ok();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        Self(path)
    }

    /// Waits for the end, and returns what was written.
    async fn ends(&self) -> String {
        let path = self.0.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut all = String::new();
            fs::File::open(path).unwrap().read_to_string(&mut all).unwrap();
            all
        });
        timeout(PATIENCE, read).await.expect("a process of the group still runs").unwrap()
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

const NOTE: &str = r#"{"jsonrpc":"2.0","method":"a"}"#;

#[tokio::test]
async fn messages_pass_in_both_directions_and_closing_the_input_ends_the_agent() {
    let (agent, mut events, _) =
        start("while IFS= read -r line; do printf '%s\\r\\n' \"$line\"; done; exit 7", &[]);
    let request =
        Message::Request { id: RequestId::Text("1\n2".to_owned()), method: "m".to_owned(), params: None };
    agent.send(&request);
    agent.send(&note("n"));
    assert_eq!(message(&mut events).await, request);
    assert_eq!(message(&mut events).await, note("n"));
    agent.end();
    let end = ended(&mut events).await;
    assert_eq!((end.cause, end.status.unwrap().code()), (Cause::Asked, Some(7)));
}

#[tokio::test]
async fn noise_is_counted_and_never_answered() {
    let script = "printf 'Welcome!\\n\\n[]\\n{\"jsonrpc\":\"2.0\"}\\n\\033[1m%s\\n%s\\n' \"$1\" \"$1\"
        read -r line; printf '%s\\n' \"$line\"";
    let (agent, mut events, _) = start(script, &[NOTE]);
    let mut starts = Vec::new();
    for _ in 0..4 {
        match next(&mut events).await {
            Event::Noise(noise) => {
                assert!(matches!(noise.problem, NoiseProblem::NotAMessage(_)));
                starts.push(noise.start);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(starts, ["Welcome!", "[]", r#"{"jsonrpc":"2.0"}"#, &format!("\u{fffd}[1m{NOTE}")]);
    assert_eq!(message(&mut events).await, note("a"));
    assert_eq!(agent.noise(), 4);
    // The first line that the agent reads is this one.
    agent.send(&note("first"));
    assert_eq!(message(&mut events).await, note("first"));
    assert_eq!(ended(&mut events).await.cause, Cause::Exited);
}

#[tokio::test]
async fn standard_error_is_read_and_its_lines_are_bounded() {
    let script =
        "head -c 204800 /dev/zero | tr '\\0' x >&2; printf '\\nlast\\033\\n' >&2; printf '%s\\n' \"$1\"";
    let (_agent, mut events, logged) = start(script, &[NOTE]);
    assert_eq!(message(&mut events).await, note("a"));
    ended(&mut events).await;
    let logged = logged.lock().unwrap();
    assert_eq!(logged.len(), 2);
    assert_eq!(logged[0], "x".repeat(Agent::MAX_LOG_LINE));
    assert_eq!(logged[1], "last\u{fffd}");
}

/// A message that fills a line of `length` bytes, and then one more message.
const LONG: &str = "printf '{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"params\":{\"t\":\"'; head -c $(($1 - 48)) /dev/zero | tr '\\0' x
    printf '\"}}\\n%s\\n' \"$2\"; read -r line";

#[tokio::test]
async fn a_line_of_the_greatest_length_is_read() {
    let length = Agent::MAX_LINE.to_string();
    let (agent, mut events, _) = start(LONG, &[&length, NOTE]);
    let first = next(&mut events).await;
    assert!(matches!(&first, Event::Message(Message::Notification { .. })), "{}", agent.noise());
    assert_eq!(message(&mut events).await, note("a"));
    agent.end();
    ended(&mut events).await;
}

#[tokio::test]
async fn a_longer_message_ends_the_agent_and_longer_noise_is_skipped() {
    let length = (Agent::MAX_LINE + 1).to_string();
    let (_agent, mut events, _) = start(LONG, &[&length, NOTE]);
    assert_eq!(ended(&mut events).await.cause, Cause::MessageTooLong);

    let (agent, mut events, _) = start(&format!("printf progress; {LONG}"), &[&length, NOTE]);
    match next(&mut events).await {
        Event::Noise(noise) => assert_eq!(noise.problem, NoiseProblem::TooLong),
        other => panic!("{other:?}"),
    }
    assert_eq!(message(&mut events).await, note("a"));
    assert_eq!(agent.noise(), 1);
}

#[tokio::test]
async fn a_message_whose_text_was_cut_within_a_character_counts() {
    let line = r#"{"jsonrpc":"2.0","method":"m","params":{"t":"cut \ud83d"}}"#;
    let (_agent, mut events, _) = start(r#"printf '%s\n' "$1"; exec cat"#, &[line]);
    let params = Some(Json::object([("t", Json::text("cut \u{fffd}"))]));
    assert_eq!(message(&mut events).await, Message::Notification { method: "m".to_owned(), params });
}

#[tokio::test]
async fn an_answer_that_is_too_much_is_reported_with_its_id() {
    let many = format!("[{}0]", "0,".repeat(Json::MAX_VALUES));
    let line = format!(r#"{{"jsonrpc":"2.0","id":7,"result":{many}}}"#);
    let path = std::env::temp_dir().join(format!("sessioncap-{}", uuid::Uuid::new_v4()));
    std::fs::write(&path, line + "\n").unwrap();
    let (agent, mut events, _) =
        start(r#"cat "$1"; printf '%s\n' "$2"; exec cat"#, &[path.to_str().unwrap(), NOTE]);
    assert!(matches!(next(&mut events).await, Event::Noise(_)));
    match next(&mut events).await {
        Event::Unreadable(which) => assert_eq!(which, Unreadable::Answer(RequestId::Number(7))),
        other => panic!("{other:?}"),
    }
    assert_eq!(message(&mut events).await, note("a"));
    assert_eq!(agent.noise(), 1);
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn half_a_line_before_the_end_is_no_message() {
    let (_agent, mut events, _) = start("printf '%s\\n%s' \"$1\" \"$1\"", &[NOTE]);
    assert_eq!(message(&mut events).await, note("a"));
    match next(&mut events).await {
        Event::Noise(noise) => assert_eq!(noise.problem, NoiseProblem::Unfinished),
        other => panic!("{other:?}"),
    }
    let end = ended(&mut events).await;
    assert_eq!((end.cause, end.status.unwrap().code()), (Cause::Exited, Some(0)));
}

#[tokio::test]
async fn what_the_agent_left_in_its_group_ends_with_it() {
    // The shell that is left ignores SIGTERM.
    let fifo = Fifo::new("orphan");
    let script = "(trap '' TERM; exec 3>\"$2\"; printf '%s\\n' \"$1\"; while :; do sleep 1; done) & read -r line; exit 3";
    let (agent, mut events, _) = start(script, &[NOTE, fifo.0.to_str().unwrap()]);
    let gone = tokio::spawn(async move { fifo.ends().await });
    assert_eq!(message(&mut events).await, note("a"));
    agent.send(&note("end"));
    let end = ended(&mut events).await;
    assert_eq!((end.cause, end.status.unwrap().code()), (Cause::Exited, Some(3)));
    gone.await.unwrap();
}

#[tokio::test]
async fn what_the_agent_left_in_its_group_may_end_in_order() {
    let fifo = Fifo::new("orderly");
    let script = "(exec 3>\"$2\"; trap 'echo saved >&3; exit' TERM; printf '%s\\n' \"$1\"; while :; do sleep 1; done) &
        read -r line; exit 0";
    let (agent, mut events, _) = start(script, &[NOTE, fifo.0.to_str().unwrap()]);
    let gone = tokio::spawn(async move { fifo.ends().await });
    assert_eq!(message(&mut events).await, note("a"));
    agent.end();
    assert_eq!(ended(&mut events).await.status.unwrap().code(), Some(0));
    assert_eq!(gone.await.unwrap(), "saved\n");
}

#[tokio::test]
async fn an_agent_that_ignores_its_input_and_sigterm_is_killed() {
    let fifo = Fifo::new("deaf");
    let script = "trap '' TERM; exec 3>\"$2\"; printf '%s\\n' \"$1\"; while :; do sleep 1; done";
    let (agent, mut events, _) = start(script, &[NOTE, fifo.0.to_str().unwrap()]);
    let gone = tokio::spawn(async move { fifo.ends().await });
    assert_eq!(message(&mut events).await, note("a"));
    drop(agent);
    let end = ended(&mut events).await;
    assert_eq!((end.cause, end.status.unwrap().signal()), (Cause::Asked, Some(9)));
    gone.await.unwrap();
}

#[tokio::test]
async fn an_agent_that_hears_sigterm_ends_by_it() {
    let (agent, mut events, _) = start("printf '%s\\n' \"$1\"; while :; do sleep 1; done", &[NOTE]);
    assert_eq!(message(&mut events).await, note("a"));
    agent.end();
    assert_eq!(ended(&mut events).await.status.unwrap().signal(), Some(15));
}

#[tokio::test]
async fn an_agent_that_does_not_read_is_ended_and_sending_never_waits() {
    let (agent, mut events, _) = start("printf '%s\\n' \"$1\"; while :; do sleep 1; done", &[NOTE]);
    assert_eq!(message(&mut events).await, note("a"));
    let params = Json::Object(vec![("t".to_owned(), Json::Text("x".repeat(1 << 20)))]);
    let long = Message::Notification { method: "m".to_owned(), params: Some(params) };
    for _ in 0..=Agent::INPUT_ROOM >> 20 {
        agent.send(&long);
    }
    assert_eq!(ended(&mut events).await.cause, Cause::InputFull);
}

#[tokio::test]
async fn an_agent_that_closes_its_output_is_ended() {
    let (_agent, mut events, _) = start("exec >&-; while :; do sleep 1; done", &[]);
    let end = ended(&mut events).await;
    assert_eq!((end.cause, end.status.unwrap().signal()), (Cause::OutputClosed, Some(15)));
}

#[test]
fn a_program_that_is_not_there_is_an_error() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let start = Start {
        program: "no-such-program-of-sessioncap".into(),
        arguments: Vec::new(),
        directory: None,
        log: Arc::new(|_: &str| {}),
    };
    let error = runtime.block_on(async { Agent::start(&start).unwrap_err() });
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn a_runtime_that_ends_takes_the_agent_along() {
    let fifo = Fifo::new("runtime");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let agent = runtime.block_on(async {
        let script = "trap '' TERM; exec 3>\"$2\"; printf '%s\\n' \"$1\"; while :; do sleep 1; done";
        let path = fifo.0.clone();
        let opened = tokio::task::spawn_blocking(move || fs::File::open(path).unwrap());
        let (agent, mut events, _) = start(script, &[NOTE, fifo.0.to_str().unwrap()]);
        assert_eq!(message(&mut events).await, note("a"));
        (agent, opened.await.unwrap())
    });
    drop(runtime);
    let (_agent, mut held) = agent;
    let mut all = Vec::new();
    held.read_to_end(&mut all).unwrap();
}
