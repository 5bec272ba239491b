//! The phone's part: redeems a link, keeps what it needs, follows the session and types.
//!
//! ```text
//! cargo run -p sessioncap-gateway --example phone -- DIRECTORY        # the link in the first line of standard input
//! ```

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rand::rngs::OsRng;
use sessioncap::noise::Channel;
use sessioncap::phone::{Attached, PhoneError, Redeemed, attach, redeem};
use sessioncap::{
    AgentUrl, Assembler, CredentialBytes, EndCode, Frame, HolderSecretKey, Label, Link, Notice, OpSet,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What the phone keeps, in the place of a keychain: files that only their owner can read.
pub struct Kept(pub PathBuf);

impl Kept {
    fn put(&self, name: &str, bytes: &[u8]) -> Outcome<()> {
        let file = self.0.join(name);
        let mut created =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
        created.write_all(bytes)?;
        Ok(created.sync_all()?)
    }

    fn get(&self, name: &str) -> Outcome<Vec<u8>> {
        Ok(std::fs::read(self.0.join(name))?)
    }
}

/// A live connection.
pub struct Live {
    socket: Socket,
    channel: Channel,
    assembler: Assembler,
}

/// Redeems a link. The key and the link are kept before anything is sent, and the credential before the first frame:
/// whatever is lost on the way, the same key may ask again.
pub async fn join(link: &Link, kept: &Kept) -> Outcome<Live> {
    let holder = HolderSecretKey::generate(&mut OsRng);
    kept.put("holder.key", holder.expose_bytes())?;
    kept.put("agent.key", link.agent().as_bytes())?;
    kept.put("address", link.url().to_string().as_bytes())?;
    loop {
        let asking = redeem(link, &holder, Label::new("a phone")?, &mut OsRng)?;
        let (mut socket, answer) = exchange(link.url(), asking.message).await?;
        match asking.next.finish(&answer)? {
            Redeemed::Attached { credential, attached } => {
                kept.put("credential", credential.as_bytes())?;
                return Live::begin(socket, attached).await;
            }
            Redeemed::Waiting { code, .. } => {
                println!("compare these digits with the desktop's: {code}");
                socket.close(None).await?;
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
        }
    }
}

/// Attaches with what was kept. A renewed credential takes the place of the old one before the first frame.
pub async fn come_back(kept: &Kept) -> Outcome<Live> {
    let holder = HolderSecretKey::from_bytes(kept.get("holder.key")?.as_slice().try_into()?);
    let agent = <[u8; 32]>::try_from(kept.get("agent.key")?.as_slice())?.try_into()?;
    let url = AgentUrl::parse(&String::from_utf8(kept.get("address")?)?)?;
    let credential = CredentialBytes::new(kept.get("credential")?)?;
    let asking = attach(&agent, &holder, &credential, OpSet::EMPTY, &mut OsRng)?;
    let (socket, answer) = exchange(&url, asking.message).await?;
    let attached = asking.next.finish(&answer)?;
    if let Some(renewed) = &attached.renewed {
        kept.put("credential", renewed.as_bytes())?;
    }
    Live::begin(socket, attached).await
}

async fn exchange(url: &AgentUrl, message: Vec<u8>) -> Outcome<(Socket, Vec<u8>)> {
    let (mut socket, _) = connect_async(url.to_string()).await?;
    socket.send(Message::Binary(message.into())).await?;
    // An agent that knows neither ticket nor credential closes without an answer.
    let answer = receive(&mut socket).await.map_err(|_| PhoneError::NoAnswer)?;
    Ok((socket, answer))
}

async fn receive(socket: &mut Socket) -> Outcome<Vec<u8>> {
    loop {
        match socket.next().await.ok_or("the connection is lost")?? {
            Message::Binary(message) => return Ok(message.into()),
            Message::Close(_) => return Err("the connection is lost".into()),
            _ => {}
        }
    }
}

/// What comes from the session.
#[derive(Debug, PartialEq)]
pub enum News {
    /// Output.
    Output(Vec<u8>),
    /// A message was refused, or the agent says something about one.
    Notice(Notice),
    /// The agent has ended the connection. `status` of the code says whether to come back.
    Ended(EndCode),
}

impl Live {
    /// A first frame within five seconds proves that this is no replay.
    async fn begin(socket: Socket, attached: Attached) -> Outcome<Self> {
        let mut live = Self { socket, channel: attached.channel, assembler: Assembler::new() };
        live.send(&Frame::Ping { answer: false, number: 0 }).await?;
        Ok(live)
    }

    async fn send(&mut self, frame: &Frame<&[u8]>) -> Outcome<()> {
        let frame = self.channel.seal(&frame.to_bytes())?;
        Ok(self.socket.send(Message::Binary(frame.into())).await?)
    }

    /// Types.
    pub async fn type_in(&mut self, text: &[u8]) -> Outcome<()> {
        self.send(&Frame::Data(text)).await
    }

    /// Waits for what comes next, and answers pings meanwhile.
    pub async fn next(&mut self) -> Outcome<News> {
        loop {
            let frame = Frame::from_bytes(&self.channel.open(&receive(&mut self.socket).await?)?)?;
            match self.assembler.take(frame)? {
                Some(Frame::Data(output)) => return Ok(News::Output(output)),
                Some(Frame::Notice(notice)) => return Ok(News::Notice(notice)),
                Some(Frame::End(code)) => return Ok(News::Ended(code)),
                Some(Frame::Ping { answer: false, number }) => {
                    self.send(&Frame::Ping { answer: true, number }).await?;
                }
                _ => {}
            }
        }
    }
}

#[allow(dead_code, reason = "a test calls the functions above")]
#[tokio::main]
async fn main() -> Outcome<()> {
    let kept = Kept(std::env::args().nth(1).ok_or("phone DIRECTORY, and the link in standard input")?.into());
    DirBuilder::new().recursive(true).mode(0o700).create(&kept.0)?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut live = if kept.get("credential").is_ok() {
        come_back(&kept).await?
    } else {
        let link = Link::parse(lines.next_line().await?.unwrap_or_default().trim())?;
        println!("the agent {} at {}", link.agent(), link.url());
        join(&link, &kept).await?
    };
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(line) => live.type_in(format!("{line}\n").as_bytes()).await?,
                None => return Ok(()),
            },
            news = live.next() => match news? {
                News::Output(output) => print!("{}", String::from_utf8_lossy(&output)),
                News::Notice(notice) => println!("(refused: code {})", notice.code),
                News::Ended(code) => {
                    println!("(ended: {:?})", code.status());
                    return Ok(());
                }
            },
        }
    }
}
