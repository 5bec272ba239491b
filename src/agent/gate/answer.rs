//! The `pair.*` methods of an enrolled device, each as one call (`docs/PROTOCOL.md` section 8).

use rand_core::{CryptoRng, RngCore};

use super::Inner;
use crate::agent::denial::Denial;
use crate::clock::Now;
#[cfg(feature = "dd")]
use crate::json::{self, Json};
use crate::key::DevicePublicKey;
use crate::pair::{Answer, Request};

#[cfg(feature = "dd")]
impl Inner {
    pub(super) fn answer_json<R: RngCore + CryptoRng>(
        &self,
        device: &DevicePublicKey,
        handshake_hash: &[u8; 32],
        request: &[u8],
        now: Now,
        rng: &mut R,
    ) -> String {
        let error = |code: &str, detail: String| {
            Json::object([("error", Json::text(code)), ("detail", Json::Text(detail))]).to_text()
        };
        let Ok(request) = json::read(request) else {
            let detail = "there is no such method, or a parameter is missing or malformed; send one request";
            return error("method_rejected", detail.to_owned());
        };
        match self.answer(device, handshake_hash, &request, now, rng) {
            Ok(answer) => json::write(&answer).unwrap_or_else(|| error("upstream_failed", String::new())),
            Err(denial) => error(denial.code(), denial.to_string()),
        }
    }
}

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
