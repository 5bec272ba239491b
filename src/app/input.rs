//! The inputs of a connection, from its app.

use super::key_press::KeyPress;

/// An event, or a wish of the person. Attempts are numbered, so that a late report about a socket that was
/// given up changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input<'a> {
    /// Begin; or, where the connection waits or has stopped, try again now.
    Start,
    /// The WebSocket of this attempt is open.
    Opened {
        /// The number of its [`Output::Open`](super::Output::Open).
        attempt: u32,
    },
    /// A binary message came. A text message is reported as a [`Closed`](Input::Closed) with code 1003, after the app
    /// has closed the socket.
    Message {
        /// The number of its attempt.
        attempt: u32,
        /// The message.
        bytes: &'a [u8],
    },
    /// The WebSocket could not be opened, was closed or broke.
    Closed {
        /// The number of its attempt.
        attempt: u32,
        /// The code of the agent's close frame. `None` if none came.
        code: Option<u16>,
    },
    /// The phone's system does not let the app reach the local network. The first time it may only be asking.
    PermissionDenied {
        /// The number of its attempt.
        attempt: u32,
    },
    /// The bytes are in the keychain.
    Stored {
        /// The number of their [`Output::Store`](super::Output::Store).
        number: u32,
    },
    /// The bytes could not be stored now.
    NotStored {
        /// The number of their [`Output::Store`](super::Output::Store).
        number: u32,
    },
    /// Time has passed: [`Connection::wait_until`](super::Connection::wait_until) is reached, or the app wants to be
    /// sure. Every other input looks at the time as well.
    Time,
    /// The app goes to the background. No ping is sent and no attempt begun until it returns.
    Suspended,
    /// The app is in the foreground again. The connection is asked at once whether it still lives.
    Resumed,
    /// The phone has another network. As [`Resumed`](Input::Resumed); an attempt that waits begins at once.
    NetworkChanged,
    /// Keys, as a terminal encodes them. [`Output::Typed`](super::Output::Typed) tells their fate.
    Type {
        /// Any number of the app's.
        id: u64,
        /// The bytes. Enter is `\r`.
        bytes: &'a [u8],
    },
    /// One key with the modifiers that are held. It is one message, of one frame.
    Key {
        /// Any number of the app's.
        id: u64,
        /// The key.
        key: KeyPress,
        /// True if the program has asked for application cursor keys (`ESC[?1h`).
        application: bool,
    },
    /// One line, and Enter. Control characters are left out.
    Line {
        /// Any number of the app's.
        id: u64,
        /// The line.
        text: &'a str,
    },
    /// Pasted text. Control characters are left out but tabs and ends of lines.
    Paste {
        /// Any number of the app's.
        id: u64,
        /// The text.
        text: &'a str,
        /// True if the program has asked for brackets around it (`ESC[?2004h`).
        bracketed: bool,
    },
    /// A request: a JSON object (`docs/PROTOCOL.md` section 16.5).
    Request {
        /// Any number of the app's.
        id: u64,
        /// The object.
        json: &'a str,
    },
    /// Interrupt what runs, ahead of what was typed.
    Interrupt,
    /// The size of the phone's screen, in characters. The last one wins; a new connection is told it again.
    Resize {
        /// Characters in a line.
        columns: u16,
        /// Lines.
        rows: u16,
    },
    /// Leave. The session goes on. [`Input::Start`] comes back.
    Leave,
}
