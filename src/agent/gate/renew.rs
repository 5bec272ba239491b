//! Renewal: other terms for a credential that a phone holds, without another scan
//! (`docs/PROTOCOL.md` section 8).

use rand_core::{CryptoRng, RngCore};

use super::judge::extension;
use super::{Gate, Presence, check_lifetime};
use crate::agent::denial::Denial;
use crate::agent::guard::{Terms, check_outside_permit};
use crate::agent::ledger::transition::NewTerms;
use crate::clock::Now;
use crate::credential::block::Binding;
use crate::credential::mint::UnboundCredential;
use crate::key::DevicePublicKey;
use crate::limits::{MAX_CLOCK_SKEW, MAX_CREDENTIAL_LIFETIME, MIN_CREDENTIAL_LIFETIME};
use crate::protocol::message::{RenewalOffer, RenewalReceipt};

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
    /// [`Denial`] with what does not fit; nothing has changed then. After [`Denial::Ledger`] live streams stay
    /// narrowed, and the renewal may be on record or not: send it again. After [`Denial::ClockSkew`] the
    /// desktop mints again with the agent's time. [`Denial::ApiMisuse`] from inside a permit.
    pub fn renew<R: RngCore + CryptoRng>(
        &self,
        device: &DevicePublicKey,
        renewal: &RenewalOffer,
        now: Now,
        rng: &mut R,
    ) -> Result<RenewalReceipt, Denial> {
        check_outside_permit()?;
        let inner = &self.inner;
        inner.check_device(device)?;
        check_lifetime(renewal.valid_for, MIN_CREDENTIAL_LIFETIME, MAX_CREDENTIAL_LIFETIME)?;
        let credential = UnboundCredential::parse(&renewal.credential).map_err(Denial::OfferMalformed)?;
        let authority = credential.authority();
        if authority.agent != *self.agent() || !inner.urls.contains(&authority.url) {
            return Err(Denial::RenewalMismatch);
        }
        let begun = inner.core.begin(now);
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
        let said = match inner.context.session(&terms.session) {
            Presence::Present => Ok(()),
            Presence::Gone => Err(Denial::SessionGone),
            Presence::Unknown => Err(Denial::ContextUnknown),
        };
        let record = inner.core.desk().judge(now, |step| step.renewable(&terms, &said))?;
        // A slow clock and a short time must not end what they are to prolong.
        let past = terms.expires_at <= begun.agent_time;
        if past || authority.expires_at.distance(end) > MAX_CLOCK_SKEW {
            return Err(Denial::ClockSkew { agent_time: begun.agent_time });
        }
        let unbound = credential.verify(&renewal.issuer).map_err(Denial::OfferMalformed)?;
        let binding = Binding { holder: record.holder, epoch: record.epoch, expires_at: terms.expires_at };
        let extension = extension(&unbound, binding, rng)?;

        inner.check_sharing(device, &terms.session)?;
        let mut desk = inner.core.desk_since(&begun)?;
        // Judged before anything is narrowed, narrowed before anything is written.
        desk.judge(now, |step| step.check_renewal(&terms, &extension))?;
        let narrowed = Terms {
            ops: terms.ops,
            expires_at: terms.expires_at,
            ends_at: inner.core.reaches(terms.expires_at, now),
        };
        // Whoever becomes live does so under the same lock, so none can join under earlier terms.
        let live = inner.core.registry().find(&terms.credential);
        if let Some(live) = &live {
            live.narrow(narrowed);
        }
        let outcome = desk.judge(now, |step| step.renew(&terms, &extension));
        if let Ok(renewed) = &outcome {
            inner.core.registry().ends_at(&terms.credential, renewed.ends_at);
        }
        drop(desk);
        // Without the lock: a permit that is still in use may want it.
        if let Some(live) = live {
            live.wait_for_permits();
        }
        outcome.map(|renewed| RenewalReceipt {
            credential: terms.credential,
            agent_time: begun.agent_time,
            expires_at: renewed.expires_at,
            waiting: renewed.waiting,
        })
    }
}
