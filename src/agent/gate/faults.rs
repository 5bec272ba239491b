//! Runs a gate over a real database on a disk whose operations fail in turn. The audit log does not fail, and
//! must agree with the ledger.
//!
//! `SESSIONCAP_CASES` multiplies the power cuts that are tried; 1 by default.

use std::io;
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use time::{Duration, OffsetDateTime};

use super::always::AlwaysPresent;
use super::{Gate, GateConfig, Peer, PeerAdmission};
use crate::agent::audit::{AuditEvent, AuditPosition, AuditRecord, AuditSink, NotKept};
use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::ledger::faulty::{Disk, Fault};
use crate::agent::ledger::{LedgerError, RedbLedger};
use crate::agent_url::AgentUrl;
use crate::clock::Now;
use crate::credential::bytes::CredentialBytes;
use crate::desktop::{Issuer, Pairing, PairingTerms, Renewal};
use crate::id::SessionId;
use crate::key::{AgentSecretKey, DevicePublicKey, DeviceSecretKey, HolderSecretKey, IssuerSecretKey};
use crate::label::Label;
use crate::op::OpSet;
use crate::pair::{List, Listing, ListingState};
use crate::protocol::handshake::{Answer, Request};

/// The fixtures that are the same in each run.
struct Fixtures {
    agent: AgentSecretKey,
    device: DevicePublicKey,
    issuer: Issuer,
    pairings: Vec<Pairing>,
    now: Now,
}

const CHANNEL: [u8; 32] = [7; 32];

impl Fixtures {
    fn new() -> Self {
        let agent = AgentSecretKey::from_bytes([1; 32]);
        let url = AgentUrl::parse("wss://agent.example").unwrap();
        let issuer = Issuer::new(IssuerSecretKey::from_bytes([3; 32]), agent.public(), url);
        let now = Now::new(OffsetDateTime::from_unix_timestamp(1_780_000_000).unwrap(), Duration::hours(1));
        let mut rng = StdRng::seed_from_u64(1);
        let session = SessionId::new("s").unwrap();
        let pair =
            |_| issuer.pair(session.clone(), &PairingTerms::default(), now.timestamp(), &mut rng).unwrap();
        let pairings = (0..3).map(pair).collect();
        Self { agent, device: DeviceSecretKey::from_bytes([4; 32]).public(), issuer, pairings, now }
    }

    fn open(&self, disk: &Disk, log: &Log) -> Result<Gate, LedgerError> {
        let url = AgentUrl::parse("wss://agent.example").unwrap();
        let config = GateConfig::new(self.agent.public(), [url]).unwrap().with_audit(log.clone());
        Gate::open(config, RedbLedger::on_backend(disk.clone())?, AlwaysPresent, self.now)
    }

    fn redeem(&self, gate: &Gate, pairing: usize, phone: u8) -> Result<CredentialBytes, Denial> {
        let phone = HolderSecretKey::from_bytes([phone; 32]);
        let proof = self.pairings[pairing].link.ticket().prove(&self.agent.public(), &phone.public());
        self.admit(gate, &phone, &Request::Redeem { proof, label: Label::default() }).map(Option::unwrap)
    }

    fn attach(
        &self,
        gate: &Gate,
        phone: u8,
        credential: &CredentialBytes,
    ) -> Result<Option<CredentialBytes>, Denial> {
        let phone = HolderSecretKey::from_bytes([phone; 32]);
        self.admit(gate, &phone, &Request::Attach { ops: OpSet::EMPTY, credential: credential.clone() })
    }

    /// Up to the first frame. What the answer brings.
    fn admit(
        &self,
        gate: &Gate,
        phone: &HolderSecretKey,
        request: &Request,
    ) -> Result<Option<CredentialBytes>, Denial> {
        let mut rng = StdRng::seed_from_u64(rand::thread_rng().next_u64());
        let payload = request.to_payload().unwrap();
        let (key, mut message) = (phone.public(), [0; 32]);
        rng.fill_bytes(&mut message);
        match gate.admit_peer(Peer::new(key.as_bytes(), &payload, message), self.now, &mut rng) {
            PeerAdmission::Admitted { reply, guard } => {
                guard.activate_after_first_frame(self.now)?;
                match Answer::from_payload(&reply).unwrap() {
                    Answer::Admitted(answer) => Ok(answer.credential),
                    other => panic!("{other:?}"),
                }
            }
            PeerAdmission::Refused { denial, .. } => Err(denial),
            PeerAdmission::PassThrough => panic!("taken for a device"),
        }
    }
}

