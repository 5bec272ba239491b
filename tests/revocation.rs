//! Revocation: every method, at every point of a credential's life, from any thread.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll, Wake, Waker};

use common::*;
use sessioncap::agent::*;
use sessioncap::desktop::*;
use sessioncap::phone::*;
use sessioncap::*;

type Verb = fn(&World, &Pairing, &Desktop) -> Result<(), Denial>;

/// One way to revoke a pairing, and the reasons that its stream and its phone get from then on.
struct Way {
    name: &'static str,
    verb: Verb,
    stream: Denial,
    record: Denial,
    status: Status,
}

fn ways() -> [Way; 7] {
    let revoked = |name, verb| Way {
        name,
        verb,
        stream: Denial::CredentialRevoked,
        record: Denial::CredentialRevoked,
        status: Status::Revoked,
    };
    [
        revoked("ticket", |w, p, _| w.gate.revoke_ticket(&p.ticket, w.now).map(drop)),
        revoked("credential", |w, p, _| w.gate.revoke_credential(&p.credential, w.now).map(drop)),
        revoked("session", |w, _, _| w.gate.revoke_session(&session(SESSION), w.now).map(drop)),
        revoked("issuer", |w, _, d| w.gate.revoke_issuer(&d.issuer.public(), w.now).map(drop)),
        revoked("device", |w, _, d| w.gate.revoke_device(&d.device, w.now).map(drop)),
        revoked("trust set", |w, _, _| w.gate.sync_devices(&[], w.now).map(drop)),
        Way {
            name: "session end",
            verb: |w, _, _| w.gate.end_session(&session(SESSION), w.now).map(drop),
            stream: Denial::SessionGone,
            record: Denial::SessionGone,
            status: Status::SessionGone,
        },
    ]
}

#[test]
fn every_method_before_redemption_leaves_nothing_to_redeem() {
    for way in ways() {
        let world = World::new();
        let desktop = world.desktop(9);
        let pairing = desktop.share(&world, &terms());
        (way.verb)(&world, &pairing, &desktop).unwrap();
        let refusal = world.join(&pairing.link, &phone(2));
        assert!(refusal.is_err(), "{}: redeemed after it was revoked", way.name);
        assert_eq!(refusal.unwrap_err().told, Some(PhoneError::Refused(way.status)), "{}", way.name);
        assert!(matches!(world.only_listing().state, ListingState::Revoked { .. }), "{}", way.name);
    }
}

#[test]
fn every_method_after_redemption_cuts_the_stream_and_refuses_attaches() {
    for way in ways() {
        let world = World::new();
        let desktop = world.desktop(9);
        let pairing = desktop.share(&world, &terms());
        let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
        let mut fork = joined.guard.fork();
        let mut second = world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap();
        (way.verb)(&world, &pairing, &desktop).unwrap();
        for guard in [&mut joined.guard, &mut fork, &mut second] {
            let cut = guard.ask(Op::StreamOutput, world.now, || panic!("ran"));
            assert_eq!(cut, Err::<(), _>(way.stream.clone()), "{}", way.name);
            assert_eq!(guard.checked(world.now), Err(way.stream.clone()), "{}", way.name);
        }
        let mut late = joined.guard.fork();
        assert_eq!(late.checked(world.now), Err(way.stream.clone()), "a fork of a cut guard is cut");
        let shut = Refusal::told(way.record.clone(), way.status);
        let attached = world.attach(&phone(2), &joined.credential, OpSet::EMPTY);
        assert_eq!(attached.unwrap_err(), shut, "{}", way.name);
        assert_eq!(world.join(&pairing.link, &phone(2)).unwrap_err(), shut, "{}", way.name);
        let listing = world.only_listing();
        assert_eq!(listing.connections, 0);
        assert!(matches!(listing.state, ListingState::Revoked { .. }), "{}", way.name);
    }
}

