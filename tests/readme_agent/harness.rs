//! The parts that the README's agent leaves to the program: sockets, sessions, a clock. Everything here is in one
//! process and in simulated time, and a phone that writes what it likes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::HashSet;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::OsRng;
use sessioncap::agent::Gate;
use sessioncap::agent::ledger::MemoryLedger;
use sessioncap::desktop::{Issuer, Pairing, PairingTerms};
use sessioncap::noise::{Channel, Received};
use sessioncap::pair::{Answer, Request, Revoke, Revoked};
use sessioncap::phone::{Redeemed, attach, redeem};
use sessioncap::{
    AgentSecretKey, AgentUrl, CredentialBytes, DevicePublicKey, DeviceSecretKey, Frame, HolderSecretKey,
    IssuerSecretKey, Label, Now, OpSet, SessionId,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// More calls than an agent makes in a scenario: one that spins is stopped.
const MOST_CALLS: u32 = 20_000;

#[derive(Clone)]
pub struct Agent {
    pub key: Arc<AgentSecretKey>,
    pub gate: Gate,
    pub sessions: Sessions,
    clock: Clock,
}

/// The simulated clock, which counts how often it is asked.
#[derive(Clone)]
struct Clock {
    started: Instant,
    asked: Arc<AtomicU32>,
}

impl Clock {
    fn now(&self) -> Now {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        assert!(asked < MOST_CALLS, "it spins");
        let elapsed = self.started.elapsed().try_into().unwrap();
        Now::new(time::OffsetDateTime::from_unix_timestamp(1_780_000_000).unwrap(), time::Duration::seconds(9))
            .plus(elapsed)
    }
}

impl Agent {
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    pub fn log<T, E: Debug>(&self, _: Result<T, E>) {}

    pub fn open_ledger(&self) -> Outcome<MemoryLedger> {
        Err("it has not failed".into())
    }

    /// A device of the agent's own protocol: it would be authenticated here.
    pub async fn serve_device(&self, _: Received, socket: Socket) -> Outcome<()> {
        socket.close(None).await
    }
}

#[derive(Clone, Default)]
pub struct Sessions(Arc<Mutex<Facts>>);

#[derive(Default)]
struct Facts {
    devices: HashSet<DevicePublicKey>,
    running: HashSet<SessionId>,
    typed: Vec<Vec<u8>>,
    viewers: Vec<mpsc::UnboundedSender<Vec<u8>>>,
}

impl Sessions {
    pub fn is_enrolled(&self, device: &DevicePublicKey) -> bool {
        self.0.lock().unwrap().devices.contains(device)
    }

    pub fn is_running(&self, session: &SessionId) -> bool {
        self.0.lock().unwrap().running.contains(session)
    }

    pub fn may_use(&self, _: &DevicePublicKey, _: &SessionId) -> bool {
        true
    }

    pub fn find(&self, _: &SessionId) -> Outcome<Session> {
        Ok(Session(self.clone()))
    }

    fn print(&self, output: &[u8]) {
        self.0.lock().unwrap().viewers.retain(|viewer| viewer.send(output.to_vec()).is_ok());
    }

    fn typed(&self) -> usize {
        self.0.lock().unwrap().typed.len()
    }
}

pub struct Session(Sessions);

impl Session {
    pub fn queue_input(&self, typed: &[u8]) {
        self.0.0.lock().unwrap().typed.push(typed.to_vec());
    }

    pub fn output(&self) -> Output {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.0.lock().unwrap().viewers.push(sender);
        Output(receiver)
    }
}

pub struct Output(mpsc::UnboundedReceiver<Vec<u8>>);

impl Output {
    pub async fn next(&mut self) -> Vec<u8> {
        match self.0.recv().await {
            Some(bytes) => bytes,
            None => std::future::pending().await,
        }
    }
}

/// One end of a connection that carries whole messages.
pub struct Socket {
    to: mpsc::UnboundedSender<Vec<u8>>,
    from: mpsc::UnboundedReceiver<Vec<u8>>,
}

impl Socket {
    fn pair() -> (Self, Self) {
        let (to_agent, from_phone) = mpsc::unbounded_channel();
        let (to_phone, from_agent) = mpsc::unbounded_channel();
        (Self { to: to_agent, from: from_agent }, Self { to: to_phone, from: from_phone })
    }

    pub async fn send(&mut self, message: Vec<u8>) -> Outcome<()> {
        self.to.send(message).map_err(|_| "closed".into())
    }

    pub async fn receive(&mut self) -> Outcome<Vec<u8>> {
        self.from.recv().await.ok_or_else(|| "closed".into())
    }

    pub async fn close(self, last: Option<Vec<u8>>) -> Outcome<()> {
        last.map_or(Ok(()), |last| self.to.send(last).map_err(|_| "closed".into()))
    }
}

pub struct DeviceChannel {
    pub device: DevicePublicKey,
    pub handshake_hash: [u8; 32],
}

/// The functions of one version of the README's agent.
#[derive(Clone, Copy)]
pub struct Parts {
    pub open: fn(&AgentSecretKey, AgentUrl, Sessions, Now) -> Outcome<Gate>,
    pub settle: fn(Agent) -> Later<'static, Outcome<()>>,
    pub session_ended: for<'a> fn(&'a Agent, SessionId) -> Later<'a, Outcome<Revoked>>,
    pub devices_changed: for<'a> fn(&'a Agent, Vec<DevicePublicKey>) -> Later<'a, Outcome<Revoked>>,
    pub device_request: for<'a> fn(&'a Agent, &'a DeviceChannel, Request) -> Later<'a, Outcome<Answer>>,
    pub connection: fn(Agent, Socket) -> Later<'static, Outcome<()>>,
}

