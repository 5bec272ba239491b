//! Bounds that would take a black-box test too many key operations to reach.

use core::cell::Cell;

use super::bookkeeping::Ended;
use super::*;
#[cfg(feature = "redb")]
use crate::agent::ledger::RedbLedger;
#[cfg(feature = "redb")]
use crate::agent::ledger::faulty::Disk;
use crate::agent::ledger::record::{Counters, CredentialRecord, CredentialState};
use crate::agent::ledger::rows::Entry;
use crate::agent::ledger::{Ledger, MemoryLedger, Overlay, Row, Table, store};
use crate::clock::Timestamp;
use crate::credential::bytes::CredentialBytes;
use crate::credential::mint::VerifiedUnbound;
use crate::credential::verify::EditionHashes;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{
    AgentSecretKey, DeviceSecretKey, HolderPublicKey, HolderSecretKey, IssuerPublicKey, IssuerSecretKey,
};
use crate::label::Label;
use crate::limits::{ENDED_CREDENTIALS_SHARE, MAX_ENDED_CREDENTIALS};
use crate::op::OpSet;
use crate::pair::RevocationReason;
use crate::protocol::message::Registration;
use crate::protocol::ticket::TicketSecret;

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
        let device = bench.device;
        bench.register(&IssuerSecretKey::from_bytes([3; 32]), &device);
        bench
    }

    fn step<T, E: Into<Exit>>(&mut self, mut act: impl FnMut(&mut Step<'_>) -> Result<T, E>) -> T {
        let moment =
            Moment { agent: &self.agent, node: NodeId::default(), now: self.now, closed: Closed::NONE };
        let transition = |snapshot: &dyn Snapshot| {
            let mut step = Step::new(snapshot, moment);
            let result = Exit::split(act(&mut step).map_err(Into::into))?;
            let first = AuditPosition { opening: 1, sequence: 0 };
            Ok((step.finish(first, &[])?.changes, result))
        };
        store::transact(&self.ledger, transition).unwrap().unwrap()
    }

    /// A credential that was redeemed.
    fn redeemed(&mut self, number: u32, session: &str) -> CredentialId {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let (ticket, credential) = (TicketId::from_bytes(id), CredentialId::from_bytes(id));
        let bytes = CredentialBytes::new(vec![1; 900]).unwrap();
        let new = NewTicket {
            key: TicketSecret::from_bytes([0; 16]).public_key(),
            credential,
            session: SessionId::new(session).unwrap(),
            issuer: self.issuer,
            device: self.device,
            offered_at: self.now,
            expires_at: self.now.plus(300),
            credential_expires_at: self.now.plus(3_600),
            ops: OpSet::COMPANION,
            label: Label::default(),
            require_confirm: false,
            unbound: VerifiedUnbound::from_stored(bytes.clone()),
        };
        let hashes = EditionHashes { stem: [1; 32], whole: [2; 32] };
        let bound = Extension { bytes, hashes };
        let redemption = Redemption {
            label: Label::default(),
            bound: Some(bound),
            nonce: [0; 16],
            said: ContextAnswer::Present,
        };
        let holder = self.holder;
        self.step(|step| step.offer(&ticket, &new, &WIDE));
        self.step(|step| step.redeem(&ticket, &holder, &redemption));
        credential
    }

    /// Another device, with an issuer of its own.
    fn device(&mut self, seed: u8) -> (IssuerPublicKey, DevicePublicKey) {
        let issuer = IssuerSecretKey::from_bytes([100 + seed; 32]);
        let device = DeviceSecretKey::from_bytes([seed; 32]).public();
        self.register(&issuer, &device);
        (issuer.public(), device)
    }

    fn register(&mut self, issuer: &IssuerSecretKey, device: &DevicePublicKey) {
        let message = Registration::message(&[0; 32], &self.agent, device, &issuer.public());
        let registration = Registration { issuer: issuer.public(), signature: issuer.sign(&message) };
        let verified = registration.verify(&[0; 32], &self.agent, device).unwrap();
        self.step(|step| step.register_issuer(&verified));
    }

    /// Whoever offers from now on.
    fn act_for(&mut self, (issuer, device): (IssuerPublicKey, DevicePublicKey)) {
        (self.issuer, self.device) = (issuer, device);
    }

    fn revoke(&mut self, id: &CredentialId) {
        self.step(|step| step.revoke_credential(id));
    }

    fn record(&mut self, id: &CredentialId) -> Option<CredentialRecord> {
        self.step(|step| step.credential(id)).map(|kept| CredentialRecord::clone(&kept))
    }

    fn counters(&mut self) -> Counters {
        self.step(|step| step.records.counters())
    }
}