/// A log that outlives the gate.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<AuditRecord>>>);

impl AuditSink for Log {
    fn record(&self, record: &AuditRecord) -> Result<(), NotKept> {
        self.0.lock().unwrap().push(record.clone());
        Ok(())
    }

    fn has(&self, record: &AuditRecord) -> bool {
        self.0.lock().unwrap().contains(record)
    }
}

impl Log {
    /// Copies the log, so that a run continues from the same records.
    fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().unwrap().clone())))
    }

    /// Checks that the log has each record once and in order, and agrees with the ledger.
    fn check(&self, fixtures: &Fixtures, listed: &[Listing], at: &str) {
        let records = self.0.lock().unwrap();
        for pair in records.windows(2) {
            let (before, after) = (pair[0].position(), pair[1].position());
            let next = AuditPosition { sequence: before.sequence + 1, ..before };
            let opened = AuditPosition { opening: before.opening + 1, sequence: 0 };
            assert!(after == next || after == opened, "{at}: {after:?} follows {before:?}");
        }
        for pairing in &fixtures.pairings {
            let (ticket, credential) = (pairing.ticket, pairing.credential);
            let mut told = None;
            for record in records.iter() {
                match &record.event {
                    AuditEvent::TicketOffered { ticket: of, .. } if *of == ticket => told = Some("open"),
                    AuditEvent::TicketRedeemed { ticket: of, .. } if *of == ticket => told = Some("active"),
                    AuditEvent::TicketRevoked { ticket: of, .. } if *of == ticket => told = Some("revoked"),
                    AuditEvent::CredentialRevoked { credential: of, .. } if *of == credential => {
                        told = Some("revoked");
                    }
                    _ => {}
                }
            }
            let listing = listed.iter().find(|one| one.ticket == ticket);
            let says = listing.map(|listing| match listing.state {
                ListingState::Open => "open",
                ListingState::Active => "active",
                ListingState::Revoked { .. } => "revoked",
                ListingState::Pending { .. } | ListingState::Expired => "something else",
            });
            assert_eq!(told, says, "{at}: the log beside the ledger");
        }
    }
}

/// The calls that were acknowledged before a failure.
#[derive(Debug, Default)]
struct Acknowledged {
    offered: [bool; 3],
    /// Of pairing 0, which is renewed, and of pairing 1, which is revoked.
    given: [Option<CredentialBytes>; 2],
    renewed: Option<CredentialBytes>,
    revoked: bool,
    ticket_revoked: bool,
}

fn run(fixtures: &Fixtures, disk: &Disk, log: &Log, done: &mut Acknowledged) -> Result<(), Denial> {
    let gate = fixtures.open(disk, log).map_err(|error| Denial::Ledger(error.cause()))?;
    let outcome = calls(fixtures, &gate, done);
    if outcome.is_err() {
        assert!(gate.is_poisoned());
        let poisoned = Denial::Ledger(LedgerFailure::Poisoned);
        assert_eq!(gate.settle(fixtures.now), Err(poisoned.clone()));
        assert_eq!(fixtures.redeem(&gate, 0, 60), Err(poisoned), "nothing goes on");
    }
    outcome
}

fn calls(fixtures: &Fixtures, gate: &Gate, done: &mut Acknowledged) -> Result<(), Denial> {
    let registration = fixtures.issuer.registration(&fixtures.device, &CHANNEL);
    gate.register_issuer(&fixtures.device, &CHANNEL, &registration, fixtures.now)?;
    for (pairing, offered) in fixtures.pairings.iter().zip(&mut done.offered) {
        gate.offer(&fixtures.device, &pairing.offer, fixtures.now)?;
        *offered = true;
    }
    for pairing in 0..2 {
        done.given[pairing] = Some(fixtures.redeem(gate, pairing, 50)?);
    }
    let renewal = Renewal {
        credential: fixtures.pairings[0].credential,
        ticket: fixtures.pairings[0].ticket,
        session: SessionId::new("s").unwrap(),
        ops: OpSet::ALL,
        valid_for: 80_000,
    };
    let renewal = fixtures.issuer.renew(renewal, fixtures.now.timestamp(), &mut rand::thread_rng()).unwrap();
    gate.renew(&fixtures.device, &renewal, fixtures.now, &mut rand::thread_rng())?;
    done.renewed = fixtures.attach(gate, 50, done.given[0].as_ref().unwrap())?;
    gate.revoke_credential(&fixtures.pairings[1].credential, fixtures.now)?;
    done.revoked = true;
    gate.revoke_ticket(&fixtures.pairings[2].ticket, fixtures.now)?;
    done.ticket_revoked = true;
    Ok(())
}