#[test]
fn every_method_may_be_called_twice() {
    for way in ways() {
        let world = World::new();
        let desktop = world.desktop(9);
        let (open, redeemed) = (desktop.share(&world, &terms()), desktop.share(&world, &terms()));
        let _joined = world.join(&redeemed.link, &phone(2)).unwrap();
        for pairing in [&open, &redeemed] {
            (way.verb)(&world, pairing, &desktop).unwrap();
        }
        let listed = world.list();
        for pairing in [&open, &redeemed, &open] {
            (way.verb)(&world, pairing, &desktop).unwrap();
        }
        assert_eq!(world.list(), listed, "{}", way.name);
    }
}

#[test]
fn every_method_accepts_an_unknown_id() {
    for way in ways() {
        let world = World::new();
        let desktop = Desktop::new(&world, 9);
        let pairing = desktop.mint(&world, &terms());
        (way.verb)(&world, &pairing, &desktop).unwrap();
        assert!(world.events().is_empty() && world.list().is_empty(), "{}", way.name);
    }
}

#[test]
fn revoking_one_harms_no_other() {
    let world = World::new();
    let (first, second) = (world.desktop(9), world.desktop(8));
    world.start_session("other");
    let revoked = first.share(&world, &terms());
    let kept = second.share(&world, &terms());
    let _joined = world.join(&revoked.link, &phone(2)).unwrap();
    let mut other = world.join(&kept.link, &phone(3)).unwrap();
    world.gate.revoke_ticket(&revoked.ticket, world.now).unwrap();
    world.gate.revoke_credential(&revoked.credential, world.now).unwrap();
    world.gate.revoke_issuer(&first.issuer.public(), world.now).unwrap();
    world.gate.revoke_device(&first.device, world.now).unwrap();
    world.gate.sync_devices(&[second.device], world.now).unwrap();
    world.gate.revoke_session(&session("other"), world.now).unwrap();
    world.gate.end_session(&session("other"), world.now).unwrap();
    assert_eq!(other.guard.ask(Op::SendInput, world.now, || 1), Ok(1));
    assert!(world.attach(&phone(3), &other.credential, OpSet::EMPTY).is_ok());
}

#[test]
fn a_ticket_can_be_revoked_as_long_as_its_credential_lives() {
    let mut world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    // The ticket itself is long over, its retry window too, and the list still names it.
    world.pass(6 * 3_600);
    world.gate.settle(world.now).unwrap();
    assert_eq!(world.list().last().unwrap().ticket, pairing.ticket);
    world.gate.revoke_ticket(&pairing.ticket, world.now).unwrap();
    assert_eq!(joined.guard.ask(Op::SendInput, world.now, || ()), Err(Denial::CredentialRevoked));
    let attached = world.attach(&phone(2), &joined.credential, OpSet::EMPTY);
    assert!(attached.is_err(), "attached after the ticket was revoked");
    assert_eq!(attached.unwrap_err(), Refusal::told(Denial::CredentialRevoked, Status::Revoked));
}

#[test]
fn an_unknown_id_cuts_nobody() {
    let world = World::new();
    let desktop = world.desktop(9);
    let mut joined = world.join(&desktop.share(&world, &terms()).link, &phone(2)).unwrap();
    world.gate.revoke_ticket(&TicketId::from_bytes([1; 16]), world.now).unwrap();
    world.gate.revoke_credential(&CredentialId::from_bytes([1; 16]), world.now).unwrap();
    world.gate.revoke_session(&session("unknown"), world.now).unwrap();
    world.gate.sync_devices(&[desktop.device], world.now).unwrap();
    assert_eq!(joined.guard.ask(Op::SendInput, world.now, || 1), Ok(1));
}

// --- nothing is revived ---

