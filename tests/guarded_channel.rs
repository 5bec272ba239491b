//! The guarded channel: which frames pass under which operation, and which pass after a cut.
#![cfg(all(feature = "holder", feature = "issuer", feature = "agent"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use common::*;
use proptest::prelude::*;
use rand::rngs::OsRng;
use sessioncap::agent::*;
use sessioncap::limits::{MAX_DATA_LEN, MAX_MESSAGE_LEN};
use sessioncap::noise::{Channel, Responder};
use sessioncap::phone::*;
use sessioncap::*;

struct Scene {
    world: World,
    pairing: desktop::Pairing,
    channel: GuardedChannel,
    phone: Channel,
}

/// A phone whose first frame is `first`, before and after its activation.
fn admitted(world: &World, link: &Link) -> (PendingChannel, Channel) {
    let asking = world.ask(link, &phone(2));
    let received = Responder::read(&world.agent, &asking.message, &mut OsRng).unwrap();
    let Admission::Admitted { message, pending } = world.gate.admit(received, world.now, &mut OsRng) else {
        panic!("refused")
    };
    let Redeemed::Attached { attached, .. } = asking.next.finish(&message).unwrap() else { panic!() };
    (pending, attached.channel)
}

fn scene_with(first: &Frame) -> Scene {
    scene_in(World::new(), first)
}

fn scene_in(world: World, first: &Frame) -> Scene {
    let pairing = world.desktop(1).share(&world, &terms());
    let (pending, mut phone) = admitted(&world, &pairing.link);
    let channel = pending.activate(&phone.seal(&first.to_bytes()).unwrap(), world.now).unwrap();
    Scene { world, pairing, channel, phone }
}

fn scene() -> Scene {
    scene_with(&data(b"first"))
}

fn data(bytes: &[u8]) -> Frame {
    Frame::Data(bytes.to_vec())
}

impl Scene {
    fn sealed(&mut self, frame: &Frame) -> Vec<u8> {
        self.phone.seal(&frame.to_bytes()).unwrap()
    }

    /// What the phone reads of a frame.
    fn read(&mut self, frame: &[u8]) -> Frame {
        Frame::from_bytes(&self.phone.open(frame).unwrap()).unwrap()
    }

    fn receive(&mut self, op: Op) -> Result<Option<Vec<u8>>, PermitError> {
        self.channel.receiver.try_receive(op, self.world.now, <[u8]>::to_vec)
    }

    /// Takes the first frame.
    fn started(mut self) -> Self {
        assert_eq!(self.receive(Op::SendInput), Ok(Some(b"first".to_vec())));
        self
    }

    fn revoke(&self) {
        self.world.gate.revoke_credential(&self.pairing.credential, self.world.now).unwrap();
    }
}

#[test]
fn the_first_frame_waits_to_be_received_under_its_operation() {
    let mut scene = scene();
    assert_eq!(scene.channel.receiver.first(), Some(Frame::Data(())));
    let refused = PermitError::Refused(Denial::OperationNotGranted { op: Op::Resize });
    assert_eq!(scene.receive(Op::Resize), Err(refused));
    assert_eq!(scene.receive(Op::SendInput), Ok(None), "a refused frame is gone");
    assert_eq!(scene.channel.receiver.first(), None);
    let mut scene = self::scene().started();
    assert_eq!(scene.receive(Op::SendInput), Ok(None));
}

#[test]
fn a_first_control_frame_is_reported_and_a_malformed_one_is_refused_with_an_end() {
    let ping = Frame::Ping { answer: false, number: 7 };
    let mut scene = scene_with(&ping);
    assert_eq!(scene.channel.receiver.first(), Some(Frame::Ping { answer: false, number: 7 }));
    assert_eq!(scene.channel.receiver.first(), None);

    let world = World::new();
    let pairing = world.desktop(1).share(&world, &terms());
    let (pending, mut phone) = admitted(&world, &pairing.link);
    let refused = pending.activate(&phone.seal(b"").unwrap(), world.now).unwrap_err();
    assert_eq!(refused.denial, Denial::FrameUnreadable);
    let end = phone.open(&refused.end.unwrap()).unwrap();
    assert_eq!(Frame::from_bytes(&end), Ok(Frame::End(EndCode::PROTOCOL)));
    assert_eq!(world.only_listing().connections, 0);
}

#[test]
fn a_first_frame_that_does_not_decrypt_activates_nothing_and_gets_no_answer() {
    let world = World::new();
    let pairing = world.desktop(1).share(&world, &terms());
    let (pending, _) = admitted(&world, &pairing.link);
    let refused = pending.activate(&[7; 40], world.now).unwrap_err();
    assert_eq!((refused.end, refused.denial), (None, Denial::FrameUnreadable));
    assert_eq!(world.only_listing().last_seen, None);
}

#[test]
fn a_phone_that_was_revoked_before_its_first_frame_gets_an_end() {
    let world = World::new();
    let pairing = world.desktop(1).share(&world, &terms());
    let (pending, mut phone) = admitted(&world, &pairing.link);
    world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
    let refused = pending.activate(&phone.seal(&data(b"x").to_bytes()).unwrap(), world.now).unwrap_err();
    assert_eq!(refused.denial, Denial::CredentialRevoked);
    let end = phone.open(&refused.end.unwrap()).unwrap();
    assert_eq!(Frame::from_bytes(&end), Ok(Frame::End(EndCode::from(Status::Revoked))));
}

