//! Spans and events of a gate, collected while a whole story runs: each call is reported, and no field holds a
//! secret.
#![cfg(all(
    feature = "tracing",
    feature = "agent",
    feature = "holder",
    feature = "issuer",
    feature = "attenuate"
))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use common::ledger::{Fault, TestLedger};
use common::rng::CounterRng;
use common::*;
use rand::rngs::OsRng;
use rand::{CryptoRng, RngCore};
use sessioncap::agent::*;
use sessioncap::desktop::{Confirmation, Pairing};
use sessioncap::phone::{Asking, Redeemed};
use sessioncap::*;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// What a subscriber was told.
#[derive(Default)]
struct Told {
    /// Each field with its value, of spans and events.
    fields: Vec<(String, String)>,
    /// The fields of each event, in order.
    events: Vec<Vec<(String, String)>>,
    spans: BTreeSet<&'static str>,
}

struct Fields<'a>(&'a mut Vec<(String, String)>);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name().to_owned(), value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push((field.name().to_owned(), format!("{value:?}")));
    }
}

/// Keeps everything. Calls `during` at each span, record, event and change of span.
struct Collector<F> {
    told: Arc<Mutex<Told>>,
    next: AtomicU64,
    during: F,
}

impl<F: Fn() + Send + Sync + 'static> Collector<F> {
    fn new(during: F) -> (Self, Arc<Mutex<Told>>) {
        let told = Arc::new(Mutex::new(Told::default()));
        (Self { told: Arc::clone(&told), next: AtomicU64::new(1), during }, told)
    }
}

impl<F: Fn() + Send + Sync + 'static> Subscriber for Collector<F> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("sessioncap")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut told = self.told.lock().unwrap();
        told.spans.insert(span.metadata().name());
        span.record(&mut Fields(&mut told.fields));
        drop(told);
        (self.during)();
        Id::from_u64(self.next.fetch_add(1, Ordering::SeqCst))
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut Fields(&mut self.told.lock().unwrap().fields));
        (self.during)();
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Vec::new();
        event.record(&mut Fields(&mut fields));
        let mut told = self.told.lock().unwrap();
        told.fields.extend(fields.iter().cloned());
        told.events.push(fields);
        drop(told);
        (self.during)();
    }

    fn enter(&self, _: &Id) {
        (self.during)();
    }

    fn exit(&self, _: &Id) {
        (self.during)();
    }
}

/// Keeps what it has drawn: nonces and ephemeral keys.
struct Recording(CounterRng, Arc<Mutex<Vec<Vec<u8>>>>);

impl RngCore for Recording {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, drawn: &mut [u8]) {
        self.0.fill_bytes(drawn);
        self.1.lock().unwrap().push(drawn.to_vec());
    }

    fn try_fill_bytes(&mut self, drawn: &mut [u8]) -> Result<(), rand::Error> {
        self.fill_bytes(drawn);
        Ok(())
    }
}

impl CryptoRng for Recording {}

const TYPED: &str = "typed by the owner alone";
const LABEL: &str = "kitchen tablet";

/// A story's world, and what must not be told of it.
struct Story {
    world: World,
    ledger: TestLedger,
    desktop: Desktop,
    drawn: Arc<Mutex<Vec<Vec<u8>>>>,
    secrets: Vec<Vec<u8>>,
    /// Texts that an observer of the owner's screens would read.
    private: Vec<String>,
    public: BTreeSet<String>,
}

impl Story {
    fn begin() -> Self {
        let ledger = TestLedger::default();
        let world = World::on(ledger.clone());
        let desktop = Desktop::new(&world, 9);
        let mut secrets = vec![world.agent.expose_bytes().to_vec(), vec![9 ^ 0x55; 32], CHANNEL.to_vec()];
        secrets.extend((2..6).map(|seed| vec![seed; 32]));
        let private = [TYPED, LABEL].map(str::to_owned).to_vec();
        let public = [SESSION.to_owned(), desktop.device.to_string()].into();
        Self { world, ledger, desktop, drawn: Arc::default(), secrets, private, public }
    }

