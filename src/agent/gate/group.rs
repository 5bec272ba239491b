//! Group commit at the gate: what is answered when, what a failed commit takes with it, and how many commits
//! calls cost.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use time::{Duration, OffsetDateTime};

use super::always::AlwaysPresent;
use super::{Gate, GateConfig, Peer, PeerAdmission, PendingGuard};
use crate::agent::audit::{AuditEvent, AuditRecord, AuditSink, NotKept};
use crate::agent::config::Quotas;
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
use crate::pair::{List, ListingState, Revoked};
use crate::protocol::handshake::{Answer, Request};

const CHANNEL: [u8; 32] = [7; 32];

/// A disk whose next sync, or next read, waits until it is released.
#[derive(Default)]
struct Disk {
    rows: MemoryLedger,
    commits: AtomicUsize,
    sync: Hold,
    read: Hold,
    /// The number of a commit that fails, and how.
    fails: Mutex<Option<(usize, LedgerError)>>,
}

#[derive(Default)]
struct Hold {
    state: Mutex<HoldState>,
    changed: Condvar,
}

#[derive(Default)]
struct HoldState {
    armed: bool,
    /// How many pass before one is held.
    pass: usize,
    held: bool,
}

impl Hold {
    fn arm(&self) {
        self.arm_nth(1);
    }

    fn arm_nth(&self, nth: usize) {
        *self.state.lock().unwrap() = HoldState { armed: true, pass: nth - 1, held: false };
    }

    /// Waits, if it is armed and this one's turn.
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        if !state.armed || state.held {
            return;
        }
        if state.pass > 0 {
            state.pass -= 1;
            return;
        }
        state.held = true;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| state.armed).unwrap());
    }

    /// Returns once somebody waits here.
    fn wait(&self) {
        drop(self.changed.wait_while(self.state.lock().unwrap(), |state| !state.held).unwrap());
    }

    fn release(&self) {
        self.state.lock().unwrap().armed = false;
        self.changed.notify_all();
    }
}

impl Ledger for Disk {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        let outcome = self.rows.read(look);
        self.read.pass();
        outcome
    }

    fn transact(&self, transition: Transition<'_>) -> Result<(), LedgerError> {
        self.rows
            .transact(&mut |snapshot| {
                let changes = transition(snapshot)?;
                if !changes.is_empty() {
                    let number = self.commits.fetch_add(1, Ordering::SeqCst) + 1;
                    self.sync.pass();
                    if self.fails.lock().unwrap().as_ref().is_some_and(|(at, _)| *at == number) {
                        return Err(LedgerFailure::Io);
                    }
                }
                Ok(changes)
            })
            .map_err(|error| self.fails.lock().unwrap().take().map_or(error, |(_, error)| error))
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<AuditRecord>>>);

impl AuditSink for Log {
    fn record(&self, record: &AuditRecord) -> Result<(), NotKept> {
        self.0.lock().unwrap().push(record.clone());
        Ok(())
    }
}

struct World {
    agent: AgentSecretKey,
    device: DevicePublicKey,
    issuer: Issuer,
    disk: Arc<Disk>,
    log: Log,
    gate: Gate,
    now: Now,
}

fn session() -> SessionId {
    SessionId::new("s").unwrap()
}

impl World {
    fn new() -> Self {
        let agent = AgentSecretKey::from_bytes([1; 32]);
        let url = AgentUrl::parse("wss://agent.example").unwrap();
        let issuer = Issuer::new(IssuerSecretKey::from_bytes([3; 32]), agent.public(), url.clone());
        let device = DeviceSecretKey::from_bytes([4; 32]).public();
        let now = Now::new(OffsetDateTime::from_unix_timestamp(1_780_000_000).unwrap(), Duration::hours(1));
        let (disk, log) = (Arc::new(Disk::default()), Log::default());
        let quotas = Quotas::default().with_tickets_per_session(100);
        let config =
            GateConfig::new(agent.public(), [url]).unwrap().with_audit(log.clone()).with_quotas(quotas);
        let gate = Gate::open(config, Arc::clone(&disk), AlwaysPresent, now).unwrap();
        gate.register_issuer(&device, &CHANNEL, &issuer.registration(&device, &CHANNEL), now).unwrap();
        Self { agent, device, issuer, disk, log, gate, now }
    }

