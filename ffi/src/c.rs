//! The C interface: opaque handles, flat values, and no panic that leaves it.
//!
//! Rules of all functions: text that goes in is UTF-8 and ends with NUL; a handle that goes in came from this library and
//! was not freed; what comes out is freed by the function that its type names. A call with a null handle fails as
//! `wiped`.

use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use sessioncap::app::Input;
use zeroize::Zeroize;

use crate::connection::{Connection, reopen};
use crate::event::{ConnectionState, Event};
use crate::failure::{Failed, Failure};
use crate::pairings::{PairingInfo, Pairings};
use crate::preview::Preview;

/// Bytes that the library has made. Free them with `sessioncap_bytes_free`, which wipes them.
#[repr(C)]
pub struct SessioncapBytes {
    /// The first byte; null if there are none.
    pub data: *mut u8,
    /// Number of bytes.
    pub len: usize,
}

/// An error. Free it with `sessioncap_failure_free`. The texts are null if nothing did.
#[repr(C)]
pub struct SessioncapFailure {
    /// A stable name.
    pub code: *mut c_char,
    /// One sentence for the person, without a full stop.
    pub sentence: *mut c_char,
    /// `ask_again`, `ask_owner`, `forget` or `update`.
    pub advice: *mut c_char,
}

/// The kind of an event.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessioncapKind {
    /// There is none.
    None = 0,
    /// Open a WebSocket at `text`, without following redirects and without an `Origin`: `attempt`; `names` are the TLS
    /// pins, separated by spaces.
    Open = 1,
    /// Send `bytes` as one binary message: `attempt`.
    Send = 2,
    /// Close the WebSocket with the code `value`, if it is still there: `attempt`.
    Close = 3,
    /// Store `bytes` under the name `text`: `number`.
    Store = 4,
    /// The state of the connection: `text` is its code; `detail` the digits or the session; `names` the operations, separated
    /// by spaces; `number` the seconds left, or the milliseconds of the next attempt; `value` the agent's time; `failure`.
    State = 5,
    /// Output to show, `bytes`; `number` bytes are missing before it.
    Shown = 6,
    /// The screen, `bytes`; `value` bytes do not come, -1 if it is not known how many; `columns` and `rows`.
    Screen = 7,
    /// The fate of typed bytes: `number` is the app's id, `text` the fate.
    Typed = 8,
    /// The answer to a request: `number` is the app's id, `text` the JSON object.
    Answered = 9,
    /// A request that is not answered: `number` is the app's id, `text` the fate.
    NotAnswered = 10,
    /// The agent refused a change of the size, an interrupt, or the output: `text` is the sentence.
    Refused = 11,
    /// Something happened in the session: `text` is the kind, `value` its value, `detail` the text of a notification.
    Happened = 12,
}

/// One event. Free it with `sessioncap_event_free`. Texts are null where the kind has none.
#[repr(C)]
pub struct SessioncapEvent {
    /// Which.
    pub kind: SessioncapKind,
    /// The number of an attempt.
    pub attempt: u32,
    /// By the kind.
    pub number: u64,
    /// By the kind.
    pub value: i64,
    /// Of a screen.
    pub columns: u16,
    /// Of a screen.
    pub rows: u16,
    /// By the kind.
    pub text: *mut c_char,
    /// By the kind.
    pub detail: *mut c_char,
    /// By the kind.
    pub names: *mut c_char,
    /// By the kind.
    pub bytes: SessioncapBytes,
    /// Of a state.
    pub failure: SessioncapFailure,
}

/// A pairing, for a list. Free it with `sessioncap_pairing_free`.
#[repr(C)]
pub struct SessioncapPairing {
    /// The name of the keychain's entry.
    pub ticket: *mut c_char,
    /// The agent's key.
    pub agent: *mut c_char,
    /// The agent's host.
    pub host: *mut c_char,
    /// The session; null while the link is not redeemed.
    pub session: *mut c_char,
    /// The operations, separated by spaces.
    pub ops: *mut c_char,
    /// When it ends by the agent's clock, seconds since 1970; -1 if it is not known.
    pub end: i64,
}

