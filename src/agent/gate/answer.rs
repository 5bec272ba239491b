//! The `pair.*` methods of an enrolled device, each as one call (`docs/PROTOCOL.md` section 8).

use rand_core::{CryptoRng, RngCore};

use super::Inner;
use crate::agent::denial::Denial;
use crate::clock::Now;
use crate::key::DevicePublicKey;
use crate::pair::{Answer, Request};

impl Inner {
    pub(super) fn answer<R: RngCore + CryptoRng>(
        &self,
        device: &DevicePublicKey,
        handshake_hash: &[u8; 32],
        request: &Request,
        now: Now,
        rng: &mut R,
    ) -> Result<Answer, Denial> {
        self.check_device(device).inspect_err(|denial| self.core.counters().denied(denial))?;
        Ok(match request {
            Request::RegisterIssuer { registration } => {
                self.register_issuer(device, handshake_hash, registration, now)?;
                Answer::Registered
            }
            Request::Offer { offer } => Answer::Offered { receipt: self.offer(device, offer, now)? },
            Request::Confirm { ticket, holder } => {
                self.confirm(device, ticket, holder, now)?;
                Answer::Confirmed
            }
            Request::Renew { renewal } => Answer::Renewed { receipt: self.renew(device, renewal, now, rng)? },
            Request::List(list) => Answer::Listed(self.list(list, now)?),
            Request::Revoke(what) => Answer::Revoked(self.revoke(what, now)?),
        })
    }
}
