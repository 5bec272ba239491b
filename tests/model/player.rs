//! Plays a sequence at a gate, and compares every step with the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use rand::rngs::OsRng;
use sessioncap::agent::ledger::{Check, Ledger, Snapshot, Table};
use sessioncap::agent::*;
use sessioncap::desktop::*;
use sessioncap::phone::*;
use sessioncap::*;

use crate::common::log::Story;
use crate::common::{
    Asks, CHANNEL, Listing, ListingState, Response, RevocationReason, URL, World, at, list_all, phone,
    session,
};
use crate::moves::{Offer, *};
use crate::rules::{self, Fate, Prediction, Rules, State, Told, Why};

pub type Outcome<T = ()> = Result<T, String>;

macro_rules! ensure {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(format!($($what)+));
        }
    };
}

/// How a ledger is opened. Rows that were written before are there again.
pub type Opens<'a> = &'a dyn Fn() -> Box<dyn Ledger>;

fn rows(ledger: &dyn Ledger) -> usize {
    let mut rows = 0;
    let count = &mut |snapshot: &dyn Snapshot| {
        rows = 0;
        for &table in Table::ALL {
            rows += snapshot.range(table, b"", None, usize::MAX)?.len();
        }
        Ok(())
    };
    ledger.read(count).expect("a ledger that reads");
    rows
}

struct Desktops {
    devices: Vec<DevicePublicKey>,
    issuers: Vec<Issuer>,
}

impl Desktops {
    fn new(agent: AgentPublicKey) -> Self {
        let issuer =
            |seed| Issuer::new(IssuerSecretKey::from_bytes([seed; 32]), agent, AgentUrl::parse(URL).unwrap());
        Self {
            devices: (0..DEVICES as u8).map(|n| DeviceSecretKey::from_bytes([20 + n; 32]).public()).collect(),
            issuers: (0..ISSUERS as u8).map(|n| issuer(40 + n)).collect(),
        }
    }
}

fn name(number: usize) -> String {
    format!("session-{number}")
}

fn holder(number: usize) -> HolderSecretKey {
    phone(60 + number as u8)
}

fn ops(bits: u8) -> OpSet {
    OpSet::from_bits(bits.into()).unwrap()
}

fn why(reason: RevocationReason) -> Why {
    match reason {
        RevocationReason::Contest => Why::Contest,
        RevocationReason::Session => Why::Session,
        RevocationReason::SessionEnd => Why::SessionEnd,
        RevocationReason::Issuer => Why::Issuer,
        _ => Why::Owner,
    }
}

/// The outcome of a call.
struct Came {
    code: Option<&'static str>,
    /// None where no phone asked.
    told: Option<Told>,
}

impl Came {
    fn of<T>(result: Result<T, Denial>) -> Self {
        Self { code: result.err().map(|denial| denial.code()), told: None }
    }

    fn fine() -> Self {
        Self { code: None, told: None }
    }
}

/// A gate, the credentials that it gave, and the rules that it is compared with.
pub struct Player<'a> {
    rules: Rules,
    opens: Opens<'a>,
    world: Option<World>,
    openings: u64,
    heard: usize,
    /// How many visits are not written yet: they are, with the next commit.
    owed: usize,
    story: Story,
    desktops: Desktops,
    pairings: Vec<Pairing>,
    /// The credentials given, by ticket and edition, whether they arrived or not.
    given: BTreeMap<(usize, usize), CredentialBytes>,
    codes: BTreeMap<usize, String>,
    waiting: Vec<PendingGuard>,
    guards: Vec<Guard>,
    /// How often each move had each outcome.
    pub tally: BTreeMap<(String, &'static str), usize>,
}

impl<'a> Player<'a> {
    pub fn new(opens: Opens<'a>) -> Outcome<Self> {
        let rules = Rules::new();
        let agent = AgentSecretKey::from_bytes([1; 32]).public();
        let mut player = Self {
            rules,
            opens,
            world: None,
            openings: 0,
            heard: 0,
            owed: 0,
            story: Story::default(),
            desktops: Desktops::new(agent),
            pairings: Vec::new(),
            given: BTreeMap::new(),
            codes: BTreeMap::new(),
            waiting: Vec::new(),
            guards: Vec::new(),
            tally: BTreeMap::new(),
        };
        player.open()?;
        for (issuer, device) in player.rules.issuers.clone() {
            ensure!(player.register(device, issuer).code.is_none(), "the first registrations");
        }
        Ok(player)
    }