/// A connection.
pub struct SessioncapConnection(std::sync::Arc<Connection>);

/// A link before the person has accepted it.
pub struct SessioncapPreview(Preview);

/// The list of pairings.
pub struct SessioncapPairings(Pairings);

const NO_BYTES: SessioncapBytes = SessioncapBytes { data: ptr::null_mut(), len: 0 };

impl SessioncapBytes {
    fn new(bytes: Vec<u8>) -> Self {
        if bytes.is_empty() {
            return NO_BYTES;
        }
        let len = bytes.len();
        Self { data: Box::into_raw(bytes.into_boxed_slice()).cast(), len }
    }
}

/// Text for C. What follows a NUL is left out; no text of this library has one but an agent's.
fn text(text: &str) -> *mut c_char {
    let until_nul = text.split('\0').next().unwrap_or_default();
    CString::new(until_nul).map_or(ptr::null_mut(), CString::into_raw)
}

const NO_FAILURE: SessioncapFailure =
    SessioncapFailure { code: ptr::null_mut(), sentence: ptr::null_mut(), advice: ptr::null_mut() };

impl SessioncapFailure {
    fn new(failure: &Failure) -> Self {
        Self { code: text(&failure.code), sentence: text(&failure.sentence), advice: text(&failure.advice) }
    }
}

impl SessioncapEvent {
    const NONE: Self = Self {
        kind: SessioncapKind::None,
        attempt: 0,
        number: 0,
        value: 0,
        columns: 0,
        rows: 0,
        text: ptr::null_mut(),
        detail: ptr::null_mut(),
        names: ptr::null_mut(),
        bytes: NO_BYTES,
        failure: NO_FAILURE,
    };

    fn of(kind: SessioncapKind) -> Self {
        Self { kind, ..Self::NONE }
    }

    fn new(event: Event) -> Self {
        use SessioncapKind as Kind;
        match event {
            Event::Open { attempt, url, tls_pins } => {
                Self { attempt, text: text(&url), names: text(&tls_pins.join(" ")), ..Self::of(Kind::Open) }
            }
            Event::Send { attempt, bytes } => {
                Self { attempt, bytes: SessioncapBytes::new(bytes), ..Self::of(Kind::Send) }
            }
            Event::Close { attempt, code } => Self { attempt, value: code.into(), ..Self::of(Kind::Close) },
            Event::Store { number, ticket, bytes } => Self {
                number: number.into(),
                text: text(&ticket),
                bytes: SessioncapBytes::new(bytes),
                ..Self::of(Kind::Store)
            },
            Event::StateChanged { state } => Self::state(&state),
            Event::Shown { missing, bytes } => {
                Self { number: missing, bytes: SessioncapBytes::new(bytes), ..Self::of(Kind::Shown) }
            }
            Event::Screen { missing, columns, rows, bytes } => Self {
                value: missing.map_or(-1, signed),
                columns,
                rows,
                bytes: SessioncapBytes::new(bytes),
                ..Self::of(Kind::Screen)
            },
            Event::Typed { id, fate } => Self { number: id, text: text(&fate), ..Self::of(Kind::Typed) },
            Event::Answered { id, json } => {
                Self { number: id, text: text(&json), ..Self::of(Kind::Answered) }
            }
            Event::NotAnswered { id, fate } => {
                Self { number: id, text: text(&fate), ..Self::of(Kind::NotAnswered) }
            }
            Event::Refused { sentence } => Self { text: text(&sentence), ..Self::of(Kind::Refused) },
            Event::Happened { kind, value, text: said } => Self {
                text: text(&kind),
                value: value.into(),
                detail: text(&said),
                ..Self::of(Kind::Happened)
            },
        }
    }

