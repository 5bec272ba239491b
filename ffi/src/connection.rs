//! A connection that any thread may call.

use core::time::Duration;
use std::sync::Arc;

use rand_core::OsRng;
use sessioncap::AgentUrl;
use sessioncap::app::{self, Accepted, Input, KeyPress, State, Stored};
use sessioncap::session::ResumePoint;

use crate::event::{ConnectionState, Event};
use crate::failure::Failed;
use crate::guarded::Guarded;

/// One pairing's connection. Tell it what has happened, then take every event, in order, and do it. Times are
/// milliseconds since any start, of a clock that counts the phone's sleep.
#[cfg_attr(feature = "uniffi", derive(uniffi::Object))]
pub struct Connection(Guarded<app::Connection>);

/// Makes the connection of a stored pairing.
///
/// # Errors
/// `stored_foreign`, `stored_newer` or `stored_damaged`. Never call it with bytes that the keychain did not return.
#[cfg_attr(feature = "uniffi", uniffi::export)]
pub fn reopen(stored: Vec<u8>) -> Result<Arc<Connection>, Failed> {
    let bytes = zeroize::Zeroizing::new(stored);
    let stored = Stored::from_bytes(&bytes)?;
    Ok(Arc::new(Connection(Guarded::new(app::Connection::reopen(stored)))))
}

/// Returns the names of the keys that are no character, for `type_key`.
#[cfg_attr(feature = "uniffi", uniffi::export)]
#[must_use]
pub fn key_names() -> Vec<String> {
    KeyPress::names().map(str::to_owned).collect()
}

impl Connection {
    pub(crate) fn join(accepted: Accepted) -> Self {
        Self(Guarded::new(app::Connection::join(accepted)))
    }

    pub(crate) fn input(&self, input: Input<'_>, now_millis: u64) -> Result<(), Failed> {
        self.0.with(|connection| connection.handle(input, Duration::from_millis(now_millis), &mut OsRng))
    }

    pub(crate) fn key(&self, id: u64, key: &str, application: bool, now_millis: u64) -> Result<(), Failed> {
        self.input(Input::Key { id, key: key.parse()?, application }, now_millis)
    }

    pub(crate) fn resume(&self, point: &[u8]) -> Result<(), Failed> {
        let point = ResumePoint::from_bytes(point)?;
        if self.0.with(|connection| *connection.state() != State::Idle)? {
            return Err(Failed::of("started", "the connection has begun; name the point before that"));
        }
        self.0.replace(|connection| connection.resume_after(Some(point)))
    }

    pub(crate) fn add(&self, url: &str) -> Result<bool, Failed> {
        let url = AgentUrl::parse(url)?;
        self.0.with(|connection| connection.add_address(url))
    }

    /// The next event.
    pub(crate) fn next(&self) -> Result<Option<Event>, Failed> {
        self.0.with(|connection| {
            while let Some(output) = connection.next_output() {
                if let Some(event) = Event::new(output, connection) {
                    return Some(event);
                }
            }
            None
        })
    }
}

#[cfg_attr(feature = "uniffi", uniffi::export)]
impl Connection {
    /// Begins; or, where the connection waits or has stopped, tries again now.
    ///
    /// # Errors
    /// `wiped`, as of every call.
    pub fn start(&self, now_millis: u64) -> Result<(), Failed> {
        self.input(Input::Start, now_millis)
    }

    /// The WebSocket of an attempt is open.
    ///
    /// # Errors
    /// `wiped`.
    pub fn opened(&self, attempt: u32, now_millis: u64) -> Result<(), Failed> {
        self.input(Input::Opened { attempt }, now_millis)
    }

    /// A binary message came.
    ///
    /// # Errors
    /// `wiped`.
    pub fn message(&self, attempt: u32, bytes: Vec<u8>, now_millis: u64) -> Result<(), Failed> {
        self.input(Input::Message { attempt, bytes: &bytes }, now_millis)
    }

    /// The WebSocket could not be opened, was closed or broke; with the code of the agent's close frame, if one came.
    ///
    /// # Errors
    /// `wiped`.
    pub fn closed(&self, attempt: u32, code: Option<u16>, now_millis: u64) -> Result<(), Failed> {
        self.input(Input::Closed { attempt, code }, now_millis)
    }

    /// The phone's system does not let the app reach the local network.
    ///
    /// # Errors
    /// `wiped`.
    pub fn permission_denied(&self, attempt: u32, now_millis: u64) -> Result<(), Failed> {
        self.input(Input::PermissionDenied { attempt }, now_millis)
    }

    /// The bytes of this request are in the keychain.
    ///
    /// # Errors
    /// `wiped`.
    pub fn stored(&self, number: u32, now_millis: u64) -> Result<(), Failed> {
        self.input(Input::Stored { number }, now_millis)
    }

    /// The bytes of this request could not be stored now.
    ///
    /// # Errors
    /// `wiped`.
    pub fn not_stored(&self, number: u32, now_millis: u64) -> Result<(), Failed> {
        self.input(Input::NotStored { number }, now_millis)
    }

    /// Time has passed: `wait_until` is reached.
    ///
    /// # Errors
    /// `wiped`.
    pub fn time_passed(&self, now_millis: u64) -> Result<(), Failed> {
        self.input(Input::Time, now_millis)
    }

    /// The app goes to the background.
    ///
    /// # Errors
    /// `wiped`.
    pub fn suspended(&self, now_millis: u64) -> Result<(), Failed> {
        self.input(Input::Suspended, now_millis)
    }

