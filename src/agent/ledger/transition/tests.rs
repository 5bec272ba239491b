//! Bounds that would take a black-box test too many key operations to reach.

use super::*;
use crate::agent::ledger::record::{Counters, CredentialRecord, CredentialState, TicketState};
use crate::agent::ledger::{MemoryLedger, store};
use crate::clock::Timestamp;
use crate::credential::EditionHashes;
use crate::id::{CredentialId, TicketId};
use crate::key::{AgentSecretKey, DeviceSecretKey, HolderPublicKey, HolderSecretKey, IssuerSecretKey};
use crate::limits::{ENDED_CREDENTIALS_SHARE, MAX_ENDED_CREDENTIALS};
use crate::op::OpSet;
use crate::ticket::TicketPublicKey;
use crate::token::CredentialBytes;
use crate::wire::Label;

struct Bench {
    ledger: MemoryLedger,
    agent: AgentPublicKey,
    now: Timestamp,
    holder: HolderPublicKey,
    issuer: IssuerPublicKey,
    device: DevicePublicKey,
}

const WIDE: QuotaLimits = QuotaLimits {
    tickets_per_session: u32::MAX,
    credentials_per_session: u32::MAX,
    tickets_per_device: u32::MAX,
    credentials_per_device: u32::MAX,
    tickets_per_agent: u32::MAX,
    credentials_per_agent: u32::MAX,
};

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            ledger: MemoryLedger::new(),
            agent: AgentSecretKey::from_bytes([1; 32]).public(),
            now: Timestamp::from_seconds(1_000_000).unwrap(),
            holder: HolderSecretKey::from_bytes([2; 32]).public(),
            issuer: IssuerSecretKey::from_bytes([3; 32]).public(),
            device: DeviceSecretKey::from_bytes([4; 32]).public(),
        };
        let (issuer, device) = (bench.issuer, bench.device);
        bench.step(|step| step.register_issuer(&issuer, &device)).unwrap();
        bench
    }

    fn step<T>(&mut self, mut act: impl FnMut(&mut Step<'_>) -> Result<T, LedgerFailure>) -> T {
        let moment =
            Moment { agent: &self.agent, node: NodeId::default(), now: self.now, closed: Closed::NONE };
        let transition = |snapshot: &dyn Snapshot| {
            let mut step = Step::new(snapshot, moment);
            let result = act(&mut step)?;
            let first = AuditPosition { opening: 1, sequence: 0 };
            Ok((step.finish(first, &[])?.changes, result))
        };
        store::transact(&self.ledger, transition).unwrap()
    }

    /// A credential that was redeemed.
    fn redeemed(&mut self, number: u32, session: &str) -> CredentialId {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let (ticket, credential) = (TicketId::from_bytes(id), CredentialId::from_bytes(id));
        let bytes = CredentialBytes::new(vec![1; 900]).unwrap();
        let record = TicketRecord {
            key: TicketPublicKey::from_bytes([0; 32]),
            credential,
            session: SessionId::new(session).unwrap(),
            epoch: 0,
            issuer: self.issuer,
            generation: 0,
            device: self.device,
            offered_at: self.now,
            expires_at: self.now.plus(300),
            credential_expires_at: self.now.plus(3_600),
            ops: OpSet::COMPANION,
            label: Label::default(),
            require_confirm: false,
            state: TicketState::Open(bytes.clone()),
        };
        let hashes = EditionHashes { stem: [1; 32], whole: [2; 32] };
        let bound = Extension { bytes, hashes };
        let redemption =
            Redemption { label: Label::default(), bound: Some(bound), nonce: [0; 16], said: Ok(()) };
        let holder = self.holder;
        self.step(|step| step.offer(&ticket, record.clone(), &WIDE)).unwrap();
        self.step(|step| step.redeem(&ticket, &holder, &redemption)).unwrap();
        credential
    }

    /// Another device, with an issuer of its own.
    fn device(&mut self, seed: u8) -> (IssuerPublicKey, DevicePublicKey) {
        let issuer = IssuerSecretKey::from_bytes([100 + seed; 32]).public();
        let device = DeviceSecretKey::from_bytes([seed; 32]).public();
        self.step(|step| step.register_issuer(&issuer, &device)).unwrap();
        (issuer, device)
    }

    /// Whoever offers from now on.
    fn act_for(&mut self, (issuer, device): (IssuerPublicKey, DevicePublicKey)) {
        (self.issuer, self.device) = (issuer, device);
    }

    fn revoke(&mut self, id: &CredentialId) {
        self.step(|step| step.revoke_credential(id));
    }

    fn record(&mut self, id: &CredentialId) -> Option<CredentialRecord> {
        self.step(|step| step.credential(id))
    }

    fn counters(&mut self) -> Counters {
        self.step(|step| step.records.counters())
    }
}

