//! The model: the promises of the documents, over small numbers and without cryptography.
//!
//! Where a prediction allows more than one outcome, the comment there says why.

use std::collections::{BTreeMap, BTreeSet};

use sessioncap::Status;

use crate::moves::*;

pub const START: i64 = 1_780_000_000;
const RETRY: u64 = 600;
const GRACE: u64 = 600;
const SKEW: u64 = 60;
const ACTIVATION: i64 = 5;
const WAITING_RENEWALS: usize = sessioncap::limits::MAX_EDITIONS;
/// For how long one `settle` lets streams continue.
const LEASE: i64 = 5;
const ISSUERS_PER_DEVICE: usize = 4;
/// Smaller than the defaults, so that they are reached.
pub const TICKETS_PER_SESSION: usize = 2;
pub const CREDENTIALS_PER_SESSION: usize = 4;
pub const TICKETS_PER_AGENT: usize = 4;
pub const CREDENTIALS_PER_AGENT: usize = 6;
pub const CONNECTIONS: usize = 2;

/// The answer to a phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Nothing,
    Waiting,
    Status(Status),
}

/// One way to be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct No {
    pub code: &'static str,
    pub told: Told,
}

fn no(code: &'static str, status: Status) -> No {
    No { code, told: Told::Status(status) }
}

/// Refused without an answer; also for calls that are not a phone's.
fn silent(code: &'static str) -> No {
    No { code, told: Told::Nothing }
}

fn expired() -> No {
    no("credential_expired", Status::Expired)
}

fn gone() -> No {
    no("session_gone", Status::SessionGone)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    Owner,
    Contest,
    Session,
    SessionEnd,
    Issuer,
}

impl Why {
    fn of_credential(self) -> No {
        match self {
            Self::SessionEnd => gone(),
            Self::Contest => no("ticket_contested", Status::Revoked),
            Self::Owner | Self::Session | Self::Issuer => no("credential_revoked", Status::Revoked),
        }
    }

    fn of_ticket(self) -> No {
        match self {
            Self::SessionEnd => gone(),
            _ => no("ticket_revoked", Status::Revoked),
        }
    }

    /// The possible answers for something that had expired before it was revoked. The documents order
    /// the reasons by what is on record, and whether an end was on record first depends on how much
    /// was settled.
    fn late(self) -> Vec<No> {
        match self {
            Self::SessionEnd => vec![gone()],
            Self::Session => vec![gone(), self.of_credential(), self.of_ticket()],
            Self::Issuer => {
                vec![no("issuer_revoked", Status::Revoked), self.of_credential(), self.of_ticket()]
            }
            Self::Owner | Self::Contest => vec![self.of_credential(), self.of_ticket()],
        }
    }
}

/// One credential's terms: its token's own, and those that the latest renewal leaves.
#[derive(Debug, Clone)]
pub struct Edition {
    pub serial: usize,
    pub own_ops: u8,
    pub ops: u8,
    pub end: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Until the ticket's end.
    Pending,
    Active,
    Revoked(Why),
}

#[derive(Debug, Clone)]
pub struct Credential {
    pub holder: usize,
    pub state: State,
    /// Revoked after it had expired.
    pub late: BTreeSet<Why>,
    /// Found expired by a `settle` that left nothing undone.
    pub settled: bool,
    /// The one in use first. Never empty.
    pub editions: Vec<Edition>,
    pub serials: usize,
    /// Those that reached the phone.
    pub arrived: BTreeSet<usize>,
    /// The last visit.
    pub visited: Option<u64>,
    /// The last one that was noted: one a minute, and each that uses a renewal.
    pub noted: Option<u64>,
}

impl Credential {
    fn latest(&self) -> &Edition {
        self.editions.last().expect("never empty")
    }

    fn place(&self, serial: usize) -> Option<usize> {
        self.editions.iter().position(|edition| edition.serial == serial)
    }
}

#[derive(Debug, Clone)]
pub enum Fate {
    Open,
    Revoked(Why),
    Claimed(Credential),
}

#[derive(Debug, Clone)]
pub struct Ticket {
    pub device: usize,
    pub issuer: usize,
    pub session: usize,
    /// Of the session and of the issuer when it was offered.
    epoch: usize,
    generation: usize,
    pub ops: u8,
    /// As minted, for a second offer of the same.
    minted_end: u64,
    valid_for: u64,
    pub end: u64,
    credential_end: u64,
    confirm: bool,
    pub fate: Fate,
    pub late: BTreeSet<Why>,
    pub settled: bool,
    /// By a reset of the clock.
    pub forgotten: bool,
}

impl Ticket {
    pub fn credential(&self) -> Option<&Credential> {
        match &self.fate {
            Fate::Claimed(credential) => Some(credential),
            _ => None,
        }
    }

    fn credential_mut(&mut self) -> &mut Credential {
        match &mut self.fate {
            Fate::Claimed(credential) => credential,
            _ => panic!("no credential here"),
        }
    }

    pub fn holder(&self) -> Option<usize> {
        self.credential().map(|credential| credential.holder)
    }

    /// How many editions reached the phone.
    pub fn arrived(&self) -> usize {
        self.credential().map_or(0, |credential| credential.arrived.len())
    }

    /// When it, or the credential that it gave, is over.
    pub fn over(&self) -> u64 {
        match &self.fate {
            Fate::Claimed(credential) if credential.state == State::Pending => {
                self.end.min(credential.latest().end)
            }
            Fate::Claimed(credential) => credential.latest().end,
            _ => self.end,
        }
    }