/// What happens ten seconds after the phone has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// Nothing: the phone goes on.
    None,
    /// The device that shared the session is struck off, and only the agent's list says so.
    DeviceGone,
    /// The same, and the agent tells its gate.
    DevicesChanged,
    /// The session ends, and only the agent's list says so.
    SessionGone,
    /// The same, and the agent tells its gate.
    SessionEnded,
    /// The desktop revokes.
    Revoked,
    /// The credential has run out.
    Expired,
    /// Nobody settles the gate from the beginning, and the device is struck off.
    NeverSettled,
}

pub const EVENTS: [Event; 8] = [
    Event::None,
    Event::DeviceGone,
    Event::DevicesChanged,
    Event::SessionGone,
    Event::SessionEnded,
    Event::Revoked,
    Event::Expired,
    Event::NeverSettled,
];

/// When the event happens, and when all has to be over: five seconds and one settling later.
const EVENT_AT: u64 = 31;
const OVER_AT: u64 = EVENT_AT + 6;
const END_AT: u64 = OVER_AT + 14;

/// What a phone saw and did.
#[derive(Debug, Default, PartialEq)]
pub struct Seen {
    /// Input that reached the session before and after all had to be over.
    pub typed: (usize, usize),
    /// Output that the phone read before and after.
    pub shown: (usize, usize),
    /// Pings that the agent has answered on the last connection.
    pub answered: usize,
    /// Whether the phone got in again after it.
    pub came_back: bool,
    /// Whether another phone got in with the first one's credential, or with no credential.
    pub stranger: bool,
}

impl Seen {
    /// Whether nothing passed that should not have.
    pub fn is_closed(&self, event: Event) -> bool {
        let over = self.typed.1 == 0 && self.shown.1 == 0 && !self.came_back;
        !self.stranger && (over || event == Event::None)
    }
}

/// The phone's end of a connection.
struct Phone {
    socket: Socket,
    channel: Channel,
    /// Pings that the agent has answered.
    answered: usize,
}

impl Phone {
    fn send(&mut self, data: &[u8]) {
        if let Ok(frame) = self.channel.seal(&Frame::Data(data).to_bytes()) {
            let _ = self.socket.to.send(frame);
        }
    }

    /// Sends a ping, and whether the agent has answered it is seen in what comes.
    fn ping(&mut self, number: u64) {
        let ping = Frame::<Vec<u8>>::Ping { answer: false, number };
        if let Ok(frame) = self.channel.seal(&ping.to_bytes()) {
            let _ = self.socket.to.send(frame);
        }
    }

    /// How much output has come.
    fn read(&mut self) -> usize {
        let mut shown = 0;
        while let Ok(frame) = self.socket.from.try_recv() {
            let plaintext = self.channel.open(&frame);
            match plaintext.map(|plaintext| Frame::from_bytes(&plaintext)) {
                Ok(Ok(Frame::Data(_))) => shown += 1,
                Ok(Ok(Frame::Ping { answer: true, .. })) => self.answered += 1,
                _ => {}
            }
        }
        shown
    }
}

struct World {
    parts: Parts,
    agent: Agent,
    connections: tokio::task::JoinSet<()>,
}

impl World {
    fn connect(&mut self, message: Vec<u8>) -> Socket {
        let (phone, agent) = Socket::pair();
        let serving = (self.parts.connection)(self.agent.clone(), agent);
        self.connections.spawn(async move { drop(serving.await) });
        let _ = phone.to.send(message);
        phone
    }

    /// What the agent answers within a second.
    async fn exchange(&mut self, message: Vec<u8>) -> Option<(Socket, Vec<u8>)> {
        let mut socket = self.connect(message);
        let answer = tokio::time::timeout(Duration::from_secs(1), socket.receive()).await;
        answer.ok()?.ok().map(|answer| (socket, answer))
    }

    async fn attach(&mut self, holder: &HolderSecretKey, credential: &CredentialBytes) -> Option<Phone> {
        let asking = attach(&self.agent.key.public(), holder, credential, OpSet::EMPTY, &mut OsRng).unwrap();
        let (socket, answer) = self.exchange(asking.message).await?;
        let attached = asking.next.finish(&answer).ok()?;
        Some(Phone { socket, channel: attached.channel, answered: 0 })
    }
}

/// Runs one scenario in simulated time.
pub fn run(parts: Parts, event: Event) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(scenario(parts, event))
}

