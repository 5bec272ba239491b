//! Clients of the tests' own, which speak the wire through the library and can misbehave.

use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use rand::rngs::OsRng;
use serde_json::Value;
use sessioncap::noise::{Channel, Initiator};
use sessioncap::phone::{Asking, Attached, PhoneError, Redeemed};
use sessioncap::{CredentialBytes, DeviceSecretKey, HolderSecretKey, Label, Link, OpSet, Status};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::world::{World, within};

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub async fn open(world: &World) -> Socket {
    within("a websocket", connect_async(world.url.to_string())).await.unwrap().0
}

/// What an agent answers to a first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Message(Vec<u8>),
    /// The close's code and reason, or `None` where the connection just broke off.
    Closed(Option<(u16, String)>),
}

pub async fn answer(socket: &mut Socket) -> Answer {
    loop {
        match within("an answer", socket.next()).await {
            Some(Ok(Message::Binary(bytes))) => return Answer::Message(bytes.into()),
            Some(Ok(Message::Close(frame))) => {
                return Answer::Closed(frame.map(|frame| (frame.code.into(), frame.reason.to_string())));
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Answer::Closed(None),
        }
    }
}

/// Sends one first message, and says what comes back and whether anything comes after that.
pub async fn knock(world: &World, message: Message) -> (Answer, bool) {
    let mut socket = open(world).await;
    // The agent may refuse before all of it is taken.
    let _ = socket.send(message).await;
    let first = answer(&mut socket).await;
    let more = matches!(within("the end", socket.next()).await, Some(Ok(_)));
    (first, more)
}

/// An encrypted stream.
pub struct Stream {
    pub socket: Socket,
    channel: Channel,
}

impl Stream {
    pub async fn send(&mut self, plaintext: &[u8]) {
        let frame = self.channel.seal(plaintext).unwrap();
        within("sending", self.socket.send(Message::binary(frame))).await.unwrap();
    }

    /// The next plaintext; `None` when the connection is over without an end mark.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        match answer(&mut self.socket).await {
            Answer::Message(frame) => Some(self.channel.open(&frame).unwrap()),
            Answer::Closed(_) => None,
        }
    }

    /// A request and its answer, of a device, or of a phone before its output runs.
    pub async fn call(&mut self, request: Value) -> Value {
        self.call_raw(request.to_string().as_bytes()).await
    }

    pub async fn call_raw(&mut self, request: &[u8]) -> Value {
        self.send(request).await;
        loop {
            let frame = self.next().await.expect("an answer");
            if frame.first() != Some(&0) {
                return serde_json::from_slice(&frame).unwrap();
            }
        }
    }

    /// A device's raw bytes until `text` has come.
    pub async fn until_raw(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(text) {
            seen.extend(self.next().await.expect("more output"));
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// A phone's output until `text` has come.
    pub async fn until(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(text) {
            let frame = self.next().await.expect("more output");
            assert_eq!(frame.first(), Some(&0), "{}", String::from_utf8_lossy(&frame));
            seen.extend(&frame[1..]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// As [`Stream::type_in`], where the agent may have closed already.
    pub async fn type_in_if_open(&mut self, text: &str) {
        let frame = self.channel.seal(&[&[0], text.as_bytes()].concat()).unwrap();
        let _ = self.socket.send(Message::binary(frame)).await;
    }

    pub async fn type_in(&mut self, text: &str) {
        self.send(&[&[0], text.as_bytes()].concat()).await;
    }

    /// Everything until the end mark: the output, and the code of the notice if there was one.
    pub async fn until_end(&mut self) -> (String, Option<String>) {
        let mut output = Vec::new();
        let mut code = None;
        while let Some(frame) = self.next().await {
            match frame.split_first() {
                None => return (String::from_utf8_lossy(&output).into_owned(), code),
                Some((0, bytes)) => output.extend(bytes),
                Some(_) => {
                    let notice: Value = serde_json::from_slice(&frame).unwrap();
                    code = notice["code"].as_str().map(str::to_owned);
                }
            }
        }
        panic!("the connection broke off without an end mark");
    }
}

/// The first message of a client of the old kind, and what reads the answer.
pub async fn connect_device(world: &World, key: &DeviceSecretKey) -> Result<Stream, Answer> {
    let mut socket = open(world).await;
    let key = HolderSecretKey::from_bytes(*key.expose_bytes());
    let started = Initiator::start(&key, &world.key, b"", &mut OsRng).unwrap();
    socket.send(Message::binary(started.message)).await.unwrap();
    match answer(&mut socket).await {
        Answer::Message(message) => {
            let finished = started.next.finish(&message).unwrap();
            assert!(finished.payload.is_empty(), "old clients expect nothing here");
            Ok(Stream { socket, channel: finished.channel })
        }
        closed => Err(closed),
    }
}

/// What a phone is told instead of being let in.
#[derive(Debug, PartialEq)]
pub enum Told {
    Status(Status),
    Wait(String),
    Nothing(Answer),
}

pub struct Joined {
    pub stream: Stream,
    pub credential: CredentialBytes,
    pub ops: OpSet,
}

pub fn first_message(link: &Link, key: &HolderSecretKey) -> Asking<sessioncap::phone::Redeeming> {
    sessioncap::phone::redeem(link, key, Label::new("raw").unwrap(), &mut OsRng).unwrap()
}

pub async fn redeem(world: &World, link: &Link, key: &HolderSecretKey) -> Result<Joined, Told> {
    let asking = first_message(link, key);
    let mut socket = open(world).await;
    socket.send(Message::binary(asking.message)).await.unwrap();
    let message = match answer(&mut socket).await {
        Answer::Message(message) => message,
        closed => return Err(Told::Nothing(closed)),
    };
    match asking.next.finish(&message) {
        Ok(Redeemed::Attached { credential, attached }) => {
            let ops = attached.ops;
            Ok(Joined { stream: Stream { socket, channel: attached.channel }, credential, ops })
        }
        Ok(Redeemed::Waiting { code, .. }) => Err(Told::Wait(code.to_string())),
        Err(PhoneError::Refused(status)) => Err(Told::Status(status)),
        Err(error) => panic!("{error}"),
    }
}

pub async fn attach(
    world: &World,
    key: &HolderSecretKey,
    credential: &CredentialBytes,
) -> Result<(Stream, Terms), Told> {
    let asking = sessioncap::phone::attach(&world.key, key, credential, OpSet::EMPTY, &mut OsRng).unwrap();
    let mut socket = open(world).await;
    socket.send(Message::binary(asking.message)).await.unwrap();
    let message = match answer(&mut socket).await {
        Answer::Message(message) => message,
        closed => return Err(Told::Nothing(closed)),
    };
    match asking.next.finish(&message) {
        Ok(Attached { channel, ops, seconds_left, .. }) => {
            Ok((Stream { socket, channel }, Terms { ops, seconds_left }))
        }
        Err(PhoneError::Refused(status)) => Err(Told::Status(status)),
        Err(error) => panic!("{error}"),
    }
}

/// What message 2 of an attach says.
#[derive(Debug, PartialEq)]
pub struct Terms {
    pub ops: OpSet,
    pub seconds_left: u64,
}

/// A relay in front of an agent, whose connections can be cut.
pub struct Relay {
    pub url: String,
    target: Arc<Mutex<String>>,
    cut: watch::Sender<()>,
}

impl Relay {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let target = Arc::new(Mutex::new(String::new()));
        let cut = watch::channel(()).0;
        let relay = Self { url, target, cut };
        let (target, cut) = (Arc::clone(&relay.target), relay.cut.clone());
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let target = target.lock().unwrap().clone();
                let mut cut = cut.subscribe();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        relay
    }

    pub fn aim_at(&self, world: &World) {
        *self.target.lock().unwrap() = format!("{}:{}", world.url.host(), world.url.port());
    }

    pub fn cut(&self) {
        self.cut.send_replace(());
    }
}