#[test]
fn registering_a_revoked_issuer_again_revives_nothing() {
    let world = World::new();
    let desktop = world.desktop(9);
    let (open, redeemed) = (desktop.share(&world, &terms()), desktop.share(&world, &terms()));
    let mut joined = world.join(&redeemed.link, &phone(2)).unwrap();
    type Revoke = fn(&World, &Desktop) -> Result<(), Denial>;
    let revoke: [Revoke; 3] = [
        |w, d| w.gate.revoke_issuer(&d.issuer.public(), w.now).map(drop),
        |w, d| w.gate.revoke_device(&d.device, w.now).map(drop),
        |w, _| w.gate.sync_devices(&[], w.now).map(drop),
    ];
    for verb in revoke {
        verb(&world, &desktop).unwrap();
        desktop.register(&world).unwrap();
        assert!(joined.guard.ask(Op::SendInput, world.now, || ()).is_err());
        assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_err());
        for pairing in [&open, &redeemed] {
            assert!(world.join(&pairing.link, &phone(2)).is_err());
            assert_eq!(desktop.lodge(&world, pairing), Err(Denial::OfferRepeated));
        }
    }
    assert!(world.join(&desktop.share(&world, &terms()).link, &phone(2)).is_ok(), "a new offer is new");
}

#[test]
fn a_session_that_ends_and_begins_again_under_its_id_revives_nothing() {
    let world = World::new();
    let desktop = world.desktop(9);
    let (open, redeemed) = (desktop.share(&world, &terms()), desktop.share(&world, &terms()));
    let mut joined = world.join(&redeemed.link, &phone(2)).unwrap();
    world.stop_session(SESSION);
    world.gate.end_session(&session(SESSION), world.now).unwrap();
    world.start_session(SESSION);
    let fresh = desktop.share(&world, &terms());
    assert_eq!(joined.guard.ask(Op::SendInput, world.now, || ()), Err(Denial::SessionGone));
    let gone = Refusal::told(Denial::SessionGone, Status::SessionGone);
    assert_eq!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err(), gone);
    assert_eq!(world.join(&open.link, &phone(2)).unwrap_err(), gone);
    assert_eq!(world.join(&redeemed.link, &phone(2)).unwrap_err(), gone);
    assert!(world.join(&fresh.link, &phone(3)).is_ok());
}

#[test]
fn a_revoked_session_that_goes_on_can_be_shared_again() {
    let world = World::new();
    let desktop = world.desktop(9);
    let joined = world.join(&desktop.share(&world, &terms()).link, &phone(2)).unwrap();
    world.gate.revoke_session(&session(SESSION), world.now).unwrap();
    let again = world.join(&desktop.share(&world, &terms()).link, &phone(2)).unwrap();
    assert!(world.attach(&phone(2), &again.credential, OpSet::EMPTY).is_ok());
    assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_err());
}

#[test]
fn the_context_alone_ends_a_session_for_the_next_attach() {
    let world = World::new();
    let desktop = world.desktop(9);
    let (open, redeemed) = (desktop.share(&world, &terms()), desktop.share(&world, &terms()));
    let joined = world.join(&redeemed.link, &phone(2)).unwrap();
    world.stop_session(SESSION);
    let gone = Refusal::told(Denial::SessionGone, Status::SessionGone);
    assert_eq!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err(), gone);
    assert_eq!(world.join(&open.link, &phone(3)).unwrap_err(), gone);
}

#[test]
fn the_holder_learns_revoked_until_the_credential_would_have_ended() {
    let mut world = World::new();
    let pairing = world.desktop(9).share(&world, &terms().with_valid_for(3_600).unwrap());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
    world.pass(3_599);
    let told = world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err();
    assert_eq!(told, Refusal::told(Denial::CredentialRevoked, Status::Revoked));
    world.pass(1 + limits::TOMBSTONE_GRACE as i64);
    world.gate.settle(world.now).unwrap();
    let told = world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err();
    assert_eq!(told, Refusal::silent(Denial::CredentialUnknown), "nothing is kept for ever");
}

// --- audit ---

