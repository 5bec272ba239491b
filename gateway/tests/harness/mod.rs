//! A gateway with a service behind it, a desktop and phones that reach it over real sockets.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, dead_code, reason = "tests")]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use futures_util::{SinkExt, StreamExt};
use rand::rngs::OsRng;
use serde_json::{Value, json};
use sessioncap::desktop::{Issuer, Pairing, PairingTerms};
use sessioncap::noise::{Channel, Initiator};
use sessioncap::pair::{Answer, Request, Revoke};
use sessioncap::phone::{PhoneError, Redeemed, attach, redeem};
use sessioncap::{
    AgentPublicKey, AgentSecretKey, AgentUrl, CredentialBytes, DeviceSecretKey, EndCode, Frame,
    HolderSecretKey, IssuerSecretKey, Label, Notice, OpSet, SessionId, SystemClock,
};
use sessioncap_gateway::backend::Backend;
use sessioncap_gateway::before::Trust;
use sessioncap_gateway::service::Service;
use sessioncap_gateway::{Failure, Outcome};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, RwLock};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// What a version of the gateway offers: key, devices, service, address and the ledger's file.
pub type Start = fn([u8; 32], Trust, Backend, &str, PathBuf) -> Outcome<Router>;

/// The one session, a program that repeats what is typed.
pub const SESSION: &str = "build-42";
/// How long anything may take that should happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something that should happen.
const PAUSE: Duration = Duration::from_millis(100);

pub struct World {
    pub service: Service,
    pub backend: Backend,
    pub trust: Trust,
    pub device: DeviceSecretKey,
    pub agent: AgentPublicKey,
    pub issuer: Issuer,
    pub url: AgentUrl,
    address: SocketAddr,
    serving: tokio::task::JoinHandle<()>,
    pub directory: PathBuf,
}

