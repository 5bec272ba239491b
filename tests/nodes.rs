//! Several nodes over one ledger: what one has committed, the others observe; and a node that does not read
//! the log permits nothing.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration as Time;

use common::*;
use proptest::prelude::*;
use rand::rngs::OsRng;
use sessioncap::agent::ledger::{Changes, Ledger, LedgerError, Look, MemoryLedger, Table, Transition};
use sessioncap::agent::*;
use sessioncap::desktop::*;
use sessioncap::*;
use time::Duration;

/// The limit of the tests: how long a node permits after a read of the log.
const LIMIT: Time = Time::from_secs(2);

type Log = Arc<Mutex<Vec<(u32, Changes)>>>;

/// What happens once so many further reads and transactions have seen their snapshot.
type Meanwhile = Arc<Mutex<Option<(usize, Box<dyn FnOnce() + Send>)>>>;

/// A ledger that keeps a log of who has changed what.
struct Logged {
    node: u32,
    ledger: Arc<MemoryLedger>,
    log: Log,
    meanwhile: Meanwhile,
    /// Counts the reads and transactions.
    asked: Arc<AtomicUsize>,
}

impl Logged {
    fn meanwhile(&self) {
        let mut waiting = self.meanwhile.lock().unwrap();
        let due = match &mut *waiting {
            Some((0, _)) => waiting.take(),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        };
        drop(waiting);
        due.into_iter().for_each(|(_, act)| act());
    }
}

impl Ledger for Logged {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.ledger.read(look)?;
        self.meanwhile();
        Ok(())
    }

    fn transact(&self, transition: Transition<'_>) -> Result<(), LedgerError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut log = self.log.lock().unwrap();
        let mut done = Changes::default();
        self.ledger.transact(&mut |snapshot| {
            done = transition(snapshot)?;
            Ok(done.clone())
        })?;
        if !done.is_empty() {
            log.push((self.node, done));
        }
        drop(log);
        self.meanwhile();
        Ok(())
    }
}

/// The nodes that a test gives in the place of others: counts how often it was waited for.
#[derive(Clone, Default)]
struct Counted(Arc<AtomicUsize>);

