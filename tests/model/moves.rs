//! The moves of the model, and how likely each is in each state.

use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

use crate::rules::{Rules, State};

pub const DEVICES: usize = 3;
pub const ISSUERS: usize = 3;
pub const SESSIONS: usize = 3;
pub const PHONES: usize = 4;
const TICKETS: usize = 14;

/// What a phone does with the answer that admits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It stores it and sends its first frame.
    Enter,
    /// It stores it, and its first frame may come later.
    Wait,
    /// The answer never arrives.
    Lost,
}

/// Which time a desktop mints by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mint {
    Wall,
    AgentTime,
}

/// Tickets are numbered in the order of their offers; guards and admissions that wait, in the order in
/// which they came, are picked modulo their number.
#[derive(Debug, Clone)]
pub enum Move {
    Enrol {
        device: usize,
    },
    StrikeOff {
        device: usize,
    },
    StartSession {
        session: usize,
    },
    StopSession {
        session: usize,
    },
    Register {
        device: usize,
        issuer: usize,
    },
    Offer(Offer),
    OfferAgain {
        ticket: usize,
        device: usize,
    },
    Redeem {
        ticket: usize,
        phone: usize,
        then: Then,
    },
    Confirm {
        device: usize,
        ticket: usize,
        phone: usize,
    },
    Attach {
        ticket: usize,
        phone: usize,
        edition: usize,
        narrow: Option<Narrow>,
        ask: u8,
        then: Then,
    },
    Activate {
        waiting: usize,
    },
    GiveUp {
        waiting: usize,
    },
    Fork {
        guard: usize,
    },
    DropGuard {
        guard: usize,
    },
    Renew {
        ticket: usize,
        device: usize,
        issuer: usize,
        ops: u8,
        valid_for: u64,
        mint: Mint,
    },
    RevokeTicket {
        ticket: usize,
    },
    RevokeCredential {
        ticket: usize,
    },
    RevokeSession {
        session: usize,
    },
    EndSession {
        session: usize,
    },
    RevokeIssuer {
        issuer: usize,
    },
    RevokeDevice {
        device: usize,
    },
    SyncDevices,
    Settle,
    ResetClock,
    /// The agent ends and begins again over the same ledger, with its wall clock moved and perhaps a
    /// monotonic clock that starts again.
    Restart {
        wall: i64,
        monotonic_anew: bool,
    },
    /// Both clocks move. Where it goes unseen, nobody asks the gate or a guard before the next move.
    Time {
        wall: i64,
        monotonic: i64,
        unseen: bool,
    },
}

impl Move {
    pub fn name(&self) -> String {
        format!("{self:?}").chars().take_while(|c| c.is_alphanumeric()).collect()
    }

    /// Whether a first frame follows at once where it lets a phone in.
    pub fn enters(&self) -> bool {
        matches!(self, Self::Redeem { then: Then::Enter, .. } | Self::Attach { then: Then::Enter, .. })
    }
}

#[derive(Debug, Clone)]
pub struct Offer {
    pub device: usize,
    pub issuer: usize,
    pub session: usize,
    pub ops: u8,
    pub ticket_lifetime: u64,
    pub valid_for: u64,
    pub confirm: bool,
    pub mint: Mint,
}

/// A copy that the phone narrows for itself: to these operations, and until so long from now.
#[derive(Debug, Clone, Copy)]
pub struct Narrow {
    pub ops: u8,
    pub seconds: Option<u64>,
}

fn mostly(usual: usize, of: usize) -> BoxedStrategy<usize> {
    prop_oneof![6 => Just(usual), 1 => 0..of].boxed()
}

fn then() -> BoxedStrategy<Then> {
    prop_oneof![6 => Just(Then::Enter), 2 => Just(Then::Wait), 3 => Just(Then::Lost)].boxed()
}

fn mint() -> BoxedStrategy<Mint> {
    prop_oneof![4 => Just(Mint::AgentTime), 1 => Just(Mint::Wall)].boxed()
}

fn ops() -> BoxedStrategy<u8> {
    prop_oneof![2 => Just(31_u8), 1 => Just(255), 3 => 1..=255_u8, 2 => (0..8_u8).prop_map(|bit| 1 << bit)]
        .boxed()
}

fn valid_for() -> BoxedStrategy<u64> {
    prop_oneof![1 => Just(30_u64), 2 => Just(60), 3 => 30..2_000_u64, 3 => Just(12 * 3_600), 1 => Just(72 * 3_600)]
        .boxed()
}

fn time() -> BoxedStrategy<Move> {
    const YEAR: i64 = 365 * 86_400;
    let passed = prop_oneof![
        6 => Just(0_i64),
        16 => 1..6_i64,
        16 => 6..90_i64,
        8 => 90..1_000_i64,
        3 => 1_000..90_000_i64,
        1 => Just(YEAR),
    ];
    // How far the wall clock strays from what has passed.
    let strays = prop_oneof![
        30 => Just(0_i64),
        10 => -90..90_i64,
        5 => -100_000..0_i64,
        3 => 0..10_000_i64,
        1 => Just(-10 * YEAR),
        1 => Just(YEAR),
    ];
    (passed, strays, prop::bool::weighted(0.2))
        .prop_map(|(monotonic, strays, unseen)| Move::Time { wall: monotonic + strays, monotonic, unseen })
        .boxed()
}