    fn now(&self) -> Now {
        at(self.rules.wall, self.rules.monotonic)
    }

    fn world(&self) -> &World {
        self.world.as_ref().expect("it is open")
    }

    fn open(&mut self) -> Outcome {
        let ledger = (self.opens)();
        let rows = rows(&ledger);
        let check = Check::of(&ledger).map_err(|error| error.to_string())?;
        ensure!(check.is_sound() && check.rows == rows, "the rows do not agree: {check:?}");
        // Header, counters, progress; the issuers; the devices; for each ticket itself, its credential,
        // their places in the session and in the queues, two handles of what lives, and the session.
        let most = 3 + ISSUERS + self.desktops.devices.len() + 10 * self.rules.tickets.len();
        ensure!(rows <= most, "{rows} rows for {} tickets", self.rules.tickets.len());
        // A device's share is tested by itself.
        let quotas = Quotas::default()
            .with_tickets_per_session(rules::TICKETS_PER_SESSION as u32)
            .with_credentials_per_session(rules::CREDENTIALS_PER_SESSION as u32)
            .with_tickets_per_agent(rules::TICKETS_PER_AGENT as u32)
            .with_credentials_per_agent(rules::CREDENTIALS_PER_AGENT as u32)
            .with_connections_per_credential(rules::CONNECTIONS as u32)
            .with_tickets_per_device(u32::MAX)
            .with_credentials_per_device(u32::MAX);
        let world = World::try_with(ledger, self.now(), |config| config.with_quotas(quotas));
        self.world = Some(world.map_err(|failure| format!("does not open: {failure}"))?);
        self.openings += 1;
        self.heard = 0;
        self.owed = 0;
        self.surround();
        Ok(())
    }

    /// Sets the context to the state of the rules.
    fn surround(&mut self) {
        let now = self.now();
        let world = self.world.as_mut().expect("it is open");
        world.now = now;
        let mut facts = world.context.0.lock().unwrap();
        facts.devices = self.rules.enrolled.iter().map(|device| self.desktops.devices[*device]).collect();
        facts.sessions = self.rules.running.iter().map(|running| session(&name(*running))).collect();
    }

    /// One move, and everything that must hold after it.
    pub fn play(&mut self, next: &Move) -> Outcome {
        // A restart that lost some time may have led elsewhere than the sequence thought.
        if !self.rules.knows(next) {
            return Ok(());
        }
        let admitted = self.step(next)?;
        // An agent settles its gate about once a second: here every other time that time passes.
        if matches!(next, Move::Time { unseen: false, .. }) && self.rules.monotonic % 2 == 0 {
            self.step(&Move::Settle)?;
        }
        match next.enters() && admitted {
            true => self.step(&Move::Activate { waiting: self.rules.waiting.len() - 1 }).map(drop),
            false => Ok(()),
        }
    }

    /// The same for a part of it. Whether it went through.
    fn step(&mut self, next: &Move) -> Outcome<bool> {
        self.rules.move_clocks(next);
        if let Move::Time { unseen: true, .. } = next {
            return Ok(true);
        }
        if let Move::OfferAgain { ticket, device } = *next {
            self.rules.look_at_clocks();
            if !self.rules.offer_again_is_refused(ticket, device) {
                return Ok(false);
            }
        }
        if let Move::Restart { .. } = next {
            self.restart(next)?;
            return Ok(true);
        }
        self.rules.look_at_clocks();
        self.surround();
        // What the context says is gone when it is asked ends with that. Whether it is asked about a record
        // that may have been removed cannot be told, and is not played.
        match self.rules.asked_about(next) {
            Some(tickets) => self.rules.hear_of(&tickets),
            None => return Ok(false),
        }
        let prediction = self.rules.predict(next);
        let came = self.make(next, &prediction)?;
        match came.code {
            None => {
                ensure!(prediction.ok.is_some(), "went through, and should be refused: {:?}", prediction.no)
            }
            Some(code) => {
                let fits = prediction
                    .no
                    .iter()
                    .any(|no| no.code == code && came.told.is_none_or(|told| no.told == told));
                ensure!(fits, "refused with {code}, told {:?}, and should be: {prediction:?}", came.told);
            }
        }
        *self.tally.entry((next.name(), came.code.unwrap_or("ok"))).or_default() += 1;
        let before = self.rules.clone();
        self.rules.commit(next, &prediction, came.code.is_none(), came.code.unwrap_or_default());
        self.surround();
        self.check_audit(next, &before, came.code.is_none())?;
        self.check()?;
        Ok(came.code.is_none())
    }

