//! The fuzz target of the messages between the server of the sessions and agents. Panics when a law is broken; nothing in
//! it is random.

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use sessioncap_programs::pty::{Hub, Orders};
use sessioncap_programs::sessions::message::{self, Ask, HEAD, Message, Side, Tell};
use sessioncap_programs::sessions::{Begun, fill, wire};

/// The session that the agent of the target asks for.
pub const FOLLOWED: &str = "1.a";

/// A future that only waits for bytes is done at once when all of them are there.
fn at_once<T>(doing: impl Future<Output = T>) -> T {
    match pin!(doing).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("it waits although nothing more comes"),
    }
}

/// The next message.
pub fn receive<T: Side>(from: &mut &[u8]) -> io::Result<Message<T>> {
    at_once(wire::receive(from))
}

/// The messages of one side until one is refused, and why. Each has one spelling, and none is longer than is allowed. No
/// more is taken of what is refused.
pub fn messages<T: Side + PartialEq + std::fmt::Debug>(mut bytes: &[u8]) -> (Vec<Message<T>>, io::Error) {
    let mut messages = Vec::new();
    let longest = HEAD + T::LONGEST_JSON.max(T::LONGEST_BYTES.unwrap_or(0));
    loop {
        let before = bytes;
        let received = receive::<T>(&mut bytes);
        let taken = &before[..before.len() - bytes.len()];
        assert!(taken.len() <= longest, "{} bytes were taken", taken.len());
        match received {
            Ok(message) => {
                let written = match &message {
                    Message::Json(message) => message::encode(message),
                    Message::Bytes(bytes) => message::encode_bytes(bytes),
                };
                assert_eq!(written.as_deref(), Ok(taken), "another spelling");
                messages.push(message);
            }
            Err(error) => return (messages, error),
        }
    }
}

/// Follows one session as an agent does, with all that a server sends. Returns whether it was told the end.
pub fn follow(mut bytes: &[u8]) -> io::Result<bool> {
    let (orders, _starts, _changes) = Orders::new(1);
    let hub = Hub::mirror(|_| (), orders);
    let from = &mut bytes;
    let begun = at_once(Begun::receive(from, FOLLOWED))?;
    // No terminal; nothing is typed.
    let terminal = std::fs::File::open("/dev/null")?.into();
    let mirror = at_once(begun.mirror(from, &hub.downgrade(), terminal))?;
    let info = hub.info(FOLLOWED).expect("the session is there");
    assert!((1..=1000).contains(&info.cols) && (1..=1000).contains(&info.rows), "{info:?}");
    let viewer = hub.view(FOLLOWED).expect("the session is there");
    let filled = at_once(fill(from, &mut Vec::new(), mirror));
    assert!(hub.info(FOLLOWED).is_none(), "it is over, either way");
    // The picture can be drawn, whatever it was given.
    let (screen, _output) = viewer.watch();
    assert!(screen.bytes.len() <= 1024 * 1024, "{}", screen.bytes.len());
    assert!(viewer.history().len() <= 1024 * 1024);
    Ok(filled.is_ok())
}

/// The first byte is who reads the rest: the server reads what an agent sends, an agent what the server sends, or an agent
/// that follows a session.
pub fn sessions(data: &[u8]) {
    match data.split_first() {
        Some((0, bytes)) => drop(messages::<Ask>(bytes)),
        Some((1, bytes)) => drop(messages::<Tell>(bytes)),
        // A refusal is as good as an end.
        Some((_, bytes)) => drop(follow(bytes)),
        None => {}
    }
}
