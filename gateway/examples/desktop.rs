//! The desktop's part: registers its issuer key, shares one session, and revokes what it has shared.
//!
//! ```text
//! cargo run -p sessioncap-gateway --example desktop -- DIRECTORY        # prints the device's key, for the agent
//! cargo run -p sessioncap-gateway --example desktop -- DIRECTORY ws://127.0.0.1:7700 AGENT-KEY SESSION
//! ```
//!
//! The directory holds the device's and the issuer's key. They are made when they are missing.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use futures_util::{SinkExt, StreamExt};
use rand::RngCore;
use rand::rngs::OsRng;
use sessioncap::desktop::{Issuer, Pairing, PairingTerms};
use sessioncap::noise::{Channel, Initiator};
use sessioncap::pair::{Answer, Request, Revoke, Revoked};
use sessioncap::{
    AgentPublicKey, AgentUrl, DevicePublicKey, DeviceSecretKey, HolderSecretKey, IssuerSecretKey, Label,
    LinkHost, QrCode, SessionId, SystemClock, TerminalStyle,
};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The channel that the desktop has to its agent anyway.
pub struct Agent {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    channel: Channel,
    device: DevicePublicKey,
    handshake_hash: [u8; 32],
}

impl Agent {
    /// Connects as an enrolled device.
    pub async fn connect(url: &AgentUrl, agent: &AgentPublicKey, device: &DeviceSecretKey) -> Outcome<Self> {
        let (mut socket, _) = connect_async(url.to_string()).await?;
        let key = HolderSecretKey::from_bytes(*device.expose_bytes());
        let started = Initiator::start(&key, agent, &[], &mut OsRng)?;
        socket.send(Message::Binary(started.message.into())).await?;
        let finished = started.next.finish(&receive(&mut socket).await?)?;
        let (channel, handshake_hash) = (finished.channel, finished.handshake_hash);
        Ok(Self { socket, channel, device: device.public(), handshake_hash })
    }

    /// Sends one request, and reads its answer or the agent's refusal.
    pub async fn ask(&mut self, request: &Request) -> Outcome<Answer> {
        let frame = self.channel.seal(&serde_json::to_vec(request)?)?;
        self.socket.send(Message::Binary(frame.into())).await?;
        let answer = self.channel.open(&receive(&mut self.socket).await?)?;
        serde_json::from_slice(&answer).map_err(|_| String::from_utf8_lossy(&answer).into())
    }
}

async fn receive(socket: &mut WebSocketStream<MaybeTlsStream<TcpStream>>) -> Outcome<Vec<u8>> {
    loop {
        match socket.next().await.ok_or("the agent has closed the connection")?? {
            Message::Binary(message) => return Ok(message.into()),
            Message::Close(_) => return Err("the agent has closed the connection".into()),
            _ => {}
        }
    }
}

/// Shares one session with one phone. Show the link of the pairing, and keep its ids for a revocation.
pub async fn share(agent: &mut Agent, issuer: &Issuer, session: SessionId, phone: Label) -> Outcome<Pairing> {
    let registration = issuer.registration(&agent.device, &agent.handshake_hash);
    agent.ask(&Request::RegisterIssuer { registration }).await?;
    let terms = PairingTerms::default().with_label(phone);
    let now = SystemClock::new()?.now().timestamp();
    let pairing = issuer.pair(session, &terms, now, &mut OsRng)?;
    match agent.ask(&Request::Offer { offer: pairing.offer.clone() }).await? {
        Answer::Offered { .. } => Ok(pairing),
        _ => Err("the agent answered another request".into()),
    }
}

/// Takes it back. When this returns, the phone's streams are cut.
pub async fn revoke(agent: &mut Agent, pairing: &Pairing) -> Outcome<Revoked> {
    match agent.ask(&Request::Revoke(Revoke::Ticket(pairing.ticket))).await? {
        Answer::Revoked(revoked) => Ok(revoked),
        _ => Err("the agent answered another request".into()),
    }
}

/// A key of the desktop, made once, in a file that only its owner can read.
pub fn key(file: &Path) -> Outcome<[u8; 32]> {
    if file.exists() {
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            return Err(format!("others can read {}: run chmod 600 on it", file.display()).into());
        }
        return Ok(std::fs::read(file)?.as_slice().try_into()?);
    }
    let mut key = [0; 32];
    OsRng.fill_bytes(&mut key);
    let mut created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    created.set_permissions(Permissions::from_mode(0o600))?;
    created.write_all(&key)?;
    created.sync_all()?;
    Ok(key)
}

#[allow(dead_code, reason = "a test calls the functions above")]
#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (directory, shared) = match arguments.as_slice() {
        [directory] => (Path::new(directory), None),
        [directory, url, agent, session] => (Path::new(directory), Some((url, agent, session))),
        _ => return Err("desktop DIRECTORY [ADDRESS AGENT-KEY SESSION]".into()),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let device = DeviceSecretKey::from_bytes(key(&directory.join("device.key"))?);
    let Some((url, agent, session)) = shared else {
        println!("{}", device.public());
        return Ok(());
    };
    let (url, agent) = (AgentUrl::parse(url)?, agent.parse::<AgentPublicKey>()?);
    let issuer = IssuerSecretKey::from_bytes(key(&directory.join("issuer.key"))?);
    let issuer = Issuer::new(issuer, agent, url.clone());
    let mut channel = Agent::connect(&url, &agent, &device).await?;
    let pairing = share(&mut channel, &issuer, SessionId::new(session)?, Label::new("a phone")?).await?;
    println!("{}", QrCode::new(&pairing.link, &LinkHost::Agent)?.to_terminal(TerminalStyle::HalfBlocks));
    println!("{}", pairing.link.to_https(&LinkHost::Agent)?);
    Ok(())
}