    /// From when on its own record may be gone.
    fn ticket_kept_until(&self) -> u64 {
        self.end + RETRY
    }

    /// From when on what the list shows of it may be gone.
    pub fn kept_until(&self) -> u64 {
        match &self.fate {
            Fate::Claimed(credential) => credential.latest().end + GRACE,
            _ => self.ticket_kept_until(),
        }
    }
}

/// An admission that waits for its first frame.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub ticket: usize,
    serial: usize,
    shown: Option<usize>,
    redeemed: bool,
    ops: u8,
    end: u64,
    before: i64,
}

#[derive(Debug, Clone)]
pub struct Guard {
    pub ticket: usize,
    pub connection: usize,
    pub ops: u8,
    pub end: u64,
    monotonic_end: i64,
    /// Why it was cut, for each cut there was; the guard names one of them.
    pub cut: BTreeSet<&'static str>,
    pub ended: bool,
}

/// What a phone is admitted with.
#[derive(Debug, Clone)]
pub struct Granted {
    pub ops: u8,
    pub end: u64,
    pub serial: usize,
    /// The edition that was shown, if it was shown whole.
    shown: Option<usize>,
    redeemed: bool,
    /// Whether message 2 brings this credential.
    pub brings: bool,
}

/// How a call may go. `ok` is present if it may succeed.
#[derive(Debug, Clone, Default)]
pub struct Prediction {
    pub ok: Option<Option<Granted>>,
    pub no: Vec<No>,
}

impl Prediction {
    fn yes() -> Self {
        Self { ok: Some(None), no: Vec::new() }
    }

    fn granted(granted: Granted) -> Self {
        Self { ok: Some(Some(granted)), no: Vec::new() }
    }
}

impl From<Vec<No>> for Prediction {
    fn from(no: Vec<No>) -> Self {
        Self { ok: None, no }
    }
}

impl From<No> for Prediction {
    fn from(no: No) -> Self {
        vec![no].into()
    }
}

#[derive(Debug, Clone)]
pub struct Rules {
    pub wall: i64,
    pub monotonic: i64,
    /// The agent's time, and the monotonic time when it was that.
    pub time: u64,
    at: i64,
    /// The latest time at which something was certainly written.
    pub written: u64,
    /// The latest time at which something was certainly decided.
    decided: u64,
    pub enrolled: BTreeSet<usize>,
    pub running: BTreeSet<usize>,
    pub issuers: BTreeMap<usize, usize>,
    /// How often each session was closed, and each issuer revoked.
    epochs: BTreeMap<usize, usize>,
    generations: BTreeMap<usize, usize>,
    /// The monotonic time of the last `settle`.
    settled_at: i64,
    pub tickets: Vec<Ticket>,
    pub waiting: Vec<Waiting>,
    pub guards: Vec<Guard>,
    connections: usize,
}

impl Rules {
    /// Two devices, each with its issuer, and every session.
    pub fn new() -> Self {
        Self {
            wall: START,
            monotonic: 1_000,
            time: START as u64,
            at: 1_000,
            written: START as u64,
            decided: START as u64,
            enrolled: [0, 1].into(),
            running: (0..SESSIONS).collect(),
            issuers: [(0, 0), (1, 1)].into(),
            epochs: BTreeMap::new(),
            generations: BTreeMap::new(),
            settled_at: 1_000,
            tickets: Vec::new(),
            waiting: Vec::new(),
            guards: Vec::new(),
            connections: 0,
        }
    }

    /// Whether everything that the move names exists.
    pub fn knows(&self, next: &Move) -> bool {
        match *next {
            Move::OfferAgain { ticket, .. }
            | Move::Redeem { ticket, .. }
            | Move::Confirm { ticket, .. }
            | Move::Renew { ticket, .. }
            | Move::RevokeTicket { ticket }
            | Move::RevokeCredential { ticket } => ticket < self.tickets.len(),
            // A phone shows what it has.
            Move::Attach { ticket, .. } => self.tickets.get(ticket).is_some_and(|of| of.arrived() > 0),
            Move::Activate { waiting } | Move::GiveUp { waiting } => waiting < self.waiting.len(),
            Move::Fork { guard } | Move::DropGuard { guard } => guard < self.guards.len(),
            _ => true,
        }
    }

    // --- time ---

    pub fn stamp(&self) -> u64 {
        u64::try_from(self.wall).unwrap_or(0)
    }

    /// The gate is asked something: the later of the wall clock and what has passed since it was last.
    pub fn look_at_clocks(&mut self) {
        let passed = u64::try_from(self.monotonic - self.at).unwrap_or(0);
        self.time = self.stamp().max(self.time + passed);
        self.at = self.monotonic;
    }

    /// Moves the clocks, as far as the move is about them.
    pub fn move_clocks(&mut self, next: &Move) {
        match *next {
            // Not before 1971: a record says 1970 for never.
            Move::Time { wall, monotonic, .. } => {
                self.wall = (self.wall + wall).max(365 * 86_400);
                self.monotonic += monotonic;
            }
            Move::Restart { wall, monotonic_anew } => {
                self.wall = (self.wall + wall).max(365 * 86_400);
                self.monotonic = if monotonic_anew { 0 } else { self.monotonic + wall.max(0) };
            }
            _ => {}
        }
    }

    /// The earliest time that an agent may begin again with: that of its wall clock, or the last that
    /// was written, which is at most a minute older than the last at which anything was decided. A listing
    /// decides nothing.
    pub fn earliest_restart(&self) -> u64 {
        self.stamp().max(self.written).max(self.decided.saturating_sub(60))
    }

