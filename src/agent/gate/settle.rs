//! Settles the gate: asks the context about everything connected, and lets streams continue.

use std::collections::HashSet;

use super::Inner;
use crate::agent::config::Presence;
use crate::agent::core::Subject;
use crate::agent::denial::Denial;
use crate::agent::ledger::transition::Revocation;
use crate::agent::trace::{Call, Ids, Trace};
use crate::clock::Now;

impl Inner {
    pub(super) fn settle(&self, now: Now) -> Result<(), Denial> {
        let counters = self.core.counters();
        let begun = counters.begin();
        let trace = Trace::begin(Call::Settle, &Ids::NONE);
        let outcome = self
            .core
            .watched(&trace, [&counters.settlings, &counters.settlings_failed], || self.ask_and_settle(now));
        counters.end(begun, &counters.settle_time);
        outcome
    }

    fn ask_and_settle(&self, now: Now) -> Result<(), Denial> {
        let begun = self.core.begin(now);
        let subjects = self.core.registry().subjects();
        let (mut gone, mut devices, mut unknown) = (Vec::new(), Vec::new(), HashSet::new());
        for subject in subjects {
            let presence = match &subject {
                Subject::Session(session, _) => self.context.session(session),
                Subject::Device(device, ..) => self.context.device(device),
            };
            match (presence, subject) {
                (Presence::Present, _) => {}
                (Presence::Unknown, subject) => drop(unknown.insert(subject)),
                (Presence::Gone, Subject::Session(id, epoch)) => {
                    gone.push(Revocation::SessionGone(id, epoch))
                }
                (Presence::Gone, Subject::Device(_, issuer, generation)) => {
                    devices.push(Revocation::IssuerGone(issuer, generation));
                }
            }
        }
        // If both are gone, the session's end is reported as the reason.
        gone.append(&mut devices);
        self.core.revoke_gone(&gone, &begun, now)?;
        self.core.settle(unknown, now)
    }
}