#[test]
fn data_passes_in_both_directions_under_its_operation_and_not_otherwise() {
    let mut scene = scene().started();
    let now = scene.world.now;
    let frame = scene.channel.sender.try_send(Op::StreamOutput, b"output", now).unwrap();
    assert_eq!(scene.read(&frame), data(b"output"));
    let refused = scene.channel.sender.try_send(Op::ReadHistory, b"history", now);
    assert_eq!(refused, Err(PermitError::Refused(Denial::OperationNotGranted { op: Op::ReadHistory })));
    let action = Action::Privileged(Privilege::Administer);
    let written = Cell::new(false);
    let refused = scene.channel.sender.try_send_with(action, now, |_| written.set(true));
    let denial = Denial::PrivilegeDenied { privilege: Privilege::Administer };
    assert_eq!(refused.map(|_| ()), Err(PermitError::Refused(denial)));
    assert!(!written.get(), "nothing was made for it");
    // A refused frame used no counter.
    let frame = scene.channel.sender.try_send(Op::StreamOutput, b"more", now).unwrap();
    assert_eq!(scene.read(&frame), data(b"more"));

    let typed = scene.sealed(&data(b"typed"));
    assert_eq!(scene.channel.receiver.open(&typed, now), Ok(Frame::Data(())));
    assert_eq!(scene.receive(Op::SendInput), Ok(Some(b"typed".to_vec())));
}

#[test]
fn one_frame_waits_and_the_next_is_not_opened_before_it_was_taken() {
    let mut scene = scene();
    let now = scene.world.now;
    let second = scene.sealed(&data(b"second"));
    let waiting = Err(PermitError::Refused(Denial::FrameWaiting));
    assert_eq!(scene.channel.receiver.open(&second, now), waiting);
    let mut scene = scene.started();
    assert_eq!(scene.channel.receiver.open(&second, now), Ok(Frame::Data(())), "it was not looked at");
    assert_eq!(scene.receive(Op::SendInput), Ok(Some(b"second".to_vec())));
}

#[test]
fn the_reader_of_a_frame_names_its_operation_or_refuses_it() {
    let mut scene = scene();
    let now = scene.world.now;
    let read = |data: &[u8]| match data {
        b"first" => Ok((Action::Session(Op::SendInput), data.len())),
        b"rule" => Ok((Action::Privileged(Privilege::Administer), 0)),
        b"other" => Err(Denial::OtherSession),
        _ => Err(Denial::FrameUnreadable),
    };
    assert_eq!(scene.channel.receiver.try_receive_as(read, now, |len| len), Ok(Some(5)));
    for (number, bytes, code, detail) in
        [(1, b"rule".as_slice(), 2, 2), (2, b"other", 3, 0), (3, b"noise", 4, 0), (4, b"", 4, 0)]
    {
        let frame = scene.sealed(&data(bytes));
        scene.channel.receiver.open(&frame, now).unwrap();
        let error = scene.channel.receiver.try_receive_as(read, now, |len| len).unwrap_err();
        let PermitError::Refused(denial) = error else { panic!("{error}") };
        let notice = scene.channel.receiver.notice(&denial);
        assert_eq!(notice, Notice { code, detail, number }, "{denial}");
        let frame = scene.channel.sender.try_notice(notice, now).unwrap();
        assert_eq!(scene.read(&frame), Frame::Notice(notice));
    }
    let frame = scene.sealed(&data(b"resize"));
    scene.channel.receiver.open(&frame, now).unwrap();
    let Err(PermitError::Refused(denial)) = scene.receive(Op::Resize) else { panic!() };
    let bit = u16::try_from(OpSet::only(Op::Resize).bits().trailing_zeros()).unwrap();
    assert_eq!(
        scene.channel.receiver.notice(&denial),
        Notice { code: Notice::NOT_GRANTED, detail: bit, number: 5 }
    );
}

#[test]
fn after_a_cut_only_the_end_passes() {
    let mut scene = scene();
    let now = scene.world.now;
    scene.revoke();
    let over = PermitError::Over(Denial::CredentialRevoked);
    assert_eq!(scene.receive(Op::SendInput), Err(over.clone()), "what waited does not come out");
    assert_eq!(scene.receive(Op::SendInput), Ok(None));
    for frame in [data(b"x"), Frame::Ping { answer: false, number: 1 }] {
        let frame = scene.sealed(&frame);
        assert_eq!(scene.channel.receiver.open(&frame, now), Err(over.clone()));
    }
    assert_eq!(scene.receive(Op::SendInput), Ok(None), "nor what came after the cut");
    let end = scene.sealed(&Frame::End(EndCode::LEFT));
    assert_eq!(scene.channel.receiver.open(&end, now), Ok(Frame::End(EndCode::LEFT)));
    let sender = &mut scene.channel.sender;
    assert_eq!(sender.try_send(Op::StreamOutput, b"x", now), Err(over.clone()));
    assert_eq!(sender.try_notice(Notice { code: 64, detail: 0, number: 0 }, now), Err(over.clone()));
    assert_eq!(sender.try_ping(false, 1, now), Err(over));
    let frame = scene.channel.sender.end(Denial::CredentialRevoked.end_code()).unwrap();
    let read = Frame::from_bytes(&scene.phone.open(&frame).unwrap());
    assert_eq!(read, Ok(Frame::End(EndCode::from(Status::Revoked))));
}