    fn pair(&self, number: u8) -> Pairing {
        let mut rng = StdRng::seed_from_u64(number.into());
        self.issuer.pair(session(), &PairingTerms::default(), self.now.timestamp(), &mut rng).unwrap()
    }

    fn offer(&self, pairing: &Pairing) -> Result<(), Denial> {
        self.gate.offer(&self.device, &pairing.offer, self.now).map(drop)
    }

    fn admit(&self, phone: u8, request: &Request) -> Result<(PendingGuard, Option<CredentialBytes>), Denial> {
        let key = HolderSecretKey::from_bytes([phone; 32]).public();
        let (mut rng, mut message) = (StdRng::from_entropy(), [0; 32]);
        rng.fill_bytes(&mut message);
        let payload = request.to_payload().unwrap();
        match self.gate.admit_peer(Peer::new(key.as_bytes(), &payload, message), self.now, &mut rng) {
            PeerAdmission::Admitted { reply, guard } => match Answer::from_payload(&reply).unwrap() {
                Answer::Admitted(answer) => Ok((guard, answer.credential)),
                other => panic!("{other:?}"),
            },
            PeerAdmission::Refused { denial, .. } => Err(denial),
            PeerAdmission::PassThrough => panic!("taken for a device"),
        }
    }

    fn redeem(&self, pairing: &Pairing, phone: u8) -> Result<(PendingGuard, CredentialBytes), Denial> {
        let holder = HolderSecretKey::from_bytes([phone; 32]).public();
        let proof = pairing.link.ticket().prove(&self.agent.public(), &holder);
        let (guard, credential) = self.admit(phone, &Request::Redeem { proof, label: Label::default() })?;
        Ok((guard, credential.unwrap()))
    }

    fn attach(
        &self,
        phone: u8,
        credential: &CredentialBytes,
    ) -> Result<(PendingGuard, Option<CredentialBytes>), Denial> {
        self.admit(phone, &Request::Attach { ops: OpSet::EMPTY, credential: credential.clone() })
    }

    /// A phone that is connected, its credential, and its pairing.
    fn joined(&self, number: u8) -> (Guard, CredentialBytes, Pairing) {
        let pairing = self.pair(number);
        self.offer(&pairing).unwrap();
        let (pending, credential) = self.redeem(&pairing, number).unwrap();
        (pending.activate_after_first_frame(self.now).unwrap(), credential, pairing)
    }

    fn renew(&self, pairing: &Pairing, ops: OpSet, valid_for: u64) -> Result<(), Denial> {
        let (credential, ticket) = (pairing.credential, pairing.ticket);
        let renewal = Renewal { credential, ticket, session: session(), ops, valid_for };
        let mut rng = StdRng::seed_from_u64(99);
        let renewal = self.issuer.renew(renewal, self.now.timestamp(), &mut rng).unwrap();
        self.gate.renew(&self.device, &renewal, self.now, &mut rng).map(drop)
    }

    /// The `nth` commit from now on fails.
    fn fail(&self, nth: usize, error: LedgerError) {
        *self.disk.fails.lock().unwrap() = Some((self.commits() + nth, error));
    }

    fn commits(&self) -> usize {
        self.disk.commits.load(Ordering::SeqCst)
    }

    /// How many of these events the sink has.
    fn told(&self, of: fn(&AuditEvent) -> bool) -> usize {
        self.log.0.lock().unwrap().iter().filter(|record| of(&record.event)).count()
    }

    fn wait_until_queued(&self, number: usize) {
        while self.gate.inner.core.waiting() < number {
            thread::yield_now();
        }
    }
}

fn is_attach(event: &AuditEvent) -> bool {
    matches!(event, AuditEvent::PhoneAttached { .. })
}

fn is_revocation(event: &AuditEvent) -> bool {
    matches!(event, AuditEvent::CredentialRevoked { .. })
}

fn is_offer(event: &AuditEvent) -> bool {
    matches!(event, AuditEvent::TicketOffered { .. })
}

