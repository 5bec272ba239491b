//! The phone's side: redeem a link, then attach with the credential, each in one round trip
//! (`docs/PROTOCOL.md` section 6).
//!
//! Store the [`HolderSecretKey`] before the first message is sent. If the answer gets lost, redeem
//! again with the same key: the agent gives the same credential.

use rand_core::{CryptoRng, RngCore};

use crate::clock::Timestamp;
use crate::credential::bytes::CredentialBytes;
use crate::error::Error;
use crate::id::{CredentialId, SessionId};
use crate::key::{AgentPublicKey, HolderSecretKey};
use crate::label::Label;
use crate::op::OpSet;
use crate::protocol::handshake::{Answer, Request};
use crate::protocol::link::Link;
use crate::protocol::noise::{AwaitingReply, Channel, Initiator};
use crate::protocol::ticket::PairCode;

/// Begins a redemption: the first message, and what reads its answer. Costs one Ed25519 signature
/// and three scalar multiplications.
///
/// `label` is this phone's name for itself, shown on the desktop.
///
/// # Errors
/// [`Error::Noise`], which does not happen with the keys of this crate.
pub fn redeem<R: RngCore + CryptoRng>(
    link: &Link,
    holder: &HolderSecretKey,
    label: Label,
    rng: &mut R,
) -> Result<Asking<Redeeming>, Error> {
    let proof = link.ticket().prove(link.agent(), &holder.public());
    let ticket = proof.id;
    let payload = Request::Redeem { proof, label }.to_payload()?;
    let started = Initiator::start(holder, link.agent(), &payload, rng)?;
    let next = Redeeming { noise: started.next, holder: holder.clone(), agent: *link.agent(), ticket };
    Ok(Asking { message: started.message, next })
}

/// Begins an attach with a stored credential. No operations named means all that it has. Costs three
/// scalar multiplications.
///
/// # Errors
/// [`Error::Noise`], which does not happen with the keys of this crate.
pub fn attach<R: RngCore + CryptoRng>(
    agent: &AgentPublicKey,
    holder: &HolderSecretKey,
    credential: &CredentialBytes,
    ops: OpSet,
    rng: &mut R,
) -> Result<Asking<Attaching>, Error> {
    let payload = Request::Attach { ops, credential: credential.clone() }.to_payload()?;
    let started = Initiator::start(holder, agent, &payload, rng)?;
    Ok(Asking { message: started.message, next: Attaching { noise: started.next } })
}

/// A message for the agent, and the state that reads the answer to it.
#[derive(Debug)]
#[must_use = "send the message and read the answer"]
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
    /// [`Error::Noise`] if it is not from the agent of the link, [`Error::Refused`] if the agent says
    /// no, [`Error::AnswerMismatch`] if an admission brings no credential.
    pub fn finish(self, message: &[u8]) -> Result<Redeemed, Error> {
        let finished = self.noise.finish(message)?;
        match Answer::from_payload(&finished.payload)? {
            Answer::Admitted(admitted) => {
                let credential = admitted.credential.clone().ok_or(Error::AnswerMismatch)?;
                let attached = Attached::new(
                    crate::protocol::handshake::Admitted { credential: None, ..admitted },
                    finished.channel,
                );
                Ok(Redeemed::Attached { credential, attached })
            }
            Answer::Pending { seconds_left, nonce, .. } => {
                let code = PairCode::new(&self.ticket, &self.agent, &self.holder.public(), &nonce);
                Ok(Redeemed::Waiting { code, seconds_left })
            }
            Answer::Refused { status, .. } => Err(Error::Refused(status)),
        }
    }
}

impl Attaching {
    /// Reads the answer. Costs two scalar multiplications.
    ///
    /// # Errors
    /// [`Error::Noise`] if it is not from the agent, [`Error::Refused`] if the agent says no,
    /// [`Error::AnswerMismatch`] for an answer that belongs to a redemption.
    pub fn finish(self, message: &[u8]) -> Result<Attached, Error> {
        let finished = self.noise.finish(message)?;
        match Answer::from_payload(&finished.payload)? {
            Answer::Admitted(admitted) => Ok(Attached::new(admitted, finished.channel)),
            Answer::Pending { .. } => Err(Error::AnswerMismatch),
            Answer::Refused { status, .. } => Err(Error::Refused(status)),
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
