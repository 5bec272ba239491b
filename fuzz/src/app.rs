//! What a phone app keeps, and its connection.

use core::time::Duration;
use std::collections::BTreeSet;

use sessioncap::app::*;
use sessioncap::noise::{Channel, Responder};
use sessioncap::*;

use super::rng::CounterRng;
use super::{agent, with_base};

/// Bytes of a keychain. Whatever reads is written the same.
pub fn stored(data: &[u8]) {
    match Stored::from_bytes(data) {
        Ok(stored) => {
            assert_eq!(stored.to_bytes().as_bytes(), data, "one encoding");
            assert!(!stored.addresses().is_empty());
            assert_eq!(stored.access().is_some(), stored.credential().is_some());
            // A part of it is never another pairing.
            for cut in 0..data.len() {
                assert!(Stored::from_bytes(&data[..cut]).is_err());
            }
        }
        Err(AppError::StoredNewer { version }) => assert!(version > Stored::VERSION),
        Err(AppError::StoredForeign) => assert!(!data.starts_with(b"SCPP")),
        Err(error) => assert_eq!(error, AppError::StoredDamaged),
    }
}

/// The app's side, with what must hold between what it was told to do.
struct App {
    phone: Connection,
    rng: CounterRng,
    now: Duration,
    attempt: u32,
    is_open: bool,
    /// What waits to be stored, and what is.
    asked: Option<(u32, Vec<u8>)>,
    kept: Option<Vec<u8>>,
    /// The last message that was sent, and the agent's channel once it has answered.
    sent: Vec<u8>,
    channel: Option<Channel>,
    given: u64,
    told: BTreeSet<u64>,
}

impl App {
    fn tell(&mut self, input: Input<'_>) {
        self.phone.handle(input, self.now, &mut self.rng);
        self.work();
    }

    fn work(&mut self) {
        for count in 0.. {
            let Some(output) = self.phone.next_output() else { break };
            assert!(count < 70_000, "it goes on for ever");
            self.act(output);
        }
        // What is due was done: another look changes nothing.
        if let Some(until) = self.phone.wait_until() {
            assert!(until > self.now, "it waits for the past");
        }
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::Open { attempt, .. } => {
                assert!(!self.is_open && self.kept.is_some(), "opened before it was stored, or twice");
                (self.attempt, self.is_open, self.channel) = (attempt, true, None);
            }
            Output::Send { attempt, bytes } => {
                assert!(self.is_open && attempt == self.attempt, "sent on a socket that is closed");
                if self.channel.is_some() {
                    let kept = Stored::from_bytes(self.kept.as_ref().unwrap()).unwrap();
                    assert_eq!(
                        kept.credential(),
                        self.phone.stored().credential(),
                        "used before it was stored"
                    );
                }
                self.sent = bytes;
            }
            Output::Close { attempt, .. } => {
                assert_eq!(attempt, self.attempt);
                self.is_open = false;
            }
            Output::Store { number, bytes } => {
                assert_eq!(self.asked, None);
                self.asked = Some((number, bytes.as_bytes().to_vec()));
            }
            Output::Typed { id, .. } | Output::Answered { id, .. } | Output::NotAnswered { id, .. } => {
                assert!(id < self.given && self.told.insert(id), "told twice");
            }
            _ => {}
        }
    }
}

/// The name of a key: whatever reads is written in one way, and sends a few bytes.
fn key_press(name: &[u8]) {
    let Ok(name) = core::str::from_utf8(name) else { return };
    match name.parse::<KeyPress>() {
        Ok(key) => {
            assert_eq!(key.to_string().parse::<KeyPress>().unwrap(), key);
            for application in [false, true] {
                assert!((1..=8).contains(&key.to_bytes(application).len()));
            }
        }
        Err(error) => assert_eq!(error, AppError::UnknownKey),
    }
}