async fn scenario(parts: Parts, event: Event) -> Seen {
    let sessions = Sessions::default();
    let device = DeviceSecretKey::generate(&mut OsRng).public();
    let session = SessionId::new("build-42").unwrap();
    sessions.0.lock().unwrap().devices.insert(device);
    sessions.0.lock().unwrap().running.insert(session.clone());
    let key = AgentSecretKey::generate(&mut OsRng);
    let url = AgentUrl::parse("wss://agent.example").unwrap();
    let clock = Clock { started: Instant::now(), asked: Arc::default() };
    let gate = (parts.open)(&key, url.clone(), sessions.clone(), clock.now()).unwrap();
    let agent = Agent { key: Arc::new(key), gate, sessions: sessions.clone(), clock };
    let mut world = World { parts, agent: agent.clone(), connections: tokio::task::JoinSet::new() };
    let settling = (parts.settle)(agent.clone());
    let settling = (event != Event::NeverSettled).then(|| tokio::spawn(settling));

    let desktop = DeviceChannel { device, handshake_hash: [7; 32] };
    let issuer = Issuer::new(IssuerSecretKey::generate(&mut OsRng), agent.key.public(), url);
    let registration = issuer.registration(&device, &desktop.handshake_hash);
    let _ = (parts.device_request)(&agent, &desktop, Request::RegisterIssuer { registration }).await;
    let terms = PairingTerms::default().with_valid_for(if event == Event::Expired { 30 } else { 600 }).unwrap();
    let pairing = issuer.pair(session.clone(), &terms, agent.now().timestamp(), &mut OsRng).unwrap();
    let offer = pairing.offer.clone();
    let _ = (parts.device_request)(&agent, &desktop, Request::Offer { offer }).await;

    let mut seen = Seen::default();
    let holder = HolderSecretKey::generate(&mut OsRng);
    let (mut phone, credential) = match join(&mut world, &pairing, &holder).await {
        Some((phone, credential)) => (Some(phone), Some(credential)),
        None => (None, None),
    };
    // What the protocol advises a phone that has nothing to say.
    if let Some(phone) = &mut phone {
        phone.ping(1);
    }
    let started = Instant::now();
    let mut typed_before = 0;
    for second in 0..END_AT {
        if second == EVENT_AT {
            happen(event, &world, &desktop, &session, &pairing).await;
        }
        if second == OVER_AT {
            typed_before = sessions.typed();
        }
        if second == OVER_AT + 1 {
            if let Some(credential) = &credential {
                seen.stranger |= world.attach(&HolderSecretKey::generate(&mut OsRng), credential).await.is_some();
                let again = world.attach(&holder, credential).await;
                seen.came_back = again.is_some();
                // Whatever was in flight on the first connection has been counted.
                phone = again.or(phone);
                if let Some(phone) = &mut phone {
                    phone.ping(2);
                }
            }
            let nonsense = CredentialBytes::new(vec![7; 300]).unwrap();
            seen.stranger |= world.attach(&HolderSecretKey::generate(&mut OsRng), &nonsense).await.is_some();
        }
        if let Some(phone) = &mut phone {
            phone.send(b"typed");
        }
        sessions.print(b"shown");
        tokio::time::sleep_until(started + Duration::from_secs(second + 1)).await;
        let shown = phone.as_mut().map_or(0, Phone::read);
        match second < OVER_AT {
            true => seen.shown.0 += shown,
            false => seen.shown.1 += shown,
        }
    }
    seen.answered = phone.map_or(0, |phone| phone.answered);
    seen.typed = (typed_before, sessions.typed() - typed_before);
    sleep(Duration::from_secs(1)).await;
    if let Some(settling) = settling {
        settling.abort();
    }
    seen
}

async fn join(
    world: &mut World,
    pairing: &Pairing,
    holder: &HolderSecretKey,
) -> Option<(Phone, CredentialBytes)> {
    let asking = redeem(&pairing.link, holder, Label::default(), &mut OsRng).unwrap();
    let (socket, answer) = world.exchange(asking.message).await?;
    match asking.next.finish(&answer).ok()? {
        Redeemed::Attached { credential, attached } => {
            Some((Phone { socket, channel: attached.channel, answered: 0 }, credential))
        }
        Redeemed::Waiting { .. } => None,
    }
}

async fn happen(event: Event, world: &World, desktop: &DeviceChannel, session: &SessionId, pairing: &Pairing) {
    let (parts, agent) = (world.parts, &world.agent);
    let facts = &agent.sessions.0;
    match event {
        Event::None | Event::Expired => {}
        Event::DeviceGone | Event::NeverSettled => facts.lock().unwrap().devices.clear(),
        Event::DevicesChanged => {
            facts.lock().unwrap().devices.clear();
            let _ = (parts.devices_changed)(agent, Vec::new()).await;
        }
        Event::SessionGone => facts.lock().unwrap().running.clear(),
        Event::SessionEnded => {
            facts.lock().unwrap().running.clear();
            let _ = (parts.session_ended)(agent, session.clone()).await;
        }
        Event::Revoked => {
            let request = Request::Revoke(Revoke::Credential(pairing.credential));
            let _ = (parts.device_request)(agent, desktop, request).await;
        }
    }
}