    fn restart(&mut self, next: &Move) -> Outcome {
        let (earliest, latest) = (self.rules.earliest_restart(), self.rules.latest_restart());
        self.waiting.clear();
        self.guards.clear();
        self.world = None;
        self.open()?;
        self.rules.commit(next, &Prediction::default(), true, "");
        let records = self.world().audit.lock().unwrap().clone();
        ensure!(records.len() == 1, "an opening after an orderly end tells {records:?}");
        self.story.take(&records[0])?;
        self.heard = 1;
        let time = records[0].at.seconds();
        ensure!((earliest..=latest).contains(&time), "begins again at {time}, not in {earliest}..={latest}");
        self.rules.restarted(time);
        self.check()
    }

    // --- moves ---

    fn make(&mut self, next: &Move, prediction: &Prediction) -> Outcome<Came> {
        let now = self.now();
        let gate = self.world().gate.clone();
        let came = match *next {
            Move::Register { device, issuer } => self.register(device, issuer),
            Move::Offer(ref offer) => self.offer(offer)?,
            Move::OfferAgain { ticket, device } => {
                Came::of(gate.offer(&self.desktops.devices[device], &self.pairings[ticket].offer, now))
            }
            Move::Redeem { ticket, phone, then } => self.redeem(ticket, phone, then, prediction)?,
            Move::Confirm { device, ticket, phone } => {
                let (device, ticket) = (&self.desktops.devices[device], &self.pairings[ticket].ticket);
                Came::of(gate.confirm(device, ticket, &holder(phone).public(), now))
            }
            Move::Attach { ticket, phone, edition, narrow, ask, then } => {
                self.attach(ticket, phone, edition, narrow, ask, then, prediction)?
            }
            Move::Activate { waiting } => {
                let waiting = self.waiting.remove(waiting);
                match waiting.activate_after_first_frame(now) {
                    Ok(guard) => {
                        self.guards.push(guard);
                        Came::fine()
                    }
                    Err(denial) => Came::of::<()>(Err(denial)),
                }
            }
            Move::GiveUp { waiting } => {
                drop(self.waiting.remove(waiting));
                Came::fine()
            }
            Move::Fork { guard } => {
                let fork = self.guards[guard].fork();
                self.guards.push(fork);
                Came::fine()
            }
            Move::DropGuard { guard } => {
                drop(self.guards.remove(guard));
                Came::fine()
            }
            Move::Renew { ticket, device, issuer, ops, valid_for, mint } => {
                self.renew(ticket, device, issuer, ops, valid_for, mint)?
            }
            Move::RevokeTicket { ticket } => Came::of(gate.revoke_ticket(&self.pairings[ticket].ticket, now)),
            Move::RevokeCredential { ticket } => {
                Came::of(gate.revoke_credential(&self.pairings[ticket].credential, now))
            }
            Move::RevokeSession { session: of } => Came::of(gate.revoke_session(&session(&name(of)), now)),
            Move::EndSession { session: of } => Came::of(gate.end_session(&session(&name(of)), now)),
            Move::RevokeIssuer { issuer } => {
                Came::of(gate.revoke_issuer(&self.desktops.issuers[issuer].public(), now))
            }
            Move::RevokeDevice { device } => {
                Came::of(gate.revoke_device(&self.desktops.devices[device], now))
            }
            Move::SyncDevices => {
                let enrolled: Vec<_> =
                    self.rules.enrolled.iter().map(|device| self.desktops.devices[*device]).collect();
                Came::of(gate.sync_devices(&enrolled, now))
            }
            // Each settles a bounded number; this many leave nothing.
            Move::Settle => Came::of((0..8).try_for_each(|_| gate.settle(now))),
            Move::ResetClock => Came::of(gate.reset_clock(now)),
            Move::Enrol { .. }
            | Move::StrikeOff { .. }
            | Move::StartSession { .. }
            | Move::StopSession { .. }
            | Move::Time { .. }
            | Move::Restart { .. } => Came::fine(),
        };
        Ok(came)
    }