    fn state(state: &ConnectionState) -> Self {
        let optional = |value: Option<&String>| value.map_or(ptr::null_mut(), |value| text(value));
        Self {
            text: text(&state.code),
            detail: optional(state.digits.as_ref().or(state.session.as_ref())),
            names: text(&state.ops.join(" ")),
            number: state.seconds_left.or(state.at_millis).unwrap_or_default(),
            value: state.agent_time.map_or(-1, signed),
            failure: state.failure.as_ref().map_or(NO_FAILURE, SessioncapFailure::new),
            ..Self::of(SessioncapKind::State)
        }
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Runs a call. A panic in it becomes a failure.
fn guarded<T>(call: impl FnOnce() -> Result<T, Failed>) -> Result<T, Failed> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(Failed::of("internal", "this is a defect; please report it")))
}

/// Tells the caller whether a call has succeeded, and if not, why.
///
/// # Safety
/// `failure` is null, or can be written to.
unsafe fn tell<T>(outcome: Result<T, Failed>, failure: *mut SessioncapFailure) -> Option<T> {
    let (value, told) = match outcome {
        Ok(value) => (Some(value), NO_FAILURE),
        Err(error) => (None, SessioncapFailure::new(&error.failure())),
    };
    if failure.is_null() {
        drop_failure(told);
    } else {
        // SAFETY: it is not null, and by the contract it can be written to.
        unsafe { failure.write(told) };
    }
    value
}

fn drop_failure(failure: SessioncapFailure) {
    for text in [failure.code, failure.sentence, failure.advice] {
        // SAFETY: the texts of a failure that was made here come from `CString::into_raw`, and nobody else has them.
        unsafe { drop_text(text) };
    }
}

/// # Safety
/// `text` is null, or comes from [`text`] and was not dropped.
unsafe fn drop_text(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: by the contract it comes from `CString::into_raw`.
        let text = unsafe { CString::from_raw(text) };
        let mut bytes = text.into_bytes();
        bytes.zeroize();
    }
}

/// # Safety
/// `bytes` come from [`SessioncapBytes::new`] and were not dropped.
unsafe fn drop_bytes(bytes: &SessioncapBytes) {
    if !bytes.data.is_null() {
        let slice = ptr::slice_from_raw_parts_mut(bytes.data, bytes.len);
        // SAFETY: by the contract it comes from `Box::into_raw` of a slice of this length.
        let mut owned = unsafe { Box::from_raw(slice) };
        owned.zeroize();
    }
}

/// # Safety
/// `text` is null, or a text that ends with NUL and lives as long as `'a`.
unsafe fn read<'a>(text: *const c_char) -> Result<&'a str, Failed> {
    if text.is_null() {
        return Err(Failed::of("not_text", "a text is missing"));
    }
    // SAFETY: it is not null, and by the contract it ends with NUL.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Failed::of("not_text", "a text is not UTF-8"))
}

/// # Safety
/// `data` is null, or `len` bytes that live as long as `'a`.
unsafe fn slice<'a>(data: *const u8, len: usize) -> &'a [u8] {
    if data.is_null() || len > isize::MAX.unsigned_abs() {
        return &[];
    }
    // SAFETY: it is not null, and by the contract there are `len` bytes.
    unsafe { std::slice::from_raw_parts(data, len) }
}

/// # Safety
/// `handle` is null, or came from this library and was not freed.
unsafe fn handle<'a, T>(handle: *const T) -> Result<&'a T, Failed> {
    // SAFETY: by the contract it is null or valid.
    unsafe { handle.as_ref() }.ok_or_else(Failed::wiped)
}

/// # Safety
/// As [`handle`], and nobody uses it any more.
unsafe fn drop_handle<T>(handle: *mut T) {
    if !handle.is_null() {
        // SAFETY: by the contract it comes from `Box::into_raw`.
        drop(unsafe { Box::from_raw(handle) });
    }
}