#[test]
fn what_has_ended_is_forgotten_early_beyond_a_bound_and_the_live_is_not() {
    let mut bench = Bench::new();
    let devices: Vec<_> = (4..9).map(|seed| bench.device(seed)).collect();
    bench.act_for(devices[0]);
    let live = bench.redeemed(0, "live");
    // Five devices, so that none is beyond its share.
    let share = MAX_ENDED_CREDENTIALS / 5 + 40;
    let mut ended = Vec::new();
    for (device, at) in devices.into_iter().zip(0..) {
        bench.act_for(device);
        for number in 1..=share {
            let id = bench.redeemed(at * 10_000 + number, "busy");
            bench.revoke(&id);
            ended.push(id);
            bench.now = bench.now.plus(u64::from(number % 2));
        }
    }
    assert_eq!(bench.counters().of_all.ended_credentials, MAX_ENDED_CREDENTIALS);
    let forgotten = ended.len() - MAX_ENDED_CREDENTIALS as usize;
    let kept: Vec<bool> = ended.iter().map(|id| bench.record(id).is_some()).collect();
    assert!(kept.iter().enumerate().all(|(at, kept)| *kept == (at >= forgotten)), "the earliest go");
    assert!(bench.record(&live).unwrap().is_live());
}

#[test]
fn a_device_beyond_its_share_of_ended_records_forgets_its_own() {
    let mut bench = Bench::new();
    let (looping, other) = (bench.device(4), bench.device(5));
    bench.act_for(other);
    let theirs = bench.redeemed(1, "other");
    bench.revoke(&theirs);
    bench.act_for(looping);
    let mut ended = Vec::new();
    for number in 10..=ENDED_CREDENTIALS_SHARE + 30 {
        bench.now = bench.now.plus(u64::from(number % 2));
        let id = bench.redeemed(number, "busy");
        bench.revoke(&id);
        ended.push(id);
    }
    assert!(bench.record(&theirs).is_some(), "the earliest of all, and of another device");
    let kept: Vec<bool> = ended.iter().map(|id| bench.record(id).is_some()).collect();
    let forgotten = ended.len() - ENDED_CREDENTIALS_SHARE as usize;
    assert!(forgotten > 10 && kept.iter().enumerate().all(|(at, kept)| *kept == (at >= forgotten)));
}

#[test]
fn what_has_ended_keeps_nothing_that_could_be_given_to_anyone() {
    let mut bench = Bench::new();
    let revoked = bench.redeemed(1, "s");
    bench.revoke(&revoked);
    let expired = bench.redeemed(2, "s");
    bench.now = bench.now.plus(3_600);
    bench.step(|step| step.settle());
    for id in [revoked, expired] {
        let record = bench.record(&id).unwrap();
        assert!(matches!(record.state, CredentialState::Revoked(_) | CredentialState::Expired));
        assert_eq!((record.bytes, record.renewals.len()), (None, 0));
    }
}

#[test]
fn counts_come_back_to_nothing_with_the_records() {
    let mut bench = Bench::new();
    for number in 0..60 {
        let id = bench.redeemed(number, &format!("s{}", number % 7));
        if number % 3 == 0 {
            bench.revoke(&id);
        }
    }
    let counters = bench.counters().of_all;
    assert_eq!((counters.live_credentials, counters.ended_credentials, counters.tickets), (40, 20, 60));
    bench.now = bench.now.plus(10_000);
    for _ in 0..60 {
        bench.step(|step| step.settle());
    }
    let Counters { sequence, .. } = bench.counters();
    assert_eq!(bench.counters(), Counters { sequence, ..Counters::default() });
    assert!(bench.step(|step| step.entries(None)).is_empty());
}