    fn register(&self, device: usize, issuer: usize) -> Came {
        let (device, issuer) = (&self.desktops.devices[device], &self.desktops.issuers[issuer]);
        let registration = issuer.registration(device, &CHANNEL);
        Came::of(self.world().gate.register_issuer(device, &CHANNEL, &registration, self.now()))
    }

    fn mint_time(&self, mint: Mint) -> Timestamp {
        match mint {
            Mint::Wall => self.now().timestamp(),
            Mint::AgentTime => Timestamp::from_seconds(self.rules.time).unwrap(),
        }
    }

    fn offer(&mut self, offer: &Offer) -> Outcome<Came> {
        let confirmation = if offer.confirm { Confirmation::Required } else { Confirmation::NotRequired };
        let terms = PairingTerms::default().with_confirmation(confirmation).with_ops(ops(offer.ops)).unwrap();
        let terms = terms
            .with_ticket_lifetime(offer.ticket_lifetime)
            .unwrap()
            .with_valid_for(offer.valid_for)
            .unwrap();
        let issuer = &self.desktops.issuers[offer.issuer];
        let pairing =
            issuer.pair(session(&name(offer.session)), &terms, self.mint_time(offer.mint), &mut OsRng);
        let pairing = pairing.unwrap();
        let device = &self.desktops.devices[offer.device];
        match self.world().gate.offer(device, &pairing.offer, self.now()) {
            Ok(receipt) => {
                let said = (receipt.ticket, receipt.agent_time.seconds(), receipt.expires_at.seconds());
                let time = self.rules.time;
                let expected = (pairing.ticket, time, time + offer.ticket_lifetime);
                ensure!(said == expected, "the receipt says {said:?}, not {expected:?}");
                self.pairings.push(pairing);
                Ok(Came::fine())
            }
            Err(denial) => {
                if let Denial::ClockSkew { agent_time } = denial {
                    ensure!(agent_time.seconds() == self.rules.time, "names its time as {agent_time}");
                }
                Ok(Came::of::<()>(Err(denial)))
            }
        }
    }