/// Wipes and frees bytes, and sets them to none. Null is nothing.
///
/// # Safety
/// `bytes` is null, or bytes of this library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_bytes_free(bytes: *mut SessioncapBytes) {
    if !bytes.is_null() {
        // SAFETY: it is not null, and by the contract it is of this library.
        let taken = unsafe { bytes.replace(NO_BYTES) };
        // SAFETY: by the contract they were made here; they were taken, so that nobody drops them again.
        unsafe { drop_bytes(&taken) };
    }
}

/// Frees a text. Null is nothing.
///
/// # Safety
/// `text` is null, or a text that a function of this library has returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_text_free(text: *mut c_char) {
    // SAFETY: by the contract.
    unsafe { drop_text(text) };
}

/// Frees the texts of a failure, and sets them to null. Null is nothing.
///
/// # Safety
/// `failure` is null, or was written by this library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_failure_free(failure: *mut SessioncapFailure) {
    if !failure.is_null() {
        // SAFETY: it is not null, and by the contract it is of this library.
        drop_failure(unsafe { failure.replace(NO_FAILURE) });
    }
}

/// Wipes and frees what an event has, and sets it to none. Null is nothing.
///
/// # Safety
/// `event` is null, or was written by `sessioncap_connection_next`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_event_free(event: *mut SessioncapEvent) {
    if event.is_null() {
        return;
    }
    // SAFETY: it is not null, and by the contract it is of this library.
    let event = unsafe { event.replace(SessioncapEvent::NONE) };
    for text in [event.text, event.detail, event.names] {
        // SAFETY: by the contract it was made here; it was taken, so that nobody drops it again.
        unsafe { drop_text(text) };
    }
    // SAFETY: as for the texts.
    unsafe { drop_bytes(&event.bytes) };
    drop_failure(event.failure);
}

/// Makes an empty list of pairings. Free it with `sessioncap_pairings_free`.
#[unsafe(no_mangle)]
pub extern "C" fn sessioncap_pairings_new() -> *mut SessioncapPairings {
    Box::into_raw(Box::new(SessioncapPairings(Pairings::empty())))
}

/// Adds what the keychain has returned.
///
/// # Safety
/// The rules of all functions; `data` are `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_pairings_put(
    pairings: *const SessioncapPairings,
    data: *const u8,
    len: usize,
    failure: *mut SessioncapFailure,
) -> bool {
    // SAFETY: by the contract.
    let (pairings, stored) = (unsafe { handle(pairings) }, unsafe { slice(data, len) });
    let outcome = guarded(|| pairings?.0.put_bytes(stored));
    // SAFETY: by the contract.
    unsafe { tell(outcome, failure) }.is_some()
}

/// Writes the pairing at this place of the list, the latest at 0. Returns whether there is one.
///
/// # Safety
/// The rules of all functions; `pairing` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_pairings_get(
    pairings: *const SessioncapPairings,
    place: usize,
    pairing: *mut SessioncapPairing,
) -> bool {
    // SAFETY: by the contract.
    let pairings = unsafe { handle(pairings) };
    let Ok(Some(found)) = guarded(|| pairings?.0.with(|all| all.iter().nth(place).map(PairingInfo::from)))
    else {
        return false;
    };
    if pairing.is_null() {
        return false;
    }
    let plain = SessioncapPairing {
        ticket: text(&found.ticket),
        agent: text(&found.agent),
        host: text(&found.host),
        session: found.session.as_deref().map_or(ptr::null_mut(), text),
        ops: text(&found.ops.join(" ")),
        end: found.end.map_or(-1, signed),
    };
    // SAFETY: it is not null, and by the contract it can be written to.
    unsafe { pairing.write(plain) };
    true
}

/// Frees the texts of a pairing, and sets them to null. Null is nothing.
///
/// # Safety
/// `pairing` is null, or was written by `sessioncap_pairings_get`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_pairing_free(pairing: *mut SessioncapPairing) {
    if pairing.is_null() {
        return;
    }
    let none = ptr::null_mut();
    let empty =
        SessioncapPairing { ticket: none, agent: none, host: none, session: none, ops: none, end: -1 };
    // SAFETY: it is not null, and by the contract it is of this library.
    let taken = unsafe { pairing.replace(empty) };
    for text in [taken.ticket, taken.agent, taken.host, taken.session, taken.ops] {
        // SAFETY: by the contract it was made here; it was taken, so that nobody drops it again.
        unsafe { drop_text(text) };
    }
}

