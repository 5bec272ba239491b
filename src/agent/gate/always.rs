//! A context that always answers yes, for tests that do not depend on it.

use crate::agent::config::{AgentContext, Presence};
use crate::id::SessionId;
use crate::key::DevicePublicKey;

pub(super) struct AlwaysPresent;

impl AgentContext for AlwaysPresent {
    fn device(&self, _: &DevicePublicKey) -> Presence {
        Presence::Present
    }
    fn session(&self, _: &SessionId) -> Presence {
        Presence::Present
    }
    fn may_share(&self, _: &DevicePublicKey, _: &SessionId) -> bool {
        true
    }
}
