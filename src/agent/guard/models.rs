//! The guard's contract under every interleaving of two or three threads: *after a revoking call
//! returns, no further permit is granted, and none granted earlier is still in use.*
//!
//! ```console
//! RUSTFLAGS="--cfg sessioncap_loom" cargo test --lib --all-features --target-dir target/loom models
//! ```

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering as Plain};
use std::task::{Context, Poll, Wake};

use loom::sync::atomic::AtomicBool as Watched;
use loom::thread;

use super::*;
use crate::op::{Action, Op};

fn now() -> Now {
    Now::since_1970(Duration::hours(1), Duration::ZERO)
}

fn lease() -> Arc<Lease> {
    Arc::new(Lease::at(now().monotonic))
}

fn both() -> OpSet {
    [Op::SendInput, Op::StreamOutput].into_iter().collect()
}

fn terms(ops: OpSet) -> Terms {
    Terms { ops, expires_at: Timestamp::MAX, ends_at: Duration::MAX }
}

/// The live state of the only credential.
fn live() -> Arc<Live> {
    Live::new(lease(), Watch::new(CredentialId::from_bytes([1; 16]), Arc::default()))
}

/// The key and names, made once because they cost more than a model's steps.
fn guard(live: &Arc<Live>) -> Guard {
    guard_with(live, both())
}

fn guard_with(live: &Arc<Live>, ops: OpSet) -> Guard {
    use std::sync::OnceLock;
    static HOLDER: OnceLock<HolderPublicKey> = OnceLock::new();
    let holder = *HOLDER.get_or_init(|| crate::key::HolderSecretKey::from_bytes([2; 32]).public());
    let grant = Grant {
        credential: CredentialId::from_bytes([1; 16]),
        session: SessionId::new("s").unwrap(),
        holder,
        terms: terms(ops),
        judged_at: Duration::ZERO,
        review: None,
    };
    Guard::new(grant, Arc::clone(live))
}

/// The observations shared by a revoker and the permits. Relaxed, so that the result depends only on the
/// guard's own ordering.
#[derive(Default)]
struct Witness {
    revoked: Watched,
    inside: Watched,
}

impl Witness {
    /// Set inside a permit's closure.
    fn use_it(&self) {
        self.inside.store(true, Ordering::Relaxed);
        assert!(!self.revoked.load(Ordering::Relaxed), "a permit in use after the revocation returned");
        self.inside.store(false, Ordering::Relaxed);
    }

    /// Set once the revoking call has returned.
    fn returned(&self) {
        assert!(!self.inside.load(Ordering::Relaxed), "a permit in use when the revocation returns");
        self.revoked.store(true, Ordering::Relaxed);
    }
}

fn revoke(live: &Live, why: Cut, witness: &Witness) {
    live.cut(why);
    live.wake();
    live.wait_for_permits();
    witness.returned();
}

#[test]
fn a_permit_and_a_revocation() {
    for why in [Cut::Revoked, Cut::Contested, Cut::SessionGone, Cut::Expired] {
        loom::model(move || {
            let (live, witness) = (live(), Arc::new(Witness::default()));
            let mut guard = guard(&live);
            let seen = Arc::clone(&witness);
            let streaming = thread::spawn(move || {
                for _ in 0..2 {
                    if guard.permit(Op::SendInput, now(), || seen.use_it()).is_err() {
                        assert!(guard.permit(Op::SendInput, now(), || ()).is_err(), "denied is denied");
                    }
                }
                guard
            });
            revoke(&live, why, &witness);
            let mut guard = streaming.join().unwrap();
            assert_eq!(
                guard.permit(Op::SendInput, now(), || ()),
                Err(PermitError::of_mark(Cut::denial(why as u8).unwrap()))
            );
        });
    }
}

#[test]
fn permits_of_two_tasks_and_a_revocation() {
    bounded(3, || {
        let (live, witness) = (live(), Arc::new(Witness::default()));
        let guard = guard(&live);
        let tasks: Vec<_> = [guard.fork(), guard]
            .into_iter()
            .map(|mut guard| {
                let (live, watched) = (Arc::clone(&live), Arc::clone(&witness));
                thread::spawn(move || {
                    let _ = guard.permit(Op::SendInput, now(), || {
                        assert!(!watched.revoked.load(Ordering::SeqCst));
                    });
                    drop(live);
                })
            })
            .collect();
        live.cut(Cut::Revoked);
        live.wake();
        live.wait_for_permits();
        witness.revoked.store(true, Ordering::SeqCst);
        tasks.into_iter().for_each(|task| task.join().unwrap());
    });
}