/// Forgets the pairing of a ticket. Returns whether there was one. The app deletes the keychain's entry.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_pairings_forget(
    pairings: *const SessioncapPairings,
    ticket: *const c_char,
) -> bool {
    // SAFETY: by the contract.
    let (pairings, ticket) = (unsafe { handle(pairings) }, unsafe { read(ticket) });
    guarded(|| pairings?.0.forget_ticket(ticket?)).unwrap_or(false)
}

/// Wipes and frees a list. Null is nothing.
///
/// # Safety
/// The rules of all functions; no other thread uses the list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_pairings_free(pairings: *mut SessioncapPairings) {
    // SAFETY: by the contract.
    unsafe { drop_handle(pairings) };
}

/// Reads a link as it was scanned, opened or pasted. Nothing is sent. Returns null and a failure if it is none. Free it
/// with `sessioncap_preview_free`.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_preview_new(
    link: *const c_char,
    pairings: *const SessioncapPairings,
    failure: *mut SessioncapFailure,
) -> *mut SessioncapPreview {
    // SAFETY: by the contract.
    let (link, pairings) = (unsafe { read(link) }, unsafe { handle(pairings) });
    let outcome = guarded(|| Preview::read(link?, &pairings?.0));
    // SAFETY: by the contract.
    let preview = unsafe { tell(outcome, failure) };
    preview.map_or(ptr::null_mut(), |preview| Box::into_raw(Box::new(SessioncapPreview(preview))))
}

/// Returns the host that will be connected to; null after it was accepted. Free it with `sessioncap_text_free`.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_preview_host(preview: *const SessioncapPreview) -> *mut c_char {
    // SAFETY: by the contract.
    let preview = unsafe { handle(preview) };
    guarded(|| preview?.0.host()).map_or(ptr::null_mut(), |host| text(&host))
}

/// Returns the agent's key as people compare it; null after it was accepted. Free it with `sessioncap_text_free`.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_preview_fingerprint(preview: *const SessioncapPreview) -> *mut c_char {
    // SAFETY: by the contract.
    let preview = unsafe { handle(preview) };
    guarded(|| preview?.0.fingerprint()).map_or(ptr::null_mut(), |digits| text(&digits))
}

/// Returns `link`, `agent`, `host_of_another` or `nothing`; null after it was accepted. Free it with
/// `sessioncap_text_free`.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_preview_known(preview: *const SessioncapPreview) -> *mut c_char {
    // SAFETY: by the contract.
    let preview = unsafe { handle(preview) };
    guarded(|| preview?.0.known()).map_or(ptr::null_mut(), |known| text(&known))
}

/// Makes the connection of a link that the person has accepted. Returns null and a failure if it was accepted before, or
/// the label is none. Free the preview as well, and the connection with `sessioncap_connection_free`.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_preview_accept(
    preview: *const SessioncapPreview,
    label: *const c_char,
    failure: *mut SessioncapFailure,
) -> *mut SessioncapConnection {
    // SAFETY: by the contract.
    let (preview, label) = (unsafe { handle(preview) }, unsafe { read(label) });
    let outcome = guarded(|| preview?.0.accept(label?.to_owned()));
    // SAFETY: by the contract.
    let connection = unsafe { tell(outcome, failure) };
    connection.map_or(ptr::null_mut(), |made| Box::into_raw(Box::new(SessioncapConnection(made))))
}

/// Wipes and frees a preview. Null is nothing.
///
/// # Safety
/// The rules of all functions; no other thread uses the preview.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_preview_free(preview: *mut SessioncapPreview) {
    // SAFETY: by the contract.
    unsafe { drop_handle(preview) };
}