#[test]
fn the_audit_counts_without_gaps_and_holds_no_secret() {
    let mut world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &terms().with_label(text("label")));
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let _ = world.join(&pairing.link, &phone(3));
    let waiting = desktop.share(&world, &terms().with_confirmation(Confirmation::Required));
    let _ = world.join(&waiting.link, &phone(4));
    world.gate.confirm(&desktop.device, &waiting.ticket, &phone(4).public(), world.now).unwrap();
    let open = desktop.share(&world, &terms());
    world.gate.revoke_ticket(&open.ticket, world.now).unwrap();
    let renewed = desktop.share(&world, &terms().with_valid_for(60).unwrap());
    let old = world.join(&renewed.link, &phone(6)).unwrap();
    desktop.renew(&world, &renewed, OpSet::COMPANION, 3_600).unwrap();
    let new = world.attach_renewed(&phone(6), &old.credential).unwrap();
    drop(world.attach(&phone(6), &new, OpSet::EMPTY).unwrap());
    let _unused = desktop.share(&world, &terms().with_ticket_lifetime(30).unwrap());
    let short = desktop.share(&world, &terms().with_valid_for(30).unwrap());
    let _ = world.join(&short.link, &phone(5)).unwrap();
    world.pass(60);
    world.gate.settle(world.now).unwrap();
    world.gate.end_session(&session(SESSION), world.now).unwrap();
    world.gate.revoke_device(&desktop.device, world.now).unwrap();
    world.gate.reset_clock(world.now).unwrap();
    let records = world.audit.lock().unwrap().clone();
    for (index, record) in records.iter().enumerate() {
        assert_eq!(record.sequence, index as u64);
    }
    let names: std::collections::BTreeSet<String> = records
        .iter()
        .map(|record| serde_json::to_value(record).unwrap()["event"].as_str().unwrap().to_owned())
        .collect();
    let all = [
        "clock_reset",
        "credential_confirmed",
        "credential_expired",
        "credential_renewed",
        "credential_revoked",
        "gate_opened",
        "issuer_registered",
        "issuer_revoked",
        "phone_attached",
        "renewal_used",
        "session_closed",
        "ticket_contested",
        "ticket_expired",
        "ticket_offered",
        "ticket_redeemed",
        "ticket_revoked",
    ];
    assert_eq!(names.into_iter().collect::<Vec<_>>(), all, "every kind of event happened");
    let mut secrets: Vec<Vec<u8>> = vec![new.as_bytes().to_vec(), joined.credential.as_bytes().to_vec()];
    for link in [&pairing.link, &waiting.link, &open.link, &short.link] {
        secrets.push(link.ticket().expose_bytes().to_vec());
    }
    secrets.extend((1..10).map(|seed| phone(seed).expose_bytes().to_vec()));
    secrets.push(vec![9 ^ 0x55; 32]);
    let shown = format!("{records:?} {}", serde_json::to_string(&records).unwrap());
    for secret in &secrets {
        assert_none_of(&shown, secret, "audit");
    }
}

/// No spelling of these bytes in the text: hexadecimal, base64 of both alphabets, or a list.
fn assert_none_of(shown: &str, secret: &[u8], what: &str) {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{:?}", &secret[..12]);
    let lower = shown.to_ascii_lowercase();
    assert!(!lower.contains(&hex[..24]), "{what}: hexadecimal");
    assert!(!shown.contains(&STANDARD_NO_PAD.encode(secret)[..16]), "{what}: base64");
    assert!(!shown.contains(&URL_SAFE_NO_PAD.encode(secret)[..16]), "{what}: base64url");
    assert!(!shown.contains(list.trim_matches(['[', ']'])), "{what}: a list of numbers");
}