#[test]
fn a_stale_frame_is_kept_in_both_directions_until_the_gate_is_settled() {
    let mut scene = scene();
    scene.world.pass_unsettled(6);
    assert_eq!(scene.receive(Op::SendInput), Err(PermitError::Stale));
    let now = scene.world.now;
    assert_eq!(scene.channel.sender.try_send(Op::StreamOutput, b"x", now), Err(PermitError::Stale));
    assert_eq!(scene.channel.sender.try_ping(false, 1, now), Err(PermitError::Stale));
    let waiting = Err(PermitError::Refused(Denial::FrameWaiting));
    let second = scene.sealed(&data(b"second"));
    assert_eq!(scene.channel.receiver.open(&second, now), waiting, "one frame is kept, not more");
    scene.world.gate.settle(now).unwrap();
    let mut scene = scene.started();
    let frame = scene.channel.sender.try_send(Op::StreamOutput, b"x", now).unwrap();
    assert_eq!(scene.read(&frame), data(b"x"), "no counter was taken");
}

#[test]
fn waiting_calls_continue_after_a_settle_and_fail_with_a_cut() {
    for cut in [false, true] {
        let mut scene = scene();
        scene.world.pass_unsettled(6);
        let now = scene.world.now;
        let GuardedChannel { mut sender, mut receiver } = scene.channel;
        let woken = Woken::new();
        let mut context = Context::from_waker(woken.waker());
        let mut sending = pin!(sender.send(Op::StreamOutput, b"x", || now));
        let read = |data: &[u8]| Ok((Action::Session(Op::SendInput), data.to_vec()));
        let mut receiving = pin!(receiver.receive_as(read, || now, |data| data));
        assert!(sending.as_mut().poll(&mut context).is_pending());
        assert!(receiving.as_mut().poll(&mut context).is_pending());
        assert_eq!(woken.count(), 0);
        let over = PermitError::Over(Denial::CredentialRevoked);
        if cut {
            scene.world.gate.revoke_credential(&scene.pairing.credential, now).unwrap();
            assert!(woken.count() >= 2, "both are woken");
            assert_eq!(sending.poll(&mut context), Poll::Ready(Err(over.clone())));
            assert_eq!(receiving.poll(&mut context), Poll::Ready(Err(over)));
        } else {
            scene.world.gate.settle(now).unwrap();
            assert!(woken.count() >= 2, "both are woken");
            let Poll::Ready(Ok(frame)) = sending.poll(&mut context) else { panic!() };
            assert_eq!(scene.phone.open(&frame).unwrap(), data(b"x").to_bytes());
            assert_eq!(receiving.poll(&mut context), Poll::Ready(Ok(Some(b"first".to_vec()))));
        }
    }
}

#[test]
fn a_frame_that_does_not_decrypt_ends_receiving() {
    let mut scene = scene().started();
    let now = scene.world.now;
    let unreadable = Err(PermitError::Over(Denial::FrameUnreadable));
    let good = scene.sealed(&data(b"good"));
    assert_eq!(scene.channel.receiver.open(&[1; 60], now), unreadable);
    assert_eq!(scene.channel.receiver.open(&good, now), unreadable, "over is over");
    let mut scene = self::scene().started();
    let empty = scene.phone.seal(b"").unwrap();
    assert_eq!(scene.channel.receiver.open(&empty, now), unreadable, "an empty plaintext is no frame");
}

#[test]
fn data_of_the_greatest_length_passes_and_more_is_refused_without_harm() {
    let mut scene = scene().started();
    let now = scene.world.now;
    let sender = &mut scene.channel.sender;
    let too_long = PermitError::Refused(Denial::FrameTooLong { max: MAX_DATA_LEN });
    assert_eq!(sender.try_send(Op::StreamOutput, &vec![1; MAX_DATA_LEN + 1], now), Err(too_long));
    let frame = sender.try_send(Op::StreamOutput, &vec![1; MAX_DATA_LEN], now).unwrap();
    assert_eq!(scene.read(&frame), data(&vec![1; MAX_DATA_LEN]));
}

/// The writer of the data cannot turn it into another kind of frame.
#[test]
fn the_writer_of_the_data_cannot_overwrite_the_head() {
    let mut scene = scene().started();
    let now = scene.world.now;
    for forged in [Frame::<Vec<u8>>::End(EndCode::LEFT).to_bytes(), Vec::new()] {
        let action = Action::Session(Op::StreamOutput);
        let sent = scene.channel.sender.try_send_with(action, now, |plaintext| *plaintext = forged.clone());
        assert_eq!(sent.map(|_| ()), Err(PermitError::Refused(Denial::Internal)));
    }
    let frame = scene.channel.sender.try_send(Op::StreamOutput, b"x", now).unwrap();
    assert_eq!(scene.read(&frame), data(b"x"));
}

