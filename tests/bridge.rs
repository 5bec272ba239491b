//! The bridge of a guarded channel: what passes, what waits, and what goes with the connection.
#![cfg(all(feature = "holder", feature = "issuer", feature = "agent"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;
#[path = "../fuzz/src/ends.rs"]
mod ends;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use common::*;
use ends::Ends;
use rand::rngs::OsRng;
use sessioncap::agent::*;
use sessioncap::noise::{Channel, Responder};
use sessioncap::phone::*;
use sessioncap::*;

struct Scene {
    world: World,
    pairing: desktop::Pairing,
    ends: Ends,
    phone: Channel,
    clock: Arc<Mutex<Now>>,
    bridging: Pin<Box<dyn Future<Output = BridgeEnd> + Send>>,
}

impl Scene {
    fn new(first: &Frame, terms: &desktop::PairingTerms) -> Self {
        let world = World::new();
        let pairing = world.desktop(1).share(&world, terms);
        let asking = world.ask(&pairing.link, &phone(2));
        let received = Responder::read(&world.agent, &asking.message, &mut OsRng).unwrap();
        let Admission::Admitted { message, pending } = world.gate.admit(received, world.now, &mut OsRng)
        else {
            panic!("refused")
        };
        let Redeemed::Attached { attached, .. } = asking.next.finish(&message).unwrap() else { panic!() };
        let mut phone = attached.channel;
        let channel = pending.activate(&phone.seal(&first.to_bytes()).unwrap(), world.now).unwrap();
        assert_eq!(channel.session(), &session(SESSION));
        let (ends, clock) = (Ends::default(), Arc::new(Mutex::new(world.now)));
        ends.0.lock().unwrap().room = usize::MAX / 2;
        let (mut socket, reads, writes) = (ends.clone(), ends.clone(), ends.clone());
        let time = Arc::clone(&clock);
        let bridging = Box::pin(async move {
            channel.bridge(&mut socket, reads, writes, move || *time.lock().unwrap()).await
        });
        Self { world, pairing, ends, phone, clock, bridging }
    }

    fn started() -> Self {
        Self::new(&Frame::Data(b"first\n".to_vec()), &terms())
    }

    fn poll(&mut self) -> Option<BridgeEnd> {
        *self.clock.lock().unwrap() = self.world.now;
        match self.bridging.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(end) => Some(end),
            Poll::Pending => None,
        }
    }

    fn goes_on(&mut self) {
        assert_eq!(self.poll(), None);
    }

    fn send(&mut self, frame: &Frame) {
        let message = self.phone.seal(&frame.to_bytes()).unwrap();
        self.ends.0.lock().unwrap().inbox.push_back(message);
    }

    fn type_in(&mut self, bytes: &[u8]) {
        self.send(&Frame::Data(bytes.to_vec()));
    }

    /// What has come to the phone.
    fn came(&mut self) -> Vec<Frame> {
        let sent: Vec<Vec<u8>> = self.ends.0.lock().unwrap().sent.drain(..).collect();
        sent.iter().map(|message| Frame::from_bytes(&self.phone.open(message).unwrap()).unwrap()).collect()
    }

    fn written(&self) -> String {
        String::from_utf8(self.ends.0.lock().unwrap().written.clone()).unwrap()
    }

    fn print(&self, bytes: &[u8]) {
        self.ends.0.lock().unwrap().output.push_back(bytes.to_vec());
    }

    fn end_code(&mut self, end: BridgeEnd) -> EndCode {
        let opened = self.phone.open(&end.message.unwrap()).unwrap();
        let Frame::End(code) = Frame::<Vec<u8>>::from_bytes(&opened).unwrap() else { panic!() };
        code
    }
}

#[test]
fn a_bridge_carries_input_and_output_and_answers_pings() {
    let mut scene = Scene::started();
    scene.goes_on();
    assert_eq!(scene.written(), "first\n");
    scene.print(b"shown");
    scene.send(&Frame::Ping { answer: false, number: 7 });
    scene.type_in(b"second\n");
    scene.goes_on();
    assert_eq!(scene.written(), "first\nsecond\n");
    let came = scene.came();
    assert_eq!(came.len(), 2, "{came:?}");
    assert!(came.contains(&Frame::Ping { answer: true, number: 7 }));
    assert!(came.contains(&Frame::Data(b"shown".to_vec())));
}