#[test]
fn debug_output_of_no_type_holds_a_credential_or_a_ticket() {
    let rng = &mut rand::rngs::OsRng;
    let world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &terms());
    let unbound = cbor::bytes_of(&cbor::decode(&pairing.offer.to_bytes()).unwrap(), 7);
    let mut shown = vec![
        ("Pairing", format!("{pairing:?}")),
        ("Issuer", format!("{:?}", desktop.issuer)),
        ("Gate", format!("{:?}", world.gate)),
    ];
    let asking = world.ask(&pairing.link, &phone(2));
    shown.push(("Asking", format!("{asking:?}")));
    let received = world.open(&asking.message).unwrap();
    let admission = world.admit(&phone(2), received.payload());
    shown.push(("Admission", format!("{admission:?}")));
    let PeerAdmission::Admitted { reply, guard } = admission else { panic!() };
    shown.push(("PendingGuard", format!("{guard:?}")));
    let replied = received.reply(&reply).unwrap();
    shown.push(("Replied", format!("{replied:?}")));
    let redeemed = asking.next.finish(&replied.message).unwrap();
    shown.push(("Redeemed", format!("{redeemed:?}")));
    let Redeemed::Attached { credential, .. } = redeemed else { panic!() };
    let asking = attach(&world.agent.public(), &phone(2), &credential, OpSet::EMPTY, rng).unwrap();
    shown.push(("Asking", format!("{asking:?}")));
    shown.push(("Received", format!("{:?}", world.open(&asking.message).unwrap())));
    let started = noise::Initiator::start(&phone(2), &world.agent.public(), b"", rng).unwrap();
    let answer = world.open(&started.message).unwrap().reply(&reply).unwrap();
    shown.push(("Finished", format!("{:?}", started.next.finish(&answer.message).unwrap())));
    shown.push(("Credential", format!("{:?}", Credential::parse(&credential).unwrap())));
    shown.push(("Listing", format!("{:?}", world.list())));
    let last = |bytes: &[u8]| bytes[bytes.len() - 32..].to_vec();
    for (what, shown) in shown {
        assert_none_of(&shown, pairing.link.ticket().expose_bytes(), what);
        // A token ends with the key of its next block.
        for token in [credential.as_bytes(), &unbound] {
            assert_none_of(&shown, token, what);
            assert_none_of(&shown, &last(token), what);
        }
    }
}

// --- waking ---

#[derive(Default)]
struct CountingWaker(AtomicUsize);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl CountingWaker {
    fn poll(self: &Arc<Self>, signal: Pin<&mut impl Future<Output = Denial>>) -> Poll<Denial> {
        signal.poll(&mut TaskContext::from_waker(&Waker::from(Arc::clone(self))))
    }

    fn woken(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn a_cut_wakes_its_waiters_with_the_reason() {
    for way in ways() {
        let world = World::new();
        let desktop = world.desktop(9);
        let pairing = desktop.share(&world, &terms());
        let joined = world.join(&pairing.link, &phone(2)).unwrap();
        let fork = joined.guard.fork();
        let (mut one, mut two) = (pin!(joined.guard.cut()), pin!(fork.cut()));
        let (waker, other) = (Arc::new(CountingWaker::default()), Arc::new(CountingWaker::default()));
        assert!(waker.poll(one.as_mut()).is_pending());
        assert!(other.poll(two.as_mut()).is_pending());
        assert_eq!((waker.woken(), other.woken()), (0, 0));
        (way.verb)(&world, &pairing, &desktop).unwrap();
        assert_eq!((waker.woken(), other.woken()), (1, 1), "{}", way.name);
        assert_eq!(waker.poll(one.as_mut()), Poll::Ready(way.stream.clone()));
        assert_eq!(other.poll(two.as_mut()), Poll::Ready(way.stream));
    }
}

#[test]
fn a_contest_wakes_the_first_phones_stream() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let mut signal = pin!(joined.guard.cut());
    let waker = Arc::new(CountingWaker::default());
    assert!(waker.poll(signal.as_mut()).is_pending());
    assert!(world.join(&pairing.link, &phone(3)).is_err());
    assert_eq!(waker.woken(), 1);
    assert_eq!(waker.poll(signal.as_mut()), Poll::Ready(Denial::TicketContested));
}

#[test]
fn an_expiry_wakes_whichever_call_finds_it() {
    let finders: [fn(&World, &Desktop); 3] = [
        |world, _| world.gate.settle(world.now).unwrap(),
        |world, desktop| drop(desktop.share(world, &terms())),
        |world, _| world.gate.revoke_ticket(&TicketId::from_bytes([1; 16]), world.now).map(drop).unwrap(),
    ];
    for finder in finders {
        let mut world = World::new();
        let desktop = world.desktop(9);
        let pairing = desktop.share(&world, &terms().with_valid_for(60).unwrap());
        let joined = world.join(&pairing.link, &phone(2)).unwrap();
        let mut signal = pin!(joined.guard.cut());
        let waker = Arc::new(CountingWaker::default());
        assert!(waker.poll(signal.as_mut()).is_pending());
        world.pass(60);
        finder(&world, &desktop);
        assert_eq!(waker.woken(), 1);
        assert_eq!(waker.poll(signal.as_mut()), Poll::Ready(Denial::CredentialExpired));
    }
}

#[test]
fn a_reset_of_the_clock_wakes_everyone() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let mut signal = pin!(joined.guard.cut());
    let waker = Arc::new(CountingWaker::default());
    assert!(waker.poll(signal.as_mut()).is_pending());
    world.gate.reset_clock(world.now).unwrap();
    assert_eq!(waker.woken(), 1);
    assert_eq!(waker.poll(signal.as_mut()), Poll::Ready(Denial::CredentialRevoked));
}