/// Makes the connection of a stored pairing. Returns null and a failure if the bytes are none. Free it with
/// `sessioncap_connection_free`.
///
/// # Safety
/// The rules of all functions; `data` are `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_reopen(
    data: *const u8,
    len: usize,
    failure: *mut SessioncapFailure,
) -> *mut SessioncapConnection {
    // SAFETY: by the contract.
    let stored = unsafe { slice(data, len) };
    let outcome = guarded(|| reopen(stored.to_vec()));
    // SAFETY: by the contract.
    let connection = unsafe { tell(outcome, failure) };
    connection.map_or(ptr::null_mut(), |made| Box::into_raw(Box::new(SessioncapConnection(made))))
}

/// Tells a connection something.
///
/// # Safety
/// As [`handle`].
unsafe fn input(connection: *const SessioncapConnection, input: Result<Input<'_>, Failed>, now: u64) -> bool {
    // SAFETY: by the contract.
    let connection = unsafe { handle(connection) };
    guarded(|| connection?.0.input(input?, now)).is_ok()
}

/// Begins; or, where the connection waits or has stopped, tries again now. Returns false if the connection was wiped.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_start(
    connection: *const SessioncapConnection,
    now_millis: u64,
) -> bool {
    // SAFETY: by the contract.
    unsafe { input(connection, Ok(Input::Start), now_millis) }
}

/// The WebSocket of an attempt is open. Returns false if the connection was wiped.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_opened(
    connection: *const SessioncapConnection,
    attempt: u32,
    now_millis: u64,
) -> bool {
    // SAFETY: by the contract.
    unsafe { input(connection, Ok(Input::Opened { attempt }), now_millis) }
}

/// The WebSocket could not be opened, was closed or broke; `code` is that of the agent's close frame, or -1. Returns false if the connection was wiped.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_closed(
    connection: *const SessioncapConnection,
    attempt: u32,
    code: i32,
    now_millis: u64,
) -> bool {
    // SAFETY: by the contract.
    unsafe { input(connection, Ok(Input::Closed { attempt, code: u16::try_from(code).ok() }), now_millis) }
}

/// The phone's system does not let the app reach the local network. Returns false if the connection was wiped.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_permission_denied(
    connection: *const SessioncapConnection,
    attempt: u32,
    now_millis: u64,
) -> bool {
    // SAFETY: by the contract.
    unsafe { input(connection, Ok(Input::PermissionDenied { attempt }), now_millis) }
}

/// The bytes of this request are in the keychain. Returns false if the connection was wiped.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_stored(
    connection: *const SessioncapConnection,
    number: u32,
    now_millis: u64,
) -> bool {
    // SAFETY: by the contract.
    unsafe { input(connection, Ok(Input::Stored { number }), now_millis) }
}

/// The bytes of this request could not be stored now. Returns false if the connection was wiped.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_not_stored(
    connection: *const SessioncapConnection,
    number: u32,
    now_millis: u64,
) -> bool {
    // SAFETY: by the contract.
    unsafe { input(connection, Ok(Input::NotStored { number }), now_millis) }
}

/// Time has passed. Returns false if the connection was wiped.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_time_passed(
    connection: *const SessioncapConnection,
    now_millis: u64,
) -> bool {
    // SAFETY: by the contract.
    unsafe { input(connection, Ok(Input::Time), now_millis) }
}

/// The app goes to the background. Returns false if the connection was wiped.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_suspended(
    connection: *const SessioncapConnection,
    now_millis: u64,
) -> bool {
    // SAFETY: by the contract.
    unsafe { input(connection, Ok(Input::Suspended), now_millis) }
}

/// The app is in the foreground again. Returns false if the connection was wiped.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_resumed(
    connection: *const SessioncapConnection,
    now_millis: u64,
) -> bool {
    // SAFETY: by the contract.
    unsafe { input(connection, Ok(Input::Resumed), now_millis) }
}

