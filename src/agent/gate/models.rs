//! Models a whole gate over the memory ledger in every interleaving of two threads (interleavings that differ
//! only in independent steps count once): racing redemptions, and revocations during them. As in
//! `guard/models.rs`: *after a revoking call returns, no further permit is granted, and none granted earlier
//! is still in use.*

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use loom::thread;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use time::{Duration, OffsetDateTime};

use super::always::AlwaysPresent;
use super::{Gate, GateConfig, Peer, PeerAdmission, PendingGuard};
use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::guard::{Guard, PermitError};
use crate::agent::ledger::{Ledger, LedgerError, Look, MemoryLedger, Transition};
use crate::agent_url::AgentUrl;
use crate::clock::Now;
use crate::credential::bytes::CredentialBytes;
use crate::desktop::{Issuer, Pairing, PairingTerms, Renewal};
use crate::id::SessionId;
use crate::key::{AgentSecretKey, DevicePublicKey, DeviceSecretKey, HolderSecretKey, IssuerSecretKey};
use crate::label::Label;
use crate::op::{Op, OpSet};
use crate::pair::{List, ListingState};
use crate::protocol::handshake::{Answer, Request};
use crate::protocol::message::{Registration, RenewalOffer};

/// A model's own stacks are too small for curve arithmetic.
const STACK: usize = 1 << 20;
const CHANNEL: [u8; 32] = [7; 32];

/// The fixtures that are the same in every run, made once.
struct Fixtures {
    agent: AgentSecretKey,
    device: DevicePublicKey,
    url: AgentUrl,
    registration: Registration,
    pairing: Pairing,
    phones: [HolderSecretKey; 2],
    redemptions: [Vec<u8>; 2],
    renewal: RenewalOffer,
    extension: RenewalOffer,
    now: Now,
}

fn fixtures() -> &'static Fixtures {
    static FIXTURES: OnceLock<Fixtures> = OnceLock::new();
    FIXTURES.get_or_init(|| {
        let agent = AgentSecretKey::from_bytes([1; 32]);
        let device = DeviceSecretKey::from_bytes([4; 32]).public();
        let url = AgentUrl::parse("wss://agent.example").unwrap();
        let issuer = Issuer::new(IssuerSecretKey::from_bytes([3; 32]), agent.public(), url.clone());
        let now = Now::new(OffsetDateTime::from_unix_timestamp(1_780_000_000).unwrap(), Duration::hours(1));
        let mut rng = StdRng::seed_from_u64(1);
        let terms = PairingTerms::default();
        let pairing = issuer.pair(session(), &terms, now.timestamp(), &mut rng).unwrap();
        let phones = [HolderSecretKey::from_bytes([5; 32]), HolderSecretKey::from_bytes([6; 32])];
        let redemptions = [0, 1].map(|phone: usize| {
            let proof = pairing.link.ticket().prove(&agent.public(), &phones[phone].public());
            Request::Redeem { proof, label: Label::default() }.to_payload().unwrap()
        });
        let mut renew = |ops| {
            let (credential, ticket) = (pairing.credential, pairing.ticket);
            let renewal = Renewal { credential, ticket, session: session(), ops, valid_for: 80_000 };
            issuer.renew(renewal, now.timestamp(), &mut rng).unwrap()
        };
        let (renewal, extension) = (renew(OpSet::only(Op::StreamOutput)), renew(OpSet::ALL));
        let registration = issuer.registration(&device, &CHANNEL);
        Fixtures { agent, device, url, registration, pairing, phones, redemptions, renewal, extension, now }
    })
}

fn session() -> SessionId {
    SessionId::new("s").unwrap()
}

/// A ledger whose commits take a while: other threads run between what a commit reads and what it writes, and
/// before it returns.
#[derive(Default)]
struct Slow {
    rows: MemoryLedger,
    /// Whether the next commit that writes fails: nobody knows whether it was done.
    fails: AtomicBool,
}

impl Ledger for Slow {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        self.rows.read(look)
    }

    fn transact(&self, transition: Transition<'_>) -> Result<(), LedgerError> {
        // Only one transaction runs at a time, so that the state that it reads is the one that it changes.
        let mut changes = None;
        self.rows.read(&mut |snapshot| {
            changes = Some(transition(snapshot)?);
            Ok(())
        })?;
        loom::thread::yield_now();
        if changes.as_ref().is_some_and(|changes| !changes.is_empty())
            && self.fails.swap(false, Ordering::SeqCst)
        {
            return Err(LedgerError::unknown(LedgerFailure::Io));
        }
        self.rows.transact(&mut |_| Ok(changes.clone().unwrap_or_default()))?;
        loom::thread::yield_now();
        Ok(())
    }
}

