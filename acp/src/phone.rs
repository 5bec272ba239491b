//! One connection of a phone: JSON-RPC messages, each read by the adapter and permitted under its own operation.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use sessioncap::acp::{AcpProfile, Guest, Json, Message, Reason, Refusal, RequestId, RpcError, ToPhone};
use sessioncap::agent::{Denial, PermitError};
use sessioncap::session::SessionNotice;
use sessioncap::{Action, Frame, Op};
use sessioncap_programs::agent::phone::{End, Incoming, Wire};
use sessioncap_programs::lock;

use sessioncap_programs::companion::acp::CERTIFICATES;

use crate::bridge::{Bridge, Joined, Out};
use crate::outbox::{Inbox, Next};

struct Phone {
    bridge: Arc<Bridge>,
    wire: Wire,
    guest: Arc<Mutex<Guest>>,
    /// Once the phone has named its version.
    joined: Option<(Joined, Inbox<Out>)>,
}

/// Serves a phone from its activation to its end.
pub(crate) async fn serve(bridge: Arc<Bridge>, wire: Wire) {
    let Some(upstream) = bridge.upstream(wire.session()) else {
        return wire.say_goodbye(&End::SessionEnded).await;
    };
    let guest = Guest::new(wire.session().clone(), upstream, wire.ops());
    let guest = Arc::new(Mutex::new(guest));
    let (session, credential) = (wire.session().clone(), wire.credential());
    wire.log(format!("a phone is attached to session {session} with credential {credential}"));
    let mut phone = Phone { bridge, wire, guest, joined: None };
    let end = match phone.serve().await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    // Its requests and questions go with it; a turn goes on.
    drop(phone.joined);
    phone.wire.log(format!("a phone is off session {session} with credential {credential}: {end}"));
    phone.wire.say_goodbye(&end).await;
}

enum Event {
    Wire(Incoming),
    Out(Next<Out>),
}