#[test]
fn a_fork_made_during_a_revocation_permits_nothing_after_it() {
    loom::model(|| {
        let (live, witness) = (live(), Arc::new(Witness::default()));
        let guard = guard(&live);
        let seen = Arc::clone(&witness);
        let forking = thread::spawn(move || {
            let mut fork = guard.fork();
            let _ = fork.permit(Op::SendInput, now(), || seen.use_it());
        });
        revoke(&live, Cut::Revoked, &witness);
        forking.join().unwrap();
    });
}

/// Two threads that both spin would not end in a model; the case of interest is one that has marked and not
/// waited yet.
#[test]
fn a_revoker_that_comes_second_waits_as_well() {
    loom::model(|| {
        let (live, witness) = (live(), Arc::new(Witness::default()));
        let mut guard = guard(&live);
        let seen = Arc::clone(&witness);
        let streaming = thread::spawn(move || {
            let _ = guard.permit(Op::SendInput, now(), || seen.use_it());
        });
        let first = {
            let live = Arc::clone(&live);
            thread::spawn(move || live.cut(Cut::Expired))
        };
        revoke(&live, Cut::Revoked, &witness);
        streaming.join().unwrap();
        first.join().unwrap();
    });
}

#[test]
fn a_permit_and_a_narrowing() {
    loom::model(|| {
        let (live, witness) = (live(), Arc::new(Witness::default()));
        let mut guard = guard(&live);
        let seen = Arc::clone(&witness);
        let streaming = thread::spawn(move || {
            let _ = guard.permit(Op::SendInput, now(), || seen.use_it());
            assert_eq!(guard.permit(Op::StreamOutput, now(), || ()), Ok(()), "what stays is never refused");
            guard
        });
        live.narrow(terms(OpSet::only(Op::StreamOutput)));
        live.wait_for_permits();
        witness.returned();
        let mut guard = streaming.join().unwrap();
        let gone = Err(PermitError::Refused(Denial::OperationNotGranted { op: Op::SendInput }));
        assert_eq!(guard.permit(Op::SendInput, now(), || ()), gone);
    });
}

#[test]
fn a_fork_made_during_a_narrowing_is_narrow() {
    loom::model(|| {
        let (live, witness) = (live(), Arc::new(Witness::default()));
        let guard = guard(&live);
        let seen = Arc::clone(&witness);
        let forking = thread::spawn(move || {
            let mut fork = guard.fork();
            let _ = fork.permit(Op::SendInput, now(), || seen.use_it());
            fork
        });
        live.narrow(terms(OpSet::only(Op::StreamOutput)));
        live.wait_for_permits();
        witness.returned();
        let mut fork = forking.join().unwrap();
        assert!(fork.permit(Op::SendInput, now(), || ()).is_err());
        assert!(fork.permit(Op::StreamOutput, now(), || ()).is_ok());
    });
}

#[test]
fn a_narrowing_and_a_revocation_of_the_same_stream() {
    bounded(3, || {
        let (live, witness) = (live(), Arc::new(Witness::default()));
        let mut guard = guard(&live);
        let seen = Arc::clone(&witness);
        let streaming = thread::spawn(move || {
            let _ = guard.permit(Op::SendInput, now(), || seen.use_it());
        });
        let narrowing = {
            let live = Arc::clone(&live);
            thread::spawn(move || live.narrow(terms(OpSet::only(Op::StreamOutput))))
        };
        revoke(&live, Cut::Revoked, &witness);
        streaming.join().unwrap();
        narrowing.join().unwrap();
    });
}

struct CountedWaker(AtomicUsize);

impl Wake for CountedWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Plain::SeqCst);
    }
}

#[test]
fn a_waiting_task_sees_the_cut_or_is_woken() {
    loom::model(|| {
        let live = live();
        let mut signal = guard(&live).cut();
        let woken = Arc::new(CountedWaker(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&woken));
        let waiting = thread::spawn(move || {
            let polled = Pin::new(&mut signal).poll(&mut Context::from_waker(&waker));
            (polled.is_ready(), signal)
        });
        live.cut(Cut::Revoked);
        live.wake();
        live.wait_for_permits();
        let (ready, mut signal) = waiting.join().unwrap();
        assert!(ready || woken.0.load(Plain::SeqCst) > 0, "a lost wake-up");
        let waker = Waker::from(woken);
        let again = Pin::new(&mut signal).poll(&mut Context::from_waker(&waker));
        assert_eq!(again, Poll::Ready(Denial::CredentialRevoked));
    });
}