#[test]
fn the_receiver_notes_when_the_phone_was_heard() {
    let mut scene = scene().started();
    let before = scene.world.now;
    assert_eq!(scene.channel.receiver.last_opened(), before);
    scene.world.pass(3);
    let now = scene.world.now;
    assert_eq!(scene.channel.receiver.last_opened(), before);
    let ping = scene.sealed(&Frame::Ping { answer: true, number: 3 });
    assert_eq!(scene.channel.receiver.open(&ping, now), Ok(Frame::Ping { answer: true, number: 3 }));
    assert_eq!(scene.channel.receiver.last_opened(), now);
}

/// A phone that lost its network attaches again: its dead connections must not lead to a refusal.
#[test]
fn a_connection_that_misses_a_ping_makes_room_for_another_of_the_same_phone() {
    let mut world = World::with(common::ledger::TestLedger::default(), |config| {
        config.with_quotas(Quotas::default().with_connections_per_credential(2))
    });
    let pairing = world.desktop(1).share(&world, &terms());
    let connect = |world: &World| {
        let (pending, mut phone) = admitted(world, &pairing.link);
        let channel = pending.activate(&phone.seal(&data(b"x").to_bytes()).unwrap(), world.now);
        channel.map(|channel| (channel, phone))
    };
    let (mut first, mut first_phone) = connect(&world).unwrap();
    let (mut second, mut second_phone) = connect(&world).unwrap();
    let opened = |channel: &mut GuardedChannel, phone: &mut Channel, now| {
        let pong = phone.seal(&Frame::<Vec<u8>>::Ping { answer: true, number: 1 }.to_bytes()).unwrap();
        channel.receiver.try_receive(Op::SendInput, now, |_| ()).unwrap();
        channel.receiver.open(&pong, now).unwrap();
    };
    for (channel, phone) in [(&mut first, &mut first_phone), (&mut second, &mut second_phone)] {
        let ping = channel.sender.try_ping(false, 1, world.now).unwrap();
        phone.open(&ping).unwrap();
    }
    world.pass(9);
    opened(&mut second, &mut second_phone, world.now);
    let asking = world.ask(&pairing.link, &phone(2));
    let refused = world.respond(&asking.message);
    let full = Denial::TooManyConnections { max: 2 };
    assert!(matches!(refused, Response::Refused(_, denial) if denial == full), "both may still answer");
    world.pass(1);
    let woken = Woken::new();
    let mut cut = pin!(first.receiver.cut());
    assert!(cut.as_mut().poll(&mut Context::from_waker(woken.waker())).is_pending());
    let (mut third, _) = connect(&world).unwrap();
    let now = world.now;
    assert!(
        woken.count() > 0
            && cut.poll(&mut Context::from_waker(woken.waker())) == Poll::Ready(Denial::Replaced)
    );
    let over = PermitError::Over(Denial::Replaced);
    assert_eq!(first.sender.try_send(Op::StreamOutput, b"x", now), Err(over.clone()));
    assert_eq!(first.receiver.guard().fork().check(now), Err(over));
    let end = first.sender.end(Denial::Replaced.end_code()).unwrap();
    let read = Frame::from_bytes(&first_phone.open(&end).unwrap());
    assert_eq!(read, Ok(Frame::End(EndCode::CLOSED)), "attach again");
    for channel in [&mut second, &mut third] {
        assert!(channel.sender.try_send(Op::StreamOutput, b"x", now).is_ok(), "the others go on");
    }
    assert_eq!(world.only_listing().connections, 2);
}

/// A future that is driven: polled under a permit only, until it is done or cut.
#[test]
fn a_driven_future_is_polled_under_permits_and_ends_with_the_cut() {
    let scene = scene();
    let (world, now) = (&scene.world, scene.world.now);
    let mut guard = scene.channel.receiver.guard().fork();
    let woken = Woken::new();
    let mut context = Context::from_waker(woken.waker());

    let polls = Cell::new(0);
    let three = poll_fn(|_| {
        polls.set(polls.get() + 1);
        // A revoker would wait for itself.
        let inside = world.gate.revoke_credential(&scene.pairing.credential, now);
        assert!(matches!(inside, Err(Denial::ApiMisuse(Misuse::InsidePermit))), "{inside:?}");
        if polls.get() < 3 { Poll::Pending } else { Poll::Ready("done") }
    });
    {
        let mut driven = pin!(guard.drive(Op::SendInput, || now, three));
        assert!(driven.as_mut().poll(&mut context).is_pending());
        assert!(driven.as_mut().poll(&mut context).is_pending());
        assert_eq!(driven.poll(&mut context), Poll::Ready(Ok("done")));
    }
    assert_eq!(polls.get(), 3);

    let never = poll_fn(|_| -> Poll<()> { panic!("polled without a permit") });
    let refused = pin!(guard.drive(Op::Resize, || now, never)).poll(&mut context);
    let denial = Denial::OperationNotGranted { op: Op::Resize };
    assert_eq!(refused, Poll::Ready(Err(PermitError::Refused(denial))));

    let hangs = poll_fn(|_| -> Poll<()> { Poll::Pending });
    let mut driven = pin!(guard.drive(Op::SendInput, || now, hangs));
    assert!(driven.as_mut().poll(&mut context).is_pending());
    let before = woken.count();
    world.gate.revoke_credential(&scene.pairing.credential, now).unwrap();
    assert!(woken.count() > before, "the cut wakes it");
    let over = PermitError::Over(Denial::CredentialRevoked);
    assert_eq!(driven.poll(&mut context), Poll::Ready(Err(over)));
}

