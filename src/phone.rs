//! The phone's side: redeem a link, then attach with the credential, each in one round trip
//! (`docs/PROTOCOL.md` section 6).
//!
//! Store the [`HolderSecretKey`] before the first message is sent. If the answer gets lost, redeem
//! again with the same key: the agent gives the same credential. What to do after any other failure says
//! [`PhoneError::after_redeem`] or [`PhoneError::after_attach`].

mod error;

pub use error::{NextStep, PhoneError};

use rand_core::{CryptoRng, RngCore};

use crate::clock::Timestamp;
use crate::credential::bytes::CredentialBytes;
use crate::id::{CredentialId, SessionId};
use crate::key::{AgentPublicKey, HolderSecretKey};
use crate::label::Label;
use crate::op::OpSet;
use crate::protocol::handshake::{Answer, Request};
use crate::protocol::link::Link;
use crate::protocol::noise::{AwaitingReply, Channel, Initiator, Started};
use crate::protocol::ticket::PairCode;

/// Begins a redemption: the first message, and what reads its answer. Costs one Ed25519 signature
/// and three scalar multiplications.
///
/// `label` is this phone's name for itself, shown on the desktop.
///
/// # Errors
/// [`PhoneError::Internal`], which would be a defect of this crate.
pub fn redeem<R: RngCore + CryptoRng>(
    link: &Link,
    holder: &HolderSecretKey,
    label: Label,
    rng: &mut R,
) -> Result<Asking<Redeeming>, PhoneError> {
    let proof = link.ticket().prove(link.agent(), &holder.public());
    let ticket = proof.id;
    let request = Request::Redeem { proof, label };
    let started = start(&request, holder, link.agent(), rng)?;
    let next = Redeeming { noise: started.next, holder: holder.clone(), agent: *link.agent(), ticket };
    Ok(Asking { message: started.message, next })
}

/// Begins an attach with a stored credential. No operations named means all that it has. Costs three
/// scalar multiplications.
///
/// # Errors
/// [`PhoneError::Internal`], which would be a defect of this crate.
pub fn attach<R: RngCore + CryptoRng>(
    agent: &AgentPublicKey,
    holder: &HolderSecretKey,
    credential: &CredentialBytes,
    ops: OpSet,
    rng: &mut R,
) -> Result<Asking<Attaching>, PhoneError> {
    let request = Request::Attach { ops, credential: credential.clone() };
    let started = start(&request, holder, agent, rng)?;
    Ok(Asking { message: started.message, next: Attaching { noise: started.next } })
}

/// Every request fits, and every key of this crate is one that Noise takes.
fn start<R: RngCore + CryptoRng>(
    request: &Request,
    holder: &HolderSecretKey,
    agent: &AgentPublicKey,
    rng: &mut R,
) -> Result<Started, PhoneError> {
    let payload = request.to_payload().map_err(PhoneError::Internal)?;
    Initiator::start(holder, agent, &payload, rng).map_err(PhoneError::Internal)
}

/// Reads message 2, whatever it answers.
fn read(noise: AwaitingReply, message: &[u8]) -> Result<(Answer, Channel), PhoneError> {
    let finished = noise.finish(message).map_err(|_| PhoneError::AnswerUnreadable)?;
    let answer = Answer::from_payload(&finished.payload).map_err(PhoneError::AnswerMalformed)?;
    Ok((answer, finished.channel))
}

/// A message for the agent, and the state that reads the answer to it.
#[derive(Debug)]
#[must_use = "send the message and read the answer"]
#[non_exhaustive]
pub struct Asking<S> {
    /// To be sent as one binary WebSocket message. The same message may be sent again if the
    /// connection breaks before an answer comes, but only as long as the app runs: a new one is as
    /// good.
    pub message: Vec<u8>,
    /// Reads the answer.
    pub next: S,
}

/// Waits for the answer to a redemption.
#[derive(Debug)]
pub struct Redeeming {
    noise: AwaitingReply,
    holder: HolderSecretKey,
    agent: AgentPublicKey,
    ticket: crate::id::TicketId,
}