/// Another gateway may have ended and shared it again since this one's context was asked.
#[test]
fn gone_ends_only_the_epoch_and_the_generation_that_were_asked_about() {
    let mut bench = Bench::new();
    let (issuer, session) = (bench.issuer, SessionId::new("session").unwrap());
    bench.redeemed(1, "session");
    let (epoch, generation) = bench.step(|step| {
        let session = step.records.session(&session)?.map(|found| found.epoch);
        Ok::<_, Exit>((session.unwrap(), step.records.issuer(&issuer)?.map_or(0, |found| found.generation)))
    });
    bench.step(|step| step.close_session(&session, RevocationReason::SessionEnd, None));
    let again = bench.redeemed(2, "session");
    let stands = |bench: &mut Bench| {
        bench.record(&again).is_some_and(|record| record.state == CredentialState::Active)
    };
    bench.step(|step| Revocation::SessionGone(session.clone(), epoch).apply(step));
    assert!(stands(&mut bench), "a later epoch than the one that is gone");
    bench.step(|step| Revocation::IssuerGone(issuer, generation.wrapping_add(1_000)).apply(step));
    assert!(stands(&mut bench), "another generation than the one that is gone");
    bench.step(|step| Revocation::IssuerGone(issuer, generation).apply(step));
    assert!(!stands(&mut bench));
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
    assert!(bench.step(|step| step.found(None, None, 1)).is_empty());
}

/// Some are forgotten as soon as they have ended, and are removed at once for that reason.
#[test]
fn revoking_many_at_once_keeps_what_ending_each_and_forgetting_the_surplus_keeps() {
    let session = SessionId::new("crowded").unwrap();
    // How many ended before, and how many end now, of each of two devices.
    let cases = [
        (0, 40, 0, 0),
        (0, 1_100, 0, 4_000),
        (1_000, 30, 200, 10),
        (1_010, 1_100, 0, 0),
        (1_024, 300, 1_020, 2_000),
    ];
    for (ended, live, other_ended, other_live) in cases {
        let mut bench = Bench::new();
        let mut number = 0;
        for (seed, ended, live) in
            [(4, ended, live), (5, other_ended, other_live), (6, 1_020, 0), (7, 1_020, 0), (8, 1_020, 0)]
        {
            let device = bench.device(seed);
            bench.act_for(device);
            let first = bench.redeemed(u32::from(seed) << 24, "crowded");
            let record = bench.record(&first).unwrap();
            bench.step(|step| {
                for at in 0..ended + live {
                    number += 1;
                    let mut id = [0; 16];
                    id[..4].copy_from_slice(&u32::wrapping_mul(number, 2_654_435_761).to_be_bytes());
                    let mut record = CredentialRecord { ticket: TicketId::from_bytes(id), ..record.clone() };
                    record.edition.expires_at = end_of(number);
                    let id = CredentialId::from_bytes(id);
                    step.insert_credential(&id, &record)?;
                    if at < ended {
                        step.end_credential(&id, record, Ended::Revoked(RevocationReason::Owner))?;
                    }
                }
                Ok::<_, Exit>(())
            });
        }
        let mut others = Bench { ledger: MemoryLedger::new(), ..bench };
        let rows = rows_of(&bench.ledger);
        put_rows(&others.ledger, &rows);
        bench.step(|step| step.close_session(&session, RevocationReason::Session, None));
        others.step(|step| {
            for entry in step.records.live_of_session(&session)? {
                let Entry::Credential(id) = entry else { panic!("every ticket was redeemed") };
                let record = step.records.credential(&id)?.unwrap();
                step.end_credential(&id, record, Ended::Revoked(RevocationReason::Session))?;
            }
            step.close_session(&session, RevocationReason::Session, None)
        });
        // Tickets and credentials may be told in another order.
        let kept = |bench: &Bench| -> Vec<_> {
            rows_of(&bench.ledger).into_iter().filter(|(table, ..)| *table != Table::Events).collect()
        };
        let (at_once, one_by_one) = (kept(&bench), kept(&others));
        assert!(at_once == one_by_one, "{live} and {other_live}: {} rows", at_once.len());
    }
}

/// In no order, and several at the same time.
fn end_of(number: u32) -> Timestamp {
    Timestamp::from_seconds(1_003_000 + u64::from(number.wrapping_mul(40_503) % 500)).unwrap()
}

