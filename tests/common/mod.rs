//! A small world: one agent with its gate, sessions that come and go, desktops, phones, and a clock
//! that moves only when told.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "each test file uses a part of it")]

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use rand::rngs::OsRng;
use sessioncap::ledger::{Ledger, MemoryLedger};
use sessioncap::noise::{Channel, Replying, Responder};
use sessioncap::{
    Admission, AgentContext, AgentSecretKey, AgentUrl, Asking, Attached, AuditEvent, AuditRecord,
    CredentialBytes, Denial, DevicePublicKey, DeviceSecretKey, Error, Gate, GateConfig, Guard,
    HolderSecretKey, Issuer, IssuerSecretKey, Label, Link, Now, OpSet, Pairing, PairingTerms, PendingGuard,
    Redeemed, SessionId,
};
use time::{Duration, OffsetDateTime};

pub const URL: &str = "wss://agent.example";
pub const SESSION: &str = "3f0c8f0e-5f0b-4a53-9a58-0d6f3c1c9e55";

#[derive(Default)]
pub struct Facts {
    pub devices: HashSet<DevicePublicKey>,
    pub sessions: HashSet<SessionId>,
    pub private: HashSet<SessionId>,
}

#[derive(Clone, Default)]
pub struct Context(pub Arc<Mutex<Facts>>);

impl AgentContext for Context {
    fn is_enrolled(&self, device: &DevicePublicKey) -> bool {
        self.0.lock().unwrap().devices.contains(device)
    }
    fn session_is_live(&self, session: &SessionId) -> bool {
        self.0.lock().unwrap().sessions.contains(session)
    }
    fn may_share(&self, _: &DevicePublicKey, session: &SessionId) -> bool {
        !self.0.lock().unwrap().private.contains(session)
    }
}

pub fn session(id: &str) -> SessionId {
    SessionId::new(id).unwrap()
}

/// The agent and its surroundings.
pub struct World {
    pub agent: AgentSecretKey,
    pub gate: Gate,
    pub context: Context,
    pub audit: Arc<Mutex<Vec<AuditRecord>>>,
    pub now: Now,
}

impl World {
    pub fn new() -> Self {
        Self::with(MemoryLedger::new(), |config| config)
    }

