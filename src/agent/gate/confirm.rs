//! Confirms a waiting phone.

use super::Inner;
use super::context::Shared;
use crate::agent::denial::Denial;
use crate::agent::trace::{Call, Ids, Trace};
use crate::clock::Now;
use crate::id::TicketId;
use crate::key::{DevicePublicKey, HolderPublicKey};

impl Inner {
    pub(super) fn confirm(
        &self,
        device: &DevicePublicKey,
        ticket: &TicketId,
        holder: &HolderPublicKey,
        now: Now,
    ) -> Result<(), Denial> {
        let counters = self.core.counters();
        let ids = Ids { ticket: Some(ticket), device: Some(device), ..Ids::NONE };
        let trace = Trace::begin(Call::Confirm, &ids);
        self.core.watched(&trace, [&counters.confirmations, &counters.confirmations_refused], || {
            self.confirm_holder(device, ticket, holder, now)
        })
    }

    fn confirm_holder(
        &self,
        device: &DevicePublicKey,
        ticket: &TicketId,
        holder: &HolderPublicKey,
        now: Now,
    ) -> Result<(), Denial> {
        self.check_device_at(device, now)?;
        let begun = self.core.begin(now);
        let record = self.core.read(now, |step| step.ticket(ticket))?.ok_or(Denial::NothingToConfirm)?;
        let said = self.ask(&begun, &Shared::from(&record), now)?;
        let (device, ticket, holder) = (*device, *ticket, *holder);
        self.core.judge(now, move |step| step.confirm(&device, &ticket, &holder, &said))
    }
}
