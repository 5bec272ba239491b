//! Threads that call and wipe one connection at once, through the C interface. Under valgrind:
//! `cargo test -p sessioncap-ffi --test threads --no-run`, then `valgrind --error-exitcode=1` with the program.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::ffi::{CStr, CString};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use sessioncap_ffi::*;

/// A handle that threads share, as a program in C does.
#[derive(Clone, Copy)]
struct Shared(*mut SessioncapConnection);

// SAFETY: the interface says that any thread may call, until the handle is freed.
unsafe impl Send for Shared {}

impl Shared {
    fn get(self) -> *mut SessioncapConnection {
        self.0
    }
}

fn link() -> CString {
    let agent = sessioncap::AgentSecretKey::from_bytes([1; 32]).public();
    let url = sessioncap::AgentUrl::parse("wss://agent.example").unwrap();
    let ticket = sessioncap::TicketSecret::from_bytes([3; 16]);
    let link = sessioncap::Link::new(url, agent, ticket).to_https(&sessioncap::LinkHost::Agent).unwrap();
    CString::new(link).unwrap()
}

fn connection() -> Shared {
    let pairings = sessioncap_pairings_new();
    // SAFETY: the texts end with NUL, the handles are of this library, and no failure is asked for.
    let preview = unsafe { sessioncap_preview_new(link().as_ptr(), pairings, ptr::null_mut()) };
    // SAFETY: as before.
    let connection = unsafe { sessioncap_preview_accept(preview, c"phone".as_ptr(), ptr::null_mut()) };
    // SAFETY: nobody uses it any more.
    unsafe { sessioncap_preview_free(preview) };
    // SAFETY: nobody uses it any more.
    unsafe { sessioncap_pairings_free(pairings) };
    assert!(!connection.is_null());
    Shared(connection)
}

/// Everything that an app may call. Returns whether the connection was there for all of it.
fn calls(connection: *const SessioncapConnection, round: u64) -> bool {
    let now = 1_000 + round;
    // SAFETY: the handle is freed after every thread has ended; the texts end with NUL.
    let started = unsafe { sessioncap_connection_start(connection, now) };
    // SAFETY: as before.
    let typed = unsafe { sessioncap_connection_type_key(connection, round, c"ctrl+c".as_ptr(), false, now) };
    // SAFETY: as before, and the data are three bytes.
    let told = unsafe { sessioncap_connection_message(connection, 1, b"abc".as_ptr(), 3, now) };
    // SAFETY: as before.
    let opened = unsafe { sessioncap_connection_opened(connection, 1, now) };
    // SAFETY: as before.
    unsafe { sessioncap_connection_add_address(connection, c"wss://b.example".as_ptr(), ptr::null_mut()) };
    let mut event = empty();
    let mut stored = true;
    // SAFETY: as before, and the event can be written to.
    while unsafe { sessioncap_connection_next(connection, &raw mut event) } {
        if event.kind == SessioncapKind::Store {
            let number = u32::try_from(event.number).unwrap();
            // SAFETY: as before.
            stored &= unsafe { sessioncap_connection_stored(connection, number, now) };
        }
        if !event.text.is_null() {
            // SAFETY: the text is of this library and was not freed.
            assert!(!unsafe { CStr::from_ptr(event.text) }.to_bytes().is_empty());
        }
        // SAFETY: it was written by this library.
        unsafe { sessioncap_event_free(&raw mut event) };
    }
    // SAFETY: as before.
    unsafe { sessioncap_connection_wait_until(connection) };
    started && typed && told && opened && stored
}

fn empty() -> SessioncapEvent {
    let none = ptr::null_mut();
    SessioncapEvent {
        kind: SessioncapKind::None,
        attempt: 0,
        number: 0,
        value: 0,
        columns: 0,
        rows: 0,
        text: none,
        detail: none,
        names: none,
        bytes: SessioncapBytes { data: ptr::null_mut(), len: 0 },
        failure: SessioncapFailure { code: none, sentence: none, advice: none },
    }
}

#[test]
fn threads_may_call_and_wipe_at_once_and_after_that_every_call_fails() {
    const THREADS: usize = 4;
    for round in 0..40 {
        let connection = connection();
        let (barrier, whole) = (Arc::new(Barrier::new(THREADS + 2)), Arc::new(AtomicUsize::new(0)));
        let callers: Vec<_> = (0..THREADS)
            .map(|_| {
                let (barrier, whole) = (Arc::clone(&barrier), Arc::clone(&whole));
                thread::spawn(move || {
                    barrier.wait();
                    // Until the wipe was seen: some calls come before it, some after, some between.
                    while calls(connection.get(), round) {
                        whole.fetch_add(1, Ordering::Relaxed);
                    }
                    assert!(!calls(connection.get(), round), "wiped stays wiped");
                })
            })
            .collect();
        let wipers: Vec<_> = (0..2)
            .map(|_| {
                let (barrier, whole) = (Arc::clone(&barrier), Arc::clone(&whole));
                thread::spawn(move || {
                    barrier.wait();
                    // In every other round the calls are under way for certain.
                    while round % 2 == 0 && whole.load(Ordering::Relaxed) < THREADS {
                        thread::yield_now();
                    }
                    // SAFETY: the handle is freed after every thread has ended.
                    unsafe { sessioncap_connection_wipe(connection.get()) };
                })
            })
            .collect();
        callers.into_iter().chain(wipers).for_each(|thread| thread.join().unwrap());
        // SAFETY: every thread has ended.
        unsafe { sessioncap_connection_free(connection.get()) };
    }
}

/// The objects of other languages are counted: the last one to let go frees it, whoever is still in a call.
#[test]
fn an_object_that_is_let_go_during_a_call_lives_until_the_call_returns() {
    for round in 0..40 {
        let pairings = new_pairings();
        let preview = preview(link().to_str().unwrap().to_owned(), pairings).unwrap();
        let connection = preview.accept("phone".to_owned()).unwrap();
        let barrier = Arc::new(Barrier::new(4));
        let threads: Vec<_> = (0..4)
            .map(|place| {
                let (connection, barrier) = (Arc::clone(&connection), Arc::clone(&barrier));
                thread::spawn(move || {
                    barrier.wait();
                    if place == 0 {
                        connection.wipe();
                    }
                    let _ = connection.start(round);
                    let _ = connection.events();
                })
            })
            .collect();
        drop(connection);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
