//! A phone app around a connection, and an agent with a real gate on the other side of sockets that the test breaks.
#![allow(dead_code, reason = "each test uses a part of it")]

use core::time::Duration;
use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;
use sessioncap::agent::{Admission, GuardedReceiver, GuardedSender, PendingChannel, PermitError};
use sessioncap::app::*;
use sessioncap::desktop::{Pairing, PairingTerms};
use sessioncap::session::*;
use sessioncap::*;

use crate::common::*;

/// Output of the session, as the agent has it.
const RUN: [u8; 16] = [0xa1; 16];

#[allow(clippy::large_enum_variant, reason = "a few, in tests")]
enum Socket {
    New,
    Pending(PendingChannel),
    Live(GuardedSender, GuardedReceiver),
}

/// How the keychain answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keychain {
    Stores,
    Refuses,
    /// It has not answered yet.
    Waits,
}

pub struct Scene {
    pub world: World,
    pub desktop: Desktop,
    pub pairing: Pairing,
    pub phone: Connection,
    pub rng: StdRng,
    /// The phone's clock.
    pub time: Duration,
    pub keychain: Keychain,
    pub kept: Option<Vec<u8>>,
    /// What waits to be stored.
    pub asked_to_store: Option<(u32, Vec<u8>)>,
    pub reachable: bool,
    /// Whether the network keeps everything back: connections look open, and nothing arrives.
    pub frozen: bool,
    held: Vec<(u32, Vec<u8>)>,
    sockets: BTreeMap<u32, Socket>,
    /// What the app was told to show.
    pub log: Vec<Output>,
    pub opened: Vec<AgentUrl>,
    /// How many messages the phone has sent.
    pub sent: usize,
    /// What the agent got.
    pub received: Vec<Vec<u8>>,
    /// Whether the agent says at once that input is taken.
    pub takes: bool,
    pub position: u64,
    /// The credentials that were stored when a first frame came.
    pub activations: usize,
}

pub fn label() -> Label {
    Label::new("phone").unwrap()
}

impl Scene {
    pub fn new() -> Self {
        Self::with(&PairingTerms::default())
    }

    pub fn with(terms: &PairingTerms) -> Self {
        let world = World::new();
        let desktop = world.desktop(9);
        let pairing = desktop.share(&world, terms);
        let mut rng = StdRng::seed_from_u64(1);
        let accepted = Preview::new(pairing.link.clone(), &Pairings::new()).accept(label(), &mut rng);
        Self {
            phone: Connection::join(accepted),
            world,
            desktop,
            pairing,
            rng,
            time: Duration::from_secs(100),
            keychain: Keychain::Stores,
            kept: None,
            asked_to_store: None,
            reachable: true,
            frozen: false,
            held: Vec::new(),
            sockets: BTreeMap::new(),
            log: Vec::new(),
            opened: Vec::new(),
            sent: 0,
            received: Vec::new(),
            takes: true,
            position: 0,
            activations: 0,
        }
    }

    /// One that is in the session.
    pub fn live() -> Self {
        Self::live_with(&PairingTerms::default())
    }

    pub fn live_with(terms: &PairingTerms) -> Self {
        let mut scene = Self::with(terms);
        scene.tell(Input::Start);
        assert_eq!(scene.phone.state().code(), "live", "{:?}", scene.phone.state());
        scene
    }

    /// Tells the connection something, and does what it says.
    pub fn tell(&mut self, input: Input<'_>) {
        self.phone.handle(input, self.time, &mut self.rng);
        self.work();
    }

    pub fn work(&mut self) {
        let mut steps = 0;
        while let Some(output) = self.phone.next_output() {
            steps += 1;
            assert!(steps < 200, "it goes on for ever: {output:?}");
            self.act(output);
        }
    }

    fn act(&mut self, output: Output) {
        self.log.push(output.clone());
        match output {
            Output::Open { attempt, url } => {
                assert!(self.sockets.is_empty(), "two attempts at once");
                self.opened.push(url);
                if self.frozen {
                    self.sockets.insert(attempt, Socket::New);
                } else if self.reachable {
                    self.sockets.insert(attempt, Socket::New);
                    self.phone.handle(Input::Opened { attempt }, self.time, &mut self.rng);
                } else {
                    self.phone.handle(Input::Closed { attempt, code: None }, self.time, &mut self.rng);
                }
            }
            Output::Send { attempt, bytes } => {
                self.sent += 1;
                if self.frozen {
                    return;
                }
                if let Some(socket) = self.sockets.remove(&attempt) {
                    self.agent(attempt, socket, &bytes);
                }
            }
            Output::Close { attempt, .. } => drop(self.sockets.remove(&attempt)),
            Output::Store { number, bytes } => {
                let bytes = bytes.as_bytes().to_vec();
                assert_eq!(self.asked_to_store, None, "one at a time");
                self.asked_to_store = Some((number, bytes));
                self.answer_store(self.keychain);
            }
            _ => {}
        }
    }

