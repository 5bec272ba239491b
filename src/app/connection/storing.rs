//! The pairing and the keychain: one request to store at a time, and nothing goes on before what it needs is stored.

use core::time::Duration;

use rand_core::{CryptoRng, RngCore};

use super::{Connection, Phase};
use crate::agent_url::AgentUrl;
use crate::app::error::AppError;
use crate::app::output::{Output, State};
use crate::phone::Attached;

impl Connection {
    /// Adds an address at which the agent may be as well, such as one that the local network names, and asks the app to
    /// store the pairing with it. Nothing else waits for that. It grants nothing: whoever answers there has to prove the
    /// agent's key. Returns whether it is among the addresses now; [`Stored::MAX_ADDRESSES`](crate::app::Stored::MAX_ADDRESSES) fit. It is tried in its turn
    /// with the next attempt, which [`Input::NetworkChanged`](crate::app::Input::NetworkChanged) begins.
    pub fn add_address(&mut self, address: AgentUrl) -> bool {
        if self.stored.addresses().contains(&address) {
            return true;
        }
        let added = self.stored.add_address(address);
        if added {
            self.changed();
            // A later start stores first.
            if !matches!(self.phase, Phase::Idle | Phase::Stopped) {
                self.ask_to_store();
            }
        }
        added
    }

    pub(super) fn is_storing(&self, number: u32) -> bool {
        self.asked_to_store && number == self.stores
    }

    pub(super) fn store(&mut self, attached: Option<Box<Attached>>) {
        self.phase = Phase::Storing(attached);
        self.ask_to_store();
        self.set_state(State::Storing);
    }

    /// The pairing is another than that in the keychain.
    pub(super) fn changed(&mut self) {
        self.unsaved = true;
        self.changes = self.changes.wrapping_add(1);
    }

    fn ask_to_store(&mut self) {
        // One at a time. If the pairing was changed since, `saved` asks again.
        if !core::mem::replace(&mut self.asked_to_store, true) {
            self.asked_after = self.changes;
            self.stores = self.stores.wrapping_add(1);
            let bytes = self.stored.to_bytes();
            self.outputs.push_back(Output::Store { number: self.stores, bytes });
        }
    }

    pub(super) fn saved<R: RngCore + CryptoRng>(
        &mut self,
        now: Duration,
        rng: &mut R,
    ) -> Result<(), AppError> {
        self.asked_to_store = false;
        if self.asked_after != self.changes {
            self.ask_to_store();
            return Ok(());
        }
        self.unsaved = false;
        match core::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Storing(Some(attached)) if self.is_open => return self.go_live(*attached, now),
            // The connection did not wait for it.
            Phase::Storing(Some(_)) => self.fail(AppError::Lost, now, rng),
            Phase::Storing(None) => self.begin(now),
            phase => self.phase = phase,
        }
        Ok(())
    }
}