#[test]
fn from_the_offer_to_the_live_stream_there_are_two_commits() {
    let world = World::new();
    let before = world.commits();
    let pairing = world.pair(1);
    world.offer(&pairing).unwrap();
    assert_eq!(world.commits() - before, 1, "the offer");
    let (pending, credential) = world.redeem(&pairing, 1).unwrap();
    assert_eq!(world.commits() - before, 2, "the redemption");
    let guard = pending.activate_after_first_frame(world.now).unwrap();
    assert_eq!(world.commits() - before, 2, "the visit is written with the next commit");
    drop(guard);
    let _again = world.attach(1, &credential).unwrap().0.activate_after_first_frame(world.now).unwrap();
    assert_eq!(world.commits() - before, 2, "an attach");
}

#[test]
fn a_visit_is_listed_at_once_and_written_and_told_with_the_next_commit() {
    let world = World::new();
    let (_guard, credential, _) = world.joined(1);
    let seen = || world.gate.list(&List::default(), world.now).unwrap().entries[0].last_seen;
    assert_eq!((seen(), world.told(is_attach)), (Some(world.now.timestamp()), 0));
    let runs = world.gate.stats().policy_runs;
    let _second = world.attach(1, &credential).unwrap().0.activate_after_first_frame(world.now).unwrap();
    assert_eq!(world.gate.stats().policy_runs, runs, "the decision is known already");
    let before = world.commits();
    world.gate.settle(world.now).unwrap();
    assert_eq!((world.commits() - before, world.told(is_attach)), (1, 1));
    world.gate.settle(world.now).unwrap();
    assert_eq!((world.commits() - before, world.told(is_attach)), (1, 1), "once");
    assert_eq!(seen(), Some(world.now.timestamp()));
}

#[test]
fn a_visit_comes_before_the_revocation_that_ends_it_and_a_gate_that_closes_writes_it() {
    let mut world = World::new();
    let (_guard, _, pairing) = world.joined(1);
    world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
    let told: Vec<bool> = world
        .log
        .0
        .lock()
        .unwrap()
        .iter()
        .map(|one| &one.event)
        .filter(|one| is_attach(one) || is_revocation(one))
        .map(is_attach)
        .collect();
    assert_eq!(told, [true, false]);
    let (guard, _, pairing) = world.joined(2);
    drop(guard);
    let (disk, log) = (Arc::clone(&world.disk), world.log.clone());
    // The gate closes before its ledger is opened again.
    world.gate = World::new().gate;
    let config = GateConfig::new(world.agent.public(), [AgentUrl::parse("wss://agent.example").unwrap()]);
    let again = Gate::open(config.unwrap().with_audit(log), disk, AlwaysPresent, world.now).unwrap();
    let listed = again.list(&List::default(), world.now).unwrap().entries;
    let listed = listed.iter().find(|one| one.credential == pairing.credential).unwrap();
    assert_eq!((listed.last_seen, world.told(is_attach)), (Some(world.now.timestamp()), 2));
}

#[test]
fn what_comes_during_a_sync_is_one_commit_and_is_told_in_order() {
    let world = World::new();
    let pairings: Vec<_> = (0..8).map(|number| world.pair(number)).collect();
    let (before, world) = (world.commits(), &world);
    world.disk.sync.arm();
    thread::scope(|scope| {
        let first = scope.spawn(|| world.offer(&pairings[0]));
        world.disk.sync.wait();
        let others: Vec<_> =
            pairings[1..].iter().map(|pairing| scope.spawn(|| world.offer(pairing))).collect();
        world.wait_until_queued(others.len());
        assert_eq!(
            (world.commits() - before, world.told(is_offer)),
            (1, 0),
            "nothing is told before its sync"
        );
        assert!(!first.is_finished() && others.iter().all(|other| !other.is_finished()));
        world.disk.sync.release();
        assert!(
            first.join().unwrap().is_ok() && others.into_iter().all(|other| other.join().unwrap().is_ok())
        );
    });
    assert_eq!((world.commits() - before, world.told(is_offer)), (2, 8));
    let records = world.log.0.lock().unwrap();
    assert!(records.iter().map(|record| record.sequence).eq(0..records.len() as u64));
}