    fn share(&mut self, confirmation: Confirmation) -> Pairing {
        let terms = terms().with_label(text(LABEL)).with_confirmation(confirmation);
        let pairing = self.desktop.share(&self.world, &terms);
        self.public.extend([pairing.ticket.to_string(), pairing.credential.to_string()]);
        self.secrets.push(pairing.link.ticket().expose_bytes().to_vec());
        self.secrets.push(pairing.offer.to_bytes());
        self.private.push(pairing.link.to_https(&LinkHost::Agent).unwrap());
        pairing
    }

    fn admit(&mut self, message: &[u8]) -> Admission {
        let received = self.world.open(message).unwrap();
        // The payload has the ticket's proof, or the credential.
        self.secrets.extend([received.payload().to_vec(), received.handshake_hash().to_vec()]);
        let mut rng = Recording(CounterRng::new(self.secrets.len() as u64), Arc::clone(&self.drawn));
        self.world.gate.admit(received, self.world.now, &mut rng)
    }

    fn redeem(&mut self, pairing: &Pairing, seed: u8) -> Option<(CredentialBytes, GuardedChannel)> {
        let Asking { message, next, .. } = self.world.ask(&pairing.link, &phone(seed));
        match self.admit(&message) {
            Admission::Admitted { message, pending } => {
                let Redeemed::Attached { credential, mut attached } = next.finish(&message).unwrap() else {
                    panic!()
                };
                self.secrets.push(credential.as_bytes().to_vec());
                let frame = attached.channel.seal(&Frame::Data(TYPED).to_bytes()).unwrap();
                Some((credential, pending.activate(&frame, self.world.now).unwrap()))
            }
            Admission::Refused { message, denial } => {
                if denial == Denial::ConfirmationPending {
                    let Redeemed::Waiting { code, .. } = next.finish(&message.unwrap()).unwrap() else {
                        panic!()
                    };
                    self.private.push(code.to_string());
                }
                None
            }
            Admission::PassThrough(_) => panic!("taken for a device"),
        }
    }

    fn attach(&mut self, credential: &CredentialBytes) -> Result<GuardedChannel, Denial> {
        let asking =
            phone::attach(&self.world.agent.public(), &phone(2), credential, OpSet::EMPTY, &mut OsRng);
        let Asking { message, next, .. } = asking.unwrap();
        match self.admit(&message) {
            Admission::Admitted { message, pending } => {
                let mut attached = next.finish(&message).unwrap();
                self.secrets.extend(attached.renewed.as_ref().map(|renewed| renewed.as_bytes().to_vec()));
                let frame = attached.channel.seal(&Frame::Data(TYPED).to_bytes()).unwrap();
                Ok(pending.activate(&frame, self.world.now).unwrap())
            }
            Admission::Refused { denial, .. } => Err(denial),
            Admission::PassThrough(_) => panic!("taken for a device"),
        }
    }