    fn redeem(&mut self, ticket: usize, phone: usize, then: Then, prediction: &Prediction) -> Outcome<Came> {
        let asking = self.world().ask(&self.pairings[ticket].link, &holder(phone));
        match self.world().respond(&asking.message) {
            Response::Admitted(message, _, guard) => match asking.next.finish(&message) {
                Ok(Redeemed::Attached { credential, attached }) => {
                    self.let_in(ticket, then, prediction, guard, &attached, Some(credential))
                }
                other => Err(format!("admitted, and told {other:?}")),
            },
            Response::Refused(message, denial) => match asking.next.finish(&message) {
                Ok(Redeemed::Waiting { code, seconds_left }) => {
                    let (code, left) = (code.to_string(), self.rules.tickets[ticket].end - self.rules.time);
                    ensure!(seconds_left == left, "told to wait for {seconds_left} s, not {left}");
                    let before = self.codes.entry(ticket).or_insert_with(|| code.clone());
                    ensure!(*before == code, "the digits changed from {before} to {code}");
                    Ok(Came { code: Some(denial.code()), told: Some(Told::Waiting) })
                }
                Err(PhoneError::Refused(status)) => {
                    Ok(Came { code: Some(denial.code()), told: Some(Told::Status(status)) })
                }
                other => Err(format!("refused with {}, and told {other:?}", denial.code())),
            },
            Response::Closed(denial) => {
                Ok(Came { code: denial.map(|denial| denial.code()), told: Some(Told::Nothing) })
            }
            Response::Device => Err("taken for a device".into()),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "as many as the move has")]
    fn attach(
        &mut self,
        ticket: usize,
        phone: usize,
        pick: usize,
        narrow: Option<Narrow>,
        ask: u8,
        then: Then,
        prediction: &Prediction,
    ) -> Outcome<Came> {
        let serial = self.rules.serial(ticket, pick);
        let mut shown = self.given[&(ticket, serial)].clone();
        if let Some(narrow) = narrow {
            let end = self.rules.narrow_end(Some(narrow)).map(|end| Timestamp::from_seconds(end).unwrap());
            let parsed = Credential::parse(&shown).map_err(|error| error.to_string())?;
            let child = parsed.attenuate(Some(ops(narrow.ops)), end, &mut OsRng);
            shown = child.map_err(|error| error.to_string())?.bytes().clone();
        }
        self.check_explained(ticket, phone, pick, narrow, &shown)?;
        let agent = self.world().agent.public();
        let asking = sessioncap::phone::attach(&agent, &holder(phone), &shown, ops(ask), &mut OsRng).unwrap();
        match self.world().respond(&asking.message) {
            Response::Admitted(message, _, guard) => match asking.next.finish(&message) {
                Ok(attached) => {
                    let renewed = attached.renewed.clone();
                    ensure!(narrow.is_none() || renewed.is_none(), "a narrowed copy was given a renewed one");
                    self.let_in(ticket, then, prediction, guard, &attached, renewed)
                }
                Err(error) => Err(format!("admitted, and told {error}")),
            },
            Response::Refused(message, denial) => match asking.next.finish(&message) {
                Err(PhoneError::Refused(status)) => {
                    Ok(Came { code: Some(denial.code()), told: Some(Told::Status(status)) })
                }
                other => Err(format!("refused with {}, and told {other:?}", denial.code())),
            },
            Response::Closed(denial) => {
                Ok(Came { code: denial.map(|denial| denial.code()), told: Some(Told::Nothing) })
            }
            Response::Device => Err("taken for a device".into()),
        }
    }

    /// `explain` gives the operator the answer that the phone would get for one operation, without a connection.
    fn check_explained(
        &self,
        ticket: usize,
        phone: usize,
        pick: usize,
        narrow: Option<Narrow>,
        shown: &CredentialBytes,
    ) -> Outcome {
        let op = Op::ALL[(ticket + pick) % Op::ALL.len()];
        let ask = OpSet::only(op).bits() as u8;
        let attach = Move::Attach { ticket, phone, edition: pick, narrow, ask, then: Then::Lost };
        let prediction = self.rules.predict(&attach);
        let full = prediction.no.iter().any(|no| no.code == "too_many_connections");
        let (key, action) = (holder(phone).public(), Action::Session(op));
        match self.world().gate.explain(&key, shown, action, self.now()) {
            Ok(()) => ensure!(prediction.ok.is_some() || full, "{op} explained as allowed: {prediction:?}"),
            Err(denial) => {
                // It writes no record, so a session or device that is gone is only reported.
                let device = self.rules.tickets[ticket].device;
                let said = denial == Denial::IssuerRevoked && !self.rules.enrolled.contains(&device);
                let fits = said || prediction.no.iter().any(|no| no.code == denial.code());
                ensure!(fits, "{op} explained with {}: {prediction:?}", denial.code());
            }
        }
        Ok(())
    }

    /// The answer of an admission, and its effect.
    fn let_in(
        &mut self,
        ticket: usize,
        then: Then,
        prediction: &Prediction,
        guard: PendingGuard,
        attached: &Attached,
        brought: Option<CredentialBytes>,
    ) -> Outcome<Came> {
        let Some(Some(granted)) = &prediction.ok else {
            return Err(format!("let in, and should be refused: {:?}", prediction.no));
        };
        let said = (attached.ops, attached.agent_time.seconds(), attached.seconds_left);
        let left = granted.end.saturating_sub(self.rules.time);
        let expected = (ops(granted.ops), self.rules.time, left);
        ensure!(said == expected, "told (operations, time, seconds) {said:?}, not {expected:?}");
        let of = session(&name(self.rules.tickets[ticket].session));
        ensure!(attached.session == of && attached.id == self.pairings[ticket].credential, "another session");
        ensure!(brought.is_some() == granted.brings, "brings a credential: {}", brought.is_some());
        if let Some(brought) = brought {
            let before = self.given.entry((ticket, granted.serial)).or_insert_with(|| brought.clone());
            ensure!(*before == brought, "edition {} has other bytes than before", granted.serial);
        }
        if then != Then::Lost {
            self.waiting.push(guard);
        }
        Ok(Came::fine())
    }