#[test]
fn one_that_is_refused_takes_no_other_with_it_whoever_runs_the_commit() {
    let world = World::new();
    let (taken, world) = (world.pair(1), &world);
    world.offer(&taken).unwrap();
    for (number, taken_first) in [(10, true), (20, false)] {
        let (held, fresh) = (world.pair(number), world.pair(number + 1));
        let queued = if taken_first { [&taken, &fresh] } else { [&fresh, &taken] };
        world.disk.sync.arm();
        thread::scope(|scope| {
            let held = scope.spawn(|| world.offer(&held));
            world.disk.sync.wait();
            let first = scope.spawn(|| world.offer(queued[0]));
            world.wait_until_queued(1);
            let second = scope.spawn(|| world.offer(queued[1]));
            world.wait_until_queued(2);
            world.disk.sync.release();
            assert_eq!(held.join().unwrap(), Ok(()));
            let outcomes = [first.join().unwrap(), second.join().unwrap()];
            let repeated = Err(Denial::OfferRepeated);
            assert_eq!(outcomes, if taken_first { [repeated, Ok(())] } else { [Ok(()), repeated] });
        });
    }
    assert_eq!(world.told(is_offer), 5);
}

#[test]
fn a_commit_that_fails_fails_everyone_in_it_and_cuts_nothing_back() {
    let world = World::new();
    let (mut guard, _, revoked) = world.joined(1);
    let pairings: Vec<_> = (2..5).map(|number| world.pair(number)).collect();
    let (offered, world) = (world.told(is_offer), &world);
    world.disk.sync.arm();
    thread::scope(|scope| {
        let first = scope.spawn(|| world.offer(&pairings[0]));
        world.disk.sync.wait();
        world.fail(1, LedgerError::not_done(LedgerFailure::Full));
        let revoking = scope.spawn(|| world.gate.revoke_credential(&revoked.credential, world.now));
        let others: Vec<_> =
            pairings[1..].iter().map(|pairing| scope.spawn(|| world.offer(pairing))).collect();
        world.wait_until_queued(3);
        world.disk.sync.release();
        assert_eq!(first.join().unwrap(), Ok(()));
        let failed = Denial::Ledger(LedgerFailure::Full);
        assert_eq!(revoking.join().unwrap(), Err(failed.clone()));
        assert!(others.into_iter().all(|other| other.join().unwrap() == Err(failed.clone())));
    });
    assert_eq!((world.told(is_offer) - offered, world.told(is_revocation)), (1, 0));
    let over = Err(PermitError::Over(Denial::CredentialRevoked));
    assert_eq!(guard.permit(Op::SendInput, world.now, || ()), over, "the cut is not undone");
    assert_eq!(world.offer(&pairings[1]), Ok(()), "the ledger can be used");
    assert_eq!(world.told(is_revocation), 1, "and the next commit has written the revocation");
}

#[test]
fn nothing_that_depends_on_a_revocation_in_its_sync_is_answered_before_and_nothing_if_it_fails() {
    for fails in [false, true] {
        let world = World::new();
        let (_guard, credential, pairing) = world.joined(1);
        let told = world.told(is_revocation);
        if fails {
            world.fail(1, LedgerError::unknown(LedgerFailure::Io));
        }
        let world = &world;
        world.disk.sync.arm();
        thread::scope(|scope| {
            let revoke = || world.gate.revoke_credential(&pairing.credential, world.now);
            let first = scope.spawn(revoke);
            world.disk.sync.wait();
            let again = scope.spawn(revoke);
            let attach = scope.spawn(|| world.attach(1, &credential).map(drop));
            let redeem = scope.spawn(|| world.redeem(&pairing, 1).map(drop));
            world.wait_until_queued(3);
            let listed = world.gate.list(&List::default(), world.now).unwrap().entries;
            assert_eq!(listed[0].state, ListingState::Active, "a list reads what is durable");
            assert!(
                !first.is_finished()
                    && !again.is_finished()
                    && !attach.is_finished()
                    && !redeem.is_finished()
            );
            world.disk.sync.release();
            let revoked = [first.join().unwrap(), again.join().unwrap()];
            let refused = [attach.join().unwrap(), redeem.join().unwrap()];
            if fails {
                let poisoned = Denial::Ledger(LedgerFailure::Poisoned);
                assert_eq!(revoked, [Err(Denial::Ledger(LedgerFailure::Io)), Err(poisoned.clone())]);
                assert_eq!(refused, [Err(poisoned.clone()), Err(poisoned)]);
            } else {
                assert_eq!(revoked, [Ok(Revoked::Ended { pairings: 1 }), Ok(Revoked::Already)]);
                assert_eq!(refused, [Err(Denial::CredentialRevoked), Err(Denial::CredentialRevoked)]);
            }
        });
        assert_eq!(world.told(is_revocation) - told, usize::from(!fails));
    }
}