    /// The latest: it must not jump.
    pub fn latest_restart(&self) -> u64 {
        self.stamp().max(self.time)
    }

    pub fn restarted(&mut self, time: u64) {
        self.time = time;
        self.at = self.monotonic;
    }

    // --- what is valid ---

    fn over(&self, ticket: &Ticket) -> bool {
        self.time >= ticket.over()
    }

    /// Whether a credential is valid: revoked, session gone, expired, pending, in this order.
    fn standing(&self, ticket: &Ticket) -> Result<(), Vec<No>> {
        let Some(credential) = ticket.credential() else { panic!("no credential here") };
        if let State::Revoked(why) = credential.state {
            return Err(vec![why.of_credential()]);
        }
        let mut reasons: Vec<No> = credential.late.iter().flat_map(|why| why.late()).collect();
        if !self.running.contains(&ticket.session) {
            reasons.push(gone());
        } else if self.over(ticket) {
            reasons.push(expired());
            // Waiting for a confirmation ends with the ticket, which either may be named.
            if credential.state == State::Pending {
                reasons.push(no("ticket_expired", Status::Expired));
            }
        } else if credential.state == State::Pending {
            reasons.push(No { code: "confirmation_pending", told: Told::Waiting });
        }
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }

    /// Connections of a credential that are not cut.
    pub fn connections(&self, ticket: usize) -> usize {
        let open = self.guards.iter().filter(|guard| guard.ticket == ticket && guard.cut.is_empty());
        open.map(|guard| guard.connection).collect::<BTreeSet<_>>().len()
    }

    fn room(&self, ticket: usize) -> Result<(), No> {
        let busy = no("too_many_connections", Status::Busy);
        if self.connections(ticket) < CONNECTIONS { Ok(()) } else { Err(busy) }
    }

    /// The tickets with which something can still be done.
    pub fn live(&self) -> Vec<usize> {
        let ended = |ticket: &Ticket| match &ticket.fate {
            Fate::Open => false,
            Fate::Revoked(_) => true,
            Fate::Claimed(credential) => matches!(credential.state, State::Revoked(_)),
        };
        let live = |(_, ticket): &(usize, &Ticket)| !ticket.forgotten && !ended(ticket) && !self.over(ticket);
        self.tickets.iter().enumerate().filter(live).map(|(number, _)| number).collect()
    }

    // --- what is asked ---

    pub fn predict(&self, next: &Move) -> Prediction {
        match *next {
            Move::Register { device, issuer } => self.register(device, issuer),
            Move::Offer(ref offer) => self.offer(offer),
            Move::OfferAgain { ticket, device } => self.offer_again(ticket, device),
            Move::Redeem { ticket, phone, .. } => self.redeem(ticket, phone),
            Move::Confirm { device, ticket, phone } => self.confirm(device, ticket, phone),
            Move::Attach { ticket, phone, edition, narrow, ask, .. } => {
                self.attach(ticket, phone, edition, narrow, ask)
            }
            Move::Activate { waiting } => self.activate(&self.waiting[waiting]),
            Move::Renew { ticket, device, issuer, ops, valid_for, mint } => {
                match self.renew(ticket, device, issuer, valid_for, mint) {
                    Err(no) => no.into(),
                    Ok(end) => match self.renewed(ticket, ops, end) {
                        Some(_) => Prediction::yes(),
                        None => silent("renewals_unused").into(),
                    },
                }
            }
            _ => Prediction::yes(),
        }
    }

    fn register(&self, device: usize, issuer: usize) -> Prediction {
        if !self.enrolled.contains(&device) {
            return silent("device_not_enrolled").into();
        }
        match self.issuers.get(&issuer) {
            Some(of) if *of == device => Prediction::yes(),
            Some(_) => silent("issuer_of_another_device").into(),
            None if self.issuers.values().filter(|of| **of == device).count() >= ISSUERS_PER_DEVICE => {
                silent("quota_reached").into()
            }
            None => Prediction::yes(),
        }
    }

    fn mint_time(&self, mint: Mint) -> u64 {
        match mint {
            Mint::Wall => self.stamp(),
            Mint::AgentTime => self.time,
        }
    }

    fn may_offer(&self, device: usize, issuer: usize, minted: u64, valid_for: u64) -> Result<(), No> {
        if !self.enrolled.contains(&device) {
            return Err(silent("device_not_enrolled"));
        }
        match self.issuers.get(&issuer) {
            None => return Err(silent("issuer_unknown")),
            Some(of) if *of != device => return Err(silent("issuer_of_another_device")),
            Some(_) => {}
        }
        let skewed = minted.abs_diff(self.time + valid_for) > SKEW;
        if skewed { Err(silent("clock_skew")) } else { Ok(()) }
    }