    /// Every call that is traced, with success and refusal.
    fn tell(&mut self) {
        let now = self.world.now;
        let device = self.desktop.device;
        assert!(self.desktop.register(&self.world).is_err(), "not enrolled");
        self.world.enrol(device);
        self.desktop.register(&self.world).unwrap();
        let pairing = self.share(Confirmation::Required);
        assert!(self.redeem(&pairing, 2).is_none(), "it waits");
        self.world.gate.confirm(&device, &pairing.ticket, &phone(2).public(), now).unwrap();
        let (credential, first) = self.redeem(&pairing, 2).unwrap();
        let (mut sender, mut receiver) = first.split();
        receiver.try_receive(Op::SendInput, now, |typed| assert_eq!(typed, TYPED.as_bytes())).unwrap();
        sender.try_send(Op::StreamOutput, TYPED.as_bytes(), now).unwrap();
        let only = Some([Op::StreamOutput].into_iter().collect());
        let narrowed = Credential::parse(&credential).unwrap().attenuate(only, None, &mut OsRng).unwrap();
        self.secrets.push(narrowed.bytes().as_bytes().to_vec());
        drop(self.attach(&narrowed.bytes().clone()).unwrap());
        self.desktop.renew(&self.world, &pairing, OpSet::ALL, 3_600).unwrap();
        drop(self.attach(&credential).unwrap());
        let contested = self.share(Confirmation::NotRequired);
        let _first = self.redeem(&contested, 3).unwrap();
        assert!(self.redeem(&contested, 4).is_none(), "a contest");
        let gate = self.world.gate.clone();
        gate.settle(now).unwrap();
        gate.revoke_credential(&pairing.credential, now).unwrap();
        gate.revoke_ticket(&pairing.ticket, now).unwrap();
        assert_eq!(self.attach(&credential).map(drop), Err(Denial::CredentialRevoked));
        gate.revoke_phone(&device, &text(LABEL), now).unwrap();
        gate.revoke_session(&session(SESSION), now).unwrap();
        gate.end_session(&session(SESSION), now).unwrap();
        gate.sync_devices(&[device], now).unwrap();
        self.ledger.fail_nth(1, Fault::Broken);
        assert!(gate.revoke_device(&device, now).is_err());
        gate.reopen(self.ledger.opened_again(), now).unwrap();
        let issuer = self.desktop.issuer.public();
        gate.revoke_issuer(&issuer, now).unwrap();
        gate.reset_clock(now).unwrap();
        self.secrets.extend(core::mem::take(&mut *self.drawn.lock().unwrap()));
    }