/// Calls the gate when it is woken, as an executor that runs a task at once may.
struct CallingWaker {
    gate: Gate,
    now: Now,
}

impl Wake for CallingWaker {
    fn wake(self: Arc<Self>) {
        list_all(&self.gate, None, self.now).unwrap();
        self.gate.revoke_session(&session(SESSION), self.now).unwrap();
    }
}

#[test]
fn a_waker_may_call_the_gate() {
    must_return(|| {
        let mut world = World::new();
        let desktop = world.desktop(9);
        for verb in ["revoke", "expire"] {
            let pairing = desktop.share(&world, &terms().with_valid_for(60).unwrap());
            let joined = world.join(&pairing.link, &phone(2)).unwrap();
            let mut signal = pin!(joined.guard.cut());
            let waker = Waker::from(Arc::new(CallingWaker { gate: world.gate.clone(), now: world.now }));
            assert!(signal.as_mut().poll(&mut TaskContext::from_waker(&waker)).is_pending());
            match verb {
                "revoke" => world.gate.revoke_credential(&pairing.credential, world.now).map(drop).unwrap(),
                _ => {
                    world.pass(60);
                    world.gate.settle(world.now).unwrap();
                }
            }
        }
    });
}

#[tokio::test]
async fn a_task_of_a_runtime_is_woken() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let signal = joined.guard.cut();
    let (gate, now, id) = (world.gate.clone(), world.now, pairing.credential);
    let waiting = tokio::spawn(signal);
    let revoking = tokio::task::spawn_blocking(move || gate.revoke_credential(&id, now));
    let woken = tokio::time::timeout(std::time::Duration::from_secs(120), waiting).await;
    assert_eq!(woken.unwrap().unwrap(), Denial::CredentialRevoked);
    revoking.await.unwrap().unwrap();
}

#[test]
fn signals_that_nobody_holds_any_more_leave_nothing_behind() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let waker = Arc::new(CountingWaker::default());
    for _ in 0..10_000 {
        assert!(waker.poll(pin!(joined.guard.cut())).is_pending());
    }
    assert_eq!(Arc::strong_count(&waker), 1, "a waker outlives its signal");
    world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
    assert_eq!(waker.woken(), 0);
}

#[test]
fn a_signal_made_after_the_cut_is_ready_at_once() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
    let waker = Arc::new(CountingWaker::default());
    assert_eq!(waker.poll(pin!(joined.guard.cut())), Poll::Ready(Denial::CredentialRevoked));
}