#[test]
fn a_driven_future_waits_while_the_gate_is_stale() {
    let mut scene = scene();
    let mut guard = scene.channel.receiver.guard().fork();
    scene.world.pass_unsettled(6);
    let now = scene.world.now;
    let polled = Cell::new(false);
    let once = poll_fn(|_| {
        polled.set(true);
        Poll::Ready(1)
    });
    let mut driven = pin!(guard.drive(Op::SendInput, || now, once));
    let mut context = Context::from_waker(Waker::noop());
    assert!(driven.as_mut().poll(&mut context).is_pending() && !polled.get());
    scene.world.gate.settle(now).unwrap();
    assert_eq!(driven.poll(&mut context), Poll::Ready(Ok(1)));
}

#[test]
fn errors_say_whether_the_connection_continues() {
    let mut scene = scene();
    let now = scene.world.now;
    let mut guard = scene.channel.receiver.guard().fork();
    let refused = guard.permit(Op::Resize, now, || ()).unwrap_err();
    assert!(!refused.is_over() && refused.code() == "operation_not_granted");
    let other = guard.check_session("other").unwrap_err();
    assert!(!other.is_over() && other.code() == "other_session");
    let privilege = guard.permit_action(Action::Privileged(Privilege::Enroll), now, || ()).unwrap_err();
    assert!(!privilege.is_over() && privilege.code() == "privilege_denied");
    scene.world.pass_unsettled(6);
    let stale = guard.check(scene.world.now).unwrap_err();
    assert!(!stale.is_over() && stale == PermitError::Stale && stale.code() == "stale");
    scene.revoke();
    let over = guard.permit(Op::SendInput, scene.world.now, || ()).unwrap_err();
    assert!(over.is_over() && over.code() == "credential_revoked");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is done, what the phone decrypts is what was sent, in order, and nothing of it after a cut.
    #[test]
    fn frames_arrive_in_order_whatever_is_refused_in_between(
        moves in proptest::collection::vec((0..6_u8, 0..3_u8), 0..40), cut_at in 0..60_usize,
    ) {
        let mut scene = scene().started();
        let mut sent = 0_u8;
        for (index, (what, op)) in moves.into_iter().enumerate() {
            if index == cut_at {
                scene.revoke();
            }
            let cut = index >= cut_at;
            let now = scene.world.now;
            let op = [Op::StreamOutput, Op::ReadHistory, Op::Resize][usize::from(op)];
            let sender = &mut scene.channel.sender;
            let frame = match what {
                0 => sender.try_send(op, &vec![0; MAX_DATA_LEN + 1], now),
                1 => sender.try_ping(false, sent.into(), now),
                _ => sender.try_send(op, &[sent], now),
            };
            match frame {
                Ok(frame) => {
                    prop_assert!(!cut && (op == Op::StreamOutput || what == 1));
                    let expected = if what == 1 {
                        Frame::Ping { answer: false, number: sent.into() }
                    } else {
                        data(&[sent])
                    };
                    prop_assert_eq!(scene.read(&frame), expected);
                    sent += 1;
                }
                Err(error) => prop_assert_eq!(error.is_over(), cut),
            }
        }
        let frame = scene.channel.sender.end(EndCode::LEFT).unwrap();
        let read = Frame::from_bytes(&scene.phone.open(&frame).unwrap());
        prop_assert_eq!(read, Ok(Frame::End(EndCode::LEFT)));
    }
}

#[test]
fn a_first_ping_that_was_not_taken_blocks_nothing() {
    let mut scene = scene_with(&Frame::Ping { answer: false, number: 7 });
    let now = scene.world.now;
    assert_eq!(scene.receive(Op::SendInput), Ok(None));
    let typed = scene.sealed(&data(b"typed"));
    assert_eq!(scene.channel.receiver.open(&typed, now), Ok(Frame::Data(())));
    assert_eq!(scene.channel.receiver.first(), None, "it was dropped");
    assert_eq!(scene.receive(Op::SendInput), Ok(Some(b"typed".to_vec())));
}

#[test]
fn a_notice_and_the_answer_to_a_ping_wait_for_the_next_settling() {
    let mut scene = scene().started();
    scene.world.pass_unsettled(6);
    let now = scene.world.now;
    let notice = Notice { code: 64, detail: 1, number: 2 };
    let frames = {
        let sender = &mut scene.channel.sender;
        let mut context = Context::from_waker(Waker::noop());
        let mut sending = pin!(async {
            let first = sender.notice(notice, || now).await?;
            Ok::<_, PermitError>((first, sender.ping(true, 9, || now).await?))
        });
        assert!(sending.as_mut().poll(&mut context).is_pending());
        scene.world.gate.settle(now).unwrap();
        let Poll::Ready(Ok(frames)) = sending.poll(&mut context) else { panic!() };
        frames
    };
    assert_eq!(scene.read(&frames.0), Frame::Notice(notice));
    assert_eq!(scene.read(&frames.1), Frame::Ping { answer: true, number: 9 });
}

// --- messages of several frames ---

