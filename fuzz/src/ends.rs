//! Both ends of a bridge, which a test fills and empties.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use sessioncap::agent::{MessageSocket, SessionInput, SessionOutput};

/// The queues of the socket and of the session.
#[derive(Default)]
pub struct State {
    pub inbox: VecDeque<Vec<u8>>,
    pub sent: VecDeque<Vec<u8>>,
    pub lost: bool,
    pub output: VecDeque<Vec<u8>>,
    pub ended: bool,
    pub written: Vec<u8>,
    /// How many bytes the session still takes.
    pub room: usize,
}

#[derive(Clone, Default)]
pub struct Ends(pub Arc<Mutex<State>>);

impl MessageSocket for Ends {
    type Error = ();

    async fn send(&mut self, message: Vec<u8>) -> Result<(), ()> {
        self.0.lock().unwrap().sent.push_back(message);
        Ok(())
    }

    async fn receive(&mut self) -> Result<Vec<u8>, ()> {
        poll_fn(|_| {
            let mut state = self.0.lock().unwrap();
            match state.inbox.pop_front() {
                Some(message) => Poll::Ready(Ok(message)),
                None if state.lost => Poll::Ready(Err(())),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl SessionOutput for Ends {
    async fn next(&mut self) -> Option<Vec<u8>> {
        poll_fn(|_| {
            let mut state = self.0.lock().unwrap();
            match state.output.pop_front() {
                None if state.ended => Poll::Ready(None),
                None => Poll::Pending,
                some => Poll::Ready(some),
            }
        })
        .await
    }
}

impl SessionInput for Ends {
    type Error = ();

    async fn write(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let mut left = bytes;
        poll_fn(|_| {
            let mut state = self.0.lock().unwrap();
            let (now, later) = left.split_at(left.len().min(state.room));
            state.written.extend_from_slice(now);
            state.room -= now.len();
            left = later;
            if left.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    }
}
