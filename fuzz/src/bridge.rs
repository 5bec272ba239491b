//! A bridge of a guarded channel: whatever the phone, the session and the gate do, only what is permitted passes.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use sessioncap::agent::*;
use sessioncap::desktop::Renewal;
use sessioncap::noise::{Channel, Responder};
use sessioncap::phone::*;
use sessioncap::*;
use time::Duration;

use super::ends::Ends;
use super::rng::CounterRng;
use super::{Base, SESSIONS, agent, device, issuer, phone, session, with_base};

/// The phone's messages, and the answers that may follow.
struct Model {
    phone: Channel,
    assembler: Assembler,
    /// Whole messages by their numbers, those that were refused among them.
    typed: Vec<Option<Vec<u8>>>,
    pings: VecDeque<u64>,
    /// All output, and how much of it the phone has.
    output: Vec<u8>,
    came: usize,
    /// How much was written at the last look.
    written: usize,
    ops: OpSet,
    revoked: bool,
    stale: bool,
    /// Whether the phone's next frame is worth nothing: it has left, or has broken the protocol.
    over: bool,
}

impl Model {
    /// The phone sends a plaintext.
    fn send(&mut self, plaintext: &[u8], ends: &Ends) {
        ends.0.lock().unwrap().inbox.push_back(self.phone.seal(plaintext).unwrap());
        self.takes(plaintext);
    }

    fn takes(&mut self, plaintext: &[u8]) {
        if self.over {
            return;
        }
        match Frame::from_bytes(plaintext).map(|frame| self.assembler.take(frame)) {
            Ok(Ok(Some(Frame::Data(message)))) => self.typed.push(Some(message)),
            Ok(Ok(Some(Frame::Ping { answer: false, number }))) => self.pings.push_back(number),
            Ok(Ok(Some(Frame::End(_)))) | Ok(Err(_)) | Err(_) => self.over = true,
            Ok(Ok(_)) => {}
        }
    }

    /// Looks at what has passed since the last look.
    fn judge(&mut self, ends: &Ends) {
        let mut state = ends.0.lock().unwrap();
        for sealed in state.sent.drain(..) {
            let opened = self.phone.open(&sealed).unwrap();
            match Frame::from_bytes(&opened).unwrap() {
                Frame::Data(bytes) => {
                    assert!(!self.stale && !self.revoked && self.ops.contains(Op::StreamOutput));
                    let until = self.came + bytes.len();
                    assert_eq!(
                        self.output.get(self.came..until),
                        Some(&bytes[..]),
                        "in order, and nothing else"
                    );
                    self.came = until;
                }
                Frame::Ping { answer: true, number } => {
                    assert_eq!(self.pings.pop_front(), Some(number));
                }
                Frame::Notice(notice) => {
                    let place = usize::try_from(notice.number).unwrap();
                    assert!(self.typed[place].take().is_some(), "refused once");
                    assert!(!self.ops.contains(Op::SendInput), "refused without a reason: {notice:?}");
                }
                frame => panic!("{frame:?}"),
            }
        }
        if state.written.len() > self.written {
            assert!(!self.stale && !self.revoked && self.ops.contains(Op::SendInput));
            self.written = state.written.len();
        }
        let allowed = self.typed.iter().flatten().flatten().copied().collect::<Vec<u8>>();
        assert!(allowed.starts_with(&state.written), "what was typed, in order, and nothing else");
    }

    /// Looks at the end.
    fn judge_end(&mut self, end: &BridgeEnd, ends: &Ends) {
        if self.revoked {
            assert!(end.denial.is_some() || end.message.is_none(), "{end:?}");
        }
        match (&end.message, &end.denial) {
            (None, None) => assert!(self.over || ends.0.lock().unwrap().lost),
            (None, Some(_)) => panic!("{end:?}"),
            (Some(message), denial) => {
                let opened = self.phone.open(message).unwrap();
                let Ok(Frame::End(code)) = Frame::<Vec<u8>>::from_bytes(&opened) else { panic!("no end") };
                match denial {
                    None => assert!(code == EndCode::CLOSED && ends.0.lock().unwrap().ended),
                    Some(Denial::OperationNotGranted { op }) => {
                        assert!(*op == Op::SendInput && !self.ops.contains(*op) && code == EndCode::CLOSED);
                    }
                    Some(Denial::CredentialRevoked) => assert!(self.revoked),
                    Some(_) => assert!(self.over),
                }
            }
        }
    }
}