#[test]
fn a_signal_outlives_the_guard_that_it_came_from() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let mut signal = pin!(joined.guard.fork().cut());
    let waker = Arc::new(CountingWaker::default());
    assert!(waker.poll(signal.as_mut()).is_pending());
    // Another guard of the same credential joins in between.
    let _more = world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap();
    world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
    assert_eq!(waker.woken(), 1);
    assert_eq!(waker.poll(signal.as_mut()), Poll::Ready(Denial::CredentialRevoked));
}

#[tokio::test]
async fn a_cut_ends_a_tokio_task_that_waits_for_it() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let (started, ready) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        started.send(()).unwrap();
        joined.guard.cut().await
    });
    ready.await.unwrap();
    tokio::task::yield_now().await;
    let (gate, now, credential) = (world.gate.clone(), world.now, pairing.credential);
    std::thread::spawn(move || gate.revoke_credential(&credential, now)).join().unwrap().unwrap();
    let reason = tokio::time::timeout(std::time::Duration::from_secs(120), task).await;
    assert_eq!(reason.unwrap().unwrap(), Denial::CredentialRevoked);
}

// --- the contract, with real threads ---

/// Runs `call` on a thread of its own and fails if it never returns.
fn must_return<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(call()));
    receiver.recv_timeout(std::time::Duration::from_secs(120)).expect("it failed, or waits for itself")
}

#[test]
fn revoking_inside_a_permit_is_an_error_and_no_deadlock() {
    must_return(|| {
        for way in ways() {
            let world = World::new();
            let desktop = world.desktop(9);
            let pairing = desktop.share(&world, &terms());
            let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
            let verb = || (way.verb)(&world, &pairing, &desktop);
            let inside = joined.guard.ask(Op::SendInput, world.now, verb);
            let misuse = Denial::ApiMisuse(Misuse::InsidePermit);
            assert_eq!(inside, Ok(Err(misuse)), "{}", way.name);
            assert_eq!(joined.guard.ask(Op::SendInput, world.now, || 1), Ok(1), "nothing happened");
            (way.verb)(&world, &pairing, &desktop).unwrap();
        }
    });
}

#[test]
fn revoking_inside_a_permit_after_a_permit_inside_it_is_an_error_too() {
    must_return(|| {
        let world = World::new();
        let pairing = world.desktop(9).share(&world, &terms());
        let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
        let mut fork = joined.guard.fork();
        let inside = joined.guard.ask(Op::SendInput, world.now, || {
            fork.ask(Op::StreamOutput, world.now, || ()).unwrap();
            world.gate.revoke_credential(&pairing.credential, world.now)
        });
        assert_eq!(inside, Ok(Err(Denial::ApiMisuse(Misuse::InsidePermit))));
    });
}

#[test]
fn a_contest_inside_a_permit_does_not_deadlock() {
    must_return(|| {
        let world = World::new();
        let pairing = world.desktop(9).share(&world, &terms());
        let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
        let message = world.ask(&pairing.link, &phone(3)).message;
        let inside = joined
            .guard
            .ask(Op::SendInput, world.now, || !matches!(world.respond(&message), Response::Admitted(..)));
        assert_eq!(inside, Ok(true));
    });
}

#[test]
fn a_closure_that_panics_leaves_no_permit_in_use() {
    must_return(|| {
        let world = World::new();
        let pairing = world.desktop(9).share(&world, &terms());
        let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            joined.guard.ask(Op::SendInput, world.now, || panic!("on purpose"))
        }));
        assert!(panicked.is_err());
        world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
    });
}