/// A gate with one open ticket.
fn gate() -> Gate {
    gate_over(MemoryLedger::new())
}

fn gate_over(ledger: impl Ledger + 'static) -> Gate {
    let fixtures = fixtures();
    let config = GateConfig::new(fixtures.agent.public(), [fixtures.url.clone()]).unwrap();
    let gate = Gate::open(config, ledger, AlwaysPresent, fixtures.now).unwrap();
    gate.register_issuer(&fixtures.device, &CHANNEL, &fixtures.registration, fixtures.now).unwrap();
    gate.offer(&fixtures.device, &fixtures.pairing.offer, fixtures.now).unwrap();
    gate
}

fn admit(gate: &Gate, phone: usize, payload: &[u8]) -> Result<(PendingGuard, Vec<u8>), Denial> {
    let fixtures = fixtures();
    let mut rng = StdRng::seed_from_u64(phone as u64);
    rng.next_u64();
    let key = fixtures.phones[phone].public();
    // Every message differs.
    static MESSAGES: AtomicUsize = AtomicUsize::new(0);
    let mut message = [0; 32];
    message[..8].copy_from_slice(&MESSAGES.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    match gate.admit_peer(Peer::new(key.as_bytes(), payload, message), fixtures.now, &mut rng) {
        PeerAdmission::Admitted { reply, guard } => Ok((guard, reply)),
        PeerAdmission::Refused { denial, .. } => Err(denial),
        PeerAdmission::PassThrough => panic!("taken for a device"),
    }
}

/// Redeems a ticket and activates the guard.
fn join(gate: &Gate, phone: usize) -> Result<Guard, Denial> {
    admit(gate, phone, &fixtures().redemptions[phone])?.0.activate_after_first_frame(fixtures().now)
}

fn joined(gate: &Gate, phone: usize) -> (Guard, CredentialBytes) {
    let (pending, reply) = admit(gate, phone, &fixtures().redemptions[phone]).unwrap();
    let Answer::Admitted(answer) = Answer::from_payload(&reply).unwrap() else { panic!() };
    (pending.activate_after_first_frame(fixtures().now).unwrap(), answer.credential.unwrap())
}

fn attachment(credential: CredentialBytes) -> Vec<u8> {
    Request::Attach { ops: OpSet::EMPTY, credential }.to_payload().unwrap()
}

/// Revokes the credential on another thread.
fn revoke(gate: &Gate) -> thread::JoinHandle<Result<(), Denial>> {
    let gate = gate.clone();
    spawn(move || gate.revoke_credential(&fixtures().pairing.credential, fixtures().now).map(drop))
}

fn permits(guard: &mut Guard, op: Op) -> bool {
    guard.permit(op, fixtures().now, || ()).is_ok()
}

/// Sends one frame on another thread.
fn stream(mut guard: Guard) -> thread::JoinHandle<Guard> {
    spawn(move || {
        let _ = permits(&mut guard, Op::SendInput);
        guard
    })
}

/// Runs a model with stacks that are large enough, and prints the number of interleavings.
fn explore(model: impl Fn() + Send + Sync + Clone + 'static) {
    let _ = fixtures();
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        spawn(model.clone()).join().unwrap();
    });
    let runs = runs.load(Ordering::Relaxed);
    println!("{runs} interleavings");
    assert!(runs > 5, "{runs} interleavings");
}

fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::Builder::new().stack_size(STACK).spawn(work).unwrap()
}

#[test]
fn of_two_phones_that_redeem_at_once_at_most_one_is_ever_live_and_none_stays() {
    explore(|| {
        let gate = gate();
        let other = gate.clone();
        let racing = spawn(move || join(&other, 1));
        let first = join(&gate, 0);
        let second = racing.join().unwrap();
        assert!(first.is_err() || second.is_err(), "two holders of one ticket");
        for mut guard in [first, second].into_iter().flatten() {
            assert!(!permits(&mut guard, Op::SendInput), "the code has leaked");
        }
        let listed = gate.list(&List::default(), fixtures().now).unwrap().entries;
        assert!(matches!(listed[..], [ref one] if matches!(one.state, ListingState::Revoked { .. })));
    });
}