fn restart() -> BoxedStrategy<Move> {
    let wall = prop_oneof![4 => 0..100_i64, 2 => -200..0_i64, 1 => -1_000_000..0_i64, 1 => 0..10_000_i64];
    (wall, any::<bool>()).prop_map(|(wall, monotonic_anew)| Move::Restart { wall, monotonic_anew }).boxed()
}

/// An issuer, and the device that it is registered for, or would be.
fn issuer_and_device(rules: &Rules) -> BoxedStrategy<(usize, usize)> {
    let registered: Vec<_> = rules.issuers.iter().map(|(issuer, device)| (*issuer, *device)).collect();
    let any = (0..ISSUERS).prop_flat_map(|issuer| (Just(issuer), mostly(issuer.min(1), DEVICES)));
    match registered.is_empty() {
        true => any.boxed(),
        false => prop_oneof![9 => prop::sample::select(registered), 1 => any].boxed(),
    }
}

fn offer(rules: &Rules) -> BoxedStrategy<Move> {
    let life = prop_oneof![Just(30_u64), 30..900_u64, Just(300), Just(900)];
    (issuer_and_device(rules), 0..SESSIONS, ops(), life, valid_for(), prop::bool::weighted(0.25), mint())
        .prop_map(|((issuer, device), session, ops, ticket_lifetime, valid_for, confirm, mint)| {
            Move::Offer(Offer { device, issuer, session, ops, ticket_lifetime, valid_for, confirm, mint })
        })
        .boxed()
}

/// Something about one ticket: mostly what people do next.
fn about(rules: &Rules, ticket: usize) -> BoxedStrategy<Move> {
    let of = &rules.tickets[ticket];
    let holder = of.holder().unwrap_or(ticket % PHONES);
    let (device, issuer, editions) = (of.device, of.issuer, of.arrived().max(1));
    let state = of.credential().map(|credential| credential.state);
    let (redeem, confirm, attach, renew) = match state {
        None => (20, 1, 0, 1),
        Some(State::Pending) => (8, 12, 0, 1),
        Some(_) if of.arrived() == 0 => (12, 1, 0, 4),
        Some(State::Active) => (5, 1, 20, 12),
        Some(State::Revoked(_)) => (6, 2, 12, 4),
    };
    let narrow = (ops(), prop::option::weighted(0.3, 1..600_u64));
    let narrow = prop::option::weighted(0.25, narrow.prop_map(|(ops, seconds)| Narrow { ops, seconds }));
    let ask = prop_oneof![3 => Just(0_u8), 1 => any::<u8>()];
    let redeem_by = prop_oneof![9 => Just(holder), 1 => 0..PHONES];
    let shares = (mostly(device, DEVICES), mostly(issuer, ISSUERS));
    let likely: Vec<(u32, BoxedStrategy<Move>)> = vec![
        (
            redeem,
            (redeem_by, then()).prop_map(move |(phone, then)| Move::Redeem { ticket, phone, then }).boxed(),
        ),
        (
            confirm,
            (mostly(device, DEVICES), mostly(holder, PHONES))
                .prop_map(move |(device, phone)| Move::Confirm { device, ticket, phone })
                .boxed(),
        ),
        (
            attach,
            (prop_oneof![12 => Just(holder), 1 => 0..PHONES], mostly(0, editions), narrow, ask, then())
                .prop_map(move |(phone, edition, narrow, ask, then)| Move::Attach {
                    ticket,
                    phone,
                    edition,
                    narrow,
                    ask,
                    then,
                })
                .boxed(),
        ),
        (
            renew,
            (shares, ops(), valid_for(), mint())
                .prop_map(move |((device, issuer), ops, valid_for, mint)| Move::Renew {
                    ticket,
                    device,
                    issuer,
                    ops,
                    valid_for,
                    mint,
                })
                .boxed(),
        ),
        (
            1,
            any::<bool>()
                .prop_map(move |by_ticket| match by_ticket {
                    true => Move::RevokeTicket { ticket },
                    false => Move::RevokeCredential { ticket },
                })
                .boxed(),
        ),
        (1, mostly(device, DEVICES).prop_map(move |device| Move::OfferAgain { ticket, device }).boxed()),
    ];
    weighted(likely)
}

fn weighted(likely: Vec<(u32, BoxedStrategy<Move>)>) -> BoxedStrategy<Move> {
    prop::strategy::Union::new_weighted(likely.into_iter().filter(|(weight, _)| *weight > 0).collect())
        .boxed()
}

