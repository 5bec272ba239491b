//! Renewal: other terms for a credential that a phone holds, without another scan
//! (`docs/PROTOCOL.md` section 8).

use rand_core::{CryptoRng, RngCore};

use super::activate::until;
use super::{Gate, Inner, check_lifetime};
use crate::agent::denial::Denial;
use crate::agent::guard::{Terms, check_outside_permit};
use crate::agent::ledger::transition::NewTerms;
use crate::clock::Now;
use crate::credential::UnboundCredential;
use crate::credential::block::Binding;
use crate::key::DevicePublicKey;
use crate::limits::{MAX_CLOCK_SKEW, MAX_CREDENTIAL_LIFETIME, MIN_CREDENTIAL_LIFETIME};
use crate::wire::{self, RenewalFields, RenewalReceipt};

impl Gate {
    /// Takes new terms for a live credential, from the device that offered it.
    ///
    /// What they take away is gone when this returns: no permit beyond them is granted, and none is in
    /// use; live streams go on with what is left. What they add reaches the phone with its next attach,
    /// if it shows the credential itself and not a narrowed copy. The earlier credential stays valid,
    /// within the new terms, until the phone has used the renewed one. Costs one Ed25519 verification,
    /// one signature and one durable write.
    ///
    /// # Errors
    /// [`Denial`] with what does not fit; nothing has changed then, except after [`Denial::Ledger`], when
    /// every stream is cut and the gate refuses everything. After [`Denial::ClockSkew`] the
    /// desktop mints again with the agent's time. [`Denial::ApiMisuse`] from inside a permit.
    pub fn renew<R: RngCore + CryptoRng>(
        &self,
        device: &DevicePublicKey,
        renewal: &[u8],
        now: Now,
        rng: &mut R,
    ) -> Result<RenewalReceipt, Denial> {
        check_outside_permit()?;
        let inner = &self.inner;
        if !inner.context.is_enrolled(device) {
            return Err(Denial::DeviceNotEnrolled);
        }
        let renewal: RenewalFields = wire::from_desktop(renewal).map_err(Denial::OfferMalformed)?;
        check_lifetime(renewal.valid_for, MIN_CREDENTIAL_LIFETIME, MAX_CREDENTIAL_LIFETIME)?;
        let credential = UnboundCredential::parse(&renewal.credential).map_err(Denial::OfferMalformed)?;
        let authority = credential.authority();
        if authority.agent != *self.agent() || !inner.config.urls.contains(&authority.url) {
            return Err(Denial::RenewalMismatch);
        }
        let begun = inner.begin(now);
        let end = begun.agent_time.plus(renewal.valid_for);
        let terms = NewTerms {
            credential: authority.credential,
            ticket: authority.ticket,
            session: authority.session.clone(),
            issuer: renewal.issuer,
            device: *device,
            ops: authority.ops,
            expires_at: authority.expires_at.min(end),
        };
        let session_live = inner.context.session_is_live(&terms.session);
        let record = inner.decide(now, |step| step.renewable(&terms, session_live))?;
        // A slow clock and a short time must not end what they are to prolong.
        let past = terms.expires_at <= begun.agent_time;
        if past || authority.expires_at.distance(end) > MAX_CLOCK_SKEW {
            return Err(Denial::ClockSkew { agent_time: begun.agent_time });
        }
        credential.verify(&renewal.issuer).map_err(Denial::OfferMalformed)?;
        let binding = Binding { holder: record.holder, epoch: record.epoch, expires_at: terms.expires_at };
        let extension = credential.bind(binding, rng).map_err(|_| Denial::Internal)?;

        let (live, outcome) = {
            let mut state =
                inner.settled(&begun, |context| Inner::check_sharing(context, device, &terms.session))?;
            let agent_time = state.effective(now);
            // Judged before anything is narrowed, narrowed before anything is written.
            state.judge(agent_time, inner.audit(), |step| step.check_renewal(&terms, &extension))?;
            let live = state.registry().find(&terms.credential);
            if let Some(live) = &live {
                live.narrow(Terms {
                    ops: terms.ops,
                    expires_at: terms.expires_at,
                    ends_at: now.monotonic.saturating_add(until(terms.expires_at, agent_time)),
                });
            }
            (live, state.judge(agent_time, inner.audit(), |step| step.renew(&terms, &extension)))
        };
        // Without the lock: a permit that is still in use may want it.
        if let Some(live) = live {
            live.drain_narrowed();
        }
        outcome.map(|renewed| RenewalReceipt {
            credential: terms.credential,
            agent_time: begun.agent_time,
            expires_at: renewed.expires_at,
            waiting: renewed.waiting,
        })
    }
}