#[test]
fn output_that_is_longer_than_a_frame_comes_in_several() {
    let mut scene = Scene::started();
    let output = vec![b'x'; 2 * Frame::<Vec<u8>>::MAX_DATA_LEN + 1];
    scene.print(&output);
    scene.goes_on();
    let came = scene.came();
    assert_eq!(came.len(), 3);
    let joined: Vec<u8> = came
        .into_iter()
        .flat_map(|frame| match frame {
            Frame::Data(bytes) => bytes,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(joined, output);
}

#[test]
fn a_phone_that_may_not_type_or_follow_gets_a_notice_and_no_output() {
    let only = |op| terms().with_ops(OpSet::EMPTY.with(op)).unwrap();
    let mut scene = Scene::new(&Frame::Data(b"forbidden".to_vec()), &only(Op::StreamOutput));
    scene.goes_on();
    let [Frame::Notice(notice)] = scene.came()[..] else { panic!() };
    assert_eq!((notice.code, notice.number), (Notice::NOT_GRANTED, 0));
    assert_eq!(scene.written(), "");

    let mut scene = Scene::new(&Frame::Data(b"allowed".to_vec()), &only(Op::SendInput));
    scene.print(b"not for this phone");
    scene.goes_on();
    assert_eq!(scene.written(), "allowed");
    assert_eq!(scene.came(), []);
}

#[test]
fn nothing_that_waits_for_the_session_reaches_it_after_a_revocation() {
    let mut scene = Scene::started();
    scene.goes_on();
    scene.ends.0.lock().unwrap().room = 3;
    scene.type_in(b"rm -rf\n");
    scene.type_in(b"more\n");
    scene.goes_on();
    assert_eq!(scene.written(), "first\nrm ");
    scene.world.gate.revoke_credential(&scene.pairing.credential, scene.world.now).unwrap();
    scene.ends.0.lock().unwrap().room = 100;
    let end = scene.poll().unwrap();
    assert_eq!(end.denial, Some(Denial::CredentialRevoked));
    assert_eq!(scene.end_code(end).status(), Some(Status::Revoked));
    assert_eq!(scene.written(), "first\nrm ");
}

#[test]
fn frames_and_half_written_input_wait_while_nobody_settles() {
    let mut scene = Scene::started();
    scene.goes_on();
    scene.ends.0.lock().unwrap().room = 3;
    scene.type_in(b"waits");
    scene.goes_on();
    scene.world.pass_unsettled(6);
    scene.ends.0.lock().unwrap().room = 100;
    scene.print(b"shown");
    scene.type_in(b" too");
    scene.goes_on();
    assert_eq!((scene.written().as_str(), scene.came()), ("first\nwai", vec![]));
    scene.world.pass(0);
    scene.goes_on();
    assert_eq!(scene.written(), "first\nwaits too");
    assert_eq!(scene.came(), [Frame::Data(b"shown".to_vec())]);
}

#[test]
fn a_session_that_takes_nothing_holds_its_phone_back() {
    let mut scene = Scene::started();
    scene.goes_on();
    scene.ends.0.lock().unwrap().room = 0;
    let piece = vec![b'x'; GuardedChannel::MAX_BRIDGED_INPUT / 2];
    (0..6).for_each(|_| scene.type_in(&piece));
    scene.goes_on();
    let left = scene.ends.0.lock().unwrap().inbox.len();
    assert!((3..=4).contains(&left), "{left} messages are left in the socket");
    // Output goes on meanwhile.
    scene.print(b"shown");
    scene.goes_on();
    assert_eq!(scene.came(), [Frame::Data(b"shown".to_vec())]);
    scene.ends.0.lock().unwrap().room = usize::MAX / 2;
    scene.goes_on();
    assert_eq!(scene.written().len(), "first\n".len() + 6 * piece.len());
}

#[test]
fn a_session_that_ends_and_a_phone_that_leaves_end_the_bridge() {
    let mut scene = Scene::started();
    scene.ends.0.lock().unwrap().ended = true;
    let end = scene.poll().unwrap();
    assert_eq!(end.denial, None);
    assert_eq!(scene.end_code(end), EndCode::CLOSED);

    let mut scene = Scene::started();
    scene.send(&Frame::End(EndCode::LEFT));
    let end = scene.poll().unwrap();
    assert_eq!((end.message, end.denial), (None, None));

    let mut scene = Scene::started();
    scene.ends.0.lock().unwrap().lost = true;
    let end = scene.poll().unwrap();
    assert_eq!((end.message, end.denial), (None, None));
    drop(scene.bridging);
    assert_eq!(scene.world.only_listing().connections, 0, "its place is free");
}

#[test]
fn a_frame_that_does_not_decrypt_ends_the_bridge() {
    let mut scene = Scene::started();
    scene.ends.0.lock().unwrap().inbox.push_back(vec![7; 40]);
    let end = scene.poll().unwrap();
    assert_eq!(end.denial, Some(Denial::FrameUnreadable));
    assert_eq!(scene.end_code(end), EndCode::PROTOCOL);
}

#[test]
fn a_channel_of_another_noises_keys_counts_its_frames_and_ends_at_a_wrong_length() {
    // A cipher that shows the number; how it encrypts is the caller's matter.
    let encrypt = |key: &u8, number: u64, plaintext: &[u8], frame: &mut [u8]| {
        let (body, tag) = frame.split_at_mut_checked(plaintext.len())?;
        body.copy_from_slice(plaintext);
        tag.fill(*key);
        tag.first_mut().map(|first| *first = u8::try_from(number).unwrap_or(0))?;
        Some(if plaintext == b"short" { 3 } else { plaintext.len() + 16 })
    };
    let decrypt = |_: &u8, number: u64, frame: &[u8], plaintext: &mut [u8]| {
        let (body, tag) = frame.split_at_checked(frame.len().checked_sub(16)?)?;
        plaintext.get_mut(..body.len())?.copy_from_slice(body);
        (u64::from(*tag.first()?) == number).then_some(if body == b"long" { 5 } else { body.len() })
    };
    let channel = || Channel::from_keys(9, encrypt, decrypt);
    let (mut one, mut other) = (channel(), channel());
    for number in 0..3_u8 {
        let frame = one.seal(b"data").unwrap();
        assert_eq!(frame.get(4), Some(&number));
        assert_eq!(other.open(&frame).unwrap(), b"data");
    }
    let repeated = {
        let mut fresh = channel();
        fresh.seal(b"data").unwrap()
    };
    assert_eq!(other.open(&repeated), Err(Error::Noise), "an earlier number");
    assert_eq!(other.open(&one.seal(b"data").unwrap()), Err(Error::Noise), "the direction has ended");

    assert_eq!(one.seal(b"short"), Err(Error::Noise));
    assert_eq!(one.seal(b"data"), Err(Error::Noise), "the direction has ended");
    let (mut one, mut other) = (channel(), channel());
    assert_eq!(other.open(&one.seal(b"long").unwrap()), Err(Error::Noise));
}

#[test]
fn input_that_waits_when_typing_is_taken_away_is_never_written() {
    let mut scene = Scene::started();
    scene.goes_on();
    scene.ends.0.lock().unwrap().room = 3;
    scene.type_in(b"waits");
    scene.goes_on();
    let desktop = scene.world.desktop(1);
    let follow = OpSet::EMPTY.with(Op::StreamOutput);
    desktop.renew(&scene.world, &scene.pairing, follow, 3_600).unwrap();
    scene.ends.0.lock().unwrap().room = 100;
    let end = scene.poll().unwrap();
    assert_eq!(end.denial, Some(Denial::OperationNotGranted { op: Op::SendInput }));
    assert_eq!(scene.end_code(end), EndCode::CLOSED, "the phone attaches again, with what is left");
    assert_eq!(scene.written(), "first\nwai");
}
