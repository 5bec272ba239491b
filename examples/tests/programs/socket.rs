//! Connections to the server of the sessions: of another user, with half a message, with one that is too long, and of an
//! agent that takes nothing.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::Signal;
use sessioncap_programs::pty::{HubError, SessionSpec};
use sessioncap_programs::sessions::limits::{LONGEST_ASK, MOST_NEWS, MOST_WAITING};
use sessioncap_programs::sessions::message::{self, Ask, Floor, Message, Process, Tell};
use sessioncap_programs::sessions::{Link, wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;
use uuid::Uuid;

use super::shared::Serving;
use super::world::{ECHO, Running, eventually, new_directory, program, within};

/// A user that is neither root nor the one of the tests.
const STRANGER: u32 = 65_534;

/// Asks the server at a path for its sessions, and says what became of that.
const ASK: &str = r#"
import socket, sys
stream = socket.socket(socket.AF_UNIX)
try:
    stream.connect(sys.argv[1])
except PermissionError:
    sys.exit("not let in")
try:
    stream.sendall(b'\0\0\0\0\6"list"')
    answer = stream.recv(4096)
except (BrokenPipeError, ConnectionResetError):
    answer = b""
sys.exit(answer[5:].decode() or "nothing")
"#;

/// Listens at a path, says so, and answers nobody.
const LISTEN: &str = r#"
import os, socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
listener.listen()
print("listening", flush=True)
time.sleep(3600)
"#;

/// A program of another user; `None`, with a message, where this one may not start one or there is no Python.
fn of_a_stranger(script: &str, path: &Path) -> Option<Command> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can start a program of another user");
        return None;
    }
    if std::process::Command::new("python3").arg("-c").arg("").status().is_err() {
        eprintln!("skipped: there is no python3");
        return None;
    }
    let mut command = Command::new("python3");
    command.arg("-c").arg(script).arg(path).current_dir("/").uid(STRANGER).gid(STRANGER);
    Some(command)
}

/// A directory that everybody can pass through, and in which everybody can make a socket. Removed when it is dropped.
struct OpenDirectory(PathBuf);

impl OpenDirectory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("sessioncap-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        Self(path)
    }
}

