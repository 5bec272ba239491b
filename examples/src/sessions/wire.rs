//! The messages between the server of the sessions and agents: a byte that tells the kind, the length in four bytes, and
//! JSON or plain bytes. A terminal comes beside a byte of its own.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::pty::{HubError, SessionInfo, SessionSpec};

/// Longest message: a session's history and its screen have 1 MiB each.
const LONGEST: u32 = 2 * 1024 * 1024;
const JSON: u8 = 0;
const BYTES: u8 = 1;

/// An agent's process, in its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) node: u32,
    /// Drawn when it starts.
    pub(super) number: u64,
}

/// Where a credential's output begins: nothing before it is sent to its phone again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Floor {
    pub(super) credential: String,
    pub(super) session: String,
    /// `None` if it is not known any more.
    pub(super) position: Option<u64>,
}

/// An agent's message: the first over a connection, and later ones.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ask {
    /// From now on, tell of each new session, and wait with it until this agent knows it.
    Join(Process),
    /// The session that was told of last is known.
    Known,
    /// For the other agents.
    Floor(Floor),
    Create {
        process: Process,
        spec: SessionSpec,
        stays: bool,
    },
    Follow {
        id: String,
    },
    /// Whether somebody reads the output at this agent.
    Lead(bool),
    Resize {
        id: String,
        columns: u16,
        rows: u16,
    },
    Close {
        id: String,
    },
    /// Which sessions there are.
    List,
}

/// The server's message.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Tell {
    Sessions(Vec<String>),
    Begun(String),
    Floor(Floor),
    Made(SessionInfo),
    /// The terminal, the history and the screen come next, and then output.
    Session {
        info: SessionInfo,
        incarnation: [u8; 16],
        position: u64,
    },
    Resized {
        columns: u16,
        rows: u16,
    },
    Ended(i32),
    Done,
    Failed(Failure),
}

/// Why the server did not do something.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Failure {
    NoSuchSession,
    TooManySessions,
    BadSize,
    Other(String),
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        match error {
            HubError::NoSuchSession => Self::NoSuchSession,
            HubError::TooManySessions => Self::TooManySessions,
            HubError::BadSize => Self::BadSize,
            HubError::Terminal(_) | HubError::Server(_) => Self::Other(error.to_string()),
        }
    }
}

impl From<Failure> for HubError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoSuchSession => Self::NoSuchSession,
            Failure::TooManySessions => Self::TooManySessions,
            Failure::BadSize => Self::BadSize,
            Failure::Other(text) => Self::Server(text),
        }
    }
}

/// A message of either kind.
pub(super) enum Message<T> {
    Json(T),
    Bytes(Vec<u8>),
}

pub(super) async fn send<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), message: &T) -> io::Result<()> {
    let json = serde_json::to_vec(message).map_err(io::Error::other)?;
    send_kind(to, JSON, &json).await
}

pub(super) async fn send_bytes(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    send_kind(to, BYTES, bytes).await
}

async fn send_kind(to: &mut (impl AsyncWrite + Unpin), kind: u8, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len()).ok().filter(|length| *length <= LONGEST);
    let length = length.ok_or(ErrorKind::InvalidData)?;
    let mut message = Vec::with_capacity(body.len().saturating_add(5));
    message.push(kind);
    message.extend(length.to_be_bytes());
    message.extend(body);
    to.write_all(&message).await
}

/// The next message. Not cancel-safe.
pub(super) async fn receive<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<Message<T>> {
    let kind = from.read_u8().await?;
    let length = from.read_u32().await?;
    if length > LONGEST {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    from.read_exact(&mut body).await?;
    match kind {
        JSON => serde_json::from_slice(&body).map(Message::Json).map_err(io::Error::other),
        BYTES => Ok(Message::Bytes(body)),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

pub(super) async fn receive_json<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    match receive(from).await? {
        Message::Json(message) => Ok(message),
        Message::Bytes(_) => Err(ErrorKind::InvalidData.into()),
    }
}

/// Reads messages in a task of its own until one cannot be read or nobody takes them. So a reader that waits for something
/// else as well loses no half of a message.
pub(super) fn reading<T: DeserializeOwned + Send + 'static>(
    mut from: impl AsyncRead + Unpin + Send + 'static,
    most: usize,
) -> (mpsc::Receiver<T>, JoinHandle<()>) {
    let (said, messages) = mpsc::channel(most);
    let reading = tokio::spawn(async move {
        while let Ok(message) = receive_json(&mut from).await {
            if said.send(message).await.is_err() {
                return;
            }
        }
    });
    (messages, reading)
}

pub(super) async fn receive_bytes(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    match receive::<Tell>(from).await? {
        Message::Bytes(bytes) => Ok(bytes),
        Message::Json(_) => Err(ErrorKind::InvalidData.into()),
    }
}

/// Passes a terminal on.
pub(super) async fn send_terminal(to: &UnixStream, terminal: &OwnedFd) -> io::Result<()> {
    let passing = [terminal.as_fd()];
    to.async_io(Interest::WRITABLE, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        beside.push(SendAncillaryMessage::ScmRights(&passing));
        let sent = sendmsg(to, &[IoSlice::new(&[0])], &mut beside, SendFlags::NOSIGNAL)?;
        if sent == 1 { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
    })
    .await
}

/// Takes the terminal that comes next.
pub(super) async fn receive_terminal(from: &UnixStream) -> io::Result<OwnedFd> {
    from.async_io(Interest::READABLE, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
        let passed = beside.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut passed) => passed.next(),
            _ => None,
        });
        passed.ok_or_else(|| ErrorKind::UnexpectedEof.into())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_reads_as_it_was_sent_and_no_longer_one_is_taken() {
        let mut bytes = Vec::new();
        send(&mut bytes, &Ask::Follow { id: "1.a".to_owned() }).await.expect("it is sent");
        send_bytes(&mut bytes, b"output").await.expect("it is sent");
        let mut from = bytes.as_slice();
        assert!(matches!(receive_json::<Ask>(&mut from).await, Ok(Ask::Follow { id }) if id == "1.a"));
        assert_eq!(receive_bytes(&mut from).await.expect("it is received"), b"output");
        for wrong in [&[1, 0, 0x20, 0, 1][..], &[2, 0, 0, 0, 0], &[0, 0, 0, 0, 1, b'x'], &[1, 0, 0, 0, 2, 7]]
        {
            assert!(receive::<Ask>(&mut { wrong }).await.is_err(), "{wrong:?}");
        }
        assert!(send_bytes(&mut Vec::new(), &vec![0; LONGEST as usize + 1]).await.is_err());
    }

    #[tokio::test]
    async fn a_terminal_is_passed_on() {
        let (one, other) = UnixStream::pair().expect("a pair");
        let (reading, writing) = std::io::pipe().expect("a pipe");
        send_terminal(&one, &writing.into()).await.expect("it is sent");
        let passed = receive_terminal(&other).await.expect("it is received");
        rustix::io::write(&passed, b"x").expect("it can be written");
        let mut read = [0];
        rustix::io::read(&reading, &mut read).expect("it can be read");
        assert_eq!(&read, b"x");
        let mut one = one;
        one.write_all(&[0]).await.expect("it is sent");
        assert!(receive_terminal(&other).await.is_err(), "nothing came beside it");
    }
}