fn surroundings(rules: &Rules) -> BoxedStrategy<Move> {
    // A missing ledger or context mostly returns soon.
    let missing =
        |all: usize, there: &dyn Fn(usize) -> bool| (0..all).filter(|n| !there(*n)).collect::<Vec<_>>();
    let idle = missing(SESSIONS, &|session| rules.running.contains(&session));
    let away = missing(DEVICES - 1, &|device| rules.enrolled.contains(&device));
    let unknown = missing(ISSUERS, &|issuer| rules.issuers.contains_key(&issuer));
    let mut likely = vec![
        (2, (0..DEVICES).prop_map(|device| Move::StrikeOff { device }).boxed()),
        (1, (0..DEVICES).prop_map(|device| Move::Enrol { device }).boxed()),
        (2, (0..SESSIONS).prop_map(|session| Move::StopSession { session }).boxed()),
        (2, (0..ISSUERS, 0..DEVICES).prop_map(|(issuer, device)| Move::Register { device, issuer }).boxed()),
        (1, (0..SESSIONS).prop_map(|session| Move::RevokeSession { session }).boxed()),
        (1, (0..SESSIONS).prop_map(|session| Move::EndSession { session }).boxed()),
        (1, (0..ISSUERS).prop_map(|issuer| Move::RevokeIssuer { issuer }).boxed()),
        (1, (0..DEVICES).prop_map(|device| Move::RevokeDevice { device }).boxed()),
        (2, Just(Move::SyncDevices).boxed()),
        (4, Just(Move::Settle).boxed()),
    ];
    if !idle.is_empty() {
        likely.push((
            20,
            prop::sample::select(idle).prop_map(|session| Move::StartSession { session }).boxed(),
        ));
    }
    if !away.is_empty() {
        likely.push((12, prop::sample::select(away).prop_map(|device| Move::Enrol { device }).boxed()));
    }
    if !unknown.is_empty() {
        let register = |issuer: usize| Move::Register { device: issuer.min(1), issuer };
        likely.push((16, prop::sample::select(unknown).prop_map(register).boxed()));
    }
    weighted(likely)
}

/// The sequences to try. The rules say what is worth trying next; they are asked again, step by step,
/// when the sequence is played.
pub struct Sequences;

impl ReferenceStateMachine for Sequences {
    type State = Rules;
    type Transition = Move;

    fn init_state() -> BoxedStrategy<Rules> {
        Just(Rules::new()).boxed()
    }

    fn transitions(rules: &Rules) -> BoxedStrategy<Move> {
        // More where the sequence would come to a standstill without it.
        let bare = rules.issuers.is_empty() || rules.running.is_empty() || rules.enrolled.is_empty();
        let live = rules.live();
        let offers = match (rules.tickets.len() < TICKETS, live.len()) {
            (false, _) => 0,
            (true, 0) => 24,
            (true, 1..=3) => 8,
            (true, _) => 6,
        };
        let mut likely =
            vec![(8, time()), (if bare { 24 } else { 3 }, surroundings(rules)), (offers, offer(rules))];
        if !live.is_empty() {
            let rules = rules.clone();
            let picked = prop::sample::select(live);
            likely.push((30, picked.prop_flat_map(move |ticket| about(&rules, ticket)).boxed()));
        }
        if !rules.tickets.is_empty() {
            let (picked, rules) = (0..rules.tickets.len(), rules.clone());
            likely.push((4, picked.prop_flat_map(move |ticket| about(&rules, ticket)).boxed()));
        }
        if !rules.waiting.is_empty() {
            let last = 0..rules.waiting.len();
            likely.push((6, last.clone().prop_map(|waiting| Move::Activate { waiting }).boxed()));
            likely.push((1, last.prop_map(|waiting| Move::GiveUp { waiting }).boxed()));
        }
        if !rules.guards.is_empty() {
            let guards = 0..rules.guards.len();
            likely.push((2, guards.clone().prop_map(|guard| Move::Fork { guard }).boxed()));
            likely.push((8, guards.prop_map(|guard| Move::DropGuard { guard }).boxed()));
        }
        likely.push((2, prop_oneof![14 => restart(), 1 => Just(Move::ResetClock)].boxed()));
        weighted(likely)
    }

    fn preconditions(rules: &Rules, next: &Move) -> bool {
        rules.knows(next)
    }

    fn apply(mut rules: Rules, next: &Move) -> Rules {
        rules.move_clocks(next);
        let entered = match next {
            Move::Time { unseen: true, .. } => false,
            _ => {
                rules.look_at_clocks();
                imagine(&mut rules, next) && next.enters()
            }
        };
        if entered {
            let waiting = rules.waiting.len() - 1;
            imagine(&mut rules, &Move::Activate { waiting });
        }
        rules
    }
}

/// The move as it should go, and whether it goes through.
fn imagine(rules: &mut Rules, next: &Move) -> bool {
    let prediction = rules.predict(next);
    let accepted = prediction.ok.is_some();
    let code = prediction.no.first().map_or("", |no| no.code);
    rules.commit(next, &prediction, accepted, code);
    (0..rules.guards.len()).for_each(|guard| drop(rules.judge(guard)));
    accepted
}