impl Drop for World {
    fn drop(&mut self) {
        self.serving.abort();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

pub fn now() -> sessioncap::Timestamp {
    SystemClock::new().unwrap().now().timestamp()
}

impl World {
    pub async fn start(start: Start) -> Outcome<Self> {
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("sessioncap-gateway-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let (http, bytes) =
            (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
        let backend = Backend { http: http.local_addr()?, bytes: bytes.local_addr()? };
        let service = Service::default();
        service.create(SESSION, "cat").await?;
        tokio::spawn(service.clone().run(http, bytes));
        let (key, device) = (AgentSecretKey::generate(&mut OsRng), DeviceSecretKey::generate(&mut OsRng));
        let trust = Arc::new(RwLock::new(HashSet::from([*device.public().as_bytes()])));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let url = AgentUrl::parse(&format!("ws://{address}"))?;
        let issuer = Issuer::new(IssuerSecretKey::generate(&mut OsRng), key.public(), url.clone());
        let router = start(
            *key.expose_bytes(),
            Arc::clone(&trust),
            backend,
            &format!("ws://{address}"),
            directory.join("ledger"),
        )?;
        let serving = tokio::spawn(async move { drop(axum::serve(listener, router).await) });
        Ok(Self {
            service,
            backend,
            trust,
            device,
            agent: key.public(),
            issuer,
            url,
            address,
            serving,
            directory,
        })
    }

    pub async fn connect(&self) -> Outcome<Socket> {
        let url = format!("ws://{}/noise/ws", self.address);
        Ok(Socket(timeout(PATIENCE, connect_async(url)).await??.0))
    }

    pub async fn desktop(&self) -> Outcome<Desktop> {
        let key = HolderSecretKey::from_bytes(*self.device.expose_bytes());
        let started = Initiator::start(&key, &self.agent, &[], &mut OsRng)?;
        let mut socket = self.connect().await?;
        let finished = started.next.finish(&socket.exchange(started.message).await?)?;
        Ok(Desktop { socket, channel: finished.channel, hash: finished.handshake_hash })
    }

    /// Shares the session. The gateway hears of session and device within a second, so the desktop asks again.
    pub async fn share(&self, terms: &PairingTerms) -> Outcome<Pairing> {
        let began = Instant::now();
        loop {
            let shared = self.share_now(terms).await;
            if shared.is_ok() || began.elapsed() > Duration::from_secs(20) {
                return shared;
            }
            sleep(PAUSE).await;
        }
    }

    async fn share_now(&self, terms: &PairingTerms) -> Outcome<Pairing> {
        let mut desktop = self.desktop().await?;
        let registration = self.issuer.registration(&self.device.public(), &desktop.hash);
        desktop.pair(&Request::RegisterIssuer { registration }).await?;
        let pairing = self.issuer.pair(SessionId::new(SESSION)?, terms, now(), &mut OsRng)?;
        desktop.pair(&Request::Offer { offer: pairing.offer.clone() }).await?;
        Ok(pairing)
    }

    pub async fn redeem(&self, pairing: &Pairing) -> Outcome<(Phone, HolderSecretKey, CredentialBytes)> {
        let holder = HolderSecretKey::generate(&mut OsRng);
        let asking = redeem(&pairing.link, &holder, Label::new("a phone")?, &mut OsRng)?;
        let mut socket = self.connect().await?;
        let answer = socket.exchange(asking.message).await?;
        match asking.next.finish(&answer)? {
            Redeemed::Attached { credential, attached } => {
                Ok((Phone { socket, channel: attached.channel }, holder, credential))
            }
            Redeemed::Waiting { .. } => Err("nobody asked for a confirmation".into()),
        }
    }

    /// A connection with a stored credential.
    pub async fn attach(&self, holder: &HolderSecretKey, credential: &CredentialBytes) -> Outcome<Phone> {
        let asking = attach(&self.agent, holder, credential, OpSet::EMPTY, &mut OsRng)?;
        let mut socket = self.connect().await?;
        let answer = socket.exchange(asking.message).await?;
        let attached = asking.next.finish(&answer)?;
        Ok(Phone { socket, channel: attached.channel })
    }

    /// What the session puts out, seen at the service itself.
    pub async fn watch(&self) -> Outcome<Arc<Mutex<Vec<u8>>>> {
        let (mut output, input) = self.backend.attach(SESSION).await?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let keeps = Arc::clone(&seen);
        tokio::spawn(async move {
            let (_input, mut bytes) = (input, vec![0; 4096]);
            while let Ok(length @ 1..) = output.read(&mut bytes).await {
                keeps.lock().await.extend_from_slice(&bytes[..length]);
            }
        });
        Ok(seen)
    }
}

/// The client's end of a WebSocket.
pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    pub async fn send(&mut self, message: Vec<u8>) -> Outcome<()> {
        Ok(timeout(PATIENCE, self.0.send(Message::Binary(message.into()))).await??)
    }

    pub async fn receive(&mut self) -> Outcome<Vec<u8>> {
        loop {
            match timeout(PATIENCE, self.0.next()).await?.ok_or("closed")?? {
                Message::Binary(message) => return Ok(message.into()),
                Message::Close(_) => return Err("closed".into()),
                _ => {}
            }
        }
    }

    pub async fn exchange(&mut self, message: Vec<u8>) -> Outcome<Vec<u8>> {
        self.send(message).await?;
        self.receive().await
    }
}

/// An enrolled device.
pub struct Desktop {
    socket: Socket,
    channel: Channel,
    hash: [u8; 32],
}

impl Desktop {
    pub async fn ask(&mut self, request: &[u8]) -> Outcome<Vec<u8>> {
        let frame = self.channel.seal(request)?;
        Ok(self.channel.open(&self.socket.exchange(frame).await?)?)
    }

    pub async fn ask_json(&mut self, request: &Value) -> Outcome<Value> {
        Ok(serde_json::from_slice(&self.ask(request.to_string().as_bytes()).await?)?)
    }

    pub async fn pair(&mut self, request: &Request) -> Outcome<Answer> {
        let answer = self.ask(&serde_json::to_vec(request)?).await?;
        serde_json::from_slice(&answer).map_err(|_| Failure::from(String::from_utf8_lossy(&answer)))
    }
}

/// A phone that is attached.
pub struct Phone {
    socket: Socket,
    channel: Channel,
}

impl Phone {
    pub async fn send(&mut self, frame: &Frame<&[u8]>) -> Outcome<()> {
        let frame = self.channel.seal(&frame.to_bytes())?;
        self.socket.send(frame).await
    }

    pub async fn type_in(&mut self, text: &str) -> Outcome<()> {
        self.send(&Frame::Data(text.as_bytes())).await
    }

    pub async fn next(&mut self) -> Outcome<Frame<Vec<u8>>> {
        let opened = self.channel.open(&self.socket.receive().await?)?;
        Ok(Frame::from_bytes(&opened)?)
    }

    /// Reads output until it holds `text`.
    pub async fn shows(&mut self, text: &str) -> Outcome<()> {
        let mut shown = String::new();
        while !shown.contains(text) {
            if let Frame::Data(bytes) = self.next().await? {
                shown.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
        Ok(())
    }

    pub async fn notice(&mut self) -> Outcome<Notice> {
        loop {
            if let Frame::Notice(notice) = self.next().await? {
                return Ok(notice);
            }
        }
    }

    pub async fn end(&mut self) -> Outcome<EndCode> {
        loop {
            if let Frame::End(code) = self.next().await? {
                return Ok(code);
            }
        }
    }
}

/// What happens while a phone is attached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    Nothing,
    Revoked,
    DeviceGone,
    SessionGone,
}

pub const EVENTS: [Event; 4] = [Event::Nothing, Event::Revoked, Event::DeviceGone, Event::SessionGone];

/// What a phone could do.
#[derive(Debug, Default, PartialEq)]
pub struct Seen {
    /// It followed and typed.
    pub came_in: bool,
    /// Another phone with its credential, a phone with no credential of this agent, or a device that is not enrolled
    /// got an answer that lets it in.
    pub stranger: bool,
    /// It could still type into the session, or come back, long after the event.
    pub stayed: bool,
}

impl Seen {
    pub fn is_closed(&self) -> bool {
        !self.stranger && !self.stayed
    }
}

/// Runs a version of the gateway through one event.
pub async fn run(start: Start, event: Event) -> Seen {
    let mut seen = Seen::default();
    let Ok(world) = World::start(start).await else { return seen };
    let Ok(pairing) = world.share(&PairingTerms::default()).await else { return seen };
    let Ok(Ok((mut phone, holder, credential))) =
        timeout(Duration::from_secs(20), world.redeem(&pairing)).await
    else {
        return seen;
    };
    let works = async {
        phone.type_in("hello\n").await?;
        phone.shows("hello\n").await
    };
    seen.came_in = matches!(timeout(Duration::from_secs(20), works).await, Ok(Ok(())));
    seen.stranger = stranger(&world, &credential).await;
    match event {
        Event::Nothing => return seen,
        Event::Revoked => {
            let revoke = Request::Revoke(Revoke::Credential(pairing.credential));
            let mut desktop = world.desktop().await.unwrap();
            if desktop.pair(&revoke).await.is_err() {
                // Nothing was revoked, and the desktop was told.
                return seen;
            }
        }
        Event::DeviceGone => world.trust.write().await.clear(),
        Event::SessionGone => {
            world.backend.close(SESSION).await.unwrap();
            // Until the phone is told that it is over, or refused as long as the gateway does not know.
            let began = Instant::now();
            while began.elapsed() < PATIENCE && can_attach(&world, &holder, &credential).await {
                sleep(PAUSE).await;
            }
            world.service.create(SESSION, "cat").await.unwrap();
        }
    }
    seen.stayed = stays(&world, &mut phone, &holder, &credential).await;
    seen
}

async fn can_attach(world: &World, holder: &HolderSecretKey, credential: &CredentialBytes) -> bool {
    matches!(timeout(Duration::from_secs(5), world.attach(holder, credential)).await, Ok(Ok(_)))
}

/// Whether anybody else gets in.
async fn stranger(world: &World, credential: &CredentialBytes) -> bool {
    let other = HolderSecretKey::generate(&mut OsRng);
    let nonsense = CredentialBytes::new(vec![7; 300]).unwrap();
    let unknown = async {
        let started = Initiator::start(&other, &world.agent, &[], &mut OsRng)?;
        let mut socket = world.connect().await?;
        let finished = started.next.finish(&socket.exchange(started.message).await?)?;
        let mut desktop = Desktop { socket, channel: finished.channel, hash: finished.handshake_hash };
        desktop.ask_json(&json!({ "method": "shell.list_sessions" })).await
    };
    let unknown = matches!(timeout(Duration::from_secs(5), unknown).await, Ok(Ok(_)));
    unknown || can_attach(world, &other, credential).await || can_attach(world, &other, &nonsense).await
}

/// Whether what the phone types still reaches the session, on the old connection or a new one, after a long time.
async fn stays(
    world: &World,
    phone: &mut Phone,
    holder: &HolderSecretKey,
    credential: &CredentialBytes,
) -> bool {
    let output = world.watch().await.unwrap();
    let began = Instant::now();
    let (mut number, mut quiet) = (0, 0);
    while began.elapsed() < PATIENCE {
        number += 1;
        let text = format!("after-{number}\n");
        // Frames wait in a gateway that does not settle, so one that is lost says nothing; several in a row do.
        let _ = phone.type_in(&text).await;
        if let Ok(Ok(mut again)) = timeout(Duration::from_secs(2), world.attach(holder, credential)).await {
            let _ = again.type_in(&text).await;
            sleep(PAUSE * 3).await;
        }
        sleep(PAUSE * 3).await;
        quiet = if String::from_utf8_lossy(&output.lock().await).contains(&text) { 0 } else { quiet + 1 };
        if quiet == 8 {
            return false;
        }
    }
    true
}

/// Why a phone was not let in.
pub fn refusal(failure: &Failure) -> Option<sessioncap::Status> {
    match failure.downcast_ref::<PhoneError>() {
        Some(PhoneError::Refused(status)) => Some(*status),
        _ => None,
    }
}
