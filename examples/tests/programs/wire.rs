//! Clients of the tests' own, which speak the wire through the library and can misbehave.

use futures_util::{SinkExt, StreamExt};
use rand::rngs::OsRng;
use serde_json::{Value, json};
use sessioncap::noise::{Channel, Initiator};
use sessioncap::phone::{Asking, Attached, PhoneError, Redeemed};
use sessioncap::session::{Following, FromAgent, FromPhone, Profile, ResumePoint, SessionNotice};
use sessioncap::{
    Assembler, CredentialBytes, DeviceSecretKey, EndCode, Frame, HolderSecretKey, Label, Link, Notice, OpSet,
    Status,
};
use tokio::net::TcpStream;
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
    assembler: Assembler,
    begun: bool,
    messages: u64,
    /// Up to where the output was shown.
    pub shown: Option<ResumePoint>,
    /// The code of a phone's agent that has ended its side.
    pub ended: Option<EndCode>,
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
        Self {
            socket,
            channel,
            kind,
            assembler: Assembler::new(),
            begun: false,
            messages: 0,
            shown: None,
            ended: None,
        }
    }

    fn seal(&mut self, plaintext: &[u8]) -> Message {
        Message::binary(self.channel.seal(plaintext).unwrap())
    }

    /// Sends a plaintext as it is.
    pub async fn send_plaintext(&mut self, plaintext: &[u8]) {
        let frame = self.seal(plaintext);
        within("sending", self.socket.send(frame)).await.unwrap();
    }

    /// Of a device: bytes, or nothing as the end mark. Of a phone: a message, or nothing as the end.
    pub async fn send(&mut self, data: &[u8]) {
        match self.kind {
            Kind::Device => self.send_plaintext(data).await,
            Kind::Phone if data.is_empty() => {
                self.send_plaintext(&Frame::<Vec<u8>>::End(EndCode::LEFT).to_bytes()).await;
            }
            Kind::Phone => drop(self.send_message(data).await),
        }
    }

    /// The version, as the first frame.
    pub async fn begin(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            let version = SessionNotice::Profile { version: Profile::VERSION }.to_notice();
            self.send_plaintext(&Frame::<Vec<u8>>::Notice(version).to_bytes()).await;
        }
    }

    /// A phone's message in as many frames as it needs. Returns its number.
    pub async fn send_message(&mut self, message: &[u8]) -> u64 {
        self.begin().await;
        for frame in Frame::split(message) {
            self.send_plaintext(&frame.to_bytes()).await;
        }
        self.messages += 1;
        self.messages - 1
    }

    /// What comes next to a phone; `None` when the connection is over without an end.
    pub async fn hear(&mut self) -> Option<Heard> {
        loop {
            let Answer::Message(frame) = answer(&mut self.socket).await else { return None };
            let plaintext = self.channel.open(&frame).unwrap();
            let Some(frame) = self.assembler.take(Frame::from_bytes(&plaintext).unwrap()).unwrap() else {
                continue;
            };
            return Some(match frame {
                Frame::Data(message) => {
                    FromAgent::from_bytes(&message).unwrap();
                    Heard::Message(message)
                }
                Frame::Notice(notice) => Heard::Notice(notice),
                Frame::Ping { answer, number } => Heard::Ping { answer, number },
                Frame::End(code) => Heard::End(code),
                frame => panic!("{frame:?}"),
            });
        }
    }

    /// A device's next bytes, or nothing as the end mark. `None` when the connection is over without one.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        let Answer::Message(frame) = answer(&mut self.socket).await else { return None };
        Some(self.channel.open(&frame).unwrap())
    }

    /// A request and its answer; a refusal as if it were one.
    pub async fn call(&mut self, request: Value) -> Value {
        self.call_raw(request.to_string().as_bytes()).await
    }

    pub async fn call_raw(&mut self, request: &[u8]) -> Value {
        if self.kind == Kind::Device {
            self.send(request).await;
            return serde_json::from_slice(&self.next().await.expect("an answer")).unwrap();
        }
        let asked = self.send_message(&[&[1], request].concat()).await;
        loop {
            match self.hear().await.expect("an answer") {
                Heard::Message(message) => {
                    if let FromAgent::Answer { number, json } = FromAgent::from_bytes(&message).unwrap()
                        && number == asked
                    {
                        return serde_json::from_str(json).unwrap();
                    }
                }
                Heard::Notice(notice) if notice.code <= 5 && notice.number == asked => {
                    return refusal(notice);
                }
                Heard::End(code) => panic!("{code:?}"),
                _ => {}
            }
        }
    }

    /// Follows from a point, or with the screen. What the agent answers, or its refusal.
    pub async fn follow(&mut self, point: Option<ResumePoint>) -> Result<Following, Value> {
        let asked = self.send_message(&FromPhone::Follow(point).to_bytes().unwrap()).await;
        loop {
            match self.hear().await.expect("an answer") {
                Heard::Message(message) => {
                    if let FromAgent::Following(following) = FromAgent::from_bytes(&message).unwrap() {
                        self.shown = Some(following.from);
                        return Ok(following);
                    }
                }
                Heard::Notice(notice) if notice.code <= 5 && notice.number == asked => {
                    return Err(refusal(notice));
                }
                Heard::End(code) => panic!("{code:?}"),
                _ => {}
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

    /// A phone's screen and output until `text` has come. Output has to join.
    pub async fn until(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(text) {
            match self.hear().await.expect("more output") {
                Heard::Message(message) => self.see(&message, &mut seen),
                Heard::End(code) => panic!("{code:?} after {}", String::from_utf8_lossy(&seen)),
                _ => {}
            }
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    fn see(&mut self, message: &[u8], seen: &mut Vec<u8>) {
        match FromAgent::from_bytes(message).unwrap() {
            FromAgent::Output { position, bytes } => {
                let shown = self.shown.as_mut().unwrap();
                assert_eq!(position, shown.position, "a gap or a repetition");
                shown.position += bytes.len() as u64;
                seen.extend(bytes);
            }
            FromAgent::Screen { bytes, .. } => *seen = bytes.to_vec(),
            _ => {}
        }
    }

    /// As [`Stream::type_in`], where the agent may have closed already.
    pub async fn type_in_if_open(&mut self, text: &str) {
        let message = FromPhone::Input(text.as_bytes()).to_bytes().unwrap();
        let frame = self.seal(&Frame::Data(message).to_bytes());
        let _ = self.socket.send(frame).await;
    }

    pub async fn type_in(&mut self, text: &str) -> u64 {
        self.send_message(&FromPhone::Input(text.as_bytes()).to_bytes().unwrap()).await
    }

    /// What becomes of a message of input: the notice about it.
    pub async fn typed(&mut self, asked: u64) -> Notice {
        loop {
            match self.hear().await.expect("a notice") {
                Heard::Notice(notice) if notice.code != 64 && notice.number == asked => return notice,
                Heard::End(code) => panic!("{code:?}"),
                _ => {}
            }
        }
    }

    /// Everything until the end: the output, and the status that it tells if it tells one.
    pub async fn until_end(&mut self) -> (String, Option<&'static str>) {
        let mut output = Vec::new();
        while let Some(heard) = self.hear().await {
            match heard {
                Heard::Message(message) => self.see(&message, &mut output),
                Heard::End(code) => {
                    self.ended = Some(code);
                    return (String::from_utf8_lossy(&output).into_owned(), code.status().map(Status::code));
                }
                _ => {}
            }
        }
        panic!("the connection broke off without an end");
    }
}

/// A refusal, as the agent's answers tell theirs.
fn refusal(notice: Notice) -> Value {
    let Problem::Refused { code, detail, .. } = refused(notice) else { panic!("{notice:?}") };
    let error = if code == "method_rejected" { code.as_str() } else { "denied" };
    json!({ "error": error, "code": code, "detail": detail })
}

/// What comes to a phone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The content of data, as [`FromAgent`] reads it.
    Message(Vec<u8>),
    Notice(Notice),
    Ping {
        answer: bool,
        number: u64,
    },
    End(EndCode),
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

/// Sends a first message on a connection of its own, and returns that and message 2.
async fn ask(world: &World, message: Vec<u8>) -> Result<(Socket, Vec<u8>), Told> {
    let mut socket = open(world).await;
    socket.send(Message::binary(message)).await.unwrap();
    match answer(&mut socket).await {
        Answer::Message(message) => Ok((socket, message)),
        closed => Err(Told::Nothing(closed)),
    }
}

pub async fn redeem(world: &World, link: &Link, key: &HolderSecretKey) -> Result<Joined, Told> {
    let asking = first_message(link, key);
    let (socket, message) = ask(world, asking.message).await?;
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
    let (socket, message) = ask(world, asking.message).await?;
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
