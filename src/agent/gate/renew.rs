//! Renewal: new terms for a credential that a phone holds, without another scan (`docs/PROTOCOL.md` section
//! 8).

use rand_core::{CryptoRng, RngCore};

use super::Inner;
use super::lifetime::Lifetime;
use super::unbound::bind;
use crate::agent::denial::Denial;
use crate::agent::guard::{Terms, check_outside_permit};
use crate::agent::ledger::transition::{ContextAnswer, NewTerms};
use crate::agent::trace::{Call, Ids, Trace};
use crate::clock::Now;
use crate::credential::block::Binding;
use crate::key::DevicePublicKey;
use crate::limits::MAX_CLOCK_SKEW;
use crate::protocol::message::{RenewalOffer, RenewalReceipt};

impl Inner {
    pub(super) fn renew<R: RngCore + CryptoRng>(
        &self,
        device: &DevicePublicKey,
        renewal: &RenewalOffer,
        now: Now,
        rng: &mut R,
    ) -> Result<RenewalReceipt, Denial> {
        let counters = self.core.counters();
        let trace = Trace::begin(Call::Renew, &Ids::of_device(device));
        self.core.watched(&trace, [&counters.renewals, &counters.renewals_refused], || {
            self.take_renewal(&trace, device, renewal, now, rng)
        })
    }

    fn take_renewal<R: RngCore + CryptoRng>(
        &self,
        trace: &Trace,
        device: &DevicePublicKey,
        renewal: &RenewalOffer,
        now: Now,
        rng: &mut R,
    ) -> Result<RenewalReceipt, Denial> {
        check_outside_permit()?;
        self.check_device_at(device, now)?;
        let valid_for = Lifetime::of_credential(renewal.valid_for)?;
        let credential = self.read_unbound(&renewal.credential, Denial::RenewalMismatch)?;
        let authority = credential.authority();
        trace.add(&Ids {
            ticket: Some(&authority.ticket),
            credential: Some(&authority.credential),
            session: Some(&authority.session),
            device: None,
        });
        let begun = self.core.begin(now);
        let end = valid_for.from(begun.agent_time);
        let terms = NewTerms {
            credential: authority.credential,
            ticket: authority.ticket,
            session: authority.session.clone(),
            issuer: renewal.issuer,
            device: *device,
            ops: authority.ops,
            expires_at: authority.expires_at.min(end),
        };
        let said = ContextAnswer::from(self.check_session(&terms.session));
        let record = self.core.look(now, |step| step.renewable(&terms, &said))?;
        // With a slow clock and a short lifetime, an extension must not end the credential.
        let past = terms.expires_at <= begun.agent_time;
        if past || authority.expires_at.distance(end) > MAX_CLOCK_SKEW {
            return Err(Denial::ClockSkew { agent_time: begun.agent_time });
        }
        let unbound = credential.verify(&renewal.issuer).map_err(Denial::OfferMalformed)?;
        let binding = Binding { holder: record.holder, epoch: record.epoch, expires_at: terms.expires_at };
        let (extension, _) = bind(&unbound, binding, rng)?;

        self.check_sharing(device, &terms.session, now)?;
        let narrowed = Terms {
            ops: terms.ops,
            expires_at: terms.expires_at,
            ends_at: self.core.reaches(terms.expires_at, now),
        };
        let credential = terms.credential;
        let renewed = self.core.renew(&begun, terms, extension, narrowed, now)?;
        Ok(RenewalReceipt {
            credential,
            agent_time: begun.agent_time,
            expires_at: renewed.expires_at,
            waiting: renewed.waiting,
        })
    }
}