fn part(bytes: &[u8]) -> Frame {
    Frame::Part(bytes.to_vec())
}

impl Scene {
    fn open(&mut self, frame: &Frame) -> Result<Frame<()>, PermitError> {
        let sealed = self.sealed(frame);
        self.channel.receiver.open(&sealed, self.world.now)
    }

    /// Sends frames of the phone, none of which is refused when it is opened.
    fn open_all(&mut self, frames: impl IntoIterator<Item = Frame>) {
        for frame in frames {
            let kind = self.open(&frame).unwrap();
            assert_eq!(kind.kind(), frame.kind());
        }
    }

    /// The notice that the agent sends after a refusal.
    fn refusal(&mut self, op: Op) -> Notice {
        let Err(PermitError::Refused(denial)) = self.receive(op) else { panic!("not refused") };
        self.channel.receiver.notice(&denial)
    }
}

/// Two frames of different data types, compared by their kind.
trait Kind {
    fn kind(&self) -> &'static str;
}

impl<D> Kind for Frame<D> {
    fn kind(&self) -> &'static str {
        match self {
            Frame::Data(_) => "data",
            Frame::Part(_) => "part",
            Frame::Discard => "discard",
            Frame::Notice(_) => "notice",
            Frame::Ping { .. } => "ping",
            _ => "end",
        }
    }
}

fn discarded(detail: u16, number: u64) -> Notice {
    Notice { code: Notice::DISCARDED, detail, number }
}

#[test]
fn a_message_in_parts_is_received_whole_under_one_permit() {
    let mut scene = scene().started();
    let ping = Frame::Ping { answer: false, number: 1 };
    scene.open_all([part(b"one "), ping, part(b"two ")]);
    assert_eq!(scene.receive(Op::SendInput), Ok(None), "nothing comes out before the whole message");
    scene.open_all([data(b"three")]);
    let waiting = Err(PermitError::Refused(Denial::FrameWaiting));
    assert_eq!(scene.channel.receiver.open(&[0; 40], scene.world.now), waiting);
    assert_eq!(scene.receive(Op::SendInput), Ok(Some(b"one two three".to_vec())));
    scene.open_all([part(b"x"), data(b"")]);
    assert_eq!(scene.receive(Op::SendInput), Ok(Some(b"x".to_vec())), "the last frame may be empty");
}

#[test]
fn the_first_frame_can_be_a_part() {
    let mut scene = scene_with(&part(b"begin "));
    assert_eq!(scene.channel.receiver.first(), Some(Frame::Part(())));
    assert_eq!(scene.channel.receiver.first(), None);
    scene.open_all([data(b"end")]);
    assert_eq!(scene.receive(Op::SendInput), Ok(Some(b"begin end".to_vec())));
    let mut scene = scene_with(&part(b"begin "));
    scene.open_all([Frame::Discard, data(b"whole")]);
    assert_eq!(scene.receive(Op::SendInput), Ok(Some(b"whole".to_vec())));
}

#[test]
fn a_refused_message_is_refused_whole_and_nothing_of_it_stays() {
    let mut scene = scene().started();
    scene.open_all([part(b"not "), data(b"allowed")]);
    assert_eq!(scene.refusal(Op::Resize), Notice { code: Notice::NOT_GRANTED, detail: 5, number: 1 });
    scene.open_all([data(b"next")]);
    assert_eq!(scene.receive(Op::SendInput), Ok(Some(b"next".to_vec())));
    scene.open_all([part(b"unread"), data(b"able")]);
    let read = |message: &[u8]| {
        assert_eq!(message, b"unreadable");
        Err::<(Action, ()), _>(Denial::FrameUnreadable)
    };
    let now = scene.world.now;
    let refused = scene.channel.receiver.try_receive_as(read, now, |()| ());
    assert_eq!(refused, Err(PermitError::Refused(Denial::FrameUnreadable)));
    scene.open_all([data(b"next")]);
    assert_eq!(scene.receive(Op::SendInput), Ok(Some(b"next".to_vec())));
}

#[test]
fn a_discard_drops_the_parts_and_takes_no_number() {
    let mut scene = scene().started();
    scene.open_all([part(b"dropped"), Frame::Discard, data(b"kept")]);
    assert_eq!(scene.refusal(Op::Resize).number, 1);
    // Also of a message that is refused already.
    let whole = part(&vec![0; MAX_DATA_LEN]);
    scene.open_all((0..17).map(|_| whole.clone()).chain([Frame::Discard, data(b"kept")]));
    assert_eq!(scene.receive(Op::SendInput), Ok(Some(b"kept".to_vec())));
}

#[test]
fn a_message_that_is_too_long_is_skipped_to_its_end_and_refused() {
    let mut scene = scene().started();
    let full = part(&vec![7; MAX_DATA_LEN]);
    let rest = MAX_MESSAGE_LEN - 16 * MAX_DATA_LEN;
    scene.open_all((0..16).map(|_| full.clone()).chain([data(&vec![7; rest])]));
    let whole = scene.receive(Op::SendInput).unwrap().unwrap();
    assert!(whole.len() == MAX_MESSAGE_LEN && whole.iter().all(|byte| *byte == 7));
    scene.open_all((0..16).map(|_| full.clone()).chain([data(&vec![7; rest + 1])]));
    let too_long = Denial::MessageTooLong { max: MAX_MESSAGE_LEN };
    assert_eq!(scene.receive(Op::SendInput), Err(PermitError::Refused(too_long)));
    scene.open_all((0..20).map(|_| full.clone()).chain([data(b"the rest")]));
    assert_eq!(scene.refusal(Op::SendInput), discarded(0, 3));
    scene.open_all([data(b"next")]);
    assert_eq!(scene.receive(Op::SendInput), Ok(Some(b"next".to_vec())));
}

