//! The phone: it redeems a link, stores the credential, and attaches with it.

#[cfg(feature = "acp")]
pub mod acp;
pub mod cli;
mod follow;
mod frames;
#[cfg(feature = "image")]
pub mod picture;
mod reach;
pub mod recent;
pub mod state;

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use rand::rngs::OsRng;
use serde_json::Value;
use sessioncap::phone::{Attached, NextStep, Redeemed};
use sessioncap::session::{
    Following, FromAgent, FromPhone, NotTaken, OutputTracker, Profile, ResumePoint, SessionNotice,
};
use sessioncap::{
    CredentialBytes, EndCode, Frame, Label, Link, Notice, OpSet, PairCode, SessionId, TicketId, Timestamp,
};

use super::clock::Clock;
use super::outage::Outage;
use super::problem::{Outcome, Problem};
use super::pty::Happened;
use super::request::read_answer;
use super::transport::{self, Unproven};
use frames::Frames;
use state::Pairing;
use tokio::time::Instant;

/// How often a phone that waits to be confirmed asks again.
const ASK_AGAIN: Duration = Duration::from_millis(1_000);

/// How often a phone asks an agent that has proven nothing, before it tells the user.
pub(crate) const BRIEFLY: u32 = 5;
/// A code lives no longer than fifteen minutes, and its answer ten minutes more.
const LONGEST_JOIN: Duration = Duration::from_secs(25 * 60);

/// A connection on which the phone was admitted.
pub struct Admitted {
    socket: Unproven,
    attached: Attached,
}

/// A phone that has redeemed its link.
pub struct Joined<L = Live> {
    /// What it keeps.
    pub pairing: Pairing,
    /// The connection on which it redeemed, already admitted.
    pub live: L,
    /// Lengths of message 1 and message 2, the whole exchange.
    pub message_lengths: (usize, usize),
}

/// What a person is told while a link is redeemed.
pub enum Progress {
    /// The agent is asked.
    Connecting,
    /// The desktop has to confirm; both screens show these digits.
    Waiting(PairCode),
    /// It did not work for now, and is tried again.
    Trouble(String),
}

/// Redeems a link. The holder key is on disk before the first message leaves; after a lost answer the
/// same call gets the same credential, and so it asks again by itself, as `docs/PROTOCOL.md` section 6.4 says.
pub async fn join(link: &Link, label: &Label, file: &Path, tell: impl FnMut(Progress)) -> Outcome<Joined> {
    let Joined { pairing, live, message_lengths } =
        join_with(link, label, file, Duration::ZERO, tell).await?;
    Ok(Joined { pairing, live: Live::new(live)?, message_lengths })
}

