//! One agent with its gate over a memory ledger, one desktop, and as many phones as asked for. The
//! quotas are raised; everything else is as an agent would run it.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::rngs::OsRng;
use sessioncap::agent::ledger::{Ledger, MemoryLedger};
use sessioncap::agent::{
    AgentContext, Gate, GateConfig, Guard, Peer, PeerAdmission, PendingGuard, Presence, Quotas,
};
use sessioncap::desktop::{Issuer, Pairing, PairingTerms};
use sessioncap::noise::{Received, Replied, Responder};
use sessioncap::phone::Redeemed;
use sessioncap::{
    AgentSecretKey, AgentUrl, CredentialBytes, DevicePublicKey, DeviceSecretKey, HolderSecretKey,
    IssuerSecretKey, Label, Now, OfferReceipt, OpSet, SessionId,
};
use time::{Duration, OffsetDateTime};

/// 29 bytes of host, the length for which the budget is set.
pub const URL: &str = "wss://agent-4f2a9.fleet.example.org";

/// Credentials of one session, the default quota.
const PER_SESSION: usize = 8;

/// Everybody is enrolled and every session runs: what an agent looks up there is its own cost.
struct Context;

impl AgentContext for Context {
    fn device(&self, _: &DevicePublicKey) -> Presence {
        Presence::Present
    }
    fn session(&self, _: &SessionId) -> Presence {
        Presence::Present
    }
    fn may_share(&self, _: &DevicePublicKey, _: &SessionId) -> bool {
        true
    }
}

pub struct World {
    pub agent: AgentSecretKey,
    pub url: AgentUrl,
    pub issuer_key: IssuerSecretKey,
    pub issuer: Issuer,
    pub gate: Gate,
    pub now: Now,
    device: DevicePublicKey,
    per_session: usize,
    paired: AtomicUsize,
}

/// A folder of this run, removed at its end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sessioncap-versus-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A phone that was admitted once.
#[derive(Clone)]
pub struct Phone {
    pub key: HolderSecretKey,
    pub session: SessionId,
    pub credential: CredentialBytes,
}

impl World {
    pub fn new() -> Self {
        Self::on(MemoryLedger::new(), PER_SESSION)
    }

    /// Over a ledger, with so many credentials to a session.
    pub fn on(ledger: impl Ledger + 'static, per_session: usize) -> Self {
        let agent = AgentSecretKey::from_bytes([1; 32]);
        let url = AgentUrl::parse(URL).unwrap();
        let issuer_key = IssuerSecretKey::generate(&mut OsRng);
        let issuer = Issuer::new(issuer_key.clone(), agent.public(), url.clone());
        let device = DeviceSecretKey::generate(&mut OsRng).public();
        let now = now();
        let gate = gate(ledger);
        let registration = issuer.registration(&device, &[7; 32]);
        gate.register_issuer(&device, &[7; 32], &registration, now).unwrap();
        Self { agent, url, issuer_key, issuer, gate, now, device, per_session, paired: AtomicUsize::new(0) }
    }

    /// A session id as the consumers have them: a UUID, as many credentials to each as was said.
    pub fn next_session(&self) -> SessionId {
        let number = self.paired.fetch_add(1, Ordering::Relaxed) / self.per_session;
        SessionId::new(format!("{number:08x}-5f0b-4a53-9a58-0d6f3c1c9e55")).unwrap()
    }

    pub fn pair(&self, session: SessionId) -> Pairing {
        self.issuer.pair(session, &PairingTerms::default(), self.now.timestamp(), &mut OsRng).unwrap()
    }

    /// An open ticket for the next session.
    pub fn share(&self) -> Pairing {
        let pairing = self.pair(self.next_session());
        self.gate.offer(&self.device, &pairing.offer, self.now).unwrap();
        pairing
    }

    /// Message 1 of a fresh phone with a fresh ticket.
    pub fn fresh_redemption(&self) -> Vec<u8> {
        let pairing = self.share();
        let key = HolderSecretKey::generate(&mut OsRng);
        sessioncap::phone::redeem(&pairing.link, &key, phone_label(), &mut OsRng).unwrap().message
    }

    /// Message 1 of a phone that attaches again.
    pub fn fresh_attach(&self, phone: &Phone) -> Vec<u8> {
        let (agent, credential) = (self.agent.public(), &phone.credential);
        sessioncap::phone::attach(&agent, &phone.key, credential, OpSet::EMPTY, &mut OsRng).unwrap().message
    }

