//! Clients of the tests' own, which speak the wire through the library and can misbehave.

use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use rand::rngs::OsRng;
use serde_json::{Value, json};
use sessioncap::noise::{Channel, Initiator};
use sessioncap::phone::{Asking, Attached, PhoneError, Redeemed};
use sessioncap::{
    CredentialBytes, DeviceSecretKey, EndCode, Frame, HolderSecretKey, Label, Link, OpSet, Status,
};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::world::{World, within};
use sessioncap_programs::companion::refused;
use sessioncap_programs::problem::Problem;

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub async fn open(world: &World) -> Socket {
    within("a websocket", connect_async(world.url.to_string())).await.unwrap().0
}

/// An agent's answer to a first message.
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

/// Sends one first message, and returns the answer and whether anything comes after it.
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
    kind: Kind,
    /// The code of a phone's agent that has ended its side.
    ended: Option<EndCode>,
}

/// The contents of the frames.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Plain bytes, and nothing as the end mark.
    Device,
    /// Frames with a head.
    Phone,
}

impl Stream {
    fn new(socket: Socket, channel: Channel, kind: Kind) -> Self {
        Self { socket, channel, kind, ended: None }
    }

    fn seal(&mut self, data: &[u8]) -> Message {
        let plaintext = match self.kind {
            Kind::Device => data.to_vec(),
            // The end, where a device sends nothing.
            Kind::Phone if data.is_empty() => Frame::<Vec<u8>>::End(EndCode::LEFT).to_bytes(),
            Kind::Phone => Frame::Data(data).to_bytes(),
        };
        Message::binary(self.channel.seal(&plaintext).unwrap())
    }

    /// Sends a plaintext as it is.
    pub async fn send_plaintext(&mut self, plaintext: &[u8]) {
        let frame = self.channel.seal(plaintext).unwrap();
        within("sending", self.socket.send(Message::binary(frame))).await.unwrap();
    }

    pub async fn send(&mut self, data: &[u8]) {
        let frame = self.seal(data);
        within("sending", self.socket.send(frame)).await.unwrap();
    }

    /// The next data, a refusal as if it were an answer, or nothing as the end mark; `None` when the connection
    /// is over without one.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let Answer::Message(frame) = answer(&mut self.socket).await else { return None };
            let plaintext = self.channel.open(&frame).unwrap();
            if self.kind == Kind::Device {
                return Some(plaintext);
            }
            match Frame::from_bytes(&plaintext).unwrap() {
                Frame::Data(data) => return Some(data),
                Frame::Notice(notice) => {
                    let Problem::Refused { code, detail, .. } = refused(notice) else { panic!("{notice:?}") };
                    let error = if code == "method_rejected" { code.as_str() } else { "denied" };
                    return Some(
                        json!({ "error": error, "code": code, "detail": detail }).to_string().into(),
                    );
                }
                Frame::End(code) => {
                    self.ended = Some(code);
                    return Some(Vec::new());
                }
                _ => {}
            }
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
        let frame = self.seal(&[&[0], text.as_bytes()].concat());
        let _ = self.socket.send(frame).await;
    }

    pub async fn type_in(&mut self, text: &str) {
        self.send(&[&[0], text.as_bytes()].concat()).await;
    }

    /// Everything until the end mark: the output, and the status that it tells if it tells one.
    pub async fn until_end(&mut self) -> (String, Option<&'static str>) {
        let mut output = Vec::new();
        while let Some(frame) = self.next().await {
            match frame.split_first() {
                None => {
                    let status = self.ended.and_then(EndCode::status);
                    return (String::from_utf8_lossy(&output).into_owned(), status.map(Status::code));
                }
                Some((0, bytes)) => output.extend(bytes),
                Some(_) => panic!("{}", String::from_utf8_lossy(&frame)),
            }
        }
        panic!("the connection broke off without an end mark");
    }
}

/// The first message of a client without this protocol, and the state that reads the answer.
pub async fn connect_device(world: &World, key: &DeviceSecretKey) -> Result<Stream, Answer> {
    let mut socket = open(world).await;
    let key = HolderSecretKey::from_bytes(*key.expose_bytes());
    let started = Initiator::start(&key, &world.key, b"", &mut OsRng).unwrap();
    socket.send(Message::binary(started.message)).await.unwrap();
    match answer(&mut socket).await {
        Answer::Message(message) => {
            let finished = started.next.finish(&message).unwrap();
            assert!(finished.payload.is_empty(), "old clients expect nothing here");
            Ok(Stream::new(socket, finished.channel, Kind::Device))
        }
        closed => Err(closed),
    }
}

/// The refusal that a phone gets.
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
            Ok(Joined { stream: Stream::new(socket, attached.channel, Kind::Phone), credential, ops })
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
            Ok((Stream::new(socket, channel, Kind::Phone), Terms { ops, seconds_left }))
        }
        Err(PhoneError::Refused(status)) => Err(Told::Status(status)),
        Err(error) => panic!("{error}"),
    }
}

/// The contents of message 2 of an attach.
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