async fn join_with(
    link: &Link,
    label: &Label,
    file: &Path,
    search: Duration,
    mut tell: impl FnMut(Progress),
) -> Outcome<Joined<Admitted>> {
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
    let begun = Instant::now();
    let (mut outage, mut tries, mut proven) = (Outage::default(), 0, false);
    tell(Progress::Connecting);
    loop {
        match redeem(link, label, &pairing, search).await {
            Ok((Redeemed::Attached { credential, attached }, socket, message_lengths)) => {
                let session = Some(attached.session.clone());
                let pairing = Pairing { credential: Some(credential), session, ..pairing };
                pairing.save(file)?;
                let live = Admitted { socket, attached };
                return Ok(Joined { pairing, live, message_lengths });
            }
            Ok((Redeemed::Waiting { code, .. }, ..)) => {
                proven = true;
                outage.over();
                tell(Progress::Waiting(code));
                tokio::time::sleep(ASK_AGAIN).await;
            }
            Err(problem) => {
                tries += 1;
                let again = match &problem {
                    Problem::Phone(error) => error.after_redeem() == NextStep::AskAgain,
                    problem => problem.is_passing(),
                };
                // An agent that has shown that it knows the ticket is worth more patience than an address.
                let patient = begun.elapsed() < LONGEST_JOIN && (proven || tries < BRIEFLY);
                if !(again && patient) {
                    return Err(match problem {
                        Problem::TurnedAway => {
                            Problem::said("the agent does not know this code; ask the desktop for a new one")
                        }
                        problem => problem,
                    });
                }
                let (pause, text) = outage.failed(&problem);
                tell(Progress::Trouble(text));
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Asks once.
async fn redeem(
    link: &Link,
    label: &Label,
    pairing: &Pairing,
    search: Duration,
) -> Outcome<(Redeemed, Unproven, (usize, usize))> {
    reach::agent(link.url(), link.agent(), search, async |socket| {
        redeem_over(socket, link, label, pairing).await
    })
    .await
}

async fn redeem_over(
    mut socket: Unproven,
    link: &Link,
    label: &Label,
    pairing: &Pairing,
) -> Outcome<(Redeemed, Unproven, (usize, usize))> {
    let asking = sessioncap::phone::redeem(link, &pairing.holder, label.clone(), &mut OsRng)?;
    let first_length = asking.message.len();
    socket.send(asking.message).await?;
    let answer = socket.receive_soon().await?;
    Ok((asking.next.finish(&answer)?, socket, (first_length, answer.len())))
}

/// Attaches with a credential. No operations named means all that it has. A renewed one is the caller's
/// to store.
pub async fn attach(pairing: &Pairing, ops: OpSet) -> Outcome<Live> {
    Live::new(attach_with(pairing, ops, Duration::ZERO).await?)
}

async fn attach_with(pairing: &Pairing, ops: OpSet, search: Duration) -> Outcome<Admitted> {
    reach::agent(&pairing.url, &pairing.agent, search, async |socket| attach_over(socket, pairing, ops).await)
        .await
}

async fn attach_over(mut socket: Unproven, pairing: &Pairing, ops: OpSet) -> Outcome<Admitted> {
    let asking =
        sessioncap::phone::attach(&pairing.agent, &pairing.holder, pairing.credential()?, ops, &mut OsRng)?;
    socket.send(asking.message).await?;
    let answer = socket.receive_soon().await?;
    let attached = asking.next.finish(&answer)?;
    Ok(Admitted { socket, attached })
}

/// Attaches with the credential in `file`. A renewed one takes its place there before the first frame
/// leaves: from that frame on the agent may retire the old one.
pub async fn come_back(file: &Path, ops: OpSet) -> Outcome<Live> {
    let mut live = Live::new(come_back_with(file, ops, Duration::ZERO).await?)?;
    live.renewed = None;
    Ok(live)
}

async fn come_back_with(file: &Path, ops: OpSet, search: Duration) -> Outcome<Admitted> {
    // Read each time: another program may have stored a renewed one.
    let mut pairing = Pairing::open(file)?;
    let admitted = attach_with(&pairing, ops, search).await?;
    if let Some(renewed) = &admitted.attached.renewed {
        pairing.credential = Some(renewed.clone());
        pairing.save(file)?;
    }
    Ok(admitted)
}

/// What an agent sends to an attached phone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The output goes on: after what was shown before, or with the screen that comes next.
    Following(Following),
    /// The present screen, which clears the terminal and takes the place of everything on it. `missing` bytes of
    /// output before it do not come; it is not known how many if there is no number.
    Screen {
        /// How many.
        missing: Option<u64>,
        /// Width of the session's terminal.
        columns: u16,
        /// Its height.
        rows: u16,
        /// What to show.
        bytes: Vec<u8>,
    },
    /// Output that was not shown before.
    Output(Vec<u8>),
    /// The answer to a request.
    Answer {
        /// What [`Live::ask`] has returned.
        number: u64,
        /// A JSON object.
        json: String,
    },
    /// Input is in the terminal, or not: what [`Live::type_in`] has returned.
    Typed(SessionNotice),
    /// The refusal of a message, or another notice.
    Refusal(Notice),
    /// Something happened in the session.
    Happened(Happened),
    /// The agent has ended its side.
    End(EndCode),
}

/// An admitted connection. The agent waits a few seconds for its first frame, which goes out with the first call.
pub struct Live {
    frames: Frames,
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
    /// What came while an answer was waited for.
    early: VecDeque<Heard>,
    tracker: OutputTracker,
}

impl Live {
    fn new(admitted: Admitted) -> Outcome<Self> {
        let Admitted { socket, attached } = admitted;
        // An agent of terminals states no certificate of its own.
        socket.require_public_certificate()?;
        let version = SessionNotice::Profile { version: Profile::VERSION };
        Ok(Self {
            session: attached.session.clone(),
            ops: attached.ops,
            agent_time: attached.agent_time,
            seconds_left: attached.seconds_left,
            renewed: attached.renewed.clone(),
            frames: Frames::new(socket, attached, version.to_notice())?,
            early: VecDeque::new(),
            tracker: OutputTracker::new(None),
        })
    }

    /// Judges by another clock whether the agent is still there.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.frames.set_clock(clock);
        self
    }

    /// Goes on after what was shown on an earlier connection.
    #[must_use]
    pub fn resume_after(mut self, shown: Option<ResumePoint>) -> Self {
        self.tracker = OutputTracker::new(shown);
        self
    }

    /// Up to where the output was shown, for [`Live::resume_after`] on the next connection.
    pub fn shown(&self) -> Option<ResumePoint> {
        self.tracker.shown()
    }

    /// Whether a frame has come on this connection.
    pub fn has_heard(&self) -> bool {
        self.frames.has_heard()
    }

    /// What comes next. Cancel-safe. A connection on which the agent answers no ping is broken off.
    pub async fn next(&mut self) -> Outcome<Heard> {
        match self.early.pop_front() {
            Some(early) => Ok(early),
            None => self.receive().await,
        }
    }

    async fn receive(&mut self) -> Outcome<Heard> {
        loop {
            let frame = self.frames.next().await?;
            if let Some(heard) = self.take(frame)? {
                return Ok(heard);
            }
        }
    }

    /// Takes a whole frame. `None` if there is nothing to tell about it.
    fn take(&mut self, frame: Frame) -> Outcome<Option<Heard>> {
        let heard = match frame {
            Frame::Data(message) => match FromAgent::from_bytes(&message)? {
                FromAgent::Output { position, bytes } => {
                    let shown = self.tracker.output(position, bytes)?;
                    // The agent sends a screen where something is missing.
                    if shown.missing != Some(0) {
                        return Err(unknown());
                    }
                    Heard::Output(shown.bytes.to_vec())
                }
                FromAgent::Screen { position, columns, rows, bytes } => {
                    let shown = self.tracker.screen(position, bytes)?;
                    Heard::Screen { missing: shown.missing, columns, rows, bytes: shown.bytes.to_vec() }
                }
                FromAgent::Following(following) => {
                    self.tracker.following(&following)?;
                    Heard::Following(following)
                }
                FromAgent::Answer { number, json } => Heard::Answer { number, json: json.to_owned() },
                FromAgent::Event(event) => Heard::Happened(Happened {
                    kind: event.kind,
                    position: event.position,
                    value: event.value,
                    text: event.text.to_owned(),
                }),
                _ => return Ok(None),
            },
            Frame::Notice(notice) => match SessionNotice::from_notice(notice) {
                Some(SessionNotice::Profile { .. }) => return Ok(None),
                Some(typed) => Heard::Typed(typed),
                None => Heard::Refusal(notice),
            },
            Frame::End(code) => Heard::End(code),
            _ => return Ok(None),
        };
        Ok(Some(heard))
    }

    /// Sends a message in as many frames as it needs, and returns its number.
    async fn send(&mut self, message: &FromPhone<'_>) -> Outcome<u64> {
        self.frames.send(&message.to_bytes()?).await
    }

    /// The number that the next message gets.
    pub fn next_number(&self) -> u64 {
        self.frames.next_number()
    }

    /// Types bytes into the session, and returns the message's number: [`Heard::Typed`] or [`Heard::Refusal`] says
    /// what became of it. Enter is `\r`. If the connection is lost before, nobody knows; it is not to be sent again.
    pub async fn type_in(&mut self, bytes: &[u8]) -> Outcome<u64> {
        self.send(&FromPhone::Input(bytes)).await
    }

    /// Interrupts what runs in front, as Ctrl-C does, ahead of everything that was typed.
    pub async fn interrupt(&mut self) -> Outcome<u64> {
        self.send(&FromPhone::Interrupt).await
    }

    /// Gives the session's terminal another size.
    pub async fn resize(&mut self, columns: u16, rows: u16) -> Outcome<u64> {
        self.send(&FromPhone::Resize { columns, rows }).await
    }

    /// One request, whose answer comes from [`Live::next`] with this number.
    pub async fn ask(&mut self, request: &Value) -> Outcome<u64> {
        self.send(&FromPhone::Request(&request.to_string())).await
    }

    /// One request and its answer. What comes first is kept for [`Live::next`].
    pub async fn call(&mut self, request: &Value) -> Outcome<Value> {
        let asked = self.ask(request).await?;
        let is_answer = |heard: &Heard| matches!(heard, Heard::Answer { number, .. } if *number == asked);
        match self.wait_for(asked, is_answer).await? {
            Heard::Answer { json, .. } => read_answer(json.as_bytes()),
            _ => Err(unknown()),
        }
    }

    /// Starts the output: what was missed after [`Live::resume_after`], or the screen first. [`Live::next`] brings both.
    pub async fn start_output(&mut self) -> Outcome<Following> {
        let asked = self.send(&self.tracker.follow()).await?;
        match self.wait_for(asked, |heard| matches!(heard, Heard::Following(_))).await? {
            Heard::Following(following) => Ok(following),
            _ => Err(unknown()),
        }
    }

    /// Waits until it is known what became of input.
    pub async fn typed(&mut self, asked: u64) -> Outcome<()> {
        let is_taken = |heard: &Heard| matches!(heard, Heard::Typed(SessionNotice::Taken { number }) if *number == asked);
        self.wait_for(asked, is_taken).await.map(drop)
    }

    /// Waits for what `is_it` names, or the refusal of the message with this number.
    async fn wait_for(&mut self, asked: u64, is_it: impl Fn(&Heard) -> bool) -> Outcome<Heard> {
        let waiting = async {
            loop {
                match self.receive().await? {
                    heard if is_it(&heard) => return Ok(heard),
                    Heard::Refusal(notice) if is_refusal(&notice) && notice.number == asked => {
                        return Err(refused(notice));
                    }
                    Heard::Typed(SessionNotice::NotTaken { number, why }) if number == asked => {
                        return Err(not_taken(why));
                    }
                    Heard::End(code) => return Err(ended(code)),
                    early => self.early.push_back(early),
                }
            }
        };
        tokio::time::timeout(transport::PATIENCE, waiting).await.unwrap_or_else(|_| Err(too_slow()))
    }

    /// Ends this side only: what the agent still has to say can be read.
    pub async fn finish(&mut self) -> Outcome<()> {
        self.frames.finish().await
    }

    /// Leaves. The session continues.
    pub async fn leave(self) {
        self.frames.leave().await;
    }
}

fn unknown() -> Problem {
    Problem::said("the agent sent something that this client does not know; update it")
}

fn too_slow() -> Problem {
    Problem::TooSlow { seconds: transport::PATIENCE.as_secs() }
}

/// Whether a notice refuses a message.
fn is_refusal(notice: &Notice) -> bool {
    (Notice::NOT_GRANTED..=Notice::DISCARDED).contains(&notice.code)
}

/// A refusal as the client's own problem.
pub fn refused(notice: Notice) -> Problem {
    let code = match notice.code {
        Notice::NOT_GRANTED => "operation_not_granted",
        Notice::NEVER_ALLOWED => "privilege_denied",
        Notice::OTHER_SESSION => "other_session",
        Notice::UNREADABLE => "method_rejected",
        Notice::DISCARDED => "message_discarded",
        _ => "notice",
    };
    Problem::Refused { code: code.to_owned(), detail: notice.to_string(), agent_time: None }
}

/// Input that is not in the terminal, as the client's own problem.
pub fn not_taken(why: NotTaken) -> Problem {
    let detail = match why {
        NotTaken::TooMuch => "the program does not read what is typed; try again later",
        NotTaken::Ended => "the session has ended",
        NotTaken::Interrupted => "an interrupt has discarded it",
        _ => "it was not typed",
    };
    Problem::Refused { code: "not_taken".to_owned(), detail: detail.to_owned(), agent_time: None }
}

/// Why the agent has ended its side.
pub fn ended(code: EndCode) -> Problem {
    let (code, detail) = match (code, code.status()) {
        (_, Some(status)) => (status.code(), status.to_string()),
        (EndCode::LEFT, _) => ("left", "it has nothing more to send".to_owned()),
        (EndCode::TOO_SLOW, _) => ("too_slow", "this phone reads too slowly; attach again".to_owned()),
        (Profile::NO_COMMON_VERSION, _) => (
            "version",
            "it does not speak this client's version of the session profile; update one of them".to_owned(),
        ),
        (EndCode::PROTOCOL, _) => ("protocol", "it could not read this client; update it".to_owned()),
        _ => ("closed", "attach again".to_owned()),
    };
    Problem::Ended { code: code.to_owned(), detail }
}

/// Whether the agent has said in the channel that attaching again cannot help, or this program cannot go on. Whatever
/// has not proven that it is the agent decides nothing.
pub fn is_final(problem: &Problem) -> bool {
    match problem {
        Problem::Phone(error) => !matches!(error.after_attach(), NextStep::AskLater | NextStep::AskBriefly),
        // The agent says the others in the next handshake too, if they are for good.
        Problem::Ended { code, .. } => matches!(code.as_str(), "protocol" | "version"),
        problem => !problem.is_passing(),
    }
}