#[test]
fn when_a_revoker_returns_no_permit_is_granted_and_none_is_in_use() {
    const ROUNDS: usize = 250;
    const STREAMS: usize = 2;
    let mut world = World::new();
    let desktop = world.desktop(9);
    let permits = AtomicU64::new(0);
    let late = AtomicU64::new(0);
    for round in 0..ROUNDS {
        let pairing = desktop.share(&world, &terms());
        let joined = world.join(&pairing.link, &phone(2)).unwrap();
        let revoked = AtomicBool::new(false);
        let begun = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..STREAMS {
                let mut guard = joined.guard.fork();
                let (now, revoked, begun, permits, late) = (world.now, &revoked, &begun, &permits, &late);
                scope.spawn(move || {
                    loop {
                        let outcome = guard.ask(Op::StreamOutput, now, || {
                            begun.fetch_add(1, Ordering::SeqCst);
                            std::hint::black_box(one_frame());
                            if revoked.load(Ordering::SeqCst) {
                                late.fetch_add(1, Ordering::SeqCst);
                            }
                        });
                        match outcome {
                            Ok(()) => permits.fetch_add(1, Ordering::Relaxed),
                            Err(denial) => {
                                assert_eq!(denial, Denial::CredentialRevoked);
                                break;
                            }
                        };
                    }
                });
            }
            // Let the streams run for a while that differs from round to round.
            while begun.load(Ordering::SeqCst) < round % 50 {
                std::thread::yield_now();
            }
            world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
            revoked.store(true, Ordering::SeqCst);
        });
        world.pass(600);
    }
    assert_eq!(late.load(Ordering::SeqCst), 0);
    assert!(permits.load(Ordering::SeqCst) > 2_000, "{permits:?} permits: too few to show anything");
}

/// As much work as the encryption of a short frame.
fn one_frame() -> u64 {
    (0..200_u64).fold(1, |sum, n| std::hint::black_box(sum.wrapping_mul(31).wrapping_add(n)))
}

#[test]
fn a_revoker_and_arriving_phones_agree() {
    let world = World::new();
    let desktop = world.desktop(9);
    for _ in 0..60 {
        let pairing = desktop.share(&world, &terms());
        let joined = world.join(&pairing.link, &phone(2)).unwrap();
        let revoked = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (world, revoked, credential) = (&world, &revoked, &joined.credential);
            scope.spawn(move || {
                loop {
                    let after = revoked.load(Ordering::SeqCst);
                    match world.attach(&phone(2), credential, OpSet::EMPTY) {
                        Ok(mut guard) => {
                            assert!(!after, "admitted after the revoker returned");
                            let late =
                                guard.ask(Op::StreamOutput, world.now, || revoked.load(Ordering::SeqCst));
                            assert_ne!(late, Ok(true));
                        }
                        Err(refusal) => {
                            assert_eq!(refusal.denial, Denial::CredentialRevoked);
                            break;
                        }
                    }
                }
            });
            world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
            revoked.store(true, Ordering::SeqCst);
        });
        assert_eq!(world.list().iter().map(|listing| listing.connections).sum::<u32>(), 0);
    }
}

/// The precedence is revoked, session gone, expired, whether or not the gate was settled in between.
#[test]
fn an_issuer_or_session_that_ended_later_precedes_expired() {
    type End = fn(&World, &Desktop) -> Result<(), Denial>;
    let ends: [(End, Status); 4] = [
        (
            |world, desktop| world.gate.revoke_issuer(&desktop.issuer.public(), world.now).map(drop),
            Status::Revoked,
        ),
        (|world, desktop| world.gate.revoke_device(&desktop.device, world.now).map(drop), Status::Revoked),
        (|world, _| world.gate.sync_devices(&[], world.now).map(drop), Status::Revoked),
        (|world, _| world.gate.end_session(&session(SESSION), world.now).map(drop), Status::SessionGone),
    ];
    for (end, status) in ends {
        for settled in [false, true] {
            let mut world = World::new();
            let desktop = world.desktop(9);
            let short = terms().with_valid_for(60).unwrap();
            let pairing = desktop.share(&world, &short);
            let joined = world.join(&pairing.link, &phone(2)).unwrap();
            world.pass_unsettled(60);
            if settled {
                world.gate.settle(world.now).unwrap();
            }
            end(&world, &desktop).unwrap();
            let told = world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err();
            assert_eq!(told.told, Some(PhoneError::Refused(status)), "settled: {settled}, {told:?}");
        }
    }
}