    /// Every piece of a secret, in the forms in which one is written, except what is public as well.
    fn forms_of_secrets(&self) -> BTreeSet<String> {
        const PIECE: usize = 12;
        let mut public: Vec<Vec<u8>> = self.public.iter().map(|text| text.clone().into_bytes()).collect();
        public.extend(self.public.iter().filter_map(|text| unhex(text)));
        let is_public =
            |piece: &[u8]| public.iter().any(|public| public.windows(PIECE).any(|one| one == piece));
        let mut forms = BTreeSet::new();
        for secret in &self.secrets {
            for piece in secret.windows(PIECE.min(secret.len())).filter(|piece| !is_public(piece)) {
                let hex = piece.iter().fold(String::new(), |mut hex, byte| {
                    write!(hex, "{byte:02x}").unwrap();
                    hex
                });
                forms.extend([hex.to_uppercase(), hex]);
                forms.extend([URL_SAFE_NO_PAD.encode(piece), STANDARD.encode(piece)]);
                forms.extend([format!("{piece:?}").trim_matches(['[', ']']).to_owned()]);
                forms.extend(std::str::from_utf8(piece).ok().map(str::to_owned));
            }
        }
        forms
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// Runs `tell` with a subscriber of its own. Every story here has one: while there is only one in the process,
/// `tracing` decides by the thread that comes first whether a place is reported at all.
fn listen<F: Fn() + Send + Sync + 'static>(during: F, tell: impl FnOnce()) -> Told {
    let (collector, told) = Collector::new(during);
    tracing::subscriber::with_default(collector, tell);
    core::mem::take(&mut *told.lock().unwrap())
}

#[test]
fn no_field_of_a_span_or_event_holds_a_secret() {
    let mut story = Story::begin();
    let told = listen(|| {}, || story.tell());
    assert!(told.fields.len() > 100, "{}", told.fields.len());
    for (name, value) in &told.fields {
        let of_ids = ["ticket", "credential", "session", "device"].contains(&name.as_str());
        let of_words = ["call", "outcome", "denial"].contains(&name.as_str());
        let is_word = value.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        assert!(of_ids && story.public.contains(value) || of_words && is_word, "{name} is {value}");
    }
    // Parted by a character that no secret holds.
    let all: String =
        told.fields.iter().map(|(name, value)| format!("{name}\u{2403}{value}\u{2403}")).collect();
    let forms = story.forms_of_secrets();
    assert!(forms.len() > 10_000, "{}", forms.len());
    // By the length of a form, so that the text is searched once for each length.
    for length in forms.iter().map(String::len).collect::<BTreeSet<_>>() {
        let found = all.as_bytes().windows(length).find_map(|part| {
            let part = std::str::from_utf8(part).ok()?;
            forms.contains(part).then(|| part.to_owned())
        });
        assert_eq!(found, None);
    }
    for private in &story.private {
        assert!(
            !told.fields.iter().any(|(_, value)| value.contains(private) && !story.public.contains(value))
        );
    }
}

/// The search itself: each form of each kind of secret would be found.
#[test]
fn a_secret_in_a_field_would_be_found() {
    let mut story = Story::begin();
    listen(|| {}, || story.tell());
    let forms = story.forms_of_secrets();
    let secret = &story.secrets[3];
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(forms.contains(&hex[..24]) && forms.contains(&URL_SAFE_NO_PAD.encode(&secret[..12])));
    assert!(forms.iter().all(|form| !story.public.iter().any(|public| public.contains(form))));
    assert_eq!(story.private.len(), 5, "two texts, two links, the digits");
}

#[test]
fn every_call_is_reported_with_its_outcome_and_the_reason_of_a_refusal() {
    let mut story = Story::begin();
    let told = listen(|| {}, || story.tell());
    let value = |event: &[(String, String)], name: &str| {
        event.iter().find(|(field, _)| field == name).map_or(String::new(), |(_, value)| value.clone())
    };
    let found: BTreeSet<String> = told
        .events
        .iter()
        .map(|event| ["call", "outcome", "denial"].map(|name| value(event, name)).join(" ").trim().to_owned())
        .collect();
    let expected = [
        "activate done",
        "admit attached",
        "admit pending confirmation_pending",
        "admit redeemed",
        "admit refused credential_revoked",
        "admit refused ticket_contested",
        "attach done",
        "attach refused credential_revoked",
        "confirm done",
        "cut  credential_revoked",
        "cut  ticket_contested",
        "end_session already",
        "offer done",
        "redeem done",
        "redeem pending confirmation_pending",
        "redeem refused ticket_contested",
        "register_issuer done",
        "register_issuer refused device_not_enrolled",
        "renew done",
        "reopen done",
        "reset_clock unknown",
        "revoke_credential ended",
        "revoke_device failed ledger_unavailable",
        "revoke_issuer unknown",
        "revoke_phone unknown",
        "revoke_session already",
        "revoke_ticket already",
        "settle done",
        "sync_devices already",
    ];
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    let calls: BTreeSet<&str> = expected.iter().map(|event| event.split(' ').next().unwrap()).collect();
    let spans: BTreeSet<&str> = told.spans.iter().copied().chain(["cut"]).collect();
    assert_eq!(spans, calls, "a span for each call; a cut is an event alone");
    let cuts = told.events.iter().filter(|event| value(event, "call") == "cut");
    let cut: Vec<String> = cuts.map(|event| value(event, "credential")).collect();
    assert_eq!((cut.len(), cut.iter().collect::<BTreeSet<_>>().len()), (2, 2), "each credential once");
}

std::thread_local! {
    static ASKING: Cell<bool> = const { Cell::new(false) };
}

/// A subscriber that asks the gate, at every report: no lock is held then.
#[test]
fn a_subscriber_may_call_the_gate() {
    let (done, finished) = mpsc::channel();
    thread::spawn(move || {
        let mut story = Story::begin();
        let (gate, now) = (story.world.gate.clone(), story.world.now);
        let asked = move || {
            // Its own calls are reported as well.
            if ASKING.with(|asking| asking.replace(true)) {
                return;
            }
            let _ = gate.list(&List::default(), now);
            let _ = gate.revoke_session(&session("another"), now);
            assert!(gate.stats().transactions_done > 0);
            ASKING.with(|asking| asking.set(false));
        };
        let told = listen(asked, || story.tell());
        done.send(told.events.len()).unwrap();
    });
    // Reached only if a call waits for a lock that its own report holds.
    let events = finished.recv_timeout(std::time::Duration::from_secs(120)).expect("the story ends");
    assert!(events > 30, "{events}");
}

#[test]
fn a_subscriber_that_panics_changes_no_decision() {
    let mut story = Story::begin();
    let before = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&before);
    let told = listen(
        move || {
            count.fetch_add(1, Ordering::SeqCst);
            std::panic::resume_unwind(Box::new("a subscriber's defect"));
        },
        || story.tell(),
    );
    assert!(before.load(Ordering::SeqCst) > 30 && !told.events.is_empty());
    let alone = {
        let mut story = Story::begin();
        listen(|| {}, || story.tell());
        story.world.gate.stats()
    };
    assert_eq!(story.world.gate.stats(), alone);
}

