//! What can happen, and how likely it is where.

use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

use crate::rules::Rules;

pub const DEVICES: usize = 3;
pub const ISSUERS: usize = 3;
pub const SESSIONS: usize = 3;
pub const PHONES: usize = 4;
const TICKETS: usize = 9;

/// What a phone does with the answer that lets it in.
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
    /// monotonic clock that counts anew.
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
    prop_oneof![6 => Just(Then::Enter), 2 => Just(Then::Wait), 2 => Just(Then::Lost)].boxed()
}

fn mint() -> BoxedStrategy<Mint> {
    prop_oneof![4 => Just(Mint::AgentTime), 1 => Just(Mint::Wall)].boxed()
}

fn ops() -> BoxedStrategy<u8> {
    prop_oneof![2 => Just(31_u8), 1 => Just(255), 3 => 1..=255_u8].boxed()
}

fn valid_for() -> BoxedStrategy<u64> {
    prop_oneof![1 => Just(30_u64), 2 => Just(60), 3 => 30..2_000_u64, 3 => Just(12 * 3_600), 1 => Just(72 * 3_600)]
        .boxed()
}

fn time() -> BoxedStrategy<Move> {
    const YEAR: i64 = 365 * 86_400;
    let passed = prop_oneof![
        2 => Just(0_i64),
        6 => 1..6_i64,
        6 => 6..90_i64,
        4 => 90..1_000_i64,
        2 => 1_000..90_000_i64,
        1 => Just(YEAR),
    ];
    // How far the wall clock strays from what has passed.
    let strays = prop_oneof![
        8 => Just(0_i64),
        2 => -90..90_i64,
        1 => -100_000..0_i64,
        1 => 0..100_000_i64,
        1 => Just(-10 * YEAR),
        1 => Just(YEAR),
    ];
    (passed, strays, prop::bool::weighted(0.2))
        .prop_map(|(monotonic, strays, unseen)| Move::Time { wall: monotonic + strays, monotonic, unseen })
        .boxed()
}

fn restart() -> BoxedStrategy<Move> {
    let wall = prop_oneof![4 => 0..100_i64, 2 => -200..0_i64, 1 => -1_000_000..0_i64, 1 => 0..100_000_i64];
    (wall, any::<bool>()).prop_map(|(wall, monotonic_anew)| Move::Restart { wall, monotonic_anew }).boxed()
}

fn offer() -> BoxedStrategy<Move> {
    let life = prop_oneof![Just(30_u64), 30..900_u64, Just(300)];
    let issuer_and_device =
        (0..ISSUERS).prop_flat_map(|issuer| (Just(issuer), mostly(issuer.min(1), DEVICES)));
    (issuer_and_device, 0..SESSIONS, ops(), life, valid_for(), prop::bool::weighted(0.25), mint())
        .prop_map(|((issuer, device), session, ops, ticket_lifetime, valid_for, confirm, mint)| {
            Move::Offer(Offer { device, issuer, session, ops, ticket_lifetime, valid_for, confirm, mint })
        })
        .boxed()
}

fn about(rules: &Rules, ticket: usize) -> BoxedStrategy<Move> {
    let of = &rules.tickets[ticket];
    let holder = of.holder().unwrap_or(ticket % PHONES);
    let (device, issuer, editions) = (of.device, of.issuer, of.arrived().max(1));
    let narrow = (ops(), prop::option::weighted(0.3, 1..600_u64));
    let narrow = prop::option::weighted(0.3, narrow.prop_map(|(ops, seconds)| Narrow { ops, seconds }));
    let ask = prop_oneof![3 => Just(0_u8), 1 => any::<u8>()];
    prop_oneof![
        12 => (mostly(holder, PHONES), then())
            .prop_map(move |(phone, then)| Move::Redeem { ticket, phone, then }),
        4 => (mostly(device, DEVICES), mostly(holder, PHONES))
            .prop_map(move |(device, phone)| Move::Confirm { device, ticket, phone }),
        (if of.arrived() > 0 { 16 } else { 0 }) => (mostly(holder, PHONES), mostly(0, editions), narrow, ask, then()).prop_map(
            move |(phone, edition, narrow, ask, then)| Move::Attach { ticket, phone, edition, narrow, ask, then }
        ),
        10 => (mostly(device, DEVICES), mostly(issuer, ISSUERS), ops(), valid_for(), mint()).prop_map(
            move |(device, issuer, ops, valid_for, mint)| {
                Move::Renew { ticket, device, issuer, ops, valid_for, mint }
            }
        ),
        1 => Just(Move::RevokeTicket { ticket }),
        1 => Just(Move::RevokeCredential { ticket }),
        1 => (0..DEVICES).prop_map(move |device| Move::OfferAgain { ticket, device }),
    ]
    .boxed()
}

fn surroundings() -> BoxedStrategy<Move> {
    prop_oneof![
        4 => (0..DEVICES).prop_map(|device| Move::Enrol { device }),
        1 => (0..DEVICES).prop_map(|device| Move::StrikeOff { device }),
        4 => (0..SESSIONS).prop_map(|session| Move::StartSession { session }),
        1 => (0..SESSIONS).prop_map(|session| Move::StopSession { session }),
        5 => (0..ISSUERS).prop_flat_map(|issuer| (Just(issuer), mostly(issuer.min(1), DEVICES)))
            .prop_map(|(issuer, device)| Move::Register { device, issuer }),
        1 => (0..SESSIONS).prop_map(|session| Move::RevokeSession { session }),
        1 => (0..SESSIONS).prop_map(|session| Move::EndSession { session }),
        1 => (0..ISSUERS).prop_map(|issuer| Move::RevokeIssuer { issuer }),
        1 => (0..DEVICES).prop_map(|device| Move::RevokeDevice { device }),
        1 => Just(Move::SyncDevices),
        2 => Just(Move::Settle),
    ]
    .boxed()
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
        let mut likely = vec![
            (4, time()),
            (2, surroundings()),
            (if rules.tickets.len() < TICKETS { 4 } else { 0 }, offer()),
        ];
        if !rules.tickets.is_empty() {
            let lately = rules.tickets.len().saturating_sub(3);
            let picked = prop_oneof![2 => lately..rules.tickets.len(), 1 => 0..rules.tickets.len()];
            let rules = rules.clone();
            likely.push((14, picked.prop_flat_map(move |ticket| about(&rules, ticket)).boxed()));
        }
        if !rules.waiting.is_empty() {
            let last = 0..rules.waiting.len();
            likely.push((3, last.clone().prop_map(|waiting| Move::Activate { waiting }).boxed()));
            likely.push((1, last.prop_map(|waiting| Move::GiveUp { waiting }).boxed()));
        }
        if !rules.guards.is_empty() {
            let guards = 0..rules.guards.len();
            likely.push((1, guards.clone().prop_map(|guard| Move::Fork { guard }).boxed()));
            likely.push((2, guards.prop_map(|guard| Move::DropGuard { guard }).boxed()));
        }
        // Two that leave little behind to go on with.
        likely.push((1, prop_oneof![5 => restart(), 1 => Just(Move::ResetClock)].boxed()));
        prop::strategy::Union::new_weighted(likely.into_iter().filter(|(weight, _)| *weight > 0).collect())
            .boxed()
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