    fn offer(&self, offer: &Offer) -> Prediction {
        let minted = self.mint_time(offer.mint) + offer.valid_for;
        if let Err(no) = self.may_offer(offer.device, offer.issuer, minted, offer.valid_for) {
            return no.into();
        }
        if !self.running.contains(&offer.session) {
            return silent("session_not_live").into();
        }
        let live = |ticket: &&Ticket| {
            let ended = matches!(ticket.fate, Fate::Revoked(_))
                || ticket
                    .credential()
                    .is_some_and(|credential| matches!(credential.state, State::Revoked(_)));
            !ticket.forgotten && !ended
        };
        let open = |ticket: &&Ticket| matches!(ticket.fate, Fate::Open);
        let here = |ticket: &&Ticket| ticket.session == offer.session;
        let now = |ticket: &&Ticket| !self.over(ticket);
        // An expired record in another session counts until it is settled, and a call settles only so
        // much.
        let counted = |ticket: &&Ticket| now(ticket) || !(ticket.settled || here(ticket));
        let count = |of: &dyn Fn(&&Ticket) -> bool| self.tickets.iter().filter(live).filter(of).count();
        let full = count(&|t| here(t) && open(t) && now(t)) >= TICKETS_PER_SESSION
            || count(&|t| here(t) && now(t)) >= CREDENTIALS_PER_SESSION
            || count(&|t| open(t) && now(t)) >= TICKETS_PER_AGENT
            || count(&now) >= CREDENTIALS_PER_AGENT;
        let seems_full = count(&|t| open(t) && counted(t)) >= TICKETS_PER_AGENT
            || count(&counted) >= CREDENTIALS_PER_AGENT;
        let quota = || vec![silent("quota_reached")];
        match (full, seems_full) {
            (true, _) => quota().into(),
            (false, true) => Prediction { ok: Some(None), no: quota() },
            (false, false) => Prediction::yes(),
        }
    }

    fn offer_again(&self, ticket: usize, device: usize) -> Prediction {
        let of = &self.tickets[ticket];
        if let Err(no) = self.may_offer(device, of.issuer, of.minted_end, of.valid_for) {
            return no.into();
        }
        if !self.running.contains(&of.session) {
            return silent("session_not_live").into();
        }
        silent("offer_repeated").into()
    }

    /// Whether a second offer of the same is refused for certain. It is not once the first is forgotten,
    /// which only a clock that was reset can bring about within the skew; that is not played.
    pub fn offer_again_is_refused(&self, ticket: usize, device: usize) -> bool {
        let of = &self.tickets[ticket];
        let kept = !of.forgotten && self.time < of.ticket_kept_until();
        kept || self.may_offer(device, of.issuer, of.minted_end, of.valid_for).is_err()
    }

    fn redeem(&self, number: usize, phone: usize) -> Prediction {
        let ticket = &self.tickets[number];
        let unknown = silent("ticket_unknown");
        if ticket.forgotten {
            return unknown.into();
        }
        // Whenever its record goes, it is not known any more from here on.
        if self.time >= ticket.ticket_kept_until() {
            return unknown.into();
        }
        let late_reasons = |late: &BTreeSet<Why>| late.iter().flat_map(|why| why.late()).collect::<Vec<_>>();
        let credential = match &ticket.fate {
            Fate::Revoked(why) => return why.of_ticket().into(),
            Fate::Open => {
                let mut reasons = late_reasons(&ticket.late);
                if !self.running.contains(&ticket.session) {
                    reasons.push(gone());
                } else if self.over(ticket) {
                    reasons.push(no("ticket_expired", Status::Expired));
                } else if self.time >= ticket.credential_end {
                    reasons.push(expired());
                } else if ticket.confirm {
                    reasons.push(No { code: "confirmation_pending", told: Told::Waiting });
                } else {
                    return Prediction::granted(Granted {
                        ops: ticket.ops,
                        end: ticket.credential_end,
                        serial: 0,
                        shown: None,
                        redeemed: true,
                        brings: true,
                    });
                }
                return reasons.into();
            }
            Fate::Claimed(credential) => credential,
        };
        if self.time >= ticket.kept_until() {
            return unknown.into();
        }
        let standing = self.standing(ticket);
        if credential.holder == phone {
            return match standing {
                Err(reasons) => reasons.into(),
                Ok(()) => match self.room(number) {
                    Err(busy) => busy.into(),
                    Ok(()) => Prediction::granted(Granted {
                        ops: credential.latest().ops,
                        end: credential.latest().end,
                        serial: credential.latest().serial,
                        shown: None,
                        redeemed: true,
                        brings: true,
                    }),
                },
            };
        }
        if let State::Revoked(why) = credential.state {
            return why.of_credential().into();
        }
        let mut reasons = late_reasons(&credential.late);
        if !self.running.contains(&ticket.session) {
            reasons.push(gone());
        } else if self.time >= ticket.end {
            reasons.push(no("ticket_claimed", Status::Claimed));
        } else {
            reasons.push(Why::Contest.of_credential());
        }
        reasons.into()
    }

    /// Whether this redemption shows that the code has leaked, and whether there is something left to
    /// revoke.
    fn contests(&self, ticket: &Ticket, phone: usize) -> Option<bool> {
        let credential = ticket.credential()?;
        let alive = !matches!(credential.state, State::Revoked(_)) && self.running.contains(&ticket.session);
        let early = !ticket.forgotten && self.time < ticket.end;
        (credential.holder != phone && alive && early).then(|| !self.over(ticket))
    }

    fn confirm(&self, device: usize, number: usize, phone: usize) -> Prediction {
        let ticket = &self.tickets[number];
        if !self.enrolled.contains(&device) {
            return silent("device_not_enrolled").into();
        }
        let nothing = silent("nothing_to_confirm");
        let credential = match ticket.credential() {
            Some(credential) if !ticket.forgotten => credential,
            _ => return nothing.into(),
        };
        let kept = self.time < ticket.ticket_kept_until().min(ticket.kept_until());
        let mut prediction = if ticket.device != device {
            silent("issuer_of_another_device").into()
        } else if credential.holder != phone {
            nothing.into()
        } else {
            match self.standing(ticket) {
                Ok(()) => Prediction::yes(),
                Err(reasons) if reasons.iter().all(|no| no.code == "confirmation_pending") => {
                    Prediction::yes()
                }
                Err(reasons) => reasons.into(),
            }
        };
        if !kept {
            prediction.no.push(nothing);
        }
        prediction
    }