/// The phone has another network. Returns false if the connection was wiped.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_network_changed(
    connection: *const SessioncapConnection,
    now_millis: u64,
) -> bool {
    // SAFETY: by the contract.
    unsafe { input(connection, Ok(Input::NetworkChanged), now_millis) }
}

/// Interrupts what runs. Returns false if the connection was wiped.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_interrupt(
    connection: *const SessioncapConnection,
    now_millis: u64,
) -> bool {
    // SAFETY: by the contract.
    unsafe { input(connection, Ok(Input::Interrupt), now_millis) }
}

/// The size of the phone's screen, in characters. Returns false if the connection was wiped.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_resize(
    connection: *const SessioncapConnection,
    columns: u16,
    rows: u16,
    now_millis: u64,
) -> bool {
    // SAFETY: by the contract.
    unsafe { input(connection, Ok(Input::Resize { columns, rows }), now_millis) }
}

/// Leaves. The session goes on. Returns false if the connection was wiped.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_leave(
    connection: *const SessioncapConnection,
    now_millis: u64,
) -> bool {
    // SAFETY: by the contract.
    unsafe { input(connection, Ok(Input::Leave), now_millis) }
}

/// A binary message came. Returns false if the connection was wiped.
///
/// # Safety
/// The rules of all functions; `data` are `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_message(
    connection: *const SessioncapConnection,
    attempt: u32,
    data: *const u8,
    len: usize,
    now_millis: u64,
) -> bool {
    // SAFETY: by the contract.
    let bytes = unsafe { slice(data, len) };
    // SAFETY: by the contract.
    unsafe { input(connection, Ok(Input::Message { attempt, bytes }), now_millis) }
}

/// Types bytes, as a terminal encodes keys. Returns false if the connection was wiped.
///
/// # Safety
/// The rules of all functions; `data` are `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_type_bytes(
    connection: *const SessioncapConnection,
    id: u64,
    data: *const u8,
    len: usize,
    now_millis: u64,
) -> bool {
    // SAFETY: by the contract.
    let bytes = unsafe { slice(data, len) };
    // SAFETY: by the contract.
    unsafe { input(connection, Ok(Input::Type { id, bytes }), now_millis) }
}

/// Types one line, and Enter. Control characters are left out. Returns false if the connection was wiped or it is no text.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_type_line(
    connection: *const SessioncapConnection,
    id: u64,
    line: *const c_char,
    now_millis: u64,
) -> bool {
    // SAFETY: by the contract.
    let line = unsafe { read(line) };
    // SAFETY: by the contract.
    unsafe { input(connection, line.map(|text| Input::Line { id, text }), now_millis) }
}

/// Types a pasted text. Control characters are left out but tabs and ends of lines. Returns false if the connection was
/// wiped or it is no text.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_paste(
    connection: *const SessioncapConnection,
    id: u64,
    pasted: *const c_char,
    bracketed: bool,
    now_millis: u64,
) -> bool {
    // SAFETY: by the contract.
    let pasted = unsafe { read(pasted) };
    // SAFETY: by the contract.
    unsafe { input(connection, pasted.map(|text| Input::Paste { id, text, bracketed }), now_millis) }
}

/// Types one key with the modifiers that are held, as in `ctrl+c`, `shift+tab` or `f5`. `application` says that the program
/// has asked for application cursor keys. Returns false if the connection was wiped or no terminal sends such a key: then no
/// event comes.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_type_key(
    connection: *const SessioncapConnection,
    id: u64,
    key: *const c_char,
    application: bool,
    now_millis: u64,
) -> bool {
    // SAFETY: by the contract.
    let (connection, key) = (unsafe { handle(connection) }, unsafe { read(key) });
    guarded(|| connection?.0.key(id, key?, application, now_millis)).is_ok()
}

/// Sends a request, a JSON object. Returns false if the connection was wiped or it is no text.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_request(
    connection: *const SessioncapConnection,
    id: u64,
    json: *const c_char,
    now_millis: u64,
) -> bool {
    // SAFETY: by the contract.
    let json = unsafe { read(json) };
    // SAFETY: by the contract.
    unsafe { input(connection, json.map(|json| Input::Request { id, json }), now_millis) }
}