/// A redemption while its right ends. When the end has returned, its stream is not live, and there is no other.
fn a_redemption_beside(gate: &Gate, end: impl FnOnce(&Gate)) {
    let other = gate.clone();
    let joining = spawn(move || join(&other, 0));
    end(gate);
    if let Ok(mut guard) = joining.join().unwrap() {
        assert!(!permits(&mut guard, Op::SendInput), "live after its end returned");
    }
    assert!(join(gate, 0).is_err());
}

#[test]
fn a_redemption_and_the_revocation_of_its_ticket() {
    explore(|| {
        a_redemption_beside(&gate(), |gate| {
            gate.revoke_ticket(&fixtures().pairing.ticket, fixtures().now).unwrap();
        });
    });
}

#[test]
fn a_redemption_and_the_end_of_its_session() {
    explore(|| {
        a_redemption_beside(&gate(), |gate| {
            gate.end_session(&session(), fixtures().now).unwrap();
        });
    });
}

#[test]
fn an_activation_and_a_revocation() {
    explore(|| {
        let gate = gate();
        let (pending, _) = admit(&gate, 0, &fixtures().redemptions[0]).unwrap();
        let activating = spawn(move || pending.activate_after_first_frame(fixtures().now));
        gate.revoke_credential(&fixtures().pairing.credential, fixtures().now).unwrap();
        if let Ok(mut guard) = activating.join().unwrap() {
            assert!(!permits(&mut guard, Op::SendInput), "live after the revocation returned");
        }
    });
}

#[test]
fn an_activation_and_a_renewal_that_narrows() {
    explore(|| {
        let gate = gate();
        let (pending, _) = admit(&gate, 0, &fixtures().redemptions[0]).unwrap();
        let activating = spawn(move || pending.activate_after_first_frame(fixtures().now));
        let mut rng = StdRng::seed_from_u64(9);
        gate.renew(&fixtures().device, &fixtures().renewal, fixtures().now, &mut rng).unwrap();
        if let Ok(mut guard) = activating.join().unwrap() {
            assert!(!permits(&mut guard, Op::SendInput), "terms from before the narrowing");
            assert!(permits(&mut guard, Op::StreamOutput));
        }
    });
}

#[test]
fn once_a_cut_is_seen_nobody_attaches_though_it_may_not_be_on_record() {
    explore(|| {
        let gate = gate();
        let (mut guard, credential) = joined(&gate, 0);
        let payload = attachment(credential);
        let revoking = revoke(&gate);
        if !permits(&mut guard, Op::SendInput) {
            let attached = admit(&gate, 0, &payload)
                .and_then(|(pending, _)| pending.activate_after_first_frame(fixtures().now));
            assert_eq!(attached.map(drop), Err(Denial::CredentialRevoked));
        }
        revoking.join().unwrap().unwrap();
    });
}

#[test]
fn once_a_cut_is_seen_no_admission_becomes_live_though_it_may_not_be_on_record() {
    explore(|| {
        let gate = gate();
        let (mut guard, credential) = joined(&gate, 0);
        let payload = attachment(credential);
        let (pending, _) = admit(&gate, 0, &payload).unwrap();
        let revoking = revoke(&gate);
        if !permits(&mut guard, Op::SendInput) {
            assert_eq!(
                pending.activate_after_first_frame(fixtures().now).map(drop),
                Err(Denial::CredentialRevoked)
            );
        }
        revoking.join().unwrap().unwrap();
    });
}

#[test]
fn a_contest_cuts_a_stream_that_is_running() {
    explore(|| {
        let gate = gate();
        let (guard, _) = joined(&gate, 0);
        let streaming = stream(guard);
        assert_eq!(join(&gate, 1).unwrap_err(), Denial::TicketContested);
        let mut guard = streaming.join().unwrap();
        assert!(!permits(&mut guard, Op::SendInput));
    });
}

#[test]
fn an_attach_and_a_renewal_that_narrows() {
    explore(|| {
        let gate = gate();
        let (first, credential) = joined(&gate, 0);
        drop(first);
        let payload = attachment(credential);
        let other = gate.clone();
        let attaching =
            spawn(move || admit(&other, 0, &payload)?.0.activate_after_first_frame(fixtures().now));
        let mut rng = StdRng::seed_from_u64(9);
        gate.renew(&fixtures().device, &fixtures().renewal, fixtures().now, &mut rng).unwrap();
        if let Ok(mut guard) = attaching.join().unwrap() {
            assert!(!permits(&mut guard, Op::SendInput), "wider than the owner's last word");
            assert!(permits(&mut guard, Op::StreamOutput));
        }
    });
}

