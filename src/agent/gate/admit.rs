//! Admission: from message 1 of a peer to a live guard.
//!
//! Checks run from cheap to dear, and each yields what the next one needs: a size and shape, a
//! record, the same peer, a signature. Up to the signature the peer has proven nothing and is told
//! nothing; from there on it is told why.

use rand_core::{CryptoRng, RngCore};

use super::activate::{PendingChannel, PendingGuard};
use super::judge::Basis;
use super::prove::{Proven, Refusal};
use super::{Gate, Presence};
use crate::agent::denial::Denial;
use crate::agent::guard::check_outside_permit;
use crate::clock::Now;
use crate::credential::bytes::CredentialBytes;
use crate::key::HolderPublicKey;
use crate::op::{Action, OpSet};
use crate::protocol::handshake::is_scoped;
use crate::protocol::noise::{Received, Replied};

/// What to do with a peer whose message 1 was read by [`Responder::read`](crate::noise::Responder::read).
#[derive(Debug)]
#[must_use = "a peer that is not admitted must be closed"]
pub enum Admission {
    /// The payload is not of this protocol, and nothing was checked: the peer is an enrolled device, or a
    /// stranger. Authenticate it as before this crate was linked.
    PassThrough(Received),
    /// Send the message, then wait for the peer's first transport frame.
    Admitted {
        /// Message 2, to be sent as one binary WebSocket message.
        message: Vec<u8>,
        /// Becomes a live channel with the peer's first transport frame.
        pending: PendingChannel,
    },
    /// Send the message if there is one, then close; without one, close as for any stranger.
    Refused {
        /// Message 2, if the peer has proven enough to be told something.
        message: Option<Vec<u8>>,
        /// Why, for the operator.
        denial: Denial,
    },
}

/// As [`Admission`], for an agent with a Noise of its own: what it sends as message 2 is a payload.
#[must_use = "a peer that is not admitted must be closed"]
pub enum PeerAdmission {
    /// As [`Admission::PassThrough`].
    PassThrough,
    /// Send the reply as the payload of message 2, then wait for the peer's first transport frame.
    Admitted {
        /// The payload of message 2. It can hold a credential.
        reply: Vec<u8>,
        /// Becomes live with the peer's first transport frame.
        guard: PendingGuard,
    },
    /// Send the reply as the payload of message 2 if there is one, then close.
    Refused {
        /// The payload of message 2, if the peer has proven enough to be told something.
        reply: Option<Vec<u8>>,
        /// Why, for the operator.
        denial: Denial,
    },
}

impl core::fmt::Debug for PeerAdmission {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::PassThrough => f.write_str("PassThrough"),
            // The reply can hold a credential.
            Self::Admitted { guard, .. } => {
                f.debug_struct("Admitted").field("guard", guard).finish_non_exhaustive()
            }
            Self::Refused { denial, .. } => {
                f.debug_struct("Refused").field("denial", denial).finish_non_exhaustive()
            }
        }
    }
}

/// A peer whose message 1 has decrypted.
///
/// For an agent that runs Noise itself; [`Gate::admit`] makes its own. The three belong to one connection: one made
/// of two connections' parts would admit the wrong peer. It can be used once.
pub struct Peer<'a> {
    key: &'a [u8; 32],
    payload: &'a [u8],
    message: [u8; 32],
}

impl<'a> Peer<'a> {
    /// From the remote static key and payload of message 1, and the handshake hash after it was read (Noise
    /// revision 34, section 5.2: `h` of the symmetric state). The hash tells a replayed message.
    #[must_use]
    pub fn new(remote_static: &'a [u8; 32], payload: &'a [u8], handshake_hash: [u8; 32]) -> Self {
        Self { key: remote_static, payload, message: handshake_hash }
    }
}

impl core::fmt::Debug for Peer<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Peer").field("payload", &self.payload.len()).finish_non_exhaustive()
    }
}