    /// The keychain answers what waits.
    pub fn answer_store(&mut self, how: Keychain) {
        let input = match (how, self.asked_to_store.take()) {
            (Keychain::Stores, Some((number, bytes))) => {
                self.kept = Some(bytes);
                Input::Stored { number }
            }
            (Keychain::Refuses, Some((number, _))) => Input::NotStored { number },
            (_, waiting) => {
                self.asked_to_store = waiting;
                return;
            }
        };
        self.phone.handle(input, self.time, &mut self.rng);
    }

    /// The agent takes a message.
    fn agent(&mut self, attempt: u32, socket: Socket, bytes: &[u8]) {
        let now = self.world.now;
        match socket {
            Socket::New => {
                let admission = self
                    .world
                    .open(bytes)
                    .map(|received| self.world.gate.admit(received, now, &mut self.rng));
                match admission {
                    Ok(Admission::Admitted { message, pending }) => {
                        self.sockets.insert(attempt, Socket::Pending(pending));
                        self.deliver(attempt, &message);
                    }
                    Ok(Admission::Refused { message: Some(message), .. }) => {
                        self.deliver(attempt, &message);
                        self.phone.handle(
                            Input::Closed { attempt, code: Some(1000) },
                            self.time,
                            &mut self.rng,
                        );
                    }
                    _ => self.phone.handle(
                        Input::Closed { attempt, code: Some(1008) },
                        self.time,
                        &mut self.rng,
                    ),
                }
            }
            Socket::Pending(pending) => {
                self.activations += 1;
                let kept = Stored::from_bytes(self.kept.as_ref().expect("it is stored")).unwrap();
                assert_eq!(
                    kept.credential(),
                    self.phone.stored().credential(),
                    "the first frame leaves after the credential is stored"
                );
                match pending.activate(bytes, now) {
                    Ok(channel) => {
                        let (sender, receiver) = channel.split();
                        self.sockets.insert(attempt, Socket::Live(sender, receiver));
                        let version = SessionNotice::Profile { version: 1 }.to_notice();
                        self.notice(version);
                    }
                    Err(_) => self.break_off(Some(1008)),
                }
            }
            Socket::Live(sender, mut receiver) => {
                let opened = receiver.open(bytes, now);
                let message = receiver.try_receive_as(
                    |message| {
                        let action = FromPhone::from_bytes(message).unwrap().action();
                        Ok((action.unwrap_or(Action::Session(Op::ReadMetadata)), message.to_vec()))
                    },
                    now,
                    |message| message,
                );
                let refusal = match &message {
                    Err(PermitError::Refused(denial)) => Some(receiver.notice(denial)),
                    _ => None,
                };
                self.sockets.insert(attempt, Socket::Live(sender, receiver));
                match (opened, message) {
                    (Ok(Frame::Ping { answer: false, number }), _) => {
                        self.agent_sends(|sender, now| sender.try_ping(true, number, now));
                    }
                    (_, Ok(Some(message))) => self.hear(&message),
                    _ => {}
                }
                if let Some(notice) = refusal {
                    self.notice(notice);
                }
            }
        }
    }