impl Drop for OpenDirectory {
    fn drop(&mut self) {
        // The system clears that folder in any case.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The mode first, and where somebody has changed that, the user of the connection.
#[tokio::test]
async fn another_user_is_not_let_in_and_not_served_where_the_sockets_mode_was_changed() {
    let directory = OpenDirectory::new();
    let socket = directory.0.join("s");
    let mut command = Command::new(program("sessions"));
    command.arg("--listen").arg(&socket);
    let mut server = Running::start(command);
    server.stdout.until("listening at").await;
    let mode = || std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    let heard = async |mut command: Command| {
        let output = within("the answer", command.output()).await.unwrap();
        String::from_utf8(output.stderr).unwrap().trim().to_owned()
    };
    let Some(stranger) = of_a_stranger(ASK, &socket) else { return };
    assert_eq!(heard(stranger).await, "not let in");

    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    for _ in 0..2 {
        assert_eq!(heard(of_a_stranger(ASK, &socket).unwrap()).await, "nothing");
    }
    // This user is still answered, by the same script.
    let mut own = Command::new("python3");
    own.arg("-c").arg(ASK).arg(&socket);
    assert_eq!(heard(own).await, r#"{"sessions":[]}"#);
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code().await, 0);
    let said = server.stderr.all().await;
    assert_eq!(said.matches("a connection was refused: it is of the user 65534").count(), 1, "{said}");
}

#[tokio::test]
async fn an_agent_sends_nothing_to_another_users_server() {
    let directory = OpenDirectory::new();
    let socket = directory.0.join("s");
    let Some(command) = of_a_stranger(LISTEN, &socket) else { return };
    let stranger = Running::start(command);
    stranger.stdout.until("listening").await;
    let (hub, _shared) = Link::new(socket, 1).mirror(|_| (), Arc::new(|_, _, _| ()));
    let failed = within("the refusal", hub.start(SessionSpec::command(ECHO), true)).await;
    match failed {
        Err(HubError::Server(text)) => assert!(text.contains("another user listens there"), "{text}"),
        other => panic!("{other:?}"),
    }
}

/// Everything that comes until the server closes the connection.
async fn rest(stream: &mut UnixStream) -> Vec<u8> {
    let mut rest = Vec::new();
    match within("the end", stream.read_to_end(&mut rest)).await {
        Ok(_) => {}
        // It has closed with something unread.
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    rest
}

async fn connected(path: &Path, first: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(path).await.unwrap();
    // It may be refused before it has been sent.
    let _ = stream.write_all(first).await;
    stream
}

async fn asked(path: &Path, ask: &Ask) -> UnixStream {
    connected(path, &message::encode(ask).unwrap()).await
}

async fn told(stream: &mut UnixStream) -> Tell {
    match within("a message", wire::receive(stream)).await.unwrap() {
        Message::Json(tell) => tell,
        Message::Bytes(bytes) => panic!("{} bytes", bytes.len()),
    }
}

#[tokio::test]
async fn a_message_that_is_refused_ends_its_connection_without_an_answer_and_no_other() {
    let directory = new_directory();
    let serving = Serving::start(directory.join("sessions")).await;
    let mut joined = asked(&serving.path, &Ask::Join(Process { node: 1, number: 1 })).await;
    assert_eq!(told(&mut joined).await, Tell::Sessions(Vec::new()));
    let too_long = u32::try_from(LONGEST_ASK + 1).unwrap().to_be_bytes();
    for refused in [
        // Only its head: nothing of the message is waited for.
        [&[0], too_long.as_slice()].concat(),
        vec![1, 0, 0, 0, 1],
        vec![2, 0, 0, 0, 0],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        message::encode(&Tell::Done).unwrap(),
        // These are no first messages.
        message::encode(&Ask::Known).unwrap(),
        message::encode(&Ask::Lead(true)).unwrap(),
    ] {
        let mut stream = connected(&serving.path, &refused).await;
        assert_eq!(rest(&mut stream).await, b"", "{}", refused.escape_ascii());
    }
    // Later, an agent that has joined is treated alike.
    assert_eq!(told(&mut asked(&serving.path, &Ask::List).await).await, Tell::Sessions(Vec::new()));
    joined.write_all(&[2, 0, 0, 0, 0]).await.unwrap();
    assert_eq!(rest(&mut joined).await, b"");
    serving.stop().await;
}

/// The clock of this test goes on by itself as soon as everybody waits.
#[tokio::test(start_paused = true)]
async fn half_a_message_holds_its_place_for_a_while_only() {
    let directory = new_directory();
    let serving = Serving::start(directory.join("sessions")).await;
    let ask = message::encode(&Ask::List).unwrap();
    let mut halves = Vec::new();
    for at in 0..MOST_WAITING {
        halves.push(connected(&serving.path, &ask[..at % ask.len()]).await);
    }
    // There is no place for this one until one of those is given up.
    assert_eq!(told(&mut asked(&serving.path, &Ask::List).await).await, Tell::Sessions(Vec::new()));
    for mut half in halves {
        assert_eq!(rest(&mut half).await, b"");
    }
    serving.stop().await;
}

#[tokio::test]
async fn an_agent_that_takes_no_news_is_disconnected_and_the_others_hear_all() {
    let directory = new_directory();
    let serving = Serving::start(directory.join("sessions")).await;
    let mut agents = Vec::new();
    for node in 0..3 {
        let mut agent = asked(&serving.path, &Ask::Join(Process { node, number: 7 })).await;
        assert_eq!(told(&mut agent).await, Tell::Sessions(Vec::new()));
        agents.push(agent);
    }
    let [tells, hears, stalls] = agents.as_mut_slice() else { panic!() };
    // As much as the queue and the kernel's buffers hold, several times over.
    let sent = 8 * MOST_NEWS;
    for position in 0..sent {
        let floor =
            Floor { credential: "07".repeat(16), session: "a".repeat(100), position: Some(position as u64) };
        wire::send(tells, &Ask::Floor(floor.clone())).await.unwrap();
        assert_eq!(told(hears).await, Tell::Floor(floor));
    }
    let taken = rest(stalls).await.len();
    assert!(taken < sent * 100, "{taken} bytes were kept for it");
    // It comes again.
    let mut again = asked(&serving.path, &Ask::Join(Process { node: 2, number: 7 })).await;
    assert_eq!(told(&mut again).await, Tell::Sessions(Vec::new()));
    serving.stop().await;
}

/// Only one of two servers has a socket, and what is there and is no socket stays.
#[tokio::test]
async fn a_second_server_and_a_file_in_the_sockets_place_are_refused() {
    let directory = new_directory();
    let serving = Serving::start(directory.join("sessions")).await;
    let file = directory.join("notes");
    std::fs::write(&file, "mine").unwrap();
    for (path, why) in [(&serving.path, "in use"), (&file, "is no socket")] {
        let mut command = Command::new(program("sessions"));
        let output = within("the refusal", command.arg("--listen").arg(path).output()).await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.to_lowercase().contains(why), "{said}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    eventually("the first still answers", async || {
        told(&mut asked(&serving.path, &Ask::List).await).await == Tell::Sessions(Vec::new())
    })
    .await;
    serving.stop().await;
}