    /// The edition that a pick means: 0 the last that reached the phone, 1 the one before.
    pub fn serial(&self, ticket: usize, pick: usize) -> usize {
        let arrived = &self.tickets[ticket].credential().expect("something arrived").arrived;
        *arrived.iter().rev().nth(pick % arrived.len()).expect("something arrived")
    }

    fn attach(
        &self,
        number: usize,
        phone: usize,
        pick: usize,
        narrow: Option<Narrow>,
        ask: u8,
    ) -> Prediction {
        let ticket = &self.tickets[number];
        let unknown = silent("credential_unknown");
        let credential = match ticket.credential() {
            Some(credential) if !ticket.forgotten => credential,
            _ => return unknown.into(),
        };
        let maybe_unknown = self.time >= ticket.kept_until();
        let refused = |mut reasons: Vec<No>| -> Prediction {
            if maybe_unknown {
                reasons.push(unknown);
            }
            reasons.into()
        };
        if credential.holder != phone {
            return refused(vec![silent("holder_mismatch")]);
        }
        if let Err(reasons) = self.standing(ticket) {
            return refused(reasons);
        }
        let serial = self.serial(number, pick);
        let Some(place) = credential.place(serial) else {
            return refused(vec![no("credential_retired", Status::Expired)]);
        };
        // Only who shows one whole is given a later one: a narrowed copy stays what it is.
        let brings = narrow.is_none() && place + 1 < credential.editions.len();
        let basis = if brings { credential.latest() } else { &credential.editions[place] };
        if self.time >= basis.end {
            return refused(vec![expired()]);
        }
        let own_ops = basis.own_ops & narrow.map_or(255, |narrow| narrow.ops);
        let end = self.narrow_end(narrow).map_or(basis.end, |end| end.min(basis.end));
        let held = own_ops & basis.ops;
        let ops = if ask == 0 { held } else { ask & held };
        // Which caveat is named first is the engine's affair.
        let mut reasons = Vec::new();
        if self.time >= end {
            reasons.push(no("caveat_failed", Status::Expired));
        }
        if ops == 0 {
            let denied = Status::OperationDenied;
            reasons.push(no("caveat_failed", denied));
            reasons.push(no("operation_not_granted", denied));
        }
        if !reasons.is_empty() {
            return refused(reasons);
        }
        match self.room(number) {
            Err(busy) => busy.into(),
            Ok(()) => Prediction::granted(Granted {
                ops,
                end,
                serial: basis.serial,
                shown: narrow.is_none().then_some(serial),
                redeemed: false,
                brings,
            }),
        }
    }

    pub fn narrow_end(&self, narrow: Option<Narrow>) -> Option<u64> {
        narrow.and_then(|narrow| narrow.seconds).map(|seconds| self.time + seconds - 1)
    }

    fn activate(&self, waiting: &Waiting) -> Prediction {
        if self.monotonic >= waiting.before {
            return silent("activation_timeout").into();
        }
        let ticket = &self.tickets[waiting.ticket];
        let Some(credential) = ticket.credential().filter(|_| !ticket.forgotten) else {
            return silent("credential_unknown").into();
        };
        let standing = self.standing(ticket);
        let mut reasons = standing.err().unwrap_or_default();
        // The policy sees what a redemption gave now. What the record has to say comes first.
        if reasons.is_empty() && waiting.redeemed && self.time >= waiting.end {
            reasons.push(no("caveat_failed", Status::Expired));
        }
        if self.time >= ticket.kept_until() {
            reasons.push(silent("credential_unknown"));
        }
        if !reasons.is_empty() {
            return reasons.into();
        }
        let Some(place) = credential.place(waiting.serial) else {
            return no("credential_retired", Status::Expired).into();
        };
        let edition = &credential.editions[place];
        let (ops, end) = (waiting.ops & edition.ops, waiting.end.min(edition.end));
        if self.time >= end {
            return expired().into();
        }
        if ops == 0 {
            return no("operation_not_granted", Status::OperationDenied).into();
        }
        match self.room(waiting.ticket) {
            Err(busy) => busy.into(),
            Ok(()) => Prediction::granted(Granted {
                ops,
                end,
                serial: waiting.serial,
                shown: waiting.shown,
                redeemed: false,
                brings: false,
            }),
        }
    }

    /// When the credential would end by these terms.
    fn renew(
        &self,
        number: usize,
        device: usize,
        issuer: usize,
        valid_for: u64,
        mint: Mint,
    ) -> Result<u64, Vec<No>> {
        let ticket = &self.tickets[number];
        if !self.enrolled.contains(&device) {
            return Err(vec![silent("device_not_enrolled")]);
        }
        let unknown = silent("credential_unknown");
        if ticket.credential().is_none() || ticket.forgotten {
            return Err(vec![unknown]);
        }
        let mut reasons = Vec::new();
        if self.time >= ticket.kept_until() {
            reasons.push(unknown);
        }
        let minted = self.mint_time(mint) + valid_for;
        if ticket.device != device {
            reasons.push(silent("issuer_of_another_device"));
        } else if ticket.issuer != issuer {
            reasons.push(silent("renewal_mismatch"));
        } else if let Err(why) = self.standing(ticket) {
            reasons.extend(why);
        } else if minted.abs_diff(self.time + valid_for) > SKEW || minted <= self.time {
            reasons.push(silent("clock_skew"));
        }
        if reasons.is_empty() { Ok(minted.min(self.time + valid_for)) } else { Err(reasons) }
    }

