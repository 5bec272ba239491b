//! Registers an issuer key.

use super::Inner;
use crate::agent::denial::Denial;
use crate::agent::trace::{Call, Ids, Trace};
use crate::clock::Now;
use crate::key::DevicePublicKey;
use crate::protocol::message::Registration;

impl Inner {
    pub(super) fn register_issuer(
        &self,
        device: &DevicePublicKey,
        handshake_hash: &[u8; 32],
        registration: &Registration,
        now: Now,
    ) -> Result<(), Denial> {
        let counters = self.core.counters();
        let trace = Trace::begin(Call::RegisterIssuer, &Ids::of_device(device));
        self.core.watched(&trace, [&counters.registrations, &counters.registrations_refused], || {
            self.verify_and_register(device, handshake_hash, registration, now)
        })
    }

    fn verify_and_register(
        &self,
        device: &DevicePublicKey,
        handshake_hash: &[u8; 32],
        registration: &Registration,
        now: Now,
    ) -> Result<(), Denial> {
        let verified = registration.verify(handshake_hash, &self.agent, device);
        let registration = verified.ok_or(Denial::RegistrationInvalid)?;
        let begun = self.core.begin(now);
        self.check_device_at(device, now)?;
        self.core.judge_since(&begun, now, move |step| step.register_issuer(&registration))
    }
}