    #[allow(clippy::too_many_arguments, reason = "as many as the move has")]
    fn renew(
        &self,
        ticket: usize,
        device: usize,
        issuer: usize,
        bits: u8,
        valid_for: u64,
        mint: Mint,
    ) -> Outcome<Came> {
        let renewal = Renewal {
            credential: self.pairings[ticket].credential,
            ticket: self.pairings[ticket].ticket,
            session: session(&name(self.rules.tickets[ticket].session)),
            ops: ops(bits),
            valid_for,
        };
        let message = self.desktops.issuers[issuer].renew(renewal, self.mint_time(mint), &mut OsRng).unwrap();
        let device = &self.desktops.devices[device];
        match self.world().gate.renew(device, &message, self.now(), &mut OsRng) {
            Ok(receipt) => {
                ensure!(receipt.agent_time.seconds() == self.rules.time, "the receipt's time");
                Ok(Came::fine())
            }
            Err(denial) => Ok(Came::of::<()>(Err(denial))),
        }
    }

    // --- what must hold ---

    /// Guards and list agree with the rules.
    fn check(&mut self) -> Outcome {
        self.check_guards()?;
        self.check_list()
    }

    fn check_guards(&mut self) -> Outcome {
        let now = self.now();
        for (index, guard) in self.guards.iter_mut().enumerate() {
            let (refuses, codes) = self.rules.judge(index);
            let of = &self.rules.guards[index];
            let who = format!("guard {index}, of ticket {}", of.ticket);
            ensure!(guard.ops() == ops(of.ops), "{who}: has {:?}, not {:?}", guard.ops(), ops(of.ops));
            let end = guard.expires_at().seconds();
            ensure!(end == of.end, "{who}: ends at {end}, not {}", of.end);
            for &op in Op::ALL {
                let has = ops(of.ops).contains(op);
                let mut ran = false;
                let permitted = guard.ask(op, now, || ran = true);
                ensure!(ran == permitted.is_ok(), "{who}: {op} ran: {ran}, and {permitted:?}");
                match permitted {
                    Ok(()) => ensure!(has && !refuses, "{who}: permits {op}, and must say {codes:?}"),
                    Err(Denial::OperationNotGranted { .. }) if !refuses && !has => {}
                    Err(denial) => {
                        let fits = codes.contains(denial.code());
                        ensure!(fits, "{who}: {op} refused with {}, not {codes:?}", denial.code());
                    }
                }
            }
            let checked = guard.checked(now).err().map(|denial| denial.code());
            ensure!(checked.is_none_or(|code| codes.contains(code)), "{who}: is over with {checked:?}");
            ensure!(checked.is_some() || !refuses, "{who}: goes on, and must say {codes:?}");
            let stale = checked == Some("stale");
            ensure!(
                checked.is_none() || stale || guard.time_left(now).is_zero(),
                "{who}: is over, with time left"
            );
            // A cut wakes its waiters; an expiry only if the record was settled.
            let signal = pin!(guard.cut()).poll(&mut Context::from_waker(Waker::noop()));
            ensure!(of.cut.is_empty() || signal.is_ready(), "{who}: was cut, and nobody is told");
            let may_end = codes.iter().any(|code| *code != "stale");
            ensure!(may_end || signal.is_pending(), "{who}: is told {signal:?}");
        }
        Ok(())
    }