    /// The editions under new terms: what the phone cannot have is replaced, everything else shrinks to
    /// the latest renewal, and terms that go beyond it wait. None if too many wait.
    fn renewed(&self, ticket: usize, ops: u8, end: u64) -> Option<Vec<Edition>> {
        let credential = self.tickets[ticket].credential().expect("it stands");
        let mut editions: Vec<Edition> = credential.editions.clone();
        let takes_away = editions.iter().any(|edition| edition.ops & !ops != 0);
        for edition in &mut editions {
            edition.ops &= ops;
            edition.end = edition.end.min(end);
        }
        let latest = editions.last().expect("never empty");
        if latest.ops != ops || latest.end != end {
            if editions.len() > WAITING_RENEWALS {
                // Removing operations is never refused, even if the end cannot change.
                return (takes_away && latest.ops == ops).then_some(editions);
            }
            let serial = credential.serials;
            editions.push(Edition { serial, own_ops: ops, ops, end });
        }
        Some(editions)
    }

    // --- what it changes ---

    /// Whether the call went through, or with which code it did not, is what really happened.
    pub fn commit(&mut self, next: &Move, prediction: &Prediction, accepted: bool, code: &str) {
        let granted = prediction.ok.clone().flatten().filter(|_| accepted);
        let decides = !matches!(
            next,
            Move::Enrol { .. }
                | Move::StrikeOff { .. }
                | Move::StartSession { .. }
                | Move::StopSession { .. }
                | Move::Time { .. }
                | Move::Restart { .. }
                | Move::GiveUp { .. }
                | Move::Fork { .. }
                | Move::DropGuard { .. }
        );
        if accepted && decides {
            self.decided = self.time;
        }
        match *next {
            Move::Enrol { device } => drop(self.enrolled.insert(device)),
            Move::StrikeOff { device } => drop(self.enrolled.remove(&device)),
            Move::StartSession { session } => drop(self.running.insert(session)),
            Move::StopSession { session } => drop(self.running.remove(&session)),
            Move::Register { device, issuer } if accepted => drop(self.issuers.insert(issuer, device)),
            Move::Offer(ref offer) if accepted => self.add_ticket(offer),
            Move::Redeem { ticket, phone, then } => self.redeemed(ticket, phone, then, granted, code),
            Move::Confirm { ticket, .. } if accepted => {
                self.tickets[ticket].credential_mut().state = State::Active;
            }
            Move::Attach { ticket, then, .. } => {
                if let Some(granted) = granted {
                    self.admitted(ticket, then, granted);
                }
            }
            Move::Activate { waiting } => {
                let waiting = self.waiting.remove(waiting);
                if let Some(granted) = granted {
                    self.entered(&waiting, &granted);
                }
            }
            Move::GiveUp { waiting } => drop(self.waiting.remove(waiting)),
            Move::Fork { guard } => self.guards.push(self.guards[guard].clone()),
            Move::DropGuard { guard } => drop(self.guards.remove(guard)),
            Move::Renew { ticket, device, issuer, ops, valid_for, mint } if accepted => {
                let end = self.renew(ticket, device, issuer, valid_for, mint).expect("accepted");
                self.put_terms(ticket, ops, end);
            }
            Move::RevokeTicket { ticket } | Move::RevokeCredential { ticket } => {
                self.take_back(|number, _| number == ticket, Why::Owner);
            }
            Move::RevokeSession { session } => self.close_session(session, Why::Session),
            Move::EndSession { session } => self.close_session(session, Why::SessionEnd),
            Move::RevokeIssuer { issuer } => self.revoke_issuers(|of, _| of == issuer),
            Move::RevokeDevice { device } => self.revoke_issuers(|_, of| of == device),
            Move::SyncDevices => {
                let enrolled = self.enrolled.clone();
                self.revoke_issuers(|_, of| !enrolled.contains(&of));
            }
            Move::Settle => {
                self.settled_at = self.monotonic;
                self.settle();
            }
            Move::ResetClock => {
                (0..SESSIONS).for_each(|session| *self.epochs.entry(session).or_default() += 1);
                (0..ISSUERS).for_each(|issuer| *self.generations.entry(issuer).or_default() += 1);
                self.restarted(self.stamp());
                self.written = self.time;
                self.decided = self.time;
                self.issuers.clear();
                self.tickets.iter_mut().for_each(|ticket| ticket.forgotten = true);
                self.cut(|_, _| true, "credential_revoked");
            }
            Move::Restart { .. } => {
                self.settled_at = self.monotonic;
                self.waiting.clear();
                self.guards.clear();
                // As good a guess as any while a sequence is made up; the player knows better.
                let time = self.latest_restart();
                self.restarted(time);
            }
            _ => {}
        }
    }

    fn add_ticket(&mut self, offer: &Offer) {
        let minted_end = self.mint_time(offer.mint) + offer.valid_for;
        self.written = self.time;
        self.tickets.push(Ticket {
            device: offer.device,
            issuer: offer.issuer,
            session: offer.session,
            epoch: self.epochs.get(&offer.session).copied().unwrap_or_default(),
            generation: self.generations.get(&offer.issuer).copied().unwrap_or_default(),
            ops: offer.ops,
            minted_end,
            valid_for: offer.valid_for,
            end: self.time + offer.ticket_lifetime,
            credential_end: minted_end.min(self.time + offer.valid_for),
            confirm: offer.confirm,
            fate: Fate::Open,
            late: BTreeSet::new(),
            settled: false,
            forgotten: false,
        });
    }