    /// What the agent does with message 1: read it, decide, write message 2.
    pub fn respond(&self, message: &[u8]) -> (Replied, PendingGuard) {
        let received = Responder::read(&self.agent, message, &mut OsRng).unwrap();
        let (reply, guard) = self.admit(&received);
        (received.reply(&reply).unwrap(), guard)
    }

    /// The same, and the first frame.
    pub fn respond_and_activate(&self, message: &[u8]) -> (Replied, Guard) {
        let (replied, guard) = self.respond(message);
        (replied, guard.activate_after_first_frame(self.now).unwrap())
    }

    pub fn offer(&self, pairing: &Pairing) -> OfferReceipt {
        self.gate.offer(&self.device, &pairing.offer, self.now).unwrap()
    }

    pub fn admit(&self, received: &Received) -> (Vec<u8>, PendingGuard) {
        let peer = Peer::new(received.peer().as_bytes(), received.payload(), received.handshake_hash());
        match self.gate.admit_peer(peer, self.now, &mut OsRng) {
            PeerAdmission::Admitted { reply, guard } => (reply, guard),
            other => panic!("{other:?}"),
        }
    }

    pub fn phone(&self) -> Phone {
        let session = self.next_session();
        let pairing = self.pair(session.clone());
        self.gate.offer(&self.device, &pairing.offer, self.now).unwrap();
        let key = HolderSecretKey::generate(&mut OsRng);
        let asking = sessioncap::phone::redeem(&pairing.link, &key, phone_label(), &mut OsRng).unwrap();
        let (replied, guard) = self.respond(&asking.message);
        guard.activate_after_first_frame(self.now).unwrap();
        match asking.next.finish(&replied.message).unwrap() {
            Redeemed::Attached { credential, .. } => Phone { key, session, credential },
            Redeemed::Waiting { .. } => panic!("no confirmation was asked for"),
        }
    }

    /// Redeems `count` tickets, on two threads. Each phone is real: minted, offered, proven, bound.
    pub fn populate(&self, count: usize) {
        self.in_two_threads(count, || {
            drop(self.redeem_one());
        });
    }

    /// As [`World::populate`], on this thread.
    pub fn populate_here(&self, count: usize) {
        for _ in 0..count {
            drop(self.redeem_one());
        }
    }

    /// As [`World::populate`], with every phone connected.
    pub fn populate_connected(&self, count: usize) -> Vec<Guard> {
        self.in_two_threads(count, || self.redeem_one().activate_after_first_frame(self.now).unwrap())
    }

    pub fn redeem_one(&self) -> PendingGuard {
        let received = Responder::read(&self.agent, &self.fresh_redemption(), &mut OsRng).unwrap();
        self.admit(&received).1
    }

    fn in_two_threads<T: Send>(&self, count: usize, one: impl Fn() -> T + Sync) -> Vec<T> {
        let run = |count: usize| (0..count).map(|_| one()).collect::<Vec<_>>();
        std::thread::scope(|scope| {
            let half = scope.spawn(|| run(count / 2));
            let mut all = run(count - count / 2);
            all.extend(half.join().unwrap());
            all
        })
    }
}

/// The time at which everything happens.
pub fn now() -> Now {
    let wall = OffsetDateTime::from_unix_timestamp(1_780_000_000).unwrap();
    Now::new(wall, Duration::seconds(1_000))
}

/// The agent's gate over a ledger: a new one, or one that a gate of this agent has kept before.
pub fn gate(ledger: impl Ledger + 'static) -> Gate {
    let quotas = Quotas::default()
        .with_tickets_per_session(u32::MAX)
        .with_credentials_per_session(u32::MAX)
        .with_tickets_per_agent(u32::MAX)
        .with_credentials_per_agent(u32::MAX)
        .with_connections_per_credential(u32::MAX);
    let agent = AgentSecretKey::from_bytes([1; 32]).public();
    let config = GateConfig::new(agent, [AgentUrl::parse(URL).unwrap()]).unwrap().with_quotas(quotas);
    Gate::open(config, ledger, Context, now()).unwrap()
}

fn phone_label() -> Label {
    Label::new("my phone").unwrap()
}
