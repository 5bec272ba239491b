//! The phone: it redeems a link, stores the credential, and attaches with it.

pub mod cli;
mod follow;
pub mod state;

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use rand::rngs::OsRng;
use serde_json::Value;
use sessioncap::phone::{Attached, NextStep, Redeemed};
use sessioncap::{
    CredentialBytes, EndCode, Frame, Label, Link, Notice, OpSet, PairCode, SessionId, TicketId, Timestamp,
};

use super::agent::RAW;
use super::problem::{Outcome, Problem};
use super::request::read_answer;
use super::transport::{self, Secure};
use state::Pairing;

/// How often a phone that waits to be confirmed asks again.
const ASK_AGAIN: Duration = Duration::from_millis(1_000);

/// A phone that has redeemed its link.
pub struct Joined {
    /// What it keeps.
    pub pairing: Pairing,
    /// The connection on which it redeemed, already admitted.
    pub live: Live,
    /// Lengths of message 1 and message 2, the whole exchange.
    pub message_lengths: (usize, usize),
}

/// Redeems a link. The holder key is on disk before the first message leaves; after a lost answer the
/// same call gets the same credential. `waiting` gets the digits while the desktop has to confirm.
pub async fn join(
    link: &Link,
    label: &Label,
    file: &Path,
    mut waiting: impl FnMut(&PairCode),
) -> Outcome<Joined> {
    let ticket: TicketId = link.ticket().public_key().id();
    let pairing = match Pairing::load(file)? {
        Some(pairing) if pairing.ticket == ticket => pairing,
        Some(Pairing { credential: Some(_), .. }) => {
            return Err(Problem::Said(format!(
                "{} holds another pairing; name another file with --state",
                file.display()
            )));
        }
        // One key for one pairing: what never became one is replaced.
        Some(_) | None => Pairing::begin(link, ticket),
    };
    pairing.save(file)?;
    loop {
        let asking = sessioncap::phone::redeem(link, &pairing.holder, label.clone(), &mut OsRng)?;
        let mut socket = transport::connect(link.url()).await?;
        let first_length = asking.message.len();
        transport::send(&mut socket, asking.message).await?;
        let answer = transport::receive_soon(&mut socket).await.map_err(|problem| match problem {
            Problem::TurnedAway => {
                Problem::said("the agent does not know this code; ask the desktop for a new one")
            }
            problem => problem,
        })?;
        match asking.next.finish(&answer)? {
            Redeemed::Attached { credential, attached } => {
                let session = Some(attached.session.clone());
                let pairing = Pairing { credential: Some(credential), session, ..pairing };
                pairing.save(file)?;
                let live = Live::new(socket, attached);
                return Ok(Joined { pairing, live, message_lengths: (first_length, answer.len()) });
            }
            Redeemed::Waiting { code, .. } => {
                waiting(&code);
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    }
}

/// Attaches with a credential. No operations named means all that it has. A renewed one is the caller's
/// to store.
pub async fn attach(pairing: &Pairing, ops: OpSet) -> Outcome<Live> {
    let asking =
        sessioncap::phone::attach(&pairing.agent, &pairing.holder, pairing.credential()?, ops, &mut OsRng)?;
    let mut socket = transport::connect(&pairing.url).await?;
    transport::send(&mut socket, asking.message).await?;
    let answer = transport::receive_soon(&mut socket).await?;
    let attached = asking.next.finish(&answer)?;
    Ok(Live::new(socket, attached))
}

/// Attaches with the credential in `file`. A renewed one takes its place there before the first frame
/// leaves: from that frame on the agent may retire the old one.
pub async fn come_back(file: &Path, ops: OpSet) -> Outcome<Live> {
    // Read each time: another program may have stored a renewed one.
    let mut pairing = Pairing::open(file)?;
    let mut live = attach(&pairing, ops).await?;
    if let Some(renewed) = live.renewed.take() {
        pairing.credential = Some(renewed);
        pairing.save(file)?;
    }
    Ok(live)
}

/// An admitted connection. The agent waits a few seconds for its first frame.
pub struct Live {
    stream: Secure,
    /// The session.
    pub session: SessionId,
    /// The operations of this connection.
    pub ops: OpSet,
    /// The agent's time at the handshake.
    pub agent_time: Timestamp,
    /// How long the credential still lives.
    pub seconds_left: u64,
    /// A renewed credential, to be stored instead of the old one.
    pub renewed: Option<CredentialBytes>,
    /// Output that came while an answer was waited for.
    early: VecDeque<Vec<u8>>,
}

/// The frames of an agent to an attached phone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromAgent {
    /// Terminal output.
    Output(Vec<u8>),
    /// The answer to the oldest request without one.
    Answer(Vec<u8>),
    /// The refusal of the oldest request without an answer, or of input.
    Refusal(Notice),
    /// The agent has ended its side.
    End(EndCode),
}

impl Live {
    fn new(socket: transport::Socket, attached: Attached) -> Self {
        Self {
            stream: Secure::new(socket, attached.channel),
            session: attached.session,
            ops: attached.ops,
            agent_time: attached.agent_time,
            seconds_left: attached.seconds_left,
            renewed: attached.renewed,
            early: VecDeque::new(),
        }
    }

    /// The next frame. Cancel-safe.
    pub async fn next(&mut self) -> Outcome<FromAgent> {
        match self.early.pop_front() {
            Some(output) => Ok(FromAgent::Output(output)),
            None => self.receive().await,
        }
    }

    async fn receive(&mut self) -> Outcome<FromAgent> {
        loop {
            let unknown =
                || Problem::said("the agent sent something that this client does not know; update it");
            let plaintext = self.stream.receive().await?.ok_or_else(unknown)?;
            match Frame::from_bytes(&plaintext)? {
                Frame::Data(data) => match data.split_first() {
                    Some((&RAW, output)) => return Ok(FromAgent::Output(output.to_vec())),
                    Some((b'{', _)) => return Ok(FromAgent::Answer(data)),
                    _ => return Err(unknown()),
                },
                Frame::Notice(notice) => return Ok(FromAgent::Refusal(notice)),
                Frame::End(code) => return Ok(FromAgent::End(code)),
                Frame::Ping { answer: false, number } => {
                    self.send(&Frame::Ping { answer: true, number }).await?;
                }
                _ => {}
            }
        }
    }

    async fn send(&mut self, frame: &Frame) -> Outcome<()> {
        self.stream.send(&frame.to_bytes()).await
    }

    /// Types bytes into the session.
    pub async fn type_in(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.send(&Frame::Data([&[RAW], bytes].concat())).await
    }

    /// One request and its answer. Output that comes first is kept for [`Live::next`].
    pub async fn call(&mut self, request: &Value) -> Outcome<Value> {
        self.send(&Frame::Data(request.to_string().into_bytes())).await?;
        let answer = async {
            loop {
                match self.receive().await? {
                    FromAgent::Output(output) => self.early.push_back(output),
                    FromAgent::Answer(answer) => return read_answer(&answer),
                    FromAgent::Refusal(notice) => return Err(refused(notice)),
                    FromAgent::End(code) => return Err(ended(code)),
                }
            }
        };
        let patience = transport::PATIENCE;
        let slow = Err(Problem::TooSlow { seconds: patience.as_secs() });
        tokio::time::timeout(patience, answer).await.unwrap_or(slow)
    }

    /// One request, whose answer comes from [`Live::next`].
    pub async fn ask(&mut self, request: &Value) -> Outcome<()> {
        self.send(&Frame::Data(request.to_string().into_bytes())).await
    }

    /// Starts the output, with the recent screen first.
    pub async fn start_output(&mut self) -> Outcome<()> {
        let session = self.session.clone();
        let request = serde_json::json!({ "method": "shell.attach_session", "id": session, "tail": true });
        self.call(&request).await.map(drop)
    }

    /// Ends this side only: what the agent still has to say can be read.
    pub async fn finish(&mut self) -> Outcome<()> {
        self.send(&Frame::End(EndCode::LEFT)).await
    }

    /// Leaves. The session continues.
    pub async fn leave(self) {
        self.stream.end_with(&Frame::<Vec<u8>>::End(EndCode::LEFT).to_bytes()).await;
    }
}

/// A refusal as the client's own problem.
pub fn refused(notice: Notice) -> Problem {
    let code = match notice.code {
        Notice::NOT_GRANTED => "operation_not_granted",
        Notice::NEVER_ALLOWED => "privilege_denied",
        Notice::OTHER_SESSION => "other_session",
        Notice::UNREADABLE => "method_rejected",
        _ => "notice",
    };
    Problem::Refused { code: code.to_owned(), detail: notice.to_string(), agent_time: None }
}

/// Why the agent has ended its side.
pub fn ended(code: EndCode) -> Problem {
    let (code, detail) = match (code, code.status()) {
        (_, Some(status)) => (status.code(), status.to_string()),
        (EndCode::LEFT, _) => ("left", "it has nothing more to send".to_owned()),
        (EndCode::TOO_SLOW, _) => ("too_slow", "this phone reads too slowly; attach again".to_owned()),
        (EndCode::PROTOCOL, _) => ("protocol", "it could not read this client; update it".to_owned()),
        _ => ("closed", "attach again".to_owned()),
    };
    Problem::Ended { code: code.to_owned(), detail }
}

/// Whether attaching again later cannot help.
pub fn is_final(problem: &Problem) -> bool {
    match problem {
        Problem::Phone(error) => error.after_attach() != NextStep::AskLater,
        Problem::Library(_)
        | Problem::Desktop(_)
        | Problem::Agent(_)
        | Problem::Link(_)
        | Problem::Rule(_)
        | Problem::Clock(_)
        | Problem::TurnedAway
        | Problem::Said(_)
        | Problem::Refused { .. } => true,
        // The agent says it in the next handshake too, if it is for good.
        Problem::Ended { .. }
        | Problem::BrokenOff
        | Problem::TooSlow { .. }
        | Problem::Unreachable { .. } => false,
    }
}