    fn redeemed(&mut self, number: usize, phone: usize, then: Then, granted: Option<Granted>, code: &str) {
        let contested = self.contests(&self.tickets[number], phone);
        let time = self.time;
        let ticket = &mut self.tickets[number];
        let waits = code == "confirmation_pending";
        match &mut ticket.fate {
            Fate::Open if granted.is_some() || waits => {
                let (ops, end) = (ticket.ops, ticket.credential_end);
                ticket.fate = Fate::Claimed(Credential {
                    holder: phone,
                    state: if waits { State::Pending } else { State::Active },
                    late: BTreeSet::new(),
                    settled: false,
                    editions: vec![Edition { serial: 0, own_ops: ops, ops, end }],
                    serials: 1,
                    arrived: BTreeSet::new(),
                    visited: None,
                    noted: None,
                });
                ticket.settled = false;
                self.written = time;
            }
            Fate::Claimed(credential) if contested == Some(true) => {
                credential.state = State::Revoked(Why::Contest);
                self.written = time;
                self.cut(|of, _| of == number, "ticket_contested");
            }
            Fate::Claimed(credential) if contested == Some(false) => {
                credential.late.insert(Why::Contest);
            }
            _ => {}
        }
        if let Some(granted) = granted {
            self.admitted(number, then, granted);
        }
    }

    fn admitted(&mut self, number: usize, then: Then, granted: Granted) {
        let credential = self.tickets[number].credential_mut();
        if granted.brings && then != Then::Lost {
            credential.arrived.insert(granted.serial);
        }
        let waiting = Waiting {
            ticket: number,
            serial: granted.serial,
            shown: granted.shown,
            redeemed: granted.redeemed,
            ops: granted.ops,
            end: granted.end,
            before: self.monotonic + ACTIVATION,
        };
        if then != Then::Lost {
            self.waiting.push(waiting);
        }
    }

    fn entered(&mut self, waiting: &Waiting, granted: &Granted) {
        let time = self.time;
        let credential = self.tickets[waiting.ticket].credential_mut();
        credential.visited = Some(time);
        // A phone has stored what it shows: earlier editions are retired.
        let retired = granted.shown.and_then(|shown| credential.place(shown)).unwrap_or(0);
        credential.editions.drain(..retired);
        if retired > 0 || credential.noted.is_none_or(|noted| time - noted >= 60) {
            credential.noted = Some(time);
        }
        self.connections += 1;
        self.guards.push(Guard {
            ticket: waiting.ticket,
            connection: self.connections,
            ops: granted.ops,
            end: granted.end,
            monotonic_end: self.monotonic + granted.end.saturating_sub(time) as i64,
            cut: BTreeSet::new(),
            ended: false,
        });
    }

    fn put_terms(&mut self, number: usize, ops: u8, end: u64) {
        let editions = self.renewed(number, ops, end).expect("accepted");
        let credential = self.tickets[number].credential_mut();
        let newest = editions.last().expect("never empty").serial;
        credential.serials = credential.serials.max(newest + 1);
        credential.editions = editions;
        let monotonic_end = self.monotonic + end.saturating_sub(self.time) as i64;
        for guard in self.guards.iter_mut().filter(|guard| guard.ticket == number) {
            guard.ops &= ops;
            guard.end = guard.end.min(end);
            guard.monotonic_end = guard.monotonic_end.min(monotonic_end);
        }
    }

    fn take_back(&mut self, picked: impl Fn(usize, &Ticket) -> bool, why: Why) {
        let time = self.time;
        for (number, ticket) in self.tickets.iter_mut().enumerate() {
            if ticket.forgotten || !picked(number, ticket) {
                continue;
            }
            let over = time >= ticket.over();
            match &mut ticket.fate {
                Fate::Open if over => drop(ticket.late.insert(why)),
                Fate::Open => {
                    ticket.fate = Fate::Revoked(why);
                    self.written = time;
                }
                Fate::Revoked(_) => {}
                Fate::Claimed(credential) if matches!(credential.state, State::Revoked(_)) => {}
                Fate::Claimed(credential) if over => drop(credential.late.insert(why)),
                Fate::Claimed(credential) => {
                    credential.state = State::Revoked(why);
                    self.written = time;
                }
            }
        }
        let code = if why == Why::SessionEnd { "session_gone" } else { "credential_revoked" };
        self.cut(picked, code);
    }

    fn cut(&mut self, picked: impl Fn(usize, &Ticket) -> bool, code: &'static str) {
        for guard in &mut self.guards {
            if picked(guard.ticket, &self.tickets[guard.ticket]) {
                guard.cut.insert(code);
            }
        }
    }

    fn close_session(&mut self, session: usize, why: Why) {
        *self.epochs.entry(session).or_default() += 1;
        self.take_back(|_, of| of.session == session, why);
    }