#[test]
fn a_reset_of_the_clock_and_a_redemption() {
    explore(|| {
        let gate = gate();
        let other = gate.clone();
        let joining = spawn(move || join(&other, 0));
        gate.reset_clock(fixtures().now).unwrap();
        if let Ok(mut guard) = joining.join().unwrap() {
            assert!(!permits(&mut guard, Op::SendInput));
        }
        assert!(gate.list(&List::default(), fixtures().now).unwrap().entries.is_empty());
    });
}

#[test]
fn an_expiry_that_the_gate_finds_and_a_stream_whose_clock_is_behind() {
    explore(|| {
        let gate = gate();
        let (guard, _) = joined(&gate, 0);
        let streaming = stream(guard);
        gate.settle(fixtures().now.plus(Duration::hours(13))).unwrap();
        let mut guard = streaming.join().unwrap();
        let after = guard.permit(Op::SendInput, fixtures().now, || ());
        assert_eq!(after, Err(PermitError::Over(Denial::CredentialExpired)), "the gate has ended it");
    });
}

#[test]
fn the_end_of_a_gate_and_a_stream() {
    explore(|| {
        let gate = gate();
        let (mut guard, _) = joined(&gate, 0);
        let in_use = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&in_use);
        let streaming = spawn(move || {
            let _ = guard.permit(Op::SendInput, fixtures().now, || {
                seen.store(true, Ordering::SeqCst);
                loom::thread::yield_now();
                seen.store(false, Ordering::SeqCst);
            });
            guard
        });
        drop(gate);
        assert!(!in_use.load(Ordering::SeqCst), "a permit is in use after the end");
        let mut guard = streaming.join().unwrap();
        assert!(!permits(&mut guard, Op::SendInput), "a permit after the end");
    });
}

#[test]
fn the_end_of_a_gate_and_an_activation() {
    explore(|| {
        let gate = gate();
        let (pending, _) = admit(&gate, 0, &fixtures().redemptions[0]).unwrap();
        let activating = spawn(move || pending.activate_after_first_frame(fixtures().now));
        drop(gate);
        if let Ok(mut guard) = activating.join().unwrap() {
            assert!(!permits(&mut guard, Op::SendInput), "live after its gate has ended");
        }
    });
}

#[test]
fn a_redemption_that_waits_for_its_commit_and_the_revocation_of_its_ticket() {
    explore(|| {
        a_redemption_beside(&gate_over(Slow::default()), |gate| {
            gate.revoke_ticket(&fixtures().pairing.ticket, fixtures().now).unwrap();
        });
    });
}

/// The first use of a renewal retires the editions before it, so that its activation waits for a commit.
#[test]
fn an_activation_that_waits_for_its_commit_and_a_revocation() {
    explore(|| {
        let gate = gate_over(Slow::default());
        let (first, credential) = joined(&gate, 0);
        drop(first);
        let mut rng = StdRng::seed_from_u64(9);
        gate.renew(&fixtures().device, &fixtures().extension, fixtures().now, &mut rng).unwrap();
        let (given, reply) = admit(&gate, 0, &attachment(credential)).unwrap();
        drop(given);
        let Answer::Admitted(answer) = Answer::from_payload(&reply).unwrap() else { panic!() };
        let (pending, _) = admit(&gate, 0, &attachment(answer.credential.unwrap())).unwrap();
        let activating = spawn(move || pending.activate_after_first_frame(fixtures().now));
        gate.revoke_credential(&fixtures().pairing.credential, fixtures().now).unwrap();
        if let Ok(mut guard) = activating.join().unwrap() {
            assert!(!permits(&mut guard, Op::SendInput), "live after the revocation returned");
        }
    });
}

#[test]
fn a_commit_that_fails_and_whoever_is_in_it_or_comes_after() {
    explore(|| {
        let ledger = Arc::new(Slow::default());
        let gate = gate_over(Arc::clone(&ledger));
        let (mut guard, _) = joined(&gate, 0);
        ledger.fails.store(true, Ordering::SeqCst);
        let revoking = revoke(&gate);
        let mut rng = StdRng::seed_from_u64(9);
        let renewed = gate.renew(&fixtures().device, &fixtures().renewal, fixtures().now, &mut rng);
        let revoked = revoking.join().unwrap();
        assert!(
            renewed.is_err() && revoked.is_err(),
            "the first commit fails, and nothing is written after it"
        );
        assert!(!permits(&mut guard, Op::SendInput), "the cut is not undone");
        assert!(gate.is_poisoned());
    });
}