fn check(fixtures: &Fixtures, gate: &Gate, log: &Log, done: &Acknowledged, at: &str) {
    let listed = gate.list(&List::default(), fixtures.now).unwrap().entries;
    log.check(fixtures, &listed, at);
    for (index, pairing) in fixtures.pairings.iter().enumerate() {
        let records = listed.iter().filter(|one| one.ticket == pairing.ticket).count();
        assert!(records <= 1, "{at}");
        if done.offered[index] {
            assert_eq!(records, 1, "{at}: offer {index} is lost");
        }
    }
    if let Some(renewed) = &done.renewed {
        let given = done.given[0].as_ref().unwrap();
        assert_eq!(fixtures.attach(gate, 50, given).unwrap().as_ref(), Some(renewed), "{at}");
        assert!(fixtures.attach(gate, 50, renewed).is_ok(), "{at}");
    } else if let Some(given) = &done.given[0] {
        assert!(fixtures.attach(gate, 50, given).is_ok(), "{at}: what was given is lost");
    }
    if let Some(given) = &done.given[1] {
        let again = fixtures.redeem(gate, 1, 50);
        if done.revoked {
            assert_eq!(again, Err(Denial::CredentialRevoked), "{at}");
            assert_eq!(fixtures.attach(gate, 50, given), Err(Denial::CredentialRevoked), "{at}");
        } else if let Ok(again) = again {
            assert_eq!(again, *given, "{at}: other bytes");
        }
        assert!(fixtures.redeem(gate, 1, 51).is_err(), "{at}: a second holder");
    }
    if done.ticket_revoked {
        assert_eq!(fixtures.redeem(gate, 2, 51), Err(Denial::TicketRevoked), "{at}");
    } else if done.offered[2] && !done.revoked {
        assert!(fixtures.redeem(gate, 2, 51).is_ok(), "{at}: the ticket is lost");
    }
}

#[test]
fn disk_failures_lose_no_acknowledged_change_and_give_no_ticket_two_holders() {
    let scale: u64 = std::env::var("SESSIONCAP_CASES").map_or(1, |text| text.parse().unwrap());
    let fixtures = Fixtures::new();
    let untouched = Disk::default();
    run(&fixtures, &untouched, &Log::default(), &mut Acknowledged::default()).unwrap();
    let operations = untouched.operations();
    let mut failed = 0;
    for nth in 1..=operations {
        for fault in [Fault::Fail(io::ErrorKind::StorageFull), Fault::Tear, Fault::Gone] {
            let disk = Disk::default();
            disk.fault_at(nth, fault);
            let (mut done, log) = (Acknowledged::default(), Log::default());
            match run(&fixtures, &disk, &log, &mut done) {
                Err(Denial::Ledger(_)) => failed += 1,
                Err(other) => panic!("operation {nth}, {fault:?}: {other}"),
                // redb tolerates the failure of an operation that it did not need
                Ok(()) => {}
            }
            let cuts = (0..scale).map(|seed| disk.after_power_cut(nth * 1_000 + seed));
            for (way, disk) in core::iter::once(disk.after_kill()).chain(cuts).enumerate() {
                let at = format!("operation {nth}, {fault:?}, way {way}, {done:?}");
                let log = log.copy();
                match fixtures.open(&disk, &log) {
                    Ok(gate) => check(&fixtures, &gate, &log, &done, &at),
                    Err(failure) => assert!(!done.offered[0], "{at}: {failure}"),
                }
            }
        }
    }
    assert!(failed > operations, "{failed} of {}", 3 * operations);
}

