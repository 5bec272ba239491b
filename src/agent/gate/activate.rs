//! Turns an admission into a live guard.

use std::sync::Arc;

use thiserror::Error;
use time::Duration;

use super::Inner;
use super::context::Shared;
use super::grant::Evidence;
use crate::agent::core::{Entry, PendingMark, check_room};
use crate::agent::decision::Decision;
use crate::agent::denial::Denial;
use crate::agent::guard::{FirstFrame, Guard, GuardedChannel, Live, Review};
use crate::agent::ledger::kept::Kept;
use crate::agent::ledger::record::CredentialRecord;
use crate::agent::ledger::transition::Visit;
use crate::agent::trace::{Call, Ids, Trace};
use crate::clock::{Now, Timestamp};
use crate::credential::bytes::CredentialBytes;
use crate::credential::verify::VerifiedCredential;
use crate::id::CredentialId;
use crate::limits::ACTIVATION_TIMEOUT;
use crate::op::OpSet;
use crate::protocol::frame::Frame;
use crate::protocol::handshake::{self, Answer};
use crate::protocol::noise::Channel;

/// An admission that has not been activated yet.
///
/// For an agent with its own Noise implementation; [`PendingChannel`] is the same with a channel.
///
/// Anyone who saw a message 1 can replay it, but cannot make a transport frame that decrypts. Until one does,
/// the connection is not counted and the attach is not recorded; a redemption is already on record.
///
/// It permits nothing, and can be activated once:
///
/// ```compile_fail
/// fn too_early(mut pending: sessioncap::agent::PendingGuard, now: sessioncap::Now) {
///     let _ = pending.permit(sessioncap::Op::SendInput, now, || ());
/// }
/// ```
/// ```compile_fail
/// fn twice(pending: sessioncap::agent::PendingGuard, now: sessioncap::Now) {
///     let _ = (pending.activate_after_first_frame(now), pending.activate_after_first_frame(now));
/// }
/// ```
#[must_use = "activate it with the first transport frame that decrypts"]
pub struct PendingGuard {
    inner: Arc<Inner>,
    live: Arc<Live>,
    id: CredentialId,
    record: Kept,
    basis: Box<AdmittedEditions>,
    ops: OpSet,
    expires_at: Timestamp,
    mark: Arc<PendingMark>,
    /// By the monotonic clock.
    activate_before: Duration,
    /// By the monotonic clock.
    judged_at: Duration,
}

/// The editions for which a peer was admitted.
pub(super) struct AdmittedEditions {
    /// The admitted edition of the record, as the hash of its bytes.
    pub(super) edition: [u8; 32],
    /// The edition that the peer has presented, if it was not narrowed.
    pub(super) shown: Option<[u8; 32]>,
    /// The hash of the bytes on which the policy decides: the admitted edition's, or a narrowed copy's.
    pub(super) bytes: [u8; 32],
    pub(super) judged: Judged,
}

/// Whether the policy has decided on the credential.
pub(super) enum Judged {
    /// It has run, and can again for its operator rules; or its decision is on record.
    Decided(Option<Arc<VerifiedCredential>>),
    /// It runs at activation, so that a replayed message 1 does not cause a run.
    AtActivation(Evidence),
}

impl PendingGuard {
    /// Activates the guard. The caller asserts that the peer's first transport frame of this same handshake
    /// has decrypted: message 1 can be replayed, that frame cannot. Ask for a permit for that frame next.
    /// Waits for the ledger; costs at most one durable write.
    ///
    /// # Errors
    /// [`Denial::ActivationTimeout`] after [`ACTIVATION_TIMEOUT`] seconds, [`Denial::Displaced`] if
    /// [`MAX_PENDING`](crate::limits::MAX_PENDING) newer admissions of the credential wait,
    /// [`Denial::TooManyConnections`] if the credential has no free connection, or the reason why the
    /// credential is no longer valid. Close the connection.
    pub fn activate_after_first_frame(self, now: Now) -> Result<Guard, Denial> {
        let inner = Arc::clone(&self.inner);
        let trace = Trace::begin(Call::Activate, &self.ids());
        let counters = inner.core.counters();
        inner.core.watched(&trace, [&counters.activated, &counters.activations_failed], || {
            self.activate_counted(now)
        })
    }

    /// Decrypts the peer's first transport frame with the channel that the agent's own Noise has opened
    /// ([`Channel::from_keys`]), and activates the connection as [`PendingChannel::activate`] does. The channel
    /// must be of the handshake whose message 1 was admitted. Waits for the ledger; costs at most one durable
    /// write.
    ///
    /// # Errors
    /// As [`PendingChannel::activate`].
    pub fn activate(
        self,
        channel: Channel,
        first_frame: &[u8],
        now: Now,
    ) -> Result<GuardedChannel, NotActivated> {
        PendingChannel { guard: self, channel }.activate(first_frame, now)
    }