    pub fn with(ledger: impl Ledger + 'static, configure: impl FnOnce(GateConfig) -> GateConfig) -> Self {
        let agent = AgentSecretKey::from_bytes([1; 32]);
        let context = Context::default();
        context.0.lock().unwrap().sessions.insert(session(SESSION));
        let audit = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&audit);
        let config = GateConfig::new(agent.public(), [AgentUrl::parse(URL).unwrap()]).unwrap();
        let config = configure(config.with_audit(move |record| sink.lock().unwrap().push(record)));
        let gate = Gate::open(config, ledger, context.clone());
        let now =
            Now::new(OffsetDateTime::from_unix_timestamp(1_780_000_000).unwrap(), Duration::seconds(1_000));
        Self { agent, gate, context, audit, now }
    }

    pub fn pass(&mut self, seconds: i64) {
        self.now = self.now.plus(Duration::seconds(seconds));
    }

    /// An enrolled desktop whose issuer key is registered.
    pub fn desktop(&self, seed: u8) -> Desktop {
        let desktop = Desktop::new(self, seed);
        self.context.0.lock().unwrap().devices.insert(desktop.device);
        let registration = desktop.issuer.registration(&desktop.device, &[7; 32]);
        self.gate.register_issuer(&desktop.device, &[7; 32], &registration, self.now).unwrap();
        desktop
    }

    /// What the agent does with message 1, up to message 2.
    pub fn respond(&self, message: &[u8]) -> Response {
        let received = match Responder::read(&self.agent, message, &mut OsRng) {
            Ok(received) => received,
            Err(_) => return Response::Closed(None),
        };
        match self.gate.admit(received.peer.as_bytes(), &received.payload, self.now, &mut OsRng) {
            Admission::Device => Response::Device,
            Admission::Admitted(admitted) => {
                let replied = received.next.reply(&admitted.reply).unwrap();
                Response::Admitted(replied.message, replied.channel, admitted.guard)
            }
            Admission::Refused(refused) => match refused.reply {
                Some(reply) => {
                    Response::Refused(received.next.reply(&reply).unwrap().message, refused.denial)
                }
                None => {
                    close(received.next);
                    Response::Closed(Some(refused.denial))
                }
            },
        }
    }

    /// Redeems and sends the first frame.
    pub fn join(&self, link: &Link, phone: &HolderSecretKey) -> Result<Joined, Refusal> {
        let asking = sessioncap::redeem(link, phone, Label::new("phone").unwrap(), &mut OsRng).unwrap();
        let Asking { message, next } = asking;
        match self.respond(&message) {
            Response::Admitted(message, channel, guard) => match next.finish(&message).unwrap() {
                Redeemed::Attached { credential, attached } => {
                    Ok(Joined { guard: self.first_frame(attached, channel, guard)?, credential })
                }
                Redeemed::Waiting { .. } => panic!("admitted, and told to wait"),
            },
            Response::Refused(message, denial) => match next.finish(&message) {
                Ok(Redeemed::Waiting { code, .. }) => {
                    Err(Refusal { denial, told: None, code: Some(code.to_string()) })
                }
                Err(error) => Err(Refusal { denial, told: Some(error), code: None }),
                Ok(Redeemed::Attached { .. }) => panic!("refused, and told to go on"),
            },
            Response::Closed(denial) => {
                Err(Refusal { denial: denial.unwrap_or(Denial::PayloadMalformed), told: None, code: None })
            }
            Response::Device => panic!("taken for a device"),
        }
    }

    pub fn attach(
        &self,
        phone: &HolderSecretKey,
        credential: &CredentialBytes,
        ops: OpSet,
    ) -> Result<Guard, Refusal> {
        let asking = sessioncap::attach(&self.agent.public(), phone, credential, ops, &mut OsRng).unwrap();
        match self.respond(&asking.message) {
            Response::Admitted(message, channel, guard) => {
                let attached = asking.next.finish(&message).unwrap();
                assert_eq!(attached.session, session(SESSION));
                self.first_frame(attached, channel, guard)
            }
            Response::Refused(message, denial) => {
                Err(Refusal { denial, told: asking.next.finish(&message).err(), code: None })
            }
            Response::Closed(denial) => {
                Err(Refusal { denial: denial.unwrap_or(Denial::PayloadMalformed), told: None, code: None })
            }
            Response::Device => panic!("taken for a device"),
        }
    }

    fn first_frame(
        &self,
        mut attached: Attached,
        mut channel: Channel,
        guard: PendingGuard,
    ) -> Result<Guard, Refusal> {
        let frame = attached.channel.seal(b"hello").unwrap();
        assert_eq!(channel.open(&frame).unwrap(), b"hello");
        guard.activate(self.now).map_err(|denial| Refusal { denial, told: None, code: None })
    }

    pub fn events(&self) -> Vec<AuditEvent> {
        self.audit.lock().unwrap().iter().map(|record| record.event.clone()).collect()
    }
}

fn close(next: Replying) {
    drop(next);
}

pub enum Response {
    Device,
    Admitted(Vec<u8>, Channel, PendingGuard),
    Refused(Vec<u8>, Denial),
    /// Closed as for any stranger.
    Closed(Option<Denial>),
}

#[derive(Debug)]
pub struct Joined {
    pub guard: Guard,
    pub credential: CredentialBytes,
}

/// What the agent knows, and what the phone was told.
#[derive(Debug, PartialEq)]
pub struct Refusal {
    pub denial: Denial,
    pub told: Option<Error>,
    pub code: Option<String>,
}

pub struct Desktop {
    pub device: DevicePublicKey,
    pub issuer: Issuer,
}

impl Desktop {
    pub fn new(world: &World, seed: u8) -> Self {
        let issuer = IssuerSecretKey::from_bytes([seed ^ 0x55; 32]);
        Self {
            device: DeviceSecretKey::from_bytes([seed; 32]).public(),
            issuer: Issuer::new(issuer, world.agent.public(), AgentUrl::parse(URL).unwrap()),
        }
    }

    pub fn mint(&self, world: &World, terms: &PairingTerms) -> Pairing {
        self.issuer.pair(session(SESSION), terms, world.now.timestamp(), &mut OsRng).unwrap()
    }

    /// Mints and lodges the offer.
    pub fn share(&self, world: &World, terms: &PairingTerms) -> Pairing {
        let pairing = self.mint(world, terms);
        let receipt = world.gate.offer(&self.device, &pairing.offer, world.now).unwrap();
        assert_eq!(receipt.ticket, pairing.ticket);
        pairing
    }
}

pub fn phone(seed: u8) -> HolderSecretKey {
    HolderSecretKey::from_bytes([seed; 32])
}
