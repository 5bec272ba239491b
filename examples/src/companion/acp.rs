//! A phone at a bridge of the Agent Client Protocol: it prompts, watches and answers. Section 17 of the protocol document
//! says what goes through the channel.

pub mod cli;
pub mod show;

use std::path::Path;
use std::time::Duration;

use sessioncap::acp::{AcpProfile, Json, Message, RequestId};
use sessioncap::session::SessionNotice;
use sessioncap::{EndCode, Frame, Label, Link, Notice, OpSet, SessionId};

use super::frames::Frames;
use super::{Admitted, Joined, Progress, come_back_with, ended, join_with, refused, unknown};
use crate::problem::{Outcome, Problem};
use crate::tls::SpkiHash;

/// A message of a bridge.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// A JSON-RPC message.
    Message(Message),
    /// The refusal of a message without an answer of its own, or another notice.
    Notice(Notice),
    /// The bridge has ended its side.
    End(EndCode),
}

/// An admitted connection. The bridge waits a few seconds for its first frame, which goes out with the first call.
pub struct Acp {
    frames: Frames,
    /// The session.
    pub session: SessionId,
    /// The operations of this connection.
    pub ops: OpSet,
    /// How long the credential still lives.
    pub seconds_left: u64,
    /// The ids of requests.
    next_id: i64,
    /// Whether it is known who ends TLS.
    compared: bool,
}

/// The bridge's notification of the hashes of its certificates' keys.
pub const CERTIFICATES: &str = "_sessioncap/certificates";

/// How long the local network is searched for a bridge that is not at its address, unless it is said otherwise. On a
/// busy machine or network a record comes late, and the first to come may be somebody else's.
pub const SEARCH: Duration = Duration::from_secs(15);

/// Redeems a link at a bridge, as [`super::join`]. If it is not at its address, it is searched for as long as said.
pub async fn join(
    link: &Link,
    label: &Label,
    file: &Path,
    search: Duration,
    tell: impl FnMut(Progress),
) -> Outcome<Joined<Acp>> {
    let Joined { pairing, live, message_lengths } = join_with(link, label, file, search, tell).await?;
    Ok(Joined { pairing, live: Acp::new(live)?, message_lengths })
}

impl Acp {
    fn new(admitted: Admitted) -> Outcome<Self> {
        let Admitted { socket, attached } = admitted;
        let version = SessionNotice::Acp { version: AcpProfile::VERSION }.to_notice();
        // With a public certificate, or without TLS, there is nothing to wait for.
        let compared = socket.require_public_certificate().is_ok();
        Ok(Self {
            compared,
            session: attached.session.clone(),
            ops: attached.ops,
            seconds_left: attached.seconds_left,
            frames: Frames::new(socket, attached, version)?,
            next_id: 0,
        })
    }

    /// Attaches with the credential in `file`, where a renewed one is stored. If the bridge is not at its address, it is
    /// searched for as long as said.
    pub async fn come_back(file: &Path, search: Duration) -> Outcome<Self> {
        Self::new(come_back_with(file, OpSet::EMPTY, search).await?)
    }

    /// What comes next. Cancel-safe.
    pub async fn next(&mut self) -> Outcome<Heard> {
        loop {
            match self.frames.next().await? {
                Frame::Data(bytes) => {
                    let message = Message::from_bytes(&bytes).map_err(|_| unknown())?;
                    match &message {
                        Message::Notification { method, params } if method == CERTIFICATES => {
                            self.compare(params.as_ref())?;
                        }
                        // The bridge states them before everything else.
                        _ if !self.compared => return Err(unknown()),
                        _ => return Ok(Heard::Message(message)),
                    }
                }
                Frame::Notice(Notice { code: SessionNotice::ACP, .. }) => {}
                Frame::Notice(notice) => return Ok(Heard::Notice(notice)),
                Frame::End(code) => return Ok(Heard::End(code)),
                _ => {}
            }
        }
    }

