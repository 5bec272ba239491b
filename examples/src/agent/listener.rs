//! Accepts connections, and finds out whose they are.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use rand::rngs::OsRng;
use sessioncap::DevicePublicKey;
use sessioncap::agent::{Admission, PendingChannel};
use sessioncap::noise::{Channel, Received, Responder};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::counts::Away;
use super::host::Sessions;
use super::places::{self, Address, Claimed, Origin, Place, Seat, Stranger};
use super::upgrade::{self, NoUpgrade};
use super::{Agent, device, phone};
use crate::transport::{self, STRANGER, Socket, Stream};

/// First messages that are decrypted at a time: each costs curve arithmetic, and the sessions need the machine
/// too.
pub(super) const TURNS: usize = 4;
/// Phones that are admitted at a time. They may have to wait for the disk, which no device waits for.
const ADMISSIONS: usize = 4;
/// Connections without a place that are closed politely at a time. The others just end.
const FAREWELLS: usize = 32;
/// How a phone's first payload begins (section 6.1 of the protocol).
const PHONE: &[u8] = b"SCP1";
/// How long a peer has from connecting to its first message.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the answer to a first message may take. Only a disk that hangs takes as long.
const ANSWER: Duration = Duration::from_secs(30);
/// Bytes on their way to one peer that the system keeps.
const SEND_BUFFER: u32 = 64 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;
/// After an accepted connection has taken the place of another that waited: nobody loses that place within the
/// first milliseconds, however fast a crowd is.
const AFTER_DISPLACING: Duration = Duration::from_millis(1);
/// The pause after the first failed accept, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How many connections give way when there is no room for another.
const GIVE_WAY: usize = 8;
/// How often it is logged that none can be accepted.
const LOGGED_ONCE: Duration = Duration::from_secs(60);

/// Turns for work that is done for a few peers at a time.
pub(super) struct Turns {
    decrypting: Semaphore,
    admitting: Semaphore,
    farewells: Semaphore,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            decrypting: Semaphore::new(TURNS),
            admitting: Semaphore::new(ADMISSIONS),
            farewells: Semaphore::new(FAREWELLS),
        }
    }
}

/// Accepted connections inherit the size of the buffer: what is in it when a phone is cut is out of reach.
pub(super) fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A peer whose handshake is done.
enum Peer {
    Device {
        socket: Socket,
        channel: Channel,
        device: DevicePublicKey,
        handshake_hash: [u8; 32],
        place: Place,
    },
    Phone {
        socket: Socket,
        pending: Box<PendingChannel>,
        place: Place,
    },
}

/// The result of message 1.
enum Decided {
    Device {
        device: DevicePublicKey,
        received: Box<Received>,
    },
    Admitted {
        key: [u8; 32],
        message: Vec<u8>,
        pending: Box<PendingChannel>,
    },
    Refused(Vec<u8>),
    /// The peer has proven nothing.
    Unproven,
}

/// How accepting fails, and how long to wait before the next try.
struct Troubles {
    pause: Duration,
    /// When it was logged last.
    logged: Option<Instant>,
    /// Kept open, so that there is one to give away when there are no more.
    spare: Option<File>,
}

impl Troubles {
    fn new() -> Self {
        Self { pause: Duration::ZERO, logged: None, spare: spare() }
    }