impl Gate {
    /// Decides on a peer from its message 1, and writes message 2.
    ///
    /// A payload of this protocol is a phone's even if its key is enrolled. A redemption costs one
    /// Ed25519 verification, one signature and one durable write; an attach costs one verification for
    /// each block of the credential and one run of the policy. A message 1 that is repeated while an
    /// admission by it waits is refused before any of that. Message 2 costs three scalar multiplications. Waits
    /// for the ledger.
    pub fn admit<R: RngCore + CryptoRng>(&self, received: Received, now: Now, rng: &mut R) -> Admission {
        let peer = Peer::new(received.peer.as_bytes(), &received.payload, received.handshake_hash);
        match self.admit_peer(peer, now, rng) {
            PeerAdmission::PassThrough => Admission::PassThrough(received),
            PeerAdmission::Refused { reply, denial } => {
                let replied = reply.and_then(|reply| received.reply(&reply).ok());
                Admission::Refused { message: replied.map(|replied| replied.message), denial }
            }
            PeerAdmission::Admitted { reply, guard } => match received.reply(&reply) {
                Ok(Replied { message, channel, .. }) => {
                    Admission::Admitted { message, pending: PendingChannel::new(guard, channel) }
                }
                Err(_) => Admission::Refused { message: None, denial: Denial::Internal },
            },
        }
    }

    /// As [`Gate::admit`], for an agent with a Noise of its own. Its guard is live once the agent says that the
    /// peer's first frame has decrypted, and nothing but the agent's own care has every frame pass it.
    pub fn admit_peer<R: RngCore + CryptoRng>(&self, peer: Peer<'_>, now: Now, rng: &mut R) -> PeerAdmission {
        let Peer { key, payload, message } = peer;
        if !is_scoped(payload) {
            return PeerAdmission::PassThrough;
        }
        let inner = &self.inner;
        let silent = |denial| PeerAdmission::Refused { reply: None, denial };
        if let Err(denial) = inner.core.registry().waiting().check(&message, now.monotonic) {
            return silent(denial);
        }
        // A contest cuts, and a cut waits for permits.
        let peer = check_outside_permit()
            .and_then(|()| HolderPublicKey::from_bytes(*key).map_err(|_| Denial::HolderMismatch));
        let proven = peer.and_then(|peer| Ok((peer, inner.prove(&peer, payload, now)?)));
        let outcome = match proven {
            // Whatever failed up to here, the peer learns nothing.
            Err(denial) => return silent(denial),
            Ok((peer, Proven::Ticket(ticket))) => inner.redeem(&peer, *ticket, message, now, rng),
            Ok((_, Proven::Credential(credential))) => inner.attach(*credential, message, now),
        };
        let sent = outcome.and_then(|(answer, guard)| match answer.to_payload() {
            Ok(reply) => Ok(PeerAdmission::Admitted { reply, guard }),
            Err(_) => Err(Refusal::from(Denial::Internal)),
        });
        match sent {
            Ok(admitted) => admitted,
            Err(refusal) => {
                let agent_time = inner.core.time(now);
                let reply = refusal.answer(agent_time).and_then(|answer| answer.to_payload().ok());
                PeerAdmission::Refused { reply, denial: refusal.denial }
            }
        }
    }
}

impl Gate {
    /// What the gate would say to this phone, with this credential, asking for one action now, and
    /// why. For operators: it changes nothing and admits nobody. Costs as much as an attach.
    ///
    /// # Errors
    /// [`Denial`] with the reason.
    pub fn explain(
        &self,
        peer: &HolderPublicKey,
        credential: &CredentialBytes,
        action: Action,
        now: Now,
    ) -> Result<(), Denial> {
        let inner = &self.inner;
        let proven = inner.prove_credential(peer, credential, OpSet::EMPTY, now)?;
        let id = proven.shown.credential().id();
        // Nothing is put on record here: what is gone is only said.
        let said = match (
            inner.context.session(&proven.record.session),
            inner.check_device(&proven.record.device),
        ) {
            (Presence::Gone, _) => Err(Denial::SessionGone),
            (Presence::Unknown, _) => Err(Denial::ContextUnknown),
            (Presence::Present, Err(Denial::DeviceNotEnrolled)) => Err(Denial::IssuerRevoked),
            (Presence::Present, device) => device,
        };
        let record = inner.core.read(now, |step| step.standing_record(&id, &said))?;
        let time = inner.core.time(now);
        let basis = Basis::of(proven.shown, &record)?;
        basis.check_time(time)?;
        inner.policy.decide(&basis.verified, &inner.circumstances(&basis.verified, &record, time), action)?;
        match action {
            Action::Session(op) if !basis.ops.contains(op) => Err(Denial::OperationNotGranted { op }),
            _ => Ok(()),
        }
    }
}