    /// The tickets about which the context is asked before the move is judged. None if that cannot be told.
    pub fn asked_about(&self, next: &Move) -> Option<Vec<usize>> {
        let (mut asked, mut perhaps) = (Vec::new(), Vec::new());
        let about = |number: usize, kept: u64, asked: &mut Vec<usize>, perhaps: &mut Vec<usize>| {
            if !self.tickets[number].forgotten {
                if self.time < kept { asked.push(number) } else { perhaps.push(number) }
            }
        };
        match *next {
            Move::Redeem { ticket, .. } => {
                about(ticket, self.tickets[ticket].ticket_kept_until(), &mut asked, &mut perhaps);
            }
            Move::Confirm { device, ticket, .. } if self.enrolled.contains(&device) => {
                about(ticket, self.tickets[ticket].ticket_kept_until(), &mut asked, &mut perhaps);
            }
            Move::Attach { ticket, phone, .. } if self.tickets[ticket].holder() == Some(phone) => {
                about(ticket, self.tickets[ticket].kept_until(), &mut asked, &mut perhaps);
            }
            // By the record of its admission.
            Move::Activate { waiting } if self.monotonic < self.waiting[waiting].before => {
                asked.push(self.waiting[waiting].ticket);
            }
            Move::Settle => {
                let guards =
                    self.guards.iter().filter(|guard| guard.cut.is_empty()).map(|guard| guard.ticket);
                let connected: BTreeSet<usize> =
                    guards.chain(self.waiting.iter().map(|waiting| waiting.ticket)).collect();
                for number in connected {
                    let ticket = &self.tickets[number];
                    let revoked = |of: &Credential| matches!(of.state, State::Revoked(_));
                    if !ticket.forgotten && !ticket.credential().is_some_and(revoked) {
                        // An expired one may have been cut for that already.
                        if self.over(ticket) { perhaps.push(number) } else { asked.push(number) }
                    }
                }
            }
            _ => {}
        }
        let certain = |number: &usize| {
            let gone = self.gone(*number);
            gone == (false, false) || asked.iter().any(|other| self.same_gone(*number, *other))
        };
        perhaps.iter().all(certain).then_some(asked)
    }

    /// Whether the context says that the ticket's session, or its device, is gone, and that is not on record.
    fn gone(&self, number: usize) -> (bool, bool) {
        let of = &self.tickets[number];
        let epoch = self.epochs.get(&of.session).copied().unwrap_or_default();
        let generation = self.generations.get(&of.issuer).copied().unwrap_or_default();
        let session = !self.running.contains(&of.session) && of.epoch == epoch;
        let registered = self.issuers.contains_key(&of.issuer) && of.generation == generation;
        (session, registered && !self.enrolled.contains(&of.device))
    }

    fn same_gone(&self, number: usize, other: usize) -> bool {
        let (one, two) = (&self.tickets[number], &self.tickets[other]);
        one.session == two.session && one.issuer == two.issuer && self.gone(number) == self.gone(other)
    }

    /// What the context says is gone ends: sessions first, then what devices have shared.
    pub fn hear_of(&mut self, tickets: &[usize]) {
        for number in tickets {
            if self.gone(*number).0 {
                self.close_session(self.tickets[*number].session, Why::SessionEnd);
            }
        }
        for number in tickets {
            if self.gone(*number).1 {
                let issuer = self.tickets[*number].issuer;
                self.revoke_issuers(|of, _| of == issuer);
            }
        }
    }

    fn revoke_issuers(&mut self, picked: impl Fn(usize, usize) -> bool) {
        let out: Vec<usize> = self
            .issuers
            .iter()
            .filter(|(issuer, device)| picked(**issuer, **device))
            .map(|(issuer, _)| *issuer)
            .collect();
        for issuer in out {
            self.issuers.remove(&issuer);
            *self.generations.entry(issuer).or_default() += 1;
            self.written = self.time;
            self.take_back(|_, of| of.issuer == issuer, Why::Issuer);
        }
    }

    /// Finds every expiry.
    fn settle(&mut self) {
        let time = self.time;
        let mut ended = BTreeSet::new();
        for (number, ticket) in self.tickets.iter_mut().enumerate().filter(|(_, ticket)| !ticket.forgotten) {
            let over = time >= ticket.over();
            match &mut ticket.fate {
                Fate::Open => ticket.settled |= over,
                Fate::Claimed(credential) if over && !matches!(credential.state, State::Revoked(_)) => {
                    credential.settled = true;
                    ticket.settled = true;
                    ended.insert(number);
                }
                _ => {}
            }
        }
        self.cut(|number, _| ended.contains(&number), "credential_expired");
    }

    // --- what a guard says ---

    /// Whether a guard must refuse everything, and with which codes it may.
    pub fn judge(&mut self, index: usize) -> (bool, BTreeSet<&'static str>) {
        let (stamp, monotonic) = (self.stamp(), self.monotonic);
        let guard = &self.guards[index];
        let ends = guard.ended || stamp >= guard.end || monotonic >= guard.monotonic_end;
        // By the agent's time it can be over before it is by the stream's own clocks: after the wall
        // clock was set forward and back. It is cut then with the record, when that is settled; a copy
        // that was to end earlier, or an edition that was renewed, may go on to its end by the
        // monotonic clock.
        let may_end = self.time >= guard.end;
        let mut codes = guard.cut.clone();
        if ends || may_end {
            codes.insert("credential_expired");
        }
        if ends {
            let connection = guard.connection;
            let same = self.guards.iter_mut().filter(|guard| guard.connection == connection);
            same.for_each(|guard| guard.ended = true);
        }
        let over = ends || !self.guards[index].cut.is_empty();
        let stale = monotonic >= self.settled_at + LEASE;
        if stale && !over {
            codes.insert("stale");
        }
        (over || stale, codes)
    }
}
