//! The WebSocket below Noise: one binary message is one Noise message, a text message ends the connection,
//! everything else is skipped, and an empty plaintext ends a side.

mod stream;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use sessioncap::noise::Channel;
use sessioncap::{AgentUrl, Scheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::problem::{Outcome, Problem};
#[cfg(feature = "acp")]
use super::tls;
pub use stream::Stream;

/// A WebSocket over TCP or TLS. Noise inside is the same.
pub type Socket = WebSocketStream<Stream>;

/// How long a connection may take to be made, and a peer to take or answer a message.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long a phone may take for one frame, until the agent lets it go.
pub const FRAME_PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of output in one frame, as in the deployed agent.
pub const CHUNK: usize = 4 * 1024;
/// How long a last message may take.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Bytes that are read from a peer after the last message to it.
const MOST_DRAINED: usize = 1024 * 1024;

/// The close that every stranger gets.
pub const STRANGER: CloseCode = CloseCode::Policy;

/// Both sides' bounds.
pub fn config() -> WebSocketConfig {
    let longest = Some(Channel::MAX_PLAINTEXT_LEN + Channel::OVERHEAD);
    WebSocketConfig::default()
        .max_message_size(longest)
        .max_frame_size(longest)
        // A frame goes out when it is sent, not when more have gathered.
        .write_buffer_size(0)
        // Room for one frame; the agent keeps the network's own buffers small as well.
        .max_write_buffer_size(2 * (Channel::MAX_PLAINTEXT_LEN + Channel::OVERHEAD))
}

/// A connection whose other end has proven nothing. It takes and gives the messages of a handshake, and becomes
/// a stream only with the channel that the handshake ends in: whatever its certificate was, only the agent whose
/// key is pinned reads or writes it.
pub struct Unproven {
    socket: Socket,
    certificate: Certificate,
}

/// What the other end of a connection showed, beside Noise.
#[cfg(feature = "acp")]
pub type Certificate = Option<tls::Seen>;
/// Without TLS there is none.
#[cfg(not(feature = "acp"))]
pub type Certificate = Option<std::convert::Infallible>;

impl Unproven {
    /// Sends a message of the handshake.
    pub async fn send(&mut self, message: Vec<u8>) -> Outcome<()> {
        send(&mut self.socket, message).await
    }

    /// The answer to it.
    pub async fn receive_soon(&mut self) -> Outcome<Vec<u8>> {
        receive_soon(&mut self.socket).await
    }

    /// For an agent that states no hash inside the channel: over `wss` the certificate must be a public one.
    pub fn require_public_certificate(&self) -> Outcome<()> {
        #[cfg(feature = "acp")]
        if let Some(seen) = &self.certificate {
            seen.compare(&[])?;
        }
        Ok(())
    }

    /// The stream under a finished handshake's channel, and the certificate that was seen below it: none over
    /// `ws`. Over `wss` the caller compares it with what the agent states inside the channel.
    pub fn prove(self, channel: Channel) -> (Secure, Certificate) {
        (Secure::new(self.socket, channel), self.certificate)
    }
}

/// Connects to an agent.
pub async fn connect(url: &AgentUrl) -> Outcome<Unproven> {
    let host = url.host();
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    connect_over(url, TcpStream::connect((host, url.port())), &url.to_string()).await
}

/// Connects to the agent of `url` at an address that was found elsewhere. The address grants nothing.
pub async fn connect_at(url: &AgentUrl, address: SocketAddr) -> Outcome<Unproven> {
    connect_over(url, TcpStream::connect(address), &address.to_string()).await
}

async fn connect_over(
    url: &AgentUrl,
    connecting: impl Future<Output = io::Result<TcpStream>>,
    shown: &str,
) -> Outcome<Unproven> {
    let connecting = async {
        let unreachable =
            |cause: io::Error| Problem::Unreachable { url: shown.to_owned(), cause: cause.to_string() };
        let stream = connecting.await.map_err(unreachable)?;
        let _ = stream.set_nodelay(true);
        let (stream, certificate) = match url.scheme() {
            Scheme::Ws => (Stream::from(stream), None),
            Scheme::Wss => encrypt(stream, url).await?,
        };
        match client_async_with_config(url.to_string(), stream, Some(config())).await {
            Ok((socket, _)) => Ok(Unproven { socket, certificate }),
            Err(tungstenite::Error::Io(cause)) => Err(unreachable(cause)),
            Err(error) => Err(Problem::NotTheAgent(format!("{shown}: {error}"))),
        }
    };
    timeout(PATIENCE, connecting).await.unwrap_or(Err(Problem::TooSlow { seconds: PATIENCE.as_secs() }))
}

#[cfg(feature = "acp")]
async fn encrypt(stream: TcpStream, url: &AgentUrl) -> Outcome<(Stream, Certificate)> {
    let (stream, seen) = tls::connect(stream, &url.host(), tls::Roots::of_system()).await?;
    Ok((Stream::Tls(Box::new(stream.into())), Some(seen)))
}

#[cfg(not(feature = "acp"))]
async fn encrypt(_: TcpStream, _: &AgentUrl) -> Outcome<(Stream, Certificate)> {
    Err(Problem::said("this program was built without tls; build it with the feature `acp`"))
}

/// The next Noise message. Cancel-safe.
pub async fn receive(socket: &mut Socket) -> Outcome<Vec<u8>> {
    loop {
        if let Some(message) = hear(socket).await? {
            return Ok(message);
        }
    }
}

/// The next Noise message, or nothing for another sign of life. Cancel-safe.
async fn hear(socket: &mut Socket) -> Outcome<Option<Vec<u8>>> {
    match socket.next().await {
        Some(Ok(Message::Binary(bytes))) => Ok(Some(bytes.into())),
        Some(Ok(Message::Close(Some(CloseFrame { code, .. })))) if code == STRANGER => {
            Err(Problem::TurnedAway)
        }
        Some(Ok(Message::Text(_))) => {
            close(socket, CloseCode::Unsupported).await;
            Err(Problem::BrokenOff)
        }
        Some(Err(tungstenite::Error::Capacity(_))) => {
            close(socket, CloseCode::Size).await;
            Err(Problem::BrokenOff)
        }
        Some(Ok(Message::Close(_)) | Err(_)) | None => Err(Problem::BrokenOff),
        Some(Ok(_)) => Ok(None),
    }
}

/// A close frame without words.
pub fn close_frame(code: CloseCode) -> CloseFrame {
    CloseFrame { code, reason: "".into() }
}

/// Closes a connection over which nothing more is said, if the peer takes it at once.
pub async fn close(socket: &mut Socket, code: CloseCode) {
    let closing = async {
        if socket.close(Some(close_frame(code))).await.is_ok() {
            let stream = socket.get_mut();
            let _ = stream.shutdown().await;
            drain(stream).await;
        }
    };
    // A peer that does not read learns it later.
    let _ = timeout(LAST_WORD, closing).await;
}

/// Reads what still comes, up to a bound. Without that, the system could take back what was sent last.
pub async fn drain(stream: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = [0; 4096];
    let reading = async {
        for _ in 0..MOST_DRAINED / buffer.len() {
            if !matches!(stream.read(&mut buffer).await, Ok(1..)) {
                return;
            }
        }
    };
    let _ = timeout(LAST_WORD, reading).await;
}

/// As [`receive`], for a message that must come soon.
pub async fn receive_soon(socket: &mut Socket) -> Outcome<Vec<u8>> {
    let slow = Err(Problem::TooSlow { seconds: PATIENCE.as_secs() });
    timeout(PATIENCE, receive(socket)).await.unwrap_or(slow)
}

/// Sends one Noise message, or gives up on a peer that does not take it.
pub async fn send(socket: &mut Socket, message: Vec<u8>) -> Outcome<()> {
    match timeout(PATIENCE, socket.send(Message::binary(message))).await {
        Ok(sent) => sent.map_err(|_| Problem::BrokenOff),
        Err(_) => Err(Problem::TooSlow { seconds: PATIENCE.as_secs() }),
    }
}

/// Sends a last message if the peer takes it at once, and closes.
pub async fn send_last(mut socket: Socket, messages: impl IntoIterator<Item = Vec<u8>>, code: CloseCode) {
    let farewell = async {
        for message in messages {
            socket.feed(Message::binary(message)).await?;
        }
        socket.close(Some(close_frame(code))).await?;
        // Until the peer has closed too, or what is still on its way to it could be lost.
        while let Some(Ok(_)) = socket.next().await {}
        Ok::<_, tokio_tungstenite::tungstenite::Error>(())
    };
    // A peer that does not read loses the last message, and nothing else.
    let _ = timeout(LAST_WORD, farewell).await;
}

/// What a client hears from its agent.
pub enum Heard {
    /// A frame.
    Frame(Vec<u8>),
    /// A sign of life without contents.
    Alive,
    /// The agent has ended its side.
    End,
}

/// A client's encrypted stream.
pub struct Secure {
    socket: Socket,
    channel: Channel,
    /// Encrypted and not handed to the socket yet.
    outbox: VecDeque<Vec<u8>>,
}

impl Secure {
    /// After a handshake.
    pub fn new(socket: Socket, channel: Channel) -> Self {
        Self { socket, channel, outbox: VecDeque::new() }
    }

    /// Sends one frame.
    pub async fn send(&mut self, plaintext: &[u8]) -> Outcome<()> {
        self.queue(plaintext)?;
        let flushing = timeout(PATIENCE, self.flush());
        flushing.await.unwrap_or(Err(Problem::TooSlow { seconds: PATIENCE.as_secs() }))
    }

    /// Encrypts one frame, to be sent by [`Secure::flush`].
    pub fn queue(&mut self, plaintext: &[u8]) -> Outcome<()> {
        self.outbox.push_back(self.channel.seal(plaintext)?);
        Ok(())
    }

    /// Sends what was queued. Cancel-safe: what was not sent stays queued.
    pub async fn flush(&mut self) -> Outcome<()> {
        while !self.outbox.is_empty() {
            let ready = poll_fn(|context| self.socket.poll_ready_unpin(context)).await;
            ready.map_err(|_| Problem::BrokenOff)?;
            if let Some(frame) = self.outbox.pop_front() {
                self.socket.start_send_unpin(Message::binary(frame)).map_err(|_| Problem::BrokenOff)?;
            }
        }
        SinkExt::flush(&mut self.socket).await.map_err(|_| Problem::BrokenOff)
    }

    /// The next frame; `None` when the agent has ended its side. A connection that breaks off before
    /// is an error. Cancel-safe.
    pub async fn receive(&mut self) -> Outcome<Option<Vec<u8>>> {
        loop {
            match self.hear().await? {
                Heard::Frame(plaintext) => return Ok(Some(plaintext)),
                Heard::Alive => {}
                Heard::End => return Ok(None),
            }
        }
    }

    /// The next frame, or another sign of life. Cancel-safe.
    pub async fn hear(&mut self) -> Outcome<Heard> {
        let Some(frame) = hear(&mut self.socket).await? else { return Ok(Heard::Alive) };
        let opened = self.channel.open(&frame);
        let plaintext = opened.map_err(|error| Problem::NotTheAgent(error.to_string()))?;
        Ok(if plaintext.is_empty() { Heard::End } else { Heard::Frame(plaintext) })
    }

    /// Asks for a sign of life outside the channel, for streams whose frames have no pings of their own.
    pub async fn ask_for_life(&mut self) -> Outcome<()> {
        match timeout(PATIENCE, self.socket.send(Message::Ping(Vec::new().into()))).await {
            Ok(sent) => sent.map_err(|_| Problem::BrokenOff),
            Err(_) => Err(Problem::TooSlow { seconds: PATIENCE.as_secs() }),
        }
    }

    /// As [`Secure::receive`], for an answer that must come soon.
    pub async fn receive_soon(&mut self) -> Outcome<Option<Vec<u8>>> {
        let slow = Err(Problem::TooSlow { seconds: PATIENCE.as_secs() });
        timeout(PATIENCE, self.receive()).await.unwrap_or(slow)
    }

    /// Ends this side and closes.
    pub async fn end(self) {
        self.end_with(b"").await;
    }

    /// Sends a last frame and closes.
    pub async fn end_with(mut self, plaintext: &[u8]) {
        if let Ok(frame) = self.channel.seal(plaintext) {
            self.outbox.push_back(frame);
            send_last(self.socket, self.outbox, CloseCode::Normal).await;
        }
    }
}
