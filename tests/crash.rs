//! A process that offers, redeems, renews and revokes is killed at any moment, again and again. What
//! it had acknowledged by then is compared with what the ledger says afterwards, by a model that knows
//! nothing of records; and the audit log that the killed process wrote has to agree.
//!
//! `SESSIONCAP_CASES` is the number of kills; 200 by default. `SESSIONCAP_SEED` chooses the calls.
#![cfg(all(unix, feature = "redb"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod common;

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::log::Story;
use common::rng::CounterRng;
use common::*;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use sessioncap::agent::ledger::RedbLedger;
use sessioncap::agent::*;
use sessioncap::desktop::*;
use sessioncap::*;

const CHILD: &str = "SESSIONCAP_CRASH_LEDGER";
const SESSIONS: [&str; 3] = [SESSION, "second", "third"];
const PHONES: u8 = 4;
/// How long a renewal lets a credential last, seconds.
const RENEWED: u64 = 70_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// A log in a file, a line for each record.
struct LogFile {
    file: File,
    /// The lines of earlier processes.
    lines: HashSet<String>,
}

impl LogFile {
    fn path(ledger: &Path) -> PathBuf {
        ledger.with_extension("jsonl")
    }

    /// Half a line, from a process that was killed while it wrote, is removed: the record comes again.
    fn open(ledger: &Path) -> Self {
        let path = Self::path(ledger);
        let file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.truncate(text.rfind('\n').map_or(0, |at| at + 1));
        file.set_len(text.len() as u64).unwrap();
        let lines = text.lines().map(str::to_owned).collect();
        Self { file, lines }
    }