    fn check_list(&self) -> Outcome {
        let listings = list_all(&self.world().gate, None, self.now()).map_err(|denial| denial.to_string())?;
        let number = |of: &Listing| self.pairings.iter().position(|pairing| pairing.ticket == of.ticket);
        self.story.compare(&listings)?;
        let mut seen = BTreeSet::new();
        for listing in &listings {
            let number = number(listing).ok_or("lists what was never offered")?;
            ensure!(seen.insert(number), "lists ticket {number} twice");
            self.check_listing(number, listing).map_err(|what| format!("list, ticket {number}: {what}"))?;
        }
        for (number, ticket) in self.rules.tickets.iter().enumerate() {
            let kept = !ticket.forgotten && self.rules.time < ticket.kept_until();
            ensure!(!kept || seen.contains(&number), "ticket {number} is not listed");
        }
        for of in 0..SESSIONS {
            let part = list_all(&self.world().gate, Some(&session(&name(of))), self.now());
            let part = part.map_err(|denial| denial.to_string())?;
            let whole = listings.iter().filter(|listing| listing.session == session(&name(of))).count();
            ensure!(part.len() == whole, "{} listed for session {of}, not {whole}", part.len());
        }
        Ok(())
    }

    fn check_listing(&self, number: usize, listing: &Listing) -> Outcome {
        let ticket = &self.rules.tickets[number];
        ensure!(!ticket.forgotten, "was forgotten");
        let over = self.rules.time >= ticket.over();
        let state = match listing.state {
            ListingState::Open => "open",
            ListingState::Pending { .. } => "pending",
            ListingState::Active => "active",
            ListingState::Revoked { why: reason } => {
                let expected = match ticket.credential().map(|credential| credential.state) {
                    Some(State::Revoked(why)) => [why].into(),
                    Some(_) => {
                        ticket.credential().map(|credential| credential.late.clone()).unwrap_or_default()
                    }
                    None if matches!(ticket.fate, Fate::Revoked(_)) => match ticket.fate {
                        Fate::Revoked(why) => [why].into(),
                        _ => BTreeSet::new(),
                    },
                    None => ticket.late.clone(),
                };
                ensure!(expected.contains(&why(reason)), "revoked for {reason:?}, not {expected:?}");
                return Ok(());
            }
            ListingState::Expired => "expired",
            _ => "unknown",
        };
        ensure!(listing.credential == self.pairings[number].credential, "another credential");
        ensure!(listing.device == self.desktops.devices[ticket.device], "another device");
        let Some(credential) = ticket.credential() else {
            let expected = match ticket.fate {
                Fate::Open if over => "expired",
                Fate::Open => "open",
                _ => "revoked",
            };
            ensure!(state == expected, "{state}, not {expected}");
            let said = (listing.ops, listing.expires_at.seconds(), listing.holder, listing.connections);
            let expected = (ops(ticket.ops), ticket.end, None, 0);
            ensure!(said == expected, "{said:?}, not {expected:?}");
            return Ok(());
        };
        let expected = match credential.state {
            State::Revoked(_) => "revoked",
            _ if over => "expired",
            State::Pending => "pending",
            State::Active => "active",
        };
        ensure!(state == expected, "{state}, not {expected}");
        ensure!(listing.holder == Some(holder(credential.holder).public()), "another phone");
        if let ListingState::Pending { code } = listing.state {
            ensure!(self.codes.get(&number) == Some(&code.to_string()), "shows other digits than the phone");
        }
        let seen = listing.last_seen.map(Timestamp::seconds);
        let fits = match (seen, credential.visited) {
            (None, None) => true,
            (Some(seen), Some(visited)) => seen <= visited && visited - seen < 60,
            _ => false,
        };
        ensure!(fits, "seen {seen:?}, was there {:?}", credential.visited);
        let in_use = &credential.editions[0];
        ensure!(listing.ops == ops(in_use.ops), "allows {:?}, not {:?}", listing.ops, ops(in_use.ops));
        // An expired credential is cut and simplified once it is settled.
        if over {
            return Ok(());
        }
        let connections = self.rules.connections(number);
        ensure!(
            listing.connections as usize == connections,
            "{} connections, not {connections}",
            listing.connections
        );
        let end = listing.expires_at.seconds();
        ensure!(end == in_use.end, "ends at {end}, not {}", in_use.end);
        let waiting = listing.renewal.map(|renewal| (renewal.ops, renewal.expires_at.seconds()));
        let latest = &credential.editions[credential.editions.len() - 1];
        let latest = (credential.editions.len() > 1).then(|| (ops(latest.ops), latest.end));
        ensure!(waiting == latest, "{waiting:?} waits, not {latest:?}");
        Ok(())
    }