fn rows_of(ledger: &dyn Ledger) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let mut all = |snapshot: &dyn Snapshot| {
        for &table in Table::ALL {
            let found = snapshot.range(table, &[], None, usize::MAX)?;
            rows.extend(found.into_iter().map(|(key, value)| (table, key, value)));
        }
        Ok(())
    };
    ledger.read(&mut all).unwrap();
    rows
}

fn put_rows(ledger: &dyn Ledger, rows: &[(Table, Vec<u8>, Vec<u8>)]) {
    let outcome = ledger.transact(&mut |snapshot| {
        let mut overlay = Overlay::new(snapshot);
        rows.iter().for_each(|(table, key, value)| overlay.put(*table, key, value));
        overlay.into_changes()
    });
    outcome.unwrap();
}

/// Counts what a transition reads and changes.
struct Counted<'a> {
    snapshot: &'a dyn Snapshot,
    rows: &'a Cell<usize>,
}

impl Snapshot for Counted<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerFailure> {
        self.rows.set(self.rows.get() + 1);
        self.snapshot.get(table, key)
    }

    fn range(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, LedgerFailure> {
        let rows = self.snapshot.range(table, prefix, after, limit)?;
        self.rows.set(self.rows.get() + 1 + rows.len());
        Ok(rows)
    }
}

/// A session with so many live credentials, put on record in one transition.
fn crowded(number: u32) -> Bench {
    let mut bench = Bench::new();
    let first = bench.redeemed(u32::MAX, "crowded");
    let record = bench.record(&first).unwrap();
    bench.step(|step| {
        for number in 0..number {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&number.to_be_bytes());
            let record = CredentialRecord { ticket: TicketId::from_bytes(id), ..record.clone() };
            step.insert_credential(&CredentialId::from_bytes(id), &record)?;
        }
        Ok::<_, Exit>(())
    });
    bench
}

/// Rows read and changed by a transition over a ledger.
fn cost(bench: &Bench, ledger: &dyn Ledger, mut act: impl FnMut(&mut Step<'_>)) -> usize {
    let rows = Cell::new(0);
    let moment =
        Moment { agent: &bench.agent, node: NodeId::default(), now: bench.now, closed: Closed::NONE };
    let outcome = ledger.transact(&mut |snapshot| {
        let counted = Counted { snapshot, rows: &rows };
        let mut step = Step::new(&counted, moment);
        act(&mut step);
        let changes = step.finish(AuditPosition { opening: 1, sequence: 0 }, &[])?.changes;
        rows.set(rows.get() + changes.len());
        Ok(changes)
    });
    outcome.unwrap();
    rows.get()
}

/// For each credential, with the next innocent call.
fn cost_of_revoking_a_session(bench: &Bench, ledger: &dyn Ledger, number: u32) -> f64 {
    let session = SessionId::new("crowded").unwrap();
    let revoked = cost(bench, ledger, |step| {
        Revocation::Session(session.clone()).apply(step).unwrap();
    });
    let next = cost(bench, ledger, |step| step.settle().unwrap());
    assert!(next < 100, "{next}");
    (revoked + next) as f64 / f64::from(number)
}

#[test]
fn a_revocation_costs_what_it_names_however_much_that_is() {
    let mut costs = Vec::new();
    for number in [1_000, 10_000] {
        let bench = crowded(number);
        #[cfg(feature = "redb")]
        {
            let file = RedbLedger::on_backend(Disk::default()).unwrap();
            put_rows(&file, &rows_of(&bench.ledger));
            costs.push((number, "file", cost_of_revoking_a_session(&bench, &file, number)));
        }
        costs.push((number, "memory", cost_of_revoking_a_session(&bench, &bench.ledger, number)));
    }
    for kind in ["file", "memory"] {
        let of: Vec<f64> = costs.iter().filter(|(_, of, _)| *of == kind).map(|(.., cost)| *cost).collect();
        assert!(of.windows(2).all(|pair| pair[1] <= pair[0] * 1.2), "rows for each credential: {costs:?}");
    }
}

#[test]
fn revoking_one_credential_costs_the_same_among_ten_and_among_ten_thousand() {
    let costs = [10, 10_000].map(|number| {
        let bench = crowded(number);
        let id = CredentialId::from_bytes([0; 16]);
        cost(&bench, &bench.ledger, |step| {
            Revocation::Credential(id).apply(step).unwrap();
        })
    });
    assert!(costs[0] > 10 && costs[0] == costs[1], "{costs:?}");
}