#[test]
fn a_message_that_is_not_complete_after_thirty_seconds_is_refused() {
    let mut scene = scene().started();
    scene.open_all([part(b"slow")]);
    scene.world.pass(29);
    assert_eq!(scene.channel.receiver.time_left(scene.world.now), std::time::Duration::from_secs(1));
    scene.open_all([part(b" but"), data(b" complete")]);
    assert_eq!(scene.receive(Op::SendInput), Ok(Some(b"slow but complete".to_vec())));
    scene.open_all([part(b"too slow")]);
    scene.world.pass(30);
    scene.open_all([data(b"")]);
    assert_eq!(scene.refusal(Op::SendInput), discarded(0, 2));
}

/// An agent whose phones may hold ten bytes of unfinished messages together, and two phones of it.
fn crowded() -> (Scene, Channel, GuardedChannel) {
    let world = World::with(common::ledger::TestLedger::default(), |config| config.with_message_room(10));
    let mut scene = scene_in(world, &data(b"first"));
    let (pending, mut phone) = admitted(&scene.world, &scene.pairing.link);
    let ping = Frame::<Vec<u8>>::Ping { answer: true, number: 0 }.to_bytes();
    let other = pending.activate(&phone.seal(&ping).unwrap(), scene.world.now).unwrap();
    assert_eq!(scene.receive(Op::SendInput), Ok(Some(b"first".to_vec())));
    (scene, phone, other)
}

#[test]
fn unfinished_messages_of_all_phones_share_one_room() {
    let (mut scene, mut phone, mut other) = crowded();
    let now = scene.world.now;
    other.receiver.open(&phone.seal(&part(b"123456").to_bytes()).unwrap(), now).unwrap();
    scene.open_all([part(b"1234")]);
    scene.open_all([part(b"5"), data(b"6")]);
    assert_eq!(scene.refusal(Op::SendInput), discarded(1, 1));
    // A message of one frame needs none of the room.
    scene.open_all([data(b"123456789012345")]);
    assert_eq!(scene.receive(Op::SendInput).unwrap().unwrap().len(), 15);
    // The refused one has given its room back.
    scene.open_all([part(b"1"), data(b"234")]);
    assert_eq!(scene.receive(Op::SendInput), Ok(Some(b"1234".to_vec())));
}

/// Whether a message of ten bytes finds room.
fn all_is_free(scene: &mut Scene) -> bool {
    scene.open_all([part(b"12345"), data(b"67890")]);
    scene.receive(Op::SendInput) == Ok(Some(b"1234567890".to_vec()))
}

#[test]
fn whatever_ends_a_message_gives_its_room_back() {
    for end in 0..6 {
        let (mut scene, mut phone, mut other) = crowded();
        let mut now = scene.world.now;
        other.receiver.open(&phone.seal(&part(b"123456").to_bytes()).unwrap(), now).unwrap();
        assert!(!all_is_free(&mut scene), "it is held");
        match end {
            0 => drop(other),
            1 => drop(other.receiver.open(&phone.seal(&Frame::<Vec<u8>>::Discard.to_bytes()).unwrap(), now)),
            2 => {
                other.receiver.open(&phone.seal(&data(b"7").to_bytes()).unwrap(), now).unwrap();
                assert!(other.receiver.try_receive(Op::Resize, now, |_| ()).is_err());
            }
            3 => {
                other.receiver.open(&phone.seal(&data(b"7").to_bytes()).unwrap(), now).unwrap();
                let taken = other.receiver.try_receive(Op::SendInput, now, <[u8]>::len);
                assert_eq!(taken, Ok(Some(7)));
            }
            4 => {
                scene.world.pass(30);
                now = scene.world.now;
                assert_eq!(other.receiver.time_left(now), std::time::Duration::ZERO);
                assert_eq!(other.receiver.check(now), Ok(()));
                assert!(!other.receiver.time_left(now).is_zero());
            }
            _ => {
                other.receiver.open(&phone.seal(&part(b"too much").to_bytes()).unwrap(), now).unwrap();
            }
        }
        assert!(all_is_free(&mut scene), "{end}");
    }
}

#[test]
fn a_cut_discards_what_is_unfinished_and_what_waits() {
    for complete in [false, true] {
        let mut scene = scene().started();
        scene.open_all([part(b"unfinished")]);
        if complete {
            scene.open_all([data(b"!")]);
        }
        scene.revoke();
        let over = PermitError::Over(Denial::CredentialRevoked);
        let now = scene.world.now;
        assert_eq!(scene.channel.receiver.check(now), Err(over.clone()));
        assert_eq!(scene.receive(Op::SendInput), Ok(None), "it is gone");
        assert_eq!(scene.open(&data(b"rest")), Err(over));
        assert_eq!(scene.receive(Op::SendInput), Ok(None));
    }
}