    fn hear(&mut self, message: &[u8]) {
        let number = self.received.len() as u64;
        self.received.push(message.to_vec());
        match FromPhone::from_bytes(message).unwrap() {
            FromPhone::Follow(point) => {
                let incarnation = Incarnation::from_bytes(RUN).unwrap();
                let resumes = point.is_some_and(|point| point.position == self.position);
                let from = ResumePoint { incarnation, position: self.position };
                let missed = point.map_or(0, |point| self.position - point.position);
                let following =
                    FromAgent::Following(Following { from, missed: Some(missed), screen: !resumes });
                self.say(Op::StreamOutput, &following.to_bytes().unwrap());
                if !resumes {
                    let screen =
                        FromAgent::Screen { position: self.position, columns: 80, rows: 24, bytes: b"$ " };
                    self.say(Op::StreamOutput, &screen.to_bytes().unwrap());
                }
            }
            FromPhone::Input(_) if self.takes => {
                self.notice(SessionNotice::Taken { number }.to_notice());
            }
            FromPhone::Request(_) => {
                let answer = FromAgent::Answer { number, json: r#"{"ok":true}"# }.to_bytes().unwrap();
                self.say(Op::ReadMetadata, &answer);
            }
            _ => {}
        }
    }

    fn deliver(&mut self, attempt: u32, bytes: &[u8]) {
        if self.frozen {
            return self.held.push((attempt, bytes.to_vec()));
        }
        self.phone.handle(Input::Message { attempt, bytes }, self.time, &mut self.rng);
    }

    fn agent_sends(
        &mut self,
        send: impl FnOnce(&mut GuardedSender, Now) -> Result<Vec<u8>, PermitError>,
    ) -> bool {
        let now = self.world.now;
        let found = self.sockets.iter_mut().find_map(|(attempt, socket)| match socket {
            Socket::Live(sender, _) => Some((*attempt, sender)),
            _ => None,
        });
        let Some((attempt, sender)) = found else { return false };
        match send(sender, now) {
            Ok(frame) => {
                self.deliver(attempt, &frame);
                true
            }
            Err(_) => false,
        }
    }

    /// The agent sends a message.
    pub fn say(&mut self, op: Op, message: &[u8]) -> bool {
        self.agent_sends(|sender, now| sender.try_send(op, message, now))
    }

    pub fn notice(&mut self, notice: Notice) -> bool {
        self.agent_sends(|sender, now| sender.try_notice(notice, now))
    }

    /// The network delivers what it has kept back.
    pub fn thaw(&mut self) {
        self.frozen = false;
        for (attempt, bytes) in core::mem::take(&mut self.held) {
            self.deliver(attempt, &bytes);
            self.work();
        }
    }

    /// The session writes.
    pub fn output(&mut self, bytes: &[u8]) {
        let message = FromAgent::Output { position: self.position, bytes }.to_bytes().unwrap();
        self.position += bytes.len() as u64;
        self.say(Op::StreamOutput, &message);
        self.work();
    }

    /// The agent ends the connection.
    pub fn end(&mut self, code: EndCode) {
        let attempts: Vec<u32> = self.sockets.keys().copied().collect();
        for attempt in attempts {
            if let Some(Socket::Live(sender, _)) = self.sockets.remove(&attempt) {
                let frame = sender.end(code).unwrap();
                self.deliver(attempt, &frame);
            }
        }
        self.work();
    }

    /// The socket breaks, or is closed from the agent's side.
    pub fn break_off(&mut self, code: Option<u16>) {
        if let Some((attempt, _)) = self.sockets.pop_first() {
            self.phone.handle(Input::Closed { attempt, code }, self.time, &mut self.rng);
        }
        self.work();
    }

    /// Bytes on the open socket that are not of the agent.
    pub fn inject(&mut self, bytes: &[u8]) {
        if let Some(attempt) = self.sockets.keys().next().copied() {
            self.deliver(attempt, bytes);
        }
        self.work();
    }

    /// Time passes on both sides, second by second.
    pub fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.time += Duration::from_secs(1);
            self.world.pass(1);
            self.tell(Input::Time);
        }
    }

    /// Until the connection has something to do.
    pub fn wait(&mut self) -> Duration {
        let until = self.phone.wait_until().expect("it waits for something");
        let pause = until.saturating_sub(self.time);
        self.time = self.time.max(until);
        self.world.now = self.world.now.plus(time::Duration::try_from(pause).unwrap());
        let _ = self.world.gate.settle(self.world.now);
        self.tell(Input::Time);
        pause
    }

    pub fn states(&self) -> Vec<&'static str> {
        let state = |output: &Output| match output {
            Output::State(state) => Some(state.code()),
            _ => None,
        };
        self.log.iter().filter_map(state).collect()
    }

    pub fn error(&self) -> Option<AppError> {
        match self.phone.state() {
            State::Stopped { error } | State::Retrying { error, .. } => Some(error.clone()),
            _ => None,
        }
    }

    pub fn fates(&self) -> Vec<(u64, Fate)> {
        let fate = |output: &Output| match output {
            Output::Typed { id, fate } => Some((*id, *fate)),
            _ => None,
        };
        self.log.iter().filter_map(fate).collect()
    }

    /// Everything that was shown, the screens apart.
    pub fn shown(&self) -> String {
        let shown = |output: &Output| match output {
            Output::Shown { bytes, .. } => Some(String::from_utf8(bytes.clone()).unwrap()),
            _ => None,
        };
        self.log.iter().filter_map(shown).collect()
    }

    /// The app was ended, and starts again with what its keychain has.
    pub fn restart(&mut self) {
        self.sockets.clear();
        self.asked_to_store = None;
        self.phone = Connection::reopen(Stored::from_bytes(self.kept.as_ref().unwrap()).unwrap());
        self.tell(Input::Start);
    }
}