    /// The public names of the admission.
    pub(super) fn ids(&self) -> Ids<'_> {
        Ids {
            ticket: Some(&self.record.ticket),
            credential: Some(&self.id),
            session: Some(&self.record.session),
            device: Some(&self.record.device),
        }
    }

    /// Refuses the admission because its first frame cannot be read.
    fn refuse_unreadable(self) -> Denial {
        let trace = Trace::begin(Call::Activate, &self.ids());
        let counters = self.inner.core.counters();
        counters.activations_failed.add_one();
        counters.denied(&Denial::FrameUnreadable);
        trace.end("refused", Some(Denial::FrameUnreadable.code()));
        Denial::FrameUnreadable
    }

    fn activate_counted(self, now: Now) -> Result<Guard, Denial> {
        if now.monotonic >= self.activate_before {
            return Err(Denial::ActivationTimeout);
        }
        if self.mark.is_displaced() {
            return Err(Denial::Displaced);
        }
        let Self { inner, live, id, record, basis, ops, expires_at, judged_at, .. } = self;
        let begun = inner.core.begin(now);
        let said = inner.ask(&begun, &Shared::from(&*record), now)?;
        let narrowed = basis.bytes != basis.edition;
        let (verified, decision) =
            match basis.judged.decided(&inner, (&record, &basis.bytes), ops, begun.agent_time) {
                Ok(decided) => decided,
                // The ledger's reason takes precedence.
                Err(denial) => return Err(inner.standing(&id, &said, None, now).err().unwrap_or(denial)),
            };
        let review: Option<Arc<dyn Review>> = match (inner.policy.has_operator_rules(), verified) {
            (false, _) => None,
            (true, None) => return Err(Denial::Internal),
            (true, Some(verified)) => {
                let record = record.clone();
                Some(Arc::new(Reviewer { inner: Arc::clone(&inner), verified, record }))
            }
        };
        let visit = Visit {
            credential: id,
            record: record.clone(),
            edition: basis.edition,
            shown: basis.shown,
            ops,
            expires_at,
            said,
            room: inner.check_room(&live, now),
            decision: decision.map(|decision| (decision, narrowed)),
        };
        let entry = Entry {
            record,
            live: Arc::clone(&live),
            judged_at,
            review,
            connections: inner.quotas.connections_per_credential,
        };
        let (guard, full) = match inner.core.enter(visit.clone(), &entry, now) {
            // The ledger's refusal is also the moment to end what has expired.
            Err(denial) if !matches!(denial, Denial::Ledger(_) | Denial::TooManyConnections { .. }) => {
                return Err(inner.standing(&id, &visit.said, None, now).err().unwrap_or(denial));
            }
            entered => entered?,
        };
        // Without a lock, because a waker may run foreign code.
        if full {
            live.wake();
        }
        Ok(guard)
    }

    /// Returns how long from `now` [`PendingGuard::activate_after_first_frame`] can succeed.
    #[must_use]
    pub fn time_left(&self, now: Now) -> core::time::Duration {
        // A negative time has already elapsed.
        self.activate_before.saturating_sub(now.monotonic).try_into().unwrap_or_default()
    }
}

impl core::fmt::Debug for PendingGuard {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PendingGuard")
            .field("credential", &self.id)
            .field("ops", &self.ops)
            .finish_non_exhaustive()
    }
}

/// An admitted connection that waits for the peer's first transport frame.
///
/// It can be activated once, by that frame only:
///
/// ```compile_fail
/// fn twice(pending: sessioncap::agent::PendingChannel, frame: &[u8], now: sessioncap::Now) {
///     let _ = (pending.activate(frame, now), pending.activate(frame, now));
/// }
/// ```
#[must_use = "activate it with the peer's first transport frame"]
pub struct PendingChannel {
    guard: PendingGuard,
    channel: Channel,
}

impl PendingChannel {
    pub(super) fn new(guard: PendingGuard, channel: Channel) -> Self {
        Self { guard, channel }
    }

