//! Messages over a connection between the server of the sessions and an agent. A terminal comes beside a byte of its
//! own.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::limits::MOST_READ;
use super::message::{self, HEAD, Head, Message, Side, Tell};

/// Sends a message of the side `T`.
///
/// # Errors
/// If the other side would refuse it, or the connection is lost.
pub async fn send<T: Side>(to: &mut (impl AsyncWrite + Unpin), message: &T) -> io::Result<()> {
    to.write_all(&message::encode(message)?).await
}

/// Sends plain bytes.
///
/// # Errors
/// If they are too many, or the connection is lost.
pub async fn send_bytes(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(&message::encode_bytes(bytes)?).await
}

/// The next message of the side `T`. Not cancel-safe. Takes no more memory than such a message may have, and of a
/// message that is too long only the head.
///
/// # Errors
/// If it is refused, or the connection ends before it is whole.
pub async fn receive<T: Side>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Message<T>> {
    let mut head = [0; HEAD];
    from.read_exact(&mut head).await?;
    let head = Head::read::<T>(head)?;
    let mut body = vec![0; head.length()];
    from.read_exact(&mut body).await?;
    Ok(head.body(body)?)
}

pub(super) async fn receive_json<T: Side>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    match receive(from).await? {
        Message::Json(message) => Ok(message),
        Message::Bytes(_) => Err(ErrorKind::InvalidData.into()),
    }
}

/// Reads messages in a task of its own until one cannot be read or nobody takes them. So a reader that waits for something
/// else as well loses no half of a message.
pub(super) fn reading<T: Side + Send + 'static>(
    mut from: impl AsyncRead + Unpin + Send + 'static,
) -> (mpsc::Receiver<T>, JoinHandle<()>) {
    let (said, messages) = mpsc::channel(MOST_READ);
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