/// A place at which a subscriber hangs while it is armed.
#[derive(Default)]
struct Hold(Mutex<(bool, usize)>, Condvar);

impl Hold {
    fn pass(&self) {
        let mut state = self.0.lock().unwrap();
        if state.0 {
            state.1 += 1;
            self.1.notify_all();
            drop(self.1.wait_while(state, |(armed, _)| *armed).unwrap());
        }
    }

    fn wait_for_somebody(&self) {
        let patience = std::time::Duration::from_secs(120);
        let waited =
            self.1.wait_timeout_while(self.0.lock().unwrap(), patience, |(_, hanging)| *hanging == 0);
        assert!(!waited.unwrap().1.timed_out(), "nothing was reported");
    }
}

#[test]
fn a_cut_waits_for_no_subscriber() {
    type Verb = fn(&Gate, &Pairing, Now) -> Result<(), Denial>;
    let verbs: [(Verb, Denial); 4] = [
        (
            |gate, pairing, now| gate.revoke_credential(&pairing.credential, now).map(drop),
            Denial::CredentialRevoked,
        ),
        (|gate, _, now| gate.end_session(&session(SESSION), now).map(drop), Denial::SessionGone),
        (|gate, _, now| gate.sync_devices(&[], now).map(drop), Denial::CredentialRevoked),
        (|gate, _, now| gate.reset_clock(now), Denial::CredentialRevoked),
    ];
    for (verb, reason) in verbs {
        let mut story = Story::begin();
        let mut pairing = None;
        let mut channel = None;
        let _ = listen(
            || {},
            || {
                story.world.enrol(story.desktop.device);
                story.desktop.register(&story.world).unwrap();
                let offered = story.share(Confirmation::NotRequired);
                channel = story.redeem(&offered, 2).map(|(_, channel)| channel);
                pairing = Some(offered);
            },
        );
        let (mut sender, _) = channel.unwrap().split();
        let (gate, now, pairing) = (story.world.gate.clone(), story.world.now, pairing.unwrap());
        let hold = Arc::new(Hold::default());
        hold.0.lock().unwrap().0 = true;
        let during = Arc::clone(&hold);
        let revoking = thread::spawn(move || {
            let mut outcome = None;
            let _ = listen(move || during.pass(), || outcome = Some(verb(&gate, &pairing, now)));
            outcome
        });
        hold.wait_for_somebody();
        assert_eq!(sender.try_send(Op::StreamOutput, b"x", now), Err(PermitError::Over(reason)));
        assert!(!revoking.is_finished());
        *hold.0.lock().unwrap() = (false, 0);
        hold.1.notify_all();
        assert_eq!(revoking.join().unwrap(), Some(Ok(())));
    }
}