/// Writes up to where the output was shown, 24 bytes that are no secret. Returns false, and no bytes, if there was no output
/// or the connection was wiped. Free them with `sessioncap_bytes_free`.
///
/// # Safety
/// The rules of all functions; `point` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_resume_point(
    connection: *const SessioncapConnection,
    point: *mut SessioncapBytes,
) -> bool {
    if point.is_null() {
        return false;
    }
    // SAFETY: by the contract.
    let connection = unsafe { handle(connection) };
    let shown = guarded(|| connection?.0.resume_point()).ok().flatten();
    let is_some = shown.is_some();
    // SAFETY: it is not null, and by the contract it can be written to.
    unsafe { point.write(shown.map_or(NO_BYTES, SessioncapBytes::new)) };
    is_some
}

/// Goes on after what an earlier run of the app has shown. Call it before `sessioncap_connection_start`. Returns false and a
/// failure if it is no resume point, the connection has begun, or it was wiped.
///
/// # Safety
/// The rules of all functions; `data` are `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_resume_after(
    connection: *const SessioncapConnection,
    data: *const u8,
    len: usize,
    failure: *mut SessioncapFailure,
) -> bool {
    // SAFETY: by the contract.
    let (connection, point) = (unsafe { handle(connection) }, unsafe { slice(data, len) });
    let outcome = guarded(|| connection?.0.resume(point));
    // SAFETY: by the contract.
    unsafe { tell(outcome, failure) }.is_some()
}

/// Adds an address at which the agent may be as well; a `Store` event follows. Returns whether it is among the addresses now:
/// false without a failure if no more fit, with one if it is no address or the connection was wiped.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_add_address(
    connection: *const SessioncapConnection,
    url: *const c_char,
    failure: *mut SessioncapFailure,
) -> bool {
    // SAFETY: by the contract.
    let (connection, url) = (unsafe { handle(connection) }, unsafe { read(url) });
    let outcome = guarded(|| connection?.0.add(url?));
    // SAFETY: by the contract.
    unsafe { tell(outcome, failure) }.unwrap_or(false)
}

/// Writes the next event. Returns false, and the event `None`, if there is none or the connection was wiped.
///
/// # Safety
/// The rules of all functions; `event` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_next(
    connection: *const SessioncapConnection,
    event: *mut SessioncapEvent,
) -> bool {
    if event.is_null() {
        return false;
    }
    // SAFETY: by the contract.
    let connection = unsafe { handle(connection) };
    let next = guarded(|| connection?.0.next()).ok().flatten();
    let is_some = next.is_some();
    // SAFETY: it is not null, and by the contract it can be written to.
    unsafe { event.write(next.map_or(SessioncapEvent::NONE, SessioncapEvent::new)) };
    is_some
}

/// Returns until when nothing happens by itself, milliseconds; -1 if nothing will, or the connection was wiped.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_wait_until(connection: *const SessioncapConnection) -> i64 {
    // SAFETY: by the contract.
    let connection = unsafe { handle(connection) };
    guarded(|| connection?.0.wait_until()).ok().flatten().map_or(-1, signed)
}

/// Wipes a connection. Every later call fails as wiped. Wiping twice is nothing.
///
/// # Safety
/// The rules of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_wipe(connection: *const SessioncapConnection) {
    // SAFETY: by the contract.
    let connection = unsafe { handle(connection) };
    if let Ok(connection) = connection {
        let _ = guarded(|| {
            connection.0.wipe();
            Ok(())
        });
    }
}

/// Wipes and frees a connection. Null is nothing.
///
/// # Safety
/// The rules of all functions; no other thread uses the connection.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sessioncap_connection_free(connection: *mut SessioncapConnection) {
    // SAFETY: by the contract.
    unsafe { drop_handle(connection) };
}