    /// The next pause: each is twice the one before.
    fn grow(&mut self) -> Duration {
        self.pause = self.pause.saturating_mul(2).clamp(PAUSES.0, PAUSES.1);
        self.pause
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Whether only the one connection failed, before it was accepted.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

impl Agent {
    pub(super) async fn listen(self: Arc<Self>, listener: TcpListener, path: String) {
        let path: Arc<str> = path.into();
        let mut connections = JoinSet::new();
        let mut troubles = Troubles::new();
        loop {
            tokio::select! {
                biased;
                () = self.stopped() => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => {
                        troubles.pause = Duration::ZERO;
                        self.counts.accepted.add_one();
                        let displaced = self.places.waiting.displaced();
                        let origin = Origin::from(from.ip());
                        match self.places.waiting.enter(origin) {
                            Some(waiting) => {
                                let address = self.places.address(origin);
                                let (agent, path) = (Arc::clone(&self), Arc::clone(&path));
                                connections.spawn(async move {
                                    agent.serve(stream, &address, waiting, &path).await;
                                });
                            }
                            None => self.shed(&stream),
                        }
                        if self.places.waiting.displaced() != displaced {
                            tokio::time::sleep(AFTER_DISPLACING).await;
                        }
                    }
                    Err(error) if is_of_the_peer(&error) => self.counts.accept_errors.add_one(),
                    Err(error) => self.recover(&listener, &mut troubles, &error).await,
                },
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    /// The system has no room for another connection. Some that have proven nothing give way; if there are none,
    /// the one that waits is refused, so that its peer does not wait for nothing.
    async fn recover(&self, listener: &TcpListener, troubles: &mut Troubles, error: &io::Error) {
        self.counts.accept_errors.add_one();
        if troubles.logged.is_none_or(|logged| logged.elapsed() > LOGGED_ONCE) {
            troubles.logged = Some(Instant::now());
            self.log(format!(
                "no connection can be accepted: {error}. raise the limit of open files, or end what holds them"
            ));
        }
        // A few at once, or a crowd would be let in one by one, and who waits behind it with it.
        let now = Some(std::time::Instant::now());
        let gives_way =
            || self.places.waiting.displace(None, now) || self.places.strangers.displace(None, now);
        let displaced = (0..GIVE_WAY).filter(|_| gives_way()).count();
        if displaced == 0 {
            drop(troubles.spare.take());
            if let Some(Ok((stream, _))) = listener.accept().now_or_never() {
                self.shed(&stream);
            }
        }
        tokio::time::sleep(troubles.grow()).await;
        troubles.spare = troubles.spare.take().or_else(spare);
    }

    /// Refuses a connection for which there is no place, without waiting for anything.
    fn shed(&self, stream: &TcpStream) {
        self.counts.sent_away(Away::NoPlace);
        let answer = upgrade::http("503 Service Unavailable", "Retry-After: 1\r\n", "Try again later.\n");
        // Its buffer is empty, so this takes all of it or the connection is broken.
        let _ = stream.try_write(answer.as_bytes());
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, address: &Address, waiting: Seat<Origin>, path: &str) {
        let outcome = match self.greet(stream, address, waiting, path).await {
            Ok(Peer::Device { socket, channel, device, handshake_hash, place }) => {
                let displacement = place.displacement();
                let serving = device::serve(&self, socket, channel, device, handshake_hash, place);
                tokio::select! {
                    () = serving => Ok(()),
                    () = displacement.notified() => Err(Away::Displaced),
                }
            }
            Ok(Peer::Phone { socket, pending, place }) => {
                let displacement = place.displacement();
                tokio::select! {
                    () = phone::serve(&self, socket, *pending, place) => Ok(()),
                    () = displacement.notified() => Err(Away::Displaced),
                }
            }
            Err(away) => Err(away),
        };
        if let Err(away) = outcome {
            self.counts.sent_away(away);
        }
    }

    /// From the first byte to message 2.
    async fn greet(
        self: &Arc<Self>,
        stream: TcpStream,
        address: &Address,
        waiting: Seat<Origin>,
        path: &str,
    ) -> Result<Peer, Away> {
        let deadline = Instant::now() + HANDSHAKE;
        let seat = tokio::select! {
            biased;
            () = waiting.lost() => return Err(Away::Displaced),
            () = self.stopped() => return Err(Away::Stopping),
            seat = timeout_at(deadline, self.seat(&stream, address)) => seat.unwrap_or(Err(Away::TooSlow))?,
        };
        drop(waiting);
        let (mut socket, message) = tokio::select! {
            biased;
            () = seat.seat.lost() => return Err(Away::Displaced),
            arrived = self.first_message(stream, path, deadline) => arrived?,
        };
        if !seat.seat.keep() {
            return Err(Away::Displaced);
        }
        let Some(noted) = self.places.begin(&message) else {
            drop(seat);
            self.close(socket, STRANGER).await;
            return Err(Away::Repeated);
        };
        let Ok(decided) = timeout(ANSWER, self.decide(message, address)).await else {
            self.log(format!("a first message had no answer within {} seconds", ANSWER.as_secs()));
            drop(seat);
            self.close(socket, CloseCode::Again).await;
            return Err(Away::Undecided);
        };
        let (claimed, message) = match &decided {
            Decided::Device { device, .. } => (Claimed::Device(*device.as_bytes()), None),
            Decided::Admitted { key, message, .. } => (Claimed::Phone(*key), Some(message.clone())),
            Decided::Refused(message) => {
                drop(seat);
                transport::send_last(socket, [message.clone()], CloseCode::Normal).await;
                return Err(Away::Refused);
            }
            Decided::Unproven => {
                drop(seat);
                // Without its ledger the agent cannot tell a phone from a stranger, so any peer that is no
                // device may try again.
                let failed = self.failure_logged.load(Ordering::Relaxed);
                let (code, away) =
                    if failed { (CloseCode::Again, Away::LedgerFailed) } else { (STRANGER, Away::Unproven) };
                self.close(socket, code).await;
                return Err(away);
            }
        };
        let Some(place) = Place::new(&self.places, claimed, noted) else {
            drop(seat);
            self.close(socket, CloseCode::Again).await;
            return Err(Away::NoPlace);
        };
        drop(seat);
        let sending = async |socket: &mut Socket, message| {
            let lost = place.displacement();
            tokio::select! {
                sent = transport::send(socket, message) => sent.map_err(|_| Away::Gone),
                () = lost.notified() => Err(Away::Displaced),
            }
        };
        match decided {
            Decided::Device { device, received } => {
                let replied = received.reply(b"").map_err(|_| Away::Gone)?;
                sending(&mut socket, replied.message).await?;
                let handshake_hash = replied.handshake_hash;
                Ok(Peer::Device { socket, channel: replied.channel, device, handshake_hash, place })
            }
            Decided::Admitted { pending, .. } => {
                sending(&mut socket, message.unwrap_or_default()).await?;
                Ok(Peer::Phone { socket, pending, place })
            }
            Decided::Refused(_) | Decided::Unproven => Err(Away::Unproven),
        }
    }

    /// A place for a peer that has begun to speak.
    async fn seat(&self, stream: &TcpStream, address: &Address) -> Result<Stranger, Away> {
        stream.readable().await.map_err(|_| Away::Gone)?;
        self.places.seat(address).await.ok_or(Away::NoPlace)
    }

    /// A WebSocket and what comes first over it.
    async fn first_message(
        &self,
        stream: TcpStream,
        path: &str,
        deadline: Instant,
    ) -> Result<(Socket, Vec<u8>), Away> {
        let more: &[&str] = match &self.sessions {
            Sessions::Terminals(_) => &[],
            // Where plain peers look, which are told how to pair.
            Sessions::Hosted(_) => &["/acp", "/"],
        };
        let paths: Vec<&str> = std::iter::once(path).chain(more.iter().copied()).collect();
        let upgrading = async {
            let stream = self.secured(stream).await?;
            upgrade::accept(stream, &paths, &self.origins, &self.site).await
        };
        let upgraded = tokio::select! {
            upgraded = timeout_at(deadline, upgrading) => upgraded,
            () = self.stopped() => return Err(Away::Stopping),
        };
        let mut socket = match upgraded {
            Ok(Ok(socket)) => socket,
            Ok(Err(NoUpgrade::NotAsked)) => return Err(Away::NoWebsocket),
            Ok(Err(NoUpgrade::Origin)) => return Err(Away::Origin),
            Ok(Err(NoUpgrade::Gone)) => return Err(Away::Gone),
            Err(_) => return Err(Away::TooSlow),
        };
        let (code, away) = loop {
            let next = tokio::select! {
                next = timeout_at(deadline, socket.next()) => next,
                () = self.stopped() => break (CloseCode::Away, Away::Stopping),
            };
            match next {
                Ok(Some(Ok(Message::Binary(bytes)))) => return Ok((socket, bytes.into())),
                Ok(Some(Ok(Message::Text(text)))) => match &self.sessions {
                    Sessions::Terminals(_) => break (CloseCode::Unsupported, Away::Text),
                    Sessions::Hosted(host) => {
                        host.turn_away(socket, text.to_string()).await;
                        return Err(Away::Text);
                    }
                },
                Ok(Some(Err(tungstenite::Error::Capacity(_)))) => break (CloseCode::Size, Away::TooLong),
                Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) => return Err(Away::Gone),
                Ok(Some(Ok(_))) => {}
                Err(_) => break (STRANGER, Away::TooSlow),
            }
        };
        self.close(socket, code).await;
        Err(away)
    }

    /// TLS, where the peer begins with it and the agent has a certificate.
    async fn secured(&self, stream: TcpStream) -> Result<Stream, NoUpgrade> {
        let Some(tls) = &self.tls else { return Ok(stream.into()) };
        tls(stream).await.map_err(|_| NoUpgrade::Gone)
    }

    /// Closes a connection without an answer, politely if there is time for it.
    async fn close(&self, mut socket: Socket, code: CloseCode) {
        if let Ok(_one_of_few) = self.turns.farewells.try_acquire() {
            transport::close(&mut socket, code).await;
        } else {
            // The code goes out if the system takes it at once.
            let _ = timeout(Duration::ZERO, socket.close(Some(transport::close_frame(code)))).await;
        }
    }

    /// Decrypts message 1 when it is this address's turn, and asks the gate about it.
    async fn decide(self: &Arc<Self>, message: Vec<u8>, address: &Address) -> Decided {
        let agent = Arc::clone(self);
        let received = {
            // They fail only if closed, which they never are.
            let _turn_of_its_address = address.turns.acquire().await;
            let _turn = self.turns.decrypting.acquire().await;
            spawn_blocking(move || Responder::read(&agent.key, &message, &mut OsRng)).await
        };
        let Ok(Ok(received)) = received else { return Decided::Unproven };
        // A device waits for no phone.
        let _turn = match received.payload().starts_with(PHONE) {
            true => self.turns.admitting.acquire().await.ok(),
            false => None,
        };
        let agent = Arc::clone(self);
        spawn_blocking(move || agent.admit(received)).await.unwrap_or(Decided::Unproven)
    }

    fn admit(&self, received: Received) -> Decided {
        let key = *received.peer().as_bytes();
        let admission = self.gate.admit(received, self.now(), &mut OsRng);
        self.look_at_ledger();
        match admission {
            Admission::PassThrough(received) => match DevicePublicKey::from_bytes(key) {
                Ok(device) if self.devices.contains(&device) => {
                    Decided::Device { device, received: Box::new(received) }
                }
                _ => Decided::Unproven,
            },
            Admission::Admitted { message, pending } => {
                Decided::Admitted { key, message, pending: Box::new(pending) }
            }
            Admission::Refused { message, denial } => {
                self.log(format!("turned a phone away: {denial}"));
                message.map_or(Decided::Unproven, Decided::Refused)
            }
        }
    }
}

// Each address gets half of the turns.
const _: () = assert!(TURNS >= 2 && places::STRANGERS_OF_ADDRESS > TURNS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_second() {
        let mut troubles = Troubles::new();
        let pauses: Vec<_> = (0..9).map(|_| troubles.grow().as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1_000, 1_000]);
    }

    #[test]
    fn only_a_failure_of_the_peer_is_followed_by_no_pause() {
        for code in [23, 24, 12, 105] {
            assert!(!is_of_the_peer(&io::Error::from_raw_os_error(code)), "{code}");
        }
        assert!(is_of_the_peer(&io::ErrorKind::ConnectionAborted.into()));
    }
}
