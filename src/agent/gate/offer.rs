//! Accepts an offer: a desktop's terms for one ticket.

use super::Inner;
use super::lifetime::Lifetime;
use crate::agent::denial::Denial;
use crate::agent::ledger::transition::NewTicket;
use crate::agent::trace::{Call, Ids, Trace};
use crate::clock::Now;
use crate::key::DevicePublicKey;
use crate::limits::MAX_CLOCK_SKEW;
use crate::protocol::message::{Offer, OfferReceipt};

impl Inner {
    pub(super) fn offer(
        &self,
        device: &DevicePublicKey,
        offer: &Offer,
        now: Now,
    ) -> Result<OfferReceipt, Denial> {
        let (counters, ticket) = (self.core.counters(), offer.ticket.id());
        let ids = Ids { ticket: Some(&ticket), device: Some(device), ..Ids::NONE };
        let trace = Trace::begin(Call::Offer, &ids);
        self.core.watched(&trace, [&counters.offers, &counters.offers_refused], || {
            self.take_offer(&trace, device, offer, now)
        })
    }

    fn take_offer(
        &self,
        trace: &Trace,
        device: &DevicePublicKey,
        offer: &Offer,
        now: Now,
    ) -> Result<OfferReceipt, Denial> {
        self.check_device_at(device, now)?;
        let ticket_lifetime = Lifetime::of_ticket(offer.ticket_lifetime)?;
        let valid_for = Lifetime::of_credential(offer.valid_for)?;
        let credential = self.read_unbound(&offer.credential, Denial::OfferMismatch)?;
        let authority = credential.authority();
        trace.add(&Ids {
            credential: Some(&authority.credential),
            session: Some(&authority.session),
            ..Ids::NONE
        });
        let ticket = offer.ticket.id();
        if authority.ticket != ticket {
            return Err(Denial::OfferMismatch);
        }
        let begun = self.core.begin(now);
        let agent_time = begun.agent_time;
        // The ledger's reason about the device takes precedence over the clock's.
        self.core.look(now, |step| step.issuer_of(&offer.issuer, device))?;
        let end = valid_for.from(agent_time);
        if authority.expires_at.distance(end) > MAX_CLOCK_SKEW {
            return Err(Denial::ClockSkew { agent_time });
        }
        let unbound = credential.verify(&offer.issuer).map_err(Denial::OfferMalformed)?;
        let new = NewTicket {
            key: offer.ticket,
            credential: authority.credential,
            session: authority.session.clone(),
            issuer: offer.issuer,
            device: *device,
            offered_at: agent_time,
            expires_at: ticket_lifetime.from(agent_time),
            credential_expires_at: authority.expires_at.min(end),
            ops: authority.ops,
            label: offer.label.clone(),
            require_confirm: offer.require_confirm,
            unbound,
        };
        let quotas = self.quotas.limits();
        self.check_sharing(device, &new.session, now)?;
        let expires_at = new.expires_at;
        self.core.judge_since(&begun, now, move |step| step.offer(&ticket, &new, &quotas))?;
        Ok(OfferReceipt { ticket, agent_time, expires_at })
    }
}