#[test]
fn a_complete_message_waits_for_the_next_settling_as_a_frame_does() {
    let mut scene = scene().started();
    scene.open_all([part(b"waits "), data(b"here")]);
    scene.world.pass_unsettled(40);
    assert_eq!(scene.receive(Op::SendInput), Err(PermitError::Stale));
    let now = scene.world.now;
    assert_eq!(scene.channel.receiver.check(now), Err(PermitError::Stale));
    scene.world.gate.settle(now).unwrap();
    assert_eq!(scene.receive(Op::SendInput), Ok(Some(b"waits here".to_vec())));
}

/// What a phone reads of the frames of a long message.
fn assembled(scene: &mut Scene, sent: &LongMessage) -> Vec<Frame> {
    let mut assembler = Assembler::new();
    let frames: Vec<Frame> = sent.frames.iter().map(|frame| scene.read(frame)).collect();
    frames.into_iter().filter_map(|frame| assembler.take(frame).unwrap()).collect()
}

#[test]
fn a_long_message_is_sent_in_frames_that_a_phone_puts_together() {
    let mut scene = scene().started();
    let now = scene.world.now;
    for len in [0, MAX_DATA_LEN, MAX_DATA_LEN + 1, MAX_MESSAGE_LEN] {
        let message: Vec<u8> = (0..len).map(|at| at.to_be_bytes()[7]).collect();
        let sent = scene.channel.sender.try_send_long(Op::StreamOutput, &message, || now);
        assert_eq!(sent.outcome, Ok(()));
        assert_eq!(assembled(&mut scene, &sent), [data(&message)]);
    }
    let too_long = vec![0; MAX_MESSAGE_LEN + 1];
    let sent = scene.channel.sender.try_send_long(Op::StreamOutput, &too_long, || now);
    let denial = Denial::MessageTooLong { max: MAX_MESSAGE_LEN };
    assert_eq!((sent.frames.len(), sent.outcome), (0, Err(PermitError::Refused(denial))));
}

#[test]
fn a_long_message_that_is_refused_part_way_ends_with_a_discard_and_the_next_is_whole() {
    for stale in [false, true] {
        let mut scene = scene().started();
        let (world, pairing) = (&scene.world, &scene.pairing);
        let mut frames = 0;
        let clock = || {
            frames += 1;
            match (frames, stale) {
                (3, false) => {
                    let ops = OpSet::only(Op::SendInput);
                    let desktop = common::Desktop::new(world, 1);
                    desktop.renew(world, pairing, ops, 3_600).unwrap();
                    world.now
                }
                (3, true) => world.now.plus(time::Duration::seconds(6)),
                _ => world.now,
            }
        };
        let long = vec![1; 4 * MAX_DATA_LEN];
        let sent = scene.channel.sender.try_send_long(Op::StreamOutput, &long, clock);
        let expected = match stale {
            true => PermitError::Stale,
            false => PermitError::Refused(Denial::OperationNotGranted { op: Op::StreamOutput }),
        };
        assert_eq!((sent.frames.len(), &sent.outcome), (3, &Err(expected)));
        assert_eq!(assembled(&mut scene, &sent), []);
        let now = scene.world.now;
        let notice = Notice { code: 64, detail: 1, number: 0 };
        let frame = scene.channel.sender.try_notice(notice, now).unwrap();
        assert_eq!(scene.read(&frame), Frame::Notice(notice), "the counter goes on");
    }
}

#[test]
fn a_long_message_that_is_cut_part_way_is_not_continued() {
    let mut scene = scene().started();
    let mut frames = 0;
    let (world, pairing) = (&scene.world, &scene.pairing);
    let clock = || {
        frames += 1;
        if frames == 3 {
            world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
        }
        world.now
    };
    let sent = scene.channel.sender.try_send_long(Op::StreamOutput, &vec![1; 4 * MAX_DATA_LEN], clock);
    let over = PermitError::Over(Denial::CredentialRevoked);
    assert_eq!((sent.frames.len(), &sent.outcome), (2, &Err(over)));
    assert_eq!(assembled(&mut scene, &sent), []);
    let end = scene.channel.sender.end(Denial::CredentialRevoked.end_code()).unwrap();
    let read = Frame::from_bytes(&scene.phone.open(&end).unwrap());
    assert_eq!(read, Ok(Frame::End(EndCode::from(Status::Revoked))), "the end comes after them");
}

#[test]
fn a_long_message_waits_for_the_next_settling() {
    let mut scene = scene().started();
    scene.world.pass_unsettled(6);
    let now = scene.world.now;
    let sent = {
        let mut context = Context::from_waker(Waker::noop());
        let long = vec![1; 2 * MAX_DATA_LEN];
        let mut sending = pin!(scene.channel.sender.send_long(Op::StreamOutput, &long, || now));
        assert!(sending.as_mut().poll(&mut context).is_pending());
        scene.world.gate.settle(now).unwrap();
        let Poll::Ready(sent) = sending.poll(&mut context) else { panic!() };
        sent
    };
    assert_eq!(sent.outcome, Ok(()));
    assert_eq!(assembled(&mut scene, &sent), [data(&vec![1; 2 * MAX_DATA_LEN])]);
}