impl OtherNodes for Counted {
    fn wait(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct Node {
    world: World,
    ledger: Arc<MemoryLedger>,
    number: u32,
    log: Log,
    seen: usize,
    waited: Counted,
    meanwhile: Meanwhile,
    /// What the node has read of the log.
    copy: Arc<MemoryLedger>,
    asked: Arc<AtomicUsize>,
}

impl Node {
    /// Observes what others have committed, without a word on how recent that is.
    fn observe(&mut self) {
        let log = self.log.lock().unwrap().clone();
        for (node, changes) in log.iter().skip(self.seen) {
            self.copy.transact(&mut |_| Ok(changes.clone())).unwrap();
            if *node != self.number {
                self.world.gate.observe(changes, self.world.now).unwrap();
            }
        }
        self.seen = log.len();
    }

    /// Reads the log to its end, as often as a node does.
    fn catch_up(&mut self) {
        let read = read_at(self.world.now);
        self.observe();
        self.world.gate.caught_up(read);
    }
}

fn read_at(now: Now) -> LogRead {
    LogRead::new(now.monotonic, now.timestamp())
}

/// Nodes of one agent, which all know the same sessions and devices.
fn nodes<const N: usize>() -> [Node; N] {
    let (ledger, log) = (Arc::new(MemoryLedger::new()), Log::default());
    let nodes = [(); N];
    let mut number = 0;
    let mut nodes = nodes.map(|()| {
        number += 1;
        let (waited, meanwhile) = (Counted::default(), Meanwhile::default());
        let (copy, asked) = (Arc::<MemoryLedger>::default(), Arc::<AtomicUsize>::default());
        let store = Logged {
            node: number,
            ledger: Arc::clone(&ledger),
            log: Arc::clone(&log),
            meanwhile: Arc::clone(&meanwhile),
            asked: Arc::clone(&asked),
        };
        let world = World::with(store, |config| {
            let read = read_at(at(START, 1_000));
            config
                .with_node(NodeId::new(number))
                .with_other_nodes(LIMIT, read, waited.clone())
                .with_copy(Arc::clone(&copy))
        });
        for seed in [9, 8] {
            world.desktop(seed);
        }
        Node {
            world,
            ledger: Arc::clone(&ledger),
            number,
            log: Arc::clone(&log),
            seen: 0,
            waited,
            meanwhile,
            copy,
            asked,
        }
    });
    nodes.iter_mut().for_each(Node::catch_up);
    nodes
}

fn permit(guard: &mut Guard, now: Now) -> Result<(), Denial> {
    guard.ask(Op::SendInput, now, || ())
}

#[test]
fn what_one_node_revokes_is_cut_at_another_when_it_has_observed_it() {
    type Revoke = fn(&World, &Desktop, &Pairing);
    let ways: [(Revoke, Denial); 8] = [
        (
            |w, _, p| {
                w.gate.revoke_credential(&p.credential, w.now).unwrap();
            },
            Denial::CredentialRevoked,
        ),
        (
            |w, _, p| {
                w.gate.revoke_ticket(&p.ticket, w.now).unwrap();
            },
            Denial::CredentialRevoked,
        ),
        (
            |w, _, _| {
                w.gate.revoke_session(&session(SESSION), w.now).unwrap();
            },
            Denial::CredentialRevoked,
        ),
        (
            |w, _, _| {
                w.gate.end_session(&session(SESSION), w.now).unwrap();
            },
            Denial::SessionGone,
        ),
        (
            |w, d, _| {
                w.gate.revoke_issuer(&d.issuer.public(), w.now).unwrap();
            },
            Denial::CredentialRevoked,
        ),
        (
            |w, d, _| {
                w.gate.revoke_device(&d.device, w.now).unwrap();
            },
            Denial::CredentialRevoked,
        ),
        (
            |w, _, _| {
                w.gate.sync_devices(&[], w.now).unwrap();
            },
            Denial::CredentialRevoked,
        ),
        (|w, _, _| w.gate.reset_clock(w.now).unwrap(), Denial::CredentialRevoked),
    ];
    for (revoke, reason) in ways {
        let [mut one, mut two] = nodes();
        let desktop = one.world.desktop(9);
        let pairing = desktop.share(&one.world, &terms());
        let mut guard = one.world.join(&pairing.link, &phone(2)).unwrap().guard;
        let other = one.world.desktop(8).share(&one.world, &terms());
        let mut other = one.world.join(&other.link, &phone(3)).unwrap().guard;
        two.catch_up();
        assert_eq!(permit(&mut guard, one.world.now), Ok(()));
        let cut = guard.cut();
        let woken = Woken::new();
        let mut cut = core::pin::pin!(cut);
        let mut task = core::task::Context::from_waker(woken.waker());
        assert!(core::future::Future::poll(cut.as_mut(), &mut task).is_pending());
        let waited = two.waited.0.load(Ordering::SeqCst);
        revoke(&two.world, &desktop, &pairing);
        assert_eq!(two.waited.0.load(Ordering::SeqCst), waited + 1, "it waits for the others, once");
        one.observe();
        assert_eq!(permit(&mut guard, one.world.now), Err(reason.clone()));
        assert_eq!(woken.count(), 1, "whoever waits for the cut is woken");
        // Those alone that were named.
        let alone = pairing.credential;
        let named = matches!(reason, Denial::CredentialRevoked)
            && one.world.list().iter().any(|l| l.credential != alone && l.state == ListingState::Active);
        assert_eq!(permit(&mut other, one.world.now).is_ok(), named, "{reason:?}");
    }
}

#[test]
fn a_renewal_at_one_node_narrows_the_stream_at_another_and_does_not_end_it() {
    let [mut one, mut two] = nodes();
    let desktop = one.world.desktop(9);
    let pairing = desktop.share(&one.world, &terms());
    let Joined { mut guard, credential: held } = one.world.join(&pairing.link, &phone(2)).unwrap();
    let all = guard.ops();
    two.catch_up();
    let fewer: OpSet = [Op::StreamOutput].into_iter().collect();
    desktop.renew(&two.world, &pairing, fewer, 600).unwrap();
    assert_eq!(two.waited.0.load(Ordering::SeqCst), 1);
    assert_eq!(permit(&mut guard, one.world.now), Ok(()), "not observed yet");
    one.observe();
    assert_eq!(permit(&mut guard, one.world.now), Err(Denial::OperationNotGranted { op: Op::SendInput }));
    assert_eq!(guard.ask(Op::StreamOutput, one.world.now, || ()), Ok(()));
    // A later end of the credential is observed as well, so that the gate does not cut at the earlier one.
    desktop.renew(&two.world, &pairing, fewer, 3_600).unwrap();
    one.observe();
    assert_eq!(guard.expires_at(), one.world.now.timestamp().plus(600), "an admitted stream keeps its end");
    desktop.renew(&two.world, &pairing, all, 7_200).unwrap();
    one.observe();
    let mut later = one.world.attach(&phone(2), &held, OpSet::EMPTY).unwrap();
    one.world.pass(601);
    one.catch_up();
    assert_eq!(permit(&mut guard, one.world.now), Err(Denial::CredentialExpired));
    assert_eq!(permit(&mut later, one.world.now), Ok(()));
}

#[test]
fn an_attach_reads_the_copy_and_only_its_activation_asks_the_ledger() {
    let [mut one, mut two] = nodes();
    let desktop = one.world.desktop(9);
    let pairing = desktop.share(&one.world, &terms());
    let held = one.world.join(&pairing.link, &phone(2)).unwrap().credential;
    two.catch_up();
    let attach = |node: &Node| {
        let before = node.asked.load(Ordering::SeqCst);
        let attached = node.world.attach(&phone(2), &held, OpSet::EMPTY);
        (attached, node.asked.load(Ordering::SeqCst) - before)
    };
    let (attached, asked) = attach(&two);
    assert_eq!((attached.is_ok(), asked), (true, 1));
    // A copy that has not heard of a revocation admits nobody: the ledger is asked before there is a guard.
    one.world.gate.revoke_credential(&pairing.credential, one.world.now).unwrap();
    let (attached, asked) = attach(&two);
    assert_eq!(attached.unwrap_err().denial, Denial::CredentialRevoked);
    assert!(asked >= 1);
    // What the copy refuses, the ledger decides.
    let later = desktop.share(&one.world, &terms());
    let held = one.world.join(&later.link, &phone(3)).unwrap().credential;
    assert!(two.world.attach(&phone(3), &held, OpSet::EMPTY).is_ok(), "the copy does not know it");
    // One that was not continued in time is not read.
    one.catch_up();
    two.world.now = two.world.now.plus(Duration::seconds(3));
    let (attached, asked) = attach(&two);
    assert_eq!(attached.unwrap_err().told, Some(sessioncap::phone::PhoneError::Refused(Status::Revoked)));
    assert!(asked >= 1);
}

#[test]
fn what_is_observed_late_does_not_end_what_has_begun_since() {
    type End = fn(&World, &Desktop);
    let ends: [End; 3] = [
        |world, _| drop(world.gate.end_session(&session(SESSION), world.now)),
        |world, _| drop(world.gate.revoke_session(&session(SESSION), world.now)),
        |world, desktop| drop(world.gate.revoke_issuer(&desktop.issuer.public(), world.now)),
    ];
    for end in ends {
        let [mut one, two] = nodes();
        let desktop = one.world.desktop(9);
        let earlier = desktop.share(&one.world, &terms());
        let mut earlier = one.world.join(&earlier.link, &phone(2)).unwrap().guard;
        end(&two.world, &desktop);
        let _ = desktop.register(&one.world);
        // Before the first has heard of it, the session goes on at the first, under another epoch or generation,
        // and under yet another.
        let between = desktop.share(&one.world, &terms());
        let mut between = one.world.join(&between.link, &phone(4)).unwrap().guard;
        one.world.gate.end_session(&session(SESSION), one.world.now).unwrap();
        assert!(permit(&mut between, one.world.now).is_err());
        let _ = desktop.register(&one.world);
        let later = desktop.share(&one.world, &terms());
        let mut later = one.world.join(&later.link, &phone(3)).unwrap().guard;
        one.catch_up();
        assert!(permit(&mut earlier, one.world.now).is_err());
        assert_eq!(permit(&mut later, one.world.now), Ok(()), "it is not what was ended");
    }
}

#[test]
fn a_narrowing_that_arrives_at_any_moment_of_an_activation_holds_and_no_other_change_disturbs_it() {
    let mut arrived = 0;
    for (narrows, renewed) in [(false, false), (true, false), (false, true), (true, true)] {
        for after in 0..8 {
            let [mut one, two] = nodes();
            let desktop = one.world.desktop(9);
            let pairing = desktop.share(&one.world, &terms());
            let Joined { credential: mut held, .. } = one.world.join(&pairing.link, &phone(2)).unwrap();
            if renewed {
                // The activation then is the first use of new terms, which is written.
                desktop.renew(&one.world, &pairing, OpSet::COMPANION, 86_400).unwrap();
                held = one.world.attach_renewed(&phone(2), &held).unwrap();
            }
            let agent = two.world.agent.public();
            let asking =
                sessioncap::phone::attach(&agent, &phone(2), &held, OpSet::EMPTY, &mut OsRng).unwrap();
            let Response::Admitted(_, _, pending) = two.world.respond(&asking.message) else {
                panic!("refused")
            };
            let (gate, now, log) = (two.world.gate.clone(), two.world.now, Arc::clone(&one.log));
            // At the other node the phone is seen again, or the desktop takes operations away.
            let act = move || {
                let before = log.lock().unwrap().len();
                if narrows {
                    let fewer = [Op::StreamOutput].into_iter().collect();
                    desktop.renew(&one.world, &pairing, fewer, 600).unwrap();
                } else {
                    one.world.now = one.world.now.plus(Duration::seconds(70));
                    one.catch_up();
                    one.world.gate.settle(one.world.now).unwrap();
                    one.world.attach(&phone(2), &held, OpSet::EMPTY).unwrap();
                }
                let changes = log.lock().unwrap().split_off(before);
                changes.iter().for_each(|(_, changes)| gate.observe(changes, now).unwrap());
            };
            *two.meanwhile.lock().unwrap() = Some((after, Box::new(act)));
            let activated = pending.activate_after_first_frame(now);
            if two.meanwhile.lock().unwrap().take().is_some() {
                // The activation had ended before.
                continue;
            }
            arrived += 1;
            match (narrows, activated) {
                (_, Err(denial)) => {
                    assert!(narrows && denial == Denial::Interrupted, "{denial:?} after {after}")
                }
                (true, Ok(mut guard)) => {
                    let gone = Err(Denial::OperationNotGranted { op: Op::SendInput });
                    assert_eq!(permit(&mut guard, now), gone, "after {after}, renewed: {renewed}");
                }
                (false, Ok(mut guard)) => assert_eq!(permit(&mut guard, now), Ok(())),
            }
        }
    }
    assert!(arrived >= 4, "{arrived}");
}

#[test]
fn a_node_that_does_not_read_the_log_permits_nothing_within_the_limit_and_goes_on_afterwards() {
    let [mut one, two] = nodes();
    let desktop = one.world.desktop(9);
    let (kept, lost) = (desktop.share(&one.world, &terms()), desktop.share(&one.world, &terms()));
    let mut kept = one.world.join(&kept.link, &phone(2)).unwrap().guard;
    let mut gone = one.world.join(&lost.link, &phone(3)).unwrap().guard;
    one.catch_up();
    let began = one.world.now;
    one.world.now = began.plus(Duration::milliseconds(1_999));
    one.world.gate.settle(one.world.now).unwrap();
    assert_eq!(permit(&mut kept, one.world.now), Ok(()));
    one.world.now = began.plus(Duration::seconds(2));
    one.world.gate.settle(one.world.now).unwrap();
    assert_eq!(permit(&mut kept, one.world.now), Err(Denial::Stale), "settling is no read of the log");
    assert!(one.world.gate.health(one.world.now).streams_paused);
    two.world.gate.revoke_credential(&lost.credential, two.world.now).unwrap();
    let mut waits = core::pin::pin!(kept.settled());
    let woken = Woken::new();
    let mut task = core::task::Context::from_waker(woken.waker());
    assert!(core::future::Future::poll(waits.as_mut(), &mut task).is_pending());
    // Counted from when the read began, not from its end.
    let late = LogRead::new(began.monotonic + Duration::milliseconds(100), began.timestamp());
    one.observe();
    one.world.gate.caught_up(late);
    assert_eq!(woken.count(), 1);
    assert_eq!(permit(&mut kept, began.plus(Duration::milliseconds(2_099))), Ok(()));
    assert_eq!(permit(&mut kept, began.plus(Duration::milliseconds(2_100))), Err(Denial::Stale));
    one.catch_up();
    assert_eq!(permit(&mut kept, one.world.now), Ok(()), "it was not final");
    assert_eq!(permit(&mut gone, one.world.now), Err(Denial::CredentialRevoked));
}

#[test]
fn an_offer_under_way_is_refused_when_another_node_has_ended_a_session_meanwhile() {
    // The context answers while the other node ends the session.
    struct Racing(Mutex<Option<Box<dyn FnOnce() + Send>>>, Context);
    impl AgentContext for Racing {
        fn device(&self, device: &DevicePublicKey) -> Presence {
            self.1.device(device)
        }
        fn session(&self, session: &SessionId) -> Presence {
            self.1.session(session)
        }
        fn may_share(&self, device: &DevicePublicKey, session: &SessionId) -> bool {
            if let Some(act) = self.0.lock().unwrap().take() {
                act();
            }
            self.1.may_share(device, session)
        }
    }
    for event in ["end", "nothing"] {
        let [one, mut two] = nodes();
        let desktop = one.world.desktop(9);
        // So that there is something to end.
        desktop.share(&one.world, &terms());
        two.catch_up();
        let before = one.log.lock().unwrap().len();
        if event == "end" {
            two.world.gate.end_session(&session(SESSION), two.world.now).unwrap();
        }
        let changes: Vec<Changes> =
            one.log.lock().unwrap().iter().skip(before).map(|(_, changes)| changes.clone()).collect();
        let ledger = Logged {
            node: 3,
            ledger: Arc::default(),
            log: Log::default(),
            meanwhile: Meanwhile::default(),
            asked: Arc::default(),
        };
        let racing = Arc::new(Racing(Mutex::new(None), one.world.context.clone()));
        let agent = one.world.agent.public();
        let config = GateConfig::new(agent, [AgentUrl::parse(URL).unwrap()]).unwrap();
        let config = config.with_other_nodes(LIMIT, read_at(one.world.now), ());
        let gate = Gate::open(config, ledger, Arc::clone(&racing), one.world.now).unwrap();
        let registration = desktop.issuer.registration(&desktop.device, &CHANNEL);
        gate.register_issuer(&desktop.device, &CHANNEL, &registration, one.world.now).unwrap();
        let (observer, now) = (gate.clone(), one.world.now);
        *racing.0.lock().unwrap() = Some(Box::new(move || {
            changes.iter().for_each(|changes| observer.observe(changes, now).unwrap());
        }));
        let pairing = desktop.mint(&one.world, &terms());
        let outcome = gate.offer(&desktop.device, &pairing.offer, now).map(drop);
        let expected = if event == "end" { Err(Denial::Interrupted) } else { Ok(()) };
        assert_eq!(outcome, expected);
    }
}

#[test]
fn a_row_that_cannot_be_read_shuts_the_gate() {
    for table in [Table::Credentials, Table::Sessions, Table::Issuers, Table::Events] {
        let [one, _] = nodes();
        let desktop = one.world.desktop(9);
        let pairing = desktop.share(&one.world, &terms());
        let mut guard = one.world.join(&pairing.link, &phone(2)).unwrap().guard;
        let damaged: Changes = [(table, vec![1], Some(vec![0xff]))].into_iter().collect();
        let corrupt = Denial::Ledger(LedgerFailure::Corrupt);
        assert_eq!(one.world.gate.observe(&damaged, one.world.now), Err(corrupt));
        assert_eq!(one.world.gate.failure(), Some(LedgerFailure::Corrupt));
        assert!(matches!(permit(&mut guard, one.world.now), Err(Denial::Ledger(_))));
    }
}

#[test]
fn observing_inside_a_permit_is_an_error_and_no_deadlock() {
    let [one, mut two] = nodes();
    let desktop = one.world.desktop(9);
    let pairing = desktop.share(&one.world, &terms());
    let mut guard = one.world.join(&pairing.link, &phone(2)).unwrap().guard;
    two.catch_up();
    two.world.gate.revoke_credential(&pairing.credential, two.world.now).unwrap();
    let changes = one.log.lock().unwrap().last().unwrap().1.clone();
    let now = one.world.now;
    let outcome = guard.ask(Op::SendInput, now, || one.world.gate.observe(&changes, now)).unwrap();
    assert_eq!(outcome, Err(Denial::ApiMisuse(Misuse::InsidePermit)));
    assert_eq!(permit(&mut guard, now), Ok(()), "nothing has happened");
}

#[test]
fn another_opening_of_a_node_is_observed_by_the_gate_that_had_it() {
    let [mut one, two] = nodes();
    let pairing = one.world.desktop(9).share(&one.world, &terms());
    let mut guard = one.world.join(&pairing.link, &phone(2)).unwrap().guard;
    // The rows of an opening of node 1 by another process.
    let mut again = Vec::new();
    for (_, changes) in one.log.lock().unwrap().iter().take(1) {
        let rows = changes.iter().map(|(table, key, value)| (table, key.to_vec(), value.map(<[u8]>::to_vec)));
        again =
            rows.filter(|(table, key, _)| *table == Table::Meta && key.starts_with(b"progress")).collect();
    }
    let [(_, _, Some(progress))] = again.as_mut_slice() else { panic!("one row of progress") };
    assert_eq!(progress.last(), Some(&1), "the first opening");
    *progress.last_mut().unwrap() = 2;
    one.log.lock().unwrap().push((9, again.into_iter().collect()));
    one.observe();
    assert_eq!(permit(&mut guard, one.world.now), Err(Denial::Ledger(LedgerFailure::Fenced)));
    assert_eq!(one.world.gate.failure(), Some(LedgerFailure::Fenced));
    assert_eq!(two.world.gate.failure(), None);
}

// --- the clock ---

#[test]
fn a_node_in_the_future_does_not_take_the_others_along() {
    let [mut one, mut two] = nodes();
    let desktop = one.world.desktop(9);
    let pairing = desktop.share(&one.world, &terms().with_valid_for(3_600).unwrap());
    let mut guard = one.world.join(&pairing.link, &phone(2)).unwrap().guard;
    let real = two.world.now;
    // A day ahead; the store's clock is not.
    two.world.now = Now::since_1970(real.wall + Duration::days(1), real.monotonic);
    two.observe();
    two.world.gate.caught_up(read_at(real));
    two.world.gate.settle(two.world.now).unwrap();
    two.world.gate.revoke_phone(&desktop.device, &text("nobody"), two.world.now).unwrap();
    one.catch_up();
    assert_eq!(permit(&mut guard, one.world.now), Ok(()), "its credential has not expired");
    let mark =
        one.world.gate.offer(&desktop.device, &desktop.mint(&one.world, &terms()).offer, one.world.now);
    assert!(mark.unwrap().agent_time.distance(real.timestamp()) <= 30);
    // Nor does one that is opened in the future.
    let store = Logged {
        node: 4,
        ledger: Arc::default(),
        log: Log::default(),
        meanwhile: Meanwhile::default(),
        asked: Arc::default(),
    };
    let ahead = Now::since_1970(real.wall + Duration::days(1), real.monotonic);
    let late =
        World::try_with(store, ahead, |config| config.with_other_nodes(LIMIT, read_at(real), ())).unwrap();
    let opened = late.audit.lock().unwrap().first().unwrap().at;
    assert_eq!(opened.since(real.timestamp()), 30);
}

/// Two nodes that were two days in the future, as the store's clock was, and the time then.
fn nodes_in_the_future() -> ([Node; 2], Now) {
    let mut nodes = nodes();
    let [Node { world, .. }, _] = &nodes;
    let wrong = Now::since_1970(world.now.wall + Duration::days(2), world.now.monotonic);
    for node in &mut nodes {
        node.world.now = wrong;
        node.catch_up();
        node.world.gate.settle(wrong).unwrap();
    }
    (nodes, wrong)
}

#[test]
fn a_reset_of_the_clock_at_one_node_stands_whatever_the_others_write() {
    let ([mut one, mut two], wrong) = nodes_in_the_future();
    let far = one.world.desktop(9).share(&one.world, &terms());
    assert_eq!(one.world.only_listing().created_at, wrong.timestamp(), "{far:?}");
    let right = Now::since_1970(wrong.wall - Duration::days(2), wrong.monotonic);
    two.world.now = right;
    two.world.gate.caught_up(read_at(right));
    two.world.gate.reset_clock(right).unwrap();
    // Without having observed it, the other writes with its own time.
    one.world.now = right;
    one.world.gate.caught_up(LogRead::new(right.monotonic, right.timestamp()));
    let desktop = one.world.desktop(9);
    let receipt = desktop.share(&one.world, &terms());
    let listed = one.world.list();
    assert_eq!((listed.len(), listed[0].ticket), (1, receipt.ticket));
    assert!(listed[0].created_at.distance(right.timestamp()) <= 1, "{:?}", listed[0].created_at);
    one.catch_up();
    two.catch_up();
    assert!(two.world.gate.settle(two.world.now.plus(Duration::seconds(61))).is_ok());
    let again = desktop.share(&one.world, &terms());
    let of_again = one.world.list().into_iter().find(|listing| listing.ticket == again.ticket).unwrap();
    assert!(of_again.created_at.distance(right.timestamp()) <= 62);
}

#[test]
fn a_node_that_closes_after_the_reset_of_another_does_not_undo_it() {
    let ([mut one, two], wrong) = nodes_in_the_future();
    let pairing = one.world.desktop(9).share(&one.world, &terms());
    let held = one.world.join(&pairing.link, &phone(2)).unwrap().credential;
    one.world.now = wrong.plus(Duration::seconds(70));
    one.catch_up();
    one.world.gate.settle(one.world.now).unwrap();
    // A use that is to be written with the next commit, of which there is none before the end.
    drop(one.world.attach(&phone(2), &held, OpSet::EMPTY).unwrap());
    let right = wrong.plus(Duration::seconds(70));
    let right = Now::since_1970(right.wall - Duration::days(2), right.monotonic);
    two.world.gate.caught_up(read_at(right));
    two.world.gate.reset_clock(right).unwrap();
    let (ledger, log) = (Arc::clone(&one.ledger), Arc::clone(&one.log));
    let before = log.lock().unwrap().len();
    drop(one);
    assert!(log.lock().unwrap().len() > before, "it wrote when it closed");
    let store = Logged { node: 1, ledger, log, meanwhile: Meanwhile::default(), asked: Arc::default() };
    let again = World::try_with(store, right, |config| {
        config.with_node(NodeId::new(1)).with_other_nodes(LIMIT, read_at(right), ())
    });
    let opened = again.unwrap().audit.lock().unwrap().first().unwrap().at;
    assert!(opened.distance(right.timestamp()) <= 1, "{opened:?}");
}

// --- a set of devices with an end ---

#[test]
fn a_set_of_devices_that_has_ended_pauses_the_streams_and_admits_nobody_until_the_next() {
    let mut world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &terms());
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    let end = world.now.timestamp().plus(3);
    world.gate.sync_devices_until(&[desktop.device], end, world.now).unwrap();
    world.pass(2);
    assert_eq!(permit(&mut joined.guard, world.now), Ok(()));
    world.pass(1);
    assert_eq!(permit(&mut joined.guard, world.now), Err(Denial::Stale));
    let refused = world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err();
    assert_eq!(refused, Refusal::told(Denial::Stale, Status::Unavailable));
    let next = desktop.mint(&world, &terms());
    assert_eq!(desktop.lodge(&world, &next), Err(Denial::Stale));
    assert_eq!(desktop.register(&world), Err(Denial::Stale));
    assert_eq!(desktop.renew(&world, &pairing, OpSet::COMPANION, 600).unwrap_err(), Denial::Stale);
    // A list and a revocation are not an old set's to refuse.
    assert_eq!(world.list().len(), 1);
    let end = world.now.timestamp().plus(60);
    world.gate.sync_devices_until(&[desktop.device], end, world.now).unwrap();
    assert_eq!(permit(&mut joined.guard, world.now), Ok(()), "it was not final");
    // A wall clock that jumps ends it at the next settling.
    let jumped = Now::since_1970(world.now.wall + Duration::seconds(61), world.now.monotonic);
    world.gate.settle(jumped).unwrap();
    assert_eq!(permit(&mut joined.guard, jumped), Err(Denial::Stale));
    world.gate.sync_devices(&[desktop.device], jumped).unwrap();
    assert_eq!(permit(&mut joined.guard, jumped), Ok(()), "without an end");
    world.gate.sync_devices_until(&[], world.now.timestamp().plus(1_000), jumped).unwrap();
    assert_eq!(permit(&mut joined.guard, jumped), Err(Denial::CredentialRevoked), "a set is a set");
}

// --- whatever happens ---

#[derive(Debug, Clone)]
enum Move {
    Share(usize, u8),
    Join(usize, usize),
    Attach(usize, usize),
    Renew(usize, usize, bool),
    RevokeCredential(usize, usize),
    RevokeTicket(usize, usize),
    RevokeDevice(usize, u8),
    EndSession(usize),
    Observe(usize),
    Pass(i64),
}

fn a_move() -> impl Strategy<Value = Move> {
    let node = 0..3_usize;
    prop_oneof![
        3 => (node.clone(), 8..10_u8).prop_map(|(node, seed)| Move::Share(node, seed)),
        4 => (node.clone(), 0..6_usize).prop_map(|(node, pairing)| Move::Join(node, pairing)),
        4 => (node.clone(), 0..6_usize).prop_map(|(node, pairing)| Move::Attach(node, pairing)),
        2 => (node.clone(), 0..6_usize, any::<bool>()).prop_map(|(node, pairing, all)| Move::Renew(node, pairing, all)),
        2 => (node.clone(), 0..6_usize).prop_map(|(node, pairing)| Move::RevokeCredential(node, pairing)),
        1 => (node.clone(), 0..6_usize).prop_map(|(node, pairing)| Move::RevokeTicket(node, pairing)),
        1 => (node.clone(), 8..10_u8).prop_map(|(node, seed)| Move::RevokeDevice(node, seed)),
        1 => node.clone().prop_map(Move::EndSession),
        4 => node.prop_map(Move::Observe),
        1 => (1..4_i64).prop_map(Move::Pass),
    ]
}

struct Stream {
    guard: Guard,
    node: usize,
    pairing: usize,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever stands in a row, it is observed or the gate is shut; nothing panics, and a gate that is shut permits
    /// nothing.
    #[test]
    fn no_rows_panic_and_what_cannot_be_read_shuts_the_gate(
        table in proptest::sample::select(Table::ALL),
        key in proptest::collection::vec(any::<u8>(), 0..40),
        value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..60)),
        damaged in 0..200_usize,
    ) {
        let [one, two] = nodes();
        let pairing = one.world.desktop(9).share(&one.world, &terms());
        let mut guard = one.world.join(&pairing.link, &phone(2)).unwrap().guard;
        let any: Changes = [(table, key, value)].into_iter().collect();
        // A real transaction with one byte changed.
        let last = one.log.lock().unwrap().last().unwrap().1.clone();
        let mut at = damaged;
        let changed: Changes = last
            .iter()
            .map(|(table, key, value)| {
                let mut value = value.map(<[u8]>::to_vec);
                let bytes = value.as_mut().filter(|_| table == Table::Credentials);
                if let Some(byte) = bytes.and_then(|bytes| bytes.get_mut(core::mem::take(&mut at))) {
                    *byte ^= 0x41;
                }
                (table, key.to_vec(), value)
            })
            .collect();
        for changes in [any, changed] {
            if two.world.gate.observe(&changes, two.world.now).is_err() {
                prop_assert_eq!(two.world.gate.failure(), Some(LedgerFailure::Corrupt));
            }
            let observed = one.world.gate.observe(&changes, one.world.now);
            if observed.is_err() {
                prop_assert!(permit(&mut guard, one.world.now).is_err());
            }
        }
    }

    /// After every node has caught up, a stream at any of them is permitted what an attach anew would be granted
    /// at most, and is cut if its credential has ended, whichever node ended it.
    #[test]
    fn streams_that_have_caught_up_are_held_to_the_record(moves in proptest::collection::vec(a_move(), 1..40)) {
        let mut nodes: [Node; 3] = nodes();
        let mut pairings: Vec<(u8, Pairing, Option<CredentialBytes>)> = Vec::new();
        let mut streams: VecDeque<Stream> = VecDeque::new();
        for step in moves {
            match step {
                Move::Share(node, seed) => {
                    let world = &nodes[node].world;
                    let desktop = Desktop::new(world, seed);
                    let _ = desktop.register(world);
                    let pairing = desktop.mint(world, &terms());
                    if desktop.lodge(world, &pairing).is_ok() {
                        pairings.push((seed, pairing, None));
                    }
                }
                Move::Join(node, at) => {
                    let Some((_, pairing, held)) = pairings.get_mut(at) else { continue };
                    let holder = phone(u8::try_from(at).unwrap() + 20);
                    if let Ok(joined) = nodes[node].world.join(&pairing.link, &holder) {
                        *held = Some(joined.credential);
                        streams.push_back(Stream { guard: joined.guard, node, pairing: at });
                    }
                }
                Move::Attach(node, at) => {
                    let Some((_, _, Some(held))) = pairings.get_mut(at) else { continue };
                    let holder = phone(u8::try_from(at).unwrap() + 20);
                    let attached = nodes[node].world.attach_and_store(&holder, held, OpSet::EMPTY);
                    if let Ok((guard, renewed)) = attached {
                        *held = renewed.unwrap_or_else(|| held.clone());
                        streams.push_back(Stream { guard, node, pairing: at });
                    }
                }
                Move::Renew(node, at, all) => {
                    let Some((seed, pairing, _)) = pairings.get(at) else { continue };
                    let world = &nodes[node].world;
                    let fewer = [Op::StreamOutput].into_iter().collect();
                    let ops = if all { OpSet::COMPANION } else { fewer };
                    let _ = Desktop::new(world, *seed).renew(world, pairing, ops, 600);
                }
                Move::RevokeCredential(node, at) => {
                    let Some((_, pairing, _)) = pairings.get(at) else { continue };
                    let world = &nodes[node].world;
                    world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
                }
                Move::RevokeTicket(node, at) => {
                    let Some((_, pairing, _)) = pairings.get(at) else { continue };
                    let world = &nodes[node].world;
                    world.gate.revoke_ticket(&pairing.ticket, world.now).unwrap();
                }
                Move::RevokeDevice(node, seed) => {
                    let world = &nodes[node].world;
                    world.gate.revoke_device(&Desktop::new(world, seed).device, world.now).unwrap();
                }
                Move::EndSession(node) => {
                    let world = &nodes[node].world;
                    world.gate.end_session(&session(SESSION), world.now).unwrap();
                }
                Move::Observe(node) => nodes[node].catch_up(),
                Move::Pass(seconds) => nodes.iter_mut().for_each(|node| node.world.pass(seconds)),
            }
            for node in &mut nodes {
                node.catch_up();
            }
            let listed = nodes[0].world.list();
            for stream in &mut streams {
                let credential = pairings[stream.pairing].1.credential;
                let listing = listed.iter().find(|listing| listing.credential == credential);
                let live = listing.filter(|listing| listing.state == ListingState::Active);
                let now = nodes[stream.node].world.now;
                let allowed: OpSet = OpSet::COMPANION
                    .iter()
                    .filter(|op| stream.guard.ask(*op, now, || ()).is_ok())
                    .collect();
                match live {
                    None => prop_assert_eq!(allowed, OpSet::EMPTY, "{:?}", listing),
                    Some(live) => {
                        let most = live.renewal.as_ref().map_or(live.ops, |renewal| live.ops.union(renewal.ops));
                        prop_assert!(allowed.is_subset_of(most), "{:?} of {:?}", allowed, most);
                        prop_assert!(stream.guard.checked(now).is_ok(), "cut, but live");
                    }
                }
            }
        }
    }
}