    /// Compares the certificate below the channel with the hashes that the bridge states in it. Where it is another's,
    /// somebody on the way ends TLS, and the connection is over.
    fn compare(&mut self, params: Option<&Json>) -> Outcome<()> {
        let Some(seen) = self.frames.certificate() else { return Ok(()) };
        let Some(Json::List(stated)) = params.and_then(|params| params.get("spkiSha256")) else {
            return Err(unknown());
        };
        let stated: Outcome<Vec<SpkiHash>> =
            stated.iter().map(|hash| hash.as_text().unwrap_or_default().parse()).collect();
        seen.compare(&stated?)?;
        self.compared = true;
        Ok(())
    }

    /// Sends a message.
    pub async fn send(&mut self, message: &Message) -> Outcome<()> {
        self.send_text(&message.to_text()).await
    }

    /// Sends a message as it is.
    pub async fn send_text(&mut self, text: &str) -> Outcome<()> {
        self.frames.send(text.as_bytes()).await.map(drop)
    }

    /// Sends a request, and returns its id. The answer comes from [`Acp::next`].
    pub async fn ask(&mut self, method: &str, params: Json) -> Outcome<RequestId> {
        let id = RequestId::Number(self.next_id);
        self.next_id = self.next_id.saturating_add(1);
        let message = Message::Request { id: id.clone(), method: method.to_owned(), params: Some(params) };
        self.send(&message).await?;
        Ok(id)
    }

    /// Sends a request and waits for its answer. What comes first is given to `meanwhile`.
    pub async fn call(
        &mut self,
        method: &str,
        params: Json,
        mut meanwhile: impl FnMut(Message),
    ) -> Outcome<Json> {
        let asked = self.ask(method, params).await?;
        loop {
            match self.next().await? {
                Heard::Message(Message::Response { id, outcome }) if id == asked => {
                    return outcome.map_err(|error| refusal(&error));
                }
                Heard::Message(message) => meanwhile(message),
                Heard::Notice(notice) => return Err(refused(notice)),
                Heard::End(code) => return Err(ended(code)),
            }
        }
    }

    /// Sends the first request, after which updates and questions come.
    pub async fn initialize(&mut self, meanwhile: impl FnMut(Message)) -> Outcome<Json> {
        let params =
            Json::object([("protocolVersion", Json::integer(1)), ("clientCapabilities", Json::object([]))]);
        self.call("initialize", params, meanwhile).await
    }

    /// The parameters of a prompt.
    pub fn prompt(&self, text: &str) -> Json {
        let block = Json::object([("type", Json::text("text")), ("text", Json::text(text))]);
        Json::object([("sessionId", Json::text(self.session.as_str())), ("prompt", Json::List(vec![block]))])
    }

    /// Asks the agent to stop what it does.
    pub async fn cancel(&mut self) -> Outcome<()> {
        let params = Json::object([("sessionId", Json::text(self.session.as_str()))]);
        self.send(&Message::Notification { method: "session/cancel".to_owned(), params: Some(params) }).await
    }

    /// Answers a question with one of its options, or with none.
    pub async fn answer(&mut self, question: RequestId, option: Option<&str>) -> Outcome<()> {
        let outcome = match option {
            Some(option) => {
                Json::object([("outcome", Json::text("selected")), ("optionId", Json::text(option))])
            }
            None => Json::object([("outcome", Json::text("cancelled"))]),
        };
        let outcome = Json::object([("outcome", outcome)]);
        self.send(&Message::Response { id: question, outcome: Ok(outcome) }).await
    }

    /// Leaves. The session continues.
    pub async fn leave(self) {
        self.frames.leave().await;
    }
}

/// A JSON-RPC error as the client's own problem.
pub fn refusal(error: &sessioncap::acp::RpcError) -> Problem {
    let reason = error.data.as_ref().and_then(|data| data.get("reason")).and_then(Json::as_text);
    let code = reason.map_or_else(|| error.code.to_string(), ToOwned::to_owned);
    Problem::Refused { code, detail: error.message.clone(), agent_time: None }
}