    fn lines(ledger: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(Self::path(ledger)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl AuditSink for LogFile {
    fn record(&self, record: &AuditRecord) -> Result<(), NotKept> {
        let line = serde_json::to_string(record).unwrap() + "\n";
        (&self.file).write_all(line.as_bytes()).map_err(|_| NotKept)
    }

    fn has(&self, record: &AuditRecord) -> bool {
        self.lines.contains(&serde_json::to_string(record).unwrap())
    }
}

/// Opens it so many seconds after everything began.
fn open(path: &Path, time: u64) -> (World, Desktop) {
    let quotas = Quotas::default()
        .with_tickets_per_session(u32::MAX)
        .with_credentials_per_session(u32::MAX)
        .with_tickets_per_agent(u32::MAX)
        .with_credentials_per_agent(u32::MAX);
    let ledger = RedbLedger::open(path).unwrap();
    let log = LogFile::open(path);
    let now = at(START + time as i64, 1_000 + time as i64);
    let mut world =
        World::try_with(ledger, now, |config| config.with_quotas(quotas).with_audit(log)).unwrap();
    world.now = now;
    SESSIONS.iter().for_each(|id| world.start_session(id));
    let desktop = Desktop::new(&world, 9);
    world.enrol(desktop.device);
    (world, desktop)
}

/// The same pairing for the same number, in whichever process.
fn pairing(world: &World, desktop: &Desktop, number: u64) -> Pairing {
    let time = world.now.timestamp();
    desktop.issuer.pair(session_of(number), &terms(), time, &mut CounterRng::new(number)).unwrap()
}

fn session_of(number: u64) -> SessionId {
    session(SESSIONS[usize::try_from(number).unwrap() % SESSIONS.len()])
}

fn who(phone: u8) -> HolderSecretKey {
    common::phone(10 + phone)
}

// --- what the process does ---

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Offer(u64),
    Redeem(u64, u8),
    /// With the latest credential that the phone has stored.
    Attach(u64, u8),
    Renew(u64),
    RevokeCredential(u64),
    RevokeTicket(u64),
    RevokeSession(u64),
    EndSession(u64),
    /// And registers it again.
    RevokeIssuer,
    /// So many seconds pass, and the gate is settled.
    Pass(u64),
}

impl Call {
    fn word(self) -> String {
        match self {
            Self::Offer(pairing) => format!("offer {pairing} 0"),
            Self::Redeem(pairing, phone) => format!("redeem {pairing} {phone}"),
            Self::Attach(pairing, phone) => format!("attach {pairing} {phone}"),
            Self::Renew(pairing) => format!("renew {pairing} 0"),
            Self::RevokeCredential(pairing) => format!("revoke-credential {pairing} 0"),
            Self::RevokeTicket(pairing) => format!("revoke-ticket {pairing} 0"),
            Self::RevokeSession(pairing) => format!("revoke-session {pairing} 0"),
            Self::EndSession(pairing) => format!("end-session {pairing} 0"),
            Self::RevokeIssuer => "revoke-issuer 0 0".to_owned(),
            Self::Pass(seconds) => format!("pass {seconds} 0"),
        }
    }

    fn read(word: &str) -> Self {
        let parts: Vec<&str> = word.split(' ').collect();
        let (pairing, phone) = (parts[1].parse().unwrap(), parts[2].parse().unwrap());
        match parts[0] {
            "offer" => Self::Offer(pairing),
            "redeem" => Self::Redeem(pairing, phone),
            "attach" => Self::Attach(pairing, phone),
            "renew" => Self::Renew(pairing),
            "revoke-credential" => Self::RevokeCredential(pairing),
            "revoke-ticket" => Self::RevokeTicket(pairing),
            "revoke-session" => Self::RevokeSession(pairing),
            "end-session" => Self::EndSession(pairing),
            "revoke-issuer" => Self::RevokeIssuer,
            "pass" => Self::Pass(pairing),
            other => panic!("{other}"),
        }
    }
}

#[test]
#[ignore = "the process that is killed; the other test starts it"]
fn the_process_that_is_killed() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let (first, seed) = (number("FIRST", 0), number("SEED", 0));
    // One write for each line: what the parent has read was told before the process died.
    let tell = |line: String| std::io::stdout().write_all(format!("@{line}\n").as_bytes()).unwrap();
    // Waits for its end at a chosen place.
    let stop_at = std::env::var("STOP").unwrap_or_default();
    let stop = |here: &str| {
        if here == stop_at {
            tell("stops".to_owned());
            loop {
                std::thread::park();
            }
        }
    };
    stop("before the opening");
    let (mut world, desktop) = open(Path::new(&path), number("TIME", 0));
    stop("after the opening");
    desktop.register(&world).unwrap();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut stored: BTreeMap<u64, (u8, CredentialBytes)> = BTreeMap::new();
    let mut next = first;
    let calls_until_it_stops = number("CALLS", u64::MAX);
    for number_of_call in 0.. {
        let some = if next > first { rng.gen_range(first..next) } else { first };
        let call = match rng.gen_range(0..100) {
            0..=26 => Call::Offer(next),
            27..=52 => Call::Redeem(some, rng.gen_range(0..PHONES * 4) / 4 * u8::from(rng.gen_bool(0.1))),
            53..=67 => Call::Attach(some, stored.get(&some).map_or(0, |(phone, _)| *phone)),
            68..=76 => Call::Renew(some),
            77..=83 => Call::RevokeCredential(some),
            84..=88 => Call::RevokeTicket(some),
            89..=90 => Call::RevokeSession(some),
            91 => Call::EndSession(some),
            92 => Call::RevokeIssuer,
            // Seconds, and now and then the ends of tickets, of retries and of credentials.
            _ => Call::Pass(*[1, 1, 7, 7, 60, 60, 250, 250, 700, 20_000, 50_000].choose(&mut rng).unwrap()),
        };
        tell(format!("begin {}", call.word()));
        // In the middle of a call, as far as its user knows.
        if number_of_call >= calls_until_it_stops {
            stop("in a call");
        }
        let made = |number| pairing(&world, &desktop, number);
        let outcome = match call {
            Call::Offer(number) => {
                next += 1;
                desktop.lodge(&world, &made(number)).map(|()| None)
            }
            Call::Redeem(number, phone) => redeem(&world, &made(number), phone).map(|credential| {
                stored.insert(number, (phone, credential.clone()));
                Some(credential)
            }),
            Call::Attach(number, phone) => match stored.get(&number) {
                None => continue,
                Some((_, credential)) => match attach(&world, phone, credential) {
                    Ok(Some(renewed)) => {
                        stored.insert(number, (phone, renewed.clone()));
                        Ok(Some(renewed))
                    }
                    Ok(None) => Ok(None),
                    Err(denial) => Err(denial),
                },
            },
            Call::Renew(number) => {
                let id = session_of(number);
                desktop.renew_for(&world, id.as_str(), &made(number), OpSet::ALL, RENEWED).map(|_| None)
            }
            Call::RevokeCredential(number) => {
                world.gate.revoke_credential(&made(number).credential, world.now).map(|_| None)
            }
            Call::RevokeTicket(number) => {
                world.gate.revoke_ticket(&made(number).ticket, world.now).map(|_| None)
            }
            Call::RevokeSession(number) => {
                world.gate.revoke_session(&session_of(number), world.now).map(|_| None)
            }
            Call::EndSession(number) => world.gate.end_session(&session_of(number), world.now).map(|_| None),
            Call::RevokeIssuer => {
                let revoked = world.gate.revoke_issuer(&desktop.issuer.public(), world.now);
                revoked.and_then(|_| desktop.register(&world)).map(|()| None)
            }
            Call::Pass(seconds) => {
                world.pass(seconds as i64);
                (0..4).try_for_each(|_| world.gate.settle(world.now)).map(|()| None)
            }
        };
        let outcome = match outcome {
            Ok(None) => "ok -".to_owned(),
            Ok(Some(credential)) => format!("ok {}", hex(credential.as_bytes())),
            Err(denial) => format!("denied {}", denial.code()),
        };
        tell(format!("done {} {outcome}", call.word()));
    }
}

fn redeem(world: &World, pairing: &Pairing, phone: u8) -> Result<CredentialBytes, Denial> {
    world.join(&pairing.link, &who(phone)).map(|joined| joined.credential).map_err(|refusal| refusal.denial)
}

fn attach(world: &World, phone: u8, credential: &CredentialBytes) -> Result<Option<CredentialBytes>, Denial> {
    let payload = attach_payload(OpSet::EMPTY, credential.as_bytes());
    match world.admit(&who(phone), &payload) {
        PeerAdmission::Admitted { reply, guard } => {
            let map = cbor::decode_payload(&reply).unwrap();
            guard.activate_after_first_frame(world.now)?;
            let renewed = map.iter().any(|(key, _)| *key == 12).then(|| cbor::bytes_of(&map, 12));
            Ok(renewed.map(|bytes| CredentialBytes::new(bytes).unwrap()))
        }
        PeerAdmission::Refused { denial, .. } => Err(denial),
        PeerAdmission::PassThrough => panic!("taken for a device"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> CredentialBytes {
    let bytes = (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap());
    CredentialBytes::new(bytes.collect::<Vec<u8>>()).unwrap()
}

// --- what its user knows ---

/// The state of one pairing according to acknowledgements alone.
#[derive(Debug, Default, Clone)]
struct Known {
    /// When its ticket ends.
    offered: Option<u64>,
    /// When its credential ends, with all that was added.
    end: u64,
    /// The phone that has it, with the credential that it was given first.
    first: Option<(u8, CredentialBytes)>,
    /// What the phone has stored last.
    stored: Option<CredentialBytes>,
    /// The last renewed one that it was given, until there is a later one.
    latest: Option<CredentialBytes>,
    renewed: bool,
    taken_back: bool,
    /// Something that may or may not have happened.
    doubtful: bool,
}

impl Known {
    fn ticket_lives(&self, time: u64) -> bool {
        self.offered.is_some_and(|end| time < end) && time < self.end
    }

    fn may_retry(&self, time: u64) -> bool {
        self.offered.is_some_and(|end| time < end + limits::RETRY_WINDOW) && time < self.end
    }
}

#[derive(Default)]
struct Model {
    known: BTreeMap<u64, Known>,
    /// Seconds since everything began.
    time: u64,
}

impl Model {
    fn of(&mut self, number: u64) -> &mut Known {
        self.known.entry(number).or_default()
    }

    /// Everything that a call is about.
    fn touched(&mut self, call: Call) -> Vec<&mut Known> {
        let sessions = SESSIONS.len() as u64;
        match call {
            Call::RevokeSession(number) | Call::EndSession(number) => {
                let known = self.known.iter_mut();
                known
                    .filter(|(other, _)| **other % sessions == number % sessions)
                    .map(|(_, known)| known)
                    .collect()
            }
            Call::RevokeIssuer => self.known.values_mut().collect(),
            Call::Pass(_) => Vec::new(),
            Call::Offer(number)
            | Call::Redeem(number, _)
            | Call::Attach(number, _)
            | Call::Renew(number)
            | Call::RevokeCredential(number)
            | Call::RevokeTicket(number) => vec![self.of(number)],
        }
    }

    fn done(&mut self, call: Call, outcome: Option<Option<CredentialBytes>>, code: &str) {
        let time = self.time;
        match (call, outcome) {
            (Call::Offer(number), Some(_)) => {
                let known = self.of(number);
                known.offered = Some(time + limits::DEFAULT_TICKET_LIFETIME);
                known.end = time + limits::DEFAULT_CREDENTIAL_LIFETIME;
            }
            (Call::Redeem(number, phone), Some(given)) => {
                let given = given.unwrap();
                let known = self.of(number);
                assert!(!known.taken_back, "{call:?} went through");
                match &known.first {
                    Some((holder, first)) => {
                        assert!(known.may_retry(time), "{call:?} went through");
                        assert_eq!(*holder, phone, "two holders of ticket {number}");
                        assert!(known.renewed || given == *first, "another credential for the same phone");
                    }
                    None => {
                        assert!(known.ticket_lives(time), "{call:?} went through");
                        known.first = Some((phone, given.clone()));
                    }
                }
                known.stored = Some(given);
            }
            (Call::Redeem(number, phone), None) => {
                let known = self.of(number);
                let redeemed = known.first.is_some();
                if known.first.as_ref().is_some_and(|(holder, _)| *holder != phone)
                    && known.ticket_lives(time)
                {
                    known.taken_back = true;
                } else if known.first.as_ref().is_none_or(|(holder, _)| *holder == phone) {
                    let over = if redeemed { !known.may_retry(time) } else { !known.ticket_lives(time) };
                    assert!(over || known.taken_back, "{call:?}: {code}, {known:?}");
                }
            }
            (Call::Attach(number, _), Some(renewed)) => {
                let known = self.of(number);
                assert!(!known.taken_back && time < known.end, "{call:?} went through");
                if let Some(renewed) = renewed {
                    assert!(known.renewed);
                    known.stored = Some(renewed.clone());
                    known.latest = Some(renewed);
                }
            }
            (Call::Attach(number, _), None) => {
                let known = self.of(number);
                assert!(known.taken_back || time >= known.end, "{call:?}: {code}");
            }
            (Call::Renew(number), Some(_)) => {
                let known = self.of(number);
                assert!(!known.taken_back && time < known.end, "{call:?} went through");
                known.renewed = true;
                known.latest = None;
                known.end = known.end.max(time + RENEWED);
            }
            (Call::Renew(_), None) => {}
            (Call::Pass(seconds), Some(_)) => self.time += seconds,
            (
                Call::RevokeCredential(_)
                | Call::RevokeTicket(_)
                | Call::RevokeSession(_)
                | Call::EndSession(_)
                | Call::RevokeIssuer,
                Some(_),
            ) => {
                for known in self.touched(call) {
                    known.taken_back |= known.offered.is_some();
                }
            }
            (_, None) => panic!("{call:?}: {code}"),
        }
    }

    fn doubt(&mut self, call: Call) {
        if let Call::Pass(seconds) = call {
            // Whatever is asked from here on is asked after it.
            self.time += seconds;
        }
        for known in self.touched(call) {
            known.doubtful = true;
        }
    }

    /// Compares with what the ledger says.
    fn check(&mut self, world: &World, desktop: &Desktop) {
        let listed = world.list();
        let time = self.time;
        for (number, known) in &mut self.known {
            let made = pairing(world, desktop, *number);
            let of_ticket = listed.iter().filter(|one| one.ticket == made.ticket).count();
            assert!(of_ticket <= 1, "{of_ticket} records of one ticket");
            if known.taken_back {
                for phone in 0..PHONES {
                    assert!(redeem(world, &made, phone).is_err(), "{number} revived by its ticket");
                }
                let Some((holder, first)) = &known.first else { continue };
                for credential in [Some(first), known.stored.as_ref()].into_iter().flatten() {
                    let denial = attach(world, *holder, credential).unwrap_err();
                    let fits = match denial {
                        Denial::CredentialRevoked | Denial::TicketContested | Denial::SessionGone => true,
                        // By the precedence revoked, session gone, expired: also where it had expired before.
                        Denial::IssuerRevoked => true,
                        // It may have expired first, or is forgotten by now.
                        Denial::CredentialExpired | Denial::CredentialUnknown => time >= known.end,
                        _ => false,
                    };
                    assert!(fits, "{number}: {denial}");
                }
                continue;
            }
            if known.doubtful {
                // It may have happened or not, but not both, and not to two phones.
                let holders = (0..PHONES).filter(|phone| redeem(world, &made, *phone).is_ok()).count();
                assert!(holders <= 1, "{number}: {holders} holders");
                known.taken_back = true;
                known.doubtful = false;
                world.gate.revoke_ticket(&made.ticket, world.now).unwrap();
                known.first = None;
                known.stored = None;
                continue;
            }
            if known.offered.is_none() {
                continue;
            }
            match (&known.first, &known.stored) {
                (Some((holder, first)), Some(stored)) => {
                    let retry = redeem(world, &made, *holder);
                    assert_eq!(retry.is_ok(), known.may_retry(time), "{number}: {retry:?}");
                    if let Ok(retry) = &retry {
                        assert!(known.renewed || retry == first, "{number}: other bytes after the crash");
                        assert!(known.latest.as_ref().is_none_or(|latest| latest == retry), "{number}");
                    }
                    if let (Some(latest), Ok(Some(renewed))) = (&known.latest, attach(world, *holder, first))
                    {
                        assert_eq!(*latest, renewed, "{number}: another renewal after the crash");
                    }
                    let attached = attach(world, *holder, stored);
                    assert_eq!(attached.is_ok(), time < known.end, "{number}: {attached:?}");
                    known.stored = Some(retry.ok().or(attached.ok().flatten()).unwrap_or(stored.clone()));
                }
                _ => {
                    let given = redeem(world, &made, 0);
                    assert_eq!(given.is_ok(), known.ticket_lives(time), "{number}: {given:?}");
                    known.stored = given.ok();
                    known.first = known.stored.clone().map(|stored| (0, stored));
                }
            }
        }
    }
}

/// Held while this process starts another or has a ledger open: the child of a fork shares the lock on
/// a file that another thread has open, until it has become its program.
static FILES: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sessioncap-crash-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The log alone agrees with the ledger, each record once and in order.
fn check_log(path: &Path, world: &World) {
    let mut story = Story::default();
    for record in LogFile::lines(path) {
        story.take_json(&record).unwrap();
    }
    story.compare(&world.list()).unwrap();
}

fn command(path: &Path, first: u64, time: u64, seed: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "the_process_that_is_killed", "--nocapture", "--test-threads=1"])
        .env(CHILD, path)
        .env("FIRST", first.to_string())
        .env("TIME", time.to_string())
        .env("SEED", seed.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn start(command: &mut Command) -> Child {
    let _alone = alone();
    command.spawn().unwrap()
}

fn wait(micros: u64) {
    let begin = std::time::Instant::now();
    while begin.elapsed() < std::time::Duration::from_micros(micros) {
        std::hint::spin_loop();
    }
}

/// Kills a process that waits at a chosen place.
fn kill_at(path: &Path, place: &str, first: u64) {
    let mut child = start(command(path, first, 0, 7).env("STOP", place));
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    while !text.contains("@stops") {
        assert!(lines.read_line(&mut text).unwrap() > 0, "it has ended before {place}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_process_that_is_killed_while_it_opens_its_ledger_leaves_one_that_opens() {
    let (kills, seed) = (number("SESSIONCAP_CASES", 200), number("SESSIONCAP_SEED", 1));
    let mut rng = StdRng::seed_from_u64(seed);
    let place = Place::new("opening");
    // Each outcome once for certain, and then whatever the moments of the kills bring.
    let path = place.0.join("stopped.redb");
    kill_at(&path, "before the opening", 0);
    assert!(!path.exists());
    kill_at(&path, "after the opening", 0);
    assert!(std::fs::read(&path).unwrap().starts_with(b"redb"));
    {
        let _alone = alone();
        check_log(&path, &open(&path, 0).0);
    }
    let (mut made, mut unmade) = (0, 0);
    for round in 0..kills {
        // New ones, and in between the last one again.
        let path = place.0.join(format!("{}.redb", round - round % 2));
        let mut child = start(&mut command(&path, round, 0, rng.gen_range(0..u64::MAX / 2)));
        // A new one from the moment its file is there, so that the file's making is hit.
        let begin = std::time::Instant::now();
        while round % 2 == 0 && !path.exists() && begin.elapsed() < std::time::Duration::from_secs(10) {
            std::hint::spin_loop();
        }
        wait(rng.gen_range(0..if round % 2 == 0 { 2_000 } else { 20_000 }));
        child.kill().unwrap();
        child.wait().unwrap();
        if path.exists() && std::fs::read(&path).unwrap().starts_with(b"redb") {
            made += 1;
        } else {
            unmade += 1;
        }
        let _alone = alone();
        let (world, desktop) = open(&path, 0);
        desktop.register(&world).unwrap();
        check_log(&path, &world);
    }
    println!("{made} were made and {unmade} were not");
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there_after_it() {
    let (kills, seed) = (number("SESSIONCAP_CASES", 200), number("SESSIONCAP_SEED", 1));
    let mut rng = StdRng::seed_from_u64(seed);
    let place = Place::new("running");
    let (mut acknowledged, mut in_flight) = (0, 0);
    let mut model = Model::default();
    let mut path = place.0.join("0.redb");
    for round in 0..kills {
        if round % 5 == 0 {
            // An old file is killed several times, and then a new one.
            path = place.0.join(format!("{round}.redb"));
            model = Model::default();
        }
        let first = round * 100_000;
        let mut command = command(&path, first, model.time, rng.gen_range(0..u64::MAX / 2));
        // In every fifth round a call is cut off for certain; in the others, wherever the moment falls.
        let stops = round % 5 == 3;
        if stops {
            command.env("STOP", "in a call").env("CALLS", "12");
        }
        let mut child = start(&mut command);
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let lines_before_the_end = rng.gen_range(1..60);
        let mut text = String::new();
        let mut seen = 0;
        while if stops { !text.contains("@stops") } else { seen < lines_before_the_end } {
            let start = text.len();
            assert!(lines.read_line(&mut text).unwrap() > 0, "{}", {
                let mut complaint = String::new();
                child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
                complaint
            });
            seen += u32::from(text[start..].contains('@'));
        }
        // At any point inside whatever it does now.
        wait(rng.gen_range(0..6_000));
        child.kill().unwrap();
        child.wait().unwrap();
        lines.read_to_string(&mut text).unwrap();

        let mut begun = None;
        for line in text.lines().filter_map(|line| line.split_once('@')).map(|(_, line)| line) {
            if let Some(word) = line.strip_prefix("begin ") {
                begun = Some(Call::read(word));
            } else if let Some(rest) = line.strip_prefix("done ") {
                let parts: Vec<&str> = rest.split(' ').collect();
                let call = Call::read(&parts[..3].join(" "));
                let outcome = match (parts[3], parts[4]) {
                    ("ok", "-") => Some(None),
                    ("ok", credential) => Some(Some(unhex(credential))),
                    _ => None,
                };
                model.done(call, outcome, parts[4]);
                acknowledged += 1;
                begun = None;
            }
        }
        if let Some(call) = begun {
            model.doubt(call);
            in_flight += 1;
        }
        let _alone = alone();
        let (world, desktop) = open(&path, model.time);
        check_log(&path, &world);
        model.check(&world, &desktop);
    }
    // Twelve calls in every fifth round, and the one that was cut off.
    assert!(
        acknowledged >= kills / 5 * 12 && in_flight >= kills / 5,
        "{acknowledged} calls, {in_flight} cut off"
    );
    println!("{acknowledged} calls were acknowledged and {in_flight} cut off");
}
