//! Admission: decides on a peer from its message 1.
//!
//! Checks run in order of cost, and each produces the input of the next: size and shape, a record, the same
//! peer, a signature. Until the signature verifies, the peer is told nothing; afterwards it is told the
//! reason.

use std::sync::Arc;

use rand_core::{CryptoRng, RngCore};

use super::Inner;
use super::activate::{PendingChannel, PendingGuard};
use super::prove::{Proven, Refusal};
use crate::agent::denial::Denial;
use crate::agent::guard::check_outside_permit;
use crate::agent::trace::{Call, Ids, Trace};
use crate::clock::Now;
use crate::key::HolderPublicKey;
use crate::protocol::handshake::is_scoped;
use crate::protocol::noise::{Received, Replied};

/// The decision on a peer whose message 1 was read by [`Responder::read`](crate::noise::Responder::read).
#[derive(Debug)]
#[must_use = "a peer that is not admitted must be closed"]
pub enum Admission {
    /// The payload is not of this protocol, and nothing was checked: the peer is an enrolled device or a
    /// stranger. Authenticate it as an agent without this crate does.
    PassThrough(Received),
    /// Send the message, then wait for the peer's first transport frame.
    Admitted {
        /// Message 2, to be sent as one binary WebSocket message.
        message: Vec<u8>,
        /// Becomes a live channel with the peer's first transport frame.
        pending: PendingChannel,
    },
    /// Send the message if there is one, then close; without one, close as for any stranger. A phone that has to
    /// wait for confirmation is refused with [`Denial::ConfirmationPending`]; its message tells it to ask again.
    Refused {
        /// Message 2, if the peer has proven enough to be told something.
        message: Option<Vec<u8>>,
        /// The reason, for the operator.
        denial: Denial,
    },
}

/// The same as [`Admission`] for an agent with its own Noise implementation, which sends a payload in message
/// 2.
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
        /// The reason, for the operator.
        denial: Denial,
    },
}

impl core::fmt::Debug for PeerAdmission {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::PassThrough => f.write_str("PassThrough"),
            // The reply can contain a credential.
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
/// For an agent that runs Noise itself; [`Gate::admit`](super::Gate::admit) makes its own. All three parts
/// must come from the same connection: a peer made of two connections' parts would be admitted wrongly. It
/// can be used once.
pub struct Peer<'a> {
    key: &'a [u8; 32],
    payload: &'a [u8],
    message: [u8; 32],
}

impl<'a> Peer<'a> {
    /// Makes a peer from the remote static key and payload of message 1, and the handshake hash after reading
    /// it (Noise revision 34, section 5.2: `h` of the symmetric state). The hash identifies a replayed
    /// message.
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

/// What a peer has proven.
enum Proof {
    Nothing,
    Ticket,
    Credential,
}

impl Inner {
    pub(super) fn admit<R: RngCore + CryptoRng>(
        self: &Arc<Self>,
        received: Received,
        now: Now,
        rng: &mut R,
    ) -> Admission {
        let peer = Peer::new(received.peer().as_bytes(), received.payload(), received.handshake_hash());
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

    pub(super) fn admit_peer<R: RngCore + CryptoRng>(
        self: &Arc<Self>,
        peer: Peer<'_>,
        now: Now,
        rng: &mut R,
    ) -> PeerAdmission {
        let counters = self.core.counters();
        if !is_scoped(peer.payload) {
            counters.passed_through.add_one();
            return PeerAdmission::PassThrough;
        }
        let begun = counters.begin();
        let trace = Trace::begin(Call::Admit, &Ids::NONE);
        let mut proof = Proof::Nothing;
        let decided = trace.run(|| self.decide(peer, &mut proof, now, rng));
        counters.end(begun, &counters.admit_time);
        self.count(&trace, &proof, &decided);
        decided
    }

    /// Counts and reports how an admission ended.
    fn count(&self, trace: &Trace, proof: &Proof, decided: &PeerAdmission) {
        let counters = self.core.counters();
        let (counter, outcome, denial) = match decided {
            PeerAdmission::PassThrough => return,
            PeerAdmission::Admitted { guard, .. } => {
                trace.add(&guard.ids());
                match proof {
                    Proof::Ticket => (&counters.redeemed, "redeemed", None),
                    Proof::Credential | Proof::Nothing => (&counters.attached, "attached", None),
                }
            }
            PeerAdmission::Refused { reply: Some(_), denial: denial @ Denial::ConfirmationPending } => {
                (&counters.pending, "pending", Some(denial))
            }
            PeerAdmission::Refused { reply: Some(_), denial } => {
                (&counters.refused_with_answer, "refused", Some(denial))
            }
            PeerAdmission::Refused { reply: None, denial } => {
                (&counters.refused_silently, "refused_silently", Some(denial))
            }
        };
        counter.add_one();
        if let Some(denial) = denial {
            counters.denied(denial);
        }
        trace.end(outcome, denial.map(Denial::code));
    }

    /// Decides on a peer whose payload is of this protocol.
    fn decide<R: RngCore + CryptoRng>(
        self: &Arc<Self>,
        peer: Peer<'_>,
        proof: &mut Proof,
        now: Now,
        rng: &mut R,
    ) -> PeerAdmission {
        let Peer { key, payload, message } = peer;
        let silent = |denial| PeerAdmission::Refused { reply: None, denial };
        if let Err(denial) = self.core.registry().waiting().check(&message, now.monotonic) {
            return silent(denial);
        }
        // A contest cuts streams, and a cut waits for permits.
        let peer = check_outside_permit()
            .and_then(|()| HolderPublicKey::from_bytes(*key).map_err(|_| Denial::HolderMismatch));
        let proven = peer.and_then(|peer| Ok((peer, self.prove(&peer, payload, now)?)));
        let outcome = match proven {
            // For any failure before this point, the peer is told nothing.
            Err(denial) => return silent(denial),
            Ok((peer, Proven::Ticket(ticket))) => {
                *proof = Proof::Ticket;
                let trace = Trace::begin(Call::Redeem, &ticket.ids());
                let outcome = trace.run(|| self.redeem(&peer, *ticket, message, now, rng));
                outcome.inspect(|_| trace.end("done", None)).inspect_err(|refusal| refusal.end(&trace))
            }
            Ok((_, Proven::Credential(credential))) => {
                *proof = Proof::Credential;
                let trace = Trace::begin(Call::Attach, &credential.ids());
                let outcome = trace.run(|| self.attach(*credential, message, now));
                outcome.inspect(|_| trace.end("done", None)).inspect_err(|refusal| refusal.end(&trace))
            }
        };
        let sent = outcome.and_then(|(answer, guard)| match answer.to_payload() {
            Ok(reply) => Ok(PeerAdmission::Admitted { reply, guard }),
            Err(_) => Err(Refusal::from(Denial::Internal)),
        });
        match sent {
            Ok(admitted) => admitted,
            Err(refusal) => {
                let agent_time = self.core.time(now);
                let reply = refusal.answer(agent_time).and_then(|answer| answer.to_payload().ok());
                PeerAdmission::Refused { reply, denial: refusal.denial }
            }
        }
    }
}
