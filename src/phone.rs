//! The phone's side: redeem a link, then attach with the credential, each in one round trip
//! (`docs/PROTOCOL.md` section 6).
//!
//! Store the [`HolderSecretKey`] before sending the first message. If the answer is lost, redeem again with
//! the same key; the agent returns the same credential. [`PhoneError::after_redeem`] and
//! [`PhoneError::after_attach`] return what to do after any other failure.

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

/// Starts a redemption: returns the first message and the state that reads its answer. Costs one Ed25519
/// signature and three scalar multiplications.
///
/// `label` is this phone's name for itself, shown on the desktop.
///
/// # Errors
/// [`PhoneError::Internal`], which is a defect of this crate.
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

/// Starts an attach with a stored credential. An empty `ops` asks for all operations of the credential. Costs
/// three scalar multiplications.
///
/// # Errors
/// [`PhoneError::Internal`], which is a defect of this crate.
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

/// Writes message 1. Every request fits, and Noise accepts every key of this crate.
fn start<R: RngCore + CryptoRng>(
    request: &Request,
    holder: &HolderSecretKey,
    agent: &AgentPublicKey,
    rng: &mut R,
) -> Result<Started, PhoneError> {
    let payload = request.to_payload().map_err(PhoneError::Internal)?;
    Initiator::start(holder, agent, &payload, rng).map_err(PhoneError::Internal)
}

/// Reads message 2, whatever its answer.
fn read(noise: AwaitingReply, message: &[u8]) -> Result<(Answer, Channel), PhoneError> {
    let finished = noise.finish(message).map_err(|_| PhoneError::AnswerUnreadable)?;
    let answer = Answer::from_payload(&finished.payload).map_err(PhoneError::AnswerMalformed)?;
    Ok((answer, finished.channel))
}

/// A message for the agent, and the state that reads its answer.
#[derive(Debug)]
#[must_use = "send the message and read the answer"]
#[non_exhaustive]
pub struct Asking<S> {
    /// The message to send as one binary WebSocket message. If the connection breaks before an answer
    /// arrives, the same message may be sent again while the app runs; a new one works as well.
    pub message: Vec<u8>,
    /// The state that reads the answer.
    pub next: S,
}

/// The state that waits for the answer to a redemption.
#[derive(Debug)]
pub struct Redeeming {
    noise: AwaitingReply,
    holder: HolderSecretKey,
    agent: AgentPublicKey,
    ticket: crate::id::TicketId,
}

/// The state that waits for the answer to an attach.
#[derive(Debug)]
pub struct Attaching {
    noise: AwaitingReply,
}

/// The result of a redemption.
#[derive(Debug)]
#[must_use = "store the credential, or wait and ask again"]
pub enum Redeemed {
    /// The phone is admitted. Store the credential, and send a first frame at once.
    Attached {
        /// The credential, to be stored like a password beside the holder key.
        credential: CredentialBytes,
        /// The live connection.
        attached: Attached,
    },
    /// The desktop has to confirm. Show the digits, and redeem again in a few seconds.
    Waiting {
        /// The digits that the desktop shows too.
        code: PairCode,
        /// How long the ticket can still be redeemed.
        seconds_left: u64,
    },
}

/// An admitted connection.
#[derive(Debug)]
#[non_exhaustive]
pub struct Attached {
    /// The encrypted channel. The agent waits a few seconds for the first frame.
    pub channel: Channel,
    /// The session.
    pub session: SessionId,
    /// The credential's id.
    pub id: CredentialId,
    /// What this connection may do.
    pub ops: OpSet,
    /// The agent's time. The phone's own clock is not used.
    pub agent_time: Timestamp,
    /// How long the credential is still valid.
    pub seconds_left: u64,
    /// A renewed credential to store instead of the old one.
    pub renewed: Option<CredentialBytes>,
}

impl Redeeming {
    /// Reads the answer. Costs two scalar multiplications.
    ///
    /// # Errors
    /// [`PhoneError::AnswerUnreadable`] if it is not from the link's agent, [`PhoneError::AnswerMalformed`]
    /// if it is malformed, [`PhoneError::AnswerMismatch`] if it admits without a credential,
    /// [`PhoneError::Refused`] if the agent refuses. [`PhoneError::after_redeem`] returns what to do next.
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
    /// malformed, [`PhoneError::AnswerMismatch`] if it answers a redemption, [`PhoneError::Refused`] if the
    /// agent refuses. [`PhoneError::after_attach`] returns what to do next.
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