#[test]
fn from_the_offer_to_the_live_stream_there_are_four_syncs() {
    let (fixtures, disk) = (Fixtures::new(), Disk::default());
    let gate = fixtures.open(&disk, &Log::default()).unwrap();
    let registration = fixtures.issuer.registration(&fixtures.device, &CHANNEL);
    gate.register_issuer(&fixtures.device, &CHANNEL, &registration, fixtures.now).unwrap();
    // The file grows with the first.
    gate.offer(&fixtures.device, &fixtures.pairings[1].offer, fixtures.now).unwrap();
    fixtures.redeem(&gate, 1, 51).unwrap();
    gate.settle(fixtures.now).unwrap();
    let before = disk.syncs();
    gate.offer(&fixtures.device, &fixtures.pairings[0].offer, fixtures.now).unwrap();
    let credential = fixtures.redeem(&gate, 0, 50).unwrap();
    assert_eq!(disk.syncs() - before, 4, "two commits, of two phases each");
    fixtures.attach(&gate, 50, &credential).unwrap();
    assert_eq!(disk.syncs() - before, 4, "an attach has none of its own");
    gate.settle(fixtures.now).unwrap();
    assert_eq!(disk.syncs() - before, 6, "both visits at once");
}

/// What a caller had been told when the disk failed.
#[derive(Debug, Clone, Default)]
struct Told {
    offered: bool,
    given: Option<CredentialBytes>,
    revoked: bool,
}

/// Three callers at once: their commits are shared as it happens.
fn at_once(fixtures: &Fixtures, gate: &Gate) -> Vec<Told> {
    let pairings = fixtures.pairings.iter().enumerate();
    std::thread::scope(|scope| {
        let callers = pairings.map(|(number, pairing)| {
            scope.spawn(move || {
                // In this order.
                Told {
                    offered: gate.offer(&fixtures.device, &pairing.offer, fixtures.now).is_ok(),
                    given: fixtures.redeem(gate, number, 50).ok(),
                    revoked: number != 0 && gate.revoke_credential(&pairing.credential, fixtures.now).is_ok(),
                }
            })
        });
        let callers: Vec<_> = callers.collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    })
}

#[test]
fn disk_failures_under_several_callers_lose_no_acknowledged_change() {
    let fixtures = Fixtures::new();
    let start = |disk: &Disk, log: &Log| {
        let gate = fixtures.open(disk, log).unwrap();
        let registration = fixtures.issuer.registration(&fixtures.device, &CHANNEL);
        gate.register_issuer(&fixtures.device, &CHANNEL, &registration, fixtures.now).unwrap();
        gate
    };
    let untouched = Disk::default();
    let gate = start(&untouched, &Log::default());
    let before = untouched.operations();
    assert!(at_once(&fixtures, &gate).iter().all(|told| told.given.is_some()));
    let operations = untouched.operations() - before;
    let mut failed = 0;
    for nth in (1..=operations).step_by(2) {
        for fault in [Fault::Fail(io::ErrorKind::StorageFull), Fault::Tear, Fault::Gone] {
            let (disk, log) = (Disk::default(), Log::default());
            let gate = start(&disk, &log);
            disk.fault_at(nth, fault);
            let told = at_once(&fixtures, &gate);
            failed += u64::from(gate.is_poisoned());
            // As a process that is killed: what waits to be written is lost.
            core::mem::forget(gate);
            for (way, disk) in [disk.after_kill(), disk.after_power_cut(nth)].into_iter().enumerate() {
                let at = format!("operation {nth}, {fault:?}, way {way}, {told:?}");
                let log = log.copy();
                let again = fixtures.open(&disk, &log).unwrap();
                let listed = again.list(&List::default(), fixtures.now).unwrap().entries;
                log.check(&fixtures, &listed, &at);
                for (number, (told, pairing)) in told.iter().zip(&fixtures.pairings).enumerate() {
                    let known = listed.iter().any(|one| one.ticket == pairing.ticket);
                    assert!(known || !told.offered, "{at}: offer {number} is lost");
                    let Some(given) = &told.given else { continue };
                    let attached = fixtures.attach(&again, 50, given).map(drop);
                    match told.revoked {
                        true => assert_eq!(attached, Err(Denial::CredentialRevoked), "{at}: {number}"),
                        // It may have been revoked without an answer.
                        false if number != 0 => {
                            assert!(
                                matches!(attached, Ok(()) | Err(Denial::CredentialRevoked)),
                                "{at}: {number}"
                            );
                        }
                        false => assert_eq!(attached, Ok(()), "{at}: what was given is lost"),
                    }
                }
            }
        }
    }
    assert!(failed > operations / 4, "{failed} of {operations}");
}
