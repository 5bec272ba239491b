//! A connection that any thread may call.

use core::time::Duration;
use std::sync::Arc;

use rand_core::OsRng;
use sessioncap::app::{self, Accepted, Input, Stored};

use crate::event::{ConnectionState, Event};
use crate::failure::Failed;
use crate::guarded::Guarded;

/// One pairing's connection. Call it with what has happened, then take every event, in order, and do it. Times are
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

impl Connection {
    pub(crate) fn join(accepted: Accepted) -> Self {
        Self(Guarded::new(app::Connection::join(accepted)))
    }

    pub(crate) fn input(&self, input: Input<'_>, now_millis: u64) -> Result<(), Failed> {
        self.0.with(|connection| connection.handle(input, Duration::from_millis(now_millis), &mut OsRng))
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