    /// Each record once and in order; and of what the move itself was to bring about, exactly that.
    fn check_audit(&mut self, next: &Move, before: &Rules, done: bool) -> Outcome {
        let records = self.world().audit.lock().unwrap().clone();
        let mut time = 0;
        for (place, record) in records.iter().enumerate() {
            let counted = (record.opening, record.sequence) == (self.openings, place as u64);
            ensure!(counted, "record {place} says it is {} of {}", record.sequence, record.opening);
            ensure!(
                record.at.seconds() >= time || matches!(record.event, AuditEvent::ClockReset { .. }),
                "record {place} is of {}, after {time}",
                record.at
            );
            time = record.at.seconds();
        }
        for record in &records[self.heard..] {
            self.story.take(record)?;
        }
        let new = &records[self.heard.max(1)..];
        self.heard = records.len();
        let heard = |of: fn(&AuditEvent) -> bool| new.iter().filter(|record| of(&record.event)).count();
        let sum = |rules: &Rules, of: fn(&rules::Credential) -> usize| -> usize {
            rules.tickets.iter().filter_map(rules::Ticket::credential).map(of).sum()
        };
        let grown = |of: fn(&rules::Credential) -> usize| {
            sum(&self.rules, of) - sum(before, of).min(sum(&self.rules, of))
        };
        let entered = self.rules.guards.len() > before.guards.len() && !matches!(next, Move::Fork { .. });
        let retired = |rules: &Rules| sum(rules, |credential| credential.editions.len());
        let used = entered && retired(&self.rules) < retired(before);
        let notes = |rules: &Rules| -> Vec<_> {
            rules.tickets.iter().map(|ticket| ticket.credential().and_then(|of| of.noted)).collect()
        };
        let noted = entered && (used || notes(&self.rules)[..before.tickets.len()] != notes(before));
        let contested =
            |credential: &rules::Credential| usize::from(credential.state == State::Revoked(Why::Contest));
        let expected = [
            (
                "offered",
                heard(|e| matches!(e, AuditEvent::TicketOffered { .. })),
                self.rules.tickets.len() - before.tickets.len(),
            ),
            ("redeemed", heard(|e| matches!(e, AuditEvent::TicketRedeemed { .. })), grown(|_| 1)),
            ("renewal used", heard(|e| matches!(e, AuditEvent::RenewalUsed { .. })), usize::from(used)),
        ];
        for (what, heard, expected) in expected {
            ensure!(heard == expected, "{heard} records of what was {what}, not {expected}");
        }
        let attached = heard(|e| matches!(e, AuditEvent::PhoneAttached { .. }));
        self.owed += usize::from(noted);
        ensure!(attached <= self.owed, "{attached} records of visits, and {} are owed", self.owed);
        self.owed -= attached;
        let settled = done && matches!(next, Move::Settle);
        ensure!(self.owed == 0 || !settled, "{} visits are not written by a settling", self.owed);
        let certain = grown(contested);
        let heard = heard(|e| matches!(e, AuditEvent::TicketContested { .. }));
        // Beyond those there may be one that had expired already.
        ensure!(heard >= certain && heard <= 1, "{heard} records of contests, not {certain}");
        Ok(())
    }

    /// At the end only registrations are left.
    pub fn finish(&mut self) -> Outcome {
        // No phone is connected any more, so that the context is not asked about anything that may be gone.
        self.waiting.clear();
        self.guards.clear();
        self.rules.waiting.clear();
        self.rules.guards.clear();
        self.play(&Move::Time { wall: 86_400 * 4, monotonic: 86_400 * 4, unseen: false })?;
        for _ in 0..12 {
            self.play(&Move::Settle)?;
        }
        let listed = list_all(&self.world().gate, None, self.now()).map_err(|denial| denial.to_string())?;
        ensure!(listed.is_empty(), "days later there is still {listed:?}");
        self.world = None;
        let rows = rows(&(self.opens)());
        // Header, counters, progress.
        let expected = 3 + self.rules.issuers.len();
        ensure!(rows <= expected, "{rows} rows are left, and {} issuers", self.rules.issuers.len());
        Ok(())
    }
}