/// Waits for the answer to an attach.
#[derive(Debug)]
pub struct Attaching {
    noise: AwaitingReply,
}

/// What a redemption led to.
#[derive(Debug)]
#[must_use = "store the credential, or wait and ask again"]
pub enum Redeemed {
    /// The phone is in. Store the credential; send a first frame at once.
    Attached {
        /// To be stored like a password, beside the holder key.
        credential: CredentialBytes,
        /// The live connection.
        attached: Attached,
    },
    /// The desktop has to confirm. Show the digits, and redeem again in a few seconds.
    Waiting {
        /// The same digits as on the desktop.
        code: PairCode,
        /// How long the ticket still lives.
        seconds_left: u64,
    },
}

/// An admitted connection.
#[derive(Debug)]
#[non_exhaustive]
pub struct Attached {
    /// The transport. The agent waits a few seconds for the first frame.
    pub channel: Channel,
    /// The session.
    pub session: SessionId,
    /// The credential's id.
    pub id: CredentialId,
    /// What this connection may do.
    pub ops: OpSet,
    /// The agent's time. The phone's own clock is never asked.
    pub agent_time: Timestamp,
    /// How long the credential still lives.
    pub seconds_left: u64,
    /// A renewed credential to store instead of the old one.
    pub renewed: Option<CredentialBytes>,
}

impl Redeeming {
    /// Reads the answer. Costs two scalar multiplications.
    ///
    /// # Errors
    /// [`PhoneError::AnswerUnreadable`] if it is not from the agent of the link,
    /// [`PhoneError::AnswerMalformed`] if it is no answer, [`PhoneError::AnswerMismatch`] if an admission
    /// brings no credential, [`PhoneError::Refused`] if the agent says no. What to do about it says
    /// [`PhoneError::after_redeem`].
    pub fn finish(self, message: &[u8]) -> Result<Redeemed, PhoneError> {
        let (answer, channel) = read(self.noise, message)?;
        match answer {
            Answer::Admitted(admitted) => {
                let credential = admitted.credential.clone().ok_or(PhoneError::AnswerMismatch)?;
                let attached = Attached::new(
                    crate::protocol::handshake::Admitted { credential: None, ..admitted },
                    channel,
                );
                Ok(Redeemed::Attached { credential, attached })
            }
            Answer::Pending { seconds_left, nonce, .. } => {
                let code = PairCode::new(&self.ticket, &self.agent, &self.holder.public(), &nonce);
                Ok(Redeemed::Waiting { code, seconds_left })
            }
            Answer::Refused { status, .. } => Err(PhoneError::Refused(status)),
        }
    }
}

impl Attaching {
    /// Reads the answer. Costs two scalar multiplications.
    ///
    /// # Errors
    /// [`PhoneError::AnswerUnreadable`] if it is not from the agent, [`PhoneError::AnswerMalformed`] if it is
    /// no answer, [`PhoneError::AnswerMismatch`] for one that belongs to a redemption,
    /// [`PhoneError::Refused`] if the agent says no. What to do about it says [`PhoneError::after_attach`].
    pub fn finish(self, message: &[u8]) -> Result<Attached, PhoneError> {
        let (answer, channel) = read(self.noise, message)?;
        match answer {
            Answer::Admitted(admitted) => Ok(Attached::new(admitted, channel)),
            Answer::Pending { .. } => Err(PhoneError::AnswerMismatch),
            Answer::Refused { status, .. } => Err(PhoneError::Refused(status)),
        }
    }
}

impl Attached {
    fn new(admitted: crate::protocol::handshake::Admitted, channel: Channel) -> Self {
        Self {
            channel,
            session: admitted.session,
            id: admitted.id,
            ops: admitted.ops,
            agent_time: admitted.agent_time,
            seconds_left: admitted.seconds_left,
            renewed: admitted.credential,
        }
    }
}