fn connected(base: &Base, first: &[u8]) -> Option<(GuardedChannel, Channel)> {
    let asking = redeem(&base.redeemed, &phone(2), Label::default(), &mut CounterRng::new(3)).unwrap();
    let received = Responder::read(&agent(), &asking.message, &mut CounterRng::new(4)).unwrap();
    let Admission::Admitted { message, pending } =
        base.gate.admit(received, base.now, &mut CounterRng::new(5))
    else {
        panic!("refused")
    };
    let Redeemed::Attached { attached, .. } = asking.next.finish(&message).unwrap() else { panic!() };
    let mut phone = attached.channel;
    let channel = pending.activate(&phone.seal(first).unwrap(), base.now).ok()?;
    Some((channel, phone))
}

/// A byte for what happens, and what it needs; see the arms. With the highest bit, something else happens before the bridge
/// gets its turn.
pub fn bridge(data: &[u8]) {
    with_base(|base| run(base, data));
}

fn run(base: &Base, data: &[u8]) {
    let first = Frame::Data(b"first").to_bytes();
    let (channel, phone) = connected(base, &first).unwrap();
    let ends = Ends::default();
    ends.0.lock().unwrap().room = 20;
    let now = Arc::new(Mutex::new(base.now));
    let mut model = Model {
        phone,
        assembler: Assembler::new(),
        typed: Vec::new(),
        pings: VecDeque::new(),
        output: Vec::new(),
        came: 0,
        written: 0,
        ops: OpSet::COMPANION,
        revoked: false,
        stale: false,
        over: false,
    };
    model.takes(&first);
    let (mut socket, reads, writes, time) = (ends.clone(), ends.clone(), ends.clone(), Arc::clone(&now));
    let clock = move || *time.lock().unwrap();
    let mut bridging: Pin<Box<dyn Future<Output = BridgeEnd>>> =
        Box::pin(async move { channel.bridge(&mut socket, reads, writes, clock).await });
    let mut rest = data;
    let byte = |rest: &mut &[u8]| match rest.split_first() {
        Some((byte, after)) => {
            *rest = after;
            *byte
        }
        None => 0,
    };
    let mut outputs = 0_u8;
    while let Some((what, after)) = rest.split_first() {
        rest = after;
        let time = *now.lock().unwrap();
        match (what & 0x7f) % 11 {
            0 => {
                let (len, number) = (usize::from(byte(&mut rest)), model.typed.len() as u8);
                model.send(&Frame::Data(vec![number; len]).to_bytes(), &ends);
            }
            1 => {
                let len = usize::from(byte(&mut rest)).min(rest.len());
                let (plaintext, after) = rest.split_at(len);
                rest = after;
                model.send(plaintext, &ends);
            }
            2 => {
                model.over = true;
                ends.0.lock().unwrap().inbox.push_back(vec![7; usize::from(byte(&mut rest))]);
            }
            3 => {
                let bytes = vec![outputs; usize::from(byte(&mut rest)) * 300];
                outputs = outputs.wrapping_add(1);
                model.output.extend_from_slice(&bytes);
                ends.0.lock().unwrap().output.push_back(bytes);
            }
            4 => ends.0.lock().unwrap().room += usize::from(byte(&mut rest)),
            5 => *now.lock().unwrap() = time.plus(Duration::seconds(3)),
            6 => {
                base.gate.settle(time).unwrap();
                base.settled.fetch_max(time.monotonic.whole_seconds(), Ordering::Relaxed);
            }
            7 => {
                base.gate.revoke_credential(&base.credential.id(), time).unwrap();
                model.revoked = true;
            }
            8 => {
                let ops = [OpSet::COMPANION, OpSet::only(Op::StreamOutput), OpSet::only(Op::SendInput)];
                let ops = ops[usize::from(byte(&mut rest)) % 3];
                let renewal = Renewal {
                    credential: base.credential.id(),
                    ticket: base.redeemed.ticket().id(),
                    session: session(SESSIONS[0]),
                    ops,
                    valid_for: 3_600,
                };
                let offer = issuer().renew(renewal, time.timestamp(), &mut CounterRng::new(6)).unwrap();
                if base.gate.renew(&device(), &offer, time, &mut CounterRng::new(7)).is_ok() {
                    model.ops = model.ops.intersection(ops);
                }
            }
            9 => {
                let mut state = ends.0.lock().unwrap();
                *(if byte(&mut rest) % 2 == 0 { &mut state.lost } else { &mut state.ended }) = true;
            }
            _ => model.send(&Frame::<Vec<u8>>::Ping { answer: false, number: 9 }.to_bytes(), &ends),
        }
        // Several things happen before the bridge gets its turn.
        if what & 0x80 != 0 {
            continue;
        }
        let settled = Duration::seconds(base.settled.load(Ordering::Relaxed));
        model.stale = now.lock().unwrap().monotonic - settled >= Duration::seconds(5);
        let polled = bridging.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        model.judge(&ends);
        match polled {
            Poll::Ready(end) => return model.judge_end(&end, &ends),
            Poll::Pending => assert!(!model.revoked, "a cut ends the bridge at its next turn"),
        }
    }
}