    /// The app is in the foreground again.
    ///
    /// # Errors
    /// `wiped`.
    pub fn resumed(&self, now_millis: u64) -> Result<(), Failed> {
        self.input(Input::Resumed, now_millis)
    }

    /// The phone has another network.
    ///
    /// # Errors
    /// `wiped`.
    pub fn network_changed(&self, now_millis: u64) -> Result<(), Failed> {
        self.input(Input::NetworkChanged, now_millis)
    }

    /// Types bytes, as a terminal encodes keys.
    ///
    /// # Errors
    /// `wiped`.
    pub fn type_bytes(&self, id: u64, bytes: Vec<u8>, now_millis: u64) -> Result<(), Failed> {
        self.input(Input::Type { id, bytes: &bytes }, now_millis)
    }

    /// Types one key with the modifiers that are held: a character or one of `key_names`, after `ctrl+`, `alt+` and
    /// `shift+`, as in `ctrl+c` or `shift+tab`. It is one message. `application` says that the program has asked for
    /// application cursor keys (`ESC[?1h`).
    ///
    /// # Errors
    /// `unknown_key` if no terminal sends such a key; then nothing is sent and no event comes. `wiped`.
    pub fn type_key(&self, id: u64, key: String, application: bool, now_millis: u64) -> Result<(), Failed> {
        self.key(id, &key, application, now_millis)
    }

    /// Types one line, and Enter. Control characters are left out.
    ///
    /// # Errors
    /// `wiped`.
    pub fn type_line(&self, id: u64, text: String, now_millis: u64) -> Result<(), Failed> {
        self.input(Input::Line { id, text: &text }, now_millis)
    }

    /// Types a pasted text. Control characters are left out but tabs and ends of lines.
    ///
    /// # Errors
    /// `wiped`.
    pub fn paste(&self, id: u64, text: String, bracketed: bool, now_millis: u64) -> Result<(), Failed> {
        self.input(Input::Paste { id, text: &text, bracketed }, now_millis)
    }

    /// Sends a request, a JSON object.
    ///
    /// # Errors
    /// `wiped`.
    pub fn request(&self, id: u64, json: String, now_millis: u64) -> Result<(), Failed> {
        self.input(Input::Request { id, json: &json }, now_millis)
    }

    /// Interrupts what runs.
    ///
    /// # Errors
    /// `wiped`.
    pub fn interrupt(&self, now_millis: u64) -> Result<(), Failed> {
        self.input(Input::Interrupt, now_millis)
    }

    /// The size of the phone's screen, in characters.
    ///
    /// # Errors
    /// `wiped`.
    pub fn resize(&self, columns: u16, rows: u16, now_millis: u64) -> Result<(), Failed> {
        self.input(Input::Resize { columns, rows }, now_millis)
    }

    /// Leaves. The session goes on.
    ///
    /// # Errors
    /// `wiped`.
    pub fn leave(&self, now_millis: u64) -> Result<(), Failed> {
        self.input(Input::Leave, now_millis)
    }

    /// Returns up to where the output was shown, in 24 bytes that are no secret. An app may keep them beside what it
    /// has shown, and pass them to `resume_after` when it starts again; nothing if there was no output.
    ///
    /// # Errors
    /// `wiped`.
    pub fn resume_point(&self) -> Result<Option<Vec<u8>>, Failed> {
        self.0.with(|connection| connection.shown().map(|point| point.to_bytes().to_vec()))
    }

    /// Goes on after what an earlier run of the app has shown, if the session still has it. Call it before `start`.
    ///
    /// # Errors
    /// `message_malformed` if it is no resume point, `started` if the connection has begun, or `wiped`.
    pub fn resume_after(&self, point: Vec<u8>) -> Result<(), Failed> {
        self.resume(&point)
    }

    /// Adds an address at which the agent may be as well. A `Store` event follows, as after every input: take the events
    /// after it. It grants nothing, and is tried in its turn. Returns whether it is among the addresses now; 8 fit.
    ///
    /// # Errors
    /// The code of what is wrong with the address, or `wiped`.
    pub fn add_address(&self, url: String) -> Result<bool, Failed> {
        self.add(&url)
    }

    /// Returns every event there is, in order.
    ///
    /// # Errors
    /// `wiped`.
    pub fn events(&self) -> Result<Vec<Event>, Failed> {
        let mut events = Vec::new();
        while let Some(event) = self.next()? {
            events.push(event);
        }
        Ok(events)
    }

    /// Returns until when nothing happens by itself, milliseconds; nothing if nothing will.
    ///
    /// # Errors
    /// `wiped`.
    pub fn wait_until(&self) -> Result<Option<u64>, Failed> {
        // Rounded up: a caller that comes a millisecond early would have to come again.
        let millis = |until: Duration| u64::try_from(until.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX);
        self.0.with(|connection| connection.wait_until().map(millis))
    }

    /// Returns how the connection stands.
    ///
    /// # Errors
    /// `wiped`.
    pub fn state(&self) -> Result<ConnectionState, Failed> {
        self.0.with(|connection| connection.state().into())
    }

    /// Returns the id of the ticket, which is the name of the keychain's entry.
    ///
    /// # Errors
    /// `wiped`.
    pub fn ticket(&self) -> Result<String, Failed> {
        self.0.with(|connection| connection.stored().ticket().to_string())
    }

    /// Wipes the connection. Every later call fails as `wiped`. Wiping twice is nothing.
    pub fn wipe(&self) {
        drop(self.0.take());
    }
}