#[test]
fn a_redemption_that_waits_for_its_commit_is_not_live_after_a_revocation() {
    let world = World::new();
    let pairing = world.pair(1);
    world.offer(&pairing).unwrap();
    let world = &world;
    world.disk.sync.arm();
    thread::scope(|scope| {
        let redeeming = scope.spawn(|| world.redeem(&pairing, 1).map(drop));
        world.disk.sync.wait();
        let revoking = scope.spawn(|| world.gate.revoke_ticket(&pairing.ticket, world.now));
        world.wait_until_queued(1);
        world.disk.sync.release();
        assert_eq!(redeeming.join().unwrap(), Err(Denial::CredentialRevoked));
        assert_eq!(revoking.join().unwrap(), Ok(Revoked::Ended { pairings: 1 }));
    });
}

/// The first use of a renewal retires earlier editions, so it has a commit of its own.
#[test]
fn an_activation_that_waits_for_its_commit_looks_at_the_cut_again() {
    let world = World::new();
    let (first, credential, pairing) = world.joined(1);
    world.renew(&pairing, OpSet::ALL, 80_000).unwrap();
    let (pending, given) = world.attach(1, &credential).unwrap();
    drop((first, pending));
    let (pending, _) = world.attach(1, &given.unwrap()).unwrap();
    let world = &world;
    world.disk.sync.arm();
    thread::scope(|scope| {
        let activating = scope.spawn(|| pending.activate_after_first_frame(world.now).map(drop));
        world.disk.sync.wait();
        let revoking = scope.spawn(|| world.gate.revoke_credential(&pairing.credential, world.now));
        world.wait_until_queued(1);
        world.disk.sync.release();
        assert_eq!(activating.join().unwrap(), Err(Denial::CredentialRevoked));
        assert!(revoking.join().unwrap().is_ok());
    });
}

#[test]
fn what_was_read_before_a_revocation_is_not_published_after_it() {
    for activates in [false, true] {
        let world = World::new();
        let (_guard, credential, pairing) = world.joined(1);
        let (pending, _) = world.attach(1, &credential).unwrap();
        let world = &world;
        thread::scope(|scope| {
            // An attach reads to find the record, to check it, and to publish it.
            world.disk.read.arm_nth(if activates { 1 } else { 3 });
            let joining = scope.spawn(|| match activates {
                true => pending.activate_after_first_frame(world.now).map(drop),
                false => {
                    drop(pending);
                    world.attach(1, &credential).map(drop)
                }
            });
            // Parked between reading the record and publishing.
            world.disk.read.wait();
            assert!(world.gate.revoke_credential(&pairing.credential, world.now).is_ok());
            world.disk.read.release();
            assert_eq!(joining.join().unwrap(), Err(Denial::CredentialRevoked), "{activates}");
        });
    }
}

#[test]
fn what_was_read_before_a_narrowing_is_not_published_after_it() {
    let world = World::new();
    let (_guard, credential, pairing) = world.joined(1);
    let (pending, _) = world.attach(1, &credential).unwrap();
    let world = &world;
    thread::scope(|scope| {
        world.disk.read.arm();
        let activating = scope.spawn(|| pending.activate_after_first_frame(world.now));
        world.disk.read.wait();
        world.renew(&pairing, OpSet::only(Op::StreamOutput), 80_000).unwrap();
        world.disk.read.release();
        let mut guard = activating.join().unwrap().unwrap();
        let typed = guard.permit(Op::SendInput, world.now, || ());
        assert_eq!(typed, Err(PermitError::Refused(Denial::OperationNotGranted { op: Op::SendInput })));
        assert_eq!(guard.permit(Op::StreamOutput, world.now, || ()), Ok(()));
    });
}
