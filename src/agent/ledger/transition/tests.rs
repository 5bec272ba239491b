//! Bounds that would take a black-box test too many key operations to reach.

use super::*;
use crate::agent::ledger::record::{CredentialRecord, CredentialState, TicketState};
use crate::agent::ledger::{MemoryLedger, Store};
use crate::clock::Timestamp;
use crate::id::{CredentialId, TicketId};
use crate::key::{DeviceSecretKey, HolderPublicKey, HolderSecretKey, IssuerSecretKey};
use crate::limits::MAX_ENDED_CREDENTIALS;
use crate::op::OpSet;
use crate::ticket::TicketSecret;
use crate::token::CredentialBytes;
use crate::wire::Label;

struct Bench {
    store: Store,
    now: Timestamp,
    holder: HolderPublicKey,
    issuer: IssuerPublicKey,
    device: DevicePublicKey,
}

const WIDE: QuotaLimits = QuotaLimits {
    tickets_per_session: u32::MAX,
    credentials_per_session: u32::MAX,
    tickets_per_agent: u32::MAX,
    credentials_per_agent: u32::MAX,
};

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            store: Store::new(Box::new(MemoryLedger::new())),
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
        let now = self.now;
        self.store.transact(|transaction| act(&mut Step::new(transaction, now))).unwrap()
    }

    /// A credential that was redeemed.
    fn redeemed(&mut self, number: u32, session: &str) -> CredentialId {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let (ticket, credential) = (TicketId::from_bytes(id), CredentialId::from_bytes(id));
        let bytes = CredentialBytes::new(vec![1; 900]).unwrap();
        let record = TicketRecord {
            key: TicketSecret::from_bytes([0; 16]).public_key(),
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
        let redemption =
            Redemption { label: Label::default(), bound: Some(bytes), nonce: [0; 16], session_live: true };
        let holder = self.holder;
        self.step(|step| step.offer(&ticket, record.clone(), &WIDE)).unwrap();
        self.step(|step| step.redeem(&ticket, &holder, &redemption)).unwrap();
        credential
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
    let live = bench.redeemed(0, "live");
    let mut ended = Vec::new();
    for number in 1..=MAX_ENDED_CREDENTIALS + 40 {
        let id = bench.redeemed(number, "busy");
        bench.step(|step| step.revoke_credential(&id));
        ended.push(id);
        bench.now = bench.now.plus(u64::from(number % 2));
    }
    assert_eq!(bench.counters().ended_credentials, MAX_ENDED_CREDENTIALS);
    let kept: Vec<bool> = ended.iter().map(|id| bench.record(id).is_some()).collect();
    assert!(kept[..40].iter().all(|kept| !kept) && kept[40..].iter().all(|kept| *kept), "the earliest go");
    assert!(bench.record(&live).unwrap().is_live());
}

#[test]
fn what_has_ended_keeps_nothing_that_could_be_given_to_anyone() {
    let mut bench = Bench::new();
    let revoked = bench.redeemed(1, "s");
    bench.step(|step| step.revoke_credential(&revoked));
    let expired = bench.redeemed(2, "s");
    bench.now = bench.now.plus(3_600);
    bench.step(|step| step.settle());
    for id in [revoked, expired] {
        let record = bench.record(&id).unwrap();
        assert!(matches!(record.state, CredentialState::Revoked(_) | CredentialState::Expired));
        assert_eq!((record.edition.bytes, record.renewals.len()), (None, 0));
    }
}

#[test]
fn counts_come_back_to_nothing_with_the_records() {
    let mut bench = Bench::new();
    for number in 0..60 {
        let id = bench.redeemed(number, &format!("s{}", number % 7));
        if number % 3 == 0 {
            bench.step(|step| step.revoke_credential(&id));
        }
    }
    let counters = bench.counters();
    assert_eq!((counters.live_credentials, counters.ended_credentials, counters.tickets), (40, 20, 60));
    bench.now = bench.now.plus(10_000);
    for _ in 0..60 {
        bench.step(|step| step.settle());
    }
    let Counters { sequence, .. } = bench.counters();
    assert_eq!(bench.counters(), Counters { sequence, ..Counters::default() });
    assert!(bench.step(|step| step.entries(None)).is_empty());
}