/// A byte for what happens, and what it needs; see the arms. Message 1 is read and answered as the agent does, and
/// frames are properly encrypted, so that what is behind the encryption is reached.
pub fn connection(data: &[u8]) {
    let mut rng = CounterRng::new(1);
    let (link, reply) = with_base(|base| (base.open.clone(), base.reply.clone()));
    let accepted = Preview::new(link, &Pairings::new()).accept(Label::new("phone").unwrap(), &mut rng);
    let key = accepted.stored().holder().public();
    let mut app = App {
        phone: Connection::join(accepted),
        rng,
        now: Duration::from_secs(1),
        attempt: 0,
        is_open: false,
        asked: None,
        kept: None,
        sent: Vec::new(),
        channel: None,
        given: 0,
        told: BTreeSet::new(),
    };
    let mut rest = data;
    while let Some((what, after)) = rest.split_first() {
        rest = after;
        let byte = |rest: &mut &[u8]| match rest.split_first() {
            Some((byte, after)) => {
                *rest = after;
                *byte
            }
            None => 0,
        };
        let attempt = app.attempt;
        match what % 20 {
            0 => app.tell(Input::Start),
            1 => app.tell(Input::Opened { attempt }),
            2 => {
                app.is_open = false;
                let code = byte(&mut rest);
                app.tell(Input::Closed { attempt, code: (code != 0).then_some(1000 + u16::from(code % 16)) });
            }
            3 | 4 => {
                let len = usize::from(byte(&mut rest)).min(rest.len());
                let (bytes, after) = rest.split_at(len);
                rest = after;
                let sealed = match &mut app.channel {
                    Some(channel) if what % 20 == 3 => channel.seal(bytes).unwrap(),
                    _ => bytes.to_vec(),
                };
                app.tell(Input::Message { attempt, bytes: &sealed });
            }
            5 => {
                if let Some((number, bytes)) = app.asked.take() {
                    app.kept = Some(bytes);
                    app.tell(Input::Stored { number });
                }
            }
            6 => {
                if let Some((number, _)) = app.asked.take() {
                    app.tell(Input::NotStored { number });
                }
            }
            7 => {
                app.now += Duration::from_millis(250 * u64::from(byte(&mut rest)));
                app.tell(Input::Time);
            }
            8 => app.tell(Input::Suspended),
            9 => app.tell(Input::Resumed),
            10 => app.tell(Input::NetworkChanged),
            11 => {
                let id = app.given;
                app.given += 1;
                let len = usize::from(byte(&mut rest)) * 300;
                app.tell(Input::Type { id, bytes: &vec![b'x'; len] });
            }
            12 => {
                let id = app.given;
                app.given += 1;
                app.tell(Input::Request { id, json: "{}" });
            }
            13 => app.tell(Input::Leave),
            14 => app.tell(Input::PermissionDenied { attempt }),
            15 => {
                let side = u16::from(byte(&mut rest)) * 4;
                app.tell(Input::Resize { columns: side, rows: side });
            }
            16 => {
                // The agent answers message 1: as it once has, or with what comes here.
                let len = usize::from(byte(&mut rest)).min(rest.len());
                let (own, after) = rest.split_at(len);
                rest = after;
                let Ok(received) = Responder::read(&agent(), &app.sent, &mut app.rng) else { continue };
                let payload = if own.is_empty() { reply.as_slice() } else { own };
                let replied = received.reply(payload).unwrap();
                app.channel = Some(replied.channel);
                app.tell(Input::Message { attempt, bytes: &replied.message });
            }
            17 => {
                let names: Vec<_> = KeyPress::names().collect();
                let name = names[usize::from(byte(&mut rest)) % names.len()];
                let key: KeyPress = format!("ctrl+alt+{name}").parse().unwrap();
                let id = app.given;
                app.given += 1;
                app.tell(Input::Key { id, key, application: what % 2 == 0 });
            }
            18 => {
                let number = byte(&mut rest) % 16;
                let address = AgentUrl::parse(&format!("wss://host{number}.example")).unwrap();
                app.phone.add_address(address);
                app.work();
            }
            _ => {
                let len = usize::from(byte(&mut rest)).min(rest.len());
                let (text, after) = rest.split_at(len);
                rest = after;
                key_press(text);
            }
        }
        assert_eq!(app.phone.stored().holder().public(), key, "one key");
    }
    app.tell(Input::Leave);
    assert_eq!(app.told.len() as u64, app.given, "each once");
}