/// Runs every interleaving with at most this many preemptions, for models of three threads.
fn bounded(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Both halves of a channel in their own tasks, and a revoker: every frame that the phone decrypts was sealed
/// before the revocation returned, once and in order, and the end frame decrypts after them.
#[test]
fn the_halves_of_a_guarded_channel_and_a_revocation() {
    use crate::protocol::frame::{EndCode, Frame};
    use crate::protocol::noise::{Channel, Initiator, Responder};

    fn connected() -> (Channel, Channel) {
        let agent = crate::key::AgentSecretKey::from_bytes([1; 32]);
        let phone = crate::key::HolderSecretKey::from_bytes([2; 32]);
        let mut rng = rand::rngs::OsRng;
        let started = Initiator::start(&phone, &agent.public(), b"", &mut rng).unwrap();
        let received = Responder::read(&agent, &started.message, &mut rng).unwrap();
        let replied = received.reply(b"").unwrap();
        (started.next.finish(&replied.message).unwrap().channel, replied.channel)
    }

    bounded(2, || {
        let (live, witness) = (live(), Arc::new(Witness::default()));
        let (mut phone, agent) = connected();
        let first = FirstFrame::read(Frame::Data(b"typed").to_bytes()).unwrap();
        let room = Arc::new(MessageRoom::new(0));
        let (mut sender, mut receiver) = GuardedChannel::new(guard(&live), agent, first, room, now()).split();
        let seen = Arc::clone(&witness);
        let receiving = thread::spawn(move || {
            let received = receiver.try_receive(Op::SendInput, now(), |_| seen.use_it());
            assert!(matches!(received, Ok(Some(())) | Err(PermitError::Over(_))));
        });
        let sending = thread::spawn(move || {
            let action = Action::Session(Op::StreamOutput);
            let sealed = sender.try_send_with(action, now(), |plaintext| plaintext.push(1));
            (sealed.map(|(frame, ())| frame), sender.end(EndCode::LEFT).unwrap())
        });
        revoke(&live, Cut::Revoked, &witness);
        receiving.join().unwrap();
        let (sealed, end) = sending.join().unwrap();
        match sealed {
            Ok(frame) => assert_eq!(phone.open(&frame).unwrap(), Frame::Data([1]).to_bytes()),
            Err(error) => assert_eq!(error, PermitError::Over(Denial::CredentialRevoked)),
        }
        assert_eq!(phone.open(&end).unwrap(), Frame::<Vec<u8>>::End(EndCode::LEFT).to_bytes());
    });
}

/// The lease of a log that several nodes share is renewed after what was read was observed, so a permit that only
/// the renewed lease allows finds the cut.
#[test]
fn a_permit_that_only_a_later_read_of_the_log_allows_finds_what_was_observed_before() {
    loom::model(|| {
        let live = live();
        let lease = Arc::clone(&live.lease);
        lease.follow(now().monotonic);
        let mut guard = guard(&live);
        let streaming = thread::spawn(move || {
            for _ in 0..2 {
                assert!(guard.permit(Op::SendInput, now(), || ()).is_err(), "a permit of before the read");
            }
        });
        live.cut(Cut::Revoked);
        live.wake();
        live.wait_for_permits();
        lease.caught_up(now().monotonic + Duration::SECOND);
        streaming.join().unwrap();
    });
}

/// An observed narrowing needs no lock of the ledger, and comes after its commit. A guard that joins meanwhile with
/// the terms that it has read is narrow, or finds the narrowing counted.
#[test]
fn a_guard_that_joins_during_an_observed_narrowing_is_narrow_or_finds_it_counted() {
    loom::model(|| {
        let (live, record) = (live(), Arc::new(Watched::new(false)));
        let fewer = OpSet::only(Op::StreamOutput);
        let joining = {
            let (live, record) = (Arc::clone(&live), Arc::clone(&record));
            thread::spawn(move || {
                let before = live.narrowings();
                let ops = if record.load(Ordering::Acquire) { fewer } else { both() };
                let guard = guard_with(&live, ops);
                (live.narrowings() == before).then_some(guard)
            })
        };
        record.store(true, Ordering::Release);
        live.narrow(terms(fewer));
        live.wait_for_permits();
        if let Some(mut guard) = joining.join().unwrap() {
            let gone = Err(PermitError::Refused(Denial::OperationNotGranted { op: Op::SendInput }));
            assert_eq!(guard.permit(Op::SendInput, now(), || ()), gone);
        }
    });
}