impl Phone {
    async fn serve(&mut self) -> Result<Infallible, End> {
        if let Some(first) = self.wire.first() {
            self.take_frame(first).await?;
        }
        loop {
            let out = async {
                match &mut self.joined {
                    Some((_, inbox)) => inbox.next().await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                biased;
                incoming = self.wire.next() => Event::Wire(incoming),
                out = out => Event::Out(out),
            };
            match event {
                Event::Wire(Incoming::Cut(denial)) => return Err(End::Over(denial)),
                Event::Wire(Incoming::Look) => {
                    self.wire.look().await?;
                    self.narrow().await?;
                }
                Event::Wire(Incoming::Frame(frame)) => {
                    let opened = self.wire.open(&frame)?;
                    self.take_frame(opened).await?;
                }
                Event::Wire(Incoming::Gone) => return Err(End::Gone),
                Event::Out(Next::Item(Out { message, question })) => {
                    let shown = self.send(message).await?;
                    if let (false, Some(question), Some((joined, _))) = (shown, question, &self.joined) {
                        let _ = lock(&self.guest).retire(question);
                        joined.cannot_answer(question);
                    }
                }
                Event::Out(Next::Overflow) => return Err(End::Lagged),
                Event::Out(Next::End) => return Err(End::SessionEnded),
            }
        }
    }

    async fn take_frame(&mut self, frame: Frame<()>) -> Result<(), End> {
        match frame {
            Frame::Data(()) if self.joined.is_none() => Err(End::Protocol),
            Frame::Data(()) => self.take_message().await,
            Frame::Notice(notice) => match SessionNotice::from_notice(notice) {
                Some(SessionNotice::Acp { version }) if self.joined.is_none() => {
                    let version = AcpProfile::agree(version).map_err(|_| End::NoCommonVersion)?;
                    self.joined =
                        Some(self.bridge.join_phone(&self.guest, &self.wire).ok_or(End::SessionEnded)?);
                    self.wire.notify(SessionNotice::Acp { version }.to_notice()).await?;
                    self.tell_certificates().await
                }
                _ => Ok(()),
            },
            Frame::Ping { answer: false, number } => self.wire.answer_ping(number).await,
            Frame::End(_) => Err(End::Left),
            _ => Ok(()),
        }
    }

    /// A phone whose credential was narrowed below its answers is waited for no longer.
    async fn narrow(&mut self) -> Result<(), End> {
        let questions = lock(&self.guest).narrow(self.wire.ops());
        for question in questions {
            let told = lock(&self.guest).retire(question);
            if let Some((joined, _)) = &self.joined {
                joined.cannot_answer(question);
            }
            if let Some(told) = told {
                self.send(told).await?;
            }
        }
        Ok(())
    }

    /// The hashes with which the phone finds out who ends its TLS.
    async fn tell_certificates(&mut self) -> Result<(), End> {
        let hashes = self.bridge.certificates();
        if hashes.is_empty() {
            return Ok(());
        }
        let hashes = hashes.into_iter().map(Json::text).collect();
        let params = Json::object([("spkiSha256", Json::List(hashes))]);
        let message = Message::Notification { method: CERTIFICATES.to_owned(), params: Some(params) };
        self.send(ToPhone { op: self.any_op(), text: message.to_text() }).await.map(drop)
    }

    /// An operation for what says nothing of the session.
    fn any_op(&self) -> Op {
        let ops = self.wire.ops();
        Op::ALL.iter().copied().find(|op| ops.contains(*op)).unwrap_or(Op::Detach)
    }

    async fn take_message(&mut self) -> Result<(), End> {
        let Self { wire, guest, joined, .. } = self;
        let Some((joined, _)) = joined else { return Err(End::Protocol) };
        let refused: Mutex<Option<Refusal>> = Mutex::default();
        let id: Mutex<Option<RequestId>> = Mutex::default();
        let done = wire
            .take(
                |bytes| {
                    let guest = lock(guest);
                    match guest.read(bytes) {
                        Ok(message) => {
                            *lock(&id) = message.id().cloned();
                            Ok((guest.action(&message), message))
                        }
                        Err(refusal) => {
                            let denial = denial(&refusal.reason);
                            *lock(&refused) = Some(refusal);
                            Err(denial)
                        }
                    }
                },
                // Inside the permit: nothing here waits.
                |message| {
                    lock(guest).take(&message)?;
                    joined.phone_sent(message);
                    Ok(())
                },
            )
            .await;
        let (refused, id) = (lock(&refused).take(), lock(&id).take());
        match done {
            Ok(None | Some(Ok(()))) => Ok(()),
            Ok(Some(Err(refusal))) => self.refuse(refusal, &Denial::FrameUnreadable).await,
            Err(PermitError::Refused(denial)) => match (refused, &denial) {
                (Some(refusal), _) => self.refuse(refusal, &denial).await,
                (None, Denial::OperationNotGranted { op }) => {
                    self.refuse(Refusal { id, reason: Reason::NotGranted(*op) }, &denial).await
                }
                (None, _) => self.answer(id.map(|id| not_allowed(id, &denial)), false, &denial).await,
            },
            Err(over) => Err(over.into()),
        }
    }

    async fn refuse(&mut self, refusal: Refusal, denial: &Denial) -> Result<(), End> {
        // Of what has no answer, only answers can come too late.
        let late = refusal.reason == Reason::NotPending;
        self.answer(refusal.answer(), late, denial).await
    }

    async fn answer(&mut self, answer: Option<String>, late: bool, denial: &Denial) -> Result<(), End> {
        match answer {
            Some(text) => self.send(ToPhone { op: self.any_op(), text }).await.map(drop),
            None if late => {
                let number = self.wire.next_number().saturating_sub(1);
                self.wire.notify(SessionNotice::Late { number }.to_notice()).await
            }
            None => self.wire.notify(self.wire.refusal(denial)).await,
        }
    }

    /// Returns whether the phone may see it. What it may not see at this moment does not come later either.
    async fn send(&mut self, message: ToPhone) -> Result<bool, End> {
        let Self { wire, joined, .. } = self;
        let overflowed = async {
            match joined {
                Some((_, inbox)) => inbox.overflowed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            sent = wire.send_message(message.op, message.text.as_bytes()) => sent.map(|sent| sent.is_ok()),
            // It takes nothing while much more comes. A frame may be half sent, so nothing can follow.
            () = overflowed => Err(End::Gone),
        }
    }
}

/// The answer to a request that the gate refuses for a reason of its own, such as an operator's rule.
fn not_allowed(id: RequestId, denial: &Denial) -> String {
    let error = RpcError {
        code: RpcError::NOT_ALLOWED,
        message: "this phone may not do that now; ask at the desktop".to_owned(),
        data: Some(Json::object([("reason", Json::text(denial.code()))])),
    };
    Message::Response { id, outcome: Err(error) }.to_text()
}

/// What the gate would call a refusal of the adapter.
fn denial(reason: &Reason) -> Denial {
    match (reason, reason.action()) {
        (Reason::OtherSession, _) => Denial::OtherSession,
        (_, Some(Action::Privileged(privilege))) => Denial::PrivilegeDenied { privilege },
        _ => Denial::FrameUnreadable,
    }
}