    /// Decrypts the peer's first transport frame, which proves that the peer is present, and activates the
    /// connection. The frame waits in the receiver. Waits for the ledger; costs at most one durable write.
    ///
    /// # Errors
    /// [`NotActivated`] if the frame does not decrypt or the admission is no longer valid. Send its end
    /// frame, then close the connection.
    pub fn activate(self, first_frame: &[u8], now: Now) -> Result<GuardedChannel, NotActivated> {
        let Self { guard, mut channel } = self;
        let Ok(first) = channel.open(first_frame) else {
            return Err(NotActivated { end: None, denial: guard.refuse_unreadable() });
        };
        let room = Arc::clone(&guard.inner.message_room);
        let activated = match FirstFrame::read(first) {
            Ok(first) => guard.activate_after_first_frame(now).map(|guard| (guard, first)),
            Err(_) => Err(guard.refuse_unreadable()),
        };
        match activated {
            Ok((guard, first)) => Ok(GuardedChannel::new(guard, channel, first, room, now)),
            Err(denial) => {
                let end = Frame::<Vec<u8>>::End(denial.end_code()).to_bytes();
                Err(NotActivated { end: channel.seal(&end).ok(), denial })
            }
        }
    }

    /// Returns how long from `now` [`PendingChannel::activate`] can succeed.
    #[must_use]
    pub fn time_left(&self, now: Now) -> core::time::Duration {
        self.guard.time_left(now)
    }

    /// Returns the pending guard and the raw channel, for an agent that itself asks the guard before every
    /// frame.
    pub fn into_raw(self) -> (PendingGuard, Channel) {
        (self.guard, self.channel)
    }
}

impl core::fmt::Debug for PendingChannel {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PendingChannel").field("guard", &self.guard).finish_non_exhaustive()
    }
}

/// The reason why an admitted connection was not activated.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the connection did not become live: {denial}")]
#[non_exhaustive]
pub struct NotActivated {
    /// The end frame to send before closing the connection, or `None` if the peer has proven nothing: close
    /// as for a stranger.
    pub end: Option<Vec<u8>>,
    /// The reason.
    pub denial: Denial,
}

impl NotActivated {
    /// Returns a stable name for programs and logs: that of the denial.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.denial.code()
    }
}

impl Judged {
    /// Runs the policy if it has not decided yet, and returns the decision to be put on record.
    fn decided(
        self,
        inner: &Inner,
        subject: (&CredentialRecord, &[u8; 32]),
        ops: OpSet,
        time: Timestamp,
    ) -> Result<(Option<Arc<VerifiedCredential>>, Option<Decision>), Denial> {
        match self {
            Self::Decided(verified) => Ok((verified, None)),
            Self::AtActivation(evidence) => {
                Ok((None, inner.decide_for_the_record(evidence, subject, ops, time)?))
            }
        }
    }
}

/// Runs the policy again for a live connection.
struct Reviewer {
    inner: Arc<Inner>,
    verified: Arc<VerifiedCredential>,
    record: Kept,
}

impl Review for Reviewer {
    fn review(&self, ops: OpSet, now: Now) -> Result<OpSet, Denial> {
        let time = self.inner.core.time(now);
        self.inner.grant(&self.verified, &self.record, ops, time)
    }
}

/// The parts from which a pending guard is built.
pub(super) struct Pending {
    pub(super) live: Arc<Live>,
    pub(super) id: CredentialId,
    pub(super) record: Kept,
    pub(super) basis: AdmittedEditions,
    pub(super) ops: OpSet,
    pub(super) expires_at: Timestamp,
    /// The handshake hash of its message 1.
    pub(super) message: [u8; 32],
}

impl Inner {
    /// Returns the answer, and the pending guard that its first frame activates.
    pub(super) fn admitted(
        self: &Arc<Self>,
        pending: Pending,
        credential: Option<CredentialBytes>,
        now: Now,
        agent_time: Timestamp,
    ) -> Result<(Answer, PendingGuard), Denial> {
        let answer = Answer::Admitted(handshake::Admitted {
            agent_time,
            seconds_left: pending.expires_at.since(agent_time),
            ops: pending.ops,
            session: pending.record.session.clone(),
            id: pending.id,
            credential,
        });
        Ok((answer, self.pending_guard(pending, now)?))
    }

    fn pending_guard(self: &Arc<Self>, pending: Pending, now: Now) -> Result<PendingGuard, Denial> {
        let timeout = Duration::seconds(i64::try_from(ACTIVATION_TIMEOUT).unwrap_or(i64::MAX));
        let activate_before = now.monotonic.saturating_add(timeout);
        let mark = self.core.registry().wait(pending.id, pending.message, activate_before, now.monotonic)?;
        Ok(PendingGuard {
            mark,
            inner: Arc::clone(self),
            live: pending.live,
            id: pending.id,
            record: pending.record,
            basis: Box::new(pending.basis),
            ops: pending.ops,
            expires_at: pending.expires_at,
            activate_before,
            judged_at: now.monotonic,
        })
    }

    /// Checks that the credential may have one more connection.
    pub(super) fn check_room(&self, live: &Live, now: Now) -> Result<(), Denial> {
        check_room(live, self.quotas.connections_per_credential, now)
    }
}
