//! A context that says yes, for tests of what does not depend on it.

use super::AgentContext;
use crate::id::SessionId;
use crate::key::DevicePublicKey;

pub(super) struct Always;

impl AgentContext for Always {
    fn is_enrolled(&self, _: &DevicePublicKey) -> bool {
        true
    }
    fn session_is_live(&self, _: &SessionId) -> bool {
        true
    }
    fn may_share(&self, _: &DevicePublicKey, _: &SessionId) -> bool {
        true
    }
}
